//! `/v1/me/sessions`: where you are signed in.

use super::deed::Deed;
use crate::{
    app::App,
    auth::SignedIn,
    extract::{Json, Path},
    peer::ClientAddress,
    problem::{Code, Problem, ProblemBody},
};
use axum::{Extension, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use flatrender_workflows::models::{Role, Scope, identity::user_session};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// A place where you are signed in.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionView {
    /// Its id.
    id: Uuid,
    /// Always `session`.
    #[schema(example = "session")]
    object: &'static str,
    /// Whether it is the one that asks.
    current: bool,
    /// From where you signed in.
    #[schema(example = "192.0.2.7")]
    ip: Option<String>,
    /// With which program.
    user_agent: Option<String>,
    /// When you signed in.
    created_at: DateTime<Utc>,
    /// When it was used last, to the minute.
    last_seen_at: DateTime<Utc>,
    /// When it ends unless it is used.
    expires_at: DateTime<Utc>,
}

/// Where you are signed in.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// The one used last comes first; 200 at most.
    data: Vec<SessionView>,
}

/// `GET /v1/me/sessions`
#[utoipa::path(
    get, path = "/v1/me/sessions", tag = "Account", operation_id = "list_sessions", summary = "List your sessions",
    description = "Those that are not over; the one used last comes first.",
    responses((status = 200, description = "Those that are not over", body = SessionList))
)]
pub async fn list(State(app): State<App>, me: SignedIn) -> Result<Json<SessionList>, Problem> {
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, me.tenant_id)).await?;
    let sessions = user_session::list(&mut tx, me.user_id).await?;
    let view = |s: user_session::Session| SessionView {
        id: s.id,
        object: "session",
        current: s.id == me.session_id,
        ip: s.ip,
        user_agent: s.user_agent,
        created_at: s.created_at,
        last_seen_at: s.last_seen_at,
        expires_at: s.expires_at,
    };
    Ok(Json(SessionList { object: "list", data: sessions.into_iter().map(view).collect() }))
}

/// `DELETE /v1/me/sessions/{id}`: signs you out there, at once.
#[utoipa::path(
    delete, path = "/v1/me/sessions/{id}", tag = "Account", operation_id = "revoke_session", summary = "End a session of yours",
    description = "Its tokens are no longer good from the next request on.", params(("id" = Uuid, Path, description = "The session")),
    responses(
        (status = 204, description = "Ended"),
        (status = 404, description = "`session.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn revoke(
    State(app): State<App>,
    me: SignedIn,
    Extension(address): Extension<ClientAddress>,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Problem> {
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, me.tenant_id)).await?;
    if !user_session::is_of(&mut tx, id, me.user_id).await?
        || !user_session::revoke(&mut tx, id, "by its owner").await?
    {
        return Err(Problem::not_found(Code::SessionNotFound, "session of yours"));
    }
    Deed::of(me.tenant_id, me.user_id, address).record(&mut tx, "session.revoke", Some(("session", id))).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
