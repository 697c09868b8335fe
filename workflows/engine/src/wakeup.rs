//! Who wakes up: messages after commits, coalesced, and the mailboxes they arrive in. A lost message costs a
//! poll interval and nothing else.

use crate::{
    failpoint::{self, At as _, Point},
    retry,
    store::{self, session::Session},
};
use sqlx::{
    Executor as _, PgPool,
    postgres::{PgListener, PgPoolOptions},
};
use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;
use uuid::Uuid;

/// The one channel of LISTEN and NOTIFY.
const CHANNEL: &str = "workflow";
const LISTEN: &str = "listen workflow";
/// A session that takes longer to send a message, or to listen, has lost its connection.
const ANSWER: Duration = Duration::from_secs(5);
/// Idle queues are asked this often while messages arrive, while they do not, and before the first registration.
const POLL: Duration = Duration::from_secs(5);
const POLL_DEAF: Duration = Duration::from_millis(250);
const UNREGISTERED: Duration = Duration::from_millis(20);
/// How long the session of a listener may take to end in good order.
const GOODBYE: Duration = Duration::from_secs(1);
/// PostgreSQL takes 8000 bytes.
const MESSAGE_LIMIT: usize = 7000;

/// Something has happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Ring {
    /// The queue has ready work.
    Queue(String),
    /// The run has new records.
    Run(Uuid),
    /// Some attempts are to stop.
    Cancel,
    /// Messages may have been missed: look at everything.
    All,
}

impl Ring {
    fn write(&self) -> String {
        match self {
            Self::Queue(queue) => format!("q:{queue}"),
            Self::Run(run_id) => format!("r:{run_id}"),
            Self::Cancel => "c".to_owned(),
            Self::All => "*".to_owned(),
        }
    }

    fn read(word: &str) -> Self {
        match word.split_once(':') {
            Some(("q", queue)) => Self::Queue(queue.to_owned()),
            Some(("r", run_id)) => run_id.parse().map_or(Self::All, Self::Run),
            _ if word == "c" => Self::Cancel,
            _ => Self::All,
        }
    }
}

/// Keeps what has rung until somebody asks: a bell that rings while its owner is busy is not lost.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    rings: Mutex<HashSet<Ring>>,
    full: Notify,
}

impl Mailbox {
    pub(crate) fn put(&self, rings: impl IntoIterator<Item = Ring>) {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner).extend(rings);
        self.full.notify_one();
    }

    /// Waits until something rings and takes everything that has.
    pub(crate) async fn next(&self) -> HashSet<Ring> {
        loop {
            let rings = std::mem::take(&mut *self.rings.lock().unwrap_or_else(PoisonError::into_inner));
            if !rings.is_empty() {
                return rings;
            }
            self.full.notified().await;
        }
    }
}

/// Sends and receives for one process.
#[derive(Debug)]
pub(crate) struct Wakeup {
    pool: PgPool,
    mailboxes: Mutex<Vec<Weak<Mailbox>>>,
    outgoing: Mutex<HashSet<Ring>>,
    sending: AtomicBool,
    listening: AtomicBool,
    connected: AtomicBool,
}

impl Wakeup {
    pub(crate) fn new(pool: PgPool) -> Arc<Self> {
        Arc::new(Self {
            pool,
            mailboxes: Mutex::default(),
            outgoing: Mutex::default(),
            sending: AtomicBool::new(false),
            listening: AtomicBool::new(false),
            connected: AtomicBool::new(false),
        })
    }

    pub(crate) fn subscribe(&self) -> Arc<Mailbox> {
        let mailbox = Arc::new(Mailbox::default());
        let mut mailboxes = self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner);
        mailboxes.retain(|m| m.strong_count() > 0);
        mailboxes.push(Arc::downgrade(&mailbox));
        mailbox
    }

    /// Rings inside this process.
    pub(crate) fn ring(&self, rings: &HashSet<Ring>) {
        if rings.is_empty() {
            return;
        }
        let mailboxes = self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        failpoint::around(Point::Ring, || {
            for mailbox in mailboxes.iter().filter_map(Weak::upgrade) {
                mailbox.put(rings.iter().cloned());
            }
        });
    }

    /// Whether messages of other processes arrive at present.
    pub(crate) fn connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// How long whoever waits for work goes without asking; `registered` is false until this process may claim.
    pub(crate) fn poll_interval(&self, registered: bool) -> Duration {
        match (registered, self.connected()) {
            (false, _) => UNREGISTERED,
            (_, true) => retry::jittered(POLL),
            (_, false) => retry::jittered(POLL_DEAF),
        }
    }

    /// Tells all processes, this one too. What is announced while a message is on its way makes the next one.
    pub(crate) fn announce(self: &Arc<Self>, rings: HashSet<Ring>) {
        if rings.is_empty() {
            return;
        }
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner).extend(rings);
        if !self.sending.swap(true, Ordering::AcqRel) {
            tokio::spawn(self.clone().send());
        }
    }

    async fn send(self: Arc<Self>) {
        loop {
            let rings = std::mem::take(&mut *self.outgoing.lock().unwrap_or_else(PoisonError::into_inner));
            if rings.is_empty() {
                self.sending.store(false, Ordering::Release);
                // Something may have come in between the look and the flag.
                let more = !self.outgoing.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
                if more && !self.sending.swap(true, Ordering::AcqRel) {
                    continue;
                }
                return;
            }
            for message in messages(&rings) {
                if let Err(error) = self.notify(&message).await {
                    tracing::debug!(%error, "cannot send a wake-up; polling finds the work");
                }
            }
        }
    }

    async fn notify(&self, message: &str) -> sqlx::Result<()> {
        let mut session = Session::take(&self.pool).await?;
        let notify = sqlx::query("select pg_notify($1, $2)").bind(CHANNEL).bind(message);
        let sent = store::in_time(ANSWER, notify.execute(session.db()).at(Point::Notify)).await;
        session.done(sent).map(drop)
    }

    /// Starts listening once per process.
    pub(crate) fn listen_in_background(self: Arc<Self>) {
        if !self.listening.swap(true, Ordering::AcqRel) {
            tokio::spawn(listen(Arc::downgrade(&self), self.pool.clone()));
        }
    }
}

/// Receives until the last user of the wake-up is gone, or the pool is closed: whoever closes it may want to drop the
/// database next. Reconnects for as long as it takes.
async fn listen(wakeup: Weak<Wakeup>, pool: PgPool) {
    while let Some(alive) = wakeup.upgrade() {
        drop(alive);
        // Of its own: one that has fallen silent must not keep a place in the pool.
        let own = PgPoolOptions::new().max_connections(1).connect_lazy_with((*pool.connect_options()).clone());
        if let Err(error) = pool.close_event().do_until(receive(&wakeup, &own)).await.flatten() {
            tracing::debug!(%error, "not listening for wake-ups; polling goes on");
        }
        if let Some(w) = wakeup.upgrade() {
            w.connected.store(false, Ordering::Relaxed);
        }
        let _ = tokio::time::timeout(GOODBYE, own.close()).await;
        if pool.is_closed() {
            return;
        }
        tokio::time::sleep(retry::jittered(Duration::from_millis(400))).await;
    }
}

async fn receive(wakeup: &Weak<Wakeup>, own: &PgPool) -> sqlx::Result<()> {
    let mut listener = store::in_time(ANSWER, PgListener::connect_with(own).at(Point::ListenConnect)).await?;
    listener.eager_reconnect(false);
    store::in_time(ANSWER, listener.execute(LISTEN).at(Point::Listen)).await?;
    let Some(alive) = wakeup.upgrade() else { return Ok(()) };
    alive.connected.store(true, Ordering::Relaxed);
    alive.ring(&HashSet::from([Ring::All]));
    drop(alive);
    loop {
        let received = tokio::time::timeout(Duration::from_secs(5), listener.try_recv().at(Point::Heard)).await;
        let Some(alive) = wakeup.upgrade() else { return Ok(()) };
        match received {
            // Finds out whether anybody is there, and listens again should the session have been reset.
            Err(_) => store::in_time(ANSWER, listener.execute(LISTEN).at(Point::Listen)).await.map(drop)?,
            Ok(Ok(Some(message))) => alive.ring(&message.payload().split_ascii_whitespace().map(Ring::read).collect()),
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
        }
    }
}

fn messages(rings: &HashSet<Ring>) -> Vec<String> {
    let mut messages = vec![String::new()];
    for word in rings.iter().map(Ring::write) {
        if messages.last().is_some_and(|m| m.len() + word.len() > MESSAGE_LIMIT) {
            messages.push(String::new());
        }
        if let Some(message) = messages.last_mut() {
            message.push_str(&word);
            message.push(' ');
        }
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_travel_as_words() {
        let id = Uuid::now_v7();
        for ring in [Ring::Queue("media.fast".into()), Ring::Run(id), Ring::Cancel, Ring::All] {
            assert_eq!(Ring::read(&ring.write()), ring);
        }
    }

    #[test]
    fn many_rings_make_messages_that_fit() {
        let rings = (0..1000).map(|_| Ring::Run(Uuid::now_v7())).collect();
        let messages = messages(&rings);
        assert!(messages.iter().all(|m| m.len() < 8000));
        assert_eq!(messages.iter().flat_map(|m| m.split_ascii_whitespace()).count(), 1000);
    }

    #[tokio::test]
    async fn a_ring_before_the_wait_is_heard() {
        let mailbox = Mailbox::default();
        mailbox.put([Ring::Cancel]);
        assert_eq!(mailbox.next().await, HashSet::from([Ring::Cancel]));
    }
}
