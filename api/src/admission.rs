//! Letting in a request with an API key: what can be told without asking is told first, then one statement finds the key
//! and takes its tokens, then its scopes and its tenant decide.

use crate::{
    app::App,
    identity::door::Host,
    limits::{self, Notes},
    peer::ClientAddress,
    problem::{Code, Problem},
};
use axum::{
    extract::MatchedPath,
    http::{Method, request::Parts},
};
use flatrender_workflows::models::{
    Role, Scope,
    identity::{
        rate_bucket::OF_GUESSES,
        tenant_api_key::{self, KeyHolder, text},
    },
};

/// What a key needs at which addresses; elsewhere, `admin`.
const SCOPES: [(&str, &str); 9] = [
    ("/v1/renders", "render"),
    ("/v1/exports", "render"),
    ("/v1/files", "files"),
    ("/v1/folders", "files"),
    ("/v1/trash", "files"),
    ("/v1/uploads", "files"),
    ("/v1/templates", "templates"),
    ("/v1/webhook-events", "webhooks"),
    ("/v1/webhooks", "webhooks"),
];

/// The holder of the key that a request carries, who may do what the request asks for. `wrong` is the answer to a key
/// that is not good.
///
/// # Errors
/// `auth.invalid` of the caller's, `auth.address`, `auth.host`, `auth.scope`, `tenant.suspended`, `rate.limited`; or the database
/// cannot be reached.
pub async fn by_key(
    app: &App,
    parts: &Parts,
    key: &str,
    wrong: impl FnOnce() -> Problem,
) -> Result<KeyHolder, Problem> {
    if text::mode_of(key).is_none() {
        return Err(wrong());
    }
    let from = parts.extensions.get::<ClientAddress>().and_then(|a| a.0);
    let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
    // Keys are found by their SHA-256: how long that takes tells nothing about a key.
    let found = tenant_api_key::authenticate(&mut tx, key, from, Host::of(parts).name()).await?;
    tx.commit().await?;
    let Some(holder) = found else {
        limits::take_as_address(app, parts, "guesses", OF_GUESSES).await?;
        return Err(wrong());
    };
    let notes = Notes::of(&parts.extensions);
    notes.add(|n| (n.tenant_id, n.key_id) = (Some(holder.tenant_id), Some(holder.key_id)));
    if !holder.at_home {
        return Err(Problem::new(Code::AuthAddress, "this key is not good from where the request came from"));
    }
    limits::settle(&notes, holder.budgets.clone())?;
    Host::check(holder.elsewhere)?;
    check_scope(parts, &holder)?;
    check_standing(&parts.method, holder.suspended)?;
    Ok(holder)
}

fn check_scope(parts: &Parts, holder: &KeyHolder) -> Result<(), Problem> {
    let scope = scope_of(parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str));
    if holder.scopes.iter().any(|s| s == scope) {
        return Ok(());
    }
    Err(Problem::new(Code::AuthScope, format!("this key lacks the scope {scope}")))
}

/// The scope that a route needs.
pub fn scope_of(route: &str) -> &'static str {
    let within = |room: &str| route.strip_prefix(room).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    SCOPES.iter().find(|(room, _)| within(room)).map_or("admin", |(_, scope)| scope)
}

/// A suspended tenant reads and does nothing else.
///
/// # Errors
/// `tenant.suspended`
pub fn check_standing(method: &Method, suspended: bool) -> Result<(), Problem> {
    if suspended && !method.is_safe() {
        return Err(Problem::new(Code::TenantSuspended, "the tenant is suspended: it can read, and nothing else"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_needs_the_widest_scope() {
        assert_eq!(scope_of("/v1/renders/{id}/events"), "render");
        assert_eq!(scope_of("/v1/rendersome"), "admin");
        assert_eq!(scope_of("/v1/audit"), "admin");
        assert_eq!(scope_of(""), "admin");
    }
}
