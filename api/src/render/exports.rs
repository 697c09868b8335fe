//! `/v1/exports`

use super::{download::Download, view::ExportView};
use crate::{
    app::{self, App},
    auth::{Editor, Viewer},
    extract::{Json, Path},
    identity::quotas,
    problem::{Code, Problem},
    signed::{Given, LinkView, NewLink, Reader},
};
use axum::{
    extract::State,
    http::{HeaderMap, Method, StatusCode},
    response::Response,
};
use flatrender_workflows::{
    contracts::media::DerivativeKind,
    definitions::derive_film::DeriveFilm,
    models::{
        Role, Scope,
        render::{
            derivative,
            export::{self, Export},
            room,
        },
    },
};
use uuid::Uuid;

/// What never changes under its address may be kept, by the one who may see it.
pub(crate) const PRIVATE: &str = "private, max-age=86400, immutable";

/// `GET /v1/exports/{id}`: a finished film.
#[utoipa::path(
    get, path = "/v1/exports/{id}", tag = "Exports", operation_id = "get_export", summary = "Get an export",
    description = "What is known of a finished film.",
    params(("id" = Uuid, Path, description = "The export")),
    responses((status = 200, description = "The export", body = ExportView))
)]
pub async fn get(
    State(app): State<App>,
    Viewer(tenant): Viewer,
    Path(id): Path<Uuid>,
) -> Result<Json<ExportView>, Problem> {
    Ok(Json(find(&app, tenant.id, id).await?.into()))
}

/// `GET /v1/exports/{id}/download`: the film itself.
#[utoipa::path(
    get, path = "/v1/exports/{id}/download", tag = "Exports", operation_id = "download_export", summary = "Download a film",
    description = "MP4 (H.264, AAC). Understands `Range`, `If-Range` and `If-None-Match`; `ETag` is the SHA-256 of the file. \
                   An address of `POST /v1/exports/{id}/links` needs no credential.",
    params(
        ("id" = Uuid, Path, description = "The export"),
        ("Range" = Option<String>, Header, description = "`bytes=first-last`")
    ),
    responses(
        (status = 200, description = "The whole film", body = crate::openapi::Binary, content_type = "video/mp4"),
        (status = 206, description = "A part of it", body = crate::openapi::Binary, content_type = "video/mp4"),
        (status = 304, description = "The client has it already"),
        (status = 403, description = "`link.forged`", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
        (status = 410, description = "`link.expired`", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
        (status = 416, description = "`range.not_satisfiable`", body = crate::problem::ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn download(
    State(app): State<App>,
    Reader(tenant_id): Reader,
    Path(id): Path<Uuid>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let export = find(&app, tenant_id, id).await?;
    let film = Download {
        shelf: app::files(tenant_id),
        blob: &export.video,
        content_type: "video/mp4",
        save_as: Some(&export.name),
        cache: PRIVATE,
    };
    film.answer(&app, &method, &headers).await
}

/// `POST /v1/exports/{id}/links`: an address of the film that anybody may read for a while.
#[utoipa::path(
    post, path = "/v1/exports/{id}/links", tag = "Exports", operation_id = "link_export", summary = "Give away an address of a film",
    description = "Whoever has the address reads the film until it ends; it cannot be taken back. It ends with the film at the latest. With a bucket \
                   it is the store's own.",
    params(("id" = Uuid, Path, description = "The export")),
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
    let export = find(&app, tenant.id, id).await?;
    let path = format!("/v1/exports/{id}/download");
    let (tenant_id, blob) = (tenant.id, &export.video);
    let until = export.expires_at;
    let given = Given { tenant_id, path: &path, blob, content_type: "video/mp4", name: &export.name, until };
    Ok((StatusCode::CREATED, Json(given.link(&app, valid_for).await?)))
}

/// `GET /v1/exports/{id}/contact-sheet`: a picture of evenly spaced frames.
#[utoipa::path(
    get, path = "/v1/exports/{id}/contact-sheet", tag = "Exports", operation_id = "get_contact_sheet",
    summary = "See a film at a glance", description = "A PNG of evenly spaced frames.",
    params(("id" = Uuid, Path, description = "The export")),
    responses(
        (status = 200, description = "The picture", body = crate::openapi::Binary, content_type = "image/png"),
        (status = 304, description = "It is what you have"),
        (status = 404, description = "`export.not_found`; also when it was removed", body = crate::problem::ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn contact_sheet(
    State(app): State<App>,
    Viewer(tenant): Viewer,
    Path(id): Path<Uuid>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let sheet = find(&app, tenant.id, id).await?.sheet;
    let blob = sheet.ok_or_else(|| Problem::not_found(Code::ExportNotFound, "contact sheet"))?;
    let sheet = Download {
        shelf: app::files(tenant.id),
        blob: &blob,
        content_type: "image/png",
        save_as: None,
        cache: PRIVATE,
    };
    sheet.answer(&app, &method, &headers).await
}

/// `GET /v1/exports/{id}/derivatives/{kind}`: what else was made of a film.
#[utoipa::path(
    get, path = "/v1/exports/{id}/derivatives/{kind}", tag = "Exports", operation_id = "download_derivative",
    summary = "Download what else was made of a film", description = "A poster, GIF, small film or one for editing, once it is ready.",
    params(("id" = Uuid, Path, description = "The export"), ("kind" = DerivativeKind, Path, description = "What")),
    responses(
        (status = 200, description = "It", body = crate::openapi::Binary, content_type = "*/*"),
        (status = 304, description = "It is what you have"),
        (status = 404, description = "`export.not_found`; also when it is not ready", body = crate::problem::ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn derivative(
    State(app): State<App>,
    Viewer(tenant): Viewer,
    Path((id, kind)): Path<(Uuid, DerivativeKind)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let export = find(&app, tenant.id, id).await?;
    let mut tx = app.begin(&tenant, Role::Render).await?;
    let blob = derivative::find(&mut tx, tenant.id, id, kind).await?;
    drop(tx);
    let blob = blob.ok_or_else(|| Problem::not_found(Code::ExportNotFound, "derivative that is ready"))?;
    let (content_type, _, ending) = kind.file();
    let name = format!("{}.{ending}", export.name.trim_end_matches(".mp4"));
    let shelf = app::files(tenant.id);
    let content = Download { shelf, blob: &blob, content_type, save_as: Some(&name), cache: PRIVATE };
    content.answer(&app, &method, &headers).await
}

/// `POST /v1/exports/{id}/derivatives/{kind}`: has something else made of a finished film, or made again when it failed.
#[utoipa::path(
    post, path = "/v1/exports/{id}/derivatives/{kind}", tag = "Exports", operation_id = "make_derivative",
    summary = "Make something else of a film", description = "Needs no renderer. Asking for one that is ready or queued changes nothing.",
    params(("id" = Uuid, Path, description = "The export"), ("kind" = DerivativeKind, Path, description = "What")),
    responses(
        (status = 202, description = "The export, with the derivative among its own", body = ExportView),
        (status = 409, description = "`quota.storage`", body = crate::problem::ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn derive(
    State(app): State<App>,
    Editor(tenant): Editor,
    Path((id, kind)): Path<(Uuid, DerivativeKind)>,
) -> Result<(StatusCode, Json<ExportView>), Problem> {
    find(&app, tenant.id, id).await?;
    let mut tx = app.begin(&tenant, Role::Render).await?;
    if let Some(tries) = derivative::ask(&mut tx, tenant.id, id, kind).await? {
        if !room::hold_derivative(&mut tx, tenant.id, id, kind, tries).await? {
            return Err(quotas::no_room());
        }
        let film = DeriveFilm { export_id: id, kind };
        Scope::tenant(Role::Workflow, tenant.id).enter(&mut tx).await?;
        app.workflows.start(&mut tx, tenant.id, Some(&film.business_key(tries)), film).await?;
    }
    tx.commit().await?;
    app.workflows.announce();
    Ok((StatusCode::ACCEPTED, Json(find(&app, tenant.id, id).await?.into())))
}

async fn find(app: &App, tenant_id: Uuid, id: Uuid) -> Result<Export, Problem> {
    let mut tx = app.db.begin(Scope::tenant(Role::Render, tenant_id)).await?;
    let export = export::find(&mut tx, tenant_id, id).await?;
    export.ok_or_else(|| Problem::not_found(Code::ExportNotFound, "export"))
}
