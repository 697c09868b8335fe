//! What storage is asked for by night: to let go of objects, to tell what it has, to take in what leaves the database.

use super::storage::{BlobHash, BlobRef};
use flatrender_engine::{Activity, Policy};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// The queue of those who do it.
pub const UPKEEP_QUEUE: &str = "upkeep";
/// Most hashes that an answer names; the others are counted.
pub const MOST_NAMED: usize = 1000;

/// Removes objects that a tenant kept. Repeatable: one that is not there is gone. What cannot be removed now is told, and fails nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveObjects {
    /// The owner.
    pub tenant_id: Uuid,
    /// At most 500.
    pub hashes: Vec<BlobHash>,
}

/// What became of objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedObjects {
    /// Those that are not there any more.
    pub gone: Vec<BlobHash>,
    /// The others.
    pub left: Vec<BlobHash>,
    /// Why the first of them is still there.
    pub error: Option<String>,
}

impl Activity for RemoveObjects {
    const NAME: &'static str = "RemoveObjects";
    const QUEUE: &'static str = UPKEEP_QUEUE;
    type Output = RemovedObjects;

    fn policy(&self) -> Policy {
        Policy { max_failures: 3, start_to_close: Duration::from_secs(600), ..Policy::default() }
    }
}

/// Compares what storage has of a tenant with what is known of. Changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompareShelf {
    /// The owner.
    pub tenant_id: Uuid,
}

/// How storage and rows differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShelfReport {
    /// Objects that are there.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects older than a week that nothing accounts for, as far as they are named.
    pub orphans: Vec<BlobHash>,
    /// How many there are.
    pub orphan_count: u64,
    /// Their bytes.
    pub orphan_bytes: u64,
    /// Content that files use and that is not there, as far as it is named.
    pub missing: Vec<BlobHash>,
    /// How many there are.
    pub missing_count: u64,
}

impl Activity for CompareShelf {
    const NAME: &'static str = "CompareShelf";
    const QUEUE: &'static str = UPKEEP_QUEUE;
    type Output = ShelfReport;

    fn policy(&self) -> Policy {
        Policy { max_failures: 3, start_to_close: Duration::from_secs(4 * 3600), ..Policy::default() }
    }
}

/// What belongs to no tenant, and is never removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shared {
    /// Stills that everybody may see.
    Stills,
    /// Months that left the database.
    Archives,
}

impl Shared {
    /// All of it.
    pub const ALL: [Self; 2] = [Self::Stills, Self::Archives];

    /// As it is stored.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stills => "stills",
            Self::Archives => "archives",
        }
    }
}

/// Looks whether storage has what belongs to no tenant. What else lies there is not told of. Changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompareShared {
    /// Which of it.
    pub shelf: Shared,
}

impl Activity for CompareShared {
    const NAME: &'static str = "CompareShared";
    const QUEUE: &'static str = UPKEEP_QUEUE;
    type Output = ShelfReport;

    fn policy(&self) -> Policy {
        Policy { max_failures: 3, start_to_close: Duration::from_secs(4 * 3600), ..Policy::default() }
    }
}

/// Stores the rows of a month that was detached from its series, as CSV with a header, among the archives of the platform. Repeatable: the month does not change any more, and
/// the file is named by its content. `month.gone` for good when there is no such month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveMonth {
    /// Its table.
    pub month: String,
}

/// A month as a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivedMonth {
    /// Rows that were written.
    pub rows: u64,
    /// The file.
    pub file: BlobRef,
}

impl Activity for ArchiveMonth {
    const NAME: &'static str = "ArchiveMonth";
    const QUEUE: &'static str = UPKEEP_QUEUE;
    type Output = ArchivedMonth;

    fn policy(&self) -> Policy {
        Policy { max_failures: 3, start_to_close: Duration::from_secs(4 * 3600), ..Policy::default() }
    }
}
