//! What rules of tenants remove, and what nothing removes.

mod removals;

use crate::{
    exports::publish,
    world::{Answer, World, png, request, with_json},
};
use axum::{
    body::Body,
    http::{Method, StatusCode},
};
use flatrender_engine::{Client, Worker, schedules::Schedules, worker::Builder};
use flatrender_workflows::{
    definitions::{clean_up::CleanUp, expire_exports::ExpireExports, purge_files::PurgeFiles},
    models::{
        DEFAULT_TENANT, Role, Scope,
        file_mgr::{
            cleanup_run::{self, BATCH},
            cleanup_schedule, purge,
        },
        identity::tenant_api_key::SCOPES,
        invariants,
    },
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use std::time::Duration;
use uuid::Uuid;

fn terms(target: &str, dry_run: bool) -> Value {
    json!({"name": format!("old {target}"), "target": target, "older_than_seconds": 86_400, "cron": "30 3 * * *", "dry_run": dry_run})
}

fn id_of(answer: &Answer) -> Uuid {
    answer.json()["id"].as_str().unwrap().parse().unwrap()
}

/// A rule of a tenant, made by a key of its.
pub async fn rule(world: &World, tenant: Uuid, target: &str, dry_run: bool) -> Uuid {
    let (_, key) = world.key_for(tenant, &SCOPES).await;
    let made =
        world.send(with_json(request(Method::POST, "/v1/cleanup-schedules", &key), &terms(target, dry_run))).await;
    assert_eq!(made.status, StatusCode::CREATED, "{:?}", made.body);
    id_of(&made)
}

/// Somebody who manages the tenant, and what they see of clean-ups.
struct Keeper<'w> {
    world: &'w World,
    token: String,
}

impl<'w> Keeper<'w> {
    async fn new(world: &'w World, name: &str) -> Self {
        let id = world.person(DEFAULT_TENANT, &format!("{name}@example.com"), &["owner"]).await;
        Self { world, token: world.session(DEFAULT_TENANT, id).await }
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.world.send(request(Method::GET, path, &self.token).body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        answer.json()
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.world.send(with_json(request(Method::POST, path, &self.token), &body)).await
    }

    async fn start(&self, rule: Uuid, dry_run: bool) -> Uuid {
        let begun = self.post(&format!("/v1/cleanup-schedules/{rule}/runs"), json!({"dry_run": dry_run})).await;
        assert_eq!(begun.status, StatusCode::ACCEPTED, "{:?}", begun.body);
        id_of(&begun)
    }

    async fn act(&self, run: Uuid, action: &str) -> Answer {
        self.post(&format!("/v1/cleanup-runs/{run}/actions"), json!({"action": action})).await
    }

    /// The run once it is in this state.
    async fn when(&self, run: Uuid, state: &str) -> Value {
        let path = format!("/v1/cleanup-runs/{run}");
        let looking = async {
            loop {
                let seen = self.get(&path).await;
                if seen["state"] == state {
                    return seen;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), looking).await.unwrap_or_else(|_| panic!("{run} is not {state}"))
    }

    async fn files(&self, run: Uuid) -> Vec<String> {
        let page = self.get(&format!("/v1/cleanup-runs/{run}/files?limit=100")).await;
        let line = |f: &Value| format!("{} {}", f["name"].as_str().unwrap(), f["state"].as_str().unwrap());
        let mut lines: Vec<String> = page["data"].as_array().unwrap().iter().map(line).collect();
        lines.sort();
        lines
    }
}

/// Continues clean-ups until the world ends.
fn work(world: &World, how: impl FnOnce(Builder) -> Builder) {
    let builder =
        Worker::builder(world.db.clone()).workflow::<CleanUp>().workflow::<ExpireExports>().workflow::<PurgeFiles>();
    let (worker, stop) = (how(builder).build(), world.stopping.child_token());
    tokio::spawn(async move { worker.run(stop).await.unwrap() });
}

async fn run(world: &World, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&world.db).await.unwrap();
}

async fn texts(world: &World, sql: &str) -> Vec<String> {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_all(&world.db).await.unwrap()
}

/// An uploaded picture, in the trash for so many days.
async fn trashed(world: &World, name: &str, colour: u8, days: u32) -> Uuid {
    let id = id_of(&world.upload(name, png([colour, 1, 2])).await);
    let sql = format!(
        "update file_mgr.files set state = 'trashed', trashed_at = workflow.now() - interval '{days} days' where id = '{id}'"
    );
    run(world, &sql).await;
    id
}

/// Room for much: whatever goes is a small part of it.
async fn much(world: &World) {
    run(
        world,
        "insert into file_mgr.blobs (id, tenant_id, sha256, size_bytes) values ('00000000-0000-0000-0000-00000000000f', '00000000-0000-0000-0000-000000000001', repeat('f', 64), 1000000000);
         insert into file_mgr.files (tenant_id, blob_id, name, purpose, kind, mime_detected)
         values ('00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-00000000000f', 'big', 'package', 'archive', 'application/zip')",
    )
    .await;
}

const STATES: &str = "select name || ' ' || state from file_mgr.files where name <> 'big' order by name";

#[sqlx::test(migrations = "../migrations")]
async fn s098_a_rule_removes_what_it_says_and_nothing_else(db: PgPool) {
    let world = World::new(db).await;
    much(&world).await;
    let keeper = Keeper::new(&world, "ada").await;
    let rule = rule(&world, DEFAULT_TENANT, "trash", false).await;
    trashed(&world, "old.png", 1, 2).await;
    trashed(&world, "older.png", 2, 40).await;
    trashed(&world, "young.png", 3, 0).await;
    world.upload("kept.png", png([4, 4, 4])).await;
    work(&world, |w| w);
    let done = keeper.when(keeper.start(rule, false).await, "done").await;
    assert_eq!(
        (&done["planned_count"], &done["deleted_count"], &done["skipped_count"]),
        (&json!(2), &json!(2), &json!(0))
    );
    assert_eq!(done["deleted_bytes"], done["planned_bytes"]);
    assert_eq!(
        texts(&world, STATES).await,
        ["kept.png ready", "old.png purged", "older.png purged", "young.png trashed"]
    );
    // Their content waits to be removed, and only theirs.
    let queued = "select count(*)::text from file_mgr.deletion_queue q join file_mgr.blobs b using (tenant_id, sha256) where refcount = 0 and done_at is null";
    assert_eq!(texts(&world, queued).await, ["2"]);
    assert_eq!(world.count("file_mgr.deletion_queue").await, 2);
    let written = "select action from identity.audit_log where action like 'cleanup%' order by seq";
    assert_eq!(texts(&world, written).await, ["cleanup_schedule.create", "cleanup_run.start", "cleanup.run"]);
    assert_eq!(invariants::check(&world.db, false).await.unwrap(), []);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_dry_run_lists_what_would_go_and_removes_nothing(db: PgPool) {
    let world = World::new(db).await;
    let keeper = Keeper::new(&world, "ada").await;
    let rule = rule(&world, DEFAULT_TENANT, "trash", false).await;
    trashed(&world, "old.png", 1, 2).await;
    work(&world, |w| w);
    let run = keeper.start(rule, true).await;
    let done = keeper.when(run, "done").await;
    assert_eq!((&done["planned_count"], &done["deleted_count"], &done["guard"]), (&json!(1), &json!(0), &Value::Null));
    assert_eq!(keeper.files(run).await, ["old.png planned"]);
    assert_eq!(texts(&world, STATES).await, ["old.png trashed"]);
    assert_eq!(world.count("file_mgr.deletion_queue").await, 0);
    assert_eq!(keeper.get(&format!("/v1/cleanup-schedules/{rule}")).await["last_run_id"], run.to_string());
}

#[sqlx::test(migrations = "../migrations")]
async fn what_is_beyond_the_guard_takes_the_word_of_somebody_else(db: PgPool) {
    let world = World::new(db).await;
    let (ada, bob) = (Keeper::new(&world, "ada").await, Keeper::new(&world, "bob").await);
    let made = ada.post("/v1/cleanup-schedules", terms("trash", false)).await;
    let rule = id_of(&made);
    trashed(&world, "old.png", 1, 2).await;
    let back = trashed(&world, "restored.png", 2, 2).await;
    work(&world, |w| w);
    let run_id = ada.start(rule, false).await;
    let waiting = ada.when(run_id, "awaiting_approval").await;
    assert!(waiting["guard"].as_str().unwrap().contains("% of the"), "{waiting}");
    let told = "workflow.runs where kind = 'notify' and input #>> '{news,code}' = 'cleanup.waiting'";
    assert_eq!(world.count(told).await, 1, "those who manage the tenant hear of it");
    assert_eq!(ada.act(run_id, "approve").await.problem(), "cleanup.second_person");
    let (_, key) = world.key_for(DEFAULT_TENANT, &SCOPES).await;
    let path = format!("/v1/cleanup-runs/{run_id}/actions");
    let by_key = world.send(with_json(request(Method::POST, &path, &key), &json!({"action": "approve"}))).await;
    assert_eq!(by_key.problem(), "cleanup.second_person", "a key is whoever made it");
    assert_eq!(texts(&world, STATES).await, ["old.png trashed", "restored.png trashed"]);
    // What was restored while it waited stays.
    run(&world, &format!("update file_mgr.files set state = 'ready', trashed_at = null where id = '{back}'")).await;
    assert_eq!(bob.act(run_id, "approve").await.status, StatusCode::OK);
    let done = bob.when(run_id, "done").await;
    assert_eq!((&done["deleted_count"], &done["skipped_count"]), (&json!(1), &json!(1)));
    assert_eq!(ada.files(run_id).await, ["old.png deleted", "restored.png skipped"]);
    assert_eq!(bob.act(run_id, "reject").await.problem(), "cleanup.state");
    trashed(&world, "other.png", 3, 2).await;
    let run_id = ada.start(rule, false).await;
    ada.when(run_id, "awaiting_approval").await;
    assert_eq!(ada.act(run_id, "reject").await.status, StatusCode::OK, "whoever began it may end it");
    assert_eq!(ada.when(run_id, "cancelled").await["deleted_count"], 0);
    assert_eq!(invariants::check(&world.db, false).await.unwrap(), []);
}

#[sqlx::test(migrations = "../migrations")]
async fn nothing_goes_that_is_held_or_that_somebody_needs(db: PgPool) {
    let world = World::new(db).await;
    much(&world).await;
    let keeper = Keeper::new(&world, "ada").await;
    let logo = id_of(&world.upload("logo.png", png([1, 2, 3])).await);
    let brand = json!({"product_name": "Acme", "logo_file_id": logo});
    let (_, key) = world.key_for(DEFAULT_TENANT, &SCOPES).await;
    assert!(world.send(with_json(request(Method::PUT, "/v1/tenant/branding", &key), &brand)).await.status.is_success());
    let asset = id_of(&world.upload("asset.png", png([3, 2, 1])).await);
    let mut order = crate::world::order();
    order["data"]["images"] = json!({ "logo": asset });
    let render: Uuid = id_of(&world.post("/v1/renders", order).await);
    let held = id_of(&world.upload("held.png", png([7, 7, 7])).await);
    id_of(&world.upload("free.png", png([8, 8, 8])).await);
    let admin = world.person(DEFAULT_TENANT, "root@example.com", &["platform_admin"]).await;
    let admin = world.session(DEFAULT_TENANT, admin).await;
    let place = format!("/v1/platform/tenants/{DEFAULT_TENANT}/holds");
    let hold = json!({"file_id": held, "reason": "court order 17"});
    let hold = id_of(&world.send(with_json(request(Method::POST, &place, &admin), &hold)).await);
    run(&world, "update file_mgr.files set created_at = created_at - interval '2 days', purge_after = workflow.now() - interval '1 hour'
        where name like '%.png'").await;
    let rule = rule(&world, DEFAULT_TENANT, "uploads", false).await;
    work(&world, |w| w);
    let first = keeper.start(rule, false).await;
    keeper.when(first, "done").await;
    assert_eq!(keeper.files(first).await, ["free.png deleted"]);
    let mut tx = Scope::platform(Role::Admin).begin(&world.db).await.unwrap();
    let mut why: Vec<String> =
        purge::in_use(&mut tx, &[logo, asset, held]).await.unwrap().into_iter().map(|(_, why)| why).collect();
    why.sort();
    assert_eq!(why, ["a film under way is made of it", "identity.tenant_branding names it", "it is held"]);
    let overdue = purge::overdue(&mut tx, None, 100).await.unwrap();
    assert_eq!((overdue.purged, overdue.needed), (0, 3), "nor does it go because its time is over");
    tx.commit().await.unwrap();
    // What nobody needs any more goes.
    publish(&world, render, b"a film").await;
    run(&world, "update identity.tenant_branding set logo_file_id = null").await;
    let release = format!("/v1/platform/holds/{hold}/release");
    assert_eq!(world.send(with_json(request(Method::POST, &release, &admin), &json!({}))).await.status, StatusCode::OK);
    let second = keeper.start(rule, false).await;
    keeper.when(second, "done").await;
    assert_eq!(keeper.files(second).await, ["asset.png deleted", "held.png deleted", "logo.png deleted"]);
    let written = "select action from identity.audit_log where action like 'hold%' order by seq";
    assert_eq!(texts(&world, written).await, ["hold.place", "hold.release"]);
}

/// Files in the trash that share no content, without bytes in storage.
async fn many(world: &World, count: i64) {
    run(
        world,
        &format!(
            "insert into file_mgr.blobs (id, tenant_id, sha256, size_bytes)
             select gen_random_uuid(), '{DEFAULT_TENANT}', encode(sha256(n::text::bytea), 'hex'), 10 from generate_series(1, {count}) n;
             insert into file_mgr.files (tenant_id, blob_id, name, purpose, kind, mime_detected, state, trashed_at)
             select tenant_id, id, left(sha256, 8), 'asset', 'image', 'image/png', 'trashed', workflow.now() - interval '2 days'
             from file_mgr.blobs where size_bytes = 10"
        ),
    )
    .await;
}

#[sqlx::test(migrations = "../migrations")]
async fn s099_a_clean_up_survives_a_crash_after_every_event(db: PgPool) {
    let world = World::new(db).await;
    much(&world).await;
    let keeper = Keeper::new(&world, "ada").await;
    let rule = rule(&world, DEFAULT_TENANT, "trash", false).await;
    let count = 2 * BATCH + 3;
    many(&world, count).await;
    work(&world, Builder::crash_after_every_event);
    let done = keeper.when(keeper.start(rule, false).await, "done").await;
    assert_eq!((&done["deleted_count"], &done["deleted_bytes"]), (&json!(count), &json!(10 * count)));
    assert_eq!(world.count("file_mgr.deletion_queue").await, count);
    assert_eq!(world.count("file_mgr.files where state = 'purged'").await, count);
    assert_eq!(world.count("workflow.steps where key like 'batch %'").await, 3, "each batch is one commit");
    assert_eq!(invariants::check(&world.db, false).await.unwrap(), []);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_rule_that_makes_no_sense_is_refused(db: PgPool) {
    let world = World::new(db).await;
    let keeper = Keeper::new(&world, "ada").await;
    for (field, value, fault) in [
        ("name", json!(" "), "/name cleanup.name"),
        ("target", json!("everything"), "/target cleanup.target"),
        ("older_than_seconds", json!(60), "/older_than_seconds cleanup.age"),
        ("cron", json!("* * * * *"), "/cron schedule.cron"),
        ("cron", json!("0 0 31 2 *"), "/cron schedule.cron"),
        ("cron", json!("0,3 3 * * *"), "/cron schedule.cron"),
        ("time_zone", json!("Mars/Olympus"), "/time_zone timezone.unknown"),
        ("max_delete_per_run", json!(0), "/max_delete_per_run cleanup.most"),
        ("filter", json!({"kinds": ["spell"]}), "/filter cleanup.filter"),
    ] {
        let mut body = terms("trash", true);
        body[field] = value;
        assert_eq!(keeper.post("/v1/cleanup-schedules", body).await.faults(), [fault]);
    }
    assert_eq!(keeper.post("/v1/cleanup-schedules", terms("trash", true)).await.status, StatusCode::CREATED);
    assert_eq!(keeper.post("/v1/cleanup-schedules", terms("trash", true)).await.problem(), "cleanup.exists");
    assert_eq!(world.count("workflow.schedules where kind = 'clean_up'").await, 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_rule_fires_in_its_zone_follows_its_changes_and_ends_with_it(db: PgPool) {
    let world = World::new(db).await;
    let keeper = Keeper::new(&world, "ada").await;
    let mut says = terms("temp", false);
    says["time_zone"] = json!("Asia/Tehran");
    let made = keeper.post("/v1/cleanup-schedules", says.clone()).await.json();
    let path = format!("/v1/cleanup-schedules/{}", made["id"].as_str().unwrap());
    assert_eq!(made["next"].as_array().unwrap().len(), 5);
    assert!(
        made["next"].as_array().unwrap().iter().all(|at| at.as_str().unwrap().ends_with("T03:30:00+03:30")),
        "{made}"
    );
    says["enabled"] = json!(false);
    let off = world.send(with_json(request(Method::PUT, &path, &keeper.token), &says)).await.json();
    assert_eq!((&off["next"], &off["enabled"]), (&json!([]), &json!(false)));
    assert_eq!(world.count("workflow.schedules where kind = 'clean_up' and next_at is null").await, 1);
    let gone = world.send(request(Method::DELETE, &path, &keeper.token).body(Body::empty()).unwrap()).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert_eq!(world.count("workflow.schedules where kind = 'clean_up' and deleted_at is null").await, 0);
    let written = "select action from identity.audit_log where action like 'cleanup_schedule%' order by seq";
    let actions = ["cleanup_schedule.create", "cleanup_schedule.update", "cleanup_schedule.delete"];
    assert_eq!(texts(&world, written).await, actions);
}

/// What is to happen once a month, or a year, does not fall out because nobody was there for days.
#[sqlx::test(migrations = "../migrations")]
async fn a_rule_that_nobody_was_there_for_is_carried_out_once_somebody_is(db: PgPool) {
    let world = World::new(db).await;
    let (_, key) = world.key_for(DEFAULT_TENANT, &SCOPES).await;
    let mut rare = terms("trash", true);
    rare["cron"] = json!((chrono::Utc::now() + chrono::TimeDelta::days(2)).format("0 3 %-d %-m *").to_string());
    let made = world.send(with_json(request(Method::POST, "/v1/cleanup-schedules", &key), &rare)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{:?}", made.body);
    crate::crashes::later(&world, Duration::from_secs(5 * 86_400)).await;
    for _ in 0..2 {
        Schedules::new(Client::new(world.db.clone())).fire_due().await.unwrap();
        assert_eq!(world.count("workflow.runs where kind = 'clean_up'").await, 1);
    }
}

/// Whoever changes a rule, or starts a run, with a key of their own is no second person.
#[sqlx::test(migrations = "../migrations")]
async fn a_key_of_ones_own_makes_nobody_a_second_person(db: PgPool) {
    let world = World::new(db).await;
    let (ada, bob) = (Keeper::new(&world, "ada").await, Keeper::new(&world, "bob").await);
    let made = ada.post("/v1/api-keys", json!({"name": "hers", "scopes": ["admin", "files"]})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{:?}", made.body);
    let key = made.json()["secret"].as_str().unwrap_or_else(|| panic!("{}", made.json())).to_owned();
    let made =
        world.send(with_json(request(Method::POST, "/v1/cleanup-schedules", &key), &terms("trash", false))).await;
    assert_eq!(made.status, StatusCode::CREATED, "{:?}", made.body);
    trashed(&world, "old.png", 1, 2).await;
    work(&world, |w| w);
    let run = bob.start(id_of(&made), false).await;
    ada.when(run, "awaiting_approval").await;
    assert_eq!(ada.act(run, "approve").await.problem(), "cleanup.second_person", "her key made the rule");
    assert_eq!(bob.act(run, "approve").await.problem(), "cleanup.second_person", "he has started it");
    let carla = Keeper::new(&world, "carla").await;
    assert_eq!(carla.act(run, "approve").await.status, StatusCode::OK);
    carla.when(run, "done").await;
}

/// A rule that is changed while its plan waits for somebody spares what it means no more.
#[sqlx::test(migrations = "../migrations")]
async fn what_a_changed_rule_means_no_more_stays(db: PgPool) {
    let world = World::new(db).await;
    let (ada, bob) = (Keeper::new(&world, "ada").await, Keeper::new(&world, "bob").await);
    let rule = rule(&world, DEFAULT_TENANT, "trash", false).await;
    trashed(&world, "old.png", 1, 2).await;
    work(&world, |w| w);
    for (change, state, left) in [
        ("target = 'temp'", "done", "old.png skipped"),
        ("older_than = interval '365 days'", "done", "old.png skipped"),
        ("dry_run = true", "cancelled", "old.png planned"),
    ] {
        let as_it_was = "target = 'trash', older_than = interval '1 day', dry_run = false";
        run(&world, &format!("update file_mgr.cleanup_schedules set {as_it_was}")).await;
        let begun = ada.start(rule, false).await;
        ada.when(begun, "awaiting_approval").await;
        run(&world, &format!("update file_mgr.cleanup_schedules set {change}")).await;
        assert_eq!(bob.act(begun, "approve").await.status, StatusCode::OK);
        bob.when(begun, state).await;
        assert_eq!(bob.files(begun).await, [left], "{change}");
    }
    assert_eq!(texts(&world, STATES).await, ["old.png trashed"]);
}

/// What a rule lists again and again does not fill the database: of former runs the sums are kept.
#[sqlx::test(migrations = "../migrations")]
async fn files_are_told_of_the_newest_run_of_a_rule_alone(db: PgPool) {
    let world = World::new(db).await;
    let keeper = Keeper::new(&world, "ada").await;
    let rule = rule(&world, DEFAULT_TENANT, "trash", true).await;
    many(&world, 20).await;
    work(&world, |w| w);
    let mut runs = vec![];
    for _ in 0..3 {
        runs.push(keeper.start(rule, true).await);
        keeper.when(runs[runs.len() - 1], "done").await;
    }
    assert_eq!(world.count("file_mgr.cleanup_items").await, 20);
    assert_eq!((keeper.files(runs[0]).await.len(), keeper.files(runs[2]).await.len()), (0, 20));
    assert_eq!(keeper.when(runs[0], "done").await["planned_count"], 20);
    assert_eq!(invariants::check(&world.db, false).await.unwrap(), []);
}

/// Of more files than one plan takes, a part is small by itself, and its share says nothing of all of them. Those that somebody needs take
/// nobody's place in it.
#[sqlx::test(migrations = "../migrations")]
async fn a_plan_that_is_cut_waits_for_somebody_and_is_full_of_what_may_go(db: PgPool) {
    let world = World::new(db).await;
    much(&world).await;
    let rule = rule(&world, DEFAULT_TENANT, "trash", false).await;
    many(&world, 7).await;
    let first_three = "insert into file_mgr.holds (tenant_id, file_id, reason, placed_by)
        select tenant_id, id, 'court order 17', 'cli' from file_mgr.files where state = 'trashed' order by id limit 3";
    run(&world, first_three).await;
    let planned = async |most: usize| {
        let mut tx = Scope::tenant(Role::Admin, DEFAULT_TENANT).begin(&world.db).await.unwrap();
        let rule = cleanup_schedule::find(&mut tx, DEFAULT_TENANT, rule).await.unwrap().expect("it is there");
        let run = cleanup_run::open(&mut tx, &rule, false, None).await.unwrap();
        let plan = cleanup_run::plan(&mut tx, &rule, run, most).await.unwrap();
        (plan.count, plan.guard)
    };
    for most in 1..=3 {
        assert_eq!(planned(most).await, (most as i64, Some(format!("more than {most} files"))));
    }
    for most in [4, 5, 100] {
        assert_eq!(planned(most).await, (4, None));
    }
}
