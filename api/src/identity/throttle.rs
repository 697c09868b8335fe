//! How often somebody may fail: by account and address, by address, and by account.

use crate::{
    app::App,
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
    /// Counted for everybody.
    own: Vec<Gate>,
    /// Counted against strangers only, so that nobody can lock out the person themself.
    account: Vec<Gate>,
}

impl Gates {
    /// Those of a sign-in.
    pub fn of(email: &str, ip: Option<IpAddr>) -> Self {
        let (email, ip) = (email.to_lowercase(), ip.map_or_else(|| "unknown".to_owned(), |ip| ip.to_string()));
        Self {
            own: vec![gate("both", &format!("{email} {ip}"), 5, QUARTER), gate("address", &ip, 50, QUARTER)],
            account: vec![gate("account", &email, 100, HOUR)],
        }
    }

    /// Those of codes that a person shows.
    pub fn of_codes(user_id: Uuid) -> Self {
        Self { own: vec![gate("codes", &user_id.to_string(), 10, HOUR)], account: vec![] }
    }

    /// Whether there may be a try now; a trusted one passes the gate of the account.
    ///
    /// # Errors
    /// `auth.throttled`
    pub async fn check(&self, app: &App, tenant_id: Uuid, trusted: bool) -> Result<(), Problem> {
        let mut gates = self.own.clone();
        if !trusted {
            gates.extend(self.account.iter().cloned());
        }
        let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
        let wait = auth_throttle::wait(&mut tx, tenant_id, &gates).await?;
        if wait.is_zero() {
            return Ok(());
        }
        let seconds = wait.as_secs() + 1;
        let detail = format!("too many failures; try again in {seconds} s");
        Err(Problem::new(Code::AuthThrottled, detail).with_header(header::RETRY_AFTER, seconds.into()))
    }

    /// Counts a failure.
    pub async fn fail(&self, app: &App, tenant_id: Uuid) -> Result<(), Problem> {
        let gates: Vec<Gate> = self.own.iter().chain(&self.account).cloned().collect();
        let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
        auth_throttle::fail(&mut tx, tenant_id, &gates).await?;
        Ok(tx.commit().await?)
    }

    /// Forgets the failures of somebody who came in; those of their address stay.
    pub async fn forget(&self, db: Db<'_>, tenant_id: Uuid) -> sqlx::Result<()> {
        let own: Vec<Gate> = self.own.iter().take(1).cloned().collect();
        auth_throttle::forget(db, tenant_id, &own).await
    }

    /// Forgets the failures of the account: its person has proven who they are by mail.
    pub async fn forget_account(&self, db: Db<'_>, tenant_id: Uuid) -> sqlx::Result<()> {
        auth_throttle::forget(db, tenant_id, &self.account).await
    }
}

/// Hashed: the table says nothing of who failed where.
fn gate(kind: &str, subject: &str, free: i32, longest: Duration) -> Gate {
    Gate { key: format!("{kind}:{}", hex::encode(Sha256::digest(subject))), free, longest }
}
