//! `GET /v1/notifications/events`: what you are told, as server-sent events.

use super::{begin, inbox::NotificationView};
use crate::{
    app::App,
    auth::{Actor, SignedIn, Tenant},
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
use chrono::{DateTime, TimeDelta, Utc};
use flatrender_workflows::models::{
    notification::message::{self, Message},
    time_series,
};
use futures::{Stream, StreamExt as _, stream};
use std::{collections::HashMap, convert::Infallible, time::Duration};
use uuid::Uuid;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// How often is looked.
const PERIOD: Duration = Duration::from_millis(500);
/// A comment is sent after this long without an event, so that proxies keep the stream open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A client that lost the stream comes back after this long.
const COME_BACK: Duration = Duration::from_secs(1);
/// What is committed late was written at an earlier time: that far back is looked each time.
const LATE: TimeDelta = TimeDelta::seconds(30);
/// Events of one look.
const PAGE: i64 = 200;

/// `GET /v1/notifications/events`
#[utoipa::path(
    get, path = "/v1/notifications/events", tag = "Notifications", operation_id = "watch_notifications", summary = "Follow what you are told",
    description = "Server-sent events `notification`, each with the whole notification as data. A client that comes back with the id of the \
                   last event that came is told of what came meanwhile, without gaps; what was told within half a minute before it may come \
                   again, so tell them apart by their `id`.",
    params(("Last-Event-ID" = Option<String>, Header, description = "Id of the last event that came")),
    responses(
        (status = 200, description = "Events", body = String, content_type = "text/event-stream",
         example = "event: notification\nid: 1767225600000000\ndata: {\"id\": \"0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e11\", \"title\": \"Your film is ready\"}\n\n"),
        (status = 429, description = "`events.too_many_streams`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn watch(State(app): State<App>, me: SignedIn, headers: HeaderMap) -> Result<Response, Problem> {
    let tenant = Tenant { id: me.tenant_id, actor: Actor::User(me.user_id) };
    let place = app.feeds.admit(&tenant).ok_or_else(too_many)?;
    let (since, resumed) = match last_event_id(&headers) {
        Some(last) => (last - LATE, true),
        None => (time_series::moment(&mut *begin(&app, &me).await?).await?, false),
    };
    let stopping = app.stopping.clone();
    let watcher = Watcher { app, me, seen: HashMap::new(), since, first: resumed };
    let events = watcher.events().take_until(stopping.cancelled_owned()).map(move |event| {
        // The place is given back when the stream is dropped.
        let _ = &place;
        event
    });
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    response.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn last_event_id(headers: &HeaderMap) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(headers.get(LAST_EVENT_ID)?.to_str().ok()?.parse().ok()?)
}

fn too_many() -> Problem {
    Problem::new(Code::TooManyStreams, "too many event streams are open; close some or poll the list")
        .with_header(header::RETRY_AFTER, HeaderValue::from_static("5"))
}

/// Somebody who watches.
struct Watcher {
    app: App,
    me: SignedIn,
    seen: HashMap<Uuid, DateTime<Utc>>,
    since: DateTime<Utc>,
    first: bool,
}

impl Watcher {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> + Send {
        let batches = stream::unfold(self, async |mut watcher| {
            if !std::mem::take(&mut watcher.first) {
                tokio::time::sleep(PERIOD).await;
            }
            // Logged where it was made; the database may be back at the next look.
            let found = watcher.look().await.unwrap_or_default();
            Some((stream::iter(found.into_iter().map(event).map(Ok)), watcher))
        });
        batches.flatten()
    }

    /// What has come since the last look.
    async fn look(&mut self) -> Result<Vec<Message>, Problem> {
        let user = (self.me.tenant_id, self.me.user_id);
        let mut tx = begin(&self.app, &self.me).await?;
        let mut found = message::since(&mut tx, user, self.since, PAGE).await?;
        let full = found.len() as i64 == PAGE;
        let newest = found.last().map(|m| m.created_at);
        found.retain(|message| self.seen.insert(message.id, message.created_at).is_none());
        if let Some(newest) = newest {
            // A full page is followed by the next one; else what is late still counts.
            self.since = if full { newest - TimeDelta::microseconds(1) } else { self.since.max(newest - LATE) };
            self.seen.retain(|_, at| *at > self.since - LATE);
        }
        Ok(found)
    }
}

fn event(message: Message) -> Event {
    let event =
        Event::default().event("notification").id(message.created_at.timestamp_micros().to_string()).retry(COME_BACK);
    // It is always JSON; an event without data would be dropped by clients.
    event.json_data(NotificationView::from(message)).unwrap_or_default()
}
