//! What else is made of a film.

use crate::world::{FPS, World};
use flatrender_workflows::contracts::{
    media::{DerivativeKind, DeriveFile},
    storage::{BlobHash, BlobRef},
};

#[tokio::test]
async fn everything_that_can_be_made_of_a_film_is_what_it_says() {
    let world = World::new();
    let video = world.film(&[20]).await;
    let kinds = [
        (DerivativeKind::Poster, "mjpeg"),
        (DerivativeKind::Gif, "gif"),
        (DerivativeKind::Small, "h264,aac"),
        (DerivativeKind::Prores, "prores,pcm_s16le"),
        (DerivativeKind::Webm, "vp9,opus"),
    ];
    for (kind, codecs) in kinds {
        let blob = world.run(DeriveFile { video: video.clone(), kind, frames: 20, fps: FPS }).await.unwrap();
        let path = world.fetched(&world.files_shelf(), &blob, kind.name()).await;
        let asked = ["-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0", path.to_str().unwrap()];
        let found = String::from_utf8(world.ask("ffprobe", &asked)).unwrap();
        assert_eq!(found.split_whitespace().collect::<Vec<_>>().join(","), codecs, "{kind:?}");
    }
    assert!(world.is_tidy());
}

#[tokio::test]
async fn what_is_no_film_fails_for_good() {
    let world = World::new();
    let video = world.file(b"no film at all").await;
    let failure = world.run(DeriveFile { video, kind: DerivativeKind::Gif, frames: 20, fps: FPS }).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retryable), ("media.derivative_failed", false));
    let video = BlobRef { sha256: BlobHash::of(b"gone"), size_bytes: 4 };
    assert!(world.run(DeriveFile { video, kind: DerivativeKind::Gif, frames: 20, fps: FPS }).await.is_err());
}
