//! Decides whether what happened may happen: reads the engine's tables and the ledger. Knows nothing of how the engine works.
//!
//!   I1 each accepted run or job reaches exactly one end       I5 no write by a stale attempt is visible
//!   I2 a step has one record, and it never changes            I6 counters equal a recount
//!   I3 as many effects as records of transactional steps      I7 caps are never exceeded
//!   I4 no two leases of one task at a time                    I8 nothing due stays unclaimed

use crate::ledger::{self, What};
use flatrender_engine::automaton;
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
        // One that was taken up again has an end for each time.
        "select j.id::text from workflow.jobs j join workflow.finished_jobs f on f.id = j.id where not j.revived or f.outcome = 'ok'",
    ),
    (
        "I1: a job ended twice",
        "select id::text from workflow.finished_jobs group by id
         having count(*) filter (where not revived) > 1 or count(*) filter (where outcome = 'ok') > 1
             or count(distinct attempt_no) < count(*)",
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
            (select count(distinct id) as n from workflow.finished_jobs) f where a.n <> f.n",
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
    let refused = automaton::refused(&mut db.acquire().await.unwrap(), None, 10).await.unwrap();
    broken.extend(refused.into_iter().map(|run| format!("I2: no run records this: {}: {}", run.run_id, run.why)));
    broken.extend(against_ledger(db, folder).await);
    broken
}

/// What is wrong now that everything should be over.
pub async fn complete(db: &PgPool, folder: &Path) -> Vec<String> {
    let mut broken = ask(db, AT_THE_END).await;
    let (most, cap) = most_at_once(db, folder).await;
    if cap.is_some_and(|cap| most > cap) {
        broken.push(format!("I7: a cap was exceeded: {most} at once of {cap:?}"));
    }
    broken
}

/// How many errands of runs the ledger shows at once, at most, and how many the terms of their queue allow. Once all is over:
/// whoever is killed does not say so, the engine does, before it gives the place to another.
pub async fn most_at_once(db: &PgPool, folder: &Path) -> (usize, Option<usize>) {
    let cap: Option<Option<i32>> =
        sqlx::query_scalar("select cap from workflow.queue_terms where queue = 'errands' and not ended")
            .fetch_optional(db)
            .await
            .unwrap();
    let attempts: Vec<(Uuid, i64)> =
        sqlx::query_as("select lease_token, (extract(epoch from ended_at) * 1e6)::bigint from workflow.attempts")
            .fetch_all(db)
            .await
            .unwrap();
    let mut ended: HashMap<Uuid, u64> = attempts.into_iter().map(|(token, at)| (token, at as u64)).collect();
    let entries: Vec<_> = ledger::read(folder).into_iter().filter(|entry| !entry.run_id.is_nil()).collect();
    for entry in entries.iter().filter(|entry| matches!(entry.what, What::Done | What::Told)) {
        let end = ended.entry(entry.token).or_insert(entry.at);
        *end = entry.at.min(*end);
    }
    let begun: HashMap<Uuid, u64> =
        entries.iter().filter(|e| e.what == What::Begun).map(|entry| (entry.token, entry.at)).collect();
    // Where the clock of a worker is wrong, an end may come before its beginning: that says nothing.
    let lasting = begun.iter().filter(|(token, at)| ended.get(token).is_none_or(|end| end > at));
    let mut changes: Vec<(u64, bool)> =
        lasting.clone().filter_map(|(token, _)| ended.get(token)).map(|end| (*end, false)).collect();
    changes.extend(lasting.map(|(_, at)| (*at, true)));
    // At the same moment an end comes before a beginning.
    changes.sort_unstable();
    let (mut now, mut most) = (0usize, 0);
    for (_, begins) in changes {
        now = if begins { now + 1 } else { now - 1 };
        most = most.max(now);
    }
    (most, cap.flatten().map(|cap| cap as usize))
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
        sqlx::query_as("select id, max(attempt_no) from workflow.finished_jobs f where not exists (select from workflow.jobs j where j.id = f.id) group by id").fetch_all(db).await.unwrap();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    /// A run with a step and an activity, and a job; all of it over, nothing wrong. `$R` is the run, its tokens `$S` and `$A`.
    const WELL: &str = "
        truncate workflow.runs, workflow.tasks, workflow.steps, workflow.attempts, workflow.jobs, workflow.finished_jobs,
            workflow.run_counts, workflow.run_count_deltas, workflow.errands, effects, accepted, transitions;
        insert into workflow.runs (id, tenant_id, kind, version, state, input, created_at, finished_at)
            values ('$R', '$R', 'trip', 1, 'succeeded', '{}', now(), now());
        insert into workflow.run_counts (kind, tenant_id, state, n) values ('trip', '$R', 'succeeded', 1);
        insert into transitions (run_id, was, became) values ('$R', 'running', 'succeeded');
        insert into accepted (key, what, run_id) values ('trip', 'trip', '$R'), ('job', 'job', null);
        insert into workflow.steps (run_id, seq, tenant_id, key, kind, name, outcome, output, attempt_no, lease_token, recorded_at)
            values ('$R', 1, '$R', 'fx pack', 'step', null, 'ok', null, 0, '$S', now()),
                   ('$R', 2, '$R', 'ride', 'activity', 'Errand', 'ok', '4', 1, '$A', now());
        insert into effects (run_id, key, pid) values ('$R', 'fx pack', 1);
        insert into workflow.attempts (task_id, attempt_no, run_id, tenant_id, step_key, lease_token, worker, started_at, ended_at, outcome)
            values (1, 1, '$R', '$R', '', '$S', 'w', now() - interval '4 s', now() - interval '3 s', 'released'),
                   (2, 1, '$R', '$R', 'ride', '$A', 'w', now() - interval '2 s', now() - interval '1 s', 'ok');
        insert into workflow.finished_jobs (id, tenant_id, queue, activity, input, run_at, attempt_no, outcome, finished_at)
            values (9, '$R', 'errands', 'Errand', '{}', now(), 1, 'ok', now());";

    const TASK: &str =
        "insert into workflow.tasks (kind, run_id, tenant_id, step_key, queue, activity, input, run_at, wake_seq,
            max_failures, max_losses, backoff_base_seconds, backoff_cap_seconds, lease_seconds, start_to_close_seconds)
        values ('activity', '$R', '$R', 'last', 'errands', 'Errand', '{}', now(), 0, 1, 1, 0, 0, 30, 60)";
    const RUN_TASK: &str =
        "insert into workflow.tasks (kind, run_id, tenant_id, step_key, queue, activity, run_at, wake_seq,
            max_failures, max_losses, backoff_base_seconds, backoff_cap_seconds, lease_seconds, start_to_close_seconds)
        values ('run', '$R', '$R', '', 'workflows', 'trip.v1', now(), 7, 1, 1, 0, 0, 30, 60)";
    const SECOND_ATTEMPT: &str = "insert into workflow.attempts
            (task_id, attempt_no, run_id, tenant_id, step_key, lease_token, worker, started_at, ended_at, outcome)
        select 2, 2, '$R', '$R', 'ride', gen_random_uuid(), 'w', ended_at - interval '500 ms', now(), 'lost'
        from workflow.attempts where task_id = 2";
    const JOB: &str =
        "insert into workflow.jobs (id, tenant_id, queue, activity, input, run_at) overriding system value
        values (9, '$R', 'errands', 'Errand', '{}', now())";

    /// What breaks each rule that is a query.
    const PLANTED: &[(&str, &str)] = &[
        ("I1: a run ended twice", "insert into transitions (run_id, was, became) values ('$R', 'running', 'failed')"),
        ("I1: a run that is over has left something to do", TASK),
        ("I1: a live run that nobody can go on with", "update workflow.runs set state = 'running', finished_at = null"),
        ("I2: a record has a gap or a double", "update workflow.steps set seq = 5 where seq = 2"),
        ("I2: a task knows of another number of records", RUN_TASK),
        ("I3: an effect happened twice", "insert into effects (run_id, key, pid) values ('$R', 'fx pack', 2)"),
        ("I3: an effect without its record", "insert into effects (run_id, key, pid) values ('$R', 'fx other', 1)"),
        ("I3: a record without its effect", "delete from effects"),
        ("I4: two attempts at one time", SECOND_ATTEMPT),
        ("I5: the record of an activity is not by its last attempt", SECOND_ATTEMPT),
        (
            "I5: a record by somebody who held no lease",
            "update workflow.steps set lease_token = gen_random_uuid() where seq = 1",
        ),
        ("I6: counters differ from a recount", "update workflow.run_counts set n = 2"),
        ("I1: a job is finished and not finished", JOB),
        (
            "I1: a job ended twice",
            "insert into workflow.finished_jobs (id, tenant_id, queue, activity, input, run_at, attempt_no, outcome, finished_at, revived)
             values (9, '$R', 'errands', 'Errand', '{}', now(), 2, 'ok', now() + interval '1 s', true)",
        ),
        ("I1: an accepted run has no end", "insert into accepted values ('lost', 'trip', gen_random_uuid())"),
        ("I1: an accepted job has no end, or more than one", "delete from workflow.finished_jobs"),
        ("I1: a run ended without a transition", "delete from transitions"),
        ("I8: something was never done", TASK),
        ("I8: a job was never done", JOB),
        ("I8: one run still owes another something", "insert into workflow.errands values ('$R', 'deliver')"),
    ];

    struct World {
        s: Scenario,
        run_id: Uuid,
        token: Uuid,
        /// When the first second of the ledger is. The same for all entries: they are read in the order of their times.
        began: u64,
    }

    impl World {
        async fn plant(&self, sql: &str) {
            let (run_id, token) = (self.run_id.to_string(), self.token.to_string());
            let sql = sql.replace("$R", &run_id).replace("$S", &run_id).replace("$A", &token);
            let mut db = self.s.db.acquire().await.unwrap();
            // As if the guards of the tables were not there.
            sqlx::raw_sql(sqlx::AssertSqlSafe(format!("set session_replication_role = replica; {sql}")))
                .execute(&mut *db)
                .await
                .unwrap();
        }

        fn entry(&self, seconds: u64, what: What, task_id: i64, value: i64) -> ledger::Entry {
            let run_id = if task_id == 9 { Uuid::nil() } else { self.run_id };
            let at = self.began + seconds * 1_000_000;
            let (worker, key) = ("w".to_owned(), "ride".to_owned());
            ledger::Entry { at, pid: 1, worker, what, run_id, task_id, key, attempt_no: 1, token: self.token, value }
        }

        /// Writes a page of the ledger over, and says what is wrong then.
        async fn broken(&self, entries: &[ledger::Entry]) -> Vec<String> {
            let lines: Vec<String> = entries.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect();
            std::fs::write(self.s.folder().join("page.jsonl"), lines.join("\n")).unwrap();
            let mut broken = safety(&self.s.db, self.s.folder()).await;
            broken.extend(complete(&self.s.db, self.s.folder()).await);
            broken
        }
    }

    #[tokio::test]
    async fn the_checker_reports_whatever_breaks_a_rule_and_nothing_else() {
        let s = Scenario::new("checker", "each rule reports what is planted for it").await;
        let began = ledger::now() - 10_000_000;
        let mut world = World { s, run_id: Uuid::now_v7(), token: Uuid::now_v7(), began };
        let told = |world: &World| {
            let mut page = vec![world.entry(1, What::Begun, 2, 0), world.entry(2, What::Done, 2, 4)];
            page.push(world.entry(1, What::Begun, 9, 0));
            page
        };
        for (rule, _) in ALWAYS.iter().chain(AT_THE_END) {
            let (_, plant) =
                PLANTED.iter().find(|(of, _)| of == rule).unwrap_or_else(|| panic!("nothing breaks {rule}"));
            world.plant(WELL).await;
            assert_eq!(world.broken(&told(&world)).await, Vec::<String>::new(), "before {rule}");
            world.plant(plant).await;
            let broken = world.broken(&told(&world)).await;
            assert!(broken.iter().any(|line| line.starts_with(rule)), "{rule} is not among {broken:#?}");
            world.s.injected(1);
        }
        world.plant(WELL).await;
        let other = |entry: ledger::Entry, attempt_no| ledger::Entry { attempt_no, token: Uuid::now_v7(), ..entry };
        let planted = [
            ("I4: attempt 1 at task 2 has two leases", other(world.entry(1, What::Begun, 2, 0), 1)),
            ("I5: task 2 (ride) has the result", world.entry(3, What::Done, 2, 5)),
            ("I5: job 9 was ended by attempt 1", other(world.entry(3, What::Begun, 9, 0), 2)),
        ];
        for (rule, entry) in planted {
            let broken = world.broken(&[told(&world), vec![entry]].concat()).await;
            assert!(broken.iter().any(|line| line.starts_with(rule)), "{rule} is not among {broken:#?}");
            world.s.injected(1);
        }
        // Two at once, where one may be: the second begins before the first is done.
        world
            .plant("insert into workflow.queue_terms (queue, cap, set_at, set_by) values ('errands', 1, now(), 'me')")
            .await;
        assert_eq!(world.broken(&told(&world)).await, Vec::<String>::new());
        let mut second = other(world.entry(1, What::Begun, 3, 0), 1);
        second.at += 500_000;
        let broken = world.broken(&[told(&world), vec![second]].concat()).await;
        assert!(broken.iter().any(|line| line.starts_with("I7: a cap was exceeded: 2 at once")), "{broken:#?}");
        world.s.injected(1);
        world.s.close().await;
    }
}
