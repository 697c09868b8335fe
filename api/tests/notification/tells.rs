//! From the event to what people have: who is told, when, and never twice.

use crate::{fakes::Deed, stage::Stage};
use chrono::{Days, NaiveDate};
use flatrender_workflows::contracts::notify::Channel;
use flatrender_workflows::models::{
    DEFAULT_TENANT, Role, Scope,
    identity::usage,
    invariants,
    notification::{
        audience::{Audience, News},
        catalogue, message,
        outcome::{self, Feedback},
        preference, suppression, template,
    },
};
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

#[sqlx::test(migrations = "../migrations")]
async fn a_finished_film_is_told_in_the_list_and_by_e_mail(db: PgPool) {
    let stage = Stage::new(db).await;
    let jane = stage.world.person(DEFAULT_TENANT, "jane@example.com", &["editor"]).await;
    stage.tell("render.completed", jane, json!({"title": "Spring <sale>\r\nBcc: x@y.z"})).await;
    assert_eq!(stage.deliveries().await, ["email sent 1"]);
    let row: (String, String, String) =
        sqlx::query_as("select title, category, severity from notification.notifications")
            .fetch_one(&stage.world.db)
            .await
            .unwrap();
    assert_eq!(row, ("Spring <sale>  Bcc: x@y.z is ready".into(), "renders".into(), "success".into()));
    let mails = stage.mail.mails();
    let [mail] = mails.as_slice() else { panic!("{mails:?}") };
    let (headers, body) = mail.split_once("\r\n\r\n").unwrap();
    for header in [
        "To: jane@example.com",
        "From: FlatRender <noreply@films.example>",
        "List-Unsubscribe-Post: List-Unsubscribe=One-Click",
    ] {
        assert!(headers.contains(header), "{header}: {headers}");
    }
    assert!(!headers.lines().any(|line| line.starts_with("Bcc")), "{headers}");
    let unfolded = headers.replace("\r\n ", "");
    assert!(unfolded.contains("List-Unsubscribe: <https://films.example/v1/unsubscribe?user="), "{unfolded}");
    let body = body.replace("=\r\n", "").replace("=3D", "=");
    assert!(body.contains("Spring &lt;sale&gt;") && !body.contains("<sale>\""), "{body}");
    assert!(body.contains("https://films.example/renders/"), "{body}");
}

/// The run is started twice, the event comes twice, and the workers lose their memory after every event: each person is told once.
#[sqlx::test(migrations = "../migrations")]
async fn an_event_is_told_once_however_often_it_comes(db: PgPool) {
    let stage = Stage::new(db).await;
    for n in 0..3 {
        stage.world.person(DEFAULT_TENANT, &format!("p{n}@example.com"), &["admin"]).await;
    }
    stage.world.person(DEFAULT_TENANT, "editor@example.com", &["editor"]).await;
    let data = json!({"quota": "storage", "percent": 80});
    let news = News {
        event_id: Uuid::now_v7(),
        code: "usage.threshold".into(),
        audience: Audience::Managers,
        subject: None,
        data,
    };
    stage.start(news.clone()).await;
    stage.play().await;
    stage.start(news.clone()).await;
    stage.play().await;
    // Another run for the same event, as after a history that was purged.
    let again = flatrender_workflows::definitions::notify::Notify::of(news);
    let mut tx = stage.world.db.begin().await.unwrap();
    stage.world.app.workflows.start(&mut tx, DEFAULT_TENANT, None, again).await.unwrap();
    tx.commit().await.unwrap();
    stage.play().await;
    assert_eq!(stage.deliveries().await, ["email sent 1"; 3]);
    assert_eq!(stage.mail.mails().len(), 3);
    assert_eq!(stage.world.count("notification.notifications").await, 3);
}

#[sqlx::test(migrations = "../migrations")]
async fn operators_hear_of_a_crashed_node_and_nobody_else_does(db: PgPool) {
    let stage = Stage::new(db).await;
    let operator = stage.world.person(DEFAULT_TENANT, "op@example.com", &["platform_operator"]).await;
    stage.world.person(DEFAULT_TENANT, "owner@example.com", &["owner"]).await;
    stage.happens("node.crashed", Audience::Operators, json!({"node": "n1", "reason": "out of memory"})).await;
    stage.play().await;
    let told: Vec<(Uuid, String)> = sqlx::query_as("select user_id, title from notification.notifications")
        .fetch_all(&stage.world.db)
        .await
        .unwrap();
    assert_eq!(told, [(operator, "Node n1 has crashed".to_owned())]);
}

/// More than a page: 1,003 people are told by two runs, each of them once.
#[sqlx::test(migrations = "../migrations")]
async fn an_audience_of_more_than_a_page_is_told_to_the_last(db: PgPool) {
    let stage = Stage::new(db).await;
    let sql = "insert into identity.users (tenant_id, email, status, locale)
               select '00000000-0000-0000-0000-000000000001', 'u' || n || '@example.com', 'active', case n % 2 when 0 then 'fa-IR' else 'en' end
               from generate_series(1, 1003) n";
    sqlx::query(sql).execute(&stage.world.db).await.unwrap();
    stage.happens("snapshot_batch.completed", Audience::Everyone, json!({"done": 3})).await;
    stage.play().await;
    let told: Vec<(String, i64)> = sqlx::query_as(
        "select title, count(distinct user_id) from notification.notifications group by title order by 2",
    )
    .fetch_all(&stage.world.db)
    .await
    .unwrap();
    assert_eq!(told, [("تصویر صحنه‌ها آماده است".to_owned(), 501), ("Scene pictures are ready".to_owned(), 502)]);
    assert!(stage.deliveries().await.is_empty(), "nobody has a browser");
}

#[sqlx::test(migrations = "../migrations")]
async fn s055_a_gift_names_its_notification(db: PgPool) {
    let stage = Stage::new(db).await;
    let jane = stage.world.person(DEFAULT_TENANT, "jane@example.com", &["editor"]).await;
    let gift: Uuid = sqlx::query_scalar(
        "with g as (insert into identity.gift_catalog (tenant_id, code, title, kind, value, stock)
                    values ('00000000-0000-0000-0000-000000000001', 'g', '{}', 'credits', 1, 1) returning id)
         insert into identity.earned_gifts (tenant_id, user_id, gift_id, period_key, reason)
         select '00000000-0000-0000-0000-000000000001', $1, id, '2026', 'r' from g returning id",
    )
    .bind(jane)
    .fetch_one(&stage.world.db)
    .await
    .unwrap();
    let news = News {
        event_id: Uuid::now_v7(),
        code: "gift.earned".into(),
        audience: Audience::User(jane),
        subject: Some(gift),
        data: json!({}),
    };
    stage.start(news).await;
    stage.play().await;
    let named = "select count(*) from identity.earned_gifts e join notification.notifications n on n.id = e.notification_id where n.user_id = $1";
    let named: i64 = sqlx::query_scalar(named).bind(jane).fetch_one(&stage.world.db).await.unwrap();
    assert_eq!(named, 1);
}

/// What people want: hours of rest by their wall, digests, nothing at all, and what is critical in spite of it.
#[sqlx::test(migrations = "../migrations")]
async fn people_are_told_as_they_want(db: PgPool) {
    let stage = Stage::new(db).await;
    let person = async |email: &str| stage.world.person(DEFAULT_TENANT, email, &["editor"]).await;
    // Nothing by e-mail.
    let off = person("off@example.com").await;
    stage.wants(off, "renders", "email", false, "").await;
    stage.wants(off, "billing", "email", false, "").await;
    stage.tell("render.completed", off, json!({})).await;
    assert_eq!(stage.last().await, ["email dropped unwanted 0"]);
    stage.tell("payment.paid", off, json!({"amount": "10 EUR"})).await;
    assert_eq!(stage.last().await, ["email sent 1"], "a receipt comes all the same");
    // Whatever the hour is now, their rest has begun and lasts for an hour more.
    let resting = person("resting@example.com").await;
    let sql = "insert into notification.notification_preferences (tenant_id, user_id, category, channel, enabled, quiet_start, quiet_end, timezone)
               select $1, $2, 'renders', 'email', true, (w - interval '1 minute')::time, (w + interval '1 hour')::time, 'Asia/Tehran'
               from (select workflow.now() at time zone 'Asia/Tehran' as w) w";
    sqlx::query(sql).bind(DEFAULT_TENANT).bind(resting).execute(&stage.world.db).await.unwrap();
    stage.tell("render.completed", resting, json!({})).await;
    assert_eq!(stage.last().await, ["email sent 1"]);
    let waited: bool = sqlx::query_scalar(
        "select d.updated_at - d.created_at between interval '59 minutes' and interval '62 minutes'
         from notification.notification_deliveries d join notification.notifications n on n.id = d.notification_id
         where n.user_id = $1 and d.channel = 'email'",
    )
    .bind(resting)
    .fetch_one(&stage.world.db)
    .await
    .unwrap();
    assert!(waited, "until the rest was over");
    // What is read within the platform is not told by e-mail any more.
    let reader = person("reader@example.com").await;
    stage.happens("render.completed", Audience::User(reader), json!({})).await;
    let read = "create function notification.read() returns trigger language plpgsql as $$ begin new.read_at = now(); return new; end $$;
                create trigger read_at_once before insert on notification.notifications for each row execute function notification.read()";
    sqlx::raw_sql(read).execute(&stage.world.db).await.unwrap();
    stage.play().await;
    assert!(stage.last().await.is_empty(), "{:?}", stage.last().await);
    sqlx::raw_sql("drop trigger read_at_once on notification.notifications").execute(&stage.world.db).await.unwrap();
    let mails = stage.mail.mails().len();
    // Two films of an hour come together.
    let gathering = person("gathering@example.com").await;
    stage.wants(gathering, "renders", "email", true, "digest='hourly'").await;
    stage.tell("render.completed", gathering, json!({"title": "One"})).await;
    stage.tell("render.failed", gathering, json!({"title": "Two"})).await;
    assert_eq!(stage.last().await, ["email deferred 0"]);
    assert_eq!(stage.mail.mails().len(), mails);
    crate::jane::pass(&stage.world, 3601).await;
    let mut tx = stage.world.db.begin().await.unwrap();
    let digests = flatrender_workflows::definitions::send_digests::SendDigests {};
    stage.world.app.workflows.start(&mut tx, DEFAULT_TENANT, None, digests).await.unwrap();
    tx.commit().await.unwrap();
    stage.play().await;
    let sent = stage.mail.mails();
    assert_eq!(sent.len(), mails + 1);
    assert!(sent.last().unwrap().contains("Subject: FlatRender: 2 things to know"), "{}", sent.last().unwrap());
    assert!(sent.last().unwrap().contains("One is ready"), "{}", sent.last().unwrap());
    let waiting = "select count(*) from notification.notification_deliveries where state = 'deferred'";
    assert_eq!(sqlx::query_scalar::<_, i64>(waiting).fetch_one(&stage.world.db).await.unwrap(), 0);
}

/// A message was sent, whatever is heard of it when its day is final.
#[sqlx::test(migrations = "../migrations")]
async fn a_bounce_that_comes_late_changes_no_final_day(db: PgPool) {
    let stage = Stage::new(db).await;
    let jane = stage.world.person(DEFAULT_TENANT, "jane@example.com", &["editor"]).await;
    stage.tell("render.completed", jane, json!({"title": "Spring"})).await;
    let sent = "select provider_message, (created_at at time zone 'UTC')::date from notification.notification_deliveries where channel = 'email'";
    let (message, day): (String, NaiveDate) = sqlx::query_as(sent).fetch_one(&stage.world.db).await.unwrap();
    let mut tx = Scope::platform(Role::Admin).begin(&stage.world.db).await.unwrap();
    usage::count(&mut tx, day).await.unwrap();
    usage::close(&mut tx, day + Days::new(1)).await.unwrap();
    assert!(outcome::hear(&mut tx, None, &message, Feedback::HardBounce).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(stage.last().await, ["email failed hard_bounce 1"]);
    let counted = "identity.tenant_usage_daily where metric in ('notifications_email', 'notifications_inapp') and quantity = 1 and final";
    assert_eq!(stage.world.count(counted).await, 2);
    let breaches = invariants::check(&stage.world.db, false).await.unwrap();
    assert!(breaches.iter().all(|breach| breach.invariant != 25), "{breaches:?}");
}

#[sqlx::test(migrations = "../migrations")]
async fn marketing_takes_a_yes_and_a_broken_template_tells_nobody(db: PgPool) {
    let stage = Stage::new(db).await;
    let (yes, no) = (
        stage.world.person(DEFAULT_TENANT, "yes@example.com", &["editor"]).await,
        stage.world.person(DEFAULT_TENANT, "no@example.com", &["editor"]).await,
    );
    let consent = "insert into identity.consents (tenant_id, user_id, purpose, given, text_hash, source, created_at)
                   values ('00000000-0000-0000-0000-000000000001', $1, 'marketing', $2, sha256('x'), 'test', now() + $3::int * interval '1 second')";
    for (user, given, after) in [(yes, false, 0), (yes, true, 1), (no, true, 0), (no, false, 1)] {
        sqlx::query(consent).bind(user).bind(given).bind(after).execute(&stage.world.db).await.unwrap();
    }
    stage.happens("news", Audience::Everyone, json!({"subject": "Spring", "text": "New templates"})).await;
    stage.play().await;
    let mails = stage.mail.mails();
    assert_eq!(mails.len(), 1);
    assert!(mails[0].contains("To: yes@example.com") && mails[0].contains("List-Unsubscribe: "), "{}", mails[0]);
    let listed: Vec<Uuid> =
        sqlx::query_scalar("select user_id from notification.notifications where archived_at is null")
            .fetch_all(&stage.world.db)
            .await
            .unwrap();
    assert_eq!(listed, [yes], "nor is it in the list of who said no");
    // Nobody said what the subject is.
    stage.happens("news", Audience::Everyone, json!({})).await;
    stage.play().await;
    let failed: String = sqlx::query_scalar("select error ->> 'code' from workflow.runs where state = 'failed'")
        .fetch_one(&stage.world.db)
        .await
        .unwrap();
    assert_eq!(failed, "notification.unfit");
    assert_eq!(stage.mail.mails().len(), 1);
}

/// Rolls up what was used, tells who is to be told, and gives how much was told until now.
async fn roll_up(stage: &Stage) -> i64 {
    let mut tx = stage.world.db.begin().await.unwrap();
    let roll_up = flatrender_workflows::definitions::roll_up_usage::RollUpUsage { at: None };
    stage.world.app.workflows.start(&mut tx, DEFAULT_TENANT, None, roll_up).await.unwrap();
    tx.commit().await.unwrap();
    stage.play().await;
    stage.world.count("notification.notifications").await
}

/// Where a soft limit was agreed on, it is told of instead of 80 %.
#[sqlx::test(migrations = "../migrations")]
async fn who_has_a_soft_limit_is_told_of_that(db: PgPool) {
    let stage = Stage::new(db).await;
    stage.world.person(DEFAULT_TENANT, "jane@example.com", &["owner"]).await;
    stage.world.upload("logo.png", crate::world::png([1, 2, 3])).await;
    let agree = async |limits: &'static str| {
        let sql = format!("update file_mgr.quotas set {limits} where owner_id is null and used_bytes > 0");
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&stage.world.db).await.unwrap();
    };
    agree("limit_bytes = used_bytes * 100 / 90, soft_bytes = used_bytes * 100 / 90").await;
    assert_eq!(roll_up(&stage).await, 0, "90 % are used, and nobody wants to be told before all of it is");
    agree("limit_bytes = used_bytes * 2, soft_bytes = used_bytes").await;
    assert_eq!((roll_up(&stage).await, roll_up(&stage).await), (1, 1), "once");
    let told = "select title from notification.notifications";
    let told: Vec<String> = sqlx::query_scalar(told).fetch_all(&stage.world.db).await.unwrap();
    assert_eq!(told, ["50 % of storage bytes is used"]);
}

/// A film of a person that ends, and a quota that is used up: each told once a period by the one way for all that happens.
#[sqlx::test(migrations = "../migrations")]
async fn who_uses_most_of_a_quota_is_told_once_a_period(db: PgPool) {
    let stage = Stage::new(db).await;
    let jane = stage.world.person(DEFAULT_TENANT, "jane@example.com", &["owner"]).await;
    stage.world.person(DEFAULT_TENANT, "joe@example.com", &["editor"]).await;
    stage.world.upload("logo.png", crate::world::png([1, 2, 3])).await;
    let limit = async |percent: i64| {
        let sql =
            "update file_mgr.quotas set limit_bytes = used_bytes * 100 / $1 where owner_id is null and used_bytes > 0";
        sqlx::query(sql).bind(percent).execute(&stage.world.db).await.unwrap();
    };
    let warn = async || roll_up(&stage).await;
    assert_eq!(warn().await, 0, "nothing was agreed");
    limit(50).await;
    assert_eq!(warn().await, 0);
    limit(90).await;
    assert_eq!((warn().await, warn().await), (1, 1), "80 %, once");
    limit(100).await;
    assert_eq!((warn().await, warn().await), (2, 2), "all of it, once");
    let told: Vec<(Uuid, String, String)> = sqlx::query_as(
        "select user_id, severity, title from notification.notifications order by created_at, severity desc",
    )
    .fetch_all(&stage.world.db)
    .await
    .unwrap();
    let line = |severity: &str, percent| (jane, severity.to_owned(), format!("{percent} % of storage bytes is used"));
    assert_eq!(told, [line("warning", 80), line("critical", 100)]);
    crate::jane::pass(&stage.world, 32 * 86_400).await;
    assert_eq!(warn().await, 4, "another month");
}

#[sqlx::test(migrations = "../migrations")]
async fn what_happens_to_somebody_is_told_them_when_it_commits(db: PgPool) {
    use flatrender_workflows::definitions::events::{Event, happened};
    let stage = Stage::new(db).await;
    let jane = stage.world.person(DEFAULT_TENANT, "jane@example.com", &["editor"]).await;
    let event = |kind, user_id| Event {
        tenant_id: DEFAULT_TENANT,
        kind,
        subject: Uuid::now_v7(),
        user_id,
        data: json!({"title": "Spring"}),
        occurred_at: chrono::Utc::now(),
    };
    let (told, back) = (event("render.completed", Some(jane)), event("render.failed", Some(jane)));
    let mut tx = stage.world.db.begin().await.unwrap();
    happened(&stage.world.app.workflows, &mut tx, back).await.unwrap();
    tx.rollback().await.unwrap();
    for event in [told.clone(), told, event("render.completed", None), event("render.cancelled", Some(jane))] {
        let mut tx = stage.world.db.begin().await.unwrap();
        happened(&stage.world.app.workflows, &mut tx, event).await.unwrap();
        tx.commit().await.unwrap();
    }
    stage.play().await;
    let titles: Vec<String> =
        sqlx::query_scalar("select title from notification.notifications").fetch_all(&stage.world.db).await.unwrap();
    assert_eq!(titles, ["Spring is ready"]);
    assert_eq!(stage.deliveries().await, ["email sent 1"]);
}

#[sqlx::test(migrations = "../migrations")]
async fn who_wants_something_not_in_their_list_has_it_by_the_other_channels_alone(db: PgPool) {
    let stage = Stage::new(db).await;
    let jane = stage.world.person(DEFAULT_TENANT, "jane@example.com", &["editor"]).await;
    stage.wants(jane, "renders", "inapp", false, "").await;
    stage.wants(jane, "billing", "inapp", false, "").await;
    stage.tell("render.completed", jane, json!({"title": "Spring"})).await;
    assert_eq!(stage.deliveries().await, ["email sent 1"]);
    let listed = "notification.notifications where archived_at is null";
    assert_eq!(stage.world.count(listed).await, 0);
    let inapp =
        "notification.notification_deliveries where channel = 'inapp' and state = 'dropped' and sent_at is null";
    assert_eq!(stage.world.count(inapp).await, 1, "what is not shown is not counted as told");
    stage.tell("payment.paid", jane, json!({"amount": "10 EUR"})).await;
    assert_eq!(stage.world.count(listed).await, 1, "a receipt is there all the same");
    // What nobody had in their list goes after half a year; what stands there unread stays.
    let forget = async || {
        let mut tx = Scope::platform(Role::Admin).begin(&stage.world.db).await.unwrap();
        let gone = message::forget_old(&mut tx, 100).await.unwrap();
        tx.commit().await.unwrap();
        gone
    };
    crate::jane::pass(&stage.world, 179 * 86_400).await;
    assert_eq!(forget().await, 0);
    crate::jane::pass(&stage.world, 2 * 86_400).await;
    assert_eq!((forget().await, stage.world.count(listed).await), (1, 1));
}

#[sqlx::test(migrations = "../migrations")]
async fn what_is_to_be_paid_is_told_in_the_readers_language_with_a_way_to_pay(db: PgPool) {
    let stage = Stage::new(db).await;
    let jane = stage.world.person(DEFAULT_TENANT, "jane@example.com", &["editor"]).await;
    let locale = "update identity.users set locale = 'fa-IR' where id = $1";
    sqlx::query(locale).bind(jane).execute(&stage.world.db).await.unwrap();
    let data = json!({"amount": "19.99 USD", "due": "2026-12-01", "action_url": "/billing/payments/1"});
    for code in ["subscription.renewal_soon", "subscription.reminder_1", "subscription.reminder_3"] {
        stage.tell(code, jane, data.clone()).await;
        assert_eq!(stage.last().await, ["email sent 1"], "{code}");
    }
    let titles: Vec<String> =
        sqlx::query_scalar("select title from notification.notifications order by created_at, id")
            .fetch_all(&stage.world.db)
            .await
            .unwrap();
    assert_eq!(titles[0], "تمدید اشتراک شما: 2026-12-01");
    let links = "notification.notifications where data ->> 'action_url' = '/billing/payments/1'";
    assert_eq!(stage.world.count(links).await, 3);
}

/// Makes and sends the digests that are due within the hour.
async fn send_digests(stage: &Stage) {
    crate::jane::pass(&stage.world, 3601).await;
    let mut tx = stage.world.db.begin().await.unwrap();
    let digests = flatrender_workflows::definitions::send_digests::SendDigests {};
    stage.world.app.workflows.start(&mut tx, DEFAULT_TENANT, None, digests).await.unwrap();
    tx.commit().await.unwrap();
    stage.play().await;
}

#[sqlx::test(migrations = "../migrations")]
async fn what_was_gathered_is_not_sent_to_who_does_not_want_it_any_more(db: PgPool) {
    let stage = Stage::new(db).await;
    let jane = stage.world.person(DEFAULT_TENANT, "jane@example.com", &["editor"]).await;
    let consent = "insert into identity.consents (tenant_id, user_id, purpose, given, text_hash, source, created_at)
                   values ($1, $2, 'marketing', $3, sha256('x'), 'test', workflow.now())";
    let consents = async |given: bool| {
        sqlx::query(consent).bind(DEFAULT_TENANT).bind(jane).bind(given).execute(&stage.world.db).await.unwrap();
    };
    consents(true).await;
    stage.wants(jane, "news", "email", true, "digest='hourly'").await;
    stage.wants(jane, "renders", "email", true, "digest='hourly'").await;
    // As it was possible once: a digest is gathered into no digest.
    stage.wants(jane, "digest", "email", true, "digest='hourly'").await;
    stage.tell("news", jane, json!({"subject": "Spring", "text": "New templates"})).await;
    stage.tell("render.completed", jane, json!({"title": "One"})).await;
    consents(false).await;
    send_digests(&stage).await;
    let mails = stage.mail.mails();
    assert_eq!(mails.len(), 1);
    assert!(mails[0].contains("Subject: FlatRender: 1 things to know") && !mails[0].contains("Spring"), "{}", mails[0]);
    assert_eq!(stage.deliveries().await, ["email dropped unwanted 1", "email sent 1", "email sent 1"]);
    // Whoever wants no more digests is told no more of what is in them, and nothing is gathered for nobody.
    let mut tx = Scope::tenant(Role::Notification, DEFAULT_TENANT).begin(&stage.world.db).await.unwrap();
    preference::opt_out_of_digests(&mut tx, DEFAULT_TENANT, jane, "email").await.unwrap();
    tx.commit().await.unwrap();
    stage.tell("render.completed", jane, json!({"title": "Two"})).await;
    assert_eq!(stage.last().await, ["email dropped unwanted 0"]);
    stage.tell("subscription.renewed", jane, json!({})).await;
    assert_eq!(stage.last().await, ["email sent 1"], "what was never gathered goes on");
}

/// A tenant's words of before they were looked at: they are its own trouble.
#[sqlx::test(migrations = "../migrations")]
async fn words_that_do_not_fit_keep_nobody_else_from_their_digest(db: PgPool) {
    let stage = Stage::new(db).await;
    let jane = stage.world.person(DEFAULT_TENANT, "jane@example.com", &["editor"]).await;
    let sara = stage.world.person(DEFAULT_TENANT, "sara@example.com", &["editor"]).await;
    let reads = "update identity.users set locale = 'fa' where id = $1";
    sqlx::query(reads).bind(sara).execute(&stage.world.db).await.unwrap();
    let kind = catalogue::find(catalogue::DIGEST).unwrap();
    let mut tx = Scope::tenant(Role::Notification, DEFAULT_TENANT).begin(&stage.world.db).await.unwrap();
    template::put(&mut tx, DEFAULT_TENANT, kind, Channel::Email, "en", Some(" "), "{{items}}").await.unwrap();
    tx.commit().await.unwrap();
    for reader in [jane, sara] {
        stage.wants(reader, "renders", "email", true, "digest='hourly'").await;
        stage.tell("render.completed", reader, json!({"title": "One"})).await;
    }
    send_digests(&stage).await;
    let mails = stage.mail.mails();
    assert!(mails.len() == 1 && mails[0].contains("To: sara@example.com"), "{mails:?}");
}

/// Her browser is late, so her mail gathers it beside; then the browser has it.
#[sqlx::test(migrations = "../migrations")]
async fn what_came_by_another_channel_of_its_way_is_in_no_digest(db: PgPool) {
    let stage = Stage::new(db).await;
    let jane = stage.world.person(DEFAULT_TENANT, "jane@example.com", &["editor"]).await;
    let key = stage.vapid().await;
    stage.with_browser(jane, "push/a", &key).await;
    stage.wants(jane, "renders", "email", true, "digest='hourly'").await;
    stage.web.then([Deed::Answer(429, &[("retry-after", "600")], json!({}))]);
    stage.tell("render.completed", jane, json!({"title": "One"})).await;
    assert_eq!(stage.last().await, ["email deferred 0", "push sent 1"]);
    send_digests(&stage).await;
    assert_eq!(stage.last().await, ["email dropped elsewhere 1", "push sent 1"]);
    assert!(stage.mail.mails().is_empty(), "{:?}", stage.mail.mails());
}

/// She changed her address because the old one died, and its last bounce comes when she has the new one.
#[sqlx::test(migrations = "../migrations")]
async fn a_bounce_is_of_the_address_that_was_written_to(db: PgPool) {
    let stage = Stage::new(db).await;
    let jane = stage.world.person(DEFAULT_TENANT, "old@example.com", &["editor"]).await;
    stage.tell("render.completed", jane, json!({})).await;
    let sent = "select provider_message from notification.notification_deliveries where channel = 'email'";
    let message: String = sqlx::query_scalar(sent).fetch_one(&stage.world.db).await.unwrap();
    let moves = "update identity.users set email = 'new@example.com' where id = $1";
    sqlx::query(moves).bind(jane).execute(&stage.world.db).await.unwrap();
    let mut tx = Scope::platform(Role::Admin).begin(&stage.world.db).await.unwrap();
    assert!(outcome::hear(&mut tx, None, &message, Feedback::HardBounce).await.unwrap());
    for (address, reason) in [("old@example.com", Some("hard_bounce")), ("new@example.com", None)] {
        let hash = suppression::hash_of(address);
        let found = suppression::reason(&mut tx, DEFAULT_TENANT, Channel::Email, &hash).await.unwrap();
        assert_eq!(found.as_deref(), reason, "{address}");
    }
    tx.commit().await.unwrap();
    stage.tell("render.completed", jane, json!({})).await;
    assert_eq!(stage.last().await, ["email sent 1"]);
}
