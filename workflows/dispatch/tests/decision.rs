//! What holds for every decision, whatever there is to decide.

use flatrender_dispatch::{Class, Farm, Item, Labels, Node, Package, Policy, Why};
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

fn id(n: usize) -> Uuid {
    Uuid::from_u128(n as u128 + 1)
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn package(n: usize) -> Package {
    format!("package-{n}").into()
}

fn item(n: i64, class: Class, tenant: usize) -> Item {
    Item {
        id: n,
        class,
        tenant: id(tenant),
        package: Some(package(tenant)),
        package_bytes: 300_000_000,
        seconds: 60.0,
        is_known: true,
        needs: labels(&[("engine", "after_effects")]),
        avoid: Vec::new(),
        ready_at: 1000.0,
        priority: 0,
    }
}

fn node(n: usize) -> Node {
    Node::new(id(1000 + n), labels(&[("engine", "after_effects")]), 1)
}

fn farm(policy: Policy, nodes: Vec<Node>) -> Farm {
    let mut farm = Farm::new(policy);
    farm.set_nodes(nodes);
    farm
}

fn everybody(farm: &Farm, nodes: usize) -> Vec<Uuid> {
    (0..nodes).map(|n| id(1000 + n)).filter(|n| farm.running().all(|run| run.node != *n)).collect()
}

#[test]
fn a_snapshot_goes_before_films_that_came_first() {
    let mut farm = farm(Policy::production(), vec![node(0)]);
    farm.add(item(1, Class::Final, 1));
    farm.add(Item { ready_at: 1200.0, ..item(2, Class::Snapshot, 2) });
    farm.start(1, id(1000), 1200.0);
    farm.finish(1, 1260.0);
    farm.add(item(3, Class::Final, 1));
    assert_eq!(farm.assign(1261.0, &[id(1000)])[0].items, [2]);
}

#[test]
fn films_leave_a_slot_in_eight_to_interactive_work_while_there_is_any() {
    let mut farm = farm(Policy::production(), (0..8).map(node).collect());
    farm.add(Item { ready_at: 1000.0, ..item(100, Class::Snapshot, 9) });
    farm.withdraw(100);
    (0..20).for_each(|n| farm.add(item(n, Class::Final, n as usize)));
    assert_eq!(farm.assign(1001.0, &everybody(&farm, 8)).len(), 7);
    assert!(matches!(farm.why_waiting(19, 1001.0)[0], Why::Reserved(1)));
    assert_eq!(farm.assign(1601.0, &everybody(&farm, 8)).len(), 1, "nobody has asked for ten minutes");
}

#[test]
fn nodes_that_leave_with_work_or_change_their_pool_take_no_slot_of_films_with_them() {
    let mut farm = farm(Policy::production(), (0..8).map(node).collect());
    for n in 0..16 {
        farm.add(item(n, Class::Final, 1));
        farm.start(n, id(1000), 1000.0);
        match n % 2 {
            0 => farm.set_nodes((1..8).map(node)),
            _ => farm.set_node(Node::new(id(1000), labels(&[("engine", "lottie")]), 1)),
        }
        farm.finish(n, 1001.0);
        farm.set_nodes((0..8).map(node));
    }
    farm.add(Item { ready_at: 1000.0, ..item(100, Class::Snapshot, 9) });
    farm.withdraw(100);
    (20..40).for_each(|n| farm.add(item(n, Class::Final, n as usize)));
    assert_eq!(farm.assign(1001.0, &everybody(&farm, 8)).len(), 7);
}

#[test]
fn stills_of_one_package_are_done_in_one_visit_of_at_most_eight() {
    let mut farm = farm(Policy::production(), vec![node(0)]);
    (0..11).for_each(|n| farm.add(item(n, Class::Snapshot, 1)));
    farm.add(item(20, Class::Preview, 1));
    assert_eq!(farm.assign(1001.0, &[id(1000)])[0].items, (0..8).collect::<Vec<_>>());
}

#[test]
fn idle_nodes_share_a_batch() {
    let mut farm = farm(Policy::production(), (0..4).map(node).collect());
    (0..8).for_each(|n| farm.add(item(n, Class::Snapshot, 1)));
    let each: Vec<_> = farm.assign(1001.0, &everybody(&farm, 4)).iter().map(|a| a.items.len()).collect();
    assert_eq!(each, [2, 2, 2, 2]);
}

#[test]
fn a_node_that_holds_the_package_is_preferred_and_nobody_waits_for_it() {
    let holder = Node { held: HashSet::from([package(1)]), ..node(1) };
    let mut farm = farm(Policy::production(), vec![node(0), holder.clone()]);
    farm.add(item(1, Class::Final, 1));
    assert_eq!(farm.assign(1001.0, &[id(1000), holder.id])[0].node, holder.id);
    farm.add(item(2, Class::Final, 1));
    assert_eq!(farm.assign(1002.0, &[id(1000)])[0].node, id(1000));
}

#[test]
fn what_is_at_hand_goes_first_within_the_slack_and_no_further() {
    let holder = Node { held: HashSet::from([package(2)]), warm: Some(package(2)), ..node(0) };
    let mut farm = farm(Policy::production(), vec![holder, node(1)]);
    (0..10).for_each(|n| farm.add(item(n, Class::Final, 1)));
    (10..20).for_each(|n| farm.add(item(n, Class::Final, 2)));
    let mut served = Vec::new();
    for n in 0..6 {
        let now = 1001.0 + 60.0 * f64::from(n);
        let taken = farm.assign(now, &[id(1000)]).remove(0).items[0];
        served.push(farm.worked_on(taken).unwrap().item.tenant == id(2));
        farm.finish(taken, now + 60.0);
    }
    assert_eq!(served, [true, true, false, true, false, true], "60 slot-seconds ahead, then in turn");
}

#[test]
fn a_wait_says_what_no_node_has() {
    let mut other = node(0);
    other.labels.insert("font.Inter".into(), "1".into());
    let mut farm = farm(Policy::production(), vec![other]);
    let mut wanted = item(1, Class::Final, 1);
    wanted.needs.insert("font.Vazirmatn".into(), "1".into());
    farm.add(wanted);
    assert!(farm.assign(1001.0, &[id(1000)]).is_empty());
    assert_eq!(farm.why_waiting(1, 1001.0)[0].to_string(), "no node has font.Vazirmatn=1");
    let mut able = node(1);
    able.labels.insert("font.Vazirmatn".into(), "1".into());
    farm.set_node(able);
    assert_eq!(farm.assign(1001.0, &[id(1000), id(1001)])[0].node, id(1001), "no restart is needed");
    assert!(farm.why_waiting(1, 1001.0).is_empty());
}

#[test]
fn a_wait_says_that_those_who_could_are_switched_off() {
    let mut farm = farm(Policy::production(), vec![Node { present: false, ..node(0) }]);
    farm.add(item(1, Class::Final, 1));
    assert_eq!(farm.why_waiting(1, 0.0), [Why::Silent(1)]);
}

#[test]
fn slots_of_nodes_that_are_away_are_shared_with_nobody() {
    let away = (8..16).map(|n| Node { present: false, ..node(n) });
    let mut farm = farm(Policy::production(), (0..8).map(node).chain(away).collect());
    farm.add(Item { ready_at: 900.0, ..item(0, Class::Snapshot, 1) });
    (1..20).for_each(|n| farm.add(item(n, Class::Final, 2)));
    let given = farm.assign(1000.0, &everybody(&farm, 8));
    let films = given.iter().flat_map(|g| &g.items).filter(|id| **id != 0).count();
    assert_eq!(films, 7, "one slot in eight is kept, of those that are there");
}

#[test]
fn a_wait_says_that_those_who_could_are_away_or_have_failed() {
    let mut farm = farm(Policy::production(), vec![Node { may_work: false, ..node(0) }]);
    farm.add(item(1, Class::Final, 1));
    assert_eq!(farm.why_waiting(1, 0.0), [Why::Away(1)]);
    farm.add(Item { avoid: vec![id(1000)], ..item(1, Class::Final, 1) });
    farm.set_node(node(0));
    assert_eq!(farm.why_waiting(1, 0.0), [Why::Avoided(1)]);
    farm.add(item(1, Class::Final, 1));
    farm.set_node(Node { tenant: Some(id(7)), ..node(0) });
    assert_eq!(farm.why_waiting(1, 0.0), [Why::OtherTenants(1)]);
    farm.set_node(node(0));
    assert_eq!(farm.why_waiting(1, 0.0), [Why::Busy { nodes: 1, ahead: 0 }]);
}

#[test]
fn a_package_goes_to_a_node_it_failed_on_only_while_no_other_may_have_it() {
    let blocked = |n| Node { blocked: HashSet::from([package(1)]), ..node(n) };
    let mut farm = farm(Policy::production(), vec![blocked(0), node(1)]);
    farm.add(item(1, Class::Final, 1));
    assert_eq!(farm.assign(0.0, &[id(1000)]), [], "the other one may have it, though it is busy");
    farm.set_node(Node { present: false, ..node(1) });
    assert_eq!(farm.assign(0.0, &[id(1000)]).len(), 1, "the other one is not there");
    let back = farm.finish(1, 1.0).unwrap();
    farm.add(back);
    farm.set_node(blocked(1));
    assert_eq!(farm.why_waiting(1, 1.0), [Why::Busy { nodes: 2, ahead: 0 }]);
    assert_eq!(farm.assign(1.0, &[id(1000)]).len(), 1, "it failed on every node");
}

#[test]
fn what_only_a_node_it_failed_on_may_do_is_not_hidden_by_what_others_may_do() {
    for policy in policies() {
        let failed = Node { blocked: HashSet::from([package(1)]), ..node(0) };
        let mut farm = farm(policy, vec![failed, node(1)]);
        farm.add(item(1, Class::Final, 1));
        farm.add(Item { ready_at: 1001.0, avoid: vec![id(1001)], ..item(2, Class::Final, 1) });
        let given = farm.assign(2000.0, &[id(1000)]);
        assert_eq!(given.iter().flat_map(|g| g.items.clone()).collect::<Vec<_>>(), [2], "nobody else may do it");
    }
}

#[test]
fn a_visit_to_a_node_takes_nothing_along_that_another_may_do_whose_package_failed_there() {
    let failed = Node { blocked: HashSet::from([package(1)]), ..node(0) };
    let mut farm = farm(Policy::production(), vec![failed, node(1)]);
    farm.add(Item { avoid: vec![id(1001)], ..item(1, Class::Snapshot, 1) });
    farm.add(Item { ready_at: 1001.0, ..item(2, Class::Snapshot, 1) });
    let given = farm.assign(2000.0, &[id(1000)]);
    assert_eq!(given[0].items, [1], "the second goes to the node on which nothing failed");
}

#[test]
fn a_film_is_rendered_however_many_previews_come() {
    let mut farm = farm(Policy::production(), vec![node(0)]);
    farm.add(item(0, Class::Final, 1));
    let mut now = 1000.0;
    for n in 1..100 {
        farm.add(Item { ready_at: now, ..item(n, Class::Preview, 2) });
        farm.add(Item { ready_at: now, ..item(n + 1000, Class::Preview, 2) });
        let taken = farm.assign(now, &[id(1000)]).remove(0).items[0];
        if taken == 0 {
            assert!(now - 1000.0 <= 120.0 + 60.0, "after {} s", now - 1000.0);
            return;
        }
        now += 60.0;
        farm.finish(taken, now);
    }
    panic!("never");
}

#[test]
fn an_older_item_cannot_be_passed_over_by_priority_for_ever() {
    let mut farm = farm(Policy::production(), vec![node(0)]);
    farm.add(item(0, Class::Final, 1));
    let mut now = 1000.0;
    for n in 1..1000 {
        farm.add(Item { ready_at: now, priority: 10, ..item(n, Class::Final, 1) });
        farm.add(Item { ready_at: now, priority: 10, ..item(n + 5000, Class::Final, 1) });
        let taken = farm.assign(now, &[id(1000)]).remove(0).items[0];
        now += 60.0;
        farm.finish(taken, now);
        if taken == 0 {
            // Ten steps of a minute: what came in the first ten minutes goes before it, two a minute.
            assert!(now - 1000.0 <= 60.0 * (10.0 * 2.0 + 4.0), "after {} s", now - 1000.0);
            return;
        }
    }
    panic!("never");
}

/// Two nodes, and a chunk of a minute on the first since second 1000.
fn one_chunk() -> Farm {
    let mut farm = farm(Policy::production(), vec![node(0)]);
    farm.add(item(1, Class::Final, 1));
    assert_eq!(farm.assign(1000.0, &[id(1000)]).len(), 1);
    farm.set_node(node(1));
    farm
}

#[test]
fn a_chunk_that_is_late_is_named_once_for_a_node_that_has_nothing_to_do() {
    let mut farm = one_chunk();
    // 5 s to fetch the package, 15 to start, 3 to open it; three times a minute.
    assert_eq!(farm.late_from(1), Some(1000.0 + 23.0 + 180.0));
    assert!(farm.late(1202.0, &[id(1001)]).is_empty(), "not yet");
    assert!(farm.late(1204.0, &[id(1000)]).is_empty(), "its own node is not asked");
    assert!(farm.late(1204.0, &[]).is_empty(), "nobody is idle");
    assert_eq!(farm.late(1204.0, &[id(1001)]), [1]);
    assert!(farm.late(9999.0, &[id(1001)]).is_empty(), "one more is enough");
    let again = farm.finish(1, 1300.0).unwrap();
    farm.add(again);
    farm.assign(1300.0, &[id(1000)]);
    assert_eq!(farm.late(2000.0, &[id(1001)]), [1], "what is begun anew is timed anew");
}

#[test]
fn what_nobody_knows_the_length_of_is_late_after_ten_minutes_and_a_still_never() {
    let mut farm = farm(Policy::production(), vec![node(0), node(1)]);
    farm.add(Item { is_known: false, ..item(1, Class::Final, 1) });
    farm.add(item(2, Class::Snapshot, 1));
    farm.assign(1000.0, &[id(1000), id(1001)]);
    let other = farm.worked_on(2).unwrap().node;
    assert_eq!(farm.late(1599.0, &[id(1000), id(1001)]), [0; 0]);
    assert_eq!(farm.late(1601.0, &[id(1000), id(1001)]), [1], "a guess is not to be trusted as history is");
    farm.finish(1, 1602.0);
    farm.add(Item { is_known: false, seconds: 3600.0, ..item(3, Class::Final, 1) });
    farm.start(3, other, 2000.0);
    assert_eq!(
        farm.late(2000.0 + 3.0 * 3600.0, &[id(1000), id(1001)]),
        [0; 0],
        "what is guessed to be long gets as long"
    );
    assert_eq!(farm.late(1e9, &[id(1000), id(1001)]), [3]);
}

#[test]
fn of_two_nodes_alike_the_one_that_has_done_well_is_preferred_and_nobody_waits_for_it() {
    let failing = Node { health: 0.25, ..node(0) };
    let mut farm = farm(Policy::production(), vec![failing, node(1)]);
    farm.add(item(1, Class::Final, 1));
    assert_eq!(farm.assign(1001.0, &[id(1000), id(1001)])[0].node, id(1001));
    farm.add(item(2, Class::Final, 1));
    assert_eq!(farm.assign(1002.0, &[id(1000)])[0].node, id(1000), "the other one is busy");
}

#[test]
fn a_weight_counts_from_the_next_item_on_while_work_goes_on() {
    let mut farm = farm(Policy::fair(), vec![node(0)]);
    (0..200).for_each(|n| farm.add(item(n, Class::Final, 1 + n as usize % 2)));
    let mut now = 1000.0;
    let mut served = |farm: &mut Farm, times: usize| {
        let mut of_first = 0;
        for _ in 0..times {
            let taken = farm.assign(now, &[id(1000)]).remove(0).items[0];
            of_first += usize::from(taken % 2 == 0);
            now += 60.0;
            farm.finish(taken, now);
        }
        of_first
    };
    assert_eq!(served(&mut farm, 20), 10);
    farm.set_weights([(id(1), 3.0)]);
    assert!((28..=32).contains(&served(&mut farm, 40)));
    farm.set_weights([]);
    assert!((9..=11).contains(&served(&mut farm, 20)), "what is agreed on no longer counts no longer");
}

#[test]
fn only_a_node_that_may_do_it_does_it_twice() {
    for other in [Node { may_work: false, ..node(1) }, Node { labels: Labels::new(), ..node(1) }] {
        let mut farm = one_chunk();
        farm.set_node(other);
        assert!(farm.late(1e9, &[id(1001)]).is_empty());
    }
}

#[test]
fn what_is_done_twice_comes_after_everything_else() {
    for policy in policies() {
        let mut farm = farm(policy, vec![node(0)]);
        farm.add(Item { ready_at: 0.0, priority: 9, ..item(1, Class::Spare, 1) });
        farm.add(Item { ready_at: 5000.0, ..item(2, Class::Final, 2) });
        let order: Vec<i64> = (0..2)
            .flat_map(|n| {
                let given = farm.assign(6000.0 + f64::from(n), &[id(1000)]).remove(0).items;
                given.iter().for_each(|id| drop(farm.finish(*id, 6000.5 + f64::from(n))));
                given
            })
            .collect();
        assert_eq!(order, [2, 1]);
    }
}

#[derive(Debug, Clone)]
struct World {
    nodes: Vec<Node>,
    items: Vec<Item>,
    policy: usize,
}

fn policies() -> [Policy; 6] {
    [
        Policy::fifo(),
        Policy::priority(),
        Policy::fair(),
        Policy::fair_with_affinity(),
        Policy::with_reserve(),
        Policy::production(),
    ]
}

fn any_labels() -> impl Strategy<Value = Labels> {
    prop::collection::btree_map(prop::sample::select(vec!["engine", "font", "plugin"]), "[ab]", 0..3)
        .prop_map(|map| map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
}

fn any_node() -> impl Strategy<Value = Node> {
    (
        any_labels(),
        1..3_u32,
        (any::<bool>(), any::<bool>()),
        prop::option::of(0..3_usize),
        prop::collection::vec(0..4_usize, 0..3),
        0..5_usize,
    )
        .prop_map(|(labels, slots, (may_work, present), tenant, held, blocked)| Node {
            may_work,
            present,
            tenant: tenant.filter(|t| *t == 0).map(id),
            held: held.iter().map(|n| package(*n)).collect(),
            warm: held.first().map(|n| package(*n)),
            blocked: HashSet::from([package(blocked)]),
            ..Node::new(Uuid::nil(), labels, slots)
        })
}

fn any_item() -> impl Strategy<Value = Item> {
    (any_labels(), prop::sample::select(Class::ALL.to_vec()), 0..4_usize, 0..5_usize, 0..6_usize, 0.0..500.0, -2..3_i16)
        .prop_map(|(needs, class, tenant, of, avoid, ready_at, priority)| Item {
            needs,
            class,
            tenant: id(tenant),
            package: (of < 4).then(|| package(of)),
            avoid: (avoid < 5).then(|| id(1000 + avoid)).into_iter().collect(),
            ready_at,
            priority,
            ..item(0, class, tenant)
        })
}

fn any_world() -> impl Strategy<Value = World> {
    (prop::collection::vec(any_node(), 1..8), prop::collection::vec(any_item(), 0..60), 0..6_usize).prop_map(
        |(mut nodes, mut items, policy)| {
            nodes.iter_mut().enumerate().for_each(|(n, node)| node.id = id(1000 + n));
            items.iter_mut().enumerate().for_each(|(n, item)| item.id = n as i64);
            World { nodes, items, policy }
        },
    )
}

/// Who may do an item, written the long way: one of those it did not fail on, and if there is none, one of the others.
fn may(nodes: &[Node], node: &Node, item: &Item) -> bool {
    let able = |node: &Node| {
        let has_all = item.needs.iter().all(|(k, v)| node.labels.get(k).is_some_and(|has| has == v));
        let serves = node.tenant.is_none() || node.tenant == Some(item.tenant);
        node.may_work && has_all && !item.avoid.contains(&node.id) && serves
    };
    let failed = |node: &Node| item.package.as_ref().is_some_and(|p| node.blocked.contains(p));
    able(node) && (!failed(node) || !nodes.iter().any(|other| other.present && able(other) && !failed(other)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_goes_where_it_may_not_and_nothing_twice(world in any_world()) {
        let policy = policies()[world.policy].clone();
        let mut farm = farm(policy.clone(), world.nodes.clone());
        let items: HashMap<i64, Item> = world.items.iter().map(|i| (i.id, i.clone())).collect();
        world.items.iter().for_each(|item| farm.add(item.clone()));
        let idle: Vec<Uuid> = world.nodes.iter().flat_map(|n| vec![n.id; n.slots as usize]).collect();
        let mut seen = HashSet::new();
        for given in farm.assign(600.0, &idle) {
            let node = world.nodes.iter().find(|n| n.id == given.node).unwrap();
            prop_assert!(given.items.len() <= policy.batch.max(1));
            for taken in given.items {
                prop_assert!(may(&world.nodes, node, &items[&taken]), "{node:?} {:?}", items[&taken]);
                prop_assert!(seen.insert(taken));
                prop_assert_eq!(farm.worked_on(taken).unwrap().node, node.id);
            }
        }
        prop_assert_eq!(farm.waiting().len() + farm.running().len(), world.items.len());
    }

    #[test]
    fn no_node_is_idle_while_something_waits_that_it_may_do(world in any_world()) {
        let policy = policies()[world.policy].clone();
        let kept = policy.reserve > 0.0;
        let mut farm = farm(policy, world.nodes.clone());
        world.items.iter().for_each(|item| farm.add(item.clone()));
        let mut idle: Vec<Uuid> = world.nodes.iter().flat_map(|n| vec![n.id; n.slots as usize]).collect();
        for given in farm.assign(600.0, &idle.clone()) {
            let at = idle.iter().position(|id| *id == given.node).unwrap();
            idle.remove(at);
        }
        for node in world.nodes.iter().filter(|n| idle.contains(&n.id)) {
            for left in farm.waiting().filter(|item| may(&world.nodes, node, item)) {
                prop_assert!(kept && left.class != Class::Snapshot, "{left:?} waits for {node:?}");
            }
        }
    }

    #[test]
    fn what_a_decision_costs_is_given_back_when_all_is_done(world in any_world()) {
        let mut farm = farm(policies()[world.policy].clone(), world.nodes.clone());
        world.items.iter().for_each(|item| farm.add(item.clone()));
        let idle: Vec<Uuid> = world.nodes.iter().flat_map(|n| vec![n.id; n.slots as usize]).collect();
        let given: Vec<i64> = farm.assign(600.0, &idle).into_iter().flat_map(|g| g.items).collect();
        for id in given {
            let back = farm.finish(id, 610.0).unwrap();
            farm.add(back);
        }
        prop_assert_eq!(farm.running().len(), 0);
        prop_assert_eq!(farm.waiting().len(), world.items.len());
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(25))]

    /// Tenants that always have work waiting get slot-seconds by their weights, whatever their items take.
    #[test]
    fn tenants_that_keep_asking_get_what_they_weigh(
        weights in prop::collection::vec(1..4_u32, 2..6), seconds in prop::collection::vec(5.0..60.0_f64, 6), policy in 2..6_usize
    ) {
        let mut farm = farm(policies()[policy].clone(), (0..4).map(node).collect());
        weights.iter().enumerate().for_each(|(t, weight)| farm.weigh(id(t), f64::from(*weight)));
        let mut ends: Vec<(f64, i64)> = Vec::new();
        let (mut next, mut now) = (0_i64, 1000.0);
        let mut had = vec![0.0; weights.len()];
        let add = |farm: &mut Farm, tenant: usize, next: &mut i64, now: f64| {
            farm.add(Item { seconds: 60.0, ready_at: now, ..item(*next, Class::Final, tenant) });
            *next += 1;
        };
        for tenant in 0..weights.len() {
            (0..6).for_each(|_| add(&mut farm, tenant, &mut next, now));
        }
        while now < 30_000.0 {
            for given in farm.assign(now, &everybody(&farm, 4)) {
                let tenant = farm.worked_on(given.items[0]).unwrap().item.tenant.as_u128() as usize - 1;
                ends.push((now + seconds[tenant], given.items[0]));
                had[tenant] += seconds[tenant];
                add(&mut farm, tenant, &mut next, now);
            }
            ends.sort_by(|a, b| b.0.total_cmp(&a.0));
            let (at, done) = ends.pop().unwrap();
            now = at;
            farm.finish(done, now);
        }
        let shares: Vec<f64> = had.iter().zip(&weights).map(|(had, weight)| had / f64::from(*weight)).collect();
        let (sum, squares) = (shares.iter().sum::<f64>(), shares.iter().map(|s| s * s).sum::<f64>());
        let jain = sum * sum / (shares.len() as f64 * squares);
        prop_assert!(jain > 0.99, "{jain} {shares:?}");
    }

    /// A tenant is kept waiting by no flood of others': from its coming to its first item it waits for less than its turn, the
    /// slack and one item.
    #[test]
    fn nobody_is_starved_by_a_flood(others in 1..6_usize, flood in 50..200_i64, held in any::<bool>()) {
        let mut nodes: Vec<Node> = (0..2).map(node).collect();
        if held {
            nodes.iter_mut().for_each(|n| n.held = (1..=others).map(package).collect());
        }
        let mut farm = farm(Policy::production(), nodes);
        (0..flood).for_each(|n| farm.add(item(n, Class::Final, 1 + n as usize % others)));
        let mut now = 1000.0;
        let mut busy: Vec<(f64, i64)> = Vec::new();
        let mut came = None;
        for round in 0..flood + 2 {
            if round == 10 {
                farm.add(Item { ready_at: now, ..item(9999, Class::Final, 50) });
                came = Some(now);
            }
            for given in farm.assign(now, &everybody(&farm, 2)) {
                if given.items[0] == 9999 {
                    let waited = now - came.unwrap();
                    let policy = Policy::production();
                    let bound = others as f64 * (policy.slack + 60.0 + 25.0) / 2.0 + 60.0;
                    prop_assert!(waited <= bound, "{waited} > {bound}");
                    return Ok(());
                }
                busy.push((now + 60.0, given.items[0]));
            }
            busy.sort_by(|a, b| b.0.total_cmp(&a.0));
            let (at, done) = busy.pop().unwrap();
            now = at;
            farm.finish(done, now);
        }
        prop_assert!(false, "never");
    }
}
