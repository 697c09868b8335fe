//! What comes out of a render: frames are believed, nothing else is.

use crate::world::{Stage, after_effects_project, drawn, limits, until};
use flatrender_activities::aerender::Limits;
use flatrender_workflows::contracts::render::{FaultReason, RenderedFrames};
use serde_json::json;
use std::time::Duration;

fn numbers(rendered: &RenderedFrames) -> Vec<u32> {
    rendered.frames.iter().map(|f| f.frame).collect()
}

fn faults(rendered: &RenderedFrames) -> Vec<(u32, FaultReason)> {
    rendered.faults.iter().map(|f| (f.frame, f.reason)).collect()
}

#[tokio::test]
async fn every_frame_is_rendered_with_this_customers_data() {
    let stage = Stage::new(json!({}));
    let rendered = stage.render().await.unwrap();
    assert_eq!(numbers(&rendered), (10..=19).collect::<Vec<_>>());
    assert_eq!((faults(&rendered), rendered.warnings), (vec![], vec![]));
    for (frame, bytes) in stage.shelf.frames.lock().unwrap().iter() {
        assert_eq!(bytes, &drawn(&stage.wish, *frame), "frame {frame}");
    }
    assert_eq!(stage.processes_left(), Some(false));
}

#[tokio::test]
async fn frames_are_stored_while_later_ones_are_rendered() {
    let stage = Stage::new(json!({ "hang": { "frame": 15 } }));
    let storing = async {
        until("five frames are stored", || stage.shelf.stored() == [10, 11, 12, 13, 14]).await;
        assert_eq!(stage.processes_left(), Some(true));
        stage.drain.cancel();
    };
    let (rendered, ()) = tokio::join!(stage.render(), storing);
    assert_eq!(numbers(&rendered.unwrap()), [10, 11, 12, 13, 14]);
}

#[tokio::test]
async fn silence_and_disorder_about_frames_change_nothing() {
    for lines in ["none", "out_of_order"] {
        let stage = Stage::new(json!({ "lines": lines }));
        assert_eq!(numbers(&stage.render().await.unwrap()).len(), 10, "{lines}");
    }
}

#[tokio::test]
async fn exit_code_zero_without_frames_is_a_failure() {
    let stage = Stage::new(json!({ "no_output": true }));
    assert_eq!(stage.refused().await, ("render.no_frames".into(), true));
}

#[tokio::test]
async fn another_exit_code_with_every_frame_is_a_success() {
    let stage = Stage::new(json!({ "exit": 1 }));
    let rendered = stage.render().await.unwrap();
    assert_eq!(numbers(&rendered).len(), 10);
    assert!(rendered.warnings[0].contains("made every frame"), "{:?}", rendered.warnings);
}

#[tokio::test]
async fn a_crash_costs_the_frame_in_flight_and_later_ones_only() {
    let stage = Stage::new(json!({ "crash_at": 15 }));
    let rendered = stage.render().await.unwrap();
    assert_eq!(numbers(&rendered), [10, 11, 12, 13, 14]);
    let missing = |frame| (frame, FaultReason::Missing);
    let expected = [(15, FaultReason::Corrupt), missing(16), missing(17), missing(18), missing(19)];
    assert_eq!(faults(&rendered), expected);
    assert!(rendered.warnings.iter().any(|w| w.starts_with("render.crashed")), "{:?}", rendered.warnings);
    assert_eq!(stage.shelf.stored(), [10, 11, 12, 13, 14], "half a frame is never stored");
}

#[tokio::test]
async fn a_crash_before_any_frame_is_a_failure() {
    let stage = Stage::new(json!({ "crash_at": 10 }));
    assert_eq!(stage.refused().await, ("render.crashed".into(), true));
}

#[tokio::test]
async fn a_bad_frame_is_never_accepted_whatever_is_said_of_it() {
    for (bad, reason) in [
        ("crc", FaultReason::Corrupt),
        ("short", FaultReason::Corrupt),
        ("empty", FaultReason::Missing),
        ("absent", FaultReason::Missing),
        ("wrong_size", FaultReason::WrongSize),
    ] {
        // The last frame has no later one, the others do.
        for frame in [13, 19] {
            let stage = Stage::new(json!({ "bad": [frame, bad] }));
            let rendered = stage.render().await.unwrap();
            assert_eq!(faults(&rendered), [(frame, reason)], "{bad}");
            assert_eq!(numbers(&rendered).len(), 9, "{bad}");
            assert!(!stage.shelf.stored().contains(&frame), "{bad}");
        }
    }
}

#[tokio::test]
async fn a_missing_font_is_never_delivered() {
    let stage = Stage::new(json!({ "say": ["WARNING:After Effects warning: Project has missing fonts."] }));
    assert_eq!(stage.refused().await, ("render.missing_font".into(), true));
}

#[tokio::test]
async fn nothing_is_stored_once_a_line_spoils_the_run_and_it_is_ended() {
    let say = ["WARNING:After Effects warning: Project has missing fonts."];
    let stage = Stage::new(json!({ "say": say, "frame_ms": 300, "hang": { "frame": 19 } }));
    assert_eq!(stage.refused().await, ("render.missing_font".into(), true), "it is not waited for");
    assert_eq!(stage.shelf.stored(), [0; 0]);
    assert_eq!(stage.processes_left(), Some(false));
    let frames = std::fs::read_dir(stage.attempt_folder().join("frames")).map_or(0, Iterator::count);
    assert_eq!(frames, 0, "whoever takes the attempt up finds none of them");
}

#[tokio::test]
async fn frames_of_a_run_that_numbers_from_nought_are_not_taken_for_those_of_the_same_numbers() {
    let mut stage = Stage::new(json!({ "writes": "renumbered" }));
    (stage.wish.frames.first, stage.wish.frames.last) = (3, 12);
    assert_eq!(stage.refused().await, ("render.wrong_numbers".into(), true));
    assert_eq!(stage.shelf.stored(), [0; 0]);
}

#[tokio::test]
async fn a_line_that_spoils_the_run_is_heard_after_any_number_of_others() {
    let mut say: Vec<String> = (0..100).map(|n| format!("WARNING:After Effects warning: layer {n} is odd.")).collect();
    say.push("WARNING:After Effects warning: Project has missing fonts.".into());
    assert_eq!(Stage::new(json!({ "say": say })).refused().await, ("render.missing_font".into(), true));
}

#[tokio::test]
async fn an_error_of_our_own_renderer_keeps_its_code() {
    let say = ["aerender ERROR: [render.unknown_field] data.json names text \"titel\"; the project has \"title\""];
    let stage = Stage::new(json!({ "say": say, "no_output": true, "exit": 7 }));
    let failure = stage.render().await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retryable), ("render.unknown_field", false));
    assert!(failure.message.contains("titel"));
    assert!(failure.details["exit"] == 7, "{}", failure.details);
}

#[tokio::test]
async fn frames_beyond_the_composition_are_refused_for_good() {
    let mut stage = Stage::new(json!({}));
    stage.wish.frames.last = 100;
    assert_eq!(stage.refused().await, ("render.frame_out_of_range".into(), false));
}

#[tokio::test]
async fn an_unknown_composition_is_refused_for_good() {
    let mut stage = Stage::new(json!({}));
    stage.wish.composition = "Main".into();
    assert_eq!(stage.refused().await, ("render.comp_not_found".into(), false));
}

#[tokio::test]
async fn a_full_disk_keeps_what_is_there_and_may_be_tried_elsewhere() {
    let stage = Stage::new(json!({ "disk_full_at": 10 }));
    assert_eq!(stage.refused().await, ("render.disk_full".into(), true));
    let stage = Stage::new(json!({ "disk_full_at": 12 }));
    assert_eq!(numbers(&stage.render().await.unwrap()), [10, 11]);
}

#[tokio::test]
async fn what_an_earlier_process_rendered_is_not_rendered_again() {
    let stage = Stage::new(json!({ "hang": { "frame": 15 }, "once": true }));
    tokio::select! {
        _ = stage.render() => unreachable!("it hangs"),
        () = until("five frames are stored", || stage.shelf.stored().len() == 5) => {}
    }
    until("the renderer is gone", || stage.processes_left() == Some(false)).await;
    let written = |frame: u32| {
        let path = stage.attempt_folder().join(format!("frames/frame_{frame:05}.png"));
        std::fs::metadata(path).unwrap().modified().unwrap()
    };
    let before: Vec<_> = (10..15).map(written).collect();
    let rendered = stage.render().await.unwrap();
    assert_eq!(numbers(&rendered).len(), 10);
    assert_eq!((10..15).map(written).collect::<Vec<_>>(), before);
    assert_eq!(*stage.shelf.fetched.lock().unwrap(), 1);
}

/// Renders five frames, loses the power while a file was still on its way to the disk, and goes on.
async fn after_a_power_cut(stage: &Stage, file: &str) -> RenderedFrames {
    tokio::select! {
        _ = stage.render() => unreachable!("it is slow"),
        () = until("five frames are stored", || stage.shelf.stored().len() >= 5) => {}
    }
    until("the renderer is gone", || stage.processes_left() == Some(false)).await;
    std::fs::write(stage.attempt_folder().join(file), b"").unwrap();
    stage.render().await.unwrap()
}

#[tokio::test]
async fn data_that_a_power_cut_took_are_written_again() {
    let stage = Stage::new(json!({ "frame_ms": 200 }));
    assert_eq!(numbers(&after_a_power_cut(&stage, "package/data.json").await).len(), 10);
    for (frame, bytes) in stage.shelf.frames.lock().unwrap().iter() {
        assert_eq!(bytes, &drawn(&stage.wish, *frame), "frame {frame}");
    }
}

#[tokio::test]
async fn a_project_that_a_power_cut_took_is_prepared_again() {
    let mut stage = Stage::new(json!({}));
    stage.use_after_effects(&after_effects_project(), &json!({ "frame_ms": 200 }));
    assert_eq!(numbers(&after_a_power_cut(&stage, "package/prepared.aep").await).len(), 10);
    for (frame, bytes) in stage.shelf.frames.lock().unwrap().iter() {
        assert_eq!(bytes, &stage.drawn(*frame), "frame {frame}");
    }
}

#[tokio::test]
async fn a_slow_frame_that_computes_is_waited_for() {
    let limits = Limits { frame_stall: Duration::from_secs(2), busy_share: 0.01, ..limits() };
    let stage = Stage::with(json!({ "busy": [14, 5000] }), limits);
    let rendered = stage.render().await.unwrap();
    assert_eq!(numbers(&rendered).len(), 10);
}
