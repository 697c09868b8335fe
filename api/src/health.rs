//! Whether the server lives and whether it can work.

use crate::{app::App, extract::Json};
use axum::{extract::State, http::StatusCode};
use serde::Serialize;
use std::time::Duration;
use utoipa::ToSchema;

/// A check that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether the server can work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Readiness {
    /// All of the below.
    ready: bool,
    /// The database answers.
    database: bool,
    /// Its tables are there.
    migrations: bool,
    /// A small object can be written, read and removed.
    storage: bool,
}

/// `GET /healthz`: the process answers. Asks nobody else: a database that is away is no reason to restart the server.
#[utoipa::path(
    get, path = "/healthz", tag = "Operation", operation_id = "healthz", summary = "Is the server alive?",
    description = "Answers as long as the process does.", security(()),
    responses((status = 200, description = "It is", body = String, content_type = "text/plain", example = "ok"))
)]
pub async fn healthz() -> &'static str {
    "ok"
}

/// `GET /readyz`: the database, its tables and the storage are there.
#[utoipa::path(
    get, path = "/readyz", tag = "Operation", operation_id = "readyz", summary = "Can the server work?",
    description = "Asks the database and writes a small object to the storage.", security(()),
    responses(
        (status = 200, description = "It can", body = Readiness),
        (status = 503, description = "It cannot; the body tells what is missing", body = Readiness)
    )
)]
pub async fn readyz(State(app): State<App>) -> (StatusCode, Json<Readiness>) {
    let (migrated, storage) = tokio::join!(in_time(is_migrated(&app)), in_time(probe(&app)));
    let (database, migrations, storage) = (migrated.is_some(), migrated == Some(true), storage == Some(true));
    let readiness = Readiness { ready: database && migrations && storage, database, migrations, storage };
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness))
}

async fn in_time<T>(check: impl Future<Output = Option<T>>) -> Option<T> {
    tokio::time::timeout(PATIENCE, check).await.ok().flatten()
}

async fn is_migrated(app: &App) -> Option<bool> {
    let answer = app.db.is_migrated().await;
    answer.inspect_err(|error| tracing::warn!(%error, "not ready: the database does not answer")).ok()
}

async fn probe(app: &App) -> Option<bool> {
    let answer = app.storage.probe().await;
    answer.inspect_err(|error| tracing::warn!(%error, "not ready: the storage does not work")).ok().map(|()| true)
}
