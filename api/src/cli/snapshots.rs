//! `flatrender snapshots`: stills of a template's scenes.

use super::{
    answers::{SceneStill, Stills},
    failure::CliError,
    server::ServerArgs,
};
use anyhow::{Context as _, anyhow};
use clap::Args;
use std::{collections::BTreeMap, time::Duration};

/// How often is looked.
const LOOK: Duration = Duration::from_secs(1);

/// Renders a still of every scene of a template, and tells where each is.
///
/// A still that was rendered before is there at once. Takes a key that may manage the tenant.
#[derive(Debug, Clone, Args)]
pub struct SnapshotsArgs {
    /// The template, by its slug.
    template: String,
    /// Render them again even if they were rendered before.
    #[arg(long)]
    force: bool,
    /// Print what the server says in the end, as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the command.
///
/// # Errors
/// See [`CliError`]; also when a still could not be rendered.
pub async fn run(args: SnapshotsArgs) -> Result<(), CliError> {
    let client = args.server.connect().await?;
    let project = client.template(&args.template).await?.value.project_id;
    let mut stills = client.ask_for_stills(&project, args.force).await?;
    let mut told = BTreeMap::new();
    loop {
        for scene in stills.value.data.iter().filter(|_| !args.json) {
            let line = line(scene);
            if told.insert(scene.scene_key.clone(), line.clone()).as_ref() != Some(&line) {
                println!("{line}");
            }
        }
        if stills.value.counts.queued + stills.value.counts.running == 0 {
            break;
        }
        tokio::time::sleep(LOOK).await;
        stills = client.stills(&project).await?;
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&stills.json).context("cannot write JSON")?);
    }
    verdict(&stills.value)
}

fn line(scene: &SceneStill) -> String {
    let Some(job) = &scene.job else { return format!("{:<16} none", scene.scene_key) };
    let detail = match (&job.image_url, &job.error) {
        (Some(url), _) if url.starts_with("data:") => "a placeholder".to_owned(),
        (Some(url), _) => url.clone(),
        (None, Some(error)) => format!("{}: {}", error.code, error.message),
        (None, None) => String::new(),
    };
    format!("{:<16} {:<8} {detail}", scene.scene_key, job.status).trim_end().to_owned()
}

fn verdict(stills: &Stills) -> Result<(), CliError> {
    match stills.counts.error {
        0 => Ok(()),
        failed => Err(anyhow!("{failed} of {} stills could not be rendered", stills.data.len()).into()),
    }
}
