//! An S3 server of its own for a test: the protocol with its signatures, over a folder.

use axum::{
    Router,
    body::{Body, to_bytes},
    error_handling::HandleError,
    extract::{Request, State},
    http::{Method, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::Response,
};
use md5::{Digest as _, Md5};
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
        let router = Router::new()
            .fallback_service(HandleError::new(service.build(), failed))
            .layer(from_fn_with_state(folder.path().to_owned(), with_tags));
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

/// The library leaves the tags of parts out when it lists them, which every S3 tells: the MD5 of each.
async fn with_tags(State(folder): State<PathBuf>, request: Request, next: Next) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let upload = query.split('&').find_map(|pair| pair.strip_prefix("uploadId=")).map(str::to_owned);
    let lists = request.method() == Method::GET;
    let response = next.run(request).await;
    let Some(upload) = upload.filter(|_| lists && response.status() == StatusCode::OK) else { return response };
    let (mut head, body) = response.into_parts();
    let mut xml = String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().to_vec()).unwrap();
    for number in 1..=100 {
        let Ok(part) = std::fs::read(folder.join(format!(".upload_id-{upload}.part-{number}"))) else { continue };
        let (told, tag) = (format!("<PartNumber>{number}</PartNumber>"), hex::encode(Md5::digest(&part)));
        xml = xml.replace(&told, &format!("<ETag>&quot;{tag}&quot;</ETag>{told}"));
    }
    head.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(head, Body::from(xml))
}
