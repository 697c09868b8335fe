//! `POST /v1/nodes/hello`, `/health` and `/credential`: what a node has and how it fares, and what is wanted of it.
//!
//! A node speaks up every ten seconds. What it says is kept in memory and written once a second for all nodes together, so that
//! a farm of hundreds costs the database one transaction a second; a server that is killed loses a second of samples.

use super::crashes;
use crate::{
    app::App,
    auth::NodeCaller,
    extract::Json,
    problem::{Problem, ProblemBody},
};
use axum::extract::State;
use flatrender_engine::Failure;
use flatrender_workflows::{
    contracts::node::{CachedPackage, Health, Hello, Orders, Rotated},
    models::{
        Database, Role, Scope,
        render::node::{
            self,
            crash::Consequence,
            health::{self, Sample},
            inventory::{self, Changed},
        },
    },
};
use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use uuid::Uuid;

/// How often what waits is written.
const EVERY: Duration = Duration::from_secs(1);
/// How often it is looked who is silent, and after how long a node is offline: two long polls and something.
const LOOK_EVERY: Duration = Duration::from_secs(10);
const OFFLINE_AFTER: Duration = Duration::from_secs(90);
/// A server that was just started has heard of nobody yet: it calls nobody silent. As Flamenco does.
const GRACE: Duration = Duration::from_secs(300);
/// Longest inventory as JSON.
const INVENTORY_BYTES: usize = 512 * 1024;
/// Most packages of a report.
const PACKAGES: usize = 10_000;

/// Samples that wait to be written: the newest of each node. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Samples(Arc<Mutex<HashMap<Uuid, Sample>>>);

impl Samples {
    fn add(&self, sample: Sample) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(sample.node_id, sample);
    }

    /// Writes what waits, in one transaction; what cannot be written is forgotten, there are newer ones soon.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn flush(&self, db: &Database) -> sqlx::Result<()> {
        let waiting = mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if waiting.is_empty() {
            return Ok(());
        }
        let samples: Vec<Sample> = waiting.into_values().collect();
        let mut tx = db.begin(Scope::platform(Role::Render)).await?;
        health::write(&mut tx, &samples).await?;
        tx.commit().await
    }

    /// Writes what waits every second, and notes who is silent, for ever.
    pub async fn keep_writing(&self, db: &Database) {
        let begun = Instant::now();
        let mut looked = begun;
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.flush(db).await {
                tracing::warn!(%error, "how nodes fare cannot be written");
            }
            if begun.elapsed() >= GRACE && looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                if let Err(error) = note_offline(db).await {
                    tracing::warn!(%error, "cannot look for silent nodes");
                }
            }
        }
    }
}

/// Notes who was not heard of.
///
/// # Errors
/// Those of the database.
pub async fn note_offline(db: &Database) -> sqlx::Result<()> {
    let mut tx = db.begin(Scope::platform(Role::Render)).await?;
    let silent = health::note_offline(&mut tx, OFFLINE_AFTER).await?;
    tx.commit().await?;
    if silent > 0 {
        tracing::warn!(nodes = silent, "nodes were not heard of and are offline");
    }
    Ok(())
}

/// `POST /v1/nodes/hello`: at each start of a node.
#[utoipa::path(
    post, path = "/v1/nodes/hello", tag = "Nodes", operation_id = "hello", summary = "Say what the node has",
    description = "At each start: the agent, the machine, renderers, fonts, plug-ins, and what the cache holds.",
    security(("node_credential" = [])),
    request_body(content = Object, content_type = "application/json", example = json!({
        "incarnation": "4f1c1a52-9a53-4a3e-9b70-6a7a9a3f0c11",
        "capabilities": {"agent_version": "0.1.0", "os": "linux/x86_64", "cpus": 8, "ram_mb": 32_768, "slots": 1,
                         "labels": {"engine": "lottie"}, "renderers": {"lottie": "flatrender-aerender 0.1.0"}},
        "inventory": {"after_effects": 24, "fonts": ["Vazirmatn-Bold"], "plugins": [], "disk_free_mb": 90_000},
        "cache": [], "cache_limit": 21_474_836_480_u64})),
    responses(
        (status = 200, description = "What is wanted of it", body = Object, example = json!({
            "give_back": false, "keep": [], "evict": [], "rotate": false})),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn hello(
    State(app): State<App>,
    caller: NodeCaller,
    Json(said): Json<Hello>,
) -> Result<Json<Orders>, Problem> {
    let json = serde_json::to_string(&(&said.capabilities, &said.inventory)).unwrap_or_default();
    if json.len() > INVENTORY_BYTES || json.contains("\\u0000") {
        return Err(Problem::fault("/inventory", "node.report", "the inventory is too large or holds NUL"));
    }
    check_cache(&said.cache)?;
    let mut tx = app.db.begin(Scope::platform(Role::Render)).await?;
    let changed = inventory::hello(&mut tx, caller.node.id, &said).await?;
    let orders = inventory::orders(&mut tx, caller.node.id).await?;
    if let Some(Changed { before, now }) = &changed {
        tracing::warn!(node = caller.node.name, before, now, "a node has another After Effects and is to prove itself");
        let failure = Failure::permanent("node.renderer_changed", format!("After Effects {before} has become {now}"));
        crashes::tell(&app, &mut tx, &caller, &failure, Consequence::Quarantined).await?;
    }
    tx.commit().await?;
    if changed.is_some() {
        app.workflows.announce();
        app.placement.nodes_have_changed();
    }
    Ok(Json(orders))
}

/// `POST /v1/nodes/health`: every ten seconds.
#[utoipa::path(
    post, path = "/v1/nodes/health", tag = "Nodes", operation_id = "report_health", summary = "Say how the node fares",
    description = "Every ten seconds, with what the cache holds when that has changed. Tells what is wanted of the node.",
    security(("node_credential" = [])),
    request_body(content = Object, content_type = "application/json", example = json!({
        "incarnation": "4f1c1a52-9a53-4a3e-9b70-6a7a9a3f0c11", "running_tasks": 1, "cpu_percent": 93.5, "ram_mb": 12_000,
        "disk_free_mb": 90_000, "rtt_ms": 12})),
    responses(
        (status = 200, description = "What is wanted of it", body = Object, example = json!({
            "give_back": false, "keep": [], "evict": [], "rotate": false})),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn health(
    State(app): State<App>,
    caller: NodeCaller,
    Json(said): Json<Health>,
) -> Result<Json<Orders>, Problem> {
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    app.samples.add(Sample {
        node_id: caller.node.id,
        epoch: caller.node.epoch,
        is_full: said.is_full,
        cpu_percent: said.cpu_percent.filter(|cpu| cpu.is_finite() && *cpu >= 0.0),
        ram_mb: said.ram_mb.map(count),
        disk_free_mb: said.disk_free_mb.map(count),
        running_tasks: i32::try_from(said.running_tasks).unwrap_or(i32::MAX),
        rtt_ms: said.rtt_ms.map(|ms| i32::try_from(ms).unwrap_or(i32::MAX)),
    });
    let mut tx = app.db.begin(Scope::platform(Role::Render)).await?;
    if let Some(cache) = &said.cache {
        check_cache(cache)?;
        inventory::holds(&mut tx, caller.node.id, cache).await?;
    }
    let orders = inventory::orders(&mut tx, caller.node.id).await?;
    tx.commit().await?;
    Ok(Json(orders))
}

fn check_cache(cache: &[CachedPackage]) -> Result<(), Problem> {
    let names: std::collections::BTreeSet<_> = cache.iter().map(|package| &package.sha256).collect();
    if cache.len() > PACKAGES || names.len() < cache.len() {
        return Err(Problem::fault("/cache", "node.report", "at most 10000 packages, each once"));
    }
    Ok(())
}

/// `POST /v1/nodes/credential`
#[utoipa::path(
    post, path = "/v1/nodes/credential", tag = "Nodes", operation_id = "rotate_node_credential", summary = "Get another credential",
    description = "The old one is good until the new one is used for the first time.",
    security(("node_credential" = [])),
    responses((status = 200, description = "Shown only here", body = Object, example = json!({"credential": "fr_node_…"})))
)]
pub async fn rotate(State(app): State<App>, caller: NodeCaller) -> Result<Json<Rotated>, Problem> {
    let mut tx = app.db.begin(Scope::platform(Role::Render)).await?;
    let credential = node::rotate(&mut tx, caller.node.id).await?;
    tx.commit().await?;
    Ok(Json(Rotated { credential: credential.reveal().to_owned() }))
}
