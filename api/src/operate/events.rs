//! `GET /v1/operate/events`: what changes, as server-sent events.
//!
//! The id of an event is the newest deed that the client knows of with it: one who comes back with it misses no deed that was written down
//! in a transaction of at most a minute, as long as no more than a batch of others came before it meanwhile. How things stand,
//! and the run that is followed, are told as they are then.

use super::{Party, audit::DeedView, now, operations};
use crate::{
    app::App,
    auth::{Actor, Tenant},
    extract::Query,
    problem::{Code, Problem, ProblemBody},
};
use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use flatrender_workflows::models::DEFAULT_TENANT;
use futures::{Stream, StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeSet, VecDeque},
    convert::Infallible,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;
use utoipa::IntoParams;
use uuid::Uuid;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// How often is looked at what was done and at the run that is followed.
const PERIOD: Duration = Duration::from_secs(1);
/// How many looks there are for one at how things stand, which costs more.
const NOW_EVERY: u32 = 3;
/// A comment is sent after this long without an event, so that proxies keep the stream open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A client that lost the stream comes back after this long.
const COME_BACK: Duration = Duration::from_secs(1);
/// A stream ends after this long: whoever comes back shows again that they may.
const LONGEST: Duration = Duration::from_secs(600);
/// Deeds of one look.
const DEEDS: u32 = 500;
/// Deeds have their numbers before they are committed: what is done in a transaction of at most this long is found however late it comes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Deeds that are remembered meanwhile, at most: of more, those with the lowest numbers count as told.
const KNOWN: usize = 5000;
/// Who comes back is told so many numbers again: more than a batch of an operation on many runs.
const BACK: i64 = 250;

/// What to follow besides.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Follow {
    /// A run: told of when something of it has changed.
    run_id: Option<Uuid>,
}

/// `GET /v1/operate/events`
#[utoipa::path(
    get, path = "/v1/operate/events", tag = "Runs", operation_id = "watch_operations", summary = "Follow what changes",
    description = "Server-sent events: `now`, as `GET /v1/operate/now`, at first and whenever it changes; `deed`, for each operation that \
                   somebody does; `run`, when something of the run that is followed has changed. A client that comes back with the id of the \
                   last event misses no deed; some may come again, so tell them apart by their `id`. One that reads slowly is told less often, not more at once.",
    params(Follow, ("Last-Event-ID" = Option<String>, Header, description = "Id of the last event that came")),
    responses(
        (status = 200, description = "Events", body = String, content_type = "text/event-stream",
         example = "event: deed\nid: 17\ndata: {\"id\": \"17\", \"action\": \"cancel\", \"target\": \"run:0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e12\"}\n\n"),
        (status = 429, description = "`events.too_many_streams`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn watch(
    State(app): State<App>,
    party: Party,
    Query(follow): Query<Follow>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    // The places of the platform's people are those of its own tenant.
    let tenant = Tenant { id: party.reach.unwrap_or(DEFAULT_TENANT), actor: Actor::User(Uuid::nil()) };
    let place = app.feeds.admit(&tenant).ok_or_else(|| {
        Problem::new(Code::TooManyStreams, "too many event streams are open; close some or ask again later")
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("5"))
    })?;
    let run = match follow.run_id {
        Some(id) => Some(super::run::found(&app, &party, id).await?.id),
        None => None,
    };
    let last = headers.get(LAST_EVENT_ID).and_then(|v| v.to_str().ok()?.parse().ok()).filter(|last| *last >= 0);
    let stopping = app.stopping.clone();
    let floor = last.map(|last: i64| last - BACK);
    let watcher = Watcher {
        app,
        tenant: party.reach,
        run,
        newest: last.unwrap_or_default(),
        floor,
        known: BTreeSet::new(),
        looked: VecDeque::new(),
        now: None,
        digest: None,
        looks: 0,
        ready: VecDeque::new(),
    };
    let end = async move {
        tokio::select! {
            () = stopping.cancelled_owned() => {}
            () = tokio::time::sleep(LONGEST) => {}
        }
    };
    let events = watcher.events().take_until(end).map(move |event| {
        // The place is given back when the stream is dropped.
        let _ = &place;
        event
    });
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    response.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// That something of a run has changed.
#[derive(Serialize)]
struct RunChanged {
    id: Uuid,
}

/// Somebody who watches. It looks again only when all that it found was taken.
struct Watcher {
    app: App,
    tenant: Option<Uuid>,
    run: Option<Uuid>,
    /// The newest deed there was.
    newest: i64,
    /// What was done later than this is told, unless it was.
    floor: Option<i64>,
    /// What was told of that.
    known: BTreeSet<i64>,
    /// The newest deed there was at the looks of late.
    looked: VecDeque<(Instant, i64)>,
    now: Option<Arc<now::Now>>,
    digest: Option<u64>,
    looks: u32,
    ready: VecDeque<Event>,
}

impl Watcher {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> + Send {
        stream::unfold(self, async |mut watcher| {
            loop {
                if let Some(event) = watcher.ready.pop_front() {
                    return Some((Ok(event), watcher));
                }
                if watcher.looks > 0 {
                    tokio::time::sleep(PERIOD).await;
                }
                // Logged where it was made; the database may be back at the next look.
                let _ = watcher.look().await;
                watcher.looks = watcher.looks.wrapping_add(1).max(1);
            }
        })
    }

    async fn look(&mut self) -> Result<(), Problem> {
        let operations = operations(&self.app);
        let known: Vec<i64> = self.known.iter().copied().collect();
        let (deeds, newest) = operations.audit_after(self.tenant, self.floor, &known, DEEDS).await?;
        if self.floor.is_none() {
            // What is done already is not told; what is being done is, once it is.
            let (before, _) = operations.audit_after(self.tenant, Some(newest - BACK), &[], DEEDS).await?;
            self.known.extend(before.into_iter().map(|deed| deed.id).filter(|id| *id <= newest));
            self.floor = Some(newest - BACK);
        }
        self.newest = self.newest.max(newest);
        for deed in deeds {
            self.known.insert(deed.id);
            let deed = DeedView::from(deed);
            let event = Event::default().event("deed").id(deed.id.clone()).retry(COME_BACK);
            self.ready.push_back(event.json_data(deed).unwrap_or_default());
        }
        self.forget();
        if self.looks.is_multiple_of(NOW_EVERY) {
            let now = self.app.pulse.feel(&self.app, self.tenant).await?;
            if self.now.as_ref().is_none_or(|before| before.differs(&now)) {
                self.tell("now", &*now);
                self.now = Some(now);
            }
        }
        if let Some(id) = self.run {
            let digest = self.digest_of(id).await?;
            if self.digest.replace(digest).is_some_and(|before| before != digest) {
                self.tell("run", &RunChanged { id });
            }
        }
        Ok(())
    }

    /// Looks no longer for what would have been found by now.
    fn forget(&mut self) {
        let now = Instant::now();
        self.looked.push_back((now, self.newest));
        while let Some((_, newest)) = self.looked.pop_front_if(|(at, _)| now.duration_since(*at) > PATIENCE) {
            self.floor = self.floor.max(Some(newest));
        }
        while self.known.len() > KNOWN {
            self.floor = self.floor.max(self.known.pop_first());
        }
        if let Some(floor) = self.floor {
            self.known = self.known.split_off(&floor.saturating_add(1));
        }
    }

    fn tell(&mut self, kind: &str, data: &impl Serialize) {
        let event = Event::default().event(kind).id(self.newest.to_string()).retry(COME_BACK);
        self.ready.push_back(event.json_data(data).unwrap_or_default());
    }

    /// The same while nothing of a run has changed.
    async fn digest_of(&self, id: Uuid) -> Result<u64, Problem> {
        let mut digest = DefaultHasher::new();
        let line = operations(&self.app).line(id).await?;
        format!("{line:?}").hash(&mut digest);
        for task in operations(&self.app).tasks(id).await? {
            let progress = task.progress.as_ref().map(|p| (p.done, p.total));
            (task.id, task.state, task.attempt_no, task.leased_by, task.run_at, progress).hash(&mut digest);
        }
        Ok(digest.finish())
    }
}
