//! Failures of nodes: written down once, and what follows for the node. And a node that was cut off and comes back.

use crate::world::{Claimed, Node, World, png};
use axum::http::{Method, StatusCode};
use flatrender_activities::aerender::{
    account,
    classes::{CATALOGUE, Cure, OTHERS, Told},
};
use flatrender_workflows::{
    contracts::{evidence::Evidence, storage::BlobHash},
    models::{
        Role, Scope,
        render::node::{
            self, Standing,
            crash::{Consequence, NewCrash},
            policy::{Weight, weigh},
        },
    },
};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::Duration;
use uuid::Uuid;

pub async fn id_of(world: &World, name: &str) -> Uuid {
    sqlx::query_scalar("select id from render.nodes where name = $1").bind(name).fetch_one(&world.db).await.unwrap()
}

pub async fn standing(world: &World, name: &str) -> Standing {
    let id = id_of(world, name).await;
    let mut tx = Scope::platform(Role::Render).begin(&world.db).await.unwrap();
    node::standing(&mut tx, id).await.unwrap().unwrap()
}

pub async fn later(world: &World, by: Duration) {
    let sql = "update workflow.clock set moved_by = moved_by + make_interval(secs => $1)";
    sqlx::query(sql).bind(by.as_secs_f64()).execute(&world.db).await.unwrap();
}

/// What the driver tells of a renderer that has said this.
fn evidence(code: &str, said: &str) -> Value {
    let class = CATALOGUE.iter().chain(&OTHERS).find(|class| class.code == code).unwrap();
    json!(Evidence {
        signature: account::signature(code, Some("exit 139"), Some(said)),
        exit: Some(139),
        frame: Some(3),
        frames_stored: 2,
        frames_missing: 5,
        errors: vec![said.to_owned()],
        log_tail: vec!["PROGRESS: 0:00:00:03 (4): 1 Seconds".to_owned()],
        ..Evidence::bare(code, class.number, class.cure)
    })
}

async fn fail(node: &Node<'_>, task: &Claimed, code: &str, retryable: bool) -> StatusCode {
    fail_saying(node, task, code, retryable, "After Effects crashed at 0x7ff1").await
}

async fn fail_saying(node: &Node<'_>, task: &Claimed, code: &str, retryable: bool, said: &str) -> StatusCode {
    let details = evidence(code, said);
    let failure = json!({"code": code, "message": "the renderer crashed", "retryable": retryable, "details": details});
    let body = json!({"lease_token": task.token, "failure": failure});
    node.call(&format!("/v1/nodes/tasks/{}/fail", task.id), body).await.status
}

/// A crash on a package that no task of the world has.
pub async fn crash_on(world: &World, name: &str, code: &str, package: &str) -> Option<Consequence> {
    crash_with(world, name, code, &BlobHash::of(package.as_bytes())).await
}

async fn crash_with(world: &World, name: &str, code: &str, package: &BlobHash) -> Option<Consequence> {
    let new = NewCrash {
        node_id: id_of(world, name).await,
        epoch: 1,
        tenant_id: flatrender_workflows::models::DEFAULT_TENANT,
        task_no: 1,
        lease_token: Uuid::new_v4(),
        code,
        render_job_id: None,
        package: Some(package),
        frame: None,
        exit_code: None,
        signature: "x",
        log: "x",
        goes_on: true,
    };
    let mut tx = Scope::platform(Role::Render).begin(&world.db).await.unwrap();
    let led_to = node::crash::record(&mut tx, &new).await.unwrap();
    tx.commit().await.unwrap();
    led_to
}

#[sqlx::test(migrations = "../migrations")]
async fn a_crash_is_written_down_once_an_attempt(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    let render = world.order().await;
    let node = world.node("n1").await;
    let task = node.claim().await;
    for _ in 0..2 {
        assert_eq!(fail(&node, &task, "render.crashed", true).await, StatusCode::NO_CONTENT);
    }
    let rows: Vec<Value> =
        sqlx::query_scalar("select to_jsonb(c) from render.node_crashes c").fetch_all(&world.db).await.unwrap();
    assert_eq!(rows.len(), 1);
    let row = &rows[0];
    assert_eq!((&row["kind"], &row["frame"], &row["exit_code"]), (&json!("signal"), &json!(3), &json!(139)));
    assert_eq!((&row["render_job_id"], &row["recovery"]), (&json!(render), &json!("requeued")));
    assert_eq!(row["package_sha256"], json!(world.package.sha256));
    assert!(row["template_version_id"].is_string() && row["log_tail"].as_str().unwrap().contains("crashed at"));
    // Operators hear of it, once an hour.
    let told = "workflow.runs where kind = 'notify' and input::text like '%node.crashed%' and input::text like '%n1%'";
    assert_eq!(world.count(told).await, 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_crash_that_left_frames_is_written_down_too(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    let node = world.node("n1").await;
    let task = node.claim().await;
    let mut output = node.render(&task).await;
    let lost = output["frames"].as_array_mut().unwrap().pop().unwrap()["frame"].clone();
    output["faults"] = json!([{"frame": lost, "reason": "missing"}]);
    output["warnings"] = json!((0..40).map(|n| format!("low memory: {n}")).collect::<Vec<_>>());
    output["cause"] = json!({"code": "render.crashed", "message": "the renderer crashed while it worked", "retryable": true,
                             "details": evidence("render.crashed", "it crashed")});
    assert_eq!(node.complete(&task, output.clone()).await.status, StatusCode::NO_CONTENT);
    assert_eq!(node.complete(&task, output).await.status, StatusCode::NO_CONTENT);
    let written =
        "render.node_crashes where code = 'render.crashed' and exit_code = 139 and log_tail like 'it crashed%'";
    assert_eq!(world.count(written).await, 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_node_that_was_shut_down_has_not_crashed(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    let node = world.node("n1").await;
    let task = node.claim().await;
    let mut output = node.render(&task).await;
    let lost = output["frames"].as_array_mut().unwrap().pop().unwrap()["frame"].clone();
    output["faults"] = json!([{"frame": lost, "reason": "missing"}]);
    output["cause"] = json!({"code": "render.interrupted", "message": "the node was shut down", "retryable": true});
    assert_eq!(node.complete(&task, output).await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.count("render.node_crashes").await, 0);
    let standing = standing(&world, "n1").await;
    assert!(standing.may_work && standing.blocked_packages.is_empty(), "{standing:?}");
}

#[sqlx::test(migrations = "../migrations")]
async fn equal_crashes_have_one_signature_and_others_another(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    let words = ["crashed at 0x7ff1 in /srv/a.aep", "crashed at 0x7ff2 in /srv/b.aep", "hung at 0x7ff1 in /srv/a.aep"];
    for (n, said) in words.into_iter().enumerate() {
        world.order().await;
        let node = world.node(&format!("n{n}")).await;
        let task = node.claim().await;
        assert_eq!(fail_saying(&node, &task, "render.crashed", true, said).await, StatusCode::NO_CONTENT);
    }
    let equal: Vec<i64> = sqlx::query_scalar("select count(*) from render.node_crashes group by signature order by 1")
        .fetch_all(&world.db)
        .await
        .unwrap();
    assert_eq!(equal, [1, 2]);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_faulty_template_speaks_against_no_node(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    let node = world.node("n1").await;
    let task = node.claim().await;
    assert_eq!(fail(&node, &task, "render.missing_font", false).await, StatusCode::NO_CONTENT);
    assert_eq!(world.count("render.node_crashes").await, 0);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_node_gets_no_more_of_a_template_it_failed_twice_for_six_hours(db: PgPool) {
    let world = World::new(db).await;
    world.node("n1").await;
    world.node("n2").await;
    assert_eq!(crash_on(&world, "n1", "render.crashed", "a").await, Some(Consequence::Noted));
    assert_eq!(crash_on(&world, "n2", "render.crashed", "a").await, Some(Consequence::Noted), "another node");
    assert_eq!(crash_on(&world, "n1", "render.stalled", "a").await, Some(Consequence::Blocked));
    let blocked = standing(&world, "n1").await;
    assert!(blocked.may_work && blocked.blocked_packages == [BlobHash::of(b"a")].into());
    assert!(standing(&world, "n2").await.blocked_packages.is_empty());
    later(&world, Duration::from_secs(6 * 3600 - 60)).await;
    assert_eq!(standing(&world, "n1").await.blocked_packages.len(), 1);
    later(&world, Duration::from_secs(120)).await;
    assert!(standing(&world, "n1").await.blocked_packages.is_empty());
    assert_eq!(
        crash_on(&world, "n1", "render.crashed", "a").await,
        Some(Consequence::Noted),
        "what is old is forgiven"
    );
}

#[sqlx::test(migrations = "../migrations")]
async fn a_node_that_succeeds_with_a_template_has_overcome_its_crashes_there(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    let node = world.node("n1").await;
    let package = world.package.sha256.clone();
    let crash = async || crash_with(&world, "n1", "render.crashed", &package).await;
    assert_eq!((crash().await, crash().await), (Some(Consequence::Noted), Some(Consequence::Blocked)));
    assert_eq!(standing(&world, "n1").await.blocked_packages.len(), 1);
    let task = node.claim().await;
    let output = node.render(&task).await;
    assert_eq!(node.complete(&task, output).await.status, StatusCode::NO_CONTENT);
    assert!(standing(&world, "n1").await.blocked_packages.is_empty(), "there was no other node, and it went well");
    assert_eq!((crash().await, crash().await), (Some(Consequence::Noted), Some(Consequence::Blocked)), "in a row");
}

#[sqlx::test(migrations = "../migrations")]
async fn what_happens_on_good_nodes_too_is_not_counted(db: PgPool) {
    let world = World::new(db).await;
    world.node("n1").await;
    for code in ["render.disk_full", "render.plugin_licence", "render.file_locked", "render.disk_full"] {
        assert_eq!(crash_on(&world, "n1", code, "a").await, Some(Consequence::Noted), "{code}");
    }
    assert_eq!(crash_on(&world, "n1", "workflow.lease_lost", "a").await, None);
    assert_eq!(standing(&world, "n1").await.why_not, None);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_node_that_fails_at_several_templates_gets_only_the_probe_until_it_passes(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    let node = world.node("n1").await;
    crash_on(&world, "n1", "render.crashed", "a").await;
    crash_on(&world, "n1", "render.crashed", "a").await;
    later(&world, Duration::from_secs(60)).await;
    assert_eq!(crash_on(&world, "n1", "render.no_frames", "b").await, Some(Consequence::Quarantined));
    let why = standing(&world, "n1").await.why_not.unwrap();
    assert!(why.contains("3 failures on 2 templates"), "{why}");
    assert_eq!(node.ask(0.0).await.problem(), "node.probe_wanted");

    let report = |ok: bool| json!({"checks": [{"name": "probe:lottie", "ok": ok, "found": "as it is"}]});
    assert_eq!(node.call("/v1/nodes/probe", json!({"checks": []})).await.status, StatusCode::NO_CONTENT);
    let waits = node.ask(0.0).await;
    assert_eq!(
        (waits.problem().as_str(), waits.header("retry-after")),
        ("node.quarantined", "600"),
        "nothing was proven"
    );
    later(&world, Duration::from_secs(601)).await;
    assert_eq!(node.ask(0.0).await.problem(), "node.probe_wanted");
    assert_eq!(node.call("/v1/nodes/probe", report(false)).await.status, StatusCode::NO_CONTENT);
    assert_eq!(node.ask(0.0).await.problem(), "node.quarantined");
    assert_eq!(node.call("/v1/nodes/probe", report(true)).await.status, StatusCode::NO_CONTENT);
    node.claim().await;
    let standing = standing(&world, "n1").await;
    assert!(standing.may_work && standing.blocked_packages == [BlobHash::of(b"a")].into(), "{standing:?}");
    assert_eq!(
        crash_on(&world, "n1", "render.crashed", "b").await,
        Some(Consequence::Noted),
        "what was before is forgiven"
    );
}

#[sqlx::test(migrations = "../migrations")]
async fn templates_that_fail_on_other_nodes_too_speak_against_themselves_until_they_are_many(db: PgPool) {
    let world = World::new(db).await;
    world.node("n1").await;
    world.node("n2").await;
    let mut led_to = vec![];
    for package in ["a", "b"] {
        for _ in 0..2 {
            for node in ["n2", "n1"] {
                led_to.push(crash_on(&world, node, "render.crashed", package).await);
            }
        }
    }
    assert!(!led_to.contains(&Some(Consequence::Quarantined)), "{led_to:?}");
    assert_eq!(standing(&world, "n1").await.blocked_packages.len(), 2);
    for package in ["c", "d"] {
        crash_on(&world, "n2", "render.crashed", package).await;
    }
    assert_eq!(crash_on(&world, "n1", "render.crashed", "c").await, Some(Consequence::Noted));
    assert_eq!(crash_on(&world, "n1", "render.crashed", "d").await, Some(Consequence::Quarantined), "four at a time");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_passed_probe_lifts_blocks_only_of_what_it_shows(db: PgPool) {
    let world = World::new(db).await;
    let node = world.node("n1").await;
    assert_eq!(crash_on(&world, "n1", "render.wrong_numbers", "numbers").await, Some(Consequence::Blocked));
    assert_eq!(crash_on(&world, "n1", "render.missing_font", "font").await, Some(Consequence::Blocked));
    assert_eq!(crash_on(&world, "n1", "render.licence", "a").await, Some(Consequence::Quarantined));
    let passed = json!({"checks": [{"name": "probe:lottie", "ok": true, "found": "as it is"}]});
    assert_eq!(node.call("/v1/nodes/probe", passed).await.status, StatusCode::NO_CONTENT);
    assert_eq!(standing(&world, "n1").await.blocked_packages, [BlobHash::of(b"font")].into());
}

#[sqlx::test(migrations = "../migrations")]
async fn a_node_that_comes_back_from_quarantine_again_and_again_waits_longer_each_time(db: PgPool) {
    let world = World::new(db).await;
    let node = world.node("n1").await;
    let passed = json!({"checks": [{"name": "probe:lottie", "ok": true, "found": "as it is"}]});
    for pause in [0u64, 600, 3600, 6 * 3600, 6 * 3600] {
        assert_eq!(crash_on(&world, "n1", "render.licence", "a").await, Some(Consequence::Quarantined));
        if pause > 0 {
            let waits = node.ask(0.0).await;
            assert_eq!(
                (waits.problem().as_str(), waits.header("retry-after")),
                ("node.quarantined", &*pause.to_string())
            );
            later(&world, Duration::from_secs(pause)).await;
        }
        assert_eq!(node.ask(0.0).await.problem(), "node.probe_wanted");
        assert_eq!(node.call("/v1/nodes/probe", passed.clone()).await.status, StatusCode::NO_CONTENT);
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn enrolling_anew_is_no_way_out_of_quarantine(db: PgPool) {
    let world = World::new(db).await;
    world.node("n1").await;
    assert_eq!(crash_on(&world, "n1", "render.licence", "a").await, Some(Consequence::Quarantined));
    assert_eq!(world.node("n1").await.ask(0.0).await.problem(), "node.probe_wanted");
}

#[test]
fn the_policy_does_what_the_drivers_catalogue_says() {
    for class in CATALOGUE.iter().chain(&OTHERS) {
        let weight = weigh(class.code).map(|(_, weight)| weight);
        match class.cure {
            // The server itself says so of a node, from what was counted.
            Cure::NodeOut if class.code == "node.quarantined" => assert_eq!(weight, None),
            Cure::NodeOut => assert_eq!(weight, Some(Weight::Quarantines), "{}", class.code),
            Cure::Block => assert_eq!(weight, Some(Weight::Blocks), "{}", class.code),
            Cure::Author | Cure::Accept => assert_eq!(weight, None, "{}", class.code),
            // What a node can fail at by itself is written down, or it would fail at everything unseen.
            Cure::OtherNode | Cure::Repair if !matches!(class.told, Told::Elsewhere(_)) => {
                assert!(matches!(weight, Some(Weight::Noted | Weight::Counts | Weight::Blocks)), "{}", class.code);
            }
            _ => assert_ne!(weight, Some(Weight::Quarantines), "{}", class.code),
        }
    }
}

/// Cut off for ten minutes: the lease has ended, and the task was noticed to be lost.
async fn cut_off(world: &World) {
    later(world, Duration::from_secs(600)).await;
    let lost = async {
        while world.count("workflow.attempts where outcome = 'lost'").await == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), lost).await.expect("the lease is noticed to have ended");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_node_that_was_cut_off_brings_its_frames_if_nobody_else_began(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    let node = world.node("n1").await;
    let task = node.claim().await;
    cut_off(&world).await;
    let frame = format!("frames/{}", crate::world::blob(&png([1, 2, 3])).sha256);
    let too_early = node.with_lease(Method::PUT, &task, &frame, png([1, 2, 3])).await;
    assert_eq!(too_early.problem(), "lease.lost", "frames come after the lease");
    let renew = json!({"lease_token": task.token, "progress": {"done": 9, "total": 9}});
    let renewed = node.call(&format!("/v1/nodes/tasks/{}/renew", task.id), renew.clone()).await;
    assert_eq!(renewed.status, StatusCode::OK, "{:?}", renewed.body);
    let output = node.render(&task).await;
    assert_eq!(node.complete(&task, output.clone()).await.status, StatusCode::NO_CONTENT);
    assert_eq!(node.complete(&task, output).await.status, StatusCode::NO_CONTENT, "the answer may have been lost");
    assert_eq!(node.call(&format!("/v1/nodes/tasks/{}/renew", task.id), renew).await.problem(), "lease.lost", "once");
    let token: Uuid = task.token.parse().unwrap();
    let ends: Vec<String> =
        sqlx::query_scalar("select outcome::text from workflow.attempts where lease_token = $1 order by attempt_no")
            .bind(token)
            .fetch_all(&world.db)
            .await
            .unwrap();
    assert_eq!(ends, ["lost", "ok"]);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_result_that_was_ready_when_the_line_broke_is_taken_without_a_renewal(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    let node = world.node("n1").await;
    let task = node.claim().await;
    let output = node.render(&task).await;
    cut_off(&world).await;
    assert_eq!(node.complete(&task, output).await.status, StatusCode::NO_CONTENT);
    let losses = "workflow.attempts where outcome = 'ok' and step_key like 'render:%'";
    assert_eq!(world.count(losses).await, 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_node_that_was_cut_off_changes_nothing_where_somebody_else_has_begun(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    let (node, other) = (world.node("n1").await, world.node("n2").await);
    let first = node.claim().await;
    let output = node.render(&first).await;
    let second = node.claim().await;
    cut_off(&world).await;
    let mut taken = other.claim().await;
    if taken.id == second.id {
        taken = other.claim().await;
    }
    assert_eq!(taken.id, first.id);
    let owner = "select to_jsonb(t) from workflow.tasks t where id = $1";
    let before: Value = sqlx::query_scalar(owner).bind(first.id).fetch_one(&world.db).await.unwrap();
    let renew = json!({"lease_token": first.token, "progress": {"done": 9, "total": 9}});
    let renewed = node.call(&format!("/v1/nodes/tasks/{}/renew", first.id), renew).await;
    assert_eq!((renewed.status, renewed.problem().as_str()), (StatusCode::CONFLICT, "lease.lost"));
    assert_eq!(node.complete(&first, output).await.problem(), "lease.lost");
    let after: Value = sqlx::query_scalar(owner).bind(first.id).fetch_one(&world.db).await.unwrap();
    assert_eq!(before, after);
}

#[sqlx::test(migrations = "../migrations")]
async fn nobody_takes_up_what_another_node_has_lost(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    let (node, thief) = (world.node("n1").await, world.node("n2").await);
    let task = node.claim().await;
    cut_off(&world).await;
    let renew = json!({"lease_token": task.token, "progress": null});
    assert_eq!(thief.call(&format!("/v1/nodes/tasks/{}/renew", task.id), renew).await.problem(), "lease.lost");
    assert_eq!(world.count("workflow.tasks where queue = 'node.render' and state = 'leased'").await, 0);
}
