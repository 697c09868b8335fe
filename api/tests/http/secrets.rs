//! Secrets that the API gives or is given stand in no table, neither as they are nor as bytes.

use crate::{
    jane::{OTHER, PASSWORD, credentials, jane, letters, link, post},
    world::World,
};
use axum::http::StatusCode;
use serde_json::json;
use sqlx::PgPool;

/// All rows of all tables of the platform, as text; bytes as hexadecimal digits.
async fn everything(world: &World) -> String {
    let tables: Vec<String> = sqlx::query_scalar(
        "select format('%I.%I', schemaname, tablename) from pg_tables
         where schemaname not in ('pg_catalog', 'information_schema', 'public')",
    )
    .fetch_all(&world.db)
    .await
    .unwrap();
    assert!(tables.len() > 100, "{tables:?}");
    let mut all = String::new();
    for table in tables {
        let sql = format!("select coalesce(string_agg(t::text, e'\\n'), '') from only {table} t");
        let rows: String = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&world.db).await.unwrap();
        all.push_str(&rows);
    }
    all
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[sqlx::test(migrations = "../migrations")]
async fn no_secret_stands_in_the_database(db: PgPool) {
    let world = World::new(db).await;
    world.work();
    let jane = jane(&world, &["admin"]).await;
    post(&world, "/v1/auth/forgot-password", json!({ "email": "jane@example.com" })).await;
    letters(&world, "jane@example.com", 1).await;
    let reset = link(&world, "reset").await;
    let (seed, recovery) = jane.with_factor().await;
    let key = jane.post("/v1/api-keys", json!({ "name": "Shop" })).await;
    assert_eq!(key.status, StatusCode::CREATED, "{:?}", key.body);
    let key = key.json()["secret"].as_str().unwrap().to_owned();
    let node = world.node("n1").await;
    let late = credentials("late@example.com", OTHER);
    assert_eq!(post(&world, "/v1/auth/sign-in", late).await.status, StatusCode::UNAUTHORIZED);

    let all = everything(&world).await;
    for kept in ["jane@example.com", "Shop", "n1"] {
        assert!(all.contains(kept), "{kept} is what the search has to find");
    }
    let seed_as_text = totp_rs::Secret::new(seed.clone().into()).to_base32();
    let texts = [PASSWORD, OTHER, &jane.access, &jane.refresh, &key, &reset, &seed_as_text, &node.credential];
    for secret in texts.into_iter().chain(recovery.iter().map(String::as_str)) {
        assert!(!all.contains(secret), "{secret} stands in the database");
        assert!(!all.contains(&digits(secret.as_bytes())), "{secret} stands in the database as bytes");
    }
    assert!(!all.contains(&digits(&seed)), "the seed of the second factor stands in the database as bytes");
}
