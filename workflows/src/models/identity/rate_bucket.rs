//! Token buckets: how often somebody may ask. The rows are shared by all servers, so that any number of them together
//! grant no more than one would.

use crate::models::{DEFAULT_TENANT, Db};
use uuid::Uuid;

/// How much somebody may do: `limit` at once, and as much again within each window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Tokens of a full bucket.
    pub limit: f64,
    /// An empty one is full again after this.
    pub window_seconds: f64,
}

/// Requests of a tenant, where nothing else was agreed: limit `requests`.
pub const OF_A_TENANT: Rate = Rate { limit: 6000.0, window_seconds: 60.0 };
/// Requests of one of its keys, or people: limit `caller_requests`.
pub const OF_A_CALLER: Rate = Rate { limit: 3000.0, window_seconds: 60.0 };
/// Requests without a credential, by address.
pub const OF_AN_ADDRESS: Rate = Rate { limit: 600.0, window_seconds: 60.0 };
/// Credentials that were wrong, by address.
pub const OF_GUESSES: Rate = Rate { limit: 30.0, window_seconds: 60.0 };

/// What is left of a rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// Which: `tenant`, `caller`, `address` or `guesses`.
    pub name: &'static str,
    /// Whether this request got a token.
    pub granted: bool,
    /// The rate.
    pub rate: Rate,
    /// Tokens left.
    pub tokens: f64,
}

impl Budget {
    /// Seconds until there is a token, at least 1.
    pub fn retry_after(&self) -> u64 {
        let missing = (1.0 - self.tokens).max(0.0);
        seconds(missing * self.rate.window_seconds / self.rate.limit.max(f64::MIN_POSITIVE)).max(1)
    }

    /// Seconds until the bucket is full.
    pub fn reset(&self) -> u64 {
        let missing = (self.rate.limit - self.tokens).max(0.0);
        seconds(missing * self.rate.window_seconds / self.rate.limit.max(f64::MIN_POSITIVE))
    }
}

/// Whole seconds, rounded up; a day for what never comes.
fn seconds(exact: f64) -> u64 {
    exact.ceil().clamp(0.0, 86_400.0) as u64
}

/// Takes a token of a person of a tenant, and one of the tenant's if there was one: with the limits of the tenant.
///
/// # Errors
/// Those of the database.
pub async fn take(db: Db<'_>, tenant_id: Uuid, caller: &str) -> sqlx::Result<Vec<Budget>> {
    let taken = sqlx::query!(
        r#"select l.of_caller as "of_caller!", l.of_caller_in as "of_caller_in!", l.of_tenant as "of_tenant!", l.of_tenant_in as "of_tenant_in!",
                  c.granted as "caller_granted!", c.tokens as "caller_tokens!", t.granted as "tenant_granted?", t.tokens as "tenant_tokens?"
           from identity.request_limits($1, $3, $4, $5, $6) l
           cross join lateral identity.take_token(true, $1, $2, l.of_caller, l.of_caller_in, workflow.now()) c
           left join lateral identity.take_token(c.granted, $1, 'tenant', l.of_tenant, l.of_tenant_in, workflow.now()) t on true"#,
        tenant_id,
        caller,
        OF_A_TENANT.limit,
        OF_A_TENANT.window_seconds,
        OF_A_CALLER.limit,
        OF_A_CALLER.window_seconds,
    )
    .fetch_one(db)
    .await?;
    let caller = Rate { limit: taken.of_caller, window_seconds: taken.of_caller_in };
    let tenant = Rate { limit: taken.of_tenant, window_seconds: taken.of_tenant_in };
    Ok(budgets(
        (caller, taken.caller_granted, taken.caller_tokens),
        (tenant, taken.tenant_granted, taken.tenant_tokens),
    ))
}

/// What a statement took, as budgets: the caller's first, and the tenant's when it came to that.
pub(super) fn budgets(caller: (Rate, bool, f64), tenant: (Rate, Option<bool>, Option<f64>)) -> Vec<Budget> {
    let (rate, granted, tokens) = caller;
    let mut taken = vec![Budget { name: "caller", granted, rate, tokens }];
    if let (rate, Some(granted), Some(tokens)) = tenant {
        taken.push(Budget { name: "tenant", granted, rate, tokens });
    }
    taken
}

/// Takes a token that belongs to no tenant, such as one of an address.
///
/// # Errors
/// Those of the database.
pub async fn take_public(db: Db<'_>, name: &'static str, key: &str, rate: Rate) -> sqlx::Result<Budget> {
    let key: String = format!("{name}:{key}").chars().take(200).collect();
    let taken = sqlx::query!(
        r#"select granted as "granted!", tokens as "tokens!" from identity.take_token(true, $1, $2, $3, $4, workflow.now())"#,
        DEFAULT_TENANT,
        key,
        rate.limit,
        rate.window_seconds,
    )
    .fetch_one(db)
    .await?;
    Ok(Budget { name, granted: taken.granted, rate, tokens: taken.tokens })
}

/// Forgets buckets that nobody has used for a day: they are full. Gives how many.
///
/// # Errors
/// Those of the database.
pub async fn forget_idle(db: Db<'_>) -> sqlx::Result<u64> {
    let forgotten =
        sqlx::query!("delete from identity.rate_buckets where updated_at < workflow.now() - interval '1 day'");
    Ok(forgotten.execute(db).await?.rows_affected())
}
