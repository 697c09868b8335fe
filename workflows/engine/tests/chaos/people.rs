//! What people do at the wrong moment: cancel, signal, fork.

use crate::{
    ledger::What,
    program::Duties,
    scenario::{Scenario, long, sized},
    work::{Errand, Manner, Race, Single, Tree, Trip},
};
use flatrender_engine::{
    Delivery,
    client::RunState,
    operations::{By, Fork, Operations},
};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Starts a race, and cancels it after a while.
async fn race(s: &Scenario, n: u32, after: Option<Duration>) -> Uuid {
    let run_id = s.start(&format!("race {n}"), Race(n)).await;
    if let Some(after) = after {
        let (client, db) = (s.client.clone(), s.db.clone());
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let mut tx = db.begin().await.unwrap();
            client.cancel(&mut tx, run_id, "too late?").await.unwrap();
            tx.commit().await.unwrap();
            client.announce();
        });
    }
    run_id
}

#[tokio::test]
async fn f14_of_a_cancellation_and_a_success_exactly_one_wins() {
    let mut s = Scenario::new("F14", "one end each; children agree; taken back if and only if cancelled").await;
    s.worker("one", Duties { slots: 16, ..Duties::default() });
    s.worker("two", Duties { slots: 16, ..Duties::default() });
    // How long twenty of them take at a time that nobody cancels: about that is when it is a race.
    let mut lap = Duration::ZERO;
    for round in 0..2 {
        let began = Instant::now();
        let mut laps = Vec::new();
        for n in 0..20 {
            laps.push(race(&s, round * 20 + n, None).await);
        }
        for run_id in laps {
            assert_eq!(s.end(run_id, Duration::from_secs(60)).await.state, RunState::Succeeded);
        }
        lap = began.elapsed();
    }
    let (tries, mut runs) = (sized(60, 1000), Vec::new());
    for n in 0..tries {
        let after = Duration::from_millis(s.random(0..lap.as_millis() as u64 * 3 / 2));
        runs.push(race(&s, 40 + n, Some(after)).await);
        if n % 20 == 19 {
            for run_id in &runs[runs.len() - 20..] {
                s.end(*run_id, Duration::from_secs(60)).await;
            }
        }
    }
    s.injected(tries);
    let (mut won, mut lost) = (0, 0);
    for run_id in runs {
        let run = s.end(run_id, Duration::from_secs(60)).await;
        let sql = "select (select count(*) from effects where run_id = $1 and key = 'fx book'),
                          (select count(*) from effects where run_id = $1 and key = 'fx unbook'),
                          (select state from workflow.runs where parent_run_id = $1)";
        let (booked, back, child): (i64, i64, Option<String>) =
            sqlx::query_as(sql).bind(run_id).fetch_one(&s.db).await.unwrap();
        match run.state {
            RunState::Succeeded => {
                won += 1;
                assert_eq!((booked, back, child.as_deref()), (1, 0, Some("succeeded")), "taken back after a success");
            }
            RunState::Cancelled => {
                lost += 1;
                assert_eq!(booked, back, "cancelled and not taken back");
            }
            other => panic!("{other:?}: {:?}", run.error),
        }
    }
    // A run that is cancelled does not wait for its child to hear of it.
    s.until(0, "select count(*) from workflow.runs where state = 'running'", Duration::from_secs(30)).await;
    s.note(format!("{won} succeeded, {lost} cancelled, offsets up to {:.0?}", lap * 3 / 2));
    assert!(won >= tries / 20 && lost >= tries / 20, "no race: {won} succeeded, {lost} cancelled");
    s.finish(Duration::from_secs(30)).await;
}

fn lives(pid: i64) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn f15_a_cancelled_tree_takes_its_external_processes_along() {
    let mut s = Scenario::new("F15", "leaves told within 2 s; their processes gone; nothing begins after").await;
    let widths = sized(vec![3, 5], vec![20, 24]);
    let leaves: u32 = widths.iter().product();
    for name in ["one", "two"] {
        s.worker(name, Duties { slots: leaves as usize / 2 + 1, ..Duties::default() });
    }
    let run_id = s.start("tree", Tree { widths, leaf_ms: 600_000 }).await;
    let began = Instant::now();
    let spawned = loop {
        let pids: Vec<i64> = s.ledger().iter().filter(|e| e.what == What::Spawned).map(|e| e.value).collect();
        if pids.len() as u32 == leaves {
            break pids;
        }
        assert!(began.elapsed() < Duration::from_secs(120), "{} of {leaves} leaves", pids.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(spawned.iter().all(|pid| lives(*pid)));
    let asked = crate::ledger::now();
    assert!(s.cancel(run_id).await);
    s.injected(1);
    assert_eq!(s.end(run_id, Duration::from_secs(60)).await.state, RunState::Cancelled);
    s.until(0, "select count(*) from workflow.runs where state = 'running'", Duration::from_secs(60)).await;
    let ledger = s.ledger();
    let told: Vec<u64> = ledger.iter().filter(|e| e.what == What::Told).map(|e| e.at - asked).collect();
    let slowest = Duration::from_micros(told.iter().copied().max().unwrap_or_default());
    assert_eq!(told.len() as u32, leaves, "a leaf was not told");
    s.note(format!("{leaves} leaves told within {slowest:.1?}"));
    // A bound for machines that do other things besides; what was measured is in the note.
    assert!(slowest < sized(Duration::from_secs(15), Duration::from_secs(4)), "{slowest:?}");
    let gone = Instant::now();
    while spawned.iter().any(|pid| lives(*pid)) {
        assert!(gone.elapsed() < Duration::from_secs(10), "a process lives on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let late = ledger.iter().filter(|e| e.what == What::Begun && e.at > asked + slowest.as_micros() as u64).count();
    assert_eq!(late, 0, "something began after all had been told");
    s.finish(Duration::from_secs(30)).await;
}

#[tokio::test]
async fn f19_a_signal_is_taken_once_whenever_it_comes() {
    let mut s = Scenario::new("F19", "before, with, twice, in disorder, after the end; worker killed meanwhile").await;
    let trip = |n| Trip { waits: true, ..Trip::new(n) };
    // Before anybody works on the run.
    let early = s.start("early", trip(1)).await;
    assert_eq!(s.signal(early, Some("a"), 5).await, Delivery::Accepted);
    assert_eq!(s.signal(early, Some("a"), 6).await, Delivery::Repeated);
    let traps = ["wakeup.deliver.before", "wakeup.ring.after:9", "record.newer.after", "task.pump.after:9"];
    for (n, trap) in traps.iter().enumerate().take(sized(2, traps.len())) {
        let doomed = s.doomed("doomed", Duties::default(), trap);
        s.process(doomed).dismissed = true;
        let with = s.start(&format!("with {n}"), trip(2)).await;
        // With the wait, twice, from two sides.
        let (one, two) = tokio::join!(s.signal(with, Some("b"), 7), s.signal(with, Some("b"), 7));
        assert!(
            [(Delivery::Accepted, Delivery::Repeated), (Delivery::Repeated, Delivery::Accepted)].contains(&(one, two))
        );
        s.process(doomed).ended(Duration::from_secs(4)).await;
        s.process(doomed).kill();
        s.injected(1);
        s.worker("next", Duties::default());
        s.succeeded(with, trip(2).answer(7)).await;
        // After the end, the same webhook and a new one.
        assert_eq!(s.signal(with, Some("b"), 7).await, Delivery::Repeated);
        assert_eq!(s.signal(with, Some("c"), 8).await, Delivery::Closed);
        s.stop_workers().await;
    }
    s.worker("last", Duties::default());
    s.succeeded(early, trip(1).answer(5)).await;
    assert_eq!(s.signal(Uuid::now_v7(), None, 1).await, Delivery::Unknown);
    // Several, in the order of their arrival: the first is taken, the others are kept with the record.
    let late = s.start("disorder", trip(3)).await;
    for n in [9, 8, 7] {
        assert_eq!(s.signal(late, Some(&format!("{n}")), n).await, Delivery::Accepted);
    }
    s.succeeded(late, trip(3).answer(9)).await;
    s.finish(Duration::from_secs(30)).await;
}

/// What a run has done, in order.
async fn keys(s: &Scenario, run_id: Uuid) -> Vec<(i64, String)> {
    s.client.history(run_id).await.unwrap().into_iter().map(|e| (e.seq, e.key)).collect()
}

#[tokio::test]
async fn f29_a_fork_of_a_running_run_repeats_nothing_and_changes_nothing() {
    let mut s = Scenario::new("F29", "earlier steps copied, not repeated; origin unchanged; lineage both ways").await;
    s.worker("one", Duties::default());
    let operations = Operations::new(s.client.clone());
    for round in 0..sized(1, 10) {
        let trip = Trip { waits: true, ..Trip::new(3) };
        let origin = s.start(&format!("origin {round}"), trip.clone()).await;
        while s.client.history(origin).await.unwrap().iter().all(|e| e.key != "nap") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let before = keys(&s, origin).await;
        let edited = Trip { waits: false, takes_ms: 0, ..Trip::new(3) };
        let changes = Fork::from_step("sea").input::<Trip>(serde_json::to_value(&edited).unwrap()).unwrap();
        let mut tx = s.db.begin().await.unwrap();
        let forked = operations.fork(&mut tx, &By::new("operator"), origin, &changes).await.unwrap();
        tx.commit().await.unwrap();
        s.client.announce();
        s.injected(1);
        s.succeeded(forked.run_id, edited.answer(0)).await;
        assert_eq!(keys(&s, origin).await, before, "the origin has changed");
        let copied = before.iter().position(|(_, key)| key == "sea").unwrap();
        assert_eq!(forked.copied, copied as i64);
        let again = s.ledger().iter().filter(|e| e.run_id == forked.run_id && e.key == "ride").count();
        assert_eq!(again, 0, "what was copied was done again");
        let pack: i64 = sqlx::query_scalar("select count(*) from effects where run_id = $1 and key = 'fx pack'")
            .bind(forked.run_id)
            .fetch_one(&s.db)
            .await
            .unwrap();
        assert_eq!(pack, 0);
        assert_eq!(operations.lineage(forked.run_id).await.unwrap().0.map(|l| l.origin_run_id), Some(origin));
        assert_eq!(operations.lineage(origin).await.unwrap().1.len(), 1);
        let _ = s.signal(origin, None, 4).await;
        s.succeeded(origin, trip.answer(4)).await;
    }
    s.finish(Duration::from_secs(30)).await;
}

#[tokio::test]
async fn f34_a_flood_of_progress_is_written_now_and_then() {
    let mut s = Scenario::new("F34", "at most one write in 2 s; what is stored keeps up").await;
    sqlx::raw_sql(
        "create table told (n bigint generated always as identity, done int not null);
         create function note_progress() returns trigger language plpgsql as $$
         begin
             insert into told (done) values ((new.progress ->> 'done')::int);
             return null;
         end $$;
         create trigger note_progress after update on workflow.tasks
             for each row when (new.progress is not null and new.progress is distinct from old.progress)
             execute function note_progress()",
    )
    .execute(&s.db)
    .await
    .unwrap();
    s.worker("one", Duties::default());
    let seconds = sized(5, 20);
    let talker = Errand { manner: Manner::Talks, ..Errand::of(1, seconds * 1000, 30_000) };
    let run_id = s.start("talker", Single(talker)).await;
    s.succeeded(run_id, 2).await;
    s.injected(1);
    let (writes, last) =
        (s.count("select count(*) from told").await, s.count("select max(done)::bigint from told").await);
    s.note(format!("{writes} writes in {seconds} s, the last at {last}"));
    assert!((1..=seconds as i64 / 2 + 1).contains(&writes), "{writes} writes");
    assert!(!long() || last > 3000, "{last}");
    s.finish(Duration::from_secs(30)).await;
}
