//! Which processes are alive, whose they are and what they have used, as the system tells.
//!
//! Linux tells everything (`/proc`). Elsewhere on Unix only the launcher's start is asked for (`ps`), and on
//! Windows nothing: there the job object ends with us.

use super::ProcessId;
use uuid::Uuid;

/// Environment variable that every process of an attempt inherits.
pub const MARK_VARIABLE: &str = "FLATRENDER_ATTEMPT";

/// The value of [`MARK_VARIABLE`] for one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark(String);

impl Mark {
    /// The mark of an attempt.
    pub fn of(attempt: Uuid) -> Self {
        Self(attempt.to_string())
    }

    /// The value of the variable.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

pub use system::{cpu_time, identify, is_alive, kill_if_same, kill_marked};

#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod system;

#[cfg(all(unix, not(target_os = "linux")))]
#[path = "unix.rs"]
mod system;

#[cfg(not(unix))]
mod system {
    use super::*;
    use std::time::Duration;

    pub fn identify(pid: u32) -> ProcessId {
        ProcessId { pid, started: None }
    }

    pub fn cpu_time(_launcher: &ProcessId, _mark: &Mark) -> Option<Duration> {
        None
    }

    pub fn is_alive(_group: Option<u32>, _mark: &Mark) -> Option<bool> {
        None
    }

    pub fn kill_if_same(_id: &ProcessId) -> bool {
        false
    }

    pub fn kill_marked(_mark: &Mark) -> usize {
        0
    }
}
