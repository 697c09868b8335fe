//! Runs that are no use as copies, since something beside the engine belongs to each: how they are done anew.

use super::{By, Forked, OperationError, Operations, sql};
use crate::client::{Client, Run, RunState};
use futures::future::BoxFuture;
use serde_json::json;
use sqlx::PgConnection;
use std::fmt::Debug;
use uuid::Uuid;

/// Does runs of some kinds anew, where others are copied.
pub trait Anew: Debug + Send + Sync {
    /// Whether runs of this kind are its.
    fn does(&self, kind: &str) -> bool;

    /// Starts a run in the place of one that has failed, with all that belongs to it, in this transaction: once for each that failed. The
    /// transaction is afterwards in the scope in which it was.
    ///
    /// # Errors
    /// [`OperationError::Refused`] says why it is not to be done, or, when its failure is retryable, that something passing was in the
    /// way: then the transaction is to be given up. [`OperationError::Conflict`] when it was done already.
    fn start<'a>(
        &'a self,
        client: &'a Client,
        db: &'a mut PgConnection,
        failed: &'a Run,
    ) -> BoxFuture<'a, Result<Uuid, OperationError>>;
}

impl Operations {
    /// Where a run of this kind is done anew when somebody tries it again.
    pub(super) fn anew_for(&self, kind: &str) -> Option<&dyn Anew> {
        self.anew.as_deref().filter(|anew| anew.does(kind))
    }

    /// Starts a run in the place of one that has failed, and notes whose place it has.
    pub(super) async fn do_anew(
        &self,
        tx: &mut PgConnection,
        by: &By,
        failed: Run,
        anew: &dyn Anew,
    ) -> Result<Forked, OperationError> {
        if failed.state != RunState::Failed {
            return Err(OperationError::Moved(format!("run {}", failed.id)));
        }
        let run_id = anew.start(&self.client, &mut *tx, &failed).await?;
        sql::note_anew(&mut *tx, failed.id, run_id).await?;
        let before = json!({ "state": failed.state, "code": failed.error.map(|e| e.code) });
        let (target, after) = (format!("run:{}", failed.id), json!({ "run_id": run_id, "anew": true }));
        sql::audit(tx, by, "retry", Some(failed.tenant_id), &target, Some(before), Some(after)).await?;
        Ok(Forked { run_id, copied: 0 })
    }
}
