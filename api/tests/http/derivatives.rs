//! What else is made of a finished film.

use crate::{
    quotas::agree,
    world::{World, blob, order},
};
use axum::http::{StatusCode, header};
use flatrender_api::worker::settle_abandoned;
use flatrender_workflows::{
    contracts::media::{EncodeProfile, ProbedVideo},
    models::{
        DEFAULT_TENANT, Role, Scope,
        render::{
            export::{self, NewExport},
            render_job,
        },
    },
};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::{Duration, Instant};

/// The export once what else is made of it is as it stays.
async fn settled(world: &World, path: &str) -> Value {
    let began = Instant::now();
    loop {
        let export = world.get(path).await.json();
        let derivatives = export["derivatives"].as_array().unwrap();
        if !derivatives.is_empty() && derivatives.iter().all(|d| d["state"] != "queued") {
            return export;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{export}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn what_else_was_ordered_is_made_of_the_film_and_one_that_fails_spoils_nothing(db: PgPool) {
    let world = World::new(db).await;
    world.work();
    let mut wanted = order();
    wanted["output"] = json!({"derivatives": ["poster", "small"]});
    let ordered = world.post("/v1/renders", wanted).await;
    assert_eq!(ordered.status, StatusCode::ACCEPTED, "{:?}", ordered.body);
    let node = world.node("n1").await;
    let render = crate::film::finished(&world, &node, &world.key, ordered.json()["id"].as_str().unwrap()).await;
    assert_eq!(render["status"], "completed", "{render}");
    let path = format!("/v1/exports/{}", render["export"]["id"].as_str().unwrap());
    let export = settled(&world, &path).await;
    let poster = format!("{path}/derivatives/poster");
    assert_eq!(export["derivatives"][0], json!({"kind": "poster", "state": "ready", "url": poster}));
    let poster = world.get(&poster).await;
    assert_eq!(poster.header(header::CONTENT_TYPE), "image/jpeg");
    assert_eq!(image::load_from_memory(&poster.body).unwrap().width(), 256);

    // The film is lost from the disk: nothing can be made of it, and the render stays as it is.
    let film = world.file_named(export["sha256"].as_str().unwrap());
    let content = std::fs::read(&film).unwrap();
    std::fs::write(&film, b"no film").unwrap();
    let gif = format!("{path}/derivatives/gif");
    assert_eq!(world.post(&gif, json!({})).await.status, StatusCode::ACCEPTED);
    let failed = settled(&world, &path).await;
    assert_eq!(failed["derivatives"][0], json!({"kind": "gif", "state": "failed", "url": null}));
    assert_eq!(world.get(&gif).await.problem(), "export.not_found");
    let render = world.get(&format!("/v1/renders/{}", render["id"].as_str().unwrap())).await.json();
    assert_eq!(render["status"], "completed");
    assert!(render["warnings"][0].as_str().unwrap().starts_with("gif could not be made of the film"), "{render}");

    // Asked for again it needs no renderer.
    std::fs::write(&film, content).unwrap();
    assert_eq!(world.post(&gif, json!({})).await.status, StatusCode::ACCEPTED);
    assert_eq!(settled(&world, &path).await["derivatives"][0]["state"], "ready");
    assert!(world.get(&gif).await.body.starts_with(b"GIF89a"));

    // Each had room of its own, and none is left set aside.
    let rooms = "select concat_ws(' ', split_part(purpose, ':', 1), split_part(purpose, ':', 3), split_part(purpose, ':', 4), state)
                 from file_mgr.quota_reservations order by 1";
    let rooms: Vec<String> = sqlx::query_scalar(rooms).fetch_all(&world.db).await.unwrap();
    let expected = [
        "derivative gif 1 released",
        "derivative gif 2 used",
        "derivative poster 1 used",
        "derivative small 1 used",
        "film   used",
    ];
    assert_eq!(rooms, expected);
    world.keeps_every_rule().await;

    // Where nothing more may be kept nothing more is made; what is there is still given.
    agree(&world, "storage_bytes", 1).await;
    let webm = format!("{path}/derivatives/webm");
    assert_eq!(world.post(&webm, json!({})).await.problem(), "quota.storage");
    assert_eq!(world.post(&gif, json!({})).await.status, StatusCode::ACCEPTED, "it is ready");
    assert_eq!(settled(&world, &path).await["derivatives"].as_array().unwrap().len(), 3);
}

/// After the point of no return a film is finished by whoever settles it.
#[sqlx::test(migrations = "../migrations")]
async fn what_was_ordered_is_made_of_a_published_film_whose_run_was_given_up(db: PgPool) {
    what_was_ordered_is_made_of_a_film_that_was_given_up(db, false).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn what_was_ordered_is_made_of_a_finished_film_whose_run_was_given_up_before_it_asked_for_it(db: PgPool) {
    what_was_ordered_is_made_of_a_film_that_was_given_up(db, true).await;
}

async fn what_was_ordered_is_made_of_a_film_that_was_given_up(db: PgPool, is_settled: bool) {
    let world = World::new(db).await;
    let mut wanted = order();
    wanted["output"] = json!({"derivatives": ["poster"]});
    let render_id = world.post("/v1/renders", wanted).await.json()["id"].as_str().unwrap().parse().unwrap();
    let (tenant_id, profile, video, sheet) = (DEFAULT_TENANT, EncodeProfile::Final, &blob(b"film"), &blob(b"sheet"));
    let (video_codec, audio_codec) = ("h264".into(), "aac".into());
    let probed = &ProbedVideo { frames: 38, duration_ms: 1266, video_codec, audio_codec, size: [256, 144] };
    let mut tx = Scope::tenant(Role::Render, tenant_id).begin(&world.db).await.unwrap();
    let new = NewExport { tenant_id, render_id, profile, video, sheet, probed };
    let export_id = export::publish(&mut tx, &new).await.unwrap();
    if is_settled {
        assert!(render_job::settle(&mut tx, render_id, world.run_of(render_id).await, Ok(())).await.unwrap());
    }
    tx.commit().await.unwrap();
    let give_up = r#"select workflow.end_run(id, 'failed', null,
        '{"code": "workflow.lost_too_often", "message": "given up", "retryable": false}')
        from workflow.tasks where run_id = $1"#;
    sqlx::query(give_up).bind(world.run_of(render_id).await).execute(&world.db).await.unwrap();
    for settled in [usize::from(!is_settled), 0] {
        assert_eq!(settle_abandoned(&world.db).await.unwrap(), settled);
    }
    let export = world.get(&format!("/v1/exports/{export_id}")).await.json();
    assert_eq!(export["derivatives"][0], json!({"kind": "poster", "state": "queued", "url": null}));
    assert_eq!(world.count("workflow.runs where kind = 'derive_film'").await, 1);
}
