//! `/v1/platform/schedules`: what runs when, for whoever runs the platform.

use crate::{
    app::App,
    auth::Operator,
    extract::{
        Json, Path, Query,
        page::{self, Page},
    },
    identity::{Change, Registrar},
    problem::{Code, Problem, ProblemBody},
};
use axum::extract::State;
use chrono::{DateTime, Utc};
use flatrender_engine::{
    client::Run,
    schedules::{CatchUp, Fire, Overlap, Schedule, ScheduleError, Schedules},
};
use flatrender_workflows::models::{DEFAULT_TENANT, Role, Scope};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Times ahead that are shown.
const NEXT: usize = 5;
/// Times past that are shown.
const FIRES: u32 = 20;

/// A schedule.
#[derive(Debug, Serialize, ToSchema)]
pub struct ScheduleView {
    /// Its id.
    id: Uuid,
    /// Always `schedule`.
    #[schema(example = "schedule")]
    object: &'static str,
    /// Whose it is; the platform's own are the default tenant's.
    tenant_id: Uuid,
    /// Its name, unique within the tenant.
    #[schema(example = "ensure_partitions")]
    name: String,
    /// When, by cron.
    #[schema(example = "10 0 * * *")]
    cron: String,
    /// In which zone.
    #[schema(example = "UTC")]
    time_zone: String,
    /// The workflow that it starts.
    #[schema(example = "keep_months")]
    workflow: String,
    /// About times that nobody was there for: `skip`, `one` run for all, or `all`.
    #[schema(example = "one")]
    catch_up: &'static str,
    /// How far back that reaches.
    #[schema(example = 86_400)]
    catch_up_seconds: u64,
    /// About a run that is not over: `skip`, `buffer_one`, `allow` or `cancel_other`.
    #[schema(example = "skip")]
    overlap: &'static str,
    /// Whether it fires at all.
    enabled: bool,
    /// Since when it is paused.
    paused_at: Option<DateTime<Utc>>,
    /// The next time; null while it is paused or off.
    next_at: Option<DateTime<Utc>>,
    /// A time that waits until a run is over.
    buffered_at: Option<DateTime<Utc>>,
    /// Times that passed without a run because nobody was there.
    missed: i64,
    /// From 1; every change raises it.
    revision: i32,
}

impl From<Schedule> for ScheduleView {
    fn from(s: Schedule) -> Self {
        Self {
            id: s.id,
            object: "schedule",
            tenant_id: s.tenant_id,
            name: s.terms.name,
            cron: s.terms.cron,
            time_zone: s.terms.time_zone,
            workflow: s.terms.kind,
            catch_up: match s.terms.catch_up {
                CatchUp::Skip => "skip",
                CatchUp::One => "one",
                CatchUp::All => "all",
            },
            catch_up_seconds: s.terms.catch_up_window.as_secs(),
            overlap: match s.terms.overlap {
                Overlap::Skip => "skip",
                Overlap::BufferOne => "buffer_one",
                Overlap::Allow => "allow",
                Overlap::CancelOther => "cancel_other",
            },
            enabled: s.terms.enabled,
            paused_at: s.paused_at,
            next_at: s.next_at,
            buffered_at: s.buffered_at,
            missed: s.missed,
            revision: s.revision,
        }
    }
}

/// A schedule, with its times before and after now.
#[derive(Debug, Serialize, ToSchema)]
pub struct ScheduleDetail {
    #[serde(flatten)]
    schedule: ScheduleView,
    /// The next five times, in its zone; what it would do if it were neither paused nor off.
    #[schema(example = json!(["2026-11-27T00:10:00+00:00"]))]
    next: Vec<String>,
    /// The last twenty times, newest first.
    fires: Vec<FireView>,
}

/// A time of a schedule, and what became of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct FireView {
    /// The time by the schedule.
    nominal_at: DateTime<Utc>,
    /// `started`, `manual`, `missed`, `overlapped`, `buffered` or `superseded`.
    #[schema(value_type = String, example = "started")]
    decision: flatrender_engine::schedules::Decision,
    /// When that was decided.
    decided_at: DateTime<Utc>,
    /// The run that was started.
    run_id: Option<Uuid>,
    /// How it stands: `running`, `succeeded`, `failed`, `cancelled`; null when there is none, or its history is gone.
    #[schema(example = "succeeded")]
    run_state: Option<&'static str>,
    /// When it ended.
    finished_at: Option<DateTime<Utc>>,
    /// What it ended with.
    #[schema(value_type = Value)]
    output: Option<serde_json::Value>,
    /// Why it did not succeed.
    error: Option<RunFault>,
}

/// Why a run did not succeed.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunFault {
    /// Its code.
    #[schema(example = "months.faulty")]
    code: String,
    /// In words.
    message: String,
}

impl FireView {
    fn new(fire: Fire, run: Option<Run>) -> Self {
        let Fire { nominal_at, decision, run_id, decided_at, .. } = fire;
        let error = run.as_ref().and_then(|run| run.error.clone());
        Self {
            nominal_at,
            decision,
            decided_at,
            run_id,
            run_state: run.as_ref().map(|run| run.state.as_str()),
            finished_at: run.as_ref().and_then(|run| run.finished_at),
            output: run.and_then(|run| run.output),
            error: error.map(|failure| RunFault { code: failure.code, message: failure.message }),
        }
    }
}

/// Which schedules to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListSchedules {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those after this name: `next_cursor` of the page before.
    starting_after: Option<String>,
    /// Of this tenant; the platform's own when absent.
    tenant_id: Option<Uuid>,
}

/// What to do with a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleAct {
    /// Lets its times pass until it is resumed; they are not caught up with.
    Pause,
    /// Lets it fire again, from the next time on.
    Resume,
    /// Starts a run now, whatever it says about times, pauses and overlaps.
    Run,
}

/// Something to be done with a schedule.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleAction {
    /// What.
    action: ScheduleAct,
}

/// `GET /v1/platform/schedules`
#[utoipa::path(
    get, path = "/v1/platform/schedules", tag = "Platform", operation_id = "list_schedules", summary = "List schedules",
    description = "What the platform does by itself, or a tenant has it do; by name, a page at a time.", params(ListSchedules),
    responses((status = 200, description = "A page", body = Page<ScheduleView>))
)]
pub async fn list(
    State(app): State<App>,
    _: Operator,
    Query(query): Query<ListSchedules>,
) -> Result<Json<Page<ScheduleView>>, Problem> {
    let size = page::size(query.limit)?;
    let (tenant, after) = (query.tenant_id.unwrap_or(DEFAULT_TENANT), query.starting_after.as_deref());
    let rows = of(&app).list(Some(tenant), after, size as u32 + 1).await?;
    Ok(Json(Page::of(rows, size, |s| s.terms.name.clone())))
}

/// `GET /v1/platform/schedules/{id}`
#[utoipa::path(
    get, path = "/v1/platform/schedules/{id}", tag = "Platform", operation_id = "get_schedule", summary = "Look at a schedule",
    description = "With the next five times in its zone, and the last twenty with what became of each.",
    params(("id" = Uuid, Path, description = "The schedule")),
    responses(
        (status = 200, description = "The schedule", body = ScheduleDetail),
        (status = 404, description = "`schedule.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get(State(app): State<App>, _: Operator, Path(id): Path<Uuid>) -> Result<Json<ScheduleDetail>, Problem> {
    let schedules = of(&app);
    let schedule = schedules.find(id).await?.ok_or_else(none)?;
    let next = local(&schedules.next(id, NEXT).await?, &schedule.terms.time_zone);
    let mut fires = vec![];
    for fire in schedules.fires(id, FIRES).await? {
        let run = match fire.run_id {
            Some(run_id) => app.workflows.run(run_id).await?,
            None => None,
        };
        fires.push(FireView::new(fire, run));
    }
    Ok(Json(ScheduleDetail { schedule: schedule.into(), next, fires }))
}

/// `POST /v1/platform/schedules/{id}/actions`
#[utoipa::path(
    post, path = "/v1/platform/schedules/{id}/actions", tag = "Platform", operation_id = "act_on_schedule",
    summary = "Pause, resume or run a schedule",
    description = "`pause`, `resume`, or `run`: now, whatever it says about times. Doing what is done already changes nothing.",
    params(("id" = Uuid, Path, description = "The schedule")), request_body = ScheduleAction,
    responses(
        (status = 200, description = "The schedule, afterwards", body = ScheduleView),
        (status = 404, description = "`schedule.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn act(
    State(app): State<App>,
    registrar: Registrar,
    Path(id): Path<Uuid>,
    Json(ScheduleAction { action }): Json<ScheduleAction>,
) -> Result<Json<ScheduleView>, Problem> {
    let schedules = of(&app);
    let before: ScheduleView = schedules.find(id).await?.ok_or_else(none)?.into();
    let mut tx = app.db.begin(Scope::platform(Role::Workflow)).await?;
    let changed = action.take(&schedules, &mut tx, id).await?;
    if changed {
        Scope::tenant(Role::Identity, DEFAULT_TENANT).enter(&mut tx).await?;
        let change = Change { before: Some(&before), after: Some(action) };
        registrar.of(DEFAULT_TENANT).record(&mut tx, action.name(), &format!("schedule:{id}"), change).await?;
    }
    tx.commit().await?;
    app.workflows.announce();
    Ok(Json(schedules.find(id).await?.ok_or_else(none)?.into()))
}

impl ScheduleAct {
    /// As the audit names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pause => "schedule.pause",
            Self::Resume => "schedule.resume",
            Self::Run => "schedule.run",
        }
    }

    /// Does it; false when there was nothing to do.
    ///
    /// # Errors
    /// [`ScheduleError::NotFound`], and those of the database.
    pub async fn take(
        self,
        schedules: &Schedules,
        tx: &mut sqlx::PgConnection,
        id: Uuid,
    ) -> Result<bool, ScheduleError> {
        match self {
            Self::Pause => schedules.pause(tx, id).await,
            Self::Resume => schedules.resume(tx, id).await,
            Self::Run => schedules.run_now(tx, id).await.map(|_| true),
        }
    }
}

/// Times as the clocks of a zone show them.
pub fn local(times: &[DateTime<Utc>], time_zone: &str) -> Vec<String> {
    let zone = time_zone.parse().unwrap_or(chrono_tz::UTC);
    times.iter().map(|at| at.with_timezone(&zone).to_rfc3339()).collect()
}

fn of(app: &App) -> Schedules {
    Schedules::new(app.workflows.clone())
}

fn none() -> Problem {
    Problem::not_found(Code::ScheduleNotFound, "schedule")
}

impl From<ScheduleError> for Problem {
    fn from(error: ScheduleError) -> Self {
        match error {
            ScheduleError::NotFound(_) => none(),
            ScheduleError::BadCron { .. } => Self::fault("/cron", "schedule.cron", error.to_string()),
            ScheduleError::BadTimeZone(_) => Self::fault("/time_zone", "timezone.unknown", error.to_string()),
            ScheduleError::Engine(error) => error.into(),
            other => Self::internal(&other),
        }
    }
}
