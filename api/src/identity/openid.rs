//! `/v1/auth/openid`: signing in with an identity provider of a tenant.
//!
//! ```text
//!  page ──start──▶ API: a row, its token to the page      page ◀── code, state ── provider
//!  page ──▶ provider (state, nonce, PKCE)                 page ──finish: token, state, code──▶ API ──▶ provider: ID token
//! ```
//!
//! Who comes back is known by issuer and subject, for ever. Somebody whom nobody has linked yet is linked, or added, by an address only
//! when the provider says that it is theirs **and** its domain is a proven host name of the tenant. Never linked like this is who is
//! above those who set providers up: owners, and people who run the platform. They add the login themselves, at `/v1/me/identities`.
//!
//! A second factor of ours is asked for unless the provider says that it saw several (`amr` holds `mfa`, RFC 8176).
//! A suspended tenant lets in whom it knows, to read, as with a password; nobody new.

pub mod provider;

use super::{
    address,
    branding::WhoseBranding,
    deed::Deed,
    door::{self, Host},
    identity_providers::{missing, place, redirect_at},
    letters, quotas,
    sign_in::{self, SecondStepView, TokensView, Visitor},
};
use crate::{
    app::App,
    extract::{Json, Query},
    limits,
    peer::ClientAddress,
    problem::{Code, Problem, ProblemBody},
};
use axum::{
    Extension,
    extract::{FromRequestParts, State},
    http::{HeaderMap, header, request::Parts},
    response::Response,
};
use flatrender_workflows::{
    contracts::message::Letter,
    models::{
        Db, Role, Scope, Secret,
        identity::{
            auth_challenge, mfa_factor,
            openid_sign_in::{self, LASTS, SignIn},
            rate_bucket::Rate,
            role_binding, tenant, tenant_domain,
            tenant_identity_provider::{self, IdentityProvider},
            user::{self, NewUser, User},
            user_identity,
        },
        scope::Scoped,
    },
};
use provider::{Claims, Party, Provider, Visit};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Tokens of those who are at a provider begin with this.
const SIGN_IN_KIND: &str = "fr_oi_";
/// Ways to a provider that one address may begin: many people may share it.
const OF_WAYS: Rate = Rate { limit: 120.0, window_seconds: 60.0 };

/// A provider to choose.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProviderChoice {
    /// Name it to `POST /v1/auth/openid/start`.
    id: Uuid,
    /// Always `identity_provider`.
    #[schema(example = "identity_provider")]
    object: &'static str,
    /// What stands on the button.
    #[schema(example = "Acme")]
    name: String,
}

/// Providers to choose from.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProviderChoices {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// By name; at most 10.
    data: Vec<ProviderChoice>,
    /// Always false.
    has_more: bool,
}

/// Which provider.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartOpenId {
    /// One of those that `GET /v1/auth/openid` lists.
    pub(super) provider: Uuid,
}

/// The way to a provider.
#[derive(Serialize, ToSchema)]
pub struct OpenIdWay {
    /// Always `openid_way`.
    #[schema(example = "openid_way")]
    object: &'static str,
    /// Where to send the browser.
    #[schema(example = "https://login.acme.example/authorize?response_type=code&…")]
    authorization_url: String,
    /// Keep it in this browser, in the storage of its session, and nowhere else: `finish` wants it back. Shown once.
    #[schema(example = "fr_oi_…")]
    token: String,
    /// For how many seconds it is good.
    #[schema(example = 600)]
    expires_in: u64,
}

/// The way back.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FinishOpenId {
    /// What `start` answered to this browser.
    #[schema(example = "fr_oi_…")]
    pub(super) token: String,
    /// `state` of the address that the provider sent the browser back to.
    #[schema(example = "hbUb8DWg5Gk")]
    state: String,
    /// `code` of the same address. With `error` in its place the person did not sign in: there is nothing to finish.
    #[schema(example = "SplxlOBeZQQYbYS6WxSbIA")]
    code: String,
    /// `iss` of the same address, if it is there (RFC 9207): it names the provider that this browser went to.
    #[schema(example = "https://login.acme.example")]
    iss: Option<String>,
}

/// Anybody who goes to a provider or comes from there, as often as an address may.
pub struct Traveller;

impl FromRequestParts<App> for Traveller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        limits::take_as_address(app, parts, "openid", OF_WAYS).await.map(|()| Self)
    }
}

/// `GET /v1/auth/openid`: for pages that nobody has signed in to yet.
#[utoipa::path(
    get, path = "/v1/auth/openid", tag = "Account", operation_id = "list_openid_choices", summary = "See whom you may sign in with", security(()),
    description = "The identity providers of an organisation: by its slug, else by the host name that is asked.",
    params(WhoseBranding),
    responses(
        (status = 200, description = "Those that are enabled", body = ProviderChoices),
        (status = 404, description = "`tenant.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn choices(
    State(app): State<App>,
    _: Traveller,
    host: Host,
    Query(query): Query<WhoseBranding>,
) -> Result<Json<ProviderChoices>, Problem> {
    let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
    let tenant = door::entrance(&mut tx, query.tenant.as_deref(), &host).await?;
    let tenant = tenant.ok_or_else(|| Problem::not_found(Code::TenantNotFound, "tenant"))?;
    let choices = tenant_identity_provider::choices(&mut tx, tenant.id).await?;
    let choice =
        |c: tenant_identity_provider::Choice| ProviderChoice { id: c.id, object: "identity_provider", name: c.name };
    Ok(Json(ProviderChoices { object: "list", data: choices.into_iter().map(choice).collect(), has_more: false }))
}

/// `POST /v1/auth/openid/start`
#[utoipa::path(
    post, path = "/v1/auth/openid/start", tag = "Account", operation_id = "start_openid", summary = "Go to an identity provider", security(()),
    description = "Send the browser to `authorization_url`. It comes back to `/account/openid` at the host name that was asked when that one is \
                   proven, else at the platform's address; go on with `finish` there, within ten minutes.",
    request_body = StartOpenId,
    responses(
        (status = 200, description = "The way", body = OpenIdWay),
        (status = 404, description = "`identity_provider.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`identity_provider.unfit`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 502, description = "`identity_provider.unreachable`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn start(
    State(app): State<App>,
    _: Traveller,
    host: Host,
    Json(body): Json<StartOpenId>,
) -> Result<Response, Problem> {
    go(&app, body.provider, None, &host).await
}

/// `POST /v1/auth/openid/finish`: answers 200 with tokens, or 202 when there is a second step.
#[utoipa::path(
    post, path = "/v1/auth/openid/finish", tag = "Account", operation_id = "finish_openid", summary = "Come back from an identity provider",
    security(()),
    description = "Good once, whatever comes of it. Who has a second factor shows it in the second step, unless the provider says that it saw \
                   several (`amr` holds `mfa`). The session is as one by password.",
    request_body = FinishOpenId,
    responses(
        (status = 200, description = "Signed in", body = TokensView),
        (status = 202, description = "There is a second step", body = SecondStepView),
        (status = 401, description = "`auth.invalid`: unknown, old, used before, or begun elsewhere", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "`auth.identity_refused`, `auth.identity_unknown`, `auth.forbidden`, `tenant.suspended`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`identity_provider.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`quota.seats`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 502, description = "`identity_provider.unreachable`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn finish(
    State(app): State<App>,
    _: Traveller,
    Extension(address): Extension<ClientAddress>,
    headers: HeaderMap,
    Json(body): Json<FinishOpenId>,
) -> Result<Response, Problem> {
    let visitor = Visitor::of(Some(Extension(address)), &headers);
    let back = come_back(&app, body, None).await?;
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, back.tenant_id)).await?;
    let user = match user_identity::owner(&mut tx, back.tenant_id, &back.provider.issuer, &back.claims.subject).await? {
        Some(id) => user::find(&mut tx, back.tenant_id, id).await?,
        None => Some(admit(&app, &mut tx, &back, address).await?),
    };
    let user = user.filter(|user| user.status == "active").ok_or_else(|| {
        Problem::new(Code::AuthForbidden, "this account may not sign in; ask whoever manages your organisation")
    })?;
    let several = back.claims.several_factors;
    let mut held = mfa_factor::list(&mut tx, user.id).await?;
    held.retain(|factor| factor.confirmed_at.is_some());
    if !several && !held.is_empty() {
        return sign_in::second_step(&app, tx, &user, &held).await;
    }
    let tokens = visitor.begin(&mut tx, &user, several).await?;
    tx.commit().await?;
    app.workflows.announce();
    Ok(sign_in::shown(tokens))
}

/// Somebody who came back from a provider.
pub(super) struct Back {
    pub tenant_id: Uuid,
    pub provider: IdentityProvider,
    pub claims: Claims,
}

/// Sends somebody to a provider; `user` is who adds the login to their account.
pub(super) async fn go(
    app: &App,
    provider_id: Uuid,
    user: Option<(Uuid, Uuid)>,
    host: &Host,
) -> Result<Response, Problem> {
    let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
    let tenant_id = tenant_identity_provider::tenant_of(&mut tx, provider_id).await?;
    let tenant_id = tenant_id.filter(|id| user.is_none_or(|(tenant, _)| tenant == *id)).ok_or_else(missing)?;
    let (provider, party) = party(app, &mut tx, tenant_id, provider_id).await?;
    let proven = match host.name() {
        Some(name) if tenant_domain::is_proven(&mut tx, tenant_id, name).await? => Some(name),
        _ => None,
    };
    drop(tx);
    // No connection waits for the provider.
    let known = Provider::discover(&app.egress, &provider.issuer).await?;
    let way = SignIn {
        id: Uuid::now_v7(),
        tenant_id,
        provider_id,
        user_id: user.map(|(_, id)| id),
        redirect_uri: redirect_at(app, proven),
    };
    let authorization_url = known.authorize(&party, &visit(app, &way))?.into();
    let token = Secret::generate(SIGN_IN_KIND);
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, tenant_id)).await?;
    openid_sign_in::begin(&mut tx, &way, &token.hash()).await?;
    tx.commit().await?;
    let token = token.reveal().to_owned();
    let body = OpenIdWay { object: "openid_way", authorization_url, token, expires_in: LASTS.as_secs() };
    Ok(axum::response::IntoResponse::into_response(([(header::CACHE_CONTROL, "no-store")], Json(body))))
}

/// Takes somebody's way back, which is good once, and asks the provider who it is.
pub(super) async fn come_back(app: &App, body: FinishOpenId, user_id: Option<Uuid>) -> Result<Back, Problem> {
    let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
    let way = openid_sign_in::end(&mut tx, &Secret::hash_of(&body.token), user_id).await?.ok_or_else(sign_in::over)?;
    tx.commit().await?;
    let visit = visit(app, &way);
    if visit.state != body.state {
        return Err(sign_in::over());
    }
    let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
    tenant_identity_provider::tenant_of(&mut tx, way.provider_id).await?.ok_or_else(missing)?;
    let (provider, party) = party(app, &mut tx, way.tenant_id, way.provider_id).await?;
    if body.iss.is_some_and(|iss| iss != provider.issuer) {
        return Err(sign_in::over());
    }
    let now = auth_challenge::now(&mut tx).await?;
    drop(tx);
    let known = Provider::discover(&app.egress, &provider.issuer).await?;
    let claims = known.person(&app.egress, &party, visit, body.code, now).await?;
    Ok(Back { tenant_id: way.tenant_id, provider, claims })
}

/// What goes with somebody. It stands nowhere: whoever does not have the key cannot make it.
fn visit(app: &App, way: &SignIn) -> Visit {
    let mark = |what: &str| app.vault.mark(&format!("openid {what} {}", way.id));
    Visit {
        state: mark("state"),
        nonce: mark("nonce"),
        verifier: mark("verifier"),
        redirect_uri: way.redirect_uri.clone(),
    }
}

async fn party(app: &App, db: Db<'_>, tenant_id: Uuid, id: Uuid) -> Result<(IdentityProvider, Party), Problem> {
    let provider = tenant_identity_provider::find(&mut *db, tenant_id, id).await?.ok_or_else(missing)?;
    let sealed = tenant_identity_provider::secret(db, tenant_id, id).await?;
    let secret = app.vault.unseal(&place(id), &sealed).map_err(|error| Problem::internal(&error))?;
    let client_secret = String::from_utf8(secret).map_err(|error| Problem::internal(&error))?;
    let party = Party { client_id: provider.client_id.clone(), client_secret, scopes: provider.scopes.clone() };
    Ok((provider, party))
}

/// Links the login to the person with its address, or adds them, when the tenant vouches for the address. Who has no role gets the
/// provider's.
async fn admit(app: &App, tx: &mut Scoped, back: &Back, address: ClientAddress) -> Result<User, Problem> {
    let (tenant_id, provider) = (back.tenant_id, &back.provider);
    let home = tenant::find(&mut *tx, tenant_id).await?.ok_or_else(missing)?;
    if home.status != "active" {
        return Err(Problem::new(Code::TenantSuspended, "the tenant is suspended: nobody new comes in"));
    }
    let email = vouched_email(tx, back).await?;
    if provider.default_role.is_some() {
        let new = NewUser { email: &email, display_name: &back.claims.name, locale: &home.locale };
        user::create(&mut *tx, tenant_id, new).await?;
    }
    let known = user::by_email(&mut *tx, tenant_id, &email).await?;
    let known = known.ok_or_else(|| unknown("nobody here has this address; ask to be invited"))?;
    let user = user::hold(&mut *tx, tenant_id, known.id).await?.ok_or_else(missing)?;
    if role_binding::is_above_managers(&mut *tx, user.id).await? {
        return Err(unknown("owners add their login themselves: sign in as before, then at /v1/me/identities"));
    }
    let deed = Deed::of(tenant_id, user.id, address);
    let member = role_binding::member(&mut *tx, tenant_id, user.id).await?.ok_or_else(missing)?;
    if let (true, Some(role)) = (member.roles.is_empty(), &provider.default_role) {
        role_binding::grant(&mut *tx, tenant_id, user.id, role, None).await?;
        quotas::check_seats(&mut *tx, tenant_id).await?;
        deed.record(&mut *tx, "member.join", None).await?;
    }
    if user.status == "invited" {
        // Whoever set a password before the address was proven is not who came now.
        user::forget_password(&mut *tx, user.id).await?;
        user::prove_email(&mut *tx, user.id, user.email.as_deref().unwrap_or(&email)).await?;
    }
    let Some(id) = user_identity::add(&mut *tx, tenant_id, user.id, &provider.issuer, &back.claims.subject).await?
    else {
        return settled_meanwhile(tx, back, &user).await;
    };
    deed.record(&mut *tx, "identity.link", Some(("identity", id))).await?;
    if user.status == "active" {
        // Whoever had the account already hears of it; who is new knows.
        letters::tell(app, &mut *tx, &user, Letter::IdentitiesChanged).await?;
    }
    user::find(&mut *tx, tenant_id, user.id).await?.ok_or_else(missing)
}

/// The login was linked to the person at the same time, or they have another one at this provider: then the address is somebody else's by
/// now, and the account is not.
async fn settled_meanwhile(tx: &mut Scoped, back: &Back, user: &User) -> Result<User, Problem> {
    let owner = user_identity::owner(&mut *tx, back.tenant_id, &back.provider.issuer, &back.claims.subject).await?;
    match owner {
        Some(id) if id == user.id => user::find(&mut *tx, back.tenant_id, id).await?.ok_or_else(missing),
        _ => Err(unknown("the account with this address has another login at this provider")),
    }
}

/// The person's address, when the provider says that it is theirs and the tenant has proven that its domain is its own.
async fn vouched_email(db: Db<'_>, back: &Back) -> Result<String, Problem> {
    let email = back.claims.verified_email.as_deref().and_then(address);
    let email = email.ok_or_else(|| unknown("the provider does not say that an address is yours"))?;
    let domain = domain_of(&email).unwrap_or_default();
    let wanted = &back.provider.email_domains;
    let proven = (wanted.is_empty() || wanted.contains(&domain))
        && tenant_domain::is_proven(db, back.tenant_id, &domain).await?;
    if proven { Ok(email) } else { Err(unknown("your address is not of a domain that the organisation has proven")) }
}

/// The domain of an address as host names are kept: in ASCII.
fn domain_of(email: &str) -> Option<String> {
    let (_, domain) = email.rsplit_once('@')?;
    Url::parse(&format!("https://{domain}/")).ok()?.host_str().map(str::to_owned)
}

fn unknown(why: &'static str) -> Problem {
    Problem::new(Code::IdentityUnknown, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_compared_as_host_names_are_kept() {
        assert_eq!(domain_of("jane@acme.example").as_deref(), Some("acme.example"));
        assert_eq!(domain_of("jane@bücher.example").as_deref(), Some("xn--bcher-kva.example"));
        assert_eq!(domain_of("jane@evil.example@acme.example").as_deref(), Some("acme.example"));
        assert_eq!(domain_of("nonsense"), None);
    }
}
