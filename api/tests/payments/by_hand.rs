//! Bank transfers: one person has seen the money, another one looks, and then it counts.

use crate::{shop::Shop, turns::beside_another};
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

pub fn said(outcome: &str, transaction: &str, amount: i64) -> Value {
    json!({"outcome": outcome, "transaction": transaction, "amount": amount, "currency": "USD", "evidence": "Statement of today, line 3"})
}

async fn decide(shop: &Shop, by: Uuid, decision: &Value, deed: &str) -> crate::world::Answer {
    let path = format!("/v1/payment-decisions/{}/{deed}", decision["id"].as_str().unwrap());
    shop.by(by, Method::POST, &path, json!({})).await
}

#[sqlx::test(migrations = "../migrations")]
async fn a_transfer_counts_when_a_second_person_has_looked_and_goes_back_the_same_way(db: PgPool) {
    let shop = Shop::open(db).await;
    assert_eq!(shop.pay(shop.credits("manual"), "a").await.problem(), "gateway.not_found");
    let account = json!({"instructions": "To IBAN DE02120300000000202051", "merchant": "DE02120300000000202051"});
    let gateway = shop.gateway("manual", "live", account).await;
    assert!(!gateway.to_string().contains("IBAN"), "{gateway}");
    shop.work();
    let opened = shop.pay(shop.credits("manual"), "a").await;
    assert_eq!(opened.status, StatusCode::CREATED, "{:?}", opened.body);
    let id = opened.json()["id"].as_str().unwrap().to_owned();
    // The same key: the same payment; with something else in it, or of somebody else, it is not.
    let again = shop.pay(shop.credits("manual"), "a").await;
    assert_eq!((again.status, &again.json()["id"]), (StatusCode::OK, &json!(id)));
    assert_eq!(shop.pay(shop.plan("manual"), "a").await.problem(), "idempotency.key_reused");
    let pending = shop.comes(&id, "pending").await;
    assert!(pending["instructions"].as_str().unwrap().contains("IBAN"), "{pending}");
    assert_eq!((&pending["amount"], &pending["redirect_url"]), (&json!(500), &Value::Null));
    // One person says so, with evidence; their own word is not enough, and another amount is none.
    let path = format!("/v1/payments/{id}/decisions");
    let wrong = shop.by(shop.first, Method::POST, &path, said("paid", "t-1", 499)).await;
    assert_eq!(wrong.faults(), ["/amount decision.amount"]);
    assert_eq!(shop.post(&path, said("paid", "t-1", 500)).await.status, StatusCode::FORBIDDEN, "not who pays");
    let proposed = shop.by(shop.first, Method::POST, &path, said("paid", "t-1", 500)).await;
    assert_eq!(proposed.status, StatusCode::CREATED, "{:?}", proposed.body);
    let twice = shop.by(shop.second, Method::POST, &path, said("failed", "t-1", 500)).await;
    assert_eq!(twice.problem(), "payment_decision.open");
    assert_eq!(decide(&shop, shop.first, &proposed.json(), "confirm").await.problem(), "second_person.needed");
    assert_eq!(shop.balance().await, 0);
    let confirmed = decide(&shop, shop.second, &proposed.json(), "confirm").await;
    assert_eq!(confirmed.json()["state"], "confirmed", "{:?}", confirmed.body);
    assert_eq!(decide(&shop, shop.second, &proposed.json(), "confirm").await.problem(), "second_person.needed");
    let paid = shop.comes(&id, "paid").await;
    assert_eq!(
        (shop.balance().await, paid["decisions"].as_array().unwrap().len()),
        (3600, 0),
        "people's words are theirs"
    );
    let bills = shop.get("/v1/invoices").await.json();
    let bill = &bills["data"][0];
    assert_eq!((&bill["number"], &bill["total_amount"]), (&json!(format!("INV-{}-000001", year())), &json!(500)));
    let at = format!("/v1/invoices/{}", bill["id"].as_str().unwrap());
    assert_eq!(shop.get(&at).await.json(), *bill);
    let (paper, again) = (shop.get(&format!("{at}/pdf")).await, shop.get(&format!("{at}/pdf")).await);
    assert_eq!((paper.status, paper.headers["content-type"].to_str().unwrap()), (StatusCode::OK, "application/pdf"));
    assert!(paper.body.starts_with(b"%PDF-") && paper.body == again.body);
    let named = format!("inline; filename=\"{}.pdf\"", bill["number"].as_str().unwrap());
    assert_eq!(paper.headers["content-disposition"].to_str().unwrap(), named);
    assert_eq!(shop.post(&format!("/v1/payments/{id}/cancel"), json!({})).await.problem(), "payment.too_late");
    // The same movement pays for nothing else: the other payment goes where people look again.
    let other = shop.pay(shop.credits("manual"), "b").await.json()["id"].as_str().unwrap().to_owned();
    shop.comes(&other, "pending").await;
    let path = format!("/v1/payments/{other}/decisions");
    let proposed = shop.by(shop.first, Method::POST, &path, said("paid", "t-1", 500)).await.json();
    assert_eq!(decide(&shop, shop.second, &proposed, "confirm").await.problem(), "payment.not_decidable");
    assert_eq!(decide(&shop, shop.first, &proposed, "refuse").await.status, StatusCode::OK);
    let cancelled = shop.post(&format!("/v1/payments/{other}/cancel"), json!({})).await;
    assert_eq!(cancelled.status, StatusCode::ACCEPTED);
    shop.comes(&other, "cancelled").await;

    // Back: asked for, agreed to by another, done by hand, and told by two.
    let path = format!("/v1/payments/{id}/refunds");
    let ask = |amount: i64| json!({"amount": amount, "reason": "the film was late"});
    assert_eq!(shop.by(shop.first, Method::POST, &path, ask(501)).await.problem(), "refund.too_much");
    let refund = shop.by(shop.first, Method::POST, &path, ask(200)).await;
    assert_eq!((refund.status, &refund.json()["state"]), (StatusCode::CREATED, &json!("requested")));
    assert_eq!(shop.by(shop.second, Method::POST, &path, ask(301)).await.problem(), "refund.too_much");
    let refund = format!("/v1/refunds/{}", refund.json()["id"].as_str().unwrap());
    let approve = format!("{refund}/approve");
    assert_eq!(shop.by(shop.first, Method::POST, &approve, json!({})).await.problem(), "second_person.needed");
    assert_eq!(shop.by(shop.second, Method::POST, &approve, json!({})).await.status, StatusCode::OK);
    shop.comes(&id, "refunding").await;
    let mut state = Value::Null;
    for _ in 0..500 {
        state = shop.by(shop.first, Method::GET, &refund, Value::Null).await.json()["state"].clone();
        if state == "manual" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(state, "manual");
    let back = json!({"outcome": "refunded", "transaction": "t-9", "evidence": "Statement, line 9"});
    let proposed = shop.by(shop.second, Method::POST, &format!("{refund}/decisions"), back).await;
    assert_eq!(proposed.status, StatusCode::CREATED, "{:?}", proposed.body);
    assert_eq!(decide(&shop, shop.first, &proposed.json(), "confirm").await.status, StatusCode::OK);
    let after = shop.comes(&id, "partially_refunded").await;
    assert_eq!((&after["refunded_amount"], shop.balance().await), (&json!(200), 3600 - 1440));
    let notes = shop.get("/v1/invoices?limit=1").await.json();
    assert_eq!((&notes["data"][0]["kind"], &notes["data"][0]["total_amount"]), (&json!("credit_note"), &json!(-200)));
    let told = shop.world.count("workflow.runs where kind = 'notify'").await;
    assert!(told >= 2, "who pays is told that it is paid, and of what goes back: {told}");
    shop.sound().await;
}

fn year() -> i32 {
    use chrono::Datelike as _;
    chrono::Utc::now().year()
}

/// M42, M45: prices are the server's, and what makes no sense is refused.
#[sqlx::test(migrations = "../migrations")]
async fn m042_what_is_paid_is_the_servers_price_and_m045_a_key_opens_one_payment(db: PgPool) {
    let shop = Shop::open(db).await;
    let account = json!({"instructions": "To us", "merchant": "us"});
    shop.gateway("manual", "live", account).await;
    let with = |more: Value| {
        let mut body = shop.plan("manual");
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for (more, problem) in [
        (json!({"amount": 1}), "request.invalid"),
        (json!({"currency": "EUR"}), "plan.not_found"),
        (json!({"interval": "year"}), "plan.not_found"),
        (json!({"plan_id": Uuid::now_v7()}), "plan.not_found"),
        (json!({"expected_amount": 1998}), "payment.price_changed"),
        (json!({"expected_amount": -1}), "payment.price_changed"),
        (json!({"coupon": "NONE"}), "coupon.refused"),
        (json!({"credit_pack_id": shop.pack}), "request.invalid"),
        (json!({"provider": "paypal"}), "request.invalid"),
        (json!({"provider": "stripe"}), "gateway.not_found"),
        (json!({"return_url": "https://evil.example/"}), "request.invalid"),
        (json!({"return_url": "https://films.example@evil.example/"}), "request.invalid"),
        (json!({"return_url": "//evil.example"}), "request.invalid"),
        (json!({"return_url": "javascript:alert(1)"}), "request.invalid"),
    ] {
        assert_eq!(shop.pay(with(more.clone()), "a").await.problem(), problem, "{more}");
    }
    assert_eq!(shop.pay(shop.plan("manual"), &"k".repeat(201)).await.problem(), "header.invalid");
    let opened = "workflow.runs where kind = 'payment'";
    assert_eq!(shop.world.count("identity.payments").await + shop.world.count(opened).await, 0);
    // A hundred at once with a key: one payment.
    let body = with(json!({"return_url": "https://films.example/billing?from=here", "expected_amount": 1999}));
    let all = futures::future::join_all((0..100).map(|_| shop.pay(body.clone(), "one"))).await;
    let made = all.iter().filter(|answer| answer.status == StatusCode::CREATED).count();
    let ids: std::collections::BTreeSet<String> =
        all.iter().map(|answer| answer.json()["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!((made, ids.len(), shop.world.count("identity.payments").await), (1, 1, 1));
    // Coming back leads where the payment was opened from, and to nowhere else, whatever the address says.
    let id = ids.first().unwrap();
    let path = format!("/v1/payments/{id}/return?Authority=A0000&Status=OK&return_url=https://evil.example&Status=NOK");
    for _ in 0..3 {
        let back = shop.get(&path).await;
        assert_eq!(back.status, StatusCode::SEE_OTHER);
        assert_eq!(back.header("location"), format!("https://films.example/billing?from=here&payment={id}"));
    }
    assert_eq!(shop.world.count("workflow.steps where kind = 'signal'").await, 1, "however often they come back");
    // It is Jane's: nobody else sees it but who manages the tenant.
    let joe = shop.world.person(flatrender_workflows::models::DEFAULT_TENANT, "joe@example.com", &["viewer"]).await;
    let path = format!("/v1/payments/{id}");
    assert_eq!(shop.by(joe, Method::GET, &path, Value::Null).await.problem(), "payment.not_found");
    assert_eq!(shop.by(joe, Method::GET, "/v1/payments", Value::Null).await.json()["data"], json!([]));
    assert_eq!(shop.by(shop.first, Method::GET, &path, Value::Null).await.json()["state"], "created");
    let stranger = shop.world.tenant("stranger").await;
    let boss = shop.world.person(stranger, "boss@example.com", &["owner"]).await;
    let boss = shop.world.session(stranger, boss).await;
    for deed in ["", "/cancel", "/verify"] {
        let method = if deed.is_empty() { Method::GET } else { Method::POST };
        let request = crate::world::request(method, &format!("{path}{deed}"), &boss);
        let answer = shop.world.send(crate::world::with_json(request, &json!({}))).await;
        assert_eq!(answer.problem(), "payment.not_found", "{deed}");
    }
}

pub async fn pending(shop: &Shop, key: &str) -> String {
    let id = shop.pay(shop.credits("manual"), key).await.json()["id"].as_str().unwrap().to_owned();
    shop.comes(&id, "pending").await;
    id
}

/// One says so and another one confirms it; gives what became of that.
pub async fn agree(shop: &Shop, path: &str, said: Value) -> crate::world::Answer {
    let proposed = shop.by(shop.first, Method::POST, path, said).await;
    assert_eq!(proposed.status, StatusCode::CREATED, "{:?}", proposed.body);
    let confirmed = decide(shop, shop.second, &proposed.json(), "confirm").await;
    if confirmed.status != StatusCode::OK {
        assert_eq!(decide(shop, shop.first, &proposed.json(), "refuse").await.status, StatusCode::OK);
    }
    confirmed
}

pub async fn refunds_of(shop: &Shop, payment: &str) -> Vec<Value> {
    let all = shop.by(shop.first, Method::GET, "/v1/refunds?limit=100", Value::Null).await.json();
    all["data"].as_array().unwrap().iter().filter(|r| r["payment_id"] == *payment).cloned().collect()
}

#[sqlx::test(migrations = "../migrations")]
async fn what_came_instead_goes_back_by_hand_and_what_came_late_still_counts(db: PgPool) {
    let shop = Shop::open(db).await;
    shop.gateway("manual", "live", json!({"instructions": "To us", "merchant": "us"})).await;
    shop.work();
    // More came than was due, or in another currency: that goes back, and no gateway or book says that it was what was due.
    for (key, amount, currency) in [("more", 600, "USD"), ("other", 500, "EUR")] {
        let id = pending(&shop, key).await;
        let path = format!("/v1/payments/{id}/decisions");
        let mut wrong = said("refund", key, amount);
        wrong["currency"] = currency.into();
        let mut silent = wrong.clone();
        for part in ["amount", "currency"] {
            silent.as_object_mut().unwrap().remove(part);
        }
        assert_eq!(shop.by(shop.first, Method::POST, &path, silent).await.faults(), ["/amount decision.shape"]);
        assert_eq!(agree(&shop, &path, wrong).await.status, StatusCode::OK);
        let after = shop.comes(&id, "refunding").await;
        assert_eq!((&after["refunded_amount"], shop.balance().await), (&json!(500), 0), "{after}");
        let refunds = refunds_of(&shop, &id).await;
        let words = refunds[0]["failure_detail"].as_str().unwrap();
        assert_eq!((refunds.len(), &refunds[0]["state"]), (1, &json!("manual")));
        assert!(words.contains(currency) && words.contains("5.00 USD"), "{words}");
        let back =
            json!({"outcome": "refunded", "transaction": format!("{key} back"), "evidence": "Statement, line 9"});
        let path = format!("/v1/refunds/{}/decisions", refunds[0]["id"].as_str().unwrap());
        assert_eq!(agree(&shop, &path, back).await.status, StatusCode::OK);
        shop.comes(&id, "refunded").await;
    }
    // Somebody has settled it while the second person looked: nothing follows from what they said.
    let id = pending(&shop, "both").await;
    let path = format!("/v1/payments/{id}/decisions");
    let proposed = shop.by(shop.first, Method::POST, &path, said("refund", "t-2", 500)).await.json();
    let client = flatrender_engine::Client::new(shop.world.db.clone());
    let scope = flatrender_workflows::models::Scope::tenant(
        flatrender_workflows::models::Role::Identity,
        flatrender_workflows::models::DEFAULT_TENANT,
    );
    let mut tx = scope.begin(&shop.world.db).await.unwrap();
    let captured =
        flatrender_workflows::models::identity::payment::state::Captured { provider_txn: "meanwhile", at: None };
    use flatrender_workflows::definitions::payment::settle::{Goes, settle_as};
    let tenant = flatrender_workflows::models::DEFAULT_TENANT;
    let settled = settle_as(&client, &mut tx, tenant, id.parse().unwrap(), &captured, Goes::Here).await.unwrap();
    assert_eq!(settled, "paid");
    tx.commit().await.unwrap();
    assert_eq!(decide(&shop, shop.second, &proposed, "confirm").await.problem(), "payment.not_decidable");
    assert_eq!(decide(&shop, shop.second, &proposed, "refuse").await.status, StatusCode::OK);
    assert_eq!(refunds_of(&shop, &id).await.len(), 0);
    // Cancelled, and the transfer was on its way: it still buys.
    let late = pending(&shop, "late").await;
    assert_eq!(shop.post(&format!("/v1/payments/{late}/cancel"), json!({})).await.status, StatusCode::ACCEPTED);
    shop.comes(&late, "cancelled").await;
    let path = format!("/v1/payments/{late}/decisions");
    assert_eq!(agree(&shop, &path, said("paid", "t-3", 500)).await.status, StatusCode::OK);
    shop.comes(&late, "paid").await;
    assert_eq!(shop.balance().await, 2 * 3600);
    // One transfer gives back two payments: each names its part of it.
    for (paid, transaction, status) in
        [(&id, "t-9", StatusCode::OK), (&late, "t-9", StatusCode::CONFLICT), (&late, "t-9/2", StatusCode::OK)]
    {
        if status == StatusCode::OK && transaction == "t-9" || status == StatusCode::CONFLICT {
            let ask = json!({"amount": 100, "reason": "the film was late"});
            let path = format!("/v1/payments/{paid}/refunds");
            let asked = shop.by(shop.first, Method::POST, &path, ask).await.json();
            let approve = format!("/v1/refunds/{}/approve", asked["id"].as_str().unwrap());
            assert_eq!(shop.by(shop.second, Method::POST, &approve, json!({})).await.status, StatusCode::OK);
        }
        let mut refund = Value::Null;
        for _ in 0..500 {
            refund = refunds_of(&shop, paid).await[0].clone();
            if refund["state"] == "manual" {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let path = format!("/v1/refunds/{}/decisions", refund["id"].as_str().unwrap());
        let back = json!({"outcome": "refunded", "transaction": transaction, "evidence": "Statement, line 9"});
        assert_eq!(agree(&shop, &path, back).await.status, status, "{transaction}");
    }
    shop.sound().await;
}

/// Whoever looks agrees that no money came, of what was paid, cancelled or over by then.
#[sqlx::test(migrations = "../migrations")]
async fn what_has_ended_meanwhile_does_not_fail_and_nobody_has_said_so(db: PgPool) {
    use flatrender_workflows::{
        definitions::payment::settle::{self, Goes},
        models::{DEFAULT_TENANT, Role, Scope, identity::payment::state::Captured},
    };
    let shop = Shop::open(db).await;
    shop.gateway("manual", "live", json!({"instructions": "To us", "merchant": "us"})).await;
    shop.work();
    let client = flatrender_engine::Client::new(shop.world.db.clone());
    for state in ["paid", "expired", "cancelled"] {
        let id = pending(&shop, state).await;
        let path = format!("/v1/payments/{id}/decisions");
        let proposed = shop.by(shop.first, Method::POST, &path, said("failed", state, 500)).await;
        assert_eq!(proposed.status, StatusCode::CREATED, "{:?}", proposed.body);
        let payment = id.parse().unwrap();
        let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(&shop.world.db).await.unwrap();
        match state {
            "paid" => {
                let came = Captured { provider_txn: "meanwhile", at: None };
                settle::settle_as(&client, &mut tx, DEFAULT_TENANT, payment, &came, Goes::Here).await.unwrap();
            }
            "expired" => settle::expire(&client, &mut tx, DEFAULT_TENANT, payment).await.unwrap(),
            _ => {
                let cancelled = shop.post(&format!("/v1/payments/{id}/cancel"), json!({})).await;
                assert_eq!(cancelled.status, StatusCode::ACCEPTED, "{:?}", cancelled.body);
            }
        }
        tx.commit().await.unwrap();
        shop.comes(&id, state).await;
        let confirmed = decide(&shop, shop.second, &proposed.json(), "confirm").await;
        assert_eq!(confirmed.problem(), "payment.not_decidable", "{state}");
        shop.comes(&id, state).await;
        assert_eq!(decide(&shop, shop.second, &proposed.json(), "refuse").await.status, StatusCode::OK);
        let again = shop.by(shop.first, Method::POST, &path, said("failed", state, 500)).await;
        assert_eq!(again.problem(), "payment.not_decidable", "nor is it proposed of what is {state} already");
    }
    assert_eq!(shop.world.count("identity.payment_decisions where state = 'confirmed'").await, 0);
    shop.sound().await;
}

#[sqlx::test(migrations = "../migrations")]
async fn who_confirms_waits_for_the_payment_before_they_take_their_turn_in_the_audit(db: PgPool) {
    let shop = Shop::open(db).await;
    shop.gateway("manual", "live", json!({"instructions": "To us", "merchant": "us"})).await;
    shop.work();
    for outcome in ["paid", "failed"] {
        let id = pending(&shop, outcome).await;
        let path = format!("/v1/payments/{id}/decisions");
        let proposed = shop.by(shop.first, Method::POST, &path, said(outcome, outcome, 500)).await.json();
        let confirmed = decide(&shop, shop.second, &proposed, "confirm");
        let payment = "select from identity.payments for no key update";
        let confirmed = beside_another(&shop.world, payment, confirmed).await;
        assert_eq!(confirmed.status, StatusCode::OK, "{:?}", confirmed.body);
        shop.comes(&id, outcome).await;
    }
    shop.sound().await;
}

#[sqlx::test(migrations = "../migrations")]
async fn what_one_person_may_give_back_is_counted_together_and_not_theirs_to_say(db: PgPool) {
    let shop = Shop::open(db).await;
    let account = json!({"instructions": "To us", "merchant": "us"});
    let put = async |more: Value| {
        let mut body = json!({"mode": "live", "settings": account});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        shop.by(shop.first, Method::PUT, "/v1/gateways/manual", body).await
    };
    let fault = ["/refund_limit_currency gateway.limit"];
    assert_eq!(put(json!({"refund_limit": 200})).await.faults(), fault);
    assert_eq!(put(json!({"refund_limit": 200, "refund_limit_currency": "usd"})).await.faults(), fault);
    let limited = put(json!({"refund_limit": 200, "refund_limit_currency": "USD"})).await;
    assert_eq!((limited.status, &limited.json()["refund_limit_currency"]), (StatusCode::OK, &json!("USD")));
    shop.work();
    let id = pending(&shop, "a").await;
    let path = format!("/v1/payments/{id}/decisions");
    assert_eq!(agree(&shop, &path, said("paid", "t-1", 500)).await.status, StatusCode::OK);
    shop.comes(&id, "paid").await;
    let ask = async |by: Uuid, amount: i64| {
        let path = format!("/v1/payments/{id}/refunds");
        let asked = shop.by(by, Method::POST, &path, json!({"amount": amount, "reason": "late"})).await;
        assert_eq!(asked.status, StatusCode::CREATED, "{:?}", asked.body);
        asked.json()["state"].as_str().unwrap().to_owned()
    };
    // Whoever said the limit does not use it; for another one it counts with all that goes back.
    assert_eq!(ask(shop.first, 10).await, "requested");
    assert_eq!(ask(shop.second, 150).await, "approved");
    assert_eq!(ask(shop.second, 41).await, "requested", "201 in all");
    shop.sound().await;
}

/// A person has so many payments under way, however many are opened at once; where they come back to is kept as it was read.
#[sqlx::test(migrations = "../migrations")]
async fn payments_under_way_are_counted_and_addresses_are_kept_as_they_were_read(db: PgPool) {
    let shop = Shop::open(db).await;
    shop.gateway("manual", "live", json!({"instructions": "To us", "merchant": "us"})).await;
    let mut read = vec![];
    for url in [" https://films.example/a", "HTTPS://FILMS.example/b", "https://films.example/c\n?d=e f"] {
        let mut body = shop.credits("manual");
        body["return_url"] = url.into();
        let opened = shop.pay(body, &format!("{}", read.len())).await;
        assert_eq!(opened.status, StatusCode::CREATED, "{url:?}: {:?}", opened.body);
        let back = shop.get(&format!("/v1/payments/{}/return", opened.json()["id"].as_str().unwrap())).await;
        assert_eq!(back.status, StatusCode::SEE_OTHER, "{url:?}");
        read.push(back.header("location").split("payment=").next().unwrap().to_owned());
    }
    let expected = ["https://films.example/a?", "https://films.example/b?", "https://films.example/c?d=e%20f&"];
    assert_eq!(read, expected);
    let all = futures::future::join_all(
        (0..64).map(async |n| shop.pay(shop.credits("manual"), &format!("at once {n}")).await),
    );
    let refused = all.await.into_iter().filter(|answer| answer.status == StatusCode::CONFLICT).count();
    assert_eq!((refused, shop.world.count("identity.payments").await), (47, 20));
}

/// A pack costs more by then. Who has opened a payment pays what they were shown until its time is over, and nobody does afterwards.
#[sqlx::test(migrations = "../migrations")]
async fn credits_are_not_sold_at_an_old_price_for_money_that_comes_late(db: PgPool) {
    let shop = Shop::open(db).await;
    shop.gateway("manual", "live", json!({"instructions": "To us", "merchant": "us"})).await;
    shop.work();
    let (open, late) = (pending(&shop, "open").await, pending(&shop, "late").await);
    assert_eq!(shop.post(&format!("/v1/payments/{late}/cancel"), json!({})).await.status, StatusCode::ACCEPTED);
    shop.comes(&late, "cancelled").await;
    let dearer = json!({"code": "hour", "seconds": 3600, "amount": 900, "currency": "USD"});
    let dearer = shop.by(shop.first, Method::POST, "/v1/credit-packs", dearer).await;
    assert_eq!(dearer.status, StatusCode::CREATED, "{:?}", dearer.body);
    for (id, transaction, state) in [(&open, "t-1", "paid"), (&late, "t-2", "refunding")] {
        let path = format!("/v1/payments/{id}/decisions");
        assert_eq!(agree(&shop, &path, said("paid", transaction, 500)).await.status, StatusCode::OK);
        shop.comes(id, state).await;
        assert_eq!(shop.balance().await, 3600);
    }
    shop.sound().await;
}
