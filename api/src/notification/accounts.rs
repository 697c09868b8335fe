//! `/v1/notification-accounts`: who carries a tenant's messages. What a provider wants to know goes in and never comes out.

use super::{feedback, manage};
use crate::{
    app::App,
    extract::{Json, Path},
    identity::{Change, Steward, Trustee, made},
    problem::{Code, Problem, ProblemBody},
};
use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use flatrender_activities::{
    egress,
    notify::accounts::{Config, channel_of},
};
use flatrender_workflows::models::{
    Role, Scope,
    notification::account::{self, Account, MOST_ACCOUNTS, NewAccount},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

/// Messages a second when nobody says.
const USUAL_RATE: f32 = 10.0;

/// An account at a provider, without what it wants to know.
#[derive(Debug, Serialize, ToSchema)]
pub struct NotificationAccountView {
    /// Its id.
    id: Uuid,
    /// Always `notification_account`.
    #[schema(example = "notification_account")]
    object: &'static str,
    /// `email`, `push`, `sms` or `telegram`.
    #[schema(example = "sms")]
    channel: String,
    /// What it is called.
    #[schema(example = "Main line")]
    name: String,
    /// `smtp`, `vapid`, `twilio`, `kavenegar` or `telegram`.
    #[schema(example = "kavenegar")]
    provider: String,
    /// Messages a second.
    #[schema(example = 10.0)]
    per_second: f32,
    /// The lower goes first; the next one carries while the provider of the one before is down.
    #[schema(example = 0)]
    position: i32,
    /// `active`, `paused` or `broken`.
    #[schema(example = "active")]
    state: String,
    /// Where the provider tells what became of messages. Show it to nobody else.
    feedback_url: String,
    /// Since when.
    created_at: DateTime<Utc>,
}

/// All of them.
#[derive(Debug, Serialize, ToSchema)]
pub struct NotificationAccountList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// By channel, in the order in which they are used; at most 20.
    data: Vec<NotificationAccountView>,
}

/// An account to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateNotificationAccount {
    /// What it is called.
    #[schema(example = "Main line", min_length = 1, max_length = 100)]
    name: String,
    /// `smtp`, `vapid`, `twilio`, `kavenegar` or `telegram`.
    #[schema(example = "kavenegar", pattern = "^(smtp|vapid|twilio|kavenegar|telegram)$")]
    provider: String,
    /// What the provider wants to know. smtp: `url`, `from`. vapid: `pkcs8`, `public`, `subject`. twilio: `account_sid`, `auth_token`, `from`.
    /// kavenegar: `api_key`, `sender`. telegram: `token`, `bot`. The last three take a `base_url`, too.
    #[schema(value_type = Object, example = json!({"api_key": "…", "sender": "10004346"}))]
    config: Value,
    /// Messages a second, 0.1 to 1000; 10 when absent.
    #[schema(example = 10.0, minimum = 0.1, maximum = 1000)]
    per_second: Option<f32>,
    /// The lower goes first; 0 when absent.
    position: Option<i32>,
}

/// What to change.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateNotificationAccount {
    /// False pauses it; true lets it go on, also one that was broken.
    active: bool,
}

fn view(app: &App, account: Account) -> NotificationAccountView {
    let mark = app.vault.mark(&feedback::purpose(account.id));
    NotificationAccountView {
        id: account.id,
        object: "notification_account",
        channel: account.channel,
        name: account.name,
        provider: account.provider,
        per_second: account.per_second,
        position: account.position,
        state: account.state,
        feedback_url: format!("{}/v1/notification-feedback/{}/{mark}", app.public_url, account.id),
        created_at: account.created_at,
    }
}

/// `POST /v1/notification-accounts`
#[utoipa::path(
    post, path = "/v1/notification-accounts", tag = "Notifications", operation_id = "create_notification_account", summary = "Add an account",
    description = "From then on your messages by its channel go by your accounts, and no longer by the platform's. What the provider wants to know \
                   is sealed and never shown.",
    request_body = CreateNotificationAccount,
    responses(
        (status = 201, description = "Added", body = NotificationAccountView),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`notification_account.exists`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn create(
    State(app): State<App>,
    steward: Trustee,
    Json(body): Json<CreateNotificationAccount>,
) -> Result<(StatusCode, Json<NotificationAccountView>), Problem> {
    let wrong = |pointer, detail: String| Problem::fault(pointer, "notification_account.config", detail);
    let name = body.name.trim();
    if !(1..=100).contains(&name.chars().count()) || name.chars().any(char::is_control) {
        return Err(Problem::fault("/name", "name.length", "a name has 1 to 100 characters"));
    }
    let channel = channel_of(&body.provider).ok_or_else(|| wrong("/provider", "there is no such provider".into()))?;
    let settings = body.config.to_string();
    let config = Config::read(&body.provider, settings.as_bytes()).map_err(|e| wrong("/config", e))?;
    if let Some(base) = config.base_url() {
        egress::target(base, app.egress.reach()).map_err(|e| wrong("/config/base_url", e.to_string()))?;
    }
    let per_second = body.per_second.unwrap_or(USUAL_RATE);
    if !(0.1..=1000.0).contains(&per_second) {
        return Err(wrong("/per_second", "messages a second are 0.1 to 1000".into()));
    }
    let id = Uuid::now_v7();
    let sealed = app.vault.seal(&account::place(id), settings.as_bytes());
    let position = body.position.unwrap_or(0);
    let new = NewAccount { id, channel, name, provider: &body.provider, sealed: &sealed, per_second, position };
    let mut tx = manage(&app, &steward).await?;
    if !account::create(&mut tx, steward.tenant_id, &new).await? {
        let detail = format!("there is one of this name, or as many as there may be: {MOST_ACCOUNTS}");
        return Err(Problem::new(Code::NotificationAccountExists, detail));
    }
    let account = account::list(&mut tx, steward.tenant_id).await?.into_iter().find(|a| a.id == id);
    let account = account.ok_or(sqlx::Error::RowNotFound)?;
    Scope::tenant(Role::Identity, steward.tenant_id).enter(&mut tx).await?;
    steward.record(&mut tx, "notification_account.create", &account::place(id), made(&account)).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(view(&app, account))))
}

/// `GET /v1/notification-accounts`
#[utoipa::path(
    get, path = "/v1/notification-accounts", tag = "Notifications", operation_id = "list_notification_accounts", summary = "List your accounts",
    description = "By channel, in the order in which they are used. Never what their providers want to know.",
    responses((status = 200, description = "All of them", body = NotificationAccountList))
)]
pub async fn list(State(app): State<App>, steward: Steward) -> Result<Json<NotificationAccountList>, Problem> {
    let mut tx = manage(&app, &steward).await?;
    let found = account::list(&mut tx, steward.tenant_id).await?;
    let data = found.into_iter().map(|account| view(&app, account)).collect();
    Ok(Json(NotificationAccountList { object: "list", data }))
}

/// `PATCH /v1/notification-accounts/{id}`
#[utoipa::path(
    patch, path = "/v1/notification-accounts/{id}", tag = "Notifications", operation_id = "update_notification_account", summary = "Pause an account, or let it go on",
    description = "While all accounts of a channel are paused the platform's carry.",
    params(("id" = Uuid, Path, description = "The account")), request_body = UpdateNotificationAccount,
    responses(
        (status = 204, description = "Done"),
        (status = 404, description = "`notification_account.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn update(
    State(app): State<App>,
    steward: Steward,
    Path(id): Path<Uuid>,
    Json(body): Json<UpdateNotificationAccount>,
) -> Result<StatusCode, Problem> {
    let mut tx = manage(&app, &steward).await?;
    if !account::set_active(&mut tx, steward.tenant_id, id, body.active).await? {
        return Err(missing());
    }
    Scope::tenant(Role::Identity, steward.tenant_id).enter(&mut tx).await?;
    let change = Change { before: None::<()>, after: Some(body.active) };
    steward.record(&mut tx, "notification_account.update", &account::place(id), change).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /v1/notification-accounts/{id}`
#[utoipa::path(
    delete, path = "/v1/notification-accounts/{id}", tag = "Notifications", operation_id = "remove_notification_account", summary = "Remove an account",
    description = "What its provider wanted to know is forgotten. Without any of your own the platform's carry.",
    params(("id" = Uuid, Path, description = "The account")),
    responses(
        (status = 204, description = "Removed"),
        (status = 404, description = "`notification_account.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn remove(State(app): State<App>, steward: Steward, Path(id): Path<Uuid>) -> Result<StatusCode, Problem> {
    let mut tx = manage(&app, &steward).await?;
    if !account::remove(&mut tx, steward.tenant_id, id).await? {
        return Err(missing());
    }
    Scope::tenant(Role::Identity, steward.tenant_id).enter(&mut tx).await?;
    let change = Change { before: Some(id), after: None::<()> };
    steward.record(&mut tx, "notification_account.delete", &account::place(id), change).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn missing() -> Problem {
    Problem::not_found(Code::NotificationAccountNotFound, "account")
}
