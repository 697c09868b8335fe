//! Effects that are installed for After Effects, by the match names that projects ask for. Read from the plug-ins themselves, which say
//! it in a list of properties that applications look for.
//!
//! Format: "PiPL Resources", After Effects C++ SDK Guide; a property is a vendor, a key, a number, a length and its value, in the byte
//! order of the system: on macOS `8BIM` `eMNA`, on Windows the same words from behind.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Deepest folder below one of [`folders`]: a plug-in of macOS is a folder of folders itself.
const DEPTH: usize = 10;
/// Bytes of a file that are looked at together, and those of the largest property: a text has at most 255.
const PIECE: usize = 1 << 20;
const PROPERTY: usize = 16 + 256;
/// Begins the match names of effects that come with After Effects: every node has them.
const ADOBES: &str = "ADBE ";

/// What is known of the plug-ins of this machine. A file is read once for as long as it stays as it is.
#[derive(Debug, Default)]
pub struct Plugins {
    known: HashMap<PathBuf, Known>,
}

#[derive(Debug)]
struct Known {
    stamp: (u64, Option<SystemTime>),
    names: Vec<String>,
}

impl Plugins {
    /// Match names of the effects for the After Effects of this renderer, but for those that come with it.
    pub fn of(&mut self, renderer: &Path) -> Vec<String> {
        let mut before = std::mem::take(&mut self.known);
        for folder in folders(renderer) {
            self.collect(&folder, DEPTH, &mut before);
        }
        let names: BTreeSet<&String> = self.known.values().flat_map(|known| &known.names).collect();
        names.into_iter().filter(|name| !name.starts_with(ADOBES)).cloned().collect()
    }

    fn collect(&mut self, folder: &Path, depth: usize, before: &mut HashMap<PathBuf, Known>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let kind = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
            let Ok(file) = path.metadata() else { continue };
            if file.is_dir() && depth > 0 {
                self.collect(&path, depth - 1, before);
            } else if file.is_file() && matches!(kind.as_str(), "aex" | "rsrc") {
                let stamp = (file.len(), file.modified().ok());
                let known = before.remove(&path).filter(|known| known.stamp == stamp);
                // What cannot be read names nothing; nor does it when it is looked at again.
                let read = || File::open(&path).and_then(|mut file| names(&mut file)).unwrap_or_default();
                let known = known.unwrap_or_else(|| Known { stamp, names: read() });
                self.known.insert(path, known);
            }
        }
    }
}

/// Beside the renderer, and where plug-ins lie that several of Adobe's applications share.
fn folders(renderer: &Path) -> Vec<PathBuf> {
    let own = renderer.parent().map(|folder| folder.join("Plug-ins"));
    let common = if cfg!(windows) {
        std::env::var_os("ProgramW6432").or_else(|| std::env::var_os("ProgramFiles")).map(|programs| {
            PathBuf::from(programs).join("Adobe").join("Common").join("Plug-ins").join("7.0").join("MediaCore")
        })
    } else {
        Some(PathBuf::from("/Library/Application Support/Adobe/Common/Plug-ins/7.0/MediaCore"))
    };
    own.into_iter().chain(common).collect()
}

/// Match names in a file, each piece of which overlaps the next by a property.
fn names(file: &mut impl Read) -> io::Result<Vec<String>> {
    let (mut found, mut bytes) = (BTreeSet::new(), Vec::new());
    loop {
        let read = file.by_ref().take(PIECE as u64).read_to_end(&mut bytes)?;
        found.extend((0..bytes.len().saturating_sub(16)).filter_map(|at| name(&bytes[at..])));
        if read == 0 {
            return Ok(found.into_iter().collect());
        }
        bytes.drain(..bytes.len().saturating_sub(PROPERTY));
    }
}

/// The match name, when the bytes begin with one.
fn name(bytes: &[u8]) -> Option<String> {
    let length = bytes.get(12..16)?.try_into().ok()?;
    let length = match &bytes[..8] {
        b"8BIMeMNA" => u32::from_be_bytes(length),
        b"MIB8ANMe" => u32::from_le_bytes(length),
        _ => return None,
    };
    let text = usize::from(*bytes.get(16)?);
    let text = bytes.get(17..17 + text).filter(|text| !text.is_empty() && text.len() < length as usize)?;
    text.iter().all(|b| b.is_ascii_graphic() || *b == b' ').then(|| String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A property with a text, as either system writes it.
    fn property(on_windows: bool, key: &[u8; 4], text: &str) -> Vec<u8> {
        let mut value = vec![text.len() as u8];
        value.extend(text.bytes());
        value.resize(value.len().next_multiple_of(4), 0);
        let word = |word: &[u8; 4]| if on_windows { word.iter().rev().copied().collect() } else { word.to_vec() };
        let number = |n: u32| if on_windows { n.to_le_bytes() } else { n.to_be_bytes() };
        let mut bytes = [word(b"8BIM"), word(key)].concat();
        bytes.extend(number(0));
        bytes.extend(number(value.len() as u32));
        bytes.extend(value);
        bytes
    }

    fn plugin(on_windows: bool, before: usize, match_name: &str) -> Vec<u8> {
        let mut bytes = vec![0x8B; before];
        bytes.extend(property(on_windows, b"name", "Particular"));
        bytes.extend(property(on_windows, b"eMNA", match_name));
        bytes.extend(property(on_windows, b"catg", "Trapcode"));
        bytes
    }

    #[test]
    fn an_effect_is_known_by_its_match_name_on_either_system() {
        for on_windows in [true, false] {
            assert_eq!(names(&mut &plugin(on_windows, 77, "tc Particular")[..]).unwrap(), ["tc Particular"]);
        }
        assert!(names(&mut &property(true, b"name", "Particular")[..]).unwrap().is_empty(), "that is another name");
    }

    #[test]
    fn a_name_is_found_wherever_a_large_file_is_cut() {
        for before in PIECE - 60..PIECE + 20 {
            assert_eq!(names(&mut &plugin(true, before, "tc Form")[..]).unwrap(), ["tc Form"], "{before}");
        }
    }

    #[test]
    fn what_is_installed_is_found_anew_and_what_stays_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let (renderer, plugins) = (folder.path().join("aerender"), folder.path().join("Plug-ins"));
        let bundle = plugins.join("Trapcode/Form.plugin/Contents/Resources");
        std::fs::create_dir_all(&bundle).unwrap();
        std::fs::write(plugins.join("Particular.AEX"), plugin(true, 9, "tc Particular")).unwrap();
        std::fs::write(plugins.join("Fill.aex"), plugin(true, 9, "ADBE Fill")).unwrap();
        std::fs::write(plugins.join("read me.txt"), plugin(true, 9, "tc None")).unwrap();
        let mut known = Plugins::default();
        assert_eq!(known.of(&renderer), ["tc Particular"]);
        std::fs::write(bundle.join("Form.rsrc"), plugin(false, 9, "tc Form")).unwrap();
        assert_eq!(known.of(&renderer), ["tc Form", "tc Particular"]);
        // Nobody looks into a file that is as it was.
        known.known.get_mut(&plugins.join("Particular.AEX")).unwrap().names = vec!["as before".into()];
        assert_eq!(known.of(&renderer), ["as before", "tc Form"]);
        std::fs::remove_file(plugins.join("Particular.AEX")).unwrap();
        assert_eq!(known.of(&renderer), ["tc Form"]);
    }

    proptest! {
        #[test]
        fn what_is_no_plugin_does_no_harm(noise in prop::collection::vec(any::<u8>(), 0..400), at in 0usize..80, byte in any::<u8>()) {
            let _ = names(&mut &noise[..]);
            let mut broken = plugin(true, 0, "tc Particular");
            let at = at % broken.len();
            broken[at] = byte;
            let _ = names(&mut &broken[..]);
        }
    }
}
