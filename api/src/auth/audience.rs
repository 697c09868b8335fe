//! Audiences: what somebody must be to reach a handler. Whoever is none of them is refused.

use super::{Actor, SignedIn, Tenant, bearer, wrong_key};
use crate::{
    admission,
    app::App,
    problem::{Code, Problem},
};
use axum::{extract::FromRequestParts, http::request::Parts};
use flatrender_workflows::models::{DEFAULT_TENANT, identity::user_session::ACCESS_KIND};
use std::ops::Deref;

/// Whether keys belong to an audience: those with the scope that the address needs, see [`admission`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keys {
    Welcome,
    Refused,
}

macro_rules! audiences {
    ($($(#[doc = $doc:literal])+ $name:ident = $right:literal, $keys:ident;)+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Debug, Clone, Copy)]
            pub struct $name(pub Tenant);

            impl Deref for $name {
                type Target = Tenant;

                fn deref(&self) -> &Tenant {
                    &self.0
                }
            }

            impl FromRequestParts<App> for $name {
                type Rejection = Problem;

                async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
                    admit(parts, app, $right, Keys::$keys).await.map(Self)
                }
            }
        )+
    };
}

audiences! {
    /// May look at what a tenant has.
    Viewer = "read", Welcome;
    /// May make and change what a tenant has, and have it rendered.
    Editor = "render", Welcome;
    /// May see and pay what a tenant owes. A person.
    Billing = "pay", Refused;
    /// May do everything with a tenant. A person.
    Owner = "close", Refused;
}

async fn admit(parts: &mut Parts, app: &App, right: &str, keys: Keys) -> Result<Tenant, Problem> {
    let token = bearer(&parts.headers)?;
    if !token.starts_with(ACCESS_KIND) {
        let holder = admission::by_key(app, parts, token, wrong_key).await?;
        return match keys {
            Keys::Welcome => Ok(Tenant { id: holder.tenant_id, actor: Actor::Key(holder.key_id) }),
            Keys::Refused => Err(Problem::new(Code::AuthForbidden, "only a person may do this, not an API key")),
        };
    }
    let person = person_with(parts, app, right).await?;
    Ok(Tenant { id: person.tenant_id, actor: Actor::User(person.user_id) })
}

/// A person whose roles give them this right within their tenant.
///
/// # Errors
/// `auth.missing`, `auth.invalid`, `auth.host`, `auth.forbidden`, `tenant.suspended`, `rate.limited`
pub async fn person_with(parts: &mut Parts, app: &App, right: &str) -> Result<SignedIn, Problem> {
    let person = SignedIn::from_request_parts(parts, app).await?;
    if !person.rights.iter().any(|r| r == right) {
        return Err(forbidden());
    }
    admission::check_standing(&parts.method, person.suspended)?;
    Ok(person)
}

fn forbidden() -> Problem {
    Problem::new(Code::AuthForbidden, "your role does not let you do this")
}

/// Runs the platform: sees to nodes and workflows of every tenant. A person of the platform's own tenant.
#[derive(Debug, Clone)]
pub struct Operator(pub SignedIn);

/// May change the platform itself: tenants, limits, operators. A person of the platform's own tenant.
#[derive(Debug, Clone)]
pub struct PlatformAdmin(pub SignedIn);

impl FromRequestParts<App> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        // Who may only look looks at all of it.
        let rights: &[&str] = if parts.method.is_safe() { &["operate", "observe"] } else { &["operate"] };
        staff(parts, app, rights).await.map(Self)
    }
}

impl FromRequestParts<App> for PlatformAdmin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        staff(parts, app, &["administer"]).await.map(Self)
    }
}

async fn staff(parts: &mut Parts, app: &App, rights: &[&str]) -> Result<SignedIn, Problem> {
    if !bearer(&parts.headers)?.starts_with(ACCESS_KIND) {
        admission::by_key(app, parts, bearer(&parts.headers)?, wrong_key).await?;
        return Err(Problem::new(Code::AuthForbidden, "only a person may do this, not an API key"));
    }
    let person = SignedIn::from_request_parts(parts, app).await?;
    match person.tenant_id == DEFAULT_TENANT && person.rights.iter().any(|r| rights.contains(&r.as_str())) {
        true => Ok(person),
        false => Err(forbidden()),
    }
}
