//! Layer 1: the same commands, drawn at random, to PostgreSQL and to a reference in memory; after each the rows must be the same.
//!
//! The same commands each time; `PROPTEST_CASES=2000` draws as many others. What it finds is shrunk.

mod jobs;

use crate::store;
use chrono::{DateTime, Utc};
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use sqlx::{PgConnection, PgPool};

/// Cases of a normal run.
const CASES: u32 = 60;

type Tried = Result<(), TestCaseError>;

/// A command that PostgreSQL refuses is a bug, too.
fn refused(error: sqlx::Error) -> TestCaseError {
    TestCaseError::fail(format!("PostgreSQL refuses: {error}"))
}

/// Draws cases, each in a transaction that is rolled back.
pub(super) fn try_all<S>(
    db: PgPool,
    strategy: S,
    handle: &tokio::runtime::Handle,
    case: impl AsyncFn(&mut PgConnection, S::Value) -> Tried,
) where
    S: Strategy,
{
    let wanted = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    let config = Config {
        cases: wanted.unwrap_or(CASES),
        failure_persistence: None,
        max_shrink_iters: 4000,
        ..Config::default()
    };
    let mut runner = match wanted {
        Some(_) => TestRunner::new(config),
        None => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
    };
    let tried = runner.run(&strategy, |commands| {
        handle.block_on(async {
            let mut tx = db.begin().await.map_err(refused)?;
            let tried = case(&mut tx, commands).await;
            tx.rollback().await.map_err(refused)?;
            tried
        })
    });
    if let Err(error) = tried {
        panic!("{error}");
    }
}

/// The clock of a test stands still until it is moved.
pub(super) async fn install(db: &PgPool) -> DateTime<Utc> {
    crate::schema::install(db).await.unwrap();
    sqlx::raw_sql(
        "create or replace function workflow.now() returns timestamptz language plpgsql stable parallel safe as $$
         begin return timestamptz '2027-01-01T00:00:00Z' + (select moved_by from workflow.clock); end $$",
    )
    .execute(db)
    .await
    .unwrap();
    store::runs::now(db).await.unwrap()
}
