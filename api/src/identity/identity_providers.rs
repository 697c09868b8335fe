//! `/v1/identity-providers`: the OpenID providers that people of a tenant sign in with.

use super::{
    Steward, Trustee,
    openid::provider::Provider,
    steward::{Change, made},
};
use crate::{
    app::App,
    extract::{Json, Path},
    limits::{self, Notes},
    problem::{Code, Problem, ProblemBody},
    revision::{IfMatch, Revised},
};
use axum::{Extension, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use flatrender_activities::egress;
use flatrender_workflows::models::{
    Db, Role, Scope,
    identity::{
        rate_bucket::{self, Rate},
        tenant_domain,
        tenant_identity_provider::{self as model, Created, DEFAULT_ROLES, IdentityProvider, MOST_PROVIDERS},
    },
    scope::Scoped,
};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// The page that a provider sends people back to. It is ours: it hands `code` and `state` to the API.
const RETURN_PAGE: &str = "/account/openid";
/// Providers that a tenant may have looked at.
const OF_LOOKS: Rate = Rate { limit: 20.0, window_seconds: 60.0 };
/// Longest issuer.
const ISSUER_CHARS: usize = 500;
/// Most scopes, and most e-mail domains.
const MOST: usize = 20;

/// An identity provider, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct IdentityProviderView {
    /// Its id.
    id: Uuid,
    /// Always `identity_provider`.
    #[schema(example = "identity_provider")]
    object: &'static str,
    /// What people read on the button.
    #[schema(example = "Acme")]
    name: String,
    /// Its address, as its tokens name it.
    #[schema(example = "https://login.acme.example")]
    issuer: String,
    /// What it calls us.
    #[schema(example = "flatrender")]
    client_id: String,
    /// What we ask for besides `openid`.
    #[schema(example = json!(["email", "profile"]))]
    scopes: Vec<String>,
    /// Whose people are linked or added by their address.
    #[schema(example = json!(["acme.example"]))]
    email_domains: Vec<String>,
    /// What somebody new is.
    #[schema(example = "viewer")]
    default_role: Option<String>,
    /// Whether people sign in with it.
    enabled: bool,
    /// What to register with the provider as addresses to come back to: the platform's, and one for each proven host name.
    #[schema(example = json!(["https://films.acme.example/account/openid"]))]
    redirect_uris: Vec<String>,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it was changed.
    updated_at: DateTime<Utc>,
}

/// Every identity provider of the tenant.
#[derive(Debug, Serialize, ToSchema)]
pub struct IdentityProviderList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// By name; at most 10.
    data: Vec<IdentityProviderView>,
    /// Always false.
    has_more: bool,
}

/// An identity provider to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateIdentityProvider {
    /// What people read on the button.
    #[schema(example = "Acme", min_length = 1, max_length = 100)]
    name: String,
    /// Its address: `/.well-known/openid-configuration` below it describes it, and names exactly this issuer.
    #[schema(example = "https://login.acme.example", max_length = 500)]
    issuer: String,
    /// What it calls us.
    #[schema(example = "flatrender", max_length = 255)]
    client_id: String,
    /// What it knows us by. It is sealed and never shown.
    #[schema(example = "a secret of the provider's", max_length = 1024)]
    client_secret: String,
    /// What to ask for besides `openid`; `email` and `profile` when absent.
    #[schema(example = json!(["email", "profile"]))]
    scopes: Option<Vec<String>>,
    /// Whose people are linked or added by their address: proven host names of the tenant. Absent or empty: each of those.
    #[schema(example = json!(["acme.example"]))]
    #[serde(default)]
    email_domains: Vec<String>,
    /// What somebody new is, of `viewer billing editor admin`; nobody new comes in when absent.
    #[schema(example = "viewer")]
    default_role: Option<String>,
    /// Whether people sign in with it; true when absent.
    enabled: Option<bool>,
}

/// What to change of an identity provider; what is absent stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateIdentityProvider {
    /// What people read on the button.
    #[schema(example = "Acme", min_length = 1, max_length = 100)]
    name: Option<String>,
    /// Its address. Another one takes its secret, too: no secret goes where it was not meant to go.
    #[schema(example = "https://login.acme.example", max_length = 500)]
    issuer: Option<String>,
    /// What it calls us.
    #[schema(example = "flatrender", max_length = 255)]
    client_id: Option<String>,
    /// What it knows us by. It is sealed and never shown.
    #[schema(max_length = 1024)]
    client_secret: Option<String>,
    /// What to ask for besides `openid`.
    #[schema(example = json!(["email", "profile"]))]
    scopes: Option<Vec<String>>,
    /// Whose people are linked or added by their address.
    #[schema(example = json!(["acme.example"]))]
    email_domains: Option<Vec<String>>,
    /// What somebody new is; null: nobody new comes in.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, example = "viewer")]
    default_role: Option<Option<String>>,
    /// Whether people sign in with it.
    enabled: Option<bool>,
}

/// Tells a null from what is absent.
fn given<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(value).map(Some)
}

/// `POST /v1/identity-providers`: asks the provider before it is kept.
#[utoipa::path(
    post, path = "/v1/identity-providers", tag = "Tenant", operation_id = "create_identity_provider", summary = "Add an identity provider",
    description = "What the provider says of itself is read first. Its people sign in with it from then on; who is nobody here is linked or \
                   added when the provider says that their address is theirs and its domain is a proven host name of the tenant.",
    request_body = CreateIdentityProvider,
    responses(
        (status = 201, description = "Added", body = IdentityProviderView, headers(("ETag" = String, description = "Its revision"))),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`identity_provider.exists`, `identity_provider.too_many`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`, `identity_provider.unfit`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "`rate.limited`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 502, description = "`identity_provider.unreachable`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn create(
    State(app): State<App>,
    steward: Trustee,
    Extension(notes): Extension<Notes>,
    Json(body): Json<CreateIdentityProvider>,
) -> Result<Revised<IdentityProviderView>, Problem> {
    let secret = body.client_secret.clone();
    let new = body.provider();
    check(&app, &new, Some(&secret))?;
    look(&app, &steward, &notes, &new.issuer).await?;
    let mut tx = steward.begin(&app).await?;
    check_domains(&mut tx, steward.tenant_id, &new.email_domains).await?;
    let sealed = app.vault.seal(&place(new.id), secret.as_bytes());
    match model::create(&mut tx, steward.tenant_id, &new, &sealed).await? {
        Created::Done => {}
        Created::Again => return Err(exists()),
        Created::Full => {
            let detail = format!("a tenant has at most {MOST_PROVIDERS} identity providers");
            return Err(Problem::new(Code::IdentityProvidersFull, detail));
        }
    }
    let provider = found(&mut tx, steward.tenant_id, new.id).await?;
    steward.record(&mut tx, "identity_provider.create", &place(new.id), made(&provider)).await?;
    let view = view(&mut tx, &app, &steward, provider).await?;
    tx.commit().await?;
    Ok(Revised { status: StatusCode::CREATED, ..view })
}

/// `GET /v1/identity-providers`
#[utoipa::path(
    get, path = "/v1/identity-providers", tag = "Tenant", operation_id = "list_identity_providers", summary = "List identity providers",
    description = "All of them, by name. Never their secrets.",
    responses((status = 200, description = "All of them", body = IdentityProviderList))
)]
pub async fn list(State(app): State<App>, steward: Steward) -> Result<Json<IdentityProviderList>, Problem> {
    let mut tx = steward.begin(&app).await?;
    let providers = model::list(&mut tx, steward.tenant_id).await?;
    let redirects = redirects(&mut tx, &app, steward.tenant_id).await?;
    let data = providers.into_iter().map(|p| shown(p, redirects.clone())).collect();
    Ok(Json(IdentityProviderList { object: "list", data, has_more: false }))
}

/// `GET /v1/identity-providers/{id}`
#[utoipa::path(
    get, path = "/v1/identity-providers/{id}", tag = "Tenant", operation_id = "get_identity_provider", summary = "Get an identity provider",
    description = "What is known of it, without its secret.", params(("id" = Uuid, Path, description = "The provider")),
    responses(
        (status = 200, description = "The provider", body = IdentityProviderView, headers(("ETag" = String, description = "Its revision"))),
        (status = 404, description = "`identity_provider.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get(
    State(app): State<App>,
    steward: Steward,
    Path(id): Path<Uuid>,
) -> Result<Revised<IdentityProviderView>, Problem> {
    let mut tx = steward.begin(&app).await?;
    let provider = found(&mut tx, steward.tenant_id, id).await?;
    view(&mut tx, &app, &steward, provider).await
}

/// `PATCH /v1/identity-providers/{id}`: a provider that is named anew is asked before it is kept.
#[utoipa::path(
    patch, path = "/v1/identity-providers/{id}", tag = "Tenant", operation_id = "update_identity_provider", summary = "Change an identity provider",
    description = "What is absent stays as it is. With an `issuer` the provider is looked at anew, and another issuer takes its `client_secret`. \
                   One that is not enabled lets nobody in, from the next request on; sessions that there are go on.",
    params(("id" = Uuid, Path, description = "The provider"), ("If-Match" = Option<String>, Header, description = "`ETag` of the provider as you know it")),
    request_body = UpdateIdentityProvider,
    responses(
        (status = 200, description = "The provider, afterwards", body = IdentityProviderView, headers(("ETag" = String, description = "Its revision"))),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`identity_provider.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`identity_provider.exists`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "`revision.stale`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`, `identity_provider.unfit`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 502, description = "`identity_provider.unreachable`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn update(
    State(app): State<App>,
    steward: Trustee,
    Extension(notes): Extension<Notes>,
    Path(id): Path<Uuid>,
    known: IfMatch,
    Json(body): Json<UpdateIdentityProvider>,
) -> Result<Revised<IdentityProviderView>, Problem> {
    let mut tx = steward.begin(&app).await?;
    let seen = found(&mut tx, steward.tenant_id, id).await?;
    drop(tx);
    check(&app, &body.applied_to(&seen), body.client_secret.as_deref())?;
    if let Some(issuer) = &body.issuer {
        look(&app, &steward, &notes, issuer).await?;
    }
    let mut tx = steward.begin(&app).await?;
    let before = model::hold(&mut tx, steward.tenant_id, id).await?.ok_or_else(missing)?;
    known.check(before.rev)?;
    let after = body.applied_to(&before);
    if after.issuer != before.issuer && body.client_secret.is_none() {
        let detail = "another issuer takes its own secret";
        return Err(Problem::fault("/client_secret", "identity_provider.client", detail));
    }
    if body.email_domains.is_some() {
        check_domains(&mut tx, steward.tenant_id, &after.email_domains).await?;
    }
    let sealed = body.client_secret.as_ref().map(|secret| app.vault.seal(&place(id), secret.as_bytes()));
    if !model::update(&mut tx, steward.tenant_id, &after, sealed.as_deref()).await? {
        return Err(exists());
    }
    let after = found(&mut tx, steward.tenant_id, id).await?;
    let change = Change { before: Some(&before), after: Some(&after) };
    steward.record(&mut tx, "identity_provider.update", &place(id), change).await?;
    let view = view(&mut tx, &app, &steward, after).await?;
    tx.commit().await?;
    Ok(view)
}

/// `DELETE /v1/identity-providers/{id}`
#[utoipa::path(
    delete, path = "/v1/identity-providers/{id}", tag = "Tenant", operation_id = "delete_identity_provider", summary = "Remove an identity provider",
    description = "Nobody signs in with it any more, from the next request on; sessions that there are go on. Logins of people stay linked: one \
                   that is made anew with the same issuer lets the same people in.",
    params(("id" = Uuid, Path, description = "The provider")),
    responses(
        (status = 204, description = "Removed"),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`identity_provider.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn remove(State(app): State<App>, steward: Trustee, Path(id): Path<Uuid>) -> Result<StatusCode, Problem> {
    let mut tx = steward.begin(&app).await?;
    let before = model::hold(&mut tx, steward.tenant_id, id).await?.ok_or_else(missing)?;
    model::remove(&mut tx, steward.tenant_id, id).await?;
    let change = Change { before: Some(&before), after: None::<()> };
    steward.record(&mut tx, "identity_provider.delete", &place(id), change).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

impl CreateIdentityProvider {
    fn provider(self) -> IdentityProvider {
        let now = DateTime::<Utc>::default();
        IdentityProvider {
            id: Uuid::now_v7(),
            name: self.name.trim().to_owned(),
            issuer: self.issuer,
            client_id: self.client_id,
            scopes: self.scopes.unwrap_or_else(|| vec!["email".to_owned(), "profile".to_owned()]),
            email_domains: self.email_domains.iter().map(|domain| domain.to_lowercase()).collect(),
            default_role: self.default_role,
            enabled: self.enabled.unwrap_or(true),
            created_at: now,
            updated_at: now,
            rev: 0,
        }
    }
}

impl UpdateIdentityProvider {
    fn applied_to(&self, before: &IdentityProvider) -> IdentityProvider {
        let mut after = before.clone();
        if let Some(name) = &self.name {
            after.name = name.trim().to_owned();
        }
        if let Some(domains) = &self.email_domains {
            after.email_domains = domains.iter().map(|domain| domain.to_lowercase()).collect();
        }
        after.issuer = self.issuer.clone().unwrap_or(after.issuer);
        after.client_id = self.client_id.clone().unwrap_or(after.client_id);
        after.scopes = self.scopes.clone().unwrap_or(after.scopes);
        after.default_role = self.default_role.clone().unwrap_or(after.default_role);
        after.enabled = self.enabled.unwrap_or(after.enabled);
        after
    }
}

fn check(app: &App, provider: &IdentityProvider, secret: Option<&str>) -> Result<(), Problem> {
    let wrong = |pointer: &str, code: &str, detail: &str| Err(Problem::fault(pointer, code, detail));
    let within =
        |text: &str, most: usize| (1..=most).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    if !within(&provider.name, 100) {
        let detail = "a provider's name has 1 to 100 characters, and no control characters";
        return wrong("/name", "identity_provider.name", detail);
    }
    match egress::target(&provider.issuer, app.egress.reach()) {
        Err(refused) => return wrong("/issuer", "identity_provider.issuer", &refused.to_string()),
        // Kept as it is written: tokens name it letter by letter.
        Ok(url)
            if !provider.issuer.starts_with(&format!("{}://", url.scheme()))
                || !within(&provider.issuer, ISSUER_CHARS)
                || url.query().is_some() =>
        {
            return wrong("/issuer", "identity_provider.issuer", "an issuer has at most 500 characters, and no query");
        }
        Ok(_) => {}
    }
    if !within(&provider.client_id, 255) {
        return wrong("/client_id", "identity_provider.client", "a client's id has 1 to 255 characters");
    }
    if secret.is_some_and(|secret| !within(secret, 1024)) {
        return wrong("/client_secret", "identity_provider.client", "a client's secret has 1 to 1024 characters");
    }
    // RFC 6749, 3.3.
    let is_scope = |scope: &String| {
        (1..=100).contains(&scope.len()) && scope.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\'))
    };
    if provider.scopes.len() > MOST || !provider.scopes.iter().all(is_scope) {
        let detail = "there are at most 20 scopes, each of 1 to 100 visible ASCII characters without quotes";
        return wrong("/scopes", "identity_provider.scopes", detail);
    }
    if provider.default_role.as_ref().is_some_and(|role| !DEFAULT_ROLES.contains(&role.as_str())) {
        let detail = format!("somebody new may be {}", DEFAULT_ROLES.join(", "));
        return wrong("/default_role", "role.unknown", &detail);
    }
    Ok(())
}

async fn check_domains(db: Db<'_>, tenant_id: Uuid, domains: &[String]) -> Result<(), Problem> {
    let wrong = |pointer, detail: String| Err(Problem::fault(pointer, "identity_provider.domain", detail));
    if domains.len() > MOST {
        return wrong("/email_domains".to_owned(), "there are at most 20 e-mail domains".to_owned());
    }
    for (i, domain) in domains.iter().enumerate() {
        if !tenant_domain::is_proven(&mut *db, tenant_id, domain).await? {
            let detail = format!("{domain:?} is no proven host name of the tenant: POST /v1/domains");
            return wrong(format!("/email_domains/{i}"), detail);
        }
    }
    Ok(())
}

/// Reads what the provider says of itself, at most so often. No connection waits meanwhile.
async fn look(app: &App, steward: &Steward, notes: &Notes, issuer: &str) -> Result<(), Problem> {
    let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
    let tenant = steward.tenant_id.to_string();
    let budget = rate_bucket::take_public(&mut tx, "provider_checks", &tenant, OF_LOOKS).await?;
    tx.commit().await?;
    limits::settle(notes, vec![budget])?;
    Ok(Provider::discover(&app.egress, issuer).await.map(drop)?)
}

async fn view(
    tx: &mut Scoped,
    app: &App,
    steward: &Steward,
    provider: IdentityProvider,
) -> Result<Revised<IdentityProviderView>, Problem> {
    Ok(Revised::ok(provider.rev, shown(provider, redirects(tx, app, steward.tenant_id).await?)))
}

fn shown(provider: IdentityProvider, redirect_uris: Vec<String>) -> IdentityProviderView {
    IdentityProviderView {
        id: provider.id,
        object: "identity_provider",
        name: provider.name,
        issuer: provider.issuer,
        client_id: provider.client_id,
        scopes: provider.scopes,
        email_domains: provider.email_domains,
        default_role: provider.default_role,
        enabled: provider.enabled,
        redirect_uris,
        created_at: provider.created_at,
        updated_at: provider.updated_at,
    }
}

/// Where people of the tenant may come back to.
async fn redirects(db: Db<'_>, app: &App, tenant_id: Uuid) -> Result<Vec<String>, Problem> {
    let domains = tenant_domain::list(db, tenant_id).await?.into_iter().filter(|domain| domain.state == "verified");
    let own = domains.map(|domain| redirect_at(app, Some(&domain.hostname)));
    Ok(std::iter::once(redirect_at(app, None)).chain(own).collect())
}

/// Where somebody comes back to who began at a proven host name of the tenant, or at the platform's address. Never at a name that
/// only their request says.
pub(super) fn redirect_at(app: &App, proven_host: Option<&str>) -> String {
    match proven_host {
        Some(host) => format!("https://{host}{RETURN_PAGE}"),
        None => format!("{}{RETURN_PAGE}", app.public_url),
    }
}

/// What the audit calls it, and the one place where its secret opens.
pub(super) fn place(id: Uuid) -> String {
    format!("identity_provider:{id}")
}

async fn found(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> Result<IdentityProvider, Problem> {
    model::find(db, tenant_id, id).await?.ok_or_else(missing)
}

pub(super) fn missing() -> Problem {
    Problem::not_found(Code::IdentityProviderNotFound, "identity provider")
}

fn exists() -> Problem {
    Problem::new(Code::IdentityProviderExists, "the tenant has an identity provider with this issuer already")
}
