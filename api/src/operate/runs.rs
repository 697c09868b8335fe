//! `GET /v1/operate/runs`: runs, by key and never by counting.

use super::{Party, operations};
use crate::{
    app::App,
    extract::{Json, Query, page},
    problem::{Code, Problem},
};
use axum::extract::State;
use chrono::{DateTime, Datelike as _, Utc};
use flatrender_engine::{
    client::RunState,
    operations::{Filter, Line, Page},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Most kinds or states of a filter.
const MOST: usize = 30;
/// Longest text of a filter, in bytes.
const LONGEST: usize = 300;

/// A run in a list.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RunSummary {
    /// Its id.
    pub id: Uuid,
    /// Always `run`.
    #[schema(example = "run")]
    object: &'static str,
    /// Whose it is.
    tenant_id: Uuid,
    /// What it does.
    #[schema(example = "notify")]
    kind: String,
    /// By which version of its definition it was started.
    version: i32,
    /// What it is about; one run a kind and tenant.
    business_key: Option<String>,
    /// `running`, `succeeded`, `failed` or `cancelled`.
    #[schema(example = "failed")]
    state: &'static str,
    /// Higher goes first.
    priority: i16,
    /// Code of its failure.
    #[schema(example = "render.missing_font")]
    error_code: Option<String>,
    /// The failure in a sentence.
    error_message: Option<String>,
    /// The same for all failures with this cause.
    fingerprint: Option<String>,
    /// What it may be found by.
    #[schema(value_type = Option<Object>)]
    attributes: Option<Value>,
    /// When somebody asked it to stop.
    cancel_requested_at: Option<DateTime<Utc>>,
    /// When it was started.
    created_at: DateTime<Utc>,
    /// When it ended.
    finished_at: Option<DateTime<Utc>>,
}

impl From<Line> for RunSummary {
    fn from(line: Line) -> Self {
        Self {
            id: line.id,
            object: "run",
            tenant_id: line.tenant_id,
            kind: line.kind,
            version: line.version,
            business_key: line.business_key,
            state: line.state.as_str(),
            priority: line.priority,
            error_code: line.error_code,
            error_message: line.error_message.map(|text| super::redact::sentence(&text)),
            fingerprint: line.fingerprint,
            attributes: line.attributes.map(super::redact::shown),
            cancel_requested_at: line.cancel_requested_at,
            created_at: line.created_at,
            finished_at: line.finished_at,
        }
    }
}

/// A page of runs. It looks at a bounded number of rows: it may hold fewer runs than asked for, or none, and yet have a next one.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunPage {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// Newest first.
    data: Vec<RunSummary>,
    /// Whether there may be older ones.
    has_more: bool,
    /// `starting_after` of the next page.
    next_cursor: Option<String>,
}

impl From<Page> for RunPage {
    fn from(page: Page) -> Self {
        Self {
            object: "list",
            data: page.runs.into_iter().map(Into::into).collect(),
            has_more: page.next.is_some(),
            next_cursor: page.next.map(|id| id.to_string()),
        }
    }
}

/// Which runs to list; everything that is given must fit.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListRuns {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those before this id, whether a run has it or not: `next_cursor` of the page before.
    starting_after: Option<Uuid>,
    /// In one of these states, with commas in between: `running`, `succeeded`, `failed`, `cancelled`.
    #[param(example = "failed,cancelled")]
    state: Option<String>,
    /// Of one of these kinds, with commas in between.
    #[param(example = "notify")]
    kind: Option<String>,
    /// Those that wait for, or do, something in this queue right now.
    #[param(example = "node.render")]
    queue: Option<String>,
    /// Of this tenant.
    tenant_id: Option<Uuid>,
    /// That failed with this code.
    #[param(example = "render.missing_font")]
    code: Option<String>,
    /// That failed by this cause.
    fingerprint: Option<String>,
    /// About this.
    business_key: Option<String>,
    /// Started no earlier.
    from: Option<DateTime<Utc>>,
    /// Started before.
    until: Option<DateTime<Utc>>,
}

/// Which runs are meant; everything that is given must fit.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RunFilter {
    /// In one of these states: `running`, `succeeded`, `failed`, `cancelled`.
    #[schema(value_type = Vec<String>, example = json!(["failed"]), max_items = 30, pattern = "^(running|succeeded|failed|cancelled)$")]
    pub states: Vec<RunState>,
    /// Of one of these kinds.
    #[schema(example = json!(["notify"]), max_items = 30, min_length = 1, max_length = 300)]
    pub kinds: Vec<String>,
    /// Those that wait for, or do, something in this queue right now.
    #[schema(min_length = 1, max_length = 300)]
    pub queue: Option<String>,
    /// Of this tenant.
    pub tenant_id: Option<Uuid>,
    /// That failed with this code.
    #[schema(min_length = 1, max_length = 300)]
    pub code: Option<String>,
    /// That failed by this cause.
    #[schema(min_length = 1, max_length = 300)]
    pub fingerprint: Option<String>,
    /// About this.
    #[schema(min_length = 1, max_length = 300)]
    pub business_key: Option<String>,
    /// Started no earlier.
    pub from: Option<DateTime<Utc>>,
    /// Started before.
    pub until: Option<DateTime<Utc>>,
    /// Only those that have failed and of which no later try was made: dead letters. No other state goes with it.
    pub dead: bool,
}

impl RunFilter {
    /// For the engine, within somebody's reach.
    ///
    /// # Errors
    /// `auth.forbidden`, `query.invalid`
    pub fn within(self, party: &Party) -> Result<Filter, Problem> {
        let texts = [&self.queue, &self.code, &self.fingerprint, &self.business_key];
        let texts = texts.into_iter().flatten().chain(&self.kinds);
        if self.kinds.len() > MOST || self.states.len() > MOST || !texts.into_iter().all(|t| fits(t)) {
            return Err(Problem::new(Code::QueryInvalid, "a filter has at most 30 kinds, and texts of 1 to 300 bytes"));
        }
        if [self.from, self.until].iter().flatten().any(|at| !(1970..=9999).contains(&at.year())) {
            return Err(Problem::new(Code::QueryInvalid, "from and until lie between 1970 and 9999"));
        }
        Ok(Filter {
            tenant: party.tenant(self.tenant_id)?,
            kinds: self.kinds,
            states: self.states,
            business_key: self.business_key,
            attributes: None,
            fingerprint: self.fingerprint,
            code: self.code,
            queue: self.queue,
            created_from: self.from,
            created_until: self.until,
            dead: self.dead,
        })
    }
}

fn fits(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len()) && !text.contains('\0')
}

impl ListRuns {
    fn filter(&self) -> Result<RunFilter, Problem> {
        let parts = |text: &Option<String>| -> Vec<String> {
            text.iter().flat_map(|t| t.split(',')).map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect()
        };
        let states = parts(&self.state).into_iter().map(|state| match state.as_str() {
            "running" => Ok(RunState::Running),
            "succeeded" => Ok(RunState::Succeeded),
            "failed" => Ok(RunState::Failed),
            "cancelled" => Ok(RunState::Cancelled),
            _ => Err(Problem::new(Code::QueryInvalid, "state is running, succeeded, failed or cancelled")),
        });
        Ok(RunFilter {
            states: states.collect::<Result<_, _>>()?,
            kinds: parts(&self.kind),
            queue: self.queue.clone(),
            tenant_id: self.tenant_id,
            code: self.code.clone(),
            fingerprint: self.fingerprint.clone(),
            business_key: self.business_key.clone(),
            from: self.from,
            until: self.until,
            dead: false,
        })
    }
}

/// `GET /v1/operate/runs`
#[utoipa::path(
    get, path = "/v1/operate/runs", tag = "Runs", operation_id = "list_runs", summary = "List runs",
    description = "Runs, newest first, a page at a time; of every tenant for whoever runs the platform, of their own for everybody else. \
                   No page counts or scans: it looks at 10 000 rows at most, and says where to go on.",
    params(ListRuns), responses((status = 200, description = "A page", body = RunPage))
)]
pub async fn list(
    State(app): State<App>,
    party: Party,
    Query(query): Query<ListRuns>,
) -> Result<Json<RunPage>, Problem> {
    let size = page::size(query.limit)? as u32;
    let filter = query.filter()?.within(&party)?;
    Ok(Json(operations(&app).find(&filter, query.starting_after, size).await?.into()))
}

/// `GET /v1/operate/dead-letters`
#[utoipa::path(
    get, path = "/v1/operate/dead-letters", tag = "Runs", operation_id = "list_dead_letters", summary = "List dead letters",
    description = "Runs that have failed and of which no later try is under way or went well, newest first, a page at a time.",
    params(ListRuns), responses((status = 200, description = "A page", body = RunPage))
)]
pub async fn dead_letters(
    State(app): State<App>,
    party: Party,
    Query(query): Query<ListRuns>,
) -> Result<Json<RunPage>, Problem> {
    let size = page::size(query.limit)? as u32;
    let filter = query.filter()?.within(&party)?;
    Ok(Json(operations(&app).dead_letters(&filter, query.starting_after, size).await?.into()))
}
