//! Decides whether what happened may happen: reads the engine's tables and the ledger. Knows nothing of how the engine works.
//!
//!   I1 each accepted run or job reaches exactly one end       I5 no write by a stale attempt is visible
//!   I2 a step has one record, and it never changes            I6 counters equal a recount
//!   I3 as many effects as records of transactional steps      I7 caps are never exceeded
//!   I4 no two leases of one task at a time                    I8 nothing due stays unclaimed

use crate::ledger::{self, What};
use sqlx::PgPool;
use std::{
    collections::HashMap,
    path::Path,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Queries that find nothing while all is well, at every moment.
const ALWAYS: &[(&str, &str)] = &[
    ("I1: a run ended twice", "select run_id::text from transitions group by run_id having count(*) > 1"),
    (
        "I1: a run that is over has left something to do",
        "select t.id || ' ' || t.step_key || ' of ' || r.id from workflow.tasks t join workflow.runs r on r.id = t.run_id
         where r.state <> 'running'",
    ),
    (
        "I1: a live run that nobody can go on with",
        "select r.id::text from workflow.runs r where r.state = 'running'
         and not exists (select from workflow.tasks t where t.run_id = r.id and t.kind = 'run')",
    ),
    (
        "I2: a record has a gap or a double",
        "select run_id || ': ' || count(*) || ' records up to ' || max(seq) from workflow.steps group by run_id
         having count(*) <> max(seq) or count(distinct key) <> count(*)",
    ),
    (
        "I2: a task knows of another number of records",
        "select t.run_id || ': ' || t.wake_seq from workflow.tasks t where t.kind = 'run'
         and t.wake_seq <> (select count(*) from workflow.steps s where s.run_id = t.run_id)",
    ),
    (
        "I3: an effect happened twice",
        "select run_id || ' ' || key || ': ' || count(*) from effects group by run_id, key having count(*) > 1",
    ),
    (
        "I3: an effect without its record",
        "select e.run_id || ' ' || e.key from effects e
         where not exists (select from workflow.steps s where s.run_id = e.run_id and s.key = e.key and s.outcome = 'ok')",
    ),
    (
        "I3: a record without its effect",
        "select s.run_id || ' ' || s.key from workflow.steps s
         where s.kind = 'step' and s.key like 'fx %' and s.outcome = 'ok'
           and not exists (select from effects e where e.run_id = s.run_id and e.key = s.key)
           and not exists (select from workflow.run_lineage l where l.run_id = s.run_id and s.seq <= l.copied)",
    ),
    (
        "I4: two attempts at one time",
        "select task_id || ' attempt ' || attempt_no || ' began ' || (before - started_at) || ' too early' from (
            select a.*, lag(a.ended_at) over (partition by a.task_id order by a.attempt_no) as before
            from (select task_id, attempt_no, started_at, ended_at from workflow.attempts
                  union all
                  select id, attempt_no, leased_at, null from workflow.tasks where state = 'leased') a) b
         -- A claim reads the clock a moment before it sees the rows.
         where started_at < before - interval '250 ms'",
    ),
    (
        "I5: the record of an activity is not by its last attempt",
        "select s.run_id || ' ' || s.key from workflow.steps s
         join workflow.attempts a on a.run_id = s.run_id and a.step_key = s.key and a.lease_token = s.lease_token
         where s.kind = 'activity' and exists (
            select from workflow.attempts n where n.task_id = a.task_id and n.attempt_no > a.attempt_no)",
    ),
    (
        "I5: a record by somebody who held no lease",
        "select s.run_id || ' ' || s.key from workflow.steps s
         where s.lease_token is not null
           and not exists (select from workflow.attempts a where a.run_id = s.run_id and a.lease_token = s.lease_token)
           and not exists (select from workflow.tasks t where t.run_id = s.run_id and t.lease_token = s.lease_token)",
    ),
    (
        "I6: counters differ from a recount",
        "select coalesce(c.kind, r.kind) || ' ' || coalesce(c.state, r.state) || ': ' || coalesce(c.n, 0) || ' counted, '
                || coalesce(r.n, 0) || ' there'
         from (select kind, state, sum(n) as n from workflow.run_totals group by 1, 2) c
         full join (select kind, state, count(*) as n from workflow.runs group by 1, 2) r on r.kind = c.kind and r.state = c.state
         where coalesce(c.n, 0) <> coalesce(r.n, 0)",
    ),
    (
        "I1: a job is finished and not finished",
        "select j.id::text from workflow.jobs j join workflow.finished_jobs f on f.id = j.id
         union all select id::text from workflow.finished_jobs group by id having count(*) > 1",
    ),
];

/// Queries that find nothing once nothing is left to do.
const AT_THE_END: &[(&str, &str)] = &[
    (
        "I1: an accepted run has no end",
        "select a.key from accepted a left join workflow.runs r on r.id = a.run_id
         where a.run_id is not null and coalesce(r.state, 'running') = 'running'",
    ),
    (
        "I1: an accepted job has no end, or more than one",
        "select 'accepted ' || a.n || ', finished ' || f.n from (select count(*) as n from accepted where what = 'job') a,
            (select count(*) as n from workflow.finished_jobs) f where a.n <> f.n",
    ),
    (
        "I1: a run ended without a transition",
        "select r.id::text from workflow.runs r where (select count(*) from transitions t where t.run_id = r.id) <> 1",
    ),
    ("I8: something was never done", "select kind || ' ' || step_key from workflow.tasks"),
    ("I8: a job was never done", "select id::text from workflow.jobs"),
    ("I8: one run still owes another something", "select run_id || ' ' || what from workflow.errands"),
];

/// What is wrong, whatever is still going on.
pub async fn safety(db: &PgPool, folder: &Path) -> Vec<String> {
    let mut broken = ask(db, ALWAYS).await;
    broken.extend(against_ledger(db, folder).await);
    broken
}

/// What is wrong now that everything should be over.
pub async fn complete(db: &PgPool) -> Vec<String> {
    ask(db, AT_THE_END).await
}

/// Waits until there is nothing left to do, or time is up: then [`complete`] says what.
pub async fn quiet(db: &PgPool, patience: Duration) {
    let began = Instant::now();
    while began.elapsed() < patience {
        let left = "select (select count(*) from workflow.tasks) + (select count(*) from workflow.jobs)
                         + (select count(*) from workflow.errands)";
        let left: i64 = sqlx::query_scalar(left).fetch_one(db).await.unwrap_or(-1);
        if left == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn ask(db: &PgPool, rules: &'static [(&'static str, &'static str)]) -> Vec<String> {
    // One snapshot for all of them.
    let mut tx = db.begin().await.unwrap();
    sqlx::raw_sql("set transaction isolation level repeatable read, read only").execute(&mut *tx).await.unwrap();
    let mut broken = Vec::new();
    for (rule, sql) in rules {
        let rows: Vec<String> = sqlx::query_scalar(*sql).fetch_all(&mut *tx).await.unwrap();
        broken.extend(rows.into_iter().take(10).map(|row| format!("{rule}: {row}")));
    }
    tx.commit().await.unwrap();
    broken
}

/// What the engine says against what the handlers say.
async fn against_ledger(db: &PgPool, folder: &Path) -> Vec<String> {
    let records: Vec<(i64, Uuid, String, Option<serde_json::Value>)> = sqlx::query_as(
        "select a.task_id, s.lease_token, s.key, s.output from workflow.steps s
         join workflow.attempts a on a.run_id = s.run_id and a.step_key = s.key and a.lease_token = s.lease_token
         where s.kind = 'activity' and s.name = 'Errand' and s.outcome = 'ok'",
    )
    .fetch_all(db)
    .await
    .unwrap();
    let jobs: Vec<(i64, i32)> =
        sqlx::query_as("select id, attempt_no from workflow.finished_jobs").fetch_all(db).await.unwrap();
    // The ledger comes second: whatever is recorded is in it already.
    let mut broken = Vec::new();
    let mut begun: HashMap<(i64, bool, i32), Uuid> = HashMap::new();
    let mut done: HashMap<(i64, Uuid), i64> = HashMap::new();
    let mut last: HashMap<i64, i32> = HashMap::new();
    for entry in ledger::read(folder) {
        let job = entry.run_id.is_nil();
        match entry.what {
            What::Begun => {
                let before = begun.insert((entry.task_id, job, entry.attempt_no), entry.token);
                if before.is_some_and(|token| token != entry.token) {
                    broken.push(format!("I4: attempt {} at task {} has two leases", entry.attempt_no, entry.task_id));
                }
                if job {
                    let newest = last.entry(entry.task_id).or_default();
                    *newest = entry.attempt_no.max(*newest);
                }
            }
            What::Done if !job => drop(done.insert((entry.task_id, entry.token), entry.value)),
            What::Done | What::Told | What::Spawned => {}
        }
    }
    for (task_id, token, key, output) in records {
        let noted = done.get(&(task_id, token));
        if noted.map(|value| serde_json::json!(value)) != output {
            broken.push(format!("I5: task {task_id} ({key}) has the result {output:?}, the ledger says {noted:?}"));
        }
    }
    for (id, attempt_no) in jobs {
        if last.get(&id).is_some_and(|newest| *newest > attempt_no) {
            broken.push(format!("I5: job {id} was ended by attempt {attempt_no}, and there is a newer one"));
        }
    }
    broken
}
