//! The worker that tells webhooks is killed at each thing that a delivery writes down.

use crate::{
    gate::{GATE, Mortal as _, NO_GATE, PATIENCE, kill_at_each},
    kit::{Hook, Receiver, Shop, said},
    worker::Worker,
};
use sqlx::PgPool;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// Events by their ids.
type Events = Arc<Mutex<BTreeSet<String>>>;

/// What is sent again is the same; each attempt is written down once, and the last of them is the one that arrived.
#[sqlx::test(migrations = "../migrations")]
async fn a_delivery_survives_kill_nine_at_each_step(db: PgPool) {
    let shop = Shop::new(db).await;
    let mut worker = Worker::of(shop.db(), []).await;
    let mended = Events::default();
    let knows = mended.clone();
    let receiver = Receiver::new(move |got, _| {
        let good = got.path == "/well" || knows.lock().unwrap().contains(got.header("webhook-id"));
        Box::pin(async move { said(if good { 200 } else { 500 }) })
    })
    .await;
    let ill = shop.hook(&format!("{}/ill", receiver.url), &["*"]).await;
    let well = shop.hook(&format!("{}/well", receiver.url), &["*"]).await;
    sqlx::raw_sql(GATE).execute(shop.db()).await.unwrap();
    sqlx::raw_sql("insert into public.gated_kinds values ('webhook')").execute(shop.db()).await.unwrap();
    shop.happens("render.completed").await;
    shop.happens("gift.earned").await;
    let (kills, ()) = tokio::join!(kill_at_each(&mut worker, shop.db()), mend(&shop, &ill, &mended));
    assert!(kills.len() >= 2 * 4 + 2 * 8 && kills.values().all(|times| *times >= 2), "{kills:?}");

    for (hook, path, statuses) in [(&ill, "/ill", &[500_u64, 200][..]), (&well, "/well", &[200][..])] {
        let deliveries = shop.deliveries(hook, "").await;
        assert_eq!(deliveries.len(), 2, "{deliveries:?}");
        for delivery in &deliveries {
            let attempts = delivery["attempts"].as_array().unwrap();
            let tried: Vec<_> = attempts.iter().map(|a| (a["no"].as_u64(), a["status"].as_u64())).collect();
            let expected: Vec<(Option<u64>, Option<u64>)> =
                (1..).zip(statuses).map(|(no, status)| (Some(no), Some(*status))).collect();
            assert_eq!((delivery["state"].as_str(), tried), (Some("delivered"), expected));
            let id = delivery["event_id"].as_str().unwrap();
            let mut heard = receiver.at(path);
            heard.retain(|got| got.header("webhook-id") == id);
            assert!(heard.len() >= statuses.len(), "{delivery}");
            for got in &heard {
                assert_eq!((got.json()["id"].as_str(), &got.body), (Some(id), &heard[0].body));
                assert!(got.is_signed_with(&hook.secret));
            }
        }
        let told: BTreeSet<_> = deliveries.iter().map(|delivery| delivery["event_id"].as_str().unwrap()).collect();
        assert!(receiver.at(path).iter().all(|got| told.contains(got.header("webhook-id"))), "nothing else was sent");
    }
    worker.kill_worker();
    sqlx::raw_sql(NO_GATE).execute(shop.db()).await.unwrap();
    shop.check().await;
}

/// The receiver takes an event once it is written down that it did not.
async fn mend(shop: &Shop, hook: &Hook, mended: &Events) {
    let began = Instant::now();
    while mended.lock().unwrap().len() < 2 {
        for delivery in shop.deliveries(hook, "").await {
            if !delivery["attempts"].as_array().unwrap().is_empty() {
                mended.lock().unwrap().insert(delivery["event_id"].as_str().unwrap().to_owned());
            }
        }
        assert!(began.elapsed() < 4 * PATIENCE, "it is told of nothing");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
