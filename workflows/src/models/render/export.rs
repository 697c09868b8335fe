//! Finished films.

use super::{derivative::Derivative, room};
use crate::{
    contracts::{
        media::{EncodeProfile, ProbedVideo},
        storage::BlobRef,
    },
    models::{
        Db, Role, Scope,
        content::project::blob_ref,
        file_mgr::{
            file::{self, NewFile},
            purge, quota,
        },
    },
};
use chrono::{DateTime, Utc};
use flatrender_engine::Failure;
use sqlx::types::Json;
use uuid::Uuid;

/// A finished film.
#[derive(Debug, Clone)]
pub struct Export {
    /// Its id.
    pub id: Uuid,
    /// The render it came from.
    pub render_id: Uuid,
    /// Name for a download.
    pub name: String,
    /// The MP4.
    pub video: BlobRef,
    /// The contact sheet, PNG; none once it was removed.
    pub sheet: Option<BlobRef>,
    /// Length in milliseconds.
    pub duration_ms: i64,
    /// Frames, counted.
    pub frames: i32,
    /// When it was published.
    pub created_at: DateTime<Utc>,
    /// When it goes; none: it stays.
    pub expires_at: Option<DateTime<Utc>>,
    /// What else was made of it.
    pub derivatives: Vec<Derivative>,
}

/// A verified film to publish.
pub struct NewExport<'a> {
    /// Its owner.
    pub tenant_id: Uuid,
    /// The render it came from.
    pub render_id: Uuid,
    /// Speed and quality it was encoded with.
    pub profile: EncodeProfile,
    /// The stored MP4.
    pub video: &'a BlobRef,
    /// The stored contact sheet.
    pub sheet: &'a BlobRef,
    /// What ffprobe saw.
    pub probed: &'a ProbedVideo,
}

/// Publishes a film: two files in the room that was set aside for them, the export, the render's last status before it is settled. Gives the
/// export's id. From here on the render can no longer be cancelled. Ends in the scope of the renders, where it begins.
///
/// # Errors
/// [`Failure::cancelled`] when somebody was promised that it ends as cancelled.
pub async fn publish(db: Db<'_>, new: &NewExport<'_>) -> Result<Uuid, Failure> {
    let wanted = sqlx::query!(
        r#"update render.render_jobs set status = 'finalizing', updated_at = workflow.now()
           where id = $1 and cancel_requested_at is null and finished_at is null"#,
        new.render_id,
    )
    .execute(&mut *db)
    .await?;
    if wanted.rows_affected() != 1 {
        return Err(Failure::cancelled());
    }
    Ok(insert(db, new).await?)
}

async fn insert(db: Db<'_>, new: &NewExport<'_>) -> sqlx::Result<Uuid> {
    let [width, height] = new.probed.size.map(|n| Some(n as i32));
    let duration_ms = new.probed.duration_ms as i64;
    let film = NewFile {
        owner_id: None,
        name: &format!("{}.mp4", new.render_id),
        purpose: "export",
        kind: "video",
        mime: "video/mp4",
        blob: new.video,
        width,
        height,
        duration_ms: Some(duration_ms),
    };
    let sheet = NewFile {
        owner_id: None,
        name: &format!("{}.png", new.render_id),
        purpose: "contact_sheet",
        kind: "image",
        mime: "image/png",
        blob: new.sheet,
        width: None,
        height: None,
        duration_ms: None,
    };
    Scope::tenant(Role::File, new.tenant_id).enter(&mut *db).await?;
    room::take(&mut *db, new.tenant_id, new.render_id).await?;
    let file_id = file::insert(&mut *db, new.tenant_id, &film).await?;
    let sheet_file_id = file::insert(&mut *db, new.tenant_id, &sheet).await?;
    Scope::tenant(Role::Render, new.tenant_id).enter(&mut *db).await?;
    let id = Uuid::now_v7();
    // A preview is there for an hour, and a film for as long as the plan says that it was ordered with.
    sqlx::query!(
        r#"insert into render.exports (id, tenant_id, render_job_id, profile, file_id, sheet_file_id, sha256, size_bytes,
                                       duration_ms, frame_count, sheet_sha256, sheet_bytes, expires_at)
           values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12,
                   (select workflow.now() + case kind when 'preview' then interval '1 hour'
                                                      else make_interval(days => (spec ->> 'retention_days')::int) end
                    from render.render_jobs where id = $3))"#,
        id,
        new.tenant_id,
        new.render_id,
        profile_name(new.profile),
        file_id,
        sheet_file_id,
        new.video.sha256.as_str(),
        new.video.size_bytes as i64,
        duration_ms,
        new.probed.frames as i32,
        new.sheet.sha256.as_str(),
        new.sheet.size_bytes as i64,
    )
    .execute(db)
    .await?;
    Ok(id)
}

/// A film that goes soon.
#[derive(Debug, Clone)]
pub struct Expiring {
    /// Its id.
    pub id: Uuid,
    /// Its owner.
    pub tenant_id: Uuid,
    /// The render it came from.
    pub render_id: Uuid,
    /// Who ordered it; nobody in person when a key did.
    pub user_id: Option<Uuid>,
    /// The template it was made of.
    pub template: String,
    /// When it goes.
    pub expires_at: DateTime<Utc>,
    /// Now: it is told once.
    pub warned_at: DateTime<Utc>,
}

/// Up to `limit` films that go within a day and of which nobody was told; from here on they count as told. Previews and what is kept for no more
/// than a day are not among them.
pub async fn warn(db: Db<'_>, limit: i64) -> sqlx::Result<Vec<Expiring>> {
    sqlx::query_as!(
        Expiring,
        r#"update render.exports e set warned_at = workflow.now()
           from render.render_jobs j
           where j.id = e.render_job_id and e.id in (
               select x.id from render.exports x join render.render_jobs o on o.id = x.render_job_id
               where x.state = 'ready' and x.warned_at is null and o.kind <> 'preview'
                 and x.expires_at > workflow.now() and x.expires_at <= workflow.now() + interval '1 day'
                 and x.expires_at > x.created_at + interval '25 hours'
               order by x.expires_at limit $1 for update of x skip locked)
           returning e.id, e.tenant_id, e.render_job_id as render_id, j.user_id, j.template, e.expires_at as "expires_at!",
                     e.warned_at as "warned_at!""#,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Lets go of up to `limit` films whose time is over and of which nobody holds anything, with all files that were made of them; gives how many films.
/// A file that somebody needs for something else is purged as soon as nobody does. As an administrator: the files are another service's.
pub async fn expire(db: Db<'_>, limit: i64) -> sqlx::Result<u64> {
    let tenants = sqlx::query_scalar!(
        "select e.tenant_id from render.exports e join file_mgr.files f on f.id = e.file_id join render.render_jobs j on j.id = e.render_job_id
         where e.state = 'ready' and e.expires_at <= workflow.now()
           and not exists (select from file_mgr.holds h where h.tenant_id = e.tenant_id and h.released_at is null
               and (h.file_id in (e.file_id, e.sheet_file_id)
                    or h.file_id in (select d.file_id from render.derivatives d where d.export_id = e.id)
                    or h.file_id is null and (h.owner_id is null or h.owner_id in (f.owner_id, j.user_id))))
         order by e.expires_at limit $1",
        limit,
    )
    .fetch_all(&mut *db)
    .await?;
    // Before anything is looked at: who places a hold takes the same turn.
    quota::take_turns(&mut *db, &tenants).await?;
    let expired = sqlx::query_scalar!(
        r#"update render.exports set state = 'expired'
           where id in (select e.id from render.exports e join file_mgr.files f on f.id = e.file_id
                        join render.render_jobs j on j.id = e.render_job_id
                        where e.state = 'ready' and e.expires_at <= workflow.now() and e.tenant_id = any ($2)
                          and not exists (select from file_mgr.holds h where h.tenant_id = e.tenant_id and h.released_at is null
                              and (h.file_id in (e.file_id, e.sheet_file_id)
                                   or h.file_id in (select d.file_id from render.derivatives d where d.export_id = e.id)
                                   or h.file_id is null and (h.owner_id is null or h.owner_id in (f.owner_id, j.user_id))))
                        order by e.expires_at limit $1 for update of e skip locked)
           returning id"#,
        limit,
        &tenants,
    )
    .fetch_all(&mut *db)
    .await?;
    let files = sqlx::query_scalar!(
        r#"select f as "f!" from render.exports e cross join lateral unnest(array[e.file_id, e.sheet_file_id]) f
           where e.id = any ($1) and f is not null
           union all select file_id from render.derivatives where export_id = any ($1) and file_id is not null"#,
        &expired,
    )
    .fetch_all(&mut *db)
    .await?;
    let (needed, free) = sort_out(&mut *db, files).await?;
    sqlx::query!(
        "update file_mgr.files set purge_after = workflow.now(), updated_at = workflow.now() where id = any ($1) and state = 'ready'",
        &needed
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!("update file_mgr.files set state = 'purged', updated_at = workflow.now() where id = any($1)", &free)
        .execute(db)
        .await?;
    Ok(expired.len() as u64)
}

/// Files that somebody needs, and those that nobody does, nor will until the transaction ends.
async fn sort_out(db: Db<'_>, files: Vec<Uuid>) -> sqlx::Result<(Vec<Uuid>, Vec<Uuid>)> {
    sqlx::query!("select id from file_mgr.files where id = any ($1) order by id for update", &files)
        .fetch_all(&mut *db)
        .await?;
    let needed: Vec<Uuid> = purge::in_use(db, &files).await?.into_iter().map(|(id, _)| id).collect();
    Ok(files.into_iter().partition(|id| needed.contains(id)))
}

fn profile_name(profile: EncodeProfile) -> &'static str {
    match profile {
        EncodeProfile::Preview => "preview",
        EncodeProfile::Final => "final",
        EncodeProfile::Master => "master",
    }
}

/// An export of the tenant by id.
pub async fn find(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<Export>> {
    Ok(select(db, tenant_id, Some(id), &[]).await?.pop())
}

/// The exports of some renders.
pub async fn of_renders(db: Db<'_>, tenant_id: Uuid, render_ids: &[Uuid]) -> sqlx::Result<Vec<Export>> {
    select(db, tenant_id, None, render_ids).await
}

/// When a file goes that is a film, its contact sheet or something that was made of it; none when it is none of that, or stays.
pub async fn ends_at(db: Db<'_>, tenant_id: Uuid, file_id: Uuid) -> sqlx::Result<Option<DateTime<Utc>>> {
    sqlx::query_scalar!(
        "select min(e.expires_at) from render.exports e
         where e.tenant_id = $1 and e.state = 'ready' and e.id in (
             select id from render.exports where file_id = $2
             union all select id from render.exports where sheet_file_id = $2
             union all select export_id from render.derivatives where file_id = $2)",
        tenant_id,
        file_id,
    )
    .fetch_one(db)
    .await
}

async fn select(db: Db<'_>, tenant_id: Uuid, id: Option<Uuid>, renders: &[Uuid]) -> sqlx::Result<Vec<Export>> {
    let rows = sqlx::query!(
        r#"select e.id, e.render_job_id, j.template, e.sha256, e.size_bytes, e.duration_ms, e.frame_count, e.created_at,
                  e.sheet_sha256, e.sheet_bytes, e.sheet_file_id, e.expires_at,
                  (select coalesce(jsonb_agg(jsonb_build_object('kind', d.kind, 'state', d.state) order by d.kind), '[]')
                   from render.derivatives d where d.export_id = e.id) as "derivatives!: Json<Vec<Derivative>>"
           from render.exports e
           join render.render_jobs j on j.id = e.render_job_id
           where e.tenant_id = $1 and e.state = 'ready' and (e.expires_at is null or e.expires_at > workflow.now()) and (e.id = $2 or ($2 is null and e.render_job_id = any($3)))"#,
        tenant_id,
        id,
        renders,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|r| {
            Ok(Export {
                id: r.id,
                render_id: r.render_job_id,
                name: format!("{}-{}.mp4", r.template, r.render_job_id),
                video: blob_ref(r.sha256, r.size_bytes)?,
                sheet: r.sheet_file_id.map(|_| blob_ref(r.sheet_sha256, r.sheet_bytes)).transpose()?,
                duration_ms: r.duration_ms,
                frames: r.frame_count,
                created_at: r.created_at,
                expires_at: r.expires_at,
                derivatives: r.derivatives.0,
            })
        })
        .collect()
}
