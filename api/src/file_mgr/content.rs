//! `/v1/files/{id}/content`, what is in a file, and addresses of it to give away.

use crate::{
    app::{self, App},
    auth::Editor,
    extract::{Json, Path},
    problem::{Code, Problem, ProblemBody},
    render::{download::Download, exports::PRIVATE},
    signed::{Given, LinkView, NewLink, Reader},
};
use axum::{
    extract::State,
    http::{HeaderMap, Method, StatusCode},
    response::Response,
};
use chrono::{DateTime, Utc};
use flatrender_workflows::models::{
    Role, Scope,
    file_mgr::file::{self, Entry, File},
    render::export,
};
use uuid::Uuid;

/// `GET /v1/files/{id}/content`: the file itself, always to be saved: nothing of it is shown in our name.
#[utoipa::path(
    get, path = "/v1/files/{id}/content", tag = "Files", operation_id = "download_file", summary = "Download a file",
    description = "As it is. Understands `Range`, `If-Range` and `If-None-Match`; `ETag` is the SHA-256 of the file. An address of \
                   `POST /v1/files/{id}/links` needs no credential.",
    params(
        ("id" = Uuid, Path, description = "The file"),
        ("Range" = Option<String>, Header, description = "`bytes=first-last`")
    ),
    responses(
        (status = 200, description = "The whole file", body = crate::openapi::Binary, content_type = "*/*"),
        (status = 206, description = "A part of it", body = crate::openapi::Binary, content_type = "*/*"),
        (status = 304, description = "The client has it already"),
        (status = 403, description = "`link.forged`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 410, description = "`link.expired`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 416, description = "`range.not_satisfiable`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get(
    State(app): State<App>,
    Reader(tenant_id): Reader,
    Path(id): Path<Uuid>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let file = find(&app, tenant_id, id).await?;
    let content = Download {
        shelf: app::files(tenant_id),
        blob: &file.blob,
        content_type: &file.mime,
        save_as: Some(&file.name),
        cache: PRIVATE,
    };
    content.answer(&app, &method, &headers).await
}

/// `POST /v1/files/{id}/links`: an address of the file that anybody may read for a while.
#[utoipa::path(
    post, path = "/v1/files/{id}/links", tag = "Files", operation_id = "link_file", summary = "Give away an address of a file",
    description = "Whoever has the address reads the file until it ends; it cannot be taken back. It ends with the file at the latest, of a film with the \
                   film. With a bucket it is the store's own.",
    params(("id" = Uuid, Path, description = "The file")),
    request_body = NewLink,
    responses((status = 201, description = "The address", body = LinkView))
)]
pub async fn link(
    State(app): State<App>,
    Editor(tenant): Editor,
    Path(id): Path<Uuid>,
    Json(body): Json<NewLink>,
) -> Result<(StatusCode, Json<LinkView>), Problem> {
    let valid_for = body.valid_for()?;
    let (file, until) = ending(&app, tenant.id, id).await?;
    let path = format!("/v1/files/{id}/content");
    let File { blob, mime: content_type, name, .. } = &file;
    let given = Given { tenant_id: tenant.id, path: &path, blob, content_type, name, until };
    Ok((StatusCode::CREATED, Json(given.link(&app, valid_for).await?)))
}

async fn find(app: &App, tenant_id: Uuid, id: Uuid) -> Result<File, Problem> {
    let mut tx = app.db.begin(Scope::tenant(Role::File, tenant_id)).await?;
    file::find(&mut tx, tenant_id, &[id]).await?.pop().ok_or_else(missing)
}

/// A file and when it goes, if that is known: with its film, or by itself.
async fn ending(app: &App, tenant_id: Uuid, id: Uuid) -> Result<(File, Option<DateTime<Utc>>), Problem> {
    let mut tx = app.db.begin(Scope::tenant(Role::File, tenant_id)).await?;
    let entry = file::get(&mut tx, tenant_id, id).await?.filter(|entry| entry.state == "ready");
    let Entry { file, purge_after, .. } = entry.ok_or_else(missing)?;
    Scope::tenant(Role::Render, tenant_id).enter(&mut tx).await?;
    Ok((file, export::ends_at(&mut tx, tenant_id, id).await?.or(purge_after)))
}

fn missing() -> Problem {
    Problem::not_found(Code::FileNotFound, "file")
}
