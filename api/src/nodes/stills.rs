//! What a node reports of a still is checked before it is recorded: the stored picture is read again.

use super::leases;
use crate::{
    app::App,
    problem::{Code, Problem},
};
use flatrender_activities::media::frame;
use flatrender_engine::remote::Lease;
use flatrender_workflows::contracts::{
    snapshot::{RenderStills, RenderedStill, Still},
    storage::{BlobHash, StorageError},
};
use futures::TryStreamExt;
use serde_json::Value;
use std::borrow::Cow;

/// Most warnings of one attempt, and the longest of them in bytes.
const WARNINGS: (usize, usize) = (100, 500);

/// What a leased task asks for, when it is a still.
pub fn input(lease: &Lease) -> Option<RenderStills> {
    (lease.activity == <RenderStills as flatrender_engine::Activity>::NAME)
        .then(|| serde_json::from_value(lease.input.clone()).ok())
        .flatten()
}

/// Checks the output of a task: a real frame, stored as reported, a whole PNG of the planned size. Placeholders are the mock's alone.
///
/// # Errors
/// `node.bad_output`
pub async fn check(app: &App, lease: &Lease, task: &RenderStills, output: &Value) -> Result<(), Problem> {
    match serde_json::from_value(output.clone()) {
        Ok(Still::Rendered(rendered)) => check_stored(app, lease, task, &rendered).await,
        Ok(Still::Placeholder(_)) => Err(bad("a picture is stored, not told in the address")),
        Err(error) => Err(bad(error.to_string())),
    }
}

async fn check_stored(app: &App, lease: &Lease, task: &RenderStills, still: &RenderedStill) -> Result<(), Problem> {
    let (most, longest) = WARNINGS;
    if still.warnings.len() > most || still.warnings.iter().any(|w| w.len() > longest) {
        return Err(bad(format!("at most {most} warnings of at most {longest} bytes")));
    }
    let shelf = leases::shelf(lease, &task.as_frames());
    let body = match app.storage.open(&shelf, &still.frame.sha256, None).await {
        Ok(body) if body.size_bytes == still.frame.size_bytes => body,
        Ok(_) | Err(StorageError::NotFound(_)) => return Err(bad("the frame is not stored as reported")),
        Err(error) => return Err(error.into()),
    };
    let png = body.stream.try_fold(Vec::new(), async |mut png, chunk| {
        png.extend_from_slice(&chunk);
        Ok(png)
    });
    let png = png.await.map_err(|e| Problem::internal(&e))?;
    let (hash, size) = (still.frame.sha256.clone(), task.size);
    let sound = tokio::task::spawn_blocking(move || BlobHash::of(&png) == hash && frame::check(&png, size).is_ok());
    // A decoder that panics has met a file it cannot read.
    if sound.await.unwrap_or(false) { Ok(()) } else { Err(bad("the frame is no whole PNG of the planned size")) }
}

fn bad(detail: impl Into<Cow<'static, str>>) -> Problem {
    Problem::new(Code::NodeBadOutput, detail)
}
