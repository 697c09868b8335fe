//! How long it takes to tell many: `scripts/notifications.sh bench`.

use crate::stage::Stage;
use flatrender_workflows::{contracts::notify::Channel, models::notification::audience::Audience};
use serde_json::json;
use sqlx::{PgPool, postgres::PgPoolOptions};
use std::time::{Duration, Instant};

/// People who are each told by three channels: the list, their browser, their e-mail. Everybody has a server of their own process: fakes of
/// ours, on this machine.
#[sqlx::test(migrations = "../migrations")]
#[ignore = "takes minutes: scripts/notifications.sh bench"]
async fn many_are_told_over_three_channels(db: PgPool) {
    let many: i32 = std::env::var("FLATRENDER_BENCH_NOTIFICATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    // As many connections as a worker has; a test has but a few.
    let pool = PgPoolOptions::new().max_connections(50).acquire_timeout(Duration::from_secs(120));
    let stage = Stage::new(pool.connect_with((*db.connect_options()).clone()).await.unwrap()).await;
    let key = stage.vapid().await;
    stage.account("smtp", Channel::Email, json!({"url": stage.mail.url, "from": "news@acme.example"})).await;
    let one = stage.world.person(flatrender_workflows::models::DEFAULT_TENANT, "one@example.com", &[]).await;
    stage.with_browser(one, "push/0", &key).await;
    let people = "insert into identity.users (tenant_id, email, email_verified_at, status)
                  select '00000000-0000-0000-0000-000000000001', 'u' || n || '@example.com', now(), 'active' from generate_series(2, $1) n";
    sqlx::query(people).bind(many).execute(&stage.world.db).await.unwrap();
    // Each has the keys of the first: what is sealed for one browser opens for that id alone, so every id is sealed anew.
    let browsers: Vec<uuid::Uuid> = sqlx::query_scalar("select id from identity.users where id <> $1")
        .bind(one)
        .fetch_all(&stage.world.db)
        .await
        .unwrap();
    let ids: Vec<uuid::Uuid> = browsers.iter().map(|_| uuid::Uuid::now_v7()).collect();
    let place = flatrender_workflows::models::notification::address::auth_place;
    let sealed: Vec<Vec<u8>> = ids.iter().map(|id| stage.world.app.vault.seal(&place(*id), &[7; 16])).collect();
    let copy = "insert into identity.push_subscriptions (id, tenant_id, user_id, endpoint, p256dh, auth_enc, vapid_key)
                select n.id, s.tenant_id, n.user_id, s.endpoint || '/' || n.id, s.p256dh, n.auth, s.vapid_key
                from identity.push_subscriptions s, unnest($1::uuid[], $2::uuid[], $3::bytea[]) n (id, user_id, auth) where s.user_id = $4";
    sqlx::query(copy).bind(&ids).bind(&browsers).bind(&sealed).bind(one).execute(&stage.world.db).await.unwrap();
    sqlx::raw_sql("analyze").execute(&stage.world.db).await.unwrap();
    let before = cost(&stage.world.db).await;
    let event = json!({"subject": "Soon", "text": "We move on Monday."});
    let began = Instant::now();
    stage.happens("announcement", Audience::Everyone, event).await;
    stage.play_for(Duration::from_secs(3600)).await;
    let took = began.elapsed();
    let after = cost(&stage.world.db).await;
    let sent: i64 = sqlx::query_scalar(
        "select count(*) from notification.notification_deliveries where state in ('sent', 'delivered')",
    )
    .fetch_one(&stage.world.db)
    .await
    .unwrap();
    assert_eq!(sent, 3 * i64::from(many));
    assert_eq!(stage.mail.mails().len(), many as usize);
    assert_eq!(stage.web.accepted().len(), many as usize);
    let rate = f64::from(many) / took.as_secs_f64();
    println!(
        "{many} people over three channels: {:.1} s, {rate:.0} people a second, {:.0} deliveries a second",
        took.as_secs_f64(),
        3.0 * rate
    );
    println!("100,000 at that rate: {:.0} s", 100_000.0 / rate);
    println!("memory of this process with the fakes at most: {} MiB", peak_mib());
    let each = |n: i64| n as f64 / f64::from(many);
    println!(
        "database, a person: {:.1} transactions, {:.1} rows written, {:.1} KiB kept",
        each(after.0 - before.0),
        each(after.1 - before.1),
        each(after.2 - before.2) / 1024.0
    );
}

/// Transactions, rows written, bytes kept.
async fn cost(db: &PgPool) -> (i64, i64, i64) {
    sqlx::query("select pg_stat_force_next_flush()").execute(db).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    sqlx::query_as(
        "select xact_commit, tup_inserted + tup_updated + tup_deleted, pg_database_size(datname) from pg_stat_database where datname = current_database()",
    )
    .fetch_one(db)
    .await
    .unwrap()
}

/// `VmHWM` of this process.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()).unwrap_or(0) / 1024
}
