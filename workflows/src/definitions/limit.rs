//! How long work on a picture may take. What takes longer ends, so that nothing waits for ever for a node that never comes.

use crate::models::render::spec::FilmKind;
use flatrender_engine::{Context, Failure};
use futures::future::{Either, select};
use std::{pin::pin, time::Duration};

/// The code of a failure for good: it took longer than it may. It can be asked for anew.
pub const TOOK_TOO_LONG: &str = "render.took_too_long";

/// How long each may take, from when a worker takes it up. It is part of what a run begins with, so that a run keeps the limit that was set
/// when it was ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A film.
    pub film: Duration,
    /// A preview.
    pub preview: Duration,
    /// A still: a scene has one request at a time.
    pub still: Duration,
}

impl Default for Limits {
    /// Those where nothing else is set, and those of runs that were begun before anything could be.
    fn default() -> Self {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        Self { film: hours(12), preview: hours(1), still: hours(2) }
    }
}

impl Limits {
    /// That of a film of this kind.
    pub fn of(self, kind: FilmKind) -> Duration {
        match kind {
            FilmKind::Preview => self.preview,
            FilmKind::Final => self.film,
        }
    }
}

/// What `work` gives, unless it takes longer than so, counted from here: then it is dropped, and what it waits for is taken back. The limit
/// has a key of its own in the run's history. Time counts whatever passes in it, also in a paused queue or without a node that could do it.
/// Nothing in `work` may be of a kind that must not be left unfinished. Runs that were begun before there was a limit have none.
pub(super) async fn within<T>(
    cx: &Context,
    key: &str,
    limit: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    if !cx.patched("a limit of time").await {
        return work.await;
    }
    let (work, up) = (pin!(work), pin!(cx.sleep(key, limit)));
    match select(work, up).await {
        Either::Left((done, _)) => done,
        Either::Right((Ok(()), _)) => {
            let hours = limit.as_secs() / 3600;
            Err(Failure::permanent(TOOK_TOO_LONG, format!("it was not done within {hours} h")))
        }
        // Cancelled, and so is what is waited for.
        Either::Right((Err(_), work)) => work.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flatrender_engine::{Workflow, client::RunState, testing::Rehearsal};
    use serde::{Deserialize, Serialize};

    /// Takes its time.
    #[derive(Serialize, Deserialize)]
    struct Slow {
        hours: u64,
    }

    impl Workflow for Slow {
        const NAME: &'static str = "slow";
        type Output = ();

        async fn run(self, cx: &Context) -> Result<(), Failure> {
            let hours = |hours: u64| Duration::from_secs(hours * 3600);
            within(cx, "limit", hours(2), cx.sleep("work", hours(self.hours))).await
        }
    }

    #[test]
    fn what_takes_longer_than_it_may_ends() {
        let stage = Rehearsal::new().workflow::<Slow>();
        assert_eq!(stage.run(Slow { hours: 1 }).unwrap().state, RunState::Succeeded);
        assert_eq!(stage.run(Slow { hours: 3 }).unwrap().error.unwrap().code, TOOK_TOO_LONG);
        let played = stage.survives_a_crash_after_every_event(Slow { hours: 3 }).unwrap();
        assert_eq!(played.error.unwrap().code, TOOK_TOO_LONG);
    }
}
