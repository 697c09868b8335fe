use super::*;
use proptest::prelude::*;

fn answer(json: &str) -> Answer {
    serde_json::from_str(json).expect("an answer")
}

/// Answers of the documentation, and of the service where it differs from it.
#[test]
fn answers_are_read_in_every_spelling() {
    let good = answer(r#"{"data":{"code":100,"authority":"A1"},"errors":[]}"#);
    assert_eq!(good.refusal(), None);
    for (json, code) in [
        (r#"{"data":[],"errors":{"code":-9,"message":"m","validations":[]}}"#, -9),
        (r#"{"data":{},"errors":{"code":"-11","message":"m"}}"#, -11),
        (r#"{"errors":[{"code":-54}]}"#, -54),
    ] {
        assert_eq!(answer(json).refusal(), Some(Code(code)), "{json}");
    }
    let verified = |json: &str| serde_json::from_str::<Verified>(json).expect("a payment");
    for paid in [r#"{"code":100,"ref_id":201}"#, r#"{"code":"101","ref_id":"201","fee":"350","card_pan":null}"#] {
        let paid = verified(paid);
        assert!(paid.is_paid());
        assert_eq!(paid.ref_id.text().as_deref(), Some("201"));
    }
    for unpaid in [r#"{"code":102,"ref_id":1}"#, "{}", r#"{"code":null}"#, r#"{"code":"100x"}"#] {
        assert!(!verified(unpaid).is_paid(), "{unpaid}");
    }
}

#[test]
fn what_was_not_verified_says_whose_it_is() {
    let list = r#"{"code":"100","authorities":[
        {"authority":"A1","amount":50500,"callback_url":"https://x/v1/payments/00000000-0000-0000-0000-000000000007/return?a=b",
         "referer":"/","date":"2020-07-01 17:33:25"},
        {"authority":"A2","amount":"11100","callback_url":"zarin_link","date":"yesterday"}]}"#;
    let list = serde_json::from_str::<Unverified>(list).expect("a list").into_list();
    assert!(list.complete);
    let [ours, other] = &list.payments[..] else { panic!("{list:?}") };
    assert_eq!((ours.payment_id, ours.amount), (Some(uuid::Uuid::from_u128(7)), 50_500));
    assert_eq!(ours.at.map(|at| at.to_rfc3339()).as_deref(), Some("2020-07-01T14:03:25+00:00"));
    assert_eq!((other.payment_id, other.amount, other.at), (None, 11_100, None));
    let full = format!(r#"{{"authorities":[{}]}}"#, vec![r#"{"authority":"A","amount":1}"#; 100].join(","));
    assert!(!serde_json::from_str::<Unverified>(&full).expect("a list").into_list().complete, "there may be more");
}

#[test]
fn only_a_masked_card_is_kept() {
    assert_eq!(masked("502229******5995").as_deref(), Some("502229******5995"));
    for bad in ["5022291234565995", "502229*****5995", "", "502229xxxxxx5995"] {
        assert_eq!(masked(bad), None, "{bad}");
    }
}

#[test]
fn only_authorities_get_into_paths() {
    assert!(is_authority("A00000000000000000000000000217885159"));
    for bad in ["", "A1", "A0000000000/../..", "A000000000 0000", &"A".repeat(65)] {
        assert!(!is_authority(bad), "{bad}");
    }
}

#[test]
fn each_refusal_means_something() {
    for (code, ours) in
        [(-9, AMOUNT_LIMITS), (-10, MERCHANT_CONFIG), (-11, MERCHANT_CONFIG), (-41, AMOUNT_LIMITS), (-1, REFUSED)]
    {
        let failure = Code(code).into_failure();
        assert_eq!((failure.code.as_str(), failure.retryable), (ours, false), "{code}");
    }
}

proptest! {
    #[test]
    fn no_answer_breaks_us(text in "\\PC{0,200}|\\{\"data\":\\PC{0,60},\"errors\":\\PC{0,60}\\}") {
        let _ = serde_json::from_str::<Answer>(&text).map(|answer| answer.refusal());
        let _ = serde_json::from_str::<Verified>(&text).map(|paid| (paid.is_paid(), paid.ref_id.text()));
        let _ = serde_json::from_str::<Unverified>(&text).map(Unverified::into_list);
        let _ = masked(&text);
    }

    #[test]
    fn a_date_is_one_or_none(date in "[0-9 :-]{0,25}", amount in any::<i64>()) {
        let list = json!({"authorities": [{"authority": "A", "amount": amount, "date": date, "callback_url": date}]});
        let list = serde_json::from_value::<Unverified>(list).unwrap().into_list();
        prop_assert!(list.payments.iter().all(|paid| paid.amount >= 0));
    }
}
