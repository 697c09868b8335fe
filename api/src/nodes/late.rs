//! Chunks that a node is late with: their runs are told, and have them rendered a second time by a node that has nothing to do.

use crate::{app::App, problem::Problem};
use flatrender_workflows::{
    contracts::render::Late,
    models::{Role, Scope},
};

/// However many servers see that a node is late with an activity, its run hears of it once.
const ONCE: &str = "once";

/// Tells runs of what the farm has found late. What cannot be told now is told with the next call.
///
/// # Errors
/// When the database cannot be reached.
pub async fn tell(app: &App) -> Result<(), Problem> {
    let late = app.placement.late();
    for task in &late {
        let mut tx = app.db.begin(Scope::tenant(Role::Workflow, task.tenant_id)).await?;
        let said = app.workflows.signal(&mut tx, task.run_id, &Late::signal(&task.key), Some(ONCE), &task.late).await?;
        tx.commit().await?;
        app.workflows.announce();
        app.placement.told(std::slice::from_ref(task));
        tracing::info!(run.id = %task.run_id, node = task.late.node, activity = task.key, ?said, "a node is late with frames");
        metrics::counter!("flatrender_late_tasks_total").increment(1);
    }
    Ok(())
}
