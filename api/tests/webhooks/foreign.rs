//! What receivers do with us that take a library of others. See `scripts/webhooks.sh`.

use crate::kit::{Hook, Received, Receiver, Shop};
use axum::http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{
    io::Write as _,
    process::{Command, Stdio},
};

/// Reads messages, one a line, and says of each whether the library takes it.
const PROGRAM: &str = "
import json, sys
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
for line in sys.stdin:
    m = json.loads(line)
    headers = {'webhook-id': m['id'], 'webhook-timestamp': m['timestamp'], 'webhook-signature': m['signature']}
    try:
        Webhook(m['secret']).verify(m['body'], headers)
        print('taken')
    except WebhookVerificationError as error:
        print('refused')
";

fn message(got: &Received, secret: &str) -> Value {
    let body = String::from_utf8(got.body.to_vec()).unwrap();
    json!({"id": got.header("webhook-id"), "timestamp": got.header("webhook-timestamp"), "signature": got.header("webhook-signature"),
        "secret": secret, "body": body})
}

fn with(mut message: Value, name: &str, value: impl Into<Value>) -> Value {
    message[name] = value.into();
    message
}

/// The same, signed at another time.
fn signed_at(message: &Value, seconds_ago: i64) -> Value {
    let at = chrono::Utc::now() - chrono::Duration::seconds(seconds_ago);
    let text = |name: &str| message[name].as_str().unwrap().to_owned();
    let signature =
        flatrender_activities::webhook::sign(text("secret").as_bytes(), &text("id"), at, text("body").as_bytes())
            .unwrap();
    with(with(message.clone(), "timestamp", at.timestamp().to_string()), "signature", signature)
}

fn ask(python: &str, messages: &[Value]) -> Vec<String> {
    let mut program =
        Command::new(python).args(["-c", PROGRAM]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = program.stdin.take().unwrap();
    messages.iter().for_each(|message| writeln!(stdin, "{message}").unwrap());
    drop(stdin);
    let done = program.wait_with_output().unwrap();
    assert!(done.status.success());
    String::from_utf8(done.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[sqlx::test(migrations = "../migrations")]
#[ignore = "takes the library standardwebhooks: scripts/webhooks.sh"]
async fn a_library_of_others_takes_our_webhooks_and_no_forged_or_old_ones(db: PgPool) {
    let python = std::env::var("FLATRENDER_WEBHOOKS_PYTHON").expect("scripts/webhooks.sh says where it is");
    let shop = Shop::new(db).await;
    let receiver = Receiver::answering(&[]).await;
    let first = shop.hook(&format!("{}/a", receiver.url), &["*"]).await;
    let rotated = shop.send(Method::POST, &format!("/v1/webhooks/{}/rotate-secret", first.id), json!({})).await.json();
    let second = Hook { id: first.id, secret: rotated["secret"].as_str().unwrap().to_owned() };
    let other = shop.hook("http://127.0.0.1:9/", &["render.failed"]).await;
    shop.happens("render.completed").await;
    shop.settle().await;
    let [got] = &receiver.at("/a")[..] else { panic!("there is one") };
    let (good, before) = (message(got, &second.secret), message(got, &first.secret));
    let body = good["body"].as_str().unwrap();
    let forged_id = with(good.clone(), "id", uuid::Uuid::now_v7().to_string());
    let forged_time = with(good.clone(), "timestamp", (chrono::Utc::now().timestamp() + 1).to_string());
    let asked = [
        (good.clone(), "taken"),
        (before, "taken"),
        (signed_at(&good, 0), "taken"),
        (signed_at(&good, 290), "taken"),
        (with(good.clone(), "body", body.replace("completed", "cancelled")), "refused"),
        (with(good.clone(), "body", format!("{body} ")), "refused"),
        (forged_id, "refused"),
        (forged_time, "refused"),
        (with(good.clone(), "secret", other.secret.clone()), "refused"),
        (with(good.clone(), "signature", "v1,AAAA"), "refused"),
        (with(good.clone(), "signature", ""), "refused"),
        (signed_at(&good, 301), "refused"),
        (signed_at(&good, 86_400), "refused"),
        (signed_at(&good, -310), "refused"),
    ];
    let (messages, expected): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
    assert_eq!(ask(&python, &messages), expected);
}
