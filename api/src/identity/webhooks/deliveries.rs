//! `/v1/webhooks/{id}/deliveries`, `/v1/webhooks/{id}/replay`, `/v1/webhooks/{id}/test`: what was sent to a webhook, and sending it again.

use super::{found, held, place};
use crate::{
    app::App,
    extract::{
        Json, Path, Query,
        page::{self, Page},
    },
    identity::{
        Steward,
        steward::{Change, made},
    },
    problem::{Code, Problem, ProblemBody},
};
use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use flatrender_workflows::{
    definitions::webhook::TellWebhook,
    models::{
        Db, Role, Scope,
        identity::{
            tenant_webhook::{EVENTS, TEST_EVENT, Webhook},
            tenant_webhook_delivery::{self, Delivery, NewDelivery, Replay, STATES, Tried, Which},
            tenant_webhook_event::{self, NewEvent},
        },
        time_series,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Deliveries that are sent again with one request.
const MOST_REPLAYS: i64 = 1000;

/// A delivery of an event to a webhook.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryView {
    /// Its id.
    id: Uuid,
    /// Always `webhook_delivery`.
    #[schema(example = "webhook_delivery")]
    object: &'static str,
    /// The event: the header `webhook-id`, the same however often it is sent.
    event_id: Uuid,
    /// What happened.
    #[schema(example = "render.completed")]
    event_type: String,
    /// When it happened.
    occurred_at: DateTime<Utc>,
    /// 0 for what we sent by ourselves; counts how often it was sent by hand.
    #[schema(example = 0)]
    replay_no: i32,
    /// `pending`, `delivered`, `failed`, `cancelled`, or `missed`: the webhook was paused or disabled.
    #[schema(example = "delivered")]
    state: String,
    /// When it is tried again.
    next_at: Option<DateTime<Utc>>,
    /// The HTTP status of the last answer; null when there was none.
    #[schema(example = 200)]
    last_status: Option<i32>,
    /// Why the last attempt failed: `webhook.no_answer`, `webhook.bad_status`.
    last_error: Option<String>,
    /// The begin of the last answer, when it was text: 4096 bytes at most.
    response_excerpt: Option<String>,
    /// What came of each attempt.
    attempts: Vec<AttemptView>,
    /// When it was made.
    created_at: DateTime<Utc>,
}

/// An attempt to deliver.
#[derive(Debug, Serialize, ToSchema)]
pub struct AttemptView {
    /// From 1.
    #[schema(example = 1)]
    no: i32,
    /// When it began.
    at: DateTime<Utc>,
    /// The HTTP status of the answer; null when there was none.
    #[schema(example = 200)]
    status: Option<i32>,
    /// Why it failed.
    error: Option<String>,
    /// How long the answer took, in milliseconds; null when there was none.
    #[schema(example = 84)]
    latency_ms: Option<i32>,
}

impl From<Delivery> for DeliveryView {
    fn from(d: Delivery) -> Self {
        let attempt =
            |t: Tried| AttemptView { no: t.no, at: t.at, status: t.status, error: t.error, latency_ms: t.latency_ms };
        Self {
            id: d.id,
            object: "webhook_delivery",
            event_id: d.event_id,
            event_type: d.event_type,
            occurred_at: d.occurred_at,
            replay_no: d.replay_no,
            state: d.state,
            next_at: d.next_at,
            last_status: d.last_status,
            last_error: d.last_error,
            response_excerpt: d.response_excerpt,
            attempts: d.attempts.0.into_iter().map(attempt).collect(),
            created_at: d.created_at,
        }
    }
}

/// A delivery with what it tells.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryDetail {
    #[serde(flatten)]
    delivery: DeliveryView,
    /// What is told of the object that the event is about.
    #[schema(value_type = Object, example = json!({"id": "0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e11", "status": "completed"}))]
    data: Value,
}

/// Which deliveries to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListDeliveries {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those older than this one: `next_cursor` of the page before.
    starting_after: Option<String>,
    /// Only those in this state: `pending`, `delivered`, `failed`, `cancelled` or `missed`.
    #[param(example = "failed")]
    state: Option<String>,
    /// Only those of this event.
    #[param(example = "render.completed")]
    r#type: Option<String>,
}

/// What to send again.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayDeliveries {
    /// Only those in this state: `delivered`, `failed`, `cancelled` or `missed`; all of them when absent.
    #[schema(example = "missed")]
    state: Option<String>,
    /// Only those of this event.
    #[schema(example = "render.completed")]
    r#type: Option<String>,
    /// Of events from then on.
    from: Option<DateTime<Utc>>,
    /// Of events before.
    until: Option<DateTime<Utc>>,
}

/// How much is sent again.
#[derive(Debug, Serialize, ToSchema)]
pub struct Replays {
    /// Always `webhook_replay`.
    #[schema(example = "webhook_replay")]
    object: &'static str,
    /// Deliveries, the oldest events first.
    #[schema(example = 42)]
    count: usize,
    /// Whether there are more: ask again, with `from` at `reached`.
    has_more: bool,
    /// When the newest of these events happened.
    reached: Option<DateTime<Utc>>,
}

/// `GET /v1/webhooks/{id}/deliveries`
#[utoipa::path(
    get, path = "/v1/webhooks/{id}/deliveries", tag = "Webhooks", operation_id = "list_webhook_deliveries", summary = "List deliveries",
    description = "What was sent to a webhook and what came of it, those of the newest events first, a page at a time.",
    params(("id" = Uuid, Path, description = "The webhook"), ListDeliveries),
    responses(
        (status = 200, description = "A page", body = Page<DeliveryView>),
        (status = 404, description = "`webhook.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn list(
    State(app): State<App>,
    steward: Steward,
    Path(id): Path<Uuid>,
    Query(query): Query<ListDeliveries>,
) -> Result<Json<Page<DeliveryView>>, Problem> {
    let size = page::size(query.limit)?;
    let before = query.starting_after.as_deref().map(cursor_of).transpose()?;
    let (state, kind) = (query.state.as_deref(), query.r#type.as_deref());
    if state.is_some_and(|state| !STATES.contains(&state)) {
        return Err(Problem::new(Code::QueryInvalid, format!("state is one of {}", STATES.join(", "))));
    }
    let mut tx = steward.begin(&app).await?;
    found(&mut tx, steward.tenant_id, id).await?;
    let which = Which { state, kind, before, ..Which::default() };
    let rows = tenant_webhook_delivery::list(&mut tx, steward.tenant_id, id, which, size + 1).await?;
    Ok(Json(Page::of(rows, size, cursor)))
}

/// `GET /v1/webhooks/{id}/deliveries/{delivery_id}`
#[utoipa::path(
    get, path = "/v1/webhooks/{id}/deliveries/{delivery_id}", tag = "Webhooks", operation_id = "get_webhook_delivery", summary = "Get a delivery",
    description = "With each of its attempts, and what it tells.",
    params(("id" = Uuid, Path, description = "The webhook"), ("delivery_id" = Uuid, Path, description = "The delivery")),
    responses(
        (status = 200, description = "The delivery", body = DeliveryDetail),
        (status = 404, description = "`webhook.not_found`, `webhook.delivery_not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get(
    State(app): State<App>,
    steward: Steward,
    Path((id, delivery_id)): Path<(Uuid, Uuid)>,
) -> Result<Json<DeliveryDetail>, Problem> {
    let mut tx = steward.begin(&app).await?;
    found(&mut tx, steward.tenant_id, id).await?;
    detail(&mut tx, &steward, id, delivery_id).await.map(Json)
}

/// `POST /v1/webhooks/{id}/deliveries/{delivery_id}/replay`
#[utoipa::path(
    post, path = "/v1/webhooks/{id}/deliveries/{delivery_id}/replay", tag = "Webhooks", operation_id = "replay_webhook_delivery",
    summary = "Send a delivery again",
    description = "With the same `webhook-id`, a new timestamp and signature, and all the patience of the first time. Answers with the new delivery.",
    params(("id" = Uuid, Path, description = "The webhook"), ("delivery_id" = Uuid, Path, description = "The delivery")),
    responses(
        (status = 202, description = "It is sent", body = DeliveryDetail),
        (status = 404, description = "`webhook.not_found`, `webhook.delivery_not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`webhook.not_active`, `webhook.delivery_pending`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn replay(
    State(app): State<App>,
    steward: Steward,
    Path((id, delivery_id)): Path<(Uuid, Uuid)>,
) -> Result<(StatusCode, Json<DeliveryDetail>), Problem> {
    let mut tx = steward.begin(&app).await?;
    active(&mut tx, &steward, id).await?;
    let (delivery, _) =
        tenant_webhook_delivery::find(&mut tx, steward.tenant_id, id, delivery_id).await?.ok_or_else(missing)?;
    if delivery.state == "pending" {
        return Err(Problem::new(Code::WebhookDeliveryPending, "it is being sent; wait until it has ended"));
    }
    let again = send_again(&app, &mut tx, &steward, &[(delivery_id, delivery.occurred_at)]).await?;
    let again = again.first().copied().unwrap_or(delivery_id);
    let detail = detail(&mut tx, &steward, id, again).await?;
    let change = Change { before: Some(delivery_id), after: Some(again) };
    steward.record(&mut tx, "webhook.replay", &place(id), change).await?;
    tx.commit().await?;
    app.workflows.announce();
    Ok((StatusCode::ACCEPTED, Json(detail)))
}

/// `POST /v1/webhooks/{id}/replay`
#[utoipa::path(
    post, path = "/v1/webhooks/{id}/replay", tag = "Webhooks", operation_id = "replay_webhook_deliveries", summary = "Send deliveries again",
    description = "Of each event the newest delivery that has ended and is as asked for, the oldest events first, a thousand at a time: what a \
                   webhook missed while it was paused, say. What arrived since is sent again only when it is asked for by its state.",
    params(("id" = Uuid, Path, description = "The webhook")), request_body = ReplayDeliveries,
    responses(
        (status = 202, description = "They are sent", body = Replays),
        (status = 404, description = "`webhook.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`webhook.not_active`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn replay_all(
    State(app): State<App>,
    steward: Steward,
    Path(id): Path<Uuid>,
    Json(body): Json<ReplayDeliveries>,
) -> Result<(StatusCode, Json<Replays>), Problem> {
    body.check()?;
    let mut tx = steward.begin(&app).await?;
    active(&mut tx, &steward, id).await?;
    let which = Which {
        state: body.state.as_deref(),
        kind: body.r#type.as_deref(),
        from: body.from,
        until: body.until,
        before: None,
    };
    let mut chosen =
        tenant_webhook_delivery::to_replay(&mut tx, steward.tenant_id, id, which, MOST_REPLAYS + 1).await?;
    let has_more = chosen.len() as i64 > MOST_REPLAYS;
    chosen.truncate(MOST_REPLAYS as usize);
    let reached = chosen.last().map(|(_, at)| *at);
    let count = send_again(&app, &mut tx, &steward, &chosen).await?.len();
    steward.record(&mut tx, "webhook.replay", &place(id), made((&body, count))).await?;
    tx.commit().await?;
    app.workflows.announce();
    Ok((StatusCode::ACCEPTED, Json(Replays { object: "webhook_replay", count, has_more, reached })))
}

/// `POST /v1/webhooks/{id}/test`
#[utoipa::path(
    post, path = "/v1/webhooks/{id}/test", tag = "Webhooks", operation_id = "test_webhook", summary = "Try a webhook",
    description = "Sends the event `webhook.test` to this webhook alone, also while it is paused. Answers with its delivery; ask for that one to see what came of it.",
    params(("id" = Uuid, Path, description = "The webhook")),
    responses(
        (status = 202, description = "It is sent", body = DeliveryDetail),
        (status = 404, description = "`webhook.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`webhook.not_active`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn test(
    State(app): State<App>,
    steward: Steward,
    Path(id): Path<Uuid>,
) -> Result<(StatusCode, Json<DeliveryDetail>), Problem> {
    let mut tx = steward.begin(&app).await?;
    let webhook = held(&mut tx, steward.tenant_id, id).await?;
    if webhook.state == "disabled" {
        return Err(inactive(&webhook));
    }
    let (tenant_id, occurred_at) = (steward.tenant_id, time_series::moment(&mut tx).await?);
    let (delivery_id, source) = (Uuid::now_v7(), Uuid::now_v7());
    let data = json!({"id": id, "object": "webhook", "version": occurred_at.timestamp_micros()});
    let new = NewEvent { tenant_id, kind: TEST_EVENT, data: &data, occurred_at, source };
    let event_id = tenant_webhook_event::insert(&mut tx, new).await?.ok_or(sqlx::Error::RowNotFound)?;
    Scope::tenant(Role::Workflow, tenant_id).enter(&mut tx).await?;
    let run = app.workflows.start_all(&mut tx, tenant_id, [TellWebhook { delivery_id, occurred_at }]).await?;
    Scope::tenant(Role::Identity, tenant_id).enter(&mut tx).await?;
    let new = NewDelivery { id: delivery_id, webhook_id: id, run_id: run.first().copied() };
    tenant_webhook_delivery::insert(&mut tx, tenant_id, event_id, occurred_at, &[new]).await?;
    let detail = detail(&mut tx, &steward, id, delivery_id).await?;
    steward.record(&mut tx, "webhook.test", &place(id), made(event_id)).await?;
    tx.commit().await?;
    app.workflows.announce();
    Ok((StatusCode::ACCEPTED, Json(detail)))
}

/// Starts deliveries that repeat these, and gives their ids. The transaction goes on as of the tenant's identity.
async fn send_again(
    app: &App,
    db: Db<'_>,
    steward: &Steward,
    chosen: &[(Uuid, DateTime<Utc>)],
) -> Result<Vec<Uuid>, Problem> {
    let ids: Vec<Uuid> = chosen.iter().map(|_| Uuid::now_v7()).collect();
    let runs = ids.iter().zip(chosen).map(|(id, (_, at))| TellWebhook { delivery_id: *id, occurred_at: *at });
    Scope::tenant(Role::Workflow, steward.tenant_id).enter(&mut *db).await?;
    let runs = app.workflows.start_all(&mut *db, steward.tenant_id, runs).await?;
    Scope::tenant(Role::Identity, steward.tenant_id).enter(&mut *db).await?;
    let replay = |((id, (of, occurred_at)), run_id): ((&Uuid, &(Uuid, DateTime<Utc>)), Uuid)| Replay {
        id: *id,
        of: *of,
        occurred_at: *occurred_at,
        run_id,
    };
    let replays: Vec<Replay> = ids.iter().zip(chosen).zip(runs).map(replay).collect();
    tenant_webhook_delivery::replay(db, &replays).await?;
    Ok(ids)
}

async fn detail(db: Db<'_>, steward: &Steward, id: Uuid, delivery_id: Uuid) -> Result<DeliveryDetail, Problem> {
    let found = tenant_webhook_delivery::find(db, steward.tenant_id, id, delivery_id).await?;
    found.map(|(delivery, data)| DeliveryDetail { delivery: delivery.into(), data }).ok_or_else(missing)
}

/// The webhook, held until the transaction ends; it is called.
async fn active(db: Db<'_>, steward: &Steward, id: Uuid) -> Result<Webhook, Problem> {
    let webhook = held(db, steward.tenant_id, id).await?;
    if webhook.state == "active" { Ok(webhook) } else { Err(inactive(&webhook)) }
}

fn inactive(webhook: &Webhook) -> Problem {
    Problem::new(Code::WebhookNotActive, format!("the webhook is {}; let it go on first", webhook.state))
}

fn missing() -> Problem {
    Problem::not_found(Code::WebhookDeliveryNotFound, "delivery")
}

fn cursor(delivery: &Delivery) -> String {
    format!("{}.{}", delivery.occurred_at.timestamp_micros(), delivery.id)
}

fn cursor_of(text: &str) -> Result<(DateTime<Utc>, Uuid), Problem> {
    let read = || {
        let (at, id) = text.split_once('.')?;
        Some((DateTime::from_timestamp_micros(at.parse().ok()?)?, id.parse().ok()?))
    };
    read().ok_or_else(|| Problem::new(Code::QueryInvalid, "starting_after is the next_cursor of a page"))
}

impl ReplayDeliveries {
    fn check(&self) -> Result<(), Problem> {
        if self.state.as_deref().is_some_and(|state| state == "pending" || !STATES.contains(&state)) {
            let detail = "what has ended is delivered, failed, cancelled or missed";
            return Err(Problem::fault("/state", "webhook.state", detail));
        }
        let known = |kind: &str| EVENTS.contains(&kind) || kind == TEST_EVENT;
        if self.r#type.as_deref().is_some_and(|kind| !known(kind)) {
            return Err(Problem::fault("/type", "webhook.events", "there is no such event"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let at = DateTime::from_timestamp_micros(1_700_000_000_123_456).expect("a time");
        let text = format!("1700000000123456.{}", Uuid::from_u128(5));
        assert_eq!(cursor_of(&text).ok(), Some((at, Uuid::from_u128(5))));
        for wrong in [
            "",
            ".",
            "1.x",
            "x.00000000-0000-0000-0000-000000000005",
            "9223372036854775807.00000000-0000-0000-0000-000000000005",
        ] {
            assert_eq!(cursor_of(wrong).map_err(|p| p.code()), Err(Code::QueryInvalid), "{wrong}");
        }
    }
}
