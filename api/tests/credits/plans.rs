//! Plans, coupons and credits over HTTP.

use crate::{
    jane::pass,
    money::{ask, buy, payment, sound},
    turns::beside_another,
    world::{Answer, World, order, request, with_json},
};
use axum::http::{Method, StatusCode};
use flatrender_workflows::models::{
    DEFAULT_TENANT, Role, Scope,
    identity::{coupon, plan::Interval, subscription},
};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

/// An owner of the platform's own tenant, and somebody who makes films.
pub struct Cast {
    pub world: World,
    pub owner: String,
    pub user: Uuid,
    pub jane: String,
}

pub async fn cast(db: PgPool) -> Cast {
    let world = World::new(db).await;
    let owner = world.person(DEFAULT_TENANT, "owner@example.com", &["owner"]).await;
    let user = world.person(DEFAULT_TENANT, "jane@example.com", &["editor"]).await;
    let (owner, jane) = (world.session(DEFAULT_TENANT, owner).await, world.session(DEFAULT_TENANT, user).await);
    // The clock goes on by months, and sessions end by it.
    let long = "update identity.user_sessions set access_expires_at = '2100-01-01Z', idle_expires_at = '2100-01-01Z', absolute_expires_at = '2100-01-01Z'";
    sqlx::query(long).execute(&world.db).await.unwrap();
    Cast { world, owner, user, jane }
}

impl Cast {
    /// The owner has just signed in: some of it asks for that.
    pub async fn own(&self, method: Method, path: &str, body: Value) -> Answer {
        let id = "select id from identity.users where email = 'owner@example.com'";
        let id = sqlx::query_scalar(id).fetch_one(&self.world.db).await.unwrap();
        let owner = self.world.session(DEFAULT_TENANT, id).await;
        ask(&self.world, &owner, method, path, Some(body)).await
    }

    pub async fn own_post(&self, path: &str, body: Value) -> Answer {
        self.own(Method::POST, path, body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        ask(&self.world, &self.jane, Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        ask(&self.world, &self.jane, Method::POST, path, Some(body)).await
    }

    /// A plan that is sold.
    pub async fn plan(&self, body: Value) -> Uuid {
        let made = self.own_post("/v1/plans", body).await;
        assert_eq!(made.status, StatusCode::CREATED, "{:?}", made.body);
        let id = made.json()["id"].as_str().unwrap().to_owned();
        let sold = self.own_post(&format!("/v1/plans/{id}/activate"), json!({})).await;
        assert_eq!((sold.status, &sold.json()["state"]), (StatusCode::OK, &json!("active")), "{:?}", sold.body);
        id.parse().unwrap()
    }

    pub async fn grant(&self, seconds: i64, key: &str) -> Answer {
        let path = format!("/v1/members/{}/credits", self.user);
        let request = request(Method::POST, &path, &self.owner).header("idempotency-key", key);
        self.world.send(with_json(request, &json!({ "seconds": seconds, "reason": "a present" }))).await
    }
}

pub fn pro(amount: i64) -> Value {
    json!({
        "code": "pro", "name": {"en": "Pro"}, "prices": [{"currency": "USD", "interval": "month", "amount": amount}],
        "entitlements": {"render_minutes": 10, "storage_bytes": 5_000_000, "max_resolution": 200, "concurrency": 1, "watermark": 0}
    })
}

#[sqlx::test(migrations = "../migrations")]
async fn s051_a_change_of_price_is_a_new_version_and_who_has_the_old_one_keeps_its_price(db: PgPool) {
    let cast = cast(db).await;
    let first = cast.plan(pro(1900)).await;
    let had = buy(&cast.world.db, cast.user, first, Interval::Month).await.unwrap();
    assert_eq!((had.subscription.amount, had.subscription.plan_id), (1900, first));
    let second = cast.plan(pro(2900)).await;
    let sold = cast.get("/v1/plans").await.json();
    assert_eq!((sold["data"].as_array().unwrap().len(), &sold["data"][0]["version"]), (1, &json!(2)));
    assert_eq!(sold["data"][0]["prices"], json!([{"currency": "USD", "interval": "month", "amount": 2900}]));
    let old = cast.get(&format!("/v1/plans/{first}")).await.json();
    assert_eq!((&old["state"], &old["prices"][0]["amount"]), (&json!("retired"), &json!(1900)));
    assert_eq!(cast.own_post(&format!("/v1/plans/{first}/activate"), json!({})).await.problem(), "plan.retired");
    let mine = cast.get("/v1/subscription").await.json();
    assert_eq!((&mine["subscription"]["amount"], &mine["subscription"]["plan_id"]), (&json!(1900), &json!(first)));
    assert_eq!(mine["entitlements"]["render_minutes"], 10);
    // The next period costs what it did.
    let renewed = buy(&cast.world.db, cast.user, first, Interval::Month).await.unwrap();
    assert_eq!(renewed.subscription.amount, 1900);
    let all = ask(&cast.world, &cast.owner, Method::GET, "/v1/plans/versions", None).await.json();
    assert_eq!(all["data"].as_array().unwrap().len(), 2);
    assert_eq!(cast.world.count("identity.audit_log where action like 'plan.%'").await, 4);
    assert_ne!(first, second);
    sound(&cast.world.db).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn m042_prices_and_coupons_that_make_no_sense_are_refused(db: PgPool) {
    let cast = cast(db).await;
    let price = |price: Value| {
        let mut plan = pro(1);
        plan["prices"] = json!([price]);
        plan
    };
    for (plan, fault) in [
        (price(json!({"currency": "USD", "interval": "month", "amount": 0})), "/prices/0 plan.price"),
        (price(json!({"currency": "USD", "interval": "month", "amount": -5})), "/prices/0 plan.price"),
        (price(json!({"currency": "USD", "interval": "month", "amount": i64::MAX})), "/prices/0 plan.price"),
        (price(json!({"currency": "usd", "interval": "month", "amount": 5})), "/prices/0 plan.price"),
    ] {
        assert_eq!(cast.own_post("/v1/plans", plan).await.faults(), [fault]);
    }
    let fraction = price(json!({"currency": "USD", "interval": "month", "amount": 1.5}));
    assert_eq!(cast.own_post("/v1/plans", fraction).await.problem(), "request.invalid");
    let mut twice = pro(1);
    twice["prices"] = json!([{"currency": "USD", "interval": "month", "amount": 5}, {"currency": "USD", "interval": "month", "amount": 6}]);
    assert_eq!(cast.own_post("/v1/plans", twice).await.faults(), ["/prices/1 plan.price"]);
    let mut unknown = pro(1);
    unknown["entitlements"] = json!({"everything": 1});
    assert_eq!(cast.own_post("/v1/plans", unknown).await.faults(), ["/entitlements/everything plan.entitlement"]);
    let coupon = |part: &str, value: Value| {
        let mut coupon = json!({"code": "SPRING", "kind": "percent", "value": 10, "max_redemptions": 1, "valid_to": "2099-01-01T00:00:00Z"});
        coupon[part] = value;
        coupon
    };
    for (body, fault) in [
        (coupon("value", json!(101)), "/value coupon.value"),
        (coupon("value", json!(-1)), "/value coupon.value"),
        (coupon("currency", json!("USD")), "/kind coupon.kind"),
        (coupon("kind", json!("amount")), "/kind coupon.kind"),
        (coupon("max_redemptions", json!(0)), "/max_redemptions coupon.value"),
        (coupon("valid_to", json!("2001-01-01T00:00:00Z")), "/valid_to coupon.time"),
        (coupon("code", json!("a b")), "/code code.shape"),
    ] {
        assert_eq!(cast.own_post("/v1/coupons", body).await.faults(), [fault]);
    }
    assert_eq!(cast.world.count("identity.plans").await + cast.world.count("identity.coupons").await, 0);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_coupon_takes_off_the_servers_price_and_is_used_as_often_as_agreed(db: PgPool) {
    let cast = cast(db).await;
    let plan = cast.plan(pro(1999)).await;
    let body = json!({"code": "Spring", "kind": "percent", "value": 20, "max_redemptions": 2, "valid_to": "2099-01-01T00:00:00Z"});
    let made = cast.own_post("/v1/coupons", body.clone()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{:?}", made.body);
    let mut again = body;
    again["code"] = json!("sPRING");
    assert_eq!(cast.own_post("/v1/coupons", again).await.problem(), "coupon.exists");
    let check = |code: &str, currency: &str| {
        let body = json!({"code": code, "plan_id": plan, "currency": currency, "interval": "month"});
        cast.post("/v1/coupons/check", body)
    };
    let reduced = check("SPRING", "USD").await.json();
    assert_eq!((&reduced["amount"], &reduced["reduction"], &reduced["due"]), (&json!(1999), &json!(399), &json!(1600)));
    assert_eq!(check("SPRING", "EUR").await.problem(), "plan.not_found", "it is not sold in this currency");
    assert_eq!(check("WINTER", "USD").await.problem(), "coupon.refused");

    let id: Uuid = made.json()["id"].as_str().unwrap().parse().unwrap();
    let db = &cast.world.db;
    let redeem = async |payment: Uuid| {
        let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(db).await.unwrap();
        let redeemed = coupon::redeem(&mut tx, id, payment, cast.user).await.unwrap();
        tx.commit().await.unwrap();
        redeemed
    };
    let (first, second) =
        (payment(db, cast.user, plan, 1600, false).await, payment(db, cast.user, plan, 1600, false).await);
    assert!(
        redeem(first).await && redeem(first).await,
        "for one payment it is used once, however often it is asked for"
    );
    assert!(!redeem(second).await, "once a person");
    assert_eq!(check("SPRING", "USD").await.problem(), "coupon.refused");
    sound(db).await;
    for payment in [first, first, second] {
        let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(db).await.unwrap();
        coupon::give_back(&mut tx, payment).await.unwrap();
        tx.commit().await.unwrap();
    }
    assert!(redeem(second).await, "what nobody paid is there again");
    let path = format!("/v1/coupons/{id}");
    let one = json!({ "max_redemptions": 1 });
    assert_eq!(cast.own(Method::PATCH, &path, one).await.json()["max_redemptions"], 1);
    let end = ask(&cast.world, &cast.owner, Method::DELETE, &path, None).await;
    assert_eq!(end.status, StatusCode::NO_CONTENT);
    let listed = ask(&cast.world, &cast.owner, Method::GET, "/v1/coupons?limit=1", None).await.json();
    assert_eq!((&listed["data"][0]["redeemed"], &listed["has_more"]), (&json!(1), &json!(false)));
    sound(db).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn credits_are_given_once_a_key_and_never_below_what_is_held(db: PgPool) {
    let cast = cast(db).await;
    assert_eq!(cast.get("/v1/credits").await.json()["owner"], "nobody");
    for _ in 0..3 {
        let given = cast.grant(100, "present-1").await;
        assert_eq!((given.status, given.json()["balance"].as_i64()), (StatusCode::OK, Some(100)), "{:?}", given.body);
    }
    assert_eq!(cast.grant(200, "present-1").await.problem(), "idempotency.key_reused");
    let other = cast.world.person(DEFAULT_TENANT, "other@example.com", &["editor"]).await;
    let path = format!("/v1/members/{other}/credits");
    let request = request(Method::POST, &path, &cast.owner).header("idempotency-key", "present-1");
    let given = cast.world.send(with_json(request, &json!({ "seconds": 100, "reason": "a present" }))).await;
    assert_eq!(given.problem(), "idempotency.key_reused", "it would have said that they have it");
    assert_eq!(cast.grant(-101, "too-much").await.problem(), "credits.short");
    assert_eq!(cast.grant(-40, "mistake").await.json()["balance"], 60);
    assert_eq!(cast.grant(i64::MAX, "all").await.faults(), ["/seconds seconds.range"]);
    assert_eq!(cast.grant(0, "none").await.faults(), ["/seconds seconds.range"]);
    let lines = cast.get("/v1/credits/ledger?limit=1").await.json();
    assert_eq!((&lines["data"][0]["delta"], &lines["data"][0]["reason"]), (&json!(-40), &json!("correction")));
    let next = format!("/v1/credits/ledger?limit=1&starting_after={}", lines["next_cursor"].as_str().unwrap());
    let lines = cast.get(&next).await.json();
    assert_eq!((&lines["data"][0]["delta"], &lines["has_more"]), (&json!(100), &json!(false)));
    assert_eq!(cast.world.count("identity.audit_log where action = 'credits.grant' and reason = 'a present'").await, 2);
    sound(&cast.world.db).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn an_order_holds_what_the_film_may_take_or_is_refused_with_402(db: PgPool) {
    let cast = cast(db).await;
    cast.grant(20, "first").await;
    // 38 frames at a quarter of a second each, twice: 19 seconds.
    let ordered = cast.post("/v1/renders", order()).await;
    assert_eq!(ordered.status, StatusCode::ACCEPTED, "{:?}", ordered.body);
    let credits = cast.get("/v1/credits").await.json();
    let numbers = ["balance", "held", "free"].map(|name| credits[name].as_i64().unwrap());
    assert_eq!((numbers, &credits["owner"]), ([20, 19, 1], &json!("person")));
    // A key is nobody's account: where nobody has one, films are free of charge until the tenant says otherwise.
    assert_eq!(cast.world.post("/v1/renders", order()).await.status, StatusCode::ACCEPTED);
    let paid = cast.own(Method::PUT, "/v1/credits/terms", json!({ "films_cost_credits": true })).await;
    assert_eq!(paid.json()["films_cost_credits"], true);
    let refused = cast.post("/v1/renders", order()).await;
    assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::PAYMENT_REQUIRED, "credits.insufficient"));
    assert_eq!(cast.world.count("render.render_jobs").await, 2, "a refused order has started nothing");
    assert_eq!(cast.world.count("workflow.runs").await, 2);
    assert_eq!(cast.world.post("/v1/renders", order()).await.problem(), "credits.insufficient");
    let admin = cast.world.person(DEFAULT_TENANT, "root@example.com", &["platform_admin"]).await;
    let admin = cast.world.session(DEFAULT_TENANT, admin).await;
    let path = format!("/v1/platform/tenants/{DEFAULT_TENANT}/credits");
    let given =
        ask(&cast.world, &admin, Method::POST, &path, Some(json!({"seconds": 30, "reason": "to begin with"}))).await;
    assert_eq!((given.status, given.json()["balance"].as_i64()), (StatusCode::OK, Some(30)), "{:?}", given.body);
    assert_eq!(cast.world.post("/v1/renders", order()).await.status, StatusCode::ACCEPTED, "now the tenant pays");
    sound(&cast.world.db).await;
}

/// Twenty seconds pay for one film, and nobody is given the next one where credits are sold.
#[sqlx::test(migrations = "../migrations")]
async fn who_sells_credits_gives_no_films_away_unless_they_have_said_so(db: PgPool) {
    let cast = cast(db).await;
    let pack = |code: &str| json!({"code": code, "seconds": 3600, "amount": 500, "currency": "USD"});
    cast.grant(20, "first").await;
    let sold = cast.own_post("/v1/credit-packs", pack("hour")).await;
    assert_eq!(sold.status, StatusCode::CREATED, "{:?}", sold.body);
    assert_eq!(cast.get("/v1/credits").await.json()["films_cost_credits"], true);
    assert_eq!(cast.post("/v1/renders", order()).await.status, StatusCode::ACCEPTED);
    assert_eq!(cast.post("/v1/renders", order()).await.problem(), "credits.insufficient");
    cast.own_post("/v1/credit-packs", pack("day")).await;
    assert_eq!(cast.world.count("identity.audit_log where action = 'credits.set_terms'").await, 1);
    cast.own(Method::PUT, "/v1/credits/terms", json!({ "films_cost_credits": false })).await;
    cast.own_post("/v1/credit-packs", pack("week")).await;
    assert_eq!(cast.post("/v1/renders", order()).await.status, StatusCode::ACCEPTED, "what was said holds");
    sound(&cast.world.db).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn who_begins_to_sell_credits_waits_for_the_tenant_before_they_take_their_turn_in_its_audit(db: PgPool) {
    let cast = cast(db).await;
    let plan = cast.own_post("/v1/plans", pro(1900)).await.json()["id"].as_str().unwrap().to_owned();
    let pack = json!({"code": "hour", "seconds": 3600, "amount": 500, "currency": "USD"});
    for (path, body, status) in [
        ("/v1/credit-packs".to_owned(), pack, StatusCode::CREATED),
        (format!("/v1/plans/{plan}/activate"), json!({}), StatusCode::OK),
    ] {
        let unsaid = "update identity.tenants set settings = settings - 'films'";
        sqlx::query(unsaid).execute(&cast.world.db).await.unwrap();
        let tenant = "select from identity.tenants for no key update";
        let sold = beside_another(&cast.world, tenant, cast.own_post(&path, body)).await;
        assert_eq!(sold.status, status, "{:?}", sold.body);
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn a_plan_sells_credits_when_it_has_a_price_and_minutes(db: PgPool) {
    let cast = cast(db).await;
    let (mut gift, mut bare) = (pro(1900), pro(1900));
    (gift["code"], gift["prices"]) = (json!("gift"), json!([]));
    (bare["code"], bare["entitlements"]) = (json!("bare"), json!({"max_resolution": 1080}));
    for (plan, costs) in [(gift, false), (bare, false), (pro(1900), true)] {
        cast.plan(plan).await;
        assert_eq!(cast.get("/v1/credits").await.json()["films_cost_credits"], costs);
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn a_plan_says_how_large_and_how_many_films_may_be_and_how_much_is_kept(db: PgPool) {
    let cast = cast(db).await;
    cast.own(Method::PUT, "/v1/credits/terms", json!({ "films_cost_credits": false })).await;
    let plan = cast.plan(pro(1900)).await;
    buy(&cast.world.db, cast.user, plan, Interval::Month).await.unwrap();
    let credits = cast.get("/v1/credits").await.json();
    assert_eq!(credits["balance"], 600, "ten minutes come with the period");
    let kept = ask(&cast.world, &cast.owner, Method::GET, &format!("/v1/members/{}/storage", cast.user), None).await;
    assert_eq!(kept.json()["limit_bytes"], 5_000_000);
    assert_eq!(cast.post("/v1/renders", order()).await.status, StatusCode::ACCEPTED);
    let second = cast.post("/v1/renders", order()).await;
    assert_eq!((second.status, second.problem().as_str()), (StatusCode::FORBIDDEN, "plan.limit"));
    assert_eq!(cast.world.post("/v1/renders", order()).await.status, StatusCode::ACCEPTED, "a key has no plan");
    // A smaller plan, and a mark on every film.
    let mut small = pro(900);
    small["entitlements"] = json!({"max_resolution": 100, "watermark": 1});
    small["code"] = json!("free");
    cast.plan(small).await;
    let other = cast.world.person(DEFAULT_TENANT, "joe@example.com", &["editor"]).await;
    let joe = cast.world.session(DEFAULT_TENANT, other).await;
    let large = ask(&cast.world, &joe, Method::POST, "/v1/renders", Some(order())).await;
    assert_eq!(large.problem(), "plan.limit", "who bought nothing has the plan called free");
    // When the plan ends, what it allowed goes with it.
    let mut db = cast.world.db.acquire().await.unwrap();
    let had = subscription::find_live(&mut db, DEFAULT_TENANT, cast.user).await.unwrap().unwrap();
    pass(&cast.world, 40 * 86_400).await;
    let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(&cast.world.db).await.unwrap();
    assert!(subscription::end(&mut tx, DEFAULT_TENANT, had.id, 1, "expired").await.unwrap());
    tx.commit().await.unwrap();
    let kept = ask(&cast.world, &cast.owner, Method::GET, &format!("/v1/members/{}/storage", cast.user), None).await;
    assert_eq!(kept.json()["limit_bytes"], Value::Null);
    sound(&cast.world.db).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn m002_plans_gifts_and_people_of_another_tenant_are_not_there(db: PgPool) {
    let cast = cast(db).await;
    let plan = cast.plan(pro(1900)).await;
    let gift = json!({"code": "present", "title": {"en": "A present"}, "kind": "credits", "value": 5, "stock": 5});
    let gift = cast.own_post("/v1/gift-catalogue", gift).await.json()["id"].as_str().unwrap().to_owned();
    let stranger = cast.world.tenant("stranger").await;
    let boss = cast.world.person(stranger, "boss@example.com", &["owner"]).await;
    let boss_in = cast.world.session(stranger, boss).await;
    let by = |method: Method, path: String, body: Value| {
        let (world, boss_in) = (&cast.world, &boss_in);
        async move { ask(world, boss_in, method, &path, Some(body)).await }
    };
    let check = json!({"code": "SPRING", "plan_id": plan, "currency": "USD", "interval": "month"});
    assert_eq!(by(Method::POST, "/v1/coupons/check".into(), check).await.problem(), "plan.not_found");
    let trial = json!({"plan_id": plan, "currency": "USD", "interval": "month"});
    assert_eq!(by(Method::POST, "/v1/subscription/trial".into(), trial).await.problem(), "plan.not_found");
    assert_eq!(by(Method::POST, format!("/v1/plans/{plan}/retire"), json!({})).await.problem(), "plan.not_found");
    let give = |user: Uuid| json!({"user_id": user, "period_key": "a", "reason": "x"});
    let path = format!("/v1/gift-catalogue/{gift}/give");
    assert_eq!(by(Method::POST, path.clone(), give(boss)).await.problem(), "gift.not_found");
    assert_eq!(cast.own_post(&path, give(boss)).await.problem(), "member.not_found");
    let credits = json!({"seconds": 5, "reason": "x"});
    assert_eq!(
        by(Method::POST, format!("/v1/members/{}/credits", cast.user), credits).await.problem(),
        "member.not_found"
    );
    buy(&cast.world.db, cast.user, plan, Interval::Month).await.unwrap();
    let change = json!({"plan_id": plan, "due": 0});
    assert_eq!(by(Method::POST, "/v1/subscription/change".into(), change).await.problem(), "subscription.not_found");
    let seen = by(Method::GET, "/v1/subscriptions".into(), json!({})).await.json();
    assert_eq!(seen["data"], json!([]));
}
