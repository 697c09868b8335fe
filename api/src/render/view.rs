//! A render as clients see it.

use super::pace::{self, Pace};
use chrono::{DateTime, Utc};
use flatrender_workflows::models::{
    Db, Role, Scope,
    render::{
        derivative::Derivative,
        export::{self, Export},
        live_task::{self, LiveTask},
        render_job::RenderJob,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

/// A film: what was ordered and how far it has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Render {
    /// Its id.
    pub id: Uuid,
    /// Always `render`.
    #[schema(example = "render")]
    pub object: String,
    /// Slug of the template.
    #[schema(example = "promo")]
    pub template: String,
    /// The version it pins.
    #[schema(example = 1)]
    pub template_version: i32,
    /// `preview` or `final`.
    #[schema(example = "final")]
    pub kind: String,
    /// `queued`, `preparing`, `rendering`, `repairing`, `encoding`, `finalizing`, `completed`, `failed` or `cancelled`.
    #[schema(example = "rendering")]
    pub status: String,
    /// What is being done right now, in a few words.
    #[schema(example = "rendering frames")]
    pub step: String,
    /// Why no render node works on it, where it waits for one; only when one render is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "no node has font.vazirmatn=yes")]
    pub waiting_because: Option<String>,
    /// 0 to 1.
    #[schema(example = 0.42, minimum = 0, maximum = 1)]
    pub progress: f64,
    /// Seconds until it is done, as likely less as more, from the pace of its template and its own; null when nothing can be said.
    #[schema(example = 12.3)]
    pub eta_seconds: Option<f64>,
    /// Seconds in which it is done nine times in ten; null when nothing can be said.
    #[serde(default)]
    #[schema(example = 18.1)]
    pub eta_p90_seconds: Option<f64>,
    /// Its frames.
    pub frames: RenderFrames,
    /// Where a small picture of the frame that was rendered last is, while the render is under way; null before the first.
    pub last_frame_url: Option<String>,
    /// Pixels.
    #[schema(example = 1280)]
    pub width: i32,
    /// Pixels.
    #[schema(example = 720)]
    pub height: i32,
    /// Frames a second.
    #[schema(example = 30)]
    pub fps: i32,
    /// Length of the film.
    #[schema(example = 10.0)]
    pub duration_seconds: f64,
    /// Why it failed or was cancelled.
    pub error: Option<RenderError>,
    /// What the renderer warned of, and `field.not_shown` for what the order says of scenes that it leaves out.
    pub warnings: Vec<String>,
    /// The finished film.
    pub export: Option<ExportView>,
    /// Yours, unchanged.
    #[schema(value_type = Object)]
    pub metadata: Value,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// When work began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// When cancelling was asked for.
    pub cancel_requested_at: Option<DateTime<Utc>>,
}

/// Frames of a film.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RenderFrames {
    /// In all.
    #[schema(example = 300)]
    pub total: i32,
    /// Rendered so far.
    #[schema(example = 120)]
    pub rendered: i32,
}

/// Why a render did not become a film.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RenderError {
    /// Stable.
    #[schema(example = "render.missing_font")]
    pub code: String,
    /// In words.
    pub message: String,
}

/// A finished film.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExportView {
    /// Its id.
    pub id: Uuid,
    /// Always `export`.
    #[schema(example = "export")]
    pub object: String,
    /// The render it came from.
    pub render_id: Uuid,
    /// Where to download it.
    pub url: String,
    /// Length of the file.
    pub size_bytes: u64,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// Frames, counted after encoding.
    pub frames: i32,
    /// Length of the film in milliseconds.
    pub duration_ms: i64,
    /// A picture of evenly spaced frames, PNG; null once it was removed.
    pub contact_sheet_url: Option<String>,
    /// What else was ordered of it, and where each is once it is ready.
    pub derivatives: Vec<DerivativeView>,
    /// When it was published.
    pub created_at: DateTime<Utc>,
}

/// What else is made of a film.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DerivativeView {
    /// `poster`, `gif`, `small`, `prores` or `webm`.
    #[schema(example = "poster")]
    pub kind: String,
    /// `queued`, `ready` or `failed`.
    #[schema(example = "ready")]
    pub state: String,
    /// Where to download it; null until it is ready.
    pub url: Option<String>,
}

impl From<Export> for ExportView {
    fn from(export: Export) -> Self {
        let at = format!("/v1/exports/{}", export.id);
        let derivative = |d: Derivative| {
            let url = (d.state == "ready").then(|| format!("{at}/derivatives/{}", d.kind));
            DerivativeView { kind: d.kind, state: d.state, url }
        };
        let derivatives = export.derivatives.into_iter().map(derivative).collect();
        Self {
            id: export.id,
            object: "export".into(),
            render_id: export.render_id,
            url: format!("{at}/download"),
            size_bytes: export.video.size_bytes,
            sha256: export.video.sha256.to_string(),
            frames: export.frames,
            duration_ms: export.duration_ms,
            contact_sheet_url: export.sheet.map(|_| format!("{at}/contact-sheet")),
            derivatives,
            created_at: export.created_at,
        }
    }
}

impl Render {
    /// A render from its row, its live tasks and its export.
    pub fn new(job: RenderJob, live: &[LiveTask], export: Option<Export>, now: DateTime<Utc>) -> Self {
        let Pace { step, progress, rendered, eta } = pace::measure(&job, live, now);
        let seen = rendered > 0 && !job.has_ended();
        let error = job.error_code.map(|code| RenderError { code, message: job.error_detail.unwrap_or_default() });
        Self {
            id: job.id,
            object: "render".into(),
            template: job.template,
            template_version: job.template_version,
            kind: job.kind,
            status: job.status,
            step: step.to_owned(),
            waiting_because: None,
            progress,
            eta_seconds: eta.map(|eta| eta.p50),
            eta_p90_seconds: eta.map(|eta| eta.p90),
            frames: RenderFrames { total: job.frame_count, rendered },
            last_frame_url: seen.then(|| format!("/v1/renders/{}/last-frame", job.id)),
            width: job.width,
            height: job.height,
            fps: job.fps,
            duration_seconds: f64::from(job.frame_count) / f64::from(job.fps.max(1)),
            error,
            warnings: job.warnings.0,
            export: export.map(Into::into),
            metadata: job.metadata,
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            cancel_requested_at: job.cancel_requested_at,
        }
    }

    /// Whether nothing about it changes any more.
    pub fn has_ended(&self) -> bool {
        self.finished_at.is_some()
    }
}

/// Some renders of a tenant as clients see them, in the given order.
///
/// # Errors
/// When the database cannot be reached.
pub async fn of_jobs(db: Db<'_>, tenant_id: Uuid, jobs: Vec<RenderJob>) -> sqlx::Result<Vec<Render>> {
    let live_runs: Vec<Uuid> = jobs.iter().filter(|j| !j.has_ended()).map(|j| j.workflow_run_id).collect();
    let done: Vec<Uuid> = jobs.iter().filter(|j| j.status == "completed").map(|j| j.id).collect();
    let live = if live_runs.is_empty() { vec![] } else { live_tasks(&mut *db, tenant_id, &live_runs).await? };
    let mut exports = if done.is_empty() { vec![] } else { export::of_renders(db, tenant_id, &done).await? };
    let now = Utc::now();
    let view = |job: RenderJob| {
        let own: Vec<LiveTask> = live.iter().filter(|t| t.run_id == job.workflow_run_id).cloned().collect();
        let export = exports.iter().position(|e| e.render_id == job.id).map(|i| exports.swap_remove(i));
        Render::new(job, &own, export, now)
    };
    Ok(jobs.into_iter().map(view).collect())
}

async fn live_tasks(db: Db<'_>, tenant_id: Uuid, runs: &[Uuid]) -> sqlx::Result<Vec<LiveTask>> {
    Scope::tenant(Role::Workflow, tenant_id).enter(&mut *db).await?;
    let live = live_task::of_runs(&mut *db, runs).await?;
    Scope::tenant(Role::Render, tenant_id).enter(db).await?;
    Ok(live)
}

/// One render of a tenant as clients see it.
///
/// # Errors
/// When the database cannot be reached.
pub async fn of_job(db: Db<'_>, tenant_id: Uuid, job: RenderJob) -> sqlx::Result<Render> {
    let mut views = of_jobs(db, tenant_id, vec![job]).await?;
    views.pop().ok_or(sqlx::Error::RowNotFound)
}
