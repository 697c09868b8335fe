//! The lines that aerender prints, and drivers read.
//!
//! Two blanks after `PROGRESS:` in the render's own log, one in what the program says of itself, none after
//! `WARNING:`. Frame lines count from 1 while their time code is the frame's.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    time::Duration,
};

use crate::{Composition, FrameDone, RenderError, RenderPlan};

/// Where lines go, and which of them.
pub(super) struct Report {
    out: Box<dyn Write>,
    progress: bool,
}

/// What the log says about a render before its first frame.
pub(super) struct Head<'a> {
    pub(super) composition: &'a Composition,
    pub(super) plan: &'a RenderPlan,
    pub(super) render_settings: &'a str,
    pub(super) output_module: &'a str,
    pub(super) output: &'a str,
}

impl Report {
    pub(super) fn to(out: impl Write + 'static) -> Self {
        Self { out: Box::new(out), progress: true }
    }

    /// Sends all further lines to a file instead.
    pub(super) fn divert(&mut self, path: &Path) -> io::Result<()> {
        self.out = Box::new(File::create(path)?);
        Ok(())
    }

    pub(super) fn show_progress(&mut self, progress: bool) {
        self.progress = progress;
    }

    /// A line as it is. A reader that went away does not stop a render.
    pub(super) fn line(&mut self, line: &str) {
        let _ = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
    }

    /// A line of the render's log.
    pub(super) fn progress(&mut self, text: &str) {
        if self.progress {
            self.line(&format!("PROGRESS:  {text}"));
        }
    }

    /// A line about the program itself.
    pub(super) fn note(&mut self, text: &str) {
        if self.progress {
            self.line(&format!("PROGRESS: {text}"));
        }
    }

    pub(super) fn warning(&mut self, text: &str) {
        self.line(&format!("WARNING:{text}"));
    }

    pub(super) fn error(&mut self, error: &RenderError) {
        self.line(&format!("aerender ERROR: [{}] {}", error.code(), error.one_line()));
    }

    pub(super) fn head(&mut self, head: &Head<'_>) {
        if !self.progress {
            return;
        }
        let (first, last) = head.plan.range();
        let (width, height) = head.composition.size();
        let rate = head.composition.frame_rate();
        self.progress(&format!("{}: Starting composition “{}”.", now(), head.composition.name()));
        self.line("\n");
        let lines = [
            format!("Render Settings: {}", head.render_settings),
            format!("Quality: {:?}", head.plan.quality),
            "Resolution: Full".into(),
            format!("Size: {width} x {height}"),
            "Time Span: Custom".into(),
            format!("Start: {}", time_code(first, rate)),
            format!("End: {}", time_code(last, rate)),
            format!("Duration: {}", time_code(last - first + 1, rate)),
            format!("Frame Rate: {} (comp)", rate_text(rate)),
            String::new(),
            format!("Output Module: {}", head.output_module),
            format!("Output To: {}", head.output),
            "Format: PNG Sequence".into(),
            format!("Start Frame: {first}"),
            "Channels: RGB + Alpha".into(),
            "Color: Straight".into(),
            String::new(),
        ];
        lines.iter().for_each(|line| self.progress(line));
    }

    pub(super) fn frame(&mut self, done: FrameDone, rate: f64) {
        let seconds = done.took.as_secs();
        self.progress(&format!("{} ({}): {seconds} Seconds", time_code(done.number, rate), done.ordinal));
    }

    pub(super) fn finished(&mut self, composition: &str, took: Duration) {
        if !self.progress {
            return;
        }
        self.progress(&format!("{}: Finished composition “{composition}”.", now()));
        self.line("\n");
        self.progress(&format!("Total Time Elapsed: {}", elapsed(took)));
    }
}

/// As an English After Effects writes it: `4/30/2019 1:59:13 AM`.
fn now() -> String {
    chrono::Local::now().format("%-m/%-d/%Y %-I:%M:%S %p").to_string()
}

/// Hours, minutes, seconds and frames; non-drop, counted in the whole rate that is nearest.
fn time_code(frame: u32, rate: f64) -> String {
    let base = (rate.round() as u32).max(1);
    let seconds = frame / base;
    format!("{}:{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60, frame % base)
}

fn rate_text(rate: f64) -> String {
    let short = format!("{rate:.2}");
    let same = short.parse::<f64>().is_ok_and(|rounded| (rounded - rate).abs() < 0.0005);
    if same { short } else { format!("{rate:.3}") }
}

fn elapsed(took: Duration) -> String {
    match took.as_secs() {
        seconds @ 0..60 => format!("{seconds} Seconds"),
        seconds @ 60..3600 => format!("{} Min, {} Sec", seconds / 60, seconds % 60),
        seconds => format!("{} Hr, {} Min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_code_counts_frames_within_a_second() {
        assert_eq!(time_code(0, 30.0), "0:00:00:00");
        assert_eq!(time_code(108_031, 30.0), "1:00:01:01");
        assert_eq!(time_code(24, 23.976), "0:00:01:00");
    }

    #[test]
    fn a_rate_is_shown_with_the_digits_it_needs() {
        assert_eq!([25.0, 29.97, 23.976].map(rate_text), ["25.00", "29.97", "23.976"]);
    }

    #[test]
    fn elapsed_time_is_told_in_its_largest_units() {
        let told = [8, 88, 94_500].map(|seconds| elapsed(Duration::from_secs(seconds)));
        assert_eq!(told, ["8 Seconds", "1 Min, 28 Sec", "26 Hr, 15 Min"]);
    }
}
