//! Our books against those of the gateways. What is found is only a hint: each payment is asked for by itself.
//!
//! - every five minutes: what is stuck is looked at, what gateways list and nobody took is matched, and operators are told of payments
//!   that people have not looked at for an hour;
//! - every day: the sums of the seven days before, as some movements are told of late.
//!
//! A gateway that does not answer delays nobody but itself.

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
            reconciliation::{self, Books, Matched, Stuck},
            subscription,
        },
    },
};
use chrono::{Days, NaiveDate, TimeDelta};
use flatrender_engine::{Activity, Client, Context, Failure, Workflow};
use futures::future::{Either, join_all, select};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{collections::BTreeMap, pin::pin, time::Duration};
use uuid::Uuid;

/// Payments of a run.
const MOST: i64 = 500;
/// How long a gateway may take to answer, with all attempts.
const PATIENCE: Duration = Duration::from_secs(120);
/// Days that are compared each night: those before may have been looked at while a gateway could not be asked.
const DAYS: u64 = 7;
/// Accounts, or several of a tenant at one provider, that are compared at a time.
const AT_A_TIME: usize = 10;
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
        let counters = counters(cx).await?;
        let matching = counters.iter().map(async |counter| {
            let gateway_id = counter.account.gateway_id;
            let ask = ListUnsettled { account: counter.account.clone(), since: cx.now() - BACK };
            // A gateway that cannot be asked is asked again in five minutes.
            let Some(list) = patiently(cx, &format!("list {gateway_id}"), ask).await? else { return Ok((0, 0)) };
            let list = &list;
            cx.step(&format!("match {gateway_id}"), async move |db: Db<'_>| {
                scope.within(db, async |db: Db<'_>| match_all(&cx.client()?, db, counter, list).await).await
            })
            .await
        });
        for matched in join_all(matching).await {
            let (found, noted): (usize, usize) = matched?;
            looked += found;
            unmatched += noted;
        }
        Ok(Reconciled { looked, unmatched, waiting })
    }
}

/// Asks a gateway; none when it has not answered well, or not in time.
///
/// # Errors
/// The run is cancelled.
async fn patiently<A: Activity>(cx: &Context, key: &str, ask: A) -> Result<Option<A::Output>, Failure> {
    let patience = format!("patience of {key}");
    match select(pin!(cx.activity(key, ask)), pin!(cx.sleep(&patience, PATIENCE))).await {
        Either::Left((Err(failure), _)) | Either::Right((Err(failure), _)) if failure.is_cancelled() => Err(failure),
        Either::Left((answer, _)) => Ok(answer.ok()),
        Either::Right(_) => Ok(None),
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

/// Compares the movements of days with ours. Repeating it is harmless.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CompareSettlements {
    /// Which day; the seven that ended last when absent.
    #[serde(default)]
    pub day: Option<NaiveDate>,
    /// Whose were compared by the run before: those up to this tenant and provider, where so many sums differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<(Uuid, String, usize)>,
}

/// The accounts of a tenant at a provider: several may be one and the same there, so they are compared as one.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Shelf {
    tenant_id: Uuid,
    provider: String,
    accounts: Vec<Account>,
}

impl Workflow for CompareSettlements {
    const NAME: &'static str = "compare_settlements";
    /// How many sums differ.
    type Output = usize;

    async fn run(self, cx: &Context) -> Result<usize, Failure> {
        let scope = Scope::platform(Role::Identity);
        let yesterday = cx
            .step("day", async move |db: Db<'_>| {
                scope.within(db, async |db: Db<'_>| Ok::<_, Failure>(reconciliation::yesterday(db).await?)).await
            })
            .await?;
        let last = self.day.unwrap_or(yesterday);
        let first = if self.day.is_some() { last } else { last - Days::new(DAYS - 1) };
        let (done, mut differing) = match &self.after {
            Some((tenant_id, provider, differing)) => (Some((*tenant_id, provider.as_str())), *differing),
            None => (None, 0),
        };
        let left: Vec<Shelf> = shelves(counters(cx).await?)
            .into_iter()
            .filter(|shelf| done.is_none_or(|done| (shelf.tenant_id, shelf.provider.as_str()) > done))
            .collect();
        let now = left.get(..AT_A_TIME).unwrap_or(&left);
        for compared in join_all(now.iter().map(|shelf| compare(cx, shelf, first, last))).await {
            differing += compared?;
        }
        match now.last() {
            Some(shelf) if left.len() > now.len() => {
                let after = Some((shelf.tenant_id, shelf.provider.clone(), differing));
                cx.continue_as_new(Self { day: self.day, after })
            }
            _ => Ok(differing),
        }
    }
}

/// By tenant and provider, in their order.
fn shelves(counters: Vec<Counter>) -> Vec<Shelf> {
    let mut shelves: BTreeMap<(Uuid, String), Vec<Account>> = BTreeMap::new();
    for Counter { tenant_id, account } in counters {
        shelves.entry((tenant_id, account.gateway.as_str().to_owned())).or_default().push(account);
    }
    shelves.into_iter().map(|((tenant_id, provider), accounts)| Shelf { tenant_id, provider, accounts }).collect()
}

/// Compares the days from `first` to `last`; those beside them tell of what one side counts on another day.
async fn compare(cx: &Context, shelf: &Shelf, first: NaiveDate, last: NaiveDate) -> Result<usize, Failure> {
    let (from, to) = (first - Days::new(1), last + Days::new(1));
    let days: Vec<NaiveDate> = from.iter_days().take_while(|day| *day <= to).collect();
    let statements = shelf.accounts.iter().flat_map(|account| days.iter().map(move |day| (account, *day)));
    let statements = statements.map(async |(account, day)| {
        let key = format!("statement {} {day}", account.gateway_id);
        let told = patiently(cx, &key, ListSettlements { account: account.clone(), day }).await?;
        // The day that is not over may be told of in part.
        let told = told.filter(|told| told.told && (told.complete || day > last));
        Ok::<_, Failure>(told.map(|told| (account.gateway_id, day, told.lines)))
    });
    let (mut lines, mut told) = (vec![], vec![]);
    for statement in join_all(statements).await {
        if let Some((gateway_id, day, more)) = statement? {
            lines.extend(more);
            told.push((gateway_id, day));
        }
    }
    let (scope, lines, told) = (Scope::platform(Role::Identity), &lines, &told);
    cx.step(&format!("compare {} {}", shelf.tenant_id, shelf.provider), async move |db: Db<'_>| {
        let books = Books { tenant_id: shelf.tenant_id, provider: &shelf.provider, first, last, told };
        let compare = async |db: Db<'_>| Ok::<_, Failure>(reconciliation::compare(db, &books, lines).await?);
        scope.within(db, compare).await
    })
    .await
}
