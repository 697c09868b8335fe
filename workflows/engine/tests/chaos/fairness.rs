//! Queues with terms under many processes: a tenant that floods them, a rate whose users are killed.

use crate::{
    ledger::{self, What},
    program::Duties,
    scenario::{Scenario, sized},
    work::{Errand, Single},
};
use flatrender_engine::{
    JobOptions,
    operations::{By, Operations, Rate, Terms},
};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use uuid::Uuid;

async fn set_terms(s: &Scenario, terms: &Terms) {
    let mut tx = s.db.begin().await.unwrap();
    Operations::new(s.client.clone()).set_terms(&mut tx, &By::new("operator"), "errands", terms).await.unwrap();
    tx.commit().await.unwrap();
}

/// Jobs of a tenant, all at once; when they were asked for, by the clock of the machine.
async fn enqueue(s: &Scenario, tenant: Uuid, count: u32, job: &Errand) -> u64 {
    let asked = ledger::now();
    let mut tx = s.db.begin().await.unwrap();
    let jobs = std::iter::repeat_n(job.clone(), count as usize);
    s.client.enqueue_all(&mut tx, tenant, jobs, &JobOptions::default()).await.unwrap();
    sqlx::query("insert into accepted (key, what) select gen_random_uuid()::text, 'job' from generate_series(1, $1)")
        .bind(count as i32)
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    s.client.announce();
    asked
}

/// When jobs of a tenant began and ended, by the ledger, in the order of their beginnings.
async fn shifts(s: &Scenario, tenant: Uuid) -> Vec<(u64, Option<u64>)> {
    let ids = "select id from workflow.jobs where tenant_id = $1 union select id from workflow.finished_jobs where tenant_id = $1";
    let ids: Vec<i64> = sqlx::query_scalar(ids).bind(tenant).fetch_all(&s.db).await.unwrap();
    let mut shifts: HashMap<i64, (u64, Option<u64>)> = HashMap::new();
    for entry in s.ledger().iter().filter(|entry| ids.contains(&entry.task_id)) {
        match entry.what {
            What::Begun => drop(shifts.insert(entry.task_id, (entry.at, None))),
            What::Done => {
                shifts.entry(entry.task_id).and_modify(|shift| shift.1 = Some(entry.at));
            }
            What::Told | What::Spawned => {}
        }
    }
    let mut shifts: Vec<_> = shifts.into_values().collect();
    shifts.sort_unstable();
    shifts
}

/// Slot-seconds within a time, in microseconds.
fn slot_time(shifts: &[(u64, Option<u64>)], from: u64, to: u64) -> f64 {
    let within = shifts.iter().map(|(began, ended)| ended.unwrap_or(to).min(to).saturating_sub(*began.max(&from)));
    within.sum::<u64>() as f64
}

#[tokio::test]
async fn f16_a_flood_of_one_tenant_does_not_hold_up_another() {
    let mut s =
        Scenario::new("F16", "p95 of B's waits at most two jobs long; Jain at least 0.95 while both wait").await;
    set_terms(&s, &Terms::default()).await;
    let (a, b, takes) = (Uuid::from_u128(0xa), Uuid::from_u128(0xb), 200);
    let job = Errand::of(1, takes, 30_000);
    enqueue(&s, a, sized(300, 10_000), &job).await;
    s.injected(1);
    for name in ["one", "two"] {
        s.worker(name, Duties { slots: 2, runs: false, ..Duties::default() });
    }
    // All four slots are the flood's.
    s.until(4, "select count(*) from workflow.jobs where worker_id is not null", Duration::from_secs(20)).await;
    // Somewhat less than the share of B, which is two slots.
    let mut asked = Vec::new();
    let (began, each) = (Instant::now(), Duration::from_millis(takes * 6 / 10));
    for n in 0..20 {
        tokio::time::sleep((each * n).saturating_sub(began.elapsed())).await;
        asked.push(enqueue(&s, b, 1, &job).await);
    }
    let ended = "select count(*) from workflow.finished_jobs where tenant_id = '00000000-0000-0000-0000-00000000000b'";
    s.until(20, ended, Duration::from_secs(30)).await;
    let done = shifts(&s, b).await;
    let mut waits: Vec<u64> = done.iter().zip(&asked).map(|((began, _), asked)| began - asked).collect();
    waits.sort_unstable();
    let mean = done.iter().map(|(began, ended)| ended.unwrap() - began).sum::<u64>() / 20;
    s.note(format!("p95 of the waits {} ms, a job takes {} ms", waits[18] / 1000, mean / 1000));
    assert!(waits[18] <= 2 * mean, "{waits:?}, a job takes {mean}");
    // Now B has more to do than there is room for, too.
    let from = enqueue(&s, b, 16, &job).await;
    s.until(36, ended, Duration::from_secs(60)).await;
    let (of_a, of_b) = (shifts(&s, a).await, shifts(&s, b).await);
    // From its first until its last begins.
    let (from, to) = (of_b.iter().find(|(at, _)| *at >= from).unwrap().0, of_b[35].0);
    let (x, y) = (slot_time(&of_a, from, to), slot_time(&of_b, from, to));
    let jain = (x + y).powi(2) / (2.0 * (x * x + y * y));
    s.note(format!("B has {:.0} % of the slots, Jain's index {jain:.3}", 100.0 * y / (x + y)));
    assert!(jain >= 0.95, "{x} and {y}");
    // The rest of the flood is of no interest.
    sqlx::raw_sql(
        "update workflow.jobs set input = input || '{\"takes_ms\": 0, \"manner\": \"Quiet\"}' where worker_id is null",
    )
    .execute(&s.db)
    .await
    .unwrap();
    s.worker("many", Duties { slots: 64, runs: false, ..Duties::default() });
    s.finish(sized(Duration::from_secs(30), Duration::from_secs(120))).await;
}

#[tokio::test]
async fn f18_a_rate_holds_over_eight_processes_that_are_killed_in_turn() {
    let mut s = Scenario::new("F18", "no second with more than rate and burst; the mean is the rate").await;
    let rate = Rate::new(10, Duration::from_secs(1)).burst(4);
    set_terms(&s, &Terms { rate: Some(rate), ..Terms::default() }).await;
    for n in 0..8 {
        s.worker(&format!("worker {n}"), Duties { slots: 4, ..Duties::default() });
    }
    s.until(8, "select count(*) from workflow.workers where ended_at is null", Duration::from_secs(20)).await;
    let count = sized(35, 320);
    let mut runs = Vec::new();
    for n in 0..count {
        runs.push((n, s.start(&format!("single {n}"), Single(Errand::of(n, 100, 30_000))).await));
    }
    // Nobody leads: whoever has claimed last is killed.
    for _ in 0..sized(2, 5) {
        tokio::time::sleep(sized(Duration::from_millis(900), Duration::from_secs(5))).await;
        let latest = s.ledger().into_iter().rfind(|e| e.what == What::Begun).expect("nobody has begun anything");
        let victim = (0..8).find(|n| format!("worker {n}") == latest.worker).unwrap();
        s.process(victim).signal("KILL");
        s.process(victim).ended(Duration::from_secs(5)).await;
        s.injected(1);
        s.revive();
    }
    for (n, run_id) in runs {
        s.succeeded(run_id, i64::from(n) * 2).await;
    }
    // Each claim has the moment at which the database gave it, also those of who was killed then.
    let claims: Vec<i64> = sqlx::query_scalar(
        "select (extract(epoch from started_at) * 1e6)::bigint from workflow.attempts where step_key = 'errand' order by 1",
    )
    .fetch_all(&s.db)
    .await
    .unwrap();
    let worst =
        claims.iter().map(|from| claims.iter().filter(|at| (*from..from + 1_000_000).contains(at)).count()).max();
    // The runs have to begin first, with the burst, and what was lost last comes late.
    let steady = &claims[10..count as usize - 5];
    let mean = (steady.len() - 1) as f64 * 1e6 / (steady[steady.len() - 1] - steady[0]) as f64;
    s.note(format!("{} claims, at most {} in a second, {mean:.2} a second", claims.len(), worst.unwrap()));
    assert!(worst.unwrap() <= 14, "{worst:?} in a second");
    assert!(mean >= sized(6.0, 9.5), "{mean} a second");
    s.finish(Duration::from_secs(30)).await;
}
