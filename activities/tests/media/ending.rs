//! Attempts that must end before they are done, and a machine that cannot work at all.

use crate::world::{World, png};
use flatrender_engine::{Handler, Standing};
use flatrender_workflows::contracts::{
    media::{EncodePart, EncodeProfile},
    render::FrameRef,
};
use image::RgbImage;
use std::{os::unix::fs::PermissionsExt, time::Duration};

impl World {
    /// An encoding that takes long: one large noisy picture again and again.
    async fn long(&self) -> EncodePart {
        let noise = (0..1280 * 720 * 3_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 ^ (n >> 5) as u8);
        let frame = self.frame(0, &png(&RgbImage::from_vec(1280, 720, noise.collect()).unwrap())).await;
        let frames = (0..40).map(|number| FrameRef { frame: number, ..frame.clone() }).collect();
        EncodePart { size: [1280, 720], profile: EncodeProfile::Master, ..self.part(frames) }
    }

    /// Programs that run in this world's folder.
    fn programs(&self) -> usize {
        let folder = self.folder.path().canonicalize().unwrap();
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        processes.filter(|p| std::fs::read_link(p.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&folder))).count()
    }

    async fn end_while_encoding(&self, standing: Standing) -> flatrender_engine::Failure {
        let (cx, keeper) = self.attempt();
        let input = self.long().await;
        let work = self.media.handle(&cx, input);
        let end = async {
            while self.programs() == 0 {
                tokio::task::yield_now().await;
            }
            keeper.standing.send(standing).unwrap();
        };
        let (outcome, ()) = tokio::join!(work, end);
        outcome.unwrap_err()
    }
}

#[tokio::test]
async fn a_cancelled_attempt_kills_ffmpeg() {
    let world = World::new();
    assert!(world.end_while_encoding(Standing::Cancelled).await.is_cancelled());
    assert_eq!(world.programs(), 0);
    assert!(world.is_tidy());
}

#[tokio::test]
async fn a_lost_lease_kills_ffmpeg() {
    let world = World::new();
    assert!(world.end_while_encoding(Standing::Lost).await.is_lease_lost());
    assert_eq!(world.programs(), 0);
}

#[tokio::test]
async fn a_dropped_attempt_kills_ffmpeg() {
    let world = World::new();
    let (cx, _keeper) = world.attempt();
    let input = world.long().await;
    let mut work = Box::pin(world.media.handle(&cx, input));
    while world.programs() == 0 {
        assert!(!crate::world::is_done(&mut work));
        tokio::task::yield_now().await;
    }
    drop(work);
    // Killed at once; the system takes a moment to take it off its list.
    let gone = async {
        while world.programs() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone).await.unwrap();
    assert!(world.is_tidy());
}

/// A worker as a process of its own: the test below runs and kills it.
#[tokio::test]
#[ignore = "it is killed"]
async fn a_worker_that_is_killed() {
    let mut world = World::new();
    world.media.ffmpeg = std::env::var_os("ENDLESS").unwrap().into();
    let _ = world.run(world.part(world.frames(0, 1).await)).await;
}

#[tokio::test]
async fn a_killed_worker_takes_ffmpeg_along() {
    let world = World::new();
    let endless = world.folder.path().join("endless");
    let waits = format!("#!/bin/sh\necho $$ > {}.pid\nexec sleep 600\n", endless.display());
    std::fs::write(&endless, waits).unwrap();
    std::fs::set_permissions(&endless, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut worker = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ending::a_worker_that_is_killed", "--ignored", "--nocapture"])
        .env("ENDLESS", &endless)
        .env("TMPDIR", world.folder.path())
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let pid_file = endless.with_extension("pid");
    let started = async {
        loop {
            match std::fs::read_to_string(&pid_file) {
                Ok(pid) if pid.ends_with('\n') => return format!("/proc/{}/cmdline", pid.trim()),
                _ => tokio::task::yield_now().await,
            }
        }
    };
    let process = tokio::time::timeout(Duration::from_secs(10), started).await.unwrap();
    worker.kill().await.unwrap();
    let gone = async {
        // A dead process that nobody has buried yet has no command line.
        while std::fs::read(&process).is_ok_and(|line| !line.is_empty()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone).await.expect("ffmpeg ends with its worker");
}

#[tokio::test]
async fn frames_are_reported_while_they_are_encoded() {
    let world = World::new();
    let (cx, keeper) = world.attempt();
    world.media.handle(&cx, world.part(world.frames(0, 30).await)).await.unwrap();
    let last = keeper.progress.borrow().clone();
    assert_eq!((last.done, last.total), (30, 30));
}

#[tokio::test]
async fn a_worker_without_ffmpeg_leaves_the_work_to_others() {
    let mut world = World::new();
    world.media.ffmpeg = "/nowhere/ffmpeg".into();
    let failure = world.run(world.part(world.frames(0, 1).await)).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retryable), ("media.tool_missing", true));
    let findings = world.media.doctor().await;
    assert!(!findings[0].ok && findings[0].detail.contains("/nowhere/ffmpeg"), "{findings:?}");
}

#[tokio::test]
async fn a_whole_machine_is_told_to_be_one() {
    let findings = World::new().media.doctor().await;
    assert!(findings.iter().all(|finding| finding.ok), "{findings:?}");
    let names: Vec<_> = findings.iter().map(|finding| finding.name.as_str()).collect();
    assert_eq!(names, ["ffmpeg", "ffprobe", "encoders", "filters", "scratch", "storage"]);
}
