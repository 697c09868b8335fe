//! The server, as the agent asks it: one function a call of `contracts/node.rs`, one request each.
//!
//! Nothing here repeats a request; who asks knows how long it is worth it.

use flatrender_engine::{Attempt, Failure, Progress, TraceContext, trace::TRACEPARENT};
use flatrender_workflows::contracts::{
    node::{
        Claim, Claimed, Complete, Enrol, Enrolled, Fail, Health, Hello, KeptFrames, LEASE_TOKEN_HEADER, Orders,
        ProbeReport, Release, Renew, Renewed, Rotated, StoredFrames,
    },
    render::FrameRef,
    storage::BlobHash,
};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    error::Error,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use uuid::Uuid;

const CONNECT: Duration = Duration::from_secs(5);
/// Longest silence while a body comes or goes.
const SILENCE: Duration = Duration::from_secs(40);
/// Bytes a second that an upload is given time for.
const SLOWEST_UPLINK: u64 = 16 * 1024;
/// Longest time of a short call.
const SHORT: Duration = Duration::from_secs(10);

/// Why a request was not answered with what was asked for; each variant is acted on differently.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The lease belongs to somebody else now. Final.
    #[error("the lease is lost")]
    LeaseLost,
    /// The server itself says that it does not know the credential. Final.
    #[error("the server does not accept the credential")]
    Unauthorized,
    /// The server itself says that there is no such thing, or not for us. Final.
    #[error("the server does not have it")]
    NotFound,
    /// The server has no room. May pass.
    #[error("the storage of the server is full")]
    Full,
    /// The server understood, and refuses. Final.
    #[error("the server refused with {status} {code}: {detail}")]
    Rejected {
        /// HTTP status.
        status: u16,
        /// The problem's stable code; empty when the answer had none.
        code: String,
        /// The problem's text.
        detail: String,
    },
    /// No answer, or one that says that the server is unwell. May pass.
    #[error("the server cannot be reached")]
    Unreachable(#[source] Box<dyn Error + Send + Sync>),
}

/// A connection to one server.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    /// For bodies of ours: how long the server is silent says nothing while we talk.
    uploads: reqwest::Client,
    base: Arc<str>,
    /// Clones share it: it may be replaced while they live.
    credential: Arc<RwLock<Option<Arc<str>>>>,
}

/// The part of RFC 9457 that is acted on.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Problem {
    code: String,
    detail: String,
}

impl Client {
    /// Talks to `server` without a credential.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(server: &str) -> Result<Self, ClientError> {
        install_crypto();
        let builder = || {
            let agent = concat!("flatrender-node/", env!("CARGO_PKG_VERSION"));
            reqwest::Client::builder().connect_timeout(CONNECT).user_agent(agent)
        };
        let http = builder().read_timeout(SILENCE).build().map_err(unreachable)?;
        let uploads = builder().build().map_err(unreachable)?;
        Ok(Self { http, uploads, base: server.trim_end_matches('/').into(), credential: Arc::default() })
    }

    /// The same server, with a credential.
    #[must_use]
    pub fn with_credential(&self, credential: &str) -> Self {
        Self { credential: Arc::new(RwLock::new(Some(credential.into()))), ..self.clone() }
    }

    /// From now on, also for clones, with another credential.
    pub fn set_credential(&self, credential: &str) {
        *self.credential.write().unwrap_or_else(PoisonError::into_inner) = Some(credential.into());
    }

    /// Becomes a node.
    ///
    /// # Errors
    /// As [`ClientError`] says; so with every call below.
    pub async fn enrol(&self, enrol: &Enrol) -> Result<Enrolled, ClientError> {
        self.ask("enrol", enrol).await
    }

    /// Asks for work and waits for it as long as the request says.
    pub async fn claim(&self, claim: &Claim) -> Result<Option<Claimed>, ClientError> {
        let wait = Duration::from_secs_f64(claim.wait_seconds) + SHORT;
        let answer = send(self.request(Method::POST, "claims").timeout(wait).json(claim)).await?;
        if answer.status() == StatusCode::NO_CONTENT { Ok(None) } else { read(answer).await.map(Some) }
    }

    /// Tells what a probe found.
    pub async fn report_probe(&self, report: &ProbeReport) -> Result<(), ClientError> {
        send(self.request(Method::POST, "probe").timeout(SHORT).json(report)).await.map(drop)
    }

    /// Tells at a start what the node has.
    pub async fn hello(&self, hello: &Hello) -> Result<Orders, ClientError> {
        self.ask("hello", hello).await
    }

    /// Tells how the node fares.
    pub async fn health(&self, health: &Health) -> Result<Orders, ClientError> {
        self.ask("health", health).await
    }

    /// Asks for another credential.
    pub async fn rotate(&self) -> Result<Rotated, ClientError> {
        self.ask("credential", &serde_json::json!({})).await
    }

    /// Whether the server knows the credential. Changes nothing: it asks about a task that nobody has.
    pub async fn is_known(&self) -> Result<(), ClientError> {
        let asked = self.request(Method::GET, "tasks/0/frames").header(LEASE_TOKEN_HEADER, Uuid::nil().to_string());
        match send(asked.timeout(SHORT)).await {
            Err(error @ (ClientError::Unauthorized | ClientError::Unreachable(_))) => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether the server is there, and how far its clock is ahead of ours in seconds, if it tells the time.
    pub async fn clock_offset(&self) -> Result<Option<i64>, ClientError> {
        let answer = send(self.http.get(format!("{}/healthz", self.base)).timeout(SHORT)).await?;
        let date = answer.headers().get(reqwest::header::DATE).and_then(|date| date.to_str().ok());
        let theirs = date.and_then(|date| chrono::DateTime::parse_from_rfc2822(date).ok());
        Ok(theirs.map(|theirs| (theirs.to_utc() - chrono::Utc::now()).num_seconds()))
    }

    /// The calls about one task, in the trace of its attempt.
    pub fn task(&self, attempt: &Attempt) -> TaskClient {
        let (task, trace) = (attempt.task(), attempt.trace_context());
        TaskClient { client: self.clone(), task_id: task.task_id, lease_token: task.lease_token, trace }
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        read(send(self.request(Method::POST, path).timeout(SHORT).json(body)).await?).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.request_by(&self.http, method, path)
    }

    fn request_by(&self, http: &reqwest::Client, method: Method, path: &str) -> RequestBuilder {
        let request = http.request(method, format!("{}/v1/nodes/{path}", self.base));
        match &*self.credential.read().unwrap_or_else(PoisonError::into_inner) {
            Some(credential) => request.bearer_auth(credential),
            None => request,
        }
    }
}

/// The server, about one attempt.
#[derive(Clone)]
pub struct TaskClient {
    client: Client,
    task_id: i64,
    lease_token: Uuid,
    trace: Option<TraceContext>,
}

impl TaskClient {
    /// Renews the lease and tells the progress.
    ///
    /// # Errors
    /// As [`ClientError`] says; so with every call below.
    pub async fn renew(&self, progress: Progress, patience: Duration) -> Result<Renewed, ClientError> {
        let body = Renew { lease_token: self.lease_token, progress: Some(progress) };
        let request = self.request(Method::POST, "renew").timeout(patience.min(SHORT)).json(&body);
        self.about_lease(async { read(send(request).await?).await }.await)
    }

    /// Reports success.
    pub async fn complete(&self, output: serde_json::Value) -> Result<(), ClientError> {
        self.tell("complete", &Complete { lease_token: self.lease_token, output }).await
    }

    /// Reports a failure.
    pub async fn fail(&self, failure: Failure) -> Result<(), ClientError> {
        self.tell("fail", &Fail { lease_token: self.lease_token, failure }).await
    }

    /// Gives the task back, not counted.
    pub async fn release(&self) -> Result<(), ClientError> {
        self.tell("release", &Release { lease_token: self.lease_token }).await
    }

    /// Opens a package or asset.
    pub async fn input(&self, hash: &BlobHash) -> Result<Response, ClientError> {
        send(self.request(Method::GET, &format!("inputs/{hash}"))).await
    }

    /// Whether the render's shelf has this frame already.
    pub async fn has_frame(&self, hash: &BlobHash) -> Result<bool, ClientError> {
        let request = self.request(Method::HEAD, &format!("frames/{hash}")).timeout(SHORT);
        let answer = request.send().await.map_err(unreachable)?;
        match answer.status() {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            // Without a body nobody says who answers, and why: the next renewal finds out.
            status => Err(unreachable(format!("it answered {status}"))),
        }
    }

    /// Puts a frame on the render's shelf.
    pub async fn put_frame(&self, hash: &BlobHash, png: bytes::Bytes) -> Result<(), ClientError> {
        let path = format!("tasks/{}/frames/{hash}", self.task_id);
        let request = self.client.request_by(&self.client.uploads, Method::PUT, &path);
        let request = self.named(request);
        let limit = SILENCE + Duration::from_secs(png.len() as u64 / SLOWEST_UPLINK);
        send(request.header("content-type", "image/png").timeout(limit).body(png)).await.map(drop)
    }

    /// Frames of the task that are on the render's shelf already, by whatever attempt.
    pub async fn kept_frames(&self) -> Result<Vec<u32>, ClientError> {
        let kept: KeptFrames = read(send(self.request(Method::GET, "frames").timeout(SHORT)).await?).await?;
        Ok(kept.frames)
    }

    /// Tells that frames are stored.
    pub async fn note_frames(&self, frames: &[FrameRef]) -> Result<(), ClientError> {
        let body = StoredFrames { lease_token: self.lease_token, frames: frames.to_vec() };
        send(self.request(Method::POST, "frames").timeout(SHORT).json(&body)).await.map(drop)
    }

    async fn tell(&self, what: &str, body: &impl Serialize) -> Result<(), ClientError> {
        let request = self.request(Method::POST, what).timeout(SHORT).json(body);
        self.about_lease(send(request).await.map(drop))
    }

    /// A task that is gone is nobody's any more.
    fn about_lease<T>(&self, answer: Result<T, ClientError>) -> Result<T, ClientError> {
        answer.map_err(|error| if matches!(error, ClientError::NotFound) { ClientError::LeaseLost } else { error })
    }

    fn request(&self, method: Method, what: &str) -> RequestBuilder {
        self.named(self.client.request(method, &format!("tasks/{}/{what}", self.task_id)))
    }

    /// Says for which attempt, and in which trace.
    fn named(&self, request: RequestBuilder) -> RequestBuilder {
        let request = request.header(LEASE_TOKEN_HEADER, self.lease_token.to_string());
        match self.trace {
            Some(trace) => request.header(TRACEPARENT, trace.to_string()),
            None => request,
        }
    }
}

async fn send(request: RequestBuilder) -> Result<Response, ClientError> {
    let response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.bytes().await.unwrap_or_default();
    let problem: Problem = serde_json::from_slice(&body).unwrap_or_default();
    Err(refusal(status, problem))
}

/// What a refusal means. Only the server's own codes end anything: what else answers on the way to it, a proxy or a wall, is a
/// server that cannot be reached.
fn refusal(status: StatusCode, problem: Problem) -> ClientError {
    const OF_THE_WAY: [StatusCode; 6] = [
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::NOT_FOUND,
        StatusCode::METHOD_NOT_ALLOWED,
        StatusCode::CONFLICT,
        StatusCode::GONE,
    ];
    match (status, problem.code.as_str()) {
        (_, "") if OF_THE_WAY.contains(&status) => {
            return unreachable(format!("something before it answered {status}"));
        }
        (_, "lease.lost" | "lease.foreign") => return ClientError::LeaseLost,
        (StatusCode::UNAUTHORIZED, _) => return ClientError::Unauthorized,
        _ => {}
    }
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => ClientError::NotFound,
        StatusCode::INSUFFICIENT_STORAGE => ClientError::Full,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => unreachable(format!("it answered {status}")),
        _ if status.is_server_error() => unreachable(format!("it answered {status}")),
        _ => ClientError::Rejected { status: status.as_u16(), code: problem.code, detail: problem.detail },
    }
}

async fn read<T: DeserializeOwned>(response: Response) -> Result<T, ClientError> {
    response.json().await.map_err(unreachable)
}

fn unreachable(error: impl Into<Box<dyn Error + Send + Sync>>) -> ClientError {
    ClientError::Unreachable(error.into())
}

/// TLS by ring, for the whole process; somebody else may have chosen already, and that is fine.
pub fn install_crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_what_to_do() {
        let of = |status: u16, code: &str| {
            refusal(StatusCode::from_u16(status).unwrap(), Problem { code: code.into(), detail: String::new() })
        };
        assert!(matches!(of(409, "lease.lost"), ClientError::LeaseLost));
        assert!(matches!(of(409, "node.fenced"), ClientError::Rejected { status: 409, .. }));
        assert!(matches!(of(403, "lease.foreign"), ClientError::LeaseLost));
        assert!(matches!(of(401, "auth.invalid"), ClientError::Unauthorized));
        assert!(matches!(of(404, "blob.not_found"), ClientError::NotFound));
        assert!(matches!(of(507, ""), ClientError::Full));
        for passing in [500, 502, 503, 429, 408] {
            assert!(matches!(of(passing, ""), ClientError::Unreachable(_)), "{passing}");
        }
        assert!(matches!(of(422, "x"), ClientError::Rejected { .. }));
    }

    #[test]
    fn whatever_answers_on_the_way_to_the_server_ends_nothing() {
        for status in [401, 403, 404, 405, 409, 410] {
            let status = StatusCode::from_u16(status).unwrap();
            assert!(matches!(refusal(status, Problem::default()), ClientError::Unreachable(_)), "{status}");
        }
    }
}
