//! A submitted render becomes a finished video.
//!
//! ```text
//! begin ─▶ plan ─┬─▶ chunk 0: render ─▶ verify ─▶ (repair) ─▶ accept ─▶ encode ─┐
//!                ├─▶ chunk n: …                                                 ├─▶ assemble ─▶ check ─▶ publish ─▶ settle ─▶ tidy
//!                └─▶ mix audio ─────────────────────────────────────────────────┘
//! ```
//!
//! How frames come to be proven, and what happens to those that are lost afterwards, is in `frames`.

mod frames;

use crate::{
    contracts::{
        media::{
            AssembleVideo, ClearShelf, DrawContactSheet, EncodePart, EncodedPart, MixAudio, MixedAudio, ProbedVideo,
            VerifyVideo,
        },
        render::{FrameRange, FrameRef},
        storage::BlobRef,
    },
    models::{
        Db, Role, Scope,
        render::{
            export::{self, NewExport},
            frame_job,
            render_job::{self, Begun},
        },
    },
};
use flatrender_engine::{Context, Failure, Workflow};
use frames::Frames;
use futures::future::{try_join, try_join_all};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Turns a submitted render into a finished video. A video is published only when ffprobe agrees with the plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenderVideo {
    /// The render.
    pub render_id: Uuid,
}

/// Frames shown on the contact sheet.
const SHEET_FRAMES: u32 = 12;

impl Workflow for RenderVideo {
    const NAME: &'static str = "render_video";
    type Output = Uuid;

    async fn run(self, cx: &Context) -> Result<Uuid, Failure> {
        let id = self.render_id;
        let film = produce(cx, id).await;
        let outcome = film.clone().map(drop);
        let scope = films(cx);
        cx.step("settle", async move |db: Db<'_>| {
            scope.within(db, async |db: Db<'_>| Ok(render_job::settle(db, id, outcome.as_ref().copied()).await?)).await
        })
        .await?;
        // Whatever is left on the render's shelf costs only space; the film stands as it was settled.
        let _ = cx.activity("tidy", ClearShelf { render_id: id }).await;
        film
    }
}

/// The rows that a film's steps work on.
fn films(cx: &Context) -> Scope {
    Scope::tenant(Role::Render, cx.tenant_id())
}

/// From the frozen input to the published film.
async fn produce(cx: &Context, id: Uuid) -> Result<Uuid, Failure> {
    let scope = films(cx);
    let begin = async move |db: Db<'_>| scope.within(db, async |db: Db<'_>| render_job::begin(db, id).await).await;
    let job = cx.step("begin", begin).await?;
    let chunks = job.spec.chunks();
    let planned = chunks.clone();
    let tenant = job.tenant_id;
    cx.step("plan", async move |db: Db<'_>| {
        scope.within(db, async |db: Db<'_>| Ok(frame_job::plan(db, tenant, id, &planned).await?)).await
    })
    .await?;
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

/// Renders one chunk until each of its frames is proven, accepts them, and encodes them.
async fn render_chunk(
    cx: &Context,
    id: Uuid,
    job: &Begun,
    no: usize,
    range: FrameRange,
) -> Result<(Vec<FrameRef>, EncodedPart), Failure> {
    let mut frames = Frames::missing(cx, id, job, &no.to_string(), range);
    frames.prove().await?;
    let (tenant, accepted) = (job.tenant_id, frames.list());
    let scope = films(cx);
    cx.step(&format!("accept:{no}"), async move |db: Db<'_>| {
        scope.within(db, async |db: Db<'_>| frame_job::accept(db, tenant, id, no as i32, &accepted).await).await
    })
    .await?;
    let spec = &job.spec;
    let encode = |frames| EncodePart { render_id: id, frames, size: spec.size, fps: spec.fps, profile: spec.profile };
    let part = frames.used_by(&format!("encode:{no}"), encode).await?;
    Ok((frames.list(), part))
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
    let draw = |frames| DrawContactSheet { render_id: id, frames, columns, tile_width };
    Frames::proven(cx, id, job, "sheet", shown).used_by("contact_sheet", draw).await
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
    let scope = films(cx);
    cx.step("publish", async move |db: Db<'_>| {
        let new = NewExport { tenant_id, render_id: id, profile, video: &video, sheet: &sheet, probed: &probed };
        scope.within(db, async |db: Db<'_>| export::publish(db, &new).await).await
    })
    .await
}
