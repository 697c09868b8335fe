//! Requests for stills as a whole: one has ended when the last of its jobs has. A job may be of several.

use crate::models::Db;
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A request whose stills have all ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub tenant_id: Uuid,
    /// The template.
    pub project_id: Uuid,
    /// Who asked for them, when it was a person.
    pub asked_by: Option<Uuid>,
    /// Stills that are there.
    pub done: i32,
    /// Stills that could not be made.
    pub failed: i32,
    /// When the last one ended.
    pub finished_at: DateTime<Utc>,
}

/// Notes a request, of a person if it is one's, and its jobs; gives its id, and how it ended if none of them lives any more.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn begin(
    db: Db<'_>,
    tenant_id: Uuid,
    project_id: Uuid,
    asked_by: Option<Uuid>,
    job_ids: &[Uuid],
) -> sqlx::Result<(Uuid, Option<Finished>)> {
    // Whoever is ending one of them is waited for; whoever comes to it later waits for us, and sees the batch then.
    sqlx::query!(
        "select id from render.snapshot_jobs where tenant_id = $1 and id = any($2) order by id for share",
        tenant_id,
        job_ids,
    )
    .fetch_all(&mut *db)
    .await?;
    let id = Uuid::now_v7();
    sqlx::query!(
        "insert into render.snapshot_batches (id, tenant_id, project_id, job_ids, asked_by, created_at) values ($1, $2, $3, $4, $5, workflow.now())",
        id,
        tenant_id,
        project_id,
        job_ids,
        asked_by,
    )
    .execute(&mut *db)
    .await?;
    Ok((id, finish(db, &[id]).await?.pop()))
}

/// Batches that have ended with this job, which has ended in this transaction. Each is told of once.
pub async fn settle(db: Db<'_>, tenant_id: Uuid, job_id: Uuid) -> sqlx::Result<Vec<Finished>> {
    // Two jobs of a batch that end at once: the second waits here, and then sees how the first ended.
    let ids = sqlx::query_scalar!(
        "select id from render.snapshot_batches where tenant_id = $1 and finished_at is null and $2 = any(job_ids) order by id for update",
        tenant_id,
        job_id,
    );
    let ids = ids.fetch_all(&mut *db).await?;
    if ids.is_empty() { Ok(vec![]) } else { finish(db, &ids).await }
}

async fn finish(db: Db<'_>, ids: &[Uuid]) -> sqlx::Result<Vec<Finished>> {
    sqlx::query_as!(
        Finished,
        r#"update render.snapshot_batches b set finished_at = workflow.now(), done = c.done, failed = c.failed
           from (select b.id, count(*) filter (where j.status = 'done')::int as done, count(*) filter (where j.status = 'error')::int as failed
                 from render.snapshot_batches b join render.snapshot_jobs j on j.id = any(b.job_ids) and j.tenant_id = b.tenant_id
                 where b.id = any($1) group by b.id having bool_and(j.status in ('done', 'error'))) c
           where b.id = c.id and b.finished_at is null
           returning b.id, b.tenant_id, b.project_id, b.asked_by, b.done as "done!", b.failed as "failed!", b.finished_at as "finished_at!""#,
        ids,
    )
    .fetch_all(db)
    .await
}

/// Forgets up to `limit` batches that ended a week ago or earlier; gives how many.
pub async fn forget_old(db: Db<'_>, limit: i64) -> sqlx::Result<u64> {
    let gone = sqlx::query!(
        "delete from render.snapshot_batches where id in (
             select id from render.snapshot_batches
             where finished_at < workflow.now() - interval '7 days' order by finished_at limit $1 for update skip locked)",
        limit
    );
    Ok(gone.execute(db).await?.rows_affected())
}
