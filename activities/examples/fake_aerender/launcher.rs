//! The launcher: starts the application, repeats its lines, ends with its code or with what the scenario wants.

use super::{arguments::Arguments, scenario::Scenario};
use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::Path,
    process::{Child, Command, ExitCode},
};

/// What the program says of itself when it is asked.
pub const VERSION_LINE: &str = "aerender version 0.0.0x0 (FlatRender stand-in)";
/// The same within a run, in the form of the real one.
const VERSION: &str = "aerender version 0.0.0x0";
/// The application's way of saying that it is done, never shown.
pub const DONE: &str = "\u{1}done ";
/// The line that noise tears apart.
const TORN: [&str; 3] = ["aerender version Using DXGI adapter 0", "Qt: high DPI is on", "0.0x0"];

pub fn run(words: &[String], arguments: &Arguments) -> Result<ExitCode, String> {
    let scenario = Scenario::read(arguments.project.as_deref().unwrap_or(Path::new("")))?;
    if !scenario.launcher_refuses.is_empty() {
        scenario.launcher_refuses.iter().for_each(|line| say(line.as_bytes()));
        return Ok(ExitCode::from(scenario.exit.unwrap_or(1)));
    }
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    let mut application = start(words, &address.to_string(), scenario.escape)?;
    if !scenario.launcher_last {
        introduce(&scenario);
    }
    let (socket, _) = listener.accept().map_err(|e| e.to_string())?;
    let done = repeat_lines(BufReader::new(socket), &scenario);
    let code = match done {
        Ended::Done(code) => {
            if !scenario.zombie {
                application.wait().map_err(|e| e.to_string())?;
            }
            code
        }
        Ended::Left => 0,
        Ended::CutOff => {
            say(b"aerender ERROR An existing connection was forcibly closed by the remote host.");
            say(b": Unable to receive at line 463");
            10
        }
    };
    if scenario.launcher_last {
        introduce(&scenario);
    }
    Ok(ExitCode::from(scenario.exit.unwrap_or(code)))
}

fn introduce(scenario: &Scenario) {
    let whole = [VERSION];
    let lines: &[&str] = if scenario.torn_version { &TORN } else { &whole };
    lines.iter().for_each(|line| say(line.as_bytes()));
    say(b"PROGRESS: Launching After Effects...");
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

/// How listening to the application ended.
enum Ended {
    /// It said that it is done, with this code.
    Done(u8),
    /// The launcher does not wait for the end.
    Left,
    /// It was cut off.
    CutOff,
}

fn repeat_lines(mut lines: impl BufRead, scenario: &Scenario) -> Ended {
    let mut line = Vec::new();
    let mut said = 0;
    while let Ok(1..) = lines.read_until(b'\n', &mut line) {
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        if let Some(code) = text.strip_prefix(DONE.as_bytes()) {
            return str::from_utf8(code).ok().and_then(|c| c.parse().ok()).map_or(Ended::CutOff, Ended::Done);
        }
        match scenario.split_reads {
            true => say_in_pieces(text, scenario.seed as usize),
            false => say(text),
        }
        said += 1;
        // The report's first lines, then it has seen enough.
        if scenario.early_exit && said > 3 {
            return Ended::Left;
        }
        line.clear();
    }
    Ended::CutOff
}

fn say(line: &[u8]) {
    write(&[line, b"\n"].concat());
}

fn say_in_pieces(line: &[u8], seed: usize) {
    [line, b"\n"].concat().chunks(1 + seed % 7).for_each(write);
}

fn write(bytes: &[u8]) {
    let mut stdout = std::io::stdout();
    // A driver that has gone away hears nothing; the launcher does not notice, as in life.
    let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
}
