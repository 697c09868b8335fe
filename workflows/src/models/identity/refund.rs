//! Money that goes back.
//!
//! ```text
//! requested ─approved by a second person─▶ approved ─▶ sending ─▶ done
//!     └─▶ refused                                        └─▶ manual: people have to ─▶ done, failed
//! ```
//!
//! A bank may send back what was done: it is `manual` again then, with the code [`CAME_BACK`].

use super::{gateway::Gateway, payment::Payment};
use crate::models::Db;
use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

/// The code of a refund that was done, and whose money came back to us: the payer still has to get it.
pub const CAME_BACK: &str = "refund.came_back";

/// A refund.
#[derive(Debug, Clone, Serialize)]
pub struct Refund {
    /// Its id.
    pub id: Uuid,
    /// The tenant.
    pub tenant_id: Uuid,
    /// What was paid.
    pub payment_id: Uuid,
    /// In minor units of what was paid.
    pub amount: i64,
    /// See the drawing.
    pub state: String,
    /// Why.
    pub reason: String,
    /// What the gateway calls it.
    pub provider_refund: Option<String>,
    /// Whether nobody asked for it: the money came too late.
    pub automatic: bool,
    /// Whether what was bought is taken back.
    pub revoke: bool,
    /// Who asked for it.
    pub requested_by: Option<Uuid>,
    /// Who else agreed.
    pub approved_by: Option<Uuid>,
    /// Why the gateway did not.
    pub failure_code: Option<String>,
    /// In its words.
    pub failure_detail: Option<String>,
    /// When it was done.
    pub done_at: Option<DateTime<Utc>>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
}

impl Refund {
    /// Whether it was done once, and has its credit note: what was owed since is not owed less.
    pub fn came_back(&self) -> bool {
        self.failure_code.as_deref() == Some(CAME_BACK)
    }
}

/// A refund to be made.
#[derive(Debug, Clone)]
pub struct NewRefund<'a> {
    /// How much.
    pub amount: i64,
    /// Why, 1 to 1000 characters.
    pub reason: &'a str,
    /// Who asks; nobody: it is automatic.
    pub requested_by: Option<Uuid>,
    /// Whether it takes nobody else.
    pub approved: bool,
    /// Whether what was bought is taken back.
    pub revoke: bool,
    /// Counts once a tenant.
    pub idempotency_key: &'a str,
}

/// Asks for a refund; none when more would go back than was paid, nothing was, or the key is taken. Whoever asks for another one of the
/// same payment waits until this transaction ends.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn create(db: Db<'_>, payment: &Payment, new: &NewRefund<'_>) -> sqlx::Result<Option<Uuid>> {
    let left = sqlx::query_scalar!(
        r#"select amount - refunded_amount as "left!" from identity.payments where id = $1 and paid_at is not null for no key update"#,
        payment.id
    );
    if left.fetch_optional(&mut *db).await?.is_none_or(|left| new.amount > left || new.amount <= 0) {
        return Ok(None);
    }
    sqlx::query_scalar!(
        "insert into identity.refunds (tenant_id, payment_id, amount, state, reason, provider, automatic, revoke, requested_by, idempotency_key,
             created_at, updated_at)
         values ($1, $2, $3, case when $4 then 'approved' else 'requested' end, $5, $6, $7::uuid is null, $8, $7, $9, workflow.now(), workflow.now())
         on conflict (tenant_id, idempotency_key) do nothing returning id",
        payment.tenant_id,
        payment.id,
        new.amount,
        new.approved,
        new.reason,
        payment.provider,
        new.requested_by,
        new.revoke,
        new.idempotency_key,
    )
    .fetch_optional(db)
    .await
}

/// A refund of a tenant.
pub async fn find(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<Refund>> {
    Ok(select(db, tenant_id, Some(id), None, None, None, None, 1).await?.pop())
}

/// The one that was asked for with a key.
pub async fn find_by_key(db: Db<'_>, tenant_id: Uuid, key: &str) -> sqlx::Result<Option<Refund>> {
    Ok(select(db, tenant_id, None, None, Some(key), None, None, 1).await?.pop())
}

/// Refunds, newest first, those before the refund `before`; of one payment, in one state, where these are given.
pub async fn list(
    db: Db<'_>,
    tenant_id: Uuid,
    payment_id: Option<Uuid>,
    state: Option<&str>,
    before: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<Refund>> {
    select(db, tenant_id, None, payment_id, None, state, before, limit).await
}

#[expect(clippy::too_many_arguments, reason = "each is one way to look for refunds")]
async fn select(
    db: Db<'_>,
    tenant_id: Uuid,
    id: Option<Uuid>,
    payment_id: Option<Uuid>,
    key: Option<&str>,
    state: Option<&str>,
    before: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<Refund>> {
    sqlx::query_as!(
        Refund,
        "select id, tenant_id, payment_id, amount, state, reason, provider_refund, automatic, revoke, requested_by, approved_by, failure_code,
                failure_detail, done_at, created_at
         from identity.refunds r
         where tenant_id = $1 and ($2::uuid is null or id = $2) and ($3::uuid is null or payment_id = $3)
           and ($4::text is null or idempotency_key = $4) and ($5::text is null or state = $5)
           and ($6::uuid is null or (created_at, id) < (select b.created_at, b.id from identity.refunds b where b.tenant_id = $1 and b.id = $6))
         order by created_at desc, id desc limit $7",
        tenant_id,
        id,
        payment_id,
        key,
        state,
        before,
        limit,
    )
    .fetch_all(db)
    .await
}

/// The second person agrees. False when it is not asked for any more, or they asked for it themselves.
pub async fn approve(db: Db<'_>, tenant_id: Uuid, id: Uuid, by: Uuid) -> sqlx::Result<bool> {
    let approved = sqlx::query!(
        "update identity.refunds set state = 'approved', approved_by = $3, updated_at = workflow.now()
         where tenant_id = $1 and id = $2 and state = 'requested' and requested_by <> $3",
        tenant_id,
        id,
        by,
    );
    Ok(approved.execute(db).await?.rows_affected() == 1)
}

/// Nobody gives it back after all. False when it is not asked for any more.
pub async fn refuse(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<bool> {
    let refused = sqlx::query!(
        "update identity.refunds set state = 'refused', updated_at = workflow.now() where tenant_id = $1 and id = $2 and state = 'requested'",
        tenant_id,
        id,
    );
    Ok(refused.execute(db).await?.rows_affected() == 1)
}

/// Notes which run sees to it.
pub async fn taken_by(db: Db<'_>, id: Uuid, run_id: Uuid) -> sqlx::Result<()> {
    sqlx::query!("update identity.refunds set workflow_run_id = $2 where id = $1", id, run_id)
        .execute(db)
        .await
        .map(drop)
}

/// It is sent. False when it is not to be sent (any more).
pub async fn sending(db: Db<'_>, id: Uuid) -> sqlx::Result<bool> {
    let sent = sqlx::query!(
        "update identity.refunds set state = 'sending', updated_at = workflow.now() where id = $1 and state in ('approved', 'sending')",
        id
    );
    Ok(sent.execute(db).await?.rows_affected() == 1)
}

/// The gateway has taken it on. What it calls it is kept when it calls no other one so.
pub async fn called(db: Db<'_>, id: Uuid, provider_refund: Option<&str>) -> sqlx::Result<()> {
    sqlx::query!(
        "update identity.refunds r set updated_at = workflow.now(), provider_refund = coalesce(provider_refund, case when not exists (
             select from identity.refunds o where o.tenant_id = r.tenant_id and o.provider = r.provider and o.provider_refund = $2) then $2 end)
         where id = $1",
        id,
        provider_refund,
    )
    .execute(db)
    .await
    .map(drop)
}

/// The gateway cannot: people have to.
pub async fn by_hand(db: Db<'_>, id: Uuid, code: &str, detail: &str) -> sqlx::Result<bool> {
    let set = sqlx::query!(
        "update identity.refunds set state = 'manual', failure_code = left($2, 128), failure_detail = left($3, 1000), updated_at = workflow.now()
         where id = $1 and state in ('approved', 'sending')",
        id,
        code,
        detail,
    );
    Ok(set.execute(db).await?.rows_affected() == 1)
}

/// Whether another refund of its tenant has this movement of money at its provider. Whoever else asks for the movement waits until this
/// transaction ends.
pub async fn is_used(db: Db<'_>, id: Uuid, provider_refund: &str) -> sqlx::Result<bool> {
    sqlx::query!(
        r#"select pg_advisory_xact_lock(hashtextextended('movement of money ' || $1::text, 0)) as "locked!: ()""#,
        provider_refund
    )
    .fetch_one(&mut *db)
    .await?;
    sqlx::query_scalar!(
        r#"select exists (select from identity.refunds r join identity.refunds o on o.tenant_id = r.tenant_id and o.provider = r.provider
                          where r.id = $1 and o.id <> $1 and o.provider_refund = $2) as "it!""#,
        id,
        provider_refund,
    )
    .fetch_one(db)
    .await
}

/// What was done came back: people have to. False when it is not done.
pub async fn reopen(db: Db<'_>, id: Uuid, detail: &str) -> sqlx::Result<bool> {
    let reopened = sqlx::query!(
        "update identity.refunds set state = 'manual', failure_code = $2, failure_detail = left($3, 1000), done_at = null, provider_refund = null,
             waiting_told_at = null, updated_at = workflow.now()
         where id = $1 and state = 'done'",
        id,
        CAME_BACK,
        detail,
    );
    Ok(reopened.execute(db).await?.rows_affected() == 1)
}

/// Refunds that people have not made for an hour, with their tenants and why; each is given once.
pub async fn waiting(db: Db<'_>, limit: i64) -> sqlx::Result<Vec<(Uuid, Uuid, String)>> {
    let rows = sqlx::query!(
        r#"update identity.refunds set waiting_told_at = workflow.now()
           where id in (select id from identity.refunds where state = 'manual' and waiting_told_at is null
                          and updated_at < workflow.now() - interval '1 hour' order by updated_at limit $1)
           returning tenant_id, payment_id, coalesce(failure_code, 'refund.manual') as "code!""#,
        limit
    );
    Ok(rows.fetch_all(db).await?.into_iter().map(|row| (row.tenant_id, row.payment_id, row.code)).collect())
}

/// It went back, or never will: `done` or `failed`. False when that was known.
pub async fn end(db: Db<'_>, id: Uuid, state: &str, provider_refund: Option<&str>) -> sqlx::Result<bool> {
    let ended = sqlx::query!(
        "update identity.refunds set state = $2, provider_refund = coalesce(provider_refund, $3),
             done_at = case when $2 = 'done' then workflow.now() end, updated_at = workflow.now()
         where id = $1 and state in ('approved', 'sending', 'manual')",
        id,
        state,
        provider_refund,
    );
    Ok(ended.execute(db).await?.rows_affected() == 1)
}

/// How much of a payment went back by other refunds that took back what it had bought; also what has come back to us since.
pub async fn taken_back_before(db: Db<'_>, payment_id: Uuid, id: Uuid) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select coalesce(sum(amount), 0)::bigint as "sum!" from identity.refunds
           where payment_id = $1 and id <> $2 and revoke and (state = 'done' or failure_code = $3)"#,
        payment_id,
        id,
        CAME_BACK,
    )
    .fetch_one(db)
    .await
}

/// A refund that a gateway tells of.
#[derive(Debug, Clone)]
pub struct Told {
    /// The refund.
    pub id: Uuid,
    /// Of which payment.
    pub payment_id: Uuid,
    /// How it stands.
    pub state: String,
    /// The run that sees to it.
    pub run_id: Uuid,
}

/// The refund that an account calls so, or ours of this id.
pub async fn find_at(
    db: Db<'_>,
    gateway: &Gateway,
    provider_refund: Option<&str>,
    id: Option<Uuid>,
) -> sqlx::Result<Option<Told>> {
    sqlx::query_as!(
        Told,
        r#"select r.id, r.payment_id, r.state, r.workflow_run_id as "run_id!" from identity.refunds r
           join identity.payments p on p.id = r.payment_id and p.gateway_id = $3
           where (r.tenant_id = $1 and r.provider = $2 and r.provider_refund = $4 or r.id = $5) and r.workflow_run_id is not null limit 1"#,
        gateway.tenant_id,
        gateway.provider,
        gateway.id,
        provider_refund,
        id,
    )
    .fetch_optional(db)
    .await
}

/// Refunds that are approved or sent and whose run has ended without them: they are handed to people. Gives them with their tenants.
pub async fn settle_abandoned(db: Db<'_>) -> sqlx::Result<Vec<(Uuid, Uuid)>> {
    use crate::models::{Role, Scope};
    Scope::platform(Role::Identity).enter(&mut *db).await?;
    let open = sqlx::query!(
        r#"select tenant_id, id, workflow_run_id as "run_id!" from identity.refunds
           where state in ('approved', 'sending') and workflow_run_id is not null and updated_at < workflow.now() - interval '1 minute' limit 10000"#
    )
    .fetch_all(&mut *db)
    .await?;
    if open.is_empty() {
        return Ok(vec![]);
    }
    let runs: Vec<Uuid> = open.iter().map(|row| row.run_id).collect();
    Scope::platform(Role::Workflow).enter(&mut *db).await?;
    let ended = sqlx::query_scalar!(
        "select id from workflow.runs where id = any ($1) and state in ('failed', 'cancelled')",
        &runs
    )
    .fetch_all(&mut *db)
    .await?;
    Scope::platform(Role::Identity).enter(&mut *db).await?;
    let mut settled = vec![];
    for row in open.into_iter().filter(|row| ended.contains(&row.run_id)) {
        if by_hand(&mut *db, row.id, "workflow.abandoned", "nobody sees to it any more: it may have been sent").await? {
            settled.push((row.tenant_id, row.id));
        }
    }
    Ok(settled)
}
