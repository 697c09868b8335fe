//! Looking at processes, signalling them, and waiting with growing patience.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A process as the system sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Name of its program, without a folder.
    pub name: String,
    /// Dead, and only waiting for its parent to notice.
    pub zombie: bool,
}

/// The process `pid`, if there is one.
pub fn find(pid: i32) -> Option<Process> {
    if pid <= 0 {
        return None;
    }
    if cfg!(target_os = "linux") { find_in_proc(pid) } else { find_by_ps(pid) }
}

/// Whether `pid` is a process that can still do something. A zombie cannot.
pub fn is_alive(pid: i32) -> bool {
    find(pid).is_some_and(|p| !p.zombie)
}

/// Sends `signal` to `pid`. A process that is gone is no error: that is what the signal was for.
pub fn signal(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}

/// Sends `signal` to every process of the group `pid` leads.
pub fn signal_group(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(-pid), signal);
}

/// This program's own file, as it was when first asked for: a program that is replaced while it runs no longer
/// knows where it came from.
pub fn this_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| std::env::current_exe().unwrap_or_else(|_| "flatrender".into()))
}

/// The program `name` beside the running one; else the bare name, to be looked up in `PATH`.
pub fn sibling(name: &str) -> PathBuf {
    let beside = this_program().parent().map(|dir| dir.join(name));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| name.into())
}

fn find_in_proc(pid: i32) -> Option<Process> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// `/proc/PID/stat` is `pid (name) state …`, and the name may itself hold brackets and spaces.
fn parse_stat(stat: &str) -> Option<Process> {
    let (head, tail) = stat.rsplit_once(") ")?;
    let name = head.split_once('(')?.1;
    Some(Process { name: name.to_owned(), zombie: tail.starts_with(['Z', 'X']) })
}

fn find_by_ps(pid: i32) -> Option<Process> {
    let out = std::process::Command::new("ps").args(["-o", "state=,comm=", "-p", &pid.to_string()]).output().ok()?;
    let line = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    let (state, command) = line.split_once(char::is_whitespace)?;
    let name = command.trim().rsplit('/').next()?.to_owned();
    Some(Process { name, zombie: state.starts_with('Z') })
}

/// Delays that double from `first` to `most`, and start over once something has run well for a while.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
    started: Instant,
}

impl Backoff {
    /// How long something has to run before its next failure counts as a first one.
    const HEALTHY: Duration = Duration::from_secs(60);

    /// Delays from `first` to `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first, started: Instant::now() }
    }

    /// Notes that another attempt begins now.
    pub fn begins(&mut self) {
        self.started = Instant::now();
    }

    /// How long to wait before the next attempt.
    pub fn delay(&mut self) -> Duration {
        if self.started.elapsed() >= Self::HEALTHY {
            self.next = self.first;
        }
        let delay = self.next;
        self.next = (delay * 2).min(self.most);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_is_read() {
        let process = parse_stat("42 (tmux: (1) x) Z 1 42 42 0").unwrap();
        assert_eq!(process, Process { name: "tmux: (1) x".into(), zombie: true });
    }

    #[test]
    fn this_process_is_alive_and_pid_zero_is_nobody() {
        assert!(is_alive(std::process::id() as i32));
        assert_eq!(find(0), None);
    }

    #[test]
    fn delays_double_up_to_the_limit() {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(1));
        let delays: Vec<u128> = (0..5).map(|_| backoff.delay().as_millis()).collect();
        assert_eq!(delays, [200, 400, 800, 1000, 1000]);
    }
}
