//! That nobody waits for somebody else's receiver.

use crate::{
    kit::{PATIENCE, Receiver, Shop, said},
    pauses::until,
};
use axum::http::Method;
use flatrender_engine::{
    Client,
    operations::{By, Operations, Terms},
};
use flatrender_workflows::contracts::webhook::{SLOW_WEBHOOK_QUEUE, WEBHOOK_QUEUE};
use serde_json::json;
use sqlx::PgPool;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

/// The terms that a worker sets when it begins.
async fn agree(shop: &Shop) {
    let operations = Operations::new(Client::new(shop.db().clone()));
    for queue in [WEBHOOK_QUEUE, SLOW_WEBHOOK_QUEUE] {
        let mut tx = shop.db().begin().await.unwrap();
        let terms = Terms { key_cap: Some(1), ..Terms::default() };
        operations.set_terms(&mut tx, &By::new("test"), queue, &terms).await.unwrap();
        tx.commit().await.unwrap();
    }
}

/// How many calls each path has at a time, and what was the most.
type Counts = Arc<Mutex<HashMap<String, (usize, usize)>>>;

/// A call; it has ended when this is dropped, also when whoever called has given up.
struct Call(Counts, String);

impl Call {
    fn begin(counts: Counts, path: String) -> Self {
        {
            let mut counts = counts.lock().unwrap();
            let (now, most) = counts.entry(path.clone()).or_default();
            *now += 1;
            *most = (*most).max(*now);
        }
        Self(counts, path)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.lock().unwrap().entry(self.1.clone()).or_default().0 -= 1;
    }
}

/// A receiver that counts.
async fn counting(answer: impl Fn(&str, usize) -> (Duration, u16) + Send + Sync + 'static) -> (Receiver, Counts) {
    let counts = Counts::default();
    let counted = counts.clone();
    let receiver = Receiver::new(move |got, nth| {
        let (pause, status) = answer(&got.path, nth);
        let call = Call::begin(counted.clone(), got.path.clone());
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            drop(call);
            said(status)
        })
    })
    .await;
    (receiver, counts)
}

#[sqlx::test(migrations = "../migrations")]
async fn a_webhook_gets_as_many_calls_at_a_time_as_it_may_and_half_of_them_when_it_has_too_much(db: PgPool) {
    let shop = Shop::new(db).await;
    agree(&shop).await;
    let (receiver, counts) = counting(|path, nth| match (path, nth) {
        ("/full", 1) => (Duration::ZERO, 429),
        _ => (Duration::from_millis(60), 200),
    })
    .await;
    let free = shop.hook(&format!("{}/free", receiver.url), &["render.completed"]).await;
    let full = shop.hook(&format!("{}/full", receiver.url), &["render.failed"]).await;
    for _ in 0..40 {
        shop.happens("render.completed").await;
    }
    shop.happens("render.failed").await;
    shop.work();
    until(&shop, &full, "&state=pending", 1, 1).await;
    for _ in 0..40 {
        shop.happens("render.failed").await;
    }
    until(&shop, &free, "&state=delivered", 40, 1).await;
    until(&shop, &full, "&state=delivered", 41, 1).await;
    let most = |path: &str| counts.lock().unwrap()[path].1;
    assert_eq!(most("/free"), 4, "what one may get at a time, and it gets it");
    assert_eq!(most("/full"), 2, "half of it after 429");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_webhook_that_hangs_keeps_nobody_from_theirs(db: PgPool) {
    let shop = Shop::new(db).await;
    agree(&shop).await;
    let (receiver, counts) = counting(|path, _| match path {
        "/hangs" => (Duration::from_secs(3600), 200),
        _ => (Duration::ZERO, 200),
    })
    .await;
    let hangs = shop.hook(&format!("{}/hangs", receiver.url), &["render.completed"]).await;
    let fast = shop.hook(&format!("{}/fast", receiver.url), &["render.completed"]).await;
    for _ in 0..60 {
        shop.happens("render.completed").await;
    }
    shop.work();
    until(&shop, &fast, "&state=delivered", 60, 1).await;
    let told = shop.deliveries(&fast, "").await;
    assert!(told.iter().all(|d| d["attempts"].as_array().unwrap().len() == 1));
    // Sixty calls that hang, four at a time, would take fifteen times the patience of one.
    let waiting = shop.deliveries(&hangs, "&state=pending").await;
    let untried = waiting.iter().filter(|d| d["attempts"].as_array().unwrap().is_empty()).count();
    assert!(untried > 0, "all sixty were called within {:?} each: nobody was faster than who hangs", PATIENCE);
    assert!(counts.lock().unwrap()["/hangs"].1 <= 8, "four at a time, and those that were given up");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_webhook_that_has_been_slow_waits_among_the_slow(db: PgPool) {
    let shop = Shop::new(db).await;
    let receiver = Receiver::answering(&[]).await;
    let hook = shop.hook(&format!("{}/a", receiver.url), &["*"]).await;
    let queues = async || {
        let sql = "select activity from workflow.attempts a join workflow.steps s on s.run_id = a.run_id and s.key = a.step_key
                   cross join lateral (select s.name as activity) n where s.kind = 'activity' order by s.recorded_at";
        sqlx::query_scalar::<_, String>(sql).fetch_all(shop.db()).await.unwrap()
    };
    let told = async |recent: &str| {
        let sql = "update identity.tenant_webhooks set recent_ms = $2::int[] where id = $1";
        sqlx::query(sql).bind(hook.id).bind(recent).execute(shop.db()).await.unwrap();
        shop.happens("render.completed").await;
        shop.settle().await;
        queues().await.last().cloned().unwrap()
    };
    let nineteen = vec!["10"; 19].join(",");
    assert_eq!(told("{}").await, "CallWebhook");
    assert_eq!(told(&format!("{{5001,{nineteen}}}")).await, "CallWebhook", "once in twenty");
    let eighteen = vec!["10"; 18].join(",");
    assert_eq!(told(&format!("{{5001,5001,{eighteen}}}")).await, "CallSlowWebhook", "more often");
    let recent: Vec<i32> =
        sqlx::query_scalar("select recent_ms from identity.tenant_webhooks").fetch_one(shop.db()).await.unwrap();
    assert_eq!((recent.len(), recent[1..3].to_vec()), (20, vec![5001, 5001]), "the newest first, twenty of them");
    assert!(recent[0] < 5000);
    let view = shop.send(Method::GET, &format!("/v1/webhooks/{}", hook.id), json!({})).await.json();
    assert_eq!(view["consecutive_failures"], 0);
}
