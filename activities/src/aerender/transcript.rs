//! What a renderer said, as far as it is kept: bounded, whatever it writes.

use super::{
    classes::Class,
    classify,
    lines::{self, Line},
    silence::Silence,
};
use std::collections::VecDeque;

const KEPT_TAIL: usize = 30;
const KEPT_ERRORS: usize = 20;
const KEPT_WARNINGS: usize = 40;
/// The server takes warnings of at most 500 bytes.
const KEPT_BYTES: usize = 400;

/// The lines worth keeping of one or more runs.
#[derive(Debug, Clone, Default)]
pub struct Transcript {
    /// Version line of the renderer, if it gave one.
    pub version: Option<String>,
    /// First errors, without their prefixes.
    pub errors: Vec<String>,
    /// First warnings, without their prefixes, each once.
    pub warnings: Vec<String>,
    /// What it said that shows in the frames, first of all: heard however much else was said.
    pub spoiled: Option<Class>,
    /// What was seen of the machine when it had said nothing at all.
    pub silence: Option<Silence>,
    /// Whether it said that a composition is begun.
    pub started: bool,
    /// Whether it said that the composition is finished.
    pub finished: bool,
    /// The length of the newest span, as it wrote it.
    pub duration: Option<String>,
    /// Frames it said it finished.
    pub frames_said: u32,
    /// Lines that are neither, newest last.
    tail: VecDeque<String>,
}

impl Transcript {
    /// Takes a line and says what it was.
    pub fn take(&mut self, text: &str) -> Line {
        let line = lines::parse(text);
        match &line {
            Line::Version(version) => self.version = Some(short(version)),
            Line::Error(text) => {
                self.spoiled = self.spoiled.or_else(|| classify::spoiled(text));
                if self.errors.len() < KEPT_ERRORS {
                    self.errors.push(short(text));
                }
            }
            Line::Warning(text) => self.warn(text),
            Line::Started => self.started = true,
            Line::Finished => self.finished = true,
            Line::Frame { .. } => self.frames_said += 1,
            Line::Duration(duration) => self.duration = Some(short(duration)),
            _ => {}
        }
        if let Some(class) = classify::noted(text) {
            self.warn(&class.note());
        }
        if !text.trim().is_empty() {
            if self.tail.len() == KEPT_TAIL {
                self.tail.pop_front();
            }
            self.tail.push_back(short(text));
        }
        line
    }

    /// Adds a warning of our own or the renderer's.
    pub fn warn(&mut self, text: &str) {
        self.spoiled = self.spoiled.or_else(|| classify::spoiled(text));
        let text = short(text);
        if self.warnings.len() < KEPT_WARNINGS && !self.warnings.contains(&text) {
            self.warnings.push(text);
        }
    }

    /// Every line kept that may tell why it failed: errors, then warnings, then the last lines.
    pub fn telling(&self) -> impl Iterator<Item = &str> {
        let said = self.errors.iter().chain(&self.warnings).map(String::as_str);
        said.chain(self.last_lines())
    }

    /// The last lines, newest last.
    pub fn last_lines(&self) -> impl Iterator<Item = &str> {
        self.tail.iter().map(String::as_str)
    }
}

fn short(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    text[..text.floor_char_boundary(KEPT_BYTES)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_talkative_renderer_does_not_fill_the_memory() {
        let mut transcript = Transcript::default();
        for n in 0..10_000 {
            transcript.take(&format!("aerender ERROR: {n} {}", "x".repeat(1000)));
            transcript.take(&format!("WARNING:{n}"));
        }
        assert_eq!((transcript.errors.len(), transcript.warnings.len()), (KEPT_ERRORS, KEPT_WARNINGS));
        let kept: usize = transcript.telling().map(str::len).sum();
        assert!(kept < 64 * 1024);
    }

    #[test]
    fn a_line_is_cut_by_bytes_and_between_characters() {
        let mut transcript = Transcript::default();
        transcript.take(&format!("WARNING:x{}", "س".repeat(1000)));
        assert_eq!(transcript.warnings[0].len(), 399);
    }

    #[test]
    fn a_repeated_warning_is_kept_once() {
        let mut transcript = Transcript::default();
        transcript.take("WARNING:low memory");
        transcript.take("WARNING: low memory");
        assert_eq!(transcript.warnings, ["low memory"]);
    }
}
