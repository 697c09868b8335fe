//! `/v1/cleanup-schedules`: what a tenant wants removed, and when.

use crate::{
    app::App,
    extract::{
        Json, Path, Query,
        page::{self, Page},
    },
    identity::{Change, Steward, Trustee, made},
    problem::{Code, Problem, ProblemBody},
    revision::{IfMatch, Revised},
    schedules::operate::local,
};
use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use flatrender_engine::schedules::{ScheduleError, Schedules};
use flatrender_workflows::{
    definitions::clean_up::CleanUp,
    models::{
        Role, Scope,
        file_mgr::cleanup_schedule::{self, Filter, Rule, TARGETS, Terms},
    },
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// The shortest time between two runs, in seconds.
const LEAST_GAP: i64 = 300;
/// Times that are looked at to find it: an expression within the hour has shown its gaps by then.
const LOOKED_AT: usize = 61;
/// Times ahead that are shown.
const NEXT: usize = 5;
/// The youngest and the oldest that a rule may speak of, in seconds: an hour, ten years.
const AGES: std::ops::RangeInclusive<i64> = 3600..=315_360_000;

/// What a tenant wants removed, and when.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CleanupScheduleView {
    /// Its id.
    id: Uuid,
    /// Always `cleanup_schedule`.
    #[schema(example = "cleanup_schedule")]
    object: &'static str,
    #[serde(flatten)]
    says: Terms,
    /// The next five times, in its zone; none while it is off.
    next: Vec<String>,
    /// The run that was planned last.
    last_run_id: Option<Uuid>,
    /// Who changed it last; somebody else approves what is beyond its guard.
    #[schema(example = "user:0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e11")]
    changed_by: String,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it was changed last.
    updated_at: DateTime<Utc>,
}

/// What is to be removed, and when.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CleanupTerms {
    /// A name to tell it from others, 1 to 100 characters.
    #[schema(example = "old previews", pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    name: String,
    /// `trash`; `exports` or `previews` with all that was made of them; `uploads` that nothing names; `temp`: what was kept for a while only.
    #[schema(example = "previews", pattern = "^(trash|exports|previews|uploads|temp)$")]
    target: String,
    /// How old, in seconds: 3600 to 315360000. In the trash since, or else made since.
    #[schema(example = 2_592_000, minimum = 3600, maximum = 315_360_000)]
    older_than_seconds: i64,
    /// Which of them.
    #[serde(default)]
    filter: Filter,
    /// When, by cron: five fields, not more often than every five minutes.
    #[schema(example = "30 3 * * *", min_length = 9, max_length = 100, pattern = r"^\s*\S+(\s+\S+){4}\s*$")]
    cron: String,
    /// In which zone; UTC when absent.
    #[serde(default = "utc")]
    #[schema(example = "Asia/Tehran", pattern = "^[A-Za-z0-9_+/-]+$")]
    time_zone: String,
    /// Whether the clock starts it; yes when absent.
    #[serde(default = "yes")]
    enabled: bool,
    /// Whether a run only lists what would go; yes when absent.
    #[serde(default = "yes")]
    dry_run: bool,
    /// More files than this, or more than a fifth of all bytes, and somebody else has to approve the run: 1 to 1000000; 10000 when absent.
    #[serde(default = "most")]
    #[schema(example = 10_000, minimum = 1, maximum = 1_000_000)]
    max_delete_per_run: i32,
}

fn utc() -> String {
    "UTC".to_owned()
}

fn yes() -> bool {
    true
}

fn most() -> i32 {
    10_000
}

impl From<Rule> for CleanupScheduleView {
    fn from(rule: Rule) -> Self {
        let says = rule.terms;
        let next = match says.enabled {
            true => Schedules::preview(&says.cron, &says.time_zone, Utc::now(), NEXT).unwrap_or_default(),
            false => vec![],
        };
        let next = local(&next, &says.time_zone);
        Self {
            id: rule.id,
            object: "cleanup_schedule",
            says,
            next,
            last_run_id: rule.last_run_id,
            changed_by: rule.changed_by,
            created_at: rule.created_at,
            updated_at: rule.updated_at,
        }
    }
}

fn revised(rule: Rule) -> Revised<CleanupScheduleView> {
    Revised::ok(rule.rev, rule.into())
}

impl CleanupTerms {
    fn check(self) -> Result<Terms, Problem> {
        if !(1..=100).contains(&self.name.trim().chars().count()) || self.name.contains(char::is_control) {
            return Err(Problem::fault("/name", "cleanup.name", "a name has 1 to 100 characters"));
        }
        if !TARGETS.contains(&self.target.as_str()) {
            return Err(Problem::fault("/target", "cleanup.target", format!("it is one of {}", TARGETS.join(", "))));
        }
        if !AGES.contains(&self.older_than_seconds) {
            return Err(Problem::fault("/older_than_seconds", "cleanup.age", "an age is 3600 to 315360000 seconds"));
        }
        if !(1..=1_000_000).contains(&self.max_delete_per_run) {
            return Err(Problem::fault("/max_delete_per_run", "cleanup.most", "it is 1 to 1000000"));
        }
        let kinds = self.filter.kinds.as_deref().unwrap_or_default();
        let known = ["image", "audio", "video", "document", "archive", "font", "data"];
        let wrong = |kind: &String| !known.contains(&kind.as_str());
        if kinds.len() > known.len() || kinds.iter().any(wrong) || self.filter.at_least_bytes.is_some_and(|n| n < 0) {
            let detail = format!("kinds are {}; bytes are not negative", known.join(", "));
            return Err(Problem::fault("/filter", "cleanup.filter", detail));
        }
        self.check_times()?;
        Ok(Terms {
            name: self.name.trim().to_owned(),
            target: self.target,
            older_than_seconds: self.older_than_seconds,
            filter: self.filter,
            cron: self.cron,
            time_zone: self.time_zone,
            enabled: self.enabled,
            dry_run: self.dry_run,
            max_delete_per_run: self.max_delete_per_run,
        })
    }

    fn check_times(&self) -> Result<(), Problem> {
        if !(9..=100).contains(&self.cron.len()) || self.cron.split_whitespace().count() != 5 {
            return Err(Problem::fault(
                "/cron",
                "schedule.cron",
                "an expression has five fields, and at most 100 bytes",
            ));
        }
        let times = Schedules::preview(&self.cron, &self.time_zone, Utc::now(), LOOKED_AT)?;
        if times.is_empty() {
            return Err(Problem::fault("/cron", "schedule.cron", "this never comes true"));
        }
        let close = times.windows(2).any(|pair| (pair[1] - pair[0]).num_seconds() < LEAST_GAP);
        let often = || Problem::fault("/cron", "schedule.cron", "a rule runs every five minutes at most");
        if close { Err(often()) } else { Ok(()) }
    }
}

/// Which rules to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListCleanup {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    pub(super) limit: Option<u32>,
    /// Those before this one: `next_cursor` of the page before.
    pub(super) starting_after: Option<Uuid>,
}

/// `GET /v1/cleanup-schedules`
#[utoipa::path(
    get, path = "/v1/cleanup-schedules", tag = "Files", operation_id = "list_cleanup_schedules", summary = "List what is removed when",
    description = "Newest first, a page at a time.", params(ListCleanup),
    responses((status = 200, description = "A page", body = Page<CleanupScheduleView>))
)]
pub async fn list(
    State(app): State<App>,
    steward: Steward,
    Query(query): Query<ListCleanup>,
) -> Result<Json<Page<CleanupScheduleView>>, Problem> {
    let size = page::size(query.limit)?;
    let mut tx = app.db.begin(Scope::tenant(Role::File, steward.tenant_id)).await?;
    let rules = cleanup_schedule::list(&mut tx, steward.tenant_id, query.starting_after, size + 1).await?;
    Ok(Json(Page::of(rules, size, |r| r.id.to_string())))
}

/// `POST /v1/cleanup-schedules`
#[utoipa::path(
    post, path = "/v1/cleanup-schedules", tag = "Files", operation_id = "create_cleanup_schedule", summary = "Have something removed",
    description = "It only lists what would go until you say `dry_run: false`. Never goes what a film under way is made of, what anything of \
                   yours names, what is kept for now, and what is held.",
    request_body = CleanupTerms,
    responses(
        (status = 201, description = "Made", body = CleanupScheduleView, headers(("ETag" = String, description = "Its revision"))),
        (status = 409, description = "`cleanup.exists`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn create(
    State(app): State<App>,
    trustee: Trustee,
    Json(body): Json<CleanupTerms>,
) -> Result<Revised<CleanupScheduleView>, Problem> {
    let (terms, id, tenant_id) = (body.check()?, Uuid::now_v7(), trustee.tenant_id);
    let mut tx = app.db.begin(Scope::tenant(Role::Workflow, tenant_id)).await?;
    let schedule = of(&app).create(&mut tx, tenant_id, &CleanUp::by(id, &terms)?).await?;
    Scope::tenant(Role::File, tenant_id).enter(&mut tx).await?;
    if !cleanup_schedule::insert(&mut tx, tenant_id, id, &terms, trustee.name(), schedule).await? {
        return Err(taken());
    }
    let rule = revised(cleanup_schedule::find(&mut tx, tenant_id, id).await?.ok_or_else(none)?);
    Scope::tenant(Role::Identity, tenant_id).enter(&mut tx).await?;
    trustee.record(&mut tx, "cleanup_schedule.create", &format!("cleanup_schedule:{id}"), made(&rule.view)).await?;
    tx.commit().await?;
    Ok(Revised { status: StatusCode::CREATED, ..rule })
}

/// `GET /v1/cleanup-schedules/{id}`
#[utoipa::path(
    get, path = "/v1/cleanup-schedules/{id}", tag = "Files", operation_id = "get_cleanup_schedule", summary = "Look at a rule",
    description = "With its next five times.", params(("id" = Uuid, Path, description = "The rule")),
    responses(
        (status = 200, description = "The rule", body = CleanupScheduleView, headers(("ETag" = String, description = "Its revision"))),
        (status = 404, description = "`cleanup.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get(
    State(app): State<App>,
    steward: Steward,
    Path(id): Path<Uuid>,
) -> Result<Revised<CleanupScheduleView>, Problem> {
    let mut tx = app.db.begin(Scope::tenant(Role::File, steward.tenant_id)).await?;
    cleanup_schedule::find(&mut tx, steward.tenant_id, id).await?.map(revised).ok_or_else(none)
}

/// `PUT /v1/cleanup-schedules/{id}`
#[utoipa::path(
    put, path = "/v1/cleanup-schedules/{id}", tag = "Files", operation_id = "update_cleanup_schedule", summary = "Change a rule",
    description = "Replaces what it says; a run under way removes of what it planned only what the rule still means, by its age, too; nothing once it only lists.",
    params(("id" = Uuid, Path, description = "The rule"), ("If-Match" = Option<String>, Header, description = "`ETag` of the rule as you know it")),
    request_body = CleanupTerms,
    responses(
        (status = 200, description = "The rule, afterwards", body = CleanupScheduleView, headers(("ETag" = String, description = "Its revision"))),
        (status = 404, description = "`cleanup.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`cleanup.exists`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "`revision.stale`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn update(
    State(app): State<App>,
    trustee: Trustee,
    Path(id): Path<Uuid>,
    known: IfMatch,
    Json(body): Json<CleanupTerms>,
) -> Result<Revised<CleanupScheduleView>, Problem> {
    let tenant_id = trustee.tenant_id;
    let mut tx = app.db.begin(Scope::tenant(Role::File, tenant_id)).await?;
    let before = cleanup_schedule::hold(&mut tx, tenant_id, id).await?.ok_or_else(none)?;
    known.check(before.rev)?;
    let terms = body.check()?;
    if !cleanup_schedule::update(&mut tx, tenant_id, id, &terms, trustee.name()).await? {
        return Err(taken());
    }
    let after = revised(cleanup_schedule::find(&mut tx, tenant_id, id).await?.ok_or_else(none)?);
    Scope::tenant(Role::Workflow, tenant_id).enter(&mut tx).await?;
    of(&app).update(&mut tx, before.workflow_schedule_id, None, &CleanUp::by(id, &terms)?).await?;
    Scope::tenant(Role::Identity, tenant_id).enter(&mut tx).await?;
    let change = Change { before: Some(CleanupScheduleView::from(before)), after: Some(&after.view) };
    trustee.record(&mut tx, "cleanup_schedule.update", &format!("cleanup_schedule:{id}"), change).await?;
    tx.commit().await?;
    app.workflows.announce();
    Ok(after)
}

/// `DELETE /v1/cleanup-schedules/{id}`
#[utoipa::path(
    delete, path = "/v1/cleanup-schedules/{id}", tag = "Files", operation_id = "delete_cleanup_schedule", summary = "Remove a rule",
    description = "With what is told of its runs; what they did stays in the audit. A run under way ends after its batch.",
    params(("id" = Uuid, Path, description = "The rule")),
    responses(
        (status = 204, description = "Removed"),
        (status = 404, description = "`cleanup.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn remove(State(app): State<App>, trustee: Trustee, Path(id): Path<Uuid>) -> Result<StatusCode, Problem> {
    let tenant_id = trustee.tenant_id;
    let mut tx = app.db.begin(Scope::tenant(Role::File, tenant_id)).await?;
    let before = cleanup_schedule::find(&mut tx, tenant_id, id).await?.ok_or_else(none)?;
    let schedule = before.workflow_schedule_id;
    cleanup_schedule::remove(&mut tx, tenant_id, id).await?;
    Scope::tenant(Role::Workflow, tenant_id).enter(&mut tx).await?;
    match of(&app).delete(&mut tx, schedule).await {
        Ok(()) | Err(ScheduleError::NotFound(_)) => {}
        Err(error) => return Err(error.into()),
    }
    Scope::tenant(Role::Identity, tenant_id).enter(&mut tx).await?;
    let change: Change<_, ()> = Change { before: Some(CleanupScheduleView::from(before)), after: None };
    trustee.record(&mut tx, "cleanup_schedule.delete", &format!("cleanup_schedule:{id}"), change).await?;
    tx.commit().await?;
    app.workflows.announce();
    Ok(StatusCode::NO_CONTENT)
}

fn of(app: &App) -> Schedules {
    Schedules::new(app.workflows.clone())
}

pub(super) fn none() -> Problem {
    Problem::not_found(Code::CleanupNotFound, "clean-up")
}

fn taken() -> Problem {
    Problem::new(Code::CleanupExists, "there is a rule of this name, or there are as many rules as a tenant may have")
}
