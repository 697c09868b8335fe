//! A stand-in for `aerender` that misbehaves on command: same arguments, lines and two processes, no After Effects.
//!
//! ```text
//! driver ─▶ launcher (this program) ─▶ application (this program with -port) ─▶ frames
//!              ▲ stdout                        │ lines over a loopback socket
//!              └───────────────────────────────┘
//! ```
//! The project file (JSON, whatever its name) says what there is to render, `scenario.json` beside it what goes
//! wrong: by a name of `scenarios.json` and a seed, or by single knobs. It can prove the driver, never After Effects.

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
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
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
