//! What a scheduling decision costs: the production code alone, without a database.

use crate::spread;
use flatrender_dispatch::{Class, Farm, Item, Labels, Node, Policy};
use serde_json::{Value, json};
use std::time::Instant;
use uuid::Uuid;

/// Decisions that are measured of each kind.
const DECISIONS: usize = 2000;

/// Times decisions with `queued` items and `nodes` nodes.
pub fn decide(queued: usize, nodes: usize) -> Value {
    let usual = |n: usize| item(n, n % 300 * (n % 7) / 6, n % 60, n % 25);
    // Nobody shares anything: as many tenants, packages and sets of labels as items.
    let worst = |n: usize| item(n, n, n, n);
    json!({
        "queued": queued, "nodes": nodes,
        "one_asks": one_asks(queued, nodes, usual),
        "one_asks_nothing_shared": one_asks(queued, nodes, worst),
        "all_ask_at_once_each": all_ask(queued, nodes, usual),
    })
}

/// All nodes are busy, and one after the other has a free slot.
fn one_asks(queued: usize, nodes: usize, make: impl Fn(usize) -> Item) -> Value {
    let mut farm = farm(queued, nodes, &make);
    let ids: Vec<Uuid> = (0..nodes).map(|n| node(n).id).collect();
    let mut busy: Vec<(Uuid, Vec<i64>)> = farm.assign(2000.0, &ids).into_iter().map(|g| (g.node, g.items)).collect();
    let mut times = Vec::new();
    for n in 0..DECISIONS {
        let now = 2000.0 + n as f64;
        let at = n % busy.len();
        let (asks, done) = busy.swap_remove(at);
        done.iter().for_each(|id| drop(farm.finish(*id, now)));
        (0..done.len()).for_each(|more| farm.add(Item { ready_at: now, ..make(queued + 8 * n + more) }));
        let began = Instant::now();
        let given = farm.assign(now, &[asks]);
        times.push(began.elapsed().as_secs_f64() * 1000.0);
        busy.extend(given.into_iter().map(|given| (given.node, given.items)));
    }
    spread(DECISIONS as u64, times)
}

/// All nodes have a free slot, as when a server has been away.
fn all_ask(queued: usize, nodes: usize, make: impl Fn(usize) -> Item) -> Value {
    let ids: Vec<Uuid> = (0..nodes).map(|n| node(n).id).collect();
    let times = (0..10).map(|_| {
        let mut farm = farm(queued, nodes, &make);
        let began = Instant::now();
        let given = farm.assign(2000.0, &ids).len().max(1);
        began.elapsed().as_secs_f64() * 1000.0 / given as f64
    });
    spread(10, times.collect())
}

fn farm(queued: usize, nodes: usize, make: &impl Fn(usize) -> Item) -> Farm {
    let mut farm = Farm::new(Policy::production());
    farm.set_nodes((0..nodes).map(node));
    (0..queued).for_each(|n| farm.add(make(n)));
    farm
}

fn node(n: usize) -> Node {
    let engine = ("engine".to_owned(), "after_effects".to_owned());
    // Everybody has most fonts.
    let fonts =
        (0..300).filter(|font| !(font + n).is_multiple_of(29)).map(|font| (format!("font.{font}"), "yes".to_owned()));
    let labels: Labels = fonts.chain([engine]).collect();
    let held = (0..20).map(|package| format!("package-{}", (n + 3 * package) % 60).into()).collect();
    Node { held, ..Node::new(Uuid::from_u128(1_000_000 + n as u128), labels, 1) }
}

fn item(n: usize, tenant: usize, package: usize, fonts: usize) -> Item {
    let engine = ("engine".to_owned(), "after_effects".to_owned());
    let one = |font: usize| (format!("font.{}", font % 300), "yes".to_owned());
    Item {
        id: n as i64,
        class: match n % 20 {
            0 => Class::Snapshot,
            1 => Class::Preview,
            _ => Class::Final,
        },
        tenant: Uuid::from_u128(tenant as u128),
        package: Some(format!("package-{package}").into()),
        package_bytes: 350_000_000,
        seconds: 60.0,
        is_known: true,
        needs: [one(fonts), one(fonts / 300 * 7 + fonts + 1), one(fonts / 90_000 + 2 * fonts), engine].into(),
        avoid: Vec::new(),
        ready_at: 1000.0 + n as f64 / 100.0,
        priority: 0,
    }
}
