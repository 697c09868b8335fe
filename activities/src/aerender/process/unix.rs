//! Processes on Unix systems without `/proc`, such as macOS: only what `ps` and signals tell.

use super::{Mark, ProcessId};
use crate::aerender::process::{guard::Guard, ps};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use process_wrap::tokio::{CommandWrap, ProcessGroup};
use std::{process::Command, time::Duration};

/// What ends a launcher's group when we end; none when it could not be started.
pub type Watch = Option<Guard>;

/// Starts a command in a process group of its own.
pub fn own_group(command: &mut CommandWrap, _mark: &Mark) {
    command.wrap(ProcessGroup::leader());
}

/// Has a launcher's group end when we end: what is left of one whose launcher has ended is not found at the next start.
pub fn watch_over(launcher: u32) -> Watch {
    match Guard::over(launcher) {
        Ok(guard) => Some(guard),
        Err(error) => {
            tracing::warn!(%error, "nothing will end the renderer should this node be killed");
            None
        }
    }
}

/// Names a process by its number and the time `ps` says it started.
pub fn identify(pid: u32) -> ProcessId {
    ProcessId { pid, started: started(pid) }
}

/// CPU time of a launcher's group.
pub fn cpu_time(launcher: &ProcessId, _mark: &Mark) -> Option<Duration> {
    Some(ps::time_of_group(&ask(&["-ax", "-o", "pgid=", "-o", "time="])?, launcher.pid))
}

/// Not told here: a program that asks for the titles of windows has to be allowed to see the screen.
pub fn dialog(_mark: &Mark) -> Option<String> {
    None
}

/// Not told here.
pub fn has_desktop() -> Option<bool> {
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
    let text = ask(&["-o", "lstart=", "-p", &pid.to_string()])?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// What `ps` says, in words and numbers that are the same whatever language is set.
fn ask(arguments: &[&str]) -> Option<String> {
    let told = Command::new("ps").args(arguments).env("LC_ALL", "C").output().ok()?;
    Some(String::from_utf8_lossy(&told.stdout).into_owned())
}
