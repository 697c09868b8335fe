//! `/v1/me/factors`: second factors, one-time codes by time (RFC 6238) and recovery codes.

use super::{deed::Deed, letters};
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
            mfa_factor::{self, Factor},
            user, user_session,
        },
    },
};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use totp_rs::{Builder, Totp};
use utoipa::ToSchema;
use uuid::Uuid;

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
    /// `totp`
    #[schema(example = "totp")]
    kind: String,
    /// What you call it.
    #[schema(example = "Phone")]
    label: String,
    /// Since when it is asked for; null until it is confirmed.
    confirmed_at: Option<DateTime<Utc>>,
    /// When it was shown last.
    last_used_at: Option<DateTime<Utc>>,
    /// When it was added.
    created_at: DateTime<Utc>,
}

impl From<Factor> for FactorView {
    fn from(f: Factor) -> Self {
        let Factor { id, kind, label, confirmed_at, last_used_at, created_at, .. } = f;
        Self { id, object: "factor", kind, label, confirmed_at, last_used_at, created_at }
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
    let label = body.label.trim();
    if !(1..=100).contains(&label.chars().count()) || label.chars().any(char::is_control) {
        return Err(Problem::fault("/label", "factor.label", "a label has 1 to 100 characters"));
    }
    let (id, secret) = (Uuid::now_v7(), rand::rng().random::<[u8; SECRET_BYTES]>());
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, me.tenant_id)).await?;
    let account = user::find(&mut tx, me.tenant_id, me.user_id).await?.and_then(|u| u.email).unwrap_or_default();
    let sealed = app.vault.seal(&place(id), &secret);
    if !mfa_factor::add_totp(&mut tx, me.tenant_id, me.user_id, id, label, &sealed).await? {
        return Err(Problem::new(
            Code::FactorsFull,
            format!("you have {} second factors; remove one", mfa_factor::MOST),
        ));
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

async fn tell(app: &App, db: Db<'_>, me: &SignedIn) -> Result<(), Problem> {
    if let Some(user) = user::find(&mut *db, me.tenant_id, me.user_id).await?
        && let Some(email) = user.email.clone()
    {
        letters::send(app, db, &user, &email, Letter::FactorsChanged).await?;
    }
    Ok(())
}

/// Whether `code` is a code of one of the person's confirmed factors, or one of their recovery codes; it is used up.
pub(super) async fn shows(
    app: &App,
    db: Db<'_>,
    user_id: Uuid,
    code: &str,
    now: DateTime<Utc>,
) -> Result<bool, Problem> {
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

fn place(id: Uuid) -> String {
    format!("totp:{id}")
}

fn missing() -> Problem {
    Problem::not_found(Code::FactorNotFound, "second factor of yours")
}

/// The code is wrong, old, or was used.
pub(super) fn wrong_code() -> Problem {
    Problem::new(Code::AuthCode, "the code is not good: wrong, too old, or used before")
}
