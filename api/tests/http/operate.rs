//! Nodes as operators see them and what they do with them; and what nodes say of themselves.

use crate::{
    crashes::{crash_on, id_of, later, standing},
    world::{Answer, Node, World, request, with_json},
};
use axum::{
    body::Body,
    http::{Method, StatusCode},
};
use flatrender_api::nodes::health::note_offline;
use flatrender_workflows::{contracts::storage::BlobHash, models::DEFAULT_TENANT};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::Duration;
use uuid::Uuid;

struct Admin<'w> {
    world: &'w World,
    token: String,
}

impl<'w> Admin<'w> {
    async fn new(world: &'w World) -> Self {
        let id = world.person(DEFAULT_TENANT, "admin@example.com", &["platform_admin"]).await;
        Self { world, token: world.session(DEFAULT_TENANT, id).await }
    }

    async fn get(&self, path: &str) -> Value {
        let asked =
            request(Method::GET, &format!("/v1/platform/nodes{path}"), &self.token).body(Body::empty()).unwrap();
        let answer = self.world.send(asked).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        answer.json()
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        let asked = request(Method::POST, &format!("/v1/platform/nodes{path}"), &self.token);
        self.world.send(with_json(asked, &body)).await
    }

    async fn act(&self, name: &str, action: Value) -> Answer {
        let id = id_of(self.world, name).await;
        self.post(&format!("/{id}/actions"), action).await
    }
}

fn cached(name: &str, bytes: u64) -> Value {
    json!({"sha256": BlobHash::of(name.as_bytes()), "bytes": bytes, "idle_seconds": 5, "hits": 2, "in_use": false})
}

async fn hello(node: &Node<'_>, inventory: Value, cache: Value) -> Value {
    hello_with(node, json!({}), inventory, cache).await
}

async fn hello_with(node: &Node<'_>, renderers: Value, inventory: Value, cache: Value) -> Value {
    let body = json!({
        "incarnation": node.incarnation, "inventory": inventory, "cache": cache, "cache_limit": 1000,
        "capabilities": {"agent_version": "9.9", "os": "windows/x86_64", "cpus": 16, "ram_mb": 65536, "slots": 2,
                         "labels": {"engine": "after_effects"}, "renderers": renderers}});
    let answer = node.call("/v1/nodes/hello", body).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    answer.json()
}

async fn fares(node: &Node<'_>, cache: Option<Value>) -> Value {
    let body = json!({"incarnation": node.incarnation, "running_tasks": 1, "cpu_percent": 50.0, "ram_mb": 100,
                      "disk_free_mb": 5000, "rtt_ms": 3, "cache": cache});
    let answer = node.call("/v1/nodes/health", body).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    answer.json()
}

#[sqlx::test(migrations = "../migrations")]
async fn a_node_whose_after_effects_was_updated_is_probed_before_it_works(db: PgPool) {
    let world = World::new(db).await;
    let node = world.node("n1").await;
    let has = async |version: &str| {
        let inventory = json!({"after_effects": 24, "fonts": [], "plugins": [], "disk_free_mb": 9000});
        hello_with(&node, json!({"after_effects": version}), inventory, json!([])).await;
        node.ask(0.0).await
    };
    // Some starts say nothing of a version.
    for version in ["aerender version 24.0x52", "aerender version Using DXGI", "aerender version 24.0x53"] {
        assert_ne!(has(version).await.status, StatusCode::CONFLICT);
    }
    assert_eq!(has("aerender version 24.1x2").await.problem(), "node.probe_wanted");
    let passed = json!({"checks": [{"name": "probe:after_effects", "ok": true, "found": "as it is"}]});
    assert_eq!(node.call("/v1/nodes/probe", passed).await.status, StatusCode::NO_CONTENT);
    assert_ne!(has("aerender version 24.1x2").await.status, StatusCode::CONFLICT);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_node_says_what_it_has_and_offers_it_as_labels(db: PgPool) {
    let world = World::new(db).await;
    let admin = Admin::new(&world).await;
    let node = world.node("n1").await;
    let inventory = json!({"after_effects": 24, "fonts": ["Futura-Bold", "Arial"], "plugins": ["tc Particular"],
                           "gpu": "RTX", "disk_free_mb": 77});
    hello(&node, inventory, json!([cached("a", 300)])).await;
    let standing = standing(&world, "n1").await;
    for label in ["ae:22", "ae:24", "font:Futura-Bold", "plugin:tc Particular"] {
        assert!(standing.labels.contains_key(label), "{label}");
    }
    assert!(!standing.labels.contains_key("ae:25"));
    assert_eq!(standing.held_packages, [(BlobHash::of(b"a"), 300)].into());
    assert_eq!(standing.warm, Some(BlobHash::of(b"a")));
    let view = admin.get(&format!("/{}", id_of(&world, "n1").await)).await;
    assert_eq!((&view["ae_version"], &view["fonts"], &view["slots"]), (&json!("24"), &json!(2), &json!(2)));
    assert_eq!((&view["gpu"], &view["disk_free_mb"], &view["cache_bytes"]), (&json!("RTX"), &json!(77), &json!(300)));
    assert_eq!(view["offers"]["ae:24"], "1");
    assert!(view["offers"].get("font:Arial").is_none(), "fonts are too many to be shown");
}

#[sqlx::test(migrations = "../migrations")]
async fn how_a_farm_fares_is_written_in_one_transaction(db: PgPool) {
    let world = World::new(db).await;
    let admin = Admin::new(&world).await;
    for n in 0..12 {
        let node = world.node(&format!("n{n}")).await;
        fares(&node, None).await;
        fares(&node, None).await;
    }
    assert_eq!(world.count("render.node_health_logs").await, 0, "nothing is written for one alone");
    world.app.samples.flush(&world.app.db).await.unwrap();
    let written: (i64, i64) =
        sqlx::query_as("select count(*), count(distinct xmin::text) from render.node_health_logs")
            .fetch_one(&world.db)
            .await
            .unwrap();
    assert_eq!(written, (12, 1), "the newest of each");
    let page = admin.get(&format!("/{}/health?limit=1", id_of(&world, "n3").await)).await;
    assert_eq!((&page["data"][0]["cpu_percent"], &page["has_more"]), (&json!(50.0), &json!(false)));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_node_that_is_silent_is_offline_until_it_is_heard_of(db: PgPool) {
    let world = World::new(db).await;
    let admin = Admin::new(&world).await;
    let node = world.node("n1").await;
    let status = async || admin.get("").await["data"][0]["status"].clone();
    later(&world, Duration::from_secs(60)).await;
    note_offline(&world.app.db).await.unwrap();
    assert_eq!(status().await, "online");
    later(&world, Duration::from_secs(60)).await;
    note_offline(&world.app.db).await.unwrap();
    assert_eq!(status().await, "offline");
    fares(&node, None).await;
    world.app.samples.flush(&world.app.db).await.unwrap();
    assert_eq!(status().await, "online");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_drained_node_finishes_what_it_has_and_gets_nothing_new(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    let admin = Admin::new(&world).await;
    let node = world.node("n1").await;
    let task = node.claim().await;
    assert_eq!(admin.act("n1", json!({"action": "drain"})).await.json()["status"], "draining");
    assert_eq!(node.ask(0.0).await.status, StatusCode::NO_CONTENT);
    assert_eq!(fares(&node, None).await["give_back"], false);
    let output = node.render(&task).await;
    assert_eq!(node.complete(&task, output).await.status, StatusCode::NO_CONTENT);
    assert_eq!(admin.act("n1", json!({"action": "drain", "at_once": true})).await.status, StatusCode::OK);
    assert_eq!(fares(&node, None).await["give_back"], true);
    assert_eq!(admin.act("n1", json!({"action": "resume"})).await.json()["status"], "online");
    assert_eq!(admin.act("n1", json!({"action": "resume"})).await.problem(), "node.state");
    node.claim().await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_node_that_is_drained_stays_so_through_a_quarantine(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    let admin = Admin::new(&world).await;
    let node = world.node("n1").await;
    let status = async || admin.get("").await["data"][0]["status"].clone();
    let passed = json!({"checks": [{"name": "probe:lottie", "ok": true, "found": "as it is"}]});
    admin.act("n1", json!({"action": "drain", "at_once": true})).await;
    crash_on(&world, "n1", "render.licence", "a").await;
    assert_eq!((status().await, fares(&node, None).await["give_back"].clone()), (json!("quarantined"), json!(true)));
    assert_eq!(node.ask(0.0).await.problem(), "node.probe_wanted");
    assert_eq!(node.call("/v1/nodes/probe", passed).await.status, StatusCode::NO_CONTENT);
    assert_eq!((status().await, node.ask(0.0).await.status), (json!("draining"), StatusCode::NO_CONTENT));

    assert_eq!(admin.act("n1", json!({"action": "resume"})).await.json()["status"], "online");
    admin.act("n1", json!({"action": "quarantine", "reason": "it smells"})).await;
    assert_eq!(admin.act("n1", json!({"action": "drain"})).await.json()["status"], "quarantined");
    assert_eq!(admin.act("n1", json!({"action": "release"})).await.json()["status"], "draining");
    admin.act("n1", json!({"action": "resume"})).await;
    node.claim().await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_node_whose_disk_is_full_says_so_and_is_not_counted_on(db: PgPool) {
    let world = World::new(db).await;
    let node = world.node("n1").await;
    for (is_full, why) in [(true, Some("its disk is too full for more work")), (false, None)] {
        let said = json!({"incarnation": node.incarnation, "running_tasks": 0, "is_full": is_full});
        assert_eq!(node.call("/v1/nodes/health", said).await.status, StatusCode::OK);
        world.app.samples.flush(&world.app.db).await.unwrap();
        assert_eq!(standing(&world, "n1").await.why_not.as_deref(), why);
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn a_retired_node_is_cut_off_with_its_next_word(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    let admin = Admin::new(&world).await;
    let node = world.node("n1").await;
    let task = node.claim().await;
    assert_eq!(admin.act("n1", json!({"action": "retire"})).await.json()["status"], "retired");
    let renew = json!({"lease_token": task.token, "progress": null});
    assert_eq!(node.call(&format!("/v1/nodes/tasks/{}/renew", task.id), renew).await.problem(), "auth.invalid");
    let input = format!("inputs/{}", world.package.sha256);
    assert_eq!(node.with_lease(Method::GET, &task, &input, "").await.problem(), "auth.invalid");
    assert_eq!(node.ask(0.0).await.problem(), "auth.invalid");
}

#[sqlx::test(migrations = "../migrations")]
async fn another_credential_ends_the_old_one_once_what_was_under_way_has_arrived(db: PgPool) {
    let world = World::new(db).await;
    let admin = Admin::new(&world).await;
    let node = world.node("n1").await;
    assert_eq!(fares(&node, None).await["rotate"], false);
    admin.act("n1", json!({"action": "rotate_credential"})).await;
    assert_eq!(fares(&node, None).await["rotate"], true);
    let next = node.call("/v1/nodes/credential", json!({})).await.json()["credential"].as_str().unwrap().to_owned();
    assert_eq!(fares(&node, None).await["rotate"], true, "the old one is good until the new one is used");
    let renewed = Node { world: &world, credential: next, incarnation: node.incarnation };
    assert_eq!(fares(&renewed, None).await["rotate"], false);
    assert_eq!(node.ask(0.0).await.status, StatusCode::NO_CONTENT, "it was sent before the new one was used");
    later(&world, Duration::from_secs(61)).await;
    assert_eq!(node.ask(0.0).await.problem(), "auth.invalid");
    assert_eq!(renewed.ask(0.0).await.status, StatusCode::NO_CONTENT);
    later(&world, Duration::from_secs(31 * 86_400)).await;
    assert_eq!(fares(&renewed, None).await["rotate"], true, "once a month");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_node_that_sleeps_gets_nothing_and_says_until_when(db: PgPool) {
    let world = World::new(db).await;
    let admin = Admin::new(&world).await;
    let node = world.node("n1").await;
    let always = json!({"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "from": "00:00", "to": "00:00", "tz": "Asia/Tehran",
                        "at_once": true});
    let sleeps = admin.act("n1", json!({"action": "sleep", "schedule": always})).await;
    assert_eq!(sleeps.json()["sleep"]["tz"], "Asia/Tehran", "{:?}", sleeps.body);
    let why = standing(&world, "n1").await.why_not.unwrap();
    assert!(why.contains("sleeps by its schedule until"), "{why}");
    assert_eq!(fares(&node, None).await["give_back"], true);
    admin.act("n1", json!({"action": "wake"})).await;
    assert!(standing(&world, "n1").await.may_work);
    let nonsense = json!({"action": "sleep", "schedule": {"days": ["mon"], "from": "9", "to": "18:00", "tz": "UTC"}});
    assert_eq!(admin.act("n1", nonsense).await.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[sqlx::test(migrations = "../migrations")]
async fn packages_are_kept_and_evicted_by_order(db: PgPool) {
    let world = World::new(db).await;
    let admin = Admin::new(&world).await;
    let node = world.node("n1").await;
    hello(&node, json!({}), json!([cached("a", 10), cached("b", 20)])).await;
    let (a, b) = (BlobHash::of(b"a"), BlobHash::of(b"b"));
    assert_eq!(admin.act("n1", json!({"action": "keep", "package": a})).await.status, StatusCode::OK);
    assert_eq!(admin.act("n1", json!({"action": "evict", "package": b})).await.status, StatusCode::OK);
    assert_eq!(admin.act("n1", json!({"action": "keep", "package": BlobHash::of(b"c")})).await.problem(), "node.state");
    let orders = fares(&node, Some(json!([cached("a", 10), cached("b", 20)]))).await;
    assert_eq!((&orders["keep"], &orders["evict"]), (&json!([a]), &json!([b])), "as long as it is there");
    assert_eq!(
        standing(&world, "n1").await.held_packages.keys().collect::<Vec<_>>(),
        [&a],
        "what is to go is not held"
    );
    let id = id_of(&world, "n1").await;
    let held = admin.get(&format!("/{id}")).await["packages"].clone();
    let told: Vec<_> = held.as_array().unwrap().iter().map(|p| (&p["package"], &p["keep"], &p["state"])).collect();
    let (kept, going) = (json!(a), json!(b));
    let (yes, no, ready, evicting) = (json!(true), json!(false), json!("ready"), json!("evicting"));
    assert_eq!(told.len(), 2);
    assert!(told.contains(&(&kept, &yes, &ready)) && told.contains(&(&going, &no, &evicting)), "{held}");
    let orders = fares(&node, Some(json!([cached("a", 10)]))).await;
    assert_eq!((&orders["keep"], &orders["evict"]), (&json!([a]), &json!([])));
    let twice = json!({"incarnation": node.incarnation, "running_tasks": 0, "cache": [cached("a", 1), cached("a", 2)]});
    assert_eq!(node.call("/v1/nodes/health", twice).await.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_token_says_what_becomes_of_the_node_and_is_good_for_its_time(db: PgPool) {
    let world = World::new(db).await;
    let admin = Admin::new(&world).await;
    let asked =
        json!({"pool": "after-effects", "labels": {"zone": "basement", "engine": "lottie"}, "expires_in_seconds": 60});
    let token = async || {
        let answer = admin.post("/tokens", asked.clone()).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{:?}", answer.body);
        answer.json()["token"].clone()
    };
    let enrol = async |token: Value, name: &str| {
        let body = json!({"token": token, "name": name, "capabilities": {
            "agent_version": "0", "os": "t", "cpus": 1, "ram_mb": 1, "slots": 1, "labels": {"engine": "after_effects"},
            "renderers": {}}});
        world.post("/v1/nodes/enrol", body).await
    };
    let (used, late) = (token().await, token().await);
    assert_eq!(enrol(used, "n1").await.status, StatusCode::OK);
    let standing = standing(&world, "n1").await;
    assert_eq!(standing.why_not.as_deref(), Some("it is in quarantine: it is new, and has not passed the probe"));
    assert_eq!((standing.pool.as_str(), standing.labels["zone"].as_str()), ("after-effects", "basement"));
    assert_eq!(standing.labels["engine"], "lottie", "the token wins over the node");
    later(&world, Duration::from_secs(61)).await;
    assert_eq!(enrol(late, "n2").await.problem(), "node.token_invalid");
    assert_eq!(admin.post("/tokens", json!({"pool": "a b"})).await.faults(), ["/pool node.name"]);
    assert_eq!(
        admin.post("/tokens", json!({"expires_in_seconds": 1})).await.faults(),
        ["/expires_in_seconds node.token_lifetime"]
    );
}

#[sqlx::test(migrations = "../migrations")]
async fn tokens_are_listed_without_themselves_and_a_revoked_one_enrols_nobody(db: PgPool) {
    let world = World::new(db).await;
    let admin = Admin::new(&world).await;
    let token = async || admin.post("/tokens", json!({"pool": "studio"})).await.json()["token"].clone();
    let enrol = async |token: &Value| {
        let body = json!({"token": token, "name": "n1", "capabilities": {
            "agent_version": "0", "os": "t", "cpus": 1, "ram_mb": 1, "slots": 1, "labels": {}, "renderers": {}}});
        world.post("/v1/nodes/enrol", body).await
    };
    let (used, open) = (token().await, token().await);
    assert_eq!(enrol(&used).await.status, StatusCode::OK);
    let page = admin.get("/tokens?limit=2").await;
    let [newest, older] = [&page["data"][0], &page["data"][1]];
    assert_eq!((&newest["state"], &newest["pool"], &newest["node"]), (&json!("open"), &json!("studio"), &json!(null)));
    assert_eq!((&older["state"], &older["node"]), (&json!("used"), &json!("n1")));
    assert!(newest["created_by"].as_str().unwrap().starts_with("user:"), "{newest}");
    assert!(!page.to_string().contains(open.as_str().unwrap()), "only its hash is kept");
    let revoke = async |one: &Value| {
        let path = format!("/v1/platform/nodes/tokens/{}", one["id"].as_str().unwrap());
        world.send(request(Method::DELETE, &path, &admin.token).body(Body::empty()).unwrap()).await
    };
    assert_eq!(revoke(newest).await.status, StatusCode::NO_CONTENT);
    assert_eq!(enrol(&open).await.problem(), "node.token_invalid");
    assert_eq!(admin.get("/tokens").await["data"][0]["state"], "revoked");
    for gone in [newest, older] {
        assert_eq!(revoke(gone).await.problem(), "node_token.not_found");
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn a_new_node_gets_no_work_before_it_has_passed_the_probe(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    let admin = Admin::new(&world).await;
    let enrol = async |asked: Value| {
        let token = admin.post("/tokens", asked).await.json()["token"].clone();
        let body = json!({"token": token, "name": "n1", "capabilities": {
            "agent_version": "0", "os": "t", "cpus": 1, "ram_mb": 1, "slots": 1, "labels": {}, "renderers": {}}});
        let credential = world.post("/v1/nodes/enrol", body).await.json()["credential"].as_str().unwrap().to_owned();
        Node { world: &world, credential, incarnation: Uuid::new_v4() }
    };
    let node = enrol(json!({})).await;
    assert_eq!(node.ask(0.0).await.problem(), "node.probe_wanted");
    let report = |ok: bool| json!({"checks": [{"name": "probe:lottie", "ok": ok, "found": "as it is"}]});
    let id = id_of(&world, "n1").await;
    assert_eq!(admin.get(&format!("/{id}")).await["probe"], Value::Null);
    assert_eq!(node.call("/v1/nodes/probe", report(false)).await.status, StatusCode::NO_CONTENT);
    let told = admin.get(&format!("/{id}")).await["probe"].clone();
    let check = json!({"name": "probe:lottie", "ok": false, "found": "as it is", "fix": null});
    assert_eq!((&told["passed"], &told["checks"]), (&json!(false), &json!([check])));
    assert_eq!(node.ask(0.0).await.problem(), "node.quarantined");
    later(&world, Duration::from_secs(601)).await;
    assert_eq!(node.call("/v1/nodes/probe", report(true)).await.status, StatusCode::NO_CONTENT);
    node.claim().await;
}

#[sqlx::test(migrations = "../migrations")]
async fn what_operators_do_is_in_the_audit(db: PgPool) {
    let world = World::new(db).await;
    let admin = Admin::new(&world).await;
    world.node("n1").await;
    for action in [
        json!({"action": "quarantine", "reason": "it smells of smoke"}),
        json!({"action": "release"}),
        json!({"action": "drain"}),
        json!({"action": "retire", "reason": "it is sold"}),
    ] {
        assert_eq!(admin.act("n1", action.clone()).await.status, StatusCode::OK, "{action}");
    }
    assert_eq!(admin.act("n1", json!({"action": "drain"})).await.problem(), "node.state", "retired is for good");
    assert_eq!(admin.act("n1", json!({"action": "dance"})).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let unknown = admin.post(&format!("/{}/actions", Uuid::now_v7()), json!({"action": "drain"})).await;
    assert_eq!(unknown.problem(), "node.not_found");
    let actions: Vec<String> =
        sqlx::query_scalar("select action from identity.audit_log where action like 'node.%' order by seq")
            .fetch_all(&world.db)
            .await
            .unwrap();
    assert_eq!(actions, ["node.quarantine", "node.release", "node.drain", "node.retire"]);
    let why = "identity.audit_log where action = 'node.quarantine' and reason = 'it smells of smoke'";
    assert_eq!(world.count(why).await, 1);
    let why = "identity.audit_log where action = 'node.retire' and reason = 'it is sold'";
    assert_eq!(world.count(why).await, 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn nodes_and_crashes_come_in_pages(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    let admin = Admin::new(&world).await;
    for n in 0..3 {
        world.node(&format!("n{n}")).await;
    }
    let first = admin.get("?limit=2").await;
    let names = |page: &Value| -> Vec<String> {
        page["data"].as_array().unwrap().iter().map(|n| n["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((names(&first), &first["has_more"]), (vec!["n2".to_owned(), "n1".to_owned()], &json!(true)));
    let rest = admin.get(&format!("?limit=2&starting_after={}", first["next_cursor"].as_str().unwrap())).await;
    assert_eq!((names(&rest), &rest["has_more"]), (vec!["n0".to_owned()], &json!(false)));

    let node = world.node("n0").await;
    for _ in 0..2 {
        let task = node.claim().await;
        let failure = json!({"code": "render.crashed", "message": "gone", "retryable": true});
        let path = format!("/v1/nodes/tasks/{}/fail", task.id);
        node.call(&path, json!({"lease_token": task.token, "failure": failure})).await;
    }
    let id = id_of(&world, "n0").await;
    let newest = admin.get(&format!("/{id}/crashes?limit=1")).await;
    assert_eq!((&newest["data"][0]["code"], &newest["data"][0]["seen"]), (&json!("render.crashed"), &json!(2)));
    let cursor = newest["next_cursor"].as_str().unwrap();
    let older = admin.get(&format!("/{id}/crashes?limit=1&starting_after={cursor}")).await;
    assert_ne!(older["data"][0]["id"], newest["data"][0]["id"]);
    assert_eq!(older["has_more"], false);
}
