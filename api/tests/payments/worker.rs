//! `flatrender worker` on the database of a test: a process that can be killed. Other tests take it by `#[path]`, beside `gate`.

use crate::gate::{Mortal, quiet_schedules};
use sqlx::PgPool;
use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

pub struct Worker {
    child: Option<Child>,
    database: String,
    folder: TempDir,
    environment: Vec<(&'static str, String)>,
}

impl Worker {
    /// One that is told this by its environment, and may call this machine. It does not run yet, and nothing fires by itself.
    pub async fn of(db: &PgPool, environment: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let name: String = sqlx::query_scalar("select current_database()").fetch_one(db).await.unwrap();
        let server = std::env::var("DATABASE_URL").unwrap();
        let mut database = reqwest::Url::parse(&server).unwrap();
        database.set_path(&name);
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("private")).unwrap();
        // The key of the test's own server.
        std::fs::write(folder.path().join("private/secret.key"), "07".repeat(32)).unwrap();
        let environment = environment.into_iter().collect();
        let mut worker = Self { child: None, database: database.into(), folder, environment };
        worker.start_worker();
        quiet_schedules(db).await;
        worker.kill_worker();
        worker
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Mortal for Worker {
    fn start_worker(&mut self) {
        self.kill_worker();
        let log = std::fs::File::options().create(true).append(true).open(self.at("worker.log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_flatrender"));
        command.args(["worker", "--database-url", &self.database, "--storage"]).arg(self.at("storage"));
        command.arg("--scratch").arg(self.at("scratch")).arg("--private").arg(self.at("private"));
        command.envs(self.environment.iter().cloned()).env("FLATRENDER_DEV_EGRESS", "on");
        self.child = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    fn kill_worker(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill_worker();
    }
}
