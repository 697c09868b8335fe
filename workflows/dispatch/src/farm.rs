//! The decision: which idle node takes which of the work that waits.

use crate::{
    policy::{Order, Policy},
    tier::{Fits, Kind, Line, Needs, Place, Seconds, Tenant, Tier},
    work::{Class, Item, Node},
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use uuid::Uuid;

/// A node with a better way to an item is better by at least so many seconds.
const CLEARLY_BETTER: f64 = 1.0;
/// The least that anything is charged with, in slot-seconds: nobody is served without end for nothing.
const LEAST_CHARGE: f64 = 0.5;

/// So many lines are compared for what is at hand, and those of the tenant at which that number is reached.
const LOOKED_AT: usize = 256;

/// Work for a node: one item, or several stills of one package for one visit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Who takes it.
    pub node: Uuid,
    /// What; the first is the one that was chosen.
    pub items: Vec<i64>,
}

/// An item that a node works on.
#[derive(Debug, Clone, PartialEq)]
pub struct Running {
    /// The item.
    pub item: Item,
    /// On which node.
    pub node: Uuid,
    /// Since when, in seconds.
    pub since: f64,
    charged: f64,
    /// Where its slot is: the node may leave, or go over to another pool, before it is done.
    pool: Pool,
}

/// Items that one node began together.
type Visit = (Uuid, u64);

#[derive(Debug)]
pub(crate) struct Waiting {
    pub item: Item,
    pub kind: Kind,
    pub place: Place,
}

/// Nodes between which work can be exchanged: the value of the pool label, and the tenant they are kept for.
pub(crate) type Pool = (Option<String>, Option<Uuid>);

#[derive(Debug, Default)]
pub(crate) struct Usage {
    /// Slots of the nodes that may work and are there.
    pub slots: u32,
    /// Items of each tier that are worked on, and when that last changed.
    running: [usize; 4],
    changed: [f64; 4],
    interactive_at: Option<f64>,
}

/// What there is to do, what is being done, and by whom.
#[derive(Debug)]
pub struct Farm {
    pub(crate) policy: Policy,
    pub(crate) nodes: HashMap<Uuid, Arc<Node>>,
    pub(crate) pools: HashMap<Pool, Usage>,
    pub(crate) waiting: HashMap<i64, Waiting>,
    running: HashMap<i64, Running>,
    visits: HashMap<Visit, (usize, f64)>,
    /// Snapshots, previews, films, and what is done a second time.
    pub(crate) tiers: [Tier; 4],
    needs: Needs,
    weights: HashMap<Uuid, f64>,
    /// Late items that were named.
    named: HashSet<i64>,
}

/// The head of a line, as one node sees it.
struct Candidate<'a> {
    setup: f64,
    turn: Seconds,
    place: Place,
    id: i64,
    tenant: Uuid,
    kind: &'a Kind,
    bytes: u64,
}

impl Farm {
    /// Nothing to do and nobody to do it.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            nodes: HashMap::new(),
            pools: HashMap::new(),
            waiting: HashMap::new(),
            running: HashMap::new(),
            visits: HashMap::new(),
            tiers: Default::default(),
            needs: Needs::default(),
            weights: HashMap::new(),
            named: HashSet::new(),
        }
    }

    /// How it decides.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// How much a tenant is to get beside the others; 1 unless it is said. Counts from its next item on.
    pub fn weigh(&mut self, tenant: Uuid, weight: f64) {
        self.weights.insert(tenant, weight.clamp(0.001, 1000.0));
    }

    /// How much each tenant is to get beside the others; 1 for those that are not named.
    pub fn set_weights(&mut self, weights: impl IntoIterator<Item = (Uuid, f64)>) {
        self.weights.clear();
        weights.into_iter().for_each(|(tenant, weight)| self.weigh(tenant, weight));
    }

    /// All nodes there are, whether they may work or not.
    pub fn set_nodes(&mut self, nodes: impl IntoIterator<Item = Node>) {
        self.nodes = nodes.into_iter().map(|node| (node.id, Arc::new(node))).collect();
        for usage in self.pools.values_mut() {
            usage.slots = 0;
        }
        for node in self.nodes.values().filter(|node| node.is_at_work()) {
            self.pools.entry(pool_of(&self.policy, node)).or_default().slots += node.slots;
        }
    }

    /// A node is as it says now: it asks for work itself, or has been looked at.
    pub fn set_node(&mut self, node: Node) {
        if let Some(before) = self.nodes.get(&node.id).filter(|before| before.is_at_work()) {
            let usage = self.pools.entry(pool_of(&self.policy, before)).or_default();
            usage.slots = usage.slots.saturating_sub(before.slots);
        }
        if node.is_at_work() {
            self.pools.entry(pool_of(&self.policy, &node)).or_default().slots += node.slots;
        }
        self.nodes.insert(node.id, Arc::new(node));
    }

    /// A node, as it was last heard of.
    pub fn node(&self, id: Uuid) -> Option<&Node> {
        self.nodes.get(&id).map(|node| &**node)
    }

    /// Items that wait.
    pub fn waiting(&self) -> impl ExactSizeIterator<Item = &Item> {
        self.waiting.values().map(|waiting| &waiting.item)
    }

    /// Items that are worked on.
    pub fn running(&self) -> impl ExactSizeIterator<Item = &Running> {
        self.running.values()
    }

    /// Whether it waits.
    pub fn waits(&self, id: i64) -> bool {
        self.waiting.contains_key(&id)
    }

    /// Who works on it, if anybody does.
    pub fn worked_on(&self, id: i64) -> Option<&Running> {
        self.running.get(&id)
    }

    /// There is something to do. Said again of one that waits, it is as it is said last; one that runs stays as it is.
    pub fn add(&mut self, item: Item) {
        if self.running.contains_key(&item.id) {
            return;
        }
        self.withdraw(item.id);
        let needs = self.needs.hold(&item.needs);
        let batches = item.class == Class::Snapshot;
        let kind = Kind { needs, package: item.package.clone(), batches };
        let place = self.place(&item);
        if item.class.is_interactive() {
            let pool = (item.needs.get(&self.policy.pool_label).cloned(), None);
            let usage = self.pools.entry(pool).or_default();
            usage.interactive_at = Some(usage.interactive_at.unwrap_or(item.ready_at).max(item.ready_at));
        }
        let weight = self.weight(item.tenant);
        self.tiers[tier_of(item.class)].add(&item, kind.clone(), place, weight);
        self.waiting.insert(item.id, Waiting { item, kind, place });
    }

    /// Nobody is to do it any more: it waits no longer.
    pub fn withdraw(&mut self, id: i64) -> Option<Item> {
        let waiting = self.waiting.remove(&id)?;
        self.tiers[tier_of(waiting.item.class)].take(waiting.item.tenant, id, &waiting.kind, waiting.place);
        self.needs.drop(waiting.kind.needs);
        Some(waiting.item)
    }

    /// A node works on what waited, since `since`. What begins on a node at one instant is one visit.
    pub fn start(&mut self, id: i64, node: Uuid, since: f64) {
        let Some(item) = self.withdraw(id) else { return };
        let setup = match self.nodes.get(&node) {
            Some(node) => setup(&self.policy, node, item.package.as_ref(), item.package_bytes),
            None => 0.0,
        };
        let visit = self.visits.entry((node, since.to_bits())).or_insert((0, since));
        let charged = (item.seconds + if visit.0 == 0 { setup } else { 0.0 }).max(LEAST_CHARGE);
        visit.0 += 1;
        let weight = self.weight(item.tenant);
        self.tiers[tier_of(item.class)].begin(item.tenant, charged, weight);
        let pool = self.nodes.get(&node).map_or((None, None), |node| pool_of(&self.policy, node));
        let usage = self.pools.entry(pool.clone()).or_default();
        usage.running[tier_of(item.class)] += 1;
        usage.changed[tier_of(item.class)] = since;
        self.running.insert(id, Running { item, node, since, charged, pool });
    }

    /// A node works on it no longer: its tenant is charged with what it took. Answers the item, for who wants to add it again.
    pub fn finish(&mut self, id: i64, now: f64) -> Option<Item> {
        let run = self.running.remove(&id)?;
        self.named.remove(&id);
        let key = (run.node, run.since.to_bits());
        let mut took = now - run.since;
        if let Some((left, since)) = self.visits.get_mut(&key) {
            took = now - *since;
            *since = now;
            *left -= 1;
            if *left == 0 {
                self.visits.remove(&key);
            }
        }
        let tier = &mut self.tiers[tier_of(run.item.class)];
        tier.charge(run.item.tenant, took.max(LEAST_CHARGE) - run.charged);
        tier.end(run.item.tenant);
        let of = tier_of(run.item.class);
        let usage = self.pools.entry(run.pool).or_default();
        usage.running[of] = usage.running[of].saturating_sub(1);
        usage.changed[of] = now;
        Some(run.item)
    }

    /// Charges tenants for what takes longer than was thought, so that they are not ahead by what nobody knows yet.
    pub fn charge_more(&mut self, now: f64) {
        for run in self.running.values_mut().filter(|run| now - run.since > run.charged) {
            if self.visits.get(&(run.node, run.since.to_bits())).is_some_and(|(left, _)| *left == 1) {
                let more = (now - run.since).max(2.0 * run.charged) - run.charged;
                self.tiers[tier_of(run.item.class)].charge(run.item.tenant, more);
                run.charged += more;
            }
        }
    }

    /// Gives work to nodes that have a free slot (named once for each), and notes that they work on it from now on.
    pub fn assign(&mut self, now: f64, idle: &[Uuid]) -> Vec<Assignment> {
        let mut asking: Vec<Arc<Node>> = idle.iter().filter_map(|id| self.nodes.get(id).cloned()).collect();
        asking.retain(|node| node.may_work);
        let mut assigned = Vec::new();
        loop {
            let (mut at, before) = (0, assigned.len());
            while at < asking.len() && !self.waiting.is_empty() {
                let rivals: Vec<&Node> =
                    asking.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, n)| &**n).collect();
                match self.choose(now, &asking[at], &rivals) {
                    Some(items) => assigned.push(self.hand_over(now, asking.remove(at).id, items)),
                    None => at += 1,
                }
            }
            if assigned.len() > before {
                continue;
            }
            // What was left to a better node, and that node did not take.
            let left = (0..asking.len()).find_map(|at| Some((at, self.choose(now, &asking[at], &[])?)));
            let Some((at, items)) = left else { return assigned };
            assigned.push(self.hand_over(now, asking.remove(at).id, items));
        }
    }

    /// When an item that is worked on begins to be late; none when it is of a kind that is never done twice. Where nobody knows how
    /// long it takes, it is given more time.
    pub fn late_from(&self, id: i64) -> Option<f64> {
        let run = self.running.get(&id)?;
        let item = &run.item;
        if matches!(item.class, Class::Snapshot | Class::Spare) {
            return None;
        }
        let least = if item.is_known { self.policy.late_seconds } else { self.policy.late_unknown_seconds };
        let setup = match self.nodes.get(&run.node) {
            Some(node) => setup(&self.policy, node, item.package.as_ref(), item.package_bytes),
            None => 0.0,
        };
        Some(run.since + (setup + self.policy.late_factor * item.seconds).max(least))
    }

    /// Late items that a second node might as well do, out of these that have a free slot and nothing to do: the latest first, one
    /// for each node at most. None is named twice.
    pub fn late(&mut self, now: f64, idle: &[Uuid]) -> Vec<i64> {
        let late = self.running.keys().filter(|id| !self.named.contains(*id));
        let mut late: Vec<_> = late.filter_map(|id| Some((Seconds(self.late_from(*id)?), *id))).collect();
        late.retain(|(from, _)| from.0 < now);
        late.sort_unstable();
        let mut free: Vec<Arc<Node>> = idle.iter().filter_map(|id| self.nodes.get(id).cloned()).collect();
        let mut named = Vec::new();
        for (_, id) in late {
            let run = &self.running[&id];
            let fits =
                |node: &Node| node.id != run.node && self.may_do(node, &run.item) && self.long_work_may(now, node);
            if let Some(at) = free.iter().position(|node| fits(node)) {
                free.swap_remove(at);
                named.push(id);
            }
        }
        self.named.extend(&named);
        named
    }

    fn hand_over(&mut self, now: f64, node: Uuid, items: Vec<i64>) -> Assignment {
        for &id in &items {
            self.start(id, node, now);
        }
        Assignment { node, items }
    }

    /// What a node with a free slot does next; none: nothing that it may do, or nothing that one of the `rivals`, who have a free
    /// slot at this moment too, is not clearly better at.
    pub fn choose(&self, now: f64, node: &Node, rivals: &[&Node]) -> Option<Vec<i64>> {
        if !node.may_work || self.waiting.is_empty() {
            return None;
        }
        let fits = self.needs.of(node);
        if self.policy.order != Order::Fair {
            let heads = self.tiers.iter().enumerate().filter(|(tier, _)| *tier == 0 || self.long_work_may(now, node));
            let heads = heads.flat_map(|(_, tier)| tier.tenants.iter().map(move |(id, t)| (*id, t)));
            let first = heads.flat_map(|(id, t)| self.heads(node, &fits, id, t)).min_by_key(|c| (c.place, c.id))?;
            return Some(self.visit(node, &first, rivals));
        }
        self.order(now, node).into_iter().find_map(|tier| self.choose_fairly(node, &fits, tier, rivals))
    }

    fn choose_fairly(&self, node: &Node, fits: &Fits<'_>, tier: usize, rivals: &[&Node]) -> Option<Vec<i64>> {
        let tier = &self.tiers[tier];
        let mut candidates = Vec::new();
        let mut latest = None;
        for &(turn, id) in &tier.turns {
            if latest.is_some_and(|latest| turn > latest) {
                break;
            }
            let heads: Vec<_> = self.heads(node, fits, id, &tier.tenants[&id]).collect();
            let Some(first) = heads.iter().map(|head| head.place).min() else { continue };
            let window = if self.policy.affinity { self.policy.warm_window } else { 0.0 };
            let youngest = (first.0, Seconds(first.1.0 + window));
            candidates.extend(heads.into_iter().filter(|head| head.place <= youngest));
            if !self.policy.affinity || candidates.len() >= LOOKED_AT {
                break;
            }
            latest = latest.or(Some(Seconds(turn.0 + self.policy.slack)));
        }
        let cost = |c: &Candidate<'_>| Seconds(if self.policy.affinity { c.setup } else { 0.0 });
        candidates.sort_unstable_by_key(|c| (cost(c), c.turn, c.place, c.id));
        let mut free: Vec<&Node> = if self.policy.affinity { rivals.to_vec() } else { Vec::new() };
        let chosen = candidates.iter().find(|candidate| {
            let better = free.iter().position(|rival| self.is_better(rival, candidate));
            better.map(|at| free.swap_remove(at)).is_none()
        })?;
        Some(self.visit(node, chosen, rivals))
    }

    /// Whether another idle node would be ready for it clearly sooner.
    fn is_better(&self, rival: &Node, candidate: &Candidate<'_>) -> bool {
        let sooner = setup(&self.policy, rival, candidate.kind.package.as_ref(), candidate.bytes);
        sooner + CLEARLY_BETTER < candidate.setup && self.may_do(rival, &self.waiting[&candidate.id].item)
    }

    /// Whether there is a node that may do an item, however busy it is.
    pub fn somebody_may_do(&self, item: &Item) -> bool {
        self.present_for(item).any(|node| !item.avoid.contains(&node.id))
    }

    /// Nodes that are there for items like this one, whether they failed at itself or not.
    fn present_for<'a>(&'a self, item: &'a Item) -> impl Iterator<Item = &'a Node> {
        self.nodes.values().map(|node| &**node).filter(|node| node.present && does_the_like(node, item))
    }

    /// Whether a node may do an item, and its package has not failed there.
    fn may_do(&self, node: &Node, item: &Item) -> bool {
        does_the_like(node, item) && !item.avoid.contains(&node.id)
    }

    /// Whether an item is kept from a node because its package failed there and another node may do it. What fails everywhere
    /// is tried everywhere, until its attempts are used up: otherwise nobody would ever be told.
    pub(crate) fn is_kept_from(&self, node: &Node, item: &Item) -> bool {
        has_failed_at(node, item.package.as_ref()) && self.somebody_may_do(item)
    }

    /// What a node may do of a line whose labels it has: items are alike but for the nodes that failed at them.
    fn open_to<'a>(&'a self, node: &'a Node, line: &'a Line) -> impl Iterator<Item = (Place, i64)> + 'a {
        let first = line.items.first().map(|(_, id)| &self.waiting[id].item);
        let others: Vec<Uuid> = match first.filter(|first| has_failed_at(node, first.package.as_ref())) {
            Some(first) => self.present_for(first).map(|other| other.id).collect(),
            None => Vec::new(),
        };
        // Others may do what nobody has failed at.
        let items = if others.is_empty() { &line.items } else { &line.failed };
        let is_open =
            move |item: &Item| !item.avoid.contains(&node.id) && others.iter().all(|other| item.avoid.contains(other));
        items.iter().copied().filter(move |(_, id)| is_open(&self.waiting[id].item))
    }

    /// The first of each line of a tenant that a node may do.
    fn heads<'a>(
        &'a self,
        node: &'a Node,
        fits: &'a Fits<'a>,
        id: Uuid,
        tenant: &'a Tenant,
    ) -> impl Iterator<Item = Candidate<'a>> {
        let open = node.tenant.is_none_or(|only| only == id);
        let turn = Seconds(tenant.virtual_time);
        tenant.lines.iter().filter(move |_| open).filter_map(move |(kind, line)| {
            if !fits.has(kind.needs) {
                return None;
            }
            let (place, id) = self.open_to(node, line).next()?;
            let bytes = line.package_bytes;
            let setup = setup(&self.policy, node, kind.package.as_ref(), bytes);
            Some(Candidate { setup, turn, place, id, tenant: self.waiting[&id].item.tenant, kind, bytes })
        })
    }

    /// The chosen item, and others like it if they can be done in one visit. Nodes that are idle, too, get their part.
    fn visit(&self, node: &Node, chosen: &Candidate<'_>, rivals: &[&Node]) -> Vec<i64> {
        if !chosen.kind.batches || self.policy.batch <= 1 {
            return vec![chosen.id];
        }
        let tier = &self.tiers[tier_of(Class::Snapshot)];
        let line = &tier.tenants[&chosen.tenant].lines[chosen.kind];
        let first = &self.waiting[&chosen.id].item;
        let hands = 1 + rivals.iter().filter(|rival| self.may_do(rival, first)).count();
        let most = line.items.len().div_ceil(hands).min(self.policy.batch);
        let alike = self.open_to(node, line).map(|(_, id)| id);
        std::iter::once(chosen.id).chain(alike.filter(|id| *id != chosen.id)).take(most).collect()
    }

    /// The tiers that a node may work for now: those that have less than their floor first, then the more urgent.
    fn order(&self, now: f64, node: &Node) -> Vec<usize> {
        let mut order: Vec<usize> = if self.long_work_may(now, node) { vec![0, 1, 2, 3] } else { vec![0] };
        let Some(usage) = self.pools.get(&pool_of(&self.policy, node)) else { return order };
        let starved = |tier: usize| {
            let share = self.policy.floors.get(tier).copied().unwrap_or(0.0);
            let floor = (f64::from(usage.slots) * share) as usize;
            let long_ago = now - usage.changed[tier].max(self.tiers[tier].waits_since) > self.policy.floor_patience;
            share > 0.0 && (usage.running[tier] < floor || usage.running[tier] == 0 && long_ago)
        };
        order.sort_by_key(|tier| (!starved(*tier), *tier));
        order
    }

    /// Whether previews and films may have another slot of the pool: the others are kept for snapshots.
    pub(crate) fn long_work_may(&self, now: f64, node: &Node) -> bool {
        let Some(usage) = self.pools.get(&pool_of(&self.policy, node)) else { return true };
        let (long, reserved) = (usage.running[1..].iter().sum::<usize>(), self.reserved(now, node));
        // Whoever asks has a free slot, whatever else is held under its name.
        reserved == 0 || long < (usage.slots as usize).saturating_sub(reserved).max(1)
    }

    /// Slots of the node's pool that are kept for snapshots now.
    pub(crate) fn reserved(&self, now: f64, node: &Node) -> usize {
        let (value, kept_for) = pool_of(&self.policy, node);
        let asked =
            [(value.clone(), None), (None, None)].map(|pool| self.pools.get(&pool).and_then(|u| u.interactive_at));
        let lent = asked.into_iter().flatten().all(|at| now - at > self.policy.reserve_for);
        let slots = self.pools.get(&(value, kept_for)).map_or(0, |usage| usage.slots);
        if lent { 0 } else { (f64::from(slots) * self.policy.reserve).round() as usize }
    }

    fn weight(&self, tenant: Uuid) -> f64 {
        self.weights.get(&tenant).copied().unwrap_or(1.0)
    }

    fn place(&self, item: &Item) -> Place {
        let waited = |head_start: f64| Seconds(item.ready_at - head_start);
        match self.policy.order {
            Order::Fifo => (i64::from(item.class == Class::Spare), waited(0.0)),
            Order::Priority => (item.class as i64 * 65_536 - i64::from(item.priority), waited(0.0)),
            Order::Fair => (0, waited(item.class.head_start() + f64::from(item.priority) * self.policy.priority_step)),
        }
    }

    /// Packages that somebody waits for: what a node had better not forget.
    pub fn wanted_packages(&self) -> HashSet<crate::Package> {
        self.waiting.values().filter_map(|waiting| waiting.item.package.clone()).collect()
    }
}

/// Whether a node may do items like this one.
fn does_the_like(node: &Node, item: &Item) -> bool {
    node.may_work
        && node.tenant.is_none_or(|only| only == item.tenant)
        && !has_failed_at(node, item.package.as_ref())
        && node.has(&item.needs)
}

fn has_failed_at(node: &Node, package: Option<&crate::Package>) -> bool {
    package.is_some_and(|package| node.blocked.contains(package))
}

/// Seconds until a node can begin with what is in a package, made longer for one that does badly.
fn setup(policy: &Policy, node: &Node, package: Option<&crate::Package>, bytes: u64) -> f64 {
    let Some(package) = package else { return policy.start_seconds / node.health };
    if node.warm.as_ref() == Some(package) {
        return 0.0;
    }
    let missing = if node.held.contains(package) { 0 } else { bytes };
    (missing as f64 / node.bytes_per_second + policy.open_seconds + policy.start_seconds) / node.health
}

pub(crate) fn pool_of(policy: &Policy, node: &Node) -> Pool {
    (node.labels.get(&policy.pool_label).cloned(), node.tenant)
}

pub(crate) fn tier_of(class: Class) -> usize {
    match class {
        Class::Snapshot => 0,
        Class::Preview => 1,
        Class::Repair | Class::Final => 2,
        Class::Spare => 3,
    }
}
