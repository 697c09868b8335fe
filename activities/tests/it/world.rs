//! A package for the stand-in, a machine to render it on, and storage that remembers what it was given.

use crate::picture;
use flatrender_activities::aerender::{
    Aerender, FrameSink, InputSource, Job, Limits, ProcessId, ProvenFrame, TransferError,
    cache::Cache,
    prepare::Shot,
    process::census::{self, Mark},
    unpack::Bounds,
};
use flatrender_engine::{Attempt, AttemptKeeper, Failure, Labels, LeasedTask, Standing};
use flatrender_workflows::contracts::{
    render::{
        Engine, Fit, FrameClass, FrameRange, ImageBinding, RenderAsset, RenderData, RenderFrames, RenderedFrames,
    },
    storage::{BlobHash, BlobRef},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    io::{Cursor, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use zip::{ZipWriter, write::SimpleFileOptions};

pub const SIZE: [u32; 2] = [64, 36];

/// The stand-in, which cargo builds with the tests.
pub fn stand_in() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let folder = tests.parent().and_then(Path::parent).unwrap().join("examples");
    folder.join(format!("fake_aerender{}", std::env::consts::EXE_SUFFIX))
}

/// Timers of a test: short, but none that a busy machine would miss.
pub fn limits() -> Limits {
    Limits {
        launch: Duration::from_secs(20),
        load: Duration::from_secs(20),
        first_frame: Duration::from_secs(20),
        frame_stall: Duration::from_secs(20),
        quit: Duration::from_secs(20),
        total: Duration::from_secs(60),
        linger: Duration::from_millis(300),
        busy_factor: 10,
        busy_share: 0.1,
    }
}

pub fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A project of the stand-in.
pub fn project() -> Value {
    json!({ "compositions": [{ "name": "main", "frames": 100, "size": SIZE }] })
}

/// A package of the stand-in: composition `main` of 100 frames, and what goes wrong with it.
pub fn package(scenario: Value) -> Vec<u8> {
    zip(&[("project.json", project().to_string().as_bytes()), ("scenario.json", scenario.to_string().as_bytes())])
}

pub fn blob(bytes: &[u8]) -> BlobRef {
    BlobRef { sha256: BlobHash::of(bytes), size_bytes: bytes.len() as u64 }
}

/// A wish for frames `first` to `last` of `package`.
pub fn wish(package: &[u8], first: u32, last: u32) -> RenderFrames {
    RenderFrames {
        render_id: Uuid::new_v4(),
        engine: Engine::Lottie,
        package: blob(package),
        package_owner: Uuid::nil(),
        composition: "main".into(),
        frames: FrameRange { first, last },
        data: RenderData {
            version: 1,
            texts: BTreeMap::from([("title".into(), "سلام".into())]),
            ..RenderData::default()
        },
        assets: Vec::new(),
        size: SIZE,
        fps: 30,
        pace: None,
        needs: Labels::new(),
        avoid: vec![],
        class: FrameClass::Final,
    }
}

/// What the stand-in draws for a frame of a wish.
pub fn drawn(wish: &RenderFrames, frame: u32) -> Vec<u8> {
    picture::png(&wish.composition, frame, &serde_json::to_vec(&wish.data).unwrap(), SIZE)
}

/// What the stand-in draws for a frame of a prepared project.
pub fn drawn_prepared(project: &Path, composition: &str, frame: u32) -> Vec<u8> {
    let prepared: Value = serde_json::from_slice(&std::fs::read(project).unwrap()).unwrap();
    picture::png(composition, frame, prepared["compositions"].to_string().as_bytes(), SIZE)
}

pub fn task(wish: &RenderFrames) -> LeasedTask {
    LeasedTask {
        task_id: 1,
        run_id: Uuid::new_v4(),
        tenant_id: Uuid::new_v4(),
        key: "render".into(),
        activity: "RenderFrames".into(),
        input: serde_json::to_value(wish).unwrap(),
        attempt_no: 1,
        lease_token: Uuid::new_v4(),
        lease_seconds: 15.0,
        start_to_close_seconds: 60.0,
        traceparent: None,
    }
}

/// A project of After Effects that takes a title, a colour and a photo.
pub fn after_effects_project() -> Value {
    json!({
        "compositions": [{ "name": "main", "frames": 100, "size": SIZE, "layers": [
            { "name": "txt:title@accent", "text": { "words": "Title", "box": [600, 80] } },
            { "name": "img:photo", "footage": "photo.jpg" },
            { "name": "color:accent", "solid": [0, 0, 1] },
        ] }],
        "footage": [{ "name": "photo.jpg", "path": "images/photo.jpg" }],
        "queue": [{ "composition": "main", "span": [0, 4] }],
    })
}

/// The stand-in under the names that After Effects' own programs have.
pub fn install(folder: &Path) -> PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    for name in ["aerender", "AfterFX"] {
        let program = folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
        #[cfg(unix)]
        std::os::unix::fs::symlink(stand_in(), program).unwrap();
        #[cfg(not(unix))]
        std::fs::copy(stand_in(), program).unwrap();
    }
    folder.join(format!("aerender{}", std::env::consts::EXE_SUFFIX))
}

/// Storage in memory.
#[derive(Default)]
pub struct Shelf {
    pub inputs: Mutex<HashMap<BlobHash, Vec<u8>>>,
    pub frames: Mutex<BTreeMap<u32, Vec<u8>>>,
    pub fetched: Mutex<u32>,
    /// Nothing comes from it.
    pub is_broken: AtomicBool,
    /// It does not say which frames it has.
    pub is_silent: AtomicBool,
}

impl Shelf {
    pub fn add(&self, bytes: &[u8]) {
        self.inputs.lock().unwrap().insert(BlobHash::of(bytes), bytes.to_vec());
    }

    pub fn stored(&self) -> Vec<u32> {
        self.frames.lock().unwrap().keys().copied().collect()
    }
}

impl InputSource for Shelf {
    async fn fetch(&self, blob: &BlobRef, path: &Path) -> Result<(), TransferError> {
        *self.fetched.lock().unwrap() += 1;
        if self.is_broken.load(Ordering::Relaxed) {
            return Err(TransferError::Other("the connection broke".into()));
        }
        let bytes = self.inputs.lock().unwrap().get(&blob.sha256).cloned().ok_or(TransferError::NotFound)?;
        Ok(std::fs::write(path, bytes)?)
    }
}

impl FrameSink for Shelf {
    async fn store(&self, frame: ProvenFrame) -> Result<(), TransferError> {
        let bytes = std::fs::read(&frame.path)?;
        assert_eq!(blob(&bytes), frame.blob, "what is stored is what was proven");
        self.frames.lock().unwrap().insert(frame.frame, bytes);
        Ok(())
    }

    async fn kept(&self) -> Result<Vec<u32>, TransferError> {
        if self.is_silent.load(Ordering::Relaxed) { std::future::pending().await } else { Ok(Vec::new()) }
    }
}

/// One attempt on one machine.
pub struct Stage {
    pub folder: tempfile::TempDir,
    pub aerender: Aerender,
    pub shelf: Arc<Shelf>,
    pub wish: RenderFrames,
    pub attempt: Attempt,
    pub keeper: AttemptKeeper,
    pub drain: CancellationToken,
    pub launcher: Mutex<Option<ProcessId>>,
    /// Whether a renderer was heard to its end.
    pub heard: AtomicBool,
    /// What After Effects shows instead of the composition.
    pub stills: Vec<Shot>,
}

impl Stage {
    /// Ten frames, 10 to 19, of a package in which `scenario` goes wrong.
    pub fn new(scenario: Value) -> Self {
        Self::with(scenario, limits())
    }

    pub fn with(scenario: Value, limits: Limits) -> Self {
        let package = package(scenario);
        let shelf = Arc::new(Shelf::default());
        shelf.add(&package);
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().join("cache"), 1 << 30, Bounds::default()).unwrap();
        let wish = wish(&package, 10, 19);
        let (attempt, keeper) = Attempt::new(task(&wish));
        Self {
            aerender: Aerender { renderers: BTreeMap::from([("lottie", stand_in())]), cache, limits },
            folder,
            shelf,
            wish,
            attempt,
            keeper,
            drain: CancellationToken::new(),
            launcher: Mutex::new(None),
            heard: AtomicBool::new(false),
            stills: Vec::new(),
        }
    }

    /// The same with After Effects' two programs, and data for [`after_effects_project`].
    pub fn use_after_effects(&mut self, project: &Value, scenario: &Value) {
        let renderer = install(&self.folder.path().join("install"));
        self.aerender.renderers.insert("after_effects", renderer);
        let photo = b"a photo".to_vec();
        let package = zip(&[
            ("project.aep", project.to_string().as_bytes()),
            ("images/photo.jpg", b"the designer's"),
            ("scenario.json", scenario.to_string().as_bytes()),
        ]);
        [&photo, &package].into_iter().for_each(|bytes| self.shelf.add(bytes));
        self.wish.engine = Engine::AfterEffects;
        self.wish.package = blob(&package);
        self.wish.data.colors.insert("accent".into(), "#ff0033".into());
        let file = "assets/photo.jpg".to_owned();
        self.wish.data.images.insert("photo".into(), ImageBinding { file: file.clone(), fit: Fit::Cover });
        self.wish.assets = vec![RenderAsset { path: file, blob: blob(&photo) }];
    }

    /// What the stand-in draws for a frame, with what is bound.
    pub fn drawn(&self, frame: u32) -> Vec<u8> {
        match self.wish.engine {
            Engine::Lottie => drawn(&self.wish, frame),
            Engine::AfterEffects => {
                let prepared = self.attempt_folder().join("package/prepared.aep");
                drawn_prepared(&prepared, &self.wish.composition, frame)
            }
        }
    }

    pub async fn render(&self) -> Result<RenderedFrames, Failure> {
        let spawned = |id: &ProcessId| *self.launcher.lock().unwrap() = Some(id.clone());
        let job = Job {
            attempt: &self.attempt,
            stills: &self.stills,
            folder: self.attempt_folder(),
            inputs: &*self.shelf,
            frames: self.shelf.clone(),
            drain: self.drain.clone(),
            spawned: &spawned,
            heard: &|_| self.heard.store(true, Ordering::Relaxed),
            unheard: false,
        };
        self.aerender.render(job, &self.wish).await
    }

    pub fn attempt_folder(&self) -> PathBuf {
        self.folder.path().join("attempt")
    }

    /// The code of the failure it must end with, and whether it may be tried again.
    pub async fn refused(&self) -> (String, bool) {
        let failure = self.render().await.expect_err("the attempt must fail");
        assert_eq!(self.processes_left(), Some(false), "{failure}");
        (failure.code, failure.retryable)
    }

    pub fn stop(&self, standing: Standing) {
        self.keeper.standing.send_replace(standing);
    }

    /// Whether any process of the attempt is alive.
    pub fn processes_left(&self) -> Option<bool> {
        let launcher = self.launcher.lock().unwrap().clone();
        census::is_alive(launcher.map(|id| id.pid), &Mark::of(self.attempt.lease_token()))
    }
}

/// Waits until `fact` holds, with short polls.
pub async fn until(what: &str, fact: impl Fn() -> bool) {
    let begun = Instant::now();
    while !fact() {
        assert!(begun.elapsed() < Duration::from_secs(30), "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
