//! Which tables a transaction may touch and whose rows it sees: the one place where both are said.
//!
//! A role is a service's, limited to its schema; the setting `app.tenant_id` is what row-level security reads, and
//! `app.platform` is for what serves every tenant: nodes, housekeeping, finding out who is asking. Both end with the
//! transaction. Outside of a scope the program is the owner of the tables, and sees no tenant's rows.

use super::Db;
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Postgres, Transaction};
use std::ops::{Deref, DerefMut};
use uuid::Uuid;

/// A service, and so a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Tenants, users, keys, money.
    Identity,
    /// Templates.
    Content,
    /// Edits.
    Studio,
    /// Films, frames, nodes.
    Render,
    /// Files.
    File,
    /// Messages.
    Notification,
    /// Runs and their tasks.
    Workflow,
    /// All of them: for operators.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 8] = [
        Self::Identity,
        Self::Content,
        Self::Studio,
        Self::Render,
        Self::File,
        Self::Notification,
        Self::Workflow,
        Self::Admin,
    ];

    /// Its name in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity_svc",
            Self::Content => "content_svc",
            Self::Studio => "studio_svc",
            Self::Render => "render_svc",
            Self::File => "file_svc",
            Self::Notification => "notification_svc",
            Self::Workflow => "workflow_svc",
            Self::Admin => "admin_api",
        }
    }

    /// How long one of its statements may take: as for a session that logs in as the role.
    pub const fn statement_timeout(self) -> &'static str {
        match self {
            Self::Admin => "60s",
            _ => "30s",
        }
    }
}

/// A role and a tenant, or all tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    role: Role,
    tenant: Option<Uuid>,
}

impl Scope {
    /// The rows of one tenant.
    pub const fn tenant(role: Role, tenant_id: Uuid) -> Self {
        Self { role, tenant: Some(tenant_id) }
    }

    /// The rows of every tenant.
    pub const fn platform(role: Role) -> Self {
        Self { role, tenant: None }
    }

    /// Begins a transaction in this scope, in one round trip. A caller that goes away meanwhile leaves nothing behind: a BEGIN that
    /// was cancelled on its way would stay open in the pool, with the role and the tenant of somebody who is gone.
    ///
    /// # Errors
    /// The database cannot be reached, or the login is no member of the role.
    pub async fn begin(self, pool: &PgPool) -> sqlx::Result<Scoped> {
        let (tenant, platform) = self.settings();
        // No value of a customer's is in it: names of ours, and an id. Statements here are small, whatever the planner makes of
        // functions and policies: to compile one just in time takes ten times as long as to run it (PostgreSQL manual, 32.2).
        let begin = format!(
            "begin; set local role {}; set local app.tenant_id = '{tenant}'; set local app.platform = '{platform}'; \
             set local statement_timeout = '{}'; set local lock_timeout = '5s'; \
             set local idle_in_transaction_session_timeout = '60s'; set local jit = off",
            self.role.name(),
            self.role.statement_timeout()
        );
        let pool = pool.clone();
        match tokio::spawn(async move { pool.begin_with(AssertSqlSafe(begin)).await }).await {
            Ok(transaction) => Ok(Scoped(transaction?)),
            Err(stopped) => Err(sqlx::Error::Io(std::io::Error::other(stopped))),
        }
    }

    /// Goes on in this scope, within the transaction of `db`, until its end or the next scope.
    ///
    /// # Errors
    /// The login is no member of the role.
    pub async fn enter(self, db: Db<'_>) -> sqlx::Result<()> {
        let (tenant, platform) = self.settings();
        settle_in(db, self.role.name(), &tenant, platform).await
    }

    /// Does a part of somebody else's transaction in this scope, such as the body of a step; afterwards the transaction is
    /// again who it was at its begin, and nobody's. A part that fails spoils its transaction.
    ///
    /// # Errors
    /// Those of `work`.
    pub async fn within<T, E: From<sqlx::Error>>(
        self,
        db: Db<'_>,
        work: impl AsyncFnOnce(Db<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.enter(&mut *db).await?;
        let done = work(&mut *db).await?;
        leave(db).await?;
        Ok(done)
    }

    fn settings(self) -> (String, &'static str) {
        match self.tenant {
            Some(id) => (id.to_string(), "off"),
            None => (String::new(), "on"),
        }
    }
}

/// Does a part of somebody else's transaction that enters scopes of its own; afterwards the transaction is in the one in which it was.
/// A part that fails spoils its transaction.
///
/// # Errors
/// Those of `work`.
pub async fn aside<T, E: From<sqlx::Error>>(
    db: Db<'_>,
    work: impl AsyncFnOnce(Db<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let was = sqlx::query!(
        r#"select current_setting('role') as "role!", coalesce(current_setting('app.tenant_id', true), '') as "tenant!",
                  coalesce(current_setting('app.platform', true), '') as "platform!""#
    )
    .fetch_one(&mut *db)
    .await?;
    let done = work(&mut *db).await?;
    settle_in(db, &was.role, &was.tenant, &was.platform).await?;
    Ok(done)
}

async fn settle_in(db: Db<'_>, role: &str, tenant: &str, platform: &str) -> sqlx::Result<()> {
    sqlx::query!(
        r#"select set_config('role', $1, true) as "role!", set_config('app.tenant_id', $2, true) as "tenant!",
                  set_config('app.platform', $3, true) as "platform!""#,
        role,
        tenant,
        platform,
    )
    .fetch_one(db)
    .await?;
    Ok(())
}

async fn leave(db: Db<'_>) -> sqlx::Result<()> {
    sqlx::query!(
        r#"select set_config('role', 'none', true) as "role!", set_config('app.tenant_id', '', true) as "tenant!",
                  set_config('app.platform', 'off', true) as "platform!""#
    )
    .fetch_one(db)
    .await?;
    Ok(())
}

/// A transaction in a scope. Dropping it takes everything back.
#[derive(Debug)]
pub struct Scoped(Transaction<'static, Postgres>);

impl Scoped {
    /// Keeps what was done.
    ///
    /// # Errors
    /// Nothing was kept, or it cannot be told.
    pub async fn commit(self) -> sqlx::Result<()> {
        self.0.commit().await
    }
}

impl Deref for Scoped {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.0
    }
}

impl DerefMut for Scoped {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0
    }
}

/// A database that can only be used in a scope. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Database(PgPool);

impl Database {
    /// The database behind a pool.
    pub fn new(pool: PgPool) -> Self {
        Self(pool)
    }

    /// A transaction in a scope.
    ///
    /// # Errors
    /// See [`Scope::begin`].
    pub async fn begin(&self, scope: Scope) -> sqlx::Result<Scoped> {
        scope.begin(&self.0).await
    }

    /// Begins a transaction that only reads, and sees all of it as it was at one moment.
    ///
    /// # Errors
    /// See [`Scope::begin`].
    pub async fn look(&self, scope: Scope) -> sqlx::Result<Scoped> {
        let mut tx = scope.begin(&self.0).await?;
        sqlx::query("set transaction isolation level repeatable read, read only").execute(&mut *tx).await?;
        Ok(tx)
    }

    /// Whether the tables are there; asked before there need be any role.
    ///
    /// # Errors
    /// The database cannot be reached.
    pub async fn is_migrated(&self) -> sqlx::Result<bool> {
        super::is_migrated(&mut *self.0.acquire().await?).await
    }
}
