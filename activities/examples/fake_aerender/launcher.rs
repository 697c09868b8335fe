//! The launcher: starts the application, repeats its lines, ends with its code or with what the scenario wants.

use super::{arguments::Arguments, scenario::Scenario};
use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    process::{Child, Command, ExitCode},
};

/// The application's way of saying that it is done, never shown.
pub const DONE: &str = "\u{1}done ";

pub fn run(words: &[String], arguments: &Arguments) -> Result<ExitCode, String> {
    let scenario = Scenario::read(&arguments.project)?;
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    let mut application = start(words, &address.to_string(), scenario.escape)?;
    say("aerender version 0.0.0x0 (FlatRender stand-in)");
    let (socket, _) = listener.accept().map_err(|e| e.to_string())?;
    let done = repeat_lines(BufReader::new(socket));
    let code = match done {
        Some(code) => {
            if !scenario.zombie {
                application.wait().map_err(|e| e.to_string())?;
            }
            code
        }
        None => {
            say("aerender ERROR An existing connection was forcibly closed by the remote host.");
            say(": Unable to receive at line 463");
            10
        }
    };
    Ok(ExitCode::from(scenario.exit.unwrap_or(code)))
}

fn start(words: &[String], address: &str, escape: bool) -> Result<Child, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut command = Command::new(program);
    command.args(words).args(["-port", address]);
    #[cfg(unix)]
    if escape {
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
    }
    let _ = escape;
    command.spawn().map_err(|e| e.to_string())
}

/// The application's exit code; none when it was cut off.
fn repeat_lines(lines: impl BufRead) -> Option<u8> {
    for line in lines.lines() {
        let line = line.ok()?;
        match line.strip_prefix(DONE) {
            Some(code) => return code.parse().ok(),
            None => say(&line),
        }
    }
    None
}

fn say(line: &str) {
    println!("{line}");
    // A driver that has gone away hears nothing; the launcher does not notice, as in life.
    let _ = std::io::stdout().flush();
}
