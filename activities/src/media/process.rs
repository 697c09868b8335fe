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
/// that `$1` to `$3` say. Where Linux lets everybody make namespaces it has no network and sees no other files either (`$4`); nothing here
/// takes privileges. Elsewhere these walls are missing, and it goes on without them: [`super::jail`] tells whether they stand.
#[cfg(unix)]
const JAILED: &str = r#"exec 3<&0 </dev/null; (cd /; read -r _ <&3; kill -9 0) >/dev/null 2>&1 &
{ ulimit -c 0; ulimit -f 0; ulimit -t "$1"; ulimit -v "$2"; ulimit -n "$3"; } 2>/dev/null; walls=$4; shift 4
if unshare -r -n -i -m true 2>/dev/null 3<&-; then exec unshare -r -n -i -m -- /bin/sh -c "$walls" sh "$@" 3<&-; fi
exec "$@" 3<&-"#;
/// What the program `$1` sees, within namespaces of its own: what it takes to run, and the folder that it is started in, all of it to be
/// read alone. No `/proc`, no `/etc`, nobody's home; and no right to make or enter anything else: who has no privileges and a root of
/// their own gets no new ones from the kernel. The kernel lets nobody uncover what is mounted below such a folder (Docker lays its init
/// into `/sbin`), so a folder with mounts comes with them, made to be read alone one by one.
#[cfg(unix)]
const WALLS: &str = r#"PATH=$PATH:/usr/sbin:/sbin job=$PWD root=/mnt real=$(readlink -f "$(command -v "$1")") IFS=:
wall() { case $1 in /?*) [ ! -d "$1" ] || { mkdir -p "$root$1" && { mount -o bind,ro,nosuid,nodev "$1" "$root$1" 2>/dev/null || whole "$1"; }; } ;; esac; }
whole() { mount -o rbind,ro,nosuid,nodev "$1" "$root$1" && while IFS=' ' read -r _ _ _ _ at _; do
    case $at in "$root$1"/*) mount -o remount,bind,ro,nosuid,nodev "$at" || return ;; esac
done </proc/self/mountinfo; }
file() { : >"$root$1" && mount --bind "$1" "$root$1"; }
if command -v setpriv >/dev/null && command -v chroot >/dev/null && mount -t tmpfs -o size=256k,mode=755 none $root 2>/dev/null && mkdir -p $root/dev $root/etc &&
    file /dev/null && file /etc/ld.so.cache; then
    walls=there
    for place in /usr /bin /sbin /lib /lib32 /lib64 /etc/alternatives /nix /gnu ${LD_LIBRARY_PATH-} "${1%/*}" "${real%/*}" "$job"; do
        wall "$place" || walls=
    done
    [ ! "$walls" ] || exec chroot $root setpriv --no-new-privs --bounding-set=-all --inh-caps=-all -- \
        /bin/sh -c 'cd "$0" && exec "$@"' "$job" "$@"
fi
exec "$@""#;
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
        first.push(WALLS.into());
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

/// Reads to the end; beyond `limit_bytes` an error of its own kind, [`io::ErrorKind::FileTooLarge`].
pub(super) async fn whole(from: impl AsyncRead + Unpin, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(limit_bytes + 1).read_to_end(&mut bytes).await?;
    if bytes.len() as u64 > limit_bytes {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the program says too much"));
    }
    Ok(bytes)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
pub(super) mod tests {
    use super::*;

    /// What a prisoner says who tries these doors, in its folder of a folder with a canary.
    async fn said(tries: &str) -> (String, tempfile::TempDir) {
        let yard = tempfile::tempdir().unwrap();
        let job = yard.path().join("job");
        std::fs::create_dir(&job).unwrap();
        std::fs::write(yard.path().join("canary"), "nobody reads this").unwrap();
        std::fs::write(job.join("song"), "la la").unwrap();
        let jail = Jail { cpu_seconds: 20, memory_bytes: 2 << 30, open_files: 32 };
        let args: Vec<OsString> = ["-c".into(), tries.into()].into();
        let mut prisoner = Process::spawn_within(Some(jail), Path::new("/bin/sh"), &job, &args).unwrap();
        let (stdout, stderr) = prisoner.outputs().unwrap();
        let (out, _, _) = tokio::try_join!(whole(stdout, 64 * 1024), tail(stderr), prisoner.wait()).unwrap();
        (String::from_utf8(out).unwrap(), yard)
    }

    /// Whether this machine lets everybody make namespaces.
    pub(in crate::media) fn has_walls() -> bool {
        let makes = std::process::Command::new("unshare").args(["-r", "-n", "-i", "-m", "true"]).output();
        makes.is_ok_and(|out| out.status.success())
    }

    /// Time, memory and files are counted, nothing is written, no secret is told.
    #[tokio::test]
    async fn m33_a_prisoner_writes_nothing_and_has_what_it_was_given() {
        let tries = "echo time $(ulimit -t) memory $(ulimit -v) files $(ulimit -n) core $(ulimit -c) env $(env | grep -c -e DATABASE -e AWS_)
            (echo harm >harm) 2>/dev/null; cat song";
        let (said, yard) = said(tries).await;
        assert_eq!(said, "time 20 memory 2097152 files 32 core 0 env 0\nla la");
        assert!(std::fs::read(yard.path().join("job/harm")).unwrap_or_default().is_empty());
    }

    /// It sees its own folder and what programs are made of, and gets no further.
    #[tokio::test]
    async fn m33_a_prisoner_sees_no_file_but_its_own() {
        if !has_walls() {
            return eprintln!("NOT TRIED: this machine lets nobody make namespaces, so that a jail has no walls on it");
        }
        let tries = "cat song; echo; cat ../canary; cat /etc/passwd; ls -d /proc /sys /home /var /boot /srv; ls ..
            mount -o remount,rw,bind . && echo remounted; mount -t tmpfs none /tmp && echo mounted
            chroot / true && echo rooted; unshare -r true && echo anew; (: >harm) && echo written; exit 0";
        let (said, _yard) = said(tries).await;
        let seen: Vec<&str> = said.lines().collect();
        assert_eq!(seen, ["la la", "job"]);
    }
}
