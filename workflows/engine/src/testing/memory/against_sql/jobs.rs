//! Jobs: the same commands to `35_workflow_jobs.sql` and to a list.

use super::{Tried, install, refused, try_all};
use crate::{
    activity::Labels,
    store::jobs::{self, DoneJobs, EndedJob, JobClaim, KeyedJob, NewJob, NewJobs},
};
use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

const QUEUE: &str = "jobs";
const TENANT: Uuid = Uuid::from_u128(7);

#[derive(Debug, Clone)]
enum Command {
    Enqueue {
        unique: Option<u8>,
        delay: Option<u32>,
        priority: i16,
        policy: u8,
        gpu: bool,
    },
    Pump {
        worker: u8,
        done: Vec<u8>,
        ended: Vec<(u8, Ending)>,
        want: u8,
        gpu: bool,
    },
    /// A worker ends: it was lost, or took its leave.
    Gone {
        worker: u8,
        lost: bool,
    },
    Pass {
        seconds: u32,
    },
    Pause {
        paused: bool,
    },
}

#[derive(Debug, Clone, Copy)]
enum Ending {
    Fails,
    FailsForGood,
    Throttled,
    Cancelled,
    Released,
    Lost,
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    let ending = prop::sample::select(vec![
        Ending::Fails,
        Ending::FailsForGood,
        Ending::Throttled,
        Ending::Cancelled,
        Ending::Released,
        Ending::Lost,
    ]);
    let command = prop_oneof![
        5 => (prop::option::of(0u8..2), prop::option::weighted(0.3, 1u32..50), -1i16..2, 0u8..3, prop::bool::weighted(0.2))
            .prop_map(|(unique, delay, priority, policy, gpu)| Command::Enqueue { unique, delay, priority, policy, gpu }),
        8 => (0u8..3, prop::collection::vec(0u8..8, 0..3), prop::collection::vec((0u8..8, ending), 0..3), 0u8..4, any::<bool>())
            .prop_map(|(worker, done, ended, want, gpu)| Command::Pump { worker, done, ended, want, gpu }),
        1 => (0u8..3, any::<bool>()).prop_map(|(worker, lost)| Command::Gone { worker, lost }),
        3 => prop::sample::select(vec![1, 10, 60]).prop_map(|seconds| Command::Pass { seconds }),
        1 => prop::bool::weighted(0.3).prop_map(|paused| Command::Pause { paused }),
    ];
    prop::collection::vec(command, 1..60)
}

/// A row of `workflow.jobs`; its input is its number.
#[derive(Debug, Clone)]
struct Job {
    unique: Option<u8>,
    priority: i16,
    run_at: DateTime<Utc>,
    /// How much later it may be: the delay is drawn.
    drawn: Option<f64>,
    attempt_no: i32,
    failures: i32,
    losses: i32,
    policy: u8,
    gpu: bool,
    held: Option<(i64, Uuid)>,
    last_failure: Option<String>,
}

/// Of the policies, the most attempts that may fail or be lost, and the backoff's base and cap.
const POLICIES: [(i32, i32, f64, f64); 3] = [(4, 5, 1.0, 60.0), (1, 1, 0.0, 0.0), (3, 3, 0.0, 0.0)];

fn stored(policy: u8) -> Option<Value> {
    let (failures, losses, base, cap) = POLICIES[usize::from(policy)];
    (policy > 0).then(|| {
        json!({ "max_failures": failures, "max_losses": losses, "backoff_base": base, "backoff_cap": cap, "start_to_close": 600.0 })
    })
}

impl Ending {
    fn outcome(self) -> &'static str {
        match self {
            Self::Fails | Self::FailsForGood | Self::Throttled => "failed",
            Self::Cancelled => "cancelled",
            Self::Released => "released",
            Self::Lost => "lost",
        }
    }

    fn failure(self) -> Option<Value> {
        let failure = |retryable| json!({ "code": "t.failed", "message": "no", "retryable": retryable });
        match self {
            Self::Fails => Some(failure(true)),
            Self::FailsForGood => Some(failure(false)),
            Self::Throttled => {
                let mut busy = failure(true);
                busy["retry_after_seconds"] = json!(25.0);
                Some(busy)
            }
            Self::Cancelled => Some(json!({ "code": "workflow.cancelled", "message": "no", "retryable": false })),
            Self::Lost => Some(json!({ "code": "workflow.lost", "message": "no", "retryable": true })),
            Self::Released => None,
        }
    }
}

struct Both<'a> {
    db: &'a mut PgConnection,
    now: DateTime<Utc>,
    jobs: BTreeMap<i64, Job>,
    /// Rows of `workflow.finished_jobs`, written down.
    finished: Vec<String>,
    /// Number of a job, its id and the token, of every lease there ever was.
    leases: Vec<(i64, i64, Uuid)>,
    workers: Vec<i64>,
    paused: bool,
    last: i64,
    tokens: u128,
}

impl Both<'_> {
    async fn obey(&mut self, command: &Command) -> Tried {
        match command {
            Command::Enqueue { unique, delay, priority, policy, gpu } => {
                self.enqueue(*unique, *delay, *priority, *policy, *gpu).await
            }
            Command::Pump { worker, done, ended, want, gpu } => self.pump(*worker, done, ended, *want, *gpu).await,
            Command::Gone { worker, lost } => self.gone(*worker, *lost).await,
            Command::Pass { seconds } => {
                self.now += TimeDelta::seconds(i64::from(*seconds));
                let sql = "update workflow.clock set moved_by = moved_by + make_interval(secs => $1)";
                sqlx::query(sql).bind(f64::from(*seconds)).execute(&mut *self.db).await.map(drop).map_err(refused)
            }
            Command::Pause { paused } => {
                self.paused = *paused;
                let sql = match paused {
                    true => {
                        "insert into workflow.queue_controls values ('jobs', workflow.now(), 'test') on conflict do nothing"
                    }
                    false => "delete from workflow.queue_controls",
                };
                sqlx::query(sql).execute(&mut *self.db).await.map(drop).map_err(refused)
            }
        }
    }

    async fn enqueue(&mut self, unique: Option<u8>, delay: Option<u32>, priority: i16, policy: u8, gpu: bool) -> Tried {
        self.last += 1;
        let run_at = delay.map(|seconds| self.now + TimeDelta::seconds(i64::from(seconds)));
        let shared = NewJobs { tenant_id: TENANT, queue: QUEUE, activity: "Work", priority, run_at, traceparent: None };
        let job = NewJob {
            input: json!(self.last),
            policy: stored(policy),
            labels: gpu.then(|| json!({ "gpu": "yes" })),
            limit_key: String::new(),
            warm_key: None,
        };
        let inserted = match unique {
            Some(n) => {
                let keyed = KeyedJob { key: n.to_string(), held: None, waits: None };
                u64::from(jobs::insert_keyed(self.db, &shared, job, &keyed).await.map_err(refused)?.1)
            }
            None => jobs::insert(self.db, &shared, vec![job]).await.map_err(refused)?,
        };
        let taken = unique.is_some() && self.jobs.values().any(|job| job.unique == unique);
        prop_assert_eq!(inserted, u64::from(!taken));
        if !taken {
            let job = Job {
                unique,
                priority,
                run_at: run_at.unwrap_or(self.now),
                drawn: None,
                attempt_no: 0,
                failures: 0,
                losses: 0,
                policy,
                gpu,
                held: None,
                last_failure: None,
            };
            self.jobs.insert(self.last, job);
        }
        Ok(())
    }

    fn lease(&self, n: u8) -> Option<(i64, i64, Uuid)> {
        self.leases.iter().rev().nth(usize::from(n) % self.leases.len().max(1)).copied()
    }

    fn holds(&self, number: i64, token: Uuid) -> bool {
        self.jobs.get(&number).is_some_and(|job| job.held.is_some_and(|(_, held)| held == token))
    }

    async fn pump(&mut self, worker: u8, done: &[u8], ended: &[(u8, Ending)], want: u8, gpu: bool) -> Tried {
        let worker = self.workers[usize::from(worker)];
        let (mut used, mut stale) = (BTreeSet::new(), BTreeSet::new());
        let (mut well, mut otherwise) = (DoneJobs::default(), Vec::new());
        for n in done {
            let Some((number, id, token)) = self.lease(*n) else { continue };
            if used.insert(id) {
                well.ids.push(id);
                well.tokens.push(token);
                well.outputs.push(Some(json!("done")));
                match self.holds(number, token) {
                    true => self.finish(number, "ok", None),
                    false => drop(stale.insert(id)),
                }
            }
        }
        for (n, ending) in ended {
            let Some((number, id, token)) = self.lease(*n) else { continue };
            if used.insert(id) {
                otherwise.push(EndedJob { id, token, outcome: ending.outcome(), failure: ending.failure() });
                match self.holds(number, token) {
                    true => self.end(number, *ending),
                    false => drop(stale.insert(id)),
                }
            }
        }
        self.tokens += 1;
        let token = Uuid::from_u128(self.tokens);
        let labels: Labels = gpu.then(|| ("gpu".to_owned(), "yes".to_owned())).into_iter().collect();
        let names = ["Work".to_owned()];
        let claims = [JobClaim { queue: QUEUE, want: usize::from(want), names: &names, holds: None }];
        let news =
            jobs::pump(&mut *self.db, worker, &well, &otherwise, &claims, token, &labels).await.map_err(refused)?;
        let told = |what: &str| news.iter().filter(|n| n.what == what).map(|n| n.id).collect::<BTreeSet<_>>();
        prop_assert_eq!(stale, told("stale"), "stale");
        self.adopt().await?;
        let mut claimed = BTreeSet::new();
        if !self.paused {
            let now = self.now;
            let ready =
                self.jobs.iter().filter(|(_, job)| job.held.is_none() && job.run_at <= now && (gpu || !job.gpu));
            let mut ready: Vec<_> = ready.map(|(number, job)| (-job.priority, job.run_at, *number)).collect();
            ready.sort();
            claimed = ready.into_iter().take(usize::from(want)).map(|(.., number)| number).collect();
        }
        let there: BTreeMap<i64, i64> = news
            .iter()
            .filter(|n| n.what == "job")
            .map(|n| (n.input.as_ref().and_then(Value::as_i64).unwrap_or_default(), n.id))
            .collect();
        prop_assert_eq!(&claimed, &there.keys().copied().collect::<BTreeSet<_>>(), "claimed");
        for (number, id) in there {
            if let Some(job) = self.jobs.get_mut(&number) {
                job.attempt_no += 1;
                job.held = Some((worker, token));
            }
            self.leases.push((number, id, token));
        }
        Ok(())
    }

    fn finish(&mut self, number: i64, outcome: &str, failure: Option<&str>) {
        let Some(job) = self.jobs.remove(&number) else { return };
        let output = if outcome == "ok" { "\"done\"" } else { "-" };
        self.finished.push(format!(
            "finished {number} {outcome} {} {output} {}",
            job.attempt_no,
            failure.unwrap_or("-")
        ));
    }

    fn end(&mut self, number: i64, ending: Ending) {
        let now = self.now;
        let Some(job) = self.jobs.get_mut(&number) else { return };
        let (failures, losses, base, cap) = POLICIES[usize::from(job.policy)];
        let code = ending.failure().map(|failure| failure["code"].as_str().unwrap_or_default().to_owned());
        let delay = match ending {
            Ending::Cancelled => return self.finish(number, "cancelled", code.as_deref()),
            Ending::FailsForGood => return self.finish(number, "failed", code.as_deref()),
            Ending::Fails | Ending::Throttled if job.failures + 1 >= failures => {
                return self.finish(number, "failed", code.as_deref());
            }
            Ending::Lost if job.losses + 1 >= losses => {
                return self.finish(number, "failed", Some("workflow.lost_too_often"));
            }
            Ending::Throttled => (25.0, 25.0),
            Ending::Fails => (0.0, (base * 2f64.powi(job.failures)).min(cap)),
            Ending::Lost if job.losses > 0 => (0.0, 2f64.powi(job.losses - 1).min(60.0)),
            Ending::Lost | Ending::Released => (0.0, 0.0),
        };
        job.failures += i32::from(ending.outcome() == "failed");
        job.losses += i32::from(ending.outcome() == "lost");
        job.last_failure = code.or(job.last_failure.take());
        job.held = None;
        if !matches!(ending, Ending::Released) {
            job.run_at = now + TimeDelta::microseconds((delay.0 * 1e6) as i64);
            job.drawn = (delay.0 < delay.1).then_some(delay.1);
        }
    }

    async fn gone(&mut self, worker: u8, lost: bool) -> Tried {
        let slot = usize::from(worker);
        let gone = self.workers[slot];
        sqlx::query("update workflow.workers set ended_at = workflow.now() where id = $1")
            .bind(gone)
            .execute(&mut *self.db)
            .await
            .map_err(refused)?;
        sqlx::query("select workflow.recover_jobs($1, $2)")
            .bind(vec![gone])
            .bind(if lost { "lost" } else { "released" })
            .execute(&mut *self.db)
            .await
            .map_err(refused)?;
        let held = |job: &Job| job.held.is_some_and(|(holder, _)| holder == gone);
        let freed: Vec<i64> = self.jobs.iter().filter(|(_, job)| held(job)).map(|(number, _)| *number).collect();
        for number in freed {
            self.end(number, if lost { Ending::Lost } else { Ending::Released });
        }
        self.workers[slot] = begin(self.db).await?;
        Ok(())
    }

    /// Takes over the delays that PostgreSQL has drawn, if they could have been drawn.
    async fn adopt(&mut self) -> Tried {
        let there: Vec<(i64, DateTime<Utc>)> =
            sqlx::query_as("select (input #>> '{}')::bigint, run_at from workflow.jobs")
                .fetch_all(&mut *self.db)
                .await
                .map_err(refused)?;
        for (number, run_at) in there {
            let Some(job) = self.jobs.get_mut(&number) else { continue };
            if let Some(most) = job.drawn.take() {
                let late = (run_at - job.run_at).as_seconds_f64();
                prop_assert!((0.0..=most).contains(&late), "{late} of {most} s");
                job.run_at = run_at;
            }
        }
        Ok(())
    }

    async fn compare(&mut self) -> Tried {
        self.adopt().await?;
        let mut there: Vec<String> = sqlx::query_scalar(
            "select format('job %s %s %s %s %s %s %s %s %s', input #>> '{}', coalesce(unique_key, '-'), priority,
                 (extract(epoch from run_at) * 1e6)::bigint, attempt_no, failures, losses, coalesce(worker_id::text, '-'),
                 coalesce(last_failure ->> 'code', '-')) from workflow.jobs
             union all
             select format('finished %s %s %s %s %s', input #>> '{}', outcome, attempt_no, coalesce(output::text, '-'),
                 coalesce(failure ->> 'code', '-')) from workflow.finished_jobs",
        )
        .fetch_all(&mut *self.db)
        .await
        .map_err(refused)?;
        let jobs = self.jobs.iter().map(|(number, job)| {
            let unique = job.unique.map_or("-".to_owned(), |n| n.to_string());
            let holder = job.held.map_or("-".to_owned(), |(worker, _)| worker.to_string());
            let (at, failure) = (job.run_at.timestamp_micros(), job.last_failure.as_deref().unwrap_or("-"));
            let (attempt, failures, losses) = (job.attempt_no, job.failures, job.losses);
            format!("job {number} {unique} {} {at} {attempt} {failures} {losses} {holder} {failure}", job.priority)
        });
        let mut here: Vec<String> = jobs.chain(self.finished.iter().cloned()).collect();
        here.sort();
        there.sort();
        prop_assert_eq!(here, there);
        Ok(())
    }
}

/// A new incarnation of a worker.
async fn begin(db: &mut PgConnection) -> Result<i64, TestCaseError> {
    let sql = "insert into workflow.workers (name, started_at, seen_at) values ('w', workflow.now(), workflow.now()) returning id";
    sqlx::query_scalar(sql).fetch_one(db).await.map_err(refused)
}

#[sqlx::test(migrations = false)]
async fn jobs_do_what_a_list_of_them_would_do(db: PgPool) {
    let now = install(&db).await;
    let handle = tokio::runtime::Handle::current();
    let drawing = tokio::task::spawn_blocking(move || {
        try_all(db, commands(), &handle, async |db: &mut PgConnection, commands: Vec<Command>| {
            let mut workers = Vec::new();
            for _ in 0..3 {
                workers.push(begin(db).await?);
            }
            let (jobs, finished, leases) = (BTreeMap::new(), Vec::new(), Vec::new());
            let mut both = Both { db, now, jobs, finished, leases, workers, paused: false, last: 0, tokens: 0 };
            for (n, command) in commands.iter().enumerate() {
                let tried = match both.obey(command).await {
                    Ok(()) => both.compare().await,
                    error => error,
                };
                tried.map_err(|error| TestCaseError::fail(format!("command {n}, {command:?}: {error}")))?;
            }
            Ok(())
        });
    });
    drawing.await.unwrap();
}
