//! A wire between a node and the server that can be cut, refuse, or fall silent. Counts the frames that pass.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// How the wire is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Whole,
    /// What is connected is cut off; nothing new is let in.
    Cut,
    /// What is connected stays so and nothing passes; new connections are taken and hear nothing.
    Silent,
}

pub struct Wire {
    pub url: String,
    state: watch::Sender<State>,
    frames: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Wire {
    /// A new way to `server`, an address of HTTP without a path.
    pub async fn to(server: &str) -> Self {
        let address = server.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (state, watched) = watch::channel(State::Whole);
        let frames = Arc::<AtomicU64>::default();
        let counter = frames.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, address.clone(), watched.clone(), counter.clone()));
            }
        });
        Self { url, state, frames, task }
    }

    pub fn set(&self, state: State) {
        self.state.send_replace(state);
    }

    pub fn is_whole(&self) -> bool {
        *self.state.borrow() == State::Whole
    }

    /// Frames that the node had, by its questions whether they are stored.
    pub fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(client: TcpStream, server: String, mut state: watch::Receiver<State>, frames: Arc<AtomicU64>) {
    if *state.borrow_and_update() == State::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let watched = state.clone();
    tokio::select! {
        () = pass(from_client, to_server, &watched, |bytes| { frames.fetch_add(questions(bytes), Ordering::Relaxed); }) => {}
        () = pass(from_server, to_client, &watched, |_| {}) => {}
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
