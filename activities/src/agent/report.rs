//! Telling the server how an attempt ended.

use super::{
    client::{ClientError, TaskClient},
    retry::Backoff,
};
use flatrender_engine::{Attempt, Failure};
use flatrender_workflows::contracts::render::INTERRUPTED;
use serde_json::Value;
use std::time::Duration;

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    /// The server knows.
    Known,
    /// Nobody wants to know: the task is somebody else's.
    Unwanted,
    /// The server could not be told. The attempt is kept for the next start.
    Untold,
}

/// Reports an outcome: tries until the server answers, the lease is lost or `patience` is over.
pub async fn report(
    task: &TaskClient,
    attempt: &Attempt,
    mut outcome: Result<Value, Failure>,
    retry: (Duration, Duration),
    patience: Duration,
) -> Reported {
    let mut backoff = Backoff::new(retry);
    let tried = tokio::time::timeout(patience, async {
        loop {
            match tell(task, &outcome).await {
                Ok(()) => return Reported::Known,
                Err(ClientError::Unreachable(error)) => tracing::warn!(%error, "cannot report yet"),
                Err(ClientError::LeaseLost) => return Reported::Unwanted,
                Err(error) => {
                    tracing::error!(task.id = attempt.task().task_id, %error, "the server refuses the report");
                    if outcome.is_err() {
                        return Reported::Unwanted;
                    }
                    // Told of a failure it need not wait for the lease to run out.
                    outcome = Err(Failure::transient("render.report_refused", error.to_string()));
                    continue;
                }
            }
            if attempt.check().is_err_and(|f| f.is_lease_lost()) {
                return Reported::Unwanted;
            }
            backoff.pause().await;
        }
    });
    tried.await.unwrap_or(Reported::Untold)
}

async fn tell(task: &TaskClient, outcome: &Result<Value, Failure>) -> Result<(), ClientError> {
    match outcome {
        Ok(output) => task.complete(output.clone()).await,
        Err(failure) if failure.is_lease_lost() => Err(ClientError::LeaseLost),
        Err(failure) if failure.is_cancelled() || failure.code == INTERRUPTED => task.release().await,
        Err(failure) => task.fail(failure.clone()).await,
    }
}
