//! What nobody goes on with: it is given up, its room is freed and its pieces go, whatever the storage says.

use super::expire;
use crate::world::World;
use axum::{
    body::Body,
    http::{Method, StatusCode},
};
use flatrender_workflows::models::{DEFAULT_TENANT, invariants};
use sqlx::PgPool;

#[sqlx::test(migrations = "../migrations")]
async fn an_upload_that_nobody_goes_on_with_is_given_up(db: PgPool) {
    let world = World::new(db).await;
    let upload = world.begun(1000).await;
    world.append(&upload, 0, vec![7; 500]).await;
    let going_on = world.begun(1000).await;
    assert_eq!(world.count("file_mgr.quotas where reserved_bytes = 2000").await, 1);
    crate::jane::pass(&world, 23 * 3600).await;
    world.append(&going_on, 0, vec![7; 500]).await;
    crate::jane::pass(&world, 2 * 3600).await;
    expire(&world, "first").await;
    let head = world.send(world.tus(Method::HEAD, &upload).body(Body::empty()).unwrap()).await;
    assert_eq!((head.status, world.offset(&going_on).await), (StatusCode::GONE, 500));
    assert_eq!(world.append(&upload, 500, vec![7; 500]).await.problem(), "upload.ended");
    assert_eq!(world.count("file_mgr.quotas where reserved_bytes = 1000").await, 1);
    assert_eq!(invariants::check(&world.db, true).await.unwrap(), []);
    crate::jane::pass(&world, 7200).await;
    expire(&world, "second").await;
    assert_eq!(world.pieces().await, 1, "the piece of the one that goes on");
    assert_eq!(world.count("file_mgr.upload_sessions where cleared_at is not null").await, 1);
}

/// An upload whose pieces cannot be removed keeps no other from being cleared, and is tried again.
#[sqlx::test(migrations = "../migrations")]
async fn pieces_that_cannot_be_removed_keep_no_others_from_going(db: PgPool) {
    let world = World::new(db).await;
    let (stuck, other) = (world.begun(1000).await, world.begun(1000).await);
    for upload in [&stuck, &other] {
        assert_eq!(world.append(upload, 0, vec![7; 500]).await.status, StatusCode::NO_CONTENT);
    }
    let shelf = format!("storage/tenants/{DEFAULT_TENANT}/uploads/{}", stuck.rsplit('/').next().unwrap());
    let (shelf, away) = (world.folder.path().join(shelf), world.folder.path().join("away"));
    std::fs::rename(&shelf, &away).unwrap();
    std::fs::write(&shelf, "in the way").unwrap();
    crate::jane::pass(&world, 2 * 86_400).await;
    expire(&world, "first").await;
    crate::jane::pass(&world, 7200).await;
    expire(&world, "second").await;
    assert_eq!(world.count("file_mgr.upload_sessions where cleared_at is not null").await, 1);
    assert_eq!(world.pieces().await, 1, "what is in the way");
    let failed = "workflow.runs where kind = 'expire_uploads' and state = 'failed'";
    assert_eq!(world.count(failed).await, 1, "it is told of");
    std::fs::remove_file(&shelf).unwrap();
    std::fs::rename(&away, &shelf).unwrap();
    expire(&world, "third").await;
    assert_eq!(world.count("file_mgr.upload_sessions where cleared_at is not null").await, 2);
    assert_eq!((world.pieces().await, world.count(failed).await), (0, 1));
}

/// A storage that is away is not asked for every upload there is; once it is back all of them go.
#[sqlx::test(migrations = "../migrations")]
async fn a_storage_that_is_away_is_asked_for_two_batches(db: PgPool) {
    let world = World::new(db).await;
    let ended = format!(
        "insert into file_mgr.upload_sessions (tenant_id, protocol, name, total_bytes, offset_bytes, state, expires_at, created_at, updated_at)
         select '{DEFAULT_TENANT}', 'tus', 'a.bin', 5, 5, 'aborted', long_ago, long_ago, long_ago
         from (select workflow.now() - interval '2 days' as long_ago) a, generate_series(1, 30)"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(ended)).execute(&world.db).await.unwrap();
    let ids = sqlx::query_scalar("select id from file_mgr.upload_sessions").fetch_all(&world.db).await;
    let ids: Vec<uuid::Uuid> = ids.unwrap();
    let shelves = world.folder.path().join(format!("storage/tenants/{DEFAULT_TENANT}/uploads"));
    std::fs::create_dir_all(&shelves).unwrap();
    for id in &ids {
        std::fs::write(shelves.join(id.to_string()), "in the way").unwrap();
    }
    expire(&world, "away").await;
    let asked = "(select distinct step_key from workflow.attempts where step_key like 'clear %') a";
    assert_eq!(world.count(asked).await, 2);
    assert_eq!(world.count("workflow.runs where kind = 'expire_uploads' and state = 'failed'").await, 1);
    for id in &ids {
        std::fs::remove_file(shelves.join(id.to_string())).unwrap();
    }
    expire(&world, "back").await;
    assert_eq!(world.count("file_mgr.upload_sessions where cleared_at is not null").await, 30);
}

#[sqlx::test(migrations = "../migrations")]
async fn all_room_that_is_set_aside_for_too_long_is_freed_by_one_run(db: PgPool) {
    let world = World::new(db).await;
    let many = format!(
        "insert into file_mgr.quota_reservations (tenant_id, amount_bytes, purpose, expires_at)
         select '{DEFAULT_TENANT}', 1, 'test:' || n, now() - interval '1 hour' from generate_series(1, 450) n"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(many)).execute(&world.db).await.unwrap();
    expire(&world, "first").await;
    world.keeps_every_rule().await;
}
