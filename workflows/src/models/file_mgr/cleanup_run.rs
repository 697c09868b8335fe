//! A run of a rule: what it was planned to remove, frozen, and what became of each file.

use super::{
    cleanup_schedule::{Filter, Rule},
    purge, quota,
};
use crate::models::Db;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use std::collections::HashSet;
use uuid::Uuid;

/// Files that go in one transaction.
pub const BATCH: i64 = 500;
/// Most files of a plan, which is made by statements of at most a minute each; the others wait for the next run, and all of them for somebody's
/// word: what share of a tenant's files a rule means is not told by a part of it.
pub const MOST: usize = 100_000;
/// Of what a tenant keeps, what may go without somebody else's word, in percent.
const FREE_PERCENT: i64 = 20;

/// A run.
#[derive(Debug, Clone, PartialEq)]
pub struct CleanupRun {
    /// Its id.
    pub id: Uuid,
    /// Its owner.
    pub tenant_id: Uuid,
    /// Its rule.
    pub schedule_id: Uuid,
    /// When it was fired.
    pub fire_time: DateTime<Utc>,
    /// What came later is not touched.
    pub cutoff: DateTime<Utc>,
    /// Whether it only lists.
    pub dry_run: bool,
    /// Who asked for it; none: the clock did.
    pub started_by: Option<String>,
    /// `running`, `awaiting_approval`, `done`, `cancelled` or `failed`.
    pub state: String,
    /// Why somebody else has to approve it.
    pub guard: Option<String>,
    /// Who approved or rejected it.
    pub decided_by: Option<String>,
    /// Files that were to go.
    pub planned_count: i64,
    /// Their bytes.
    pub planned_bytes: i64,
    /// Files that are gone.
    pub deleted_count: i64,
    /// Their bytes.
    pub deleted_bytes: i64,
    /// Files that stayed: restored meanwhile, or somebody needs them.
    pub skipped_count: i64,
    /// The run of the engine.
    pub workflow_run_id: Option<Uuid>,
    /// When it began.
    pub created_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

/// A file of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its place in the plan, from 1.
    pub seq: i32,
    /// The file.
    pub file_id: Uuid,
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub size_bytes: i64,
    /// `planned`, `deleted` or `skipped`.
    pub state: String,
    /// Why it stayed.
    pub why: Option<String>,
}

/// What a plan comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The run.
    pub run_id: Uuid,
    /// Files.
    pub count: i64,
    /// Bytes.
    pub bytes: i64,
    /// Why somebody else has to approve it first.
    pub guard: Option<String>,
    /// Whether this is all that was asked for.
    pub dry_run: bool,
}

/// Begins a run of a rule; the run of the engine plans it later.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn open(db: Db<'_>, rule: &Rule, dry_run: bool, started_by: Option<&str>) -> sqlx::Result<Uuid> {
    let id = Uuid::now_v7();
    sqlx::query!(
        "insert into file_mgr.cleanup_runs (id, tenant_id, schedule_id, fire_time, cutoff, dry_run, started_by, created_at)
         select $1, r.tenant_id, r.id, workflow.now(), workflow.now() - r.older_than, $3, $4, workflow.now()
         from file_mgr.cleanup_schedules r where r.id = $2",
        id,
        rule.id,
        dry_run,
        started_by,
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!("update file_mgr.cleanup_schedules set last_run_id = $2 where id = $1", rule.id, id)
        .execute(db)
        .await?;
    Ok(id)
}

/// Notes the run of the engine.
pub async fn note_workflow(db: Db<'_>, id: Uuid, workflow_run_id: Uuid) -> sqlx::Result<()> {
    sqlx::query!("update file_mgr.cleanup_runs set workflow_run_id = $2 where id = $1", id, workflow_run_id)
        .execute(db)
        .await
        .map(drop)
}

/// Freezes what a run removes, at most `most` files, and whether somebody else has to approve it; what former runs removed is not told file by
/// file any more. As an administrator; so with the two below.
pub async fn plan(db: Db<'_>, rule: &Rule, run_id: Uuid, most: usize) -> sqlx::Result<Plan> {
    let Rule { tenant_id, terms, .. } = rule;
    // Of former runs the sums are kept: what a rule lists again and again would fill the database.
    sqlx::query!(
        "delete from file_mgr.cleanup_items where run_id in (
             select id from file_mgr.cleanup_runs where schedule_id = $1 and id <> $2 and finished_at is not null)",
        rule.id,
        run_id,
    )
    .execute(&mut *db)
    .await?;
    let mut free = removable(&mut *db, rule, run_id, most).await?;
    let is_cut = free.len() > most;
    free.truncate(most);
    sqlx::query!(
        "insert into file_mgr.cleanup_items (tenant_id, run_id, seq, file_id, size_bytes)
         select $1, $2, row_number() over (order by f.id), f.id, b.size_bytes
         from file_mgr.files f join file_mgr.blobs b on b.id = f.blob_id
         where f.id = any ($3)",
        tenant_id,
        run_id,
        &free,
    )
    .execute(&mut *db)
    .await?;
    let sums = sqlx::query!(
        r#"select count(*) as "count!", coalesce(sum(size_bytes), 0)::bigint as "bytes!",
                  (select coalesce(sum(size_bytes), 0)::bigint from file_mgr.blobs where tenant_id = $2 and refcount > 0) as "kept!"
           from file_mgr.cleanup_items where run_id = $1"#,
        run_id,
        tenant_id,
    )
    .fetch_one(&mut *db)
    .await?;
    let run =
        sqlx::query!("select dry_run from file_mgr.cleanup_runs where id = $1", run_id).fetch_one(&mut *db).await?;
    let guard = is_cut
        .then(|| format!("more than {most} files"))
        .or_else(|| guard(terms.max_delete_per_run.into(), sums.count, sums.bytes, sums.kept))
        .filter(|_| !run.dry_run);
    sqlx::query!(
        "update file_mgr.cleanup_runs set planned_count = $2, planned_bytes = $3, guard = $4,
             state = case when $4::text is null then state else 'awaiting_approval' end
         where id = $1",
        run_id,
        sums.count,
        sums.bytes,
        guard,
    )
    .execute(db)
    .await?;
    Ok(Plan { run_id, count: sums.count, bytes: sums.bytes, guard, dry_run: run.dry_run })
}

/// Files that a rule means and nobody needs, in the order of their ids: more than `most` of them, or all there are.
async fn removable(db: Db<'_>, rule: &Rule, run_id: Uuid, most: usize) -> sqlx::Result<Vec<Uuid>> {
    let (mut free, mut after): (Vec<Uuid>, Option<Uuid>) = (vec![], None);
    while free.len() <= most {
        let page = candidates(&mut *db, rule, run_id, after, most as i64).await?;
        let needed: HashSet<Uuid> = purge::in_use(&mut *db, &page).await?.into_iter().map(|(id, _)| id).collect();
        free.extend(page.iter().filter(|id| !needed.contains(*id)));
        match page.last() {
            Some(last) if page.len() == most => after = Some(*last),
            _ => break,
        }
    }
    Ok(free)
}

/// Up to `limit` files that a rule means, needed or not, after the one `after`.
async fn candidates(db: Db<'_>, rule: &Rule, run_id: Uuid, after: Option<Uuid>, limit: i64) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        r#"select c.file_id as "id!" from file_mgr.cleanup_runs r
           cross join lateral file_mgr.cleanup_candidates(r.tenant_id, $2, r.cutoff, $3) c
           where r.id = $1 and ($5::uuid is null or c.file_id > $5) order by c.file_id limit $4"#,
        run_id,
        rule.terms.target,
        Json(&rule.terms.filter) as _,
        limit,
        after,
    )
    .fetch_all(db)
    .await
}

/// Why a plan takes the word of somebody else; none when it does not.
fn guard(most: i64, count: i64, bytes: i64, kept: i64) -> Option<String> {
    if count > most {
        return Some(format!("{count} files are more than {most}"));
    }
    let beyond = i128::from(bytes) * 100 > i128::from(kept) * i128::from(FREE_PERCENT);
    beyond.then(|| format!("{bytes} bytes are more than {FREE_PERCENT} % of the {kept} that are kept"))
}

/// Removes the next files of a plan that the rule, as it is now, still means and that nobody needs; gives how many of the plan it dealt with.
/// None are left when that is 0. A file that somebody is changing at this moment is waited for.
pub async fn remove_batch(db: Db<'_>, rule: &Rule, run_id: Uuid) -> sqlx::Result<u64> {
    let batch = sqlx::query_scalar!(
        "select file_id from file_mgr.cleanup_items where run_id = $1 and state = 'planned' order by seq limit $2",
        run_id,
        BATCH,
    )
    .fetch_all(&mut *db)
    .await?;
    if batch.is_empty() {
        return Ok(0);
    }
    // Before anything is looked at: who places a hold takes the same turn.
    quota::take_turn(&mut *db, rule.tenant_id).await?;
    sqlx::query!("select id from file_mgr.files where id = any ($1) order by id for update", &batch)
        .fetch_all(&mut *db)
        .await?;
    let filter: &Filter = &rule.terms.filter;
    let still = sqlx::query_scalar!(
        r#"select c.file_id as "id!" from file_mgr.cleanup_runs r
           cross join lateral file_mgr.cleanup_candidates(r.tenant_id, $2, least(r.cutoff, r.created_at - make_interval(secs => $5)), $3, $4) c where r.id = $1"#,
        run_id,
        rule.terms.target,
        Json(filter) as _,
        &batch,
        rule.terms.older_than_seconds as f64,
    )
    .fetch_all(&mut *db)
    .await?;
    let (needed, why): (Vec<Uuid>, Vec<String>) = purge::in_use(&mut *db, &still).await?.into_iter().unzip();
    let free: Vec<Uuid> = still.into_iter().filter(|id| !needed.contains(id)).collect();
    let bytes = purge::purge(&mut *db, &free).await?;
    sqlx::query!(
        "update file_mgr.cleanup_items i
         set state = case when i.file_id = any ($3) then 'deleted' else 'skipped' end,
             why = case when i.file_id <> all ($3)
                   then coalesce((select left(n.why, 200) from unnest($4::uuid[], $5::text[]) n (id, why) where n.id = i.file_id),
                                 'the rule does not mean it any more') end
         where run_id = $1 and file_id = any ($2)",
        run_id,
        &batch,
        &free,
        &needed,
        &why,
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "update file_mgr.cleanup_runs
         set deleted_count = deleted_count + $2, deleted_bytes = deleted_bytes + $3, skipped_count = skipped_count + $4 where id = $1",
        run_id,
        free.len() as i64,
        bytes,
        (batch.len() - free.len()) as i64,
    )
    .execute(db)
    .await?;
    Ok(batch.len() as u64)
}

/// Ends a run as `done`, `cancelled` or `failed`; one that has ended stays as it is. Gives how it stands, none when its rule is gone.
pub async fn close(db: Db<'_>, tenant_id: Uuid, run_id: Uuid, state: &str) -> sqlx::Result<Option<CleanupRun>> {
    sqlx::query!(
        "update file_mgr.cleanup_runs set state = $2, finished_at = workflow.now() where id = $1 and finished_at is null",
        run_id,
        state
    )
    .execute(&mut *db)
    .await?;
    find(db, tenant_id, run_id).await
}

/// Notes who approved or rejected a run that waits for that; false when it does not.
pub async fn decide(db: Db<'_>, tenant_id: Uuid, run_id: Uuid, by: &str, approved: bool) -> sqlx::Result<bool> {
    let decided = sqlx::query!(
        "update file_mgr.cleanup_runs set decided_by = $3, state = case when $4 then 'running' else state end
         where tenant_id = $1 and id = $2 and state = 'awaiting_approval' and decided_by is null",
        tenant_id,
        run_id,
        by,
        approved,
    );
    Ok(decided.execute(db).await?.rows_affected() == 1)
}

/// A run of a tenant.
pub async fn find(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<CleanupRun>> {
    Ok(select(db, Some(tenant_id), Some(id), None, None, 1).await?.pop())
}

/// The runs of a rule, newest first, before the one `before`.
pub async fn of_rule(
    db: Db<'_>,
    tenant_id: Uuid,
    rule_id: Uuid,
    before: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<CleanupRun>> {
    select(db, Some(tenant_id), None, Some(rule_id), before, limit).await
}

/// Runs of all tenants, newest first: for operators.
pub async fn newest(db: Db<'_>, id: Option<Uuid>, limit: i64) -> sqlx::Result<Vec<CleanupRun>> {
    select(db, None, id, None, None, limit).await
}

async fn select(
    db: Db<'_>,
    tenant_id: Option<Uuid>,
    id: Option<Uuid>,
    rule_id: Option<Uuid>,
    before: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<CleanupRun>> {
    sqlx::query_as!(
        CleanupRun,
        "select * from file_mgr.cleanup_runs
         where ($1::uuid is null or tenant_id = $1) and ($2::uuid is null or id = $2) and ($3::uuid is null or schedule_id = $3)
           and ($4::uuid is null or id < $4)
         order by id desc limit $5",
        tenant_id,
        id,
        rule_id,
        before,
        limit
    )
    .fetch_all(db)
    .await
}

/// Files of a run's plan, in its order, after the place `after`.
pub async fn items(db: Db<'_>, tenant_id: Uuid, run_id: Uuid, after: i32, limit: i64) -> sqlx::Result<Vec<Item>> {
    sqlx::query_as!(
        Item,
        "select i.seq, i.file_id, f.name, i.size_bytes, i.state, i.why
         from file_mgr.cleanup_items i join file_mgr.files f on f.id = i.file_id
         where i.tenant_id = $1 and i.run_id = $2 and i.seq > $3 order by i.seq limit $4",
        tenant_id,
        run_id,
        after,
        limit
    )
    .fetch_all(db)
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_beyond_its_limit_or_a_fifth_of_all_bytes_waits() {
        assert_eq!(guard(10, 10, 20, 100), None);
        assert_eq!(guard(10, 11, 0, 100).as_deref(), Some("11 files are more than 10"));
        assert_eq!(guard(10, 1, 21, 100).as_deref(), Some("21 bytes are more than 20 % of the 100 that are kept"));
        assert_eq!(guard(10, 0, 0, 0), None, "nothing is no part of nothing");
        assert!(guard(10, 1, i64::MAX, i64::MAX).is_some());
    }
}
