//! What only Stripe has.

use crate::{
    fakes::{
        faults::{Call, Fault, How},
        stripe::{ACCOUNT, LIVE_KEY, Pay, StripeFake, WEBHOOK_SECRET},
        sum,
    },
    world::{World, account},
};
use axum::{Router, body::Bytes, http::HeaderMap, routing::post};
use chrono::{TimeDelta, Utc};
use flatrender_activities::pay::read_webhook;
use flatrender_workflows::contracts::pay::{
    CheckGateway, Difference, ExpirePayment, Gateway, ListSettlements, ListUnsettled, MERCHANT_CONFIG, Mode,
    PaymentState, REFUSED, RefundState,
    inbound::{Event, EventKind, Inbound, Rejected},
};
use serde_json::json;
use std::sync::{Arc, Mutex};

fn read(fake: &StripeFake, event_id: &str) -> Result<Event, Rejected> {
    let webhook = fake.webhook(event_id);
    let secrets = [WEBHOOK_SECRET.to_owned()];
    let signatures = [webhook.signature.as_bytes()];
    let inbound = Inbound { body: &webhook.body, signatures: &signatures, secrets: &secrets, at: Utc::now() };
    read_webhook(Gateway::Stripe, &inbound)
}

#[tokio::test]
async fn a_bank_that_takes_days_is_waited_for() {
    for (paid, state, kind) in [
        (true, PaymentState::Paid, "checkout.session.async_payment_succeeded"),
        (false, PaymentState::Declined, "checkout.session.async_payment_failed"),
    ] {
        let world = World::stripe();
        let due = world.due();
        let created = world.open(&due).await;
        world.as_stripe().pay_slowly(&created.provider_ref);
        let verify = || world.ask(world.verify(&due, &created.provider_ref), 1);
        let seen = verify().await.unwrap();
        assert_eq!((seen.state, seen.settles(&due), seen.needs_review(&due)), (PaymentState::Processing, false, false));
        world.as_stripe().decide(&created.provider_ref, paid);
        let seen = verify().await.unwrap();
        assert_eq!((seen.state, seen.settles(&due)), (state, paid));
        assert_eq!(seen.failure_code().is_some(), !paid);
        assert_eq!(world.as_stripe().events().last().unwrap().1, kind);
    }
}

#[tokio::test]
async fn what_is_closed_cannot_be_paid_and_what_was_paid_stays_so() {
    let world = World::stripe();
    let (late, paid) = (world.due(), world.due());
    let expire = |due: &_, provider_ref: &str| ExpirePayment {
        account: world.account.clone(),
        due: Clone::clone(due),
        provider_ref: provider_ref.into(),
    };
    let created = world.open(&late).await;
    world.fake.fail(Call::Expire, Fault::After(How::Cut));
    let ask = expire(&late, &created.provider_ref);
    assert!(world.ask(ask.clone(), 1).await.unwrap_err().retryable);
    assert_eq!(world.ask(ask, 2).await.unwrap().state, PaymentState::Expired);
    world.fake.pay(&created.provider_ref);
    assert_eq!(world.fake.captures(), []);
    let created = world.open(&paid).await;
    world.fake.pay(&created.provider_ref);
    assert!(world.ask(expire(&paid, &created.provider_ref), 1).await.unwrap().settles(&paid));
    // What is over is opened no more: its payer is sent back to us, and it is looked at.
    let again = world.ask(world.create(&paid), 1).await.unwrap();
    assert_eq!((again.provider_ref.as_str(), world.fake.opened()), (created.provider_ref.as_str(), 2));
}

#[tokio::test]
async fn money_that_is_not_what_was_meant_is_named() {
    for (pay, difference) in [
        (Pay { currency: Some("eur"), ..Pay::default() }, Difference::Currency),
        (Pay { destination: Some("acct_other"), ..Pay::default() }, Difference::Merchant),
        (Pay { payment: Some(uuid::Uuid::nil().to_string()), ..Pay::default() }, Difference::Payment),
        (Pay { payment: Some("nobody's".into()), ..Pay::default() }, Difference::Payment),
    ] {
        let world = World::stripe();
        let due = world.due();
        let created = world.open(&due).await;
        world.as_stripe().pay_with(&created.provider_ref, pay.clone());
        let seen = world.ask(world.verify(&due, &created.provider_ref), 1).await.unwrap();
        assert_eq!(seen.differences, [difference], "{pay:?}");
        assert!(seen.needs_review(&due) && !seen.settles(&due), "{pay:?}");
    }
}

#[tokio::test]
async fn a_card_that_is_refused_ends_nothing_and_another_one_may_pay() {
    let world = World::stripe();
    let due = world.due();
    let created = world.open(&due).await;
    for _ in 0..2 {
        world.as_stripe().refuse(&created.provider_ref);
        let (event, kind) = world.as_stripe().events().pop().unwrap();
        assert_eq!(kind, "payment_intent.payment_failed");
        assert_eq!(read(world.as_stripe(), &event).unwrap().payment_id, Some(due.payment_id));
        let seen = world.ask(world.verify(&due, &created.provider_ref), 1).await.unwrap();
        assert_eq!((seen.state, seen.needs_review(&due)), (PaymentState::Open, false));
    }
    world.fake.pay(&created.provider_ref);
    assert!(world.ask(world.verify(&due, &created.provider_ref), 1).await.unwrap().settles(&due));
    assert_eq!(sum(&world.fake.captures()), due.amount);
}

#[tokio::test]
async fn the_same_payment_for_other_money_is_refused() {
    let world = World::stripe();
    let due = world.due();
    let created = world.open(&due).await;
    let mut dearer = world.create(&due);
    dearer.due.amount += 1;
    let failure = world.ask(dearer, 1).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retryable), (REFUSED, false));
    // Another word on the page is no other money: it is the page that there is.
    let mut reworded = world.create(&due);
    reworded.description = "Something else".into();
    assert_eq!(world.ask(reworded, 1).await.unwrap().provider_ref, created.provider_ref);
    assert_eq!(world.fake.opened(), 1);
}

#[tokio::test]
async fn a_failure_that_stripe_keeps_is_given_up_for_another_key() {
    let world = World::stripe();
    let due = world.due();
    for _ in 0..3 {
        world.fake.fail(Call::Create, Fault::Before(How::Status(500)));
    }
    let (created, attempts) = world.insist(world.create(&due)).await.unwrap();
    assert_eq!((attempts, world.fake.opened()), (4, 1));
    world.fake.pay(&created.provider_ref);
    let (paid, _) = world.insist(world.verify(&due, &created.provider_ref)).await.unwrap();
    for _ in 0..3 {
        world.fake.fail(Call::Refund, Fault::Before(How::Status(500)));
    }
    let (given, attempts) = world.insist(world.refund(&due, &paid, 500)).await.unwrap();
    assert_eq!((attempts, given.state, sum(&world.fake.refunds())), (4, RefundState::Done, 500));
}

#[tokio::test]
async fn a_refund_is_done_when_it_is_and_not_before() {
    let world = World::stripe();
    let due = world.due();
    let paid = world.paid(&due).await;
    world.as_stripe().refunds_become("pending");
    let ask = world.refund(&due, &paid, 999);
    let pending = world.ask(ask.clone(), 1).await.unwrap();
    assert_eq!(pending.state, RefundState::Pending);
    let id = pending.provider_refund.clone().unwrap();
    for (status, state) in
        [("pending", RefundState::Pending), ("succeeded", RefundState::Done), ("failed", RefundState::Refused)]
    {
        world.as_stripe().finish_refund(&id, status);
        let seen = world.find_refund(&ask, Some(&pending)).await.unwrap();
        assert_eq!((seen.state, seen.refusal.is_some()), (state, state == RefundState::Refused), "{status}");
        let event = read(world.as_stripe(), &world.as_stripe().events().last().unwrap().0).unwrap();
        assert_eq!((event.kind, event.refund_id), (EventKind::Refund, Some(ask.refund_id)));
        assert_eq!((event.provider_refund.as_deref(), event.payment_id), (Some(id.as_str()), Some(due.payment_id)));
    }
    assert_eq!(sum(&world.fake.refunds()), 0, "it failed");
}

#[tokio::test]
async fn a_refund_that_is_asked_for_again_after_the_key_was_forgotten_is_the_same() {
    let world = World::stripe();
    let due = world.due();
    let paid = world.paid(&due).await;
    let ask = world.refund(&due, &paid, 500);
    world.fake.fail(Call::Refund, Fault::After(How::Cut));
    assert!(world.ask(ask.clone(), 1).await.is_err());
    world.as_stripe().forget_keys();
    assert_eq!(world.ask(ask, 1).await.unwrap().state, RefundState::Done);
    assert_eq!(sum(&world.fake.refunds()), 500);
}

#[tokio::test]
async fn no_more_goes_back_than_came() {
    let world = World::stripe();
    let due = world.due();
    let paid = world.paid(&due).await;
    let given = world.ask(world.refund(&due, &paid, due.amount - 1), 1).await.unwrap();
    assert_eq!(given.state, RefundState::Done);
    let refused = world.ask(world.refund(&due, &paid, 2), 1).await.unwrap();
    assert_eq!((refused.state, refused.refusal.as_deref()), (RefundState::Refused, Some(REFUSED)));
    world.ask(world.refund(&due, &paid, 1), 1).await.unwrap();
    assert_eq!(world.ask(world.refund(&due, &paid, 1), 1).await.unwrap().state, RefundState::Refused);
    assert_eq!(sum(&world.fake.refunds()), due.amount);
    let seen = world.ask(world.verify(&due, &paid.provider_ref), 1).await.unwrap();
    assert_eq!((seen.state, seen.settles(&due)), (PaymentState::Refunded, false));
}

#[tokio::test]
async fn a_webhook_may_come_before_the_payment_is_known_and_twice() {
    let world = World::stripe();
    let due = world.due();
    let came = Arc::new(Mutex::new(vec![]));
    let kept = came.clone();
    let router = Router::new().route(
        "/in",
        post(async move |headers: HeaderMap, body: Bytes| {
            let signature = headers["stripe-signature"].as_bytes().to_vec();
            kept.lock().unwrap().push((signature, body.to_vec()));
        }),
    );
    let receiver = crate::fakes::server::Server::start(router, 0);
    world.as_stripe().early(&format!("{}/in", receiver.url));
    let created = world.ask(world.create(&due), 1).await.unwrap();
    let (signature, body) = came.lock().unwrap().pop().expect("it came while the payment was opened");
    let secrets = ["whsec_newer".to_owned(), WEBHOOK_SECRET.to_owned()];
    let inbound = Inbound { body: &body, signatures: &[&signature], secrets: &secrets, at: Utc::now() };
    let event = read_webhook(Gateway::Stripe, &inbound).unwrap();
    assert_eq!((event.kind, event.payment_id), (EventKind::Payment, Some(due.payment_id)));
    assert_eq!(event.provider_ref.as_deref(), Some(created.provider_ref.as_str()));
    // Sent once more it is the same event, whatever its signature.
    world.as_stripe().advance(TimeDelta::seconds(3));
    assert_eq!(read(world.as_stripe(), &event.event_id).unwrap().event_id, event.event_id);
    world.as_stripe().advance(TimeDelta::seconds(600));
    assert_eq!(read(world.as_stripe(), &event.event_id), Err(Rejected::Stale));
    assert_eq!(world.as_stripe().send(&event.event_id, &format!("{}/in", receiver.url)), 200);
    for gateway in [Gateway::Zarinpal, Gateway::Manual] {
        assert_eq!(read_webhook(gateway, &inbound), Err(Rejected::NotASender));
    }
    assert!(world.ask(world.verify(&due, &created.provider_ref), 1).await.unwrap().settles(&due));
}

#[tokio::test]
async fn lists_of_several_pages_are_read_to_the_end() {
    let world = World::stripe();
    for _ in 0..105 {
        let due = world.due();
        let created = world.ask(world.create(&due), 1).await.unwrap();
        world.fake.pay(&created.provider_ref);
    }
    let list = ListUnsettled { account: world.account.clone(), since: Utc::now() - TimeDelta::days(1) };
    let found = world.ask(list, 1).await.unwrap();
    let ids: std::collections::HashSet<_> = found.payments.iter().map(|paid| paid.payment_id).collect();
    assert_eq!((found.payments.len(), ids.len(), found.complete), (105, 105, true));
    let day = ListSettlements { account: world.account.clone(), day: Utc::now().date_naive() };
    let statement = world.ask(day, 1).await.unwrap();
    let told: i64 = statement.lines.iter().map(|line| line.amount).sum();
    assert_eq!((statement.lines.len(), told), (105, sum(&world.fake.captures())));
    let future = ListUnsettled { account: world.account.clone(), since: Utc::now() + TimeDelta::days(1) };
    assert_eq!(world.ask(future, 1).await.unwrap().payments, []);
}

#[tokio::test]
async fn live_and_test_do_not_mix() {
    let world = World::stripe();
    let due = world.due();
    let settings = json!({"secret_key": LIVE_KEY, "webhook_secrets": [WEBHOOK_SECRET], "account": ACCOUNT});
    let mut ask = world.create(&due);
    ask.account = account(Gateway::Stripe, Mode::Test, &settings);
    assert_eq!(world.ask(ask.clone(), 1).await.unwrap_err().code, MERCHANT_CONFIG);
    ask.account.mode = Mode::Live;
    let created = world.ask(ask.clone(), 1).await.unwrap();
    world.fake.pay(&created.provider_ref);
    // The same session asked for as if it were play money.
    let seen = world.ask(world.verify(&due, &created.provider_ref), 1).await.unwrap();
    assert_eq!((seen.differences.as_slice(), seen.settles(&due)), (&[Difference::Mode][..], false));
    let mut live = world.verify(&due, &created.provider_ref);
    live.account = ask.account.clone();
    let seen = world.ask(live, 1).await.unwrap();
    assert_eq!((seen.settles(&due), seen.merchant.as_deref()), (true, Some(ACCOUNT)));
    let facts = world.ask(CheckGateway { account: ask.account }, 1).await.unwrap();
    assert_eq!(facts.merchant, ACCOUNT);
}
