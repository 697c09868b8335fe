//! Films that failed are ordered again: each as it was, once, and at the cost of who ordered it.

use super::{Hand, deeds, failed};
use crate::world::{World, request, with_json};
use axum::http::{Method, StatusCode};
use flatrender_api::render::again;
use flatrender_engine::{
    Client, Failure,
    operations::{By, Fork, OperationError, Operations},
};
use flatrender_workflows::models::{
    DEFAULT_TENANT,
    identity::{credit, tenant},
    render::render_job,
};
use serde_json::json;
use sqlx::PgPool;
use std::collections::BTreeSet;
use uuid::Uuid;

/// A film that was ordered and has failed: its run.
async fn failed_film(world: &World) -> Uuid {
    failed_film_of(world, &world.key).await
}

/// The same, ordered by somebody with this token.
async fn failed_film_of(world: &World, token: &str) -> Uuid {
    let order = json!({ "metadata": { "order": 4711 } });
    let mut whole = crate::world::order();
    whole.as_object_mut().unwrap().extend(order.as_object().unwrap().clone());
    let ordered = world.send(with_json(request(Method::POST, "/v1/renders", token), &whole)).await;
    let film = ordered.json()["id"].as_str().unwrap().parse().unwrap();
    let run = world.run_of(film).await;
    let sql = "with gone as (delete from workflow.tasks where run_id = $1)
        update workflow.runs set state = 'failed', finished_at = workflow.now(), error = e, error_fingerprint = workflow.fingerprint(e)
        from jsonb_build_object('code', 'render.missing_font', 'message', 'no font', 'retryable', false) e where id = $1";
    sqlx::query(sql).bind(run).execute(&world.db).await.unwrap();
    let failure = Failure::permanent("render.missing_font", "no font");
    let mut db = world.db.acquire().await.unwrap();
    assert!(render_job::settle(&mut db, film, run, Err(&failure)).await.unwrap());
    run
}

#[sqlx::test(migrations = "../migrations")]
async fn a_film_that_failed_is_ordered_again_as_it_was_and_once(db: PgPool) {
    let world = World::new(db).await;
    let operator = Hand::of(&world, DEFAULT_TENANT, "platform_operator").await;
    let run = failed_film(&world).await;
    assert_eq!(operator.get(&format!("/runs/{run}")).await["actions"], json!(["retry"]));
    let retry = json!({ "action": "retry", "reason": "the font is installed now" });
    let step = json!({ "action": "retry", "from_step": "plan" });
    assert_eq!(operator.act(run, step).await.problem(), "request.invalid");
    let made = operator.act(run, retry.clone()).await;
    assert_eq!(made.status, StatusCode::OK, "{:?}", made.body);
    let again: Uuid = made.json()["new_run_id"].as_str().unwrap().parse().unwrap();
    let same = "select count(*) from render.render_jobs a join render.render_jobs b on a.spec = b.spec and a.metadata = b.metadata
        and a.project_version_id = b.project_version_id where a.status = 'failed' and b.status = 'queued'";
    assert_eq!(sqlx::query_scalar::<_, i64>(same).fetch_one(&world.db).await.unwrap(), 1);
    let seen = operator.get(&format!("/runs/{again}")).await;
    assert_eq!((&seen["origin"]["how"], &seen["origin"]["origin_run_id"]), (&json!("retry"), &json!(run)));
    assert_eq!((&seen["state"], &seen["kind"]), (&json!("running"), &json!("render_video")));
    assert_eq!(operator.act(run, retry).await.problem(), "run.conflict");
    assert_eq!(operator.get(&format!("/runs/{run}")).await["actions"], json!([]), "nobody is offered what is refused");
    assert_eq!(world.count("render.render_jobs").await, 2);
    assert_eq!(operator.get("/dead-letters").await["data"], json!([]));
    assert_eq!(deeds(&world).await, (1, 1));
}

/// What tries runs again as workers do.
fn operations(world: &World) -> Operations {
    Operations::new(Client::new(world.db.clone())).anew(Some(again::films(world.app.limits)))
}

/// An operation that tries all runs again that have failed, so many: it is begun, and nobody has worked on it.
async fn begun(hand: &Hand<'_>, total: i64) -> String {
    let retry = json!({ "action": "retry", "filter": { "states": ["failed"] }, "reason": "the font is installed now" });
    let preview = hand.post("/bulk", retry).await.json();
    assert_eq!((&preview["total"], &preview["left_out"]), (&json!(total), &json!([])));
    let id = preview["id"].as_str().unwrap().to_owned();
    let begin = json!({ "action": "begin", "confirm": total });
    assert_eq!(hand.post(&format!("/bulk/{id}/actions"), begin).await.status, StatusCode::OK);
    id
}

#[sqlx::test(migrations = "../migrations")]
async fn a_film_that_nobody_can_pay_is_not_ordered_again(db: PgPool) {
    let world = World::new(db).await;
    let operator = Hand::of(&world, DEFAULT_TENANT, "platform_operator").await;
    let run = failed_film(&world).await;
    let mut db = world.db.acquire().await.unwrap();
    credit::set_paid(&mut db, DEFAULT_TENANT, true).await.unwrap();
    drop(db);
    let runs = world.count("workflow.runs").await;
    let refused = operator.act(run, json!({ "action": "retry" })).await;
    assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::PAYMENT_REQUIRED, "credits.insufficient"));
    assert_eq!((world.count("render.render_jobs").await, world.count("workflow.runs").await), (1, runs));
    assert_eq!(deeds(&world).await, (0, 0));
    // Of many, it is one that could not be done, and says why.
    let id = begun(&operator, 1).await;
    assert_eq!(operations(&world).work_on_bulk().await.unwrap(), 1);
    let item = operator.get(&format!("/bulk/{id}/items")).await["data"][0].clone();
    assert_eq!(item["outcome"], "failed");
    assert!(item["note"].as_str().unwrap().contains("s of rendering"), "{item}");
    assert_eq!(world.count("render.render_jobs").await, 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_film_beyond_what_was_agreed_is_not_ordered_again_before_it_is_said_when(db: PgPool) {
    let world = World::new(db).await;
    let operator = Hand::of(&world, DEFAULT_TENANT, "platform_operator").await;
    let run = failed_film(&world).await;
    crate::quotas::agree(&world, "renders_per_day", 1).await;
    let refused = operator.act(run, json!({ "action": "retry" })).await;
    assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::TOO_MANY_REQUESTS, "quota.renders_per_day"));
    assert!((1..=86_400).contains(&refused.header("retry-after").parse::<u64>().unwrap()));
}

#[sqlx::test(migrations = "../migrations")]
async fn nothing_is_made_again_for_a_tenant_that_is_suspended(db: PgPool) {
    let world = World::new(db).await;
    let run = failed_film(&world).await;
    let mut tx = world.db.begin().await.unwrap();
    assert!(tenant::suspend(&mut tx, DEFAULT_TENANT, Some("not paid")).await.unwrap());
    let refused = operations(&world).retry(&mut tx, &By::new("cli"), run, &Fork::from_failure()).await;
    let Err(OperationError::Refused(failure)) = &refused else { panic!("{refused:?}") };
    assert_eq!((failure.code.as_str(), failure.retryable), ("tenant.suspended", false));
}

#[sqlx::test(migrations = "../migrations")]
async fn films_of_two_people_are_ordered_again_in_a_transaction_each(db: PgPool) {
    let world = World::new(db).await;
    let operator = Hand::of(&world, DEFAULT_TENANT, "platform_operator").await;
    let mut people = BTreeSet::new();
    for email in ["ana@example.com", "ben@example.com"] {
        let id = world.person(DEFAULT_TENANT, email, &["editor"]).await;
        failed_film_of(&world, &world.session(DEFAULT_TENANT, id).await).await;
        people.insert(id);
    }
    begun(&operator, 2).await;
    // Whoever orders waits for one of them at most, and nobody for both.
    let operations = operations(&world);
    for items in [1, 1, 0] {
        assert_eq!(operations.work_on_bulk().await.unwrap(), items);
    }
    let again = "select user_id from render.render_jobs where status = 'queued'";
    let again: Vec<Uuid> = sqlx::query_scalar(again).fetch_all(&world.db).await.unwrap();
    assert_eq!((again.len(), again.into_iter().collect::<BTreeSet<_>>()), (2, people));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_film_that_something_passing_was_in_the_way_of_is_taken_up_again(db: PgPool) {
    let world = World::new(db).await;
    let operator = Hand::of(&world, DEFAULT_TENANT, "platform_operator").await;
    failed_film(&world).await;
    let (id, operations) = (begun(&operator, 1).await, operations(&world));
    for passing in ["deadlock_detected", "lock_not_available", "query_canceled"] {
        let in_the_way = format!(
            "create function in_the_way() returns trigger language plpgsql as $$ begin raise 'in the way' using errcode = '{passing}'; end $$;
             create trigger in_the_way before insert on render.render_jobs for each row execute function in_the_way()"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(in_the_way)).execute(&world.db).await.unwrap();
        assert!(operations.work_on_bulk().await.is_err(), "{passing}");
        sqlx::raw_sql("drop function in_the_way() cascade").execute(&world.db).await.unwrap();
        let bulk = operator.get(&format!("/bulk/{id}")).await;
        assert_eq!((&bulk["state"], &bulk["turned"]), (&json!("running"), &json!(0)), "{passing}");
    }
    assert_eq!(operations.work_on_bulk().await.unwrap(), 1);
    assert_eq!(operator.get(&format!("/bulk/{id}")).await["done"], 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn films_that_failed_are_ordered_again_among_many(db: PgPool) {
    let world = World::new(db).await;
    let operator = Hand::of(&world, DEFAULT_TENANT, "platform_operator").await;
    let film = failed_film(&world).await;
    let gone = failed(&world, DEFAULT_TENANT, "render_video", "its film was removed").await;
    let (id, operations) = (begun(&operator, 2).await, operations(&world));
    assert_eq!((operations.work_on_bulk().await.unwrap(), operations.work_on_bulk().await.unwrap()), (1, 1));
    let items = operator.get(&format!("/bulk/{id}/items")).await;
    let outcome = |run: Uuid| {
        let items = items["data"].as_array().unwrap();
        items.iter().find(|item| item["run_id"] == json!(run)).unwrap()["outcome"].clone()
    };
    assert_eq!((outcome(film), outcome(gone)), (json!("done"), json!("failed")));
    assert_eq!(world.count("render.render_jobs where status = 'queued'").await, 1);
}
