//! Who is asking. A handler that names one of these in its signature is only reached by them.

mod audience;
mod person;

pub use audience::{Billing, Editor, Operator, Owner, PlatformAdmin, Viewer, person_with};
pub use person::SignedIn;

use crate::{
    app::App,
    problem::{Code, Problem},
};
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, header, request::Parts},
};
use flatrender_workflows::models::{Role, Scope, render::node};
use std::fmt;
use uuid::Uuid;

/// Longest bearer token that is looked at.
const TOKEN_BYTES: usize = 512;

/// A tenant, and who acts for it. Handlers name an audience instead, such as [`Viewer`], which says what it takes.
#[derive(Debug, Clone, Copy)]
pub struct Tenant {
    /// The tenant.
    pub id: Uuid,
    /// Who acts.
    pub actor: Actor,
}

/// Who does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// A person.
    User(Uuid),
    /// An API key.
    Key(Uuid),
}

impl Actor {
    /// The person, when it is one: whose the things are that are made. Those of keys are the tenant's.
    pub fn user_id(self) -> Option<Uuid> {
        match self {
            Self::User(id) => Some(id),
            Self::Key(_) => None,
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => write!(f, "user:{id}"),
            Self::Key(id) => write!(f, "key:{id}"),
        }
    }
}

/// A render node, by its credential. An older process of the same name no longer has one.
#[derive(Debug, Clone)]
pub struct NodeCaller {
    /// The node.
    pub node: node::Node,
}

impl FromRequestParts<App> for NodeCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let credential = bearer(&parts.headers)?;
        let mut tx = app.db.begin(Scope::platform(Role::Render)).await?;
        let node = node::authenticate(&mut tx, credential).await?;
        tx.commit().await?;
        let node =
            node.ok_or_else(|| challenge(Code::AuthInvalid, "this node credential is not valid; enrol again"))?;
        Ok(Self { node })
    }
}

/// The answer to an access token that is not good.
fn wrong_token() -> Problem {
    challenge(Code::AuthInvalid, "this access token is not valid; refresh it, or sign in again")
}

/// The answer to an API key that is not good.
pub fn wrong_key() -> Problem {
    challenge(Code::AuthInvalid, "this API key is not valid")
}

/// The bearer token of a request.
///
/// # Errors
/// `auth.missing`, `auth.invalid`
pub fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let missing = || challenge(Code::AuthMissing, "send the header `authorization: Bearer <key>`");
    let value = headers.get(header::AUTHORIZATION).ok_or_else(missing)?;
    let (scheme, token) = value.to_str().ok().and_then(|v| v.split_once(' ')).ok_or_else(missing)?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(missing());
    }
    if token.len() > TOKEN_BYTES {
        return Err(challenge(Code::AuthInvalid, "this key is not valid"));
    }
    Ok(token)
}

/// A 401 as RFC 6750 wants it.
fn challenge(code: Code, detail: &'static str) -> Problem {
    let value = match code {
        Code::AuthInvalid => r#"Bearer realm="flatrender", error="invalid_token""#,
        _ => r#"Bearer realm="flatrender""#,
    };
    Problem::new(code, detail).with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(value))
}
