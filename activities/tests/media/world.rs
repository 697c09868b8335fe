//! A storage, a scratch folder, and makers of pictures and sounds.

use flatrender_activities::{media::Media, storage::ObjectStorage};
use flatrender_engine::{Activity, Attempt, AttemptKeeper, Failure, Handler, LeasedTask};
use flatrender_workflows::contracts::{
    media::{AssembleVideo, EncodePart, EncodeProfile, EncodedPart, MixAudio, MixedAudio},
    render::FrameRef,
    storage::{BlobRef, BlobStore, Shelf},
};
use futures::{FutureExt, StreamExt, stream};
use image::{ImageFormat, Rgb, RgbImage};
use std::{io::Cursor, path::PathBuf, process::Command, sync::Arc};
use tempfile::TempDir;
use uuid::Uuid;

pub const SIZE: [u32; 2] = [64, 36];
pub const FPS: u32 = 30;

/// Whose everything is.
pub const TENANT: Uuid = Uuid::from_u128(7);

pub struct World {
    pub folder: TempDir,
    pub storage: Arc<ObjectStorage>,
    pub media: Media,
    pub tenant_id: Uuid,
    pub render_id: Uuid,
}

impl World {
    pub fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let storage = Arc::new(ObjectStorage::local(&folder.path().join("storage")).unwrap());
        let media = Media::new(storage.clone(), folder.path().join("scratch"));
        Self { folder, storage, media, tenant_id: TENANT, render_id: Uuid::from_u128(8) }
    }

    pub fn render_shelf(&self) -> Shelf {
        Shelf::Render { tenant_id: self.tenant_id, render_id: self.render_id }
    }

    pub fn files_shelf(&self) -> Shelf {
        Shelf::Files { tenant_id: self.tenant_id }
    }

    pub fn attempt(&self) -> (Attempt, AttemptKeeper) {
        Attempt::new(LeasedTask {
            task_id: 1,
            run_id: Uuid::from_u128(9),
            tenant_id: self.tenant_id,
            key: "media".into(),
            activity: "Media".into(),
            input: serde_json::Value::Null,
            attempt_no: 1,
            lease_token: Uuid::from_u128(10),
            lease_seconds: 15.0,
            start_to_close_seconds: 60.0,
            traceparent: None,
        })
    }

    /// One attempt whose lease is held to its end.
    pub async fn run<A: Activity>(&self, input: A) -> Result<A::Output, Failure>
    where
        Media: Handler<A>,
    {
        let (cx, _keeper) = self.attempt();
        self.media.handle(&cx, input).await
    }

    pub async fn put(&self, shelf: &Shelf, bytes: &[u8]) -> BlobRef {
        let body = stream::iter([Ok(bytes::Bytes::copy_from_slice(bytes))]).boxed();
        self.storage.put(shelf, None, body, u64::MAX).await.unwrap()
    }

    pub async fn file(&self, bytes: &[u8]) -> BlobRef {
        self.put(&self.files_shelf(), bytes).await
    }

    pub async fn frame(&self, frame: u32, png: &[u8]) -> FrameRef {
        FrameRef { frame, blob: self.put(&self.render_shelf(), png).await }
    }

    /// Frames `first`, `first + 1` … each different from every other.
    pub async fn frames(&self, first: u32, count: u32) -> Vec<FrameRef> {
        stream::iter(first..first + count)
            .then(|n| async move { self.frame(n, &png(&picture(n))).await })
            .collect()
            .await
    }

    pub fn part(&self, frames: Vec<FrameRef>) -> EncodePart {
        EncodePart {
            render_id: self.render_id,
            frames,
            size: SIZE,
            fps: FPS,
            profile: EncodeProfile::Final,
            watermark: None,
        }
    }

    /// Parts of the given lengths, one behind the other.
    pub async fn parts(&self, lengths: &[u32]) -> Vec<EncodedPart> {
        let (mut parts, mut first) = (Vec::new(), 0);
        for length in lengths {
            parts.push(self.run(self.part(self.frames(first, *length).await)).await.unwrap());
            first += length;
        }
        parts
    }

    pub async fn silence(&self, frames: u32, fps: u32) -> MixedAudio {
        let mix = MixAudio { render_id: self.render_id, frames, fps, tracks: Vec::new(), ducking: true };
        self.run(mix).await.unwrap()
    }

    /// A silent film of parts of the given lengths.
    pub async fn film(&self, lengths: &[u32]) -> BlobRef {
        let (parts, frames) = (self.parts(lengths).await, lengths.iter().sum());
        let audio = self.silence(frames, FPS).await;
        let film = AssembleVideo { render_id: self.render_id, parts, audio, frames, fps: FPS };
        self.run(film).await.unwrap()
    }

    /// A blob as a file of its own.
    pub async fn fetched(&self, shelf: &Shelf, blob: &BlobRef, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        self.storage.fetch(shelf, &blob.sha256, &path).await.unwrap();
        path
    }

    /// What ffmpeg or ffprobe writes when asked in the world's folder.
    pub fn ask(&self, program: &str, args: &[&str]) -> Vec<u8> {
        let output = Command::new(program).args(args).current_dir(self.folder.path()).output().unwrap();
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Whether no attempt has left anything.
    pub fn is_tidy(&self) -> bool {
        std::fs::read_dir(&self.media.scratch).is_ok_and(|mut entries| entries.next().is_none())
    }
}

/// A gradient with a bar that stands elsewhere in every frame.
pub fn picture(number: u32) -> RgbImage {
    RgbImage::from_fn(SIZE[0], SIZE[1], |x, y| match x == number % SIZE[0] {
        true => Rgb([255, 255, 255]),
        false => Rgb([(x * 3) as u8, (y * 6) as u8, (number * 5 % 256) as u8]),
    })
}

pub fn png(picture: &RgbImage) -> Vec<u8> {
    let mut png = Cursor::new(Vec::new());
    picture.write_to(&mut png, ImageFormat::Png).unwrap();
    png.into_inner()
}

/// A WAV with 16 bits a sample; `sample` gives the value at each time in seconds, −1 to 1.
pub fn wav(rate: u32, channels: u16, seconds: f64, sample: impl Fn(f64) -> f64) -> Vec<u8> {
    let count = (seconds * f64::from(rate)).round() as u32;
    let data: Vec<u8> = (0..count)
        .map(|n| (sample(f64::from(n) / f64::from(rate)) * 32767.0).round() as i16)
        .flat_map(|value| value.to_le_bytes().repeat(usize::from(channels)))
        .collect();
    let block = channels * 2;
    let mut wav = Vec::from(*b"RIFF");
    wav.extend((36 + data.len() as u32).to_le_bytes());
    wav.extend(b"WAVEfmt \x10\0\0\0\x01\0");
    wav.extend(channels.to_le_bytes());
    wav.extend(rate.to_le_bytes());
    wav.extend((rate * u32::from(block)).to_le_bytes());
    wav.extend(block.to_le_bytes());
    wav.extend(b"\x10\0data");
    wav.extend((data.len() as u32).to_le_bytes());
    wav.extend(data);
    wav
}

pub fn tone(hertz: f64, volume: f64) -> impl Fn(f64) -> f64 {
    move |at| (at * hertz * std::f64::consts::TAU).sin() * volume
}

/// Whether `future` is done as soon as it is asked.
pub fn is_done<T>(future: impl Future<Output = T>) -> bool {
    future.now_or_never().is_some()
}
