//! Encoding: no frame lost, none changed, the same bytes every time.

use crate::world::{FPS, SIZE, World, picture, png};
use flatrender_workflows::contracts::{
    media::{EncodePart, EncodeProfile, EncodedPart},
    render::FrameRef,
    storage::{BlobRef, Shelf},
};
use image::{DynamicImage, ImageFormat, Rgba, RgbaImage};
use std::io::Cursor;

impl World {
    /// Hash of every decoded picture, in order.
    async fn pictures(&self, shelf: &Shelf, blob: &BlobRef) -> Vec<String> {
        self.fetched(shelf, blob, "film.mp4").await;
        let text = self.ask("ffmpeg", &["-v", "error", "-i", "film.mp4", "-map", "0:v", "-f", "framemd5", "-"]);
        let text = String::from_utf8(text).unwrap();
        text.lines().filter(|l| !l.starts_with('#')).map(|l| l.rsplit(',').next().unwrap().to_owned()).collect()
    }

    /// Luma of a pixel in the middle of a part's first picture.
    async fn luma(&self, part: &EncodedPart) -> u8 {
        self.fetched(&self.render_shelf(), &part.blob, "part.mp4").await;
        let decode = ["-v", "error", "-i", "part.mp4", "-frames:v", "1", "-pix_fmt", "yuv420p", "-f", "rawvideo", "-"];
        self.ask("ffmpeg", &decode)[(SIZE[0] * SIZE[1] / 2 + SIZE[0] / 2) as usize]
    }

    async fn plain(&self, colour: [u8; 4]) -> FrameRef {
        let picture = DynamicImage::from(RgbaImage::from_pixel(SIZE[0], SIZE[1], Rgba(colour)));
        let mut png = Cursor::new(Vec::new());
        picture.write_to(&mut png, ImageFormat::Png).unwrap();
        self.frame(0, &png.into_inner()).await
    }
}

#[tokio::test]
async fn parts_join_without_losing_a_frame() {
    let world = World::new();
    let lengths = [13, 1, 16];
    let film = world.film(&lengths).await;
    let joined = world.pictures(&world.files_shelf(), &film).await;
    let mut apart = Vec::new();
    for part in world.parts(&lengths).await {
        apart.extend(world.pictures(&world.render_shelf(), &part.blob).await);
    }
    assert_eq!(joined.len(), 30);
    assert_eq!(joined, apart);
    assert!(world.is_tidy());
}

#[tokio::test]
async fn every_frame_of_a_film_has_its_time() {
    let world = World::new();
    let film = world.film(&[7, 11, 2]).await;
    world.fetched(&world.files_shelf(), &film, "film.mp4").await;
    let show = ["-v", "error", "-select_streams", "v", "-show_entries", "frame=pts", "-of", "default=nk=1:nw=1"];
    let times = world.ask("ffprobe", &[&show[..], &["film.mp4"]].concat());
    let times: Vec<u32> = String::from_utf8(times).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(times, (0..20).map(|frame| frame * 1000).collect::<Vec<_>>(), "in ticks of 1/{}", FPS * 1000);
}

#[tokio::test]
async fn the_same_frames_give_the_same_part() {
    let mut world = World::new();
    for profile in [EncodeProfile::Preview, EncodeProfile::Final, EncodeProfile::Master] {
        let part = world.part(world.frames(0, 30).await);
        let mut blobs = Vec::new();
        for threads in [1, 2, 3] {
            world.media.threads = threads;
            blobs.push(world.run(flatrender_workflows::contracts::media::EncodePart { profile, ..part.clone() }).await);
        }
        assert!(blobs.iter().all(|blob| blob.is_ok() && *blob == blobs[0]), "{profile:?}: {blobs:?}");
    }
}

#[tokio::test]
async fn colours_are_those_of_bt709() {
    let world = World::new();
    // 16 + 219 × 0.2126, and not 81 as BT.601 has it.
    for (colour, luma) in [([255, 0, 0, 255], 63), ([0, 255, 0, 255], 173), ([255, 255, 255, 255], 235)] {
        let part = world.run(world.part(vec![world.plain(colour).await])).await.unwrap();
        let found = world.luma(&part).await;
        assert!(found.abs_diff(luma) <= 1, "{colour:?} has {found}");
    }
}

#[tokio::test]
async fn what_is_transparent_becomes_black() {
    let world = World::new();
    for (colour, luma) in [([255, 255, 255, 0], 16), ([255, 255, 255, 128], 126)] {
        let part = world.run(world.part(vec![world.plain(colour).await])).await.unwrap();
        let found = world.luma(&part).await;
        assert!(found.abs_diff(luma) <= 1, "{colour:?} has {found}");
    }
}

#[tokio::test]
async fn a_bad_frame_in_the_middle_fails_the_part() {
    let (world, whole) = (World::new(), png(&picture(2)));
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let larger = png(&image::RgbImage::new(SIZE[0], SIZE[1] + 2));
    for (what, content) in
        [("empty", &[][..]), ("truncated", &whole[..whole.len() / 2]), ("flipped", &flipped), ("larger", &larger)]
    {
        let mut frames = world.frames(0, 5).await;
        frames[2] = world.frame(2, content).await;
        let failure = world.run(world.part(frames)).await.unwrap_err();
        assert_eq!((failure.code.as_str(), failure.retryable), ("media.encode_failed", false), "{what}: {failure}");
    }
    assert!(world.is_tidy());
}

#[tokio::test]
async fn a_part_with_a_gap_is_refused() {
    let world = World::new();
    let mut frames = world.frames(0, 3).await;
    frames.remove(1);
    assert_eq!(world.run(world.part(frames)).await.unwrap_err().code, "media.invalid_input");
    assert_eq!(world.run(world.part(Vec::new())).await.unwrap_err().code, "media.invalid_input");
}

/// How light the lightest point of the picture's middle is.
fn light(world: &World, name: &str) -> u8 {
    let raw =
        world.ask("ffmpeg", &["-v", "error", "-i", name, "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "gray", "-"]);
    let row = |y: u32| &raw[(y * SIZE[0]) as usize..((y + 1) * SIZE[0]) as usize];
    (SIZE[1] / 4..SIZE[1] * 3 / 4).flat_map(row).copied().max().unwrap()
}

#[tokio::test]
async fn a_watermark_is_written_across_every_frame_and_says_whose_it_is() {
    let world = World::new();
    let black = png(&image::RgbImage::new(SIZE[0], SIZE[1]));
    let frames = vec![world.frame(0, &black).await, world.frame(1, &black).await];
    let mut parts = vec![];
    // Words are words: nothing in them is a filter's.
    for words in [None, Some("Acme"), Some("%{pts}:'\\,[0:v]")] {
        let part = EncodePart { watermark: words.map(str::to_owned), ..world.part(frames.clone()) };
        let blob = world.run(part).await.unwrap().blob;
        world.fetched(&world.render_shelf(), &blob, "part.mp4").await;
        parts.push((blob.sha256, light(&world, "part.mp4") > 60));
    }
    assert_eq!(parts.iter().map(|(_, marked)| *marked).collect::<Vec<_>>(), [false, true, true]);
    assert_ne!(parts[1].0, parts[2].0);
}
