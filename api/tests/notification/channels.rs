//! P20: what providers do, and what becomes of it. The table is the specification's (workflows, 5).

use crate::{
    fakes::{Deed, MailServer, Mishap},
    stage::Stage,
};
use flatrender_engine::{Attempt, Failure, Handler, worker::Builder};
use flatrender_workflows::{
    contracts::notify::{Channel, SendEmail, Verdict},
    definitions::send_digests::SendDigests,
    models::{
        DEFAULT_TENANT,
        notification::{audience::Audience, suppression},
    },
};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use uuid::Uuid;

const LATER: &[(&str, &str)] = &[("retry-after", "7")];

fn answer(status: u16, body: Value) -> Deed {
    Deed::Answer(status, &[], body)
}

async fn reason(stage: &Stage, channel: Channel, address: &str) -> Option<String> {
    let mut db = stage.world.db.acquire().await.unwrap();
    suppression::reason(&mut db, DEFAULT_TENANT, channel, &suppression::hash_of(address)).await.unwrap()
}

#[sqlx::test(migrations = "../migrations")]
async fn p20_e_mail_is_tried_again_when_it_may_help_and_never_when_it_may_not(db: PgPool) {
    let stage = Stage::new(db).await;
    let person = async |email: &str| stage.world.person(DEFAULT_TENANT, email, &["editor"]).await;
    // Put off twice, then taken: one mail.
    let soft = person("soft@example.com").await;
    stage.mail.then([Mishap::Refuse("450 4.2.1 later"), Mishap::Refuse("451 4.7.1 greylisted")]);
    stage.tell("subscription.renewed", soft, json!({})).await;
    assert_eq!((stage.last().await, stage.mail.mails().len()), (vec!["email sent 3".to_owned()], 1));
    // Closed for the moment counts as no try.
    stage.mail.then([Mishap::Refuse("421 4.3.2 closing")]);
    stage.tell("subscription.renewed", soft, json!({})).await;
    assert_eq!(stage.last().await, ["email sent 1"]);
    // No such mailbox: one try, and never again, for anything.
    let gone = person("gone@example.com").await;
    stage.mail.then([Mishap::Refuse("550 5.1.1 no such user")]);
    stage.tell("subscription.renewed", gone, json!({})).await;
    assert_eq!(stage.last().await, ["email failed hard_bounce 1"]);
    assert_eq!(reason(&stage, Channel::Email, "Gone@Example.com").await.as_deref(), Some("hard_bounce"));
    stage.tell("payment.review", gone, json!({})).await;
    assert_eq!(stage.last().await, ["email suppressed suppressed 0"]);
    assert_eq!(stage.mail.mails().len(), 2);
    // Put off for a day: given up after eight tries.
    let full = person("full@example.com").await;
    stage.mail.then([Mishap::Refuse("452 4.2.2 full"); 8]);
    stage.tell("subscription.renewed", full, json!({})).await;
    assert_eq!(stage.last().await, ["email failed soft_bounce 8"]);
    // Three messages of a week that a mailbox did not take: it gets a week's rest.
    for tries in [8, 1] {
        assert_eq!(reason(&stage, Channel::Email, "full@example.com").await, None);
        stage.mail.then(vec![Mishap::Refuse("452 4.2.2 full"); tries]);
        stage.tell("subscription.renewed", full, json!({})).await;
    }
    assert_eq!(reason(&stage, Channel::Email, "full@example.com").await.as_deref(), Some("soft_bounces"));
    crate::jane::pass(&stage.world, 7 * 86_400 + 1).await;
    assert_eq!(reason(&stage, Channel::Email, "full@example.com").await, None);
    // It was taken, and the line went dead: it comes twice under one id, and the delivery says that it may have.
    let mails = stage.mail.mails().len();
    stage.mail.then([Mishap::TakeAndHangUp]);
    stage.tell("subscription.renewed", soft, json!({})).await;
    assert_eq!(stage.last().await, ["email sent 2?"]);
    let sent = stage.mail.mails();
    let ids: Vec<&str> =
        sent[mails..].iter().map(|m| m.lines().find(|l| l.starts_with("Message-ID:")).unwrap()).collect();
    assert!(ids.len() == 2 && ids[0] == ids[1], "{ids:?}");
}

#[sqlx::test(migrations = "../migrations")]
async fn p20_a_browser_that_is_gone_is_forgotten_and_one_that_is_slow_is_told_later(db: PgPool) {
    let stage = Stage::new(db).await;
    let jane = stage.world.person(DEFAULT_TENANT, "jane@example.com", &["editor"]).await;
    let key = stage.vapid().await;
    stage.with_browser(jane, "push/a", &key).await;
    let browsers = async || stage.world.count("identity.push_subscriptions").await;
    stage.web.then([Deed::Answer(429, LATER, json!({})), answer(503, json!({})), answer(201, json!({}))]);
    stage.tell("render.completed", jane, json!({})).await;
    assert_eq!(stage.last().await, ["push sent 2"], "429 counts as no try");
    assert!(stage.mail.mails().is_empty(), "who has it by the browser gets no e-mail");
    let calls = stage.web.calls();
    let topics: Vec<_> = calls.iter().map(|c| c.headers["topic"].to_str().unwrap().to_owned()).collect();
    assert!(topics.len() == 3 && topics[0].len() == 32 && topics.iter().all(|t| *t == topics[0]), "{topics:?}");
    assert_eq!(calls[0].headers["content-encoding"], "aes128gcm");
    assert!(calls[0].headers["ttl"].to_str().unwrap().parse::<u32>().unwrap() > 250_000);
    // Too long: once more with the subject alone.
    stage.web.then([answer(413, json!({}))]);
    stage.tell("render.completed", jane, json!({"title": "x".repeat(400)})).await;
    assert_eq!(stage.last().await, ["push sent 2"]);
    let sizes: Vec<usize> = stage.web.calls()[3..].iter().map(|c| c.body.len()).collect();
    assert!(sizes[1] < sizes[0], "{sizes:?}");
    // It was accepted and nobody said so: told again under the same topic, which replaces the copy.
    stage.web.then([Deed::AcceptInSilence]);
    stage.tell("render.completed", jane, json!({})).await;
    assert_eq!(stage.last().await, ["push sent 2?"]);
    // Our key is not liked: nobody's address suffers, and it goes by e-mail.
    stage.web.then([answer(403, json!({}))]);
    stage.tell("render.completed", jane, json!({})).await;
    assert_eq!(stage.last().await, ["email sent 1", "push failed config 1"]);
    assert_eq!(browsers().await, 1);
    // Gone: forgotten, no second try, and it goes by e-mail.
    stage.web.then([answer(410, json!({}))]);
    stage.tell("render.completed", jane, json!({})).await;
    assert_eq!(stage.last().await, ["email sent 1", "push failed gone 1"]);
    assert_eq!(browsers().await, 0);
    stage.tell("render.completed", jane, json!({})).await;
    assert_eq!(stage.last().await, ["email sent 1"]);
}

#[sqlx::test(migrations = "../migrations")]
async fn p20_a_text_message_is_never_sent_twice_and_never_without_end(db: PgPool) {
    text_messages(&db, "twilio").await;
}

#[sqlx::test(migrations = "../migrations")]
async fn p20_nor_is_one_by_kavenegar(db: PgPool) {
    text_messages(&db, "kavenegar").await;
}

async fn text_messages(db: &PgPool, provider: &str) {
    let stage = Stage::new(db.clone()).await;
    if provider == "twilio" {
        stage.twilio().await
    } else {
        stage.kavenegar().await
    };
    // E-mail does not work, so receipts go by text message.
    let person = async |number: &str| {
        let id = stage.world.person(DEFAULT_TENANT, &format!("{}@example.com", &number[1..]), &["editor"]).await;
        stage.with_phone(id, number).await;
        let hash = suppression::hash_of(&format!("{}@example.com", &number[1..]));
        let mut db = stage.world.db.acquire().await.unwrap();
        suppression::add(&mut db, DEFAULT_TENANT, Channel::Email, &hash, "hard_bounce", None).await.unwrap();
        id
    };
    let jane = person("+989121234567").await;
    let sms = async |expected: &str| {
        let last = stage.last().await;
        assert_eq!(last, ["email suppressed suppressed 0", expected], "{provider}");
    };
    stage.tell("payment.paid", jane, json!({"amount": "10 EUR"})).await;
    sms("sms sent 1").await;
    let text = stage.web.accepted()[0].clone();
    let said = text["Body"].as_str().or(text["message"].as_str()).unwrap().to_owned();
    assert!(
        said.starts_with("Receipt: 10 EUR\n") && said.contains("https://films.example/billing/payments/"),
        "{said}"
    );
    // It was sent, and nobody said so: asked for, found, not sent again.
    stage.web.then([Deed::AcceptInSilence]);
    stage.tell("payment.paid", jane, json!({"amount": "11 EUR"})).await;
    sms("sms sent 2?").await;
    assert_eq!(stage.web.accepted().len(), 2, "{provider}");
    stage.web.then([Deed::Answer(429, LATER, json!({})), answer(500, json!({}))]);
    stage.tell("payment.paid", jane, json!({})).await;
    sms("sms sent 2").await;
    stage.web.then([answer(500, json!({})), answer(502, json!({})), answer(503, json!({}))]);
    stage.tell("payment.paid", jane, json!({})).await;
    sms("sms failed transient 3").await;
    // No number: for good.
    let nobody = person("+989120000000").await;
    let refusal = if provider == "twilio" { json!({"code": 21211}) } else { json!({"return": {"status": 411}}) };
    stage.web.then([answer(400, refusal)]);
    stage.tell("payment.paid", nobody, json!({})).await;
    sms("sms failed hard_bounce 1").await;
    assert_eq!(reason(&stage, Channel::Sms, "+989120000000").await.as_deref(), Some("hard_bounce"));
    // Tries count, because each of them may cost: two of them were accepted, and what was given up was tried thrice.
    let pumped = person("+4915112345678").await;
    for _ in 0..10 {
        stage.tell("payment.paid", pumped, json!({})).await;
        sms("sms sent 1").await;
    }
    stage.tell("payment.paid", pumped, json!({})).await;
    sms("sms dropped sms_limit 0").await;
    crate::jane::pass(&stage.world, 86_401).await;
    stage.tell("payment.paid", pumped, json!({})).await;
    sms("sms sent 1").await;
}

#[sqlx::test(migrations = "../migrations")]
async fn p20_a_chat_is_not_written_to_twice_unless_it_matters_and_one_refusal_is_none(db: PgPool) {
    let stage = Stage::new(db).await;
    stage.telegram().await;
    let jane = stage.world.person(DEFAULT_TENANT, "jane@example.com", &["editor"]).await;
    stage.wants(jane, "renders", "email", false, "").await;
    stage.with_chat(jane, "4711").await;
    let state = async || -> String {
        sqlx::query_scalar("select state from notification.channel_addresses").fetch_one(&stage.world.db).await.unwrap()
    };
    let chat = async |expected: &str| {
        crate::jane::pass(&stage.world, 2).await;
        stage.tell("render.completed", jane, json!({"title": "<b>*x*"})).await;
        assert_eq!(stage.last().await, ["email dropped unwanted 0", expected]);
    };
    chat("telegram sent 1").await;
    let message = stage.web.accepted()[0].clone();
    assert_eq!(message["chat_id"], "4711");
    assert!(
        message["text"].as_str().unwrap().starts_with("<b>*x* is ready\n") && message.get("parse_mode").is_none(),
        "{message}"
    );
    stage.web.then([answer(429, json!({"ok": false, "parameters": {"retry_after": 9}})), answer(502, json!({}))]);
    chat("telegram sent 2").await;
    // Nobody knows whether it arrived: there is no second one.
    stage.web.then([Deed::AcceptInSilence]);
    chat("telegram dropped unknown 1?").await;
    // Refused once may be a slip; twice within the hour, too; an hour apart is meant.
    let blocked = || answer(403, json!({"ok": false, "description": "Forbidden: bot was blocked by the user"}));
    for _ in 0..2 {
        stage.web.then([blocked()]);
        chat("telegram failed blocked 1").await;
        assert_eq!(state().await, "active");
    }
    chat("telegram sent 1").await;
    stage.web.then([blocked()]);
    chat("telegram failed blocked 1").await;
    crate::jane::pass(&stage.world, 3601).await;
    stage.web.then([blocked()]);
    chat("telegram failed blocked 1").await;
    assert_eq!(state().await, "blocked");
    stage.tell("render.completed", jane, json!({})).await;
    assert_eq!(stage.last().await, ["email dropped unwanted 0"]);
    stage.with_chat(jane, "4711").await;
    stage.web.then([answer(400, json!({"ok": false, "description": "Bad Request: chat not found"}))]);
    chat("telegram failed gone 1").await;
    assert_eq!(state().await, "gone");
}

/// The first provider answers nothing but errors: after ten calls the second one carries.
#[sqlx::test(migrations = "../migrations")]
async fn a_second_provider_carries_while_the_first_one_is_down(db: PgPool) {
    let stage = Stage::new(db).await;
    let first = stage.telegram().await;
    let second = stage.telegram().await;
    stage.web.then(vec![answer(500, json!({})); 10]);
    for n in 0..12 {
        let id = stage.world.person(DEFAULT_TENANT, &format!("p{n}@example.com"), &["editor"]).await;
        stage.wants(id, "renders", "email", false, "").await;
        stage.with_chat(id, &n.to_string()).await;
        stage.happens("render.completed", Audience::User(id), json!({})).await;
    }
    stage.play().await;
    let by: Vec<(Uuid, i64)> = sqlx::query_as(
        "select provider_account_id, count(*) from notification.notification_deliveries where channel = 'telegram' and state = 'sent' group by 1",
    )
    .fetch_all(&stage.world.db)
    .await
    .unwrap();
    assert_eq!(by.iter().map(|(_, count)| count).sum::<i64>(), 12);
    assert!(by.iter().any(|(id, _)| *id == second) && by.iter().all(|(id, _)| [first, second].contains(id)), "{by:?}");
}

/// A receipt goes by e-mail, or else by text message; a mailbox that puts it off once is a reason for the second, and none to give up.
#[sqlx::test(migrations = "../migrations")]
async fn a_receipt_that_is_put_off_goes_on_beside_the_next_channel(db: PgPool) {
    let stage = Stage::new(db).await;
    let jane = stage.world.person(DEFAULT_TENANT, "jane@example.com", &["editor"]).await;
    stage.mail.then([Mishap::Refuse("451 4.7.1 greylisted")]);
    stage.tell("payment.paid", jane, json!({"amount": "10 EUR"})).await;
    assert_eq!(
        (stage.last().await, stage.mail.mails().len()),
        (vec!["email sent 2".to_owned()], 1),
        "there is no phone"
    );
    // With a phone it goes there, and whoever has it there gets no mail any more.
    stage.twilio().await;
    stage.with_phone(jane, "+989121234567").await;
    stage.mail.then([Mishap::Refuse("451 4.7.1 greylisted")]);
    stage.tell("payment.paid", jane, json!({"amount": "11 EUR"})).await;
    assert_eq!(stage.last().await, ["email dropped elsewhere 1", "sms sent 1"]);
    assert_eq!((stage.mail.mails().len(), stage.web.accepted().len()), (1, 1));
    // Nor does the text message go: the mailbox is asked for a day, as its table says.
    stage.web.then(vec![answer(500, json!({})); 3]);
    stage.mail.then([Mishap::Refuse("452 4.2.2 full"); 6]);
    stage.tell("payment.paid", jane, json!({"amount": "12 EUR"})).await;
    assert_eq!(stage.last().await, ["email sent 7", "sms failed transient 3"]);
    // A server that closes for a minute is waited for: that is not late.
    stage.mail.then([Mishap::Refuse("421 4.3.2 closing")]);
    stage.tell("payment.paid", jane, json!({"amount": "13 EUR"})).await;
    assert_eq!(stage.last().await, ["email sent 1"]);
}

/// Whatever is forgotten after each thing that was written down: what was sent is not sent again, also not as part of a digest.
#[sqlx::test(migrations = "../migrations")]
async fn messages_and_digests_survive_a_crash_after_every_event(db: PgPool) {
    let stage = Stage::new(db).await;
    let jane = stage.world.person(DEFAULT_TENANT, "jane@example.com", &["editor"]).await;
    stage.twilio().await;
    stage.with_phone(jane, "+989121234567").await;
    stage.wants(jane, "renders", "email", true, "digest='hourly'").await;
    let play = async || stage.play_as(Duration::from_secs(60), stage.courier(), Builder::crash_after_every_event).await;
    stage.mail.then([Mishap::Refuse("451 4.7.1 greylisted")]);
    stage.happens("payment.paid", Audience::User(jane), json!({"amount": "11 EUR"})).await;
    play().await;
    assert_eq!(stage.last().await, ["email dropped elsewhere 1", "sms sent 1"]);
    assert_eq!((stage.mail.mails().len(), stage.web.accepted().len()), (0, 1));
    for title in ["One", "Two"] {
        stage.happens("render.completed", Audience::User(jane), json!({ "title": title })).await;
    }
    play().await;
    assert_eq!(stage.last().await, ["email deferred 0"]);
    crate::jane::pass(&stage.world, 3601).await;
    let mut tx = stage.world.db.begin().await.unwrap();
    stage.world.app.workflows.start(&mut tx, DEFAULT_TENANT, None, SendDigests {}).await.unwrap();
    tx.commit().await.unwrap();
    play().await;
    let mails = stage.mail.mails();
    assert!(mails.len() == 1 && mails[0].contains("2 things to know"), "{mails:?}");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_mail_server_that_says_nothing_is_not_waited_for(db: PgPool) {
    let stage = Stage::new(db).await;
    let config = json!({ "url": MailServer::silent().await, "from": "a@acme.example" });
    stage.account("smtp", Channel::Email, config).await;
    let jane = stage.world.person(DEFAULT_TENANT, "jane@example.com", &["editor"]).await;
    stage.tell("subscription.renewed", jane, json!({})).await;
    assert_eq!(stage.last().await, ["email failed unknown 8?"]);
}

/// Says that there is no place for it so many times, as our own gates do while a provider is down; then it is taken.
#[derive(Default)]
struct Busy(AtomicU32);

impl Handler<SendEmail> for Busy {
    async fn handle(&self, _: &Attempt, _: SendEmail) -> Result<Verdict, Failure> {
        match self.0.fetch_add(1, Ordering::SeqCst) {
            0..80 => Ok(Verdict::Throttled { after_seconds: 1.0, by_us: true }),
            _ => Ok(Verdict::Accepted { account_id: None, message: None }),
        }
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn waiting_for_a_place_of_our_own_uses_up_no_message(db: PgPool) {
    let stage = Stage::new(db).await;
    let jane = stage.world.person(DEFAULT_TENANT, "jane@example.com", &["editor"]).await;
    stage.happens("subscription.renewed", Audience::User(jane), json!({})).await;
    stage.play_with(Duration::from_secs(120), Busy::default()).await;
    assert_eq!(stage.last().await, ["email sent 1"]);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_text_message_that_was_not_sent_is_not_counted(db: PgPool) {
    let stage = Stage::new(db).await;
    stage.twilio().await;
    let jane = stage.world.person(DEFAULT_TENANT, "jane@example.com", &["editor"]).await;
    stage.with_phone(jane, "+989121234567").await;
    let hash = suppression::hash_of("jane@example.com");
    let mut db = stage.world.db.acquire().await.unwrap();
    suppression::add(&mut db, DEFAULT_TENANT, Channel::Email, &hash, "hard_bounce", None).await.unwrap();
    stage.web.then(vec![Deed::Answer(429, LATER, json!({})); 12]);
    stage.tell("payment.paid", jane, json!({})).await;
    assert_eq!(stage.last().await, ["email suppressed suppressed 0", "sms sent 1"]);
    let counts: Vec<i32> =
        sqlx::query_scalar("select sent from notification.sms_counts").fetch_all(&stage.world.db).await.unwrap();
    assert_eq!(counts, [1, 1, 1], "of the number, the country and the tenant");
}

/// Keys come and go; a browser listens to the one that it was told of.
#[sqlx::test(migrations = "../migrations")]
async fn a_browser_is_told_by_its_key_however_many_there_are(db: PgPool) {
    let stage = Stage::new(db).await;
    let jane = stage.world.person(DEFAULT_TENANT, "jane@example.com", &["editor"]).await;
    let mut key = String::new();
    for _ in 0..6 {
        key = stage.vapid().await;
    }
    stage.with_browser(jane, "push/a", &key).await;
    stage.tell("render.completed", jane, json!({})).await;
    assert_eq!(stage.last().await, ["push sent 1"]);
}
