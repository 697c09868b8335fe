//! `/v1/renders/batch`: many orders in one request, each accepted or refused for itself.

use super::{
    submit::{self, Submitted},
    view::Render,
};
use crate::{
    app::App,
    auth::{Editor, Tenant},
    extract::{Json, json},
    problem::{Code, Problem, ProblemBody},
};
use axum::{extract::State, http::HeaderMap};
use flatrender_workflows::models::render::order::RenderOrder;
use futures::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;
use utoipa::ToSchema;

/// Most orders of a batch.
const MOST_ORDERS: usize = 1000;
/// Orders that are looked at at the same time: each takes a connection.
const AT_ONCE: usize = 4;
/// How long orders are begun, so that the answer comes before the request is given up.
const PATIENCE: Duration = Duration::from_secs(25);
/// What the place in the batch may add to a key: `:999`.
const PLACE_BYTES: usize = 4;

/// Orders, each as `POST /v1/renders` takes it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBatch {
    /// 1 to 1,000 orders.
    #[schema(value_type = Vec<RenderOrder>, min_items = 1, max_items = 1000)]
    orders: Vec<Value>,
}

/// What became of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub struct Batch {
    /// Always `batch`.
    #[schema(example = "batch")]
    object: &'static str,
    /// New renders.
    accepted: u32,
    /// Orders whose render was there already.
    replayed: u32,
    /// Orders that made no render; the others are not touched by that.
    refused: u32,
    /// One for each order, in the order of the request.
    data: Vec<BatchItem>,
}

/// What became of an order.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchItem {
    /// Its place in the request, from 0.
    index: u32,
    /// What became of it.
    outcome: BatchOutcome,
    /// Its render, unless it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    render: Option<Render>,
    /// Why it was refused; pointers are within the order.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<ProblemBody>,
}

/// What became of an order, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BatchOutcome {
    /// A new render.
    Accepted,
    /// The render that an earlier request with this key made, or the preview that is the same.
    Replayed,
    /// No render.
    Refused,
}

/// `POST /v1/renders/batch`: each order by itself, as if it had been sent alone.
#[utoipa::path(
    post, path = "/v1/renders/batch", tag = "Renders", operation_id = "create_renders",
    summary = "Order many films",
    description = "Up to 1,000 orders in one request. Each is accepted or refused for itself, and the answer says which was what. With an \
                   `Idempotency-Key` the same batch may be sent again: what was accepted is not ordered twice. An order that there was no \
                   time for is refused with `server.timeout`: send the batch again with the same key.",
    params(("Idempotency-Key" = Option<String>, Header, max_length = 251, pattern = r"^[\t -~]+$", description = "1 to 251 printable ASCII characters, yours")),
    request_body(content = NewBatch, example = json!({"orders": [
        {"template": "promo", "data": {"texts": {"title": "Spring sale", "tagline": "Only this week"}}, "metadata": {"row": 1}},
        {"template": "promo", "data": {"texts": {"title": "Summer sale", "tagline": "All of July"}}, "metadata": {"row": 2}}
    ]})),
    responses(
        (status = 200, description = "What became of each; look at `refused`", body = Batch),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn create(
    State(app): State<App>,
    Editor(tenant): Editor,
    headers: HeaderMap,
    Json(batch): Json<NewBatch>,
) -> Result<Json<Batch>, Problem> {
    let key = submit::idempotency_key(&headers)?;
    if key.is_some_and(|key| key.len() > submit::KEY_BYTES - PLACE_BYTES) {
        return Err(Problem::new(Code::HeaderInvalid, "the idempotency key of a batch has at most 251 characters"));
    }
    if batch.orders.is_empty() || batch.orders.len() > MOST_ORDERS {
        return Err(Problem::fault("/orders", "batch.size", format!("a batch has 1 to {MOST_ORDERS} orders")));
    }
    let until = Instant::now() + PATIENCE;
    let orders = (0u32..).zip(batch.orders).map(|(index, order)| {
        let (app, tenant) = (&app, &tenant);
        async move {
            let key = key.map(|key| format!("{key}:{index}"));
            item(index, one(app, tenant, key.as_deref(), order, until).await)
        }
    });
    let data: Vec<BatchItem> = stream::iter(orders).buffered(AT_ONCE).collect().await;
    let count = |outcome| data.iter().filter(|item| item.outcome == outcome).count() as u32;
    let [accepted, replayed, refused] =
        [BatchOutcome::Accepted, BatchOutcome::Replayed, BatchOutcome::Refused].map(count);
    Ok(Json(Batch { object: "batch", accepted, replayed, refused, data }))
}

async fn one(
    app: &App,
    tenant: &Tenant,
    key: Option<&str>,
    order: Value,
    until: Instant,
) -> Result<Submitted, Problem> {
    if Instant::now() >= until {
        return Err(Problem::new(Code::Timeout, "there was no time for this order; send it again"));
    }
    let order: RenderOrder = json::from_value(order)?;
    submit::submit(app, tenant, key, &order).await
}

fn item(index: u32, submitted: Result<Submitted, Problem>) -> BatchItem {
    let (outcome, render, problem) = match submitted {
        Ok(Submitted::New(render)) => (BatchOutcome::Accepted, Some(render), None),
        Ok(Submitted::Replayed(render)) => (BatchOutcome::Replayed, Some(render), None),
        Err(problem) => (BatchOutcome::Refused, None, Some(problem.body())),
    };
    BatchItem { index, outcome, render, problem }
}
