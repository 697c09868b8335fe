//! The main ways of an operator, in either language: from a cause of failures to runs that went well, and to pictures of all scenes.

use super::{LINE, enter, furnish, keep, long, number, says, speak, waiting};
use crate::world::{World, png};
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

/// Keeps the next answer to who looks at runs until `let_go` is called, which is there once it has come. It is read to its end by then: whoever
/// waits for it has it before anything else is done.
const HELD: &str = "const send = window.fetch;
    window.fetch = async (path, ...more) => {
        if (!String(path).startsWith('/v1/operate/runs?')) return send(path, ...more);
        window.fetch = send;
        const text = await (await send(path, ...more)).text();
        await new Promise((then) => { window.let_go = then; });
        return { ok: true, text: async () => text };
    };";

#[sqlx::test(migrations = "../migrations")]
#[ignore = "takes chromedriver: scripts/dashboard.sh"]
async fn a_cause_is_found_mended_and_all_of_it_tried_again(db: PgPool) {
    a_cause_is_mended(db, "en").await;
}

#[sqlx::test(migrations = "../migrations")]
#[ignore = "takes chromedriver: scripts/dashboard.sh"]
async fn a_cause_is_found_mended_and_all_of_it_tried_again_in_persian(db: PgPool) {
    a_cause_is_mended(db, "fa").await;
}

/// From the failures to the runs that went well after all, in a language of the pages.
async fn a_cause_is_mended(db: PgPool, language: &str) {
    let world = World::new(db).await;
    furnish(&world).await;
    let (base, browser) = enter(&world, "root@example.com", &["owner", "platform_admin"]).await;
    speak(&browser, &base, language).await;
    // By the keyboard alone: to the failures, the third row, into it.
    browser.until("document.querySelector('.live[data-on=true]')").await;
    browser.keys(&["g", "f"]).await;
    browser
        .until("location.pathname === '/dashboard/failures' && document.querySelectorAll('tr[data-open]').length === 4")
        .await;
    browser.keys(&["j", "j", "j", "\u{E007}"]).await;
    browser.until("document.querySelector('h1')?.textContent === 'months.faulty'").await;
    browser.click(".head .b.first").await;
    browser.until("location.pathname === '/dashboard/bulk/new'").await;
    browser.click("form button[type=submit]").await;
    browser.until("!document.querySelector('form [role=alert]').hidden").await;
    browser.write("input[name=reason]", "the months are there").await;
    browser.click("form button[type=submit]").await;
    browser.until("document.querySelector('#confirm')").await;
    assert_eq!(
        browser.run("return document.querySelector('main .ask .say').textContent").await,
        says(language, "bulk.total").replace("{n}", &number(language, 3))
    );
    keep(&browser, &format!("journey-preview-{language}")).await;
    // Digits are those of the language.
    browser.write("#confirm", &number(language, 3)).await;
    browser.click("[data-act=begin]").await;
    browser.until("document.querySelector('main .state[data-state=finished]') && document.querySelectorAll('tbody .state[data-state=done]').length === 3").await;
    keep(&browser, &format!("journey-done-{language}")).await;
    // What came of the first of them went well.
    let made = "document.querySelector('tbody td:nth-child(4) a')";
    browser.until(&format!("{made} && ({made}.click(), true)")).await;
    browser.until("document.querySelector('.head .state[data-state=succeeded]')").await;
    keep(&browser, &format!("journey-mended-{language}")).await;
    browser.keys(&["g", "r"]).await;
    browser.until("location.pathname === '/dashboard/runs' && document.querySelector('tr[data-open]')").await;
    browser.keys(&["/"]).await;
    let stands = browser.run("return document.activeElement.getAttribute('aria-label')").await;
    assert_eq!(stands, says(language, "runs.kind"));
    let done: i64 = sqlx::query_scalar("select count(*) from workflow.run_lineage where how = 'retry'")
        .fetch_one(&world.db)
        .await
        .unwrap();
    assert_eq!(done, 3);
    assert_eq!(browser.run("return window.wild ?? null").await, json!(null));
    // Of two looks at a list the later one is shown, whichever is answered first.
    let refresh = "document.querySelector('[data-act=refresh]').click();";
    browser.run(&format!("{HELD} {refresh}")).await;
    browser.until("window.let_go").await;
    let waiting = waiting(&world).await;
    browser.run(refresh).await;
    let row = format!("document.querySelector(\"tr[data-key='{waiting}']\")");
    browser.until(&row).await;
    let answered =
        format!("window.let_go(); return new Promise((then) => {{ setTimeout(() => then(Boolean({row}))); }})");
    assert_eq!(browser.run(&answered).await, true, "it does not go back to what it was before");
    // Cancelling asks for a reason, is written down, and tells its line of the command line.
    browser.go(&format!("{base}/dashboard/runs/{waiting}")).await;
    browser.click("[data-act=cancel]").await;
    browser.until("document.activeElement.name === 'reason'").await;
    browser.write("[role=dialog] input[name=reason]", "enough").await;
    keep(&browser, &format!("journey-ask-{language}")).await;
    browser.click("[role=dialog] button[type=submit]").await;
    browser.until(&format!("{LINE} === 'flatrender runs cancel {waiting} --reason enough'")).await;
    let reason: Option<String> = sqlx::query_scalar("select reason from workflow.audit where action = 'cancel'")
        .fetch_one(&world.db)
        .await
        .unwrap();
    assert_eq!(reason.as_deref(), Some("enough"));
    // What a program said last before it failed is there to be read, as it was said.
    for (kind, end) in [("webhook", "\\nthe last line"), ("notify", "all that it said")] {
        let failed = "select id from workflow.runs where kind = $1 and state = 'failed' limit 1";
        let failed: Uuid = sqlx::query_scalar(failed).bind(kind).fetch_one(&world.db).await.unwrap();
        browser.go(&format!("{base}/dashboard/runs/{failed}")).await;
        let said =
            format!("[...document.querySelectorAll('main pre')].some((one) => one.textContent.endsWith('{end}'))");
        browser.until(&said).await;
    }
    // The chart of a long run has what is under way, though it began in the middle of what is left out.
    let long = long(&world).await;
    browser.go(&format!("{base}/dashboard/runs/{long}")).await;
    browser.until("document.querySelectorAll('.gantt [role=listitem]').length === 60").await;
    let drawn = "return Boolean(document.querySelector('.gantt [role=listitem][title=render] + .lane .open'))";
    assert_eq!(browser.run(drawn).await, true, "what is under way has a lane");
    // All that it did is saved as a file, and not only what is shown.
    let watch = "const make = URL.createObjectURL.bind(URL);
        URL.createObjectURL = (file) => { file.text().then((text) => { window.saved = JSON.parse(text); }); return make(file); };
        document.querySelector('[data-act=save]').click()";
    browser.run(watch).await;
    browser.until("window.saved").await;
    let saved = browser.run("return [window.saved.id, window.saved.steps.length, window.saved.steps[0].key]").await;
    assert_eq!(saved, json!([long, 120, "chunk 1"]));
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[sqlx::test(migrations = "../migrations")]
#[ignore = "takes chromedriver: scripts/dashboard.sh"]
async fn pictures_of_all_scenes_are_made_and_seen_to_come(db: PgPool) {
    pictures_are_made(db, "en").await;
}

#[sqlx::test(migrations = "../migrations")]
#[ignore = "takes chromedriver: scripts/dashboard.sh"]
async fn pictures_of_all_scenes_are_made_and_seen_to_come_in_persian(db: PgPool) {
    pictures_are_made(db, "fa").await;
}

/// From the button that has the pictures of all scenes made to the last of them, in a language of the pages.
async fn pictures_are_made(db: PgPool, language: &str) {
    let world = World::new(db).await;
    world.work();
    let node = world.node("render-01").await;
    let (base, browser) = enter(&world, "ann@example.com", &["admin"]).await;
    speak(&browser, &base, language).await;
    browser.go(&format!("{base}/dashboard/projects/tiny")).await;
    browser.click("[data-act=make]").await;
    browser.until(&format!("{LINE} === 'flatrender snapshots -- tiny'")).await;
    for done in 0..2 {
        let come = says(language, "projects.under").replace("{done}", &number(language, done));
        let come = come.replace("{total}", &number(language, 2));
        browser.until(&format!("document.querySelector('main [role=status] .say')?.textContent === '{come}'")).await;
        keep(&browser, &format!("journey-scenes-{done}-{language}")).await;
        let task = node.claim().await;
        let frame = node.put_frame(&task, &png([200, 30, 30])).await;
        let answer = node.complete(&task, json!({"rendered": {"frame": frame}})).await;
        assert_eq!(answer.status, 204, "{:?}", answer.body);
    }
    let come = says(language, "projects.done");
    browser.until(&format!("document.querySelector('main .ask.good .say')?.textContent === '{come}'")).await;
    browser.until("document.querySelectorAll('main .card img').length === 2").await;
    keep(&browser, &format!("journey-scenes-{language}")).await;
    assert_eq!(browser.complaints().await, [""; 0]);
}
