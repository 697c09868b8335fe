//! Encoded stretches of scenes that a tenant has had rendered: taken as they are when the same is asked for again.
//!
//! What is kept is the encoded part, on a shelf of its own, and here the hashes of the frames it was made from. A row may
//! outlive its content or the other way round: whoever takes a part finds out, and renders the stretch.

use super::spec::RenderSpec;
use crate::{
    contracts::{
        media::{EncodedPart, KeptScene},
        render::{Engine, FrameRange},
        storage::{BlobHash, BlobRef},
    },
    models::{Db, content::project::blob_ref},
};
use uuid::Uuid;

/// Most bytes that a tenant's scenes take; those used longest ago go first.
const MOST_BYTES: i64 = 4 << 30;
/// Days after which an unused scene goes.
const DAYS: i32 = 30;

/// The version of the renderer that every node has that may render films of this engine; none when they differ, or when
/// none is there. Asked on behalf of the platform: nodes serve many tenants.
pub async fn renderer(db: Db<'_>, engine: Engine) -> sqlx::Result<Option<String>> {
    let versions = sqlx::query_scalar!(
        r#"select distinct capabilities -> 'renderers' ->> $1 as "version!" from render.nodes
           where status in ('online', 'draining', 'offline') and capabilities -> 'renderers' ->> $1 is not null
             and last_seen_at > workflow.now() - interval '7 days' limit 2"#,
        engine.label(),
    )
    .fetch_all(db)
    .await?;
    Ok(<[String; 1]>::try_from(versions).ok().map(|[version]| version))
}

/// Those of the tenant's kept scenes with these keys, and notes that they are used.
pub async fn find(db: Db<'_>, tenant_id: Uuid, keys: &[BlobHash]) -> sqlx::Result<Vec<KeptScene>> {
    let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
    let rows = sqlx::query!(
        r#"update render.kept_scenes set last_used_at = workflow.now()
           where tenant_id = $1 and key = any($2) and evicted_at is null
           returning key, sha256, size_bytes, cardinality(frame_sha256) as "frames!""#,
        tenant_id,
        &keys,
    )
    .fetch_all(db)
    .await?;
    let scene = |key: String, blob: BlobRef, frames: i32| {
        let key = key.parse().map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
        Ok(KeptScene { key, part: EncodedPart { blob, frames: frames as u32 } })
    };
    rows.into_iter().map(|r| scene(r.key, blob_ref(r.sha256, r.size_bytes)?, r.frames)).collect()
}

/// A chunk that is one kept scene.
pub struct Reused<'a> {
    /// The owner of film and scene.
    pub tenant_id: Uuid,
    /// The film.
    pub render_id: Uuid,
    /// The chunk's number.
    pub chunk_no: u32,
    /// The scene.
    pub scene: &'a KeptScene,
    /// Size of its frames in pixels.
    pub size: [u32; 2],
}

/// Accepts the frames of a kept scene for a chunk; false when it is not kept any more.
pub async fn accept(db: Db<'_>, reused: &Reused<'_>) -> sqlx::Result<bool> {
    let accepted = sqlx::query!(
        r#"with chunk as (
               select f.id, f.first_frame, s.frame_sha256, s.frame_bytes from render.frame_jobs f
               join render.kept_scenes s on s.tenant_id = f.tenant_id and s.key = $3 and s.sha256 = $4 and s.evicted_at is null
                    and cardinality(s.frame_sha256) = f.last_frame - f.first_frame + 1
               where f.tenant_id = $5 and f.render_job_id = $1 and f.chunk_no = $2
           ), frames as (
               insert into render.frame_manifests
                   (tenant_id, render_job_id, frame_no, sha256, size_bytes, width, height, flags, verified_at)
               select $5, $1, chunk.first_frame + n::int - 1, h, b, $6, $7, '{reused}', workflow.now()
               from chunk cross join unnest(chunk.frame_sha256, chunk.frame_bytes) with ordinality f(h, b, n)
               returning 1
           ), verified as (
               update render.frame_jobs f
               set status = 'verified', frames_ok = f.last_frame - f.first_frame + 1, updated_at = workflow.now()
               from chunk where f.id = chunk.id
           )
           update render.render_jobs j
           set frames_verified = frames_verified + made.count, updated_at = workflow.now(),
               status = case when frames_verified + made.count = frame_count then 'encoding' else status end
           from (select count(*)::int from frames) made
           where j.id = $1 and made.count > 0"#,
        reused.render_id,
        reused.chunk_no as i32,
        reused.scene.key.as_str(),
        reused.scene.part.blob.sha256.as_str(),
        reused.tenant_id,
        reused.size[0] as i32,
        reused.size[1] as i32,
    )
    .execute(db)
    .await?;
    Ok(accepted.rows_affected() == 1)
}

/// A part to keep.
pub struct NewScene<'a> {
    /// The owner.
    pub tenant_id: Uuid,
    /// The film it was made for.
    pub render_id: Uuid,
    /// Its frames in that film.
    pub frames: FrameRange,
    /// The scene.
    pub scene: &'a KeptScene,
    /// The version of the renderer that is part of its key.
    pub renderer: &'a str,
    /// What the film was made from.
    pub spec: &'a RenderSpec,
    /// Whether some of its frames are said to be spoiled.
    pub is_spoiled: bool,
}

/// Keeps a scene, unless it is spoiled or a node with another renderer than its key says had a hand in it: its content is stored by now, and is
/// noted as let go of, so that it is removed. Lets go of those used longest ago when the tenant has too many. Asked on behalf of the
/// platform: nodes serve many tenants.
pub async fn keep(db: Db<'_>, new: &NewScene<'_>) -> sqlx::Result<()> {
    sqlx::query!(
        r#"insert into render.kept_scenes
               (tenant_id, key, sha256, size_bytes, frame_sha256, frame_bytes, render_job_id, created_at, last_used_at, evicted_at)
           select $1, $2, $3, $4, array_agg(coalesce(r.sha256, m.sha256) order by m.frame_no),
                  array_agg(coalesce(r.size_bytes, m.size_bytes) order by m.frame_no), $5, workflow.now(), workflow.now(),
                  case when $10 or not bool_and(coalesce(n.capabilities -> 'renderers' ->> $8 = $9, false)) then workflow.now() end
           from render.frame_manifests m
           left join lateral (select * from render.frame_replacements r
                              where r.render_job_id = m.render_job_id and r.frame_no = m.frame_no order by r.no desc limit 1) r on true
           left join render.frame_job_attempts a on a.id = case when r.no is null then m.attempt_id else r.attempt_id end
           left join render.nodes n on n.id = a.node_id
           where m.tenant_id = $1 and m.render_job_id = $5 and m.frame_no between $6 and $7
           having count(*) = $7 - $6 + 1
           on conflict (tenant_id, key) do update
           set sha256 = excluded.sha256, size_bytes = excluded.size_bytes, frame_sha256 = excluded.frame_sha256,
               frame_bytes = excluded.frame_bytes, render_job_id = excluded.render_job_id,
               last_used_at = excluded.last_used_at, evicted_at = null
           where excluded.evicted_at is null"#,
        new.tenant_id,
        new.scene.key.as_str(),
        new.scene.part.blob.sha256.as_str(),
        new.scene.part.blob.size_bytes as i64,
        new.render_id,
        new.frames.first as i32,
        new.frames.last as i32,
        new.spec.engine.label(),
        new.renderer,
        new.is_spoiled,
    )
    .execute(&mut *db)
    .await?;
    make_room(db, new.tenant_id, MOST_BYTES).await
}

/// Lets go of what was kept of a film.
pub async fn let_go(db: Db<'_>, tenant_id: Uuid, render_id: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        "update render.kept_scenes set evicted_at = workflow.now()
         where tenant_id = $1 and render_job_id = $2 and evicted_at is null",
        tenant_id,
        render_id,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Lets go of what was used longest ago until no more than so many bytes are kept. What somebody else is using stays.
pub async fn make_room(db: Db<'_>, tenant_id: Uuid, most_bytes: i64) -> sqlx::Result<()> {
    // Most of the time there is room, and nothing has to be put in order.
    let kept = sqlx::query_scalar!(
        r#"select coalesce(sum(size_bytes), 0)::bigint as "kept!" from render.kept_scenes where tenant_id = $1 and evicted_at is null"#,
        tenant_id,
    );
    if kept.fetch_one(&mut *db).await? <= most_bytes {
        return Ok(());
    }
    sqlx::query!(
        r#"update render.kept_scenes k set evicted_at = workflow.now()
           where k.tenant_id = $1 and k.key in (
               select l.key from render.kept_scenes l
               join (select key, sum(size_bytes) over (order by last_used_at desc, key) as up_to
                     from render.kept_scenes where tenant_id = $1 and evicted_at is null) s on s.key = l.key
               where l.tenant_id = $1 and s.up_to > $2::bigint
               for update of l skip locked)"#,
        tenant_id,
        most_bytes,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Lets go of scenes that nobody has used for a month; gives those whose content is to be removed, with their tenants.
pub async fn expired(db: Db<'_>, limit: i64) -> sqlx::Result<Vec<(Uuid, BlobHash)>> {
    sqlx::query!(
        r#"update render.kept_scenes set evicted_at = workflow.now()
           where (tenant_id, key) in (select tenant_id, key from render.kept_scenes
               where evicted_at is null and last_used_at < workflow.now() - make_interval(days => $1) limit $2)"#,
        DAYS,
        limit,
    )
    .execute(&mut *db)
    .await?;
    let rows = sqlx::query!(
        "select tenant_id, key from render.kept_scenes where evicted_at is not null order by evicted_at limit $1",
        limit
    );
    let scene = |tenant_id, key: String| Ok((tenant_id, key.parse().map_err(|e| sqlx::Error::Decode(Box::new(e)))?));
    rows.fetch_all(db).await?.into_iter().map(|r| scene(r.tenant_id, r.key)).collect()
}

/// Forgets a scene whose content was removed, unless it was kept anew since.
pub async fn forget(db: Db<'_>, tenant_id: Uuid, key: &BlobHash) -> sqlx::Result<()> {
    let gone = sqlx::query!(
        "delete from render.kept_scenes where tenant_id = $1 and key = $2 and evicted_at is not null",
        tenant_id,
        key.as_str()
    );
    gone.execute(db).await.map(drop)
}
