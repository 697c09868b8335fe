//! The months of time series, kept by a workflow.

use flatrender_engine::{Client, Worker};
use flatrender_workflows::{definitions::keep_months::KeepMonths, models::DEFAULT_TENANT};
use sqlx::PgPool;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

#[sqlx::test(migrations = "../migrations")]
async fn a_night_years_ahead_makes_its_months_and_retires_the_old(db: PgPool) {
    let stop = CancellationToken::new();
    let worker = tokio::spawn(Worker::builder(db.clone()).workflow::<KeepMonths>().run(stop.clone()));
    let client = Client::new(db.clone());
    let at = "2029-06-15T03:15:00Z".parse().unwrap();
    let mut tx = db.begin().await.unwrap();
    let run_id = client.start(&mut tx, DEFAULT_TENANT, None, KeepMonths { at: Some(at) }).await.unwrap().run_id;
    tx.commit().await.unwrap();
    client.announce();
    let run = client.finished(run_id, Duration::from_secs(60)).await.unwrap().expect("the night ends");
    let done: Vec<String> = run.output_as().expect("it goes well");
    assert!(done.contains(&"detached render.node_health_logs_2026_01".to_owned()), "{done:?}");
    let ahead: bool = sqlx::query_scalar("select to_regclass('render.node_health_logs_2029_09') is not null")
        .fetch_one(&db)
        .await
        .unwrap();
    assert!(ahead);
    stop.cancel();
    worker.await.unwrap().unwrap();
}
