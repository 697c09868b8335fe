//! The script that prepares projects, run by a JavaScript engine against a model of After Effects' objects. It proves
//! the script's logic, never After Effects.

use crate::{
    afterfx::{self, Prepare},
    world::{SIZE, after_effects_project, package, wish},
};
use flatrender_activities::aerender::prepare::{Folder, Job, Manifest, SCRIPT_TEXT, Shot};
use flatrender_workflows::contracts::render::{Engine, Fit, ImageBinding, RenderFrames, SceneBinding};
use serde_json::{Value, json};
use std::fs;
use uuid::Uuid;

/// An attempt's folder with a template in it.
pub struct Desk {
    _kept: tempfile::TempDir,
    pub folder: Folder,
    pub wish: RenderFrames,
    pub attempt: Uuid,
}

impl Desk {
    pub fn new(project: &Value) -> Self {
        let kept = tempfile::tempdir().unwrap();
        let at = |name: &str| kept.path().join(name);
        let folder =
            Folder { attempt: at(""), package: at("package"), frames: at("frames"), temp: at("temp"), pin: None };
        for part in ["package/images", "package/assets", "frames"] {
            fs::create_dir_all(at(part)).unwrap();
        }
        fs::write(at("package/project.aep"), project.to_string()).unwrap();
        fs::write(at("package/images/photo.jpg"), "the designer's").unwrap();
        fs::write(at("package/assets/photo.jpg"), "the customer's").unwrap();
        let mut wish = wish(&package(json!({})), 0, 9);
        wish.engine = Engine::AfterEffects;
        wish.data.texts.clear();
        Self { _kept: kept, folder, wish, attempt: Uuid::new_v4() }
    }

    /// Runs the script. What it says.
    pub fn run(&self) -> Manifest {
        self.run_where(&Prepare::default())
    }

    /// As [`Desk::run`], in an After Effects like this.
    fn run_where(&self, prepare: &Prepare) -> Manifest {
        let job = self.job();
        job.write(&self.folder).unwrap();
        let script = self.folder.attempt.join("prepare.jsx");
        afterfx::run(&fs::read_to_string(&script).unwrap(), &script, prepare).unwrap();
        Manifest::read(&self.folder, &job).unwrap()
    }

    pub fn job(&self) -> Job<'_> {
        Job::of(self.attempt, &self.wish, &self.folder.package).unwrap()
    }

    /// What was saved, after a run that found nothing wrong.
    fn prepared(&self) -> Value {
        let manifest = self.run();
        assert_eq!(manifest.failures, [], "{manifest:?}");
        serde_json::from_slice(&fs::read(self.folder.attempt.join("package/prepared.aep")).unwrap()).unwrap()
    }

    fn text(mut self, key: &str, words: &str) -> Self {
        self.wish.data.texts.insert(key.into(), words.into());
        self
    }

    fn color(mut self, token: &str, hex: &str) -> Self {
        self.wish.data.colors.insert(token.into(), hex.into());
        self
    }

    fn scenes(mut self, scenes: &[(&str, u32)]) -> Self {
        let scenes = scenes.iter().map(|(id, frames)| SceneBinding { id: (*id).into(), frames: *frames });
        self.wish.data.scenes = Some(scenes.collect());
        self
    }
}

/// A project whose main composition has these layers.
fn with_layers(layers: Value) -> Value {
    let mut project = after_effects_project();
    project["compositions"][0]["layers"] = layers;
    project
}

fn layers(prepared: &Value) -> &Value {
    &prepared["compositions"][0]["layers"]
}

#[test]
fn what_the_customer_gave_stands_in_the_project() {
    let mut desk = Desk::new(&after_effects_project()).text("title", "سلام").color("accent", "#ff0033");
    desk.wish.data.images.insert("photo".into(), ImageBinding { file: "assets/photo.jpg".into(), fit: Fit::Cover });
    let prepared = desk.prepared();
    let [title, photo, solid] = [0, 1, 2].map(|n| &layers(&prepared)[n]);
    assert_eq!((&title["words"], &title["color"]), (&json!("سلام"), &json!([1, 0, 0.2])));
    assert_eq!(photo["composition"], "slot:photo", "the layer keeps its place, movement and effects");
    assert_eq!(solid["solid"], json!([1, 0, 0.2]));
}

#[test]
fn a_picture_fills_its_slot_or_is_shown_whole() {
    // A picture of 40 × 30 in a slot of 64 × 36.
    for (fit, percent) in [(Fit::Cover, 160), (Fit::Contain, 120)] {
        let mut desk = Desk::new(&after_effects_project());
        desk.wish.data.images.insert("photo".into(), ImageBinding { file: "assets/photo.jpg".into(), fit });
        let prepared = desk.prepared();
        let slot = &prepared["compositions"][1];
        assert_eq!((&slot["name"], &slot["size"]), (&json!("slot:photo"), &json!(SIZE)));
        assert_eq!(slot["layers"][0]["scale"], json!([percent, percent]));
        assert_eq!(slot["layers"][0]["file"], crate::world::blob(b"the customer's").sha256.to_string());
    }
}

#[test]
fn line_breaks_of_every_kind_are_after_effects_own() {
    let prepared = Desk::new(&after_effects_project()).text("title", "a\r\nb\nc\rd").prepared();
    assert_eq!(layers(&prepared)[0]["words"], "a\rb\rc\rd");
}

#[test]
fn a_text_with_keyframes_is_the_customers_at_all_of_them() {
    let project =
        with_layers(json!([{ "name": "txt:title", "text": { "words": "x", "keys": [[0, "a"], [30, "b"]] } }]));
    let prepared = Desk::new(&project).text("title", "Hello").prepared();
    assert_eq!(layers(&prepared)[0]["keys"], json!(["Hello", "Hello"]));
}

#[test]
fn a_long_text_is_made_smaller_until_it_has_room_and_no_smaller_than_it_may_be() {
    let size = |text: Value, comment: &str, words: &str| {
        let desk = Desk::new(&with_layers(json!([{ "name": "txt:title", "text": text, "comment": comment }])));
        let manifest = desk.text("title", words);
        let size = layers(&manifest.prepared())[0]["size"].as_f64().unwrap();
        (size, manifest.run().warnings.into_iter().map(|w| w.code).collect::<Vec<_>>())
    };
    let none: [&str; 0] = [];
    // A letter is half as wide as high: ten of 40 take 200.
    assert_eq!(size(json!({ "words": "x", "box": [400, 100] }), "", "ten letters"), (40.0, vec![]));
    let (shrunk, warnings) = size(json!({ "words": "x", "box": [200, 100] }), "", &"twenty letters here ".repeat(2));
    assert!((20.0..40.0).contains(&shrunk) && warnings == none, "{shrunk} {warnings:?}");
    let (shrunk, warnings) = size(json!({ "words": "x" }), "width=100", "ten letters");
    assert!((17.0..19.0).contains(&shrunk) && warnings == none, "{shrunk} {warnings:?}");
    let (floor, warnings) =
        size(json!({ "words": "x", "box": [100, 50] }), "smallest=0.8", &"much too long ".repeat(9));
    assert_eq!((floor, warnings), (32.0, vec!["text_overflow".into()]));
}

#[test]
fn a_colour_reaches_every_place_of_its_name() {
    let project = with_layers(json!([
        { "name": "a", "effects": [{ "name": "color:accent" }, { "name": "Fill" }] },
        { "name": "b", "effects": [{ "name": "color:accent", "match": "ADBE Color Control" }] },
        { "name": "c", "fills": [
            { "name": "color:accent", "kind": "Fill", "keys": [[0, [0, 0, 0, 1]], [9, [0, 1, 0, 1]]] },
            { "name": "color:accent", "kind": "Stroke" }, { "name": "Fill 1", "kind": "Fill" }] },
        { "name": "color:accent", "solid": [0, 0, 1] },
        { "name": "txt:title@accent", "text": { "words": "x" } },
    ]));
    let prepared = Desk::new(&project).color("accent", "#ffffff").prepared();
    let colors = |n: usize| &layers(&prepared)[n]["colors"];
    let (white, black) = (json!([1, 1, 1]), json!([0, 0, 0]));
    assert_eq!(colors(0), &json!([white, black]));
    assert_eq!(colors(1), &json!([white]));
    assert_eq!(colors(2), &json!([white, white, black]), "keyframes give way");
    assert_eq!((&layers(&prepared)[3]["solid"], &layers(&prepared)[4]["color"]), (&white, &white));
}

#[test]
fn a_switch_hides_its_layers_with_their_sound_and_shows_none_that_was_hidden() {
    let project = with_layers(json!([
        { "name": "txt:title?badge", "text": { "words": "x" } }, { "name": "Sound?badge", "audio": true },
        { "name": "Other?other" }, { "name": "Really?" },
    ]));
    let mut desk = Desk::new(&project);
    desk.wish.data.visibility = [("badge".into(), false), ("other".into(), true)].into();
    let prepared = desk.prepared();
    let shown = |n: usize| layers(&prepared)[n]["shown"].as_bool().unwrap();
    assert_eq!([0, 1, 2, 3].map(shown), [false, false, true, true]);
    assert_eq!(layers(&prepared)[1]["audible"], false);
}

#[test]
fn a_layer_is_found_by_its_kept_ids_even_when_it_was_renamed() {
    let project = with_layers(json!([
        { "name": "renamed", "id": 77, "text": { "words": "x" } }, { "name": "other", "text": { "words": "y" } },
    ]));
    let desk = Desk::new(&project).text("title", "Hello");
    assert_eq!(desk.run().failures[0].code, "unknown_field");
    let comp = 1;
    let targets = json!([{ "name": "txt:title", "comp": comp, "layer": 77 }]).to_string();
    let mut project = project;
    project["compositions"][0]["id"] = comp.into();
    fs::write(desk.folder.package.join("project.aep"), project.to_string()).unwrap();
    fs::write(desk.folder.package.join("targets.json"), targets).unwrap();
    assert_eq!(layers(&desk.prepared())[0]["words"], "Hello");
}

#[test]
fn everything_that_is_wrong_is_told_at_once_with_its_name() {
    let desk = Desk::new(&after_effects_project()).text("titel", "x").text("sub", "x").color("acent", "#000000");
    let failure = desk.run().verdict(&desk.job()).unwrap_err();
    assert_eq!(failure.code, "render.unknown_field");
    assert!(failure.message.ends_with(": txt:sub, txt:titel, color:acent"), "{}", failure.message);
    assert_eq!(failure.details["objects"], json!(["txt:sub", "txt:titel", "color:acent"]));
}

#[test]
fn footage_lies_in_the_package_or_is_refused_and_on_windows_the_case_does_not_matter() {
    let desk = Desk::new(&after_effects_project());
    let place = |folder: &str, photo: &str| {
        let folder = desk.folder.attempt.join(folder);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(photo), "a picture").unwrap();
        let mut project = after_effects_project();
        project["footage"][0]["path"] = folder.join(photo).to_str().unwrap().replace('\\', "/").into();
        fs::write(desk.folder.package.join("project.aep"), project.to_string()).unwrap();
    };
    let codes = |os: &str| {
        let manifest = desk.run_where(&Prepare { os: os.into(), ..Prepare::default() });
        manifest.failures.into_iter().map(|f| f.code).collect::<Vec<_>>()
    };
    let (mac, windows, none): (&str, &str, [&str; 0]) = ("Macintosh OS 14.5.0/64", "Windows/64 10.0.19045", []);
    for os in [mac, windows] {
        place("package/images", "photo.jpg");
        assert_eq!(codes(os), none, "{os}");
        place("package2", "photo.jpg");
        assert_eq!(codes(os), ["foreign_path"], "{os}: a neighbour whose name begins alike");
        place("package", "photo.jpg");
        assert_eq!(codes(os), none, "{os}");
    }
    place("Package/Images", "Photo.jpg");
    assert_eq!(codes(windows), none, "it is the same folder there");
    assert_eq!(codes(mac), ["foreign_path"]);
}

/// Two scenes of 60 frames that share 10, and what spans both.
fn film() -> Value {
    let scene = |id: &str| json!({ "name": format!("scene:{id}"), "frames": 60, "size": SIZE, "layers": [] });
    json!({
        "compositions": [{
            "name": "main", "frames": 110, "size": SIZE, "display_start": 100,
            "markers": [{ "comment": "stretch:two", "at": 70, "frames": 20 }],
            "layers": [
                { "name": "two", "composition": "scene:two", "in": 50, "out": 110 },
                { "name": "one", "composition": "scene:one", "in": 0, "out": 60 },
                { "name": "ground", "solid": [0, 0, 0], "in": 0, "out": 110 },
            ] }, scene("one"), scene("two")],
        "queue": [{ "composition": "main", "span": [0, 109] }],
    })
}

#[test]
fn scenes_stand_in_the_customers_order_with_their_lengths_and_the_queue_follows() {
    let prepared = Desk::new(&film()).scenes(&[("two", 90), ("one", 60)]).prepared();
    let span = |n: usize| (layers(&prepared)[n]["in"].clone(), layers(&prepared)[n]["out"].clone());
    assert_eq!(span(0), (json!(0), json!(90)), "two");
    assert_eq!(span(1), (json!(80), json!(140)), "one, over the last ten frames of two");
    assert_eq!(span(2), (json!(0), json!(140)), "what spanned the film still does");
    // Only the marked part gives way: frames 20 to 40 of the scene last 50.
    assert_eq!(layers(&prepared)[0]["remap"], json!([[0, 0], [20, 20], [70, 40], [90, 60]]));
    assert_eq!(layers(&prepared)[1]["remap"], Value::Null);
    assert_eq!(
        (&prepared["compositions"][0]["frames"], &prepared["queue"][0]["span"]),
        (&json!(140), &json!([0, 139]))
    );
    assert_eq!(prepared["compositions"][0]["display_start"], 0, "frames are numbered from 0");
}

#[test]
fn a_scene_may_be_left_out_shortened_or_shown_twice() {
    let prepared = Desk::new(&film()).scenes(&[("one", 30), ("one", 60)]).prepared();
    let placed: Vec<Value> =
        layers(&prepared).as_array().unwrap().iter().map(|l| json!([l["name"], l["in"], l["out"]])).collect();
    assert_eq!(placed, [json!(["one", 20, 80]), json!(["one", 0, 30]), json!(["ground", 0, 110])]);
    assert_eq!(layers(&prepared)[1]["remap"], json!([[0, 0], [30, 60]]), "all of it runs faster");
}

#[test]
fn one_scene_alone_has_the_length_that_is_wanted() {
    let mut desk = Desk::new(&film()).scenes(&[("one", 30), ("two", 45)]);
    desk.wish.composition = "scene:two".into();
    let prepared = desk.prepared();
    assert_eq!(
        (&prepared["queue"][0]["composition"], &prepared["queue"][0]["span"]),
        (&json!("scene:two"), &json!([0, 44]))
    );
    assert_eq!(prepared["queue"][0]["settings"]["Quality"], "Best", "the settings are those of main's item");
}

#[test]
fn what_only_other_scenes_show_is_no_mistake() {
    let mut project = film();
    project["compositions"][1]["layers"] = json!([
        { "name": "txt:one@a?s", "text": { "words": "x" } }, { "name": "x", "effects": [{ "name": "color:b" }] }]);
    let mut desk = Desk::new(&project).text("one", "x").color("a", "#000000").color("b", "#000000");
    desk.wish.data.visibility.insert("s".into(), false);
    desk.wish.composition = "scene:two".into();
    desk.prepared();
    let desk = desk.text("three", "x").color("c", "#000000");
    let told: Vec<String> = desk.run().failures.into_iter().map(|f| f.object).collect();
    assert_eq!(told, ["txt:three", "color:c"]);
}

#[test]
fn another_size_is_made_around_the_composition() {
    let mut desk = Desk::new(&after_effects_project());
    desk.wish.size = [32, 18];
    let prepared = desk.prepared();
    assert_eq!(prepared["queue"][0]["composition"], "sized:main");
    let outer = prepared["compositions"].as_array().unwrap().last().unwrap();
    assert_eq!((&outer["size"], &outer["layers"][0]["scale"]), (&json!([32, 18]), &json!([50, 50])));
}

#[test]
fn the_queue_has_one_new_item_with_the_designers_settings() {
    let prepared = Desk::new(&after_effects_project()).prepared();
    let queue = prepared["queue"].as_array().unwrap();
    assert_eq!((queue.len(), &queue[0]["span"]), (1, &json!([0, 99])), "an old item would keep its old span");
    assert_eq!(queue[0]["module"]["Use Comp Frame Number"], "true");
    assert!(queue[0]["output"].as_str().unwrap().ends_with("/frames/frame_[#####].png"));
}

#[test]
fn preparing_twice_gives_the_same_and_leaves_the_template_as_it_was() {
    let desk = Desk::new(&after_effects_project()).text("title", "x").color("accent", "#123456");
    let template = fs::read(desk.folder.package.join("project.aep")).unwrap();
    let (first, second) = (desk.prepared(), desk.prepared());
    assert_eq!(first["compositions"], second["compositions"]);
    assert_eq!(fs::read(desk.folder.package.join("project.aep")).unwrap(), template);
}

#[test]
fn a_manifest_of_another_attempt_is_none() {
    let mut desk = Desk::new(&after_effects_project());
    desk.run();
    assert!(Manifest::read(&desk.folder, &desk.job()).is_some());
    desk.attempt = Uuid::new_v4();
    assert!(Manifest::read(&desk.folder, &desk.job()).is_none());
}

#[test]
fn the_script_is_constant_and_makes_no_code_of_data() {
    let mut desk = Desk::new(&after_effects_project()).text("title", "\"; app.quit(); //");
    desk.wish.data.texts.insert("*/ evil".into(), "`${x}`".into());
    desk.job().write(&desk.folder).unwrap();
    assert_eq!(fs::read_to_string(desk.folder.attempt.join("prepare.jsx")).unwrap(), SCRIPT_TEXT);
    for word in
        ["eval(", "Function(", "evalFile", "#include", "callSystem", "executeCommand", ".toSource", "setTimeout"]
    {
        assert!(!SCRIPT_TEXT.contains(word), "{word}");
    }
    // Only ECMAScript 3: none of the newer words, and no character that an old reader would take for two.
    for word in
        ["let ", "const ", "=>", "`", "class ", "JSON.", "Object.keys", ".forEach(", ".trim(", "...", ",]", ", ]", ",}"]
    {
        let code = SCRIPT_TEXT.lines().filter(|l| !l.trim_start().starts_with("//"));
        let found: Vec<&str> = code.filter(|l| l.contains(word)).collect();
        assert!(found.is_empty(), "{word}: {found:?}");
    }
    assert!(SCRIPT_TEXT.lines().filter(|l| !l.trim_start().starts_with("//")).all(str::is_ascii));
}

/// Whoever adds a place that names a script or asks for one comes by here.
#[test]
fn a_script_is_named_in_three_files_and_written_from_the_constant_alone() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/aerender");
    let files = |folder: &std::path::Path| {
        let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file());
        entries
            .map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), fs::read_to_string(&p).unwrap()))
            .collect::<Vec<_>>()
    };
    let all = [files(&folder), files(&folder.join("prepare")), files(&folder.join("process"))].concat();
    let with = |word: &str| {
        let mut names: Vec<String> =
            all.iter().filter(|(_, text)| text.contains(word)).map(|(n, _)| n.clone()).collect();
        names.sort();
        names
    };
    assert_eq!(with(".jsx\""), ["classify.rs", "host.rs", "prepare.rs"]);
    assert_eq!(with("osascript"), ["host.rs"]);
    assert_eq!(with("SCRIPT_TEXT"), ["job.rs", "prepare.rs"]);
    let job = &all.iter().find(|(name, _)| name == "job.rs").unwrap().1;
    assert_eq!(job.matches("SCRIPT_TEXT").count(), 1);
    assert!(job.contains("fs::write(folder.attempt.join(super::SCRIPT), super::SCRIPT_TEXT)?;"), "as it is");
}

#[test]
fn stills_of_several_scenes_are_the_frames_of_one_composition_each_with_its_own_words() {
    let scene = |id: &str, frames: u32| {
        json!({ "name": format!("scene:{id}"), "frames": frames, "size": SIZE,
                "layers": [{ "name": format!("txt:{id}"), "text": { "words": "-" } }] })
    };
    let project = json!({
        "compositions": [scene("a", 60), scene("b", 90)], "queue": [{ "composition": "scene:b", "span": [0, 3] }],
    });
    let desk = Desk::new(&project).text("a", "one").text("b", "two");
    let shots = [("scene:b", 80), ("scene:a", 0)].map(|(name, frame)| Shot { composition: name.into(), frame });
    let job = desk.job().showing(&shots);
    job.write(&desk.folder).unwrap();
    let script = desk.folder.attempt.join("prepare.jsx");
    afterfx::run(&fs::read_to_string(&script).unwrap(), &script, &Prepare::default()).unwrap();
    let manifest = Manifest::read(&desk.folder, &job).unwrap();
    assert_eq!(manifest.failures, [], "{manifest:?}");
    let saved = fs::read(desk.folder.attempt.join("package/prepared.aep")).unwrap();
    let saved: Value = serde_json::from_slice(&saved).unwrap();
    let named = |name: &str| {
        saved["compositions"]
            .as_array()
            .unwrap()
            .iter()
            .find(|c| c["name"] == name)
            .unwrap_or_else(|| panic!("{saved:#}"))
    };
    assert_eq!((&named("stills")["frames"], &named("stills")["size"]), (&json!(2), &json!(SIZE)));
    let shown = named("stills")["layers"].as_array().unwrap();
    let mut shown: Vec<Value> = shown.iter().map(|l| json!([l["composition"], l["in"], l["out"]])).collect();
    shown.sort_by_key(ToString::to_string);
    assert_eq!(shown, [json!(["scene:a", 1, 2]), json!(["scene:b", 0, 1])]);
    assert_eq!(named("scene:a")["layers"][0]["words"], "one");
    assert_eq!(named("scene:b")["layers"][0]["words"], "two");
}
