//! Fonts of this machine, by the PostScript names that After Effects asks for. Read from the files themselves: what another
//! account has installed for itself is in none of these folders.
//!
//! Format: OpenType 1.9, "Font file", "name: Naming table".

use crate::aerender::{
    account,
    classes::{FONTS_OF_ANOTHER_USER, MISSING_FONT},
};
use flatrender_engine::Failure;
use flatrender_workflows::contracts::evidence::Evidence;
use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// Deepest folder below one of [`folders`].
const DEPTH: usize = 6;
/// Where an account keeps the fonts that it has installed for itself alone, below its home.
const OWN: &str = if cfg!(windows) {
    "AppData/Local/Microsoft/Windows/Fonts"
} else if cfg!(target_os = "macos") {
    "Library/Fonts"
} else {
    ".local/share/fonts"
};
/// Most fonts of a collection, tables of a font and bytes of a name table; what is more is broken.
const MOST: (usize, usize, usize) = (256, 256, 1 << 20);
/// The name's number: "PostScript name of the font".
const POSTSCRIPT: u16 = 6;

/// The fonts that are installed for everybody and for this account.
pub fn installed() -> Vec<String> {
    let mut names = BTreeSet::new();
    folders().iter().for_each(|folder| collect(folder, DEPTH, &mut names));
    names.into_iter().collect()
}

/// A failure for want of a font, when another account of this machine has it: then it is the node that is not set up as it should be. Looks
/// through folders: not for a thread that must not wait.
pub fn explained(failure: Failure) -> Failure {
    let home = std::env::var_os(if cfg!(windows) { "USERPROFILE" } else { "HOME" }).map(PathBuf::from);
    explained_by(failure, || home.map(|home| of_others(&home)).unwrap_or_default())
}

/// The same with the PostScript names that other accounts have, which are asked for only when a font is missing.
pub fn explained_by(failure: Failure, others: impl FnOnce() -> BTreeSet<String>) -> Failure {
    let missing = Evidence::of(&failure).filter(|seen| seen.class == MISSING_FONT.code && !seen.objects.is_empty());
    let Some(seen) = missing else { return failure };
    let others = others();
    let objects: Vec<String> = seen.objects.iter().filter(|font| others.contains(*font)).cloned().collect();
    if objects.is_empty() {
        return failure;
    }
    let class = FONTS_OF_ANOTHER_USER;
    let message = format!("{}: {}", class.message, objects.join(", "));
    let signature = account::signature(class.code, None, objects.first().map(String::as_str));
    let (code, number, cure) = (class.code.to_owned(), class.number, class.cure);
    account::of(class, message, Evidence { class: code, number, cure, signature, objects, ..seen })
}

/// Fonts that the accounts beside that of `home` have installed for themselves, as far as their folders may be read.
fn of_others(home: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let homes = home.parent().and_then(|homes| std::fs::read_dir(homes).ok()).into_iter().flatten().flatten();
    for other in homes.map(|entry| entry.path()).filter(|other| other != home) {
        collect(&other.join(OWN), DEPTH, &mut names);
    }
    names
}

fn folders() -> Vec<PathBuf> {
    let below = |variable: &str, rest: &str| std::env::var_os(variable).map(|home| PathBuf::from(home).join(rest));
    if cfg!(windows) {
        [
            below("SystemRoot", "Fonts"),
            below("LOCALAPPDATA", "Microsoft/Windows/Fonts"),
            below("CommonProgramFiles", "Adobe/Fonts"),
        ]
        .into_iter()
        .flatten()
        .collect()
    } else if cfg!(target_os = "macos") {
        let fixed =
            ["/System/Library/Fonts", "/Library/Fonts", "/Library/Application Support/Adobe/Fonts"].map(PathBuf::from);
        fixed.into_iter().chain(below("HOME", OWN)).collect()
    } else {
        let fixed = ["/usr/share/fonts", "/usr/local/share/fonts"].map(PathBuf::from);
        fixed.into_iter().chain(below("HOME", OWN)).collect()
    }
}

fn collect(folder: &Path, depth: usize, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let kind = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        if path.is_dir() && depth > 0 {
            collect(&path, depth - 1, names);
        } else if matches!(kind.as_str(), "ttf" | "otf" | "ttc" | "otc") {
            // A file that is no font has no names.
            names.extend(File::open(&path).and_then(|mut file| read(&mut file)).unwrap_or_default());
        }
    }
}

/// PostScript names of the fonts in a file.
fn read(file: &mut (impl Read + Seek)) -> io::Result<Vec<String>> {
    let starts = if bytes::<4>(file, 0)? == *b"ttcf" {
        let count = u32::from_be_bytes(bytes(file, 8)?) as usize;
        (0..count.min(MOST.0) as u64)
            .map(|n| Ok(u32::from_be_bytes(bytes(file, 12 + 4 * n)?).into()))
            .collect::<io::Result<Vec<u64>>>()?
    } else {
        vec![0]
    };
    Ok(starts.into_iter().filter_map(|start| name(file, start).ok().flatten()).collect())
}

fn name(file: &mut (impl Read + Seek), start: u64) -> io::Result<Option<String>> {
    let count = usize::from(u16::from_be_bytes(bytes(file, start + 4)?));
    for n in 0..count.min(MOST.1) as u64 {
        let record: [u8; 16] = bytes(file, start + 12 + 16 * n)?;
        if record.starts_with(b"name") {
            let word = |at: usize| u32::from_be_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]);
            let mut table = vec![0; (word(12) as usize).min(MOST.2)];
            file.seek(SeekFrom::Start(word(8).into()))?;
            file.read_exact(&mut table)?;
            return Ok(in_table(&table));
        }
    }
    Ok(None)
}

fn in_table(table: &[u8]) -> Option<String> {
    let word = |at: usize| Some(u16::from_be_bytes([*table.get(at)?, *table.get(at + 1)?]));
    let (count, texts) = (word(2)?, usize::from(word(4)?));
    (0..usize::from(count)).find_map(|n| {
        let at = 6 + 12 * n;
        let (platform, id, length, offset) = (word(at)?, word(at + 6)?, word(at + 8)?, word(at + 10)?);
        let begin = texts + usize::from(offset);
        let text = table.get(begin..begin + usize::from(length)).filter(|_| id == POSTSCRIPT)?;
        // Macintosh names are single bytes, all others UTF-16; a PostScript name is ASCII.
        let text: String = if platform == 1 {
            text.iter().map(|b| char::from(*b)).collect()
        } else {
            text.chunks_exact(2)
                .filter_map(|pair| char::from_u32(u16::from_be_bytes([pair[0], pair[1]]).into()))
                .collect()
        };
        (!text.is_empty() && text.chars().all(|c| c.is_ascii_graphic())).then_some(text)
    })
}

fn bytes<const N: usize>(file: &mut (impl Read + Seek), at: u64) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    /// A font of nothing but its names: platform, number, text.
    fn font(names: &[(u16, u16, &[u8])], at: u32) -> Vec<u8> {
        let mut table = vec![0, 0, 0, names.len() as u8];
        table.extend((6 + 12 * names.len() as u16).to_be_bytes());
        let mut texts = Vec::new();
        for (platform, id, text) in names {
            let record = [*platform, 1, 0, *id, text.len() as u16, texts.len() as u16];
            table.extend(record.iter().flat_map(|word| word.to_be_bytes()));
            texts.extend_from_slice(text);
        }
        table.extend(texts);
        let mut font = vec![0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        font.extend(b"name\0\0\0\0");
        font.extend((at + 28).to_be_bytes());
        font.extend((table.len() as u32).to_be_bytes());
        font.extend(table);
        font
    }

    #[test]
    fn a_font_is_known_by_its_postscript_name() {
        let wide: Vec<u8> = "Vazirmatn-Bold".encode_utf16().flat_map(u16::to_be_bytes).collect();
        let windows = font(&[(3, 4, b"\0F\0u\0l\0l"), (3, 6, &wide)], 0);
        assert_eq!(read(&mut Cursor::new(windows)).unwrap(), ["Vazirmatn-Bold"]);
        let mac = font(&[(1, 6, b"Futura-Medium")], 0);
        assert_eq!(read(&mut Cursor::new(mac)).unwrap(), ["Futura-Medium"]);
        assert!(read(&mut Cursor::new(font(&[(1, 4, b"Futura")], 0))).unwrap().is_empty(), "it has none");
    }

    #[test]
    fn a_collection_has_a_name_for_each_font() {
        let head = 12 + 8;
        let first = font(&[(1, 6, b"One")], head);
        let second_at = head + first.len() as u32;
        let second = font(&[(1, 6, b"Two")], second_at);
        let mut all = b"ttcf\0\x01\0\0\0\0\0\x02".to_vec();
        all.extend(head.to_be_bytes());
        all.extend(second_at.to_be_bytes());
        all.extend(first);
        all.extend(second);
        assert_eq!(read(&mut Cursor::new(all)).unwrap(), ["One", "Two"]);
    }

    #[test]
    fn a_font_that_only_another_account_has_is_the_nodes_to_mend() {
        let homes = tempfile::tempdir().unwrap();
        for (account, name) in [("node", "Mine"), ("designer", "Futura-Medium")] {
            let folder = homes.path().join(account).join(OWN);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("a.ttf"), font(&[(1, 6, name.as_bytes())], 0)).unwrap();
        }
        let objects = ["Futura-Medium", "Nowhere-Bold"].map(str::to_owned).to_vec();
        let seen = Evidence { objects, ..Evidence::bare(MISSING_FONT.code, MISSING_FONT.number, MISSING_FONT.cure) };
        let missing = account::of(MISSING_FONT, "fonts are missing".to_owned(), seen);
        let told = explained_by(missing.clone(), || of_others(&homes.path().join("node")));
        assert_eq!((told.code.as_str(), told.retryable), ("node.fonts_of_another_user", true));
        assert_eq!(Evidence::of(&told).unwrap().objects, ["Futura-Medium"]);
        assert_eq!(explained_by(missing.clone(), || of_others(&homes.path().join("designer"))), missing);
        let unnamed = Failure::transient(MISSING_FONT.code, "a font is missing");
        assert_eq!(explained_by(unnamed.clone(), || panic!("nobody says which")), unnamed);
    }

    proptest! {
        #[test]
        fn what_is_no_font_does_no_harm(noise in prop::collection::vec(any::<u8>(), 0..400), at in 0usize..60, byte in any::<u8>()) {
            let _ = read(&mut Cursor::new(noise));
            let mut broken = font(&[(1, 6, b"Futura-Medium")], 0);
            let at = at % broken.len();
            broken[at] = byte;
            let _ = read(&mut Cursor::new(broken));
        }
    }
}
