//! The rows of both, and what may differ.

use super::super::{TaskRow, TaskState, text};
use super::{Both, Tried, refused};
use chrono::{DateTime, Utc};
use proptest::prelude::*;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Row};
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

impl Both<'_> {
    pub(super) async fn compare(&mut self) -> Tried {
        let rows = sqlx::query(
            "select id, run_id, step_key, (extract(epoch from run_at) * 1e6)::bigint as at from workflow.tasks where run_at < 'infinity'
             union all select id, run_id, step_key, null from workflow.tasks where run_at = 'infinity'",
        )
        .fetch_all(&mut *self.db)
        .await
        .map_err(refused)?;
        let there: HashMap<(Uuid, String), (i64, Option<i64>)> =
            rows.iter().map(|row| ((row.get(1), row.get(2)), (row.get(0), row.get(3)))).collect();
        self.take_over(&there)?;
        let there: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(ROWS)).fetch_all(&mut *self.db).await.map_err(refused)?;
        let (mut here, mut there) = (self.rows(), there);
        self.note_seen();
        here.sort();
        there.sort();
        let only = |a: &[String], b: &[String]| {
            a.iter().filter(|row| !b.contains(row)).cloned().collect::<Vec<_>>().join("\n")
        };
        prop_assert!(
            here == there,
            "only in memory:\n{}\nonly in PostgreSQL:\n{}",
            only(&here, &there),
            only(&there, &here)
        );
        Ok(())
    }

    /// Takes over what PostgreSQL is free to decide: delays, within their bounds, and ids, in the order in which a run has asked.
    fn take_over(&mut self, there: &HashMap<(Uuid, String), (i64, Option<i64>)>) -> Tried {
        let (mut renamed, mut newest) = (HashMap::new(), HashMap::new());
        for (id, mut task) in std::mem::take(&mut self.memory.tasks) {
            let Some((id_there, at)) = there.get(&(task.run_id, task.key.clone())) else {
                return Err(TestCaseError::fail(format!("only in memory: {task:?}")));
            };
            let at = at.and_then(DateTime::<Utc>::from_timestamp_micros);
            if let (Some((least, most)), Some(at)) = (task.drawn.take(), at) {
                prop_assert!(least <= at && at <= most, "{least} <= {at} <= {most}");
                task.run_at = Some(at);
            }
            let before = newest.insert(task.run_id, *id_there).unwrap_or_default();
            prop_assert!(before < *id_there, "a later wish of {} has an earlier id", task.run_id);
            renamed.insert(id, *id_there);
            task.id = *id_there;
            self.memory.last_task = self.memory.last_task.max(task.id);
            self.memory.tasks.insert(task.id, task);
        }
        for (here, _) in &mut self.leases {
            here.task_id = renamed.get(&here.task_id).copied().unwrap_or(here.task_id);
        }
        Ok(())
    }

    /// Notes in which states rows have been.
    fn note_seen(&self) {
        let (m, mut seen) = (&self.memory, self.seen.lock().unwrap());
        for r in m.runs.values() {
            seen.insert(format!("run {}", r.state.as_str()));
            seen.extend(r.continued_as.map(|_| "run went on".to_owned()));
            seen.extend(r.error.as_ref().map(|error| format!("error {}", text(error, "code"))));
        }
        seen.extend(m.steps.values().flatten().map(|s| format!("{} {}", s.kind.name(), s.outcome)));
        seen.extend(m.attempts.iter().map(|a| format!("attempt {}", a.outcome)));
        seen.extend(m.tasks.values().filter_map(|t| t.parked.as_ref()).map(|why| format!("parked {why}")));
        let lost_twice = |t: &&TaskRow| !t.is_run() && t.losses > 1;
        seen.extend(m.tasks.values().filter(lost_twice).map(|_| "activity lost twice".to_owned()));
        seen.extend(self.lineage.iter().map(|l| format!("lineage {}", l.retry)));
    }

    /// The rows in memory, as [`ROWS`] writes those of PostgreSQL.
    fn rows(&self) -> Vec<String> {
        let m = &self.memory;
        let word = |value: Option<&Value>| value.map_or("-".to_owned(), Value::to_string);
        let code = |value: Option<&Value>| value.map_or("-".to_owned(), |v| text(v, "code").to_owned());
        let time = |at: Option<DateTime<Utc>>| at.map_or("-".to_owned(), |at| at.timestamp_micros().to_string());
        let runs = m.runs.values().map(|r| {
            let next = r.continued_as.map_or("-".to_owned(), |id| id.to_string());
            let parent = r.parent.as_ref().map_or("-".to_owned(), |(id, key)| format!("{id}/{key}"));
            let root = r.root.map_or("-".to_owned(), |id| id.to_string());
            format!(
                "run {} {} {} {} {} {next} {parent} {root} {} {} {}",
                r.id,
                r.state.as_str(),
                r.cancel_requested,
                word(r.output.as_ref()),
                code(r.error.as_ref()),
                r.detached,
                r.priority,
                r.business_key.as_deref().unwrap_or("-")
            )
        });
        let steps = m.steps.iter().flat_map(|(run_id, steps)| {
            steps.iter().enumerate().map(move |(at, s)| {
                let key = s.key.split_once(":#").map_or(s.key.as_str(), |(key, _)| key);
                format!(
                    "step {run_id} {} {key} {} {} {} {} {} {} {}",
                    at + 1,
                    s.kind.name(),
                    s.name.as_deref().unwrap_or("-"),
                    s.outcome,
                    word(s.output.as_ref()),
                    code(s.failure.as_ref()),
                    s.attempt_no,
                    time(Some(s.at))
                )
            })
        });
        let tasks = m.tasks.values().map(|t| {
            let state = match t.state {
                TaskState::Ready => "ready",
                TaskState::Waiting => "waiting",
                TaskState::Leased => "leased",
            };
            format!(
                "task {} {} {state} {} {} {} {} {} {} {} {} {} {} {}",
                t.run_id,
                t.key,
                t.attempt_no,
                t.failures,
                t.losses,
                t.cancel_requested,
                t.shielded,
                t.parked.as_deref().unwrap_or("-"),
                t.wake_seq,
                t.priority,
                time(t.run_at),
                t.lease.as_ref().map_or("-".to_owned(), |l| l.worker.to_string()),
                time(t.lease.as_ref().map(|l| l.expires))
            )
        });
        let attempts = m.attempts.iter().map(|a| {
            format!("attempt {} {} {} {} {}", a.run_id, a.key, a.attempt_no, a.outcome, code(a.failure.as_ref()))
        });
        let mut counts = BTreeMap::<(&str, &str), i64>::new();
        m.runs.values().for_each(|r| *counts.entry((&r.kind, r.state.as_str())).or_default() += 1);
        let counts = counts.into_iter().map(|((kind, state), n)| format!("count {kind} {state} {n}"));
        let lineage = self
            .lineage
            .iter()
            .map(|l| format!("lineage {} {} {}", l.run_id, l.root, if l.retry { "retry" } else { "fork" }));
        runs.chain(steps).chain(tasks).chain(attempts).chain(counts).chain(lineage).collect()
    }
}

const ROWS: &str = "
    select format('run %s %s %s %s %s %s %s %s %s %s %s', id, state, case when cancel_requested_at is null then 'false' else 'true' end,
        coalesce(output::text, '-'), coalesce(error ->> 'code', '-'), coalesce(continued_as::text, '-'),
        coalesce(parent_run_id || '/' || parent_key, '-'), coalesce(root_run_id::text, '-'),
        case when detached then 'true' else 'false' end, priority, coalesce(business_key, '-'))
    from workflow.runs
    union all
    select format('step %s %s %s %s %s %s %s %s %s %s', run_id, seq, split_part(key, ':#', 1), kind, coalesce(name, '-'), outcome,
        coalesce(output::text, '-'), coalesce(failure ->> 'code', '-'), attempt_no, (extract(epoch from recorded_at) * 1e6)::bigint)
    from workflow.steps
    union all
    select format('task %s %s %s %s %s %s %s %s %s %s %s %s %s %s', run_id, step_key, state, attempt_no, failures, losses,
        case when cancel_requested then 'true' else 'false' end, case when shielded then 'true' else 'false' end,
        coalesce(parked_reason, '-'), wake_seq, priority,
        case when run_at = 'infinity' then '-' else (extract(epoch from run_at) * 1e6)::bigint::text end,
        coalesce(worker_id::text, '-'), coalesce((extract(epoch from lease_expires_at) * 1e6)::bigint::text, '-'))
    from workflow.tasks
    union all
    select format('attempt %s %s %s %s %s', run_id, step_key, attempt_no, outcome, coalesce(failure ->> 'code', '-')) from workflow.attempts
    union all
    select format('count %s %s %s', kind, state, n) from workflow.run_totals
    union all
    select format('lineage %s %s %s', run_id, root_run_id, how) from workflow.run_lineage
    union all
    select format('errand %s %s', run_id, what) from workflow.errands";
