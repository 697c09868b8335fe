//! Scenes of a template's version.

use crate::{
    contracts::template::{Label, Manifest},
    models::Db,
};
use sqlx::types::Json;
use uuid::Uuid;

/// A scene.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scene {
    /// Its id.
    pub id: Uuid,
    /// Its id in the template.
    pub key: String,
    /// For people, by language.
    pub title: Json<Label>,
    /// The composition that shows it alone.
    pub composition: String,
    /// The frame of the film at which it begins, in the template's own order.
    pub start_frame: i32,
    /// Its length in frames.
    pub frames: i32,
    /// The frame of it that shows it best, 0-based.
    pub still_frame: i32,
    /// A picture that its designer gave it.
    pub image: Option<String>,
    /// The picture that was rendered of it.
    pub snapshot_url: Option<String>,
}

/// Writes down the scenes that a manifest names; those that are there already stay as they are. In the scope of their tenant.
///
/// # Errors
/// Those of the database.
pub async fn fill(db: Db<'_>, tenant_id: Uuid, version_id: Uuid, manifest: &Manifest) -> sqlx::Result<()> {
    let (mut keys, mut titles, mut compositions) = (vec![], vec![], vec![]);
    let (mut starts, mut frames, mut stills) = (vec![], vec![], vec![]);
    for (start, scene) in manifest.scene_starts() {
        keys.push(scene.id.clone());
        titles.push(serde_json::json!(scene.label));
        compositions.push(scene.composition());
        starts.push(start as i32);
        frames.push(scene.frames as i32);
        stills.push(scene.still_frame as i32);
    }
    sqlx::query!(
        r#"insert into content.scenes (tenant_id, project_version_id, scene_key, position, title, comp_name, start_frame, frame_count, still_frame)
           select $1, $2, key, (n - 1)::int, title, composition, start, frames, still
           from unnest($3::text[], $4::jsonb[], $5::text[], $6::int[], $7::int[], $8::int[])
                with ordinality s(key, title, composition, start, frames, still, n)
           on conflict (project_version_id, scene_key) do nothing"#,
        tenant_id,
        version_id,
        &keys,
        &titles,
        &compositions,
        &starts,
        &frames,
        &stills,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// These scenes, in order, of whichever version each is.
///
/// # Errors
/// Those of the database.
pub async fn of(db: Db<'_>, ids: &[Uuid]) -> sqlx::Result<Vec<Scene>> {
    sqlx::query_as!(
        Scene,
        r#"select id, scene_key as key, title as "title: Json<Label>", comp_name as composition, start_frame, frame_count as frames,
                  still_frame, image, snapshot_url
           from content.scenes where id = any($1) order by project_version_id, position"#,
        ids,
    )
    .fetch_all(db)
    .await
}

/// The scenes of a version, in order.
///
/// # Errors
/// Those of the database.
pub async fn list(db: Db<'_>, version_id: Uuid) -> sqlx::Result<Vec<Scene>> {
    sqlx::query_as!(
        Scene,
        r#"select id, scene_key as key, title as "title: Json<Label>", comp_name as composition, start_frame, frame_count as frames,
                  still_frame, image, snapshot_url
           from content.scenes where project_version_id = $1 and deleted_at is null order by position"#,
        version_id,
    )
    .fetch_all(db)
    .await
}
