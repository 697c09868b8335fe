//! The face towards a definition: what a workflow is, and the context through which it acts.
//!
//! A definition awaits nothing but its [`Context`]: everything else would not be repeated the same way.

use crate::{
    activity::Activity,
    client::Client,
    executor,
    failure::Failure,
    ledger::Ledger,
    payload::Payloads,
    record::{Ask, Broken, Kind, Request, Successor},
    store::Fence,
    testing::Deeds,
    trace::TraceContext,
};
use chrono::{DateTime, Utc};
use serde::{Serialize, de::DeserializeOwned};
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

/// Code of the failure that is none: the run goes on as another.
pub(crate) const CONTINUED: &str = "workflow.continued";

/// The hands of a run: every effect goes through it and is recorded under a key.
///
/// A key is used once per run; a second use ends the call with `workflow.key_reused`. A run whose record does not fit what
/// the definition asks for is parked as `version_mismatch`: nothing is misapplied, and it goes on with code that fits.
///
/// Futures of a context may be joined, raced and dropped: what happens follows from the order of the record, which is the same
/// on every replay. (`futures::select!` polls in a random order; use `select_biased!` or `future::select`.) Whoever drops the
/// future of an activity or a child before its end takes it back: work that nobody has begun does not begin, and a
/// running attempt or child is asked to stop.
#[derive(Debug, Clone)]
pub struct Context {
    core: Arc<Core>,
}

/// What the executor and the context of a run share.
#[derive(Debug)]
pub(crate) struct Core {
    pub run_id: Uuid,
    pub tenant_id: Uuid,
    /// [`Workflow::NAME`] of the run.
    pub kind: String,
    pub fence: Fence,
    pub hands: Hands,
    pub payloads: Payloads,
    pub ledger: Arc<Ledger>,
    /// For the bodies of steps.
    pub client: Option<Client>,
    /// The span of this stay in memory.
    pub trace: Option<TraceContext>,
}

/// Who does what a definition does in place.
#[derive(Debug)]
pub(crate) enum Hands {
    /// Steps are transactions.
    Database(PgPool),
    /// A rehearsal in memory.
    Rehearsal(Arc<Deeds>),
    /// A history is replayed: nothing is done.
    Nobody,
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

    /// The span of this stay of the run in memory, in the trace it was started in: for logs alone, a replay gives another.
    pub fn trace_context(&self) -> Option<TraceContext> {
        self.core.trace
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
    /// 5 s, longer while the database is away), any other is recorded and returned on every replay. A body that takes longer
    /// than 10 minutes counts as cut off, and so does one that asks the database nothing for 30 s.
    ///
    /// # Errors
    /// The recorded failure of `body`.
    pub async fn step<T, F>(&self, key: &str, body: F) -> Result<T, Failure>
    where
        T: Serialize + DeserializeOwned,
        F: Clone + AsyncFnOnce(&mut PgConnection) -> Result<T, Failure>,
    {
        self.core.ledger.take_key(key, Kind::Step, None)?;
        self.reserved_step(key, body).await
    }

    pub(crate) async fn reserved_step<T, F>(&self, key: &str, body: F) -> Result<T, Failure>
    where
        T: Serialize + DeserializeOwned,
        F: Clone + AsyncFnOnce(&mut PgConnection) -> Result<T, Failure>,
    {
        if !self.core.ledger.knows(key) {
            executor::step(&self.core, key, body).await;
        }
        self.outcome(key).await
    }

    /// Starts, signals and cancels runs in the transaction of a step: ask for it in the step's body. Whom it concerns is told after the
    /// step's commit.
    ///
    /// # Errors
    /// `workflow.no_database` where there is none, as in a rehearsal: bodies of steps are not called there.
    pub fn client(&self) -> Result<Client, Failure> {
        let none = || Failure::permanent("workflow.no_database", "there is no database to start runs in");
        self.core.client.clone().ok_or_else(none)
    }

    /// Does something in place and records what came of it, together with what other runs record at the moment: the
    /// cheapest kind of step. `body` has no transaction, so it may be repeated by a crash before its outcome is recorded.
    ///
    /// A retryable failure is tried again in place as in [`Context::step`].
    ///
    /// # Errors
    /// The recorded failure of `body`.
    pub async fn memo<T, F, R>(&self, key: &str, body: F) -> Result<T, Failure>
    where
        T: Serialize + DeserializeOwned,
        F: Fn() -> R,
        R: Future<Output = Result<T, Failure>>,
    {
        let ledger = &self.core.ledger;
        ledger.take_key(key, Kind::Step, None)?;
        if !ledger.knows(key) {
            executor::memo(&self.core, key, body).await;
        }
        self.outcome(key).await
    }

    /// Asks for work outside the database and waits for its end. Done at least once; recorded once.
    ///
    /// # Errors
    /// The failure of the last attempt, or [`Failure::cancelled`].
    pub async fn activity<A: Activity>(&self, key: &str, input: A) -> Result<A::Output, Failure> {
        let ledger = &self.core.ledger;
        ledger.take_key(key, Kind::Activity, Some(A::NAME))?;
        if !ledger.knows(key) {
            ledger.ask(Ask::Activity(Request::new(key, &input, &self.core.payloads)?));
        }
        self.outcome(key).await
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
        ledger.take_key(key, Kind::Timer, None)?;
        ledger.set_timer(key, due);
        ledger.recorded(key).await.map(|_| ())
    }

    /// Whether the run takes the way that was added to its definition as `id`: true for runs that come by for the first time,
    /// which is recorded; false for those that have recorded or asked for something beyond this place before.
    /// Once no older run is left, remove the call and keep the new way.
    pub async fn patched(&self, id: &str) -> bool {
        self.core.ledger.patched(id).await
    }

    /// Ends this run and starts another of the same workflow in its place, in one transaction: for runs that live long, so
    /// that no record grows for ever. Return what it gives:
    ///
    /// ```ignore
    /// return cx.continue_as_new(Subscription { month: self.month + 1, ..self });
    /// ```
    /// The successor has the business key, the parent, the signals that nobody has taken yet, and a cancellation that
    /// came too late. This run counts as succeeded, without an output; its compensations are dropped, and children it has
    /// not waited for are asked to stop. [`crate::Client::finished`], [`crate::Client::signal`] and
    /// [`crate::Client::cancel`] follow from a run to its successor.
    ///
    /// # Errors
    /// Always: it ends the definition. `workflow.bad_successor` when `input` belongs to another workflow.
    pub fn continue_as_new<T, W: Workflow>(&self, input: W) -> Result<T, Failure> {
        if W::NAME != self.core.kind {
            let message = format!("a run of {} cannot continue as {}", self.core.kind, W::NAME);
            return Err(Failure::permanent("workflow.bad_successor", message));
        }
        self.core.ledger.set_successor(Successor {
            kind: W::NAME,
            version: W::VERSION,
            priority: input.priority(),
            input: self.core.payloads.encode(&input)?,
        });
        Err(Failure::permanent(CONTINUED, "the run goes on as another"))
    }

    pub(crate) fn is_continued(&self, failure: &Failure) -> bool {
        failure.code == CONTINUED && self.core.ledger.has_successor()
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    /// Waits for the recorded outcome of a key.
    pub(crate) async fn outcome<T: DeserializeOwned>(&self, key: &str) -> Result<T, Failure> {
        let value = self.core.ledger.recorded(key).await?;
        match serde_json::from_value(value) {
            Ok(value) => Ok(value),
            Err(error) => {
                // Whoever wrote it meant something by it: to go on without would be to misapply it.
                let message = format!("the recorded output of {key:?} is not what the definition expects: {error}");
                self.core.ledger.break_off(Broken::Mismatch(Failure::permanent("workflow.undecodable", message)));
                std::future::pending().await
            }
        }
    }
}
