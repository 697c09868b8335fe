//! The corpus of transcripts: each is read as it says, however its bytes arrive, and the stand-in speaks its forms.

use crate::{verdicts, world};
use flatrender_activities::aerender::{
    classify,
    lines::{Line, LineBuffer, parse},
    transcript::Transcript,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::LazyLock,
};

static CORPUS: LazyLock<BTreeMap<String, Entry>> = LazyLock::new(corpus);

/// One transcript and how it is to be read.
struct Entry {
    bytes: Vec<u8>,
    locale: String,
    class: String,
    notes: Vec<String>,
    reading: Vec<String>,
}

fn corpus() -> BTreeMap<String, Entry> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let paths = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    let transcripts = paths.filter(|p| p.extension().is_some_and(|e| e == "txt"));
    transcripts.map(|p| (p.file_stem().unwrap().to_string_lossy().into_owned(), entry(&p))).collect()
}

fn entry(path: &Path) -> Entry {
    let mut entry = Entry {
        bytes: fs::read(path).unwrap(),
        locale: String::new(),
        class: String::new(),
        notes: Vec::new(),
        reading: Vec::new(),
    };
    for line in fs::read_to_string(path.with_extension("expect")).unwrap().lines() {
        match line.split_once(' ') {
            Some(("locale", locale)) => entry.locale = locale.into(),
            Some(("class", class)) => entry.class = class.into(),
            Some(("note", note)) => entry.notes.push(note.into()),
            _ => entry.reading.push(line.into()),
        }
    }
    entry
}

/// Lines of reads that are cut at the given places.
fn lines(bytes: &[u8], cuts: &[usize]) -> Vec<String> {
    let mut buffer = LineBuffer::default();
    let mut lines = Vec::new();
    let mut from = 0;
    for &cut in cuts.iter().chain([&bytes.len()]) {
        lines.extend(buffer.push(&bytes[from..cut]));
        from = cut;
    }
    lines.extend(buffer.finish());
    lines
}

/// A reading as it stands in a corpus file.
fn reading(lines: &[String]) -> Vec<String> {
    let mut reading: Vec<(String, u32)> = Vec::new();
    for line in lines {
        let read = match parse(line) {
            Line::Version(text) => format!("version {text}"),
            Line::Launching => "launching".into(),
            Line::Launched => "launched".into(),
            Line::Started => "started".into(),
            Line::Duration(text) => format!("duration {text}"),
            Line::Frame { ordinal, timecode } => format!("frame {ordinal} {timecode}"),
            Line::Finished => "finished".into(),
            Line::Warning(text) => format!("warning {text}"),
            Line::Error(text) => format!("error {text}"),
            Line::Progress => "progress".into(),
            Line::Noise => "noise".into(),
        };
        let counted = read == "progress" || read == "noise";
        match reading.last_mut() {
            Some((last, count)) if counted && *last == read => *count += 1,
            _ => reading.push((read, u32::from(counted))),
        }
    }
    reading.into_iter().map(|(read, count)| if count > 0 { format!("{read} {count}") } else { read }).collect()
}

fn taken(lines: &[String]) -> Transcript {
    let mut transcript = Transcript::default();
    for line in lines {
        transcript.take(line);
    }
    transcript
}

/// The class that the words tell.
fn class(lines: &[String]) -> &'static str {
    classify::by_transcript(&taken(lines)).map_or("none", |class| class.code)
}

/// Classes that a transcript leads to.
pub fn codes() -> BTreeSet<&'static str> {
    CORPUS
        .values()
        .flat_map(|e| e.notes.iter().chain([&e.class]))
        .map(String::as_str)
        .filter(|c| *c != "none")
        .collect()
}

#[test]
fn the_corpus_is_large_enough_and_in_several_languages() {
    let locales: BTreeSet<&str> = CORPUS.values().map(|e| e.locale.as_str()).collect();
    assert!(CORPUS.len() >= 40, "{}", CORPUS.len());
    assert_eq!(locales, BTreeSet::from(["de", "en", "fr", "ja", "ko"]));
    assert!(CORPUS.values().filter(|e| str::from_utf8(&e.bytes).is_err()).count() >= 5, "code pages");
}

#[test]
fn every_transcript_is_read_as_it_says() {
    for (name, entry) in CORPUS.iter() {
        assert_eq!(reading(&lines(&entry.bytes, &[])), entry.reading, "{name}");
    }
}

#[test]
fn the_words_of_every_transcript_tell_its_class() {
    for (name, entry) in CORPUS.iter() {
        let lines = lines(&entry.bytes, &[]);
        assert_eq!(class(&lines), entry.class, "{name}");
        let warnings = taken(&lines).warnings;
        let noted = warnings.iter().filter_map(|w| w.split_once(": ")).map(|(code, _)| code);
        assert_eq!(noted.filter(|c| c.starts_with("render.")).collect::<Vec<_>>(), entry.notes, "{name}");
    }
}

proptest! {
    #[test]
    fn no_transcript_depends_on_how_reads_are_split(
        at in any::<prop::sample::Index>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let entry = CORPUS.values().nth(at.index(CORPUS.len())).unwrap();
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(entry.bytes.len())).collect();
        cuts.sort_unstable();
        prop_assert_eq!(reading(&lines(&entry.bytes, &cuts)), &entry.reading[..]);
    }
}

#[test]
fn a_transcript_read_byte_by_byte_is_the_same() {
    for (name, entry) in CORPUS.iter() {
        let every: Vec<usize> = (0..entry.bytes.len()).collect();
        assert_eq!(reading(&lines(&entry.bytes, &every)), entry.reading, "{name}");
    }
}

/// A line without what varies: numbers, the composition's name, paths.
fn form(line: &str) -> String {
    let line = line.split_once("Output To: ").map_or(line, |(before, _)| before).trim_end();
    let mut form = String::new();
    for c in line.chars() {
        match c {
            '0'..='9' if form.ends_with('0') => {}
            '0'..='9' => form.push('0'),
            c => form.push(c),
        }
    }
    form
}

/// What the stand-in says in a scenario that ends by itself, without waits.
fn spoken(name: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let scenario = json!({ "name": name, "seed": 3, "frame_ms": 0, "busy": null });
    for (file, text) in [("project.json", world::project()), ("scenario.json", scenario)] {
        fs::write(folder.path().join(file), text.to_string()).unwrap();
    }
    let output = Command::new(world::stand_in())
        .current_dir(folder.path())
        .args(["-project", "project.json", "-comp", "main", "-s", "10", "-e", "15", "-output", "frame_[#####].png"])
        .args(["-OMtemplate", "PNG Sequence", "-v", "ERRORS_AND_PROGRESS", "-mfr", "ON", "100"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    lines(&output.unwrap().stdout, &[])
}

fn ends_by_itself(knobs: &Value) -> bool {
    knobs.get("hang").is_none() && knobs.get("zombie").is_none()
}

#[test]
fn the_stand_in_speaks_the_forms_of_the_corpus_and_tells_the_same_classes() {
    let known: BTreeSet<String> = CORPUS.values().flat_map(|e| lines(&e.bytes, &[])).map(|l| form(&l)).collect();
    let classes = codes();
    let mut strange = BTreeSet::new();
    let scenarios = verdicts::scenarios();
    for (name, _) in scenarios.iter().filter(|(_, knobs)| ends_by_itself(knobs)) {
        let spoken = spoken(name);
        assert!(!spoken.is_empty(), "{name}");
        let class = class(&spoken);
        assert!(class == "none" || classes.contains(class), "{name}: no transcript tells {class}");
        strange.extend(spoken.iter().map(|l| form(l)).filter(|f| !known.contains(f)).map(|f| (name, f)));
    }
    assert_eq!(strange, BTreeSet::new());
}
