//! Who manages a tenant, and how what they do is written down.

use crate::{
    admission,
    app::App,
    auth::{self, Actor, PlatformAdmin},
    peer::ClientAddress,
    problem::Problem,
    request_id,
};
use axum::{extract::FromRequestParts, http::request::Parts};
use flatrender_workflows::models::{
    Db, Role, Scope,
    identity::{
        audit::{self, Entry},
        user_session::ACCESS_KIND,
    },
    scope::Scoped,
};
use serde::Serialize;
use std::{net::IpAddr, ops::Deref};
use uuid::Uuid;

/// The right to manage a tenant: its keys, members, brand.
const MANAGE: &str = "manage";

/// Somebody who may manage a tenant.
#[derive(Debug, Clone)]
pub struct Steward {
    /// The tenant.
    pub tenant_id: Uuid,
    /// The person, when it is one.
    pub user_id: Option<Uuid>,
    /// The key, when it is one: nobody hands out more than they have.
    pub key_id: Option<Uuid>,
    actor: String,
    ip: Option<IpAddr>,
}

impl FromRequestParts<App> for Steward {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let key = auth::bearer(&parts.headers)?;
        if key.starts_with(ACCESS_KIND) {
            let person = auth::person_with(parts, app, MANAGE).await?;
            return Ok(Self::acting(person.tenant_id, Actor::User(person.user_id), parts));
        }
        let holder = admission::by_key(app, parts, key, auth::wrong_key).await?;
        Ok(Self::acting(holder.tenant_id, Actor::Key(holder.key_id), parts))
    }
}

/// Somebody who may manage a tenant, for what lets others in or data out: keys, roles, identity providers, webhooks. A person has just
/// proved who they are, so that neither a screen that was left open nor a token that was found is enough; a key cannot prove more than
/// that it is there.
#[derive(Debug, Clone)]
pub struct Trustee(Steward);

impl FromRequestParts<App> for Trustee {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        if !auth::bearer(&parts.headers)?.starts_with(ACCESS_KIND) {
            return Steward::from_request_parts(parts, app).await.map(Self);
        }
        let person = auth::person_with(parts, app, MANAGE).await?;
        person.is_fresh()?;
        Ok(Self(Steward::acting(person.tenant_id, Actor::User(person.user_id), parts)))
    }
}

impl Deref for Trustee {
    type Target = Steward;

    fn deref(&self) -> &Steward {
        &self.0
    }
}

/// Somebody who administers the platform, and so any tenant. What changes something takes somebody who just proved who they are.
#[derive(Debug, Clone)]
pub struct Registrar(Steward);

impl FromRequestParts<App> for Registrar {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let PlatformAdmin(person) = PlatformAdmin::from_request_parts(parts, app).await?;
        if !parts.method.is_safe() {
            person.is_fresh()?;
        }
        Ok(Self(Steward::acting(person.tenant_id, Actor::User(person.user_id), parts)))
    }
}

impl Registrar {
    /// The same person, seeing to this tenant.
    pub fn of(self, tenant_id: Uuid) -> Steward {
        // A person of the platform is none of the tenant's: the audit says who it was, no column of the tenant's own people.
        Steward { tenant_id, user_id: None, ..self.0 }
    }
}

/// An object before and after an action; one that was made or removed has one side.
pub struct Change<B, A> {
    /// As it was.
    pub before: Option<B>,
    /// As it is.
    pub after: Option<A>,
}

/// An object that was not there before.
pub fn made<A>(after: A) -> Change<(), A> {
    Change { before: None, after: Some(after) }
}

impl Steward {
    /// Somebody who acts for this tenant, or for the platform.
    pub(crate) fn acting(tenant_id: Uuid, actor: Actor, parts: &Parts) -> Self {
        let (user_id, key_id) = match actor {
            Actor::User(id) => (Some(id), None),
            Actor::Key(id) => (None, Some(id)),
        };
        let ip = parts.extensions.get::<ClientAddress>().and_then(|a| a.0);
        Self { tenant_id, user_id, key_id, actor: actor.to_string(), ip }
    }

    /// The same, seeing to this tenant.
    pub(crate) fn at(self, tenant_id: Uuid) -> Self {
        Self { tenant_id, ..self }
    }

    /// Who it is, as the audit names them.
    pub fn name(&self) -> &str {
        &self.actor
    }

    /// A transaction in which the rows of the tenant are seen.
    ///
    /// # Errors
    /// The database cannot be reached.
    pub async fn begin(&self, app: &App) -> Result<Scoped, Problem> {
        Ok(app.db.begin(Scope::tenant(Role::Identity, self.tenant_id)).await?)
    }

    /// Writes down that this was done, in the transaction of the deed.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn record<B: Serialize, A: Serialize>(
        &self,
        db: Db<'_>,
        action: &str,
        object: &str,
        change: Change<B, A>,
    ) -> sqlx::Result<()> {
        self.write(db, action, object, None, change).await
    }

    /// The same, with why it was done.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn record_because<B: Serialize, A: Serialize>(
        &self,
        db: Db<'_>,
        action: &str,
        object: &str,
        reason: &str,
        change: Change<B, A>,
    ) -> sqlx::Result<()> {
        self.write(db, action, object, Some(reason), change).await
    }

    async fn write<B: Serialize, A: Serialize>(
        &self,
        db: Db<'_>,
        action: &str,
        object: &str,
        reason: Option<&str>,
        change: Change<B, A>,
    ) -> sqlx::Result<()> {
        let entry = Entry {
            tenant_id: self.tenant_id,
            actor: &self.actor,
            action,
            object,
            reason,
            before: change.before.as_ref().and_then(audit::hash_of),
            after: change.after.as_ref().and_then(audit::hash_of),
            ip: self.ip,
            request_id: Some(&request_id::current()),
        };
        audit::record(db, &entry).await
    }
}
