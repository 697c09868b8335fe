//! A server in this process with one tenant, one template and whatever a test adds.

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use flatrender_activities::{
    egress::{Egress, Reach},
    message::{Mailer, MailerConfig},
    notify::{Courier, CourierConfig, MAIL_PATIENCE},
    storage::ObjectStorage,
};
use flatrender_api::{app::App, identity::RelyingParty, metrics, router, vault::Vault, worker};
use flatrender_engine::Client;
use flatrender_workflows::{
    contracts::{
        storage::{BlobRef, BlobStore, Shelf},
        template::Manifest,
    },
    models::{
        DEFAULT_TENANT,
        content::project::{self, Template},
        file_mgr::blob_claim::BlobClaims,
        identity::{
            role_binding, tenant,
            tenant_api_key::{self, Mode, NewKey},
            user::{self, NewUser},
            user_session::{self, NewSession},
        },
        render::node,
    },
};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use uuid::Uuid;

/// Pixels of the template: the smallest height an order may ask for.
pub const SIZE: [u32; 2] = [256, 144];

/// Under which address people reach the platform.
pub const PUBLIC_URL: &str = "https://films.example";

/// A server and a tenant's key.
pub struct World {
    pub db: PgPool,
    pub app: App,
    pub router: Router,
    pub storage: Arc<dyn BlobStore>,
    pub folder: TempDir,
    pub tenant: Uuid,
    pub key: String,
    pub package: BlobRef,
    pub preview: BlobRef,
    pub stopping: CancellationToken,
    /// Whether its workers paint stills.
    pub placeholders: worker::Placeholders,
    /// Where payment gateways are.
    pub places: Mutex<flatrender_activities::pay::Places>,
    /// What nodes were given in a visit and have not taken up yet, by incarnation.
    pub given: Mutex<HashMap<Uuid, VecDeque<Value>>>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.body))
    }

    pub fn header(&self, name: impl header::AsHeaderName) -> &str {
        self.headers.get(name).map(|v| v.to_str().unwrap()).unwrap_or_default()
    }

    /// Asserts that it is a problem, as problems are, and gives its code.
    #[track_caller]
    pub fn problem(&self) -> String {
        assert_eq!(self.header(header::CONTENT_TYPE), "application/problem+json", "{self:?}");
        let json = self.json();
        assert_eq!(json["status"], self.status.as_u16());
        assert_eq!(json["instance"], self.header("x-request-id"), "{json}");
        assert!(json["title"].is_string() && json["detail"].is_string() && json["type"].is_string(), "{json}");
        json["code"].as_str().unwrap().to_owned()
    }

    /// The single faults as `pointer code`.
    #[track_caller]
    pub fn faults(&self) -> Vec<String> {
        assert_eq!(self.problem(), "request.invalid", "{}", self.json());
        let fault = |f: &Value| format!("{} {}", f["pointer"].as_str().unwrap(), f["code"].as_str().unwrap());
        self.json()["errors"].as_array().unwrap().iter().map(fault).collect()
    }
}

impl World {
    pub async fn new(db: PgPool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let storage = ObjectStorage::local(&folder.path().join("storage")).unwrap();
        Self::keeping(db, folder, storage).await
    }

    /// One that keeps its bytes there.
    pub async fn keeping(db: PgPool, folder: TempDir, storage: ObjectStorage) -> Self {
        let storage = storage.with_claims(Arc::new(BlobClaims::new(db.clone())));
        Self::on(db, folder, Arc::new(storage)).await
    }

    /// The same, whatever it keeps them in.
    pub async fn on(db: PgPool, folder: TempDir, storage: Arc<dyn BlobStore>) -> Self {
        let stopping = CancellationToken::new();
        let probe = Arc::new(worker::upload_probe("ffprobe".into()));
        let (client, vault) = (Client::new(db.clone()), Vault::of(&[7; 32]));
        let app = App {
            relying_party: RelyingParty::at(PUBLIC_URL),
            public_url: PUBLIC_URL.to_owned(),
            ..App::new(db.clone(), client, storage.clone(), probe, vault, stopping.clone())
        };
        metrics::install();
        let router = router::router(app.clone());
        let mut tx = db.begin().await.unwrap();
        let key = tenant_api_key::create(&mut tx, DEFAULT_TENANT, "test").await.unwrap().reveal().to_owned();
        let (package, preview) = (put(&*storage, b"a package").await, put(&*storage, &png([0, 0, 0])).await);
        project::publish(&mut tx, DEFAULT_TENANT, &manifest(), &package, Some(&preview)).await.unwrap();
        tx.commit().await.unwrap();
        let placeholders = worker::Placeholders::Off;
        let (tenant, given, places) = (DEFAULT_TENANT, Mutex::default(), Mutex::default());
        Self { db, app, router, storage, folder, tenant, key, package, preview, stopping, placeholders, places, given }
    }

    /// Another tenant.
    pub async fn tenant(&self, slug: &str) -> Uuid {
        let mut db = self.db.acquire().await.unwrap();
        tenant::create(&mut db, slug, slug, "en", "UTC").await.unwrap().unwrap()
    }

    /// A key of a tenant that may do this: its id and text.
    pub async fn key_for(&self, tenant_id: Uuid, scopes: &[&str]) -> (Uuid, String) {
        let scopes: Vec<String> = scopes.iter().map(ToString::to_string).collect();
        let new = NewKey {
            name: "k",
            mode: Mode::Live,
            scopes: &scopes,
            allowed_cidrs: None,
            created_by: None,
            expires_at: None,
        };
        let mut db = self.db.acquire().await.unwrap();
        let (id, secret) = tenant_api_key::create_as(&mut db, tenant_id, &new).await.unwrap().unwrap();
        (id, secret.reveal().to_owned())
    }

    /// A person who has proven their address, with these roles and without a password.
    pub async fn person(&self, tenant_id: Uuid, email: &str, roles: &[&str]) -> Uuid {
        let mut db = self.db.acquire().await.unwrap();
        let new = NewUser { email, display_name: "Jane", locale: "en" };
        let id = user::create(&mut db, tenant_id, new).await.unwrap().unwrap();
        assert!(user::prove_email(&mut db, id, email).await.unwrap());
        let staff = roles.iter().any(|role| role.starts_with("platform"));
        role_binding::set_staff(&mut db, id, staff).await.unwrap();
        for role in roles {
            role_binding::grant(&mut db, tenant_id, id, role, None).await.unwrap();
        }
        id
    }

    /// An access token of a person.
    pub async fn session(&self, tenant_id: Uuid, user_id: Uuid) -> String {
        let mut db = self.db.acquire().await.unwrap();
        let new = NewSession { ip: None, user_agent: None, second_factor: false };
        user_session::begin(&mut db, tenant_id, user_id, &new).await.unwrap().access.reveal().to_owned()
    }

    /// A key of another tenant, new.
    pub async fn stranger(&self) -> String {
        let id = self.tenant("stranger").await;
        let mut db = self.db.acquire().await.unwrap();
        tenant_api_key::create(&mut db, id, "test").await.unwrap().reveal().to_owned()
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        // What comes there has no end.
        let endless = ["/v1/notifications/events", "/v1/operate/events"].contains(&request.uri().path());
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = if endless && parts.status == StatusCode::OK { Body::empty() } else { body };
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// A request with this tenant's key.
    pub fn request(&self, method: Method, path: &str) -> axum::http::request::Builder {
        request(method, path, &self.key)
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path).body(Body::empty()).unwrap()).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(with_json(self.request(Method::POST, path), &body)).await
    }

    pub async fn upload(&self, name: &str, content: impl Into<Body>) -> Answer {
        let request = self.request(Method::POST, &format!("/v1/files?name={name}"));
        self.send(request.body(content.into()).unwrap()).await
    }

    /// Orders the smallest film and gives its id.
    pub async fn order(&self) -> Uuid {
        let answer = self.post("/v1/renders", order()).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.json());
        answer.json()["id"].as_str().unwrap().parse().unwrap()
    }

    /// The run that makes a film.
    pub async fn run_of(&self, render_id: Uuid) -> Uuid {
        let sql = "select workflow_run_id from render.render_jobs where id = $1";
        sqlx::query_scalar(sql).bind(render_id).fetch_one(&self.db).await.unwrap()
    }

    /// Continues workflows in the background, without the media work.
    pub fn run_workflows(&self) -> Workflows {
        use flatrender_workflows::definitions::{render_video::RenderVideo, scene_snapshot::SceneSnapshot};
        let worker =
            flatrender_engine::Worker::builder(self.db.clone()).workflow::<RenderVideo>().workflow::<SceneSnapshot>();
        let stopping = self.stopping.child_token();
        let stopped = stopping.clone();
        Workflows { ended: tokio::spawn(async move { worker.run(stopped).await.unwrap() }), stopping }
    }

    /// Continues workflows and does the media work in the background.
    pub fn work(&self) {
        let config = worker::WorkerConfig {
            pool: self.db.clone(),
            storage: self.storage.clone(),
            scratch: self.folder.path().join("scratch"),
            ffmpeg: "ffmpeg".into(),
            ffprobe: "ffprobe".into(),
            slots: None,
            mailer: self.mailer(),
            webhooks: worker::webhook_caller(self.app.egress.clone(), self.app.vault.clone()),
            courier: self.courier(),
            cashier: self.cashier(),
            retention: flatrender_engine::operations::Retention::forever(),
            placeholders: self.placeholders,
            limits: self.app.limits,
        };
        let stopping = self.stopping.clone();
        tokio::spawn(async move { worker::run(config, stopping).await.unwrap() });
    }

    /// Writes letters into the folder `mail`.
    fn mailer(&self) -> Mailer {
        let vault = self.app.vault.clone();
        Mailer::new(MailerConfig {
            server: None,
            folder: self.folder.path().join("mail"),
            from: "noreply@films.example".into(),
            public_url: PUBLIC_URL.into(),
            links: Arc::new(move |id| vault.link(id)),
        })
        .unwrap()
    }

    /// Carries what people are told, to wherever accounts say.
    pub fn courier(&self) -> Courier {
        let (opens, marks) = (self.app.vault.clone(), self.app.vault.clone());
        Courier::new(CourierConfig {
            mailer: self.mailer(),
            egress: Egress::new(Reach::Anywhere),
            opener: Arc::new(move |sealed| opens.unseal(&sealed.place, &hex::decode(&sealed.hex).ok()?).ok()),
            marks: Arc::new(move |purpose| marks.mark(purpose)),
            public_url: PUBLIC_URL.into(),
            mail_patience: MAIL_PATIENCE,
        })
    }

    /// Asks payment gateways where the test has them.
    pub fn cashier(&self) -> flatrender_activities::pay::Cashier {
        let places = self.places.lock().unwrap().clone();
        worker::cashier(Egress::new(Reach::Anywhere), self.app.vault.clone(), places).reached_at(PUBLIC_URL)
    }

    /// Enrols a node over HTTP.
    pub async fn node(&self, name: &str) -> Node<'_> {
        let mut db = self.db.acquire().await.unwrap();
        let token = node::create_token(&mut db, Duration::from_secs(60)).await.unwrap();
        drop(db);
        let body = json!({"token": token.reveal(), "name": name, "capabilities": {
            "agent_version": "0", "os": "test", "cpus": 1, "ram_mb": 1, "slots": 1, "labels": {}, "renderers": {}}});
        let answer = self.post("/v1/nodes/enrol", body).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        let credential = answer.json()["credential"].as_str().unwrap().to_owned();
        Node { world: self, credential, incarnation: Uuid::new_v4() }
    }

    /// The number of rows of a table.
    pub async fn count(&self, table: &'static str) -> i64 {
        let sql = format!("select count(*) from {table}");
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&self.db).await.unwrap()
    }

    /// Whether the tenant's shelf of files holds nothing but what the world was made with.
    /// The stored file of that name.
    pub fn file_named(&self, name: &str) -> std::path::PathBuf {
        fn look(folder: &std::path::Path, name: &str) -> Option<std::path::PathBuf> {
            let entries = std::fs::read_dir(folder).ok()?.flatten();
            entries.map(|e| e.path()).find_map(|p| match p.is_dir() {
                true => look(&p, name),
                false => p.file_name().is_some_and(|n| n == name).then_some(p),
            })
        }
        look(self.folder.path(), name).expect("it is stored")
    }

    pub fn stored_files(&self) -> usize {
        fn count(path: &std::path::Path) -> usize {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|e| if e.path().is_dir() { count(&e.path()) } else { 1 }).sum()
        }
        count(&self.folder.path().join("storage"))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

/// A worker of workflows; it works on when this is dropped.
pub struct Workflows {
    stopping: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

impl Workflows {
    /// From here on no run goes on by itself.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.ended.await.unwrap();
    }
}

/// A render node.
pub struct Node<'w> {
    pub world: &'w World,
    pub credential: String,
    pub incarnation: Uuid,
}

/// A task that a node has leased.
#[derive(Debug, Clone)]
pub struct Claimed {
    pub id: i64,
    pub token: String,
    pub input: Value,
}

impl Node<'_> {
    pub async fn call(&self, path: &str, body: Value) -> Answer {
        self.world.send(with_json(request(Method::POST, path, &self.credential), &body)).await
    }

    pub async fn ask(&self, seconds: f64) -> Answer {
        let body = json!({"incarnation": self.incarnation, "labels": {"engine": "lottie"}, "wait_seconds": seconds});
        self.call("/v1/nodes/claims", body).await
    }

    /// The next task; there must be one within 20 s.
    pub async fn claim(&self) -> Claimed {
        let given = || self.world.given.lock().unwrap().entry(self.incarnation).or_default().pop_front();
        let task = match given() {
            Some(task) => task,
            None => {
                let answer = self.ask(20.0).await;
                assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
                // Stills of one package come together.
                let tasks: VecDeque<Value> = serde_json::from_value(answer.json()["tasks"].clone()).unwrap();
                self.world.given.lock().unwrap().insert(self.incarnation, tasks);
                given().unwrap()
            }
        };
        let token = task["lease_token"].as_str().unwrap().to_owned();
        Claimed { id: task["task_id"].as_i64().unwrap(), token, input: task["input"].clone() }
    }

    /// A call about a task that carries the lease in its header.
    pub async fn with_lease(&self, method: Method, task: &Claimed, rest: &str, body: impl Into<Body>) -> Answer {
        let path = format!("/v1/nodes/tasks/{}/{rest}", task.id);
        let request = request(method, &path, &self.credential).header("lease-token", &task.token);
        self.world.send(request.body(body.into()).unwrap()).await
    }

    /// Stores a frame and gives its blob.
    pub async fn put_frame(&self, task: &Claimed, content: &[u8]) -> BlobRef {
        let blob = blob(content);
        let rest = format!("frames/{}", blob.sha256);
        let answer = self.with_lease(Method::PUT, task, &rest, content.to_vec()).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{:?}", answer.body);
        blob
    }

    /// Stores one picture for every frame of the task and gives the output to report.
    pub async fn render(&self, task: &Claimed) -> Value {
        let stored = self.put_frame(task, &png([200, 30, 30])).await;
        let number = |end: &str| task.input["frames"][end].as_u64().unwrap();
        let frame = |n| json!({"frame": n, "blob": stored});
        let frames: Vec<Value> = (number("first")..=number("last")).map(frame).collect();
        output(&frames)
    }

    pub async fn complete(&self, task: &Claimed, output: Value) -> Answer {
        let body = json!({"lease_token": task.token, "output": output});
        self.call(&format!("/v1/nodes/tasks/{}/complete", task.id), body).await
    }
}

/// What a node reports.
pub fn output(frames: &[Value]) -> Value {
    let timing = json!({"prepare_ms": 1, "render_ms": 2, "upload_ms": 3});
    json!({"frames": frames, "faults": [], "warnings": [], "timing": timing})
}

pub fn request(method: Method, path: &str, key: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path).header(header::AUTHORIZATION, format!("Bearer {key}"))
}

pub fn with_json(request: axum::http::request::Builder, body: &Value) -> Request<Body> {
    request.header(header::CONTENT_TYPE, "application/json").body(body.to_string().into()).unwrap()
}

/// The smallest order.
pub fn order() -> Value {
    json!({"template": "tiny", "data": {"texts": {"title": "Hello"}}})
}

/// The order with some of its parts replaced.
pub fn order_with(part: &str, value: Value) -> Value {
    let mut order = order();
    *order.pointer_mut("/data").unwrap() = json!({"texts": {"title": "Hello"}, "images": {}});
    match part.split_once('.') {
        Some((outer, inner)) => order[outer][inner] = value,
        None => order[part] = value,
    }
    order
}

pub fn manifest() -> Manifest {
    let label = json!({"en": "x"});
    let scene = |id: &str, required: bool| json!({"id": id, "label": label, "frames": 20, "min_frames": 10, "max_frames": 40, "required": required, "still_frame": 5});
    let json = json!({
        "format": 1, "slug": "tiny", "version": 1, "kind": "lottie", "title": {"en": "Tiny", "fa": "ریز"}, "description": label,
        "composition": "main", "width": SIZE[0], "height": SIZE[1], "fps": 10, "transition_frames": 2, "fonts": [],
        "texts": [{"key": "title", "scene": "a", "label": label, "required": true, "max_chars": 20, "max_lines": 2, "default": "T"}],
        "images": [{"key": "logo", "scene": "a", "label": label, "required": false, "width": 9, "height": 9, "fit": "contain"}],
        "colors": [{"key": "primary", "label": label, "default": "#101010"}],
        "themes": [{"id": "sea", "label": label, "colors": {"primary": "#0000ff"}}],
        "visibility": [{"key": "badge", "label": label, "default": true}],
        "scenes": [scene("a", true), scene("b", false)]
    });
    Manifest::parse(json.to_string().as_bytes()).unwrap()
}

/// A picture in one colour, of the template's size.
pub fn png(color: [u8; 3]) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(vec![]);
    let picture = image::RgbImage::from_pixel(SIZE[0], SIZE[1], image::Rgb(color));
    picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

pub fn blob(content: &[u8]) -> BlobRef {
    let sha256 = flatrender_workflows::contracts::storage::BlobHash::of(content);
    BlobRef { sha256, size_bytes: content.len() as u64 }
}

/// Stores content on the default tenant's shelf.
pub async fn put(storage: &dyn BlobStore, content: &[u8]) -> BlobRef {
    use futures::StreamExt as _;
    let shelf = Shelf::Files { tenant_id: DEFAULT_TENANT };
    let content = Bytes::copy_from_slice(content);
    let body = futures::stream::once(async move { Ok(content) }).boxed();
    storage.put(&shelf, None, body, u64::MAX).await.unwrap()
}

/// A template that nobody has published.
pub fn template(manifest: Manifest) -> Template {
    let (project_id, version_id) = (Uuid::nil(), Uuid::nil());
    Template {
        tenant_id: DEFAULT_TENANT,
        project_id,
        version_id,
        number: 1,
        manifest,
        package: blob(b"p"),
        preview: None,
    }
}
