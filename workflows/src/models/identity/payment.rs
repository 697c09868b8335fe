//! Money that somebody means to pay, from the price that was frozen when they decided to.
//!
//! ```text
//! created ─▶ pending ⇄ verifying ─▶ paid ─▶ refunding ─▶ partially_refunded ─▶ refunded
//!                │          ├─▶ failed, cancelled
//!                └─▶ expired┴─▶ review: money came that is not what was meant; two people decide
//! ```
//!
//! Money that comes after `expired`, or after `cancelled` by a transfer, still settles it where the price still holds, and goes back
//! otherwise.

pub mod state;

use super::{
    coupon::{self, Refusal},
    credit_pack,
    plan::{self, Interval},
    subscription::{self, Prospect},
};
use crate::models::Db;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use std::collections::BTreeMap;
use uuid::Uuid;

/// How long somebody has to pay at a gateway.
pub const OPEN_FOR_HOURS: i32 = 24;
/// And by a transfer from their bank.
pub const OPEN_FOR_TRANSFER_HOURS: i32 = 14 * 24;
/// Payments that a person may have under way.
pub const MOST_OPEN: i64 = 20;

/// A payment.
#[derive(Debug, Clone, Serialize)]
pub struct Payment {
    /// Its id.
    pub id: Uuid,
    /// The tenant.
    pub tenant_id: Uuid,
    /// Who pays.
    pub user_id: Uuid,
    /// `plan`, `credits` or `invoice`.
    pub purpose: String,
    /// The version of the plan.
    pub plan_id: Option<Uuid>,
    /// Seconds of rendering.
    pub credits: Option<i64>,
    /// To pay, in minor units.
    pub amount: i64,
    /// ISO 4217.
    pub currency: String,
    /// What went back, or is on its way back.
    pub refunded_amount: i64,
    /// See the drawing.
    pub state: String,
    /// `stripe`, `zarinpal` or `manual`.
    pub provider: String,
    /// The account at it.
    pub gateway_id: Option<Uuid>,
    /// What the provider calls it.
    pub provider_ref: Option<String>,
    /// What the provider calls the movement of money.
    pub provider_txn: Option<String>,
    /// What was asked for, as a hash.
    #[serde(skip)]
    pub request_sha256: Option<Vec<u8>>,
    /// Where the payer goes afterwards.
    pub return_url: Option<String>,
    /// Where the payer pays.
    pub redirect_url: Option<String>,
    /// Or what they are told to do.
    pub instructions: Option<String>,
    /// The coupon.
    pub coupon_id: Option<Uuid>,
    /// What was agreed, a [`Snapshot`].
    #[serde(skip)]
    pub price_snapshot: Json<serde_json::Value>,
    /// Why it failed.
    pub failure_code: Option<String>,
    /// Why somebody has to look.
    pub review_code: Option<String>,
    /// In words.
    pub review_detail: Option<String>,
    /// When the payer asked to have it cancelled.
    pub cancel_asked_at: Option<DateTime<Utc>>,
    /// Until when it can be paid.
    pub expires_at: DateTime<Utc>,
    /// When it was.
    pub paid_at: Option<DateTime<Utc>>,
    /// When what was paid for was given.
    pub settled_at: Option<DateTime<Utc>>,
    /// The run that sees to it.
    pub workflow_run_id: Uuid,
    /// When it was opened.
    pub created_at: DateTime<Utc>,
}

impl Payment {
    /// What was agreed.
    ///
    /// # Errors
    /// It is none: no payment that was opened here.
    pub fn snapshot(&self) -> Result<Snapshot, serde_json::Error> {
        Snapshot::deserialize(&self.price_snapshot.0)
    }

    /// Whether it can still be paid.
    pub fn is_open(&self) -> bool {
        matches!(self.state.as_str(), "created" | "pending" | "verifying")
    }

    /// Whether it has ended, and money may come all the same: somebody looks at it, its time is over, or it was cancelled and a transfer
    /// was on its way, which nobody can call back.
    pub fn may_come_late(&self) -> bool {
        matches!(self.state.as_str(), "expired" | "review") || self.state == "cancelled" && self.provider == "manual"
    }
}

/// What was agreed when a payment was opened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// What for.
    pub what: What,
    /// What it costs without a coupon, in minor units.
    pub list_amount: i64,
    /// What the coupon takes off.
    pub reduction: i64,
    /// Its code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coupon: Option<String>,
    /// Nobody has asked for it: it was opened because a plan is to be renewed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_itself: bool,
}

/// What is paid for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// A plan.
    Plan {
        /// The version.
        plan_id: Uuid,
        /// What it is called, by language.
        name: BTreeMap<String, String>,
        /// Over how long.
        interval: Interval,
        /// What the payment does.
        prospect: Prospect,
    },
    /// Credits.
    Credits {
        /// The pack.
        pack_id: Uuid,
        /// Seconds of rendering.
        seconds: i64,
    },
}

impl What {
    /// In a line, in a language.
    pub fn text(&self, language: &str) -> String {
        match self {
            Self::Plan { name, .. } => {
                let spoken = language.split('-').next().unwrap_or_default();
                let name = name.get(spoken).or_else(|| name.get("en")).or_else(|| name.values().next());
                name.cloned().unwrap_or_else(|| "Plan".to_owned())
            }
            Self::Credits { seconds, .. } if language.starts_with("fa") => format!("{seconds} ثانیه رندر"),
            Self::Credits { seconds, .. } => format!("{seconds} s of rendering"),
        }
    }
}

/// What somebody wants to pay for.
#[derive(Debug, Clone)]
pub enum Wanted<'a> {
    /// A plan.
    Plan {
        /// The version.
        plan_id: Uuid,
        /// ISO 4217.
        currency: &'a str,
        /// Over how long.
        interval: Interval,
    },
    /// A pack of credits.
    Credits {
        /// Which.
        pack_id: Uuid,
    },
}

/// Why it cannot be paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsold {
    /// It is not sold to them like this.
    Unknown,
    /// The coupon takes nothing off.
    Coupon(Refusal),
}

/// What it costs.
#[derive(Debug, Clone)]
pub struct Quoted {
    /// To pay.
    pub amount: i64,
    /// ISO 4217.
    pub currency: String,
    /// The coupon.
    pub coupon_id: Option<Uuid>,
    /// All that was agreed.
    pub snapshot: Snapshot,
}

/// A payment to be opened.
#[derive(Debug, Clone)]
pub struct NewPayment<'a> {
    /// Its id.
    pub id: Uuid,
    /// The tenant.
    pub tenant_id: Uuid,
    /// Who pays.
    pub user_id: Uuid,
    /// By whom.
    pub provider: &'a str,
    /// The account.
    pub gateway_id: Uuid,
    /// Counts once a tenant.
    pub idempotency_key: &'a str,
    /// What was asked for, as a hash.
    pub request_sha256: &'a [u8],
    /// Where the payer goes afterwards.
    pub return_url: Option<&'a str>,
    /// What it costs.
    pub quoted: &'a Quoted,
    /// The run that sees to it.
    pub run_id: Uuid,
}

/// What something costs a person at the moment.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn quote(
    db: Db<'_>,
    tenant_id: Uuid,
    user_id: Uuid,
    wanted: &Wanted<'_>,
    code: Option<&str>,
) -> sqlx::Result<Result<Quoted, Unsold>> {
    let (what, list_amount, currency) = match *wanted {
        Wanted::Plan { plan_id, currency, interval } => {
            let plan = plan::find(&mut *db, tenant_id, plan_id).await?;
            let sold = subscription::prospect(&mut *db, tenant_id, user_id, plan_id, currency, interval).await?;
            let (Some(plan), Some((prospect, amount))) = (plan, sold) else { return Ok(Err(Unsold::Unknown)) };
            (What::Plan { plan_id, name: plan.name.0, interval, prospect }, amount, currency.to_owned())
        }
        Wanted::Credits { pack_id } => {
            let pack = credit_pack::find(&mut *db, tenant_id, pack_id).await?.filter(|pack| pack.state == "active");
            let Some(pack) = pack else { return Ok(Err(Unsold::Unknown)) };
            (What::Credits { pack_id, seconds: pack.credits }, pack.amount, pack.currency)
        }
    };
    let mut quoted = Quoted {
        amount: list_amount,
        currency,
        coupon_id: None,
        snapshot: Snapshot { what, list_amount, reduction: 0, coupon: None, by_itself: false },
    };
    if let Some(code) = code {
        match coupon::check(db, tenant_id, code, user_id, list_amount, &quoted.currency).await? {
            Err(refusal) => return Ok(Err(Unsold::Coupon(refusal))),
            Ok(reduction) => {
                quoted.amount = list_amount - reduction.amount;
                quoted.coupon_id = Some(reduction.coupon_id);
                quoted.snapshot.reduction = reduction.amount;
                quoted.snapshot.coupon = Some(code.to_owned());
            }
        }
    }
    Ok(Ok(quoted))
}

/// Opens a payment, and sets its coupon aside. None when the key is taken; false when the coupon is.
pub async fn open(db: Db<'_>, new: &NewPayment<'_>) -> sqlx::Result<Option<bool>> {
    let (purpose, plan_id, credits) = match &new.quoted.snapshot.what {
        What::Plan { plan_id, .. } => ("plan", Some(*plan_id), None),
        What::Credits { seconds, .. } => ("credits", None, Some(*seconds)),
    };
    let opened = sqlx::query!(
        "insert into identity.payments (id, tenant_id, user_id, purpose, plan_id, credits, amount, currency, provider, gateway_id,
             idempotency_key, request_sha256, return_url, coupon_id, price_snapshot, expires_at, workflow_run_id, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, workflow.now() + make_interval(hours => $17), $16,
             workflow.now(), workflow.now())
         on conflict (tenant_id, idempotency_key) do nothing",
        new.id,
        new.tenant_id,
        new.user_id,
        purpose,
        plan_id,
        credits,
        new.quoted.amount,
        new.quoted.currency,
        new.provider,
        new.gateway_id,
        new.idempotency_key,
        new.request_sha256,
        new.return_url,
        new.quoted.coupon_id,
        Json(&new.quoted.snapshot) as _,
        new.run_id,
        if new.provider == "manual" { OPEN_FOR_TRANSFER_HOURS } else { OPEN_FOR_HOURS },
    );
    if opened.execute(&mut *db).await?.rows_affected() == 0 {
        return Ok(None);
    }
    match new.quoted.coupon_id {
        Some(coupon_id) => coupon::redeem(db, coupon_id, new.id, new.user_id).await.map(Some),
        None => Ok(Some(true)),
    }
}

/// A payment of a tenant.
pub async fn find(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<Payment>> {
    Ok(select(db, tenant_id, Some(id), None, None, None, None, 1).await?.pop())
}

/// A payment, whoever's: for payers who come back, of whom nobody knows yet who they are.
pub async fn anywhere(db: Db<'_>, id: Uuid) -> sqlx::Result<Option<Payment>> {
    let tenant = sqlx::query_scalar!("select tenant_id from identity.payments where id = $1", id);
    match tenant.fetch_optional(&mut *db).await? {
        Some(tenant_id) => find(db, tenant_id, id).await,
        None => Ok(None),
    }
}

/// The one that was opened with a key.
pub async fn find_by_key(db: Db<'_>, tenant_id: Uuid, key: &str) -> sqlx::Result<Option<Payment>> {
    Ok(select(db, tenant_id, None, Some(key), None, None, None, 1).await?.pop())
}

/// Payments of a person, or of everybody, newest first, those before the payment `before`; in a state where it is given.
pub async fn list(
    db: Db<'_>,
    tenant_id: Uuid,
    user_id: Option<Uuid>,
    state: Option<&str>,
    before: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<Payment>> {
    select(db, tenant_id, None, None, user_id, state, before, limit).await
}

#[expect(clippy::too_many_arguments, reason = "each is one way to look for payments")]
async fn select(
    db: Db<'_>,
    tenant_id: Uuid,
    id: Option<Uuid>,
    key: Option<&str>,
    user_id: Option<Uuid>,
    state: Option<&str>,
    before: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<Payment>> {
    sqlx::query_as!(
        Payment,
        r#"select id, tenant_id, user_id, purpose, plan_id, credits, amount, currency, refunded_amount, state, provider, gateway_id,
                  provider_ref, provider_txn, request_sha256, return_url, redirect_url, instructions, coupon_id,
                  price_snapshot as "price_snapshot: Json<serde_json::Value>", failure_code, review_code, review_detail, cancel_asked_at,
                  expires_at, paid_at, settled_at, workflow_run_id, created_at
           from identity.payments p
           where tenant_id = $1 and ($2::uuid is null or id = $2) and ($3::text is null or idempotency_key = $3)
             and ($4::uuid is null or user_id = $4) and ($5::text is null or state = $5)
             and ($6::uuid is null or (created_at, id) < (select b.created_at, b.id from identity.payments b where b.tenant_id = $1 and b.id = $6))
           order by created_at desc, id desc limit $7"#,
        tenant_id,
        id,
        key,
        user_id,
        state,
        before,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Waits until whoever else opens a payment of this person has done so.
pub async fn take_turn(db: Db<'_>, user_id: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        r#"select pg_advisory_xact_lock(hashtextextended('payments of ' || $1::uuid, 0)) as "locked!: ()""#,
        user_id
    )
    .fetch_one(db)
    .await
    .map(drop)
}

/// How many a person has under way.
pub async fn count_open(db: Db<'_>, tenant_id: Uuid, user_id: Uuid) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "n!" from identity.payments where tenant_id = $1 and user_id = $2 and state in ('created', 'pending', 'verifying')"#,
        tenant_id,
        user_id,
    )
    .fetch_one(db)
    .await
}

/// By what its provider calls it, or by its id: which of the account's payments it is.
pub async fn find_at(
    db: Db<'_>,
    gateway_id: Uuid,
    provider_ref: Option<&str>,
    provider_txn: Option<&str>,
    id: Option<Uuid>,
) -> sqlx::Result<Option<(Uuid, Uuid)>> {
    let found = sqlx::query!(
        "select id, workflow_run_id from identity.payments
         where gateway_id = $1 and (provider_ref = $2 or provider_txn = $3 or id = $4) order by (provider_ref = $2) desc nulls last limit 1",
        gateway_id,
        provider_ref,
        provider_txn,
        id,
    );
    Ok(found.fetch_optional(db).await?.map(|row| (row.id, row.workflow_run_id)))
}
