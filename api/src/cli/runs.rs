//! `flatrender runs …`: one run, and lists of them.

use super::{
    client::{Client, path_part},
    failure::CliError,
    server::ServerArgs,
};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

/// Pages without a run that are passed over, each a look at some thousand runs of others.
const EMPTY: usize = 100;

/// Lists runs of workflows, tells why one does not go on, tries it again, cancels it.
///
/// With a key of a tenant: the runs of that tenant. With an access token of somebody who runs the platform in FLATRENDER_API_KEY: all.
#[derive(Debug, Clone, Args)]
pub struct RunsArgs {
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Debug, Clone, Subcommand)]
enum Deed {
    /// Lists runs, newest first.
    List(ListArgs),
    /// Lists runs that failed and of which no later try is under way or went well.
    DeadLetters(ListArgs),
    /// Shows a run with all that is known of it, and its newest steps.
    Show(One),
    /// Lists what a run has done, newest first.
    Steps(StepsArgs),
    /// Says in a sentence why a run does not go on.
    Why(One),
    /// Tries a run that failed or was cancelled again, as a new run.
    Retry(Act),
    /// Asks a run to stop.
    Cancel(Act),
    /// Ends the pause of a step after a failure: it is tried now.
    RetryNow(Act),
    /// Changes the priority of a run.
    SetPriority(Act),
    /// Lets a run that is parked go on.
    Resume(Act),
    /// Takes a task away from its holder, for another.
    Release(Act),
    /// Makes a run out of another, whatever became of that.
    Fork(Act),
    /// Sends a signal to a run.
    Signal(Act),
}

/// Which runs.
#[derive(Debug, Clone, Args)]
pub(super) struct Which {
    /// In this state: running, succeeded, failed, cancelled; several with commas.
    #[arg(long)]
    state: Option<String>,
    /// Of this kind; several with commas.
    #[arg(long)]
    kind: Option<String>,
    /// That wait for, or do, something in this queue.
    #[arg(long)]
    queue: Option<String>,
    /// Of this tenant.
    #[arg(long, value_name = "UUID")]
    tenant: Option<String>,
    /// That failed with this code.
    #[arg(long)]
    code: Option<String>,
    /// That failed by this cause.
    #[arg(long)]
    fingerprint: Option<String>,
    /// About this.
    #[arg(long, value_name = "KEY")]
    business_key: Option<String>,
    /// Started no earlier, such as 2026-11-26T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Started before.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

#[derive(Debug, Clone, Args)]
struct ListArgs {
    #[command(flatten)]
    which: Which,
    /// How many at most.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: u32,
    /// Those before this id: the last run of the list before, or what it said.
    #[arg(long, value_name = "RUN")]
    after: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Clone, Args)]
struct One {
    /// The run, by its id.
    run: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Clone, Args)]
struct StepsArgs {
    /// The run, by its id.
    run: String,
    /// How many at most.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: u32,
    /// Those before this number.
    #[arg(long, value_name = "N")]
    after: Option<u64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Clone, Args)]
struct Act {
    /// The run, by its id.
    run: String,
    /// Why.
    #[arg(long)]
    reason: Option<String>,
    /// The step to begin with.
    #[arg(long, value_name = "KEY")]
    from_step: Option<String>,
    /// Another input, as JSON.
    #[arg(long, value_name = "JSON")]
    input: Option<String>,
    /// The new priority; higher goes first.
    #[arg(long, allow_negative_numbers = true)]
    priority: Option<i16>,
    /// The task, by its number.
    #[arg(long)]
    task: Option<String>,
    /// Name of the signal.
    #[arg(long, value_name = "NAME")]
    signal: Option<String>,
    /// What comes with the signal, as JSON.
    #[arg(long, value_name = "JSON")]
    payload: Option<String>,
    /// The same key twice is one signal.
    #[arg(long, value_name = "KEY")]
    dedupe_key: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Does it.
///
/// # Errors
/// See [`CliError`].
pub async fn run(args: RunsArgs) -> Result<(), CliError> {
    match args.deed {
        Deed::List(list) => show_list(list, "runs").await,
        Deed::DeadLetters(list) => show_list(list, "dead-letters").await,
        Deed::Show(one) => {
            let run = ask(&one.server.connect().await?, Method::GET, &at(&one.run), None).await?;
            match one.json {
                true => println!("{run}"),
                false => println!("{run:#}"),
            }
            Ok(())
        }
        Deed::Steps(steps) => show_steps(steps).await,
        Deed::Why(one) => {
            let run = ask(&one.server.connect().await?, Method::GET, &at(&one.run), None).await?;
            match one.json {
                true => println!("{}", run["why"]),
                false => println!("{}", text(&run["why"]["text"])),
            }
            Ok(())
        }
        Deed::Retry(act) => act.take("retry").await,
        Deed::Cancel(act) => act.take("cancel").await,
        Deed::RetryNow(act) => act.take("retry_now").await,
        Deed::SetPriority(act) => act.take("set_priority").await,
        Deed::Resume(act) => act.take("resume").await,
        Deed::Release(act) => act.take("release").await,
        Deed::Fork(act) => act.take("fork").await,
        Deed::Signal(act) => act.take("signal").await,
    }
}

impl Which {
    fn pairs(&self) -> [(&'static str, &Option<String>); 9] {
        [
            ("state", &self.state),
            ("kind", &self.kind),
            ("queue", &self.queue),
            ("tenant_id", &self.tenant),
            ("code", &self.code),
            ("fingerprint", &self.fingerprint),
            ("business_key", &self.business_key),
            ("from", &self.from),
            ("until", &self.until),
        ]
    }

    /// As the body of a bulk operation wants it.
    pub(super) fn filter(&self) -> Value {
        let mut filter = Map::new();
        for (name, value) in self.pairs() {
            let Some(value) = value else { continue };
            let parts: Vec<&str> = value.split(',').collect();
            match name {
                "state" => filter.insert("states".to_owned(), json!(parts)),
                "kind" => filter.insert("kinds".to_owned(), json!(parts)),
                _ => filter.insert(name.to_owned(), json!(value)),
            };
        }
        Value::Object(filter)
    }
}

async fn show_list(list: ListArgs, what: &str) -> Result<(), CliError> {
    let client = list.server.connect().await?;
    let mut path = format!("/v1/operate/{what}?limit={}", list.limit);
    for (name, value) in list.which.pairs() {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", path_part(value)));
        }
    }
    let mut page = listed(&client, &path, list.after.as_deref()).await?;
    // There may be some behind a page without any.
    for _ in 0..EMPTY {
        let next = page["next_cursor"].as_str().filter(|_| page["data"].as_array().is_some_and(Vec::is_empty));
        let Some(next) = next.map(str::to_owned) else { break };
        page = listed(&client, &path, Some(&next)).await?;
    }
    if list.json {
        println!("{page}");
        return Ok(());
    }
    println!("{:<36}  {:<20}  {:<9}  {:<27}  CODE", "RUN", "KIND", "STATE", "CREATED");
    for run in page["data"].as_array().into_iter().flatten() {
        let (id, kind, state) = (text(&run["id"]), text(&run["kind"]), text(&run["state"]));
        println!("{id}  {kind:<20}  {state:<9}  {:<27}  {}", text(&run["created_at"]), text(&run["error_code"]));
    }
    if let Some(next) = page["next_cursor"].as_str() {
        eprintln!("there may be more: --after {next}");
    }
    Ok(())
}

async fn listed(client: &Client, path: &str, after: Option<&str>) -> Result<Value, CliError> {
    let after = after.map(|after| format!("&starting_after={}", path_part(after))).unwrap_or_default();
    ask(client, Method::GET, &format!("{path}{after}"), None).await
}

async fn show_steps(steps: StepsArgs) -> Result<(), CliError> {
    let path = format!("{}/steps?limit={}", at(&steps.run), steps.limit);
    let after = steps.after.map(|n| n.to_string());
    let page = listed(&steps.server.connect().await?, &path, after.as_deref()).await?;
    if steps.json {
        println!("{page}");
        return Ok(());
    }
    println!("{:>6}  {:<27}  {:<12}  {:<9}  STEP", "N", "WHEN", "KIND", "RESULT");
    for step in page["data"].as_array().into_iter().flatten() {
        let (when, kind, result) = (text(&step["recorded_at"]), text(&step["kind"]), text(&step["outcome"]));
        println!("{:>6}  {when:<27}  {kind:<12}  {result:<9}  {}", step["seq"], text(&step["key"]));
    }
    if let Some(next) = page["next_cursor"].as_str() {
        eprintln!("there are more: --after {next}");
    }
    Ok(())
}

impl Act {
    async fn take(self, action: &str) -> Result<(), CliError> {
        let read = |flag: &str, text: &Option<String>| -> Result<Option<Value>, CliError> {
            let wrong = |e| CliError::Usage(format!("{flag} is no JSON: {e}"));
            text.as_deref().map(|text| serde_json::from_str(text).map_err(wrong)).transpose()
        };
        let mut body = Map::new();
        let given = [
            ("action", Some(json!(action))),
            ("reason", self.reason.as_ref().map(|text| json!(text))),
            ("from_step", self.from_step.as_ref().map(|text| json!(text))),
            ("input", read("--input", &self.input)?),
            ("priority", self.priority.map(|n| json!(n))),
            ("task", self.task.as_ref().map(|text| json!(text))),
            ("signal", self.signal.as_ref().map(|text| json!(text))),
            ("payload", read("--payload", &self.payload)?),
            ("dedupe_key", self.dedupe_key.as_ref().map(|text| json!(text))),
        ];
        body.extend(given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        let path = format!("{}/actions", at(&self.run));
        let done = ask(&self.server.connect().await?, Method::POST, &path, Some(Value::Object(body))).await?;
        if self.json {
            println!("{done}");
            return Ok(());
        }
        match done["new_run_id"].as_str() {
            Some(id) => println!("{action}: made the run {id}"),
            None => println!("{action}: done"),
        }
        Ok(())
    }
}

fn at(run: &str) -> String {
    format!("/v1/operate/runs/{}", path_part(run))
}

pub(super) async fn ask(client: &Client, method: Method, path: &str, body: Option<Value>) -> Result<Value, CliError> {
    let call = client.call(method, path);
    let call = match &body {
        Some(body) => call.json(body),
        None => call,
    };
    Ok(client.json::<Value>(call).await?.json)
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
