//! A world in which renders happen without a renderer: handlers that answer at once, and note what they were asked.

use flatrender_engine::{Attempt, Client, Delivery, Failure, Handler, Worker, client::Run};
use flatrender_workflows::{
    contracts::{
        media::{
            AssembleVideo, ClearShelf, DrawContactSheet, EncodePart, EncodeProfile, EncodedPart, FRAME_LOST, KeepScene,
            MixAudio, MixedAudio, PART_LOST, ProbedVideo, TakeScenes, TakenScenes, VerifiedFrames, VerifyFrames,
            VerifyVideo,
        },
        render::{
            FaultReason, FrameFault, FrameRange, FrameRef, NODE_QUEUE, RenderFrames, RenderTiming, RenderedFrames,
            Spoiled,
        },
        storage::{BlobHash, BlobRef},
        template::Manifest,
    },
    definitions::{limit::Limits, render_video::RenderVideo},
    models::{
        DEFAULT_TENANT, Role, Scope,
        content::project,
        render::{
            export::{self, NewExport},
            freeze,
            order::RenderOrder,
            render_job,
            spec::FilmKind,
            stored_frame,
        },
        scope::Scoped,
    },
};
use serde_json::json;
use sqlx::PgPool;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// As which node the world's hands work, when there is a row of it.
pub const NODE: &str = "node:one:00000000-0000-0000-0000-000000000000";

/// What the world does out of the ordinary.
#[derive(Debug, Default)]
pub struct Mischief {
    /// Activities that fail for good, by name, with this code.
    pub failing: BTreeMap<&'static str, &'static str>,
    /// Frames that come out bad this many times before they come out right.
    pub bad_frames: BTreeMap<u32, u32>,
    /// Frames that an activity finds lost, although they were verified, this many times.
    pub lost_frames: BTreeMap<(&'static str, u32), u32>,
    /// Activities whose handler never ends by itself.
    pub hanging: Option<&'static str>,
    /// A frame at which the renderer crashes, this many times. It stores nothing that it did not report.
    pub crashing: Option<(u32, u32)>,
    /// Activities that fail this many times because of something that passes.
    pub faltering: BTreeMap<&'static str, u32>,
    /// Kept scenes are known, but not there.
    pub scenes_are_gone: bool,
    /// Frames that look black, however often they are rendered.
    pub black_frames: BTreeSet<u32>,
    /// No two attempts paint a frame alike.
    pub never_alike: bool,
    /// Renderers tell of a frame that nobody asked them for.
    pub beyond: bool,
    /// A part or the sound is found lost when they are joined, this many times.
    pub lost_parts: u32,
    /// Frames that come out bad this many times when they are not verified with their neighbours.
    pub bad_apart: BTreeMap<u32, u32>,
    /// When this is asked for, the attempt of this lease token says that its frames are spoiled; for worlds that store.
    pub spoils: Option<(&'static str, Uuid)>,
}

/// The world's hands and its notebook.
#[derive(Clone, Default)]
pub struct World(Arc<Mutex<Mischief>>, Arc<Mutex<Vec<String>>>, Arc<Mutex<Option<PgPool>>>);

pub fn blob(name: &str) -> BlobRef {
    BlobRef { sha256: BlobHash::of(name.as_bytes()), size_bytes: name.len() as u64 }
}

impl World {
    pub fn with(mischief: Mischief) -> Self {
        Self(Arc::new(Mutex::new(mischief)), Arc::default(), Arc::default())
    }

    /// From here on frames are noted as a node's are when it has stored them.
    pub fn store_for(&self, db: &PgPool) {
        *self.2.lock().unwrap() = Some(db.clone());
    }

    /// What was asked of the world, in order.
    pub fn asked(&self) -> Vec<String> {
        self.1.lock().unwrap().clone()
    }

    async fn act(&self, cx: &Attempt, name: &'static str, what: String) -> Result<(), Failure> {
        let asked = format!("{name} {what}");
        let told = self.0.lock().unwrap().spoils.take_if(|(when, _)| asked.starts_with(*when));
        let db = self.2.lock().unwrap().clone();
        if let (Some((_, token)), Some(db)) = (told, db) {
            spoil(&db, token).await;
        }
        self.1.lock().unwrap().push(asked);
        let (code, hangs) = {
            let mischief = self.0.lock().unwrap();
            (mischief.failing.get(name).copied(), mischief.hanging == Some(name))
        };
        if let Some(times @ 1..) = self.0.lock().unwrap().faltering.get_mut(name) {
            *times -= 1;
            return Err(Failure::transient("storage.unavailable", "as told"));
        }
        if hangs {
            return Err(cx.ended().await);
        }
        code.map_or(Ok(()), |code| Err(Failure::permanent(code, "as told")))
    }

    /// Fails when a frame that was verified is not on the shelf any more; the next verification finds it bad.
    fn use_frames(&self, name: &'static str, frames: &[FrameRef]) -> Result<(), Failure> {
        let mut mischief = self.0.lock().unwrap();
        for FrameRef { frame, .. } in frames {
            if let Some(times @ 1..) = mischief.lost_frames.get_mut(&(name, *frame)) {
                *times -= 1;
                mischief.bad_frames.insert(*frame, 1);
                return Err(Failure::permanent(FRAME_LOST, format!("frame {frame} is lost")));
            }
        }
        Ok(())
    }

    /// Fails as a renderer does that crashes at one of these frames.
    fn crash(&self, frames: FrameRange) -> Result<(), Failure> {
        match &mut self.0.lock().unwrap().crashing {
            Some((frame, times @ 1..)) if frames.contains(*frame) => {
                *times -= 1;
                Err(Failure::transient("render.crashed", "the renderer ended with signal 11"))
            }
            _ => Ok(()),
        }
    }

    /// Works until the run has ended; gives it.
    pub async fn finish(&self, db: &PgPool, run_id: Uuid, crash_after_every_event: bool) -> Run {
        let stop = CancellationToken::new();
        let working = tokio::spawn(self.worker(db, crash_after_every_event).run(stop.clone()));
        let run =
            Client::new(db.clone()).finished(run_id, Duration::from_secs(60)).await.unwrap().expect("the run ends");
        stop.cancel();
        working.await.unwrap().unwrap();
        run
    }

    pub fn worker(&self, db: &PgPool, crash_after_every_event: bool) -> Worker {
        let builder = Worker::builder(db.clone())
            .name(NODE)
            .workflow::<RenderVideo>()
            .handler::<RenderFrames>(self.clone())
            .handler::<VerifyFrames>(self.clone())
            .handler::<EncodePart>(self.clone())
            .handler::<MixAudio>(self.clone())
            .handler::<AssembleVideo>(self.clone())
            .handler::<VerifyVideo>(self.clone())
            .handler::<DrawContactSheet>(self.clone())
            .handler::<ClearShelf>(self.clone())
            .handler::<TakeScenes>(self.clone())
            .handler::<KeepScene>(self.clone())
            .labels([("engine".to_owned(), "lottie".to_owned())].into())
            .queue(NODE_QUEUE, 4)
            .grace(Duration::from_millis(200));
        if crash_after_every_event { builder.crash_after_every_event().build() } else { builder.build() }
    }
}

impl Handler<RenderFrames> for World {
    async fn handle(&self, cx: &Attempt, input: RenderFrames) -> Result<RenderedFrames, Failure> {
        let avoid = if input.avoid.is_empty() { String::new() } else { format!(" not on {}", input.avoid.join(", ")) };
        self.act(cx, "RenderFrames", format!("{}-{}{avoid}", input.frames.first, input.frames.last)).await?;
        self.crash(input.frames)?;
        let (never_alike, beyond) = {
            let mischief = self.0.lock().unwrap();
            (mischief.never_alike, mischief.beyond)
        };
        let by = if never_alike { cx.lease_token().to_string() } else { String::new() };
        let numbers = input.frames.iter().chain(beyond.then_some(input.frames.last + 1));
        let frames: Vec<FrameRef> =
            numbers.map(|frame| FrameRef { frame, blob: blob(&format!("frame {frame}{by}")) }).collect();
        let db = self.2.lock().unwrap().clone();
        if let Some(db) = db {
            store(&db, input.render_id, cx.lease_token(), &frames).await;
        }
        let timing = RenderTiming { render_ms: 2000, ..RenderTiming::default() };
        Ok(RenderedFrames { frames, faults: vec![], cause: None, warnings: vec![], timing })
    }
}

impl Handler<VerifyFrames> for World {
    async fn handle(&self, cx: &Attempt, input: VerifyFrames) -> Result<VerifiedFrames, Failure> {
        self.act(cx, "VerifyFrames", input.frames.len().to_string()).await?;
        let mut faults = vec![];
        let mut mischief = self.0.lock().unwrap();
        for FrameRef { frame, .. } in &input.frames {
            if let Some(times @ 1..) = mischief.bad_frames.get_mut(frame) {
                *times -= 1;
                faults.push(FrameFault { frame: *frame, reason: FaultReason::Corrupt });
            }
        }
        // As the real one does: of a few frames, or of such as do not follow each other, nothing can be said.
        let told = input.frames.len() >= 8 && input.frames.windows(2).all(|two| two[0].frame + 1 == two[1].frame);
        for FrameRef { frame, .. } in input.frames.iter().filter(|_| !told) {
            if let Some(times @ 1..) = mischief.bad_apart.get_mut(frame) {
                *times -= 1;
                faults.push(FrameFault { frame: *frame, reason: FaultReason::Corrupt });
            }
        }
        let black = input.frames.iter().filter(|f| told && mischief.black_frames.contains(&f.frame));
        let doubts = black.map(|f| FrameFault { frame: f.frame, reason: FaultReason::Black }).collect();
        Ok(VerifiedFrames { good: (input.frames.len() - faults.len()) as u32, faults, doubts })
    }
}

impl Handler<EncodePart> for World {
    async fn handle(&self, cx: &Attempt, input: EncodePart) -> Result<EncodedPart, Failure> {
        let first = input.frames[0].frame;
        self.act(cx, "EncodePart", first.to_string()).await?;
        self.use_frames("EncodePart", &input.frames)?;
        Ok(EncodedPart { blob: blob(&format!("part {first}")), frames: input.frames.len() as u32 })
    }
}

impl Handler<MixAudio> for World {
    async fn handle(&self, cx: &Attempt, input: MixAudio) -> Result<MixedAudio, Failure> {
        self.act(cx, "MixAudio", input.tracks.len().to_string()).await?;
        Ok(MixedAudio { blob: blob("sound"), samples: 1 })
    }
}

impl Handler<AssembleVideo> for World {
    async fn handle(&self, cx: &Attempt, input: AssembleVideo) -> Result<BlobRef, Failure> {
        self.act(cx, "AssembleVideo", input.parts.len().to_string()).await?;
        let mut mischief = self.0.lock().unwrap();
        if mischief.lost_parts > 0 {
            mischief.lost_parts -= 1;
            return Err(Failure::permanent(PART_LOST, "a part is lost"));
        }
        Ok(blob("film"))
    }
}

impl Handler<VerifyVideo> for World {
    async fn handle(&self, cx: &Attempt, input: VerifyVideo) -> Result<ProbedVideo, Failure> {
        self.act(cx, "VerifyVideo", input.frames.to_string()).await?;
        let duration_ms = u64::from(input.frames) * 1000 / u64::from(input.fps);
        let (video_codec, audio_codec) = ("h264".into(), "aac".into());
        Ok(ProbedVideo { frames: input.frames, duration_ms, video_codec, audio_codec, size: input.size })
    }
}

impl Handler<DrawContactSheet> for World {
    async fn handle(&self, cx: &Attempt, input: DrawContactSheet) -> Result<BlobRef, Failure> {
        self.act(cx, "DrawContactSheet", input.frames.len().to_string()).await?;
        Ok(blob("sheet"))
    }
}

impl Handler<TakeScenes> for World {
    async fn handle(&self, cx: &Attempt, input: TakeScenes) -> Result<TakenScenes, Failure> {
        self.act(cx, "TakeScenes", input.scenes.len().to_string()).await?;
        let there = !self.0.lock().unwrap().scenes_are_gone;
        Ok(TakenScenes { taken: if there { input.scenes } else { vec![] } })
    }
}

impl Handler<KeepScene> for World {
    async fn handle(&self, cx: &Attempt, input: KeepScene) -> Result<(), Failure> {
        self.act(cx, "KeepScene", input.scene.part.frames.to_string()).await
    }
}

impl Handler<ClearShelf> for World {
    async fn handle(&self, cx: &Attempt, _: ClearShelf) -> Result<(), Failure> {
        self.act(cx, "ClearShelf", String::new()).await
    }
}

/// Notes frames as a node's that it has stored.
pub async fn store(db: &PgPool, render_id: Uuid, lease_token: Uuid, frames: &[FrameRef]) {
    let mut tx = db.begin().await.unwrap();
    Scope::tenant(Role::Render, DEFAULT_TENANT).enter(&mut tx).await.unwrap();
    stored_frame::note(&mut tx, DEFAULT_TENANT, render_id, lease_token, frames).await.unwrap();
    tx.commit().await.unwrap();
}

/// Says that what an attempt had stored of the only film is spoiled, as a node does that was cut off.
pub async fn spoil(db: &PgPool, lease_token: Uuid) {
    let (word, client) = begin_to_spoil(db, lease_token).await;
    word.commit().await.unwrap();
    client.announce();
}

/// The same up to the commit, and who announces it then.
pub async fn begin_to_spoil(db: &PgPool, lease_token: Uuid) -> (Scoped, Client) {
    let run_id = sqlx::query_scalar("select workflow_run_id from render.render_jobs").fetch_one(db).await.unwrap();
    let (client, once) = (Client::new(db.clone()), lease_token.to_string());
    let said = Spoiled { node: "one".to_owned(), code: "render.logged_errors".to_owned() };
    let mut tx = Scope::tenant(Role::Workflow, DEFAULT_TENANT).begin(db).await.unwrap();
    let told = client.signal(&mut tx, run_id, Spoiled::SIGNAL, Some(&once), &said).await.unwrap();
    assert_eq!(told, Delivery::Accepted);
    (tx, client)
}

/// Publishes a film, as its run does in the step before it ends.
pub async fn publish(db: &PgPool, render_id: Uuid) {
    let (tenant_id, profile, video, sheet) = (DEFAULT_TENANT, EncodeProfile::Final, &blob("film"), &blob("sheet"));
    let (video_codec, audio_codec) = ("h264".into(), "aac".into());
    let probed = &ProbedVideo { frames: 165, duration_ms: 5500, video_codec, audio_codec, size: [1920, 1080] };
    let mut tx = Scope::tenant(Role::Render, DEFAULT_TENANT).begin(db).await.unwrap();
    export::publish(&mut tx, &NewExport { tenant_id, render_id, profile, video, sheet, probed }).await.unwrap();
    tx.commit().await.unwrap();
}

/// Publishes a template, places an order for it and starts its run, as the API does.
pub async fn order(db: &PgPool) -> (Uuid, Uuid) {
    order_of(db, &[]).await
}

/// The same with some words in it, by field.
pub async fn order_of(db: &PgPool, texts: &[(&str, &str)]) -> (Uuid, Uuid) {
    let manifest = manifest();
    let mut tx = db.begin().await.unwrap();
    project::publish(&mut tx, DEFAULT_TENANT, &manifest, &blob("package"), None).await.unwrap();
    let template = project::find(&mut tx, DEFAULT_TENANT, DEFAULT_TENANT, "promo", None).await.unwrap().unwrap();
    let mut order = RenderOrder { template: "promo".into(), ..RenderOrder::default() };
    order.data.texts = texts.iter().map(|(key, text)| (key.to_string(), text.to_string())).collect();
    let spec = freeze::freeze(DEFAULT_TENANT, &template, &order, &[]).unwrap();
    let id = Uuid::now_v7();
    let client = Client::new(db.clone());
    let workflow = RenderVideo::new(id, FilmKind::Final, Limits::default());
    Scope::tenant(Role::Workflow, DEFAULT_TENANT).enter(&mut tx).await.unwrap();
    let run = client.start(&mut tx, DEFAULT_TENANT, Some(&id.to_string()), workflow).await.unwrap();
    let request = blob("order");
    let new = render_job::NewRenderJob {
        id,
        tenant_id: DEFAULT_TENANT,
        template: &template,
        order: &order,
        spec: &spec,
        request_sha256: request.sha256.as_str(),
        idempotency_key: None,
        workflow_run_id: run.run_id,
    };
    Scope::tenant(Role::Render, DEFAULT_TENANT).enter(&mut tx).await.unwrap();
    assert!(render_job::insert(&mut tx, &new).await.unwrap());
    tx.commit().await.unwrap();
    (id, run.run_id)
}

/// Two scenes, 165 frames.
fn manifest() -> Manifest {
    let label = json!({"en": "x"});
    let scene = |id: &str| json!({"id": id, "label": label, "frames": 90, "min_frames": 60, "max_frames": 180, "required": true, "still_frame": 40});
    let text = |key: &str, scene: &str| json!({"key": key, "scene": scene, "label": label, "required": false, "max_chars": 9, "max_lines": 1, "default": "d"});
    let manifest = json!({
        "format": 1, "slug": "promo", "version": 1, "kind": "lottie", "title": label, "description": label,
        "composition": "main", "width": 1920, "height": 1080, "fps": 30, "transition_frames": 15, "fonts": [],
        "texts": [text("one", "a"), text("two", "b")], "scenes": [scene("a"), scene("b")]
    });
    Manifest::parse(manifest.to_string().as_bytes()).unwrap()
}
