//! What becomes of a payment: each call moves it one step, or finds that somebody else has.

use super::Payment;
use crate::{contracts::pay::Created, models::Db, models::identity::coupon};
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// Locks a payment until this transaction ends, and gives it as it is.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn lock(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<Payment>> {
    let locked = sqlx::query!(
        "select id from identity.payments where tenant_id = $1 and id = $2 for no key update",
        tenant_id,
        id
    );
    match locked.fetch_optional(&mut *db).await? {
        // In a statement of its own: as it is after whoever had it.
        Some(_) => super::find(db, tenant_id, id).await,
        None => Ok(None),
    }
}

/// Notes which run sees to it from now on.
pub async fn taken_by(db: Db<'_>, id: Uuid, run_id: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        "update identity.payments set workflow_run_id = $2 where id = $1 and workflow_run_id <> $2",
        id,
        run_id
    )
    .execute(db)
    .await
    .map(drop)
}

/// The gateway has opened it. False when another payment has what it calls it; then nothing has changed.
pub async fn opened(db: Db<'_>, id: Uuid, created: &Created) -> sqlx::Result<bool> {
    let taken = sqlx::query_scalar!(
        r#"select exists (select from identity.payments o join identity.payments p on p.gateway_id = o.gateway_id
                          where p.id = $1 and o.id <> $1 and o.provider_ref = $2) as "it!""#,
        id,
        created.provider_ref,
    );
    if taken.fetch_one(&mut *db).await? {
        return Ok(false);
    }
    sqlx::query!(
        "update identity.payments set state = 'pending', provider_ref = $2, redirect_url = $3, instructions = $4,
             expires_at = least(expires_at, coalesce($5, expires_at)), updated_at = workflow.now()
         where id = $1 and state = 'created'",
        id,
        created.provider_ref,
        created.redirect_url,
        created.instructions,
        created.expires_at,
    )
    .execute(db)
    .await?;
    Ok(true)
}

/// Its gateway is being asked.
pub async fn looking(db: Db<'_>, id: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        "update identity.payments set state = case when state in ('created', 'pending') then 'verifying' else state end,
             looked_at = workflow.now(), updated_at = workflow.now() where id = $1",
        id
    )
    .execute(db)
    .await
    .map(drop)
}

/// It is not paid yet.
pub async fn waits(db: Db<'_>, id: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        "update identity.payments set state = 'pending', updated_at = workflow.now() where id = $1 and state = 'verifying'",
        id
    )
    .execute(db)
    .await
    .map(drop)
}

/// The payer asks to have it cancelled. False when that comes too late.
pub async fn ask_cancel(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<bool> {
    let asked = sqlx::query!(
        "update identity.payments set cancel_asked_at = coalesce(cancel_asked_at, workflow.now()), updated_at = workflow.now()
         where tenant_id = $1 and id = $2 and state in ('created', 'pending', 'verifying')",
        tenant_id,
        id,
    );
    Ok(asked.execute(db).await?.rows_affected() == 1)
}

/// Ends it without money: `failed`, `expired` or `cancelled`; its coupon is there again. False when it has ended before.
pub async fn end(db: Db<'_>, id: Uuid, state: &str, code: Option<&str>) -> sqlx::Result<bool> {
    let ended = sqlx::query!(
        "update identity.payments set state = $2, failure_code = left($3, 128), updated_at = workflow.now()
         where id = $1 and (state in ('created', 'pending', 'verifying') or state = 'review' and $2 = 'failed')",
        id,
        state,
        code,
    );
    if ended.execute(&mut *db).await?.rows_affected() == 0 {
        return Ok(false);
    }
    coupon::give_back(db, id).await?;
    Ok(true)
}

/// Somebody has to look at it. False when it is in review already, or has ended.
pub async fn review(db: Db<'_>, id: Uuid, code: &str, detail: &str) -> sqlx::Result<bool> {
    let set = sqlx::query!(
        "update identity.payments set state = 'review', review_code = left($2, 128), review_detail = left($3, 1000), review_at = workflow.now(),
             updated_at = workflow.now()
         where id = $1 and state in ('created', 'pending', 'verifying', 'expired')",
        id,
        code,
        detail,
    );
    Ok(set.execute(db).await?.rows_affected() == 1)
}

/// Money that came, as the gateway tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured<'a> {
    /// What the gateway calls the movement.
    pub provider_txn: &'a str,
    /// When, by its clock.
    pub at: Option<DateTime<Utc>>,
}

/// Whether another payment has this movement of money, by whichever account of its tenant at this provider: the same one may have been
/// given to us twice. Whoever else asks for the movement waits until this transaction ends.
pub async fn is_used(db: Db<'_>, id: Uuid, provider_txn: &str) -> sqlx::Result<bool> {
    sqlx::query!(
        r#"select pg_advisory_xact_lock(hashtextextended('movement of money ' || $1::text, 0)) as "locked!: ()""#,
        provider_txn
    )
    .fetch_one(&mut *db)
    .await?;
    // In a statement of its own: as it is after whoever had it.
    sqlx::query_scalar!(
        r#"select exists (select from identity.payments p
                          join identity.payment_gateways g on g.tenant_id = p.tenant_id and g.provider = p.provider
                          join identity.payments o on o.gateway_id = g.id and o.provider_txn = $2 and o.id <> p.id
                          where p.id = $1) as "it!""#,
        id,
        provider_txn,
    )
    .fetch_one(db)
    .await
}

/// It is paid; `kept`: and what it is for is given in the same transaction. Otherwise all of it goes back.
pub async fn paid(db: Db<'_>, id: Uuid, captured: &Captured<'_>, kept: bool) -> sqlx::Result<()> {
    sqlx::query!(
        "update identity.payments set state = case when $4 then 'paid' else 'refunding' end, provider_txn = $2,
             captured_at = coalesce($3, workflow.now()), paid_at = workflow.now(), settled_at = case when $4 then workflow.now() end,
             updated_at = workflow.now()
         where id = $1 and (state in ('created', 'pending', 'verifying', 'expired', 'review') or state = 'cancelled' and provider = 'manual')",
        id,
        captured.provider_txn,
        captured.at,
        kept,
    )
    .execute(db)
    .await
    .map(drop)
}

/// What the refunds of a paid payment make of it.
pub async fn recount(db: Db<'_>, id: Uuid) -> sqlx::Result<String> {
    sqlx::query_scalar!(
        r#"update identity.payments p set updated_at = workflow.now(), state = case
                 when r.done = p.amount then 'refunded' when r.under_way > 0 then 'refunding'
                 when r.done > 0 then 'partially_refunded' else 'paid' end
           from (select coalesce(sum(amount) filter (where state = 'done'), 0) as done,
                        count(*) filter (where state in ('approved', 'sending', 'manual')) as under_way
                 from identity.refunds where payment_id = $1) r
           where p.id = $1 and p.paid_at is not null returning p.state"#,
        id
    )
    .fetch_one(db)
    .await
}

/// Payments whose run the engine gave up: somebody has to look. Gives their tenants and ids. Looks at the payments, then at their runs:
/// each service at its own table.
pub async fn settle_abandoned(db: Db<'_>) -> sqlx::Result<Vec<(Uuid, Uuid)>> {
    use crate::models::{Role, Scope};
    Scope::platform(Role::Identity).enter(&mut *db).await?;
    let open = sqlx::query!(
        "select tenant_id, id, workflow_run_id from identity.payments
         where state in ('created', 'pending', 'verifying') and gateway_id is not null and updated_at < workflow.now() - interval '1 minute'
         order by updated_at limit 10000"
    )
    .fetch_all(&mut *db)
    .await?;
    if open.is_empty() {
        return Ok(vec![]);
    }
    let runs: Vec<Uuid> = open.iter().map(|row| row.workflow_run_id).collect();
    Scope::platform(Role::Workflow).enter(&mut *db).await?;
    let ended = sqlx::query_scalar!(
        "select id from workflow.runs where id = any ($1) and state in ('failed', 'cancelled')",
        &runs
    )
    .fetch_all(&mut *db)
    .await?;
    Scope::platform(Role::Identity).enter(&mut *db).await?;
    let mut settled = vec![];
    for row in open.into_iter().filter(|row| ended.contains(&row.workflow_run_id)) {
        if review(&mut *db, row.id, "workflow.abandoned", "nobody sees to it any more").await? {
            settled.push((row.tenant_id, row.id));
        }
    }
    Ok(settled)
}
