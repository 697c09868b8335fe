//! What a node has stored is kept, whatever becomes of the node; and it can be seen.

use crate::world::{Answer, Claimed, Node, World, png};
use axum::http::{Method, StatusCode, header};
use flatrender_workflows::models::DEFAULT_TENANT;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::Duration;
use uuid::Uuid;

/// Stores frames, each in a colour of its own, and tells of them.
async fn store(node: &Node<'_>, task: &Claimed, frames: std::ops::Range<u64>) -> Vec<Value> {
    let mut stored = vec![];
    for frame in frames {
        let blob = node.put_frame(task, &png([200, frame as u8 * 5, 30])).await;
        stored.push(json!({"frame": frame, "blob": blob}));
    }
    let answer = node.call(&told(task), json!({"lease_token": task.token, "frames": stored})).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{:?}", answer.body);
    stored
}

fn told(task: &Claimed) -> String {
    format!("/v1/nodes/tasks/{}/frames", task.id)
}

/// Numbers of the frames that a node is told are there.
async fn kept(node: &Node<'_>, task: &Claimed) -> Vec<u64> {
    let answer = node.with_lease(Method::GET, task, "frames", "").await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    answer.json()["frames"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect()
}

#[sqlx::test(migrations = "../migrations")]
async fn frames_of_a_node_that_dies_are_kept_and_the_next_renders_the_others(db: PgPool) {
    let world = World::new(db).await;
    world.work();
    let id = world.order().await;
    let (first, second) = (world.node("n1").await, world.node("n2").await);
    let task = first.claim().await;
    let (from, to) = (task.input["frames"]["first"].as_u64().unwrap(), task.input["frames"]["last"].as_u64().unwrap());
    store(&first, &task, from..from + 5).await;
    assert_eq!(kept(&first, &task).await, [0; 0], "its own are not news to it");
    let expire = "update workflow.tasks set lease_expires_at = workflow.now() where lease_token = $1::uuid";
    sqlx::query(expire).bind(&task.token).execute(&world.db).await.unwrap();
    let mut rest = vec![];
    loop {
        let claimed = second.claim().await;
        if claimed.id == task.id {
            assert_eq!(kept(&second, &claimed).await, (from..from + 5).collect::<Vec<_>>());
            rest.extend(store(&second, &claimed, from + 5..to + 1).await);
            let done = second.complete(&claimed, crate::world::output(&rest)).await;
            assert_eq!(done.status, StatusCode::NO_CONTENT);
            break;
        }
        let output = second.render(&claimed).await;
        assert_eq!(second.complete(&claimed, output).await.status, StatusCode::NO_CONTENT);
    }
    let render = crate::film::finished(&world, &second, &world.key, &id.to_string()).await;
    assert_eq!(render["status"], "completed", "{render}");
    let owners: Vec<(String, String, i64)> = sqlx::query_as(
        "select n.name, a.outcome, count(*) from render.frame_manifests m join render.frame_job_attempts a on a.id = m.attempt_id
         join render.nodes n on n.id = a.node_id where m.render_job_id = $1 and m.frame_no between $2 and $3 group by 1, 2 order by 1",
    )
    .bind(id)
    .bind(from as i32)
    .bind(to as i32)
    .fetch_all(&world.db)
    .await
    .unwrap();
    let rest = (to - from - 4) as i64;
    assert_eq!(owners, [("n1".into(), "lost".into(), 5), ("n2".into(), "ok".into(), rest)]);
}

#[sqlx::test(migrations = "../migrations")]
async fn frames_of_an_attempt_that_showed_the_wrong_thing_are_neither_kept_nor_delivered(db: PgPool) {
    let world = World::new(db).await;
    world.work();
    let id = world.order().await;
    let mut spoiled = vec![];
    for (name, code) in [("n1", "render.missing_font"), ("n2", "render.logged_errors")] {
        let node = world.node(name).await;
        let task = node.claim().await;
        assert_eq!(kept(&node, &task).await, [0; 0], "{code}");
        let (from, to) = (task.input["frames"]["first"].as_u64(), task.input["frames"]["last"].as_u64());
        spoiled.extend(store(&node, &task, from.unwrap()..to.unwrap() + 1).await);
        let failure = json!({"code": code, "message": "a font is not there", "retryable": true});
        let body = json!({"lease_token": task.token, "failure": failure});
        let failed = node.call(&format!("/v1/nodes/tasks/{}/fail", task.id), body).await;
        assert_eq!(failed.status, StatusCode::NO_CONTENT, "{:?}", failed.body);
        let late = json!({"lease_token": task.token, "frames": spoiled});
        assert_eq!(node.call(&told(&task), late).await.problem(), "lease.lost");
    }
    let sound = world.node("n3").await;
    let render = crate::film::finished(&world, &sound, &world.key, &id.to_string()).await;
    assert_eq!(render["status"], "completed", "{render}");
    // Theirs differ from frame to frame; the sound node paints all alike.
    let pictures = "select count(distinct sha256) from render.frame_manifests where render_job_id = $1";
    let pictures: i64 = sqlx::query_scalar(pictures).bind(id).fetch_one(&world.db).await.unwrap();
    assert_eq!(pictures, 1);
}

/// The lease runs out, and that is noticed.
async fn lose(world: &World, task: &Claimed) {
    let expire = "update workflow.tasks set lease_expires_at = workflow.now() where lease_token = $1::uuid";
    sqlx::query(expire).bind(&task.token).execute(&world.db).await.unwrap();
    let lost = "select count(*) from workflow.attempts where lease_token = $1::uuid and outcome = 'lost'";
    let noticed = async {
        while sqlx::query_scalar::<_, i64>(lost).bind(&task.token).fetch_one(&world.db).await.unwrap() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), noticed).await.expect("the lease is noticed to have ended");
}

/// Stores every frame of a task, each in a colour of its own. Their numbers.
async fn store_all(node: &Node<'_>, task: &Claimed) -> Vec<u64> {
    let number = |end: &str| task.input["frames"][end].as_u64().unwrap();
    store(node, task, number("first")..number("last") + 1).await;
    (number("first")..=number("last")).collect()
}

/// Tells that what an attempt has stored shows the wrong thing.
async fn spoil(node: &Node<'_>, task: &Claimed) -> Answer {
    let failure = json!({"code": "render.logged_errors", "message": "it logged 3 errors", "retryable": true});
    let body = json!({"lease_token": task.token, "failure": failure});
    node.call(&format!("/v1/nodes/tasks/{}/fail", task.id), body).await
}

/// Claims until this task comes, and renders what comes before it.
async fn claim_this(node: &Node<'_>, task: &Claimed) -> Claimed {
    loop {
        let claimed = node.claim().await;
        if claimed.id == task.id {
            return claimed;
        }
        let output = node.render(&claimed).await;
        assert_eq!(node.complete(&claimed, output).await.status, StatusCode::NO_CONTENT);
    }
}

/// Reports the first frame alone: the others are kept.
async fn complete_with_one(node: &Node<'_>, task: &Claimed) {
    let blob = node.put_frame(task, &png([200, 30, 30])).await;
    let first = json!({"frame": task.input["frames"]["first"], "blob": blob});
    assert_eq!(node.complete(task, crate::world::output(&[first])).await.status, StatusCode::NO_CONTENT);
}

/// The film is made, and every frame of it is the sound node's, which paints all alike.
async fn only_sound_frames(world: &World, sound: &Node<'_>, id: Uuid) {
    let render = crate::film::finished(world, sound, &world.key, &id.to_string()).await;
    assert_eq!(render["status"], "completed", "{render}");
    let pictures = "select count(distinct sha256) from render.frame_manifests where render_job_id = $1";
    let pictures: i64 = sqlx::query_scalar(pictures).bind(id).fetch_one(&world.db).await.unwrap();
    assert_eq!(pictures, 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_node_that_was_cut_off_is_heard_when_it_says_that_its_frames_are_spoiled(db: PgPool) {
    let world = World::new(db).await;
    world.work();
    let id = world.order().await;
    let (late, sound) = (world.node("n1").await, world.node("n2").await);
    let task = late.claim().await;
    store_all(&late, &task).await;
    lose(&world, &task).await;
    let told = spoil(&late, &task).await;
    assert_eq!(told.status, StatusCode::NO_CONTENT, "{:?}", told.body);
    only_sound_frames(&world, &sound, id).await;
    assert_eq!(world.count("render.node_crashes where code = 'render.logged_errors'").await, 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn frames_that_are_said_to_be_spoiled_too_late_are_kept_no_more(db: PgPool) {
    let world = World::new(db).await;
    world.work();
    let id = world.order().await;
    let (late, sound) = (world.node("n1").await, world.node("n2").await);
    let task = late.claim().await;
    let all = store_all(&late, &task).await;
    lose(&world, &task).await;
    let again = claim_this(&sound, &task).await;
    assert_eq!(kept(&sound, &again).await, all);
    for _ in 0..2 {
        assert_eq!(spoil(&late, &task).await.problem(), "lease.lost", "the task is another's");
        assert_eq!(kept(&sound, &again).await, [0; 0]);
    }
    assert_eq!(spoil(&sound, &task).await.problem(), "lease.lost", "nobody else can say so");
    assert_eq!(world.count("render.node_crashes where code = 'render.logged_errors'").await, 1);
    // It has counted on what it was told.
    complete_with_one(&sound, &again).await;
    only_sound_frames(&world, &sound, id).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn frames_that_are_said_to_be_spoiled_while_they_are_proven_are_not_accepted(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    let id = world.order().await;
    let (late, sound) = (world.node("n1").await, world.node("n2").await);
    let task = late.claim().await;
    store_all(&late, &task).await;
    lose(&world, &task).await;
    let again = claim_this(&sound, &task).await;
    complete_with_one(&sound, &again).await;
    let counted = async {
        while world.count("render.frame_job_attempts where outcome = 'lost'").await == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), counted).await.expect("the kept frames are counted on");
    assert_eq!(spoil(&late, &task).await.problem(), "lease.lost");
    world.work();
    only_sound_frames(&world, &sound, id).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn frames_that_are_said_to_be_spoiled_after_they_were_accepted_are_rendered_again(db: PgPool) {
    let world = World::new(db).await;
    world.work();
    let id = world.order().await;
    let (late, sound, busy) = (world.node("n1").await, world.node("n2").await, world.node("n3").await);
    let task = late.claim().await;
    let held = busy.claim().await;
    store_all(&late, &task).await;
    lose(&world, &task).await;
    let again = sound.claim().await;
    assert_eq!(again.id, task.id, "the film has two chunks");
    complete_with_one(&sound, &again).await;
    let accepted = async {
        while world.count("render.frame_jobs where status = 'verified'").await == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), accepted).await.expect("the kept frames are accepted");
    assert_eq!(spoil(&late, &task).await.problem(), "lease.lost");
    let output = busy.render(&held).await;
    assert_eq!(busy.complete(&held, output).await.status, StatusCode::NO_CONTENT);
    let render = crate::film::finished(&world, &sound, &world.key, &id.to_string()).await;
    assert_eq!(render["status"], "completed", "{render}");
    let pictures = "select count(distinct coalesce((select r.sha256 from render.frame_replacements r
                        where r.render_job_id = m.render_job_id and r.frame_no = m.frame_no order by r.no desc limit 1), m.sha256))
                    from render.frame_manifests m where m.render_job_id = $1";
    let pictures: i64 = sqlx::query_scalar(pictures).bind(id).fetch_one(&world.db).await.unwrap();
    assert_eq!(pictures, 1, "all are as a sound node paints them");
    assert_eq!(world.count("workflow.steps where key = 'publish_sound_2' and outcome = 'ok'").await, 1);
}

/// Keeps a scene of a film for others.
async fn keep_a_scene(world: &World, id: Uuid) {
    let keep = "insert into render.kept_scenes (tenant_id, key, sha256, size_bytes, frame_sha256, frame_bytes, render_job_id)
                select tenant_id, repeat('a', 64), repeat('b', 64), 1, array[repeat('c', 64)], array[1], id from render.render_jobs where id = $1";
    sqlx::query(keep).bind(id).execute(&world.db).await.unwrap();
}

#[sqlx::test(migrations = "../migrations")]
async fn scenes_are_kept_no_more_when_a_node_that_was_overtaken_says_that_its_frames_are_spoiled(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    let id = world.order().await;
    let node = world.node("n1").await;
    let task = node.claim().await;
    keep_a_scene(&world, id).await;
    let withdraw = "update workflow.tasks set cancel_requested = true where id = $1";
    sqlx::query(withdraw).bind(task.id).execute(&world.db).await.unwrap();
    assert_eq!(spoil(&node, &task).await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.count("render.kept_scenes where evicted_at is not null").await, 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn scenes_of_other_nodes_are_kept_when_frames_of_which_none_was_used_are_spoiled(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    let id = world.order().await;
    let node = world.node("n1").await;
    let task = node.claim().await;
    keep_a_scene(&world, id).await;
    for _ in 0..2 {
        // The answer to the first is lost.
        assert_eq!(spoil(&node, &task).await.status, StatusCode::NO_CONTENT);
    }
    assert_eq!(world.count("render.kept_scenes where evicted_at is null").await, 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_lease_cannot_pass_to_another_while_frames_are_noted_under_it(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    let node = world.node("n1").await;
    let task = node.claim().await;
    let blob = node.put_frame(&task, &png([1, 2, 3])).await;
    let first = task.input["frames"]["first"].clone();
    let body = json!({"lease_token": task.token, "frames": [{"frame": first, "blob": blob}]});
    let mut slow = world.db.begin().await.unwrap();
    sqlx::raw_sql("lock table render.stored_frames").execute(&mut *slow).await.unwrap();
    let elsewhere = async {
        let waits = "pg_locks where relation = 'render.stored_frames'::regclass and not granted";
        while world.count(waits).await == 0 {
            tokio::task::yield_now().await;
        }
        let mut thief = world.db.begin().await.unwrap();
        sqlx::raw_sql("set local lock_timeout = '50ms'").execute(&mut *thief).await.unwrap();
        let expire = "update workflow.tasks set lease_expires_at = workflow.now() where id = $1";
        let taken = sqlx::query(expire).bind(task.id).execute(&mut *thief).await;
        assert!(taken.is_err(), "the lease went away under the note");
        thief.rollback().await.unwrap();
        slow.rollback().await.unwrap();
    };
    let path = told(&task);
    let (noted, ()) = tokio::join!(node.call(&path, body), elsewhere);
    assert_eq!(noted.status, StatusCode::NO_CONTENT, "{:?}", noted.body);
}

#[sqlx::test(migrations = "../migrations")]
async fn only_frames_of_the_task_that_are_stored_are_noted(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    let node = world.node("n1").await;
    let task = node.claim().await;
    let blob = node.put_frame(&task, &png([1, 2, 3])).await;
    let frame = |n: u64, blob: &Value| json!({"lease_token": task.token, "frames": [{"frame": n, "blob": blob}]});
    let there = json!(blob);
    let gone = json!({"sha256": crate::world::blob(b"never").sha256, "size_bytes": 5});
    let first = task.input["frames"]["first"].as_u64().unwrap();
    assert_eq!(node.call(&told(&task), frame(9999, &there)).await.problem(), "node.bad_output");
    assert_eq!(node.call(&told(&task), frame(first, &gone)).await.problem(), "node.bad_output");
    let stale = json!({"lease_token": Uuid::new_v4(), "frames": []});
    assert_eq!(node.call(&told(&task), stale).await.problem(), "lease.lost");
    assert_eq!(world.count("render.stored_frames").await, 0);
}

#[sqlx::test(migrations = "../migrations")]
async fn the_last_rendered_frame_can_be_seen_while_the_film_is_made(db: PgPool) {
    let world = World::new(db).await;
    world.work();
    let id = world.order().await;
    let path = format!("/v1/renders/{id}/last-frame");
    assert_eq!(world.get(&path).await.problem(), "render.no_frame");
    let node = world.node("n1").await;
    let task = node.claim().await;
    store(&node, &task, 0..3).await;
    let seen = world.get(&path).await;
    assert_eq!((seen.status, seen.header(header::CONTENT_TYPE)), (StatusCode::OK, "image/jpeg"), "{:?}", seen.body);
    let picture = image::load_from_memory(&seen.body).unwrap().into_rgb8();
    let [red, green, blue] = picture.get_pixel(100, 70).0;
    assert!(red > 180 && green < 30 && blue < 50, "{red} {green} {blue}: the third frame");
    let etag = seen.header(header::ETAG).to_owned();
    let again = world.request(Method::GET, &path).header(header::IF_NONE_MATCH, &etag);
    assert_eq!(world.send(again.body(axum::body::Body::empty()).unwrap()).await.status, StatusCode::NOT_MODIFIED);
    store(&node, &task, 3..4).await;
    assert_ne!(world.get(&path).await.header(header::ETAG), etag, "a newer one is there");
    // Whoever looks after runs sees the same, and how each frame stands.
    let owner = world.person(DEFAULT_TENANT, "owner@example.com", &["owner"]).await;
    let owner = world.session(DEFAULT_TENANT, owner).await;
    let run = format!("/v1/operate/runs/{}", world.run_of(id).await);
    let look = async |what: &str, by: &str| {
        let asked = crate::world::request(Method::GET, &format!("{run}/{what}"), by);
        world.send(asked.body(axum::body::Body::empty()).unwrap()).await
    };
    let stretches = async || {
        let film = look("film", &owner).await;
        assert_eq!(film.status, StatusCode::OK, "{:?}", film.body);
        let film = film.json();
        assert_eq!(film["render"]["id"], json!(id));
        let all = film["frames"].as_array().unwrap().clone();
        let mut next = 0;
        for one in &all {
            assert_eq!(one["first"], next, "{all:?}");
            next = one["last"].as_i64().unwrap() + 1;
        }
        assert_eq!(film["render"]["frames"]["total"], next);
        all
    };
    let first = task.input["frames"]["first"].as_i64().unwrap();
    assert!(stretches().await.contains(&json!({"first": first, "last": first + 3, "state": "stored"})));
    assert_eq!(look("last-frame", &owner).await.body, world.get(&path).await.body);
    let stranger = world.stranger().await;
    assert_eq!(look("film", &stranger).await.status, StatusCode::FORBIDDEN, "a key");
    let theirs = crate::world::request(Method::GET, &path, &stranger).body(axum::body::Body::empty()).unwrap();
    assert_eq!(world.send(theirs).await.problem(), "render.not_found");
    let output = node.render(&task).await;
    assert_eq!(node.complete(&task, output).await.status, StatusCode::NO_CONTENT);
    let render = crate::film::finished(&world, &node, &world.key, &id.to_string()).await;
    assert_eq!((&render["status"], &render["last_frame_url"]), (&json!("completed"), &Value::Null));
    assert_eq!(world.get(&path).await.problem(), "render.no_frame");
    assert_eq!(look("last-frame", &owner).await.problem(), "render.no_frame");
    let over = stretches().await;
    assert!(over.iter().all(|one| ["accepted", "duplicate"].contains(&one["state"].as_str().unwrap())), "{over:?}");
}
