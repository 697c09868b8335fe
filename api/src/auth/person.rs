//! People with a session.

use super::{bearer, wrong_token};
use crate::{
    app::App,
    identity::door::Host,
    limits,
    problem::{Code, Problem},
};
use axum::{extract::FromRequestParts, http::request::Parts};
use chrono::TimeDelta;
use flatrender_workflows::models::{
    Role, Scope,
    identity::{
        rate_bucket::OF_GUESSES,
        user_session::{self, ACCESS_KIND, Person},
    },
};
use std::ops::Deref;

/// How long after showing a second factor, or signing in where there is none, somebody may do what is dangerous.
const FRESH: TimeDelta = TimeDelta::minutes(10);

/// A person with a session, whatever their role. Asked for anew with each request: a session that was revoked, and a role that was
/// taken away, count at once.
#[derive(Debug, Clone)]
pub struct SignedIn(pub Person);

impl Deref for SignedIn {
    type Target = Person;

    fn deref(&self) -> &Person {
        &self.0
    }
}

impl FromRequestParts<App> for SignedIn {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let token = bearer(&parts.headers)?;
        if !token.starts_with(ACCESS_KIND) {
            return Err(wrong_token());
        }
        let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
        let person = user_session::authenticate(&mut tx, token, Host::of(parts).name()).await?;
        tx.commit().await?;
        let Some(person) = person else {
            limits::take_as_address(app, parts, "guesses", OF_GUESSES).await?;
            return Err(wrong_token());
        };
        limits::take_as_user(app, parts, person.tenant_id, person.user_id).await?;
        Host::check(person.elsewhere)?;
        Ok(Self(person))
    }
}

impl SignedIn {
    /// Whether somebody just proved that they are this person: for what must not be done from a screen that was left open.
    ///
    /// # Errors
    /// `auth.step_up`
    pub fn is_fresh(&self) -> Result<(), Problem> {
        let proven = if self.has_factor {
            self.mfa_at
        } else {
            Some(self.mfa_at.unwrap_or(self.created_at).max(self.created_at))
        };
        if proven.is_some_and(|at| self.now - at <= FRESH) {
            return Ok(());
        }
        Err(Problem::new(Code::AuthStepUp, "prove again that it is you: POST /v1/auth/step-up"))
    }
}
