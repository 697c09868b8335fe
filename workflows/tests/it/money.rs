//! Money that comes at the wrong moment, accounts whose key is changed under way, and what goes back and does not stay there.

use crate::payments::{Shop, Working};
use flatrender_engine::{Client, client::RunState};
use flatrender_workflows::{
    contracts::pay::{PaymentState, RefundState},
    definitions::{
        payment::{TakePayment, settle},
        refund as refunds,
    },
    models::{
        DEFAULT_TENANT, Role, Scope,
        identity::{
            coupon::{self, NewCoupon},
            credit::{self, Entered, Reason},
            gateway,
            payment::{self, Wanted},
            plan::{self, Interval, NewPlan, Price},
            refund, subscription,
        },
    },
};
use sqlx::PgPool;
use std::{collections::BTreeMap, time::Duration};
use uuid::Uuid;

/// What is paid just before its time is over, or it is cancelled, is taken: the gateway would give it back otherwise.
#[sqlx::test(migrations = "../migrations")]
async fn what_was_paid_before_a_payment_was_closed_is_taken(db: PgPool) {
    let shop = Shop::open(db).await;
    let working = Working::begin(shop.worker(true));
    let (cancelled, run) = shop.buy(shop.credits(), None).await;
    shop.comes(cancelled, "pending").await;
    let (expired, _) = shop.buy(shop.credits(), None).await;
    shop.comes(expired, "pending").await;
    shop.till.0.lock().unwrap().state = Some(PaymentState::Paid);
    let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(&shop.db).await.unwrap();
    assert!(payment::state::ask_cancel(&mut tx, DEFAULT_TENANT, cancelled).await.unwrap());
    tx.commit().await.unwrap();
    shop.hint(run).await;
    shop.comes(cancelled, "paid").await;
    shop.pass(24.0 * 3600.0 + 60.0).await;
    shop.comes(expired, "paid").await;
    assert_eq!(shop.balance().await, 2 * 3600);
    working.end().await;
    shop.sound().await;
}

async fn rotate(shop: &Shop, to: &[u8], counts: bool) {
    if counts {
        shop.till.0.lock().unwrap().key = Some(hex::encode(to));
        return;
    }
    let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(&shop.db).await.unwrap();
    gateway::rotate(&mut tx, DEFAULT_TENANT, shop.gateway, to).await.unwrap();
    tx.commit().await.unwrap();
}

/// A key that is revoked before it is changed here, or after: what is under way waits, and goes on with the new one.
#[sqlx::test(migrations = "../migrations")]
async fn what_is_under_way_goes_on_with_the_new_key(db: PgPool) {
    let shop = Shop::open(db).await;
    let working = Working::begin(shop.worker(false));
    let (id, run) = shop.buy(shop.credits(), None).await;
    shop.comes(id, "pending").await;
    shop.till.0.lock().unwrap().state = Some(PaymentState::Paid);
    rotate(&shop, b"second", true).await;
    shop.hint(run).await;
    let asked = "select count(*) from workflow.steps where run_id = $1 and key = 'note 2'";
    for _ in 0..500 {
        if sqlx::query_scalar::<_, i64>(asked).bind(run).fetch_one(&shop.db).await.unwrap() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(shop.now(id).await.state, "pending", "the account does not open, and nobody has to look yet");
    rotate(&shop, b"second", false).await;
    shop.hint(run).await;
    shop.comes(id, "paid").await;
    // The same of a refund.
    shop.till.0.lock().unwrap().refund = Some(RefundState::Pending);
    let back = shop.give_back(id, 100, "a").await.unwrap();
    shop.refund_comes(back, "sending").await;
    rotate(&shop, b"third", true).await;
    shop.till.0.lock().unwrap().refund = Some(RefundState::Done);
    shop.pass(7.0 * 3600.0).await;
    rotate(&shop, b"third", false).await;
    for _ in 0..3 {
        shop.pass(7.0 * 3600.0).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    shop.refund_comes(back, "done").await;
    working.end().await;
    shop.sound().await;
}

/// Looking again at a payment that its run is opening leaves it to that run.
#[sqlx::test(migrations = "../migrations")]
async fn looking_again_at_a_payment_that_is_not_open_yet_does_nothing(db: PgPool) {
    let shop = Shop::open(db).await;
    let (id, run) = shop.buy(shop.credits(), None).await;
    let client = Client::new(shop.db.clone());
    let again = TakePayment { tenant_id: DEFAULT_TENANT, payment_id: id, again: true, return_page: String::new() };
    let mut tx = shop.db.begin().await.unwrap();
    let again = client.start(&mut tx, DEFAULT_TENANT, None, again).await.unwrap().run_id;
    tx.commit().await.unwrap();
    client.announce();
    shop.till.0.lock().unwrap().silent = 2;
    let working = Working::begin(shop.worker(false));
    let ended = client.finished(again, Duration::from_secs(30)).await.unwrap().unwrap();
    assert_eq!(ended.state, RunState::Succeeded, "{:?}", ended.error);
    shop.comes(id, "pending").await;
    let pages = shop.till.0.lock().unwrap().pages.clone();
    assert!(pages.iter().all(|page| page == "https://us.example/p"), "{pages:?}");
    shop.till.0.lock().unwrap().state = Some(PaymentState::Paid);
    shop.hint(run).await;
    shop.comes(id, "paid").await;
    working.end().await;
    shop.sound().await;
}

/// Money that goes straight back bought nothing: its coupon can be used again.
#[sqlx::test(migrations = "../migrations")]
async fn a_coupon_is_there_again_when_the_money_goes_straight_back(db: PgPool) {
    let shop = Shop::open(db).await;
    let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(&shop.db).await.unwrap();
    let new = NewCoupon {
        code: "SPRING",
        kind: "percent",
        value: 10,
        currency: None,
        max_redemptions: 1,
        per_user_limit: 1,
        valid_from: None,
        valid_to: "2099-01-01T00:00:00Z".parse().unwrap(),
    };
    let spring = coupon::create(&mut tx, DEFAULT_TENANT, &new).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    let working = Working::begin(shop.worker(true));
    // Two windows, and both are paid: there is nothing for the second one to begin.
    let (second, second_run) = shop.buy(shop.plan(), Some("spring")).await;
    let (first, first_run) = shop.buy(shop.plan(), None).await;
    for id in [first, second] {
        shop.comes(id, "pending").await;
    }
    shop.till.0.lock().unwrap().state = Some(PaymentState::Paid);
    shop.hint(first_run).await;
    shop.comes(first, "paid").await;
    shop.hint(second_run).await;
    shop.comes(second, "refunded").await;
    let mut db = shop.db.acquire().await.unwrap();
    assert_eq!(coupon::find(&mut db, DEFAULT_TENANT, spring).await.unwrap().unwrap().redeemed, 0);
    drop(db);
    working.end().await;
    shop.sound().await;
}

/// Two dearer plans in two windows, and both are paid: what the second one costs was counted from the plan before the first.
#[sqlx::test(migrations = "../migrations")]
async fn a_change_that_was_counted_from_another_plan_is_not_made(db: PgPool) {
    let shop = Shop::open(db).await;
    let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(&shop.db).await.unwrap();
    let mut dearer = vec![];
    for (code, amount) in [("large", 2999), ("huge", 4999)] {
        let name = BTreeMap::from([("en".to_owned(), code.to_owned())]);
        let prices = [Price { currency: "USD".into(), interval: Interval::Month, amount }];
        let new = NewPlan { code, name: &name, trial_days: 0, prices: &prices, entitlements: &BTreeMap::new() };
        let id = plan::create(&mut tx, DEFAULT_TENANT, &new).await.unwrap();
        assert!(plan::activate(&mut tx, DEFAULT_TENANT, id).await.unwrap());
        dearer.push(id);
    }
    tx.commit().await.unwrap();
    let working = Working::begin(shop.worker(false));
    shop.till.0.lock().unwrap().state = Some(PaymentState::Paid);
    let (small, run) = shop.buy(shop.plan(), None).await;
    shop.comes(small, "pending").await;
    shop.hint(run).await;
    shop.comes(small, "paid").await;
    let mut opened = vec![];
    for plan_id in &dearer {
        let wanted = Wanted::Plan { plan_id: *plan_id, currency: "USD", interval: Interval::Month };
        let (id, run) = shop.buy(wanted, None).await;
        shop.comes(id, "pending").await;
        opened.push((id, run));
    }
    for ((id, run), state) in opened.into_iter().zip(["paid", "refunded"]) {
        shop.hint(run).await;
        shop.comes(id, state).await;
    }
    let mut db = shop.db.acquire().await.unwrap();
    let has = subscription::find_live(&mut db, DEFAULT_TENANT, shop.user).await.unwrap().unwrap();
    assert_eq!((has.plan_id, has.amount), (dearer[0], 2999));
    drop(db);
    working.end().await;
    shop.sound().await;
}

/// Credits that a film takes at the moment when their money goes back: what is free after it is taken, and not nothing.
#[sqlx::test(migrations = "../migrations")]
async fn what_is_free_when_the_money_goes_back_is_taken_back_whoever_holds_the_rest(db: PgPool) {
    let shop = Shop::open(db).await;
    let working = Working::begin(shop.worker(false));
    let id = shop.paid_for().await;
    let mut film = shop.db.begin().await.unwrap();
    let account = credit::find(&mut film, DEFAULT_TENANT, Some(shop.user)).await.unwrap().unwrap();
    assert!(credit::hold(&mut film, account.id, Uuid::now_v7(), 3000).await.unwrap().is_some());
    let back = shop.give_back(id, 500, "a").await.unwrap();
    let waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    for _ in 0..500 {
        if sqlx::query_scalar::<_, i64>(waits).fetch_one(&shop.db).await.unwrap() > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    film.commit().await.unwrap();
    shop.refund_comes(back, "done").await;
    assert_eq!(shop.balance().await, 3000, "what the film holds is its own");
    working.end().await;
}

/// Credits that were spent are gone with their money: what somebody was given since stays theirs.
#[sqlx::test(migrations = "../migrations")]
async fn the_money_of_credits_that_were_spent_takes_no_gift_along(db: PgPool) {
    let shop = Shop::open(db).await;
    let working = Working::begin(shop.worker(false));
    let id = shop.paid_for().await;
    let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(&shop.db).await.unwrap();
    let account = credit::find(&mut tx, DEFAULT_TENANT, Some(shop.user)).await.unwrap().unwrap();
    for (key, seconds, reason, now) in
        [("grant:a", -3000, Reason::Correction, 600), ("gift:b", 900, Reason::Grant, 1500)]
    {
        let entered = credit::grant(&mut tx, account.id, key, seconds, reason).await.unwrap();
        assert_eq!(entered, Entered::Now(now));
    }
    tx.commit().await.unwrap();
    // A part of the money, then the rest.
    for (amount, left) in [(50, 900 + 600 - 360), (450, 900)] {
        let back = shop.give_back(id, amount, &amount.to_string()).await.unwrap();
        shop.refund_comes(back, "done").await;
        assert_eq!(shop.balance().await, left);
    }
    working.end().await;
    shop.sound().await;
}

/// A bank that wants money back has to be answered within days: by whoever manages the money of the tenant, not by whoever paid.
#[sqlx::test(migrations = "../migrations")]
async fn a_dispute_and_a_review_are_told_to_who_must_act(db: PgPool) {
    let shop = Shop::open(db).await;
    let working = Working::begin(shop.worker(true));
    let (id, _) = shop.buy(shop.credits(), None).await;
    shop.comes(id, "pending").await;
    let client = Client::new(shop.db.clone());
    let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(&shop.db).await.unwrap();
    settle::disputed(&client, &mut tx, DEFAULT_TENANT, id, "charge.dispute.created").await.unwrap();
    settle::review(&client, &mut tx, DEFAULT_TENANT, id, "payment.amount_differs", "10 and not 9").await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(&shop.db).await.unwrap();
    for later in ["charge.dispute.funds_withdrawn", "charge.dispute.funds_reinstated", "charge.dispute.closed"] {
        settle::disputed(&client, &mut tx, DEFAULT_TENANT, id, later).await.unwrap();
    }
    tx.commit().await.unwrap();
    let told = "select input #>> '{news,code}', coalesce(input #>> '{news,audience,user}', input #>> '{news,audience}')
                from workflow.runs where kind = 'notify' order by input #>> '{news,code}' collate \"C\"";
    let told: Vec<(String, String)> = sqlx::query_as(told).fetch_all(&shop.db).await.unwrap();
    let line = |code: &str, whom: &str| (code.to_owned(), whom.to_owned());
    assert_eq!(
        told,
        [
            line("payment.dispute_open", "operators"),
            line("payment.disputed", "treasurers"),
            line("payment.review", &shop.user.to_string()),
            line("payment.undecided", "treasurers"),
        ]
    );
    working.end().await;
}

/// What a bank sends back after it was done is for people, who are told; two of them cannot say that it is settled by nothing.
#[sqlx::test(migrations = "../migrations")]
async fn a_refund_that_comes_back_after_it_was_done_is_for_people(db: PgPool) {
    let shop = Shop::open(db).await;
    let working = Working::begin(shop.worker(true));
    shop.till.0.lock().unwrap().state = Some(PaymentState::Paid);
    let (id, run) = shop.buy(shop.credits(), None).await;
    shop.comes(id, "pending").await;
    shop.hint(run).await;
    shop.comes(id, "paid").await;
    let back = shop.give_back(id, 500, "a").await.unwrap();
    shop.refund_comes(back, "done").await;
    shop.comes(id, "refunded").await;
    let (client, invoices) = (Client::new(shop.db.clone()), shop.invoices().await);
    let look = async || {
        let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(&shop.db).await.unwrap();
        settle::look_again(&client, &mut tx, DEFAULT_TENANT, back).await.unwrap();
        let sql = "select workflow_run_id from identity.refunds where id = $1";
        let run = sqlx::query_scalar(sql).bind(back).fetch_one(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        client.announce();
        client.finished(run, Duration::from_secs(30)).await.unwrap().unwrap().output_as::<String>().unwrap()
    };
    assert_eq!(look().await, "done", "it is there still");
    shop.till.0.lock().unwrap().refund = Some(RefundState::Refused);
    assert_eq!(look().await, "manual");
    let told = "select count(*) from workflow.runs where kind = 'notify' and business_key like '%:payment.review'";
    assert_eq!(sqlx::query_scalar::<_, i64>(told).fetch_one(&shop.db).await.unwrap(), 1);
    assert_eq!(shop.comes(id, "refunding").await.refunded_amount, 500);
    let now = refund::find(&mut shop.db.acquire().await.unwrap(), DEFAULT_TENANT, back).await.unwrap().unwrap();
    assert!(now.came_back() && now.done_at.is_none());
    // Nobody has looked for an hour: operators hear of it, once.
    let page = async || {
        let mut tx = Scope::platform(Role::Identity).begin(&shop.db).await.unwrap();
        let told = refunds::page_operators(&client, &mut tx).await.unwrap();
        tx.commit().await.unwrap();
        told
    };
    assert_eq!(page().await, 0);
    shop.pass(3700.0).await;
    assert_eq!((page().await, page().await), (1, 0));
    // By hand, then: its credit note is there, and nothing is taken back again.
    let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(&shop.db).await.unwrap();
    assert_eq!(refunds::done(&client, &mut tx, DEFAULT_TENANT, back, Some("t-1")).await.unwrap(), "done");
    tx.commit().await.unwrap();
    shop.comes(id, "refunded").await;
    assert_eq!((shop.invoices().await, shop.balance().await), (invoices, 0));
    working.end().await;
    shop.sound().await;
}

/// Seven seconds and a fifth go with each: in five of them there is one more than in each of the five.
#[sqlx::test(migrations = "../migrations")]
async fn parts_that_go_back_take_as_much_as_the_whole(db: PgPool) {
    let shop = Shop::open(db).await;
    let working = Working::begin(shop.worker(false));
    let id = shop.paid_for().await;
    for (amount, taken) in [(1, 7), (1, 14), (1, 21), (1, 28), (1, 36), (495, 3600)] {
        let part = shop.give_back(id, amount, &taken.to_string()).await.unwrap();
        shop.refund_comes(part, "done").await;
        assert_eq!(shop.balance().await, 3600 - taken);
    }
    working.end().await;
    shop.sound().await;
}
