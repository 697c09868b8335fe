//! `flatrender demo`: what a stranger runs first. A sample film, by the public API, from start to finish.

use super::failure::CliError;
use super::film::{self, Film, Interrupt};
use super::order::{LocalOrder, OrderArgs};
use super::server::{Server, ServerArgs};
use super::{download, render};
use crate::platform::samples;
use anyhow::{Context as _, anyhow};
use clap::Args;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Where the API listens when it stays up, if nobody else does.
const USUAL: &str = "127.0.0.1:8787";

/// Renders a sample film with sample data, and shows how to look at it.
///
/// Uses the platform that runs on the data folder, or starts one and stops it afterwards.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// The sample template: promo, lower-third or story.
    #[arg(long, default_value = "promo", value_name = "SLUG")]
    template: String,
    /// Language of the sample data: en or fa.
    #[arg(long, default_value = "en", value_name = "TAG")]
    locale: String,
    /// Height of the film in pixels [default: that of 720p, in the shape of the template].
    #[arg(long, value_name = "PIXELS")]
    height: Option<u32>,
    /// Folder for the film and its contact sheet.
    #[arg(long, value_name = "DIR", default_value = "flatrender-demo")]
    out: PathBuf,
    /// Stay up afterwards, until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// Print the finished render as JSON.
    #[arg(long, conflicts_with = "keep")]
    json: bool,
    /// Data folder of the platform.
    #[arg(long, alias = "data-dir", value_name = "DIR", env = "FLATRENDER_DATA")]
    data: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// See [`CliError`].
pub async fn run(args: DemoArgs) -> Result<(), CliError> {
    let begun = Instant::now();
    let (order, _sample) = args.order()?;
    std::fs::create_dir_all(&args.out)
        .map_err(|e| CliError::Usage(format!("cannot make the folder {}: {e}", args.out.display())))?;
    let place = ServerArgs { data_dir: args.data.clone(), ..ServerArgs::default() };
    let server = place.connect_or_start(args.listen(), &[]).await?;
    let made = args.make(&server, order, begun).await;
    let kept = match (&made, args.keep) {
        (Ok(()), true) => stay(&server).await,
        _ => Ok(()),
    };
    server.stop().await;
    made.and(kept)
}

impl DemoArgs {
    fn listen(&self) -> &'static str {
        let free = self.keep && TcpListener::bind(USUAL).is_ok();
        if free { USUAL } else { "127.0.0.1:0" }
    }

    /// The sample of the chosen language, with its files in a folder that lives as long as the second value.
    fn order(&self) -> Result<(LocalOrder, TempDir), CliError> {
        let packages = samples::packages(None).map_err(anyhow::Error::from)?;
        let slugs: Vec<&str> = packages.iter().map(|p| p.manifest.slug.as_str()).collect();
        let package = packages.iter().find(|p| p.manifest.slug == self.template);
        let package = package.ok_or_else(|| {
            CliError::Usage(format!("--template: there is no sample {:?}: {}", self.template, slugs.join(", ")))
        })?;
        let samples = &package.manifest.samples;
        let sample = samples.iter().find(|s| s.locale == self.locale).ok_or_else(|| {
            let known: Vec<&str> = samples.iter().map(|s| s.locale.as_str()).collect();
            CliError::Usage(format!("--locale: there is no sample data in {:?}: {}", self.locale, known.join(", ")))
        })?;
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        package.unpack(folder.path()).map_err(anyhow::Error::from)?;
        let order = OrderArgs {
            template: self.template.clone(),
            data: Some(folder.path().join(&sample.file)),
            height: self.height.or_else(|| height_of_720p(package.manifest.width, package.manifest.height)),
            ..OrderArgs::default()
        };
        Ok((order.read()?, folder))
    }

    async fn make(&self, server: &Server, order: LocalOrder, begun: Instant) -> Result<(), CliError> {
        eprintln!("Rendering the sample {:?} ({}) …", self.template, self.locale);
        let name = format!("{}-{}", self.template, self.locale);
        let out = self.out.join(format!("{name}.mp4"));
        let film = film::make(&server.client, order, &out, self.json).await?;
        let sheet = match &film.export.contact_sheet_url {
            Some(url) => {
                let sheet = self.out.join(format!("{name}.png"));
                download::file(&server.client, url, None, &sheet).await?;
                Some(sheet)
            }
            None => None,
        };
        if self.json {
            let mut json = film.render.json;
            json["file"] = out.to_string_lossy().into();
            println!("{}", serde_json::to_string_pretty(&json).context("cannot write JSON")?);
            return Ok(());
        }
        report(&film, &out, sheet.as_deref(), server.started_in, begun.elapsed());
        Ok(())
    }
}

fn report(film: &Film, out: &Path, sheet: Option<&Path>, started: Option<Duration>, total: Duration) {
    println!();
    println!("Film           {}  ({})", full(out), render::describe(&film.render.value));
    if let Some(sheet) = sheet {
        println!("Contact sheet  {}", full(sheet));
    }
    println!("Look at it     {}", viewer(out));
    let start = started.map(|time| ("start".to_owned(), time));
    let times = start.iter().chain(&film.times);
    let times: Vec<String> = times.map(|(what, time)| format!("{what} {:.1}", time.as_secs_f64())).collect();
    println!("Seconds        {} = {:.1}", times.join(" + "), total.as_secs_f64());
}

fn full(path: &Path) -> String {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf()).display().to_string()
}

fn viewer(film: &Path) -> String {
    let program = if cfg!(target_os = "macos") { "open" } else { "ffplay -autoexit" };
    format!("{program} {}   (or open it in a browser or any player)", full(film))
}

/// Keeps the platform of this demo up until Ctrl-C, and says how to use it.
async fn stay(server: &Server) -> Result<(), CliError> {
    let url = server.client.url();
    println!();
    println!("FlatRender stays up at {url}");
    println!("  API            {url}/docs");
    println!("  all templates  curl -H 'Authorization: Bearer {}' {url}/v1/templates", server.client.key());
    println!("  your own film  flatrender render --server {url} --template promo --data my.json --out my.mp4");
    println!("                 with FLATRENDER_API_KEY={}", server.client.key());
    if server.pid().is_none() {
        println!("It was running before, and goes on running.");
        return Ok(());
    }
    println!("Ctrl-C stops it.");
    let mut interrupt = Interrupt::new()?;
    interrupt.next().await;
    eprintln!("Stopping …");
    match server.client.is_ready().await {
        true => Ok(()),
        false => Err(CliError::Here(anyhow!("the platform had already ended"))),
    }
}
/// The height at which the shorter side has 720 pixels; none when it has no more of its own.
fn height_of_720p(width: u32, height: u32) -> Option<u32> {
    let shorter = width.min(height);
    (shorter > 720).then(|| (height * 720 / shorter).next_multiple_of(2))
}
