//! Our books against those of the gateways: what is stuck, what nobody took, and whether the sums of a day are the same.

pub mod difference;

use crate::{
    contracts::pay::{Settlement, SettlementKind, Unsettled},
    models::Db,
};
use chrono::{Days, NaiveDate};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
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

/// What is compared: the accounts of a tenant at a provider, as one.
#[derive(Debug, Clone, Copy)]
pub struct Books<'a> {
    /// The tenant.
    pub tenant_id: Uuid,
    /// At whom.
    pub provider: &'a str,
    /// The first day that is compared.
    pub first: NaiveDate,
    /// The last one.
    pub last: NaiveDate,
    /// Which accounts have told of which days, also of those before and after.
    pub told: &'a [(Uuid, NaiveDate)],
}

impl Books<'_> {
    /// Whether a day is compared.
    fn holds(&self, day: NaiveDate) -> bool {
        (self.first..=self.last).contains(&day)
    }

    /// Whether an account has told of a day and of those beside it: a movement that it does not name is none.
    fn is_told(&self, gateway_id: Option<Uuid>, day: NaiveDate) -> bool {
        let around = [day - Days::new(1), day, day + Days::new(1)];
        gateway_id.is_some_and(|id| around.iter().all(|day| self.told.contains(&(id, *day))))
    }
}

/// The sums of a day in a currency: ours, theirs, and what differs.
#[derive(Debug, Default)]
struct Sums {
    ours: i64,
    theirs: i64,
    named: Vec<String>,
}

/// A movement in our books.
struct Entry {
    payment_id: Uuid,
    gateway_id: Option<Uuid>,
    /// What the provider calls it, where that is known.
    name: Option<String>,
    amount: i64,
    currency: String,
    day: Option<NaiveDate>,
    created: NaiveDate,
    back: bool,
    /// People gave it back by another way.
    by_hand: bool,
}

impl Entry {
    /// Tomans are listed as rials.
    fn counted(&self) -> (i64, String) {
        let amount = if self.back { -self.amount } else { self.amount };
        match self.currency.as_str() {
            "IRT" => (amount.saturating_mul(10), "IRR".to_owned()),
            other => (amount, other.to_owned()),
        }
    }
}

/// Compares the movements of days with ours, by currency, and keeps the sums; what differs is named. A movement counts on the day of which
/// its provider tells; one that is no payment of ours, such as of another system at the same account, counts for nobody. Gives how many sums
/// differ. As the platform's identity service.
pub async fn compare(db: Db<'_>, books: &Books<'_>, lines: &[Settlement]) -> sqlx::Result<usize> {
    let is_back = |line: &Settlement| line.kind == SettlementKind::Refund;
    // Two accounts of ours that are one at the provider tell of the same.
    let lines: BTreeMap<_, &Settlement> = lines
        .iter()
        .map(|line| ((is_back(line), line.provider_txn.as_str(), line.payment_id, line.at, line.amount), line))
        .collect();
    let entries = entries(&mut *db, books, lines.values().copied()).await?;
    let theirs: Vec<Uuid> = lines.values().filter_map(|line| line.payment_id).collect();
    let foreign = sqlx::query_scalar!(
        "select id from identity.payments where id = any($1) and tenant_id <> $2",
        &theirs,
        books.tenant_id
    )
    .fetch_all(&mut *db)
    .await?;
    let mut sums: BTreeMap<(NaiveDate, String), Sums> = BTreeMap::new();
    let mut used = vec![false; entries.len()];
    let (mut by_payment, mut by_name) = (HashMap::<_, Vec<usize>>::new(), HashMap::<_, Vec<usize>>::new());
    for (n, entry) in entries.iter().enumerate() {
        by_payment.entry((entry.payment_id, entry.back)).or_default().push(n);
        by_name.entry((entry.name.as_deref(), entry.back)).or_default().push(n);
    }
    for line in lines.values() {
        let (day, back) = (line.at.date_naive(), is_back(line));
        let amount = if back { -line.amount } else { line.amount };
        let fitting = match line.payment_id {
            Some(id) => by_payment.get(&(id, back)),
            None => by_name.get(&(Some(line.provider_txn.as_str()), back)),
        };
        // Of several refunds of a payment the one of this name, or else of this amount.
        let best = fitting.into_iter().flatten().copied().filter(|n| !used[*n]).max_by_key(|n| {
            let entry = &entries[*n];
            (entry.name.as_deref() == Some(&line.provider_txn), entry.counted() == (amount, line.currency.clone()))
        });
        let entry = best.map(|n| {
            used[n] = true;
            &entries[n]
        });
        let is_foreign = line.payment_id.is_none_or(|id| foreign.contains(&id));
        if !books.holds(day) || entry.is_none() && is_foreign {
            continue;
        }
        let sum = sums.entry((day, line.currency.clone())).or_default();
        sum.theirs = sum.theirs.saturating_add(amount);
        match entry.map(Entry::counted) {
            None => sum.named.push(format!("{}: not ours, {amount}", line.provider_txn)),
            Some((ours, currency)) if currency == line.currency => {
                sum.ours = sum.ours.saturating_add(ours);
                if ours != amount {
                    sum.named.push(format!("{}: {ours} and {amount}", line.provider_txn));
                }
            }
            Some((ours, currency)) => {
                sum.named.push(format!("{}: {ours} {currency} and {amount}", line.provider_txn));
                let sum = sums.entry((day, currency)).or_default();
                sum.ours = sum.ours.saturating_add(ours);
                sum.named.push(format!("{}: {ours} and {amount} {}", line.provider_txn, line.currency));
            }
        }
    }
    for (_, entry) in entries.iter().enumerate().filter(|(n, entry)| !used[*n] && !entry.by_hand) {
        // One that is older may have been told of before the first of these days.
        let Some(day) = entry.day.filter(|day| books.holds(*day) && entry.created >= books.first - Days::new(1)) else {
            continue;
        };
        if books.is_told(entry.gateway_id, day) {
            let (amount, currency) = entry.counted();
            let sum = sums.entry((day, currency)).or_default();
            sum.ours = sum.ours.saturating_add(amount);
            let name = entry.name.clone().unwrap_or_else(|| entry.payment_id.to_string());
            sum.named.push(format!("{name}: not theirs, {amount}"));
        }
    }
    keep(db, books, &sums).await
}

/// What we have of these movements, and what we have of these days.
async fn entries<'a>(
    db: Db<'_>,
    books: &Books<'_>,
    lines: impl Iterator<Item = &'a Settlement> + Clone,
) -> sqlx::Result<Vec<Entry>> {
    let ids: Vec<Uuid> = lines.clone().filter_map(|line| line.payment_id).collect();
    let names: Vec<String> = lines.map(|line| line.provider_txn.clone()).filter(|name| !name.is_empty()).collect();
    sqlx::query_as!(
        Entry,
        r#"select id as "payment_id!", gateway_id, provider_txn as name, amount as "amount!", currency as "currency!",
                  (captured_at at time zone 'UTC')::date as day, (created_at at time zone 'UTC')::date as "created!", false as "back!",
                  false as "by_hand!"
           from identity.payments
           where tenant_id = $1 and provider = $2 and captured_at is not null
             and (id = any ($5) or provider_txn = any ($6)
                  or created_at >= $3::date - interval '1 day' and captured_at >= $3::date and captured_at < $4::date + interval '1 day')
           union all
           select p.id, p.gateway_id, r.provider_refund, r.amount, p.currency, (r.done_at at time zone 'UTC')::date,
                  (r.created_at at time zone 'UTC')::date, true,
                  exists (select from identity.payment_decisions d where d.refund_id = r.id and d.state = 'confirmed')
           from identity.refunds r join identity.payments p on p.id = r.payment_id
           where r.tenant_id = $1 and p.provider = $2 and r.state in ('sending', 'done')
             and (p.id = any ($5) or r.provider_refund = any ($6)
                  or r.created_at >= $3::date - interval '1 day' and r.done_at >= $3::date and r.done_at < $4::date + interval '1 day')"#,
        books.tenant_id,
        books.provider,
        books.first,
        books.last,
        &ids,
        &names,
    )
    .fetch_all(db)
    .await
}

/// Keeps the sums of days. What somebody has explained stays so as long as the sums do.
async fn keep(db: Db<'_>, books: &Books<'_>, sums: &BTreeMap<(NaiveDate, String), Sums>) -> sqlx::Result<usize> {
    let mut differing = 0;
    for ((day, currency), sum) in sums {
        // In one order: what was explained stays so while the same differs.
        let mut named = sum.named.clone();
        named.sort();
        let note: String = named.join("; ").chars().take(4000).collect();
        differing += usize::from(sum.ours != sum.theirs);
        sqlx::query!(
            "insert into identity.provider_reconciliations (tenant_id, provider, day, currency, our_amount, their_amount, state, note, found_at, updated_at)
             values ($1, $2, $3, $4, $5, $6, case when $5::bigint = $6::bigint then 'equal' else 'open' end, nullif($7, ''), workflow.now(),
                 workflow.now())
             on conflict (tenant_id, provider, day, currency) do update
             set our_amount = excluded.our_amount, their_amount = excluded.their_amount, state = excluded.state, note = excluded.note,
                 updated_at = excluded.updated_at, explanation = null, explained_by = null, confirmed_by = null, confirmed_at = null,
                 found_at = case provider_reconciliations.state when 'equal' then excluded.found_at else provider_reconciliations.found_at end
             where (provider_reconciliations.our_amount, provider_reconciliations.their_amount) <> (excluded.our_amount, excluded.their_amount)
               or provider_reconciliations.note is distinct from excluded.note",
            books.tenant_id,
            books.provider,
            day,
            currency,
            sum.ours,
            sum.theirs,
            note,
        )
        .execute(&mut *db)
        .await?;
    }
    // What was a difference and is no movement of these days any more: it is counted on another one.
    let (days, currencies): (Vec<NaiveDate>, Vec<String>) = sums.keys().cloned().unzip();
    let told: Vec<NaiveDate> = books.told.iter().map(|(_, day)| *day).filter(|day| books.holds(*day)).collect();
    sqlx::query!(
        "update identity.provider_reconciliations set our_amount = 0, their_amount = 0, state = 'equal', note = null, updated_at = workflow.now(),
             explanation = null, explained_by = null
         where tenant_id = $1 and provider = $2 and day = any ($3) and state = 'open'
           and (day, currency::text) not in (select * from unnest($4::date[], $5::text[]))",
        books.tenant_id,
        books.provider,
        &told,
        &days,
        &currencies,
    )
    .execute(db)
    .await?;
    Ok(differing)
}

/// The day that ended last.
pub async fn yesterday(db: Db<'_>) -> sqlx::Result<NaiveDate> {
    sqlx::query_scalar!(r#"select (workflow.now() at time zone 'UTC')::date - 1 as "day!""#).fetch_one(db).await
}
