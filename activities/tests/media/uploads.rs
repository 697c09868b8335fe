//! What is taken in, and what only pretends.

use crate::world::{World, png, tone, wav};
use flatrender_activities::media::{
    sniff::{AudioKind, ImageKind, VideoKind},
    upload::{Upload, UploadError, UploadInspector, UploadLimits},
};
use image::{DynamicImage, ImageFormat, RgbImage};
use std::io::Cursor;

impl World {
    async fn inspect(&self, name: &str, content: &[u8]) -> Result<Upload, UploadError> {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let limits = UploadLimits { size_bytes: 1_000_000, pixels: 100_000, audio_seconds: 5.0 };
        UploadInspector::new("ffprobe".into(), limits).inspect(&path).await
    }

    async fn code(&self, name: &str, content: &[u8]) -> Option<&'static str> {
        self.inspect(name, content).await.err().and_then(|error| error.code())
    }
}

fn picture(format: ImageFormat) -> Vec<u8> {
    let noisy = RgbImage::from_fn(60, 40, |x, y| image::Rgb([(x * y % 256) as u8, (x * 7 % 256) as u8, y as u8]));
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(noisy).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

#[tokio::test]
async fn pictures_are_told_by_their_content() {
    let world = World::new();
    let formats = [
        (ImageFormat::Png, ImageKind::Png),
        (ImageFormat::Jpeg, ImageKind::Jpeg),
        (ImageFormat::WebP, ImageKind::Webp),
    ];
    for (format, kind) in formats {
        let found = world.inspect("-i misleading.txt", &picture(format)).await.unwrap();
        assert_eq!(found, Upload::Image { kind, size: [60, 40] });
    }
}

#[tokio::test]
async fn sounds_are_told_by_their_content() {
    let world = World::new();
    std::fs::write(world.folder.path().join("tone.wav"), wav(44_100, 2, 1.5, tone(440.0, 0.5))).unwrap();
    let kinds = [
        ("wav", AudioKind::Wav),
        ("mp3", AudioKind::Mp3),
        ("m4a", AudioKind::M4a),
        ("aac", AudioKind::Aac),
        ("ogg", AudioKind::Ogg),
        ("flac", AudioKind::Flac),
    ];
    for (ending, expected) in kinds {
        let name = format!("out.{ending}");
        world.ask("ffmpeg", &["-v", "error", "-y", "-i", "tone.wav", &name]);
        let content = std::fs::read(world.folder.path().join(name)).unwrap();
        let Upload::Audio { kind, duration_ms } = world.inspect("-f hls", &content).await.unwrap() else {
            panic!("{ending}")
        };
        assert_eq!(kind, expected);
        // Of bare AAC ffprobe estimates the length, each version a little differently.
        assert!(duration_ms.abs_diff(1500) < 100, "{ending}: {duration_ms}");
    }
}

#[tokio::test]
async fn a_song_with_a_cover_is_a_song() {
    let world = World::new();
    std::fs::write(world.folder.path().join("cover.png"), picture(ImageFormat::Png)).unwrap();
    std::fs::write(world.folder.path().join("tone.wav"), wav(44_100, 2, 1.0, tone(440.0, 0.5))).unwrap();
    for name in ["song.m4a", "song.mp3"] {
        let cover = ["-map", "0", "-map", "1", "-c:v", "copy", "-disposition:v:0", "attached_pic", name];
        world.ask("ffmpeg", &[&["-v", "error", "-i", "tone.wav", "-i", "cover.png"][..], &cover].concat());
        let content = std::fs::read(world.folder.path().join(name)).unwrap();
        assert!(matches!(world.inspect(name, &content).await, Ok(Upload::Audio { .. })), "{name}");
    }
}

#[tokio::test]
async fn a_playlist_named_mp4_is_refused() {
    let world = World::new();
    std::fs::write(world.folder.path().join("secret.wav"), wav(44_100, 2, 1.0, tone(440.0, 0.5))).unwrap();
    let secret = world.folder.path().join("secret.wav");
    let playlist = format!("#EXTM3U\n#EXTINF:5,\nfile://{}\n#EXT-X-ENDLIST\n", secret.display());
    assert_eq!(world.code("film.mp4", playlist.as_bytes()).await, Some("file.unsupported_type"));
    let script = "ffconcat version 1.0\nfile 'secret.wav'\n";
    assert_eq!(world.code("song.mp3", script.as_bytes()).await, Some("file.unsupported_type"));
}

#[tokio::test]
async fn a_playlist_behind_a_songs_first_bytes_is_refused() {
    let world = World::new();
    let playlist = b"#EXTM3U\n#EXTINF:5,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n";
    for head in
        [&b"ID3\x03\0\0\0\0\0\0"[..], b"\0\0\0\x08ftyp", b"OggS\0", b"fLaC", b"RIFF\0\0\0\0WAVE", b"\xff\xfb\x90\x64"]
    {
        let content = [head, playlist].concat();
        assert_eq!(world.code("song.mp3", &content).await, Some("file.corrupt"), "{head:?}");
    }
}

#[tokio::test]
async fn what_is_no_picture_and_no_sound_is_refused() {
    let world = World::new();
    let svg = br#"<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>"#;
    let others: [(&str, &[u8]); 5] = [
        ("text.png", b"hello"),
        ("drawing.png", svg),
        ("archive.jpg", b"PK\x05\x06\0\0\0\0"),
        ("animation.png", b"GIF89a\x01\0\x01\0"),
        ("page.mp3", b"<!DOCTYPE html><html>"),
    ];
    for (name, content) in others {
        assert_eq!(world.code(name, content).await, Some("file.unsupported_type"), "{name}");
    }
    assert_eq!(world.code("nothing.png", b"").await, Some("file.empty"));
}

#[tokio::test]
async fn films_are_told_by_their_content() {
    let world = World::new();
    let film = world.film(&[5]).await;
    world.fetched(&world.files_shelf(), &film, "film.mp4").await;
    for (args, name, expected) in [
        (&["-c", "copy"][..], "out.mp4", VideoKind::Mp4),
        (&["-c", "copy"], "out.mov", VideoKind::Mov),
        (&["-c:v", "libvpx", "-c:a", "libopus"], "out.webm", VideoKind::Webm),
    ] {
        world.ask("ffmpeg", &[&["-v", "error", "-y", "-i", "film.mp4"], args, &[name]].concat());
        let content = std::fs::read(world.folder.path().join(name)).unwrap();
        let found = world.inspect("song.m4a", &content).await.unwrap();
        let Upload::Video { kind, size: [64, 36], .. } = found else { panic!("{name}: {found:?}") };
        assert_eq!(kind, expected);
        assert_eq!(std::fs::read(world.folder.path().join("song.m4a")).unwrap(), content, "it stays as it came");
    }
}

#[tokio::test]
async fn half_a_picture_is_refused() {
    let world = World::new();
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
        let whole = picture(format);
        for length in [13, whole.len() / 2, whole.len() - 20] {
            assert_eq!(world.code("half", &whole[..length]).await, Some("file.corrupt"), "{format:?} {length}");
        }
    }
}

#[tokio::test]
async fn a_picture_is_measured_before_it_is_decoded() {
    let world = World::new();
    assert_eq!(world.code("wide.png", &png(&RgbImage::new(1000, 101))).await, Some("file.too_large"));
    // A bomb: the header says 50,000 × 50,000, and little follows.
    let mut bomb = png(&RgbImage::new(8, 8));
    bomb[16..24].copy_from_slice(&[0, 0, 0xc3, 0x50, 0, 0, 0xc3, 0x50]);
    let checksum = crc(&bomb[12..29]).to_be_bytes();
    bomb[29..33].copy_from_slice(&checksum);
    assert_eq!(world.code("bomb.png", &bomb).await, Some("file.too_large"));
}

#[tokio::test]
async fn what_is_longer_than_its_limit_is_refused() {
    let world = World::new();
    assert_eq!(world.code("long.wav", &wav(8_000, 1, 6.0, |_| 0.1)).await, Some("file.too_large"));
    assert_eq!(world.code("large.png", &vec![0; 1_000_001]).await, Some("file.too_large"));
}

/// The checksum of PNG chunks.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}
