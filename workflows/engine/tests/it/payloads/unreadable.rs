//! Values that cannot be read: the store is away, they are not what they were, or whoever reads has no key.

use super::{Echo, LONG, Turner, Vault, Whisper, all, large, operations, text, with, world_with};
use flatrender_engine::{
    Client, JobOptions, Payloads,
    client::Error,
    operations::{By, Fork},
    schedules::{Schedules, Terms},
    testing,
};
use serde_json::json;
use sqlx::PgPool;
use std::sync::atomic::Ordering;
use uuid::Uuid;

#[sqlx::test(migrations = false)]
async fn a_payload_that_is_not_what_it_was_parks_the_run_and_is_never_handed_out(db: PgPool) {
    let vault = Vault::default();
    let payloads = vault.payloads();
    let mut world = world_with(db, &payloads).await;
    world.worker(all(&payloads));
    let run_id = world.start(Whisper { text: large(), deeper: 1 }).await;
    world.until(1, "select count(*) from workflow.steps where key = 'activity'").await;
    world.stop().await;

    vault.spoil();
    // People see that there is something, and not what.
    assert!(world.client.run(run_id).await.unwrap().unwrap().input["$blob"]["sha256"].is_string());
    let reading = testing::history(&world.client, run_id).await;
    assert!(matches!(&reading, Err(Error::Payload(f)) if f.code == "workflow.payload_corrupt"), "{reading:?}");
    let _ = world.signal(run_id, "heard", None, "b").await;
    world.worker(all(&payloads));
    let corrupt = ("unreadable".to_owned(), "workflow.payload_corrupt".to_owned());
    assert_eq!(world.parked(run_id).await, corrupt);
    // Only the input is whole: what is recorded is not.
    vault.spoil();
    let sql = "select (input #>> '{$blob,id}')::uuid from workflow.runs";
    let input: Uuid = sqlx::query_scalar(sql).fetch_one(&world.db).await.unwrap();
    let spoil_records = || {
        let mut kept = vault.kept.lock().unwrap();
        kept.iter_mut().filter(|(id, _)| **id != input).for_each(|(_, bytes)| bytes[5] ^= 1);
    };
    spoil_records();
    assert!(world.resume(run_id).await);
    assert_eq!(world.parked(run_id).await, corrupt);

    spoil_records();
    assert!(world.resume(run_id).await);
    assert_eq!(text(&world.end(run_id).await), large() + "b");
    vault.spoil();
    let reading = world.client.finished(run_id, LONG).await;
    assert!(matches!(&reading, Err(Error::Payload(f)) if f.code == "workflow.payload_corrupt"), "{reading:?}");
}

#[sqlx::test(migrations = false)]
async fn a_store_that_is_away_is_waited_for(db: PgPool) {
    let vault = Vault::default();
    let payloads = vault.payloads();
    let mut world = world_with(db, &payloads).await;
    vault.away.store(2, Ordering::SeqCst);
    let run_id = world.start(Whisper { text: large(), deeper: 1 }).await;
    let _ = world.signal(run_id, "heard", None, "b").await;
    vault.away.store(6, Ordering::SeqCst);
    world.worker(all(&payloads));
    assert_eq!(text(&world.end(run_id).await), large() + "b");
    assert_eq!(vault.away.load(Ordering::SeqCst), 0);
}

#[sqlx::test(migrations = false)]
async fn a_client_says_that_the_store_is_away_and_nothing_is_begun(db: PgPool) {
    let vault = Vault::default();
    let world = world_with(db, &vault.payloads()).await;
    vault.away.store(1000, Ordering::SeqCst);
    let mut tx = world.db.begin().await.unwrap();
    let whisper = || Whisper { text: large(), deeper: 0 };
    let away = |error: Error| match error {
        Error::Payload(failure) => (failure.code, failure.retryable),
        other => panic!("{other:?}"),
    };
    let expected = ("workflow.payload_unreachable".to_owned(), true);
    assert_eq!(away(world.client.start(&mut tx, world.tenant, None, whisper()).await.unwrap_err()), expected);
    assert_eq!(away(world.client.launch(world.tenant, whisper()).await.unwrap_err()), expected);
    // The transaction is as good as before.
    world.client.start(&mut tx, world.tenant, None, Whisper { text: "small".to_owned(), deeper: 0 }).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(world.count("select count(*) from workflow.runs").await, 1);
}

#[sqlx::test(migrations = false)]
async fn a_worker_without_the_store_parks_what_it_cannot_read(db: PgPool) {
    let vault = Vault::default();
    let mut world = world_with(db, &vault.payloads()).await;
    world.worker(all(&Payloads::inline()));
    let run_id = world.start(Whisper { text: large(), deeper: 0 }).await;
    assert_eq!(world.parked(run_id).await, ("unreadable".to_owned(), "workflow.payload_unknown".to_owned()));
    world.stop().await;
    world.worker(all(&vault.payloads()));
    assert!(world.resume(run_id).await);
    assert_eq!(text(&world.end(run_id).await), large());
}

#[sqlx::test(migrations = false)]
async fn nothing_of_a_sealed_value_is_in_the_database_and_old_keys_still_open(db: PgPool) {
    const CANARY: &str = "canary-7f3a";
    let vault = Vault::default();
    let sealed = |newest, known| vault.payloads().sealed_by(Turner { newest, known });
    let old = sealed("k1", &["k1"]);
    let mut world = world_with(db, &old).await;
    world.worker(all(&old));
    let done = world.start(Whisper { text: CANARY.to_owned(), deeper: 1 }).await;
    let _ = world.signal(done, "heard", None, CANARY).await;
    assert_eq!(text(&world.end(done).await), format!("{CANARY}c"));
    let large = CANARY.repeat(50_000);
    let open = world.start(Whisper { text: large.clone(), deeper: 1 }).await;
    world.until(2, "select count(*) from workflow.steps where key = 'activity'").await;
    let whisper = || Whisper { text: CANARY.to_owned(), deeper: 0 };
    let terms = Terms::of("nightly", "0 3 * * *", &whisper()).unwrap();
    let mut tx = world.db.begin().await.unwrap();
    Schedules::new(world.client.clone()).create(&mut tx, world.tenant, &terms).await.unwrap();
    let changes = Fork::from_step("step").input::<Whisper>(json!(whisper())).unwrap();
    operations(&world).fork(&mut tx, &By::new("ada"), done, &changes).await.unwrap();
    world.client.enqueue(&mut tx, world.tenant, Echo(CANARY.to_owned()), &JobOptions::default()).await.unwrap();
    tx.commit().await.unwrap();
    world.until(1, "select count(*) from workflow.finished_jobs").await;
    world.stop().await;

    let sql = "select c.relname::text from pg_class c where relnamespace = 'workflow'::regnamespace and relkind in ('r', 'p')";
    let tables: Vec<String> = sqlx::query_scalar(sql).fetch_all(&world.db).await.unwrap();
    assert!(tables.iter().any(|table| table == "schedules"), "{tables:?}");
    for table in tables {
        let sql = format!("select count(*) from workflow.{table} t where t::text like '%{CANARY}%'");
        let found: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&world.db).await.unwrap();
        assert_eq!(found, 0, "{table}");
    }
    let bare = |bytes: &Vec<u8>| bytes.windows(CANARY.len()).any(|part| part == CANARY.as_bytes());
    assert!(!vault.kept.lock().unwrap().values().any(bare));

    // Another key from now on: what was sealed with the old one still opens.
    let new = sealed("k2", &["k1", "k2"]);
    world = with(world, &new);
    assert_eq!(text(&world.client.run(done).await.unwrap().unwrap()), format!("{CANARY}c"));
    world.worker(all(&new));
    let _ = world.signal(open, "heard", None, CANARY).await;
    assert_eq!(text(&world.end(open).await), large + "c");
    let keys =
        "select count(distinct coalesce(output #>> '{$sealed,key}', output #>> '{$blob,key}')) from workflow.runs";
    assert_eq!(world.count(keys).await, 2);
    // Without the old key they do not.
    let code = async |payloads: &Payloads| {
        let client = Client::new(world.db.clone()).payloads(payloads.clone());
        match client.finished(done, LONG).await {
            Err(Error::Payload(failure)) => failure.code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code(&sealed("k2", &["k2"])).await, "test.no_key");
    assert_eq!(code(&Payloads::inline()).await, "workflow.payload_unknown");
}
