//! Stills of scenes, from the request to the scene; only the pixels are painted by the test.

mod attempts;
mod kept;
mod mock;

use crate::world::{Answer, Claimed, Node, PUBLIC_URL, SIZE, World, blob, png, request, with_json};
use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use flatrender_workflows::models::{
    DEFAULT_TENANT, Role, Scope, identity::tenant_api_key::SCOPES, render::snapshot_job,
};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// The longest time until a still is done.
const PATIENCE: Duration = Duration::from_secs(60);

/// Addresses of the world's template.
struct Stills<'w> {
    world: &'w World,
    path: String,
}

impl World {
    /// With a key that may manage the tenant.
    pub async fn managed(db: PgPool) -> Self {
        let mut world = Self::new(db).await;
        world.key = world.key_for(DEFAULT_TENANT, &SCOPES).await.1;
        world
    }

    async fn stills(&self) -> Stills<'_> {
        let project = self.get("/v1/templates").await.json()["data"][0]["project_id"].as_str().unwrap().to_owned();
        Stills { world: self, path: format!("/v1/scene-snapshots/{project}") }
    }

    async fn anonymous(&self, path: &str) -> Answer {
        self.send(Request::builder().uri(path).body(Body::empty()).unwrap()).await
    }
}

impl Stills<'_> {
    async fn ask(&self, body: Value) -> Value {
        let answer = self.world.post(&self.path, body).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{:?}", answer.body);
        answer.json()
    }

    async fn list(&self) -> Value {
        let answer = self.world.get(&self.path).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        answer.json()
    }

    /// The first scene's id.
    async fn scene(&self) -> String {
        self.list().await["data"][0]["scene_id"].as_str().unwrap().to_owned()
    }

    /// Waits until `wanted` holds of the list.
    async fn until(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let list = self.list().await;
            if wanted(&list) {
                return list;
            }
            assert!(started.elapsed() < PATIENCE, "{list:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until nothing is queued or running.
    async fn settled(&self) -> Value {
        self.until(|list| list["counts"]["queued"] == 0 && list["counts"]["running"] == 0).await
    }
}

impl Node<'_> {
    /// Renders a still in one colour.
    async fn shoot(&self, task: &Claimed, color: [u8; 3]) {
        let frame = self.put_frame(task, &png(color)).await;
        let answer = self.complete(task, json!({"rendered": {"frame": frame}})).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{:?}", answer.body);
    }

    async fn fail(&self, task: &Claimed, code: &str, retryable: bool) {
        let failure = json!({"code": code, "message": "as told", "retryable": retryable});
        let body = json!({"lease_token": task.token, "failure": failure});
        let answer = self.call(&format!("/v1/nodes/tasks/{}/fail", task.id), body).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{:?}", answer.body);
    }
}

fn path_of(url: &Value) -> String {
    url.as_str().unwrap().strip_prefix(PUBLIC_URL).unwrap_or_else(|| panic!("{url}")).to_owned()
}

#[sqlx::test(migrations = "../migrations")]
async fn s076_a_still_goes_from_the_request_to_the_scene(db: PgPool) {
    let world = World::managed(db).await;
    world.work();
    let (stills, node) = (world.stills().await, world.node("n1").await);
    let before = stills.list().await;
    assert_eq!((&before["data"][0]["scene_key"], &before["data"][0]["job"]), (&json!("a"), &Value::Null));
    let asked = stills.ask(json!({})).await;
    assert_eq!(asked["counts"], json!({"queued": 2, "running": 0, "done": 0, "error": 0}));

    let task = node.claim().await;
    assert_eq!((&task.input["composition"], &task.input["frame"]), (&json!("scene:a"), &json!(5)));
    assert_eq!(task.input["data"]["texts"], json!({"title": "T"}));
    let running = stills.list().await["data"][0]["job"].clone();
    assert_eq!((&running["status"], &running["attempts"]), (&json!("running"), &json!(1)));
    node.shoot(&task, [200, 30, 30]).await;
    let second = node.claim().await;
    node.shoot(&second, [30, 30, 200]).await;
    let list = stills.settled().await;
    assert_eq!(list["counts"], json!({"queued": 0, "running": 0, "done": 2, "error": 0}), "{list:#}");

    let job = &list["data"][0]["job"];
    assert_eq!((&job["source"], &job["error"]), (&json!("aerender"), &Value::Null));
    assert_eq!(list["data"][0]["url"], job["image_url"]);
    let picture = world.anonymous(&path_of(&job["image_url"])).await;
    let shown = image::load_from_memory_with_format(&picture.body, image::ImageFormat::WebP).unwrap().into_rgb8();
    assert_eq!([shown.width(), shown.height()], SIZE);
    let [r, g, b] = shown.get_pixel(9, 9).0;
    assert!(r.abs_diff(200) < 6 && g.abs_diff(30) < 6 && b.abs_diff(30) < 6, "{r} {g} {b}");
    assert_eq!(world.anonymous(&path_of(&job["small_url"])).await.status, StatusCode::OK);

    let template = world.get("/v1/templates/tiny").await.json();
    let shown: Vec<&Value> = template["scenes"].as_array().unwrap().iter().map(|s| &s["snapshot_url"]).collect();
    assert_eq!(shown, [&list["data"][0]["url"], &list["data"][1]["url"]]);
    let stranger = world.stranger().await;
    let theirs = world.send(request(Method::GET, "/v1/templates/tiny", &stranger).body(Body::empty()).unwrap()).await;
    assert_eq!(theirs.json()["scenes"], template["scenes"], "a shared template is everybody's, with its stills");
}

#[sqlx::test(migrations = "../migrations")]
async fn s091_a_still_has_an_address_for_ever(db: PgPool) {
    let world = World::managed(db).await;
    world.work();
    let (stills, node) = (world.stills().await, world.node("n1").await);
    stills.ask(json!({"scenes": [stills.scene().await]})).await;
    node.shoot(&node.claim().await, [9, 99, 9]).await;
    let url = stills.settled().await["data"][0]["url"].clone();
    let path = path_of(&url);
    assert!(path.starts_with("/snap/") && !path.contains(['?', '#']), "{path}");
    let picture = world.anonymous(&path).await;
    assert_eq!((picture.status, picture.header(header::CONTENT_TYPE)), (StatusCode::OK, "image/webp"));
    assert_eq!(picture.header(header::CACHE_CONTROL), "public, max-age=31536000, immutable");
    assert_eq!(picture.header(header::X_CONTENT_TYPE_OPTIONS), "nosniff");
    assert_eq!(blob(&picture.body).sha256.as_str(), path.rsplit('/').next().unwrap());
    let etag = picture.header(header::ETAG).to_owned();
    let again = Request::builder().uri(&path).header(header::IF_NONE_MATCH, &etag).body(Body::empty()).unwrap();
    assert_eq!(world.send(again).await.status, StatusCode::NOT_MODIFIED);
    // Nothing of it is a matter of time: not the database, not a clock.
    let gone = "update render.snapshots set created_at = '2020-01-01', last_used_at = '2020-01-01'";
    sqlx::query(gone).execute(&world.db).await.unwrap();
    assert_eq!(world.anonymous(&path).await.body, picture.body);
    let unknown = format!("/snap/{}", blob(b"nothing").sha256);
    assert_eq!(world.anonymous(&unknown).await.problem(), "blob.not_found");
    assert_eq!(world.anonymous("/snap/..%2F..%2Fsecret.key").await.problem(), "path.invalid");
    let package = format!("/snap/{}", world.package.sha256);
    assert_eq!(world.anonymous(&package).await.status, StatusCode::NOT_FOUND, "what tenants keep is elsewhere");
}

#[sqlx::test(migrations = "../migrations")]
async fn s084_what_has_not_changed_is_not_told_again(db: PgPool) {
    let world = World::managed(db).await;
    world.run_workflows();
    let stills = world.stills().await;
    let first = world.get(&stills.path).await;
    let ask = async |etag: &str| {
        let request = world.request(Method::GET, &stills.path).header(header::IF_NONE_MATCH, etag);
        world.send(request.body(Body::empty()).unwrap()).await
    };
    let etag = first.header(header::ETAG).to_owned();
    let same = ask(&etag).await;
    assert_eq!((same.status, same.body.len(), same.header(header::ETAG)), (StatusCode::NOT_MODIFIED, 0, &*etag));
    stills.ask(json!({})).await;
    let changed = ask(&etag).await;
    assert_eq!((changed.status, &changed.json()["counts"]["queued"]), (StatusCode::OK, &json!(2)));
    assert_ne!(changed.header(header::ETAG), etag);
}

#[sqlx::test(migrations = "../migrations")]
async fn s078_s083_asking_again_joins_what_lives_and_never_conflicts(db: PgPool) {
    let world = World::managed(db).await;
    world.run_workflows();
    let stills = world.stills().await;
    let ids = |list: &Value| -> Vec<String> {
        list["data"].as_array().unwrap().iter().map(|s| s["job"]["id"].to_string()).collect()
    };
    let first = stills.ask(json!({})).await;
    assert_eq!(ids(&stills.ask(json!({})).await), ids(&first));
    assert_eq!(ids(&stills.ask(json!({"force": true})).await), ids(&first), "what lives is fresh enough");
    let one = stills.ask(json!({"scenes": [first["data"][1]["scene_id"]]})).await;
    assert_eq!(ids(&one), ids(&first)[1..]);
    assert_eq!(world.count("render.snapshot_jobs").await, 2);
    let wrong = world.post(&stills.path, json!({"scenes": [Uuid::nil()]})).await;
    assert_eq!(wrong.faults(), ["/scenes/0 scene.unknown"]);

    let keyed = async |key: &str, body: Value| {
        let request = world.request(Method::POST, &stills.path).header("idempotency-key", key);
        world.send(with_json(request, &body)).await
    };
    let (once, twice) = (keyed("k", json!({})).await, keyed("k", json!({})).await);
    assert_eq!((once.header("idempotent-replayed"), twice.header("idempotent-replayed")), ("", "true"));
    assert_eq!(ids(&once.json()), ids(&twice.json()));
    assert_eq!(keyed("k", json!({"force": true})).await.problem(), "idempotency.key_reused");
    assert_eq!(keyed("", json!({})).await.problem(), "header.invalid");
    let (left, right) = tokio::join!(keyed("both", json!({})), keyed("both", json!({})));
    assert_eq!((left.status, ids(&left.json())), (StatusCode::ACCEPTED, ids(&right.json())));
}

#[sqlx::test(migrations = "../migrations")]
async fn stills_are_for_those_who_manage_the_template(db: PgPool) {
    let world = World::managed(db).await;
    let stills = world.stills().await;
    let stranger = world.key_for(world.tenant("stranger").await, &SCOPES).await.1;
    for method in [Method::GET, Method::POST] {
        let by = async |key: &str, path: &str| {
            world.send(with_json(request(method.clone(), path, key), &json!({}))).await.problem()
        };
        assert_eq!(by(&stranger, &stills.path).await, "project.not_found", "{method}");
        let none = format!("/v1/scene-snapshots/{}", Uuid::now_v7());
        assert_eq!(by(&world.key, &none).await, "project.not_found", "{method}");
        let (_, small) = world.key_for(DEFAULT_TENANT, &["render", "files", "templates"]).await;
        assert_eq!(by(&small, &stills.path).await, "auth.scope", "{method}");
        let editor = world.person(DEFAULT_TENANT, &format!("{method}@example.com"), &["editor"]).await;
        let editor = world.session(DEFAULT_TENANT, editor).await;
        assert_eq!(by(&editor, &stills.path).await, "auth.forbidden", "{method}");
    }
    assert_eq!(world.count("render.snapshot_jobs").await, 0);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_cancelled_still_is_an_error_of_its_own(db: PgPool) {
    let world = World::managed(db).await;
    let stills = world.stills().await;
    stills.ask(json!({"scenes": [stills.scene().await]})).await;
    let run: Uuid =
        sqlx::query_scalar("select workflow_run_id from render.snapshot_jobs").fetch_one(&world.db).await.unwrap();
    let mut tx = world.db.begin().await.unwrap();
    assert!(world.app.workflows.cancel(&mut tx, run, "changed my mind").await.unwrap());
    tx.commit().await.unwrap();
    world.run_workflows();
    let job = stills.settled().await["data"][0]["job"].clone();
    assert_eq!((&job["status"], &job["error"]["code"]), (&json!("error"), &json!("cancelled")));
}

/// The transaction in which a still is shown waits for its last row: until it commits nothing of it is there, and when it is killed
/// nothing of it is kept.
#[sqlx::test(migrations = "../migrations")]
async fn s081_a_still_is_shown_whole_or_not_at_all(db: PgPool) {
    let world = World::managed(db).await;
    world.work();
    let (stills, node) = (world.stills().await, world.node("n1").await);
    stills.ask(json!({"scenes": [stills.scene().await]})).await;
    let mut holder = world.db.begin().await.unwrap();
    sqlx::query("select from content.scenes for update").execute(&mut *holder).await.unwrap();
    node.shoot(&node.claim().await, [5, 5, 200]).await;
    let me: String = sqlx::query_scalar("select current_database()::text").fetch_one(&world.db).await.unwrap();
    let kill = "select coalesce(bool_or(pg_terminate_backend(pid)), false) from pg_stat_activity
                where datname = $1 and wait_event_type = 'Lock' and query like '%set_scene_snapshot%'";
    let begun = Instant::now();
    while !sqlx::query_scalar::<_, bool>(kill).bind(&me).fetch_one(&world.db).await.unwrap() {
        assert!(begun.elapsed() < PATIENCE, "the last statement is reached");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(world.count("render.snapshots").await, 0);
    let job = stills.list().await["data"][0].clone();
    assert_eq!(
        (&job["job"]["status"], &job["job"]["image_url"], &job["url"]),
        (&json!("running"), &Value::Null, &Value::Null)
    );
    drop(holder);
    let shown = stills.settled().await["data"][0].clone();
    assert_eq!((&shown["job"]["status"], &shown["url"]), (&json!("done"), &shown["job"]["image_url"]));
    assert_eq!(world.count("render.snapshots").await, 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn an_older_still_never_replaces_a_newer_one(db: PgPool) {
    let world = World::managed(db).await;
    world.work();
    let (stills, node) = (world.stills().await, world.node("n1").await);
    let one = json!({"scenes": [stills.scene().await], "force": true});
    stills.ask(one.clone()).await;
    let late = node.claim().await;
    // Somebody else's picture comes in between, asked for later.
    let newer = format!("{PUBLIC_URL}/snap/newer");
    let mut tx = world.app.db.begin(Scope::tenant(Role::Render, DEFAULT_TENANT)).await.unwrap();
    let set = "select content.set_scene_snapshot($1, scene_id, $2, repeat('b', 64), workflow.now()) from render.snapshot_jobs";
    let taken: bool = sqlx::query_scalar(set).bind(DEFAULT_TENANT).bind(&newer).fetch_one(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
    assert!(taken);
    node.shoot(&late, [1, 1, 1]).await;
    let list = stills.settled().await;
    assert_eq!((&list["data"][0]["job"]["status"], &list["data"][0]["url"]), (&json!("done"), &json!(newer)));
    stills.ask(one).await;
    node.shoot(&node.claim().await, [1, 1, 1]).await;
    let list = stills.settled().await;
    assert_eq!(list["data"][0]["url"], list["data"][0]["job"]["image_url"], "the newest is shown");
}

#[sqlx::test(migrations = "../migrations")]
async fn frames_of_stills_that_have_ended_are_removed(db: PgPool) {
    let world = World::managed(db).await;
    world.work();
    let (stills, node) = (world.stills().await, world.node("n1").await);
    stills.ask(json!({"scenes": [stills.scene().await]})).await;
    node.shoot(&node.claim().await, [5, 6, 7]).await;
    stills.settled().await;
    let untidied = async || {
        let mut tx = world.app.db.begin(Scope::platform(Role::Render)).await.unwrap();
        snapshot_job::untidied(&mut tx, 10).await.unwrap().len()
    };
    assert_eq!(untidied().await, 0, "a node may still be putting a frame");
    sqlx::query("update workflow.clock set moved_by = '3 minutes'").execute(&world.db).await.unwrap();
    assert_eq!(untidied().await, 1);
    flatrender_api::worker::tidy_snapshots(&world.db, &*world.storage).await.unwrap();
    let frame = blob(&png([5, 6, 7])).sha256.to_string();
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.file_named(&frame)));
    assert!(found.is_err(), "the frame is gone");
    assert_eq!(world.anonymous(&path_of(&stills.list().await["data"][0]["url"])).await.status, StatusCode::OK);
}
