//! Our books against those of gateways: by payment, over several accounts and days, and whoever does not answer.

use crate::payments::Working;
use chrono::{Days, NaiveDate};
use flatrender_engine::{Attempt, Client, Failure, Handler, Progress, Worker};
use flatrender_workflows::{
    contracts::pay::{ListSettlements, ListUnsettled, Settlement, SettlementKind, Statement, Unsettled, UnsettledList},
    definitions::reconcile::{CompareSettlements, ReconcilePayments, Reconciled},
    models::{
        DEFAULT_TENANT, Role, Scope,
        identity::reconciliation::{
            self, Books,
            difference::{self, Sums},
        },
    },
};
use sqlx::PgPool;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use uuid::Uuid;

const PROVIDERS: [&str; 2] = ["stripe", "zarinpal"];

async fn user(db: &PgPool, email: &str) -> Uuid {
    let sql = "insert into identity.users (tenant_id, email, status) values ($1, $2, 'active') returning id";
    sqlx::query_scalar(sql).bind(DEFAULT_TENANT).bind(email).fetch_one(db).await.unwrap()
}

async fn gateway(db: &PgPool, provider: &str, state: &str) -> Uuid {
    let sql = "insert into identity.payment_gateways (id, tenant_id, provider, mode, state, settings_enc) values (gen_random_uuid(), $1, $2, 'live', $3, 'x')
               returning id";
    sqlx::query_scalar(sql).bind(DEFAULT_TENANT).bind(provider).bind(state).fetch_one(db).await.unwrap()
}

/// A payment that was paid on a day, at noon.
async fn paid(db: &PgPool, gateway: Uuid, name: &str, (amount, currency): (i64, &str), on: NaiveDate) -> Uuid {
    let sql = "insert into identity.payments (id, tenant_id, user_id, purpose, credits, amount, currency, state, provider, gateway_id, provider_txn,
                   idempotency_key, price_snapshot, expires_at, captured_at, paid_at, workflow_run_id, created_at)
               select gen_random_uuid(), $1, u.id, 'credits', 1, $4, $5, 'paid', g.provider, g.id, $3, gen_random_uuid()::text, '{}', now(),
                   ($6 + time '12:00') at time zone 'UTC', now(), gen_random_uuid(), ($6 + time '11:00') at time zone 'UTC'
               from identity.payment_gateways g, identity.users u where g.id = $2 and u.email = 'jane@example.com' returning id";
    let query = sqlx::query_scalar(sql).bind(DEFAULT_TENANT).bind(gateway).bind(name).bind(amount).bind(currency);
    query.bind(on).fetch_one(db).await.unwrap()
}

async fn given_back(db: &PgPool, payment: Uuid, name: Option<&str>, amount: i64, state: &str, on: NaiveDate) -> Uuid {
    let sql = "insert into identity.refunds (tenant_id, payment_id, amount, state, reason, provider, provider_refund, automatic, idempotency_key,
                   created_at, done_at)
               select tenant_id, id, $3, $4, 'asked for', provider, $2, true, gen_random_uuid()::text, ($5 + time '12:00') at time zone 'UTC',
                   case when $4 = 'done' then ($5 + time '12:00') at time zone 'UTC' end
               from identity.payments where id = $1 returning id";
    let query = sqlx::query_scalar(sql).bind(payment).bind(name).bind(amount).bind(state).bind(on);
    query.fetch_one(db).await.unwrap()
}

fn line(kind: SettlementKind, name: &str, payment_id: Option<Uuid>, amount: i64, at: NaiveDate) -> Settlement {
    let currency = if name.starts_with("zp") { "IRR" } else { "USD" };
    let at = at.and_hms_opt(12, 0, 1).unwrap().and_utc();
    Settlement { kind, provider_txn: name.into(), payment_id, amount, currency: currency.into(), at }
}

fn came(name: &str, payment_id: Option<Uuid>, amount: i64, at: NaiveDate) -> Settlement {
    line(SettlementKind::Payment, name, payment_id, amount, at)
}

fn went(name: &str, payment_id: Option<Uuid>, amount: i64, at: NaiveDate) -> Settlement {
    line(SettlementKind::Refund, name, payment_id, amount, at)
}

/// Compares the days from the first to the last, of which all accounts of a provider tell, and of those beside them.
async fn compare(db: &PgPool, provider: &str, (first, last): (NaiveDate, NaiveDate), lines: &[Settlement]) -> usize {
    let sql = "select id from identity.payment_gateways where provider = $1";
    let accounts: Vec<Uuid> = sqlx::query_scalar(sql).bind(provider).fetch_all(db).await.unwrap();
    let days = (first - Days::new(1)).iter_days().take_while(|day| *day <= last + Days::new(1));
    let told: Vec<_> = days.flat_map(|day| accounts.iter().map(move |id| (*id, day))).collect();
    let mut tx = Scope::platform(Role::Identity).begin(db).await.unwrap();
    let books = Books { tenant_id: DEFAULT_TENANT, provider, first, last, told: &told };
    let differing = reconciliation::compare(&mut tx, &books, lines).await.unwrap();
    tx.commit().await.unwrap();
    differing
}

/// The days, ours, theirs, how it stands, and what is named.
async fn kept(db: &PgPool) -> Vec<(NaiveDate, i64, i64, String, Option<String>)> {
    let sql = "select day, our_amount, their_amount, state, note from identity.provider_reconciliations order by provider, day, currency";
    sqlx::query_as(sql).fetch_all(db).await.unwrap()
}

fn equal(day: NaiveDate, amount: i64) -> (NaiveDate, i64, i64, String, Option<String>) {
    (day, amount, amount, "equal".into(), None)
}

#[sqlx::test(migrations = "../migrations")]
async fn days_are_compared_by_payment_over_all_accounts_of_a_tenant_at_a_provider(db: PgPool) {
    user(&db, "jane@example.com").await;
    let day: NaiveDate = "2026-11-20".parse().unwrap();
    let next = day + Days::new(1);
    let (old, new) = (gateway(&db, "stripe", "retired").await, gateway(&db, "stripe", "active").await);
    let zarinpal = gateway(&db, "zarinpal", "active").await;
    // One account at Stripe, put twice: both tell of all, and each of our payments is by one of them.
    let a = paid(&db, old, "pi_a", (1000, "USD"), day).await;
    let b = paid(&db, new, "pi_b", (700, "USD"), day).await;
    // Theirs is of the day after: of a payment at midnight, and of a refund that is on its way for days.
    let c = paid(&db, new, "pi_c", (50, "USD"), day).await;
    given_back(&db, a, Some("re_a"), 300, "sending", day).await;
    given_back(&db, b, Some("re_b"), 10, "done", day).await;
    given_back(&db, b, Some("re_c"), 20, "done", day).await;
    let mut lines = vec![
        came("pi_a", Some(a), 1000, day),
        came("pi_b", Some(b), 700, day),
        came("pi_c", Some(c), 50, next),
        went("re_a", Some(a), 300, next),
        went("re_c", Some(b), 20, day),
        went("re_b", Some(b), 10, day),
        // Another system's, at the same account.
        came("pi_other", None, 4000, day),
        went("re_other", None, 4000, day),
    ];
    lines.extend(lines.clone());
    assert_eq!(compare(&db, "stripe", (day, next), &lines).await, 0);
    assert_eq!(kept(&db).await, [equal(day, 1670), equal(next, -250)]);
    // ZarinPal calls the movement by the number of the session, also the refund, in rials.
    let d = paid(&db, zarinpal, "201", (250_000, "IRT"), next).await;
    given_back(&db, d, Some("zp_7 2026-11-21"), 50_000, "done", next).await;
    let lines = [came("zp_7", Some(d), 2_500_000, day), went("zp_7", Some(d), 500_000, next)];
    assert_eq!(compare(&db, "zarinpal", (day, next), &lines).await, 0);
    assert_eq!(kept(&db).await[2..], [equal(day, 2_500_000), equal(next, -500_000)]);
}

#[sqlx::test(migrations = "../migrations")]
async fn what_differs_is_named_until_it_is_equal_or_somebody_has_explained_it(db: PgPool) {
    let (jane, john) = (user(&db, "jane@example.com").await, user(&db, "john@example.com").await);
    let day: NaiveDate = "2026-11-20".parse().unwrap();
    let account = gateway(&db, "stripe", "active").await;
    let a = paid(&db, account, "pi_a", (1000, "USD"), day).await;
    let nobody = Uuid::from_u128(7);
    let lines = [came("pi_x", Some(nobody), 40, day)];
    assert_eq!(compare(&db, "stripe", (day, day), &lines).await, 1);
    let named = Some("pi_a: not theirs, 1000; pi_x: not ours, 40".to_owned());
    assert_eq!(kept(&db).await, [(day, 1000, 40, "open".into(), named.clone())]);
    // Explained, for these sums.
    let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(&db).await.unwrap();
    let found = difference::list(&mut tx, DEFAULT_TENANT, false, None, 10).await.unwrap();
    let (id, sums) = (found[0].id, Sums { ours: 1000, theirs: 40 });
    assert!(
        !difference::confirm(&mut tx, DEFAULT_TENANT, id, sums, "by phone", john).await.unwrap(),
        "nobody has said anything"
    );
    assert!(difference::explain(&mut tx, DEFAULT_TENANT, id, sums, "by phone", jane).await.unwrap());
    assert!(!difference::confirm(&mut tx, DEFAULT_TENANT, id, sums, "by phone", jane).await.unwrap(), "another person");
    tx.commit().await.unwrap();
    compare(&db, "stripe", (day, day), &lines).await;
    let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(&db).await.unwrap();
    assert!(difference::confirm(&mut tx, DEFAULT_TENANT, id, sums, "by phone", john).await.unwrap());
    assert!(!difference::explain(&mut tx, DEFAULT_TENANT, id, sums, "otherwise", jane).await.unwrap());
    tx.commit().await.unwrap();
    compare(&db, "stripe", (day, day), &lines).await;
    assert_eq!(kept(&db).await, [(day, 1000, 40, "explained".into(), named)]);
    let lines = [came("pi_x", Some(nobody), 40, day), came("pi_a", Some(a), 900, day)];
    assert_eq!(compare(&db, "stripe", (day, day), &lines).await, 1);
    let named = Some("pi_a: 1000 and 900; pi_x: not ours, 40".to_owned());
    assert_eq!(kept(&db).await, [(day, 1000, 940, "open".into(), named)]);
    // It was of the day after, by their clock.
    assert_eq!(compare(&db, "stripe", (day, day), &[came("pi_a", Some(a), 1000, day + Days::new(1))]).await, 0);
    assert_eq!(kept(&db).await, [equal(day, 0)]);
    // An account that does not tell says nothing of what is missing.
    let mut tx = Scope::platform(Role::Identity).begin(&db).await.unwrap();
    let books = Books { tenant_id: DEFAULT_TENANT, provider: "stripe", first: day, last: day, told: &[] };
    assert_eq!(reconciliation::compare(&mut tx, &books, &[]).await.unwrap(), 0);
}

/// Stripe answers at once; ZarinPal never.
#[derive(Clone, Default)]
struct Street(Arc<Mutex<Vec<NaiveDate>>>);

impl Handler<ListUnsettled> for Street {
    async fn handle(&self, cx: &Attempt, ask: ListUnsettled) -> Result<UnsettledList, Failure> {
        if ask.account.gateway.as_str() == PROVIDERS[1] {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                cx.heartbeat(Progress::default())?;
            }
        }
        let payment_id = Some(Uuid::from_u128(1));
        let paid = Unsettled { provider_ref: "cs_1".into(), payment_id, amount: 5, currency: "USD".into(), at: None };
        Ok(UnsettledList { payments: vec![paid], complete: true })
    }
}

impl Handler<ListSettlements> for Street {
    async fn handle(&self, _: &Attempt, ask: ListSettlements) -> Result<Statement, Failure> {
        if ask.account.gateway.as_str() == PROVIDERS[1] {
            return Err(Failure::permanent("pay.merchant_config", "its key was revoked"));
        }
        self.0.lock().unwrap().push(ask.day);
        Ok(Statement { told: true, lines: vec![], complete: true })
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn a_gateway_that_does_not_answer_delays_nobody_but_itself(db: PgPool) {
    for provider in PROVIDERS {
        gateway(&db, provider, "active").await;
    }
    let street = Street::default();
    let worker = Worker::builder(db.clone())
        .workflow::<ReconcilePayments>()
        .workflow::<CompareSettlements>()
        .workflow::<flatrender_workflows::definitions::notify::Notify>()
        .handler::<ListUnsettled>(street.clone())
        .handler::<ListSettlements>(street.clone());
    let working = Working::begin(worker.build());
    let client = Client::new(db.clone());
    let mut tx = db.begin().await.unwrap();
    let run = client.start(&mut tx, DEFAULT_TENANT, None, ReconcilePayments {}).await.unwrap().run_id;
    tx.commit().await.unwrap();
    client.announce();
    let noted = "select count(*) from identity.unmatched_payments where provider_ref = 'cs_1'";
    for _ in 0..500 {
        if sqlx::query_scalar::<_, i64>(noted).fetch_one(&db).await.unwrap() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(sqlx::query_scalar::<_, i64>(noted).fetch_one(&db).await.unwrap(), 1, "before the other one answers");
    assert!(client.finished(run, Duration::from_millis(100)).await.unwrap().is_none());
    let pass = "update workflow.clock set moved_by = moved_by + interval '130 seconds'";
    sqlx::query(pass).execute(&db).await.unwrap();
    let over = client.finished(run, Duration::from_secs(30)).await.unwrap().expect("it does not wait for ever");
    assert_eq!(over.output_as::<Reconciled>().unwrap().unmatched, 1);

    // Seven days, and one to each side; a statement that cannot be had today may be had tomorrow.
    let mut tx = db.begin().await.unwrap();
    let run = client.start(&mut tx, DEFAULT_TENANT, None, CompareSettlements::default()).await.unwrap().run_id;
    tx.commit().await.unwrap();
    client.announce();
    let over = client.finished(run, Duration::from_secs(30)).await.unwrap().expect("it ends");
    assert_eq!(over.output_as::<usize>(), Some(0), "{:?}", over.error);
    let mut days = street.0.lock().unwrap().clone();
    days.sort();
    assert_eq!((days.len(), days[8] - days[0]), (9, chrono::TimeDelta::days(8)));
    working.end().await;
}
