//! Zip archives that say two things at once, hold too much or lead elsewhere.

use super::{
    Yard,
    harmed::{cases, harm},
    peak_bytes,
};
use flatrender_activities::{
    aerender::unpack::{Bounds, unpack},
    archive::{self, ArchiveError, Budget},
};
use proptest::prelude::*;
use std::{io::Write as _, time::Duration};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// One entry as both its places say it. What is none is what is true.
#[derive(Debug, Clone, Default)]
struct Part {
    name: Vec<u8>,
    content: Vec<u8>,
    method: u16,
    flags: u16,
    attributes: u32,
    disk: u16,
    extra: Vec<u8>,
    /// Packed length, unpacked length and checksum, as the directory says.
    listed: [Option<u32>; 3],
    /// The same before the content.
    local: [Option<u32>; 3],
    local_name: Option<Vec<u8>>,
    local_method: Option<u16>,
    local_extra: Vec<u8>,
    /// What stands behind the content.
    behind: Vec<u8>,
    /// Where the directory says it lies.
    at: Option<u32>,
    unpacked: Option<u32>,
}

fn part(name: &str, content: &[u8]) -> Part {
    let flags = if name.is_ascii() { 0 } else { 1 << 11 };
    Part { name: name.into(), content: content.into(), flags, ..Part::default() }
}

/// What the end says. What is none is what is true.
#[derive(Debug, Clone, Default)]
struct End {
    before: Vec<u8>,
    between: Vec<u8>,
    after: Vec<u8>,
    count: Option<u16>,
    size: Option<u32>,
    at: Option<u32>,
    disk: u16,
    comment_length: Option<u16>,
}

fn zip(parts: &[Part], end: &End) -> Vec<u8> {
    let mut out = end.before.clone();
    let mut directory = vec![];
    for p in parts {
        let at = out.len() as u32;
        let length = p.content.len() as u32;
        let truth = [length, p.unpacked.unwrap_or(length), crc(&p.content)];
        let told = |said: [Option<u32>; 3]| [0, 1, 2].map(|n| said[n].unwrap_or(truth[n]));
        let [packed, unpacked, sum] = told(p.local);
        let name = p.local_name.as_ref().unwrap_or(&p.name);
        out.extend(b"PK\x03\x04\x14\0");
        out.extend([p.flags, p.local_method.unwrap_or(p.method), 0, 0].map(u16::to_le_bytes).concat());
        out.extend([sum, packed, unpacked].map(u32::to_le_bytes).concat());
        out.extend([name.len() as u16, p.local_extra.len() as u16].map(u16::to_le_bytes).concat());
        out.extend([&name[..], &p.local_extra, &p.content, &p.behind].concat());
        let [packed, unpacked, sum] = told(p.listed);
        directory.extend(b"PK\x01\x02\x14\x03\x14\0");
        directory.extend([p.flags, p.method, 0, 0].map(u16::to_le_bytes).concat());
        directory.extend([sum, packed, unpacked].map(u32::to_le_bytes).concat());
        directory.extend([p.name.len() as u16, p.extra.len() as u16, 0, p.disk, 0].map(u16::to_le_bytes).concat());
        directory.extend([p.attributes, p.at.unwrap_or(at)].map(u32::to_le_bytes).concat());
        directory.extend([&p.name[..], &p.extra].concat());
    }
    let (at, size) = (out.len() as u32, directory.len() as u32);
    out.extend(directory);
    out.extend(&end.between);
    let count = end.count.unwrap_or(parts.len() as u16);
    out.extend(b"PK\x05\x06");
    out.extend([end.disk, end.disk, count, count].map(u16::to_le_bytes).concat());
    out.extend([end.size.unwrap_or(size), end.at.unwrap_or(at)].map(u32::to_le_bytes).concat());
    out.extend(end.comment_length.unwrap_or(end.after.len() as u16).to_le_bytes());
    out.extend(&end.after);
    out
}

/// A part whose name does not say that it is UTF-8.
fn old(name: &[u8], content: &[u8]) -> Part {
    Part { name: name.into(), content: content.into(), ..Part::default() }
}

/// A part whose lengths and checksum stand behind its content, behind this mark.
fn streamed(mark: &[u8]) -> Part {
    let behind = [mark, &crc(b"x").to_le_bytes(), &[1, 0, 0, 0, 1, 0, 0, 0]].concat();
    Part { flags: 1 << 3, local: [Some(0); 3], behind, ..part("a", b"x") }
}

/// Numbers for which 32 bits are too few.
fn wide_field(numbers: &[u64]) -> Vec<u8> {
    let content = numbers.iter().flat_map(|n| n.to_le_bytes());
    [1u16.to_le_bytes(), (8 * numbers.len() as u16).to_le_bytes()].concat().into_iter().chain(content).collect()
}

/// A part whose lengths need 64 bits, as it says.
fn wide_part(name: &str, content: &[u8]) -> Part {
    let (most, length) = (Some(u32::MAX), content.len() as u64);
    let extra = wide_field(&[length, length]);
    let said = [most, most, None];
    Part { listed: said, local: said, local_extra: extra.clone(), extra, ..part(name, content) }
}

/// What the end of a zip64 says. What is none is what is true.
#[derive(Debug, Clone)]
struct Wide {
    at: Option<u64>,
    rest: u64,
    disk: u32,
    disks: u32,
    count: Option<u64>,
    narrow_count: u16,
    size: Option<u64>,
    starts_at: Option<u64>,
    between: Vec<u8>,
    without: bool,
}

impl Default for Wide {
    fn default() -> Self {
        let nothing = (None, None, None, None);
        let (at, count, size, starts_at) = nothing;
        Self {
            at,
            rest: 44,
            disk: 0,
            disks: 1,
            count,
            narrow_count: u16::MAX,
            size,
            starts_at,
            between: vec![],
            without: false,
        }
    }
}

/// A zip64 of these parts.
fn zip64(parts: &[Part], says: Wide) -> Vec<u8> {
    let mut whole = zip(parts, &End::default());
    let end = whole.split_off(whole.len() - 22);
    let number = |at: usize| u64::from(u32::from_le_bytes(end[at..at + 4].try_into().unwrap()));
    let (size, starts_at, at) =
        (says.size.unwrap_or(number(12)), says.starts_at.unwrap_or(number(16)), whole.len() as u64);
    let count = says.count.unwrap_or(parts.len() as u64).to_le_bytes();
    if !says.without {
        whole.extend(
            [b"PK\x06\x06", &says.rest.to_le_bytes()[..], &[45, 3, 45, 0], &says.disk.to_le_bytes(), &[0; 4]].concat(),
        );
        whole.extend([count, count, size.to_le_bytes(), starts_at.to_le_bytes()].concat());
        whole.extend(says.between);
        whole.extend(
            [b"PK\x06\x07", &[0; 4][..], &says.at.unwrap_or(at).to_le_bytes(), &says.disks.to_le_bytes()].concat(),
        );
    }
    whole.extend(b"PK\x05\x06\0\0\0\0");
    whole.extend([says.narrow_count.to_le_bytes(); 2].concat());
    whole.extend([0xff; 8]);
    whole.extend([0, 0]);
    whole
}

/// A plain zip of these files, nothing packed.
pub fn stored(files: &[(&str, &[u8])]) -> Vec<u8> {
    // A length of a name has two bytes: what is longer is cut, and then it is another name.
    let parts: Vec<Part> = files.iter().map(|(name, content)| part(&name[..name.len().min(65_000)], content)).collect();
    zip(&parts, &End::default())
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

fn packed(fill: impl FnOnce(&mut ZipWriter<std::io::Cursor<Vec<u8>>>)) -> Vec<u8> {
    let mut writer = ZipWriter::new(std::io::Cursor::new(vec![]));
    fill(&mut writer);
    writer.finish().unwrap().into_inner()
}

fn add(writer: &mut ZipWriter<std::io::Cursor<Vec<u8>>>, name: &str, content: &[u8]) {
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    writer.start_file(name, options).unwrap();
    writer.write_all(content).unwrap();
}

/// One packed stream of a megabyte of zeros, as deflate has it.
fn packed_zeros() -> (Vec<u8>, u32) {
    let whole = packed(|w| add(w, "a", &vec![0; 1 << 20]));
    let size = u32::from_le_bytes(whole[18..22].try_into().unwrap()) as usize;
    (whole[31..31 + size].to_vec(), 1 << 20)
}

/// Archives that no one may take, each with a word on why.
fn bad() -> Vec<(String, Vec<u8>)> {
    let one = || part("a.txt", b"hello");
    let with = |change: fn(&mut Part)| {
        let mut p = one();
        change(&mut p);
        zip(&[p], &End::default())
    };
    let ending = |end: End| zip(&[one()], &end);
    let mut all: Vec<(String, Vec<u8>)> = vec![];
    let mut push = |why: &str, bytes: Vec<u8>| all.push((why.to_owned(), bytes));
    // Names.
    for name in [
        "../evil",
        "a/../../evil",
        "/etc/evil",
        "C:\\evil",
        "C:evil",
        "a\\..\\evil",
        "a//b",
        "./a",
        "a/.",
        "NUL",
        "a:b",
        "a\0b",
        "",
    ] {
        push(&format!("name {name:?}"), zip(&[part(name, b"x")], &End::default()));
    }
    push("a name that is not the UTF-8 it says", with(|p| (p.name, p.flags) = (b"caf\xe9".to_vec(), 1 << 11)));
    push("a way out in another encoding", with(|p| p.name = b"..\\caf\x82".to_vec()));
    push(
        "two names that are one by another encoding",
        zip(&[part("\u{c7}", b"x"), old(b"\x87", b"x")], &End::default()),
    );
    push("a longer path", zip(&[part(&"a/".repeat(600), b"")], &End::default()));
    push("21 levels", zip(&[part(&format!("{}f", "d/".repeat(20)), b"x")], &End::default()));
    // The same twice.
    for (a, b) in [
        ("a", "a"),
        ("a", "A"),
        ("Ü", "ü"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("d/", "d/"),
        ("d/", "d"),
        ("A/x", "a/X"),
        ("ς", "Σ"),
    ] {
        let content = |name: &str| if name.ends_with('/') { vec![] } else { b"x".to_vec() };
        push(&format!("{a} and {b}"), zip(&[part(a, &content(a)), part(b, &content(b))], &End::default()));
    }
    // Kinds.
    for (kind, mode) in [
        ("symlink", 0o120_777u32),
        ("device", 0o020_666),
        ("disk", 0o060_666),
        ("pipe", 0o010_666),
        ("socket", 0o140_666),
    ] {
        let mut p = part("link", b"/etc/passwd");
        p.attributes = mode << 16;
        push(kind, zip(&[p], &End::default()));
    }
    push("a folder's mode", with(|p| p.attributes = 0o040_755 << 16));
    push("a reparse point", with(|p| p.attributes = 0x400));
    push("a label of a disk", with(|p| p.attributes = 8));
    push("a folder with content", zip(&[part("d/", b"x")], &End::default()));
    // Encryption and what nobody reads.
    push("encrypted", with(|p| p.flags = 1));
    push("strongly encrypted", with(|p| p.flags = 1 | 1 << 6));
    push("masked", with(|p| p.flags = 1 << 13));
    push("patched", with(|p| p.flags = 1 << 5));
    for method in [1u16, 6, 9, 12, 14, 93, 95, 99] {
        let mut p = one();
        p.method = method;
        push(&format!("method {method}"), zip(&[p], &End::default()));
    }
    // Two truths.
    push("another name before the content", with(|p| p.local_name = Some(b"b.txt".to_vec())));
    push("another method before the content", with(|p| p.local_method = Some(8)));
    push("another length before the content", with(|p| p.local[1] = Some(4)));
    push("another checksum before the content", with(|p| p.local[2] = Some(7)));
    push("a wrong checksum", with(|p| (p.local[2], p.listed[2]) = (Some(7), Some(7))));
    push("stored and packed", with(|p| (p.local[1], p.listed[1]) = (Some(500), Some(500))));
    push("another name in Unicode", with(|p| p.extra = b"\x75\x70\x09\0\x01\0\0\0\0evil".to_vec()));
    push(
        "another name in Unicode, before the content",
        with(|p| p.local_extra = b"\x75\x70\x09\0\x01\0\0\0\0evil".to_vec()),
    );
    // Places.
    push("over each other", zip(&[one(), Part { at: Some(0), ..one() }], &End::default()));
    push(
        "within each other",
        zip(&[part("a", &stored(&[("b", b"x")])), Part { at: Some(31), ..part("b", b"x") }], &End::default()),
    );
    push("outside", zip(&[Part { at: Some(1 << 30), ..one() }], &End::default()));
    push(
        "over the directory",
        with(|p| (p.local[0], p.listed[0], p.local[1], p.listed[1]) = (Some(60), Some(60), Some(60), Some(60))),
    );
    push("something before", zip(&[one()], &End { before: b"GIF89a".to_vec(), ..End::default() }));
    push("something between", ending(End { between: vec![0; 20], ..End::default() }));
    let hidden = zip(&[part("../evil", b"x")], &End::default())[..30 + 7 + 1].to_vec();
    push(
        "a hidden entry between two",
        zip(&[Part { behind: hidden.clone(), ..one() }, part("b.txt", b"x")], &End::default()),
    );
    push("a hidden entry before the directory", zip(&[Part { behind: hidden, ..one() }], &End::default()));
    push("other lengths behind the content", zip(&[Part { behind: vec![0; 12], ..streamed(b"") }], &End::default()));
    push("no lengths behind the content", zip(&[Part { behind: vec![], ..streamed(b"") }], &End::default()));
    push(
        "more behind the content",
        zip(&[Part { behind: [streamed(b"").behind, vec![0; 4]].concat(), ..streamed(b"") }], &End::default()),
    );
    push("something behind", [ending(End::default()), b"more".to_vec()].concat());
    push(
        "a second end in the comment",
        ending(End { after: [&b"PK\x05\x06"[..], &[0; 18]].concat(), ..End::default() }),
    );
    // The end.
    push("more entries than there are", ending(End { count: Some(2), ..End::default() }));
    push("fewer entries than there are", ending(End { count: Some(0), ..End::default() }));
    push("a directory elsewhere", ending(End { at: Some(0), ..End::default() }));
    push("a longer directory", ending(End { size: Some(1 << 30), ..End::default() }));
    push("a second disk", ending(End { disk: 1, ..End::default() }));
    push("an entry on a second disk", with(|p| p.disk = 1));
    push("a longer comment", ending(End { comment_length: Some(9), ..End::default() }));
    push(
        "zip64 in the end",
        ending(End { count: Some(u16::MAX), size: Some(u32::MAX), at: Some(u32::MAX), ..End::default() }),
    );
    for n in 0..2 {
        let mut p = one();
        (p.listed[n], p.extra) =
            (Some(u32::MAX), [&b"\x01\0\x10\0"[..], &[5, 0, 0, 0, 0, 0, 0, 0], &[5, 0, 0, 0, 0, 0, 0, 0]].concat());
        push(&format!("zip64 in length {n}"), zip(&[p], &End::default()));
    }
    let wide = |change: fn(&mut Wide)| {
        let mut says = Wide::default();
        change(&mut says);
        zip64(&[wide_part("a.txt", b"hello")], says)
    };
    for (why, bytes) in [
        ("an end elsewhere", wide(|w| w.at = Some(0))),
        ("an end that is longer", wide(|w| w.rest = 45)),
        ("an end on another disk", wide(|w| w.disk = 1)),
        ("a second disk", wide(|w| w.disks = 2)),
        ("another count", wide(|w| (w.count, w.narrow_count) = (Some(2), 1))),
        ("more entries than there are", wide(|w| w.count = Some(2))),
        ("all entries of the world", wide(|w| w.count = Some(u64::MAX))),
        ("a directory elsewhere", wide(|w| w.starts_at = Some(0))),
        ("a directory beyond the end", wide(|w| w.starts_at = Some(u64::MAX))),
        ("a directory of no end", wide(|w| w.size = Some(u64::MAX - 8))),
        ("something between", wide(|w| w.between = vec![0; 4])),
        ("no end at all", wide(|w| w.without = true)),
    ] {
        push(&format!("a zip64 with {why}"), bytes);
    }
    for (why, extra) in [
        ("nothing", vec![]),
        ("too little", wide_field(&[5])),
        ("too much", wide_field(&[5, 5, 0])),
        ("two opinions", [wide_field(&[5, 5]), wide_field(&[5, 5])].concat()),
        ("no end of bytes", wide_field(&[u64::MAX, u64::MAX])),
        ("two gigabytes and more", wide_field(&[(2 << 30) + 1, 5])),
        ("bytes over the directory", wide_field(&[1000, 1000])),
    ] {
        push(
            &format!("a zip64 entry that says {why}"),
            zip64(&[Part { extra, ..wide_part("a", b"hello") }], Wide::default()),
        );
    }
    push(
        "a zip64 entry that says another thing before its content",
        zip64(&[Part { local_extra: wide_field(&[4, 5]), ..wide_part("a", b"hello") }], Wide::default()),
    );
    push("64 bits that nobody needs", with(|p| p.extra = wide_field(&[5, 5])));
    push("nothing but a beginning", b"PK\x03\x04".to_vec());
    push("half", {
        let mut whole = ending(End::default());
        whole.truncate(40);
        whole
    });
    // Too much.
    push("a bomb", packed(|w| add(w, "bomb", &vec![0; 4 << 20])));
    push("many small bombs", packed(|w| (0..64).for_each(|n| add(w, &n.to_string(), &vec![0; 64 << 10]))));
    let (zeros, length) = packed_zeros();
    let lying = |says: u32| Part {
        method: 8,
        unpacked: Some(says),
        local: [None, None, Some(0)],
        listed: [None, None, Some(0)],
        ..part("a", &zeros)
    };
    push("more than it says", zip(&[lying(10_000)], &End::default()));
    push("less than it says", zip(&[lying(100_000)], &End::default()));
    let same: Vec<Part> = (0..50)
        .map(|n| Part { at: Some(0), method: 8, unpacked: Some(length), ..part(&n.to_string(), &zeros) })
        .collect();
    push("one stream many times", zip(&same, &End::default()));
    push(
        "two gigabytes and more",
        zip(&[Part { method: 8, unpacked: Some((2 << 30) + 1), ..part("a", &zeros) }], &End::default()),
    );
    push("5,001 entries", zip(&(0..5001).map(|n| part(&n.to_string(), b"")).collect::<Vec<_>>(), &End::default()));
    push("65,535 entries", zip(&vec![part("a", b""); 65_535], &End::default()));
    // An archive within an archive.
    let inner = stored(&[("a", b"x")]);
    push("nested", zip(&[part("inner.dat", &inner)], &End::default()));
    push("nested and packed", packed(|w| add(w, "inner.dat", &inner)));
    push("nested and empty", zip(&[part("inner.dat", b"PK\x05\x06")], &End::default()));
    // Packed streams that are none.
    for garbage in [&b"\x07"[..], b"\x03", b"\xff\xff\xff\xff", b"\x01\x05\0\xfa\xffhel", &[0x55; 300]] {
        let p = Part { method: 8, unpacked: Some(5), ..part("a", garbage) };
        push(&format!("garbage of {}", garbage.len()), zip(&[p], &End::default()));
    }
    all
}

#[test]
fn m30_no_crafted_archive_is_taken() {
    let archives = bad();
    assert!(archives.len() >= 60, "{}", archives.len());
    let yard = Yard::new();
    for (n, (why, bytes)) in archives.iter().enumerate() {
        let path = yard.jail().join(format!("{n}.zip"));
        std::fs::write(&path, bytes).unwrap();
        let refused = archive::prove(&path, Budget::default());
        assert!(refused.is_err(), "{why}: {refused:?}");
        // What looks fine from outside may be begun on; it leaves nothing but files in its folder, and no more than its budget.
        let target = yard.jail().join(n.to_string());
        std::fs::create_dir(&target).unwrap();
        let _ = unpack(&path, &target, Bounds { entries: 5000, bytes: 8 << 20 });
        let mut written = std::collections::BTreeMap::new();
        super::walk(&target, &mut written);
        assert!(written.values().sum::<u64>() <= (8 << 20) + 65_536, "{why}: {written:?}");
        let plain = |path: &std::path::PathBuf| path.symlink_metadata().is_ok_and(|m| m.is_file() || m.is_dir());
        assert!(written.keys().all(plain), "{why}: {written:?}");
    }
    yard.is_as_before(Duration::from_secs(10));
    assert!(peak_bytes() < 256 << 20, "{}", peak_bytes());
}

#[test]
fn m30_a_plain_archive_is_taken() {
    let yard = Yard::new();
    let path = yard.jail().join("plain.zip");
    let plain = packed(|w| {
        w.add_directory("Footage", SimpleFileOptions::default()).unwrap();
        add(w, "project.json", b"{}");
        add(w, "Footage/لوگو.png", &(0..100_000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
        add(w, "empty", b"");
    });
    for bytes in [
        plain,
        stored(&[("a", b"x"), ("b/c", b"y")]),
        zip(&[streamed(b"PK\x07\x08"), part("b", b"y")], &End::default()),
        zip(&[part("b", b"y"), streamed(b"")], &End::default()),
        zip(&[part("a", b"x")], &End { after: b"a comment".to_vec(), ..End::default() }),
    ] {
        std::fs::write(&path, bytes).unwrap();
        archive::prove(&path, Budget::default()).unwrap();
    }
    std::fs::write(&path, zip(&[], &End::default())).unwrap();
    assert_eq!(archive::prove(&path, Budget::default()).unwrap(), [], "an empty one");
    let within = |budget| archive::prove(&path, budget);
    std::fs::write(&path, packed(|w| add(w, "zeros", &vec![0; 1 << 20]))).unwrap();
    assert!(matches!(within(Budget::default()), Err(ArchiveError::TooMuch(_))), "its ratio");
    assert!(within(Budget { ratio: 2000, ..Budget::default() }).is_ok());
    assert!(matches!(
        within(Budget { ratio: 2000, bytes: 1 << 19, ..Budget::default() }),
        Err(ArchiveError::TooMuch(_))
    ));
}

/// What needs 64 bits, and what says that it does, is taken like any other, out of an archive that is longer than 32 bits reach as well.
#[test]
fn m30_a_zip64_is_taken_within_its_budget() {
    let yard = Yard::new();
    let path = yard.jail().join("wide.zip");
    let names = |bytes: Vec<u8>| {
        std::fs::write(&path, bytes).unwrap();
        let entries = archive::prove(&path, Budget::default()).unwrap();
        let target = tempfile::tempdir_in(yard.jail()).unwrap();
        unpack(&path, target.path(), Bounds::default()).unwrap();
        for entry in &entries {
            assert_eq!(target.path().join(&entry.name).metadata().unwrap().len(), entry.size_bytes, "{entry:?}");
        }
        entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>()
    };
    let two = [wide_part("a", b"hello"), wide_part("b/c", b"world!")];
    assert_eq!(names(zip64(&two, Wide::default())), ["a", "b/c"]);
    assert_eq!(names(zip64(&two, Wide { narrow_count: 2, disks: 0, ..Wide::default() })), ["a", "b/c"]);
    assert_eq!(names(zip(&two, &End::default())), ["a", "b/c"], "its end needs no 64 bits");
    assert_eq!(names(zip64(&[part("a", b"hello")], Wide::default())), ["a"], "nor its entries");
    let behind = [b"PK\x07\x08", &crc(b"hello").to_le_bytes()[..], &[5, 0, 0, 0, 0, 0, 0, 0].repeat(2)].concat();
    let streamed = Part { flags: 1 << 3, local_extra: wide_field(&[0, 0]), behind, ..wide_part("a", b"hello") };
    let streamed = Part { local: [Some(u32::MAX), Some(u32::MAX), Some(0)], ..streamed };
    assert_eq!(names(zip64(&[streamed], Wide::default())), ["a"]);
    let by_others = packed(|w| {
        let wide = SimpleFileOptions::default().large_file(true).compression_method(CompressionMethod::Deflated);
        w.start_file("d/ü.txt", wide).unwrap();
        w.write_all(b"by a program of others").unwrap();
    });
    assert_eq!(names(by_others), ["d/ü.txt"]);

    // 4.5 GiB, most of which is a hole of the file; nothing but its directory is read.
    let size = 9u64 << 29;
    let says = || wide_field(&[size, size]);
    let hole = Part { local_extra: says(), extra: says(), ..wide_part("hole", b"") };
    let mut whole = zip64(&[hole], Wide::default());
    let directory = whole.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    let moved = directory as u64 + size;
    let end = whole.windows(4).position(|w| w == b"PK\x06\x06").unwrap();
    whole[end + 48..end + 56].copy_from_slice(&moved.to_le_bytes());
    let locator = whole.windows(4).position(|w| w == b"PK\x06\x07").unwrap();
    whole[locator + 8..locator + 16].copy_from_slice(&(end as u64 + size).to_le_bytes());
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(&whole[..directory]).unwrap();
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(moved)).unwrap();
    file.write_all(&whole[directory..]).unwrap();
    drop(file);
    assert!(matches!(archive::check(&path, Budget::default()), Err(ArchiveError::TooMuch("bytes"))));
    let found = archive::check(&path, Budget { bytes: Bounds::default().bytes, ..Budget::default() }).unwrap();
    assert_eq!((found[0].name.as_str(), found[0].size_bytes), ("hole", size));
}

/// A name that does not say that it is UTF-8 is what the first PC would have shown.
#[test]
fn m30_a_name_in_the_old_code_page_is_read_as_such() {
    let yard = Yard::new();
    let path = yard.jail().join("old.zip");
    let every: Vec<u8> = (0x80..=0xbf).chain([b'/']).chain(0xc0..=0xfe).collect();
    for (raw, name) in
        [(&b"caf\x82.png"[..], "café.png"), (b"\x8erger/\x81bel", "Ärger/übel"), ("café".as_bytes(), "caf├⌐")]
    {
        std::fs::write(&path, zip(&[old(raw, b"x")], &End::default())).unwrap();
        assert_eq!(archive::prove(&path, Budget::default()).unwrap()[0].name, name);
        let target = tempfile::tempdir_in(yard.jail()).unwrap();
        unpack(&path, target.path(), Bounds::default()).unwrap();
        assert!(target.path().join(name).is_file(), "{name}");
    }
    std::fs::write(&path, zip(&[old(&every, b"x")], &End::default())).unwrap();
    let name = &archive::check(&path, Budget::default()).unwrap()[0].name;
    assert_eq!((name.chars().count(), name.chars().next(), name.chars().last()), (128, Some('Ç'), Some('■')));
}

/// M30, of what nobody thought of: sound archives of all kinds, harmed at random. Whatever is taken unpacks to exactly what was looked at.
/// An hour takes some ten million, which is what `scripts/chaos.sh fuzz` does.
#[test]
fn m30_whatever_is_taken_unpacks_to_what_was_looked_at() {
    let sound = [
        stored(&[("a", b"hello"), ("b/c", b"world")]),
        zip(&[streamed(b"PK\x07\x08"), part("d/e", b"y"), part("d/", b"")], &End::default()),
        zip64(&[wide_part("a", b"hello"), part("\u{fc}/x", b"y")], Wide::default()),
        zip(&[old(b"caf\x82", b"x")], &End { after: b"a comment".to_vec(), ..End::default() }),
        packed(|w| (0..3).for_each(|n| add(w, &format!("f{n}"), &vec![n; 300]))),
    ];
    let yard = Yard::new();
    let path = yard.jail().join("harmed.zip");
    let config = cases(4000);
    let cases = config.cases;
    let taken = std::cell::Cell::new(0);
    let tried = (0..sound.len(), prop::collection::vec(harm(), 0..4));
    proptest::test_runner::TestRunner::new(config)
        .run(&tried, |(which, harms)| {
            let mut bytes = sound[which].clone();
            harms.iter().for_each(|harm| harm.to(&mut bytes));
            std::fs::write(&path, &bytes).unwrap();
            let Ok(entries) = archive::prove(&path, Budget::default()) else { return Ok(()) };
            taken.set(taken.get() + 1);
            let target = tempfile::tempdir_in(yard.jail()).unwrap();
            unpack(&path, target.path(), Bounds::default()).map_err(|e| TestCaseError::fail(format!("{e:?}")))?;
            let mut found = std::collections::BTreeMap::new();
            super::walk(target.path(), &mut found);
            for entry in &entries {
                let there = target.path().join(&entry.name);
                let length = there.symlink_metadata().map(|m| if m.is_file() { m.len() } else { 0 });
                prop_assert_eq!(length.ok(), Some(entry.size_bytes), "{:?}", entry);
            }
            let files = found.keys().filter(|path| path.is_file()).count();
            prop_assert_eq!(files, entries.iter().filter(|entry| !entry.name.ends_with('/')).count());
            Ok(())
        })
        .unwrap();
    assert!(taken.get() > cases / 20 && taken.get() < cases, "{} of {cases}", taken.get());
    yard.is_as_before(Duration::from_secs(60));
}
