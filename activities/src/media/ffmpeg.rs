//! Runs of ffmpeg: an argument list in, progress while it works, and a typed end.

use super::{
    Media, disk_failure, process,
    process::{Jail, Process},
};
use flatrender_engine::{Attempt, Failure, Progress};
use serde_json::json;
use std::{ffi::OsString, io, path::Path, process::ExitStatus, time::Duration};
use tokio::{
    fs::File,
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{ChildStderr, ChildStdout},
    time::{Instant, timeout, timeout_at},
};

/// A program that may use so much time of processors uses it up within a part of it by the wall: on so many of them.
const CORES: u64 = 4;
/// Exit code of what was killed, as shells have it.
const KILLED: i32 = 137;
/// A run that moves neither a frame nor a sample for this long is stuck.
const SILENCE: Duration = Duration::from_secs(120);
/// How much of what it makes is taken at once.
const PIECE_BYTES: usize = 64 * 1024;

/// Arguments, one by one; never a line that somebody splits.
#[derive(Debug, Clone, Default)]
pub struct Args(Vec<OsString>);

impl Args {
    /// What every run says: ask nothing, overwrite, complain of errors only, report progress on standard output.
    pub fn ffmpeg() -> Self {
        Self::default().with(["-hide_banner", "-nostdin", "-y", "-v", "error", "-progress", "pipe:1"])
    }

    /// What a run in a jail says: ask nothing, complain of errors only, use one core and take no large piece of memory at once.
    pub fn jailed() -> Self {
        let modest = ["-threads", "1", "-filter_threads", "1", "-max_alloc", "268435456"];
        Self::default().with(["-hide_banner", "-nostdin", "-v", "error"]).with(modest)
    }

    /// Adds more at the end.
    #[must_use]
    pub fn with<T: Into<OsString>>(mut self, more: impl IntoIterator<Item = T>) -> Self {
        self.0.extend(more.into_iter().map(Into::into));
        self
    }
}

/// Why a run did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The program is not there, or the system refused to start or to hear it.
    #[error("cannot run {program}")]
    Unusable {
        /// Which program.
        program: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It stopped making progress and was killed.
    #[error("no progress for {0:?}")]
    Stuck(Duration),
    /// Somebody else killed it; the system does when memory is short.
    #[error("killed from outside")]
    Killed {
        /// The end of its complaints.
        tail: String,
    },
    /// It gave up.
    #[error("exit code {code}")]
    Refused {
        /// Its exit code.
        code: i32,
        /// The end of its complaints.
        tail: String,
    },
    /// It made more than was asked of it and was killed.
    #[error("more than {0} bytes came out")]
    TooLong(u64),
    /// What it said makes no sense.
    #[error("what it said makes no sense")]
    Garbled(#[source] serde_json::Error),
    /// What it made could not be written.
    #[error("cannot write what came out")]
    Disk(#[source] io::Error),
    /// The attempt had to end, and the program was killed.
    #[error("{0}")]
    Ended(Failure),
}

impl RunError {
    /// What it means for the attempt: a program that gave up on its input fails for good with `code`; everything
    /// else may be better on another worker or at another time.
    pub fn failure(self, code: &str, message: &str) -> Failure {
        match self {
            Self::Ended(failure) => failure,
            Self::Refused { tail, .. } if tail.contains("No space left on device") => {
                Failure::transient("media.disk", "no room is left in the scratch folder")
            }
            Self::Refused { code: exit_code, tail } => {
                Failure::permanent(code, message).with_details(json!({ "exit_code": exit_code, "log": tail }))
            }
            Self::Killed { ref tail } => {
                Failure::transient("media.killed", self.to_string()).with_details(json!({ "log": tail }))
            }
            Self::Stuck(_) => Failure::transient("media.stuck", self.to_string()),
            Self::TooLong(_) | Self::Garbled(_) => {
                Failure::permanent(code, message).with_details(json!({ "log": self.to_string() }))
            }
            Self::Disk(error) => disk_failure(error),
            Self::Unusable { ref source, .. } => Failure::transient("media.tool_missing", format!("{self}: {source}")),
        }
    }
}

/// What a run makes: progress is counted in its frames, whether it makes pictures or sound.
#[derive(Debug, Clone, Copy)]
pub(super) struct Length {
    /// Frames in all.
    pub(super) frames: u32,
    /// Frames a second.
    pub(super) fps: u32,
}

impl Media {
    /// Runs ffmpeg in `folder` and reports progress towards `length`. When the attempt ends it is killed and gone
    /// before this returns; dropping the future kills it too.
    pub(super) async fn run(&self, cx: &Attempt, folder: &Path, args: Args, length: Length) -> Result<(), RunError> {
        let mut process = Process::spawn(&self.ffmpeg, folder, &args.0).map_err(|e| self.unusable(e))?;
        let (stdout, stderr) = process.outputs().map_err(|e| self.unusable(e))?;
        self.attend(cx, process, follow(cx, stdout, length), stderr).await
    }

    /// Runs ffmpeg in `jail` on what a stranger made, in `folder`, and writes what it says on standard output to `target`: at most
    /// `limit_bytes`. Ends as [`Media::run`] does.
    pub(super) async fn run_jailed(
        &self,
        cx: &Attempt,
        folder: &Path,
        jail: Jail,
        args: Args,
        (target, limit_bytes): (&Path, u64),
    ) -> Result<(), RunError> {
        let begun = Instant::now();
        let started = Process::spawn_within(Some(jail), &self.ffmpeg, folder, &args.0);
        let mut process = started.map_err(|e| self.unusable(e))?;
        let (stdout, stderr) = process.outputs().map_err(|e| self.unusable(e))?;
        match self.attend(cx, process, keep(cx, stdout, target, limit_bytes), stderr).await {
            // It has used up its time: so it would elsewhere.
            Err(RunError::Killed { tail }) if begun.elapsed().as_secs() >= u64::from(jail.cpu_seconds) / CORES => {
                Err(RunError::Refused { code: KILLED, tail })
            }
            ended => ended,
        }
    }

    /// Waits until `hear` has heard all of it and the program is gone; kills it when that fails, or when the attempt ends.
    async fn attend(
        &self,
        cx: &Attempt,
        mut process: Process,
        hear: impl Future<Output = Result<(), RunError>> + Send,
        stderr: ChildStderr,
    ) -> Result<(), RunError> {
        let outcome = tokio::select! {
            biased;
            failure = cx.ended() => Err(RunError::Ended(failure)),
            done = async {
                let tail = async { process::tail(stderr).await.map_err(|e| self.unusable(e)) };
                let ((), tail) = tokio::try_join!(hear, tail)?;
                Ok((process.wait().await.map_err(|e| self.unusable(e))?, tail))
            } => done,
        };
        match outcome {
            Ok((status, tail)) => judge(status, tail),
            Err(error) => {
                process.kill().await;
                Err(error)
            }
        }
    }

    fn unusable(&self, source: io::Error) -> RunError {
        RunError::Unusable { program: self.ffmpeg.display().to_string(), source }
    }
}

/// Arguments as the system takes them.
pub(super) fn list(args: Args) -> Vec<OsString> {
    args.0
}

/// What an exit status says.
pub(super) fn judge(status: ExitStatus, tail: String) -> Result<(), RunError> {
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(RunError::Refused { code, tail }),
        None => Err(RunError::Killed { tail }),
    }
}

/// Reads `key=value` lines until the end: blocks of them, twice a second.
async fn follow(cx: &Attempt, stdout: ChildStdout, length: Length) -> Result<(), RunError> {
    let (mut lines, mut position, mut moved_at) = (BufReader::new(stdout).lines(), Position::default(), Instant::now());
    loop {
        let line = timeout_at(moved_at + SILENCE, lines.next_line()).await.map_err(|_| RunError::Stuck(SILENCE))?;
        let Ok(Some(line)) = line else { return Ok(()) };
        if position.read(&line) {
            moved_at = Instant::now();
            cx.heartbeat(position.progress(length)).map_err(RunError::Ended)?;
        }
    }
}

/// Writes to `target` what comes, at most `limit_bytes` of it.
async fn keep(cx: &Attempt, mut stdout: ChildStdout, target: &Path, limit_bytes: u64) -> Result<(), RunError> {
    let mut file = File::create(target).await.map_err(RunError::Disk)?;
    let (mut piece, mut kept) = (vec![0_u8; PIECE_BYTES], 0);
    loop {
        let read = timeout(SILENCE, stdout.read(&mut piece)).await.map_err(|_| RunError::Stuck(SILENCE))?;
        // A pipe that breaks has ended: why the program did, its exit tells.
        let length = read.unwrap_or(0);
        if length == 0 {
            return file.flush().await.map_err(RunError::Disk);
        }
        kept += length as u64;
        if kept > limit_bytes {
            return Err(RunError::TooLong(limit_bytes));
        }
        file.write_all(&piece[..length]).await.map_err(RunError::Disk)?;
        cx.heartbeat(Progress::default()).map_err(RunError::Ended)?;
    }
}

/// How far a run is.
#[derive(Debug, Default, PartialEq)]
struct Position {
    frame: u32,
    /// Length of what was written. ffmpeg's `out_time_ms` is in microseconds too, whatever its name says.
    micros: i64,
}

impl Position {
    /// Takes a line in; tells whether the run moved.
    fn read(&mut self, line: &str) -> bool {
        let Some((key, value)) = line.split_once('=') else { return false };
        let value = value.trim();
        match key {
            "frame" => value.parse().is_ok_and(|frame| std::mem::replace(&mut self.frame, frame) < frame),
            "out_time_us" => value.parse().is_ok_and(|micros| std::mem::replace(&mut self.micros, micros) < micros),
            _ => false,
        }
    }

    /// A run without pictures tells only time.
    fn progress(&self, Length { frames, fps }: Length) -> Progress {
        let heard = self.micros.max(0) as u64 * u64::from(fps) / 1_000_000;
        let done = u64::from(self.frame).max(heard).min(u64::from(frames)) as u32;
        Progress { done, total: frames, ..Progress::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_frame_or_a_sample_more_is_progress() {
        let mut position = Position::default();
        assert!(!position.read("frame=0"));
        assert!(position.read("frame=   12"));
        assert!(!position.read("frame=12"));
        assert!(position.read("out_time_us=40000"));
        assert!(!position.read("out_time_us=N/A"));
        assert!(!position.read("progress=continue"));
        assert_eq!(position, Position { frame: 12, micros: 40_000 });
        assert_eq!(position.progress(Length { frames: 30, fps: 25 }).done, 12);
        assert!(position.read("out_time_us=1000000"));
        assert_eq!(position.progress(Length { frames: 24, fps: 25 }).done, 24);
    }

    #[test]
    fn what_the_input_is_to_blame_for_is_not_tried_again() {
        let refused = RunError::Refused { code: 1, tail: "bad".into() };
        assert!(!refused.failure("media.encode_failed", "no").retryable);
        let full = RunError::Refused { code: 1, tail: "av_write: No space left on device".into() };
        assert_eq!(full.failure("media.encode_failed", "no").code, "media.disk");
        assert!(RunError::Killed { tail: String::new() }.failure("media.encode_failed", "no").retryable);
        assert!(!RunError::TooLong(8).failure("media.encode_failed", "no").retryable);
    }
}
