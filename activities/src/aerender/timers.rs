//! When a renderer that shows no sign of life is given up, and when one that is merely slow is not.
//!
//! ```text
//! spawn ─launch─▶ first line ─load─▶ started ─first frame─▶ frame ─stall─▶ frame … all proven ─quit─▶ gone
//!   └──────────────────────────────── total ─────────────────────────────────────────────────────────┘
//! ```
//! Time is the monotonic clock's, passed in. CPU time used by the tree counts as a sign of life, so that a long
//! frame is not taken for a hang; up to a limit, so that an endless loop is.

use flatrender_workflows::contracts::render::Pace;
use std::time::Duration;
use tokio::time::Instant;

/// A frame may take this many times what all but one in a hundred of its template take.
const PATIENCE_PER_P99: u32 = 10;

/// How long each part of a run may take without a sign of life.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// From the start to the first line.
    pub launch: Duration,
    /// From the first line to the start of the composition.
    pub load: Duration,
    /// From there to the first frame.
    pub first_frame: Duration,
    /// From one frame to the next.
    pub frame_stall: Duration,
    /// From the last frame being proven to the end of the process.
    pub quit: Duration,
    /// The whole run.
    pub total: Duration,
    /// For descendants to end after the launcher has.
    pub linger: Duration,
    /// A tree that computes may take this many times longer.
    pub busy_factor: u32,
    /// The share of one processor that makes a tree one that computes.
    pub busy_share: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            launch: Duration::from_secs(180),
            load: Duration::from_secs(300),
            first_frame: Duration::from_secs(300),
            frame_stall: Duration::from_secs(120),
            quit: Duration::from_secs(60),
            total: Duration::from_secs(4 * 3600),
            linger: Duration::from_secs(2),
            busy_factor: 10,
            busy_share: 0.1,
        }
    }
}

impl Limits {
    /// The same, but a template whose frames take long gets more time for each; never less than the usual. The
    /// whole run gets no more.
    #[must_use]
    pub fn paced(self, pace: Option<Pace>) -> Self {
        let frame = pace.map_or(Duration::ZERO, |p| Duration::from_millis(p.p99_ms).saturating_mul(PATIENCE_PER_P99));
        let longer = |usual: Duration| usual.max(frame).min(self.total);
        Self { first_frame: longer(self.first_frame), frame_stall: longer(self.frame_stall), ..self }
    }
}

/// The timer that ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    /// Nothing was ever said.
    Launch,
    /// The composition was never begun.
    Load,
    /// No frame came.
    FirstFrame,
    /// No further frame came.
    FrameStall,
    /// Every frame is there, but the process does not end. Not a failure.
    Quit,
    /// It took too long altogether.
    Total,
}

impl Expired {
    /// As it stands in a failure's details.
    pub fn name(self) -> &'static str {
        match self {
            Self::Launch => "launch",
            Self::Load => "load",
            Self::FirstFrame => "first_frame",
            Self::FrameStall => "frame_stall",
            Self::Quit => "quit",
            Self::Total => "total",
        }
    }
}

/// CPU time is compared over windows of at most this length.
const BUSY_WINDOW: Duration = Duration::from_secs(10);

/// The timers of one run.
#[derive(Debug)]
pub struct Timers {
    limits: Limits,
    started: Instant,
    phase: Phase,
    /// When the phase began or last showed a frame or line.
    sign: Instant,
    /// As `sign`, or later when the tree computes.
    life: Instant,
    cpu_window: (Instant, Duration),
    spared: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Launching,
    Loading,
    Starting,
    Rendering,
    Quitting,
}

impl Timers {
    /// Timers of a run that starts now.
    pub fn start(limits: Limits, now: Instant) -> Self {
        let cpu_window = (now, Duration::ZERO);
        Self { limits, started: now, phase: Phase::Launching, sign: now, life: now, cpu_window, spared: false }
    }

    /// A line was written. Lines say that it lives; only frames say that it advances.
    pub fn line(&mut self, now: Instant) {
        match self.phase {
            Phase::Launching => self.enter(Phase::Loading, now),
            Phase::Loading | Phase::Starting | Phase::Rendering => self.life = now,
            Phase::Quitting => {}
        }
    }

    /// The composition is begun.
    pub fn begun(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Launching | Phase::Loading) {
            self.enter(Phase::Starting, now);
        }
    }

    /// A frame appeared, by its file or its line.
    pub fn frame(&mut self, now: Instant) {
        if self.phase != Phase::Quitting {
            self.enter(Phase::Rendering, now);
        }
    }

    /// Every planned frame is proven.
    pub fn complete(&mut self, now: Instant) {
        if self.phase != Phase::Quitting {
            self.enter(Phase::Quitting, now);
        }
    }

    /// The tree has used so much CPU time up to now.
    pub fn cpu(&mut self, now: Instant, used: Duration) {
        let (since, before) = self.cpu_window;
        let window = BUSY_WINDOW.min(self.limit().0 / 4);
        let elapsed = now.duration_since(since);
        if elapsed < window && used >= before {
            return;
        }
        let gained = used.saturating_sub(before);
        if self.phase != Phase::Quitting && gained.as_secs_f64() >= elapsed.as_secs_f64() * self.limits.busy_share {
            self.life = now;
            self.spared |= now.duration_since(self.sign) >= self.limit().0;
        }
        self.cpu_window = (now, used);
    }

    /// The timer that has run out, if one has.
    pub fn expired(&self, now: Instant) -> Option<Expired> {
        let (limit, expired) = self.limit();
        if now.duration_since(self.started) >= self.limits.total && expired != Expired::Quit {
            return Some(Expired::Total);
        }
        let silent = now.duration_since(self.life) >= limit;
        let endless = now.duration_since(self.sign) >= limit * self.limits.busy_factor.max(1);
        (silent || endless).then_some(expired)
    }

    /// Whether a part took longer than its time and was waited for because the tree computed.
    pub fn spared(&self) -> bool {
        self.spared
    }

    fn limit(&self) -> (Duration, Expired) {
        match self.phase {
            Phase::Launching => (self.limits.launch, Expired::Launch),
            Phase::Loading => (self.limits.load, Expired::Load),
            Phase::Starting => (self.limits.first_frame, Expired::FirstFrame),
            Phase::Rendering => (self.limits.frame_stall, Expired::FrameStall),
            Phase::Quitting => (self.limits.quit, Expired::Quit),
        }
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        (self.phase, self.sign, self.life) = (phase, now, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const SECOND: Duration = Duration::from_secs(1);

    /// Lets `seconds` pass; every second the tree uses `cpu` of a processor.
    async fn pass(timers: &mut Timers, used: &mut Duration, seconds: u32, cpu: f64) -> Option<Expired> {
        for _ in 0..seconds {
            advance(SECOND).await;
            *used += SECOND.mul_f64(cpu);
            timers.cpu(Instant::now(), *used);
            if let Some(expired) = timers.expired(Instant::now()) {
                return Some(expired);
            }
        }
        None
    }

    fn timers() -> (Timers, Duration) {
        (Timers::start(Limits::default(), Instant::now()), Duration::ZERO)
    }

    #[test]
    fn a_template_of_slow_frames_gets_more_time_for_each_and_none_gets_less() {
        let usual = Limits::default();
        let paced = |p99_ms| usual.paced(Some(Pace { p50_ms: 1000, p99_ms }));
        assert_eq!(usual.paced(None), usual);
        assert_eq!(paced(100), usual);
        assert_eq!(paced(20_000), Limits { frame_stall: 200 * SECOND, ..usual });
        assert_eq!(paced(90_000), Limits { first_frame: 900 * SECOND, frame_stall: 900 * SECOND, ..usual });
        assert_eq!(paced(u64::MAX).frame_stall, usual.total);
    }

    #[tokio::test(start_paused = true)]
    async fn a_renderer_that_never_speaks_is_given_up() {
        let (mut timers, mut used) = timers();
        assert_eq!(pass(&mut timers, &mut used, 179, 0.0).await, None);
        assert_eq!(pass(&mut timers, &mut used, 1, 0.0).await, Some(Expired::Launch));
    }

    #[tokio::test(start_paused = true)]
    async fn a_renderer_without_a_first_frame_is_given_up() {
        let (mut timers, mut used) = timers();
        timers.line(Instant::now());
        timers.begun(Instant::now());
        assert_eq!(pass(&mut timers, &mut used, 299, 0.0).await, None);
        assert_eq!(pass(&mut timers, &mut used, 1, 0.0).await, Some(Expired::FirstFrame));
    }

    #[tokio::test(start_paused = true)]
    async fn a_renderer_that_never_begins_is_given_up() {
        let (mut timers, mut used) = timers();
        assert_eq!(pass(&mut timers, &mut used, 100, 0.0).await, None);
        timers.line(Instant::now());
        assert_eq!(pass(&mut timers, &mut used, 299, 0.0).await, None);
        assert_eq!(pass(&mut timers, &mut used, 1, 0.0).await, Some(Expired::Load));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_frame_that_computes_is_not_a_hang() {
        let (mut timers, mut used) = timers();
        timers.frame(Instant::now());
        assert_eq!(pass(&mut timers, &mut used, 1000, 0.9).await, None);
        timers.frame(Instant::now());
        assert_eq!(pass(&mut timers, &mut used, 1100, 0.2).await, None);
        assert!(timers.spared(), "it is told");
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_neither_computes_nor_ends_is_a_hang() {
        let (mut timers, mut used) = timers();
        timers.frame(Instant::now());
        assert_eq!(pass(&mut timers, &mut used, 200, 0.01).await, Some(Expired::FrameStall));
    }

    #[tokio::test(start_paused = true)]
    async fn an_endless_loop_is_a_hang_in_the_end() {
        let (mut timers, mut used) = timers();
        timers.frame(Instant::now());
        assert_eq!(pass(&mut timers, &mut used, 1199, 1.0).await, None);
        assert_eq!(pass(&mut timers, &mut used, 1, 1.0).await, Some(Expired::FrameStall));
    }

    #[tokio::test(start_paused = true)]
    async fn not_ending_after_the_last_frame_is_told_apart() {
        let (mut timers, mut used) = timers();
        timers.frame(Instant::now());
        timers.complete(Instant::now());
        assert_eq!(pass(&mut timers, &mut used, 60, 1.0).await, Some(Expired::Quit));
    }

    #[tokio::test(start_paused = true)]
    async fn the_whole_run_has_a_limit() {
        let (mut timers, _) = timers();
        for _ in 0..4 * 60 {
            assert_eq!(timers.expired(Instant::now()), None);
            advance(60 * SECOND).await;
            timers.frame(Instant::now());
        }
        assert_eq!(timers.expired(Instant::now()), Some(Expired::Total));
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_ends_does_not_make_the_tree_look_idle_for_ever() {
        let (mut timers, mut used) = timers();
        timers.frame(Instant::now());
        assert_eq!(pass(&mut timers, &mut used, 100, 0.9).await, None);
        used = Duration::ZERO;
        assert_eq!(pass(&mut timers, &mut used, 300, 0.9).await, None);
    }
}
