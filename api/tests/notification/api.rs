//! What people and their tenants may say and see.

use crate::{
    jane::{Jane, jane, person},
    stage::Stage,
    world::{Answer, PUBLIC_URL, request, with_json},
};
use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use flatrender_workflows::{
    contracts::notify::Channel,
    models::{
        DEFAULT_TENANT, Role, Scope,
        notification::{address, audience::Audience, suppression},
    },
};
use futures::StreamExt as _;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::Duration;
use tower::ServiceExt as _;
use uuid::Uuid;

async fn put(jane: &Jane<'_>, path: &str, body: Value) -> Answer {
    jane.world.send(with_json(request(Method::PUT, path, &jane.access), &body)).await
}

async fn patch(jane: &Jane<'_>, path: &str, body: Value) -> Answer {
    jane.world.send(with_json(request(Method::PATCH, path, &jane.access), &body)).await
}

async fn bare(stage: &Stage, method: Method, uri: &str) -> Answer {
    stage.world.send(Request::builder().method(method).uri(uri).body(Body::empty()).unwrap()).await
}

#[sqlx::test(migrations = "../migrations")]
async fn people_read_what_they_were_told_and_nobody_elses(db: PgPool) {
    let stage = Stage::new(db).await;
    let jane = jane(&stage.world, &["editor"]).await;
    let joe = stage.world.person(DEFAULT_TENANT, "joe@example.com", &["editor"]).await;
    for n in 0..3 {
        stage.happens("snapshot_batch.completed", Audience::User(jane.id), json!({"done": n})).await;
        stage.happens("snapshot_batch.completed", Audience::User(joe), json!({})).await;
        stage.play().await;
    }
    let counts = async || jane.get("/v1/notifications/counts").await.json();
    assert_eq!(counts().await, json!({"unread": 3, "total": 3}));
    let first = jane.get("/v1/notifications?limit=2").await.json();
    assert_eq!((first["data"].as_array().unwrap().len(), &first["has_more"]), (2, &json!(true)));
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = jane.get(&format!("/v1/notifications?limit=2&starting_after={cursor}")).await.json();
    let ids: Vec<&str> = [&first, &second]
        .iter()
        .flat_map(|p| p["data"].as_array().unwrap())
        .map(|n| n["id"].as_str().unwrap())
        .collect();
    assert_eq!((ids.len(), &second["has_more"]), (3, &json!(false)));
    let path = format!("/v1/notifications/{}", ids[0]);
    assert!(patch(&jane, &path, json!({"read": true})).await.json()["read_at"].is_string());
    assert_eq!(counts().await["unread"], 2);
    assert_eq!(jane.get("/v1/notifications?unread=true").await.json()["data"].as_array().unwrap().len(), 2);
    assert!(patch(&jane, &path, json!({"read": false})).await.json()["read_at"].is_null());
    let until = first["data"][1]["created_at"].clone();
    assert_eq!(jane.post("/v1/notifications/read-all", json!({"until": until})).await.json(), json!({"read": 2}));
    assert_eq!(jane.post("/v1/notifications/read-all", json!({})).await.json(), json!({"read": 1}));
    assert_eq!(jane.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(jane.delete(&path).await.problem(), "notification.not_found");
    assert_eq!(counts().await["total"], 2);
    let his: Uuid = sqlx::query_scalar("select id from notification.notifications where user_id = $1 limit 1")
        .bind(joe)
        .fetch_one(&stage.world.db)
        .await
        .unwrap();
    assert_eq!(
        patch(&jane, &format!("/v1/notifications/{his}"), json!({"read": true})).await.problem(),
        "notification.not_found"
    );
}

#[sqlx::test(migrations = "../migrations")]
async fn a_stream_tells_what_comes_and_goes_on_where_it_was_cut(db: PgPool) {
    let stage = Stage::new(db).await;
    let jane = jane(&stage.world, &["editor"]).await;
    let open = async |last: Option<&str>| {
        let mut builder = request(Method::GET, "/v1/notifications/events", &jane.access);
        if let Some(last) = last {
            builder = builder.header("last-event-id", last);
        }
        let response = stage.world.router.clone().oneshot(builder.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        response.into_body().into_data_stream()
    };
    let next = async |stream: &mut axum::body::BodyDataStream| {
        let event =
            tokio::time::timeout(Duration::from_secs(10), stream.next()).await.expect("an event").unwrap().unwrap();
        let text = String::from_utf8(event.to_vec()).unwrap();
        let field = |name: &str| {
            text.lines().find_map(|l| l.strip_prefix(name).map(|v| v.trim_start_matches(':').trim().to_owned()))
        };
        let data: Value = serde_json::from_str(&field("data").unwrap()).unwrap();
        (field("id").unwrap(), data["title"].as_str().unwrap().to_owned())
    };
    let mut stream = open(None).await;
    stage.tell("subscription.cancelled", jane.id, json!({})).await;
    let (id, title) = next(&mut stream).await;
    assert_eq!(title, "Your plan ends");
    drop(stream);
    stage.tell("subscription.renewed", jane.id, json!({})).await;
    let mut stream = open(Some(&id)).await;
    let mut came = vec![next(&mut stream).await.1];
    if came[0] == "Your plan ends" {
        came.push(next(&mut stream).await.1);
    }
    assert_eq!(came.last().unwrap(), "Your plan goes on", "nothing is missed: {came:?}");
}

#[sqlx::test(migrations = "../migrations")]
async fn s101_a_persons_choice_goes_before_their_tenants_and_that_before_what_is_usual(db: PgPool) {
    let stage = Stage::new(db).await;
    let jane = jane(&stage.world, &["owner"]).await;
    let of = async |category: &str, channel: &str| {
        let all = jane.get("/v1/me/notification-preferences").await.json();
        let data = all["data"].as_array().unwrap().clone();
        let row = data.into_iter().find(|p| p["category"] == category && p["channel"] == channel).unwrap();
        (
            row["enabled"].as_bool().unwrap(),
            row["digest"].as_str().unwrap().to_owned(),
            row["chosen_by"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(of("renders", "email").await, (true, "off".into(), "usual".into()));
    assert_eq!(of("renders", "sms").await, (false, "off".into(), "usual".into()));
    let choice = json!({"enabled": false, "digest": "daily"});
    assert_eq!(put(&jane, "/v1/notification-defaults/renders/email", choice).await.status, StatusCode::NO_CONTENT);
    assert_eq!(of("renders", "email").await, (false, "daily".into(), "tenant".into()));
    let own = "/v1/me/notification-preferences/renders/email";
    let choice = json!({"enabled": true, "quiet_start": "22:00", "quiet_end": "07:30", "timezone": "Asia/Tehran"});
    assert_eq!(put(&jane, own, choice).await.status, StatusCode::NO_CONTENT);
    assert_eq!(of("renders", "email").await, (true, "off".into(), "you".into()));
    assert_eq!(jane.delete(own).await.status, StatusCode::NO_CONTENT);
    assert_eq!(of("renders", "email").await.2, "tenant");
    assert_eq!(jane.delete("/v1/notification-defaults/renders/email").await.status, StatusCode::NO_CONTENT);
    assert_eq!(of("renders", "email").await.2, "usual");
    for (body, fault) in [
        (json!({"enabled": true, "quiet_start": "22:00"}), "/quiet_end quiet.hours"),
        (json!({"enabled": true, "quiet_start": "22:00", "quiet_end": "22:00"}), "/quiet_end quiet.hours"),
        (json!({"enabled": true, "quiet_start": "25:00", "quiet_end": "07:00"}), "/quiet_start quiet.time"),
        (json!({"enabled": true, "timezone": "Mars/Olympus"}), "/timezone timezone.unknown"),
    ] {
        assert_eq!(put(&jane, own, body).await.faults(), [fault]);
    }
    assert_eq!(
        put(&jane, "/v1/me/notification-preferences/weather/email", json!({"enabled": true})).await.problem(),
        "notification.not_found"
    );
    assert_eq!(
        put(&jane, "/v1/me/notification-preferences/digest/email", json!({"enabled": true, "digest": "daily"}))
            .await
            .problem(),
        "notification.not_found",
        "digests are of what is in them"
    );
    assert_eq!(
        put(&jane, "/v1/me/notification-preferences/renders/fax", json!({"enabled": true})).await.problem(),
        "notification.not_found"
    );
    let consent = json!({"given": true, "text": "I want to hear of new templates."});
    assert_eq!(put(&jane, "/v1/me/marketing-consent", consent).await.status, StatusCode::NO_CONTENT);
    assert_eq!(jane.get("/v1/me/notification-preferences").await.json()["marketing_consent"], true);
}

/// M47: the address in the mail works for whom and what it was made for, by POST alone, and cannot be made by anybody else.
#[sqlx::test(migrations = "../migrations")]
async fn m47_one_click_ends_a_category_and_nobody_clicks_for_others(db: PgPool) {
    let stage = Stage::new(db).await;
    let jane = person(&stage.world, "jane@example.com", &["editor"]).await;
    let joe = person(&stage.world, "joe@example.com", &["editor"]).await;
    stage.tell("render.completed", jane, json!({})).await;
    let mail = stage.mail.mails()[0].replace("\r\n ", "");
    let link = mail.lines().find_map(|l| l.strip_prefix("List-Unsubscribe: <")?.strip_suffix('>')).unwrap().to_owned();
    let path = link.strip_prefix(PUBLIC_URL).unwrap().to_owned();
    let page = bare(&stage, Method::GET, &path).await;
    assert_eq!(page.status, StatusCode::OK);
    stage.tell("render.completed", jane, json!({})).await;
    assert_eq!(stage.last().await, ["email sent 1"], "a look changes nothing");
    for forged in [
        path.replace(&jane.to_string(), &joe.to_string()),
        path.replace("category=renders", "category=billing"),
        path.replace("mark=", "mark=0"),
    ] {
        assert_eq!(bare(&stage, Method::POST, &forged).await.problem(), "unsubscribe.invalid", "{forged}");
    }
    for _ in 0..2 {
        assert_eq!(bare(&stage, Method::POST, &path).await.status, StatusCode::OK);
    }
    stage.tell("render.completed", jane, json!({})).await;
    assert_eq!(stage.last().await, ["email dropped unwanted 0"]);
    stage.tell("render.completed", joe, json!({})).await;
    assert_eq!(stage.last().await, ["email sent 1"]);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_browser_is_taken_when_it_is_one_and_tells_one_person(db: PgPool) {
    let stage = Stage::new(db).await;
    let jane = jane(&stage.world, &["editor"]).await;
    let key = jane.get("/v1/me/push-key").await.json()["key"].as_str().unwrap().to_owned();
    assert_eq!(key.len(), 87);
    assert_eq!(jane.get("/v1/me/push-key").await.json()["key"], key.as_str(), "made once");
    let keys = json!({"p256dh": key, "auth": "BTBZMqHH6r4Tts7J_aSIgg"});
    let endpoint = "https://fcm.googleapis.com/fcm/send/abc";
    let made = jane.post("/v1/me/push-subscriptions", json!({"endpoint": endpoint, "keys": keys})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{:?}", made.body);
    assert_eq!(made.json()["service"], "fcm.googleapis.com");
    for (body, fault) in [
        (json!({"endpoint": "https://push.evil.example/x", "keys": keys}), "/endpoint push.endpoint"),
        (json!({"endpoint": "https://169.254.169.254/x", "keys": keys}), "/endpoint push.endpoint"),
        (
            json!({"endpoint": endpoint, "keys": {"p256dh": "AAAA", "auth": "BTBZMqHH6r4Tts7J_aSIgg"}}),
            "/keys/p256dh push.key",
        ),
        (json!({"endpoint": endpoint, "keys": {"p256dh": key, "auth": "AAAA"}}), "/keys/auth push.key"),
    ] {
        assert_eq!(jane.post("/v1/me/push-subscriptions", body).await.faults(), [fault]);
    }
    // The same browser, for somebody else: it is theirs alone.
    let joe = person(&stage.world, "joe@example.com", &["editor"]).await;
    let joes = stage.world.session(DEFAULT_TENANT, joe).await;
    let body = json!({"endpoint": endpoint, "keys": keys});
    let again = stage.world.send(with_json(request(Method::POST, "/v1/me/push-subscriptions", &joes), &body)).await;
    assert_eq!(again.status, StatusCode::CREATED);
    assert_eq!(jane.get("/v1/me/push-subscriptions").await.json()["data"], json!([]));
    let id = again.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(jane.delete(&format!("/v1/me/push-subscriptions/{id}")).await.problem(), "push.not_found");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_tenant_says_it_in_its_own_words_under_its_own_brand(db: PgPool) {
    let stage = Stage::new(db).await;
    let jane = jane(&stage.world, &["owner"]).await;
    let reza = stage.world.person(DEFAULT_TENANT, "reza@example.com", &["editor"]).await;
    sqlx::query("update identity.users set locale = 'fa-IR' where id = $1")
        .bind(reza)
        .execute(&stage.world.db)
        .await
        .unwrap();
    let brand = "insert into identity.tenant_branding (tenant_id, product_name, primary_color, legal_footer)
                 values ('00000000-0000-0000-0000-000000000001', 'Acme <Films>', '#0055aa', 'Acme Ltd')";
    sqlx::query(brand).execute(&stage.world.db).await.unwrap();
    let fa = "/v1/notification-templates/render.completed/email/fa";
    for version in 1..=2 {
        let words = json!({"subject": "مبارک است: {{title}}", "body": format!("نسخه‌ی {version}: {{{{title}}}}\n{{{{action_url}}}}")});
        let set = put(&jane, fa, words).await;
        assert_eq!((set.status, &set.json()["version"]), (StatusCode::OK, &json!(version)), "{:?}", set.body);
    }
    let preview =
        jane.post(&format!("{fa}/preview"), json!({"data": {"title": "<img src=x onerror=alert(1)>"}})).await.json();
    let html = preview["html"].as_str().unwrap();
    assert!(
        html.contains("dir=\"rtl\"") && html.contains("نسخه‌ی 2: &lt;img src=x") && !html.contains("<img src=x"),
        "{html}"
    );
    assert!(html.contains("#0055aa") && html.contains("Acme Ltd"), "{html}");
    assert_eq!((&preview["rtl"], &preview["language"]), (&json!(true), &json!("fa")));
    stage.tell("render.completed", reza, json!({"title": "بهار"})).await;
    let mail = stage.mail.mails()[0].clone();
    assert!(mail.contains("Acme <Films>") || mail.contains("\"Acme <Films>\""), "{mail}");
    // Other languages are said in our words, and what is no language of ours in the tenant's.
    let preview = async |language: &str| {
        let path = format!("/v1/notification-templates/render.completed/email/{language}/preview");
        jane.post(&path, json!({})).await.json()["language"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        (preview("en").await, preview("fa-AF").await, preview("de").await),
        ("en".into(), "fa".into(), "en".into())
    );
    for (words, pointer) in [
        (json!({"body": "{{password}}"}), "/body template.words"),
        (json!({"body": "{{title"}), "/body template.words"),
        (json!({"body": "{{ 7*7 }}"}), "/body template.words"),
        (json!({"body": " "}), "/body template.words"),
        (json!({"subject": "a\nb", "body": "x"}), "/subject template.words"),
        (json!({"subject": " ", "body": "x"}), "/subject template.words"),
    ] {
        assert_eq!(put(&jane, fa, words).await.faults(), [pointer]);
    }
    let all = jane.get("/v1/notification-templates?kind=render.completed&all=true").await.json();
    let own: Vec<_> = all["data"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|t| !t["version"].is_null())
        .map(|t| t["state"].as_str().unwrap())
        .collect();
    assert_eq!(own, ["active", "retired"]);
    assert_eq!(jane.delete(fa).await.status, StatusCode::NO_CONTENT);
    let words = jane.post(&format!("{fa}/preview"), json!({})).await.json();
    assert!(words["text"].as_str().unwrap().contains("به پایان رسید"), "{words}");
}

#[sqlx::test(migrations = "../migrations")]
async fn what_a_provider_wants_to_know_goes_in_and_never_comes_out(db: PgPool) {
    let stage = Stage::new(db).await;
    let jane = jane(&stage.world, &["owner"]).await;
    let config = json!({"api_key": "very-secret-key", "sender": "10004346"});
    let body = json!({"name": "Line", "provider": "kavenegar", "config": config});
    let made = jane.post("/v1/notification-accounts", body.clone()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{:?}", made.body);
    assert_eq!(made.json()["channel"], "sms");
    assert_eq!(jane.post("/v1/notification-accounts", body).await.problem(), "notification_account.exists");
    let listed = jane.get("/v1/notification-accounts").await;
    assert!(!String::from_utf8_lossy(&listed.body).contains("very-secret"), "{:?}", listed.body);
    let kept: Vec<u8> = sqlx::query_scalar("select config_enc from notification.provider_accounts")
        .fetch_one(&stage.world.db)
        .await
        .unwrap();
    assert!(!kept.windows(11).any(|w| w == b"very-secret"), "it is sealed");
    for (body, fault) in [
        (json!({"name": "x", "provider": "fax", "config": {}}), "/provider notification_account.config"),
        (json!({"name": "x", "provider": "twilio", "config": {"sid": 1}}), "/config notification_account.config"),
        (
            json!({"name": "x", "provider": "telegram", "config": {"token": "t", "bot": "b", "base_url": "https://169.254.169.254/"}}),
            "/config/base_url notification_account.config",
        ),
    ] {
        assert_eq!(jane.post("/v1/notification-accounts", body).await.faults(), [fault]);
    }
    let path = format!("/v1/notification-accounts/{}", made.json()["id"].as_str().unwrap());
    assert_eq!(patch(&jane, &path, json!({"active": false})).await.status, StatusCode::NO_CONTENT);
    assert_eq!(jane.get("/v1/notification-accounts").await.json()["data"][0]["state"], "paused");
    assert_eq!(jane.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(jane.delete(&path).await.problem(), "notification_account.not_found");
}

/// A chat is connected by the link that its owner was given, for a quarter of an hour; the provider's word of what became of messages counts
/// at the address that it was given.
#[sqlx::test(migrations = "../migrations")]
async fn providers_tell_what_became_of_messages_and_chats_are_proven(db: PgPool) {
    let stage = Stage::new(db).await;
    let jane = jane(&stage.world, &["owner"]).await;
    assert_eq!(jane.post("/v1/me/telegram", json!({})).await.problem(), "telegram.no_bot");
    stage.telegram().await;
    let link = jane.post("/v1/me/telegram", json!({})).await.json()["url"].as_str().unwrap().to_owned();
    let token = link.strip_prefix("https://t.me/films_bot?start=").unwrap().to_owned();
    assert_eq!(token.len(), 64);
    let accounts = jane.get("/v1/notification-accounts").await.json();
    let hears = accounts["data"][0]["feedback_url"].as_str().unwrap().strip_prefix(PUBLIC_URL).unwrap().to_owned();
    let say = async |path: &str, body: Value| {
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        stage.world.send(request.body(Body::from(body.to_string())).unwrap()).await
    };
    let start = |token: &str, kind: &str| json!({"message": {"text": format!("/start {token}"), "chat": {"id": 4711, "type": kind}}});
    let connected = async || jane.get("/v1/me/telegram").await.json()["connected"] == true;
    let forged = format!("{}{}", &token[..63], if token.ends_with('0') { '1' } else { '0' });
    say(&hears, start(&forged, "private")).await;
    say(&hears, start(&token, "group")).await;
    assert!(!connected().await);
    assert_eq!(say(&format!("{hears}0"), start(&token, "private")).await.problem(), "unsubscribe.invalid");
    assert_eq!(say(&hears, start(&token, "private")).await.status, StatusCode::OK);
    assert!(connected().await);
    assert_eq!(say(&hears, json!({"message": {"text": "/stop", "chat": {"id": 4711}}})).await.status, StatusCode::OK);
    assert!(!connected().await);
    // It is heard by whoever's messages the platform's bot carries, and by no bot of somebody else's.
    let (acme, other) = (stage.world.tenant("acme").await, stage.world.tenant("other").await);
    let own = "insert into notification.provider_accounts (tenant_id, channel, name, provider, config_enc) values ($1, 'telegram', 'own', 'telegram', 'x')";
    sqlx::query(own).bind(other).execute(&stage.world.db).await.unwrap();
    for tenant in [acme, other] {
        let user = stage.world.person(tenant, "ann@example.com", &["editor"]).await;
        let mut tx = Scope::tenant(Role::Notification, tenant).begin(&stage.world.db).await.unwrap();
        address::connect_chat(&mut tx, tenant, user, "4711", b"sealed").await.unwrap();
        tx.commit().await.unwrap();
    }
    say(&hears, json!({"message": {"text": "/stop", "chat": {"id": 4711}}})).await;
    let left: Vec<Uuid> = sqlx::query_scalar("select tenant_id from notification.channel_addresses")
        .fetch_all(&stage.world.db)
        .await
        .unwrap();
    assert_eq!(left, [other]);
    let bot = hears;
    // A complaint about a mail that was accepted.
    let smtp = stage.account("smtp", Channel::Email, json!({"url": stage.mail.url, "from": "news@acme.example"})).await;
    stage.tell("subscription.renewed", jane.id, json!({})).await;
    assert_eq!(stage.last().await, ["email sent 1"]);
    let mail = stage.mail.mails()[0].clone();
    assert!(mail.contains("From: FlatRender <news@acme.example>"), "{mail}");
    let id = mail.lines().find_map(|l| l.strip_prefix("Message-ID: ")).unwrap().trim().to_owned();
    let accounts = jane.get("/v1/notification-accounts").await.json();
    let account =
        accounts["data"].as_array().unwrap().iter().find(|a| a["id"] == smtp.to_string().as_str()).unwrap().clone();
    let hears = account["feedback_url"].as_str().unwrap().strip_prefix(PUBLIC_URL).unwrap().to_owned();
    assert_eq!(
        say(&hears, json!([{"event": "complaint", "message_id": id}, {"event": "bounce", "message_id": "<none@x>"}]))
            .await
            .status,
        StatusCode::OK
    );
    assert_eq!(stage.last().await, ["email delivered complaint 1"]);
    stage.tell("subscription.renewed", jane.id, json!({})).await;
    assert_eq!(stage.last().await, ["email suppressed suppressed 0"]);
    let listed = jane.get("/v1/notification-suppressions").await.json();
    let hash = hex::encode(suppression::hash_of("jane@example.com"));
    assert_eq!((&listed["data"][0]["address_hash"], &listed["data"][0]["reason"]), (&json!(hash), &json!("complaint")));
    assert_eq!(
        jane.delete(&format!("/v1/notification-suppressions/email/{hash}")).await.status,
        StatusCode::NO_CONTENT
    );
    stage.tell("subscription.renewed", jane.id, json!({})).await;
    assert_eq!(stage.last().await, ["email sent 1"]);
    crate::jane::pass(&stage.world, 901).await;
    say(&bot, start(&token, "private")).await;
    let own = "notification.channel_addresses a join identity.tenants t on t.id = a.tenant_id where t.slug <> 'other'";
    assert_eq!(stage.world.count(own).await, 0, "the link is too old");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_broadcast_reaches_everybody_once_however_often_it_is_asked_for(db: PgPool) {
    let stage = Stage::new(db).await;
    let jane = jane(&stage.world, &["owner"]).await;
    for n in 0..3 {
        stage.world.person(DEFAULT_TENANT, &format!("p{n}@example.com"), &["viewer"]).await;
    }
    let body = json!({"key": "soon", "to": "everyone", "kind": "announcement", "subject": "Soon", "text": "We move on Monday."});
    for started in [true, false] {
        let answer = jane.post("/v1/notification-broadcasts", body.clone()).await;
        assert_eq!(
            (answer.status, &answer.json()["started"]),
            (StatusCode::ACCEPTED, &json!(started)),
            "{:?}",
            answer.body
        );
    }
    stage.play().await;
    assert_eq!(stage.mail.mails().len(), 4);
    let evil =
        json!({"key": "evil", "to": "everyone", "kind": "news", "subject": "x", "text": "y", "path": "//evil.example"});
    assert_eq!(jane.post("/v1/notification-broadcasts", evil).await.faults(), ["/path broadcast.path"]);
}
