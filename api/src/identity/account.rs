//! `/v1/auth/register` and what follows it, `/v1/me`: people's accounts.

use super::{
    address,
    deed::Deed,
    door::{self, Host},
    letters, passwords, sign_in,
    throttle::Gates,
};
use crate::{
    app::App,
    auth::SignedIn,
    extract::Json,
    limits,
    peer::ClientAddress,
    problem::{Code, Problem, ProblemBody},
};
use axum::{
    Extension,
    extract::{FromRequestParts, State},
    http::{StatusCode, request::Parts},
};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use flatrender_workflows::{
    contracts::message::Letter,
    models::{
        Role, Scope, Secret,
        identity::{
            auth_challenge::{self, Kind},
            rate_bucket::Rate,
            user::{self, NewUser, User},
            user_session,
        },
    },
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;
use uuid::Uuid;

/// Letters that one address may cause.
const OF_LETTERS: Rate = Rate { limit: 20.0, window_seconds: 3600.0 };

/// Somebody new.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// The organisation, by its slug; when absent, the one whose host name was asked, else `default`.
    #[schema(example = "default")]
    tenant: Option<String>,
    /// Your address.
    #[schema(example = "jane@example.com")]
    email: String,
    /// 15 to 256 characters that are not easily guessed.
    #[schema(example = "correct horse battery staple", min_length = 15, max_length = 256)]
    password: String,
    /// What you are called.
    #[schema(example = "Jane", max_length = 200)]
    #[serde(default)]
    display_name: String,
    /// The language of your mail, by BCP 47; English when absent.
    #[schema(example = "fa")]
    locale: Option<String>,
}

/// Somebody's address.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ForgotPassword {
    /// The organisation, by its slug; when absent, the one whose host name was asked, else `default`.
    #[schema(example = "default")]
    tenant: Option<String>,
    /// Your address.
    #[schema(example = "jane@example.com")]
    email: String,
}

/// The text of a link.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyEmail {
    /// What stands behind `#` in the link.
    #[schema(example = "fr_ln_…")]
    token: String,
    /// The password given at registration. Needed for the first address: so that nobody makes somebody else's account theirs by
    /// registering first.
    password: Option<String>,
}

/// The text of a link, and a password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResetPassword {
    /// What stands behind `#` in the link.
    #[schema(example = "fr_ln_…")]
    token: String,
    /// 15 to 256 characters that are not easily guessed.
    #[schema(example = "correct horse battery staple", min_length = 15, max_length = 256)]
    password: String,
}

/// A letter is on its way, if there is somebody to write to.
#[derive(Serialize, ToSchema)]
pub struct MailSent {
    /// Always `mail`.
    #[schema(example = "mail")]
    object: &'static str,
    /// What to do now.
    #[schema(example = "look into your mail")]
    detail: &'static str,
}

/// You.
#[derive(Serialize, ToSchema)]
pub struct Me {
    /// Your id.
    id: Uuid,
    /// Always `user`.
    #[schema(example = "user")]
    object: &'static str,
    /// Your organisation.
    tenant_id: Uuid,
    /// Your address.
    #[schema(example = "jane@example.com")]
    email: Option<String>,
    /// When you proved that it is yours.
    email_verified_at: Option<DateTime<Utc>>,
    /// What you are called.
    #[schema(example = "Jane")]
    display_name: String,
    /// The language you are spoken to in.
    #[schema(example = "fa")]
    locale: String,
    /// The zone your times are shown in.
    #[schema(example = "Asia/Tehran")]
    timezone: String,
    /// What your roles let you do.
    #[schema(example = json!(["read", "edit", "render"]))]
    rights: Vec<String>,
    /// Whether you have a second factor.
    has_second_factor: bool,
    /// When you came.
    created_at: DateTime<Utc>,
}

/// What to change of a profile; what is absent stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateMe {
    /// What you are called.
    #[schema(example = "Jane", max_length = 200)]
    display_name: Option<String>,
    /// The language you are spoken to in, by BCP 47.
    #[schema(example = "fa")]
    locale: Option<String>,
    /// The zone your times are shown in, by IANA.
    #[schema(example = "Asia/Tehran")]
    timezone: Option<String>,
}

/// Another password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePassword {
    /// The one you have.
    #[schema(example = "a few words that nobody guesses")]
    current: String,
    /// The next: 15 to 256 characters that are not easily guessed.
    #[schema(example = "correct horse battery staple", min_length = 15, max_length = 256)]
    new: String,
}

/// Another address.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeEmail {
    /// The next one. It counts once it is proven.
    #[schema(example = "jane@example.org", format = IdnEmail)]
    email: String,
}

/// Somebody without a credential who causes letters: so many an hour from one address.
pub struct Stranger;

impl FromRequestParts<App> for Stranger {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        limits::take_as_address(app, parts, "letters", OF_LETTERS).await.map(|()| Self)
    }
}

/// What takes longer for an address that somebody has, such as writing a letter, is answered for any after this time. Far more
/// than it takes, so that the time tells nothing.
const EVEN: Duration = Duration::from_millis(400);

/// Does something and answers no sooner than after [`EVEN`], however it ended.
async fn evenly<T>(work: impl Future<Output = T>) -> T {
    tokio::join!(work, tokio::time::sleep(EVEN)).0
}

/// `POST /v1/auth/register`: answers 202, whether or not somebody has the address.
#[utoipa::path(
    post, path = "/v1/auth/register", tag = "Account", operation_id = "register", summary = "Register", security(()),
    description = "A letter with a link goes to the address. Somebody who has an account gets a letter that says so; the answer is the same. \
                   Roles are given by whoever manages the organisation.",
    request_body = Register,
    responses(
        (status = 202, description = "Look into your mail", body = MailSent),
        (status = 403, description = "`account.registration_closed`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn register(
    State(app): State<App>,
    _: Stranger,
    host: Host,
    Json(body): Json<Register>,
) -> Result<(StatusCode, Json<MailSent>), Problem> {
    evenly(sign_up(app, host, body)).await
}

async fn sign_up(app: App, host: Host, body: Register) -> Result<(StatusCode, Json<MailSent>), Problem> {
    let email = email("/email", &body.email)?;
    let locale = body.locale.as_deref().unwrap_or("en");
    check_profile(Some(&body.display_name), Some(locale), None)?;
    let password = good_password("/password", &body.password, &[&email, &body.display_name])?;
    let hash = passwords::hash(password).await?;
    let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
    let entrance = door::entrance(&mut tx, body.tenant.as_deref(), &host).await?;
    let closed = || Problem::new(Code::RegistrationClosed, "nobody registers there by themselves; ask to be invited");
    let tenant_id = entrance.filter(|e| e.registers).ok_or_else(closed)?.id;
    Scope::tenant(Role::Identity, tenant_id).enter(&mut tx).await?;
    let new = NewUser { email: &email, display_name: body.display_name.trim(), locale };
    user::create(&mut tx, tenant_id, new).await?;
    let Some(user) = user::by_email(&mut tx, tenant_id, &email).await? else { return Ok(mail_sent()) };
    // As they are once whoever proves the address right now is done.
    let Some(user) = user::hold(&mut tx, tenant_id, user.id).await? else { return Ok(mail_sent()) };
    if user.status == "invited" {
        // Nobody has proven the address yet, so the last one to register counts: the link works with their password only.
        user::set_password(&mut tx, tenant_id, user.id, &hash).await?;
        letters::prove(&app, &mut tx, &user, user.email.as_deref().unwrap_or_default()).await?;
    } else {
        // To the address as it is kept: one that is only taken for it gets nothing.
        letters::send(&app, &mut tx, &user, user.email.as_deref().unwrap_or_default(), Letter::AlreadyRegistered)
            .await?;
    }
    tx.commit().await?;
    app.workflows.announce();
    Ok(mail_sent())
}

/// `POST /v1/auth/verify-email`: the address in the link is the person's.
#[utoipa::path(
    post, path = "/v1/auth/verify-email", tag = "Account", operation_id = "verify_email", summary = "Prove an address", security(()),
    description = "A link is good once, for two days. Somebody new adds the password they registered with. The address that a person had \
                   before is told of it.", request_body = VerifyEmail,
    responses(
        (status = 204, description = "Proven"),
        (status = 401, description = "`auth.credentials`: it is not the password of the registration", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`account.email_taken`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`link.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn verify_email(
    State(app): State<App>,
    Extension(address): Extension<ClientAddress>,
    Json(body): Json<VerifyEmail>,
) -> Result<StatusCode, Problem> {
    let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
    // The try is counted whatever comes of it.
    let link = auth_challenge::attempt(&mut tx, Kind::VerifyEmail, &Secret::hash_of(&body.token)).await?;
    tx.commit().await?;
    let link = link.ok_or_else(bad_link)?;
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, link.tenant_id)).await?;
    let user = user::find(&mut tx, link.tenant_id, link.user_id).await?.ok_or_else(bad_link)?;
    if user.status == "invited" {
        let kept = user::password_hash(&mut tx, user.id).await?;
        // No connection waits while a password is computed.
        drop(tx);
        if !passwords::verify(body.password.as_deref().unwrap_or_default(), kept).await? {
            return Err(sign_in::wrong_credentials());
        }
        tx = app.db.begin(Scope::tenant(Role::Identity, link.tenant_id)).await?;
    }
    // Before the link, in the order of `register`, which makes the link worthless together with the password.
    let user = user::hold(&mut tx, link.tenant_id, user.id).await?.ok_or_else(bad_link)?;
    let email = link.email.ok_or_else(bad_link)?;
    if !auth_challenge::finish(&mut tx, link.id).await? {
        return Err(bad_link());
    }
    if !user::prove_email(&mut tx, user.id, &email).await? {
        return Err(Problem::new(Code::EmailTaken, "somebody else has this address by now"));
    }
    if let Some(before) = user.email.as_deref().filter(|before| *before != email && user.email_verified_at.is_some()) {
        letters::send(&app, &mut tx, &user, before, Letter::EmailChanged { to: email.clone() }).await?;
        // Links that went to the old address are no longer good.
        auth_challenge::withdraw(&mut tx, Kind::Reset, user.id).await?;
        Deed::of(user.tenant_id, user.id, address).record(&mut tx, "email.change", None).await?;
    }
    tx.commit().await?;
    app.workflows.announce();
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/auth/forgot-password`: answers 202, whether or not there is such a person.
#[utoipa::path(
    post, path = "/v1/auth/forgot-password", tag = "Account", operation_id = "forgot_password", summary = "Ask for a link to set a password",
    description = "A letter with a link goes to the address if somebody has it; the answer is the same if nobody has, and comes after the same time.",
    security(()), request_body = ForgotPassword, responses((status = 202, description = "Look into your mail", body = MailSent))
)]
pub async fn forgot_password(
    State(app): State<App>,
    _: Stranger,
    host: Host,
    Json(body): Json<ForgotPassword>,
) -> Result<(StatusCode, Json<MailSent>), Problem> {
    evenly(send_link(app, host, body)).await
}

async fn send_link(app: App, host: Host, body: ForgotPassword) -> Result<(StatusCode, Json<MailSent>), Problem> {
    let email = email("/email", &body.email)?;
    let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
    let Some(entrance) = door::entrance(&mut tx, body.tenant.as_deref(), &host).await? else {
        return Ok(mail_sent());
    };
    Scope::tenant(Role::Identity, entrance.id).enter(&mut tx).await?;
    let user = user::by_email(&mut tx, entrance.id, &email).await?;
    if let Some(user) = user.filter(|u| matches!(u.status.as_str(), "active" | "invited")) {
        let kept = user.email.as_deref().unwrap_or_default();
        letters::reset(&app, &mut tx, &user, kept).await?;
        tx.commit().await?;
        app.workflows.announce();
    }
    Ok(mail_sent())
}

/// `POST /v1/auth/reset-password`: sets a password by the link in a letter; every session ends.
#[utoipa::path(
    post, path = "/v1/auth/reset-password", tag = "Account", operation_id = "reset_password", summary = "Set a password by a link",
    description = "A link is good once, for an hour. It proves the address, too. Every session of the person ends. A second factor is still asked for.",
    security(()), request_body = ResetPassword,
    responses(
        (status = 204, description = "Set"),
        (status = 422, description = "`link.invalid`, `request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn reset_password(
    State(app): State<App>,
    Extension(address): Extension<ClientAddress>,
    Json(body): Json<ResetPassword>,
) -> Result<StatusCode, Problem> {
    // A password that is not good does not use the link up, and no password is computed for a link that is not good.
    good_password("/password", &body.password, &[])?;
    let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
    let link = auth_challenge::attempt(&mut tx, Kind::Reset, &Secret::hash_of(&body.token)).await?;
    tx.commit().await?;
    let link = link.ok_or_else(bad_link)?;
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, link.tenant_id)).await?;
    let user = user::find(&mut tx, link.tenant_id, link.user_id).await?.ok_or_else(bad_link)?;
    drop(tx);
    let names = [user.email.as_deref().unwrap_or_default(), &user.display_name];
    let hash = passwords::hash(good_password("/password", &body.password, &names)?).await?;
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, link.tenant_id)).await?;
    // The person before the link, as everybody does who makes links worthless.
    let user = user::hold(&mut tx, link.tenant_id, link.user_id).await?.ok_or_else(bad_link)?;
    if !auth_challenge::finish(&mut tx, link.id).await? {
        return Err(bad_link());
    }
    let email = user.email.clone().ok_or_else(bad_link)?;
    user::set_password(&mut tx, user.tenant_id, user.id, &hash).await?;
    if user.status == "invited" {
        user::prove_email(&mut tx, user.id, &email).await?;
    }
    user_session::revoke_all(&mut tx, user.id, None, "the password was reset").await?;
    // Whoever was in the account before may have asked for another address, or stand before the second step.
    auth_challenge::withdraw_all(&mut tx, user.id).await?;
    Gates::of(&email, None).forget_account(&mut tx, user.tenant_id).await?;
    letters::send(&app, &mut tx, &user, &email, Letter::PasswordChanged).await?;
    Deed::of(user.tenant_id, user.id, address).record(&mut tx, "password.reset", None).await?;
    tx.commit().await?;
    app.workflows.announce();
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/me`
#[utoipa::path(
    get, path = "/v1/me", tag = "Account", operation_id = "get_me", summary = "Who you are",
    description = "Your profile, and what your roles let you do.",
    responses((status = 200, description = "You", body = Me))
)]
pub async fn get(State(app): State<App>, me: SignedIn) -> Result<Json<Me>, Problem> {
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, me.tenant_id)).await?;
    Ok(Json(view(found(&mut tx, &me).await?, &me)))
}

/// `PATCH /v1/me`
#[utoipa::path(
    patch, path = "/v1/me", tag = "Account", operation_id = "update_me", summary = "Change your profile",
    description = "What is absent stays as it is.", request_body = UpdateMe,
    responses(
        (status = 200, description = "You, afterwards", body = Me),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn update(State(app): State<App>, me: SignedIn, Json(body): Json<UpdateMe>) -> Result<Json<Me>, Problem> {
    let UpdateMe { display_name, locale, timezone } = &body;
    check_profile(display_name.as_deref(), locale.as_deref(), timezone.as_deref())?;
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, me.tenant_id)).await?;
    let name = display_name.as_deref().map(str::trim);
    user::update(&mut tx, me.user_id, name, locale.as_deref(), timezone.as_deref()).await?;
    let user = found(&mut tx, &me).await?;
    tx.commit().await?;
    Ok(Json(view(user, &me)))
}

/// `POST /v1/me/password`: every other session ends.
#[utoipa::path(
    post, path = "/v1/me/password", tag = "Account", operation_id = "change_password", summary = "Change your password",
    description = "Every session but the one that asks ends.", request_body = ChangePassword,
    responses(
        (status = 204, description = "Changed"),
        (status = 401, description = "`auth.credentials`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "`auth.throttled`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn change_password(
    State(app): State<App>,
    me: SignedIn,
    Extension(address): Extension<ClientAddress>,
    Json(body): Json<ChangePassword>,
) -> Result<StatusCode, Problem> {
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, me.tenant_id)).await?;
    let user = found(&mut tx, &me).await?;
    let kept = user::password_hash(&mut tx, me.user_id).await?;
    drop(tx);
    let names = [user.email.as_deref().unwrap_or_default(), &user.display_name];
    let password = good_password("/new", &body.new, &names)?;
    let tried = Gates::of_codes(me.user_id).pass(&app, me.tenant_id, false).await?;
    if !passwords::verify(&body.current, kept).await? {
        return Err(sign_in::wrong_credentials());
    }
    let hash = passwords::hash(password).await?;
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, me.tenant_id)).await?;
    tried.succeeded(&mut tx).await?;
    user::set_password(&mut tx, me.tenant_id, me.user_id, &hash).await?;
    user_session::revoke_all(&mut tx, me.user_id, Some(me.session_id), "the password was changed").await?;
    auth_challenge::withdraw_all(&mut tx, me.user_id).await?;
    if let Some(email) = &user.email {
        letters::send(&app, &mut tx, &user, email, Letter::PasswordChanged).await?;
    }
    Deed::of(me.tenant_id, me.user_id, address).record(&mut tx, "password.change", None).await?;
    tx.commit().await?;
    app.workflows.announce();
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/me/email`: a link goes to the new address, which counts once it is proven.
#[utoipa::path(
    post, path = "/v1/me/email", tag = "Account", operation_id = "change_email", summary = "Change your address",
    description = "A link goes to the new address; it is yours once the link was used, and the old address is told. Takes somebody who just \
                   proved who they are.",
    request_body = ChangeEmail,
    responses(
        (status = 202, description = "Look into your mail", body = MailSent),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn change_email(
    State(app): State<App>,
    me: SignedIn,
    _: Stranger,
    Json(body): Json<ChangeEmail>,
) -> Result<(StatusCode, Json<MailSent>), Problem> {
    me.is_fresh()?;
    let email = email("/email", &body.email)?;
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, me.tenant_id)).await?;
    let user = found(&mut tx, &me).await?;
    // Whether somebody has it is not told here; the link says so to whoever reads the address's mail.
    letters::prove(&app, &mut tx, &user, &email).await?;
    tx.commit().await?;
    app.workflows.announce();
    Ok(mail_sent())
}

async fn found(db: flatrender_workflows::models::Db<'_>, me: &SignedIn) -> Result<User, Problem> {
    let user = user::find(db, me.tenant_id, me.user_id).await?;
    user.ok_or_else(|| Problem::internal(&sqlx::Error::RowNotFound))
}

fn view(user: User, me: &SignedIn) -> Me {
    Me {
        id: user.id,
        object: "user",
        tenant_id: user.tenant_id,
        email: user.email,
        email_verified_at: user.email_verified_at,
        display_name: user.display_name,
        locale: user.locale,
        timezone: user.timezone,
        rights: me.rights.clone(),
        has_second_factor: me.has_factor,
        created_at: user.created_at,
    }
}

fn mail_sent() -> (StatusCode, Json<MailSent>) {
    (StatusCode::ACCEPTED, Json(MailSent { object: "mail", detail: "look into your mail" }))
}

fn bad_link() -> Problem {
    Problem::new(Code::LinkInvalid, "the link is unknown, too old, or was used before; ask for another")
}

pub(super) fn email(pointer: &str, text: &str) -> Result<String, Problem> {
    address(text).ok_or_else(|| Problem::fault(pointer, "email.invalid", "this is no address that mail can be sent to"))
}

fn good_password(pointer: &str, password: &str, names: &[&str]) -> Result<String, Problem> {
    passwords::good(pointer, password, names).map_err(|fault| Problem::faulty(Code::RequestInvalid, vec![fault]))
}

pub(super) fn check_profile(name: Option<&str>, locale: Option<&str>, timezone: Option<&str>) -> Result<(), Problem> {
    if name.is_some_and(|n| n.chars().count() > 200 || n.chars().any(char::is_control)) {
        return Err(Problem::fault(
            "/display_name",
            "profile.name",
            "a name has at most 200 characters, and no control characters",
        ));
    }
    if locale.is_some_and(|l| !is_locale(l)) {
        return Err(Problem::fault(
            "/locale",
            "locale.invalid",
            "a language is written as in BCP 47, such as `fa` or `en-GB`",
        ));
    }
    if timezone.is_some_and(|z| z.parse::<Tz>().is_err()) {
        return Err(Problem::fault(
            "/timezone",
            "timezone.unknown",
            "a time zone is one of the IANA database, such as `Asia/Tehran`",
        ));
    }
    Ok(())
}

/// As the column takes it.
fn is_locale(text: &str) -> bool {
    let mut parts = text.split('-');
    let language = parts.next().unwrap_or_default();
    let good = (2..=3).contains(&language.len()) && language.bytes().all(|b| b.is_ascii_lowercase());
    good && text.len() <= 35
        && parts.all(|p| (2..=8).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_alphanumeric()))
}
