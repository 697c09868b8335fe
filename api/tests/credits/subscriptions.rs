//! Subscriptions over months and years of a moved clock: noticed, paid, reminded of, ended; and changed as it was shown.

use crate::{
    jane::pass,
    money::{activate, buy, paid, sound},
    plans::{Cast, cast, pro},
};
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use flatrender_engine::{Client, Worker, client::RunState};
use flatrender_workflows::{
    definitions::{look_after_credits::LookAfterCredits, subscription::KeepSubscription},
    models::{
        DEFAULT_TENANT,
        identity::{
            plan::Interval,
            subscription::{Did, Subscription, find},
        },
    },
};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A worker that keeps subscriptions, losing them from memory after each event if it is to.
pub struct Keeper {
    stop: CancellationToken,
    working: tokio::task::JoinHandle<()>,
}

impl Keeper {
    pub fn begin(db: &PgPool, crash: bool) -> Self {
        let stop = CancellationToken::new();
        let builder = Worker::builder(db.clone()).workflow::<KeepSubscription>().workflow::<LookAfterCredits>();
        let worker = if crash { builder.crash_after_every_event().build() } else { builder.build() };
        let stopped = stop.clone();
        Self { working: tokio::spawn(async move { worker.run(stopped).await.unwrap() }), stop }
    }

    pub async fn end(self) {
        self.stop.cancel();
        self.working.await.unwrap();
    }
}

pub async fn start(db: &PgPool, subscription_id: Uuid) -> Uuid {
    let client = Client::new(db.clone());
    let mut tx = db.begin().await.unwrap();
    let keeper = KeepSubscription { tenant_id: DEFAULT_TENANT, subscription_id };
    let key = subscription_id.to_string();
    let run = client.start(&mut tx, DEFAULT_TENANT, Some(&key), keeper).await.unwrap();
    tx.commit().await.unwrap();
    client.announce();
    run.run_id
}

pub async fn now(db: &PgPool, id: Uuid) -> Subscription {
    find(&mut db.acquire().await.unwrap(), DEFAULT_TENANT, id).await.unwrap().unwrap()
}

/// Lets the clock be so many seconds after the end of the period.
pub async fn until(cast: &Cast, id: Uuid, seconds: i64) {
    let sql = "update workflow.clock set moved_by = moved_by + greatest(interval '0',
                   (select current_period_end from identity.subscriptions where id = $1) + make_interval(secs => $2) - workflow.now())";
    sqlx::query(sql).bind(id).bind(seconds as f64).execute(&cast.world.db).await.unwrap();
}

/// What somebody is told to pay for a subscription, in order.
pub async fn told(db: &PgPool) -> Vec<String> {
    let sql = "select input #>> '{news,code}' from workflow.runs where kind = 'notify'
               and input #>> '{news,code}' in ('subscription.renewal_soon', 'subscription.reminder_1', 'subscription.reminder_3') order by id";
    sqlx::query_scalar(sql).fetch_all(db).await.unwrap()
}

/// How often an event is on its way to people.
pub async fn tellings(db: &PgPool, event: &str) -> i64 {
    let sql = "select count(*) from workflow.runs where kind = 'notify' and business_key like '%:' || $1";
    sqlx::query_scalar(sql).bind(event).fetch_one(db).await.unwrap()
}

/// Waits for what the keeper does by itself.
pub async fn comes<T: PartialEq + std::fmt::Debug>(expected: T, look: impl AsyncFn() -> T) {
    let mut seen = look().await;
    for _ in 0..600 {
        if seen == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        seen = look().await;
    }
    assert_eq!(seen, expected);
}

/// Looks once for what was lost.
pub async fn look_after(db: &PgPool) {
    let client = Client::new(db.clone());
    let mut tx = db.begin().await.unwrap();
    // It serves every tenant, and is none of them.
    let upkeep = client.start(&mut tx, Uuid::now_v7(), None, LookAfterCredits {}).await.unwrap();
    tx.commit().await.unwrap();
    client.announce();
    let over = async || client.finished(upkeep.run_id, Duration::from_secs(30)).await.unwrap();
    // A clock that leaps over a month has a partition made at that moment; who looks meanwhile may find the run on neither side.
    assert!(over().await.is_some() || over().await.is_some(), "it ends");
}

pub const DAY: i64 = 86_400;

#[sqlx::test(migrations = "../migrations")]
async fn a_plan_is_paid_for_fourteen_months_without_a_gap_whatever_crashes_and_ends_a_week_after_nobody_pays(
    db: PgPool,
) {
    let cast = cast(db).await;
    let db = &cast.world.db;
    let plan = cast.plan(pro(1900)).await;
    let begun = buy(db, cast.user, plan, Interval::Month).await.unwrap();
    let id = begun.subscription.id;
    let keeper = Keeper::begin(db, true);
    let run = start(db, id).await;
    let anchor = begun.subscription.current_period_start;
    for month in 1..=14 {
        let period = now(db, id).await;
        assert_eq!((period.period_no, period.state.as_str()), (month, "active"));
        until(&cast, id, -3 * DAY + 60).await;
        comes(month as usize, async || told(db).await.iter().filter(|t| *t == "subscription.renewal_soon").count())
            .await;
        // Some pay before the end, some when they are told that it is due, some on the second reminder.
        let late = [-DAY, 60, 3 * DAY + 60][month as usize % 3];
        until(&cast, id, late.min(60)).await;
        if late > 0 {
            comes("past_due".to_owned(), async || now(db, id).await.state).await;
            until(&cast, id, late).await;
        }
        if late > DAY {
            let reminded = async || told(db).await.iter().filter(|t| *t == "subscription.reminder_3").count();
            comes((month as usize + 1) / 3, reminded).await;
        }
        let renewed = buy(db, cast.user, plan, Interval::Month).await.unwrap();
        assert_eq!((renewed.did, renewed.subscription.id), (Did::Renewed, id));
        let expected = anchor.checked_add_months(chrono::Months::new(month as u32 + 1)).unwrap();
        assert_eq!(renewed.subscription.current_period_end, expected, "no day is lost or given");
        // The run sees it at its next deed, and goes on with the next period.
        until(&cast, id, -4 * DAY).await;
    }
    let gaps = "select count(*) from identity.subscription_periods a join identity.subscription_periods b
                on b.subscription_id = a.subscription_id and b.period_no = a.period_no + 1 where a.ends_at <> b.starts_at";
    let (gaps, periods): (i64, i64) = (
        sqlx::query_scalar(gaps).fetch_one(db).await.unwrap(),
        cast.world.count("identity.subscription_periods").await,
    );
    assert_eq!((gaps, periods), (0, 15));
    // And then nobody pays.
    until(&cast, id, 60).await;
    comes("past_due".to_owned(), async || now(db, id).await.state).await;
    for days in [1, 3] {
        until(&cast, id, days * DAY + 60).await;
        let code = format!("subscription.reminder_{days}");
        comes(true, async || told(db).await.last() == Some(&code)).await;
    }
    until(&cast, id, 7 * DAY + 60).await;
    let ended = Client::new(db.clone()).finished(run, Duration::from_secs(30)).await.unwrap().expect("it ends");
    assert_eq!((ended.state, ended.output_as::<String>()), (RunState::Succeeded, Some("expired".into())));
    assert_eq!(now(db, id).await.state, "expired");
    let telling =
        "select count(*) from workflow.runs where kind = 'notify' and business_key like '%:subscription.expired'";
    assert_eq!(sqlx::query_scalar::<_, i64>(telling).fetch_one(db).await.unwrap(), 1);
    keeper.end().await;
    sound(db).await;
    let again = buy(db, cast.user, plan, Interval::Month).await.unwrap();
    assert_eq!(again.did, Did::Begun, "what has ended begins anew");
    sound(db).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_plan_that_was_cancelled_ends_with_its_period_and_one_that_was_resumed_does_not(db: PgPool) {
    let cast = cast(db).await;
    let db = &cast.world.db;
    let plan = cast.plan(pro(1900)).await;
    assert_eq!(cast.post("/v1/subscription/cancel", json!({})).await.problem(), "subscription.not_found");
    let id = buy(db, cast.user, plan, Interval::Month).await.unwrap().subscription.id;
    let keeper = Keeper::begin(db, false);
    let run = start(db, id).await;
    comes(true, async || now(db, id).await.workflow_run_id.is_some()).await;
    for _ in 0..2 {
        let cancelled = cast.post("/v1/subscription/cancel", json!({})).await;
        assert_eq!(cancelled.status, StatusCode::OK, "{:?}", cancelled.body);
        assert_eq!(cancelled.json()["cancel_at"], cancelled.json()["current_period_end"]);
    }
    assert_eq!(cast.post("/v1/subscription/resume", json!({})).await.json()["cancel_at"], Value::Null);
    until(&cast, id, 60).await;
    comes("past_due".to_owned(), async || now(db, id).await.state).await;
    assert_eq!(cast.post("/v1/subscription/cancel", json!({})).await.problem(), "subscription.past_due");
    buy(db, cast.user, plan, Interval::Month).await.unwrap();
    assert_eq!(cast.post("/v1/subscription/cancel", json!({})).await.status, StatusCode::OK);
    until(&cast, id, 60).await;
    let ended = Client::new(db.clone()).finished(run, Duration::from_secs(30)).await.unwrap().expect("it ends");
    assert_eq!(ended.output_as::<String>(), Some("cancelled".into()));
    assert_eq!(tellings(db, "subscription.cancelled").await, 1);
    keeper.end().await;
    sound(db).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_trial_is_had_once_a_plan_and_is_kept_by_the_run_that_began_with_it(db: PgPool) {
    let cast = cast(db).await;
    let db = &cast.world.db;
    let mut body = pro(1900);
    body["trial_days"] = json!(14);
    let plan = cast.plan(body.clone()).await;
    let try_it = |plan: Uuid| json!({"plan_id": plan, "currency": "USD", "interval": "month"});
    let begun = cast.post("/v1/subscription/trial", try_it(plan)).await;
    assert_eq!((begun.status, &begun.json()["state"]), (StatusCode::CREATED, &json!("trialing")), "{:?}", begun.body);
    assert_eq!(cast.get("/v1/credits").await.json()["balance"], 600);
    assert_eq!(cast.post("/v1/subscription/trial", try_it(plan)).await.problem(), "subscription.no_trial");
    let id: Uuid = begun.json()["id"].as_str().unwrap().parse().unwrap();
    let keeper = Keeper::begin(db, false);
    until(&cast, id, 60).await;
    comes("past_due".to_owned(), async || now(db, id).await.state).await;
    let end = now(db, id).await.current_period_end;
    let bought = buy(db, cast.user, plan, Interval::Month).await.unwrap().subscription;
    assert_eq!((bought.period_no, bought.current_period_start), (1, end));
    until(&cast, id, 60).await;
    comes("past_due".to_owned(), async || now(db, id).await.state).await;
    until(&cast, id, 7 * DAY + 60).await;
    comes("expired".to_owned(), async || now(db, id).await.state).await;
    // Not in another version of the plan either.
    let next = cast.plan(body).await;
    assert_eq!(cast.post("/v1/subscription/trial", try_it(next)).await.problem(), "subscription.no_trial");
    keeper.end().await;
    sound(db).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_change_costs_what_was_shown_and_a_cheaper_plan_waits_for_the_period(db: PgPool) {
    let cast = cast(db).await;
    let db = &cast.world.db;
    let small = cast.plan(pro(1000)).await;
    let mut large = pro(3000);
    large["code"] = json!("studio");
    let large = cast.plan(large).await;
    let id = buy(db, cast.user, small, Interval::Month).await.unwrap().subscription.id;
    pass(&cast.world, 15 * 86_400 + 1).await;
    let shown = cast.get(&format!("/v1/subscription/change?plan_id={large}")).await.json();
    let period = now(db, id).await;
    let days = (period.current_period_end - period.current_period_start).num_days();
    let left = days - 15;
    let due = 3000 * left / days - 1000 * left / days;
    assert_eq!(shown["due"], due, "{shown}");
    let accept = |plan: Uuid, due: i64| cast.post("/v1/subscription/change", json!({"plan_id": plan, "due": due}));
    assert_eq!(accept(large, due - 1).await.problem(), "subscription.preview_changed");
    let accepted = accept(large, due).await;
    assert_eq!(
        (accepted.status, &accepted.json()["subscription"]["plan_id"]),
        (StatusCode::OK, &json!(small)),
        "not paid yet"
    );
    let changed = activate(db, cast.user, large, Interval::Month, paid(db, cast.user, large, due).await).await.unwrap();
    assert_eq!((changed.did, changed.subscription.amount), (Did::Changed, 3000));
    assert_eq!(changed.subscription.current_period_end, period.current_period_end);
    // Back to the small one: it costs nothing and comes when the period ends.
    let back = accept(small, 0).await.json();
    let effective: DateTime<Utc> = back["effective_at"].as_str().unwrap().parse().unwrap();
    assert_eq!(
        (effective, &back["subscription"]["next_plan_id"]),
        (period.current_period_end, &json!(small)),
        "{back}"
    );
    until(&cast, id, -DAY).await;
    let renewed = buy(db, cast.user, small, Interval::Month).await.unwrap();
    assert_eq!((renewed.did, renewed.subscription.plan_id, renewed.subscription.amount), (Did::Renewed, small, 1000));
    assert_eq!(renewed.subscription.next_plan_id, None);
    sound(db).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_subscription_without_a_run_gets_one_and_a_payment_pays_one_period(db: PgPool) {
    let cast = cast(db).await;
    let db = &cast.world.db;
    let plan = cast.plan(pro(1900)).await;
    let payment = paid(db, cast.user, plan, 1900).await;
    let id = activate(db, cast.user, plan, Interval::Month, payment).await.unwrap().subscription.id;
    let again = activate(db, cast.user, plan, Interval::Month, payment).await.unwrap_err();
    assert!(again.as_database_error().unwrap().is_unique_violation(), "{again}");
    assert_eq!(now(db, id).await.period_no, 1);
    let keeper = Keeper::begin(db, false);
    look_after(db).await;
    comes(true, async || now(db, id).await.workflow_run_id.is_some()).await;
    keeper.end().await;
    sound(db).await;
}
