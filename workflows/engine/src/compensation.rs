//! Taking back what has succeeded, when the run as a whole does not.
//!
//! ```text
//!   activity ok ─▶ compensate ─▶ … ─▶ the definition fails, or is cancelled ─▶ compensations, the newest first ─▶ end
//! ```
//! Each compensation is work of the run like any other: recorded once, repeated by its policy, continued after a crash.

use crate::{
    activity::Activity,
    executor,
    failure::Failure,
    record::{Ask, Kind, Request, Undo},
    workflow::Context,
};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use sqlx::PgConnection;

/// Code of a run that could not take back everything.
pub const COMPENSATION_FAILED: &str = "workflow.compensation_failed";

/// Longest key of a compensation, in bytes: its record has a prefix.
const KEY_LIMIT: usize = 180;

impl Context {
    /// Says how to take back what has just succeeded: `undo` is done, under `key`, if this run fails or is cancelled. The
    /// newest comes first. Call it right after the success; where the success may go unheard, because the branch that waits for
    /// it is dropped when another fails (`try_join`, `select`), call it before, with an `undo` that is harmless when there
    /// is nothing to take back.
    ///
    /// Compensations are done also when the run is cancelled, and repeated by their policy. Those that fail for good are named
    /// in the error of the run, [`COMPENSATION_FAILED`]; the others are done nevertheless. A run that succeeds, or continues as
    /// another, drops them. A run with compensations is never given up for the workers it loses: it is parked.
    ///
    /// # Errors
    /// `workflow.key_reused`, `workflow.unrecordable`.
    pub async fn compensate<A: Activity>(&self, key: &str, undo: A) -> Result<(), Failure> {
        let request = Request { shielded: true, ..Request::new(key, &undo, &self.core().payloads)? };
        let input = request.input.clone();
        let owned = key.to_owned();
        let body = move |cx: Context| -> BoxFuture<'static, Result<(), Failure>> {
            Box::pin(async move {
                cx.core().ledger.ask(Ask::Activity(request));
                cx.outcome::<Value>(&owned).await.map(drop)
            })
        };
        self.register(key, Kind::Activity, Some(A::NAME), input, Box::new(body)).await
    }

    /// As [`Context::compensate`], with a step: `undo` and its record are one transaction.
    ///
    /// # Errors
    /// `workflow.key_reused`.
    pub async fn compensate_step<F>(&self, key: &str, undo: F) -> Result<(), Failure>
    where
        F: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<(), Failure>> + Clone + Send + Sync + 'static,
    {
        let owned = key.to_owned();
        let body = move |cx: Context| -> BoxFuture<'static, Result<(), Failure>> {
            Box::pin(async move { cx.reserved_step(&owned, async |db: &mut PgConnection| undo(db).await).await })
        };
        self.register(key, Kind::Step, None, Value::Null, Box::new(body)).await
    }

    async fn register(
        &self,
        key: &str,
        kind: Kind,
        name: Option<&'static str>,
        input: Value,
        body: Box<dyn FnOnce(Context) -> BoxFuture<'static, Result<(), Failure>> + Send>,
    ) -> Result<(), Failure> {
        if key.len() > KEY_LIMIT {
            let message = format!("the key of a compensation has at most {KEY_LIMIT} bytes");
            return Err(Failure::permanent("workflow.bad_key", message));
        }
        let (ledger, mark) = (&self.core().ledger, format!("$compensate:{key}"));
        ledger.take_key(key, kind, name)?;
        ledger.reserve(&mark, Kind::Compensation, name)?;
        ledger.register(Undo { key: key.to_owned(), name, body });
        ledger.ask(Ask::Mark { key: mark.clone(), kind: Kind::Compensation, name, output: input });
        ledger.recorded(&mark).await.map(drop)
    }

    /// Takes back everything, the newest first. Gives `failure` back, or what says that something stands.
    pub(crate) async fn undo_all(&self, failure: Failure) -> Failure {
        if self.core().ledger.compensates() {
            // A step whose branch was dropped may be in the middle of its commit: what is taken back is what it left.
            executor::steps_settle(self.core()).await;
        }
        let (mut undone, mut standing) = (Vec::new(), Vec::new());
        while let Some(Undo { key, name, body }) = self.core().ledger.next_undo() {
            match body(self.clone()).await {
                Ok(()) => undone.push(key),
                Err(why) => standing.push(json!({ "key": key, "activity": name, "failure": why })),
            }
        }
        if standing.is_empty() {
            return failure;
        }
        let message = format!("{} of {} compensations failed", standing.len(), standing.len() + undone.len());
        let details = json!({ "cause": failure, "undone": undone, "not_undone": standing });
        Failure::permanent(COMPENSATION_FAILED, message).with_details(details)
    }
}
