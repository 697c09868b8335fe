//! `/v1/auth`: signing in and out, the second step, new tokens.

use super::{
    address,
    door::{self, Host},
    factors::{self, Shown},
    passwords,
    throttle::Gates,
    webauthn::{self, WebauthnOptions},
};
use crate::{
    app::App,
    auth::SignedIn,
    extract::Json,
    peer::ClientAddress,
    problem::{Code, Problem, ProblemBody},
};
use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use flatrender_workflows::models::{
    DEFAULT_TENANT, Db, Role, Scope, Secret,
    identity::{
        auth_challenge::{self, Challenge, Kind},
        mfa_factor::{self, Factor},
        user::{self, User},
        user_session::{self, ACCESS, NewSession, Refreshed, Tokens},
    },
    scope::Scoped,
};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;
use uuid::Uuid;
use webauthn_rs::prelude::PublicKeyCredential;

/// Challenges of a second step begin with this.
const CHALLENGE_KIND: &str = "fr_mf_";

/// Who signs in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// The organisation, by its slug; when absent, the one whose host name was asked, else `default`.
    #[schema(example = "default")]
    tenant: Option<String>,
    /// Your address.
    #[schema(example = "jane@example.com")]
    email: String,
    /// Your password.
    #[schema(example = "correct horse battery staple")]
    password: String,
    /// A code of a second factor, or a recovery code: then there is no second step.
    code: Option<String>,
}

/// The second step.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecondStep {
    /// What the first step answered.
    #[schema(example = "fr_mf_…")]
    challenge: String,
    /// A code of a second factor, or a recovery code.
    #[schema(example = "123456")]
    code: Option<String>,
    /// What a passkey signed, instead of a code: the answer of `navigator.credentials.get` to `webauthn`.
    #[schema(value_type = Option<Object>, example = json!(null))]
    credential: Option<PublicKeyCredential>,
}

/// A refresh token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    /// What the last answer held.
    #[schema(example = "fr_rt_…")]
    refresh_token: String,
}

/// Proof that it is still you.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StepUp {
    /// A code of a second factor, or a recovery code. Those who have a factor show it, or a passkey.
    code: Option<String>,
    /// What a passkey signed: the answer of `navigator.credentials.get` to what `POST /v1/auth/step-up/options` gave.
    #[schema(value_type = Option<Object>, example = json!(null))]
    credential: Option<PublicKeyCredential>,
    /// Your password, for those who have none.
    password: Option<String>,
}

/// The tokens of a session. Shown once.
#[derive(Serialize, ToSchema)]
pub struct TokensView {
    /// Always `tokens`.
    #[schema(example = "tokens")]
    object: &'static str,
    /// The session.
    session_id: Uuid,
    /// Send it as `authorization: Bearer …`.
    #[schema(example = "fr_at_…")]
    access_token: String,
    /// Always `Bearer`.
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds until the access token is no longer good.
    #[schema(example = 600)]
    expires_in: u64,
    /// Good once, for the next pair.
    #[schema(example = "fr_rt_…")]
    refresh_token: String,
}

/// There is a second step.
#[derive(Serialize, ToSchema)]
pub struct SecondStepView {
    /// Always `second_step`.
    #[schema(example = "second_step")]
    object: &'static str,
    /// Send it with a code or a passkey's answer to `POST /v1/auth/second-step`. Good for five minutes, and five tries or one of
    /// a passkey.
    #[schema(example = "fr_mf_…")]
    challenge: String,
    /// What may be shown: `totp`, `webauthn`, `recovery_code`.
    #[schema(example = json!(["totp", "recovery_code"]))]
    factors: Vec<&'static str>,
    /// For those who have a passkey: what `navigator.credentials.get` takes.
    webauthn: Option<WebauthnOptions>,
}

impl From<Tokens> for TokensView {
    fn from(tokens: Tokens) -> Self {
        Self {
            object: "tokens",
            session_id: tokens.session_id,
            access_token: tokens.access.reveal().to_owned(),
            token_type: "Bearer",
            expires_in: ACCESS.as_secs(),
            refresh_token: tokens.refresh.reveal().to_owned(),
        }
    }
}

/// Where a request comes from.
pub(super) struct Visitor {
    pub ip: Option<IpAddr>,
    agent: Option<String>,
}

impl Visitor {
    pub fn of(address: Option<Extension<ClientAddress>>, headers: &HeaderMap) -> Self {
        let agent = headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).map(str::to_owned);
        Self { ip: address.and_then(|Extension(a)| a.0), agent }
    }

    /// Begins a session.
    pub async fn begin(&self, db: Db<'_>, user: &User, second_factor: bool) -> sqlx::Result<Tokens> {
        let new = NewSession { ip: self.ip, user_agent: self.agent.as_deref(), second_factor };
        user_session::begin(db, user.tenant_id, user.id, &new).await
    }
}

/// `POST /v1/auth/sign-in`: answers 200 with tokens, or 202 when there is a second step.
#[utoipa::path(
    post, path = "/v1/auth/sign-in", tag = "Account", operation_id = "sign_in", summary = "Sign in", security(()),
    description = "By address and password; who has a second factor adds a code here, or in the second step. A wrong address and a wrong \
                   password get the same answer after the same time.",
    request_body = SignIn,
    responses(
        (status = 200, description = "Signed in", body = TokensView),
        (status = 202, description = "There is a second step", body = SecondStepView),
        (status = 401, description = "`auth.credentials`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "`auth.email_unproven`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "`auth.throttled`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn sign_in(
    State(app): State<App>,
    from: Option<Extension<ClientAddress>>,
    headers: HeaderMap,
    host: Host,
    Json(body): Json<SignIn>,
) -> Result<Response, Problem> {
    let visitor = Visitor::of(from, &headers);
    let email = address(&body.email).unwrap_or_default();
    let (tenant_id, user, kept) = look_up(&app, body.tenant.as_deref(), &host, &email).await?;
    let gates = Gates::of(&email, visitor.ip);
    // Asked of nobody as well, so that it takes as long.
    let known = async |ip| {
        let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
        user_session::known_from(&mut tx, user.as_ref().map_or(Uuid::nil(), |u| u.id), ip).await
    };
    let known = match visitor.ip {
        Some(ip) => known(ip).await?,
        None => false,
    };
    // Somebody else's guesses do not lock out whoever comes from where they have been before, or shows a second factor first.
    let (tried, proven) = match gates.pass(&app, tenant_id, known).await {
        Ok(tried) => (tried, false),
        Err(throttled) if known => return Err(throttled),
        Err(throttled) => {
            let tried = gates.pass(&app, tenant_id, true).await?;
            if !shows_first(&app, user.as_ref(), body.code.as_deref(), visitor.ip).await? {
                let mut tx = app.db.begin(Scope::tenant(Role::Identity, tenant_id)).await?;
                tried.withdrawn(&mut tx).await?;
                tx.commit().await?;
                return Err(throttled);
            }
            (tried, true)
        }
    };
    let right = passwords::verify(&body.password, kept).await?;
    let Some(user) = user.filter(|u| right && matches!(u.status.as_str(), "active" | "invited")) else {
        tried.failed(&app).await?;
        return Err(wrong_credentials());
    };
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, user.tenant_id)).await?;
    if user.status == "invited" {
        tried.withdrawn(&mut tx).await?;
        tx.commit().await?;
        return Err(Problem::new(Code::AuthEmailUnproven, "prove your address first: the link is in your mail"));
    }
    let mut held = mfa_factor::list(&mut tx, user.id).await?;
    held.retain(|f| f.confirmed_at.is_some());
    let has_factor = !held.is_empty();
    if has_factor && !proven {
        let Some(code) = &body.code else {
            tried.withdrawn(&mut tx).await?;
            return second_step(&app, tx, &user, &held).await;
        };
        drop(tx);
        let (code, gates) = (Shown::Code(code), Gates::of_codes(user.id));
        tx = match factors::take(&app, tenant_id, user.id, code, ClientAddress(visitor.ip), &gates).await {
            Ok(tx) => tx,
            Err(refused) => {
                tried.failed(&app).await?;
                return Err(refused);
            }
        };
    }
    let tokens = visitor.begin(&mut tx, &user, has_factor).await?;
    tried.succeeded(&mut tx).await?;
    tx.commit().await?;
    Ok(shown(tokens))
}

/// Whether somebody who has shown no password yet shows a code of the person.
async fn shows_first(app: &App, user: Option<&User>, code: Option<&str>, ip: Option<IpAddr>) -> Result<bool, Problem> {
    let (Some(user), Some(code)) = (user, code) else { return Ok(false) };
    let gates = Gates::of_codes_from(user.id, ip);
    match factors::take(app, user.tenant_id, user.id, Shown::Code(code), ClientAddress(ip), &gates).await {
        Ok(tx) => Ok(tx.commit().await.map(|()| true)?),
        Err(refused) if matches!(refused.code(), Code::AuthCode | Code::AuthThrottled) => Ok(false),
        Err(problem) => Err(problem),
    }
}

/// The tenant, its person with this address, and the hash of their password.
async fn look_up(
    app: &App,
    slug: Option<&str>,
    host: &Host,
    email: &str,
) -> Result<(Uuid, Option<User>, Option<String>), Problem> {
    let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
    let entrance = door::entrance(&mut tx, slug, host).await?;
    let tenant_id = entrance.as_ref().map_or(DEFAULT_TENANT, |e| e.id);
    let user = user::by_email(&mut tx, tenant_id, email).await?.filter(|_| entrance.is_some());
    let kept = user::password_hash(&mut tx, user.as_ref().map_or(Uuid::nil(), |u| u.id)).await?;
    Ok((tenant_id, user, kept))
}

pub(super) async fn second_step(app: &App, mut tx: Scoped, user: &User, held: &[Factor]) -> Result<Response, Problem> {
    let secret = Secret::generate(CHALLENGE_KIND);
    let (webauthn, state) = webauthn::ask(app, held)?.unzip();
    let challenge = Challenge { state, ..Challenge::of(user.tenant_id, user.id) };
    auth_challenge::issue(&mut tx, Kind::SecondFactor, &challenge, &secret.hash()).await?;
    tx.commit().await?;
    let has_codes = held.iter().any(|f| f.secret.is_some());
    let kinds = [("totp", has_codes), ("webauthn", webauthn.is_some()), ("recovery_code", true)];
    let factors = kinds.into_iter().filter_map(|(kind, there)| there.then_some(kind)).collect();
    let challenge = secret.reveal().to_owned();
    let body = SecondStepView { object: "second_step", challenge, factors, webauthn };
    Ok((StatusCode::ACCEPTED, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

/// `POST /v1/auth/second-step`
#[utoipa::path(
    post, path = "/v1/auth/second-step", tag = "Account", operation_id = "second_step", summary = "Show a second factor", security(()),
    description = "A code, or what a passkey signed. Each works once. Five tries with codes, or one with a passkey, then sign in anew.",
    request_body = SecondStep,
    responses(
        (status = 200, description = "Signed in", body = TokensView),
        (status = 401, description = "`auth.invalid`: the challenge is unknown, old or used up", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "`auth.code`, `auth.passkey`, `auth.passkey_cloned`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "`auth.throttled`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn second(
    State(app): State<App>,
    from: Option<Extension<ClientAddress>>,
    headers: HeaderMap,
    Json(body): Json<SecondStep>,
) -> Result<Response, Problem> {
    let visitor = Visitor::of(from, &headers);
    if body.code.is_some() == body.credential.is_some() {
        return Err(Problem::fault("/code", "field.missing", "show a code or what a passkey signed"));
    }
    // The try is counted whatever comes of it, and a passkey has one: what it was asked is asked once.
    let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
    let challenge = auth_challenge::attempt(&mut tx, Kind::SecondFactor, &Secret::hash_of(&body.challenge)).await?;
    let challenge = challenge.ok_or_else(over)?;
    if body.credential.is_some() {
        auth_challenge::finish(&mut tx, challenge.id).await?;
    }
    tx.commit().await?;
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, challenge.tenant_id)).await?;
    let user = user::find(&mut tx, challenge.tenant_id, challenge.user_id).await?;
    let user = user.filter(|u| u.status == "active").ok_or_else(over)?;
    drop(tx);
    let asked = challenge.state.unwrap_or_default();
    let proof = match &body.credential {
        Some(credential) => Shown::Passkey(credential, &asked),
        None => Shown::Code(body.code.as_deref().unwrap_or_default()),
    };
    let (from, gates) = (ClientAddress(visitor.ip), Gates::of_codes(user.id));
    let mut tx = factors::take(&app, user.tenant_id, user.id, proof, from, &gates).await?;
    if body.code.is_some() && !auth_challenge::finish(&mut tx, challenge.id).await? {
        return Err(over());
    }
    let tokens = visitor.begin(&mut tx, &user, true).await?;
    tx.commit().await?;
    Ok(shown(tokens))
}

/// `POST /v1/auth/refresh`: the next pair of tokens.
#[utoipa::path(
    post, path = "/v1/auth/refresh", tag = "Account", operation_id = "refresh_tokens", summary = "Get the next tokens", security(()),
    description = "A refresh token is good once. One that is shown again ends its session: somebody has a copy.",
    request_body = Refresh,
    responses(
        (status = 200, description = "The next pair", body = TokensView),
        (status = 401, description = "`auth.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn refresh(State(app): State<App>, Json(body): Json<Refresh>) -> Result<Response, Problem> {
    let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
    let refreshed = user_session::refresh(&mut tx, &body.refresh_token).await?;
    tx.commit().await?;
    match refreshed {
        Refreshed::Next(tokens) => Ok(shown(tokens)),
        Refreshed::Reused | Refreshed::Unknown => Err(Problem::new(Code::AuthInvalid, "sign in again")),
    }
}

/// `POST /v1/auth/sign-out`: ends the session that asks.
#[utoipa::path(
    post, path = "/v1/auth/sign-out", tag = "Account", operation_id = "sign_out", summary = "Sign out",
    description = "The session that asks ends; its tokens are no longer good.",
    responses((status = 204, description = "Signed out"))
)]
pub async fn sign_out(State(app): State<App>, me: SignedIn) -> Result<StatusCode, Problem> {
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, me.tenant_id)).await?;
    user_session::revoke(&mut tx, me.session_id, "signed out").await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/auth/step-up`: for ten minutes the session may do what is dangerous.
#[utoipa::path(
    post, path = "/v1/auth/step-up", tag = "Account", operation_id = "step_up", summary = "Prove again that it is you",
    description = "With a code or a passkey by those who have a second factor, with the password by others.", request_body = StepUp,
    responses(
        (status = 204, description = "Proven"),
        (status = 403, description = "`auth.code`, `auth.passkey`, `auth.passkey_cloned`, `auth.credentials`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "`auth.throttled`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn step_up(
    State(app): State<App>,
    me: SignedIn,
    Extension(address): Extension<ClientAddress>,
    Json(body): Json<StepUp>,
) -> Result<StatusCode, Problem> {
    let gates = Gates::of_codes(me.user_id);
    let mut tx = match (me.has_factor, &body.credential) {
        (true, Some(credential)) => {
            let asked = webauthn::recall(&app, &me, &credential.response.client_data_json).await?;
            factors::take(&app, me.tenant_id, me.user_id, Shown::Passkey(credential, &asked), address, &gates).await?
        }
        (true, None) => {
            let code = body.code.as_deref().unwrap_or_default();
            factors::take(&app, me.tenant_id, me.user_id, Shown::Code(code), address, &gates).await?
        }
        (false, _) => by_password(&app, &me, body.password.as_deref().unwrap_or_default()).await?,
    };
    user_session::note_proof(&mut tx, me.session_id, me.has_factor).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes the password of somebody who has no second factor. The transaction is theirs to go on with; a failure is counted.
async fn by_password(app: &App, me: &SignedIn, password: &str) -> Result<Scoped, Problem> {
    let tried = Gates::of_codes(me.user_id).pass(app, me.tenant_id, false).await?;
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, me.tenant_id)).await?;
    let kept = user::password_hash(&mut tx, me.user_id).await?;
    // No connection waits while a password is computed.
    drop(tx);
    if !passwords::verify(password, kept).await? {
        return Err(wrong_credentials());
    }
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, me.tenant_id)).await?;
    tried.succeeded(&mut tx).await?;
    Ok(tx)
}

pub(super) fn shown(tokens: Tokens) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(TokensView::from(tokens))).into_response()
}

pub(super) fn over() -> Problem {
    Problem::new(Code::AuthInvalid, "the challenge is unknown, too old or used up; sign in again")
}

/// Whatever of the two is wrong.
pub(super) fn wrong_credentials() -> Problem {
    Problem::new(Code::AuthCredentials, "the address or the password is wrong")
}
