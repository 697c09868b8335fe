//! That an event reaches whoever listens: signed, once, and with the patience that was agreed.

use crate::kit::{PATIENCE, Receiver, Shop, said};
use axum::http::{Method, StatusCode};
use chrono::{DateTime, Utc};
use flatrender_engine::client::RunState;
use flatrender_workflows::{
    definitions::events::{self, Event},
    models::{DEFAULT_TENANT, Role, Scope},
};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
    time::Duration,
};
use uuid::Uuid;

#[sqlx::test(migrations = "../migrations")]
async fn a_film_that_ends_is_told_to_whoever_listens(db: PgPool) {
    let shop = Shop::new(db).await;
    let receiver = Receiver::answering(&[]).await;
    let all = shop.hook(&format!("{}/all", receiver.url), &["*"]).await;
    let some = shop.hook(&format!("{}/some", receiver.url), &["render.cancelled", "render.failed"]).await;
    let other = shop.hook(&format!("{}/other", receiver.url), &["render.completed"]).await;
    let film = shop.world.order().await;
    let answer = shop.world.post(&format!("/v1/renders/{film}/cancel"), json!({})).await;
    assert!(answer.status.is_success(), "{:?}", answer.body);
    let films = shop.world.run_workflows();
    let run = shop.world.run_of(film).await;
    let ended = shop.world.app.workflows.finished(run, Duration::from_secs(30)).await.unwrap().unwrap();
    assert_eq!(ended.state, RunState::Cancelled);
    films.stop().await;
    shop.settle().await;

    assert!(receiver.at("/other").is_empty() && shop.deliveries(&other, "").await.is_empty());
    for (hook, path) in [(&all, "/all"), (&some, "/some")] {
        let [got] = &receiver.at(path)[..] else { panic!("{path}: {:?}", receiver.at(path)) };
        let told = got.json();
        assert_eq!((&told["type"], &told["data"]["id"]), (&json!("render.cancelled"), &json!(film)));
        assert_eq!((&told["data"]["status"], &told["data"]["object"]), (&json!("cancelled"), &json!("render")));
        assert!(told["data"]["version"].is_i64() && got.body.len() < 20_000);
        assert_eq!(
            (got.header("content-type"), got.header("webhook-id")),
            ("application/json", told["id"].as_str().unwrap())
        );
        assert!(got.header("user-agent").starts_with("flatrender/"));
        let sent_at: i64 = got.header("webhook-timestamp").parse().unwrap();
        assert!((Utc::now().timestamp() - sent_at).abs() < 60);
        assert!(got.is_signed_with(&hook.secret));
        let [delivery] = &shop.deliveries(hook, "").await[..] else { panic!("there is one") };
        assert_eq!((&delivery["state"], &delivery["last_status"]), (&json!("delivered"), &json!(200)));
        assert_eq!((&delivery["response_excerpt"], &delivery["event_id"]), (&json!("told"), &told["id"]));
    }
    assert!(!receiver.at("/all")[0].is_signed_with(&some.secret), "each webhook has its own secret");
}

#[sqlx::test(migrations = "../migrations")]
async fn what_is_told_is_there_with_what_it_tells_of_once_or_not_at_all(db: PgPool) {
    let shop = Shop::new(db).await;
    let (workflows, subject) = (&shop.world.app.workflows, Uuid::now_v7());
    let occurred_at = "2026-11-26T10:00:00.123456789Z".parse().unwrap();
    let event = |kind| Event { tenant_id: DEFAULT_TENANT, kind, subject, user_id: None, data: json!({}), occurred_at };
    let counts = async || {
        let rows = [
            "identity.tenant_webhook_events",
            "identity.tenant_webhook_deliveries",
            "workflow.runs where kind = 'webhook'",
        ];
        futures::future::join_all(rows.map(|table| shop.world.count(table))).await
    };
    let mut tx = shop.db().begin().await.unwrap();
    events::happened(workflows, &mut tx, event("payment.paid")).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(counts().await, [0, 0, 0], "nobody listens");

    shop.hook("http://127.0.0.1:9/", &["*"]).await;
    shop.hook("http://127.0.0.1:9/", &["payment.paid", "payment.failed"]).await;
    shop.hook("http://127.0.0.1:9/", &["render.failed"]).await;
    let mut tx = shop.db().begin().await.unwrap();
    events::happened(workflows, &mut tx, event("payment.paid")).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(counts().await, [0, 0, 0], "it has not happened");

    for _ in 0..2 {
        let mut tx = Scope::tenant(Role::Render, DEFAULT_TENANT).begin(shop.db()).await.unwrap();
        events::happened(workflows, &mut tx, event("payment.paid")).await.unwrap();
        events::happened(workflows, &mut tx, event("node.crashed")).await.unwrap();
        let scope = "select current_setting('role') || ' ' || current_setting('app.tenant_id') || ' ' || current_setting('app.platform')";
        let scope: String = sqlx::query_scalar(scope).fetch_one(&mut *tx).await.unwrap();
        assert_eq!(scope, format!("render_svc {DEFAULT_TENANT} off"), "the caller's transaction is where it was");
        tx.commit().await.unwrap();
    }
    assert_eq!(counts().await, [1, 2, 2], "told twice it is there once, and a node is nobody's business");
    let mut tx = shop.db().begin().await.unwrap();
    events::happened(workflows, &mut tx, event("payment.failed")).await.unwrap();
    let role: String = sqlx::query_scalar("select current_setting('role')").fetch_one(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!((role.as_str(), counts().await), ("none", vec![2, 4, 4]));
}

/// Nobody was there to send it for five days: it is tried as often as any other all the same.
#[sqlx::test(migrations = "../migrations")]
async fn an_event_that_waited_for_a_worker_has_all_its_attempts(db: PgPool) {
    let shop = Shop::new(db).await;
    let receiver = Receiver::answering(&[("/late", &[500, 500, 200])]).await;
    let hook = shop.hook(&format!("{}/late", receiver.url), &["*"]).await;
    shop.happens("render.completed").await;
    shop.pass(5.0 * 86_400.0).await;
    shop.settle().await;
    let [delivery] = &shop.deliveries(&hook, "").await[..] else { panic!("there is one") };
    assert_eq!((&delivery["state"], receiver.at("/late").len()), (&json!("delivered"), 3));
}

/// A server below HTTP, for those who do not speak it well.
fn raw(answer: impl Fn(std::net::TcpStream) + Send + Sync + Clone + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let answer = answer.clone();
            // Whoever answers before it was asked is not heard.
            thread::spawn(move || stream.read(&mut [0; 65536]).is_ok_and(|read| read > 0).then(|| answer(stream)));
        }
    });
    format!("http://{address}/raw")
}

/// The planned pauses in seconds.
const PAUSES: [f64; 9] = [5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0];

fn times(delivery: &Value) -> Vec<DateTime<Utc>> {
    delivery["attempts"].as_array().unwrap().iter().map(|a| a["at"].as_str().unwrap().parse().unwrap()).collect()
}

#[sqlx::test(migrations = "../migrations")]
async fn p21_every_receiver_gets_the_patience_that_was_agreed(db: PgPool) {
    let shop = Shop::new(db).await;
    let receiver = Receiver::new(|got, nth| {
        let path = got.path.clone();
        Box::pin(async move {
            let status = |all: &[u16]| all.get(nth - 1).or(all.last()).copied().unwrap();
            let mut answer = match path.as_str() {
                "/204" => said(204),
                "/302" => said(302),
                "/404" => said(404),
                "/410" => said(410),
                "/500" => said(500),
                "/flapping" => said(status(&[503, 200])),
                "/late" => said(status(&[500, 500, 500, 200])),
                "/wait" => said(status(&[429, 200])),
                "/for-ever" => said(status(&[503, 200])),
                "/hangs" => return std::future::pending().await,
                _ => said(200),
            };
            match path.as_str() {
                "/302" => drop(answer.headers_mut().insert("location", "/200".parse().unwrap())),
                "/wait" => drop(answer.headers_mut().insert("retry-after", "7200".parse().unwrap())),
                "/for-ever" => drop(answer.headers_mut().insert("retry-after", "99999999".parse().unwrap())),
                _ => {}
            }
            answer
        })
    })
    .await;
    let endless = raw(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 1073741824\r\n\r\n");
        while stream.write_all(&[b'x'; 65536]).is_ok() {}
    });
    let drips = raw(|mut stream| {
        while stream.write_all(b"H").is_ok() {
            thread::sleep(Duration::from_millis(20))
        }
    });
    let plain = raw(|mut stream| drop(stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n"))).replace("http:", "https:");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let at = |path: &str| format!("{}{path}", receiver.url);
    // What is called, how it ends, after how many attempts, and the last status.
    let table: Vec<(String, &str, usize, Option<u16>)> = vec![
        (at("/200"), "delivered", 1, Some(200)),
        (at("/204"), "delivered", 1, Some(204)),
        (at("/302"), "failed", 10, Some(302)),
        (at("/404"), "failed", 10, Some(404)),
        (at("/410"), "failed", 1, Some(410)),
        (at("/500"), "failed", 10, Some(500)),
        (at("/flapping"), "delivered", 2, Some(200)),
        (at("/late"), "delivered", 4, Some(200)),
        (at("/wait"), "delivered", 2, Some(200)),
        (at("/for-ever"), "delivered", 2, Some(200)),
        (at("/hangs"), "failed", 10, None),
        (endless, "delivered", 1, Some(200)),
        (drips, "failed", 10, None),
        (plain, "failed", 10, None),
        (format!("http://{closed}/"), "failed", 10, None),
        ("http://nobody.invalid/".to_owned(), "failed", 10, None),
    ];
    let mut hooks = vec![];
    for (url, ..) in &table {
        hooks.push(shop.hook(url, &["render.completed"]).await);
    }
    shop.happens("render.completed").await;
    shop.settle().await;

    let mut silent = vec![];
    for (hook, (url, state, attempts, status)) in hooks.iter().zip(&table) {
        let [delivery] = &shop.deliveries(hook, "").await[..] else { panic!("{url}: there is one") };
        let seen = (delivery["state"].as_str().unwrap(), delivery["attempts"].as_array().unwrap().len());
        assert_eq!((seen, &delivery["last_status"]), ((*state, *attempts), &json!(status)), "{url}: {delivery}");
        let times = times(delivery);
        for (n, two) in times.windows(2).enumerate() {
            let (gap, planned) = ((two[1] - two[0]).as_seconds_f64(), PAUSES[n]);
            let (least, most) = match url.rsplit_once('/').unwrap().1 {
                "wait" => (7200.0, 7200.0),
                "for-ever" => (86_400.0, 86_400.0),
                _ => (0.8 * planned, 1.2 * planned),
            };
            // The attempt itself takes its time, and so does noticing that its time has come.
            let slack = 30.0 + PATIENCE.as_secs_f64();
            assert!((least - 1.0..=most + slack).contains(&gap), "{url}: pause {n} took {gap} s instead of {planned}");
        }
        if status.is_none() {
            silent.push((
                delivery["last_error"].clone(),
                delivery["response_excerpt"].clone(),
                delivery["attempts"][0]["latency_ms"].clone(),
            ));
        }
    }
    let alike = (json!("webhook.no_answer"), Value::Null, Value::Null);
    assert!(
        silent.len() == 5 && silent.iter().all(|one| *one == alike),
        "nobody learns which port is closed: {silent:?}"
    );
    let gone = shop.view(&hooks[4]).await;
    assert_eq!((&gone["state"], gone["disabled_reason"].is_string()), (&json!("disabled"), true));
    let [delivery] = &shop.deliveries(&hooks[11], "").await[..] else { panic!("there is one") };
    assert_eq!(delivery["response_excerpt"].as_str().unwrap(), "x".repeat(4096));
    // Every attempt has the same id, and a signature of its own time.
    let tries = receiver.at("/500");
    assert!(tries.len() == 10 && tries.iter().all(|t| t.is_signed_with(&hooks[5].secret)));
    assert!(tries.iter().all(|t| t.header("webhook-id") == tries[0].header("webhook-id") && t.body == tries[0].body));
}

/// Whoever asks for a day's rest each time is tried for as long as anybody is, and not for nine days.
#[sqlx::test(migrations = "../migrations")]
async fn a_receiver_that_always_asks_for_another_day_is_given_up_in_time(db: PgPool) {
    let shop = Shop::new(db).await;
    let receiver = Receiver::new(|_, _| {
        Box::pin(async move {
            let mut answer = said(503);
            answer.headers_mut().insert("retry-after", "86400".parse().unwrap());
            answer
        })
    })
    .await;
    let hook = shop.hook(&receiver.url, &["render.completed"]).await;
    shop.happens("render.completed").await;
    shop.settle().await;
    let [delivery] = &shop.deliveries(&hook, "").await[..] else { panic!("there is one") };
    let times = times(delivery);
    assert_eq!((delivery["state"].as_str(), times.len()), (Some("failed"), 5), "{delivery}");
    let took = *times.last().unwrap() - times[0];
    assert!(took.num_hours() <= 91 && took.num_hours() >= 90, "{took}");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_delivery_survives_a_crash_after_every_event(db: PgPool) {
    let shop = Shop::new(db).await;
    let receiver = Receiver::answering(&[("/a", &[500, 503, 200]), ("/b", &[200]), ("/c", &[400])]).await;
    let mut hooks = vec![];
    for path in ["/a", "/b", "/c"] {
        hooks.push(shop.hook(&format!("{}{path}", receiver.url), &["*"]).await);
    }
    shop.happens("render.completed").await;
    shop.happens("gift.earned").await;
    shop.settle_with(flatrender_engine::worker::Builder::crash_after_every_event).await;
    for (hook, state, attempts, calls) in
        [(&hooks[0], "delivered", [3, 1], 4), (&hooks[1], "delivered", [1, 1], 2), (&hooks[2], "failed", [10, 10], 20)]
    {
        let deliveries = shop.deliveries(hook, "").await;
        let mut tried: Vec<usize> = deliveries.iter().map(|d| d["attempts"].as_array().unwrap().len()).collect();
        tried.sort_by_key(|n| std::cmp::Reverse(*n));
        // Which of the two events meets which of the first answers is chance.
        assert_eq!((deliveries.len(), tried.iter().sum::<usize>()), (2, calls), "{hook:?} {tried:?} {attempts:?}");
        assert!(deliveries.iter().all(|d| d["state"] == state), "{deliveries:?}");
    }
    assert_eq!(receiver.at("/b").len(), 2, "what was recorded was not sent again");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_delivery_settles_when_its_call_fails_for_good(db: PgPool) {
    let shop = Shop::new(db).await;
    let receiver = Receiver::answering(&[]).await;
    let hook = shop.hook(&format!("{}/a", receiver.url), &["*"]).await;
    shop.happens("render.completed").await;
    shop.settle_with(|worker| worker.fail_activity("call 1")).await;
    let [delivery] = &shop.deliveries(&hook, "").await[..] else { panic!("there is one") };
    assert_eq!((&delivery["state"], &delivery["attempts"][0]["error"]), (&json!("delivered"), &json!("test.injected")));
    assert_eq!((delivery["attempts"].as_array().unwrap().len(), receiver.at("/a").len()), (2, 1));
}

#[sqlx::test(migrations = "../migrations")]
async fn what_waits_for_a_webhook_that_is_removed_is_dropped(db: PgPool) {
    let shop = Shop::new(db).await;
    let receiver = Receiver::answering(&[("/a", &[500])]).await;
    let hook = shop.hook(&format!("{}/a", receiver.url), &["*"]).await;
    for _ in 0..3 {
        shop.happens("render.completed").await;
    }
    let gone = shop.send(Method::DELETE, &format!("/v1/webhooks/{}", hook.id), json!({})).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    shop.settle().await;
    assert!(receiver.at("/a").is_empty());
    let sql = "select count(*) from workflow.runs where kind = 'webhook' and output = '\"dropped\"'";
    assert_eq!(sqlx::query_scalar::<_, i64>(sql).fetch_one(shop.db()).await.unwrap(), 3);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_delivery_that_an_operator_cancels_has_ended_as_cancelled(db: PgPool) {
    let shop = Shop::new(db).await;
    let receiver = Receiver::answering(&[("/a", &[500])]).await;
    let hook = shop.hook(&format!("{}/a", receiver.url), &["*"]).await;
    shop.happens("render.completed").await;
    let run: Uuid =
        sqlx::query_scalar("select id from workflow.runs where kind = 'webhook'").fetch_one(shop.db()).await.unwrap();
    let mut tx = shop.db().begin().await.unwrap();
    assert!(shop.world.app.workflows.cancel(&mut tx, run, "not wanted").await.unwrap());
    tx.commit().await.unwrap();
    shop.settle().await;
    let [delivery] = &shop.deliveries(&hook, "").await[..] else { panic!("there is one") };
    assert_eq!((&delivery["state"], shop.run_of(delivery).await), (&json!("cancelled"), RunState::Cancelled));
}
