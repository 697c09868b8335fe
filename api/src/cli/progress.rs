//! Showing how far a render is: a bar on a terminal, a line now and then elsewhere.

use super::answers::Render;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

/// Shows one render, on standard error.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    shown: Option<(String, u64)>,
    phases: Phases,
}

impl Progress {
    /// A bar when standard error is a terminal; lines otherwise; nothing when `quiet`.
    pub fn new(quiet: bool) -> Self {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(bar);
        let shown = quiet.then(|| (String::new(), u64::MAX));
        Self { bar, shown, phases: Phases::default() }
    }

    /// Shows `render` as it is now.
    pub fn show(&mut self, render: &Render) {
        self.phases.enter(&render.status);
        let percent = percent(render);
        if let Some(bar) = &self.bar {
            bar.set_position(percent);
            bar.set_message(describe(render));
            return;
        }
        // A line for each step, and for each tenth of the way in between.
        let now = (render.status.clone(), percent / 10);
        if self.shown.as_ref().is_some_and(|(_, tenth)| *tenth == u64::MAX) || self.shown.as_ref() == Some(&now) {
            return;
        }
        self.shown = Some(now);
        eprintln!("{percent:3} %  {}", describe(render));
    }

    /// Says something that is not progress.
    pub fn note(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// Takes the bar away, and tells how long each phase took.
    pub fn finish(mut self) -> Vec<(String, Duration)> {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.phases.enter("");
        self.phases.done
    }
}

/// A bar that counts to `length`; hidden when `quiet`, or where nobody sees it.
pub fn count(length: u64, quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() { ProgressBar::hidden() } else { ProgressBar::new(length) }
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner:.cyan} {bar:32.cyan/240} {percent:>3} %  {msg}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─");
    let bar = ProgressBar::new(100).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// Never 100 before the film is there.
fn percent(render: &Render) -> u64 {
    let most = if render.status == "completed" { 100 } else { 99 };
    ((render.progress.clamp(0.0, 1.0) * 100.0) as u64).min(most)
}

/// `rendering  ·  frame 120 of 300  ·  12 s left, 18 s at most in 9 of 10`
fn describe(render: &Render) -> String {
    let mut parts = vec![render.status.clone()];
    let step = render.step.as_deref().unwrap_or_default();
    if !step.is_empty() && step != render.status && !render.is_final() {
        parts.push(step.to_owned());
    }
    if render.status == "rendering" && render.frames.total > 0 {
        parts.push(format!("frame {} of {}", render.frames.rendered, render.frames.total));
    }
    let shown = |seconds: Option<f64>| {
        let sound = seconds.filter(|s| s.is_finite() && !render.is_final());
        sound.map(|s| duration(Duration::from_secs_f64(s.clamp(0.0, 1e6))))
    };
    match (shown(render.eta_seconds), shown(render.eta_p90_seconds)) {
        (Some(left), Some(most)) if most != left => parts.push(format!("{left} left, {most} at most in 9 of 10")),
        (Some(left), _) => parts.push(format!("{left} left")),
        _ => {}
    }
    parts.join("  ·  ")
}

/// `0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// How long the render was in each status, as seen from here.
#[derive(Debug, Default)]
struct Phases {
    current: Option<(String, Instant)>,
    done: Vec<(String, Duration)>,
}

impl Phases {
    fn enter(&mut self, status: &str) {
        if self.current.as_ref().is_some_and(|(name, _)| name == status) {
            return;
        }
        let next = (!status.is_empty()).then(|| (status.to_owned(), Instant::now()));
        if let Some((name, since)) = std::mem::replace(&mut self.current, next) {
            match self.done.iter_mut().find(|(known, _)| *known == name) {
                Some((_, total)) => *total += since.elapsed(),
                None => self.done.push((name, since.elapsed())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(json: serde_json::Value) -> Render {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_render_is_described_in_one_line() {
        let now = render(json!({"id": "1", "status": "rendering", "step": "render", "progress": 0.419,
            "eta_seconds": 65.2, "frames": {"total": 300, "rendered": 120}}));
        assert_eq!(describe(&now), "rendering  ·  render  ·  frame 120 of 300  ·  1 min 05 s left");
        assert_eq!(percent(&now), 41);
        let bounded = Render { eta_p90_seconds: Some(80.0), ..now };
        assert!(
            describe(&bounded).ends_with("1 min 05 s left, 1 min 20 s at most in 9 of 10"),
            "{}",
            describe(&bounded)
        );
    }

    #[test]
    fn only_a_finished_film_is_at_a_hundred() {
        assert_eq!(percent(&render(json!({"id": "1", "status": "finalizing", "progress": 1.0}))), 99);
        assert_eq!(percent(&render(json!({"id": "1", "status": "completed", "progress": 1.0}))), 100);
    }
}
