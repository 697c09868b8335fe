//! A platform of its own for a test: PostgreSQL, API, worker and nodes, each a process that can be killed.

use crate::{
    netns::Namespace,
    server::{KEY, S3Server, SECRET},
};
use flatrender_activities::storage::ObjectStorage;
use flatrender_api::platform::{migrate, postgres::PrivatePostgres};
use flatrender_workflows::models::{
    DEFAULT_TENANT, Role, Scope,
    identity::credit::{self, Entered, Reason},
};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_flatrender");
/// No story takes longer.
const PATIENCE: Duration = Duration::from_secs(240);

pub struct Platform {
    folder: TempDir,
    postgres: Option<PrivatePostgres>,
    pub db: PgPool,
    pub http: reqwest::Client,
    pub url: String,
    key: String,
    serve: Child,
    worker: Child,
    /// Servers and workers that were started once more.
    pub started_again: u32,
    nodes: Vec<Option<Child>>,
    keep: Keep,
    /// Another way to the server, by node.
    pub routes: Vec<Option<String>>,
    /// The network namespace that it is started in, by node.
    pub namespaces: Vec<Option<String>>,
}

/// Where servers and workers keep bytes: `--storage`, and what the environment adds to it.
#[derive(Clone)]
struct Keep {
    storage: String,
    keys: Vec<(&'static str, String)>,
}

impl Platform {
    pub async fn start(nodes: usize) -> Self {
        let mut platform = Self::without_nodes(nodes).await;
        for n in 0..nodes {
            platform.start_node(n);
        }
        platform
    }

    /// A platform that keeps bytes in a bucket.
    pub async fn on(bucket: &S3Server, nodes: usize) -> Self {
        let keys = vec![("AWS_ACCESS_KEY_ID", KEY.to_owned()), ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned())];
        let mut platform = Self::keeping(Some(Keep { storage: bucket.storage("p"), keys }), nodes).await;
        for n in 0..nodes {
            platform.start_node(n);
        }
        platform
    }

    /// A platform to which so many nodes will belong; none of them runs.
    pub async fn without_nodes(nodes: usize) -> Self {
        Self::keeping(None, nodes).await
    }

    async fn keeping(keep: Option<Keep>, nodes: usize) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::Builder::new().prefix("fr-journey-").tempdir_in("/tmp").unwrap();
        let in_folder = || Keep { storage: folder.path().join("storage").display().to_string(), keys: Vec::new() };
        let keep = keep.unwrap_or_else(in_folder);
        let postgres = PrivatePostgres::start(folder.path()).await.unwrap();
        let database = postgres.database_url();
        migrate::run(&database).await.unwrap();
        let (serve, url) = serve(&database, folder.path(), &keep, "127.0.0.1:0").unwrap();
        let key = admin(&database, &["create-key"]);
        let worker = worker(&database, folder.path(), &keep);
        let db = PgPool::connect(&database).await.unwrap();
        let http = reqwest::Client::new();
        let postgres = Some(postgres);
        let (routes, namespaces) = (vec![None; nodes], vec![None; nodes]);
        let nodes = (0..nodes).map(|_| None).collect();
        Self { folder, postgres, db, http, url, key, serve, worker, started_again: 0, nodes, keep, routes, namespaces }
    }

    /// Where everything of this platform is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What opens its API.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// A key that may do everything, new.
    pub fn admin_key(&self) -> String {
        admin(&self.database(), &["create-key", "--scope", "admin"])
    }

    /// What servers and workers keep bytes in.
    pub fn storage(&self) -> ObjectStorage {
        ObjectStorage::local(&self.folder.path().join("storage")).unwrap()
    }

    fn database(&self) -> String {
        self.postgres.as_ref().expect("it runs until the end").database_url()
    }

    /// Starts node `n`; one that was killed comes back under its name and with its folder.
    pub fn start_node(&mut self, n: usize) {
        self.start_node_with(n, &renderer());
    }

    /// The same with another renderer.
    pub fn start_node_with(&mut self, n: usize, renderer: &Path) {
        let data = self.folder.path().join(format!("node{n}"));
        let mut command = match &self.namespaces[n] {
            Some(name) => Namespace::command(name, PROGRAM),
            None => Command::new(PROGRAM),
        };
        let server = self.routes[n].as_ref().unwrap_or(&self.url);
        command.args(["node", "--server", server, "--name", &format!("node{n}"), "--data"]).arg(&data);
        command.arg("--renderer").arg(renderer);
        if !data.join("credential.json").exists() && self.nodes[n].is_none() {
            command.args(["--token", &admin(&self.database(), &["create-node-token"])]);
        }
        self.nodes[n] = Some(quiet(command, self.folder.path(), &format!("node{n}")));
    }

    pub fn kill_node(&mut self, n: usize) {
        kill(self.nodes[n].as_mut().expect("the node runs"));
    }

    pub fn kill_and_restart_worker(&mut self) {
        self.kill_worker();
        self.start_worker();
    }

    /// From here on nobody works; killing it again does nothing.
    pub fn kill_worker(&mut self) {
        kill(&mut self.worker);
    }

    /// Starts the worker that was killed.
    pub fn start_worker(&mut self) {
        self.worker = worker(&self.database(), self.folder.path(), &self.keep);
    }

    /// Another worker beside the first, for a test to kill.
    pub fn another_worker(&self) -> Child {
        worker(&self.database(), self.folder.path(), &self.keep)
    }

    /// Starts the worker again if it has ended by itself, as whoever keeps it does: its database was away when it started.
    pub fn keep_worker(&mut self) {
        if self.worker.try_wait().unwrap().is_some() {
            self.started_again += 1;
            self.start_worker();
        }
    }

    /// The address stays the same, so that nodes find the server again. It is started once more where its database was away.
    pub fn kill_and_restart_api(&mut self) {
        kill(&mut self.serve);
        let address = self.url.trim_start_matches("http://").to_owned();
        let most = self.started_again + 20;
        self.serve = loop {
            match serve(&self.database(), self.folder.path(), &self.keep, &address) {
                Ok((serve, _)) => break serve,
                Err(said) => assert!(self.started_again < most, "{said}"),
            }
            self.started_again += 1;
            std::thread::sleep(Duration::from_millis(200));
        };
    }

    /// Kills the postmaster; whoever keeps the private PostgreSQL starts it again.
    pub fn kill_postgres(&self) {
        let Some(postgres) = &self.postgres else { return };
        let pid = std::fs::read_to_string(postgres.cluster().place.data.join("postmaster.pid")).unwrap_or_default();
        if let Some(Ok(pid)) = pid.lines().next().map(str::parse::<i32>) {
            signal(pid);
        }
    }

    /// Kills every renderer process of this platform's nodes.
    pub fn kill_renderers(&self) {
        self.renderers().into_iter().for_each(signal);
    }

    /// Pids of this platform's processes, by part.
    pub fn node_pid(&self, n: usize) -> Option<i32> {
        self.nodes[n].as_ref().map(|child| child.id() as i32)
    }

    pub fn worker_pid(&self) -> i32 {
        self.worker.id() as i32
    }

    pub fn api_pid(&self) -> i32 {
        self.serve.id() as i32
    }

    /// A process of the server that serves one connection, if there is one.
    pub async fn backend_pid(&self) -> Option<i32> {
        let sql = "select pid from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid() order by random() limit 1";
        sqlx::query_scalar(sql).fetch_optional(&self.db).await.ok().flatten()
    }

    /// Pids of renderers that work for this platform.
    pub fn renderers(&self) -> Vec<i32> {
        self.renderers_in(self.folder.path())
    }

    /// Those of one node.
    pub fn renderers_of(&self, n: usize) -> Vec<i32> {
        self.renderers_in(&self.folder.path().join(format!("node{n}/")))
    }

    fn renderers_in(&self, folder: &Path) -> Vec<i32> {
        let folder = folder.to_string_lossy().into_owned();
        let ours = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            line.contains("flatrender-aerender") && line.contains(&folder) && line.contains("-project")
        };
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(ours).collect()
    }

    pub async fn order(&self, height: u32) -> String {
        self.order_titled("Made by many hands", height).await
    }

    /// Gives the tenant credits: from here on each film costs some.
    pub async fn give_credits(&self) {
        let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(&self.db).await.unwrap();
        let account = credit::open(&mut tx, DEFAULT_TENANT, None).await.unwrap();
        let granted = credit::grant(&mut tx, account.id, "given", credit::MOST, Reason::Grant).await.unwrap();
        assert_eq!(granted, Entered::Now(credit::MOST));
        tx.commit().await.unwrap();
    }

    /// So many films have been completed: each took credits once, and nothing is held for any.
    pub async fn has_charged_once(&self, films: usize) {
        let sql = "select count(*) filter (where h.captured = -l.delta), count(*), (select sum(held)::bigint from identity.credit_accounts)
                   from identity.credit_holds h
                   full join identity.credit_ledger l on l.entry_key = 'run:' || h.run_id || ':capture'
                   where l.reason is distinct from 'grant'";
        let charged: (i64, i64, i64) = sqlx::query_as(sql).fetch_one(&self.db).await.unwrap();
        let films = i64::try_from(films).unwrap();
        assert_eq!(charged, (films, films, 0), "films that were charged once, charges and holds, and what is held");
    }

    /// Orders a film of that title; asks again, under one key, for as long as the server is away.
    pub async fn order_titled(&self, title: &str, height: u32) -> String {
        let body = json!({
            "template": "promo",
            "data": {"texts": {
                "kicker": "Spring", "title": title, "subtitle": "and none of them knew",
                "photos_title": "Photos", "features_title": "Features", "tagline": "Still the same film"
            }},
            // Each is to be rendered, whatever was rendered before.
            "output": {"height": height, "quality": "preview", "reuse": false}
        });
        self.order_of(&body).await
    }

    /// Orders a film and gives its id; tries until the server answers.
    pub async fn order_of(&self, body: &Value) -> String {
        let (key, began) = (uuid::Uuid::new_v4().to_string(), Instant::now());
        loop {
            let asked = self.http.post(format!("{}/v1/renders", self.url)).bearer_auth(&self.key).json(body);
            let asked = asked.header("idempotency-key", &key).timeout(Duration::from_secs(10));
            match asked.send().await {
                Ok(answer) if !answer.status().is_server_error() => {
                    let (status, render) = (answer.status(), answer.json::<Value>().await.unwrap());
                    assert_eq!(status, 202, "{render}");
                    return render["id"].as_str().unwrap().to_owned();
                }
                answer => assert!(began.elapsed() < PATIENCE, "cannot order: {answer:?}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Posts an empty object, which makes something, and gives that.
    pub async fn post(&self, path: &str) -> Value {
        let asked = self.http.post(format!("{}{path}", self.url)).bearer_auth(&self.key).json(&json!({}));
        let answer = asked.send().await.unwrap();
        assert_eq!(answer.status(), 201);
        answer.json().await.unwrap()
    }

    pub async fn cancel(&self, id: &str) {
        let asked = self.http.post(format!("{}/v1/renders/{id}/cancel", self.url)).bearer_auth(&self.key);
        assert_eq!(asked.send().await.unwrap().status(), 202);
    }

    /// The render, or nothing while the server is away.
    pub async fn render(&self, id: &str) -> Option<Value> {
        let asked = self.http.get(format!("{}/v1/renders/{id}", self.url)).bearer_auth(&self.key);
        let answer = asked.timeout(Duration::from_secs(5)).send().await.ok()?;
        if answer.status() == 200 { answer.json().await.ok() } else { None }
    }

    /// Waits until the render is as `wanted`; gives it. A machine may be slow, but something has to happen.
    pub async fn until(&self, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let (mut since, mut stood) = (Instant::now(), Value::Null);
        loop {
            let last = self.render(id).await;
            if let Some(render) = &last {
                if wanted(render) {
                    return render.clone();
                }
                let stands = json!([render["status"], render["step"], render["frames"]]);
                if stands != stood {
                    (since, stood) = (Instant::now(), stands);
                }
            }
            assert!(since.elapsed() < PATIENCE, "nothing happens: {last:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn completed(&self, id: &str) -> Value {
        let render = self.until(id, |r| !r["finished_at"].is_null()).await;
        assert_eq!(render["status"], "completed", "{render}");
        render
    }

    /// Ends everything that is ours, in whatever state a test left it.
    fn kill_all(&mut self) {
        self.nodes.iter_mut().flatten().for_each(kill);
        kill(&mut self.worker);
        kill(&mut self.serve);
        self.kill_renderers();
    }

    /// Ends everything; PostgreSQL in order.
    pub async fn stop(mut self) {
        self.kill_all();
        self.db.close().await;
        if let Some(postgres) = self.postgres.take() {
            postgres.stop().await;
        }
    }
}

/// A test that failed leaves no process behind either.
impl Drop for Platform {
    fn drop(&mut self) {
        self.kill_all();
        self.kill_postgres();
    }
}

pub fn renderer() -> PathBuf {
    let program = Path::new(PROGRAM).with_file_name("flatrender-aerender");
    assert!(program.exists(), "build it first: cargo build -p flatrender-renderer");
    program
}

/// The server and its address; else what it said at its end.
fn serve(database: &str, folder: &Path, keep: &Keep, listen: &str) -> Result<(Child, String), String> {
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--database-url", database, "--listen", listen, "--internal-listen", "127.0.0.1:0"]);
    // Nodes do what tests ask for.
    command.arg("--no-stills");
    keeping(&mut command, folder, keep);
    let mut child = command.stdout(Stdio::piped()).stderr(log(folder, "serve")).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    match line.trim().strip_prefix("listening on ") {
        Some(url) => Ok((child, url.to_owned())),
        None => {
            kill(&mut child);
            let said = std::fs::read_to_string(folder.join("serve.log")).unwrap();
            Err(said.lines().last().unwrap_or_default().to_owned())
        }
    }
}

fn worker(database: &str, folder: &Path, keep: &Keep) -> Child {
    let mut command = Command::new(PROGRAM);
    command.args(["worker", "--database-url", database]);
    keeping(&mut command, folder, keep);
    quiet(command, folder, "worker")
}

fn keeping(command: &mut Command, folder: &Path, keep: &Keep) {
    command.args(["--storage", &keep.storage]).envs(keep.keys.iter().cloned());
    command.arg("--scratch").arg(folder.join("scratch")).arg("--private").arg(folder.join("private"));
}

fn quiet(mut command: Command, folder: &Path, name: &str) -> Child {
    command.stdout(Stdio::null()).stderr(log(folder, name)).spawn().unwrap()
}

fn log(folder: &Path, name: &str) -> std::fs::File {
    std::fs::File::options().create(true).append(true).open(folder.join(format!("{name}.log"))).unwrap()
}

fn admin(database: &str, what: &[&str]) -> String {
    let rest = ["--json", "--database-url", database];
    let output = Command::new(PROGRAM).arg("admin").args(what).args(rest).output().unwrap();
    let secret: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("admin {what:?}: {}", String::from_utf8_lossy(&output.stderr)));
    secret.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned()
}

fn kill(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn signal(pid: i32) {
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
}
