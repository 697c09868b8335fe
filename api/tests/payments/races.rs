//! Sixty-four at once over HTTP for the last one of something: all of them have sent their request but for its last byte, and the last
//! bytes go out together. The same against the database alone, without what slows a server down, is in `credits/races.rs`.

use crate::{by_hand::said, shop::Shop, world::order};
use axum::http::{Method, StatusCode};
use flatrender_engine::Client;
use flatrender_workflows::{
    definitions::payment::settle::{Goes, settle_as},
    models::{
        DEFAULT_TENANT, Role, Scope,
        identity::payment::state::{self, Captured},
    },
};
use futures::future::join_all;
use serde_json::{Value, json};
use sqlx::{PgPool, postgres::PgPoolOptions};
use std::{
    net::SocketAddr,
    ops::Range,
    sync::{Arc, LazyLock},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Barrier,
};
use uuid::Uuid;

const CLIENTS: usize = 64;
/// Two, or what `FLATRENDER_ROUNDS` says: `scripts/chaos.sh races` has a thousand.
static ROUNDS: LazyLock<usize> =
    LazyLock::new(|| std::env::var("FLATRENDER_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2));

/// What came back: a status, and what it says.
type Told = (u16, Value);

/// A shop that is served on a port of this machine, with a connection to the database for each client.
struct Fair {
    shop: Shop,
    address: SocketAddr,
}

impl Fair {
    async fn open(db: PgPool) -> Self {
        let options = (*db.connect_options()).clone();
        let pool = PgPoolOptions::new().max_connections(CLIENTS as u32).connect_with(options).await.unwrap();
        let shop = Shop::open(pool).await;
        shop.gateway("manual", "live", json!({"instructions": "To us", "merchant": "us"})).await;
        // As often as they like: it is another limit that they are to meet.
        let often = "insert into identity.tenant_limits (tenant_id, name, hard, window_seconds)
                     values ($1, 'requests', 1000000, 1), ($1, 'caller_requests', 1000000, 1)";
        sqlx::query(often).bind(DEFAULT_TENANT).execute(&shop.world.db).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = shop.world.router.clone().into_make_service_with_connect_info::<SocketAddr>();
        let stopping = shop.world.stopping.clone();
        tokio::spawn(async move {
            axum::serve(listener, service).with_graceful_shutdown(stopping.cancelled_owned()).await.unwrap();
        });
        Self { shop, address }
    }

    /// People who are signed in for long.
    async fn people(&self, numbers: Range<usize>) -> Vec<(Uuid, String)> {
        let mut people = vec![];
        for n in numbers {
            let id = self.shop.world.person(DEFAULT_TENANT, &format!("p{n}@example.com"), &["editor"]).await;
            people.push((id, self.shop.world.session(DEFAULT_TENANT, id).await));
        }
        let long = "update identity.user_sessions set access_expires_at = '2100-01-01Z', idle_expires_at = '2100-01-01Z', absolute_expires_at = '2100-01-01Z'";
        sqlx::query(long).execute(&self.shop.world.db).await.unwrap();
        people
    }

    /// What an owner makes; gives its id.
    async fn made(&self, path: &str, body: Value) -> String {
        let made = self.shop.by(self.shop.first, Method::POST, path, body).await;
        assert_eq!(made.status, StatusCode::CREATED, "{path}: {:?}", made.body);
        made.json()["id"].as_str().unwrap().to_owned()
    }

    /// A payment of Jane's that is paid.
    async fn paid(&self, transaction: &str) -> Uuid {
        let opened = self.shop.pay(self.shop.credits("manual"), transaction).await;
        assert_eq!(opened.status, StatusCode::CREATED, "{:?}", opened.body);
        let id: Uuid = opened.json()["id"].as_str().unwrap().parse().unwrap();
        let client = Client::new(self.shop.world.db.clone());
        let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(&self.shop.world.db).await.unwrap();
        let captured = Captured { provider_txn: transaction, at: None };
        let state = settle_as(&client, &mut tx, DEFAULT_TENANT, id, &captured, Goes::Here).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(state, "paid");
        id
    }

    /// All of them, at once; gives what came back in their order.
    async fn at_once(&self, requests: impl IntoIterator<Item = String>) -> Vec<Told> {
        let requests: Vec<String> = requests.into_iter().collect();
        let (address, together) = (self.address, Arc::new(Barrier::new(requests.len())));
        let clients = requests.into_iter().map(|request| {
            let together = together.clone();
            async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let (last, rest) = request.as_bytes().split_last().unwrap();
                stream.write_all(rest).await.unwrap();
                together.wait().await;
                stream.write_all(&[*last]).await.unwrap();
                let mut answer = vec![];
                stream.read_to_end(&mut answer).await.unwrap();
                read(&answer)
            }
        });
        join_all(clients).await
    }

    async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.shop.world.db).await.unwrap()
    }
}

/// A request as it goes over the wire. One without a body ends with its head, so that nobody begins with it before it is whole.
fn post(path: &str, access: &str, body: Option<&Value>) -> String {
    let body = body.map(ToString::to_string).unwrap_or_default();
    format!(
        "POST {path} HTTP/1.1\r\nhost: films.example\r\nauthorization: Bearer {access}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn read(answer: &[u8]) -> Told {
    let text = std::str::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_default())
}

/// Those of the answers that are so; all others are this problem.
#[track_caller]
fn won<'a>(answers: &'a [Told], status: u16, problem: &str) -> Vec<&'a Value> {
    let (won, lost): (Vec<&Told>, Vec<&Told>) = answers.iter().partition(|(got, _)| *got == status);
    assert!(lost.iter().all(|(_, told)| told["code"] == problem), "{lost:?}");
    won.into_iter().map(|(_, told)| told).collect()
}

fn id(told: &Value) -> &str {
    told["id"].as_str().unwrap()
}

/// One use is left of each coupon, and sixty-four people open a payment with it.
#[sqlx::test(migrations = "../migrations")]
async fn m043_over_http_the_last_use_of_a_coupon_is_one_payments(db: PgPool) {
    let fair = Fair::open(db).await;
    let people = fair.people(0..CLIENTS).await;
    for round in 0..*ROUNDS {
        let code = format!("LAST-{round}");
        let coupon = json!({"code": code, "kind": "percent", "value": 10, "max_redemptions": 1, "valid_to": "2099-01-01T00:00:00Z"});
        fair.made("/v1/coupons", coupon).await;
        let mut wanted = fair.shop.credits("manual");
        wanted["coupon"] = json!(code);
        let answers = fair.at_once(people.iter().map(|(_, access)| post("/v1/payments", access, Some(&wanted)))).await;
        let opened = won(&answers, 201, "coupon.refused");
        assert_eq!((opened.len(), &opened[0]["amount"]), (1, &json!(450)));
        assert_eq!(fair.number("select count(*) from identity.coupon_redemptions").await, 1);
        // Nobody has too many under way for the rounds that follow.
        let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(&fair.shop.world.db).await.unwrap();
        assert!(state::end(&mut tx, id(opened[0]).parse().unwrap(), "cancelled", None).await.unwrap());
        tx.commit().await.unwrap();
    }
    fair.shop.sound().await;
}

/// One is left of a gift that sixty-four people have earned; and one person claims another one sixty-four times.
#[sqlx::test(migrations = "../migrations")]
async fn m043_over_http_the_last_gift_is_one_persons_and_claimed_once(db: PgPool) {
    let fair = Fair::open(db).await;
    let people = fair.people(0..CLIENTS).await;
    let all: Vec<Uuid> = people.iter().map(|(user, _)| *user).collect();
    let earned = async |code: String, stock: usize, users: &[Uuid]| -> Vec<Uuid> {
        let gift = json!({"code": code, "title": {"en": "A present"}, "kind": "credits", "value": 3, "stock": stock});
        let gift: Uuid = fair.made("/v1/gift-catalogue", gift).await.parse().unwrap();
        let sql = "insert into identity.earned_gifts (tenant_id, user_id, gift_id, period_key, reason, earned_at)
                   select $1, who, $2, 'a', 'a race', workflow.now() from unnest($3::uuid[]) with ordinality t (who, n) order by n returning id";
        let query = sqlx::query_scalar(sql).bind(DEFAULT_TENANT).bind(gift).bind(users);
        query.fetch_all(&fair.shop.world.db).await.unwrap()
    };
    for round in 0..*ROUNDS {
        let gifts = earned(format!("last_{round}"), 1, &all).await;
        let claims =
            gifts.iter().zip(&people).map(|(gift, (_, by))| post(&format!("/v1/gifts/{gift}/claim"), by, None));
        let answers = fair.at_once(claims).await;
        assert_eq!(won(&answers, 204, "gift.sold_out").len(), 1);
        let gift = earned(format!("own_{round}"), CLIENTS, &all[..1]).await[0];
        let claim = post(&format!("/v1/gifts/{gift}/claim"), &people[0].1, None);
        let answers = fair.at_once(vec![claim; CLIENTS]).await;
        assert_eq!(won(&answers, 204, "gift.claimed").len(), 1);
    }
    let given = fair.number("select sum(balance)::bigint from identity.credit_accounts").await;
    assert_eq!(given, 2 * 3 * *ROUNDS as i64);
    fair.shop.sound().await;
}

/// There are credits for one film more, and sixty-four are ordered.
#[sqlx::test(migrations = "../migrations")]
async fn m043_over_http_no_more_films_are_ordered_than_credits_pay_for(db: PgPool) {
    let fair = Fair::open(db).await;
    let (user, access) = fair.people(0..1).await.remove(0);
    let terms = json!({ "films_cost_credits": true });
    let terms = fair.shop.by(fair.shop.first, Method::PUT, "/v1/credits/terms", terms).await;
    assert_eq!(terms.status, StatusCode::OK, "{:?}", terms.body);
    let film = order();
    for _ in 0..*ROUNDS {
        // 38 frames at a quarter of a second each, twice.
        let one = json!({"seconds": 19, "reason": "for a film"});
        let given = fair.shop.by(fair.shop.first, Method::POST, &format!("/v1/members/{user}/credits"), one).await;
        assert_eq!(given.status, StatusCode::OK, "{:?}", given.body);
        let answers = fair.at_once((0..CLIENTS).map(|_| post("/v1/renders", &access, Some(&film)))).await;
        assert_eq!(won(&answers, 202, "credits.insufficient").len(), 1);
    }
    let spent = "select count(*) from identity.credit_accounts where balance = held and held = 19 * (select count(*) from render.render_jobs)";
    assert_eq!(fair.number(spent).await, 1);
    assert_eq!(fair.number("select count(*) from render.render_jobs").await, *ROUNDS as i64);
    fair.shop.sound().await;
}

/// Two fifths of what was paid are asked back sixty-four times: two may have it.
#[sqlx::test(migrations = "../migrations")]
async fn m043_over_http_no_more_goes_back_than_was_paid(db: PgPool) {
    let fair = Fair::open(db).await;
    let part = json!({"amount": 200, "reason": "a race"});
    for round in 0..*ROUNDS {
        let payment = fair.paid(&format!("t-{round}")).await;
        let owner = fair.shop.world.session(DEFAULT_TENANT, fair.shop.first).await;
        let path = format!("/v1/payments/{payment}/refunds");
        let answers = fair.at_once((0..CLIENTS).map(|_| post(&path, &owner, Some(&part)))).await;
        assert_eq!(won(&answers, 201, "refund.too_much").len(), 2);
    }
    let right = "select count(*) from identity.payments p where refunded_amount = 400
                 and 400 = (select sum(amount) from identity.refunds r where r.payment_id = p.id)";
    assert_eq!(fair.number(right).await, *ROUNDS as i64);
    fair.shop.sound().await;
}

/// Sixteen transfers have come, and four say so of each: sixteen bills at once, one after the other.
#[sqlx::test(migrations = "../migrations")]
async fn m043_over_http_bills_have_one_number_each_and_none_is_left_out(db: PgPool) {
    const PAYERS: usize = 16;
    let fair = Fair::open(db).await;
    let people = fair.people(0..PAYERS).await;
    let wanted = fair.shop.credits("manual");
    for round in 0..*ROUNDS {
        let opened = fair.at_once(people.iter().map(|(_, access)| post("/v1/payments", access, Some(&wanted)))).await;
        assert_eq!(won(&opened, 201, "").len(), PAYERS);
        let first = fair.shop.world.session(DEFAULT_TENANT, fair.shop.first).await;
        let came = opened.iter().enumerate().map(|(n, (_, payment))| {
            let said = said("paid", &format!("t-{round}-{n}"), 500);
            post(&format!("/v1/payments/{}/decisions", id(payment)), &first, Some(&said))
        });
        let proposed = fair.at_once(came).await;
        assert_eq!(won(&proposed, 201, "").len(), PAYERS);
        let second = fair.shop.world.session(DEFAULT_TENANT, fair.shop.second).await;
        let confirm = |n: usize| {
            let decision = id(&proposed[n % PAYERS].1);
            post(&format!("/v1/payment-decisions/{decision}/confirm"), &second, None)
        };
        let answers = fair.at_once((0..CLIENTS).map(confirm)).await;
        assert_eq!(won(&answers, 200, "second_person.needed").len(), PAYERS);
    }
    let bills = "select count(*) from identity.invoices where state = 'issued' and payment_id is not null";
    assert_eq!(fair.number(bills).await, (PAYERS * *ROUNDS) as i64);
    let broken = "select count(*) from (select from identity.invoices where state = 'issued' group by series, year
                  having min(number) <> 1 or max(number) <> count(*) or count(distinct number) <> count(*)) broken";
    assert_eq!(fair.number(broken).await, 0);
    let paid = "select count(*) from identity.payments p where state = 'paid'
                and 1 = (select count(*) from identity.invoices i where i.payment_id = p.id)";
    assert_eq!(fair.number(paid).await, (PAYERS * *ROUNDS) as i64);
    fair.shop.sound().await;
}

/// Somebody begins a trial in sixty-four windows: one begins.
#[sqlx::test(migrations = "../migrations")]
async fn m043_over_http_a_person_has_one_plan(db: PgPool) {
    let fair = Fair::open(db).await;
    let plan = json!({"code": "trial", "name": {"en": "Trial"}, "trial_days": 14, "entitlements": {"render_minutes": 10},
        "prices": [{"currency": "USD", "interval": "month", "amount": 1999}]});
    let plan = fair.made("/v1/plans", plan).await;
    let sold = fair.shop.by(fair.shop.first, Method::POST, &format!("/v1/plans/{plan}/activate"), json!({})).await;
    assert_eq!(sold.status, StatusCode::OK, "{:?}", sold.body);
    let wanted = json!({"plan_id": plan, "currency": "USD", "interval": "month"});
    for round in 0..*ROUNDS {
        let (_, access) = fair.people(round..round + 1).await.remove(0);
        let begin = (0..CLIENTS).map(|_| post("/v1/subscription/trial", &access, Some(&wanted)));
        assert_eq!(won(&fair.at_once(begin).await, 201, "subscription.no_trial").len(), 1);
    }
    assert_eq!(fair.number("select count(*) from identity.subscription_periods").await, *ROUNDS as i64);
    let given = fair.number("select count(*) from identity.credit_accounts where balance = 600").await;
    assert_eq!(given, *ROUNDS as i64);
    fair.shop.sound().await;
}
