//! Definitions without a database: in memory, under a clock that jumps, with closures in place of the world.
//!
//! What a definition sees is the engine's own ledger, context, compensations and replay; only the tables are maps. In a quiet run
//! everything goes well. In a simulation a seed decides what goes wrong.

mod actor;
mod play;

use super::{History, Mismatch};
use crate::{
    activity::{Activity, Attempt, read_input},
    client::RunState,
    executor::Definition,
    failure::Failure,
    payload::Payloads,
    record::to_json,
    store::runs::run_name,
    worker::run_definition,
    workflow::Workflow,
};
use play::Play;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
    sync::Arc,
    time::Duration,
};
use uuid::Uuid;

type Handler = Box<dyn Fn(&Attempt, Value) -> Result<Value, Failure> + Send + Sync>;
type Step = Box<dyn Fn(&str) -> Result<Value, Failure> + Send + Sync>;

/// Definitions, and the world around them.
///
/// ```
/// # use flatrender_engine::{Activity, Context, Failure, Workflow, testing::Rehearsal};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)] struct Charge { cents: u32 }
/// # impl Activity for Charge { const NAME: &'static str = "Charge"; const QUEUE: &'static str = "bank"; type Output = String; }
/// # #[derive(Serialize, Deserialize)] struct Order { id: i64 }
/// # impl Workflow for Order {
/// #     const NAME: &'static str = "order"; type Output = String;
/// #     async fn run(self, cx: &Context) -> Result<String, Failure> {
/// #         let cents: u32 = cx.step("place", async |_| Ok(0)).await?;
/// #         cx.sleep("a year of grace", std::time::Duration::from_secs(365 * 86_400)).await?;
/// #         cx.activity("charge", Charge { cents }).await
/// #     }
/// # }
/// let rehearsal = Rehearsal::new()
///     .workflow::<Order>()
///     .step("place", |_| Ok(1200)) // What its SQL would give; nothing need be said of a step that gives nothing.
///     .handler(|_, charge: Charge| Ok(format!("{} cents", charge.cents)));
/// let played = rehearsal.run(Order { id: 7 })?;
/// assert_eq!(played.output_as::<String>().as_deref(), Some("1200 cents"));
/// assert_eq!(played.history.table(), "\
/// step      place            ok
/// timer     a year of grace  ok
/// activity  Charge           ok
/// ");
/// // Crashes, losses, failures, delays, a cancellation at any moment: drawn from each seed.
/// rehearsal.simulate_all(0..100, || Order { id: 7 }, |played| {
///     let charged = played.calls.iter().filter(|call| call.activity == "Charge" && call.result.is_ok()).count();
///     if played.state.as_str() == "succeeded" && charged == 0 { Err("never charged".to_owned()) } else { Ok(()) }
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Rehearsal {
    definitions: BTreeMap<String, Definition>,
    handlers: BTreeMap<&'static str, Handler>,
    steps: BTreeMap<String, Step>,
    signals: Vec<Message>,
    mischief: Mischief,
    payloads: Payloads,
}

/// A signal that is sent to the run.
#[derive(Debug, Clone)]
struct Message {
    name: String,
    payload: Value,
    after: Duration,
}

/// How often something goes wrong in a simulation: each a probability from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mischief {
    /// The worker that holds a run dies, at each moment at which something has happened.
    pub crash: f64,
    /// An attempt at an activity fails in a way that may pass.
    pub fails: f64,
    /// An attempt fails for good, with the code `test.refused`.
    pub refuses: f64,
    /// The other side asks for patience.
    pub throttles: f64,
    /// An attempt is lost with its worker, before or after it has had its effect.
    pub loses: f64,
    /// An attempt takes its time: seconds to a day.
    pub slow: f64,
    /// A step fails for good, with the code `test.refused`.
    pub step_fails: f64,
    /// The run is cancelled at some moment.
    pub cancels: f64,
    /// A signal never comes; else it comes at some moment before the run has nothing else to do.
    pub signal_never: f64,
    /// A signal comes late: perhaps after the timer that the run has set beside it.
    pub signal_late: f64,
    /// A signal comes twice under one key.
    pub signal_twice: f64,
}

impl Default for Mischief {
    fn default() -> Self {
        Self {
            crash: 0.1,
            fails: 0.15,
            refuses: 0.05,
            throttles: 0.05,
            loses: 0.05,
            slow: 0.3,
            step_fails: 0.0,
            cancels: 0.2,
            signal_never: 0.2,
            signal_late: 0.3,
            signal_twice: 0.2,
        }
    }
}

impl Mischief {
    const NONE: Self = Self {
        crash: 0.0,
        fails: 0.0,
        refuses: 0.0,
        throttles: 0.0,
        loses: 0.0,
        slow: 0.0,
        step_fails: 0.0,
        cancels: 0.0,
        signal_never: 0.0,
        signal_late: 0.0,
        signal_twice: 0.0,
    };
}

/// How a run is played.
#[derive(Debug, Clone)]
struct Manner {
    seed: u64,
    mischief: Mischief,
    /// Each run is dropped from memory after each of its events.
    forgetful: bool,
    /// The activity that fails for good.
    failing: Option<String>,
}

impl Manner {
    const fn quiet() -> Self {
        Self { seed: 0, mischief: Mischief::NONE, forgetful: false, failing: None }
    }
}

/// A handler that was called; what it gave may have been lost with its worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The run that asked.
    pub run_id: Uuid,
    /// Under which key.
    pub key: String,
    /// [`Activity::NAME`].
    pub activity: String,
    /// The input.
    pub input: Value,
    /// From 1.
    pub attempt_no: i32,
    /// What the handler gave.
    pub result: Result<Value, Failure>,
}

/// A run that was played to its end.
#[derive(Debug, Clone)]
pub struct Played {
    /// How the run ended, or the last of those that went on in its place.
    pub state: RunState,
    /// What it left behind.
    pub output: Option<Value>,
    /// Why it did not succeed.
    pub error: Option<Failure>,
    /// What it has done.
    pub history: History,
    /// What the runs that it started have done, oldest first; those that went on in its place too.
    pub others: Vec<History>,
    /// What the world was asked to do, in order.
    pub calls: Vec<Call>,
}

impl Played {
    /// The output, if there is one and it is a `T`.
    pub fn output_as<T: DeserializeOwned>(&self) -> Option<T> {
        self.output.clone().and_then(|output| serde_json::from_value(output).ok())
    }

    /// A number that differs when anything in any history differs.
    pub fn fingerprint(&self) -> u64 {
        let all = std::iter::once(&self.history).chain(&self.others);
        all.fold(0, |hash, history| hash.rotate_left(7) ^ history.fingerprint())
    }
}

/// Why a run could not be played to a proper end.
#[derive(Debug, thiserror::Error)]
pub enum Flaw {
    /// The rehearsal does not know what the run asks for.
    #[error("the rehearsal does not know {0}")]
    Unknown(String),
    /// The input cannot be stored.
    #[error("cannot store the input")]
    Unrecordable(#[source] Failure),
    /// The definition does not repeat itself, or cannot go on for another reason.
    #[error("a run of {kind} is parked: {failure}")]
    Parked {
        /// The workflow.
        kind: String,
        /// What stands in its way.
        failure: Failure,
    },
    /// Its history does not replay.
    #[error(transparent)]
    Replay(#[from] Mismatch),
    /// It waits for something that does not come, even when it is cancelled.
    #[error("the run waits for ever; its history so far:\n{0}")]
    NotOver(String),
    /// It does not come to an end.
    #[error("the run goes on and on; its history so far:\n{0}")]
    Endless(String),
    /// The check of the test.
    #[error("{0}")]
    Check(String),
}

/// A flaw that a simulation has found, and the seed that shows it again.
#[derive(Debug, thiserror::Error)]
#[error("seed {seed}: {flaw}\n(to see it again: FLATRENDER_SEED={seed}, or simulate({seed}, …))")]
pub struct Found {
    /// The seed.
    pub seed: u64,
    /// What is wrong.
    #[source]
    pub flaw: Flaw,
}

/// The seeds for a simulation: those below `usual`; `FLATRENDER_SEEDS=10000` in the environment wants more or fewer, and
/// `FLATRENDER_SEED=4711` that one.
pub fn seeds(usual: u64) -> Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    match number("FLATRENDER_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FLATRENDER_SEEDS").unwrap_or(usual),
    }
}

impl Rehearsal {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self {
            definitions: BTreeMap::new(),
            handlers: BTreeMap::new(),
            steps: BTreeMap::new(),
            signals: Vec::new(),
            mischief: Mischief::default(),
            payloads: Payloads::inline(),
        }
    }

    /// Plays runs of `W`.
    #[must_use]
    pub fn workflow<W: Workflow>(mut self) -> Self {
        let definition: Definition = Arc::new(|input, cx| Box::pin(run_definition::<W>(input, cx)));
        self.definitions.insert(run_name(W::NAME, W::VERSION), definition);
        self
    }

    /// Does `A` by a closure.
    #[must_use]
    pub fn handler<A: Activity>(
        mut self,
        handle: impl Fn(&Attempt, A) -> Result<A::Output, Failure> + Send + Sync + 'static,
    ) -> Self {
        let handler: Handler = Box::new(move |attempt, input| to_json(&handle(attempt, read_input(A::NAME, input)?)?));
        self.handlers.insert(A::NAME, handler);
        self
    }

    /// What a step gives, in place of its SQL; the closure gets the key. A `*` at the end of `key` stands for any rest.
    #[must_use]
    pub fn step<T: Serialize>(
        mut self,
        key: impl Into<String>,
        give: impl Fn(&str) -> Result<T, Failure> + Send + Sync + 'static,
    ) -> Self {
        self.steps.insert(key.into(), Box::new(move |key| to_json(&give(key)?)));
        self
    }

    /// A signal that the run is sent, at once or when it waits for it.
    ///
    /// # Panics
    /// When the payload is not JSON.
    #[must_use]
    pub fn signal(self, name: impl Into<String>, payload: impl Serialize) -> Self {
        self.signal_after(Duration::ZERO, name, payload)
    }

    /// As [`Rehearsal::signal`], `after` its start; a simulation decides for itself.
    ///
    /// # Panics
    /// When the payload is not JSON.
    #[must_use]
    pub fn signal_after(mut self, after: Duration, name: impl Into<String>, payload: impl Serialize) -> Self {
        let payload = serde_json::to_value(payload).expect("the payload of a signal is JSON");
        self.signals.push(Message { name: name.into(), payload, after });
        self
    }

    /// Values may be as long as `payloads` lets them be; they stay in memory.
    #[must_use]
    pub fn payloads(self, payloads: Payloads) -> Self {
        Self { payloads, ..self }
    }

    /// How often something goes wrong in a simulation.
    #[must_use]
    pub fn mischief(self, mischief: Mischief) -> Self {
        Self { mischief, ..self }
    }

    /// Plays a run in which nothing goes wrong but what its handlers say.
    ///
    /// # Errors
    /// A [`Flaw`].
    pub fn run<W: Workflow>(&self, workflow: W) -> Result<Played, Flaw> {
        self.play(workflow, Manner::quiet())
    }

    /// Plays a run that is lost from memory after each of its events.
    ///
    /// # Errors
    /// [`Flaw::Parked`] when the definition does not repeat itself.
    pub fn survives_a_crash_after_every_event<W: Workflow>(&self, workflow: W) -> Result<Played, Flaw> {
        self.play(workflow, Manner { forgetful: true, ..Manner::quiet() })
    }

    /// Plays a run, and then one more for each of its activities, in which that one fails for good with `test.injected`. Gives the
    /// key that failed and the run, the undisturbed one first, under an empty key.
    ///
    /// # Errors
    /// The first [`Flaw`].
    pub fn settles_whatever_fails<W: Workflow>(&self, make: impl Fn() -> W) -> Result<Vec<(String, Played)>, Flaw> {
        let quiet = self.run(make())?;
        let keys: BTreeSet<String> = quiet.calls.iter().map(|call| call.key.clone()).collect();
        let mut all = vec![(String::new(), quiet)];
        for key in keys {
            let played = self.play(make(), Manner { failing: Some(key.clone()), ..Manner::quiet() })?;
            all.push((key, played));
        }
        Ok(all)
    }

    /// Plays a run in a world of misfortune that `seed` decides: the same seed gives the same history, for ever.
    ///
    /// # Errors
    /// A [`Flaw`].
    pub fn simulate<W: Workflow>(&self, seed: u64, workflow: W) -> Result<Played, Flaw> {
        self.play(workflow, Manner { seed, mischief: self.mischief, ..Manner::quiet() })
    }

    /// Plays a run for each seed and has it checked; gives how many. See [`seeds`].
    ///
    /// # Errors
    /// The first seed that shows a flaw.
    pub fn simulate_all<W: Workflow>(
        &self,
        seeds: impl IntoIterator<Item = u64>,
        make: impl Fn() -> W,
        check: impl Fn(&Played) -> Result<(), String>,
    ) -> Result<u64, Found> {
        let mut count = 0;
        for seed in seeds {
            let checked = self.simulate(seed, make()).and_then(|played| {
                check(&played).map_err(|why| Flaw::Check(format!("{why}\n{}", played.history.lines())))
            });
            checked.map_err(|flaw| Found { seed, flaw })?;
            count += 1;
        }
        Ok(count)
    }

    fn play<W: Workflow>(&self, workflow: W, manner: Manner) -> Result<Played, Flaw> {
        if !self.definitions.contains_key(&run_name(W::NAME, W::VERSION)) {
            return Err(Flaw::Unknown(format!("the workflow {}", W::NAME)));
        }
        let mut play = Play::new(self, manner);
        let run_id = play.start(&workflow).map_err(Flaw::Unrecordable)?;
        play.finish(run_id)?;
        let played = play.played(run_id);
        super::replay::<W>(&played.history)?;
        let own = |h: &&History| (h.kind.as_str(), h.version) == (W::NAME, W::VERSION);
        played.others.iter().filter(own).try_for_each(super::replay::<W>)?;
        Ok(played)
    }

    /// What the SQL of a step would give.
    fn give(&self, key: &str) -> Result<Value, Failure> {
        let fits = |(pattern, _): &(&String, &Step)| match pattern.strip_suffix('*') {
            Some(beginning) => key.starts_with(beginning),
            None => pattern.as_str() == key,
        };
        let exact = self.steps.get(key);
        exact.or_else(|| self.steps.iter().find(fits).map(|(_, step)| step)).map_or(Ok(Value::Null), |step| step(key))
    }
}

impl Default for Rehearsal {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Rehearsal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = (self.definitions.keys(), self.handlers.keys(), self.steps.keys());
        f.debug_struct("Rehearsal").field("knows", &known).finish_non_exhaustive()
    }
}
