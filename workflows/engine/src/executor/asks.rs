//! What a definition asks for, in the form in which it goes to the database.

use super::Fence;
use crate::{
    measures,
    pump::{What, Write},
    record::{Ask, Request, RunRequest},
    store::{self, tasks::Plain},
    trace::TraceContext,
    worker::RUN_QUEUE,
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// False: there is no worker any more.
pub(super) fn send(
    writes: &mpsc::UnboundedSender<Write>,
    (fence, trace): (Fence, Option<TraceContext>),
    asks: Vec<Ask>,
    timers: &[(String, bool)],
    reply: oneshot::Sender<bool>,
) -> bool {
    let what = wishes((fence, trace), asks, timers);
    writes.send(Write { fence, what, last: false, again: false, reply }).is_ok()
}

/// What a definition has asked for, and which of its timers have ended.
pub(crate) fn wishes((fence, trace): (Fence, Option<TraceContext>), asks: Vec<Ask>, timers: &[(String, bool)]) -> What {
    match (asks.as_slice(), timers) {
        ([Ask::Mark { key, kind, name, output }], []) => What::Plain(Plain {
            what: kind.name(),
            key: Some(key.clone()),
            name: *name,
            body: Some(output.clone()).filter(|output| !output.is_null()),
            ..Plain::default()
        }),
        _ => {
            let ended = timers.iter().map(|(key, reached)| timer_op(fence, key, *reached));
            What::Ops(asks.iter().map(|ask| ask_op(fence, trace, ask)).chain(ended).collect())
        }
    }
}

fn ask_op(fence: Fence, trace: Option<TraceContext>, ask: &Ask) -> Value {
    match ask {
        Ask::Activity(request) => traced(request_op(fence, request), trace),
        Ask::Run(request) => {
            metrics::counter!(measures::RUNS_STARTED, "kind" => request.kind).increment(1);
            traced(run_op(fence, request), trace)
        }
        Ask::Withdraw(key) => json!({ "op": "withdraw", "task_id": fence.task_id, "token": fence.token, "key": key }),
        Ask::Mark { key, kind, name, output } => json!({
            "op": "mark", "task_id": fence.task_id, "token": fence.token, "key": key, "kind": kind.name(), "name": name,
            "output": output,
        }),
    }
}

fn traced(mut op: Value, trace: Option<TraceContext>) -> Value {
    if let Some(trace) = trace {
        op["traceparent"] = json!(trace);
    }
    op
}

fn run_op(fence: Fence, request: &RunRequest) -> Value {
    json!({
        "op": if request.detached { "start" } else { "child" }, "task_id": fence.task_id, "token": fence.token,
        "key": request.key, "kind": request.kind, "version": request.version,
        "activity": store::runs::run_name(request.kind, request.version), "queue": RUN_QUEUE, "priority": request.priority,
        "max_losses": store::runs::MAX_LOSSES, "input": request.input, "business_key": request.business_key,
    })
}

fn request_op(fence: Fence, request: &Request) -> Value {
    json!({
        "op": "request", "task_id": fence.task_id, "token": fence.token, "key": request.key, "queue": request.queue,
        "activity": request.activity, "input": request.input, "labels": request.labels, "shielded": request.shielded,
        "limit_key": request.limit_key, "warm_key": request.warm_key,
        "max_failures": request.policy.max_failures.clamp(1, i32::MAX as u32),
        "max_losses": request.policy.max_losses.clamp(1, i32::MAX as u32),
        "backoff_base": seconds(request.policy.backoff_base, 0.0),
        "backoff_cap": seconds(request.policy.backoff_cap, 0.0),
        "lease": seconds(request.policy.lease, 0.1),
        "start_to_close": request.policy.start_to_close.as_secs_f64().clamp(0.001, 1e9),
    })
}

fn seconds(duration: Duration, least: f64) -> f64 {
    duration.as_secs_f64().clamp(least, 86_400.0)
}

fn timer_op(fence: Fence, key: &str, reached: bool) -> Value {
    let outcome = if reached { "ok" } else { "cancelled" };
    json!({ "op": "timer", "task_id": fence.task_id, "token": fence.token, "key": key, "outcome": outcome })
}
