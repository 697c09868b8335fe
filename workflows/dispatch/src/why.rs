//! Why an item waits.

use crate::{
    farm::{Farm, tier_of},
    tier::Seconds,
    work::{Class, Labels, Node},
};
use std::fmt;

/// One reason why nobody has an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// No node has these labels, not even one by one.
    NoNodeHas(Labels),
    /// Each of the labels is to be had, but no node has all of them.
    NoNodeHasAll(Labels),
    /// The nodes that could do it serve other tenants only.
    OtherTenants(usize),
    /// The nodes that could do it have failed at it, or at its template.
    Avoided(usize),
    /// The nodes that could do it are set aside, drained or asleep.
    Away(usize),
    /// The nodes that could do it have not been heard of lately.
    Silent(usize),
    /// Everything that is free is kept for snapshots.
    Reserved(usize),
    /// It is the turn of tenants who have had less.
    OthersTurn(usize),
    /// The nodes that can do it are busy; so many items come before it.
    Busy {
        /// Nodes that can do it.
        nodes: usize,
        /// Items that come before it, of its tenant.
        ahead: usize,
    },
}

impl Why {
    /// As a sentence, with each label as `word` has it.
    pub fn sentence(&self, word: impl Fn(&str, &str) -> String) -> String {
        let listed = |labels: &Labels| labels.iter().map(|(k, v)| word(k, v)).collect::<Vec<_>>().join(", ");
        match self {
            Self::NoNodeHas(labels) => format!("no node has {}", listed(labels)),
            Self::NoNodeHasAll(labels) => format!("no node has all of {}", listed(labels)),
            Self::OtherTenants(nodes) => format!("nodes that could do it serve other tenants only: {nodes}"),
            Self::Avoided(nodes) => format!("nodes that could do it have failed at it: {nodes}"),
            Self::Away(nodes) => format!("nodes that could do it are set aside, drained or asleep: {nodes}"),
            Self::Silent(nodes) => format!("nodes that could do it have not been heard of lately: {nodes}"),
            Self::Reserved(slots) => format!("the last slots are kept for snapshots: {slots}"),
            Self::OthersTurn(tenants) => format!("it is the turn of others, who have had less: {tenants}"),
            Self::Busy { nodes, ahead } => format!("nodes that can do it are busy: {nodes}; before it come {ahead}"),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence(|key, value| format!("{key}={value}")))
    }
}

impl Farm {
    /// Why an item waits, what stands in its way first; nothing for one that does not wait.
    pub fn why_waiting(&self, id: i64, now: f64) -> Vec<Why> {
        let Some(waiting) = self.waiting.get(&id) else { return Vec::new() };
        let item = &waiting.item;
        let able: Vec<&Node> = self.nodes.values().map(|node| &**node).filter(|node| node.has(&item.needs)).collect();
        if able.is_empty() {
            let somewhere = |(key, value): &(&String, &String)| {
                self.nodes.values().any(|node| node.labels.get(*key) == Some(value))
            };
            let nowhere: Labels =
                item.needs.iter().filter(|label| !somewhere(label)).map(|(k, v)| (k.clone(), v.clone())).collect();
            return vec![match nowhere.is_empty() {
                true => Why::NoNodeHasAll(item.needs.clone()),
                false => Why::NoNodeHas(nowhere),
            }];
        }
        let serving: Vec<&Node> =
            able.iter().copied().filter(|node| node.tenant.is_none_or(|only| only == item.tenant)).collect();
        if serving.is_empty() {
            return vec![Why::OtherTenants(able.len())];
        }
        let trusted = |node: &&Node| !item.avoid.contains(&node.id) && !self.is_kept_from(node, item);
        let trusted: Vec<&Node> = serving.iter().copied().filter(trusted).collect();
        if trusted.is_empty() {
            return vec![Why::Avoided(serving.len())];
        }
        let working: Vec<&Node> = trusted.iter().copied().filter(|node| node.may_work).collect();
        if working.is_empty() {
            return vec![Why::Away(trusted.len())];
        }
        let present: Vec<&Node> = working.iter().copied().filter(|node| node.present).collect();
        if present.is_empty() {
            return vec![Why::Silent(working.len())];
        }
        let mut reasons = Vec::new();
        if item.class != Class::Snapshot && present.iter().all(|node| !self.long_work_may(now, node)) {
            reasons.push(Why::Reserved(present.iter().map(|node| self.reserved(now, node)).max().unwrap_or(0)));
        }
        let tier = &self.tiers[tier_of(item.class)];
        let own = tier.tenants.get(&item.tenant);
        let turn = Seconds(own.map_or(0.0, |tenant| tenant.virtual_time));
        let before = tier.turns.iter().take_while(|(other, _)| *other < turn).count();
        if before > 0 {
            reasons.push(Why::OthersTurn(before));
        }
        let lines = own.into_iter().flat_map(|tenant| tenant.lines.values());
        let ahead = lines.map(|line| line.items.range(..(waiting.place, id)).count()).sum();
        reasons.push(Why::Busy { nodes: present.len(), ahead });
        reasons
    }
}
