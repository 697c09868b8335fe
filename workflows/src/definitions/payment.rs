//! A payment, from the moment it is opened until its money is ours, or none comes.
//!
//! ```text
//! open (API) ─▶ create at the gateway ─▶ wait: a hint, a quarter of an hour, or the end of its time
//!                                           │  ▲ not paid yet
//!                                           ▼  │
//!                                         verify ─┬─▶ settle: paid, what was bought, its bill, in one commit
//!                                                 ├─▶ failed, cancelled, expired
//!                                                 └─▶ review: money came that is not what was meant
//! ```
//!
//! Callbacks, webhooks, cancellations and decisions of people are hints: each wakes the run, which looks at the row and asks the gateway.

pub mod receipt;
pub mod settle;

use crate::{
    contracts::pay::{
        Account, Class, CreatePayment, Created, Due, ExpirePayment, MERCHANT_CONFIG, PaymentState, Seen, VerifyPayment,
        class_of,
    },
    models::{
        Db, Role, Scope,
        identity::{
            gateway,
            payment::{self, state},
            user,
        },
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use flatrender_engine::{Client, Context, Failure, Workflow};
use futures::future::{Either, select};
use serde::{Deserialize, Serialize};
use std::{pin::pin, time::Duration};
use uuid::Uuid;

/// The signal that there may be something to see.
pub const HINT: &str = "hint";
/// Somebody looks at least so often.
const POLL: Duration = Duration::from_secs(15 * 60);
/// A gateway that does not answer is asked anew after so long, however patient the call is.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// How long after its end a payment is looked at whose bank, or gateway, has not said anything yet.
const GRACE: TimeDelta = TimeDelta::days(14);
/// Looks of one run, before it goes on as another.
const MOST_LOOKS: u32 = 50;

/// Sees to one payment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TakePayment {
    /// Its tenant.
    pub tenant_id: Uuid,
    /// The payment.
    pub payment_id: Uuid,
    /// Its gateway is asked once, although it has ended: money may have come late.
    #[serde(default)]
    pub again: bool,
    /// The page of ours that its payer comes back to.
    #[serde(default)]
    pub return_page: String,
}

/// What is known of a payment at the begin of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Begun {
    /// It has ended so.
    Over(String),
    /// It is to be opened at its gateway.
    Open(Box<CreatePayment>),
    /// It was.
    Opened(Box<Opened>),
}

/// A payment that its gateway knows.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Opened {
    /// As it was when the run began: each look reads it anew, since its key may be changed.
    account: Account,
    due: Due,
    provider_ref: String,
}

/// What is to be done next.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Look {
    /// It has ended so.
    Over(String),
    /// Wait until then, unless there is a hint.
    Wait(DateTime<Utc>),
    /// Ask the gateway, with the account as it is now.
    Ask {
        /// The account.
        account: Box<Account>,
        /// Have it close the payment, which is `expired` or `cancelled` then.
        closing: Option<String>,
    },
}

impl Workflow for TakePayment {
    const NAME: &'static str = "payment";
    /// The state it ended in.
    type Output = String;

    async fn run(self, cx: &Context) -> Result<String, Failure> {
        let opened = match self.begin(cx).await? {
            Begun::Over(state) => return Ok(state),
            Begun::Opened(opened) => *opened,
            Begun::Open(create) => match self.create(cx, self.returning(*create)).await? {
                Ok(opened) => opened,
                Err(state) => return Ok(state),
            },
        };
        for n in 1..=MOST_LOOKS {
            match self.look(cx, n, &opened).await? {
                Look::Over(state) => return Ok(state),
                Look::Wait(until) => {
                    let left = (until - cx.now()).to_std().unwrap_or(Duration::ZERO);
                    match cx.signal_within::<serde_json::Value>(&format!("wait {n}"), HINT, left).await {
                        Err(failure) if failure.is_cancelled() => return self.give_up(cx).await,
                        waited => drop(waited?),
                    }
                }
                Look::Ask { account, closing } => {
                    let now = Opened { account: *account, ..opened.clone() };
                    let mut asked = ask_gateway(cx, &n.to_string(), &now, closing.is_some()).await;
                    // It was paid after all, and the gateway gives the money back unless we say that we want it.
                    if closing.is_some() && asked.as_ref().is_ok_and(|seen| seen.state == PaymentState::Authorized) {
                        asked = ask_gateway(cx, &format!("{n} after all"), &now, false).await;
                    }
                    if asked.as_ref().is_err_and(Failure::is_cancelled) {
                        return self.give_up(cx).await;
                    }
                    if let Some(state) = self.note(cx, n, &opened, closing, asked).await? {
                        return Ok(state);
                    }
                }
            }
        }
        cx.continue_as_new(self)
    }
}

/// Asks what became of it; an answer that takes too long is asked for anew by the next look.
async fn ask_gateway(cx: &Context, n: &str, opened: &Opened, close: bool) -> Result<Seen, Failure> {
    let Opened { account, due, provider_ref } = opened.clone();
    let key = format!("ask {n}");
    let ask = async {
        match close {
            false => cx.activity(&key, VerifyPayment { account, due, provider_ref }).await,
            true => cx.activity(&key, ExpirePayment { account, due, provider_ref }).await,
        }
    };
    let patience = format!("patience {n}");
    match select(pin!(ask), pin!(cx.sleep(&patience, PATIENCE))).await {
        Either::Left((asked, _)) => asked,
        Either::Right((Err(failure), _)) => Err(failure),
        Either::Right((Ok(()), _)) => {
            Err(Failure::transient(crate::contracts::pay::UNREACHABLE, "the gateway has not answered in time"))
        }
    }
}

impl TakePayment {
    /// The business key: one run a payment.
    pub fn key(&self) -> String {
        format!("payment:{}", self.payment_id)
    }

    fn scope(&self) -> Scope {
        Scope::tenant(Role::Identity, self.tenant_id)
    }

    fn returning(&self, create: CreatePayment) -> CreatePayment {
        CreatePayment { return_url: self.return_page.clone(), ..create }
    }

    async fn begin(&self, cx: &Context) -> Result<Begun, Failure> {
        let (scope, tenant_id, id, again, run_id) =
            (self.scope(), self.tenant_id, self.payment_id, self.again, cx.run_id());
        cx.step("begin", async move |db: Db<'_>| {
            scope.within(db, async |db: Db<'_>| begin(db, tenant_id, id, again, run_id).await).await
        })
        .await
    }

    /// Opens it at its gateway; gives the state it ended in when it cannot be.
    async fn create(&self, cx: &Context, create: CreatePayment) -> Result<Result<Opened, String>, Failure> {
        let (account, due) = (create.account.clone(), create.due.clone());
        let created = match cx.activity("create", create).await {
            Err(failure) if failure.is_cancelled() => return Ok(Err(self.give_up(cx).await?)),
            created => created,
        };
        let (scope, tenant_id, id, tried) = (self.scope(), self.tenant_id, self.payment_id, &created);
        let state = cx
            .step("created", async move |db: Db<'_>| {
                let note = async |db: Db<'_>| created_at(&cx.client()?, db, tenant_id, id, tried).await;
                scope.within(db, note).await
            })
            .await?;
        let provider_ref = match (state, created) {
            (Some(state), _) => return Ok(Err(state)),
            (None, Ok(created)) => created.provider_ref,
            // Somebody else has opened it: it goes on with that.
            (None, Err(_)) => match self.opened_before(cx).await? {
                Some(provider_ref) => provider_ref,
                None => return Ok(Err("failed".into())),
            },
        };
        Ok(Ok(Opened { account, due, provider_ref }))
    }

    /// What the gateway calls it, as it is written down.
    async fn opened_before(&self, cx: &Context) -> Result<Option<String>, Failure> {
        let (scope, tenant_id, id) = (self.scope(), self.tenant_id, self.payment_id);
        cx.step("opened before", async move |db: Db<'_>| {
            let read = async |db: Db<'_>| {
                Ok::<_, Failure>(payment::find(db, tenant_id, id).await?.and_then(|found| found.provider_ref))
            };
            scope.within(db, read).await
        })
        .await
    }

    async fn look(&self, cx: &Context, n: u32, opened: &Opened) -> Result<Look, Failure> {
        let (scope, tenant_id, id, again, now) = (self.scope(), self.tenant_id, self.payment_id, self.again, cx.now());
        let account = &opened.account;
        cx.step(&format!("look {n}"), async move |db: Db<'_>| {
            let look = async |db: Db<'_>| look(db, (tenant_id, id), (n, again), account, now).await;
            scope.within(db, look).await
        })
        .await
    }

    /// Writes down what the gateway says; gives the state when it has ended with that.
    async fn note(
        &self,
        cx: &Context,
        n: u32,
        opened: &Opened,
        closing: Option<String>,
        asked: Result<Seen, Failure>,
    ) -> Result<Option<String>, Failure> {
        let (scope, tenant_id, id, again) = (self.scope(), self.tenant_id, self.payment_id, self.again);
        let (due, closing, asked) = (&opened.due, closing.as_deref(), &asked);
        cx.step(&format!("note {n}"), async move |db: Db<'_>| {
            let note = async |db: Db<'_>| note(&cx.client()?, db, (tenant_id, id), due, (closing, again), asked).await;
            scope.within(db, note).await
        })
        .await
    }

    /// The run is asked to stop: what its payment is, people decide.
    async fn give_up(&self, cx: &Context) -> Result<String, Failure> {
        let (scope, tenant_id, id) = (self.scope(), self.tenant_id, self.payment_id);
        cx.step("give_up", async move |db: Db<'_>| {
            let give_up = async |db: Db<'_>| {
                let why = "its run was cancelled";
                settle::review(&cx.client()?, &mut *db, tenant_id, id, "workflow.cancelled", why).await?;
                Ok::<_, Failure>(payment::find(db, tenant_id, id).await?.map_or("gone".into(), |p| p.state))
            };
            scope.within(db, give_up).await
        })
        .await
    }
}

async fn begin(db: Db<'_>, tenant_id: Uuid, id: Uuid, again: bool, run_id: Uuid) -> Result<Begun, Failure> {
    let Some(found) = state::lock(&mut *db, tenant_id, id).await? else { return Ok(Begun::Over("gone".into())) };
    if !(found.is_open() || again && found.may_come_late()) {
        return Ok(Begun::Over(found.state));
    }
    if !again {
        state::taken_by(&mut *db, id, run_id).await?;
    }
    let account = match found.gateway_id {
        Some(gateway) => gateway::find(&mut *db, gateway).await?.and_then(|gateway| gateway.account()),
        None => None,
    };
    let account = account.ok_or_else(|| Failure::permanent("payment.no_gateway", "the payment has no gateway"))?;
    let due = Due { payment_id: id, amount: found.amount, currency: found.currency.clone() };
    if let Some(provider_ref) = found.provider_ref {
        return Ok(Begun::Opened(Box::new(Opened { account, due, provider_ref })));
    }
    // Nobody has been sent to it yet; its own run opens it.
    if again {
        return Ok(Begun::Over(found.state));
    }
    let payer = user::find(&mut *db, tenant_id, found.user_id).await?;
    let language = payer.as_ref().map_or_else(|| "en".to_owned(), |payer| payer.locale.clone());
    let snapshot = found.snapshot().map_err(settle::unreadable)?;
    Ok(Begun::Open(Box::new(CreatePayment {
        account,
        due,
        description: snapshot.what.text(&language).chars().take(200).collect(),
        return_url: String::new(),
        expires_at: found.expires_at,
        email: payer.and_then(|payer| payer.email),
        language,
    })))
}

/// The gateway has opened it, or has not; gives the state it ended in.
async fn created_at(
    workflows: &Client,
    db: Db<'_>,
    tenant_id: Uuid,
    id: Uuid,
    created: &Result<Created, Failure>,
) -> Result<Option<String>, Failure> {
    let Some(found) = state::lock(&mut *db, tenant_id, id).await? else { return Ok(Some("gone".into())) };
    if found.state != "created" {
        return Ok((!found.is_open()).then_some(found.state));
    }
    match created {
        Ok(created) if state::opened(&mut *db, id, created).await? => Ok(None),
        Ok(_) => {
            let why = "the gateway calls it as it calls another one";
            settle::review(workflows, db, tenant_id, id, "payment.reference_taken", why).await?;
            Ok(Some("review".into()))
        }
        // Nobody was sent to it: nobody can pay it.
        Err(failure) => {
            settle::fail(workflows, db, tenant_id, id, &failure.code).await?;
            Ok(Some("failed".into()))
        }
    }
}

async fn look(
    db: Db<'_>,
    (tenant_id, id): (Uuid, Uuid),
    (n, again): (u32, bool),
    account: &Account,
    now: DateTime<Utc>,
) -> Result<Look, Failure> {
    let manual = account.gateway.is_manual();
    let Some(found) = state::lock(&mut *db, tenant_id, id).await? else { return Ok(Look::Over("gone".into())) };
    let account = Box::new(
        gateway::find(&mut *db, account.gateway_id).await?.and_then(|g| g.account()).unwrap_or_else(|| account.clone()),
    );
    if again {
        return Ok(if n == 1 && !manual { Look::Ask { account, closing: None } } else { Look::Over(found.state) });
    }
    if !found.is_open() {
        return Ok(Look::Over(found.state));
    }
    let closing = match (found.cancel_asked_at, found.expires_at <= now) {
        (Some(_), _) => Some("cancelled"),
        (None, true) => Some("expired"),
        (None, false) => None,
    };
    // Every other look waits until something may have happened. What is to be closed waits only for a bank that thinks about it.
    let poll = now + TimeDelta::from_std(POLL).unwrap_or_default();
    match closing {
        None if manual => return Ok(Look::Wait(found.expires_at)),
        None if n % 2 == 1 => return Ok(Look::Wait(poll.min(found.expires_at))),
        Some(_) if n % 2 == 1 && n > 1 => return Ok(Look::Wait(poll)),
        _ => {}
    }
    state::looking(db, id).await?;
    Ok(Look::Ask { account, closing: closing.map(Into::into) })
}

async fn note(
    workflows: &Client,
    db: Db<'_>,
    (tenant_id, id): (Uuid, Uuid),
    due: &Due,
    (closing, again): (Option<&str>, bool),
    asked: &Result<Seen, Failure>,
) -> Result<Option<String>, Failure> {
    let Some(found) = state::lock(&mut *db, tenant_id, id).await? else { return Ok(Some("gone".into())) };
    if !found.is_open() && !again {
        return Ok(Some(found.state));
    }
    let late = subscription_now(&mut *db).await? > found.expires_at + GRACE;
    match asked {
        Ok(seen) if seen.settles(due) => {
            return settle::settle(workflows, db, tenant_id, id, seen).await.map(Some);
        }
        Ok(seen) if seen.needs_review(due) => {
            let wrong: Vec<String> = seen.differences.iter().map(|d| format!("{d:?}").to_lowercase()).collect();
            let said = match (seen.amount, &seen.currency) {
                (Some(amount), Some(currency)) => format!("{amount} {currency}"),
                _ => "no amount".into(),
            };
            let why = format!("{said} came for {} {}; wrong: {}", due.amount, due.currency, wrong.join(", "));
            settle::review(workflows, db, tenant_id, id, "payment.mismatch", &why).await?;
            return Ok(Some("review".into()));
        }
        // What has ended is not ended again.
        _ if again => return Ok(Some(found.state)),
        Ok(seen) => match (seen.state, closing) {
            (PaymentState::Declined, _) => {
                settle::fail(workflows, db, tenant_id, id, crate::contracts::pay::DECLINED).await?;
                return Ok(Some("failed".into()));
            }
            (PaymentState::Cancelled, _) | (PaymentState::Open | PaymentState::Expired, Some("cancelled")) => {
                state::end(db, id, "cancelled", None).await?;
                return Ok(Some("cancelled".into()));
            }
            (PaymentState::Expired, _) | (PaymentState::Open, Some(_)) => {
                settle::expire(workflows, db, tenant_id, id).await?;
                return Ok(Some("expired".into()));
            }
            (PaymentState::Refunded, _) => {
                settle::fail(workflows, db, tenant_id, id, "payment.given_back").await?;
                return Ok(Some("failed".into()));
            }
            // The bank thinks about it.
            _ => {}
        },
        // Its key may have been changed, or will be: it is asked again, until that takes too long.
        Err(failure) if failure.code == MERCHANT_CONFIG => {}
        Err(failure) if class_of(failure) == Class::Permanent => {
            let why = format!("the gateway says: {failure}");
            settle::review(workflows, db, tenant_id, id, &failure.code, &why).await?;
            return Ok(Some("review".into()));
        }
        Err(_) => {}
    }
    if late {
        let why = "its gateway has not said for a long time what became of it";
        settle::review(workflows, db, tenant_id, id, "payment.unsure", why).await?;
        return Ok(Some("review".into()));
    }
    state::waits(db, id).await?;
    Ok(None)
}

async fn subscription_now(db: Db<'_>) -> sqlx::Result<DateTime<Utc>> {
    crate::models::identity::subscription::now(db).await
}
