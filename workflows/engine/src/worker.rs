//! A worker: one process's share of the work. Knows definitions and handlers, owns the slots, and keeps going
//! through everything but its own shutdown.

use crate::{
    activity::{Activity, Attempt, ErasedHandler, Handler, Labels, Standing, read_input},
    backend::{Arrival, LeaseLayer, Outcome, QueueBackend},
    client::Client,
    executor::{self, Definition},
    failure::Failure,
    handover::{Ends, Local},
    jobs::{JobLane, JobQueue},
    leases::Leases,
    measures,
    operations::{self, Anew, Operations, Retention},
    payload::Payloads,
    pump::{Parts, Pump, Queue, Write},
    record::to_json,
    residents::Residents,
    retry,
    schedules::{self, Schedules},
    services::Plain,
    slots::{Slots, Warm},
    store::{Claimed, Lane, operations::NewOffer, session::Kept},
    sweeper::{Incarnation, Sweeper},
    wakeup::Wakeup,
    workflow::{Context, Workflow},
};
use apalis_core::{
    error::{BoxDynError, WorkerError},
    task::Task,
    worker::builder::WorkerBuilder,
};
use futures::future::BoxFuture;
use serde_json::Value;
use sqlx::{Executor, PgPool, postgres::PgPoolOptions};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    task::Poll,
    time::Duration,
};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;

/// The queue of runs. No activity may use it.
pub const RUN_QUEUE: &str = "workflows";

/// Connections of the engine itself, besides those that listen and live: two for the pump, the jobs, the leases, new records,
/// one to spare.
const ENGINE_CONNECTIONS: u32 = 6;
/// Slots of a queue that was given handlers but no number.
const DEFAULT_SLOTS: usize = 8;
/// A handler that was told to stop has this long.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// Results that cannot be written this long after everything else has ended are left to the leases.
const LAST_WRITES: Duration = Duration::from_secs(10);

/// What this process knows and shares.
pub(crate) struct Shop {
    /// For the steps of definitions.
    pub pool: PgPool,
    /// For the engine itself: steps that wait for connections cannot starve it.
    pub db: PgPool,
    pub workflows: HashMap<String, Definition>,
    pub handlers: HashMap<String, ErasedHandler>,
    pub residents: Arc<Residents>,
    pub leases: Arc<Leases>,
    pub payloads: Payloads,
    /// For what steps of definitions start.
    pub client: Client,
    pub me: Arc<Incarnation>,
    pub writes: mpsc::UnboundedSender<Write>,
    /// No new work, and runs are to be parked.
    pub closing: CancellationToken,
    /// For tests: leaves the memory after every new record.
    pub forgetful: bool,
    /// For tests: leaves the memory as soon as there is nothing to do but to wait for signals and far timers.
    pub hasty: bool,
    /// For tests: the activity that fails here.
    pub failing: Option<String>,
}

/// Builds a [`Worker`].
pub struct Builder {
    pool: PgPool,
    name: String,
    labels: Labels,
    warm: Warm,
    workflows: HashMap<String, Definition>,
    handlers: HashMap<String, ErasedHandler>,
    names: BTreeMap<&'static str, Vec<String>>,
    slots: HashMap<String, usize>,
    grace: Duration,
    forgetful: bool,
    hasty: bool,
    failing: Option<String>,
    schedules: bool,
    retention: Retention,
    payloads: Payloads,
    anew: Option<Arc<dyn Anew>>,
}

/// Continues runs and performs activities until it is told to stop.
pub struct Worker {
    builder: Builder,
    writes: mpsc::UnboundedSender<Write>,
    written: mpsc::UnboundedReceiver<Write>,
    ends: Arc<Ends>,
    me: Arc<Incarnation>,
}

impl Worker {
    /// A worker whose steps use `pool`; the engine opens up to eight more connections of its own.
    pub fn builder(pool: PgPool) -> Builder {
        Builder {
            pool,
            name: format!("worker-{}", std::process::id()),
            labels: Labels::new(),
            warm: Warm::default(),
            workflows: HashMap::new(),
            handlers: HashMap::new(),
            names: BTreeMap::new(),
            slots: HashMap::from([(RUN_QUEUE.to_owned(), 512)]),
            grace: Duration::from_secs(20),
            forgetful: false,
            hasty: false,
            failing: None,
            schedules: false,
            retention: Retention::forever(),
            payloads: Payloads::inline(),
            anew: None,
        }
    }
}

impl Builder {
    /// Name shown to people. Two processes may share it: ids of incarnations tell them apart.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// What this worker offers to tasks that ask for labels.
    #[must_use]
    pub fn labels(mut self, labels: Labels) -> Self {
        self.labels = labels;
        self
    }

    /// What this worker holds, which its handlers keep up to date: work that goes with it comes first.
    #[must_use]
    pub fn warm(mut self, warm: Warm) -> Self {
        self.warm = warm;
        self
    }

    /// How operations on many runs do those anew that are no use as copies.
    #[must_use]
    pub fn anew(mut self, anew: Arc<dyn Anew>) -> Self {
        self.anew = Some(anew);
        self
    }

    /// Continues runs of `W`.
    #[must_use]
    pub fn workflow<W: Workflow>(mut self) -> Self {
        let name = crate::store::runs::run_name(W::NAME, W::VERSION);
        let definition: Definition = Arc::new(|input, cx| Box::pin(run_definition::<W>(input, cx)));
        self.workflows.insert(name.clone(), definition);
        self.names.entry(RUN_QUEUE).or_default().push(name);
        self
    }

    /// Performs `A`, from the queue [`Activity::QUEUE`].
    #[must_use]
    pub fn handler<A: Activity>(mut self, handler: impl Handler<A>) -> Self {
        let handler = Arc::new(handler);
        let erased: ErasedHandler =
            Arc::new(move |attempt, input| Box::pin(run_handler::<A, _>(handler.clone(), attempt, input)));
        self.handlers.insert(A::NAME.to_owned(), erased);
        self.names.entry(A::QUEUE).or_default().push(A::NAME.to_owned());
        self
    }

    /// Performs `A` by a plain apalis service: a task function in [`task_fn`], with or without tower layers around it.
    ///
    /// It gets the task as from any apalis backend, with its id, attempt and idempotency key, and with our [`Attempt`] as data. An
    /// `AbortError` fails for good, a `RetryAfterError` is tried again when it says, a [`Failure`] is taken as it is, and
    /// everything else is transient.
    ///
    /// [`task_fn`]: apalis_core::task::task_fn::task_fn
    /// [`Attempt`]: crate::activity::Attempt
    #[must_use]
    pub fn service<A, S>(self, service: S) -> Self
    where
        A: Activity,
        S: Service<apalis_core::task::Task<A>, Response = A::Output> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxDynError>,
    {
        self.handler::<A>(Plain::new(service))
    }

    /// How many activities of a queue may run here at once.
    #[must_use]
    pub fn queue(mut self, queue: impl Into<String>, slots: usize) -> Self {
        self.slots.insert(queue.into(), slots.max(1));
        self
    }

    /// How many runs may be in memory at once; those that only wait make room for others. 512 by default.
    #[must_use]
    pub fn runs(self, slots: usize) -> Self {
        self.queue(RUN_QUEUE, slots)
    }

    /// How long running activities may go on after the worker was told to stop; then they are given back.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Takes part in firing [`crate::schedules`]. Any number of workers may; one is enough.
    #[must_use]
    pub fn schedules(mut self) -> Self {
        self.schedules = true;
        self
    }

    /// How inputs, outputs and signals are stored: as every client and worker of this database does it.
    #[must_use]
    pub fn payloads(mut self, payloads: Payloads) -> Self {
        self.payloads = payloads;
        self
    }

    /// Drops what is older than `retention` says, by itself; see [`Operations::retire`]. Any number of workers may. Needs a role
    /// that owns the tables.
    #[must_use]
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// For tests of definitions: a run is dropped from memory after each of its events and replayed from its record, as if
    /// its worker had crashed there.
    #[must_use]
    pub fn crash_after_every_event(mut self) -> Self {
        self.forgetful = true;
        self
    }

    /// For tests that move the clock: runs that only wait leave the memory at once.
    #[must_use]
    pub fn hasty(mut self) -> Self {
        self.hasty = true;
        self
    }

    /// For tests of definitions: the activity with this key fails for good, without its handler, with `test.injected`.
    #[must_use]
    pub fn fail_activity(mut self, key: impl Into<String>) -> Self {
        self.failing = Some(key.into());
        self
    }

    /// The worker.
    #[must_use]
    pub fn build(self) -> Worker {
        let (writes, written) = mpsc::unbounded_channel();
        Worker { builder: self, writes, written, ends: Arc::default(), me: Incarnation::new() }
    }

    /// Builds and runs; see [`Worker::run`].
    ///
    /// # Errors
    /// As [`Worker::run`].
    pub async fn run(self, stop: CancellationToken) -> Result<(), WorkerError> {
        self.build().run(stop).await
    }
}

impl Worker {
    /// Works until `stop`, then parks its runs, lets activities finish for the grace and gives the rest back.
    /// A database that is away is waited for.
    ///
    /// # Errors
    /// When the runtime underneath ends by itself, which nothing here makes it do.
    pub async fn run(self, stop: CancellationToken) -> Result<(), WorkerError> {
        let Builder {
            pool,
            name,
            labels,
            warm,
            workflows,
            handlers,
            names,
            slots,
            grace,
            forgetful,
            hasty,
            failing,
            schedules,
            retention,
            payloads,
            anew,
        } = self.builder;
        let (writes, written, run_ends, me) = (self.writes, self.written, self.ends, self.me);
        let db = engine_pool(&pool);
        let wakeup = Wakeup::new(db.clone());
        let (leases, residents) = (Arc::<Leases>::default(), Arc::<Residents>::default());
        let (ends, ended) = mpsc::unbounded_channel();
        let room = Arc::<Notify>::default();
        let (closing, abort, end) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let shop = Arc::new(Shop {
            pool,
            db: db.clone(),
            workflows,
            handlers,
            residents: residents.clone(),
            leases: leases.clone(),
            payloads: payloads.clone(),
            client: Client::with_wakeup(db.clone(), wakeup.clone()).payloads(payloads.clone()),
            me: me.clone(),
            writes: writes.clone(),
            closing: closing.clone(),
            forgetful,
            hasty,
            failing,
        });

        let background = TaskTracker::new();
        wakeup.clone().listen_in_background();
        let sweeper = Sweeper {
            pool: db.clone(),
            name: name.clone(),
            me: me.clone(),
            leases: leases.clone(),
            wakeup: wakeup.clone(),
            offers: offers(&names, &slots, &labels),
        };
        background.spawn(sweeper.run(end.clone()));
        let clerk =
            Operations::new(Client::with_wakeup(db.clone(), wakeup.clone()).payloads(payloads.clone())).anew(anew);
        background.spawn(operations::keep(clerk, closing.clone()));
        if retention != Retention::forever() {
            let client = Client::with_wakeup(db.clone(), wakeup.clone()).payloads(payloads.clone());
            let operations = Operations::new(client);
            background.spawn(operations::keep_retention(operations, retention, closing.clone()));
        }
        if schedules {
            let client = Client::with_wakeup(db.clone(), wakeup.clone()).payloads(payloads.clone());
            background.spawn(schedules::keep(Schedules::new(client), closing.clone()));
        }
        background.spawn(end.clone().run_until_cancelled_owned(leases.clone().run(db.clone(), wakeup.subscribe())));
        background.spawn(end.clone().run_until_cancelled_owned(residents.clone().run(db.clone(), wakeup.subscribe())));

        let (mut queues, mut job_queues) = (Vec::new(), Vec::new());
        let mut workers = tokio::task::JoinSet::new();
        for (queue, known) in names {
            let (out, arrivals) = mpsc::unbounded_channel();
            let slots = Slots::new(slots.get(queue).copied().unwrap_or(DEFAULT_SLOTS), room.clone());
            if queue != RUN_QUEUE {
                let (name, names) = (queue.to_owned(), known.clone());
                job_queues.push(JobQueue {
                    name,
                    slots: slots.clone(),
                    names,
                    out: out.clone(),
                    more: true,
                    held: false,
                });
            }
            queues.push(Queue { name: queue.to_owned(), slots, names: known, out });
            let layer = LeaseLayer { writes: writes.clone(), ends: ends.clone(), abort: abort.clone() };
            let backend = QueueBackend { arrivals, layer };
            let worker =
                WorkerBuilder::new(&*format!("{name}/{queue}")).backend(backend).build(TaskService(shop.clone()));
            let closed = closing.clone();
            let stopped = async move {
                closed.cancelled().await;
                Ok::<(), WorkerError>(())
            };
            workers.spawn(worker.run_until(stopped));
        }
        let lane = JobLane {
            sessions: Kept::of(db.clone()),
            labels: labels.clone(),
            warm: warm.clone(),
            me: me.clone(),
            wakeup: wakeup.clone(),
            mailbox: wakeup.subscribe(),
            room: room.clone(),
            ends: ended,
            queues: job_queues,
            held: HashMap::new(),
            pending: Vec::new(),
            unanswered: Vec::new(),
            down: 0,
            next_poll: tokio::time::Instant::now(),
            standing: (0, watch::Sender::new(Standing::Held)),
        };
        let lane = tokio::spawn(lane.run(closing.clone()));
        let parts = Parts {
            sessions: Kept::of(db.clone()),
            name,
            labels,
            warm,
            me,
            leases,
            residents,
            wakeup,
            room,
            ends: run_ends,
        };
        let pump = tokio::spawn(Pump::new(parts, queues, written).run(closing.clone()));

        let early = tokio::select! {
            () = stop.cancelled() => None,
            ended = workers.join_next(), if !workers.is_empty() => ended,
        };
        closing.cancel();
        if tokio::time::timeout(grace, all_end(&mut workers)).await.is_err() {
            abort.cancel();
            all_end(&mut workers).await;
        }
        let writers = [pump.abort_handle(), lane.abort_handle()];
        if tokio::time::timeout(LAST_WRITES, futures::future::join(pump, lane)).await.is_err() {
            // The pool waits for the sessions that they keep.
            writers.iter().for_each(tokio::task::AbortHandle::abort);
        }
        end.cancel();
        background.close();
        background.wait().await;
        db.close().await;
        match early {
            Some(Ok(Err(error))) => Err(error),
            _ => Ok(()),
        }
    }
}

/// What this worker can do, as others are to know it.
fn offers(
    names: &BTreeMap<&'static str, Vec<String>>,
    slots: &HashMap<String, usize>,
    labels: &Labels,
) -> Vec<NewOffer> {
    let offer = |(queue, names): (&&str, &Vec<String>)| NewOffer {
        queue: (*queue).to_owned(),
        names: names.clone(),
        labels: labels.clone(),
        slots: slots.get(*queue).copied().unwrap_or(DEFAULT_SLOTS).min(i32::MAX as usize) as i32,
    };
    names.iter().map(offer).collect()
}

async fn all_end(workers: &mut tokio::task::JoinSet<Result<(), WorkerError>>) {
    while workers.join_next().await.is_some() {}
}

/// Connections that only the engine uses, with limits: a statement that hangs is ended and tried again.
fn engine_pool(pool: &PgPool) -> PgPool {
    PgPoolOptions::new()
        .max_connections(ENGINE_CONNECTIONS)
        .min_connections(1)
        .acquire_timeout(Duration::from_secs(5))
        .after_connect(|db, _| {
            Box::pin(async move {
                db.execute("set statement_timeout = '12s'; set lock_timeout = '8s'; set idle_in_transaction_session_timeout = '15s'")
                    .await
                    .map(|_| ())
            })
        })
        .connect_lazy_with((*pool.connect_options()).clone())
}

impl Worker {
    /// A client over the same database, whose [`launch`](Client::launch) begins runs in this worker.
    pub fn client(&self) -> Client {
        let local = Local { writes: self.writes.downgrade(), ends: self.ends.clone(), me: self.me.clone() };
        Client::new(self.builder.pool.clone()).with_local(local).payloads(self.builder.payloads.clone())
    }
}

/// The service behind every queue: a task is a run or an activity.
#[derive(Clone)]
struct TaskService(Arc<Shop>);

impl Service<Task<Arrival>> for TaskService {
    type Response = Outcome;
    type Error = BoxDynError;
    type Future = BoxFuture<'static, Result<Outcome, BoxDynError>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), BoxDynError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, task: Task<Arrival>) -> Self::Future {
        let Arrival { claimed, standing } = task.args;
        let shop = self.0.clone();
        Box::pin(async move {
            Ok(match claimed.run {
                Some(_) => executor::continue_run(claimed, standing, shop).await,
                None => perform(claimed, standing, &shop).await,
            })
        })
    }
}

/// Performs one attempt at an activity, within its time and for as long as the lease is ours.
async fn perform(claimed: Claimed, mut standing: watch::Receiver<Standing>, shop: &Shop) -> Outcome {
    let Some(handler) = shop.handlers.get(&claimed.task.activity) else { return Outcome::Unfinished };
    if shop.failing.as_ref() == Some(&claimed.task.key) {
        return Outcome::Failed(Failure::permanent("test.injected", "the test wants this activity to fail"));
    }
    let (fence, mut task) = (claimed.fence(), claimed.task);
    let tenant_id = task.tenant_id;
    let stored = task.input.take();
    let limit = Duration::from_secs_f64(task.start_to_close_seconds);
    let (attempt, keeper) = Attempt::new(task);
    if claimed.lane == Lane::Task {
        shop.leases.report(fence, keeper.progress);
    }
    let work = async {
        let input = shop.payloads.fetch(tenant_id, stored, retry::STEP_TRIES).await?;
        let output = shop.payloads.admit(handler(attempt, input).await?)?;
        shop.payloads.keep(tenant_id, output, retry::STEP_TRIES).await
    };
    tokio::pin!(work);
    let timeout = tokio::time::sleep(limit);
    tokio::pin!(timeout);
    tokio::select! {
        result = &mut work => return Outcome::of_activity(result),
        () = &mut timeout => return Outcome::TimedOut,
        () = ended(&mut standing) => {}
    }
    let told = *standing.borrow();
    keeper.standing.send_replace(told);
    if told == Standing::Lost {
        return Outcome::Lost;
    }
    tokio::select! {
        result = &mut work => Outcome::of_activity(result),
        () = executor::lost(&mut standing) => Outcome::Lost,
        () = tokio::time::sleep(STOP_GRACE) => Outcome::Failed(Failure::cancelled()),
    }
}

/// Resolves when the attempt must end.
async fn ended(standing: &mut watch::Receiver<Standing>) {
    if standing.wait_for(|s| *s != Standing::Held).await.is_err() {
        std::future::pending::<()>().await;
    }
}

pub(crate) async fn run_definition<W: Workflow>(input: Value, cx: Context) -> Result<Value, Failure> {
    let workflow: W = read_input(W::NAME, input)?;
    let output = workflow.run(&cx).await?;
    cx.core().payloads.encode(&output)
}

async fn run_handler<A: Activity, H: Handler<A>>(
    handler: Arc<H>,
    attempt: Attempt,
    input: Value,
) -> Result<Value, Failure> {
    let input: A = read_input(A::NAME, input)?;
    let began = tokio::time::Instant::now();
    let result = attempt.traced(handler.handle(&attempt, input)).await;
    metrics::histogram!(measures::ATTEMPT_SECONDS, "activity" => A::NAME).record(began.elapsed());
    to_json(&result?)
}
