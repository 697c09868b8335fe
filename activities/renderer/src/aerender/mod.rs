//! After Effects' `aerender`, as a driver sees it: its flags, its order of execution, its lines, its exit codes.
//!
//! | Exit code | Meaning |
//! |---|---|
//! | 0 | every frame is written |
//! | 2 | `-help` |
//! | 3 | a mistake in the command line |
//! | 7 | no such project, composition, queue item, template or frame; no output |
//! | 9 | the render failed |
//!
//! With `-log` all lines go to that file, and 3, 7 and 9 become 4, 8 and 10. Our own failures are lines
//! `aerender ERROR: [code] message`; the codes are listed at [`RenderError`].
//!
//! Ours differs from Adobe's in this: nothing is ever written without `-output`; a frame outside the
//! composition is an error and no blank picture; a missing font, picture or character is an error; the
//! templates are "Best Settings", "Draft Settings" and "PNG Sequence"; the render queue holds main, then the
//! film's scenes; `-mp`, `-teamproject`, `-renderSettings` and `-outputSettings` are illegal flags.

mod args;
mod output;
mod report;

use std::{io::Write, num::NonZero, sync::Arc, thread, time::Instant};

use crate::{Composition, Frame, PngFolder, Project, Quality, RenderError, RenderPlan, render};
use args::{Command, Options};
use output::Output;
use report::{Head, Report};

const DEFAULT_RENDER_SETTINGS: &str = "Best Settings";
const DRAFT_RENDER_SETTINGS: &str = "Draft Settings";
const OUTPUT_MODULE: &str = "PNG Sequence";

const USAGE: &str = "\
aerender USAGE: flatrender-aerender -project PACKAGE (-comp NAME | -rqindex N) -output NAME_[#####].png
  -project PATH       a template package: folder, zip, or its project.json
  -comp NAME          the composition to render: main, scene:ID, …
  -rqindex N          or an item of the queue: 1 is main, 2 and up are the film's scenes
  -output NAME        where frames go; [#####] is the frame's number in its composition
  -s N, -e N          first and last frame, from 0, both included
  -i N                every Nth frame, 1 to 100
  -RStemplate NAME    \"Best Settings\" or \"Draft Settings\"
  -OMtemplate NAME    \"PNG Sequence\"
  -mfr ON|OFF CPU     draw on this share of the cores, in percent; OFF draws on one
  -continueOnMissingFootage   leave missing pictures out, with a warning
  -v ERRORS|ERRORS_AND_PROGRESS, -log FILE, -help, -version
  -close …, -sound ON|OFF, -mem_usage CACHE MAX, -reuse   are accepted and change nothing";

/// Why a run ends without all its frames.
enum Stop {
    Syntax(String),
    Render(RenderError),
}

impl From<RenderError> for Stop {
    fn from(error: RenderError) -> Self {
        Self::Render(error)
    }
}

/// Runs the program with `arguments` (without its own name); answers the exit code.
pub fn run(arguments: &[String], out: impl Write + 'static) -> u8 {
    let mut report = Report::to(out);
    let version = format!("aerender version {} (FlatRender)", env!("CARGO_PKG_VERSION"));
    let options = match args::parse(arguments) {
        Ok(Command::Help) => {
            report.line(USAGE);
            return 2;
        }
        Ok(Command::Version) => {
            report.line(&version);
            return 0;
        }
        Ok(Command::Render(options)) => options,
        Err(error) => {
            report.line(&format!("aerender SYNTAX ERROR: {error}"));
            return 3;
        }
    };
    report.line(&version);
    let with_log = u8::from(options.log.is_some());
    match run_options(&options, &mut report) {
        Ok(()) => 0,
        Err(Stop::Syntax(message)) => {
            report.line(&format!("aerender SYNTAX ERROR: {message}"));
            3 + with_log
        }
        Err(Stop::Render(error)) => {
            report.error(&error);
            exit_code(&error) + with_log
        }
    }
}

fn exit_code(error: &RenderError) -> u8 {
    match error {
        RenderError::ProjectNotFound { .. }
        | RenderError::CompositionNotFound(_)
        | RenderError::TemplateNotFound(_)
        | RenderError::NoOutput(_)
        | RenderError::FrameOutOfRange(_) => 7,
        _ => 9,
    }
}

/// The order of the steps is aerender's: what is wrong first is what is reported.
fn run_options(options: &Options, report: &mut Report) -> Result<(), Stop> {
    let begun = Instant::now();
    if let Some(log) = &options.log {
        report.divert(log).map_err(|error| Stop::Syntax(format!("cannot open log file {}: {error}", log.display())))?;
    }
    report.show_progress(options.progress);
    let project = open(options)?;
    let name = resolve(options, &project, report)?;
    let quality = templates(options)?;
    let output = options.output.as_deref().map(Output::parse).ok_or_else(|| {
        RenderError::NoOutput("Specified render queue item needs output file but none provided.".into())
    })?;
    output.check_folder()?;
    let composition = project.composition(&name, options.missing_images)?;
    for warning in composition.warnings() {
        report.warning(warning);
    }
    let plan = plan(options, &composition)?.on_threads(threads(options.cpu_percent)).with_quality(quality);
    report.head(&Head {
        composition: &composition,
        plan: &plan,
        render_settings: options.rs_template.as_deref().unwrap_or(DEFAULT_RENDER_SETTINGS),
        output_module: OUTPUT_MODULE,
        output: &output.shown(),
    });
    draw(&composition, &plan, &output, report).inspect_err(|_| report.line("INFO: Render aborted."))?;
    report.finished(composition.name(), begun.elapsed());
    Ok(())
}

fn open(options: &Options) -> Result<Project, RenderError> {
    match &options.project {
        Some(path) => Project::open(path),
        None => Err(RenderError::ProjectNotFound {
            message: "No project provided and no project open.".into(),
            source: None,
        }),
    }
}

/// The name of the composition asked for. `-comp` wins over `-rqindex`.
fn resolve(options: &Options, project: &Project, report: &mut Report) -> Result<String, RenderError> {
    if let Some(name) = &options.comp {
        if !project.compositions().contains(&name.as_str()) {
            // Baking it is what finds out what was meant.
            project.composition(name, options.missing_images)?;
        }
        report.note("Adding specified comp to Render Queue");
        return Ok(name.clone());
    }
    if let Some(index) = &options.rqindex {
        let item = index.parse::<usize>().ok().and_then(|index| index.checked_sub(1));
        let name = item.and_then(|item| project.queue().into_iter().nth(item));
        return name.ok_or_else(|| {
            RenderError::CompositionNotFound("No render queue item was found with the given index.".into())
        });
    }
    for flag in ignored(options) {
        report.warning(&format!(" {flag} argument ignored since no -comp  or -rqindex provided."));
    }
    Err(RenderError::NoOutput("No queued render item has an output; give -comp or -rqindex, and -output.".into()))
}

/// What means nothing without a composition.
fn ignored(options: &Options) -> impl Iterator<Item = &'static str> {
    let given = [
        ("-RStemplate", options.rs_template.is_some()),
        ("-OMtemplate", options.om_template.is_some()),
        ("-output", options.output.is_some()),
        ("-s and/or -e", options.start.is_some() || options.end.is_some()),
        ("-i", options.increment.is_some()),
    ];
    given.into_iter().filter(|(_, given)| *given).map(|(flag, _)| flag)
}

fn templates(options: &Options) -> Result<Quality, RenderError> {
    let unknown =
        |kind: &str| RenderError::TemplateNotFound(format!("No {kind} template was found with the given name."));
    let quality = match options.rs_template.as_deref() {
        None | Some(DEFAULT_RENDER_SETTINGS) => Quality::Best,
        Some(DRAFT_RENDER_SETTINGS) => Quality::Draft,
        Some(_) => return Err(unknown("render settings")),
    };
    match options.om_template.as_deref() {
        None | Some(OUTPUT_MODULE) => Ok(quality),
        Some(_) => Err(unknown("output module")),
    }
}

fn plan(options: &Options, composition: &Composition) -> Result<RenderPlan, RenderError> {
    let last = i64::from(composition.frames()) - 1;
    let (start, end) = (options.start.unwrap_or(0), options.end.unwrap_or(last));
    // A negative or huge number becomes one that no composition has.
    let frame = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
    let increment = options.increment.unwrap_or(1);
    if start < 0 || end < 0 || !(1..=100).contains(&increment) {
        let message = format!("-s {start} -e {end} -i {increment}: frames count from 0, and -i is 1 to 100");
        return Err(RenderError::FrameOutOfRange(message));
    }
    RenderPlan::new(composition, frame(start), frame(end), frame(increment))
}

fn threads(cpu_percent: Option<f64>) -> usize {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    cpu_percent.map_or(1, |percent| threads_of(cores, percent))
}

fn threads_of(cores: usize, percent: f64) -> usize {
    ((cores as f64 * percent.min(100.0) / 100.0).ceil() as usize).max(1)
}

fn draw(composition: &Composition, plan: &RenderPlan, output: &Output, report: &mut Report) -> Result<(), RenderError> {
    let output = output.clone();
    let name = Arc::new(move |number| output.path(number));
    let sink = || {
        let mut folder = PngFolder::new(name.clone());
        move |frame: &Frame<'_>| folder.write(frame)
    };
    let rate = composition.frame_rate();
    render(composition, plan, sink, |done| report.frame(done, rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_cores_is_rounded_up() {
        let threads: Vec<usize> = [1.0, 25.0, 50.0, 51.0, 100.0, 900.0].map(|p| threads_of(4, p)).into();
        assert_eq!(threads, [1, 1, 2, 3, 4, 4]);
        assert_eq!(threads_of(1, 1.0), 1);
    }
}
