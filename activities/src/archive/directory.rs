//! The directory of a zip, and whether what lies before each file agrees with it. Source: APPNOTE.TXT 6.3.10, PKWARE.

use super::{ArchiveError, shown};
use std::io::{Read, Seek, SeekFrom};

const END: [u8; 4] = *b"PK\x05\x06";
const ENTRY: [u8; 4] = *b"PK\x01\x02";
const LOCAL: [u8; 4] = *b"PK\x03\x04";
const END_BYTES: usize = 22;
const ENTRY_BYTES: usize = 46;
const LOCAL_BYTES: usize = 30;
/// A directory is at most so long for each entry: names and extra fields of some hundred bytes.
const BYTES_AN_ENTRY: u64 = 4096;
/// Encrypted, patched, strongly encrypted, masked.
const FORBIDDEN_FLAGS: u16 = 1 | 1 << 5 | 1 << 6 | 1 << 13;
/// The name is UTF-8. Without it programs read what is not ASCII each in their own way.
const UTF_8: u16 = 1 << 11;
/// Lengths and checksum come behind the content.
const LENGTHS_BEHIND: u16 = 1 << 3;
/// Stored, deflated.
const METHODS: [u16; 2] = [0, 8];
/// What the extra field of a Unicode path is called, which would be another name for the same.
const UNICODE_PATH: u16 = 0x7075;
/// What a length says that stands elsewhere, in zip64.
const ELSEWHERE: u32 = u32::MAX;

/// What the directory says.
pub(super) struct Directory {
    pub(super) entries: Vec<Listed>,
    starts_at: u64,
}

/// What the directory says of one entry.
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) packed: u64,
    pub(super) unpacked: u64,
    flags: u16,
    method: u16,
    checksum: u32,
    at: u64,
}

impl Directory {
    /// Reads the directory of a zip of at most `most` entries. It ends with its end, and nothing lies between.
    pub(super) fn read(file: &mut (impl Read + Seek), most: usize) -> Result<Self, ArchiveError> {
        let length = file.seek(SeekFrom::End(0))?;
        let tail = length.min((END_BYTES + usize::from(u16::MAX)) as u64);
        let tail = bytes_at(file, length - tail, tail as usize)?;
        let end = (0..tail.len().saturating_sub(END_BYTES - 1)).rev().find(|at| {
            tail[*at..].starts_with(&END) && at + END_BYTES + usize::from(u16_at(&tail, at + 20)) == tail.len()
        });
        let end = end.ok_or(ArchiveError::Broken("it has no directory"))?;
        let ends_at = length - (tail.len() - end) as u64;
        let [disk, first_disk, here, count] = [4, 6, 8, 10].map(|n| u16_at(&tail, end + n));
        let [size, starts_at] = [12, 16].map(|n| u32_at(&tail, end + n));
        if [disk, first_disk] != [0, 0] || here != count {
            return Err(ArchiveError::Broken("it lies on several disks"));
        }
        if count == u16::MAX || size == ELSEWHERE || starts_at == ELSEWHERE {
            return Err(ArchiveError::Broken("it is a zip64"));
        }
        if usize::from(count) > most {
            return Err(ArchiveError::TooMuch("entries"));
        }
        let (size, starts_at) = (u64::from(size), u64::from(starts_at));
        if starts_at + size != ends_at || size > u64::from(count) * BYTES_AN_ENTRY {
            return Err(ArchiveError::Broken("its directory is not where it says"));
        }
        let directory = bytes_at(file, starts_at, size as usize)?;
        let mut rest = directory.as_slice();
        let mut entries = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let (entry, after) = Listed::read(rest)?;
            entries.push(entry);
            rest = after;
        }
        if !rest.is_empty() {
            return Err(ArchiveError::Broken("its directory has more than it says"));
        }
        Ok(Self { entries, starts_at })
    }

    /// Whether each entry is said the same before its content, and each content has bytes of its own, from the very first.
    pub(super) fn check_places(&self, file: &mut (impl Read + Seek)) -> Result<(), ArchiveError> {
        let mut order: Vec<&Listed> = self.entries.iter().collect();
        order.sort_by_key(|entry| entry.at);
        if order.first().is_some_and(|first| first.at != 0) {
            return Err(ArchiveError::Broken("something else lies before it"));
        }
        let mut free_from = 0;
        for entry in order {
            if entry.at < free_from {
                return Err(ArchiveError::Broken("two entries lie over each other"));
            }
            free_from = entry.content_end(file)?;
            if free_from > self.starts_at {
                return Err(ArchiveError::Broken("an entry lies over the directory"));
            }
        }
        Ok(())
    }
}

impl Listed {
    fn read(from: &[u8]) -> Result<(Self, &[u8]), ArchiveError> {
        let short = || ArchiveError::Broken("its directory ends early");
        if from.len() < ENTRY_BYTES || !from.starts_with(&ENTRY) {
            return Err(short());
        }
        let [flags, method] = [8, 10].map(|n| u16_at(from, n));
        let [checksum, packed, unpacked] = [16, 20, 24].map(|n| u32_at(from, n));
        let [name, extra, comment, disk] = [28, 30, 32, 34].map(|n| usize::from(u16_at(from, n)));
        let (attributes, at) = (u32_at(from, 38), u32_at(from, 42));
        let whole = from.get(ENTRY_BYTES..ENTRY_BYTES + name + extra + comment).ok_or_else(short)?;
        let (name, extra) = (&whole[..name], &whole[name..name + extra]);
        let name = std::str::from_utf8(name).ok().filter(|name| flags & UTF_8 != 0 || name.is_ascii());
        let name = name.ok_or(ArchiveError::Broken("a name is not UTF-8, or does not say so"))?;
        if flags & FORBIDDEN_FLAGS != 0 || !METHODS.contains(&method) || !is_plain(attributes, name) {
            return Err(ArchiveError::Forbidden(shown(name)));
        }
        if disk != 0 || [packed, unpacked, at].contains(&ELSEWHERE) {
            return Err(ArchiveError::Broken("it is a zip64"));
        }
        if has_field(extra, UNICODE_PATH) || method == 0 && packed != unpacked || name.ends_with('/') && unpacked != 0 {
            return Err(ArchiveError::Broken("an entry says two things"));
        }
        let [packed, unpacked, at] = [packed, unpacked, at].map(u64::from);
        let entry = Self { name: name.to_owned(), packed, unpacked, flags, method, checksum, at };
        Ok((entry, &from[ENTRY_BYTES + whole.len()..]))
    }

    /// Where its content ends, if what stands before it says the same as the directory.
    fn content_end(&self, file: &mut (impl Read + Seek)) -> Result<u64, ArchiveError> {
        let differs = || ArchiveError::Broken("an entry is not what the directory says");
        let header = bytes_at(file, self.at, LOCAL_BYTES)?;
        let [flags, method] = [6, 8].map(|n| u16_at(&header, n));
        let [name, extra] = [26, 28].map(|n| usize::from(u16_at(&header, n)));
        if !header.starts_with(&LOCAL) || flags != self.flags || method != self.method || name != self.name.len() {
            return Err(differs());
        }
        let names = bytes_at(file, self.at + LOCAL_BYTES as u64, name + extra)?;
        if names[..name] != *self.name.as_bytes() || has_field(&names[name..], UNICODE_PATH) {
            return Err(differs());
        }
        let said = [14, 18, 22].map(|n| u32_at(&header, n));
        let listed = [self.checksum, self.packed as u32, self.unpacked as u32];
        let behind = flags & LENGTHS_BEHIND != 0 && said.iter().zip(listed).all(|(a, b)| *a == 0 || *a == b);
        if said != listed && !behind {
            return Err(differs());
        }
        Ok(self.at + (LOCAL_BYTES + name + extra) as u64 + self.packed)
    }
}

/// Whether the attributes of an entry are those of a file or folder, as its name says: no link, device, pipe or label of a disk.
fn is_plain(attributes: u32, name: &str) -> bool {
    let kind = attributes >> 16 & 0o170_000;
    let (of_file, of_folder) = (kind == 0o100_000, kind == 0o040_000);
    let fits = kind == 0 || if name.ends_with('/') { of_folder } else { of_file };
    fits && attributes & 0x408 == 0
}

fn has_field(mut extra: &[u8], id: u16) -> bool {
    while extra.len() >= 4 {
        if u16_at(extra, 0) == id {
            return true;
        }
        extra = extra.get(4 + usize::from(u16_at(extra, 2))..).unwrap_or_default();
    }
    false
}

fn bytes_at(file: &mut (impl Read + Seek), at: u64, length: usize) -> Result<Vec<u8>, ArchiveError> {
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = vec![0; length];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The number at a place that is there.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
