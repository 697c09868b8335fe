//! What remote workers and the server say to each other, as JSON. What neither side knows yet is ignored, what is missing has the
//! default that is named.

use crate::{
    activity::{Labels, LeasedTask, Progress},
    failure::Failure,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// Longest wait of a claim, in seconds; shorter than what proxies allow.
pub const LONGEST_WAIT_SECONDS: f64 = 25.0;

/// Asks for work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// Fresh for every start of the worker: a lease belongs to a process, never to a machine.
    pub incarnation: Uuid,
    /// Where to look for work; none: in every queue that is open to the worker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<String>,
    /// Names of the activities it can do; none: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub activities: Vec<String>,
    /// What it can do now: a task that asks for other labels stays.
    #[serde(default)]
    pub labels: Labels,
    /// Most tasks that it takes at once; 1 by default.
    #[serde(default = "one")]
    pub slots: u32,
    /// Seconds to wait for work, at most [`LONGEST_WAIT_SECONDS`]; 0 by default.
    #[serde(default)]
    pub wait_seconds: f64,
}

fn one() -> u32 {
    1
}

/// Work for the worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claimed {
    /// Each with its lease.
    pub tasks: Vec<LeasedTask>,
}

/// Renews a lease.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Renew {
    /// The fence.
    pub lease_token: Uuid,
    /// How far the attempt has come; none: no news.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// What became of the lease.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Renewed {
    /// Stop the attempt and give it back: nobody wants its result any more.
    pub cancelled: bool,
    /// The lease now ends this long after the renewal.
    pub lease_seconds: f64,
}

/// Reports success.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Complete {
    /// The fence.
    pub lease_token: Uuid,
    /// The activity's output, at most 256 KiB.
    pub output: Value,
}

/// Reports a classified failure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fail {
    /// The fence.
    pub lease_token: Uuid,
    /// Why.
    pub failure: Failure,
}

/// Gives a task back without counting the attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Release {
    /// The fence.
    pub lease_token: Uuid,
}

/// Why a call was refused: RFC 9457, with a stable code.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// The status of the answer.
    pub status: u16,
    /// Stable.
    pub code: String,
    /// For people.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_claim_says_no_more_than_it_must() {
        let asked: Claim = serde_json::from_value(json!({"incarnation": Uuid::nil(), "later": true})).unwrap();
        let all = Claim {
            incarnation: Uuid::nil(),
            queues: Vec::new(),
            activities: Vec::new(),
            labels: Labels::new(),
            slots: 1,
            wait_seconds: 0.0,
        };
        assert_eq!(asked, all);
    }
}
