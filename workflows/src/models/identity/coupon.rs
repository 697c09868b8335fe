//! Reductions by code. A use is a row, made when a payment is opened and taken back when nothing is paid: no more uses are on their
//! way than there are, whoever pays first.

use crate::models::Db;
use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

/// A coupon.
#[derive(Debug, Clone, Serialize)]
pub struct Coupon {
    /// Its id.
    pub id: Uuid,
    /// What people type; upper and lower case are the same.
    pub code: String,
    /// `percent` or `amount`.
    pub kind: String,
    /// Percent, 1 to 100, or minor units of `currency`.
    pub value: i64,
    /// Of an `amount`.
    pub currency: Option<String>,
    /// How often it can be used in all.
    pub max_redemptions: i32,
    /// How often it is used.
    pub redeemed: i32,
    /// How often by one person.
    pub per_user_limit: i32,
    /// From when on.
    pub valid_from: DateTime<Utc>,
    /// Until when.
    pub valid_to: DateTime<Utc>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// How often somebody changed it; a use is no change.
    #[serde(skip)]
    pub rev: i32,
}

/// A coupon to be made.
#[derive(Debug, Clone)]
pub struct NewCoupon<'a> {
    /// 3 to 64 characters.
    pub code: &'a str,
    /// `percent` or `amount`.
    pub kind: &'a str,
    /// Percent, 1 to 100, or minor units.
    pub value: i64,
    /// Of an `amount`, and of it alone.
    pub currency: Option<&'a str>,
    /// How often it can be used in all, from 1.
    pub max_redemptions: i32,
    /// How often by one person, from 1.
    pub per_user_limit: i32,
    /// From when on; from now on when absent.
    pub valid_from: Option<DateTime<Utc>>,
    /// Until when.
    pub valid_to: DateTime<Utc>,
}

/// Why a coupon reduces nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is none of this code.
    #[error("there is no such coupon")]
    Unknown,
    /// It is not valid yet.
    #[error("the coupon is not valid yet")]
    Early,
    /// It is not valid any more.
    #[error("the coupon is not valid any more")]
    Over,
    /// It was used as often as it can be.
    #[error("the coupon is used up")]
    UsedUp,
    /// This person used it as often as one may.
    #[error("you have used this coupon before")]
    UsedByYou,
    /// It is in another currency.
    #[error("the coupon is in another currency")]
    Currency,
    /// It would leave nothing to pay.
    #[error("the coupon is worth as much as the price: there would be nothing to pay")]
    NothingLeft,
}

/// What a coupon takes off a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Reduction {
    /// The coupon.
    pub coupon_id: Uuid,
    /// Minor units that it takes off; less than the price.
    pub amount: i64,
}

impl Coupon {
    /// What it takes off a price, in minor units; a fraction of one is the customer's loss.
    ///
    /// # Errors
    /// [`Refusal::Currency`], [`Refusal::NothingLeft`]
    pub fn reduce(&self, amount: i64, currency: &str) -> Result<Reduction, Refusal> {
        let off = match self.kind.as_str() {
            "percent" => i64::try_from(i128::from(amount) * i128::from(self.value) / 100).unwrap_or(i64::MAX),
            _ if self.currency.as_deref() != Some(currency) => return Err(Refusal::Currency),
            _ => self.value,
        };
        if off >= amount { Err(Refusal::NothingLeft) } else { Ok(Reduction { coupon_id: self.id, amount: off }) }
    }
}

/// Makes a coupon. None when there is one of this code.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn create(db: Db<'_>, tenant_id: Uuid, new: &NewCoupon<'_>) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!(
        "insert into identity.coupons (tenant_id, code, kind, value, currency, max_redemptions, per_user_limit, valid_from, valid_to, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, coalesce($8, workflow.now()), $9, workflow.now())
         on conflict (tenant_id, lower(code)) do nothing returning id",
        tenant_id,
        new.code,
        new.kind,
        new.value,
        new.currency,
        new.max_redemptions,
        new.per_user_limit,
        new.valid_from,
        new.valid_to,
    )
    .fetch_optional(db)
    .await
}

/// One coupon of a tenant.
pub async fn find(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<Coupon>> {
    sqlx::query_as!(
        Coupon,
        "select id, code, kind, value, currency, max_redemptions, redeemed, per_user_limit, valid_from, valid_to, created_at, rev
         from identity.coupons where tenant_id = $1 and id = $2",
        tenant_id,
        id
    )
    .fetch_optional(db)
    .await
}

/// The same, held until the transaction ends, so that nobody changes or uses it meanwhile.
pub async fn hold(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<Coupon>> {
    // By itself, so that what is read is what whoever held it before has left.
    sqlx::query!("select from identity.coupons where tenant_id = $1 and id = $2 for no key update", tenant_id, id)
        .fetch_optional(&mut *db)
        .await?;
    find(db, tenant_id, id).await
}

/// Coupons of a tenant, newest first, those before the coupon `before`.
pub async fn list(db: Db<'_>, tenant_id: Uuid, before: Option<Uuid>, limit: i64) -> sqlx::Result<Vec<Coupon>> {
    sqlx::query_as!(
        Coupon,
        "select id, code, kind, value, currency, max_redemptions, redeemed, per_user_limit, valid_from, valid_to, created_at, rev
         from identity.coupons c
         where tenant_id = $1 and ($2::uuid is null or (created_at, id) < (select b.created_at, b.id from identity.coupons b
                                                                          where b.tenant_id = $1 and b.id = $2))
         order by created_at desc, id desc limit $3",
        tenant_id,
        before,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Changes how often and until when a coupon can be used. False when it was used more often already; then the transaction is spoilt.
pub async fn update(
    db: Db<'_>,
    tenant_id: Uuid,
    id: Uuid,
    most: Option<i32>,
    valid_to: Option<DateTime<Utc>>,
) -> sqlx::Result<bool> {
    let changed = sqlx::query!(
        "update identity.coupons set max_redemptions = coalesce($3, max_redemptions), valid_to = coalesce($4, valid_to), rev = rev + 1
         where tenant_id = $1 and id = $2",
        tenant_id,
        id,
        most,
        valid_to,
    )
    .execute(db)
    .await;
    match changed {
        Ok(_) => Ok(true),
        Err(sqlx::Error::Database(e)) if e.is_check_violation() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Ends a coupon at once: what is on its way may still be paid.
pub async fn end(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        "update identity.coupons set valid_to = greatest(workflow.now(), valid_from + interval '1 microsecond'), rev = rev + 1
         where tenant_id = $1 and id = $2 and valid_to > workflow.now()",
        tenant_id,
        id
    )
    .execute(db)
    .await
    .map(drop)
}

/// What the coupon of this code takes off a price for a person, by what is known at the moment. It is used by [`redeem`].
pub async fn check(
    db: Db<'_>,
    tenant_id: Uuid,
    code: &str,
    user_id: Uuid,
    amount: i64,
    currency: &str,
) -> sqlx::Result<Result<Reduction, Refusal>> {
    let row = sqlx::query!(
        r#"select c.id, valid_from > workflow.now() as "early!", valid_to <= workflow.now() as "over!",
                  redeemed >= max_redemptions as "used_up!",
                  per_user_limit <= (select count(*) from identity.coupon_redemptions r where r.coupon_id = c.id and r.user_id = $3) as "by_you!"
           from identity.coupons c where tenant_id = $1 and lower(code) = lower($2)"#,
        tenant_id,
        code,
        user_id,
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(row) = row else { return Ok(Err(Refusal::Unknown)) };
    let refusals = [
        (row.early, Refusal::Early),
        (row.over, Refusal::Over),
        (row.by_you, Refusal::UsedByYou),
        (row.used_up, Refusal::UsedUp),
    ];
    if let Some((_, refusal)) = refusals.into_iter().find(|(holds, _)| *holds) {
        return Ok(Err(refusal));
    }
    let coupon = find(db, tenant_id, row.id).await?.ok_or(sqlx::Error::RowNotFound)?;
    Ok(coupon.reduce(amount, currency))
}

/// Uses a coupon for a payment: true also when it is used for it already, so that whoever opens a payment and whoever settles it may
/// both ask. False when it is used up, by all or by this person. Whoever uses the same coupon waits until this transaction ends.
pub async fn redeem(db: Db<'_>, coupon_id: Uuid, payment_id: Uuid, user_id: Uuid) -> sqlx::Result<bool> {
    let coupon = sqlx::query!(
        "select tenant_id, redeemed, max_redemptions, per_user_limit from identity.coupons where id = $1 for no key update",
        coupon_id
    )
    .fetch_one(&mut *db)
    .await?;
    let used = sqlx::query!(
        r#"select count(*) as "times!", coalesce(max(ordinal), 0) as "last!", coalesce(bool_or(payment_id = $3), false) as "here!"
           from identity.coupon_redemptions where coupon_id = $1 and (user_id = $2 or payment_id = $3)"#,
        coupon_id,
        user_id,
        payment_id,
    )
    .fetch_one(&mut *db)
    .await?;
    if used.here {
        return Ok(true);
    }
    if coupon.redeemed >= coupon.max_redemptions || used.times >= i64::from(coupon.per_user_limit) {
        return Ok(false);
    }
    sqlx::query!("update identity.coupons set redeemed = redeemed + 1 where id = $1", coupon_id)
        .execute(&mut *db)
        .await?;
    sqlx::query!(
        "insert into identity.coupon_redemptions (tenant_id, coupon_id, payment_id, user_id, ordinal, created_at)
         values ($1, $2, $3, $4, $5 + 1, workflow.now())",
        coupon.tenant_id,
        coupon_id,
        payment_id,
        user_id,
        used.last,
    )
    .execute(db)
    .await?;
    Ok(true)
}

/// Gives back what a payment used that has bought nothing: nobody has paid it, or the money goes back. Repeating it is harmless.
pub async fn give_back(db: Db<'_>, payment_id: Uuid) -> sqlx::Result<()> {
    // The coupon first, as whoever uses it does.
    sqlx::query!(
        "select from identity.coupons where id in (select coupon_id from identity.coupon_redemptions where payment_id = $1) for no key update",
        payment_id
    )
    .fetch_all(&mut *db)
    .await?;
    sqlx::query!(
        "with gone as (
             delete from identity.coupon_redemptions r where payment_id = $1
               and not exists (select from identity.payments p where p.id = r.payment_id and p.settled_at is not null)
             returning coupon_id)
         update identity.coupons c set redeemed = redeemed - 1 from gone g where c.id = g.coupon_id",
        payment_id
    )
    .execute(db)
    .await
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coupon(kind: &str, value: i64, currency: Option<&str>) -> Coupon {
        let at = DateTime::UNIX_EPOCH;
        Coupon {
            id: Uuid::nil(),
            code: "SPRING".into(),
            kind: kind.into(),
            value,
            currency: currency.map(Into::into),
            max_redemptions: 1,
            redeemed: 0,
            per_user_limit: 1,
            valid_from: at,
            valid_to: at,
            created_at: at,
            rev: 0,
        }
    }

    #[test]
    fn percents_are_counted_in_whole_minor_units_however_large_the_price() {
        let off = |value, amount| coupon("percent", value, None).reduce(amount, "IRR").map(|r| r.amount);
        assert_eq!((off(10, 999), off(33, 100), off(1, 99)), (Ok(99), Ok(33), Ok(0)));
        assert_eq!(off(99, i64::MAX), Ok((i128::from(i64::MAX) * 99 / 100) as i64));
        assert_eq!(off(100, 999), Err(Refusal::NothingLeft));
    }

    #[test]
    fn an_amount_counts_in_its_currency_alone() {
        let off = |amount, currency| coupon("amount", 500, Some("USD")).reduce(amount, currency).map(|r| r.amount);
        assert_eq!(off(900, "USD"), Ok(500));
        assert_eq!(off(900, "EUR"), Err(Refusal::Currency));
        assert_eq!(off(500, "USD"), Err(Refusal::NothingLeft));
    }
}
