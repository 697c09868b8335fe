//! `GET /v1/nodes/tasks/{task_id}/inputs/{sha256}`: what a task names, and nothing else.

use super::leases::{self, LeaseToken};
use crate::{
    app::{self, App},
    auth::NodeCaller,
    extract::Path,
    problem::{Code, Problem, ProblemBody},
    render::download::Download,
};
use axum::{
    extract::State,
    http::{HeaderMap, Method},
    response::Response,
};
use flatrender_workflows::contracts::{
    render::{RenderFrames, readable_blobs},
    storage::{BlobHash, BlobRef},
};
use uuid::Uuid;

/// `GET …/inputs/{sha256}`: the package or an asset of a leased task.
#[utoipa::path(
    get, path = "/v1/nodes/tasks/{task_id}/inputs/{sha256}", tag = "Nodes", operation_id = "get_input", summary = "Fetch an input",
    description = "The package or an asset that the leased task names. Understands `Range`.",
    security(("node_credential" = [])),
    params(
        ("task_id" = i64, Path, description = "The task"), ("sha256" = String, Path, pattern = "^[0-9a-f]{64}$", description = "Hash of the content"),
        ("lease-token" = uuid::Uuid, Header, description = "The fence")
    ),
    responses(
        (status = 200, description = "The content", body = crate::openapi::Binary, content_type = "application/octet-stream"),
        (status = 304, description = "It is what you have"),
        (status = 404, description = "`node.input_not_named`, `blob.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`lease.lost`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get(
    State(app): State<App>,
    caller: NodeCaller,
    Path((task_id, sha256)): Path<(i64, BlobHash)>,
    LeaseToken(token): LeaseToken,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let lease = leases::held(&app, &caller, task_id, token).await?;
    let (owner, blob) = named(&leases::input(&lease)?, lease.tenant_id, &sha256)?;
    let content = Download {
        shelf: app::files(owner),
        blob: &blob,
        content_type: "application/octet-stream",
        save_as: None,
        cache: "private, no-store",
    };
    content.answer(&app, &method, &headers).await
}

/// The blob of that hash among those the task may read, with the tenant whose shelf holds it.
fn named(task: &RenderFrames, tenant_id: Uuid, sha256: &BlobHash) -> Result<(Uuid, BlobRef), Problem> {
    let named = readable_blobs(task, tenant_id).find(|(_, blob)| blob.sha256 == *sha256);
    let (owner, blob) = named.ok_or_else(|| Problem::not_found(Code::InputNotNamed, "content in the task's input"))?;
    Ok((owner, blob.clone()))
}
