//! What is sold: plans in versions, with their prices and what they allow. A change is a new version, and whoever has the old one
//! keeps it at its price.
//!
//! ```text
//! draft ─▶ active ─▶ retired      one active version a code: the one before it retires
//! ```

use crate::models::Db;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use std::collections::BTreeMap;
use uuid::Uuid;

/// The plan of whoever has none: where a tenant sells one of this code, it is what everybody else may use.
pub const FREE: &str = "free";

/// What a plan may allow.
pub const ENTITLEMENTS: [&str; 6] =
    ["render_minutes", "storage_bytes", "max_resolution", "concurrency", "watermark", "retention_days"];

/// Over how long a price is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Interval {
    /// Every month.
    Month,
    /// Every year.
    Year,
    /// Once, for ever. Not for subscriptions.
    Once,
}

impl Interval {
    /// Its name in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Month => "month",
            Self::Year => "year",
            Self::Once => "once",
        }
    }

    /// Months of a period; none of what is paid once.
    pub const fn months(self) -> Option<u32> {
        match self {
            Self::Month => Some(1),
            Self::Year => Some(12),
            Self::Once => None,
        }
    }

    /// By its name in the database.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Month, Self::Year, Self::Once].into_iter().find(|i| i.name() == name)
    }
}

/// What a plan costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// ISO 4217.
    #[schema(example = "USD", pattern = "^[A-Z]{3}$")]
    pub currency: String,
    /// Over how long.
    pub interval: Interval,
    /// Minor units, more than 0.
    #[schema(example = 1900, minimum = 1, maximum = 1_000_000_000_000_000_i64)]
    pub amount: i64,
}

/// What a plan allows, by name of [`ENTITLEMENTS`].
pub type Entitlements = BTreeMap<String, i64>;

/// A version of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// Its id: of this version alone.
    pub id: Uuid,
    /// What all its versions are called.
    pub code: String,
    /// From 1.
    pub version: i32,
    /// Its name by language.
    pub name: Json<BTreeMap<String, String>>,
    /// `draft`, `active` or `retired`.
    pub state: String,
    /// Days before the first payment.
    pub trial_days: i32,
    /// When this version was made.
    pub created_at: DateTime<Utc>,
    /// What it costs.
    pub prices: Json<Vec<Price>>,
    /// What it allows.
    pub entitlements: Json<Entitlements>,
}

impl Plan {
    /// Whether credits are sold with it.
    pub fn sells_credits(&self) -> bool {
        !self.prices.0.is_empty() && self.entitlements.0.get("render_minutes").is_some_and(|minutes| *minutes > 0)
    }
}

/// A version to be made.
#[derive(Debug, Clone)]
pub struct NewPlan<'a> {
    /// What all versions are called: 1 to 64 of `a-z 0-9 _ -`.
    pub code: &'a str,
    /// Its name by language.
    pub name: &'a BTreeMap<String, String>,
    /// Days before the first payment, 0 to 365.
    pub trial_days: i32,
    /// What it costs.
    pub prices: &'a [Price],
    /// What it allows.
    pub entitlements: &'a Entitlements,
}

/// Makes the next version of a plan, as a draft. Whoever makes one of the same code waits until this transaction ends.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn create(db: Db<'_>, tenant_id: Uuid, new: &NewPlan<'_>) -> sqlx::Result<Uuid> {
    take_turn(&mut *db, tenant_id, new.code).await?;
    let id = sqlx::query_scalar!(
        "insert into identity.plans (tenant_id, code, version, name, trial_days, created_at, updated_at)
         select $1, $2, coalesce(max(version), 0) + 1, $3, $4, workflow.now(), workflow.now()
         from identity.plans where tenant_id = $1 and code = $2 returning id",
        tenant_id,
        new.code,
        Json(new.name) as _,
        new.trial_days,
    )
    .fetch_one(&mut *db)
    .await?;
    for price in new.prices {
        sqlx::query!(
            "insert into identity.plan_prices (tenant_id, plan_id, currency, interval, amount, created_at) values ($1, $2, $3, $4, $5, workflow.now())",
            tenant_id,
            id,
            price.currency,
            price.interval.name(),
            price.amount,
        )
        .execute(&mut *db)
        .await?;
    }
    let (keys, values): (Vec<String>, Vec<i64>) = new.entitlements.iter().map(|(k, v)| (k.clone(), *v)).unzip();
    sqlx::query!(
        "insert into identity.plan_entitlements (tenant_id, plan_id, key, value) select $1, $2, k, v from unnest($3::text[], $4::bigint[]) e (k, v)",
        tenant_id,
        id,
        &keys,
        &values,
    )
    .execute(db)
    .await?;
    Ok(id)
}

/// Sells a version from now on, instead of the one that was sold before. False when it is retired.
pub async fn activate(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<bool> {
    let Some(plan) = find(&mut *db, tenant_id, id).await? else { return Ok(false) };
    take_turn(&mut *db, tenant_id, &plan.code).await?;
    sqlx::query!(
        "update identity.plans set state = 'retired', updated_at = workflow.now()
         where tenant_id = $1 and code = $2 and state = 'active' and id <> $3",
        tenant_id,
        plan.code,
        id,
    )
    .execute(&mut *db)
    .await?;
    let activated = sqlx::query!(
        "update identity.plans set state = 'active', updated_at = workflow.now() where tenant_id = $1 and id = $2 and state <> 'retired'",
        tenant_id,
        id
    );
    Ok(activated.execute(db).await?.rows_affected() == 1)
}

/// Sells a version no longer: who has it keeps it. Doing so twice is harmless.
pub async fn retire(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        "update identity.plans set state = 'retired', updated_at = workflow.now() where tenant_id = $1 and id = $2 and state <> 'retired'",
        tenant_id,
        id
    )
    .execute(db)
    .await
    .map(drop)
}

/// A version of a tenant, whatever its state.
pub async fn find(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<Plan>> {
    Ok(select(db, tenant_id, Some(id), None, false).await?.pop())
}

/// The version that is sold under a code.
pub async fn find_active(db: Db<'_>, tenant_id: Uuid, code: &str) -> sqlx::Result<Option<Plan>> {
    Ok(select(db, tenant_id, None, Some(code), true).await?.pop())
}

/// Plans of a tenant by code and version: those that are sold, or all.
pub async fn list(db: Db<'_>, tenant_id: Uuid, all: bool) -> sqlx::Result<Vec<Plan>> {
    select(db, tenant_id, None, None, !all).await
}

async fn select(
    db: Db<'_>,
    tenant_id: Uuid,
    id: Option<Uuid>,
    code: Option<&str>,
    active: bool,
) -> sqlx::Result<Vec<Plan>> {
    sqlx::query_as!(
        Plan,
        r#"select id, code, version, name as "name: Json<BTreeMap<String, String>>", state, trial_days, created_at,
                  (select coalesce(jsonb_agg(jsonb_build_object('currency', x.currency, 'interval', x.interval, 'amount', x.amount)
                                             order by x.currency, x.interval), '[]')
                   from identity.plan_prices x where x.plan_id = p.id) as "prices!: Json<Vec<Price>>",
                  (select coalesce(jsonb_object_agg(e.key, e.value), '{}')
                   from identity.plan_entitlements e where e.plan_id = p.id) as "entitlements!: Json<Entitlements>"
           from identity.plans p
           where tenant_id = $1 and ($2::uuid is null or id = $2) and ($3::text is null or code = $3) and (not $4 or state = 'active')
           order by code, version desc limit 1000"#,
        tenant_id,
        id,
        code,
        active,
    )
    .fetch_all(db)
    .await
}

/// What a version that is sold costs; none when it is not sold, or not in this currency and over this interval.
pub async fn price(db: Db<'_>, plan_id: Uuid, currency: &str, interval: Interval) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar!(
        "select x.amount from identity.plan_prices x join identity.plans p on p.id = x.plan_id
         where p.id = $1 and p.state = 'active' and x.currency = $2 and x.interval = $3",
        plan_id,
        currency,
        interval.name(),
    )
    .fetch_optional(db)
    .await
}

/// What a version costs, whether it is still sold or not: for who has it.
pub async fn list_price(db: Db<'_>, plan_id: Uuid, currency: &str, interval: Interval) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar!(
        "select amount from identity.plan_prices where plan_id = $1 and currency = $2 and interval = $3",
        plan_id,
        currency,
        interval.name(),
    )
    .fetch_optional(db)
    .await
}

async fn take_turn(db: Db<'_>, tenant_id: Uuid, code: &str) -> sqlx::Result<()> {
    sqlx::query!(
        r#"select pg_advisory_xact_lock(hashtextextended('plan ' || $1::uuid || $2::text, 0)) as "locked!: ()""#,
        tenant_id,
        code
    )
    .fetch_one(db)
    .await
    .map(drop)
}
