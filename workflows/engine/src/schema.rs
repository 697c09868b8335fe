//! The engine's own part of the database: the schema `workflow`.

use crate::failpoint::{At as _, Point};
use sqlx::{Connection, Executor, PgPool};

/// The migrations of the schema, oldest first: names, and SQL that is run once each.
pub const MIGRATIONS: &[(&str, &str)] = &[
    ("31_workflow_engine", include_str!("../../../migrations/31_workflow_engine.sql")),
    ("32_workflow_runs", include_str!("../../../migrations/32_workflow_runs.sql")),
    ("33_workflow_queue", include_str!("../../../migrations/33_workflow_queue.sql")),
    ("34_workflow_recovery", include_str!("../../../migrations/34_workflow_recovery.sql")),
    ("35_workflow_jobs", include_str!("../../../migrations/35_workflow_jobs.sql")),
    ("36_workflow_schedules", include_str!("../../../migrations/36_workflow_schedules.sql")),
    ("37_workflow_operations", include_str!("../../../migrations/37_workflow_operations.sql")),
    ("38_workflow_limits", include_str!("../../../migrations/38_workflow_limits.sql")),
    ("39_workflow_retention", include_str!("../../../migrations/39_workflow_retention.sql")),
    ("50_workflow_plans", include_str!("../../../migrations/50_workflow_plans.sql")),
];

/// Key of the advisory lock under which the schema is made.
const INSTALLING: i64 = 17_995;

/// Makes the schema where there is none yet, in one transaction; any number of processes may try at once. A program with
/// migrations of its own runs [`MIGRATIONS`] among them instead.
///
/// # Errors
/// The database cannot be reached, or the role may not create a schema.
pub async fn install(pool: &PgPool) -> sqlx::Result<()> {
    let mut db = pool.acquire().await?;
    let mut tx = db.begin().await?;
    sqlx::query("select pg_advisory_xact_lock($1)").bind(INSTALLING).execute(&mut *tx).await?;
    let there: bool = sqlx::query_scalar("select to_regnamespace('workflow') is not null").fetch_one(&mut *tx).await?;
    if !there {
        for (_, sql) in MIGRATIONS {
            tx.execute(*sql).await?;
        }
    }
    tx.commit().at(Point::SchemaCommit).await
}
