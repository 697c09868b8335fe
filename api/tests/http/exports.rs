//! Downloads: whole, in parts, and only when needed.

use crate::world::{Answer, World, blob, png, put};
use axum::{
    body::Body,
    http::{Method, StatusCode, header},
};
use flatrender_engine::{testing::Stage, worker::Builder};
use flatrender_workflows::{
    contracts::media::{EncodeProfile, ProbedVideo},
    definitions::expire_exports::ExpireExports,
    models::{
        Role, Scope,
        file_mgr::purge,
        render::{
            export::{self, NewExport},
            render_job,
        },
    },
};
use sqlx::PgPool;
use uuid::Uuid;

/// Publishes `film` as the result of a render and ends the render.
pub async fn publish(world: &World, render_id: Uuid, film: &[u8]) -> Uuid {
    let (video, sheet) = (put(&*world.storage, film).await, put(&*world.storage, &png([5, 5, 5])).await);
    let probed = ProbedVideo {
        frames: 38,
        duration_ms: 3800,
        video_codec: "h264".into(),
        audio_codec: "aac".into(),
        size: crate::world::SIZE,
    };
    let run = world.run_of(render_id).await;
    let mut tx = world.db.begin().await.unwrap();
    let profile = EncodeProfile::Final;
    let new = NewExport { tenant_id: world.tenant, render_id, profile, video: &video, sheet: &sheet, probed: &probed };
    let id = export::publish(&mut tx, &new).await.unwrap();
    render_job::settle(&mut tx, render_id, run, Ok(())).await.unwrap();
    tx.commit().await.unwrap();
    id
}

struct Film {
    world: World,
    path: String,
    etag: String,
}

const FILM: &[u8] = b"0123456789abcdefghij";

impl Film {
    async fn new(db: PgPool) -> Self {
        let world = World::new(db).await;
        let render = world.order().await;
        let id = publish(&world, render, FILM).await;
        Self { world, path: format!("/v1/exports/{id}/download"), etag: format!("\"{}\"", blob(FILM).sha256) }
    }

    async fn get(&self, method: Method, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.world.request(method, &self.path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.world.send(request.body(Body::empty()).unwrap()).await
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn a_film_is_downloaded_whole(db: PgPool) {
    let film = Film::new(db).await;
    let answer = film.get(Method::GET, &[]).await;
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, FILM));
    assert_eq!(answer.header(header::CONTENT_TYPE), "video/mp4");
    assert_eq!(answer.header(header::ETAG), film.etag);
    assert_eq!(answer.header(header::X_CONTENT_TYPE_OPTIONS), "nosniff");
    assert!(answer.header(header::CONTENT_DISPOSITION).starts_with("attachment; filename=\"tiny-"));
    let head = film.get(Method::HEAD, &[]).await;
    assert_eq!((head.status, head.body.len(), head.header(header::CONTENT_LENGTH)), (StatusCode::OK, 0, "20"));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_film_is_downloaded_in_parts(db: PgPool) {
    let film = Film::new(db).await;
    let cases: [(&str, &[u8], &str); 4] = [
        ("bytes=0-3", b"0123", "bytes 0-3/20"),
        ("bytes=10-", b"abcdefghij", "bytes 10-19/20"),
        ("bytes=-4", b"ghij", "bytes 16-19/20"),
        ("bytes=18-99", b"ij", "bytes 18-19/20"),
    ];
    for (range, body, content_range) in cases {
        let answer = film.get(Method::GET, &[("range", range)]).await;
        assert_eq!((answer.status, &answer.body[..]), (StatusCode::PARTIAL_CONTENT, body), "{range}");
        assert_eq!(answer.header(header::CONTENT_RANGE), content_range);
        assert_eq!(answer.header(header::CONTENT_LENGTH), body.len().to_string());
    }
    let outside = film.get(Method::GET, &[("range", "bytes=20-")]).await;
    assert_eq!((outside.status.as_u16(), outside.problem().as_str()), (416, "range.not_satisfiable"));
    assert_eq!(outside.header(header::CONTENT_RANGE), "bytes */20");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_part_is_only_of_the_film_the_client_has(db: PgPool) {
    let film = Film::new(db).await;
    let same = film.get(Method::GET, &[("range", "bytes=0-3"), ("if-range", &film.etag)]).await;
    assert_eq!(same.status, StatusCode::PARTIAL_CONTENT);
    let other = film.get(Method::GET, &[("range", "bytes=0-3"), ("if-range", "\"other\"")]).await;
    assert_eq!((other.status, &other.body[..]), (StatusCode::OK, FILM));
    let kept = film.get(Method::GET, &[("if-none-match", &film.etag)]).await;
    assert_eq!((kept.status, kept.body.len()), (StatusCode::NOT_MODIFIED, 0));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_contact_sheet_is_a_picture(db: PgPool) {
    let film = Film::new(db).await;
    let path = film.path.replace("/download", "/contact-sheet");
    let answer = film.world.get(&path).await;
    assert_eq!((answer.status, answer.header(header::CONTENT_TYPE)), (StatusCode::OK, "image/png"));
    assert_eq!(answer.body, png([5, 5, 5]));
}

/// A film whose contact sheet was removed is a film still.
#[sqlx::test(migrations = "../migrations")]
async fn a_film_does_without_its_contact_sheet(db: PgPool) {
    let film = Film::new(db).await;
    let sheet: Uuid =
        sqlx::query_scalar("select sheet_file_id from render.exports").fetch_one(&film.world.db).await.unwrap();
    let mut tx = Scope::platform(Role::Admin).begin(&film.world.db).await.unwrap();
    purge::purge(&mut tx, &[sheet]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(film.world.count("render.exports where state = 'ready' and sheet_file_id is null").await, 1);
    assert_eq!(film.get(Method::GET, &[]).await.body, FILM);
    assert_eq!(film.world.get(&film.path.replace("/download", "/contact-sheet")).await.problem(), "export.not_found");
    let told = film.world.get(film.path.trim_end_matches("/download")).await.json();
    assert!(told["contact_sheet_url"].is_null(), "{told}");
    // Its time comes all the same.
    let over = "update render.exports set expires_at = workflow.now() - interval '1 second'";
    sqlx::query(over).execute(&film.world.db).await.unwrap();
    let mut tx = Scope::platform(Role::Admin).begin(&film.world.db).await.unwrap();
    assert_eq!(export::expire(&mut tx, 10).await.unwrap(), 1);
    tx.commit().await.unwrap();
    assert_eq!(film.world.count("file_mgr.files where state = 'purged'").await, 2);
}

/// What was made of a film and is used elsewhere stays when the film goes, for as long as it is used.
#[sqlx::test(migrations = "../migrations")]
async fn what_branding_names_outlives_its_film(db: PgPool) {
    let film = Film::new(db).await;
    let sheet: Uuid =
        sqlx::query_scalar("select sheet_file_id from render.exports").fetch_one(&film.world.db).await.unwrap();
    let brand = "insert into identity.tenant_branding (tenant_id, product_name, logo_file_id) values ($1, 'Acme', $2)
        on conflict (tenant_id) do update set logo_file_id = excluded.logo_file_id";
    sqlx::query(brand).bind(film.world.tenant).bind(sheet).execute(&film.world.db).await.unwrap();
    let over = "update render.exports set expires_at = workflow.now() - interval '1 second'";
    sqlx::query(over).execute(&film.world.db).await.unwrap();
    let mut tx = Scope::platform(Role::Admin).begin(&film.world.db).await.unwrap();
    assert_eq!(export::expire(&mut tx, 10).await.unwrap(), 1);
    assert_eq!(purge::overdue(&mut tx, None, 10).await.unwrap().needed, 1);
    tx.commit().await.unwrap();
    let kept = "identity.tenant_branding b join file_mgr.files f on f.id = b.logo_file_id where f.state = 'ready'";
    assert_eq!(film.world.count(kept).await, 1);
    assert_eq!(film.world.count("file_mgr.files where state = 'purged'").await, 1, "the film itself");
    sqlx::query("update identity.tenant_branding set logo_file_id = null").execute(&film.world.db).await.unwrap();
    let mut tx = Scope::platform(Role::Admin).begin(&film.world.db).await.unwrap();
    assert_eq!(purge::overdue(&mut tx, None, 10).await.unwrap().purged, 1);
    tx.commit().await.unwrap();
    assert_eq!(film.world.count("file_mgr.files where state = 'purged'").await, 2);
    assert_eq!(film.world.count("render.exports where state = 'expired'").await, 1);
}

/// Whoever ordered a film is told a day before it goes: once, and not of what is kept for a day only.
#[sqlx::test(migrations = "../migrations")]
async fn whoever_ordered_a_film_is_told_once_that_it_goes(db: PgPool) {
    let world = World::new(db).await;
    let ada = world.person(world.tenant, "ada@example.com", &["owner"]).await;
    let soon = publish(&world, world.order().await, b"a film").await;
    let later = publish(&world, world.order().await, b"another film").await;
    let brief = publish(&world, world.order().await, b"a third film").await;
    let mut set = vec![format!("update render.render_jobs set user_id = '{ada}'")];
    for (id, hours, age) in [(soon, 20, 100), (later, 30, 100), (brief, 20, 4)] {
        set.push(format!(
            "update render.exports set expires_at = workflow.now() + interval '{hours} hours',
                    created_at = workflow.now() - interval '{age} hours' where id = '{id}'"
        ));
    }
    for sql in set {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&world.db).await.unwrap();
    }
    for _ in 0..2 {
        let stage = Stage::new(world.db.clone(), |worker: Builder| worker.workflow::<ExpireExports>());
        let run = stage.survives_a_crash_after_every_event(ExpireExports {}).await.unwrap();
        assert_eq!(run.output_as::<u64>(), Some(0));
    }
    let told = "select input::text from workflow.runs where kind = 'notify' and input::text like '%export.expiring%'";
    let told: Vec<String> = sqlx::query_scalar(told).fetch_all(&world.db).await.unwrap();
    assert_eq!(told.len(), 1);
    assert!(told[0].contains(&soon.to_string()) && told[0].contains(&ada.to_string()), "{told:?}");
    assert_eq!(world.count("render.exports where warned_at is not null").await, 1);
}
