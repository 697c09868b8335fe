//! What is heard, when, and how loud.

use crate::world::{TENANT, World, tone, wav};
use flatrender_engine::Failure;
use flatrender_workflows::contracts::{
    media::{AudioRole, AudioTrack, MixAudio},
    storage::BlobRef,
};
use std::{
    io::{Cursor, Write},
    os::unix::fs::PermissionsExt,
};
use zip::{ZipWriter, write::SimpleFileOptions};

const RATE: f64 = 48_000.0;
/// Half a step of 16 bits, and what the limiter's arithmetic adds.
const EXACT: f64 = 1e-4;

fn track(role: AudioRole, blob: BlobRef) -> AudioTrack {
    AudioTrack {
        role,
        blob,
        owner: TENANT,
        member: None,
        volume: 1.0,
        offset_seconds: 0.0,
        trim_start_seconds: 0.0,
        fade_in_seconds: 0.0,
        fade_out_seconds: 0.0,
        repeat: false,
    }
}

/// The left channel of a mix.
struct Heard(Vec<f64>);

impl Heard {
    /// Amplitude of a tone between two times, by correlation with it.
    fn tone(&self, hertz: f64, from: f64, to: f64) -> f64 {
        let range = (from * RATE) as usize..(to * RATE) as usize;
        let turn = hertz * std::f64::consts::TAU / RATE;
        let (mut sine, mut cosine) = (0.0, 0.0);
        for n in range.clone() {
            sine += self.0[n] * (turn * n as f64).sin();
            cosine += self.0[n] * (turn * n as f64).cos();
        }
        2.0 * sine.hypot(cosine) / range.len() as f64
    }

    fn loud(&self) -> (Option<usize>, Option<usize>) {
        let is_loud = |sample: &f64| sample.abs() > 0.001;
        (self.0.iter().position(is_loud), self.0.iter().rposition(is_loud))
    }
}

impl World {
    async fn try_mix(&self, frames: u32, tracks: Vec<AudioTrack>, ducking: bool) -> Result<Heard, Failure> {
        let mixed = self.run(MixAudio { render_id: self.render_id, frames, fps: 25, tracks, ducking }).await?;
        self.fetched(&self.render_shelf(), &mixed.blob, "mix.wav").await;
        let raw = self.ask("ffmpeg", &["-v", "error", "-i", "mix.wav", "-f", "f64le", "-"]);
        let left: Vec<f64> = raw.chunks(16).map(|pair| f64::from_le_bytes(pair[..8].try_into().unwrap())).collect();
        assert_eq!((left.len() as u64, mixed.samples), (u64::from(frames) * 1920, u64::from(frames) * 1920));
        assert!(self.is_tidy());
        Ok(Heard(left))
    }

    async fn mix(&self, frames: u32, tracks: Vec<AudioTrack>) -> Heard {
        self.try_mix(frames, tracks, true).await.unwrap()
    }
}

#[tokio::test]
async fn sound_has_exactly_the_length_of_the_film() {
    let world = World::new();
    for (frames, fps, samples) in [(1, 30, 1600), (31, 24, 62_000), (7, 29, 11_586)] {
        let long = track(AudioRole::Music, world.file(&wav(44_100, 2, 3.0, tone(440.0, 0.5))).await);
        let mix = MixAudio { render_id: world.render_id, frames, fps, tracks: vec![long], ducking: true };
        assert_eq!(world.run(mix).await.unwrap().samples, samples, "{frames} frames at {fps}");
    }
}

#[tokio::test]
async fn no_tracks_give_silence() {
    let heard = World::new().mix(25, Vec::new()).await;
    assert!(heard.0.iter().all(|sample| *sample == 0.0));
}

#[tokio::test]
async fn music_ducks_under_a_voice() {
    let world = World::new();
    let music = track(AudioRole::Music, world.file(&wav(48_000, 2, 4.0, tone(440.0, 0.3))).await);
    let mut voice = track(AudioRole::VoiceOver, world.file(&wav(48_000, 1, 1.0, tone(1000.0, 0.5))).await);
    voice.offset_seconds = 1.0;
    let tracks = vec![music, voice];
    let ducked = world.mix(100, tracks.clone()).await;
    let [before, during, after] = [(0.2, 0.9), (1.3, 1.9), (3.5, 3.9)].map(|(from, to)| ducked.tone(440.0, from, to));
    assert!((before - 0.3).abs() < 0.01, "{before}");
    assert!(during < before / 3.0, "{during} under {before}");
    assert!((after - before).abs() < 0.02, "{after} after {before}");
    assert!((ducked.tone(1000.0, 1.3, 1.9) - 0.5).abs() < 0.02, "the voice is as recorded");

    let plain = world.try_mix(100, tracks, false).await.unwrap();
    assert!((plain.tone(440.0, 1.3, 1.9) - 0.3).abs() < 0.01, "without ducking nothing gives way");
}

#[tokio::test]
async fn an_effect_sounds_at_its_offset() {
    let world = World::new();
    let mut effect = track(AudioRole::Effect, world.file(&wav(48_000, 2, 0.02, |_| 0.5)).await);
    effect.offset_seconds = 0.5;
    let heard = world.mix(25, vec![effect]).await;
    assert_eq!(heard.loud(), (Some(24_000), Some(24_959)));
}

#[tokio::test]
async fn a_sound_beyond_the_end_is_not_heard() {
    let world = World::new();
    let blob = world.file(&wav(48_000, 2, 0.5, |_| 0.5)).await;
    let mut late = track(AudioRole::Effect, blob.clone());
    late.offset_seconds = 1.0;
    let mut trimmed = track(AudioRole::Effect, blob.clone());
    trimmed.trim_start_seconds = 0.5;
    assert_eq!(world.mix(25, vec![late, trimmed]).await.loud(), (None, None));
    let mut cut = track(AudioRole::Effect, blob);
    cut.offset_seconds = 0.9;
    assert_eq!(world.mix(25, vec![cut]).await.loud(), (Some(43_200), Some(47_999)));
}

#[tokio::test]
async fn a_volume_of_one_is_as_recorded_in_mono_and_stereo() {
    let world = World::new();
    for (channels, volume) in [(1, 1.0), (2, 1.0), (2, 2.0)] {
        let mut music = track(AudioRole::Music, world.file(&wav(48_000, channels, 0.2, |_| 0.4)).await);
        music.volume = volume;
        let heard = world.mix(5, vec![music]).await;
        let middle = heard.0[4_800];
        assert!((middle - 0.4 * volume).abs() < EXACT, "{channels} channels, {volume}: {middle}");
    }
}

#[tokio::test]
async fn sums_do_not_grow_beyond_full_scale() {
    let world = World::new();
    let blob = world.file(&wav(48_000, 2, 1.0, tone(440.0, 0.9))).await;
    let heard = world.mix(25, vec![track(AudioRole::Music, blob.clone()), track(AudioRole::Effect, blob)]).await;
    assert!(heard.0.iter().all(|sample| sample.abs() <= 0.951));
}

#[tokio::test]
async fn a_repeated_sound_goes_on_without_a_gap() {
    let world = World::new();
    let mut music = track(AudioRole::Music, world.file(&wav(48_000, 2, 0.15, |at| at * 4.0)).await);
    (music.repeat, music.trim_start_seconds) = (true, 0.05);
    let heard = world.mix(25, vec![music]).await;
    for n in (0..48_000).step_by(97) {
        let expected = (0.05 + (n % 4800) as f64 / RATE) * 4.0;
        assert!((heard.0[n] - expected).abs() < EXACT, "sample {n}: {} instead of {expected}", heard.0[n]);
    }
}

#[tokio::test]
async fn fades_begin_and_end_with_the_track() {
    let world = World::new();
    let mut music = track(AudioRole::Music, world.file(&wav(48_000, 2, 0.5, |_| 0.5)).await);
    (music.offset_seconds, music.fade_in_seconds, music.fade_out_seconds) = (0.2, 0.1, 0.2);
    let heard = world.mix(25, vec![music]).await;
    for (seconds, expected) in [(0.19, 0.0), (0.25, 0.25), (0.4, 0.5), (0.6, 0.25), (0.69, 0.025), (0.71, 0.0)] {
        let found = heard.0[(seconds * RATE) as usize];
        assert!((found - expected).abs() < 0.005, "{found} at {seconds}");
    }
}

#[tokio::test]
async fn every_kind_of_sound_is_mixed() {
    let world = World::new();
    let kinds = [("wav", 300.0), ("mp3", 500.0), ("m4a", 700.0), ("aac", 900.0), ("ogg", 1100.0), ("flac", 1300.0)];
    let mut tracks = Vec::new();
    for (ending, hertz) in kinds {
        std::fs::write(world.folder.path().join("tone.wav"), wav(44_100, 2, 1.0, tone(hertz, 0.1))).unwrap();
        let name = format!("out.{ending}");
        world.ask("ffmpeg", &["-v", "error", "-y", "-i", "tone.wav", &name]);
        let blob = world.file(&std::fs::read(world.folder.path().join(name)).unwrap()).await;
        tracks.push(track(AudioRole::Music, blob));
    }
    let heard = world.mix(25, tracks).await;
    for (ending, hertz) in kinds {
        let found = heard.tone(hertz, 0.2, 0.8);
        assert!((found - 0.1).abs() < 0.01, "{ending}: {found}");
    }
}

#[tokio::test]
async fn a_sound_comes_out_of_its_package() {
    let world = World::new();
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("assets/../../music.wav", SimpleFileOptions::default()).unwrap();
    zip.write_all(&wav(48_000, 2, 1.0, |_| 0.5)).unwrap();
    let package = world.file(&zip.finish().unwrap().into_inner()).await;
    let mut music = track(AudioRole::Music, package);
    music.member = Some("assets/../../music.wav".into());
    assert!((world.mix(25, vec![music.clone()]).await.0[24_000] - 0.5).abs() < EXACT);

    music.member = Some("assets/other.wav".into());
    let failure = world.try_mix(25, vec![music], true).await.err().unwrap();
    assert_eq!(failure.code, "audio.undecodable");
    assert!(failure.message.contains("not in its package"), "{failure}");
}

#[tokio::test]
async fn what_does_not_decode_is_named_by_its_role() {
    let world = World::new();
    let playlist = b"#EXTM3U\n#EXTINF:5,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n".to_vec();
    let header_only = wav(48_000, 2, 0.0, |_| 0.0);
    let garbage: Vec<u8> = b"ID3\x03".iter().copied().chain((0..4000_u32).map(|n| (n * 7 % 253) as u8)).collect();
    for content in [playlist, header_only, garbage, b"some words".to_vec()] {
        let voice = track(AudioRole::VoiceOver, world.file(&content).await);
        let failure = world.try_mix(25, vec![voice], true).await.err().unwrap();
        assert_eq!((failure.code.as_str(), failure.retryable), ("audio.undecodable", false), "{failure}");
        assert!(failure.message.contains("voice-over"), "{failure}");
    }
    assert!(world.is_tidy());
}

/// What is said to a mix whose ffmpeg is this script.
async fn said_to(script: &str) -> Failure {
    let mut world = World::new();
    let program = world.folder.path().join("instead");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    world.media.ffmpeg = program;
    let music = track(AudioRole::Music, world.file(&wav(48_000, 2, 0.1, |_| 0.5)).await);
    let failure = world.try_mix(25, vec![music], true).await.err().unwrap();
    assert!(world.is_tidy());
    failure
}

#[tokio::test]
async fn m33_a_sound_is_decoded_by_a_prisoner() {
    let limits = "echo time $(ulimit -t) memory $(ulimit -v) files $(ulimit -n) core $(ulimit -c) >&2
        (echo harm >harm) 2>/dev/null; [ ! -s harm ] || echo written >&2; exit 1";
    let failure = said_to(limits).await;
    assert_eq!((failure.code.as_str(), failure.retryable), ("audio.undecodable", false));
    assert_eq!(failure.details["log"], "time 1800 memory 2097152 files 32 core 0");
}

#[tokio::test]
async fn m33_no_more_comes_out_of_a_sound_than_the_film_can_hold() {
    let failure = said_to("exec yes").await;
    assert_eq!((failure.code.as_str(), failure.retryable), ("audio.undecodable", false));
    assert_eq!(failure.details["log"], "more than 384000 bytes came out");
}

#[tokio::test]
async fn settings_without_sense_are_refused() {
    let world = World::new();
    let music = track(AudioRole::Music, world.file(&wav(48_000, 2, 0.1, |_| 0.5)).await);
    let louder = AudioTrack { volume: 2.1, ..music.clone() };
    let earlier = AudioTrack { offset_seconds: -1.0, ..music.clone() };
    let nowhere = AudioTrack { fade_in_seconds: f64::NAN, ..music.clone() };
    let endless = AudioTrack { repeat: true, trim_start_seconds: 0.09, ..music.clone() };
    for wrong in [louder, earlier, nowhere, endless] {
        assert_eq!(world.try_mix(25, vec![wrong], true).await.err().unwrap().code, "media.invalid_input");
    }
}
