//! What only ZarinPal has.

use crate::{
    fakes::{
        faults::{Call, Fault, How},
        sum,
        zarinpal::{MERCHANT, TERMINAL, TOKEN},
    },
    world::{World, account},
};
use chrono::{TimeDelta, Utc};
use flatrender_engine::Activity as _;
use flatrender_workflows::contracts::pay::{
    By, CheckGateway, Class, DECLINED, Difference, Due, ExpirePayment, Gateway, ListSettlements, ListUnsettled,
    MERCHANT_CONFIG, Mode, PaymentState, REFUND_BY_HAND, RefundState, class_of,
};
use serde_json::json;
use uuid::Uuid;

#[tokio::test]
async fn rials_and_tomans_are_paid_in_rials() {
    for (amount, currency, rials) in [(125_000, "IRR", 125_000), (125_000, "IRT", 1_250_000)] {
        let world = World::zarinpal();
        let due = Due { payment_id: Uuid::new_v4(), amount, currency: currency.into() };
        let paid = world.paid(&due).await;
        assert!(paid.settles(&due), "{paid:?}");
        assert_eq!(sum(&world.fake.captures()), rials);
        assert_eq!(paid.fee, Some(if currency == "IRR" { 350 } else { 35 }));
        world.insist(world.refund(&due, &paid, amount / 5)).await.unwrap();
        assert_eq!(sum(&world.fake.refunds()), rials / 5);
    }
}

#[tokio::test]
async fn a_verification_whose_answer_was_lost_is_answered_with_101() {
    let world = World::zarinpal();
    let due = world.due();
    let created = world.open(&due).await;
    world.fake.pay(&created.provider_ref);
    let since = Utc::now();
    assert!(world.ask(world.fetch(&due, By::OurId(since)), 1).await.unwrap().is_some());
    world.fake.fail(Call::Verify, Fault::After(How::Cut));
    let verify = || world.ask(world.verify(&due, &created.provider_ref), 1);
    assert!(verify().await.is_err());
    let seen = verify().await.unwrap();
    assert!(seen.settles(&due));
    assert_eq!(verify().await.unwrap(), seen);
    // It is verified: nobody has to look for it any more.
    assert_eq!(world.ask(world.fetch(&due, By::OurId(since)), 1).await.unwrap(), None);
    let list = ListUnsettled { account: world.account.clone(), since };
    assert_eq!(world.ask(list, 1).await.unwrap().payments, []);
}

#[tokio::test]
async fn what_becomes_of_a_payment_is_told_without_moving_it() {
    let world = World::zarinpal();
    let fake = world.as_zarinpal();
    let (declined, reversed, foreign) = (world.due(), world.due(), world.due());
    let of = async |due: &Due| world.open(due).await.provider_ref;
    let authority = of(&declined).await;
    assert!(fake.decline(&authority).ends_with("Status=NOK"));
    let seen = world.ask(world.verify(&declined, &authority), 1).await.unwrap();
    assert_eq!((seen.state, seen.failure_code()), (PaymentState::Declined, Some(DECLINED)));
    let authority = of(&reversed).await;
    fake.pay(&authority);
    fake.reverse(&authority);
    let expire =
        ExpirePayment { account: world.account.clone(), due: reversed.clone(), provider_ref: authority.clone() };
    assert_eq!(world.ask(expire, 1).await.unwrap().state, PaymentState::Refunded);
    assert_eq!(world.ask(world.verify(&reversed, &authority), 1).await.unwrap().state, PaymentState::Refunded);
    let authority = of(&foreign).await;
    fake.pay(&authority);
    fake.give_away(&authority);
    let fetched = world.ask(world.fetch(&foreign, By::Ref(authority.clone())), 1).await.unwrap().unwrap();
    for seen in [fetched, world.ask(world.verify(&foreign, &authority), 1).await.unwrap()] {
        assert_eq!(seen.differences, [Difference::Merchant]);
        assert!(!seen.settles(&foreign) && seen.needs_review(&foreign));
    }
    assert_eq!(fake.captures(), []);
}

#[tokio::test]
async fn without_a_token_a_person_gives_the_money_back() {
    let mut world = World::zarinpal();
    let due = world.due();
    let paid = world.paid(&due).await;
    let bare = json!({"merchant_id": MERCHANT});
    let no_terminal = json!({"merchant_id": MERCHANT, "access_token": TOKEN});
    let whole = json!({"merchant_id": MERCHANT, "access_token": TOKEN, "terminal_id": TERMINAL});
    for (mode, settings) in [(Mode::Live, &bare), (Mode::Live, &no_terminal), (Mode::Test, &whole)] {
        world.account = account(Gateway::Zarinpal, mode, settings);
        let given = world.ask(world.refund(&due, &paid, due.amount), 1).await.unwrap();
        assert_eq!((given.state, given.refusal.as_deref()), (RefundState::Refused, Some(REFUND_BY_HAND)));
        let day = ListSettlements { account: world.account.clone(), day: Utc::now().date_naive() };
        assert!(!world.ask(day, 1).await.unwrap().told);
        let facts = world.ask(CheckGateway { account: world.account.clone() }, 1).await.unwrap();
        assert_eq!((facts.merchant.as_str(), facts.refunds, facts.statements), (MERCHANT, false, false));
    }
    for bad in [("other", TERMINAL), (TOKEN, "5")] {
        let settings = json!({"merchant_id": MERCHANT, "access_token": bad.0, "terminal_id": bad.1});
        world.account = account(Gateway::Zarinpal, Mode::Live, &settings);
        let failure = world.ask(CheckGateway { account: world.account.clone() }, 1).await.unwrap_err();
        assert_eq!((failure.code.as_str(), failure.retryable), (MERCHANT_CONFIG, false), "{bad:?}");
    }
    assert_eq!(world.fake.refunds(), []);
}

#[tokio::test]
async fn a_refund_that_may_be_somebody_elses_is_left_to_a_person() {
    let world = World::zarinpal();
    let due = world.due();
    let paid = world.paid(&due).await;
    let first = world.refund(&due, &paid, due.amount / 5);
    let given = world.ask(first.clone(), 1).await.unwrap();
    assert_eq!((given.state, given.amount), (RefundState::Pending, Some(first.amount)));
    for (status, state) in
        [("DONE", RefundState::Done), ("FAILED", RefundState::Refused), ("PENDING", RefundState::Pending)]
    {
        world.as_zarinpal().finish_refund(&paid.provider_ref, status);
        assert_eq!(world.find_refund(&first, Some(&given)).await.unwrap().state, state, "{status}");
    }
    let by_hand =
        |seen: flatrender_workflows::contracts::pay::RefundSeen| seen.refusal.as_deref() == Some(REFUND_BY_HAND);
    // Another one of this payment: its gateway tells of one only.
    assert!(by_hand(world.ask(world.refund(&due, &paid, due.amount / 4), 1).await.unwrap()));
    let mut later = world.refund(&due, &paid, first.amount);
    later.since = Utc::now() + TimeDelta::hours(1);
    assert!(by_hand(world.ask(later.clone(), 2).await.unwrap()), "the one that there is was made before");
    // The same one, asked for by another task.
    assert_eq!(world.ask(first.clone(), 1).await.unwrap().provider_refund, given.provider_refund);
    assert_eq!(world.find_refund(&later, None).await, None);
    // Less than it gives back.
    assert!(by_hand(world.ask(world.refund(&due, &paid, 1999), 1).await.unwrap()));
    assert_eq!(sum(&world.fake.refunds()), first.amount * 10);
}

#[tokio::test]
async fn a_refund_that_is_not_on_the_lists_yet_is_only_looked_for() {
    let world = World::zarinpal();
    let due = world.due();
    let paid = world.paid(&due).await;
    let ask = world.refund(&due, &paid, due.amount / 5);
    world.as_zarinpal().hide_refunds(TimeDelta::seconds(5));
    world.fake.fail(Call::Refund, Fault::After(How::Cut));
    let failure = world.ask(ask.clone(), 1).await.unwrap_err();
    assert_eq!(class_of(&failure), Class::UnknownOutcome);
    assert!(!ask.account.gateway.knows_keys() && ask.policy().max_failures == 1, "nobody sends it again by themselves");
    assert_eq!(world.find_refund(&ask, None).await, None, "not yet");
    world.as_zarinpal().advance(TimeDelta::minutes(1));
    assert_eq!(world.find_refund(&ask, None).await.unwrap().amount, Some(ask.amount));
    assert_eq!(world.fake.refunds().len(), 1);
}

#[tokio::test]
async fn more_than_a_hundred_that_nobody_verified_are_not_all_told() {
    let world = World::zarinpal();
    for _ in 0..101 {
        let due = world.due();
        let created = world.ask(world.create(&due), 1).await.unwrap();
        world.fake.pay(&created.provider_ref);
    }
    let list = ListUnsettled { account: world.account.clone(), since: Utc::now() - TimeDelta::days(1) };
    let found = world.ask(list, 1).await.unwrap();
    assert_eq!((found.payments.len(), found.complete), (100, false));
    assert!(found.payments.iter().all(|paid| paid.payment_id.is_some() && paid.currency == "IRR"));
}
