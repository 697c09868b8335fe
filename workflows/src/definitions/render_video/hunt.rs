//! The hunt for a frame that crashes every renderer it meets: what crashes is halved, until one frame is left. Pure.
//!
//! ```text
//! whole ─crash▶ whole, elsewhere ─crash▶ halves ─crash▶ halves of the half that crashed ─ … ─▶ one frame ─crash, crash▶ poison
//! ```
//! A chunk of n frames takes at most 2 + ⌈log₂ n⌉ + 1 crashes until its poison is named.

use crate::contracts::render::FrameRange;
use std::collections::{BTreeMap, BTreeSet};

/// Crashes of a chunk before it is halved: the first may have been the node's.
const BEFORE_HALVING: u32 = 2;
/// Crashes of a frame that is rendered alone before it is to blame.
const ALONE: u32 = 2;
/// Ranges that are rendered at a time otherwise: a renderer's start costs more than frames that are made once more.
const RANGES: usize = 4;
/// Ranges that are tried at a time while it is on: the halves of the first suspect.
const AT_A_TIME: usize = 2;

/// A frame that crashes every renderer, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Poison {
    pub(super) frame: u32,
    /// Code of the last crash.
    pub(super) class: String,
}

/// What is known of the crashes of a chunk.
#[derive(Debug, Default)]
pub(super) struct Hunt {
    crashes: u32,
    /// Frames before which a range ends.
    cuts: BTreeSet<u32>,
    alone: BTreeMap<u32, u32>,
}

impl Hunt {
    /// Ranges of missing frames, ascending, to be rendered next.
    pub(super) fn next(&self, missing: &[u32]) -> Vec<FrameRange> {
        let mut ranges: Vec<FrameRange> = vec![];
        for &frame in missing {
            match ranges.last_mut() {
                Some(last) if last.last + 1 == frame && !self.cuts.contains(&frame) => last.last = frame,
                _ => ranges.push(FrameRange { first: frame, last: frame }),
            }
        }
        if !self.cuts.is_empty() {
            ranges.truncate(AT_A_TIME);
        }
        while ranges.len() > RANGES {
            // The frames between the two that are nearest to each other are rendered once more.
            let gap = |n: &usize| ranges[n + 1].first - ranges[*n].last;
            let Some(nearest) = (0..ranges.len() - 1).min_by_key(gap) else { break };
            ranges[nearest].last = ranges.remove(nearest + 1).last;
        }
        ranges
    }

    /// A renderer crashed at `range` and left some of it missing.
    ///
    /// # Errors
    /// The frame to blame, once it is found.
    pub(super) fn crashed(&mut self, range: FrameRange, missing: &[u32], class: &str) -> Result<(), Poison> {
        self.crashes += 1;
        let left: Vec<u32> = missing.iter().copied().filter(|f| range.contains(*f)).collect();
        if let [frame] = left[..]
            && range.count() == 1
        {
            let times = self.alone.entry(frame).or_default();
            *times += 1;
            if *times >= ALONE {
                return Err(Poison { frame, class: class.to_owned() });
            }
        }
        if self.crashes >= BEFORE_HALVING
            && let (Some(first), Some(last)) = (left.first(), left.last())
        {
            self.cuts.insert(*first);
            if first < last {
                self.cuts.insert(left[left.len().div_ceil(2)]);
            }
            self.cuts.insert(last + 1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A farm on which `poison` crashes every renderer; `keeps` tells whether frames before it are stored when it does.
    fn hunt(frames: u32, poison: &[u32], keeps: bool) -> (Result<(), Poison>, u32) {
        let (mut hunt, mut missing, mut crashes) = (Hunt::default(), (0..frames).collect::<Vec<_>>(), 0);
        while !missing.is_empty() {
            for range in hunt.next(&missing) {
                let bad = range.iter().find(|f| poison.contains(f));
                let made = |f: &u32| range.contains(*f) && bad.is_none_or(|bad| keeps && *f < bad);
                missing.retain(|f| !made(f));
                if bad.is_some() {
                    crashes += 1;
                    if let Err(found) = hunt.crashed(range, &missing, "render.crashed") {
                        return (Err(found), crashes);
                    }
                }
            }
        }
        (Ok(()), crashes)
    }

    #[test]
    fn a_chunk_without_poison_is_rendered_at_once() {
        let hunt = Hunt::default();
        assert_eq!(hunt.next(&[3, 4, 5, 9]), [FrameRange { first: 3, last: 5 }, FrameRange { first: 9, last: 9 }]);
    }

    #[test]
    fn lone_frames_are_rendered_in_a_few_runs() {
        let lone: Vec<u32> = (0..100).map(|n| n * 5).collect();
        let ranges = Hunt::default().next(&lone);
        assert_eq!(ranges.len(), RANGES);
        assert!(lone.iter().all(|frame| ranges.iter().any(|range| range.contains(*frame))));
        assert!(ranges.windows(2).all(|two| two[0].last < two[1].first));
        let far = Hunt::default().next(&[0, 1, 100, 200, 300, 400]);
        assert_eq!(far[0], FrameRange { first: 0, last: 100 }, "the nearest are joined");
    }

    #[test]
    fn one_crash_blames_nobody() {
        let mut hunt = Hunt::default();
        let range = FrameRange { first: 7, last: 7 };
        assert_eq!(hunt.crashed(range, &[7], "render.crashed"), Ok(()));
        assert_eq!(hunt.next(&[7, 8]), [FrameRange { first: 7, last: 8 }]);
    }

    proptest! {
        #[test]
        fn a_poison_frame_is_isolated_in_log_many_crashes(frames in 1u32..=500, at in 0.0..1.0f64, keeps: bool) {
            let poison = (f64::from(frames) * at) as u32;
            let (found, crashes) = hunt(frames, &[poison], keeps);
            prop_assert_eq!(found, Err(Poison { frame: poison, class: "render.crashed".into() }));
            let log = (f64::from(frames)).log2().ceil() as u32;
            prop_assert!(crashes <= 3 + log, "{} crashes for {} frames", crashes, frames);
        }

        #[test]
        fn a_chunk_that_is_all_poison_ends_too(frames in 1u32..=500) {
            let all: Vec<u32> = (0..frames).collect();
            let (found, crashes) = hunt(frames, &all, false);
            prop_assert_eq!(found.unwrap_err().frame, 0);
            prop_assert!(crashes <= 2 * (3 + f64::from(frames).log2().ceil() as u32));
        }
    }
}
