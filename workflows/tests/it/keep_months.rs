//! The months of time series, kept by workflows.

use flatrender_engine::testing::Stage;
use flatrender_workflows::{
    definitions::{keep_months::KeepMonths, retire_months::RetireMonths},
    models::{
        Role, Scope,
        time_series::{self, MADE_LATE, Series},
    },
};
use metrics_exporter_prometheus::PrometheusBuilder;
use sqlx::{AssertSqlSafe, PgPool};

fn stage(db: &PgPool) -> Stage {
    Stage::new(db.clone(), |worker| worker.workflow::<KeepMonths>().workflow::<RetireMonths>())
}

#[sqlx::test(migrations = "../migrations")]
async fn a_night_years_ahead_makes_its_months_and_retires_the_old(db: PgPool) {
    let at = Some("2029-06-15T03:15:00Z".parse().unwrap());
    let made = stage(&db).survives_a_crash_after_every_event(KeepMonths { at }).await.unwrap();
    assert!(made.output_as::<i32>().expect("it goes well") >= 4 * 5);
    let retired = stage(&db).survives_a_crash_after_every_event(RetireMonths { at }).await.unwrap();
    let done: Vec<String> = retired.output_as().expect("it goes well");
    assert!(done.contains(&"detached render.node_health_logs_2026_01".to_owned()), "{done:?}");
    let ahead: bool = sqlx::query_scalar("select to_regclass('render.node_health_logs_2029_09') is not null")
        .fetch_one(&db)
        .await
        .unwrap();
    assert!(ahead);
}

/// A month that lacks an index, or shows its rows to everybody, is told.
#[sqlx::test(migrations = "../migrations")]
async fn a_month_that_is_not_as_it_should_be_fails_the_night(db: PgPool) {
    let broken = "create table render.other (like render.node_health_logs including defaults including constraints);
        do $$ declare v_month date := date_trunc('month', now() at time zone 'UTC' + interval '2 months');
              v_name text := platform.month_table('render.node_health_logs', v_month); begin
            execute format('alter table render.node_health_logs detach partition %s', v_name);
            execute format('drop table %s', v_name);
            execute format('alter table render.other rename to %I', split_part(v_name, '.', 2));
            -- Attached by its bounds alone: PostgreSQL makes the indexes of its series, not its row-level security.
            execute format('alter table render.node_health_logs attach partition %s for values from (%L) to (%L)', v_name,
                           v_month::timestamp at time zone 'UTC', (v_month + interval '1 month')::timestamp at time zone 'UTC');
        end $$";
    sqlx::raw_sql(broken).execute(&db).await.unwrap();
    let run = stage(&db).finish(KeepMonths { at: None }).await.unwrap();
    let failure = run.error.expect("it fails");
    assert_eq!(failure.code, "months.faulty");
    assert!(failure.message.contains("shows its rows to everybody"), "{}", failure.message);
}

/// What somebody is using for longer than two seconds is left, and tried again.
#[sqlx::test(migrations = "../migrations")]
async fn a_month_in_use_is_tried_again(db: PgPool) {
    let at = "2029-06-15T03:15:00Z".parse().unwrap();
    let mut reader = db.begin().await.unwrap();
    sqlx::query("lock table render.node_health_logs_2026_01 in access share mode").execute(&mut *reader).await.unwrap();
    let mut tx = Scope::platform(Role::Admin).begin(&db).await.unwrap();
    let first = time_series::retire_months(&mut tx, at, None).await.unwrap();
    tx.commit().await.unwrap();
    assert!(first.contains(&"busy render.node_health_logs_2026_01".to_owned()), "{first:?}");
    reader.rollback().await.unwrap();
    let run = stage(&db).finish(RetireMonths { at: Some(at) }).await.unwrap();
    let done: Vec<String> = run.output_as().unwrap();
    assert!(done.contains(&"detached render.node_health_logs_2026_01".to_owned()), "{done:?}");
}

/// What loses a month is locked until that is committed; the other series are not, each of which has a step of its own.
#[sqlx::test(migrations = "../migrations")]
async fn retiring_a_series_locks_no_other(db: PgPool) {
    let at = "2029-06-15T03:15:00Z".parse().unwrap();
    let mut tx = Scope::platform(Role::Admin).begin(&db).await.unwrap();
    let done = time_series::retire_months(&mut tx, at, Some("render.node_health_logs")).await.unwrap();
    assert!(done.contains(&"detached render.node_health_logs_2026_01".to_owned()), "{done:?}");
    assert!(done.iter().all(|line| line.starts_with("detached render.node_health_logs_")), "{done:?}");
    let mut reader = db.begin().await.unwrap();
    let others = "lock table identity.audit_log, identity.tenant_api_request_logs, identity.tenant_webhook_deliveries,
        notification.notification_deliveries in access share mode nowait";
    sqlx::query(others).execute(&mut *reader).await.unwrap();
    let own = "lock table render.node_health_logs in access share mode nowait";
    let refused = sqlx::query(own).execute(&mut *reader).await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("55P03"));
    reader.rollback().await.unwrap();
    tx.commit().await.unwrap();
    let run = stage(&db).finish(RetireMonths { at: Some(at) }).await.unwrap();
    let steps = "select count(*) from workflow.steps where run_id = $1 and key like 'retire %'";
    let steps: i64 = sqlx::query_scalar(steps).bind(run.id).fetch_one(&db).await.unwrap();
    assert_eq!(steps, 5);
}

async fn months(db: &PgPool) -> i64 {
    let sql = "select count(*) from pg_inherits where inhparent = 'render.node_health_logs'::regclass";
    sqlx::query_scalar(sql).fetch_one(db).await.unwrap()
}

/// Two years with nobody who makes months: whoever writes makes theirs, at the turn of each month, several at once; and each is counted.
#[sqlx::test(migrations = "../migrations")]
async fn p23_no_insert_fails_in_two_years_without_cron(db: PgPool) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let before = months(&db).await;
    let insert = "insert into render.node_health_logs (recorded_at, node_id, epoch) values ($1, gen_random_uuid(), 1)";
    for month in 0..24 {
        let turn = format!("select date_trunc('month', now() + interval '{month} months', 'UTC')");
        let turn: chrono::DateTime<chrono::Utc> = sqlx::query_scalar(AssertSqlSafe(turn)).fetch_one(&db).await.unwrap();
        let writers = [-1, 0, 1].map(async |seconds| {
            let at = turn + chrono::Duration::seconds(seconds);
            let mut tx = Scope::platform(Role::Render).begin(&db).await.unwrap();
            let write = async |db: flatrender_workflows::models::Db<'_>| sqlx::query(insert).bind(at).execute(db).await;
            time_series::write(&mut tx, Series::NodeHealthLogs, at, write).await.unwrap();
            tx.commit().await.unwrap();
        });
        futures::future::join_all(writers).await;
    }
    let rows: i64 = sqlx::query_scalar("select count(*) from render.node_health_logs").fetch_one(&db).await.unwrap();
    assert_eq!(rows, 3 * 24);
    let made = months(&db).await - before;
    let counted = format!("{MADE_LATE}{{series=\"render.node_health_logs\"}} {made}");
    assert!(made > 12 && handle.render().lines().any(|line| line == counted), "{counted}\n{}", handle.render());
}
