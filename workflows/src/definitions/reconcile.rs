//! Our books against those of the gateways. What is found is only a hint: each payment is asked for by itself.
//!
//! - every five minutes: what is stuck is looked at, what gateways list and nobody took is matched, and operators are told of payments
//!   that people have not looked at for an hour;
//! - every day: the sums of the day before.

use super::{
    events::{self, Event},
    payment::{HINT, TakePayment},
};
use crate::{
    contracts::pay::{Account, Gateway as Provider, ListSettlements, ListUnsettled, UnsettledList},
    models::{
        DEFAULT_TENANT, Db, Role, Scope,
        identity::{
            gateway,
            reconciliation::{self, Matched, Stuck},
            subscription,
        },
    },
};
use chrono::{NaiveDate, TimeDelta};
use flatrender_engine::{Client, Context, Failure, Workflow};
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

/// Payments of a run.
const MOST: i64 = 500;
/// How far back gateways are asked for what nobody took.
const BACK: TimeDelta = TimeDelta::hours(72);

/// Looks at payments that are stuck, and for money that nobody took. Repeating it is harmless.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReconcilePayments {}

/// What a run has found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconciled {
    /// Payments that are looked at again.
    pub looked: usize,
    /// Money that nobody took.
    pub unmatched: usize,
    /// Payments that wait for people.
    pub waiting: usize,
}

/// An account, and whose it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Counter {
    tenant_id: Uuid,
    account: Account,
}

impl Workflow for ReconcilePayments {
    const NAME: &'static str = "reconcile_payments";
    type Output = Reconciled;

    async fn run(self, cx: &Context) -> Result<Reconciled, Failure> {
        let scope = Scope::platform(Role::Identity);
        let mut looked = cx
            .step("stuck", async move |db: Db<'_>| {
                let look = async |db: Db<'_>| {
                    let stuck = reconciliation::stuck(&mut *db, MOST).await?;
                    wake(&cx.client()?, db, &stuck).await?;
                    Ok::<_, Failure>(stuck.len())
                };
                scope.within(db, look).await
            })
            .await?;
        let waiting = cx
            .step("waiting", async move |db: Db<'_>| {
                scope.within(db, async |db: Db<'_>| page_operators(&cx.client()?, db).await).await
            })
            .await?;
        let mut unmatched = 0;
        let lists = counters(cx).await?.into_iter().map(async |counter| {
            let gateway_id = counter.account.gateway_id;
            let ask = ListUnsettled { account: counter.account.clone(), since: cx.now() - BACK };
            (counter, cx.activity(&format!("list {gateway_id}"), ask).await)
        });
        for (counter, list) in join_all(lists).await {
            // A gateway that cannot be asked is asked again in five minutes.
            let Ok(list) = list else { continue };
            let (counter, list) = (&counter, &list);
            let (found, noted) = cx
                .step(&format!("match {}", counter.account.gateway_id), async move |db: Db<'_>| {
                    scope.within(db, async |db: Db<'_>| match_all(&cx.client()?, db, counter, list).await).await
                })
                .await?;
            looked += found;
            unmatched += noted;
        }
        Ok(Reconciled { looked, unmatched, waiting })
    }
}

/// Who can be asked.
async fn counters(cx: &Context) -> Result<Vec<Counter>, Failure> {
    let scope = Scope::platform(Role::Identity);
    cx.step("gateways", async move |db: Db<'_>| {
        let list = async |db: Db<'_>| {
            let all = gateway::all(db).await?.into_iter().filter(|g| g.provider != Provider::Manual.as_str());
            let counter = |g: gateway::Gateway| Some(Counter { tenant_id: g.tenant_id, account: g.account()? });
            Ok::<_, Failure>(all.filter_map(counter).collect())
        };
        scope.within(db, list).await
    })
    .await
}

/// Wakes the runs of payments, or starts one where there is none any more.
async fn wake(workflows: &Client, db: Db<'_>, stuck: &[Stuck]) -> Result<(), Failure> {
    Scope::platform(Role::Workflow).enter(&mut *db).await?;
    for Stuck { tenant_id, payment_id, run_id } in stuck {
        match run_id {
            Some(run_id) => {
                let _ = workflows.signal(&mut *db, *run_id, HINT, None, &serde_json::Value::Null).await?;
            }
            None => {
                let (tenant_id, payment_id) = (*tenant_id, *payment_id);
                let again = TakePayment { tenant_id, payment_id, again: true, return_page: String::new() };
                workflows.start(&mut *db, tenant_id, None, again).await?;
            }
        }
    }
    Ok(Scope::platform(Role::Identity).enter(db).await?)
}

async fn match_all(
    workflows: &Client,
    db: Db<'_>,
    counter: &Counter,
    list: &UnsettledList,
) -> Result<(usize, usize), Failure> {
    let (tenant_id, gateway_id) = (counter.tenant_id, counter.account.gateway_id);
    // At Stripe other systems may share the account, and say nothing of ours; ZarinPal cannot tell.
    let ours = counter.account.gateway == Provider::Zarinpal;
    let (mut look, mut noted) = (vec![], 0);
    for paid in &list.payments {
        match reconciliation::match_one(&mut *db, tenant_id, gateway_id, ours, paid).await? {
            Matched::Known => {}
            Matched::Look(stuck) => look.push(stuck),
            Matched::Noted => {
                noted += 1;
                tracing::error!(gateway.id = %gateway_id, reference = paid.provider_ref, "a gateway has money that nobody took");
            }
        }
    }
    wake(workflows, db, &look).await?;
    Ok((look.len(), noted))
}

/// Tells operators of payments that people have not looked at for an hour.
async fn page_operators(workflows: &Client, db: Db<'_>) -> Result<usize, Failure> {
    let waiting = reconciliation::waiting(&mut *db, MOST).await?;
    let occurred_at = subscription::now(&mut *db).await?;
    for (of, payment, code) in &waiting {
        let data = json!({"object": "payment", "state": "review", "tenant_id": of, "reason": code});
        let event = Event {
            tenant_id: DEFAULT_TENANT,
            kind: "payment.waiting",
            subject: *payment,
            user_id: None,
            data,
            occurred_at,
        };
        events::happened(workflows, &mut *db, event).await?;
    }
    Ok(waiting.len())
}

/// Compares the movements of a day with ours. Repeating it is harmless.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CompareSettlements {
    /// Which day; the one that ended last when absent.
    #[serde(default)]
    pub day: Option<NaiveDate>,
}

impl Workflow for CompareSettlements {
    const NAME: &'static str = "compare_settlements";
    /// How many sums differ.
    type Output = usize;

    async fn run(self, cx: &Context) -> Result<usize, Failure> {
        let scope = Scope::platform(Role::Identity);
        let day = match self.day {
            Some(day) => day,
            None => {
                cx.step("day", async move |db: Db<'_>| {
                    scope.within(db, async |db: Db<'_>| Ok::<_, Failure>(reconciliation::yesterday(db).await?)).await
                })
                .await?
            }
        };
        let statements = counters(cx).await?.into_iter().map(async |counter| {
            let ask = ListSettlements { account: counter.account.clone(), day };
            let key = format!("statement {}", counter.account.gateway_id);
            (counter, cx.activity(&key, ask).await)
        });
        let mut differing = 0;
        for (counter, statement) in join_all(statements).await {
            let Some(statement) = statement.ok().filter(|statement| statement.told && statement.complete) else {
                continue;
            };
            let (counter, lines) = (&counter, &statement.lines);
            differing += cx
                .step(&format!("compare {}", counter.account.gateway_id), async move |db: Db<'_>| {
                    let which = (counter.tenant_id, counter.account.gateway_id, counter.account.gateway.as_str());
                    let compare =
                        async |db: Db<'_>| Ok::<_, Failure>(reconciliation::compare(db, which, day, lines).await?);
                    scope.within(db, compare).await
                })
                .await?;
        }
        Ok(differing)
    }
}
