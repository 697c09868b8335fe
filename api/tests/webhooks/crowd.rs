//! A hundred thousand webhooks, or as many as `WEBHOOKS` says, to a thousand receivers, a few of which are dead or slow. See
//! `scripts/webhooks-bench.sh`.

use crate::kit::Shop;
use axum::{Router, body::Bytes, extract::State, http::Uri};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgPool;
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::net::TcpListener;
use uuid::Uuid;

/// Webhooks a tenant has.
const PER_TENANT: usize = 20;
/// How long a slow receiver takes: longer than is fast.
const SLOW: Duration = Duration::from_secs(8);
/// Within how many seconds of what happened 99 of 100 healthy receivers hear of it.
const SOON: f64 = 1.0;

fn setting(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

/// How many seconds after they happened healthy receivers heard of things.
type Heard = Arc<Mutex<Vec<f64>>>;

async fn hear(State(heard): State<Heard>, uri: Uri, body: Bytes) {
    if uri.path().starts_with("/slow/") {
        return tokio::time::sleep(SLOW).await;
    }
    let told: Value = serde_json::from_slice(&body).unwrap();
    let occurred: DateTime<Utc> = told["timestamp"].as_str().unwrap().parse().unwrap();
    heard.lock().unwrap().push((Utc::now() - occurred).as_seconds_f64());
}

/// A tenant with webhooks 0 to 19 of `first` on; each knows its number by its path.
async fn tenant(shop: &Shop, first: usize, url: impl Fn(usize) -> String) -> Uuid {
    let id = shop.world.tenant(&format!("t{first}")).await;
    for n in first..first + PER_TENANT {
        let hook = Uuid::now_v7();
        let sealed = shop.world.app.vault.seal(&format!("webhook:{hook}"), b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let sql =
            "insert into identity.tenant_webhooks (id, tenant_id, url, event_types, secret_enc, created_at, updated_at)
                   values ($1, $2, $3, '{*}', $4, workflow.now(), workflow.now())";
        sqlx::query(sql).bind(hook).bind(id).bind(url(n)).bind(sealed).execute(shop.db()).await.unwrap();
    }
    id
}

#[sqlx::test(migrations = "../migrations")]
#[ignore = "a measurement: scripts/webhooks-bench.sh"]
async fn healthy_receivers_hear_within_a_second_of_what_happens(db: PgPool) {
    let (webhooks, endpoints) = (setting("WEBHOOKS", 100_000), setting("ENDPOINTS", 1000));
    let rate = setting("RATE", 100);
    assert!(webhooks > 0 && webhooks.is_multiple_of(endpoints), "each endpoint hears of as much");
    let shop = Shop::new(db).await;
    let (heard, listener) = (Heard::default(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let receiver = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().fallback(hear).with_state(heard.clone());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    // Of each hundred one is slow, and one is dead: every other of these hangs, the rest are closed.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hangs = format!("http://{}", silent.local_addr().unwrap());
    let url = |n: usize| match n % 100 {
        7 => format!("{receiver}/slow/{n}"),
        57 if n % 200 < 100 => format!("{hangs}/dead/{n}"),
        57 => format!("http://127.0.0.1:9/dead/{n}"),
        _ => format!("{receiver}/healthy/{n}"),
    };
    let mut tenants = vec![];
    for first in (0..endpoints).step_by(PER_TENANT) {
        tenants.push(tenant(&shop, first, url).await);
    }
    let healthy = (0..endpoints).filter(|n| url(*n).contains("/healthy/")).count();
    shop.world.work();
    tokio::time::sleep(Duration::from_secs(2)).await;

    let (began, events) = (Instant::now(), webhooks / PER_TENANT);
    let pause = Duration::from_secs_f64(PER_TENANT as f64 / rate as f64);
    let mut clock = tokio::time::interval(pause);
    for n in 0..events {
        clock.tick().await;
        shop.happens_to("render.completed", Uuid::now_v7(), tenants[n % tenants.len()]).await;
    }
    let told = began.elapsed();
    let expected = healthy * webhooks / endpoints;
    let patience = Instant::now() + Duration::from_secs(600);
    while heard.lock().unwrap().len() < expected && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let done = began.elapsed();
    let mut late = heard.lock().unwrap().clone();
    late.sort_by(f64::total_cmp);
    let part = |p: f64| late[((late.len() as f64 * p) as usize).min(late.len() - 1)];
    println!(
        "{webhooks} webhooks to {endpoints} endpoints at {rate} a second: told in {:.1} s, {} of {expected} healthy ones received in {:.1} s; \
         from event to receiver p50 {:.3} s, p95 {:.3} s, p99 {:.3} s, most {:.3} s",
        told.as_secs_f64(),
        late.len(),
        done.as_secs_f64(),
        part(0.5),
        part(0.95),
        part(0.99),
        part(1.0)
    );
    assert_eq!(late.len(), expected, "each once");
    assert!(part(0.99) < SOON, "99 of 100 healthy receivers heard within {:.3} s", part(0.99));
}
