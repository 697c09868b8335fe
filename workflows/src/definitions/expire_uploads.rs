//! Uploads that nobody goes on with: given up, their room given back, their pieces removed.

use crate::{
    contracts::upload::{ClearUploads, EndedUpload},
    models::{
        Db, Role, Scope,
        file_mgr::{quota, upload},
    },
};
use flatrender_engine::{Context, Failure, Workflow};
use serde::{Deserialize, Serialize};

/// How many at a time.
const BATCH: i64 = 200;
/// Batches a run; the next run does the rest.
const BATCHES: u32 = 50;

/// Gives up uploads whose time is over, releases room that was set aside for too long, and removes pieces of uploads that have ended.
/// Repeating it is harmless.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExpireUploads {}

impl Workflow for ExpireUploads {
    const NAME: &'static str = "expire_uploads";
    /// How many uploads were given up.
    type Output = u64;

    async fn run(self, cx: &Context) -> Result<u64, Failure> {
        let scope = Scope::platform(Role::File);
        let mut expired = 0;
        for batch in 0..BATCHES {
            let given_up = cx
                .step(&format!("expire {batch}"), async move |db: Db<'_>| {
                    scope.within(db, async |db: Db<'_>| Ok::<_, Failure>(upload::expire(db, BATCH).await?)).await
                })
                .await?;
            expired += given_up;
            if given_up < BATCH as u64 {
                break;
            }
        }
        cx.step("release", async move |db: Db<'_>| {
            scope.within(db, async |db: Db<'_>| Ok::<_, Failure>(quota::release_expired(db, BATCH).await?)).await
        })
        .await?;
        for batch in 0..BATCHES {
            let ended: Vec<EndedUpload> = cx
                .step(&format!("ended {batch}"), async move |db: Db<'_>| {
                    scope.within(db, async |db: Db<'_>| Ok::<_, Failure>(upload::uncleared(db, BATCH).await?)).await
                })
                .await?;
            if ended.is_empty() {
                break;
            }
            cx.activity(&format!("clear {batch}"), ClearUploads { uploads: ended.clone() }).await?;
            let gone = &ended;
            cx.step(&format!("cleared {batch}"), async move |db: Db<'_>| {
                scope.within(db, async |db: Db<'_>| Ok::<_, Failure>(upload::cleared(db, gone).await?)).await
            })
            .await?;
        }
        Ok(expired)
    }
}
