//! `/v1/operate`: runs of workflows, for whoever looks after them. Whoever runs the platform reaches every tenant's; whoever manages
//! a tenant reaches its own.

pub mod act;
pub mod audit;
pub mod bulk;
pub mod cli_line;
pub mod events;
pub mod failures;
mod farm;
pub mod frames;
mod kinds;
pub mod now;
mod party;
pub mod queues;
mod redact;
pub mod run;
pub mod runs;
pub mod steps;
pub mod versions;

pub use party::{Party, Rank};

use crate::{
    app::App,
    problem::{Code, Problem},
    render::again,
};
use axum::http::header;
use flatrender_engine::{
    Failure,
    operations::{OperationError, Operations},
};

/// Longest reason, in characters.
const REASON: usize = 500;

fn operations(app: &App) -> Operations {
    Operations::new(app.workflows.clone()).anew(Some(again::films(app.limits)))
}

/// A reason that somebody gave, where one is needed or not.
fn reason(given: Option<&str>, needed: bool) -> Result<Option<String>, Problem> {
    let given = given.map(str::trim).filter(|reason| !reason.is_empty());
    match given {
        Some(reason) if reason.chars().count() <= REASON && !reason.contains(char::is_control) => {
            Ok(Some(reason.to_owned()))
        }
        None if !needed => Ok(None),
        _ => Err(Problem::fault(
            "/reason",
            "operate.reason",
            "say why, in 1 to 500 characters without control characters",
        )),
    }
}

impl From<OperationError> for Problem {
    fn from(error: OperationError) -> Self {
        match error {
            OperationError::NotFound(what) => Self::new(Code::RunNotFound, format!("there is no {what}")),
            OperationError::Moved(_) => Self::new(Code::RunMoved, error.to_string()),
            OperationError::Conflict(_) => Self::new(Code::RunConflict, error.to_string()),
            OperationError::NoSuchStep(_) => Self::fault("/from_step", "operate.step", error.to_string()),
            OperationError::Refused(Failure { code, message, retry_after_seconds, .. }) => {
                let known = Code::ALL.iter().find(|known| known.as_str() == code);
                let problem = Self::new(known.copied().unwrap_or(Code::RunNoCopies), message);
                match retry_after_seconds {
                    Some(seconds) => problem.with_header(header::RETRY_AFTER, (seconds.ceil() as u64).into()),
                    None => problem,
                }
            }
            OperationError::Bad(why) => Self::fault("", "operate.bad", why),
            OperationError::Engine(flatrender_engine::client::Error::Unrecordable(failure)) => {
                Self::fault("", "operate.bad", failure.message)
            }
            OperationError::Engine(error) => error.into(),
        }
    }
}
