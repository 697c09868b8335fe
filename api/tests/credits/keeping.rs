//! Subscriptions whose run is lost, late, or somewhere else, and what becomes of the money of who changes plans.

use crate::{
    money::{activate, buy, paid, sound},
    plans::{Cast, cast, pro},
    subscriptions::{DAY, Keeper, comes, look_after, now, start, told, until},
    world::order,
};
use axum::http::StatusCode;
use flatrender_engine::Client;
use flatrender_workflows::models::{
    DEFAULT_TENANT, Role, Scope,
    identity::{
        credit::{self, Entered, Reason},
        plan::Interval,
        subscription::{self, Did},
    },
};
use serde_json::json;
use sqlx::PgPool;
use std::time::Duration;
use uuid::Uuid;

/// Loses a run as people can: by stopping it.
async fn lose(db: &PgPool, run: Uuid) {
    let client = Client::new(db.clone());
    let mut tx = db.begin().await.unwrap();
    client.cancel(&mut tx, run, "by mistake").await.unwrap();
    tx.commit().await.unwrap();
    client.announce();
    let lost = client.finished(run, Duration::from_secs(30)).await.unwrap().expect("it ends");
    assert!(lost.error.is_some(), "{lost:?}");
}

/// A subscription whose run was lost, who would keep it, and the run.
async fn lost(cast: &Cast) -> (Uuid, Keeper, Uuid) {
    let db = &cast.world.db;
    let plan = cast.plan(pro(1900)).await;
    let id = buy(db, cast.user, plan, Interval::Month).await.unwrap().subscription.id;
    let keeper = Keeper::begin(db, false);
    let run = start(db, id).await;
    comes(Some(run), async || now(db, id).await.workflow_run_id).await;
    lose(db, run).await;
    (id, keeper, run)
}

async fn keepers(db: &PgPool) -> i64 {
    let sql = "select count(*) from workflow.runs where kind = 'subscription' and continued_from is null";
    sqlx::query_scalar(sql).fetch_one(db).await.unwrap()
}

#[sqlx::test(migrations = "../migrations")]
async fn a_subscription_whose_run_was_lost_is_kept_by_another_an_hour_after_something_was_due(db: PgPool) {
    let cast = cast(db).await;
    let db = &cast.world.db;
    let (id, keeper, lost) = lost(&cast).await;

    until(&cast, id, 600).await;
    look_after(db).await;
    assert_eq!(now(db, id).await.workflow_run_id, Some(lost), "nothing is missing yet: a worker may be late");
    until(&cast, id, 3700).await;
    look_after(db).await;
    comes("past_due".to_owned(), async || now(db, id).await.state).await;
    let kept_by = now(db, id).await.workflow_run_id;
    assert_ne!(kept_by, Some(lost));

    until(&cast, id, 8 * DAY).await;
    comes("expired".to_owned(), async || now(db, id).await.state).await;
    look_after(db).await;
    assert_eq!(keepers(db).await, 2, "one keeper followed the lost one");
    let tenants = "select count(distinct tenant_id) from workflow.runs where kind = 'subscription'";
    assert_eq!(sqlx::query_scalar::<_, i64>(tenants).fetch_one(db).await.unwrap(), 1, "where it is looked for");
    keeper.end().await;
    sound(db).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_run_that_comes_late_gives_the_week_that_nobody_was_told_of(db: PgPool) {
    let cast = cast(db).await;
    let db = &cast.world.db;
    let plan = cast.plan(pro(1900)).await;
    let id = buy(db, cast.user, plan, Interval::Month).await.unwrap().subscription.id;
    until(&cast, id, 20 * DAY).await;
    let keeper = Keeper::begin(db, false);
    look_after(db).await;
    comes("past_due".to_owned(), async || now(db, id).await.state).await;
    assert_eq!(told(db).await, [] as [&str; 0], "that it will be due is no news");
    for days in [1, 3] {
        until(&cast, id, (20 + days) * DAY + 600).await;
        comes(Some(format!("subscription.reminder_{days}")), async || told(db).await.last().cloned()).await;
        assert_eq!(now(db, id).await.state, "past_due");
    }
    // Late again: what it says when it ends is enough.
    let run = now(db, id).await.workflow_run_id.unwrap();
    lose(db, run).await;
    until(&cast, id, 28 * DAY).await;
    look_after(db).await;
    comes("expired".to_owned(), async || now(db, id).await.state).await;
    assert_eq!(told(db).await.len(), 2);
    keeper.end().await;
    sound(db).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_run_that_went_on_as_another_is_not_lost(db: PgPool) {
    let cast = cast(db).await;
    let db = &cast.world.db;
    let plan = cast.plan(pro(1900)).await;
    let id = buy(db, cast.user, plan, Interval::Month).await.unwrap().subscription.id;
    let keeper = Keeper::begin(db, false);
    let first = start(db, id).await;
    comes(Some(first), async || now(db, id).await.workflow_run_id).await;
    until(&cast, id, -2 * DAY).await;
    buy(db, cast.user, plan, Interval::Month).await.unwrap();
    // Any deed has it see that.
    until(&cast, id, -4 * DAY).await;
    comes(true, async || now(db, id).await.workflow_run_id != Some(first)).await;
    keeper.end().await;
    // As it is between the end of the one and the begin of the other.
    let sql = "update identity.subscriptions set workflow_run_id = $1";
    sqlx::query(sql).bind(first).execute(db).await.unwrap();
    until(&cast, id, 2 * DAY).await;
    let mut tx = Scope::platform(Role::Identity).begin(db).await.unwrap();
    assert_eq!(subscription::unkept(&mut tx, 10).await.unwrap().len(), 0);
}

#[sqlx::test(migrations = "../migrations")]
async fn whoever_changes_a_subscription_whose_run_was_lost_has_it_kept_again(db: PgPool) {
    let cast = cast(db).await;
    let db = &cast.world.db;
    let (id, keeper, lost) = lost(&cast).await;
    for _ in 0..2 {
        assert_eq!(cast.post("/v1/subscription/cancel", json!({})).await.status, StatusCode::OK);
        assert_ne!(now(db, id).await.workflow_run_id, Some(lost));
        assert_eq!(keepers(db).await, 2, "once");
    }
    until(&cast, id, 60).await;
    comes("cancelled".to_owned(), async || now(db, id).await.state).await;
    keeper.end().await;
    sound(db).await;
}

/// The money of a payment went back: what it bought is taken back. Gives the plan that is had then, and whether it is over.
async fn back(db: &PgPool, payment: Uuid) -> Option<(Uuid, i64, String, bool)> {
    let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(db).await.unwrap();
    let revoked = subscription::revoke(&mut tx, DEFAULT_TENANT, payment).await.unwrap();
    tx.commit().await.unwrap();
    revoked.map(|(now, over)| (now.plan_id, now.amount, now.state, over))
}

#[sqlx::test(migrations = "../migrations")]
async fn a_plan_without_minutes_that_is_taken_back_leaves_no_account(db: PgPool) {
    let cast = cast(db).await;
    let db = &cast.world.db;
    let mut bare = pro(1000);
    bare["entitlements"] = json!({"max_resolution": 1080});
    let plan = cast.plan(bare).await;
    let payment = paid(db, cast.user, plan, 1000).await;
    activate(db, cast.user, plan, Interval::Month, payment).await.unwrap();
    assert_eq!(back(db, payment).await, Some((plan, 1000, "cancelled".into(), true)));
    assert_eq!(cast.world.count("identity.credit_accounts").await, 0);
    assert_eq!(cast.get("/v1/credits").await.json()["owner"], "nobody");
    assert_eq!(cast.post("/v1/renders", order()).await.status, StatusCode::ACCEPTED, "free, as for everybody else");
    sound(db).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn the_minutes_of_a_period_go_back_with_its_money_as_far_as_they_are_free(db: PgPool) {
    let cast = cast(db).await;
    let db = &cast.world.db;
    let plan = cast.plan(pro(1000)).await;
    let payment = paid(db, cast.user, plan, 1000).await;
    activate(db, cast.user, plan, Interval::Month, payment).await.unwrap();
    assert_eq!(cast.grant(-200, "spent").await.json()["balance"], 400);
    assert!(back(db, payment).await.is_some_and(|(.., over)| over));
    assert_eq!(cast.get("/v1/credits").await.json()["balance"], 0);
    assert_eq!(back(db, payment).await, None, "once");
    sound(db).await;
}

/// The small plan and the large one.
async fn two(cast: &Cast) -> (Uuid, Uuid) {
    let small = cast.plan(pro(1000)).await;
    let mut large = pro(3000);
    large["code"] = json!("studio");
    (small, cast.plan(large).await)
}

#[sqlx::test(migrations = "../migrations")]
async fn who_has_paid_for_months_ahead_pays_the_difference_for_each_of_them(db: PgPool) {
    let cast = cast(db).await;
    let db = &cast.world.db;
    let (small, large) = two(&cast).await;
    let begun = buy(db, cast.user, small, Interval::Month).await.unwrap().subscription;
    for _ in 0..11 {
        assert_eq!(buy(db, cast.user, small, Interval::Month).await.unwrap().did, Did::Renewed);
    }
    let shown = cast.get(&format!("/v1/subscription/change?plan_id={large}")).await.json();
    assert_eq!(shown["due"], 12 * 2000, "{shown}");
    let dearer =
        activate(db, cast.user, large, Interval::Month, paid(db, cast.user, large, 24_000).await).await.unwrap();
    assert_eq!((dearer.did, dearer.subscription.id, dearer.subscription.period_no), (Did::Changed, begun.id, 12));
    sound(db).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_change_whose_money_went_back_leaves_the_plan_before_it(db: PgPool) {
    let cast = cast(db).await;
    let db = &cast.world.db;
    let (small, large) = two(&cast).await;
    let mut larger = pro(5000);
    larger["code"] = json!("house");
    let larger = cast.plan(larger).await;
    let id = buy(db, cast.user, small, Interval::Month).await.unwrap().subscription.id;
    let change = async |plan: Uuid| {
        let payment = paid(db, cast.user, plan, 2000).await;
        assert_eq!(activate(db, cast.user, plan, Interval::Month, payment).await.unwrap().did, Did::Changed);
        payment
    };
    let back = async |payment: Uuid| back(db, payment).await;
    let only = change(large).await;
    assert_eq!(back(only).await, Some((small, 1000, "active".into(), false)));
    assert_eq!(back(only).await, None, "once");
    // The last one first, and the other way round.
    let (first, second) = (change(large).await, change(larger).await);
    assert_eq!(back(second).await, Some((large, 3000, "active".into(), false)));
    assert_eq!(back(first).await, Some((small, 1000, "active".into(), false)));
    let (first, second) = (change(large).await, change(larger).await);
    assert_eq!(back(first).await, None, "the second one rests on it");
    assert_eq!(now(db, id).await.plan_id, larger);
    assert_eq!(back(second).await, Some((small, 1000, "active".into(), false)));
    sound(db).await;
}

/// A plan with ten minutes, one with seventy and one with a hundred and thirty.
async fn three(cast: &Cast) -> [Uuid; 3] {
    let mut plans = [Uuid::nil(); 3];
    for (n, (code, amount, minutes)) in
        [("small", 1000, 10), ("large", 3000, 70), ("huge", 5000, 130)].into_iter().enumerate()
    {
        let mut body = pro(amount);
        (body["code"], body["entitlements"]["render_minutes"]) = (json!(code), json!(minutes));
        plans[n] = cast.plan(body).await;
    }
    plans
}

/// Pays for a dearer plan; gives the payment.
async fn change(cast: &Cast, plan: Uuid) -> Uuid {
    let db = &cast.world.db;
    let payment = paid(db, cast.user, plan, 1).await;
    assert_eq!(activate(db, cast.user, plan, Interval::Month, payment).await.unwrap().did, Did::Changed);
    payment
}

async fn balance(cast: &Cast) -> i64 {
    cast.get("/v1/credits").await.json()["balance"].as_i64().unwrap()
}

#[sqlx::test(migrations = "../migrations")]
async fn a_dearer_plan_brings_its_minutes_for_all_that_is_paid_for(db: PgPool) {
    let cast = cast(db).await;
    let db = &cast.world.db;
    let [small, large, _] = three(&cast).await;
    for _ in 0..12 {
        buy(db, cast.user, small, Interval::Month).await.unwrap();
    }
    assert_eq!(balance(&cast).await, 12 * 600);
    let payment = change(&cast, large).await;
    assert_eq!(balance(&cast).await, 12 * 4200, "as the difference was paid for each of the months");
    assert_eq!(back(db, payment).await, Some((small, 1000, "active".into(), false)));
    assert_eq!(balance(&cast).await, 12 * 600);
    change(&cast, large).await;
    buy(db, cast.user, large, Interval::Month).await.unwrap();
    assert_eq!(balance(&cast).await, 13 * 4200, "and each month that follows brings all of them");
    sound(db).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_dearer_plan_brings_minutes_for_the_days_that_were_left_when_its_payment_was_opened(db: PgPool) {
    let cast = cast(db).await;
    let db = &cast.world.db;
    let [small, large, _] = three(&cast).await;
    let begun = buy(db, cast.user, small, Interval::Month).await.unwrap().subscription;
    let days = (begun.current_period_end - begun.current_period_start).num_days();
    until(&cast, begun.id, -15 * DAY).await;
    let shown = cast.get(&format!("/v1/subscription/change?plan_id={large}")).await.json();
    assert_eq!(shown["due"], 3000 * 15 / days - 1000 * 15 / days, "{shown}");
    // Its money comes two days later.
    let payment = paid(db, cast.user, large, 1000).await;
    until(&cast, begun.id, -13 * DAY).await;
    activate(db, cast.user, large, Interval::Month, payment).await.unwrap();
    assert_eq!(balance(&cast).await, 600 + 3600 * 15 / days);
    sound(db).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn the_minutes_of_changes_go_back_with_their_money_whichever_goes_first(db: PgPool) {
    let cast = cast(db).await;
    let db = &cast.world.db;
    let [small, large, huge] = three(&cast).await;
    let bought = paid(db, cast.user, small, 1000).await;
    activate(db, cast.user, small, Interval::Month, bought).await.unwrap();
    let (first, second) = (change(&cast, large).await, change(&cast, huge).await);
    assert_eq!(balance(&cast).await, 600 + 3600 + 3600);
    assert_eq!(back(db, first).await, None, "the second one rests on it");
    assert_eq!(balance(&cast).await, 600 + 3600 + 3600);
    assert_eq!(back(db, second).await, Some((small, 1000, "active".into(), false)));
    assert_eq!(balance(&cast).await, 600);
    // Of what is over nothing is had again, and the minutes go all the same; those that were spent are gone.
    let third = change(&cast, large).await;
    assert_eq!(cast.grant(-1000, "spent").await.json()["balance"], 3200);
    assert!(back(db, bought).await.is_some_and(|(.., over)| over));
    assert_eq!(balance(&cast).await, 3200, "the month's own were the first to be spent");
    assert_eq!(back(db, third).await, None);
    assert_eq!(balance(&cast).await, 0);
    sound(db).await;
}

/// What came with a plan is spent first; what was bought, or is a gift, does not go with the plan's money.
#[sqlx::test(migrations = "../migrations")]
async fn the_money_of_a_plan_takes_no_minutes_that_were_bought_or_given(db: PgPool) {
    let cast = cast(db).await;
    let db = &cast.world.db;
    let plan = cast.plan(pro(1000)).await;
    let payment = paid(db, cast.user, plan, 1000).await;
    activate(db, cast.user, plan, Interval::Month, payment).await.unwrap();
    let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(db).await.unwrap();
    let account = credit::open(&mut tx, DEFAULT_TENANT, Some(cast.user)).await.unwrap();
    let entered = credit::grant(&mut tx, account.id, "payment:a pack", 3600, Reason::Purchase).await.unwrap();
    assert_eq!(entered, Entered::Now(600 + 3600));
    // A film under way holds what is spent first, too.
    assert!(credit::hold(&mut tx, account.id, Uuid::now_v7(), 300).await.unwrap().is_some());
    tx.commit().await.unwrap();
    assert_eq!(cast.grant(-200, "spent").await.json()["balance"], 400 + 3600);
    assert_eq!(cast.grant(50, "gift").await.json()["balance"], 400 + 3600 + 50);
    assert!(back(db, payment).await.is_some_and(|(.., over)| over));
    assert_eq!(balance(&cast).await, 300 + 3600 + 50, "a hundred were left of the plan's");
}

/// A dearer plan without more minutes, and one with more: all are spent when its money goes back.
#[sqlx::test(migrations = "../migrations")]
async fn minutes_that_were_spent_are_not_taken_from_what_was_bought_later(db: PgPool) {
    let cast = cast(db).await;
    let db = &cast.world.db;
    let [small, large, _] = three(&cast).await;
    let mut same = pro(2000);
    same["code"] = json!("same");
    let same = cast.plan(same).await;
    buy(db, cast.user, small, Interval::Month).await.unwrap();
    let (first, second) = (change(&cast, same).await, change(&cast, large).await);
    assert_eq!(balance(&cast).await, 600 + 3600);
    assert_eq!(cast.grant(-4200, "spent").await.json()["balance"], 0);
    assert!(back(db, second).await.is_some());
    assert_eq!(cast.grant(3600, "bought").await.json()["balance"], 3600);
    assert_eq!(back(db, first).await, Some((small, 1000, "active".into(), false)));
    assert_eq!(balance(&cast).await, 3600, "each change is settled once");
    sound(db).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_dearer_plan_with_fewer_minutes_takes_none(db: PgPool) {
    let cast = cast(db).await;
    let db = &cast.world.db;
    let mut quiet = pro(9000);
    (quiet["code"], quiet["entitlements"]["render_minutes"]) = (json!("quiet"), json!(0));
    let (small, quiet) = (cast.plan(pro(1000)).await, cast.plan(quiet).await);
    buy(db, cast.user, small, Interval::Month).await.unwrap();
    let payment = change(&cast, quiet).await;
    assert_eq!(balance(&cast).await, 600);
    assert!(back(db, payment).await.is_some());
    assert_eq!(balance(&cast).await, 600);
    sound(db).await;
}
