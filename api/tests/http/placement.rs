//! Which node gets which task: the farm that each server keeps, and the database that decides.

use crate::{
    film::finished,
    world::{World, order, request, with_json},
};
use axum::{
    Router,
    body::Body,
    http::{Method, Request, StatusCode},
};
use flatrender_api::{app::App, nodes::placement::queues, router};
use flatrender_engine::operations::{By, Operations, Terms};
use flatrender_workflows::models::{DEFAULT_TENANT, Role, Scope, identity::tenant_api_key::SCOPES, render::backlog};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{collections::BTreeSet, sync::Arc};
use tower::ServiceExt as _;
use uuid::Uuid;

/// Asks a server for work: the status, and the tasks that were given.
async fn ask(server: &Router, credential: &str, labels: Value, slots: u32, wait: f64) -> (StatusCode, Vec<i64>) {
    let body = json!({"incarnation": Uuid::new_v4(), "labels": labels, "slots": slots, "wait_seconds": wait});
    let request = Request::post("/v1/nodes/claims")
        .header("authorization", format!("Bearer {credential}"))
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()));
    let response = server.clone().oneshot(request.unwrap()).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    let tasks = answer["tasks"].as_array().into_iter().flatten();
    (status, tasks.map(|task| task["task_id"].as_i64().unwrap()).collect())
}

/// Waits until films have tasks for nodes, as many as they will have, and counts them.
async fn ready(world: &World, films: i64) -> usize {
    loop {
        let (runs, tasks): (i64, i64) = sqlx::query_as(
            "select count(distinct run_id), count(*) from workflow.tasks
             where kind = 'activity' and queue = 'node.render' and state = 'ready'",
        )
        .fetch_one(&world.db)
        .await
        .unwrap();
        if runs == films {
            return tasks as usize;
        }
        tokio::task::yield_now().await;
    }
}

fn lottie() -> Value {
    json!({"engine": "lottie"})
}

#[sqlx::test(migrations = "../migrations")]
async fn nodes_that_ask_at_once_get_each_task_once(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    for _ in 0..3 {
        world.order().await;
    }
    let tasks = ready(&world, 3).await;
    let mut credentials = Vec::new();
    for n in 0..12 {
        credentials.push(world.node(&format!("n{n}")).await.credential);
    }
    // A second server over the same database keeps a farm of its own.
    let other = router::router(App { placement: Arc::default(), ..world.app.clone() });
    let asked = credentials
        .iter()
        .enumerate()
        .map(|(n, credential)| ask(if n % 2 == 0 { &world.router } else { &other }, credential, lottie(), 1, 0.0));
    let answers = futures::future::join_all(asked).await;
    let given: Vec<i64> = answers.into_iter().flat_map(|(_, tasks)| tasks).collect();
    assert_eq!(given.len(), given.iter().collect::<BTreeSet<_>>().len(), "{given:?}");
    assert_eq!(given.len(), tasks.min(12), "whoever lost chooses again");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_render_says_which_label_no_node_has_until_one_comes(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    let id = world.order().await;
    ready(&world, 1).await;
    let other = world.node("other").await;
    assert_eq!(ask(&world.router, &other.credential, json!({}), 1, 0.0).await.0, StatusCode::NO_CONTENT);
    let path = format!("/v1/renders/{id}");
    let why = |render: &Value| render["waiting_because"].as_str().unwrap_or_default().to_owned();
    assert_eq!(why(&world.get(&path).await.json()), "no node has the renderer lottie");
    let able = world.node("able").await;
    assert_eq!(ask(&world.router, &able.credential, lottie(), 1, 20.0).await.0, StatusCode::OK, "without a restart");
    assert_eq!(why(&world.get(&path).await.json()), "", "it is worked on");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_node_that_is_drained_gets_nothing(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    let id = world.order().await;
    ready(&world, 1).await;
    let node = world.node("n1").await;
    sqlx::query("update render.nodes set status = 'draining', drained = true, offers = '{\"engine\": \"lottie\"}'")
        .execute(&world.db)
        .await
        .unwrap();
    assert_eq!(ask(&world.router, &node.credential, lottie(), 1, 0.0).await.0, StatusCode::NO_CONTENT);
    let why = world.get(&format!("/v1/renders/{id}")).await.json()["waiting_because"].clone();
    assert_eq!(why, "nodes that could do it are set aside, drained or asleep: 1");
    // Whoever looks after runs is told the same, once nothing else is in the way.
    while world.count("workflow.tasks where step_key = 'mix_audio'").await == 0 {
        tokio::task::yield_now().await;
    }
    sqlx::query("delete from workflow.tasks where step_key = 'mix_audio'").execute(&world.db).await.unwrap();
    let viewer = world.person(DEFAULT_TENANT, "viewer@example.com", &["platform_viewer"]).await;
    let token = world.session(DEFAULT_TENANT, viewer).await;
    let path = format!("/v1/operate/runs/{}", world.run_of(id).await);
    let seen = world.send(request(Method::GET, &path, &token).body(Body::empty()).unwrap()).await.json();
    assert_eq!((&seen["why"]["reason"], &seen["why"]["details"]["nodes"]), (&json!("farm_away"), &json!(1)));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_node_that_is_drained_while_it_waits_gets_nothing(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    let node = world.node("n1").await;
    let waiting = ask(&world.router, &node.credential, lottie(), 1, 3.0);
    let meanwhile = async {
        while world.count("workflow.remote_workers").await == 0 {
            tokio::task::yield_now().await;
        }
        // It is known as it is now, and that is fresh.
        world.app.placement.read(&world.app, std::time::Instant::now()).await.unwrap();
        let drain = "update render.nodes set status = 'draining', drained = true";
        sqlx::query(drain).execute(&world.db).await.unwrap();
        world.order().await
    };
    let (answer, _) = tokio::join!(waiting, meanwhile);
    assert_eq!(answer, (StatusCode::NO_CONTENT, vec![]));
    assert_eq!(world.count("workflow.tasks where queue = 'node.render' and state = 'leased'").await, 0);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_task_that_a_node_lost_goes_to_another_first(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    let (first, second) = (world.node("n1").await, world.node("n2").await);
    let had = ask(&world.router, &first.credential, lottie(), 1, 20.0).await.1;
    let rest = async {
        loop {
            // Whatever else there is, so that the lost task is all that waits.
            if ask(&world.router, &second.credential, lottie(), 8, 0.0).await.0 == StatusCode::NO_CONTENT {
                break;
            }
        }
    };
    rest.await;
    let lost = "update workflow.tasks set lease_expires_at = workflow.now() where id = $1";
    sqlx::query(lost).bind(had[0]).execute(&world.db).await.unwrap();
    while world.count("workflow.attempts where outcome = 'lost'").await == 0 {
        tokio::task::yield_now().await;
    }
    while world
        .count("workflow.tasks where state = 'ready' and queue = 'node.render' and run_at <= workflow.now()")
        .await
        == 0
    {
        tokio::task::yield_now().await;
    }
    let again = ask(&world.router, &first.credential, lottie(), 1, 0.0).await;
    assert_eq!(again, (StatusCode::NO_CONTENT, vec![]), "it had it before, and another may do it");
    assert_eq!(ask(&world.router, &second.credential, lottie(), 1, 20.0).await.1, had);
}

#[sqlx::test(migrations = "../migrations")]
async fn queues_of_nodes_have_no_terms(db: PgPool) {
    let operations = Operations::new(flatrender_engine::Client::new(db.clone()));
    for (queue, fine) in [("node.render", false), ("node.snapshot", false), ("media", true)] {
        let mut tx = db.begin().await.unwrap();
        let set = operations.set_terms(&mut tx, &By::new("ada").because("a cap"), queue, &Terms::default()).await;
        assert_eq!(set.is_ok(), fine, "{queue}: {set:?}");
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn a_node_of_one_tenant_does_that_tenants_work_only(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    ready(&world, 1).await;
    let node = world.node("n1").await;
    for (tenant, status) in [(Uuid::new_v4(), StatusCode::NO_CONTENT), (world.tenant, StatusCode::OK)] {
        sqlx::query("update render.nodes set tenant_id = $1").bind(tenant).execute(&world.db).await.unwrap();
        assert_eq!(ask(&world.router, &node.credential, lottie(), 1, 0.0).await.0, status);
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn a_node_with_two_slots_gets_two_tasks(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    for _ in 0..2 {
        world.order().await;
    }
    ready(&world, 2).await;
    let node = world.node("n1").await;
    assert_eq!(ask(&world.router, &node.credential, lottie(), 2, 0.0).await.1.len(), 2);
}

#[sqlx::test(migrations = "../migrations")]
async fn while_tenants_wait_for_nodes_each_gets_as_much_as_it_weighs(db: PgPool) {
    let world = World::new(db).await;
    let other = world.tenant("other").await;
    let key = world.key_for(other, &SCOPES).await.1;
    let admin = world.person(DEFAULT_TENANT, "root@example.com", &["platform_admin"]).await;
    let access = world.session(DEFAULT_TENANT, admin).await;
    let path = format!("/v1/platform/tenants/{DEFAULT_TENANT}/limits/render_weight");
    let agree = |weight: i64| world.send(with_json(request(Method::PUT, &path, &access), &json!({ "hard": weight })));
    assert_eq!(agree(0).await.faults(), ["/hard limit.value"]);
    assert_eq!(agree(10).await.status, StatusCode::OK);
    world.run_workflows();
    for _ in 0..6 {
        world.order().await;
        let ordered = world.send(with_json(request(Method::POST, "/v1/renders", &key), &order())).await;
        assert_eq!(ordered.status, StatusCode::ACCEPTED, "{:?}", ordered.body);
    }
    ready(&world, 12).await;
    let node = world.node("n1").await;
    let given = ask(&world.router, &node.credential, lottie(), 8, 0.0).await.1;
    let sql = "select count(*) from workflow.tasks where id = any($1) and tenant_id = $2";
    let heavy: i64 = sqlx::query_scalar(sql).bind(&given).bind(DEFAULT_TENANT).fetch_one(&world.db).await.unwrap();
    assert_eq!(given.len(), 8);
    assert!((6..8).contains(&heavy), "{heavy} of 8, and the other is not starved");
}

/// How the chunks of a film stand, and which nodes have or had them.
async fn chunks(world: &World, id: Uuid) -> Vec<(String, Option<String>)> {
    let sql = "select f.status, n.name from render.frame_jobs f left join render.nodes n on n.id = f.node_id
               where f.render_job_id = $1 order by f.chunk_no";
    sqlx::query_as(sql).bind(id).fetch_all(&world.db).await.unwrap()
}

/// Waits until every chunk of a film stands so.
async fn all_are(world: &World, id: Uuid, status: &str) {
    let begun = std::time::Instant::now();
    loop {
        let chunks = chunks(world, id).await;
        if chunks.iter().all(|(found, _)| found == status) {
            return;
        }
        assert!(begun.elapsed().as_secs() < 30, "{status}: {chunks:?}");
        tokio::task::yield_now().await;
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn a_chunk_is_leased_while_a_node_has_it_and_queued_when_it_comes_back(db: PgPool) {
    let world = World::new(db).await;
    world.work();
    let id = world.order().await;
    ready(&world, 1).await;
    all_are(&world, id, "queued").await;
    let leased = vec![("leased".to_owned(), Some("n1".to_owned())); chunks(&world, id).await.len()];
    let node = world.node("n1").await;
    let mut tasks = Vec::new();
    for _ in &leased {
        tasks.push(node.claim().await);
    }
    assert_eq!(chunks(&world, id).await, leased);
    let lost = "update workflow.tasks set lease_expires_at = workflow.now() where activity = 'RenderFrames'";
    sqlx::query(lost).execute(&world.db).await.unwrap();
    all_are(&world, id, "queued").await;
    for task in &mut tasks {
        *task = node.claim().await;
    }
    assert_eq!(chunks(&world, id).await, leased);
    for task in &tasks {
        let failure = json!({"code": "render.crashed", "message": "as told", "retryable": true});
        let body = json!({"lease_token": task.token, "failure": failure});
        let failed = node.call(&format!("/v1/nodes/tasks/{}/fail", task.id), body).await;
        assert_eq!(failed.status, StatusCode::NO_CONTENT, "{:?}", failed.body);
    }
    all_are(&world, id, "queued").await;
    let render = finished(&world, &world.node("n2").await, &world.key, &id.to_string()).await;
    assert_eq!(render["status"], "completed", "{render}");
    let verified = vec![("verified".to_owned(), Some("n2".to_owned())); leased.len()];
    assert_eq!(chunks(&world, id).await, verified);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_frame_that_a_node_has_torn_is_rendered_again_by_another(db: PgPool) {
    let world = World::new(db).await;
    world.work();
    let id = world.order().await;
    ready(&world, 1).await;
    let (first, second) = (world.node("n1").await, world.node("n2").await);
    let offers = "update render.nodes set offers = '{\"engine\": \"lottie\"}'";
    sqlx::query(offers).execute(&world.db).await.unwrap();
    for torn in [true, false] {
        let task = first.claim().await;
        let mut output = first.render(&task).await;
        if torn {
            let png = crate::world::png([9, 9, 9]);
            output["frames"][3]["blob"] = json!(first.put_frame(&task, &png[..png.len() / 2]).await);
        }
        assert_eq!(first.complete(&task, output).await.status, StatusCode::NO_CONTENT);
    }
    ready(&world, 1).await;
    assert_eq!(first.ask(0.0).await.status, StatusCode::NO_CONTENT, "it had it, and another may do it");
    let task = second.claim().await;
    assert_eq!((&task.input["avoid"], &task.input["class"]), (&json!(["n1"]), &json!("repair")));
    assert_eq!(task.input["frames"]["first"], task.input["frames"]["last"], "that frame alone");
    let output = second.render(&task).await;
    assert_eq!(second.complete(&task, output).await.status, StatusCode::NO_CONTENT);
    let render = finished(&world, &second, &world.key, &id.to_string()).await;
    assert_eq!(render["status"], "completed", "{render}");
    let sql =
        "select n.name, r.reason from render.frame_repair_jobs r join render.nodes n on n.id = any(r.excluded_nodes)";
    let repairs: Vec<(String, String)> = sqlx::query_as(sql).fetch_all(&world.db).await.unwrap();
    assert_eq!(repairs, [("n1".to_owned(), "corrupt".to_owned())]);
}

#[sqlx::test(migrations = "../migrations")]
async fn nobody_is_hidden_behind_the_many_tasks_of_another(db: PgPool) {
    let world = World::new(db).await;
    let other = world.tenant("other").await;
    let key = world.key_for(other, &SCOPES).await.1;
    world.run_workflows();
    for _ in 0..4 {
        world.order().await;
    }
    ready(&world, 4).await;
    world.send(with_json(request(Method::POST, "/v1/renders", &key), &order())).await;
    let all = ready(&world, 5).await as i64;
    sqlx::query("update workflow.tasks set priority = 9 where tenant_id = $1")
        .bind(DEFAULT_TENANT)
        .execute(&world.db)
        .await
        .unwrap();
    let theirs = async |limit: i64| -> (i64, usize) {
        let mut tx = world.app.db.begin(Scope::platform(Role::Workflow)).await.unwrap();
        let seen = backlog::read(&mut tx, &queues(), limit).await.unwrap().tasks;
        let ids: Vec<i64> = seen.iter().map(|task| task.id).collect();
        let sql = "select count(*) from workflow.tasks where id = any($1) and tenant_id = $2";
        (sqlx::query_scalar(sql).bind(&ids).bind(other).fetch_one(&world.db).await.unwrap(), ids.len())
    };
    assert_eq!(theirs(all + 1).await, (2, all as usize));
    assert_eq!(theirs(4).await, (2, 4), "as many of each, whatever their priority");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_still_that_a_node_failed_goes_to_another_first(db: PgPool) {
    let world = World::managed(db).await;
    world.run_workflows();
    let template = world.get("/v1/templates/tiny").await.json();
    let path = format!("/v1/scene-snapshots/{}", template["project_id"].as_str().unwrap());
    let scene = world.get(&path).await.json()["data"][0]["scene_id"].clone();
    world.post(&path, json!({"scenes": [scene]})).await;
    let (first, second) = (world.node("n1").await, world.node("n2").await);
    let offers = "update render.nodes set offers = '{\"engine\": \"lottie\"}'";
    sqlx::query(offers).execute(&world.db).await.unwrap();
    let task = first.claim().await;
    let failure = json!({"code": "render.disk_full", "message": "as told", "retryable": true});
    let body = json!({"lease_token": task.token, "failure": failure});
    let failed = first.call(&format!("/v1/nodes/tasks/{}/fail", task.id), body).await;
    assert_eq!(failed.status, StatusCode::NO_CONTENT, "{:?}", failed.body);
    sqlx::query("update workflow.tasks set run_at = workflow.now() where id = $1")
        .bind(task.id)
        .execute(&world.db)
        .await
        .unwrap();
    let due = "workflow.tasks where activity = 'RenderStills' and state = 'ready' and run_at <= workflow.now()";
    while world.count(due).await == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(first.ask(0.0).await.status, StatusCode::NO_CONTENT, "it failed there, and another may do it");
    assert_eq!(second.claim().await.id, task.id);
}
