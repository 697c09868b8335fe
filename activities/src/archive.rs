//! Zip archives that strangers made: looked at as a whole before anything is taken out of one.
//!
//! A zip says everything twice, in its directory and before each file, and programs differ in what they believe. Here both have to
//! say the same, nothing lies between the lines, and no archive is larger than its budget. What passes reads alike everywhere.
//! Encryption and archives over several disks are not taken. A zip64 is, when all that it says twice is the same; a name that does not say
//! that it is UTF-8 is read as the code page of the first PC, which is what it says then.

mod directory;

use directory::{Directory, Listed};
use flatrender_workflows::contracts::file_name::FileName;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

/// Longest path of an entry, in bytes.
const PATH_BYTES: usize = 1024;
/// What a zip begins with, and what an empty one is.
const MAGIC: [&[u8]; 2] = [b"PK\x03\x04", b"PK\x05\x06"];

/// How much an archive may hold.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Files and folders.
    pub entries: usize,
    /// All files together, unpacked.
    pub bytes: u64,
    /// Unpacked to packed bytes, of the whole.
    pub ratio: u64,
    /// Levels of folders, with the file.
    pub depth: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { entries: 5_000, bytes: 2 << 30, ratio: 100, depth: 20 }
    }
}

/// Why an archive is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It is no zip, or says two things of the same.
    #[error("the archive is not a sound zip: {0}")]
    Broken(&'static str),
    /// An entry is not a plain file or folder within the archive.
    #[error("entry {0:?} of the archive is not allowed")]
    Forbidden(String),
    /// It holds more than it may.
    #[error("the archive has more {0} than it may")]
    TooMuch(&'static str),
    /// It cannot be read here.
    #[error("the archive cannot be read")]
    Io(#[source] io::Error),
}

impl From<io::Error> for ArchiveError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                Self::Broken("it ends early, or its content does not fit its checksum")
            }
            _ => Self::Io(error),
        }
    }
}

/// One file or folder of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path, with `/` between the parts and, of folders, at the end.
    pub name: String,
    /// Its length unpacked, as the archive says.
    pub size_bytes: u64,
}

/// Looks at what the archive at `path` says of itself, and at nothing that is packed in it.
///
/// # Errors
/// Why it is not taken.
pub fn check(path: &Path, budget: Budget) -> Result<Vec<Entry>, ArchiveError> {
    let mut file = BufReader::new(File::open(path).map_err(ArchiveError::Io)?);
    let directory = Directory::read(&mut file, budget.entries)?;
    let sum = |of: fn(&Listed) -> u64| directory.entries.iter().map(of).fold(0, u64::saturating_add);
    let (packed, unpacked) = (sum(|e| e.packed), sum(|e| e.unpacked));
    if unpacked > budget.bytes {
        return Err(ArchiveError::TooMuch("bytes"));
    }
    // Where little is packed a large ratio is no harm.
    if unpacked > packed.max(1024).saturating_mul(budget.ratio) {
        return Err(ArchiveError::TooMuch("bytes for its length"));
    }
    let mut taken = Taken::default();
    for entry in &directory.entries {
        taken.add(&entry.name, budget.depth)?;
    }
    directory.check_places(&mut file)?;
    Ok(directory.entries.into_iter().map(|e| Entry { name: e.name, size_bytes: e.unpacked }).collect())
}

/// As [`check`], and unpacks every file into nothing: each has the length and the checksum that the archive says, and none is an
/// archive itself.
///
/// # Errors
/// Why it is not taken.
pub fn prove(path: &Path, budget: Budget) -> Result<Vec<Entry>, ArchiveError> {
    let entries = check(path, budget)?;
    let file = BufReader::new(File::open(path).map_err(ArchiveError::Io)?);
    let mut archive = zip::ZipArchive::new(file).map_err(|_| ArchiveError::Broken("its directory cannot be read"))?;
    if archive.len() != entries.len() {
        return Err(ArchiveError::Broken("its directory reads two ways"));
    }
    let mut buffer = vec![0; 64 * 1024];
    for (n, entry) in entries.iter().enumerate() {
        let mut packed = archive.by_index(n).map_err(|_| ArchiveError::Broken("an entry cannot be read"))?;
        if packed.name() != entry.name {
            return Err(ArchiveError::Broken("its directory reads two ways"));
        }
        let mut length = 0;
        loop {
            let read = packed.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            if length == 0 && MAGIC.iter().any(|magic| buffer[..read].starts_with(magic)) {
                return Err(ArchiveError::Forbidden(shown(&entry.name)));
            }
            length += read as u64;
            if length > entry.size_bytes {
                return Err(ArchiveError::Broken("an entry is longer than it says"));
            }
        }
        if length != entry.size_bytes {
            return Err(ArchiveError::Broken("an entry is shorter than it says"));
        }
    }
    Ok(entries)
}

/// Paths that are taken, as the most forgiving file system compares them. The value: whether it is a file.
#[derive(Default)]
struct Taken(BTreeMap<String, bool>);

impl Taken {
    /// Takes a path: that of a file or folder, and nobody's before.
    fn add(&mut self, name: &str, depth: usize) -> Result<(), ArchiveError> {
        let forbidden = || ArchiveError::Forbidden(shown(name));
        let (path, is_file) = name.strip_suffix('/').map_or((name, true), |folder| (folder, false));
        if path.len() > PATH_BYTES {
            return Err(forbidden());
        }
        let parts: Vec<&str> = path.split('/').collect();
        if parts.len() > depth {
            return Err(ArchiveError::TooMuch("levels of folders"));
        }
        let mut key = String::new();
        for (n, part) in parts.iter().enumerate() {
            let part = FileName::parse(part).map_err(|_| forbidden())?;
            key.push('/');
            key.extend(part.as_str().chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase));
            let file_here = is_file && n + 1 == parts.len();
            match self.0.get(&key) {
                // A folder may be named by itself and by what is in it, but by itself only once.
                Some(false) if !file_here && (n + 1 < parts.len() || !self.0.contains_key(&format!("{key}/"))) => {}
                None => {
                    self.0.insert(key.clone(), file_here);
                }
                Some(_) => return Err(forbidden()),
            }
        }
        if !is_file {
            self.0.insert(format!("{key}/"), false);
        }
        Ok(())
    }
}

fn shown(name: &str) -> String {
    name.chars().take(200).collect()
}
