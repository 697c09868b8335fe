//! Storage and rows, held against each other by night: what nobody uses goes, what nothing accounts for is found, months become files.

use crate::world::{World, png, put};
use axum::http::StatusCode;
use flatrender_activities::storage::ObjectStorage;
use flatrender_api::worker::Upkeep;
use flatrender_engine::{Context, Failure, Workflow, testing::Stage, worker::Builder};
use flatrender_workflows::{
    contracts::{
        storage::{BlobHash, Shelf},
        upkeep::{ArchiveMonth, CompareShared, CompareShelf, RemoveObjects, RemovedObjects, UPKEEP_QUEUE},
    },
    definitions::{
        drain_deletions::{DrainDeletions, Drained},
        forget_old::{ForgetOld, Old},
        retire_months::RetireMonths,
        scan_orphans::{Difference, ScanOrphans},
    },
    models::{DEFAULT_TENANT, Role, Scope, file_mgr::purge, invariants, render::snapshot},
};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use sqlx::PgPool;
use std::time::Duration;
use uuid::Uuid;

fn tools(world: &World) -> Upkeep {
    Upkeep { storage: world.storage.clone(), db: world.db.clone(), held: Upkeep::HELD }
}

fn stage(world: &World) -> Stage {
    stage_with(world, tools(world))
}

fn stage_with(world: &World, tools: Upkeep) -> Stage {
    Stage::new(world.db.clone(), move |worker: Builder| {
        worker
            .workflow::<DrainDeletions>()
            .workflow::<Late>()
            .workflow::<ForgetOld>()
            .workflow::<ScanOrphans>()
            .workflow::<RetireMonths>()
            .queue(UPKEEP_QUEUE, 2)
            .handler::<RemoveObjects>(tools.clone())
            .handler::<CompareShelf>(tools.clone())
            .handler::<CompareShared>(tools.clone())
            .handler::<ArchiveMonth>(tools.clone())
    })
}

async fn purged(world: &World, colour: u8) -> BlobHash {
    let uploaded = world.upload("a.png", png([colour, 2, 3])).await;
    assert_eq!(uploaded.status, StatusCode::CREATED);
    let id: Uuid = uploaded.json()["id"].as_str().unwrap().parse().unwrap();
    let mut tx = Scope::platform(Role::Admin).begin(&world.db).await.unwrap();
    purge::purge(&mut tx, &[id]).await.unwrap();
    tx.commit().await.unwrap();
    let sql = "select b.sha256 from file_mgr.files f join file_mgr.blobs b on b.id = f.blob_id where f.id = $1";
    let hash: String = sqlx::query_scalar(sql).bind(id).fetch_one(&world.db).await.unwrap();
    hash.parse().unwrap()
}

fn shelf() -> Shelf {
    Shelf::Files { tenant_id: DEFAULT_TENANT }
}

async fn is_stored(world: &World, hash: &BlobHash) -> bool {
    world.storage.stat(&shelf(), hash).await.unwrap().is_some()
}

#[sqlx::test(migrations = "../migrations")]
async fn objects_go_after_the_commit_that_said_so_whatever_crashes(db: PgPool) {
    let world = World::new(db).await;
    let gone = [purged(&world, 1).await, purged(&world, 2).await];
    let kept = world.upload("kept.png", png([9, 9, 9])).await;
    let stored = world.stored_files();
    crate::crashes::later(&world, Duration::from_secs(3601)).await;
    let run = stage(&world).survives_a_crash_after_every_event(DrainDeletions {}).await.unwrap();
    assert_eq!(run.output_as(), Some(Drained { gone: 2, left: 0 }));
    assert_eq!(world.stored_files(), stored - 2);
    assert!(!is_stored(&world, &gone[0]).await && !is_stored(&world, &gone[1]).await);
    assert_eq!(world.count("file_mgr.deletion_queue where done_at is null").await, 0);
    let path = format!("/v1/files/{}", kept.json()["id"].as_str().unwrap());
    assert_eq!(world.get(&path).await.status, StatusCode::OK);
    let run = stage(&world).finish(DrainDeletions {}).await.unwrap();
    assert_eq!(run.output_as(), Some(Drained::default()), "again there is nothing to do");
    assert_eq!(invariants::check(&world.db, false).await.unwrap(), []);
}

/// Somebody who stalled with objects to remove, and goes on when others have long removed them and one is there again.
#[derive(Serialize, Deserialize)]
struct Late(RemoveObjects);

impl Workflow for Late {
    const NAME: &'static str = "late";
    type Output = RemovedObjects;

    async fn run(self, cx: &Context) -> Result<RemovedObjects, Failure> {
        cx.activity("remove", self.0).await
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn what_was_stored_again_is_not_removed_by_who_is_late(db: PgPool) {
    let world = World::new(db).await;
    let hash = purged(&world, 1).await;
    crate::crashes::later(&world, Duration::from_secs(3601)).await;
    stage(&world).finish(DrainDeletions {}).await.unwrap();
    assert!(!is_stored(&world, &hash).await);
    assert_eq!(world.upload("b.png", png([1, 2, 3])).await.status, StatusCode::CREATED);
    let asked = RemoveObjects { tenant_id: DEFAULT_TENANT, hashes: vec![hash.clone()] };
    let run = stage(&world).finish(Late(asked)).await.unwrap();
    assert_eq!(run.output_as(), Some(RemovedObjects::default()));
    assert!(is_stored(&world, &hash).await);
}

/// A store that is away loses nothing and keeps nothing from being used: it is tried later, later each time.
#[sqlx::test(migrations = "../migrations")]
async fn what_cannot_be_removed_is_tried_later_and_may_be_used_meanwhile(db: PgPool) {
    let world = World::new(db).await;
    purged(&world, 1).await;
    crate::crashes::later(&world, Duration::from_secs(3601)).await;
    let storage = world.folder.path().join("storage");
    std::fs::rename(&storage, world.folder.path().join("away")).unwrap();
    std::fs::write(&storage, "in the way").unwrap();
    let run = stage(&world).finish(DrainDeletions {}).await.unwrap();
    assert_eq!(run.output_as(), Some(Drained { gone: 0, left: 1 }));
    std::fs::remove_file(&storage).unwrap();
    std::fs::rename(world.folder.path().join("away"), &storage).unwrap();
    let waiting =
        "file_mgr.deletion_queue where attempts = 1 and last_error is not null and not_before > workflow.now()";
    assert_eq!(world.count(waiting).await, 1);
    assert_eq!(world.upload("b.png", png([1, 2, 3])).await.status, StatusCode::CREATED);
    assert_eq!(world.count("file_mgr.deletion_queue").await, 0);
}

#[sqlx::test(migrations = "../migrations")]
async fn the_scan_finds_what_nothing_accounts_for_and_what_is_missing(db: PgPool) {
    let world = World::new(db).await;
    // Stored by somebody who told nobody: not even that it is wanted.
    let untold = ObjectStorage::local(&world.folder.path().join("storage")).unwrap();
    let stranded = put(&untold, b"nobody knows of it").await;
    let lost = world.upload("lost.png", png([5, 5, 5])).await;
    let run = stage(&world).finish(ScanOrphans {}).await.unwrap();
    assert_eq!(
        run.output_as::<Vec<Difference>>(),
        Some(vec![]),
        "what is young may still be told of; templates are no orphans"
    );
    // A week passes: by the clock of the database, not of the files.
    crate::crashes::later(&world, Duration::from_secs(8 * 86_400)).await;
    let run = stage(&world).survives_a_crash_after_every_event(ScanOrphans {}).await.unwrap();
    let found: Vec<Difference> = run.output_as().expect("it succeeds");
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].tenant_id, found[0].queued), (DEFAULT_TENANT, 1));
    assert_eq!(found[0].report.orphans, std::slice::from_ref(&stranded.sha256));
    assert!(found[0].report.missing.is_empty());
    let by_parts = stage_with(&world, Upkeep { held: 0, ..tools(&world) });
    let again: Vec<Difference> = by_parts.finish(ScanOrphans {}).await.unwrap().output_as().expect("it succeeds");
    assert_eq!(again, [Difference { queued: 0, ..found[0].clone() }], "part by part it finds the same");

    let sql =
        "select b.sha256 from file_mgr.files f join file_mgr.blobs b on b.id = f.blob_id where f.name = 'lost.png'";
    let hash: String = sqlx::query_scalar(sql).fetch_one(&world.db).await.unwrap();
    assert_eq!(lost.status, StatusCode::CREATED);
    world.storage.remove(&shelf(), &hash.parse().unwrap()).await.unwrap();
    let later = put(&untold, b"nobody knows of that either").await;
    let run = stage(&world).survives_a_crash_after_every_event(ScanOrphans {}).await.unwrap();
    let failure = run.error.expect("it fails");
    assert_eq!((failure.code.as_str(), failure.retryable), ("storage.incomplete", false));
    let missing = serde_json::json!([{ "tenant_id": DEFAULT_TENANT, "sha256": hash }]);
    assert_eq!((&failure.details["missing_count"], &failure.details["missing"]), (&serde_json::json!(1), &missing));
    assert_eq!(by_parts.finish(ScanOrphans {}).await.unwrap().error, Some(failure));
    // What it found beside that is queued all the same.
    stage(&world).finish(DrainDeletions {}).await.unwrap();
    for orphan in [&stranded, &later] {
        assert!(!is_stored(&world, &orphan.sha256).await);
    }
    assert!(is_stored(&world, &world.package.sha256).await, "a template stays");
}

/// No file uses what templates are made of: without it every film of a template fails.
#[sqlx::test(migrations = "../migrations")]
async fn the_scan_misses_what_templates_are_made_of(db: PgPool) {
    let world = World::new(db).await;
    for lost in [&world.package.sha256, &world.preview.sha256] {
        world.storage.remove(&shelf(), lost).await.unwrap();
    }
    for stage in [stage(&world), stage_with(&world, Upkeep { held: 0, ..tools(&world) })] {
        let failure = stage.finish(ScanOrphans {}).await.unwrap().error.expect("it fails");
        let missing = (failure.code.as_str(), &failure.details["missing_count"]);
        assert_eq!(missing, ("storage.incomplete", &serde_json::json!(2)));
    }
}

/// The only copy of months that were dropped, and stills under addresses that are given away for ever, are no tenant's files.
#[sqlx::test(migrations = "../migrations")]
async fn the_scan_misses_stills_and_archives(db: PgPool) {
    let world = World::new(db).await;
    let body = futures::stream::iter([Ok(bytes::Bytes::from_static(b"a still"))]).boxed();
    let large = world.storage.put(&Shelf::Public, None, body, 100).await.unwrap().sha256;
    let (small, month) = (BlobHash::of(b"a small still"), BlobHash::of(b"a month"));
    let rows = format!(
        "insert into render.snapshots (tenant_id, cache_key, project_version_id, scene_id, frame, width, height, inputs_hash,
             renderer_version, public_url, small_url, size_bytes, sha256, source)
         values ('{DEFAULT_TENANT}', sha256('x'), gen_random_uuid(), gen_random_uuid(), 0, 2, 2, repeat('a', 64), 'x',
             'https://films.example/snap/{large}', 'https://films.example/snap/{small}', 7, '{large}', 'aerender');
         insert into platform.retired_months (name, series, detached_at, archived_at, rows, sha256)
         values ('render.node_health_logs_2020_01', 'render.node_health_logs', now(), now(), 1, '{month}')"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(rows)).execute(&world.db).await.unwrap();
    let run = stage(&world).survives_a_crash_after_every_event(ScanOrphans {}).await.unwrap();
    let failure = run.error.expect("it fails");
    let missing = serde_json::json!([{"shelf": "stills", "sha256": small}, {"shelf": "archives", "sha256": month}]);
    assert_eq!((failure.code.as_str(), &failure.details["missing"]), ("storage.incomplete", &missing));
}

/// However many rows share a still, a page of hashes is full unless it is the last.
#[sqlx::test(migrations = "../migrations")]
async fn stills_that_many_have_in_common_hide_no_others(db: PgPool) {
    let rows = format!(
        "insert into render.snapshots (tenant_id, cache_key, project_version_id, scene_id, frame, width, height, inputs_hash,
             renderer_version, public_url, small_url, size_bytes, sha256, source)
         select '{DEFAULT_TENANT}', sha256(n::text::bytea), gen_random_uuid(), gen_random_uuid(), 0, 2, 2, repeat('a', 64), 'x',
                'https://films.example/snap/x', 'https://films.example/snap/' || repeat('e', 64), 7,
                repeat(case n when 9 then 'f' else '0' end, 64), 'aerender' from generate_series(1, 9) n"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(rows)).execute(&db).await.unwrap();
    let mut tx = Scope::platform(Role::Admin).begin(&db).await.unwrap();
    let first = snapshot::used(&mut tx, None, 2).await.unwrap();
    assert_eq!(first, ["0".repeat(64), "e".repeat(64)]);
    let last: BlobHash = first[1].parse().unwrap();
    assert_eq!(snapshot::used(&mut tx, Some(&last), 2).await.unwrap(), ["f".repeat(64)]);
}

/// Rows, hash, and when it was dropped.
type Noted = (i64, String, Option<chrono::DateTime<chrono::Utc>>);

/// A month becomes a file before it goes: as many rows, the same hash on every attempt.
#[sqlx::test(migrations = "../migrations")]
async fn a_month_is_archived_before_it_is_dropped(db: PgPool) {
    let world = World::new(db).await;
    let rows = "update platform.time_series set archive = true where name = 'render.node_health_logs';
        insert into render.node_health_logs (recorded_at, node_id, epoch)
        select '2026-01-10Z'::timestamptz + n * interval '1 minute', gen_random_uuid(), 1 from generate_series(1, 500) n";
    sqlx::raw_sql(rows).execute(&world.db).await.unwrap();
    let at = "2026-06-15T02:10:00Z".parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    let run = stage(&world).survives_a_crash_after_every_event(RetireMonths { at: Some(at) }).await.unwrap();
    let done: Vec<String> = run.output_as().expect("it succeeds");
    let line = done.iter().find(|line| line.starts_with("archived render.node_health_logs_2026_01: 500 rows"));
    let hash = line.expect("it is archived").rsplit(' ').next().unwrap().to_owned();
    let note = "select rows, sha256, dropped_at from platform.retired_months
        where name = 'render.node_health_logs_2026_01' order by detached_at";
    let noted: Noted = sqlx::query_as(note).fetch_one(&world.db).await.unwrap();
    assert_eq!(noted, (500, hash.clone(), None));
    // It is the platform's: no tenant sees it among its files, pays for it or gets it.
    assert_eq!(world.count("file_mgr.files where name ~ 'node_health_logs' or purpose = 'archive'").await, 0);
    assert_eq!(world.count("file_mgr.quotas where used_bytes > 0").await, 0);
    let file = world.file_named(&hash);
    assert!(file.components().any(|part| part.as_os_str() == "archives"), "{}", file.display());
    let csv = std::fs::read(file).unwrap();
    assert_eq!(hex::encode(sha2::Sha256::digest(&csv)), hash);
    assert_eq!(csv.iter().filter(|b| **b == b'\n').count(), 501, "a header and a line each");
    // Not before its grace is over.
    let there = "pg_class where relname = 'node_health_logs_2026_01'";
    assert_eq!(world.count(there).await, 1);
    let late = at + chrono::Days::new(8);
    let run = stage(&world).finish(RetireMonths { at: Some(late) }).await.unwrap();
    let done: Vec<String> = run.output_as().expect("it succeeds");
    assert!(done.contains(&"dropped render.node_health_logs_2026_01".to_owned()), "{done:?}");
    assert_eq!(world.count(there).await, 0);
    let noted: Noted = sqlx::query_as(note).fetch_one(&world.db).await.unwrap();
    assert_eq!(noted, (500, hash.clone(), Some(late)), "what the file holds is known for ever");
    // Somebody comes with a row of that month: it is made, and retired, once more.
    let again = "select platform.ensure_month('render.node_health_logs', '2026-01-10Z')";
    sqlx::raw_sql(again).execute(&world.db).await.unwrap();
    let run = stage(&world).finish(RetireMonths { at: Some(late) }).await.unwrap();
    let done: Vec<String> = run.output_as().expect("it succeeds");
    assert!(done.iter().any(|line| line.starts_with("archived render.node_health_logs_2026_01: 0 rows")), "{done:?}");
    let all: Vec<Noted> = sqlx::query_as(note).fetch_all(&world.db).await.unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(all[0], (500, hash, Some(late)), "the first file is still known");
}

/// What was read long ago is forgotten, with counts of days that are over and events whose deliveries are gone; what is younger stays, and
/// nobody else removes an event.
#[sqlx::test(migrations = "../migrations")]
async fn messages_counts_and_events_are_forgotten_in_time(db: PgPool) {
    let world = World::new(db).await;
    let rows = format!(
        "insert into notification.notifications (tenant_id, user_id, category, template_code, title, dedupe_key, read_at, created_at)
         select '{DEFAULT_TENANT}', gen_random_uuid(), 'renders', 'x', 'x', n::text, workflow.now() - n * interval '100 days',
                workflow.now() - interval '400 days' from generate_series(1, 2) n;
         insert into notification.notifications (tenant_id, user_id, category, template_code, title, dedupe_key, created_at)
         values ('{DEFAULT_TENANT}', gen_random_uuid(), 'renders', 'x', 'x', 'unread', workflow.now() - interval '400 days');
         insert into notification.sms_counts (tenant_id, day, scope, what, sent)
         select '{DEFAULT_TENANT}', current_date - n, 'tenant', '', 1 from unnest(array[0, 1, 9]) n;
         insert into identity.tenant_webhook_events (tenant_id, type, data, occurred_at, source_event_id, created_at)
         select '{DEFAULT_TENANT}', 'render.completed', '{{}}', now() - n * interval '1 month', gen_random_uuid(), now() - n * interval '1 month'
         from unnest(array[0, 5, 9]) n"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(rows)).execute(&world.db).await.unwrap();
    let run = stage(&world).survives_a_crash_after_every_event(ForgetOld { what: Old::Messages }).await.unwrap();
    assert_eq!(run.output_as::<u64>(), Some(3));
    assert_eq!(world.count("notification.notifications").await, 2);
    assert_eq!(world.count("notification.sms_counts").await, 2);
    assert_eq!(world.count("identity.tenant_webhook_events").await, 2);
    let young = sqlx::query("delete from identity.tenant_webhook_events").execute(&world.db).await;
    assert_eq!(young.unwrap_err().as_database_error().unwrap().code().as_deref(), Some("23001"));
}

/// Of everything that has ended, one of each kind so many days ago: an upload with its piece and its room, two links, an event, purged files.
async fn ended(world: &World, days: u32, files: &[&BlobHash]) {
    let at = format!("workflow.now() - interval '{days} days'");
    let hashes: Vec<String> = files.iter().map(ToString::to_string).collect();
    let rows = format!(
        "with session as (
             insert into file_mgr.upload_sessions (tenant_id, protocol, name, total_bytes, offset_bytes, state, expires_at, cleared_at)
             values ('{DEFAULT_TENANT}', 'tus', 'a.bin', 5, 5, 'aborted', {at}, {at}) returning tenant_id, id)
         insert into file_mgr.upload_parts (tenant_id, session_id, part_no, size_bytes, sha256)
         select tenant_id, id, 1, 5, repeat('a', 64) from session;
         insert into file_mgr.quota_reservations (tenant_id, amount_bytes, purpose, state, expires_at)
         values ('{DEFAULT_TENANT}', 1, 'test:{days}', 'released', {at});
         insert into file_mgr.share_links (tenant_id, file_id, token_hash, expires_at, revoked_at)
         select tenant_id, id, sha256('expired {days}'), {at}, null::timestamptz from file_mgr.files where name = 'kept.png'
         union all
         select tenant_id, id, sha256('revoked {days}'), workflow.now() + interval '1 year', {at} from file_mgr.files where name = 'kept.png';
         insert into identity.payment_events (gateway_id, provider, event_id, tenant_id, type, signature_ok, raw_sha256, payload_enc, received_at,
             processed_at, outcome)
         select id, 'stripe', 'evt_{days}', tenant_id, 'charge', true, sha256('x'), 'x', {at}, {at}, 'ignored' from identity.payment_gateways;
         update file_mgr.files set updated_at = {at} where blob_id in (select id from file_mgr.blobs where sha256 = any ('{{{hashes}}}'))",
        hashes = hashes.join(",")
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(rows)).execute(&world.db).await.unwrap();
}

/// What has ended is kept for three months; a file that is gone is known for as long as something names it.
#[sqlx::test(migrations = "../migrations")]
async fn what_has_ended_is_forgotten_after_three_months(db: PgPool) {
    let world = World::new(db).await;
    assert_eq!(world.upload("kept.png", png([7, 7, 7])).await.status, StatusCode::CREATED);
    let (gone, named, young) = (purged(&world, 1).await, purged(&world, 2).await, purged(&world, 3).await);
    let rows = format!(
        "insert into identity.payment_gateways (tenant_id, provider, mode, settings_enc) values ('{DEFAULT_TENANT}', 'stripe', 'test', 'x');
         insert into identity.tenant_branding (tenant_id, product_name, logo_file_id)
         select f.tenant_id, 'Acme', f.id from file_mgr.files f join file_mgr.blobs b on b.id = f.blob_id where b.sha256 = '{named}'
         on conflict (tenant_id) do update set logo_file_id = excluded.logo_file_id;
         insert into identity.storage_samples (tenant_id, hour, bytes)
         select '{DEFAULT_TENANT}', date_trunc('hour', workflow.now(), 'UTC') - n * interval '24 hours', n from unnest(array[300, 200, 100, 10]) n"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(rows)).execute(&world.db).await.unwrap();
    ended(&world, 91, &[&gone, &named]).await;
    ended(&world, 89, &[&young]).await;
    for what in [Old::Auth, Old::Requests, Old::Messages] {
        stage(&world).survives_a_crash_after_every_event(ForgetOld { what }).await.unwrap();
    }
    assert_eq!(world.count("file_mgr.upload_sessions").await, 1);
    assert_eq!(world.count("file_mgr.upload_parts").await, 1);
    assert_eq!(world.count("file_mgr.quota_reservations where purpose like 'test:%'").await, 1);
    assert_eq!(world.count("file_mgr.share_links").await, 2);
    assert_eq!(world.count("identity.payment_events where event_id = 'evt_89'").await, 1);
    assert_eq!(world.count("identity.payment_events").await, 1);
    assert_eq!(world.count("file_mgr.files where state = 'purged'").await, 2, "the young one, and the one with a name");
    assert_eq!(world.count("file_mgr.files where name = 'kept.png'").await, 1);
    let samples = "select bytes from identity.storage_samples order by bytes";
    let samples: Vec<i64> = sqlx::query_scalar(samples).fetch_all(&world.db).await.unwrap();
    assert_eq!(samples, [10, 100], "the newest of before tells of the hours after it");
    assert_eq!(invariants::check(&world.db, false).await.unwrap(), []);
}
