//! What waits, by tenant; and what each tenant has had. There is a tier for snapshots, one for previews, one for films.

use crate::work::{Item, Package};
use std::{
    cell::RefCell,
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap},
};
use uuid::Uuid;

/// Seconds that can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Seconds(pub f64);

impl Eq for Seconds {}
impl PartialOrd for Seconds {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Seconds {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Where an item stands in its line: the lowest goes first.
pub(crate) type Place = (i64, Seconds);

/// What makes items alike to every node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    /// Number of the set of labels.
    pub needs: usize,
    pub package: Option<Package>,
    /// Snapshots are not mixed with the rest.
    pub batches: bool,
}

/// Items that are alike, in the order in which they go.
#[derive(Debug, Default)]
pub(crate) struct Line {
    pub package_bytes: u64,
    pub items: BTreeSet<(Place, i64)>,
    /// Those at which a node has failed.
    pub failed: BTreeSet<(Place, i64)>,
}

/// A tenant in a tier.
#[derive(Debug)]
pub(crate) struct Tenant {
    /// Slot-seconds it has had, over its weight.
    pub virtual_time: f64,
    pub weight: f64,
    pub running: usize,
    pub lines: HashMap<Kind, Line>,
}

/// One of the two.
#[derive(Debug, Default)]
pub(crate) struct Tier {
    pub tenants: HashMap<Uuid, Tenant>,
    /// Tenants for whom something waits, who has had least first.
    pub turns: BTreeSet<(Seconds, Uuid)>,
    /// Tenants for whom something waits or runs, in the same order: who comes back begins with the first of them.
    active: BTreeSet<(Seconds, Uuid)>,
    /// Virtual time of the last that was served.
    clock: f64,
    waiting: usize,
    /// Since when something has waited without a break.
    pub waits_since: f64,
}

impl Tier {
    /// Puts an item in its line.
    pub fn add(&mut self, item: &Item, kind: Kind, at: Place, weight: f64) {
        self.admit(item.tenant, weight);
        self.change(item.tenant, |tenant| {
            let line = tenant.lines.entry(kind).or_default();
            line.package_bytes = item.package_bytes;
            line.items.insert((at, item.id));
            if !item.avoid.is_empty() {
                line.failed.insert((at, item.id));
            }
        });
        if self.waiting == 0 {
            self.waits_since = item.ready_at;
        }
        self.waiting += 1;
    }

    /// Takes an item out of its line.
    pub fn take(&mut self, tenant: Uuid, id: i64, kind: &Kind, at: Place) {
        self.change(tenant, |tenant| {
            if let Some(line) = tenant.lines.get_mut(kind) {
                line.items.remove(&(at, id));
                line.failed.remove(&(at, id));
                if line.items.is_empty() {
                    tenant.lines.remove(kind);
                }
            }
        });
        self.waiting -= 1;
    }

    /// An item of the tenant begins.
    pub fn begin(&mut self, tenant: Uuid, seconds: f64, weight: f64) {
        self.admit(tenant, weight);
        if let Some(known) = self.tenants.get(&tenant) {
            self.clock = self.clock.max(known.virtual_time);
        }
        self.change(tenant, |tenant| {
            tenant.running += 1;
            tenant.virtual_time += seconds / tenant.weight;
        });
    }

    /// What the tenant has had is more, or less, than it was charged with.
    pub fn charge(&mut self, tenant: Uuid, seconds: f64) {
        self.change(tenant, |tenant| tenant.virtual_time += seconds / tenant.weight);
    }

    /// An item of the tenant has ended.
    pub fn end(&mut self, tenant: Uuid) {
        self.change(tenant, |tenant| tenant.running = tenant.running.saturating_sub(1));
    }

    /// Lets a tenant in, or in again: it begins where those are that never left.
    fn admit(&mut self, id: Uuid, weight: f64) {
        let begin = self.active.first().map_or(self.clock, |(first, _)| first.0);
        let idle = self.tenants.get(&id).is_none_or(|t| t.running == 0 && t.lines.is_empty());
        let tenant = self.tenants.entry(id).or_insert_with(|| Tenant {
            virtual_time: begin,
            weight,
            running: 0,
            lines: HashMap::new(),
        });
        tenant.weight = weight;
        if idle {
            tenant.virtual_time = tenant.virtual_time.max(begin);
        }
    }

    fn change(&mut self, id: Uuid, change: impl FnOnce(&mut Tenant)) {
        let Some(tenant) = self.tenants.get_mut(&id) else { return };
        let before = (Seconds(tenant.virtual_time), id);
        change(tenant);
        let after = (Seconds(tenant.virtual_time), id);
        let (waits, runs) = (!tenant.lines.is_empty(), tenant.running > 0);
        self.turns.remove(&before);
        self.active.remove(&before);
        if waits {
            self.turns.insert(after);
        }
        if waits || runs {
            self.active.insert(after);
        } else if tenant.virtual_time <= self.clock {
            // It would come back as somebody new.
            self.tenants.remove(&id);
        }
        if self.active.is_empty() {
            // Nobody was kept waiting by what these have had.
            self.tenants.clear();
        }
    }
}

/// Sets of labels by number: there are few, however many items ask for them.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    sets: Vec<(crate::Labels, usize)>,
    numbers: BTreeMap<crate::Labels, usize>,
    free: Vec<usize>,
}

impl Needs {
    /// The number of a set, which is counted once more.
    pub fn hold(&mut self, labels: &crate::Labels) -> usize {
        if let Some(&number) = self.numbers.get(labels) {
            self.sets[number].1 += 1;
            return number;
        }
        let number = match self.free.pop() {
            Some(number) => {
                self.sets[number] = (labels.clone(), 1);
                number
            }
            None => {
                self.sets.push((labels.clone(), 1));
                self.sets.len() - 1
            }
        };
        self.numbers.insert(labels.clone(), number);
        number
    }

    /// Nobody asks for it any more, when this was the last.
    pub fn drop(&mut self, number: usize) {
        self.sets[number].1 -= 1;
        if self.sets[number].1 == 0 {
            let labels = std::mem::take(&mut self.sets[number].0);
            self.numbers.remove(&labels);
            self.free.push(number);
        }
    }

    /// The labels of a set.
    pub fn labels(&self, number: usize) -> &crate::Labels {
        &self.sets[number].0
    }

    /// Which of them a node has, looked up as it is asked.
    pub fn of<'a>(&'a self, node: &'a crate::Node) -> Fits<'a> {
        Fits { needs: self, node, known: RefCell::new(vec![None; self.sets.len()]) }
    }
}

/// Which sets of labels a node has.
#[derive(Debug)]
pub(crate) struct Fits<'a> {
    needs: &'a Needs,
    node: &'a crate::Node,
    known: RefCell<Vec<Option<bool>>>,
}

impl Fits<'_> {
    /// Whether it has this one.
    pub fn has(&self, number: usize) -> bool {
        *self.known.borrow_mut()[number].get_or_insert_with(|| self.node.has(self.needs.labels(number)))
    }
}
