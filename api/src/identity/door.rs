//! Which tenant somebody means by the host name they come to: who has not signed in is led to it, who has must be of it.

use crate::{
    app::App,
    problem::{Code, Problem},
};
use axum::{
    extract::FromRequestParts,
    http::{header, request::Parts},
};
use flatrender_workflows::models::{
    DEFAULT_TENANT, Db,
    identity::{
        tenant::{self, Entrance},
        tenant_domain,
    },
};
use std::convert::Infallible;

/// The host name that a request was sent to, in small letters and without its port; none when it says none.
pub struct Host(Option<String>);

impl Host {
    /// The one of a request. What a proxy says that it was asked for is not believed: it passes `Host` on.
    pub fn of(parts: &Parts) -> Self {
        let header = parts.headers.get(header::HOST).and_then(|v| v.to_str().ok());
        Self(header.or(parts.uri.authority().map(|a| a.as_str())).and_then(name_of))
    }

    /// As it is kept; none when the request says none.
    pub fn name(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// Lets in whoever came to a host name that is not another tenant's.
    ///
    /// # Errors
    /// `auth.host`
    pub fn check(elsewhere: bool) -> Result<(), Problem> {
        let theirs = || Problem::new(Code::AuthHost, "this host name is another tenant's; ask at your own");
        if elsewhere { Err(theirs()) } else { Ok(()) }
    }
}

impl FromRequestParts<App> for Host {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Infallible> {
        Ok(Self::of(parts))
    }
}

fn name_of(authority: &str) -> Option<String> {
    let name = authority.rsplit_once(':').map_or(authority, |(name, _)| name).trim_end_matches('.');
    (1..=253).contains(&name.len()).then(|| name.to_ascii_lowercase())
}

/// The tenant: the one they name, else the one whose host name they came to, else the platform's own. None when that one is not
/// there or closed.
pub async fn entrance(db: Db<'_>, named: Option<&str>, host: &Host) -> sqlx::Result<Option<Entrance>> {
    if let Some(slug) = named {
        return tenant::entrance(db, slug).await;
    }
    let at = match &host.0 {
        Some(name) => tenant_domain::tenant_at(&mut *db, name).await?,
        None => None,
    };
    tenant::entrance_of(db, at.unwrap_or(DEFAULT_TENANT)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_known_whatever_its_port_case_and_last_dot() {
        for text in ["films.acme.example", "Films.Acme.example:8443", "films.acme.example.", "films.acme.example.:80"] {
            assert_eq!(name_of(text).as_deref(), Some("films.acme.example"), "{text}");
        }
        assert_eq!(name_of(""), None);
        assert_eq!(name_of(&"a".repeat(300)), None);
    }
}
