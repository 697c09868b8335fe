//! The process that sees to payments is killed at each thing it writes down, while gateways lose answers and payers come back twice.

use crate::{
    fakes::faults::{Call, Fault, How},
    gate::{GATE, Mortal, NO_GATE, PATIENCE, kill_at_each},
    gateways::Street,
    worker::Worker,
};
use axum::http::{Method, StatusCode};
use flatrender_engine::Client;
use flatrender_workflows::{
    definitions::reconcile::{CompareSettlements, ReconcilePayments},
    models::DEFAULT_TENANT,
};
use serde_json::json;
use sqlx::{AssertSqlSafe, PgPool};
use std::time::Instant;

/// What tells a worker where the gateways are.
pub fn places(street: &Street) -> [(&'static str, String); 3] {
    [
        ("FLATRENDER_STRIPE_URL", street.stripe.url.clone()),
        ("FLATRENDER_ZARINPAL_URL", street.zarinpal.url.clone()),
        ("FLATRENDER_ZARINPAL_LISTS_URL", street.zarinpal.lists_url()),
    ]
}

pub async fn run(db: &PgPool, sql: &'static str) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(db).await.unwrap();
}

/// From here on runs of this kind that are under way stand at each thing they write down.
pub const GATE_PAYMENTS: &str =
    "insert into public.gated select id from workflow.runs where state = 'running' and kind in ('payment', 'refund')";
/// From here on reconciliations and comparisons that are under way do.
const GATE_RECONCILIATION: &str = "insert into public.gated select id from workflow.runs
    where state = 'running' and kind in ('reconcile_payments', 'compare_settlements')";

/// P19: killed at every step, each payment credits once, each refund goes once, and the books are equal to the unit.
#[sqlx::test(migrations = "../migrations")]
async fn p19_a_payment_and_its_refund_survive_kill_nine_at_each_step(db: PgPool) {
    let street = Street::quiet(db).await;
    let (shop, db) = (&street.shop, &street.shop.world.db);
    let mut worker = Worker::of(db, places(&street)).await;
    run(db, GATE).await;
    street.stripe.fail(Call::Create, Fault::After(How::Cut));
    street.zarinpal.fail(Call::Verify, Fault::After(How::Cut));
    let (first, second) = (street.opened("stripe").await, street.opened("zarinpal").await);
    run(db, GATE_PAYMENTS).await;
    // Payers pay as soon as they can, and come back twice.
    let payers = async {
        let began = Instant::now();
        let mut paid = 0;
        while paid < 2 {
            let sql = "select id::text, provider, provider_ref from identity.payments where state = 'pending' and provider_ref is not null";
            let waiting: Vec<(String, String, String)> = sqlx::query_as(sql).fetch_all(db).await.unwrap();
            for (id, provider, name) in waiting {
                let is_open = match provider.as_str() {
                    "stripe" => street.stripe.is_open(&name).then(|| street.stripe.pay(&name)),
                    _ => street.zarinpal.is_open(&name).then(|| street.zarinpal.pay(&name)),
                };
                if is_open.is_some() {
                    paid += 1;
                    street.back(&id).await;
                    street.back(&id).await;
                }
            }
            assert!(began.elapsed() < 4 * PATIENCE, "nobody can pay");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let (kills, ()) = tokio::join!(kill_at_each(&mut worker, db), payers);
    assert!(kills.len() >= 2 * 5 && kills.values().all(|times| *times >= 2), "{kills:?}");
    for id in [&first, &second] {
        shop.comes(id, "paid").await;
    }
    assert_eq!(shop.balance().await, 2 * 3600);
    assert_eq!((street.stripe.captures().len(), street.zarinpal.captures().len()), (1, 1));
    assert_eq!(shop.world.count("identity.invoices").await, 2);

    // The money goes back, and what was bought with it.
    worker.kill_worker();
    street.stripe.fail(Call::Refund, Fault::After(How::Cut));
    let path = format!("/v1/payments/{first}/refunds");
    let asked = shop.by(shop.first, Method::POST, &path, json!({"amount": 500, "reason": "late"})).await;
    let approve = format!("/v1/refunds/{}/approve", asked.json()["id"].as_str().unwrap());
    assert_eq!(shop.by(shop.second, Method::POST, &approve, json!({})).await.status, StatusCode::OK);
    run(db, GATE_PAYMENTS).await;
    let kills = kill_at_each(&mut worker, db).await;
    assert!(kills.len() >= 3 && kills.values().all(|times| *times >= 2), "{kills:?}");
    shop.comes(&first, "refunded").await;
    assert_eq!((street.stripe.refunds().len(), street.stripe.refunds()[0].amount), (1, 500));
    assert_eq!(shop.balance().await, 3600);
    assert_eq!(shop.world.count("identity.invoices").await, 3);
    worker.kill_worker();
    run(db, NO_GATE).await;
    shop.sound().await;
}

/// The same of whoever looks for what gateways have and we do not, and compares the days: killed at each step, they take nothing twice and
/// tell of nothing twice.
#[sqlx::test(migrations = "../migrations")]
async fn p19_reconciliation_survives_kill_nine_at_each_step(db: PgPool) {
    let street = Street::quiet(db).await;
    let (shop, db) = (&street.shop, &street.shop.world.db);
    let mut worker = Worker::of(db, places(&street)).await;
    worker.start_worker();
    let (first, stripes) = street.pending("stripe").await;
    let (second, zarinpals) = street.pending("zarinpal").await;
    worker.kill_worker();
    // They pay, and nobody comes back.
    street.stripe.pay(&stripes);
    street.zarinpal.pay(&zarinpals);
    run(db, GATE).await;
    let client = Client::new(db.clone());
    let mut tx = db.begin().await.unwrap();
    client.start(&mut tx, DEFAULT_TENANT, None, ReconcilePayments {}).await.unwrap();
    tx.commit().await.unwrap();
    run(db, GATE_RECONCILIATION).await;
    let reconciled = kill_at_each(&mut worker, db).await;
    for id in [&first, &second] {
        street.back(id).await;
        shop.comes(id, "paid").await;
    }
    // The day is compared once it is over: the money of a payment that is still under way counts for its gateway alone.
    worker.kill_worker();
    let compare = CompareSettlements { day: Some(chrono::Utc::now().date_naive()), after: None };
    let mut tx = db.begin().await.unwrap();
    client.start(&mut tx, DEFAULT_TENANT, None, compare).await.unwrap();
    tx.commit().await.unwrap();
    run(db, GATE_RECONCILIATION).await;
    let compared = kill_at_each(&mut worker, db).await;
    let kills = [reconciled, compared].map(|kills| kills.into_values().collect::<Vec<_>>());
    assert!(kills.iter().all(|places| places.len() >= 4 && places.iter().all(|times| *times >= 2)), "{kills:?}");
    assert_eq!((street.stripe.captures().len(), street.zarinpal.captures().len()), (1, 1));
    assert_eq!((shop.balance().await, shop.world.count("identity.invoices").await), (2 * 3600, 2));
    worker.kill_worker();
    run(db, NO_GATE).await;
    shop.sound().await;
}
