//! Too much, for too long, and no room left.

use crate::{
    ledger::What,
    postgres::give_away,
    program::Duties,
    scenario::{Scenario, sized, soak, soaked},
    work::{Blob, Errand, Manner, Trip},
};
use flatrender_engine::{JobOptions, client::Error};
use sqlx::{Connection, PgConnection};
use std::{
    collections::HashMap,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

async fn enqueue(s: &Scenario, count: u32) {
    let mut tx = s.db.begin().await.unwrap();
    let jobs = (0..count).map(|n| Errand::that(n, Manner::Quiet));
    s.client.enqueue_all(&mut tx, s.tenant, jobs, &JobOptions::default()).await.unwrap();
    sqlx::query("insert into accepted (key, what) select gen_random_uuid()::text, 'job' from generate_series(1, $1)")
        .bind(count as i32)
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    s.client.announce();
}

const FINISHED: &str = "select count(*) from workflow.finished_jobs";

/// Enqueues at a rate for a while; gives how many were finished a second.
async fn steady(s: &Scenario, rate: u32, seconds: u64) -> f64 {
    let (began, before) = (Instant::now(), s.count(FINISHED).await);
    let mut sent = 0;
    while began.elapsed() < Duration::from_secs(seconds) {
        let due = (began.elapsed().as_secs_f64() * f64::from(rate)) as u32;
        if due > sent {
            enqueue(s, due - sent).await;
            sent = due;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    (s.count(FINISHED).await - before) as f64 / began.elapsed().as_secs_f64()
}

#[tokio::test]
#[ignore = "the long form: make chaos"]
async fn f08_a_transaction_that_pins_the_horizon_does_not_stop_the_queue() {
    let mut s = Scenario::new("F8", "at least 70 % of the throughput before; backlog bounded").await;
    s.worker("one", Duties { slots: 64, runs: false, ..Duties::default() });
    s.worker("two", Duties { slots: 64, runs: false, ..Duties::default() });
    let rate = 500;
    let free = steady(&s, rate, soaked(10, 60)).await;
    let mut idle = PgConnection::connect(&s.server.url()).await.unwrap();
    sqlx::raw_sql("begin isolation level repeatable read; select count(*) from workflow.jobs")
        .execute(&mut idle)
        .await
        .unwrap();
    let url = s.server.url();
    let readers: Vec<_> = (0..3u64)
        .map(|n| {
            let url = url.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(n * soaked(7, 60))).await;
                let mut db = PgConnection::connect(&url).await.unwrap();
                let sql = format!("select count(*), pg_sleep({}) from workflow.finished_jobs", soaked(20, 120));
                let _ = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut db).await;
            })
        })
        .collect();
    s.injected(4);
    let seconds = soaked(45, 600);
    // The worst third: what swells behind an old snapshot gets slower with time.
    let mut pinned = f64::INFINITY;
    for _ in 0..3 {
        pinned = pinned.min(steady(&s, rate, seconds / 3).await);
    }
    s.note(format!("{free:.0} jobs/s before, {pinned:.0} pinned for {seconds} s"));
    assert!(pinned >= 0.7 * free, "{pinned:.0} of {free:.0} jobs/s");
    let backlog = s.count("select count(*) from workflow.jobs").await;
    assert!(backlog < 1000, "{backlog} wait");
    idle.close().await.unwrap();
    readers.into_iter().for_each(|reader| reader.abort());
    s.finish(Duration::from_secs(60)).await;
}

/// Memory that a process has, in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default().to_owned();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or_default()
}

#[tokio::test]
#[ignore = "the long form: make chaos"]
async fn f35_a_backlog_is_burnt_down_without_becoming_slower() {
    let mut s = Scenario::new("F35", "no slope in the rate and in memory from a backlog to its end").await;
    let backlog: i64 = soaked(50_000, asked_for("FLATRENDER_SOAK_JOBS").unwrap_or(1_000_000));
    for _ in 0..backlog / 5_000 {
        enqueue(&s, 5_000).await;
    }
    let worker = s.worker("one", Duties { slots: 128, runs: false, ..Duties::default() });
    let pid = s.process(worker).pid();
    let (mut marks, mut memory) = (vec![(Instant::now(), 0)], Vec::new());
    let (began, fifth) = (Instant::now(), backlog / 5);
    while marks.last().is_some_and(|(_, n)| *n < backlog) {
        assert!(began.elapsed() < Duration::from_secs(soaked(240, 3_600)), "{marks:?}");
        // Counting a million takes its time.
        tokio::time::sleep(Duration::from_millis(soaked(100, 5_000))).await;
        let n = s.count(FINISHED).await;
        if n / fifth > marks[marks.len() - 1].1 / fifth {
            marks.push((Instant::now(), n));
            memory.push(resident(pid));
        }
    }
    s.injected(1);
    let rates: Vec<f64> =
        marks.windows(2).map(|w| (w[1].1 - w[0].1) as f64 / (w[1].0 - w[0].0).as_secs_f64()).collect();
    s.note(format!("{backlog} jobs, by fifths {rates:.0?} jobs/s, memory {memory:?} KiB"));
    let first = rates[1..].iter().copied().fold(f64::INFINITY, f64::min);
    assert!(first >= 0.5 * rates[0], "{rates:?}");
    assert!(memory[memory.len() - 1] < memory[0] + 32 * 1024, "{memory:?} KiB");
    if soak() {
        bear(&mut s, pid).await;
    }
    s.finish(Duration::from_secs(60)).await;
}

fn asked_for<T: std::str::FromStr>(variable: &str) -> Option<T> {
    std::env::var(variable).ok()?.parse().ok()
}

/// 300 jobs a second for four hours, or for `FLATRENDER_SOAK_SECONDS`: neither pickup nor tables nor memory grow. What one minute
/// shows is compared in quarters: the second, when all is warm, with the last.
async fn bear(s: &mut Scenario, pid: u32) {
    // Four quarters of a minute or more.
    let seconds = asked_for("FLATRENDER_SOAK_SECONDS").unwrap_or(4 * 3_600).max(300);
    let until = Instant::now() + Duration::from_secs(seconds);
    let (mut pickup, mut tables, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    while Instant::now() < until {
        let (client, db, tenant) = (s.client.clone(), s.db.clone(), s.tenant);
        let probe = tokio::spawn(async move {
            let mut asked = Vec::new();
            for n in 0..120 {
                let mut tx = db.begin().await.unwrap();
                let job = client.enqueue(&mut tx, tenant, Errand::new(n), &JobOptions::default()).await.unwrap();
                let key = format!("probe {}", uuid::Uuid::new_v4());
                sqlx::query("insert into accepted (key, what, job_id) values ($1, 'job', $2)")
                    .bind(key)
                    .bind(job.job_id)
                    .execute(&mut *tx)
                    .await
                    .unwrap();
                tx.commit().await.unwrap();
                asked.push((job.job_id, crate::ledger::now()));
                client.announce();
                tokio::time::sleep(Duration::from_millis(450)).await;
            }
            asked
        });
        let rate = steady(s, 300, 60).await;
        assert!(rate > 285.0, "{rate:.0} of 300 jobs/s");
        let asked: HashMap<i64, u64> = probe.await.unwrap().into_iter().collect();
        let begun = s.ledger().into_iter().filter(|e| e.what == What::Begun && e.run_id.is_nil());
        let mut waits: Vec<u64> = begun.filter_map(|e| Some(e.at.saturating_sub(*asked.get(&e.task_id)?))).collect();
        waits.sort_unstable();
        assert!(waits.len() >= 100, "{} of {} probes were taken up", waits.len(), asked.len());
        pickup.push(waits[waits.len() * 99 / 100]);
        tables.push(s.count("select pg_total_relation_size('workflow.jobs')").await as u64);
        memory.push(resident(pid));
    }
    s.injected(1);
    for (what, values, spare) in [
        ("pickup p99, µs", pickup, 5_000),
        ("size of workflow.jobs, bytes", tables, 1 << 20),
        ("memory, KiB", memory, 4_096),
    ] {
        let quarter = (values.len() / 4).max(1);
        let middle = |part: &[u64]| {
            let mut part = part.to_vec();
            part.sort_unstable();
            part[part.len() / 2]
        };
        let (warm, last) =
            (middle(&values[quarter.min(values.len() - 1)..][..quarter]), middle(&values[values.len() - quarter..]));
        s.note(format!("{what}: {warm}, at last {last}"));
        assert!(last as f64 <= 1.05 * warm as f64 + f64::from(spare), "{what} grow: {values:?}");
    }
}

/// A file system of a few MiB; none where nobody may mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(mib: u32) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("fr-chaos-disk.").tempdir().unwrap();
        let mut mount = Command::new("mount");
        let mounted =
            mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(folder.path()).output().ok()?;
        mounted.status.success().then_some(Self(folder))
    }

    fn fill(&self) {
        // Ends when there is no room.
        let _ = std::fs::write(self.0.path().join("filler"), vec![1; 256 << 20]);
    }

    fn clear(&self) {
        std::fs::remove_file(self.0.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn f22_payloads_at_the_limit_and_a_disk_that_is_full() {
    let mut s = Scenario::new("F22", "typed error at the edge; waits for room; nothing corrupt").await;
    // One byte less than the limit, quotes and brackets included, and one byte more.
    let fits = Blob { text: "x".repeat(262_144 - Blob::AROUND) };
    let mut tx = s.db.begin().await.unwrap();
    let refused = s.client.start(&mut tx, s.tenant, None, Blob { text: format!("{}x", fits.text) }).await;
    assert!(matches!(refused, Err(Error::Unrecordable(_))), "{refused:?}");
    tx.rollback().await.unwrap();
    s.worker("one", Duties::default());
    let run_id = s.start("fits", fits).await;
    s.succeeded(run_id, 262_144 - Blob::AROUND as i64).await;
    let Some(disk) = SmallDisk::mount(24) else {
        s.note("disk full LEFT OUT: nobody may mount here");
        return s.finish(Duration::from_secs(20)).await;
    };
    let place = disk.0.path().join("space");
    std::fs::create_dir(&place).unwrap();
    give_away(disk.0.path());
    give_away(&place);
    let mut db = PgConnection::connect(&s.server.url()).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("create tablespace small location '{}'", place.display())))
        .execute(&mut db)
        .await
        .unwrap();
    let moves = "select format('alter table %s set tablespace small', t.relid::text)
                 from unnest(array['workflow.steps', 'workflow.attempts', 'effects']::regclass[]) whole,
                      pg_partition_tree(whole) t where t.isleaf";
    let moves: Vec<String> = sqlx::query_scalar(moves).fetch_all(&mut db).await.unwrap();
    for table in moves {
        sqlx::raw_sql(sqlx::AssertSqlSafe(table)).execute(&mut db).await.unwrap();
    }
    let rounds = sized(1, 3);
    for round in 0..rounds {
        let mut runs = Vec::new();
        disk.fill();
        s.injected(1);
        for n in 0..100 {
            let n = round * 100 + n;
            runs.push((n, s.start(&format!("trip {n}"), Trip::new(n)).await));
        }
        tokio::time::sleep(sized(Duration::from_secs(2), Duration::from_secs(8))).await;
        let stuck =
            s.count("select count(*) from workflow.runs where business_key is not null and state = 'running'").await;
        assert!(stuck > 50, "the disk was not full enough: {stuck} runs wait");
        assert!(s.server.log().contains("No space left on device"));
        s.check_safety().await;
        disk.clear();
        let room = Instant::now();
        for (n, run_id) in runs {
            s.succeeded(run_id, Trip::new(n).answer(0)).await;
        }
        s.note(format!("{stuck} runs waited; done {:.1?} after", room.elapsed()));
    }
    s.check_safety().await;
    crate::checker::quiet(&s.db, Duration::from_secs(20)).await;
    s.check_all().await;
    s.close().await;
    s.server.stop(crate::postgres::Stop::Immediate);
}

/// Keeps the longest time, in milliseconds, that anybody is seen to wait for a table that is about to change.
async fn watch_waits(db: sqlx::PgPool, longest: Arc<AtomicU64>) {
    let sql = "select coalesce(max(extract(epoch from clock_timestamp() - waitstart) * 1000), 0)::bigint from pg_locks
               where not granted and locktype = 'relation'";
    loop {
        let waited: i64 = sqlx::query_scalar(sql).fetch_one(&db).await.unwrap_or_default();
        longest.fetch_max(waited as u64, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
#[ignore = "the long form: make chaos"]
async fn f28_the_schema_changes_under_load() {
    let mut s = Scenario::with(
        "F28",
        "nothing is blocked for more than 1 s; prepared statements survive",
        &["max_connections=200"],
    )
    .await;
    s.worker("old", Duties::default());
    s.worker("old too", Duties::default());
    let mut admin = PgConnection::connect(&s.server.url()).await.unwrap();
    // As a migration should: it gives way after a moment, and tries again. What builds beside the others blocks nobody.
    let changes = [
        ("300ms", "alter table workflow.runs add column later_a text"),
        ("300ms", "alter table workflow.tasks add column later_b int"),
        ("300ms", "alter table workflow.steps add column later_c jsonb"),
        ("300ms", "alter table workflow.jobs add column later_d int"),
        ("300ms", "alter table workflow.workers add column later_e text"),
        ("0", "create index concurrently later_f on workflow.tasks (tenant_id)"),
        ("300ms", "alter table workflow.runs drop column later_a"),
        ("300ms", "alter table workflow.tasks drop column later_b"),
    ];
    let longest = Arc::new(AtomicU64::new(0));
    let watch = tokio::spawn(watch_waits(s.db.clone(), longest.clone()));
    let (mut n, mut runs, mut gave_way) = (0, Vec::new(), 0);
    for (patience, change) in changes {
        for _ in 0..20 {
            runs.push((n, s.start(&format!("trip {n}"), Trip { takes_ms: 30, ..Trip::new(n) }).await));
            n += 1;
        }
        let patience = format!("set lock_timeout = '{patience}'");
        sqlx::raw_sql(sqlx::AssertSqlSafe(patience)).execute(&mut admin).await.unwrap();
        while let Err(error) = sqlx::raw_sql(change).execute(&mut admin).await {
            let code = error.as_database_error().and_then(|e| e.code().map(|code| code.into_owned()));
            assert_eq!(code.as_deref(), Some("55P03"), "{change}: {error}");
            gave_way += 1;
            assert!(gave_way < 200, "{change} never has its turn");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        s.injected(1);
        // New processes come up beside the old ones.
        flatrender_engine::schema::install(&s.db).await.unwrap();
        s.worker("new", Duties { slots: 4, ..Duties::default() });
    }
    watch.abort();
    let blocked = longest.load(Ordering::Relaxed);
    assert!(blocked < 1000, "a statement was blocked for {blocked} ms");
    s.note(format!("longest wait for a lock {blocked} ms; gave way {gave_way} times"));
    for (n, run_id) in runs {
        s.succeeded(run_id, Trip::new(n).answer(0)).await;
    }
    assert_eq!(s.count("select count(*) from workflow.attempts where outcome in ('failed', 'lost')").await, 0);
    s.finish(Duration::from_secs(60)).await;
}
