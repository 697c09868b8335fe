//! What the server counts, for Prometheus. Labels come from fixed sets: routes, methods, statuses.

use crate::worker::walls::WALLS;
use axum::{
    Router,
    extract::{MatchedPath, Request},
    http::{Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
    routing::get,
};
use flatrender_workflows::models::time_series::MADE_LATE;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::{
    future::IntoFuture as _,
    io,
    sync::OnceLock,
    time::{Duration, Instant},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Seconds, for everything that is timed.
const BUCKETS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Writes that share a commit.
const WRITES: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];
/// How often histograms are tidied when nobody asks for them.
const UPKEEP: Duration = Duration::from_secs(5);

static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Starts counting, once a process. Where somebody else has installed a recorder, `/metrics` stays empty.
pub fn install() {
    HANDLE.get_or_init(|| {
        let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &BUCKETS);
        let builder = builder.ok()?.set_buckets_for_metric(Matcher::Suffix("_writes".into()), &WRITES);
        let handle = builder.ok()?.install_recorder();
        flatrender_engine::measures::describe();
        metrics::describe_counter!(MADE_LATE, "months of time series that were missing and had to be made by a writer");
        metrics::describe_gauge!(WALLS, "whether a wall stands around programs that read what others send: 1 or 0");
        handle.inspect_err(|error| tracing::warn!(%error, "metrics are not collected")).ok()
    });
}

/// Keeps what is counted small while nobody asks for it.
pub async fn keep_up() {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        if let Some(handle) = HANDLE.get().and_then(Option::as_ref) {
            handle.run_upkeep();
        }
    }
}

/// `GET /metrics`: what this process has counted.
#[utoipa::path(
    get, path = "/metrics", tag = "Operation", operation_id = "metrics", summary = "What the server counts",
    description = "Counters of this process in the text format of Prometheus.", security(()),
    responses((status = 200, description = "Counters", body = String, content_type = "text/plain"))
)]
pub async fn show() -> impl IntoResponse {
    let text = HANDLE.get().and_then(Option::as_ref).map(PrometheusHandle::render).unwrap_or_default();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

/// Answers `GET /metrics` alone, for a process that serves nothing else, until `stop`.
///
/// # Errors
/// The listener failed.
pub async fn serve(listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
    install();
    let only = Router::new().route("/metrics", get(show));
    tokio::select! {
        served = axum::serve(listener, only).into_future() => served,
        () = keep_up() => Ok(()),
        () = stop.cancelled() => Ok(()),
    }
}

/// Counts and times a request by route, method and status.
pub async fn observe(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let method = known(request.method());
    let started = Instant::now();
    let response = next.run(request).await;
    let (status, seconds) = (response.status().as_u16(), started.elapsed().as_secs_f64());
    tracing::debug!(status, seconds, "answered");
    let labels = [("route", route.clone()), ("method", method.to_owned()), ("status", status.to_string())];
    metrics::counter!("flatrender_http_requests_total", &labels).increment(1);
    metrics::histogram!("flatrender_http_request_seconds", "route" => route, "method" => method).record(seconds);
    response
}

/// A method of a fixed set: clients may invent others.
pub fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "PATCH" => "PATCH",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_that_serves_nothing_else_shows_what_it_counts() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let served = tokio::spawn(serve(listener, stop.clone()));
        let ask = async |path: &str| reqwest::get(format!("{url}{path}")).await.unwrap();
        let first = ask("/metrics").await;
        assert_eq!(first.headers()[header::CONTENT_TYPE], "text/plain; version=0.0.4");
        metrics::counter!("flatrender_test_total").increment(3);
        let text = ask("/metrics").await.text().await.unwrap();
        assert!(text.lines().any(|line| line == "flatrender_test_total 3"), "{text}");
        assert_eq!(ask("/v1/renders").await.status(), 404);
        stop.cancel();
        served.await.unwrap().unwrap();
    }
    #[test]
    fn the_dashboard_for_grafana_shows_what_there_is() {
        let own =
            ["flatrender_http_requests_total", "flatrender_http_request_seconds", "flatrender_requests_limited_total"];
        let own = own.into_iter().chain(["flatrender_farm_decision_seconds", MADE_LATE, WALLS]);
        let known: Vec<&str> = flatrender_engine::measures::all().map(|(name, ..)| name).chain(own).collect();
        let board: serde_json::Value = serde_json::from_str(include_str!("../../docs/grafana.json")).unwrap();
        let targets =
            board["panels"].as_array().unwrap().iter().filter_map(|panel| panel["targets"].as_array()).flatten();
        let mut shown = 0;
        for asked in targets.map(|target| target["expr"].as_str().unwrap()) {
            let name =
                asked.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').find(|w| w.starts_with("flatrender_"));
            let name = name.unwrap();
            assert!(known.contains(&name.trim_end_matches("_bucket")), "{name} is counted by nobody");
            shown += 1;
        }
        assert!(shown > 20, "{shown}");
    }
}
