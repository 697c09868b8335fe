//! Stripe and ZarinPal over HTTP, which fail as they do: the books of the gateways and ours are equal to the unit in the end.

use crate::{
    fakes::{
        Movement,
        faults::{Call, Fault, How},
        stripe::{self, Pay, StripeFake},
        zarinpal::{self, ZarinpalFake},
    },
    shop::Shop,
    world::Answer,
};
use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use chrono::TimeDelta;
use flatrender_activities::pay::Places;
use flatrender_engine::{Client, Workflow};
use flatrender_workflows::{
    definitions::reconcile::{CompareSettlements, ReconcilePayments, Reconciled},
    models::DEFAULT_TENANT,
};
use futures::future::join_all;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::Duration;
use tempfile::TempDir;

/// Both gateways, and a shop that takes money by them.
pub struct Street {
    pub shop: Shop,
    pub stripe: StripeFake,
    pub zarinpal: ZarinpalFake,
    pub account: String,
    /// Zarinpal's pack: it takes tomans.
    pack: String,
    _folder: TempDir,
}

impl Street {
    pub async fn open(db: PgPool) -> Self {
        let street = Self::quiet(db).await;
        street.shop.work();
        street
    }

    /// Nobody works there yet.
    pub async fn quiet(db: PgPool) -> Self {
        let folder = TempDir::new().unwrap();
        let (stripe, zarinpal) = (StripeFake::start(folder.path()), ZarinpalFake::start(folder.path()));
        let shop = Shop::open(db).await;
        *shop.world.places.lock().unwrap() = Places {
            stripe: stripe.url.clone(),
            zarinpal: zarinpal.url.clone(),
            zarinpal_sandbox: zarinpal.url.clone(),
            zarinpal_lists: zarinpal.lists_url(),
        };
        let settings = json!({"secret_key": stripe::TEST_KEY, "webhook_secrets": [stripe::WEBHOOK_SECRET]});
        let account = shop.gateway("stripe", "test", settings).await["id"].as_str().unwrap().to_owned();
        let settings = json!({"merchant_id": zarinpal::MERCHANT, "access_token": zarinpal::TOKEN, "terminal_id": zarinpal::TERMINAL});
        shop.gateway("zarinpal", "live", settings).await;
        let pack = json!({"code": "hour", "seconds": 3600, "amount": 250_000, "currency": "IRT"});
        let pack = shop.by(shop.first, Method::POST, "/v1/credit-packs", pack).await.json();
        let pack = pack["id"].as_str().unwrap().to_owned();
        Self { shop, stripe, zarinpal, account, pack, _folder: folder }
    }

    /// A payment that somebody has decided to make.
    pub async fn opened(&self, provider: &str) -> String {
        let pack = if provider == "stripe" { &self.shop.pack } else { &self.pack };
        let key = uuid::Uuid::new_v4().to_string();
        let opened = self.shop.pay(json!({"provider": provider, "credit_pack_id": pack}), &key).await;
        assert_eq!(opened.status, StatusCode::CREATED, "{:?}", opened.body);
        opened.json()["id"].as_str().unwrap().to_owned()
    }

    /// One that waits for its payer; what the gateway calls it.
    pub async fn pending(&self, provider: &str) -> (String, String) {
        let id = self.opened(provider).await;
        let pending = self.shop.comes(&id, "pending").await;
        assert!(pending["redirect_url"].is_string(), "{pending}");
        let sql = "select provider_ref from identity.payments where id = $1::uuid";
        let name = sqlx::query_scalar(sql).bind(&id).fetch_one(&self.shop.world.db).await.unwrap();
        (id, name)
    }

    /// The payer comes back.
    pub async fn back(&self, id: &str) {
        let answer = self.shop.get(&format!("/v1/payments/{id}/return?Authority=A&Status=OK")).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER);
    }

    pub async fn hear(&self, account: &str, body: &[u8], signature: &str) -> Answer {
        let request = Request::builder().method(Method::POST).uri(format!("/v1/gateways/stripe/webhook/{account}"));
        let request = request.header("stripe-signature", signature).body(Body::from(body.to_vec())).unwrap();
        self.shop.world.send(request).await
    }

    pub async fn pass(&self, minutes: i64) {
        crate::jane::pass(&self.shop.world, (minutes * 60) as i32).await;
        self.stripe.advance(TimeDelta::minutes(minutes));
        self.zarinpal.advance(TimeDelta::minutes(minutes));
    }

    pub async fn run<W: Workflow>(&self, workflow: W) -> W::Output
    where
        W::Output: DeserializeOwned,
    {
        let client = Client::new(self.shop.world.db.clone());
        let mut tx = self.shop.world.db.begin().await.unwrap();
        let run = client.start(&mut tx, DEFAULT_TENANT, None, workflow).await.unwrap().run_id;
        tx.commit().await.unwrap();
        client.announce();
        let run = client.finished(run, Duration::from_secs(60)).await.unwrap().expect("it ends");
        run.output_as().unwrap_or_else(|| panic!("{:?}", run.error))
    }

    /// What we say came, by what the gateway calls the movement.
    pub async fn came(&self, provider: &str) -> Vec<(String, i64)> {
        let sql =
            "select provider_txn, amount from identity.payments where provider = $1 and paid_at is not null order by 1";
        sqlx::query_as(sql).bind(provider).fetch_all(&self.shop.world.db).await.unwrap()
    }

    async fn went(&self) -> i64 {
        let sql = "select coalesce(sum(r.amount), 0)::bigint from identity.refunds r where state = 'done'";
        sqlx::query_scalar(sql).fetch_one(&self.shop.world.db).await.unwrap()
    }
}

/// What came or went by a gateway, in our unit, by what it calls the movement.
pub fn ids(movements: &[Movement], unit: i64) -> Vec<(String, i64)> {
    let mut all: Vec<_> = movements.iter().map(|m| (m.id.clone(), m.amount / unit)).collect();
    all.sort();
    all
}

/// Whoever mistypes a key hears of it before a payer does.
#[sqlx::test(migrations = "../migrations")]
async fn who_says_what_an_account_opens_with_hears_whether_it_does(db: PgPool) {
    let street = Street::open(db).await;
    let asked = async || {
        for _ in 0..1000 {
            let list = street.shop.by(street.shop.first, Method::GET, "/v1/gateways", json!({})).await.json();
            let list = list["data"].as_array().unwrap().clone();
            if list.iter().all(|g| g["checked_at"].is_string()) {
                return list;
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        panic!("nobody asked");
    };
    for gateway in asked().await {
        assert!(gateway["check_error"].is_null() && gateway["merchant"].is_string(), "{gateway}");
    }
    let mistyped = json!({"secret_key": "sk_test_mistyped", "webhook_secrets": [stripe::WEBHOOK_SECRET]});
    street.shop.gateway("stripe", "test", mistyped).await;
    let list = asked().await;
    let stripe = list.iter().find(|g| g["provider"] == "stripe").unwrap();
    assert_eq!((&stripe["check_error"], &stripe["merchant"]), (&json!("pay.merchant_config"), &Value::Null));
    let mended = json!({ "secret_key": stripe::TEST_KEY });
    let rotated = street.shop.by(street.shop.first, Method::POST, "/v1/gateways/stripe/rotate", mended).await;
    assert_eq!(rotated.status, StatusCode::OK, "{:?}", rotated.body);
    assert!(asked().await.iter().all(|g| g["check_error"].is_null()));
}

/// P19: whatever goes wrong, each payment credits once, and nothing is stuck after a quarter of an hour.
#[sqlx::test(migrations = "../migrations")]
async fn p19_the_books_of_gateways_and_ours_are_equal_whatever_fails(db: PgPool) {
    let street = Street::open(db).await;
    let (stripe, zarinpal, shop) = (&street.stripe, &street.zarinpal, &street.shop);
    let mut settled = vec![];
    // Opening fails, before and after the gateway has done it; so does asking, and the payer comes back once.
    for (call, fault) in [
        (Call::Create, Fault::Before(How::Status(500))),
        (Call::Create, Fault::After(How::Cut)),
        (Call::Read, Fault::Before(How::Status(503))),
        (Call::Read, Fault::After(How::Malformed)),
        (Call::Read, Fault::After(How::Html)),
    ] {
        stripe.fail(call, fault);
        let (id, name) = street.pending("stripe").await;
        stripe.pay(&name);
        street.back(&id).await;
        settled.push(id);
    }
    for (call, fault) in [
        (Call::Create, Fault::After(How::Cut)),
        (Call::Verify, Fault::Before(How::Status(500))),
        // It was verified, and nobody heard of it: the second time it says 101.
        (Call::Verify, Fault::After(How::Cut)),
        (Call::Verify, Fault::After(How::Malformed)),
    ] {
        zarinpal.fail(call, fault);
        let (id, name) = street.pending("zarinpal").await;
        zarinpal.pay(&name);
        street.back(&id).await;
        settled.push(id);
    }
    // Nobody comes back, ever; the payer is told by nobody.
    let (never, name) = street.pending("stripe").await;
    stripe.pay(&name);
    let (never_too, name) = street.pending("zarinpal").await;
    zarinpal.pay(&name);
    // What was paid is not what was meant: nothing of ours moves.
    let mut wrong = vec![];
    for pay in [
        Pay { amount: Some(499), ..Pay::default() },
        Pay { currency: Some("eur"), ..Pay::default() },
        Pay { payment: Some(uuid::Uuid::new_v4().to_string()), ..Pay::default() },
    ] {
        let (id, name) = street.pending("stripe").await;
        stripe.pay_with(&name, pay);
        street.back(&id).await;
        wrong.push(id);
    }
    // Only said to be paid: verification decides (M41).
    let (unpaid, _) = street.pending("zarinpal").await;
    street.back(&unpaid).await;
    let (declined, name) = street.pending("zarinpal").await;
    zarinpal.decline(&name);
    street.back(&declined).await;
    for id in &settled {
        shop.comes(id, "paid").await;
    }
    for id in &wrong {
        let now = shop.comes(id, "review").await;
        assert_eq!(now["review_code"], "payment.mismatch", "{now}");
    }
    street.pass(15).await;
    street.run(ReconcilePayments {}).await;
    for id in [&never, &never_too] {
        shop.comes(id, "paid").await;
    }
    settled.extend([never, never_too]);
    assert_eq!(shop.balance().await, 3600 * settled.len() as i64);
    let state = |id: String| async move { shop.get(&format!("/v1/payments/{id}")).await.json()["state"].clone() };
    assert!(matches!(state(unpaid).await.as_str(), Some("pending" | "verifying")));
    assert!(matches!(state(declined).await.as_str(), Some("failed" | "cancelled")));

    // Back, although nobody heard that it went: once.
    stripe.fail(Call::Refund, Fault::After(How::Cut));
    let path = format!("/v1/payments/{}/refunds", settled[0]);
    let asked = shop.by(shop.first, Method::POST, &path, json!({"amount": 200, "reason": "late"})).await.json();
    let approve = format!("/v1/refunds/{}/approve", asked["id"].as_str().unwrap());
    assert_eq!(shop.by(shop.second, Method::POST, &approve, json!({})).await.status, StatusCode::OK);
    shop.comes(&settled[0], "partially_refunded").await;
    assert_eq!((street.went().await, stripe.refunds().len(), stripe.refunds()[0].amount), (200, 1, 200));

    // To the unit: what was wrong is theirs alone, and named.
    let theirs: Vec<_> = stripe.captures().into_iter().filter(|m| !is_wrong(m, &wrong)).collect();
    let mut ours = street.came("stripe").await;
    ours.sort();
    assert_eq!(
        ours,
        ids(&theirs, 1).into_iter().filter(|(id, _)| ours.iter().any(|(o, _)| o == id)).collect::<Vec<_>>()
    );
    assert_eq!(ours.len() + wrong.len(), stripe.captures().len(), "each is either ours or in review");
    let mut ours = street.came("zarinpal").await;
    ours.sort();
    assert_eq!(ours.iter().map(|(_, amount)| amount).sum::<i64>(), 250_000 * ours.len() as i64);
    assert_eq!(ours.len(), zarinpal.captures().len());
    shop.sound().await;
    // A second look finds nothing that was missed, and an hour later operators hear of what waits for people.
    street.pass(61).await;
    let looked: Reconciled = street.run(ReconcilePayments {}).await;
    assert_eq!((looked.unmatched, looked.waiting), (0, wrong.len()));
    let again: Reconciled = street.run(ReconcilePayments {}).await;
    assert_eq!(again.waiting, 0, "once");
    let _: usize = street.run(CompareSettlements { day: Some(chrono::Utc::now().date_naive()), after: None }).await;
    let sums = "select count(*) from identity.provider_reconciliations where provider = 'stripe' and state = 'open' and note like '%not ours%'";
    let named: i64 = sqlx::query_scalar(sums).fetch_one(&shop.world.db).await.unwrap();
    assert!(named >= 1, "what is in review is a difference with a name");
}

fn is_wrong(movement: &Movement, wrong: &[String]) -> bool {
    movement.payment_id.is_some_and(|id| wrong.contains(&id.to_string()))
}

/// M40: an event counts once, and whoever did not sign it is not heard.
#[sqlx::test(migrations = "../migrations")]
async fn m040_a_webhook_counts_once_and_a_forged_one_not_at_all(db: PgPool) {
    let street = Street::open(db).await;
    let (id, name) = street.pending("stripe").await;
    street.stripe.pay(&name);
    let event = street.stripe.events().into_iter().map(|(event, _)| event).next_back().unwrap();
    let webhook = street.stripe.webhook(&event);
    let hear = async |body: &[u8], signature: &str| street.hear(&street.account, body, signature).await;
    // Not signed, signed by somebody else, changed since, written anew, too old, for another account.
    let anew: Value = serde_json::from_slice(&webhook.body).unwrap();
    let anew = serde_json::to_vec(&anew).unwrap();
    assert_ne!(anew, webhook.body, "it is sent with spaces");
    let old = flatrender_activities::pay::sign_stripe_webhook(
        stripe::WEBHOOK_SECRET,
        chrono::Utc::now() - TimeDelta::minutes(6),
        &webhook.body,
    );
    let other = flatrender_activities::pay::sign_stripe_webhook("whsec_other", chrono::Utc::now(), &webhook.body);
    for (body, signature) in [
        (webhook.body.as_slice(), ""),
        (webhook.body.as_slice(), other.as_str()),
        (anew.as_slice(), webhook.signature.as_str()),
        (webhook.body.as_slice(), old.as_str()),
    ] {
        let refused = hear(body, signature).await;
        assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::UNAUTHORIZED, "gateway.signature"));
    }
    let nobody = street.hear(&uuid::Uuid::now_v7().to_string(), &webhook.body, &webhook.signature).await;
    assert_eq!(nobody.problem(), "gateway.not_found");
    assert_eq!(hear(&vec![b' '; (256 << 10) + 1], &webhook.signature).await.problem(), "body.too_large");
    assert_eq!(street.shop.world.count("identity.payment_events").await, 0);
    // A thousand times at once.
    let begun = std::time::Instant::now();
    let all = join_all((0..1000).map(|_| hear(&webhook.body, &webhook.signature))).await;
    assert!(all.iter().all(|answer| answer.status == StatusCode::OK), "{:?}", begun.elapsed());
    street.shop.comes(&id, "paid").await;
    assert_eq!(street.shop.world.count("identity.payment_events").await, 1);
    assert_eq!((street.shop.balance().await, street.shop.world.count("identity.invoices").await), (3600, 1));
    // What is not known is kept and does nothing; so does what comes again, in whatever order.
    let unknown = json!({"id": "evt_unknown", "object": "event", "type": "invoice.created", "livemode": false, "created": chrono::Utc::now().timestamp(),
        "data": {"object": {"id": "in_1", "object": "invoice"}}})
    .to_string();
    let signed =
        flatrender_activities::pay::sign_stripe_webhook(stripe::WEBHOOK_SECRET, chrono::Utc::now(), unknown.as_bytes());
    assert_eq!(hear(unknown.as_bytes(), &signed).await.status, StatusCode::OK);
    for (event, _) in street.stripe.events().into_iter().rev() {
        let webhook = street.stripe.webhook(&event);
        assert_eq!(hear(&webhook.body, &webhook.signature).await.status, StatusCode::OK);
    }
    let ignored =
        street.shop.world.count("identity.payment_events where event_id = 'evt_unknown' and outcome = 'ignored'").await;
    assert_eq!((ignored, street.shop.balance().await), (1, 3600));
    // A secret that was changed: both count until the next change.
    for secret in ["whsec_second", "whsec_third"] {
        let rotated = street.shop.by(
            street.shop.first,
            Method::POST,
            "/v1/gateways/stripe/rotate",
            json!({"webhook_secret": secret}),
        );
        let rotated = rotated.await;
        assert_eq!(rotated.status, StatusCode::OK, "{:?}", rotated.body);
        assert!(!format!("{:?}", rotated.body).contains("whsec"));
        let expected = if secret == "whsec_second" { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
        assert_eq!(hear(&webhook.body, &webhook.signature).await.status, expected, "{secret}");
    }
    street.shop.sound().await;
}
