//! P19's table, and `kill -9` at each thing that a payment or a refund writes down while it meets one of its faults. Payers come back twice;
//! gateways tell of everything twice, the last first.

use crate::{
    fakes::{
        faults::{Call, Fault, How},
        stripe::Pay,
        sum,
    },
    gate::{GATE, Mortal, NO_GATE, PATIENCE, kill_at_each},
    gateways::{Street, ids},
    kills::{GATE_PAYMENTS, places, run},
    late::Post,
    worker::Worker,
};
use axum::http::StatusCode;
use flatrender_engine::Client;
use flatrender_workflows::{definitions::reconcile::ReconcilePayments, models::DEFAULT_TENANT};
use sqlx::PgPool;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// What a payer does at the page of a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Payer {
    Pays,
    PaysLess,
    PaysOtherMoney,
    PaysForAnother,
    /// The bank says no.
    IsRefused,
    /// Comes back, and has not paid (M41).
    OnlySaysSo,
}

/// Who tells us of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// The gateway, where it does, and the payer who comes back.
    Twice,
    /// The gateway, before anybody hears that it was opened.
    Early,
    /// Nobody, ever.
    Never,
}

/// A payment, what goes wrong with it, and how it ends.
#[derive(Debug, Clone, Copy)]
struct Case {
    provider: &'static str,
    fault: Option<(Call, Fault)>,
    payer: Payer,
    told: Told,
    ends: &'static str,
}

/// An answer is lost, or is none, of a payment that is paid.
const fn lost(provider: &'static str, call: Call, fault: Fault) -> Case {
    Case { provider, fault: Some((call, fault)), payer: Payer::Pays, told: Told::Twice, ends: "paid" }
}

/// Everything is answered.
const fn said(provider: &'static str, payer: Payer, told: Told, ends: &'static str) -> Case {
    Case { provider, fault: None, payer, told, ends }
}

const STRIPE_BREAKS: [Case; 7] = [
    lost("stripe", Call::Create, Fault::Before(How::Status(500))),
    lost("stripe", Call::Create, Fault::After(How::Hang)),
    lost("stripe", Call::Read, Fault::Before(How::Status(503))),
    lost("stripe", Call::Read, Fault::After(How::Malformed)),
    lost("stripe", Call::Read, Fault::After(How::Html)),
    // It is captured, and the answer that says so never comes.
    lost("stripe", Call::Read, Fault::After(How::Hang)),
    // The webhook is there before the payer is sent anywhere, and nobody heard that it was opened.
    Case { told: Told::Early, ..lost("stripe", Call::Create, Fault::After(How::Cut)) },
];

const ZARINPAL_BREAKS: [Case; 7] = [
    lost("zarinpal", Call::Create, Fault::Before(How::Status(500))),
    lost("zarinpal", Call::Create, Fault::After(How::Cut)),
    lost("zarinpal", Call::Verify, Fault::Before(How::Status(500))),
    // It was verified, and nobody heard of it: the second time it says 101.
    lost("zarinpal", Call::Verify, Fault::After(How::Cut)),
    lost("zarinpal", Call::Verify, Fault::After(How::Malformed)),
    lost("zarinpal", Call::Verify, Fault::After(How::Hang)),
    said("zarinpal", Payer::IsRefused, Told::Twice, "failed"),
];

const WRONG_OR_SILENT: [Case; 6] = [
    said("stripe", Payer::PaysLess, Told::Twice, "review"),
    said("stripe", Payer::PaysOtherMoney, Told::Twice, "review"),
    said("stripe", Payer::PaysForAnother, Told::Twice, "review"),
    said("zarinpal", Payer::PaysLess, Told::Twice, "review"),
    said("stripe", Payer::Pays, Told::Never, "paid"),
    said("zarinpal", Payer::Pays, Told::Never, "paid"),
];

const UNPAID: [Case; 3] = [
    said("stripe", Payer::OnlySaysSo, Told::Twice, "expired"),
    said("zarinpal", Payer::OnlySaysSo, Told::Twice, "expired"),
    said("stripe", Payer::Pays, Told::Twice, "paid"),
];

#[sqlx::test(migrations = "../migrations")]
async fn p19_payments_by_stripe_survive_its_faults_and_kill_nine_at_each_step(db: PgPool) {
    play(db, &STRIPE_BREAKS).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn p19_payments_by_zarinpal_survive_its_faults_and_kill_nine_at_each_step(db: PgPool) {
    play(db, &ZARINPAL_BREAKS).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn p19_other_money_than_was_meant_and_money_of_which_nobody_tells_survive_kill_nine_at_each_step(db: PgPool) {
    play(db, &WRONG_OR_SILENT).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn p19_what_nobody_pays_ends_after_kill_nine_at_each_step(db: PgPool) {
    play(db, &UNPAID).await;
}

/// All of them are under way at once; in the end the books of both gateways and ours are equal to the unit.
async fn play(db: PgPool, cases: &[Case]) {
    let street = Street::quiet(db).await;
    let (shop, db) = (&street.shop, &street.shop.world.db);
    let (mut worker, post) = (Worker::of(db, places(&street)).await, Post::open());
    let mut payments = vec![];
    for case in cases {
        let id = street.opened(case.provider).await;
        fail(&street, case.provider, &id, case.fault);
        if case.told == Told::Early {
            street.stripe.early_for(&id, &post.url);
        }
        payments.push((id, *case));
    }
    run(db, GATE).await;
    run(db, GATE_PAYMENTS).await;
    let (kills, ()) = tokio::join!(kill_at_each(&mut worker, db), happen(&street, &post, &payments));
    assert!(kills.len() >= cases.len() * 5 && kills.values().all(|times| *times >= 2), "{kills:?}");

    let mut in_review = vec![];
    for (id, case) in &payments {
        let now = shop.comes(id, case.ends).await;
        if case.ends == "review" {
            assert_eq!(now["review_code"], "payment.mismatch", "{case:?}: {now}");
            in_review.extend(called(db, id).await);
        }
    }
    let paid = cases.iter().filter(|case| case.ends == "paid").count() as i64;
    assert_eq!((shop.balance().await, shop.world.count("identity.invoices").await), (3600 * paid, paid), "once each");
    for (provider, theirs, unit) in
        [("stripe", street.stripe.captures(), 1), ("zarinpal", street.zarinpal.captures(), 10)]
    {
        let (strange, theirs): (Vec<_>, Vec<_>) =
            theirs.into_iter().partition(|movement| in_review.contains(&movement.provider_ref));
        let mut ours = street.came(provider).await;
        ours.sort();
        assert_eq!(ours, ids(&theirs, unit), "{provider}");
        // ZarinPal gives back what nobody verifies; at Stripe what is in review is all that it has and we have not.
        let wrong = cases.iter().filter(|case| case.provider == provider && case.ends == "review").count();
        assert_eq!(strange.len(), if provider == "stripe" { wrong } else { 0 }, "{strange:?}");
    }
    worker.kill_worker();
    run(db, NO_GATE).await;
    shop.sound().await;
}

fn fail(street: &Street, provider: &str, payment: &str, fault: Option<(Call, Fault)>) {
    match (provider, fault) {
        (_, None) => {}
        ("stripe", Some((call, fault))) => street.stripe.fail_for(payment, call, fault),
        (_, Some((call, fault))) => street.zarinpal.fail_for(payment, call, fault),
    }
}

/// What a gateway calls a payment, once it has one.
pub async fn called(db: &PgPool, id: &str) -> Option<String> {
    let sql = "select provider_ref from identity.payments where id = $1::uuid";
    sqlx::query_scalar(sql).bind(id).fetch_one(db).await.unwrap()
}

/// Payers do what they do as soon as there is a page for it. Once all is over of which somebody tells, time passes for the others.
async fn happen(street: &Street, post: &Post, payments: &[(String, Case)]) {
    let db = &street.shop.world.db;
    let (began, mut seen) = (Instant::now(), BTreeSet::new());
    while seen.len() < payments.len() {
        if let Some((signature, body)) = post.take() {
            for _ in 0..2 {
                let heard = street.hear(&street.account, &body, &signature).await;
                assert_eq!(heard.status, StatusCode::OK, "{:?}", heard.body);
            }
        }
        for (id, case) in payments {
            if !seen.contains(id)
                && let Some(name) = called(db, id).await
            {
                seen.insert(id);
                act(street, id, case, &name).await;
            }
        }
        assert!(began.elapsed() < 8 * PATIENCE, "only {seen:?} are open");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let those = |wanted: &dyn Fn(&Case) -> bool| -> Vec<String> {
        payments.iter().filter(|payment| wanted(&payment.1)).map(|payment| payment.0.clone()).collect()
    };
    over(db, those(&|case| case.told != Told::Never && case.payer != Payer::OnlySaysSo)).await;
    let never = those(&|case| case.told == Told::Never);
    if !never.is_empty() {
        // Whoever looks after payments finds them after a quarter of an hour.
        street.pass(15).await;
        let client = Client::new(db.clone());
        let mut tx = db.begin().await.unwrap();
        let looks = client.start(&mut tx, DEFAULT_TENANT, None, ReconcilePayments {}).await.unwrap().run_id;
        sqlx::query("insert into public.gated values ($1)").bind(looks).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        over(db, never).await;
    }
    let unpaid = those(&|case| case.payer == Payer::OnlySaysSo);
    if !unpaid.is_empty() {
        street.pass(24 * 60).await;
        tokio::select! {
            () = over(db, unpaid) => {}
            () = polls(street) => unreachable!("time passes for ever"),
        }
    }
}

/// A quarter of an hour passes whenever all that is under way waits for so long: who was asking when a day passed asks once more.
async fn polls(street: &Street) {
    let waiting = "select bool_and(t.state = 'waiting' and t.run_at > workflow.now() + interval '5 min')
                   from workflow.tasks t join public.gated g on g.run_id = t.run_id";
    loop {
        if sqlx::query_scalar::<_, Option<bool>>(waiting).fetch_one(&street.shop.world.db).await.unwrap() == Some(true)
        {
            street.pass(15).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn act(street: &Street, id: &str, case: &Case, name: &str) {
    let before = street.stripe.events().len();
    let stripe = |pay: Pay| street.stripe.pay_with(name, pay);
    _ = match (case.provider, case.payer) {
        (_, Payer::OnlySaysSo) => String::new(),
        ("stripe", Payer::PaysLess) => stripe(Pay { amount: Some(499), ..Pay::default() }),
        ("stripe", Payer::PaysOtherMoney) => stripe(Pay { currency: Some("eur"), ..Pay::default() }),
        ("stripe", Payer::PaysForAnother) => {
            stripe(Pay { payment: Some(Uuid::new_v4().to_string()), ..Pay::default() })
        }
        ("stripe", _) => stripe(Pay::default()),
        (_, Payer::PaysLess) => street.zarinpal.pay_amount(name, 2_400_000),
        (_, Payer::IsRefused) => street.zarinpal.decline(name),
        _ => street.zarinpal.pay(name),
    };
    if case.told == Told::Never {
        return;
    }
    let events: Vec<String> = street.stripe.events().into_iter().skip(before).map(|(event, _)| event).collect();
    for event in events.iter().rev().chain(&events) {
        let heard = street.sent(event).await;
        assert_eq!(heard.status, StatusCode::OK, "{:?}", heard.body);
    }
    for _ in 0..2 {
        street.back(id).await;
    }
}

/// Waits until these payments have ended.
pub async fn over(db: &PgPool, payments: Vec<String>) {
    let open = "select count(*) from identity.payments where id::text = any ($1) and state in ('created', 'pending', 'verifying')";
    let began = Instant::now();
    while sqlx::query_scalar::<_, i64>(open).bind(&payments).fetch_one(db).await.unwrap() > 0 {
        assert!(began.elapsed() < 8 * PATIENCE, "some of {payments:?} are open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What goes wrong while money goes back.
const LOST_REFUNDS: [(&str, Fault); 7] = [
    ("stripe", Fault::Before(How::Status(500))),
    ("stripe", Fault::After(How::Cut)),
    ("stripe", Fault::After(How::Malformed)),
    ("stripe", Fault::After(How::Hang)),
    ("zarinpal", Fault::After(How::Cut)),
    ("zarinpal", Fault::After(How::Hang)),
    // Nobody can tell this from one that was done.
    ("zarinpal", Fault::Before(How::Status(500))),
];

#[sqlx::test(migrations = "../migrations")]
async fn p19_each_refund_goes_once_or_not_at_all_after_faults_and_kill_nine_at_each_step(db: PgPool) {
    let street = Street::quiet(db).await;
    let (shop, db) = (&street.shop, &street.shop.world.db);
    let mut worker = Worker::of(db, places(&street)).await;
    worker.start_worker();
    let mut paid = vec![];
    for (provider, _) in LOST_REFUNDS {
        let (id, name) = street.pending(provider).await;
        _ = if provider == "stripe" { street.stripe.pay(&name) } else { street.zarinpal.pay(&name) };
        street.back(&id).await;
        shop.comes(&id, "paid").await;
        paid.push(id);
    }
    worker.kill_worker();
    street.zarinpal.refunds_become("DONE");
    let told = street.stripe.events().len();
    let mut refunds = vec![];
    for (id, (provider, fault)) in paid.iter().zip(LOST_REFUNDS) {
        fail(&street, provider, id, Some((Call::Refund, fault)));
        refunds.push(street.give_back(id, if provider == "stripe" { 500 } else { 250_000 }).await);
    }
    run(db, GATE).await;
    run(db, GATE_PAYMENTS).await;
    let kills = tokio::select! {
        kills = kill_at_each(&mut worker, db) => kills,
        () = pass(&street, told) => unreachable!("time passes for ever"),
    };
    assert!(kills.len() >= 3 * refunds.len() && kills.values().all(|times| *times >= 2), "{kills:?}");

    let (stripes, zarinpals) = (street.stripe.refunds(), street.zarinpal.refunds());
    let mut done = 0;
    for ((id, refund), (provider, fault)) in paid.iter().zip(&refunds).zip(LOST_REFUNDS) {
        let payment = Some(id.parse::<Uuid>().unwrap());
        let theirs = stripes.iter().chain(&zarinpals).filter(|movement| movement.payment_id == payment).count();
        // ZarinPal knows no keys: what it may have been sent it is not sent again, and people have it when it shows nothing.
        assert!(theirs == 1 || theirs == 0 && provider == "zarinpal", "{theirs} times {provider} {fault:?}");
        street.refund_comes(refund, if theirs == 1 { "done" } else { "manual" }).await;
        done += theirs as i64;
    }
    let went = "select coalesce(sum(r.amount), 0)::bigint from identity.refunds r join identity.payments p on p.id = r.payment_id
                where r.state = 'done' and p.provider = $1";
    for (provider, theirs, unit) in [("stripe", &stripes, 1), ("zarinpal", &zarinpals, 10)] {
        let ours: i64 = sqlx::query_scalar(went).bind(provider).fetch_one(db).await.unwrap();
        assert_eq!(ours * unit, sum(theirs), "{provider}");
    }
    let all = paid.len() as i64;
    assert_eq!((shop.balance().await, shop.world.count("identity.invoices").await), (3600 * (all - done), all + done));
    worker.kill_worker();
    run(db, NO_GATE).await;
    shop.sound().await;
}

/// Tells twice of what Stripe gives back, the last first, from the event of this number on. Half an hour passes whenever all that is under way
/// waits for time, once.
async fn pass(street: &Street, mut told: usize) {
    let db = &street.shop.world.db;
    let busy =
        "select exists (select from public.gated g join workflow.runs r on r.id = g.run_id and r.state = 'running'
        where not exists (select from workflow.steps s where s.run_id = r.id and s.key = 'send 1')
           or exists (select from workflow.tasks t where t.run_id = r.id and t.kind = 'activity'))";
    let written =
        "select count(*) from workflow.steps s join public.gated g on g.run_id = s.run_id where s.kind <> 'signal'";
    let mut moved_at = 0;
    loop {
        let events: Vec<String> = street.stripe.events().into_iter().skip(told).map(|(event, _)| event).collect();
        told += events.len();
        for event in events.iter().rev().chain(&events) {
            let heard = street.sent(event).await;
            assert_eq!(heard.status, StatusCode::OK, "{:?}", heard.body);
        }
        let written: i64 = sqlx::query_scalar(written).fetch_one(db).await.unwrap();
        if written > moved_at && !sqlx::query_scalar::<_, bool>(busy).fetch_one(db).await.unwrap() {
            moved_at = written;
            street.pass(30).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
