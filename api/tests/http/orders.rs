//! Bad orders: each is told what is wrong by a stable code, and leaves nothing behind.

use crate::world::{World, order, order_with, with_json};
use axum::{
    body::Body,
    http::{Method, StatusCode, header},
};
use flatrender_api::router;
use serde_json::json;
use sqlx::PgPool;
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

async fn leaves_nothing(world: &World) {
    assert_eq!(world.count("render.render_jobs").await, 0);
    assert_eq!(world.count("workflow.runs").await, 0);
}

#[sqlx::test(migrations = "../migrations")]
async fn texts_that_no_task_could_carry_are_refused(db: PgPool) {
    let world = World::new(db).await;
    // A template may allow texts of any length.
    let sql = "alter table content.project_versions disable trigger user;
               update content.project_versions set manifest = jsonb_set(manifest, '{texts,0,max_chars}', '1000000')";
    sqlx::raw_sql(sql).execute(&world.db).await.unwrap();
    let long = |chars: usize| json!({"template": "tiny", "data": {"texts": {"title": "x".repeat(chars)}}});
    assert_eq!(world.post("/v1/renders", long(200_000)).await.status, StatusCode::ACCEPTED);
    let refused = world.post("/v1/renders", long(230_000)).await;
    assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "request.invalid"));
    assert_eq!(refused.json()["errors"][0]["code"], "order.too_large");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_film_is_given_the_time_that_is_set_when_it_is_ordered(db: PgPool) {
    let mut world = World::new(db).await;
    let before = world.order().await;
    world.app.limits.film = Duration::from_secs(96 * 3600);
    world.router = router::router(world.app.clone());
    let after = world.order().await;
    for (film, hours) in [(before, 12), (after, 96)] {
        let sql = "select (input ->> 'limit_seconds')::bigint / 3600 from workflow.runs where id = $1";
        let run = world.run_of(film).await;
        assert_eq!(sqlx::query_scalar::<_, i64>(sql).bind(run).fetch_one(&world.db).await.unwrap(), hours);
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn an_unknown_template_is_named(db: PgPool) {
    let world = World::new(db).await;
    for name in ["nope", "../etc", "a\0b", ""] {
        let answer = world.post("/v1/renders", json!({"template": name})).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (422, "template.unknown"));
        assert_eq!(answer.json()["errors"][0]["pointer"], "/template");
    }
    let version = world.post("/v1/renders", order_with("version", json!(9))).await;
    assert_eq!(version.problem(), "template.unknown");
    leaves_nothing(&world).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn every_fault_of_the_data_is_told_with_its_place(db: PgPool) {
    let world = World::new(db).await;
    let data = json!({
        "texts": {"title": "x".repeat(21), "subtitle": "?"}, "images": {"logo": "0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e11"},
        "colors": {"primary": "red"}, "theme": "desert", "scenes": [{"id": "a", "seconds": 99}, {"id": "c"}]
    });
    let answer = world.post("/v1/renders", order_with("data", data)).await;
    let mut faults = answer.faults();
    faults.sort();
    assert_eq!(
        faults,
        [
            "/data/colors/primary color.invalid",
            "/data/images/logo file.not_found",
            "/data/scenes/0/seconds scene.duration",
            "/data/scenes/1/id scene.unknown",
            "/data/texts/subtitle field.unknown",
            "/data/texts/title text.too_long",
            "/data/theme theme.unknown",
        ]
    );
    leaves_nothing(&world).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn what_is_said_of_a_scene_that_is_left_out_is_warned_of(db: PgPool) {
    let world = World::new(db).await;
    let sql = "alter table content.project_versions disable trigger user;
               update content.project_versions set manifest = jsonb_set(manifest, '{texts,0,scene}', '\"b\"')";
    sqlx::raw_sql(sql).execute(&world.db).await.unwrap();
    let order =
        json!({"template": "tiny", "data": {"texts": {"title": "Hello"}, "scenes": [{"id": "a"}, {"id": "b"}]}});
    assert_eq!(world.post("/v1/renders", order).await.json()["warnings"], json!([]));
    let order = json!({"template": "tiny", "data": {"texts": {"title": "Hello"}, "scenes": [{"id": "a"}]}});
    let answer = world.post("/v1/renders", order).await;
    let warning = "field.not_shown: /data/texts/title is of the scene \"b\", which the film leaves out";
    assert_eq!((answer.status, &answer.json()["warnings"]), (StatusCode::ACCEPTED, &json!([warning])));
    let kept = world.get(&format!("/v1/renders/{}", answer.json()["id"].as_str().unwrap())).await;
    assert_eq!(kept.json()["warnings"], json!([warning]));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_missing_required_text_is_named(db: PgPool) {
    let world = World::new(db).await;
    let answer = world.post("/v1/renders", json!({"template": "tiny"})).await;
    assert_eq!(answer.faults(), ["/data/texts/title field.required"]);
    leaves_nothing(&world).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_field_of_a_wrong_type_or_name_is_pointed_at(db: PgPool) {
    let world = World::new(db).await;
    let faults = |body| async { world.post("/v1/renders", body).await.faults() };
    assert_eq!(faults(order_with("version", json!("one"))).await, ["/version field.type"]);
    assert_eq!(faults(order_with("data.texts", json!({"title": 5}))).await, ["/data/texts/title field.type"]);
    assert_eq!(faults(order_with("data.images", json!({"logo": "x"}))).await, ["/data/images/logo field.type"]);
    assert_eq!(faults(order_with("data.colours", json!({}))).await, ["/data/colours field.unknown"]);
    assert_eq!(faults(order_with("output", json!({"quality": "best"}))).await, ["/output/quality field.type"]);
    assert_eq!(faults(json!({"data": {}})).await, ["/template field.missing"]);
    assert_eq!(faults(json!([])).await, [" field.type"]);
    leaves_nothing(&world).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn metadata_has_bounds(db: PgPool) {
    let world = World::new(db).await;
    let answer = world.post("/v1/renders", order_with("metadata", json!({"a": "x".repeat(17_000)}))).await;
    assert_eq!(answer.faults(), ["/metadata metadata.too_large"]);
    let answer = world.post("/v1/renders", order_with("metadata", json!({"a": "\0"}))).await;
    assert_eq!(answer.faults(), ["/metadata metadata.control_character"]);
    let most = world.post("/v1/renders", order_with("metadata", json!({"a": vec![1; 5000]}))).await;
    assert_eq!(most.status, StatusCode::ACCEPTED, "{}", most.json());
}

#[sqlx::test(migrations = "../migrations")]
async fn what_is_no_json_is_told_apart(db: PgPool) {
    let world = World::new(db).await;
    let send = |kind: &'static str, body: &'static str| {
        let request = world.request(Method::POST, "/v1/renders").header(header::CONTENT_TYPE, kind);
        world.send(request.body(Body::from(body)).unwrap())
    };
    assert_eq!(send("application/json", "{\"template\": ").await.problem(), "body.syntax");
    assert_eq!(send("application/json", "{} {}").await.problem(), "request.invalid");
    assert_eq!(send("application/json", "").await.problem(), "body.syntax");
    assert_eq!(send("text/plain", "{}").await.problem(), "body.not_json");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_body_nested_too_deep_is_refused(db: PgPool) {
    let world = World::new(db).await;
    let body = format!(r#"{{"template": "tiny", "metadata": {}1{}}}"#, "{\"a\":".repeat(50_000), "}".repeat(50_000));
    let request = world.request(Method::POST, "/v1/renders").header(header::CONTENT_TYPE, "application/json");
    assert_eq!(world.send(request.body(Body::from(body)).unwrap()).await.problem(), "body.syntax");
}

#[sqlx::test(migrations = "../migrations")]
async fn addresses_and_methods_that_are_not_there_are_problems(db: PgPool) {
    let world = World::new(db).await;
    assert_eq!(world.get("/v1/nothing").await.problem(), "route.not_found");
    let delete = world.send(world.request(Method::DELETE, "/v1/renders").body(Body::empty()).unwrap()).await;
    assert_eq!(delete.problem(), "route.method_not_allowed");
    assert!(delete.header(header::ALLOW).contains("POST"));
    assert_eq!(world.get("/v1/renders/5").await.problem(), "path.invalid");
    assert_eq!(world.get("/v1/renders?limit=many").await.problem(), "query.invalid");
    assert_eq!(world.get("/v1/renders?limit=0").await.problem(), "query.invalid");
    assert_eq!(world.get("/v1/renders?colour=red").await.problem(), "query.invalid");
}

#[sqlx::test(migrations = "../migrations")]
async fn fifty_megabytes_of_json_are_refused_and_the_answer_is_read(db: PgPool) {
    let world = World::new(db).await;
    let address = listen(&world).await;
    for announce in [true, false] {
        let answer = push(address, &world.key, announce, 50_000_000).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        assert!(answer.contains("body.too_large"));
    }
    leaves_nothing(&world).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_client_that_waits_to_continue_sends_nothing_of_a_body_that_is_too_large(db: PgPool) {
    let world = World::new(db).await;
    let mut stream = TcpStream::connect(listen(&world).await).await.unwrap();
    let head = format!(
        "POST /v1/renders HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: 50000000\r\nexpect: 100-continue\r\n\r\n",
        world.key
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 413");
}

/// Serves the world on a real socket.
pub async fn listen(world: &World) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = world.router.clone();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

/// Sends a huge body to its end, and only then reads the answer, as many clients do.
async fn push(address: SocketAddr, key: &str, announce: bool, length: usize) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let framing = if announce { format!("content-length: {length}") } else { "transfer-encoding: chunked".into() };
    let head = format!(
        "POST /v1/renders HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n\
         connection: close\r\n{framing}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![b' '; 1_000_000];
    for _ in 0..length / piece.len() {
        if !announce {
            stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await.unwrap();
        }
        stream.write_all(&piece).await.expect("the server reads what it refuses");
        if !announce {
            stream.write_all(b"\r\n").await.unwrap();
        }
    }
    if !announce {
        stream.write_all(b"0\r\n\r\n").await.unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[sqlx::test(migrations = "../migrations")]
async fn a_request_keeps_the_id_its_client_gave(db: PgPool) {
    let world = World::new(db).await;
    let ask = |id: &'static str| {
        let request = with_json(world.request(Method::POST, "/v1/renders").header("x-request-id", id), &order());
        world.send(request)
    };
    assert_eq!(ask("order-7.a").await.header("x-request-id"), "order-7.a");
    let replaced = ask("not fine\"").await;
    assert!(replaced.header("x-request-id").parse::<uuid::Uuid>().is_ok());
}
