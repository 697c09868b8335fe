//! The verdict of every scenario of the stand-in, by the real driver: what is delivered, what is kept, what is said.

use crate::world::{SIZE, Stage, after_effects_project, blob, limits, zip};
use flatrender_activities::aerender::Limits;
use flatrender_workflows::contracts::{
    evidence::Evidence,
    render::{RenderAsset, RenderedFrames},
};
use futures::{StreamExt, stream};
use serde_json::{Map, Value, json};
use std::{collections::BTreeSet, path::PathBuf, sync::atomic::Ordering, time::Duration};

/// Attempts at a time: most of them wait.
const AT_A_TIME: usize = 6;
const SOON: Duration = Duration::from_millis(1500);
/// The frame that seed 3 means in the range 10 to 19.
const SEED: u32 = 3;

/// The stand-in's own list, which must be the table's.
const NAMED: &str = include_str!("../../examples/fake_aerender/scenarios.json");

#[derive(Debug, Clone, PartialEq)]
enum Verdict {
    /// Every frame, and warnings of these classes.
    Whole(&'static [&'static str]),
    /// So many frames are kept; the rest is missing for this reason.
    Part(usize, &'static str),
    /// Some frames are kept; how many is a matter of time.
    Some(&'static str),
    /// Nothing; for good.
    Never(&'static str),
    /// Nothing; another attempt may succeed.
    NotNow(&'static str),
}

use Verdict::{Never, NotNow, Part, Whole};

struct Case {
    scenario: Value,
    limits: Limits,
    /// By After Effects' two programs, with a project of theirs.
    project: Option<Value>,
    arrange: fn(&mut Stage),
    /// The pictures are this customer's; otherwise the scenario draws others.
    true_pictures: bool,
    expected: Verdict,
}

fn case(name: &str, expected: Verdict) -> Case {
    let scenario = json!({ "name": name, "seed": SEED });
    let project = name.starts_with("prepare_").then(after_effects_project);
    Case { scenario, limits: limits(), project, arrange: |_| {}, true_pictures: true, expected }
}

/// A project that is prepared and rendered by After Effects' two programs.
fn project(expected: Verdict, change: fn(&mut Value)) -> Case {
    let mut case = case("prepare_ok", expected);
    case.project.iter_mut().for_each(change);
    case
}

impl Case {
    fn with(mut self, knob: &str, value: impl Into<Value>) -> Self {
        self.scenario[knob] = value.into();
        self
    }

    fn after_effects(mut self) -> Self {
        self.project = Some(after_effects_project());
        self
    }

    fn once(self) -> Self {
        self.with("once", true)
    }

    fn limits(mut self, change: fn(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }

    fn arrange(mut self, arrange: fn(&mut Stage)) -> Self {
        self.arrange = arrange;
        self
    }

    fn false_pictures(mut self) -> Self {
        self.true_pictures = false;
        self
    }

    fn codes(&self) -> Vec<&'static str> {
        match self.expected {
            Whole(codes) => codes.to_vec(),
            Part(_, code) | Verdict::Some(code) | Never(code) | NotNow(code) => vec![code],
        }
    }
}

/// A frame may take a second, and more if it computes at all: a busy machine gives it little.
fn slow(limits: &mut Limits) {
    (limits.frame_stall, limits.busy_share) = (Duration::from_secs(1), 0.01);
}

fn what_goes_well() -> Vec<Case> {
    let fine =
        ["ok", "slow", "no_frame_lines", "mfr_out_of_order", "dropframe", "frames_display", "locale_ja", "locale_ko"];
    let fine =
        fine.into_iter().chain(["launcher_lines_last", "torn_version_line", "noise_gpu", "noise_ivc", "noise_qt"]);
    let mut cases: Vec<Case> = fine.chain(["split_reads", "leak"]).map(|name| case(name, Whole(&[]))).collect();
    cases.extend([
        case("slow_frame", Whole(&["render.slow_frame"])).limits(slow),
        case("locale_de", Whole(&["render.not_english"])),
        case("locale_fr", Whole(&["render.not_english"])),
        case("gpu_fallback", Whole(&["render.gpu_failed"])),
        case("exit1_with_complete_output", Whole(&["render.doubtful_exit"])),
        case("hang_after_finished", Whole(&["render.quit_stalled"])).limits(|l| l.quit = SOON),
        case("hang_quit", Whole(&["render.quit_stalled"])).limits(|l| l.quit = SOON),
        case("license_unverified", Whole(&["render.quit_stalled"])).limits(|l| l.quit = SOON),
        case("zombie_child", Whole(&["render.zombie"])),
    ]);
    if cfg!(target_os = "linux") {
        cases.push(case("zombie_child_escaped", Whole(&["render.zombie"])));
        let escaped = case("slow_frame", Whole(&["render.slow_frame"])).with("escape", true);
        cases.push(escaped.limits(slow));
    }
    cases
}

fn pictures_that_look_wrong() -> Vec<Case> {
    vec![
        case("black_frames", Whole(&["render.blank_frames"])).false_pictures(),
        case("black_frames", Whole(&[])).once(),
        case("black_chunk", Whole(&["render.blank_frames"])).false_pictures(),
        case("black_chunk", Whole(&[])).once(),
        case("duplicate_frame", Whole(&["render.duplicate_frames"])).false_pictures(),
        case("duplicate_frame", Whole(&[])).once(),
        case("corrupt_frame_crc", Part(9, "render.corrupt_frames")),
        case("corrupt_frame_zero", Part(9, "render.corrupt_frames")),
        case("corrupt_frame_short", Part(9, "render.corrupt_frames")),
        case("corrupt_frame_wrong_size", Part(9, "render.corrupt_frames")),
        case("corrupt_frame_empty", Part(9, "render.no_frames")),
        case("absent_frame", Part(9, "render.no_frames")),
        case("missing_font_warning", NotNow("render.missing_font")),
        case("missing_footage_warn", Never("render.missing_footage")),
        case("missing_effect", NotNow("render.missing_effect")),
        case("missing_layer", Never("render.missing_footage")),
        case("blank_span", Never("render.frame_out_of_range")),
        case("logged_errors", NotNow("render.logged_errors")),
    ]
}

fn what_breaks_in_the_middle() -> Vec<Case> {
    vec![
        case("exit0_with_error", Part(3, "render.engine_failed")),
        case("crash_at_frame", Part(3, "render.crashed")),
        case("crash_at_frame", NotNow("render.crashed")).with("crash_at", "first"),
        case("hang_frame", Part(3, "render.stalled")).limits(|l| l.frame_stall = SOON),
        case("hang_frame", NotNow("render.stalled"))
            .with("hang", json!({ "frame": "first" }))
            .limits(|l| (l.first_frame, l.frame_stall) = (SOON, SOON)),
        case("disk_full_at", Verdict::Some("render.disk_full")),
        case("disk_full_at", NotNow("render.disk_full")).with("disk_full_bytes", 100),
        case("oom_at_frame", Part(3, "render.out_of_memory")),
        case("file_locked", Part(3, "render.file_locked")),
        case("stale_span", Part(6, "render.stale_span")),
        case("early_exit_reuse", Verdict::Some("render.no_frames")).limits(|l| l.linger = Duration::from_secs(2)),
        case("slow", Verdict::Some("render.timed_out")).with("frame_ms", 1000).limits(|l| l.total = 4 * SOON),
    ]
}

fn what_never_begins() -> Vec<Case> {
    vec![
        case("exit0_no_output", NotNow("render.no_frames")),
        case("forced_extension", NotNow("render.forced_extension")),
        case("forced_tiff", NotNow("render.forced_extension")),
        case("default_template_changed", NotNow("render.forced_extension")),
        case("blank_2kb_movie", NotNow("render.forced_extension")),
        case("frame_numbers_restart", NotNow("render.wrong_numbers")),
        case("template_missing", NotNow("render.template_not_found")),
        case("missing_footage_error", Never("render.missing_footage")),
        case("missing_footage_hang", NotNow("render.launch_stalled")).limits(|l| l.load = SOON),
        case("hang_launch", NotNow("render.launch_stalled")).limits(|l| l.launch = SOON),
        case("hang_load", NotNow("render.launch_stalled")).limits(|l| l.load = SOON),
        case("license_trial", NotNow("render.launch_stalled")).limits(|l| l.launch = SOON),
        case("license_seats", NotNow("render.licence")),
        case("license_plugin", NotNow("render.plugin_licence")),
        case("license_codec", NotNow("render.codec_not_licensed")),
        case("another_instance", NotNow("render.busy")),
        case("mac_1712", NotNow("render.crashed")),
        case("mac_1701", NotNow("render.crashed")),
        case("pipes_busy", NotNow("render.pipes_busy")),
        case("startup_failure", NotNow("render.engine_failed")),
        case("older_version", Never("render.bad_arguments")),
        case("bad_project", Never("render.bad_project")),
        case("newer_project", NotNow("render.project_too_new")),
        case("bad_media", Never("render.bad_media")),
        case("script_failed", Never("render.script_failed")),
        case("path_invalid", NotNow("render.output_unwritable")),
    ]
}

fn what_is_wrong_before_it() -> Vec<Case> {
    vec![
        case("prepare_ok", Whole(&[])),
        case("prepare_never_quits", Whole(&[])).limits(|l| l.quit = SOON),
        case("prepare_modal_at_launch", NotNow("render.launch_stalled")).limits(|l| l.launch = SOON),
        case("prepare_modal_over_project", NotNow("render.prepare_stalled")).limits(|l| l.load = SOON),
        case("prepare_crash", NotNow("render.prepare_failed")),
        case("prepare_no_manifest", NotNow("render.prepare_failed")),
        case("prepare_missing_font", NotNow("render.missing_font")),
        case("prepare_no_font_check", NotNow("render.missing_font")),
        case("prepare_bad_media", Never("render.bad_media")),
        case("prepare_bad_project", Never("render.bad_project")),
        case("prepare_newer_project", NotNow("render.project_too_new")),
        case("prepare_expression_error", Never("render.expression_error")),
        case("prepare_altered_text", Whole(&["render.text_altered"])),
        case("prepare_script_error", Never("render.script_failed")),
        case("prepare_no_frame_numbers", NotNow("render.wrong_numbers")),
        case("prepare_other_format", NotNow("render.forced_extension")),
        case("prepare_ok", NotNow("render.no_renderer")).arrange(|s| {
            std::fs::remove_file(s.folder.path().join(format!("install/AfterFX{}", std::env::consts::EXE_SUFFIX)))
                .unwrap();
        }),
    ]
}

fn what_is_wrong_with_a_project() -> Vec<Case> {
    fn layers(project: &mut Value) -> &mut Vec<Value> {
        project["compositions"][0]["layers"].as_array_mut().unwrap()
    }
    vec![
        project(Never("render.missing_footage"), |p| p["footage"][0]["path"] = "images/gone.jpg".into()).arrange(|s| {
            s.wish.data.images.clear();
        }),
        project(Never("render.bad_package"), |p| {
            p["footage"][0]["path"] = std::env::current_exe().unwrap().to_str().unwrap().into();
        })
        .arrange(|s| s.wish.data.images.clear()),
        project(NotNow("render.missing_effect"), |p| {
            layers(p)[0]["effects"] = json!([{ "name": "Glow", "match": "SOMEBODY Glow" }]);
        }),
        project(Never("render.comp_not_found"), |p| {
            (p["compositions"][0]["name"], p["queue"][0]["composition"]) = ("other".into(), "other".into());
        }),
        project(Never("render.ambiguous_name"), |p| {
            let twin = layers(p)[0].clone();
            layers(p).push(twin);
        }),
        project(Never("render.unknown_field"), |p| layers(p)[0]["name"] = "txt:titel@accent".into()),
        project(Never("render.unsupported"), |p| {
            layers(p)[0]["fills"] = json!([{ "name": "color:accent,accent", "kind": "Fill" }]);
        }),
        project(Never("render.no_queue_item"), |p| p["queue"] = json!([])),
        project(Never("render.wrong_rate"), |p| p["compositions"][0]["fps"] = 25.into()),
        project(Whole(&["render.text_overflow"]), |p| layers(p)[0]["text"]["box"] = json!([10, 10])),
        project(Whole(&["render.expression_disabled"]), |p| layers(p)[0]["text"]["expression"] = "time".into()),
    ]
}

fn what_also_goes_wrong_after_it() -> Vec<Case> {
    vec![
        case("ok", Whole(&[])).after_effects(),
        case("crash_at_frame", Part(3, "render.crashed")).after_effects(),
        case("hang_frame", Part(3, "render.stalled")).limits(|l| l.frame_stall = SOON).after_effects(),
        case("exit1_with_complete_output", Whole(&["render.doubtful_exit"])).after_effects(),
        case("corrupt_frame_crc", Part(9, "render.corrupt_frames")).after_effects(),
        case("missing_font_warning", NotNow("render.missing_font")).after_effects(),
    ]
}

fn what_is_wrong_around_it() -> Vec<Case> {
    vec![
        case("ok", Never("render.comp_not_found")).arrange(|s| s.wish.composition = "Main".into()),
        case("ok", Never("render.input_not_found")).arrange(|s| s.shelf.inputs.lock().unwrap().clear()),
        case("ok", NotNow("render.transfer_failed")).arrange(|s| s.shelf.is_broken.store(true, Ordering::Relaxed)),
        case("ok", NotNow("render.hash_mismatch")).arrange(|s| {
            s.shelf.inputs.lock().unwrap().values_mut().for_each(|bytes| bytes[9] ^= 1);
        }),
        case("ok", Never("render.bad_package")).arrange(|s| {
            let package = zip(&[("../outside", b"x")]);
            s.shelf.add(&package);
            s.wish.package = blob(&package);
        }),
        case("ok", Never("render.unsafe_path")).arrange(|s| {
            s.shelf.add(b"x");
            s.wish.assets = vec![RenderAsset { path: "assets/\u{fc}ber.png".into(), blob: blob(b"x") }];
        }),
        case("ok", NotNow("render.launch_failed")).arrange(|s| {
            s.aerender.renderers.insert("lottie", PathBuf::from("/nowhere/aerender"));
        }),
    ]
}

fn table() -> Vec<Case> {
    let parts = [what_goes_well(), pictures_that_look_wrong(), what_breaks_in_the_middle(), what_never_begins()];
    let prepared = [what_is_wrong_before_it(), what_is_wrong_with_a_project(), what_also_goes_wrong_after_it()];
    parts.into_iter().chain(prepared).flatten().chain(what_is_wrong_around_it()).collect()
}

/// Codes that a scenario leads to.
pub fn codes() -> BTreeSet<&'static str> {
    table().iter().flat_map(Case::codes).collect()
}

/// The stand-in's scenarios by name.
pub fn scenarios() -> Map<String, Value> {
    serde_json::from_str(NAMED).unwrap()
}

#[test]
fn every_scenario_of_the_stand_in_has_a_verdict() {
    let judged: BTreeSet<String> = table().iter().map(|c| c.scenario["name"].as_str().unwrap().to_owned()).collect();
    let here = |name: &String| cfg!(target_os = "linux") || !name.ends_with("escaped");
    let named: BTreeSet<String> = scenarios().into_iter().map(|(name, _)| name).filter(here).collect();
    assert_eq!(judged, named);
    assert!(named.len() >= 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_verdict_is_right_in_every_scenario() {
    judge_all(table()).await;
}

/// Whichever frame of the range it is, the first and the last among them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_with_a_frame_costs_what_it_must_wherever_it_is() {
    let alone = [
        ("corrupt_frame_crc", "render.corrupt_frames"),
        ("corrupt_frame_short", "render.corrupt_frames"),
        ("corrupt_frame_wrong_size", "render.corrupt_frames"),
        ("absent_frame", "render.no_frames"),
    ];
    let and_later_ones = [("crash_at_frame", "render.crashed"), ("oom_at_frame", "render.out_of_memory")];
    let mut cases = Vec::new();
    for seed in 0..10 {
        let alone = alone.map(|(name, code)| case(name, Part(9, code)));
        let and_later = and_later_ones.map(|(name, code)| match seed {
            0 => case(name, NotNow(code)),
            kept => case(name, Part(kept, code)),
        });
        cases.extend(alone.into_iter().chain(and_later).map(|c| c.with("seed", seed)));
    }
    judge_all(cases).await;
}

async fn judge_all(cases: Vec<Case>) {
    let judged = stream::iter(cases).map(judge).buffer_unordered(AT_A_TIME);
    let wrong: Vec<String> = judged.filter_map(|wrong| async { wrong }).collect().await;
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// What is wrong about a case, if anything.
async fn judge(case: Case) -> Option<String> {
    let mut stage = Stage::with(case.scenario.clone(), case.limits);
    if let Some(project) = &case.project {
        stage.use_after_effects(project, &case.scenario);
    }
    (case.arrange)(&mut stage);
    let rendered = stage.render().await;
    let mut wrong = Vec::new();
    match (&case.expected, &rendered) {
        (Whole(codes), Ok(r)) if r.frames.len() == 10 && r.faults.is_empty() && warned(r) == **codes => {}
        (Part(kept, code), Ok(r)) if r.frames.len() == *kept && is_part(r, code) => {}
        (Verdict::Some(code), Ok(r)) if (1..10).contains(&r.frames.len()) && is_part(r, code) => {}
        (Never(code), Err(f)) if f.code == *code && !f.retryable && !f.message.is_empty() => {}
        (NotNow(code), Err(f)) if f.code == *code && f.retryable && !f.message.is_empty() => {}
        _ => wrong.push(format!("expected {:?}, got {rendered:?}", case.expected)),
    }
    if stage.processes_left() == Some(true) {
        wrong.push("a process is left".into());
    }
    let failure = rendered.as_ref().map_or_else(Some, |r| r.cause.as_ref());
    if failure.is_some_and(|f| Evidence::of(f).is_none_or(|e| e.class != f.code || e.signature.is_empty())) {
        wrong.push(format!("{failure:?} tells no class"));
    }
    if failure.is_none() != rendered.as_ref().is_ok_and(|r| r.faults.is_empty()) {
        wrong.push("what is missing and why go together".into());
    }
    if let Ok(rendered) = &rendered {
        wrong.extend(false_frames(&stage, rendered, case.true_pictures));
    }
    (!wrong.is_empty()).then(|| format!("{}: {}", case.scenario, wrong.join("; ")))
}

/// Codes of the warnings, in order.
fn warned(rendered: &RenderedFrames) -> Vec<&str> {
    rendered.warnings.iter().map(|w| w.split(':').next().unwrap()).collect()
}

fn is_part(rendered: &RenderedFrames, code: &str) -> bool {
    rendered.frames.len() + rendered.faults.len() == 10 && warned(rendered).contains(&code)
}

/// Frames that are accepted and not stored as accepted, or not what this customer's data draws.
fn false_frames(stage: &Stage, rendered: &RenderedFrames, true_pictures: bool) -> Vec<String> {
    let stored = stage.shelf.frames.lock().unwrap();
    let is_true = |frame: u32| !true_pictures || stored.get(&frame) == Some(&stage.drawn(frame));
    let accepted = rendered.frames.iter();
    let bad = accepted.filter(|f| stored.get(&f.frame).map(|b| blob(b)).as_ref() != Some(&f.blob) || !is_true(f.frame));
    bad.map(|f| format!("frame {} of {SIZE:?} is not what it should be", f.frame)).collect()
}
