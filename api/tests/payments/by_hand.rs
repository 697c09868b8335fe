//! Bank transfers: one person has seen the money, another one looks, and then it counts.

use crate::shop::Shop;
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

fn said(outcome: &str, transaction: &str, amount: i64) -> Value {
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
    assert_eq!(shop.get(&format!("/v1/invoices/{}", bill["id"].as_str().unwrap())).await.json(), *bill);
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
    assert_eq!(shop.world.count("identity.payments").await + shop.world.count("workflow.runs").await, 0);
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
