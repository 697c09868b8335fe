//! Runs with a long history, and few runs among many: what is told of them a page at a time, and nothing of those of others.

use super::{Hand, waiting};
use crate::world::World;
use flatrender_workflows::models::DEFAULT_TENANT;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::collections::BTreeSet;
use uuid::Uuid;

/// Numbers of steps.
fn numbers(steps: &Value) -> Vec<i64> {
    steps.as_array().unwrap().iter().map(|step| step["seq"].as_i64().unwrap()).collect()
}

#[sqlx::test(migrations = "../migrations")]
async fn a_long_history_is_told_page_by_page_and_its_chart_shows_the_newest(db: PgPool) {
    let world = World::new(db).await;
    let viewer = Hand::of(&world, DEFAULT_TENANT, "platform_viewer").await;
    let stranger = Hand::of(&world, world.tenant("stranger").await, "owner").await;
    let run = waiting(&world, DEFAULT_TENANT).await;
    assert_eq!(viewer.get(&format!("/runs/{run}")).await["earlier_steps"], json!(null));
    let steps = "insert into workflow.steps (run_id, seq, tenant_id, key, kind, outcome, output, recorded_at)
        select $1, n, $2, 'chunk ' || n, 'step', 'ok', '{\"password\": \"x\"}', workflow.now() + n * interval '1 ms'
        from generate_series(1, 1234) n";
    sqlx::query(steps).bind(run).bind(DEFAULT_TENANT).execute(&world.db).await.unwrap();

    let seen = viewer.get(&format!("/runs/{run}")).await;
    let mut all = numbers(&seen["steps"]);
    assert_eq!(all, (1135..=1234).collect::<Vec<i64>>(), "the newest, oldest first");
    all.reverse();
    let mut at = seen["earlier_steps"].clone();
    while let Some(after) = at.as_str() {
        let page = viewer.get(&format!("/runs/{run}/steps?limit=100&starting_after={after}")).await;
        assert_eq!(page["data"][0]["output"]["password"], "•••");
        all.extend(numbers(&page["data"]));
        at = page["next_cursor"].clone();
    }
    assert_eq!(all, (1..=1234).rev().collect::<Vec<i64>>(), "each once");
    let newest = viewer.get(&format!("/runs/{run}/steps?limit=3")).await;
    assert_eq!((numbers(&newest["data"]), &newest["next_cursor"]), (vec![1234_i64, 1233, 1232], &json!("1232")));
    assert_eq!(stranger.ask(&format!("/runs/{run}/steps")).await.problem(), "run.not_found");

    let bars = seen["timeline"].as_array().unwrap();
    let keys: BTreeSet<_> = bars.iter().map(|bar| bar["key"].as_str().unwrap()).collect();
    assert_eq!((bars.len(), keys.contains("chunk 1234"), keys.contains("chunk 1")), (1000, true, false));
    let lasting = bars.iter().filter(|bar| bar["until"].is_null());
    let lasts: Vec<_> = lasting.map(|bar| bar["doing"].as_str().unwrap()).collect();
    assert_eq!(lasts, ["queued"], "what is waited for now is never left out");
}

/// Live runs that were started so many minutes ago, oldest first.
async fn live(world: &World, tenant_id: Uuid, many: i32, minutes: f64) -> Vec<Uuid> {
    let sql = "with fresh as (
            insert into workflow.runs (id, tenant_id, kind, version, state, input, created_at)
            select workflow.new_run_id(at), $1, 'notify', 1, 'running', '{}', at
            from (select workflow.now() - $3 * interval '1 min' + n * interval '1 ms' as at from generate_series(1, $2) n) s
            returning id, tenant_id, created_at
        ), tasks as (
            insert into workflow.tasks (kind, run_id, tenant_id, step_key, queue, activity, priority, run_at, max_failures, max_losses,
                                        backoff_base_seconds, backoff_cap_seconds, lease_seconds, start_to_close_seconds)
            select 'run', id, tenant_id, '', 'workflows', 'notify.v1', 0, created_at, 1, 20, 0, 0, 30, 1e9 from fresh)
        select id from fresh order by id";
    sqlx::query_scalar(sql).bind(tenant_id).bind(many).bind(minutes).fetch_all(&world.db).await.unwrap()
}

#[sqlx::test(migrations = "../migrations")]
async fn live_runs_among_those_of_others_are_all_found_and_no_cursor_is_a_run_of_theirs(db: PgPool) {
    let world = World::new(db).await;
    let (acme, others) = (world.tenant("acme").await, world.tenant("others").await);
    let owner = Hand::of(&world, acme, "owner").await;
    let mut own = live(&world, acme, 3, 30.0).await;
    let theirs = live(&world, others, 10_100, 20.0).await;
    own.extend(live(&world, acme, 2, 10.0).await);
    own.reverse();
    for filter in ["state=running", "queue=workflows"] {
        let (mut found, mut sizes, mut at) = (vec![], vec![], String::new());
        loop {
            let page = owner.get(&format!("/runs?limit=2&{filter}{at}")).await;
            let runs = page["data"].as_array().unwrap();
            found.extend(runs.iter().map(|run| run["id"].as_str().unwrap().parse::<Uuid>().unwrap()));
            sizes.push(runs.len());
            let Some(next) = page["next_cursor"].as_str() else { break };
            at = format!("&starting_after={next}");
            assert!(!theirs.contains(&next.parse().unwrap()), "{filter}");
        }
        assert_eq!((found, sizes), (own.clone(), vec![2, 0, 2, 1]), "{filter}");
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn failures_with_a_code_are_found_and_none_whose_code_only_begins_like_it(db: PgPool) {
    let world = World::new(db).await;
    let viewer = Hand::of(&world, DEFAULT_TENANT, "platform_viewer").await;
    let failed = "insert into workflow.runs (id, tenant_id, kind, version, input, state, error, created_at, finished_at, error_fingerprint)
        select workflow.new_run_id(workflow.now()), $1, 'notify', 1, '{}', 'failed', e, workflow.now(), workflow.now(), workflow.fingerprint(e)
        from jsonb_build_object('code', $2::text, 'message', $3::text, 'retryable', true) e returning id";
    let mut made: Vec<Uuid> = vec![];
    for (code, message) in [("smtp.down", "a"), ("smtp.down", "b"), ("smtp.down.again", "a"), ("smtp", "a")] {
        let failed = sqlx::query_scalar(failed).bind(DEFAULT_TENANT).bind(code).bind(message);
        made.push(failed.fetch_one(&world.db).await.unwrap());
    }
    for (code, wanted) in
        [("smtp.down", vec![0, 1]), ("smtp", vec![3]), ("smtp.down.again", vec![2]), ("smtp.", vec![])]
    {
        let found = viewer.ids(&format!("code={code}")).await;
        let wanted: BTreeSet<String> = wanted.into_iter().map(|n: usize| made[n].to_string()).collect();
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), wanted, "{code}");
    }
}
