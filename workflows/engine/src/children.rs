//! Runs that a run starts: children, which it waits for and which it takes along when it ends, and runs of their own.

use crate::{
    failure::Failure,
    payload::Payloads,
    record::{Ask, Kind, RunRequest},
    workflow::{Context, Workflow},
};
use uuid::Uuid;

impl Context {
    /// Starts a child and waits for its end; any number may run at once. A child is asked to stop when its parent is, when
    /// its parent is over, and when nobody waits for it any more.
    ///
    /// # Errors
    /// The error of the child, or [`Failure::cancelled`].
    pub async fn child<W: Workflow>(&self, key: &str, input: W) -> Result<W::Output, Failure> {
        let ledger = &self.core().ledger;
        ledger.take_key(key, Kind::Child, Some(W::NAME))?;
        if !ledger.knows(key) {
            ledger.ask(Ask::Run(request(key, &input, None, false, &self.core().payloads)?));
        }
        self.outcome(key).await
    }

    /// Starts a run that goes its own way, whatever becomes of this one, and gives its id. A business key that has a run
    /// already answers with that run. Works also when this run is cancelled.
    ///
    /// # Errors
    /// `workflow.unrecordable` when the input cannot be stored.
    pub async fn start_detached<W: Workflow>(
        &self,
        key: &str,
        business_key: Option<&str>,
        input: W,
    ) -> Result<Uuid, Failure> {
        let ledger = &self.core().ledger;
        ledger.take_key(key, Kind::Start, Some(W::NAME))?;
        if !ledger.knows(key) {
            ledger.ask(Ask::Run(request(key, &input, business_key, true, &self.core().payloads)?));
        }
        self.outcome(key).await
    }
}

fn request<W: Workflow>(
    key: &str,
    input: &W,
    business_key: Option<&str>,
    detached: bool,
    payloads: &Payloads,
) -> Result<RunRequest, Failure> {
    if business_key.is_some_and(|key| key.is_empty() || key.len() > 200 || key.contains('\0')) {
        return Err(Failure::permanent("workflow.bad_key", "a business key has 1 to 200 bytes and no NUL"));
    }
    Ok(RunRequest {
        key: key.to_owned(),
        kind: W::NAME,
        version: W::VERSION,
        priority: input.priority(),
        input: payloads.encode(input)?,
        business_key: business_key.map(str::to_owned),
        detached,
    })
}
