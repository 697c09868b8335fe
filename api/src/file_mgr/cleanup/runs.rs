//! `/v1/cleanup-runs`: what rules have removed, would remove, or want somebody else's word for.

use super::rules::{ListCleanup, none};
use crate::{
    app::App,
    extract::{
        Json, Path, Query,
        page::{self, Page},
    },
    identity::{Change, Steward, Trustee, made},
    problem::{Code, Problem, ProblemBody},
};
use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use flatrender_engine::Delivery;
use flatrender_workflows::{
    definitions::clean_up::{CleanUp, VERDICT, Verdict},
    models::{
        Db, Role, Scope,
        file_mgr::{
            cleanup_run::{self, CleanupRun, Item},
            cleanup_schedule,
        },
        identity::tenant_api_key,
    },
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// A run of a rule.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CleanupRunView {
    /// Its id.
    id: Uuid,
    /// Always `cleanup_run`.
    #[schema(example = "cleanup_run")]
    object: &'static str,
    /// Its rule.
    schedule_id: Uuid,
    /// `running`, `awaiting_approval`, `done`, `cancelled` or `failed`.
    #[schema(example = "done")]
    state: String,
    /// Whether it only lists.
    dry_run: bool,
    /// Who asked for it; null: the clock did.
    started_by: Option<String>,
    /// What is younger is not touched.
    cutoff: DateTime<Utc>,
    /// Why somebody else has to approve it.
    #[schema(example = "12000 files are more than 10000")]
    guard: Option<String>,
    /// Who approved or rejected it.
    decided_by: Option<String>,
    /// Files that were to go.
    planned_count: i64,
    /// Their bytes.
    planned_bytes: i64,
    /// Files that are gone.
    deleted_count: i64,
    /// Their bytes.
    deleted_bytes: i64,
    /// Files that stayed: restored meanwhile, or somebody needs them.
    skipped_count: i64,
    /// When it was fired.
    created_at: DateTime<Utc>,
    /// When it ended.
    finished_at: Option<DateTime<Utc>>,
}

impl From<CleanupRun> for CleanupRunView {
    fn from(r: CleanupRun) -> Self {
        Self {
            id: r.id,
            object: "cleanup_run",
            schedule_id: r.schedule_id,
            state: r.state,
            dry_run: r.dry_run,
            started_by: r.started_by,
            cutoff: r.cutoff,
            guard: r.guard,
            decided_by: r.decided_by,
            planned_count: r.planned_count,
            planned_bytes: r.planned_bytes,
            deleted_count: r.deleted_count,
            deleted_bytes: r.deleted_bytes,
            skipped_count: r.skipped_count,
            created_at: r.created_at,
            finished_at: r.finished_at,
        }
    }
}

/// A file of a plan.
#[derive(Debug, Serialize, ToSchema)]
pub struct CleanupFileView {
    /// Its place in the plan, from 1.
    seq: i32,
    /// The file.
    file_id: Uuid,
    /// Its name.
    #[schema(example = "logo.png")]
    name: String,
    /// Its bytes.
    size_bytes: i64,
    /// `planned`, `deleted` or `skipped`.
    #[schema(example = "deleted")]
    state: String,
    /// Why it stayed.
    why: Option<String>,
}

impl From<Item> for CleanupFileView {
    fn from(i: Item) -> Self {
        Self { seq: i.seq, file_id: i.file_id, name: i.name, size_bytes: i.size_bytes, state: i.state, why: i.why }
    }
}

/// A run to be started.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartCleanup {
    /// Whether it only lists what would go.
    dry_run: bool,
}

/// What to do with a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CleanupAct {
    /// Lets it go on although it is beyond the guard: a person who neither changed the rule last nor started the run.
    Approve,
    /// Ends it before it has begun.
    Reject,
    /// Ends it after its batch; what is gone is gone.
    Cancel,
}

/// Something to be done with a run.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CleanupAction {
    /// What.
    action: CleanupAct,
}

/// Which files to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListCleanupFiles {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those after this place in the plan: `next_cursor` of the page before.
    #[param(minimum = 0)]
    starting_after: Option<i32>,
}

/// `POST /v1/cleanup-schedules/{id}/runs`
#[utoipa::path(
    post, path = "/v1/cleanup-schedules/{id}/runs", tag = "Files", operation_id = "start_cleanup_run", summary = "Run a rule now",
    description = "With `dry_run` it only lists what would go: read the list with `GET /v1/cleanup-runs/{id}/files` once it is done.",
    params(("id" = Uuid, Path, description = "The rule")), request_body = StartCleanup,
    responses(
        (status = 202, description = "Begun", body = CleanupRunView),
        (status = 404, description = "`cleanup.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn start(
    State(app): State<App>,
    trustee: Trustee,
    Path(rule_id): Path<Uuid>,
    Json(StartCleanup { dry_run }): Json<StartCleanup>,
) -> Result<(StatusCode, Json<CleanupRunView>), Problem> {
    let tenant_id = trustee.tenant_id;
    let mut tx = app.db.begin(Scope::tenant(Role::File, tenant_id)).await?;
    let rule = cleanup_schedule::find(&mut tx, tenant_id, rule_id).await?.ok_or_else(none)?;
    let run_id = cleanup_run::open(&mut tx, &rule, dry_run, Some(trustee.name())).await?;
    Scope::tenant(Role::Workflow, tenant_id).enter(&mut tx).await?;
    let workflow = CleanUp { rule_id, run_id: Some(run_id) };
    let started = app.workflows.start(&mut tx, tenant_id, Some(&run_id.to_string()), workflow).await?;
    Scope::tenant(Role::File, tenant_id).enter(&mut tx).await?;
    cleanup_run::note_workflow(&mut tx, run_id, started.run_id).await?;
    let run: CleanupRunView = cleanup_run::find(&mut tx, tenant_id, run_id).await?.ok_or_else(none)?.into();
    Scope::tenant(Role::Identity, tenant_id).enter(&mut tx).await?;
    trustee.record(&mut tx, "cleanup_run.start", &format!("cleanup_run:{run_id}"), made(&run)).await?;
    tx.commit().await?;
    app.workflows.announce();
    Ok((StatusCode::ACCEPTED, Json(run)))
}

/// `GET /v1/cleanup-schedules/{id}/runs`
#[utoipa::path(
    get, path = "/v1/cleanup-schedules/{id}/runs", tag = "Files", operation_id = "list_cleanup_runs", summary = "List the runs of a rule",
    description = "Newest first, a page at a time.", params(("id" = Uuid, Path, description = "The rule"), ListCleanup),
    responses(
        (status = 200, description = "A page", body = Page<CleanupRunView>),
        (status = 404, description = "`cleanup.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn list(
    State(app): State<App>,
    steward: Steward,
    Path(rule_id): Path<Uuid>,
    Query(query): Query<ListCleanup>,
) -> Result<Json<Page<CleanupRunView>>, Problem> {
    let (size, tenant_id) = (page::size(query.limit)?, steward.tenant_id);
    let mut tx = app.db.begin(Scope::tenant(Role::File, tenant_id)).await?;
    cleanup_schedule::find(&mut tx, tenant_id, rule_id).await?.ok_or_else(none)?;
    let runs = cleanup_run::of_rule(&mut tx, tenant_id, rule_id, query.starting_after, size + 1).await?;
    Ok(Json(Page::of(runs, size, |r| r.id.to_string())))
}

/// `GET /v1/cleanup-runs/{id}`
#[utoipa::path(
    get, path = "/v1/cleanup-runs/{id}", tag = "Files", operation_id = "get_cleanup_run", summary = "Look at a run",
    description = "What it was to remove, and what became of that.", params(("id" = Uuid, Path, description = "The run")),
    responses(
        (status = 200, description = "The run", body = CleanupRunView),
        (status = 404, description = "`cleanup.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get(
    State(app): State<App>,
    steward: Steward,
    Path(id): Path<Uuid>,
) -> Result<Json<CleanupRunView>, Problem> {
    let mut tx = app.db.begin(Scope::tenant(Role::File, steward.tenant_id)).await?;
    Ok(Json(cleanup_run::find(&mut tx, steward.tenant_id, id).await?.ok_or_else(none)?.into()))
}

/// `GET /v1/cleanup-runs/{id}/files`
#[utoipa::path(
    get, path = "/v1/cleanup-runs/{id}/files", tag = "Files", operation_id = "list_cleanup_files", summary = "List what a run removes",
    description = "The plan as it was frozen, in its order, a page at a time.",
    params(("id" = Uuid, Path, description = "The run"), ListCleanupFiles),
    responses(
        (status = 200, description = "A page", body = Page<CleanupFileView>),
        (status = 404, description = "`cleanup.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn files(
    State(app): State<App>,
    steward: Steward,
    Path(id): Path<Uuid>,
    Query(query): Query<ListCleanupFiles>,
) -> Result<Json<Page<CleanupFileView>>, Problem> {
    let (size, tenant_id) = (page::size(query.limit)?, steward.tenant_id);
    let mut tx = app.db.begin(Scope::tenant(Role::File, tenant_id)).await?;
    cleanup_run::find(&mut tx, tenant_id, id).await?.ok_or_else(none)?;
    let after = query.starting_after.unwrap_or_default();
    let files = cleanup_run::items(&mut tx, tenant_id, id, after, size + 1).await?;
    Ok(Json(Page::of(files, size, |f| f.seq.to_string())))
}

/// `POST /v1/cleanup-runs/{id}/actions`
#[utoipa::path(
    post, path = "/v1/cleanup-runs/{id}/actions", tag = "Files", operation_id = "act_on_cleanup_run",
    summary = "Approve, reject or cancel a run",
    description = "`approve` and `reject` for one that waits for somebody else's word, `cancel` for one that is under way.",
    params(("id" = Uuid, Path, description = "The run")), request_body = CleanupAction,
    responses(
        (status = 200, description = "The run, afterwards", body = CleanupRunView),
        (status = 403, description = "`cleanup.second_person`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`cleanup.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`cleanup.state`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn act(
    State(app): State<App>,
    trustee: Trustee,
    Path(id): Path<Uuid>,
    Json(CleanupAction { action }): Json<CleanupAction>,
) -> Result<Json<CleanupRunView>, Problem> {
    let tenant_id = trustee.tenant_id;
    let mut tx = app.db.begin(Scope::tenant(Role::File, tenant_id)).await?;
    let before = cleanup_run::find(&mut tx, tenant_id, id).await?.ok_or_else(none)?;
    let rule = cleanup_schedule::find(&mut tx, tenant_id, before.schedule_id).await?.ok_or_else(none)?;
    let mut involved = false;
    if action == CleanupAct::Approve {
        Scope::tenant(Role::Identity, tenant_id).enter(&mut tx).await?;
        for name in [Some(rule.changed_by), before.started_by.clone()].into_iter().flatten() {
            involved |= person_behind(&mut tx, tenant_id, name).await? == trustee.name();
        }
        Scope::tenant(Role::File, tenant_id).enter(&mut tx).await?;
    }
    if action == CleanupAct::Approve && (involved || trustee.user_id.is_none()) {
        let detail = "a person approves it who neither changed the rule last nor started the run";
        return Err(Problem::new(Code::CleanupSecondPerson, detail));
    }
    let workflow = before.workflow_run_id.filter(|_| before.finished_at.is_none()).ok_or_else(ended)?;
    let approved = action == CleanupAct::Approve;
    if action != CleanupAct::Cancel && !cleanup_run::decide(&mut tx, tenant_id, id, trustee.name(), approved).await? {
        return Err(ended());
    }
    let after: CleanupRunView = cleanup_run::find(&mut tx, tenant_id, id).await?.ok_or_else(none)?.into();
    Scope::tenant(Role::Workflow, tenant_id).enter(&mut tx).await?;
    match action {
        CleanupAct::Cancel => {
            app.workflows.cancel(&mut tx, workflow, "somebody wanted it").await?;
        }
        CleanupAct::Approve | CleanupAct::Reject => {
            let verdict = Verdict { approved };
            if app.workflows.signal(&mut tx, workflow, VERDICT, Some("verdict"), &verdict).await? != Delivery::Accepted
            {
                return Err(ended());
            }
        }
    }
    Scope::tenant(Role::Identity, tenant_id).enter(&mut tx).await?;
    let change = Change { before: Some(CleanupRunView::from(before)), after: Some(&after) };
    trustee.record(&mut tx, action.name(), &format!("cleanup_run:{id}"), change).await?;
    tx.commit().await?;
    app.workflows.announce();
    Ok(Json(after))
}

/// A key is whoever made it.
async fn person_behind(db: Db<'_>, tenant_id: Uuid, name: String) -> Result<String, Problem> {
    let Some(key) = name.strip_prefix("key:").and_then(|id| id.parse().ok()) else { return Ok(name) };
    let maker = tenant_api_key::find(db, tenant_id, key).await?.and_then(|key| key.created_by);
    Ok(maker.map_or(name, |person| format!("user:{person}")))
}

impl CleanupAct {
    fn name(self) -> &'static str {
        match self {
            Self::Approve => "cleanup_run.approve",
            Self::Reject => "cleanup_run.reject",
            Self::Cancel => "cleanup_run.cancel",
        }
    }
}

fn ended() -> Problem {
    Problem::new(Code::CleanupState, "the run does not wait for this; look at it again")
}
