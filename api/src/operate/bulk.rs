//! `/v1/operate/bulk`: one operation on many runs, with a preview, a frozen set, and an outcome for each.

use super::{Party, Rank, cli_line, kinds, operations, reason, runs::RunFilter, runs::RunSummary};
use crate::{
    app::App,
    extract::{
        Json, Path, Query,
        page::{self, Page},
    },
    problem::{Code, Problem, ProblemBody},
    render::{renders::REPLAYED, submit},
};
use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use flatrender_engine::operations::{Action, Bulk, Item, Operations, Preview, Total};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// What is to be done to each run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BulkKind {
    /// Tries it again, as a new run; films that failed are ordered again as they were. What is asked for anew elsewhere, such as
    /// snapshots, is left out.
    Retry,
    /// Asks it to stop.
    Cancel,
    /// Changes its priority.
    SetPriority,
}

impl BulkKind {
    fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Cancel => "cancel",
            Self::SetPriority => "set_priority",
        }
    }

    /// Why runs of a kind are left out, as far as they are.
    fn refuses(self, kind: &str) -> Option<&'static str> {
        match self {
            Self::Retry => kinds::refuses_retry(kind),
            Self::Cancel => kinds::refuses_cancel(kind),
            Self::SetPriority => None,
        }
    }

    /// Which kinds are not left out.
    fn wanted(self) -> fn(&str) -> bool {
        match self {
            Self::Retry => kinds::among_retried,
            Self::Cancel => kinds::among_cancelled,
            Self::SetPriority => |_| true,
        }
    }
}

/// An operation on many runs.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateBulk {
    /// What is to be done to each.
    action: BulkKind,
    /// For `set_priority`: the new one.
    priority: Option<i16>,
    /// Which runs: those that fit at this moment, whatever fits later. At most a million.
    #[serde(default)]
    filter: RunFilter,
    /// Instead: those of another operation that failed or were in conflict.
    #[schema(example = json!(null))]
    rest_of: Option<Uuid>,
    /// Why, in 1 to 500 characters.
    #[schema(
        example = "the font is installed now",
        required = true,
        pattern = r"^\s*[^\u0000-\u001f\u007f-\u009f]+\s*$"
    )]
    reason: Option<String>,
    /// Runs a second, at most, 0.001 to 100000; as fast as it goes when absent.
    #[schema(example = 5.0, minimum = 0.001, maximum = 100_000)]
    rate_per_second: Option<f64>,
}

/// How many runs there are of a kind and tenant in a state.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunCount {
    /// What they do.
    #[schema(example = "notify")]
    kind: String,
    /// Whose.
    tenant_id: Uuid,
    /// Where they stand.
    #[schema(example = "failed")]
    state: &'static str,
    /// How many.
    n: i64,
}

impl From<Total> for RunCount {
    fn from(t: Total) -> Self {
        Self { kind: t.kind, tenant_id: t.tenant_id, state: t.state.as_str(), n: t.n }
    }
}

/// Runs of a kind that an operation leaves out.
#[derive(Debug, Serialize, ToSchema)]
pub struct LeftOut {
    /// What they do.
    #[schema(example = "scene_snapshot")]
    kind: String,
    /// How many.
    n: i64,
    /// Why.
    #[schema(example = "a snapshot belongs to the run it was asked for with: ask for the scene's snapshot again")]
    why: &'static str,
}

/// What an operation would do. It does nothing before it is begun.
#[derive(Debug, Serialize, ToSchema)]
pub struct BulkPreview {
    /// The operation.
    id: Uuid,
    /// Always `bulk_preview`.
    #[schema(example = "bulk_preview")]
    object: &'static str,
    /// How many runs it is about: what is to be confirmed.
    total: i32,
    /// The same by kind, state and tenant.
    counts: Vec<RunCount>,
    /// Some of them.
    sample: Vec<RunSummary>,
    /// What fits the filter as well and is not among them.
    left_out: Vec<LeftOut>,
    /// How it is begun on the command line.
    #[schema(example = "flatrender operate begin 0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e11 --confirm 12")]
    cli: String,
}

/// An operation as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct BulkView {
    /// The operation.
    pub(super) id: Uuid,
    /// Always `bulk_operation`.
    #[schema(example = "bulk_operation")]
    object: &'static str,
    /// Who wants it.
    actor: String,
    /// `retry`, `cancel` or `set_priority`.
    #[schema(example = "retry")]
    pub(super) action: String,
    /// What it was made from.
    #[schema(value_type = Object)]
    filter: Value,
    /// Why.
    reason: String,
    /// `previewed`, `running`, `paused`, `aborted` or `finished`.
    #[schema(example = "running")]
    pub(super) state: String,
    /// Runs a second, at most.
    rate_per_second: Option<f64>,
    /// Runs in all.
    pub(super) total: i32,
    /// Those that had their turn.
    pub(super) turned: i32,
    /// Those that were done.
    done: i32,
    /// Those that had moved on.
    skipped: i32,
    /// Those that something stood in the way of.
    conflicts: i32,
    /// Those that could not be done.
    failed: i32,
    /// When the set was frozen.
    created_at: DateTime<Utc>,
    /// When it was begun.
    started_at: Option<DateTime<Utc>>,
    /// When it came to its end.
    finished_at: Option<DateTime<Utc>>,
}

impl From<Bulk> for BulkView {
    fn from(b: Bulk) -> Self {
        Self {
            id: b.id,
            object: "bulk_operation",
            actor: b.actor,
            action: b.action,
            filter: b.filter,
            reason: b.reason,
            state: b.state,
            rate_per_second: b.rate_per_second,
            total: b.total,
            turned: b.next_n.saturating_sub(1).clamp(0, b.total),
            done: b.done,
            skipped: b.skipped,
            conflicts: b.conflicts,
            failed: b.failed,
            created_at: b.created_at,
            started_at: b.started_at,
            finished_at: b.finished_at,
        }
    }
}

/// A run of an operation, and what became of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct BulkItem {
    /// From 1.
    n: i32,
    /// The run.
    run_id: Uuid,
    /// `done`, `skipped`, `conflict` or `failed`; null before its turn.
    #[schema(example = "done")]
    outcome: Option<String>,
    /// Why, if it was not done.
    note: Option<String>,
    /// The run that was made.
    new_run_id: Option<Uuid>,
}

impl From<Item> for BulkItem {
    fn from(i: Item) -> Self {
        Self { n: i.n, run_id: i.run_id, outcome: i.outcome, note: i.note, new_run_id: i.result_run_id }
    }
}

/// Which operations to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListBulk {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those before this: `next_cursor` of the page before.
    starting_after: Option<Uuid>,
}

/// Which runs of an operation to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListBulkItems {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those after this number: `next_cursor` of the page before.
    starting_after: Option<i32>,
}

/// What to do with an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BulkAct {
    /// Begins what was previewed; `confirm` is the number of its runs.
    Begin,
    /// Lets it rest after its current hundred.
    Pause,
    /// Goes on with what rests.
    Resume,
    /// Ends it for good; what was done stays done.
    Abort,
}

/// Something to be done with an operation.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BulkAction {
    /// What.
    action: BulkAct,
    /// For `begin`: how many runs it is about.
    #[schema(example = 12)]
    confirm: Option<i32>,
    /// Why, in 1 to 500 characters. `abort` needs it.
    #[schema(example = "the font is not the cause", pattern = r"^\s*[^\u0000-\u001f\u007f-\u009f]*\s*$")]
    reason: Option<String>,
}

/// `POST /v1/operate/bulk`
#[utoipa::path(
    post, path = "/v1/operate/bulk", tag = "Runs", operation_id = "preview_bulk", summary = "Preview an operation on many runs",
    description = "Freezes the runs that fit now and shows what would happen to them. Nothing is done before it is begun. With an \
                   `Idempotency-Key` the same request gives the same preview, however often it is sent.",
    params(("Idempotency-Key" = Option<String>, Header, max_length = 255, pattern = r"^[\t -~]+$", description = "1 to 255 printable ASCII characters, yours")),
    request_body(content = CreateBulk, example = json!({"action": "retry", "filter": {"states": ["failed"], "code": "http.unreachable"},
        "reason": "the receiver is back"})),
    responses(
        (status = 201, description = "The preview", body = BulkPreview, headers(
            ("Idempotent-Replayed" = String, description = "`true` when an earlier request with this key made the preview")
        )),
        (status = 404, description = "`run.not_found`: the operation whose rest is meant", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`: nothing fits, too much does, or no reason; `idempotency.key_reused`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn create(
    State(app): State<App>,
    party: Party,
    headers: HeaderMap,
    Json(body): Json<CreateBulk>,
) -> Result<Response, Problem> {
    let key = submit::idempotency_key(&headers)?;
    party.may(if body.action == BulkKind::SetPriority { Rank::Operator } else { Rank::Keeper })?;
    let because = reason(body.reason.as_deref(), true)?;
    let action = match (body.action, body.priority) {
        (BulkKind::Retry, None) => Action::Retry,
        (BulkKind::Cancel, None) => Action::Cancel,
        (BulkKind::SetPriority, Some(priority)) => Action::SetPriority { priority },
        (BulkKind::SetPriority, None) => {
            return Err(Problem::fault("/priority", "field.missing", "say which priority"));
        }
        _ => return Err(Problem::fault("/priority", "operate.bad", "only set_priority takes a priority")),
    };
    let (operations, by) = (operations(&app), party.by(because.clone()));
    let filter = body.filter.within(&party)?;
    // One that was named is told why it is left out.
    if let Some(why) = filter.kinds.iter().find_map(|kind| body.action.refuses(kind)) {
        return Err(Problem::new(Code::RunNoCopies, why));
    }
    let tenant = filter.tenant;
    let asked = submit::fingerprint(&json!({ "action": action, "filter": filter, "rest_of": body.rest_of,
        "reason": because, "rate_per_second": body.rate_per_second }));
    let mut tx = party.begin(&app).await?;
    if let Some(key) = key
        && let Some((known, was_asked)) = operations.preview_known(&mut tx, &by, key).await?
    {
        if was_asked != asked {
            let why = "this idempotency key was used with another body";
            return Err(Problem::new(Code::IdempotencyKeyReused, why));
        }
        let replayed = [(REPLAYED, HeaderValue::from_static("true"))];
        return Ok((StatusCode::CREATED, replayed, Json(BulkPreview::of(known, body.action))).into_response());
    }
    let preview = match body.rest_of {
        Some(id) => {
            let whole = found(&operations, &party, id).await?;
            if whole.action != body.action.name() {
                let detail = format!("the rest of that operation is a matter of {}", whole.action);
                return Err(Problem::fault("/action", "operate.bad", detail));
            }
            mine(&party, &whole)?;
            operations.preview_rest(&mut tx, &by, id).await?
        }
        None => {
            let which = (&filter, body.action.wanted());
            operations.preview_of(&mut tx, &by, action, which, body.rate_per_second).await?
        }
    };
    if let Some(key) = key {
        operations.keep_key(&mut tx, &preview, key, &asked).await?;
    }
    let (target, after) = (format!("bulk:{}", preview.id), json!({ "action": action, "total": preview.total }));
    party.note(&mut tx, tenant, ("bulk.preview", &target), because.as_deref(), after).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(BulkPreview::of(preview, body.action))).into_response())
}

impl BulkPreview {
    fn of(p: Preview, action: BulkKind) -> Self {
        let (id, total) = (p.id.to_string(), p.total.to_string());
        let left_out = p.left_out.into_iter().map(|(kind, n)| {
            let why = action.refuses(&kind).unwrap_or("nobody here knows runs of this kind");
            LeftOut { kind, n, why }
        });
        Self {
            id: p.id,
            object: "bulk_preview",
            total: p.total,
            counts: p.counts.into_iter().map(Into::into).collect(),
            sample: p.sample.into_iter().map(Into::into).collect(),
            left_out: left_out.collect(),
            cli: cli_line::line(["operate", "begin", &id, "--confirm", &total]),
        }
    }
}

/// An operation that somebody reaches.
async fn found(operations: &Operations, party: &Party, id: Uuid) -> Result<Bulk, Problem> {
    let bulk = operations.bulk(id).await?;
    let bulk = bulk.filter(|bulk| party.reach.is_none() || bulk.tenant().is_some_and(|tenant| party.reaches(tenant)));
    bulk.ok_or_else(|| Problem::not_found(Code::RunNotFound, "operation"))
}

/// Whoever keeps a tenant acts on what they made themselves: what those who run the platform do to it is theirs.
fn mine(party: &Party, bulk: &Bulk) -> Result<(), Problem> {
    match party.reach.is_none() || bulk.actor == party.by(None).actor {
        true => Ok(()),
        false => Err(Problem::new(
            Code::AuthForbidden,
            "somebody else's operation is theirs to begin, to stop and to go on with",
        )),
    }
}

/// `GET /v1/operate/bulk`
#[utoipa::path(
    get, path = "/v1/operate/bulk", tag = "Runs", operation_id = "list_bulk", summary = "List operations on many runs",
    description = "Operations, newest first, a page at a time.",
    params(ListBulk), responses((status = 200, description = "A page", body = Page<BulkView>))
)]
pub async fn list(
    State(app): State<App>,
    party: Party,
    Query(query): Query<ListBulk>,
) -> Result<Json<Page<BulkView>>, Problem> {
    let size = page::size(query.limit)?;
    let rows = operations(&app).bulks(party.reach, query.starting_after, size as u32 + 1).await?;
    Ok(Json(Page::of(rows, size, |bulk| bulk.id.to_string())))
}

/// `GET /v1/operate/bulk/{id}`
#[utoipa::path(
    get, path = "/v1/operate/bulk/{id}", tag = "Runs", operation_id = "get_bulk", summary = "Look at an operation on many runs",
    description = "How far it has come.", params(("id" = Uuid, Path, description = "The operation")),
    responses(
        (status = 200, description = "The operation", body = BulkView),
        (status = 404, description = "`run.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get(State(app): State<App>, party: Party, Path(id): Path<Uuid>) -> Result<Json<BulkView>, Problem> {
    Ok(Json(found(&operations(&app), &party, id).await?.into()))
}

/// `GET /v1/operate/bulk/{id}/items`
#[utoipa::path(
    get, path = "/v1/operate/bulk/{id}/items", tag = "Runs", operation_id = "list_bulk_items", summary = "List the runs of an operation",
    description = "Each run with what became of it, in their order, a page at a time.",
    params(("id" = Uuid, Path, description = "The operation"), ListBulkItems),
    responses(
        (status = 200, description = "A page", body = Page<BulkItem>),
        (status = 404, description = "`run.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn items(
    State(app): State<App>,
    party: Party,
    Path(id): Path<Uuid>,
    Query(query): Query<ListBulkItems>,
) -> Result<Json<Page<BulkItem>>, Problem> {
    let size = page::size(query.limit)?;
    let operations = operations(&app);
    found(&operations, &party, id).await?;
    let from = query.starting_after.unwrap_or(0).max(0).saturating_add(1);
    let rows = operations.items(id, from, size as u32 + 1).await?;
    Ok(Json(Page::of(rows, size, |item| item.n.to_string())))
}

/// `POST /v1/operate/bulk/{id}/actions`
#[utoipa::path(
    post, path = "/v1/operate/bulk/{id}/actions", tag = "Runs", operation_id = "act_on_bulk", summary = "Begin, pause, resume or abort",
    description = "`begin` what was previewed, by the number of its runs; `pause` and `resume`; `abort` for good, with a reason.",
    params(("id" = Uuid, Path, description = "The operation")), request_body = BulkAction,
    responses(
        (status = 200, description = "The operation, afterwards", body = BulkView),
        (status = 404, description = "`run.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`run.moved`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`: not so many runs", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn act(
    State(app): State<App>,
    party: Party,
    Path(id): Path<Uuid>,
    Json(BulkAction { action, confirm, reason: given }): Json<BulkAction>,
) -> Result<Json<BulkView>, Problem> {
    party.may(Rank::Keeper)?;
    let because = reason(given.as_deref(), action == BulkAct::Abort)?;
    let (operations, by) = (operations(&app), party.by(because.clone()));
    let bulk = found(&operations, &party, id).await?;
    mine(&party, &bulk)?;
    if bulk.action == "set_priority" {
        party.may(Rank::Operator)?;
    }
    let mut tx = party.begin(&app).await?;
    match action {
        BulkAct::Begin => {
            let missing = || Problem::fault("/confirm", "field.missing", "say how many runs it is about");
            operations.begin(&mut tx, &by, id, confirm.ok_or_else(missing)?).await?;
        }
        BulkAct::Resume if bulk.state != "paused" => {
            return Err(Problem::new(Code::RunMoved, "the operation does not rest"));
        }
        BulkAct::Resume => operations.begin(&mut tx, &by, id, bulk.total).await?,
        BulkAct::Pause => operations.pause_bulk(&mut tx, &by, id).await?,
        BulkAct::Abort => operations.abort_bulk(&mut tx, &by, id).await?,
    }
    let name = match action {
        BulkAct::Begin => "bulk.begin",
        BulkAct::Resume => "bulk.resume",
        BulkAct::Pause => "bulk.pause",
        BulkAct::Abort => "bulk.abort",
    };
    let (target, after) = (format!("bulk:{id}"), json!({ "total": bulk.total }));
    party.note(&mut tx, bulk.tenant(), (name, &target), because.as_deref(), after).await?;
    tx.commit().await?;
    app.workflows.announce();
    Ok(Json(found(&operations, &party, id).await?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn what_is_previewed_is_begun_on_the_command_line() {
        let preview = Preview { id: Uuid::nil(), total: 12, counts: vec![], sample: vec![], left_out: BTreeMap::new() };
        let line = BulkPreview::of(preview, BulkKind::Retry).cli;
        assert_eq!(crate::cli::understands(&cli_line::words(&line)), Ok(()), "{line}");
    }
}
