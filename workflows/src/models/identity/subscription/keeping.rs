//! Which run keeps a subscription, and that its period is over.

use super::{Subscription, find};
use crate::models::{Db, Role, Scope};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Notes which run keeps a subscription from now on, and gives it as it is.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn keep(db: Db<'_>, tenant_id: Uuid, id: Uuid, run_id: Uuid) -> sqlx::Result<Option<Subscription>> {
    sqlx::query!(
        "update identity.subscriptions set workflow_run_id = $3 where tenant_id = $1 and id = $2 and workflow_run_id is distinct from $3
           and state in ('trialing', 'active', 'past_due', 'paused')",
        tenant_id,
        id,
        run_id,
    )
    .execute(&mut *db)
    .await?;
    find(db, tenant_id, id).await
}

/// When a period was paid that follows another one.
pub async fn renewed_at(db: Db<'_>, id: Uuid, period_no: i32) -> sqlx::Result<Option<DateTime<Utc>>> {
    sqlx::query_scalar!(
        "select created_at from identity.subscription_periods p where subscription_id = $1 and period_no = $2
           and exists (select from identity.subscription_periods b where b.subscription_id = $1 and b.period_no < $2)",
        id,
        period_no,
    )
    .fetch_optional(db)
    .await
}

/// By whom its last period was paid that was, such as `stripe`.
pub async fn paid_by(db: Db<'_>, id: Uuid) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!(
        "select p.provider from identity.subscription_periods s join identity.payments p on p.id = s.payment_id
         where s.subscription_id = $1 and p.gateway_id is not null order by s.period_no desc limit 1",
        id
    )
    .fetch_optional(db)
    .await
}

/// A subscription that nobody keeps.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Unkept {
    /// Its tenant.
    pub tenant_id: Uuid,
    /// The subscription.
    pub id: Uuid,
    /// The run that kept it and is over; none: none ever did.
    pub was_kept_by: Option<Uuid>,
}

/// Subscriptions that no run keeps: those that never had one, and those whose run is over although something was due an hour ago. A run
/// that went on as another one is not over. Begins and ends as the platform's identity service.
pub async fn unkept(db: Db<'_>, limit: i64) -> sqlx::Result<Vec<Unkept>> {
    let mut found = sqlx::query_as!(
        Unkept,
        r#"(select tenant_id as "tenant_id!", id as "id!", workflow_run_id as "was_kept_by?" from identity.subscriptions
            where workflow_run_id is null and state in ('trialing', 'active', 'past_due') order by id limit $1)
           union all
           (select tenant_id, id, workflow_run_id from identity.subscriptions
            where workflow_run_id is not null and state in ('trialing', 'active', 'past_due')
              and current_period_end < workflow.now() - case state when 'past_due' then interval '7 days 1 hour' else interval '1 hour' end
              and (state <> 'past_due' or past_due_since < workflow.now() - interval '7 days 1 hour')
            order by current_period_end limit $1)"#,
        limit
    )
    .fetch_all(&mut *db)
    .await?;
    let runs: Vec<Uuid> = found.iter().filter_map(|one| one.was_kept_by).collect();
    Scope::platform(Role::Workflow).enter(&mut *db).await?;
    let alive = sqlx::query_scalar!(
        r#"with recursive chain (first, finished_at, continued_as) as (
               select id, finished_at, continued_as from workflow.runs where id = any($1)
               union all
               select c.first, r.finished_at, r.continued_as from chain c join workflow.runs r on r.id = c.continued_as)
           select distinct first as "first!" from chain where finished_at is null"#,
        &runs
    )
    .fetch_all(&mut *db)
    .await?;
    Scope::platform(Role::Identity).enter(db).await?;
    found.retain(|one| one.was_kept_by.is_none_or(|run| !alive.contains(&run)));
    Ok(found)
}

/// Notes that period `period_no` is over and the next is not paid. False when it is paid meanwhile, or noted before.
pub async fn lapse(db: Db<'_>, tenant_id: Uuid, id: Uuid, period_no: i32) -> sqlx::Result<bool> {
    let lapsed = sqlx::query!(
        "update identity.subscriptions set state = 'past_due', past_due_since = workflow.now(), updated_at = workflow.now()
         where tenant_id = $1 and id = $2 and period_no = $3 and state in ('trialing', 'active') and current_period_end <= workflow.now()",
        tenant_id,
        id,
        period_no,
    );
    Ok(lapsed.execute(db).await?.rows_affected() == 1)
}
