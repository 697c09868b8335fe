//! Queues with terms: turns by slot-seconds, caps, rates. Judged by what handlers have seen, and by the stamps of leases.

mod terms;

use crate::world::{OneWork, Tool, Work, World};
use flatrender_engine::{
    JobOptions, Labels, Policy, Worker,
    operations::{By, Operations, Rate, Share, Terms},
};
use sqlx::{PgConnection, PgPool, postgres::PgPoolOptions};
use std::{
    collections::{HashMap, VecDeque},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const OK: &str = "select count(*) from workflow.finished_jobs where outcome = 'ok'";
const URL: &str = "FLATRENDER_LIMITS_URL";

async fn set(world: &World, terms: &Terms) {
    let mut tx = world.db.begin().await.unwrap();
    let operations = Operations::new(world.client.clone());
    operations.set_terms(&mut tx, &By::new("ada").because("a small licence"), "work", terms).await.unwrap();
    tx.commit().await.unwrap();
    world.client.announce();
}

async fn weigh(world: &World, tenant: Uuid, share: Share) {
    let mut tx = world.db.begin().await.unwrap();
    let operations = Operations::new(world.client.clone());
    operations.set_share(&mut tx, &By::new("ada"), "work", tenant, Some(share)).await.unwrap();
    tx.commit().await.unwrap();
}

async fn enqueue(world: &World, tenant: Uuid, jobs: impl IntoIterator<Item = Work>) {
    let mut tx = world.db.begin().await.unwrap();
    world.client.enqueue_all(&mut tx, tenant, jobs, &JobOptions::default()).await.unwrap();
    tx.commit().await.unwrap();
    world.client.announce();
}

fn keyed(n: u32, key: &str) -> Work {
    Work { limit_key: Some(key.to_owned()), ..Work::new(n) }
}

/// Whom a handler worked for, under which key, from when, until when.
type Shift = (Uuid, Option<String>, Instant, Option<Instant>);

/// When handlers worked.
#[derive(Debug, Clone, Default)]
struct Shifts(Arc<Mutex<Vec<Shift>>>);

impl Shifts {
    /// A handler that takes as many milliseconds as the work says.
    fn tool(&self) -> Tool {
        let shifts = self.clone();
        Tool::new(move |cx, work| {
            let (shifts, tenant) = (shifts.clone(), cx.task().tenant_id);
            async move {
                let n = {
                    let mut all = shifts.0.lock().unwrap();
                    all.push((tenant, work.limit_key, Instant::now(), None));
                    all.len() - 1
                };
                tokio::time::sleep(Duration::from_millis(u64::from(work.n))).await;
                shifts.0.lock().unwrap()[n].3 = Some(Instant::now());
                Ok(work.n)
            }
        })
    }

    /// The most handlers that worked at the same time, of those with the same name.
    fn most<K: Eq + std::hash::Hash>(&self, name: impl Fn(Uuid, Option<&str>) -> Option<K>) -> i64 {
        let mut changes = Vec::new();
        let shifts = self.0.lock().unwrap();
        for (n, (tenant, key, from, to)) in shifts.iter().enumerate() {
            if name(*tenant, key.as_deref()).is_some() {
                changes.push((*from, 1, n));
                changes.extend(to.map(|to| (to, -1, n)));
            }
        }
        changes.sort_by_key(|(at, change, _)| (*at, *change));
        let (mut now, mut most) = (HashMap::new(), 0);
        for (_, change, n) in changes {
            let count = now.entry(name(shifts[n].0, shifts[n].1.as_deref())).or_insert(0);
            *count += change;
            most = most.max(*count);
        }
        most
    }
}

const A: Uuid = Uuid::from_u128(0xa);
const B: Uuid = Uuid::from_u128(0xb);

// ------------------------------------------------------------------------------------------- turns

/// A job of a farm: seconds since the farm opened.
#[derive(Debug, Clone, Copy)]
struct Stay {
    tenant: Uuid,
    arrived: f64,
    began: f64,
    ended: f64,
}

/// Slots that are claimed for by hand, while the clock jumps from the end of one job to that of the next: what takes minutes is
/// decided in milliseconds, however busy this machine is.
async fn farm(world: &World, slots: usize, jobs: &[(f64, Uuid, u32)], until: f64) -> Vec<Stay> {
    let (mut now, mut jobs) = (0.0, jobs.iter().peekable());
    let mut arrivals = HashMap::<Uuid, VecDeque<f64>>::new();
    let (mut busy, mut stays) = (Vec::<(f64, i64, Stay)>::new(), Vec::new());
    while now < until {
        while let Some((at, tenant, seconds)) = jobs.next_if(|job| job.0 <= now) {
            enqueue(world, *tenant, [Work::new(*seconds)]).await;
            arrivals.entry(*tenant).or_default().push_back(*at);
        }
        for (id, tenant, input) in claim_jobs(world, slots - busy.len()).await {
            let seconds = input["n"].as_f64().unwrap();
            // What was there when the farm opened came at its beginning.
            let arrived = arrivals.entry(tenant).or_default().pop_front().unwrap_or_default();
            busy.push((now + seconds, id, Stay { tenant, arrived, began: now, ended: now + seconds }));
        }
        busy.sort_by(|a, b| a.0.total_cmp(&b.0));
        let next = busy.first().map_or(f64::INFINITY, |b| b.0).min(jobs.peek().map_or(f64::INFINITY, |job| job.0));
        world.move_clock(Duration::from_secs_f64(next - now)).await;
        now = next;
        while busy.first().is_some_and(|b| b.0 <= now) {
            let (_, id, stay) = busy.remove(0);
            sqlx::query("select workflow.pump_jobs(1, array[$1], array[$2], array[null::jsonb], '[]', '[]', $2, '{}')")
                .bind(id)
                .bind(A)
                .execute(&world.db)
                .await
                .unwrap();
            stays.push(stay);
        }
    }
    stays
}

fn slot_seconds(stays: &[Stay], tenant: Uuid, from: f64, to: f64) -> f64 {
    let own = stays.iter().filter(|stay| stay.tenant == tenant);
    own.map(|stay| (stay.ended.min(to) - stay.began.max(from)).max(0.0)).sum()
}

#[sqlx::test(migrations = false)]
async fn a_flood_of_one_tenant_does_not_hold_up_another(db: PgPool) {
    let world = World::new(db).await;
    set(&world, &Terms::default()).await;
    enqueue(&world, A, vec![Work::new(10); 10_000]).await;
    // Somewhat less than its share, which is two of the four slots.
    let small: Vec<_> = (0..20).map(|n| (30.0 + 6.0 * f64::from(n), B, 10)).collect();
    let stays = farm(&world, 4, &small, 300.0).await;
    let mut waits: Vec<f64> = stays.iter().filter(|s| s.tenant == B).map(|s| s.began - s.arrived).collect();
    waits.sort_by(f64::total_cmp);
    assert_eq!(waits.len(), 20);
    assert!(waits[18] <= 20.0, "the 95th percentile of the waits is {} s; a job takes 10 s", waits[18]);
    assert!(slot_seconds(&stays, A, 0.0, 290.0) > 4.0 * 290.0 - 250.0, "the flood has the rest");
}

/// What two tenants who have more to do than there is room for get of four slots, in parts of one; the jobs of the second take
/// three times as long.
async fn shares(world: &World) -> (f64, f64) {
    let jobs: Vec<_> = (0..400).map(|n| (0.0, [A, B][n % 2], [20, 60][n % 2])).collect();
    let stays = farm(world, 4, &jobs, 1300.0).await;
    let (a, b) = (slot_seconds(&stays, A, 0.0, 1200.0), slot_seconds(&stays, B, 0.0, 1200.0));
    assert!(a + b > 0.99 * 4.0 * 1200.0, "{a} and {b}");
    (a / (a + b), b / (a + b))
}

#[sqlx::test(migrations = false)]
async fn tenants_share_the_time_of_slots_and_not_their_number(db: PgPool) {
    let world = World::new(db).await;
    set(&world, &Terms::default()).await;
    let (a, b) = shares(&world).await;
    let jain = (a + b).powi(2) / (2.0 * (a * a + b * b));
    assert!(jain >= 0.95, "Jain's index is {jain}: {a} and {b}");
}

#[sqlx::test(migrations = false)]
async fn weights_of_one_and_three_give_a_quarter_and_three(db: PgPool) {
    let world = World::new(db).await;
    set(&world, &Terms::default()).await;
    weigh(&world, B, Share { weight: 3.0, cap: None }).await;
    let (a, b) = shares(&world).await;
    assert!((a - 0.25).abs() <= 0.03, "{a} and {b}");
}

#[sqlx::test(migrations = false)]
async fn who_comes_back_has_saved_nothing_up(db: PgPool) {
    let world = World::new(db).await;
    set(&world, &Terms::default()).await;
    enqueue(&world, A, (0..100).map(Work::new)).await;
    for _ in 0..20 {
        claim(&world, 1).await;
    }
    enqueue(&world, B, (0..100).map(Work::new)).await;
    let tenants = claim(&world, 10).await;
    let of_b = tenants.iter().filter(|t| **t == B).count();
    assert!((4..=6).contains(&of_b), "{tenants:?}");
}

#[sqlx::test(migrations = false)]
async fn priority_goes_within_a_tenant_and_its_keys_take_turns(db: PgPool) {
    let mut world = World::new(db).await;
    set(&world, &Terms::default()).await;
    enqueue(&world, A, [keyed(1, "x"), keyed(2, "x"), keyed(3, "y")]).await;
    let options = JobOptions { priority: 5, ..JobOptions::default() };
    let mut tx = world.db.begin().await.unwrap();
    world.client.enqueue(&mut tx, A, keyed(4, "x"), &options).await.unwrap();
    tx.commit().await.unwrap();
    world.worker(|w| w.handler::<Work>(Tool::doubling()).queue("work", 1));
    world.until(4, OK).await;
    let order: Vec<i32> =
        sqlx::query_scalar("select (input ->> 'n')::int from workflow.finished_jobs order by started_at")
            .fetch_all(&world.db)
            .await
            .unwrap();
    assert_eq!(order, [4, 3, 1, 2]);
}

#[sqlx::test(migrations = false)]
async fn work_that_nobody_here_can_do_holds_up_nobody_else(db: PgPool) {
    let mut world = World::new(db).await;
    set(&world, &Terms { tenant_cap: Some(1), ..Terms::default() }).await;
    let mut picky = keyed(1, "x");
    picky.labels = Labels::from([("gpu".to_owned(), "yes".to_owned())]);
    enqueue(&world, A, [picky.clone(), picky, keyed(2, "y")]).await;
    enqueue(&world, B, [Work::new(3)]).await;
    world.worker(|w| w.handler::<Work>(Tool::doubling()));
    world.until(2, OK).await;
    world.worker(|w| w.handler::<Work>(Tool::doubling()).labels(Labels::from([("gpu".to_owned(), "yes".to_owned())])));
    world.until(4, OK).await;
}

// ------------------------------------------------------------------------------------------- caps

/// Some work for four tenants, with two keys each and without.
async fn four_tenants(world: &World, ms: u32) {
    for tenant in 1..=4 {
        let job = |n| match n % 3 {
            0 => Work::new(ms),
            k => keyed(ms, &format!("key {k}")),
        };
        enqueue(world, Uuid::from_u128(tenant), (0..60).map(job)).await;
    }
}

#[sqlx::test(migrations = false)]
async fn no_cap_is_exceeded_at_any_instant(db: PgPool) {
    let mut world = World::new(db).await;
    set(&world, &Terms { cap: Some(7), tenant_cap: Some(3), key_cap: Some(1), ..Terms::default() }).await;
    weigh(&world, Uuid::from_u128(1), Share { weight: 1.0, cap: Some(2) }).await;
    let shifts = Shifts::default();
    for _ in 0..3 {
        world.worker(|w| w.workflow::<OneWork>().handler::<Work>(shifts.tool()).queue("work", 5));
    }
    four_tenants(&world, 3).await;
    // Activities of runs, and those who claim from afar, are under the same caps.
    world.tenant = Uuid::from_u128(2);
    for _ in 0..20 {
        world.start(OneWork(keyed(3, "key 1"))).await;
    }
    for _ in 0..50 {
        for task in world.client.claim(&["work"], &Labels::new(), "node", 1).await.unwrap() {
            let n = {
                let mut all = shifts.0.lock().unwrap();
                all.push((task.tenant_id, Some("key 1".into()), Instant::now(), None));
                all.len() - 1
            };
            tokio::time::sleep(Duration::from_millis(3)).await;
            shifts.0.lock().unwrap()[n].3 = Some(Instant::now());
            world.client.complete(task.task_id, task.lease_token, &1).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    world.until(240, OK).await;
    world.until(20, "select count(*) from workflow.runs where state = 'succeeded'").await;
    assert_eq!(shifts.0.lock().unwrap().len(), 260);
    assert_eq!(shifts.most(|_, _| Some(())), 7);
    assert_eq!(shifts.most(|tenant, _| (tenant != Uuid::from_u128(1)).then_some(tenant)), 3);
    assert_eq!(shifts.most(|tenant, _| (tenant == Uuid::from_u128(1)).then_some(tenant)), 2);
    assert_eq!(shifts.most(|tenant, key| Some((tenant, key?.to_owned()))), 1);
}

/// Not a test: the process that the next one starts and kills. Its handlers leave a row in the ledger as they begin and end.
#[tokio::test]
#[ignore = "a worker for another test to kill"]
async fn worker_process() {
    let Ok(url) = std::env::var(URL) else { return };
    let db = PgPoolOptions::new().max_connections(4).connect(&url).await.unwrap();
    let ledger = db.clone();
    let tool = Tool::new(move |cx, work| {
        let ledger = ledger.clone();
        async move {
            let n: i64 = sqlx::query_scalar(
                "insert into shifts (tenant_id, process, began) values ($1, $2, clock_timestamp()) returning n",
            )
            .bind(cx.task().tenant_id)
            .bind(std::process::id() as i32)
            .fetch_one(&ledger)
            .await?;
            tokio::time::sleep(Duration::from_millis(work.n.into())).await;
            sqlx::query("update shifts set ended = clock_timestamp() where n = $1").bind(n).execute(&ledger).await?;
            Ok(work.n)
        }
    });
    Worker::builder(db).handler::<Work>(tool).queue("work", 6).run(CancellationToken::new()).await.unwrap();
}

struct Doomed(Child);

impl Drop for Doomed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[sqlx::test(migrations = false)]
async fn caps_hold_and_do_not_leak_when_workers_are_killed(db: PgPool) {
    let world = World::new(db).await;
    sqlx::raw_sql(
        "create table shifts (n bigint generated always as identity, tenant_id uuid, process int, began timestamptz, ended timestamptz)",
    )
    .execute(&world.db)
    .await
    .unwrap();
    set(&world, &Terms { tenant_cap: Some(2), ..Terms::default() }).await;
    for tenant in [A, B] {
        let mut work = Work::new(20);
        work.policy = Policy { max_losses: 1000, ..work.policy };
        enqueue(&world, tenant, (0..100).map(|_| work.clone())).await;
    }
    let name: String = sqlx::query_scalar("select current_database()").fetch_one(&world.db).await.unwrap();
    let server = std::env::var("DATABASE_URL").unwrap();
    let url = format!("{}/{name}", server.rsplit_once('/').unwrap().0);
    let spawn = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "limits::worker_process", "--ignored"]).env(URL, &url);
        Doomed(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    };
    let mut workers = vec![spawn(), spawn()];
    for round in 0..6 {
        tokio::time::sleep(Duration::from_millis(300 + 70 * round)).await;
        let mut doomed = workers.remove(0);
        let id = doomed.0.id() as i32;
        doomed.0.kill().unwrap();
        doomed.0.wait().unwrap();
        // What it was at ended with it.
        sqlx::query("update shifts set ended = clock_timestamp() where ended is null and process = $1")
            .bind(id)
            .execute(&world.db)
            .await
            .unwrap();
        workers.push(spawn());
    }
    world.until(200, OK).await;
    let most = "select max(n) from (
        select sum(change) over (partition by tenant_id order by at, change) as n from (
            select tenant_id, began as at, 1 as change from shifts
            union all
            select tenant_id, ended, -1 from shifts) c) n";
    assert_eq!(world.count(most).await, 2);
    assert!(world.count("select count(*) from workflow.finished_jobs where attempt_no > 1").await > 0);
}

// ------------------------------------------------------------------------------------------- rates

#[sqlx::test(migrations = false)]
async fn no_window_sees_more_than_the_rate_and_the_mean_is_close_to_it(db: PgPool) {
    let mut world = World::new(db).await;
    let rate = Rate::new(10, Duration::from_secs(1)).burst(4);
    set(&world, &Terms { rate: Some(rate), ..Terms::default() }).await;
    enqueue(&world, A, (0..45).map(Work::new)).await;
    for _ in 0..8 {
        world.worker(|w| w.handler::<Work>(Tool::doubling()));
    }
    world.until(45, OK).await;
    let worst = "select max(n) from (
        select count(*) over (order by started_at range between current row and '999999 microseconds' following) as n
        from workflow.finished_jobs) w";
    let worst = world.count(worst).await;
    assert!((10..=14).contains(&worst), "{worst} in a second");
    let mean: f64 = sqlx::query_scalar(
        "select (count(*) - 5) / extract(epoch from max(started_at) - min(started_at))::float8 from workflow.finished_jobs",
    )
    .fetch_one(&world.db)
    .await
    .unwrap();
    // 9.5 and more on a machine that has nothing else to do.
    assert!(mean >= 7.0, "{mean} a second");
}

#[sqlx::test(migrations = false)]
async fn a_rate_of_a_tenant_or_a_key_is_used_up_and_comes_back(db: PgPool) {
    let world = World::new(db).await;
    let minute = Duration::from_secs(60);
    let terms = Terms {
        tenant_rate: Some(Rate::new(6, minute).burst(3)),
        key_rate: Some(Rate::new(1, minute)),
        ..Terms::default()
    };
    set(&world, &terms).await;
    enqueue(&world, A, (0..20).map(Work::new)).await;
    enqueue(&world, B, (0..20).map(|n| keyed(n, ["x", "y"][n as usize % 2]))).await;
    let claimed = claim(&world, 100).await;
    assert_eq!((count_of(&claimed, A), count_of(&claimed, B)), (4, 2));
    assert!(claim(&world, 100).await.is_empty());
    world.move_clock(Duration::from_secs(20)).await;
    let claimed = claim(&world, 100).await;
    assert_eq!((count_of(&claimed, A), count_of(&claimed, B)), (2, 0));
    world.move_clock(Duration::from_secs(40)).await;
    let claimed = claim(&world, 100).await;
    assert_eq!((count_of(&claimed, A), count_of(&claimed, B)), (4, 2));
}

fn count_of(tenants: &[Uuid], tenant: Uuid) -> usize {
    tenants.iter().filter(|t| **t == tenant).count()
}

/// Claims jobs as an incarnation that nobody stands behind; whose they are.
async fn claim(world: &World, want: usize) -> Vec<Uuid> {
    claim_jobs(world, want).await.into_iter().map(|(_, tenant, _)| tenant).collect()
}

/// As [`claim`]: ids, tenants and inputs.
async fn claim_jobs(world: &World, want: usize) -> Vec<(i64, Uuid, serde_json::Value)> {
    sqlx::raw_sql(
        "insert into workflow.workers (name, started_at, seen_at)
         select 'test', workflow.now(), workflow.now() where not exists (select from workflow.workers)",
    )
    .execute(&world.db)
    .await
    .unwrap();
    claim_with(&mut world.db.acquire().await.unwrap(), want).await
}

async fn claim_with(db: &mut PgConnection, want: usize) -> Vec<(i64, Uuid, serde_json::Value)> {
    sqlx::query_as(
        "select id, tenant_id, input from workflow.pump_jobs(1, '{}', '{}', '{}', '[]',
            jsonb_build_array(jsonb_build_object('queue', 'work', 'want', $1::int, 'names', array['Work'])), $2, '{}')
         where what = 'job'",
    )
    .bind(want as i32)
    .bind(A)
    .fetch_all(db)
    .await
    .unwrap()
}

// ------------------------------------------------------------------------------------------- the rest

#[sqlx::test(migrations = false)]
async fn among_a_hundred_thousand_tenants_the_next_is_found_in_milliseconds(db: PgPool) {
    let world = World::new(db).await;
    set(&world, &Terms { tenant_cap: Some(1), key_cap: Some(1), ..Terms::default() }).await;
    sqlx::raw_sql(
        "insert into workflow.arrivals select 'work', lpad(to_hex(n), 32, '0')::uuid, 'key' from generate_series(1, 100000) n;
         insert into workflow.jobs (tenant_id, queue, activity, input, run_at, limit_key, lined)
         select lpad(to_hex(n), 32, '0')::uuid, 'work', 'Work', '1', workflow.now(), 'key', true from generate_series(1, 100000) n;
         analyze workflow.jobs",
    )
    .execute(&world.db)
    .await
    .unwrap();
    while world.count("select count(*) from workflow.arrivals").await > 0 {
        claim(&world, 1).await;
    }
    sqlx::raw_sql("vacuum analyze workflow.arrivals, workflow.turns, workflow.lines, workflow.permits")
        .execute(&world.db)
        .await
        .unwrap();
    // One session, as a worker has it: its plans are made once.
    let mut session = world.db.acquire().await.unwrap();
    let mut took = Vec::new();
    for _ in 0..121 {
        let began = Instant::now();
        assert_eq!(claim_with(&mut session, 1).await.len(), 1);
        took.push(began.elapsed());
    }
    let mut took = took.split_off(20);
    took.sort();
    // Of a busy machine the quiet moments count.
    assert!(took[25] <= Duration::from_millis(5), "{:?}, the median {:?}, at most {:?}", took[25], took[50], took[100]);
}
