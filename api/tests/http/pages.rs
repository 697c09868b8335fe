//! How long the pages of the dashboard take over many runs: a measurement, not a test. Fills a database, so it takes minutes and gigabytes.

use crate::world::{World, request};
use axum::{
    body::Body,
    http::{Method, StatusCode},
};
use flatrender_workflows::models::DEFAULT_TENANT;
use serde_json::Value;
use sqlx::{PgPool, postgres::PgPoolOptions};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Runs that are over, and runs that are not, unless `FLATRENDER_RUNS` says how many are over: then a tenth of it is not.
const OVER: i64 = 10_000_000;
/// Rows that one statement makes.
const PIECE: i64 = 250_000;
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
/// A run with as long a history as there may be, and each record of two kilobytes.
const LONG: &str = "
    insert into workflow.steps (run_id, seq, tenant_id, key, kind, name, outcome, output, attempt_no, recorded_at)
    select $1, n, $2, 'chunk ' || n, 'activity', 'render_chunk', 'ok', jsonb_build_object('text', repeat('x', 2000)), 1, workflow.now()
    from generate_series(1, 10000) n";

/// Makes rows piece by piece; what each row would set off is left out.
async fn fill(db: &PgPool, what: &str, sql: &str, rows: i64, tenants: &[Uuid]) {
    let begun = Instant::now();
    let mut first = 0;
    while first < rows {
        let last = (first + PIECE).min(rows) - 1;
        let piece = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned()));
        piece.bind(first).bind(last).bind(DEFAULT_TENANT).bind(tenants).execute(db).await.unwrap();
        first = last + 1;
    }
    eprintln!("{rows} {what} in {:.0} s", begun.elapsed().as_secs_f64());
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

#[ignore = "fills a database with ten million runs: a measurement"]
#[sqlx::test(migrations = "../migrations")]
async fn pages_over_ten_million_runs(db: PgPool) {
    let over: i64 = std::env::var("FLATRENDER_RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(OVER);
    let world = World::new(db).await;
    let mut tenants = vec![];
    for n in 0..59 {
        tenants.push(world.tenant(&format!("tenant-{n}")).await);
    }
    let options = (*world.db.connect_options())
        .clone()
        .options([("session_replication_role", "replica"), ("synchronous_commit", "off")]);
    let filler = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    fill(&filler, "runs that are over", FINISHED, over, &tenants).await;
    fill(&filler, "runs that wait", QUEUED, over / 10, &tenants).await;
    fill(&filler, "deeds", DEEDS, over / 10, &tenants).await;
    sqlx::query(ATTEMPTS).execute(&filler).await.unwrap();
    let newest = "select id from workflow.runs where state = $1 order by id desc limit 1";
    let long: Uuid = sqlx::query_scalar(newest).bind("succeeded").fetch_one(&filler).await.unwrap();
    let waiting: Uuid = sqlx::query_scalar(newest).bind("running").fetch_one(&filler).await.unwrap();
    let failed: Uuid = sqlx::query_scalar(newest).bind("failed").fetch_one(&filler).await.unwrap();
    sqlx::query(LONG).bind(long).bind(DEFAULT_TENANT).execute(&filler).await.unwrap();
    let counts =
        "insert into workflow.run_counts select kind, tenant_id, state, count(*) from workflow.runs group by 1, 2, 3";
    sqlx::query(counts).execute(&filler).await.unwrap();
    for table in ["runs", "tasks", "steps", "attempts", "audit", "run_counts"] {
        sqlx::query(sqlx::AssertSqlSafe(format!("vacuum analyze workflow.{table}"))).execute(&filler).await.unwrap();
    }
    let bytes: String = sqlx::query_scalar("select pg_size_pretty(pg_database_size(current_database()))")
        .fetch_one(&filler)
        .await
        .unwrap();
    let (one, quiet): (String, Uuid) = (failed.to_string(), tenants[7]);
    let fingerprint: String = sqlx::query_scalar("select error_fingerprint from workflow.runs where id = $1")
        .bind(failed)
        .fetch_one(&filler)
        .await
        .unwrap();

    let platform = world.person(DEFAULT_TENANT, "operator@example.com", &["platform_operator"]).await;
    let platform = world.session(DEFAULT_TENANT, platform).await;
    let owner = world.person(quiet, "owner@example.com", &["owner"]).await;
    let owner = world.session(quiet, owner).await;
    let mut cursor = "/v1/operate/runs?limit=100".to_owned();
    for _ in 0..20 {
        let page = get(&world, &platform, &cursor).await.1;
        cursor = format!("/v1/operate/runs?limit=100&starting_after={}", page["next_cursor"].as_str().unwrap());
    }
    let of_all = [
        "/v1/operate/now".to_owned(),
        "/v1/operate/failures".into(),
        format!("/v1/operate/failures/{fingerprint}"),
        "/v1/operate/runs?limit=100".into(),
        cursor,
        "/v1/operate/runs?limit=100&state=running".into(),
        "/v1/operate/runs?limit=100&state=failed".into(),
        "/v1/operate/runs?limit=100&state=succeeded&kind=refund".into(),
        "/v1/operate/runs?limit=100&queue=node.render".into(),
        format!("/v1/operate/runs?limit=100&fingerprint={fingerprint}"),
        "/v1/operate/runs?limit=100&code=cause.17".into(),
        format!("/v1/operate/runs?limit=100&tenant_id={quiet}&state=running"),
        format!("/v1/operate/runs?limit=100&tenant_id={DEFAULT_TENANT}&business_key=notify:8"),
        format!("/v1/operate/runs/{one}"),
        format!("/v1/operate/runs/{waiting}"),
        format!("/v1/operate/runs/{long}"),
        "/v1/operate/dead-letters?limit=100".into(),
        "/v1/operate/queues".into(),
        "/v1/operate/versions".into(),
        "/v1/operate/audit?limit=100".into(),
        format!("/v1/operate/audit?limit=100&tenant_id={quiet}"),
        "/v1/operate/bulk".into(),
    ];
    let of_one = [
        "now",
        "failures",
        "runs?limit=100",
        "runs?limit=100&state=running",
        "runs?limit=100&state=failed",
        "audit?limit=100",
        "dead-letters?limit=100",
    ];
    println!("\n{over} runs over, {} waiting, {bytes}; {ROUNDS} times each, milliseconds\n", over / 10);
    println!("| page | p50 | p95 | |\n|---|---:|---:|---|");
    let of_one = of_one.map(|path| (&owner, format!("/v1/operate/{path}"), " (an owner)"));
    for (token, path, who) in of_all.map(|path| (&platform, path, "")).into_iter().chain(of_one) {
        let (p50, p95) = measure(&world, token, &path).await;
        let verdict = if p95 > AIM { "**over**" } else { "" };
        println!("| `{}`{who} | {p50:.0} | {p95:.0} | {verdict} |", path.trim_start_matches("/v1/operate"));
    }
}
