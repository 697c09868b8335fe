//! The renderer's lines: put together from reads, and understood where that is possible.
//!
//! A line is a hint and no more. Texts differ by version, language and operating system, may be torn by noise of
//! drivers and plug-ins, may come late, twice, out of order or not at all. Line forms: rendering of projects by
//! After Effects 13 to 26 as seen in public logs.

/// Longest line that is kept; the rest of a longer one is dropped.
const MAX_LINE_BYTES: usize = 16 * 1024;

/// Puts lines together from reads of any size, in any encoding.
#[derive(Debug, Default)]
pub struct LineBuffer {
    pending: Vec<u8>,
}

impl LineBuffer {
    /// Takes a read and gives the lines it completes, without their line ends.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for &byte in bytes {
            if byte == b'\n' {
                lines.push(self.take());
            } else if self.pending.len() < MAX_LINE_BYTES {
                self.pending.push(byte);
            }
        }
        lines
    }

    /// What was written after the last line end, if anything.
    pub fn finish(&mut self) -> Option<String> {
        (!self.pending.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> String {
        let bytes = std::mem::take(&mut self.pending);
        // Code page 850, Shift-JIS or UTF-8: nobody says which. Only ASCII parts are ever compared.
        String::from_utf8_lossy(&bytes).trim_end_matches('\r').to_owned()
    }
}

/// What a line seems to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// The launcher's version line.
    Version(String),
    /// The launcher starts the application.
    Launching,
    /// The application is up.
    Launched,
    /// The composition is being rendered.
    Started,
    /// How long the span is that will be rendered: a time code or a number of frames, as written.
    Duration(String),
    /// A frame is done.
    Frame {
        /// From 1 within this run; says how many, not which.
        ordinal: u32,
        /// Time code or frame number, as written.
        timecode: String,
    },
    /// The composition is finished.
    Finished,
    /// A warning, without its prefix.
    Warning(String),
    /// An error, without its prefix.
    Error(String),
    /// Another line of the render's report.
    Progress,
    /// Anything else: blank lines, drivers, plug-ins.
    Noise,
}

/// Words that end a composition, in the languages seen.
const FINISHED: [&str; 3] = ["finished composition", "fin de la composition", "beendet"];
/// Words that begin one.
const STARTED: [&str; 3] = ["starting composition", "but de la composition", "gestartet"];

/// Understands a line.
pub fn parse(line: &str) -> Line {
    let line = line.trim();
    if let Some(rest) = strip(line, "PROGRESS:") {
        return progress(rest.trim());
    }
    if let Some(rest) = strip(line, "WARNING:") {
        return Line::Warning(rest.trim().to_owned());
    }
    if let Some(rest) = strip(line, "INFO:") {
        return info(rest.trim());
    }
    if let Some(rest) = strip(line, "aerender version") {
        return Line::Version(rest.trim().to_owned());
    }
    error(line).map_or(Line::Noise, Line::Error)
}

fn progress(text: &str) -> Line {
    if let Some(frame) = frame(text) {
        return frame;
    }
    if let Some(duration) = duration(text) {
        return Line::Duration(duration.to_owned());
    }
    let lower = text.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|w| lower.contains(w));
    if says(&FINISHED) {
        Line::Finished
    } else if says(&STARTED) {
        Line::Started
    } else if says(&["launching after effects"]) {
        Line::Launching
    } else if says(&["successfully launched"]) {
        Line::Launched
    } else {
        Line::Progress
    }
}

/// `Duration: 0:00:05:00`, `Dauer: 125`, `Durée: …` in any code page.
fn duration(text: &str) -> Option<&str> {
    let (label, value) = text.split_once(": ")?;
    let is_label = label == "Duration" || label == "Dauer" || (label.starts_with("Dur") && label.ends_with('e'));
    (is_label && is_moment(value)).then_some(value)
}

/// How many frames a time code or a number of frames is, at a whole number of frames a second.
pub fn frames_in(moment: &str, fps: u32) -> Option<u32> {
    let parts: Option<Vec<u32>> = moment.split([':', ';']).map(|part| part.parse().ok()).collect();
    match parts?[..] {
        [frames] => Some(frames),
        [hours, minutes, seconds, frames] => {
            let minutes = hours.checked_mul(60)?.checked_add(minutes)?;
            let count = minutes.checked_mul(60)?.checked_add(seconds)?.checked_mul(fps)?.checked_add(frames)?;
            // Drop-frame time code leaves out two numbers a minute, but for every tenth, at 30 frames a second.
            let dropped = if moment.contains(';') { fps / 15 * (minutes - minutes / 10) } else { 0 };
            count.checked_sub(dropped)
        }
        _ => None,
    }
}

fn is_moment(text: &str) -> bool {
    let fine = |c: char| c.is_ascii_digit() || matches!(c, ':' | ';' | '+');
    text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(fine)
}

/// `0:00:00:14 (15): 1 Seconds`, `1;34;40;09 (21280)`, `123 (124): 0 Sekunden`, `0:00:00:01 (2U): 0 Seconds`.
fn frame(text: &str) -> Option<Line> {
    let (timecode, rest) = text.split_once(char::is_whitespace)?;
    let (ordinal, rest) = rest.trim_start().strip_prefix('(')?.split_once(')')?;
    let ends = rest.is_empty() || rest.starts_with(':') || rest.starts_with(char::is_whitespace);
    let ordinal = ordinal.trim_end_matches(['U', 'L']).parse().ok()?;
    (is_moment(timecode) && ends).then(|| Line::Frame { ordinal, timecode: timecode.to_owned() })
}

/// Some errors come from the application's own reporter, as information.
fn info(text: &str) -> Line {
    const FATAL: [&str; 3] = ["Render aborted", "missing effect", "layer dependencies are missing"];
    if FATAL.iter().any(|f| text.contains(f)) { Line::Error(text.to_owned()) } else { Line::Progress }
}

/// `aerender ERROR: x`, `aerender ERROR -1712: x`, `aerender ERROR x`, `aerender SYNTAX ERROR: x`,
/// `aerender Error: After Effects error: x`, `aerender Fehler: x`, `After Effects error: x`.
fn error(line: &str) -> Option<String> {
    const WORDS: [&str; 5] = ["SYNTAX ERROR", "ERROR", "Error", "Fehler", "Erreur"];
    if let Some(rest) = strip(line, "After Effects error:") {
        return Some(rest.trim().to_owned());
    }
    let rest = strip(line, "aerender")?.trim_start();
    let rest = WORDS.iter().find_map(|w| rest.strip_prefix(w))?;
    Some(rest.trim_start_matches(':').trim().to_owned())
}

/// As `str::strip_prefix`, in any case of ASCII letters.
fn strip<'a>(line: &'a str, prefix: &str) -> Option<&'a str> {
    let head = line.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &line[prefix.len()..])
}

#[cfg(test)]
mod tests;
