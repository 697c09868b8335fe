//! Frames of a film on their way to being used: rendered, verified, repaired, and doubted when they are found lost.
//!
//! ```text
//! missing ─render▶ reported ─verify▶ proven ─▶ used
//!    ▲                │ bad            │ lost from the shelf
//!    └────────────────┘◀───────────────┘
//! ```

use crate::{
    contracts::{
        media::{FRAME_LOST, VerifyFrames},
        render::{FaultReason, FrameFault, FrameRange, FrameRef, RenderFrames},
    },
    models::{
        Db,
        render::render_job::{self, Begun},
    },
};
use flatrender_engine::{Activity, Context, Failure};
use futures::future::try_join_all;
use serde_json::json;
use std::{collections::BTreeMap, mem};
use uuid::Uuid;

/// How often in a row missing frames are rendered again without proving a single one. A node that drains gives its
/// chunk back with the frames it has: that is progress, not failure.
const FRUITLESS_ROUNDS: u32 = 3;
/// How often an activity is asked to use frames, when each time some of them turn out to be lost.
const MOST_USES: u32 = 3;

/// Some frames of a film, and how far each has come.
pub(super) struct Frames<'a> {
    cx: &'a Context,
    render_id: Uuid,
    job: &'a Begun,
    /// Tells them apart from the film's other frames in the keys of its history.
    key: String,
    /// In order.
    wanted: Vec<u32>,
    /// Said to be on the shelf, and not verified since.
    reported: BTreeMap<u32, FrameRef>,
    proven: BTreeMap<u32, FrameRef>,
    round: u32,
}

impl<'a> Frames<'a> {
    /// Frames of which none is rendered.
    pub(super) fn missing(cx: &'a Context, render_id: Uuid, job: &'a Begun, key: &str, range: FrameRange) -> Self {
        let (key, wanted) = (key.to_owned(), range.iter().collect());
        Self { cx, render_id, job, key, wanted, reported: BTreeMap::new(), proven: BTreeMap::new(), round: 0 }
    }

    /// Frames each of which was proven before.
    pub(super) fn proven(cx: &'a Context, render_id: Uuid, job: &'a Begun, key: &str, frames: Vec<FrameRef>) -> Self {
        let (key, wanted) = (key.to_owned(), frames.iter().map(|f| f.frame).collect());
        let proven = frames.into_iter().map(|f| (f.frame, f)).collect();
        Self { cx, render_id, job, key, wanted, reported: BTreeMap::new(), proven, round: 0 }
    }

    /// Those that are proven, in order.
    pub(super) fn list(&self) -> Vec<FrameRef> {
        self.proven.values().cloned().collect()
    }

    /// Renders and verifies until each is proven; renders again only what is missing or bad.
    pub(super) async fn prove(&mut self) -> Result<(), Failure> {
        let (mut faults, mut fruitless) = (vec![], 0);
        while self.proven.len() < self.wanted.len() {
            if fruitless == FRUITLESS_ROUNDS {
                return Err(repair_exhausted(&self.unproven(), &faults));
            }
            let before = self.proven.len();
            self.render_missing().await?;
            faults = self.verify_reported().await?;
            fruitless = if self.proven.len() > before { 0 } else { fruitless + 1 };
            self.round += 1;
        }
        Ok(())
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

    fn unproven(&self) -> Vec<u32> {
        self.wanted.iter().copied().filter(|f| !self.proven.contains_key(f)).collect()
    }

    async fn render_missing(&mut self) -> Result<(), Failure> {
        let mut missing = self.unproven();
        missing.retain(|f| !self.reported.contains_key(f));
        let renders = stretches(&missing).into_iter().map(|stretch| self.render(stretch));
        let rendered = try_join_all(renders).await?.concat();
        self.reported.extend(rendered.into_iter().map(|f| (f.frame, f)));
        Ok(())
    }

    /// Renders one stretch; keeps what the renderer warned of.
    async fn render(&self, frames: FrameRange) -> Result<Vec<FrameRef>, Failure> {
        let (id, spec) = (self.render_id, &self.job.spec);
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
            pace: None,
            needs: spec.needs.clone(),
        };
        let key = format!("{}:{}:{}", self.key, self.round, frames.first);
        let rendered = self.cx.activity(&format!("render:{key}"), work).await?;
        if !rendered.warnings.is_empty() {
            let warnings = rendered.warnings;
            let scope = super::films(self.cx);
            let warn = async move |db: Db<'_>| {
                scope.within(db, async |db: Db<'_>| Ok(render_job::warn(db, id, &warnings).await?)).await
            };
            self.cx.step(&format!("warn:{key}"), warn).await?;
        }
        Ok(rendered.frames)
    }

    /// Moves what is good to the proven; tells what is wrong with the others.
    async fn verify_reported(&mut self) -> Result<Vec<FrameFault>, Failure> {
        let frames: Vec<_> = mem::take(&mut self.reported).into_values().collect();
        let verify = VerifyFrames { render_id: self.render_id, frames: frames.clone(), size: self.job.spec.size };
        let faults = self.cx.activity(&format!("verify:{}:{}", self.key, self.round), verify).await?.faults;
        let good = |frame: &FrameRef| faults.iter().all(|f| f.frame != frame.frame);
        self.proven.extend(frames.into_iter().filter(good).map(|f| (f.frame, f)));
        Ok(faults)
    }
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

fn repair_exhausted(missing: &[u32], faults: &[FrameFault]) -> Failure {
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
    fn only_missing_frames_are_rendered_again() {
        let range = |first, last| FrameRange { first, last };
        assert_eq!(stretches(&[3, 4, 5, 9, 11, 12]), [range(3, 5), range(9, 9), range(11, 12)]);
        assert!(stretches(&[]).is_empty());
    }

    #[test]
    fn a_frame_that_cannot_be_rendered_is_named() {
        let faults = [FrameFault { frame: 1, reason: FaultReason::Corrupt }];
        let failure = repair_exhausted(&[1], &faults);
        assert_eq!(failure.code, "render.repair_exhausted");
        assert_eq!(failure.details["frames"][0]["frame"], 1);
        assert_eq!(failure.details["frames"][0]["reason"], "corrupt");
    }
}
