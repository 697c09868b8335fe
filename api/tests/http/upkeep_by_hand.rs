//! Uploads, usage, schedules, clean-ups and the doctor from the command line, as people type it: each a process of its own.

use crate::{direct_uploads::in_a_bucket, folders_by_hand::Hand, uploads::sound, world::World};
use flatrender_engine::{Client, schedules::Schedules};
use flatrender_workflows::{
    contracts::storage::BlobHash,
    definitions::schedules,
    models::{DEFAULT_TENANT, identity::tenant_api_key::SCOPES},
};
use serde_json::{Value, json};
use sqlx::PgPool;

const MIB: usize = 1024 * 1024;

fn json_of(said: &(i32, String)) -> Value {
    assert_eq!(said.0, 0, "{}", said.1);
    serde_json::from_str(&said.1).unwrap_or_else(|why| panic!("{why}: {}", said.1))
}

/// What was begun on another machine is gone on with where the storage has it: nothing of it is kept by the command.
#[sqlx::test(migrations = "../migrations")]
async fn an_upload_goes_on_with_the_parts_that_are_there(db: PgPool) {
    let (world, _server) = in_a_bucket(db).await;
    world.work();
    let hand = Hand::new(&world).await;
    let sound = sound(12 * MIB);
    std::fs::write(world.folder.path().join("a.wav"), &sound).unwrap();
    let folder = world.post("/v1/folders", json!({"name": "Sounds"})).await.json()["id"].clone();
    let body = json!({"name": "a.wav", "total_bytes": sound.len(), "part_bytes": 5 * MIB, "folder_id": folder});
    let begun = world.begin_direct(body).await;
    let (upload, id) = (begun.header("location").to_owned(), begun.json()["id"].as_str().unwrap().to_owned());
    world.send_part(&upload, 2, &sound[5 * MIB..10 * MIB]).await;
    let (code, said) = hand.call(&["files", "upload", "a.wav", "--resume", &id], &[]).await;
    assert_eq!(code, 0, "{said}");
    let file = world.get(&format!("/v1/files/{said}")).await.json();
    assert_eq!((&file["sha256"], &file["folder_id"]), (&json!(BlobHash::of(&sound).as_str()), &folder));
    // What has come to its end is told again.
    assert_eq!(hand.call(&["files", "upload", "a.wav", "--resume", &id], &[]).await, (0, said));
    std::fs::write(world.folder.path().join("b.wav"), &sound[..6 * MIB]).unwrap();
    let (code, other) = hand.call(&["files", "upload", "b.wav", "--direct", "--folder", "Sounds"], &[]).await;
    assert_eq!(code, 0, "{other}");
    assert_eq!(world.get(&format!("/v1/files/{other}")).await.json()["folder_id"], folder);
    let (code, third) = hand.call(&["files", "upload", "a.wav", "--direct"], &[]).await;
    assert_eq!(code, 0, "{third}");
    world.keeps_every_rule().await;
}

#[sqlx::test(migrations = "../migrations")]
async fn schedules_and_clean_ups_are_seen_and_steered_by_hand(db: PgPool) {
    let world = World::new(db.clone()).await;
    let hand = Hand::new(&world).await;
    let name: String = sqlx::query_scalar("select current_database()::text").fetch_one(&db).await.unwrap();
    let url = std::env::var("DATABASE_URL").unwrap();
    let url = format!("{}/{name}", url.rsplit_once('/').unwrap().0);
    let at: &[(&str, &str)] = &[("DATABASE_URL", &url)];
    let mut tx = db.begin().await.unwrap();
    let kept = Schedules::new(Client::new(db.clone()));
    for terms in schedules::all(true).unwrap() {
        kept.ensure(&mut tx, DEFAULT_TENANT, &terms).await.unwrap();
    }
    tx.commit().await.unwrap();
    let call = async |args: &[&str]| hand.call(args, at).await;
    let all = json_of(&call(&["schedule", "list", "--json"]).await);
    let names: Vec<&str> =
        all.as_array().unwrap().iter().filter_map(|s| s["name"].as_str().or(s["terms"]["name"].as_str())).collect();
    assert!(names.contains(&"file_purge") && names.contains(&"message_purge"), "{names:?}");
    assert_eq!(call(&["schedule", "pause", "file_purge"]).await.0, 0);
    assert_eq!(world.count("workflow.schedules where name = 'file_purge' and paused_at is not null").await, 1);
    assert_eq!(call(&["schedule", "resume", "file_purge"]).await.0, 0);
    assert_eq!(call(&["schedule", "run", "file_purge"]).await.0, 0);
    assert_eq!(world.count("workflow.runs where kind = 'purge_files'").await, 1);
    let shown = call(&["schedule", "show", "file_purge"]).await;
    assert!(shown.0 == 0 && shown.1.contains("20 * * * *"), "{shown:?}");
    assert_ne!(call(&["schedule", "show", "nothing"]).await.0, 0);

    assert_eq!(json_of(&call(&["cleanup", "runs", "--json"]).await), json!([]));
    let acme = world.tenant("acme").await;
    let tenant = acme.to_string();
    let held = call(&["cleanup", "hold", "--tenant", &tenant, "--reason", "court order 17"]).await;
    assert_eq!(held.0, 0, "{}", held.1);
    let holds = json_of(&call(&["cleanup", "holds", "--json"]).await);
    let id = holds["id"].as_str().unwrap().to_owned();
    assert_eq!(call(&["cleanup", "release", &id]).await.0, 0);
    assert_eq!(world.count("file_mgr.holds where released_at is null").await, 0);
    assert_ne!(call(&["cleanup", "approve", &id]).await.0, 0, "there is no such run");
    let written = "select action, reason from identity.audit_log where tenant_id = $1 and actor = 'cli' order by seq";
    let written: Vec<(String, Option<String>)> = sqlx::query_as(written).bind(acme).fetch_all(&world.db).await.unwrap();
    let why = Some("court order 17".to_owned());
    assert_eq!(
        written,
        [("hold.place".to_owned(), why), ("hold.release".to_owned(), None)],
        "in the chain of whose it is"
    );
}

#[sqlx::test(migrations = "../migrations")]
async fn usage_is_exported_and_the_machine_is_looked_at_by_hand(db: PgPool) {
    let world = World::new(db).await;
    let hand = Hand::new(&world).await;
    let (_, key) = world.key_for(DEFAULT_TENANT, &SCOPES).await;
    let day = "insert into identity.tenant_usage_daily (tenant_id, day, metric, quantity, final) values ($1, '2026-11-02', 'exports', 7, true)";
    sqlx::query(day).bind(DEFAULT_TENANT).execute(&world.db).await.unwrap();
    let asked = ["usage", "--from", "2026-11-01", "--to", "2026-11-03", "--out", "usage.csv"];
    let (code, said) = hand.call(&asked, &[("FLATRENDER_API_KEY", &key)]).await;
    assert_eq!(code, 0, "{said}");
    let csv = std::fs::read_to_string(world.folder.path().join("usage.csv")).unwrap();
    assert_eq!(csv, "day,metric,quantity,final\r\n2026-11-02,exports,7,true\r\n");
    let (code, said) = hand.call(&["usage"], &[]).await;
    assert!(code == 4 && said.starts_with("error: "), "a key for films is none for this: {code} {said}");

    let data = world.folder.path().join("data");
    // A machine that lacks something is told so, by name.
    let (code, said) = hand.call(&["doctor", "--json"], &[("FLATRENDER_DATA", data.to_str().unwrap())]).await;
    let told = if code == 0 { said.contains("ffmpeg") } else { said.contains("this machine cannot make films yet: ") };
    assert!(told, "{code} {said}");
    let jail = r#""name": "jail","#;
    assert!(said.contains(jail), "whether strangers' files are read behind walls: {said}");
}
