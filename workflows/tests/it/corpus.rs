//! Histories that earlier builds have recorded, through the definitions of today: films under way survive a deploy.
//!
//! `FLATRENDER_CORPUS=add cargo nextest run -p flatrender-workflows --run-ignored all keeping_histories` plays new ones and keeps those
//! that the corpus does not have; nothing that is there is written again. A history that fits no longer is told what it lacks: keep
//! its way with `cx.patched`, or raise the version.
//!
//! Nobody has kept a history of `deliver` from before its patch: `late_before_patch` is written by hand, word for word as the build before
//! it would have recorded a browser that is late and the e-mail that took over.

use crate::world::{Mischief, World, order};
use flatrender_engine::{
    Attempt, Client, Failure, Handler, Worker, Workflow,
    client::RunState,
    testing::{Corpus, History, Mismatch, history, replay},
};
use flatrender_workflows::{
    contracts::message::{Brand, Letter, SendMail},
    definitions::{
        deliver::Deliver, keep_months::KeepMonths, payment::TakePayment, refund::GiveBack, render_video::RenderVideo,
        retire_months::RetireMonths, roll_up_usage::RollUpUsage, send_message::SendMessage,
    },
    models::DEFAULT_TENANT,
};
use sqlx::PgPool;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

fn corpus() -> Corpus {
    Corpus::at(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus"))
}

/// The definition that today continues runs like this one.
fn today(history: &History) -> Result<(), Mismatch> {
    match (history.kind.as_str(), history.version) {
        ("deliver", 1) => replay::<Deliver>(history),
        ("keep_months", 1) => replay::<KeepMonths>(history),
        ("payment", 1) => replay::<TakePayment>(history),
        ("refund", 1) => replay::<GiveBack>(history),
        ("render_video", 1) => replay::<RenderVideo>(history),
        ("retire_months", 1) => replay::<RetireMonths>(history),
        ("roll_up_usage", 1) => replay::<RollUpUsage>(history),
        ("send_message", 1) => replay::<SendMessage>(history),
        other => panic!("nobody can continue runs of {other:?}"),
    }
}

#[test]
fn every_stored_history_fits_the_definitions_of_today() {
    let all = corpus().all().unwrap();
    for (name, history) in &all {
        today(history).unwrap_or_else(|why| panic!("{name}: {why}"));
    }
    let kinds: BTreeSet<&str> = all.iter().map(|(_, history)| history.kind.as_str()).collect();
    assert_eq!(
        kinds.into_iter().collect::<Vec<_>>(),
        [
            "deliver",
            "keep_months",
            "payment",
            "refund",
            "render_video",
            "retire_months",
            "roll_up_usage",
            "send_message"
        ]
    );
}

#[test]
fn a_definition_that_calls_anything_otherwise_is_noticed() {
    for (name, history) in corpus().all().unwrap() {
        for at in 0..history.events.len() {
            let mut other = history.clone();
            if matches!(other.events[at].kind.as_str(), "cancel" | "signal" | "patch") {
                continue;
            }
            other.events[at].key = format!("before: {}", other.events[at].key);
            assert!(today(&other).is_err(), "{name}: {}", history.events[at].key);
        }
    }
}

/// A post office that delivers at once.
struct Post;

impl Handler<SendMail> for Post {
    async fn handle(&self, _: &Attempt, mail: SendMail) -> Result<String, Failure> {
        Ok(format!("<{}@flatrender.example>", mail.id))
    }
}

async fn offer(db: &PgPool, run_id: Uuid, what: &str, missing: &mut Vec<String>) {
    let history = history(&Client::new(db.clone()), run_id).await.unwrap().unwrap();
    assert!(history.state.is_final());
    if !corpus().offer(what, &history).unwrap() {
        missing.push(format!("{}.v{}.{what}", history.kind, history.version));
    }
}

async fn play<W: Workflow>(db: &PgPool, workflow: W, what: &str, missing: &mut Vec<String>) {
    let client = Client::new(db.clone());
    let mut tx = db.begin().await.unwrap();
    let run_id = client.start(&mut tx, DEFAULT_TENANT, None, workflow).await.unwrap().run_id;
    tx.commit().await.unwrap();
    let stop = CancellationToken::new();
    let worker = Worker::builder(db.clone())
        .workflow::<KeepMonths>()
        .workflow::<RetireMonths>()
        .workflow::<RollUpUsage>()
        .workflow::<SendMessage>()
        .handler::<SendMail>(Post);
    let working = tokio::spawn(worker.run(stop.clone()));
    let run = client.finished(run_id, Duration::from_secs(60)).await.unwrap().expect("the run ends");
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    stop.cancel();
    working.await.unwrap().unwrap();
    offer(db, run_id, what, missing).await;
}

#[sqlx::test(migrations = "../migrations")]
#[ignore = "it plays what is to be kept"]
async fn keeping_histories_of_each_ending(db: PgPool) {
    let mut missing = Vec::new();
    let films = [
        ("published", Mischief::default()),
        ("repaired", Mischief { bad_frames: BTreeMap::from([(7, 1), (100, 2)]), ..Mischief::default() }),
        ("frame_lost", Mischief { lost_frames: BTreeMap::from([(("EncodePart", 50), 1)]), ..Mischief::default() }),
        ("refused", Mischief { failing: BTreeMap::from([("AssembleVideo", "test.refused")]), ..Mischief::default() }),
    ];
    for (what, mischief) in films {
        let (_, run_id) = order(&db).await;
        World::with(mischief).finish(&db, run_id, false).await;
        offer(&db, run_id, what, &mut missing).await;
    }
    let (_, run_id) = order(&db).await;
    let world = World::with(Mischief { hanging: Some("RenderFrames"), ..Mischief::default() });
    let (client, stop) = (Client::new(db.clone()), CancellationToken::new());
    let working = tokio::spawn(world.worker(&db, false).run(stop.clone()));
    while !world.asked().iter().any(|asked| asked.starts_with("RenderFrames")) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut tx = db.begin().await.unwrap();
    assert!(client.cancel(&mut tx, run_id, "the customer changed her mind").await.unwrap());
    tx.commit().await.unwrap();
    client.announce();
    client.finished(run_id, Duration::from_secs(30)).await.unwrap().expect("the run ends");
    stop.cancel();
    working.await.unwrap().unwrap();
    offer(&db, run_id, "cancelled", &mut missing).await;

    let at = Some("2029-06-15T03:15:00Z".parse().unwrap());
    play(&db, KeepMonths { at }, "years_ahead", &mut missing).await;
    play(&db, RetireMonths { at }, "years_ahead", &mut missing).await;
    play(&db, RollUpUsage { at: None }, "today", &mut missing).await;
    let (id, to, product) = (Uuid::from_u128(1), "ada@example.org".to_owned(), "FlatRender".to_owned());
    let mail =
        SendMail { id, to, locale: "en".to_owned(), product, brand: Brand::default(), letter: Letter::PasswordChanged };
    play(&db, SendMessage { mail }, "sent", &mut missing).await;
    for (run_id, what) in crate::payments::histories(&db).await {
        offer(&db, run_id, what, &mut missing).await;
    }
    assert!(missing.is_empty(), "FLATRENDER_CORPUS=add keeps {missing:?}");
}
