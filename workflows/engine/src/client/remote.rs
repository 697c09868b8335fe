//! The remote side of the queue: leases of workers that have no incarnation. What such workers reach over a network is in
//! [`crate::remote`].

use super::{Client, Error};
use crate::{
    activity::{Labels, LeasedTask, Progress, Standing},
    failure::Failure,
    record::to_payload,
    store::{
        self, News, rings,
        tasks::{Claimant, Trip, attempt_failed},
    },
    wakeup::{Mailbox, Ring},
    worker::RUN_QUEUE,
};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgConnection;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Longest list of tasks one claim may ask for.
const CLAIM_LIMIT: u32 = 500;
/// A remote worker is noted this often, and those that are due in so short a time with it.
const REMOTE_NOTE: Duration = Duration::from_secs(30);
const NOTED_TOGETHER: Duration = Duration::from_secs(15);

impl Client {
    /// Leases up to `limit` ready tasks of `queues` to a remote `worker` that has `labels`. Never waits.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn claim(
        &self,
        queues: &[&str],
        labels: &Labels,
        worker: &str,
        limit: u32,
    ) -> Result<Vec<LeasedTask>, Error> {
        self.claim_named(queues, None, labels, &[], worker, limit).await
    }

    /// As [`Client::claim`], for a worker that holds something already: see [`crate::Activity::warm_key`].
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn claim_holding(
        &self,
        queues: &[&str],
        labels: &Labels,
        holds: &[String],
        worker: &str,
        limit: u32,
    ) -> Result<Vec<LeasedTask>, Error> {
        self.claim_named(queues, None, labels, holds, worker, limit).await
    }

    /// As [`Client::claim_holding`], of the activities `names` only, if there are any.
    pub(crate) async fn claim_named(
        &self,
        queues: &[&str],
        names: Option<&[String]>,
        labels: &Labels,
        holds: &[String],
        worker: &str,
        limit: u32,
    ) -> Result<Vec<LeasedTask>, Error> {
        let who = Claimant { worker_id: None, name: worker.to_owned(), labels: labels.clone() };
        if queues.iter().any(|queue| *queue != RUN_QUEUE) {
            self.note_worker(worker, queues, labels).await?;
        }
        let mut leased = Vec::new();
        for queue in queues.iter().filter(|queue| **queue != RUN_QUEUE) {
            let want = limit.min(CLAIM_LIMIT) as usize - leased.len();
            if want == 0 {
                break;
            }
            let holds = (!holds.is_empty()).then_some(holds);
            let claim = json!({ "queue": queue, "want": want, "names": names, "holds": holds });
            let news = store::tasks::pump(&self.pool, &who, Trip { claims: &[claim], ..Trip::default() }).await?;
            leased.extend(claimed(news));
        }
        self.readable(leased).await
    }

    /// Leases to a remote `worker` those of `task_ids` that are still ready: for an application that chooses itself who does what. Who
    /// comes second gets fewer, or none. Queues with terms are closed to it.
    pub(crate) async fn claim_these(
        &self,
        queues: &[&str],
        names: Option<&[String]>,
        labels: &Labels,
        worker: &str,
        task_ids: &[i64],
    ) -> Result<Vec<LeasedTask>, Error> {
        let who = Claimant { worker_id: None, name: worker.to_owned(), labels: labels.clone() };
        if task_ids.is_empty() {
            return Ok(Vec::new());
        }
        let news = store::tasks::claim_these(&self.pool, &who, queues, names, task_ids).await?;
        self.readable(claimed(news).collect()).await
    }

    /// Notes that a remote worker lives and what it can do, for whoever asks why a task waits. Those of one time are written together.
    pub(crate) async fn note_worker(&self, worker: &str, queues: &[&str], labels: &Labels) -> Result<(), Error> {
        let due = self.remotes.lock().unwrap_or_else(PoisonError::into_inner).note(worker, queues, labels);
        Ok(store::operations::seen_remotely(&self.pool, &due).await?)
    }

    /// The tasks with their inputs; one whose input cannot be read fails, and does not keep the others.
    async fn readable(&self, leased: Vec<LeasedTask>) -> Result<Vec<LeasedTask>, Error> {
        let mut readable = Vec::with_capacity(leased.len());
        for mut task in leased {
            match self.opened(task.tenant_id, task.input.take()).await {
                Ok(input) => readable.push(LeasedTask { input, ..task }),
                // Nobody can do it as it is: the others are not to wait for that.
                Err(Error::Payload(failure)) => self.fail(task.task_id, task.lease_token, &failure).await?,
                Err(error) => return Err(error),
            }
        }
        Ok(readable)
    }

    /// Renews a lease, stores progress, and says whether to go on. Renewals of one time are written together.
    ///
    /// # Errors
    /// [`Error::Unrecordable`] when the progress cannot be stored; [`Error::Database`].
    pub async fn renew(&self, task_id: i64, token: Uuid, progress: Option<&Progress>) -> Result<Standing, Error> {
        let progress = progress.map(|p| to_payload(p).map_err(Error::Unrecordable)).transpose()?;
        let mut cancelled = match self.renewals.renew(&self.pool, task_id, token, progress.clone()).await {
            Some(answer) => answer,
            None => only(store::tasks::renew(&self.pool, &[task_id], &[token], &[progress]).await?),
        };
        if cancelled.is_none() {
            cancelled = only(store::tasks::standing(&self.pool, &[task_id], &[token]).await?);
        }
        Ok(match cancelled {
            Some(false) => Standing::Held,
            Some(true) => Standing::Cancelled,
            None => Standing::Lost,
        })
    }

    /// Records the output of an attempt. Repeating the call after a lost answer is harmless.
    ///
    /// # Errors
    /// [`Error::LeaseLost`]; [`Error::Unrecordable`]; [`Error::Payload`].
    pub async fn complete(&self, task_id: i64, token: Uuid, output: &impl Serialize) -> Result<(), Error> {
        let output = self.stored_for(output, store::tasks::tenant_of(&self.pool, task_id)).await?;
        self.settle(json!({ "task_id": task_id, "token": token, "outcome": "ok", "output": output })).await
    }

    /// Ends an attempt with a failure: the task is repeated after its backoff, or the failure recorded.
    ///
    /// # Errors
    /// [`Error::LeaseLost`].
    pub async fn fail(&self, task_id: i64, token: Uuid, failure: &Failure) -> Result<(), Error> {
        self.settle(attempt_failed(task_id, token, failure)).await
    }

    /// Gives a task back; the attempt counts neither as failed nor as lost.
    ///
    /// # Errors
    /// [`Error::LeaseLost`].
    pub async fn release(&self, task_id: i64, token: Uuid) -> Result<(), Error> {
        self.settle(json!({ "task_id": task_id, "token": token, "outcome": "released" })).await
    }

    async fn settle(&self, attempt: Value) -> Result<(), Error> {
        let task_id = attempt["task_id"].as_i64().unwrap_or_default();
        let token: Uuid = serde_json::from_value(attempt["token"].clone()).unwrap_or_default();
        let outcome = attempt["outcome"].as_str().unwrap_or_default().to_owned();
        let who = Claimant { worker_id: None, name: String::new(), labels: Labels::new() };
        let news = store::tasks::pump(&self.pool, &who, Trip { attempts: &[&attempt], ..Trip::default() }).await?;
        self.wakeup.announce(rings(&news, None));
        if news.iter().any(|n| matches!(n, News::Settled(_))) {
            return Ok(());
        }
        match store::tasks::ended_as(&self.pool, task_id, token).await? {
            Some(before) if before == outcome => Ok(()),
            _ => Err(Error::LeaseLost(task_id)),
        }
    }

    /// Whether a lease is held at this moment.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn holds(&self, task_id: i64, token: Uuid) -> Result<bool, Error> {
        Ok(store::tasks::holds(&self.pool, task_id, token).await?)
    }

    /// Whether a lease is held; if so nobody can take it away before the caller's transaction ends.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn holds_for_share(&self, tx: &mut PgConnection, task_id: i64, token: Uuid) -> Result<bool, Error> {
        Ok(store::tasks::holds_for_share(tx, task_id, token).await?)
    }

    /// The input of a leased task.
    ///
    /// # Errors
    /// [`Error::LeaseLost`]; [`Error::Payload`].
    pub async fn task_input(&self, task_id: i64, token: Uuid) -> Result<Value, Error> {
        let (tenant, input) =
            store::tasks::input(&self.pool, task_id, token).await?.ok_or(Error::LeaseLost(task_id))?;
        self.opened(tenant, input).await
    }

    /// Hears of new work on `queues` from now on. For long polls: watch, claim, and while there is nothing wait and
    /// claim again. A message can be lost, so never wait much longer than a second before the next claim.
    pub fn watch(&self, queues: &[&str]) -> WorkWatch {
        self.wakeup.clone().listen_in_background();
        let queues = queues.iter().map(|&queue| Ring::Queue(queue.to_owned())).chain([Ring::All]).collect();
        WorkWatch { queues, mailbox: self.wakeup.subscribe() }
    }

    /// Waits until there may be work on one of `queues`, at most `timeout`; see [`Client::watch`].
    pub async fn wait_for_work(&self, queues: &[&str], timeout: Duration) -> bool {
        self.watch(queues).wait(timeout).await
    }
}

fn only(answer: Vec<(i64, bool)>) -> Option<bool> {
    answer.first().map(|(_, cancelled)| *cancelled)
}

fn claimed(news: Vec<News>) -> impl Iterator<Item = LeasedTask> {
    news.into_iter().filter_map(|n| match n {
        News::Claimed(claimed) => Some(claimed.task),
        _ => None,
    })
}

/// A remote worker, as it is noted: its name, its queues, its labels.
pub(crate) type RemoteNote = (String, Vec<String>, Labels);

/// Remote workers that have been heard of in this process, and when each was noted.
#[derive(Debug, Default)]
pub(crate) struct Remotes {
    heard: HashMap<String, (Instant, RemoteNote)>,
    again: HashSet<String>,
}

impl Remotes {
    /// It was heard of; answers what is to be written now: nothing, it alone when it is new, or all that are due.
    fn note(&mut self, worker: &str, queues: &[&str], labels: &Labels) -> Vec<RemoteNote> {
        let note = (worker.to_owned(), queues.iter().map(|&queue| queue.to_owned()).collect(), labels.clone());
        let Some((at, before)) =
            self.heard.get_mut(worker).filter(|(at, before)| at.elapsed() < 4 * REMOTE_NOTE && *before == note)
        else {
            self.heard.insert(worker.to_owned(), (Instant::now(), note.clone()));
            return vec![note];
        };
        *before = note;
        self.again.insert(worker.to_owned());
        if at.elapsed() < REMOTE_NOTE {
            return Vec::new();
        }
        let due: Vec<String> = self.again.iter().cloned().collect();
        let heard = &mut self.heard;
        let due = due.into_iter().filter_map(|worker| {
            let (at, note) = heard.get_mut(&worker)?;
            (at.elapsed() >= NOTED_TOGETHER).then(|| {
                *at = Instant::now();
                self.again.remove(&worker);
                note.clone()
            })
        });
        let due = due.collect();
        self.heard.retain(|_, (at, _)| at.elapsed() < 4 * REMOTE_NOTE);
        self.again.retain(|worker| self.heard.contains_key(worker));
        due
    }
}

/// Hears of new work, also of work that came between two waits.
#[derive(Debug)]
pub struct WorkWatch {
    queues: HashSet<Ring>,
    mailbox: Arc<Mailbox>,
}

impl WorkWatch {
    /// Waits until there may be work, at most `timeout`; false when it is up.
    pub async fn wait(&self, timeout: Duration) -> bool {
        let wanted = async { while self.mailbox.next().await.is_disjoint(&self.queues) {} };
        tokio::time::timeout(timeout, wanted).await.is_ok()
    }
}
