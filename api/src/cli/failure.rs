//! How a command ends when it does not succeed: one line and an exit code.

use super::answers::Problem;
use serde_json::{Value, json};
use std::path::Path;

/// Listed in `flatrender --help`: scripts may rely on these numbers.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    something here failed: a program is missing, a disk is full, a check of `doctor` failed
  2    wrong arguments, or an input file that cannot be read
  3    no server can be reached
  4    the server refused the request; the line ends with its code
  5    the render failed; the line ends with its code
  130  stopped by Ctrl-C, and the render was cancelled on the server";

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The arguments or files make no sense.
    #[error("{0}")]
    Usage(String),
    /// No server, or none any more.
    #[error("{0}")]
    NoServer(String),
    /// The server said no, about `about`.
    #[error("{}{problem}", prefix(about.as_deref()))]
    Refused {
        /// The file or thing it was about.
        about: Option<String>,
        /// What it said.
        problem: Box<Problem>,
    },
    /// The render ended without a film.
    #[error("the render failed: {message} ({code})")]
    RenderFailed {
        /// Stable code.
        code: String,
        /// For people.
        message: String,
    },
    /// Stopped by the person at the keyboard.
    #[error("{0}")]
    Cancelled(String),
    /// A check failed; everything has been said already.
    #[error("{0}")]
    Unhealthy(String),
    /// Anything else that went wrong here.
    #[error("{}", chain(.0))]
    Here(#[from] anyhow::Error),
}

impl CliError {
    /// The exit code: see [`EXIT_CODES`].
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Here(_) | Self::Unhealthy(_) => 1,
            Self::Usage(_) => 2,
            Self::NoServer(_) => 3,
            Self::Refused { .. } => 4,
            Self::RenderFailed { .. } => 5,
            Self::Cancelled(_) => 130,
        }
    }

    /// An input file that cannot be read.
    pub fn unreadable(what: &str, path: &Path, error: impl std::fmt::Display) -> Self {
        Self::Usage(format!("{what}: cannot read {}: {error}", path.display()))
    }

    /// The same failure, said to be about `thing`.
    #[must_use]
    pub fn about(self, thing: impl Into<String>) -> Self {
        match self {
            Self::Refused { problem, .. } => Self::Refused { about: Some(thing.into()), problem },
            other => other,
        }
    }

    /// The same for programs: a problem (RFC 9457), with the server's own words when it was the server that refused.
    pub fn json(&self) -> Value {
        let (code, title) = match self {
            Self::Refused { about, problem } => {
                let mut json = problem.json();
                if let Some(thing) = about {
                    json["about"] = thing.as_str().into();
                }
                return json;
            }
            Self::RenderFailed { code, .. } => (code.as_str(), "The render failed"),
            Self::Usage(_) => ("cli.usage", "Wrong arguments"),
            Self::NoServer(_) => ("cli.no_server", "No server"),
            Self::Cancelled(_) => ("cli.cancelled", "Cancelled"),
            Self::Unhealthy(_) => ("cli.unhealthy", "A check failed"),
            Self::Here(_) => ("cli.failed", "Something here failed"),
        };
        json!({ "type": "about:blank", "title": title, "code": code, "detail": self.line() })
    }

    /// The one line for standard error.
    pub fn line(&self) -> String {
        self.to_string().lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

/// An error and its causes, each said once: many repeat their cause in their own words.
fn chain(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |said, cause| {
        let cause = cause.to_string();
        match said.as_str() {
            "" => cause,
            _ if said.contains(&cause) => said,
            _ => format!("{said}: {cause}"),
        }
    })
}

fn prefix(about: Option<&str>) -> String {
    about.map(|thing| format!("{thing}: ")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let error = anyhow::anyhow!("refused").context("no database: refused").context("cannot migrate");
        assert_eq!(CliError::Here(error).line(), "cannot migrate: no database: refused");
    }

    #[test]
    fn programs_are_told_what_a_refusal_is_about() {
        let problem = Problem::read(422, br#"{"title": "Empty", "code": "file.empty", "detail": "nothing in it"}"#);
        let refused = CliError::Refused { about: None, problem: Box::new(problem) }.about("logo.png");
        let told = refused.json();
        assert_eq!(
            (&told["code"], &told["about"], &told["status"]),
            (&json!("file.empty"), &json!("logo.png"), &json!(422))
        );
    }

    #[test]
    fn every_line_is_one_line() {
        assert_eq!(CliError::Usage("a\n  b\n\nc".into()).line(), "a b c");
    }
}
