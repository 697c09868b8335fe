//! A submitted render becomes a finished video.
//!
//! ```text
//! begin ─▶ plan ─┬─▶ take kept scenes ──────────────────────────────────────────────────────────┐
//!                ├─▶ chunk 0: render ─▶ verify ─▶ (repair) ─▶ accept ─┬▶ encode parts ─▶ (keep) ─┤
//!                ├─▶ chunk n: …                                       ┘                          ├─▶ assemble ─▶ check ─▶ publish ─▶ settle ─▶ tidy
//!                └─▶ mix audio ──────────────────────────────────────────────────────────────────┘
//! ```
//!
//! How frames come to be proven, and what happens to those that are lost afterwards, is in `frames`; how the film is published, and what is
//! made of it then, in `publish`.

mod frames;
mod hunt;
mod publish;
mod second;

pub use publish::derive_of_abandoned;

use super::{
    events,
    limit::{self, Limits},
};
use crate::{
    contracts::{
        media::{
            AssembleVideo, ClearShelf, DrawContactSheet, EncodePart, EncodedPart, KeepScene, KeptScene, MixAudio,
            MixedAudio, PART_LOST, ProbedVideo, TakeScenes, VerifyVideo,
        },
        render::{FrameRange, FrameRef, Pace},
        storage::BlobRef,
    },
    models::{
        Db, Role, Scope,
        render::{
            frame_attempt,
            frame_job::{self, Accepted},
            plan::{self, Chunk, Plan, Stretch},
            render_job::{self, Begun},
            scene_cache::{self, NewScene, Reused},
            spec::FilmKind,
        },
    },
};
use flatrender_engine::{Context, Failure, Workflow};
use frames::{Frames, MOST_USES};
use futures::{
    future::try_join,
    stream::{FuturesUnordered, TryStreamExt},
};
use publish::publish;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// Turns a submitted render into a finished video. A video is published only when ffprobe agrees with the plan.
///
/// A film belongs to the run that it was submitted with: a copy of that run settles nothing, and whoever wants a failed film orders it
/// anew.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenderVideo {
    /// The render.
    pub render_id: Uuid,
    /// What it is made for: its work is done in that order.
    #[serde(default)]
    pub kind: FilmKind,
    /// How long it may take, in seconds; the usual time when it was ordered before that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_seconds: Option<u64>,
}

impl RenderVideo {
    /// A film that is ordered while these limits are set.
    pub fn new(render_id: Uuid, kind: FilmKind, limits: Limits) -> Self {
        Self { render_id, kind, limit_seconds: Some(limits.of(kind).as_secs()) }
    }

    fn limit(&self) -> Duration {
        self.limit_seconds.map_or_else(|| Limits::default().of(self.kind), Duration::from_secs)
    }
}

/// Frames shown on the contact sheet.
const SHEET_FRAMES: u32 = 12;

impl Workflow for RenderVideo {
    const NAME: &'static str = "render_video";
    type Output = Uuid;

    fn priority(&self) -> i16 {
        self.kind.priority()
    }

    async fn run(self, cx: &Context) -> Result<Uuid, Failure> {
        let (id, limit) = (self.render_id, self.limit());
        let film = match limit::within(cx, "limit", limit, make(cx, id)).await {
            Ok(made) => publish(cx, id, limit, made).await,
            Err(failure) => Err(failure),
        };
        let outcome = film.clone().map(drop);
        let (scope, run_id) = (films(cx), cx.run_id());
        let settle = async move |db: Db<'_>| {
            let settle = async |db: Db<'_>| match render_job::settle(db, id, run_id, outcome.as_ref().copied()).await? {
                true => Ok(()),
                false => {
                    Err(Failure::permanent("render.of_another_run", format!("render {id} is made by another run")))
                }
            };
            scope.within(&mut *db, settle).await?;
            let workflows = cx.client()?;
            events::render_ended(&workflows, &mut *db, id).await?;
            Ok(events::gifts_earned(&workflows, db, cx.tenant_id()).await?)
        };
        cx.step("settle", settle).await?;
        if let Ok(export_id) = &film {
            // The film is finished, whether or not more is made of it.
            let _ = publish::derive(cx, id, *export_id).await;
        }
        // Whatever is left on the render's shelf costs only space; the film stands as it was settled.
        let _ = cx.activity("tidy", ClearShelf { render_id: id }).await;
        film
    }
}

/// The rows that a film's steps work on.
fn films(cx: &Context) -> Scope {
    Scope::tenant(Role::Render, cx.tenant_id())
}

/// A film that is as it was planned, and what it was joined from.
struct Made {
    job: Begun,
    parts: Vec<Part>,
    audio: MixedAudio,
    video: BlobRef,
    probed: ProbedVideo,
    sheet: BlobRef,
}

/// From the frozen input to the proven film.
async fn make(cx: &Context, id: Uuid) -> Result<Made, Failure> {
    let scope = films(cx);
    let begin = async move |db: Db<'_>| scope.within(db, async |db: Db<'_>| render_job::begin(db, id).await).await;
    let job = cx.step("begin", begin).await?;
    let plan = plan(cx, id, &job).await?;
    let (parts, audio) = try_join(render(cx, id, &job, &plan), mix_audio(cx, id, &job, FIRST)).await?;
    join(cx, id, &job, parts, audio, FIRST).await
}

/// Joins what a film is made of, and has the whole proven.
async fn join(
    cx: &Context,
    id: Uuid,
    job: &Begun,
    parts: Vec<Part>,
    audio: MixedAudio,
    time: &str,
) -> Result<Made, Failure> {
    let (video, parts, audio) = assemble(cx, id, job, parts, audio, time).await?;
    let (probed, sheet) = try_join(verify(cx, job, &video, time), draw_sheet(cx, job, &video, time)).await?;
    Ok(Made { job: job.clone(), parts, audio, video, probed, sheet })
}

/// Divides the film by what is known of the template's pace, and along its scenes when those may be kept.
async fn plan(cx: &Context, id: Uuid, job: &Begun) -> Result<Plan, Failure> {
    let (tenant, version, spec, scope) = (job.tenant_id, job.project_version_id, job.spec.clone(), films(cx));
    let make = async move |db: Db<'_>| {
        let make = async |db: Db<'_>| -> Result<Plan, Failure> {
            // A template may be many tenants'; how fast it is is nobody's secret.
            Scope::platform(Role::Render).enter(&mut *db).await?;
            let pace = frame_attempt::pace(&mut *db, version, spec.size).await?;
            let renderer = if spec.keeps_scenes() { scene_cache::renderer(&mut *db, spec.engine).await? } else { None };
            scope.enter(&mut *db).await?;
            let plan = match renderer {
                Some(renderer) => {
                    let keys: Vec<_> = spec.segments.iter().map(|s| s.key(&renderer)).collect();
                    let kept = scene_cache::find(&mut *db, tenant, &keys).await?;
                    plan::plan_scenes(&spec, pace, &renderer, &kept)
                }
                None => plan::plan(&spec, pace),
            };
            frame_job::plan(db, tenant, id, &plan.chunks().copied().collect::<Vec<_>>()).await?;
            Ok(plan)
        };
        scope.within(db, make).await
    };
    cx.step("plan", make).await
}

/// What all of these give, in their order. The first that fails ends it, and what the others wait for is taken back.
async fn all<T>(work: impl IntoIterator<Item = impl Future<Output = Result<T, Failure>>>) -> Result<Vec<T>, Failure> {
    let numbered = work.into_iter().enumerate();
    let numbered = numbered.map(|(n, work)| async move { work.await.map(|made| (n, made)) });
    let mut done: Vec<(usize, T)> = numbered.collect::<FuturesUnordered<_>>().try_collect().await?;
    done.sort_by_key(|(n, _)| *n);
    Ok(done.into_iter().map(|(_, made)| made).collect())
}

/// An encoded part of the film, and where it comes from.
#[derive(Debug, Clone)]
struct Part {
    encoded: EncodedPart,
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    /// A scene that was kept.
    Scene(KeptScene),
    /// Frames on the film's shelf.
    Frames { range: FrameRange, frames: Vec<FrameRef> },
}

/// What a film and its parts are made for the first time is called in its history.
const FIRST: &str = "";
/// What is added when parts and sound were lost.
const AGAIN: &str = "_again";

/// Takes what is kept, and makes every other stretch of the film on whichever nodes are free; gives its parts in order.
async fn render(cx: &Context, id: Uuid, job: &Begun, plan: &Plan) -> Result<Vec<Part>, Failure> {
    let taken = take(cx, id, job, plan).await?;
    let make = async |stretch: &Stretch| match &stretch.kept {
        Some(kept) if taken.contains(kept) => {
            Ok(vec![Part { encoded: kept.part.clone(), source: Source::Scene(kept.clone()) }])
        }
        _ => make_stretch(cx, id, job, plan, stretch).await,
    };
    Ok(all(plan.stretches.iter().map(make)).await?.concat())
}

/// Takes kept scenes and accepts their frames. What is not there any more is rendered like the rest.
async fn take(cx: &Context, id: Uuid, job: &Begun, plan: &Plan) -> Result<Vec<KeptScene>, Failure> {
    let kept: Vec<(u32, KeptScene)> =
        plan.stretches.iter().filter_map(|s| Some((s.chunks.first()?.no, s.kept.clone()?))).collect();
    if kept.is_empty() {
        return Ok(vec![]);
    }
    let scenes = kept.iter().map(|(_, scene)| scene.clone()).collect();
    // What cannot be taken is rendered like the rest.
    let taken = match cx.activity("take_scenes", TakeScenes { render_id: id, scenes }).await {
        Ok(there) => there.taken,
        Err(failure) if failure.is_cancelled() => return Err(failure),
        Err(_) => return Ok(vec![]),
    };
    let (tenant_id, size, scope) = (job.tenant_id, job.spec.size, films(cx));
    let reuse = async move |db: Db<'_>| {
        let reuse = async |db: Db<'_>| -> Result<Vec<KeptScene>, Failure> {
            let mut accepted = vec![];
            for (chunk_no, scene) in kept.iter().filter(|(_, scene)| taken.contains(scene)) {
                let reused = Reused { tenant_id, render_id: id, chunk_no: *chunk_no, scene, size };
                if scene_cache::accept(&mut *db, &reused).await? {
                    accepted.push(scene.clone());
                }
            }
            Ok(accepted)
        };
        scope.within(db, reuse).await
    };
    cx.step("reuse", reuse).await
}

/// Renders the chunks of a stretch, then encodes its parts.
async fn make_stretch(
    cx: &Context,
    id: Uuid,
    job: &Begun,
    plan: &Plan,
    stretch: &Stretch,
) -> Result<Vec<Part>, Failure> {
    let chunks = stretch.chunks.iter().map(|chunk| render_chunk(cx, id, job, plan.pace, *chunk));
    let frames = all(chunks).await?.concat();
    let parts = stretch.parts.iter().map(|part| encode_part(cx, id, job, *part, &frames, &[], FIRST));
    let parts = all(parts).await?;
    if let (Some(renderer), Some(key), [frames], [part]) =
        (&plan.renderer, &stretch.key, &stretch.parts[..], &parts[..])
    {
        // Whether it is kept costs only time, another day.
        let _ = keep(cx, id, job, renderer, KeptScene { key: key.clone(), part: part.encoded.clone() }, *frames).await;
    }
    Ok(parts)
}

/// Keeps an encoded scene for other films of the tenant.
async fn keep(
    cx: &Context,
    id: Uuid,
    job: &Begun,
    renderer: &str,
    scene: KeptScene,
    frames: FrameRange,
) -> Result<(), Failure> {
    cx.activity(&format!("keep:{}", frames.first), KeepScene { render_id: id, scene: scene.clone() }).await?;
    let (tenant_id, run_id, spec, renderer) = (job.tenant_id, cx.run_id(), job.spec.clone(), renderer.to_owned());
    let keep = async move |db: Db<'_>| {
        let keep = async |db: Db<'_>| -> Result<(), Failure> {
            let spoiled = frame_job::spoiled(&mut *db, tenant_id, run_id, id).await?;
            let is_spoiled = spoiled.iter().any(|frame| frames.contains(*frame));
            let (scene, renderer, spec) = (&scene, &renderer, &spec);
            // Nodes serve many tenants and are nobody's rows.
            Scope::platform(Role::Render).enter(&mut *db).await?;
            let new = NewScene { tenant_id, render_id: id, frames, scene, renderer, spec, is_spoiled };
            Ok(scene_cache::keep(db, &new).await?)
        };
        Scope::tenant(Role::Render, tenant_id).within(db, keep).await
    };
    cx.step(&format!("kept:{}", frames.first), keep).await
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
    let mut worthless = vec![];
    for again in 1..=MOST_USES {
        frames.prove_without(&worthless).await?;
        let key = if again == 1 { format!("accept:{}", chunk.no) } else { format!("accept:{}:{again}", chunk.no) };
        // Films of which this was recorded before kept frames were looked at here have recorded that none was worthless.
        match accept(cx, id, job, chunk, &key, &frames).await? {
            None => return Ok(frames.list()),
            Some(found) => worthless = found,
        }
    }
    Err(frames::repair_exhausted(&worthless, &[]))
}

/// Accepts the frames of a chunk. None is accepted when some turn out to be worthless: their numbers.
async fn accept(
    cx: &Context,
    id: Uuid,
    job: &Begun,
    chunk: Chunk,
    key: &str,
    frames: &Frames<'_>,
) -> Result<Option<Vec<u32>>, Failure> {
    let (tenant_id, run_id, size, scope) = (job.tenant_id, cx.run_id(), job.spec.size, films(cx));
    let (accepted, kept, flags) = (frames.list(), frames.kept(), frames.flags().clone());
    let accept = async move |db: Db<'_>| {
        let new = Accepted {
            tenant_id,
            render_id: id,
            run_id,
            chunk_no: chunk.no,
            frames: &accepted,
            kept: &kept,
            size,
            flags: &flags,
        };
        scope.within(db, async |db: Db<'_>| frame_job::accept(db, &new).await).await
    };
    cx.step(key, accept).await
}

/// Encodes a part of these frames, for the first time or again; those of them that are spoiled are rendered anew before.
async fn encode_part(
    cx: &Context,
    id: Uuid,
    job: &Begun,
    part: FrameRange,
    of: &[FrameRef],
    spoiled: &[u32],
    time: &str,
) -> Result<Part, Failure> {
    let spec = &job.spec;
    let own: Vec<FrameRef> = of.iter().filter(|f| part.contains(f.frame)).cloned().collect();
    let encode = |frames| EncodePart {
        render_id: id,
        frames,
        size: spec.size,
        fps: spec.fps,
        profile: spec.profile,
        watermark: spec.watermark.clone(),
    };
    let key = format!("part{}{time}", part.first);
    let mut frames = Frames::proven(cx, id, job, &key, own.clone());
    let spoiled: Vec<u32> = spoiled.iter().copied().filter(|frame| part.contains(*frame)).collect();
    frames.prove_without(&spoiled).await?;
    let encoded = frames.used_by(&format!("encode{time}:{}", part.first), encode).await?;
    // A renderer may paint a frame a little otherwise each time: the film's record names what is in it. One that was spoiled is another's
    // now, even if it has come out alike.
    let is_other = |f: &FrameRef| !own.contains(f) || spoiled.contains(&f.frame);
    let others: Vec<FrameRef> = frames.list().into_iter().filter(is_other).collect();
    if !others.is_empty() {
        let (tenant_id, scope, kept) = (job.tenant_id, films(cx), frames.kept());
        let replace = async move |db: Db<'_>| {
            let replace = async |db: Db<'_>| Ok(frame_job::replace(db, tenant_id, id, &others, &kept).await?);
            scope.within(db, replace).await
        };
        cx.step(&format!("replaced{time}:{}", part.first), replace).await?;
    }
    Ok(Part { encoded, source: Source::Frames { range: part, frames: frames.list() } })
}

async fn mix_audio(cx: &Context, id: Uuid, job: &Begun, time: &str) -> Result<MixedAudio, Failure> {
    let spec = &job.spec;
    let mix = MixAudio {
        render_id: id,
        frames: spec.frames,
        fps: spec.fps,
        tracks: spec.tracks.clone(),
        ducking: spec.ducking,
    };
    cx.activity(&format!("mix_audio{time}"), mix).await
}

/// Joins parts and sound: the video, and what it is of in the end. When some of them are lost by then, as after a power cut, all are made
/// again, once: what they are made of is there until the film ends, or can be rendered.
async fn assemble(
    cx: &Context,
    id: Uuid,
    job: &Begun,
    parts: Vec<Part>,
    audio: MixedAudio,
    time: &str,
) -> Result<(BlobRef, Vec<Part>, MixedAudio), Failure> {
    let assembled = cx.activity(&format!("assemble{time}"), joined(id, job, &parts, &audio)).await;
    let lost = assembled.as_ref().is_err_and(|failure| failure.code == PART_LOST);
    if !lost || !cx.patched("lost parts are made again").await {
        return assembled.map(|video| (video, parts, audio));
    }
    let time = format!("{AGAIN}{time}");
    let (parts, audio) = try_join(make_again(cx, id, job, &parts, &time), mix_audio(cx, id, job, &time)).await?;
    let video = cx.activity(&format!("assemble{time}"), joined(id, job, &parts, &audio)).await?;
    Ok((video, parts, audio))
}

fn joined(id: Uuid, job: &Begun, parts: &[Part], audio: &MixedAudio) -> AssembleVideo {
    let parts = parts.iter().map(|part| part.encoded.clone()).collect();
    AssembleVideo { render_id: id, parts, audio: audio.clone(), frames: job.spec.frames, fps: job.spec.fps }
}

/// Takes scenes that were kept once more, and encodes every other part again. A scene that is lost with its kept copy is not made anew:
/// the film ends.
async fn make_again(cx: &Context, id: Uuid, job: &Begun, parts: &[Part], time: &str) -> Result<Vec<Part>, Failure> {
    let kept = |part: &Part| match &part.source {
        Source::Scene(scene) => Some(scene.clone()),
        Source::Frames { .. } => None,
    };
    let scenes: Vec<KeptScene> = parts.iter().filter_map(kept).collect();
    if !scenes.is_empty() {
        // Those that are still there need not be taken.
        let _ = cx.activity(&format!("take_scenes{time}"), TakeScenes { render_id: id, scenes }).await;
    }
    let again = async |part: &Part| match &part.source {
        Source::Scene(_) => Ok(part.clone()),
        Source::Frames { range, frames } => encode_part(cx, id, job, *range, frames, &[], time).await,
    };
    all(parts.iter().map(again)).await
}

/// Has the stored film proven by ffprobe.
async fn verify(cx: &Context, job: &Begun, video: &BlobRef, time: &str) -> Result<ProbedVideo, Failure> {
    let spec = &job.spec;
    let verify = VerifyVideo { video: video.clone(), frames: spec.frames, fps: spec.fps, size: spec.size };
    cx.activity(&format!("verify_video{time}"), verify).await
}

async fn draw_sheet(cx: &Context, job: &Begun, video: &BlobRef, time: &str) -> Result<BlobRef, Failure> {
    let count = SHEET_FRAMES.min(job.spec.frames);
    // The middle of each of `count` equal stretches: the first and last frames are often empty.
    let middle = |n: u32| (2 * n + 1) * job.spec.frames / (2 * count);
    let frames = (0..count).map(middle).collect();
    let upright = job.spec.size[1] > job.spec.size[0];
    let (columns, tile_width) = if upright { (6, 270) } else { (4, 480) };
    let draw = DrawContactSheet { video: video.clone(), frames, columns, tile_width };
    cx.activity(&format!("contact_sheet{time}"), draw).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt, future};
    use serde_json::json;

    #[test]
    fn a_film_keeps_the_limit_that_was_set_when_it_was_ordered() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let limits = Limits { film: hours(96), ..Limits::default() };
        let ordered = serde_json::to_value(RenderVideo::new(Uuid::nil(), FilmKind::Final, limits)).unwrap();
        let ordered: RenderVideo = serde_json::from_value(ordered).unwrap();
        assert_eq!(ordered.limit(), hours(96));
        let before: RenderVideo = serde_json::from_value(json!({"render_id": Uuid::nil()})).unwrap();
        assert_eq!((before.limit(), before.limit_seconds), (hours(12), None));
    }

    #[test]
    fn a_failure_ends_all_however_many_still_wait() {
        let work = |n: usize| async move {
            match n {
                99 => Err(Failure::permanent("test.refused", "as told")),
                _ => future::pending().await,
            }
        };
        let ended: Option<Result<Vec<()>, _>> = all((0..100).map(work)).now_or_never();
        assert_eq!(ended.expect("nobody is waited for").unwrap_err().code, "test.refused");
        assert_eq!(
            all((0..50).map(|n| future::ready(Ok(n)))).now_or_never().unwrap().unwrap(),
            (0..50).collect::<Vec<_>>()
        );
    }
}
