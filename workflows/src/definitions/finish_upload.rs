//! An upload of which everything is there becomes a file, or is refused.
//!
//! ```text
//! work ─▶ take (put together, looked at, stored) ─▶ keep: file, quota, upload in one commit ─▶ clear the pieces
//!   ▲       ├── the storage is full or away ─▶ wait ─┐
//!   └───────┼────────────────────────────────────────┘
//!           └── not taken in ─▶ refuse: room given back, what was stored for it let go of
//! ```
//!
//! What came was acknowledged byte by byte: no outage of ours refuses it. It waits as long as the upload has time, which is a day. What may be
//! the fault of what came is not waited for.

use crate::{
    contracts::{
        storage::BlobHash,
        upload::{ClearUploads, EndedUpload, TakeUpload, TakenUpload},
    },
    models::{
        Db, Role, Scope,
        file_mgr::{blob_claim, upload},
    },
};
use flatrender_engine::{Context, Failure, Workflow};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// How often content is stored that is being removed at the same time.
const MOST_DOOMED: u32 = 10;
/// How long a removal may take before it is tried again.
const PAUSE: Duration = Duration::from_secs(10);
/// How long is waited for a storage that is full or away, before the activity tries it again in its own way; twice as long each time.
const OUTAGE_PAUSE: Duration = Duration::from_secs(300);
/// And at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// How often: a day of pauses. The upload's own day ends before, and with it the waiting, if only somebody expires it.
const MOST_OUTAGES: u32 = 27;
/// How often for a storage, or a machine, that took longer than an attempt may: so might something about the upload.
const MOST_TIMEOUTS: u32 = 3;

/// Finishes an upload. Started in the transaction that has seen the last byte of it kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FinishUpload {
    /// The upload.
    pub upload_id: Uuid,
    /// The storage's own name for it, when parts went there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_upload: Option<String>,
}

impl FinishUpload {
    /// One run an upload.
    pub fn business_key(&self) -> String {
        format!("upload:{}", self.upload_id)
    }
}

impl Workflow for FinishUpload {
    const NAME: &'static str = "finish_upload";
    /// The file.
    type Output = Uuid;

    async fn run(self, cx: &Context) -> Result<Uuid, Failure> {
        let Self { upload_id, storage_upload } = self;
        let tenant_id = cx.tenant_id();
        let mut stored = None;
        let kept = keep(cx, upload_id, &mut stored).await;
        if let Err(why) = &kept {
            let (scope, stored) = (Scope::tenant(Role::File, tenant_id), &stored);
            cx.step("refuse", async move |db: Db<'_>| {
                let refuse = async |db: Db<'_>| {
                    // What was stored for nothing goes by the queue of deletions.
                    if let Some(hash) = stored {
                        blob_claim::let_go(&mut *db, tenant_id, hash).await?;
                    }
                    Ok::<_, Failure>(upload::refuse(db, tenant_id, upload_id, why).await?)
                };
                scope.within(db, refuse).await
            })
            .await?;
        }
        let ended = EndedUpload { tenant_id, upload_id, storage_upload };
        // What is left behind is looked for again later.
        let _ = cx.activity("clear", ClearUploads { uploads: vec![ended] }).await;
        kept
    }
}

/// Makes a file of the upload. `stored` is what was stored for it.
async fn keep(cx: &Context, upload_id: Uuid, stored: &mut Option<BlobHash>) -> Result<Uuid, Failure> {
    let wanted = work(cx, upload_id).await?;
    let (mut round, mut doomed, mut patience) = (1, 1, Patience::default());
    loop {
        let taken = match cx.activity(&format!("take {round}"), wanted.clone()).await {
            Ok(taken) => taken,
            Err(failure) => {
                let Some(pause) = patience.with(&failure) else { return Err(failure) };
                if !cx.patched("patience with outages").await {
                    return Err(failure);
                }
                cx.sleep(&format!("wait {round}"), pause).await?;
                round += 1;
                // Once its day is over nobody waits for it any more.
                if !is_completing(cx, &format!("go on {round}"), upload_id).await? {
                    return Err(failure);
                }
                continue;
            }
        };
        *stored = Some(taken.blob.sha256.clone());
        match become_file(cx, &format!("keep {round}"), upload_id, &taken).await {
            // The same content was being removed: it is stored again once that is done.
            Err(failure) if failure.code == upload::DOOMED && doomed < MOST_DOOMED => {
                cx.sleep(&format!("wait {round}"), PAUSE).await?;
                round += 1;
                doomed += 1;
            }
            kept => return kept,
        }
    }
}

/// What was waited for until now.
#[derive(Debug, Default)]
struct Patience {
    outages: u32,
    timeouts: u32,
}

impl Patience {
    /// How long to wait after this failure; none when it is no outage, or one of too many.
    fn with(&mut self, failure: &Failure) -> Option<Duration> {
        let may_pass = match failure.code.as_str() {
            "workflow.timeout" => {
                self.timeouts += 1;
                self.timeouts <= MOST_TIMEOUTS
            }
            code => is_outage(code),
        };
        let pause = OUTAGE_PAUSE * (1_u32 << self.outages.min(4));
        self.outages += 1;
        (failure.retryable && may_pass && self.outages <= MOST_OUTAGES).then(|| pause.min(LONGEST_PAUSE))
    }
}

/// Whether it is neither the upload's fault nor that of the work: a storage or a disk that is full or away, a machine without its programs.
fn is_outage(code: &str) -> bool {
    code.starts_with("storage.") || matches!(code, "media.disk" | "media.tool_missing")
}

async fn work(cx: &Context, upload_id: Uuid) -> Result<TakeUpload, Failure> {
    let (tenant_id, scope) = (cx.tenant_id(), Scope::tenant(Role::File, cx.tenant_id()));
    cx.step("work", async move |db: Db<'_>| {
        scope.within(db, async |db: Db<'_>| upload::work(db, tenant_id, upload_id).await).await
    })
    .await
}

/// What there is to do is known, and may be long: after a pause only this is asked.
async fn is_completing(cx: &Context, key: &str, upload_id: Uuid) -> Result<bool, Failure> {
    let (tenant_id, scope) = (cx.tenant_id(), Scope::tenant(Role::File, cx.tenant_id()));
    cx.step(key, async move |db: Db<'_>| {
        let look = async |db: Db<'_>| Ok::<_, Failure>(upload::is_completing(db, tenant_id, upload_id).await?);
        scope.within(db, look).await
    })
    .await
}

async fn become_file(cx: &Context, key: &str, upload_id: Uuid, taken: &TakenUpload) -> Result<Uuid, Failure> {
    let (tenant_id, scope) = (cx.tenant_id(), Scope::tenant(Role::File, cx.tenant_id()));
    cx.step(key, async move |db: Db<'_>| {
        scope.within(db, async |db: Db<'_>| upload::become_file(db, tenant_id, upload_id, taken).await).await
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(failure: &Failure) -> Vec<Duration> {
        let mut patience = Patience::default();
        std::iter::from_fn(|| patience.with(failure)).collect()
    }

    #[test]
    fn an_outage_is_waited_for_with_longer_pauses_and_for_a_day() {
        for code in ["storage.full", "storage.unavailable", "media.disk", "media.tool_missing"] {
            let pauses = pauses(&Failure::transient(code, "away"));
            assert_eq!(pauses[..6], [5, 10, 20, 40, 60, 60].map(|minutes| Duration::from_secs(minutes * 60)), "{code}");
            let hours = pauses.iter().sum::<Duration>().as_secs() / 3600;
            assert_eq!(hours, 24, "{code}");
        }
    }

    #[test]
    fn what_may_be_the_fault_of_what_came_is_not_waited_for() {
        for code in ["media.unchecked", "media.stuck", "media.killed", "workflow.panicked", "workflow.worker"] {
            assert!(pauses(&Failure::transient(code, "odd")).is_empty(), "{code}");
        }
        assert!(pauses(&Failure::permanent("storage.not_found", "gone")).is_empty());
        assert_eq!(pauses(&Failure::transient("workflow.timeout", "slow")).len(), 3);
    }
}
