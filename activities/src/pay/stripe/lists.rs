//! What Stripe lists: what was paid since, and the movements of a day.

use super::{
    Stripe,
    objects::{Charge, Happened, Refund, time},
};
use crate::pay::money::from_stripe;
use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};
use flatrender_engine::Failure;
use flatrender_workflows::contracts::pay::{Settlement, SettlementKind, Statement, Unsettled, UnsettledList};
use std::collections::HashSet;

/// Most payments of a list.
const MOST: usize = 1000;

impl Stripe<'_> {
    /// By the events, which are kept for thirty days: a session is listed by when it was opened, an event by when it was paid.
    pub(super) async fn unsettled(&self, since: DateTime<Utc>) -> Result<UnsettledList, Failure> {
        let query = format!(
            "/v1/events?types[]=checkout.session.completed&types[]=checkout.session.async_payment_succeeded\
             &created[gte]={}",
            since.timestamp()
        );
        let is_paid = |event: &Happened| event.data.object.payment_status.as_deref() == Some("paid");
        let found = self.pages::<Happened>(&query, is_paid).await?;
        let mut known = HashSet::new();
        let mut payments = vec![];
        for event in found.items {
            let session = event.data.object;
            let currency = session.currency.as_deref().unwrap_or_default().to_ascii_uppercase();
            let amount = session.amount_total.and_then(|amount| from_stripe(amount, &currency));
            if let Some(amount) = amount.filter(|_| known.insert(session.id.clone())) {
                let (payment_id, at) = (session.payment_id(), time(event.created));
                payments.push(Unsettled { provider_ref: session.id, payment_id, amount, currency, at });
            }
        }
        let complete = found.complete && payments.len() <= MOST;
        payments.truncate(MOST);
        Ok(UnsettledList { payments, complete })
    }

    pub(super) async fn statement(&self, day: NaiveDate) -> Result<Statement, Failure> {
        let begin = day.and_time(NaiveTime::MIN).and_utc();
        let end = begin.checked_add_days(Days::new(1)).unwrap_or(begin);
        let within = format!("created[gte]={}&created[lt]={}", begin.timestamp(), end.timestamp());
        let charged = |charge: &Charge| charge.status.as_deref() == Some("succeeded");
        let charges = self.pages::<Charge>(&format!("/v1/charges?{within}"), charged).await?;
        let given = |refund: &Refund| !matches!(refund.status.as_deref(), Some("failed" | "canceled"));
        let refunds = self.pages::<Refund>(&format!("/v1/refunds?{within}"), given).await?;
        let complete = charges.complete && refunds.complete;
        let charges = charges.items.into_iter().map(|charge| {
            let id = charge.payment_intent.clone().unwrap_or_default();
            let (payment_id, at) = (charge.payment_id(), time(charge.created));
            line(SettlementKind::Payment, id, payment_id, charge.amount_captured, charge.currency, at)
        });
        let refunds = refunds.items.into_iter().map(|refund| {
            let (payment_id, at) = (refund.payment_id(), refund.created.and_then(time));
            line(SettlementKind::Refund, refund.id, payment_id, refund.amount, refund.currency, at)
        });
        let lines: Option<Vec<_>> = charges.chain(refunds).collect();
        let read = lines.is_some();
        Ok(Statement { told: true, lines: lines.unwrap_or_default(), complete: complete && read })
    }
}

fn line(
    kind: SettlementKind,
    provider_txn: String,
    payment_id: Option<uuid::Uuid>,
    amount: Option<i64>,
    currency: Option<String>,
    at: Option<DateTime<Utc>>,
) -> Option<Settlement> {
    let currency = currency?.to_ascii_uppercase();
    let amount = from_stripe(amount?, &currency)?;
    Some(Settlement { kind, provider_txn, payment_id, amount, currency, at: at? })
}
