//! What there is to do, and who could do it.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};
use uuid::Uuid;

/// What a node can do, or what an item asks of it.
pub type Labels = BTreeMap<String, String>;

/// What a node had better hold before it begins, by its hash.
pub type Package = Arc<str>;

/// What kind of work it is. Somebody looks at the screen and waits for what is interactive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A still of a scene, for the editor.
    Snapshot,
    /// A chunk of a small film, to look at.
    Preview,
    /// Frames of a film that is nearly done.
    Repair,
    /// A chunk of a film.
    Final,
    /// What a node has been at for far too long, for a second one: only for nodes that have nothing else to do.
    Spare,
}

impl Class {
    /// All, the most urgent first.
    pub const ALL: [Self; 5] = [Self::Snapshot, Self::Preview, Self::Repair, Self::Final, Self::Spare];

    /// Whether somebody waits for it at this moment.
    pub fn is_interactive(self) -> bool {
        matches!(self, Self::Snapshot | Self::Preview)
    }

    /// Seconds of waiting that it is taken to have behind it already, against others of its tier.
    pub(crate) fn head_start(self) -> f64 {
        if self == Self::Repair { 300.0 } else { 0.0 }
    }

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Preview => "preview",
            Self::Repair => "repair",
            Self::Final => "final",
            Self::Spare => "spare",
        }
    }
}

/// Something to do: one task.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Whoever keeps the tasks knows it by this.
    pub id: i64,
    /// What kind of work.
    pub class: Class,
    /// Whose turn it uses.
    pub tenant: Uuid,
    /// What it begins with; none: nothing in particular.
    pub package: Option<Package>,
    /// Length of the package.
    pub package_bytes: u64,
    /// How long the work itself takes, as far as anybody knows; without fetching and starting.
    pub seconds: f64,
    /// Whether that is known from work like it, and not guessed.
    pub is_known: bool,
    /// What a node must have.
    pub needs: Labels,
    /// Nodes that failed at it: they do not get it again.
    pub avoid: Vec<Uuid>,
    /// Since when it waits, in seconds.
    pub ready_at: f64,
    /// The higher the earlier, within its tenant.
    pub priority: i16,
}

/// A node, as it asks for work.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Which.
    pub id: Uuid,
    /// What it can do.
    pub labels: Labels,
    /// Things it can do at a time.
    pub slots: u32,
    /// Whether it may have new work: neither set aside, nor drained, nor asleep.
    pub may_work: bool,
    /// Whether it was heard of lately.
    pub present: bool,
    /// Only this tenant's work, if any is named.
    pub tenant: Option<Uuid>,
    /// Packages on its disk.
    pub held: HashSet<Package>,
    /// The package that its renderer has open.
    pub warm: Option<Package>,
    /// Packages that failed on it: it gets them only while no other node may have them.
    pub blocked: HashSet<Package>,
    /// How fast it fetches packages.
    pub bytes_per_second: f64,
    /// How well it has done of late, above 0 and at most 1: of equals the best is preferred.
    pub health: f64,
}

impl Node {
    /// A sound node that holds nothing, with what it can do.
    pub fn new(id: Uuid, labels: Labels, slots: u32) -> Self {
        Self {
            id,
            labels,
            slots,
            may_work: true,
            present: true,
            tenant: None,
            held: HashSet::new(),
            warm: None,
            blocked: HashSet::new(),
            bytes_per_second: 60e6,
            health: 1.0,
        }
    }

    /// Whether its slots count among those that work is shared over: those of a node that is away do nothing.
    pub(crate) fn is_at_work(&self) -> bool {
        self.may_work && self.present
    }

    /// Whether it has all these labels.
    pub(crate) fn has(&self, needs: &Labels) -> bool {
        needs.iter().all(|(key, value)| self.labels.get(key) == Some(value))
    }
}
