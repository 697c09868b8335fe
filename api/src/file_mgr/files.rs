//! `/v1/files`

use super::{
    public_file,
    tree::{Thing, given, name},
    upload,
};
use crate::{
    app::App,
    auth::{Editor, Tenant, Viewer},
    extract::{
        Json, Path, Query,
        page::{self, Page},
    },
    identity::quotas,
    problem::{Problem, ProblemBody},
    revision::{IfMatch, Revised},
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
    file_mgr::{
        file::{self, Entry, Filter},
        folder, trash,
        tree::{Change, TreeError},
    },
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// A file: uploaded, or made by the platform.
#[derive(Debug, Serialize, ToSchema)]
pub struct FileView {
    /// What orders name it by.
    id: Uuid,
    /// Always `file`.
    #[schema(example = "file")]
    object: &'static str,
    /// The folder it lies in; null: in no folder, where names may repeat.
    folder_id: Option<Uuid>,
    /// `image`, `audio`, `video` or `archive`, found in its content.
    #[schema(example = "image")]
    kind: String,
    /// `asset` for what was uploaded; `export`, `contact_sheet` … for what the platform made.
    #[schema(example = "asset")]
    purpose: String,
    /// `ready` or `trashed`.
    #[schema(example = "ready")]
    state: String,
    /// Who may see its content.
    visibility: FileVisibility,
    /// Where everybody sees it, while it is public and ready. The address never shows anything else.
    #[schema(
        example = "https://films.example/public/00000000-0000-0000-0000-000000000001/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )]
    public_url: Option<String>,
    /// As given.
    #[schema(example = "logo.png")]
    name: String,
    /// Of its content, as it is kept.
    #[schema(example = "image/png")]
    content_type: String,
    /// Length.
    #[schema(example = 48_213)]
    size_bytes: u64,
    /// SHA-256 of the content as it is kept, hexadecimal. Pictures are kept in an encoding of our own.
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
    /// When it was changed.
    updated_at: DateTime<Utc>,
    /// When it was put into the trash, by itself or with a folder above it.
    trashed_at: Option<DateTime<Utc>>,
    /// When it goes for good.
    purge_after: Option<DateTime<Utc>>,
    /// Counts its changes, as `ETag` does.
    #[schema(example = 0)]
    rev: i32,
}

/// Who may see what is in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileVisibility {
    /// Whoever belongs to the tenant, or was given a link.
    Private,
    /// Everybody, at `public_url`.
    Public,
}

impl FileView {
    fn of(app: &App, tenant: &Tenant, entry: Entry) -> Self {
        let file = entry.file;
        let is_shown = entry.is_public && entry.state == "ready";
        Self {
            id: file.id,
            object: "file",
            folder_id: entry.folder_id,
            kind: file.kind,
            purpose: entry.purpose,
            state: entry.state,
            visibility: if entry.is_public { FileVisibility::Public } else { FileVisibility::Private },
            public_url: is_shown.then(|| public_file::address(app, tenant.id, &file.blob.sha256)),
            name: file.name,
            content_type: file.mime,
            size_bytes: file.blob.size_bytes,
            sha256: file.blob.sha256.to_string(),
            width: file.width,
            height: file.height,
            duration_ms: file.duration_ms,
            created_at: file.created_at,
            updated_at: entry.updated_at,
            trashed_at: entry.trashed_at,
            purge_after: entry.purge_after,
            rev: entry.rev,
        }
    }
}

fn revised(app: &App, tenant: &Tenant, entry: Entry) -> Revised<FileView> {
    Revised::ok(entry.rev, FileView::of(app, tenant, entry))
}

/// How an upload is called.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UploadQuery {
    /// 1 to 255 bytes; none of `/ \ : * ? " < > |`, no control and no invisible characters.
    #[param(example = "logo.png")]
    name: Option<String>,
    /// The folder it comes into; in none when absent.
    folder_id: Option<Uuid>,
}

/// `POST /v1/files`: takes in a file. Answers 201 with it.
#[utoipa::path(
    post, path = "/v1/files", tag = "Files", operation_id = "upload_file", summary = "Upload a file",
    description = "The body is the file itself, at most 200 MB. What it is, is found in its content: PNG, JPEG, WebP, WAV, \
                   MP3, M4A, AAC, Ogg, FLAC, MP4, MOV, WebM or zip. Its name and announced type are not believed. Of a picture the \
                   pixels are kept and nothing else, as it was held and in sRGB; a zip is refused that is no plain one. Without a \
                   `Content-Length` there has to be room for 200 MB.",
    params(UploadQuery),
    request_body(content = crate::openapi::Binary, content_type = "application/octet-stream", description = "The file"),
    responses(
        (status = 201, description = "Taken in", body = FileView, headers(
            ("Location" = String, description = "The file"), ("ETag" = String, description = "Its revision"))),
        (status = 409, description = "`quota.storage`, `file.name_taken`, `folder.in_trash`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "`file.too_large`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "`file.unsupported_type`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`file.empty`, `file.corrupt`, `file.name_invalid`, `request.invalid`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "`server.unavailable`: too many uploads come in at this moment", body = ProblemBody, content_type = "application/problem+json")
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
    if let Some(folder) = query.folder_id {
        check_place(&app, &tenant, folder).await?;
    }
    let taken = upload::take(&app, &tenant, &headers, body).await?;
    let mut tx = app.begin(&tenant, Role::Identity).await?;
    let row = taken.row(&tenant, &name);
    let added = async {
        let id = quotas::within_room(&mut tx, tenant.id, async |db| {
            taken.fill_room(&mut *db).await?;
            file::insert(db, tenant.id, &row).await
        });
        let id = id.await?;
        if let Some(folder) = query.folder_id {
            let into = Change { folder: Some(Some(folder)), ..Change::default() };
            file::change(&mut tx, tenant.id, id, None, &into).await.map_err(|e| Thing::File.refusal(e))?;
        }
        tx.commit().await?;
        Ok(id)
    };
    let added = added.await;
    let id = match added {
        Ok(id) => id,
        Err(refused) => {
            upload::let_go(&app, &tenant, taken).await;
            return Err(refused);
        }
    };
    taken.kept();
    let entry = find(&app, &tenant, id).await?;
    let location = [(header::LOCATION, format!("/v1/files/{id}"))];
    Ok((location, Revised { status: StatusCode::CREATED, ..revised(&app, &tenant, entry) }))
}

/// What to change of a file; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateFile {
    /// Its name, as that of a folder.
    #[schema(example = "logo-2026.png", max_length = 255, pattern = r#"^[^/\\:*?"|\u0000-\u001f\u007f-\u009f]+$"#)]
    name: Option<String>,
    /// The folder it lies in; null: in none.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Uuid>)]
    folder_id: Option<Option<Uuid>>,
    /// Who may see its content: everybody, of a picture that was uploaded.
    visibility: Option<FileVisibility>,
}

/// Which files to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListFiles {
    /// Those in this folder; wherever they are when absent.
    folder_id: Option<Uuid>,
    /// True: those in no folder.
    top: Option<bool>,
    /// `image`, `audio`, `video`, `archive` …
    #[param(max_length = 20)]
    kind: Option<String>,
    /// `ready`, when absent, or `trashed`: those that somebody put into the trash, without those in folders there.
    #[param(inline)]
    state: Option<FileState>,
    /// Those whose names begin so, whatever the case.
    #[param(max_length = 255)]
    name_prefix: Option<String>,
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those older than this one: `next_cursor` of the page before.
    starting_after: Option<Uuid>,
}

/// How a file stands.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// It can be used.
    #[default]
    Ready,
    /// It is in the trash.
    Trashed,
}

/// `GET /v1/files`
#[utoipa::path(
    get, path = "/v1/files", tag = "Files", operation_id = "list_files", summary = "List files",
    description = "Newest first, a page at a time.", params(ListFiles),
    responses((status = 200, description = "A page", body = Page<FileView>))
)]
pub async fn list(
    State(app): State<App>,
    Viewer(tenant): Viewer,
    Query(query): Query<ListFiles>,
) -> Result<Json<Page<FileView>>, Problem> {
    let size = page::size(query.limit)?;
    let filter = Filter {
        folder_id: query.folder_id,
        top: query.top.unwrap_or_default(),
        kind: query.kind.as_deref(),
        state: match query.state.unwrap_or_default() {
            FileState::Ready => "ready",
            FileState::Trashed => "trashed",
        },
        prefix: query.name_prefix.as_deref().unwrap_or_default(),
        after: query.starting_after,
        limit: size + 1,
    };
    let mut tx = app.begin(&tenant, Role::File).await?;
    let files = file::list(&mut tx, tenant.id, &filter).await?;
    let files: Vec<_> = files.into_iter().map(|entry| FileView::of(&app, &tenant, entry)).collect();
    Ok(Json(Page::of(files, size, |file| file.id.to_string())))
}

/// `GET /v1/files/{id}`: what is known of a file.
#[utoipa::path(
    get, path = "/v1/files/{id}", tag = "Files", operation_id = "get_file", summary = "Get a file",
    description = "What is known of it, not its content; also of one that is in the trash.",
    params(("id" = Uuid, Path, description = "The file")),
    responses((status = 200, description = "The file", body = FileView, headers(("ETag" = String, description = "Its revision"))))
)]
pub async fn get(
    State(app): State<App>,
    Viewer(tenant): Viewer,
    Path(id): Path<Uuid>,
) -> Result<Revised<FileView>, Problem> {
    let entry = find(&app, &tenant, id).await?;
    Ok(revised(&app, &tenant, entry))
}

/// `PATCH /v1/files/{id}`: renames it, moves it, shows it to everybody or to nobody else.
#[utoipa::path(
    patch, path = "/v1/files/{id}", tag = "Files", operation_id = "update_file", summary = "Rename, move or publish a file",
    description = "Of names in a folder neither case nor what cannot be seen makes two. A picture that was uploaded (PNG, JPEG, WebP) may be \
                   `public`: then everybody sees it at `public_url`, which stays the same for ever. Private again, or in the trash, it is \
                   found there no more; a cache may keep what it has for a year.",
    params(("id" = Uuid, Path, description = "The file"), ("If-Match" = Option<String>, Header, description = "`ETag` of the file as you know it")),
    request_body = UpdateFile,
    responses(
        (status = 200, description = "The file, afterwards", body = FileView, headers(("ETag" = String, description = "Its revision"))),
        (status = 404, description = "`file.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`file.name_taken`, `file.in_trash`, `folder.in_trash`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "`revision.stale`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn update(
    State(app): State<App>,
    Editor(tenant): Editor,
    Path(id): Path<Uuid>,
    IfMatch(rev): IfMatch,
    Json(body): Json<UpdateFile>,
) -> Result<Revised<FileView>, Problem> {
    let change = Change {
        name: body.name.as_deref().map(name).transpose()?,
        folder: body.folder_id,
        is_public: body.visibility.map(|visibility| visibility == FileVisibility::Public),
    };
    let mut tx = app.begin(&tenant, Role::File).await?;
    let entry = file::change(&mut tx, tenant.id, id, rev, &change).await.map_err(|e| Thing::File.refusal(e))?;
    tx.commit().await?;
    Ok(revised(&app, &tenant, entry))
}

/// `POST /v1/files/{id}/trash`
#[utoipa::path(
    post, path = "/v1/files/{id}/trash", tag = "Files", operation_id = "trash_file", summary = "Put a file into the trash",
    description = "For 30 days; new orders cannot use it. What is in the trash already stays as it is.",
    params(("id" = Uuid, Path, description = "The file"), ("If-Match" = Option<String>, Header, description = "`ETag` of the file as you know it")),
    responses(
        (status = 200, description = "The file, afterwards", body = FileView, headers(("ETag" = String, description = "Its revision"))),
        (status = 404, description = "`file.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "`revision.stale`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn trash(
    State(app): State<App>,
    Editor(tenant): Editor,
    Path(id): Path<Uuid>,
    IfMatch(rev): IfMatch,
) -> Result<Revised<FileView>, Problem> {
    let mut tx = app.begin(&tenant, Role::File).await?;
    let entry = trash::trash_file(&mut tx, tenant.id, id, rev).await.map_err(|e| Thing::File.refusal(e))?;
    tx.commit().await?;
    Ok(revised(&app, &tenant, entry))
}

/// `POST /v1/files/{id}/restore`
#[utoipa::path(
    post, path = "/v1/files/{id}/restore", tag = "Files", operation_id = "restore_file", summary = "Take a file out of the trash",
    description = "One that went there with a folder comes back with it. What is not in the trash stays as it is.",
    params(("id" = Uuid, Path, description = "The file"), ("If-Match" = Option<String>, Header, description = "`ETag` of the file as you know it")),
    responses(
        (status = 200, description = "The file, afterwards", body = FileView, headers(("ETag" = String, description = "Its revision"))),
        (status = 404, description = "`file.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`file.name_taken`, `folder.in_trash`, `trash.with_folder`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "`revision.stale`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn restore(
    State(app): State<App>,
    Editor(tenant): Editor,
    Path(id): Path<Uuid>,
    IfMatch(rev): IfMatch,
) -> Result<Revised<FileView>, Problem> {
    let mut tx = app.begin(&tenant, Role::File).await?;
    let entry = trash::restore_file(&mut tx, tenant.id, id, rev).await.map_err(|e| Thing::File.refusal(e))?;
    tx.commit().await?;
    Ok(revised(&app, &tenant, entry))
}

/// Whether something may come into a folder, as far as can be told before it is there.
///
/// # Errors
/// `request.invalid`, `folder.in_trash`
pub(super) async fn check_place(app: &App, tenant: &Tenant, id: Uuid) -> Result<(), Problem> {
    let mut tx = app.begin(tenant, Role::File).await?;
    match folder::get(&mut tx, tenant.id, id).await? {
        None => Err(Thing::File.refusal(TreeError::FolderMissing)),
        Some(folder) if folder.trashed_at.is_some() => Err(Thing::File.refusal(TreeError::FolderInTrash)),
        Some(_) => Ok(()),
    }
}

async fn find(app: &App, tenant: &Tenant, id: Uuid) -> Result<Entry, Problem> {
    let mut tx = app.begin(tenant, Role::File).await?;
    file::get(&mut tx, tenant.id, id).await?.ok_or_else(|| Thing::File.missing())
}
