//! A round trip: what it carries, what it brings back, and what of it became of a batch of writes.

use super::{ANSWER, Wanted, What, Write};
use crate::{
    measures::{self, Writer},
    record::Kind,
    store::{
        self, Fence, News,
        session::Kept,
        tasks::{Claimant, NewRun, Plain, Trip},
    },
};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use tokio::time::Instant;
use uuid::Uuid;

/// A round trip that is over.
pub(super) struct Landing {
    pub batch: Vec<Write>,
    pub claims: Vec<Wanted>,
    /// Slots that were taken for runs of the batch to start in.
    pub lease: usize,
    pub asked_at: Instant,
    pub answer: sqlx::Result<Vec<News>>,
}

/// One round trip and one commit.
pub(super) async fn fly(
    sessions: Kept,
    who: Claimant,
    wishes: Vec<Value>,
    batch: Vec<Write>,
    claims: Vec<Wanted>,
    lease: usize,
) -> Landing {
    let (mut attempts, mut ops, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    for write in &batch {
        match &write.what {
            What::Attempt { entry, .. } => attempts.push(entry),
            What::Ops(entries) => ops.extend(entries),
            What::Plain(entry) => plain.push((write.fence, entry)),
            What::Start(_) | What::Forget => {}
        }
    }
    let starts: Vec<&NewRun> = batch.iter().filter_map(Write::start).collect();
    plain.sort_unstable_by_key(|(fence, _)| fence.task_id);
    let again = batch.iter().any(|write| write.again);
    let load = Trip { attempts: &attempts, ops: &ops, plain: &plain, again, starts: &starts, lease, claims: &wishes };
    let asked_at = Instant::now();
    let answer = async {
        let mut session = sessions.take().await?;
        let news = store::in_time(ANSWER, store::tasks::pump(session.db(), &who, load)).await;
        sessions.done(session, news)
    };
    let answer = answer.await;
    Writer::Tasks.round_trip(asked_at.elapsed(), batch.len());
    Landing { batch, claims, lease, asked_at, answer }
}

/// How many failed attempts were taken in and are to be repeated: those of which nothing was recorded.
pub(super) fn retries(batch: &[Write], settled: &HashSet<Fence>, news: &[News]) -> usize {
    let failed = |write: &&Write| match &write.what {
        What::Attempt { entry, .. } => matches!(entry["outcome"].as_str(), Some("failed" | "timeout")),
        _ => false,
    };
    let recorded = |fence: Fence| news.iter().any(|n| matches!(n, News::Recorded(r) if r.token == Some(fence.token)));
    batch.iter().filter(failed).filter(|w| settled.contains(&w.fence) && !recorded(w.fence)).count()
}

pub(super) fn count(what: &What) {
    if let What::Attempt { entry, .. } = what {
        let outcome = entry["outcome"].as_str().unwrap_or_default().to_owned();
        metrics::counter!(measures::ATTEMPTS, "outcome" => outcome).increment(1);
    }
}

/// What a batch wrote, by the token and key of its records: kind, name and output.
pub(super) type Written = HashMap<(Uuid, String), (Kind, Option<String>, Value)>;

pub(super) fn written(batch: &[Write]) -> Written {
    let mut written = Written::new();
    for write in batch {
        let token = write.fence.token;
        match &write.what {
            What::Attempt { entry, key, activity } => {
                let record = (Kind::Activity, Some(activity.clone()), entry["output"].clone());
                written.insert((token, key.clone()), record);
            }
            What::Ops(ops) => {
                written.extend(
                    ops.iter().filter_map(|op| Some(((token, op["key"].as_str()?.to_owned()), recorded_by(op)?))),
                );
            }
            What::Plain(Plain { what, key: Some(key), name, body, .. }) => {
                let record = (Kind::parse(what), name.map(str::to_owned), body.clone().unwrap_or_default());
                written.insert((token, key.clone()), record);
            }
            What::Plain(_) | What::Start(_) | What::Forget => {}
        }
    }
    written
}

/// The record that an op of a run brings about by itself.
fn recorded_by(op: &Value) -> Option<(Kind, Option<String>, Value)> {
    match op["op"].as_str()? {
        "timer" => Some((Kind::Timer, None, Value::Null)),
        "mark" => {
            Some((Kind::parse(op["kind"].as_str()?), op["name"].as_str().map(str::to_owned), op["output"].clone()))
        }
        _ => None,
    }
}
