//! What whoever administers the platform does with nodes and tenants.

use super::{driver::Browser, furnish, keep, serve, sign_in};
use crate::{jane::person, world::World};
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

/// The line of the command line that was shown last.
const LINE: &str = "[...document.querySelectorAll('.toast .cli code')].at(-1)?.textContent";

#[sqlx::test(migrations = "../migrations")]
#[ignore = "takes chromedriver: scripts/dashboard.sh"]
async fn a_node_is_drained_and_goes_on_in_either_language(db: PgPool) {
    let world = World::new(db).await;
    furnish(&world).await;
    person(&world, "root@example.com", &["owner", "platform_admin"]).await;
    let base = serve(&world).await;
    let browser = Browser::start().await;
    sign_in(&browser, &base, "root@example.com").await;
    let node: Uuid =
        sqlx::query_scalar("select id from render.nodes where name = 'render-01'").fetch_one(&world.db).await.unwrap();
    let press = |word| {
        format!(
            "document.querySelectorAll('.head .do button').forEach((one) => one.textContent === '{word}' && one.click())"
        )
    };
    for (language, drain, resume) in [("en", "Drain", "Resume"), ("fa", "تخلیه", "ادامه")] {
        browser.run(&format!("localStorage.setItem('flatrender.language', '{language}')")).await;
        browser.go(&format!("{base}/dashboard/nodes/{node}")).await;
        for (word, state) in [(drain, "draining"), (resume, "online")] {
            browser
                .until(&format!(
                    "[...document.querySelectorAll('.head .do button')].some((one) => one.textContent === '{word}')"
                ))
                .await;
            browser.run(&press(word)).await;
            browser.click("[role=dialog] button[type=submit]").await;
            browser.until(&format!("document.querySelector('.head .state[data-state={state}]')")).await;
            let verb = if state == "online" { "resume" } else { "drain" };
            let line = format!("flatrender node {verb} render-01");
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

#[sqlx::test(migrations = "../migrations")]
#[ignore = "takes chromedriver: scripts/dashboard.sh"]
async fn a_tenant_is_suspended_with_a_reason_and_goes_on(db: PgPool) {
    let world = World::new(db).await;
    furnish(&world).await;
    person(&world, "root@example.com", &["owner", "platform_admin"]).await;
    let base = serve(&world).await;
    let browser = Browser::start().await;
    sign_in(&browser, &base, "root@example.com").await;
    let wild: Uuid =
        sqlx::query_scalar("select id from identity.tenants where slug = 'wild'").fetch_one(&world.db).await.unwrap();
    let used = "insert into identity.tenant_usage_daily (tenant_id, day, metric, quantity)
                values ($1, (now() at time zone 'UTC')::date, 'frames', 3151)";
    sqlx::query(used).bind(wild).execute(&world.db).await.unwrap();
    browser.go(&format!("{base}/dashboard/tenants/{wild}")).await;
    browser.until("document.querySelector('main').textContent.includes('3,151')").await;
    browser.click("[data-act='tenants.suspend']").await;
    browser.write("[role=dialog] input[name=reason]", "unpaid").await;
    browser.click("[role=dialog] button[type=submit]").await;
    browser.until("document.querySelector('.head .state[data-state=suspended]')").await;
    browser.until(&format!("{LINE} === 'flatrender api suspend_tenant id={wild} reason=unpaid'")).await;
    browser.run("document.querySelector(\"[data-act='tenants.resume']\").click()").await;
    browser.click("[role=dialog] button[type=submit]").await;
    browser.until("document.querySelector('.head .state[data-state=active]')").await;
    browser.run("document.querySelector('[data-act=renders_per_day]').click()").await;
    browser.write("[role=dialog] input[name=hard]", "50").await;
    browser.click("[role=dialog] button[type=submit]").await;
    let line = format!("flatrender api set_tenant_limit id={wild} name=renders_per_day hard=50");
    browser.until(&format!("{LINE} === '{line}'")).await;
    assert_eq!(world.count("identity.tenant_limits where name = 'renders_per_day' and hard = 50").await, 1);
    assert_eq!(browser.run("return window.wild ?? null").await, json!(null));
    assert_eq!(browser.complaints().await, [""; 0]);
}
