//! `flatrender node …`: what operators do with nodes, beside the database.

use super::rows;
use flatrender_workflows::{
    contracts::node::Capabilities,
    models::{Role, Scope, render::node},
};
use serde_json::Value;
use sqlx::PgPool;
use std::process::{Command, Output};

async fn command(db: &PgPool) -> impl Fn(&[&str]) -> Output {
    let name: String = sqlx::query_scalar("select current_database()::text").fetch_one(db).await.unwrap();
    let url = std::env::var("DATABASE_URL").unwrap();
    let url = format!("{}/{name}", url.rsplit_once('/').unwrap().0);
    move |words| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_flatrender"));
        program.arg("node").args(words).args(["--database-url", &url]).output().unwrap()
    }
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[sqlx::test(migrations = "../migrations")]
async fn a_node_is_made_seen_drained_and_retired_from_the_command_line(db: PgPool) {
    let node = command(&db).await;
    let token = text(&node(&["token", "--pool", "ae", "--label", "zone=basement", "--without-probe"]));
    let mut tx = Scope::platform(Role::Render).begin(&db).await.unwrap();
    node::enrol(&mut tx, token.trim(), "n1", &Capabilities::default()).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    node(&["token"]);
    let tokens: Value = serde_json::from_str(&text(&node(&["tokens", "--json"]))).unwrap();
    let open = tokens[0]["id"].as_str().unwrap();
    assert_eq!(
        (&tokens[0]["state"], &tokens[1]["state"], &tokens[1]["node"]),
        (&"open".into(), &"used".into(), &"n1".into())
    );
    assert!(text(&node(&["tokens"])).contains(open));
    assert!(node(&["revoke-token", open]).status.success());
    assert!(!node(&["revoke-token", open]).status.success(), "it is revoked");
    let list: Value = serde_json::from_str(&text(&node(&["list", "--json"]))).unwrap();
    assert_eq!(
        (&list[0]["name"], &list[0]["pool"], &list[0]["labels"]["zone"]),
        (&"n1".into(), &"ae".into(), &"basement".into())
    );
    assert!(text(&node(&["list"])).contains("n1"));
    let shown = |output: &Output| -> Value { serde_json::from_str(&text(output)).unwrap() };
    assert_eq!(shown(&node(&["drain", "n1", "--at-once", "--json"]))["status"], "draining");
    assert_eq!(shown(&node(&["resume", "n1", "--json"]))["status"], "online");
    let slept = shown(&node(&["sleep", "n1", "--from", "22:00", "--to", "06:00", "--tz", "Asia/Tehran", "--json"]));
    assert_eq!((&slept["sleep"]["from"], &slept["sleep"]["days"][0]), (&"22:00".into(), &"Mon".into()));
    assert_eq!(shown(&node(&["quarantine", "n1", "--reason", "smoke", "--json"]))["quarantine_reason"], "smoke");
    assert_eq!(shown(&node(&["release", "n1", "--json"]))["status"], "online");
    assert_eq!(shown(&node(&["retire", "n1", "--reason", "sold", "--json"]))["status"], "retired");
    let refused = node(&["drain", "n1"]);
    assert!(
        !refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("is retired"),
        "{refused:?}"
    );
    assert!(!node(&["show", "nobody"]).status.success());
    let done =
        rows(&db, "select action from identity.audit_log where actor = 'cli' and action like 'node.%' order by seq")
            .await;
    let verbs =
        ["create_token", "create_token", "revoke_token", "drain", "resume", "sleep", "quarantine", "release", "retire"];
    assert_eq!(done, verbs.map(|verb| format!("node.{verb}")));
    let why =
        rows(&db, "select reason from identity.audit_log where actor = 'cli' and reason is not null order by seq")
            .await;
    assert_eq!(why, ["smoke", "sold"], "what somebody gave as their reason is kept");
}
