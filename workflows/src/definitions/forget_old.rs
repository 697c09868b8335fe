//! What was kept for a while only: links and codes, logins under way, sessions that have ended, keys of requests, old messages.

use crate::models::{
    Db, Role, Scope,
    file_mgr::deletion,
    identity::{auth_challenge, auth_throttle, openid_sign_in, rate_bucket, tenant_webhook_event, user_session},
    notification::{message, sms},
    render::{render_job, snapshot_batch, snapshot_job, snapshot_request},
};
use flatrender_engine::{Context, Failure, Workflow};
use serde::{Deserialize, Serialize};

/// Rows a step, of each kind.
const BATCH: i64 = 10_000;
/// Rounds of a run; the next run goes on.
const ROUNDS: usize = 50;

/// What to forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Old {
    /// Links, codes, logins under way, sessions, failures to sign in.
    Auth,
    /// Keys of requests that were answered, requests for stills that have ended, removals that were done, and budgets that are full.
    Requests,
    /// Messages that were read long ago, counts of text messages of days that are over, and events whose deliveries are gone.
    Messages,
}

/// Drops what is past its time. Repeating it is harmless.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ForgetOld {
    /// Of which kind.
    pub what: Old,
}

impl Workflow for ForgetOld {
    const NAME: &'static str = "forget_old";
    /// How many rows.
    type Output = u64;

    async fn run(self, cx: &Context) -> Result<u64, Failure> {
        let (what, mut rows) = (self.what, 0);
        for round in 1..=ROUNDS {
            let gone = cx
                .step(&format!("round {round}"), async move |db: Db<'_>| {
                    Scope::platform(Role::Admin).within(db, async |db: Db<'_>| forget(what, db).await).await
                })
                .await?;
            rows += gone;
            if gone == 0 {
                break;
            }
        }
        Ok(rows)
    }
}

async fn forget(what: Old, db: Db<'_>) -> Result<u64, Failure> {
    Ok(match what {
        Old::Auth => {
            auth_challenge::forget_old(&mut *db).await?
                + openid_sign_in::forget_old(&mut *db).await?
                + auth_throttle::forget_old(&mut *db, BATCH).await?
                + user_session::forget_old(db, BATCH).await?
        }
        Old::Requests => {
            snapshot_request::forget_old(&mut *db, BATCH).await?
                + render_job::forget_joined(&mut *db, BATCH).await?
                + snapshot_batch::forget_old(&mut *db, BATCH).await?
                + snapshot_job::forget_old(&mut *db, BATCH).await?
                + rate_bucket::forget_idle(&mut *db).await?
                + deletion::forget_old(db, BATCH).await?
        }
        Old::Messages => {
            message::forget_old(&mut *db, BATCH).await?
                + sms::forget_old(&mut *db).await?
                + tenant_webhook_event::forget_old(db, BATCH).await?
        }
    })
}
