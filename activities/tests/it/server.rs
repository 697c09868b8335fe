//! A server that speaks `contracts/node.rs` over a real socket, with a ledger for a database.

use crate::ledger::{Books, CREDENTIAL, NEXT_CREDENTIAL, State as TaskState};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, head, post},
};
use flatrender_engine::{TraceContext, trace::TRACEPARENT};
use flatrender_workflows::contracts::{
    node::{
        Claim, Claimed, Complete, Enrol, Enrolled, Fail, Health, Hello, KeptFrames, LEASE_TOKEN_HEADER, Orders,
        PROBE_WANTED, ProbeReport, Release, Renew, Renewed, Rotated, StoredFrames,
    },
    storage::BlobHash,
};
use serde_json::json;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Starts the server; gives its address. It ends with the test's runtime.
pub async fn start(books: Books) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let tasks = Router::new()
        .route("/claims", post(claim))
        .route("/probe", post(probe))
        .route("/hello", post(hello))
        .route("/health", post(health))
        .route("/credential", post(credential))
        .route("/tasks/{task}/renew", post(renew))
        .route("/tasks/{task}/complete", post(complete))
        .route("/tasks/{task}/fail", post(fail))
        .route("/tasks/{task}/release", post(release))
        .route("/tasks/{task}/inputs/{sha256}", get(input))
        .route("/tasks/{task}/frames", get(kept_frames).post(note_frames))
        .route("/tasks/{task}/frames/{sha256}", head(has_frame).put(put_frame))
        .layer(middleware::from_fn(known_nodes_only))
        .layer(middleware::from_fn_with_state(books.clone(), trace));
    let nodes = Router::new()
        .route("/enrol", post(enrol))
        .merge(tasks)
        .layer(middleware::from_fn_with_state(books.clone(), down))
        .with_state(books);
    let app = Router::new().nest("/v1/nodes", nodes).route("/healthz", get(async || StatusCode::OK));
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

fn problem(status: StatusCode, code: &str) -> Response {
    (status, Json(json!({ "code": code, "detail": "in short: no" }))).into_response()
}

fn stale() -> Response {
    problem(StatusCode::CONFLICT, "lease.lost")
}

async fn down(State(books): State<Books>, request: Request, next: Next) -> Response {
    let (is_down, wall) = {
        let mut ledger = books.open();
        ledger.walled += u32::from(ledger.wall.is_some());
        (ledger.down, ledger.wall)
    };
    if let Some(status) = wall {
        return (StatusCode::from_u16(status).unwrap(), "<html>not for you</html>").into_response();
    }
    if is_down { StatusCode::SERVICE_UNAVAILABLE.into_response() } else { next.run(request).await }
}

async fn trace(State(books): State<Books>, request: Request, next: Next) -> Response {
    let named: Option<TraceContext> = request.headers().get(TRACEPARENT).map(|v| v.to_str().unwrap().parse().unwrap());
    books.open().traces.extend(named);
    next.run(request).await
}

async fn known_nodes_only(headers: HeaderMap, request: Request, next: Next) -> Response {
    let given = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok());
    if [CREDENTIAL, NEXT_CREDENTIAL].iter().any(|c| given == Some(&format!("Bearer {c}"))) {
        next.run(request).await
    } else {
        problem(StatusCode::UNAUTHORIZED, "auth.unknown_node")
    }
}

async fn enrol(State(books): State<Books>, Json(body): Json<Enrol>) -> Response {
    let mut ledger = books.open();
    if ledger.token.take_if(|token| *token == body.token).is_none() {
        return problem(StatusCode::UNAUTHORIZED, "node.bad_token");
    }
    assert_eq!(body.capabilities.labels["engine"], "lottie");
    ledger.enrolments += 1;
    Json(Enrolled { node_id: Uuid::new_v4(), credential: CREDENTIAL.into() }).into_response()
}

async fn hello(State(books): State<Books>, Json(said): Json<Hello>) -> Json<Orders> {
    let mut ledger = books.open();
    ledger.hellos.push(said);
    Json(ledger.orders.clone())
}

async fn health(State(books): State<Books>, Json(said): Json<Health>) -> Json<Orders> {
    let mut ledger = books.open();
    ledger.healths.push(said);
    Json(ledger.orders.clone())
}

async fn credential(State(books): State<Books>) -> Json<Rotated> {
    let mut ledger = books.open();
    ledger.orders.rotate = false;
    ledger.rotations += 1;
    Json(Rotated { credential: NEXT_CREDENTIAL.into() })
}

async fn probe(State(books): State<Books>, Json(report): Json<ProbeReport>) -> StatusCode {
    let mut ledger = books.open();
    ledger.quarantined &= !report.passed();
    ledger.probes.push(report);
    StatusCode::NO_CONTENT
}

async fn claim(State(books): State<Books>, Json(body): Json<Claim>) -> Response {
    if books.open().quarantined {
        return problem(StatusCode::CONFLICT, PROBE_WANTED);
    }
    let until = Instant::now() + Duration::from_secs_f64(body.wait_seconds);
    loop {
        if let Some(task) = books.open().claim() {
            return Json(Claimed { tasks: vec![task] }).into_response();
        }
        if Instant::now() >= until {
            return StatusCode::NO_CONTENT.into_response();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn renew(State(books): State<Books>, Path(_): Path<i64>, Json(body): Json<Renew>) -> Response {
    let mut ledger = books.open();
    if !ledger.holds("renew", body.lease_token) {
        return stale();
    }
    ledger.renewals += 1;
    ledger.progress = body.progress.unwrap_or_default();
    ledger.lease_ends = Instant::now() + Duration::from_secs_f64(ledger.task.lease_seconds);
    Json(Renewed { cancelled: ledger.cancelled, lease_seconds: ledger.task.lease_seconds }).into_response()
}

async fn complete(State(books): State<Books>, Path(_): Path<i64>, Json(body): Json<Complete>) -> Response {
    let mut ledger = books.open();
    if !ledger.holds("complete", body.lease_token) {
        return stale();
    }
    ledger.state = TaskState::Done(Box::new(serde_json::from_value(body.output).unwrap()));
    StatusCode::NO_CONTENT.into_response()
}

async fn fail(State(books): State<Books>, Path(_): Path<i64>, Json(body): Json<Fail>) -> Response {
    let mut ledger = books.open();
    if !ledger.holds("fail", body.lease_token) {
        return stale();
    }
    ledger.state = TaskState::Failed(body.failure);
    StatusCode::NO_CONTENT.into_response()
}

async fn release(State(books): State<Books>, Path(_): Path<i64>, Json(body): Json<Release>) -> Response {
    let mut ledger = books.open();
    if !ledger.holds("release", body.lease_token) {
        return stale();
    }
    ledger.released += 1;
    // Given back for good: nobody claims it again in these tests.
    ledger.state = TaskState::Failed(flatrender_engine::Failure::cancelled());
    StatusCode::NO_CONTENT.into_response()
}

async fn input(State(books): State<Books>, Path((_, sha256)): Path<(i64, String)>, headers: HeaderMap) -> Response {
    let mut ledger = books.open();
    if !ledger.holds_in_time("input", token(&headers)) {
        return stale();
    }
    match ledger.inputs.get(&sha256.parse::<BlobHash>().unwrap()) {
        Some(bytes) => bytes.clone().into_response(),
        None => problem(StatusCode::NOT_FOUND, "blob.not_found"),
    }
}

async fn has_frame(State(books): State<Books>, Path((_, sha256)): Path<(i64, String)>, headers: HeaderMap) -> Response {
    let mut ledger = books.open();
    if !ledger.holds_in_time("frame", token(&headers)) {
        return stale();
    }
    let there = ledger.frames.contains_key(&sha256.parse::<BlobHash>().unwrap());
    if there { StatusCode::OK } else { StatusCode::NOT_FOUND }.into_response()
}

async fn kept_frames(State(books): State<Books>, Path(_): Path<i64>, headers: HeaderMap) -> Response {
    let mut ledger = books.open();
    if !ledger.holds_in_time("kept", token(&headers)) {
        return stale();
    }
    Json(KeptFrames { frames: ledger.kept.clone() }).into_response()
}

async fn note_frames(State(books): State<Books>, Path(_): Path<i64>, Json(body): Json<StoredFrames>) -> Response {
    let mut ledger = books.open();
    if !ledger.holds_in_time("note", body.lease_token) {
        return stale();
    }
    ledger.noted.extend(body.frames.iter().map(|f| f.frame));
    StatusCode::NO_CONTENT.into_response()
}

async fn put_frame(
    State(books): State<Books>,
    Path((_, sha256)): Path<(i64, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut ledger = books.open();
    if !ledger.holds_in_time("frame", token(&headers)) {
        return stale();
    }
    if BlobHash::of(&body).as_str() != sha256 {
        return problem(StatusCode::UNPROCESSABLE_ENTITY, "blob.mismatch");
    }
    ledger.puts += 1;
    ledger.frames.insert(BlobHash::of(&body), body.to_vec());
    StatusCode::CREATED.into_response()
}

fn token(headers: &HeaderMap) -> Uuid {
    headers[LEASE_TOKEN_HEADER].to_str().unwrap().parse().unwrap()
}
