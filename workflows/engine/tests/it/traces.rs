//! One trace from the caller through everything that is done for it.

use crate::world::{Work, World, effect};
use flatrender_engine::{
    Activity, Attempt, Client, Context, Failure, Handler, JobOptions, Labels, TraceContext, Workflow,
    schedules::{Overlap, Schedules, Terms},
};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};
use tracing::{
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{Layer, layer::SubscriberExt};
use uuid::Uuid;

/// Keeps every span that is opened, by its name and fields.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Seen>>>);

#[derive(Debug, Clone)]
struct Seen {
    name: &'static str,
    fields: BTreeMap<String, String>,
}

impl<S: tracing::Subscriber> Layer<S> for Spans {
    fn on_new_span(&self, attrs: &span::Attributes<'_>, _: &span::Id, _: tracing_subscriber::layer::Context<'_, S>) {
        let mut seen = Seen { name: attrs.metadata().name(), fields: BTreeMap::new() };
        attrs.record(&mut seen);
        self.0.lock().unwrap().push(seen);
    }
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.insert(field.name().to_owned(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

impl Spans {
    fn of_the_engine(&self) -> Vec<Seen> {
        let of_ours = |seen: &&Seen| seen.fields.contains_key("trace_id");
        self.0.lock().unwrap().iter().filter(of_ours).cloned().collect()
    }
}

/// Three steps, an activity here, one elsewhere, a child, and a run of its own.
#[derive(Serialize, Deserialize)]
struct Errand;

impl Workflow for Errand {
    const NAME: &'static str = "errand";
    type Output = Vec<Option<TraceContext>>;

    async fn run(self, cx: &Context) -> Result<Self::Output, Failure> {
        let mut seen = vec![cx.trace_context()];
        for key in ["first", "second"] {
            seen.push(cx.step(key, async |_| Ok(TraceContext::current())).await?);
        }
        seen.push(cx.memo("third", async || Ok(TraceContext::current())).await?);
        cx.activity("near", Work::new(1)).await?;
        seen.push(cx.activity("far", Far).await?);
        seen.push(cx.child("child", Child).await?);
        cx.start_detached("detached", None, Child).await?;
        Ok(seen)
    }
}

#[derive(Serialize, Deserialize)]
struct Child;

impl Workflow for Child {
    const NAME: &'static str = "child";
    type Output = Option<TraceContext>;

    async fn run(self, cx: &Context) -> Result<Self::Output, Failure> {
        cx.step("only", async |db| {
            effect(db, cx.run_id(), "only").await?;
            Ok(TraceContext::current())
        })
        .await
    }
}

/// Done by a worker without a database.
#[derive(Serialize, Deserialize)]
struct Far;

impl Activity for Far {
    const NAME: &'static str = "Far";
    const QUEUE: &'static str = "far";
    type Output = Option<TraceContext>;
}

/// Tells which context its calls to others would carry.
#[derive(Clone, Default)]
struct Telling(Arc<Mutex<Vec<Option<TraceContext>>>>);

impl Handler<Work> for Telling {
    async fn handle(&self, cx: &Attempt, _: Work) -> Result<u32, Failure> {
        assert_eq!(TraceContext::current(), cx.trace_context());
        self.0.lock().unwrap().push(cx.trace_context());
        Ok(0)
    }
}

/// Does the activity that waits for somebody elsewhere.
async fn far_away(client: &Client) -> TraceContext {
    loop {
        let task = client.claim(&["far"], &Labels::new(), "elsewhere", 1).await.unwrap().pop();
        if let Some(task) = task {
            // As it comes over the wire.
            let task = serde_json::from_value(serde_json::to_value(task).unwrap()).unwrap();
            let (attempt, _keeper) = Attempt::new(task);
            let seen = attempt.traced(async { TraceContext::current() }).await;
            let fence = attempt.task();
            client.complete(fence.task_id, fence.lease_token, &seen).await.unwrap();
            return seen.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[sqlx::test(migrations = false)]
async fn one_trace_leads_from_the_caller_to_every_worker(db: PgPool) {
    let spans = Spans::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(spans.clone()));
    let mut world = World::new(db).await;
    let near = Telling::default();
    world.worker(|w| w.workflow::<Errand>().workflow::<Child>().handler::<Work>(near.clone()));
    let request: TraceContext = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap();
    let run_id = request.scope(world.start(Errand)).await;
    let far = far_away(&world.client).await;
    let run = world.end(run_id).await;
    world.until(0, "select count(*) from workflow.runs where state = 'running'").await;
    world.stop().await;

    let seen: Vec<Option<TraceContext>> = run.output_as().unwrap();
    let places: Vec<TraceContext> =
        seen.into_iter().chain(near.0.lock().unwrap().clone()).map(|context| context.unwrap()).chain([far]).collect();
    assert_eq!(places.len(), 8);
    assert!(places.iter().all(|place| place.trace_id() == request.trace_id()), "{places:?}");
    assert_eq!(run.traceparent, Some(request));

    let spans = spans.of_the_engine();
    assert!(spans.iter().all(|span| span.fields["trace_id"] == request.trace_id()), "{spans:#?}");
    let mut names: HashMap<&str, usize> = HashMap::new();
    spans.iter().for_each(|span| *names.entry(span.name).or_default() += 1);
    // Steps: three of the errand, one of each child. Attempts: near and far.
    assert_eq!(names, HashMap::from([("run", 3), ("step", 5), ("attempt", 2)]));
    // Every span has an id of its own, and a parent that is the caller or another span.
    let ids: HashSet<&str> = spans.iter().map(|span| span.fields["span_id"].as_str()).collect();
    assert_eq!(ids.len(), spans.len());
    let caller = request.span_id();
    let is_known = |span: &Seen| span.fields["parent_id"] == caller || ids.contains(span.fields["parent_id"].as_str());
    assert!(spans.iter().all(is_known), "{spans:#?}");
    let own = run_id.to_string();
    let errand = spans.iter().find(|span| span.name == "run" && span.fields["run.id"] == own).unwrap();
    assert_eq!((&errand.fields["parent_id"], errand.fields["kind"].as_str()), (&caller, "errand"));
}

#[sqlx::test(migrations = false)]
async fn without_a_trace_nothing_is_stored_or_logged(db: PgPool) {
    let spans = Spans::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(spans.clone()));
    let mut world = World::new(db).await;
    let near = Telling::default();
    world.worker(|w| w.workflow::<Errand>().workflow::<Child>().handler::<Work>(near.clone()));
    let run_id = world.start(Errand).await;
    world.until(1, "select count(*) from workflow.tasks where queue = 'far' and traceparent is null").await;
    assert_eq!(world.client.run(run_id).await.unwrap().unwrap().traceparent, None);
    assert_eq!(*near.0.lock().unwrap(), [None]);
    assert!(spans.of_the_engine().is_empty());
    world.stop().await;
}

#[sqlx::test(migrations = false)]
async fn jobs_and_many_runs_belong_to_the_trace_of_their_caller(db: PgPool) {
    let mut world = World::new(db).await;
    let near = Telling::default();
    let request = TraceContext::root();
    let (many, job) = (vec![Child, Child], Work::new(1));
    request
        .scope(async {
            let mut tx = world.db.begin().await.unwrap();
            world.client.start_all(&mut tx, world.tenant, many).await.unwrap();
            world.client.enqueue(&mut tx, world.tenant, job, &JobOptions::default()).await.unwrap();
            tx.commit().await.unwrap();
        })
        .await;
    world.worker(|w| w.workflow::<Child>().handler::<Work>(near.clone()));
    world.until(2, "select count(*) from workflow.runs where state = 'succeeded'").await;
    world.until(0, "select count(*) from workflow.jobs").await;
    let runs: Vec<Uuid> = sqlx::query_scalar("select id from workflow.runs").fetch_all(&world.db).await.unwrap();
    for run_id in runs {
        let run = world.client.run(run_id).await.unwrap().unwrap();
        assert_eq!(run.traceparent, Some(request));
        assert_eq!(run.output_as::<Option<TraceContext>>().unwrap().unwrap().trace_id(), request.trace_id());
    }
    let done = near.0.lock().unwrap().clone();
    assert_eq!(done[0].unwrap().trace_id(), request.trace_id());
    world.stop().await;
}

#[sqlx::test(migrations = false)]
async fn the_clock_begins_a_trace_of_its_own_each_time(db: PgPool) {
    let world = World::new(db).await;
    let schedules = Schedules::new(world.client.clone());
    let mut terms = Terms::of("often", "* * * * *", &Child).unwrap();
    terms.overlap = Overlap::Allow;
    let mut tx = world.db.begin().await.unwrap();
    schedules.create(&mut tx, world.tenant, &terms).await.unwrap();
    tx.commit().await.unwrap();
    for _ in 0..2 {
        world.move_clock(Duration::from_secs(60)).await;
        schedules.fire_due().await.unwrap();
    }
    let texts: Vec<String> =
        sqlx::query_scalar("select traceparent from workflow.runs").fetch_all(&world.db).await.unwrap();
    let traces: HashSet<String> = texts.iter().map(|t| t.parse::<TraceContext>().unwrap().trace_id()).collect();
    assert_eq!((texts.len(), traces.len()), (2, 2));
}

#[sqlx::test(migrations = false)]
async fn a_context_that_was_spoilt_in_the_database_counts_as_none(db: PgPool) {
    let mut world = World::new(db).await;
    let request = TraceContext::root();
    let run_id = request.scope(world.start(Child)).await;
    sqlx::raw_sql("update workflow.tasks set traceparent = repeat('x', 55)").execute(&world.db).await.unwrap();
    world.worker(|w| w.workflow::<Child>());
    assert_eq!(world.end(run_id).await.output_as::<Option<TraceContext>>(), Some(None));
    world.stop().await;
}
