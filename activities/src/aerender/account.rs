//! What a failure tells of itself: its class, what cures it, and what was seen ([`Evidence`]).

use super::{
    classes::{self, Class},
    driver::End,
    transcript::Transcript,
};
use flatrender_engine::Failure;
use flatrender_workflows::contracts::{
    evidence::{Cure, Evidence},
    render::{FrameFault, FrameRef},
};
use std::process::ExitStatus;

/// Faults that are told one by one.
const FAULTS: usize = 20;
const SIGNATURE_BYTES: usize = 200;

/// What an attempt left.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    /// Frames that are stored.
    pub stored: &'a [FrameRef],
    /// Frames that are not.
    pub faults: &'a [FrameFault],
    /// How the last run ended; none when every frame was there before anything was run.
    pub end: Option<&'a End>,
    /// What the renderer said.
    pub transcript: &'a Transcript,
}

impl Seen<'_> {
    /// The failure with all that was seen.
    pub fn explain(&self, failure: Failure) -> Failure {
        let transcript = self.transcript;
        let frame = self.faults.first().map(|f| f.frame).filter(|_| transcript.started || !self.stored.is_empty());
        let (exit, timer) = match self.end {
            Some(End::Exited(status)) => (exit_code(*status), None),
            Some(End::Expired(expired)) => (None, Some(expired.name().to_owned())),
            _ => (None, None),
        };
        let ended = exit.map(|code| format!("exit {code}")).or_else(|| timer.as_ref().map(|t| format!("timer {t}")));
        let evidence = Evidence {
            signature: signature(&failure.code, ended.as_deref(), transcript.errors.first().map(String::as_str)),
            exit,
            timer,
            frame,
            frames_stored: self.stored.len() as u32,
            frames_missing: self.faults.len() as u32,
            faults: self.faults[..self.faults.len().min(FAULTS)].to_vec(),
            version: transcript.version.clone(),
            errors: transcript.errors.clone(),
            log_tail: transcript.last_lines().map(str::to_owned).collect(),
            ..bare(&failure)
        };
        with(failure, &evidence)
    }
}

/// The code that it ended with; of one that a signal ended, the one that a shell gives it.
#[cfg(unix)]
fn exit_code(status: ExitStatus) -> Option<i32> {
    use std::os::unix::process::ExitStatusExt;
    status.code().or_else(|| status.signal().map(|signal| 128 + signal))
}

/// The code that it ended with.
#[cfg(not(unix))]
fn exit_code(status: ExitStatus) -> Option<i32> {
    status.code()
}

/// A failure that tells its class and cure, if it did not before. Those that are nobody's fault stay as they are.
pub fn explained(failure: Failure) -> Failure {
    if Evidence::of(&failure).is_some() || failure.is_cancelled() || failure.is_lease_lost() {
        return failure;
    }
    let evidence = bare(&failure);
    with(failure, &evidence)
}

/// A failure of one class that concerns certain things of the template.
pub fn of(class: Class, message: String, evidence: Evidence) -> Failure {
    let failure = Failure { retryable: class.is_retryable(), ..Failure::permanent(class.code, message) };
    with(failure, &evidence)
}

/// What the code alone tells. An unknown one is our own renderer's: what it says for good, the author has to mend.
fn bare(failure: &Failure) -> Evidence {
    let class = classes::by_code(&failure.code);
    let unknown = if failure.retryable { Cure::Retry } else { Cure::Author };
    Evidence::bare(&failure.code, class.and_then(|c| c.number), class.map_or(unknown, |c| c.cure))
}

fn with(failure: Failure, evidence: &Evidence) -> Failure {
    // A plain structure of strings and numbers always becomes JSON.
    let details = serde_json::to_value(evidence).unwrap_or_default();
    failure.with_details(details)
}

/// Numbers and paths differ from run to run; what is left of the words does not.
pub fn signature(code: &str, ended: Option<&str>, words: Option<&str>) -> String {
    let same = |word: &str| match word {
        path if path.contains(['/', '\\']) => "…".to_owned(),
        word => numberless(&word.to_lowercase()),
    };
    let words = words.map(|w| w.split_whitespace().map(same).collect::<Vec<_>>().join(" "));
    let parts = [Some(code.to_owned()), ended.map(str::to_owned), words];
    let whole = parts.into_iter().flatten().collect::<Vec<_>>().join(" | ");
    whole[..whole.floor_char_boundary(SIGNATURE_BYTES)].to_owned()
}

/// Every run of digits as one `#`.
fn numberless(word: &str) -> String {
    let mut out = String::with_capacity(word.len());
    for c in word.chars() {
        match c.is_ascii_digit() {
            true if out.ends_with('#') => {}
            true => out.push('#'),
            false => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aerender::timers::Expired;
    use flatrender_workflows::contracts::render::FaultReason;

    fn seen<'a>(faults: &'a [FrameFault], end: &'a End, transcript: &'a Transcript) -> Seen<'a> {
        Seen { stored: &[], faults, end: Some(end), transcript }
    }

    #[test]
    fn the_same_failure_has_the_same_signature_wherever_it_happens() {
        let crash = |frame: u32, place: &str| {
            signature("render.crashed", Some("exit 10"), Some(&format!("Frame {frame} in {place} Failed")))
        };
        assert_eq!(crash(7, "C:\\work\\a.aep"), crash(1234, "/srv/b.aep"));
        assert_eq!(crash(7, "/a"), "render.crashed | exit 10 | frame # in … failed");
        assert!(signature("render.crashed", None, Some(&"س".repeat(1000))).len() <= SIGNATURE_BYTES);
    }

    #[cfg(unix)]
    #[test]
    fn a_signal_is_told_by_the_code_that_a_shell_gives_it() {
        use std::os::unix::process::ExitStatusExt;
        let end = End::Exited(ExitStatus::from_raw(9));
        let crashed = seen(&[], &end, &Transcript::default()).explain(Failure::transient("render.crashed", "x"));
        let told = Evidence::of(&crashed).unwrap();
        assert_eq!((told.exit, told.signature.as_str()), (Some(137), "render.crashed | exit 137"));
    }

    #[test]
    fn the_frame_it_failed_at_is_told_only_once_the_composition_was_begun() {
        let faults = [FrameFault { frame: 13, reason: FaultReason::Missing }];
        let end = End::Expired(Expired::Launch);
        let mut transcript = Transcript::default();
        let told = |transcript: &Transcript| {
            Evidence::of(&seen(&faults, &end, transcript).explain(Failure::transient("render.stalled", "x"))).unwrap()
        };
        let before = told(&transcript);
        assert_eq!((before.frame, before.timer.as_deref(), before.cure), (None, Some("launch"), Cure::Repair));
        transcript.take("PROGRESS:  4/30/2019 1:59:13 AM: Starting composition “main”.");
        assert_eq!(told(&transcript).frame, Some(13));
    }

    #[test]
    fn every_failure_tells_its_cure_and_those_of_nobody_stay_bare() {
        let cure = |failure| Evidence::of(&explained(failure)).map(|e| (e.number, e.cure));
        let full = Failure::transient("render.disk_full", "x");
        assert_eq!(cure(full), Some((Some(25), Cure::OtherNode)));
        assert_eq!(cure(Failure::permanent("render.unknown_field", "x")), Some((None, Cure::Author)));
        assert_eq!(cure(Failure::transient("render.anything", "x")), Some((None, Cure::Retry)));
        assert_eq!(cure(Failure::lease_lost()), None);
        let kept = of(classes::MISSING_FONT, "x".into(), Evidence::bare("render.missing_font", Some(5), Cure::Block));
        assert_eq!(explained(kept.clone()), kept);
    }
}
