//! What a run may have done: its record, read by a machine that knows the rules and nothing else of the engine.
//!
//! ```text
//!   1 ─▶ 2 ─▶ … ─▶ n      numbers without gaps; n is what the task of a live run says
//!   cancel                once, before a run ends as cancelled
//!   compensation k ─▶ k   taken back when the run fails or is cancelled, and only then
//! ```
//! Read-only and in one pass, so that it can look at every run of a database, whatever was killed when.

use futures::TryStreamExt as _;
use sqlx::{PgConnection, Result};
use std::collections::HashSet;
use uuid::Uuid;

/// A run whose record cannot have come about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The run.
    pub run_id: Uuid,
    /// The first thing about it that is not allowed.
    pub why: String,
}

/// Reads the record of every run, or of one, and gives up to `limit` of those that break a rule, by their ids.
///
/// # Errors
/// The database cannot be read.
pub async fn refused(db: &mut PgConnection, run_id: Option<Uuid>, limit: usize) -> Result<Vec<Refused>> {
    let mut rows = sqlx::query_as::<_, Row>(
        "select r.id, r.state, coalesce(l.copied, 0) as copied, t.wake_seq as newest, s.seq, s.key, s.kind, s.outcome,
                s.lease_token is not null as held
         from workflow.runs r
         left join workflow.steps s on s.run_id = r.id
         left join workflow.run_lineage l on l.run_id = r.id
         left join workflow.tasks t on t.run_id = r.id and t.kind = 'run'
         where $1::uuid is null or r.id = $1
         order by r.id, s.seq",
    )
    .bind(run_id)
    .fetch(db);
    let mut found = vec![];
    let mut machine: Option<Machine> = None;
    while found.len() < limit {
        let Some(row) = rows.try_next().await? else {
            found.extend(machine.and_then(Machine::end));
            break;
        };
        if machine.as_ref().is_none_or(|machine| machine.run.id != row.run.id) {
            found.extend(machine.take().and_then(Machine::end));
        }
        let machine = machine.get_or_insert_with(|| Machine::new(row.run));
        if let Some(record) = row.record.into_record() {
            machine.take(record);
        }
    }
    found.truncate(limit);
    Ok(found)
}

#[derive(sqlx::FromRow)]
struct Row {
    #[sqlx(flatten)]
    run: Run,
    #[sqlx(flatten)]
    record: MaybeRecord,
}

#[derive(sqlx::FromRow)]
struct Run {
    id: Uuid,
    state: String,
    /// How many of its records were copied from the run it was made of.
    copied: i64,
    /// Number of its newest record, by its task; none when it has none.
    newest: Option<i64>,
}

#[derive(sqlx::FromRow)]
struct MaybeRecord {
    seq: Option<i64>,
    key: Option<String>,
    kind: Option<String>,
    outcome: Option<String>,
    held: bool,
}

impl MaybeRecord {
    fn into_record(self) -> Option<Record> {
        Some(Record { seq: self.seq?, key: self.key?, kind: self.kind?, outcome: self.outcome?, held: self.held })
    }
}

struct Record {
    seq: i64,
    key: String,
    kind: String,
    outcome: String,
    /// Whether somebody held a lease when it was written.
    held: bool,
}

/// Where the record of one run has come to.
struct Machine {
    run: Run,
    seq: i64,
    cancelled: bool,
    /// What its definition has done itself, by key.
    done: HashSet<String>,
    /// Keys under which something is to be taken back. It may be taken back before that is recorded.
    undo: Vec<String>,
    why: Option<String>,
}

impl Machine {
    fn new(run: Run) -> Self {
        Self { run, seq: 0, cancelled: false, done: HashSet::new(), undo: vec![], why: None }
    }

    fn refuse(&mut self, why: String) {
        self.why.get_or_insert(why);
    }

    fn take(&mut self, record: Record) {
        let Record { seq, key, kind, outcome, held } = record;
        if seq != self.seq + 1 {
            self.refuse(format!("record {seq} comes after {}", self.seq));
        }
        self.seq = seq;
        let (prefix, outcomes): (&str, &[&str]) = match kind.as_str() {
            "cancel" => ("$cancel", &["ok"]),
            "signal" => ("$signal:", &["ok"]),
            "patch" => ("$patch:", &["ok"]),
            "compensation" => ("$compensate:", &["ok"]),
            "start" => ("", &["ok"]),
            "step" => ("", &["ok", "failed"]),
            "timer" => ("", &["ok", "cancelled"]),
            _ => ("", &["ok", "failed", "cancelled"]),
        };
        if !key.starts_with(prefix) || (prefix.is_empty() && key.starts_with('$')) {
            self.refuse(format!("record {seq} is a {kind} named {key}"));
        }
        if !outcomes.contains(&outcome.as_str()) {
            self.refuse(format!("record {seq} is a {kind} that is {outcome}"));
        }
        // Others tell a run that it is cancelled or signalled; what only its definition does takes the lease on it.
        let own = matches!(kind.as_str(), "step" | "timer" | "start" | "patch" | "compensation");
        if own && !held && seq > self.run.copied {
            self.refuse(format!("record {seq} is a {kind} of somebody without a lease"));
        }
        match kind.as_str() {
            "cancel" => self.cancelled = true,
            "compensation" => self.undo.extend(key.strip_prefix(prefix).map(str::to_owned)),
            "step" | "activity" => drop(self.done.insert(key)),
            _ => {}
        }
    }

    fn end(mut self) -> Option<Refused> {
        let (seq, state) = (self.seq, self.run.state.clone());
        if let Some(newest) = self.run.newest.filter(|newest| *newest != seq) {
            self.refuse(format!("its task knows of {newest} records, there are {seq}"));
        }
        match state.as_str() {
            // Of a run made of another, what that one took back may be among the copies.
            "succeeded" if self.run.copied == 0 => {
                if let Some(key) = self.undo.iter().find(|key| self.done.contains(*key)).cloned() {
                    self.refuse(format!("it has succeeded and taken {key} back"));
                }
            }
            "failed" | "cancelled" => {
                if state == "cancelled" && !self.cancelled {
                    self.refuse("it has ended as cancelled and nobody asked".into());
                }
                if let Some(key) = self.undo.iter().find(|key| !self.done.contains(*key)).cloned() {
                    self.refuse(format!("it has ended as {state} and not taken {key} back"));
                }
            }
            _ => {}
        }
        let run_id = self.run.id;
        self.why.map(|why| Refused { run_id, why })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the machine says of a run in a state, of which `kind key outcome` was recorded, a line each.
    fn verdict(state: &str, lines: &str) -> Option<String> {
        let run = Run { id: Uuid::nil(), state: state.into(), copied: 0, newest: None };
        let mut machine = Machine::new(run);
        for (line, seq) in lines.lines().zip(1..) {
            let mut words = line.split_whitespace().map(str::to_owned);
            let mut word = || words.next().unwrap();
            let (kind, key, outcome) = (word(), word(), word());
            let held = !matches!(kind.as_str(), "cancel" | "signal" | "child");
            machine.take(Record { seq, key, kind, outcome, held });
        }
        machine.end().map(|refused| refused.why)
    }

    #[test]
    fn what_runs_do_is_accepted() {
        assert_eq!(verdict("running", ""), None);
        assert_eq!(
            verdict("succeeded", "step a ok\nactivity b failed\nsignal $signal:go:1 ok\nchild c cancelled"),
            None
        );
        assert_eq!(verdict("succeeded", "activity a ok\ncompensation $compensate:b ok\ncancel $cancel ok"), None);
        assert_eq!(verdict("failed", "step b ok\ncompensation $compensate:b ok\nstep a failed"), None);
        assert_eq!(verdict("cancelled", "compensation $compensate:b ok\ncancel $cancel ok\nactivity b failed"), None);
    }

    #[test]
    fn what_no_run_can_have_done_is_refused() {
        let cases = [
            ("running", "cancel stop ok", "record 1 is a cancel named stop"),
            ("running", "step $cancel ok", "record 1 is a step named $cancel"),
            ("running", "timer a failed", "record 1 is a timer that is failed"),
            ("cancelled", "step a ok", "it has ended as cancelled and nobody asked"),
            ("failed", "compensation $compensate:b ok", "it has ended as failed and not taken b back"),
            ("succeeded", "compensation $compensate:b ok\nstep b ok", "it has succeeded and taken b back"),
        ];
        for (state, lines, why) in cases {
            assert_eq!(verdict(state, lines).as_deref(), Some(why), "{lines}");
        }
    }
}
