//! A wire between a worker and PostgreSQL that can be bad in every way: slow, cut, silent, deaf to notifications, cut just
//! after a commit, or run by a pooler that resets sessions. Reads just enough of the protocol for that.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Mutex, watch},
};

/// How the wire behaves at the moment; may be changed at any time.
#[derive(Debug, Default)]
pub struct Wire {
    /// Added to each message in both directions.
    pub delay_ms: AtomicU64,
    /// Drops notifications.
    pub mute: AtomicBool,
    /// Of so many COMMITs one is passed on and its answer is not: the connection is cut. 0: none.
    pub cut_commits: AtomicU32,
    /// The same for statements outside of transactions.
    pub cut_statements: AtomicU32,
    /// Between transactions a pooler sends DISCARD ALL: after one statement in so many. 0: never.
    pub discard: AtomicU32,
    /// How often any of that has happened.
    pub done: AtomicU32,
    commits: AtomicU32,
    statements: AtomicU32,
    /// Raised to let all connections that are older fall silent.
    silence: watch::Sender<u64>,
}

pub struct Proxy {
    pub port: u16,
    pub wire: Arc<Wire>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let wire = Arc::<Wire>::default();
        let shared = wire.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server, shared.clone()));
            }
        });
        Self { port, wire, task }
    }

    /// What is connected now stays so, and nothing passes any more, in neither direction.
    pub fn swallow(&self) {
        self.wire.silence.send_modify(|n| *n += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the two directions of a connection know of each other.
#[derive(Debug, Default)]
struct Talk {
    /// The answer to what was sent is not to arrive.
    withhold: AtomicBool,
    /// Answers to the pooler's own statement, which the client does not hear.
    swallow_ready: AtomicU32,
    in_transaction: AtomicBool,
    /// The session listens, or holds a lock of its own: no pooler gives it to another.
    keeps: AtomicBool,
}

/// Whether a message contains some text.
fn says(message: &[u8], text: &str) -> bool {
    message.windows(text.len()).any(|part| part.eq_ignore_ascii_case(text.as_bytes()))
}

async fn carry(client: TcpStream, server: u16, wire: Arc<Wire>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    let mut silence = wire.silence.subscribe();
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let talk = Arc::<Talk>::default();
    let to_server = Arc::new(Mutex::new(to_server));
    let there = outwards(from_client, to_server.clone(), &wire, &talk);
    let back = inwards(from_server, to_client, to_server.clone(), &wire, &talk);
    tokio::select! {
        () = there => {}
        () = back => {}
        // Both ends are kept: neither hears that the other is gone.
        _ = silence.changed() => std::future::pending().await,
    }
}

/// One in `every`, counted by `counter`.
fn is_turn(every: u32, counter: &AtomicU32) -> bool {
    every > 0 && counter.fetch_add(1, Ordering::Relaxed) % every == every - 1
}

async fn outwards(mut from: OwnedReadHalf, to: Arc<Mutex<OwnedWriteHalf>>, wire: &Wire, talk: &Talk) {
    // The first message has no type.
    let Some(hello) = read_plain(&mut from).await else { return };
    if to.lock().await.write_all(&hello).await.is_err() {
        return;
    }
    while let Some((kind, message)) = read_message(&mut from).await {
        pause(wire).await;
        if matches!(kind, b'Q' | b'P') && (says(&message, "pg_advisory_lock") || says(&message, "listen workflow")) {
            talk.keeps.store(true, Ordering::Relaxed);
        }
        let commit = kind == b'Q' && message[5..].starts_with(b"COMMIT");
        let sync = kind == b'S' && !talk.in_transaction.load(Ordering::Relaxed);
        if (commit && is_turn(wire.cut_commits.load(Ordering::Relaxed), &wire.commits))
            || (sync && is_turn(wire.cut_statements.load(Ordering::Relaxed), &wire.statements))
        {
            talk.withhold.store(true, Ordering::SeqCst);
        }
        if to.lock().await.write_all(&message).await.is_err() {
            return;
        }
    }
}

async fn inwards(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    to_server: Arc<Mutex<OwnedWriteHalf>>,
    wire: &Wire,
    talk: &Talk,
) {
    let mut statements = 0u32;
    while let Some((kind, message)) = read_message(&mut from).await {
        pause(wire).await;
        if kind == b'A' && wire.mute.load(Ordering::Relaxed) {
            wire.done.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        if talk.swallow_ready.load(Ordering::SeqCst) > 0 {
            if kind == b'Z' {
                talk.swallow_ready.store(0, Ordering::SeqCst);
            }
            continue;
        }
        if talk.withhold.load(Ordering::SeqCst) {
            // The server has done it; nobody will hear.
            if kind == b'Z' {
                wire.done.fetch_add(1, Ordering::Relaxed);
                return;
            }
            continue;
        }
        if kind == b'Z' {
            talk.in_transaction.store(message[5] != b'I', Ordering::Relaxed);
            statements += 1;
            let every = wire.discard.load(Ordering::Relaxed);
            let free = message[5] == b'I' && !talk.keeps.load(Ordering::Relaxed);
            if free && every > 0 && statements.is_multiple_of(every) {
                wire.done.fetch_add(1, Ordering::Relaxed);
                talk.swallow_ready.store(1, Ordering::SeqCst);
                if to_server.lock().await.write_all(b"Q\0\0\0\x10DISCARD ALL\0").await.is_err() {
                    return;
                }
            }
        }
        if to.write_all(&message).await.is_err() {
            return;
        }
    }
}

async fn pause(wire: &Wire) {
    let delay = wire.delay_ms.load(Ordering::Relaxed);
    if delay > 0 {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
}

async fn read_plain(from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let mut message = vec![0; 4];
    from.read_exact(&mut message).await.ok()?;
    let length = u32::from_be_bytes(message[..4].try_into().ok()?) as usize;
    message.resize(length, 0);
    from.read_exact(&mut message[4..]).await.ok()?;
    Some(message)
}

/// A message with its type: the type, and all of its bytes.
async fn read_message(from: &mut OwnedReadHalf) -> Option<(u8, Vec<u8>)> {
    let mut message = vec![0; 5];
    from.read_exact(&mut message).await.ok()?;
    let length = u32::from_be_bytes(message[1..5].try_into().ok()?) as usize;
    message.resize(length + 1, 0);
    from.read_exact(&mut message[5..]).await.ok()?;
    Some((message[0], message))
}
