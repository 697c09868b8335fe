//! A still, through its ordeals: it is made; it survives a crash after every event; it settles when either activity fails; a frame
//! that is lost is rendered again; older pictures do not replace newer ones.

use flatrender_engine::{Attempt, Client, Failure, Handler, Labels, Worker, client::RunState};
use flatrender_workflows::{
    contracts::{
        media::FRAME_LOST,
        render::{Engine, RenderData, RenderTiming},
        snapshot::{MadeStill, MakeStill, Picture, RenderStills, RenderedStill, SNAPSHOT_QUEUE, Still},
        storage::{BlobHash, BlobRef},
        template::Manifest,
    },
    definitions::scene_snapshot::{self, SceneSnapshot},
    models::{
        DEFAULT_TENANT, Role, Scope,
        content::{project, scene},
        render::{
            snapshot,
            snapshot_batch::{self, Finished},
            snapshot_job::{self, Request, SnapshotJob, Wanted},
            still_key::{StillKey, defaults},
        },
    },
};
use serde_json::json;
use sqlx::PgPool;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const BASE: &str = "https://films.example";

fn blob(name: &str) -> BlobRef {
    BlobRef { sha256: BlobHash::of(name.as_bytes()), size_bytes: name.len() as u64 }
}

/// Hands that do what a test tells them, and note what they were asked.
#[derive(Clone, Default)]
struct Hands {
    /// The activity that fails for good.
    failing: Option<&'static str>,
    /// How often the frame is lost before its pictures are made.
    lost: Arc<Mutex<u32>>,
    asked: Arc<Mutex<Vec<&'static str>>>,
}

impl Hands {
    fn act(&self, name: &'static str) -> Result<(), Failure> {
        self.asked.lock().unwrap().push(name);
        if self.failing == Some(name) { Err(Failure::permanent("test.refused", "as told")) } else { Ok(()) }
    }

    fn asked(&self) -> Vec<&'static str> {
        self.asked.lock().unwrap().clone()
    }
}

impl Handler<RenderStills> for Hands {
    async fn handle(&self, _: &Attempt, input: RenderStills) -> Result<Still, Failure> {
        self.act("RenderStills")?;
        let frame = blob(&format!("frame {} of {}", input.frame, input.composition));
        Ok(Still::Rendered(RenderedStill { frame, warnings: vec![], timing: RenderTiming::default() }))
    }
}

impl Handler<MakeStill> for Hands {
    async fn handle(&self, _: &Attempt, _: MakeStill) -> Result<MadeStill, Failure> {
        self.act("MakeStill")?;
        let mut lost = self.lost.lock().unwrap();
        if *lost > 0 {
            *lost -= 1;
            return Err(Failure::permanent(FRAME_LOST, "it is not there"));
        }
        let picture = |name: &str, size| Picture { blob: blob(name), size };
        Ok(MadeStill { large: picture("large", [1280, 720]), small: picture("small", [480, 270]) })
    }
}

fn manifest() -> Manifest {
    let label = json!({"en": "x"});
    let json = json!({
        "format": 1, "slug": "tiny", "version": 1, "kind": "lottie", "title": label, "description": label, "composition": "main",
        "width": 64, "height": 36, "fps": 10, "transition_frames": 2, "fonts": [],
        "scenes": [{"id": "a", "label": label, "frames": 20, "min_frames": 10, "max_frames": 40, "required": true, "still_frame": 5}]
    });
    Manifest::parse(json.to_string().as_bytes()).unwrap()
}

/// A job and the run that sees to it.
async fn asked_for(db: &PgPool) -> (Uuid, Uuid) {
    let mut tx = db.begin().await.unwrap();
    project::publish(&mut tx, DEFAULT_TENANT, &manifest(), &blob("package"), None).await.unwrap();
    let template = project::find(&mut tx, DEFAULT_TENANT, DEFAULT_TENANT, "tiny", None).await.unwrap().unwrap();
    let scene = scene::list(&mut tx, template.version_id).await.unwrap().remove(0);
    let key = StillKey::of(&template.manifest, &template.package, &scene, &defaults(&template.manifest, "a"));
    Scope::tenant(Role::Render, DEFAULT_TENANT).enter(&mut tx).await.unwrap();
    let (tenant_id, project_id, version_id) = (DEFAULT_TENANT, template.project_id, template.version_id);
    let of = Request { tenant_id, project_id, version_id, requested_by: "test" };
    let made = snapshot_job::enqueue(&mut tx, &of, &[Wanted { scene: &scene, key: &key }]).await.unwrap();
    let job_id = made[&scene.id];
    let work = RenderStills {
        job_id,
        engine: Engine::Lottie,
        package: template.package,
        package_owner: DEFAULT_TENANT,
        scene: "a".into(),
        composition: "scene:a".into(),
        frame: 5,
        data: RenderData::default(),
        size: [64, 36],
        fps: 10,
        needs: Labels::new(),
    };
    Scope::tenant(Role::Workflow, DEFAULT_TENANT).enter(&mut tx).await.unwrap();
    let workflow = SceneSnapshot { job_id, key, work, base_url: BASE.into(), limit_seconds: None };
    let run = Client::new(db.clone()).start(&mut tx, DEFAULT_TENANT, None, workflow).await.unwrap().run_id;
    Scope::tenant(Role::Render, DEFAULT_TENANT).enter(&mut tx).await.unwrap();
    snapshot_job::started(&mut tx, &[job_id], &[run]).await.unwrap();
    tx.commit().await.unwrap();
    (job_id, run)
}

/// Works until the run has ended; gives its state and the job.
async fn ended(db: &PgPool, hands: &Hands, crash_after_every_event: bool) -> (RunState, SnapshotJob) {
    let (job_id, run) = asked_for(db).await;
    let builder = Worker::builder(db.clone())
        .workflow::<SceneSnapshot>()
        .handler::<RenderStills>(hands.clone())
        .handler::<MakeStill>(hands.clone())
        .labels([("engine".to_owned(), "lottie".to_owned())].into())
        .queue(SNAPSHOT_QUEUE, 1)
        .grace(Duration::from_millis(200));
    let worker = if crash_after_every_event { builder.crash_after_every_event().build() } else { builder.build() };
    let stop = CancellationToken::new();
    let working = tokio::spawn(worker.run(stop.clone()));
    let run = Client::new(db.clone()).finished(run, Duration::from_secs(60)).await.unwrap().expect("the run ends");
    stop.cancel();
    working.await.unwrap().unwrap();
    let mut tx = db.begin().await.unwrap();
    Scope::tenant(Role::Render, DEFAULT_TENANT).enter(&mut tx).await.unwrap();
    (run.state, snapshot_job::list(&mut tx, DEFAULT_TENANT, &[job_id]).await.unwrap().remove(0))
}

async fn shown(db: &PgPool) -> Option<String> {
    sqlx::query_scalar("select snapshot_url from content.scenes").fetch_one(db).await.unwrap()
}

async fn a_still_is_made(db: PgPool, crash_after_every_event: bool) {
    let hands = Hands::default();
    let (state, job) = ended(&db, &hands, crash_after_every_event).await;
    assert_eq!((state, job.status.as_str()), (RunState::Succeeded, "done"));
    let url = format!("{BASE}/snap/{}", blob("large").sha256);
    assert_eq!((job.image_url.as_ref(), shown(&db).await.as_ref()), (Some(&url), Some(&url)));
    assert_eq!(job.small_url, Some(format!("{BASE}/snap/{}", blob("small").sha256)));
    let kept: i64 = sqlx::query_scalar("select count(*) from render.snapshots").fetch_one(&db).await.unwrap();
    assert_eq!(kept, 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_still_completes(db: PgPool) {
    a_still_is_made(db, false).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_still_survives_a_crash_after_every_event(db: PgPool) {
    a_still_is_made(db, true).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_still_settles_when_either_activity_fails(db: PgPool) {
    for activity in ["RenderStills", "MakeStill"] {
        let (state, job) = ended(&db, &Hands { failing: Some(activity), ..Hands::default() }, false).await;
        assert_eq!((state, job.status.as_str(), shown(&db).await), (RunState::Failed, "error", None), "{activity}");
        assert_eq!(job.error_code.as_deref(), Some("test.refused"), "{activity}");
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn a_lost_frame_is_rendered_again_but_not_for_ever(db: PgPool) {
    let hands = Hands { lost: Arc::new(Mutex::new(2)), ..Hands::default() };
    let (state, job) = ended(&db, &hands, false).await;
    assert_eq!((state, job.status.as_str()), (RunState::Succeeded, "done"));
    assert_eq!(hands.asked(), ["RenderStills", "MakeStill"].repeat(3));
    let hands = Hands { lost: Arc::new(Mutex::new(99)), ..Hands::default() };
    let (state, job) = ended(&db, &hands, false).await;
    assert_eq!((state, job.error_code.as_deref()), (RunState::Failed, Some(FRAME_LOST)));
    assert_eq!(hands.asked(), ["RenderStills", "MakeStill"].repeat(3));
}

/// Ends a job with an error, in a transaction that stays open; what has ended with it.
async fn end(tx: &mut sqlx::PgConnection, job: Uuid) -> Vec<Finished> {
    Scope::tenant(Role::Render, DEFAULT_TENANT).enter(&mut *tx).await.unwrap();
    snapshot_job::fail(&mut *tx, job, &Failure::permanent("test.refused", "as told")).await.unwrap();
    snapshot_batch::settle(tx, DEFAULT_TENANT, job).await.unwrap()
}

/// Waits until somebody waits for a lock.
async fn until_blocked(db: &PgPool) {
    let sql = "select count(*) from pg_locks where not granted";
    while sqlx::query_scalar::<_, i64>(sql).fetch_one(db).await.unwrap() == 0 {
        tokio::task::yield_now().await;
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn of_two_stills_that_end_at_once_the_second_ends_their_request(db: PgPool) {
    let (first, _) = asked_for(&db).await;
    let (second, project_id, jane) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    let sql = "insert into render.snapshot_jobs (id, tenant_id, project_id, project_version_id, scene_id, scene_key, workflow_run_id)
               select $1, tenant_id, project_id, project_version_id, $1, 'b', $1 from render.snapshot_jobs";
    sqlx::query(sql).bind(second).execute(&db).await.unwrap();
    let mut tx = db.begin().await.unwrap();
    Scope::tenant(Role::Render, DEFAULT_TENANT).enter(&mut tx).await.unwrap();
    let (id, ended) =
        snapshot_batch::begin(&mut tx, DEFAULT_TENANT, project_id, Some(jane), &[first, second]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(ended, None);
    let mut one = db.begin().await.unwrap();
    assert_eq!(end(&mut one, first).await, []);
    let other = tokio::spawn({
        let db = db.clone();
        async move {
            let mut tx = db.begin().await.unwrap();
            let ended = end(&mut tx, second).await;
            tx.commit().await.unwrap();
            ended
        }
    });
    until_blocked(&db).await;
    one.commit().await.unwrap();
    let ended = other.await.unwrap();
    assert_eq!(
        ended.iter().map(|b| (b.id, b.project_id, b.done, b.failed)).collect::<Vec<_>>(),
        [(id, project_id, 0, 2)]
    );
    // Whoever asked for them is told, and where they are.
    let mut tx = db.begin().await.unwrap();
    scene_snapshot::tell(&Client::new(db.clone()), &mut tx, ended).await.unwrap();
    tx.commit().await.unwrap();
    let told = "select input #>> '{news,audience,user}', input #>> '{news,data,project_id}' from workflow.runs where kind = 'notify'";
    let told: (String, String) = sqlx::query_as(told).fetch_one(&db).await.unwrap();
    assert_eq!(told, (jane.to_string(), project_id.to_string()));
    let mut tx = db.begin().await.unwrap();
    assert_eq!(end(&mut tx, second).await, [], "it is told once");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_request_for_a_still_that_ends_at_that_moment_ends_with_it(db: PgPool) {
    let (job, _) = asked_for(&db).await;
    let mut ending = db.begin().await.unwrap();
    assert_eq!(end(&mut ending, job).await, []);
    let asking = tokio::spawn({
        let db = db.clone();
        async move {
            let mut tx = db.begin().await.unwrap();
            Scope::tenant(Role::Render, DEFAULT_TENANT).enter(&mut tx).await.unwrap();
            let begun = snapshot_batch::begin(&mut tx, DEFAULT_TENANT, Uuid::nil(), None, &[job]).await.unwrap();
            tx.commit().await.unwrap();
            begun
        }
    });
    until_blocked(&db).await;
    ending.commit().await.unwrap();
    let (_, ended) = asking.await.unwrap();
    assert_eq!(ended.map(|batch| (batch.done, batch.failed)), Some((0, 1)));
}

#[sqlx::test(migrations = "../migrations")]
async fn old_requests_are_forgotten_but_for_the_newest_of_a_scene(db: PgPool) {
    let (job, _) = asked_for(&db).await;
    let mut tx = db.begin().await.unwrap();
    end(&mut tx, job).await;
    tx.commit().await.unwrap();
    let older = "insert into render.snapshot_jobs (tenant_id, project_id, project_version_id, scene_id, scene_key, workflow_run_id,
                     status, image_url, created_at, finished_at, tidied_at)
                 select tenant_id, project_id, project_version_id, scene_id, scene_key, gen_random_uuid(), 'done', 'https://films.example/snap/' || n,
                     t, t, t
                 from render.snapshot_jobs, (values (1, workflow.now() - interval '100 days'), (2, workflow.now() - interval '99 days'),
                     (3, workflow.now() - interval '89 days')) o(n, t)";
    sqlx::query(older).execute(&db).await.unwrap();
    let mut tx = db.begin().await.unwrap();
    Scope::platform(Role::Admin).enter(&mut tx).await.unwrap();
    assert_eq!(snapshot_job::forget_old(&mut tx, 100).await.unwrap(), 2);
    assert_eq!(snapshot_job::forget_old(&mut tx, 100).await.unwrap(), 0);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_still_whose_run_the_engine_gave_up_is_settled_however_many_wait_before_it(db: PgPool) {
    let (job, run) = asked_for(&db).await;
    let waiting = "insert into render.snapshot_jobs (tenant_id, project_id, project_version_id, scene_id, scene_key, workflow_run_id, created_at)
                   select tenant_id, project_id, project_version_id, gen_random_uuid(), 'b', gen_random_uuid(), created_at - interval '1 hour'
                   from render.snapshot_jobs, generate_series(1, 1001)";
    sqlx::query(waiting).execute(&db).await.unwrap();
    let give_up = r#"select workflow.end_run(id, 'failed', null,
        '{"code": "workflow.lost_too_often", "message": "given up", "retryable": false}')
        from workflow.tasks where run_id = $1"#;
    sqlx::query(give_up).bind(run).execute(&db).await.unwrap();
    let mut tx = Scope::platform(Role::Render).begin(&db).await.unwrap();
    assert_eq!(snapshot_job::settle_abandoned(&mut tx).await.unwrap(), (1, vec![]));
    let jobs = snapshot_job::list(&mut tx, DEFAULT_TENANT, &[job]).await.unwrap();
    assert_eq!(jobs[0].error_code.as_deref(), Some("workflow.lost_too_often"));
}

/// A node that was not brought up to date yet: its picture is shown, and whoever asks again gets one of the right version.
#[sqlx::test(migrations = "../migrations")]
async fn what_a_renderer_of_another_version_made_is_shown_and_answers_no_other_request(db: PgPool) {
    for (version, known) in [("9.9.9", 0), (env!("CARGO_PKG_VERSION"), 1)] {
        let (job, run) = asked_for(&db).await;
        let node = "with node as (
                        insert into render.nodes (name, capabilities, credential_hash, last_seen_at)
                        values ($2, jsonb_build_object('renderers', jsonb_build_object('lottie', 'aerender version ' || $2 || ' (FlatRender)')),
                                sha256(convert_to($2, 'UTF8')), workflow.now()) returning id)
                    update render.snapshot_jobs j set node_id = node.id from node where j.id = $1";
        sqlx::query(node).bind(job).bind(version).execute(&db).await.unwrap();
        let input: serde_json::Value =
            sqlx::query_scalar("select input from workflow.runs where id = $1").bind(run).fetch_one(&db).await.unwrap();
        let key: StillKey = serde_json::from_value(input["key"].clone()).unwrap();
        let picture = |name: &str, size| Picture { blob: blob(&format!("{name} of {version}")), size };
        let still = MadeStill { large: picture("large", [1280, 720]), small: picture("small", [480, 270]) };
        let mut tx = Scope::tenant(Role::Render, DEFAULT_TENANT).begin(&db).await.unwrap();
        snapshot_job::publish(&mut tx, job, &key, &still, BASE).await.unwrap();
        let jobs = snapshot_job::list(&mut tx, DEFAULT_TENANT, &[job]).await.unwrap();
        let url = format!("{BASE}/snap/{}", still.large.blob.sha256);
        assert_eq!((jobs[0].status.as_str(), jobs[0].image_url.as_ref()), ("done", Some(&url)));
        assert_eq!(snapshot::find(&mut tx, DEFAULT_TENANT, &[key.digest()]).await.unwrap().len(), known, "{version}");
        tx.commit().await.unwrap();
    }
}
