//! `flatrender schedule …`: what the platform does by itself, and when; from a machine that reaches the database.

use super::{failure::CliError, here::Here};
use crate::schedules::operate::{ScheduleAct, local};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use flatrender_engine::{
    Client,
    schedules::{Schedule, Schedules},
};
use flatrender_workflows::models::{DEFAULT_TENANT, Role, Scope};
use serde_json::json;
use uuid::Uuid;

/// Schedules that are listed.
const SHOWN: u32 = 500;

/// Lists, shows and steers what the platform does by itself.
#[derive(Debug, Args)]
pub struct ScheduleArgs {
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Debug, Subcommand)]
enum Deed {
    /// Lists the schedules of the platform, or of a tenant.
    List {
        #[command(flatten)]
        here: Here,
        /// The tenant [default: the platform's own].
        #[arg(long, value_name = "UUID", default_value_t = DEFAULT_TENANT)]
        tenant: Uuid,
    },
    /// Shows a schedule with its next five times, and the last twenty with what became of each.
    Show(Named),
    /// Lets the times of a schedule pass.
    Pause(Named),
    /// Lets a schedule fire again.
    Resume(Named),
    /// Starts a run now.
    Run(Named),
}

#[derive(Debug, Args)]
struct Named {
    /// Its name, or its id.
    schedule: String,
    #[command(flatten)]
    here: Here,
    /// Whose it is, when it is named [default: the platform's own].
    #[arg(long, value_name = "UUID", default_value_t = DEFAULT_TENANT)]
    tenant: Uuid,
}

/// Does it.
///
/// # Errors
/// There is no database, or no such schedule.
pub async fn run(args: ScheduleArgs) -> Result<(), CliError> {
    match args.deed {
        Deed::List { here, tenant } => list(here, tenant).await,
        Deed::Show(named) => show(named).await,
        Deed::Pause(named) => act(named, ScheduleAct::Pause).await,
        Deed::Resume(named) => act(named, ScheduleAct::Resume).await,
        Deed::Run(named) => act(named, ScheduleAct::Run).await,
    }
}

async fn list(here: Here, tenant: Uuid) -> Result<(), CliError> {
    let db = here.database().await?;
    let all = Schedules::new(Client::new(db)).list(Some(tenant), None, SHOWN).await.context("cannot list schedules")?;
    if here.json {
        println!("{}", json!(all));
        return Ok(());
    }
    println!("{:<26} {:<16} {:<14} {:<9} {:>6}  next", "NAME", "CRON", "ZONE", "CATCH-UP", "MISSED");
    for s in &all {
        let catch_up = json!(s.terms.catch_up);
        let next = match (s.paused_at, s.next_at) {
            (Some(_), _) => "paused".to_owned(),
            (None, Some(at)) => local(&[at], &s.terms.time_zone).remove(0),
            (None, None) => "off".to_owned(),
        };
        let (terms, catch_up) = (&s.terms, catch_up.as_str().unwrap_or_default());
        println!("{:<26} {:<16} {:<14} {catch_up:<9} {:>6}  {next}", terms.name, terms.cron, terms.time_zone, s.missed);
    }
    Ok(())
}

async fn show(named: Named) -> Result<(), CliError> {
    let client = Client::new(named.here.database().await?);
    let schedules = Schedules::new(client.clone());
    let schedule = named.find(&schedules).await?;
    let next = schedules.next(schedule.id, 5).await.context("cannot tell the next times")?;
    let next = local(&next, &schedule.terms.time_zone);
    let mut fires = vec![];
    for fire in schedules.fires(schedule.id, 20).await.context("cannot list its times")? {
        let run = match fire.run_id {
            Some(id) => client.run(id).await.context("cannot look at a run")?,
            None => None,
        };
        fires.push(json!({"nominal_at": fire.nominal_at, "decision": fire.decision, "run_id": fire.run_id,
            "run_state": run.as_ref().map(|run| run.state.as_str()), "error": run.and_then(|run| run.error)}));
    }
    let told = json!({"schedule": schedule, "next": next, "fires": fires});
    match named.here.json {
        true => println!("{told}"),
        false => println!("{told:#}"),
    }
    Ok(())
}

async fn act(named: Named, action: ScheduleAct) -> Result<(), CliError> {
    let db = named.here.database().await?;
    let client = Client::new(db.clone());
    let schedules = Schedules::new(client.clone());
    let Schedule { id, tenant_id, .. } = named.find(&schedules).await?;
    let mut tx = Scope::platform(Role::Workflow).begin(&db).await.context("cannot reach the database")?;
    let changed = action.take(&schedules, &mut tx, id).await.context("cannot do it")?;
    if changed {
        super::here::note(&mut tx, tenant_id, (action.name(), &format!("schedule:{id}")), None).await?;
    }
    tx.commit().await.context("cannot do it")?;
    client.announce();
    show(named).await
}

impl Named {
    async fn find(&self, schedules: &Schedules) -> Result<Schedule, CliError> {
        let none = || CliError::Usage(format!("there is no schedule {:?}", self.schedule));
        if let Ok(id) = self.schedule.parse() {
            return schedules.find(id).await.context("cannot look for it")?.ok_or_else(none);
        }
        let all = schedules.list(Some(self.tenant), None, SHOWN).await.context("cannot look for it")?;
        all.into_iter().find(|s| s.terms.name == self.schedule).ok_or_else(none)
    }
}
