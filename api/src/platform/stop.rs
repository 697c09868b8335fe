//! Being told to stop: once to finish in order, twice to hurry.

use std::io::Read as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What a long-running command watches.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Finish in order: no new work, running work is given back.
    pub gently: CancellationToken,
    /// Leave out what can be left out. What is not finished is taken over by the next start.
    pub hurry: CancellationToken,
}

impl Stop {
    /// Watches SIGINT and SIGTERM; the first means gently, the second hurry, the third ends the process there and
    /// then. With `parent`, the end of standard input means gently as well: whoever held the other end is gone.
    ///
    /// # Errors
    /// The system has no handler left.
    pub fn on_signals(parent: bool) -> std::io::Result<Self> {
        let stop = Self::default();
        let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let watched = stop.clone();
        tokio::spawn(async move {
            for reach in [&watched.gently, &watched.hurry] {
                tokio::select! {
                    _ = int.recv() => {}
                    _ = term.recv() => {}
                }
                reach.cancel();
            }
            tokio::select! {
                _ = int.recv() => {}
                _ = term.recv() => {}
            }
            std::process::exit(130);
        });
        if parent {
            let orphaned = stop.gently.clone();
            // A thread: a read of standard input cannot be called off.
            std::thread::spawn(move || {
                let (mut stdin, mut bytes) = (std::io::stdin(), [0; 64]);
                while stdin.read(&mut bytes).is_ok_and(|n| n > 0) {}
                orphaned.cancel();
            });
        }
        Ok(stop)
    }
}
