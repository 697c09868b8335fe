//! An S3 server of its own for a test: the protocol with its signatures, over a folder.

use axum::{Router, error_handling::HandleError, http::StatusCode};
use s3s::{HttpError, auth::SimpleAuth, service::S3ServiceBuilder};
use std::path::PathBuf;
use tempfile::TempDir;
use tokio::net::TcpListener;

pub const BUCKET: &str = "films";
pub const KEY: &str = "AKIATEST";
pub const SECRET: &str = "a secret of the tests";

pub struct S3Server {
    /// All that the server keeps, unfinished uploads too.
    pub folder: TempDir,
    /// `http://127.0.0.1:<port>`
    pub endpoint: String,
}

impl S3Server {
    /// Runs on a thread of its own until the test's process ends.
    pub fn start() -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).unwrap());
        service.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let failed = async |error: HttpError| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:?}"));
        let router = Router::new().fallback_service(HandleError::new(service.build(), failed));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async { axum::serve(TcpListener::from_std(listener).unwrap(), router).await.unwrap() });
        });
        Self { folder, endpoint }
    }

    /// What an operator writes to keep everything below `prefix`.
    pub fn storage(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}?region=us-east-1&endpoint={}", self.endpoint)
    }

    /// The folder of the objects in the bucket.
    pub fn objects(&self) -> PathBuf {
        self.folder.path().join(BUCKET)
    }
}
