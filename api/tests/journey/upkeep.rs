//! An upload, a clean-up, the retirement of a month, a roll-up and the removal of objects, whose worker is killed at each thing that
//! they write down.

use crate::{
    gate::{GATE, Mortal, NO_GATE, kill_at_each, quiet_schedules},
    platform::Platform,
};
use bytes::Bytes;
use chrono::{DateTime, Days, NaiveDate, Utc};
use flatrender_engine::{Client, Workflow};
use flatrender_workflows::{
    contracts::storage::{BlobHash, BlobStore as _, Shelf},
    definitions::{
        clean_up::CleanUp, drain_deletions::DrainDeletions, retire_months::RetireMonths, roll_up_usage::RollUpUsage,
    },
    models::{DEFAULT_TENANT, invariants},
};
use futures::StreamExt as _;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use uuid::Uuid;

/// Files that the rule removes: two batches of them.
const FILES: i64 = 503;
/// How many of them have an object.
const OBJECTS: usize = 20;
/// Requests on each of the days before today.
const CALLS: i64 = 7;
async fn run(db: &PgPool, sql: impl Into<String>) {
    sqlx::raw_sql(AssertSqlSafe(sql.into())).execute(db).await.unwrap();
}

async fn count(db: &PgPool, of: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(format!("select count(*) from {of}"))).fetch_one(db).await.unwrap()
}

/// Starts a run whose writer will be killed.
async fn gated<W: Workflow>(db: &PgPool, workflow: W) -> Uuid {
    let mut tx = db.begin().await.unwrap();
    let id = Client::new(db.clone()).start(&mut tx, DEFAULT_TENANT, None, workflow).await.unwrap().run_id;
    sqlx::query("insert into public.gated values ($1)").bind(id).execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
    id
}

impl Mortal for Platform {
    fn start_worker(&mut self) {
        Self::start_worker(self);
    }

    fn kill_worker(&mut self) {
        Self::kill_worker(self);
    }
}

/// What such a run ended with.
async fn output(db: &PgPool, id: Uuid) -> Value {
    let sql = "select state::text, output, error from workflow.runs where id = $1";
    let (state, output, error): (String, Option<Value>, Option<Value>) =
        sqlx::query_as(sql).bind(id).fetch_one(db).await.unwrap();
    assert_eq!(state, "succeeded", "{error:?}");
    output.unwrap_or_default()
}

/// Uploads a picture by tus in one request and gives the upload's id.
async fn upload(platform: &Platform) -> Uuid {
    let mut picture = std::io::Cursor::new(vec![]);
    image::RgbImage::from_pixel(40, 30, image::Rgb([9, 8, 7])).write_to(&mut picture, image::ImageFormat::Png).unwrap();
    let bytes = picture.into_inner();
    let asked = platform.http.post(format!("{}/v1/uploads", platform.url)).bearer_auth(platform.key());
    let asked = asked
        .header("tus-resumable", "1.0.0")
        .header("upload-length", bytes.len())
        // `killed.png`
        .header("upload-metadata", "filename a2lsbGVkLnBuZw==")
        .header("content-type", "application/offset+octet-stream");
    let answer = asked.body(bytes).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    answer.headers()["location"].to_str().unwrap().rsplit('/').next().unwrap().parse().unwrap()
}

fn shelf() -> Shelf {
    Shelf::Files { tenant_id: DEFAULT_TENANT }
}

/// Files in the trash for two days, none with the content of another; the first have an object each. And one that is no one's to remove.
async fn trash(platform: &Platform) -> (Vec<BlobHash>, BlobHash) {
    let storage = platform.storage();
    let mut stored = vec![];
    for n in 0..=OBJECTS {
        let content = Bytes::from(n.to_string());
        let body = futures::stream::once(async move { Ok(content) }).boxed();
        stored.push(storage.put(&shelf(), None, body, u64::MAX).await.unwrap().sha256);
    }
    let kept = stored.remove(0);
    run(
        &platform.db,
        format!(
            "insert into file_mgr.blobs (id, tenant_id, sha256, size_bytes)
             select gen_random_uuid(), '{DEFAULT_TENANT}', encode(sha256(n::text::bytea), 'hex'), case n when 0 then 10000000 else 10 end
             from generate_series(0, {FILES}) n;
             insert into file_mgr.files (tenant_id, blob_id, name, purpose, kind, mime_detected, state, trashed_at)
             select tenant_id, id, left(sha256, 8), 'asset', 'image', 'image/png', 'trashed', workflow.now() - interval '2 days'
             from file_mgr.blobs where size_bytes = 10;
             insert into file_mgr.files (tenant_id, blob_id, name, purpose, kind, mime_detected)
             select tenant_id, id, 'kept', 'asset', 'image', 'image/png' from file_mgr.blobs where size_bytes = 10000000"
        ),
    )
    .await;
    (stored, kept)
}

/// A rule about the trash, made by a key that may.
async fn rule(platform: &Platform) -> Uuid {
    let key = platform.admin_key();
    let body = json!({"name": "old trash", "target": "trash", "older_than_seconds": 86_400, "cron": "30 3 * * *", "dry_run": false});
    let asked = platform.http.post(format!("{}/v1/cleanup-schedules", platform.url)).bearer_auth(key).json(&body);
    let made: Value = asked.send().await.unwrap().json().await.unwrap();
    made["id"].as_str().unwrap_or_else(|| panic!("{made}")).parse().unwrap()
}

/// Requests on the days before today, the first of which is counted and final, and most of the storage used by somebody who is told so.
async fn usage(db: &PgPool, today: NaiveDate) {
    let days = format!("date '{today}' - n");
    run(
        db,
        format!(
            "insert into identity.tenant_api_request_logs (at, tenant_id, method, route, status, latency_us, bytes_in, bytes_out, request_id)
             select ({days})::timestamp at time zone 'UTC' + m * interval '1 hour', '{DEFAULT_TENANT}', 'GET', '/', 200, 1, 1, 1, 'r'
             from generate_series(1, 5) n, generate_series(1, {CALLS}) m;
             insert into identity.tenant_usage_daily (tenant_id, day, metric, quantity, final)
             select '{DEFAULT_TENANT}', {days}, metric, {CALLS}, true from generate_series(5, 5) n, unnest(array['api_calls', 'egress_bytes']) metric;
             insert into identity.users (id, tenant_id, email, status) values ('{OWNER}', '{DEFAULT_TENANT}', 'ada@example.com', 'active');
             insert into identity.role_bindings (tenant_id, user_id, role) values ('{DEFAULT_TENANT}', '{OWNER}', 'owner');
             update file_mgr.quotas set limit_bytes = used_bytes * 100 / 90 where owner_id is null"
        ),
    )
    .await;
}
const OWNER: Uuid = Uuid::from_u128(17);

/// P14, S98, S99, P23: killed at every step, each comes to the end it has undisturbed.
#[tokio::test(flavor = "multi_thread")]
async fn upkeep_whose_worker_is_killed_at_each_step_counts_right() {
    let mut platform = Platform::without_nodes(0).await;
    let db = platform.db.clone();
    quiet_schedules(&db).await;
    platform.kill_worker();
    run(&db, GATE).await;
    let (objects, kept) = trash(&platform).await;
    let rule_id = rule(&platform).await;
    let upload = upload(&platform).await;
    run(&db, "insert into public.gated select id from workflow.runs where kind = 'finish_upload'").await;
    run(
        &db,
        "update platform.time_series set archive = true where name = 'render.node_health_logs';
         insert into render.node_health_logs (recorded_at, node_id, epoch)
         select '2026-01-10Z'::timestamptz + n * interval '1 minute', gen_random_uuid(), 1 from generate_series(1, 500) n",
    )
    .await;
    let today = Utc::now().date_naive();
    usage(&db, today).await;
    let at: DateTime<Utc> = "2026-06-15T02:10:00Z".parse().unwrap();
    let clean_up = gated(&db, CleanUp { rule_id, run_id: None }).await;
    let retire = gated(&db, RetireMonths { at: Some(at) }).await;
    let roll_up = gated(&db, RollUpUsage { at: Some(Utc::now()) }).await;

    // A day is counted like another: two of them are enough.
    let alike = "insert into public.let_through select abs(hashtext($1::uuid::text || 'count ' || ($2::date - n)) % 1000000000) from generate_series(0, 2) n";
    sqlx::query(alike).bind(roll_up).bind(today).execute(&db).await.unwrap();
    let kills = kill_at_each(&mut platform, &db).await;
    assert!(kills.len() >= 4 + 5 + 6 + 4, "{} places", kills.len());
    assert!(kills.values().all(|times| *times >= 2), "{kills:?}");

    // The clean-up.
    let told = output(&db, clean_up).await;
    let expected = json!({"state": "done", "planned": FILES, "deleted": FILES, "bytes": 10 * FILES, "skipped": 0});
    assert_eq!(told, expected);
    assert_eq!(count(&db, "file_mgr.cleanup_runs").await, 1);
    assert_eq!(count(&db, "file_mgr.files where state = 'purged'").await, FILES);
    assert_eq!(count(&db, "file_mgr.deletion_queue").await, FILES);
    assert_eq!(count(&db, "identity.audit_log where action = 'cleanup.run'").await, 1);
    // The upload.
    let became =
        "file_mgr.files f join file_mgr.upload_sessions u on u.file_id = f.id join file_mgr.blobs b on b.id = f.blob_id
        where u.state = 'completed' and b.refcount = 1 and f.name = 'killed.png'";
    assert_eq!(count(&db, became).await, 1, "{upload}");
    assert_eq!(count(&db, "file_mgr.files where name = 'killed.png'").await, 1);
    assert_eq!(count(&db, "file_mgr.quotas where reserved_bytes <> 0").await, 0);
    // The month.
    let told = output(&db, retire).await;
    assert!(told.to_string().contains("archived render.node_health_logs_2026_01: 500 rows"), "{told}");
    let archived = "platform.retired_months where name = 'render.node_health_logs_2026_01' and rows = 500";
    assert_eq!(count(&db, archived).await, 1);
    assert_eq!(count(&db, "file_mgr.files where purpose = 'archive'").await, 0, "it is nobody's file");
    // The days: none is missing, none counts twice, those that are over are final.
    output(&db, roll_up).await;
    let days: Vec<(NaiveDate, i64, bool)> = sqlx::query_as(
        "select day, quantity, final from identity.tenant_usage_daily where metric = 'api_calls' and day < $1 order by day",
    )
    .bind(today)
    .fetch_all(&db)
    .await
    .unwrap();
    let expected: Vec<_> = (1..=5).rev().map(|ago| (today - Days::new(ago), CALLS, ago > 3)).collect();
    assert_eq!(days, expected);
    // Told by a run of its own, which may still be under way.
    assert!(count(&db, "notification.notifications where template_code = 'usage.threshold'").await <= 1, "told once");

    // An hour later the objects go, a week later the month.
    run(&db, "update file_mgr.deletion_queue set not_before = workflow.now()").await;
    platform.kill_worker();
    let drain = gated(&db, DrainDeletions {}).await;
    let drop = gated(&db, RetireMonths { at: Some(at + Days::new(8)) }).await;
    let kills = kill_at_each(&mut platform, &db).await;
    assert!(kills.len() >= 6 + 3, "{} places", kills.len());
    // What a killed worker had removed is gone for the next one as well.
    assert_eq!(output(&db, drain).await, json!({"gone": FILES, "left": 0}));
    assert_eq!(count(&db, "file_mgr.deletion_queue where done_at is null").await, 0);
    let storage = platform.storage();
    for hash in &objects {
        assert!(storage.stat(&shelf(), hash).await.unwrap().is_none(), "{hash}");
    }
    assert!(storage.stat(&shelf(), &kept).await.unwrap().is_some());
    let told = output(&db, drop).await;
    assert!(told.to_string().contains("dropped render.node_health_logs_2026_01"), "{told}");
    assert_eq!(count(&db, "pg_class where relname = 'node_health_logs_2026_01'").await, 0);
    assert_eq!(count(&db, "workflow.tasks t join public.gated g on g.run_id = t.run_id").await, 0);
    run(&db, NO_GATE).await;
    assert_eq!(invariants::check(&db, true).await.unwrap(), []);
    platform.stop().await;
}
