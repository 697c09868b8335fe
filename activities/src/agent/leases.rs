//! Keeping a lease: a renewal every third of its length, at least every two seconds, with the progress, and what
//! becomes of it.
//!
//! ```text
//! renewed ─▶ wait         ─▶ renew ─▶ renewed      cancelled ─▶ Cancelled
//!               ▲              │  └─▶ 409, 401, gone ─▶ Lost
//!               └─ soon again ─┴─▶ no answer; after the patience ─▶ Lost
//! ```
//! A server that is away for a while finds its task again under the same token, if it has not given it away.

use super::client::{ClientError, TaskClient};
use flatrender_engine::{AttemptKeeper, Standing};
use std::{convert::Infallible, time::Duration};
use tokio::time::Instant;

/// Renews the lease until it is lost or the run is cancelled, and tells the attempt; never resolves. A lease that an
/// earlier process held is renewed at once, to learn whose it is.
pub async fn keep(task: TaskClient, held: Held, patience: Duration, keeper: AttemptKeeper) -> Infallible {
    let mut lease = Lease { length: length(held.seconds), patience, renewed: Instant::now(), unanswered: false };
    let mut pause = if held.fresh { lease.pause() } else { Duration::ZERO };
    loop {
        tokio::time::sleep(pause).await;
        let progress = keeper.progress.borrow().clone();
        let answer = task.renew(progress, lease.length / 3).await;
        if let Some(standing) = lease.judge(answer) {
            keeper.standing.send_replace(standing);
            return std::future::pending().await;
        }
        pause = lease.pause();
    }
}

/// A lease as it was given.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// Its length.
    pub seconds: f64,
    /// Whether it was claimed just now.
    pub fresh: bool,
}

/// A cancelled run learns of it in an answer: its renderer has to stop within five seconds.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

struct Lease {
    length: Duration,
    patience: Duration,
    renewed: Instant,
    unanswered: bool,
}

impl Lease {
    fn pause(&self) -> Duration {
        let share = if self.unanswered { 8 } else { 3 };
        (self.length / share).min(LONGEST_PAUSE)
    }

    fn judge(
        &mut self,
        answer: Result<flatrender_workflows::contracts::node::Renewed, ClientError>,
    ) -> Option<Standing> {
        match answer {
            Ok(renewed) if renewed.cancelled => return Some(Standing::Cancelled),
            Ok(renewed) => {
                self.length = length(renewed.lease_seconds);
                self.renewed = Instant::now();
                self.unanswered = false;
            }
            Err(ClientError::LeaseLost | ClientError::Unauthorized | ClientError::NotFound) => {
                return Some(Standing::Lost);
            }
            Err(error) => {
                if !self.unanswered {
                    tracing::warn!(%error, "cannot renew a lease, going on without");
                }
                self.unanswered = true;
            }
        }
        (self.renewed.elapsed() > self.patience.max(self.length)).then_some(Standing::Lost)
    }
}

/// Whatever the server says, we neither hammer it nor sleep for ever.
fn length(seconds: f64) -> Duration {
    Duration::from_secs_f64(if seconds.is_finite() { seconds.clamp(0.1, 3600.0) } else { 15.0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flatrender_workflows::contracts::node::Renewed;

    fn lease() -> Lease {
        Lease {
            length: Duration::from_secs(15),
            patience: Duration::from_secs(3600),
            renewed: Instant::now(),
            unanswered: false,
        }
    }

    fn away() -> Result<Renewed, ClientError> {
        Err(ClientError::Unreachable("away".into()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_comes_back_in_time_has_its_attempt_back() {
        let mut lease = lease();
        for _ in 0..40 {
            tokio::time::advance(Duration::from_secs(15)).await;
            assert_eq!(lease.judge(away()), None, "ten minutes");
        }
        assert_eq!(lease.judge(Ok(Renewed { cancelled: false, lease_seconds: 15.0 })), None);
        tokio::time::advance(Duration::from_secs(3500)).await;
        assert_eq!(lease.judge(away()), None, "counted from the last answer");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_stays_away_ends_the_attempt() {
        let mut lease = lease();
        tokio::time::advance(Duration::from_secs(3601)).await;
        assert_eq!(lease.judge(away()), Some(Standing::Lost));
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_lease_is_renewed_as_often_as_a_cancellation_has_to_be_heard() {
        assert_eq!(lease().pause(), LONGEST_PAUSE);
        let short = Lease { length: Duration::from_secs(3), ..lease() };
        assert_eq!(short.pause(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_decides_at_once() {
        assert_eq!(lease().judge(Err(ClientError::LeaseLost)), Some(Standing::Lost));
        assert_eq!(lease().judge(Err(ClientError::Unauthorized)), Some(Standing::Lost));
        let cancelled = Renewed { cancelled: true, lease_seconds: 15.0 };
        assert_eq!(lease().judge(Ok(cancelled)), Some(Standing::Cancelled));
    }
}
