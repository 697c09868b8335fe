//! `flatrender cleanup …`: what rules of tenants have removed, runs that wait for somebody else's word, and legal holds; from a machine that
//! reaches the database.

use super::{
    failure::CliError,
    here::{self, Here},
};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use flatrender_engine::Client;
use flatrender_workflows::{
    definitions::clean_up::{VERDICT, Verdict},
    models::{
        Role, Scope,
        file_mgr::{
            cleanup_run::{self, CleanupRun},
            hold::{self, Hold, NewHold},
        },
    },
};
use serde_json::{Value, json};
use uuid::Uuid;

/// Rows that are shown.
const SHOWN: i64 = 100;

/// Shows what is removed, lets it go on or not, and holds what must stay.
#[derive(Debug, Args)]
pub struct CleanupArgs {
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Debug, Subcommand)]
enum Deed {
    /// Lists the newest runs of all tenants.
    Runs(Here),
    /// Shows a run and what it removes.
    Show(Named),
    /// Lets a run go on that is beyond its guard.
    Approve(Named),
    /// Ends a run that waits for approval.
    Reject(Named),
    /// Ends a run after its batch.
    Cancel(Named),
    /// Lists legal holds that stand.
    Holds(Here),
    /// Places a legal hold: on everything of a tenant, on the files of a person, or on a file.
    Hold {
        /// Whose files.
        #[arg(long, value_name = "UUID")]
        tenant: Uuid,
        /// Of this person alone.
        #[arg(long, value_name = "UUID", conflicts_with = "file")]
        person: Option<Uuid>,
        /// Of this file alone.
        #[arg(long, value_name = "UUID")]
        file: Option<Uuid>,
        /// Why.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        here: Here,
    },
    /// Releases a legal hold.
    Release(Named),
}

#[derive(Debug, Args)]
struct Named {
    /// Its id.
    id: Uuid,
    #[command(flatten)]
    here: Here,
}

/// Does it.
///
/// # Errors
/// There is no database, or nothing of this id that is in a state for it.
pub async fn run(args: CleanupArgs) -> Result<(), CliError> {
    match args.deed {
        Deed::Runs(here) => runs(here).await,
        Deed::Show(named) => show(&named).await,
        Deed::Approve(named) => decide(named, Some(true)).await,
        Deed::Reject(named) => decide(named, Some(false)).await,
        Deed::Cancel(named) => decide(named, None).await,
        Deed::Holds(here) => holds(here).await,
        Deed::Hold { tenant, person, file, reason, here } => {
            let new = NewHold { tenant_id: tenant, owner_id: person, file_id: file, reason: &reason, placed_by: "cli" };
            place(here, new).await
        }
        Deed::Release(named) => release(named).await,
    }
}

async fn runs(here: Here) -> Result<(), CliError> {
    let db = here.database().await?;
    let mut tx = Scope::platform(Role::File).begin(&db).await.context("cannot reach the database")?;
    let all = cleanup_run::newest(&mut tx, None, SHOWN).await.context("cannot list runs")?;
    if here.json {
        println!("{}", Value::from(all.iter().map(told).collect::<Vec<_>>()));
        return Ok(());
    }
    println!("{:<36} {:<17} {:>9} {:>9} {:>9}  began", "RUN", "STATE", "PLANNED", "DELETED", "SKIPPED");
    for r in &all {
        let began = r.created_at.format("%Y-%m-%d %H:%M:%S");
        let state = if r.dry_run { format!("{} (dry)", r.state) } else { r.state.clone() };
        println!("{} {state:<17} {:>9} {:>9} {:>9}  {began}", r.id, r.planned_count, r.deleted_count, r.skipped_count);
    }
    Ok(())
}

async fn show(named: &Named) -> Result<(), CliError> {
    let db = named.here.database().await?;
    let mut tx = Scope::platform(Role::File).begin(&db).await.context("cannot reach the database")?;
    let run = find(&mut tx, named.id).await?;
    let items = cleanup_run::items(&mut tx, run.tenant_id, run.id, 0, SHOWN).await.context("cannot list files")?;
    if named.here.json {
        let files: Vec<Value> = items
            .iter()
            .map(|i| json!({"file_id": i.file_id, "name": i.name, "size_bytes": i.size_bytes, "state": i.state, "why": i.why}))
            .collect();
        println!("{}", json!({"run": told(&run), "files": files}));
        return Ok(());
    }
    println!("{:#}", told(&run));
    for i in &items {
        let why = i.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        println!("{:>6} {:>12} {} {}{why}", i.seq, i.size_bytes, i.name, i.state);
    }
    Ok(())
}

/// Approves, rejects or cancels.
async fn decide(named: Named, approved: Option<bool>) -> Result<(), CliError> {
    let db = named.here.database().await?;
    let client = Client::new(db.clone());
    let mut tx = Scope::platform(Role::File).begin(&db).await.context("cannot reach the database")?;
    let run = find(&mut tx, named.id).await?;
    let not_now = || CliError::Usage(format!("the run is {}: that cannot be done with it now", run.state));
    let workflow = run.workflow_run_id.filter(|_| run.finished_at.is_none()).ok_or_else(not_now)?;
    if let Some(approved) = approved {
        let decided = cleanup_run::decide(&mut tx, run.tenant_id, run.id, "cli", approved).await;
        if !decided.context("cannot do it")? {
            return Err(not_now());
        }
    }
    Scope::platform(Role::Workflow).enter(&mut tx).await.context("cannot do it")?;
    let action = match approved {
        Some(approved) => {
            let verdict = Verdict { approved };
            let sent = client.signal(&mut tx, workflow, VERDICT, Some("verdict"), &verdict).await;
            let _ = sent.context("cannot do it")?;
            if approved { "cleanup_run.approve" } else { "cleanup_run.reject" }
        }
        None => {
            client.cancel(&mut tx, workflow, "an operator wanted it").await.context("cannot do it")?;
            "cleanup_run.cancel"
        }
    };
    here::note(&mut tx, run.tenant_id, (action, &format!("cleanup_run:{}", run.id)), None).await?;
    tx.commit().await.context("cannot do it")?;
    client.announce();
    show(&named).await
}

async fn holds(here: Here) -> Result<(), CliError> {
    let db = here.database().await?;
    let mut tx = Scope::platform(Role::File).begin(&db).await.context("cannot reach the database")?;
    for h in hold::list(&mut tx, None, true, None, SHOWN).await.context("cannot list holds")? {
        tell(&here, &h);
    }
    Ok(())
}

async fn place(here: Here, new: NewHold<'_>) -> Result<(), CliError> {
    let db = here.database().await?;
    let mut tx = Scope::platform(Role::File).begin(&db).await.context("cannot reach the database")?;
    let none = || CliError::Usage("the tenant has no such file".into());
    let id = hold::place(&mut tx, &new).await.context("cannot place a hold")?.ok_or_else(none)?;
    let placed = hold::list(&mut tx, Some(id), true, None, 1).await.context("cannot place a hold")?;
    here::note(&mut tx, new.tenant_id, ("hold.place", &format!("hold:{id}")), Some(new.reason)).await?;
    tx.commit().await.context("cannot place a hold")?;
    placed.iter().for_each(|h| tell(&here, h));
    Ok(())
}

async fn release(named: Named) -> Result<(), CliError> {
    let db = named.here.database().await?;
    let mut tx = Scope::platform(Role::File).begin(&db).await.context("cannot reach the database")?;
    let none = || CliError::Usage("there is no such hold that stands".into());
    let released = hold::release(&mut tx, named.id, "cli").await.context("cannot release it")?.ok_or_else(none)?;
    here::note(&mut tx, released.tenant_id, ("hold.release", &format!("hold:{}", named.id)), None).await?;
    tx.commit().await.context("cannot release it")?;
    tell(&named.here, &released);
    Ok(())
}

async fn find(db: flatrender_workflows::models::Db<'_>, id: Uuid) -> Result<CleanupRun, CliError> {
    let none = || CliError::Usage(format!("there is no run {id}"));
    cleanup_run::newest(db, Some(id), 1).await.context("cannot look for it")?.pop().ok_or_else(none)
}

fn told(r: &CleanupRun) -> Value {
    json!({"id": r.id, "tenant_id": r.tenant_id, "schedule_id": r.schedule_id, "state": r.state, "dry_run": r.dry_run,
           "started_by": r.started_by, "cutoff": r.cutoff, "guard": r.guard, "decided_by": r.decided_by,
           "planned_count": r.planned_count, "planned_bytes": r.planned_bytes, "deleted_count": r.deleted_count,
           "deleted_bytes": r.deleted_bytes, "skipped_count": r.skipped_count, "created_at": r.created_at,
           "finished_at": r.finished_at})
}

fn tell(here: &Here, h: &Hold) {
    let all = json!({"id": h.id, "tenant_id": h.tenant_id, "owner_id": h.owner_id, "file_id": h.file_id, "reason": h.reason,
        "placed_by": h.placed_by, "created_at": h.created_at, "released_by": h.released_by, "released_at": h.released_at});
    match here.json {
        true => println!("{all}"),
        false => println!("{all:#}"),
    }
}
