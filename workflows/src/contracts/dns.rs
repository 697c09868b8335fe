//! What the DNS says of names.

use flatrender_engine::{Activity, Policy};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The queue of those who look names up.
pub const DNS_QUEUE: &str = "dns";

/// Reads the TXT records of a full name, each as one text; none when there is no such name. Changes nothing.
/// `dns.no_answer` when nobody can tell right now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookUpTexts {
    /// The name, without a dot at its end.
    pub name: String,
}

impl Activity for LookUpTexts {
    const NAME: &'static str = "LookUpTexts";
    const QUEUE: &'static str = DNS_QUEUE;
    /// The texts, in the order of the answer.
    type Output = Vec<String>;

    fn policy(&self) -> Policy {
        Policy {
            max_failures: 2,
            backoff_base: Duration::from_secs(1),
            lease: Duration::from_secs(60),
            start_to_close: Duration::from_secs(60),
            ..Policy::default()
        }
    }
}
