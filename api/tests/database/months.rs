//! The months of time series: made ahead, in UTC, once; removed in time.

use super::{assert_none, attempt, rows, run};
use sqlx::{AssertSqlSafe, PgPool, postgres::PgPoolOptions};

const BOUNDS: &str = "select i.inhparent::regclass || ' ' || c.relname || ' ' || pg_get_expr(c.relpartbound, c.oid)
    from pg_inherits i join pg_class c on c.oid = i.inhrelid join platform.time_series s on s.name::regclass = i.inhparent order by 1";

/// Months that do not begin where the one before ends, by series.
const GAPS: &str = "select series || ' ' || first from (
        select i.inhparent::regclass::text as series, m[1]::timestamptz as first, m[2]::timestamptz as last,
               lag(m[2]::timestamptz) over (partition by i.inhparent order by m[1]::timestamptz) as before
        from pg_inherits i join pg_class c on c.oid = i.inhrelid join platform.time_series s on s.name::regclass = i.inhparent
        cross join lateral regexp_match(pg_get_expr(c.relpartbound, c.oid), $$FROM \\('(.*)'\\) TO \\('(.*)'\\)$$) m) x
    where before <> first or first <> date_trunc('month', first, 'UTC') or last <> date_trunc('month', first, 'UTC') + interval '1 month'";

#[sqlx::test(migrations = "../migrations")]
async fn s093_months_go_from_the_first_to_three_ahead(db: PgPool) {
    let gaps = GAPS.replace("\\\\", "\\");
    assert_none(&rows(&db, &gaps).await);
    let sql = "select s.name from platform.time_series s where not (
        to_regclass(platform.month_table(s.name, '2026-01-01')) is not null
        and to_regclass(platform.month_table(s.name, (date_trunc('month', now() at time zone 'UTC') + interval '3 months')::date)) is not null)";
    assert_none(&rows(&db, sql).await);
    let sql = "select c.oid::regclass::text from pg_class c where relkind = 'p' and relnamespace::regnamespace::text in $schemas
        and c.oid::regclass::text not in (select name from platform.time_series)";
    assert_none(&rows(&db, sql).await);
    // No default partition: once it held a row, that row's month could not be made. The engine moves such rows.
    let sql = "select p.partrelid::regclass::text from pg_partitioned_table p join pg_class c on c.oid = p.partrelid
        where p.partdefid <> 0 and c.relnamespace::regnamespace::text in $schemas";
    assert_none(&rows(&db, sql).await);
}

#[sqlx::test(migrations = "../migrations")]
async fn months_are_those_of_utc_whatever_the_session_says(db: PgPool) {
    let tehran = format!("{}_tehran", super::files::unique(&db).await);
    run(&mut db.acquire().await.unwrap(), &format!("create database {tehran} template template0")).await;
    let options = (*db.connect_options()).clone().database(&tehran).options([("timezone", "Asia/Tehran")]);
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    super::files::migrate(&pool).await;
    let utc = PgPoolOptions::new()
        .connect_with((*db.connect_options()).clone().database(&tehran).options([("timezone", "UTC")]))
        .await
        .unwrap();
    let ours = PgPoolOptions::new()
        .connect_with((*db.connect_options()).clone().options([("timezone", "UTC")]))
        .await
        .unwrap();
    assert_eq!(rows(&utc, BOUNDS).await, rows(&ours, BOUNDS).await);
    pool.close().await;
    utc.close().await;
    ours.close().await;
    run(&mut db.acquire().await.unwrap(), &format!("drop database {tehran} with (force)")).await;
}

/// A row for each series, of the moment `$at`.
const INTO_EACH: &str = "set session_replication_role = replica;
    insert into render.node_health_logs (recorded_at, node_id, epoch) values ($at, gen_random_uuid(), 1);
    insert into identity.tenant_api_request_logs (at, tenant_id, method, route, status, latency_us, bytes_in, bytes_out, request_id)
        values ($at, gen_random_uuid(), 'GET', '/', 200, 1, 1, 1, 'r');
    insert into identity.tenant_webhook_deliveries (occurred_at, tenant_id, webhook_id, event_id)
        values ($at, gen_random_uuid(), gen_random_uuid(), gen_random_uuid());
    insert into identity.audit_log (at, tenant_id, seq, actor, action, object, chain_hash)
        values ($at, gen_random_uuid(), 1, 'cron', 'nothing', 'nothing', sha256(''));
    insert into notification.notification_deliveries (created_at, id, tenant_id, notification_id, channel, idempotency_key)
        values ($at, gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'email', gen_random_uuid()::text);
    set session_replication_role = origin";

/// Two years pass, a month at a time: there is always room for three months, and nothing is kept for ever.
#[sqlx::test(migrations = "../migrations")]
async fn s094_two_years_pass(db: PgPool) {
    let gaps = GAPS.replace("\\\\", "\\");
    for month in 0..24 {
        // Not the end of a month: a week later is still the same one.
        let at = format!("(date_trunc('month', now()) + interval '{month} months 5 days')");
        let mut connection = db.acquire().await.unwrap();
        run(&mut connection, &format!("select platform.ensure_months({at}); select platform.retire_months({at}); select platform.retire_months({at} + interval '8 days')")).await;
        drop(connection);
        assert_none(&rows(&db, &gaps).await);
        for ahead in 0..=3 {
            // What a row names is none of this test's business, so nobody looks after it.
            let insert = INTO_EACH.replace("$at", &format!("({at} + interval '{ahead} months')"));
            run(&mut db.acquire().await.unwrap(), &insert).await;
        }
    }
    let sql = "select s.name || ' ' || count(*) from platform.time_series s join pg_inherits i on i.inhparent = s.name::regclass group by s.name, s.keep_months
        having count(*) > s.keep_months + 5 and s.keep_months < 24";
    assert_none(&rows(&db, sql).await);
    assert_none(&rows(&db, "select name from platform.retired_months where dropped_at is null").await);
    let sql = "select relname::text from pg_class where relkind = 'r' and relname ~ '^node_health_logs_' and not relispartition";
    assert_none(&rows(&db, sql).await);
    let sql = "select s.name from platform.time_series s where s.name not in (
        'render.node_health_logs', 'identity.tenant_api_request_logs', 'identity.tenant_webhook_deliveries', 'identity.audit_log',
        'notification.notification_deliveries')";
    assert_none(&rows(&db, sql).await);
    let again = "select platform.ensure_months(date_trunc('month', now()) + interval '23 months 5 days')::text";
    assert_eq!(rows(&db, again).await, ["0"], "doing it again changes nothing");
}

#[sqlx::test(migrations = "../migrations")]
async fn of_eight_who_make_a_month_one_does(db: PgPool) {
    let pool = PgPoolOptions::new().max_connections(8).connect_with((*db.connect_options()).clone()).await.unwrap();
    let make = (0..8).map(|_| async {
        let sql = "select platform.ensure_month('render.node_health_logs', '2031-05-15Z')";
        sqlx::query_scalar::<_, bool>(sql).fetch_one(&pool).await.unwrap()
    });
    let made = futures::future::join_all(make).await;
    assert_eq!(made.iter().filter(|made| **made).count(), 1);
    pool.close().await;
}

/// A writer whose month is missing has it made, with the rights of its service, and writes.
#[sqlx::test(migrations = "../migrations")]
async fn a_missing_month_is_made_by_its_writer(db: PgPool) {
    use flatrender_workflows::models::time_series::{Series, write};
    let mut tx = db.begin().await.unwrap();
    run(&mut tx, "set local role render_svc").await;
    let at = "2031-07-31T23:59:59Z".parse().unwrap();
    let insert = "insert into render.node_health_logs (recorded_at, node_id, epoch) values ($1, gen_random_uuid(), 1)";
    let done = write(&mut tx, Series::NodeHealthLogs, at, async |db| {
        sqlx::query(AssertSqlSafe(insert)).bind(at).execute(db).await
    });
    assert_eq!(done.await.unwrap().rows_affected(), 1);
    tx.commit().await.unwrap();
    let sql = "select tableoid::regclass::text from render.node_health_logs";
    assert_eq!(rows(&db, sql).await, ["render.node_health_logs_2031_07"]);
}

#[sqlx::test(migrations = "../migrations")]
async fn only_a_time_series_gets_months_and_only_of_this_age(db: PgPool) {
    let mut db = db.acquire().await.unwrap();
    run(&mut db, "set role render_svc").await;
    assert_eq!(attempt(&mut db, "select platform.ensure_month('identity.users', now())").await, Err("42P01".into()));
    assert_eq!(
        attempt(&mut db, "select platform.ensure_month('render.node_health_logs', '2999-01-01Z')").await,
        Err("23514".into())
    );
    assert_eq!(attempt(&mut db, "select platform.retire_months()").await, Err("42501".into()));
    // A month is not reached past its series.
    assert_eq!(attempt(&mut db, "select from render.node_health_logs_2026_01").await, Err("42501".into()));
}
