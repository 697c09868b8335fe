//! Processes on Unix systems without `/proc`: only what `ps` and signals tell.

use super::{Mark, ProcessId};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use process_wrap::tokio::{CommandWrap, ProcessGroup};
use std::{process::Command, time::Duration};

/// Starts a command in a process group of its own.
pub fn own_group(command: &mut CommandWrap, _mark: &Mark) {
    command.wrap(ProcessGroup::leader());
}

/// Names a process by its number and the time `ps` says it started.
pub fn identify(pid: u32) -> ProcessId {
    ProcessId { pid, started: started(pid) }
}

/// Not told here.
pub fn cpu_time(_launcher: &ProcessId, _mark: &Mark) -> Option<Duration> {
    None
}

/// Not told here: a program that asks for the titles of windows has to be allowed to see the screen.
pub fn dialog(_mark: &Mark) -> Option<String> {
    None
}

/// Whether the group has a process.
pub fn is_alive(group: Option<u32>, _mark: &Mark) -> Option<bool> {
    group.map(|group| killpg(Pid::from_raw(group as i32), None::<Signal>).is_ok())
}

/// Kills the group of a launcher, if the process of this number is still that launcher. True when it was alive.
pub fn kill_if_same(id: &ProcessId) -> bool {
    let same = id.started.is_some() && started(id.pid) == id.started;
    same && killpg(Pid::from_raw(id.pid as i32), Signal::SIGKILL).is_ok()
}

/// Marks cannot be read here.
pub fn kill_marked(_mark: &Mark) -> usize {
    0
}

fn started(pid: u32) -> Option<String> {
    let output = Command::new("ps").args(["-o", "lstart=", "-p", &pid.to_string()]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!text.is_empty()).then_some(text)
}
