//! Pictures that were traced to SVG, with colours that a browser may change.

use crate::models::{
    Db,
    file_mgr::{purge, quota},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use uuid::Uuid;

/// A traced picture of a template or of one of its scenes.
#[derive(Debug, Clone, PartialEq)]
pub struct SvgPreview {
    /// Its id.
    pub id: Uuid,
    /// The scene, by its id in the template; none for the whole.
    pub scene: Option<String>,
    /// The file that was traced.
    pub source_file_id: Uuid,
    /// The file that came of it, on the owner's shelf.
    pub svg_file_id: Uuid,
    /// Its length.
    pub svg_bytes: i32,
    /// Its colours.
    pub palette: Json<Vec<PaletteSlot>>,
    /// Width, in units of its own.
    pub width: i32,
    /// Height.
    pub height: i32,
    /// When it was traced.
    pub created_at: DateTime<Utc>,
}

/// A colour that can be changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PaletteSlot {
    /// `slot-1` and so on.
    pub id: String,
    /// As traced, `#rrggbb`.
    pub color: String,
    /// How much it covers, 0 to 1.
    pub share: f32,
    /// For people; none until somebody names it.
    pub label: Option<String>,
}

/// What a preview is of: traced once by each version of the tracer.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The template.
    pub project_id: Uuid,
    /// The scene; none for the whole.
    pub scene_id: Option<Uuid>,
    /// Hash of the picture.
    pub sha256: &'a str,
    /// Version of the tracer.
    pub tracer_version: i32,
}

/// A traced picture to keep; its file is there.
#[derive(Debug, Clone, Copy)]
pub struct NewSvgPreview<'a> {
    /// What it is of.
    pub source: Source<'a>,
    /// The file that was traced.
    pub source_file_id: Uuid,
    /// The file that came of it.
    pub svg_file_id: Uuid,
    /// Its length.
    pub svg_bytes: i32,
    /// Its colours.
    pub palette: &'a [PaletteSlot],
    /// Width and height.
    pub size: [i32; 2],
}

/// Keeps a traced picture and gives its id; none when the same was traced before.
///
/// # Errors
/// Those of the database.
pub async fn insert(db: Db<'_>, tenant_id: Uuid, new: &NewSvgPreview<'_>) -> sqlx::Result<Option<Uuid>> {
    let [width, height] = new.size;
    sqlx::query_scalar!(
        r#"insert into content.template_svg_previews
               (id, tenant_id, project_id, scene_id, source_file_id, source_sha256, svg_file_id, svg_bytes, palette,
                width, height, tracer_version, state)
           values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 'ready')
           on conflict on constraint traced_once do nothing
           returning id"#,
        Uuid::now_v7(),
        tenant_id,
        new.source.project_id,
        new.source.scene_id,
        new.source_file_id,
        new.source.sha256,
        new.svg_file_id,
        new.svg_bytes,
        Json(new.palette) as _,
        width,
        height,
        new.source.tracer_version,
    )
    .fetch_optional(db)
    .await
}

/// The preview of this very picture, when it was traced before.
///
/// # Errors
/// Those of the database.
pub async fn of_source(db: Db<'_>, tenant_id: Uuid, source: &Source<'_>) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!(
        r#"select id from content.template_svg_previews
           where tenant_id = $1 and project_id = $2 and scene_id is not distinct from $3 and source_sha256 = $4
             and tracer_version = $5 and state = 'ready'"#,
        tenant_id,
        source.project_id,
        source.scene_id,
        source.sha256,
        source.tracer_version,
    )
    .fetch_optional(db)
    .await
}

/// The previews of a template, the newest first; with `id`, that one.
///
/// # Errors
/// Those of the database.
pub async fn list(
    db: Db<'_>,
    tenant_id: Uuid,
    project_id: Uuid,
    id: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<SvgPreview>> {
    sqlx::query_as!(
        SvgPreview,
        r#"select p.id, s.scene_key as "scene?", p.source_file_id, p.svg_file_id as "svg_file_id!", p.svg_bytes as "svg_bytes!",
                  p.palette as "palette: Json<Vec<PaletteSlot>>", p.width as "width!", p.height as "height!", p.created_at
           from content.template_svg_previews p left join content.scenes s on s.id = p.scene_id
           where p.tenant_id = $1 and p.project_id = $2 and p.id = coalesce($3, p.id) and p.state = 'ready'
           order by p.id desc limit $4"#,
        tenant_id,
        project_id,
        id,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Names the colours of a preview anew.
///
/// # Errors
/// Those of the database.
pub async fn set_palette(db: Db<'_>, tenant_id: Uuid, id: Uuid, palette: &[PaletteSlot]) -> sqlx::Result<()> {
    let sql = sqlx::query!(
        "update content.template_svg_previews set palette = $3, updated_at = workflow.now() where tenant_id = $1 and id = $2",
        tenant_id,
        id,
        Json(palette) as _,
    );
    sql.execute(db).await.map(drop)
}

/// Forgets a preview and gives the file that it was; none when it is not there.
///
/// # Errors
/// Those of the database.
pub async fn delete(db: Db<'_>, tenant_id: Uuid, project_id: Uuid, id: Uuid) -> sqlx::Result<Option<Uuid>> {
    let file_id = sqlx::query_scalar!(
        "delete from content.template_svg_previews where tenant_id = $1 and project_id = $2 and id = $3 returning svg_file_id",
        tenant_id,
        project_id,
        id,
    );
    file_id.fetch_optional(db).await.map(Option::flatten)
}

/// Lets go of the file of a preview that was forgotten: at once, or once nobody needs it any more. One that is held is in the trash until then; one
/// that something names, as a brand does its picture, stays where it is seen. In the scope of the files.
///
/// # Errors
/// Those of the database.
pub async fn let_go(db: Db<'_>, tenant_id: Uuid, file_id: Uuid) -> sqlx::Result<()> {
    // Who places a hold takes the same turn, and who names a file locks it before.
    quota::take_turns(&mut *db, &[tenant_id]).await?;
    sqlx::query!("select id from file_mgr.files where tenant_id = $1 and id = $2 for update", tenant_id, file_id)
        .fetch_optional(&mut *db)
        .await?;
    let reasons = purge::reasons(&mut *db, file_id).await?;
    let is_named = reasons.iter().any(|why| why != purge::HELD);
    let sql = sqlx::query!(
        "update file_mgr.files
         set state = case when $4 then state when $3 then 'trashed' else 'purged' end,
             trashed_at = case when $4 then trashed_at when $3 then workflow.now() end,
             purge_after = case when $3 then workflow.now() end, updated_at = workflow.now()
         where tenant_id = $1 and id = $2 and purpose = 'preview' and state <> 'purged'",
        tenant_id,
        file_id,
        !reasons.is_empty(),
        is_named,
    );
    sql.execute(db).await.map(drop)
}
