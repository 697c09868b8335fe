//! Messages to a run: each is a record of the run, kept until the definition takes it, in the order of arrival.

use crate::{failure::Failure, workflow::Context};
use futures::future::{Either, select};
use serde::{Serialize, de::DeserializeOwned};
use std::{pin::pin, time::Duration};

/// Longest name of a signal, in bytes.
const NAME_LIMIT: usize = 60;
/// Longest deduplication key, in bytes.
const DEDUPE_LIMIT: usize = 120;

/// What became of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[must_use = "a signal to a run that is over reaches nobody"]
pub enum Delivery {
    /// The run has it, or will find it when it waits for it.
    Accepted,
    /// The run had a signal of this name with the same deduplication key before: nothing was added.
    Repeated,
    /// The run is over: nobody will hear of it.
    Closed,
    /// There is no such run.
    Unknown,
}

impl Delivery {
    pub(crate) fn parse(name: &str) -> Self {
        match name {
            "accepted" => Self::Accepted,
            "repeated" => Self::Repeated,
            "closed" => Self::Closed,
            _ => Self::Unknown,
        }
    }
}

/// Whether a signal can be called this.
pub(crate) fn check(name: &str, dedupe_key: Option<&str>) -> Result<(), Failure> {
    let fits = |text: &str, limit| (1..=limit).contains(&text.len()) && !text.contains('\0');
    if !fits(name, NAME_LIMIT) || !dedupe_key.is_none_or(|key| fits(key, DEDUPE_LIMIT) && !key.starts_with('#')) {
        return Err(Failure::permanent(
            "workflow.bad_key",
            format!(
                "a signal has a name of 1 to {NAME_LIMIT} bytes and a key of 1 to {DEDUPE_LIMIT}, without a leading #"
            ),
        ));
    }
    Ok(())
}

impl Context {
    /// Waits for the next signal called `name` that nobody has taken; one that came earlier is there at once. Several who wait
    /// for the same name get one each, in the order in which they asked. Long waits cost nothing.
    ///
    /// # Errors
    /// [`Failure::cancelled`] when the run is cancelled and no signal is there; `workflow.bad_signal` when the payload is not
    /// a `T`: such a signal is taken and gone.
    pub async fn signal<T: DeserializeOwned>(&self, key: &str, name: &str) -> Result<T, Failure> {
        self.core().ledger.take_key(key, crate::record::Kind::Signal, None)?;
        self.next_signal(name).await
    }

    /// As [`Context::signal`], but waits no longer than `timeout`, counted from [`Context::now`]: `None` when it is up.
    ///
    /// # Errors
    /// As [`Context::signal`].
    pub async fn signal_within<T: DeserializeOwned>(
        &self,
        key: &str,
        name: &str,
        timeout: Duration,
    ) -> Result<Option<T>, Failure> {
        // The signal first: one that is there already needs no timer.
        let (signal, timer) = (pin!(self.next_signal(name)), pin!(self.sleep(key, timeout)));
        match select(signal, timer).await {
            Either::Left((signal, _)) => signal.map(Some),
            Either::Right((slept, _)) => slept.map(|()| None),
        }
    }

    async fn next_signal<T: DeserializeOwned>(&self, name: &str) -> Result<T, Failure> {
        let payload = self.core().ledger.signal(name).await.ok_or_else(Failure::cancelled)?;
        serde_json::from_value(payload).map_err(|e| {
            Failure::permanent(
                "workflow.bad_signal",
                format!("a signal {name:?} is not what the definition expects: {e}"),
            )
        })
    }
}
