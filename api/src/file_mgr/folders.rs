//! `/v1/folders`

use super::tree::{Thing, given, name};
use crate::{
    app::App,
    auth::{Editor, Viewer},
    extract::{
        Json, Path, Query,
        page::{self, Page},
    },
    problem::{Problem, ProblemBody},
    revision::{IfMatch, Revised},
};
use axum::{
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use chrono::{DateTime, Utc};
use flatrender_workflows::models::{
    Role,
    file_mgr::{
        folder::{self, Filter, Folder},
        trash,
        tree::Change,
    },
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// A folder.
#[derive(Debug, Serialize, ToSchema)]
pub struct FolderView {
    /// Its id.
    id: Uuid,
    /// Always `folder`.
    #[schema(example = "folder")]
    object: &'static str,
    /// The folder it lies in; null: it is at the top.
    parent_id: Option<Uuid>,
    /// Its name.
    #[schema(example = "Spring")]
    name: String,
    /// When it was made.
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

impl From<Folder> for FolderView {
    fn from(f: Folder) -> Self {
        let Folder { id, parent_id, name, created_at, updated_at, trashed_at, purge_after, rev, .. } = f;
        Self { id, object: "folder", parent_id, name, created_at, updated_at, trashed_at, purge_after, rev }
    }
}

fn revised(folder: Folder) -> Revised<FolderView> {
    Revised::ok(folder.rev, folder.into())
}

/// A folder to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateFolder {
    /// 1 to 255 bytes; none of `/ \ : * ? " < > |`, no control and no invisible characters, no space at its ends, no dot at
    /// its end, and not that of a device of Windows.
    #[schema(example = "Spring", max_length = 255, pattern = r#"^[^/\\:*?"|\u0000-\u001f\u007f-\u009f]+$"#)]
    name: String,
    /// The folder it lies in; at the top when absent.
    parent_id: Option<Uuid>,
}

/// What to change of a folder; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateFolder {
    /// Its name.
    #[schema(example = "Summer", max_length = 255, pattern = r#"^[^/\\:*?"|\u0000-\u001f\u007f-\u009f]+$"#)]
    name: Option<String>,
    /// The folder it lies in; null: at the top.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Uuid>)]
    parent_id: Option<Option<Uuid>>,
}

/// Which folders to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListFolders {
    /// Those in this folder; those at the top when absent.
    parent_id: Option<Uuid>,
    /// True: those that somebody put into the trash, wherever they lay, without the folders below them.
    trashed: Option<bool>,
    /// Those whose names begin so, whatever the case.
    #[param(max_length = 255)]
    name_prefix: Option<String>,
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those made after this one: `next_cursor` of the page before.
    starting_after: Option<Uuid>,
}

/// `POST /v1/folders`
#[utoipa::path(
    post, path = "/v1/folders", tag = "Files", operation_id = "create_folder", summary = "Make a folder",
    description = "Of names in a folder neither case nor what cannot be seen makes two. At most 20 levels.",
    request_body = CreateFolder,
    responses(
        (status = 201, description = "Made", body = FolderView, headers(
            ("Location" = String, description = "The folder"), ("ETag" = String, description = "Its revision"))),
        (status = 409, description = "`folder.name_taken`, `folder.in_trash`, `folder.too_deep`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn create(
    State(app): State<App>,
    Editor(tenant): Editor,
    Json(body): Json<CreateFolder>,
) -> Result<impl IntoResponse, Problem> {
    let name = name(&body.name)?;
    let mut tx = app.begin(&tenant, Role::File).await?;
    let made = folder::create(&mut tx, tenant.id, body.parent_id, &name).await;
    let folder = made.map_err(|e| Thing::Folder.refusal(e))?;
    tx.commit().await?;
    let location = [(header::LOCATION, format!("/v1/folders/{}", folder.id))];
    Ok((location, Revised { status: StatusCode::CREATED, ..revised(folder) }))
}

/// `GET /v1/folders`
#[utoipa::path(
    get, path = "/v1/folders", tag = "Files", operation_id = "list_folders", summary = "List folders",
    description = "Those directly in a folder, in the order in which they were made, a page at a time.", params(ListFolders),
    responses((status = 200, description = "A page", body = Page<FolderView>))
)]
pub async fn list(
    State(app): State<App>,
    Viewer(tenant): Viewer,
    Query(query): Query<ListFolders>,
) -> Result<Json<Page<FolderView>>, Problem> {
    let size = page::size(query.limit)?;
    let filter = Filter {
        parent_id: query.parent_id,
        trashed: query.trashed.unwrap_or_default(),
        prefix: query.name_prefix.as_deref().unwrap_or_default(),
        after: query.starting_after,
        limit: size + 1,
    };
    let mut tx = app.begin(&tenant, Role::File).await?;
    let folders = folder::list(&mut tx, tenant.id, &filter).await?;
    Ok(Json(Page::of(folders, size, |f| f.id.to_string())))
}

/// `GET /v1/folders/{id}`
#[utoipa::path(
    get, path = "/v1/folders/{id}", tag = "Files", operation_id = "get_folder", summary = "Get a folder",
    description = "Also one that is in the trash.",
    params(("id" = Uuid, Path, description = "The folder")),
    responses((status = 200, description = "The folder", body = FolderView, headers(("ETag" = String, description = "Its revision"))))
)]
pub async fn get(
    State(app): State<App>,
    Viewer(tenant): Viewer,
    Path(id): Path<Uuid>,
) -> Result<Revised<FolderView>, Problem> {
    let mut tx = app.begin(&tenant, Role::File).await?;
    let folder = folder::get(&mut tx, tenant.id, id).await?;
    folder.map(revised).ok_or_else(|| Thing::Folder.missing())
}

/// `PATCH /v1/folders/{id}`: renames it, moves it, or both.
#[utoipa::path(
    patch, path = "/v1/folders/{id}", tag = "Files", operation_id = "update_folder", summary = "Rename or move a folder",
    description = "With all that is in it. A folder cannot come to lie within itself.",
    params(("id" = Uuid, Path, description = "The folder"), ("If-Match" = Option<String>, Header, description = "`ETag` of the folder as you know it")),
    request_body = UpdateFolder,
    responses(
        (status = 200, description = "The folder, afterwards", body = FolderView, headers(("ETag" = String, description = "Its revision"))),
        (status = 404, description = "`folder.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`folder.name_taken`, `folder.within_itself`, `folder.too_deep`, `folder.in_trash`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "`revision.stale`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn update(
    State(app): State<App>,
    Editor(tenant): Editor,
    Path(id): Path<Uuid>,
    IfMatch(rev): IfMatch,
    Json(body): Json<UpdateFolder>,
) -> Result<Revised<FolderView>, Problem> {
    let change = Change { name: body.name.as_deref().map(name).transpose()?, folder: body.parent_id, is_public: None };
    let mut tx = app.begin(&tenant, Role::File).await?;
    let changed = folder::change(&mut tx, tenant.id, id, rev, &change).await;
    let folder = changed.map_err(|e| Thing::Folder.refusal(e))?;
    tx.commit().await?;
    Ok(revised(folder))
}

/// `POST /v1/folders/{id}/trash`: with all below it.
#[utoipa::path(
    post, path = "/v1/folders/{id}/trash", tag = "Files", operation_id = "trash_folder", summary = "Put a folder into the trash",
    description = "With all below it, for 30 days. What is in the trash already stays as it is.",
    params(("id" = Uuid, Path, description = "The folder"), ("If-Match" = Option<String>, Header, description = "`ETag` of the folder as you know it")),
    responses(
        (status = 200, description = "The folder, afterwards", body = FolderView, headers(("ETag" = String, description = "Its revision"))),
        (status = 404, description = "`folder.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "`revision.stale`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn trash(
    State(app): State<App>,
    Editor(tenant): Editor,
    Path(id): Path<Uuid>,
    IfMatch(rev): IfMatch,
) -> Result<Revised<FolderView>, Problem> {
    let mut tx = app.begin(&tenant, Role::File).await?;
    let folder = trash::trash_folder(&mut tx, tenant.id, id, rev).await.map_err(|e| Thing::Folder.refusal(e))?;
    tx.commit().await?;
    Ok(revised(folder))
}

/// `POST /v1/folders/{id}/restore`: with exactly what went with it.
#[utoipa::path(
    post, path = "/v1/folders/{id}/restore", tag = "Files", operation_id = "restore_folder", summary = "Take a folder out of the trash",
    description = "With exactly what went there with it. What is not in the trash stays as it is.",
    params(("id" = Uuid, Path, description = "The folder"), ("If-Match" = Option<String>, Header, description = "`ETag` of the folder as you know it")),
    responses(
        (status = 200, description = "The folder, afterwards", body = FolderView, headers(("ETag" = String, description = "Its revision"))),
        (status = 404, description = "`folder.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`folder.name_taken`, `folder.in_trash`, `trash.with_folder`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "`revision.stale`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn restore(
    State(app): State<App>,
    Editor(tenant): Editor,
    Path(id): Path<Uuid>,
    IfMatch(rev): IfMatch,
) -> Result<Revised<FolderView>, Problem> {
    let mut tx = app.begin(&tenant, Role::File).await?;
    let folder = trash::restore_folder(&mut tx, tenant.id, id, rev).await.map_err(|e| Thing::Folder.refusal(e))?;
    tx.commit().await?;
    Ok(revised(folder))
}
