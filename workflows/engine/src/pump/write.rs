//! What goes along on a round trip.

use crate::store::{
    Fence,
    tasks::{NewRun, Plain},
};
use serde_json::Value;
use tokio::sync::oneshot;

/// A write for the pump. `reply` hears whether the fence held; it is dropped when nobody can know.
#[derive(Debug)]
pub(crate) struct Write {
    pub fence: Fence,
    pub what: What,
    /// Whether the task leaves this process with it.
    pub last: bool,
    /// Whether it was on a trip before.
    pub again: bool,
    pub reply: oneshot::Sender<bool>,
}

#[derive(Debug)]
pub(crate) enum What {
    /// An entry of `workflow.settle`; the output on its own, to be handed on without reading it back.
    Attempt { entry: Value, key: String, activity: String },
    /// Entries of `workflow.advance`.
    Ops(Vec<Value>),
    /// An entry of `workflow.advance_plain`.
    Plain(Plain),
    /// A run to start, here if there is room. Its fence means nothing.
    Start(NewRun),
    /// Nothing to write: the task is gone, its slot is free.
    Forget,
}

impl Write {
    pub(super) fn size(&self) -> usize {
        match &self.what {
            What::Attempt { entry, .. } => rough_size(entry),
            What::Ops(ops) => ops.iter().map(rough_size).sum(),
            What::Plain(plain) => plain.entries().map(|entry| entry.body.as_ref().map_or(0, rough_size) + 100).sum(),
            What::Start(run) => rough_size(&run.input) + 200,
            What::Forget => 0,
        }
    }
}

impl Write {
    pub(super) fn start(&self) -> Option<&NewRun> {
        match &self.what {
            What::Start(run) => Some(run),
            _ => None,
        }
    }

    pub(super) fn start_mut(&mut self) -> Option<&mut NewRun> {
        match &mut self.what {
            What::Start(run) => Some(run),
            _ => None,
        }
    }

    pub(super) fn is_start(&self) -> bool {
        self.start().is_some()
    }
}

pub(crate) fn rough_size(json: &Value) -> usize {
    match json {
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(rough_size).sum::<usize>() + 2,
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| name.len() + 4 + rough_size(value)).sum::<usize>() + 2
        }
        _ => 8,
    }
}
