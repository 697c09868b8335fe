//! What an unpacked package must hold, byte for byte: made when it is unpacked, looked at before each use.

use super::super::TransferError;
use flatrender_workflows::contracts::storage::{BlobHash, BlobRef};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs, io,
    io::Read,
    path::{Path, PathBuf},
};

/// Hash and length of each file, by its path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sums(BTreeMap<PathBuf, BlobRef>);

impl Sums {
    /// Of everything below `folder`.
    pub(super) fn of(folder: &Path) -> io::Result<Self> {
        let mut sums = BTreeMap::new();
        collect(folder, Path::new(""), &mut sums)?;
        Ok(Self(sums))
    }

    /// As written by [`Sums::write`].
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        serde_json::from_slice(&fs::read(path)?).map_err(io::Error::other)
    }

    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        fs::write(path, serde_json::to_vec(self).map_err(io::Error::other)?)
    }
}

fn collect(folder: &Path, below: &Path, sums: &mut BTreeMap<PathBuf, BlobRef>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &path, sums)?;
        } else {
            sums.insert(path, sum(&entry.path())?);
        }
    }
    Ok(())
}

/// Hash and length of a file.
pub(in crate::aerender) fn sum(path: &Path) -> io::Result<BlobRef> {
    let mut file = fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut size_bytes = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(BlobRef { sha256: BlobHash::from_digest(hasher.finalize().into()), size_bytes }),
            read => {
                hasher.update(&buffer[..read]);
                size_bytes += read as u64;
            }
        }
    }
}

/// Whether a file is what was announced.
pub(super) fn check(path: &Path, blob: &BlobRef) -> Result<(), TransferError> {
    if sum(path)? == *blob { Ok(()) } else { Err(TransferError::Mismatch) }
}
