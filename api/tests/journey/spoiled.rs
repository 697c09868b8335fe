//! What a renderer says spoils its frames: they are never delivered, whoever stored them.

use crate::platform::Platform;
use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use uuid::Uuid;

/// The renderer, but for a line it says, and other words in its pictures: those of a font that is not there.
fn renderer_that_says(folder: &Path, real: &Path, name: &str, before: &str, after: &str) -> PathBuf {
    let program = folder.join(name);
    let script = format!(
        "#!/bin/sh\n\
         case \" $* \" in *' -project '*) ;; *) exec '{real}' \"$@\" ;; esac\n\
         for word; do [ \"$last\" = -project ] && package=$(dirname \"$word\"); last=$word; done\n\
         sed -i 's/Made by many hands/Made by no font at/' \"$package/data.json\"\n\
         {before}'{real}' \"$@\"\ncode=$?\n{after}exit $code\n",
        real = real.display(),
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    program
}

async fn frames(platform: &Platform, id: &str) -> Vec<String> {
    let sql = "select sha256 from render.frame_manifests where render_job_id = $1 order by frame_no";
    sqlx::query_scalar(sql).bind(Uuid::parse_str(id).unwrap()).fetch_all(&platform.db).await.unwrap()
}

/// Waits until attempts of node 0 have failed in this way.
async fn failed(platform: &Platform, code: &str) {
    let began = Instant::now();
    let sql = "select count(*) from workflow.attempts where worker like 'node:node0:%' and failure ->> 'code' = $1";
    while sqlx::query_scalar::<_, i64>(sql).bind(code).fetch_one(&platform.db).await.unwrap() == 0 {
        assert!(began.elapsed() < Duration::from_secs(120), "no attempt failed with {code}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_a_renderer_says_are_spoiled_are_in_no_film() {
    let mut platform = Platform::without_nodes(3).await;
    let real = crate::platform::renderer();
    platform.start_node(2);
    let sound = platform.order(144).await;
    platform.completed(&sound).await;
    platform.kill_node(2);
    let line = |words: &str| format!("echo 'WARNING:After Effects warning: {words}'\n");
    for (name, code, before, after) in [
        ("errors", "render.logged_errors", String::new(), line("logged 3 errors")),
        ("fonts", "render.missing_font", line("Project has missing fonts."), String::new()),
    ] {
        let renderer = renderer_that_says(platform.folder(), &real, name, &before, &after);
        platform.start_node_with(0, &renderer);
        let id = platform.order(144).await;
        failed(&platform, code).await;
        platform.start_node(2);
        platform.completed(&id).await;
        assert_eq!(frames(&platform, &id).await, frames(&platform, &sound).await, "{code}");
        platform.kill_node(0);
        platform.kill_node(2);
        let clean = "truncate render.node_blocks; update render.nodes set status = 'online', quarantine_until = null,
                     quarantine_reason = null, forgiven_at = workflow.now()";
        sqlx::raw_sql(clean).execute(&platform.db).await.unwrap();
    }
    platform.stop().await;
}
