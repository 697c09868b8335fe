//! `GET /v1/operate/runs/{id}/film`: how a film under way looks, frame by frame.

use super::{Party, run::found};
use crate::{
    app::App,
    extract::{Json, Path},
    problem::{Code, Problem, ProblemBody},
    render::{
        last_frame,
        view::{self, Render},
    },
};
use axum::{extract::State, http::HeaderMap, response::Response};
use flatrender_workflows::models::{
    Role, Scope,
    render::{
        film_frames::{self, Stretch},
        render_job,
    },
    scope::Scoped,
};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// Stretches that are shown: more than films have frames.
const STRETCHES: i64 = 100_000;

/// A film, and how each of its frames stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct Film {
    /// Always `film`.
    #[schema(example = "film")]
    object: &'static str,
    /// The render, as its tenant sees it.
    render: Render,
    /// Its frames in their order, those together that stand alike.
    frames: Vec<FrameStretch>,
}

/// Frames one after the other that stand alike.
#[derive(Debug, Serialize, ToSchema)]
pub struct FrameStretch {
    /// The first, from 0.
    #[schema(example = 0)]
    first: i32,
    /// The last.
    #[schema(example = 119)]
    last: i32,
    /// `waiting`, `rendering`; `stored`: to be proven; `accepted`; `reused`: of a scene that was rendered before; `repairing`, `repaired`:
    /// rendered again, alone; `black`, `duplicate`, `transparent`: accepted, and it looks odd; `failed`.
    #[schema(example = "accepted")]
    state: String,
}

impl From<Stretch> for FrameStretch {
    fn from(s: Stretch) -> Self {
        Self { first: s.first, last: s.last, state: s.state }
    }
}

/// `GET /v1/operate/runs/{id}/film`
#[utoipa::path(
    get, path = "/v1/operate/runs/{id}/film", tag = "Runs", operation_id = "get_run_film", summary = "Look at the film of a run",
    description = "How far it has come, when it is likely done, and how each frame stands. A run that makes no film has none.",
    params(("id" = Uuid, Path, description = "The run")),
    responses(
        (status = 200, description = "The film", body = Film),
        (status = 404, description = "`run.not_found`, `render.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn film(State(app): State<App>, party: Party, Path(id): Path<Uuid>) -> Result<Json<Film>, Problem> {
    let (mut tx, tenant_id, render_id) = made_by(&app, &party, id).await?;
    let job = render_job::find(&mut tx, tenant_id, render_id).await?.ok_or_else(none)?;
    let frames = film_frames::stretches(&mut tx, tenant_id, render_id, STRETCHES).await?;
    let is_live = !job.has_ended();
    let mut render = view::of_job(&mut tx, tenant_id, job).await?;
    drop(tx);
    if is_live {
        render.waiting_because = app.placement.why_waiting(&app, tenant_id, id).await?;
    }
    Ok(Json(Film { object: "film", render, frames: frames.into_iter().map(Into::into).collect() }))
}

/// `GET /v1/operate/runs/{id}/last-frame`
#[utoipa::path(
    get, path = "/v1/operate/runs/{id}/last-frame", tag = "Runs", operation_id = "get_run_last_frame",
    summary = "See the last rendered frame of a run",
    description = "A small JPEG of the frame that a node has stored last, while the film is under way.",
    params(("id" = Uuid, Path, description = "The run")),
    responses(
        (status = 200, description = "The picture", body = crate::openapi::Binary, content_type = "image/jpeg"),
        (status = 304, description = "The client has it already"),
        (status = 404, description = "`run.not_found`, `render.not_found`; `render.no_frame` before the first frame and after the end",
         body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn picture(
    State(app): State<App>,
    party: Party,
    Path(id): Path<Uuid>,
    asked: HeaderMap,
) -> Result<Response, Problem> {
    let (tx, tenant_id, render_id) = made_by(&app, &party, id).await?;
    last_frame::answer(&app, tx, tenant_id, render_id, &asked).await
}

/// The film of a run within somebody's reach, in a transaction of its tenant.
async fn made_by(app: &App, party: &Party, run_id: Uuid) -> Result<(Scoped, Uuid, Uuid), Problem> {
    let tenant_id = found(app, party, run_id).await?.tenant_id;
    let mut tx = app.db.begin(Scope::tenant(Role::Render, tenant_id)).await?;
    let render_id = film_frames::film_of(&mut tx, tenant_id, run_id).await?.ok_or_else(none)?;
    Ok((tx, tenant_id, render_id))
}

fn none() -> Problem {
    Problem::not_found(Code::RenderNotFound, "film of this run")
}
