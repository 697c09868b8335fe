//! Starting a run in a transaction of its own, and waiting for what it gives.

use super::{Client, Error, Run, StartRequest};
use crate::{
    failure::Failure,
    handover::{End, Expected},
    measures,
    store::{self, stored_failure, tasks::NewRun},
    trace::TraceContext,
    wakeup::Ring,
    worker::RUN_QUEUE,
    workflow::Workflow,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{marker::PhantomData, time::Duration};
use tokio::time::Instant;
use uuid::Uuid;

/// A run that was started by [`Client::launch`].
#[derive(Debug)]
pub struct Launched<W> {
    client: Client,
    tenant_id: Uuid,
    run_id: Uuid,
    here: Option<Expected>,
    workflow: PhantomData<fn() -> W>,
}

impl Client {
    /// Starts a run in a transaction of its own; it is there for good when this returns. With the client of a worker
    /// ([`Worker::client`](crate::Worker::client)) the start goes along with the worker's next round trip, together with others,
    /// and the run begins there at once if a slot is free.
    ///
    /// Not for a run that belongs to other writes, or to a business key: [`Client::start`] is.
    ///
    /// # Errors
    /// [`Error::Unrecordable`] when the input cannot be stored, [`Error::Payload`], [`Error::Database`].
    pub async fn launch<W: Workflow>(&self, tenant_id: Uuid, workflow: W) -> Result<Launched<W>, Error> {
        let input = self.stored(tenant_id, &workflow).await?;
        let launched = |run_id, here| Launched { client: self.clone(), tenant_id, run_id, here, workflow: PhantomData };
        metrics::counter!(measures::RUNS_STARTED, "kind" => W::NAME).increment(1);
        let Some((local, run_id)) = self.local.as_ref().and_then(|local| Some((local, local.new_run_id()?))) else {
            let mut db = self.pool.acquire().await?;
            let shared = StartRequest {
                tenant_id,
                kind: W::NAME,
                version: W::VERSION,
                business_key: None,
                input: Value::Null,
                priority: 0,
                traceparent: TraceContext::current(),
            };
            let ids = store::runs::insert_all(&mut db, &shared, &[input], &[workflow.priority()]).await?;
            self.tell_of_runs();
            return Ok(launched(ids.first().copied().unwrap_or_default(), None));
        };
        let new = NewRun {
            id: run_id,
            tenant_id,
            kind: W::NAME,
            version: W::VERSION,
            input,
            priority: workflow.priority(),
            traceparent: TraceContext::current(),
        };
        let here = local.ends.expect(run_id);
        if !local.start(new.clone()).await {
            store::tasks::start(&self.pool, &new).await?;
            self.tell_of_runs();
        }
        Ok(launched(run_id, Some(here)))
    }

    fn tell_of_runs(&self) {
        self.remember([Ring::Queue(RUN_QUEUE.to_owned())]);
        self.announce();
    }
}

impl<W: Workflow> Launched<W> {
    /// The run.
    pub fn run_id(&self) -> Uuid {
        self.run_id
    }

    /// Waits until the run is over, or the last of those that went on in its place, and gives its output or its error; `None`
    /// when `timeout` is up. A run that ends in the worker of this client is heard of at once, without asking the database.
    ///
    /// # Errors
    /// [`Error::Payload`] when the output cannot be read; [`Error::Database`].
    pub async fn outcome(&mut self, timeout: Duration) -> Result<Option<Result<W::Output, Failure>>, Error> {
        let began = Instant::now();
        loop {
            let waited = began.elapsed();
            let rest = timeout.saturating_sub(waited);
            // Who hears of ends here asks late, so that what ends here costs nothing.
            let pause = match self.here {
                Some(_) => (waited / 4).clamp(Duration::from_millis(250), Duration::from_secs(1)),
                None => (waited / 4).clamp(Duration::from_millis(1), Duration::from_millis(100)),
            };
            // Only waiting is given up for the end: a query that is dropped half-way takes its session with it.
            tokio::select! {
                biased;
                (state, body) = end_here(&mut self.here) => {
                    let body = self.client.opened(self.tenant_id, body.unwrap_or_default()).await?;
                    return Ok(Some(read((state, Some(body)))));
                }
                () = tokio::time::sleep(pause.min(rest)) => {}
            }
            if let Some(run) = self.client.finished(self.run_id, Duration::ZERO).await? {
                return Ok(Some(read(ended(run))));
            }
            if rest <= pause {
                return Ok(None);
            }
        }
    }
}

/// The end, if it happens in this process.
async fn end_here(here: &mut Option<Expected>) -> End {
    if let Some(expected) = here {
        let end = (&mut expected.end).await;
        *here = None; // It is told once.
        if let Ok(end) = end {
            return end;
        }
    }
    std::future::pending().await
}

fn ended(run: Run) -> End {
    match run.error {
        Some(error) => (run.state.as_str(), serde_json::to_value(error).ok()),
        None => (run.state.as_str(), run.output),
    }
}

fn read<T: DeserializeOwned>((state, body): End) -> Result<T, Failure> {
    if state != "succeeded" {
        return Err(stored_failure(body));
    }
    serde_json::from_value(body.unwrap_or(Value::Null))
        .map_err(|error| Failure::permanent("workflow.unreadable", format!("the output is of another type: {error}")))
}
