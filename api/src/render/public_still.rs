//! `GET /snap/{sha256}`: stills of scenes, for everybody and for ever.

use super::download::Download;
use crate::{
    app::App,
    extract::Path,
    problem::{Code, Problem, ProblemBody},
};
use axum::{
    extract::State,
    http::{HeaderMap, Method},
    response::Response,
};
use flatrender_workflows::contracts::storage::{BlobHash, BlobRef, Shelf};

/// The address is made of the content: what it shows never changes.
pub const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// `GET /snap/{sha256}`: a still. The address has no signature and never expires.
#[utoipa::path(
    get, path = "/snap/{sha256}", tag = "Templates", operation_id = "get_still", summary = "See a still of a scene",
    description = "A WebP. The address is made of its content, needs no credential and never expires. Understands `Range` and `If-None-Match`.",
    security(()),
    params(("sha256" = String, Path, pattern = "^[0-9a-f]{64}$", description = "Hash of the picture")),
    responses(
        (status = 200, description = "The picture", body = crate::openapi::Binary, content_type = "image/webp"),
        (status = 304, description = "It is what you have"),
        (status = 404, description = "`blob.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get(
    State(app): State<App>,
    Path(sha256): Path<BlobHash>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let size_bytes = app.storage.stat(&Shelf::Public, &sha256).await?;
    let size_bytes = size_bytes.ok_or_else(|| Problem::not_found(Code::BlobNotFound, "picture"))?;
    let picture = Download {
        shelf: Shelf::Public,
        blob: &BlobRef { sha256, size_bytes },
        content_type: "image/webp",
        save_as: None,
        cache: FOR_EVER,
    };
    picture.answer(&app, &method, &headers).await
}
