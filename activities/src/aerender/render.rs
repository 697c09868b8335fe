//! A whole attempt: prepared, rendered where frames are missing, judged.
//!
//! The folder of an attempt may already hold frames of the same attempt, from before the agent was restarted;
//! those that prove themselves are kept.

use super::{
    FrameSink, InputSource, ProcessId, account,
    cache::Cache,
    classes::{NO_RENDERER, WRONG_NUMBERS},
    command::{Plan, Source},
    doubt::Doubts,
    driver::{self, End, Observer, progress},
    harvest::Harvest,
    lines,
    prepare::{self, Folder, Host, Shot},
    timers::Limits,
    transcript::Transcript,
    verdict::{self, Findings},
};
use flatrender_engine::{Attempt, Failure};
use flatrender_workflows::contracts::render::{
    Engine, FrameRange, INTERRUPTED, RenderFrames, RenderTiming, RenderedFrames,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Most runs of the renderer within one attempt; a start is dear, so small gaps are rendered again instead.
const MAX_RUNS: usize = 3;
/// How long frames may still be stored once the machine is going away.
const LAST_STORES: Duration = Duration::from_secs(8);

/// The tools of this machine for rendering.
#[derive(Debug)]
pub struct Aerender {
    /// The program of each engine, by full path.
    pub renderers: BTreeMap<&'static str, PathBuf>,
    /// Packages and assets that were fetched before.
    pub cache: Cache,
    /// When a renderer is given up.
    pub limits: Limits,
}

/// What one attempt needs besides its input.
pub struct Job<'a, I, S> {
    /// The attempt: its standing is watched, its progress told.
    pub attempt: &'a Attempt,
    /// Stills that are shown one after the other, one a frame, instead of the composition: for After Effects alone.
    pub stills: &'a [Shot],
    /// Working folder of this attempt alone. May hold what an earlier process left of the same attempt.
    pub folder: PathBuf,
    /// Where inputs come from.
    pub inputs: &'a I,
    /// Where frames go.
    pub frames: Arc<S>,
    /// When cancelled, rendering stops and the frames that are there are kept: this machine is going away.
    pub drain: CancellationToken,
    /// Called when a renderer was started, before anything is awaited: to remember whom to kill.
    pub spawned: &'a (dyn Fn(&ProcessId) + Send + Sync),
    /// Called when a run is over and judged, before anything follows from it: with what spoils its frames, if something does. Not when we ended a
    /// renderer that had said nothing of the kind: it may have been about to.
    pub heard: &'a (dyn Fn(Option<&Failure>) + Send + Sync),
    /// An earlier process has started a renderer for this attempt, and ended before all that it said was heard.
    pub unheard: bool,
}

impl Aerender {
    /// Renders the frames of `input` that are not there yet. Dropping the future kills the renderer.
    ///
    /// # Errors
    /// As [`RenderFrames`] says, each with its [`Evidence`](flatrender_workflows::contracts::evidence::Evidence);
    /// [`Failure::cancelled`] and [`Failure::lease_lost`] when the attempt had to end.
    pub async fn render<I: InputSource, S: FrameSink>(
        &self,
        job: Job<'_, I, S>,
        input: &RenderFrames,
    ) -> Result<RenderedFrames, Failure> {
        self.attempt(job, input).await.map_err(account::explained)
    }

    async fn attempt<I: InputSource, S: FrameSink>(
        &self,
        job: Job<'_, I, S>,
        input: &RenderFrames,
    ) -> Result<RenderedFrames, Failure> {
        let begun = Instant::now();
        let program = self.program(input.engine)?;
        let folder = tokio::select! {
            failure = job.attempt.ended() => return Err(failure),
            () = job.drain.cancelled() => return Err(interrupted()),
            prepared = prepare::prepare(&self.cache, &job.folder, job.inputs, input) => prepared?,
        };
        let (source, warnings) = match input.engine {
            Engine::Lottie => (Source::Composition(input.composition.clone()), Vec::new()),
            Engine::AfterEffects => self.prepare_project(&job, &folder, input, &program).await?,
        };
        let prepared = begun.elapsed();
        let mut work = Work {
            harvest: Harvest::new(job.frames.clone(), &folder.frames, input.size, input.frames.iter()),
            transcript: Transcript::default(),
            findings: Findings::default(),
            rendering: Duration::ZERO,
            job,
            input,
            folder,
            source,
        };
        warnings.iter().for_each(|warning| work.transcript.warn(warning));
        let kept = tokio::select! {
            failure = work.job.attempt.ended() => return Err(failure),
            () = work.job.drain.cancelled() => return Err(interrupted()),
            kept = work.job.frames.kept() => kept.map_err(|e| verdict::of_transfer(&e, "the list of kept frames"))?,
        };
        work.harvest.leave_out(kept);
        let end = work.runs(&program, self.limits.paced(input.pace)).await?;
        work.finish(end, prepared, begun)
    }

    /// Has the application fill in the data. The item to render, and what is noted of it.
    async fn prepare_project<I: InputSource, S: FrameSink>(
        &self,
        job: &Job<'_, I, S>,
        folder: &Folder,
        input: &RenderFrames,
        program: &Path,
    ) -> Result<(Source, Vec<String>), Failure> {
        let no_host = || {
            let message = format!("no After Effects lies beside {}", program.display());
            Failure::transient(NO_RENDERER.code, message)
        };
        let host = Host::beside(program).ok_or_else(no_host)?;
        let what = prepare::Job::of(job.attempt.lease_token(), input, &folder.package)?.showing(job.stills);
        let limits = self.limits.paced(input.pace);
        let prepared = prepare::script::run(&host, folder, &what, limits, &mut Watch { job }).await?;
        Ok((Source::Queued(prepared.item), prepared.warnings))
    }

    fn program(&self, engine: Engine) -> Result<PathBuf, Failure> {
        self.renderers.get(engine.label()).cloned().ok_or_else(|| {
            Failure::transient(NO_RENDERER.code, format!("this node has no renderer for {}", engine.label()))
        })
    }
}

/// The attempt was stopped because this machine is going away.
pub fn interrupted() -> Failure {
    Failure::transient(INTERRUPTED, "the node was shut down")
}

struct Work<'a, I, S> {
    job: Job<'a, I, S>,
    input: &'a RenderFrames,
    folder: Folder,
    source: Source,
    harvest: Harvest<S>,
    transcript: Transcript,
    findings: Findings,
    /// Time spent in runs of the renderer.
    rendering: Duration,
}

impl<I: InputSource, S: FrameSink> Work<'_, I, S> {
    /// Adopts what is there, renders what is missing, and once more what looks wrong. How the last run ended, if
    /// there was one.
    async fn runs(&mut self, program: &Path, limits: Limits) -> Result<Option<End>, Failure> {
        self.take_stock().await?;
        self.make_it_speak();
        let end = self.pass(program, limits).await?;
        let doubts = Doubts::of(self.harvest.pictures());
        let settled = !self.harvest.missing().is_empty() || matches!(end, Some(End::Unstored(_) | End::Spoiled));
        if settled || doubts.is_empty() || self.job.drain.is_cancelled() {
            return Ok(end);
        }
        self.harvest.doubt(&doubts.frames());
        let end = self.pass(program, limits).await?;
        for warning in doubts.confirmed_by(&self.harvest.pictures()) {
            self.transcript.warn(&warning);
        }
        Ok(end)
    }

    /// Whole frames of a renderer that was not heard to its end may be spoiled. One of them is rendered once more: what is wrong with the
    /// project or the node is said of any. Where some are missing it is said of those.
    fn make_it_speak(&mut self) {
        if self.job.unheard && self.harvest.missing().is_empty() {
            let last = self.harvest.pictures().into_keys().next_back();
            self.harvest.doubt(&BTreeSet::from_iter(last));
        }
    }

    /// Renders what is missing and stores what proves itself. How the last run ended, if there was one.
    async fn pass(&mut self, program: &Path, limits: Limits) -> Result<Option<End>, Failure> {
        let mut end = None;
        for frames in ranges(&self.harvest.missing()) {
            if self.job.drain.is_cancelled() {
                return Ok(Some(End::Stopped(interrupted())));
            }
            let run = self.run(program, frames, limits).await;
            let go_on = matches!(run, End::Exited(status) if status.success());
            end = Some(run);
            if !go_on {
                break;
            }
        }
        match &end {
            Some(End::Stopped(failure)) if failure.code != INTERRUPTED => return Err(failure.clone()),
            Some(End::Unstored(_) | End::Spoiled) => {}
            _ => self.take_stock().await?,
        }
        Ok(end)
    }

    async fn run(&mut self, program: &Path, frames: FrameRange, limits: Limits) -> End {
        let begun = Instant::now();
        let plan = self.plan(program.to_owned(), frames);
        let mut watch = Watch { job: &self.job };
        let attempt = self.job.attempt.lease_token();
        self.transcript.duration = None;
        self.harvest.expect(frames);
        let end = driver::run(&plan, attempt, limits, &mut self.harvest, &mut self.transcript, &mut watch).await;
        let announced = self.transcript.duration.as_deref().and_then(|d| lines::frames_in(d, self.input.fps));
        self.findings.stale_span |= announced.is_some_and(|count| count != frames.count());
        self.rendering += begun.elapsed();
        // Another span has other numbers, and they are right.
        let misnumbered = self.harvest.judge() && announced.is_none_or(|count| count == frames.count());
        self.transcript.spoiled = self.transcript.spoiled.or(misnumbered.then_some(WRONG_NUMBERS));
        if self.transcript.spoiled.is_none() {
            if matches!(end, End::Exited(_)) {
                (self.job.heard)(None);
            }
            return end;
        }
        let (frames, faults) = self.harvest.result();
        let judged = verdict::decide(&frames, &faults, Some(&End::Spoiled), &self.findings, &mut self.transcript);
        (self.job.heard)(judged.err().as_ref());
        // Whoever takes the attempt up after us is to find no frame of which it has not heard what we have.
        let emptied =
            std::fs::remove_dir_all(&self.folder.frames).and_then(|()| std::fs::create_dir_all(&self.folder.frames));
        if let Err(error) = emptied {
            tracing::warn!(%error, "cannot remove frames that are spoiled");
        }
        End::Spoiled
    }

    /// Checks every file that is there and stores what proves itself.
    async fn take_stock(&mut self) -> Result<(), Failure> {
        self.harvest.look_at_all();
        let drain = self.job.drain.clone();
        let going = async {
            drain.cancelled().await;
            tokio::time::sleep(LAST_STORES).await;
        };
        tokio::pin!(going);
        while self.harvest.is_working() {
            tokio::select! {
                failure = self.job.attempt.ended() => return Err(failure),
                ripened = self.harvest.next() => ripened.map_err(|e| verdict::of_transfer(&e, "a frame"))?,
                () = &mut going => return Ok(()),
            };
            self.job.attempt.heartbeat(progress("storing", &self.harvest))?;
        }
        Ok(())
    }

    fn finish(mut self, end: Option<End>, prepared: Duration, begun: Instant) -> Result<RenderedFrames, Failure> {
        let (frames, faults) = self.harvest.result();
        self.findings.strays = self.harvest.strays();
        let cause = verdict::decide(&frames, &faults, end.as_ref(), &self.findings, &mut self.transcript)?;
        let timing = RenderTiming {
            prepare_ms: prepared.as_millis() as u64,
            render_ms: self.rendering.as_millis() as u64,
            upload_ms: begun.elapsed().saturating_sub(prepared + self.rendering).as_millis() as u64,
        };
        let warnings = std::mem::take(&mut self.transcript.warnings);
        Ok(RenderedFrames { frames, faults, cause, warnings, timing })
    }

    fn plan(&self, program: PathBuf, frames: FrameRange) -> Plan {
        Plan {
            program,
            engine: self.input.engine,
            package: self.folder.package.clone(),
            source: self.source.clone(),
            frames,
            output: self.folder.frames.clone(),
            temp: self.folder.temp.clone(),
        }
    }
}

/// Joins the driver to the attempt.
struct Watch<'a, 'j, I, S> {
    job: &'a Job<'j, I, S>,
}

impl<I: InputSource, S: FrameSink> Observer for Watch<'_, '_, I, S> {
    fn spawned(&mut self, id: &ProcessId) {
        (self.job.spawned)(id);
    }

    fn progress(&mut self, progress: flatrender_engine::Progress) {
        // Whether the attempt may go on is asked by `stop`.
        let _ = self.job.attempt.heartbeat(progress);
    }

    async fn stop(&self) -> Failure {
        tokio::select! {
            failure = self.job.attempt.ended() => failure,
            () = self.job.drain.cancelled() => interrupted(),
        }
    }
}

/// The missing frames as few ranges, in order.
fn ranges(missing: &BTreeSet<u32>) -> Vec<FrameRange> {
    let mut ranges: Vec<FrameRange> = Vec::new();
    for &frame in missing {
        match ranges.last_mut() {
            Some(range) if range.last + 1 == frame => range.last = frame,
            _ => ranges.push(FrameRange { first: frame, last: frame }),
        }
    }
    while ranges.len() > MAX_RUNS {
        let gap = |i: &usize| ranges[i + 1].first - ranges[*i].last;
        let smallest = (0..ranges.len() - 1).min_by_key(gap).unwrap_or(0);
        ranges[smallest].last = ranges.remove(smallest + 1).last;
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(missing: &[u32]) -> Vec<(u32, u32)> {
        ranges(&missing.iter().copied().collect()).iter().map(|r| (r.first, r.last)).collect()
    }

    #[test]
    fn missing_frames_become_few_ranges() {
        assert_eq!(pairs(&[]), []);
        assert_eq!(pairs(&[3, 4, 5]), [(3, 5)]);
        assert_eq!(pairs(&[1, 5, 6, 20]), [(1, 1), (5, 6), (20, 20)]);
        assert_eq!(pairs(&[1, 3, 10, 30, 31, 90]), [(1, 10), (30, 31), (90, 90)]);
    }
}
