//! What goes for good, whatever else happens to it at that moment: content, files, what was made of films.

use super::{id_of, run, texts};
use crate::{
    exports::publish,
    world::{World, order_with, png, request, with_json},
};
use axum::http::{Method, StatusCode};
use flatrender_workflows::{
    contracts::storage::{BlobHash, BlobRef, Shelf},
    models::{
        DEFAULT_TENANT, Role, Scope,
        file_mgr::{
            blob, deletion,
            file::{self, NewFile},
            hold::{self, NewHold},
            purge,
        },
        identity::tenant_api_key::SCOPES,
        invariants,
    },
};
use serde_json::json;
use sqlx::PgPool;
use std::time::Duration;
use uuid::Uuid;

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
