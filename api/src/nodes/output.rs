//! What a node reports is checked before it is recorded: a node is trusted with pixels, not with the plan.

use super::leases;
use crate::{
    app::App,
    problem::{Code, Problem},
};
use flatrender_engine::{Failure, Progress};
use flatrender_workflows::{
    contracts::{
        render::{FrameRef, RenderFrames, RenderedFrames},
        storage::Shelf,
    },
    models::render::node_lease::NodeLease,
};
use futures::TryStreamExt;
use serde_json::Value;
use std::collections::BTreeSet;

/// Blobs that are looked for at a time.
const LOOKUPS: usize = 16;
/// Most warnings of one attempt, and the longest of them.
const WARNINGS: (usize, usize) = (100, 500);
/// Longest code, message and evidence of a failure that are kept.
const FAILURE: (usize, usize, usize) = (128, 2000, 64 * 1024);
/// Longest detail of progress that is kept.
const PROGRESS_BYTES: usize = 8 * 1024;

/// Checks the output of a task: it parses, its frames are of the planned range, once each, and each is stored.
///
/// # Errors
/// `node.bad_output`
pub async fn check(app: &App, lease: &NodeLease, output: &Value) -> Result<(), Problem> {
    let task = leases::input(lease)?;
    let output: RenderedFrames = serde_json::from_value(output.clone()).map_err(|e| bad(e.to_string()))?;
    check_plan(&task, &output)?;
    let shelf = leases::shelf(lease, &task);
    let frames = futures::stream::iter(output.frames.into_iter().map(Ok));
    frames.try_for_each_concurrent(LOOKUPS, |frame| check_stored(app, &shelf, frame)).await
}

fn check_plan(task: &RenderFrames, output: &RenderedFrames) -> Result<(), Problem> {
    let mut seen = BTreeSet::new();
    let numbers = output.frames.iter().map(|f| f.frame).chain(output.faults.iter().map(|f| f.frame));
    for frame in numbers {
        if !task.frames.contains(frame) {
            return Err(bad(format!("frame {frame} is not of {} to {}", task.frames.first, task.frames.last)));
        }
        if !seen.insert(frame) {
            return Err(bad(format!("frame {frame} is there twice")));
        }
    }
    let (most, longest) = WARNINGS;
    if output.warnings.len() > most || output.warnings.iter().any(|w| w.len() > longest) {
        return Err(bad(format!("at most {most} warnings of at most {longest} bytes")));
    }
    Ok(())
}

async fn check_stored(app: &App, shelf: &Shelf, frame: FrameRef) -> Result<(), Problem> {
    let stored = app.storage.stat(shelf, &frame.blob.sha256).await?;
    if stored == Some(frame.blob.size_bytes) && stored != Some(0) {
        return Ok(());
    }
    Err(bad(format!("frame {} is not stored as reported", frame.frame)))
}

fn bad(detail: String) -> Problem {
    Problem::new(Code::NodeBadOutput, detail)
}

/// Whether a node only says that it had to stop. Whether a run is cancelled is not for nodes to say.
pub fn is_no_failure(failure: &Failure) -> bool {
    failure.is_cancelled() || failure.is_lease_lost()
}

/// A failure that is fit to be kept.
pub fn bounded(failure: Failure) -> Failure {
    let (code, message, details) = FAILURE;
    let keep = failure.details.to_string().len() <= details;
    let fine = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_');
    let cleaned: String = failure.code.chars().filter(fine).take(code).collect();
    Failure {
        code: if cleaned.is_empty() { "render.failed".into() } else { cleaned },
        message: failure.message.chars().filter(|c| *c != '\0').take(message).collect(),
        details: if keep { failure.details } else { Value::Null },
        ..failure
    }
}

/// Progress that is fit to be kept: a lease is not lost over its decoration.
pub fn bounded_progress(mut progress: Progress) -> Progress {
    let detail = progress.detail.to_string();
    if detail.len() > PROGRESS_BYTES || detail.contains("\\u0000") {
        progress.detail = Value::Null;
    }
    progress
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_failure_is_cut_to_size() {
        let wild = Failure::permanent("a b\0".repeat(500), "x\0".repeat(9000)).with_details(json!("y".repeat(70_000)));
        let kept = bounded(wild);
        assert_eq!(kept.code.len(), 128);
        assert_eq!(kept.message.len(), 2000);
        assert!(kept.details.is_null());
        assert_eq!(bounded(Failure::permanent("…", "")).code, "render.failed");
    }
}
