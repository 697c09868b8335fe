//! Frames of a film on their way to being used: rendered, verified, repaired, and doubted when they are found lost.
//!
//! ```text
//! missing ─render▶ reported or kept ─verify▶ proven ─▶ used
//!    ▲                   │ bad                │ lost from the shelf
//!    └──────repair───────┘◀───────────────────┘
//! ```
//! Kept frames are those of attempts that failed or were lost: they are verified like any others. A node that was cut off may say later
//! that what it had stored shows the wrong thing: then they are rendered again, up to the moment in which the film is published.

use super::{
    all,
    hunt::{Hunt, Poison},
    second::{self, Ran},
};
use crate::{
    contracts::{
        media::{FRAME_LOST, VerifyFrames},
        render::{
            FaultReason, FrameClass, FrameFault, FrameRange, FrameRef, INTERRUPTED, Pace, RenderFrames, RenderedFrames,
            is_crash,
        },
        storage::BlobHash,
    },
    models::{
        Db,
        render::{
            frame_attempt::{self, Ended, Noted},
            frame_job::{self, Repair},
            render_job::{self, Begun},
        },
    },
};
use flatrender_engine::{Activity, Context, Failure};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    time::Duration,
};
use uuid::Uuid;

/// How often in a row missing frames are rendered again without proving a single one. A node that drains gives its
/// chunk back with the frames it has: that is progress, not failure.
const FRUITLESS_ROUNDS: u32 = 3;
/// The same where something else than the frames stood in the way: a storage that is full or away, a licence, a file that is held. With
/// the pauses between them that is eight minutes and a half.
const HINDERED_ROUNDS: u32 = 10;
/// Pause after the first round in a row that was hindered; twice as long after each further one.
const PAUSE: Duration = Duration::from_secs(1);
/// How often frames are used, when each time some of them turn out to be lost, or worthless.
pub(super) const MOST_USES: u32 = 3;

/// Some frames of a film, and how far each has come.
pub(super) struct Frames<'a> {
    cx: &'a Context,
    render_id: Uuid,
    job: &'a Begun,
    pace: Option<Pace>,
    /// Tells them apart from the film's other frames in the keys of its history.
    key: String,
    /// In order.
    wanted: Vec<u32>,
    /// Said to be on the shelf, and not verified since.
    reported: BTreeMap<u32, FrameRef>,
    proven: BTreeMap<u32, FrameRef>,
    /// Left by attempts that failed or were lost, and reported by nobody since: whose they are, by number and content.
    left_by: BTreeMap<(u32, BlobHash), Uuid>,
    /// Looked wrong, and were rendered once more: what they were.
    doubted: BTreeMap<u32, (FrameRef, FaultReason)>,
    flags: BTreeMap<u32, BTreeSet<String>>,
    /// Nodes that did not make them well.
    avoid: BTreeSet<String>,
    /// Nodes that rendered in the last round.
    hands: BTreeSet<String>,
    hunt: Hunt,
    /// Times that some were rendered.
    round: u32,
    /// Times that some were verified.
    looks: u32,
}

/// Rounds in a row that proved nothing.
#[derive(Debug, Clone, Copy, Default)]
struct Tried {
    /// In which frames were made, and were not good.
    fruitless: u32,
    /// In which something else stood in the way.
    hindered: u32,
}

impl Tried {
    fn rounds(self) -> u32 {
        self.fruitless + self.hindered
    }
}

/// What one activity left.
struct Made {
    range: FrameRange,
    frames: Vec<FrameRef>,
    /// Why some are missing, if that may be other on another try.
    cause: Option<Failure>,
}

impl<'a> Frames<'a> {
    /// Frames of which none is rendered.
    pub(super) fn missing(
        cx: &'a Context,
        render_id: Uuid,
        job: &'a Begun,
        pace: Option<Pace>,
        key: &str,
        range: FrameRange,
    ) -> Self {
        Self { pace, wanted: range.iter().collect(), ..Self::proven(cx, render_id, job, key, vec![]) }
    }

    /// Frames each of which was proven before.
    pub(super) fn proven(cx: &'a Context, render_id: Uuid, job: &'a Begun, key: &str, frames: Vec<FrameRef>) -> Self {
        Self {
            cx,
            render_id,
            job,
            pace: None,
            key: key.to_owned(),
            wanted: frames.iter().map(|f| f.frame).collect(),
            reported: BTreeMap::new(),
            proven: frames.into_iter().map(|f| (f.frame, f)).collect(),
            left_by: BTreeMap::new(),
            doubted: BTreeMap::new(),
            flags: BTreeMap::new(),
            avoid: BTreeSet::new(),
            hands: BTreeSet::new(),
            hunt: Hunt::default(),
            round: 0,
            looks: 0,
        }
    }

    /// Those that are proven, in order.
    pub(super) fn list(&self) -> Vec<FrameRef> {
        self.proven.values().cloned().collect()
    }

    /// Numbers of those of them that nobody has reported, and the lease tokens of who left them.
    pub(super) fn kept(&self) -> BTreeMap<u32, Uuid> {
        let left_by = |f: &FrameRef| self.left_by.get(&content(f)).copied();
        self.proven.values().filter_map(|f| Some((f.frame, left_by(f)?))).collect()
    }

    /// As [`Frames::prove`], after taking some for missing again that nobody may use.
    pub(super) async fn prove_without(&mut self, worthless: &[u32]) -> Result<(), Failure> {
        for frame in worthless {
            self.proven.remove(frame);
            self.flags.entry(*frame).or_default().insert("repaired".into());
        }
        self.prove().await
    }

    /// What is to be said of some.
    pub(super) fn flags(&self) -> &BTreeMap<u32, BTreeSet<String>> {
        &self.flags
    }

    /// Renders and verifies until each is proven; renders again only what is missing, bad or looks wrong.
    pub(super) async fn prove(&mut self) -> Result<(), Failure> {
        let (mut faults, mut tried, mut last) = (self.verify_reported().await?, Tried::default(), None);
        while self.proven.len() < self.wanted.len() {
            if self.is_enough(tried).await {
                if self.settle_for_doubtful().await? {
                    break;
                }
                return Err(last.unwrap_or_else(|| repair_exhausted(&self.unproven(), &faults)));
            }
            if last.is_some() && tried.rounds() > 0 {
                self.cx
                    .sleep(&format!("pause:{}:{}", self.key, self.round), PAUSE * (1 << (tried.rounds() - 1)))
                    .await?;
            }
            let before = self.proven.len();
            self.round += 1;
            self.repair(&faults).await?;
            let crashed;
            (crashed, last) = self.render_missing().await?;
            faults = self.verify_reported().await?;
            if !faults.is_empty() {
                // What looks wrong is believed only when another node makes it so, too.
                self.avoid.append(&mut self.hands);
            }
            // A crash is one step of the hunt, which ends.
            match &last {
                _ if crashed || self.proven.len() > before => tried = Tried::default(),
                Some(_) => tried.hindered += 1,
                None => tried.fruitless += 1,
            }
        }
        Ok(())
    }

    /// Whether no more is tried. Films that were begun before hindrances had a patience of their own keep to the one that there was.
    async fn is_enough(&self, tried: Tried) -> bool {
        if tried.fruitless >= FRUITLESS_ROUNDS || tried.hindered >= HINDERED_ROUNDS {
            return true;
        }
        tried.rounds() >= FRUITLESS_ROUNDS && !self.cx.patched("patience with hindrances").await
    }

    /// Does what `work` makes of the proven frames. Frames are not flushed to the disk: a power cut may take some that
    /// were proven already. Then all are verified again, the lost ones are rendered again, and the work is repeated.
    pub(super) async fn used_by<A: Activity>(
        &mut self,
        key: &str,
        work: impl Fn(Vec<FrameRef>) -> A,
    ) -> Result<A::Output, Failure> {
        let mut done = self.cx.activity(key, work(self.list())).await;
        for again in 2..=MOST_USES {
            if !done.as_ref().is_err_and(|failure| failure.code == FRAME_LOST) {
                break;
            }
            self.reported = mem::take(&mut self.proven);
            self.prove().await?;
            done = self.cx.activity(&format!("{key}:{again}"), work(self.list())).await;
        }
        done
    }

    /// Takes frames that only look wrong as they are, when they are all that is left and nobody renders them again.
    async fn settle_for_doubtful(&mut self) -> Result<bool, Failure> {
        let left = self.unproven();
        if !left.iter().all(|f| self.doubted.contains_key(f)) {
            return Ok(false);
        }
        let doubts: Vec<FrameFault> =
            left.iter().map(|frame| FrameFault { frame: *frame, reason: self.doubted[frame].1 }).collect();
        self.proven.extend(left.into_iter().map(|f| (f, self.doubted[&f].0.clone())));
        self.warn_of(&format!("settle:{}:{}", self.key, self.round), &doubts).await?;
        Ok(true)
    }

    fn unproven(&self) -> Vec<u32> {
        self.wanted.iter().copied().filter(|f| !self.proven.contains_key(f)).collect()
    }

    /// Renders what is missing. Whether a renderer crashed, and why else an activity failed.
    async fn render_missing(&mut self) -> Result<(bool, Option<Failure>), Failure> {
        let ranges = self.hunt.next(&self.unproven());
        let made = all(ranges.into_iter().map(|range| self.render(range))).await?;
        let (mut crashed, mut last) = (false, None);
        self.hands = made.iter().flat_map(|(_, noted)| noted.nodes.iter().cloned()).collect();
        for (made, noted) in made {
            for reported in &made.frames {
                self.left_by.remove(&content(reported));
            }
            self.left_by.extend(noted.kept.iter().map(content).zip(noted.kept_by));
            self.reported.extend(made.frames.into_iter().chain(noted.kept).map(|f| (f.frame, f)));
            let Some(cause) = made.cause.filter(|cause| cause.code != INTERRUPTED) else { continue };
            self.avoid.extend(noted.nodes);
            if is_crash(&cause.code) {
                let mut missing = self.unproven();
                missing.retain(|f| !self.reported.contains_key(f));
                self.hunt.crashed(made.range, &missing, &cause.code).map_err(|p| poisoned(&p, &cause))?;
                crashed = true;
            } else {
                last = Some(cause);
            }
        }
        Ok((crashed, last))
    }

    /// Renders one range, and notes who tried and what is there now.
    async fn render(&self, frames: FrameRange) -> Result<(Made, Noted), Failure> {
        let key = format!("{}:{}:{}", self.key, self.round - 1, frames.first);
        let Ran { activity, rendered, overtaken } =
            second::run(self.cx, &format!("render:{key}"), self.work(frames)).await;
        if let Some(other) = overtaken {
            self.note(&format!("{key}:overtaken"), other, frames, None, true).await?;
        }
        let noted = self.note(&key, activity, frames, rendered.clone().ok(), false).await?;
        match rendered {
            // A report that was taken unseen may say anything.
            Ok(RenderedFrames { frames: mut made, cause, .. }) => {
                made.retain(|f| frames.contains(f.frame));
                Ok((Made { range: frames, frames: made, cause }, noted))
            }
            Err(failure) if failure.retryable || is_crash(&failure.code) => {
                Ok((Made { range: frames, frames: vec![], cause: Some(failure) }, noted))
            }
            Err(failure) => Err(failure),
        }
    }

    fn work(&self, frames: FrameRange) -> RenderFrames {
        let spec = &self.job.spec;
        RenderFrames {
            render_id: self.render_id,
            engine: spec.engine,
            package: spec.package.clone(),
            package_owner: spec.package_owner,
            composition: spec.composition.clone(),
            frames,
            data: spec.data.clone(),
            assets: spec.assets.clone(),
            size: spec.size,
            fps: spec.fps,
            pace: self.pace,
            avoid: self.avoid.iter().cloned().collect(),
            needs: spec.needs.clone(),
            class: match self.round {
                _ if spec.is_preview() => FrameClass::Preview,
                0 | 1 => FrameClass::Final,
                _ => FrameClass::Repair,
            },
        }
    }

    async fn note(
        &self,
        key: &str,
        activity: String,
        frames: FrameRange,
        made: Option<RenderedFrames>,
        is_overtaken: bool,
    ) -> Result<Noted, Failure> {
        let (render_id, run_id, tenant_id, size) =
            (self.render_id, self.cx.run_id(), self.job.tenant_id, self.job.spec.size);
        let scope = super::films(self.cx);
        let note = async move |db: Db<'_>| {
            let made = made.as_ref();
            let ended = Ended { tenant_id, render_id, run_id, key: &activity, frames, size, made, is_overtaken };
            scope.within(db, async |db: Db<'_>| Ok(frame_attempt::note(db, &ended).await?)).await
        };
        self.cx.step(&format!("note:{key}"), note).await
    }

    /// Notes what is to be rendered again, when some are bad, or missing among others that are there.
    async fn repair(&self, bad: &[FrameFault]) -> Result<(), Failure> {
        let mut faults = bad.to_vec();
        if !self.proven.is_empty() {
            let missing = self.unproven().into_iter().filter(|f| bad.iter().all(|b| b.frame != *f));
            faults.extend(missing.map(|frame| FrameFault { frame, reason: FaultReason::Missing }));
        }
        if faults.is_empty() {
            return Ok(());
        }
        let (render_id, tenant_id, round) = (self.render_id, self.job.tenant_id, self.round);
        let (avoid, scope) = (self.avoid.clone(), super::films(self.cx));
        let repair = async move |db: Db<'_>| {
            let new = Repair { tenant_id, render_id, round, faults: &faults, avoid: &avoid };
            scope.within(db, async |db: Db<'_>| Ok(frame_job::repair(db, &new).await?)).await
        };
        self.cx.step(&format!("repair:{}:{round}", self.key), repair).await
    }

    /// Moves what is good to the proven; tells what is wrong with the others.
    async fn verify_reported(&mut self) -> Result<Vec<FrameFault>, Failure> {
        let frames: Vec<_> = mem::take(&mut self.reported).into_values().collect();
        if frames.is_empty() {
            return Ok(vec![]);
        }
        let (size, film_frames) = (self.job.spec.size, Some(self.job.spec.frames));
        let verify = VerifyFrames { render_id: self.render_id, frames: frames.clone(), size, film_frames };
        let verified = self.cx.activity(&format!("verify:{}:{}", self.key, self.looks), verify).await?;
        self.looks += 1;
        let mut faults = verified.faults;
        let bad: BTreeSet<u32> = faults.iter().map(|f| f.frame).collect();
        // What came out alike again looks as wrong as before, though a single frame has nothing beside it to be doubted for.
        let said = |f: u32, reason| self.flags.get(&f).is_some_and(|flags| flags.contains(flag(reason).0));
        let again = frames.iter().filter(|f| !bad.contains(&f.frame));
        let again = again.filter_map(|f| Some((f, self.doubted.get(&f.frame)?)));
        let mut alike: Vec<FrameFault> = again
            .filter(|(frame, (before, reason))| before == *frame && !said(frame.frame, *reason))
            .map(|(frame, (_, reason))| FrameFault { frame: frame.frame, reason: *reason })
            .collect();
        for doubt in verified.doubts {
            let Some(frame) = frames.iter().find(|f| f.frame == doubt.frame) else { continue };
            if self.doubted.insert(doubt.frame, (frame.clone(), doubt.reason)).is_none() {
                faults.push(doubt);
            }
        }
        let good = |frame: &FrameRef| faults.iter().all(|f| f.frame != frame.frame);
        self.proven.extend(frames.into_iter().filter(good).map(|f| (f.frame, f)));
        for fault in &faults {
            self.flags.entry(fault.frame).or_default().insert("repaired".into());
        }
        alike.sort_by_key(|f| f.frame);
        self.warn_of(&format!("warn:{}:{}", self.key, self.looks), &alike).await?;
        Ok(faults)
    }

    /// What looks wrong on every try is what the template says: it is kept, and said.
    async fn warn_of(&mut self, key: &str, alike: &[FrameFault]) -> Result<(), Failure> {
        if alike.is_empty() {
            return Ok(());
        }
        let mut warnings = vec![];
        for FrameFault { frame, reason } in alike {
            let (flag, words) = flag(*reason);
            self.flags.entry(*frame).or_default().insert(flag.into());
            warnings.push(format!("frame {frame} is {words}, even when it is rendered again"));
        }
        let (id, scope) = (self.render_id, super::films(self.cx));
        let warn = async move |db: Db<'_>| {
            scope.within(db, async |db: Db<'_>| Ok(render_job::warn(db, id, &warnings).await?)).await
        };
        self.cx.step(key, warn).await
    }
}

fn content(frame: &FrameRef) -> (u32, BlobHash) {
    (frame.frame, frame.blob.sha256.clone())
}

/// What is said of a frame that looks wrong and is what the template says: to programs, and to people.
fn flag(reason: FaultReason) -> (&'static str, &'static str) {
    match reason {
        FaultReason::Black => ("black", "black"),
        _ => ("duplicate", "the same as the one before it"),
    }
}

fn poisoned(poison: &Poison, cause: &Failure) -> Failure {
    let Poison { frame, class } = poison;
    let message = format!("frame {frame} ends every renderer that tries it: {class}: {}", cause.message);
    Failure::permanent("render.poison_frame", message)
        .with_details(json!({ "frame": frame, "class": class, "cause": cause.details }))
}

pub(super) fn repair_exhausted(missing: &[u32], faults: &[FrameFault]) -> Failure {
    let reason = |frame: u32| faults.iter().find(|f| f.frame == frame).map_or(FaultReason::Missing, |f| f.reason);
    let named: Vec<_> = missing.iter().take(100).map(|f| json!({"frame": f, "reason": reason(*f)})).collect();
    let first = missing.first().copied().unwrap_or_default();
    let message = format!("frame {first} could not be rendered in {FRUITLESS_ROUNDS} rounds");
    Failure::permanent("render.repair_exhausted", message).with_details(json!({ "frames": named }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_cannot_be_rendered_is_named() {
        let faults = [FrameFault { frame: 1, reason: FaultReason::Corrupt }];
        let failure = repair_exhausted(&[1], &faults);
        assert_eq!(failure.code, "render.repair_exhausted");
        assert_eq!(failure.details["frames"][0]["frame"], 1);
        assert_eq!(failure.details["frames"][0]["reason"], "corrupt");
    }
}
