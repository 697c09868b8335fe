//! Uploads that nobody goes on with: given up, their room given back, their pieces removed.

use crate::{
    contracts::upload::{ClearUploads, EndedUpload, Uncleared},
    models::{
        Db, Role, Scope,
        file_mgr::{quota, upload},
    },
};
use flatrender_engine::{Context, Failure, Workflow};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How many at a time.
const BATCH: i64 = 200;
/// Batches a run; the next run does the rest.
const BATCHES: u32 = 50;
/// Batches of which nothing could be cleared, and none is tried any more: the storage is away.
const MOST_IN_VAIN: u32 = 2;

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
        release(cx, scope).await?;
        clear(cx, scope).await?;
        Ok(expired)
    }
}

/// Frees room that was set aside for too long. Runs that an earlier build began free one batch of it.
async fn release(cx: &Context, scope: Scope) -> Result<(), Failure> {
    for batch in 0..BATCHES {
        let key = if batch == 0 { "release".to_owned() } else { format!("release {batch}") };
        let released = cx
            .step(&key, async move |db: Db<'_>| {
                scope.within(db, async |db: Db<'_>| Ok::<_, Failure>(quota::release_expired(db, BATCH).await?)).await
            })
            .await?;
        if released < BATCH as u64 || !cx.patched("release in batches").await {
            break;
        }
    }
    Ok(())
}

/// Removes the pieces of uploads that have ended. One whose pieces cannot be removed keeps no other from being cleared: it is tried by the next
/// run, and this one fails when it has done the rest.
async fn clear(cx: &Context, scope: Scope) -> Result<(), Failure> {
    let (mut left, mut why, mut in_vain): (Vec<Uuid>, Option<Failure>, u32) = (vec![], None, 0);
    for batch in 0..BATCHES {
        let except = &left;
        let ended: Vec<EndedUpload> = cx
            .step(&format!("ended {batch}"), async move |db: Db<'_>| {
                let look = async |db: Db<'_>| Ok::<_, Failure>(upload::uncleared(db, except, BATCH).await?);
                scope.within(db, look).await
            })
            .await?;
        if ended.is_empty() {
            break;
        }
        let uncleared = match cx.activity(&format!("clear {batch}"), ClearUploads { uploads: ended.clone() }).await {
            Ok(uncleared) => uncleared.unwrap_or_default(),
            Err(failure) if failure.is_cancelled() => return Err(failure),
            Err(failure) => {
                // The others of its batch come with the next one.
                left.extend(Uncleared::tried(&failure));
                why = why.or(Some(failure));
                in_vain += 1;
                if in_vain == MOST_IN_VAIN {
                    break;
                }
                continue;
            }
        };
        let gone: &Vec<EndedUpload> =
            &ended.into_iter().filter(|ended| !uncleared.uploads.contains(&ended.upload_id)).collect();
        cx.step(&format!("cleared {batch}"), async move |db: Db<'_>| {
            scope.within(db, async |db: Db<'_>| Ok::<_, Failure>(upload::cleared(db, gone).await?)).await
        })
        .await?;
        left.extend(uncleared.uploads);
        why = why.or(uncleared.why);
    }
    why.map_or(Ok(()), Err)
}
