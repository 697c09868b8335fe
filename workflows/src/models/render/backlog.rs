//! What render nodes could do and what they are doing: as much of the queue as choosing needs, and no inputs.

use crate::models::Db;
use flatrender_engine::Labels;
use sqlx::types::Json;
use uuid::Uuid;

/// A task of the nodes' queues: where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The task.
    pub id: i64,
    /// Since when it is ready, in Unix seconds.
    pub ready_at: f64,
    /// Who works on it, as the engine names remote workers; none: it is ready.
    pub leased_by: Option<String>,
    /// Since when, in Unix seconds.
    pub leased_at: Option<f64>,
}

/// The queues at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Backlog {
    /// The clock of the database, in Unix seconds.
    pub now: f64,
    /// What is ready and what is leased.
    pub tasks: Vec<Standing>,
}

/// Reads where the tasks of `queues` stand: all that are leased, and of each queue that is not paused the first `limit` that are
/// ready; where there are more, those that come first for each tenant: nobody is hidden behind the many tasks of another.
pub async fn read(db: Db<'_>, queues: &[String], limit: i64) -> sqlx::Result<Backlog> {
    let now = sqlx::query_scalar!(r#"select extract(epoch from workflow.now())::float8 as "now!""#);
    let now = now.fetch_one(&mut *db).await?;
    let tasks = first(&mut *db, queues, limit).await?;
    let ready = tasks.iter().filter(|task| task.leased_by.is_none()).count();
    let is_cut = ready as i64 >= limit;
    // Not as cheap: every ready task is looked at, instead of the first ones in the order of the index.
    let tasks = if is_cut { first_of_each(db, queues, limit).await? } else { tasks };
    Ok(Backlog { now, tasks })
}

async fn first(db: Db<'_>, queues: &[String], limit: i64) -> sqlx::Result<Vec<Standing>> {
    sqlx::query_as!(
        Standing,
        r#"select t.id as "id!", extract(epoch from t.run_at)::float8 as "ready_at!", t.leased_by::text as leased_by,
                  extract(epoch from t.leased_at)::float8 as leased_at
           from unnest($1::text[]) q (queue)
           cross join lateral (
               (select r.id, r.run_at, r.leased_by, r.leased_at from workflow.tasks r
                where r.queue = q.queue and r.state = 'ready' and not r.lined
                  and not exists (select from workflow.queue_controls c where c.queue = q.queue)
                order by r.priority desc, r.run_at, r.id limit $2)
               union all
               (select l.id, l.run_at, l.leased_by, l.leased_at from workflow.tasks l
                where l.lease_expires_at is not null and l.queue = q.queue)) t"#,
        queues,
        limit,
    )
    .fetch_all(db)
    .await
}

async fn first_of_each(db: Db<'_>, queues: &[String], limit: i64) -> sqlx::Result<Vec<Standing>> {
    sqlx::query_as!(
        Standing,
        r#"select t.id as "id!", extract(epoch from t.run_at)::float8 as "ready_at!", t.leased_by::text as leased_by,
                  extract(epoch from t.leased_at)::float8 as leased_at
           from unnest($1::text[]) q (queue)
           cross join lateral (
               (select r.id, r.run_at, r.leased_by, r.leased_at
                from (select id, run_at, leased_by, leased_at,
                             row_number() over (partition by tenant_id order by priority desc, run_at, id) as turn
                      from workflow.tasks
                      where queue = q.queue and state = 'ready' and not lined
                        and not exists (select from workflow.queue_controls c where c.queue = q.queue)) r
                order by r.turn, r.id limit $2)
               union all
               (select l.id, l.run_at, l.leased_by, l.leased_at from workflow.tasks l
                where l.lease_expires_at is not null and l.queue = q.queue)) t"#,
        queues,
        limit,
    )
    .fetch_all(db)
    .await
}

/// The tasks of a run in `queues` that are ready, none while one of them is worked on.
pub async fn waiting_of(db: Db<'_>, run_id: Uuid, queues: &[String]) -> sqlx::Result<Vec<i64>> {
    sqlx::query_scalar!(
        r#"select t.id from workflow.tasks t
           where t.run_id = $1 and t.kind = 'activity' and t.queue = any ($2) and t.state = 'ready'
             and not exists (select from workflow.tasks l where l.run_id = $1 and l.queue = any ($2) and l.state = 'leased')
           order by t.id limit 100"#,
        run_id,
        queues as &[String],
    )
    .fetch_all(db)
    .await
}

/// What choosing needs to know of a task, once. What its input does not say is none.
#[derive(Debug, Clone, PartialEq)]
pub struct Detail {
    /// The task.
    pub id: i64,
    /// For whom it is done.
    pub tenant_id: Uuid,
    /// The run that asks for it.
    pub run_id: Uuid,
    /// Its key in the run.
    pub step_key: String,
    /// Name of the activity.
    pub activity: String,
    /// What a node must have.
    pub labels: Json<Labels>,
    /// The higher the earlier.
    pub priority: i16,
    /// Hash of the package.
    pub package: Option<String>,
    /// Its length.
    pub package_bytes: Option<i64>,
    /// How many frames.
    pub frames: Option<i64>,
    /// Milliseconds that half of the frames of this template took.
    pub p50_ms: Option<i64>,
    /// What kind of work it is, where the activity has several: `preview`, `final`, `repair` or `spare`.
    pub class: Option<String>,
    /// Names of nodes that are asked last: its input names them, or they had it and lost it or failed.
    pub avoid: Vec<String>,
}

/// Reads the details of tasks; those that are gone are missing.
pub async fn details(db: Db<'_>, ids: &[i64]) -> sqlx::Result<Vec<Detail>> {
    sqlx::query_as!(
        Detail,
        r#"select t.id, t.tenant_id, t.run_id, t.step_key::text as "step_key!", t.activity::text as "activity!", t.required_labels as "labels!: Json<Labels>", t.priority,
                  t.input #>> '{package,sha256}' as package, n.bytes as package_bytes, n.last - n.first + 1 as frames, n.p50_ms,
                  t.input ->> 'class' as class,
                  case jsonb_typeof(t.input -> 'avoid') when 'array'
                       then array (select jsonb_array_elements_text(t.input -> 'avoid')) else '{}' end
                  || array (select distinct substring(a.worker from '^node:(.*):[^:]*$') from workflow.attempts a
                            where a.run_id = t.run_id and a.step_key = t.step_key and a.task_id = t.id
                              and a.outcome not in ('ok', 'cancelled', 'released') and a.worker like 'node:%:%') as "avoid!"
           from workflow.tasks t
           cross join lateral (
               select max(v) filter (where k = 'bytes') as bytes, max(v) filter (where k = 'first') as first,
                      max(v) filter (where k = 'last') as last, max(v) filter (where k = 'p50') as p50_ms
               from (select k, case when jsonb_typeof(t.input #> p::text[]) = 'number'
                                    then least((t.input #>> p::text[])::numeric, 1e15)::bigint end
                     from (values ('bytes', '{package,size_bytes}'), ('first', '{frames,first}'),
                                  ('last', '{frames,last}'), ('p50', '{pace,p50_ms}')) w (k, p)) g (k, v)) n
           where t.id = any ($1) and t.kind = 'activity'"#,
        ids,
    )
    .fetch_all(db)
    .await
}
