//! `/v1/webhooks`: where a tenant hears of its events.

pub mod deliveries;
pub mod events;

use super::{
    Steward, Trustee,
    steward::{Change, made},
};
use crate::{
    app::App,
    extract::{Json, Path},
    problem::{Code, Problem, ProblemBody},
    revision::{IfMatch, Revised},
};
use axum::{
    extract::State,
    http::{HeaderName, StatusCode, header},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use chrono::{DateTime, Utc};
use flatrender_activities::{
    egress,
    webhook::{SECRET_KIND, key_pair},
};
use flatrender_workflows::models::{
    Db,
    identity::tenant_webhook::{self, EVENTS, EVERY_EVENT, MOST_WEBHOOKS, Webhook},
};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;
use uuid::Uuid;

/// Signed with a secret that both sides have.
const SHARED: &str = "v1";
/// Signed with a key of which the tenant has the public half.
const KEY_PAIR: &str = "v1a";
/// Bytes of a secret: 24 to 64 by Standard Webhooks.
const SECRET_BYTES: usize = 32;
/// How long the secret before signs as well when nobody says: a day.
const OVERLAP_SECONDS: u32 = 86_400;
/// The longest time: 30 days.
const MOST_OVERLAP_SECONDS: u32 = 30 * 86_400;

/// A webhook, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookView {
    /// Its id.
    id: Uuid,
    /// Always `webhook`.
    #[schema(example = "webhook")]
    object: &'static str,
    /// What is called.
    #[schema(example = "https://acme.example/flatrender")]
    url: String,
    /// What it hears of; `*` is everything.
    #[schema(example = json!(["render.completed", "render.failed"]))]
    events: Vec<String>,
    /// How deliveries are signed: `v1`, HMAC-SHA256 by a secret that you have too, or `v1a`, Ed25519 by a key that only we have.
    #[schema(example = "v1")]
    signing: String,
    /// `active`; `paused` by you, or by us when it failed for too long; or `disabled` by its receiver.
    #[schema(example = "active")]
    state: String,
    /// Why we have paused or disabled it.
    disabled_reason: Option<String>,
    /// How often it has failed since it worked last.
    #[schema(example = 0)]
    consecutive_failures: i32,
    /// Until when deliveries are signed with the secret before, too.
    previous_secret_until: Option<DateTime<Utc>>,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it was changed.
    updated_at: DateTime<Utc>,
}

impl From<Webhook> for WebhookView {
    fn from(w: Webhook) -> Self {
        Self {
            id: w.id,
            object: "webhook",
            url: w.url,
            events: w.event_types,
            signing: w.signing,
            state: w.state,
            disabled_reason: w.disabled_reason,
            consecutive_failures: w.consecutive_failures,
            previous_secret_until: w.prev_valid_until,
            created_at: w.created_at,
            updated_at: w.updated_at,
        }
    }
}

fn revised(webhook: Webhook) -> Revised<WebhookView> {
    Revised::ok(webhook.rev, webhook.into())
}

/// A webhook with a new secret.
#[derive(Serialize, ToSchema)]
pub struct WebhookSecretView {
    /// What is known of it.
    #[serde(flatten)]
    webhook: WebhookView,
    /// What deliveries are verified with (Standard Webhooks): the secret, or the public key `whpk_…` of `v1a`. It is shown this once and
    /// cannot be had again.
    #[schema(example = "whsec_…")]
    secret: String,
}

/// Every webhook of the tenant.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// Newest first; at most 20.
    data: Vec<WebhookView>,
    /// Always false.
    has_more: bool,
}

/// A webhook to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateWebhook {
    /// What is to be called: `https://`, on port 443, at a host that everybody can reach.
    #[schema(example = "https://acme.example/flatrender", max_length = 2048)]
    url: String,
    /// What it is to hear of: what `GET /v1/webhook-events` lists, or `*` alone; everything when absent.
    #[schema(example = json!(["render.completed", "render.failed"]))]
    events: Option<Vec<String>>,
    /// How deliveries are signed: `v1`, as when it is absent, or `v1a`.
    #[schema(example = "v1")]
    signing: Option<String>,
}

/// What to change of a webhook; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateWebhook {
    /// What is to be called.
    #[schema(example = "https://acme.example/flatrender", max_length = 2048)]
    url: Option<String>,
    /// What it is to hear of.
    #[schema(example = json!(["*"]))]
    events: Option<Vec<String>>,
    /// False pauses it; true lets it go on, also one that was disabled.
    active: Option<bool>,
}

/// How to change the secret.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateSecret {
    /// For how long deliveries are signed with the secret before, too: 0 to 2592000; a day when absent.
    #[schema(example = 3600, maximum = 2_592_000)]
    overlap_seconds: Option<u32>,
}

type Shown = ([(HeaderName, &'static str); 1], Revised<WebhookSecretView>);

/// `POST /v1/webhooks`: answers 201 with the secret, which is shown only here.
#[utoipa::path(
    post, path = "/v1/webhooks", tag = "Webhooks", operation_id = "create_webhook", summary = "Make a webhook",
    description = "The answer holds the secret that its deliveries are signed with, this once.", request_body = CreateWebhook,
    responses(
        (status = 201, description = "Made", body = WebhookSecretView, headers(("ETag" = String, description = "Its revision"))),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`webhook.too_many`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn create(
    State(app): State<App>,
    steward: Trustee,
    Json(body): Json<CreateWebhook>,
) -> Result<Shown, Problem> {
    let url = check_url(&app, &body.url)?;
    let events = body.events.unwrap_or_else(|| vec![EVERY_EVENT.to_owned()]);
    check_events(&events)?;
    let signing = body.signing.as_deref().unwrap_or(SHARED);
    if ![SHARED, KEY_PAIR].contains(&signing) {
        return Err(Problem::fault("/signing", "webhook.signing", "the signing is v1 or v1a"));
    }
    let (id, secret) = (Uuid::now_v7(), new_secret(signing));
    let mut tx = steward.begin(&app).await?;
    let sealed = app.vault.seal(&place(id), secret.kept.as_bytes());
    if !tenant_webhook::create(&mut tx, steward.tenant_id, id, &url, &events, signing, &sealed).await? {
        return Err(Problem::new(Code::WebhooksFull, format!("a tenant has at most {MOST_WEBHOOKS} webhooks")));
    }
    let webhook = found(&mut tx, steward.tenant_id, id).await?;
    steward.record(&mut tx, "webhook.create", &place(id), made(&webhook)).await?;
    tx.commit().await?;
    Ok(shown(StatusCode::CREATED, webhook, secret.shown))
}

/// `GET /v1/webhooks`
#[utoipa::path(
    get, path = "/v1/webhooks", tag = "Webhooks", operation_id = "list_webhooks", summary = "List webhooks",
    description = "All of them, newest first. Never their secrets.",
    responses((status = 200, description = "All of them", body = WebhookList))
)]
pub async fn list(State(app): State<App>, steward: Steward) -> Result<Json<WebhookList>, Problem> {
    let mut tx = steward.begin(&app).await?;
    let data = tenant_webhook::list(&mut tx, steward.tenant_id).await?.into_iter().map(Into::into).collect();
    Ok(Json(WebhookList { object: "list", data, has_more: false }))
}

/// `GET /v1/webhooks/{id}`
#[utoipa::path(
    get, path = "/v1/webhooks/{id}", tag = "Webhooks", operation_id = "get_webhook", summary = "Get a webhook",
    description = "What is known of it, without its secret.", params(("id" = Uuid, Path, description = "The webhook")),
    responses(
        (status = 200, description = "The webhook", body = WebhookView, headers(("ETag" = String, description = "Its revision"))),
        (status = 404, description = "`webhook.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get(
    State(app): State<App>,
    steward: Steward,
    Path(id): Path<Uuid>,
) -> Result<Revised<WebhookView>, Problem> {
    let mut tx = steward.begin(&app).await?;
    Ok(revised(found(&mut tx, steward.tenant_id, id).await?))
}

/// `PATCH /v1/webhooks/{id}`
#[utoipa::path(
    patch, path = "/v1/webhooks/{id}", tag = "Webhooks", operation_id = "update_webhook", summary = "Change a webhook",
    description = "What is absent stays as it is. `active` pauses it or lets it go on, also one that was disabled because it failed for too long.",
    params(("id" = Uuid, Path, description = "The webhook"), ("If-Match" = Option<String>, Header, description = "`ETag` of the webhook as you know it")),
    request_body = UpdateWebhook,
    responses(
        (status = 200, description = "The webhook, afterwards", body = WebhookView, headers(("ETag" = String, description = "Its revision"))),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`webhook.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "`revision.stale`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn update(
    State(app): State<App>,
    steward: Trustee,
    Path(id): Path<Uuid>,
    known: IfMatch,
    Json(body): Json<UpdateWebhook>,
) -> Result<Revised<WebhookView>, Problem> {
    let url = body.url.as_deref().map(|url| check_url(&app, url)).transpose()?;
    if let Some(events) = &body.events {
        check_events(events)?;
    }
    let mut tx = steward.begin(&app).await?;
    let before = held(&mut tx, steward.tenant_id, id).await?;
    known.check(before.rev)?;
    let change =
        tenant_webhook::Change { url: url.as_deref(), event_types: body.events.as_deref(), active: body.active };
    tenant_webhook::update(&mut tx, steward.tenant_id, id, change).await?;
    let after = found(&mut tx, steward.tenant_id, id).await?;
    let change = Change { before: Some(&before), after: Some(&after) };
    steward.record(&mut tx, "webhook.update", &place(id), change).await?;
    tx.commit().await?;
    Ok(revised(after))
}

/// `DELETE /v1/webhooks/{id}`
#[utoipa::path(
    delete, path = "/v1/webhooks/{id}", tag = "Webhooks", operation_id = "delete_webhook", summary = "Remove a webhook",
    description = "With the record of what was delivered to it.", params(("id" = Uuid, Path, description = "The webhook")),
    responses(
        (status = 204, description = "Removed"),
        (status = 404, description = "`webhook.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn remove(State(app): State<App>, steward: Steward, Path(id): Path<Uuid>) -> Result<StatusCode, Problem> {
    let mut tx = steward.begin(&app).await?;
    let before = held(&mut tx, steward.tenant_id, id).await?;
    tenant_webhook::remove(&mut tx, steward.tenant_id, id).await?;
    let change = Change { before: Some(&before), after: None::<()> };
    steward.record(&mut tx, "webhook.delete", &place(id), change).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/webhooks/{id}/rotate-secret`: answers 200 with the new secret, which is shown only here.
#[utoipa::path(
    post, path = "/v1/webhooks/{id}/rotate-secret", tag = "Webhooks", operation_id = "rotate_webhook_secret", summary = "Change a webhook's secret",
    description = "Shows the new secret this once. For `overlap_seconds` deliveries are signed with both, so that no receiver misses one.",
    params(("id" = Uuid, Path, description = "The webhook")), request_body = RotateSecret,
    responses(
        (status = 200, description = "The webhook with its new secret", body = WebhookSecretView, headers(("ETag" = String, description = "Its revision"))),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`webhook.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn rotate(
    State(app): State<App>,
    steward: Trustee,
    Path(id): Path<Uuid>,
    Json(body): Json<RotateSecret>,
) -> Result<Shown, Problem> {
    let overlap = body.overlap()?;
    let mut tx = steward.begin(&app).await?;
    let before = held(&mut tx, steward.tenant_id, id).await?;
    let secret = new_secret(&before.signing);
    let sealed = app.vault.seal(&place(id), secret.kept.as_bytes());
    tenant_webhook::rotate(&mut tx, steward.tenant_id, id, &sealed, overlap).await?;
    let after = found(&mut tx, steward.tenant_id, id).await?;
    let change = Change { before: Some(&before), after: Some(&after) };
    steward.record(&mut tx, "webhook.rotate_secret", &place(id), change).await?;
    tx.commit().await?;
    Ok(shown(StatusCode::OK, after, secret.shown))
}

fn shown(status: StatusCode, webhook: Webhook, secret: String) -> Shown {
    let (rev, view) = (webhook.rev, WebhookSecretView { webhook: webhook.into(), secret });
    ([(header::CACHE_CONTROL, "no-store")], Revised { status, rev, view })
}

/// What signs, and what its tenant verifies with.
struct NewSecret {
    kept: String,
    shown: String,
}

fn new_secret(signing: &str) -> NewSecret {
    let bytes: [u8; SECRET_BYTES] = rand::rng().random();
    if signing == KEY_PAIR {
        let (kept, shown) = key_pair(&bytes);
        return NewSecret { kept, shown };
    }
    let kept = format!("{SECRET_KIND}{}", BASE64.encode(bytes));
    NewSecret { shown: kept.clone(), kept }
}

/// What the audit calls it, and the one place where its secrets open.
pub(crate) fn place(id: Uuid) -> String {
    format!("webhook:{id}")
}

async fn found(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> Result<Webhook, Problem> {
    tenant_webhook::find(db, tenant_id, id).await?.ok_or_else(missing)
}

async fn held(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> Result<Webhook, Problem> {
    tenant_webhook::hold(db, tenant_id, id).await?.ok_or_else(missing)
}

fn missing() -> Problem {
    Problem::not_found(Code::WebhookNotFound, "webhook")
}

/// The address as it is called. What its name leads to is looked at when it is.
fn check_url(app: &App, text: &str) -> Result<String, Problem> {
    let url = egress::target(text, app.egress.reach());
    url.map(Into::into).map_err(|refused| Problem::fault("/url", "webhook.url", refused.to_string()))
}

fn check_events(events: &[String]) -> Result<(), Problem> {
    let wrong = |detail: String| Err(Problem::fault("/events", "webhook.events", detail));
    if events == [EVERY_EVENT] {
        return Ok(());
    }
    if let Some(unknown) = events.iter().find(|event| !EVENTS.contains(&event.as_str())) {
        return wrong(format!(
            "there is no event {unknown:?}; there are {}, or {EVERY_EVENT} alone",
            EVENTS.join(", ")
        ));
    }
    if events.is_empty() || (1..events.len()).any(|i| events[..i].contains(&events[i])) {
        return wrong("name each event once, and at least one".to_owned());
    }
    Ok(())
}

impl RotateSecret {
    fn overlap(&self) -> Result<Duration, Problem> {
        let seconds = self.overlap_seconds.unwrap_or(OVERLAP_SECONDS);
        if seconds > MOST_OVERLAP_SECONDS {
            return Err(Problem::fault("/overlap_seconds", "seconds.range", "the overlap is 0 to 2592000 seconds"));
        }
        Ok(Duration::from_secs(seconds.into()))
    }
}
