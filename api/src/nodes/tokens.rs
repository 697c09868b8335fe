//! `/v1/platform/nodes/tokens`: the enrolment tokens that were made, for whoever runs the platform. [`super::operate`] makes them.

use crate::{
    app::App,
    auth::Operator,
    extract::{
        Json, Path, Query,
        page::{self, Page},
    },
    identity::{Change, Registrar},
    problem::{Code, Problem, ProblemBody},
};
use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use flatrender_engine::Labels;
use flatrender_workflows::models::{
    DEFAULT_TENANT, Role, Scope,
    render::node::token::{self, Token},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// An enrolment token, without the token.
#[derive(Debug, Serialize, ToSchema)]
pub struct NodeTokenView {
    /// Its id.
    id: Uuid,
    /// Always `node_token`.
    #[schema(example = "node_token")]
    object: &'static str,
    /// `open`, `used`, `revoked` or `expired`.
    #[schema(example = "open")]
    state: String,
    /// The group of nodes that it is for.
    #[schema(example = "default")]
    pool: String,
    /// What it says of the node.
    #[schema(value_type = Object)]
    labels: Labels,
    /// Whether a node that is new has to pass the probe before it gets work.
    probe_first: bool,
    /// Who made it, when that is known.
    created_by: Option<String>,
    /// The node that used it.
    node_id: Option<Uuid>,
    /// What that node is called.
    #[schema(example = "render-01")]
    node: Option<String>,
    /// When it was used.
    used_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    revoked_at: Option<DateTime<Utc>>,
    /// Until when it is good.
    expires_at: DateTime<Utc>,
    /// When it was made.
    created_at: DateTime<Utc>,
}

impl From<Token> for NodeTokenView {
    fn from(t: Token) -> Self {
        Self {
            id: t.id,
            object: "node_token",
            state: t.state,
            pool: t.pool,
            labels: t.labels.0,
            probe_first: t.probe_first,
            created_by: t.created_by,
            node_id: t.used_by,
            node: t.node,
            used_at: t.used_at,
            revoked_at: t.revoked_at,
            expires_at: t.expires_at,
            created_at: t.created_at,
        }
    }
}

/// Which rows to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListNodeTokens {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those before this one: `next_cursor` of the page before.
    starting_after: Option<Uuid>,
}

/// `GET /v1/platform/nodes/tokens`
#[utoipa::path(
    get, path = "/v1/platform/nodes/tokens", tag = "Platform", operation_id = "list_node_tokens", summary = "List enrolment tokens",
    description = "Newest first, a page at a time; also those that are used, revoked or expired. Never the tokens themselves.",
    params(ListNodeTokens),
    responses((status = 200, description = "A page", body = Page<NodeTokenView>))
)]
pub async fn list(
    State(app): State<App>,
    _: Operator,
    Query(query): Query<ListNodeTokens>,
) -> Result<Json<Page<NodeTokenView>>, Problem> {
    let size = page::size(query.limit)?;
    let mut tx = app.db.begin(Scope::platform(Role::Render)).await?;
    let tokens = token::list(&mut tx, query.starting_after, size + 1).await?;
    Ok(Json(Page::of(tokens, size, |t| t.id.to_string())))
}

/// `DELETE /v1/platform/nodes/tokens/{id}`
#[utoipa::path(
    delete, path = "/v1/platform/nodes/tokens/{id}", tag = "Platform", operation_id = "revoke_node_token",
    summary = "Revoke an enrolment token",
    description = "Nobody enrols with it any more. A node that has used it keeps its credential: retire the node instead.",
    params(("id" = Uuid, Path, description = "The token")),
    responses(
        (status = 204, description = "Revoked"),
        (status = 404, description = "`node_token.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn revoke(State(app): State<App>, registrar: Registrar, Path(id): Path<Uuid>) -> Result<StatusCode, Problem> {
    let mut tx = app.db.begin(Scope::platform(Role::Render)).await?;
    if !token::revoke(&mut tx, id).await? {
        return Err(Problem::not_found(Code::NodeTokenNotFound, "token that is open"));
    }
    Scope::tenant(Role::Identity, DEFAULT_TENANT).enter(&mut tx).await?;
    let change = Change { before: Some(id), after: None::<()> };
    registrar.of(DEFAULT_TENANT).record(&mut tx, "node.revoke_token", &format!("node_token:{id}"), change).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
