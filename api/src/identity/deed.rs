//! What people do to their own accounts, for the audit of their tenant.

use crate::{peer::ClientAddress, request_id};
use flatrender_workflows::models::{
    Db,
    identity::audit::{self, Entry},
};
use uuid::Uuid;

/// Somebody who changes how their account can be got into.
pub struct Deed {
    tenant_id: Uuid,
    user_id: Uuid,
    address: ClientAddress,
}

impl Deed {
    /// Of this person, from this address.
    pub fn of(tenant_id: Uuid, user_id: Uuid, address: ClientAddress) -> Self {
        Self { tenant_id, user_id, address }
    }

    /// Writes down that it was done, in the transaction of the deed: to the account itself, or to a part of it.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn record(&self, db: Db<'_>, action: &str, part: Option<(&str, Uuid)>) -> sqlx::Result<()> {
        let (kind, id) = part.unwrap_or(("user", self.user_id));
        let entry = Entry {
            tenant_id: self.tenant_id,
            actor: &format!("user:{}", self.user_id),
            action,
            object: &format!("{kind}:{id}"),
            reason: None,
            before: None,
            after: None,
            ip: self.address.0,
            request_id: Some(&request_id::current()),
        };
        audit::record(db, &entry).await
    }
}
