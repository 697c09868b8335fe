//! How a render ends when it does not end by itself, and that no process outlives it.

use crate::world::{Stage, limits, until};
#[cfg(target_os = "linux")]
use crate::world::{project, stand_in};
use flatrender_activities::aerender::Limits;
#[cfg(target_os = "linux")]
use flatrender_activities::aerender::process::census::{self, Mark};
use flatrender_engine::Standing;
use flatrender_workflows::contracts::render::INTERRUPTED;
#[cfg(target_os = "linux")]
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_millis(1500);

#[tokio::test]
async fn a_renderer_that_never_starts_is_given_up() {
    let stage = Stage::with(json!({ "hang": "launch" }), Limits { launch: SOON, ..limits() });
    let failure = stage.render().await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retryable), ("render.launch_stalled", true));
    assert_eq!(failure.details["timer"], "launch");
    assert_eq!(stage.processes_left(), Some(false));
}

#[tokio::test]
async fn a_renderer_that_stops_at_its_first_frame_is_given_up() {
    let limits = Limits { first_frame: SOON, frame_stall: SOON, ..limits() };
    let stage = Stage::with(json!({ "hang": { "frame": 10 } }), limits);
    assert_eq!(stage.refused().await, ("render.stalled".into(), true));
}

#[tokio::test]
async fn a_renderer_that_stops_at_a_frame_is_killed_and_its_frames_are_kept() {
    let stage = Stage::with(json!({ "hang": { "frame": 13 } }), Limits { frame_stall: SOON, ..limits() });
    let rendered = stage.render().await.unwrap();
    assert_eq!((rendered.frames.len(), rendered.faults.len()), (3, 7));
    assert!(rendered.warnings.iter().any(|w| w.starts_with("render.stalled")), "{:?}", rendered.warnings);
    assert_eq!(stage.processes_left(), Some(false));
}

#[tokio::test]
async fn only_a_renderer_that_ends_by_itself_is_heard_to_its_end() {
    let heard = async |scenario| {
        let stage = Stage::with(scenario, Limits { frame_stall: SOON, ..limits() });
        stage.render().await.unwrap();
        stage.heard.load(Ordering::Relaxed)
    };
    assert_eq!([heard(json!({ "hang": { "frame": 13 } })).await, heard(json!({})).await], [false, true]);
}

#[tokio::test]
async fn a_renderer_that_does_not_quit_has_done_its_work() {
    for lines in ["in_order", "none"] {
        let scenario = json!({ "hang": "after_finished", "lines": lines });
        let stage = Stage::with(scenario, Limits { quit: SOON, ..limits() });
        let begun = Instant::now();
        let rendered = stage.render().await.unwrap();
        assert_eq!((rendered.frames.len(), rendered.faults.len()), (10, 0));
        assert!(begun.elapsed() < Duration::from_secs(15), "the quit timer counts, no other");
        assert_eq!(stage.processes_left(), Some(false));
    }
}

#[tokio::test]
async fn the_whole_run_is_limited() {
    let stage = Stage::with(json!({ "frame_ms": 300 }), Limits { total: SOON, ..limits() });
    let rendered = stage.render().await.unwrap();
    assert!((1..10).contains(&rendered.frames.len()));
    assert!(rendered.warnings.iter().any(|w| w.starts_with("render.timed_out")), "{:?}", rendered.warnings);
}

#[tokio::test]
async fn a_process_that_outlives_its_launcher_is_killed() {
    let stage = Stage::new(json!({ "zombie": true }));
    assert_eq!(stage.render().await.unwrap().frames.len(), 10);
    assert_eq!(stage.processes_left(), Some(false));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_process_that_left_its_group_is_killed() {
    let stage = Stage::new(json!({ "zombie": true, "escape": true }));
    assert_eq!(stage.render().await.unwrap().frames.len(), 10);
    assert_eq!(stage.processes_left(), Some(false));
}

/// Stops a render that hangs in the middle of a frame.
async fn stopped(scenario: Value, standing: Standing) -> (Stage, String, Duration) {
    let stage = Stage::new(scenario);
    let stop = async {
        until("frames are stored", || stage.shelf.stored().len() == 3).await;
        assert_eq!(stage.processes_left(), Some(true));
        stage.stop(standing);
        Instant::now()
    };
    let (rendered, stopped_at) = tokio::join!(stage.render(), stop);
    let took = stopped_at.elapsed();
    (stage, rendered.unwrap_err().code, took)
}

#[tokio::test]
async fn a_cancelled_render_is_gone_within_five_seconds() {
    for escape in [false, cfg!(target_os = "linux")] {
        let scenario = json!({ "hang": { "frame": 13 }, "escape": escape });
        let (stage, code, took) = stopped(scenario, Standing::Cancelled).await;
        assert_eq!(code, "workflow.cancelled");
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert_eq!(stage.processes_left(), Some(false));
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_renderer_that_is_stopped_is_gone_within_five_seconds() {
    use nix::{
        sys::signal::{Signal, killpg},
        unistd::Pid,
    };
    let stage = Stage::new(json!({ "hang": { "frame": 13 } }));
    let stop = async {
        until("frames are stored", || stage.shelf.stored().len() == 3).await;
        let launcher = stage.launcher.lock().unwrap().clone().unwrap();
        killpg(Pid::from_raw(launcher.pid as i32), Signal::SIGSTOP).unwrap();
        stage.stop(Standing::Cancelled);
        Instant::now()
    };
    let (rendered, stopped_at) = tokio::join!(stage.render(), stop);
    assert!(stopped_at.elapsed() < Duration::from_secs(5), "{:?}", stopped_at.elapsed());
    assert_eq!(rendered.unwrap_err().code, "workflow.cancelled");
    assert_eq!(stage.processes_left(), Some(false));
}

/// A renderer of somebody else's: the same program at the same time. Killed when the test ends.
#[cfg(target_os = "linux")]
struct Foreign {
    launcher: std::process::Child,
    mark: Mark,
    folder: tempfile::TempDir,
}

#[cfg(target_os = "linux")]
impl Foreign {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let scenario = json!({ "hang": { "frame": 2 }, "escape": true });
        for (name, text) in [("project.json", project()), ("scenario.json", scenario)] {
            std::fs::write(folder.path().join(name), text.to_string()).unwrap();
        }
        let mark = Mark::of(uuid::Uuid::new_v4());
        let mut command = std::process::Command::new(stand_in());
        command
            .current_dir(folder.path())
            .env(census::MARK_VARIABLE, mark.as_str())
            .stdout(std::process::Stdio::null());
        command.args(["-project", "project.json", "-comp", "main", "-s", "0", "-e", "9", "-output", "f_[#####].png"]);
        Self { launcher: command.spawn().unwrap(), mark, folder }
    }
}

#[cfg(target_os = "linux")]
impl Drop for Foreign {
    fn drop(&mut self) {
        census::kill_marked(&self.mark);
        // It has just been killed.
        let _ = self.launcher.wait();
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_renderer_of_somebody_else_is_not_touched() {
    let foreign = Foreign::start();
    until("they render", || foreign.folder.path().join("f_00002.png").exists()).await;
    let ours = Stage::new(json!({ "zombie": true, "escape": true }));
    assert_eq!(ours.render().await.unwrap().frames.len(), 10);
    assert_eq!(ours.processes_left(), Some(false));
    let (stage, code, _) = stopped(json!({ "hang": { "frame": 13 } }), Standing::Cancelled).await;
    assert_eq!((code.as_str(), stage.processes_left()), ("workflow.cancelled", Some(false)));
    assert_eq!(census::kill_marked(&foreign.mark), 2, "their launcher and their application live");
}

/// Kills a renderer once so many frames are stored, and renders what is missing. Whether it had not made all of them yet.
#[cfg(target_os = "linux")]
async fn killed_after(frames: usize) -> bool {
    let stage = Stage::new(json!({ "frame_ms": 60 }));
    let has = |frames| stage.launcher.lock().unwrap().is_some() && stage.shelf.stored().len() >= frames;
    let kill = async {
        until("frames are stored", || has(frames)).await;
        let launcher = stage.launcher.lock().unwrap().clone().unwrap();
        census::kill_if_same(&launcher);
    };
    let (rendered, ()) = tokio::join!(stage.render(), kill);
    assert_eq!(stage.processes_left(), Some(false));
    let cause = rendered.map_or_else(Some, |rendered| rendered.cause);
    if let Some(cause) = &cause {
        assert_eq!((cause.code.as_str(), cause.retryable), ("render.crashed", true), "{cause:?}");
    }
    let again = stage.render().await.unwrap();
    assert_eq!((again.frames.len(), again.faults.len()), (10, 0));
    for (frame, bytes) in stage.shelf.frames.lock().unwrap().iter() {
        assert_eq!(bytes, &stage.drawn(*frame), "frame {frame}");
    }
    cause.is_some()
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s071_a_renderer_killed_a_hundred_times_has_crashed_and_costs_what_it_had_in_hand() {
    let killed = stream::iter(0..100).map(|n| killed_after(n % 5)).buffer_unordered(8);
    let in_time = killed.filter(|in_time| std::future::ready(*in_time)).count().await;
    // One in five is killed as it starts; how far the others come is a matter of time.
    assert!(in_time >= 10, "{in_time}");
}

#[tokio::test]
async fn a_lost_lease_ends_the_render() {
    let (stage, code, took) = stopped(json!({ "hang": { "frame": 13 } }), Standing::Lost).await;
    assert_eq!(code, "workflow.lease_lost");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(stage.processes_left(), Some(false));
}

#[tokio::test]
async fn dropping_a_render_kills_all_of_it() {
    let stage = Stage::new(json!({ "hang": { "frame": 13 } }));
    tokio::select! {
        _ = stage.render() => unreachable!("it hangs"),
        () = until("frames are stored", || stage.shelf.stored().len() == 3) => {}
    }
    until("nothing is left", || stage.processes_left() == Some(false)).await;
}

#[tokio::test]
async fn a_node_that_goes_away_keeps_what_is_there() {
    let stage = Stage::new(json!({ "hang": { "frame": 13 } }));
    let drain = async {
        until("frames are stored", || stage.shelf.stored().len() == 3).await;
        stage.drain.cancel();
    };
    let (rendered, ()) = tokio::join!(stage.render(), drain);
    let rendered = rendered.unwrap();
    assert_eq!((rendered.frames.len(), rendered.faults.len()), (3, 7));
    assert_eq!(rendered.cause.map(|cause| cause.code).as_deref(), Some("render.interrupted"), "it was no crash");
    assert_eq!(stage.processes_left(), Some(false));
}

#[tokio::test]
async fn a_node_that_goes_away_before_the_first_frame_gives_the_task_back() {
    let stage = Stage::new(json!({ "hang": { "frame": 10 } }));
    let drain = async {
        until("it renders", || stage.processes_left() == Some(true)).await;
        stage.drain.cancel();
    };
    let (rendered, ()) = tokio::join!(stage.render(), drain);
    assert_eq!(rendered.unwrap_err().code, "render.interrupted");
    assert_eq!(stage.processes_left(), Some(false));
}

#[tokio::test]
async fn a_node_that_goes_away_waits_for_no_list_of_frames_that_are_stored() {
    let stage = Stage::new(json!({}));
    stage.shelf.is_silent.store(true, Ordering::Relaxed);
    let going = async {
        until("it is prepared", || stage.attempt_folder().join("prepared").exists()).await;
        stage.drain.cancel();
    };
    let both = async { tokio::join!(stage.render(), going) };
    let (rendered, ()) = tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
    assert_eq!(rendered.unwrap_err().code, INTERRUPTED);
}
