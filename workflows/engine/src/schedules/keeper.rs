//! The part of a worker that looks at the schedules.

use super::Schedules;
use std::{sync::Arc, time::Duration};
use tokio::sync::Notify;
use tokio_cron_scheduler::{Job, JobScheduler};
use tokio_util::sync::CancellationToken;

/// A look that takes longer has lost its connection.
const LIMIT: Duration = Duration::from_secs(60);
/// Should the trigger fail, a process still looks this often.
const FALLBACK: Duration = Duration::from_secs(5);

/// Fires what is due for as long as the process works.
pub(crate) async fn keep(schedules: Schedules, stop: CancellationToken) {
    let bell = Arc::new(Notify::new());
    let mut trigger = trigger(bell.clone()).await.inspect_err(|error| {
        tracing::error!(%error, "the trigger of the schedules does not start; they are looked at every few seconds");
    });
    while !stop.is_cancelled() {
        let _ = stop.run_until_cancelled(tokio::time::timeout(FALLBACK, bell.notified())).await;
        match stop.run_until_cancelled(tokio::time::timeout(LIMIT, schedules.fire_due())).await {
            Some(Ok(Err(error))) => tracing::warn!(%error, "cannot look at the schedules"),
            Some(Err(_)) => tracing::warn!("cannot look at the schedules: no answer"),
            Some(Ok(Ok(_))) | None => {}
        }
    }
    if let Ok(trigger) = &mut trigger {
        let _ = trigger.shutdown().await;
    }
}

/// Rings once a second.
async fn trigger(bell: Arc<Notify>) -> Result<JobScheduler, tokio_cron_scheduler::JobSchedulerError> {
    let scheduler = JobScheduler::new().await?;
    let ring = move |_, _| {
        bell.notify_one();
    };
    scheduler.add(Job::new("* * * * * *", ring)?).await?;
    scheduler.start().await?;
    Ok(scheduler)
}
