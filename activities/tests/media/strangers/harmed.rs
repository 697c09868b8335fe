//! What nobody thought of: sound files of all kinds, harmed at random. The archives' turn is in `archives`.

use super::{Yard, archives::stored, inspector, peak_bytes};
use crate::world::{tone, wav};
use flatrender_activities::media::upload::{Upload, UploadError};
use image::{DynamicImage, ImageFormat};
use proptest::{prelude::*, test_runner::TestRunner};
use std::{
    io::Cursor,
    time::{Duration, Instant},
};

/// What is done to a sound file, at a place in thousandths of it.
#[derive(Debug, Clone)]
pub enum Harm {
    Byte(usize, u8),
    Number(usize, usize, u64),
    Cut(usize, usize),
    Copy(usize, usize, usize),
}

impl Harm {
    pub fn to(&self, bytes: &mut Vec<u8>) {
        let place = |thousandths: usize| thousandths * bytes.len() / 1000;
        match *self {
            Self::Byte(at, value) => {
                let at = place(at);
                bytes.splice(at..(at + 1).min(bytes.len()), [value]);
            }
            Self::Number(at, length, value) => {
                let at = place(at);
                bytes.splice(at..(at + length).min(bytes.len()), value.to_le_bytes()[..length].to_vec());
            }
            Self::Cut(at, length) => {
                let at = place(at);
                bytes.drain(at..(at + length).min(bytes.len()));
            }
            Self::Copy(from, length, to) => {
                let (from, to) = (place(from), place(to));
                let copied = bytes[from..(from + length).min(bytes.len())].to_vec();
                bytes.splice(to..to, copied);
            }
        }
    }
}

pub fn harm() -> impl Strategy<Value = Harm> {
    let numbers = prop_oneof![
        Just(0u64),
        Just(1),
        Just(0xffff),
        Just(0xffff_ffff),
        Just(u64::MAX),
        Just(1 << 31),
        Just(1 << 63),
        0..2000u64
    ];
    let lengths = prop_oneof![Just(2usize), Just(4), Just(8)];
    prop_oneof![
        4 => (0..1000usize, any::<u8>()).prop_map(|(at, value)| Harm::Byte(at, value)),
        4 => (0..1000usize, lengths, numbers).prop_map(|(at, length, value)| Harm::Number(at, length, value)),
        1 => (0..1000usize, 1..40usize).prop_map(|(at, length)| Harm::Cut(at, length)),
        1 => (0..1000usize, 1..60usize, 0..1000usize).prop_map(|(from, length, to)| Harm::Copy(from, length, to)),
    ]
}

/// How many cases: so many that they take a few seconds, and so many times that as `FLATRENDER_FUZZ_TIMES` says.
pub fn cases(usual: u32) -> ProptestConfig {
    let times = std::env::var("FLATRENDER_FUZZ_TIMES").ok().and_then(|times| times.parse().ok()).unwrap_or(1u32);
    let cases = usual.saturating_mul(times);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Harms each of `sound` and has it looked at: it is taken for what it is or refused, soon, and nothing else happens.
fn every_harmed(sound: &[Vec<u8>], config: ProptestConfig, patience: Duration, may_be: fn(&Upload) -> bool) {
    let (yard, inspector) = (Yard::new(), inspector("ffprobe".into()));
    let path = yard.jail().join("harmed");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let tried = (0..sound.len(), prop::collection::vec(harm(), 0..5));
    TestRunner::new(config)
        .run(&tried, |(which, harms)| {
            let mut bytes = sound[which].clone();
            harms.iter().for_each(|harm| harm.to(&mut bytes));
            std::fs::write(&path, &bytes).unwrap();
            let began = Instant::now();
            match runtime.block_on(inspector.inspect(&path)) {
                Ok(upload) => prop_assert!(may_be(&upload), "{:?}", upload),
                Err(UploadError::Unchecked(why)) => prop_assert!(false, "{}", why),
                Err(_) => prop_assert!(std::fs::read(&path).unwrap() == bytes, "refused, and yet changed"),
            }
            prop_assert!(began.elapsed() < patience, "{:?}", began.elapsed());
            prop_assert_eq!(std::fs::read_dir(yard.jail()).unwrap().count(), 1);
            Ok(())
        })
        .unwrap();
    yard.is_as_before(Duration::from_secs(4 * 3600));
}

/// M32, at random.
#[test]
fn m32_pictures_that_are_harmed_are_kept_or_refused() {
    let rgb = image::RgbImage::from_fn(61, 40, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8]));
    let rgb = DynamicImage::ImageRgb8(rgb);
    let deep = DynamicImage::ImageRgba16(rgb.to_rgba16());
    let sound = [
        encoded(&rgb, ImageFormat::Png),
        encoded(&deep, ImageFormat::Png),
        encoded(&rgb, ImageFormat::Jpeg),
        encoded(&rgb, ImageFormat::WebP),
    ];
    let may_be = |upload: &Upload| matches!(upload, Upload::Image { .. });
    every_harmed(&sound, cases(1500), Duration::from_secs(10), may_be);
    assert!(peak_bytes() < 768 << 20, "{}", peak_bytes());
}

/// M33, at random: each is looked at by a program of its own, so there are few.
#[test]
fn m33_sounds_that_are_harmed_are_kept_or_refused() {
    let sound = [wav(8000, 1, 0.2, tone(440.0, 0.5)), stored(&[("a", b"hello")])];
    let may_be = |upload: &Upload| matches!(upload, Upload::Audio { .. } | Upload::Archive);
    every_harmed(&sound, cases(40), Duration::from_secs(60), may_be);
}
