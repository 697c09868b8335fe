//! What was kept for a while only: links and codes, logins under way, sessions that have ended, keys of requests, uploads that are over, old
//! messages, and what was told or counted long ago.

use crate::models::{
    Db, Role, Scope,
    file_mgr::{deletion, purge, quota, share_link, upload},
    identity::{
        auth_challenge, auth_throttle, openid_sign_in, payment_event, rate_bucket, tenant_webhook_event, usage,
        user_session,
    },
    notification::{message, sms},
    render::{render_job, snapshot_batch, snapshot_job, snapshot_request},
};
use flatrender_engine::{Context, Failure, Workflow};
use serde::{Deserialize, Serialize};

/// Rows a step, of each kind.
const BATCH: i64 = 10_000;
/// Uploads a step: each goes with its pieces.
const UPLOADS: i64 = 1_000;
/// Rounds of a run; the next run goes on.
const ROUNDS: usize = 50;

/// What to forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Old {
    /// Links, also to files, codes, logins under way, sessions, failures to sign in.
    Auth,
    /// Keys of requests that were answered, requests for stills that have ended, uploads that are over and the room that was set aside for
    /// them, files that are gone, removals that were done, and budgets that are full.
    Requests,
    /// Messages that were read long ago, counts of text messages of days that are over, events whose deliveries are gone, what gateways
    /// told, and what was kept at an hour of which no day is counted any more.
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
                + share_link::forget_old(&mut *db, BATCH).await?
                + user_session::forget_old(db, BATCH).await?
        }
        Old::Requests => {
            snapshot_request::forget_old(&mut *db, BATCH).await?
                + render_job::forget_joined(&mut *db, BATCH).await?
                + snapshot_batch::forget_old(&mut *db, BATCH).await?
                + snapshot_job::forget_old(&mut *db, BATCH).await?
                + rate_bucket::forget_idle(&mut *db).await?
                + upload::forget_old(&mut *db, UPLOADS).await?
                + quota::forget_old(&mut *db, BATCH).await?
                + purge::forget_old(&mut *db, BATCH).await?
                + deletion::forget_old(db, BATCH).await?
        }
        Old::Messages => {
            message::forget_old(&mut *db, BATCH).await?
                + sms::forget_old(&mut *db).await?
                + payment_event::forget_old(&mut *db, BATCH).await?
                + usage::forget_old(&mut *db, BATCH).await?
                + tenant_webhook_event::forget_old(db, BATCH).await?
        }
    })
}
