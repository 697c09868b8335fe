//! `/v1/trash`

use crate::{app::App, auth::Editor, extract::Json, problem::Problem};
use axum::{extract::State, http::StatusCode};
use flatrender_workflows::models::{
    Role,
    file_mgr::trash::{self, Emptied},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::tree::Thing;

/// What the next clean-up removes for good.
#[derive(Debug, Serialize, ToSchema)]
pub struct EmptiedView {
    /// Always `emptied_trash`.
    #[schema(example = "emptied_trash")]
    object: &'static str,
    /// Files.
    #[schema(example = 12)]
    files: i64,
    /// Their length together.
    #[schema(example = 48_213_000)]
    size_bytes: i64,
    /// Folders.
    #[schema(example = 2)]
    folders: i64,
}

/// `POST /v1/trash/empty`
#[utoipa::path(
    post, path = "/v1/trash/empty", tag = "Files", operation_id = "empty_trash", summary = "Empty the trash",
    description = "What is in it is removed for good by the next clean-up instead of after its 30 days, but for what a film under way \
                   uses: that goes later. Asking twice is harmless.",
    responses((status = 202, description = "Noted", body = EmptiedView))
)]
pub async fn empty(State(app): State<App>, Editor(tenant): Editor) -> Result<(StatusCode, Json<EmptiedView>), Problem> {
    let mut tx = app.begin(&tenant, Role::File).await?;
    let emptied = trash::empty(&mut tx, tenant.id).await.map_err(|e| Thing::File.refusal(e))?;
    tx.commit().await?;
    let Emptied { files, bytes, folders } = emptied;
    Ok((StatusCode::ACCEPTED, Json(EmptiedView { object: "emptied_trash", files, size_bytes: bytes, folders })))
}
