//! A wire between a node and the server that can be cut, unplugged, or fall silent. Counts the frames that pass, and remembers which
//! attempts the node was told to end.

use crate::netns::Namespace;
use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};
use uuid::Uuid;

/// An answer that passed has arrived after this, unless something befell the wire.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// How the wire is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Whole,
    /// What is connected is cut off; nothing new is let in.
    Cut,
    /// The node's link is down: what is connected stays so, and what is sent vanishes until it is sent again.
    Unplugged,
    /// What is connected stays so and nothing passes; new connections are taken and hear nothing.
    Silent,
}

pub struct Wire {
    pub url: String,
    link: Option<Namespace>,
    state: watch::Sender<State>,
    log: Arc<Log>,
    task: tokio::task::JoinHandle<()>,
}

/// What passed.
#[derive(Default)]
struct Log {
    frames: AtomicU64,
    ended: Mutex<HashMap<Uuid, Instant>>,
}

impl Wire {
    /// A new way to `server`, an address of HTTP without a path; for a node in that namespace, if there is one.
    pub async fn to(server: &str, link: Option<Namespace>) -> Self {
        let server = server.trim_start_matches("http://").to_owned();
        let ours = link.as_ref().map_or(Ipv4Addr::LOCALHOST, |link| link.ours);
        let listener = TcpListener::bind((ours, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (state, watched) = watch::channel(State::Whole);
        let log = Arc::<Log>::default();
        let passed = log.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server.clone(), watched.clone(), passed.clone()));
            }
        });
        Self { url, link, state, log, task }
    }

    pub fn set(&self, state: State) {
        if let (State::Whole, Some(link)) = (state, &self.link) {
            link.set_link("up");
        }
        self.state.send_replace(state);
        self.log.ended.lock().unwrap().retain(|_, at| at.elapsed() > UNDER_WAY);
        if let (State::Unplugged, Some(link)) = (state, &self.link) {
            link.set_link("down");
        }
    }

    pub fn is_whole(&self) -> bool {
        *self.state.borrow() == State::Whole
    }

    /// Whether it can be unplugged.
    pub fn has_link(&self) -> bool {
        self.link.is_some()
    }

    /// Frames that the node had, by its questions whether they are stored.
    pub fn frames(&self) -> u64 {
        self.log.frames.load(Ordering::Relaxed)
    }

    /// Attempts that the node was told to end, lost or cancelled, when it renewed their leases; and when it was.
    pub fn ended(&self) -> HashMap<Uuid, Instant> {
        self.log.ended.lock().unwrap().clone()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Log {
    /// What is said while something befalls the wire may not arrive.
    fn end(&self, attempt: Uuid, state: &watch::Receiver<State>) {
        let mut ended = self.ended.lock().unwrap();
        if *state.borrow() == State::Whole {
            ended.entry(attempt).or_insert_with(Instant::now);
        }
    }
}

async fn carry(client: TcpStream, server: String, mut state: watch::Receiver<State>, log: Arc<Log>) {
    if *state.borrow_and_update() == State::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let watched = state.clone();
    // One question at a time is on a connection.
    let renewing = Mutex::new(None);
    let ask = |bytes: &[u8]| {
        log.frames.fetch_add(questions(bytes), Ordering::Relaxed);
        if let Some(attempt) = renewal(bytes) {
            *renewing.lock().unwrap() = Some(attempt);
        }
    };
    let answer = |bytes: &[u8]| {
        let asked = renewing.lock().unwrap().take();
        if let Some(attempt) = asked.filter(|_| ends(bytes)) {
            log.end(attempt, &watched);
        }
    };
    tokio::select! {
        () = pass(from_client, to_server, &watched, ask) => {}
        () = pass(from_server, to_client, &watched, answer) => {}
        _ = state.wait_for(|state| *state == State::Cut) => {}
    }
}

/// Passes on what comes. What comes in a silence is held for ever, with all that follows it: both ends are kept, and neither hears
/// that the other is gone.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &watch::Receiver<State>, look: impl Fn(&[u8])) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        if *state.borrow() == State::Silent {
            return std::future::pending().await;
        }
        look(&bytes[..read]);
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

/// Requests in some bytes that ask whether a frame is stored.
fn questions(bytes: &[u8]) -> u64 {
    const ASKED: &[u8] = b"HEAD /v1/nodes/tasks/";
    bytes.windows(ASKED.len()).filter(|part| *part == ASKED).count() as u64
}

/// The attempt whose lease a request wants to renew.
fn renewal(request: &[u8]) -> Option<Uuid> {
    let (line, rest) = std::str::from_utf8(request).ok()?.split_once("\r\n")?;
    let attempt = rest.split("\r\n").find_map(|header| header.strip_prefix("lease-token: "))?;
    if line.ends_with("/renew HTTP/1.1") { attempt.parse().ok() } else { None }
}

/// Whether the answer to a renewal ends the attempt.
fn ends(answer: &[u8]) -> bool {
    let holds = |words: &[u8]| answer.windows(words.len()).any(|part| part == words);
    holds(b"lease.lost") || holds(b"\"cancelled\":true")
}

#[test]
fn a_renewal_names_its_attempt_and_its_answer_may_end_it() {
    let attempt = Uuid::from_u128(7);
    let request = |path: &str| format!("POST /v1/nodes/tasks/5/{path} HTTP/1.1\r\nlease-token: {attempt}\r\n\r\n{{}}");
    assert_eq!(renewal(request("renew").as_bytes()), Some(attempt));
    assert_eq!(renewal(request("complete").as_bytes()), None);
    assert!(ends(br#"{"code":"lease.lost"}"#) && ends(br#"{"cancelled":true,"lease_seconds":15.0}"#));
    assert!(!ends(br#"{"cancelled":false,"lease_seconds":15.0}"#));
}
