//! Which frames count, and what is drawn of them.

use crate::world::{SIZE, World, picture, png};
use flatrender_activities::storage::keys;
use flatrender_workflows::contracts::{
    media::{ClearShelf, DrawContactSheet, FRAME_LOST, VerifiedFrames, VerifyFrames},
    render::{FaultReason, FrameFault, FrameRef},
    storage::{BlobHash, BlobRef, BlobStore},
};
use std::path::PathBuf;

impl World {
    async fn verify(&self, frames: Vec<FrameRef>) -> VerifiedFrames {
        self.verify_of(frames, None).await
    }

    async fn verify_of(&self, frames: Vec<FrameRef>, film_frames: Option<u32>) -> VerifiedFrames {
        self.run(VerifyFrames { render_id: self.render_id, frames, size: SIZE, film_frames }).await.unwrap()
    }

    /// Where a frame lies on the disk.
    fn path(&self, frame: &FrameRef) -> PathBuf {
        let key = keys::blob(&self.render_shelf(), &frame.blob.sha256);
        self.folder.path().join("storage").join(key.as_ref())
    }

    /// The fault of a stored frame with this content.
    async fn fault(&self, content: &[u8]) -> Option<FaultReason> {
        let found = self.verify(vec![self.frame(3, content).await]).await;
        assert_eq!(found.good as usize + found.faults.len(), 1);
        found.faults.first().map(|fault| fault.reason)
    }
}

#[tokio::test]
async fn whole_frames_are_good() {
    let world = World::new();
    let frames = world.frames(0, 30).await;
    assert_eq!(world.verify(frames).await, VerifiedFrames { good: 30, faults: Vec::new(), doubts: Vec::new() });
}

#[tokio::test]
async fn faults_are_told_by_frame_and_do_not_fail_the_activity() {
    let world = World::new();
    let mut frames = world.frames(10, 5).await;
    frames[1] = world.frame(11, b"").await;
    frames[3] = world.frame(13, b"no picture").await;
    let found = world.verify(frames).await;
    let fault = |frame, reason| FrameFault { frame, reason };
    let faults = vec![fault(11, FaultReason::Missing), fault(13, FaultReason::Corrupt)];
    assert_eq!(found, VerifiedFrames { good: 3, faults, doubts: Vec::new() });
}

#[tokio::test]
async fn a_truncated_frame_is_a_fault() {
    let (world, whole) = (World::new(), png(&picture(1)));
    for length in [1, 8, 20, 40, whole.len() / 2, whole.len() - 12, whole.len() - 1] {
        assert_eq!(world.fault(&whole[..length]).await, Some(FaultReason::Corrupt), "{length} bytes");
    }
}

#[tokio::test]
async fn an_empty_frame_is_a_fault() {
    assert_eq!(World::new().fault(b"").await, Some(FaultReason::Missing));
}

#[tokio::test]
async fn a_missing_blob_is_a_fault() {
    let world = World::new();
    let blob = BlobRef { sha256: BlobHash::of(b"never stored"), size_bytes: 12 };
    let found = world.verify(vec![FrameRef { frame: 5, blob }]).await;
    assert_eq!(found.faults, [FrameFault { frame: 5, reason: FaultReason::Missing }]);
}

#[tokio::test]
async fn a_flipped_bit_is_a_fault_wherever_it_is() {
    let (world, whole) = (World::new(), png(&picture(1)));
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        assert!(world.fault(&flipped).await.is_some(), "byte {at} of {}", whole.len());
    }
}

#[tokio::test]
async fn a_frame_of_another_size_is_a_fault() {
    let other = image::RgbImage::new(SIZE[0] + 1, SIZE[1]);
    assert_eq!(World::new().fault(&png(&other)).await, Some(FaultReason::WrongSize));
}

#[tokio::test]
async fn a_frame_that_a_power_cut_took_is_lost_to_whoever_uses_it() {
    let whole = png(&picture(0));
    for left in [None, Some(&whole[..0]), Some(&whole[..whole.len() / 2])] {
        let world = World::new();
        let frames = world.frames(0, 3).await;
        let path = world.path(&frames[0]);
        match left {
            Some(left) => std::fs::write(path, left).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
        let part = world.run(world.part(frames)).await.unwrap_err();
        assert_eq!(part.code, FRAME_LOST, "{left:?}");
        assert!(world.is_tidy());
    }
}

#[tokio::test]
async fn a_frame_changed_on_the_disk_is_a_fault() {
    let world = World::new();
    let frame = world.frame(0, &png(&picture(0))).await;
    std::fs::write(world.path(&frame), png(&picture(1))).unwrap();
    let found = world.verify(vec![frame]).await;
    assert_eq!(found.faults, [FrameFault { frame: 0, reason: FaultReason::WrongHash }]);
}

#[tokio::test]
async fn a_contact_sheet_shows_every_frame() {
    let world = World::new();
    let video = world.film(&[12, 9]).await;
    let sheet = DrawContactSheet { video, frames: vec![0, 5, 10, 15, 20], columns: 3, tile_width: 32 };
    let blob = world.run(sheet).await.unwrap();
    let path = world.fetched(&world.files_shelf(), &blob, "sheet.png").await;
    let sheet = image::open(path).unwrap().into_rgb8();
    assert_eq!(sheet.dimensions(), (3 * 40 + 8, 2 * 26 + 8));
    let blue = |column: u32, row: u32| i32::from(sheet.get_pixel(8 + column * 40 + 30, 8 + row * 26 + 9)[2]);
    for (index, found) in [blue(0, 0), blue(1, 0), blue(2, 0), blue(0, 1), blue(1, 1)].into_iter().enumerate() {
        // A film is not its frames to the last bit.
        assert!((found - index as i32 * 25).abs() <= 8, "tile {index} has {found}");
    }
    assert_eq!(sheet.get_pixel(2 * 40 + 20, 26 + 20).0, [24, 24, 27]);
    assert!(world.is_tidy());
}

#[tokio::test]
async fn too_many_tiles_are_refused() {
    let world = World::new();
    let video = BlobRef { sha256: BlobHash::of(b"film"), size_bytes: 4 };
    let sheet = DrawContactSheet { video, frames: (0..25).collect(), columns: 3, tile_width: 32 };
    assert_eq!(world.run(sheet).await.unwrap_err().code, "media.invalid_input");
}

#[tokio::test]
async fn a_cleared_render_keeps_the_tenants_files() {
    let world = World::new();
    let (frame, file) = (world.frame(0, b"frame").await, world.file(b"film").await);
    for _ in 0..2 {
        world.run(ClearShelf { render_id: world.render_id }).await.unwrap();
    }
    assert_eq!(world.storage.stat(&world.render_shelf(), &frame.blob.sha256).await.unwrap(), None);
    assert_eq!(world.storage.stat(&world.files_shelf(), &file.sha256).await.unwrap(), Some(4));
}

#[tokio::test]
async fn a_black_frame_among_others_is_doubted_and_not_faulty() {
    let world = World::new();
    let mut frames = world.frames(0, 12).await;
    frames[5] = world.frame(5, &png(&image::RgbImage::new(SIZE[0], SIZE[1]))).await;
    let doubts = vec![FrameFault { frame: 5, reason: FaultReason::Black }];
    assert_eq!(world.verify(frames.clone()).await, VerifiedFrames { good: 12, faults: Vec::new(), doubts });
    frames.remove(3);
    assert_eq!(world.verify(frames).await.doubts, [], "frames with gaps say nothing of each other");
}

#[tokio::test]
async fn a_black_frame_at_the_edge_of_a_chunk_is_doubted_unless_the_film_begins_or_ends_there() {
    let world = World::new();
    let mut frames = world.frames(20, 12).await;
    let black = png(&image::RgbImage::new(SIZE[0], SIZE[1]));
    (frames[0], frames[11]) = (world.frame(20, &black).await, world.frame(31, &black).await);
    let doubted = async |film_frames| {
        let found = world.verify_of(frames.clone(), film_frames).await;
        assert_eq!((found.good, found.faults), (12, vec![]));
        found.doubts.into_iter().map(|doubt| (doubt.frame, doubt.reason)).collect::<Vec<_>>()
    };
    assert_eq!(doubted(Some(100)).await, [(20, FaultReason::Black), (31, FaultReason::Black)]);
    assert_eq!(doubted(Some(32)).await, [(20, FaultReason::Black)], "the film ends with it");
    assert!(doubted(None).await.is_empty(), "a task of an older server");
}
