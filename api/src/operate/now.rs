//! `GET /v1/operate/now`: how things stand, on one page.

use super::{
    Party,
    bulk::BulkView,
    failures::FailureGroup,
    operations,
    queues::{self, QueueView},
};
use crate::{app::App, extract::Json, problem::Problem};
use axum::extract::State;
use chrono::{DateTime, Utc};
use flatrender_engine::operations::FailedIn;
use flatrender_workflows::models::{Role, Scope, render::node::overview};
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Mutex;
use utoipa::ToSchema;
use uuid::Uuid;

/// How far back failures are shown, and in which stretches.
const FAILURES: (Duration, Duration) = (Duration::from_secs(2 * 3600), Duration::from_secs(300));
/// How long a look is good for those who follow.
const FRESH: Duration = Duration::from_secs(2);
/// Causes that are shown.
const CAUSES: usize = 5;
/// Nodes that are looked at.
const NODES: i64 = 1000;
/// Operations that are looked at.
const BULKS: u32 = 10;

/// How things stand.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Now {
    /// Always `now`.
    #[schema(example = "now")]
    object: &'static str,
    /// The time of the look.
    at: DateTime<Utc>,
    /// The tenant it is about; null: all of them.
    tenant_id: Option<Uuid>,
    /// Runs by what they do; exact, whatever there is of them.
    runs: Vec<KindNow>,
    /// Failures of the last two hours in stretches of five minutes, oldest first; those without any are left out.
    failures: Vec<FailedNow>,
    /// The most frequent causes of failures.
    causes: Vec<CauseNow>,
    /// Queues with work, or paused. Of the platform.
    queues: Vec<QueueNow>,
    /// Nodes by status. Of the platform.
    nodes: Vec<NodesNow>,
    /// Runs that wait until somebody resumes them, by reason. Of the platform.
    parked: Vec<ParkedNow>,
    /// Operations on many runs that are not over.
    bulk: Vec<BulkNow>,
    /// What keeps the database from tidying up, for longer than a minute. Of the platform.
    database: Option<DatabaseNow>,
}

/// Runs of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct KindNow {
    /// What they do.
    #[schema(example = "render_video")]
    kind: String,
    /// Not over.
    running: i64,
    /// Over, with an output.
    succeeded: i64,
    /// Over, with an error.
    failed: i64,
    /// Over because somebody asked for it.
    cancelled: i64,
}

/// Failures in a stretch of time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FailedNow {
    /// Its beginning.
    at: DateTime<Utc>,
    /// How many runs failed.
    n: i64,
}

impl From<FailedIn> for FailedNow {
    fn from(f: FailedIn) -> Self {
        Self { at: f.at, n: f.n }
    }
}

/// A cause of failures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct CauseNow {
    /// See `/v1/operate/failures`.
    fingerprint: String,
    /// The code.
    #[schema(example = "render.missing_font")]
    code: String,
    /// The message of the newest.
    message: Option<String>,
    /// How many runs.
    runs: i64,
    /// Of how many tenants.
    tenants: i64,
    /// The newest.
    last_at: DateTime<Utc>,
}

/// A queue.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct QueueNow {
    /// Its name.
    #[schema(example = "node.render")]
    queue: String,
    /// What could be claimed now.
    ready: i64,
    /// For how long the oldest of it has been ready.
    oldest_seconds: f64,
    /// What is being worked on.
    leased: i64,
    /// Whether nobody may claim from it.
    paused: bool,
}

/// Nodes in a status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct NodesNow {
    /// `registering`, `online`, `draining`, `offline`, `quarantined` or `retired`.
    #[schema(example = "online")]
    status: String,
    /// How many.
    nodes: i64,
    /// Tasks they take at a time.
    slots: i64,
}

/// Runs that are parked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ParkedNow {
    /// Why.
    #[schema(example = "version_mismatch")]
    reason: String,
    /// How many.
    runs: i64,
}

/// An operation on many runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct BulkNow {
    /// The operation.
    id: Uuid,
    /// What it does to each.
    #[schema(example = "retry")]
    action: String,
    /// How it stands.
    #[schema(example = "running")]
    state: String,
    /// Runs in all.
    total: i32,
    /// Those that had their turn.
    turned: i32,
}

/// A session of the database.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct DatabaseNow {
    /// What it calls itself.
    application: String,
    /// For how long it has kept its snapshot.
    seconds: f64,
}

/// `GET /v1/operate/now`
#[utoipa::path(
    get, path = "/v1/operate/now", tag = "Runs", operation_id = "get_now", summary = "How things stand",
    description = "Runs by kind and state, failures of the last two hours and their causes, queues, nodes, what is parked. Whoever manages \
                   a tenant sees its own runs and failures.",
    responses((status = 200, description = "How things stand", body = Now))
)]
pub async fn get(State(app): State<App>, party: Party) -> Result<Json<Now>, Problem> {
    Ok(Json(look(&app, party.reach).await?))
}

/// How things stood a moment ago, for all who follow: looked at once for all of them, and nobody waits for a look at another tenant.
#[derive(Debug, Default)]
pub struct Pulse(Mutex<HashMap<Option<Uuid>, Place>>);

/// The last look of a tenant; held by who looks.
type Place = Arc<Mutex<Option<Looked>>>;
/// When, and how things stood then.
type Looked = (Instant, Arc<Now>);

impl Pulse {
    /// How things stand for one tenant, or for the platform; no older than [`FRESH`].
    ///
    /// # Errors
    /// The database cannot be reached.
    pub async fn feel(&self, app: &App, tenant: Option<Uuid>) -> Result<Arc<Now>, Problem> {
        let place = {
            let mut known = self.0.lock().await;
            // Whoever is looking holds the place, too.
            known.retain(|_, place| {
                Arc::strong_count(place) > 1 || place.try_lock().is_ok_and(|it| fresh(&it).is_some())
            });
            known.entry(tenant).or_default().clone()
        };
        let mut looked = place.lock().await;
        if let Some(now) = fresh(&looked) {
            return Ok(now);
        }
        let now = Arc::new(look(app, tenant).await?);
        *looked = Some((Instant::now(), now.clone()));
        Ok(now)
    }
}

fn fresh(looked: &Option<Looked>) -> Option<Arc<Now>> {
    looked.as_ref().filter(|(at, _)| at.elapsed() < FRESH).map(|(_, now)| now.clone())
}

/// How things stand for one tenant, or for the platform.
///
/// # Errors
/// The database cannot be reached.
pub async fn look(app: &App, tenant: Option<Uuid>) -> Result<Now, Problem> {
    let operations = operations(app);
    let mut kinds: BTreeMap<String, KindNow> = BTreeMap::new();
    for total in operations.totals_by_kind(tenant).await? {
        let none = || KindNow { kind: total.kind.clone(), running: 0, succeeded: 0, failed: 0, cancelled: 0 };
        let kind = kinds.entry(total.kind.clone()).or_insert_with(none);
        match total.state.as_str() {
            "running" => kind.running += total.n,
            "succeeded" => kind.succeeded += total.n,
            "failed" => kind.failed += total.n,
            _ => kind.cancelled += total.n,
        }
    }
    let failures = operations.failed_lately(tenant, FAILURES.0, FAILURES.1).await?;
    let causes = operations.causes(tenant).await?.into_iter().take(CAUSES).map(FailureGroup::from);
    let bulk = operations.bulks(tenant, None, BULKS).await?.into_iter().map(BulkView::from);
    let mut now = Now {
        object: "now",
        at: Utc::now(),
        tenant_id: tenant,
        runs: kinds.into_values().collect(),
        failures: failures.into_iter().map(Into::into).collect(),
        causes: causes.map(FailureGroup::in_short).collect(),
        queues: vec![],
        nodes: vec![],
        parked: vec![],
        bulk: bulk.filter_map(BulkView::in_short).collect(),
        database: None,
    };
    if tenant.is_none() {
        now.queues = queues::all(&operations).await?.into_iter().filter_map(QueueView::in_short).collect();
        now.nodes = nodes(app).await?;
        let parked = operations.parked().await?.into_iter().filter(|(_, runs)| *runs > 0);
        now.parked = parked.map(|(reason, runs)| ParkedNow { reason, runs }).collect();
        let oldest = operations.oldest_snapshot().await?.filter(|oldest| oldest.seconds > 60.0);
        now.database = oldest.map(|s| DatabaseNow { application: s.application, seconds: s.seconds });
    }
    Ok(now)
}

impl Now {
    /// Whether there is more to tell than that time has passed.
    pub fn differs(&self, other: &Self) -> bool {
        let timeless = |now: &Self| {
            let mut now = Self { at: DateTime::UNIX_EPOCH, ..now.clone() };
            now.queues.iter_mut().for_each(|q| q.oldest_seconds = (q.oldest_seconds / 30.0).floor());
            now.database.iter_mut().for_each(|d| d.seconds = (d.seconds / 30.0).floor());
            now
        };
        timeless(self) != timeless(other)
    }
}

impl FailureGroup {
    fn in_short(self) -> CauseNow {
        let Self { fingerprint, code, message, runs, tenants, last_at, .. } = self;
        CauseNow { fingerprint, code, message, runs, tenants, last_at }
    }
}

impl BulkView {
    fn in_short(self) -> Option<BulkNow> {
        let Self { id, action, state, total, turned, .. } = self;
        let live = matches!(state.as_str(), "running" | "paused" | "previewed");
        live.then_some(BulkNow { id, action, state, total, turned })
    }
}

impl QueueView {
    fn in_short(self) -> Option<QueueNow> {
        let paused = self.paused_at.is_some();
        let Self { queue, ready, oldest_seconds, leased, .. } = self;
        (paused || ready > 0 || leased > 0).then_some(QueueNow { queue, ready, oldest_seconds, leased, paused })
    }
}

async fn nodes(app: &App) -> Result<Vec<NodesNow>, Problem> {
    let mut tx = app.db.begin(Scope::platform(Role::Render)).await?;
    let mut by_status: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for node in overview::list(&mut tx, None, None, NODES).await? {
        let (nodes, slots) = by_status.entry(node.status).or_default();
        (*nodes, *slots) = (*nodes + 1, *slots + i64::from(node.slots));
    }
    Ok(by_status.into_iter().map(|(status, (nodes, slots))| NodesNow { status, nodes, slots }).collect())
}
