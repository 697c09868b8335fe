//! What a node reports is checked before it is recorded: a node is trusted with pixels, not with the plan.

use super::{leases, stills};
use crate::{
    app::App,
    problem::{Code, Problem},
};
use flatrender_engine::remote::Lease;
use flatrender_workflows::contracts::{
    node::MOST_STORED,
    render::{FrameRef, RenderFrames, RenderedFrames},
    storage::Shelf,
};
use futures::TryStreamExt;
use serde_json::Value;
use std::collections::BTreeSet;

/// Blobs that are looked for at a time.
const LOOKUPS: usize = 16;
/// Most warnings of one attempt, and the longest of them.
const WARNINGS: (usize, usize) = (100, 500);

/// Checks the output of a task: it parses, its frames are of the planned range, once each, and each is stored.
///
/// # Errors
/// `node.bad_output`
pub async fn check(app: &App, lease: &Lease, output: &Value) -> Result<(), Problem> {
    if let Some(still) = stills::input(lease) {
        return stills::check(app, lease, &still, output).await;
    }
    let task = leases::input(lease)?;
    let output: RenderedFrames = serde_json::from_value(output.clone()).map_err(|e| bad(e.to_string()))?;
    check_plan(&task, &output)?;
    let shelf = leases::shelf(lease, &task);
    let frames = futures::stream::iter(output.frames.into_iter().map(Ok));
    frames.try_for_each_concurrent(LOOKUPS, |frame| check_stored(app, &shelf, frame)).await
}

/// Checks frames that an attempt has stored: of the planned range, once each, and each there. Gives the task's input.
///
/// # Errors
/// `node.bad_output`
pub async fn check_stored_frames(app: &App, lease: &Lease, frames: Vec<FrameRef>) -> Result<RenderFrames, Problem> {
    let task = leases::input(lease)?;
    if frames.len() > MOST_STORED {
        return Err(bad(format!("at most {MOST_STORED} frames at a time")));
    }
    check_numbers(&task, frames.iter().map(|f| f.frame))?;
    let shelf = leases::shelf(lease, &task);
    let frames = futures::stream::iter(frames.into_iter().map(Ok));
    frames.try_for_each_concurrent(LOOKUPS, |frame| check_stored(app, &shelf, frame)).await?;
    Ok(task)
}

fn check_plan(task: &RenderFrames, output: &RenderedFrames) -> Result<(), Problem> {
    check_numbers(task, output.frames.iter().map(|f| f.frame).chain(output.faults.iter().map(|f| f.frame)))?;
    let (most, longest) = WARNINGS;
    if output.warnings.len() > most || output.warnings.iter().any(|w| w.len() > longest) {
        return Err(bad(format!("at most {most} warnings of at most {longest} bytes")));
    }
    Ok(())
}

fn check_numbers(task: &RenderFrames, numbers: impl Iterator<Item = u32>) -> Result<(), Problem> {
    let mut seen = BTreeSet::new();
    for frame in numbers {
        if !task.frames.contains(frame) {
            return Err(bad(format!("frame {frame} is not of {} to {}", task.frames.first, task.frames.last)));
        }
        if !seen.insert(frame) {
            return Err(bad(format!("frame {frame} is there twice")));
        }
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
