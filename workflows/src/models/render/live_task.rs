//! What renders are doing at this moment. For showing only: nothing is decided by it.

use crate::models::Db;
use flatrender_engine::Labels;
use sqlx::types::{
    Json,
    chrono::{DateTime, Utc},
};
use uuid::Uuid;

/// What the ready tasks of an activity ask of a worker, each set of labels once.
pub async fn labels_asked(db: Db<'_>, queue: &str, activity: &str) -> sqlx::Result<Vec<Labels>> {
    let asked = sqlx::query_scalar!(
        r#"select distinct required_labels as "it!: Json<Labels>" from workflow.tasks
           where queue = $1 and activity = $2 and state = 'ready' and run_at <= workflow.now() limit 100"#,
        queue,
        activity,
    );
    Ok(asked.fetch_all(db).await?.into_iter().map(|labels| labels.0).collect())
}

/// The task of a run that was leased under this token, now or before.
pub async fn of_lease(db: Db<'_>, run_id: Uuid, lease_token: Uuid) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar!(
        r#"select id as "id!" from workflow.tasks where run_id = $1 and lease_token = $2
           union all select task_id from workflow.attempts where run_id = $1 and lease_token = $2
           limit 1"#,
        run_id,
        lease_token,
    )
    .fetch_optional(db)
    .await
}

/// Holds a lease until the transaction ends: meanwhile nobody else is given the task. False when it is not the newest of its task, or
/// has run out.
pub async fn hold_lease(db: Db<'_>, task_id: i64, lease_token: Uuid) -> sqlx::Result<bool> {
    let held = sqlx::query_scalar!(
        "select id from workflow.tasks where id = $1 and lease_token = $2 and lease_expires_at > workflow.now() for share",
        task_id,
        lease_token,
    );
    Ok(held.fetch_optional(db).await?.is_some())
}

/// An activity that a render waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveTask {
    /// The run of its render.
    pub run_id: Uuid,
    /// Name of the activity.
    pub activity: String,
    /// Whether somebody works on it now.
    pub leased: bool,
    /// Since when.
    pub leased_at: Option<DateTime<Utc>>,
    /// Frames that its input names one by one; none when it names none.
    pub frames: Option<i32>,
    /// The first frame of its range, when it is asked for one.
    pub first_frame: Option<i32>,
    /// How many frames are in the range.
    pub asked: Option<i32>,
    /// Milliseconds that half of the frames of its template took, where that is known.
    pub p50_ms: Option<i64>,
    /// Milliseconds that all but one in a hundred took.
    pub p99_ms: Option<i64>,
    /// Units the attempt has done, as it last reported; 0 before.
    pub done: i64,
    /// Units in all, as it last reported; 0 when unknown.
    pub total: i64,
}

/// The live activities of some runs, oldest first.
pub async fn of_runs(db: Db<'_>, run_ids: &[Uuid]) -> sqlx::Result<Vec<LiveTask>> {
    sqlx::query_as!(
        LiveTask,
        r#"select run_id, activity, state = 'leased' as "leased!", leased_at,
                  case jsonb_typeof(input -> 'frames') when 'array' then jsonb_array_length(input -> 'frames') end as frames,
                  (input #>> '{frames,first}')::int as first_frame,
                  (input #>> '{frames,last}')::int - (input #>> '{frames,first}')::int + 1 as asked,
                  (input #>> '{pace,p50_ms}')::bigint as p50_ms, (input #>> '{pace,p99_ms}')::bigint as p99_ms,
                  coalesce((progress ->> 'done')::bigint, 0) as "done!",
                  coalesce((progress ->> 'total')::bigint, 0) as "total!"
           from workflow.tasks where run_id = any($1) and kind = 'activity' order by id"#,
        run_ids,
    )
    .fetch_all(db)
    .await
}
