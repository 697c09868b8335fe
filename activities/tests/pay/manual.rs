//! A bank transfer: nobody is asked, and nothing is paid until people say so.

use crate::world::{account, attempt, cashier, places, settings};
use chrono::{TimeDelta, Utc};
use flatrender_workflows::contracts::pay::{
    By, CheckGateway, CreatePayment, Due, FetchPayment, FetchRefund, Gateway, ListSettlements, ListUnsettled, Mode,
    PaymentState, REFUND_BY_HAND, RefundPayment, VerifyPayment,
};
use uuid::Uuid;

#[tokio::test]
async fn the_payer_is_told_an_account_and_a_code_and_nobody_is_asked() {
    let cashier = cashier(places("http://127.0.0.1:9"));
    let account = account(Gateway::Manual, Mode::Live, &settings(Gateway::Manual));
    let due = Due { payment_id: Uuid::new_v4(), amount: 5000, currency: "CHF".into() };
    let create = CreatePayment {
        account: account.clone(),
        due: due.clone(),
        description: "Plan Studio".into(),
        return_url: "https://x/".into(),
        expires_at: Utc::now() + TimeDelta::days(14),
        email: None,
        language: "de".into(),
    };
    let created = attempt(&cashier, create.clone(), 1).await.unwrap();
    assert_eq!(attempt(&cashier, create.clone(), 2).await.unwrap().provider_ref, created.provider_ref);
    assert_eq!((created.redirect_url, created.expires_at), (None, Some(create.expires_at)));
    let told = created.instructions.unwrap();
    assert!(told.starts_with("To the account 1234\n") && told.ends_with(&created.provider_ref), "{told}");
    let provider_ref = created.provider_ref;
    let verify = VerifyPayment { account: account.clone(), due: due.clone(), provider_ref: provider_ref.clone() };
    let seen = attempt(&cashier, verify, 1).await.unwrap();
    assert_eq!((seen.state, seen.settles(&due), seen.needs_review(&due)), (PaymentState::Open, false, false));
    for (by, known) in [
        (By::Ref(provider_ref.clone()), true),
        (By::OurId(Utc::now()), true),
        (By::Ref("FR-0000-0000-0000".into()), false),
    ] {
        let fetch = FetchPayment { account: account.clone(), due: due.clone(), by };
        assert_eq!(attempt(&cashier, fetch, 1).await.unwrap().is_some(), known);
    }
    let refund = RefundPayment {
        account: account.clone(),
        refund_id: Uuid::new_v4(),
        due,
        provider_ref,
        provider_txn: "statement 7, line 3".into(),
        amount: 5000,
        since: Utc::now(),
    };
    let given = attempt(&cashier, refund.clone(), 1).await.unwrap();
    assert_eq!(given.refusal.as_deref(), Some(REFUND_BY_HAND));
    let found = attempt(&cashier, FetchRefund { refund, provider_refund: None }, 1).await.unwrap();
    assert_eq!(found, Some(given));
    let list = attempt(&cashier, ListUnsettled { account: account.clone(), since: Utc::now() }, 1).await.unwrap();
    assert!(list.payments.is_empty() && list.complete);
    let day = ListSettlements { account: account.clone(), day: Utc::now().date_naive() };
    assert!(!attempt(&cashier, day, 1).await.unwrap().told);
    assert_eq!(attempt(&cashier, CheckGateway { account }, 1).await.unwrap().merchant, "1234");
}
