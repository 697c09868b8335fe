use super::*;
use proptest::prelude::*;
use serde_json::json;

const SECRET: &str = "whsec_5WbX5kEWLlfzsGNjH64I8lOOqUB6e8FH";
const AT: i64 = 1_492_774_577;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).expect("a time")
}

fn event() -> Vec<u8> {
    let session = json!({
        "object": "checkout.session", "id": "cs_test_1", "payment_intent": "pi_1", "client_reference_id": null,
        "metadata": {"flatrender_payment": "00000000-0000-0000-0000-000000000007"}, "payment_status": "paid",
    });
    let event = json!({
        "id": "evt_1", "object": "event", "type": "checkout.session.completed", "created": AT, "livemode": true,
        "data": {"object": session}, "api_version": "2019-12-03", "what_is_new": [1, {}],
    });
    serde_json::to_vec_pretty(&event).expect("JSON")
}

fn read_at(body: &[u8], headers: &[&str], secrets: &[&str], now: i64) -> Result<Event, Rejected> {
    let signatures: Vec<&[u8]> = headers.iter().map(|header| header.as_bytes()).collect();
    let secrets: Vec<String> = secrets.iter().map(|&secret| secret.to_owned()).collect();
    read(&Inbound { body, signatures: &signatures, secrets: &secrets, at: at(now) })
}

fn read_now(body: &[u8], header: &str) -> Result<Event, Rejected> {
    read_at(body, &[header], &[SECRET], AT)
}

/// Computed with Python's `hmac`, of the timestamp, a full stop and the body.
#[test]
fn a_signature_is_what_another_implementation_makes_it() {
    let body = b"{\n  \"id\": \"evt_test_webhook\",\n  \"object\": \"event\"\n}";
    let known = "d2d85209eae24c2b2fab1ce82f976d640830bffe1419597b6444e7bc9ba10e88";
    assert_eq!(sign(SECRET, at(AT), body), format!("t={AT},v1={known}"));
    // It is signed well, and is no event.
    assert_eq!(read_now(body, &format!("t={AT},v1={known}")), Err(Rejected::Unreadable));
}

/// Made by Stripe's own library for Node, 23.1.0: `webhooks.generateTestHeaderString`.
#[test]
fn what_the_library_of_stripe_signs_is_taken() {
    let body = b"{\n  \"id\": \"evt_3\",\n  \"object\": \"event\",\n  \"type\": \"refund.failed\",\n  \"created\": 1492774577,\n  \
        \"livemode\": false,\n  \"data\": {\n    \"object\": {\n      \"object\": \"refund\",\n      \"id\": \"re_9\",\n      \
        \"payment_intent\": \"pi_9\",\n      \"metadata\": {}\n    }\n  }\n}";
    let header = "t=1492774577,v1=5334fa8857655e777b5343c4bf49d17a9f11bd8f6b729a9054275ff7198a9d51";
    let read = read_now(body, header).expect("it is good");
    assert_eq!((read.kind, read.provider_refund.as_deref()), (EventKind::Refund, Some("re_9")));
}

#[test]
fn a_webhook_that_is_signed_says_whose_it_is() {
    let body = event();
    let read = read_now(&body, &sign(SECRET, at(AT), &body)).expect("it is good");
    let expected = Event {
        event_id: "evt_1".into(),
        event_type: "checkout.session.completed".into(),
        kind: EventKind::Payment,
        provider_ref: Some("cs_test_1".into()),
        provider_txn: Some("pi_1".into()),
        provider_refund: None,
        payment_id: Some(uuid::Uuid::from_u128(7)),
        refund_id: None,
        is_live: true,
        at: Some(at(AT)),
    };
    assert_eq!(read, expected);
}

#[test]
fn one_of_several_signatures_and_secrets_is_enough() {
    let body = event();
    let good = sign(SECRET, at(AT), &body);
    let good = good.rsplit_once("v1=").expect("a signature").1.to_owned();
    let wrong = "0".repeat(64);
    for header in [
        format!("t={AT},v1={wrong},v1={good}"),
        format!("t={AT},v1={good},v1={wrong},v0={wrong}"),
        format!("t={AT}, v1={good}"),
        format!("v1={good},t={AT}"),
        format!("t={AT},v1=zz,v1={good},scheme=x,nothing"),
        format!("t={AT},v1={}", good.to_uppercase()),
    ] {
        assert!(read_now(&body, &header).is_ok(), "{header}");
    }
    let header = format!("t={AT},v1={good}");
    for secrets in [&["whsec_new", SECRET][..], &[SECRET, "whsec_old"], &["", SECRET]] {
        assert!(read_at(&body, &[&header], secrets, AT).is_ok(), "{secrets:?}");
    }
}

#[test]
fn nothing_else_is_taken() {
    let body = event();
    let header = sign(SECRET, at(AT), &body);
    let good = header.rsplit_once("v1=").expect("a signature").1.to_owned();
    let again: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    let again = serde_json::to_vec(&again).expect("JSON");
    for (what, read, expected) in [
        ("re-serialised", read_at(&again, &[&header], &[SECRET], AT), Rejected::Forged),
        ("a byte more", read_at(&[&body[..], b" "].concat(), &[&header], &[SECRET], AT), Rejected::Forged),
        ("empty", read_at(b"", &[&header], &[SECRET], AT), Rejected::Forged),
        ("another secret", read_at(&body, &[&header], &["whsec_other"], AT), Rejected::Forged),
        ("no secret", read_at(&body, &[&header], &[], AT), Rejected::Forged),
        ("an empty secret", read_at(&body, &[&sign("", at(AT), &body)], &[""], AT), Rejected::Forged),
        ("another time", read_at(&body, &[&header.replace("577", "578")], &[SECRET], AT), Rejected::Forged),
        ("too old", read_at(&body, &[&header], &[SECRET], AT + 301), Rejected::Stale),
        ("of the future", read_at(&body, &[&header], &[SECRET], AT - 301), Rejected::Stale),
        ("twice", read_at(&body, &[&header, &header], &[SECRET], AT), Rejected::Unsigned),
        ("none", read_at(&body, &[], &[SECRET], AT), Rejected::Unsigned),
        ("empty header", read_at(&body, &[""], &[SECRET], AT), Rejected::Unsigned),
        ("v0 only", read_at(&body, &[&header.replace("v1", "v0")], &[SECRET], AT), Rejected::Unsigned),
        ("no time", read_at(&body, &[&format!("v1={good}")], &[SECRET], AT), Rejected::Unsigned),
        ("two times", read_at(&body, &[&format!("t=1,{header}")], &[SECRET], AT), Rejected::Unsigned),
        ("a negative time", read_at(&body, &[&format!("t=-{AT},v1={good}")], &[SECRET], AT), Rejected::Unsigned),
        ("a long time", read_at(&body, &[&format!("t=9999999999999,v1={good}")], &[SECRET], AT), Rejected::Unsigned),
        ("half of it", read_at(&body, &[&format!("t={AT},v1={}", &good[..32])], &[SECRET], AT), Rejected::Unsigned),
    ] {
        assert_eq!(read, Err(expected), "{what}");
    }
    assert!(read_at(&body, &[&header], &[SECRET], AT + 300).is_ok());
    let long = vec![b' '; BODY_BYTES + 1];
    assert_eq!(read_at(&long, &[&sign(SECRET, at(AT), &long)], &[SECRET], AT), Err(Rejected::Unsigned));
}

/// An event of this type about this object.
fn about(kind: &str, object: serde_json::Value, account: Option<&str>) -> Event {
    let body = json!({"id": "evt_2", "type": kind, "created": AT, "account": account, "data": {"object": object}});
    let body = body.to_string().into_bytes();
    read_now(&body, &sign(SECRET, at(AT), &body)).expect("it is good")
}

#[test]
fn every_kind_of_event_says_what_it_is_about() {
    let id = "00000000-0000-0000-0000-000000000009";
    let refund = json!({
        "object": "refund", "id": "re_1", "payment_intent": {"id": "pi_2"}, "metadata": {"flatrender_refund": id},
    });
    let read = about("refund.updated", refund, None);
    assert_eq!((read.kind, read.provider_refund.as_deref()), (EventKind::Refund, Some("re_1")));
    assert_eq!((read.provider_txn.as_deref(), read.refund_id), (Some("pi_2"), Some(uuid::Uuid::from_u128(9))));
    let intent = json!({"object": "payment_intent", "id": "pi_3", "metadata": {"flatrender_payment": id}});
    let read = about("payment_intent.succeeded", intent.clone(), None);
    assert_eq!((read.kind, read.provider_txn.as_deref()), (EventKind::Payment, Some("pi_3")));
    assert_eq!((read.provider_ref, read.payment_id), (None, Some(uuid::Uuid::from_u128(9))));
    let dispute = json!({"object": "dispute", "id": "dp_1", "payment_intent": "pi_4", "metadata": []});
    let read = about("charge.dispute.created", dispute, None);
    assert_eq!((read.kind, read.provider_txn.as_deref()), (EventKind::Dispute, Some("pi_4")));
    assert_eq!(about("customer.created", json!({"object": "customer"}), None).kind, EventKind::Other);
    assert_eq!(
        about("payment_intent.succeeded", intent, Some("acct_2")).kind,
        EventKind::Other,
        "of a connected account"
    );
    let session = json!({"object": "checkout.session", "id": "cs_test/../x", "client_reference_id": id});
    let read = about("checkout.session.expired", session, None);
    assert_eq!(
        (read.provider_ref, read.payment_id),
        (None, Some(uuid::Uuid::from_u128(9))),
        "no path can be made of it"
    );
}

proptest! {
    #[test]
    fn whatever_is_sent_is_read_or_rejected(body in prop::collection::vec(any::<u8>(), 0..400), header in "\\PC{0,80}") {
        prop_assert!(read_now(&body, &header).is_err());
        let parts = format!("t={AT},v1={header}");
        prop_assert!(read_now(&body, &parts).is_err());
        // Signed well, by whoever has the secret: it is no event, and nothing breaks.
        let _ = read_now(&body, &sign(SECRET, at(AT), &body));
    }

    #[test]
    fn an_event_that_was_changed_anywhere_is_forged(place in 0_usize..500, bit in 0_u8..8) {
        let body = event();
        let header = sign(SECRET, at(AT), &body);
        let mut changed = body.clone();
        let place = place % body.len();
        changed[place] ^= 1 << bit;
        prop_assert_eq!(read_now(&changed, &header), Err(Rejected::Forged));
    }

    #[test]
    fn an_event_with_anything_in_place_of_a_value_is_read_or_not_one(
        place in 0_usize..8,
        value in prop_oneof![
            Just(json!(null)), any::<i64>().prop_map(|n| json!(n)), ".{0,300}".prop_map(|s| json!(s)),
            Just(json!([])), Just(json!({})), Just(json!({"id": 5})), Just(json!([[{}]])),
        ],
    ) {
        let mut event: serde_json::Value = serde_json::from_slice(&event()).unwrap();
        let paths = ["/id", "/type", "/created", "/data", "/data/object", "/data/object/id",
            "/data/object/payment_intent", "/data/object/metadata"];
        *event.pointer_mut(paths[place]).unwrap() = value;
        let body = event.to_string().into_bytes();
        if let Ok(read) = read_now(&body, &sign(SECRET, at(AT), &body)) {
            prop_assert!((1..=255).contains(&read.event_id.len()) && (1..=255).contains(&read.event_type.len()));
        }
    }
}
