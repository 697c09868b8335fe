//! Pictures that mean harm: each is refused, or gives an SVG with nothing of it inside, soon and in little memory.

use crate::{assert_plain, pictures};
use flatrender_tracer::{SOURCE_BYTES, TraceError, trace};
use std::time::{Duration, Instant};

/// A PNG that says it has so many pixels, and a few bytes of them.
fn png_saying(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 6, 0, 0, 0]].concat();
    for (kind, data) in [(b"IHDR", &header[..]), (b"IDAT", b"\x78\x9c\x63\0\0\0\x01\0\x01"), (b"IEND", b"")] {
        bytes.extend((data.len() as u32).to_be_bytes());
        let body = [&kind[..], data].concat();
        bytes.extend(&body);
        bytes.extend(crc32fast::hash(&body).to_be_bytes());
    }
    bytes
}

/// A chunk of text behind the header of a PNG.
fn with_text(png: &[u8], text: &[u8]) -> Vec<u8> {
    let body = [b"tEXtComment\0", text].concat();
    let chunk = [&(body.len() as u32 - 4).to_be_bytes()[..], &body, &crc32fast::hash(&body).to_be_bytes()].concat();
    [&png[..33], &chunk, &png[33..]].concat()
}

#[test]
fn a_picture_that_says_it_is_huge_is_refused_before_it_is_decoded() {
    for (width, height) in [(50_000, 50_000), (16_384, 16_384), (u32::MAX >> 1, 1), (1, 16_385)] {
        let began = Instant::now();
        let refused = trace(&png_saying(width, height)).unwrap_err();
        assert!(matches!(refused, TraceError::TooLarge | TraceError::Damaged(_)), "{width}×{height}: {refused}");
        assert!(width.min(height) < 10_000 || matches!(refused, TraceError::TooLarge), "{refused}");
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
    assert!(matches!(trace(&vec![0; SOURCE_BYTES + 1]).unwrap_err(), TraceError::TooLarge));
}

#[test]
fn what_is_no_picture_is_refused_whatever_it_looks_like() {
    let svg = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>";
    let cases: [&[u8]; 7] = [b"", svg, b"<html>", b"GIF89a;<script>", b"BM\0\0", b"%PDF-1.7", b"\xff\xfe<\0s\0"];
    for bytes in cases {
        assert!(matches!(trace(bytes).unwrap_err(), TraceError::Unsupported), "{bytes:?}");
    }
}

#[test]
fn a_damaged_picture_is_refused() {
    let whole = pictures::logo(64);
    for length in [8, 20, 33, 60, whole.len() / 2] {
        assert!(matches!(trace(&whole[..length]).unwrap_err(), TraceError::Damaged(_)), "{length}");
    }
    for head in [&b"\xff\xd8\xff\xe0\0\x10JFIF\0"[..], b"RIFF\xff\xff\xff\xffWEBPVP8 "] {
        assert!(matches!(trace(head).unwrap_err(), TraceError::Damaged(_)), "{head:?}");
    }
    // Every byte of a small picture changed once: refused or traced, never a panic.
    let small = pictures::logo(16);
    for n in 0..small.len() {
        let mut changed = small.clone();
        changed[n] ^= 0xff;
        if let Ok(traced) = trace(&changed) {
            assert_plain(&traced);
        }
    }
}

#[test]
fn nothing_that_a_picture_carries_along_comes_out() {
    let script = b"\"><script>alert(1)</script><image href=\"http://example.com/x\" onload=\"x()\"/><!ENTITY x SYSTEM \"file:///etc/passwd\">";
    let logo = pictures::logo(64);
    for polyglot in [with_text(&logo, script), [&logo[..], script].concat()] {
        let traced = trace(&polyglot).unwrap();
        assert_plain(&traced);
        assert_eq!(traced, trace(&logo).unwrap());
    }
}

#[test]
fn a_picture_in_which_nothing_is_to_be_seen_is_refused() {
    assert!(matches!(trace(&pictures::flat(40, 30, [200, 0, 0, 0])).unwrap_err(), TraceError::Empty));
}
