//! What whoever administers the platform does with nodes and tenants.

use super::{LINE, driver::Browser, enter, furnish, keep, says, speak, waiting};
use crate::{jane::PASSWORD, world::World};
use flatrender_workflows::models::DEFAULT_TENANT;
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

#[sqlx::test(migrations = "../migrations")]
#[ignore = "takes chromedriver: scripts/dashboard.sh"]
async fn a_node_is_drained_and_goes_on_in_either_language(db: PgPool) {
    let world = World::new(db).await;
    furnish(&world).await;
    let (base, browser) = enter(&world, "root@example.com", &["owner", "platform_admin"]).await;
    let node: Uuid =
        sqlx::query_scalar("select id from render.nodes where name = 'render-01'").fetch_one(&world.db).await.unwrap();
    for language in ["en", "fa"] {
        speak(&browser, &base, language).await;
        browser.go(&format!("{base}/dashboard/nodes/{node}")).await;
        for (verb, state) in [("drain", "draining"), ("resume", "online")] {
            press(&browser, &format!("nodes.{verb}")).await;
            browser.click("[role=dialog] button[type=submit]").await;
            browser.until(&format!("document.querySelector('.head .state[data-state={state}]')")).await;
            let line = format!("flatrender node {verb} -- render-01");
            browser.until(&format!("{LINE} === '{line}'")).await;
            keep(&browser, &format!("journey-{state}-{language}")).await;
            let stands: String = sqlx::query_scalar("select status::text from render.nodes where id = $1")
                .bind(node)
                .fetch_one(&world.db)
                .await
                .unwrap();
            assert_eq!(stands, state);
        }
    }
    // What it found out about itself is told, and what its cache holds may be sent away.
    let found = "[...document.querySelectorAll('main td')].some((one) => one.textContent.includes('window.wild=1'))";
    browser.until(found).await;
    browser.run("document.querySelector('[data-act=evict]').click()").await;
    browser.click("[role=dialog] button[type=submit]").await;
    browser.until("!document.querySelector('[data-act=evict]')").await;
    let going: String =
        sqlx::query_scalar("select state from render.node_template_cache").fetch_one(&world.db).await.unwrap();
    assert_eq!(going, "evicting");
    // The farm at a glance has it, and leads there.
    browser.go(&format!("{base}/dashboard/nodes")).await;
    let tile = format!("main a[href='/dashboard/nodes/{node}'] .state[data-state=online]");
    browser.until(&format!("document.querySelector(\"{tile}\")")).await;
    keep(&browser, "journey-map").await;
    assert_eq!(browser.run("return window.wild ?? null").await, json!(null));
    assert_eq!(browser.complaints().await, [""; 0]);
}

/// Presses the button that does something, wherever it stands: what was said before may lie above it.
async fn press(browser: &Browser, act: &str) {
    let button = format!("document.querySelector(\"[data-act='{act}']\")");
    browser.until(&button).await;
    browser.run(&format!("{button}.click()")).await;
}

#[sqlx::test(migrations = "../migrations")]
#[ignore = "takes chromedriver: scripts/dashboard.sh"]
async fn a_node_sleeps_by_the_clock_and_is_retired_in_either_language(db: PgPool) {
    let world = World::new(db).await;
    let (base, browser) = enter(&world, "root@example.com", &["owner", "platform_admin"]).await;
    for (language, name) in [("en", "render-01"), ("fa", "render-02")] {
        world.node(name).await;
        let node = "select id from render.nodes where name = $1";
        let node: Uuid = sqlx::query_scalar(node).bind(name).fetch_one(&world.db).await.unwrap();
        speak(&browser, &base, language).await;
        browser.go(&format!("{base}/dashboard/nodes/{node}")).await;
        press(&browser, "nodes.sleep").await;
        browser.until("document.querySelector('[role=dialog] input[name=tz]')").await;
        // A week begins on Saturday in Persian.
        let first = browser.run("return document.querySelector('[role=dialog] .line input').name").await;
        assert_eq!(first, if language == "fa" { "sat" } else { "mon" });
        let filled = "const set = (name, value) => { document.querySelector(`[role=dialog] input[name=${name}]`).value = value; };
            document.querySelectorAll('[role=dialog] .line input').forEach((one) => { one.checked = ['sat', 'sun'].includes(one.name); });
            set('from', '22:00'); set('to', '06:00'); set('tz', 'Europe/Berlin');";
        browser.run(filled).await;
        keep(&browser, &format!("journey-sleep-{language}")).await;
        browser.click("[role=dialog] button[type=submit]").await;
        let sleep =
            format!("flatrender node sleep --days=sat,sun --from=22:00 --to=06:00 --tz=Europe/Berlin -- {name}");
        browser.until(&format!("{LINE} === '{sleep}'")).await;
        assert_eq!(world.count("render.nodes where sleep ->> 'from' = '22:00'").await, 1);
        for (act, line) in [("nodes.wake", "wake"), ("nodes.rotate", "rotate-credential")] {
            press(&browser, act).await;
            browser.click("[role=dialog] button[type=submit]").await;
            browser.until(&format!("{LINE} === 'flatrender node {line} -- {name}'")).await;
        }
        assert_eq!(world.count("render.nodes where sleep is not null").await, 0);
        // For good: not without a reason.
        press(&browser, "nodes.retire").await;
        browser.click("[role=dialog] button[type=submit]").await;
        browser.until("!document.querySelector('[role=dialog] [role=alert]').hidden").await;
        browser.write("[role=dialog] input[name=reason]", "sold").await;
        keep(&browser, &format!("journey-retire-{language}")).await;
        browser.click("[role=dialog] button[type=submit]").await;
        browser.until("document.querySelector('.head .state[data-state=retired]')").await;
        browser.until(&format!("{LINE} === 'flatrender node retire --reason=sold -- {name}'")).await;
        let left = browser.run("return document.querySelector(\"[data-act^='nodes.']\")?.dataset.act ?? null").await;
        assert_eq!(left, json!(null), "nothing is to be done with it any more");
    }
    assert_eq!(world.count("render.nodes where rotate_asked_at is not null").await, 2);
    assert_eq!(world.count("identity.audit_log where action = 'node.retire' and reason = 'sold'").await, 2);
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[sqlx::test(migrations = "../migrations")]
#[ignore = "takes chromedriver: scripts/dashboard.sh"]
async fn what_is_like_a_failure_and_under_way_is_cancelled(db: PgPool) {
    let world = World::new(db).await;
    furnish(&world).await;
    waiting(&world).await;
    let (base, browser) = enter(&world, "root@example.com", &["owner", "platform_admin"]).await;
    let cause = "select error_fingerprint from workflow.runs where kind = 'retire_months' and state = 'failed' limit 1";
    let cause: String = sqlx::query_scalar(cause).fetch_one(&world.db).await.unwrap();
    let actions = "return [...document.querySelectorAll('select[name=action] option')].map((one) => one.value)";
    // What has failed is over: nothing is left to be stopped.
    browser.go(&format!("{base}/dashboard/failures/{}", cause.replace(':', "%3A"))).await;
    browser.click("[data-act=retry]").await;
    browser.until("document.querySelector('select[name=action]')").await;
    assert_eq!(browser.run(actions).await, json!(["retry"]));
    // What waits in a queue is under way, and nothing else is. Where nothing can be done, that is said, or why.
    browser.go(&format!("{base}/dashboard/bulk/new?filter={{%22queue%22:%22workflows%22}}")).await;
    browser.until("document.querySelector('select[name=action]')").await;
    assert_eq!(browser.run(actions).await, json!(["cancel", "set_priority"]));
    for (filter, said) in [
        (json!({ "states": ["running"], "code": "months.held" }), "bulk.nothing"),
        (json!({ "states": ["succeeded"] }), "bulk.nothing"),
        (json!({ "states": ["failed"], "kinds": ["scene_snapshot"], "dead": true }), "left.retry.scene_snapshot"),
    ] {
        let (filter, said) = (filter.to_string().replace('"', "%22"), says("en", said));
        browser.go(&format!("{base}/dashboard/bulk/new?action=retry&filter={filter}")).await;
        browser.until(&format!("document.querySelector('main')?.textContent.includes({said:?})")).await;
        assert_eq!(browser.run("return document.querySelector('main form')").await, json!(null));
    }
    browser.go(&format!("{base}/dashboard/failures/{}", cause.replace(':', "%3A"))).await;
    browser.click("[data-act=cancel]").await;
    browser.until("document.querySelector('select[name=action]')").await;
    assert_eq!(browser.run(actions).await, json!(["cancel", "set_priority"]));
    browser.write("input[name=reason]", "it would fail as well").await;
    browser.click("form button[type=submit]").await;
    browser.until("document.querySelector('#confirm')").await;
    let lines = "return [...document.querySelectorAll('main .cli code')].map((one) => one.textContent)";
    let lines = browser.run(lines).await;
    let filter = r#"'filter:={"kinds":["retire_months"],"states":["running"]}'"#;
    let reason = "'reason=it would fail as well'";
    assert_eq!(lines[0], format!("flatrender api preview_bulk action=cancel {filter} {reason}"));
    keep(&browser, "journey-like").await;
    // What was left there can be begun from its own page.
    let begin = lines[1].as_str().unwrap();
    let bulk = begin.split(' ').nth(3).unwrap();
    browser.go(&format!("{base}/dashboard/bulk/{bulk}")).await;
    browser.click("[data-act=begin]").await;
    browser.write("#confirm", "1").await;
    browser.click("[role=dialog] button[type=submit]").await;
    browser.until(&format!("{LINE} === '{begin}'")).await;
    browser.until("document.querySelector('main .state[data-state=finished]')").await;
    assert_eq!(world.count("workflow.audit where action = 'cancel'").await, 1);
    assert_eq!(browser.run("return window.wild ?? null").await, json!(null));
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[sqlx::test(migrations = "../migrations")]
#[ignore = "takes chromedriver: scripts/dashboard.sh"]
async fn a_tenant_is_suspended_with_a_reason_and_goes_on(db: PgPool) {
    let world = World::new(db).await;
    furnish(&world).await;
    let (base, browser) = enter(&world, "root@example.com", &["owner", "platform_admin"]).await;
    let wild: Uuid =
        sqlx::query_scalar("select id from identity.tenants where slug = 'wild'").fetch_one(&world.db).await.unwrap();
    let used = "insert into identity.tenant_usage_daily (tenant_id, day, metric, quantity)
                values ($1, (now() at time zone 'UTC')::date, 'frames', 3151)";
    sqlx::query(used).bind(wild).execute(&world.db).await.unwrap();
    browser.go(&format!("{base}/dashboard/tenants/{wild}")).await;
    browser.until("document.querySelector('main')?.textContent.includes('3,151')").await;
    browser.click("[data-act='tenants.suspend']").await;
    browser.write("[role=dialog] input[name=reason]", "unpaid").await;
    // Whoever has to prove who they are says why only once.
    let old = "update identity.user_sessions set created_at = created_at - interval '11 minutes'";
    sqlx::query(old).execute(&world.db).await.unwrap();
    browser.click("[role=dialog] button[type=submit]").await;
    browser.write("[role=dialog] input[name=password]", PASSWORD).await;
    let refused = browser.complaints().await;
    assert!(refused.iter().all(|line| line.contains("403")), "{refused:?}");
    browser.click("[role=dialog] button[type=submit]").await;
    browser.until("document.querySelector('[role=dialog] input[name=reason]')?.value === 'unpaid'").await;
    browser.click("[role=dialog] button[type=submit]").await;
    browser.until("document.querySelector('.head .state[data-state=suspended]')").await;
    browser.until(&format!("{LINE} === 'flatrender api suspend_tenant id={wild} reason=unpaid'")).await;
    browser.run("document.querySelector(\"[data-act='tenants.resume']\").click()").await;
    browser.click("[role=dialog] button[type=submit]").await;
    browser.until("document.querySelector('.head .state[data-state=active]')").await;
    browser.run("document.querySelector('[data-act=renders_per_day]').click()").await;
    for (hard, is_warned) in [("0", true), ("50", false)] {
        browser.write("[role=dialog] input[name=hard]", hard).await;
        browser.until(&format!("document.querySelector('[role=dialog] [role=alert]').hidden === {}", !is_warned)).await;
    }
    browser.click("[role=dialog] button[type=submit]").await;
    let line = format!("flatrender api set_tenant_limit id={wild} name=renders_per_day hard=50");
    browser.until(&format!("{LINE} === '{line}'")).await;
    assert_eq!(world.count("identity.tenant_limits where name = 'renders_per_day' and hard = 50").await, 1);
    // The platform's own is limited, and never suspended.
    browser.go(&format!("{base}/dashboard/tenants/{DEFAULT_TENANT}")).await;
    browser.until("document.querySelector('[data-act=seats]')").await;
    let suspend = "return document.querySelectorAll(\"[data-act='tenants.suspend']\").length";
    assert_eq!(browser.run(suspend).await, 0);
    assert_eq!(browser.run("return window.wild ?? null").await, json!(null));
    assert_eq!(browser.complaints().await, [""; 0]);
}
