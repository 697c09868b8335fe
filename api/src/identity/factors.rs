//! `/v1/me/factors`: second factors, one-time codes by time (RFC 6238) and recovery codes. What is special to passkeys is in
//! [`super::webauthn`].

use super::{deed::Deed, letters, throttle::Gates, webauthn};
use crate::{
    app::App,
    auth::SignedIn,
    extract::{Json, Path},
    peer::ClientAddress,
    problem::{Code, Problem, ProblemBody},
};
use axum::{Extension, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use flatrender_workflows::{
    contracts::message::Letter,
    models::{
        Db, Role, Scope,
        identity::{
            auth_challenge,
            mfa_factor::{self, Factor},
            user, user_session,
        },
        scope::Scoped,
    },
};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use totp_rs::{Builder, Totp};
use utoipa::ToSchema;
use uuid::Uuid;
use webauthn_rs::prelude::PublicKeyCredential;

/// Bytes of the secret of a factor that makes codes (RFC 4226, 4: at least 16).
const SECRET_BYTES: usize = 20;
/// Steps of 30 s before and after now whose codes are taken: clocks differ.
const SKEW: u16 = 1;

/// A second factor.
#[derive(Debug, Serialize, ToSchema)]
pub struct FactorView {
    /// Its id.
    id: Uuid,
    /// Always `factor`.
    #[schema(example = "factor")]
    object: &'static str,
    /// `totp` makes codes, `webauthn` is a passkey or a security key.
    #[schema(example = "totp")]
    kind: String,
    /// What you call it.
    #[schema(example = "Phone")]
    label: String,
    /// The model of a passkey's authenticator; null for others, and when it does not tell.
    aaguid: Option<Uuid>,
    /// Since when it is asked for; null until it is confirmed.
    confirmed_at: Option<DateTime<Utc>>,
    /// When it was shown last.
    last_used_at: Option<DateTime<Utc>>,
    /// When it was added.
    created_at: DateTime<Utc>,
}

impl From<Factor> for FactorView {
    fn from(f: Factor) -> Self {
        let Factor { id, kind, label, aaguid, confirmed_at, last_used_at, created_at, .. } = f;
        Self { id, object: "factor", kind, label, aaguid, confirmed_at, last_used_at, created_at }
    }
}

/// Your second factors.
#[derive(Debug, Serialize, ToSchema)]
pub struct FactorList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// Oldest first.
    data: Vec<FactorView>,
}

/// A factor to be added.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddFactor {
    /// What you call it, 1 to 100 characters.
    #[schema(example = "Phone", min_length = 1, max_length = 100)]
    label: String,
}

/// Another name for a factor.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenameFactor {
    /// What you call it from now on, 1 to 100 characters.
    #[schema(example = "Old phone", min_length = 1, max_length = 100)]
    label: String,
}

/// A factor that waits for its first code.
#[derive(Debug, Serialize, ToSchema)]
pub struct NewFactor {
    /// Its id.
    id: Uuid,
    /// The secret in base 32, to type in. Shown once.
    #[schema(example = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP")]
    secret: String,
    /// The same as an address, to show as a QR code.
    uri: String,
}

/// A code.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfirmFactor {
    /// What the factor shows, six digits.
    #[schema(example = "123456")]
    code: String,
}

/// One-time codes for when a factor is lost.
#[derive(Debug, Serialize, ToSchema)]
pub struct RecoveryCodes {
    /// Each good once. Shown once.
    recovery_codes: Vec<String>,
}

/// `GET /v1/me/factors`
#[utoipa::path(
    get, path = "/v1/me/factors", tag = "Account", operation_id = "list_factors", summary = "List your second factors",
    description = "Oldest first, those that wait for their first code, too.",
    responses((status = 200, description = "All of them", body = FactorList))
)]
pub async fn list(State(app): State<App>, me: SignedIn) -> Result<Json<FactorList>, Problem> {
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, me.tenant_id)).await?;
    let factors = mfa_factor::list(&mut tx, me.user_id).await?;
    Ok(Json(FactorList { object: "list", data: factors.into_iter().map(Into::into).collect() }))
}

/// `POST /v1/me/factors/totp`: adds a factor, which counts once it is confirmed. Answers 201 with its secret.
#[utoipa::path(
    post, path = "/v1/me/factors/totp", tag = "Account", operation_id = "add_totp", summary = "Add a second factor",
    description = "A secret for an app that makes codes. It is asked for at sign-in once a code of it has been confirmed.",
    request_body = AddFactor,
    responses(
        (status = 201, description = "Added", body = NewFactor),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`factor.too_many`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn add(
    State(app): State<App>,
    me: SignedIn,
    Json(body): Json<AddFactor>,
) -> Result<(StatusCode, Json<NewFactor>), Problem> {
    me.is_fresh()?;
    let label = good_label(&body.label)?;
    let (id, secret) = (Uuid::now_v7(), rand::rng().random::<[u8; SECRET_BYTES]>());
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, me.tenant_id)).await?;
    let account = user::find(&mut tx, me.tenant_id, me.user_id).await?.and_then(|u| u.email).unwrap_or_default();
    let sealed = app.vault.seal(&place(id), &secret);
    if !mfa_factor::add_totp(&mut tx, me.tenant_id, me.user_id, id, label, &sealed).await? {
        return Err(full());
    }
    tx.commit().await?;
    let totp = generator(&secret, &account)?;
    let uri = totp.to_url().map_err(|e| Problem::internal(&std::io::Error::other(e.to_string())))?;
    let secret = totp_rs::Secret::from(secret.as_slice()).to_base32();
    Ok((StatusCode::CREATED, Json(NewFactor { id, secret, uri })))
}

/// `POST /v1/me/factors/{id}/confirm`: from now on the factor is asked for. The first one comes with recovery codes.
#[utoipa::path(
    post, path = "/v1/me/factors/{id}/confirm", tag = "Account", operation_id = "confirm_factor", summary = "Confirm a second factor",
    description = "Shows that the app has the secret. The answer holds recovery codes, this once; earlier ones are no longer good.",
    params(("id" = Uuid, Path, description = "The factor")), request_body = ConfirmFactor,
    responses(
        (status = 200, description = "Confirmed", body = RecoveryCodes),
        (status = 403, description = "`auth.code`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`factor.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn confirm(
    State(app): State<App>,
    me: SignedIn,
    Path(id): Path<Uuid>,
    Extension(address): Extension<ClientAddress>,
    Json(body): Json<ConfirmFactor>,
) -> Result<Json<RecoveryCodes>, Problem> {
    me.is_fresh()?;
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, me.tenant_id)).await?;
    let factors = mfa_factor::list(&mut tx, me.user_id).await?;
    let factor = factors.iter().find(|f| f.id == id && f.confirmed_at.is_none()).ok_or_else(missing)?;
    let step = step_of(&app, factor, &body.code, me.now)?.ok_or_else(wrong_code)?;
    if !mfa_factor::use_step(&mut tx, id, step, true).await? {
        return Err(wrong_code());
    }
    let codes = mfa_factor::new_recovery_codes(&mut tx, me.tenant_id, me.user_id).await?;
    user_session::note_proof(&mut tx, me.session_id, true).await?;
    tell(&app, &mut tx, &me).await?;
    Deed::of(me.tenant_id, me.user_id, address).record(&mut tx, "factor.confirm", Some(("factor", id))).await?;
    tx.commit().await?;
    app.workflows.announce();
    Ok(Json(RecoveryCodes { recovery_codes: codes.iter().map(|c| c.reveal().to_owned()).collect() }))
}

/// `PATCH /v1/me/factors/{id}`: calls it something else.
#[utoipa::path(
    patch, path = "/v1/me/factors/{id}", tag = "Account", operation_id = "rename_factor", summary = "Rename a second factor",
    description = "So that you know which of them is lost when one is.", params(("id" = Uuid, Path, description = "The factor")),
    request_body = RenameFactor,
    responses(
        (status = 200, description = "Renamed", body = FactorView),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`factor.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn rename(
    State(app): State<App>,
    me: SignedIn,
    Path(id): Path<Uuid>,
    Extension(address): Extension<ClientAddress>,
    Json(body): Json<RenameFactor>,
) -> Result<Json<FactorView>, Problem> {
    me.is_fresh()?;
    let label = good_label(&body.label)?;
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, me.tenant_id)).await?;
    let factor = mfa_factor::rename(&mut tx, me.user_id, id, label).await?.ok_or_else(missing)?;
    Deed::of(me.tenant_id, me.user_id, address).record(&mut tx, "factor.rename", Some(("factor", id))).await?;
    tx.commit().await?;
    Ok(Json(factor.into()))
}

/// `DELETE /v1/me/factors/{id}`
#[utoipa::path(
    delete, path = "/v1/me/factors/{id}", tag = "Account", operation_id = "remove_factor", summary = "Remove a second factor",
    description = "Takes somebody who just showed a second factor.", params(("id" = Uuid, Path, description = "The factor")),
    responses(
        (status = 204, description = "Removed"),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`factor.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn remove(
    State(app): State<App>,
    me: SignedIn,
    Extension(address): Extension<ClientAddress>,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Problem> {
    me.is_fresh()?;
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, me.tenant_id)).await?;
    if !mfa_factor::remove(&mut tx, me.user_id, id).await? {
        return Err(missing());
    }
    tell(&app, &mut tx, &me).await?;
    Deed::of(me.tenant_id, me.user_id, address).record(&mut tx, "factor.remove", Some(("factor", id))).await?;
    tx.commit().await?;
    app.workflows.announce();
    Ok(StatusCode::NO_CONTENT)
}

/// Tells the person by mail that their factors are other ones than before.
pub(super) async fn tell(app: &App, db: Db<'_>, me: &SignedIn) -> Result<(), Problem> {
    let user = user::find(&mut *db, me.tenant_id, me.user_id).await?.ok_or(sqlx::Error::RowNotFound)?;
    letters::tell(app, db, &user, Letter::FactorsChanged).await
}

/// What somebody shows as their second factor.
#[derive(Clone, Copy)]
pub(super) enum Shown<'a> {
    /// A code of a factor that makes them, or a recovery code.
    Code(&'a str),
    /// What a passkey signed, and what it was asked to.
    Passkey(&'a PublicKeyCredential, &'a Value),
}

/// Why a second factor is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The code is wrong, old, or was used.
    Code,
    /// What the passkey signed is not what it was asked to, or it is none of the person's.
    Passkey,
    /// There is a copy of the passkey with this id of a factor.
    Cloned(Uuid),
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Code => wrong_code(),
            Refusal::Passkey => webauthn::refused(),
            Refusal::Cloned(_) => Self::new(
                Code::AuthPasskeyCloned,
                "the passkey counts fewer uses than it had before: there may be a copy; show another factor and remove it",
            ),
        }
    }
}

/// Takes a second factor of a person. It is used up in the transaction, which is theirs to go on with; a failure is counted by
/// `gates`, of which there are some for codes whatever the password is.
///
/// # Errors
/// `auth.code`, `auth.passkey`, `auth.passkey_cloned`, `auth.throttled`
pub(super) async fn take(
    app: &App,
    tenant_id: Uuid,
    user_id: Uuid,
    shown: Shown<'_>,
    from: ClientAddress,
    gates: &Gates,
) -> Result<Scoped, Problem> {
    let tried = gates.pass(app, tenant_id, false).await?;
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, tenant_id)).await?;
    let refusal = match shown {
        Shown::Code(code) => (!is_code_of(app, &mut tx, user_id, code).await?).then_some(Refusal::Code),
        Shown::Passkey(credential, asked) => webauthn::refusal(app, &mut tx, user_id, credential, asked).await?,
    };
    let Some(refusal) = refusal else {
        tried.succeeded(&mut tx).await?;
        return Ok(tx);
    };
    if let Refusal::Cloned(id) = refusal {
        Deed::of(tenant_id, user_id, from).record(&mut tx, "factor.cloned", Some(("factor", id))).await?;
        tx.commit().await?;
    }
    Err(refusal.into())
}

/// Whether `code` is a code of one of the person's confirmed factors, or one of their recovery codes; it is used up.
async fn is_code_of(app: &App, db: Db<'_>, user_id: Uuid, code: &str) -> Result<bool, Problem> {
    let now = auth_challenge::now(&mut *db).await?;
    for factor in mfa_factor::list(&mut *db, user_id).await?.iter().filter(|f| f.confirmed_at.is_some()) {
        if let Some(step) = step_of(app, factor, code, now)?
            && mfa_factor::use_step(&mut *db, factor.id, step, false).await?
        {
            return Ok(true);
        }
    }
    Ok(mfa_factor::use_recovery_code(db, user_id, code.trim()).await?)
}

/// The time step whose code this is.
fn step_of(app: &App, factor: &Factor, code: &str, now: DateTime<Utc>) -> Result<Option<i64>, Problem> {
    let Some(sealed) = &factor.secret else { return Ok(None) };
    let secret = app.vault.unseal(&place(factor.id), sealed).map_err(|e| Problem::internal(&e))?;
    let digits: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    let step = generator(&secret, "account")?.check(&digits, now.timestamp().unsigned_abs());
    Ok(step.and_then(|step| i64::try_from(step).ok()))
}

fn generator(secret: &[u8], account: &str) -> Result<Totp, Problem> {
    let account = account.replace(':', " ");
    let builder = Builder::new().with_secret(secret).with_skew(SKEW).with_account_name(account.as_str());
    let totp = builder.with_issuer(Some("FlatRender")).build();
    totp.map_err(|e| Problem::internal(&std::io::Error::other(e.to_string())))
}

/// The label without the space around it.
pub(super) fn good_label(label: &str) -> Result<&str, Problem> {
    let label = label.trim();
    if !(1..=100).contains(&label.chars().count()) || label.chars().any(char::is_control) {
        return Err(Problem::fault("/label", "factor.label", "a label has 1 to 100 characters"));
    }
    Ok(label)
}

fn place(id: Uuid) -> String {
    format!("totp:{id}")
}

/// The person has as many factors as they may.
pub(super) fn full() -> Problem {
    Problem::new(Code::FactorsFull, format!("you have {} second factors; remove one", mfa_factor::MOST))
}

fn missing() -> Problem {
    Problem::not_found(Code::FactorNotFound, "second factor of yours")
}

/// The code is wrong, old, or was used.
pub(super) fn wrong_code() -> Problem {
    Problem::new(Code::AuthCode, "the code is not good: wrong, too old, or used before")
}
