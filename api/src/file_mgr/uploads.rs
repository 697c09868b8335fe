//! `/v1/uploads`: files that come in pieces and are resumed after any cut, by tus 1.0 (<https://tus.io/protocols/resumable-upload>).
//!
//! What has come is kept in pieces until all of it is there; then a workflow puts it together, looks at it and makes it a file. An
//! offset that a client is told is on the disk, and recorded.

pub mod direct;
mod headers;
mod intake;
mod view;

pub use intake::{Intakes, Turn};
pub use view::UploadView;

use super::{files::check_place, upload::checked_name};
use crate::{
    app::App,
    auth::{Editor, Tenant, Viewer},
    extract::{Json, Path, drain},
    identity::quotas,
    problem::{Code, Problem, ProblemBody},
};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use flatrender_workflows::{
    contracts::storage::Shelf,
    models::{
        Role,
        file_mgr::upload::{self, Begun, NewUpload, Protocol, Upload},
    },
};
use headers::{Checksum, Metadata, OFFSET_STREAM, Tus};

use uuid::Uuid;

/// The longest upload unless the setting `FLATRENDER_UPLOAD_BYTES` says otherwise: 5 GiB.
pub const LIMIT_BYTES: u64 = 5 * 1024 * 1024 * 1024;
/// The longest that can be set: the list of its pieces still fits into the record of a run.
const MOST_BYTES: u64 = 8 * 1024 * 1024 * 1024;

/// The longest upload: the setting `FLATRENDER_UPLOAD_BYTES`, at most 8 GiB.
pub fn limit_from_env() -> u64 {
    let set = std::env::var("FLATRENDER_UPLOAD_BYTES").ok().and_then(|text| text.parse().ok());
    set.unwrap_or(LIMIT_BYTES).clamp(1, MOST_BYTES)
}

/// Every answer of tus names its version.
pub async fn speak_tus(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(headers::RESUMABLE, HeaderValue::from_static(headers::VERSION));
    response
}

/// `OPTIONS /v1/uploads`: what of tus is spoken here.
#[utoipa::path(
    options, path = "/v1/uploads", tag = "Uploads", operation_id = "upload_options", summary = "See how uploads are made",
    description = "tus 1.0 with creation, creation-with-upload, termination, checksum (SHA-256, SHA-1, of requests of at most 64 MiB) and \
                   expiration; `Tus-Max-Size` is the longest upload.",
    security(()), responses((status = 204, description = "In the headers"))
)]
pub async fn options(State(app): State<App>) -> impl IntoResponse {
    let told = [
        (headers::SUPPORTED, HeaderValue::from_static(headers::VERSION)),
        (headers::EXTENSION, HeaderValue::from_static("creation,creation-with-upload,termination,checksum,expiration")),
        (headers::MAX_SIZE, app.most_upload_bytes.into()),
        (headers::CHECKSUM_ALGORITHM, HeaderValue::from_static("sha256,sha1")),
    ];
    (StatusCode::NO_CONTENT, told)
}

/// `POST /v1/uploads`: begins an upload and sets its room aside; with a body, takes the first bytes.
#[utoipa::path(
    post, path = "/v1/uploads", tag = "Uploads", operation_id = "create_upload", summary = "Begin a resumable upload",
    description = "By tus 1.0: `Tus-Resumable`, `Upload-Length`, and `Upload-Metadata` with `filename`, and if need be `purpose`, `folder_id` and \
                   `sha256` of the whole. The address of the upload is in `Location`. Room is set aside at once; an upload that nobody goes on with for a \
                   day is given up. When everything is there, a `GET` of the upload tells what became of it.",
    params(
        ("Tus-Resumable" = String, Header, pattern = r"^1\.0\.0$", example = "1.0.0", description = "The version of tus"),
        ("Upload-Length" = u64, Header, minimum = 1, maximum = 8_589_934_592_u64, example = 1_048_576, description = "Bytes of the whole"),
        ("Upload-Metadata" = Option<String>, Header, example = "filename bG9nby5wbmc=", description = "Keys, each with a space and its value in base64, separated by commas"),
        ("Upload-Checksum" = Option<String>, Header, pattern = "^(sha256|sha1) [A-Za-z0-9+/]+={0,2}$", description = "`sha256` or `sha1`, a space, and the hash of the bytes in base64")
    ),
    request_body(content = crate::openapi::Binary, content_type = "application/offset+octet-stream", description = "The first bytes, or nothing"),
    responses(
        (status = 201, description = "Begun", headers(("Location" = String, description = "The upload"), ("Upload-Offset" = u64, description = "Bytes that are kept"))),
        (status = 400, description = "`header.invalid`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`quota.storage`, `upload.too_many`, `folder.in_trash`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "`upload.version`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "`file.too_large`, `upload.checked_too_large`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`file.empty`, `file.name_invalid`, `request.invalid`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 460, description = "`upload.checksum`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "`server.unavailable`: too many uploads come in at this moment", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn create(
    State(app): State<App>,
    Editor(tenant): Editor,
    _: Tus,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (id, first) = match begin(&app, &tenant, &headers).await {
        Ok(begun) => begun,
        Err(refused) => {
            drain(&headers, body.into_data_stream()).await;
            return Err(refused);
        }
    };
    let upload = open(&app, &tenant, id).await?;
    let offset = match first {
        Some((checksum, turn)) => intake::receive(&app, &tenant, &upload, checksum, body, turn).await?,
        None => 0,
    };
    let location = HeaderValue::from_str(&format!("/v1/uploads/{id}")).map_err(|e| Problem::internal(&e))?;
    let told = [
        (header::LOCATION, location),
        (headers::OFFSET, offset.into()),
        (headers::EXPIRES, headers::date(upload.expires_at)),
    ];
    Ok((StatusCode::CREATED, told).into_response())
}

/// What the first bytes are checked by, and the turn to take them in.
type First = (Option<Checksum>, Turn);

/// Begins an upload; with what it takes to take its first bytes in, when they come along.
async fn begin(app: &App, tenant: &Tenant, headers: &HeaderMap) -> Result<(Uuid, Option<First>), Problem> {
    let total_bytes = headers::length(headers)?;
    check_length(app, total_bytes)?;
    let metadata = Metadata::of(headers)?;
    let name = checked_name(metadata.name)?;
    if let Some(folder) = metadata.folder_id {
        check_place(app, tenant, folder).await?;
    }
    let new = NewUpload {
        owner_id: tenant.actor.user_id(),
        folder_id: metadata.folder_id,
        name: &name,
        purpose: metadata.purpose,
        total_bytes: total_bytes as i64,
        sha256: metadata.sha256.as_ref(),
        protocol: Protocol::Tus,
        storage_upload: None,
    };
    let first = match headers::is_offset_stream(headers) {
        true => Some((Checksum::of(headers)?, app.intakes.turn(tenant.id).await?)),
        false => None,
    };
    let id = Uuid::now_v7();
    insert(app, tenant, id, &new).await?;
    Ok((id, first))
}

/// Whether an upload may be so long.
fn check_length(app: &App, total_bytes: u64) -> Result<(), Problem> {
    match total_bytes {
        0 => Err(Problem::new(Code::FileEmpty, "the file is empty")),
        _ if total_bytes > app.most_upload_bytes => {
            Err(Problem::new(Code::FileTooLarge, format!("an upload has at most {} bytes", app.most_upload_bytes)))
        }
        _ => Ok(()),
    }
}

async fn insert(app: &App, tenant: &Tenant, id: Uuid, new: &NewUpload<'_>) -> Result<(), Problem> {
    let mut tx = app.begin(tenant, Role::File).await?;
    match upload::begin(&mut tx, tenant.id, id, new).await? {
        Begun::Open => Ok(tx.commit().await?),
        Begun::NoRoom => Err(quotas::no_room()),
        Begun::TooMany => {
            let detail = format!("{} uploads are under way; finish one, or end it", upload::MOST_OPEN);
            Err(Problem::new(Code::UploadsFull, detail))
        }
    }
}

/// `HEAD /v1/uploads/{id}`: how far it has come.
#[utoipa::path(
    head, path = "/v1/uploads/{id}", tag = "Uploads", operation_id = "upload_offset", summary = "See how far an upload has come",
    description = "`Upload-Offset` is what is kept; go on from there.",
    params(
        ("id" = Uuid, Path, description = "The upload"),
        ("Tus-Resumable" = String, Header, pattern = r"^1\.0\.0$", example = "1.0.0", description = "The version of tus")
    ),
    responses(
        (status = 200, description = "In the headers", headers(("Upload-Offset" = u64, description = "Bytes that are kept"), ("Upload-Length" = u64, description = "Bytes of the whole"))),
        (status = 404, description = "There is no such upload of yours"),
        (status = 410, description = "It has ended without becoming a file"),
        (status = 412, description = "Another version of tus")
    )
)]
pub async fn head(
    State(app): State<App>,
    Viewer(tenant): Viewer,
    _: Tus,
    Path(id): Path<Uuid>,
) -> Result<Response, Problem> {
    let upload = find(&app, &tenant, id).await?;
    if !["open", "completing", "completed"].contains(&upload.state.as_str()) {
        return Err(ended(&upload));
    }
    let told = [
        (headers::OFFSET, upload.offset_bytes.into()),
        (headers::LENGTH, upload.total_bytes.into()),
        (headers::EXPIRES, headers::date(upload.expires_at)),
        (headers::METADATA, headers::metadata(&upload)),
    ];
    Ok((StatusCode::OK, told).into_response())
}

/// `GET /v1/uploads/{id}`: what became of an upload.
#[utoipa::path(
    get, path = "/v1/uploads/{id}", tag = "Uploads", operation_id = "get_upload", summary = "See what became of an upload",
    description = "Its state, and the file that it became or why it was refused.", params(("id" = Uuid, Path, description = "The upload")),
    responses(
        (status = 200, description = "The upload", body = UploadView),
        (status = 404, description = "`upload.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get(
    State(app): State<App>,
    Viewer(tenant): Viewer,
    Path(id): Path<Uuid>,
) -> Result<Json<UploadView>, Problem> {
    Ok(Json(find(&app, &tenant, id).await?.into()))
}

/// `PATCH /v1/uploads/{id}`: takes the bytes that follow those that are kept.
#[utoipa::path(
    patch, path = "/v1/uploads/{id}", tag = "Uploads", operation_id = "append_upload", summary = "Send bytes of an upload",
    description = "From `Upload-Offset` on, as many as one likes. What has come when the connection is cut is kept, unless `Upload-Checksum` was \
                   announced for it: then it is at most 64 MiB, and all of it or nothing. With the last byte the upload is looked at; a `GET` \
                   tells what becomes of it.",
    params(
        ("id" = Uuid, Path, description = "The upload"),
        ("Tus-Resumable" = String, Header, pattern = r"^1\.0\.0$", example = "1.0.0", description = "The version of tus"),
        ("Upload-Offset" = u64, Header, example = 0, description = "Bytes that are kept, which these follow"),
        ("Upload-Checksum" = Option<String>, Header, pattern = "^(sha256|sha1) [A-Za-z0-9+/]+={0,2}$", description = "`sha256` or `sha1`, a space, and the hash of the bytes in base64")
    ),
    request_body(content = crate::openapi::Binary, content_type = "application/offset+octet-stream", description = "The bytes"),
    responses(
        (status = 204, description = "Kept", headers(("Upload-Offset" = u64, description = "Bytes that are kept now"))),
        (status = 400, description = "`header.invalid`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`upload.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`upload.offset`, `upload.direct`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 410, description = "`upload.ended`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "`upload.version`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "`file.too_large`, `upload.checked_too_large`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "`upload.content_type`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 460, description = "`upload.checksum`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "`server.unavailable`: too many uploads come in at this moment", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn append(
    State(app): State<App>,
    Editor(tenant): Editor,
    _: Tus,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (upload, checksum, turn) = match expected(&app, &tenant, id, &headers).await {
        Ok(expected) => expected,
        Err(refused) => {
            drain(&headers, body.into_data_stream()).await;
            return Err(refused);
        }
    };
    let offset = intake::receive(&app, &tenant, &upload, checksum, body, turn).await?;
    let expires = (headers::EXPIRES, headers::date(upload.expires_at));
    Ok((StatusCode::NO_CONTENT, [(headers::OFFSET, offset.into()), expires]).into_response())
}

/// The upload that these headers go on with, what its bytes are checked by, and the turn to take them in.
async fn expected(
    app: &App,
    tenant: &Tenant,
    id: Uuid,
    headers: &HeaderMap,
) -> Result<(Upload, Option<Checksum>, Turn), Problem> {
    if !headers::is_offset_stream(headers) {
        let detail = format!("send the bytes with content-type: {OFFSET_STREAM}");
        return Err(Problem::new(Code::UploadContentType, detail));
    }
    let offset = headers::offset(headers)?;
    let upload = open(app, tenant, id).await?;
    if upload.protocol != "tus" {
        return Err(Problem::new(
            Code::UploadDirect,
            "the parts of this upload go to the addresses that are signed for them",
        ));
    }
    if offset != upload.offset_bytes as u64 {
        return Err(elsewhere(upload.offset_bytes as u64));
    }
    if headers::announced(headers).is_some_and(|length| length > upload.total_bytes as u64 - offset) {
        return Err(too_much(&upload));
    }
    let checksum = Checksum::of(headers)?;
    Ok((upload, checksum, app.intakes.turn(tenant.id).await?))
}

/// `DELETE /v1/uploads/{id}`: gives an upload up.
#[utoipa::path(
    delete, path = "/v1/uploads/{id}", tag = "Uploads", operation_id = "end_upload", summary = "Give an upload up",
    description = "What has come is removed, and its room free again. One of which everything is there is not given up any more.",
    params(("id" = Uuid, Path, description = "The upload")),
    responses(
        (status = 204, description = "Given up"),
        (status = 404, description = "`upload.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`upload.complete`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 410, description = "`upload.ended`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn end(State(app): State<App>, Editor(tenant): Editor, Path(id): Path<Uuid>) -> Result<StatusCode, Problem> {
    let upload = open(&app, &tenant, id).await?;
    let mut tx = app.begin(&tenant, Role::File).await?;
    if !upload::abort(&mut tx, tenant.id, id).await? {
        drop(tx);
        open(&app, &tenant, id).await?;
        return Err(complete());
    }
    tx.commit().await?;
    // What cannot be removed now is removed later, with what a request still under way may write.
    if let Err(error) = app.storage.clear(&Shelf::Upload { tenant_id: tenant.id, upload_id: id }).await {
        tracing::warn!(error = &error as &dyn std::error::Error, upload = %id, "the pieces of an upload stay for a while");
    }
    direct::discard(&app, &upload).await;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/uploads/{id}`: the same as the method that `X-HTTP-Method-Override` names, for clients that cannot send it.
#[utoipa::path(
    post, path = "/v1/uploads/{id}", tag = "Uploads", operation_id = "override_upload", summary = "Send bytes or give up, where only POST passes",
    description = "Does what `PATCH` or `DELETE` does, as `X-HTTP-Method-Override` says.",
    params(
        ("id" = Uuid, Path, description = "The upload"),
        ("Tus-Resumable" = String, Header, pattern = r"^1\.0\.0$", example = "1.0.0", description = "The version of tus"),
        ("X-HTTP-Method-Override" = String, Header, pattern = "^(PATCH|DELETE)$", example = "PATCH", description = "What is meant"),
        ("Upload-Offset" = Option<u64>, Header, example = 0, description = "As of `PATCH`"),
        ("Upload-Checksum" = Option<String>, Header, pattern = "^(sha256|sha1) [A-Za-z0-9+/]+={0,2}$", description = "As of `PATCH`")
    ),
    request_body(content = crate::openapi::Binary, content_type = "application/offset+octet-stream", description = "The bytes"),
    responses(
        (status = 204, description = "Done"),
        (status = 400, description = "`header.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn overridden(
    State(app): State<App>,
    editor: Editor,
    tus: Tus,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let method = headers.get(headers::METHOD_OVERRIDE).and_then(|v| Method::from_bytes(v.as_bytes()).ok());
    match method {
        Some(Method::PATCH) => append(State(app), editor, tus, Path(id), headers, body).await,
        Some(Method::DELETE) => Ok(end(State(app), editor, Path(id)).await?.into_response()),
        _ => Err(Problem::new(Code::HeaderInvalid, "x-http-method-override names PATCH or DELETE")),
    }
}

/// An upload of whoever asks: a person's own, or one of the tenant's keys.
async fn find(app: &App, tenant: &Tenant, id: Uuid) -> Result<Upload, Problem> {
    let mut tx = app.begin(tenant, Role::File).await?;
    let found = upload::find(&mut tx, tenant.id, tenant.actor.user_id(), id).await?;
    found.ok_or_else(|| Problem::not_found(Code::UploadNotFound, "upload of yours"))
}

/// The same, while bytes of it are missing.
async fn open(app: &App, tenant: &Tenant, id: Uuid) -> Result<Upload, Problem> {
    let upload = find(app, tenant, id).await?;
    match upload.state.as_str() {
        "open" => Ok(upload),
        "completing" | "completed" => Err(complete()),
        _ => Err(ended(&upload)),
    }
}

fn complete() -> Problem {
    Problem::new(Code::UploadComplete, "everything of this upload is there")
}

fn ended(upload: &Upload) -> Problem {
    Problem::new(Code::UploadEnded, format!("the upload has ended: it is {}", upload.state))
}

/// The bytes do not follow those that are kept.
fn elsewhere(offset: u64) -> Problem {
    Problem::new(Code::UploadOffset, format!("{offset} bytes are kept; go on from there"))
        .with_header(headers::OFFSET, offset.into())
}

fn too_much(upload: &Upload) -> Problem {
    Problem::new(Code::FileTooLarge, format!("{} bytes were announced, and more came", upload.total_bytes))
}
