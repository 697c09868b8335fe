//! `POST /v1/operate/runs/{id}/actions`: what people do with one run.

use super::{Party, Rank, cli_line, kinds, operations, reason, redact, run};
use crate::{
    app::App,
    extract::{Json, Path},
    problem::{Code, Problem, ProblemBody},
};
use axum::extract::State;
use flatrender_engine::{
    Delivery,
    client::Run,
    operations::{Fork, Operations},
};
use flatrender_workflows::models::scope::Scoped;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

/// What to do with a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunAct {
    /// Tries one that failed or was cancelled again, as a new run, from the step that failed or from `from_step`. A film that failed is
    /// ordered again as it was, in the name of who ordered it.
    Retry,
    /// Asks it to stop. Needs a reason.
    Cancel,
    /// Ends the pause of a step after a failure, so that it is tried now: that of `task_id`, or of all that pause.
    RetryNow,
    /// Changes its priority to `priority`.
    SetPriority,
    /// Lets one that is parked go on.
    Resume,
    /// Takes the task `task_id` away from its holder, for another. Needs a reason.
    Release,
    /// Makes a run out of it, whatever became of it, from `from_step`, with `input` if given. Needs a reason.
    Fork,
    /// Sends the signal `signal` with `payload`. Needs a reason.
    Signal,
}

/// Something to be done with a run.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunAction {
    /// What.
    action: RunAct,
    /// Why, in 1 to 500 characters.
    #[schema(example = "the font is installed now", pattern = r"^\s*[^\u0000-\u001f\u007f-\u009f]*\s*$")]
    reason: Option<String>,
    /// For `retry` and `fork`: the step to begin with; everything before it is kept.
    from_step: Option<String>,
    /// For `fork`: another input. What is hidden in the run as it is shown, and left as it is shown, stays what it is.
    #[schema(value_type = Value, required = false)]
    input: Option<Value>,
    /// For `set_priority`: the new one; higher goes first.
    priority: Option<i16>,
    /// For `retry_now` and `release`: the task, by its number.
    #[schema(example = json!(null))]
    task: Option<String>,
    /// For `signal`: its name.
    signal: Option<String>,
    /// For `signal`: what comes with it.
    #[schema(value_type = Value, required = false)]
    payload: Option<Value>,
    /// For `signal`: the same key twice is one signal.
    dedupe_key: Option<String>,
}

/// What was done with a run.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunActed {
    /// Always `run_action`.
    #[schema(example = "run_action")]
    object: &'static str,
    /// The run.
    run_id: Uuid,
    /// What was done.
    action: RunAct,
    /// The run that was made, if one was.
    new_run_id: Option<Uuid>,
    /// So many records it has from its origin.
    copied: Option<i64>,
    /// What became of a signal.
    #[schema(value_type = Option<String>, example = json!(null))]
    delivery: Option<Delivery>,
    /// The same on the command line.
    #[schema(example = "flatrender runs cancel 0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e11 --reason 'ordered twice'")]
    cli: String,
}

/// `POST /v1/operate/runs/{id}/actions`
#[utoipa::path(
    post, path = "/v1/operate/runs/{id}/actions", tag = "Runs", operation_id = "act_on_run", summary = "Do something with a run",
    description = "`retry` and `cancel` are for whoever manages the tenant; `retry_now`, `set_priority`, `resume` and `release` for whoever \
                   runs the platform; `fork` and `signal`, which say what a run is to believe, for whoever administers it. Each is written \
                   down in the transaction in which it is done.",
    params(("id" = Uuid, Path, description = "The run")),
    request_body(content = RunAction, example = json!({"action": "cancel", "reason": "ordered twice"})),
    responses(
        (status = 200, description = "It was done", body = RunActed),
        (status = 402, description = "`credits.insufficient`: of a film that is ordered again", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "`auth.forbidden`; of a film that is ordered again `plan.limit`, `tenant.suspended`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`run.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`run.moved`, `run.conflict`, `run.no_copies`; of a film that is ordered again `quota.storage`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "`quota.renders_per_day`, `quota.concurrent_renders`: of a film that is ordered again; `Retry-After` says when to try again", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn act(
    State(app): State<App>,
    party: Party,
    Path(id): Path<Uuid>,
    Json(wanted): Json<RunAction>,
) -> Result<Json<RunActed>, Problem> {
    party.may(wanted.action.takes())?;
    let because = reason(wanted.reason.as_deref(), wanted.action.needs_reason())?;
    let run = run::found(&app, &party, id).await?;
    let refuses = match wanted.action {
        RunAct::Retry => kinds::refuses_retry(&run.kind),
        RunAct::Fork => kinds::refuses_copies(&run.kind),
        RunAct::Cancel => kinds::refuses_cancel(&run.kind),
        _ => None,
    };
    if let Some(why) = refuses {
        return Err(Problem::new(Code::RunNoCopies, why));
    }
    if wanted.action == RunAct::Signal && kinds::of_money(&run.kind) {
        return Err(Problem::new(Code::RunNoCopies, "what moves money hears from those who pay, and from two people"));
    }
    let cli = wanted.cli(id, because.as_deref());
    let mut tx = party.begin(&app).await?;
    let done = wanted.take(&operations(&app), &mut tx, &party, &run, because.clone()).await?;
    let name = format!("run.{}", wanted.action.name());
    let after = json!({ "new_run_id": done.new_run_id, "priority": wanted.priority, "signal": wanted.signal });
    let deed = (name.as_str(), &*format!("run:{id}"));
    party.note(&mut tx, Some(run.tenant_id), deed, because.as_deref(), after).await?;
    tx.commit().await?;
    app.workflows.announce();
    Ok(Json(RunActed {
        object: "run_action",
        run_id: id,
        action: wanted.action,
        new_run_id: done.new_run_id,
        copied: done.copied,
        delivery: done.delivery,
        cli,
    }))
}

/// What came of an action.
#[derive(Default)]
struct Done {
    new_run_id: Option<Uuid>,
    copied: Option<i64>,
    delivery: Option<Delivery>,
}

impl RunAct {
    /// As the API, the audit and the command line name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Cancel => "cancel",
            Self::RetryNow => "retry_now",
            Self::SetPriority => "set_priority",
            Self::Resume => "resume",
            Self::Release => "release",
            Self::Fork => "fork",
            Self::Signal => "signal",
        }
    }

    fn takes(self) -> Rank {
        match self {
            Self::Retry | Self::Cancel => Rank::Keeper,
            Self::RetryNow | Self::SetPriority | Self::Resume | Self::Release => Rank::Operator,
            Self::Fork | Self::Signal => Rank::Admin,
        }
    }

    fn needs_reason(self) -> bool {
        matches!(self, Self::Cancel | Self::Release | Self::Fork | Self::Signal)
    }
}

impl RunAction {
    async fn take(
        &self,
        operations: &Operations,
        tx: &mut Scoped,
        party: &Party,
        run: &Run,
        because: Option<String>,
    ) -> Result<Done, Problem> {
        let (by, id) = (party.by(because), run.id);
        let mut done = Done::default();
        match self.action {
            RunAct::Retry | RunAct::Fork => {
                let mut changes = match &self.from_step {
                    Some(key) => Fork::from_step(key),
                    None => Fork::from_failure(),
                };
                if let Some(input) = &self.input {
                    if self.action == RunAct::Retry {
                        return Err(Problem::fault("/input", "operate.bad", "only a fork takes another input"));
                    }
                    let input = redact::meant(input.clone(), &run.input).map_err(|at| {
                        let why = "what is hidden stays where it is, or is written out";
                        Problem::fault(format!("/input{at}"), "operate.hidden", why)
                    })?;
                    changes = kinds::with_input(changes, &run.kind, input)?;
                }
                let made = match self.action {
                    RunAct::Retry => operations.retry(tx, &by, id, &changes).await?,
                    _ => operations.fork(tx, &by, id, &changes).await?,
                };
                (done.new_run_id, done.copied) = (Some(made.run_id), Some(made.copied));
            }
            RunAct::Cancel => operations.cancel(tx, &by, id).await?,
            RunAct::SetPriority => {
                let missing = || Problem::fault("/priority", "field.missing", "say which priority");
                operations.set_priority(tx, &by, id, self.priority.ok_or_else(missing)?).await?;
            }
            RunAct::Resume => operations.resume(tx, &by, id).await?,
            RunAct::RetryNow => {
                let paused = |t: &flatrender_engine::client::Task| !t.key.is_empty() && t.state == "waiting";
                let tasks = operations.tasks(id).await?;
                let wanted: Vec<i64> = match self.task_id()? {
                    Some(task) => tasks.iter().filter(|t| t.id == task).map(|t| t.id).collect(),
                    None => tasks.iter().filter(|t| paused(t)).map(|t| t.id).collect(),
                };
                if wanted.is_empty() {
                    return Err(Problem::new(Code::RunMoved, "nothing of the run waits for its next attempt"));
                }
                for task in wanted {
                    operations.retry_now(tx, &by, task).await?;
                }
            }
            RunAct::Release => {
                let missing = || Problem::fault("/task", "field.missing", "say which task");
                let task = self.task_id()?.ok_or_else(missing)?;
                if !operations.tasks(id).await?.iter().any(|t| t.id == task) {
                    return Err(Problem::new(Code::RunMoved, "the run has no such task any more"));
                }
                operations.force_release(tx, &by, task).await?;
            }
            RunAct::Signal => {
                let missing = || Problem::fault("/signal", "field.missing", "say which signal");
                let name = self.signal.as_deref().ok_or_else(missing)?;
                let payload = self.payload.clone().unwrap_or_default();
                let signal = (name, self.dedupe_key.as_deref());
                done.delivery = Some(operations.signal(tx, &by, id, signal, &payload).await?);
            }
        }
        Ok(done)
    }

    fn task_id(&self) -> Result<Option<i64>, Problem> {
        let none = || Problem::fault("/task", "operate.task", "a task is a number");
        self.task.as_deref().map(|text| text.parse().map_err(|_| none())).transpose()
    }

    /// The same on the command line.
    fn cli(&self, id: Uuid, because: Option<&str>) -> String {
        let (id, deed) = (id.to_string(), self.action.name().replace('_', "-"));
        let texts = [
            ("--priority", self.priority.map(|p| p.to_string())),
            ("--task", self.task.clone()),
            ("--from-step", self.from_step.clone()),
            ("--input", self.input.as_ref().map(Value::to_string)),
            ("--signal", self.signal.clone()),
            ("--payload", self.payload.as_ref().map(Value::to_string)),
            ("--dedupe-key", self.dedupe_key.clone()),
            ("--reason", because.map(str::to_owned)),
        ];
        let given = texts.into_iter().filter_map(|(name, text)| Some(cli_line::flag(name, &text?)));
        let given: Vec<String> = given.flatten().collect();
        cli_line::line(["runs", deed.as_str(), id.as_str()].into_iter().chain(given.iter().map(String::as_str)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_one_of_the_command_line() {
        let acts = ["retry", "cancel", "retry_now", "set_priority", "resume", "release", "fork", "signal"];
        for act in acts {
            for reason in ["it's stuck", "- and stays so"] {
                let wanted = json!({ "action": act, "reason": reason, "from_step": "a b", "input": { "to": "x" }, "priority": -5,
                    "task": "7", "signal": "go on", "payload": [1], "dedupe_key": "k" });
                let wanted: RunAction = serde_json::from_value(wanted).unwrap();
                let line = wanted.cli(Uuid::nil(), wanted.reason.as_deref());
                assert_eq!(crate::cli::understands(&cli_line::words(&line)), Ok(()), "{line}");
            }
            let bare: RunAction = serde_json::from_value(json!({ "action": act })).unwrap();
            let line = bare.cli(Uuid::nil(), None);
            assert_eq!(crate::cli::understands(&cli_line::words(&line)), Ok(()), "{line}");
        }
    }
}
