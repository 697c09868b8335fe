//! What an attempt was worth: the frames decide, words and exit codes only explain.
//!
//! ```text
//! frames        spoiled by a warning      reason for good       otherwise
//! all stored    Failure                   done, with warnings   done
//! some stored   Failure                   Failure               done, the rest as faults
//! none          Failure                   Failure               Failure
//! ```

use super::{
    TransferError,
    account::Seen,
    classes::{self, Class},
    classify,
    driver::End,
    harvest::Strays,
    transcript::Transcript,
};
use flatrender_engine::Failure;
use flatrender_workflows::contracts::render::{FaultReason, FrameFault, FrameRef};

/// Longest message of a renderer that is shown to people.
const MESSAGE_CHARS: usize = 300;

/// What a run left besides frames and words.
#[derive(Debug, Clone, Copy, Default)]
pub struct Findings {
    /// Files that nobody asked for.
    pub strays: Strays,
    /// The renderer announced another number of frames than it was asked for.
    pub stale_span: bool,
}

/// Decides over the stored frames and the faults of an attempt whose last run ended as `end`; none when every
/// frame was there before anything was run. Why some are missing, if some are and the others are kept.
///
/// # Errors
/// The failure that the attempt ends with.
pub fn decide(
    stored: &[FrameRef],
    faults: &[FrameFault],
    end: Option<&End>,
    findings: &Findings,
    transcript: &mut Transcript,
) -> Result<Option<Failure>, Failure> {
    if let Some(End::Stopped(failure)) = end
        && stored.is_empty()
    {
        return Err(failure.clone());
    }
    let explain = |failure, transcript: &Transcript| Seen { stored, faults, end, transcript }.explain(failure);
    if let Some(class) = transcript.spoiled {
        return Err(explain(failure(class), transcript));
    }
    if faults.is_empty() {
        note_doubtful_end(end, transcript);
        return Ok(None);
    }
    if let Some(End::Stopped(failure)) = end {
        // What a shutdown leaves is worth keeping, like what a crash leaves; and it was no crash.
        transcript.warn(&failure.message);
        return Ok(Some(failure.clone()));
    }
    let reason = explain(reason(faults, end, findings, transcript), transcript);
    if stored.is_empty() || !reason.retryable {
        return Err(reason);
    }
    transcript.warn(&format!("{}: {}", reason.code, reason.message));
    Ok(Some(reason))
}

/// The failure that a transfer's error means for the attempt.
pub fn of_transfer(error: &TransferError, object: &str) -> Failure {
    match error {
        TransferError::LeaseLost => Failure::lease_lost(),
        TransferError::NotFound => Failure::permanent("render.input_not_found", format!("{object} is not there")),
        TransferError::DiskFull => Failure::transient("render.disk_full", "the node has no room left on its disk"),
        TransferError::Full => Failure::transient("storage.full", "the storage has no room left"),
        TransferError::Mismatch => {
            Failure::transient("render.hash_mismatch", format!("{object} arrived with another content"))
        }
        TransferError::Other(cause) => {
            Failure::transient("render.transfer_failed", format!("{object} could not be transferred: {cause}"))
        }
    }
}

/// Why frames are missing: our renderer's own code, words, what was seen of its silence, the timer, the files, the exit code, in this order.
/// What a crash has torn is told as the crash.
fn reason(faults: &[FrameFault], end: Option<&End>, findings: &Findings, transcript: &Transcript) -> Failure {
    if let Some((code, retryable, message)) = transcript.errors.iter().find_map(|e| classify::coded(e)) {
        let message: String = message.chars().take(MESSAGE_CHARS).collect();
        return Failure { retryable, ..Failure::permanent(code, message) };
    }
    if let Some(End::Unstored(error)) = end {
        return of_transfer(error, "a frame");
    }
    if let Some(End::NotRun(error)) = end {
        let class = classes::LAUNCH_FAILED;
        return Failure::transient(class.code, format!("{}: {error}", class.message));
    }
    if let Some(class) = transcript.telling().find_map(classify::by_words) {
        return failure(class);
    }
    if let Some(silence) = &transcript.silence {
        return silence.failure();
    }
    let timer = match end {
        Some(End::Expired(expired)) => classify::by_timer(*expired),
        _ => None,
    };
    let exit = match end {
        Some(End::Exited(status)) => classify::by_exit(*status),
        _ => classes::NO_FRAMES,
    };
    let files = || by_files(faults, findings, exit == classes::CRASHED);
    failure(timer.or_else(files).unwrap_or(exit))
}

/// What the folder of frames tells of those that are missing. Whoever has crashed may have been writing some of them: those are torn, and
/// not of another size.
fn by_files(faults: &[FrameFault], findings: &Findings, has_crashed: bool) -> Option<Class> {
    let unreadable = |f: &FrameFault| match f.reason {
        FaultReason::Corrupt => !has_crashed,
        FaultReason::WrongSize => true,
        _ => false,
    };
    match findings {
        Findings { strays: Strays { other_kinds: 1.., .. }, .. } => Some(classes::FORCED_EXTENSION),
        Findings { strays: Strays { other_numbers: 1.., .. }, .. } => Some(classes::WRONG_NUMBERS),
        Findings { stale_span: true, .. } => Some(classes::STALE_SPAN),
        _ => faults.iter().any(unreadable).then_some(classes::CORRUPT_FRAMES),
    }
}

fn failure(class: Class) -> Failure {
    Failure { retryable: class.is_retryable(), ..Failure::permanent(class.code, class.message) }
}

/// Every frame is there although the renderer says otherwise: believed, and noted.
fn note_doubtful_end(end: Option<&End>, transcript: &mut Transcript) {
    match end {
        Some(End::Exited(status)) if !status.success() => {
            transcript.warn(&format!("{} ({status})", classes::DOUBTFUL_EXIT.note()));
        }
        Some(End::Expired(expired)) => {
            transcript.warn(&format!("{} ({})", classes::QUIT_STALLED.note(), expired.name()));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aerender::{silence::Silence, timers::Expired};
    use flatrender_workflows::contracts::{
        render::FaultReason,
        storage::{BlobHash, BlobRef},
    };

    fn stored(count: u32) -> Vec<FrameRef> {
        let blob = BlobRef { sha256: BlobHash::of(b"x"), size_bytes: 1 };
        (0..count).map(|frame| FrameRef { frame, blob: blob.clone() }).collect()
    }

    fn missing(count: u32) -> Vec<FrameFault> {
        (0..count).map(|n| FrameFault { frame: 100 + n, reason: FaultReason::Missing }).collect()
    }

    fn said(lines: &[&str]) -> Transcript {
        let mut transcript = Transcript::default();
        for line in lines {
            transcript.take(line);
        }
        transcript
    }

    fn code(frames: (u32, u32), end: End, lines: &[&str]) -> Result<(), (String, bool)> {
        let verdict = decide(&stored(frames.0), &missing(frames.1), Some(&end), &Findings::default(), &mut said(lines));
        verdict.map(drop).map_err(|f| (f.code, f.retryable))
    }

    fn refused(code: &str, retryable: bool) -> Result<(), (String, bool)> {
        Err((code.to_owned(), retryable))
    }

    #[test]
    fn complete_frames_beat_words_exit_and_timers() {
        assert_eq!(code((3, 0), End::Expired(Expired::Quit), &[]), Ok(()));
        assert_eq!(code((3, 0), End::Expired(Expired::FrameStall), &["aerender ERROR: x"]), Ok(()));
    }

    #[test]
    fn a_spoiled_picture_is_never_delivered() {
        let lines = ["WARNING:After Effects warning: Project has missing fonts."];
        assert_eq!(code((3, 0), End::Expired(Expired::Quit), &lines), refused("render.missing_font", true));
    }

    #[test]
    fn a_part_is_kept_unless_the_reason_is_for_good() {
        assert_eq!(code((2, 1), End::Expired(Expired::FrameStall), &[]), Ok(()));
        let lines = ["aerender ERROR: [render.missing_image] photo1"];
        assert_eq!(code((2, 1), End::Expired(Expired::Total), &lines), refused("render.missing_image", false));
    }

    #[cfg(unix)]
    #[test]
    fn a_frame_that_a_crash_has_torn_is_told_as_the_crash() {
        use std::os::unix::process::ExitStatusExt;
        let told = |reason, wait_status: i32| {
            let end = End::Exited(std::process::ExitStatus::from_raw(wait_status));
            let faults = [FrameFault { frame: 2, reason }];
            let verdict = decide(&stored(2), &faults, Some(&end), &Findings::default(), &mut said(&[]));
            verdict.map(|cause| cause.map(|failure| failure.code))
        };
        let corrupt = Ok(Some("render.corrupt_frames".to_owned()));
        assert_eq!(told(FaultReason::Corrupt, 9), Ok(Some("render.crashed".to_owned())), "killed by a signal");
        assert_eq!(told(FaultReason::Corrupt, 0), corrupt);
        assert_eq!(told(FaultReason::WrongSize, 9), corrupt, "its header is whole");
    }

    #[test]
    fn with_no_frame_the_best_explanation_is_the_code() {
        assert_eq!(code((0, 3), End::Expired(Expired::Launch), &[]), refused("render.launch_stalled", true));
        assert_eq!(code((0, 3), End::Expired(Expired::Total), &[]), refused("render.timed_out", true));
        let full = ["aerender ERROR: No space left on device", "INFO: Render aborted."];
        assert_eq!(code((0, 3), End::Expired(Expired::Total), &full), refused("render.disk_full", true));
        let mut silent = said(&[]);
        silent.silence = Silence::told(Some("Sign in".into()), None);
        let launch = End::Expired(Expired::Launch);
        let verdict = decide(&[], &missing(3), Some(&launch), &Findings::default(), &mut silent);
        assert_eq!(verdict.map_err(|failure| (failure.code, failure.retryable)), Err(("node.dialog".to_owned(), true)));
        let not_run = End::NotRun(std::io::ErrorKind::NotFound.into());
        assert_eq!(code((0, 3), not_run, &[]), refused("render.launch_failed", true));
    }
}
