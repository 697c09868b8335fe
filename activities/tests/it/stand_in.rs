//! The stand-in keeps to aerender's command line: its grammar, its order of checks, its exit codes and its oddities.

use crate::{picture, world};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    process::{Command, Stdio},
};

/// A project folder with two compositions of one name, a queue and, perhaps, a scenario.
struct Folder(tempfile::TempDir);

fn folder(scenario: &Value) -> Folder {
    let folder = Folder(tempfile::tempdir().unwrap());
    let composition = |name: &str, frames: u32, start: u32| json!({ "name": name, "frames": frames, "size": world::SIZE, "display_start": start });
    let project = json!({
        "compositions": [composition("main", 20, 0), composition("main", 5, 0), composition("late", 6, 100),
            composition("free", 20, 0)],
        "queue": [
            { "composition": "late", "output": "queued_[#####].png" },
            { "composition": "main", "span": [2, 3], "output": "span_[#####].png" },
        ]
    });
    fs::write(folder.0.path().join("a.aep"), project.to_string()).unwrap();
    fs::write(folder.0.path().join("data.json"), "{}").unwrap();
    fs::write(folder.0.path().join("scenario.json"), scenario.to_string()).unwrap();
    folder
}

impl Folder {
    /// Exit code and output of a run with these arguments, written as one line.
    fn run(&self, arguments: &str) -> (i32, String) {
        let mut command = Command::new(world::stand_in());
        command.current_dir(self.0.path()).args(arguments.split_whitespace()).stdin(Stdio::null());
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    }

    fn files(&self, prefix: &str) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.0.path()).unwrap().map(|e| e.unwrap());
        let files = entries.map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap()));
        files.filter(|(name, _)| name.starts_with(prefix)).collect()
    }
}

#[test]
fn arguments_are_parsed_before_anything_is_opened() {
    let folder = folder(&json!({}));
    for (arguments, code, words) in [
        ("-help -nonsense", 2, "aerender USAGE"),
        ("-project none.aep -Comp main", 3, "aerender SYNTAX ERROR: Illegal argument flag: -Comp"),
        ("-project none.aep -comp", 3, "aerender SYNTAX ERROR: no value given for flag: -comp"),
        ("-project none.aep -mem_usage 50", 3, "aerender SYNTAX ERROR: no value given for flag: -mem_usage"),
        ("-project none.aep -mfr ON", 3, "aerender SYNTAX ERROR: no value given for flag: -mfr"),
        ("-project a.aep -reuse", 3, "aerender SYNTAX ERROR: Illegal argument flag: -reuse"),
    ] {
        let (got, said) = folder.run(arguments);
        assert!(got == code && said.contains(words), "{arguments}: {got} {said}");
    }
}

#[test]
fn what_cannot_be_found_is_refused_in_its_own_words() {
    let folder = folder(&json!({}));
    for (arguments, words) in [
        ("-comp main", "No project provided and no project open."),
        ("-project none.aep -comp main", "project could not be opened"),
        ("-project a.aep -comp Main", "No comp was found with the given name."),
        ("-project a.aep -rqindex 3", "rqindex 3num 2\naerender ERROR: No render queue item was found"),
        ("-project a.aep -comp free", "Specified render queue item needs output file but none provided."),
        ("-project a.aep -rqindex x", "No render queue item was found with the given index."),
        ("-project a.aep -comp main -OMtemplate Nothing", "No output module template was found"),
        ("-project a.aep -comp main -output x_[#####].png -i 101", "the step must be a number from 1 to 100"),
    ] {
        let (code, said) = folder.run(arguments);
        assert!(code == 7 && said.contains(words), "{arguments}: {code} {said}");
    }
    let (code, said) = folder.run("-project a.aep -comp main -v LOUD");
    assert!(code == 3 && said.contains("illegal value: LOUD"), "{said}");
}

#[test]
fn the_first_composition_of_a_name_is_rendered_with_both_ends_of_the_span() {
    let folder = folder(&json!({}));
    let (code, said) = folder.run("-project a.aep -comp main -s 10 -e 12 -output f_[#####].png");
    assert_eq!(code, 0, "{said}");
    let files = folder.files("f_");
    assert_eq!(files.keys().collect::<Vec<_>>(), ["f_00010.png", "f_00011.png", "f_00012.png"]);
    assert_eq!(files["f_00011.png"], picture::png("main", 11, b"{}", world::SIZE));
    assert!(said.contains("PROGRESS:  0:00:00:10 (1): 0 Seconds\r"), "the ordinal counts, the time code tells: {said}");
}

#[test]
fn every_other_frame_is_every_other_frame() {
    let folder = folder(&json!({}));
    folder.run("-project a.aep -comp main -s 4 -e 9 -i 2 -output f_[#####].png");
    assert_eq!(folder.files("f_").into_keys().collect::<Vec<_>>(), ["f_00004.png", "f_00006.png", "f_00008.png"]);
}

#[test]
fn chunks_are_the_whole_byte_for_byte() {
    let folder = folder(&json!({}));
    folder.run("-project a.aep -comp free -output w_[#####].png");
    folder.run("-project a.aep -comp free -s 0 -e 6 -output c_[#####].png");
    folder.run("-project a.aep -comp free -s 7 -e 19 -output c_[#####].png");
    let (whole, chunks) = (folder.files("w_"), folder.files("c_"));
    assert_eq!((whole.len(), chunks.len()), (20, 20));
    assert!(whole.values().eq(chunks.values()));
}

#[test]
fn without_an_item_the_queue_is_rendered_and_arguments_are_ignored_aloud() {
    let folder = folder(&json!({}));
    let (code, said) = folder.run("-project a.aep -s 1 -output x_[#####].png -OMtemplate Lossless");
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("WARNING: -OMtemplate argument ignored since no -comp  or -rqindex provided."), "{said}");
    assert!(said.contains("WARNING: -s and/or -e arguments ignored"), "{said}");
    assert_eq!((folder.files("queued_").len(), folder.files("span_").len(), folder.files("x_").len()), (6, 2, 0));
    let (code, said) = folder.run("-project a.aep -renderSettings a:b");
    assert!(code == 7 && said.contains("aerender ERROR"), "{said}");
}

#[test]
fn a_queue_item_keeps_its_own_settings() {
    let folder = folder(&json!({}));
    let (code, said) = folder.run("-project a.aep -rqindex 2");
    assert!(code == 0 && !said.contains("Adding specified comp"), "{said}");
    assert_eq!(folder.files("span_").into_keys().collect::<Vec<_>>(), ["span_00002.png", "span_00003.png"]);
}

#[test]
fn a_log_file_silences_the_output_and_errors_only_leaves_out_progress() {
    let folder = folder(&json!({}));
    let (_, said) = folder.run("-project a.aep -comp main -output f_[#####].png -log said.txt");
    assert!(!said.contains("Starting composition"), "{said}");
    assert!(fs::read_to_string(folder.0.path().join("said.txt")).unwrap().contains("Finished composition"));
    let (_, said) = folder.run("-project a.aep -comp main -output f_[#####].png -v ERRORS");
    assert!(!said.contains("(1): 0 Seconds") && !said.contains("Finished"), "{said}");
}

#[test]
fn a_scenario_is_named_by_the_environment_too_and_its_seed_chooses_the_frame() {
    let folder = folder(&json!({}));
    fs::remove_file(folder.0.path().join("scenario.json")).unwrap();
    for (seed, missing) in [(0, "f_00010.png"), (4, "f_00014.png"), (11, "f_00011.png")] {
        let mut command = Command::new(world::stand_in());
        command.env("FAKE_AERENDER", format!("absent_frame:{seed}")).current_dir(folder.0.path());
        command.args(["-project", "a.aep", "-comp", "main", "-s", "10", "-e", "19", "-output", "f_[#####].png"]);
        assert!(command.output().unwrap().status.success());
        let files = folder.files("f_");
        assert!(files.len() == 9 && !files.contains_key(missing), "{seed}: {:?}", files.keys());
        files.keys().for_each(|name| fs::remove_file(folder.0.path().join(name)).unwrap());
    }
}

#[test]
fn other_formats_are_real_ones() {
    let films = folder(&json!({ "name": "default_template_changed" }));
    films.run("-project a.aep -comp main -s 0 -e 4 -output f_[#####].png");
    let film = films.0.path().join("f_.avi");
    let mut ffprobe = Command::new("ffprobe");
    ffprobe.args([
        "-v",
        "error",
        "-count_frames",
        "-show_entries",
        "stream=nb_read_frames,width,height",
        "-of",
        "csv=p=0",
    ]);
    let output = ffprobe.arg(&film).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "64,36,5");

    let stills = folder(&json!({ "name": "forced_extension" }));
    stills.run("-project a.aep -comp main -s 0 -e 1 -output f_[#####].png");
    let files = stills.files("f_");
    assert_eq!(files.keys().collect::<Vec<_>>(), ["f_00000.jpg", "f_00001.jpg"]);
    let still = image::load_from_memory_with_format(&files["f_00000.jpg"], image::ImageFormat::Jpeg).unwrap();
    assert_eq!([still.width(), still.height()], world::SIZE);
}
