//! The face towards a definition: what a workflow is, and the context through which it acts.
//!
//! A definition awaits nothing but its [`Context`]: everything else would not be repeated the same way.

use crate::{
    activity::Activity,
    executor,
    failure::Failure,
    record::{Kind, Ledger, Request},
    store::Fence,
};
use chrono::{DateTime, Utc};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// What happens, in which order. `run` may be called many times for one run: it must do the same each time.
pub trait Workflow: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Stored name, `[a-z][a-z0-9_.]*`; lives for ever.
    const NAME: &'static str;
    /// Raise it when runs under way must stay on the old code; only workers that know a version continue it.
    const VERSION: i32 = 1;
    /// What a successful run leaves behind.
    type Output: Serialize + DeserializeOwned + Send + 'static;

    /// The definition itself.
    fn run(self, cx: &Context) -> impl Future<Output = Result<Self::Output, Failure>> + Send;

    /// Higher goes first, for the run and for its activities.
    fn priority(&self) -> i16 {
        0
    }
}

/// The hands of a run: every effect goes through it and is recorded under a key.
///
/// A key is used once per run; a second use ends the call with `workflow.key_reused`. A record that does not fit
/// what the definition asks for ends the run with `workflow.nondeterministic`, and nothing is misapplied.
#[derive(Debug, Clone)]
pub struct Context {
    core: Arc<Core>,
}

/// What the executor and the context of a run share.
#[derive(Debug)]
pub(crate) struct Core {
    pub run_id: Uuid,
    pub tenant_id: Uuid,
    pub fence: Fence,
    pub pool: PgPool,
    pub ledger: Arc<Ledger>,
}

impl Context {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// The run.
    pub fn run_id(&self) -> Uuid {
        self.core.run_id
    }

    /// The tenant of the run.
    pub fn tenant_id(&self) -> Uuid {
        self.core.tenant_id
    }

    /// The time of the newest record this run has taken in: the same on every replay.
    pub fn now(&self) -> DateTime<Utc> {
        self.core.ledger.now()
    }

    /// Whether somebody asked the run to stop. Activities asked for from then on are recorded as cancelled;
    /// steps still work, to put things in order.
    pub fn cancelled(&self) -> bool {
        self.core.ledger.cancelled()
    }

    /// Chance that is the same on every replay: a number for this run and `key`.
    pub fn random(&self, key: &str) -> u64 {
        let seed = self.core.run_id.as_u128();
        let folded = [seed as u64, (seed >> 64) as u64];
        // FNV-1a over the key, then the finaliser of SplitMix64: fixed for ever, unlike a library's generator.
        let mut hash =
            folded.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, part| (h ^ part).wrapping_mul(0x0100_0000_01b3));
        for byte in key.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^ (hash >> 31)
    }

    /// Writes PostgreSQL exactly once: `body` and its record are one transaction.
    ///
    /// On `Err` the transaction is rolled back; a retryable failure is tried again in place (10 times, 50 ms to
    /// 5 s, longer while the database is away), any other is recorded and returned on every replay.
    ///
    /// # Errors
    /// The recorded failure of `body`.
    pub async fn step<T, F>(&self, key: &str, body: F) -> Result<T, Failure>
    where
        T: Serialize + DeserializeOwned,
        F: Clone + AsyncFnOnce(&mut PgConnection) -> Result<T, Failure>,
    {
        let ledger = &self.core.ledger;
        ledger.take_key(key)?;
        if !ledger.knows(key) {
            executor::step(&self.core, key, body).await;
        }
        decode(ledger.recorded(key, Kind::Step, None).await?)
    }

    /// Asks for work outside the database and waits for its end. Done at least once; recorded once.
    ///
    /// # Errors
    /// The failure of the last attempt, or [`Failure::cancelled`].
    pub async fn activity<A: Activity>(&self, key: &str, input: A) -> Result<A::Output, Failure> {
        let ledger = &self.core.ledger;
        ledger.take_key(key)?;
        if !ledger.knows(key) {
            ledger.ask(Request::new(key, &input)?);
        }
        decode(ledger.recorded(key, Kind::Activity, Some(A::NAME)).await?)
    }

    /// Waits for `duration`, counted from [`Context::now`]. Survives everything; a long sleep costs nothing.
    ///
    /// # Errors
    /// [`Failure::cancelled`] when the run is cancelled before.
    pub async fn sleep(&self, key: &str, duration: Duration) -> Result<(), Failure> {
        let until = chrono::Duration::from_std(duration).ok().and_then(|d| self.now().checked_add_signed(d));
        self.sleep_until(key, until.unwrap_or(DateTime::<Utc>::MAX_UTC)).await
    }

    /// Waits until `due` by the clock of the database.
    ///
    /// # Errors
    /// [`Failure::cancelled`] when the run is cancelled before.
    pub async fn sleep_until(&self, key: &str, due: DateTime<Utc>) -> Result<(), Failure> {
        let ledger = &self.core.ledger;
        ledger.take_key(key)?;
        if !ledger.knows(key) {
            ledger.set_timer(key, due);
        }
        ledger.recorded(key, Kind::Timer, None).await.map(|_| ())
    }
}

fn decode<T: DeserializeOwned>(value: Value) -> Result<T, Failure> {
    serde_json::from_value(value).map_err(|e| {
        Failure::permanent(
            "workflow.undecodable",
            format!("the recorded output is not what the definition expects: {e}"),
        )
    })
}
