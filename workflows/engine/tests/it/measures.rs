//! What is counted, and that it does not grow with use.

use crate::world::{Tool, Work, World};
use flatrender_engine::{Context, Failure, JobOptions, Workflow, measures};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::{collections::BTreeSet, time::Duration};
use uuid::Uuid;

/// A step, a nap, an activity.
#[derive(Serialize, Deserialize)]
struct Busy(u32);

impl Workflow for Busy {
    const NAME: &'static str = "busy";
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        cx.step("note", async |_| Ok(())).await?;
        cx.sleep("nap", Duration::from_millis(1)).await?;
        cx.activity("work", Work::new(self.0)).await
    }
}

/// A run and a job for each of `count` new tenants, all done; gives what must never be a label.
async fn wave(world: &World, count: u32) -> Vec<String> {
    let mut names = Vec::new();
    let mut tx = world.db.begin().await.unwrap();
    for n in 0..count {
        let (tenant, key) = (Uuid::now_v7(), Uuid::new_v4().to_string());
        let started = world.client.start(&mut tx, tenant, Some(&key), Busy(n)).await.unwrap();
        let options = JobOptions { unique: Some(flatrender_engine::Unique::new(key.clone())), ..JobOptions::default() };
        world.client.enqueue(&mut tx, tenant, Work::new(n), &options).await.unwrap();
        names.extend([tenant.to_string(), started.run_id.to_string(), key]);
    }
    tx.commit().await.unwrap();
    world.client.announce();
    world.until(0, "select count(*) from workflow.runs where state = 'running'").await;
    world.until(0, "select count(*) from workflow.jobs").await;
    names
}

/// Counters and histograms, each with its labels. Gauges come when a worker looks around.
fn series(handle: &PrometheusHandle) -> BTreeSet<String> {
    let text = handle.render();
    let lines = text.lines().filter(|line| line.starts_with("flatrender_engine_"));
    let series = lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned());
    series
        .filter(|series| series.contains("_total") || series.contains("_seconds_") || series.contains("_writes_"))
        .collect()
}

fn value(handle: &PrometheusHandle, series: &str) -> u64 {
    let text = handle.render();
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
}

#[sqlx::test(migrations = false)]
async fn a_thousand_tenants_make_no_more_series_than_five(db: PgPool) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Busy>().handler::<Work>(Tool::doubling()));
    let mut names = wave(&world, 5).await;
    let few = series(&handle);
    names.extend(wave(&world, 1_000).await);
    // On a slow machine leases live long enough to be renewed.
    let more: Vec<String> =
        series(&handle).difference(&few).filter(|s| !s.ends_with("renewals_total")).cloned().collect();
    assert_eq!(more, Vec::<String>::new());
    assert!(few.len() > 20, "{few:#?}");
    let text = handle.render();
    let leaked: Vec<&String> = names.iter().filter(|name| text.contains(name.as_str())).collect();
    assert!(leaked.is_empty(), "{leaked:?}");
    world.stop().await;
}

#[sqlx::test(migrations = false)]
async fn what_is_counted_is_what_has_happened(db: PgPool) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    measures::describe();
    let mut world = World::new(db).await;
    let shaky = Tool::new(|cx, work| async move {
        match cx.task().attempt_no {
            1 => Err(Failure::transient("test.shaky", "once more")),
            _ => Ok(work.n),
        }
    });
    world.worker(|w| w.workflow::<Busy>().handler::<Work>(shaky));
    wave(&world, 7).await;
    world.stop().await;
    for (series, wanted) in [
        ("runs_started_total{kind=\"busy\"}", 7),
        ("runs_ended_total{kind=\"busy\",state=\"succeeded\"}", 7),
        ("step_seconds_count{kind=\"busy\"}", 7),
        ("attempts_total{outcome=\"ok\"}", 7),
        ("attempts_total{outcome=\"failed\"}", 7),
        ("jobs_total{outcome=\"ok\"}", 7),
        ("jobs_total{outcome=\"failed\"}", 7),
        ("retries_total{lane=\"tasks\"}", 7),
        ("retries_total{lane=\"jobs\"}", 7),
        ("attempt_seconds_count{activity=\"Work\"}", 28),
        ("claims_total{queue=\"work\"}", 28),
        ("pool_wait_seconds_count", 7),
    ] {
        assert_eq!(value(&handle, &format!("flatrender_engine_{series}")), wanted, "{series}");
    }
    assert_eq!(value(&handle, "flatrender_engine_resident_runs"), 0);
    // Everything that is there has been described.
    let text = handle.render();
    let known: Vec<&str> = measures::all().map(|(name, ..)| name).collect();
    for name in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        assert!(known.contains(&name), "{name} is not described");
    }
}

#[sqlx::test(migrations = false)]
async fn an_open_transaction_shows_in_the_age_of_the_horizon(db: PgPool) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let mut world = World::new(db).await;
    let mut idle = world.db.begin().await.unwrap();
    sqlx::raw_sql("set transaction isolation level repeatable read; select count(*) from workflow.runs")
        .execute(&mut *idle)
        .await
        .unwrap();
    // Older than any snapshot of those who work, before anybody looks.
    tokio::time::sleep(Duration::from_millis(600)).await;
    world.worker(|w| w.workflow::<Busy>());
    let text = loop {
        let text = handle.render();
        if text.contains("flatrender_engine_horizon_seconds ") {
            break text;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let age = text.lines().find_map(|line| line.strip_prefix("flatrender_engine_horizon_seconds ")).unwrap();
    assert!(age.parse::<f64>().unwrap() > 0.5, "{age}");
    idle.rollback().await.unwrap();
    world.stop().await;
}

#[test]
fn every_metric_is_in_the_readme() {
    let readme = include_str!("../../README.md");
    for (name, labels, text) in measures::all() {
        let short = name.strip_prefix("flatrender_engine_").unwrap();
        let line = format!("| `{short}` | {labels} | {text} |");
        assert!(readme.contains(&line), "not in README.md:\n{line}");
    }
}

#[sqlx::test(migrations = false)]
async fn a_parked_run_is_counted_whatever_the_reason(db: PgPool) {
    let reasons: Vec<String> = {
        let world = World::new(db.clone()).await;
        let sql =
            "select pg_get_constraintdef(oid) from pg_constraint where contypid = 'workflow.parked_reason'::regtype";
        let check: String = sqlx::query_scalar(sql).fetch_one(&world.db).await.unwrap();
        check.split('\'').skip(1).step_by(2).map(str::to_owned).collect()
    };
    assert!(reasons.len() >= 4, "{reasons:?}");
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let stop = tokio_util::sync::CancellationToken::new();
    let worker = flatrender_engine::Worker::builder(db).workflow::<Busy>().run(stop.clone());
    let worker = tokio::spawn(async move { worker.await.unwrap() });
    let text = loop {
        let text = handle.render();
        if text.contains("flatrender_engine_horizon_seconds ") {
            break text;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    for reason in reasons {
        assert!(text.contains(&format!("flatrender_engine_parked_runs{{reason=\"{reason}\"}}")), "{reason}: {text}");
    }
    stop.cancel();
    worker.await.unwrap();
}
