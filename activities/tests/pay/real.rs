//! What only a real account proves: run by hand, with a person who pays. See docs/payments.md.

use crate::world::{account, attempt};
use chrono::{TimeDelta, Utc};
use flatrender_activities::{
    egress::{Egress, Reach},
    pay::{CALL, Cashier, Places},
};
use flatrender_workflows::contracts::pay::{
    CheckGateway, CreatePayment, Due, FetchRefund, Gateway, ListSettlements, ListUnsettled, Mode, PaymentState,
    RefundPayment, RefundState, VerifyPayment,
};
use serde_json::Value;
use std::{env, sync::Arc, time::Duration};
use uuid::Uuid;

/// How long the person may take.
const PATIENCE: Duration = Duration::from_secs(900);

/// `FLATRENDER_PAY_GATEWAY`, `_MODE`, `_SETTINGS` (JSON), `_AMOUNT` and `_CURRENCY` say who is asked for what.
#[tokio::test]
#[ignore = "asks a real gateway, and a person to pay"]
async fn a_real_gateway_takes_money_and_gives_it_back() {
    let said =
        |name: &str| env::var(format!("FLATRENDER_PAY_{name}")).unwrap_or_else(|_| panic!("FLATRENDER_PAY_{name}"));
    let gateway: Gateway = said("GATEWAY").parse().unwrap();
    let mode: Mode = said("MODE").parse().unwrap();
    let settings: Value = serde_json::from_str(&said("SETTINGS")).expect("FLATRENDER_PAY_SETTINGS is JSON");
    let opener = Arc::new(|sealed: &flatrender_workflows::contracts::notify::Sealed| hex::decode(&sealed.hex).ok());
    let cashier = Cashier::new(Egress::new(Reach::Public).with_patience(CALL), Places::from_env(), opener);
    let account = account(gateway, mode, &settings);
    println!("{:?}", attempt(&cashier, CheckGateway { account: account.clone() }, 1).await.unwrap());
    let payment_id = Uuid::new_v4();
    let due = Due { payment_id, amount: said("AMOUNT").parse().unwrap(), currency: said("CURRENCY") };
    let create = CreatePayment {
        account: account.clone(),
        due: due.clone(),
        description: "FlatRender, a trial".into(),
        return_url: format!("https://example.com/v1/payments/{payment_id}/return"),
        expires_at: Utc::now() + TimeDelta::hours(1),
        email: None,
        language: "en".into(),
    };
    let created = attempt(&cashier, create.clone(), 1).await.unwrap();
    if gateway == Gateway::Stripe {
        assert_eq!(
            attempt(&cashier, create, 2).await.unwrap().provider_ref,
            created.provider_ref,
            "one key, one session"
        );
    }
    println!("pay here, within 15 minutes: {}", created.redirect_url.unwrap_or_default());
    let verify = VerifyPayment { account: account.clone(), due: due.clone(), provider_ref: created.provider_ref };
    let until = tokio::time::Instant::now() + PATIENCE;
    let paid = loop {
        let seen = attempt(&cashier, verify.clone(), 1).await.unwrap();
        if seen.state == PaymentState::Paid || tokio::time::Instant::now() > until {
            break seen;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    };
    println!("{paid:?}");
    assert!(paid.settles(&due), "it is paid to the unit");
    assert_eq!(attempt(&cashier, verify, 2).await.unwrap(), paid, "asked again it is the same");
    let list = ListUnsettled { account: account.clone(), since: Utc::now() - TimeDelta::hours(1) };
    println!("{:?}", attempt(&cashier, list, 1).await.unwrap());
    let refund = RefundPayment {
        account: account.clone(),
        refund_id: Uuid::new_v4(),
        due: due.clone(),
        provider_ref: paid.provider_ref.clone(),
        provider_txn: paid.provider_txn.clone().unwrap(),
        amount: due.amount,
        since: Utc::now(),
    };
    let given = attempt(&cashier, refund.clone(), 1).await.unwrap();
    println!("{given:?}");
    if given.state != RefundState::Refused {
        let again = attempt(&cashier, refund.clone(), 2).await.unwrap();
        assert_eq!(again.provider_refund, given.provider_refund, "asked again it is the same");
        let fetch = FetchRefund { refund, provider_refund: given.provider_refund.clone() };
        assert!(attempt(&cashier, fetch, 1).await.unwrap().is_some());
    }
    let day = ListSettlements { account, day: Utc::now().date_naive() };
    let statement = attempt(&cashier, day, 1).await.unwrap();
    let ours: Vec<_> = statement.lines.iter().filter(|line| line.payment_id == Some(payment_id)).collect();
    println!("{} {ours:?}", statement.told);
    assert!(!statement.told || !ours.is_empty());
}
