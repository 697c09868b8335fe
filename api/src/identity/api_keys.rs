//! `/v1/api-keys`

use super::{
    Steward, Trustee,
    steward::{Change, made},
};
use crate::{
    app::App,
    extract::{
        Json, Path, Query,
        page::{self, Page},
    },
    problem::{Code, Problem, ProblemBody},
};
use axum::{
    extract::State,
    http::{HeaderName, HeaderValue, StatusCode, header},
};
use chrono::{DateTime, Utc};
use flatrender_workflows::models::{
    Db, Secret,
    identity::tenant_api_key::{self, ApiKey, DEFAULT_SCOPES, Mode, NewKey, Rotation, SCOPES},
    render::freeze::Fault,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// How long a rotated key stays good when nobody says: a day.
const GRACE_SECONDS: u32 = 86_400;
/// The longest time: 30 days.
const MOST_GRACE_SECONDS: u32 = 30 * 86_400;
const MOST_NETWORKS: usize = 100;

/// An API key, without its text.
#[derive(Debug, Serialize, ToSchema)]
pub struct ApiKeyView {
    /// Its id.
    id: Uuid,
    /// Always `api_key`.
    #[schema(example = "api_key")]
    object: &'static str,
    /// What its owner calls it.
    #[schema(example = "Shop")]
    name: String,
    /// `live` or `test`.
    #[schema(example = "live")]
    mode: String,
    /// How it begins.
    #[schema(example = "fr_live_3kTMd0aZ")]
    prefix: String,
    /// How it ends.
    #[schema(example = "9Qx1")]
    last4: String,
    /// What it may do.
    #[schema(example = json!(["render", "files"]))]
    scopes: Vec<String>,
    /// Networks it is good for; all when null.
    #[schema(example = json!(["192.0.2.0/24"]))]
    allowed_cidrs: Option<Vec<String>>,
    /// The key it took over from.
    rotated_from: Option<Uuid>,
    /// The person who made it.
    created_by: Option<Uuid>,
    /// From when on it is no longer good.
    expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    revoked_at: Option<DateTime<Utc>>,
    /// When it was last used, to the minute.
    last_used_at: Option<DateTime<Utc>>,
    /// When it was made.
    created_at: DateTime<Utc>,
}

impl From<ApiKey> for ApiKeyView {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id,
            object: "api_key",
            name: key.name,
            mode: key.mode,
            prefix: key.prefix,
            last4: key.last4,
            scopes: key.scopes,
            allowed_cidrs: key.allowed_cidrs,
            rotated_from: key.rotated_from,
            created_by: key.created_by,
            expires_at: key.expires_at,
            revoked_at: key.revoked_at,
            last_used_at: key.last_used_at,
            created_at: key.created_at,
        }
    }
}

/// A new API key, with its text.
#[derive(Debug, Serialize, ToSchema)]
pub struct NewApiKeyView {
    /// What is known of it.
    #[serde(flatten)]
    key: ApiKeyView,
    /// Its text. It is shown this once and cannot be had again.
    #[schema(example = "fr_live_3kTMd0aZ…")]
    secret: String,
}

/// An API key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateApiKey {
    /// 1 to 200 characters.
    #[schema(example = "Shop", min_length = 1, max_length = 200)]
    name: String,
    /// What it is for; `live` when absent.
    mode: Option<Mode>,
    /// What it may do; `render`, `files` and `templates` when absent. Of `render files templates studio notifications billing
    /// webhooks admin`.
    #[schema(example = json!(["render", "files"]))]
    scopes: Option<Vec<String>>,
    /// Networks it is good for, in CIDR notation; all when absent.
    #[schema(example = json!(["192.0.2.0/24"]))]
    allowed_cidrs: Option<Vec<String>>,
    /// From when on it is no longer good; never when absent.
    expires_at: Option<DateTime<Utc>>,
}

/// How to rotate.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateApiKey {
    /// For how long the old key stays good: 0 to 2592000; a day when absent.
    #[schema(example = 3600, maximum = 2_592_000)]
    grace_seconds: Option<u32>,
}

/// Which keys to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListApiKeys {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those older than this key: `next_cursor` of the page before.
    starting_after: Option<Uuid>,
}

type Created = (StatusCode, [(HeaderName, HeaderValue); 1], Json<NewApiKeyView>);

/// `POST /v1/api-keys`: makes a key. Answers 201 with its text, which is shown only here.
#[utoipa::path(
    post, path = "/v1/api-keys", tag = "API keys", operation_id = "create_api_key", summary = "Make an API key",
    description = "The answer holds the key's text, this once: only its SHA-256 is kept. A key cannot make one that may do more than itself, is good in \
                   more networks, or for longer. A person has just proved who they are.",
    request_body(content = CreateApiKey, example = json!({"name": "Shop", "scopes": ["render", "files"], "allowed_cidrs": ["192.0.2.0/24"]})),
    responses(
        (status = 201, description = "Made", body = NewApiKeyView),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`api_key.too_many`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn create(
    State(app): State<App>,
    steward: Trustee,
    Json(body): Json<CreateApiKey>,
) -> Result<Created, Problem> {
    let scopes = body.check()?;
    let new = NewKey {
        name: body.name.trim(),
        mode: body.mode.unwrap_or(Mode::Live),
        scopes: &scopes,
        allowed_cidrs: body.allowed_cidrs.as_deref(),
        created_by: steward.user_id,
        expires_at: body.expires_at,
    };
    let reach = Reach { scopes: &scopes, networks: body.allowed_cidrs.as_deref(), expires_at: body.expires_at };
    let mut tx = steward.begin(&app).await?;
    check_reach(&mut tx, &steward, reach).await?;
    let made_key = tenant_api_key::create_as(&mut tx, steward.tenant_id, &new).await?;
    let (id, secret) = made_key.ok_or_else(too_many)?;
    let key = found(&mut tx, steward.tenant_id, id).await?;
    steward.record(&mut tx, "api_key.create", &object(id), made(&key)).await?;
    tx.commit().await?;
    Ok(created(key, &secret))
}

/// `GET /v1/api-keys`: the tenant's keys, newest first.
#[utoipa::path(
    get, path = "/v1/api-keys", tag = "API keys", operation_id = "list_api_keys", summary = "List API keys",
    description = "Newest first, a page at a time; those that ended, too. Never their texts.", params(ListApiKeys),
    responses((status = 200, description = "A page", body = Page<ApiKeyView>))
)]
pub async fn list(
    State(app): State<App>,
    steward: Steward,
    Query(query): Query<ListApiKeys>,
) -> Result<Json<Page<ApiKeyView>>, Problem> {
    let size = page::size(query.limit)?;
    let mut tx = steward.begin(&app).await?;
    let keys = tenant_api_key::list(&mut tx, steward.tenant_id, query.starting_after, size + 1).await?;
    Ok(Json(Page::of(keys, size, |key| key.id.to_string())))
}

/// `DELETE /v1/api-keys/{id}`: revokes a key, at once and for good. Asking twice is harmless.
#[utoipa::path(
    delete, path = "/v1/api-keys/{id}", tag = "API keys", operation_id = "revoke_api_key", summary = "Revoke an API key",
    description = "It is no longer good from the next request on. Asking twice is harmless.",
    params(("id" = Uuid, Path, description = "The key")), responses((status = 200, description = "Revoked", body = ApiKeyView))
)]
pub async fn revoke(
    State(app): State<App>,
    steward: Steward,
    Path(id): Path<Uuid>,
) -> Result<Json<ApiKeyView>, Problem> {
    let mut tx = steward.begin(&app).await?;
    let before = found(&mut tx, steward.tenant_id, id).await?;
    if tenant_api_key::revoke(&mut tx, steward.tenant_id, id).await? {
        let after = found(&mut tx, steward.tenant_id, id).await?;
        let change = Change { before: Some(&before), after: Some(&after) };
        steward.record(&mut tx, "api_key.revoke", &object(id), change).await?;
        tx.commit().await?;
        return Ok(Json(after.into()));
    }
    Ok(Json(before.into()))
}

/// `POST /v1/api-keys/{id}/rotate`: makes a successor; the old key stays good for a while. Answers 201 with the new one.
#[utoipa::path(
    post, path = "/v1/api-keys/{id}/rotate", tag = "API keys", operation_id = "rotate_api_key", summary = "Rotate an API key",
    description = "Makes a key that may do the same, and shows its text this once. The old one stays good for `grace_seconds`.",
    params(("id" = Uuid, Path, description = "The key")), request_body(content = RotateApiKey, example = json!({"grace_seconds": 3600})),
    responses(
        (status = 201, description = "The successor", body = NewApiKeyView),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`api_key.ended`, `api_key.rotated`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn rotate(
    State(app): State<App>,
    steward: Trustee,
    Path(id): Path<Uuid>,
    Json(body): Json<RotateApiKey>,
) -> Result<Created, Problem> {
    let grace = body.grace()?;
    let mut tx = steward.begin(&app).await?;
    let before = found(&mut tx, steward.tenant_id, id).await?;
    let (networks, expires_at) = (before.allowed_cidrs.as_deref(), before.expires_at);
    check_reach(&mut tx, &steward, Reach { scopes: &before.scopes, networks, expires_at }).await?;
    let rotation = tenant_api_key::rotate(&mut tx, steward.tenant_id, id, grace, steward.user_id).await?;
    let (new_id, secret) = match rotation {
        Rotation::Done(id, secret) => (id, secret),
        Rotation::Unknown => return Err(missing()),
        Rotation::Ended => return Err(Problem::new(Code::ApiKeyEnded, "the key is revoked or expired")),
        Rotation::Again => return Err(Problem::new(Code::ApiKeyRotated, "the key was rotated before")),
    };
    let key = found(&mut tx, steward.tenant_id, new_id).await?;
    let change = Change { before: Some(&before), after: Some(&key) };
    steward.record(&mut tx, "api_key.rotate", &object(id), change).await?;
    tx.commit().await?;
    Ok(created(key, &secret))
}

fn created(key: ApiKey, secret: &Secret) -> Created {
    let body = NewApiKeyView { key: key.into(), secret: secret.reveal().to_owned() };
    (StatusCode::CREATED, [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(body))
}

async fn found(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> Result<ApiKey, Problem> {
    tenant_api_key::find(db, tenant_id, id).await?.ok_or_else(missing)
}

fn missing() -> Problem {
    Problem::not_found(Code::ApiKeyNotFound, "API key")
}

fn too_many() -> Problem {
    Problem::new(Code::ApiKeysFull, format!("a tenant has at most {} live keys", tenant_api_key::MOST_KEYS))
}

fn object(id: Uuid) -> String {
    format!("api_key:{id}")
}

fn fault(pointer: &str, code: &str, detail: impl Into<String>) -> Fault {
    Fault { pointer: pointer.into(), code: code.into(), detail: detail.into() }
}

/// Nobody hands out what they do not have: a key makes, and gets the text of, none that may do more than itself, is good in more
/// networks, or for longer.
async fn check_reach(db: Db<'_>, steward: &Steward, wanted: Reach<'_>) -> Result<(), Problem> {
    let Some(own) = steward.key_id else { return Ok(()) };
    let own = found(db, steward.tenant_id, own).await?;
    if let Some(scope) = wanted.scopes.iter().find(|scope| !own.scopes.contains(scope)) {
        let detail = format!("the key that asks lacks the scope {scope} itself");
        return Err(Problem::fault("/scopes", "scope.beyond", detail));
    }
    if own.allowed_cidrs.as_ref().is_some_and(|own| !wanted.networks.is_some_and(|nets| lie_within(nets, own))) {
        let detail = "the key that asks is good in fewer networks itself";
        return Err(Problem::fault("/allowed_cidrs", "cidr.beyond", detail));
    }
    if own.expires_at.is_some_and(|own| wanted.expires_at.is_none_or(|end| end > own)) {
        return Err(Problem::fault("/expires_at", "time.beyond", "the key that asks ends before that itself"));
    }
    Ok(())
}

/// What a key can be used for.
struct Reach<'a> {
    scopes: &'a [String],
    networks: Option<&'a [String]>,
    expires_at: Option<DateTime<Utc>>,
}

/// Whether each of the networks lies in one of the others.
fn lie_within(networks: &[String], others: &[String]) -> bool {
    let read = |texts: &[String]| texts.iter().map(|text| text.parse::<IpNet>()).collect::<Result<Vec<_>, _>>();
    match (read(networks), read(others)) {
        (Ok(networks), Ok(others)) => networks.iter().all(|net| others.iter().any(|other| other.contains(net))),
        _ => false,
    }
}

impl CreateApiKey {
    /// The scopes of the key.
    fn check(&self) -> Result<Vec<String>, Problem> {
        let scopes = self.scopes.clone().unwrap_or_else(|| DEFAULT_SCOPES.map(str::to_owned).to_vec());
        let faults: Vec<_> = [self.wrong_name(), wrong_scopes(&scopes), self.wrong_networks(), self.wrong_expiry()]
            .into_iter()
            .flatten()
            .collect();
        if !faults.is_empty() {
            return Err(Problem::faulty(Code::RequestInvalid, faults));
        }
        Ok(scopes)
    }

    fn wrong_name(&self) -> Option<Fault> {
        let name = self.name.trim();
        let fits = (1..=200).contains(&name.chars().count()) && !name.chars().any(char::is_control);
        (!fits)
            .then(|| fault("/name", "name.length", "a name is 1 to 200 characters, none of them a control character"))
    }

    fn wrong_networks(&self) -> Option<Fault> {
        let networks = self.allowed_cidrs.as_ref()?;
        // As PostgreSQL wants it: no bits behind the mask.
        let wrong = |text: &&String| text.parse::<IpNet>().map_or(true, |net| net != net.trunc());
        let first = networks.iter().find(wrong).map(|text| format!("{text:?} is no network"));
        let count = !(1..=MOST_NETWORKS).contains(&networks.len());
        let detail = first.or_else(|| count.then(|| "name 1 to 100 networks, or leave the field out".to_owned()))?;
        Some(fault("/allowed_cidrs", "cidr.invalid", detail))
    }

    fn wrong_expiry(&self) -> Option<Fault> {
        let past = self.expires_at? <= Utc::now();
        past.then(|| fault("/expires_at", "time.past", "the time has to be in the future"))
    }
}

fn wrong_scopes(scopes: &[String]) -> Option<Fault> {
    let unknown = scopes.iter().find(|scope| !SCOPES.contains(&scope.as_str()));
    let detail = match unknown {
        Some(scope) => format!("there is no scope {scope:?}; there are {}", SCOPES.join(", ")),
        None if scopes.is_empty() || (1..scopes.len()).any(|i| scopes[..i].contains(&scopes[i])) => {
            "name each scope once, and at least one".to_owned()
        }
        None => return None,
    };
    Some(fault("/scopes", "scope.unknown", detail))
}

impl RotateApiKey {
    fn grace(&self) -> Result<Duration, Problem> {
        let seconds = self.grace_seconds.unwrap_or(GRACE_SECONDS);
        if seconds > MOST_GRACE_SECONDS {
            return Err(Problem::fault("/grace_seconds", "seconds.range", "the grace is 0 to 2592000 seconds"));
        }
        Ok(Duration::from_secs(seconds.into()))
    }
}
