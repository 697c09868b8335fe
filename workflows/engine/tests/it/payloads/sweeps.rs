//! What nobody names any more goes from the store, and nothing else.

use super::{Vault, Whisper, all, large, named, operations, text, world_with};
use flatrender_engine::operations::{By, Fork, Retention};
use sqlx::PgPool;
use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};
use uuid::Uuid;

const DAY: Duration = Duration::from_secs(86_400);

#[sqlx::test(migrations = false)]
async fn a_crash_between_store_and_record_costs_a_value_that_is_swept(db: PgPool) {
    let vault = Vault::default();
    let payloads = vault.payloads();
    let mut world = world_with(db, &payloads).await;
    let run_id = world.start(Whisper { text: large(), deeper: 1 }).await;
    // The value of the step is recorded; that of the memo is in the store, and its worker goes before it knows.
    vault.stuck.store(2, Ordering::SeqCst);
    world.worker(all(&payloads));
    world.until(1, "select count(*) from workflow.steps where key = 'step'").await;
    while vault.stuck.load(Ordering::SeqCst) > 0 {
        tokio::task::yield_now().await;
    }
    world.stop().await;
    let before = vault.ids();
    assert_eq!((before.len(), named(&world).await.len()), (3, 2));

    // While it might still be named, it stays.
    assert_eq!(operations(&world).sweep_payloads(DAY).await.unwrap(), 0);
    let _ = world.signal(run_id, "heard", None, "b").await;
    world.worker(all(&payloads));
    assert_eq!(text(&world.end(run_id).await), large() + "b");
    // What the crash left behind, and the input of the activity, which is over.
    assert_eq!(operations(&world).sweep_payloads(Duration::ZERO).await.unwrap(), 2);
    assert_eq!(named(&world).await, vault.ids());
    assert!(!vault.ids().is_superset(&before));
    assert_eq!(operations(&world).sweep_payloads(Duration::ZERO).await.unwrap(), 0);
}

#[sqlx::test(migrations = false)]
async fn what_went_with_a_partition_is_swept_and_what_a_fork_has_of_it_stays(db: PgPool) {
    let vault = Vault::default();
    let payloads = vault.payloads();
    let mut world = world_with(db, &payloads).await;
    world.worker(all(&payloads));
    let old = world.start(Whisper { text: large(), deeper: 1 }).await;
    world.until(1, "select count(*) from workflow.steps where key = 'activity'").await;
    let _ = world.signal(old, "heard", None, "b").await;
    world.end(old).await;
    world.move_clock(100 * DAY).await;
    // It has the records of the old run, up to its activity.
    let mut tx = world.db.begin().await.unwrap();
    let fork = operations(&world).fork(&mut tx, &By::new("ada"), old, &Fork::from_step("activity")).await.unwrap();
    tx.commit().await.unwrap();
    world.client.announce();
    world.until(2, "select count(*) from workflow.steps where key = 'activity'").await;

    let before = vault.ids();
    let retention = Retention::forever().runs(DAY);
    operations(&world).retire(&By::new("ada"), &retention).await.unwrap();
    assert!(world.client.run(old).await.unwrap().is_none());
    assert!(operations(&world).sweep_payloads(Duration::ZERO).await.unwrap() > 0);
    assert_eq!(named(&world).await, vault.ids());
    assert!(before.is_superset(&vault.ids()) && vault.ids().len() >= 3);
    let _ = world.signal(fork.run_id, "heard", None, "c").await;
    assert_eq!(text(&world.end(fork.run_id).await), large() + "c");
}

#[sqlx::test(migrations = false)]
async fn a_worker_sweeps_whenever_it_has_dropped_something(db: PgPool) {
    let vault = Vault::default();
    let payloads = vault.payloads();
    let mut world = world_with(db, &payloads).await;
    world.worker(all(&payloads));
    world.finish(Whisper { text: large(), deeper: 0 }).await;
    world.stop().await;
    let young = vault.ids();
    let long_ago = uuid::Timestamp::from_unix(uuid::NoContext, 1_700_000_000, 0);
    let foreign = Uuid::new_v4();
    for id in [Uuid::new_v7(long_ago), foreign] {
        vault.kept.lock().unwrap().insert(id, b"left behind".to_vec());
    }
    world.move_clock(100 * DAY).await;
    world.worker(|w| all(&payloads)(w).retention(Retention::forever().runs(DAY)));
    world.until(0, "select count(*) from workflow.runs").await;
    while vault.ids().len() > 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // What nobody can have waited for is gone; what may be waited for is not, and what is not the engine's neither.
    assert_eq!(vault.ids(), &young | &BTreeSet::from([foreign]));
}
