//! Line forms seen in public logs, and reads split anywhere.

use super::*;
use proptest::prelude::*;

fn done(ordinal: u32, timecode: &str) -> Line {
    Line::Frame { ordinal, timecode: timecode.into() }
}

#[test]
fn every_form_of_a_frame_line_is_understood() {
    assert_eq!(parse("PROGRESS:  0:00:00:00 (1): 0 Seconds"), done(1, "0:00:00:00"));
    assert_eq!(parse("PROGRESS:  1;34;40;09 (21280)"), done(21280, "1;34;40;09"));
    assert_eq!(parse("PROGRESS:  123 (124): 0 Sekunden\r"), done(124, "123"));
    assert_eq!(parse("PROGRESS:  0:00:00:01 (2U): 0 Seconds"), done(2, "0:00:00:01"));
    assert_eq!(parse("PROGRESS:  0:00:00:15 (16): 1 Min, 28 Sec"), done(16, "0:00:00:15"));
}

#[test]
fn lines_that_look_like_frames_are_not() {
    for line in [
        "PROGRESS:  Frame Rate: 25.00 (comp)",
        "PROGRESS:  Duration: 0:00:05:00",
        "PROGRESS:  19.05.2022 15:23:11: Starting (1)",
        "PROGRESS:  0:00:00:00 (x): 0 Seconds",
        "PROGRESS:  0:00:00:00 (99999999999): 0 Seconds",
        "PROGRESS:",
        "0:00:00:00 (1): 0 Seconds",
    ] {
        assert!(!matches!(parse(line), Line::Frame { .. }), "{line}");
    }
}

#[test]
fn the_stations_of_a_render_are_understood_in_every_locale_seen() {
    for line in [
        "PROGRESS:  4/30/2019 1:59:13 AM: Starting composition “main”.",
        "PROGRESS:  15/03/2022 19:28:47 GMT+2: Starting composition \"main\".",
        "PROGRESS:  2024/1/25 3:01:44: Starting composition main.",
    ] {
        assert_eq!(parse(line), Line::Started, "{line}");
    }
    for line in [
        "PROGRESS:  4/7/19 3:01:44 AM EDT: Finished composition “main”.",
        "PROGRESS:  19.05.2022 15:23:11: Komposition „main“ beendet.",
        "PROGRESS:  15/03/2022 : fin de la composition main",
    ] {
        assert_eq!(parse(line), Line::Finished, "{line}");
    }
    assert_eq!(parse("PROGRESS: Launching After Effects..."), Line::Launching);
    assert_eq!(parse("PROGRESS: ...After Effects successfully launched"), Line::Launched);
    assert_eq!(parse("PROGRESS:  Dur\u{fffd}e: 0:00:05:00"), Line::Duration("0:00:05:00".into()));
    assert_eq!(parse("aerender version 23.2.1x3"), Line::Version("23.2.1x3".into()));
    assert_eq!(parse("PROGRESS:  Output To: C:\\work\\result.avi"), Line::Progress);
}

#[test]
fn a_moment_is_counted_in_frames() {
    for (moment, fps, frames) in [
        ("0:00:05:00", 25, 125),
        ("1:00:00:01", 30, 108_001),
        ("0;01;00;02", 30, 1800),
        ("0;10;00;00", 30, 17_982),
        ("148960", 30, 148_960),
    ] {
        assert_eq!(frames_in(moment, fps), Some(frames), "{moment}");
    }
    for moment in ["", "0:05:00", "99999999:00:00:00", "0:0:0:x"] {
        assert_eq!(frames_in(moment, 30), None, "{moment}");
    }
}

#[test]
fn every_form_of_an_error_is_understood() {
    for (line, text) in [
        ("aerender ERROR: No comp was found with the given name.", "No comp was found with the given name."),
        ("aerender ERROR -1712: AESend failed", "-1712: AESend failed"),
        ("aerender ERROR An existing connection was closed", "An existing connection was closed"),
        ("aerender SYNTAX ERROR: Illegal argument flag: -x", "Illegal argument flag: -x"),
        ("aerender Error: After Effects error: x", "After Effects error: x"),
        ("aerender Fehler: After Effects Fehler: x", "After Effects Fehler: x"),
        ("After Effects error: internal", "internal"),
        ("INFO: Render aborted.", "Render aborted."),
        ("INFO:This project contains 1 missing effect", "This project contains 1 missing effect"),
        ("aerender ERROR: [render.missing_font] no Vazirmatn", "[render.missing_font] no Vazirmatn"),
    ] {
        assert_eq!(parse(line), Line::Error(text.into()), "{line}");
    }
}

#[test]
fn noise_that_shouts_is_noise() {
    for line in [
        "ERROR *** IVCAutoReleasePool: leaking",
        "GL_VERS: 4.6 Prog Error: 1280",
        "LoadLibrary \"nvapi64.dll\" failed!",
        "Unable to read VR Path Registry from C:\\x",
        "Qt: Untested Windows version 10.0 detected!",
        "",
    ] {
        assert_eq!(parse(line), Line::Noise, "{line}");
    }
}

#[test]
fn a_warning_keeps_its_words() {
    let line = "WARNING:After Effects warning: Project has missing fonts.";
    assert_eq!(parse(line), Line::Warning("After Effects warning: Project has missing fonts.".into()));
}

#[test]
fn an_endless_line_does_not_fill_the_memory() {
    let mut buffer = LineBuffer::default();
    for _ in 0..100 {
        assert!(buffer.push(&[b'x'; 4096]).is_empty());
    }
    assert_eq!(buffer.push(b"\n")[0].len(), MAX_LINE_BYTES);
}

const TRANSCRIPT: &[u8] = b"aerender version 23.2.1x3\r\nPROGRESS:  0:00:00:00 (1): 0 Seconds\r\n\r\n\
    WARNING:After Effects warning: \x84\x94 f\xfcr\nPROGRESS:  0:00:00:01 (2): 0 Seconds\nlast without an end";

proptest! {
    #[test]
    fn lines_do_not_depend_on_how_reads_are_split(cuts in prop::collection::vec(0..TRANSCRIPT.len(), 0..20)) {
        let mut whole = LineBuffer::default();
        let mut expected = whole.push(TRANSCRIPT);
        expected.extend(whole.finish());

        let mut cuts = cuts;
        cuts.sort_unstable();
        let mut split = LineBuffer::default();
        let mut lines = Vec::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([TRANSCRIPT.len()]) {
            lines.extend(split.push(&TRANSCRIPT[from..cut]));
            from = cut;
        }
        lines.extend(split.finish());
        prop_assert_eq!(lines, expected);
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut buffer = LineBuffer::default();
        let mut lines = buffer.push(&bytes);
        lines.extend(buffer.finish());
        for line in lines {
            parse(&line);
            parse(&format!("PROGRESS: {line}"));
            parse(&format!("aerender {line}"));
        }
    }
}
