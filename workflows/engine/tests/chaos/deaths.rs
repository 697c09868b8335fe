//! Processes that die, stop, come back, and take their leave.

use crate::{
    ledger::What,
    program::{Ask, Duties},
    scenario::{Scenario, sized},
    work::{Booking, Errand, Manner, Single, Trip},
};
use flatrender_engine::{
    client::RunState,
    operations::{By, Operations, Terms},
};
use std::time::{Duration, Instant};

#[tokio::test]
async fn f01_the_work_of_a_killed_worker_runs_elsewhere_and_nothing_before_it_again() {
    let mut s = Scenario::new("F1", "taken over within lease + 2 s; earlier work not repeated").await;
    let mut slowest = Duration::ZERO;
    for round in 0..sized(1, 10) {
        let first = s.worker("first", Duties { slots: 4, ..Duties::default() });
        let run_id = s.start(&format!("trip {round}"), Trip { takes_ms: 1500, ..Trip::new(round) }).await;
        s.noted(|e| e.run_id == run_id && e.what == What::Begun && e.key == "sea", Duration::from_secs(30)).await;
        let second = s.worker("second", Duties::default());
        s.until(2, "select count(*) from workflow.workers where ended_at is null", Duration::from_secs(10)).await;
        s.process(first).kill();
        let (died_at, killed_at) = (Instant::now(), crate::ledger::now());
        s.injected(1);
        let again = |e: &crate::ledger::Entry| {
            e.run_id == run_id && e.key == "sea" && e.what == What::Begun && e.worker == "second" && e.at > killed_at
        };
        s.noted(again, Duration::from_secs(60)).await;
        slowest = slowest.max(died_at.elapsed());
        s.succeeded(run_id, Trip::new(round).answer(0)).await;
        let rides =
            s.ledger().iter().filter(|e| e.run_id == run_id && e.key == "ride" && e.what == What::Begun).count();
        assert_eq!(rides, 1, "what was recorded was done again");
        s.process(second).dismissed = true;
        s.stop_workers().await;
    }
    // The lease is 30 s; a dead session is noticed long before that.
    assert!(slowest < sized(Duration::from_secs(32), Duration::from_secs(5)), "{slowest:?}");
    s.note(format!("slowest takeover {slowest:.1?}"));
    s.finish(Duration::from_secs(30)).await;
}

#[tokio::test]
async fn f02_a_zombie_that_wakes_past_its_lease_is_refused() {
    let mut s = Scenario::new("F2", "stale end refused and told as lost; result is the second's").await;
    let zombie = s.worker("zombie", Duties { runs: false, ..Duties::default() });
    let runs = s.worker("runs", Duties { errands: false, ..Duties::default() });
    let mut stale = Vec::new();
    for n in 0..sized(2, 8) {
        stale.push(s.start(&format!("single {n}"), Single(Errand::of(n, 2000, 3000))).await);
    }
    for run_id in &stale {
        s.noted(|e| e.run_id == *run_id && e.what == What::Begun, Duration::from_secs(30)).await;
    }
    s.process(zombie).signal("STOP");
    s.injected(1);
    s.worker("second", Duties { runs: false, ..Duties::default() });
    for (n, run_id) in stale.iter().enumerate() {
        s.succeeded(*run_id, n as i64 * 2).await;
    }
    // All is over. Now the zombie goes on where it was.
    s.process(zombie).signal("CONT");
    let more = s.start("more", Trip::new(3)).await;
    s.succeeded(more, Trip::new(3).answer(0)).await;
    for run_id in &stale {
        let run_id = *run_id;
        let spoke = |e: &crate::ledger::Entry| e.run_id == run_id && e.worker == "zombie" && e.what != What::Begun;
        let said = s.noted(spoke, Duration::from_secs(20)).await;
        if said.what == What::Told {
            assert_eq!(said.value, 2, "it is told that the lease is lost");
        }
    }
    s.process(runs).dismissed = true;
    let by_zombie = "select count(*) from workflow.attempts where worker = 'zombie' and outcome = 'ok'
                     and step_key = 'errand'";
    assert_eq!(s.count(by_zombie).await, 0);
    s.finish(Duration::from_secs(20)).await;
}

#[tokio::test]
async fn f17_a_cap_holds_while_those_who_claim_under_it_are_killed() {
    let mut s = Scenario::new("F17", "never more at once than the cap, and all of it used; nothing lost").await;
    let terms = Terms { cap: Some(3), ..Terms::default() };
    let mut tx = s.db.begin().await.unwrap();
    Operations::new(s.client.clone()).set_terms(&mut tx, &By::new("operator"), "errands", &terms).await.unwrap();
    tx.commit().await.unwrap();
    for n in 0..3 {
        s.worker(&format!("worker {n}"), Duties { slots: 4, ..Duties::default() });
    }
    let mut runs = Vec::new();
    for n in 0..sized(40, 200) {
        runs.push((n, s.start(&format!("single {n}"), Single(Errand::of(n, 150, 30_000))).await));
    }
    for _ in 0..sized(2, 12) {
        let moment = s.random(300..900);
        tokio::time::sleep(Duration::from_millis(moment)).await;
        let victim = s.random(0..3) as usize;
        s.process(victim).signal("KILL");
        s.process(victim).ended(Duration::from_secs(5)).await;
        s.injected(1);
        s.revive();
    }
    for (n, run_id) in runs {
        s.succeeded(run_id, i64::from(n) * 2).await;
    }
    let (most, cap) = crate::checker::most_at_once(&s.db, s.folder()).await;
    assert_eq!((most, cap), (3, Some(3)));
    s.finish(Duration::from_secs(30)).await;
}

#[tokio::test]
async fn f23_poison_ends_in_the_dead_letters_and_its_neighbours_do_not_suffer() {
    let mut s = Scenario::new("F23", "given up as lost too often; other work unaffected").await;
    s.worker("victim", Duties::default());
    s.worker("other", Duties::default());
    let mut good = Vec::new();
    for n in 0..20 {
        good.push(s.start(&format!("good {n}"), Trip::new(n)).await);
    }
    let mut bad = Vec::new();
    for n in 0..sized(1, 3) {
        let poison = Errand { max_losses: 3, ..Errand::that(n, Manner::Deadly) };
        bad.push(s.start(&format!("poison {n}"), Single(poison.clone())).await);
        s.ask(&[Ask::Job(format!("poison job {n}"), Errand { takes_ms: 200, ..poison })], None).await;
    }
    let began = Instant::now();
    let mut deaths = 0;
    let left = "select (select count(*) from workflow.tasks) + (select count(*) from workflow.jobs)";
    while s.count(left).await > 0 {
        deaths += s.revive();
        assert!(began.elapsed() < sized(Duration::from_secs(90), Duration::from_secs(180)), "never over");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    s.injected(deaths);
    for run_id in bad {
        let run = s.end(run_id, Duration::from_secs(5)).await;
        assert_eq!(run.error.map(|e| e.code).as_deref(), Some("workflow.lost_too_often"));
    }
    let jobs = "select count(*) from workflow.finished_jobs where failure ->> 'code' = 'workflow.lost_too_often'";
    assert_eq!(s.count(jobs).await, sized(1, 3));
    for (n, run_id) in good.into_iter().enumerate() {
        s.succeeded(run_id, Trip::new(n as u32).answer(0)).await;
    }
    s.finish(Duration::from_secs(20)).await;
}

#[tokio::test]
async fn f30_a_saga_killed_while_it_takes_back_skips_nothing_and_doubles_nothing() {
    let mut s = Scenario::new("F30", "compensations newest first, each to its end, none twice").await;
    // The flight is undone last, after the hotel has refused three times; its worker dies in the middle of that.
    let traps = [
        "step.record.before:6",
        "step.commit.after:4",
        "task.pump.before:14",
        "task.pump.after:12",
        "record.all.after",
    ];
    let mut runs = Vec::new();
    for round in 0..sized(1, 4) {
        for (n, trap) in traps.iter().enumerate() {
            runs.push(s.start(&format!("booking {round} {n}"), Booking { fails: true, refusals: 3 }).await);
            let doomed = s.doomed("doomed", Duties::default(), trap);
            s.process(doomed).dismissed = true;
            let died = s.process(doomed).ended(Duration::from_secs(2)).await.is_some();
            s.injected(u32::from(died));
            s.process(doomed).kill();
        }
    }
    s.worker("last", Duties::default());
    for run_id in runs {
        let run = s.end(run_id, Duration::from_secs(60)).await;
        assert_eq!((run.state, run.error.unwrap().code.as_str()), (RunState::Failed, "booking.no_money"));
        let history = s.client.history(run_id).await.unwrap();
        let keys: Vec<&str> = history.iter().map(|e| e.key.as_str()).collect();
        let back: Vec<&str> = keys.iter().copied().skip_while(|key| *key != "pay").skip(1).collect();
        assert_eq!(back, ["fx undo car", "undo hotel", "undo flight"]);
        let ledger = s.ledger();
        let done =
            |key: &str| ledger.iter().filter(|e| e.run_id == run_id && e.key == key && e.what == What::Done).count();
        assert!(done("undo hotel") >= 1 && done("undo flight") >= 1);
    }
    s.finish(Duration::from_secs(20)).await;
}

#[tokio::test]
async fn f31_a_worker_that_is_told_to_stop_hands_over_without_an_attempt_lost() {
    let mut s = Scenario::new("F31", "no attempt consumed; handed back when the grace is over; exit 0").await;
    for round in 0..sized(1, 4) {
        let duties = Duties { grace_ms: 1500, ..Duties::default() };
        let leaving = s.worker("leaving", duties.clone());
        let short = s.start(&format!("short {round}"), Single(Errand::of(1, 700, 30_000))).await;
        let long_one = s.start(&format!("long {round}"), Single(Errand::of(2, 4_000, 30_000))).await;
        s.ask(&[Ask::Job(format!("job {round}"), Errand::of(3, 4_000, 30_000))], None).await;
        for run_id in [short, long_one] {
            s.noted(|e| e.run_id == run_id && e.what == What::Begun, Duration::from_secs(30)).await;
        }
        s.until(1, "select count(*) from workflow.jobs where worker_id is not null", Duration::from_secs(30)).await;
        s.process(leaving).dismissed = true;
        s.process(leaving).signal("TERM");
        s.injected(1);
        let told = Instant::now();
        let code = s.process(leaving).ended(Duration::from_secs(20)).await;
        assert_eq!(code, Some(Some(0)));
        assert!(told.elapsed() < sized(Duration::from_secs(15), Duration::from_secs(4)), "{:?}", told.elapsed());
        s.note(format!("left after {:.1?}", told.elapsed()));
        s.worker("staying", Duties::default());
        s.succeeded(short, 2).await;
        s.succeeded(long_one, 4).await;
        s.until(0, "select count(*) from workflow.jobs", Duration::from_secs(30)).await;
        s.stop_workers().await;
    }
    let lost = "select count(*) from workflow.attempts where outcome in ('lost', 'failed', 'timeout')";
    assert_eq!(s.count(lost).await, 0);
    assert_eq!(s.count("select count(*) from workflow.finished_jobs where outcome <> 'ok'").await, 0);
    let shorts = "select count(*) from workflow.attempts a join workflow.runs r on r.id = a.run_id
                  where r.business_key like 'short%' and a.step_key = 'errand'";
    assert_eq!(s.count(shorts).await, sized(1, 4));
    s.finish(Duration::from_secs(20)).await;
}
