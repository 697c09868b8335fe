//! A stand-in for `aerender` that misbehaves on command: same arguments, lines and two processes, no After Effects.
//!
//! ```text
//! driver ─▶ launcher (this program) ─▶ application (this program with -port) ─▶ frames
//!              ▲ stdout                        │ lines over a loopback socket
//!              └───────────────────────────────┘
//! ```
//! Called as the application itself (`AfterFX -m -noui -r SCRIPT`) it runs the script that prepares projects.
//! The project file (JSON, whatever its name) says what there is to render, `scenario.json` beside it what goes
//! wrong: by a name of `scenarios.json` and a seed, or by single knobs. It can prove the driver, never After Effects.

mod afterfx;
mod application;
mod arguments;
mod film;
mod frames;
mod launcher;
mod picture;
mod project;
mod report;
mod scenario;
mod words;

use arguments::Arguments;
use std::{fs, path::Path, process::ExitCode};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // aerender has no such flag; the application has.
    if let Some(at) = words.iter().position(|w| w == "-r") {
        return prepare(words.get(at + 1).map(Path::new));
    }
    if words.iter().any(|w| w == "-version") {
        println!("{}", launcher::VERSION_LINE);
        return ExitCode::SUCCESS;
    }
    if words.iter().any(|w| w == "-help") {
        println!("aerender USAGE: aerender -project PATH [-comp NAME | -rqindex N] [-s FRAME] [-e FRAME] [-i STEP] …");
        return ExitCode::from(2);
    }
    let arguments = match Arguments::parse(&words) {
        Ok(arguments) => arguments,
        Err(problem) => {
            println!("aerender SYNTAX ERROR: {problem}");
            return ExitCode::from(3);
        }
    };
    let code = match &arguments.port {
        Some(port) => application::run(port, &arguments),
        None => launcher::run(&words, &arguments),
    };
    code.unwrap_or_else(|error| {
        println!("aerender ERROR: {error}");
        ExitCode::from(9)
    })
}

/// Runs a script. Its exit code means nothing, as in life.
fn prepare(script: Option<&Path>) -> ExitCode {
    let Some(path) = script else { return ExitCode::FAILURE };
    let scenario = match scenario::Scenario::read(&path.with_file_name("package").join("project.aep")) {
        Ok(scenario) => scenario.prepare,
        Err(_) => return ExitCode::FAILURE,
    };
    if scenario.hang == "launch" {
        afterfx::hang();
    }
    let ran = fs::read_to_string(path).map_err(|e| e.to_string()).and_then(|text| afterfx::run(&text, path, &scenario));
    if let Err(error) = &ran {
        // For whoever tries a script by hand; the driver does not read it.
        eprintln!("{error}");
    }
    if ran.is_err() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
