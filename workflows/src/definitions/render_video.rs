//! A submitted render becomes a finished video.
//!
//! ```text
//! begin ─▶ plan ─┬─▶ chunk 0: render ─▶ verify ─▶ (repair) ─▶ accept ─┬▶ encode its parts ─┐
//!                ├─▶ chunk n: …                                       ┘                    ├─▶ assemble ─▶ check ─▶ publish ─▶ settle ─▶ tidy
//!                └─▶ mix audio ────────────────────────────────────────────────────────────┘
//! ```
//!
//! How frames come to be proven, and what happens to those that are lost afterwards, is in `frames`.

mod frames;
mod hunt;

use crate::{
    contracts::{
        media::{
            AssembleVideo, ClearShelf, DrawContactSheet, EncodePart, EncodedPart, MixAudio, MixedAudio, ProbedVideo,
            VerifyVideo,
        },
        render::{FrameRange, FrameRef, Pace},
        storage::BlobRef,
    },
    models::{
        Db, Role, Scope,
        render::{
            export::{self, NewExport},
            frame_attempt,
            frame_job::{self, Accepted},
            plan::{self, Chunk, Plan, Stretch},
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
    let plan = plan(cx, id, &job).await?;
    let (made, audio) = try_join(render(cx, id, &job, &plan), mix_audio(cx, id, &job)).await?;
    let (frames, parts): (Vec<_>, Vec<_>) = made.into_iter().unzip();
    let (video, sheet) =
        try_join(assemble(cx, id, &job, parts.concat(), audio), draw_sheet(cx, id, &job, frames.concat())).await?;
    publish(cx, id, &job, video, sheet).await
}

/// Divides the film by what is known of the template's pace.
async fn plan(cx: &Context, id: Uuid, job: &Begun) -> Result<Plan, Failure> {
    let (tenant, version, spec, scope) = (job.tenant_id, job.project_version_id, job.spec.clone(), films(cx));
    let make = async move |db: Db<'_>| {
        let make = async |db: Db<'_>| -> Result<Plan, Failure> {
            // A template may be many tenants'; how fast it is is nobody's secret.
            Scope::platform(Role::Render).enter(&mut *db).await?;
            let pace = frame_attempt::pace(&mut *db, version, spec.size).await?;
            scope.enter(&mut *db).await?;
            let plan = plan::plan(&spec, pace);
            frame_job::plan(db, tenant, id, &plan.chunks().copied().collect::<Vec<_>>()).await?;
            Ok(plan)
        };
        scope.within(db, make).await
    };
    cx.step("plan", make).await
}

/// Frames and encoded parts of a stretch, each in order.
type Made = (Vec<FrameRef>, Vec<EncodedPart>);

/// Makes every stretch of the film on whichever nodes are free.
async fn render(cx: &Context, id: Uuid, job: &Begun, plan: &Plan) -> Result<Vec<Made>, Failure> {
    try_join_all(plan.stretches.iter().map(|stretch| make_stretch(cx, id, job, plan.pace, stretch))).await
}

/// Renders the chunks of a stretch, then encodes its parts.
async fn make_stretch(
    cx: &Context,
    id: Uuid,
    job: &Begun,
    pace: Option<Pace>,
    stretch: &Stretch,
) -> Result<Made, Failure> {
    let chunks = stretch.chunks.iter().map(|chunk| render_chunk(cx, id, job, pace, *chunk));
    let frames = try_join_all(chunks).await?.concat();
    let parts = stretch.parts.iter().map(|part| encode_part(cx, id, job, *part, &frames));
    let parts = try_join_all(parts).await?;
    Ok((frames, parts))
}

/// Renders one chunk until each of its frames is proven, and accepts them.
async fn render_chunk(
    cx: &Context,
    id: Uuid,
    job: &Begun,
    pace: Option<Pace>,
    chunk: Chunk,
) -> Result<Vec<FrameRef>, Failure> {
    let mut frames = Frames::missing(cx, id, job, pace, &chunk.no.to_string(), chunk.frames);
    frames.prove().await?;
    let (tenant_id, size, scope) = (job.tenant_id, job.spec.size, films(cx));
    let (accepted, flags) = (frames.list(), frames.flags().clone());
    let accept = async move |db: Db<'_>| {
        let new = Accepted { tenant_id, render_id: id, chunk_no: chunk.no, frames: &accepted, size, flags: &flags };
        scope.within(db, async |db: Db<'_>| frame_job::accept(db, &new).await).await
    };
    cx.step(&format!("accept:{}", chunk.no), accept).await?;
    Ok(frames.list())
}

async fn encode_part(
    cx: &Context,
    id: Uuid,
    job: &Begun,
    part: FrameRange,
    of: &[FrameRef],
) -> Result<EncodedPart, Failure> {
    let spec = &job.spec;
    let own = of.iter().filter(|f| part.contains(f.frame)).cloned().collect();
    let encode = |frames| EncodePart { render_id: id, frames, size: spec.size, fps: spec.fps, profile: spec.profile };
    let key = format!("part{}", part.first);
    Frames::proven(cx, id, job, &key, own).used_by(&format!("encode:{}", part.first), encode).await
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
