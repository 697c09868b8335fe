//! An upload of which everything is there becomes a file, or is refused.
//!
//! ```text
//! work ─▶ take (put together, looked at, stored) ─▶ keep: file, quota, upload in one commit ─▶ clear the pieces
//!   ▲       ├── the storage is full or away ─▶ wait ─┐
//!   └───────┼────────────────────────────────────────┘
//!           └── not taken in ─▶ refuse: room given back, what was stored for it let go of
//! ```
//!
//! What came was acknowledged byte by byte: no outage of ours refuses it. It waits as long as the upload has time, which is a day.

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
/// How long is waited for a storage that is full or away, before the activity tries it again in its own way.
const OUTAGE_PAUSE: Duration = Duration::from_secs(300);
/// How often: a day of pauses. The upload's own day ends before, and with it the waiting, if only somebody expires it.
const MOST_OUTAGES: u32 = 288;

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
    let mut wanted = work(cx, "work", upload_id).await?;
    let (mut round, mut doomed, mut outages) = (1, 1, 0);
    loop {
        let taken = match cx.activity(&format!("take {round}"), wanted.clone()).await {
            Ok(taken) => taken,
            Err(failure) => {
                outages += 1;
                if outages > MOST_OUTAGES || !may_pass(&failure) || !cx.patched("patience with outages").await {
                    return Err(failure);
                }
                cx.sleep(&format!("wait {round}"), OUTAGE_PAUSE).await?;
                round += 1;
                // Once its day is over there is none any more.
                wanted = work(cx, &format!("work {round}"), upload_id).await?;
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

/// Whether it is not the upload's fault, nor that of the work: a storage or a disk that is full or away, a machine without its programs.
fn may_pass(failure: &Failure) -> bool {
    failure.retryable && !failure.code.starts_with("workflow.")
}

async fn work(cx: &Context, key: &str, upload_id: Uuid) -> Result<TakeUpload, Failure> {
    let (tenant_id, scope) = (cx.tenant_id(), Scope::tenant(Role::File, cx.tenant_id()));
    cx.step(key, async move |db: Db<'_>| {
        scope.within(db, async |db: Db<'_>| upload::work(db, tenant_id, upload_id).await).await
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
