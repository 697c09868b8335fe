//! `/v1/platform/nodes`: nodes, for whoever runs the platform.

use crate::{
    app::App,
    auth::Operator,
    extract::{
        Json, Path, Query,
        page::{self, Page},
    },
    identity::{Change, Registrar, made},
    problem::{Code, Problem, ProblemBody},
};
use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use flatrender_engine::Labels;
use flatrender_workflows::{
    contracts::node::Check,
    models::{
        DEFAULT_TENANT, Role, Scope,
        render::node::{
            self, NewToken,
            action::{self, Action},
            crash::{self, Crash},
            health::{self, Written},
            overview::{self, Held, Overview, Probed},
            sleep::Sleep,
        },
    },
};
use serde::{Deserialize, Serialize};
use std::{ops::RangeInclusive, time::Duration};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// How long a token may be good, in seconds, and how long when nobody says.
const LIFETIME: (RangeInclusive<u64>, u64) = (60..=7 * 86_400, 3600);
/// Most labels of a token, and the longest key or value.
const LABELS: (usize, usize) = (32, 120);
/// Packages of a cache that are shown.
const PACKAGES: i64 = 100;

/// A node.
#[derive(Debug, Serialize, ToSchema)]
pub struct NodeView {
    /// Its id.
    id: Uuid,
    /// Always `node`.
    #[schema(example = "node")]
    object: &'static str,
    /// Its name.
    #[schema(example = "render-01")]
    name: String,
    /// Its group.
    #[schema(example = "default")]
    pool: String,
    /// `registering`, `online`, `draining`, `offline`, `quarantined` or `retired`.
    #[schema(example = "online")]
    status: String,
    /// Only this tenant's work, when set.
    tenant_id: Option<Uuid>,
    /// Why it is in quarantine.
    quarantine_reason: Option<String>,
    /// When it sleeps.
    sleep: Option<Sleep>,
    /// What its token says of it.
    #[schema(value_type = Object)]
    labels: Labels,
    /// What it offers, but fonts and plug-ins.
    #[schema(value_type = Object)]
    offers: Labels,
    /// Version of the agent.
    agent_version: Option<String>,
    /// Main number of its After Effects.
    #[schema(example = "24")]
    ae_version: Option<String>,
    /// Operating system and architecture.
    os: Option<String>,
    /// Processors.
    cpu: Option<i32>,
    /// MiB of memory.
    ram_mb: Option<i64>,
    /// Name of its graphics processor.
    gpu: Option<String>,
    /// Tasks it takes at a time.
    slots: i32,
    /// Fonts it has.
    fonts: Option<i32>,
    /// Equal for equal sets of fonts.
    fonts_hash: Option<String>,
    /// MiB that are free where it works.
    disk_free_mb: Option<i64>,
    /// Bytes of its cache.
    cache_bytes: i64,
    /// Bytes its cache may have.
    cache_limit: Option<i64>,
    /// Failures in the last day that speak against it.
    crashes: i64,
    /// Templates that it is kept from now.
    blocks: i64,
    /// When it was heard of.
    last_seen_at: DateTime<Utc>,
    /// When it was enrolled first.
    created_at: DateTime<Utc>,
}

impl From<Overview> for NodeView {
    fn from(n: Overview) -> Self {
        Self {
            id: n.id,
            object: "node",
            name: n.name,
            pool: n.pool,
            status: n.status,
            tenant_id: n.tenant_id,
            quarantine_reason: n.quarantine_reason,
            sleep: n.sleep.map(|sleep| sleep.0),
            labels: n.labels.0,
            offers: n.offers.0,
            agent_version: n.agent_version,
            ae_version: n.ae_version,
            os: n.os,
            cpu: n.cpu,
            ram_mb: n.ram_mb,
            gpu: n.gpu,
            slots: n.slots,
            fonts: n.fonts_count,
            fonts_hash: n.fonts_hash,
            disk_free_mb: n.disk_free_mb,
            cache_bytes: n.cache_bytes,
            cache_limit: n.cache_limit,
            crashes: n.crashes,
            blocks: n.blocks,
            last_seen_at: n.last_seen_at,
            created_at: n.created_at,
        }
    }
}

/// A node, with what it found out about itself and what it holds.
#[derive(Debug, Serialize, ToSchema)]
pub struct NodeDetail {
    #[serde(flatten)]
    node: NodeView,
    /// What it found when it rendered the probe last; null when it has not.
    probe: Option<ProbeView>,
    /// Packages of templates in its cache, those that were used last first; at most 100.
    packages: Vec<PackageView>,
}

/// What a node found out about itself.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProbeView {
    /// When it said so.
    at: DateTime<Utc>,
    /// Whether something was looked at and all of it is well.
    passed: bool,
    /// Each thing that was looked at.
    checks: Vec<CheckView>,
}

/// One thing that a node looked at.
#[derive(Debug, Serialize, ToSchema)]
pub struct CheckView {
    /// What.
    #[schema(example = "probe:lottie")]
    name: String,
    /// Whether it is well.
    ok: bool,
    /// What was found, in words.
    #[schema(example = "4 frames, numbered and coloured as they should be")]
    found: String,
    /// What to do about it, in words; null when it is well.
    fix: Option<String>,
}

impl From<Probed> for ProbeView {
    fn from(Probed { at, report }: Probed) -> Self {
        let passed = report.0.passed();
        let view = |c: Check| CheckView { name: c.name, ok: c.ok, found: c.found, fix: c.fix };
        Self { at, passed, checks: report.0.checks.into_iter().map(view).collect() }
    }
}

/// A package in the cache of a node, as it said last.
#[derive(Debug, Serialize, ToSchema)]
pub struct PackageView {
    /// Its hash.
    package: String,
    /// Bytes it takes.
    bytes: i64,
    /// `fetching`, `ready` or `evicting`.
    #[schema(example = "ready")]
    state: String,
    /// Whether an operator wants it to stay.
    keep: bool,
    /// How often it was found there.
    hits: i64,
    /// When it was used last.
    last_used_at: DateTime<Utc>,
}

impl From<Held> for PackageView {
    fn from(held: Held) -> Self {
        let Held { package, bytes, state, keep, hits, last_used_at } = held;
        Self { package, bytes, state, keep, hits, last_used_at }
    }
}

/// A crash of a node's renderer.
#[derive(Debug, Serialize, ToSchema)]
pub struct CrashView {
    /// Its id.
    id: Uuid,
    /// Always `node_crash`.
    #[schema(example = "node_crash")]
    object: &'static str,
    /// Code of the failure.
    #[schema(example = "render.crashed")]
    code: String,
    /// `exit_code`, `signal`, `hang`, `oom`, `disk`, `licence`, `dialog` or `output`.
    #[schema(example = "signal")]
    kind: String,
    /// Whether it speaks against the node.
    counts: bool,
    /// Equal for equal crashes.
    signature: String,
    /// How often this was seen on all nodes in the last 30 days.
    seen: i64,
    /// Whose render it was.
    tenant_id: Option<Uuid>,
    /// The render.
    render_id: Option<Uuid>,
    /// The template's package.
    package: Option<String>,
    /// First frame that was missing.
    frame: Option<i32>,
    /// How the renderer ended.
    exit_code: Option<i32>,
    /// What it said last.
    log_tail: String,
    /// `requeued`, `chunk_split`, `quarantined` or `gave_up`.
    recovery: Option<String>,
    /// When.
    occurred_at: DateTime<Utc>,
}

impl From<Crash> for CrashView {
    fn from(c: Crash) -> Self {
        Self {
            id: c.id,
            object: "node_crash",
            code: c.code,
            kind: c.kind,
            counts: c.counts,
            signature: c.signature,
            seen: c.seen,
            tenant_id: c.tenant_id,
            render_id: c.render_job_id,
            package: c.package_sha256,
            frame: c.frame,
            exit_code: c.exit_code,
            log_tail: c.log_tail,
            recovery: c.recovery,
            occurred_at: c.occurred_at,
        }
    }
}

/// How a node fared.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthView {
    /// When.
    recorded_at: DateTime<Utc>,
    /// Of all its processors together.
    cpu_percent: Option<f32>,
    /// MiB in use.
    ram_mb: Option<i64>,
    /// MiB that were free where it works.
    disk_free_mb: Option<i64>,
    /// Tasks it had.
    running_tasks: i32,
    /// Milliseconds a call took.
    rtt_ms: Option<i32>,
}

impl From<Written> for HealthView {
    fn from(w: Written) -> Self {
        Self {
            recorded_at: w.recorded_at,
            cpu_percent: w.cpu_percent,
            ram_mb: w.ram_mb,
            disk_free_mb: w.disk_free_mb,
            running_tasks: w.running_tasks,
            rtt_ms: w.rtt_ms,
        }
    }
}

/// Which rows to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListNodes {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those before this one: `next_cursor` of the page before.
    starting_after: Option<Uuid>,
}

/// Which samples to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListHealth {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those before this moment: `next_cursor` of the page before.
    starting_after: Option<DateTime<Utc>>,
}

/// A token to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateNodeToken {
    /// The group of nodes, 1 to 64 of `A-Z a-z 0-9 . _ -`; `default` when absent.
    #[schema(example = "after-effects")]
    pool: Option<String>,
    /// What is said of the node: wins over what it says itself. At most 32.
    #[serde(default)]
    #[schema(value_type = Object, example = json!({"zone": "basement"}))]
    labels: Labels,
    /// For how long it is good, 60 to 604800; an hour when absent.
    #[schema(example = 3600)]
    expires_in_seconds: Option<u64>,
    /// Whether a node that is new has to pass the probe before it gets work; it has when absent.
    #[schema(example = true)]
    probe_first: Option<bool>,
}

/// A one-time token.
#[derive(Debug, Serialize, ToSchema)]
pub struct NodeToken {
    /// Always `node_token`.
    #[schema(example = "node_token")]
    object: &'static str,
    /// Its id: with it the token is listed, and revoked.
    #[schema(example = "0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e12")]
    id: Uuid,
    /// Shown only here; makes one machine a node.
    #[schema(example = "fr_enrol_…")]
    token: String,
}

/// `GET /v1/platform/nodes`
#[utoipa::path(
    get, path = "/v1/platform/nodes", tag = "Platform", operation_id = "list_nodes", summary = "List nodes",
    description = "Those enrolled last first, a page at a time.", params(ListNodes),
    responses((status = 200, description = "A page", body = Page<NodeView>))
)]
pub async fn list(
    State(app): State<App>,
    _: Operator,
    Query(query): Query<ListNodes>,
) -> Result<Json<Page<NodeView>>, Problem> {
    let size = page::size(query.limit)?;
    let mut tx = app.db.begin(Scope::platform(Role::Render)).await?;
    let nodes = overview::list(&mut tx, None, query.starting_after, size + 1).await?;
    Ok(Json(Page::of(nodes, size, |n| n.id.to_string())))
}

/// `GET /v1/platform/nodes/{id}`
#[utoipa::path(
    get, path = "/v1/platform/nodes/{id}", tag = "Platform", operation_id = "get_node", summary = "Look at a node",
    description = "What it is and how it fares, what it found out about itself when it rendered the probe last, and what its cache holds.",
    params(("id" = Uuid, Path, description = "The node")),
    responses(
        (status = 200, description = "The node", body = NodeDetail),
        (status = 404, description = "`node.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get(State(app): State<App>, _: Operator, Path(id): Path<Uuid>) -> Result<Json<NodeDetail>, Problem> {
    let mut tx = app.db.begin(Scope::platform(Role::Render)).await?;
    let node = overview::list(&mut tx, Some(id), None, 1).await?.pop().ok_or_else(no_node)?;
    let probe = overview::probed(&mut tx, id).await?;
    let packages = overview::held(&mut tx, id, PACKAGES).await?;
    let packages = packages.into_iter().map(Into::into).collect();
    Ok(Json(NodeDetail { node: node.into(), probe: probe.map(Into::into), packages }))
}

/// `GET /v1/platform/nodes/{id}/crashes`
#[utoipa::path(
    get, path = "/v1/platform/nodes/{id}/crashes", tag = "Platform", operation_id = "list_node_crashes", summary = "List crashes",
    description = "Newest first, a page at a time.", params(("id" = Uuid, Path, description = "The node"), ListNodes),
    responses(
        (status = 200, description = "A page", body = Page<CrashView>),
        (status = 404, description = "`node.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn crashes(
    State(app): State<App>,
    _: Operator,
    Path(id): Path<Uuid>,
    Query(query): Query<ListNodes>,
) -> Result<Json<Page<CrashView>>, Problem> {
    let size = page::size(query.limit)?;
    found(&app, id).await?;
    let mut tx = app.db.begin(Scope::platform(Role::Render)).await?;
    let crashes = crash::list(&mut tx, id, query.starting_after, size + 1).await?;
    Ok(Json(Page::of(crashes, size, |c| c.id.to_string())))
}

/// `GET /v1/platform/nodes/{id}/health`
#[utoipa::path(
    get, path = "/v1/platform/nodes/{id}/health", tag = "Platform", operation_id = "list_node_health", summary = "List samples",
    description = "How it fared, newest first, a page at a time.", params(("id" = Uuid, Path, description = "The node"), ListHealth),
    responses(
        (status = 200, description = "A page", body = Page<HealthView>),
        (status = 404, description = "`node.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn health(
    State(app): State<App>,
    _: Operator,
    Path(id): Path<Uuid>,
    Query(query): Query<ListHealth>,
) -> Result<Json<Page<HealthView>>, Problem> {
    let size = page::size(query.limit)?;
    found(&app, id).await?;
    let mut tx = app.db.begin(Scope::platform(Role::Render)).await?;
    let samples = health::list(&mut tx, id, query.starting_after, size + 1).await?;
    Ok(Json(Page::of(samples, size, |s| s.recorded_at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true))))
}

/// `POST /v1/platform/nodes/tokens`
#[utoipa::path(
    post, path = "/v1/platform/nodes/tokens", tag = "Platform", operation_id = "create_node_token", summary = "Make an enrolment token",
    description = "Good once, for one machine. What it says of pool and labels holds for the node.", request_body = CreateNodeToken,
    responses(
        (status = 201, description = "Made", body = NodeToken),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn create_token(
    State(app): State<App>,
    registrar: Registrar,
    Json(body): Json<CreateNodeToken>,
) -> Result<(StatusCode, Json<NodeToken>), Problem> {
    let lifetime = body.check()?;
    let steward = registrar.of(DEFAULT_TENANT);
    let mut tx = app.db.begin(Scope::platform(Role::Render)).await?;
    let new = NewToken {
        pool: body.pool.as_deref(),
        labels: body.labels.clone(),
        probe_first: body.probe_first.unwrap_or(true),
        created_by: Some(steward.name()),
    };
    let (id, token) = node::create_token_for(&mut tx, lifetime, &new).await?;
    Scope::tenant(Role::Identity, DEFAULT_TENANT).enter(&mut tx).await?;
    let made = made((&body.pool, &body.labels));
    steward.record(&mut tx, "node.create_token", "node_token", made).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(NodeToken { object: "node_token", id, token: token.reveal().to_owned() })))
}

impl CreateNodeToken {
    fn check(&self) -> Result<Duration, Problem> {
        let fine = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if self.pool.as_ref().is_some_and(|pool| !(1..=64).contains(&pool.len()) || !pool.bytes().all(fine)) {
            return Err(Problem::fault("/pool", "node.name", "a pool's name is 1 to 64 of A-Z a-z 0-9 . _ -"));
        }
        let (most, longest) = LABELS;
        let fits = |text: &String| (1..=longest).contains(&text.len()) && !text.contains(char::is_control);
        if self.labels.len() > most || !self.labels.iter().all(|(key, value)| fits(key) && fits(value)) {
            return Err(Problem::fault("/labels", "node.labels", "at most 32 labels, each of 1 to 120 bytes"));
        }
        let (allowed, usual) = LIFETIME;
        let seconds = self.expires_in_seconds.unwrap_or(usual);
        let refuse =
            || Problem::fault("/expires_in_seconds", "node.token_lifetime", "a token is good for 60 to 604800 seconds");
        allowed.contains(&seconds).then(|| Duration::from_secs(seconds)).ok_or_else(refuse)
    }
}

/// `POST /v1/platform/nodes/{id}/actions`
#[utoipa::path(
    post, path = "/v1/platform/nodes/{id}/actions", tag = "Platform", operation_id = "act_on_node", summary = "Do something with a node",
    description = "`drain`, `resume`, `quarantine`, `release`, `retire`, `rotate_credential`, `sleep`, `wake`; `keep`, `let_go` and \
                   `evict` for a package of its cache. A node that is retired is cut off with its next word.",
    params(("id" = Uuid, Path, description = "The node")),
    request_body(content = Action, example = json!({"action": "drain", "at_once": false})),
    responses(
        (status = 200, description = "The node, afterwards", body = NodeView),
        (status = 404, description = "`node.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`node.state`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn act(
    State(app): State<App>,
    registrar: Registrar,
    Path(id): Path<Uuid>,
    Json(wanted): Json<Action>,
) -> Result<Json<NodeView>, Problem> {
    if !wanted.is_well_founded() {
        return Err(Problem::fault("/reason", "node.reason", action::BAD_REASON));
    }
    if let Action::Sleep { schedule } = &wanted
        && schedule.days.is_empty()
    {
        return Err(Problem::fault("/schedule/days", "node.sleep", "a schedule has at least one day"));
    }
    let before: NodeView = found(&app, id).await?.into();
    let mut tx = app.db.begin(Scope::platform(Role::Render)).await?;
    if !action::act(&mut tx, id, &wanted).await? {
        return Err(Problem::new(Code::NodeState, "the node is not in a state for this, or does not hold the package"));
    }
    let after = overview::list(&mut tx, Some(id), None, 1).await?.pop().ok_or_else(no_node)?;
    Scope::tenant(Role::Identity, DEFAULT_TENANT).enter(&mut tx).await?;
    let after: NodeView = after.into();
    let change = Change { before: Some(&before), after: Some(&after) };
    let name = format!("node.{}", wanted.name());
    let (steward, object) = (registrar.of(DEFAULT_TENANT), format!("node:{id}"));
    match wanted.reason() {
        Some(reason) => steward.record_because(&mut tx, &name, &object, reason, change).await?,
        None => steward.record(&mut tx, &name, &object, change).await?,
    }
    tx.commit().await?;
    app.placement.nodes_have_changed();
    Ok(Json(after))
}

async fn found(app: &App, id: Uuid) -> Result<Overview, Problem> {
    let mut tx = app.db.begin(Scope::platform(Role::Render)).await?;
    overview::list(&mut tx, Some(id), None, 1).await?.pop().ok_or_else(no_node)
}

fn no_node() -> Problem {
    Problem::not_found(Code::NodeNotFound, "node")
}
