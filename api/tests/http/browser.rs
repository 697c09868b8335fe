//! The dashboard in a real Chromium: every page in both languages, light and dark, and the ways people go. Takes `chromedriver`; see
//! `scripts/dashboard.sh`. Pictures are kept where `FLATRENDER_PICTURES` says.

mod driver;
mod journeys;
mod platform;

use crate::{
    jane::{PASSWORD, person},
    world::{World, png, request, with_json},
};
use axum::http::Method;
use driver::Browser;
use flatrender_engine::{
    Client, Worker,
    operations::{Operations, Rate, Terms},
    schedules::Schedules,
};
use flatrender_workflows::{
    definitions::{keep_months::KeepMonths, retire_months::RetireMonths, schedules},
    models::DEFAULT_TENANT,
};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{net::SocketAddr, path::PathBuf};
use uuid::Uuid;

/// What somebody might call things so that a page runs it.
const WILD: [&str; 4] = [
    "<img src=x onerror=window.wild=1>",
    "\"><script>window.wild=1</script>",
    "javascript:window.wild=1",
    "</title><svg onload=window.wild=1>{{constructor.constructor('window.wild=1')()}}",
];

/// The line of the command line that was shown last.
const LINE: &str = "[...document.querySelectorAll('.toast .cli code')].at(-1)?.textContent";

/// Serves the world on a port of this machine.
async fn serve(world: &World) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let service = world.router.clone().into_make_service_with_connect_info::<SocketAddr>();
    let stopping = world.stopping.clone();
    tokio::spawn(async move {
        axum::serve(listener, service).with_graceful_shutdown(stopping.cancelled_owned()).await.unwrap();
    });
    base
}

/// Fills the world with something of everything.
async fn furnish(world: &World) -> Uuid {
    let mut tx = world.db.begin().await.unwrap();
    for terms in schedules::all(true).unwrap() {
        Schedules::new(Client::new(world.db.clone())).ensure(&mut tx, DEFAULT_TENANT, &terms).await.unwrap();
    }
    tx.commit().await.unwrap();
    let failed = "insert into workflow.runs (id, tenant_id, kind, version, input, priority, state, business_key, error, created_at, finished_at, error_fingerprint)
        select workflow.new_run_id(workflow.now()), $1, $2, 1, jsonb_build_object('to', $3::text, 'api_key', 'x'), 0, 'failed', null, f.error, workflow.now() - m * interval '7 min' - interval '9 s',
               workflow.now() - m * interval '7 min', workflow.fingerprint(f.error)
        from generate_series(1, $5) m, lateral (select jsonb_build_object('code', $4::text, 'message', $3 || ' was refused after ' || m || ' tries', 'retryable', true,
                 'details', jsonb_build_object('log_tail', case when $2::text = 'notify' then '[]' else jsonb_build_array($3::text, 'the last line') end,
                                               'log', 'all that it said'))) f (error)";
    let told = [
        ("notify", "mail for jane@example.com", "smtp.refused", 9),
        ("webhook", WILD[0], "http.unreachable", 5),
        ("keep_months", WILD[1], "months.faulty", 3),
        ("retire_months", WILD[2], "months.held", 2),
    ];
    for (kind, message, code, many) in told {
        sqlx::query(failed)
            .bind(DEFAULT_TENANT)
            .bind(kind)
            .bind(message)
            .bind(code)
            .bind(many)
            .execute(&world.db)
            .await
            .unwrap();
    }
    let mut db = world.db.acquire().await.unwrap();
    let wild =
        flatrender_workflows::models::identity::tenant::create(&mut db, "wild", WILD[3], "en", "UTC").await.unwrap();
    assert!(wild.is_some());
    drop(db);
    let node = world.node("render-01").await;
    let found = json!({"checks": [{"name": "probe:lottie", "ok": false, "found": WILD[0], "fix": WILD[1]}]});
    assert_eq!(node.call("/v1/nodes/probe", found).await.status, 204);
    let held = "insert into render.node_template_cache (node_id, package_sha256, bytes, state) select id, repeat('a', 64), 5000, 'ready' from render.nodes";
    sqlx::query(held).execute(&world.db).await.unwrap();
    world.node("render-02").await;
    world.order().await;
    let picture = world.upload("logo.png", png([0x1d, 0x4e, 0xd8])).await.json()["id"].clone();
    let traced = world.post("/v1/templates/tiny/svg-previews", json!({ "file_id": picture })).await;
    assert_eq!(traced.status, 201, "{:?}", traced.body);
    let keeper = world.key_for(DEFAULT_TENANT, &["admin"]).await.1;
    let account = json!({ "name": WILD[0], "provider": "smtp",
        "config": { "url": "smtps://mail.example.com", "from": "films@example.com" } });
    let added = world.send(with_json(request(Method::POST, "/v1/notification-accounts", &keeper), &account)).await;
    assert_eq!(added.status, 201, "{:?}", added.body);
    let client = Client::new(world.db.clone());
    let mut tx = world.db.begin().await.unwrap();
    let run = client.start(&mut tx, DEFAULT_TENANT, None, KeepMonths { at: None }).await.unwrap().run_id;
    tx.commit().await.unwrap();
    let worker = Worker::builder(world.db.clone()).workflow::<KeepMonths>().build();
    let stop = world.stopping.child_token();
    tokio::spawn(async move { worker.run(stop).await.unwrap() });
    client.finished(run, std::time::Duration::from_secs(20)).await.unwrap().expect("it ends");
    let mut tx = world.db.begin().await.unwrap();
    let by = flatrender_engine::operations::By::new("cli").because("the storage is being moved");
    Operations::new(client).pause_queue(&mut tx, &by, "node.snapshot").await.unwrap();
    tx.commit().await.unwrap();
    run
}

/// The id of what a key of this scope has the API make.
async fn made(world: &World, scope: &str, path: &str, body: Value) -> String {
    let key = world.key_for(DEFAULT_TENANT, &[scope]).await.1;
    let answer = world.send(with_json(request(Method::POST, path, &key), &body)).await;
    assert_eq!(answer.status, 201, "{:?}", answer.body);
    answer.json()["id"].as_str().unwrap().to_owned()
}

/// A run that nobody works on.
async fn waiting(world: &World) -> Uuid {
    let client = Client::new(world.db.clone());
    let mut tx = world.db.begin().await.unwrap();
    let run = client.start(&mut tx, DEFAULT_TENANT, None, RetireMonths { at: None }).await.unwrap().run_id;
    tx.commit().await.unwrap();
    run
}

/// Another, with 120 steps; after half of them it has asked for `render`, which nobody works on either.
async fn long(world: &World) -> Uuid {
    let run = waiting(world).await;
    let steps = "insert into workflow.steps (run_id, seq, tenant_id, key, kind, outcome, recorded_at)
        select id, n, tenant_id, 'chunk ' || n, 'step', 'ok', created_at + n * interval '1 ms'
        from workflow.runs, generate_series(1, 120) n where id = $1";
    let task = "insert into workflow.tasks (kind, run_id, tenant_id, step_key, queue, activity, input, run_at, max_failures, max_losses,
                                backoff_base_seconds, backoff_cap_seconds, lease_seconds, start_to_close_seconds)
        select 'activity', id, tenant_id, 'render', 'media', 'render_chunk', '{}', created_at + interval '60 ms', 3, 20, 1, 60, 30, 3600
        from workflow.runs where id = $1";
    for sql in [steps, task] {
        sqlx::query(sql).bind(run).execute(&world.db).await.unwrap();
    }
    run
}

/// A payment that waits for people, and what one of them said of it.
async fn in_review(world: &World, user: Uuid) -> Uuid {
    let sql = "with payment as (
            insert into identity.payments (tenant_id, user_id, purpose, credits, amount, currency, state, provider, provider_ref, review_code, review_at,
                                           idempotency_key, price_snapshot, expires_at, workflow_run_id)
            values ($1, $2, 'credits', 600, 1520, 'USD', 'review', 'stripe', 'cs_1', 'payment.amount_differs', now(), 'k', '{}', now() + interval '1 day',
                    gen_random_uuid())
            returning id)
        insert into identity.payment_decisions (tenant_id, payment_id, outcome, provider_txn, amount, currency, evidence, proposed_by)
        select $1, id, 'paid', 'pi_1', 1520, 'USD', $3, $2 from payment returning payment_id";
    sqlx::query_scalar(sql).bind(DEFAULT_TENANT).bind(user).bind(WILD[0]).fetch_one(&world.db).await.unwrap()
}

async fn keep(browser: &Browser, name: &str) {
    let Ok(folder) = std::env::var("FLATRENDER_PICTURES") else { return };
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(PathBuf::from(folder).join(format!("{name}.png")), browser.picture().await).unwrap();
}

/// Somebody who has these roles, signed in: where, and their browser.
async fn enter(world: &World, email: &str, roles: &[&str]) -> (String, Browser) {
    person(world, email, roles).await;
    let base = serve(world).await;
    let browser = Browser::start().await;
    sign_in(&browser, &base, email).await;
    (base, browser)
}

async fn sign_in(browser: &Browser, base: &str, email: &str) {
    browser.go(&format!("{base}/dashboard")).await;
    browser.write("input[name=email]", email).await;
    browser.write("input[name=password]", PASSWORD).await;
    browser.click("form button[type=submit]").await;
    // The door has a heading, too.
    browser.until("document.querySelector('.frame .nav a') && document.querySelector('main h1')").await;
}

/// What the pages say in a language, by the key of the message; the form for many where it has several.
fn says(language: &str, key: &str) -> String {
    let messages = match language {
        "fa" => include_str!("../../assets/dashboard/messages/fa.js"),
        _ => include_str!("../../assets/dashboard/messages/en.js"),
    };
    let (_, rest) = messages.split_once(&format!("\"{key}\": ")).unwrap_or_else(|| panic!("nothing says {key}"));
    let (_, text) = rest.split_once(if rest.starts_with('{') { "other: \"" } else { "\"" }).unwrap();
    text.split('"').next().unwrap().to_owned()
}

/// A number as the pages write it in a language.
fn number(language: &str, n: u32) -> String {
    let zero = if language == "fa" { '۰' } else { '0' };
    let digit = |c: char| char::from_u32(u32::from(zero) + c.to_digit(10).unwrap()).unwrap();
    n.to_string().chars().map(digit).collect()
}

/// Has the pages speak a language from now on, and begins with the first of them.
async fn speak(browser: &Browser, base: &str, language: &str) {
    browser.run(&format!("localStorage.setItem('flatrender.language', '{language}')")).await;
    browser.go(&format!("{base}/dashboard")).await;
    browser.until(QUIET).await;
    let dir = if language == "fa" { "rtl" } else { "ltr" };
    let stands = browser.run("return [document.documentElement.lang, document.documentElement.dir]").await;
    assert_eq!(stands, json!([language, dir]));
}

/// Everything is there: nothing is loaded any more, and nothing went wrong.
const QUIET: &str = "document.querySelector('.frame main h1') && !document.querySelector('[aria-busy]') && document.fonts.status === 'loaded'";

/// Looks at a page: it says what it is, in the language, and nothing on it is amiss.
async fn look(browser: &Browser, base: &str, path: &str, language: &str) {
    browser.go(&format!("{base}/dashboard/{path}")).await;
    browser.until(QUIET).await;
    tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    let dir = if language == "fa" { "rtl" } else { "ltr" };
    let seen = browser.run("return [document.documentElement.dir, document.documentElement.lang, document.querySelectorAll('.wrong').length,
        document.documentElement.scrollWidth <= window.innerWidth, window.wild ?? null]").await;
    assert_eq!(seen, json!([dir, language, 0, true, null]), "{path}");
    // Keys of messages that nobody wrote show as themselves.
    let keys = "return [...document.querySelectorAll('main, .side')].flatMap((p) => [...p.querySelectorAll('*')]).filter((e) => !e.children.length && !e.closest('.mono, pre, bdi, code'))
        .map((e) => e.textContent).filter((text) => /^[a-z_]+[.][a-z_.]+$/.test(text) || /[{][a-z]+[}]/.test(text) && !text.includes('constructor'))";
    assert_eq!(browser.run(keys).await, json!([]), "{path} in {language}");
    if let Ok(axe) = std::env::var("FLATRENDER_AXE") {
        let source = std::fs::read_to_string(axe).unwrap();
        let check = "return axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'] })
            .then((r) => r.violations.map((v) => v.id + ': ' + v.nodes.slice(0, 3).map((n) => n.target + ' ' + n.any.concat(n.all).map((a) => a.message).join()).join(' | ')))";
        let found = browser.run(&format!("{source}\n{check}")).await;
        assert_eq!(found, json!([]), "{path} in {language}");
    }
    assert_eq!(browser.complaints().await, [""; 0], "{path}");
}

#[sqlx::test(migrations = "../migrations")]
#[ignore = "takes chromedriver: scripts/dashboard.sh"]
async fn every_page_stands_in_both_languages_light_and_dark(db: PgPool) {
    let world = World::new(db).await;
    let run = furnish(&world).await;
    let root = person(&world, "root@example.com", &["owner", "platform_admin"]).await;
    let base = serve(&world).await;
    let browser = Browser::start().await;
    browser.go(&format!("{base}/dashboard")).await;
    browser.until("document.querySelector('input[name=email]')").await;
    keep(&browser, "door").await;
    sign_in(&browser, &base, "root@example.com").await;
    let failure: String =
        sqlx::query_scalar("select error_fingerprint from workflow.runs where kind = 'webhook' limit 1")
            .fetch_one(&world.db)
            .await
            .unwrap();
    let node: Uuid = sqlx::query_scalar("select id from render.nodes limit 1").fetch_one(&world.db).await.unwrap();
    let failed: Uuid =
        sqlx::query_scalar("select id from workflow.runs where kind = 'keep_months' and state = 'failed' limit 1")
            .fetch_one(&world.db)
            .await
            .unwrap();
    let schedule: Uuid =
        sqlx::query_scalar("select id from workflow.schedules limit 1").fetch_one(&world.db).await.unwrap();
    let payment = in_review(&world, root).await;
    let bill = "insert into identity.invoices (tenant_id, series, year, buyer, currency, net_amount, tax_amount, total_amount, payment_id)
        values ($1, 'INV', 2026, '{}', 'USD', 1520, 0, 1520, $2) returning id";
    let bill: Uuid = sqlx::query_scalar(bill).bind(DEFAULT_TENANT).bind(payment).fetch_one(&world.db).await.unwrap();
    sqlx::query("select identity.issue_invoice($1, '2026-06-11')").bind(bill).execute(&world.db).await.unwrap();
    let differs = "insert into identity.provider_reconciliations (tenant_id, provider, day, currency, our_amount, their_amount, state, note)
        values ($1, 'stripe', '2026-11-20', 'USD', 5, 9, 'open', $2)";
    sqlx::query(differs).bind(DEFAULT_TENANT).bind(WILD[0]).execute(&world.db).await.unwrap();
    let film: Uuid =
        sqlx::query_scalar("select workflow_run_id from render.render_jobs").fetch_one(&world.db).await.unwrap();
    let hook = made(&world, "webhooks", "/v1/webhooks", json!({ "url": "https://acme.example/hook" })).await;
    let again =
        json!({ "action": "retry", "filter": { "states": ["failed"], "code": "months.faulty" }, "reason": WILD[0] });
    let many = made(&world, "admin", "/v1/operate/bulk", again).await;
    let pages = [
        ("now", "now".to_owned()),
        ("failures", "failures".to_owned()),
        ("failure", format!("failures/{}", failure.replace(':', "%3A"))),
        ("runs", "runs".to_owned()),
        ("run", format!("runs/{run}")),
        ("run-failed", format!("runs/{failed}")),
        ("run-film", format!("runs/{film}")),
        ("dead", "dead".to_owned()),
        ("bulk", "bulk".to_owned()),
        ("bulk-one", format!("bulk/{many}")),
        ("bulk-new", "bulk/new?action=retry&filter=%7B%22code%22%3A%22months.faulty%22%7D".to_owned()),
        ("queues", "queues".to_owned()),
        ("nodes", "nodes".to_owned()),
        ("node", format!("nodes/{node}")),
        ("tokens", "nodes/tokens".to_owned()),
        ("schedules", "schedules".to_owned()),
        ("schedule", format!("schedules/{schedule}")),
        ("projects", "projects".to_owned()),
        ("project", "projects/tiny".to_owned()),
        ("colours", "projects/tiny/colours".to_owned()),
        ("versions", "versions".to_owned()),
        ("audit", "audit".to_owned()),
        ("audit-all", "audit?of=all".to_owned()),
        ("tenants", "tenants".to_owned()),
        ("tenant", format!("tenants/{DEFAULT_TENANT}")),
        ("webhooks", "webhooks".to_owned()),
        ("webhook", format!("webhooks/{hook}")),
        ("webhook-missed", format!("webhooks/{hook}?state=missed")),
        ("notifications", "notifications".to_owned()),
        ("words", "notifications/words".to_owned()),
        ("word", "notifications/words/render.completed".to_owned()),
        ("payments", "payments".to_owned()),
        ("payment", format!("payments/{payment}")),
        ("differences", "payments/differences".to_owned()),
        ("refunds", "payments/refunds".to_owned()),
    ];
    for (language, theme) in [("en", "light"), ("fa", "dark"), ("en", "dark"), ("fa", "light")] {
        browser.run(&format!("localStorage.setItem('flatrender.language', '{language}'); localStorage.setItem('flatrender.theme', '{theme}')")).await;
        // The second pass of a language is for its colours: those are told apart on the pages that have most of them.
        let second = (language, theme) == ("en", "dark") || (language, theme) == ("fa", "light");
        for (name, path) in
            pages.iter().filter(|(name, _)| !second || ["now", "runs", "run-failed", "failures"].contains(name))
        {
            look(&browser, &base, path, language).await;
            keep(&browser, &format!("{name}-{language}-{theme}")).await;
        }
    }
}

#[sqlx::test(migrations = "../migrations")]
#[ignore = "takes chromedriver: scripts/dashboard.sh"]
async fn who_keeps_a_tenant_sees_what_is_theirs(db: PgPool) {
    let world = World::new(db).await;
    furnish(&world).await;
    let (base, browser) = enter(&world, "ann@example.com", &["admin"]).await;
    let pages = browser.run("return [...document.querySelectorAll('.nav a')].map((a) => a.dataset.page)").await;
    assert_eq!(
        pages,
        json!([
            "now",
            "failures",
            "runs",
            "dead",
            "bulk",
            "projects",
            "audit",
            "tenants",
            "webhooks",
            "notifications",
            "payments"
        ])
    );
    browser.go(&format!("{base}/dashboard/queues")).await;
    browser.until("document.querySelector('.none strong')?.textContent === 'Not for your role'").await;
    // What counts for whoever chose nothing is changed, and tells its line of the command line.
    browser.keys(&["g", "e"]).await;
    browser.click("[data-key='renders/email']").await;
    browser.until("document.querySelector('[role=dialog] select[name=what]')").await;
    browser.run("document.querySelector('[role=dialog] select[name=what]').value = 'off'").await;
    browser.click("[role=dialog] button[type=submit]").await;
    browser.until(&format!("{LINE} === 'flatrender notifications default renders email off'")).await;
    let told = "select enabled from notification.notification_preferences where user_id is null and category = 'renders' and channel = 'email'";
    assert!(!sqlx::query_scalar::<_, bool>(told).fetch_one(&world.db).await.unwrap());
    browser.until("document.querySelector(\"[data-key='renders/email'] .tag\")").await;
    let stood = browser.run("return document.activeElement.dataset.key ?? null").await;
    assert_eq!(stood, "renders/email", "who changed it stands where they stood");
    keep(&browser, "journey-default").await;
    // Where nothing is left to be sent again, that is said.
    let hook = made(&world, "webhooks", "/v1/webhooks", json!({ "url": "https://acme.example/hook" })).await;
    browser.go(&format!("{base}/dashboard/webhooks/{hook}?state=missed")).await;
    browser.click("[data-act='webhooks.again']").await;
    browser.click("[role=dialog] button[type=submit]").await;
    browser.until(&format!("{LINE} === 'flatrender webhooks replay {hook} --state missed'")).await;
    let told = browser.run("return document.querySelector('.toast:last-child .state').textContent").await;
    assert_eq!(told, says("en", "webhooks.again.none"));
    // What others want done to many runs is theirs to begin.
    let again = json!({ "action": "retry", "filter": { "code": "months.faulty" }, "reason": "it is mended" });
    let many = made(&world, "admin", "/v1/operate/bulk", again).await;
    browser.go(&format!("{base}/dashboard/bulk/{many}")).await;
    browser.until("document.querySelector('main .state[data-state=previewed]')").await;
    assert_eq!(browser.run("return document.querySelectorAll('.head .b').length").await, 0);
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[sqlx::test(migrations = "../migrations")]
#[ignore = "takes chromedriver: scripts/dashboard.sh"]
async fn who_runs_the_platform_makes_a_token_and_sees_it_once(db: PgPool) {
    let world = World::new(db).await;
    furnish(&world).await;
    let (base, browser) = enter(&world, "root@example.com", &["owner", "platform_admin"]).await;
    browser.go(&format!("{base}/dashboard/nodes/tokens")).await;
    browser.click("[data-act=make]").await;
    browser.write("[role=dialog] textarea[name=labels]", "gpu=rtx").await;
    browser.click("[role=dialog] button[type=submit]").await;
    browser.until("document.querySelectorAll('[role=dialog] .cli').length === 3").await;
    let lines =
        browser.run("return [...document.querySelectorAll('[role=dialog] .cli code')].map((c) => c.textContent)").await;
    let token = lines[0].as_str().unwrap();
    assert_eq!(lines[1], format!("flatrender-node --server {base} --token {token}"));
    assert_eq!(lines[2], "flatrender node token --pool=default --label=gpu=rtx --minutes 60");
    keep(&browser, "journey-token").await;
    browser.keys(&["\u{E00C}"]).await;
    browser.until("!document.querySelector('[role=dialog]')").await;
    assert_eq!(browser.run("return document.activeElement.dataset.act ?? null").await, "make");
    assert_eq!(browser.run(&format!("return document.documentElement.outerHTML.includes('{token}')")).await, false);
    browser.click("tbody .b.bad").await;
    browser.click("[role=dialog] button[type=submit]").await;
    browser.until("document.querySelector('tbody .state[data-state=revoked]')").await;
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[sqlx::test(migrations = "../migrations")]
#[ignore = "takes chromedriver: scripts/dashboard.sh"]
async fn a_colour_of_a_traced_picture_changes_without_a_request(db: PgPool) {
    let world = World::new(db).await;
    furnish(&world).await;
    let (base, browser) = enter(&world, "ann@example.com", &["admin"]).await;
    browser.go(&format!("{base}/dashboard/projects/tiny/colours")).await;
    browser.until("document.querySelector('svg.traced path') && document.querySelector('input[type=file]')").await;
    // The live connection may come back meanwhile: it is another matter.
    let change = "const send = window.fetch;
        window.asked = [];
        window.fetch = (path, ...more) => {
            if (!String(path).startsWith('/v1/operate/events')) window.asked.push(path);
            return send(path, ...more);
        };
        const [path, input] = [document.querySelector('svg.traced path'), document.querySelector('input[data-slot=slot-1]')];
        const was = getComputedStyle(path).fill;
        input.value = '#ff0000';
        input.dispatchEvent(new Event('input'));
        return [was, getComputedStyle(path).fill]";
    assert_eq!(browser.run(change).await, json!(["rgb(29, 78, 216)", "rgb(255, 0, 0)"]));
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(browser.run("return window.asked").await, json!([]));
    keep(&browser, "journey-colours").await;
    browser.write(".slots input[name=slot-1]", "Sky").await;
    browser.click("[data-act=keep]").await;
    browser.until("document.querySelector('.toast')").await;
    let label = "select palette -> 0 ->> 'label' from content.template_svg_previews";
    assert_eq!(sqlx::query_scalar::<_, String>(label).fetch_one(&world.db).await.unwrap(), "Sky");
    // A picture that is chosen is traced and shown.
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("mark.png");
    std::fs::write(&picture, png([10, 200, 30])).unwrap();
    browser.choose("input[type=file]", picture.to_str().unwrap()).await;
    browser.until("document.querySelectorAll('tbody tr').length === 2 && document.querySelector('input[data-slot=slot-1]')?.value === '#0ac81e'").await;
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[sqlx::test(migrations = "../migrations")]
#[ignore = "takes chromedriver: scripts/dashboard.sh"]
async fn a_limit_that_is_changed_leaves_the_others_of_its_queue(db: PgPool) {
    let world = World::new(db).await;
    person(&world, "root@example.com", &["owner", "platform_admin"]).await;
    let operations = Operations::new(Client::new(world.db.clone()));
    let per_minute = Rate::new(100, std::time::Duration::from_secs(60)).burst(20);
    let terms = Terms { key_cap: Some(1), tenant_rate: Some(per_minute), ..Terms::default() };
    let by = flatrender_engine::operations::By::new("cli");
    let mut tx = world.db.begin().await.unwrap();
    operations.set_terms(&mut tx, &by, "webhook", &terms).await.unwrap();
    tx.commit().await.unwrap();
    let base = serve(&world).await;
    let browser = Browser::start().await;
    sign_in(&browser, &base, "root@example.com").await;
    browser.go(&format!("{base}/dashboard/queues")).await;
    let row = "tr[data-key=webhook]";
    browser.click(&format!("{row} [data-act=limit]")).await;
    browser.until("document.querySelector('[role=dialog] input[name=tenant_rate]')?.value === '100/60+20'").await;
    browser.write("[role=dialog] input[name=cap]", "20").await;
    browser.click("[role=dialog] button[type=submit]").await;
    browser.until(&format!("document.querySelector('{row}')?.textContent.includes('At once, all tenants 20')")).await;
    let all = operations.all_terms().await.unwrap();
    let kept = all.iter().find(|(name, _)| name == "webhook").unwrap().1.clone();
    assert_eq!(kept, Terms { cap: Some(20), ..terms });
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[sqlx::test(migrations = "../migrations")]
#[ignore = "takes chromedriver: scripts/dashboard.sh"]
async fn a_tab_that_is_duplicated_stays_signed_in_beside_the_first(db: PgPool) {
    let world = World::new(db).await;
    let (base, browser) = enter(&world, "root@example.com", &["owner", "platform_admin"]).await;
    browser.go(&format!("{base}/dashboard/runs")).await;
    browser.until(QUIET).await;
    // A tab that a page opens has a copy of its session storage, as a duplicated one has.
    browser.run("window.other = window.open('/dashboard/runs')").await;
    browser.until("window.other.document.querySelector('.frame main h1')").await;
    let tabs = "const tabs = [window, window.other];
        const answers = (tab) => tab.performance.getEntriesByType('resource')
            .filter((one) => one.name.includes('/v1/operate/runs') && one.responseStatus === 200).length;
        const again = (tab) => tab.document.querySelector('[data-act=refresh]').click();";
    for _ in 0..2 {
        // Both find out at the same time that their access token is good no more.
        let expire = "update identity.user_sessions set access_expires_at = created_at";
        sqlx::query(expire).execute(&world.db).await.unwrap();
        browser.run(&format!("{tabs} window.had = tabs.map(answers); tabs.forEach(again)")).await;
        browser
            .until(&format!("(() => {{ {tabs} return tabs.every((tab, n) => answers(tab) > window.had[n]) }})()"))
            .await;
    }
    assert_eq!(world.count("identity.user_sessions where revoked_at is null").await, 1);
    assert_eq!(world.count("identity.user_sessions where revoked_at is not null").await, 0);
}
