//! Telling the server how an attempt ended.

use super::{
    client::{ClientError, TaskClient},
    retry::Backoff,
};
use flatrender_engine::{Attempt, Failure};
use flatrender_workflows::contracts::{evidence::SPOILING, render::INTERRUPTED};
use serde_json::Value;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a report is still offered while the node goes away.
const LAST_REPORT: Duration = Duration::from_secs(8);

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

/// Reports an outcome: tries until the server answers, the lease is lost or `patience` is over, and for seconds only once `drain` is
/// cancelled, whether that comes before or meanwhile. Of spoiled frames it tells without a lease, too.
pub async fn report(
    task: &TaskClient,
    attempt: &Attempt,
    mut outcome: Result<Value, Failure>,
    retry: (Duration, Duration),
    patience: Duration,
    drain: &CancellationToken,
) -> Reported {
    let mut backoff = Backoff::new(retry);
    let tried = async {
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
            // That frames are spoiled is wanted by whoever goes on with them, too.
            if attempt.check().is_err_and(|f| f.is_lease_lost()) && !spoils(&outcome) {
                return Reported::Unwanted;
            }
            backoff.pause().await;
        }
    };
    let going = async {
        drain.cancelled().await;
        tokio::time::sleep(LAST_REPORT).await;
    };
    tokio::select! {
        biased;
        reported = tried => reported,
        () = going => Reported::Untold,
        () = tokio::time::sleep(patience) => Reported::Untold,
    }
}

/// Whether what was stored on the way to an outcome counts no more.
fn spoils(outcome: &Result<Value, Failure>) -> bool {
    outcome.as_ref().is_err_and(|failure| SPOILING.contains(&failure.code.as_str()))
}

async fn tell(task: &TaskClient, outcome: &Result<Value, Failure>) -> Result<(), ClientError> {
    match outcome {
        Ok(output) => task.complete(output.clone()).await,
        Err(failure) if failure.is_lease_lost() => Err(ClientError::LeaseLost),
        Err(failure) if failure.is_cancelled() || failure.code == INTERRUPTED => task.release().await,
        Err(failure) => task.fail(failure.clone()).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::client::Client;
    use flatrender_engine::LeasedTask;
    use uuid::Uuid;

    #[tokio::test(start_paused = true)]
    async fn a_node_that_goes_away_in_the_middle_of_a_report_does_not_wait_for_a_server_that_is_away() {
        let (attempt, _keeper) = Attempt::new(LeasedTask {
            task_id: 1,
            run_id: Uuid::nil(),
            tenant_id: Uuid::nil(),
            key: "render".into(),
            activity: "RenderFrames".into(),
            input: Value::Null,
            attempt_no: 1,
            lease_token: Uuid::nil(),
            lease_seconds: 15.0,
            start_to_close_seconds: 60.0,
            traceparent: None,
        });
        let client = Client::new("http://127.0.0.1:9").unwrap().task(&attempt);
        let (hour, drain) = (Duration::from_secs(3600), CancellationToken::new());
        let retry = (Duration::from_millis(100), Duration::from_secs(1));
        let begun = tokio::time::Instant::now();
        let going = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            drain.cancel();
        };
        let (reported, ()) = tokio::join!(report(&client, &attempt, Ok(Value::Null), retry, hour, &drain), going);
        assert_eq!(reported, Reported::Untold);
        assert!(begun.elapsed() < Duration::from_secs(90), "{:?}", begun.elapsed());
    }
}
