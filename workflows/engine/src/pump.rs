//! The writer of tasks in this process: results, requests of runs and claims share a round trip and a commit.
//!
//! ```text
//!   handlers ──ends of attempts──┐                        ┌──records──▶ residents
//!   executors ──ops of runs──────┼──▶ one statement ──────┼──wake-ups─▶ peers
//!   free slots ──claims──────────┘    (workflow.pump)     └──tasks────▶ backends
//! ```
//! Whatever arrives while a round trip is under way makes the next one: no timer, one trip when idle, hundreds of
//! writes in a commit under load. Under load a second trip flies beside the first, so that PostgreSQL and the executors never
//! wait for each other; the writes of one task keep their order. A database that is away is waited for; nothing is dropped.

use crate::{
    activity::{Labels, Standing},
    backend::{self, Arrival},
    failure::Failure,
    handover::Ends,
    leases::Leases,
    measures::{self, Writer},
    record::Record,
    residents::Residents,
    retry,
    slots::{Slots, Warm},
    store::{
        self, Claimed, Fence, News, Recorded, rings,
        session::Kept,
        tasks::{Claimant, NewRun, Plain},
    },
    sweeper::Incarnation,
    wakeup::{Mailbox, Ring, Wakeup},
    worker::RUN_QUEUE,
};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use serde_json::{Value, json};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

mod flight;
mod write;

use flight::{Landing, Written, count, fly, retries, written};
pub(crate) use write::{What, Write, rough_size};

/// Writes in one round trip.
const BATCH: usize = 500;
/// Size of a round trip, in bytes of JSON, beyond which it takes no further write.
const BATCH_BYTES: usize = 8 << 20;
/// Round trips under way at once.
const LANES: usize = 2;
/// A second trip is worth its commit for this many writes.
const CROWD: usize = 100;
/// A round trip that takes longer has lost its connection.
pub(crate) const ANSWER: Duration = Duration::from_secs(15);

/// A queue this process works on.
#[derive(Debug)]
pub(crate) struct Queue {
    pub name: String,
    pub slots: Arc<Slots>,
    /// What this process knows to do.
    pub names: Vec<String>,
    /// Where its backend waits.
    pub out: mpsc::UnboundedSender<Arrival>,
}

/// Index of a queue, and how many of its tasks to claim.
type Wanted = (usize, usize);

#[derive(Debug)]
struct QueueState {
    queue: Queue,
    /// There may be more than was claimed last time.
    more: bool,
    /// New work of this process that the others have not heard of.
    untold: bool,
    /// Its terms have let less be claimed than there is room for: what ends here may make place.
    held: bool,
}

pub(crate) struct Pump {
    sessions: Kept,
    name: String,
    labels: Labels,
    warm: Warm,
    me: Arc<Incarnation>,
    leases: Arc<Leases>,
    residents: Arc<Residents>,
    wakeup: Arc<Wakeup>,
    mailbox: Arc<Mailbox>,
    room: Arc<Notify>,
    ends: Arc<Ends>,
    writes: mpsc::UnboundedReceiver<Write>,
    queues: Vec<QueueState>,
    /// Which queue's slot a lease uses.
    held: HashMap<Fence, usize>,
    pending: Vec<Write>,
    flights: FuturesUnordered<BoxFuture<'static, Landing>>,
    /// Tasks with a write under way: the next one waits for it.
    aloft: HashSet<i64>,
    /// Writes of a trip that the database refused as a whole: one of them is the culprit.
    suspects: Vec<Write>,
    /// An answer was lost: there may be claims we do not know of.
    uncertain: bool,
    down: u32,
    next_poll: Instant,
}

/// What a pump shares with the rest of the worker.
pub(crate) struct Parts {
    pub sessions: Kept,
    pub name: String,
    pub labels: Labels,
    pub warm: Warm,
    pub me: Arc<Incarnation>,
    pub leases: Arc<Leases>,
    pub residents: Arc<Residents>,
    pub wakeup: Arc<Wakeup>,
    pub room: Arc<Notify>,
    pub ends: Arc<Ends>,
}

impl Pump {
    pub(crate) fn new(parts: Parts, queues: Vec<Queue>, writes: mpsc::UnboundedReceiver<Write>) -> Self {
        let mailbox = parts.wakeup.subscribe();
        Self {
            sessions: parts.sessions,
            name: parts.name,
            labels: parts.labels,
            warm: parts.warm,
            me: parts.me,
            leases: parts.leases,
            residents: parts.residents,
            wakeup: parts.wakeup,
            mailbox,
            room: parts.room,
            ends: parts.ends,
            writes,
            queues: queues
                .into_iter()
                .map(|queue| QueueState { queue, more: true, untold: false, held: false })
                .collect(),
            held: HashMap::new(),
            pending: Vec::new(),
            flights: FuturesUnordered::new(),
            aloft: HashSet::new(),
            suspects: Vec::new(),
            uncertain: false,
            down: 0,
            next_poll: Instant::now(),
        }
    }

    /// Works until `closing` and until nothing is held any more; claims nothing once it is closing.
    pub(crate) async fn run(mut self, closing: CancellationToken) {
        let room = self.room.clone();
        loop {
            // Heard from here on: room that comes after the look is not missed.
            let freed = room.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            let open = !closing.is_cancelled() && self.me.id().is_some();
            if closing.is_cancelled() && self.is_done() {
                return;
            }
            if !self.may_fly(open) {
                tokio::select! {
                    Some(landing) = self.flights.next() => self.land(landing).await,
                    write = self.writes.recv(), if self.pending.len() < BATCH => match write {
                        Some(write) => self.pending.push(write),
                        None => return,
                    },
                    rings = self.mailbox.next() => self.hear(&rings),
                    () = freed => {}
                    () = tokio::time::sleep_until(self.next_poll) => {
                        self.next_poll = Instant::now() + self.wakeup.poll_interval(self.me.id().is_some());
                        self.queues.iter_mut().for_each(|q| q.more = true);
                        self.make_room();
                    }
                    () = closing.cancelled(), if open => {}
                }
            }
            if self.flights.is_empty() && !self.suspects.is_empty() {
                self.try_singly().await;
            }
            self.collect();
            if self.may_fly(open) {
                self.take_off(open).await;
            }
        }
    }

    fn is_done(&self) -> bool {
        self.held.is_empty() && self.pending.is_empty() && self.suspects.is_empty() && self.flights.is_empty()
    }

    /// Whether there is something to send, and nothing that must land before.
    fn may_fly(&self, open: bool) -> bool {
        match self.flights.len() {
            0 => !self.pending.is_empty() || open && self.claims_due(),
            n => n < LANES && !self.uncertain && self.suspects.is_empty() && self.is_crowded(),
        }
    }

    fn is_crowded(&self) -> bool {
        let grounded = || self.pending.iter().filter(|write| !self.aloft.contains(&write.fence.task_id)).count();
        self.pending.len() >= CROWD && grounded() >= CROWD
    }

    fn hear(&mut self, rings: &HashSet<Ring>) {
        let all = rings.contains(&Ring::All);
        for q in &mut self.queues {
            q.more |= all || rings.contains(&Ring::Queue(q.queue.name.clone()));
        }
    }

    fn claims_due(&self) -> bool {
        self.queues.iter().any(|q| q.more && !q.queue.slots.is_full())
    }

    /// Runs that only wait give way to runs that may have something to do.
    fn make_room(&self) {
        if let Some(runs) = self.queues.iter().find(|q| q.queue.name == RUN_QUEUE && q.queue.slots.is_full()) {
            self.residents.make_room((runs.queue.slots.limit() / 8).max(1));
        }
    }

    /// Takes what has arrived, up to the size of a round trip.
    fn collect(&mut self) {
        let mut bytes: usize = self.pending.iter().map(Write::size).sum();
        while self.pending.len() < BATCH && bytes < BATCH_BYTES {
            let Ok(write) = self.writes.try_recv() else { break };
            bytes += write.size();
            self.pending.push(write);
        }
    }

    async fn take_off(&mut self, open: bool) {
        let batch = self.board();
        // Tasks that end with this round trip leave their slots to its claims; their leases are kept until it is over.
        for write in batch.iter().filter(|w| w.last) {
            self.free(write.fence);
        }
        if self.uncertain {
            self.disown(&batch).await;
        }
        let lease = if open { self.make_way(&batch) } else { 0 };
        let claims: Vec<Wanted> = match open {
            true => (0..self.queues.len()).map(|i| (i, self.take(i))).filter(|(_, want)| *want > 0).collect(),
            false => Vec::new(),
        };
        let batch = self.forget(batch);
        if batch.is_empty() && claims.is_empty() {
            return;
        }
        for &(i, _) in &claims {
            // Whatever rings from here on may have come too late for this trip.
            self.queues[i].more = false;
        }
        self.aloft.extend(batch.iter().filter(|write| !write.is_start()).map(|write| write.fence.task_id));
        let flight = fly(self.sessions.clone(), self.claimant(), self.wishes(&claims), batch, claims, lease);
        self.flights.push(Box::pin(flight));
    }

    /// Takes the slots for runs that are to start here; none when this process does not know what they are.
    fn make_way(&self, batch: &[Write]) -> usize {
        let Some(q) = self.queues.iter().find(|q| q.queue.name == RUN_QUEUE) else { return 0 };
        let known = |run: &NewRun| q.queue.names.contains(&store::runs::run_name(run.kind, run.version));
        let starts = batch.iter().filter_map(Write::start);
        if starts.clone().all(known) { q.queue.slots.take(starts.count()) } else { 0 }
    }

    /// The writes that go along: the first of each task that has none under way.
    fn board(&mut self) -> Vec<Write> {
        let pending = std::mem::take(&mut self.pending);
        let mut aboard = HashSet::new();
        let (waiting, batch) = pending.into_iter().partition(|write| {
            let task_id = write.fence.task_id;
            !write.is_start() && (self.aloft.contains(&task_id) || !aboard.insert(task_id))
        });
        self.pending = waiting;
        batch
    }

    async fn land(&mut self, Landing { batch, claims, lease, asked_at, answer }: Landing) {
        for write in &batch {
            self.aloft.remove(&write.fence.task_id);
        }
        match answer {
            Ok(news) => {
                self.down = 0;
                self.digest(batch, &claims, lease, (asked_at, news));
            }
            Err(error) => {
                self.give_runs(lease);
                for (i, want) in claims {
                    self.queues[i].more = true;
                    self.queues[i].queue.slots.give(want);
                }
                self.survive(batch, error).await;
            }
        }
    }

    fn claimant(&self) -> Claimant {
        Claimant { worker_id: self.me.id(), name: self.name.clone(), labels: self.labels.clone() }
    }

    /// Claims in the form of `workflow.claim`.
    fn wishes(&self, claims: &[Wanted]) -> Vec<Value> {
        let holds = self.warm.list();
        claims
            .iter()
            .map(|(i, want)| (&self.queues[*i].queue, want))
            .map(|(queue, want)| json!({ "queue": queue.name, "want": want, "names": queue.names, "holds": holds }))
            .collect()
    }

    /// Takes the slots that the next claims of a queue may fill.
    fn take(&self, queue: usize) -> usize {
        let q = &self.queues[queue];
        if q.more { q.queue.slots.take(BATCH) } else { 0 }
    }

    fn free(&mut self, fence: Fence) {
        if let Some(queue) = self.held.remove(&fence) {
            let q = &mut self.queues[queue];
            q.queue.slots.give(1);
            q.more |= q.held;
        }
    }

    /// Answers and drops writes that write nothing.
    fn forget(&self, batch: Vec<Write>) -> Vec<Write> {
        let (gone, batch): (Vec<_>, Vec<_>) = batch.into_iter().partition(|w| matches!(w.what, What::Forget));
        gone.into_iter().for_each(|write| self.answer(write, false));
        batch
    }

    /// The write is over: its sender hears how, and a task that left with it needs no lease any more.
    fn answer(&self, write: Write, accepted: bool) {
        if write.last {
            self.leases.forget(write.fence);
        }
        let _ = write.reply.send(accepted);
    }

    fn give_runs(&self, slots: usize) {
        if let Some(q) = self.queues.iter().find(|q| q.queue.name == RUN_QUEUE) {
            q.queue.slots.give(slots);
        }
    }

    fn digest(
        &mut self,
        mut batch: Vec<Write>,
        claims: &[Wanted],
        lease: usize,
        (asked_at, news): (Instant, Vec<News>),
    ) {
        let mut starts: HashMap<Uuid, Value> =
            batch.iter_mut().filter_map(Write::start_mut).map(|run| (run.id, run.input.take())).collect();
        let mut started = 0;
        let settled: HashSet<Fence> = news.iter().filter_map(News::accepts).collect();
        let rings = rings(&news, self.me.id());
        Writer::Tasks.retries(retries(&batch, &settled, &news));
        let mut written = written(&batch);
        let mut got = vec![0; self.queues.len()];
        let mut held = HashMap::new();
        for item in news {
            match item {
                News::Recorded(recorded) => self.deliver(*recorded, &mut written),
                News::Claimed(mut claimed) => match starts.remove(&claimed.task.run_id) {
                    Some(input) => {
                        claimed.task.input = input;
                        started += 1;
                        self.start(*claimed, asked_at);
                    }
                    None => {
                        if let Some(i) = self.start(*claimed, asked_at) {
                            got[i] += 1;
                        }
                    }
                },
                News::Held { queue, until } => drop(held.insert(queue, until)),
                News::Settled(_) | News::Woken(_) | News::Clock { .. } => {}
            }
        }
        self.hear(&rings);
        for &(i, want) in claims {
            // The claims of a trip come after its writes: fewer than wanted means that nothing was left.
            let q = &mut self.queues[i];
            q.more |= got[i] >= want;
            q.queue.slots.give(want.saturating_sub(got[i]));
            q.held = held.contains_key(&q.queue.name);
        }
        if let Some(until) = held.into_values().flatten().min() {
            self.next_poll = self.next_poll.min(self.me.when(until));
        }
        self.give_runs(lease.saturating_sub(started));
        self.tell_others(rings);
        for write in batch {
            count(&write.what);
            let accepted = write.is_start() || settled.contains(&write.fence);
            if accepted && let What::Plain(Plain { ends: Some(run_id), what, body, .. }) = &write.what {
                self.ends.tell(*run_id, what, body.as_ref());
            }
            self.answer(write, accepted);
        }
    }

    /// Wakes other processes: for what this one does not do, and once for work beyond its free slots. Those who were
    /// woken go on by themselves until they find nothing.
    fn tell_others(&mut self, mut rings: HashSet<Ring>) {
        for q in &mut self.queues {
            q.untold |= rings.remove(&Ring::Queue(q.queue.name.clone()));
            q.untold &= q.more;
            if q.untold && q.queue.slots.is_full() {
                q.untold = false;
                rings.insert(Ring::Queue(q.queue.name.clone()));
            }
        }
        self.wakeup.announce(rings);
    }

    /// Hands a record that this process has brought about to its run, if that is here.
    fn deliver(&self, recorded: Recorded, written: &mut Written) {
        if recorded.holder.is_none() || recorded.holder != self.me.id() {
            return;
        }
        // Without what was written the run reads the record itself.
        let Some((kind, name, output)) =
            recorded.token.and_then(|token| written.remove(&(token, recorded.key.clone())))
        else {
            return self.wakeup.ring(&HashSet::from([Ring::Run(recorded.run_id)]));
        };
        let record = Record {
            seq: recorded.seq,
            key: recorded.key,
            kind,
            name,
            outcome: recorded.outcome.map(|()| output),
            recorded_at: recorded.recorded_at,
        };
        self.residents.deliver(recorded.run_id, record);
    }

    /// Hands a task to its queue, whose index it answers.
    fn start(&mut self, claimed: Claimed, asked_at: Instant) -> Option<usize> {
        let i = self.queues.iter().position(|q| q.queue.name == claimed.queue)?;
        let (fence, seconds) = (claimed.fence(), claimed.task.lease_seconds);
        metrics::counter!(measures::CLAIMS, "queue" => claimed.queue.clone()).increment(1);
        if let (Some(ready_at), Some(now)) = (claimed.ready_at(), self.me.now()) {
            let waited = (now - ready_at).to_std().unwrap_or_default();
            metrics::histogram!(measures::QUEUE_SECONDS, "queue" => claimed.queue.clone()).record(waited);
        }
        self.held.insert(fence, i);
        let (standing_tx, standing_rx) = watch::channel(Standing::Held);
        self.leases.keep(fence, seconds, asked_at, standing_tx);
        if let Err(unwanted) = self.queues[i].queue.out.send(Arrival { claimed, standing: standing_rx }) {
            // The queue has closed since the claim.
            self.pending.push(backend::given_back(&unwanted.0.claimed));
        }
        Some(i)
    }

    /// A round trip has failed: what it carried is kept and sent again.
    async fn survive(&mut self, mut batch: Vec<Write>, error: sqlx::Error) {
        self.uncertain = true;
        let before = batch.iter().all(|write| write.again);
        batch.iter_mut().for_each(|write| write.again = true);
        if !store::is_transient(&error) {
            match <[Write; 1]>::try_from(batch) {
                Ok([write]) if before => self.refuse(write, &error),
                Ok([write]) => self.suspects.push(write),
                Err(batch) => self.suspects.extend(batch),
            }
            return;
        }
        self.pending.splice(0..0, batch);
        self.down += 1;
        tracing::warn!(%error, pending = self.pending.len(), "cannot reach the database; results are kept");
        let pause = retry::exponential(Duration::from_millis(20), Duration::from_secs(2), self.down);
        tokio::time::sleep(retry::jittered(pause)).await;
    }

    /// One of the suspects is the culprit; each goes alone, the others must not suffer.
    async fn try_singly(&mut self) {
        for write in std::mem::take(&mut self.suspects) {
            let landing = fly(self.sessions.clone(), self.claimant(), Vec::new(), vec![write], Vec::new(), 0).await;
            match landing.answer {
                Ok(news) => self.digest(landing.batch, &[], 0, (landing.asked_at, news)),
                Err(error) => landing.batch.into_iter().for_each(|write| self.refuse(write, &error)),
            }
        }
    }

    /// A write that the database will never take. The end of an attempt becomes a failure that it can take.
    fn refuse(&mut self, mut write: Write, error: &sqlx::Error) {
        if store::is_transient(error) {
            self.pending.push(write);
            return;
        }
        tracing::error!(%error, task_id = write.fence.task_id, "the database refuses a write");
        if let What::Attempt { entry, .. } = &mut write.what
            && entry["outcome"] != "failed"
        {
            let failure = Failure::permanent("workflow.unrecordable", format!("the outcome cannot be stored: {error}"));
            entry["outcome"] = json!("failed");
            entry["output"] = Value::Null;
            entry["failure"] = crate::record::storable(&failure);
            return self.pending.push(write);
        }
        // Whatever it has done stays as it is until somebody has mended the definition.
        if matches!(&write.what, What::Plain(Plain { key: None, .. })) {
            let failure = Failure::permanent("workflow.unrecordable", format!("the end cannot be stored: {error}"));
            let Fence { task_id, token } = write.fence;
            write.what = What::Ops(vec![json!({
                "op": "park", "task_id": task_id, "token": token, "reason": "unrecordable",
                "failure": crate::record::storable(&failure),
            })]);
            // It has not ended.
            write.reply = oneshot::channel().0;
            return self.pending.push(write);
        }
        if write.last {
            self.leases.forget(write.fence);
        }
    }

    async fn disown(&mut self, batch: &[Write]) {
        let Some(me) = self.me.id() else { return };
        let mut known: Vec<i64> = self.held.keys().map(|fence| fence.task_id).collect();
        known.extend(batch.iter().chain(&self.pending).map(|w| w.fence.task_id));
        let disowned = async {
            let mut session = self.sessions.take().await?;
            let queues = store::in_time(ANSWER, store::tasks::disown(session.db(), me, &known)).await;
            self.sessions.done(session, queues)
        };
        match disowned.await {
            Ok(queues) => {
                self.uncertain = false;
                self.wakeup.announce(queues.into_iter().map(Ring::Queue).collect());
            }
            Err(error) => tracing::debug!(%error, "cannot look for claims whose answer was lost"),
        }
    }
}
