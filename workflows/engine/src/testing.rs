//! For tests of definitions. In memory, without a database: closures in place of the world, ordeals, simulations by seed. On a
//! real database: a clock that the test moves, ordeals of one line each. And histories: as text for snapshots, as files, and
//! through the code of today.
//!
//! [`Rehearsal`] takes microseconds a run; [`Stage`] proves that steps and their SQL do what is said of them.
//!
//! ```ignore
//! let stage = Stage::new(db, |w| w.workflow::<Order>().handler::<Charge>(bank.clone()));
//! let run = stage.finish(Order { id: 7 }).await?;
//! stage.survives_a_crash_after_every_event(Order { id: 8 }).await?;
//! stage.settles_whatever_fails(|| Order { id: 9 }).await?;
//! std::fs::write("histories/order.json", serde_json::to_vec_pretty(&stage.history(run.id).await?)?)?;
//! ```
//! and in the build of every later version:
//! ```ignore
//! replay::<Order>(&serde_json::from_slice(&std::fs::read("histories/order.json")?)?)?;
//! ```

mod chance;
mod corpus;
mod deeds;
mod history;
mod memory;
mod rehearsal;
mod stage;

pub use corpus::Corpus;
pub(crate) use deeds::{Deed, Deeds};
pub use history::{Asked, History, Mismatch, history, replay};
pub use rehearsal::{Call, Flaw, Found, Mischief, Played, Rehearsal, seeds};
pub use stage::{Failed, Stage};

use sqlx::PgPool;
use std::time::Duration;

/// Moves the engine's clock, for all sessions at once. Leases end by the same clock: what is leased at the moment counts as
/// lost when it moves further than their length.
///
/// # Errors
/// The database cannot be reached.
pub async fn move_clock(pool: &PgPool, by: Duration) -> sqlx::Result<()> {
    sqlx::query("update workflow.clock set moved_by = moved_by + make_interval(secs => $1)")
        .bind(by.as_secs_f64())
        .execute(pool)
        .await
        .map(drop)
}

/// Moves the clock to the moment at which the next sleeper wakes, if there is nothing else to do. False when there is.
///
/// # Errors
/// The database cannot be reached.
pub async fn skip_to_next_timer(pool: &PgPool) -> sqlx::Result<bool> {
    let moved = sqlx::query(
        "update workflow.clock set moved_by = moved_by + (
             select greatest(min(run_at) - workflow.now(), interval '0') from workflow.tasks
             where state = 'waiting' and run_at < 'infinity')
         where not exists (select from workflow.tasks where state <> 'waiting')
           and exists (select from workflow.tasks where state = 'waiting' and run_at < 'infinity')",
    );
    Ok(moved.execute(pool).await?.rows_affected() > 0)
}
