//! `flatrender operate …`: how things stand, failures by cause, operations on many runs, queues, versions, what was done.

use super::{
    client::path_part,
    failure::CliError,
    runs::{Which, ask, text},
    server::ServerArgs,
};
use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Value, json};

/// Looks after runs of workflows: how things stand, failures by cause, many runs at once, queues.
///
/// With a key of a tenant: what is that tenant's. With an access token of somebody who runs the platform in FLATRENDER_API_KEY: all.
#[derive(Debug, Clone, Args)]
pub struct OperateArgs {
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Debug, Clone, Subcommand)]
enum Deed {
    /// Says how things stand.
    Now(To),
    /// Groups failures by their cause.
    Failures(To),
    /// Shows a cause, with the workers and nodes that met it.
    Failure {
        /// Its fingerprint.
        fingerprint: String,
        #[command(flatten)]
        to: To,
    },
    /// Previews an operation on many runs: nothing is done before it is begun.
    Bulk {
        /// What is to be done to each.
        action: BulkDeed,
        #[command(flatten)]
        which: Box<Which>,
        /// Instead of a filter: what failed of this operation, or was in conflict.
        #[arg(long, value_name = "BULK")]
        rest_of: Option<String>,
        /// The new priority.
        #[arg(long, allow_negative_numbers = true)]
        priority: Option<i16>,
        /// Runs a second, at most.
        #[arg(long, value_name = "N")]
        rate: Option<f64>,
        /// Why.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        to: To,
    },
    /// Lists operations on many runs.
    Bulks(To),
    /// Shows how far an operation has come, and what became of each run.
    ShowBulk(Named),
    /// Begins what was previewed.
    Begin {
        /// How many runs it is about.
        #[arg(long, value_name = "N")]
        confirm: i32,
        #[command(flatten)]
        named: Named,
    },
    /// Lets an operation rest.
    PauseBulk(Named),
    /// Goes on with an operation that rests.
    ResumeBulk(Named),
    /// Ends an operation for good.
    Abort(Named),
    /// Lists queues.
    Queues(To),
    /// Lets nobody claim from a queue.
    PauseQueue(Named),
    /// Lets work be claimed from a queue again.
    ResumeQueue(Named),
    /// Sets what a queue allows.
    SetTerms {
        /// All that it allows, as JSON, such as {"cap": 10}.
        #[arg(long, value_name = "JSON")]
        terms: String,
        #[command(flatten)]
        named: Named,
    },
    /// A queue allows as much as there is.
    EndTerms(Named),
    /// Lists what was done to runs and queues.
    Audit {
        /// By this actor.
        #[arg(long)]
        actor: Option<String>,
        /// Of this kind, such as cancel.
        #[arg(long)]
        action: Option<String>,
        /// To this, such as queue:media.
        #[arg(long)]
        target: Option<String>,
        #[command(flatten)]
        to: To,
    },
    /// Lists versions of definitions under way, and the workers that live.
    Versions(To),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum BulkDeed {
    Retry,
    Cancel,
    SetPriority,
}

#[derive(Debug, Clone, Args)]
struct To {
    /// Print JSON on one line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Clone, Args)]
struct Named {
    /// The operation, by its id; the queue, by its name.
    name: String,
    /// Why.
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    to: To,
}

/// Does it.
///
/// # Errors
/// See [`CliError`].
pub async fn run(args: OperateArgs) -> Result<(), CliError> {
    match args.deed {
        Deed::Now(to) => to.get("/v1/operate/now").await,
        Deed::Failures(to) => failures(to).await,
        Deed::Failure { fingerprint, to } => to.get(&format!("/v1/operate/failures/{}", path_part(&fingerprint))).await,
        Deed::Bulk { action, which, rest_of, priority, rate, reason, to } => {
            let action = match action {
                BulkDeed::Retry => "retry",
                BulkDeed::Cancel => "cancel",
                BulkDeed::SetPriority => "set_priority",
            };
            let body = json!({ "action": action, "filter": which.filter(), "rest_of": rest_of, "priority": priority,
                "rate_per_second": rate, "reason": reason });
            to.post("/v1/operate/bulk", body).await
        }
        Deed::Bulks(to) => to.get("/v1/operate/bulk?limit=100").await,
        Deed::ShowBulk(named) => {
            let path = format!("/v1/operate/bulk/{}", path_part(&named.name));
            named.to.get(&path).await?;
            named.to.get(&format!("{path}/items?limit=100")).await
        }
        Deed::Begin { confirm, named } => named.act("bulk", json!({ "action": "begin", "confirm": confirm })).await,
        Deed::PauseBulk(named) => {
            let body = json!({ "action": "pause", "reason": named.reason });
            named.act("bulk", body).await
        }
        Deed::ResumeBulk(named) => {
            let body = json!({ "action": "resume", "reason": named.reason });
            named.act("bulk", body).await
        }
        Deed::Abort(named) => {
            let body = json!({ "action": "abort", "reason": named.reason });
            named.act("bulk", body).await
        }
        Deed::Queues(to) => queues(to).await,
        Deed::PauseQueue(named) => {
            let body = json!({ "action": "pause", "reason": named.reason });
            named.act("queues", body).await
        }
        Deed::ResumeQueue(named) => {
            let body = json!({ "action": "resume", "reason": named.reason });
            named.act("queues", body).await
        }
        Deed::SetTerms { terms, named } => {
            let wrong = |e| CliError::Usage(format!("--terms is no JSON: {e}"));
            let terms: Value = serde_json::from_str(&terms).map_err(wrong)?;
            let body = json!({ "action": "set_terms", "terms": terms, "reason": named.reason });
            named.act("queues", body).await
        }
        Deed::EndTerms(named) => {
            let body = json!({ "action": "end_terms", "reason": named.reason });
            named.act("queues", body).await
        }
        Deed::Audit { actor, action, target, to } => {
            let mut path = "/v1/operate/audit?limit=100".to_owned();
            for (name, value) in [("actor", actor), ("action", action), ("target", target)] {
                if let Some(value) = value {
                    path.push_str(&format!("&{name}={}", path_part(&value)));
                }
            }
            to.get(&path).await
        }
        Deed::Versions(to) => to.get("/v1/operate/versions").await,
    }
}

impl To {
    async fn get(&self, path: &str) -> Result<(), CliError> {
        self.show(&ask(&self.server.connect().await?, Method::GET, path, None).await?);
        Ok(())
    }

    async fn post(&self, path: &str, body: Value) -> Result<(), CliError> {
        self.show(&ask(&self.server.connect().await?, Method::POST, path, Some(body)).await?);
        Ok(())
    }

    fn show(&self, answer: &Value) {
        match self.json {
            true => println!("{answer}"),
            false => println!("{answer:#}"),
        }
    }
}

impl Named {
    async fn act(&self, room: &str, body: Value) -> Result<(), CliError> {
        self.to.post(&format!("/v1/operate/{room}/{}/actions", path_part(&self.name)), body).await
    }
}

async fn failures(to: To) -> Result<(), CliError> {
    let groups = ask(&to.server.connect().await?, Method::GET, "/v1/operate/failures", None).await?;
    if to.json {
        println!("{groups}");
        return Ok(());
    }
    println!("{:>6}  {:>7}  {:<27}  {:<44}  MESSAGE", "RUNS", "TENANTS", "LAST", "CAUSE");
    for group in groups["data"].as_array().into_iter().flatten() {
        let (last, cause) = (text(&group["last_at"]), text(&group["fingerprint"]));
        println!("{:>6}  {:>7}  {last:<27}  {cause:<44}  {}", group["runs"], group["tenants"], text(&group["message"]));
    }
    Ok(())
}

async fn queues(to: To) -> Result<(), CliError> {
    let queues = ask(&to.server.connect().await?, Method::GET, "/v1/operate/queues", None).await?;
    if to.json {
        println!("{queues}");
        return Ok(());
    }
    println!("{:<28}  {:>6}  {:>7}  {:>6}  {:>7}  PAUSED", "QUEUE", "READY", "OLDEST", "LEASED", "WORKERS");
    for q in queues["data"].as_array().into_iter().flatten() {
        let (name, oldest) = (text(&q["queue"]), q["oldest_seconds"].as_f64().unwrap_or_default());
        let paused = q["paused_by"].as_str().map(|by| format!("by {by}: {}", text(&q["pause_reason"])));
        let paused = paused.unwrap_or_default();
        println!("{name:<28}  {:>6}  {oldest:>6.0}s  {:>6}  {:>7}  {paused}", q["ready"], q["leased"], q["workers"]);
    }
    Ok(())
}
