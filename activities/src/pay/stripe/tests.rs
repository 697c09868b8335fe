use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

const PAYMENT: &str = "00000000-0000-0000-0000-000000000007";

fn due() -> Due {
    Due { payment_id: Uuid::from_u128(7), amount: 1999, currency: "USD".into() }
}

/// A session that was paid, as Stripe tells of it.
fn paid() -> Value {
    json!({
        "id": "cs_test_1", "object": "checkout.session", "status": "complete", "payment_status": "paid", "url": null,
        "amount_total": 1999, "currency": "usd", "client_reference_id": PAYMENT, "livemode": false,
        "expires_at": 1_700_000_000, "metadata": {"flatrender_payment": PAYMENT},
        "payment_intent": {
            "id": "pi_1", "status": "succeeded", "amount": 1999, "amount_received": 1999, "currency": "usd",
            "on_behalf_of": null, "transfer_data": null, "metadata": {"flatrender_payment": PAYMENT},
            "latest_charge": {
                "id": "ch_1", "created": 1_700_000_000, "amount": 1999, "refunded": false, "status": "succeeded",
                "payment_method_details": {"card": {"brand": "visa", "last4": "4242"}},
            },
        },
    })
}

fn look(session: &Value) -> Option<Seen> {
    let session: Session = serde_json::from_value(session.clone()).ok()?;
    Some(seen(session, &due(), Some("acct_1".into()), Mode::Test))
}

fn with(path: &str, value: Value) -> Value {
    let mut session = paid();
    *session.pointer_mut(path).expect("a place") = value;
    session
}

#[test]
fn a_payment_that_is_right_settles() {
    let seen = look(&paid()).expect("a session");
    assert!(seen.settles(&due()), "{seen:?}");
    assert_eq!((seen.card.as_deref(), seen.merchant.as_deref()), (Some("visa •••• 4242"), Some("acct_1")));
    assert_eq!(seen.paid_at, time(1_700_000_000));
}

#[test]
fn each_difference_is_named_and_settles_nothing() {
    for (path, value, difference) in [
        ("/payment_intent/amount_received", json!(1998), Difference::Amount),
        ("/payment_intent/amount_received", json!(null), Difference::Amount),
        ("/payment_intent/currency", json!("eur"), Difference::Currency),
        ("/payment_intent/on_behalf_of", json!("acct_2"), Difference::Merchant),
        ("/payment_intent/transfer_data", json!({"destination": "acct_2"}), Difference::Merchant),
        ("/client_reference_id", json!("00000000-0000-0000-0000-000000000008"), Difference::Payment),
        ("/client_reference_id", json!(null), Difference::Payment),
        ("/metadata", json!(null), Difference::Payment),
        ("/payment_intent/metadata", json!({"flatrender_payment": Uuid::nil()}), Difference::Payment),
        ("/livemode", json!(true), Difference::Mode),
    ] {
        let seen = look(&with(path, value.clone())).expect("a session");
        assert!(seen.differences.contains(&difference), "{path} {value}: {seen:?}");
        assert!(!seen.settles(&due()) && seen.needs_review(&due()), "{path} {value}");
    }
    // Its money was not fetched: it cannot be compared.
    let seen = look(&with("/payment_intent", json!("pi_1"))).expect("a session");
    assert!(seen.needs_review(&due()));
}

#[test]
fn what_is_not_paid_is_something_else() {
    for (path, value, state) in [
        ("/status", json!("open"), PaymentState::Open),
        ("/status", json!("expired"), PaymentState::Expired),
        ("/status", json!("something new"), PaymentState::Open),
        ("/payment_intent/latest_charge/refunded", json!(true), PaymentState::Refunded),
        ("/payment_status", json!("unpaid"), PaymentState::Processing),
    ] {
        assert_eq!(look(&with(path, value.clone())).expect("a session").state, state, "{path} {value}");
    }
    for (status, state) in [
        ("requires_payment_method", PaymentState::Declined),
        ("canceled", PaymentState::Cancelled),
        ("requires_capture", PaymentState::Authorized),
        ("processing", PaymentState::Processing),
    ] {
        let mut session = with("/payment_status", json!("unpaid"));
        session["payment_intent"]["status"] = json!(status);
        assert_eq!(look(&session).expect("a session").state, state, "{status}");
    }
}

#[test]
fn a_refund_that_is_pending_is_not_done() {
    for (status, state) in [
        ("succeeded", RefundState::Done),
        ("pending", RefundState::Pending),
        ("requires_action", RefundState::Pending),
        ("something new", RefundState::Pending),
        ("failed", RefundState::Refused),
        ("canceled", RefundState::Refused),
    ] {
        let refund =
            json!({"id": "re_1", "status": status, "amount": 500, "currency": "usd", "failure_reason": "lost"});
        let seen = refunded(&serde_json::from_value(refund).expect("a refund"));
        assert_eq!((seen.state, seen.refusal.is_some()), (state, state == RefundState::Refused), "{status}");
        assert_eq!((seen.amount, seen.provider_refund.as_deref()), (Some(500), Some("re_1")));
    }
}

#[test]
fn languages_that_the_page_has_not_are_the_browsers() {
    for (tag, known) in [("de-AT", "de"), ("fa", "auto"), ("fa-IR", "auto"), ("zh-TW", "zh-TW"), ("", "auto")] {
        assert_eq!(language(tag), known, "{tag}");
    }
}

#[test]
fn only_ids_get_into_paths() {
    assert!(is_id("cs_test_a1B2", "cs_") && !is_id("pi_1", "cs_") && !is_id("", "cs_"));
    for bad in ["cs_/../account", "cs_?x", "cs_é", "cs_ 1", "cs_%2e"] {
        assert!(!is_id(bad, "cs_"), "{bad}");
    }
}

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        Just(json!(PAYMENT)),
        Just(json!("complete")),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{1,12}|id|status|metadata", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Whatever stands in place of something, nothing breaks, and what settles is right in everything.
    #[test]
    fn an_answer_with_anything_in_it_settles_only_what_is_right(place in 0_usize..16, value in anything()) {
        let paths = ["", "/id", "/status", "/payment_status", "/amount_total", "/currency", "/client_reference_id",
            "/livemode", "/metadata", "/payment_intent", "/payment_intent/id", "/payment_intent/amount_received",
            "/payment_intent/currency", "/payment_intent/transfer_data", "/payment_intent/metadata",
            "/payment_intent/latest_charge"];
        let session = with(paths[place], value);
        if let Some(seen) = look(&session).filter(|seen| seen.settles(&due())) {
            let intent = &session["payment_intent"];
            prop_assert_eq!(&intent["amount_received"], &json!(1999));
            prop_assert_eq!(intent["currency"].as_str().map(str::to_ascii_lowercase), Some("usd".to_owned()));
            prop_assert_eq!(&session["client_reference_id"], &json!(PAYMENT));
            prop_assert_eq!(&session["payment_status"], &json!("paid"));
            prop_assert!(intent["transfer_data"]["destination"].as_str().is_none_or(|to| to == "acct_1"));
            prop_assert!(!seen.needs_review(&due()));
        }
    }

    #[test]
    fn no_answer_breaks_us(value in anything()) {
        let _ = look(&value);
        let _ = serde_json::from_value::<Refund>(value.clone()).map(|refund| refunded(&refund));
        let _ = serde_json::from_value::<objects::Page<objects::Happened>>(value.clone());
        let _ = serde_json::from_value::<objects::Page<objects::Charge>>(value);
    }
}
