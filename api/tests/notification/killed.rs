//! The worker that carries messages is killed at each thing that they write down, the first call of each among them: nobody knows what came
//! of that. Later calls are left alone, or no message would ever be known to have arrived.

use crate::{
    gate::{GATE, Mortal as _, NO_GATE, kill_at_each},
    stage::Stage,
    worker::Worker,
    world::PUBLIC_URL,
};
use flatrender_engine::testing::skip_to_next_timer;
use flatrender_workflows::{
    contracts::notify::Channel,
    definitions::send_digests::SendDigests,
    models::{
        DEFAULT_TENANT, invariants,
        notification::{audience::Audience, suppression},
    },
};
use serde_json::json;
use sqlx::PgPool;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

const GATE_MESSAGES: &str = "insert into public.gated_kinds values ('notify'), ('deliver'), ('send_digests')";
/// The second call of a message, and those that follow.
const LATER_CALLS: &str = "insert into public.let_through
    select public.place(r.id::text, channel || ':' || n || ':send:0')
    from workflow.runs r, unnest(array['email', 'sms']) channel, generate_series(2, 8) n
    where r.kind = 'deliver' on conflict do nothing";

/// P20: within the platform a message is there once, a text message is sent once, and what is sent again by e-mail has the same name, by
/// which mailboxes know it.
#[sqlx::test(migrations = "../migrations")]
async fn p20_messages_and_digests_survive_kill_nine_at_each_step(db: PgPool) {
    let stage = Stage::new(db).await;
    let db = &stage.world.db;
    let places = [
        ("FLATRENDER_SMTP_URL", stage.mail.url.clone()),
        ("FLATRENDER_MAIL_FROM", "noreply@films.example".to_owned()),
        ("FLATRENDER_PUBLIC_URL", PUBLIC_URL.to_owned()),
    ];
    let mut worker = Worker::of(db, places).await;
    let jane = stage.world.person(DEFAULT_TENANT, "jane@example.com", &["editor"]).await;
    stage.wants(jane, "renders", "email", true, "digest='hourly'").await;
    // E-mail does not reach Ada, so receipts go by text message.
    let ada = stage.world.person(DEFAULT_TENANT, "ada@example.com", &["editor"]).await;
    let shut = suppression::hash_of("ada@example.com");
    let mut one = db.acquire().await.unwrap();
    suppression::add(&mut one, DEFAULT_TENANT, Channel::Email, &shut, "hard_bounce", None).await.unwrap();
    drop(one);
    stage.twilio().await;
    stage.with_phone(ada, "+989121234567").await;

    sqlx::raw_sql(GATE).execute(db).await.unwrap();
    sqlx::raw_sql(GATE_MESSAGES).execute(db).await.unwrap();
    stage.happens("subscription.renewed", Audience::User(jane), json!({})).await;
    stage.happens("payment.paid", Audience::User(ada), json!({"amount": "11 EUR"})).await;
    for title in ["One", "Two"] {
        stage.happens("render.completed", Audience::User(jane), json!({ "title": title })).await;
    }
    let kills = carried(&mut worker, db).await;
    assert!(kills.len() >= 4 * 3 + 2 * 6 + 2 * 2 && kills.values().all(|times| *times >= 2), "{kills:?}");
    let expected = [
        "payment.paid email suppressed",
        "payment.paid sms sent",
        "render.completed email deferred",
        "render.completed email deferred",
        "subscription.renewed email sent",
    ];
    assert_eq!(became(&stage).await, expected);
    assert_eq!(stage.world.count("notification.notifications").await, 4);
    assert_eq!(stage.web.accepted().len(), 1, "a text message is not sent twice");
    assert_eq!(names(&stage.mail.mails()).len(), 1, "{:?}", stage.mail.mails());

    // What was gathered goes together, once.
    worker.kill_worker();
    crate::jane::pass(&stage.world, 3601).await;
    let mut tx = db.begin().await.unwrap();
    stage.world.app.workflows.start(&mut tx, DEFAULT_TENANT, None, SendDigests {}).await.unwrap();
    tx.commit().await.unwrap();
    let kills = carried(&mut worker, db).await;
    assert!(kills.len() >= 4 + 6 && kills.values().all(|times| *times >= 2), "{kills:?}");
    let expected = [
        "digest email sent",
        "payment.paid email suppressed",
        "payment.paid sms sent",
        "render.completed email sent",
        "render.completed email sent",
        "subscription.renewed email sent",
    ];
    assert_eq!(became(&stage).await, expected);
    assert_eq!((stage.world.count("notification.notifications").await, stage.web.accepted().len()), (5, 1));
    let mut mails = stage.mail.mails();
    assert_eq!(names(&mails).len(), 2, "{mails:?}");
    mails.retain(|mail| mail.contains("2 things to know"));
    assert_eq!(names(&mails).len(), 1, "{mails:?}");
    worker.kill_worker();
    sqlx::raw_sql(NO_GATE).execute(db).await.unwrap();
    sqlx::query("select platform.ensure_months(workflow.now(), now())").execute(db).await.unwrap();
    assert_eq!(invariants::check(db, false).await.unwrap(), []);
}

/// Works, and is killed, until every message is over.
async fn carried(worker: &mut Worker, db: &PgPool) -> BTreeMap<i64, u32> {
    tokio::select! {
        kills = kill_at_each(worker, db) => kills,
        () = pass(db) => unreachable!("time passes for ever"),
    }
}

/// Pauses take no time.
async fn pass(db: &PgPool) {
    loop {
        sqlx::raw_sql(LATER_CALLS).execute(db).await.unwrap();
        skip_to_next_timer(db).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What became of each message by each channel but the list.
async fn became(stage: &Stage) -> Vec<String> {
    let sql = "select n.template_code || ' ' || d.channel || ' ' || d.state from notification.notification_deliveries d
        join notification.notifications n on n.id = d.notification_id where d.channel <> 'inapp' order by 1";
    sqlx::query_scalar(sql).fetch_all(&stage.world.db).await.unwrap()
}

/// What mails call themselves.
fn names(mails: &[String]) -> BTreeSet<String> {
    let name = |mail: &String| {
        let mut lines = mail.lines().map(str::to_ascii_lowercase);
        lines.find(|line| line.starts_with("message-id:")).unwrap_or_else(|| panic!("it has no name: {mail}"))
    };
    mails.iter().map(name).collect()
}
