//! One run of a renderer: started, observed until it ends or has to be ended, and gone afterwards.
//!
//! The loop below only observes. It knows when to stop waiting; what the run was worth is the verdict's to say.

use super::{
    FrameSink, TransferError, classes,
    command::Plan,
    harvest::{Harvest, Ripened},
    lines::{Line, LineBuffer},
    process::{Pipes, ProcessId, Tree},
    silence::Silence,
    timers::{Expired, Limits, Timers},
    transcript::Transcript,
};
use flatrender_engine::{Failure, Progress};
use flatrender_workflows::contracts::render::Engine;
use std::{io, process::ExitStatus, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};
use uuid::Uuid;

/// How often the output folder is looked at; lines make it sooner.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often CPU time is measured and the newest file checked, in looks.
const MEASURE_EVERY: u32 = 5;
/// How long the last lines may take to arrive once the tree is gone.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Lines read ahead of the loop.
const LINES_AHEAD: usize = 256;

/// How a run ended.
#[derive(Debug)]
pub enum End {
    /// The launcher ended by itself.
    Exited(ExitStatus),
    /// We ended it.
    Expired(Expired),
    /// We were asked to stop, for this reason.
    Stopped(Failure),
    /// It could not be started or waited for.
    NotRun(io::Error),
    /// Frames cannot be stored.
    Unstored(TransferError),
    /// It said what spoils its frames: we ended it, and nothing of it counts.
    Spoiled,
}

/// What a run tells whoever started it, as it happens.
pub trait Observer: Send {
    /// The renderer runs. Returns only once that is remembered.
    fn spawned(&mut self, id: &ProcessId);
    /// So many frames are proven and stored.
    fn progress(&mut self, progress: Progress);
    /// Resolves when the run must end, with the reason.
    fn stop(&self) -> impl Future<Output = Failure> + Send;
}

/// Renders a plan's frames into the harvest. Dropping the future kills the renderer and all it started.
pub async fn run<S: FrameSink>(
    plan: &Plan,
    attempt: Uuid,
    limits: Limits,
    harvest: &mut Harvest<S>,
    transcript: &mut Transcript,
    observer: &mut impl Observer,
) -> End {
    let (mut tree, pipes) = match Tree::spawn(&plan.command_line(), attempt) {
        Ok(spawned) => spawned,
        Err(error) => return End::NotRun(error),
    };
    observer.spawned(tree.id());
    let mut lines = read_lines(pipes);
    let mut run = Run {
        timers: Timers::start(limits, Instant::now()),
        first: plan.frames.first,
        tree: &mut tree,
        harvest,
        transcript,
    };
    let end = run.observe(&mut lines, observer).await;
    if matches!(end, End::Exited(_)) && !run.linger(limits.linger).await {
        run.transcript.warn(&classes::ZOMBIE.note());
    }
    if run.timers.spared() {
        run.transcript.warn(&classes::SLOW_FRAME.note());
    }
    if matches!(end, End::Expired(Expired::Launch)) && plan.engine == Engine::AfterEffects {
        // Its windows go with it.
        transcript.silence = Silence::of(&tree);
    }
    tree.kill().await;
    // Nobody is left to write, so this ends; unless somebody escaped with a pipe, and then it need not.
    let rest = async {
        while let Some(line) = lines.next().await {
            transcript.take(&line);
        }
    };
    let _ = tokio::time::timeout(LAST_WORDS, rest).await;
    end
}

struct Run<'a, S> {
    timers: Timers,
    first: u32,
    tree: &'a mut Tree,
    harvest: &'a mut Harvest<S>,
    transcript: &'a mut Transcript,
}

impl<S: FrameSink> Run<'_, S> {
    async fn observe(&mut self, lines: &mut Lines, observer: &mut impl Observer) -> End {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looked = 0u32;
        loop {
            let ripening = self.harvest.is_working();
            tokio::select! {
                biased;
                failure = observer.stop() => return End::Stopped(failure),
                _ = looks.tick() => {
                    looked += 1;
                    if let Some(expired) = self.look(looked.is_multiple_of(MEASURE_EVERY)) {
                        return End::Expired(expired);
                    }
                }
                ripened = self.harvest.next(), if ripening => match ripened {
                    Ok(ripened) => self.ripened(ripened, observer),
                    Err(error) => return End::Unstored(error),
                },
                // Lines may come without end: everything else goes first, except believing in the end.
                Some(line) = lines.next() => {
                    self.line(&line);
                    if self.transcript.spoiled.is_some() {
                        return End::Spoiled;
                    }
                }
                status = self.tree.launcher_ended() => return status.map_or_else(End::NotRun, End::Exited),
            }
        }
    }

    fn line(&mut self, line: &str) {
        let now = Instant::now();
        let line = self.transcript.take(line);
        // The launcher's own first words and the noise of drivers say nothing about the application.
        if !matches!(line, Line::Version(_) | Line::Launching | Line::Noise) {
            self.timers.line(now);
        }
        match line {
            // Frames may come out of order; if this is not the one, it is not proven, and that is all.
            Line::Frame { ordinal, .. } => {
                self.timers.frame(now);
                self.harvest.said(self.first.saturating_add(ordinal.saturating_sub(1)));
            }
            Line::Started => self.timers.begun(now),
            Line::Finished => self.harvest.look_at_all(),
            _ => {}
        }
    }

    fn ripened(&mut self, ripened: Option<Ripened>, observer: &mut impl Observer) {
        if let Some(Ripened::Proven(_)) = ripened {
            self.timers.frame(Instant::now());
        }
        if self.harvest.is_complete() {
            self.timers.complete(Instant::now());
        }
        observer.progress(progress("rendering", self.harvest));
    }

    fn look(&mut self, measure: bool) -> Option<Expired> {
        let now = Instant::now();
        if self.harvest.look(measure) {
            self.timers.frame(now);
        }
        // Looks may come late on a busy machine: nothing is given up on an old measure.
        if (measure || self.timers.expired(now).is_some())
            && let Some(used) = self.tree.cpu_time()
        {
            self.timers.cpu(now, used);
        }
        self.timers.expired(now)
    }

    /// Gives descendants a moment to end by themselves after the launcher has. Whether they did, as far as is known.
    async fn linger(&mut self, patience: Duration) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < patience && self.tree.is_alive() == Some(true) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.tree.is_alive() != Some(true)
    }
}

/// How far an attempt has come.
pub fn progress<S: FrameSink>(phase: &str, harvest: &Harvest<S>) -> Progress {
    let (proven, stored) = harvest.counts();
    Progress { done: proven, total: harvest.len(), detail: serde_json::json!({"phase": phase, "stored": stored}) }
}

/// Lines of both pipes, in the order they are read.
struct Lines {
    receiver: mpsc::Receiver<String>,
    /// Reading ends with us, even if somebody keeps a pipe open.
    _pumps: JoinSet<()>,
}

impl Lines {
    async fn next(&mut self) -> Option<String> {
        self.receiver.recv().await
    }
}

fn read_lines(pipes: Pipes) -> Lines {
    let (sender, receiver) = mpsc::channel(LINES_AHEAD);
    let mut pumps = JoinSet::new();
    pumps.spawn(pump(pipes.stdout, sender.clone()));
    pumps.spawn(pump(pipes.stderr, sender));
    Lines { receiver, _pumps: pumps }
}

async fn pump(mut pipe: impl AsyncRead + Unpin, sender: mpsc::Sender<String>) {
    let mut buffer = LineBuffer::default();
    let mut bytes = vec![0; 8192];
    while let Ok(read @ 1..) = pipe.read(&mut bytes).await {
        for line in buffer.push(&bytes[..read]) {
            if sender.send(line).await.is_err() {
                return;
            }
        }
    }
    if let Some(line) = buffer.finish() {
        // Nobody listens any more: then nobody misses it.
        let _ = sender.send(line).await;
    }
}
