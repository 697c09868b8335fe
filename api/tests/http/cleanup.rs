//! What rules of tenants remove, and what nothing removes.

use crate::{
    exports::publish,
    world::{Answer, World, order_with, png, request, with_json},
};
use axum::{
    body::Body,
    http::{Method, StatusCode},
};
use flatrender_engine::{Client, Worker, schedules::Schedules, worker::Builder};
use flatrender_workflows::{
    contracts::storage::{BlobHash, BlobRef, Shelf},
    definitions::{clean_up::CleanUp, expire_exports::ExpireExports, purge_files::PurgeFiles},
    models::{
        DEFAULT_TENANT, Role, Scope,
        file_mgr::{
            blob,
            cleanup_run::{self, BATCH},
            cleanup_schedule, deletion,
            file::{self, NewFile},
            hold::{self, NewHold},
            purge,
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
async fn previews_go_when_their_hour_is_over_with_all_that_was_made_of_them(db: PgPool) {
    let world = World::new(db).await;
    let kept = publish(&world, world.order().await, b"a film").await;
    let export = publish(&world, world.order().await, b"a preview").await;
    run(
        &world,
        &format!("update render.exports set expires_at = workflow.now() - interval '1 second' where id = '{export}'"),
    )
    .await;
    let mut tx = Scope::platform(Role::Admin).begin(&world.db).await.unwrap();
    let expire = flatrender_workflows::models::render::export::expire;
    assert_eq!(expire(&mut tx, 100).await.unwrap(), 1);
    assert_eq!(expire(&mut tx, 100).await.unwrap(), 0);
    tx.commit().await.unwrap();
    let states = "select state from render.exports order by created_at";
    assert_eq!(texts(&world, states).await, ["ready", "expired"]);
    assert_eq!(world.get(&format!("/v1/exports/{kept}/download")).await.status, StatusCode::OK);
    assert_eq!(world.count("file_mgr.files where state = 'purged'").await, 2, "film and contact sheet");
    // The contact sheet of the other film is the same picture: it stays.
    assert_eq!(world.count("file_mgr.deletion_queue").await, 1);
    let told = invariants::check(&world.db, false).await.unwrap();
    assert!(told.iter().all(|breach| breach.invariant != 12), "{told:?}");
}

#[sqlx::test(migrations = "../migrations")]
async fn content_that_is_used_again_leaves_the_queue_and_doomed_content_is_refused(db: PgPool) {
    let world = World::new(db).await;
    let purge = async |id: Uuid| {
        let mut tx = Scope::platform(Role::Admin).begin(&world.db).await.unwrap();
        purge::purge(&mut tx, &[id]).await.unwrap();
        tx.commit().await.unwrap();
    };
    let doom = async || {
        let mut tx = Scope::platform(Role::Admin).begin(&world.db).await.unwrap();
        let doomed = deletion::doom(&mut tx, 10).await.unwrap();
        tx.commit().await.unwrap();
        doomed
    };
    purge(id_of(&world.upload("a.png", png([1, 2, 3])).await)).await;
    assert_eq!(world.count("file_mgr.deletion_queue where done_at is null").await, 1);
    let again = id_of(&world.upload("b.png", png([1, 2, 3])).await);
    assert_eq!(world.count("file_mgr.deletion_queue").await, 0);
    purge(again).await;
    assert_eq!(doom().await, [], "not within the hour");
    crate::crashes::later(&world, Duration::from_secs(3601)).await;
    let doomed = doom().await;
    assert_eq!(doomed.len(), 1);
    assert_eq!(doom().await, [], "nobody else gets it meanwhile");
    assert_eq!(world.upload("c.png", png([1, 2, 3])).await.problem(), "server.unavailable");
    let hash = doomed[0].sha256.to_string();
    let mut tx = Scope::platform(Role::Admin).begin(&world.db).await.unwrap();
    deletion::settle(&mut tx, DEFAULT_TENANT, &[hash], &[], "").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(world.count("file_mgr.blobs where removed_at is not null").await, 1);
    assert_eq!(world.upload("d.png", png([1, 2, 3])).await.status, StatusCode::CREATED);
    assert_eq!(world.count("file_mgr.blobs where removed_at is not null").await, 0);
    assert_eq!(invariants::check(&world.db, false).await.unwrap(), []);
}

/// Between being stored and being recorded content has no file: nothing but its claim says that it is wanted.
#[sqlx::test(migrations = "../migrations")]
async fn content_that_was_stored_is_not_removed_before_it_is_recorded(db: PgPool) {
    let world = World::new(db).await;
    let (tenant_id, picture) = (DEFAULT_TENANT, png([1, 2, 3]));
    let file = id_of(&world.upload("a.png", picture.clone()).await);
    let mut tx = Scope::platform(Role::Admin).begin(&world.db).await.unwrap();
    purge::purge(&mut tx, &[file]).await.unwrap();
    tx.commit().await.unwrap();
    crate::crashes::later(&world, Duration::from_secs(3 * 86_400)).await;
    // It is due, and its object is still there: storing it writes nothing.
    let shelf = Shelf::Files { tenant_id };
    let sql = format!(
        "select b.sha256 from file_mgr.blobs b join file_mgr.files f on f.blob_id = b.id where f.id = '{file}'"
    );
    let sha = texts(&world, &sql).await.remove(0);
    let hash: BlobHash = sha.parse().unwrap();
    let body = world.storage.open(&shelf, &hash, None).await.unwrap();
    let stored = BlobRef { sha256: hash.clone(), size_bytes: body.size_bytes };
    assert_eq!(world.storage.put(&shelf, None, body.stream, 1 << 20).await.unwrap(), stored);
    let doom = async || {
        let mut tx = Scope::platform(Role::Admin).begin(&world.db).await.unwrap();
        let doomed = deletion::doom(&mut tx, 10).await.unwrap();
        tx.commit().await.unwrap();
        doomed
    };
    assert_eq!(doom().await, [], "somebody has just stored it");
    crate::crashes::later(&world, Duration::from_secs(47 * 3600)).await;
    assert_eq!(doom().await, []);
    crate::crashes::later(&world, Duration::from_secs(2 * 3600)).await;
    let doomed = doom().await;
    assert_eq!(doomed.len(), 1, "nobody has recorded it within two days");

    // Who records it now would have a file of nothing.
    let record = async || {
        let mut tx = Scope::tenant(Role::File, tenant_id).begin(&world.db).await.unwrap();
        let recorded = file::insert(
            &mut tx,
            tenant_id,
            &NewFile {
                owner_id: None,
                name: "late.png",
                purpose: "asset",
                kind: "image",
                mime: "image/png",
                blob: &stored,
                width: None,
                height: None,
                duration_ms: None,
            },
        )
        .await;
        if recorded.is_ok() {
            tx.commit().await.unwrap()
        }
        recorded
    };
    assert!(blob::is_gone(&record().await.unwrap_err()), "it is being removed");
    // Whoever removes it, however slowly, does so before anybody may say that it is gone and store it anew.
    let mut removing = Scope::tenant(Role::File, tenant_id).begin(&world.db).await.unwrap();
    assert!(blob::stays_doomed(&mut removing, tenant_id, &hash).await.unwrap());
    let db = world.db.clone();
    let settling = tokio::spawn(async move {
        let mut tx = Scope::platform(Role::Admin).begin(&db).await.unwrap();
        deletion::settle(&mut tx, tenant_id, &[sha], &[], "").await.unwrap();
        tx.commit().await.unwrap();
    });
    somebody_waits(&world, &settling).await;
    world.storage.remove(&shelf, &hash).await.unwrap();
    assert!(!settling.is_finished());
    drop(removing);
    settling.await.unwrap();
    let mut late = Scope::tenant(Role::File, tenant_id).begin(&world.db).await.unwrap();
    assert!(!blob::stays_doomed(&mut late, tenant_id, &hash).await.unwrap());
    drop(late);
    assert!(blob::is_gone(&record().await.unwrap_err()), "it is gone");
    assert_eq!(world.upload("again.png", picture).await.status, StatusCode::CREATED);
    assert_eq!(world.storage.stat(&shelf, &hash).await.unwrap(), Some(stored.size_bytes));
    record().await.unwrap();
    let told = invariants::check(&world.db, false).await.unwrap();
    assert!(told.iter().all(|breach| breach.invariant != 12), "{told:?}");
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

/// A hold on one of the things that were made of a preview keeps all of it.
#[sqlx::test(migrations = "../migrations")]
async fn a_preview_stays_while_anything_that_was_made_of_it_is_held(db: PgPool) {
    let world = World::new(db).await;
    let export = publish(&world, world.order().await, b"a preview").await;
    let poster = id_of(&world.upload("poster.png", png([4, 5, 6])).await);
    run(
        &world,
        &format!(
            "insert into render.derivatives (tenant_id, export_id, kind, state, file_id, sha256, size_bytes)
             values ('{DEFAULT_TENANT}', '{export}', 'poster', 'ready', '{poster}', repeat('a', 64), 1);
             insert into file_mgr.holds (tenant_id, file_id, reason, placed_by) values ('{DEFAULT_TENANT}', '{poster}', 'court order 17', 'cli');
             update render.exports set expires_at = workflow.now() - interval '1 second'"
        ),
    )
    .await;
    let expire = async || {
        let mut tx = Scope::platform(Role::Admin).begin(&world.db).await.unwrap();
        let expired = flatrender_workflows::models::render::export::expire(&mut tx, 100).await.unwrap();
        tx.commit().await.unwrap();
        expired
    };
    assert_eq!(expire().await, 0);
    let files = "select unnest(array[file_id, sheet_file_id]) from render.exports";
    let files: Vec<Uuid> = sqlx::query_scalar(files).fetch_all(&world.db).await.unwrap();
    let mut tx = Scope::platform(Role::Admin).begin(&world.db).await.unwrap();
    let why = purge::in_use(&mut tx, &files).await.unwrap();
    assert_eq!(why.iter().map(|(_, why)| why.as_str()).collect::<Vec<_>>(), ["what was made of its film is held"; 2]);
    tx.commit().await.unwrap();
    run(&world, "update file_mgr.holds set released_at = workflow.now(), released_by = 'cli'").await;
    assert_eq!(expire().await, 1);
    assert_eq!(world.count("file_mgr.files where state = 'purged'").await, 3, "film, contact sheet and poster");
}

/// Comes back when somebody waits for a lock, or `task` is over without that.
async fn somebody_waits<T>(world: &World, task: &tokio::task::JoinHandle<T>) {
    let waits =
        "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')";
    while !task.is_finished() && !sqlx::query_scalar::<_, bool>(waits).fetch_one(&world.db).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whoever removes something waits for who is placing a hold at that moment, and finds it.
#[sqlx::test(migrations = "../migrations")]
async fn what_is_about_to_be_held_does_not_go_because_its_time_is_over(db: PgPool) {
    let world = World::new(db).await;
    publish(&world, world.order().await, b"a film").await;
    id_of(&world.upload("a.png", png([4, 5, 6])).await);
    run(&world, "update render.exports set expires_at = workflow.now() - interval '1 second'").await;
    run(&world, "update file_mgr.files set purge_after = workflow.now() - interval '1 second' where name = 'a.png'")
        .await;
    let mut placing = Scope::platform(Role::Admin).begin(&world.db).await.unwrap();
    let all = NewHold {
        tenant_id: DEFAULT_TENANT,
        owner_id: None,
        file_id: None,
        reason: "court order 17",
        placed_by: "cli",
    };
    assert!(hold::place(&mut placing, &all).await.unwrap().is_some());
    let db = world.db.clone();
    let removing = tokio::spawn(async move {
        let mut tx = Scope::platform(Role::Admin).begin(&db).await.unwrap();
        let films = flatrender_workflows::models::render::export::expire(&mut tx, 100).await.unwrap();
        let files = purge::overdue(&mut tx, None, 100).await.unwrap().purged;
        tx.commit().await.unwrap();
        (films, files)
    });
    somebody_waits(&world, &removing).await;
    placing.commit().await.unwrap();
    assert_eq!(removing.await.unwrap(), (0, 0));
}

/// What names a file at the moment at which the file is purged.
enum Naming {
    Logo,
    Traced,
    Ordered,
}

/// Whoever names a file waits for who purges it at that moment, and is told that it is gone.
#[sqlx::test(migrations = "../migrations")]
async fn a_file_that_is_being_purged_is_named_by_nothing_new(db: PgPool) {
    let world = std::sync::Arc::new(World::new(db).await);
    let (_, key) = world.key_for(DEFAULT_TENANT, &SCOPES).await;
    for (n, naming) in [Naming::Logo, Naming::Traced, Naming::Ordered].into_iter().enumerate() {
        let id = id_of(&world.upload("a.png", png([n as u8, 5, 6])).await);
        run(&world, &format!("update file_mgr.files set purge_after = workflow.now() where id = '{id}'")).await;
        let mut purging = Scope::platform(Role::Admin).begin(&world.db).await.unwrap();
        assert_eq!(purge::overdue(&mut purging, None, 100).await.unwrap().purged, 1);
        let (method, path, body, fault) = match naming {
            Naming::Logo => {
                let look = json!({"product_name": "Acme", "logo_file_id": id});
                (Method::PUT, "/v1/tenant/branding", look, "/logo_file_id file.not_found")
            }
            Naming::Traced => {
                (Method::POST, "/v1/templates/tiny/svg-previews", json!({"file_id": id}), "/file_id file.not_found")
            }
            Naming::Ordered => {
                let order = order_with("data.images", json!({"logo": id}));
                (Method::POST, "/v1/renders", order, "/data/images/logo file.not_found")
            }
        };
        let (at, request) = (world.clone(), with_json(request(method, path, &key), &body));
        let asked = tokio::spawn(async move { at.send(request).await });
        somebody_waits(&world, &asked).await;
        purging.commit().await.unwrap();
        assert_eq!(asked.await.unwrap().faults(), [fault]);
    }
    assert_eq!(world.count("identity.tenant_branding where logo_file_id is not null").await, 0);
    assert_eq!(world.count("content.template_svg_previews").await, 0);
    assert_eq!(world.count("render.render_jobs").await, 0);
    world.keeps_every_rule().await;
}

/// And a file that is being named stays.
#[sqlx::test(migrations = "../migrations")]
async fn a_file_that_is_being_named_is_not_purged(db: PgPool) {
    let world = World::new(db).await;
    let id = id_of(&world.upload("a.png", png([4, 5, 6])).await);
    run(&world, "update file_mgr.files set purge_after = workflow.now() - interval '1 second'").await;
    let mut naming = Scope::tenant(Role::File, DEFAULT_TENANT).begin(&world.db).await.unwrap();
    assert_eq!(file::find_to_name(&mut naming, DEFAULT_TENANT, &[id]).await.unwrap().len(), 1);
    let look = async |db: &PgPool| {
        let mut tx = Scope::platform(Role::Admin).begin(db).await.unwrap();
        let looked = purge::overdue(&mut tx, None, 100).await.unwrap();
        tx.commit().await.unwrap();
        (looked.purged, looked.needed)
    };
    assert_eq!(look(&world.db).await, (0, 0), "it is left for the next time");
    Scope::tenant(Role::Identity, DEFAULT_TENANT).enter(&mut naming).await.unwrap();
    let name = "insert into identity.tenant_branding (tenant_id, product_name, logo_file_id) values ($1, 'Acme', $2)";
    sqlx::query(name).bind(DEFAULT_TENANT).bind(id).execute(&mut *naming).await.unwrap();
    naming.commit().await.unwrap();
    assert_eq!(look(&world.db).await, (0, 1));
}

/// A hold on what is gone would hold nothing. What was made of a film and is gone can be asked for again.
#[sqlx::test(migrations = "../migrations")]
async fn what_is_gone_is_not_held_and_can_be_made_again(db: PgPool) {
    let world = World::new(db).await;
    let export = publish(&world, world.order().await, b"a film").await;
    let poster = id_of(&world.upload("poster.png", png([4, 5, 6])).await);
    let made = format!(
        "insert into render.derivatives (tenant_id, export_id, kind, state, file_id, sha256, size_bytes)
         values ('{DEFAULT_TENANT}', '{export}', 'poster', 'ready', '{poster}', repeat('a', 64), 1)"
    );
    run(&world, &made).await;
    let mut tx = Scope::platform(Role::Admin).begin(&world.db).await.unwrap();
    purge::purge(&mut tx, &[poster]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(
        texts(&world, "select state || ' ' || error_code from render.derivatives").await,
        ["failed file.purged"]
    );
    let admin = world.person(DEFAULT_TENANT, "root@example.com", &["platform_admin"]).await;
    let admin = world.session(DEFAULT_TENANT, admin).await;
    let place = format!("/v1/platform/tenants/{DEFAULT_TENANT}/holds");
    let hold = json!({"file_id": poster, "reason": "court order 17"});
    assert_eq!(world.send(with_json(request(Method::POST, &place, &admin), &hold)).await.problem(), "file.not_found");
    let wide = json!({"reason": format!("too late{}", " ".repeat(2000))});
    assert_eq!(world.send(with_json(request(Method::POST, &place, &admin), &wide)).await.status, StatusCode::CREATED);
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
