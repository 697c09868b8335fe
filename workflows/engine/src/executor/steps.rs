//! Steps: what a definition does to the database, in one transaction with its record.

use crate::{
    client::Client,
    failpoint::{At as _, Point},
    failure::Failure,
    measures, payload,
    pump::ANSWER,
    record::{Ask, Kind, Record, storable},
    retry,
    store::{self, session::Session},
    trace,
    workflow::{Core, Hands},
};
use serde::Serialize;
use sqlx::{Connection, PgConnection, PgPool};
use std::{future::pending, time::Duration};
use tokio::time::Instant;

/// What a step does to the database may take this long; after that its connection counts as lost.
const STEP_LIMIT: Duration = Duration::from_secs(600);
/// A connection that falls silent within a step leaves the server with its locks, until the server ends the session.
const STEP_BEGIN: &str = "begin; set local idle_in_transaction_session_timeout = '30s'";

/// Performs a step until its outcome is in the ledger; never returns once the lease is lost.
pub(crate) async fn step<T, F>(core: &Core, key: &str, body: F)
where
    T: Serialize,
    F: Clone + AsyncFnOnce(&mut PgConnection) -> Result<T, Failure>,
{
    core.ledger.caught_up().await;
    let pool = match &core.hands {
        Hands::Database(pool) => pool,
        Hands::Rehearsal(deeds) => return deeds.step(key).await,
        Hands::Nobody => return pending().await,
    };
    let _running = core.ledger.step_runs();
    let own = core.trace.map(|parent| parent.child());
    trace::within(own, trace::step_span(core.trace, own, key), try_step(core, pool, key, body)).await
}

async fn try_step<T, F>(core: &Core, pool: &PgPool, key: &str, body: F)
where
    T: Serialize,
    F: Clone + AsyncFnOnce(&mut PgConnection) -> Result<T, Failure>,
{
    let (mut tries, mut pauses) = (0, 0);
    loop {
        let failure = match attempt_step(core, pool, key, body.clone()).await {
            Ok(Some(record)) => return core.ledger.add(record),
            Ok(None) => return give_up(core).await,
            Err(failure) => failure,
        };
        // The commit may have gone through although its answer was lost: the record is the truth.
        if failure.code == store::DATABASE
            && let Ok(Some(record)) = find(core, pool, key).await
        {
            return core.ledger.add(record);
        }
        tries += u32::from(!store::is_outage(&failure) && !payload::is_unreachable(&failure));
        pauses += 1;
        if !failure.retryable || tries >= retry::STEP_TRIES {
            return record_failure(core, pool, key, failure).await;
        }
        tracing::debug!(run.id = %core.run_id, key, %failure, "a step is tried again");
        tokio::time::sleep(retry::step_pause(pauses)).await;
    }
}

/// Performs a step without a transaction and asks for its record.
pub(crate) async fn memo<T, F, R>(core: &Core, key: &str, body: F)
where
    T: Serialize,
    F: Fn() -> R,
    R: Future<Output = Result<T, Failure>>,
{
    core.ledger.caught_up().await;
    if matches!(core.hands, Hands::Nobody) {
        return pending().await;
    }
    let rehearsed = matches!(core.hands, Hands::Rehearsal(_));
    let running = core.ledger.step_runs();
    let own = core.trace.map(|parent| parent.child());
    let (mut tries, mut pauses) = (0, 0);
    let failure = loop {
        let done = trace::within(own, trace::step_span(core.trace, own, key), body()).await;
        let failure = match done.and_then(|output| core.payloads.encode(&output)) {
            Ok(output) => {
                core.ledger.ask(Ask::Mark { key: key.to_owned(), kind: Kind::Step, name: None, output });
                return drop(running);
            }
            Err(failure) => failure,
        };
        tries += u32::from(rehearsed || !store::is_outage(&failure));
        pauses += 1;
        if !failure.retryable || tries >= retry::STEP_TRIES {
            break failure;
        }
        if !rehearsed {
            tokio::time::sleep(retry::step_pause(pauses)).await;
        }
    };
    match &core.hands {
        Hands::Database(pool) => record_failure(core, pool, key, failure).await,
        Hands::Rehearsal(deeds) => deeds.failed(key, failure),
        Hands::Nobody => {}
    }
}

/// One transaction: the caller's writes, the fence, the record. `None`: the lease is lost, nothing is written.
async fn attempt_step<T, F>(core: &Core, pool: &PgPool, key: &str, body: F) -> Result<Option<Record>, Failure>
where
    T: Serialize,
    F: AsyncFnOnce(&mut PgConnection) -> Result<T, Failure>,
{
    let began = Instant::now();
    let mut session = Session::take(pool).await?;
    metrics::histogram!(measures::POOL_WAIT_SECONDS).record(began.elapsed());
    let mut tx = store::in_time(ANSWER, session.db().begin_with(STEP_BEGIN).at(Point::StepBegin)).await?;
    let written = write_step(&mut tx, core, key, body).await;
    if let Ok(Some(_)) = written {
        store::in_time(ANSWER, tx.commit().at(Point::StepCommit)).await?;
        core.client.iter().for_each(Client::announce);
    } else {
        store::in_time(ANSWER, tx.rollback().at(Point::StepRollback)).await?;
    }
    session.rests(!written.as_ref().is_err_and(store::is_outage));
    metrics::histogram!(measures::STEP_SECONDS, "kind" => core.kind.clone()).record(began.elapsed());
    written
}

/// The record of a key, by another session than the one that wrote it.
async fn find(core: &Core, pool: &PgPool, key: &str) -> sqlx::Result<Option<Record>> {
    let mut session = Session::take(pool).await?;
    let record = store::in_time(ANSWER, store::steps::find(session.db(), core.run_id, key)).await;
    session.done(record)
}

async fn write_step<T, F>(tx: &mut PgConnection, core: &Core, key: &str, body: F) -> Result<Option<Record>, Failure>
where
    T: Serialize,
    F: AsyncFnOnce(&mut PgConnection) -> Result<T, Failure>,
{
    let written = async {
        let output = core.payloads.encode(&body(tx).await?)?;
        let stored = match core.payloads.passes(&output) {
            true => None,
            false => Some(core.payloads.keep(core.tenant_id, output.clone(), 1).await?),
        };
        Ok::<_, Failure>((output, stored))
    };
    let (output, stored) = tokio::time::timeout(STEP_LIMIT, written).await.map_err(|_| too_long(key))??;
    let Some(stored) = stored else {
        return Ok(store::in_time(ANSWER, store::steps::record(tx, core.fence, key, &Ok(output))).await?);
    };
    let record = store::in_time(ANSWER, store::steps::record(tx, core.fence, key, &Ok(stored))).await?;
    Ok(record.map(|record| Record { outcome: Ok(output), ..record }))
}

/// A body that hangs holds its row, its connection and its run.
fn too_long(key: &str) -> Failure {
    let late = format!("the step {key:?} took longer than {} s", STEP_LIMIT.as_secs());
    Failure::from(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, late)))
}

/// Waits until no transaction of a step of this run is open any more.
pub(crate) async fn steps_settle(core: &Core) {
    core.ledger.caught_up().await;
    // Whoever waits for the database is not asleep: a run put away now would wait for a record that nobody will write.
    let _looking = core.ledger.step_runs();
    let pool = match &core.hands {
        Hands::Database(pool) => pool,
        Hands::Rehearsal(deeds) => return deeds.settle().await,
        Hands::Nobody => return,
    };
    for tries in 1.. {
        let settled = async {
            let mut session = Session::take(pool).await?;
            let settled = store::in_time(STEP_LIMIT, store::steps::await_others(session.db(), core.fence)).await;
            session.done(settled)
        };
        match settled.await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, run.id = %core.run_id, "cannot wait for the steps of a run"),
        }
        tokio::time::sleep(retry::step_pause(tries)).await;
    }
}

async fn record_failure(core: &Core, pool: &PgPool, key: &str, failure: Failure) {
    let failure: Failure = serde_json::from_value(storable(&failure)).unwrap_or(failure);
    let outcome = Err(failure);
    for tries in 1.. {
        let recorded = async {
            let mut session = Session::take(pool).await?;
            let record = store::in_time(ANSWER, store::steps::record(session.db(), core.fence, key, &outcome)).await;
            session.done(record)
        };
        match recorded.await {
            Ok(Some(record)) => return core.ledger.add(record),
            Ok(None) => return give_up(core).await,
            Err(error) => {
                tracing::warn!(%error, run.id = %core.run_id, key, "cannot record the failure of a step");
                if let Ok(Some(record)) = find(core, pool, key).await {
                    return core.ledger.add(record);
                }
                tokio::time::sleep(retry::step_pause(tries)).await;
            }
        }
    }
}

async fn give_up(core: &Core) {
    core.ledger.lose();
    pending().await
}
