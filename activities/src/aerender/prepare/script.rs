//! One run of the script: After Effects is started, waited for until the manifest is there, and gone afterwards.
//!
//! It has no exit code and no output that means anything. What counts is the manifest, which appears whole or not at
//! all; `prepare.started` tells that the script runs, so that a dialog at the start is told from one in the middle.

use super::{Folder, Job, Prepared, host::Host, manifest::Manifest};
use crate::aerender::{
    account, classes,
    driver::Observer,
    process::Tree,
    silence::Silence,
    timers::{Expired, Limits, Timers},
    verdict,
};
use flatrender_engine::{Failure, Progress};
use flatrender_workflows::contracts::evidence::Evidence;
use std::{io, time::Duration};
use tokio::time::{Instant, MissedTickBehavior};

/// How often the folder is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often CPU time is measured, in looks.
const MEASURE_EVERY: u32 = 5;

/// How the wait for the manifest ended without one.
enum Without {
    Exited(Option<i32>),
    Expired(Expired),
    NotRun(io::Error),
    Stopped(Failure),
}

/// Prepares the project of an attempt. Repeatable: what is prepared stays so. Dropping the future kills After Effects.
///
/// # Errors
/// What keeps the project from being rendered ([`Manifest::verdict`]); `render.launch_stalled`,
/// `render.prepare_stalled`, `render.prepare_failed` and `render.launch_failed` when the script did not come to an end.
pub async fn run(
    host: &Host,
    folder: &Folder,
    job: &Job<'_>,
    limits: Limits,
    observer: &mut impl Observer,
) -> Result<Prepared, Failure> {
    let (seal, project) = (folder.attempt.join(super::PROJECT_SEAL), folder.attempt.join(super::PREPARED_PROJECT));
    if let Some(manifest) = Manifest::read(folder, job).filter(|_| super::is_sealed(&seal, &project)) {
        return manifest.verdict(job);
    }
    job.write(folder).map_err(|e| verdict::of_transfer(&e.into(), "the working folder"))?;
    let line = host.command_line(&folder.attempt.join(super::SCRIPT), &folder.attempt, &folder.temp);
    let (mut tree, pipes) = match Tree::spawn(&line, job.job) {
        Ok(spawned) => spawned,
        Err(error) => return Err(explain(Without::NotRun(error), None)),
    };
    observer.spawned(tree.id());
    // Nothing it writes means anything, but somebody has to read it.
    let mut reading = tokio::task::JoinSet::new();
    reading.spawn(drain(pipes.stdout));
    reading.spawn(drain(pipes.stderr));
    observer.progress(Progress { done: 0, total: 0, detail: serde_json::json!({ "phase": "preparing" }) });
    let waited = wait(&mut tree, folder, job, limits, observer).await;
    if waited.is_ok() {
        // It quits by itself, or it is made to: two of it must not run at a time.
        let _ = tokio::time::timeout(limits.quit, tree.launcher_ended()).await;
    }
    // Its windows go with it. Once the script runs, a dialog may be the project's doing, and says nothing of the node.
    let unlaunched = matches!(waited, Err(Without::Expired(Expired::Launch)));
    let silence = unlaunched.then(|| Silence::of(&tree)).flatten();
    tree.kill().await;
    let prepared = waited.map_err(|without| explain(without, silence))?.verdict(job)?;
    super::seal(&seal, &project).map_err(|e| verdict::of_transfer(&e.into(), "the prepared project"))?;
    Ok(prepared)
}

async fn wait(
    tree: &mut Tree,
    folder: &Folder,
    job: &Job<'_>,
    limits: Limits,
    observer: &mut impl Observer,
) -> Result<Manifest, Without> {
    let mut timers = Timers::start(limits, Instant::now());
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut looked, mut started) = (0u32, false);
    loop {
        tokio::select! {
            biased;
            failure = observer.stop() => return Err(Without::Stopped(failure)),
            _ = looks.tick() => {}
            status = tree.launcher_ended() => {
                let code = status.map_err(Without::NotRun)?.code();
                return Manifest::read(folder, job).ok_or(Without::Exited(code));
            }
        }
        if let Some(manifest) = Manifest::read(folder, job) {
            return Ok(manifest);
        }
        let now = Instant::now();
        if !started && folder.attempt.join(super::STARTED).is_file() {
            started = true;
            timers.line(now);
        }
        looked += 1;
        if (looked.is_multiple_of(MEASURE_EVERY) || timers.expired(now).is_some())
            && let Some(used) = tree.cpu_time()
        {
            timers.cpu(now, used);
        }
        if let Some(expired) = timers.expired(now) {
            return Err(Without::Expired(expired));
        }
    }
}

/// What an end without a manifest means, with what was seen of a launch that never ended.
fn explain(without: Without, silence: Option<Silence>) -> Failure {
    let (class, exit, timer, said) = match without {
        Without::Stopped(failure) => return failure,
        Without::NotRun(error) => (classes::LAUNCH_FAILED, None, None, Some(error.to_string())),
        Without::Exited(code) => (classes::PREPARE_FAILED, code, None, None),
        Without::Expired(Expired::Launch) => {
            let class = silence.as_ref().map_or(classes::LAUNCH_STALLED, |silence| silence.class);
            (class, None, Some("prepare_launch"), silence.map(|silence| silence.seen))
        }
        Without::Expired(_) => (classes::PREPARE_STALLED, None, Some("prepare"), None),
    };
    let evidence = Evidence {
        signature: account::signature(class.code, Some("prepare"), said.as_deref()),
        exit,
        timer: timer.map(str::to_owned),
        errors: said.into_iter().collect(),
        ..Evidence::bare(class.code, class.number, class.cure)
    };
    account::of(class, class.message.to_owned(), evidence)
}

async fn drain(mut pipe: impl tokio::io::AsyncRead + Unpin) {
    // A pipe that breaks has nothing more to say.
    let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
}
