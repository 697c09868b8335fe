//! The public HTTP API, as the command line uses it.

use super::answers::{List, Problem, Render, Stills, Template, UploadedFile};
use super::failure::CliError;
use anyhow::{Context as _, anyhow};
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// A connection has to stand within this time.
const CONNECT: Duration = Duration::from_secs(5);
/// An answer has to begin, or go on, within this time.
const READ: Duration = Duration::from_secs(60);

/// One server, and the key that opens it.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    key: String,
}

/// An answer, and the very JSON it came as.
#[derive(Debug, Clone)]
pub struct Answer<T> {
    /// As far as it is understood.
    pub value: T,
    /// All of it.
    pub json: Value,
}

impl Client {
    /// A client of the server at `url`.
    ///
    /// # Errors
    /// [`CliError::Usage`] when `url` is none.
    pub fn new(url: &str, key: &str) -> Result<Self, CliError> {
        let wrong =
            || CliError::Usage(format!("{url:?} is not the address of a server, such as http://127.0.0.1:8787"));
        let base = Url::parse(url).map_err(|_| wrong())?;
        let host = base.host_str().filter(|_| matches!(base.scheme(), "http" | "https")).ok_or_else(wrong)?;
        let mut builder = reqwest::Client::builder().connect_timeout(CONNECT).read_timeout(READ);
        if matches!(host, "localhost" | "127.0.0.1" | "[::1]") {
            builder = builder.no_proxy();
        }
        let http = builder.build().context("cannot make an HTTP client")?;
        Ok(Self { http, base, key: key.to_owned() })
    }

    /// The address of the server, without a slash at the end.
    pub fn url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// The key in use.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether the server answers and says that it is ready for work.
    pub async fn is_ready(&self) -> bool {
        let asked = self.http.get(self.at("/readyz")).timeout(CONNECT).send().await;
        asked.is_ok_and(|answer| answer.status().is_success())
    }

    /// Every template this key may use.
    pub async fn templates(&self) -> Result<Answer<List<Template>>, CliError> {
        self.json(self.call(Method::GET, "/v1/templates")).await
    }

    /// One template, with its manifest in the JSON.
    pub async fn template(&self, slug: &str) -> Result<Answer<Template>, CliError> {
        let path = format!("/v1/templates/{}", path_part(slug));
        self.json(self.call(Method::GET, &path)).await
    }

    /// Asks for stills of every scene of a template.
    pub async fn ask_for_stills(&self, project: &str, force: bool) -> Result<Answer<Stills>, CliError> {
        let call = self.call(Method::POST, &format!("/v1/scene-snapshots/{}", path_part(project)));
        self.json(call.json(&serde_json::json!({ "force": force }))).await
    }

    /// Every scene of a template with its newest still.
    pub async fn stills(&self, project: &str) -> Result<Answer<Stills>, CliError> {
        self.json(self.call(Method::GET, &format!("/v1/scene-snapshots/{}", path_part(project)))).await
    }

    /// Uploads a file.
    pub async fn upload(&self, path: &Path) -> Result<UploadedFile, CliError> {
        let unreadable = |e| CliError::unreadable("upload", path, e);
        let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
        let size = file.metadata().await.map_err(unreadable)?.len();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let body = reqwest::Body::wrap_stream(tokio_util::io::ReaderStream::new(file));
        let call = self.call(Method::POST, "/v1/files").query(&[("name", name)]);
        let call = call.header(reqwest::header::CONTENT_LENGTH, size).body(body);
        Ok(self.json(call).await.map_err(|e| e.about(path.display().to_string()))?.value)
    }

    /// Starts a render. The same key and order give the same render, so this may be repeated.
    pub async fn create_render(&self, order: &Value, idempotency_key: &str) -> Result<Answer<Render>, CliError> {
        let call = self.call(Method::POST, "/v1/renders").header("idempotency-key", idempotency_key);
        self.json(call.json(order)).await
    }

    /// A render as it is now.
    pub async fn render(&self, id: &str) -> Result<Answer<Render>, CliError> {
        self.json(self.call(Method::GET, &format!("/v1/renders/{}", path_part(id)))).await
    }

    /// Asks for a render to be cancelled.
    pub async fn cancel(&self, id: &str) -> Result<Answer<Render>, CliError> {
        self.json(self.call(Method::POST, &format!("/v1/renders/{}/cancel", path_part(id)))).await
    }

    /// The stream of a render's changes.
    pub async fn events(&self, id: &str) -> Result<Response, CliError> {
        let call = self.call(Method::GET, &format!("/v1/renders/{}/events", path_part(id)));
        self.send(call.header(reqwest::header::ACCEPT, "text/event-stream")).await
    }

    /// What is at `url`, absolute or of this server. The key is shown to this server only.
    pub async fn download(&self, url: &str) -> Result<Response, CliError> {
        let url =
            self.base.join(url).map_err(|e| anyhow!("the server gave the address {url:?}, which is none: {e}"))?;
        let ours = url.origin() == self.base.origin();
        let call = self.http.get(url);
        self.send(if ours { call.bearer_auth(&self.key) } else { call }).await
    }

    /// The address of a path of this server.
    pub(super) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url())
    }

    pub(super) fn call(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, self.at(path)).bearer_auth(&self.key)
    }

    /// A call to an address of somebody else's, which is not shown the key.
    pub(super) fn elsewhere(&self, method: Method, url: &str) -> RequestBuilder {
        self.http.request(method, url)
    }

    pub(super) async fn json<T: DeserializeOwned>(&self, call: RequestBuilder) -> Result<Answer<T>, CliError> {
        let body = self.send(call).await?.bytes().await.map_err(|e| self.lost(&e))?;
        let odd = |e| anyhow!("{} answers, but not as a FlatRender server: {e}", self.url());
        let json: Value = serde_json::from_slice(&body).map_err(odd)?;
        Ok(Answer { value: serde_json::from_value(json.clone()).map_err(odd)?, json })
    }

    pub(super) async fn send(&self, call: RequestBuilder) -> Result<Response, CliError> {
        let answer = call.send().await.map_err(|e| self.lost(&e))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = answer.bytes().await.unwrap_or_default();
        Err(CliError::Refused { about: None, problem: Box::new(Problem::read(status.as_u16(), &body)) })
    }

    /// The connection failed; the innermost cause says why best.
    pub(super) fn lost(&self, error: &reqwest::Error) -> CliError {
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        CliError::NoServer(format!("no answer from {}: {cause}", self.url()))
    }
}

/// `text` as one part of a path.
pub(super) fn path_part(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
