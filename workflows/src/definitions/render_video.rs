//! A submitted render becomes a finished video.
//!
//! ```text
//! begin ─▶ plan ─┬─▶ chunk 0: render ─▶ verify ─▶ (repair) ─▶ accept ─▶ encode ─┐
//!                ├─▶ chunk n: …                                                 ├─▶ assemble ─▶ check ─▶ publish ─▶ settle ─▶ tidy
//!                └─▶ mix audio ─────────────────────────────────────────────────┘
//! ```

use crate::{
    contracts::{
        media::{
            AssembleVideo, ClearShelf, DrawContactSheet, EncodePart, EncodedPart, MixAudio, MixedAudio, ProbedVideo,
            VerifyFrames, VerifyVideo,
        },
        render::{FaultReason, FrameFault, FrameRange, FrameRef, RenderFrames},
        storage::BlobRef,
    },
    models::{
        Db,
        render::{
            export::{self, NewExport},
            frame_job,
            render_job::{self, Begun},
        },
    },
};
use flatrender_engine::{Context, Failure, Workflow};
use futures::future::{try_join, try_join_all};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Turns a submitted render into a finished video. A video is published only when ffprobe agrees with the plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenderVideo {
    /// The render.
    pub render_id: Uuid,
}

/// How often in a row missing frames of a chunk are rendered again without proving a single one. A node that drains
/// gives its chunk back with the frames it has: that is progress, not failure.
const FRUITLESS_ROUNDS: u32 = 3;
/// Frames shown on the contact sheet.
const SHEET_FRAMES: u32 = 12;

impl Workflow for RenderVideo {
    const NAME: &'static str = "render_video";
    type Output = Uuid;

    async fn run(self, cx: &Context) -> Result<Uuid, Failure> {
        let id = self.render_id;
        let film = produce(cx, id).await;
        let outcome = film.clone().map(drop);
        cx.step("settle", async move |db: Db<'_>| Ok(render_job::settle(db, id, outcome.as_ref().copied()).await?))
            .await?;
        // Whatever is left on the render's shelf costs only space; the film stands as it was settled.
        let _ = cx.activity("tidy", ClearShelf { render_id: id }).await;
        film
    }
}

/// From the frozen input to the published film.
async fn produce(cx: &Context, id: Uuid) -> Result<Uuid, Failure> {
    let job = cx.step("begin", async move |db: Db<'_>| render_job::begin(db, id).await).await?;
    let chunks = job.spec.chunks();
    let planned = chunks.clone();
    let tenant = job.tenant_id;
    cx.step("plan", async move |db: Db<'_>| Ok(frame_job::plan(db, tenant, id, &planned).await?)).await?;
    let (chunks, audio) = try_join(render_chunks(cx, id, &job, &chunks), mix_audio(cx, id, &job)).await?;
    let (frames, parts): (Vec<_>, Vec<_>) = chunks.into_iter().unzip();
    let (video, sheet) =
        try_join(assemble(cx, id, &job, parts, audio), draw_sheet(cx, id, &job, frames.concat())).await?;
    publish(cx, id, &job, video, sheet).await
}

/// Renders every chunk on whichever nodes are free; gives their frames and encoded parts in order.
async fn render_chunks(
    cx: &Context,
    id: Uuid,
    job: &Begun,
    chunks: &[FrameRange],
) -> Result<Vec<(Vec<FrameRef>, EncodedPart)>, Failure> {
    try_join_all(chunks.iter().enumerate().map(|(no, range)| render_chunk(cx, id, job, no, *range))).await
}

/// Renders one chunk until each of its frames is proven, then encodes it.
async fn render_chunk(
    cx: &Context,
    id: Uuid,
    job: &Begun,
    no: usize,
    range: FrameRange,
) -> Result<(Vec<FrameRef>, EncodedPart), Failure> {
    let frames = prove_frames(cx, id, job, no, range).await?;
    let (tenant, accepted) = (job.tenant_id, frames.clone());
    cx.step(&format!("accept:{no}"), async move |db: Db<'_>| {
        frame_job::accept(db, tenant, id, no as i32, &accepted).await
    })
    .await?;
    let spec = &job.spec;
    let encode =
        EncodePart { render_id: id, frames: frames.clone(), size: spec.size, fps: spec.fps, profile: spec.profile };
    let part = cx.activity(&format!("encode:{no}"), encode).await?;
    Ok((frames, part))
}

/// Renders and verifies; renders again only what is missing or bad.
async fn prove_frames(
    cx: &Context,
    id: Uuid,
    job: &Begun,
    no: usize,
    range: FrameRange,
) -> Result<Vec<FrameRef>, Failure> {
    let mut proven: BTreeMap<u32, FrameRef> = BTreeMap::new();
    let mut faults = vec![];
    let (mut round, mut fruitless) = (0, 0);
    while fruitless < FRUITLESS_ROUNDS {
        let missing = range.iter().filter(|f| !proven.contains_key(f)).collect::<Vec<_>>();
        let renders = stretches(&missing).into_iter().map(|r| render_range(cx, id, job, no, round, r));
        let frames = try_join_all(renders).await?.concat();
        let verify = VerifyFrames { render_id: id, frames: frames.clone(), size: job.spec.size };
        let verified = cx.activity(&format!("verify:{no}:{round}"), verify).await?;
        faults = verified.faults;
        let bad = |frame: &FrameRef| faults.iter().any(|f| f.frame == frame.frame);
        proven.extend(frames.into_iter().filter(|f| !bad(f)).map(|f| (f.frame, f)));
        if proven.len() == range.count() as usize {
            return Ok(proven.into_values().collect());
        }
        let progress = proven.len() + missing.len() > range.count() as usize;
        fruitless = if progress { 0 } else { fruitless + 1 };
        round += 1;
    }
    Err(repair_exhausted(range, &proven, &faults))
}

/// Renders one stretch of a chunk; keeps what the renderer warned of.
async fn render_range(
    cx: &Context,
    id: Uuid,
    job: &Begun,
    no: usize,
    round: u32,
    frames: FrameRange,
) -> Result<Vec<FrameRef>, Failure> {
    let spec = &job.spec;
    let work = RenderFrames {
        render_id: id,
        engine: spec.engine,
        package: spec.package.clone(),
        package_owner: spec.package_owner,
        composition: spec.composition.clone(),
        frames,
        data: spec.data.clone(),
        assets: spec.assets.clone(),
        size: spec.size,
        fps: spec.fps,
    };
    let key = format!("{no}:{round}:{}", frames.first);
    let rendered = cx.activity(&format!("render:{key}"), work).await?;
    if !rendered.warnings.is_empty() {
        let warnings = rendered.warnings;
        cx.step(&format!("warn:{key}"), async move |db: Db<'_>| Ok(render_job::warn(db, id, &warnings).await?)).await?;
    }
    Ok(rendered.frames)
}

/// Consecutive stretches of ascending frame numbers.
fn stretches(frames: &[u32]) -> Vec<FrameRange> {
    let mut stretches: Vec<FrameRange> = vec![];
    for &frame in frames {
        match stretches.last_mut() {
            Some(last) if last.last + 1 == frame => last.last = frame,
            _ => stretches.push(FrameRange { first: frame, last: frame }),
        }
    }
    stretches
}

fn repair_exhausted(range: FrameRange, proven: &BTreeMap<u32, FrameRef>, faults: &[FrameFault]) -> Failure {
    let missing: Vec<u32> = range.iter().filter(|f| !proven.contains_key(f)).collect();
    let reason = |frame: u32| faults.iter().find(|f| f.frame == frame).map_or(FaultReason::Missing, |f| f.reason);
    let named: Vec<_> = missing.iter().take(100).map(|f| json!({"frame": f, "reason": reason(*f)})).collect();
    let message = format!("frame {} could not be rendered in {FRUITLESS_ROUNDS} rounds", missing[0]);
    Failure::permanent("render.repair_exhausted", message).with_details(json!({ "frames": named }))
}

async fn mix_audio(cx: &Context, id: Uuid, job: &Begun) -> Result<MixedAudio, Failure> {
    let spec = &job.spec;
    let mix = MixAudio {
        render_id: id,
        frames: spec.frames,
        fps: spec.fps,
        tracks: spec.tracks.clone(),
        ducking: spec.ducking,
    };
    cx.activity("mix_audio", mix).await
}

/// Joins parts and sound, and has the stored film proven by ffprobe.
async fn assemble(
    cx: &Context,
    id: Uuid,
    job: &Begun,
    parts: Vec<EncodedPart>,
    audio: MixedAudio,
) -> Result<(BlobRef, ProbedVideo), Failure> {
    let spec = &job.spec;
    let assemble = AssembleVideo { render_id: id, parts, audio, frames: spec.frames, fps: spec.fps };
    let video = cx.activity("assemble", assemble).await?;
    let verify = VerifyVideo { video: video.clone(), frames: spec.frames, fps: spec.fps, size: spec.size };
    let probed = cx.activity("verify_video", verify).await?;
    Ok((video, probed))
}

async fn draw_sheet(cx: &Context, id: Uuid, job: &Begun, frames: Vec<FrameRef>) -> Result<BlobRef, Failure> {
    let count = SHEET_FRAMES.min(frames.len() as u32);
    // The middle of each of `count` equal stretches: the first and last frames are often empty.
    let middle = |n: u32| frames[((2 * n + 1) as usize * frames.len()) / (2 * count as usize)].clone();
    let shown = (0..count).map(middle).collect();
    let upright = job.spec.size[1] > job.spec.size[0];
    let (columns, tile_width) = if upright { (6, 270) } else { (4, 480) };
    cx.activity("contact_sheet", DrawContactSheet { render_id: id, frames: shown, columns, tile_width }).await
}

/// From here on the film can no longer be cancelled.
async fn publish(
    cx: &Context,
    id: Uuid,
    job: &Begun,
    (video, probed): (BlobRef, ProbedVideo),
    sheet: BlobRef,
) -> Result<Uuid, Failure> {
    let (tenant_id, profile) = (job.tenant_id, job.spec.profile);
    cx.step("publish", async move |db: Db<'_>| {
        let new = NewExport { tenant_id, render_id: id, profile, video: &video, sheet: &sheet, probed: &probed };
        export::publish(db, &new).await
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contracts::storage::BlobHash;

    #[test]
    fn only_missing_frames_are_rendered_again() {
        let range = |first, last| FrameRange { first, last };
        assert_eq!(stretches(&[3, 4, 5, 9, 11, 12]), [range(3, 5), range(9, 9), range(11, 12)]);
        assert!(stretches(&[]).is_empty());
    }

    #[test]
    fn a_frame_that_cannot_be_rendered_is_named() {
        let blob = BlobRef { sha256: BlobHash::of(b"x"), size_bytes: 1 };
        let proven = BTreeMap::from([(0, FrameRef { frame: 0, blob })]);
        let faults = [FrameFault { frame: 1, reason: FaultReason::Corrupt }];
        let failure = repair_exhausted(FrameRange { first: 0, last: 1 }, &proven, &faults);
        assert_eq!(failure.code, "render.repair_exhausted");
        assert_eq!(failure.details["frames"][0]["frame"], 1);
        assert_eq!(failure.details["frames"][0]["reason"], "corrupt");
    }
}
