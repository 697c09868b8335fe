//! What machines of ours call, behind a listener of its own.

use crate::world::{Answer, Claimed, Node, World, blob, png, request, with_json};
use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use flatrender_api::{
    router,
    serve::{self, Listen, ServeConfig},
};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::sync::Arc;
use tokio::net::TcpListener;
use tower::ServiceExt as _;
use uuid::Uuid;

impl World {
    /// The answer of the internal listener.
    async fn inside(&self, request: Request<Body>) -> Answer {
        let (parts, body) = router::internal(self.app.clone()).oneshot(request).await.unwrap().into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// Asks for a still of every scene.
    async fn ask_for_stills(&self) -> String {
        let project = self.get("/v1/templates").await.json()["data"][0]["project_id"].as_str().unwrap().to_owned();
        let path = format!("/v1/scene-snapshots/{project}");
        assert_eq!(self.post(&path, json!({})).await.status, StatusCode::ACCEPTED);
        path
    }
}

impl Node<'_> {
    async fn inside(&self, path: &str, body: Value) -> Answer {
        let path = format!("/internal/v1/snapshot-jobs{path}");
        self.world.inside(with_json(request(Method::POST, &path, &self.credential), &body)).await
    }

    /// Claims jobs from the inside: each with its id.
    async fn claim_jobs(&self, limit: u32) -> Vec<(String, Claimed)> {
        let asked = json!({"incarnation": self.incarnation, "labels": {"engine": "lottie"}, "limit": limit, "wait_seconds": 20.0});
        let answer = self.inside("/claim", asked).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        let job = |job: &Value| {
            let token = job["lease_token"].as_str().unwrap().to_owned();
            let task = Claimed { id: job["task_id"].as_i64().unwrap(), token, input: job["input"].clone() };
            (job["id"].as_str().unwrap().to_owned(), task)
        };
        answer.json()["jobs"].as_array().unwrap().iter().map(job).collect()
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn s085_a_job_is_claimed_kept_and_reported_inside(db: PgPool) {
    let world = World::managed(db).await;
    world.work();
    let path = world.ask_for_stills().await;
    let node = world.node("n1").await;
    let mut jobs = vec![];
    while jobs.len() < 2 {
        jobs.extend(node.claim_jobs(8).await);
    }
    let (first, task) = &jobs[0];
    let list = world.get(&path).await.json();
    assert_eq!(list["counts"]["running"], 2, "{list:#}");
    assert!(list["data"].as_array().unwrap().iter().any(|scene| scene["job"]["id"] == json!(first)));
    let beat = node.inside(&format!("/{first}/heartbeat"), json!({"lease_token": task.token})).await;
    assert_eq!(beat.json(), json!({"cancelled": false, "lease_seconds": 30.0}));

    // Inputs and frames are there, too: nobody needs the public listener.
    let input = format!("/v1/nodes/tasks/{}/inputs/{}", task.id, world.package.sha256);
    let input = request(Method::GET, &input, &node.credential).header("lease-token", &task.token);
    assert_eq!(world.inside(input.body(Body::empty()).unwrap()).await.body, "a package");
    let picture = png([40, 50, 60]);
    let frame = blob(&picture);
    let put = format!("/v1/nodes/tasks/{}/frames/{}", task.id, frame.sha256);
    let put = request(Method::PUT, &put, &node.credential).header("lease-token", &task.token);
    assert_eq!(world.inside(put.body(picture.into()).unwrap()).await.status, StatusCode::NO_CONTENT);

    let report = json!({"lease_token": task.token, "frame": frame});
    let result = format!("/{first}/result");
    assert_eq!(node.inside(&result, report.clone()).await.status, StatusCode::NO_CONTENT);
    assert_eq!(node.inside(&result, report).await.status, StatusCode::NO_CONTENT, "the answer may have been lost");
    let (second, task) = &jobs[1];
    let failure = json!({"code": "render.missing_font", "message": "no font", "retryable": false});
    let report = json!({"lease_token": task.token, "failure": failure});
    assert_eq!(node.inside(&format!("/{second}/fail"), report).await.status, StatusCode::NO_CONTENT);
    let ended = |list: &Value| list["counts"] == json!({"queued": 0, "running": 0, "done": 1, "error": 1});
    let begun = std::time::Instant::now();
    while !ended(&world.get(&path).await.json()) {
        assert!(begun.elapsed().as_secs() < 60);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn s085_what_is_reported_inside_is_looked_at_and_fenced(db: PgPool) {
    let world = World::managed(db).await;
    world.run_workflows();
    world.ask_for_stills().await;
    let (node, thief) = (world.node("n1").await, world.node("n10").await);
    let (id, task) = node.claim_jobs(1).await.remove(0);
    let stored = node.put_frame(&task, &png([1, 1, 1])).await;
    let text = node.put_frame(&task, b"no picture").await;
    let result = format!("/{id}/result");
    let report = |frame: Value| json!({"lease_token": task.token, "frame": frame});
    let cases = [
        ("no picture", report(json!(text)), 422),
        ("not stored", report(json!(blob(b"nothing"))), 422),
        ("another length", report(json!({"sha256": stored.sha256, "size_bytes": 2})), 422),
        ("an address in place of a frame", report(json!("data:image/png;base64,AAAA")), 422),
        (
            "an address beside it",
            json!({"lease_token": task.token, "frame": stored, "image_url": "data:image/png;base64,AAAA"}),
            422,
        ),
        ("an invented lease", json!({"lease_token": Uuid::new_v4(), "frame": stored}), 409),
    ];
    for (what, body, status) in cases {
        assert_eq!(node.inside(&result, body).await.status.as_u16(), status, "{what}");
    }
    let foreign = thief.inside(&result, report(json!(stored))).await;
    assert_eq!(foreign.problem(), "lease.lost", "a lease belongs to its node");
    let none = node.inside(&format!("/{}/heartbeat", Uuid::now_v7()), json!({"lease_token": task.token})).await;
    assert_eq!(none.problem(), "snapshot_job.not_found");
    for path in ["/claim".to_owned(), result.clone(), format!("/{id}/fail"), format!("/{id}/heartbeat")] {
        let path = format!("/internal/v1/snapshot-jobs{path}");
        let by = async |key: &str| world.inside(with_json(request(Method::POST, &path, key), &json!({}))).await;
        assert_eq!(by(&world.key).await.problem(), "auth.invalid", "{path}: keys of tenants open nothing here");
        let bare = Request::builder().method(Method::POST).uri(&path).header("content-type", "application/json");
        assert_eq!(world.inside(bare.body("{}".into()).unwrap()).await.problem(), "auth.missing", "{path}");
    }
    // Given to somebody else, it is nobody's who had it before.
    let release = format!("/v1/nodes/tasks/{}/release", task.id);
    assert_eq!(node.call(&release, json!({"lease_token": task.token})).await.status, StatusCode::NO_CONTENT);
    assert_eq!(node.inside(&result, report(json!(stored))).await.problem(), "lease.lost");
}

#[sqlx::test(migrations = "../migrations")]
async fn s085_each_listener_has_its_own_addresses(db: PgPool) {
    let world = World::managed(db).await;
    let bind = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (public, inside) = (bind().await, bind().await);
    let (outer, inner) = (public.local_addr().unwrap(), inside.local_addr().unwrap());
    let config = ServeConfig {
        listen: Listen::Bound(public),
        internal: Some(inside),
        pool: world.db.clone(),
        storage: world.storage.clone(),
        limits: world.app.limits,
        probe: Arc::new(flatrender_api::worker::upload_probe("ffprobe".into())),
        vault: world.app.vault.clone(),
        public_url: "https://films.example".into(),
    };
    let stop = world.stopping.child_token();
    let served = tokio::spawn(serve::run(config, stop.clone()));
    let node = world.node("n1").await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::new();
    let post = async |at: std::net::SocketAddr, path: &str| {
        let asked = http.post(format!("http://{at}{path}")).bearer_auth(&node.credential);
        let body = json!({"incarnation": Uuid::new_v4(), "labels": {}});
        let answer = asked.header("x-forwarded-prefix", "/internal").json(&body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json::<Value>().await.map(|json| json["code"].clone()).unwrap_or_default())
    };
    for path in [
        "/internal/v1/snapshot-jobs/claim",
        "/internal",
        "/internal/",
        "/internal/v1/snapshot-jobs",
        "/v1/../internal/v1/snapshot-jobs/claim",
        "//internal/v1/snapshot-jobs/claim",
    ] {
        assert_eq!(post(outer, path).await, (404, json!("route.not_found")), "{path}");
    }
    let answer = post(inner, "/internal/v1/snapshot-jobs/claim").await;
    assert_eq!(answer.0, 204, "no work, and that is an answer: {answer:?}");
    assert_eq!(post(inner, "/v1/renders").await.0, 404, "nothing of tenants is in there");
    let health = http.get(format!("http://{inner}/healthz")).send().await.unwrap();
    assert_eq!(health.status().as_u16(), 200);
    stop.cancel();
    served.await.unwrap().unwrap();
}

#[sqlx::test(migrations = "../migrations")]
async fn a_failure_that_is_told_inside_speaks_against_the_node(db: PgPool) {
    let world = World::managed(db).await;
    world.work();
    world.ask_for_stills().await;
    let node = world.node("n1").await;
    let (job, task) = node.claim_jobs(1).await.remove(0);
    assert_eq!(world.count("render.nodes where incarnation is not null").await, 1, "whoever asks for work is heard of");
    let failure = json!({"code": "render.licence", "message": "the licence was refused", "retryable": true});
    let told = node.inside(&format!("/{job}/fail"), json!({"lease_token": task.token, "failure": failure})).await;
    assert_eq!(told.status, StatusCode::NO_CONTENT, "{:?}", told.body);
    let written =
        "render.node_crashes where code = 'render.licence' and recovery = 'quarantined' and package_sha256 is not null";
    assert_eq!(world.count(written).await, 1);
    assert_eq!(node.ask(0.0).await.problem(), "node.probe_wanted");
}
