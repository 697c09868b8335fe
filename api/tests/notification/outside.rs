//! Receivers that we did not write: a mail server, and a browser that decrypts. Run by `scripts/notifications.sh`, which installs them.

use crate::stage::Stage;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use flatrender_workflows::{
    contracts::notify::Channel,
    models::{
        DEFAULT_TENANT,
        notification::{address, suppression},
    },
};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};
use uuid::Uuid;

/// A program in Python; it ends when this is dropped.
struct Python {
    child: Child,
    _stdin: ChildStdin,
    lines: BufReader<ChildStdout>,
}

impl Python {
    fn run(script: &str) -> Self {
        let python = std::env::var("FLATRENDER_NOTIFY_PYTHON").expect("scripts/notifications.sh says where Python is");
        let path = format!("{}/tests/notification/{script}", env!("CARGO_MANIFEST_DIR"));
        let command = Command::new(python).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = command.unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, _stdin: stdin, lines: BufReader::new(stdout) }
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"))
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[sqlx::test(migrations = "../migrations")]
#[ignore = "takes Python and its package index: scripts/notifications.sh"]
async fn a_mail_server_of_others_takes_our_mails_and_reads_them_as_they_were_meant(db: PgPool) {
    let mut server = Python::run("smtp_server.py");
    let url = format!("smtp://127.0.0.1:{}", server.line());
    let stage = Stage::new(db).await;
    stage.account("smtp", Channel::Email, json!({"url": url, "from": "news@acme.example"})).await;
    let reza = stage.world.person(DEFAULT_TENANT, "reza@example.com", &["editor"]).await;
    sqlx::query("update identity.users set locale = 'fa' where id = $1")
        .bind(reza)
        .execute(&stage.world.db)
        .await
        .unwrap();
    stage.tell("render.completed", reza, json!({"title": "تبلیغِ «بهار» <۱۴۰۵>"})).await;
    let mail = server.line();
    assert_eq!(
        (&mail["to"], &mail["from"], &mail["defects"]),
        (&json!(["reza@example.com"]), &json!("news@acme.example"), &json!([])),
        "{mail}"
    );
    assert_eq!(mail["subject"], "FlatRender: تبلیغِ «بهار» <۱۴۰۵> آماده است");
    let (text, html) = (mail["text"].as_str().unwrap(), mail["html"].as_str().unwrap());
    assert!(text.contains("ساخت تبلیغِ «بهار» <۱۴۰۵> به پایان رسید"), "{text}");
    assert!(html.contains("dir=\"rtl\"") && html.contains("تبلیغِ «بهار» &lt;۱۴۰۵&gt;"), "{html}");
    assert_eq!(mail["post"], "List-Unsubscribe=One-Click");
    assert!(mail["unsubscribe"].as_str().unwrap().starts_with("<https://films.example/v1/unsubscribe?user="), "{mail}");
    let kept: String =
        sqlx::query_scalar("select provider_message from notification.notification_deliveries where channel = 'email'")
            .fetch_one(&stage.world.db)
            .await
            .unwrap();
    assert_eq!(mail["message_id"], kept.as_str());
    let nobody = stage.world.person(DEFAULT_TENANT, "nobody@example.com", &["editor"]).await;
    stage.tell("render.completed", nobody, json!({})).await;
    assert_eq!(stage.last().await, ["email failed hard_bounce 1"]);
    let mut db = stage.world.db.acquire().await.unwrap();
    let hash = suppression::hash_of("nobody@example.com");
    assert!(suppression::reason(&mut db, DEFAULT_TENANT, Channel::Email, &hash).await.unwrap().is_some());
}

#[sqlx::test(migrations = "../migrations")]
#[ignore = "takes Python and its package index: scripts/notifications.sh"]
async fn a_browser_of_others_decrypts_what_it_is_told_and_knows_who_signed(db: PgPool) {
    let mut browser = Python::run("push_receiver.py");
    let said = browser.line();
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(said[name].as_str().unwrap()).unwrap();
    let stage = Stage::new(db).await;
    let jane = stage.world.person(DEFAULT_TENANT, "jane@example.com", &["editor"]).await;
    let key = stage.vapid().await;
    let id = stage.with_browser(jane, "push/a", &key).await;
    let sealed = stage.world.app.vault.seal(&address::auth_place(id), &bytes("auth"));
    let sql = "update identity.push_subscriptions set endpoint = $2, p256dh = $3, auth_enc = $4 where id = $1";
    let endpoint = format!("http://127.0.0.1:{}/push/a", said["port"]);
    sqlx::query(sql).bind(id).bind(endpoint).bind(bytes("p256dh")).bind(sealed).execute(&stage.world.db).await.unwrap();
    stage.tell("render.completed", jane, json!({"title": "Spring"})).await;
    let told = browser.line();
    assert_eq!(stage.last().await, ["push sent 1"]);
    let message = &told["message"];
    assert_eq!(
        (&message["title"], &message["body"]),
        (&json!("Spring is ready"), &json!("Spring is finished and can be fetched.")),
        "{told}"
    );
    assert!(message["url"].as_str().unwrap().starts_with("https://films.example/renders/"), "{told}");
    let delivery: Uuid = message["id"].as_str().unwrap().parse().unwrap();
    assert!(!delivery.is_nil());
    assert_eq!((&told["scheme"], &told["encoding"], &told["key"]), (&json!("vapid"), &json!("aes128gcm"), &json!(key)));
    assert_eq!(told["claims"]["sub"], "mailto:ops@films.example");
}
