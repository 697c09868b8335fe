//! Which processes are alive, whose they are and what they have used, as the system tells.
//!
//! Linux tells everything (`/proc`), and so does Windows, where an attempt's processes are in one job object. Elsewhere
//! on Unix the launcher's start and its group's time are asked for (`ps`), and the group ends with us.

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

pub use system::{
    Watch, cpu_time, dialog, has_desktop, identify, is_alive, kill_if_same, kill_marked, own_group, watch_over,
};

#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod system;

#[cfg(all(unix, not(target_os = "linux")))]
#[path = "unix.rs"]
mod system;

#[cfg(windows)]
#[path = "windows.rs"]
mod system;
