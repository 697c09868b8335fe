//! The finished film against its plan.

use crate::world::{FPS, SIZE, World};
use flatrender_activities::storage::keys;
use flatrender_engine::Failure;
use flatrender_workflows::contracts::{
    media::{AssembleVideo, ProbedVideo, VerifyVideo},
    storage::{BlobRef, BlobStore},
};

impl World {
    fn plan(&self, video: BlobRef, frames: u32) -> VerifyVideo {
        VerifyVideo { video, frames, fps: FPS, size: SIZE }
    }

    async fn mismatch(&self, plan: VerifyVideo) -> Failure {
        let failure = self.run(plan).await.unwrap_err();
        assert_eq!((failure.code.as_str(), failure.retryable), ("export.mismatch", false), "{failure}");
        failure
    }
}

#[tokio::test]
async fn a_film_as_planned_is_verified() {
    let world = World::new();
    let film = world.film(&[20, 10]).await;
    let found = world.run(world.plan(film, 30)).await.unwrap();
    let (video_codec, audio_codec) = ("h264".to_owned(), "aac".to_owned());
    assert_eq!(found, ProbedVideo { frames: 30, duration_ms: 1000, video_codec, audio_codec, size: SIZE });
    assert!(world.is_tidy());
}

#[tokio::test]
async fn a_film_of_one_frame_is_a_film() {
    let world = World::new();
    let film = world.film(&[1]).await;
    assert_eq!(world.run(world.plan(film, 1)).await.unwrap().frames, 1);
}

#[tokio::test]
async fn a_film_of_any_frame_rate_is_verified() {
    let world = World::new();
    for fps in [24, 60] {
        let frames = world.frames(0, 31).await;
        let part = flatrender_workflows::contracts::media::EncodePart { fps, ..world.part(frames) };
        let parts = vec![world.run(part).await.unwrap()];
        let audio = world.silence(31, fps).await;
        let film = AssembleVideo { render_id: world.render_id, parts, audio, frames: 31, fps };
        let video = world.run(film).await.unwrap();
        world.run(VerifyVideo { fps, ..world.plan(video, 31) }).await.unwrap();
    }
}

#[tokio::test]
async fn the_same_parts_give_the_same_film() {
    let world = World::new();
    assert_eq!(world.film(&[5, 6]).await, world.film(&[5, 6]).await);
}

#[tokio::test]
async fn a_wrong_frame_count_is_named() {
    let world = World::new();
    let film = world.film(&[10]).await;
    let failure = world.mismatch(world.plan(film, 11)).await;
    assert!(failure.message.contains("frames: 10 instead of 11"), "{failure}");
}

#[tokio::test]
async fn each_difference_is_named() {
    let world = World::new();
    let film = world.film(&[10]).await;
    let plan = VerifyVideo { fps: 25, size: [64, 38], ..world.plan(film, 10) };
    let failure = world.mismatch(plan).await;
    for difference in ["height: 36 instead of 38", "frame rate: 30/1 instead of 25/1", "length of the film"] {
        assert!(failure.message.contains(difference), "{difference} in {failure}");
    }
}

#[tokio::test]
async fn another_codec_colour_or_order_is_named() {
    let world = World::new();
    let film = world.film(&[10]).await;
    world.fetched(&world.files_shelf(), &film, "film.mp4").await;
    let remake = ["-v", "error", "-i", "film.mp4", "-c:v", "libx264", "-pix_fmt", "yuv444p", "-bsf:v"];
    let tags = ["h264_metadata=matrix_coefficients=6", "-c:a", "copy", "-f", "mp4", "other.mp4"];
    world.ask("ffmpeg", &[&remake[..], &tags].concat());
    let other = world.file(&std::fs::read(world.folder.path().join("other.mp4")).unwrap()).await;
    let failure = world.mismatch(world.plan(other, 10)).await;
    for difference in ["pixel format: yuv444p", "colour matrix: smpte170m", "index before content: false"] {
        assert!(failure.message.contains(difference), "{difference} in {failure}");
    }
}

#[tokio::test]
async fn a_truncated_film_is_no_film() {
    let world = World::new();
    let film = world.film(&[10]).await;
    let path = world.fetched(&world.files_shelf(), &film, "film.mp4").await;
    let bytes = std::fs::read(path).unwrap();
    let half = world.file(&bytes[..bytes.len() - 2000]).await;
    world.mismatch(world.plan(half, 10)).await;
}

#[tokio::test]
async fn parts_and_sound_must_have_the_planned_length() {
    let world = World::new();
    let (parts, audio) = (world.parts(&[5]).await, world.silence(5, FPS).await);
    let film = AssembleVideo { render_id: world.render_id, parts, audio, frames: 5, fps: FPS };
    let longer = AssembleVideo { audio: world.silence(6, FPS).await, ..film.clone() };
    let more = AssembleVideo { frames: 6, ..film };
    for wrong in [longer, more] {
        assert_eq!(world.run(wrong).await.unwrap_err().code, "media.invalid_input");
    }
}

/// As after a power cut: what is as long as it should be is not taken for it when it is made again.
#[tokio::test]
async fn two_parts_that_are_spoiled_at_once_are_both_removed_and_made_again() {
    let world = World::new();
    let (parts, audio) = (world.parts(&[5, 6, 7]).await, world.silence(18, FPS).await);
    let film = AssembleVideo { render_id: world.render_id, parts, audio, frames: 18, fps: FPS };
    let sound = world.run(film.clone()).await.unwrap();
    for part in [&film.parts[0], &film.parts[2]] {
        let key = keys::blob(&world.render_shelf(), &part.blob.sha256);
        let zeros = vec![0u8; part.blob.size_bytes as usize];
        std::fs::write(world.folder.path().join("storage").join(key.as_ref()), zeros).unwrap();
    }
    assert_eq!(world.run(film.clone()).await.unwrap_err().code, "media.part_lost");
    let there = async |at: usize| world.storage.stat(&world.render_shelf(), &film.parts[at].blob.sha256).await.unwrap();
    assert_eq!([there(0).await, there(1).await, there(2).await].map(|found| found.is_some()), [false, true, false]);
    assert_eq!(world.parts(&[5, 6, 7]).await, film.parts, "the same frames give the same parts");
    assert_eq!(world.run(film).await.unwrap(), sound);
}

#[tokio::test]
async fn a_part_or_a_sound_that_is_gone_is_said_to_be_lost() {
    let world = World::new();
    let (parts, audio) = (world.parts(&[5]).await, world.silence(5, FPS).await);
    let film = AssembleVideo { render_id: world.render_id, parts, audio, frames: 5, fps: FPS };
    for gone in [film.audio.blob.clone(), film.parts[0].blob.clone()] {
        world.storage.remove(&world.render_shelf(), &gone.sha256).await.unwrap();
        assert_eq!(world.run(film.clone()).await.unwrap_err().code, "media.part_lost");
    }
}
