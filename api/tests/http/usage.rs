//! What tenants used, counted from what was written down.

use crate::{
    exports::publish,
    world::{World, request},
};
use axum::{body::Body, http::Method};
use chrono::{Days, NaiveDate, Utc};
use flatrender_engine::{Client, Worker};
use flatrender_workflows::{
    definitions::roll_up_usage::RollUpUsage,
    models::{DEFAULT_TENANT, Role, Scope, identity::usage},
};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::Duration;
use uuid::Uuid;

async fn figures(world: &World, query: &str) -> Vec<String> {
    let (_, key) = world.key_for(DEFAULT_TENANT, &["admin"]).await;
    let request = request(Method::GET, &format!("/v1/usage{query}"), &key).body(Body::empty()).unwrap();
    let usage = world.send(request).await.json();
    let figure = |f: &Value| format!("{} {} {}", f["metric"].as_str().unwrap(), f["quantity"], f["final"]);
    usage["data"].as_array().unwrap().iter().map(figure).collect()
}

async fn count(world: &World, day: NaiveDate) -> u64 {
    let mut tx = Scope::platform(Role::Admin).begin(&world.db).await.unwrap();
    let changed = usage::count(&mut tx, day).await.unwrap();
    tx.commit().await.unwrap();
    changed
}

/// What a run ended with.
async fn output_of(world: &World, run: Uuid) -> Value {
    let read = async || {
        let sql = "select output from workflow.runs where id = $1 and state = 'succeeded'";
        sqlx::query_scalar(sql).bind(run).fetch_optional(&world.db).await.unwrap()
    };
    let ended = async {
        loop {
            if let Some(output) = read().await {
                return output;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("the run succeeds")
}

#[sqlx::test(migrations = "../migrations")]
async fn a_day_is_counted_again_without_change_until_it_is_final(db: PgPool) {
    let world = World::new(db).await;
    let (today, stranger) = (Utc::now().date_naive(), world.stranger().await);
    let render = world.order().await;
    publish(&world, render, b"a film").await;
    world.send(request(Method::GET, "/v1/renders", &stranger).body(Body::empty()).unwrap()).await;
    world.app.request_log.flush(&world.app.db).await.unwrap();
    assert_eq!(count(&world, today).await, 6, "four of the one, two of the other");
    for _ in 0..10 {
        assert_eq!(count(&world, today).await, 0);
    }
    let own = figures(&world, "").await;
    assert_eq!(
        (own[0].as_str(), &own[2..]),
        ("api_calls 1 false", &["exports 1 false", "frames 38 false"].map(str::to_owned)[..])
    );
    world.app.request_log.flush(&world.app.db).await.unwrap();
    assert_eq!(count(&world, today).await, 2, "what came late counts");
    let mut tx = Scope::platform(Role::Admin).begin(&world.db).await.unwrap();
    assert_eq!(usage::close(&mut tx, today).await.unwrap(), 0, "not before its time");
    assert_eq!(usage::close(&mut tx, today + Days::new(1)).await.unwrap(), 6);
    tx.commit().await.unwrap();
    world.app.request_log.flush(&world.app.db).await.unwrap();
    assert_eq!(count(&world, today).await, 0, "what is final stays");
    assert_eq!(figures(&world, "").await[0], "api_calls 2 true");
    assert_eq!(figures(&world, "?to=2026-01-31").await, Vec::<String>::new());
}

#[sqlx::test(migrations = "../migrations")]
async fn days_that_make_no_sense_are_refused(db: PgPool) {
    let world = World::new(db).await;
    let (_, key) = world.key_for(DEFAULT_TENANT, &["admin"]).await;
    for wrong in [
        "from=2026-02-01&to=2026-01-01",
        "from=2025-01-01&to=2026-01-02",
        "from=x",
        "to=-262143-01-01",
        "day=2026-01-01",
    ] {
        let request = request(Method::GET, &format!("/v1/usage?{wrong}"), &key).body(Body::empty()).unwrap();
        assert_eq!(world.send(request).await.problem(), "query.invalid", "{wrong}");
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn the_workflow_counts_the_open_days_and_closes_those_before(db: PgPool) {
    let world = World::new(db).await;
    world.get("/v1/templates").await;
    world.app.request_log.flush(&world.app.db).await.unwrap();
    let worker = Worker::builder(world.db.clone()).workflow::<RollUpUsage>();
    let stopping = world.stopping.child_token();
    let working = tokio::spawn(worker.run(stopping.clone()));
    let client = Client::new(world.db.clone());
    for (days, changed, last) in
        [(0, json!(2), "api_calls 1 false"), (3, json!(0), "api_calls 1 false"), (4, json!(0), "api_calls 1 true")]
    {
        let at = Utc::now() + Days::new(days);
        let mut tx = world.db.begin().await.unwrap();
        let key = format!("after {days}");
        let run = RollUpUsage { at: Some(at) };
        let run = client.start(&mut tx, DEFAULT_TENANT, Some(&key), run).await.unwrap().run_id;
        tx.commit().await.unwrap();
        client.announce();
        let output = output_of(&world, run).await;
        assert_eq!((output, figures(&world, "").await[0].as_str()), (changed, last), "{days} days later");
    }
    stopping.cancel();
    working.await.unwrap().unwrap();
}

#[sqlx::test(migrations = "../migrations")]
async fn a_worker_has_usage_counted_every_hour(db: PgPool) {
    let world = World::new(db).await;
    world.work();
    let scheduled = async {
        while world.count("workflow.schedules where kind = 'roll_up_usage' and cron = '5 * * * *'").await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), scheduled).await.expect("the schedule is made");
}

/// Hours pass with what is kept at their begin; an hour that nobody saw is like the one before it.
#[sqlx::test(migrations = "../migrations")]
async fn what_is_kept_counts_by_the_hour(db: PgPool) {
    let world = World::new(db).await;
    let day = Utc::now().date_naive() - Days::new(1);
    let sql = "insert into identity.storage_samples (tenant_id, hour, bytes) values
        ('00000000-0000-0000-0000-000000000001', $1::date::timestamp at time zone 'UTC' - interval '5 hours', 10),
        ('00000000-0000-0000-0000-000000000001', $1::date::timestamp at time zone 'UTC' + interval '20 hours', 100)";
    sqlx::query(sql).bind(day).execute(&world.db).await.unwrap();
    assert_eq!(count(&world, day).await, 1);
    let figures = figures(&world, &format!("?from={day}&to={day}&metric=storage_byte_hours")).await;
    assert_eq!(figures, ["storage_byte_hours 600 false"], "20 hours of 10 bytes, 4 of 100");
    world.upload("logo.png", crate::world::png([1, 2, 3])).await;
    let mut tx = Scope::platform(Role::Admin).begin(&world.db).await.unwrap();
    assert_eq!(usage::sample(&mut tx).await.unwrap(), 1);
    assert_eq!(usage::sample(&mut tx).await.unwrap(), 0, "once an hour");
    tx.commit().await.unwrap();
}

/// Nobody was there for ten days: all of them are counted before they are closed. What is found out later is a row of its own.
#[sqlx::test(migrations = "../migrations")]
async fn days_that_were_missed_are_counted_before_they_are_final_and_corrected_afterwards(db: PgPool) {
    let world = World::new(db).await;
    let today = Utc::now().date_naive();
    let render = world.order().await;
    publish(&world, render, b"a film").await;
    let sql = "update render.exports set created_at = created_at - interval '8 days'";
    sqlx::query(sql).execute(&world.db).await.unwrap();
    let sql = "insert into identity.tenant_usage_daily (tenant_id, day, metric, quantity, final)
               values ('00000000-0000-0000-0000-000000000001', $1, 'api_calls', 1, true)";
    sqlx::query(sql).bind(today - Days::new(10)).execute(&world.db).await.unwrap();
    let stage = flatrender_engine::testing::Stage::new(world.db.clone(), |worker| worker.workflow::<RollUpUsage>());
    let run = stage.survives_a_crash_after_every_event(RollUpUsage { at: None }).await.unwrap();
    assert_eq!(run.output_as::<u64>(), Some(3), "film and frames of a day that is long over, and what is kept today");
    let day = today - Days::new(8);
    let seen = async || figures(&world, &format!("?from={day}&to={day}")).await;
    assert_eq!(seen().await, ["exports 1 true", "frames 38 true"]);
    let correct = async |metric, delta| {
        let reason = "frames that were black";
        let correction = usage::Correction { tenant_id: DEFAULT_TENANT, day, metric, delta, reason, made_by: "cli" };
        let mut tx = Scope::platform(Role::Admin).begin(&world.db).await.unwrap();
        let corrected = usage::correct(&mut tx, &correction).await.unwrap();
        tx.commit().await.unwrap();
        corrected
    };
    assert!(correct("frames", -8).await);
    assert!(!correct("frames", -31).await, "nobody used less than nothing");
    assert!(!correct("snapshots", 1).await, "there is nothing to correct");
    assert_eq!(seen().await, ["exports 1 true", "frames 30 true"]);
    let changed =
        sqlx::query("update identity.tenant_usage_daily set quantity = 1 where final").execute(&world.db).await;
    assert!(changed.unwrap_err().to_string().contains("is final"));
    let told = flatrender_workflows::models::invariants::check(&world.db, false).await.unwrap();
    let told: Vec<String> = told.into_iter().filter(|b| b.invariant == 25).map(|breach| breach.row).collect();
    assert_eq!(
        told,
        [
            format!("api_calls of {DEFAULT_TENANT} on {}: 1, by its sources 0", today - Days::new(10)),
            format!("frames of {DEFAULT_TENANT} on {day}: 30, by its sources 38")
        ]
    );
}

/// Of a day that is final, by who administers the platform, each by its reason; two at once do not make less than nothing of it.
#[sqlx::test(migrations = "../migrations")]
async fn a_final_day_is_corrected_over_the_api_and_told_as_a_table(db: PgPool) {
    let world = World::new(db).await;
    let admin = world.person(DEFAULT_TENANT, "root@example.com", &["platform_admin"]).await;
    let admin = world.session(DEFAULT_TENANT, admin).await;
    let day = Utc::now().date_naive() - Days::new(10);
    let sql = "insert into identity.tenant_usage_daily (tenant_id, day, metric, quantity, final)
               values ($2, $1, 'frames', 40, true), ($2, $1 + 9, 'frames', 40, false)";
    sqlx::query(sql).bind(day).bind(DEFAULT_TENANT).execute(&world.db).await.unwrap();
    let correct = async |body: Value| {
        let place = format!("/v1/platform/tenants/{DEFAULT_TENANT}/usage-corrections");
        world.send(crate::world::with_json(request(Method::POST, &place, &admin), &body)).await
    };
    let by = |delta: i64| json!({"day": day, "metric": "frames", "delta": delta, "reason": "they were black"});
    let made = correct(by(-8)).await;
    assert_eq!((made.status.as_u16(), &made.json()["delta"]), (201, &json!(-8)), "{:?}", made.body);
    let both = tokio::join!(correct(by(-20)), correct(by(-20)));
    let mut both = [both.0.status.as_u16(), both.1.status.as_u16()];
    both.sort_unstable();
    assert_eq!(both, [201, 409]);
    let open = json!({"day": day + Days::new(9), "metric": "frames", "delta": 1, "reason": "late"});
    assert_eq!(correct(open).await.problem(), "usage.not_correctable");
    for (field, wrong, fault) in [
        ("delta", json!(0), "/delta usage.delta"),
        ("delta", json!(i64::MIN), "/delta usage.delta"),
        ("metric", json!("tea"), "/metric usage.metric"),
        ("reason", json!(" "), "/reason usage.reason"),
    ] {
        let mut body = by(1);
        body[field] = wrong;
        assert_eq!(correct(body).await.faults(), [fault]);
    }
    assert_eq!(world.count("identity.audit_log where action = 'usage.correct'").await, 2);

    let (_, key) = world.key_for(DEFAULT_TENANT, &["admin"]).await;
    let table = async |accept: &str| {
        let path = format!("/v1/usage?from={day}&to={}&metric=frames", day + Days::new(9));
        let asked = request(Method::GET, &path, &key).header("accept", accept).body(Body::empty()).unwrap();
        world.send(asked).await
    };
    let csv = table("text/csv").await;
    let last = day + Days::new(9);
    assert_eq!(csv.body, format!("day,metric,quantity,final\r\n{day},frames,12,true\r\n{last},frames,40,false\r\n"));
    assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8; header=present");
    assert_eq!(csv.header("content-disposition"), format!("attachment; filename=\"usage-{day}-{last}.csv\""));
    for accept in ["*/*", "application/json, text/csv", "application/json", "text/html"] {
        assert_eq!(table(accept).await.json()["totals"]["frames"], 52, "{accept}");
    }
    assert!(table("text/html, TEXT/CSV;q=0.9").await.header("content-type").starts_with("text/csv"));
}

/// Whoever runs the platform sees what any tenant used, with nothing of another's; the tenant's own people look at `/v1/usage`.
#[sqlx::test(migrations = "../migrations")]
async fn the_platform_sees_what_a_tenant_used(db: PgPool) {
    let world = World::new(db).await;
    let (acme, day) = (world.tenant("acme").await, Utc::now().date_naive() - Days::new(10));
    let sql = "insert into identity.tenant_usage_daily (tenant_id, day, metric, quantity, final)
               values ($2, $1, 'frames', 40, true), ($2, $1, 'exports', 1, true), ($3, $1, 'frames', 7, true)";
    sqlx::query(sql).bind(day).bind(acme).bind(DEFAULT_TENANT).execute(&world.db).await.unwrap();
    let admin = world.person(DEFAULT_TENANT, "root@example.com", &["platform_admin"]).await;
    let admin = world.session(DEFAULT_TENANT, admin).await;
    let owner = world.person(acme, "jane@example.com", &["owner"]).await;
    let owner = world.session(acme, owner).await;
    let ask = async |whose: Uuid, rest: &str, by: &str, accept: &str| {
        let path = format!("/v1/platform/tenants/{whose}/usage?from={day}&to={day}{rest}");
        world.send(request(Method::GET, &path, by).header("accept", accept).body(Body::empty()).unwrap()).await
    };
    let used = ask(acme, "", &admin, "application/json").await;
    assert_eq!(used.json()["totals"], json!({"exports": 1, "frames": 40}), "{:?}", used.body);
    let place = format!("/v1/platform/tenants/{acme}/usage-corrections");
    let correction = json!({"day": day, "metric": "frames", "delta": -8, "reason": "they were black"});
    let made = world.send(crate::world::with_json(request(Method::POST, &place, &admin), &correction)).await;
    assert_eq!(made.status.as_u16(), 201, "{:?}", made.body);
    let table = ask(acme, "&metric=frames", &admin, "text/csv").await;
    assert_eq!(table.body, format!("day,metric,quantity,final\r\n{day},frames,32,true\r\n"));
    assert_eq!(ask(acme, "&metric=tea", &admin, "*/*").await.problem(), "query.invalid");
    assert_eq!(ask(Uuid::now_v7(), "", &admin, "*/*").await.problem(), "tenant.not_found");
    assert_eq!(ask(acme, "", &owner, "*/*").await.problem(), "auth.forbidden");
}

/// What was counted and is found no more by the end was nothing.
#[sqlx::test(migrations = "../migrations")]
async fn a_figure_whose_source_has_gone_is_nothing(db: PgPool) {
    let world = World::new(db).await;
    let day = Utc::now().date_naive() - Days::new(1);
    let sql = "insert into identity.tenant_usage_daily (tenant_id, day, metric, quantity)
               values ('00000000-0000-0000-0000-000000000001', $1, 'notifications_email', 3)";
    sqlx::query(sql).bind(day).execute(&world.db).await.unwrap();
    assert_eq!((count(&world, day).await, count(&world, day).await), (1, 0));
    let seen = figures(&world, &format!("?from={day}&to={day}")).await;
    assert_eq!(seen, ["notifications_email 0 false"]);
}
