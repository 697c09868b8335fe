//! `/v1/nodes/tasks/{task_id}/frames/{sha256}`: rendered frames, to the render's shelf.

use super::{
    leases::{self, LeaseToken},
    output,
};
use crate::{
    app::App,
    auth::NodeCaller,
    extract::{Json, Path, idle_limited},
    problem::{Code, Problem, ProblemBody},
};
use axum::{
    body::Body,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use flatrender_activities::media::frame;
use flatrender_workflows::{
    contracts::{
        node::{KeptFrames, StoredFrames},
        storage::{BlobHash, Shelf, StorageError},
    },
    models::{
        Role, Scope,
        render::{
            live_task,
            stored_frame::{self, Stored},
        },
    },
};
use futures::{StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Blobs that are looked for at a time.
const LOOKUPS: usize = 16;

/// `HEAD …/frames/{sha256}`: whether a frame is stored already.
#[utoipa::path(
    head, path = "/v1/nodes/tasks/{task_id}/frames/{sha256}", tag = "Nodes", operation_id = "has_frame", summary = "Ask for a frame",
    description = "Whether it is stored already; `Content-Length` is its length.",
    security(("node_credential" = [])),
    params(
        ("task_id" = i64, Path, description = "The task"), ("sha256" = String, Path, pattern = "^[0-9a-f]{64}$", description = "Hash of the frame"),
        ("lease-token" = uuid::Uuid, Header, description = "The fence")
    ),
    responses((status = 200, description = "It is there"), (status = 404, description = "It is not"))
)]
pub async fn head(
    State(app): State<App>,
    caller: NodeCaller,
    Path((task_id, sha256)): Path<(i64, BlobHash)>,
    LeaseToken(token): LeaseToken,
) -> Result<Response, Problem> {
    let shelf = shelf(&app, &caller, task_id, token).await?;
    let length = sound_length(&app, &shelf, &sha256).await?;
    let length = length.ok_or_else(|| Problem::not_found(Code::BlobNotFound, "frame"))?;
    Ok([(header::CONTENT_LENGTH, length.to_string())].into_response())
}

/// Length of a stored frame; none when it is not there or no longer what its name says: putting it again mends that.
async fn sound_length(app: &App, shelf: &Shelf, sha256: &BlobHash) -> Result<Option<u64>, Problem> {
    let mut body = match app.storage.open(shelf, sha256, None).await {
        Ok(body) => body,
        Err(StorageError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut hasher = Sha256::new();
    while let Some(chunk) = body.stream.next().await {
        let Ok(chunk) = chunk else { return Ok(None) };
        hasher.update(&chunk);
    }
    let sound = BlobHash::from_digest(hasher.finalize().into()) == *sha256;
    Ok(sound.then_some(body.size_bytes))
}

/// `PUT …/frames/{sha256}`: stores a frame. Repeating is harmless.
#[utoipa::path(
    put, path = "/v1/nodes/tasks/{task_id}/frames/{sha256}", tag = "Nodes", operation_id = "put_frame", summary = "Store a frame",
    description = "The body is the PNG, at most 300 MiB; its hash must be that of the address.",
    security(("node_credential" = [])),
    params(
        ("task_id" = i64, Path, description = "The task"), ("sha256" = String, Path, pattern = "^[0-9a-f]{64}$", description = "Hash of the frame"),
        ("lease-token" = uuid::Uuid, Header, description = "The fence")
    ),
    request_body(content = crate::openapi::Binary, content_type = "image/png", description = "The frame"),
    responses(
        (status = 204, description = "Stored"),
        (status = 409, description = "`lease.lost`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "`body.too_large`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`blob.mismatch`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn put(
    State(app): State<App>,
    caller: NodeCaller,
    Path((task_id, sha256)): Path<(i64, BlobHash)>,
    LeaseToken(token): LeaseToken,
    body: Body,
) -> Result<StatusCode, Problem> {
    let shelf = shelf(&app, &caller, task_id, token).await?;
    app.storage.put(&shelf, Some(&sha256), idle_limited(body).boxed(), frame::LIMIT_BYTES).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET …/frames`: frames of the task that are stored already, by whatever attempt. They need not be rendered again.
#[utoipa::path(
    get, path = "/v1/nodes/tasks/{task_id}/frames", tag = "Nodes", operation_id = "kept_frames", summary = "Ask for kept frames",
    description = "Frames of the task that earlier attempts have stored: they need be neither rendered nor reported.",
    security(("node_credential" = [])),
    params(
        ("task_id" = i64, Path, description = "The task"), ("lease-token" = uuid::Uuid, Header, description = "The fence")
    ),
    responses(
        (status = 200, description = "Their numbers", body = Object, example = json!({"frames": [0, 1, 2]})),
        (status = 409, description = "`lease.lost`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn kept(
    State(app): State<App>,
    caller: NodeCaller,
    Path(task_id): Path<i64>,
    LeaseToken(token): LeaseToken,
) -> Result<Json<KeptFrames>, Problem> {
    let lease = leases::held(&app, &caller, task_id, token).await?;
    let input = leases::input(&lease)?;
    let mut tx = app.db.begin(Scope::tenant(Role::Workflow, lease.tenant_id)).await?;
    let (tenant_id, run_id) = (lease.tenant_id, lease.run_id);
    let noted = stored_frame::of_range(&mut tx, tenant_id, run_id, input.render_id, input.frames, Some(token)).await?;
    drop(tx);
    let shelf = leases::shelf(&lease, &input);
    let there = futures::stream::iter(noted).map(async |Stored { frame, .. }| -> Result<Option<u32>, Problem> {
        let stored = app.storage.stat(&shelf, &frame.blob.sha256).await?;
        Ok((stored == Some(frame.blob.size_bytes)).then_some(frame.frame))
    });
    let there: Vec<Option<u32>> = there.buffered(LOOKUPS).try_collect().await?;
    Ok(Json(KeptFrames { frames: there.into_iter().flatten().collect() }))
}

/// `POST …/frames`: notes frames that are stored: whatever becomes of the attempt, they are kept. Repeating is harmless.
#[utoipa::path(
    post, path = "/v1/nodes/tasks/{task_id}/frames", tag = "Nodes", operation_id = "note_frames", summary = "Tell of stored frames",
    description = "Notes which frames of the task were stored, so that they are kept whatever becomes of the attempt. At most 1000.",
    security(("node_credential" = [])), params(("task_id" = i64, Path, description = "The task")),
    request_body(content = Object, content_type = "application/json", example = json!({
        "lease_token": "4f1c1a52-9a53-4a3e-9b70-6a7a9a3f0c11",
        "frames": [{"frame": 0, "blob": {"sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "size_bytes": 4}}]})),
    responses(
        (status = 204, description = "Noted"),
        (status = 409, description = "`lease.lost`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`node.bad_output`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn note(
    State(app): State<App>,
    caller: NodeCaller,
    Path(task_id): Path<i64>,
    Json(stored): Json<StoredFrames>,
) -> Result<StatusCode, Problem> {
    let lease = leases::held(&app, &caller, task_id, stored.lease_token).await?;
    let input = output::check_stored_frames(&app, &lease, stored.frames.clone()).await?;
    // Looking for the frames may have taken longer than the lease: what is noted under it is noted while it is held.
    let mut tx = app.db.begin(Scope::tenant(Role::Workflow, lease.tenant_id)).await?;
    if !live_task::hold_lease(&mut tx, task_id, stored.lease_token).await? {
        return Err(Problem::lease_lost());
    }
    Scope::tenant(Role::Render, lease.tenant_id).enter(&mut tx).await?;
    stored_frame::note(&mut tx, lease.tenant_id, input.render_id, stored.lease_token, &stored.frames).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The shelf of the render that the node works on, while it holds the lease.
async fn shelf(app: &App, caller: &NodeCaller, task_id: i64, token: Uuid) -> Result<Shelf, Problem> {
    let lease = leases::held(app, caller, task_id, token).await?;
    Ok(leases::shelf(&lease, &leases::input(&lease)?))
}
