//! What is asked, how it is drawn, and the messages it makes.

use super::super::{cancelled, text};
use super::WORK;
use crate::{
    store::{Fence, tasks::Plain},
    worker::RUN_QUEUE,
};
use chrono::{DateTime, Utc};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;

#[derive(Debug, Clone)]
pub(super) enum Command {
    Start { business: Option<u8> },
    StartHere { worker: u8, runs: u8, lease: u8, again: bool },
    Claim { worker: u8, runs: bool, want: u8, gpu: bool },
    Pump(Vec<Batch>),
    Step { run: u8, key: u8, ok: bool },
    Renew { task: u8 },
    Cancel { run: u8 },
    Signal { run: u8, dedupe: Option<u8> },
    Resume { run: u8 },
    Pass { seconds: u32 },
    Wake,
    Recover { gone: Option<u8> },
    RetryNow { task: u8 },
    ForceRelease { task: u8 },
    Skip { task: u8 },
    Priority { run: u8, priority: i16 },
    Fork { run: u8, retry: bool, from: Option<u8> },
    Pause { paused: bool },
}

/// What one lease, perhaps a stale one, writes in a round trip.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    pub lease: u8,
    pub end: Ending,
    pub ops: Vec<Op>,
    pub mark: Option<u8>,
    pub leave: Option<Leave>,
}

/// How an attempt at an activity ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ending {
    Ok,
    Fails,
    FailsForGood,
    Throttled,
    Cancelled,
    Released,
    TimedOut,
}

#[derive(Debug, Clone)]
pub(super) enum Op {
    Request { key: u8, frail: bool, slow: bool, gpu: bool },
    Child { key: u8 },
    Start { key: u8, business: Option<u8> },
    Withdraw { key: u8, child: bool },
    Timer { key: u8, reached: bool },
    Compensation { key: u8 },
}

#[derive(Debug, Clone)]
pub(super) enum Leave {
    Park { behind: u8, due: Option<u32> },
    SetAside,
    Release,
    End { state: u8 },
    EndWithRecord { state: u8, behind: u8 },
    EndByOp { state: u8 },
    Continue { unseen: u8 },
}

pub(super) fn commands() -> impl Strategy<Value = Vec<Command>> {
    let few = || 0u8..4;
    let op = prop_oneof![
        4 => (few(), any::<bool>(), any::<bool>(), prop::bool::weighted(0.2)).prop_map(|(key, frail, slow, gpu)| Op::Request { key, frail, slow, gpu }),
        3 => few().prop_map(|key| Op::Child { key }),
        1 => (few(), prop::option::of(0u8..2)).prop_map(|(key, business)| Op::Start { key, business }),
        1 => (few(), any::<bool>()).prop_map(|(key, child)| Op::Withdraw { key, child }),
        1 => (few(), any::<bool>()).prop_map(|(key, reached)| Op::Timer { key, reached }),
        1 => few().prop_map(|key| Op::Compensation { key }),
    ];
    let leave = prop_oneof![
        3 => (0u8..2, prop::option::of(0u32..100)).prop_map(|(behind, due)| Leave::Park { behind, due }),
        1 => Just(Leave::SetAside),
        1 => Just(Leave::Release),
        2 => (0u8..3).prop_map(|state| Leave::End { state }),
        2 => (0u8..3, 0u8..2).prop_map(|(state, behind)| Leave::EndWithRecord { state, behind }),
        1 => (0u8..3).prop_map(|state| Leave::EndByOp { state }),
        3 => (0u8..3).prop_map(|unseen| Leave::Continue { unseen }),
    ];
    let end = prop_oneof![
        3 => Just(Ending::Ok),
        2 => Just(Ending::Fails),
        1 => Just(Ending::FailsForGood),
        1 => Just(Ending::Throttled),
        1 => Just(Ending::Cancelled),
        1 => Just(Ending::Released),
        1 => Just(Ending::TimedOut),
    ];
    let lease = prop_oneof![3 => 0u8..2, 1 => 0u8..8];
    let batch = (
        lease,
        end,
        prop::collection::vec(op, 0..4),
        prop::option::weighted(0.3, few()),
        prop::option::weighted(0.4, leave),
    )
        .prop_map(|(lease, end, ops, mark, leave)| Batch { lease, end, ops, mark, leave });
    let command = prop_oneof![
        3 => prop::option::of(0u8..2).prop_map(|business| Command::Start { business }),
        1 => (0u8..3, 0u8..3, 0u8..3, any::<bool>())
            .prop_map(|(worker, runs, lease, again)| Command::StartHere { worker, runs, lease, again }),
        7 => (0u8..3, any::<bool>(), 1u8..4, prop::bool::weighted(0.7))
            .prop_map(|(worker, runs, want, gpu)| Command::Claim { worker, runs, want, gpu }),
        9 => prop::collection::vec(batch, 1..3).prop_map(Command::Pump),
        2 => (0u8..8, few(), any::<bool>()).prop_map(|(run, key, ok)| Command::Step { run, key, ok }),
        1 => (0u8..8).prop_map(|task| Command::Renew { task }),
        1 => few().prop_map(|run| Command::Cancel { run }),
        2 => (few(), prop::option::of(0u8..2)).prop_map(|(run, dedupe)| Command::Signal { run, dedupe }),
        1 => few().prop_map(|run| Command::Resume { run }),
        3 => prop::sample::select(vec![1, 7, 31, 700, 90_000]).prop_map(|seconds| Command::Pass { seconds }),
        2 => Just(Command::Wake),
        3 => prop::option::of(0u8..3).prop_map(|gone| Command::Recover { gone }),
        1 => (0u8..8).prop_map(|task| Command::RetryNow { task }),
        1 => (0u8..8).prop_map(|task| Command::ForceRelease { task }),
        1 => (0u8..8).prop_map(|task| Command::Skip { task }),
        1 => (few(), -1i16..2).prop_map(|(run, priority)| Command::Priority { run, priority }),
        4 => (0u8..8, any::<bool>(), prop::option::of(few())).prop_map(|(run, retry, from)| Command::Fork { run, retry, from }),
        1 => prop::bool::weighted(0.3).prop_map(|paused| Command::Pause { paused }),
    ];
    // By chance alone a child seldom ends while its parent lives.
    let claim = || Command::Claim { worker: 1, runs: true, want: 9, gpu: false };
    let write = |op: Option<Op>, leave: Option<Leave>| {
        let batch = Batch { lease: 0, end: Ending::Ok, ops: op.into_iter().collect(), mark: None, leave };
        Command::Pump(vec![batch])
    };
    let family = (0u8..4, 0u8..3).prop_map(move |(key, state)| {
        let (bear, end) = (write(Some(Op::Child { key }), None), write(None, Some(Leave::End { state })));
        vec![Command::Start { business: None }, claim(), bear, claim(), end]
    });
    // Nor do both end in one trip. The newest lease is the child's: who has asked for a child does not end with a record.
    let together = (0u8..4, 0u8..3, 0u8..2).prop_map(move |(key, state, behind)| {
        let last = |lease, leave| Batch { lease, end: Ending::Ok, ops: vec![], mark: None, leave: Some(leave) };
        let ends = vec![last(0, Leave::EndWithRecord { state, behind }), last(1, Leave::End { state })];
        let bear = write(Some(Op::Child { key }), None);
        vec![Command::Start { business: None }, claim(), bear, claim(), Command::Pump(ends)]
    });
    // Nor is an attempt lost twice.
    let unlucky = (0u8..3, any::<bool>()).prop_map(move |(key, slow)| {
        let ask = write(Some(Op::Request { key, frail: false, slow, gpu: false }), None);
        let work = || Command::Claim { worker: 2, runs: false, want: 9, gpu: true };
        let lose = || Command::Recover { gone: Some(2) };
        vec![Command::Start { business: None }, claim(), ask, work(), lose(), work(), lose()]
    });
    // Nor is anything asked for again after the run was cancelled, while somebody works on it.
    let again = (0u8..3, any::<bool>()).prop_map(move |(key, child)| {
        let op = || if child { Op::Child { key } } else { Op::Request { key, frail: false, slow: false, gpu: false } };
        let asks = |lease| Batch { lease, end: Ending::Ok, ops: vec![op()], mark: None, leave: None };
        let work = Command::Claim { worker: 2, runs: child, want: 9, gpu: true };
        let begin = vec![Command::Start { business: None }, claim(), Command::Pump(vec![asks(0)]), work];
        let cancel = (0..2).map(|run| Command::Cancel { run }).collect();
        [begin, cancel, vec![Command::Pump(vec![asks(1)])]].concat()
    });
    let commands = prop_oneof![
        30 => command.prop_map(|command| vec![command]), 1 => family, 1 => together, 1 => unlucky, 1 => again
    ];
    prop::collection::vec(commands, 5..80).prop_map(|commands| commands.concat())
}

/// The messages of a round trip.
#[derive(Default)]
pub(super) struct Round {
    pub attempts: Vec<Value>,
    pub ops: Vec<Value>,
    pub plain: Vec<(Fence, Plain)>,
}

impl Round {
    /// What the executor of a run sends.
    pub(super) fn write(&mut self, fence: Fence, batch: &Batch, (seen, signals): (i64, &[String]), now: DateTime<Utc>) {
        let mut keys = BTreeSet::new();
        for op in &batch.ops {
            let op = op.to_json(fence);
            // What was only just asked for is not asked for after all: the ledger sends one op a key.
            if keys.insert(text(&op, "key").to_owned()) {
                self.ops.push(op);
            }
        }
        if let Some(key) = batch.mark {
            let plain =
                Plain { what: "step", key: Some(format!("m{key}")), body: Some(json!(key)), ..Plain::default() };
            self.plain.push((fence, plain));
        }
        let lasting = |state: u8| match state {
            0 => ("succeeded", json!(9)),
            1 => ("failed", json!({ "code": "t.failed", "message": "no", "retryable": false })),
            _ => ("cancelled", cancelled()),
        };
        let mut op = |op: Value| {
            let mut op = op;
            (op["task_id"], op["token"]) = (json!(fence.task_id), json!(fence.token));
            self.ops.push(op);
        };
        // Its last write comes alone, after everything else of it is written.
        match batch.leave.as_ref().filter(|_| batch.mark.is_none()) {
            Some(Leave::Park { behind, due }) => {
                let due = due.map(|seconds| now + chrono::Duration::seconds(i64::from(seconds)));
                op(json!({ "op": "park", "seq": seen - i64::from(*behind), "due": due }));
            }
            Some(Leave::SetAside) => op(json!({ "op": "park", "reason": "version_mismatch", "failure": cancelled() })),
            Some(Leave::Release) => op(json!({ "op": "release" })),
            Some(Leave::EndByOp { state }) => {
                let (state, body) = lasting(*state);
                let field = if state == "succeeded" { "output" } else { "error" };
                op(json!({ "op": "end", "state": state, field: body }));
            }
            Some(Leave::Continue { unseen }) => {
                let next = json!({ "version": 1, "activity": "a.v1", "priority": 0, "input": 2,
                    "seq": seen - i64::from(*unseen), "signals": signals });
                op(json!({ "op": "end", "state": "succeeded", "next": next }));
            }
            Some(Leave::End { state }) => {
                let (what, body) = lasting(*state);
                self.plain.push((fence, Plain { what, body: Some(body), ..Plain::default() }));
            }
            Some(Leave::EndWithRecord { state, behind }) => {
                let (what, body) = lasting(*state);
                let (key, seq) = (format!("z{seen}"), Some(seen + 1 - i64::from(*behind)));
                let last = Plain { what: "step", key: Some(key), body: Some(json!(7)), seq, ..Plain::default() };
                let end = Plain { what, body: Some(body), seq, last: Some(Box::new(last)), ..Plain::default() };
                self.plain.push((fence, end));
            }
            None => {}
        }
    }
}

impl Op {
    fn to_json(&self, fence: Fence) -> Value {
        let mut op = match self {
            // The last key is that of a compensation.
            Self::Request { key, frail, slow, gpu } => json!({
                "op": "request", "key": format!("a{key}"), "queue": WORK, "activity": "Work", "input": key,
                "labels": if *gpu { json!({ "gpu": "yes" }) } else { json!({}) }, "shielded": *key == 3,
                "max_failures": if *frail { 1 } else { 3 }, "max_losses": if *frail { 1 } else { 3 },
                "backoff_base": if *slow { 2.0 } else { 0.0 }, "backoff_cap": 60.0, "lease": 30.0, "start_to_close": 600.0,
            }),
            Self::Child { key } => json!({
                "op": "child", "key": format!("c{key}"), "kind": "a", "version": 1, "activity": "a.v1", "queue": RUN_QUEUE,
                "priority": 0, "max_losses": 2, "input": 1, "business_key": null,
            }),
            Self::Start { key, business } => json!({
                "op": "start", "key": format!("d{key}"), "kind": "a", "version": 1, "activity": "a.v1", "queue": RUN_QUEUE,
                "priority": 0, "max_losses": 10, "input": 1, "business_key": business.map(|n| n.to_string()),
            }),
            Self::Withdraw { key, child } => {
                json!({ "op": "withdraw", "key": format!("{}{key}", if *child { 'c' } else { 'a' }) })
            }
            Self::Timer { key, reached } => {
                json!({ "op": "timer", "key": format!("t{key}"), "outcome": if *reached { "ok" } else { "cancelled" } })
            }
            Self::Compensation { key } => json!({
                "op": "mark", "key": format!("$compensate:a{key}"), "kind": "compensation", "name": "Work", "output": 1,
            }),
        };
        (op["task_id"], op["token"]) = (json!(fence.task_id), json!(fence.token));
        op
    }
}

pub(super) fn attempt(fence: Fence, end: Ending) -> Value {
    let failure = |retryable: bool| json!({ "code": "t.failed", "message": "no", "retryable": retryable });
    let (outcome, output, failure) = match end {
        Ending::Ok => ("ok", json!(3), Value::Null),
        Ending::Fails => ("failed", Value::Null, failure(true)),
        Ending::FailsForGood => ("failed", Value::Null, failure(false)),
        Ending::Throttled => {
            let mut busy = failure(true);
            busy["retry_after_seconds"] = json!(40.0);
            ("failed", Value::Null, busy)
        }
        Ending::Cancelled => ("cancelled", Value::Null, cancelled()),
        Ending::Released => ("released", Value::Null, Value::Null),
        Ending::TimedOut => ("timeout", Value::Null, failure(true)),
    };
    json!({ "task_id": fence.task_id, "token": fence.token, "outcome": outcome, "output": output, "failure": failure })
}
