//! Taking back what has succeeded.

use crate::world::{Tool, Work, World, effect};
use flatrender_engine::{
    Activity, Attempt, Context, Failure, Handler, Policy, Workflow, client::RunState, compensation::COMPENSATION_FAILED,
};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::time::Duration;
use tokio::sync::Notify;

/// Gives money back; the ledger of the bank is a table that only this handler writes.
#[derive(Serialize, Deserialize)]
pub struct Refund {
    pub what: String,
    /// Attempts that fail before one succeeds.
    pub fails: i32,
    pub max_failures: u32,
}

impl Activity for Refund {
    const NAME: &'static str = "Refund";
    const QUEUE: &'static str = "bank";
    type Output = String;

    fn policy(&self) -> Policy {
        let base = Duration::from_millis(5);
        Policy {
            max_failures: self.max_failures,
            max_losses: 1000,
            backoff_base: base,
            backoff_cap: base,
            ..Policy::default()
        }
    }
}

pub struct Bank(pub PgPool);

impl Handler<Refund> for Bank {
    async fn handle(&self, cx: &Attempt, input: Refund) -> Result<String, Failure> {
        if cx.task().attempt_no <= input.fails {
            return Err(Failure::transient("bank.busy", "later"));
        }
        // Idempotent, as a bank is: the key of the attempt is the same each time.
        let mut db = self.0.acquire().await?;
        let known: bool = sqlx::query_scalar("select exists (select from effects where run_id = $1 and key = $2)")
            .bind(cx.task().run_id)
            .bind(&input.what)
            .fetch_one(&mut *db)
            .await?;
        if !known {
            effect(&mut db, cx.task().run_id, &input.what).await?;
        }
        Ok(input.what)
    }
}

/// What becomes of a journey after its third booking.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Ending {
    Fails,
    Succeeds,
    Panics,
    Waits,
}

/// Books a flight, a hotel and a car, each of which can be taken back.
#[derive(Serialize, Deserialize)]
pub struct Journey {
    pub ending: Ending,
    /// How often the hotel refuses to be taken back.
    pub fails: i32,
    pub max_failures: u32,
}

impl Journey {
    pub fn that(ending: Ending) -> Self {
        Self { ending, fails: 0, max_failures: 4 }
    }
}

impl Workflow for Journey {
    const NAME: &'static str = "booked_journey";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        let run_id = cx.run_id();
        let refund = |what: &str, fails| Refund { what: what.to_owned(), fails, max_failures: self.max_failures };
        cx.step("flight", async |db| effect(db, run_id, "flight").await).await?;
        cx.compensate("refund flight", refund("refund flight", 0)).await?;
        cx.step("hotel", async |db| effect(db, run_id, "hotel").await).await?;
        cx.compensate("refund hotel", refund("refund hotel", self.fails)).await?;
        cx.step("car", async |db| effect(db, run_id, "car").await).await?;
        cx.compensate_step("return car", move |db| Box::pin(effect(db, run_id, "return car"))).await?;
        match self.ending {
            Ending::Succeeds => Ok(()),
            Ending::Waits => cx.sleep("wait", Duration::from_secs(3600)).await,
            Ending::Panics => panic!("asked to"),
            Ending::Fails => cx.step("pay", async |_| Err(Failure::permanent("test.no_money", "none"))).await,
        }
    }
}

async fn effects(world: &World) -> Vec<String> {
    sqlx::query_scalar("select key from effects order by n").fetch_all(&world.db).await.unwrap()
}

#[sqlx::test(migrations = false)]
async fn what_has_succeeded_is_taken_back_in_reverse(db: PgPool) {
    let mut world = World::new(db.clone()).await;
    world.worker(|w| w.workflow::<Journey>().handler::<Refund>(Bank(db)).crash_after_every_event());
    let run = world.finish(Journey::that(Ending::Fails)).await;
    assert_eq!((run.state, run.error.unwrap().code.as_str()), (RunState::Failed, "test.no_money"));
    assert_eq!(effects(&world).await, ["flight", "hotel", "car", "return car", "refund hotel", "refund flight"]);
    insta::assert_snapshot!(world.history(run.id).await, @r"
    step      flight   ok
    compensation $compensate:refund flight ok
    step      hotel    ok
    compensation $compensate:refund hotel ok
    step      car      ok
    compensation $compensate:return car ok
    step      pay      test.no_money
    step      return car ok
    activity  refund hotel ok
    activity  refund flight ok
    ");
}

#[sqlx::test(migrations = false)]
async fn a_run_that_succeeds_takes_nothing_back(db: PgPool) {
    let mut world = World::new(db.clone()).await;
    world.worker(|w| w.workflow::<Journey>().handler::<Refund>(Bank(db)));
    assert_eq!(world.finish(Journey::that(Ending::Succeeds)).await.state, RunState::Succeeded);
    assert_eq!(effects(&world).await, ["flight", "hotel", "car"]);
}

#[sqlx::test(migrations = false)]
async fn a_cancelled_run_takes_everything_back(db: PgPool) {
    let mut world = World::new(db.clone()).await;
    world.worker(|w| w.workflow::<Journey>().handler::<Refund>(Bank(db)).crash_after_every_event());
    let run_id = world.start(Journey { fails: 2, ..Journey::that(Ending::Waits) }).await;
    world.until(3, "select count(*) from effects").await;
    assert!(world.cancel(run_id).await);
    assert_eq!(world.end(run_id).await.state, RunState::Cancelled);
    assert_eq!(effects(&world).await[3..], ["return car", "refund hotel", "refund flight"]);
}

#[sqlx::test(migrations = false)]
async fn a_cancellation_does_not_stop_what_is_being_taken_back(db: PgPool) {
    let mut world = World::new(db.clone()).await;
    world.worker(|w| w.workflow::<Journey>());
    let run_id = world.start(Journey::that(Ending::Fails)).await;
    world.activity(run_id, "refund hotel").await;
    assert!(world.cancel(run_id).await);
    world.worker(|w| w.workflow::<Journey>().handler::<Refund>(Bank(db)));
    let run = world.end(run_id).await;
    assert_eq!((run.state, run.error.unwrap().code.as_str()), (RunState::Failed, "test.no_money"));
    assert_eq!(effects(&world).await[3..], ["return car", "refund hotel", "refund flight"]);
}

#[sqlx::test(migrations = false)]
async fn a_panicking_definition_takes_everything_back(db: PgPool) {
    let mut world = World::new(db.clone()).await;
    world.worker(|w| w.workflow::<Journey>().handler::<Refund>(Bank(db)));
    let run = world.finish(Journey::that(Ending::Panics)).await;
    assert_eq!(run.error.unwrap().code, "workflow.panicked");
    assert_eq!(effects(&world).await[3..], ["return car", "refund hotel", "refund flight"]);
}

#[sqlx::test(migrations = false)]
async fn what_cannot_be_taken_back_is_named_and_the_rest_is_taken_back(db: PgPool) {
    let mut world = World::new(db.clone()).await;
    world.worker(|w| w.workflow::<Journey>().handler::<Refund>(Bank(db)).crash_after_every_event());
    let run = world.finish(Journey { fails: 9, max_failures: 3, ..Journey::that(Ending::Fails) }).await;
    let error = run.error.unwrap();
    assert_eq!((run.state, error.code.as_str()), (RunState::Failed, COMPENSATION_FAILED));
    assert_eq!(error.details["cause"]["code"], "test.no_money");
    assert_eq!(error.details["not_undone"][0]["key"], "refund hotel");
    assert_eq!(error.details["not_undone"][0]["failure"]["code"], "bank.busy");
    assert_eq!(error.details["undone"], serde_json::json!(["return car", "refund flight"]));
    assert_eq!(effects(&world).await[3..], ["return car", "refund flight"]);
    assert_eq!(world.count("select count(*) from workflow.attempts where step_key = 'refund hotel'").await, 3);
}

#[sqlx::test(migrations = false)]
async fn a_run_with_something_to_take_back_is_parked_instead_of_given_up(db: PgPool) {
    let mut world = World::new(db.clone()).await;
    world.worker(|w| w.workflow::<Journey>());
    let run_id = world.start(Journey::that(Ending::Fails)).await;
    world.activity(run_id, "refund hotel").await;
    world.stop().await;
    sqlx::raw_sql(
        "update workflow.tasks set losses = 9, state = 'leased', lease_token = gen_random_uuid(), leased_by = 'doomed',
         attempt_no = 10, leased_at = workflow.now(), lease_expires_at = workflow.now() where kind = 'run';
         delete from workflow.tasks where kind = 'activity'",
    )
    .execute(&world.db)
    .await
    .unwrap();
    world.worker(|w| w.workflow::<Journey>().handler::<Refund>(Bank(db)));
    let (reason, code) = world.parked(run_id).await;
    assert_eq!((reason.as_str(), code.as_str()), ("lost_too_often", "workflow.lost_too_often"));
    assert!(world.resume(run_id).await);
    assert_eq!(world.end(run_id).await.error.unwrap().code, "test.no_money");
    assert_eq!(effects(&world).await[3..], ["return car", "refund hotel", "refund flight"]);
}

/// Books in one branch while another fails: whether it has booked is not known, so it says before how to take that back.
#[derive(Serialize, Deserialize)]
struct Hasty;

impl Workflow for Hasty {
    const NAME: &'static str = "hasty";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        let run_id = cx.run_id();
        let book = async {
            cx.compensate_step("unbook", move |db| {
                Box::pin(async move {
                    let booked = "insert into effects (run_id, key) select run_id, 'unbook' from effects
                                  where run_id = $1 and key = 'book'";
                    sqlx::query(booked).bind(run_id).execute(db).await?;
                    Ok(())
                })
            })
            .await?;
            cx.step("book", async |db| effect(db, run_id, "book").await).await?;
            cx.activity("never", Work::new(1)).await.map(drop)
        };
        let fail = async {
            cx.step("look", async |_| Ok(())).await?;
            cx.step("fail", async |_| Err::<(), _>(Failure::permanent("test.no", "never"))).await
        };
        futures::future::try_join(book, fail).await.map(drop)
    }
}

#[sqlx::test(migrations = false)]
async fn what_a_dropped_branch_has_done_is_taken_back_too(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Hasty>().handler::<Work>(Tool::doubling()));
    for _ in 0..30 {
        assert_eq!(world.finish(Hasty).await.error.unwrap().code, "test.no");
    }
    let books = world.count("select count(*) from effects where key = 'book'").await;
    assert_eq!(world.count("select count(*) from effects where key = 'unbook'").await, books);
}

static FAILING: Notify = Notify::const_new();

/// Does something that can be taken back, and fails once it is told to.
#[derive(Serialize, Deserialize)]
struct Doomed;

impl Workflow for Doomed {
    const NAME: &'static str = "doomed";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        let run_id = cx.run_id();
        cx.compensate_step("take back", move |db| Box::pin(effect(db, run_id, "taken back"))).await?;
        FAILING.notified().await;
        Err(Failure::permanent("test.doomed", "told to"))
    }
}

#[sqlx::test(migrations = false)]
async fn a_worker_that_leaves_before_anything_is_taken_back_leaves_that_to_the_next(db: PgPool) {
    let mut world = World::new(db.clone()).await;
    let leaving = world.worker(|w| w.workflow::<Doomed>());
    let run_id = world.start(Doomed).await;
    world.until(1, "select count(*) from workflow.steps where kind = 'compensation'").await;
    // Before it takes anything back it looks for steps under way; that takes as long as somebody else has the row of the run.
    let mut elsewhere = db.begin().await.unwrap();
    sqlx::query("select from workflow.tasks for update").execute(&mut *elsewhere).await.unwrap();
    FAILING.notify_one();
    world.until(1, "select count(*) from pg_locks where not granted and locktype = 'transactionid'").await;
    leaving.cancel();
    tokio::time::sleep(Duration::from_millis(50)).await; // Until it has noticed.
    elsewhere.rollback().await.unwrap();
    world.stop().await;
    world.worker(|w| w.workflow::<Doomed>());
    FAILING.notify_one();
    assert_eq!(world.end(run_id).await.error.unwrap().code, "test.doomed");
    assert_eq!(effects(&world).await, ["taken back"]);
}
