//! `/v1/me/identities`: your logins at identity providers.

use super::{
    deed::Deed,
    door::Host,
    letters,
    openid::{self, FinishOpenId, OpenIdWay, StartOpenId, Traveller},
};
use crate::{
    app::App,
    auth::SignedIn,
    extract::{Json, Path},
    peer::ClientAddress,
    problem::{Code, Problem, ProblemBody},
};
use axum::{Extension, extract::State, http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use flatrender_workflows::{
    contracts::message::Letter,
    models::{
        Db, Role, Scope,
        identity::{
            user,
            user_identity::{self, Identity},
        },
    },
};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// A login of yours.
#[derive(Debug, Serialize, ToSchema)]
pub struct IdentityView {
    /// Its id.
    id: Uuid,
    /// Always `identity`.
    #[schema(example = "identity")]
    object: &'static str,
    /// The provider.
    #[schema(example = "https://login.acme.example")]
    issuer: String,
    /// What the provider calls you.
    #[schema(example = "248289761001")]
    subject: String,
    /// When it was added.
    created_at: DateTime<Utc>,
}

impl From<Identity> for IdentityView {
    fn from(i: Identity) -> Self {
        Self { id: i.id, object: "identity", issuer: i.provider, subject: i.subject, created_at: i.created_at }
    }
}

/// Your logins.
#[derive(Debug, Serialize, ToSchema)]
pub struct IdentityList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// The oldest first; one a provider.
    data: Vec<IdentityView>,
}

/// `GET /v1/me/identities`
#[utoipa::path(
    get, path = "/v1/me/identities", tag = "Account", operation_id = "list_identities", summary = "List your logins at identity providers",
    description = "The oldest first.", responses((status = 200, description = "Your logins", body = IdentityList))
)]
pub async fn list(State(app): State<App>, me: SignedIn) -> Result<Json<IdentityList>, Problem> {
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, me.tenant_id)).await?;
    let data = user_identity::list(&mut tx, me.user_id).await?.into_iter().map(Into::into).collect();
    Ok(Json(IdentityList { object: "list", data }))
}

/// `POST /v1/me/identities/start`: as somebody who signs in, but for an account that is there.
#[utoipa::path(
    post, path = "/v1/me/identities/start", tag = "Account", operation_id = "start_identity", summary = "Go to an identity provider to add a login",
    description = "As `POST /v1/auth/openid/start`. Takes somebody who just proved who they are.", request_body = StartOpenId,
    responses(
        (status = 200, description = "The way", body = OpenIdWay),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`identity_provider.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`identity_provider.unfit`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 502, description = "`identity_provider.unreachable`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn start(
    State(app): State<App>,
    me: SignedIn,
    _: Traveller,
    host: Host,
    Json(body): Json<StartOpenId>,
) -> Result<Response, Problem> {
    me.is_fresh()?;
    openid::go(&app, body.provider, Some((me.tenant_id, me.user_id)), &host).await
}

/// `POST /v1/me/identities/finish`: answers 201 with the login.
#[utoipa::path(
    post, path = "/v1/me/identities/finish", tag = "Account", operation_id = "finish_identity", summary = "Come back from an identity provider with a login",
    description = "As `POST /v1/auth/openid/finish`, by who began it. Good once, whatever comes of it. From then on you sign in with it, whatever \
                   your address is.",
    request_body = FinishOpenId,
    responses(
        (status = 201, description = "Added", body = IdentityView),
        (status = 401, description = "`auth.invalid`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "`auth.identity_refused`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`identity_provider.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`identity.taken`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 502, description = "`identity_provider.unreachable`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn finish(
    State(app): State<App>,
    me: SignedIn,
    _: Traveller,
    Extension(address): Extension<ClientAddress>,
    Json(body): Json<FinishOpenId>,
) -> Result<(StatusCode, Json<IdentityView>), Problem> {
    let back = openid::come_back(&app, body, Some(me.user_id)).await?;
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, me.tenant_id)).await?;
    let (issuer, subject) = (&back.provider.issuer, &back.claims.subject);
    let added = user_identity::add(&mut tx, me.tenant_id, me.user_id, issuer, subject).await?;
    let taken =
        || Problem::new(Code::IdentityTaken, "somebody has this login, or you have another one at this provider");
    let id = added.ok_or_else(taken)?;
    Deed::of(me.tenant_id, me.user_id, address).record(&mut tx, "identity.link", Some(("identity", id))).await?;
    tell(&app, &mut tx, &me).await?;
    let identity = user_identity::list(&mut tx, me.user_id).await?.into_iter().find(|identity| identity.id == id);
    let identity = identity.ok_or_else(missing)?;
    tx.commit().await?;
    app.workflows.announce();
    Ok((StatusCode::CREATED, Json(identity.into())))
}

/// `DELETE /v1/me/identities/{id}`
#[utoipa::path(
    delete, path = "/v1/me/identities/{id}", tag = "Account", operation_id = "remove_identity", summary = "Remove a login of yours",
    description = "You do not sign in with it any more; sessions go on. Who has no password sets one with the link of `forgot-password`. Takes \
                   somebody who just proved who they are.",
    params(("id" = Uuid, Path, description = "The login")),
    responses(
        (status = 204, description = "Removed"),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`identity.not_found`", body = ProblemBody, content_type = "application/problem+json")
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
    if !user_identity::remove(&mut tx, me.user_id, id).await? {
        return Err(missing());
    }
    Deed::of(me.tenant_id, me.user_id, address).record(&mut tx, "identity.unlink", Some(("identity", id))).await?;
    tell(&app, &mut tx, &me).await?;
    tx.commit().await?;
    app.workflows.announce();
    Ok(StatusCode::NO_CONTENT)
}

/// Tells the person by mail that their logins are other ones than before.
async fn tell(app: &App, db: Db<'_>, me: &SignedIn) -> Result<(), Problem> {
    let user = user::find(&mut *db, me.tenant_id, me.user_id).await?.ok_or(sqlx::Error::RowNotFound)?;
    letters::tell(app, db, &user, Letter::IdentitiesChanged).await
}

fn missing() -> Problem {
    Problem::not_found(Code::IdentityNotFound, "login of yours")
}
