//! A renderer and every process it starts, as one thing that can be measured and killed.
//!
//! `aerender` is only a launcher; the work is done by a second process that outlives it. So the renderer gets a
//! process group (Unix) or a job object (Windows) of its own, and a mark in its environment by which Linux finds
//! even processes that left the group. Dropping a [`Tree`] kills all of them; what outlives our own death is found at the next start, or
//! ends with us where it would not be found.

pub mod census;
#[cfg(all(unix, any(test, not(target_os = "linux"))))]
mod guard;
#[cfg(all(unix, any(test, not(target_os = "linux"))))]
mod ps;

use census::Mark;
use process_wrap::tokio::{ChildWrapper, CommandWrap};
use serde::{Deserialize, Serialize};
use std::{ffi::OsString, io, path::PathBuf, process::ExitStatus, process::Stdio, time::Duration};
use tokio::process::{ChildStderr, ChildStdout};
use uuid::Uuid;

/// How long a killed tree may take to vanish before we stop waiting for it.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
const KILL_POLL: Duration = Duration::from_millis(20);

/// A program and how to start it.
#[derive(Debug, Clone)]
pub struct CommandLine {
    /// By full path.
    pub program: PathBuf,
    /// One item an argument.
    pub args: Vec<OsString>,
    /// Working folder.
    pub folder: PathBuf,
    /// Set on top of our own environment.
    pub env: Vec<(OsString, OsString)>,
}

/// Which process it was, so that a later one with the same number is not taken for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Number of the process, and on Unix of its group.
    pub pid: u32,
    /// When it started, in the system's own words; none where the system does not tell.
    pub started: Option<String>,
}

/// What the tree writes.
#[derive(Debug)]
pub struct Pipes {
    /// Standard output.
    pub stdout: ChildStdout,
    /// Standard error.
    pub stderr: ChildStderr,
}

/// A launcher and all its descendants.
#[derive(Debug)]
pub struct Tree {
    child: Box<dyn ChildWrapper>,
    id: ProcessId,
    mark: Mark,
    gone: bool,
    /// Ends the tree when we end, where the system does not.
    _watch: census::Watch,
}

impl Tree {
    /// Starts a program in a group of its own, marked with the attempt.
    ///
    /// # Errors
    /// What the system says when the program cannot be started.
    pub fn spawn(line: &CommandLine, attempt: Uuid) -> io::Result<(Self, Pipes)> {
        let mark = Mark::of(attempt);
        let mut command = CommandWrap::with_new(&line.program, |command| {
            command.args(&line.args).current_dir(&line.folder).envs(line.env.iter().cloned());
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            // Our own settings, tokens among them, are no business of a renderer or its plug-ins.
            for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("FLATRENDER_")) {
                command.env_remove(name);
            }
            command.env(census::MARK_VARIABLE, mark.as_str());
        });
        census::own_group(&mut command, &mark);
        let mut child = command.spawn()?;
        let pid = child.id().ok_or_else(|| io::Error::other("the process ended while it was started"))?;
        let pipes = child.stdout().take().zip(child.stderr().take());
        let tree = Self { child, id: census::identify(pid), mark, gone: false, _watch: census::watch_over(pid) };
        let (stdout, stderr) = pipes.ok_or_else(|| io::Error::other("the process has no output"))?;
        Ok((tree, Pipes { stdout, stderr }))
    }

    /// The launcher.
    pub fn id(&self) -> &ProcessId {
        &self.id
    }

    /// Waits for the launcher to end; its descendants may live on.
    ///
    /// # Errors
    /// What the system says when it cannot be waited for.
    pub async fn launcher_ended(&mut self) -> io::Result<ExitStatus> {
        // The wrapper itself would wait for the whole group.
        self.child.inner_mut().wait().await
    }

    /// CPU time used by the processes that are alive, and by those they have waited for; none where the system
    /// does not tell. May shrink when a process ends.
    pub fn cpu_time(&self) -> Option<Duration> {
        census::cpu_time(&self.id, &self.mark)
    }

    /// The title of a dialog that a process of the tree shows; none when none is seen, or the system does not tell.
    pub fn dialog(&self) -> Option<String> {
        census::dialog(&self.mark)
    }

    /// Whether any process of the tree is alive; none where the system does not tell.
    pub fn is_alive(&self) -> Option<bool> {
        census::is_alive(Some(self.id.pid), &self.mark)
    }

    /// Kills every process of the tree and waits until none is left. True when none is left.
    pub async fn kill(&mut self) -> bool {
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < KILL_PATIENCE {
            self.kill_now();
            let reaped = tokio::time::timeout(Duration::from_millis(500), self.child.wait()).await.is_ok();
            if reaped && self.is_alive() != Some(true) {
                self.gone = true;
                return true;
            }
            tokio::time::sleep(KILL_POLL).await;
        }
        tracing::error!(pid = self.id.pid, "a process of the renderer cannot be killed");
        false
    }

    fn kill_now(&mut self) {
        // An empty group's number may belong to somebody else by now.
        if self.is_alive() != Some(false)
            && let Err(error) = self.child.start_kill()
        {
            tracing::debug!(pid = self.id.pid, %error, "nothing to kill");
        }
        census::kill_marked(&self.mark);
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if !self.gone {
            self.kill_now();
        }
    }
}

/// Kills what is left of a tree that an earlier process of ours started. True when none of it is alive afterwards.
pub async fn kill_remains(id: Option<&ProcessId>, attempt: Uuid) -> bool {
    let mark = Mark::of(attempt);
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < KILL_PATIENCE {
        let known = id.is_some_and(census::kill_if_same);
        let marked = census::kill_marked(&mark);
        if !known && marked == 0 {
            return true;
        }
        tokio::time::sleep(KILL_POLL).await;
    }
    false
}
