//! The pictures of a still.

use crate::world::World;
use flatrender_engine::Failure;
use flatrender_workflows::contracts::{
    media::FRAME_LOST,
    snapshot::{MadeStill, MakeStill},
    storage::{BlobHash, BlobRef, BlobStore, Shelf, StorageError},
};
use image::{ImageFormat, Rgba, RgbaImage};

/// A PNG that says where it comes from, as renderers like to.
fn png(size: [u32; 2], paint: impl Fn(u32, u32) -> [u8; 4]) -> Vec<u8> {
    let picture = RgbaImage::from_fn(size[0], size[1], |x, y| Rgba(paint(x, y)));
    let mut bytes = vec![];
    let mut encoder = png::Encoder::new(&mut bytes, size[0], size[1]);
    encoder.set_color(png::ColorType::Rgba);
    encoder.add_text_chunk("Comment".into(), r"C:\Users\jane\secret.aep".into()).unwrap();
    encoder.write_header().unwrap().write_image_data(picture.as_raw()).unwrap();
    bytes
}

impl World {
    async fn still(&self, size: [u32; 2], png: &[u8]) -> Result<MadeStill, Failure> {
        let frame = self.frame(0, png).await.blob;
        self.run(MakeStill { job_id: self.render_id, frame, size }).await
    }

    async fn public(&self, blob: &BlobRef) -> Vec<u8> {
        let path = self.folder.path().join("public.webp");
        self.storage.fetch(&Shelf::Public, &blob.sha256, &path).await.unwrap();
        std::fs::read(path).unwrap()
    }
}

fn decoded(webp: &[u8]) -> RgbaImage {
    image::load_from_memory_with_format(webp, ImageFormat::WebP).unwrap().into_rgba8()
}

#[tokio::test]
async fn a_frame_becomes_two_small_files_that_tell_nothing_else() {
    let (world, size) = (World::new(), [1920, 1080]);
    let frame = png(size, |x, y| [(x * 255 / 1919) as u8, (y * 255 / 1079) as u8, 120, 255]);
    let made = world.still(size, &frame).await.unwrap();
    assert_eq!((made.large.size, made.small.size), ([1280, 720], [480, 270]));
    for picture in [&made.large, &made.small] {
        let webp = world.public(&picture.blob).await;
        assert_eq!(webp.len() as u64, picture.blob.size_bytes);
        assert!(webp.len() * 10 < frame.len().max(500_000), "{} bytes", webp.len());
        assert_eq!([&webp[..4], &webp[8..12]], [b"RIFF".as_slice(), b"WEBP"]);
        let holds = |word: &[u8]| webp.windows(word.len()).any(|w| w == word);
        assert!(!holds(b"jane") && !holds(b"EXIF") && !holds(b"XMP "));
        let decoded = decoded(&webp);
        assert_eq!([decoded.width(), decoded.height()], picture.size);
        let Rgba([r, g, b, a]) = *decoded.get_pixel(decoded.width() - 1, 0);
        assert!(r > 245 && g < 12 && b.abs_diff(120) < 10 && a == 255, "{r} {g} {b} {a}");
    }
}

#[tokio::test]
async fn the_same_frame_gives_the_same_picture() {
    let (world, size) = (World::new(), [320, 180]);
    let frame = png(size, |x, y| [(x ^ y) as u8, x as u8, y as u8, 255]);
    let (one, two) = (world.still(size, &frame).await.unwrap(), world.still(size, &frame).await.unwrap());
    assert_eq!(one, two);
    assert_eq!(one.large.size, size, "nothing is blown up");
}

#[tokio::test]
async fn what_is_transparent_is_black_as_in_the_film() {
    let (world, size) = (World::new(), [64, 36]);
    let made = world.still(size, &png(size, |x, _| [255, 255, 255, if x < 32 { 0 } else { 255 }])).await.unwrap();
    let picture = decoded(&world.public(&made.large.blob).await);
    let (left, right) = (picture.get_pixel(4, 18).0, picture.get_pixel(60, 18).0);
    assert!(left[0] < 8 && left[3] == 255 && right[0] > 247, "{left:?} {right:?}");
}

#[tokio::test]
async fn a_frame_that_is_not_what_was_recorded_is_lost() {
    let (world, size) = (World::new(), [64, 36]);
    let whole = png(size, |_, _| [9, 9, 9, 255]);
    let cut = &whole[..whole.len() - 20];
    assert_eq!(world.still(size, cut).await.unwrap_err().code, FRAME_LOST);
    assert_eq!(world.still([64, 64], &whole).await.unwrap_err().code, FRAME_LOST);
    let absent = BlobRef { sha256: BlobHash::of(b"never stored"), size_bytes: 12 };
    let lost = world.run(MakeStill { job_id: world.render_id, frame: absent, size }).await.unwrap_err();
    assert_eq!((lost.code.as_str(), lost.retryable), (FRAME_LOST, false));
}

#[tokio::test]
async fn the_public_shelf_is_never_emptied() {
    let world = World::new();
    let blob = world.put(&Shelf::Public, b"a picture").await;
    assert!(matches!(world.storage.clear(&Shelf::Public).await, Err(StorageError::Io(_) | StorageError::Full(_))));
    assert_eq!(world.public(&blob).await, b"a picture");
}
