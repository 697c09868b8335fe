//! Why no node takes what a run waits for: what the farm says of it, where the engine knows only that nobody has it.

use super::run::Why;
use crate::{app::App, nodes::placement, problem::Problem};
use flatrender_dispatch as dispatch;
use flatrender_engine::{client::Run, operations::Reason};
use serde_json::{Value, json};

/// How queues of what nodes do are called.
const NODES: &str = "node.";

/// Whether this is a matter of nodes: which of them may take something, the farm alone knows.
pub fn decides(reason: &Reason) -> bool {
    match reason {
        Reason::NoWorker { queue, .. }
        | Reason::NoLabels { queue, .. }
        | Reason::NoSlot { queue, .. }
        | Reason::Ready { queue, .. } => queue.starts_with(NODES),
        _ => false,
    }
}

/// What the farm says of a run that waits for nodes, about the step `key`; none when nodes work on it.
///
/// # Errors
/// When the database cannot be reached.
pub async fn why(app: &App, run: &Run, key: &str) -> Result<Option<Why>, Problem> {
    let why = app.placement.why(app, run.tenant_id, run.id).await?;
    Ok(why.map(|why| {
        let (reason, details) = named(&why);
        let text = format!("{key:?} waits: {}.", placement::sentence(&why));
        Why { key: key.to_owned(), reason: reason.to_owned(), text, details }
    }))
}

fn named(why: &dispatch::Why) -> (&'static str, Value) {
    use dispatch::Why as W;
    match why {
        W::NoNodeHas(labels) => ("farm_no_labels", json!({ "labels": placement::labels_in_words(labels) })),
        W::NoNodeHasAll(labels) => ("farm_not_all_labels", json!({ "labels": placement::labels_in_words(labels) })),
        W::OtherTenants(nodes) => ("farm_other_tenants", json!({ "nodes": nodes })),
        W::Avoided(nodes) => ("farm_avoided", json!({ "nodes": nodes })),
        W::Away(nodes) => ("farm_away", json!({ "nodes": nodes })),
        W::Silent(nodes) => ("farm_silent", json!({ "nodes": nodes })),
        W::Reserved(slots) => ("farm_reserved", json!({ "slots": slots })),
        W::OthersTurn(tenants) => ("farm_others_turn", json!({ "tenants": tenants })),
        W::Busy { nodes, ahead } => ("farm_busy", json!({ "nodes": nodes, "ahead": ahead })),
    }
}
