//! The directory of a zip, and whether what lies before each file agrees with it. Source: APPNOTE.TXT 6.3.10, PKWARE.

use super::{ArchiveError, shown};
use std::io::{Read, Seek, SeekFrom};

const END: [u8; 4] = *b"PK\x05\x06";
const WIDE_END: [u8; 4] = *b"PK\x06\x06";
const LOCATOR: [u8; 4] = *b"PK\x06\x07";
const ENTRY: [u8; 4] = *b"PK\x01\x02";
const LOCAL: [u8; 4] = *b"PK\x03\x04";
const BEHIND: [u8; 4] = *b"PK\x07\x08";
const END_BYTES: usize = 22;
const WIDE_END_BYTES: usize = 56;
const LOCATOR_BYTES: usize = 20;
const ENTRY_BYTES: usize = 46;
const LOCAL_BYTES: usize = 30;
/// A directory is at most so long for each entry: names and extra fields of some hundred bytes.
const BYTES_AN_ENTRY: u64 = 4096;
/// Encrypted, patched, strongly encrypted, masked.
const FORBIDDEN_FLAGS: u16 = 1 | 1 << 5 | 1 << 6 | 1 << 13;
/// The name is UTF-8; without it, in the code page of the first PC.
const UTF_8: u16 = 1 << 11;
/// What its bytes from 0x80 on mean. Source: "cp437_DOSLatinUS to Unicode table", Unicode Consortium.
const CODE_PAGE_437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";
/// Lengths and checksum come behind the content.
const LENGTHS_BEHIND: u16 = 1 << 3;
/// Stored, deflated.
const METHODS: [u16; 2] = [0, 8];
/// What the extra field of a Unicode path is called, which would be another name for the same.
const UNICODE_PATH: u16 = 0x7075;
/// The extra field in which numbers stand that need 64 bits.
const WIDE: u16 = 0x0001;
/// What a number says that stands there.
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
    /// The name as it stands there.
    raw: Vec<u8>,
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
        let said = Extent { ends_at, count: count.into(), size: size.into(), starts_at: starts_at.into() };
        let Extent { ends_at, count, size, starts_at } = said.widened(file)?;
        if count > most as u64 {
            return Err(ArchiveError::TooMuch("entries"));
        }
        if starts_at.checked_add(size) != Some(ends_at) || size > count * BYTES_AN_ENTRY {
            return Err(ArchiveError::Broken("its directory is not where it says"));
        }
        let directory = bytes_at(file, starts_at, size as usize)?;
        let mut rest = directory.as_slice();
        let mut entries = Vec::with_capacity(count as usize);
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
        let ends = order.iter().skip(1).map(|entry| entry.at).chain([self.starts_at]);
        for (entry, next) in order.iter().zip(ends) {
            let (ends_at, is_told_behind) = entry.content_end(file)?;
            let gap = next.checked_sub(ends_at).ok_or(ArchiveError::Broken("two entries lie over each other"))?;
            let is_fine = if is_told_behind { entry.is_told_again(file, ends_at, gap)? } else { gap == 0 };
            if !is_fine {
                return Err(ArchiveError::Broken("something else lies between its entries"));
            }
        }
        Ok(())
    }
}

/// Where the directory lies, and how many entries it has.
struct Extent {
    ends_at: u64,
    count: u64,
    size: u64,
    starts_at: u64,
}

impl Extent {
    /// The same as the end of a zip64 says it, which stands right before the end of the zip; itself where there is none. Both have
    /// to say the same as far as they can.
    fn widened(self, file: &mut (impl Read + Seek)) -> Result<Self, ArchiveError> {
        let lies = || ArchiveError::Broken("it is no sound zip64");
        let needed = self.count == u64::from(u16::MAX) || [self.size, self.starts_at].contains(&u64::from(ELSEWHERE));
        let both = (LOCATOR_BYTES + WIDE_END_BYTES) as u64;
        let found = match self.ends_at.checked_sub(both) {
            Some(at) => bytes_at(file, at, both as usize).map(|bytes| (at, bytes))?,
            None if needed => return Err(lies()),
            None => return Ok(self),
        };
        let (at, bytes) = found;
        let (end, locator) = bytes.split_at(WIDE_END_BYTES);
        if !locator.starts_with(&LOCATOR) {
            return if needed { Err(lies()) } else { Ok(self) };
        }
        let [of_disk, disks] = [4, 16].map(|n| u32_at(locator, n));
        let [disk, first_disk] = [16, 20].map(|n| u32_at(end, n));
        let [rest, here, count, size, starts_at] = [4, 24, 32, 40, 48].map(|n| u64_at(end, n));
        let in_one_piece = end.starts_with(&WIDE_END) && u64_at(locator, 8) == at && rest == WIDE_END_BYTES as u64 - 12;
        // Some count no disks where there is one.
        let on_one_disk = [of_disk, disk, first_disk] == [0, 0, 0] && disks <= 1 && here == count;
        let agrees = |narrow: u64, wide: u64, most: u64| narrow == wide || narrow == most;
        let agree = agrees(self.count, count, u16::MAX.into())
            && agrees(self.size, size, ELSEWHERE.into())
            && agrees(self.starts_at, starts_at, ELSEWHERE.into());
        if !in_one_piece || !on_one_disk || !agree {
            return Err(lies());
        }
        Ok(Self { ends_at: at, count, size, starts_at })
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
        let (raw, name) = (name.to_vec(), text(name, flags)?);
        if flags & FORBIDDEN_FLAGS != 0 || !METHODS.contains(&method) || !is_plain(attributes, &name) {
            return Err(ArchiveError::Forbidden(shown(&name)));
        }
        if disk != 0 {
            return Err(ArchiveError::Broken("it lies on several disks"));
        }
        let [unpacked, packed, at] = widened([unpacked, packed, at], extra)?;
        if fields(extra, UNICODE_PATH).next().is_some()
            || method == 0 && packed != unpacked
            || name.ends_with('/') && unpacked != 0
        {
            return Err(ArchiveError::Broken("an entry says two things"));
        }
        let entry = Self { name, packed, unpacked, raw, flags, method, checksum, at };
        Ok((entry, &from[ENTRY_BYTES + whole.len()..]))
    }

    /// Whether what lies between the end of its content and whatever comes next is its lengths and its checksum once more, with or without
    /// a mark before them, and nothing else.
    fn is_told_again(&self, file: &mut (impl Read + Seek), at: u64, gap: u64) -> Result<bool, ArchiveError> {
        if ![12, 16, 20, 24].contains(&gap) {
            return Ok(false);
        }
        let found = bytes_at(file, at, gap as usize)?;
        let narrow = [u64::from(self.checksum), self.packed, self.unpacked].map(|n| (n as u32).to_le_bytes()).concat();
        let wide =
            [&self.checksum.to_le_bytes()[..], &self.packed.to_le_bytes(), &self.unpacked.to_le_bytes()].concat();
        let unmarked = found.strip_prefix(&BEHIND[..]).filter(|rest| [12, 20].contains(&rest.len())).unwrap_or(&found);
        Ok(unmarked == narrow || unmarked == wide)
    }

    /// Where its content ends, if what stands before it says the same as the directory; and whether it stands behind it as well.
    fn content_end(&self, file: &mut (impl Read + Seek)) -> Result<(u64, bool), ArchiveError> {
        let differs = || ArchiveError::Broken("an entry is not what the directory says");
        let header = bytes_at(file, self.at, LOCAL_BYTES)?;
        let [flags, method] = [6, 8].map(|n| u16_at(&header, n));
        let [name, extra] = [26, 28].map(|n| usize::from(u16_at(&header, n)));
        if !header.starts_with(&LOCAL) || flags != self.flags || method != self.method || name != self.raw.len() {
            return Err(differs());
        }
        let names = bytes_at(file, self.at.saturating_add(LOCAL_BYTES as u64), name + extra)?;
        let (name, extra) = names.split_at(name);
        if *name != self.raw || fields(extra, UNICODE_PATH).next().is_some() {
            return Err(differs());
        }
        let [checksum, packed, unpacked] = [14, 18, 22].map(|n| u32_at(&header, n));
        let [unpacked, packed] = widened([unpacked, packed], extra)?;
        let said = [checksum.into(), packed, unpacked];
        let listed = [self.checksum.into(), self.packed, self.unpacked];
        let behind = flags & LENGTHS_BEHIND != 0 && said.iter().zip(listed).all(|(a, b)| *a == 0 || *a == b);
        if said != listed && !behind {
            return Err(differs());
        }
        let content_at = self.at.saturating_add((LOCAL_BYTES + names.len()) as u64);
        Ok((content_at.saturating_add(self.packed), flags & LENGTHS_BEHIND != 0))
    }
}

/// Whether the attributes of an entry are those of a file or folder, as its name says: no link, device, pipe or label of a disk.
fn is_plain(attributes: u32, name: &str) -> bool {
    let kind = attributes >> 16 & 0o170_000;
    let (of_file, of_folder) = (kind == 0o100_000, kind == 0o040_000);
    let fits = kind == 0 || if name.ends_with('/') { of_folder } else { of_file };
    fits && attributes & 0x408 == 0
}

/// A name as it reads.
fn text(name: &[u8], flags: u16) -> Result<String, ArchiveError> {
    if flags & UTF_8 != 0 {
        let name = std::str::from_utf8(name).map_err(|_| ArchiveError::Broken("a name is not UTF-8, as it says"))?;
        return Ok(name.to_owned());
    }
    let high = |byte: u8| CODE_PAGE_437.chars().nth(usize::from(byte) - 0x80);
    let char_of = |byte: &u8| if byte.is_ascii() { Some(char::from(*byte)) } else { high(*byte) };
    name.iter().map(char_of).collect::<Option<_>>().ok_or(ArchiveError::Broken("a name cannot be read"))
}

/// Numbers of which those that say so stand in the field for 64 bits, in this order and alone.
fn widened<const N: usize>(numbers: [u32; N], extra: &[u8]) -> Result<[u64; N], ArchiveError> {
    let lies = || ArchiveError::Broken("it is no sound zip64");
    let mut found = fields(extra, WIDE);
    let mut wide = found.next().unwrap_or_default();
    if found.next().is_some() {
        return Err(lies());
    }
    let mut read = [0; N];
    for (number, read) in numbers.into_iter().zip(&mut read) {
        *read = number.into();
        if number == ELSEWHERE {
            let (first, rest) = wide.split_at_checked(8).ok_or_else(lies)?;
            (*read, wide) = (u64_at(first, 0), rest);
        }
    }
    if wide.is_empty() { Ok(read) } else { Err(lies()) }
}

/// The contents of the extra fields of this id.
fn fields(mut extra: &[u8], id: u16) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        while extra.len() >= 4 {
            let (found, length) = (u16_at(extra, 0), usize::from(u16_at(extra, 2)));
            let (content, rest) = extra[4..].split_at(length.min(extra.len() - 4));
            extra = rest;
            if found == id {
                return Some(content);
            }
        }
        None
    })
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
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
