//! How long the pages of the dashboard take over many runs: a measurement, not a test. Fills a database, so it takes minutes and gigabytes.

use crate::world::{World, request};
use axum::{
    body::Body,
    http::{Method, StatusCode},
};
use flatrender_engine::{Client, schedules::Schedules};
use flatrender_workflows::{definitions::schedules, models::DEFAULT_TENANT};
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool, postgres::PgPoolOptions};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Runs that are over, and runs that are not, unless `FLATRENDER_RUNS` says how many are over: then a tenth of it is not.
const OVER: i64 = 10_000_000;
/// Rows that one statement makes, and how many statements there are at a time.
const PIECE: i64 = 250_000;
const HANDS: usize = 2;
/// How often each page is asked for, after once that is not counted.
const ROUNDS: usize = 40;
/// What a page may take, in milliseconds, 95 times of 100.
const AIM: f64 = 300.0;

/// Runs of two weeks that are over, every fiftieth of them with an error of one of 300 causes, of ten kinds and sixty tenants. The first
/// tenant has half of them.
const FINISHED: &str = "
    insert into workflow.runs (id, tenant_id, kind, version, business_key, state, input, output, error, error_fingerprint, created_at, finished_at)
    select workflow.new_run_id(at), tenant, kind, 1, kind || ':' || n, case when error is null then 'succeeded' else 'failed' end,
           jsonb_build_object('n', n, 'to', 'somebody@example.com', 'text', repeat('x', 100)),
           case when error is null then '{\"done\": true}'::jsonb end, error, case when error is not null then workflow.fingerprint(error) end, at, at + interval '40 s'
    from (select n, workflow.now() - (n % 1209600) * interval '1 s' - n * interval '1 us' as at,
                 case when n % 2 = 0 then $3 else tenants[1 + n / 2 % 59] end as tenant,
                 (array['render_video', 'scene_snapshot', 'notify', 'deliver', 'webhook', 'payment', 'clean_up', 'finish_upload', 'derive_film', 'refund'])[1 + n / 3 % 10] as kind,
                 case when n % 50 = 7 then jsonb_build_object('code', 'cause.' || (n / 50 % 300), 'message', 'it was refused by host ' || n, 'retryable', true) end as error
          from generate_series($1::bigint, $2::bigint) n, (select $4::uuid[] as tenants) t) s";
/// Runs of the last hour that wait for their turn, and one activity of each tenth.
const QUEUED: &str = "
    with fresh as (
        insert into workflow.runs (id, tenant_id, kind, version, state, input, created_at)
        select workflow.new_run_id(at), case when n % 2 = 0 then $3 else tenants[1 + n / 2 % 59] end, 'render_video', 1, 'running',
               jsonb_build_object('n', n), at
        from (select n, workflow.now() - (n % 3600) * interval '1 s' - n * interval '1 us' as at, $4::uuid[] as tenants
              from generate_series($1::bigint, $2::bigint) n) s
        returning id, tenant_id, created_at
    ), tasks as (
        insert into workflow.tasks (kind, run_id, tenant_id, step_key, queue, activity, priority, run_at, max_failures, max_losses,
                                    backoff_base_seconds, backoff_cap_seconds, lease_seconds, start_to_close_seconds)
        select 'run', id, tenant_id, '', 'workflows', 'render_video.v1', 0, created_at, 1, 20, 0, 0, 30, 1e9 from fresh
    )
    insert into workflow.tasks (kind, run_id, tenant_id, step_key, queue, activity, input, priority, run_at, max_failures, max_losses,
                                backoff_base_seconds, backoff_cap_seconds, lease_seconds, start_to_close_seconds)
    select 'activity', id, tenant_id, 'chunk 1', 'node.render', 'render_chunk', '{}', 0, created_at, 3, 20, 1, 60, 30, 3600
    from fresh where get_byte(uuid_send(id), 15) < 26";
/// The newest failures have attempts that say who met them.
const ATTEMPTS: &str = "
    insert into workflow.attempts (task_id, run_id, step_key, attempt_no, tenant_id, lease_token, worker, outcome, failure, started_at, ended_at)
    select row_number() over (), id, 'deliver', 1, tenant_id, id, 'worker-' || get_byte(uuid_send(id), 15) % 8, 'failed', error, created_at, finished_at
    from workflow.runs where error_fingerprint is not null order by id desc limit 100000";
const DEEDS: &str = "
    insert into workflow.audit (at, actor, action, tenant_id, target, reason)
    select workflow.now() - n * interval '1 s', 'user:' || n % 40, 'retry',
           case when n % 2 = 0 then $3 else tenants[1 + n / 2 % 59] end, 'run:' || n, 'measured'
    from generate_series($1::bigint, $2::bigint) n, (select $4::uuid[] as tenants) t";
const MANY: &str = "
    insert into workflow.bulk_operations (id, actor, action, filter, reason, state, total, next_n, done, created_at, started_at, finished_at)
    select workflow.new_run_id(at), 'user:' || n % 40, 'retry', jsonb_build_object('tenant', case when n % 2 = 0 then $3 else tenants[1 + n / 2 % 59] end),
           'measured', 'finished', 100000, 100001, 100000, at, at, at
    from (select n, workflow.now() - n * interval '1 min' as at, $4::uuid[] as tenants from generate_series($1::bigint, $2::bigint) n) s";
/// The newest of them was about as many runs as it says.
const ITEMS: &str = "
    insert into workflow.bulk_items (bulk_id, n, run_id, outcome)
    select $1, row_number() over (order by id desc), id, 'done'
    from (select id from workflow.runs where error_fingerprint is not null order by id desc limit 100000) r";
/// A run with as long a history as there may be, and each record of two kilobytes.
const LONG: &str = "
    insert into workflow.steps (run_id, seq, tenant_id, key, kind, name, outcome, output, attempt_no, recorded_at)
    select $1, n, $2, 'chunk ' || n, 'activity', 'render_chunk', 'ok', jsonb_build_object('text', repeat('x', 2000)), 1,
           workflow.now() + n * interval '10 ms'
    from generate_series(1, 10000) n";
const LONG_ATTEMPTS: &str = "
    insert into workflow.attempts (task_id, run_id, step_key, attempt_no, tenant_id, lease_token, worker, outcome, started_at, ended_at)
    select 1000000 + n, $1, 'chunk ' || n, 1, $2, gen_random_uuid(), 'worker-' || n % 8, 'ok', at - interval '1 s', at
    from (select n, workflow.now() + n * interval '10 ms' as at from generate_series(1, 10000) n) s";
/// The indexes that are no constraint, of the tables with most rows: their names, and what makes them again.
const INDEXES: &str = "
    select i.indexrelid::regclass::text, replace(pg_get_indexdef(i.indexrelid), ' ON ONLY ', ' ON ')
    from pg_index i
    where i.indrelid in ('workflow.runs'::regclass, 'workflow.tasks'::regclass, 'workflow.audit'::regclass)
      and not exists (select from pg_constraint c where c.conindid = i.indexrelid)";

/// Makes rows piece by piece; what each row would set off is left out.
async fn fill(db: &PgPool, what: &str, sql: &str, rows: i64, tenants: &[Uuid]) {
    let begun = Instant::now();
    let pieces = (0..rows).step_by(PIECE as usize).map(|first| {
        let piece = sqlx::query(AssertSqlSafe(sql.to_owned())).bind(first).bind((first + PIECE).min(rows) - 1);
        piece.bind(DEFAULT_TENANT).bind(tenants).execute(db)
    });
    futures::stream::iter(pieces).buffer_unordered(HANDS).try_collect::<Vec<_>>().await.unwrap();
    eprintln!("{rows} {what} in {:.0} s", begun.elapsed().as_secs_f64());
}

/// Does each of these, some at a time.
async fn all(db: &PgPool, what: &str, statements: impl IntoIterator<Item = String>) {
    let begun = Instant::now();
    let done = statements.into_iter().map(|sql| sqlx::query(AssertSqlSafe(sql)).execute(db));
    futures::stream::iter(done).buffer_unordered(HANDS).try_collect::<Vec<_>>().await.unwrap();
    eprintln!("{what} in {:.0} s", begun.elapsed().as_secs_f64());
}

async fn get(world: &World, token: &str, path: &str) -> (Duration, Value) {
    let begun = Instant::now();
    let answer = world.send(request(Method::GET, path, token).body(Body::empty()).unwrap()).await;
    let took = begun.elapsed();
    assert_eq!(answer.status, StatusCode::OK, "{path}: {:?}", answer.body);
    (took, answer.json())
}

/// The middle and the 95th of 100 times, in milliseconds.
async fn measure(world: &World, token: &str, path: &str) -> (f64, f64) {
    get(world, token, path).await;
    let mut took = vec![];
    for _ in 0..ROUNDS {
        took.push(get(world, token, path).await.0.as_secs_f64() * 1000.0);
    }
    took.sort_by(f64::total_cmp);
    (took[ROUNDS / 2], took[ROUNDS * 95 / 100])
}

/// Where a list goes on after so many pages, or its last page.
async fn further(world: &World, token: &str, list: &str, pages: usize) -> String {
    let mut path = list.to_owned();
    for _ in 0..pages {
        let page = get(world, token, &path).await.1;
        let Some(next) = page["next_cursor"].as_str() else { break };
        path = format!("{list}&starting_after={next}");
    }
    path
}

#[ignore = "fills a database with ten million runs: a measurement"]
#[sqlx::test(migrations = "../migrations")]
async fn pages_over_ten_million_runs(db: PgPool) {
    let over: i64 = std::env::var("FLATRENDER_RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(OVER);
    let world = World::new(db).await;
    let mut tenants = vec![];
    for n in 0..59 {
        tenants.push(world.tenant(&format!("tenant-{n}")).await);
    }
    world.node("n1").await;
    let mut tx = world.db.begin().await.unwrap();
    for terms in schedules::all(true).unwrap() {
        Schedules::new(Client::new(world.db.clone())).ensure(&mut tx, DEFAULT_TENANT, &terms).await.unwrap();
    }
    tx.commit().await.unwrap();
    // No helpers: what they share would have to fit into the memory that containers leave for that.
    let options = (*world.db.connect_options()).clone().options([
        ("session_replication_role", "replica"),
        ("synchronous_commit", "off"),
        ("maintenance_work_mem", "512MB"),
        ("max_parallel_maintenance_workers", "0"),
    ]);
    let filler = PgPoolOptions::new().max_connections(HANDS as u32).connect_with(options).await.unwrap();
    // Made after the rows they take a fraction of the time.
    let indexes: Vec<(String, String)> = sqlx::query_as(INDEXES).fetch_all(&filler).await.unwrap();
    let (names, again): (Vec<_>, Vec<_>) = indexes.into_iter().unzip();
    sqlx::query(AssertSqlSafe(format!("drop index {}", names.join(", ")))).execute(&filler).await.unwrap();
    fill(&filler, "runs that are over", FINISHED, over, &tenants).await;
    fill(&filler, "runs that wait", QUEUED, over / 10, &tenants).await;
    fill(&filler, "deeds", DEEDS, over / 10, &tenants).await;
    fill(&filler, "operations on many", MANY, 10_000, &tenants).await;
    all(&filler, "indexes", again).await;
    sqlx::query(ATTEMPTS).execute(&filler).await.unwrap();
    let many = "select id from workflow.bulk_operations order by id desc limit 1";
    let many: Uuid = sqlx::query_scalar(many).fetch_one(&filler).await.unwrap();
    sqlx::query(ITEMS).bind(many).execute(&filler).await.unwrap();
    let oldest = "select id from workflow.runs order by id limit 1";
    let oldest: Uuid = sqlx::query_scalar(oldest).fetch_one(&filler).await.unwrap();
    let newest = "select id from workflow.runs where state = $1 order by id desc limit 1";
    let long: Uuid = sqlx::query_scalar(newest).bind("succeeded").fetch_one(&filler).await.unwrap();
    let waiting: Uuid = sqlx::query_scalar(newest).bind("running").fetch_one(&filler).await.unwrap();
    let failed: Uuid = sqlx::query_scalar(newest).bind("failed").fetch_one(&filler).await.unwrap();
    for history in [LONG, LONG_ATTEMPTS] {
        sqlx::query(history).bind(long).bind(DEFAULT_TENANT).execute(&filler).await.unwrap();
    }
    let counts =
        "insert into workflow.run_counts select kind, tenant_id, state, count(*) from workflow.runs group by 1, 2, 3";
    sqlx::query(counts).execute(&filler).await.unwrap();
    let tables = ["runs", "tasks", "steps", "attempts", "audit", "run_counts", "bulk_operations", "bulk_items"];
    all(&filler, "statistics", tables.map(|table| format!("vacuum analyze workflow.{table}"))).await;
    let bytes: String = sqlx::query_scalar("select pg_size_pretty(pg_database_size(current_database()))")
        .fetch_one(&filler)
        .await
        .unwrap();
    let quiet = tenants[7];
    let of = "select error_fingerprint from workflow.runs where id = $1";
    let fingerprint: String = sqlx::query_scalar(of).bind(failed).fetch_one(&filler).await.unwrap();
    let node_id: Uuid = sqlx::query_scalar("select id from render.nodes").fetch_one(&filler).await.unwrap();
    let schedule = "select id from workflow.schedules limit 1";
    let schedule: Uuid = sqlx::query_scalar(schedule).fetch_one(&filler).await.unwrap();

    let platform = world.person(DEFAULT_TENANT, "operator@example.com", &["platform_operator"]).await;
    let platform = world.session(DEFAULT_TENANT, platform).await;
    let owner = world.person(quiet, "owner@example.com", &["owner"]).await;
    let owner = world.session(quiet, owner).await;
    let live = "/v1/operate/runs?limit=100&state=running";
    let of_all = [
        "/v1/operate/now".to_owned(),
        "/v1/operate/failures".into(),
        format!("/v1/operate/failures/{fingerprint}"),
        "/v1/operate/runs?limit=100".into(),
        further(&world, &platform, "/v1/operate/runs?limit=100", 20).await,
        live.into(),
        "/v1/operate/runs?limit=100&state=failed".into(),
        "/v1/operate/runs?limit=100&state=succeeded&kind=refund".into(),
        "/v1/operate/runs?limit=100&queue=node.render".into(),
        "/v1/operate/runs?limit=100&queue=media".into(),
        format!("/v1/operate/runs?limit=100&fingerprint={fingerprint}"),
        format!("/v1/operate/runs?limit=100&tenant_id={quiet}&fingerprint={fingerprint}"),
        "/v1/operate/runs?limit=100&code=cause.17".into(),
        "/v1/operate/runs?limit=100&code=none".into(),
        format!("{live}&tenant_id={quiet}"),
        format!("/v1/operate/runs?limit=100&tenant_id={DEFAULT_TENANT}&business_key=notify:8"),
        format!("/v1/operate/runs/{failed}"),
        format!("/v1/operate/runs/{waiting}"),
        format!("/v1/operate/runs/{long}"),
        format!("/v1/operate/runs/{long}/steps?limit=100&starting_after=5000"),
        format!("/v1/operate/runs/{oldest}"),
        format!("/v1/operate/audit?limit=20&target=run:{failed}"),
        "/v1/operate/dead-letters?limit=100".into(),
        "/v1/operate/queues".into(),
        "/v1/operate/versions".into(),
        "/v1/operate/audit?limit=100".into(),
        "/v1/operate/audit?limit=100&action=none".into(),
        format!("/v1/operate/audit?limit=100&tenant_id={quiet}"),
        "/v1/operate/bulk?limit=100".into(),
        format!("/v1/operate/bulk/{many}"),
        format!("/v1/operate/bulk/{many}/items?limit=100&starting_after=50000"),
        "/v1/platform/nodes?limit=100".into(),
        format!("/v1/platform/nodes/{node_id}"),
        format!("/v1/platform/nodes/{node_id}/health?limit=100"),
        format!("/v1/platform/nodes/{node_id}/crashes?limit=20"),
        "/v1/platform/nodes/tokens?limit=100".into(),
        "/v1/platform/schedules?limit=100".into(),
        format!("/v1/platform/schedules/{schedule}"),
        "/v1/platform/tenants?limit=100".into(),
        format!("/v1/platform/tenants/{DEFAULT_TENANT}"),
        format!("/v1/platform/tenants/{DEFAULT_TENANT}/usage"),
    ];
    let of_one = [
        "/v1/operate/now".to_owned(),
        "/v1/operate/failures".into(),
        "/v1/operate/runs?limit=100".into(),
        live.into(),
        further(&world, &owner, live, 2).await,
        "/v1/operate/runs?limit=100&queue=node.render".into(),
        "/v1/operate/runs?limit=100&state=failed".into(),
        "/v1/operate/runs?limit=100&state=failed&code=cause.17".into(),
        "/v1/operate/dead-letters?limit=100".into(),
        "/v1/operate/bulk?limit=100".into(),
        "/v1/operate/audit?limit=100".into(),
        "/v1/audit?limit=100".into(),
        "/v1/usage".into(),
        "/v1/webhooks".into(),
        "/v1/templates".into(),
        "/v1/payments?limit=100".into(),
        "/v1/payment-differences?limit=100".into(),
        "/v1/refunds?limit=100".into(),
        "/v1/notification-accounts".into(),
        "/v1/notification-defaults".into(),
        "/v1/notification-suppressions?limit=100".into(),
        "/v1/notification-templates".into(),
    ];
    println!("\n{over} runs over, {} waiting, {bytes}; {ROUNDS} times each, milliseconds\n", over / 10);
    println!("| page | p50 | p95 | |\n|---|---:|---:|---|");
    let of_one = of_one.map(|path| (&owner, path, " (an owner)"));
    let mut slow = vec![];
    for (token, path, who) in of_all.map(|path| (&platform, path, "")).into_iter().chain(of_one) {
        let (p50, p95) = measure(&world, token, &path).await;
        let verdict = if p95 > AIM { "**over**" } else { "" };
        println!("| `{}`{who} | {p50:.0} | {p95:.0} | {verdict} |", path.trim_start_matches("/v1"));
        if p95 > AIM {
            slow.push(format!("{path}{who}: {p95:.0} ms"));
        }
    }
    assert!(slow.is_empty(), "these take longer than {AIM} ms: {slow:#?}");
}
