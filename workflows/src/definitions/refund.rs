//! Money goes back.
//!
//! ```text
//! send ─┬─▶ done: the refund, its credit note, what was bought is taken back, in one commit
//!       ├─▶ pending: ask again later, for a month
//!       └─▶ refused, or nobody knows for days: people have to, and two of them say that they did
//! ```
//!
//! A gateway that knows no keys would do twice what it is told twice: once nobody can tell what came of it, it is only looked for.

use super::{
    events::{self, Event},
    payment::settle,
    subscription as keeping,
};
use crate::{
    contracts::pay::{
        Account, Class, Due, FetchRefund, MERCHANT_CONFIG, REFUND_BY_HAND, RefundPayment, RefundSeen, RefundState,
        UNKNOWN_OUTCOME, class_of,
    },
    models::{
        DEFAULT_TENANT, Db, Role, Scope,
        identity::{
            credit::{self, Reason},
            gateway, invoice, money,
            payment::{self, What, state},
            refund, subscription,
        },
    },
};
use flatrender_engine::{Client, Context, Failure, Workflow};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

/// The signal that there may be something to see.
pub const HINT: &str = "hint";
/// Looks at a refund that is on its way: the pauses grow to six hours, so for more than a month.
const MOST_LOOKS: u32 = 150;
/// Times a refund is asked for that nobody can tell of.
const MOST_TRIES: u32 = 12;
/// Times it is looked for at a gateway that knows no keys, and does not show it: an hour and more.
const MOST_LOOKED_FOR: u32 = 3;
/// Looks while the account does not open, such as until its key was changed: a fortnight.
const MOST_CLOSED: u32 = 60;

/// Gives money back, for a refund that is approved.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GiveBack {
    /// Its tenant.
    pub tenant_id: Uuid,
    /// The refund.
    pub refund_id: Uuid,
    /// It is done, and only looked at: it may have come back.
    #[serde(default)]
    pub again: bool,
}

/// What is known at the begin.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Begun {
    Over(String),
    Send(Box<RefundPayment>),
    /// It is done, and looked at.
    Look(Box<FetchRefund>),
}

impl Workflow for GiveBack {
    const NAME: &'static str = "refund";
    /// The state it ended in.
    type Output = String;

    async fn run(self, cx: &Context) -> Result<String, Failure> {
        let (scope, tenant_id, id, again) = (self.scope(), self.tenant_id, self.refund_id, self.again);
        let begun = cx
            .step("begin", async move |db: Db<'_>| {
                let begin = async |db: Db<'_>| match again {
                    true => begin_again(db, tenant_id, id).await,
                    false => begin(&cx.client()?, db, tenant_id, id, cx.run_id()).await,
                };
                scope.within(db, begin).await
            })
            .await?;
        let mut send = match begun {
            Begun::Over(state) => return Ok(state),
            Begun::Look(look) => return self.look(cx, *look).await,
            Begun::Send(send) => *send,
        };
        // Whether it is only looked for, and whether it may be sent again when it is not there.
        let (mut tries, mut on_its_way, mut may_be_there, mut called) = (0, false, false, None);
        for n in 1..=MOST_LOOKS {
            if n > 1 {
                send.account = self.account(cx, n, &send).await?;
            }
            let asked = match on_its_way {
                false => cx.activity(&format!("send {n}"), send.clone()).await.map(Some),
                true => {
                    let fetch = FetchRefund { refund: send.clone(), provider_refund: called.clone() };
                    cx.activity(&format!("fetch {n}"), fetch).await
                }
            };
            match asked {
                Ok(Some(seen)) if seen.state == RefundState::Pending => {
                    (on_its_way, called) = (true, seen.provider_refund.clone());
                    may_be_there |= !send.account.gateway.knows_keys();
                    let called = &called;
                    cx.step(&format!("called {n}"), async move |db: Db<'_>| {
                        let note =
                            async |db: Db<'_>| Ok::<_, Failure>(refund::called(db, id, called.as_deref()).await?);
                        scope.within(db, note).await
                    })
                    .await?;
                }
                Ok(Some(seen)) => return self.end(cx, seen).await,
                Ok(None) if may_be_there => {
                    tries += 1;
                    if tries >= MOST_LOOKED_FOR {
                        let why = "it may have been sent, and the gateway does not show it";
                        return self.hand_over(cx, UNKNOWN_OUTCOME, why).await;
                    }
                }
                // It was never there: it is sent again.
                Ok(None) => on_its_way = false,
                Err(failure) if failure.is_cancelled() => {
                    return self.hand_over(cx, "workflow.cancelled", "its run was cancelled").await;
                }
                Err(failure) if failure.code == MERCHANT_CONFIG && n < MOST_CLOSED => {}
                Err(failure) if class_of(&failure) == Class::Permanent => {
                    return self.hand_over(cx, &failure.code, &failure.message).await;
                }
                Err(failure) => {
                    let is_unknown = class_of(&failure) == Class::UnknownOutcome;
                    may_be_there |= !on_its_way && is_unknown && !send.account.gateway.knows_keys();
                    on_its_way |= may_be_there;
                    tries += 1;
                    if tries >= MOST_TRIES {
                        return self.hand_over(cx, UNKNOWN_OUTCOME, "nobody can tell whether it went back").await;
                    }
                }
            }
            match cx.signal_within::<serde_json::Value>(&format!("wait {n}"), HINT, pause(n)).await {
                Err(failure) if failure.is_cancelled() => {
                    return self.hand_over(cx, "workflow.cancelled", "its run was cancelled").await;
                }
                waited => drop(waited?),
            }
        }
        self.hand_over(cx, UNKNOWN_OUTCOME, "it has been on its way for a month").await
    }
}

/// How long a look waits for the next one.
fn pause(n: u32) -> Duration {
    Duration::from_secs(300).saturating_mul(1 << n.min(7)).min(Duration::from_secs(6 * 3600))
}

impl GiveBack {
    /// The business key: one run a refund.
    pub fn key(&self) -> String {
        format!("refund:{}", self.refund_id)
    }

    fn scope(&self) -> Scope {
        Scope::tenant(Role::Identity, self.tenant_id)
    }

    /// The account as it is now: its key may have been changed.
    async fn account(&self, cx: &Context, n: u32, send: &RefundPayment) -> Result<Account, Failure> {
        let (scope, before) = (self.scope(), send.account.clone());
        cx.step(&format!("account {n}"), async move |db: Db<'_>| {
            let read = async |db: Db<'_>| {
                let found = gateway::find(db, before.gateway_id).await?.and_then(|gateway| gateway.account());
                Ok::<_, Failure>(found.unwrap_or_else(|| before.clone()))
            };
            scope.within(db, read).await
        })
        .await
    }

    /// Looks whether what was done has come back.
    async fn look(&self, cx: &Context, look: FetchRefund) -> Result<String, Failure> {
        let (scope, tenant_id, id) = (self.scope(), self.tenant_id, self.refund_id);
        for n in 1..=MOST_TRIES {
            match cx.activity(&format!("again {n}"), look.clone()).await {
                Ok(Some(seen)) if seen.state == RefundState::Refused => {
                    return cx
                        .step("came_back", async move |db: Db<'_>| {
                            let note = async |db: Db<'_>| came_back(&cx.client()?, db, tenant_id, id, &seen).await;
                            scope.within(db, note).await
                        })
                        .await;
                }
                Err(failure) if class_of(&failure) != Class::Permanent || failure.code == MERCHANT_CONFIG => {}
                _ => break,
            }
            cx.sleep(&format!("pause {n}"), pause(n)).await?;
        }
        Ok("done".into())
    }

    async fn end(&self, cx: &Context, seen: RefundSeen) -> Result<String, Failure> {
        let (code, detail) = (seen.refusal.as_deref().unwrap_or(REFUND_BY_HAND), seen.detail.as_deref().unwrap_or(""));
        if seen.state == RefundState::Refused {
            return self.hand_over(cx, code, detail).await;
        }
        let (scope, tenant_id, id, called) = (self.scope(), self.tenant_id, self.refund_id, seen.provider_refund);
        let called = called.as_deref();
        cx.step("done", async move |db: Db<'_>| {
            let done = async |db: Db<'_>| done(&cx.client()?, db, tenant_id, id, called).await;
            scope.within(db, done).await
        })
        .await
    }

    async fn hand_over(&self, cx: &Context, code: &str, detail: &str) -> Result<String, Failure> {
        let (scope, tenant_id, id) = (self.scope(), self.tenant_id, self.refund_id);
        cx.step("hand_over", async move |db: Db<'_>| {
            let hand_over = async |db: Db<'_>| {
                hand_over(&cx.client()?, &mut *db, tenant_id, id, (code, detail)).await?;
                Ok::<_, Failure>(refund::find(db, tenant_id, id).await?.map_or("gone".into(), |r| r.state))
            };
            scope.within(db, hand_over).await
        })
        .await
    }
}

/// Leaves a refund to people, who are told. Harmless when they have it, or it has ended. Begins and ends as the tenant's identity service.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn hand_over(
    workflows: &Client,
    db: Db<'_>,
    tenant_id: Uuid,
    id: Uuid,
    (code, detail): (&str, &str),
) -> Result<(), Failure> {
    if refund::by_hand(&mut *db, id, code, detail).await? { told(workflows, db, tenant_id, id).await } else { Ok(()) }
}

/// Tells whoever manages the money of a tenant that a refund waits for them.
///
/// # Errors
/// Those of the database.
pub async fn told(workflows: &Client, db: Db<'_>, tenant_id: Uuid, id: Uuid) -> Result<(), Failure> {
    let Some(found) = refund::find(&mut *db, tenant_id, id).await? else { return Ok(()) };
    let Some(paid) = payment::find(&mut *db, tenant_id, found.payment_id).await? else { return Ok(()) };
    tracing::warn!(refund.id = %id, code = found.failure_code, "people have to give money back");
    let mut told = settle::told(&paid, &paid.state);
    told["reason"] = json!(found.failure_code);
    told["refund_id"] = json!(id);
    settle::tell_managers(workflows, db, &paid, "payment.review", told).await
}

/// Tells operators of refunds that people have not made for an hour, once; gives how many. Begins and ends as the platform's identity
/// service.
///
/// # Errors
/// Those of the database.
pub async fn page_operators(workflows: &Client, db: Db<'_>) -> Result<usize, Failure> {
    let waiting = refund::waiting(&mut *db, 500).await?;
    let occurred_at = subscription::now(&mut *db).await?;
    for (of, subject, code) in &waiting {
        let (tenant_id, subject, kind, user_id) = (DEFAULT_TENANT, *subject, "payment.waiting", None);
        let data = json!({"object": "payment", "state": "refunding", "tenant_id": of, "reason": code});
        events::happened(workflows, &mut *db, Event { tenant_id, kind, subject, user_id, data, occurred_at }).await?;
    }
    Ok(waiting.len())
}

/// What was done, and is to be looked at.
async fn begin_again(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> Result<Begun, Failure> {
    let Some(found) = refund::find(&mut *db, tenant_id, id).await? else { return Ok(Begun::Over("gone".into())) };
    let Some(paid) = payment::find(&mut *db, tenant_id, found.payment_id).await? else {
        return Ok(Begun::Over("gone".into()));
    };
    let account = match paid.gateway_id {
        Some(gateway) => gateway::find(db, gateway).await?.and_then(|gateway| gateway.account()),
        None => None,
    };
    let provider_refund = found.provider_refund.clone();
    let is_done = found.state == "done" && provider_refund.is_some();
    let look = account.filter(|account| is_done && !account.gateway.is_manual());
    Ok(match look.and_then(|account| sent(account, &paid, &found)) {
        Some(refund) => Begun::Look(Box::new(FetchRefund { refund, provider_refund })),
        None => Begun::Over(found.state),
    })
}

/// What the gateway is asked to give back; none of what it never had.
fn sent(account: Account, paid: &payment::Payment, found: &refund::Refund) -> Option<RefundPayment> {
    Some(RefundPayment {
        account,
        refund_id: found.id,
        due: Due { payment_id: paid.id, amount: paid.amount, currency: paid.currency.clone() },
        provider_ref: paid.provider_ref.clone()?,
        provider_txn: paid.provider_txn.clone()?,
        amount: found.amount,
        since: found.created_at,
    })
}

/// What was done has come back: its payer still has to get it, so people have to see to it. What was taken back stays taken back, and its
/// credit note counts.
async fn came_back(
    workflows: &Client,
    db: Db<'_>,
    tenant_id: Uuid,
    id: Uuid,
    seen: &RefundSeen,
) -> Result<String, Failure> {
    let Some(found) = refund::find(&mut *db, tenant_id, id).await? else { return Ok("gone".into()) };
    state::lock(&mut *db, tenant_id, found.payment_id).await?;
    if refund::reopen(&mut *db, id, seen.detail.as_deref().unwrap_or("its gateway does not say why")).await? {
        state::recount(&mut *db, found.payment_id).await?;
        told(workflows, &mut *db, tenant_id, id).await?;
    }
    Ok(refund::find(db, tenant_id, id).await?.map_or("gone".into(), |r| r.state))
}

async fn begin(workflows: &Client, db: Db<'_>, tenant_id: Uuid, id: Uuid, run_id: Uuid) -> Result<Begun, Failure> {
    let Some(found) = refund::find(&mut *db, tenant_id, id).await? else { return Ok(Begun::Over("gone".into())) };
    let Some(paid) = state::lock(&mut *db, tenant_id, found.payment_id).await? else {
        return Ok(Begun::Over("gone".into()));
    };
    refund::taken_by(&mut *db, id, run_id).await?;
    if !refund::sending(&mut *db, id).await? {
        return Ok(Begun::Over(found.state));
    }
    state::recount(&mut *db, paid.id).await?;
    let account = match paid.gateway_id {
        Some(gateway) => gateway::find(&mut *db, gateway).await?.and_then(|gateway| gateway.account()),
        None => None,
    };
    let is_manual = account.as_ref().is_some_and(|account| account.gateway.is_manual());
    let send = account.filter(|_| !is_manual).and_then(|account| sent(account, &paid, &found));
    let Some(send) = send else {
        let why = if is_manual { "it was paid by hand, and goes back by hand" } else { "no gateway has the money" };
        hand_over(workflows, db, tenant_id, id, (REFUND_BY_HAND, why)).await?;
        return Ok(Begun::Over("manual".into()));
    };
    Ok(Begun::Send(Box::new(send)))
}

/// Money went back: the refund is done, its credit note is issued, what was bought is taken back as was agreed. Gives the state of the
/// refund. Begins and ends as the tenant's identity service.
///
/// # Errors
/// Those of the database.
pub async fn done(
    workflows: &Client,
    db: Db<'_>,
    tenant_id: Uuid,
    id: Uuid,
    provider_refund: Option<&str>,
) -> Result<String, Failure> {
    let Some(found) = refund::find(&mut *db, tenant_id, id).await? else { return Ok("gone".into()) };
    let Some(paid) = state::lock(&mut *db, tenant_id, found.payment_id).await? else { return Ok("gone".into()) };
    let is_used = match provider_refund {
        Some(name) => refund::is_used(&mut *db, id, name).await?,
        None => false,
    };
    if is_used {
        let why = "the movement of money is that of another refund";
        hand_over(workflows, &mut *db, tenant_id, id, (REFUND_BY_HAND, why)).await?;
        return Ok(refund::find(db, tenant_id, id).await?.map_or("gone".into(), |r| r.state));
    }
    if !refund::end(&mut *db, id, "done", provider_refund).await? {
        return Ok(refund::find(db, tenant_id, id).await?.map_or("gone".into(), |r| r.state));
    }
    let left = state::recount(&mut *db, paid.id).await?;
    // What has come back was done before: it has its credit note, and nothing is taken back twice.
    let note = match found.came_back() {
        true => None,
        false => invoice::credit_note(&mut *db, &paid, id, found.amount).await?,
    };
    if found.revoke && paid.settled_at.is_some() && !found.came_back() {
        take_back(workflows, &mut *db, &paid, &found, left == "refunded").await?;
    }
    let mut told = settle::told(&paid, &left);
    told["amount"] = json!(money::text(found.amount, &paid.currency));
    told["amount_minor"] = json!(found.amount);
    told["refund_id"] = json!(id);
    told["credit_note"] = json!(note);
    settle::tell(workflows, db, &paid, "refund.done", told).await?;
    Ok("done".into())
}

/// Nothing goes back after all: two people have said so.
///
/// # Errors
/// Those of the database.
pub async fn give_up(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> Result<(), Failure> {
    if let Some(found) = refund::find(&mut *db, tenant_id, id).await?
        && refund::end(&mut *db, id, "failed", None).await?
    {
        state::recount(db, found.payment_id).await?;
    }
    Ok(())
}

/// Takes back what was bought: the seconds that go with the money as far as they are left; a plan when all of the money went back.
async fn take_back(
    workflows: &Client,
    db: Db<'_>,
    paid: &payment::Payment,
    found: &refund::Refund,
    all: bool,
) -> Result<(), Failure> {
    match paid.snapshot().map_err(settle::unreadable)?.what {
        What::Credits { seconds, .. } => {
            // Of all that went back so far: parts take as much as the whole.
            let upto = |amount: i64| i128::from(seconds) * i128::from(amount) / i128::from(paid.amount.max(1));
            let before = refund::taken_back_before(&mut *db, paid.id, found.id).await?;
            let part = upto(before.saturating_add(found.amount)) - upto(before);
            let account = credit::open_locked(&mut *db, paid.tenant_id, Some(paid.user_id)).await?;
            let left = credit::left_of(&mut *db, &account, &settle::credits_key(paid.id)).await?;
            let back = i64::try_from(part).unwrap_or(seconds).min(left);
            if back > 0 {
                let key = format!("refund:{}", found.id);
                let _ = credit::grant(db, account.id, &key, -back, Reason::Refund).await?;
            }
        }
        What::Plan { .. } if all => {
            if let Some((now, _)) = subscription::revoke(&mut *db, paid.tenant_id, paid.id).await? {
                keeping::wake(workflows, db, &now).await?;
            }
        }
        What::Plan { .. } => {}
    }
    Ok(())
}
