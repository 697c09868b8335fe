//! Continues a run from where its record ends: polls the definition until it can do nothing without the world,
//! asks for what it wants, hands out what has come, and stays with it in memory until there is a reason not to.

use crate::{
    activity::Standing,
    backend::Outcome,
    bell::Bell,
    failure::Failure,
    ledger::{Foretold, Ledger},
    measures,
    payload::{FOR_GOOD, Payloads},
    pump::ANSWER,
    record::{Ask, Broken},
    residents::Stay,
    retry,
    store::{self, Claimed, Fence, session::Session},
    trace::{self, TraceContext},
    worker::Shop,
    workflow::{CONTINUED, Context, Core, Hands},
};
use chrono::{DateTime, Utc};
use futures::{FutureExt, future::BoxFuture};
use serde_json::{Value, json};
use std::{
    future::pending,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
};

mod asks;
mod foretold;
mod steps;

use asks::send;
pub(crate) use asks::wishes;
pub(crate) use steps::{memo, step, steps_settle};

/// A run that waits only for a timer further away than this leaves the memory; the timer is its `run_at`.
const NEAR: Duration = Duration::from_secs(5);
/// Polls of a definition that keeps waking itself, before others get their turn.
const POLLS: u32 = 32;

/// Asks of a run in one round trip: a statement has to be over in time, however many there are.
const ASKS: usize = 1000;
/// Rounds after which a definition that is replayed will not come to rest.
const REPLAY_ROUNDS: usize = 10_000_000;

/// A definition with its types taken off.
pub(crate) type Definition = Arc<dyn Fn(Value, Context) -> BoxFuture<'static, Result<Value, Failure>> + Send + Sync>;

/// Continues a claimed run until it ends, is to sleep, or is no longer ours.
pub(crate) async fn continue_run(
    mut claimed: Claimed,
    standing: watch::Receiver<Standing>,
    shop: Arc<Shop>,
) -> Outcome {
    let (Some(run), Some(definition)) = (claimed.run, shop.workflows.get(&claimed.task.activity)) else {
        return Outcome::Unfinished;
    };
    let tenant_id = claimed.task.tenant_id;
    let mut input = claimed.task.input.take();
    if Payloads::is_reference(&input) {
        match while_held(shop.payloads.fetch(tenant_id, input, FOR_GOOD), &standing, &shop).await {
            Ok(Ok(value)) => input = value,
            Ok(Err(failure)) => return set_aside(claimed.fence(), "unreadable", failure),
            Err(outcome) => return outcome,
        }
    }
    let ledger = Ledger::new(run.created_at);
    let stay = shop.residents.admit(claimed.task.run_id, ledger.clone());
    let trace = claimed.task.traceparent.map(|parent| parent.child());
    let core = Core {
        run_id: claimed.task.run_id,
        tenant_id: claimed.task.tenant_id,
        kind: crate::store::runs::kind_of(&claimed.task.activity).to_owned(),
        fence: claimed.fence(),
        hands: Hands::Database(shop.pool.clone()),
        payloads: shop.payloads.clone(),
        ledger: ledger.clone(),
        client: Some(shop.client.apart()),
        trace,
    };
    let span = trace::run_span(claimed.task.traceparent, trace, core.run_id, &core.kind);
    let future = to_the_end(definition, input, Context::new(Arc::new(core)));
    let future = if trace.is_some() { Box::pin(trace::within(trace, span, future)) } else { future };
    let fence = Fence { task_id: claimed.task.task_id, token: claimed.task.lease_token };
    let mut execution = Execution {
        shop: &shop,
        ledger: &ledger,
        stay,
        standing,
        fence,
        trace,
        tenant_id,
        known: run.seq,
        flush: None,
        foretold: None,
        fetching: 0,
        errands: JoinSet::new(),
    };
    if run.seq > 0 || claimed.task.attempt_no > 1 {
        if let Some(outcome) = execution.load(claimed.task.run_id).await {
            return outcome;
        }
    } else {
        ledger.catch_up();
    }
    execution.drive(future).await
}

/// What `work` gives, unless the lease is lost or the worker closes before.
async fn while_held<T>(
    work: impl Future<Output = T>,
    standing: &watch::Receiver<Standing>,
    shop: &Shop,
) -> Result<T, Outcome> {
    let mut standing = standing.clone();
    tokio::select! {
        biased;
        done = work => Ok(done),
        () = lost(&mut standing) => Err(Outcome::Lost),
        () = shop.closing.cancelled() => Err(Outcome::Unfinished),
    }
}

fn set_aside(fence: Fence, reason: &'static str, failure: Failure) -> Outcome {
    tracing::error!(%failure, task_id = fence.task_id, reason, "a run is parked until somebody resumes it");
    Outcome::SetAside { reason, failure }
}

/// The definition, and the compensations of one that does not succeed.
pub(crate) fn to_the_end(
    definition: &Definition,
    input: Value,
    cx: Context,
) -> BoxFuture<'static, Result<Value, Failure>> {
    let run = AssertUnwindSafe(definition(input, cx.clone())).catch_unwind();
    Box::pin(async move {
        let result = run.await.unwrap_or_else(|panic| Err(Failure::panicked("a definition", &*panic)));
        match result {
            Err(failure) if !cx.is_continued(&failure) => Err(cx.undo_all(failure).await),
            result => result,
        }
    })
}

struct Execution<'a> {
    shop: &'a Shop,
    ledger: &'a Arc<Ledger>,
    stay: Stay,
    standing: watch::Receiver<Standing>,
    fence: Fence,
    tenant_id: uuid::Uuid,
    /// What the run asks for belongs to this.
    trace: Option<TraceContext>,
    /// Number of the newest record at the start of this stay.
    known: i64,
    /// Requests on their way to the database.
    flush: Option<oneshot::Receiver<bool>>,
    /// What the definition has been given and is still to be sent there.
    foretold: Option<Foretold>,
    /// Number of the newest record whose output is on its way here.
    fetching: i64,
    /// Payloads on their way; they end with the stay.
    errands: JoinSet<()>,
}

impl Execution<'_> {
    /// Reads the record; tries for as long as the lease lasts.
    async fn load(&mut self, run_id: uuid::Uuid) -> Option<Outcome> {
        for tries in 1.. {
            let record = async {
                let mut session = Session::take(&self.shop.db).await?;
                let record = store::in_time(ANSWER, store::steps::all(session.db(), run_id)).await;
                session.done(record)
            };
            match record.await {
                Ok((records, in_flight)) => {
                    self.ledger.begin(records, in_flight);
                    return None;
                }
                Err(error) => tracing::warn!(%error, run.id = %run_id, "cannot read the record of a run"),
            }
            tokio::select! {
                () = tokio::time::sleep(retry::step_pause(tries)) => {}
                () = lost(&mut self.standing) => return Some(Outcome::Lost),
                () = self.shop.closing.cancelled() => return Some(Outcome::Unfinished),
            }
        }
        None
    }

    async fn drive(mut self, mut future: BoxFuture<'static, Result<Value, Failure>>) -> Outcome {
        loop {
            let stalled = match poll_until_stalled(&mut future, self.ledger.bell()) {
                // A run that is no longer ours has not ended, whatever its definition says.
                Poll::Ready(result) => {
                    self.ledger.check_end();
                    let outcome = self.must_leave().unwrap_or_else(|| end(self.ledger, result));
                    let outcome = self.put_away(outcome).await;
                    return self.settle(outcome).await;
                }
                Poll::Pending => !self.ledger.bell().hear(),
            };
            if let Some(outcome) = self.must_leave() {
                return self.settle(outcome).await;
            }
            if !stalled {
                tokio::task::yield_now().await;
                continue;
            }
            if let Some(foretold) = self.foretold.take() {
                self.record(foretold);
            }
            if self.ledger.hand_out() {
                if self.shop.forgetful && self.ledger.handed_out() > self.known {
                    return Outcome::Unfinished;
                }
                continue;
            }
            if self.ledger.catch_up() {
                continue;
            }
            if let Some(outcome) = self.must_leave() {
                return outcome;
            }
            if self.ledger.overtaken() {
                return self.start_over().await;
            }
            if self.foretell() {
                continue;
            }
            self.fetch();
            self.ask();
            let settled = self.flush.is_none() && !self.ledger.foretells() && !self.ledger.has_gap();
            let idle = settled && self.ledger.steps_running() == 0;
            self.stay.set_idle(idle);
            let rest = if idle { self.rest() } else { None };
            if idle && (self.shop.closing.is_cancelled() || rest == Some(Duration::ZERO)) {
                return self.park();
            }
            if self.shop.closing.is_cancelled() && self.ledger.steps_running() == 0 {
                return Outcome::Unfinished;
            }
            if let Some(outcome) = self.wait(idle, rest).await {
                return outcome;
            }
        }
    }

    /// Waits for what is on its way to the database.
    async fn flushed(&mut self) -> Option<Outcome> {
        while self.flush.is_some() {
            if let Some(left) = self.wait(false, None).await {
                return Some(left);
            }
        }
        None
    }

    /// Waits for anything that may let the run go on.
    async fn wait(&mut self, idle: bool, rest: Option<Duration>) -> Option<Outcome> {
        let timer = self.ledger.next_timer().filter(|_| self.flush.is_none() && !self.ledger.foretells());
        let bell = self.ledger.bell().clone();
        let mut flush = self.flush.take();
        tokio::select! {
            () = bell.rings() => {}
            answer = answered(&mut flush) => {
                flush = None;
                match answer {
                    Ok(true) => {}
                    Ok(false) => return Some(Outcome::Lost),
                    Err(_) => self.ledger.break_off(Broken::Refused(Failure::permanent(
                        "workflow.unrecordable", "the database refuses what the definition asks for"))),
                }
            }
            () = reached(self.shop, timer) => {}
            () = lost(&mut self.standing) => return Some(Outcome::Lost),
            () = self.stay.evicted(), if idle => return Some(self.park()),
            () = tokio::time::sleep(rest.unwrap_or_default()), if rest.is_some() => return Some(self.park()),
            () = self.shop.closing.cancelled(), if !self.shop.closing.is_cancelled() => {}
        }
        self.flush = flush;
        None
    }

    /// Gives what the run leaves behind the form in which it is stored.
    async fn put_away(&mut self, mut outcome: Outcome) -> Outcome {
        let value = match &mut outcome {
            Outcome::Ended { output: Some(output), .. } => output,
            Outcome::Continued { next } => &mut next["input"],
            _ => return outcome,
        };
        if self.shop.payloads.passes(value) {
            return outcome;
        }
        // That may take long.
        if let Some(foretold) = self.foretold.take() {
            self.record(foretold);
        }
        let kept = self.shop.payloads.keep(self.tenant_id, value.take(), FOR_GOOD);
        match while_held(kept, &self.standing, self.shop).await {
            Ok(Ok(stored)) => *value = stored,
            Ok(Err(failure)) => return set_aside(self.fence, "unrecordable", failure),
            Err(outcome) => return outcome,
        }
        outcome
    }

    fn must_leave(&self) -> Option<Outcome> {
        if self.ledger.lost() || *self.standing.borrow() == Standing::Lost {
            return Some(Outcome::Lost);
        }
        let outcome = broken_off(self.ledger)?;
        if let Outcome::SetAside { reason, failure } = &outcome {
            tracing::error!(%failure, task_id = self.fence.task_id, reason, "a run is parked until somebody resumes it");
        }
        Some(outcome)
    }

    /// Sends what the definition has asked for since the last time, one batch at a time.
    fn ask(&mut self) {
        if self.flush.is_some() || self.ledger.foretells() {
            return;
        }
        let asks = self.ledger.take_asks(ASKS);
        let now = self.shop.me.now();
        let timers = now.map(|now| self.ledger.ended_timers(now)).unwrap_or_default();
        if timers.first().is_some_and(|(_, reached)| *reached)
            && let Some(late) = now.zip(self.ledger.next_timer()).map(|(now, due)| now - due)
        {
            metrics::histogram!(measures::TIMER_LATENESS_SECONDS).record(late.to_std().unwrap_or_default());
        }
        if asks.is_empty() && timers.is_empty() {
            return;
        }
        let (reply, answer) = oneshot::channel();
        if asks.iter().filter_map(Ask::payload).all(|value| self.shop.payloads.passes(value)) {
            if send(&self.shop.writes, (self.fence, self.trace), asks, &timers, reply) {
                self.flush = Some(answer);
            }
            return;
        }
        self.flush = Some(answer);
        let (payloads, writes) = (self.shop.payloads.clone(), self.shop.writes.clone());
        let (ledger, fence, tenant_id) = (self.ledger.clone(), (self.fence, self.trace), self.tenant_id);
        self.errands.spawn(async move {
            let mut asks = asks;
            for value in asks.iter_mut().filter_map(Ask::payload_mut) {
                match payloads.keep(tenant_id, value.take(), FOR_GOOD).await {
                    Ok(stored) => *value = stored,
                    Err(failure) => return ledger.break_off(Broken::Refused(failure)),
                }
            }
            send(&writes, fence, asks, &timers, reply);
        });
    }

    /// Brings the output of the next record here, if it lies elsewhere.
    fn fetch(&mut self) {
        let Some((seq, stored)) = self.ledger.outside().filter(|(seq, _)| *seq > self.fetching) else { return };
        self.fetching = seq;
        let (payloads, ledger, tenant_id) = (self.shop.payloads.clone(), self.ledger.clone(), self.tenant_id);
        self.errands.spawn(async move {
            match payloads.fetch(tenant_id, stored, FOR_GOOD).await {
                Ok(output) => ledger.bring_in(seq, output),
                Err(failure) => ledger.break_off(Broken::Unreadable(failure)),
            }
        });
    }

    /// How long a run that waits for nothing but time and signals stays in memory; none for one that waits for more.
    fn rest(&self) -> Option<Duration> {
        let near = chrono::Duration::from_std(NEAR).unwrap_or_default();
        let timer = self.ledger.next_timer();
        if timer.is_some_and(|due| self.shop.me.now().is_none_or(|now| due - now <= near)) {
            return None;
        }
        let listens = self.ledger.waits_for_signals();
        if (timer.is_none() && !listens) || self.ledger.waits_for_others() {
            return None;
        }
        Some(if listens && !self.shop.hasty { NEAR } else { Duration::ZERO })
    }

    fn park(&self) -> Outcome {
        Outcome::Parked { seq: self.ledger.handed_out(), due: self.ledger.next_timer() }
    }
}

/// Where a run goes whose definition cannot go on; none for one that can.
pub(crate) fn broken_off(ledger: &Ledger) -> Option<Outcome> {
    let (reason, failure) = match ledger.broken()? {
        Broken::Mismatch(failure) => ("version_mismatch", failure),
        Broken::Unreadable(failure) => ("unreadable", failure),
        // What it has done before must be undone: by code that asks for something else.
        Broken::Refused(failure) if ledger.compensates() => ("unrecordable", failure),
        Broken::Refused(failure) => return Some(ended("failed", None, Some(failure))),
    };
    Some(Outcome::SetAside { reason, failure })
}

/// What the result of a definition makes of its run.
pub(crate) fn end(ledger: &Ledger, result: Result<Value, Failure>) -> Outcome {
    match result {
        Ok(output) => ended("succeeded", Some(output), None),
        Err(error) => {
            if error.code == CONTINUED
                && let Some(next) = ledger.take_successor()
            {
                return Outcome::Continued {
                    next: json!({
                        "version": next.version, "activity": store::runs::run_name(next.kind, next.version),
                        "priority": next.priority, "input": next.input, "seq": ledger.handed_out(),
                        "signals": ledger.untaken_signals(),
                    }),
                };
            }
            let cancelled = error.is_cancelled() && ledger.cancelled();
            ended(if cancelled { "cancelled" } else { "failed" }, None, Some(error))
        }
    }
}

fn ended(state: &'static str, output: Option<Value>, error: Option<Failure>) -> Outcome {
    Outcome::Ended { state, output, error, last: None }
}

/// Polls until the definition neither ends nor wakes itself; bounded, for the sake of its neighbours.
pub(crate) fn poll_until_stalled(
    future: &mut BoxFuture<'static, Result<Value, Failure>>,
    bell: &Arc<Bell>,
) -> Poll<Result<Value, Failure>> {
    let waker = Waker::from(bell.clone());
    let mut cx = std::task::Context::from_waker(&waker);
    for _ in 0..POLLS {
        bell.hear();
        if let Poll::Ready(result) = future.as_mut().poll(&mut cx) {
            return Poll::Ready(result);
        }
        if !bell.hear() {
            return Poll::Pending;
        }
    }
    bell.ring();
    Poll::Pending
}

/// How a definition takes a record that is given to it whole, without a database: nothing is done, only looked at.
pub(crate) fn replay(
    mut future: BoxFuture<'static, Result<Value, Failure>>,
    ledger: &Ledger,
) -> Result<Poll<Result<Value, Failure>>, Failure> {
    let refused = || match ledger.broken() {
        Some(Broken::Mismatch(failure) | Broken::Refused(failure) | Broken::Unreadable(failure)) => Err(failure),
        None => Ok(()),
    };
    for _ in 0..REPLAY_ROUNDS {
        match poll_until_stalled(&mut future, ledger.bell()) {
            Poll::Ready(result) => {
                ledger.check_end();
                refused()?;
                return Ok(Poll::Ready(result));
            }
            Poll::Pending if ledger.bell().hear() => continue,
            Poll::Pending => {}
        }
        if !ledger.hand_out() && !ledger.catch_up() {
            refused()?;
            return Ok(Poll::Pending);
        }
    }
    Err(Failure::permanent("workflow.restless", "the definition wakes itself again and again"))
}

async fn answered(flush: &mut Option<oneshot::Receiver<bool>>) -> Result<bool, oneshot::error::RecvError> {
    match flush {
        Some(answer) => answer.await,
        None => pending().await,
    }
}

async fn reached(shop: &Shop, timer: Option<DateTime<Utc>>) {
    match timer {
        Some(due) => shop.me.reaches(due).await,
        None => pending().await,
    }
}

/// Resolves once somebody else owns the task.
pub(crate) async fn lost(standing: &mut watch::Receiver<Standing>) {
    if standing.wait_for(|s| *s == Standing::Lost).await.is_err() {
        // The lease is no longer kept because its end is being written: that write will tell.
        pending::<()>().await;
    }
}
