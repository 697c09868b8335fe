//! `flatrender api`, which reaches all that the API does, and `--json`, which every command takes.

use crate::fake::{FILM, Fake, ending, program};
use serde_json::{Value, json};
use std::process::Output;
use tempfile::TempDir;

const ID: &str = "0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e11";

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// What a command against `fake` ends with.
async fn run(fake: &Fake, dir: &TempDir, args: &[&str]) -> Output {
    fake.command(dir.path(), args).output().await.unwrap()
}

/// The JSON that it prints, once it has gone well.
async fn told(fake: &Fake, dir: &TempDir, args: &[&str]) -> Value {
    let out = run(fake, dir, args).await;
    assert!(out.status.success(), "{args:?}: {:?}", ending(&out));
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}"))
}

fn text(out: &Output) -> String {
    String::from_utf8(out.stdout.clone()).unwrap()
}

#[tokio::test]
async fn operations_are_listed_and_described_without_a_server() {
    let dir = folder();
    let list = program(dir.path(), &["api", "--json"]).output().await.unwrap();
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    let all = list["data"].as_array().unwrap();
    assert!(all.len() > 250, "{}", all.len());
    let one = all.iter().find(|one| one["operation"] == "list_renders").unwrap();
    let known = json!({"operation": "list_renders", "method": "GET", "path": "/v1/renders", "tag": "Renders",
        "summary": "List renders"});
    assert_eq!(*one, known);

    let found = text(&program(dir.path(), &["api", "--find", "Coupon"]).output().await.unwrap());
    assert!(found.contains("\n  list_coupons ") && !found.contains("list_files"), "{found}");
    let shown = text(&program(dir.path(), &["api", "create_coupon", "--describe"]).output().await.unwrap());
    assert!(shown.starts_with("create_coupon: POST /v1/coupons\n") && shown.contains("\nBody\n  code "), "{shown}");
}

#[tokio::test]
async fn an_operation_is_called_with_its_parameters_fields_and_a_key() {
    let (dir, fake) = (folder(), Fake::start().await);
    let payment = format!("id={ID}");
    let args = ["api", "request_refund", &payment, "reason=too late", "amount=500"];
    let done = told(&fake, &dir, &args).await;
    assert_eq!(done["asked"], format!("POST /v1/payments/{ID}/refunds"));
    assert_eq!(
        (&done["by"], &done["body"]),
        (&"Bearer fr_live_test".into(), &json!({"reason": "too late", "amount": 500}))
    );
    assert!(done["key"].as_str().unwrap().parse::<uuid::Uuid>().is_ok(), "{done}");

    let used = told(&fake, &dir, &["usage", "--tenant", ID, "--from", "2026-11-01", "--json"]).await;
    assert_eq!(used["asked"], format!("GET /v1/platform/tenants/{ID}/usage?from=2026-11-01"));

    let args = ["api", "GET /v1/audit", "limit=5", "--json"];
    assert_eq!(told(&fake, &dir, &args).await["asked"], "GET /v1/audit?limit=5");
    std::fs::write(dir.path().join("key.json"), r#"{"name": "Shop", "scopes": ["files"]}"#).unwrap();
    let args = ["api", "create_api_key", "--body", "@key.json", "name=Other"];
    assert_eq!(told(&fake, &dir, &args).await["body"], json!({"name": "Other", "scopes": ["files"]}));
    let out = run(&fake, &dir, &["api", "revoke_api_key", &payment]).await;
    assert_eq!((ending(&out), text(&out)), ((0, String::new()), String::new()));
}

#[tokio::test]
async fn whoever_signs_in_needs_no_key() {
    let (dir, fake) = (folder(), Fake::start().await);
    let args = ["api", "sign_in", "email=jane@example.com", "--body", r#"{"password": "a secret of hers"}"#];
    let out = program(dir.path(), &args).env("FLATRENDER_URL", &fake.url).output().await.unwrap();
    let done: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&done["asked"], &done["by"]), (&"POST /v1/auth/sign-in".into(), &Value::Null));
    let out = program(dir.path(), &["api", "get_me"]).env("FLATRENDER_URL", &fake.url).output().await.unwrap();
    let (code, line) = ending(&out);
    assert!(code == 2 && line.contains("FLATRENDER_API_KEY"), "{line}");
}

#[tokio::test]
async fn a_list_is_followed_to_its_end() {
    let (dir, fake) = (folder(), Fake::start().await);
    let all = told(&fake, &dir, &["api", "list_members", "--all", "--json"]).await;
    let ids: Vec<&str> = all["data"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!((ids, &all["next_cursor"]), (vec!["a", "b", "c"], &Value::Null));
    assert!(fake.saw("GET /v1/members?limit=100") && fake.saw("GET /v1/members?limit=100&starting_after=b"));
}

#[tokio::test]
async fn events_bytes_and_headers_come_as_they_are() {
    let (dir, fake) = (folder(), Fake::start().await);
    let (id, args) = (format!("id={ID}"), ["api", "watch_operations"]);
    assert_eq!(text(&run(&fake, &dir, &args).await), "event: now\nid: 7\ndata: {\"a\":1}\n\n");
    let args = ["api", "watch_operations", "--json"];
    assert_eq!(told(&fake, &dir, &args).await, json!({"event": "now", "data": {"a": 1}}));

    assert_eq!(run(&fake, &dir, &["api", "download_export", &id]).await.stdout, FILM);
    let out = run(&fake, &dir, &["api", "download_export", &id, "--out", "my.mp4"]).await;
    assert_eq!((ending(&out), out.stdout), ((0, String::new()), vec![]));
    assert_eq!(std::fs::read(dir.path().join("my.mp4")).unwrap(), FILM);
    for version in [["Tus-Resumable=1.0.0"].as_slice(), &["--header", "Tus-Resumable=1.0.0"]] {
        let args = [["api", "upload_offset", &id, "--json"].as_slice(), version].concat();
        assert_eq!(told(&fake, &dir, &args).await["upload-offset"], "5");
    }

    std::fs::write(dir.path().join("logo.png"), "picture").unwrap();
    let args = ["api", "upload_file", "name=logo.png", "--body", "@logo.png"];
    assert_eq!(told(&fake, &dir, &args).await["id"], "f1");
    assert!(fake.saw("uploaded 7 bytes"));
}

#[tokio::test]
async fn a_refusal_begins_with_its_kind_and_is_a_problem_for_programs() {
    let (dir, fake) = (folder(), Fake::start().await);
    let out = run(&fake, &dir, &["api", "get_template", "slug=nope"]).await;
    assert_eq!(ending(&out), (4, "error: no: there is no such template (template.not_found)".into()));
    for args in [["api", "get_template", "slug=nope", "--json"].as_slice(), &["templates", "nope", "--json"]] {
        let out = run(&fake, &dir, args).await;
        let (code, line) = ending(&out);
        let problem = json!({"type": "about:blank", "title": "no", "status": 404, "code": "template.not_found",
            "detail": "there is no such template"});
        assert_eq!((code, serde_json::from_str::<Value>(&line).unwrap()), (4, problem));
        assert!(out.stdout.is_empty());
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_a_line_before_a_server_is_asked() {
    let dir = folder();
    let cases: [(&[&str], &str); 7] = [
        (&["api", "get_rendr"], "error: there is no operation \"get_rendr\"; perhaps "),
        (&["api", "get_render"], "error: get_render needs id: "),
        (&["api", "get_render", "id=7"], "error: id: \"7\" is not what is wanted: string (uuid)"),
        (&["api", "create_coupon", "colour=red"], "error: create_coupon takes no colour; it takes "),
        (&["api", "create_api_key", "--body", "@none.json"], "error: --body: cannot read none.json: "),
        (&["api", "get_me", "--all"], "error: --all: get_me is no list that comes in pages"),
        (&["api", "get_me", "--out", "nowhere/me.json"], "error: --out: there is no folder nowhere"),
    ];
    for (args, said) in cases {
        let (code, line) = ending(&program(dir.path(), args).output().await.unwrap());
        assert!(code == 2 && line.starts_with(said), "{args:?}: {code} {line}");
    }
}

#[tokio::test]
async fn wrong_arguments_are_a_problem_for_programs() {
    let dir = folder();
    for (args, said) in [(["render", "--json"], "--template"), (["runs", "--json"], "runs")] {
        let (code, line) = ending(&program(dir.path(), &args).output().await.unwrap());
        let problem: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((code, &problem["code"]), (2, &"cli.usage".into()));
        assert!(problem["detail"].as_str().unwrap().contains(said), "{args:?}: {problem}");
    }
    let (code, line) = ending(&program(dir.path(), &["--json", "templates"]).output().await.unwrap());
    let problem: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((code, &problem["code"]), (3, &"cli.no_server".into()));
}

#[tokio::test]
async fn lists_are_told_to_programs_too() {
    let (dir, fake) = (folder(), Fake::start().await);
    for (args, asked) in [
        (["webhooks", "list"].as_slice(), "GET /v1/webhooks"),
        (&["webhooks", "events"], "GET /v1/webhook-events"),
        (&["traced", "list", "promo"], "GET /v1/templates/promo/svg-previews"),
        (&["notifications", "accounts"], "GET /v1/notification-accounts"),
    ] {
        assert_eq!(told(&fake, &dir, &[args, &["--json"]].concat()).await["asked"], asked);
    }
    let files = told(&fake, &dir, &["files", "ls", "--json"]).await;
    let names: Vec<&str> = files["data"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["y", "z", "y", "z"]);
    let stills = told(&fake, &dir, &["snapshots", "promo", "--json"]).await;
    assert_eq!(stills["counts"]["error"], 0);
}
