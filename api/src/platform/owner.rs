//! Making the owner of a tenant, by hand: the way in for the first person.

use crate::identity::address;
use flatrender_workflows::models::{
    DEFAULT_TENANT, Role, Scope, Secret,
    identity::{
        audit,
        auth_challenge::{self, Challenge, Kind},
        role_binding, tenant,
        user::{self, NewUser},
    },
};
use sqlx::PgPool;

/// Somebody who is to own a tenant.
#[derive(Debug, Clone, Copy)]
pub struct NewOwner<'a> {
    /// Their address; believed without proof.
    pub email: &'a str,
    /// What they are called; may be empty.
    pub name: &'a str,
    /// The tenant, by its slug.
    pub tenant: &'a str,
    /// Whether they administer the platform, too.
    pub platform_admin: bool,
}

/// Why nobody was made the owner.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// The address is none.
    #[error("{0:?} is no e-mail address")]
    Email(String),
    /// There is no such tenant.
    #[error("there is no tenant {0:?}")]
    Tenant(String),
    /// Only the platform's own tenant has platform administrators.
    #[error("only people of the tenant `default` can administer the platform")]
    Platform,
    /// The database refused.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Makes a person, or somebody who is there, the owner of a tenant; gives a token to set their password with, which is
/// shown only here. No password is made up.
///
/// # Errors
/// [`OwnerError`]
pub async fn create_owner(db: &PgPool, new: NewOwner<'_>) -> Result<Secret, OwnerError> {
    let email = address(new.email).ok_or_else(|| OwnerError::Email(new.email.to_owned()))?;
    let mut tx = Scope::platform(Role::Identity).begin(db).await?;
    let entrance = tenant::entrance(&mut tx, new.tenant).await?;
    let tenant_id = entrance.ok_or_else(|| OwnerError::Tenant(new.tenant.to_owned()))?.id;
    if new.platform_admin && tenant_id != DEFAULT_TENANT {
        return Err(OwnerError::Platform);
    }
    let person = NewUser { email: &email, display_name: new.name, locale: "en" };
    let user_id = match user::create(&mut tx, tenant_id, person).await? {
        Some(id) => id,
        None => user::by_email(&mut tx, tenant_id, &email).await?.ok_or(sqlx::Error::RowNotFound)?.id,
    };
    user::prove_email(&mut tx, user_id, &email).await?;
    role_binding::grant(&mut tx, tenant_id, user_id, "owner", None).await?;
    tenant::own(&mut tx, tenant_id, user_id).await?;
    if new.platform_admin {
        role_binding::set_staff(&mut tx, user_id, true).await?;
        role_binding::grant(&mut tx, tenant_id, user_id, "platform_admin", None).await?;
    }
    let token = Secret::generate("fr_ln_");
    auth_challenge::issue(&mut tx, Kind::Reset, &Challenge::of(tenant_id, user_id), &token.hash()).await?;
    let entry = audit::Entry {
        tenant_id,
        actor: "cli",
        action: "owner.create",
        object: &format!("user:{user_id}"),
        reason: None,
        before: None,
        after: None,
        ip: None,
        request_id: None,
    };
    audit::record(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(token)
}
