//! A stand-in for `aerender` that misbehaves on command: same arguments, lines and two processes, no After Effects.
//!
//! ```text
//! driver ─▶ launcher (this program) ─▶ application (this program with -port) ─▶ frames
//!              ▲ stdout                        │ lines over a loopback socket
//!              └───────────────────────────────┘
//! ```
//! The project file `project.json` says what there is to render, `scenario.json` beside it what goes wrong.
//! It can prove the driver, never After Effects.

mod application;
mod arguments;
mod launcher;
mod picture;
mod scenario;

use arguments::Arguments;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|w| w == "-version") {
        println!("aerender version 0.0.0x0 (FlatRender stand-in)");
        return ExitCode::SUCCESS;
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
