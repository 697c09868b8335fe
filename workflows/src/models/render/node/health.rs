//! How nodes fare: written for many at a time, and who was not heard of.

use crate::models::{
    Db,
    time_series::{self, Series},
};
use chrono::{DateTime, Utc};
use std::time::Duration;
use uuid::Uuid;

/// How a node fared at one moment.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The node.
    pub node_id: Uuid,
    /// Its enrolment.
    pub epoch: i64,
    /// Of all its processors together.
    pub cpu_percent: Option<f32>,
    /// MiB in use.
    pub ram_mb: Option<i64>,
    /// MiB that are free where it works.
    pub disk_free_mb: Option<i64>,
    /// Whether that is too little for more work.
    pub is_full: bool,
    /// Tasks it had.
    pub running_tasks: i32,
    /// Milliseconds a call took.
    pub rtt_ms: Option<i32>,
}

/// A sample that was written.
#[derive(Debug, Clone)]
pub struct Written {
    /// When it was written.
    pub recorded_at: DateTime<Utc>,
    /// Of all its processors together.
    pub cpu_percent: Option<f32>,
    /// MiB in use.
    pub ram_mb: Option<i64>,
    /// MiB that were free where it works.
    pub disk_free_mb: Option<i64>,
    /// Tasks it had.
    pub running_tasks: i32,
    /// Milliseconds a call took.
    pub rtt_ms: Option<i32>,
}

/// Writes one sample a node, in one statement: whoever sends one is heard of, and not offline.
pub async fn write(db: Db<'_>, samples: &[Sample]) -> sqlx::Result<()> {
    let at = time_series::now(&mut *db, Series::NodeHealthLogs).await?;
    sqlx::query!(
        r#"with given as (
               select * from unnest($2::uuid[], $3::bigint[], $4::real[], $5::bigint[], $6::bigint[], $7::int[], $8::int[], $9::bool[])
                   g (node_id, epoch, cpu, ram, disk, tasks, rtt, is_full)
           ), seen as (
               update render.nodes n
               set last_seen_at = $1, disk_free_mb = coalesce(g.disk, n.disk_free_mb), is_full = g.is_full,
                   status = case n.status when 'offline' then 'online' else n.status end
               from given g where n.id = g.node_id and n.epoch = g.epoch
           )
           insert into render.node_health_logs
               (recorded_at, id, node_id, epoch, cpu_percent, ram_mb, disk_free_mb, running_tasks, agent_rtt_ms)
           select $1, gen_random_uuid(), node_id, epoch, cpu, ram, disk, tasks, rtt from given"#,
        at,
        &samples.iter().map(|s| s.node_id).collect::<Vec<_>>(),
        &samples.iter().map(|s| s.epoch).collect::<Vec<_>>(),
        &samples.iter().map(|s| s.cpu_percent).collect::<Vec<_>>() as _,
        &samples.iter().map(|s| s.ram_mb).collect::<Vec<_>>() as _,
        &samples.iter().map(|s| s.disk_free_mb).collect::<Vec<_>>() as _,
        &samples.iter().map(|s| s.running_tasks).collect::<Vec<_>>(),
        &samples.iter().map(|s| s.rtt_ms).collect::<Vec<_>>() as _,
        &samples.iter().map(|s| s.is_full).collect::<Vec<_>>(),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Notes who was not heard of for so long. How many became offline.
pub async fn note_offline(db: Db<'_>, after: Duration) -> sqlx::Result<u64> {
    let silent = sqlx::query!(
        r#"update render.nodes set status = 'offline', updated_at = workflow.now()
           where status in ('online', 'registering') and last_seen_at < workflow.now() - make_interval(secs => $1)"#,
        after.as_secs_f64(),
    );
    Ok(silent.execute(db).await?.rows_affected())
}

/// Samples of a node, newest first, those before `before`.
pub async fn list(db: Db<'_>, node_id: Uuid, before: Option<DateTime<Utc>>, limit: i64) -> sqlx::Result<Vec<Written>> {
    sqlx::query_as!(
        Written,
        r#"select recorded_at, cpu_percent, ram_mb, disk_free_mb, running_tasks, agent_rtt_ms as rtt_ms
           from render.node_health_logs
           where node_id = $1 and ($2::timestamptz is null or recorded_at < $2)
           order by recorded_at desc limit $3"#,
        node_id,
        before,
        limit,
    )
    .fetch_all(db)
    .await
}
