//! Who draws which frame: threads take blocks of neighbouring frames until none are left.
//!
//! A frame depends on nothing but its number, so neither the number of threads nor the range shows in its
//! bytes. Each thread holds one frame at a time; nothing queues up.

use std::{
    collections::BTreeMap,
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use super::tvg::Canvas;
use crate::{Composition, RenderError};

/// Neighbours that one thread draws in a row.
const BLOCK: usize = 8;
/// The rasteriser calls itself for each nested composition and group; the nesting is bounded, and fits in this.
const STACK_BYTES: usize = 32 << 20;

/// How good blurs and shadows look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Quality {
    /// As films are delivered.
    #[default]
    Best,
    /// Coarser effects, about a tenth faster.
    Draft,
}

/// Which frames of a composition to draw, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderPlan {
    first: u32,
    last: u32,
    step: u32,
    /// Threads to draw on; at least one is used, and never more than there are blocks of frames.
    pub threads: usize,
    /// How good effects look.
    pub quality: Quality,
}

impl RenderPlan {
    /// Every `step`th frame from `first` to `last`, both 0-based and included.
    ///
    /// # Errors
    /// `render.frame_out_of_range` for frames that the composition does not have.
    pub fn new(composition: &Composition, first: u32, last: u32, step: u32) -> Result<Self, RenderError> {
        if first > last || last >= composition.frames() || step == 0 {
            let message = format!(
                "frames {first} to {last} were asked for; \"{}\" has frames 0 to {}",
                composition.name(),
                composition.frames() - 1
            );
            return Err(RenderError::FrameOutOfRange(message));
        }
        Ok(Self { first, last, step, threads: 1, quality: Quality::Best })
    }

    /// All frames.
    pub fn all(composition: &Composition) -> Self {
        Self { first: 0, last: composition.frames() - 1, step: 1, threads: 1, quality: Quality::Best }
    }

    /// The same on `threads` threads.
    #[must_use]
    pub fn on_threads(self, threads: usize) -> Self {
        Self { threads, ..self }
    }

    /// The same with effects of `quality`.
    #[must_use]
    pub fn with_quality(self, quality: Quality) -> Self {
        Self { quality, ..self }
    }

    /// The numbers of the frames, rising.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = u32> + use<> {
        let (first, step) = (self.first, self.step);
        (0..(self.last - self.first) / step + 1).map(move |n| first + n * step)
    }

    /// The first and the last frame asked for.
    pub fn range(&self) -> (u32, u32) {
        (self.first, self.last)
    }
}

/// A drawn frame. Its pixels are gone when the sink returns.
#[derive(Debug)]
pub struct Frame<'a> {
    /// The frame's number in its composition, 0-based.
    pub number: u32,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Rows of pixels, red in the lowest byte, premultiplied by opacity.
    pub pixels: &'a [u32],
}

/// Progress: a frame has passed its sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameDone {
    /// The frame's number in its composition, 0-based.
    pub number: u32,
    /// Its place in this render, from 1.
    pub ordinal: u32,
    /// How long drawing it and its sink took.
    pub took: Duration,
}

/// Draws the plan's frames. Each thread makes a sink of its own with `make_sink` and hands it every frame it
/// draws, in any order; `progress` is called on this thread, in the order of the frames.
///
/// # Errors
/// The first error of a sink; `render.engine_failed` when the rasteriser refuses the document.
pub fn render<S>(
    composition: &Composition,
    plan: &RenderPlan,
    make_sink: impl Fn() -> S + Sync,
    mut progress: impl FnMut(FrameDone),
) -> Result<(), RenderError>
where
    S: FnMut(&Frame<'_>) -> Result<(), RenderError>,
{
    let frames: Vec<u32> = plan.frames().collect();
    let blocks = Blocks::of(&frames, plan.threads);
    let (reports, reported) = mpsc::channel();
    thread::scope(|scope| {
        let drawing = (0..blocks.threads).map(|_| {
            let (reports, blocks, make_sink) = (reports.clone(), &blocks, &make_sink);
            let draw = move || {
                let result = draw_blocks(composition, plan.quality, blocks, &mut make_sink(), &reports);
                blocks.stop_if(result.is_err());
                result
            };
            thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, draw)
        });
        let drawing: Vec<_> = drawing.collect();
        drop(reports);
        in_order(&reported, &mut progress);
        drawing.into_iter().try_for_each(|thread| {
            let thread =
                thread.map_err(|error| RenderError::EngineFailed(format!("cannot start a thread: {error}")))?;
            thread.join().unwrap_or_else(|_| Err(RenderError::EngineFailed("a drawing thread broke down".into())))
        })
    })
}

/// The frames, handed out in blocks.
struct Blocks<'a> {
    frames: &'a [u32],
    threads: usize,
    size: usize,
    next: AtomicUsize,
    stopped: AtomicBool,
}

impl<'a> Blocks<'a> {
    fn of(frames: &'a [u32], threads: usize) -> Self {
        let threads = threads.clamp(1, frames.len().max(1));
        let size = frames.len().div_ceil(threads).clamp(1, BLOCK);
        Self { frames, threads, size, next: AtomicUsize::new(0), stopped: AtomicBool::new(false) }
    }

    /// Frames that nobody has taken yet, with the place of the first.
    fn take(&self) -> Option<(usize, &'a [u32])> {
        if self.stopped.load(Ordering::Relaxed) {
            return None;
        }
        let start = self.next.fetch_add(1, Ordering::Relaxed) * self.size;
        let block = self.frames.get(start..)?.chunks(self.size).next()?;
        Some((start, block))
    }

    fn stop_if(&self, failed: bool) {
        self.stopped.fetch_or(failed, Ordering::Relaxed);
    }
}

fn draw_blocks<S>(
    composition: &Composition,
    quality: Quality,
    blocks: &Blocks<'_>,
    sink: &mut S,
    reports: &mpsc::Sender<FrameDone>,
) -> Result<(), RenderError>
where
    S: FnMut(&Frame<'_>) -> Result<(), RenderError>,
{
    let (width, height) = composition.size();
    let effects = match quality {
        Quality::Best => 50,
        Quality::Draft => 20,
    };
    let mut canvas = Canvas::load(composition.document(), composition.pictures(), (width, height), effects)?;
    while let Some((start, block)) = blocks.take() {
        for (place, number) in block.iter().enumerate() {
            let begun = Instant::now();
            let pixels = canvas.draw(*number)?;
            sink(&Frame { number: *number, width, height, pixels })?;
            let ordinal = (start + place + 1) as u32;
            // The receiver outlives the threads; a report is a few bytes a frame.
            let _ = reports.send(FrameDone { number: *number, ordinal, took: begun.elapsed() });
            if blocks.stopped.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Passes reports on by their ordinals, until all threads have hung up.
fn in_order(reports: &mpsc::Receiver<FrameDone>, progress: &mut impl FnMut(FrameDone)) {
    let (mut next, mut early) = (1, BTreeMap::new());
    for report in reports {
        early.insert(report.ordinal, report);
        while let Some(report) = early.remove(&next) {
            progress(report);
            next += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_is_handed_out_once() {
        let frames: Vec<u32> = (0..37).collect();
        let blocks = Blocks::of(&frames, 3);
        let taken: Vec<u32> = std::iter::from_fn(|| blocks.take()).flat_map(|(_, block)| block.to_vec()).collect();
        assert_eq!(taken, frames);
    }

    #[test]
    fn a_short_range_is_shared_by_all_threads() {
        let frames = [0, 1, 2, 3];
        let blocks = Blocks::of(&frames, 2);
        assert_eq!((blocks.threads, blocks.size), (2, 2));
    }

    #[test]
    fn nothing_is_handed_out_after_a_failure() {
        let frames: Vec<u32> = (0..100).collect();
        let blocks = Blocks::of(&frames, 2);
        blocks.stop_if(true);
        blocks.stop_if(false);
        assert!(blocks.take().is_none());
    }

    #[test]
    fn progress_comes_in_the_order_of_the_frames() {
        let (sender, receiver) = mpsc::channel();
        for ordinal in [2, 1, 4, 3] {
            sender.send(FrameDone { number: ordinal, ordinal, took: Duration::ZERO }).unwrap();
        }
        drop(sender);
        let mut seen = vec![];
        in_order(&receiver, &mut |done| seen.push(done.ordinal));
        assert_eq!(seen, [1, 2, 3, 4]);
    }
}
