//! Processes as `/proc` shows them. Source: proc(5).

use super::{MARK_VARIABLE, Mark, ProcessId};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use process_wrap::tokio::{CommandWrap, ProcessGroup};
use std::{fs, time::Duration};

/// `USER_HZ`: the unit of times in `/proc`, 100 on every architecture Linux runs on today.
const TICKS_PER_SECOND: u64 = 100;

/// The fields of `/proc/PID/stat` that matter here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stat {
    pid: i32,
    state: char,
    group: i32,
    /// User and system time, of itself and of children it has waited for.
    cpu_ticks: u64,
    start_ticks: u64,
}

/// Starts a command in a process group of its own.
pub fn own_group(command: &mut CommandWrap, _mark: &Mark) {
    command.wrap(ProcessGroup::leader());
}

/// Nothing has to end a tree when we end: marks tell the next start what is left of it.
pub type Watch = ();

/// See [`Watch`].
pub fn watch_over(_launcher: u32) -> Watch {}

/// Names a process by its number, the boot and the tick it started in.
pub fn identify(pid: u32) -> ProcessId {
    let started = stat(pid as i32).map(|s| format!("{}/{}", boot_id(), s.start_ticks));
    ProcessId { pid, started }
}

/// CPU time of a launcher's group and of the processes that carry its mark.
pub fn cpu_time(launcher: &ProcessId, mark: &Mark) -> Option<Duration> {
    // What it started is younger than it is: nobody else's environment needs to be read.
    let since = launcher.started.as_deref().and_then(|s| s.rsplit('/').next()?.parse().ok()).unwrap_or(0);
    let marked = |s: &Stat| s.start_ticks >= since && carries(s.pid, mark);
    let ours = processes().filter(|s| s.group == launcher.pid as i32 || marked(s));
    let ticks: u64 = ours.map(|s| s.cpu_ticks).sum();
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// After Effects, which opens dialogs, does not run here.
pub fn dialog(_mark: &Mark) -> Option<String> {
    None
}

/// Not told here.
pub fn has_desktop() -> Option<bool> {
    None
}

/// Whether a process of the group, or one that carries the mark, is alive. A zombie is not.
pub fn is_alive(group: Option<u32>, mark: &Mark) -> Option<bool> {
    Some(processes().any(|s| s.state != 'Z' && (Some(s.group as u32) == group || carries(s.pid, mark))))
}

/// Kills the group of a launcher, if the process of this number is still that launcher. True when it was alive.
pub fn kill_if_same(id: &ProcessId) -> bool {
    let same = id.started.is_some() && identify(id.pid) == *id;
    let alive = same && stat(id.pid as i32).is_some_and(|s| s.state != 'Z');
    if alive {
        // It led the group when it started; a failure means that it has just ended.
        let _ = killpg(Pid::from_raw(id.pid as i32), Signal::SIGKILL);
    }
    alive
}

/// Kills every process that carries the mark. How many there were.
pub fn kill_marked(mark: &Mark) -> usize {
    let marked: Vec<Stat> = processes().filter(|s| s.state != 'Z' && carries(s.pid, mark)).collect();
    for process in &marked {
        // A failure means that the process has just ended.
        let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
    }
    marked.len()
}

fn processes() -> impl Iterator<Item = Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(stat)
}

fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// `123 (a name) with) S 1 123 …`: fields are counted from the last bracket, names may contain any character.
fn parse_stat(text: &str) -> Option<Stat> {
    let (head, tail) = text.rsplit_once(") ")?;
    let pid = head.split_once(' ')?.0.parse().ok()?;
    let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
    // Field n of proc(5) is fields[n - 3].
    let number = |n: usize| fields.get(n - 3)?.parse::<u64>().ok();
    Some(Stat {
        pid,
        state: fields.first()?.chars().next()?,
        group: fields.get(2)?.parse().ok()?,
        cpu_ticks: number(14)? + number(15)? + number(16)? + number(17)?,
        start_ticks: number(22)?,
    })
}

fn carries(pid: i32, mark: &Mark) -> bool {
    let wanted = format!("{MARK_VARIABLE}={}", mark.as_str());
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|env| env.split(|b| *b == 0).any(|v| v == wanted.as_bytes()))
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_have_any_name() {
        let text = "7 (a) b (c) R 1 42 42 0 -1 4194304 1 2 3 4 10 20 30 40 20 0 1 0 777 1 2";
        let stat = parse_stat(text).unwrap();
        assert_eq!(stat, Stat { pid: 7, state: 'R', group: 42, cpu_ticks: 100, start_ticks: 777 });
    }

    #[test]
    fn we_are_found_and_nobody_else_is_taken_for_us() {
        let us = identify(std::process::id());
        assert!(us.started.is_some());
        let other = ProcessId { started: Some("another boot/1".into()), ..us };
        assert!(!kill_if_same(&other), "a process with the same number is not ours");
    }
}
