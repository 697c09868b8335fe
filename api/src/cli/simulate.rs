//! `flatrender simulate`: the scheduling of production on a farm that does not exist, policies side by side.

mod flags;
mod table;

use super::failure::CliError;
use clap::Args;
use flags::WorkloadArgs;
use flatrender_dispatch::simulate::{self, COLUMNS, Job, Outcome, Parameters, Variant};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::IsTerminal as _,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Compares scheduling policies on a simulated farm, with the code that schedules the real one.
///
/// Each seed is a day of invented work, the same for every policy; numbers are means over the seeds and their 95 % confidence
/// intervals. No trace of an After Effects farm is public, so the workload is a guess: set what you know of yours, or replay it with
/// --csv. `--check` holds the simulator against queueing theory instead.
#[derive(Debug, Clone, Args)]
pub struct SimulateArgs {
    /// Runs of each policy, each with other chance.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(2..=10_000))]
    seeds: u64,
    /// Replay work out of a CSV file with the columns arrival_s,tenant,class,template,frames,s_per_frame,bytes.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Print a table for Markdown.
    #[arg(long)]
    markdown: bool,
    /// Print JSON.
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Compare the simulator with what mathematics says; ends with exit code 1 when it is off.
    #[arg(long)]
    check: bool,
    /// Customers of each queue of --check.
    #[arg(long, default_value_t = 1_000_000, hide = true)]
    customers: usize,
    #[command(flatten)]
    workload: WorkloadArgs,
}

/// Runs the command.
///
/// # Errors
/// A file that cannot be read, or a check that fails.
pub async fn run(args: SimulateArgs) -> Result<(), CliError> {
    // It is work for processors alone.
    let done = tokio::task::spawn_blocking(move || if args.check { check(args.customers) } else { compare(&args) });
    done.await.map_err(|error| CliError::Here(error.into()))?
}

fn check(customers: usize) -> Result<(), CliError> {
    let checks = simulate::check(customers, |check| {
        let verdict = if check.holds() { "ok" } else { "OFF" };
        println!("{verdict:<4} {:<62} {:>14.5} {:>14.5}", check.name, check.expected, check.found);
    });
    match checks.iter().filter(|check| !check.holds()).count() {
        0 => Ok(()),
        off => Err(CliError::Unhealthy(format!("{off} of {} checks are off", checks.len()))),
    }
}

fn compare(args: &SimulateArgs) -> Result<(), CliError> {
    let mut parameters = args.workload.parameters();
    let replayed = match &args.csv {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| CliError::unreadable("--csv", path, e))?;
            let jobs = simulate::replay(&text).map_err(|e| CliError::unreadable("--csv", path, e))?;
            let last = jobs.last().ok_or_else(|| CliError::Usage(format!("--csv: no work; columns are {COLUMNS}")))?;
            parameters.hours = (last.at / 3600.0).max(0.1);
            Some(jobs)
        }
    };
    if let Some(why) = parameters.impossible() {
        return Err(CliError::Usage(why.to_owned()));
    }
    let variants = simulate::variants(&parameters);
    let outcomes = outcomes(&parameters, replayed.as_deref(), &variants, args.seeds);
    let table = table::Table::new(&variants, &outcomes);
    match (args.json, args.markdown) {
        (true, _) => println!("{:#}", table.json(&parameters)),
        (_, true) => print!("{}", table.markdown()),
        _ => print!("{}", table.plain()),
    }
    Ok(())
}

/// Every policy with every seed: by policy, then by seed.
fn outcomes(parameters: &Parameters, replayed: Option<&[Job]>, variants: &[Variant], seeds: u64) -> Vec<Vec<Outcome>> {
    let bar = bar(seeds * variants.len() as u64);
    let next = AtomicUsize::new(0);
    let done = Mutex::new(vec![Vec::with_capacity(variants.len()); seeds as usize]);
    let work = || {
        while let Ok(seed) = u64::try_from(next.fetch_add(1, Ordering::Relaxed)) {
            if seed >= seeds {
                return;
            }
            let invented = replayed.is_none().then(|| simulate::invent(parameters, seed));
            let jobs = replayed.or(invented.as_deref()).unwrap_or_default();
            for variant in variants {
                bar.set_message(variant.name);
                let outcome = simulate::run(parameters, jobs, variant, seed);
                done.lock().unwrap_or_else(PoisonError::into_inner)[seed as usize].push(outcome);
                bar.inc(1);
            }
        }
    };
    std::thread::scope(|scope| {
        let helpers = std::thread::available_parallelism().map_or(1, usize::from);
        (0..helpers).for_each(|_| drop(scope.spawn(work)));
    });
    bar.finish_and_clear();
    let by_seed = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    (0..variants.len()).map(|v| by_seed.iter().map(|of| of[v].clone()).collect()).collect()
}

fn bar(length: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner:.cyan} {bar:32.cyan/240} {pos:>4} of {len}  {msg}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─");
    ProgressBar::new(length).with_style(style)
}
