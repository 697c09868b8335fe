//! A program that cannot outlive whoever waits for it: its own process group, no inherited environment, killed on drop,
//! and killed too when we are killed.

use process_wrap::tokio::{ChildWrapper, CommandWrap, KillOnDrop};
use std::{
    collections::VecDeque,
    ffi::OsString,
    io,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{ChildStderr, ChildStdin, ChildStdout},
};

/// How much of what a program complains is kept, from the end.
const TAIL_BYTES: usize = 8 * 1024;
/// How long a killed program may take to be gone.
const DEATH: Duration = Duration::from_secs(5);
/// What of our environment a program sees: where to find libraries and temporary files, no secret.
const ENVIRONMENT: [&str; 4] = ["PATH", "SystemRoot", "TEMP", "LD_LIBRARY_PATH"];

/// Becomes the program, and leaves a guard beside it in its process group: when the pipe that the guard reads ends,
/// as it does by our death however sudden, the guard kills the group. Linux's own signal for the death of a parent
/// would not do: it comes when the thread ends that started the program.
#[cfg(unix)]
const GUARDED: &str = r#"exec 3<&0 </dev/null; (cd /; read -r _ <&3; kill -9 0) >/dev/null 2>&1 & exec "$@" 3<&-"#;
/// The same for a program that reads what a stranger made: it writes no file, leaves no core, and has the time, memory and files
/// that `$1` to `$3` say. Where Linux lets everybody make namespaces it has no network either; nothing here takes privileges.
#[cfg(unix)]
const JAILED: &str = r#"exec 3<&0 </dev/null; (cd /; read -r _ <&3; kill -9 0) >/dev/null 2>&1 &
{ ulimit -c 0; ulimit -f 0; ulimit -t "$1"; ulimit -v "$2"; ulimit -n "$3"; } 2>/dev/null; shift 3
if unshare -r -n -i true 2>/dev/null 3<&-; then exec unshare -r -n -i -- "$@" 3<&-; fi
exec "$@" 3<&-"#;
/// How a shell ends that could not become the program (POSIX, Shell Command Language, 2.8.2).
#[cfg(unix)]
const NOT_EXECUTABLE: i32 = 126;
#[cfg(unix)]
const NOT_FOUND: i32 = 127;

/// What a program may take that reads what a stranger made.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(unix), expect(dead_code, reason = "only Unix has such limits"))]
pub(super) struct Jail {
    /// Processor time; then it is killed.
    pub(super) cpu_seconds: u32,
    /// Address space. More is refused to it.
    pub(super) memory_bytes: u64,
    /// Files open at a time.
    pub(super) open_files: u32,
}

/// A running program.
#[derive(Debug)]
pub(super) struct Process {
    child: Box<dyn ChildWrapper>,
    /// Held open for as long as the program may run; on Unix its guard reads from it.
    lifeline: Option<ChildStdin>,
    gone: bool,
}

impl Process {
    /// Starts `program` in `folder`. Arguments go as they are; nothing reads them on the way.
    pub(super) fn spawn(program: &Path, folder: &Path, args: &[OsString]) -> io::Result<Self> {
        Self::spawn_within(None, program, folder, args)
    }

    /// The same, within a jail.
    pub(super) fn spawn_within(
        jail: Option<Jail>,
        program: &Path,
        folder: &Path,
        args: &[OsString],
    ) -> io::Result<Self> {
        let (program, first) = guarded(program, jail);
        let mut command = CommandWrap::with_new(program, |command| {
            command
                .args(first)
                .args(args)
                .current_dir(folder)
                .env_clear()
                .env("LC_ALL", "C")
                .env("AV_LOG_FORCE_NOCOLOR", "1");
            command.envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        });
        command.wrap(KillOnDrop);
        #[cfg(unix)]
        command.wrap(process_wrap::tokio::ProcessGroup::leader());
        #[cfg(windows)]
        command.wrap(process_wrap::tokio::JobObject);
        let mut child = command.spawn()?;
        // Taken out, since whoever waits for the child closes what it still has.
        let lifeline = child.stdin().take();
        Ok(Self { child, lifeline, gone: false })
    }

    /// What it writes: results, and complaints. Each can be taken once.
    pub(super) fn outputs(&mut self) -> io::Result<(ChildStdout, ChildStderr)> {
        let taken = || io::Error::other("the output was taken before");
        Ok((self.child.stdout().take().ok_or_else(taken)?, self.child.stderr().take().ok_or_else(taken)?))
    }

    /// Waits until it and all it started are gone.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.inner_mut().wait().await?;
        // The guard ends with the program, and where we are the first process of a container it is ours to bury.
        self.lifeline = None;
        self.child.wait().await?;
        self.gone = true;
        started(status)
    }

    /// Kills it with all it started, and waits until they are gone.
    pub(super) async fn kill(&mut self) {
        // Already gone is as good as killed.
        let _ = self.child.start_kill();
        self.gone = tokio::time::timeout(DEATH, self.child.wait()).await.is_ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Once it is gone its number may belong to somebody else.
        if !self.gone {
            let _ = self.child.start_kill();
        }
    }
}

/// The program that is started, and the arguments that go before those of `program`.
#[cfg(unix)]
fn guarded(program: &Path, jail: Option<Jail>) -> (&Path, Vec<OsString>) {
    let mut first: Vec<OsString> = vec!["-c".into(), if jail.is_some() { JAILED } else { GUARDED }.into(), "sh".into()];
    if let Some(Jail { cpu_seconds, memory_bytes, open_files }) = jail {
        first
            .extend([u64::from(cpu_seconds), memory_bytes / 1024, u64::from(open_files)].map(|n| n.to_string().into()));
    }
    first.push(program.into());
    (Path::new("/bin/sh"), first)
}

/// A job ends with the last handle to it: there the system is the guard, and there is no jail.
#[cfg(windows)]
fn guarded(program: &Path, _: Option<Jail>) -> (&Path, Vec<OsString>) {
    (program, Vec::new())
}

#[cfg(unix)]
fn started(status: ExitStatus) -> io::Result<ExitStatus> {
    match status.code() {
        Some(NOT_FOUND) => Err(io::Error::from(io::ErrorKind::NotFound)),
        Some(NOT_EXECUTABLE) => Err(io::Error::from(io::ErrorKind::PermissionDenied)),
        _ => Ok(status),
    }
}

#[cfg(windows)]
fn started(status: ExitStatus) -> io::Result<ExitStatus> {
    Ok(status)
}

/// Reads to the end and keeps the last 8 KiB.
pub(super) async fn tail(mut from: impl AsyncRead + Unpin) -> io::Result<String> {
    let (mut kept, mut buffer) = (VecDeque::new(), [0; 4096]);
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            let bytes: Vec<u8> = kept.into();
            return Ok(String::from_utf8_lossy(&bytes).trim().to_owned());
        }
        kept.extend(&buffer[..length]);
        let excess = kept.len().saturating_sub(TAIL_BYTES);
        kept.drain(..excess);
    }
}

/// Reads to the end; an error beyond `limit_bytes`.
pub(super) async fn whole(from: impl AsyncRead + Unpin, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(limit_bytes + 1).read_to_end(&mut bytes).await?;
    if bytes.len() as u64 > limit_bytes {
        return Err(io::Error::other("the program says too much"));
    }
    Ok(bytes)
}
