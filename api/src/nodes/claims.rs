//! `POST /v1/nodes/claims`: work for a node, by long poll.

use super::{late, leases, placement::queues, probe};
use crate::{app::App, auth::NodeCaller, extract::Json, problem::Problem};
use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use flatrender_engine::{
    LeasedTask,
    remote::{Refused, Service},
};
use flatrender_workflows::{
    contracts::node::{Claim, Claimed},
    models::{
        Role, Scope,
        render::node::{self, Known, Node},
    },
};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A node that waits looks again this often even when nothing is announced: a notice can be lost.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// `POST /v1/nodes/claims`: waits for work and leases it to the node.
#[utoipa::path(
    post, path = "/v1/nodes/claims", tag = "Nodes", operation_id = "claim_work", summary = "Claim work",
    description = "Waits up to `wait_seconds` (at most 25) for tasks that ask for no label the node lacks, and leases up to `slots` of them, \
                   1 if it does not say.",
    security(("node_credential" = [])),
    request_body(content = Object, content_type = "application/json", example = json!({
        "incarnation": "4f1c1a52-9a53-4a3e-9b70-6a7a9a3f0c11", "labels": {"engine": "lottie"}, "wait_seconds": 25})),
    responses(
        (status = 200, description = "Tasks, each with its lease", body = Object),
        (status = 204, description = "No work")
    )
)]
pub async fn claim(State(app): State<App>, caller: NodeCaller, Json(asked): Json<Claim>) -> Result<Response, Problem> {
    app.placement.note(&app, caller.node.id, asked.incarnation).await?;
    probe::admit(&app, &caller).await?;
    let tasks = match work_for(&app, &caller.node, &asked, usize::MAX).await? {
        Err(Refused::Invalid(why)) => return Err(Problem::fault("/labels", "node.labels", why)),
        claimed => claimed?,
    };
    Ok(if tasks.is_empty() { StatusCode::NO_CONTENT.into_response() } else { Json(Claimed { tasks }).into_response() })
}

/// Waits until the farm has something for the node, and leases it: at most so many tasks.
pub(super) async fn work_for(
    app: &App,
    node: &Node,
    asked: &Claim,
    most: usize,
) -> Result<Result<Vec<LeasedTask>, Refused>, Problem> {
    let (service, placement) = (leases::service(app), &app.placement);
    let mut known = known(app, node.id).await?;
    let worker = leases::worker_that(node, known.as_ref().is_some_and(|known| known.standing.may_work));
    // What cannot be taken is refused at once, not when there is work.
    if let Err(refused) = service.claim_these(&worker, asked, &[]).await {
        return Ok(Err(refused));
    }
    let until = Instant::now() + Service::wait(asked);
    let names = queues();
    let news = app.workflows.watch(&names.each_ref().map(String::as_str));
    let mut asked = asked.clone();
    if let Some(known) = &known {
        // What is known of the node, and what an operator says of it, wins over what it says now.
        asked.labels.extend(known.standing.labels.clone());
    }
    placement.read(app, Instant::now()).await?;
    while !app.stopping.is_cancelled() {
        if let Some(known) = &known {
            placement.greet(known, &asked);
        }
        let mut place = placement.wait(node.id, asked.slots);
        placement.assign();
        late::tell(app).await?;
        let chosen = loop {
            let left = until.saturating_duration_since(Instant::now());
            tokio::select! {
                biased;
                chosen = place.chosen() => break chosen,
                () = app.stopping.cancelled() => return Ok(Ok(Vec::new())),
                heard = news.wait(left.min(LOOK_AGAIN)) => {
                    if left.is_zero() {
                        return Ok(Ok(Vec::new()));
                    }
                    if heard { placement.read(app, Instant::now()).await? } else { placement.refresh(app).await? }
                    placement.assign();
                    late::tell(app).await?;
                }
            }
        };
        // It may have waited for long: what was decided of it meanwhile holds.
        known = self::known(app, node.id).await?;
        if !known.as_ref().is_some_and(|known| known.standing.may_work) {
            placement.settle(&chosen, &[]);
            placement.nodes_have_changed();
            return Ok(Ok(Vec::new()));
        }
        let tasks = service.claim_these(&worker, &asked, &chosen[..chosen.len().min(most)]).await;
        let leased: Vec<i64> = tasks.iter().flatten().map(|task| task.task_id).collect();
        placement.settle(&chosen, &leased);
        if !leased.is_empty() || tasks.is_err() {
            return Ok(tasks);
        }
        // Somebody was faster, unless they can still be had: then it is not for us to ask on and on.
        placement.read(app, Instant::now()).await?;
        if placement.one_waits(&chosen) {
            news.wait(LOOK_AGAIN).await;
        }
    }
    Ok(Ok(Vec::new()))
}

async fn known(app: &App, node_id: Uuid) -> Result<Option<Known>, Problem> {
    let mut tx = app.db.begin(Scope::platform(Role::Render)).await?;
    Ok(node::standings(&mut tx, Some(node_id)).await?.pop())
}
