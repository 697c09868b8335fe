//! C25: definitions without a database: played inline, put through ordeals, simulated by seed.

use crate::world::{OneWork, Work};
use flatrender_engine::{
    Activity, Context, Failure, Policy, Workflow,
    client::RunState,
    compensation::COMPENSATION_FAILED,
    testing::{Flaw, Mischief, Played, Rehearsal, seeds},
};
use futures::future::{Either, select, try_join};
use serde::{Deserialize, Serialize};
use std::{
    pin::pin,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// Takes or gives back money.
#[derive(Serialize, Deserialize)]
struct Pay {
    cents: i64,
}

impl Activity for Pay {
    const NAME: &'static str = "Pay";
    const QUEUE: &'static str = "bank";
    type Output = String;
}

/// What a careless author forgot.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Bug {
    None,
    /// The money is not given back.
    NoRefund,
    /// The way it takes is chance.
    Moody,
}

/// Takes the money, waits for the goods at most a week, and gives the money back if they do not come.
#[derive(Serialize, Deserialize)]
struct Purchase {
    bug: Bug,
}

static MOOD: AtomicU32 = AtomicU32::new(0);

impl Workflow for Purchase {
    const NAME: &'static str = "purchase";
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        let shelf: u32 = cx.step("reserve", async |_| Ok(0)).await?;
        cx.compensate_step("unreserve", |_| Box::pin(async { Ok(()) })).await?;
        // Whether the money was taken may never be heard: what is given back for a payment that was not made is nothing.
        if self.bug != Bug::NoRefund {
            cx.compensate("refund", Pay { cents: -900 }).await?;
        }
        cx.activity("pay", Pay { cents: 900 }).await?;
        if self.bug == Bug::Moody && MOOD.fetch_add(1, Ordering::Relaxed) % 3 == 2 {
            cx.step("sulk", async |_| Ok(())).await?;
        }
        let note = async { cx.memo("note", || async { Ok(shelf) }).await };
        let (_, doubled) = try_join(note, cx.activity("work", Work::new(shelf))).await?;
        match cx.signal_within::<u32>("goods", "goods", Duration::from_secs(7 * 86_400)).await? {
            Some(goods) => Ok(goods + doubled),
            None => Err(Failure::permanent("shop.no_goods", "nothing came")),
        }
    }
}

fn shop() -> Rehearsal {
    Rehearsal::new()
        .workflow::<Purchase>()
        .step("reserve", |_| Ok(7))
        .handler(|cx, pay: Pay| Ok(format!("{} cents for {}", pay.cents, cx.idempotency_key())))
        .handler(|_, work: Work| Ok(work.n * 2))
        .signal("goods", 100)
}

fn calls<'a>(played: &'a Played, key: &'a str) -> impl Iterator<Item = &'a flatrender_engine::testing::Call> {
    played.calls.iter().filter(move |call| call.key == key)
}

/// Money that was taken is given back unless the purchase succeeds.
fn money_is_right(played: &Played) -> Result<(), String> {
    let (paid, refunded) = (calls(played, "pay").count() > 0, calls(played, "refund").count() > 0);
    let stands = played.error.as_ref().is_some_and(|error| error.code == COMPENSATION_FAILED);
    match played.state {
        RunState::Succeeded if refunded || !paid => Err("a purchase without its payment".to_owned()),
        RunState::Failed | RunState::Cancelled if paid && !refunded && !stands => Err("money is lost".to_owned()),
        _ => Ok(()),
    }
}

#[test]
fn a_definition_is_played_to_its_end_in_one_call() {
    let played = shop().run(Purchase { bug: Bug::None }).unwrap();
    assert_eq!((played.state, played.output_as::<u32>()), (RunState::Succeeded, Some(114)));
    insta::assert_snapshot!(played.history.table(), @r"
    signal        goods      ok
    step          reserve    ok
    compensation  unreserve  ok
    compensation  refund     ok
    activity      Pay        ok
    step          note       ok
    activity      Work       ok
    ");
    assert_eq!(played.calls[0].result, Ok(format!("900 cents for {}:pay", played.history.run_id).into()));
}

#[test]
fn what_fails_is_taken_back_in_the_table_too() {
    let shop = shop().handler(|_, _: Work| Err(Failure::permanent("work.refused", "no")));
    let played = shop.run(Purchase { bug: Bug::None }).unwrap();
    assert_eq!(played.error.unwrap().code, "work.refused");
    insta::assert_snapshot!(played.history.table(), @r"
    signal        goods      ok
    step          reserve    ok
    compensation  unreserve  ok
    compensation  refund     ok
    activity      Pay        ok
    step          note       ok
    activity      Work       work.refused
    activity      Pay        ok
    step          unreserve  ok
    ");
}

/// Sleeps a year, a month at a time.
#[derive(Serialize, Deserialize)]
struct Year;

impl Workflow for Year {
    const NAME: &'static str = "year";
    type Output = i64;

    async fn run(self, cx: &Context) -> Result<i64, Failure> {
        let began = cx.now();
        for month in 0..12 {
            cx.sleep(&format!("month {month}"), Duration::from_secs(2_628_000)).await?;
            cx.activity(&format!("work {month}"), Work::new(month)).await?;
        }
        Ok((cx.now() - began).num_days())
    }
}

/// C4, C25.
#[test]
fn a_year_of_sleep_takes_less_than_a_second() {
    let began = Instant::now();
    let played = Rehearsal::new().workflow::<Year>().handler(|_, w: Work| Ok(w.n)).run(Year).unwrap();
    assert_eq!(played.output_as::<i64>(), Some(365));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[test]
fn a_handler_that_fails_for_a_while_is_tried_again_by_its_policy() {
    let flaky = |cx: &flatrender_engine::Attempt, work: Work| match cx.task().attempt_no {
        1..=2 => Err(Failure::transient("work.flaky", "again")),
        3 => Err(Failure::transient("work.busy", "in a day").after(Duration::from_secs(86_400))),
        _ => Ok(work.n),
    };
    let played = Rehearsal::new().workflow::<OneWork>().handler(flaky).run(OneWork(Work::new(5))).unwrap();
    assert_eq!((played.output_as::<u32>(), played.calls.len()), (Some(5), 4));
    let took = played.history.events[0].recorded_at - played.history.created_at;
    assert!(took >= chrono::TimeDelta::days(1) && took < chrono::TimeDelta::days(2), "{took}");
}

/// Waits for a child and for whichever of a signal and a timer comes first, then goes on as another.
#[derive(Serialize, Deserialize)]
struct Chain {
    left: u32,
    sum: u32,
}

impl Workflow for Chain {
    const NAME: &'static str = "chain";
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        if self.left == 0 {
            return Ok(self.sum);
        }
        let (word, nap) = (pin!(cx.signal::<u32>("word", "word")), pin!(cx.sleep("nap", Duration::from_secs(60))));
        let heard = match select(word, nap).await {
            Either::Left((word, _)) => word?,
            Either::Right((nap, _)) => nap.map(|()| 0)?,
        };
        let child = cx.child("child", OneWork(Work::new(self.left))).await?;
        cx.start_detached("memory", None, Year).await?;
        cx.continue_as_new(Self { left: self.left - 1, sum: self.sum + child + heard })
    }
}

fn chain() -> Rehearsal {
    let known = Rehearsal::new().workflow::<Chain>().workflow::<OneWork>();
    known.handler(|_, work: Work| Ok(work.n * 10)).signal("word", 1)
}

#[test]
fn children_and_successors_are_played_too() {
    let played = chain().run(Chain { left: 2, sum: 0 }).unwrap();
    assert_eq!(played.output_as::<u32>(), Some(31));
    let kinds: Vec<_> = played.others.iter().map(|other| other.kind.as_str()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "one_work").count(), 2);
    assert_eq!(kinds.iter().filter(|kind| **kind == "chain").count(), 2);
    let odd = chain().simulate_all(seeds(200), || Chain { left: 2, sum: 0 }, |_| Ok(()));
    assert!(odd.is_ok(), "{odd:?}");
}

#[test]
fn ordeals_of_one_line() {
    let shop = shop();
    let crashed = shop.survives_a_crash_after_every_event(Purchase { bug: Bug::None }).unwrap();
    assert_eq!(crashed.output_as::<u32>(), Some(114));
    let failed = shop.settles_whatever_fails(|| Purchase { bug: Bug::None }).unwrap();
    let ends: Vec<_> = failed.iter().map(|(key, played)| (key.as_str(), played.state)).collect();
    assert_eq!(ends, [("", RunState::Succeeded), ("pay", RunState::Failed), ("work", RunState::Failed)]);
    for (_, played) in &failed {
        money_is_right(played).unwrap();
    }
}

/// C25: `FLATRENDER_SEEDS=10000` for the nightly number.
#[test]
fn a_saga_keeps_its_promise_in_every_simulated_world() {
    let count = shop().simulate_all(seeds(500), || Purchase { bug: Bug::None }, money_is_right);
    assert!(count.as_ref().is_ok_and(|count| *count > 0), "{}", count.unwrap_err());
}

#[test]
fn simulated_worlds_differ_in_everything_that_can_happen() {
    let mut seen = std::collections::BTreeMap::<String, u32>::new();
    for seed in 0..400 {
        let played = shop().simulate(seed, Purchase { bug: Bug::None }).unwrap();
        let code = played.error.as_ref().map_or_else(|| "fine".to_owned(), |error| error.code.clone());
        *seen.entry(format!("{:?} {code}", played.state)).or_default() += 1;
        let again = played.calls.iter().any(|call| call.attempt_no > 1);
        *seen.entry(format!("again {again}")).or_default() += 1;
    }
    for what in
        ["Succeeded fine", "Failed test.refused", "Failed shop.no_goods", "Cancelled workflow.cancelled", "again true"]
    {
        assert!(seen.contains_key(what), "{what}: {seen:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let play = |seed| shop().simulate(seed, Purchase { bug: Bug::None }).unwrap().fingerprint();
    let first: Vec<u64> = (0..200).map(play).collect();
    assert_eq!(first, (0..200).map(play).collect::<Vec<_>>());
    let different: std::collections::HashSet<_> = first.iter().collect();
    assert_eq!(different.len(), 200);
    let chains = |seed| chain().simulate(seed, Chain { left: 3, sum: 0 }).unwrap().fingerprint();
    assert_eq!((0..50).map(chains).collect::<Vec<_>>(), (0..50).map(chains).collect::<Vec<_>>());
}

#[test]
fn a_missing_compensation_is_found_with_its_seed() {
    let found = shop().simulate_all(0..300, || Purchase { bug: Bug::NoRefund }, money_is_right).unwrap_err();
    assert!(matches!(&found.flaw, Flaw::Check(why) if why.starts_with("money is lost")), "{found}");
    let played = shop().simulate(found.seed, Purchase { bug: Bug::NoRefund }).unwrap();
    assert_eq!(money_is_right(&played), Err("money is lost".to_owned()), "the seed shows it again");
    assert!(found.to_string().contains(&format!("FLATRENDER_SEED={}", found.seed)), "{found}");
}

#[test]
fn a_branch_by_chance_is_found_with_its_seed() {
    let found = shop().simulate_all(0..300, || Purchase { bug: Bug::Moody }, |_| Ok(())).unwrap_err();
    let why = found.to_string();
    assert!(matches!(found.flaw, Flaw::Parked { .. } | Flaw::Replay(_)), "{why}");
}

/// Waits for a word that never comes, and lets nothing stop it.
#[derive(Serialize, Deserialize)]
struct Stubborn;

impl Workflow for Stubborn {
    const NAME: &'static str = "stubborn";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        while cx.signal::<u32>(&format!("word {}", cx.now()), "word").await.is_err() && !cx.cancelled() {}
        std::future::pending().await
    }
}

#[test]
fn a_run_that_cannot_end_is_told_from_one_that_does() {
    let rehearsal = Rehearsal::new().workflow::<Stubborn>();
    assert!(matches!(rehearsal.run(Stubborn), Err(Flaw::NotOver(_))));
    assert!(matches!(rehearsal.simulate(1, Stubborn), Err(Flaw::NotOver(_))));
    let unknown = Rehearsal::new().workflow::<OneWork>().run(OneWork(Work::new(1)));
    assert_eq!(unknown.unwrap_err().to_string(), "the rehearsal does not know the activity Work");
}

#[test]
fn misfortune_can_be_dosed() {
    let calm = Mischief {
        crash: 0.5,
        fails: 0.0,
        refuses: 0.0,
        throttles: 0.0,
        loses: 0.0,
        cancels: 0.0,
        ..Mischief::default()
    };
    let calm = Mischief { signal_never: 0.0, signal_late: 0.0, slow: 0.0, ..calm };
    let shop = shop().mischief(calm);
    let fine = |played: &Played| match played.output_as::<u32>() {
        Some(114) => Ok(()),
        _ => Err(format!("{:?}", played.error)),
    };
    shop.simulate_all(seeds(200), || Purchase { bug: Bug::None }, fine).unwrap();
}

#[test]
fn a_policy_of_one_attempt_is_kept() {
    let work = Work { policy: Policy { max_failures: 1, ..Policy::default() }, ..Work::new(1) };
    let rehearsal = Rehearsal::new()
        .workflow::<OneWork>()
        .handler(|_, _: Work| Err::<u32, _>(Failure::transient("work.flaky", "once")));
    let played = rehearsal.run(OneWork(work)).unwrap();
    assert_eq!((played.calls.len(), played.error.unwrap().code.as_str()), (1, "work.flaky"));
}
