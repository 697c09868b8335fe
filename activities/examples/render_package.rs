//! Renders a package on this machine as a node would, without a server: to prove a template, or an After Effects.
//!
//! ```text
//! render_package AERENDER PACKAGE.zip ORDER.json OUT
//! ```
//! `ORDER.json`: `{"engine": "after_effects", "composition": "main", "frames": [0, 9], "size": [1920, 1080], "fps": 30,
//! "data": {"version": 1, "texts": {"title": "Hello"}}, "files": {"assets/logo.png": "logo.png"}}`; files lie beside it.
//! Frames go to `OUT/stored`, the attempt's folder stays in `OUT/attempt`. Prints what came of it; ends with 1 unless
//! every frame is there.

use flatrender_activities::aerender::{
    Aerender, FrameSink, InputSource, Job, Limits, ProvenFrame, TransferError, cache::Cache, unpack::Bounds,
};
use flatrender_engine::{Attempt, LeasedTask};
use flatrender_workflows::contracts::{
    render::{Engine, FrameClass, FrameRange, RenderAsset, RenderData, RenderFrames, frame_file_name},
    storage::{BlobHash, BlobRef},
};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

#[derive(Deserialize)]
struct Order {
    engine: Engine,
    composition: String,
    frames: [u32; 2],
    size: [u32; 2],
    fps: u32,
    data: RenderData,
    #[serde(default)]
    files: BTreeMap<String, PathBuf>,
}

/// The package and the files by their hashes.
struct Files(BTreeMap<String, Vec<u8>>);

impl InputSource for Files {
    async fn fetch(&self, blob: &BlobRef, path: &Path) -> Result<(), TransferError> {
        let bytes = self.0.get(&blob.sha256.to_string()).ok_or(TransferError::NotFound)?;
        Ok(fs::write(path, bytes)?)
    }
}

struct Stored(PathBuf);

impl FrameSink for Stored {
    async fn store(&self, frame: ProvenFrame) -> Result<(), TransferError> {
        Ok(fs::copy(&frame.path, self.0.join(frame_file_name(frame.frame))).map(drop)?)
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [aerender, package, order, out] = arguments.as_slice() else {
        return Err("usage: render_package AERENDER PACKAGE.zip ORDER.json OUT".into());
    };
    let out = std::path::absolute(out)?;
    fs::create_dir_all(out.join("stored"))?;
    let (input, files) = input(package, order)?;
    let aerender = Aerender {
        renderers: BTreeMap::from([(input.engine.label(), std::path::absolute(aerender)?)]),
        cache: Cache::open(out.join("cache"), 64 << 30, Bounds::default())?,
        limits: Limits::default(),
    };
    let (attempt, _keeper) = Attempt::new(task(&input)?);
    let job = Job {
        attempt: &attempt,
        stills: &[],
        folder: out.join("attempt"),
        inputs: &files,
        frames: Arc::new(Stored(out.join("stored"))),
        drain: CancellationToken::new(),
        spawned: &|id| eprintln!("started process {}", id.pid),
        heard: &|_| {},
        unheard: false,
    };
    match aerender.render(job, &input).await {
        Ok(rendered) => {
            println!("{}", serde_json::to_string_pretty(&rendered)?);
            Ok(if rendered.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(failure) => {
            println!("{}", serde_json::to_string_pretty(&failure)?);
            Ok(ExitCode::FAILURE)
        }
    }
}

fn input(package: &Path, order: &Path) -> Result<(RenderFrames, Files), Box<dyn Error>> {
    let wanted: Order = serde_json::from_slice(&fs::read(order)?)?;
    let mut files = Files(BTreeMap::new());
    let mut keep = |bytes: Vec<u8>| {
        let blob = BlobRef { sha256: BlobHash::of(&bytes), size_bytes: bytes.len() as u64 };
        files.0.insert(blob.sha256.to_string(), bytes);
        blob
    };
    let package = keep(fs::read(package)?);
    let mut assets = Vec::new();
    for (path, file) in wanted.files {
        assets.push(RenderAsset { path, blob: keep(fs::read(order.with_file_name(file))?) });
    }
    let input = RenderFrames {
        render_id: Uuid::nil(),
        engine: wanted.engine,
        package,
        package_owner: Uuid::nil(),
        composition: wanted.composition,
        frames: FrameRange { first: wanted.frames[0], last: wanted.frames[1] },
        data: wanted.data,
        assets,
        size: wanted.size,
        fps: wanted.fps,
        pace: None,
        needs: flatrender_engine::Labels::new(),
        avoid: Vec::new(),
        class: FrameClass::Final,
    };
    Ok((input, files))
}

/// It belongs to no run; its token marks the processes that it starts.
fn task(input: &RenderFrames) -> Result<LeasedTask, Box<dyn Error>> {
    Ok(LeasedTask {
        task_id: 0,
        run_id: Uuid::nil(),
        tenant_id: Uuid::nil(),
        key: "render_package".into(),
        activity: "RenderFrames".into(),
        input: serde_json::to_value(input)?,
        attempt_no: 1,
        lease_token: Uuid::new_v4(),
        lease_seconds: 3600.0,
        start_to_close_seconds: 24.0 * 3600.0,
        traceparent: None,
    })
}
