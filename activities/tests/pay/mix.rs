//! Whatever goes wrong in whatever order: the books of a gateway and what its adapter said are equal in the end.

use crate::{
    fakes::{
        faults::{Call, Fault, How},
        sum,
    },
    world::World,
};
use chrono::{TimeDelta, Utc};
use flatrender_workflows::contracts::pay::{
    By, Due, Gateway, ListSettlements, ListUnsettled, PaymentState, RefundPayment, RefundState, SettlementKind,
};
use proptest::{prelude::*, test_runner::Config};
use std::collections::HashMap;

/// What happens.
#[derive(Debug, Clone)]
enum Step {
    Fault(Call, Fault),
    Create(usize),
    Pay(usize),
    PayWrong(usize, i64),
    Verify(usize),
    Refund(usize, i64),
    Restart,
}

/// What we know of a payment, as whoever keeps our books would.
struct Known {
    due: Due,
    provider_ref: Option<String>,
    settled: Option<String>,
    reviewed: bool,
    wrong: bool,
    refunds: Vec<(RefundPayment, i32, Option<RefundState>)>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let call =
        prop_oneof![Just(Call::Create), Just(Call::Read), Just(Call::Verify), Just(Call::Refund), Just(Call::List)];
    let how = prop_oneof![
        Just(How::Cut),
        Just(How::Status(500)),
        Just(How::Status(503)),
        Just(How::Malformed),
        Just(How::Html),
        Just(How::Throttled(1)),
    ];
    let when =
        (how, any::<bool>()).prop_map(|(how, before)| if before { Fault::Before(how) } else { Fault::After(how) });
    let step = prop_oneof![
        3 => (call, when).prop_map(|(call, fault)| Step::Fault(call, fault)),
        3 => (0_usize..3).prop_map(Step::Create),
        2 => (0_usize..3).prop_map(Step::Pay),
        1 => (0_usize..3, -3_i64..3).prop_map(|(n, by)| Step::PayWrong(n, by)),
        4 => (0_usize..3).prop_map(Step::Verify),
        3 => (0_usize..3, 1_i64..=4).prop_map(|(n, part)| Step::Refund(n, part)),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..25)
}

/// What the definition of a payment does with what it is told: it settles only what settles, once.
async fn verify(world: &World, known: &mut Known, mended: bool) {
    let Some(provider_ref) = known.provider_ref.clone() else { return };
    let ask = world.verify(&known.due, &provider_ref);
    let seen = if mended { world.insist(ask).await.map(|(seen, _)| seen) } else { world.ask(ask, 1).await };
    let Ok(seen) = seen else {
        assert!(!mended, "it never works");
        return;
    };
    if seen.settles(&known.due) {
        assert!(!known.wrong, "what was paid wrong has settled: {seen:?}");
        let txn = seen.provider_txn.clone().unwrap();
        assert!(known.settled.as_ref().is_none_or(|before| *before == txn), "it settles twice");
        known.settled = Some(txn);
    }
    known.reviewed |= seen.needs_review(&known.due);
}

async fn refund(world: &World, ask: &RefundPayment, attempt: &mut i32, state: &mut Option<RefundState>) {
    *attempt += 1;
    if let Ok(seen) = world.ask(ask.clone(), *attempt).await {
        assert_ne!((*state, seen.state), (Some(RefundState::Done), RefundState::Refused), "{seen:?}");
        *state = Some(seen.state);
    }
}

async fn run(gateway: Gateway, steps: Vec<Step>) {
    let mut world = World::new(gateway);
    let unit = if gateway == Gateway::Zarinpal { 10 } else { 1 };
    let mut payments: HashMap<usize, Known> = HashMap::new();
    let mut later = TimeDelta::zero();
    for step in steps {
        match step {
            Step::Fault(call, fault) => world.fake.fail(call, fault),
            Step::Restart => {
                world.fake.restart();
                world.fake.advance(later);
            }
            Step::Create(n) => {
                let due = world.due();
                let known = payments.entry(n).or_insert_with(|| Known {
                    due,
                    provider_ref: None,
                    settled: None,
                    reviewed: false,
                    wrong: false,
                    refunds: vec![],
                });
                if known.provider_ref.is_none()
                    && let Ok(created) = world.ask(world.create(&known.due), 2).await
                {
                    known.provider_ref = Some(created.provider_ref);
                }
            }
            Step::Pay(n) | Step::PayWrong(n, 0) => {
                if let Some(provider_ref) = payments.get(&n).and_then(|known| known.provider_ref.as_ref()) {
                    world.fake.pay(provider_ref);
                }
            }
            Step::PayWrong(n, by) => {
                if let Some(known) = payments.get_mut(&n)
                    && let Some(provider_ref) = &known.provider_ref
                {
                    let was_open = world.fake.is_open(provider_ref);
                    world.fake.pay_amount(provider_ref, known.due.amount * unit + by);
                    known.wrong |= was_open;
                }
            }
            Step::Verify(n) => {
                if let Some(known) = payments.get_mut(&n) {
                    verify(&world, known, false).await;
                }
            }
            Step::Refund(n, part) => {
                if let Some(known) = payments.get_mut(&n)
                    && known.settled.is_some()
                {
                    // As our books do: no more than was paid, and one at a time.
                    let open = known.refunds.iter().any(|(_, _, state)| state.is_none());
                    let given: i64 =
                        known.refunds.iter().filter(|r| r.2 != Some(RefundState::Refused)).map(|r| r.0.amount).sum();
                    let amount = known.due.amount / 4 * part;
                    if !open && given + amount <= known.due.amount {
                        let seen = world.seen(
                            &known.due,
                            known.provider_ref.as_deref().unwrap(),
                            known.settled.as_deref().unwrap(),
                        );
                        // Its clock tells seconds: one refund is later than the other.
                        world.fake.advance(TimeDelta::seconds(2));
                        later += TimeDelta::seconds(2);
                        let mut ask = world.refund(&known.due, &seen, amount);
                        ask.since += later;
                        known.refunds.push((ask, 0, None));
                    }
                    for (ask, attempt, state) in known.refunds.iter_mut().filter(|(_, _, state)| state.is_none()) {
                        refund(&world, ask, attempt, state).await;
                    }
                }
            }
        }
    }
    // Everything is mended, and reconciled.
    world.fake.mend();
    let list = ListUnsettled { account: world.account.clone(), since: Utc::now() - TimeDelta::days(1) };
    let (unsettled, _) = world.insist(list).await.unwrap();
    for known in payments.values_mut() {
        // What was created and whose answer was lost is found by our id, when anybody paid for it.
        if known.provider_ref.is_none() {
            let found =
                world.ask(world.fetch(&known.due, By::OurId(Utc::now() - TimeDelta::days(1))), 1).await.unwrap();
            assert!(found.is_none_or(|seen| seen.state == PaymentState::Open), "nobody could pay for it");
            continue;
        }
        verify(&world, known, true).await;
        for (ask, attempt, state) in known.refunds.iter_mut().filter(|(_, _, state)| state.is_none()) {
            while state.is_none() && *attempt < 20 {
                refund(&world, ask, attempt, state).await;
            }
        }
        assert!(known.refunds.iter().all(|(_, _, state)| state.is_some()));
    }
    assert!(
        unsettled
            .payments
            .iter()
            .all(|paid| payments.values().any(|k| k.provider_ref.as_ref() == Some(&paid.provider_ref)))
    );
    // To the unit.
    for known in payments.values() {
        let of_it = |all: Vec<crate::fakes::Movement>| -> i64 {
            sum(&all.into_iter().filter(|m| Some(&m.provider_ref) == known.provider_ref.as_ref()).collect::<Vec<_>>())
        };
        let taken = of_it(world.fake.captures());
        let given: i64 = known
            .refunds
            .iter()
            .filter(|r| r.2 != Some(RefundState::Refused))
            .map(|(ask, _, _)| ask.amount * unit)
            .sum();
        if known.settled.is_some() {
            assert_eq!(taken, known.due.amount * unit);
        } else if gateway == Gateway::Zarinpal {
            assert_eq!(taken, 0, "what was not verified is not taken");
        }
        assert_eq!(known.reviewed, known.wrong, "what is wrong is looked at, and nothing else");
        assert_eq!(of_it(world.fake.refunds()), given, "{:?}", known.refunds);
    }
    let day = ListSettlements { account: world.account.clone(), day: Utc::now().date_naive() };
    let (statement, _) = world.insist(day).await.unwrap();
    let told = |kind| statement.lines.iter().filter(|line| line.kind == kind).map(|line| line.amount).sum::<i64>();
    assert_eq!(told(SettlementKind::Payment), sum(&world.fake.captures()));
    assert_eq!(told(SettlementKind::Refund), sum(&world.fake.refunds()));
}

fn block_on(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
}

proptest! {
    #![proptest_config(Config { cases: 48, max_shrink_iters: 60, ..Config::default() })]

    #[test]
    fn the_books_of_stripe_and_ours_are_equal(steps in steps()) {
        block_on(run(Gateway::Stripe, steps));
    }

    #[test]
    fn the_books_of_zarinpal_and_ours_are_equal(steps in steps()) {
        block_on(run(Gateway::Zarinpal, steps));
    }
}
