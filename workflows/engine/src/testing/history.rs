//! Histories: as text, as files, and through today's code.

use crate::{
    client::{self, Client, Event, RunState},
    executor,
    ledger::Ledger,
    payload::Payloads,
    record::{InFlight, Kind, Record},
    store::{self, Fence},
    worker::run_definition,
    workflow::{Context, Core, Hands, Workflow},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{fmt::Write as _, sync::Arc, task::Poll};
use uuid::Uuid;

/// What a run was asked to do and what it has done: enough to replay it anywhere.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct History {
    /// [`Workflow::NAME`].
    pub kind: String,
    /// [`Workflow::VERSION`].
    pub version: i32,
    /// The run: chance depends on it.
    pub run_id: Uuid,
    /// Whose it is.
    pub tenant_id: Uuid,
    /// When it was started: time begins here.
    pub created_at: DateTime<Utc>,
    /// What it was started with.
    pub input: Value,
    /// How far it has come.
    pub state: RunState,
    /// Code of its error.
    pub error_code: Option<String>,
    /// What it has done, oldest first.
    pub events: Vec<Event>,
    /// What it has asked for and has not heard of.
    pub in_flight: Vec<Asked>,
}

/// Something that a run has asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Asked {
    /// The key the definition gave it.
    pub key: String,
    /// `activity` or `child`.
    pub kind: String,
    /// The activity, or the kind of the child.
    pub name: Option<String>,
}

impl History {
    /// The history as a table for snapshots: `kind what outcome`, a line each. What: the name of an activity, a child, a run that was
    /// started or a signal, and else the key. No ids, no times.
    pub fn table(&self) -> String {
        let rows: Vec<[&str; 3]> = self.events.iter().map(row).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let (kinds, whats) = (width(0), width(1));
        rows.iter().fold(String::new(), |mut text, [kind, what, outcome]| {
            let _ = writeln!(text, "{kind:<kinds$}  {what:<whats$}  {outcome}");
            text
        })
    }

    /// A number that differs when anything in the history differs.
    pub fn fingerprint(&self) -> u64 {
        // FNV-1a.
        let text = serde_json::to_vec(self).unwrap_or_default();
        text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
    }

    /// The history as text that is the same each time: `kind key outcome` of each event, a line each; for snapshots.
    /// Numbers of signals that have no deduplication key are left out, and so are times.
    pub fn lines(&self) -> String {
        let mut text = String::new();
        for event in &self.events {
            let outcome = event.failure.as_ref().map_or(event.outcome.as_str(), |failure| &failure.code);
            let key = event.key.split_once(":#").map_or(event.key.as_str(), |(key, _)| key);
            let name = event.name.as_deref().unwrap_or_default();
            let _ = writeln!(text, "{:<12} {key:<20} {name:<20} {outcome}", event.kind);
        }
        text
    }
}

/// The history of a run, or `None` when there is no such run.
///
/// # Errors
/// [`client::Error::Payload`] when a value cannot be read; [`client::Error::Database`].
pub async fn history(client: &Client, run_id: Uuid) -> Result<Option<History>, client::Error> {
    let Some(run) = client.run_as_stored(run_id).await? else { return Ok(None) };
    let mut events = client.history(run_id).await?;
    for output in events.iter_mut().filter_map(|event| event.output.as_mut()) {
        *output = client.opened(run.tenant_id, output.take()).await?;
    }
    let (_, in_flight) = store::steps::all(client.pool(), run_id).await?;
    Ok(Some(History {
        kind: run.kind,
        version: run.version,
        run_id,
        tenant_id: run.tenant_id,
        created_at: run.created_at,
        input: client.opened(run.tenant_id, run.input).await?,
        state: run.state,
        error_code: run.error.map(|error| error.code),
        events,
        in_flight: in_flight
            .into_iter()
            .map(|work| Asked { key: work.key, kind: work.kind.name().to_owned(), name: work.name })
            .collect(),
    }))
}

/// Why a definition cannot take up a history.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("run {run_id} does not fit the definition of {kind}: {why}")]
pub struct Mismatch {
    /// The run whose history it is.
    pub run_id: Uuid,
    /// The workflow.
    pub kind: &'static str,
    /// What does not fit.
    pub why: String,
}

/// Runs a definition through a stored history, without a database and without doing anything. A definition that fits asks for
/// what is recorded, in an order that allows it, and ends where the run has ended.
///
/// # Errors
/// [`Mismatch`]: runs like this one would be parked by a worker with this definition.
pub fn replay<W: Workflow>(history: &History) -> Result<(), Mismatch> {
    let mismatch = |why: String| Mismatch { run_id: history.run_id, kind: W::NAME, why };
    if (history.kind.as_str(), history.version) != (W::NAME, W::VERSION) {
        return Err(mismatch(format!("it is of {} version {}", history.kind, history.version)));
    }
    let ledger = Ledger::new(history.created_at);
    let records = history.events.iter().map(record).collect();
    let in_flight = history.in_flight.iter().map(|asked| InFlight {
        key: asked.key.clone(),
        kind: Kind::parse(&asked.kind),
        name: asked.name.clone(),
    });
    ledger.begin(records, in_flight.collect());
    let core = Core {
        run_id: history.run_id,
        tenant_id: history.tenant_id,
        kind: W::NAME.to_owned(),
        fence: Fence { task_id: 0, token: Uuid::nil() },
        hands: Hands::Nobody,
        payloads: Payloads::boundless(),
        ledger: ledger.clone(),
        client: None,
        trace: None,
    };
    let definition: executor::Definition = Arc::new(|input, cx| Box::pin(run_definition::<W>(input, cx)));
    let future = executor::to_the_end(&definition, history.input.clone(), Context::new(Arc::new(core)));
    let end = executor::replay(future, &ledger).map_err(|failure| mismatch(failure.message))?;
    match (history.state, end) {
        (RunState::Running, _) => Ok(()),
        (RunState::Succeeded, Poll::Ready(Ok(_))) => Ok(()),
        (RunState::Succeeded, Poll::Ready(Err(_))) if ledger.has_successor() => Ok(()),
        (RunState::Failed | RunState::Cancelled, Poll::Ready(Err(_))) => Ok(()),
        // The engine gave it up, wherever it was.
        (RunState::Failed, Poll::Pending) if given_up(history.error_code.as_deref()) => Ok(()),
        (state, Poll::Ready(Err(failure))) => {
            Err(mismatch(format!("the run ended as {state:?}, the definition with {failure}")))
        }
        (state, Poll::Ready(Ok(_))) => Err(mismatch(format!("the run ended as {state:?}, the definition succeeds"))),
        (state, Poll::Pending) => Err(mismatch(format!("the run ended as {state:?}, the definition asks for more"))),
    }
}

fn row(event: &Event) -> [&str; 3] {
    let key = match event.kind.as_str() {
        "compensation" => event.key.trim_start_matches("$compensate:"),
        "patch" => event.key.trim_start_matches("$patch:"),
        _ => event.key.as_str(),
    };
    let what = event.name.as_deref().filter(|_| event.kind != "compensation").unwrap_or(key);
    [&event.kind, what, event.failure.as_ref().map_or(event.outcome.as_str(), |failure| &failure.code)]
}

fn given_up(code: Option<&str>) -> bool {
    matches!(code, Some("workflow.lost_too_often" | "workflow.unrecordable"))
}

fn record(event: &Event) -> Record {
    Record {
        seq: event.seq,
        key: event.key.clone(),
        kind: Kind::parse(&event.kind),
        name: event.name.clone(),
        outcome: match &event.failure {
            None => Ok(event.output.clone().unwrap_or_default()),
            Some(failure) => Err(failure.clone()),
        },
        recorded_at: event.recorded_at,
    }
}
