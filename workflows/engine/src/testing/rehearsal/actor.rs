//! One run in memory, driven as the executor drives it.

use crate::pump::What;
use crate::{
    backend::Outcome,
    executor::{self, Definition},
    failure::Failure,
    ledger::Ledger,
    payload::Payloads,
    record::{Broken, Record},
    store::Fence,
    testing::{
        Deeds,
        memory::{Memory, TaskRow},
    },
    workflow::{Context, Core, Hands},
};
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use serde_json::Value;
use std::{sync::Arc, task::Poll};
use uuid::Uuid;

/// Rounds in a row after which a definition that keeps waking itself will not come to rest.
const ROUNDS: usize = 10_000;

pub(super) struct Actor {
    pub fence: Fence,
    pub worker: i64,
    pub run_id: Uuid,
    pub ledger: Arc<Ledger>,
    pub deeds: Arc<Deeds>,
    future: BoxFuture<'static, Result<Value, Failure>>,
    /// Number of the newest record when it began.
    known: i64,
}

/// Where a turn of a run has led.
pub(super) enum Turn {
    /// It can do nothing more without the world.
    Rests,
    /// Something was taken in, and that is as good a moment to die as any.
    Heard,
    /// It leaves the memory.
    Leaves(Box<Outcome>),
}

impl Turn {
    fn leaves(outcome: Outcome) -> Self {
        Self::Leaves(Box::new(outcome))
    }
}

impl Actor {
    /// Takes a claimed run up, from its record.
    pub(super) fn new(
        memory: &Memory,
        task: &TaskRow,
        fence: Fence,
        worker: i64,
        (definition, payloads): (&Definition, &Payloads),
    ) -> Option<Self> {
        let run = memory.runs.get(&task.run_id)?;
        let (ledger, deeds) = (Ledger::new(run.created_at), Arc::<Deeds>::default());
        let core = Core {
            run_id: run.id,
            tenant_id: run.tenant_id,
            kind: run.kind.clone(),
            fence,
            hands: Hands::Rehearsal(deeds.clone()),
            payloads: payloads.clone(),
            ledger: ledger.clone(),
            client: None,
            trace: None,
        };
        let future = executor::to_the_end(definition, run.input.clone(), Context::new(Arc::new(core)));
        ledger.begin(memory.newer(run.id, 0), memory.in_flight(run.id));
        let known = memory.seq(run.id);
        Some(Self { fence, worker, run_id: run.id, ledger, deeds, future, known })
    }

    /// Polls until the definition can do nothing more, or has taken something in.
    pub(super) fn turn(&mut self) -> Turn {
        for _ in 0..ROUNDS {
            match executor::poll_until_stalled(&mut self.future, self.ledger.bell()) {
                Poll::Ready(result) => {
                    self.ledger.check_end();
                    let outcome = executor::broken_off(&self.ledger);
                    return Turn::leaves(outcome.unwrap_or_else(|| executor::end(&self.ledger, result)));
                }
                Poll::Pending if self.ledger.bell().hear() => continue,
                Poll::Pending => {}
            }
            if self.ledger.hand_out() {
                if self.ledger.handed_out() > self.known {
                    return Turn::Heard;
                }
                continue;
            }
            if self.ledger.catch_up() {
                continue;
            }
            return executor::broken_off(&self.ledger).map_or(Turn::Rests, Turn::leaves);
        }
        let failure = Failure::permanent("workflow.restless", "the definition wakes itself again and again");
        self.ledger.break_off(Broken::Mismatch(failure));
        executor::broken_off(&self.ledger).map_or(Turn::Rests, Turn::leaves)
    }

    /// What it has asked for since the last time.
    pub(super) fn asks(&self, now: DateTime<Utc>) -> Option<What> {
        let (asks, timers) = (self.ledger.take_asks(usize::MAX), self.ledger.ended_timers(now));
        (!asks.is_empty() || !timers.is_empty()).then(|| executor::wishes((self.fence, None), asks, &timers))
    }

    pub(super) fn hear(&self, records: Vec<Record>) {
        records.into_iter().for_each(|record| self.ledger.add(record));
    }
}
