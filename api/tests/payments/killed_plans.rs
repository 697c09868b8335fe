//! The worker that keeps a plan is killed at each thing that this writes down: for a period that is paid, and for one that nobody pays.

use crate::{
    gate::{GATE, Mortal as _, NO_GATE, kill_at_each},
    gateways::{Street, ids},
    killed::{called, over},
    kills::{places, run},
    renewals::{opened, until},
    worker::Worker,
};
use sqlx::PgPool;

const DAY: i64 = 24 * 60;
/// From here on whoever keeps a plan stands at each thing it writes down, and so do those that follow.
const GATE_PLANS: &str = "insert into public.gated_kinds values ('subscription');
    insert into public.gated select id from workflow.runs where state = 'running' and kind = 'subscription'";

#[sqlx::test(migrations = "../migrations")]
async fn a_plan_survives_kill_nine_at_each_step_of_what_renews_and_ends_it(db: PgPool) {
    let street = Street::quiet(db).await;
    let (shop, db) = (&street.shop, &street.shop.world.db);
    let mut worker = Worker::of(db, places(&street)).await;
    worker.start_worker();
    let id = shop.pay(shop.plan("stripe"), "a").await.json()["id"].as_str().unwrap().to_owned();
    shop.comes(&id, "pending").await;
    street.stripe.pay(&called(db, &id).await.unwrap());
    street.back(&id).await;
    shop.comes(&id, "paid").await;
    worker.kill_worker();
    run(db, GATE).await;
    run(db, GATE_PLANS).await;
    let (kills, ()) = tokio::join!(kill_at_each(&mut worker, db), live(&street));
    assert!(kills.len() >= 10 && kills.values().all(|times| *times >= 2), "{kills:?}");

    let kept: Vec<(String, i32)> =
        sqlx::query_as("select state, period_no from identity.subscriptions").fetch_all(db).await.unwrap();
    assert_eq!(kept, [("expired".to_owned(), 2)]);
    assert_eq!(shop.world.count("identity.subscription_periods").await, 2);
    let payments = "select state, count(*) from identity.payments group by 1 order by 1";
    let payments: Vec<(String, i64)> = sqlx::query_as(payments).fetch_all(db).await.unwrap();
    assert_eq!(payments, [("expired".to_owned(), 4), ("paid".to_owned(), 2)], "one each time that something is told");
    let mut ours = street.came("stripe").await;
    ours.sort();
    assert_eq!((ours.len(), ours), (2, ids(&street.stripe.captures(), 1)));
    assert_eq!(shop.world.count("identity.invoices").await, 2);
    let told = "select split_part(business_key, ':', 2), count(*) from workflow.runs
        where kind = 'notify' and business_key like '%:subscription.%' group by 1 order by 1";
    let told: Vec<(String, i64)> = sqlx::query_as(told).fetch_all(db).await.unwrap();
    let expected = [
        ("expired", 1_i64),
        ("past_due", 1),
        ("reminder_1", 1),
        ("reminder_3", 1),
        ("renewal_soon", 2),
        ("renewed", 1),
    ];
    assert_eq!(told, expected.map(|(what, times)| (format!("subscription.{what}"), times)), "once a period");
    worker.kill_worker();
    run(db, NO_GATE).await;
    shop.sound().await;
}

/// The first period is followed by another one, whose owner comes back twice from paying it; nobody pays a third one.
async fn live(street: &Street) {
    let db = &street.shop.world.db;
    let comes = async |minutes: i64| {
        until(street, minutes).await;
        sqlx::query("select platform.ensure_months(workflow.now(), now())").execute(db).await.unwrap();
    };
    comes(-3 * DAY + 5).await;
    let (renewal, name) = opened(street, "notice", 1).await;
    street.stripe.pay(&name);
    for _ in 0..2 {
        street.back(&renewal).await;
    }
    street.shop.comes(&renewal, "paid").await;
    for (told, minutes) in [("notice", -3 * DAY + 5), ("due", 5), ("remind 1", DAY + 10), ("remind 3", 3 * DAY + 10)] {
        comes(minutes).await;
        opened(street, told, minutes).await;
    }
    comes(4 * DAY + 20).await;
    over(db, sqlx::query_scalar("select id::text from identity.payments").fetch_all(db).await.unwrap()).await;
    comes(7 * DAY + 10).await;
}
