//! F3: killed before and after every statement, every commit, every wake-up, one after the other.

use crate::{
    ledger::What,
    program::{Ask, Duties},
    retention::{die_retiring, forbid_deleting, forget_what_has_gone, waiting_trip},
    scenario::{Scenario, long, sized},
    work::{Booking, Errand, Manner, Single, Trip},
};
use flatrender_engine::failpoint::Point;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// Everything that a client does, once, with the prefix `p`.
fn day_of_a_client(p: &str) -> Vec<Ask> {
    let key = |name: &str| format!("{p} {name}");
    vec![
        Ask::Install,
        Ask::Start(key("trip"), Trip { waits: true, ..Trip::new(4) }),
        Ask::StartAgain(key("trip"), Trip { waits: true, ..Trip::new(4) }),
        Ask::Signal(key("trip"), 3),
        Ask::StartMany(key("many"), 3),
        Ask::Job(key("job"), Errand::new(2)),
        Ask::Job(key("dead"), Errand::that(3, Manner::Refuses)),
        Ask::Revive(key("dead")),
        Ask::Steer(key("trip")),
        Ask::Book(key("booking"), Booking { fails: true, refusals: 1 }),
        Ask::Start(key("cancelled"), Trip { waits: true, ..Trip::new(2) }),
        Ask::Cancel(key("cancelled")),
        Ask::Fork(key("fork"), key("trip")),
        Ask::Signal(key("fork"), 5),
        Ask::Resume(key("trip")),
        Ask::Abroad(key("abroad")),
        Ask::Travel(key("abroad")),
        Ask::Abroad(key("skipped")),
        Ask::SkipAbroad(key("skipped")),
        Ask::Queue(p.replace(' ', "-")),
        Ask::Bulk(key("bulk"), vec![key("booking"), key("trip")]),
        Ask::Schedule(p.replace(' ', "-")),
        Ask::Purge(key("many 0")),
        Ask::PartitionByMonth,
    ]
}

/// Where a client passes, whatever happens.
const CLIENT: &[Point] = &[
    Point::RunInsert,
    Point::RunInsertAll,
    Point::RunByKey,
    Point::RunNow,
    Point::RunId,
    Point::RunCancel,
    Point::RunSignal,
    Point::RunResume,
    Point::JobInsert,
    Point::JobRevive,
    Point::Notify,
    Point::Audit,
    Point::Fork,
    Point::TaskPump,
    Point::TaskRenew,
    Point::TaskEndedAs,
    Point::RemoteSeen,
    Point::RetryNow,
    Point::ForceRelease,
    Point::Skip,
    Point::SetPriority,
    Point::SetAttributes,
    Point::PauseQueue,
    Point::ResumeQueue,
    Point::Purge,
    Point::BulkInsert,
    Point::BulkTurn,
    Point::BulkFind,
    Point::ScheduleInsert,
    Point::ScheduleUpdate,
    Point::SchedulePause,
    Point::ScheduleDelete,
    Point::ScheduleLock,
    Point::ScheduleFind,
    Point::ScheduleLive,
    Point::ScheduleNote,
    Point::ScheduleAdvance,
    Point::RetentionPartition,
    Point::SchemaCommit,
];

/// Where a worker passes by itself while it has all kinds of work.
const WORKER: &[Point] = &[
    Point::StepBegin,
    Point::StepRecord,
    Point::StepCommit,
    Point::StepRollback,
    Point::StepsSettle,
    Point::RecordAll,
    Point::RecordNewer,
    Point::TaskPump,
    Point::TaskRenew,
    Point::TaskStanding,
    Point::JobPump,
    Point::WorkerConnect,
    Point::WorkerNumber,
    Point::WorkerLock,
    Point::WorkerInsert,
    Point::WorkerOffer,
    Point::ResumeMismatched,
    Point::WorkerSweep,
    Point::Notify,
    Point::ListenConnect,
    Point::Listen,
    Point::Heard,
    Point::Ring,
    Point::Deliver,
    Point::FoldCounts,
    Point::RunsByKind,
    Point::ReadyByQueue,
    Point::ParkedByReason,
    Point::OldestSnapshot,
    Point::Audit,
    Point::Fork,
    Point::RunInsert,
    Point::BulkBegin,
    Point::BulkPick,
    Point::BulkFind,
    Point::BulkItems,
    Point::BulkItemBegin,
    Point::BulkItemCommit,
    Point::BulkItemRollback,
    Point::BulkEndItems,
    Point::BulkCommit,
    Point::ScheduleBegin,
    Point::SchedulePick,
    Point::SchedulePickBuffered,
    Point::ScheduleFind,
    Point::ScheduleLive,
    Point::ScheduleNote,
    Point::ScheduleAdvance,
    Point::ScheduleCommit,
];

/// Where a worker only passes when something else has gone wrong before: what has to.
const AFTER: &[(Point, &str)] = &[
    (Point::StepFind, "step.commit.after=cut"),
    (Point::TaskDisown, "task.pump.after:4=cut"),
    (Point::WorkerTryLock, "worker.sweep.after:2=cut"),
    (Point::WorkerResume, "worker.sweep.after:2=cut"),
    (Point::JobDisown, "job.pump.after=cut"),
];

/// Where a worker passes that takes its leave.
const LEAVING: &[Point] = &[Point::TaskDisown, Point::WorkerReleaseJobs, Point::WorkerEnd];

/// Where a client passes whose worker has left: nobody takes its starts along.
const ALONE: &[Point] = &[Point::TaskStart];

/// Where a worker passes that drops what is old.
const RETIRING: &[Point] =
    &[Point::RetentionFind, Point::RetentionHurry, Point::RetentionRetire, Point::RetentionCommit];

/// Passed several times, in different states: killed at more than the first.
const BUSY: &[Point] = &[Point::StepRecord, Point::StepCommit, Point::TaskPump, Point::JobPump, Point::Deliver];

const SIDES: [&str; 2] = ["before", "after"];

#[test]
fn f03_no_point_is_left_out() {
    let mut planned: BTreeSet<&str> =
        [CLIENT, WORKER, LEAVING, ALONE, RETIRING].into_iter().flatten().map(|p| p.name()).collect();
    planned.extend(AFTER.iter().map(|(point, _)| point.name()));
    let all: BTreeSet<&str> = Point::ALL.iter().map(|p| p.name()).collect();
    assert_eq!(all.difference(&planned).collect::<Vec<_>>(), Vec::<&&str>::new(), "no scenario kills there");
}

/// Part of a list: all of it in the long form, or what contains `FLATRENDER_CHAOS_TRAP`.
fn some(traps: Vec<(String, Duration)>, every: usize) -> Vec<(String, Duration)> {
    let only = std::env::var("FLATRENDER_CHAOS_TRAP").ok();
    let wanted =
        |n: usize, trap: &str| only.as_ref().map_or(long() || n.is_multiple_of(every), |only| trap.contains(only));
    traps.into_iter().enumerate().filter(|(n, (trap, _))| wanted(*n, trap)).map(|(_, trap)| trap).collect()
}

#[tokio::test]
async fn f03_a_client_killed_at_every_point_can_do_it_again() {
    let mut s = Scenario::new("F3 client", "each point before and after; done again, each thing once").await;
    s.worker("steady", Duties { schedules: true, ..Duties::default() });
    let traps = CLIENT.iter().flat_map(|p| SIDES.map(|side| (format!("{}.{side}", p.name()), Duration::ZERO)));
    // The short form takes every ninth.
    for (n, (trap, _)) in some(traps.collect(), 9).into_iter().enumerate() {
        let asks = day_of_a_client(&format!("p{n}"));
        let unhurt = s.ask(&asks, Some(&trap)).await;
        assert!(!unhurt, "a client does not pass {trap}");
        s.injected(1);
        assert!(s.ask(&asks, None).await, "a client that died at {trap} cannot do it again");
        s.check_safety().await;
        s.revive();
    }
    stop_schedules(&s).await;
    s.finish(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn f03_a_client_killed_beside_a_worker_that_has_left_can_do_it_again() {
    let mut s = Scenario::new("F3 alone", "each point before and after; what it is told of is done").await;
    for (n, side) in SIDES.iter().enumerate() {
        let asks = [Ask::Launch(format!("launch {n}"))];
        let trap = format!("{}.{side}", ALONE[0].name());
        assert!(!s.ask(&asks, Some(&trap)).await, "a client does not pass {trap}");
        s.injected(1);
        assert!(s.ask(&asks, None).await, "a client that died at {trap} cannot do it again");
        s.check_safety().await;
    }
    s.worker("last", Duties::default());
    s.finish(Duration::from_secs(30)).await;
}

#[tokio::test]
async fn f03_who_is_killed_while_it_drops_what_is_old_has_dropped_whole_months_or_none() {
    let mut s = Scenario::new("F3 old", "each point before and after; what is not over stays, the rest goes").await;
    forbid_deleting(&s).await;
    s.worker("first", Duties::default());
    let live = waiting_trip(&s, "live").await;
    s.stop_workers().await;
    let traps = RETIRING.iter().flat_map(|p| SIDES.map(|side| (format!("{}.{side}", p.name()), Duration::ZERO)));
    // The short form takes two of them.
    for (n, (trap, _)) in some(traps.collect(), 5).into_iter().enumerate() {
        die_retiring(&mut s, n, &trap).await;
        forgive(&s).await;
    }
    s.worker("last", Duties { keeps_days: Some(30), ..Duties::default() });
    s.until(1, "select count(*) from workflow.runs", Duration::from_secs(30)).await;
    forget_what_has_gone(&s).await;
    let _ = s.signal(live, None, 4).await;
    s.succeeded(live, Trip { waits: true, ..Trip::new(2) }.answer(4)).await;
    s.finish(Duration::from_secs(30)).await;
}

async fn stop_schedules(s: &Scenario) {
    sqlx::raw_sql("update workflow.schedules set deleted_at = workflow.now(), next_at = null, buffered_at = null")
        .execute(&s.db)
        .await
        .unwrap();
}

/// Work of every kind for one worker.
async fn give_work(s: &mut Scenario, n: usize) {
    let trip = s.start(&format!("trip {n}"), Trip { waits: true, ..Trip::new(1) }).await;
    let _ = s.signal(trip, Some("once"), 2).await;
    s.start(&format!("slow {n}"), Trip { takes_ms: 1300, lease_ms: 2500, ..Trip::new(2) }).await;
    s.start(&format!("booking {n}"), Booking { fails: true, refusals: 1 }).await;
    s.start(&format!("refused {n}"), Single(Errand::that(1, Manner::Refuses))).await;
    let p = format!("w{n}");
    let asks = [
        Ask::Job(format!("{p} job"), Errand::of(1, 100, 30_000)),
        Ask::Job(format!("{p} job 2"), Errand::that(2, Manner::Fails(1))),
        Ask::Bulk(format!("{p} bulk"), vec![format!("refused {n}"), format!("slow {n}")]),
        Ask::Schedule("every-two-seconds".to_owned()),
    ];
    assert!(s.ask(&asks, None).await);
}

/// Starts a worker that falls into the trap; gives it work until it has.
async fn die(s: &mut Scenario, n: &mut usize, trap: &str, patience: Duration) {
    let duties = Duties { schedules: true, grace_ms: 300, ..Duties::default() };
    let doomed = s.doomed("doomed", duties, trap);
    s.process(doomed).dismissed = true;
    give_work(s, *n).await;
    *n += 1;
    // Some points are only passed when the moment is right: it gets more to do until it is.
    let began = Instant::now();
    let mut ended = s.process(doomed).ended(Duration::from_secs(4)).await;
    while ended.is_none() && began.elapsed() < patience {
        give_work(s, *n).await;
        *n += 1;
        ended = s.process(doomed).ended(Duration::from_secs(4)).await;
    }
    assert!(ended.is_some(), "no worker passes {trap}");
    assert_ne!(ended, Some(Some(0)), "{trap}");
    s.injected(1);
    forgive(s).await;
    s.check_safety().await;
}

/// Here every worker is killed, and many may meet the same run: it is not given up for that, and need not pause for long.
async fn forgive(s: &Scenario) {
    let forgiven = "update workflow.tasks set max_losses = 1000, losses = least(losses, 1) where kind = 'run'";
    sqlx::raw_sql(forgiven).execute(&s.db).await.unwrap();
}

#[tokio::test]
async fn f03_a_worker_killed_at_every_point_leaves_each_effect_once() {
    let mut s =
        Scenario::new("F3 worker", "each point before and after, busy ones at more passes; safety after each").await;
    let mut traps: Vec<(String, Duration)> = Vec::new();
    for point in WORKER {
        for side in SIDES {
            let passes = if BUSY.contains(point) { sized(1, 6) } else { 1 };
            let place = format!("{}.{side}", point.name());
            traps.extend((1..=passes).map(|pass| (format!("{place}:{pass}"), Duration::from_secs(30))));
        }
    }
    for (point, before) in AFTER {
        traps.extend(SIDES.map(|side| (format!("{before},{}.{side}", point.name()), Duration::from_secs(90))));
    }
    let mut n = 0;
    give_work(&mut s, n).await;
    n += 1;
    let slow = |trap: &str| trap.starts_with("job.pump.after=cut");
    // The short form takes every twelfth, and none that needs an answer to be overdue.
    for (trap, patience) in some(traps, 12) {
        if long() || !slow(&trap) {
            die(&mut s, &mut n, &trap, patience).await;
        }
    }
    for point in LEAVING.iter().take(sized(1, LEAVING.len())) {
        for side in SIDES {
            leave(&mut s, &mut n, &format!("{}.{side}", point.name())).await;
        }
    }
    stop_schedules(&s).await;
    s.worker("last", Duties { slots: 32, ..Duties::default() });
    s.until(0, "select count(*) from workflow.tasks", sized(Duration::from_secs(60), Duration::from_secs(120))).await;
    answers(&s).await;
    s.finish(Duration::from_secs(60)).await;
}

/// Told to stop, a worker dies on its way out.
async fn leave(s: &mut Scenario, n: &mut usize, trap: &str) {
    let doomed = s.doomed("leaving", Duties { grace_ms: 200, ..Duties::default() }, trap);
    s.process(doomed).dismissed = true;
    give_work(s, *n).await;
    *n += 1;
    s.noted(|e| e.worker == "leaving" && e.what == What::Begun, Duration::from_secs(30)).await;
    s.process(doomed).signal("TERM");
    let ended = s.process(doomed).ended(Duration::from_secs(30)).await;
    assert_ne!(ended, Some(Some(0)), "a worker that leaves does not pass {trap}");
    assert!(ended.is_some(), "{trap}");
    s.injected(1);
    s.check_safety().await;
}

/// Every trip gave what it should.
async fn answers(s: &Scenario) {
    let wrong = "select count(*) from workflow.runs where kind = 'trip' and parent_run_id is null and business_key is not null
                 and output is distinct from case when business_key like 'trip %' then '12'::jsonb else '20'::jsonb end";
    assert_eq!(s.count(wrong).await, 0);
    let refused = "select count(*) from workflow.runs where kind = 'single' and state <> 'failed'";
    assert_eq!(s.count(refused).await, 0);
}

#[tokio::test]
#[ignore = "the long form: make chaos"]
async fn f03_a_job_whose_claim_was_not_answered_goes_elsewhere_while_its_worker_is_busy() {
    let mut s = Scenario::new("F3 busy", "given back when its claim is overdue, although no slot is free").await;
    for name in ["one", "two"] {
        s.ask(&[Ask::Job(name.to_owned(), Errand::of(1, 40_000, 30_000))], None).await;
    }
    // It claims one of them, does not hear of it, and claims the other.
    let one_slot = Duties { slots: 1, ..Duties::default() };
    s.doomed("busy", one_slot.clone(), "job.pump.after=cut");
    s.injected(1);
    let known = s.noted(|e| e.what == What::Begun, Duration::from_secs(20)).await;
    s.worker("free", one_slot);
    let began = Instant::now();
    let other = |e: &crate::ledger::Entry| e.what == What::Begun && e.task_id != known.task_id;
    let other = s.noted(other, Duration::from_secs(35)).await;
    assert_eq!(other.worker, "free");
    s.note(format!("begun elsewhere after {:.1?}", began.elapsed()));
    s.finish(Duration::from_secs(90)).await;
}
