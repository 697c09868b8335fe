//! A database that is away, slow, full, locked, or on the other side of a bad wire.

use crate::{
    ledger::What,
    postgres::Stop,
    program::{Ask, Duties},
    proxy::Proxy,
    scenario::{Scenario, sized, soak, soaked},
    work::{Errand, Single, Trip},
};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

/// Starts trips until told otherwise; what the database does not acknowledge is asked for again.
async fn start_trips(s: &Scenario, from: u32, count: u32) {
    for n in from..from + count {
        loop {
            let started = try_start(s, n).await;
            match started {
                Ok(()) => break,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

async fn try_start(s: &Scenario, n: u32) -> Result<(), flatrender_engine::client::Error> {
    let key = format!("trip {n}");
    let mut tx = s.db.begin().await?;
    let started = s.client.start(&mut tx, s.tenant, Some(&key), Trip { takes_ms: 20, ..Trip::new(n) }).await?;
    sqlx::query("insert into accepted (key, what, run_id) values ($1, 'trip', $2) on conflict do nothing")
        .bind(&key)
        .bind(started.run_id)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    s.client.announce();
    Ok(())
}

async fn all_trips_arrive(s: &Scenario, count: i64, patience: Duration) {
    s.until(count, "select count(*) from workflow.runs where kind = 'trip' and state = 'succeeded'", patience).await;
    let wrong =
        "select count(*) from workflow.runs where kind = 'trip' and output <> to_jsonb((input ->> 'n')::int * 10)";
    assert_eq!(s.count(wrong).await, 0);
}

/// After the last fault new work of each kind is done soon.
async fn tail(s: &mut Scenario) {
    let mut runs = Vec::new();
    for n in 0..10 {
        runs.push((n, s.start(&format!("after {n}"), Trip::new(n)).await));
        s.ask(&[Ask::Job(format!("after job {n}"), Errand::new(n))], None).await;
    }
    for (n, run_id) in runs {
        s.succeeded(run_id, Trip::new(n).answer(0)).await;
    }
}

#[tokio::test]
async fn f04_a_commit_whose_answer_is_lost_counts_once() {
    let mut s = Scenario::new("F4", "the record is found; each effect once").await;
    let proxy = Proxy::start(s.server.port).await;
    let url = s.server.url_at(proxy.port);
    s.worker_with("unheard", Duties::default(), &url, &[]);
    s.worker_with("unheard too", Duties::default(), &url, &[]);
    let wanted = sized(40, 1000);
    proxy.wire.cut_commits.store(3, Ordering::Relaxed);
    proxy.wire.cut_statements.store(40, Ordering::Relaxed);
    let (mut n, began) = (0, Instant::now());
    while proxy.wire.done.load(Ordering::Relaxed) < wanted {
        start_trips(&s, n, 4).await;
        n += 4;
        s.until(
            0,
            "select greatest(count(*) - 40, 0) from workflow.tasks where kind = 'run'",
            Duration::from_secs(120),
        )
        .await;
        assert!(began.elapsed() < sized(Duration::from_secs(100), Duration::from_secs(400)), "nothing is cut");
    }
    s.injected(proxy.wire.done.load(Ordering::Relaxed));
    proxy.wire.cut_commits.store(0, Ordering::Relaxed);
    proxy.wire.cut_statements.store(0, Ordering::Relaxed);
    all_trips_arrive(&s, i64::from(n), Duration::from_secs(120)).await;
    s.finish(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn f05_workers_outlive_a_crash_of_the_database() {
    let mut s = Scenario::new("F5", "no worker exits; nothing acknowledged is lost; first claim soon after").await;
    let workers = [s.worker("one", Duties::default()), s.worker("two", Duties::default())];
    let mut slowest = Duration::ZERO;
    let rounds = sized(1, 5);
    for round in 0..rounds {
        start_trips(&s, round * 20, 20).await;
        let moment = s.random(100..400);
        tokio::time::sleep(Duration::from_millis(moment)).await;
        s.crash_database(sized(Duration::from_secs(1), Duration::from_secs(5))).await;
        let (up_at, up) = (Instant::now(), crate::ledger::now());
        let fresh = loop {
            match try_start(&s, round * 20 + 1000).await {
                Ok(()) => break Instant::now(),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        s.noted(|e| e.what == What::Begun && e.at > up, Duration::from_secs(60)).await;
        slowest = slowest.max(up_at.elapsed());
        assert!(fresh.elapsed() < Duration::from_secs(60));
        s.check_safety().await;
    }
    assert!(slowest < sized(Duration::from_secs(30), Duration::from_secs(5)), "first claim after {slowest:?}");
    s.note(format!("first work {slowest:.1?} after it was up"));
    all_trips_arrive(&s, i64::from(rounds * 21), Duration::from_secs(120)).await;
    assert!(workers.into_iter().all(|n| !s.process(n).is_over()), "a worker has exited");
    s.finish(Duration::from_secs(30)).await;
}

#[tokio::test]
#[ignore = "the long form: make chaos"]
async fn f06_a_database_that_crashes_every_few_seconds_also_while_it_is_recovered_from() {
    let mut s = Scenario::new("F6", "all terminal; workers killed too; crashes within 1 s of a recovery").await;
    for n in 0..4 {
        s.worker(&format!("worker {n}"), Duties { slots: 16, schedules: n == 0, ..Duties::default() });
    }
    let until = Instant::now() + Duration::from_secs(soaked(90, 600));
    let (mut n, mut nested, mut killed) = (0, 0, 0);
    let mut signalled = std::collections::HashSet::new();
    while Instant::now() < until {
        let calm = Instant::now() + Duration::from_millis(s.random(soaked(2_000..8_000, 5_000..40_000)));
        while Instant::now() < calm {
            if try_start(&s, n).await.is_ok() {
                n += 1;
            }
            // In the longest form two signals a trip: 5,000 of the one and 10,000 of the other in ten minutes.
            for key in
                (0..2).map(|twin| format!("waiting {n} {twin}")).take(if soak() { 2 } else { usize::from(n % 3 == 0) })
            {
                if !signalled.contains(&key) && wait_for_signal(&s, &key).await.is_ok() {
                    signalled.insert(key);
                }
            }
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
        if s.random(0..3) == 0 {
            let victim = s.random(0..4) as usize;
            s.process(victim).signal("KILL");
            killed += 1;
        }
        let away = s.random(50..1_500);
        s.crash_database(Duration::from_millis(away)).await;
        if s.random(0..2) == 0 {
            // Again, while everybody recovers.
            let moment = s.random(50..1_000);
            tokio::time::sleep(Duration::from_millis(moment)).await;
            s.crash_database(Duration::from_millis(200)).await;
            nested += 1;
        }
        s.revive();
    }
    if soak() {
        assert!(n >= 5_000 && signalled.len() >= 10_000, "too slow a machine: {n} trips, {} signals", signalled.len());
    }
    s.note(format!(
        "{n} trips, {} signals, {nested} crashes during recovery, {killed} workers killed",
        signalled.len()
    ));
    s.revive();
    all_trips_arrive_beside_waiting(&s, i64::from(n), signalled.len() as i64).await;
    tail(&mut s).await;
    s.finish(Duration::from_secs(60)).await;
}

/// A trip that waits, and its signal; either may have to be sent again.
async fn wait_for_signal(s: &Scenario, key: &str) -> Result<(), flatrender_engine::client::Error> {
    let mut tx = s.db.begin().await?;
    let trip = Trip { waits: true, ..Trip::new(1) };
    let started = s.client.start(&mut tx, s.tenant, Some(key), trip).await?;
    sqlx::query("insert into accepted (key, what, run_id) values ($1, 'waiting', $2) on conflict do nothing")
        .bind(key)
        .bind(started.run_id)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    let mut tx = s.db.begin().await?;
    let _ = s.client.signal(&mut tx, started.run_id, "go", Some("once"), &7).await?;
    tx.commit().await?;
    s.client.announce();
    Ok(())
}

async fn all_trips_arrive_beside_waiting(s: &Scenario, trips: i64, waiting: i64) {
    let plain = "select count(*) from workflow.runs where business_key like 'trip %' and state = 'succeeded'";
    s.until(trips, plain, Duration::from_secs(180)).await;
    // One whose signal was never acknowledged is not among them; it gets it now.
    let lonely: Vec<uuid::Uuid> =
        sqlx::query_scalar("select id from workflow.runs where business_key like 'waiting %' and state = 'running'")
            .fetch_all(&s.db)
            .await
            .unwrap();
    for run_id in lonely {
        let _ = s.signal(run_id, Some("once"), 7).await;
    }
    let answered = "select count(*) from workflow.runs where business_key like 'waiting %' and output = '17'";
    let all = "select count(*) from workflow.runs where business_key like 'waiting %'";
    let all = s.count(all).await;
    assert!(all >= waiting);
    s.until(all, answered, Duration::from_secs(60)).await;
}

#[tokio::test]
async fn f07_without_notifications_work_is_found_within_the_poll() {
    let mut s = Scenario::new("F7", "pickup within the poll ceiling (5 s); nothing lost").await;
    let proxy = Proxy::start(s.server.port).await;
    proxy.wire.mute.store(true, Ordering::Relaxed);
    let url = s.server.url_at(proxy.port);
    s.worker_with("deaf", Duties { errands: false, ..Duties::default() }, &url, &[]);
    s.worker_with("deaf too", Duties { runs: false, ..Duties::default() }, &url, &[]);
    let mut waits = Vec::new();
    for n in 0..sized(2, 12) {
        let pause = s.random(0..400);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let asked = crate::ledger::now();
        s.ask(&[Ask::Job(format!("job {n}"), Errand::new(n))], None).await;
        let began =
            s.noted(|e| e.what == What::Begun && e.run_id.is_nil() && e.at > asked, Duration::from_secs(30)).await;
        waits.push(Duration::from_micros(began.at - asked));
        let run_id = s.start(&format!("single {n}"), Single(Errand::new(n))).await;
        s.succeeded(run_id, i64::from(n) * 2).await;
    }
    waits.sort();
    let (middle, last) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    s.injected(proxy.wire.done.load(Ordering::Relaxed));
    assert!(proxy.wire.done.load(Ordering::Relaxed) > 0, "no notification was sent at all");
    assert!(last < sized(Duration::from_secs(10), Duration::from_millis(5_600)), "{waits:?}");
    s.note(format!("pickup p50 {middle:.1?}, max {last:.1?}"));
    s.finish(Duration::from_secs(30)).await;
}

#[tokio::test]
async fn f09_sessions_that_are_ended_again_and_again_lose_nothing() {
    let mut s = Scenario::new("F9", "no worker exits; each effect once").await;
    let workers = [s.worker("one", Duties::default()), s.worker("two", Duties::default())];
    let until = Instant::now() + sized(Duration::from_secs(4), Duration::from_secs(40));
    let mut admin = PgConnection::connect(&s.server.url()).await.unwrap();
    let mut n = 0;
    while Instant::now() < until {
        if n < sized(60, 600) && try_start(&s, n).await.is_ok() {
            n += 1;
        }
        let ended = sqlx::query(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where pid <> pg_backend_pid() and backend_type = 'client backend' order by random() limit 1",
        )
        .execute(&mut admin)
        .await
        .unwrap();
        s.injected(ended.rows_affected() as u32);
        tokio::time::sleep(Duration::from_millis(sized(60, 200))).await;
    }
    all_trips_arrive(&s, i64::from(n), Duration::from_secs(120)).await;
    assert!(workers.into_iter().all(|n| !s.process(n).is_over()), "a worker has exited");
    s.finish(Duration::from_secs(30)).await;
}

#[tokio::test]
async fn f11_a_table_that_is_locked_for_long_is_waited_for() {
    let mut s = Scenario::new("F11", "statements time out and are repeated; nothing hangs after it").await;
    s.worker("one", Duties::default());
    s.worker("two", Duties::default());
    start_trips(&s, 0, 20).await;
    let held = sized(Duration::from_secs(3), Duration::from_secs(20));
    let mut admin = PgConnection::connect(&s.server.url()).await.unwrap();
    let mut tx = admin.begin().await.unwrap();
    sqlx::raw_sql("lock table workflow.tasks in access exclusive mode").execute(&mut *tx).await.unwrap();
    s.injected(1);
    tokio::time::sleep(held).await;
    tx.rollback().await.unwrap();
    let released = Instant::now();
    all_trips_arrive(&s, 20, Duration::from_secs(60)).await;
    s.note(format!("all done {:.1?} after the release", released.elapsed()));
    tail(&mut s).await;
    s.finish(Duration::from_secs(30)).await;
}

#[tokio::test]
#[ignore = "the long form: make chaos"]
async fn f10_all_connections_taken_by_others_for_a_while() {
    let mut s = Scenario::with("F10", "no double effects; drained soon after", &["max_connections=40"]).await;
    let workers = [s.worker("one", Duties::default()), s.worker("two", Duties::default())];
    start_trips(&s, 0, 20).await;
    let others: PgConnectOptions = s.server.url().parse().unwrap();
    let others = others.application_name("others");
    // Sessions of workers have no name; they are ended again and again, and whatever becomes free is taken.
    let theirs = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                  where backend_type = 'client backend' and application_name = ''";
    let (mut taken, mut n, mut without) = (vec![PgConnection::connect_with(&others).await.unwrap()], 20, 0);
    let until = Instant::now() + Duration::from_secs(60);
    while Instant::now() < until {
        let ended: i64 = sqlx::query_scalar(theirs).fetch_one(&mut taken[0]).await.unwrap();
        s.injected(ended as u32);
        without += u32::from(ended == 0);
        while let Ok(db) = PgConnection::connect_with(&others).await {
            taken.push(db);
        }
        // Nobody is there to do what is asked for now.
        if n < 100 && try_start(&s, n).await.is_ok() {
            n += 1;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let left = s.count("select count(*) from workflow.runs where kind = 'trip' and state = 'running'").await;
    assert!(without > 100 && left > 50, "there were connections: {without} looks without, {left} trips left");
    s.note(format!("{} connections taken, {left} trips wait", taken.len()));
    drop(taken);
    let free = Instant::now();
    all_trips_arrive(&s, i64::from(n), Duration::from_secs(60)).await;
    s.note(format!("drained {:.1?} after", free.elapsed()));
    assert!(workers.into_iter().all(|n| !s.process(n).is_over()), "a worker has exited");
    tail(&mut s).await;
    s.finish(Duration::from_secs(30)).await;
}

#[tokio::test]
#[ignore = "the long form: make chaos"]
async fn f33_a_connection_that_falls_silent_is_given_up() {
    let mut s = Scenario::new("F33", "noticed within 15 s; work goes on by new connections").await;
    let proxy = Proxy::start(s.server.port).await;
    let url = s.server.url_at(proxy.port);
    s.worker_with("cut off", Duties::default(), &url, &[]);
    let mut slowest = Duration::ZERO;
    for round in 0..3 {
        start_trips(&s, round * 30, 30).await;
        let moment = s.random(50..300);
        tokio::time::sleep(Duration::from_millis(moment)).await;
        proxy.swallow();
        s.injected(1);
        let (silent, at) = (Instant::now(), crate::ledger::now());
        let run_id = s.start(&format!("fresh {round}"), Single(Errand::new(round))).await;
        s.noted(|e| e.run_id == run_id && e.what == What::Begun && e.at > at, Duration::from_secs(60)).await;
        slowest = slowest.max(silent.elapsed());
        all_trips_arrive(&s, i64::from(round * 30 + 30), Duration::from_secs(90)).await;
        s.note(format!("all done {:.1?} after", silent.elapsed()));
    }
    assert!(slowest < Duration::from_secs(17), "{slowest:?}");
    s.finish(Duration::from_secs(30)).await;
}

#[tokio::test]
async fn f36_a_pooler_that_resets_sessions_does_not_reach_the_handlers() {
    let mut s = Scenario::new("F36", "no error reaches a handler; no attempt fails").await;
    let proxy = Proxy::start(s.server.port).await;
    proxy.wire.discard.store(31, Ordering::Relaxed);
    // A pooler does not give a session to others that listens or holds a lock; see `Talk::keeps`.
    let url = s.server.url_at(proxy.port);
    s.worker_with("pooled", Duties::default(), &url, &[]);
    let count = sized(10, 100);
    start_trips(&s, 0, count).await;
    for n in 0..count {
        s.ask(&[Ask::Job(format!("job {n}"), Errand::new(n))], None).await;
    }
    all_trips_arrive(&s, i64::from(count), Duration::from_secs(120)).await;
    s.until(0, "select count(*) from workflow.jobs", Duration::from_secs(60)).await;
    s.injected(proxy.wire.done.load(Ordering::Relaxed));
    let failed = "select count(*) from workflow.attempts where outcome = 'failed'";
    assert_eq!(s.count(failed).await, 0);
    assert_eq!(s.count("select count(*) from workflow.finished_jobs where outcome <> 'ok'").await, 0);
    proxy.wire.discard.store(0, Ordering::Relaxed);
    s.server.stop(Stop::Fast);
    s.server.restart();
    tail(&mut s).await;
    s.finish(Duration::from_secs(30)).await;
}
