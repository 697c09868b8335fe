//! `GET /public/{tenant_id}/{sha256}`: pictures that their owner shows to everybody.

use crate::{
    app::{self, App},
    extract::Path,
    problem::{Code, Problem, ProblemBody},
    render::{download::Download, public_still::FOR_EVER},
};
use axum::{
    extract::State,
    http::{HeaderMap, Method},
    response::Response,
};
use flatrender_workflows::{
    contracts::storage::BlobHash,
    models::{
        Role, Scope,
        file_mgr::file::{self, PublicFile},
    },
};
use uuid::Uuid;

/// Where everybody sees this content of a tenant while a file that has it is public.
pub fn address(app: &App, tenant_id: Uuid, sha256: &BlobHash) -> String {
    format!("{}/public/{tenant_id}/{sha256}", app.public_url)
}

/// `GET /public/{tenant_id}/{sha256}`: the picture. Whether it is still public is looked up each time.
#[utoipa::path(
    get, path = "/public/{tenant_id}/{sha256}", tag = "Files", operation_id = "get_public_file", summary = "See a public picture",
    description = "Needs no credential. The address is made of the content and never shows anything else; it ends when the file is made \
                   private, or goes into the trash. A cache may keep the picture for a year all the same. Understands `Range` and \
                   `If-None-Match`.",
    security(()),
    params(
        ("tenant_id" = Uuid, Path, description = "Whose it is"),
        ("sha256" = String, Path, pattern = "^[0-9a-f]{64}$", description = "Hash of the picture"),
        ("Range" = Option<String>, Header, description = "`bytes=first-last`")
    ),
    responses(
        (status = 200, description = "The picture", body = crate::openapi::Binary, content_type = "image/*"),
        (status = 206, description = "A part of it", body = crate::openapi::Binary, content_type = "image/*"),
        (status = 304, description = "It is what you have"),
        (status = 404, description = "`file.not_found`: no public file of the tenant has this content", body = ProblemBody, content_type = "application/problem+json"),
        (status = 416, description = "`range.not_satisfiable`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get(
    State(app): State<App>,
    Path((tenant_id, sha256)): Path<(Uuid, BlobHash)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let file = find(&app, tenant_id, &sha256).await?;
    let picture = Download {
        shelf: app::files(tenant_id),
        blob: &file.blob,
        content_type: &file.mime,
        save_as: None,
        cache: FOR_EVER,
    };
    picture.answer(&app, &method, &headers).await
}

async fn find(app: &App, tenant_id: Uuid, sha256: &BlobHash) -> Result<PublicFile, Problem> {
    let mut tx = app.db.begin(Scope::tenant(Role::File, tenant_id)).await?;
    let file = file::find_public(&mut tx, tenant_id, sha256).await?;
    file.ok_or_else(|| Problem::not_found(Code::FileNotFound, "file"))
}
