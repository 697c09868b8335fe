//! The routes of [`super::wire`], for any axum application.

use super::{
    service::{Refused, RemoteWorker, Service},
    wire::{Claim, Claimed, Complete, Fail, Problem, Release, Renew, Renewed},
};
use axum::{
    Extension, Json, Router,
    extract::{DefaultBodyLimit, FromRequest, Path, Request, State, rejection::JsonRejection},
    http::{HeaderMap, StatusCode, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::post,
};
use serde::de::DeserializeOwned;

/// The routes of the protocol, to be nested where the application wants them. `who` says who sends these headers, and which queues
/// are open to it; none: the caller is refused.
pub fn router<F, W>(service: Service, who: F) -> Router
where
    F: Fn(HeaderMap) -> W + Clone + Send + Sync + 'static,
    W: Future<Output = Option<RemoteWorker>> + Send + 'static,
{
    let authenticate = move |mut request: Request, next: Next| {
        let who = who.clone();
        async move {
            match who(request.headers().clone()).await {
                Some(worker) => {
                    request.extensions_mut().insert(worker);
                    next.run(request).await
                }
                None => problem(401, "worker.unknown", "this server does not know the caller".to_owned()),
            }
        }
    };
    let longest = service.longest_body();
    Router::new()
        .route("/claims", post(claim))
        .route("/tasks/{task_id}/renew", post(renew))
        .route("/tasks/{task_id}/complete", post(complete))
        .route("/tasks/{task_id}/fail", post(fail))
        .route("/tasks/{task_id}/release", post(release))
        .layer(from_fn(authenticate))
        .layer(DefaultBodyLimit::max(longest))
        .with_state(service)
}

type Worker = Extension<RemoteWorker>;

async fn claim(service: State<Service>, worker: Worker, Body(asked): Body<Claim>) -> Result<Response, Refused> {
    let tasks = service.claim(&worker, &asked).await?;
    Ok(if tasks.is_empty() { StatusCode::NO_CONTENT.into_response() } else { Json(Claimed { tasks }).into_response() })
}

async fn renew(
    service: State<Service>,
    worker: Worker,
    Path(task_id): Path<i64>,
    Body(asked): Body<Renew>,
) -> Result<Json<Renewed>, Refused> {
    service.renew(&worker, task_id, asked).await.map(Json)
}

async fn complete(
    service: State<Service>,
    worker: Worker,
    Path(task_id): Path<i64>,
    Body(asked): Body<Complete>,
) -> Result<StatusCode, Refused> {
    service.complete(&worker, task_id, asked).await.map(|()| StatusCode::NO_CONTENT)
}

async fn fail(
    service: State<Service>,
    worker: Worker,
    Path(task_id): Path<i64>,
    Body(asked): Body<Fail>,
) -> Result<StatusCode, Refused> {
    service.fail(&worker, task_id, asked).await.map(|()| StatusCode::NO_CONTENT)
}

async fn release(
    service: State<Service>,
    worker: Worker,
    Path(task_id): Path<i64>,
    Body(asked): Body<Release>,
) -> Result<StatusCode, Refused> {
    service.release(&worker, task_id, &asked).await.map(|()| StatusCode::NO_CONTENT)
}

/// A JSON body; one that cannot be read is refused like everything else.
struct Body<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let read: Result<Json<T>, JsonRejection> = Json::from_request(request, state).await;
        read.map(|Json(body)| Self(body)).map_err(|rejection| Refused::Invalid(rejection.body_text()))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        if let Self::Unavailable(error) = &self {
            tracing::warn!(error = error as &dyn std::error::Error, "cannot answer a remote worker");
        }
        problem(self.status(), self.code(), self.to_string())
    }
}

pub(crate) fn problem(status: u16, code: &str, detail: String) -> Response {
    let body = Json(Problem { status, code: code.to_owned(), detail });
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
}
