//! A server that speaks the public API as far as the command line uses it, and keeps what it was asked.

use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::StreamExt as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::path::Path as FilePath;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use tokio::process::Command;

/// What the fake film is made of.
pub const FILM: &[u8] = b"not really a film, but every byte counts";

/// A fake server. What its renders do depends on the template they are made from.
#[derive(Clone)]
pub struct Fake {
    pub url: String,
    pub seen: Arc<Mutex<Vec<String>>>,
    watched: Arc<Mutex<u32>>,
}

impl Fake {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let fake = Self { url, seen: Arc::default(), watched: Arc::default() };
        let router = Router::new()
            .route("/readyz", get(async || "ready"))
            .route("/v1/templates/{slug}", get(template))
            .route("/v1/files", post(upload).fallback(anything))
            .route("/v1/renders", post(create))
            .route("/v1/renders/{id}", get(show))
            .route("/v1/renders/{id}/events", get(watch))
            .route("/v1/renders/{id}/cancel", post(cancel))
            .route("/film", get(async || FILM))
            .fallback(anything)
            .with_state(fake.clone());
        tokio::spawn(async { axum::serve(listener, router).await });
        fake
    }

    pub fn saw(&self, what: &str) -> bool {
        self.seen.lock().unwrap().iter().any(|line| line == what)
    }

    fn note(&self, what: impl Into<String>) {
        self.seen.lock().unwrap().push(what.into());
    }

    /// `flatrender`, told to use this server.
    pub fn command(&self, dir: &FilePath, args: &[&str]) -> Command {
        let mut command = program(dir, args);
        command.env("FLATRENDER_URL", &self.url).env("FLATRENDER_API_KEY", "fr_live_test");
        command
    }
}

/// What nothing else here answers: a few forms of answers, and else what was asked.
async fn anything(State(fake): State<Fake>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let asked = format!("{} {}", parts.method, parts.uri);
    fake.note(&asked);
    let header = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let page = |names: &[&str], next: Value| {
        let data: Vec<Value> =
            names.iter().map(|name| json!({ "object": "folder", "id": name, "name": name })).collect();
        Json(json!({ "object": "list", "data": data, "next_cursor": next })).into_response()
    };
    let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
    match path {
        "/v1/members" if query.contains("starting_after=b") => page(&["c"], Value::Null),
        "/v1/members" => page(&["a", "b"], "b".into()),
        "/v1/folders" | "/v1/files" => page(&["z", "y"], Value::Null),
        "/v1/operate/events" => {
            ([("content-type", "text/event-stream")], "event: now\nid: 7\ndata: {\"a\":1}\n\n").into_response()
        }
        path if path.ends_with("/download") => ([("content-type", "video/mp4")], FILM).into_response(),
        path if path.starts_with("/v1/scene-snapshots/") => {
            Json(json!({ "data": [], "counts": { "queued": 0, "running": 0, "error": 0 } })).into_response()
        }
        _ if parts.method == Method::HEAD => [("upload-offset", "5")].into_response(),
        _ if parts.method == Method::DELETE => StatusCode::NO_CONTENT.into_response(),
        _ => {
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let (by, key) = (header("authorization"), header("idempotency-key"));
            Json(json!({ "asked": asked, "by": by, "key": key, "body": body })).into_response()
        }
    }
}

async fn template(Path(slug): Path<String>) -> Response {
    if slug == "nope" {
        return problem(404, "template.not_found", "there is no such template");
    }
    let images = json!([{ "key": "logo" }, { "key": "mark" }]);
    let template = json!({ "slug": slug, "version": 1, "width": 1280, "height": 720, "fps": 30, "duration_seconds": 1.0,
        "manifest": { "images": images } });
    Json(template).into_response()
}

/// `flatrender` with nothing of this machine around it.
pub fn program(dir: &FilePath, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flatrender"));
    for name in ["DATABASE_URL", "FLATRENDER_URL", "FLATRENDER_API_KEY", "FLATRENDER_LISTEN", "RUST_LOG"] {
        command.env_remove(name);
    }
    command.args(args).current_dir(dir).env("FLATRENDER_DATA", dir.join("data")).env("HOME", dir);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// The exit code, and the last line of standard error.
pub fn ending(out: &Output) -> (i32, String) {
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    (out.status.code().unwrap_or(-1), text.lines().last().unwrap_or_default().to_owned())
}

fn problem(status: u16, code: &str, detail: &str) -> Response {
    let body = json!({"type": "about:blank", "title": "no", "status": status, "code": code, "detail": detail});
    (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
}

/// A render's id is the template it was made from: all the state there is.
fn render(id: &str, status: &str) -> Value {
    let sha256 = hex::encode(Sha256::digest(if id == "damaged" { b"other" } else { FILM }));
    let export = json!({"id": "e", "url": "/film", "size_bytes": FILM.len(), "sha256": sha256});
    json!({
        "id": id, "status": status, "step": "rendering frames", "progress": 0.5, "frames": {"total": 10, "rendered": 5},
        "export": if status == "completed" { export } else { Value::Null },
        "error": if status == "failed" { json!({"code": "render.missing_font", "message": "font Foo is missing."}) } else { Value::Null },
    })
}

async fn upload(State(fake): State<Fake>, body: Bytes) -> Response {
    fake.note(format!("uploaded {} bytes", body.len()));
    if body.is_empty() {
        return problem(422, "file.empty", "the file is empty");
    }
    (StatusCode::CREATED, Json(json!({"id": "f1", "kind": "image"}))).into_response()
}

async fn create(State(fake): State<Fake>, headers: HeaderMap, Json(order): Json<Value>) -> Response {
    assert_eq!(headers["authorization"], "Bearer fr_live_test");
    assert!(headers.contains_key("idempotency-key"));
    let template = order["template"].as_str().unwrap().to_owned();
    fake.note(format!("order {}", order["data"]["images"]));
    if template == "unknown" {
        return problem(422, "template.unknown", "there is no template \"unknown\".");
    }
    (StatusCode::ACCEPTED, Json(render(&template, "queued"))).into_response()
}

async fn show(State(fake): State<Fake>, Path(id): Path<String>) -> Json<Value> {
    let cancelled = fake.saw("cancel");
    Json(render(&id, if cancelled { "cancelled" } else { "rendering" }))
}

/// The first stream of a render breaks off; the second comes to the end.
async fn watch(State(fake): State<Fake>, Path(id): Path<String>) -> Response {
    let first = {
        let mut watched = fake.watched.lock().unwrap();
        *watched += 1;
        *watched == 1
    };
    let end = match id.as_str() {
        "broken" => "failed",
        _ => "completed",
    };
    let events: Vec<Result<String, std::io::Error>> = match (first, id.as_str()) {
        (_, "slow") => vec![Ok(event(&render(&id, "rendering")))],
        (true, _) => vec![Ok(event(&render(&id, "rendering"))), Err(std::io::Error::other("broken off"))],
        (false, _) => vec![Ok(": still here\n\n".into()), Ok(event(&render(&id, end)))],
    };
    fake.note("watched");
    let stream = futures::stream::iter(events);
    let body = match id.as_str() {
        "slow" => Body::from_stream(stream.chain(futures::stream::pending())),
        _ => Body::from_stream(stream),
    };
    ([("content-type", "text/event-stream")], body).into_response()
}

fn event(render: &Value) -> String {
    format!("event: render\nid: 1\ndata: {render}\n\n")
}

async fn cancel(State(fake): State<Fake>, Path(id): Path<String>) -> Response {
    fake.note("cancel");
    (StatusCode::ACCEPTED, Json(render(&id, "rendering"))).into_response()
}
