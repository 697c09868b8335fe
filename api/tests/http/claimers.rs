//! Sixty-four who claim stills at once: none is given to two of them.

use flatrender_engine::{
    Client, Labels, LeasedTask,
    remote::{RemoteWorker, Service},
};
use flatrender_workflows::{
    contracts::{
        node::Claim,
        snapshot::{SNAPSHOT_QUEUE, STILLS_A_VISIT},
    },
    models::DEFAULT_TENANT,
};
use sqlx::{PgPool, postgres::PgPoolOptions, types::Json};
use std::{collections::HashMap, sync::Arc};
use tokio::sync::Barrier;
use uuid::Uuid;

const CLAIMERS: usize = 64;
const STILLS: i64 = 10_000;
/// How many tasks a server sees that chooses itself, and of how many of these it takes one.
const PICTURE: usize = 200;
const ONE_OF: usize = 25;

/// Requests for stills as they stand when each run has asked for its frame, every other one for After Effects.
const QUEUED: &str = "
    with fresh as (
        insert into workflow.runs (id, tenant_id, kind, version, input, created_at)
        select workflow.new_run_id(at), $2, 'scene_snapshot', 1, '{}', at
        from (select workflow.now() - n * interval '1 us' as at from generate_series(1, $1::bigint) n) s
        returning id, tenant_id, created_at
    ), jobs as (
        insert into render.snapshot_jobs (id, tenant_id, project_id, project_version_id, scene_id, scene_key, workflow_run_id, created_at)
        select id, tenant_id, id, id, id, 'a', id, created_at from fresh
    )
    insert into workflow.tasks (kind, run_id, tenant_id, step_key, queue, activity, input, required_labels, run_at, max_failures, max_losses,
                                backoff_base_seconds, backoff_cap_seconds, lease_seconds, start_to_close_seconds)
    select 'activity', id, tenant_id, 'render:1', 'node.snapshot', 'RenderStills', jsonb_build_object('job_id', id),
           jsonb_build_object('engine', case row_number() over (order by created_at) % 2 when 0 then 'lottie' else 'after_effects' end),
           created_at, 4, 20, 1, 60, 3600, 3600
    from fresh";
/// Those that are leased, as the engine and the request for the still say alike.
const LEASED: &str = "
    select t.id, t.lease_token, t.leased_by::text, t.required_labels ->> 'engine'
    from workflow.tasks t join render.snapshot_jobs j on j.workflow_run_id = t.run_id
    where t.state = 'leased' and t.attempt_no = 1 and j.status = 'running' and j.attempts = 1 and j.lease_token = t.lease_token";
/// What may be chosen, in the order of its queue.
const READY: &str = "
    select id from workflow.tasks where queue = $1 and state = 'ready' and required_labels <@ $2
    order by priority desc, run_at, id limit $3";

/// A node of one engine. Half of them are given what is next, the others what a server of theirs has chosen, from a picture that is late.
struct Claimer {
    n: usize,
    db: PgPool,
    service: Service,
    worker: RemoteWorker,
    asked: Claim,
}

impl Claimer {
    fn new(n: usize, db: PgPool, service: Service) -> Self {
        let asked = Claim {
            incarnation: Uuid::new_v4(),
            queues: Vec::new(),
            activities: Vec::new(),
            labels: Labels::from([("engine".to_owned(), engine(n).to_owned())]),
            slots: STILLS_A_VISIT,
            wait_seconds: 0.0,
        };
        let worker = RemoteWorker { name: name(n), queues: vec![SNAPSHOT_QUEUE.to_owned()] };
        Self { n, db, service, worker, asked }
    }

    /// Everything it was given until there was no more.
    async fn claim_all(self) -> Vec<LeasedTask> {
        let mut all = Vec::new();
        loop {
            let (given, no_more) = if self.n % 4 < 2 {
                let given = self.service.claim(&self.worker, &self.asked).await.unwrap();
                let no_more = given.is_empty();
                (given, no_more)
            } else {
                // Somebody may have been faster with each of them.
                let chosen = self.chosen().await;
                let given = self.service.claim_these(&self.worker, &self.asked, &chosen).await.unwrap();
                (given, chosen.is_empty())
            };
            all.extend(given);
            if no_more {
                return all;
            }
        }
    }

    async fn chosen(&self) -> Vec<i64> {
        let picture =
            sqlx::query_scalar(READY).bind(SNAPSHOT_QUEUE).bind(Json(&self.asked.labels)).bind(PICTURE as i64);
        let picture: Vec<i64> = picture.fetch_all(&self.db).await.unwrap();
        // The last ones are everybody's.
        let (first, step) = if picture.len() < PICTURE { (0, 1) } else { (self.n % ONE_OF, ONE_OF) };
        picture.into_iter().skip(first).step_by(step).take(STILLS_A_VISIT as usize).collect()
    }
}

fn name(n: usize) -> String {
    format!("node:n{n}")
}

fn engine(n: usize) -> &'static str {
    if n.is_multiple_of(2) { "lottie" } else { "after_effects" }
}

#[sqlx::test(migrations = "../migrations")]
async fn s080_sixty_four_claimers_empty_a_queue_of_ten_thousand_stills_and_none_is_given_twice(db: PgPool) {
    sqlx::query(QUEUED).bind(STILLS).bind(DEFAULT_TENANT).execute(&db).await.unwrap();
    sqlx::query("analyze workflow.tasks, render.snapshot_jobs").execute(&db).await.unwrap();
    // A connection each, and one that listens.
    let connections = PgPoolOptions::new().max_connections(CLAIMERS as u32 + 1);
    let pool = connections.connect_with((*db.connect_options()).clone()).await.unwrap();
    let (service, together) = (Service::new(Client::new(pool.clone())), Arc::new(Barrier::new(CLAIMERS)));
    let claimers = (0..CLAIMERS).map(|n| {
        let (claimer, together) = (Claimer::new(n, pool.clone(), service.clone()), together.clone());
        tokio::spawn(async move {
            together.wait().await;
            claimer.claim_all().await
        })
    });
    let mut given: HashMap<i64, (Uuid, usize)> = HashMap::new();
    for (n, ended) in futures::future::join_all(claimers).await.into_iter().enumerate() {
        for task in ended.unwrap() {
            let twice = given.insert(task.task_id, (task.lease_token, n));
            assert_eq!(twice, None, "task {} was given to {n}, too", task.task_id);
        }
    }
    assert_eq!(given.len() as i64, STILLS);
    let leased: Vec<(i64, Uuid, String, String)> = sqlx::query_as(LEASED).fetch_all(&db).await.unwrap();
    assert_eq!(leased.len() as i64, STILLS, "each was begun once");
    for (id, token, holder, asked_for) in leased {
        let (given_token, n) = given[&id];
        assert_eq!((given_token, engine(n)), (token, asked_for.as_str()), "task {id}");
        assert!(holder.starts_with(&format!("{}:", name(n))), "{holder} has what was given to {n}");
    }
}
