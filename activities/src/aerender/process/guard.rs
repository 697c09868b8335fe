//! What ends a renderer's process group when we are gone, on systems that do not: a shell that waits until our end of a pipe is closed,
//! which happens also when we are killed. It is in no group of a renderer, and ends with the renderer's tree.

use std::{io, process::Stdio};
use tokio::process::{Child, Command};

/// Nothing is ever written to it: what is read is the end. The group is its argument.
const SCRIPT: &str = r#"read -r _; kill -s KILL -- "-$0""#;

/// Watches over a process group until it is dropped.
#[derive(Debug)]
pub struct Guard {
    _shell: Child,
}

impl Guard {
    /// Has a group end when we end.
    ///
    /// # Errors
    /// What the system says when the shell cannot be started.
    pub fn over(group: u32) -> io::Result<Self> {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", SCRIPT, &group.to_string()]).env_clear().process_group(0);
        // When it is dropped it is killed before its pipe is closed.
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        Ok(Self { _shell: shell.spawn()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };
    use std::{os::unix::process::ExitStatusExt, time::Duration};

    fn group() -> Child {
        Command::new("/bin/sleep").arg("600").process_group(0).kill_on_drop(true).spawn().unwrap()
    }

    #[tokio::test]
    async fn a_group_ends_when_whoever_has_started_it_is_gone() {
        let mut group = group();
        let mut guard = Guard::over(group.id().unwrap()).unwrap();
        // What the system does for us when we are killed.
        drop(guard._shell.stdin.take());
        let ended = tokio::time::timeout(Duration::from_secs(30), group.wait()).await;
        assert_eq!(ended.expect("it must end").unwrap().signal(), Some(Signal::SIGKILL as i32));
    }

    #[tokio::test]
    async fn a_group_lives_on_when_nobody_watches_over_it_any_more() {
        let mut group = group();
        let guard = Guard::over(group.id().unwrap()).unwrap();
        let shell = Pid::from_raw(guard._shell.id().unwrap() as i32);
        drop(guard);
        let gone = async {
            while kill(shell, None::<Signal>).is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), gone).await.expect("the shell must end");
        assert_eq!(group.try_wait().unwrap(), None);
    }
}
