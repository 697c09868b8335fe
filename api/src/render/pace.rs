//! How far a render has come and how long it will take, from its row and its live tasks. Pure.

use super::eta::{self, Eta};
use chrono::{DateTime, Utc};
use flatrender_workflows::models::render::{live_task::LiveTask, render_job::RenderJob};

/// Share of the whole that rendering makes.
const RENDERING: f64 = 0.8;
/// Reached when every part is encoded.
const ENCODED: f64 = 0.9;
/// Reached when the film is being joined and checked.
const JOINING: f64 = 0.93;
/// Reached when the film is checked and published.
const PUBLISHING: f64 = 0.97;

/// Where a render stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// What is being done, in a few words.
    pub step: &'static str,
    /// 0 to 1.
    pub progress: f64,
    /// Frames rendered, proven or not.
    pub rendered: i32,
    /// What is left; none when nothing can be said.
    pub eta: Option<Eta>,
}

/// Measures a render at `now`.
pub fn measure(job: &RenderJob, live: &[LiveTask], now: DateTime<Utc>) -> Pace {
    let rendered = rendered(job, live);
    let progress = thousandths(progress(job, live, rendered));
    Pace { step: step(job, live), progress, rendered, eta: eta::eta(job, live, progress, now) }
}

/// Accepted frames, frames that are being verified, and frames that live attempts report.
fn rendered(job: &RenderJob, live: &[LiveTask]) -> i32 {
    let rendering: i64 = eta::chunks(live).filter(|task| task.leased).map(|task| task.done.max(0)).sum();
    let verifying = live.iter().filter(|task| task.activity == "VerifyFrames");
    let verifying: i64 = verifying.map(|task| i64::from(task.frames.unwrap_or(0))).sum();
    let all = i64::from(job.frames_verified).saturating_add(rendering).saturating_add(verifying);
    all.clamp(0, i64::from(job.frame_count)) as i32
}

fn progress(job: &RenderJob, live: &[LiveTask], rendered: i32) -> f64 {
    let frames = RENDERING * f64::from(rendered) / f64::from(job.frame_count.max(1));
    match job.status.as_str() {
        "completed" => 1.0,
        "finalizing" => PUBLISHING,
        "encoding" if is_live(live, "VerifyVideo") => (JOINING + PUBLISHING) / 2.0,
        "encoding" if is_live(live, "AssembleVideo") => JOINING,
        "encoding" => RENDERING + (ENCODED - RENDERING) * encoded(job, live),
        _ => frames,
    }
}

/// Share of the frames that no longer wait to be encoded.
fn encoded(job: &RenderJob, live: &[LiveTask]) -> f64 {
    let waiting: f64 = live.iter().filter(|t| t.activity == "EncodePart").map(frames_left).sum();
    (1.0 - waiting / f64::from(job.frame_count.max(1))).clamp(0.0, 1.0)
}

fn frames_left(task: &LiveTask) -> f64 {
    let done = if task.total > 0 { (task.done as f64 / task.total as f64).clamp(0.0, 1.0) } else { 0.0 };
    f64::from(task.frames.unwrap_or(0)) * (1.0 - done)
}

/// What the workflow does now: the earliest of its live activities that somebody works on.
fn step(job: &RenderJob, live: &[LiveTask]) -> &'static str {
    match job.status.as_str() {
        "queued" => "waiting to start",
        "completed" => "done",
        "failed" => "failed",
        "cancelled" => "cancelled",
        "finalizing" => "publishing",
        _ if job.cancel_requested_at.is_some() => "cancelling",
        "preparing" => "preparing",
        _ => in_words(live),
    }
}

fn in_words(live: &[LiveTask]) -> &'static str {
    const STEPS: [(&str, &str); 7] = [
        ("RenderFrames", "rendering frames"),
        ("VerifyFrames", "verifying frames"),
        ("EncodePart", "encoding"),
        ("MixAudio", "mixing sound"),
        ("AssembleVideo", "joining"),
        ("VerifyVideo", "checking"),
        ("DrawContactSheet", "drawing the contact sheet"),
    ];
    let worked_on = |name: &str| live.iter().any(|t| t.leased && t.activity == name);
    if let Some((_, words)) = STEPS.iter().find(|(name, _)| worked_on(name)) {
        return words;
    }
    if is_live(live, "RenderFrames") {
        return "waiting for a render node";
    }
    STEPS.iter().find(|(name, _)| is_live(live, name)).map_or("continuing", |(_, words)| words)
}

fn is_live(live: &[LiveTask], activity: &str) -> bool {
    live.iter().any(|t| t.activity == activity)
}

fn thousandths(share: f64) -> f64 {
    (share * 1000.0).floor() / 1000.0
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;
    use sqlx::types::Json;
    use uuid::Uuid;

    pub fn job(status: &str, frames_verified: i32) -> RenderJob {
        let now = Utc::now();
        RenderJob {
            id: Uuid::nil(),
            template: "promo".into(),
            template_version: 1,
            kind: "final".into(),
            status: status.into(),
            width: 64,
            height: 36,
            fps: 30,
            frame_count: 300,
            frames_verified,
            metadata: json!({}),
            warnings: Json(vec![]),
            workflow_run_id: Uuid::nil(),
            request_sha256: String::new(),
            error_code: None,
            error_detail: None,
            cancel_requested_at: None,
            created_at: now,
            started_at: Some(now),
            finished_at: None,
        }
    }

    pub fn task(activity: &str, frames: Option<i32>, done: i64, total: i64) -> LiveTask {
        let (leased_at, first_frame, asked, p50_ms, p99_ms) = (None, None, None, None, None);
        let (run_id, activity, leased) = (Uuid::nil(), activity.into(), true);
        LiveTask { run_id, activity, leased, leased_at, frames, first_frame, asked, p50_ms, p99_ms, done, total }
    }

    #[test]
    fn frames_count_while_they_are_rendered_and_verified() {
        let live = [task("RenderFrames", None, 40, 75), task("VerifyFrames", Some(75), 0, 0)];
        let pace = measure(&job("rendering", 75), &live, Utc::now());
        assert_eq!((pace.rendered, pace.step), (190, "rendering frames"));
    }

    #[test]
    fn a_node_that_reports_too_much_cannot_pass_the_end() {
        let pace = measure(&job("rendering", 299), &[task("RenderFrames", None, i64::MAX, 1)], Utc::now());
        assert_eq!(pace.rendered, 300);
        assert!(pace.progress <= RENDERING);
    }

    #[test]
    fn later_phases_never_go_back() {
        let encoding = |live: &[LiveTask]| measure(&job("encoding", 300), live, Utc::now()).progress;
        let steps = [
            measure(&job("rendering", 300), &[], Utc::now()).progress,
            encoding(&[task("EncodePart", Some(150), 0, 0)]),
            encoding(&[task("EncodePart", Some(150), 10, 20)]),
            encoding(&[task("MixAudio", None, 0, 0)]),
            encoding(&[task("AssembleVideo", None, 0, 0)]),
            encoding(&[task("VerifyVideo", None, 0, 0)]),
            measure(&job("finalizing", 300), &[], Utc::now()).progress,
            measure(&job("completed", 300), &[], Utc::now()).progress,
        ];
        assert!(steps.is_sorted(), "{steps:?}");
        assert_eq!(steps[7], 1.0);
    }

    #[test]
    fn nobody_to_render_is_said() {
        let waiting = LiveTask { leased: false, ..task("RenderFrames", None, 0, 0) };
        assert_eq!(measure(&job("rendering", 0), &[waiting], Utc::now()).step, "waiting for a render node");
    }
}
