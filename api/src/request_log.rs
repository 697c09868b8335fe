//! What tenants asked of the server. A request is noted in memory when its answer is through, and written to the
//! database beside the requests, many at a time: none waits for it, and a server that is killed loses the last second.

use crate::{app::App, limits::Notes, metrics, peer::ClientAddress, problem::Code, request_id};
use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{MatchedPath, Request, State},
    http::HeaderMap,
    middleware::Next,
    response::Response,
};
use chrono::Utc;
use flatrender_workflows::models::{
    Database, Role, Scope,
    identity::request_log::{self, Entry},
};
use http_body::{Frame, SizeHint};
use sha2::{Digest as _, Sha256};
use std::{
    mem,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Most requests that wait to be written; of more, the newest are counted and forgotten.
const MOST_WAITING: usize = 20_000;
/// Requests a statement.
const BATCH: usize = 1000;
/// How often what waits is written.
const EVERY: Duration = Duration::from_secs(1);

/// Requests that wait to be written. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct RequestLog(Arc<Mutex<Vec<Entry>>>);

impl RequestLog {
    fn add(&self, entry: Entry) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < MOST_WAITING {
            waiting.push(entry);
        } else {
            ::metrics::counter!("flatrender_request_log_lost_total").increment(1);
        }
    }

    fn take(&self) -> Batch<'_> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let most = waiting.len().min(BATCH);
        Batch { log: self, entries: waiting.drain(..most).collect() }
    }

    /// Writes what waits. What cannot be written waits on, also when this is given up half-way.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn flush(&self, db: &Database) -> sqlx::Result<()> {
        loop {
            let mut batch = self.take();
            if batch.entries.is_empty() {
                return Ok(());
            }
            write(db, &batch.entries).await?;
            batch.entries.clear();
        }
    }

    /// Writes what waits every second, for ever.
    pub async fn keep_writing(&self, db: &Database) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.flush(db).await {
                tracing::warn!(%error, "the request log cannot be written");
            }
        }
    }
}

/// Requests that are being written; those that were not wait again. One that was, and waits again, is written once.
struct Batch<'a> {
    log: &'a RequestLog,
    entries: Vec<Entry>,
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        mem::take(&mut self.entries).into_iter().for_each(|entry| self.log.add(entry));
    }
}

async fn write(db: &Database, entries: &[Entry]) -> sqlx::Result<()> {
    let mut tx = db.begin(Scope::platform(Role::Identity)).await?;
    request_log::write(&mut tx, entries).await?;
    tx.commit().await
}

/// Notes the request when the last byte of its answer is through, or its client stops reading it. One whose client is gone
/// before there is an answer is not noted; one that belongs to no tenant is only counted, in [`metrics`].
pub async fn note(State(app): State<App>, request: Request, next: Next) -> Response {
    let (at, started) = (Utc::now(), Instant::now());
    let notes = Notes::of(request.extensions());
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let ip = request.extensions().get::<ClientAddress>().and_then(|a| a.0);
    let method = metrics::known(request.method()).to_owned();
    let idempotency_key_hash = idempotency_key_hash(request.headers());
    let bytes_in = Arc::<AtomicI64>::default();
    let counted = Arc::clone(&bytes_in);
    let request = request.map(|body| Body::new(Counted { body, bytes: counted, _last: () }));
    let response = next.run(request).await;
    let noted = notes.read();
    let Some(tenant_id) = noted.tenant_id else { return response };
    let bytes_out = Arc::<AtomicI64>::default();
    let counted = Arc::clone(&bytes_out);
    let entry = Entry {
        at,
        id: Uuid::now_v7(),
        tenant_id,
        api_key_id: noted.key_id,
        user_id: noted.user_id,
        method,
        route,
        status: response.status().as_u16().cast_signed(),
        latency_us: started.elapsed().as_micros().try_into().unwrap_or(i64::MAX),
        bytes_in: 0,
        bytes_out: 0,
        ip,
        request_id: request_id::current(),
        idempotency_key_hash,
        error_type: response.extensions().get::<Code>().map(|code| code.as_str().to_owned()),
    };
    let last = Last { log: app.request_log, entry: Some(entry), bytes_in, bytes_out };
    response.map(|body| Body::new(Counted { body, bytes: counted, _last: last }))
}

fn idempotency_key_hash(headers: &HeaderMap) -> Option<Vec<u8>> {
    headers.get("idempotency-key").map(|key| Sha256::digest(key.as_bytes()).to_vec())
}

/// A body whose bytes are counted as they go by, and what is done when it is dropped.
struct Counted<L> {
    body: Body,
    bytes: Arc<AtomicI64>,
    _last: L,
}

impl<L: Unpin> HttpBody for Counted<L> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            self.bytes.fetch_add(bytes.try_into().unwrap_or(i64::MAX), Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Notes a request at the end of its answer.
struct Last {
    log: RequestLog,
    entry: Option<Entry>,
    bytes_in: Arc<AtomicI64>,
    bytes_out: Arc<AtomicI64>,
}

impl Drop for Last {
    fn drop(&mut self) {
        if let Some(mut entry) = self.entry.take() {
            entry.bytes_in = self.bytes_in.load(Ordering::Relaxed);
            entry.bytes_out = self.bytes_out.load(Ordering::Relaxed);
            self.log.add(entry);
        }
    }
}
