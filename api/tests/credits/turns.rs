//! Who writes into the audit of a tenant takes turns, and so holds nothing up but what waits for the turn.

use crate::world::{Answer, World};
use flatrender_workflows::models::{
    DEFAULT_TENANT,
    identity::audit::{self, Entry},
};
use std::time::{Duration, Instant};

/// What `deed` comes to while somebody else has the rows that `held` locks, and writes into the audit as the last thing they do: it waits
/// for the rows before it takes its turn, else the two would wait for each other.
pub async fn beside_another(world: &World, held: &'static str, deed: impl Future<Output = Answer>) -> Answer {
    let mut other = world.db.begin().await.unwrap();
    sqlx::query(held).execute(&mut *other).await.unwrap();
    let others = async {
        let began = Instant::now();
        while world.count("pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'").await == 0
        {
            assert!(began.elapsed() < Duration::from_secs(20), "nobody waits");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let entry = Entry {
            tenant_id: DEFAULT_TENANT,
            actor: "cli",
            action: "domain.add",
            object: "domain",
            reason: None,
            before: None,
            after: None,
            ip: None,
            request_id: None,
        };
        audit::record(&mut other, &entry).await.unwrap();
        other.commit().await.unwrap();
    };
    tokio::join!(deed, others).0
}
