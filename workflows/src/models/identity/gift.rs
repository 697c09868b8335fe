//! Gifts: a catalogue with a stock, what people have earned of it, each with its message, and what they have claimed.
//!
//! ```text
//! earned ─▶ claimed       once, while there is some left
//!    └────▶ expired | revoked
//! ```

use super::{
    coupon::{self, NewCoupon},
    credit::{self, Reason},
};
use crate::models::Db;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sqlx::types::Json;
use std::collections::BTreeMap;
use uuid::Uuid;

/// How long a coupon is good that was a gift.
const COUPON_DAYS: i64 = 90;

/// A gift of the catalogue.
#[derive(Debug, Clone, Serialize)]
pub struct Gift {
    /// Its id.
    pub id: Uuid,
    /// What programs call it. `level_2` is earned by whoever reaches that level.
    pub code: String,
    /// What people call it, by language.
    pub title: Json<BTreeMap<String, String>>,
    /// `credits` or `coupon`.
    pub kind: String,
    /// Seconds of rendering, or percent.
    pub value: i64,
    /// How many there are in all.
    pub stock: i32,
    /// How many were claimed.
    pub redeemed: i32,
    /// Whether it can be earned and claimed now.
    pub active: bool,
    /// How often somebody changed it; a claim is no change.
    #[serde(skip)]
    pub rev: i32,
}

/// A gift to be put into the catalogue.
#[derive(Debug, Clone)]
pub struct NewGift<'a> {
    /// 1 to 64 of `a-z 0-9 _`.
    pub code: &'a str,
    /// By language.
    pub title: &'a BTreeMap<String, String>,
    /// `credits` or `coupon`.
    pub kind: &'a str,
    /// Seconds of rendering, or percent.
    pub value: i64,
    /// How many there are in all.
    pub stock: i32,
}

/// A gift that somebody has earned.
#[derive(Debug, Clone)]
pub struct Earned {
    /// Its id.
    pub id: Uuid,
    /// Which gift.
    pub gift_id: Uuid,
    /// What programs call it.
    pub code: String,
    /// What people call it.
    pub title: Json<BTreeMap<String, String>>,
    /// `credits` or `coupon`.
    pub kind: String,
    /// Seconds of rendering, or percent.
    pub value: i64,
    /// For which time: one a person, gift and period.
    pub period_key: String,
    /// What for.
    pub reason: String,
    /// `earned`, `claimed`, `expired` or `revoked`.
    pub state: String,
    /// The code of the coupon that it is.
    pub coupon: Option<String>,
    /// The message that told of it.
    pub notification_id: Option<Uuid>,
    /// When it was earned.
    pub earned_at: DateTime<Utc>,
    /// When it was claimed.
    pub claimed_at: Option<DateTime<Utc>>,
    /// Until when it can be.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A gift that nobody was told of before.
#[derive(Debug, Clone)]
pub struct Untold {
    /// The gift that was earned.
    pub id: Uuid,
    /// Who has earned it.
    pub user_id: Uuid,
    /// What people call it, in their language where it has a name there.
    pub name: String,
    /// What programs call it.
    pub code: String,
    /// `credits` or `coupon`.
    pub kind: String,
    /// Seconds of rendering, or percent.
    pub value: i64,
    /// What for.
    pub reason: String,
    /// When it was earned.
    pub earned_at: DateTime<Utc>,
}

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It is theirs.
    Claimed,
    /// There is no such gift of theirs.
    Unknown,
    /// It was claimed before, or taken back.
    Ended,
    /// It was not claimed in time.
    Expired,
    /// There are none left; the transaction is to be given up.
    SoldOut,
    /// Their account holds no more; so is this one.
    Full,
}

/// Puts a gift into the catalogue. None when there is one of this code.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn create(db: Db<'_>, tenant_id: Uuid, new: &NewGift<'_>) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!(
        "insert into identity.gift_catalog (tenant_id, code, title, kind, value, stock, created_at)
         values ($1, $2, $3, $4, $5, $6, workflow.now()) on conflict (tenant_id, code) do nothing returning id",
        tenant_id,
        new.code,
        Json(new.title) as _,
        new.kind,
        new.value,
        new.stock,
    )
    .fetch_optional(db)
    .await
}

/// Changes how many there are and whether they can be had. False when there is none, or more were claimed; then the transaction is
/// spoilt.
pub async fn update(
    db: Db<'_>,
    tenant_id: Uuid,
    id: Uuid,
    stock: Option<i32>,
    active: Option<bool>,
) -> sqlx::Result<bool> {
    let changed = sqlx::query!(
        "update identity.gift_catalog set stock = coalesce($3, stock), active = coalesce($4, active), rev = rev + 1 where tenant_id = $1 and id = $2",
        tenant_id,
        id,
        stock,
        active
    )
    .execute(db)
    .await;
    match changed {
        Ok(done) => Ok(done.rows_affected() == 1),
        Err(sqlx::Error::Database(e)) if e.is_check_violation() => Ok(false),
        Err(error) => Err(error),
    }
}

/// A gift of the catalogue.
pub async fn find(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<Gift>> {
    Ok(select(db, tenant_id, Some(id), None).await?.pop())
}

/// The same, held until the transaction ends, so that nobody changes or claims it meanwhile.
pub async fn hold(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<Gift>> {
    // By itself, so that what is read is what whoever held it before has left.
    sqlx::query!("select from identity.gift_catalog where tenant_id = $1 and id = $2 for no key update", tenant_id, id)
        .fetch_optional(&mut *db)
        .await?;
    find(db, tenant_id, id).await
}

/// The gift of this code.
pub async fn find_by_code(db: Db<'_>, tenant_id: Uuid, code: &str) -> sqlx::Result<Option<Gift>> {
    Ok(select(db, tenant_id, None, Some(code)).await?.pop())
}

/// The whole catalogue by code.
pub async fn catalogue(db: Db<'_>, tenant_id: Uuid) -> sqlx::Result<Vec<Gift>> {
    select(db, tenant_id, None, None).await
}

async fn select(db: Db<'_>, tenant_id: Uuid, id: Option<Uuid>, code: Option<&str>) -> sqlx::Result<Vec<Gift>> {
    sqlx::query_as!(
        Gift,
        r#"select id, code, title as "title: Json<BTreeMap<String, String>>", kind, value, stock, redeemed, active, rev
           from identity.gift_catalog
           where tenant_id = $1 and ($2::uuid is null or id = $2) and ($3::text is null or code = $3) order by code limit 1000"#,
        tenant_id,
        id,
        code,
    )
    .fetch_all(db)
    .await
}

/// Gives a gift to a person; none when they have it for this period. Nobody is told of it until somebody takes the [`untold`].
pub async fn earn(
    db: Db<'_>,
    tenant_id: Uuid,
    user_id: Uuid,
    gift: &Gift,
    period_key: &str,
    reason: &str,
    expires_at: Option<DateTime<Utc>>,
) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!(
        "insert into identity.earned_gifts (tenant_id, user_id, gift_id, period_key, reason, earned_at, expires_at)
         values ($1, $2, $3, $4, $5, workflow.now(), $6) on conflict (tenant_id, user_id, gift_id, period_key) do nothing returning id",
        tenant_id,
        user_id,
        gift.id,
        period_key,
        reason,
        expires_at,
    )
    .fetch_optional(db)
    .await
}

/// Takes the gifts of a tenant that nobody was told of; whoever takes them tells it in the same transaction. As the tenant's identity
/// service.
pub async fn untold(db: Db<'_>, tenant_id: Uuid) -> sqlx::Result<Vec<Untold>> {
    sqlx::query_as!(
        Untold,
        r#"update identity.earned_gifts e set told_at = workflow.now() from identity.gift_catalog g, identity.users u
           where e.tenant_id = $1 and e.told_at is null and g.id = e.gift_id and u.id = e.user_id
           returning e.id, e.user_id, g.code, g.kind, g.value, e.reason, e.earned_at,
               coalesce(g.title ->> u.locale, g.title ->> split_part(u.locale, '-', 1), g.title ->> 'en', g.code) as "name!""#,
        tenant_id,
    )
    .fetch_all(db)
    .await
}

/// Gifts of a person, newest first, those before the gift `before`.
pub async fn list(
    db: Db<'_>,
    tenant_id: Uuid,
    user_id: Uuid,
    before: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<Earned>> {
    sqlx::query_as!(
        Earned,
        r#"select e.id, e.gift_id, g.code, g.title as "title: Json<BTreeMap<String, String>>", g.kind, g.value, e.period_key, e.reason,
                  case when e.state = 'earned' and e.expires_at <= workflow.now() then 'expired' else e.state end as "state!",
                  c.code as "coupon?", e.notification_id, e.earned_at, e.claimed_at, e.expires_at
           from identity.earned_gifts e join identity.gift_catalog g on g.id = e.gift_id left join identity.coupons c on c.id = e.coupon_id
           where e.tenant_id = $1 and e.user_id = $2
             and ($3::uuid is null or (e.earned_at, e.id) < (select b.earned_at, b.id from identity.earned_gifts b where b.id = $3 and b.user_id = $2))
           order by e.earned_at desc, e.id desc limit $4"#,
        tenant_id,
        user_id,
        before,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Claims what a person has earned: once, whoever else asks at the same time. Seconds of rendering come into their account; a coupon is
/// made for them alone.
pub async fn claim(db: Db<'_>, tenant_id: Uuid, user_id: Uuid, id: Uuid) -> sqlx::Result<Claim> {
    let earned = sqlx::query!(
        r#"select gift_id, state, coalesce(expires_at <= workflow.now(), false) as "late!" from identity.earned_gifts
           where tenant_id = $1 and user_id = $2 and id = $3 for no key update"#,
        tenant_id,
        user_id,
        id,
    )
    .fetch_optional(&mut *db)
    .await?;
    let gift_id = match earned {
        None => return Ok(Claim::Unknown),
        Some(row) if row.state == "expired" || row.state == "earned" && row.late => return Ok(Claim::Expired),
        Some(row) if row.state != "earned" => return Ok(Claim::Ended),
        Some(row) => row.gift_id,
    };
    let taken = sqlx::query!(
        "update identity.gift_catalog set redeemed = redeemed + 1 where id = $1 and active and redeemed < stock returning kind, value",
        gift_id
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(gift) = taken else { return Ok(Claim::SoldOut) };
    let coupon_id = match gift.kind.as_str() {
        "credits" => {
            let account = credit::open(&mut *db, tenant_id, Some(user_id)).await?;
            let key = format!("gift:{id}");
            if credit::grant(&mut *db, account.id, &key, gift.value, Reason::Grant).await? == credit::Entered::Refused {
                return Ok(Claim::Full);
            }
            None
        }
        _ => Some(make_coupon(&mut *db, tenant_id, id, gift.value).await?),
    };
    sqlx::query!(
        "update identity.earned_gifts set state = 'claimed', claimed_at = workflow.now(), coupon_id = $2 where id = $1",
        id,
        coupon_id
    )
    .execute(db)
    .await?;
    Ok(Claim::Claimed)
}

async fn make_coupon(db: Db<'_>, tenant_id: Uuid, earned: Uuid, percent: i64) -> sqlx::Result<Uuid> {
    let now = super::subscription::now(&mut *db).await?;
    let new = NewCoupon {
        // An id of 122 random bits: nobody guesses it.
        code: &format!("GIFT-{}", earned.simple()).to_uppercase(),
        kind: "percent",
        value: percent,
        currency: None,
        max_redemptions: 1,
        per_user_limit: 1,
        valid_from: None,
        valid_to: now + TimeDelta::days(COUPON_DAYS),
    };
    coupon::create(db, tenant_id, &new).await?.ok_or(sqlx::Error::RowNotFound)
}
