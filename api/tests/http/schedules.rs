//! The schedules of the platform, as operators see and steer them, and as several processes keep them.

use crate::{
    crashes::later,
    world::{World, request, with_json},
};
use axum::{
    body::Body,
    http::{Method, StatusCode},
};
use flatrender_engine::{Client, Worker, schedules::Schedules};
use flatrender_workflows::{
    definitions::{forget_old::ForgetOld, keep_months::KeepMonths, roll_up_usage::RollUpUsage, schedules},
    models::{DEFAULT_TENANT, invariants},
};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::Duration;

async fn ensure(world: &World) {
    let mut tx = world.db.begin().await.unwrap();
    for terms in schedules::all(true).unwrap() {
        Schedules::new(Client::new(world.db.clone())).ensure(&mut tx, DEFAULT_TENANT, &terms).await.unwrap();
    }
    tx.commit().await.unwrap();
}

struct Operator<'w> {
    world: &'w World,
    token: String,
}

impl<'w> Operator<'w> {
    async fn new(world: &'w World) -> Self {
        let id = world.person(DEFAULT_TENANT, "root@example.com", &["platform_admin"]).await;
        Self { world, token: world.session(DEFAULT_TENANT, id).await }
    }

    async fn get(&self, path: &str) -> Value {
        let path = format!("/v1/platform/schedules{path}");
        let answer = self.world.send(request(Method::GET, &path, &self.token).body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        answer.json()
    }

    async fn act(&self, id: &str, action: &str) -> Value {
        let path = format!("/v1/platform/schedules/{id}/actions");
        let answer =
            self.world.send(with_json(request(Method::POST, &path, &self.token), &json!({"action": action}))).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        answer.json()
    }

    async fn named(&self, name: &str) -> String {
        let all = self.get("?limit=100").await;
        let all = all["data"].as_array().unwrap();
        all.iter().find(|s| s["name"] == name).expect("it is there")["id"].as_str().unwrap().to_owned()
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn operators_see_what_runs_when_and_steer_it(db: PgPool) {
    let world = World::new(db).await;
    ensure(&world).await;
    ensure(&world).await;
    let operator = Operator::new(&world).await;
    let all = operator.get("?limit=100").await;
    assert_eq!(all["data"].as_array().unwrap().len(), schedules::all(true).unwrap().len(), "twice the same is once");
    let first = operator.get("?limit=2").await;
    let rest = operator.get(&format!("?limit=100&starting_after={}", first["next_cursor"].as_str().unwrap())).await;
    assert_eq!(rest["data"].as_array().unwrap().len() + 2, all["data"].as_array().unwrap().len());
    let id = operator.named("ensure_partitions").await;
    let schedule = operator.get(&format!("/{id}")).await;
    assert_eq!((&schedule["cron"], &schedule["catch_up"]), (&json!("10 0 * * *"), &json!("one")));
    let next = schedule["next"].as_array().unwrap();
    assert!(next.len() == 5 && next.iter().all(|at| at.as_str().unwrap().ends_with("T00:10:00+00:00")), "{next:?}");
    assert_eq!(schedule["fires"], json!([]));

    let worker = Worker::builder(world.db.clone()).workflow::<KeepMonths>().build();
    let stop = world.stopping.child_token();
    tokio::spawn(async move { worker.run(stop).await.unwrap() });
    operator.act(&id, "run").await;
    let ended = async {
        loop {
            let fire = operator.get(&format!("/{id}")).await["fires"][0].clone();
            if fire["run_state"] == "succeeded" {
                return fire;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let fire = tokio::time::timeout(Duration::from_secs(20), ended).await.expect("the run succeeds");
    assert_eq!((&fire["decision"], &fire["output"]), (&json!("manual"), &json!(0)), "every month was there");

    let paused = operator.act(&id, "pause").await;
    assert!(paused["paused_at"].is_string() && paused["next_at"].is_null());
    operator.act(&id, "pause").await;
    assert!(operator.act(&id, "resume").await["next_at"].is_string());
    let written = "select action from identity.audit_log where action like 'schedule.%' order by seq";
    let written: Vec<String> = sqlx::query_scalar(written).fetch_all(&world.db).await.unwrap();
    assert_eq!(
        written,
        ["schedule.run", "schedule.pause", "schedule.resume"],
        "what changes nothing is not written down"
    );
}

/// How often each schedule has started a run, by name.
async fn started(world: &World, name: &str) -> i64 {
    let sql = "select count(*) from workflow.schedule_fires f join workflow.schedules s on s.id = f.schedule_id
               where s.name = $1 and f.decision = 'started'";
    sqlx::query_scalar(sql).bind(name).fetch_one(&world.db).await.unwrap()
}

/// Two processes look at the schedules at once, after three hours in which nobody did, and again when the clock was set back.
#[sqlx::test(migrations = "../migrations")]
async fn p22_two_processes_an_outage_and_a_clock_set_back(db: PgPool) {
    let world = World::new(db).await;
    ensure(&world).await;
    let both = async || {
        let look = async || Schedules::new(Client::new(world.db.clone())).fire_due().await.unwrap();
        futures::future::join_all([look(), look(), look()]).await
    };
    later(&world, Duration::from_secs(3 * 3600)).await;
    both().await;
    assert_eq!(started(&world, "usage_hourly").await, 3, "each of the hours");
    assert_eq!(started(&world, "auth_purge").await, 1, "one for all of them");
    assert_eq!(started(&world, "deletion_drain").await, 1, "only the minute that is now");
    let fires = world.count("workflow.schedule_fires where decision = 'started'").await;
    assert_eq!(world.count("workflow.runs").await, fires, "a run for each");
    sqlx::query("update workflow.clock set moved_by = moved_by - interval '1 hour'").execute(&world.db).await.unwrap();
    both().await;
    assert_eq!(world.count("workflow.schedule_fires where decision = 'started'").await, fires, "no time comes twice");
    later(&world, Duration::from_secs(3600)).await;
    let breaches = invariants::check(&world.db, false).await.unwrap();
    assert!(breaches.iter().all(|b| b.invariant != 16), "{breaches:?}");
    // Those who do the work find each run once.
    let worker = Worker::builder(world.db.clone()).workflow::<RollUpUsage>().workflow::<ForgetOld>().build();
    let stop = world.stopping.child_token();
    tokio::spawn(async move { worker.run(stop).await.unwrap() });
    let ended = async {
        while world.count("workflow.runs where state = 'succeeded'").await < 4 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ended).await.expect("they succeed");
}
