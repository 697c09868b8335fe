//! A bill that is sent again: whoever paid is told of it once more, in the words of the first time. Programs are not: for them a payment is
//! paid once.

use super::settle::told;
use crate::{
    definitions::notify::Notify,
    models::{
        Db, Role, Scope,
        identity::{invoice::Invoice, money, payment::Payment},
    },
};
use flatrender_engine::{Client, client::Error};
use serde_json::{Value, json};
use uuid::Uuid;

/// Tells whoever paid of a bill or a credit note again, in the caller's transaction; each call is one more message. Begins and ends as the
/// tenant's identity service. Call [`Client::announce`] after the commit.
///
/// # Errors
/// Those of the database.
pub async fn send_again(workflows: &Client, db: Db<'_>, paid: &Payment, bill: &Invoice) -> Result<(), Error> {
    let (kind, data) = words(paid, bill);
    let Some(notify) = Notify::of_event(kind, Uuid::now_v7(), Some(paid.user_id), paid.id, data) else { return Ok(()) };
    Scope::tenant(Role::Workflow, paid.tenant_id).enter(&mut *db).await?;
    workflows.start(&mut *db, paid.tenant_id, Some(&notify.key()), notify).await?;
    Ok(Scope::tenant(Role::Identity, paid.tenant_id).enter(db).await?)
}

/// What was told when it was issued.
fn words(paid: &Payment, bill: &Invoice) -> (&'static str, Value) {
    let Some(refund_id) = bill.refund_id else {
        let mut told = told(paid, "paid");
        told["invoice"] = json!(bill.name());
        return ("payment.paid", told);
    };
    let (mut told, amount) = (told(paid, &paid.state), -bill.total_amount);
    told["amount"] = json!(money::text(amount, &bill.currency));
    told["amount_minor"] = json!(amount);
    told["refund_id"] = json!(refund_id);
    told["credit_note"] = json!(bill.name());
    ("refund.done", told)
}
