//! `/v1/operate/queues`: queues, who works on them, what they allow.

use super::{Party, Rank, cli_line, operations, reason};
use crate::{
    app::App,
    auth::Operator,
    extract::{Json, Path},
    problem::{Code, Problem, ProblemBody},
};
use axum::extract::State;
use chrono::{DateTime, Utc};
use flatrender_engine::operations::{Operations, Rate, Terms};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};
use utoipa::ToSchema;

/// Longest name of a queue, in bytes.
const NAME: usize = 100;

/// A queue.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct QueueView {
    /// Its name.
    #[schema(example = "node.render")]
    pub(super) queue: String,
    /// Always `queue`.
    #[schema(example = "queue")]
    object: &'static str,
    /// What could be claimed now; 10 000 stands for at least so many.
    pub(super) ready: i64,
    /// For how long the oldest of it has been ready.
    pub(super) oldest_seconds: f64,
    /// What is being worked on.
    pub(super) leased: i64,
    /// Live workers of ours.
    workers: i64,
    /// What they take at a time; nodes have slots of their own.
    slots: i64,
    /// Since when nobody may claim from it.
    pub(super) paused_at: Option<DateTime<Utc>>,
    /// Who paused it.
    paused_by: Option<String>,
    /// Why.
    pause_reason: Option<String>,
    /// What it allows; null: as much as there is.
    terms: Option<QueueTerms>,
}

/// So many in so long.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QueueRate {
    /// How many.
    #[schema(example = 100)]
    n: u32,
    /// In how many seconds.
    #[schema(example = 60.0)]
    seconds: f64,
    /// How many more one window may see.
    #[serde(default)]
    burst: u32,
}

/// What a queue allows, all tenants together and each of them.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QueueTerms {
    /// Leases at once, of all tenants.
    cap: Option<u32>,
    /// Leases at once of one tenant.
    tenant_cap: Option<u32>,
    /// Leases at once of one limit key of a tenant.
    key_cap: Option<u32>,
    /// Claims of all tenants.
    rate: Option<QueueRate>,
    /// Claims of one tenant.
    tenant_rate: Option<QueueRate>,
    /// Claims of one limit key of a tenant.
    key_rate: Option<QueueRate>,
}

impl From<Terms> for QueueTerms {
    fn from(t: Terms) -> Self {
        let rate = |r: Rate| QueueRate { n: r.n, seconds: r.per.as_secs_f64(), burst: r.burst };
        Self {
            cap: t.cap,
            tenant_cap: t.tenant_cap,
            key_cap: t.key_cap,
            rate: t.rate.map(rate),
            tenant_rate: t.tenant_rate.map(rate),
            key_rate: t.key_rate.map(rate),
        }
    }
}

impl QueueTerms {
    fn read(self) -> Result<Terms, Problem> {
        let rate = |rate: Option<QueueRate>| {
            let wrong =
                || Problem::fault("/terms", "operate.bad", "a rate is 1 to a million in a millisecond to a year");
            let read = |r: QueueRate| match Duration::try_from_secs_f64(r.seconds) {
                Ok(per) => Ok(Rate::new(r.n, per).burst(r.burst)),
                Err(_) => Err(wrong()),
            };
            rate.map(read).transpose()
        };
        Ok(Terms {
            cap: self.cap,
            tenant_cap: self.tenant_cap,
            key_cap: self.key_cap,
            rate: rate(self.rate)?,
            tenant_rate: rate(self.tenant_rate)?,
            key_rate: rate(self.key_rate)?,
        })
    }
}

/// The queues there are.
#[derive(Debug, Serialize, ToSchema)]
pub struct Queues {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// By name.
    data: Vec<QueueView>,
}

/// What to do with a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueueAct {
    /// Lets nobody claim from it; what is leased goes on. Needs a reason.
    Pause,
    /// Lets work be claimed from it again.
    Resume,
    /// Sets what it allows. For whoever administers the platform.
    SetTerms,
    /// It allows as much as there is. For whoever administers the platform.
    EndTerms,
}

/// Something to be done with a queue.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QueueAction {
    /// What.
    action: QueueAct,
    /// Why, in 1 to 500 characters.
    #[schema(example = "the storage is being moved")]
    reason: Option<String>,
    /// For `set_terms`: all that it allows.
    terms: Option<QueueTerms>,
}

/// What was done with a queue.
#[derive(Debug, Serialize, ToSchema)]
pub struct QueueActed {
    /// Always `queue_action`.
    #[schema(example = "queue_action")]
    object: &'static str,
    /// The queue, afterwards.
    queue: QueueView,
    /// Whether anything changed: what is paused already is not paused again.
    changed: bool,
    /// The same on the command line.
    #[schema(example = "flatrender operate pause-queue node.render --reason 'the storage is being moved'")]
    cli: String,
}

/// All queues of which anything is known, by name.
pub(super) async fn all(operations: &Operations) -> Result<Vec<QueueView>, Problem> {
    let mut queues: BTreeMap<String, QueueView> = BTreeMap::new();
    let mut at = |name: &str, note: &mut dyn FnMut(&mut QueueView)| {
        let fresh = || QueueView { queue: name.to_owned(), object: "queue", ..QueueView::default() };
        note(queues.entry(name.to_owned()).or_insert_with(fresh));
    };
    for offer in operations.offers_now().await? {
        at(&offer.queue, &mut |q| {
            q.workers += 1;
            q.slots += i64::from(offer.slots);
        });
    }
    for depth in operations.queue_depths().await? {
        at(&depth.queue, &mut |q| (q.ready, q.oldest_seconds) = (depth.ready, depth.oldest_seconds));
    }
    for (name, leased) in operations.leased_by_queue().await? {
        at(&name, &mut |q| q.leased = leased);
    }
    for paused in operations.paused_queues().await? {
        at(&paused.queue.clone(), &mut |q| {
            q.paused_at = Some(paused.paused_at);
            q.paused_by = Some(paused.paused_by.clone());
            q.pause_reason.clone_from(&paused.reason);
        });
    }
    for (name, terms) in operations.all_terms().await? {
        at(&name, &mut |q| q.terms = Some(terms.clone().into()));
    }
    Ok(queues.into_values().collect())
}

/// `GET /v1/operate/queues`
#[utoipa::path(
    get, path = "/v1/operate/queues", tag = "Platform", operation_id = "list_queues", summary = "List queues",
    description = "Every queue that has work, workers, terms, or is paused; by name. Of the platform.",
    responses((status = 200, description = "The queues", body = Queues))
)]
pub async fn list(State(app): State<App>, _: Operator) -> Result<Json<Queues>, Problem> {
    Ok(Json(Queues { object: "list", data: all(&operations(&app)).await? }))
}

/// `POST /v1/operate/queues/{queue}/actions`
#[utoipa::path(
    post, path = "/v1/operate/queues/{queue}/actions", tag = "Platform", operation_id = "act_on_queue",
    summary = "Pause, resume or limit a queue",
    description = "`pause` and `resume` for whoever runs the platform; `set_terms` and `end_terms` for whoever administers it. What the \
                   farm gives out has no terms: nodes, classes and packages decide there.",
    params(("queue" = String, Path, description = "The queue")),
    request_body(content = QueueAction, example = json!({"action": "pause", "reason": "the storage is being moved"})),
    responses(
        (status = 200, description = "The queue, afterwards", body = QueueActed),
        (status = 404, description = "`queue.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn act(
    State(app): State<App>,
    _: Operator,
    party: Party,
    Path(queue): Path<String>,
    Json(QueueAction { action, reason: given, terms }): Json<QueueAction>,
) -> Result<Json<QueueActed>, Problem> {
    party.may(if matches!(action, QueueAct::Pause | QueueAct::Resume) { Rank::Operator } else { Rank::Admin })?;
    let because = reason(given.as_deref(), action == QueueAct::Pause)?;
    let operations = operations(&app);
    let none = || Problem::not_found(Code::QueueNotFound, "queue");
    if queue.len() > NAME || !all(&operations).await?.iter().any(|q| q.queue == queue) {
        return Err(none());
    }
    let (mut tx, by) = (party.begin(&app).await?, party.by(because.clone()));
    let changed = match action {
        QueueAct::Pause => operations.pause_queue(&mut tx, &by, &queue).await?,
        QueueAct::Resume => operations.resume_queue(&mut tx, &by, &queue).await?,
        QueueAct::EndTerms => operations.end_terms(&mut tx, &by, &queue).await?,
        QueueAct::SetTerms if queue.starts_with("node.") => {
            return Err(Problem::fault("/terms", "operate.bad", "what the farm gives out has no terms"));
        }
        QueueAct::SetTerms => {
            let missing = || Problem::fault("/terms", "field.missing", "say what it allows");
            operations.set_terms(&mut tx, &by, &queue, &terms.ok_or_else(missing)?.read()?).await?;
            true
        }
    };
    let (name, verb) = match action {
        QueueAct::Pause => ("queue.pause", "pause-queue"),
        QueueAct::Resume => ("queue.resume", "resume-queue"),
        QueueAct::SetTerms => ("queue.set_terms", "set-terms"),
        QueueAct::EndTerms => ("queue.end_terms", "end-terms"),
    };
    if changed {
        party.note(&mut tx, None, (name, &format!("queue:{queue}")), because.as_deref(), json!(terms)).await?;
    }
    tx.commit().await?;
    app.workflows.announce();
    let terms = terms.filter(|_| action == QueueAct::SetTerms).map(|terms| json!(terms).to_string());
    let cli = line_of(verb, &queue, terms.as_deref(), because.as_deref());
    let queue = all(&operations).await?.into_iter().find(|q| q.queue == queue);
    // One that was only paused, and has neither work nor workers, is no longer known.
    let queue = queue.unwrap_or_default();
    Ok(Json(QueueActed { object: "queue_action", queue, changed, cli }))
}

/// The same on the command line.
fn line_of(verb: &str, queue: &str, terms: Option<&str>, because: Option<&str>) -> String {
    let given = [("--terms", terms), ("--reason", because)];
    let given = given.into_iter().filter_map(|(name, text)| Some(cli_line::flag(name, text?)));
    let given: Vec<String> = given.flatten().collect();
    cli_line::line(["operate", verb, queue].into_iter().chain(given.iter().map(String::as_str)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_one_of_the_command_line() {
        for (verb, terms) in
            [("pause-queue", None), ("resume-queue", None), ("set-terms", Some(r#"{"cap":10}"#)), ("end-terms", None)]
        {
            for because in [None, Some("it's moved"), Some("- and stays so")] {
                let line = line_of(verb, "node.render", terms, because);
                assert_eq!(crate::cli::understands(&cli_line::words(&line)), Ok(()), "{line}");
            }
        }
    }
}
