//! Stills of one package that are rendered by one start of After Effects: they become the frames of one composition.
//!
//! ```text
//! tasks of a visit ─▶ alike: one project, prepared and rendered once ─▶ each frame to its own task ─▶ each task reported
//!        └─ others, and those without a frame ─▶ an attempt of their own
//! ```
//! Each task keeps its lease, its journal entry and its report. What goes wrong here is no failure of anybody's: whoever has no frame
//! is made alone, and that tells why.

use super::{
    attempt::forget,
    given::Given,
    journal::Entry,
    report::{Reported, report},
    stills::{self, Turns},
    transfer::Transfer,
    work::Node,
};
use crate::aerender::{FrameSink, Job, ProcessId, ProvenFrame, TransferError, prepare::Shot};
use flatrender_engine::{Activity, Failure};
use flatrender_workflows::contracts::{
    render::{Engine, FrameRange, FrameRef, RenderData, RenderFrames, RenderTiming, RenderedFrames},
    snapshot::RenderStills,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use uuid::Uuid;

/// Name of the composition that shows them; the script makes it.
const COMPOSITION: &str = "stills";

/// Those that can be rendered together, and all others.
pub fn sort(given: Vec<Arc<Given>>) -> (Vec<Vec<Arc<Given>>>, Vec<Arc<Given>>) {
    let mut reels: Vec<(RenderStills, Vec<Arc<Given>>)> = Vec::new();
    let mut alone = Vec::new();
    for one in given {
        let Some(still) = still(&one.entry) else {
            alone.push(one);
            continue;
        };
        match reels.iter_mut().find_map(|(all, of)| Some((joined(all, &still)?, all, of))) {
            Some((data, all, of)) => {
                all.data = data;
                of.push(one);
            }
            None => reels.push((still, vec![one])),
        }
    }
    let (reels, single): (Vec<_>, Vec<_>) = reels.into_iter().map(|(_, of)| of).partition(|of| of.len() > 1);
    alone.extend(single.into_iter().flatten());
    (reels, alone)
}

/// A still that After Effects is to render.
fn still(entry: &Entry) -> Option<RenderStills> {
    let is_still = entry.task.activity == RenderStills::NAME;
    let still = is_still.then(|| serde_json::from_value::<RenderStills>(entry.task.input.clone()).ok())?;
    still.filter(|still| still.engine == Engine::AfterEffects)
}

/// What both show together, if they can be shown together: each says the words of its own scene.
fn joined(one: &RenderStills, other: &RenderStills) -> Option<RenderData> {
    let bare = |still: &RenderStills| RenderData { texts: BTreeMap::new(), ..still.data.clone() };
    let alike = (&one.package, one.package_owner, one.size, one.fps)
        == (&other.package, other.package_owner, other.size, other.fps)
        && bare(one) == bare(other)
        && one.data.texts.iter().all(|(key, words)| other.data.texts.get(key).is_none_or(|others| others == words));
    let texts = one.data.texts.iter().chain(&other.data.texts).map(|(key, words)| (key.clone(), words.clone()));
    alike.then(|| RenderData { texts: texts.collect(), ..one.data.clone() })
}

/// A task of the reel.
struct Part {
    still: RenderStills,
    given: Arc<Given>,
}

/// Renders stills together and reports those that came out; gives the others. Dropping the future kills the renderer.
pub async fn make(node: Arc<Node>, given: Vec<Arc<Given>>, turns: Turns) -> Vec<Arc<Given>> {
    let part = |given: Arc<Given>| Some(Part { still: still(&given.entry)?, given });
    let parts: Arc<Vec<Part>> = Arc::new(given.into_iter().filter_map(part).collect());
    let folder = node.attempts().join(Uuid::new_v4().to_string());
    let reel = Arc::new(Reel { parts: parts.clone(), retry: node.config.retry, stored: Mutex::default() });
    let rendered = match render(&node, &parts, &reel, &folder, &turns).await {
        Ok(rendered) => rendered,
        Err(failure) => {
            tracing::warn!(%failure, stills = parts.len(), "stills could not be rendered together, and are rendered one by one");
            RenderedFrames {
                frames: vec![],
                faults: vec![],
                cause: None,
                warnings: vec![],
                timing: RenderTiming::default(),
            }
        }
    };
    if let Err(error) = std::fs::remove_dir_all(&folder) {
        tracing::debug!(%error, "nothing is left of stills that were rendered together");
    }
    let stored = reel.stored.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut left = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        let frame = rendered.frames.iter().find(|f| f.frame as usize == at).filter(|_| stored.contains(&at));
        match frame {
            Some(frame) => tell(&node, part, frame, &rendered, parts.len()).await,
            None => left.push(part.given.clone()),
        }
    }
    left
}

async fn render(
    node: &Node,
    parts: &[Part],
    reel: &Arc<Reel>,
    folder: &std::path::Path,
    turns: &Turns,
) -> Result<RenderedFrames, Failure> {
    let Some(first) = parts.first() else { return Err(Failure::cancelled()) };
    let mut data = first.still.data.clone();
    for part in parts {
        data.texts.extend(part.still.data.texts.clone());
    }
    let running: Vec<_> = parts.iter().map(|part| node.runs(part.given.token())).collect();
    parts.iter().try_for_each(|part| part.given.written.clone())?;
    let _turn = turns.take(&first.given.attempt, &running[0].drain).await?;
    let input = RenderFrames {
        composition: COMPOSITION.into(),
        frames: FrameRange { first: 0, last: parts.len() as u32 - 1 },
        data,
        ..first.still.as_frames()
    };
    let shots: Vec<Shot> = parts
        .iter()
        .map(|part| Shot { composition: part.still.composition.clone(), frame: part.still.frame })
        .collect();
    let spawned = |id: &ProcessId| {
        let entry = Entry { renderer: Some(id.clone()), ..first.given.entry.clone() };
        if let Err(error) = node.journal.write(&entry) {
            // The mark in its environment still tells whose it is.
            tracing::warn!(%error, "cannot write the renderer into the journal");
        }
    };
    let inputs = reel.transfer(first);
    let job = Job {
        attempt: &first.given.attempt,
        stills: &shots,
        folder: folder.to_owned(),
        inputs: &inputs,
        frames: reel.clone(),
        drain: running[0].drain.clone(),
        spawned: &spawned,
        // Whoever has no frame of it is made alone, and hears then.
        heard: &|_| {},
        unheard: false,
    };
    let longest = Duration::from_secs_f64(first.given.entry.task.start_to_close_seconds.clamp(1.0, 86_400.0) / 2.0);
    let timed_out = |_| Err(Failure::transient("render.timed_out", "the stills took longer than they may"));
    tokio::time::timeout(longest, node.aerender.render(job, &input)).await.unwrap_or_else(timed_out)
}

/// Reports the still of a task.
async fn tell(node: &Node, part: &Part, frame: &FrameRef, rendered: &RenderedFrames, of: usize) {
    let share = |ms: u64| ms / of.max(1) as u64;
    let RenderTiming { prepare_ms, render_ms, upload_ms } = rendered.timing;
    let timing =
        RenderTiming { prepare_ms: share(prepare_ms), render_ms: share(render_ms), upload_ms: share(upload_ms) };
    let frame = FrameRef { frame: part.still.frame, blob: frame.blob.clone() };
    let made = RenderedFrames { frames: vec![frame], timing, ..rendered.clone() };
    let output = stills::output(RenderStills::NAME, made);
    let (given, patience) = (&part.given, node.config.offline_patience);
    let reported = report(&given.client, &given.attempt, output, node.config.retry, patience, &node.drain).await;
    if reported != Reported::Untold {
        forget(node, given.token());
    }
}

/// Where the frames of a reel go: each to the task whose still it is.
struct Reel {
    parts: Arc<Vec<Part>>,
    retry: (Duration, Duration),
    /// Parts whose frame is stored.
    stored: Mutex<BTreeSet<usize>>,
}

impl Reel {
    fn transfer(&self, part: &Part) -> Transfer {
        Transfer { task: part.given.client.clone(), retry: self.retry, untold: Arc::default() }
    }
}

impl FrameSink for Reel {
    async fn store(&self, frame: ProvenFrame) -> Result<(), TransferError> {
        let at = frame.frame as usize;
        let Some(part) = self.parts.get(at) else { return Ok(()) };
        let transfer = self.transfer(part);
        let stored = tokio::select! {
            // Nobody wants this one any more; the others are still wanted.
            _ended = part.given.attempt.ended() => return Ok(()),
            stored = transfer.store(ProvenFrame { frame: part.still.frame, ..frame }) => stored,
        };
        if stored.is_ok() {
            self.stored.lock().unwrap_or_else(PoisonError::into_inner).insert(at);
        }
        stored
    }
}
