//! The short way of single activities: claims, ends and nothing else, hundreds in a round trip.
//!
//! A job belongs to no run, so nothing has to be recorded or woken when it ends. Its lease lasts as long as the incarnation
//! of this worker: see `migrations/35_workflow_jobs.sql`.

use crate::{
    activity::{LeasedTask, Policy, Standing},
    backend::Arrival,
    measures::{self, Writer},
    pump::{ANSWER, rough_size},
    retry,
    slots::{Slots, Warm},
    store::{
        self, Claimed, Fence, Lane,
        jobs::{DoneJobs, EndedJob, JobClaim, JobNews},
        session::Kept,
    },
    sweeper::Incarnation,
    trace,
    wakeup::{Mailbox, Ring, Wakeup},
};
use chrono::{DateTime, Utc};
use serde_json::Value;
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

/// Jobs of one round trip: ends, and claims of a queue.
const BATCH: usize = 1000;
/// Size of the outputs in a round trip, in bytes of JSON, beyond which it takes no further end.
const BATCH_BYTES: usize = 8 << 20;
/// After a claim that the database refused.
const REFUSED: Duration = Duration::from_millis(250);
/// Turns that finished jobs get to arrive together.
const GATHER: usize = 16;

/// The end of a job. `reply` hears whether it was accepted.
#[derive(Debug)]
pub(crate) struct JobEnd {
    pub id: i64,
    pub token: Uuid,
    pub how: JobOutcome,
    pub reply: oneshot::Sender<bool>,
}

#[derive(Debug)]
pub(crate) enum JobOutcome {
    Done(Value),
    Ended(&'static str, Option<Value>),
}

impl JobEnd {
    fn fence(&self) -> Fence {
        Fence { task_id: self.id, token: self.token }
    }

    fn size(&self) -> usize {
        match &self.how {
            JobOutcome::Done(Value::Null) => 0,
            JobOutcome::Done(output) => rough_size(output),
            JobOutcome::Ended(_, failure) => failure.as_ref().map_or(0, rough_size),
        }
    }
}

/// A queue this process works on.
#[derive(Debug)]
pub(crate) struct JobQueue {
    pub name: String,
    pub slots: Arc<Slots>,
    /// What this process knows to do.
    pub names: Vec<String>,
    /// Where its backend waits.
    pub out: mpsc::UnboundedSender<Arrival>,
    /// There may be more than was claimed last time.
    pub more: bool,
    /// Its terms have let less be claimed than there is room for: what ends here may make place.
    pub held: bool,
}

/// The lane of jobs of one process.
pub(crate) struct JobLane {
    pub sessions: Kept,
    pub labels: crate::activity::Labels,
    pub warm: Warm,
    pub me: Arc<Incarnation>,
    pub wakeup: Arc<Wakeup>,
    pub mailbox: Arc<Mailbox>,
    pub room: Arc<Notify>,
    pub ends: mpsc::UnboundedReceiver<JobEnd>,
    pub queues: Vec<JobQueue>,
    /// Which queue's slot a job uses. An incarnation may meet a job of the one before it.
    pub held: HashMap<Fence, usize>,
    pub pending: Vec<JobEnd>,
    /// Tokens of claims whose answer was lost, and when the statements that made them are over.
    pub unanswered: Vec<(Uuid, Instant)>,
    pub down: u32,
    pub next_poll: Instant,
    /// Under which incarnation jobs are claimed, and where they hear of its end.
    pub standing: (i64, watch::Sender<Standing>),
}

impl JobLane {
    /// Works until `closing` and until nothing is held any more; claims nothing once it is closing.
    pub(crate) async fn run(mut self, closing: CancellationToken) {
        let room = self.room.clone();
        loop {
            // Heard from here on: room that comes after the look is not missed.
            let freed = room.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            self.follow_incarnation();
            let open = !closing.is_cancelled() && self.me.id().is_some();
            if closing.is_cancelled() && self.held.is_empty() && self.pending.is_empty() {
                return;
            }
            if self.pending.is_empty() && !(open && self.claims_due()) {
                tokio::select! {
                    end = self.ends.recv() => match end {
                        Some(end) => self.pending.push(end),
                        None => return,
                    },
                    rings = self.mailbox.next() => self.hear(&rings),
                    () = freed => {}
                    () = tokio::time::sleep_until(self.next_poll) => {
                        self.next_poll = Instant::now() + self.wakeup.poll_interval(self.me.id().is_some());
                        self.queues.iter_mut().for_each(|q| q.more = true);
                    }
                    () = closing.cancelled(), if open => {}
                }
            }
            // Also when what works here leaves no room for a claim: others may have some.
            self.disown().await;
            self.gather().await;
            self.round(open).await;
        }
    }

    /// Jobs of an incarnation that was given up belong to somebody else.
    fn follow_incarnation(&mut self) {
        let id = self.me.id().unwrap_or_default();
        if id != self.standing.0 {
            let before = std::mem::replace(&mut self.standing, (id, watch::Sender::new(Standing::Held)));
            before.1.send_replace(Standing::Lost);
        }
    }

    fn hear(&mut self, rings: &HashSet<Ring>) {
        let all = rings.contains(&Ring::All);
        for q in &mut self.queues {
            q.more |= all || rings.contains(&Ring::Queue(q.name.clone()));
        }
    }

    fn claims_due(&self) -> bool {
        self.queues.iter().any(|q| q.more && !q.slots.is_full())
    }

    /// Takes the ends that have arrived, and those that arrive while everybody else has a turn.
    async fn gather(&mut self) {
        let mut bytes: usize = self.pending.iter().map(JobEnd::size).sum();
        for _ in 0..GATHER {
            let before = self.pending.len();
            while self.pending.len() < BATCH && bytes < BATCH_BYTES {
                let Ok(end) = self.ends.try_recv() else { break };
                bytes += end.size();
                self.pending.push(end);
            }
            if self.pending.len() == before || self.pending.len() >= BATCH {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn round(&mut self, open: bool) {
        let batch = std::mem::take(&mut self.pending);
        // Jobs that end with this round trip leave their slots to its claims.
        for end in &batch {
            if let Some(queue) = self.held.remove(&end.fence()) {
                let q = &mut self.queues[queue];
                q.slots.give(1);
                q.more |= q.held;
            }
        }
        let wants: Vec<usize> =
            self.queues.iter().map(|q| if open && q.more { q.slots.take(BATCH) } else { 0 }).collect();
        if batch.is_empty() && wants.iter().all(|want| *want == 0) {
            return;
        }
        let token = Uuid::new_v4();
        match self.trip(&batch, &wants, token).await {
            Ok(news) => {
                self.down = 0;
                self.digest(batch, &wants, news, token);
            }
            Err(error) => {
                for (q, want) in self.queues.iter().zip(&wants) {
                    q.slots.give(*want);
                }
                if wants.iter().any(|want| *want > 0) {
                    self.unanswered.push((token, Instant::now() + ANSWER));
                }
                self.survive(batch, error).await;
            }
        }
    }

    async fn trip(&self, batch: &[JobEnd], wants: &[usize], token: Uuid) -> sqlx::Result<Vec<JobNews>> {
        let (mut done, mut ended) = (DoneJobs::default(), Vec::new());
        for end in batch {
            match &end.how {
                JobOutcome::Done(output) => {
                    done.ids.push(end.id);
                    done.tokens.push(end.token);
                    done.outputs.push((!output.is_null()).then(|| output.clone()));
                }
                JobOutcome::Ended(outcome, failure) => {
                    ended.push(EndedJob { id: end.id, token: end.token, outcome, failure: failure.clone() });
                }
            }
        }
        let holds = self.warm.list();
        let wanted = self.queues.iter().zip(wants).filter(|(_, want)| **want > 0);
        let claims: Vec<JobClaim<'_>> = wanted
            .map(|(q, want)| JobClaim { queue: &q.name, want: *want, names: &q.names, holds: holds.as_deref() })
            .collect();
        let asked_at = Instant::now();
        let mut session = self.sessions.take().await?;
        let trip = store::jobs::pump(session.db(), self.standing.0, &done, &ended, &claims, token, &self.labels);
        let news = store::in_time(ANSWER, trip).await;
        let news = self.sessions.done(session, news)?;
        Writer::Jobs.round_trip(asked_at.elapsed(), batch.len());
        Ok(news)
    }

    fn digest(&mut self, batch: Vec<JobEnd>, wants: &[usize], news: Vec<JobNews>, token: Uuid) {
        let mut stale = HashSet::new();
        let mut got = vec![0; self.queues.len()];
        count(&batch, &news);
        self.count_claims(&news);
        for (q, _) in self.queues.iter_mut().zip(wants).filter(|(_, want)| **want > 0) {
            q.held = false;
        }
        for item in news {
            if item.what == "stale" {
                stale.insert(item.id);
            } else if item.what == "later" {
                self.come_back(item.run_at);
            } else if item.what == "held" {
                self.queues.iter_mut().filter(|q| Some(&q.name) == item.queue.as_ref()).for_each(|q| q.held = true);
                item.run_at.into_iter().for_each(|at| self.come_back(Some(at)));
            } else if let Some((i, arrival)) = self.arrival(item, token) {
                got[i] += 1;
                self.held.insert(arrival.claimed.fence(), i);
                if let Err(unwanted) = self.queues[i].out.send(arrival) {
                    // The queue has closed since the claim.
                    self.pending.push(crate::backend::given_back_job(&unwanted.0.claimed));
                }
            }
        }
        for ((q, want), got) in self.queues.iter_mut().zip(wants).zip(got) {
            if *want > 0 {
                q.slots.give(want.saturating_sub(got));
                // The claims of a trip come after its writes: fewer than wanted means that nothing is left.
                q.more = got >= *want;
            }
        }
        for end in batch {
            let _ = end.reply.send(!stale.contains(&end.id));
        }
    }

    fn count_claims(&self, news: &[JobNews]) {
        let now = self.me.now();
        for queue in &self.queues {
            let claimed = news.iter().filter(|item| item.what == "job" && item.queue.as_ref() == Some(&queue.name));
            let waits: Vec<_> = claimed.map(|item| now.zip(item.run_at).map(|(now, ready)| now - ready)).collect();
            if waits.is_empty() {
                continue;
            }
            metrics::counter!(measures::CLAIMS, "queue" => queue.name.clone()).increment(waits.len() as u64);
            let histogram = metrics::histogram!(measures::QUEUE_SECONDS, "queue" => queue.name.clone());
            waits.into_iter().flatten().for_each(|wait| histogram.record(wait.to_std().unwrap_or_default()));
        }
    }

    /// There is something to claim at `run_at`.
    fn come_back(&mut self, run_at: Option<DateTime<Utc>>) {
        self.next_poll = self.next_poll.min(run_at.map_or_else(Instant::now, |at| self.me.when(at)));
    }

    fn arrival(&self, news: JobNews, token: Uuid) -> Option<(usize, Arrival)> {
        let queue = news.queue?;
        let i = self.queues.iter().position(|q| q.name == queue)?;
        let limit = news.policy.as_ref().and_then(|p| p["start_to_close"].as_f64());
        let default = Policy::default();
        let task = LeasedTask {
            task_id: news.id,
            run_id: Uuid::nil(),
            tenant_id: news.tenant_id?,
            key: news.id.to_string(),
            activity: news.activity?,
            input: news.input.unwrap_or_default(),
            attempt_no: news.attempt_no?,
            lease_token: token,
            lease_seconds: default.lease.as_secs_f64(),
            start_to_close_seconds: limit.unwrap_or(default.start_to_close.as_secs_f64()),
            traceparent: trace::parse(news.traceparent.as_deref()),
        };
        let claimed = Claimed { task, queue, run: None, at: news.run_at?, lane: Lane::Job };
        Some((i, Arrival { claimed, standing: self.standing.1.subscribe() }))
    }

    /// A round trip has failed: the ends it carried are kept and sent again.
    async fn survive(&mut self, batch: Vec<JobEnd>, error: sqlx::Error) {
        if store::is_transient(&error) {
            self.pending = batch;
            self.down += 1;
            tracing::warn!(%error, pending = self.pending.len(), "cannot reach the database; results of jobs are kept");
            let pause = retry::exponential(Duration::from_millis(20), Duration::from_secs(2), self.down);
            return tokio::time::sleep(retry::jittered(pause)).await;
        }
        if batch.is_empty() {
            tracing::error!(%error, "the database refuses a claim of jobs");
            return tokio::time::sleep(REFUSED).await;
        }
        // One of them is the culprit; each goes alone, the others must not suffer.
        for end in batch {
            match self.trip(std::slice::from_ref(&end), &[], Uuid::new_v4()).await {
                Ok(news) => self.digest(vec![end], &[], news, Uuid::nil()),
                Err(error) => self.refuse(end, &error),
            }
        }
    }

    /// An end that the database will never take becomes a failure that it can take.
    fn refuse(&mut self, mut end: JobEnd, error: &sqlx::Error) {
        if store::is_transient(error) {
            return self.pending.push(end);
        }
        tracing::error!(%error, job_id = end.id, "the database refuses the end of a job");
        if let JobOutcome::Done(_) = end.how {
            let why = format!("the outcome cannot be stored: {error}");
            let failure = crate::failure::Failure::permanent("workflow.unrecordable", why);
            end.how = JobOutcome::Ended("failed", Some(crate::record::storable(&failure)));
            self.pending.push(end);
        }
    }

    /// Gives back, uncounted, what was claimed without an answer.
    async fn disown(&mut self) {
        let now = Instant::now();
        let over: Vec<Uuid> = self.unanswered.iter().filter(|(_, at)| *at <= now).map(|(token, _)| *token).collect();
        if over.is_empty() {
            return;
        }
        let disowned = async {
            let mut session = self.sessions.take().await?;
            let freed = store::in_time(ANSWER, store::jobs::disown(session.db(), self.standing.0, &over)).await;
            self.sessions.done(session, freed)
        };
        match disowned.await {
            Ok(_) => self.unanswered.retain(|(token, _)| !over.contains(token)),
            Err(error) => tracing::debug!(%error, "cannot look for jobs whose claim was not answered"),
        }
    }
}

/// Counts how attempts ended, and which failed ones are to be repeated.
fn count(batch: &[JobEnd], news: &[JobNews]) {
    for outcome in ["ok", "failed", "cancelled", "released", "lost"] {
        let ended = |end: &&JobEnd| match &end.how {
            JobOutcome::Done(_) => outcome == "ok",
            JobOutcome::Ended(how, _) => *how == outcome,
        };
        let ends = batch.iter().filter(ended);
        let count = ends.clone().count();
        if count > 0 {
            metrics::counter!(measures::JOBS, "outcome" => outcome).increment(count as u64);
        }
        if count > 0 && outcome == "failed" {
            let later = |end: &&JobEnd| news.iter().any(|item| item.what == "later" && item.id == end.id);
            Writer::Jobs.retries(ends.filter(later).count());
        }
    }
}
