//! What is told of films: in the commit that ends them, once.

use crate::world::{Mischief, World, order};
use flatrender_engine::Client;
use flatrender_workflows::{definitions::events, models::DEFAULT_TENANT};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Somebody listens to everything.
async fn listen(db: &PgPool) {
    let hook = "insert into identity.tenant_webhooks (tenant_id, url, event_types, secret_enc, created_at, updated_at)
                values ($1, 'https://a.example/', '{*}', 'x', workflow.now(), workflow.now())";
    sqlx::query(hook).bind(DEFAULT_TENANT).execute(db).await.unwrap();
}

async fn told(db: &PgPool) -> Vec<(String, Value)> {
    let sent = "select e.type, e.data from identity.tenant_webhook_events e
                join identity.tenant_webhook_deliveries d on d.event_id = e.id and d.state = 'pending'
                join workflow.runs r on r.id = d.workflow_run_id and r.kind = 'webhook' order by e.created_at";
    sqlx::query_as(sent).fetch_all(db).await.unwrap()
}

#[sqlx::test(migrations = "../migrations")]
async fn a_film_is_told_once_however_it_ends_and_whatever_crashes(db: PgPool) {
    listen(&db).await;
    let (film, run) = order(&db).await;
    World::default().finish(&db, run, true).await;
    let failing = BTreeMap::from([("AssembleVideo", "test.refused")]);
    let (other, run) = order(&db).await;
    World::with(Mischief { failing, ..Mischief::default() }).finish(&db, run, true).await;
    let [(completed, first), (failed, second)] = &told(&db).await[..] else { panic!("there are two") };
    assert_eq!((completed.as_str(), failed.as_str()), ("render.completed", "render.failed"));
    assert_eq!(
        (&first["id"], &first["status"], &first["error_code"]),
        (&json!(film), &json!("completed"), &Value::Null)
    );
    assert!(first["export_id"].as_str().is_some_and(|id| id.parse::<Uuid>().is_ok()), "{first}");
    assert_eq!((&second["id"], &second["error_code"]), (&json!(other), &json!("test.refused")));

    let mut tx = db.begin().await.unwrap();
    events::render_ended(&Client::new(db.clone()), &mut tx, film).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(told(&db).await.len(), 2, "whoever settles what the engine gave up tells it no second time");
}
