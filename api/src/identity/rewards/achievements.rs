//! `/v1/achievements`

use super::check_code;
use crate::{
    app::App,
    auth::{SignedIn, Viewer},
    extract::{Json, Path},
    identity::{Change, Steward, billing::plans::check_words, made},
    openapi::Words,
    problem::{Code, Problem, ProblemBody},
    revision::{IfMatch, Revised},
};
use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use flatrender_workflows::models::{
    Role, Scope,
    identity::{
        achievement::{self, Achievement, NewAchievement, Rule},
        points::Source,
    },
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use uuid::Uuid;

/// Points that an achievement gives at most.
const MOST_POINTS: i32 = 100_000;

/// Something that can be achieved.
#[derive(Debug, Serialize, ToSchema)]
pub struct AchievementView {
    /// Its id.
    id: Uuid,
    /// Always `achievement`.
    #[schema(example = "achievement")]
    object: &'static str,
    /// What programs call it.
    #[schema(example = "first_film")]
    code: String,
    /// What people call it, by language.
    #[schema(example = json!({"en": "Your first film"}))]
    title: BTreeMap<String, String>,
    /// Points that it gives.
    #[schema(example = 25)]
    points: i32,
    /// When it is achieved.
    rule: Rule,
    /// Whether it can be achieved now.
    active: bool,
    /// When you achieved it.
    earned_at: Option<DateTime<Utc>>,
}

impl From<Achievement> for AchievementView {
    fn from(a: Achievement) -> Self {
        let Achievement { id, code, title, points, rule, active, earned_at, rev: _ } = a;
        Self { id, object: "achievement", code, title: title.0, points, rule: rule.0, active, earned_at }
    }
}

fn revised(achievement: Achievement) -> Revised<AchievementView> {
    Revised::ok(achievement.rev, achievement.into())
}

/// Every achievement.
#[derive(Debug, Serialize, ToSchema)]
pub struct AchievementList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// By code.
    data: Vec<AchievementView>,
    /// Always false.
    has_more: bool,
}

/// An achievement to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateAchievement {
    /// 1 to 64 of `a-z 0-9 _`.
    #[schema(example = "first_film", pattern = "^[a-z0-9_]{1,64}$")]
    code: String,
    /// What people call it, by language.
    #[schema(value_type = Words)]
    title: BTreeMap<String, String>,
    /// Points that it gives, 0 to 100000.
    #[schema(example = 25, minimum = 0, maximum = 100_000)]
    points: i32,
    /// When it is achieved.
    rule: Rule,
}

/// What to change of an achievement.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateAchievement {
    /// Whether it can be achieved; who has it keeps it.
    active: bool,
}

/// `GET /v1/achievements`
#[utoipa::path(
    get, path = "/v1/achievements", tag = "Rewards", operation_id = "list_achievements", summary = "List what can be achieved",
    description = "And when you achieved it.", responses((status = 200, description = "All of them", body = AchievementList))
)]
pub async fn list(State(app): State<App>, person: SignedIn) -> Result<Json<AchievementList>, Problem> {
    let mut tx = super::begin(&app, &person).await?;
    let all = achievement::list(&mut tx, person.tenant_id, Some(person.user_id)).await?;
    Ok(Json(AchievementList { object: "list", data: all.into_iter().map(Into::into).collect(), has_more: false }))
}

/// `POST /v1/achievements`
#[utoipa::path(
    post, path = "/v1/achievements", tag = "Rewards", operation_id = "create_achievement", summary = "Make an achievement",
    description = "It is achieved with the next film, payment or referral that counts.", request_body = CreateAchievement,
    responses(
        (status = 201, description = "Made", body = AchievementView, headers(("ETag" = String, description = "Its revision"))),
        (status = 409, description = "`achievement.exists`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn create(
    State(app): State<App>,
    steward: Steward,
    Json(body): Json<CreateAchievement>,
) -> Result<Revised<AchievementView>, Problem> {
    body.check()?;
    let mut tx = steward.begin(&app).await?;
    let new = NewAchievement { code: &body.code, title: &body.title, points: body.points, rule: &body.rule };
    let id = achievement::create(&mut tx, steward.tenant_id, &new).await?;
    let id = id.ok_or_else(|| Problem::new(Code::AchievementExists, "there is an achievement of this code"))?;
    let made_now = achievement::find(&mut tx, steward.tenant_id, id, None).await?.ok_or_else(missing)?;
    steward.record(&mut tx, "achievement.create", &format!("achievement:{id}"), made(&made_now)).await?;
    tx.commit().await?;
    Ok(Revised { status: StatusCode::CREATED, ..revised(made_now) })
}

/// `GET /v1/achievements/{id}`
#[utoipa::path(
    get, path = "/v1/achievements/{id}", tag = "Rewards", operation_id = "get_achievement", summary = "Get something that can be achieved",
    description = "And when you achieved it.", params(("id" = Uuid, Path, description = "The achievement")),
    responses(
        (status = 200, description = "The achievement", body = AchievementView, headers(("ETag" = String, description = "Its revision"))),
        (status = 404, description = "`achievement.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get(
    State(app): State<App>,
    viewer: Viewer,
    Path(id): Path<Uuid>,
) -> Result<Revised<AchievementView>, Problem> {
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, viewer.id)).await?;
    let found = achievement::find(&mut tx, viewer.id, id, viewer.actor.user_id()).await?;
    found.map(revised).ok_or_else(missing)
}

/// `PATCH /v1/achievements/{id}`
#[utoipa::path(
    patch, path = "/v1/achievements/{id}", tag = "Rewards", operation_id = "update_achievement", summary = "Let something be achieved, or no longer",
    description = "Who has it keeps it.",
    params(("id" = Uuid, Path, description = "The achievement"), ("If-Match" = Option<String>, Header, description = "`ETag` of the achievement as you know it")),
    request_body = UpdateAchievement,
    responses(
        (status = 200, description = "The achievement, afterwards", body = AchievementView, headers(("ETag" = String, description = "Its revision"))),
        (status = 404, description = "`achievement.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "`revision.stale`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn update(
    State(app): State<App>,
    steward: Steward,
    Path(id): Path<Uuid>,
    known: IfMatch,
    Json(body): Json<UpdateAchievement>,
) -> Result<Revised<AchievementView>, Problem> {
    let mut tx = steward.begin(&app).await?;
    let before = achievement::hold(&mut tx, steward.tenant_id, id).await?.ok_or_else(missing)?;
    known.check(before.rev)?;
    achievement::set_active(&mut tx, steward.tenant_id, id, body.active).await?;
    let after = achievement::find(&mut tx, steward.tenant_id, id, None).await?.ok_or_else(missing)?;
    let change = Change { before: Some(&before), after: Some(&after) };
    steward.record(&mut tx, "achievement.update", &format!("achievement:{id}"), change).await?;
    tx.commit().await?;
    Ok(revised(after))
}

fn missing() -> Problem {
    Problem::not_found(Code::AchievementNotFound, "achievement")
}

impl CreateAchievement {
    fn check(&self) -> Result<(), Problem> {
        check_code(&self.code)?;
        check_words("/title", &self.title)?;
        if !(0..=MOST_POINTS).contains(&self.points) {
            return Err(Problem::fault("/points", "achievement.points", "an achievement gives 0 to 100000 points"));
        }
        let known = Source::COUNTED.iter().any(|source| source.name() == self.rule.source);
        if !known || !(1..=1_000_000).contains(&self.rule.count) {
            let detail = "a rule counts render, payment or referral, 1 to 1000000 of them";
            return Err(Problem::fault("/rule", "achievement.rule", detail));
        }
        Ok(())
    }
}
