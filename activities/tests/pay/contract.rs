//! What every gateway that can be asked does, whatever goes wrong: the same table for each of them.

use crate::{
    fakes::{
        faults::{
            Call,
            Fault::{self, After, Before, Slow},
            How::{self, Cut, Hang, Html, Long, Malformed, Status, Throttled},
        },
        sum,
    },
    world::World,
};
use chrono::{TimeDelta, Utc};
use flatrender_workflows::contracts::pay::{
    AMOUNT_LIMITS, By, CURRENCY, CheckGateway, Class, Difference, Due, ExpirePayment, Gateway, ListSettlements,
    ListUnsettled, MERCHANT_CONFIG, NOT_FOUND, PaymentState, RefundState, SettlementKind, THROTTLED, UNKNOWN_OUTCOME,
    UNREACHABLE, class_of,
};
use std::time::Duration;
use uuid::Uuid;

const BOTH: [Gateway; 2] = [Gateway::Stripe, Gateway::Zarinpal];
/// Everything that can go wrong with an answer.
const ALL: [How; 6] = [Hang, Cut, Status(500), Status(502), Malformed, Html];

/// Faults before and after the work.
fn faults() -> impl Iterator<Item = Fault> {
    let never_done = ALL.into_iter().map(Before);
    never_done.chain(ALL.into_iter().chain([Long]).map(After)).chain([Slow(Duration::from_millis(100))])
}

/// The unit of the gateway: rials for tomans.
fn units(world: &World, amount: i64) -> i64 {
    if world.account.gateway == Gateway::Zarinpal { amount * 10 } else { amount }
}

#[tokio::test]
async fn somebody_pays_and_it_is_seen_to_the_unit() {
    for gateway in BOTH {
        let world = World::new(gateway);
        let due = world.due();
        let created = world.open(&due).await;
        assert!(created.redirect_url.as_deref().unwrap().starts_with(world.fake.url()), "{gateway}");
        let before = world.ask(world.verify(&due, &created.provider_ref), 1).await.unwrap();
        assert_eq!((before.state, before.settles(&due)), (PaymentState::Open, false), "{gateway}");
        let back = world.fake.pay(&created.provider_ref);
        assert!(back.contains(&due.payment_id.to_string()), "{back}");
        let seen = world.ask(world.verify(&due, &created.provider_ref), 1).await.unwrap();
        assert!(seen.settles(&due) && !seen.needs_review(&due), "{seen:?}");
        assert!(seen.merchant.is_some() && seen.card.is_some());
        // Asked again, as after a crash, it is the same: ZarinPal says 101 then.
        let again = world.ask(world.verify(&due, &created.provider_ref), 2).await.unwrap();
        assert_eq!(again, seen, "{gateway}");
        let captures = world.fake.captures();
        assert_eq!(captures.len(), 1);
        assert_eq!((captures[0].payment_id, captures[0].amount), (Some(due.payment_id), units(&world, due.amount)));
    }
}

#[tokio::test]
async fn whatever_goes_wrong_when_a_payment_is_opened_it_is_paid_once() {
    for gateway in BOTH {
        for fault in faults() {
            let world = World::new(gateway);
            let due = world.due();
            world.fake.fail(Call::Create, fault);
            let first = world.ask(world.create(&due), 1).await;
            if let Err(failure) = &first {
                assert_eq!(
                    (failure.code.as_str(), class_of(failure)),
                    (UNKNOWN_OUTCOME, Class::UnknownOutcome),
                    "{fault:?}"
                );
            }
            let created = match first {
                Ok(created) => created,
                Err(_) => world.ask(world.create(&due), 2).await.unwrap(),
            };
            // And once more, as after a crash: it is the same payment where the gateway knows our key.
            let again = world.ask(world.create(&due), 3).await.unwrap();
            if gateway == Gateway::Stripe {
                assert_eq!(
                    (again.provider_ref.as_str(), world.fake.opened()),
                    (created.provider_ref.as_str(), 1),
                    "{fault:?}"
                );
            }
            world.fake.pay(&created.provider_ref);
            assert!(
                world.ask(world.verify(&due, &created.provider_ref), 1).await.unwrap().settles(&due),
                "{gateway} {fault:?}"
            );
            assert_eq!(world.fake.captures().len(), 1, "{gateway} {fault:?}");
        }
    }
}

#[tokio::test]
async fn what_is_paid_before_it_is_closed_is_taken_and_not_given_up() {
    for gateway in BOTH {
        for fault in [None, Some(After(Cut)), Some(Before(Status(500)))] {
            let world = World::new(gateway);
            let due = world.due();
            let created = world.open(&due).await;
            world.fake.pay(&created.provider_ref);
            if let Some(fault) = fault {
                world.fake.fail(if gateway == Gateway::Stripe { Call::Read } else { Call::Verify }, fault);
            }
            let close = ExpirePayment {
                account: world.account.clone(),
                due: due.clone(),
                provider_ref: created.provider_ref.clone(),
            };
            let (seen, _) = world.insist(close.clone()).await.unwrap();
            assert!(seen.settles(&due), "{gateway} {fault:?}: {seen:?}");
            assert_eq!(world.ask(close, 1).await.unwrap(), seen, "{gateway}: it stays so");
            assert_eq!(sum(&world.fake.captures()), units(&world, due.amount), "{gateway} {fault:?}");
        }
    }
}

#[tokio::test]
async fn whatever_goes_wrong_when_it_is_verified_it_is_taken_once() {
    for gateway in BOTH {
        let call = if gateway == Gateway::Stripe { Call::Read } else { Call::Verify };
        for fault in faults() {
            let world = World::new(gateway);
            let due = world.due();
            let created = world.open(&due).await;
            world.fake.pay(&created.provider_ref);
            world.fake.fail(call, fault);
            let (seen, attempts) = world.insist(world.verify(&due, &created.provider_ref)).await.unwrap();
            assert!(seen.settles(&due), "{gateway} {fault:?}: {seen:?}");
            assert_eq!(attempts, if matches!(fault, Slow(_)) { 1 } else { 2 }, "{gateway} {fault:?}");
            assert_eq!(sum(&world.fake.captures()), units(&world, due.amount), "{gateway} {fault:?}");
        }
    }
}

#[tokio::test]
async fn whatever_goes_wrong_when_money_goes_back_it_goes_back_once() {
    for gateway in BOTH {
        for fault in faults() {
            let world = World::new(gateway);
            let due = world.due();
            let paid = world.paid(&due).await;
            let ask = world.refund(&due, &paid, due.amount / 2);
            world.fake.fail(Call::Refund, fault);
            let (seen, _) = world.insist(ask.clone()).await.unwrap();
            assert_ne!(seen.state, RefundState::Refused, "{gateway} {fault:?}: {seen:?}");
            assert_eq!(seen.amount, Some(ask.amount), "{gateway} {fault:?}");
            assert_eq!(sum(&world.fake.refunds()), units(&world, ask.amount), "{gateway} {fault:?}");
            // Once more, as after a crash, and looked for by either name.
            assert_eq!(world.ask(ask.clone(), 9).await.unwrap(), seen, "{gateway} {fault:?}");
            assert_eq!(world.find_refund(&ask, Some(&seen)).await.as_ref(), Some(&seen), "{gateway} {fault:?}");
            assert_eq!(world.find_refund(&ask, None).await.as_ref(), Some(&seen), "{gateway} {fault:?}");
            assert_eq!(world.fake.refunds().len(), 1, "{gateway} {fault:?}");
        }
    }
}

#[tokio::test]
async fn a_timeout_after_the_money_was_taken_is_unknown_and_found_by_asking() {
    for gateway in BOTH {
        let world = World::new(gateway);
        let due = world.due();
        let since = Utc::now() - TimeDelta::minutes(1);
        assert_eq!(world.ask(world.fetch(&due, By::OurId(since)), 1).await.unwrap(), None, "{gateway}");
        let created = world.open(&due).await;
        world.fake.pay(&created.provider_ref);
        for by in [By::OurId(since), By::Ref(created.provider_ref.clone())] {
            let found = world.ask(world.fetch(&due, by.clone()), 1).await.unwrap().unwrap();
            assert_eq!(
                (found.provider_ref.as_str(), found.payment_id),
                (created.provider_ref.as_str(), Some(due.payment_id))
            );
            let expected = if gateway == Gateway::Stripe { PaymentState::Paid } else { PaymentState::Authorized };
            assert_eq!(found.state, expected, "{gateway} {by:?}");
        }
        let due = world.due();
        let refund = world.refund(&due, &world.paid(&due).await, 100);
        assert_eq!(world.find_refund(&refund, None).await, None, "{gateway}: nobody asked for it");
    }
}

#[tokio::test]
async fn a_question_without_an_answer_has_moved_nothing() {
    for gateway in BOTH {
        for how in ALL.into_iter().chain([Long]) {
            let world = World::new(gateway);
            let due = world.due();
            let created = world.open(&due).await;
            world.fake.fail(Call::Read, Before(how));
            let asked = world.ask(world.fetch(&due, By::Ref(created.provider_ref.clone())), 1).await;
            assert_eq!(asked.unwrap_err().code, UNREACHABLE, "{gateway} {how:?}");
            world.fake.fail(Call::List, After(how));
            let list = ListUnsettled { account: world.account.clone(), since: Utc::now() - TimeDelta::days(1) };
            assert_eq!(world.ask(list, 1).await.unwrap_err().code, UNREACHABLE, "{gateway} {how:?}");
        }
    }
}

#[tokio::test]
async fn whoever_wants_to_be_left_alone_says_for_how_long() {
    for gateway in BOTH {
        let world = World::new(gateway);
        let due = world.due();
        world.fake.fail(Call::Create, Before(Throttled(7)));
        let failure = world.ask(world.create(&due), 1).await.unwrap_err();
        assert_eq!((failure.code.as_str(), failure.retry_after_seconds), (THROTTLED, Some(7.0)), "{gateway}");
        assert_eq!(class_of(&failure), Class::Transient);
        assert_eq!(world.fake.opened(), 0);
    }
}

#[tokio::test]
async fn what_nobody_serves_has_not_happened() {
    for gateway in BOTH {
        let mut world = World::new(gateway);
        let (due, nowhere) = (world.due(), "http://127.0.0.1:9");
        world.cashier = crate::world::cashier(crate::world::places(nowhere));
        let failure = world.ask(world.create(&due), 1).await.unwrap_err();
        assert_eq!((failure.code.as_str(), failure.retryable), (UNREACHABLE, true), "{gateway}");
    }
}

#[tokio::test]
async fn another_amount_than_was_asked_for_settles_nothing() {
    for gateway in BOTH {
        for wrong in [-1, 1, 1_000_000] {
            let world = World::new(gateway);
            let due = world.due();
            let created = world.open(&due).await;
            world.fake.pay_amount(&created.provider_ref, units(&world, due.amount) + wrong);
            let seen = world.ask(world.verify(&due, &created.provider_ref), 1).await.unwrap();
            assert!(!seen.settles(&due) && seen.needs_review(&due), "{gateway} {seen:?}");
            assert!(seen.differences.contains(&Difference::Amount), "{gateway} {seen:?}");
        }
    }
}

#[tokio::test]
async fn a_payment_of_another_one_settles_nothing() {
    for gateway in BOTH {
        let world = World::new(gateway);
        let (cheap, mut dear) = (world.due(), world.due());
        dear.amount *= 10;
        let paid = world.paid(&cheap).await;
        let seen = world.ask(world.verify(&dear, &paid.provider_ref), 1).await.unwrap();
        assert!(!seen.settles(&dear) && seen.needs_review(&dear), "{gateway} {seen:?}");
    }
}

#[tokio::test]
async fn what_a_gateway_has_never_heard_of_is_not_found() {
    for gateway in BOTH {
        let world = World::new(gateway);
        let due = world.due();
        for unknown in ["cs_test_00000009none", "A00000000000000000000000000999999999", "../../v1/account", "", "x"] {
            let failure = world.ask(world.verify(&due, unknown), 1).await.unwrap_err();
            assert_eq!((failure.code.as_str(), failure.retryable), (NOT_FOUND, false), "{gateway} {unknown:?}");
            let fetched = world.ask(world.fetch(&due, By::Ref(unknown.into())), 1).await.unwrap();
            assert_eq!(fetched, None, "{gateway} {unknown:?}");
        }
    }
}

#[tokio::test]
async fn amounts_and_currencies_that_it_does_not_take_fail_for_good() {
    for gateway in BOTH {
        let world = World::new(gateway);
        let of = |amount, currency: &str| Due { payment_id: Uuid::new_v4(), amount, currency: currency.into() };
        for (due, code) in [
            (of(1, if gateway == Gateway::Stripe { "USD" } else { "IRR" }), AMOUNT_LIMITS),
            (of(0, if gateway == Gateway::Stripe { "USD" } else { "IRT" }), AMOUNT_LIMITS),
            (of(-5, if gateway == Gateway::Stripe { "EUR" } else { "IRT" }), AMOUNT_LIMITS),
            (of(i64::MAX, if gateway == Gateway::Stripe { "ISK" } else { "IRT" }), AMOUNT_LIMITS),
            (of(5000, if gateway == Gateway::Stripe { "IRR" } else { "USD" }), CURRENCY),
            (of(5000, "XXX"), CURRENCY),
        ] {
            let failure = world.ask(world.create(&due), 1).await.unwrap_err();
            assert_eq!((failure.code.as_str(), class_of(&failure)), (code, Class::Permanent), "{gateway} {due:?}");
        }
        assert_eq!(world.fake.opened(), 0);
    }
}

#[tokio::test]
async fn money_that_nobody_heard_of_is_on_the_list() {
    for gateway in BOTH {
        let world = World::new(gateway);
        let list = ListUnsettled { account: world.account.clone(), since: Utc::now() - TimeDelta::days(1) };
        let (open, paid) = (world.due(), world.due());
        world.open(&open).await;
        let created = world.open(&paid).await;
        assert_eq!(world.ask(list.clone(), 1).await.unwrap().payments, [], "{gateway}");
        world.fake.pay(&created.provider_ref);
        let found = world.ask(list.clone(), 1).await.unwrap();
        assert!(found.complete);
        let [found] = found.payments.as_slice() else { panic!("{gateway}: {found:?}") };
        assert_eq!(
            (found.provider_ref.as_str(), found.payment_id),
            (created.provider_ref.as_str(), Some(paid.payment_id))
        );
        assert_eq!(found.amount, units(&world, paid.amount), "{gateway}");
        assert!((Utc::now() - found.at.unwrap()).abs() < TimeDelta::minutes(1), "{gateway}: {:?}", found.at);
    }
}

#[tokio::test]
async fn a_day_is_told_to_the_unit() {
    for gateway in BOTH {
        let world = World::new(gateway);
        let mut taken = 0;
        for _ in 0..3 {
            let due = world.due();
            world.paid(&due).await;
            taken += units(&world, due.amount);
        }
        let due = world.due();
        let paid = world.paid(&due).await;
        taken += units(&world, due.amount);
        world.open(&world.due()).await;
        let refund = world.refund(&due, &paid, due.amount);
        world.insist(refund.clone()).await.unwrap();
        let today = Utc::now().date_naive();
        let ask = |day| ListSettlements { account: world.account.clone(), day };
        let statement = world.ask(ask(today), 1).await.unwrap();
        assert!(statement.told && statement.complete, "{gateway}");
        let of = |kind| statement.lines.iter().filter(move |line| line.kind == kind);
        assert_eq!(of(SettlementKind::Payment).map(|line| line.amount).sum::<i64>(), taken, "{gateway}");
        assert_eq!(of(SettlementKind::Payment).count(), 4, "{gateway}");
        let [given] = of(SettlementKind::Refund).collect::<Vec<_>>()[..] else { panic!("{gateway}") };
        assert_eq!((given.amount, given.payment_id), (units(&world, due.amount), Some(due.payment_id)), "{gateway}");
        let yesterday = world.ask(ask(today - TimeDelta::days(1)), 1).await.unwrap();
        assert!(yesterday.lines.is_empty() && yesterday.told, "{gateway}");
    }
}

#[tokio::test]
async fn its_books_outlive_it_and_are_the_same_afterwards() {
    for gateway in BOTH {
        let mut world = World::new(gateway);
        let due = world.due();
        let created = world.open(&due).await;
        world.fake.pay(&created.provider_ref);
        world.fake.restart();
        let (seen, _) = world.insist(world.verify(&due, &created.provider_ref)).await.unwrap();
        assert!(seen.settles(&due), "{gateway}");
        let refund = world.refund(&due, &seen, due.amount);
        world.fake.fail(Call::Refund, After(Hang));
        let lost = world.ask(refund.clone(), 1).await.unwrap_err();
        assert_eq!(lost.code, UNKNOWN_OUTCOME);
        world.fake.restart();
        let (given, _) = world.insist(refund).await.unwrap();
        assert_ne!(given.state, RefundState::Refused, "{gateway}: {given:?}");
        assert_eq!((world.fake.captures().len(), world.fake.refunds().len()), (1, 1), "{gateway}");
    }
}

#[tokio::test]
async fn an_account_that_does_not_fit_is_told_so_before_anybody_pays() {
    for gateway in BOTH {
        let mut world = World::new(gateway);
        let check = |world: &World| CheckGateway { account: world.account.clone() };
        let facts = world.ask(check(&world), 1).await.unwrap();
        assert!(facts.refunds && facts.statements && !facts.merchant.is_empty(), "{gateway}");
        let wrong = match gateway {
            Gateway::Stripe => serde_json::json!({"secret_key": "sk_test_other", "webhook_secrets": ["whsec_x"]}),
            _ => serde_json::json!({"merchant_id": "00000000-0000-0000-0000-000000000000"}),
        };
        world.account = crate::world::account(gateway, world.account.mode, &wrong);
        let failure = world.ask(check(&world), 1).await.unwrap_err();
        assert_eq!((failure.code.as_str(), failure.retryable), (MERCHANT_CONFIG, false), "{gateway}");
        let failure = world.ask(world.create(&world.due()), 1).await.unwrap_err();
        assert_eq!((failure.code.as_str(), failure.retryable), (MERCHANT_CONFIG, false), "{gateway}");
        world.account.settings.hex = "00".into();
        let failure = world.ask(check(&world), 1).await.unwrap_err();
        assert_eq!((failure.code.as_str(), failure.retryable), (MERCHANT_CONFIG, false), "{gateway}");
    }
}
