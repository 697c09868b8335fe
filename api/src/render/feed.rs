//! Renders that somebody watches: each is looked at by one task, however many watch it.

use super::{renders, view::Render};
use crate::{app::App, auth::Tenant, problem::Problem};
use chrono::Utc;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use uuid::Uuid;

/// How often a watched render is looked at.
const PERIOD: Duration = Duration::from_millis(300);
/// Streams that one tenant may have open on one server.
const STREAMS_PER_TENANT: usize = 64;

/// A render at a moment, with a number that grows.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Microseconds since 1970: when it was seen, or when the render ended.
    pub number: i64,
    /// The render.
    pub render: Arc<Render>,
}

impl Snapshot {
    fn of(render: Render) -> Self {
        let at = render.finished_at.unwrap_or_else(Utc::now);
        Self { number: at.timestamp_micros(), render: Arc::new(render) }
    }
}

type Watched = watch::Receiver<Snapshot>;

/// All watched renders of this server, and how many streams each tenant has open.
#[derive(Debug, Default)]
pub struct Feeds {
    watched: Mutex<HashMap<Uuid, Weak<watch::Sender<Snapshot>>>>,
    turns: Mutex<HashMap<Uuid, Arc<Semaphore>>>,
}

impl Feeds {
    /// A place for one more stream of the tenant; none when it has too many.
    pub fn admit(&self, tenant: &Tenant) -> Option<OwnedSemaphorePermit> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|id, t| *id == tenant.id || t.available_permits() < STREAMS_PER_TENANT);
        let turn = turns.entry(tenant.id).or_insert_with(|| Arc::new(Semaphore::new(STREAMS_PER_TENANT)));
        turn.clone().try_acquire_owned().ok()
    }

    /// Watches a render of the tenant: its state now, then every change, at most one each 300 ms.
    ///
    /// # Errors
    /// `render.not_found`
    pub async fn watch(&self, app: &App, tenant: Tenant, id: Uuid) -> Result<Watched, Problem> {
        // Asked on behalf of this tenant even when the render is watched already.
        let now = Snapshot::of(renders::find(app, &tenant, id).await?);
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|_, feed| feed.strong_count() > 0);
        if let Some(feed) = watched.get(&id).and_then(Weak::upgrade) {
            return Ok(feed.subscribe());
        }
        let (feed, receiver) = watch::channel(now);
        let feed = Arc::new(feed);
        watched.insert(id, Arc::downgrade(&feed));
        tokio::spawn(follow(app.clone(), tenant, id, feed));
        Ok(receiver)
    }
}

impl Feeds {
    /// Forgets a render that nobody watches; false when somebody has come since.
    fn forget(&self, id: Uuid, feed: &watch::Sender<Snapshot>) -> bool {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let deserted = feed.receiver_count() == 0;
        if deserted {
            watched.remove(&id);
        }
        deserted
    }
}

/// Looks at a render until it ends, nobody watches it any more, or the server stops.
async fn follow(app: App, tenant: Tenant, id: Uuid, feed: Arc<watch::Sender<Snapshot>>) {
    while !feed.borrow().render.has_ended() {
        tokio::select! {
            () = feed.closed() => if app.feeds.forget(id, &feed) { return },
            () = app.stopping.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
        match renders::find(&app, &tenant, id).await {
            Ok(render) => publish(&feed, render),
            // Logged where it was made; the database may be back at the next look.
            Err(_) => continue,
        }
    }
}

/// Publishes what has changed. Progress never goes back, though work may be done again.
fn publish(feed: &watch::Sender<Snapshot>, mut render: Render) {
    feed.send_if_modified(|last| {
        if !render.has_ended() {
            render.progress = render.progress.max(last.render.progress);
            render.frames.rendered = render.frames.rendered.max(last.render.frames.rendered);
        }
        if !differs(&last.render, &render) {
            return false;
        }
        let mut next = Snapshot::of(render);
        next.number = next.number.max(last.number + 1);
        *last = next;
        true
    });
}

/// Whether there is more to tell than that time has passed.
fn differs(old: &Render, new: &Render) -> bool {
    let timeless = |r: &Render| Render { eta_seconds: None, eta_p90_seconds: None, ..r.clone() };
    timeless(old) != timeless(new)
}
