//! Sixty-four at once for the last one of something, many times: no limit is crossed, and what is refused is refused in plain words.
//! The same over HTTP is in `payments/races.rs`.

use crate::{
    money::{payment, sound},
    plans::{Cast, cast, pro},
};
use flatrender_workflows::models::{
    DEFAULT_TENANT, Role, Scope,
    identity::{
        coupon::{self, NewCoupon},
        credit::{self, Entered, Reason},
        gift::{self, Claim, NewGift},
        payment as payments, plan,
        points::{self, Source},
        referral::{self, Joined},
        refund::{self, NewRefund},
        reward, subscription,
    },
};
use futures::future::join_all;
use sqlx::{PgPool, postgres::PgPoolOptions};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::Barrier;
use uuid::Uuid;

const CLIENTS: usize = 64;
/// A hundred, or what `FLATRENDER_ROUNDS` says: `scripts/chaos.sh races` has a thousand.
static ROUNDS: LazyLock<usize> =
    LazyLock::new(|| std::env::var("FLATRENDER_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(100));

/// A connection each.
async fn connections(db: &PgPool) -> PgPool {
    let options = (*db.connect_options()).clone();
    PgPoolOptions::new().max_connections(CLIENTS as u32).connect_with(options).await.unwrap()
}

/// Every client tries in each round at the same time as all others; gives how often somebody won.
async fn race<F: Future<Output = bool> + Send>(attempt: impl Fn(usize, usize) -> F + Send + Sync + 'static) -> u64 {
    let (attempt, barrier, won) = (Arc::new(attempt), Arc::new(Barrier::new(CLIENTS)), Arc::new(AtomicU64::new(0)));
    let clients = (0..CLIENTS).map(|client| {
        let (attempt, barrier, won) = (attempt.clone(), barrier.clone(), won.clone());
        async move {
            for round in 0..*ROUNDS {
                barrier.wait().await;
                won.fetch_add(u64::from(attempt(client, round).await), Ordering::Relaxed);
            }
        }
    });
    join_all(clients).await;
    won.load(Ordering::Relaxed)
}

/// The last second is held by one; whoever has it frees it for the next round, while others still ask for it.
#[sqlx::test(migrations = "../migrations")]
async fn m043_the_last_second_is_held_once_and_freed_while_others_ask(db: PgPool) {
    let cast = cast(db).await;
    let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(&cast.world.db).await.unwrap();
    let account = credit::open(&mut tx, DEFAULT_TENANT, Some(cast.user)).await.unwrap().id;
    assert_eq!(credit::grant(&mut tx, account, "one", 1, Reason::Grant).await.unwrap(), Entered::Now(1));
    tx.commit().await.unwrap();
    let pool = connections(&cast.world.db).await;
    let won = race(move |client, round| {
        let pool = pool.clone();
        async move {
            let mut db = pool.acquire().await.unwrap();
            let run = Uuid::from_u128((round * CLIENTS + client + 1) as u128);
            let won = credit::hold(&mut db, account, run, 1).await.unwrap().is_some();
            if won {
                assert!(credit::release(&mut db, DEFAULT_TENANT, run).await.unwrap());
                assert!(!credit::release(&mut db, DEFAULT_TENANT, run).await.unwrap(), "once");
            }
            won
        }
    })
    .await;
    assert!(won >= *ROUNDS as u64, "somebody had it in every round: {won}");
    sound(&cast.world.db).await;
}

/// A hold is captured by many at once: spent once.
#[sqlx::test(migrations = "../migrations")]
async fn m043_a_hold_is_spent_or_freed_once_whoever_asks(db: PgPool) {
    let cast = cast(db).await;
    let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(&cast.world.db).await.unwrap();
    let account = credit::open(&mut tx, DEFAULT_TENANT, Some(cast.user)).await.unwrap().id;
    let _ = credit::grant(&mut tx, account, "all", 2 * *ROUNDS as i64, Reason::Grant).await.unwrap();
    for round in 0..*ROUNDS {
        assert!(credit::hold(&mut tx, account, run(round), 2).await.unwrap().is_some());
    }
    tx.commit().await.unwrap();
    let pool = connections(&cast.world.db).await;
    let won = race(move |client, round| {
        let pool = pool.clone();
        async move {
            let mut db = pool.acquire().await.unwrap();
            match client % 2 {
                0 => credit::capture(&mut db, DEFAULT_TENANT, run(round), 1).await.unwrap().is_some(),
                _ => credit::release(&mut db, DEFAULT_TENANT, run(round)).await.unwrap(),
            }
        }
    })
    .await;
    assert_eq!(won, *ROUNDS as u64);
    let spent: i64 = sqlx::query_scalar("select count(*) from identity.credit_holds where state = 'captured'")
        .fetch_one(&cast.world.db)
        .await
        .unwrap();
    let now = credit::find(&mut cast.world.db.acquire().await.unwrap(), DEFAULT_TENANT, Some(cast.user)).await.unwrap();
    let now = now.unwrap();
    assert_eq!((now.balance, now.held), (2 * *ROUNDS as i64 - spent, 0));
    sound(&cast.world.db).await;
}

fn run(round: usize) -> Uuid {
    Uuid::from_u128(round as u128 + 1)
}

/// Credits of one key, asked for by everybody: given once.
#[sqlx::test(migrations = "../migrations")]
async fn m043_credits_of_a_key_are_given_once(db: PgPool) {
    let cast = cast(db).await;
    let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(&cast.world.db).await.unwrap();
    let account = credit::open(&mut tx, DEFAULT_TENANT, Some(cast.user)).await.unwrap().id;
    tx.commit().await.unwrap();
    let pool = connections(&cast.world.db).await;
    let won = race(move |_, round| {
        let pool = pool.clone();
        async move {
            let mut tx = pool.begin().await.unwrap();
            let entered =
                credit::grant(&mut tx, account, &format!("payment:{round}"), 7, Reason::Purchase).await.unwrap();
            tx.commit().await.unwrap();
            matches!(entered, Entered::Now(_))
        }
    })
    .await;
    let now = credit::find(&mut cast.world.db.acquire().await.unwrap(), DEFAULT_TENANT, Some(cast.user)).await.unwrap();
    assert_eq!((won, now.unwrap().balance), (*ROUNDS as u64, 7 * *ROUNDS as i64));
    sound(&cast.world.db).await;
}

/// One use is left of each coupon, and everybody pays at once.
#[sqlx::test(migrations = "../migrations")]
async fn m043_the_last_use_of_a_coupon_is_one_payments(db: PgPool) {
    let cast = cast(db).await;
    let plan = cast.plan(pro(1900)).await;
    let mut payments = vec![];
    for _ in 0..CLIENTS {
        payments.push(payment(&cast.world.db, cast.user, plan, 1000, false).await);
    }
    let mut coupons = vec![];
    let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(&cast.world.db).await.unwrap();
    for round in 0..*ROUNDS {
        let new = NewCoupon {
            code: &format!("LAST-{round}"),
            kind: "percent",
            value: 10,
            currency: None,
            max_redemptions: 1,
            per_user_limit: CLIENTS as i32,
            valid_from: None,
            valid_to: "2099-01-01T00:00:00Z".parse().unwrap(),
        };
        coupons.push(coupon::create(&mut tx, DEFAULT_TENANT, &new).await.unwrap().unwrap());
    }
    tx.commit().await.unwrap();
    let (pool, user) = (connections(&cast.world.db).await, cast.user);
    let won = race(move |client, round| {
        let (pool, coupon, payment) = (pool.clone(), coupons[round], payments[client]);
        async move {
            let mut tx = pool.begin().await.unwrap();
            let won = coupon::redeem(&mut tx, coupon, payment, user).await.unwrap();
            tx.commit().await.unwrap();
            won
        }
    })
    .await;
    assert_eq!(won, *ROUNDS as u64);
    sound(&cast.world.db).await;
}

/// A gift of each period is given by everybody at once and claimed by everybody at once: one of each.
#[sqlx::test(migrations = "../migrations")]
async fn m043_a_gift_is_earned_and_claimed_once(db: PgPool) {
    let cast = cast(db).await;
    let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(&cast.world.db).await.unwrap();
    let title = BTreeMap::from([("en".to_owned(), "A present".to_owned())]);
    // As many as there are periods but one: the last claim finds none.
    let new = NewGift { code: "present", title: &title, kind: "credits", value: 3, stock: *ROUNDS as i32 - 1 };
    let id = gift::create(&mut tx, DEFAULT_TENANT, &new).await.unwrap().unwrap();
    let present = gift::find(&mut tx, DEFAULT_TENANT, id).await.unwrap().unwrap();
    let mut earned = vec![];
    for round in 0..*ROUNDS {
        let period = round.to_string();
        let given = gift::earn(&mut tx, DEFAULT_TENANT, cast.user, &present, &period, "a round", None);
        earned.push(given.await.unwrap().unwrap());
    }
    tx.commit().await.unwrap();
    let (pool, user) = (connections(&cast.world.db).await, cast.user);
    let won = race(move |_, round| {
        let (pool, earned) = (pool.clone(), earned[round]);
        async move {
            let mut tx = pool.begin().await.unwrap();
            let claim = gift::claim(&mut tx, DEFAULT_TENANT, user, earned).await.unwrap();
            match claim {
                Claim::Claimed => tx.commit().await.unwrap(),
                _ => tx.rollback().await.unwrap(),
            }
            claim == Claim::Claimed
        }
    })
    .await;
    let now = credit::find(&mut cast.world.db.acquire().await.unwrap(), DEFAULT_TENANT, Some(cast.user)).await.unwrap();
    assert_eq!((won, now.unwrap().balance), (*ROUNDS as u64 - 1, 3 * (*ROUNDS as i64 - 1)));
    sound(&cast.world.db).await;
}

/// Everybody is somebody's friend: one invitation brings one person, nobody themselves, and what it is worth is given once.
#[sqlx::test(migrations = "../migrations")]
async fn m043_an_invitation_brings_one_person_and_nobody_themselves(db: PgPool) {
    let cast = cast(db).await;
    let sql = "insert into identity.users (tenant_id, email, status, created_at)
               select $1, 'p' || n || '@example.com', 'active', workflow.now() from generate_series(1, $2) n returning id";
    let people: Vec<Uuid> =
        sqlx::query_scalar(sql).bind(DEFAULT_TENANT).bind(CLIENTS as i32).fetch_all(&cast.world.db).await.unwrap();
    // In each round a code of another person's, and everybody has a go at it, the one whose it is, too.
    let sql = "insert into identity.referrals (tenant_id, code, referrer_user_id) select $1, 'CODE' || n, ($2::uuid[])[1 + n % $3] from generate_series(0, $4) n";
    let codes = sqlx::query(sql).bind(DEFAULT_TENANT).bind(&people).bind(CLIENTS as i32).bind(*ROUNDS as i32 - 1);
    codes.execute(&cast.world.db).await.unwrap();
    let (pool, all) = (connections(&cast.world.db).await, people.clone());
    let won = race(move |client, round| {
        let (pool, user) = (pool.clone(), all[client]);
        async move {
            let mut tx = pool.begin().await.unwrap();
            let joined = referral::join(&mut tx, DEFAULT_TENANT, user, &format!("CODE{round}")).await.unwrap();
            match joined {
                Joined::Now => tx.commit().await.unwrap(),
                _ => tx.rollback().await.unwrap(),
            }
            joined == Joined::Now
        }
    })
    .await;
    assert_eq!(won, CLIENTS as u64, "everybody was brought once");
    let wrong =
        "identity.referrals where referee_user_id = referrer_user_id or state = 'open' and referee_user_id is not null";
    let wrong: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select count(*) from {wrong}")))
        .fetch_one(&cast.world.db)
        .await
        .unwrap();
    assert_eq!(wrong, 0);
    rewarded_once(&cast, &people).await;
    sound(&cast.world.db).await;
}

/// The same film is told of by many at once: its owner is rewarded once, and so is who brought them.
async fn rewarded_once(cast: &Cast, people: &[Uuid]) {
    let (pool, film) = (connections(&cast.world.db).await, Uuid::now_v7());
    let told = (0..CLIENTS).map(|_| {
        let (pool, user) = (pool.clone(), people[0]);
        async move {
            let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(&pool).await.unwrap();
            reward::reward(&mut tx, DEFAULT_TENANT, user, Source::Render, film).await.unwrap();
            tx.commit().await.unwrap();
        }
    });
    join_all(told).await;
    let mut db = cast.world.db.acquire().await.unwrap();
    assert_eq!(points::progress(&mut db, DEFAULT_TENANT, people[0]).await.unwrap().points, 10);
    let rewarded: i64 =
        sqlx::query_scalar("select count(*) from identity.points_ledger where source_type = 'referral'")
            .fetch_one(&mut *db)
            .await
            .unwrap();
    assert_eq!(rewarded, 1);
}

/// Everybody begins a trial for the same person at once: one begins.
#[sqlx::test(migrations = "../migrations")]
async fn m043_a_person_has_one_plan_whoever_begins_it(db: PgPool) {
    let cast = cast(db).await;
    let mut body = pro(1900);
    body["trial_days"] = serde_json::json!(14);
    body["entitlements"] = serde_json::json!({});
    let plan = cast.plan(body).await;
    let sql = "insert into identity.users (tenant_id, email, status)
               select $1, 'p' || n || '@example.com', 'active' from generate_series(1, $2) n returning id";
    let people: Vec<Uuid> =
        sqlx::query_scalar(sql).bind(DEFAULT_TENANT).bind(*ROUNDS as i32).fetch_all(&cast.world.db).await.unwrap();
    let plan = plan::find(&mut cast.world.db.acquire().await.unwrap(), DEFAULT_TENANT, plan).await.unwrap().unwrap();
    let (pool, plan) = (connections(&cast.world.db).await, Arc::new(plan));
    let won = race(move |_, round| {
        let (pool, plan, user) = (pool.clone(), plan.clone(), people[round]);
        async move {
            let mut tx = pool.begin().await.unwrap();
            let interval = plan::Interval::Month;
            let begun = subscription::begin_trial(&mut tx, DEFAULT_TENANT, user, &plan, "USD", interval).await.unwrap();
            tx.commit().await.unwrap();
            begun.is_some()
        }
    })
    .await;
    assert_eq!(won, *ROUNDS as u64);
    assert_eq!(cast.world.count("identity.subscription_periods").await, *ROUNDS as i64);
    sound(&cast.world.db).await;
}

/// Everybody asks for two fifths of what was paid at the same time: two have it, and no more goes back than came.
#[sqlx::test(migrations = "../migrations")]
async fn m043_no_more_goes_back_than_was_paid_whoever_asks(db: PgPool) {
    let cast = cast(db).await;
    let plan = cast.plan(pro(1900)).await;
    let mut db = cast.world.db.acquire().await.unwrap();
    let mut payments = vec![];
    for _ in 0..*ROUNDS {
        let id = payment(&cast.world.db, cast.user, plan, 1000, true).await;
        payments.push(Arc::new(payments::find(&mut db, DEFAULT_TENANT, id).await.unwrap().unwrap()));
    }
    drop(db);
    let (pool, user) = (connections(&cast.world.db).await, cast.user);
    let won = race(move |client, round| {
        let (pool, payment) = (pool.clone(), payments[round].clone());
        async move {
            let new = NewRefund {
                amount: 400,
                reason: "a race",
                requested_by: Some(user),
                approved: true,
                revoke: false,
                idempotency_key: &format!("{round}:{client}"),
            };
            let mut tx = pool.begin().await.unwrap();
            let won = refund::create(&mut tx, &payment, &new).await.unwrap().is_some();
            tx.commit().await.unwrap();
            won
        }
    })
    .await;
    assert_eq!(won, 2 * *ROUNDS as u64);
    let sql = "select count(*) from identity.payments p where refunded_amount = 800
               and 800 = (select sum(amount) from identity.refunds r where r.payment_id = p.id)";
    let right: i64 = sqlx::query_scalar(sql).fetch_one(&cast.world.db).await.unwrap();
    assert_eq!(right, *ROUNDS as i64);
    sound(&cast.world.db).await;
}
