//! What films cost: held when they are ordered, spent once when they are finished, free again when they are not.

use crate::world::{Mischief, World, order, publish};
use flatrender_engine::{Client, client::RunState};
use flatrender_workflows::{
    definitions::look_after_credits::LookAfterCredits,
    models::{
        DEFAULT_TENANT, Role, Scope,
        identity::{
            credit::{self, Account, Entered, Looked, Reason},
            points,
        },
        invariants,
        render::{
            bill::{self, Billed},
            render_job,
            spec::RenderSpec,
        },
    },
};
use sqlx::{PgPool, types::Json};
use std::{collections::BTreeMap, time::Duration};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// 165 frames at a quarter of a second each, twice.
const HELD: i64 = 83;
/// Four chunks of two seconds.
const SPENT: i64 = 8;

async fn person(db: &PgPool) -> Uuid {
    let sql =
        "insert into identity.users (tenant_id, email, status) values ($1, 'jane@example.com', 'active') returning id";
    sqlx::query_scalar(sql).bind(DEFAULT_TENANT).fetch_one(db).await.unwrap()
}

/// From here on nodes have had the work for so long, whatever they say.
async fn attempts_take(db: &PgPool, how_long: &'static str) {
    let sql = format!(
        "create or replace function public.take_time() returns trigger language plpgsql as
             $$ begin new.started_at := new.ended_at - interval '{how_long}'; return new; end $$;
         create or replace trigger takes_time before insert on render.frame_job_attempts
             for each row execute function public.take_time()"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(db).await.unwrap();
}

/// An account of Jane's with some seconds in it.
async fn account(db: &PgPool, user: Uuid, seconds: i64) -> Account {
    // Who renders notes how long it took.
    let node = "insert into render.nodes (name, capabilities, credential_hash, last_seen_at) values ('one', '{}', sha256('one'), workflow.now())
                on conflict do nothing";
    sqlx::query(node).execute(db).await.unwrap();
    // The world's hands are done at once, and say that it took them two seconds: here it did.
    attempts_take(db, "2 seconds").await;
    let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(db).await.unwrap();
    let account = credit::open(&mut tx, DEFAULT_TENANT, Some(user)).await.unwrap();
    if seconds > 0 {
        let entered = credit::grant(&mut tx, account.id, "start", seconds, Reason::Grant).await.unwrap();
        assert_eq!(entered, Entered::Now(seconds));
    }
    tx.commit().await.unwrap();
    account
}

/// An order of Jane's, with its bill; kept only when it is held.
async fn bill(db: &PgPool, user: Uuid) -> (Uuid, Uuid, Billed) {
    let (render_id, run_id) = order(db).await;
    let sql = "select spec, project_version_id from render.render_jobs where id = $1";
    let (spec, project_version_id): (Json<RenderSpec>, Uuid) =
        sqlx::query_as(sql).bind(render_id).fetch_one(db).await.unwrap();
    let mut tx = Scope::tenant(Role::Render, DEFAULT_TENANT).begin(db).await.unwrap();
    let order = bill::Order {
        tenant_id: DEFAULT_TENANT,
        user_id: Some(user),
        render_id,
        run_id,
        project_version_id,
        spec: &spec.0,
    };
    let billed = bill::hold(&mut tx, &order).await.unwrap();
    tx.commit().await.unwrap();
    (render_id, run_id, billed)
}

/// What is there and what is held.
async fn state(db: &PgPool, user: Uuid) -> (i64, i64) {
    let mut db = db.acquire().await.unwrap();
    let account = credit::find(&mut db, DEFAULT_TENANT, Some(user)).await.unwrap().unwrap();
    (account.balance, account.held)
}

async fn lines(db: &PgPool, account: Uuid) -> Vec<(i64, String)> {
    let mut db = db.acquire().await.unwrap();
    let lines = credit::ledger(&mut db, account, None, 100).await.unwrap();
    lines.into_iter().map(|line| (line.delta, line.reason)).collect()
}

async fn sound(db: &PgPool) {
    assert_eq!(invariants::check(db, true).await.unwrap(), []);
}

async fn a_film_is_charged(db: PgPool, crash_after_every_event: bool) {
    let jane = person(&db).await;
    let account = account(&db, jane, 100).await;
    let (id, run, billed) = bill(&db, jane).await;
    assert_eq!((billed, state(&db, jane).await), (Billed::Held(HELD), (100, HELD)));
    let run = World::default().finish(&db, run, crash_after_every_event).await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    assert_eq!(state(&db, jane).await, (100 - SPENT, 0));
    assert_eq!(lines(&db, account.id).await, [(-SPENT, "render".to_owned()), (100, "grant".to_owned())]);
    let cost: Option<i64> = sqlx::query_scalar("select cost_units from render.render_jobs where id = $1")
        .bind(id)
        .fetch_one(&db)
        .await
        .unwrap();
    assert_eq!(cost, Some(SPENT));
    let progress = points::progress(&mut db.acquire().await.unwrap(), DEFAULT_TENANT, jane).await.unwrap();
    assert_eq!((progress.points, progress.streak_days), (10, 1), "who has a film finished is rewarded");
    sound(&db).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_finished_film_costs_what_was_rendered_for_it(db: PgPool) {
    a_film_is_charged(db, false).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_film_is_charged_once_whatever_crashes_after_every_event(db: PgPool) {
    a_film_is_charged(db, true).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_film_that_fails_costs_nothing_whichever_activity_it_was(db: PgPool) {
    let jane = person(&db).await;
    let account = account(&db, jane, 100).await;
    for (activity, crash) in
        [("RenderFrames", true), ("EncodePart", false), ("AssembleVideo", true), ("VerifyVideo", false)]
    {
        // What the first took tells how much the next may take.
        let (_, run, billed) = bill(&db, jane).await;
        assert!(matches!(billed, Billed::Held(1..=HELD)), "{billed:?}");
        let failing = BTreeMap::from([(activity, "test.refused")]);
        let run = World::with(Mischief { failing, ..Mischief::default() }).finish(&db, run, crash).await;
        assert_eq!(run.state, RunState::Failed);
        assert_eq!(state(&db, jane).await, (100, 0), "{activity}");
    }
    assert_eq!(lines(&db, account.id).await.len(), 1);
    sound(&db).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_cancelled_film_costs_nothing(db: PgPool) {
    let jane = person(&db).await;
    account(&db, jane, 100).await;
    let (_, run_id, _) = bill(&db, jane).await;
    let client = Client::new(db.clone());
    let mut tx = db.begin().await.unwrap();
    assert!(client.cancel(&mut tx, run_id, "changed my mind").await.unwrap());
    tx.commit().await.unwrap();
    let run = World::default().finish(&db, run_id, true).await;
    assert_eq!(run.state, RunState::Cancelled);
    assert_eq!(state(&db, jane).await, (100, 0));
    sound(&db).await;
}

/// The engine gives up a run that kills its workers: the definition has no say any more.
#[sqlx::test(migrations = "../migrations")]
async fn a_film_whose_run_the_engine_gave_up_costs_nothing(db: PgPool) {
    let jane = person(&db).await;
    account(&db, jane, 100).await;
    let (id, run_id, _) = bill(&db, jane).await;
    give_up(&db, run_id).await;
    let mut tx = Scope::platform(Role::Render).begin(&db).await.unwrap();
    assert_eq!(render_job::settle_abandoned(&mut tx).await.unwrap(), [id]);
    tx.commit().await.unwrap();
    assert_eq!(state(&db, jane).await, (100, 0));
    sound(&db).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_node_that_says_it_rendered_for_longer_than_it_had_the_work_is_not_believed(db: PgPool) {
    let jane = person(&db).await;
    account(&db, jane, 100).await;
    let (_, run_id, _) = bill(&db, jane).await;
    attempts_take(&db, "500 milliseconds").await;
    World::default().finish(&db, run_id, false).await;
    assert_eq!(state(&db, jane).await, (98, 0), "four times half a second, not two");
    sound(&db).await;
}

/// A film that is there is paid for, whatever became of its run after that.
#[sqlx::test(migrations = "../migrations")]
async fn a_published_film_whose_run_the_engine_gave_up_is_charged_and_rewarded(db: PgPool) {
    let jane = person(&db).await;
    account(&db, jane, 100).await;
    let (id, run_id, _) = bill(&db, jane).await;
    publish(&db, id).await;
    give_up(&db, run_id).await;
    let mut tx = Scope::platform(Role::Render).begin(&db).await.unwrap();
    assert_eq!(render_job::settle_abandoned(&mut tx).await.unwrap(), [id]);
    tx.commit().await.unwrap();
    let hold: String = sqlx::query_scalar("select state from identity.credit_holds").fetch_one(&db).await.unwrap();
    assert_eq!((hold.as_str(), state(&db, jane).await), ("captured", (100, 0)), "nobody rendered a frame of it");
    let progress = points::progress(&mut db.acquire().await.unwrap(), DEFAULT_TENANT, jane).await.unwrap();
    assert_eq!(progress.points, 10);
}

async fn give_up(db: &PgPool, run_id: Uuid) {
    let sql = r#"select workflow.end_run(id, 'failed', null,
        '{"code": "workflow.lost_too_often", "message": "given up", "retryable": false}')
        from workflow.tasks where run_id = $1"#;
    sqlx::query(sql).bind(run_id).execute(db).await.unwrap();
}

#[sqlx::test(migrations = "../migrations")]
async fn who_has_too_little_is_told_how_much_it_takes(db: PgPool) {
    let jane = person(&db).await;
    account(&db, jane, HELD - 1).await;
    films_cost_credits(&db).await;
    let (.., billed) = bill(&db, jane).await;
    assert_eq!((billed, state(&db, jane).await), (Billed::Short { needed: HELD, free: HELD - 1 }, (HELD - 1, 0)));
}

/// Somebody who was given too few seconds for a film is not worse off than who was given none.
#[sqlx::test(migrations = "../migrations")]
async fn who_has_too_little_has_what_everybody_has_who_has_nothing(db: PgPool) {
    let jane = person(&db).await;
    account(&db, jane, HELD + 1).await;
    assert_eq!(bill(&db, jane).await.2, Billed::Held(HELD), "what is enough pays, also where films are free");
    assert_eq!((bill(&db, jane).await.2, state(&db, jane).await), (Billed::Free, (HELD + 1, HELD)));
    films_cost_credits(&db).await;
    assert_eq!(bill(&db, jane).await.2, Billed::Short { needed: HELD, free: 1 });
    let house = the_tenants(&db, HELD).await;
    assert_eq!((bill(&db, jane).await.2, state(&db, jane).await), (Billed::Held(HELD), (HELD + 1, HELD)));
    let now = credit::find(&mut db.acquire().await.unwrap(), DEFAULT_TENANT, None).await.unwrap().unwrap();
    assert_eq!((now.id, now.held), (house, HELD), "the tenant pays, as for who has no account");
    assert_eq!(bill(&db, jane).await.2, Billed::Short { needed: HELD, free: 1 }, "until it has too little, too");
    sound(&db).await;
}

async fn films_cost_credits(db: &PgPool) {
    let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(db).await.unwrap();
    credit::set_paid(&mut tx, DEFAULT_TENANT, true).await.unwrap();
    tx.commit().await.unwrap();
}

/// An account of the tenant's with some seconds in it.
async fn the_tenants(db: &PgPool, seconds: i64) -> Uuid {
    let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(db).await.unwrap();
    let house = credit::open(&mut tx, DEFAULT_TENANT, None).await.unwrap();
    assert_eq!(credit::grant(&mut tx, house.id, "k", seconds, Reason::Purchase).await.unwrap(), Entered::Now(seconds));
    tx.commit().await.unwrap();
    house.id
}

#[sqlx::test(migrations = "../migrations")]
async fn films_are_free_where_nobody_has_an_account_unless_the_tenant_says_otherwise(db: PgPool) {
    let jane = person(&db).await;
    assert_eq!(bill(&db, jane).await.2, Billed::Free);
    films_cost_credits(&db).await;
    assert_eq!(bill(&db, jane).await.2, Billed::Short { needed: HELD, free: 0 });
    the_tenants(&db, 500).await;
    assert_eq!(bill(&db, jane).await.2, Billed::Held(HELD), "the tenant pays for who has no account");
}

#[sqlx::test(migrations = "../migrations")]
async fn credits_held_for_a_run_that_died_come_back_and_those_of_a_live_one_stay(db: PgPool) {
    let jane = person(&db).await;
    account(&db, jane, 200).await;
    let (_, dead, _) = bill(&db, jane).await;
    let (_, live, _) = bill(&db, jane).await;
    give_up(&db, dead).await;
    let look = async || {
        let client = Client::new(db.clone());
        let mut tx = db.begin().await.unwrap();
        let run = client.start(&mut tx, DEFAULT_TENANT, None, LookAfterCredits {}).await.unwrap();
        tx.commit().await.unwrap();
        let stop = CancellationToken::new();
        let worker = flatrender_engine::Worker::builder(db.clone()).workflow::<LookAfterCredits>();
        let working = tokio::spawn(worker.run(stop.clone()));
        let run = client.finished(run.run_id, Duration::from_secs(30)).await.unwrap().unwrap();
        stop.cancel();
        working.await.unwrap().unwrap();
        run.output_as::<Looked>().unwrap()
    };
    assert_eq!((look().await, state(&db, jane).await), (Looked::default(), (200, 2 * HELD)), "they have their time");
    sqlx::query("update workflow.clock set moved_by = '25 hours'").execute(&db).await.unwrap();
    assert_eq!(look().await, Looked { released: 1, kept: 1 });
    assert_eq!(state(&db, jane).await, (200, HELD));
    assert_eq!(look().await, Looked::default(), "held on for another day");
    let run = World::default().finish(&db, live, false).await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    assert_eq!(state(&db, jane).await, (200 - SPENT, 0), "and still spent when the film is finished");
}
