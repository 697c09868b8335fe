//! Credits: seconds of rendering that were bought or given, and what films take of them.
//!
//! ```text
//! grant ─▶ balance ─hold─▶ held ──capture──▶ spent: what was really rendered, at most what was held
//!                            └───release──▶ free again: the film failed, was cancelled, or its run is gone
//! ```
//!
//! A person's account pays for the person's films as long as there is enough in it, else the tenant's account does. A film that nobody has
//! an account for is free of charge, unless its tenant says that films cost credits ([`set_paid`]), or sells some and has not said that they
//! cost none ([`sells`]). So nobody is worse off for what they were given: whose account is short has what they had without one. Previews
//! are always free.
//!
//! An account is one sum. Which of its seconds a film took nobody says; where that matters, because money goes back, [`left_of`] counts by
//! one rule.

mod lots;

use crate::models::{Db, Role, Scope};
use chrono::{DateTime, Utc};
use futures::TryStreamExt as _;
use lots::Lots;
use serde::Serialize;
use std::time::Duration;
use uuid::Uuid;

/// How long credits stay held without anybody looking after the run they are for.
pub const HELD_FOR: Duration = Duration::from_secs(24 * 3600);
/// The most that one entry may move, in seconds: what is larger is a mistake.
pub const MOST: i64 = 1_000_000_000_000;

/// An account of a tenant or of a person in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Account {
    /// Its id.
    pub id: Uuid,
    /// The person; none: it is the tenant's.
    pub user_id: Option<Uuid>,
    /// Seconds there are, those that are held included.
    pub balance: i64,
    /// Seconds that films under way may take.
    pub held: i64,
}

impl Account {
    /// Seconds that can still be held.
    pub fn free(&self) -> i64 {
        self.balance - self.held
    }
}

/// Why an account changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Bought.
    Purchase,
    /// Given: by an administrator, with a plan, as a gift.
    Grant,
    /// Spent on a film.
    Render,
    /// Taken back with the money.
    Refund,
    /// Put right by an administrator.
    Correction,
    /// Past its time.
    Expiry,
}

impl Reason {
    /// Its name in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Purchase => "purchase",
            Self::Grant => "grant",
            Self::Render => "render",
            Self::Refund => "refund",
            Self::Correction => "correction",
            Self::Expiry => "expiry",
        }
    }
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "an entry may have been refused"]
pub enum Entered {
    /// It counts; so much is there now.
    Now(i64),
    /// An entry of this key counted before: nothing changed.
    Before,
    /// It would take more than is free, or be beyond counting: nothing changed.
    Refused,
}

/// A line of an account's ledger.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its id.
    pub id: Uuid,
    /// What it is of; counts once in a tenant.
    pub entry_key: String,
    /// Seconds that came, or went.
    pub delta: i64,
    /// Seconds that were there afterwards.
    pub balance_after: i64,
    /// Why, one of [`Reason`].
    pub reason: String,
    /// When.
    pub created_at: DateTime<Utc>,
}

/// The account of a person, or of the tenant itself.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn find(db: Db<'_>, tenant_id: Uuid, user_id: Option<Uuid>) -> sqlx::Result<Option<Account>> {
    sqlx::query_as!(
        Account,
        "select id, user_id, balance, held from identity.credit_accounts where tenant_id = $1 and user_id is not distinct from $2",
        tenant_id,
        user_id,
    )
    .fetch_optional(db)
    .await
}

/// The same; an empty one is made where there is none.
pub async fn open(db: Db<'_>, tenant_id: Uuid, user_id: Option<Uuid>) -> sqlx::Result<Account> {
    sqlx::query!(
        "insert into identity.credit_accounts (tenant_id, user_id, updated_at) values ($1, $2, workflow.now())
         on conflict (tenant_id, user_id, unit) do nothing",
        tenant_id,
        user_id,
    )
    .execute(&mut *db)
    .await?;
    find(db, tenant_id, user_id).await?.ok_or(sqlx::Error::RowNotFound)
}

/// The same, and nobody else changes it until this transaction ends: what is free now stays so.
pub async fn open_locked(db: Db<'_>, tenant_id: Uuid, user_id: Option<Uuid>) -> sqlx::Result<Account> {
    let account = open(&mut *db, tenant_id, user_id).await?;
    sqlx::query!("select id from identity.credit_accounts where id = $1 for no key update", account.id)
        .fetch_one(&mut *db)
        .await?;
    // In a statement of its own: as it is after whoever had it.
    find(db, tenant_id, user_id).await?.ok_or(sqlx::Error::RowNotFound)
}

/// Whose account may pay for a film: the person's, then the tenant's; none when neither has one.
pub async fn payers(db: Db<'_>, tenant_id: Uuid, user_id: Option<Uuid>) -> sqlx::Result<Vec<Account>> {
    let own = match user_id {
        Some(_) => find(&mut *db, tenant_id, user_id).await?,
        None => None,
    };
    Ok(own.into_iter().chain(find(db, tenant_id, None).await?).collect())
}

/// The first of them.
pub async fn payer(db: Db<'_>, tenant_id: Uuid, user_id: Option<Uuid>) -> sqlx::Result<Option<Account>> {
    Ok(payers(db, tenant_id, user_id).await?.into_iter().next())
}

/// Whether films cost credits also where there is no account to pay for them: then they are refused.
pub async fn is_paid(db: Db<'_>, tenant_id: Uuid) -> sqlx::Result<bool> {
    let paid = sqlx::query_scalar!(
        r#"select coalesce(settings ->> 'films', 'free') = 'paid' as "paid!" from identity.tenants where id = $1"#,
        tenant_id
    );
    Ok(paid.fetch_optional(db).await?.unwrap_or_default())
}

/// Says whether films of a tenant cost credits where there is no account.
pub async fn set_paid(db: Db<'_>, tenant_id: Uuid, paid: bool) -> sqlx::Result<()> {
    sqlx::query!(
        "update identity.tenants set settings = settings || jsonb_build_object('films', case when $2 then 'paid' else 'free' end),
             updated_at = workflow.now(), rev = rev + 1 where id = $1",
        tenant_id,
        paid,
    )
    .execute(db)
    .await
    .map(drop)
}

/// A tenant begins to sell credits: films cost some from now on, unless somebody has said whether they do. True when that is new.
pub async fn sells(db: Db<'_>, tenant_id: Uuid) -> sqlx::Result<bool> {
    let set = sqlx::query!(
        r#"update identity.tenants set settings = settings || '{"films": "paid"}'::jsonb, updated_at = workflow.now(), rev = rev + 1
         where id = $1 and settings ->> 'films' is null"#,
        tenant_id,
    );
    Ok(set.execute(db).await?.rows_affected() == 1)
}

/// Adds `delta` seconds, or takes them where it is negative; never what is held. `entry_key` names what for, such as
/// `payment:<id>`: the same key counts once, however often it is sent.
pub async fn grant(db: Db<'_>, account: Uuid, entry_key: &str, delta: i64, reason: Reason) -> sqlx::Result<Entered> {
    let row = sqlx::query!(
        r#"select a.tenant_id, a.balance, a.held from identity.credit_accounts a where a.id = $1 for no key update"#,
        account
    )
    .fetch_one(&mut *db)
    .await?;
    // In a statement of its own: what others have entered meanwhile is seen.
    let before = sqlx::query_scalar!(
        r#"select exists (select from identity.credit_ledger where tenant_id = $1 and entry_key = $2) as "it!""#,
        row.tenant_id,
        entry_key,
    );
    if before.fetch_one(&mut *db).await? {
        return Ok(Entered::Before);
    }
    let after = row.balance.checked_add(delta).filter(|after| *after >= row.held && *after <= MOST);
    let Some(after) = after.filter(|_| delta != 0) else { return Ok(Entered::Refused) };
    sqlx::query!(
        "update identity.credit_accounts set balance = $2, updated_at = workflow.now() where id = $1",
        account,
        after
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "insert into identity.credit_ledger (tenant_id, account_id, entry_key, delta, balance_after, reason, created_at)
         values ($1, $2, $3, $4, $5, $6, workflow.now())",
        row.tenant_id,
        account,
        entry_key,
        delta,
        after,
        reason.name(),
    )
    .execute(db)
    .await?;
    Ok(Entered::Now(after))
}

/// What counts under a key: whose account, and how many seconds came or went. None when nothing does.
pub async fn entered(db: Db<'_>, tenant_id: Uuid, entry_key: &str) -> sqlx::Result<Option<(Uuid, i64)>> {
    let entry = sqlx::query!(
        "select account_id, delta from identity.credit_ledger where tenant_id = $1 and entry_key = $2",
        tenant_id,
        entry_key,
    );
    Ok(entry.fetch_optional(db).await?.map(|entry| (entry.account_id, entry.delta)))
}

/// Seconds of those that came under `entry_key` that nobody has spent, and no film under way holds: never more than is free. What was given
/// is spent before what was bought, and of each what came first; what was taken back with money is of what that money had paid for. The
/// caller holds the account, as [`open_locked`] gives it.
pub async fn left_of(db: Db<'_>, account: &Account, entry_key: &str) -> sqlx::Result<i64> {
    let mut lines = sqlx::query!(
        r#"select entry_key, delta, reason, case
               when reason = 'refund' and entry_key like 'refund:%' then (
                   select 'payment:' || r.payment_id from identity.refunds r where r.id = substr(l.entry_key, 8)::uuid)
               when reason = 'refund' and entry_key like '%:back' then left(entry_key, -5) end as "came_as?"
           from identity.credit_ledger l where account_id = $1 order by created_at, delta < 0, id"#,
        account.id,
    )
    .fetch(db);
    let mut lots = Lots::default();
    while let Some(line) = lines.try_next().await? {
        match line.delta {
            came @ 1.. => lots.come(line.entry_key, came, line.reason == Reason::Purchase.name()),
            went => lots.go(-went, line.came_as.as_deref()),
        }
    }
    lots.go(account.held, None);
    Ok(lots.left_of(entry_key))
}

/// Sets seconds aside for a run; gives the hold, or none when less than `seconds` is free.
pub async fn hold(db: Db<'_>, account: Uuid, run_id: Uuid, seconds: i64) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!(
        r#"with taken as (
               update identity.credit_accounts set held = held + $3, updated_at = workflow.now()
               where id = $1 and balance - held >= $3 returning id, tenant_id)
           insert into identity.credit_holds (tenant_id, account_id, run_id, amount, expires_at, created_at)
           select tenant_id, id, $2, $3, workflow.now() + make_interval(secs => $4), workflow.now() from taken returning id"#,
        account,
        run_id,
        seconds,
        HELD_FOR.as_secs_f64(),
    )
    .fetch_optional(db)
    .await
}

/// Spends what a run has rendered of what is held for it, and frees the rest; gives what was spent. None when nothing is held for it
/// any more: then nothing changes.
pub async fn capture(db: Db<'_>, tenant_id: Uuid, run_id: Uuid, seconds: i64) -> sqlx::Result<Option<i64>> {
    let captured = sqlx::query_scalar!(
        r#"with ended as (
               update identity.credit_holds set state = 'captured', captured = least(amount, $3), ended_at = workflow.now()
               where tenant_id = $1 and run_id = $2 and state = 'held' returning account_id, amount, captured),
           spent as (
               update identity.credit_accounts a
               set balance = a.balance - e.captured, held = a.held - e.amount, updated_at = workflow.now()
               from ended e where a.id = e.account_id returning a.id, e.captured, a.balance),
           noted as (
               insert into identity.credit_ledger (tenant_id, account_id, entry_key, delta, balance_after, reason, created_at)
               select $1, id, 'run:' || $2::uuid || ':capture', -captured, balance, 'render', workflow.now() from spent where captured > 0)
           select captured as "captured!" from ended"#,
        tenant_id,
        run_id,
        seconds.max(0),
    );
    captured.fetch_optional(db).await
}

/// Frees what is held for a run. False when nothing is any more.
pub async fn release(db: Db<'_>, tenant_id: Uuid, run_id: Uuid) -> sqlx::Result<bool> {
    let released = sqlx::query!(
        r#"with ended as (
               update identity.credit_holds set state = 'released', ended_at = workflow.now()
               where tenant_id = $1 and run_id = $2 and state = 'held' returning account_id, amount)
           update identity.credit_accounts a set held = a.held - e.amount, updated_at = workflow.now()
           from ended e where a.id = e.account_id"#,
        tenant_id,
        run_id,
    );
    Ok(released.execute(db).await?.rows_affected() > 0)
}

/// What became of holds that were past their time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Looked {
    /// Those of runs that are over or gone: freed.
    pub released: u64,
    /// Those of runs under way: held on.
    pub kept: u64,
}

/// Looks after holds that are past their time: those of runs that have ended, or are not there, are freed; the others are held on.
/// Each service looks at its own table.
pub async fn look_after(db: Db<'_>, limit: i64) -> sqlx::Result<Looked> {
    Scope::platform(Role::Identity).enter(&mut *db).await?;
    let due = sqlx::query!(
        "select tenant_id, run_id from identity.credit_holds where state = 'held' and expires_at <= workflow.now()
         order by expires_at limit $1 for no key update skip locked",
        limit
    )
    .fetch_all(&mut *db)
    .await?;
    Scope::platform(Role::Workflow).enter(&mut *db).await?;
    let runs: Vec<Uuid> = due.iter().map(|hold| hold.run_id).collect();
    let alive = sqlx::query_scalar!("select id from workflow.runs where id = any($1) and finished_at is null", &runs)
        .fetch_all(&mut *db)
        .await?;
    Scope::platform(Role::Identity).enter(&mut *db).await?;
    let mut looked = Looked::default();
    for hold in due {
        if !alive.contains(&hold.run_id) {
            looked.released += u64::from(release(&mut *db, hold.tenant_id, hold.run_id).await?);
            continue;
        }
        let kept = sqlx::query!(
            "update identity.credit_holds set expires_at = workflow.now() + make_interval(secs => $2) where run_id = $1 and state = 'held'",
            hold.run_id,
            HELD_FOR.as_secs_f64(),
        );
        looked.kept += kept.execute(&mut *db).await?.rows_affected();
    }
    Ok(looked)
}

/// Lines of an account, newest first, those before the line `before`.
pub async fn ledger(db: Db<'_>, account: Uuid, before: Option<Uuid>, limit: i64) -> sqlx::Result<Vec<Line>> {
    sqlx::query_as!(
        Line,
        "select id, entry_key, delta, balance_after, reason, created_at from identity.credit_ledger
         where account_id = $1 and ($2::uuid is null or (created_at, id) < (select l.created_at, l.id from identity.credit_ledger l
                                                                           where l.id = $2 and l.account_id = $1))
         order by created_at desc, id desc limit $3",
        account,
        before,
        limit,
    )
    .fetch_all(db)
    .await
}
