//! `/v1/me/push-subscriptions`: browsers that tell you (RFC 8030).

use crate::{
    app::App,
    auth::SignedIn,
    extract::{Json, Path},
    problem::{Code, Problem, ProblemBody},
};
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
};
use base64::{
    Engine as _,
    engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD},
};
use chrono::{DateTime, Utc};
use flatrender_activities::notify::{
    accounts::Config,
    push::{self, AUTH_BYTES, POINT_BYTES},
};
use flatrender_workflows::{
    contracts::notify::{Carrier, Channel},
    models::{
        DEFAULT_TENANT, Db, Role, Scope,
        notification::{
            account::{self, NewAccount},
            address::{self, Browser, MOST_BROWSERS, NewBrowser},
        },
    },
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Longest address of a browser at its push service.
const ENDPOINT_BYTES: usize = 2048;
/// What the key of the platform is called, which is made when it is asked for first.
const PLATFORM_KEY: &str = "platform";

/// The key that a browser subscribes with.
#[derive(Debug, Serialize, ToSchema)]
pub struct PushKeyView {
    /// `applicationServerKey`: the point, uncompressed, in base64url.
    #[schema(example = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4")]
    key: String,
}

/// A browser that tells you.
#[derive(Debug, Serialize, ToSchema)]
pub struct PushSubscriptionView {
    /// Its id.
    id: Uuid,
    /// Always `push_subscription`.
    #[schema(example = "push_subscription")]
    object: &'static str,
    /// The host of its push service.
    #[schema(example = "fcm.googleapis.com")]
    service: String,
    /// What it says it is.
    user_agent: Option<String>,
    /// When it was told last.
    last_success_at: Option<DateTime<Utc>>,
    /// Since when.
    created_at: DateTime<Utc>,
}

impl From<Browser> for PushSubscriptionView {
    fn from(b: Browser) -> Self {
        let service = b.endpoint.split('/').nth(2).unwrap_or_default().to_owned();
        let Browser { id, user_agent, last_success_at, created_at, .. } = b;
        Self { id, object: "push_subscription", service, user_agent, last_success_at, created_at }
    }
}

/// All of them.
#[derive(Debug, Serialize, ToSchema)]
pub struct PushSubscriptionList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// Newest first; at most 10.
    data: Vec<PushSubscriptionView>,
}

/// A browser, as it says of itself: `PushSubscription.toJSON()`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreatePushSubscription {
    /// Its address at its push service.
    #[schema(
        example = "https://fcm.googleapis.com/fcm/send/…",
        max_length = 2048,
        pattern = r"^\s*[Hh][Tt][Tt][Pp][Ss]?:[\s\S]+$"
    )]
    endpoint: String,
    /// Its keys.
    keys: PushKeys,
    /// When the browser means to end it, in milliseconds since 1970; it is told until its push service says that it is gone.
    #[serde(default, rename = "expirationTime")]
    _expires: Option<f64>,
}

/// The keys of a browser.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PushKeys {
    /// Its public key, in base64url.
    #[schema(
        example = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
        pattern = "^B[A-P][A-Za-z0-9_-]{84}[AEIMQUYcgkosw048]=?$"
    )]
    p256dh: String,
    /// The secret that it shares with us, in base64url.
    #[schema(example = "BTBZMqHH6r4Tts7J_aSIgg", pattern = "^[A-Za-z0-9_-]{21}[AQgw](==)?$")]
    auth: String,
}

/// `GET /v1/me/push-key`
#[utoipa::path(
    get, path = "/v1/me/push-key", tag = "Notifications", operation_id = "get_push_key", summary = "Get the key for browsers",
    description = "What a page hands to `pushManager.subscribe` as `applicationServerKey`.",
    responses((status = 200, description = "The key", body = PushKeyView))
)]
pub async fn key(State(app): State<App>, me: SignedIn) -> Result<Json<PushKeyView>, Problem> {
    Ok(Json(PushKeyView { key: key_of(&app, me.tenant_id).await? }))
}

/// `GET /v1/me/push-subscriptions`
#[utoipa::path(
    get, path = "/v1/me/push-subscriptions", tag = "Notifications", operation_id = "list_push_subscriptions", summary = "List your browsers",
    description = "Those that tell you, newest first.",
    responses((status = 200, description = "All of them", body = PushSubscriptionList))
)]
pub async fn list(State(app): State<App>, me: SignedIn) -> Result<Json<PushSubscriptionList>, Problem> {
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, me.tenant_id)).await?;
    let data = address::browsers(&mut tx, me.tenant_id, me.user_id).await?.into_iter().map(Into::into).collect();
    Ok(Json(PushSubscriptionList { object: "list", data }))
}

/// `POST /v1/me/push-subscriptions`
#[utoipa::path(
    post, path = "/v1/me/push-subscriptions", tag = "Notifications", operation_id = "create_push_subscription", summary = "Have a browser tell you",
    description = "As `PushSubscription.toJSON()` of a browser that subscribed with the key of `GET /v1/me/push-key`. A browser tells one person: \
                   whoever subscribed it last. Repeating it is harmless.",
    request_body = CreatePushSubscription,
    responses(
        (status = 201, description = "It tells you", body = PushSubscriptionView),
        (status = 409, description = "`push.too_many`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn create(
    State(app): State<App>,
    me: SignedIn,
    headers: HeaderMap,
    Json(body): Json<CreatePushSubscription>,
) -> Result<(StatusCode, Json<PushSubscriptionView>), Problem> {
    let wrong = |pointer, code, detail: &str| Problem::fault(pointer, code, detail);
    if body.endpoint.len() > ENDPOINT_BYTES || !push::is_service(&body.endpoint, app.egress.reach()) {
        return Err(wrong("/endpoint", "push.endpoint", "this is no address of a push service"));
    }
    let p256dh = bytes(&body.keys.p256dh, POINT_BYTES)
        .ok_or_else(|| wrong("/keys/p256dh", "push.key", "this is no public key of a browser"))?;
    let auth = bytes(&body.keys.auth, AUTH_BYTES)
        .ok_or_else(|| wrong("/keys/auth", "push.key", "this is no shared secret"))?;
    if push::encrypt(b"", &p256dh, &auth).is_err() {
        return Err(wrong("/keys/p256dh", "push.key", "this is no public key of a browser"));
    }
    let vapid_key = key_of(&app, me.tenant_id).await?;
    let id = Uuid::now_v7();
    let sealed = app.vault.seal(&address::auth_place(id), &auth);
    let agent = headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok());
    let new = NewBrowser {
        id,
        endpoint: &body.endpoint,
        p256dh: &p256dh,
        auth_enc: &sealed,
        vapid_key: &vapid_key,
        user_agent: agent,
    };
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, me.tenant_id)).await?;
    let full = || Problem::new(Code::PushFull, format!("at most {MOST_BROWSERS} browsers tell you"));
    address::subscribe(&mut tx, me.tenant_id, me.user_id, &new).await?.ok_or_else(full)?;
    let browsers = address::browsers(&mut tx, me.tenant_id, me.user_id).await?;
    tx.commit().await?;
    let made = browsers.into_iter().find(|b| b.id == id).ok_or(sqlx::Error::RowNotFound)?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

/// `DELETE /v1/me/push-subscriptions/{id}`
#[utoipa::path(
    delete, path = "/v1/me/push-subscriptions/{id}", tag = "Notifications", operation_id = "remove_push_subscription", summary = "Have a browser tell you no more",
    description = "Its secret is forgotten.", params(("id" = Uuid, Path, description = "The subscription")),
    responses(
        (status = 204, description = "Removed"),
        (status = 404, description = "`push.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn remove(State(app): State<App>, me: SignedIn, Path(id): Path<Uuid>) -> Result<StatusCode, Problem> {
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, me.tenant_id)).await?;
    if !address::unsubscribe(&mut tx, me.tenant_id, me.user_id, id).await? {
        return Err(Problem::not_found(Code::PushNotFound, "browser of yours"));
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn bytes(text: &str, length: usize) -> Option<Vec<u8>> {
    let read = URL_SAFE_NO_PAD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()?;
    (read.len() == length).then_some(read)
}

/// The public key that the browsers of a tenant subscribe with: of its own account, or of the platform's, which is made when it is not
/// there yet.
async fn key_of(app: &App, tenant_id: Uuid) -> Result<String, Problem> {
    let mut tx = app.db.begin(Scope::platform(Role::Notification)).await?;
    if let Some(key) = first_key(app, &mut tx, tenant_id).await? {
        return Ok(key);
    }
    let host = app.public_url.split("://").nth(1).and_then(|rest| rest.split(['/', ':']).next()).unwrap_or("localhost");
    let key = push::new_key(format!("mailto:postmaster@{host}"));
    let key = key.map_err(|_| Problem::internal(&std::io::Error::other("no key could be made")))?;
    let id = Uuid::now_v7();
    let sealed = app.vault.seal(&account::place(id), &serde_json::to_vec(&key).unwrap_or_default());
    let new = NewAccount {
        id,
        channel: Channel::Push,
        name: PLATFORM_KEY,
        provider: "vapid",
        sealed: &sealed,
        per_second: 1000.0,
        position: 0,
    };
    // Of two at once one makes it, and both use that one.
    account::create(&mut tx, DEFAULT_TENANT, &new).await?;
    let made = first_key(app, &mut tx, tenant_id).await?.ok_or(sqlx::Error::RowNotFound)?;
    tx.commit().await?;
    Ok(made)
}

async fn first_key(app: &App, db: Db<'_>, tenant_id: Uuid) -> Result<Option<String>, Problem> {
    let carriers = account::carriers(db, tenant_id, Channel::Push).await?;
    Ok(carriers.iter().find_map(|carrier| match open(app, carrier)? {
        Config::Vapid(vapid) => Some(vapid.public),
        _ => None,
    }))
}

/// What an account wants to know; none when it does not open.
pub(super) fn open(app: &App, carrier: &Carrier) -> Option<Config> {
    let sealed = hex::decode(&carrier.config.hex).ok()?;
    let text = app.vault.unseal(&carrier.config.place, &sealed).ok()?;
    Config::read(&carrier.provider, &text).ok()
}
