//! `flatrender-aerender`: renders compositions of template packages with `aerender`'s command line.

use std::process::ExitCode;

use flatrender_renderer::aerender;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    ExitCode::from(aerender::run(&arguments, std::io::stdout()))
}
