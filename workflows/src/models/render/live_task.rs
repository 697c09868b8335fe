//! What renders are doing at this moment. For showing only: nothing is decided by it.

use crate::models::Db;
use uuid::Uuid;

/// An activity that a render waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveTask {
    /// The run of its render.
    pub run_id: Uuid,
    /// Name of the activity.
    pub activity: String,
    /// Whether somebody works on it now.
    pub leased: bool,
    /// Frames that its input names one by one; none when it names none.
    pub frames: Option<i32>,
    /// Units the attempt has done, as it last reported; 0 before.
    pub done: i64,
    /// Units in all, as it last reported; 0 when unknown.
    pub total: i64,
}

/// The live activities of some runs, oldest first.
pub async fn of_runs(db: Db<'_>, run_ids: &[Uuid]) -> sqlx::Result<Vec<LiveTask>> {
    sqlx::query_as!(
        LiveTask,
        r#"select run_id, activity, state = 'leased' as "leased!",
                  case jsonb_typeof(input -> 'frames') when 'array' then jsonb_array_length(input -> 'frames') end as frames,
                  coalesce((progress ->> 'done')::bigint, 0) as "done!",
                  coalesce((progress ->> 'total')::bigint, 0) as "total!"
           from workflow.tasks where run_id = any($1) and kind = 'activity' order by id"#,
        run_ids,
    )
    .fetch_all(db)
    .await
}
