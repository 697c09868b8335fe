//! `GET /v1/renders/{id}/events`: a render as server-sent events.

use super::feed::Snapshot;
use crate::{
    app::App,
    auth::Viewer,
    extract::Path,
    problem::{Code, Problem},
};
use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{Stream, StreamExt};
use std::{convert::Infallible, time::Duration};
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// A comment is sent after this long without an event, so that proxies keep the stream open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A client that lost the stream comes back after this long.
const COME_BACK: Duration = Duration::from_secs(1);

/// `GET /v1/renders/{id}/events`: the render now, then each change, until it has ended.
#[utoipa::path(
    get, path = "/v1/renders/{id}/events", tag = "Renders", operation_id = "watch_render", summary = "Follow a render",
    description = "Server-sent events `render`, each with the whole render as data and a growing id; at most one each \
                   300 ms and only when something changed. The stream ends after the event of a render that has ended. \
                   A client that comes back with the id of that event is answered 204.",
    params(
        ("id" = Uuid, Path, description = "The render"),
        ("Last-Event-ID" = Option<String>, Header, description = "Id of the last event that came")
    ),
    responses(
        (status = 200, description = "Events", body = String, content_type = "text/event-stream",
         example = "event: render\nid: 1767225600000000\ndata: {\"id\": \"0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e11\", \"status\": \"rendering\", \"progress\": 0.42}\n\n"),
        (status = 204, description = "The client has seen the end already"),
        (status = 429, description = "`events.too_many_streams`", body = crate::problem::ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn watch(
    State(app): State<App>,
    Viewer(tenant): Viewer,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let place = app.feeds.admit(&tenant).ok_or_else(too_many)?;
    let watched = app.feeds.watch(&app, tenant, id).await?;
    let seen = last_event_id(&headers);
    let now = watched.borrow().clone();
    if now.render.has_ended() && seen == Some(now.number) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let snapshots = WatchStream::new(watched).filter(move |s| std::future::ready(seen != Some(s.number)));
    // The place is given back when the stream is dropped.
    let events = events(snapshots, app.stopping.clone()).map(move |event| {
        let _ = &place;
        event
    });
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    // Asks nginx and its like not to hold events back.
    response.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn last_event_id(headers: &HeaderMap) -> Option<i64> {
    headers.get(LAST_EVENT_ID)?.to_str().ok()?.parse().ok()
}

fn too_many() -> Problem {
    Problem::new(Code::TooManyStreams, "too many event streams are open; close some or poll the render")
        .with_header(header::RETRY_AFTER, HeaderValue::from_static("5"))
}

/// Snapshots as events, up to and with the last one; it also ends when the server stops.
fn events(
    snapshots: impl Stream<Item = Snapshot> + Send + Unpin + 'static,
    stopping: CancellationToken,
) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    let until_end = futures::stream::unfold(Some(snapshots), |snapshots| async {
        let mut snapshots = snapshots?;
        let snapshot = snapshots.next().await?;
        let more = (!snapshot.render.has_ended()).then_some(snapshots);
        Some((Ok(event(&snapshot)), more))
    });
    until_end.take_until(stopping.cancelled_owned())
}

fn event(snapshot: &Snapshot) -> Event {
    let event = Event::default().event("render").id(snapshot.number.to_string()).retry(COME_BACK);
    // A render is always JSON; an event without data would be dropped by clients.
    event.json_data(&*snapshot.render).unwrap_or_default()
}
