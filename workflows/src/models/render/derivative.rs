//! What else is made of finished films.
//!
//! ```text
//! queued ─▶ ready
//!    ▲└───▶ failed ─┐ asked for again
//!    └──────────────┘
//! ```

use super::{render_job, room};
use crate::{
    contracts::{
        media::{DerivativeKind, DeriveFile},
        storage::BlobRef,
    },
    models::{
        Db, Role, Scope,
        content::project::blob_ref,
        file_mgr::{
            file::{self, NewFile},
            quota::{self, Outcome},
        },
    },
};
use flatrender_engine::Failure;
use serde::{Deserialize, Serialize};
use std::slice;
use uuid::Uuid;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Derivative {
    /// What it is: `poster` and so on.
    pub kind: String,
    /// `queued`, `ready` or `failed`.
    pub state: String,
}

/// Asks for one of an export; asking again for one that is ready or queued changes nothing. Gives which try it is, when
/// there is something to do; none when there is not, or no such film.
pub async fn ask(db: Db<'_>, tenant_id: Uuid, export_id: Uuid, kind: DerivativeKind) -> sqlx::Result<Option<i32>> {
    sqlx::query_scalar!(
        r#"insert into render.derivatives as d (tenant_id, export_id, kind, created_at, updated_at)
           select tenant_id, id, $3, workflow.now(), workflow.now() from render.exports
           where tenant_id = $1 and id = $2 and state = 'ready' and (expires_at is null or expires_at > workflow.now())
           on conflict (export_id, kind) do update
           set state = 'queued', tries = d.tries + 1, error_code = null, updated_at = workflow.now() where d.state = 'failed'
           returning tries"#,
        tenant_id,
        export_id,
        kind.name(),
    )
    .fetch_optional(db)
    .await
}

/// What an activity needs to make one.
///
/// # Errors
/// `export.gone` when the film is not there any more.
pub async fn work(db: Db<'_>, export_id: Uuid, kind: DerivativeKind) -> Result<DeriveFile, Failure> {
    let row = sqlx::query!(
        r#"select e.sha256, e.size_bytes, e.frame_count, j.fps from render.exports e join render.render_jobs j on j.id = e.render_job_id
           where e.id = $1 and e.state = 'ready'"#,
        export_id,
    )
    .fetch_optional(db)
    .await?;
    let gone = || Failure::permanent("export.gone", format!("export {export_id} is not there any more"));
    let row = row.ok_or_else(gone)?;
    let video = blob_ref(row.sha256, row.size_bytes)?;
    Ok(DeriveFile { video, kind, frames: row.frame_count as u32, fps: row.fps as u32 })
}

/// Notes what came of one, which takes the room that is set aside for it or frees it; a failure is a warning with its film, and one of a film
/// that is gone by now is a failure. Ends in the scope of the renders, where it begins.
pub async fn settle(
    db: Db<'_>,
    tenant_id: Uuid,
    export_id: Uuid,
    kind: DerivativeKind,
    made: Result<&BlobRef, &Failure>,
) -> sqlx::Result<()> {
    let gone = Failure::permanent("export.gone", format!("export {export_id} is not there any more"));
    // The tenant's turn comes before its films, as for whoever lets go of them.
    Scope::tenant(Role::File, tenant_id).enter(&mut *db).await?;
    quota::take_turns(&mut *db, &[tenant_id]).await?;
    Scope::tenant(Role::Render, tenant_id).enter(&mut *db).await?;
    // Whoever lets go of the film waits, and lets go of this, too.
    let film = sqlx::query!(
        r#"select e.state = 'ready' as "there!", e.render_job_id, d.tries as "tries?"
           from render.exports e left join render.derivatives d on d.export_id = e.id and d.kind = $2 where e.id = $1 for share of e"#,
        export_id,
        kind.name(),
    );
    let film = film.fetch_optional(&mut *db).await?;
    let there = film.as_ref().is_some_and(|film| film.there);
    let made = if there { made } else { made.and(Err(&gone)) };
    let room = film.and_then(|film| Some(room::derivative(film.render_job_id, kind.name(), film.tries?)));
    let file_id = match made {
        Ok(blob) => Some(keep(&mut *db, tenant_id, export_id, kind, blob, room.as_deref()).await?),
        Err(_) => {
            room::release(&mut *db, tenant_id, room.as_slice()).await?;
            None
        }
    };
    let render_id = sqlx::query_scalar!(
        r#"update render.derivatives d
           set state = case when $3::uuid is null then 'failed' else 'ready' end, file_id = $3, sha256 = $4, size_bytes = $5,
               error_code = left($6, 128), updated_at = workflow.now()
           from render.exports e where d.export_id = $1 and d.kind = $2 and e.id = d.export_id and d.state = 'queued'
           returning e.render_job_id"#,
        export_id,
        kind.name(),
        file_id,
        made.ok().map(|b| b.sha256.as_str()),
        made.ok().map(|b| b.size_bytes as i64),
        made.err().map(|f| f.code.as_str()),
    )
    .fetch_optional(&mut *db)
    .await?;
    if let (Some(id), Err(failure)) = (render_id, made) {
        render_job::warn(db, id, &[format!("{} could not be made of the film: {}", kind.name(), failure.code)]).await?;
    }
    Ok(())
}

/// Settles those whose run the engine ended by itself: they can be asked for again. Gives how many there were.
pub async fn settle_abandoned(db: Db<'_>) -> sqlx::Result<u64> {
    Scope::platform(Role::Render).enter(&mut *db).await?;
    let queued = sqlx::query!(
        "select d.id, d.tenant_id, d.export_id, d.kind, d.tries, e.render_job_id
         from render.derivatives d join render.exports e on e.id = d.export_id where d.state = 'queued' order by d.updated_at limit 1000"
    )
    .fetch_all(&mut *db)
    .await?;
    let keys: Vec<String> = queued.iter().map(|d| business_key(d.export_id, &d.kind, d.tries)).collect();
    let tenants: Vec<Uuid> = queued.iter().map(|d| d.tenant_id).collect();
    Scope::platform(Role::Workflow).enter(&mut *db).await?;
    let ended = sqlx::query!(
        r#"select r.business_key::text as "key!", coalesce(r.error ->> 'code', 'workflow.failed') as "code!"
           from unnest($1::uuid[], $2::text[]) of (tenant_id, key)
           join workflow.runs r on r.tenant_id = of.tenant_id and r.business_key = of.key
           where r.kind = 'derive_film' and r.state in ('failed', 'cancelled')"#,
        &tenants,
        &keys,
    )
    .fetch_all(&mut *db)
    .await?;
    Scope::platform(Role::Render).enter(&mut *db).await?;
    let mut rooms = vec![];
    for run in ended {
        let Some(at) = keys.iter().position(|key| *key == run.key) else { continue };
        let done = sqlx::query!(
            "update render.derivatives set state = 'failed', error_code = left($3, 128), updated_at = workflow.now()
             where id = $1 and tries = $2 and state = 'queued'",
            queued[at].id,
            queued[at].tries,
            run.code,
        );
        if done.execute(&mut *db).await?.rows_affected() > 0 {
            let derivative = &queued[at];
            rooms.push((
                derivative.tenant_id,
                room::derivative(derivative.render_job_id, &derivative.kind, derivative.tries),
            ));
        }
    }
    // Tenant by tenant, as whoever else takes the turns of several does it.
    rooms.sort_unstable();
    for (tenant_id, room) in &rooms {
        room::release(&mut *db, *tenant_id, slice::from_ref(room)).await?;
    }
    Scope::platform(Role::Render).enter(db).await?;
    Ok(rooms.len() as u64)
}

/// What a run that makes one is about: one run a try.
pub(crate) fn business_key(export_id: Uuid, kind: &str, tries: i32) -> String {
    format!("{export_id}:{kind}:{tries}")
}

async fn keep(
    db: Db<'_>,
    tenant_id: Uuid,
    export_id: Uuid,
    kind: DerivativeKind,
    blob: &BlobRef,
    room: Option<&str>,
) -> sqlx::Result<Uuid> {
    let (mime, class, ending) = kind.file();
    let (width, height, duration_ms) = (None, None, None);
    let name = format!("{export_id}.{ending}");
    let purpose = "export";
    let new = NewFile { owner_id: None, name: &name, purpose, kind: class, mime, blob, width, height, duration_ms };
    Scope::tenant(Role::File, tenant_id).enter(&mut *db).await?;
    if let Some(room) = room {
        quota::settle(&mut *db, tenant_id, room, Outcome::Used).await?;
    }
    let id = file::insert(&mut *db, tenant_id, &new).await?;
    Scope::tenant(Role::Render, tenant_id).enter(&mut *db).await?;
    Ok(id)
}

/// The content of one that is ready.
pub async fn find(db: Db<'_>, tenant_id: Uuid, export_id: Uuid, kind: DerivativeKind) -> sqlx::Result<Option<BlobRef>> {
    let row = sqlx::query!(
        r#"select sha256 as "sha256!", size_bytes as "size_bytes!" from render.derivatives
           where tenant_id = $1 and export_id = $2 and kind = $3 and state = 'ready'"#,
        tenant_id,
        export_id,
        kind.name(),
    )
    .fetch_optional(db)
    .await?;
    row.map(|r| blob_ref(r.sha256, r.size_bytes)).transpose()
}
