//! `/v1/me/progress`

use crate::{
    app::App,
    auth::SignedIn,
    extract::{
        Json, Query,
        page::{self, Page},
    },
    problem::Problem,
};
use axum::extract::State;
use chrono::{DateTime, NaiveDate, Utc};
use flatrender_workflows::models::identity::points::{self, Line};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Where you stand.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProgressView {
    /// Always `progress`.
    #[schema(example = "progress")]
    object: &'static str,
    /// All your points.
    #[schema(example = 120)]
    points: i64,
    /// Your level, from 1.
    #[schema(example = 2)]
    level: i32,
    /// The points at which the next one begins.
    #[schema(example = 400)]
    next_level_at: i64,
    /// Days in a row on which there were points, by UTC.
    #[schema(example = 3)]
    streak_days: i32,
    /// The last of them.
    last_active_on: Option<NaiveDate>,
}

/// Points that came.
#[derive(Debug, Serialize, ToSchema)]
pub struct PointsLine {
    /// Its id.
    id: Uuid,
    /// Always `points_entry`.
    #[schema(example = "points_entry")]
    object: &'static str,
    /// How many.
    #[schema(example = 10)]
    points: i32,
    /// `render`, `payment`, `referral` or `achievement`.
    #[schema(example = "render")]
    source: String,
    /// Which one.
    source_id: Uuid,
    /// When.
    created_at: DateTime<Utc>,
}

impl From<Line> for PointsLine {
    fn from(l: Line) -> Self {
        let Line { id, points, source_type, source_id, created_at } = l;
        Self { id, object: "points_entry", points, source: source_type, source_id, created_at }
    }
}

/// Which lines to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListPoints {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those older than this line: `next_cursor` of the page before.
    starting_after: Option<Uuid>,
}

/// `GET /v1/me/progress`
#[utoipa::path(
    get, path = "/v1/me/progress", tag = "Rewards", operation_id = "get_progress", summary = "See where you stand",
    description = "A finished film gives 10 points, a payment 50, somebody you brought 100. Level n begins at 100 × (n − 1)² points.",
    responses((status = 200, description = "Where you stand", body = ProgressView))
)]
pub async fn get(State(app): State<App>, person: SignedIn) -> Result<Json<ProgressView>, Problem> {
    let mut tx = super::begin(&app, &person).await?;
    let now = points::progress(&mut tx, person.tenant_id, person.user_id).await?;
    Ok(Json(ProgressView {
        object: "progress",
        points: now.points,
        level: now.level,
        next_level_at: points::begin_of(now.level.saturating_add(1)),
        streak_days: now.streak_days,
        last_active_on: now.last_active_on,
    }))
}

/// `GET /v1/me/points`
#[utoipa::path(
    get, path = "/v1/me/points", tag = "Rewards", operation_id = "list_points", summary = "List where points came from",
    description = "Newest first, a page at a time. Their sum is what you have.", params(ListPoints),
    responses((status = 200, description = "A page", body = Page<PointsLine>))
)]
pub async fn points(
    State(app): State<App>,
    person: SignedIn,
    Query(query): Query<ListPoints>,
) -> Result<Json<Page<PointsLine>>, Problem> {
    let size = page::size(query.limit)?;
    let mut tx = super::begin(&app, &person).await?;
    let lines = points::ledger(&mut tx, person.user_id, query.starting_after, size + 1).await?;
    Ok(Json(Page::of(lines, size, |l| l.id.to_string())))
}
