//! Uploads whose parts go to the storage itself, at addresses that we sign: for a bucket, and never through us.

use super::{check_length, find, insert, open};
use crate::{
    app::App,
    auth::{Editor, Tenant, Viewer},
    extract::{
        Json, Path, Query,
        page::{self, Page},
    },
    file_mgr::{files::check_place, upload::checked_name, uploads::UploadView},
    problem::{Code, Problem, ProblemBody},
};
use axum::{
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use chrono::{DateTime, TimeDelta, Utc};
use flatrender_workflows::{
    contracts::storage::{DirectPart, DirectUploads, SentPart, StorageError},
    definitions::finish_upload::FinishUpload,
    models::{
        Role, Scope,
        file_mgr::upload::{self, NewUpload, Protocol, Upload},
    },
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Shortest part, but for the last one.
const LEAST_PART: u64 = 5 * 1024 * 1024;
/// Longest part.
const MOST_PART: u64 = 5 * 1024 * 1024 * 1024;
/// Length of a part unless the client or the length of the whole wants it otherwise.
const USUAL_PART: u64 = 16 * 1024 * 1024;
/// Most parts.
const MOST_PARTS: u64 = 10_000;
/// How long an address of a part works.
const VALID_FOR: Duration = Duration::from_secs(3600);
/// How many parts are asked for at once.
const LISTED: u32 = 1000;
/// Length of an MD5.
const MD5_BYTES: usize = 16;
/// Longest tag of a part.
const ETAG_BYTES: usize = 255;

/// An upload whose parts go to the storage.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BeginDirect {
    /// How the file will be called.
    #[schema(example = "music.wav", pattern = r#"^[^/\\:*?"|\u0000-\u001f\u007f-\u009f]+$"#)]
    name: Option<String>,
    /// What it is for, of `asset voiceover music package avatar font`; `asset` when absent.
    #[schema(example = "asset", pattern = "^(asset|voiceover|music|package|avatar|font)$")]
    purpose: Option<String>,
    /// The folder it comes into; in none when absent.
    folder_id: Option<Uuid>,
    /// Its length.
    #[schema(example = 1_073_741_824_u64, minimum = 1, maximum = 8_589_934_592_u64)]
    total_bytes: u64,
    /// Length of every part but the last, 5 MiB to 5 GiB; at most 10,000 parts. 16 MiB, or what makes so few, when absent.
    #[schema(example = 16_777_216_u64, minimum = 5_242_880, maximum = 5_368_709_120_u64)]
    part_bytes: Option<u64>,
    /// SHA-256 of the whole, when it is known.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    sha256: Option<String>,
}

/// Which bytes the part has.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignPart {
    /// Base64 of the part's MD5, to be sent as `Content-MD5`: the storage refuses other bytes.
    #[schema(example = "1B2M2Y8AsgTpgAmY7PhCfg==")]
    md5: Option<String>,
}

/// Where a part goes.
#[derive(Debug, Serialize, ToSchema)]
pub struct PartAddress {
    /// Always `upload_part`.
    #[schema(example = "upload_part")]
    object: &'static str,
    /// Its number, from 1 on.
    number: u32,
    /// How many bytes it has. Exactly so many are taken, and their number is to be sent as `Content-Length`.
    size_bytes: u64,
    /// Send them here with `PUT`; the `ETag` of the answer may be named at the end.
    url: String,
    /// Until then.
    expires_at: DateTime<Utc>,
}

/// The parts that are there.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CompleteDirect {
    /// The `ETag` of every part, in their order; those that the storage has when absent.
    etags: Option<Vec<String>>,
}

/// A part that the storage has.
#[derive(Debug, Serialize, ToSchema)]
pub struct PartView {
    /// Always `upload_part`.
    #[schema(example = "upload_part")]
    object: &'static str,
    /// Its number, from 1 on.
    #[schema(example = 1)]
    number: u32,
    /// Its length.
    #[schema(example = 16_777_216_u64)]
    size_bytes: u64,
    /// The storage's tag of its content; of most storages its MD5.
    #[schema(example = "\"7778aef83f66abc1fa1e8477f296d394\"")]
    etag: String,
}

impl From<SentPart> for PartView {
    fn from(part: SentPart) -> Self {
        let SentPart { number, size_bytes, etag } = part;
        Self { object: "upload_part", number, size_bytes, etag }
    }
}

/// Which parts to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListParts {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those numbered above this one: `next_cursor` of the page before.
    starting_after: Option<u32>,
}

/// `POST /v1/uploads/direct`
#[utoipa::path(
    post, path = "/v1/uploads/direct", tag = "Uploads", operation_id = "create_direct_upload", summary = "Begin an upload to the storage itself",
    description = "Where files are kept in a bucket: its parts are sent to addresses that are signed for them. Room is set aside at once. Where \
                   files are kept in a folder, upload by tus instead.",
    request_body = BeginDirect,
    responses(
        (status = 201, description = "Begun", body = UploadView, headers(("Location" = String, description = "The upload"))),
        (status = 409, description = "`upload.not_direct`, `quota.storage`, `upload.too_many`, `folder.in_trash`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "`file.too_large`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`, `file.empty`, `file.name_invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn create(
    State(app): State<App>,
    Editor(tenant): Editor,
    Json(body): Json<BeginDirect>,
) -> Result<impl IntoResponse, Problem> {
    check_length(&app, body.total_bytes)?;
    let protocol = parts(body.total_bytes, body.part_bytes)?;
    let sha256 = body.sha256.map(|text| text.parse()).transpose();
    let sha256 = sha256
        .map_err(|_| Problem::fault("/sha256", "upload.sha256", "a SHA-256 is 64 lowercase hexadecimal digits"))?;
    let name = checked_name(body.name)?;
    if let Some(folder) = body.folder_id {
        check_place(&app, &tenant, folder).await?;
    }
    let purpose = super::headers::purpose(body.purpose.as_deref().unwrap_or("asset")).ok_or_else(|| {
        Problem::fault("/purpose", "upload.purpose", "a purpose is asset, voiceover, music, package, avatar or font")
    })?;
    let direct = direct(&app)?;
    let id = Uuid::now_v7();
    // From here on there is something in the bucket to be forgotten.
    let storage_upload = direct.begin(id).await?;
    let new = NewUpload {
        owner_id: tenant.actor.user_id(),
        folder_id: body.folder_id,
        name: &name,
        purpose,
        total_bytes: body.total_bytes as i64,
        sha256: sha256.as_ref(),
        protocol,
        storage_upload: Some(&storage_upload),
    };
    if let Err(refused) = insert(&app, &tenant, id, &new).await {
        forget(&app, id, &storage_upload).await;
        return Err(refused);
    }
    let view: UploadView = find(&app, &tenant, id).await?.into();
    Ok((StatusCode::CREATED, [(header::LOCATION, format!("/v1/uploads/{id}"))], Json(view)))
}

/// `POST /v1/uploads/{id}/parts/{number}`
#[utoipa::path(
    post, path = "/v1/uploads/{id}/parts/{number}", tag = "Uploads", operation_id = "sign_upload_part", summary = "Get the address for a part",
    description = "It works for an hour, and may be asked for again: a part that is sent twice is there once, as it was sent last. The upload has \
                   a day again from then on, and seven days in all.",
    params(("id" = Uuid, Path, description = "The upload"), ("number" = u32, Path, description = "The part, from 1 on")),
    request_body = SignPart,
    responses(
        (status = 200, description = "The address", body = PartAddress),
        (status = 404, description = "`upload.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`upload.not_direct`, `upload.complete`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 410, description = "`upload.ended`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`upload.part`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn sign(
    State(app): State<App>,
    Editor(tenant): Editor,
    Path((id, number)): Path<(Uuid, u32)>,
    Json(body): Json<SignPart>,
) -> Result<Json<PartAddress>, Problem> {
    let upload = open(&app, &tenant, id).await?;
    let (name, count) = of_storage(&upload)?;
    if number == 0 || number > count {
        return Err(Problem::new(Code::UploadPart, format!("the parts of this upload are 1 to {count}")));
    }
    let is_md5 = |md5: &String| BASE64.decode(md5).is_ok_and(|md5| md5.len() == MD5_BYTES);
    if body.md5.as_ref().is_some_and(|md5| !is_md5(md5)) {
        return Err(Problem::fault("/md5", "upload.md5", "an MD5 in base64 has 24 characters"));
    }
    let size_bytes = size_of(&upload, number);
    let part = DirectPart { upload: id, name, number, size_bytes, md5: body.md5.as_deref(), valid_for: VALID_FOR };
    let url = direct(&app)?.sign_part(&part).await?;
    let mut tx = app.begin(&tenant, Role::File).await?;
    if !upload::go_on(&mut tx, tenant.id, id).await? {
        drop(tx);
        open(&app, &tenant, id).await?;
        return Err(super::complete());
    }
    tx.commit().await?;
    let expires_at = Utc::now() + TimeDelta::from_std(VALID_FOR).unwrap_or_default();
    Ok(Json(PartAddress { object: "upload_part", number, size_bytes, url, expires_at }))
}

/// `GET /v1/uploads/{id}/parts`
#[utoipa::path(
    get, path = "/v1/uploads/{id}/parts", tag = "Uploads", operation_id = "list_upload_parts", summary = "List the parts that are there",
    description = "In their order, as the storage has them: whoever has lost track of an upload goes on with those that are missing. One whose \
                   size is not that of its address has to be sent again.",
    params(("id" = Uuid, Path, description = "The upload"), ListParts),
    responses(
        (status = 200, description = "A page", body = Page<PartView>),
        (status = 404, description = "`upload.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`upload.not_direct`, `upload.complete`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 410, description = "`upload.ended`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn parts_sent(
    State(app): State<App>,
    Viewer(tenant): Viewer,
    Path(id): Path<Uuid>,
    Query(query): Query<ListParts>,
) -> Result<Json<Page<PartView>>, Problem> {
    let size = page::size(query.limit)?;
    let upload = open(&app, &tenant, id).await?;
    let (name, _) = of_storage(&upload)?;
    let after = query.starting_after.unwrap_or_default().min(MOST_PARTS as u32);
    let parts = match direct(&app)?.parts(id, name, after, size as u32 + 1).await {
        Err(StorageError::NotUploaded(_)) => vec![],
        parts => parts?,
    };
    Ok(Json(Page::of(parts, size, |part| part.number.to_string())))
}

/// `POST /v1/uploads/{id}/complete`
#[utoipa::path(
    post, path = "/v1/uploads/{id}/complete", tag = "Uploads", operation_id = "complete_upload", summary = "Say that every part is there",
    description = "The storage puts them together; then all of it is hashed and looked at. A `GET` of the upload tells what becomes of it. Saying \
                   so again changes nothing.",
    params(("id" = Uuid, Path, description = "The upload")), request_body = CompleteDirect,
    responses(
        (status = 202, description = "The upload", body = UploadView),
        (status = 404, description = "`upload.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`upload.not_direct`, `upload.parts_missing`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 410, description = "`upload.ended`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`upload.part`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn complete(
    State(app): State<App>,
    Editor(tenant): Editor,
    Path(id): Path<Uuid>,
    Json(body): Json<CompleteDirect>,
) -> Result<(StatusCode, Json<UploadView>), Problem> {
    let upload = find(&app, &tenant, id).await?;
    let (name, count) = of_storage(&upload)?;
    if upload.state == "open" {
        let fine = |etag: &String| (1..=ETAG_BYTES).contains(&etag.len()) && etag.bytes().all(|b| b.is_ascii_graphic());
        let named = body.etags.as_ref();
        if named.is_some_and(|etags| etags.len() != count as usize || !etags.iter().all(fine)) {
            return Err(Problem::new(Code::UploadPart, format!("name the ETag of each of the {count} parts")));
        }
        let direct = direct(&app)?;
        let there = sent(direct, &upload, name, count).await?;
        let completed = direct.complete(id, name, named.unwrap_or(&there)).await;
        // Of two who say so at once the storage may refuse one: for the other it is done.
        if let Err(error) = completed
            && find(&app, &tenant, id).await?.state == "open"
        {
            return Err(match error {
                StorageError::NotUploaded(_) => missing(1),
                other => other.into(),
            });
        }
        finish(&app, &tenant, &upload).await?;
    }
    let upload = find(&app, &tenant, id).await?;
    if ["aborted", "expired"].contains(&upload.state.as_str()) {
        return Err(super::ended(&upload));
    }
    Ok((StatusCode::ACCEPTED, Json(upload.into())))
}

/// The tags of all parts, each of which has the length that was announced; none when the storage has put them together before.
///
/// # Errors
/// `upload.parts_missing`
async fn sent(direct: &dyn DirectUploads, upload: &Upload, name: &str, count: u32) -> Result<Vec<String>, Problem> {
    let mut etags = Vec::with_capacity(count as usize);
    while (etags.len() as u32) < count {
        let page = match direct.parts(upload.id, name, etags.len() as u32, LISTED).await {
            Err(StorageError::NotUploaded(_)) => return Ok(vec![]),
            page => page?,
        };
        if page.is_empty() {
            return Err(missing(etags.len() as u32 + 1));
        }
        for part in page {
            let number = etags.len() as u32 + 1;
            if part.number > count {
                break;
            }
            if part.number != number || part.size_bytes != size_of(upload, number) {
                return Err(missing(number));
            }
            etags.push(part.etag);
        }
    }
    Ok(etags)
}

/// Has an upload finished whose parts are together. Of two who say so one starts the run.
async fn finish(app: &App, tenant: &Tenant, upload: &Upload) -> Result<(), Problem> {
    let mut tx = app.begin(tenant, Role::File).await?;
    if upload::complete(&mut tx, tenant.id, upload.id).await? {
        let finish = FinishUpload { upload_id: upload.id, storage_upload: upload.storage_upload.clone() };
        Scope::tenant(Role::Workflow, tenant.id).enter(&mut tx).await?;
        app.workflows.start(&mut tx, tenant.id, Some(&finish.business_key()), finish).await?;
        tx.commit().await?;
        app.workflows.announce();
    }
    Ok(())
}

/// Removes what the storage has of an upload that was given up. What cannot be removed now is removed later.
pub(super) async fn discard(app: &App, upload: &Upload) {
    if let Some(name) = &upload.storage_upload {
        forget(app, upload.id, name).await;
    }
}

async fn forget(app: &App, id: Uuid, name: &str) {
    let Some(direct) = app.storage.direct() else { return };
    if let Err(error) = direct.discard(id, name).await {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, upload = %id, "the parts of an upload stay for a while");
    }
}

fn direct(app: &App) -> Result<&dyn DirectUploads, Problem> {
    let detail = "files are kept in a folder here, which takes no parts by itself; upload by tus to /v1/uploads";
    app.storage.direct().ok_or_else(|| Problem::new(Code::UploadNotDirect, detail))
}

/// The storage's name of an upload whose parts go there, and how many they are.
fn of_storage(upload: &Upload) -> Result<(&str, u32), Problem> {
    match (&upload.storage_upload, upload.part_count) {
        (Some(name), Some(count)) => Ok((name, count as u32)),
        _ => Err(Problem::new(Code::UploadNotDirect, "the bytes of this upload are sent by tus")),
    }
}

/// How many bytes a part has.
fn size_of(upload: &Upload, number: u32) -> u64 {
    let (total, part) = (upload.total_bytes as u64, upload.part_bytes.unwrap_or(1) as u64);
    part.min(total - part * u64::from(number - 1))
}

/// How an upload is cut into parts.
fn parts(total: u64, part: Option<u64>) -> Result<Protocol, Problem> {
    let part = part.unwrap_or_else(|| USUAL_PART.max(total.div_ceil(MOST_PARTS)));
    let count = total.div_ceil(part.max(1));
    if !(LEAST_PART..=MOST_PART).contains(&part) || count > MOST_PARTS {
        let detail = "a part has 5 MiB to 5 GiB, and there are at most 10000";
        return Err(Problem::fault("/part_bytes", "upload.part_bytes", detail));
    }
    Ok(Protocol::Multipart { part_bytes: part as i64, parts: count as i32 })
}

/// A part is not there as it was announced.
fn missing(number: u32) -> Problem {
    let detail = format!("the storage does not have part {number}, or not in its length; send it again");
    Problem::new(Code::UploadPartsMissing, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_cut_into_parts_that_storages_take() {
        let mib = 1024 * 1024;
        let cut = |total, part| parts(total, part).ok();
        let made = |part_bytes: u64, parts| Some(Protocol::Multipart { part_bytes: part_bytes as i64, parts });
        assert_eq!(cut(1, None), made(16 * mib, 1));
        assert_eq!(cut(16 * mib + 1, None), made(16 * mib, 2));
        assert_eq!(cut(10 * mib, Some(5 * mib)), made(5 * mib, 2));
        assert_eq!(cut(50_000 * mib, Some(5 * mib)), made(5 * mib, 10_000));
        for (total, part) in
            [(10 * mib, 5 * mib - 1), (10 * mib, 0), (10 * mib, 5 * 1024 * mib + 1), (50_001 * mib, 5 * mib)]
        {
            assert_eq!(cut(total, Some(part)), None, "{total} {part}");
        }
    }
}
