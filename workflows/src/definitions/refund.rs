//! Money goes back.
//!
//! ```text
//! send ─┬─▶ done: the refund, its credit note, what was bought is taken back, in one commit
//!       ├─▶ pending: ask again later, for a month
//!       └─▶ refused, or nobody knows for days: people have to, and two of them say that they did
//! ```

use super::payment::settle;
use crate::{
    contracts::pay::{
        Class, Due, FetchRefund, REFUND_BY_HAND, RefundPayment, RefundSeen, RefundState, UNKNOWN_OUTCOME, class_of,
    },
    models::{
        Db, Role, Scope,
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

/// Gives money back, for a refund that is approved.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GiveBack {
    /// Its tenant.
    pub tenant_id: Uuid,
    /// The refund.
    pub refund_id: Uuid,
}

/// What is known at the begin.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Begun {
    Over(String),
    Send(Box<RefundPayment>),
}

impl Workflow for GiveBack {
    const NAME: &'static str = "refund";
    /// The state it ended in.
    type Output = String;

    async fn run(self, cx: &Context) -> Result<String, Failure> {
        let (scope, tenant_id, id, run_id) = (self.scope(), self.tenant_id, self.refund_id, cx.run_id());
        let begun = cx
            .step("begin", async move |db: Db<'_>| {
                scope.within(db, async |db: Db<'_>| begin(&cx.client()?, db, tenant_id, id, run_id).await).await
            })
            .await?;
        let send = match begun {
            Begun::Over(state) => return Ok(state),
            Begun::Send(send) => *send,
        };
        let (mut tries, mut on_its_way, mut called) = (0, false, None);
        for n in 1..=MOST_LOOKS {
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
                    let called = &called;
                    cx.step(&format!("called {n}"), async move |db: Db<'_>| {
                        let note =
                            async |db: Db<'_>| Ok::<_, Failure>(refund::called(db, id, called.as_deref()).await?);
                        scope.within(db, note).await
                    })
                    .await?;
                }
                Ok(Some(seen)) => return self.end(cx, seen).await,
                // It was never there: it is sent again.
                Ok(None) => on_its_way = false,
                Err(failure) if failure.is_cancelled() => {
                    return self.hand_over(cx, "workflow.cancelled", "its run was cancelled").await;
                }
                Err(failure) if class_of(&failure) == Class::Permanent => {
                    return self.hand_over(cx, &failure.code, &failure.message).await;
                }
                Err(_) => {
                    tries += 1;
                    if tries >= MOST_TRIES {
                        return self.hand_over(cx, UNKNOWN_OUTCOME, "nobody can tell whether it went back").await;
                    }
                }
            }
            let pause = Duration::from_secs(300).saturating_mul(1 << n.min(7)).min(Duration::from_secs(6 * 3600));
            match cx.signal_within::<serde_json::Value>(&format!("wait {n}"), HINT, pause).await {
                Err(failure) if failure.is_cancelled() => {
                    return self.hand_over(cx, "workflow.cancelled", "its run was cancelled").await;
                }
                waited => drop(waited?),
            }
        }
        self.hand_over(cx, UNKNOWN_OUTCOME, "it has been on its way for a month").await
    }
}

impl GiveBack {
    /// The business key: one run a refund.
    pub fn key(&self) -> String {
        format!("refund:{}", self.refund_id)
    }

    fn scope(&self) -> Scope {
        Scope::tenant(Role::Identity, self.tenant_id)
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
                refund::by_hand(&mut *db, id, code, detail).await?;
                Ok::<_, Failure>(refund::find(db, tenant_id, id).await?.map_or("gone".into(), |r| r.state))
            };
            scope.within(db, hand_over).await
        })
        .await
    }
}

async fn begin(_workflows: &Client, db: Db<'_>, tenant_id: Uuid, id: Uuid, run_id: Uuid) -> Result<Begun, Failure> {
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
    let (Some(account), Some(provider_ref), Some(provider_txn)) = (account, paid.provider_ref, paid.provider_txn)
    else {
        refund::by_hand(db, id, REFUND_BY_HAND, "no gateway has the money").await?;
        return Ok(Begun::Over("manual".into()));
    };
    if account.gateway.is_manual() {
        refund::by_hand(db, id, REFUND_BY_HAND, "it was paid by hand, and goes back by hand").await?;
        return Ok(Begun::Over("manual".into()));
    }
    let due = Due { payment_id: paid.id, amount: paid.amount, currency: paid.currency };
    Ok(Begun::Send(Box::new(RefundPayment {
        account,
        refund_id: id,
        due,
        provider_ref,
        provider_txn,
        amount: found.amount,
        since: found.created_at,
    })))
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
    if !refund::end(&mut *db, id, "done", provider_refund).await? {
        return Ok(refund::find(db, tenant_id, id).await?.map_or("gone".into(), |r| r.state));
    }
    let left = state::recount(&mut *db, paid.id).await?;
    let note = invoice::credit_note(&mut *db, &paid, id, found.amount).await?;
    if found.revoke && paid.settled_at.is_some() {
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

/// Takes back what was bought: the seconds that go with the money as far as they are free; a plan when all of the money went back.
async fn take_back(
    workflows: &Client,
    db: Db<'_>,
    paid: &payment::Payment,
    found: &refund::Refund,
    all: bool,
) -> Result<(), Failure> {
    match paid.snapshot().map_err(settle::unreadable)?.what {
        What::Credits { seconds, .. } => {
            let part = i128::from(seconds) * i128::from(found.amount) / i128::from(paid.amount.max(1));
            let account = credit::open(&mut *db, paid.tenant_id, Some(paid.user_id)).await?;
            let back = i64::try_from(part).unwrap_or(seconds).min(account.free());
            if back > 0 {
                let key = format!("refund:{}", found.id);
                let _ = credit::grant(db, account.id, &key, -back, Reason::Refund).await?;
            }
        }
        What::Plan { .. } if all => {
            if let Some((now, _)) = subscription::revoke(&mut *db, paid.tenant_id, paid.id).await? {
                settle::wake(workflows, db, &now, false).await?;
            }
        }
        What::Plan { .. } => {}
    }
    Ok(())
}
