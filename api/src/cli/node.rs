//! `flatrender node …`: what operators do with nodes, from a machine that reaches the database.

use super::{admin, failure::CliError, here::note};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use flatrender_engine::Labels;
use flatrender_workflows::{
    contracts::storage::BlobHash,
    models::{
        DEFAULT_TENANT, Role, Scope,
        render::node::{
            self, NewToken,
            action::{self, Action},
            crash, health,
            overview::{self, Held, Overview, Probed},
            sleep::Sleep,
            token as enrolment,
        },
    },
};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{path::PathBuf, time::Duration};
use uuid::Uuid;

/// Rows that are shown.
const SHOWN: i64 = 500;

/// Where the nodes are known.
#[derive(Debug, Clone, Args)]
pub(super) struct Here {
    /// The PostgreSQL database [default: the private one of the data folder, when it runs].
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Data folder of the platform on this machine.
    #[arg(long = "data", value_name = "DIR", env = "FLATRENDER_DATA")]
    platform: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A node of the farm.
#[derive(Debug, Clone, Args)]
pub(super) struct Named {
    /// Its name, or its id.
    node: String,
    #[command(flatten)]
    here: Here,
}

/// A package in the cache of a node.
#[derive(Debug, Clone, Args)]
pub(super) struct Package {
    #[command(flatten)]
    named: Named,
    /// Hash of the package.
    #[arg(long, value_name = "SHA256")]
    package: BlobHash,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum NodeDeed {
    /// Looks whether this machine can render for the server, and says how to mend what is wrong.
    Doctor {
        /// Print the findings as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Makes a one-time token for a node and prints it.
    Token {
        #[command(flatten)]
        here: Here,
        /// The group of nodes it will belong to.
        #[arg(long)]
        pool: Option<String>,
        /// What is said of it, KEY=VALUE; may be given more than once.
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
        /// For how many minutes it is good.
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=10_080))]
        minutes: u64,
        /// It gets work before it has passed the probe.
        #[arg(long)]
        without_probe: bool,
    },
    /// Lists the tokens that were made, newest first; never the tokens themselves.
    Tokens(Here),
    /// Makes a token worthless that nobody has used.
    RevokeToken {
        /// Its id, as listed.
        id: Uuid,
        #[command(flatten)]
        here: Here,
    },
    /// Lists the nodes.
    List(Here),
    /// Shows a node.
    Show(Named),
    /// Shows the crashes of a node, newest first.
    Crashes(Named),
    /// Shows how a node fared, newest first.
    Health(Named),
    /// Gives a node no more work.
    Drain {
        #[command(flatten)]
        named: Named,
        /// What it has is given back at once; else it finishes that.
        #[arg(long)]
        at_once: bool,
    },
    /// Gives a node work again after it was drained.
    Resume(Named),
    /// Gives a node nothing but the probe until it passes.
    Quarantine {
        #[command(flatten)]
        named: Named,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// Lets a node out of quarantine; what it failed at is forgiven.
    Release(Named),
    /// Ends a node: its credential is worthless from this moment.
    Retire {
        #[command(flatten)]
        named: Named,
        /// Why.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Has a node ask for another credential.
    RotateCredential(Named),
    /// Puts a node to sleep by a schedule.
    Sleep {
        #[command(flatten)]
        named: Named,
        /// Days on which it falls asleep.
        #[arg(long, value_delimiter = ',', default_value = "mon,tue,wed,thu,fri,sat,sun")]
        days: Vec<String>,
        /// When it falls asleep, HH:MM.
        #[arg(long)]
        from: String,
        /// When it wakes, HH:MM.
        #[arg(long)]
        to: String,
        /// Time zone of these hours.
        #[arg(long, default_value = "UTC")]
        tz: String,
        /// It gives back what it has; else it finishes that.
        #[arg(long)]
        at_once: bool,
    },
    /// Takes the schedule of sleep away.
    Wake(Named),
    /// Keeps a package in the cache of a node.
    Keep(Package),
    /// Lets a package be forgotten for room again.
    LetGo(Package),
    /// Has a node forget a package.
    Evict(Package),
}

/// Does it.
///
/// # Errors
/// There is no database, no such node, or it is not in a state for it.
pub(super) async fn run(deed: NodeDeed) -> Result<(), CliError> {
    let (named, action) = match deed {
        NodeDeed::Doctor { .. } => return Err(CliError::Usage("the doctor looks at this machine".into())),
        NodeDeed::Token { here, pool, labels, minutes, without_probe } => {
            return token(here, pool, labels.into_iter().collect(), minutes, !without_probe).await;
        }
        NodeDeed::Tokens(here) => return tokens(here).await,
        NodeDeed::RevokeToken { id, here } => return revoke_token(here, id).await,
        NodeDeed::List(here) => return list(here).await,
        NodeDeed::Show(named) => return show(named).await,
        NodeDeed::Crashes(named) => return crashes(named).await,
        NodeDeed::Health(named) => return fared(named).await,
        NodeDeed::Drain { named, at_once } => (named, Action::Drain { at_once }),
        NodeDeed::Resume(named) => (named, Action::Resume {}),
        NodeDeed::Quarantine { named, reason } => (named, Action::Quarantine { reason }),
        NodeDeed::Release(named) => (named, Action::Release {}),
        NodeDeed::Retire { named, reason } => (named, Action::Retire { reason }),
        NodeDeed::RotateCredential(named) => (named, Action::RotateCredential {}),
        NodeDeed::Sleep { named, days, from, to, tz, at_once } => {
            let schedule = json!({"days": days, "from": from, "to": to, "tz": tz, "at_once": at_once});
            let schedule: Sleep = serde_json::from_value(schedule).map_err(|e| CliError::Usage(e.to_string()))?;
            (named, Action::Sleep { schedule })
        }
        NodeDeed::Wake(named) => (named, Action::Wake {}),
        NodeDeed::Keep(Package { named, package }) => (named, Action::Keep { package }),
        NodeDeed::LetGo(Package { named, package }) => (named, Action::LetGo { package }),
        NodeDeed::Evict(Package { named, package }) => (named, Action::Evict { package }),
    };
    act(named, &action).await
}

async fn act(named: Named, action: &Action) -> Result<(), CliError> {
    if !action.is_well_founded() {
        return Err(CliError::Usage(action::BAD_REASON.to_owned()));
    }
    let db = named.here.database().await?;
    let node = named.find(&db).await?;
    let mut tx = Scope::platform(Role::Render).begin(&db).await.context("cannot reach the database")?;
    if !action::act(&mut tx, node.id, action).await.context("cannot do it")? {
        return Err(CliError::Usage(format!(
            "the node {} is {}: that cannot be done with it now",
            node.name, node.status
        )));
    }
    let (name, object) = (format!("node.{}", action.name()), format!("node:{}", node.id));
    note(&mut tx, DEFAULT_TENANT, (&name, &object), action.reason()).await?;
    tx.commit().await.context("cannot do it")?;
    show(named).await
}

async fn token(
    here: Here,
    pool: Option<String>,
    labels: Labels,
    minutes: u64,
    probe_first: bool,
) -> Result<(), CliError> {
    let db = here.database().await?;
    let mut tx = Scope::platform(Role::Render).begin(&db).await.context("cannot reach the database")?;
    let new = NewToken { pool: pool.as_deref(), labels, probe_first, created_by: Some("cli") };
    let token = node::create_token_for(&mut tx, Duration::from_secs(60 * minutes), &new).await;
    let (id, token) = token.context("cannot make a token")?;
    note(&mut tx, DEFAULT_TENANT, ("node.create_token", &format!("node_token:{id}")), None).await?;
    tx.commit().await.context("cannot make a token")?;
    match here.json {
        true => println!("{}", json!({ "id": id, "node_token": token.reveal() })),
        false => println!("{}", token.reveal()),
    }
    Ok(())
}

async fn tokens(here: Here) -> Result<(), CliError> {
    let db = here.database().await?;
    let mut tx = Scope::platform(Role::Render).begin(&db).await.context("cannot reach the database")?;
    let tokens = enrolment::list(&mut tx, None, SHOWN).await.context("cannot list the tokens")?;
    if here.json {
        let told = |t: &enrolment::Token| {
            json!({"id": t.id, "state": t.state, "pool": t.pool, "labels": t.labels, "probe_first": t.probe_first,
                   "created_by": t.created_by, "node": t.node, "used_at": t.used_at, "revoked_at": t.revoked_at,
                   "expires_at": t.expires_at, "created_at": t.created_at})
        };
        println!("{}", Value::Array(tokens.iter().map(told).collect()));
        return Ok(());
    }
    println!("{:<36} {:<7} {:<12} {:<19}  used by", "ID", "STATE", "POOL", "GOOD UNTIL");
    for t in &tokens {
        let until = t.expires_at.format("%Y-%m-%d %H:%M:%S");
        println!("{} {:<7} {:<12} {until}  {}", t.id, t.state, t.pool, t.node.as_deref().unwrap_or("-"));
    }
    Ok(())
}

async fn revoke_token(here: Here, id: Uuid) -> Result<(), CliError> {
    let db = here.database().await?;
    let mut tx = Scope::platform(Role::Render).begin(&db).await.context("cannot reach the database")?;
    if !enrolment::revoke(&mut tx, id).await.context("cannot revoke it")? {
        return Err(CliError::Usage(format!("there is no token {id} that is open")));
    }
    note(&mut tx, DEFAULT_TENANT, ("node.revoke_token", &format!("node_token:{id}")), None).await?;
    Ok(tx.commit().await.context("cannot revoke it")?)
}

async fn list(here: Here) -> Result<(), CliError> {
    let db = here.database().await?;
    let mut tx = Scope::platform(Role::Render).begin(&db).await.context("cannot reach the database")?;
    let nodes = overview::list(&mut tx, None, None, SHOWN).await.context("cannot list the nodes")?;
    if here.json {
        println!("{}", Value::Array(nodes.iter().map(told).collect()));
        return Ok(());
    }
    println!(
        "{:<24} {:<12} {:<11} {:>5} {:>7} {:>6}  last seen",
        "NAME", "POOL", "STATUS", "SLOTS", "CRASHES", "BLOCKS"
    );
    for n in &nodes {
        let seen = n.last_seen_at.format("%Y-%m-%d %H:%M:%S");
        println!(
            "{:<24} {:<12} {:<11} {:>5} {:>7} {:>6}  {seen}",
            n.name, n.pool, n.status, n.slots, n.crashes, n.blocks
        );
    }
    Ok(())
}

async fn show(named: Named) -> Result<(), CliError> {
    let db = named.here.database().await?;
    let found = named.find(&db).await?;
    let mut node = told(&found);
    let mut tx = Scope::platform(Role::Render).begin(&db).await.context("cannot reach the database")?;
    let probe = overview::probed(&mut tx, found.id).await.context("cannot look at its probe")?;
    let found_out = |p: Probed| json!({"at": p.at, "passed": p.report.passed(), "checks": p.report.checks});
    node["probe"] = probe.map(found_out).into();
    let held = overview::held(&mut tx, found.id, SHOWN).await.context("cannot look at its cache")?;
    let package = |h: &Held| {
        json!({"package": h.package, "bytes": h.bytes, "state": h.state, "keep": h.keep, "hits": h.hits,
               "last_used_at": h.last_used_at})
    };
    node["packages"] = held.iter().map(package).collect();
    if named.here.json {
        println!("{node}");
        return Ok(());
    }
    for (key, value) in node.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        println!("{key:<20} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
    Ok(())
}

async fn crashes(named: Named) -> Result<(), CliError> {
    let db = named.here.database().await?;
    let id = named.find(&db).await?.id;
    let mut tx = Scope::platform(Role::Render).begin(&db).await.context("cannot reach the database")?;
    for c in crash::list(&mut tx, id, None, SHOWN).await.context("cannot list crashes")? {
        let at = c.occurred_at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        match named.here.json {
            true => println!(
                "{}",
                json!({"id": c.id, "occurred_at": at, "code": c.code, "kind": c.kind, "counts": c.counts,
                "signature": c.signature, "seen": c.seen, "frame": c.frame, "package": c.package_sha256, "log_tail": c.log_tail})
            ),
            false => println!("{at}  {:<26} {:<9} {}× {}", c.code, c.kind, c.seen, &c.signature[..12]),
        }
    }
    Ok(())
}

async fn fared(named: Named) -> Result<(), CliError> {
    let db = named.here.database().await?;
    let id = named.find(&db).await?.id;
    let mut tx = Scope::platform(Role::Render).begin(&db).await.context("cannot reach the database")?;
    for s in health::list(&mut tx, id, None, SHOWN).await.context("cannot list samples")? {
        let at = s.recorded_at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        let row = json!({"recorded_at": at, "cpu_percent": s.cpu_percent, "ram_mb": s.ram_mb,
            "disk_free_mb": s.disk_free_mb, "running_tasks": s.running_tasks, "rtt_ms": s.rtt_ms});
        println!("{row}");
    }
    Ok(())
}

fn told(n: &Overview) -> Value {
    json!({
        "id": n.id, "name": n.name, "pool": n.pool, "status": n.status, "tenant_id": n.tenant_id,
        "quarantine_reason": n.quarantine_reason, "sleep": n.sleep, "labels": n.labels, "offers": n.offers,
        "agent_version": n.agent_version, "ae_version": n.ae_version, "os": n.os, "cpu": n.cpu, "ram_mb": n.ram_mb, "gpu": n.gpu,
        "slots": n.slots, "fonts": n.fonts_count, "disk_free_mb": n.disk_free_mb, "cache_bytes": n.cache_bytes,
        "cache_limit": n.cache_limit, "crashes": n.crashes, "blocks": n.blocks, "last_seen_at": n.last_seen_at,
        "created_at": n.created_at
    })
}

impl Here {
    async fn database(&self) -> Result<PgPool, CliError> {
        let url = admin::database(self.database_url.clone(), self.platform.as_deref())?;
        Ok(PgPool::connect(&url).await.context("cannot connect to the database")?)
    }
}

impl Named {
    async fn find(&self, db: &PgPool) -> Result<Overview, CliError> {
        let mut tx = Scope::platform(Role::Render).begin(db).await.context("cannot reach the database")?;
        let called = overview::called(&mut tx, &self.node).await.context("cannot look for the node")?;
        let id = called.or_else(|| self.node.parse::<Uuid>().ok());
        let found = match id {
            Some(id) => overview::list(&mut tx, Some(id), None, 1).await.context("cannot look for the node")?.pop(),
            None => None,
        };
        found.ok_or_else(|| CliError::Usage(format!("there is no node {:?}", self.node)))
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    let fits = |part: &str| (1..=120).contains(&part.len()) && !part.contains(char::is_control);
    if fits(key) && fits(value) {
        Ok((key.into(), value.into()))
    } else {
        Err("key and value have 1 to 120 bytes".into())
    }
}
