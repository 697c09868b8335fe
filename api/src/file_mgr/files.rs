//! `/v1/files`

use super::upload;
use crate::{
    app::App,
    auth::{Editor, Tenant, Viewer},
    extract::{Json, Path, Query},
    identity::quotas,
    problem::{Code, Problem, ProblemBody},
};
use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
};
use chrono::{DateTime, Utc};
use flatrender_workflows::models::{
    Role,
    file_mgr::file::{self, File},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// An uploaded file.
#[derive(Debug, Serialize, ToSchema)]
pub struct FileView {
    /// What orders name it by.
    id: Uuid,
    /// Always `file`.
    #[schema(example = "file")]
    object: &'static str,
    /// `image`, `audio` or `video`, found in its content.
    #[schema(example = "image")]
    kind: String,
    /// As given.
    #[schema(example = "logo.png")]
    name: String,
    /// Found in its content.
    #[schema(example = "image/png")]
    content_type: String,
    /// Length.
    #[schema(example = 48_213)]
    size_bytes: u64,
    /// SHA-256 of the content, hexadecimal.
    sha256: String,
    /// Pixels, of pictures.
    #[schema(example = 512)]
    width: Option<i32>,
    /// Pixels, of pictures.
    #[schema(example = 512)]
    height: Option<i32>,
    /// Length of sounds in milliseconds.
    duration_ms: Option<i64>,
    /// When it was uploaded.
    created_at: DateTime<Utc>,
}

impl From<File> for FileView {
    fn from(file: File) -> Self {
        Self {
            id: file.id,
            object: "file",
            kind: file.kind,
            name: file.name,
            content_type: file.mime,
            size_bytes: file.blob.size_bytes,
            sha256: file.blob.sha256.to_string(),
            width: file.width,
            height: file.height,
            duration_ms: file.duration_ms,
            created_at: file.created_at,
        }
    }
}

/// How an upload is called.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UploadQuery {
    /// 1 to 255 characters, no slash, no control characters.
    #[param(example = "logo.png")]
    name: Option<String>,
}

/// `POST /v1/files`: takes in a picture or sound. Answers 201 with the file.
#[utoipa::path(
    post, path = "/v1/files", tag = "Files", operation_id = "upload_file", summary = "Upload a picture or sound",
    description = "The body is the file itself, at most 200 MB. What it is, is found in its content: PNG, JPEG, WebP, WAV, \
                   MP3, M4A, AAC, Ogg or FLAC. Its name and announced type are not believed.",
    params(UploadQuery),
    request_body(content = crate::openapi::Binary, content_type = "application/octet-stream", description = "The file"),
    responses(
        (status = 201, description = "Taken in", body = FileView, headers(("Location" = String, description = "The file"))),
        (status = 409, description = "`quota.storage`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "`file.too_large`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "`file.unsupported_type`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`file.empty`, `file.corrupt`, `file.name_invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn create(
    State(app): State<App>,
    Editor(tenant): Editor,
    Query(query): Query<UploadQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse, Problem> {
    let name = upload::checked_name(query.name)?;
    let taken = upload::take(&app, &tenant, &headers, body).await?;
    let mut tx = app.begin(&tenant, Role::Identity).await?;
    let row = taken.row(&tenant, &name);
    let id = quotas::within_room(&mut tx, tenant.id, async |db| file::insert(db, tenant.id, &row).await).await?;
    tx.commit().await?;
    let view = find(&app, &tenant, id).await?;
    Ok((StatusCode::CREATED, [(header::LOCATION, format!("/v1/files/{id}"))], Json(view)))
}

/// `GET /v1/files/{id}`: what is known of a file.
#[utoipa::path(
    get, path = "/v1/files/{id}", tag = "Files", operation_id = "get_file", summary = "Get a file",
    description = "What is known of it, not its content.",
    params(("id" = Uuid, Path, description = "The file")),
    responses((status = 200, description = "The file", body = FileView))
)]
pub async fn get(
    State(app): State<App>,
    Viewer(tenant): Viewer,
    Path(id): Path<Uuid>,
) -> Result<Json<FileView>, Problem> {
    Ok(Json(find(&app, &tenant, id).await?))
}

async fn find(app: &App, tenant: &Tenant, id: Uuid) -> Result<FileView, Problem> {
    let mut tx = app.begin(tenant, Role::File).await?;
    let file = file::find(&mut tx, tenant.id, &[id]).await?.pop();
    file.map(Into::into).ok_or_else(|| Problem::not_found(Code::FileNotFound, "file"))
}
