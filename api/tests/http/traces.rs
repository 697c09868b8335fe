//! The trace of a request goes on in the render that it orders, up to the node.

use crate::world::{World, order, with_json};
use axum::http::{Method, StatusCode};
use flatrender_engine::TraceContext;
use sqlx::PgPool;

async fn order_with(world: &World, traceparents: &[&str]) {
    let mut request = world.request(Method::POST, "/v1/renders");
    for traceparent in traceparents {
        request = request.header("traceparent", *traceparent);
    }
    assert_eq!(world.send(with_json(request, &order())).await.status, StatusCode::ACCEPTED);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_node_hears_of_the_trace_in_which_a_film_was_ordered(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    let client = TraceContext::root();
    order_with(&world, &[&client.to_string()]).await;
    let node = world.node("n1").await;
    let task = node.ask(20.0).await.json()["tasks"][0].clone();
    let told: TraceContext = task["traceparent"].as_str().unwrap().parse().unwrap();
    assert_eq!(told.trace_id(), client.trace_id());
    let stored: Vec<String> = sqlx::query_scalar("select traceparent from workflow.runs where kind = 'render_video'")
        .fetch_all(&world.db)
        .await
        .unwrap();
    let start: TraceContext = stored[0].parse().unwrap();
    assert_eq!(start.trace_id(), client.trace_id());
    assert_ne!(start.span_id(), client.span_id(), "the request is a span of its own");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_trace_that_makes_no_sense_is_not_taken_up(db: PgPool) {
    let world = World::new(db).await;
    let (one, other) = (TraceContext::root(), TraceContext::root());
    order_with(&world, &["00-00000000000000000000000000000000-00f067aa0ba902b7-01"]).await;
    order_with(&world, &["'; drop table workflow.runs; --"]).await;
    order_with(&world, &[&one.to_string(), &other.to_string()]).await;
    let stored: Vec<String> = sqlx::query_scalar("select traceparent from workflow.runs where kind = 'render_video'")
        .fetch_all(&world.db)
        .await
        .unwrap();
    assert_eq!(stored.len(), 3);
    for start in stored {
        let start: TraceContext = start.parse().unwrap();
        assert!(![one, other].iter().any(|given| given.trace_id() == start.trace_id()), "{start}");
    }
}
