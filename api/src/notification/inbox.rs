//! `/v1/notifications`: what you were told.

use super::begin;
use crate::{
    app::App,
    auth::SignedIn,
    extract::{
        Json, Path, Query,
        page::{self, Page},
    },
    problem::{Code, Problem, ProblemBody},
};
use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use flatrender_workflows::models::notification::message::{self, Message};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Something that you were told.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct NotificationView {
    /// Its id.
    id: Uuid,
    /// Always `notification`.
    #[schema(example = "notification")]
    object: &'static str,
    /// What your wishes are about.
    #[schema(example = "renders")]
    category: String,
    /// What happened.
    #[schema(example = "render.completed")]
    kind: String,
    /// In one line, in your language.
    #[schema(example = "Your film is ready")]
    title: String,
    /// More, as text.
    body: String,
    /// What it was made of; `action_url` is where to go from here.
    #[schema(value_type = Object, example = json!({"action_url": "/renders/0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e11"}))]
    data: Value,
    /// `info`, `success`, `warning` or `critical`.
    #[schema(example = "success")]
    severity: String,
    /// When you read it.
    read_at: Option<DateTime<Utc>>,
    /// When you were told.
    created_at: DateTime<Utc>,
}

impl From<Message> for NotificationView {
    fn from(m: Message) -> Self {
        Self {
            id: m.id,
            object: "notification",
            category: m.category,
            kind: m.template_code,
            title: m.title,
            body: m.body,
            data: m.data,
            severity: m.severity,
            read_at: m.read_at,
            created_at: m.created_at,
        }
    }
}

/// How much there is.
#[derive(Debug, Serialize, ToSchema)]
pub struct NotificationCounts {
    /// Not read yet.
    #[schema(example = 3)]
    unread: i64,
    /// In all.
    #[schema(example = 40)]
    total: i64,
}

/// Which to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListNotifications {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those before this one: `next_cursor` of the page before.
    starting_after: Option<String>,
    /// Only those of a category.
    #[param(example = "renders")]
    category: Option<String>,
    /// Only those that are not read.
    unread: Option<bool>,
}

/// What to change.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateNotification {
    /// Whether it is read.
    #[schema(example = true)]
    read: bool,
}

/// Up to when.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadAll {
    /// Those that were told until then, such as `created_at` of the newest one that was seen; all when absent.
    until: Option<DateTime<Utc>>,
}

/// How many.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReadNotifications {
    /// That were not read before.
    #[schema(example = 3)]
    read: u64,
}

/// `GET /v1/notifications`
#[utoipa::path(
    get, path = "/v1/notifications", tag = "Notifications", operation_id = "list_notifications", summary = "List what you were told",
    description = "Newest first, a page at a time. What you put away is not among it.",
    params(ListNotifications), responses((status = 200, description = "A page", body = Page<NotificationView>))
)]
pub async fn list(
    State(app): State<App>,
    me: SignedIn,
    Query(query): Query<ListNotifications>,
) -> Result<Json<Page<NotificationView>>, Problem> {
    let size = page::size(query.limit)?;
    let before = query.starting_after.as_deref().map(position).transpose()?;
    let (of, unread) = (query.category.as_deref(), query.unread == Some(true));
    let mut tx = begin(&app, &me).await?;
    let found = message::list(&mut tx, (me.tenant_id, me.user_id), before, of, unread, size + 1).await?;
    Ok(Json(Page::of(found, size, |m| format!("{}_{}", m.created_at.timestamp_micros(), m.id))))
}

/// `GET /v1/notifications/counts`
#[utoipa::path(
    get, path = "/v1/notifications/counts", tag = "Notifications", operation_id = "count_notifications", summary = "Count what you were told",
    description = "How many you have, and how many of them you have not read.",
    responses((status = 200, description = "How many", body = NotificationCounts))
)]
pub async fn counts(State(app): State<App>, me: SignedIn) -> Result<Json<NotificationCounts>, Problem> {
    let mut tx = begin(&app, &me).await?;
    let message::Counts { unread, total } = message::counts(&mut tx, (me.tenant_id, me.user_id)).await?;
    Ok(Json(NotificationCounts { unread, total }))
}

/// `POST /v1/notifications/read-all`
#[utoipa::path(
    post, path = "/v1/notifications/read-all", tag = "Notifications", operation_id = "read_all_notifications", summary = "Mark all as read",
    description = "Those that were told until a moment, or all. Repeating it is harmless.", request_body = ReadAll,
    responses((status = 200, description = "How many were not read before", body = ReadNotifications))
)]
pub async fn read_all(
    State(app): State<App>,
    me: SignedIn,
    Json(body): Json<ReadAll>,
) -> Result<Json<ReadNotifications>, Problem> {
    let mut tx = begin(&app, &me).await?;
    let read = message::mark_all(&mut tx, (me.tenant_id, me.user_id), body.until).await?;
    tx.commit().await?;
    Ok(Json(ReadNotifications { read }))
}

/// `PATCH /v1/notifications/{id}`
#[utoipa::path(
    patch, path = "/v1/notifications/{id}", tag = "Notifications", operation_id = "update_notification", summary = "Mark as read or unread",
    description = "Repeating it is harmless.", params(("id" = Uuid, Path, description = "The notification")), request_body = UpdateNotification,
    responses(
        (status = 200, description = "The notification, afterwards", body = NotificationView),
        (status = 404, description = "`notification.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn update(
    State(app): State<App>,
    me: SignedIn,
    Path(id): Path<Uuid>,
    Json(body): Json<UpdateNotification>,
) -> Result<Json<NotificationView>, Problem> {
    let user = (me.tenant_id, me.user_id);
    let mut tx = begin(&app, &me).await?;
    message::mark(&mut tx, user, id, body.read).await?;
    let found = message::find(&mut tx, user, id).await?.ok_or_else(missing)?;
    tx.commit().await?;
    Ok(Json(found.into()))
}

/// `DELETE /v1/notifications/{id}`
#[utoipa::path(
    delete, path = "/v1/notifications/{id}", tag = "Notifications", operation_id = "archive_notification", summary = "Put a notification away",
    description = "It is in no list any more.", params(("id" = Uuid, Path, description = "The notification")),
    responses(
        (status = 204, description = "Put away"),
        (status = 404, description = "`notification.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn archive(State(app): State<App>, me: SignedIn, Path(id): Path<Uuid>) -> Result<StatusCode, Problem> {
    let mut tx = begin(&app, &me).await?;
    if !message::archive(&mut tx, (me.tenant_id, me.user_id), id).await? {
        return Err(missing());
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn missing() -> Problem {
    Problem::not_found(Code::NotificationNotFound, "notification")
}

/// What a cursor names.
fn position(cursor: &str) -> Result<(DateTime<Utc>, Uuid), Problem> {
    let parts = cursor.split_once('_').and_then(|(micros, id)| Some((micros.parse().ok()?, id.parse().ok()?)));
    parts
        .and_then(|(micros, id)| Some((DateTime::from_timestamp_micros(micros)?, id)))
        .filter(|(at, _)| (2020..2100).contains(&chrono::Datelike::year(at)))
        .ok_or_else(|| Problem::new(Code::QueryInvalid, "starting_after is no cursor of this list"))
}
