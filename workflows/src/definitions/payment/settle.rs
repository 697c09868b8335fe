//! What follows from what became of a payment, each in one commit: the row, what was bought, its bill, and who is told.

use crate::{
    contracts::pay::{DECLINED, REFUND_BY_HAND, Seen},
    definitions::{
        events::{self, Event},
        refund::{GiveBack, hand_over},
        subscription as keeping,
    },
    models::{
        DEFAULT_TENANT, Db, Role, Scope,
        identity::{
            coupon,
            credit::{self, Entered, Reason},
            credit_pack, invoice, money,
            payment::{
                self, Payment, Snapshot, What,
                state::{self, Captured},
            },
            points::Source,
            refund::{self, NewRefund},
            reward,
            subscription::{self, Activation},
        },
    },
};
use flatrender_engine::{Client, Failure};
use serde_json::{Value, json};
use uuid::Uuid;

/// What was agreed cannot be read: no payment of ours.
pub(crate) fn unreadable(_: serde_json::Error) -> Failure {
    Failure::permanent("payment.unreadable", "nobody can tell what was agreed")
}

/// Settles a payment whose money its gateway has: gives the state it is in. What was bought is given where that still holds; else all of
/// the money goes back. Begins and ends as the tenant's identity service; so with every call below.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn settle(workflows: &Client, db: Db<'_>, tenant_id: Uuid, id: Uuid, seen: &Seen) -> Result<String, Failure> {
    let txn = seen.provider_txn.clone().unwrap_or_default();
    settle_as(workflows, db, tenant_id, id, &Captured { provider_txn: &txn, at: seen.paid_at }, Goes::Here).await
}

/// Where money that came goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goes<'a> {
    /// It pays for what it was for, where that can still be had; else all of it goes back.
    Here,
    /// All of it goes back: people have decided so.
    Back,
    /// The same, by hand: what came is not what was meant, which these words tell.
    BackByHand(&'a str),
}

/// The same for money of which people tell.
pub async fn settle_as(
    workflows: &Client,
    db: Db<'_>,
    tenant_id: Uuid,
    id: Uuid,
    captured: &Captured<'_>,
    goes: Goes<'_>,
) -> Result<String, Failure> {
    let Some(found) = state::lock(&mut *db, tenant_id, id).await? else { return Ok("gone".into()) };
    if found.paid_at.is_some() {
        return Ok(found.state);
    }
    if !found.is_open() && !found.may_come_late() {
        return Ok(found.state);
    }
    if state::is_used(&mut *db, id, captured.provider_txn).await? {
        let why = format!("the movement {} has paid for another payment", captured.provider_txn);
        review(workflows, db, tenant_id, id, "payment.transaction_used", &why).await?;
        return Ok("review".into());
    }
    let snapshot = found.snapshot().map_err(unreadable)?;
    let kept = goes == Goes::Here && still_holds(&mut *db, &found, &snapshot).await?;
    state::paid(&mut *db, id, captured, kept).await?;
    if !kept {
        return send_back(workflows, db, &found, goes).await;
    }
    let given = give(workflows, &mut *db, &found, &snapshot).await?;
    let invoice = invoice::bill(&mut *db, &found, &snapshot).await?;
    reward::reward(&mut *db, tenant_id, found.user_id, Source::Payment, id).await?;
    let mut told = told(&found, "paid");
    told["invoice"] = json!(invoice);
    merge(&mut told, given);
    tell(workflows, &mut *db, &found, "payment.paid", told).await?;
    events::gifts_earned(workflows, db, tenant_id).await?;
    Ok("paid".into())
}

/// Whether what was agreed can still be given: the coupon is there, and a plan does what it was to do. Money that came after the end buys
/// only at the price of today.
async fn still_holds(db: Db<'_>, found: &Payment, snapshot: &Snapshot) -> Result<bool, Failure> {
    let late = found.may_come_late();
    match &snapshot.what {
        What::Plan { plan_id, interval, prospect, .. } => {
            let now = subscription::prospect_now(&mut *db, found.tenant_id, found.user_id, *plan_id).await?;
            if !prospect.holds(&now) {
                return Ok(false);
            }
            let price =
                subscription::price(&mut *db, found.tenant_id, found.user_id, *plan_id, &found.currency, *interval);
            if late && price.await? != Some(snapshot.list_amount) {
                return Ok(false);
            }
        }
        What::Credits { pack_id, seconds } => {
            if late && !is_sold_so(&mut *db, found, *pack_id, snapshot.list_amount).await? {
                return Ok(false);
            }
            // Looked at, not opened: when the money goes back, nothing is left of it.
            let account = credit::find(&mut *db, found.tenant_id, Some(found.user_id)).await?;
            let balance = account.map_or(0, |account| account.balance);
            if balance.checked_add(*seconds).is_none_or(|after| after > credit::MOST) {
                return Ok(false);
            }
        }
    }
    match found.coupon_id {
        Some(coupon_id) => Ok(coupon::redeem(db, coupon_id, found.id, found.user_id).await?),
        None => Ok(true),
    }
}

/// Whether a pack is still sold for so much. Of one that costs something else now another one is sold: a pack never changes.
async fn is_sold_so(db: Db<'_>, found: &Payment, pack_id: Uuid, amount: i64) -> Result<bool, Failure> {
    let pack = credit_pack::find(db, found.tenant_id, pack_id).await?;
    Ok(pack.is_some_and(|pack| pack.state == "active" && pack.amount == amount))
}

/// What the credits of a payment are entered as.
pub(crate) fn credits_key(payment_id: Uuid) -> String {
    format!("payment:{payment_id}")
}

/// Gives what was bought.
async fn give(workflows: &Client, db: Db<'_>, found: &Payment, snapshot: &Snapshot) -> Result<Value, Failure> {
    match &snapshot.what {
        What::Plan { plan_id, interval, .. } => {
            let new = Activation {
                tenant_id: found.tenant_id,
                user_id: found.user_id,
                payment_id: found.id,
                plan_id: *plan_id,
                currency: &found.currency,
                interval: *interval,
            };
            let activated = subscription::activate(&mut *db, &new).await?;
            let id = activated.subscription.id;
            keeping::wake(workflows, db, &activated.subscription).await?;
            Ok(json!({ "subscription_id": id }))
        }
        What::Credits { seconds, .. } => {
            let account = credit::open(&mut *db, found.tenant_id, Some(found.user_id)).await?;
            match credit::grant(db, account.id, &credits_key(found.id), *seconds, Reason::Purchase).await? {
                // Told apart before, under the lock of the payment alone: another one has filled the account meanwhile.
                Entered::Refused => Err(Failure::transient("credits.refused", "the account is full")),
                Entered::Now(_) | Entered::Before => Ok(json!({ "credits": seconds })),
            }
        }
    }
}

/// All of it goes back: what it was for is not sold like this any more, or people have decided so.
async fn send_back(workflows: &Client, db: Db<'_>, found: &Payment, goes: Goes<'_>) -> Result<String, Failure> {
    let reason = match goes {
        Goes::Here => "the money came when what it was for could not be had like this any more",
        Goes::Back | Goes::BackByHand(_) => "two people decided that the money that came goes back",
    };
    let new = NewRefund {
        amount: found.amount,
        reason,
        requested_by: None,
        approved: true,
        revoke: false,
        idempotency_key: &format!("payment:{}:back", found.id),
    };
    if let Some(refund_id) = refund::create(&mut *db, found, &new).await? {
        match goes {
            // No gateway gives back another amount, or in another currency, than it was told of.
            Goes::BackByHand(why) => {
                hand_over(workflows, &mut *db, found.tenant_id, refund_id, (REFUND_BY_HAND, why)).await?;
            }
            _ => start_refund(workflows, &mut *db, found.tenant_id, refund_id).await?,
        }
    }
    coupon::give_back(db, found.id).await?;
    Ok("refunding".into())
}

/// Starts the run that gives money back, for a refund that is approved.
pub async fn start_refund(workflows: &Client, db: Db<'_>, tenant_id: Uuid, refund_id: Uuid) -> Result<(), Failure> {
    Scope::tenant(Role::Workflow, tenant_id).enter(&mut *db).await?;
    let run = GiveBack { tenant_id, refund_id, again: false };
    let run_id = workflows.start(&mut *db, tenant_id, Some(&run.key()), run).await?.run_id;
    Scope::tenant(Role::Identity, tenant_id).enter(&mut *db).await?;
    Ok(refund::taken_by(db, refund_id, run_id).await?)
}

/// Has the gateway asked what became of a refund that was done: it may have come back.
pub async fn look_again(workflows: &Client, db: Db<'_>, tenant_id: Uuid, refund_id: Uuid) -> Result<(), Failure> {
    Scope::tenant(Role::Workflow, tenant_id).enter(&mut *db).await?;
    let run_id =
        workflows.start(&mut *db, tenant_id, None, GiveBack { tenant_id, refund_id, again: true }).await?.run_id;
    Scope::tenant(Role::Identity, tenant_id).enter(&mut *db).await?;
    Ok(refund::taken_by(db, refund_id, run_id).await?)
}

/// Ends a payment that failed.
pub async fn fail(workflows: &Client, db: Db<'_>, tenant_id: Uuid, id: Uuid, code: &str) -> Result<(), Failure> {
    end(workflows, db, tenant_id, id, "failed", code).await
}

/// Ends a payment that nobody paid in time.
pub async fn expire(workflows: &Client, db: Db<'_>, tenant_id: Uuid, id: Uuid) -> Result<(), Failure> {
    end(workflows, db, tenant_id, id, "expired", "payment.expired").await
}

async fn end(
    workflows: &Client,
    db: Db<'_>,
    tenant_id: Uuid,
    id: Uuid,
    state: &str,
    code: &str,
) -> Result<(), Failure> {
    if !state::end(&mut *db, id, state, Some(code)).await? {
        return Ok(());
    }
    let Some(found) = payment::find(&mut *db, tenant_id, id).await? else { return Ok(()) };
    // Who has not asked for a payment, nor tried to pay, is not told that it failed: the plan it was for is told of by itself.
    if code != DECLINED && found.snapshot().is_ok_and(|agreed| agreed.by_itself) {
        return Ok(());
    }
    let mut told = told(&found, state);
    told["reason"] = json!(code);
    tell(workflows, db, &found, "payment.failed", told).await
}

/// Puts a payment where people look at it. Harmless when it is there, or has ended.
pub async fn review(
    workflows: &Client,
    db: Db<'_>,
    tenant_id: Uuid,
    id: Uuid,
    code: &str,
    why: &str,
) -> Result<(), Failure> {
    if !state::review(&mut *db, id, code, why).await? {
        return Ok(());
    }
    tracing::error!(payment.id = %id, code, why, "somebody has to look at a payment");
    told_of_review(workflows, db, tenant_id, id).await
}

/// Tells that a payment is in review.
pub async fn told_of_review(workflows: &Client, db: Db<'_>, tenant_id: Uuid, id: Uuid) -> Result<(), Failure> {
    let Some(found) = payment::find(&mut *db, tenant_id, id).await? else { return Ok(()) };
    let mut told = told(&found, "review");
    told["reason"] = json!(found.review_code);
    tell(workflows, &mut *db, &found, "payment.review", told.clone()).await?;
    tell_managers(workflows, db, &found, "payment.undecided", told).await
}

/// Whoever paid wants their money back by way of their bank: whoever manages the money is told, and whoever runs the platform. Nothing moves.
/// The bank has to be answered within days. What is heard of it later, such as that it was won, is for programs alone.
pub async fn disputed(workflows: &Client, db: Db<'_>, tenant_id: Uuid, id: Uuid, kind: &str) -> Result<(), Failure> {
    let Some(found) = payment::find(&mut *db, tenant_id, id).await? else { return Ok(()) };
    let stage = kind.rsplit('.').next().unwrap_or(kind);
    let mut told = told(&found, &found.state);
    told["reason"] = json!("payment.disputed");
    told["stage"] = json!(stage);
    if stage != "created" {
        tracing::info!(payment.id = %id, stage, "more is heard of a dispute");
        let occurred_at = subscription::now(&mut *db).await?;
        let (kind, user_id) = ("payment.disputed", None);
        let event = Event { tenant_id, kind, subject: found.id, user_id, data: told, occurred_at };
        return Ok(events::happened_quietly(workflows, db, event).await?);
    }
    tracing::error!(payment.id = %id, stage, "a payment is disputed");
    tell_managers(workflows, &mut *db, &found, "payment.disputed", told.clone()).await?;
    told["tenant_id"] = json!(tenant_id);
    let occurred_at = subscription::now(&mut *db).await?;
    let (tenant_id, kind, user_id) = (DEFAULT_TENANT, "payment.dispute_open", None);
    let event = Event { tenant_id, kind, subject: found.id, user_id, data: told, occurred_at };
    Ok(events::happened(workflows, db, event).await?)
}

/// What is told of a payment.
pub(crate) fn told(found: &Payment, state: &str) -> Value {
    json!({
        "object": "payment", "state": state, "user_id": found.user_id, "purpose": found.purpose,
        "amount": money::text(found.amount, &found.currency), "amount_minor": found.amount, "currency": found.currency,
        "provider": found.provider, "plan_id": found.plan_id, "credits": found.credits,
    })
}

fn merge(told: &mut Value, more: Value) {
    if let (Some(told), Value::Object(more)) = (told.as_object_mut(), more) {
        told.extend(more);
    }
}

/// Tells whoever listens.
pub(crate) async fn tell(
    workflows: &Client,
    db: Db<'_>,
    found: &Payment,
    kind: &'static str,
    data: Value,
) -> Result<(), Failure> {
    tell_of(workflows, db, found, Some(found.user_id), kind, data).await
}

/// The same of what concerns whoever manages the money of the tenant, and not its payer.
pub(crate) async fn tell_managers(
    workflows: &Client,
    db: Db<'_>,
    found: &Payment,
    kind: &'static str,
    data: Value,
) -> Result<(), Failure> {
    tell_of(workflows, db, found, None, kind, data).await
}

async fn tell_of(
    workflows: &Client,
    db: Db<'_>,
    found: &Payment,
    user_id: Option<Uuid>,
    kind: &'static str,
    data: Value,
) -> Result<(), Failure> {
    let occurred_at = subscription::now(&mut *db).await?;
    let event = Event { tenant_id: found.tenant_id, kind, subject: found.id, user_id, data, occurred_at };
    Ok(events::happened(workflows, db, event).await?)
}
