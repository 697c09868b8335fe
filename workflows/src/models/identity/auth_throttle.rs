//! Failures to sign in, counted by account, by address and by both; who failed often waits longer each time.

use crate::models::Db;
use std::time::Duration;
use uuid::Uuid;

/// What failures are counted by, and how many are free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// Which: the SHA-256 of what is counted, in hexadecimal.
    pub key: String,
    /// Failures without a pause after them.
    pub free: i32,
    /// The longest pause.
    pub longest: Duration,
}

/// A day without failures is forgotten.
const WINDOW: &str = "1 day";

/// How long somebody must wait before their next try, by these gates; zero when not.
///
/// # Errors
/// Those of the database.
pub async fn wait(db: Db<'_>, tenant_id: Uuid, gates: &[Gate]) -> sqlx::Result<Duration> {
    let keys: Vec<String> = gates.iter().map(|g| g.key.clone()).collect();
    let seconds = sqlx::query_scalar!(
        r#"select coalesce(max(extract(epoch from locked_until - workflow.now())), 0)::float8 as "seconds!"
           from identity.auth_throttle where tenant_id = $1 and key = any ($2)"#,
        tenant_id,
        &keys
    )
    .fetch_one(db)
    .await?;
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

/// Counts a failure at each gate; beyond the free ones each makes the pause twice as long. With `open_only` nothing is to be kept
/// unless it is true what it says: that none of them makes anybody wait. Whoever asks for the same gate meanwhile waits, so that of
/// any number at once no more are let through than one after the other.
///
/// # Errors
/// Those of the database.
pub async fn count(db: Db<'_>, tenant_id: Uuid, gates: &[Gate], open_only: bool) -> sqlx::Result<bool> {
    let mut gates: Vec<&Gate> = gates.iter().collect();
    gates.sort_by(|a, b| a.key.cmp(&b.key));
    let mut open = true;
    for gate in gates {
        let counted = sqlx::query!(
            "insert into identity.auth_throttle as t (tenant_id, key, failures, window_start)
             values ($1, $2, 1, workflow.now())
             on conflict (tenant_id, key) do update set
                 failures = case when t.window_start < workflow.now() - $5::text::interval then 1 else t.failures + 1 end,
                 window_start = workflow.now(),
                 locked_until = case when t.window_start >= workflow.now() - $5::text::interval and t.failures + 1 > $3
                                     then workflow.now() + make_interval(secs => least($4, power(2, least(t.failures - $3, 20)))) end
             where not $6 or t.locked_until is null or t.locked_until <= workflow.now()",
            tenant_id,
            gate.key,
            gate.free,
            gate.longest.as_secs_f64(),
            WINDOW as _,
            open_only,
        )
        .execute(&mut *db)
        .await?;
        open &= counted.rows_affected() > 0;
    }
    Ok(open)
}

/// Takes back a failure that was counted at each of these gates, and the pause that it made: it was none.
///
/// # Errors
/// Those of the database.
pub async fn take_back(db: Db<'_>, tenant_id: Uuid, gates: &[Gate]) -> sqlx::Result<()> {
    let keys: Vec<String> = gates.iter().map(|g| g.key.clone()).collect();
    sqlx::query!(
        "update identity.auth_throttle t set failures = greatest(failures - 1, 0), locked_until = null
         from (select key from identity.auth_throttle where tenant_id = $1 and key = any ($2) order by key for update) k
         where t.tenant_id = $1 and t.key = k.key",
        tenant_id,
        &keys
    )
    .execute(db)
    .await
    .map(drop)
}

/// Forgets the failures at these gates.
///
/// # Errors
/// Those of the database.
pub async fn forget(db: Db<'_>, tenant_id: Uuid, gates: &[Gate]) -> sqlx::Result<()> {
    let keys: Vec<String> = gates.iter().map(|g| g.key.clone()).collect();
    sqlx::query!("delete from identity.auth_throttle where tenant_id = $1 and key = any ($2)", tenant_id, &keys)
        .execute(db)
        .await
        .map(drop)
}

/// Forgets up to `limit` gates where nobody has failed within two days; gives how many.
///
/// # Errors
/// Those of the database.
pub async fn forget_old(db: Db<'_>, limit: i64) -> sqlx::Result<u64> {
    let gone = sqlx::query!(
        "delete from identity.auth_throttle t using (
             select tenant_id, key from identity.auth_throttle
             where window_start < workflow.now() - interval '2 days' and (locked_until is null or locked_until < workflow.now())
             limit $1 for update skip locked) old
         where t.tenant_id = old.tenant_id and t.key = old.key",
        limit
    );
    Ok(gone.execute(db).await?.rows_affected())
}
