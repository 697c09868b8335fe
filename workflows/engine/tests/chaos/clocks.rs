//! Clocks that are wrong, names that are the same, and times at which nobody was there.

use crate::{
    program::Duties,
    scenario::{Scenario, sized},
    work::{Tick, Trip},
};
use flatrender_engine::schedules::{CatchUp, Overlap, Schedules, Terms};
use sqlx::Connection;
use std::{
    process::Command,
    time::{Duration, Instant},
};
use uuid::Uuid;

#[tokio::test]
async fn f12_processes_of_one_name_do_not_take_each_other_for_themselves() {
    let mut s = Scenario::new("F12", "leases belong to incarnations; nothing adopted, nothing stranded").await;
    let mut runs = Vec::new();
    for round in 0..sized(1, 5) {
        let first = s.worker("twin", Duties { slots: 4, ..Duties::default() });
        s.worker("twin", Duties { slots: 4, ..Duties::default() });
        for n in 0..6 {
            let n = round * 10 + n;
            runs.push((n, s.start(&format!("trip {n}"), Trip { takes_ms: 300, ..Trip::new(n) }).await));
        }
        tokio::time::sleep(Duration::from_millis(s.random(200..600))).await;
        s.process(first).kill();
        s.worker("twin", Duties { slots: 4, ..Duties::default() });
        s.injected(1);
        for (n, run_id) in &runs {
            s.succeeded(*run_id, Trip::new(*n).answer(0)).await;
        }
        s.stop_workers().await;
    }
    let incarnations = s.count("select count(*) from workflow.workers where name = 'twin'").await;
    assert_eq!(incarnations, i64::from(sized(1, 5) * 3u32));
    s.finish(Duration::from_secs(30)).await;
}

/// A library that moves the clock of whoever loads it; none where there is no compiler.
fn wrong_clock(folder: &std::path::Path) -> Option<String> {
    let library = folder.join("wrong_clock.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/chaos/wrong_clock.c");
    let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status().ok()?;
    made.success().then(|| library.display().to_string())
}

#[tokio::test]
async fn f13_workers_whose_clocks_are_wrong_by_an_hour_agree() {
    let mut s = Scenario::new("F13", "no lease lost, no timer and no schedule early or late").await;
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = wrong_clock(folder.path()) else {
        s.note("LEFT OUT: there is no C compiler");
        return s.finish(Duration::from_secs(5)).await;
    };
    let url = s.server.url();
    for (name, seconds) in [("fast", "3600"), ("slow", "-3600")] {
        let variables = [("LD_PRELOAD", library.as_str()), ("WRONG_BY_SECONDS", seconds)];
        s.worker_with(name, Duties { schedules: true, ..Duties::default() }, &url, &variables);
        s.injected(1);
    }
    s.until(2, "select count(*) from workflow.workers where ended_at is null", Duration::from_secs(30)).await;
    let schedule = make(&s, "seconds", "* * * * * *", CatchUp::All).await;
    let began = Instant::now();
    let mut runs = Vec::new();
    for n in 0..sized(4, 40) {
        runs.push((n, s.start(&format!("trip {n}"), Trip { takes_ms: 1000, lease_ms: 3000, ..Trip::new(n) }).await));
    }
    for (n, run_id) in runs {
        s.succeeded(run_id, Trip::new(n).answer(0)).await;
    }
    tokio::time::sleep(Duration::from_secs(2).saturating_sub(began.elapsed())).await;
    drop_schedule(&s, schedule).await;
    assert_eq!(s.count("select count(*) from workflow.attempts where outcome in ('lost', 'timeout')").await, 0);
    let early = "select count(*) from workflow.schedule_fires where decided_at < nominal_at";
    assert_eq!(s.count(early).await, 0);
    let late = "select count(*) from workflow.schedule_fires where decided_at > nominal_at + interval '10 s'";
    assert_eq!(s.count(late).await, 0);
    assert!(s.count("select count(*) from workflow.schedule_fires").await >= 1);
    s.finish(Duration::from_secs(30)).await;
}

async fn make(s: &Scenario, name: &str, cron: &str, catch_up: CatchUp) -> Uuid {
    let mut terms = Terms::of(name, cron, &Tick).unwrap();
    (terms.catch_up, terms.overlap, terms.catch_up_window) = (catch_up, Overlap::Allow, Duration::from_secs(86_400));
    let mut db = s.db.acquire().await.unwrap();
    let mut tx = db.begin().await.unwrap();
    let id = Schedules::new(s.client.clone()).create(&mut tx, s.tenant, &terms).await.unwrap();
    tx.commit().await.unwrap();
    id
}

async fn drop_schedule(s: &Scenario, id: Uuid) {
    let mut db = s.db.acquire().await.unwrap();
    let mut tx = db.begin().await.unwrap();
    Schedules::new(s.client.clone()).delete(&mut tx, id).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn f20_each_nominal_time_is_decided_once_whoever_dies_and_however_long_nobody_was_there() {
    let mut s = Scenario::new("F20", "one run per nominal time; after an outage as many as the policy says").await;
    let schedule = make(&s, "seconds", "* * * * * *", CatchUp::All).await;
    let traps = [
        "schedule.commit.before",
        "schedule.commit.after",
        "schedule.note.after",
        "run.insert.before",
        "schedule.advance.before",
        "schedule.begin.after:2",
        "schedule.pick.after:2",
    ];
    let duties = Duties { schedules: true, ..Duties::default() };
    for trap in traps.iter().take(sized(2, traps.len())) {
        s.worker("follower", duties.clone());
        let doomed = s.doomed("leader", duties.clone(), trap);
        s.process(doomed).dismissed = true;
        // The follower may be the quicker one for a while.
        let died = s.process(doomed).ended(Duration::from_secs(8)).await.is_some();
        s.injected(u32::from(died));
        s.stop_workers().await;
    }
    // From the first decision to the last, no second is missing and none is there twice.
    let gaps = "select count(*) from (select nominal_at - lag(nominal_at) over (order by nominal_at) as step
                                      from workflow.schedule_fires) f where step <> interval '1 s'";
    assert_eq!(s.count(gaps).await, 0);
    drop_schedule(&s, schedule).await;
    // Nobody is there for three hours.
    let mut policies = Vec::new();
    for (name, policy) in [("skip", CatchUp::Skip), ("one", CatchUp::One), ("all", CatchUp::All)] {
        policies.push((name, make(&s, name, "0 */10 * * * *", policy).await));
    }
    let schedules = Schedules::new(s.client.clone());
    let from = schedules.find(policies[0].1).await.unwrap().unwrap().created_at;
    flatrender_engine::testing::move_clock(&s.db, Duration::from_secs(3 * 3600)).await.unwrap();
    s.worker("back again", duties.clone());
    s.worker("back again", duties);
    let decided = "select count(*) from workflow.schedules where deleted_at is null and decided_until > workflow.now() - interval '11 min'";
    s.until(3, decided, Duration::from_secs(30)).await;
    let now: chrono::DateTime<chrono::Utc> =
        sqlx::query_scalar("select max(decided_until) from workflow.schedules").fetch_one(&s.db).await.unwrap();
    let due =
        Schedules::preview("0 */10 * * * *", "UTC", from, 1000).unwrap().into_iter().filter(|at| *at <= now).count();
    for (name, id) in policies {
        let fires = schedules.fires(id, 500).await.unwrap();
        let started = fires.iter().filter(|fire| fire.run_id.is_some()).count();
        let wanted = match name {
            "skip" => 0,
            "one" => 1,
            _ => due,
        };
        // A nominal time that came up just now is no part of the outage.
        assert!((wanted..=wanted + 1).contains(&started), "{name}: {started} started, {wanted} wanted of {due}");
        drop_schedule(&s, id).await;
    }
    s.note(format!("{due} nominal times in the outage"));
    s.finish(Duration::from_secs(60)).await;
    // DST forward and back, and edits in an outage: tests/it/schedules.rs.
}
