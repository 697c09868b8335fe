//! How often somebody may fail: by account and address, by address, and by account.

use crate::{
    app::App,
    peer::network_of,
    problem::{Code, Problem},
};
use axum::http::header;
use flatrender_workflows::models::{
    Db, Role, Scope,
    identity::auth_throttle::{self, Gate},
};
use sha2::{Digest as _, Sha256};
use std::{net::IpAddr, time::Duration};
use uuid::Uuid;

const QUARTER: Duration = Duration::from_secs(900);
const HOUR: Duration = Duration::from_secs(3600);

/// What the failures of one request are counted by.
pub(super) struct Gates {
    /// Counted for everybody. The first one is forgotten once somebody is let in.
    own: Vec<Gate>,
    /// Counted against strangers only, so that nobody can lock out the person themself.
    account: Vec<Gate>,
}

/// A try that was let through and stands as a failure until it is known to be none.
pub(super) struct Try {
    tenant_id: Uuid,
    counted: Vec<Gate>,
    /// Counted once it has failed.
    rest: Vec<Gate>,
}

impl Gates {
    /// Those of a sign-in.
    pub fn of(email: &str, ip: Option<IpAddr>) -> Self {
        let (email, ip) = (email.to_lowercase(), sender(ip));
        Self {
            own: vec![gate("both", &format!("{email} {ip}"), 5, QUARTER), gate("address", &ip, 50, QUARTER)],
            account: vec![gate("account", &email, 100, HOUR)],
        }
    }

    /// Those of codes and passkeys that a person shows who has shown their password.
    pub fn of_codes(user_id: Uuid) -> Self {
        Self { own: vec![gate("codes", &user_id.to_string(), 10, HOUR)], account: vec![] }
    }

    /// Those of codes that somebody shows who has shown no password yet. Counted by where they come from, so that strangers do not
    /// use up the tries of the person.
    pub fn of_codes_from(user_id: Uuid, ip: Option<IpAddr>) -> Self {
        Self { own: vec![gate("codes", &format!("{user_id} {}", sender(ip)), 10, HOUR)], account: vec![] }
    }

    /// Lets a try through, or says how long to wait; a trusted one passes the gate of the account. It is counted before it is judged:
    /// of a thousand at once no more are judged than one after the other.
    ///
    /// # Errors
    /// `auth.throttled`
    pub async fn pass(&self, app: &App, tenant_id: Uuid, trusted: bool) -> Result<Try, Problem> {
        let (counted, rest) = match trusted {
            true => (self.own.clone(), self.account.clone()),
            false => (self.own.iter().chain(&self.account).cloned().collect(), vec![]),
        };
        let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
        if auth_throttle::count(&mut tx, tenant_id, &counted, true).await? {
            tx.commit().await?;
            return Ok(Try { tenant_id, counted, rest });
        }
        let wait = auth_throttle::wait(&mut tx, tenant_id, &counted).await?;
        let seconds = wait.as_secs() + 1;
        let detail = format!("too many failures; try again in {seconds} s");
        Err(Problem::new(Code::AuthThrottled, detail).with_header(header::RETRY_AFTER, seconds.into()))
    }

    /// Forgets the failures of the account: its person has proven who they are by mail.
    pub async fn forget_account(&self, db: Db<'_>, tenant_id: Uuid) -> sqlx::Result<()> {
        auth_throttle::forget(db, tenant_id, &self.account).await
    }
}

impl Try {
    /// It failed.
    pub async fn failed(self, app: &App) -> Result<(), Problem> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
        auth_throttle::count(&mut tx, self.tenant_id, &self.rest, false).await?;
        Ok(tx.commit().await?)
    }

    /// Somebody came in: their failures are forgotten, those of others from their address stay.
    pub async fn succeeded(self, db: Db<'_>) -> sqlx::Result<()> {
        let (own, others) = self.counted.split_at(1.min(self.counted.len()));
        // In the order in which a try counts: `both` comes after the others.
        auth_throttle::take_back(&mut *db, self.tenant_id, others).await?;
        auth_throttle::forget(db, self.tenant_id, own).await
    }

    /// Nothing came of it that tells anything.
    pub async fn withdrawn(self, db: Db<'_>) -> sqlx::Result<()> {
        auth_throttle::take_back(db, self.tenant_id, &self.counted).await
    }
}

/// Whom an address counts as.
fn sender(ip: Option<IpAddr>) -> String {
    ip.map_or_else(|| "unknown".to_owned(), |ip| network_of(ip).to_string())
}

/// Hashed: the table says nothing of who failed where.
fn gate(kind: &str, subject: &str, free: i32, longest: Duration) -> Gate {
    Gate { key: format!("{kind}:{}", hex::encode(Sha256::digest(subject))), free, longest }
}
