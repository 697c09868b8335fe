//! A task that was given to this node: written down, and its lease kept, from the moment it is ours, however long it waits for its turn.

use super::{
    client::TaskClient,
    journal::Entry,
    leases::{self, Held},
    work::Node,
};
use flatrender_engine::{Attempt, Failure, Standing};
use std::convert::Infallible;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

/// An attempt with its lease, which is renewed until this is dropped.
pub struct Given {
    /// The journal entry.
    pub entry: Entry,
    /// Whoever works for it asks it whether to go on.
    pub attempt: Attempt,
    /// The server, about this attempt.
    pub client: TaskClient,
    /// Whether the entry is on the disk; an attempt without must not go on.
    pub written: Result<(), Failure>,
    /// When the agent is torn down the keeper may go first: that is no word about the lease, and the attempt hears none.
    _standing: watch::Sender<Standing>,
    _keeper: AbortOnDropHandle<Infallible>,
}

impl Given {
    /// Takes a task that was claimed just now.
    pub fn claimed(node: &Node, entry: Entry) -> Self {
        let full = |error| Failure::transient("render.disk_full", format!("the node cannot keep its journal: {error}"));
        let written = node.journal.write(&entry).map_err(full);
        Self::take(node, entry, written, true)
    }

    /// Takes up one that an earlier process had: the first renewal tells whether it is still ours.
    pub fn recovered(node: &Node, entry: Entry) -> Self {
        Self::take(node, entry, Ok(()), false)
    }

    fn take(node: &Node, entry: Entry, written: Result<(), Failure>, fresh: bool) -> Self {
        let (attempt, keeper) = Attempt::new(entry.task.clone());
        let client = node.client.task(&attempt);
        let held = Held { seconds: entry.task.lease_seconds, fresh };
        let (standing, patience) = (keeper.standing.clone(), node.config.offline_patience);
        let (kept, of) = (client.clone(), attempt.clone());
        let keeper = tokio::spawn(async move { of.traced(leases::keep(kept, held, patience, keeper)).await });
        Self { entry, attempt, client, written, _standing: standing, _keeper: AbortOnDropHandle::new(keeper) }
    }

    /// The fence of the attempt.
    pub fn token(&self) -> Uuid {
        self.entry.task.lease_token
    }
}
