//! The id of the request at hand: accepted from the client or made, shown in answers, problems and logs. Beside it the trace that
//! the request belongs to: what it starts belongs to it, too.

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use flatrender_engine::{TraceContext, trace::TRACEPARENT};
use tracing::Instrument;
use uuid::Uuid;

/// The header that carries it, in and out.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

tokio::task_local! {
    static CURRENT: String;
}

/// The id of the request that this task serves; empty outside a request.
pub fn current() -> String {
    CURRENT.try_with(Clone::clone).unwrap_or_default()
}

/// Gives the request an id and a place in a trace, and everything it logs a span that tells both.
pub async fn attach(request: Request, next: Next) -> Response {
    let id = accepted(&request).unwrap_or_else(|| Uuid::new_v4().to_string());
    let caller = traceparent(&request);
    let trace = caller.map_or_else(TraceContext::root, |caller| caller.child());
    let span = tracing::info_span!(
        "request", id, method = %request.method(), path = request.uri().path(), trace_id = trace.trace_id(),
        span_id = trace.span_id(), parent_id = caller.map(|caller| caller.span_id())
    );
    let mut response = CURRENT.scope(id.clone(), trace.scope(next.run(request))).instrument(span).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER, value);
    }
    response
}

/// The client's own id: 1 to 64 of `A-Z a-z 0-9 . _ -`, so that it can stand in any log.
fn accepted(request: &Request) -> Option<String> {
    let id = request.headers().get(HEADER)?.to_str().ok()?;
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    ((1..=64).contains(&id.len()) && id.bytes().all(fine)).then(|| id.to_owned())
}

/// Where the client is in a trace. What is no context, or comes twice, counts as none.
fn traceparent(request: &Request) -> Option<TraceContext> {
    let mut values = request.headers().get_all(TRACEPARENT).iter();
    let context = values.next()?.to_str().ok()?.parse().ok()?;
    values.next().is_none().then_some(context)
}
