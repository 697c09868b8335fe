//! Our books against those of the gateways: what is stuck, what nobody took, and whether the sums of a day are the same.

use crate::{
    contracts::pay::{Settlement, SettlementKind, Unsettled},
    models::Db,
};
use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// A payment that has not moved for a while, or that ended without money not long ago.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stuck {
    /// Its tenant.
    pub tenant_id: Uuid,
    /// The payment.
    pub payment_id: Uuid,
    /// The run that sees to it; none for one that has ended: money may have come late.
    pub run_id: Option<Uuid>,
}

/// Payments that have waited for more than a quarter of an hour, and those that expired within three days and were not looked at for an
/// hour; at most `limit` of each.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn stuck(db: Db<'_>, limit: i64) -> sqlx::Result<Vec<Stuck>> {
    let rows = sqlx::query!(
        r#"(select tenant_id as "tenant_id!", id as "id!", workflow_run_id as run_id from identity.payments
            where state in ('pending', 'verifying') and provider <> 'manual' and gateway_id is not null
              and coalesce(looked_at, created_at) < workflow.now() - interval '15 minutes' order by looked_at nulls first limit $1)
           union all
           (select tenant_id, id, null from identity.payments
            where state = 'expired' and provider <> 'manual' and gateway_id is not null and provider_ref is not null
              and expires_at > workflow.now() - interval '3 days' and coalesce(looked_at, created_at) < workflow.now() - interval '1 hour'
            order by looked_at nulls first limit $1)"#,
        limit
    )
    .fetch_all(&mut *db)
    .await?;
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    sqlx::query!("update identity.payments set looked_at = workflow.now() where id = any ($1)", &ids)
        .execute(db)
        .await?;
    Ok(rows.into_iter().map(|row| Stuck { tenant_id: row.tenant_id, payment_id: row.id, run_id: row.run_id }).collect())
}

/// What becomes of something that was paid, as a gateway lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Matched {
    /// We have it, or it is none of ours.
    Known,
    /// A payment is to be looked at.
    Look(Stuck),
    /// Nobody took it: it is noted for people.
    Noted,
}

/// Finds what was paid among our payments; notes what nobody took. `ours`: whether all that comes by this account is ours.
pub async fn match_one(
    db: Db<'_>,
    tenant_id: Uuid,
    gateway_id: Uuid,
    ours: bool,
    paid: &Unsettled,
) -> sqlx::Result<Matched> {
    let found = sqlx::query!(
        "select id, state, workflow_run_id, paid_at from identity.payments
         where gateway_id = $1 and (provider_ref = $2 or id = $3) order by (provider_ref = $2) desc nulls last limit 1",
        gateway_id,
        paid.provider_ref,
        paid.payment_id,
    )
    .fetch_optional(&mut *db)
    .await?;
    let why = match &found {
        Some(row) if row.paid_at.is_some() || row.state == "review" => return Ok(Matched::Known),
        Some(row) if matches!(row.state.as_str(), "created" | "pending" | "verifying" | "expired") => {
            let run_id = (row.state != "expired").then_some(row.workflow_run_id);
            return Ok(Matched::Look(Stuck { tenant_id, payment_id: row.id, run_id }));
        }
        Some(_) => "ended",
        None if !ours && paid.payment_id.is_none() => return Ok(Matched::Known),
        None => "unknown",
    };
    let noted = sqlx::query!(
        "insert into identity.unmatched_payments (tenant_id, gateway_id, provider_ref, payment_id, amount, currency, why, moved_at, found_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, workflow.now()) on conflict do nothing",
        tenant_id,
        gateway_id,
        paid.provider_ref,
        found.map(|row| row.id),
        paid.amount,
        paid.currency,
        why,
        paid.at,
    );
    Ok(if noted.execute(db).await?.rows_affected() > 0 { Matched::Noted } else { Matched::Known })
}

/// Payments that people have not looked at for an hour; each is given once.
pub async fn waiting(db: Db<'_>, limit: i64) -> sqlx::Result<Vec<(Uuid, Uuid, String)>> {
    let rows = sqlx::query!(
        r#"update identity.payments set review_told_at = workflow.now()
           where id in (select id from identity.payments where state = 'review' and review_told_at is null
                          and review_at < workflow.now() - interval '1 hour' order by review_at limit $1)
           returning tenant_id, id, review_code as "code!""#,
        limit
    );
    Ok(rows.fetch_all(db).await?.into_iter().map(|row| (row.tenant_id, row.id, row.code)).collect())
}

/// Compares the movements of a day with ours, by currency, and keeps the sums; what differs is named. Gives how many sums differ.
pub async fn compare(
    db: Db<'_>,
    (tenant_id, gateway_id, provider): (Uuid, Uuid, &str),
    day: NaiveDate,
    lines: &[Settlement],
) -> sqlx::Result<usize> {
    let rows = sqlx::query!(
        r#"select provider_txn as "name!", amount as "amount!", currency as "currency!",
                  ((captured_at at time zone 'UTC')::date = $2) as "today!", false as "back!"
           from identity.payments where gateway_id = $1 and provider_txn is not null
             and captured_at >= $2::date - interval '2 days' and captured_at < $2::date + interval '3 days'
           union all
           select r.provider_refund, r.amount, p.currency, ((r.done_at at time zone 'UTC')::date = $2), true
           from identity.refunds r join identity.payments p on p.id = r.payment_id
           where p.gateway_id = $1 and r.provider_refund is not null and r.state = 'done'
             and r.done_at >= $2::date - interval '2 days' and r.done_at < $2::date + interval '3 days'"#,
        gateway_id,
        day,
    )
    .fetch_all(&mut *db)
    .await?;
    // Tomans are listed as rials.
    let counted = |amount: i64, currency: &str| match currency {
        "IRT" => (amount.saturating_mul(10), "IRR".to_owned()),
        other => (amount, other.to_owned()),
    };
    let mut sums: BTreeMap<String, (i64, i64, Vec<String>)> = BTreeMap::new();
    for line in lines {
        let back = line.kind == SettlementKind::Refund;
        let sign = if back { -1 } else { 1 };
        let sum = sums.entry(line.currency.clone()).or_default();
        sum.1 = sum.1.saturating_add(sign * line.amount);
        match rows.iter().find(|row| row.name == line.provider_txn && row.back == back) {
            Some(row) => {
                let (amount, _) = counted(row.amount, &row.currency);
                sum.0 = sum.0.saturating_add(sign * amount);
                if amount != line.amount {
                    sum.2.push(format!("{}: {amount} and {}", line.provider_txn, line.amount));
                }
            }
            None => sum.2.push(format!("{}: not ours, {}", line.provider_txn, sign * line.amount)),
        }
    }
    for row in rows.iter().filter(|row| row.today) {
        if !lines.iter().any(|line| line.provider_txn == row.name && (line.kind == SettlementKind::Refund) == row.back)
        {
            let (amount, currency) = counted(row.amount, &row.currency);
            let signed = if row.back { -amount } else { amount };
            let sum = sums.entry(currency).or_default();
            sum.0 = sum.0.saturating_add(signed);
            sum.2.push(format!("{}: not theirs, {signed}", row.name));
        }
    }
    let mut differing = 0;
    for (currency, (ours, theirs, named)) in &sums {
        let note: String = named.join("; ").chars().take(4000).collect();
        differing += usize::from(ours != theirs);
        sqlx::query!(
            "insert into identity.provider_reconciliations (tenant_id, provider, day, currency, our_amount, their_amount, state, note, updated_at)
             values ($1, $2, $3, $4, $5, $6, case when $5::bigint = $6::bigint then 'equal' else 'open' end, nullif($7, ''), workflow.now())
             on conflict (tenant_id, provider, day, currency) do update
             set our_amount = excluded.our_amount, their_amount = excluded.their_amount, state = excluded.state, note = excluded.note,
                 updated_at = excluded.updated_at
             where provider_reconciliations.state <> 'explained'",
            tenant_id,
            provider,
            day,
            currency,
            ours,
            theirs,
            note,
        )
        .execute(&mut *db)
        .await?;
    }
    Ok(differing)
}

/// The day that ended last.
pub async fn yesterday(db: Db<'_>) -> sqlx::Result<NaiveDate> {
    sqlx::query_scalar!(r#"select (workflow.now() at time zone 'UTC')::date - 1 as "day!""#).fetch_one(db).await
}
