//! An upload of which everything is there becomes a file, or is refused.
//!
//! ```text
//! work ─▶ take (put together, looked at, stored) ─▶ keep: file, quota, upload in one commit ─▶ clear the pieces
//!                                   └── not taken in ─▶ refuse: room given back, what was stored for it let go of
//! ```

use crate::{
    contracts::{
        storage::BlobHash,
        upload::{ClearUploads, EndedUpload},
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
const MOST_ROUNDS: u32 = 10;
/// How long a removal may take before it is tried again.
const PAUSE: Duration = Duration::from_secs(10);

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
    let (tenant_id, scope) = (cx.tenant_id(), Scope::tenant(Role::File, cx.tenant_id()));
    let work = cx
        .step("work", async move |db: Db<'_>| {
            scope.within(db, async |db: Db<'_>| upload::work(db, tenant_id, upload_id).await).await
        })
        .await?;
    let mut round = 1;
    loop {
        let taken = &cx.activity(&format!("take {round}"), work.clone()).await?;
        *stored = Some(taken.blob.sha256.clone());
        let key = format!("keep {round}");
        let kept = cx.step(&key, async move |db: Db<'_>| {
            scope.within(db, async |db: Db<'_>| upload::become_file(db, tenant_id, upload_id, taken).await).await
        });
        match kept.await {
            // The same content was being removed: it is stored again once that is done.
            Err(failure) if failure.code == upload::DOOMED && round < MOST_ROUNDS => {
                cx.sleep(&format!("wait {round}"), PAUSE).await?;
                round += 1;
            }
            kept => return kept,
        }
    }
}
