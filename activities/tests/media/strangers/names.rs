//! Names that lead elsewhere, on Linux or on Windows.

use super::{Yard, archives, walk};
use flatrender_activities::{
    aerender::unpack::{Bounds, unpack},
    archive::{self, Budget},
};
use flatrender_workflows::contracts::file_name::FileName;
use std::{collections::BTreeMap, time::Duration};

/// Names that nobody should be able to give to anything.
pub fn bad() -> Vec<String> {
    let mut names: Vec<String> = vec![];
    let ups = ["..", "...", ".. ", "..\u{202e}", "%2e%2e\\", "..;/", "....//", ".\\.."];
    let seps = ["/", "\\", "//", "\\\\", "/./", "\\/"];
    for up in ups {
        for sep in seps {
            for target in ["evil", "etc/passwd", "Windows\\System32\\evil.dll"] {
                names.push(format!("{up}{sep}{target}"));
                names.push(format!("a{sep}{up}{sep}{target}"));
            }
        }
    }
    for root in
        ["/", "\\", "//", "\\\\host\\share\\", "\\\\?\\C:\\", "\\\\.\\", "C:", "C:\\", "c:/", "file:///", "~/../"]
    {
        for target in ["evil", "..", "a/b"] {
            names.push(format!("{root}{target}"));
        }
    }
    for device in
        ["CON", "PRN", "AUX", "NUL", "COM1", "COM9", "LPT1", "LPT9", "COM\u{b9}", "LPT\u{b3}", "CONIN$", "conout$"]
    {
        for end in ["", ".txt", ".tar.gz", " .png", "  ", "."] {
            names.push(format!("{device}{end}"));
            names.push(format!("{}{end}", device.to_lowercase()));
        }
    }
    let controls = (0..32u8).chain(127..=159).map(char::from);
    names.extend(controls.map(|c| format!("a{c}b")));
    let unseen =
        ['\u{200b}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}'];
    let unseen =
        unseen.into_iter().chain(['\u{202e}', '\u{2060}', '\u{2066}', '\u{2069}', '\u{feff}', '\u{fffe}', '\u{e0041}']);
    names.extend(unseen.flat_map(|c| [format!("gpj{c}exe"), format!("{c}a"), format!("a{c}")]));
    for c in "\\:*?\"<>|".chars() {
        names.extend([format!("a{c}"), format!("{c}a"), format!("a{c}b.png")]);
    }
    for stream in ["a.txt:evil", "a.txt::$DATA", "a:evil:$DATA", ".:evil"] {
        names.push(stream.to_owned());
    }
    for end in [".", " ", "..", ". .", " .", "\u{a0}", "\u{3000}", "\u{2003}"] {
        names.extend(["a", "a.png", "..a"].map(|name| format!("{name}{end}")));
    }
    names.extend([" ", "\u{3000}", ".", "..", "", " a", "\u{a0}a"].map(str::to_owned));
    names.extend([256, 300, 4096, 70_000].map(|n| "a".repeat(n)));
    names.extend([128, 200].map(|n| "پ".repeat(n)));
    names.sort();
    names.dedup();
    names
}

#[test]
fn m29_no_name_leads_out_of_its_folder() {
    let names = bad();
    assert!(names.len() >= 500, "{}", names.len());
    let yard = Yard::new();
    for (n, name) in names.iter().enumerate() {
        // As a name of a file it is none; no part of it may be one either for an archive to be taken.
        assert!(FileName::parse(name).is_err(), "{name:?}");
        let zip = yard.jail().join("names.zip");
        std::fs::write(&zip, archives::stored(&[(name.as_str(), b"evil")])).unwrap();
        let target = yard.jail().join(n.to_string());
        std::fs::create_dir(&target).unwrap();
        let plain = !name.is_empty() && name.split('/').all(|part| FileName::parse(part).is_ok());
        assert_eq!(archive::prove(&zip, Budget::default()).is_ok(), plain, "{name:?}");
        assert_eq!(unpack(&zip, &target, Bounds::default()).is_ok(), plain, "{name:?}");
        let mut written = BTreeMap::new();
        walk(&target, &mut written);
        assert!(plain || written.is_empty(), "{name:?}: {written:?}");
    }
    yard.is_as_before(Duration::from_secs(10));
}

/// What people do call their files, in their languages.
#[test]
fn m29_names_of_people_are_taken() {
    let yard = Yard::new();
    for name in
        ["پروژه‌ی نوروز/لوگو.png", "写真/夏.jpg", "Ärger & Freude (1).mov", "- draft -.aep", "emoji 👩‍👩‍👧.wav", "a/b/c.d.e"]
    {
        let zip = yard.jail().join("names.zip");
        std::fs::write(&zip, archives::stored(&[(name, b"fine")])).unwrap();
        let target = tempfile::tempdir_in(yard.jail()).unwrap();
        archive::prove(&zip, Budget::default()).unwrap_or_else(|e| panic!("{name:?}: {e}"));
        unpack(&zip, target.path(), Bounds::default()).unwrap();
        assert_eq!(std::fs::read(target.path().join(name)).unwrap(), b"fine", "{name:?}");
    }
    yard.is_as_before(Duration::from_secs(5));
}
