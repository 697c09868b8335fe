//! Who manages a tenant, and how what they do is written down.

use crate::{admission, app::App, auth, peer::ClientAddress, problem::Problem, request_id};
use axum::{extract::FromRequestParts, http::request::Parts};
use flatrender_workflows::models::{
    Db, Role, Scope,
    identity::audit::{self, Entry},
    scope::Scoped,
};
use serde::Serialize;
use std::net::IpAddr;
use uuid::Uuid;

/// Somebody who may manage a tenant.
#[derive(Debug, Clone)]
pub struct Steward {
    /// The tenant.
    pub tenant_id: Uuid,
    /// The person, when it is one.
    pub user_id: Option<Uuid>,
    /// What the key may do, when it is one: nobody hands out more than they have.
    pub scopes: Option<Vec<String>>,
    actor: String,
    ip: Option<IpAddr>,
}

impl FromRequestParts<App> for Steward {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let key = auth::bearer(&parts.headers)?;
        let holder = admission::by_key(app, parts, key, auth::wrong_key).await?;
        Ok(Self {
            tenant_id: holder.tenant_id,
            user_id: None,
            scopes: Some(holder.scopes),
            actor: format!("key:{}", holder.key_id),
            ip: parts.extensions.get::<ClientAddress>().and_then(|a| a.0),
        })
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
        let entry = Entry {
            tenant_id: self.tenant_id,
            actor: &self.actor,
            action,
            object,
            reason: None,
            before: change.before.as_ref().and_then(audit::hash_of),
            after: change.after.as_ref().and_then(audit::hash_of),
            ip: self.ip,
            request_id: Some(&request_id::current()),
        };
        audit::record(db, &entry).await
    }
}
