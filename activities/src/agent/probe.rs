//! The probe: a small film of known colours, rendered the way every chunk is. It shows what no inventory can: that the renderer
//! starts, numbers its frames as they are asked for, also when a chunk begins in the middle, and paints what it is told.
//!
//! A probe is a package like any other, with the file [`SHEET`] beside the project. The one for the built-in renderer is made
//! here. One for After Effects can only be saved by After Effects: see `docs/after-effects.md`; the node is told where it lies.

use super::AgentConfig;
use crate::aerender::{
    Aerender, FrameSink, InputSource, Job, ProvenFrame, TransferError, cache::Cache, classes::OTHER_PIXELS, process,
    unpack::Bounds,
};
use flatrender_engine::{Attempt, Failure, LeasedTask};
use flatrender_workflows::contracts::{
    node::Check,
    render::{Engine, FrameClass, FrameRange, RenderData, RenderFrames},
    storage::{BlobHash, BlobRef},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Cursor, Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What a probe must look like: a file of its package.
pub const SHEET: &str = "probe.json";
/// The names of probes' folders begin so.
const FOLDER: &str = "probe-";
/// How far a colour may be from what it should be, of 255: After Effects rounds, and works in another space of colours.
const TOLERANCE: u8 = 4;
/// A frame alone, as for a still; then a chunk that begins in the middle.
const RUNS: [FrameRange; 2] = [FrameRange { first: 0, last: 0 }, FrameRange { first: 3, last: 5 }];

/// What a probe must look like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sheet {
    /// The composition.
    pub composition: String,
    /// Width and height in pixels.
    pub size: [u32; 2],
    /// Frames a second.
    pub fps: u32,
    /// Colour of the pixel in the middle of each frame, from frame 0; at least six.
    pub colors: Vec<[u8; 3]>,
}

/// Renders the probe with each of these renderers; a check for each.
pub async fn run(config: &AgentConfig, programs: &BTreeMap<&'static str, PathBuf>) -> Vec<Check> {
    let mut checks = Vec::new();
    for (label, program) in programs {
        let engine = if *label == Engine::Lottie.label() { Engine::Lottie } else { Engine::AfterEffects };
        let found = probe(config, engine, program).await;
        let (ok, found, fix) = match found {
            Ok(found) => (true, found, None),
            Err((found, fix)) => (false, found, Some(fix)),
        };
        checks.push(Check { name: format!("probe:{label}"), ok, found, fix });
    }
    checks
}

/// Marks the processes of a folder's probes, so that a later start finds those of one that was killed.
pub fn mark(config: &AgentConfig) -> Uuid {
    let folder = config.data.canonicalize().unwrap_or_else(|_| config.data.clone());
    let hash = Sha256::digest(folder.as_os_str().as_encoded_bytes());
    uuid::Builder::from_random_bytes(std::array::from_fn(|at| hash[at])).into_uuid()
}

/// Ends what probes have left that were cut off.
pub async fn clear_away(config: &AgentConfig) {
    if !process::kill_remains(None, mark(config)).await {
        tracing::error!("processes of an earlier probe cannot be killed");
    }
    let folders = fs::read_dir(&config.data).into_iter().flatten().flatten();
    for stray in folders.filter(|folder| folder.file_name().to_string_lossy().starts_with(FOLDER)) {
        if let Err(error) = fs::remove_dir_all(stray.path()) {
            tracing::warn!(path = %stray.path().display(), %error, "cannot remove the folder of a probe");
        }
    }
}

/// What is wrong, and what to do about it.
type Wrong = (String, String);

async fn probe(config: &AgentConfig, engine: Engine, program: &Path) -> Result<String, Wrong> {
    let package = package(config, engine)?;
    let sheet = read_sheet(&package).map_err(|error| {
        (
            format!("the probe's package cannot be used: {error}"),
            "Give it the file probe.json; see docs/after-effects.md.".into(),
        )
    })?;
    let folder = tempfile::Builder::new().prefix(FOLDER).tempdir_in(&config.data).map_err(|error| {
        (
            format!("the node's folder cannot be written: {error}"),
            "Give the node a folder that its account may write.".into(),
        )
    })?;
    let mut rendered = 0;
    for frames in RUNS {
        rendered += render(config, engine, program, folder.path(), &package, &sheet, frames).await?;
    }
    Ok(format!("{rendered} frames, numbered and coloured as they should be"))
}

/// The package for an engine.
fn package(config: &AgentConfig, engine: Engine) -> Result<Vec<u8>, Wrong> {
    match &config.probe {
        Some(path) => fs::read(path).map_err(|error| {
            (
                format!("the probe {} cannot be read: {error}", path.display()),
                "Say with --probe where it lies.".to_owned(),
            )
        }),
        None if engine == Engine::Lottie => Ok(built_in()),
        None => Err((
            "there is no probe for After Effects".to_owned(),
            "Save one with After Effects, as docs/after-effects.md says, and give it with --probe.".to_owned(),
        )),
    }
}

async fn render(
    config: &AgentConfig,
    engine: Engine,
    program: &Path,
    folder: &Path,
    package: &[u8],
    sheet: &Sheet,
    frames: FrameRange,
) -> Result<u32, Wrong> {
    let unusable = |error: io::Error| {
        (format!("the node's folder cannot be used: {error}"), "See that its disk has room.".to_owned())
    };
    let cache = Cache::open(folder.join("cache"), 1 << 30, Bounds::default()).map_err(unusable)?;
    let aerender =
        Aerender { renderers: BTreeMap::from([(engine.label(), program.to_owned())]), cache, limits: config.limits };
    let input = wish(engine, package, sheet, frames);
    let (attempt, _keeper) = Attempt::new(task(&input, mark(config)));
    let (inputs, seen) = (Package(package.to_owned()), Arc::new(Seen::default()));
    let job = Job {
        stills: &[],
        attempt: &attempt,
        folder: folder.join(frames.first.to_string()),
        inputs: &inputs,
        frames: seen.clone(),
        drain: CancellationToken::new(),
        spawned: &|_| {},
        heard: &|_| {},
        unheard: false,
    };
    let rendered = aerender.render(job, &input).await.map_err(|failure| refused(&failure))?;
    if let Some(fault) = rendered.faults.first() {
        let why = rendered.warnings.first().map_or("it does not say why", String::as_str);
        let found = format!("frame {} is not there or cannot be used: {why}", fault.frame);
        return Err((found, "Look at the renderer's own log; render the probe by hand.".to_owned()));
    }
    let seen = seen.0.lock().unwrap_or_else(PoisonError::into_inner);
    for frame in frames.iter() {
        let (wanted, got) = (sheet.colors.get(frame as usize), seen.get(&frame));
        let fits =
            |(wanted, got): (&[u8; 3], &[u8; 3])| wanted.iter().zip(got).all(|(w, g)| w.abs_diff(*g) <= TOLERANCE);
        if !wanted.zip(got).is_some_and(fits) {
            return Err((
                format!("{}: frame {frame} has the colour {got:?}, not {wanted:?}", OTHER_PIXELS.code),
                "See the output module `PNG Sequence` (8 bits, RGB, numbered as the composition) and the graphics driver.".to_owned(),
            ));
        }
    }
    Ok(frames.count())
}

/// A failure of the probe in words.
fn refused(failure: &Failure) -> Wrong {
    let fix = match failure.code.as_str() {
        "render.wrong_numbers" => "Set \"Use Comp Frame Number\" in the output module `PNG Sequence`.",
        "render.forced_extension" | "render.template_not_found" => {
            "Make the output module `PNG Sequence` anew, for PNG files."
        }
        "render.licence" | "render.busy" | "render.launch_stalled" => {
            "Start After Effects by hand on the machine's own desktop, sign in, and close every dialog and other instance."
        }
        "render.disk_full" => "Make room on the disk of the node's folder.",
        _ => "Look at the renderer's own log; render the probe by hand.",
    };
    (format!("{}: {}", failure.code, failure.message), fix.to_owned())
}

fn wish(engine: Engine, package: &[u8], sheet: &Sheet, frames: FrameRange) -> RenderFrames {
    RenderFrames {
        render_id: Uuid::nil(),
        engine,
        package: BlobRef { sha256: BlobHash::of(package), size_bytes: package.len() as u64 },
        package_owner: Uuid::nil(),
        composition: sheet.composition.clone(),
        frames,
        data: RenderData { version: 1, ..RenderData::default() },
        assets: Vec::new(),
        size: sheet.size,
        fps: sheet.fps,
        pace: None,
        needs: flatrender_engine::Labels::new(),
        avoid: Vec::new(),
        class: FrameClass::Final,
    }
}

/// The probe belongs to no run; its token marks the processes that it starts.
fn task(input: &RenderFrames, mark: Uuid) -> LeasedTask {
    LeasedTask {
        task_id: 0,
        run_id: Uuid::nil(),
        tenant_id: Uuid::nil(),
        key: "probe".into(),
        activity: "RenderFrames".into(),
        input: serde_json::to_value(input).unwrap_or(Value::Null),
        attempt_no: 1,
        lease_token: mark,
        lease_seconds: 3600.0,
        start_to_close_seconds: 3600.0,
        traceparent: None,
    }
}

struct Package(Vec<u8>);

impl InputSource for Package {
    async fn fetch(&self, _: &BlobRef, path: &Path) -> Result<(), TransferError> {
        Ok(fs::write(path, &self.0)?)
    }
}

/// The colour in the middle of each frame.
#[derive(Default)]
struct Seen(Mutex<BTreeMap<u32, [u8; 3]>>);

impl FrameSink for Seen {
    async fn store(&self, frame: ProvenFrame) -> Result<(), TransferError> {
        let picture =
            image::load_from_memory(&fs::read(&frame.path)?).map_err(|e| TransferError::Other(Box::new(e)))?;
        let picture = picture.to_rgb8();
        let middle = picture.get_pixel(picture.width() / 2, picture.height() / 2).0;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(frame.frame, middle);
        Ok(())
    }
}

fn read_sheet(package: &[u8]) -> io::Result<Sheet> {
    let mut zip = zip::ZipArchive::new(Cursor::new(package)).map_err(io::Error::other)?;
    let mut text = Vec::new();
    zip.by_name(SHEET).map_err(io::Error::other)?.take(64 * 1024).read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(io::Error::other)
}

/// Eight frames, each a solid of another colour.
fn built_in() -> Vec<u8> {
    let colors: Vec<[u8; 3]> = (0u8..8).map(|n| [20 + 30 * n, 230 - 25 * n, 40 + 11 * n]).collect();
    let (width, height, fps) = (64, 36, 30);
    let still = json!({"a": {"a": 0, "k": [0, 0, 0]}, "p": {"a": 0, "k": [0, 0, 0]}, "s": {"a": 0, "k": [100, 100, 100]},
                       "r": {"a": 0, "k": 0}, "o": {"a": 0, "k": 100}});
    let layers: Vec<Value> = colors
        .iter()
        .enumerate()
        .map(|(n, [r, g, b])| {
            json!({"ty": 1, "nm": format!("colour {n}"), "ind": n + 1, "ip": n, "op": n + 1, "st": 0, "sr": 1, "bm": 0,
                   "sw": width, "sh": height, "sc": format!("#{r:02x}{g:02x}{b:02x}"), "ks": still})
        })
        .collect();
    let project = json!({"v": "5.7.0", "nm": "probe", "fr": fps, "ip": 0, "op": colors.len(), "w": width, "h": height, "ddd": 0,
                         "assets": [], "layers": layers});
    let sheet = Sheet { composition: "probe".into(), size: [width, height], fps, colors };
    let files = [("project.json", project.to_string()), (SHEET, serde_json::to_string(&sheet).unwrap_or_default())];
    // Memory takes whatever is written.
    zipped(&files).unwrap_or_default()
}

fn zipped(files: &[(&str, String)]) -> zip::result::ZipResult<Vec<u8>> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in files {
        writer.start_file(*name, zip::write::SimpleFileOptions::default())?;
        writer.write_all(text.as_bytes())?;
    }
    Ok(writer.finish()?.into_inner())
}
