//! Server-sent events of a render.

use crate::{
    exports::publish,
    world::{World, request},
};
use axum::{
    body::Body,
    http::{Method, StatusCode},
};
use flatrender_api::serve::{Listen, ServeConfig, ServeError};
use futures::StreamExt as _;
use sqlx::PgPool;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tower::ServiceExt as _;

const SOON: Duration = Duration::from_secs(10);

/// Reads events until the stream ends, as (id, status).
fn parse(text: &str) -> Vec<(i64, String)> {
    let field = |event: &str, name: &str| {
        let line = event.lines().find_map(|l| l.strip_prefix(&format!("{name}: ")).map(str::to_owned));
        line.unwrap_or_else(|| panic!("{event} has no {name}"))
    };
    let events = text.split("\n\n").filter(|e| e.contains("event: render"));
    events
        .map(|e| {
            let data: serde_json::Value = serde_json::from_str(&field(e, "data")).unwrap();
            (field(e, "id").parse().unwrap(), data["status"].as_str().unwrap().to_owned())
        })
        .collect()
}

#[sqlx::test(migrations = "../migrations")]
async fn a_stream_tells_every_change_and_ends_with_the_render(db: PgPool) {
    let world = World::new(db).await;
    let id = world.order().await;
    let path = format!("/v1/renders/{id}/events");
    let request_ = world.request(Method::GET, &path).body(Body::empty()).unwrap();
    let response = world.router.clone().oneshot(request_).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut chunks = response.into_body().into_data_stream();
    let first = timeout(SOON, chunks.next()).await.unwrap().unwrap().unwrap();
    publish(&world, id, b"a film").await;
    let mut text = String::from_utf8(first.to_vec()).unwrap();
    while let Some(chunk) = timeout(SOON, chunks.next()).await.expect("the stream ends") {
        text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
    }
    let events = parse(&text);
    let statuses: Vec<_> = events.iter().map(|(_, status)| status.as_str()).collect();
    assert_eq!(statuses, ["queued", "completed"]);
    assert!(events[0].0 < events[1].0);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_client_that_comes_back_is_told_the_end_once(db: PgPool) {
    let world = World::new(db).await;
    let id = world.order().await;
    publish(&world, id, b"a film").await;
    let path = format!("/v1/renders/{id}/events");
    let come_back = |last: String| {
        let request = world.request(Method::GET, &path).header("last-event-id", last);
        world.send(request.body(Body::empty()).unwrap())
    };
    let ended = parse(std::str::from_utf8(&come_back("1".into()).await.body).unwrap());
    assert_eq!(ended.len(), 1);
    assert_eq!(come_back(ended[0].0.to_string()).await.status, StatusCode::NO_CONTENT);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_tenant_has_a_bounded_number_of_streams(db: PgPool) {
    let world = World::new(db).await;
    let id = world.order().await;
    let path = format!("/v1/renders/{id}/events");
    let open = |key: &str| world.router.clone().oneshot(request(Method::GET, &path, key).body(Body::empty()).unwrap());
    let mut streams = vec![];
    for _ in 0..64 {
        streams.push(open(&world.key).await.unwrap());
    }
    assert!(streams.iter().all(|s| s.status() == StatusCode::OK));
    assert_eq!(open(&world.key).await.unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
    streams.pop();
    assert_eq!(open(&world.key).await.unwrap().status(), StatusCode::OK, "a closed stream gives its place back");
}

#[sqlx::test(migrations = "../migrations")]
async fn streams_and_long_polls_end_when_the_server_stops(db: PgPool) {
    let world = World::new(db).await;
    let id = world.order().await;
    let node = world.node("n1").await;
    let (address, server) = serve(&world).await;
    let head = |first: &str, key: &str| {
        format!("{first} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {key}\r\n")
    };
    let claim = format!(r#"{{"incarnation": "{}", "labels": {{}}, "wait_seconds": 25}}"#, node.incarnation);
    let kind = format!("content-type: application/json\r\ncontent-length: {}\r\n\r\n{claim}", claim.len());
    let mut events = TcpStream::connect(address).await.unwrap();
    let mut poll = TcpStream::connect(address).await.unwrap();
    let watch = head(&format!("GET /v1/renders/{id}/events"), &world.key) + "\r\n";
    events.write_all(watch.as_bytes()).await.unwrap();
    poll.write_all((head("POST /v1/nodes/claims", &node.credential) + &kind).as_bytes()).await.unwrap();
    let mut begun = [0; 12];
    events.read_exact(&mut begun).await.unwrap();
    // The poll is under way once its node was seen.
    while world.count("render.nodes where incarnation is not null").await == 0 {
        tokio::task::yield_now().await;
    }
    world.stopping.cancel();
    let (mut rest, mut answer) = (String::new(), String::new());
    timeout(SOON, events.read_to_string(&mut rest)).await.expect("the stream ends").unwrap();
    timeout(SOON, poll.read_to_string(&mut answer)).await.expect("the poll ends").unwrap();
    assert!(rest.ends_with("0\r\n\r\n"), "the body is whole: {rest}");
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    timeout(SOON, server).await.expect("the server ends").unwrap().unwrap();
}

/// Serves the world as the program does.
async fn serve(world: &World) -> (std::net::SocketAddr, JoinHandle<Result<(), ServeError>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (pool, storage, probe) = (world.db.clone(), world.storage.clone(), world.app.probe.clone());
    let (vault, public_url) = (world.app.vault.clone(), crate::world::PUBLIC_URL.to_owned());
    let (listen, limits) = (Listen::Bound(listener), world.app.limits);
    let config = ServeConfig { listen, internal: None, pool, storage, limits, probe, vault, public_url };
    (address, tokio::spawn(flatrender_api::serve::run(config, world.stopping.clone())))
}
