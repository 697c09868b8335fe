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
