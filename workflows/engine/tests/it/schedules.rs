//! Cron: what is started for which time, after outages, clock changes, edits, and with rivals.

use crate::world::World;
use chrono::{DateTime, Utc};
use flatrender_engine::{
    Context, Failure, Workflow,
    client::RunState,
    schedules::{CatchUp, Decision, Overlap, ScheduleError, Schedules, Terms},
};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::time::Duration;
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3600);

#[derive(Serialize, Deserialize)]
struct Sweep;

impl Workflow for Sweep {
    const NAME: &'static str = "sweep";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        cx.sleep("sweep", Duration::from_millis(1)).await
    }
}

/// The engine's clock, and schedules that nobody fires but the test.
struct Cron {
    world: World,
    schedules: Schedules,
}

impl Cron {
    async fn new(db: PgPool, now: &str) -> Self {
        let world = World::new(db).await;
        let schedules = Schedules::new(world.client.clone());
        let cron = Self { world, schedules };
        cron.at(now).await;
        cron
    }

    /// Moves the clock to `now`.
    async fn at(&self, now: &str) {
        let now: DateTime<Utc> = now.parse().unwrap();
        sqlx::query("update workflow.clock set moved_by = $1 - clock_timestamp()")
            .bind(now)
            .execute(&self.world.db)
            .await
            .unwrap();
    }

    async fn create(&self, cron: &str, terms: impl FnOnce(&mut Terms)) -> Uuid {
        let mut given = Terms::of("sweep", cron, &Sweep).unwrap();
        (given.catch_up, given.overlap) = (CatchUp::All, Overlap::Allow);
        terms(&mut given);
        let mut tx = self.world.db.begin().await.unwrap();
        let id = self.schedules.create(&mut tx, self.world.tenant, &given).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    async fn update(&self, id: Uuid, change: impl FnOnce(&mut Terms)) {
        let mut terms = self.schedules.find(id).await.unwrap().unwrap().terms;
        change(&mut terms);
        let mut tx = self.world.db.begin().await.unwrap();
        self.schedules.update(&mut tx, id, None, &terms).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn fire(&self) {
        self.schedules.fire_due().await.unwrap();
    }

    /// How many times led to each decision.
    async fn count(&self, id: Uuid, decision: Decision) -> usize {
        self.schedules.fires(id, 500).await.unwrap().iter().filter(|f| f.decision == decision).count()
    }

    async fn runs(&self) -> i64 {
        self.world.count("select count(*) from workflow.runs where kind = 'sweep'").await
    }

    /// `02:00 started` of each time, oldest first, with the revision that decided.
    async fn decisions(&self, id: Uuid) -> Vec<String> {
        let fires = self.schedules.fires(id, 500).await.unwrap();
        let line = |f: &flatrender_engine::schedules::Fire| {
            format!("{} r{} {:?}", f.nominal_at.format("%H:%M"), f.revision, f.decision)
        };
        fires.iter().rev().map(line).collect()
    }

    async fn end(&self, id: Uuid) {
        let run_id = self.schedules.fires(id, 500).await.unwrap().iter().find_map(|f| f.run_id).unwrap();
        sqlx::query("select workflow.end_run(id, 'succeeded', 'null', null) from workflow.tasks where run_id = $1 and kind = 'run'")
            .bind(run_id)
            .execute(&self.world.db)
            .await
            .unwrap();
    }
}

/// One schedule, one outage, what it leads to.
struct Case {
    what: &'static str,
    cron: &'static str,
    zone: &'static str,
    catch_up: CatchUp,
    window: Duration,
    from: &'static str,
    back: &'static str,
    started: usize,
    missed: usize,
}

const MIDNIGHT: &str = "2027-01-10T00:00:00Z";
const CASES: [Case; 12] = [
    Case {
        what: "3 h outage, skip",
        cron: "0 * * * *",
        zone: "UTC",
        catch_up: CatchUp::Skip,
        window: HOUR,
        from: MIDNIGHT,
        back: "2027-01-10T03:30:00Z",
        started: 0,
        missed: 3,
    },
    Case {
        what: "3 h outage, skip, back within the minute of a time",
        cron: "0 * * * *",
        zone: "UTC",
        catch_up: CatchUp::Skip,
        window: HOUR,
        from: MIDNIGHT,
        back: "2027-01-10T03:00:20Z",
        started: 1,
        missed: 2,
    },
    Case {
        what: "3 h outage, one",
        cron: "0 * * * *",
        zone: "UTC",
        catch_up: CatchUp::One,
        window: Duration::from_secs(86_400),
        from: MIDNIGHT,
        back: "2027-01-10T03:30:00Z",
        started: 1,
        missed: 2,
    },
    Case {
        what: "3 h outage, one, all beyond the window",
        cron: "0 * * * *",
        zone: "UTC",
        catch_up: CatchUp::One,
        window: Duration::from_secs(600),
        from: MIDNIGHT,
        back: "2027-01-10T03:30:00Z",
        started: 0,
        missed: 3,
    },
    Case {
        what: "3 h outage, all",
        cron: "0 * * * *",
        zone: "UTC",
        catch_up: CatchUp::All,
        window: Duration::from_secs(86_400),
        from: MIDNIGHT,
        back: "2027-01-10T03:30:00Z",
        started: 3,
        missed: 0,
    },
    Case {
        what: "3 h outage, all within 2 h",
        cron: "0 * * * *",
        zone: "UTC",
        catch_up: CatchUp::All,
        window: Duration::from_secs(7200),
        from: MIDNIGHT,
        back: "2027-01-10T03:30:00Z",
        started: 2,
        missed: 1,
    },
    Case {
        what: "no outage, one: each of two near times",
        cron: "*/20 * * * * *",
        zone: "UTC",
        catch_up: CatchUp::One,
        window: HOUR,
        from: MIDNIGHT,
        back: "2027-01-10T00:00:40Z",
        started: 2,
        missed: 0,
    },
    Case {
        what: "spring forward, a skipped local time",
        cron: "30 2 * * *",
        zone: "Europe/Berlin",
        catch_up: CatchUp::All,
        window: Duration::from_secs(864_000),
        from: "2027-03-27T00:00:00Z",
        back: "2027-03-30T00:00:00Z",
        started: 3,
        missed: 0,
    },
    Case {
        what: "fall back, a local time that comes twice",
        cron: "30 2 * * *",
        zone: "Europe/Berlin",
        catch_up: CatchUp::All,
        window: Duration::from_secs(864_000),
        from: "2027-10-30T00:00:00Z",
        back: "2027-11-02T00:00:00Z",
        started: 3,
        missed: 0,
    },
    Case {
        what: "spring forward, hourly: a day of 23 hours",
        cron: "0 * * * *",
        zone: "Europe/Berlin",
        catch_up: CatchUp::All,
        window: Duration::from_secs(864_000),
        from: "2027-03-27T23:00:00Z",
        back: "2027-03-28T22:00:00Z",
        started: 23,
        missed: 0,
    },
    Case {
        what: "fall back, hourly: a day of 25 hours",
        cron: "0 * * * *",
        zone: "Europe/Berlin",
        catch_up: CatchUp::All,
        window: Duration::from_secs(864_000),
        from: "2027-10-30T22:00:00Z",
        back: "2027-10-31T23:00:00Z",
        started: 25,
        missed: 0,
    },
    Case {
        what: "outage over a change of the clocks, one",
        cron: "15 2 * * *",
        zone: "America/New_York",
        catch_up: CatchUp::One,
        window: Duration::from_secs(864_000),
        from: "2027-03-13T00:00:00Z",
        back: "2027-03-15T12:00:00Z",
        started: 1,
        missed: 2,
    },
];

/// F20: eight processes come back at once; the counts are exact.
#[sqlx::test(migrations = false)]
async fn after_an_outage_each_policy_starts_exactly_its_runs(db: PgPool) {
    let cron = Cron::new(db, MIDNIGHT).await;
    for case in CASES {
        cron.at(case.from).await;
        let id = cron
            .create(case.cron, |t| {
                (t.name, t.time_zone) = (format!("case-{}", Uuid::now_v7()), case.zone.to_owned());
                (t.catch_up, t.catch_up_window) = (case.catch_up, case.window);
            })
            .await;
        let before = cron.runs().await;
        cron.at(case.back).await;
        futures::future::join_all((0..8).map(|_| cron.fire())).await;
        cron.fire().await;
        let counted = (cron.count(id, Decision::Started).await, cron.count(id, Decision::Missed).await);
        assert_eq!(counted, (case.started, case.missed), "{}: {:?}", case.what, cron.decisions(id).await);
        assert_eq!((cron.runs().await - before) as usize, case.started, "{}", case.what);
        assert_eq!(cron.schedules.find(id).await.unwrap().unwrap().missed as usize, case.missed, "{}", case.what);
        let mut tx = cron.world.db.begin().await.unwrap();
        cron.schedules.delete(&mut tx, id).await.unwrap();
        tx.commit().await.unwrap();
    }
}

#[sqlx::test(migrations = false)]
async fn a_leader_that_dies_at_the_tick_leaves_the_time_to_another(db: PgPool) {
    let cron = Cron::new(db, MIDNIGHT).await;
    let id = cron.create("0 * * * *", |_| {}).await;
    cron.at("2027-01-10T01:00:01Z").await;
    let mut dying = cron.world.db.begin().await.unwrap();
    sqlx::query("select 1 from workflow.schedules for update").execute(&mut *dying).await.unwrap();
    cron.fire().await; // Waits for nobody.
    assert_eq!(cron.count(id, Decision::Started).await, 0);
    dying.rollback().await.unwrap();
    cron.fire().await;
    assert_eq!((cron.count(id, Decision::Started).await, cron.runs().await), (1, 1));
}

#[sqlx::test(migrations = false)]
async fn a_clock_that_is_set_back_fires_nothing_twice(db: PgPool) {
    let cron = Cron::new(db, MIDNIGHT).await;
    let id = cron.create("0 * * * *", |_| {}).await;
    for now in ["2027-01-10T02:00:01Z", "2027-01-10T00:59:59Z", "2027-01-10T02:30:00Z", "2027-01-10T03:00:00Z"] {
        cron.at(now).await;
        cron.fire().await;
    }
    assert_eq!(cron.decisions(id).await, ["01:00 r1 Started", "02:00 r1 Started", "03:00 r1 Started"]);
}

#[sqlx::test(migrations = false)]
async fn an_edit_in_an_outage_counts_from_the_edit_on(db: PgPool) {
    let cron = Cron::new(db, MIDNIGHT).await;
    let id = cron.create("0 * * * *", |_| {}).await;
    cron.at("2027-01-10T01:10:00Z").await;
    cron.update(id, |t| t.cron = "*/30 * * * *".into()).await;
    cron.at("2027-01-10T02:40:00Z").await;
    cron.fire().await;
    let wanted = ["01:00 r1 Started", "01:30 r2 Started", "02:00 r2 Started", "02:30 r2 Started"];
    assert_eq!(cron.decisions(id).await, wanted);
}

#[sqlx::test(migrations = false)]
async fn the_fire_and_its_run_commit_together_under_a_key_of_their_time(db: PgPool) {
    let cron = Cron::new(db, MIDNIGHT).await;
    let id = cron.create("0 * * * *", |_| {}).await;
    cron.at("2027-01-10T01:00:00Z").await;
    cron.fire().await;
    let fire = cron.schedules.fires(id, 1).await.unwrap().remove(0);
    let run = cron.world.client.run(fire.run_id.unwrap()).await.unwrap().unwrap();
    assert_eq!(run.business_key, Some(format!("schedule:{id}:2027-01-10T01:00:00Z")));
    assert_eq!(cron.world.count("select count(*) from workflow.tasks where kind = 'run'").await, 1);
}

#[sqlx::test(migrations = false)]
async fn skip_passes_while_a_run_is_under_way(db: PgPool) {
    let cron = Cron::new(db, MIDNIGHT).await;
    let id = cron.create("0 * * * *", |t| t.overlap = Overlap::Skip).await;
    for hour in 1..=3 {
        cron.at(&format!("2027-01-10T0{hour}:00:00Z")).await;
        cron.fire().await;
    }
    cron.end(id).await;
    cron.at("2027-01-10T04:00:00Z").await;
    cron.fire().await;
    let wanted = ["01:00 r1 Started", "02:00 r1 Overlapped", "03:00 r1 Overlapped", "04:00 r1 Started"];
    assert_eq!(cron.decisions(id).await, wanted);
}

#[sqlx::test(migrations = false)]
async fn buffer_one_keeps_the_first_time_until_the_run_is_over(db: PgPool) {
    let cron = Cron::new(db, MIDNIGHT).await;
    let id = cron.create("0 * * * *", |t| t.overlap = Overlap::BufferOne).await;
    for hour in 1..=3 {
        cron.at(&format!("2027-01-10T0{hour}:00:00Z")).await;
        cron.fire().await;
    }
    assert_eq!(cron.decisions(id).await, ["01:00 r1 Started", "02:00 r1 Buffered", "03:00 r1 Overlapped"]);
    cron.end(id).await;
    futures::future::join_all((0..4).map(|_| cron.fire())).await;
    assert_eq!(cron.decisions(id).await, ["01:00 r1 Started", "02:00 r1 Started", "03:00 r1 Overlapped"]);
    assert_eq!(cron.runs().await, 2);
}

#[sqlx::test(migrations = false)]
async fn cancel_other_stops_the_run_and_starts_the_newest_time_after_it(db: PgPool) {
    let cron = Cron::new(db, MIDNIGHT).await;
    let id = cron.create("0 * * * *", |t| t.overlap = Overlap::CancelOther).await;
    for hour in 1..=3 {
        cron.at(&format!("2027-01-10T0{hour}:00:00Z")).await;
        cron.fire().await;
    }
    assert_eq!(cron.decisions(id).await, ["01:00 r1 Started", "02:00 r1 Superseded", "03:00 r1 Buffered"]);
    assert_eq!(cron.world.count("select count(*) from workflow.runs where cancel_requested_at is not null").await, 1);
    cron.end(id).await;
    cron.fire().await;
    assert_eq!(cron.decisions(id).await, ["01:00 r1 Started", "02:00 r1 Superseded", "03:00 r1 Started"]);
}

#[sqlx::test(migrations = false)]
async fn times_of_a_pause_are_not_caught_up(db: PgPool) {
    let cron = Cron::new(db, MIDNIGHT).await;
    let id = cron.create("0 * * * *", |_| {}).await;
    cron.at("2027-01-10T01:30:00Z").await;
    let mut tx = cron.world.db.begin().await.unwrap();
    assert!(cron.schedules.pause(&mut tx, id).await.unwrap());
    assert!(!cron.schedules.pause(&mut tx, id).await.unwrap());
    tx.commit().await.unwrap();
    cron.at("2027-01-10T03:30:00Z").await;
    cron.fire().await;
    let mut tx = cron.world.db.begin().await.unwrap();
    assert!(cron.schedules.resume(&mut tx, id).await.unwrap());
    tx.commit().await.unwrap();
    cron.at("2027-01-10T04:30:00Z").await;
    cron.fire().await;
    assert_eq!(cron.decisions(id).await, ["01:00 r1 Started", "04:00 r3 Started"]);
}

#[sqlx::test(migrations = false)]
async fn a_run_can_be_had_at_once_even_from_a_paused_schedule(db: PgPool) {
    let cron = Cron::new(db, MIDNIGHT).await;
    let id = cron.create("0 * * * *", |_| {}).await;
    let mut tx = cron.world.db.begin().await.unwrap();
    cron.schedules.pause(&mut tx, id).await.unwrap();
    let run_id = cron.schedules.run_now(&mut tx, id).await.unwrap();
    tx.commit().await.unwrap();
    let fire = cron.schedules.fires(id, 1).await.unwrap().remove(0);
    assert_eq!((fire.decision, fire.run_id), (Decision::Manual, Some(run_id)));
    assert_eq!(cron.runs().await, 1);
}

#[sqlx::test(migrations = false)]
async fn a_change_that_missed_another_is_refused(db: PgPool) {
    let cron = Cron::new(db, MIDNIGHT).await;
    let id = cron.create("0 * * * *", |_| {}).await;
    cron.update(id, |t| t.cron = "5 * * * *".into()).await;
    let terms = cron.schedules.find(id).await.unwrap().unwrap().terms;
    let mut tx = cron.world.db.begin().await.unwrap();
    let refused = cron.schedules.update(&mut tx, id, Some(1), &terms).await;
    assert!(matches!(refused, Err(ScheduleError::Changed(2))), "{refused:?}");
    assert!(matches!(
        cron.schedules.create(&mut tx, cron.world.tenant, &terms).await,
        Err(ScheduleError::NameTaken(_))
    ));
    // What a program brings along stays as it is when it says the same.
    assert_eq!(cron.schedules.ensure(&mut tx, cron.world.tenant, &terms).await.unwrap(), id);
    tx.commit().await.unwrap();
    assert_eq!(cron.schedules.list(Some(cron.world.tenant), None, 10).await.unwrap()[0].revision, 2);
}

#[sqlx::test(migrations = false)]
async fn a_change_rolls_back_with_the_caller(db: PgPool) {
    let cron = Cron::new(db, MIDNIGHT).await;
    let id = cron.create("0 * * * *", |_| {}).await;
    let mut tx = cron.world.db.begin().await.unwrap();
    cron.schedules.delete(&mut tx, id).await.unwrap();
    tx.rollback().await.unwrap();
    let next = cron.schedules.next(id, 3).await.unwrap();
    assert_eq!(next.iter().map(|t| t.format("%H:%M").to_string()).collect::<Vec<_>>(), ["01:00", "02:00", "03:00"]);
}

#[sqlx::test(migrations = false)]
async fn a_worker_that_takes_part_fires_by_itself(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Sweep>().schedules());
    let schedules = Schedules::new(world.client.clone());
    let mut terms = Terms::of("each-second", "* * * * * *", &Sweep).unwrap();
    terms.time_zone = "Asia/Tehran".into();
    let mut tx = world.db.begin().await.unwrap();
    let id = schedules.create(&mut tx, world.tenant, &terms).await.unwrap();
    tx.commit().await.unwrap();
    world.until(1, "select least(count(*), 1) from workflow.schedule_fires where decision = 'started'").await;
    let fires = schedules.fires(id, 10).await.unwrap();
    let run = world.end(fires.iter().find_map(|f| f.run_id).unwrap()).await;
    assert_eq!(run.state, RunState::Succeeded);
}

/// F20: a leader that dies after it has decided and before its commit has decided nothing.
#[sqlx::test(migrations = false)]
async fn a_leader_that_dies_between_its_decision_and_its_commit_starts_nothing_twice(db: PgPool) {
    let cron = Cron::new(db, MIDNIGHT).await;
    let id = cron.create("0 * * * *", |_| {}).await;
    cron.at("2027-01-10T03:00:01Z").await;
    let dies = "create function dies() returns trigger language plpgsql as $$ begin
                    perform pg_terminate_backend(pg_backend_pid()); return new; end $$;
                create trigger dies before update on workflow.schedules for each row execute function dies()";
    sqlx::raw_sql(dies).execute(&cron.world.db).await.unwrap();
    assert!(cron.schedules.fire_due().await.is_err());
    assert_eq!((cron.runs().await, cron.decisions(id).await.len()), (0, 0));
    sqlx::raw_sql("drop trigger dies on workflow.schedules").execute(&cron.world.db).await.unwrap();
    futures::future::join_all((0..4).map(|_| cron.fire())).await;
    assert_eq!(cron.decisions(id).await, ["01:00 r1 Started", "02:00 r1 Started", "03:00 r1 Started"]);
    assert_eq!(cron.runs().await, 3);
}

/// F20: what an outage of three hours leads to, by what is to become of runs that meet.
#[sqlx::test(migrations = false)]
async fn an_outage_is_made_up_for_by_each_overlap_policy(db: PgPool) {
    let cron = Cron::new(db, MIDNIGHT).await;
    let cases = [
        (Overlap::Allow, ["01:00 r1 Started", "02:00 r1 Started", "03:00 r1 Started"], 3),
        (Overlap::Skip, ["01:00 r1 Started", "02:00 r1 Overlapped", "03:00 r1 Overlapped"], 1),
        (Overlap::BufferOne, ["01:00 r1 Started", "02:00 r1 Buffered", "03:00 r1 Overlapped"], 1),
        (Overlap::CancelOther, ["01:00 r1 Started", "02:00 r1 Superseded", "03:00 r1 Buffered"], 1),
    ];
    for (overlap, decisions, started) in cases {
        cron.at(MIDNIGHT).await;
        let name = format!("outage-{}", Uuid::now_v7());
        let id = cron.create("0 * * * *", |t| (t.name, t.overlap) = (name, overlap)).await;
        let before = cron.runs().await;
        cron.at("2027-01-10T03:10:00Z").await;
        futures::future::join_all((0..8).map(|_| cron.fire())).await;
        assert_eq!(cron.decisions(id).await, decisions, "{overlap:?}");
        assert_eq!(cron.runs().await - before, started, "{overlap:?}");
        let mut tx = cron.world.db.begin().await.unwrap();
        cron.schedules.delete(&mut tx, id).await.unwrap();
        tx.commit().await.unwrap();
    }
}

/// F20: the new expression counts from the edit on, whatever the outage around it; so does a new policy for what was missed.
#[sqlx::test(migrations = false)]
async fn an_edit_in_an_outage_decides_what_was_due_before_it_by_the_old_terms(db: PgPool) {
    let cron = Cron::new(db, MIDNIGHT).await;
    let id = cron.create("0 * * * *", |t| t.catch_up = CatchUp::One).await;
    cron.at("2027-01-10T02:30:00Z").await;
    cron.update(id, |t| (t.cron, t.catch_up) = ("15 * * * *".into(), CatchUp::All)).await;
    cron.at("2027-01-10T04:30:00Z").await;
    cron.fire().await;
    let wanted = ["01:00 r1 Missed", "02:00 r1 Started", "03:15 r2 Started", "04:15 r2 Started"];
    assert_eq!(cron.decisions(id).await, wanted);
}

/// Goes on as another after its first day.
#[derive(Serialize, Deserialize)]
struct Watch {
    days: u32,
}

impl Workflow for Watch {
    const NAME: &'static str = "watch";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        cx.signal::<()>("dawn", "dawn").await?;
        match self.days {
            0 => Ok(()),
            days => cx.continue_as_new(Self { days: days - 1 }),
        }
    }
}

#[sqlx::test(migrations = false)]
async fn a_run_that_has_gone_on_as_another_is_still_under_way(db: PgPool) {
    let mut cron = Cron::new(db, MIDNIGHT).await;
    cron.world.worker(|w| w.workflow::<Watch>());
    for (day, overlap, wanted) in [
        (10, Overlap::Skip, ["01:00 r1 Started", "02:00 r1 Overlapped"]),
        (11, Overlap::BufferOne, ["01:00 r1 Started", "02:00 r1 Buffered"]),
    ] {
        cron.at(&format!("2027-01-{day}T00:00:00Z")).await;
        let mut terms = Terms::of(format!("watch-{day}"), "0 * * * *", &Watch { days: 1 }).unwrap();
        (terms.catch_up, terms.overlap) = (CatchUp::All, overlap);
        let mut tx = cron.world.db.begin().await.unwrap();
        let id = cron.schedules.create(&mut tx, cron.world.tenant, &terms).await.unwrap();
        tx.commit().await.unwrap();
        cron.at(&format!("2027-01-{day}T01:00:01Z")).await;
        cron.fire().await;
        let first = cron.schedules.fires(id, 1).await.unwrap()[0].run_id.unwrap();
        let live = "select count(*) from workflow.runs where state = 'running'";
        let _ = cron.world.signal(first, "dawn", None, ()).await;
        let newer = "select count(*) from workflow.runs where continued_from is not null and state = 'running'";
        cron.world.until(1, newer).await;
        cron.at(&format!("2027-01-{day}T02:00:01Z")).await;
        cron.fire().await;
        cron.fire().await;
        assert_eq!(cron.decisions(id).await, wanted);
        let _ = cron.world.signal(first, "dawn", None, ()).await;
        cron.world.until(0, live).await;
        cron.fire().await;
        assert_eq!(cron.world.count(live).await, i64::from(overlap == Overlap::BufferOne));
        let mut tx = cron.world.db.begin().await.unwrap();
        cron.schedules.delete(&mut tx, id).await.unwrap();
        tx.commit().await.unwrap();
    }
}
