//! Stills, and what they have in common with frame ranges: a still is a range of one frame, rendered by the same driver.
//!
//! A node is given up to eight stills of one package at once. Each is an attempt of its own, with its lease, its journal entry and
//! its report; they share the package, which is fetched and unpacked once. After Effects, which is long in starting, renders them as
//! one composition (`reel`); our own renderer starts in a fifth of a second, and they take turns at it.

use flatrender_engine::{Activity, Attempt, Failure, LeasedTask};
use flatrender_workflows::contracts::{
    render::{INTERRUPTED, RenderFrames, RenderedFrames},
    snapshot::{RenderStills, RenderedStill, Still},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;

/// The renderer among attempts that were given at once: one after another.
#[derive(Debug, Clone, Default)]
pub struct Turns(Arc<Mutex<()>>);

impl Turns {
    /// Waits for a turn, which lasts until it is dropped. An attempt that would have too little time left gives its task back.
    ///
    /// # Errors
    /// That of an attempt that has ended, and [`INTERRUPTED`]: somebody else may be sooner.
    pub async fn take(&self, attempt: &Attempt, drain: &CancellationToken) -> Result<OwnedMutexGuard<()>, Failure> {
        let longest = Duration::from_secs_f64(attempt.task().start_to_close_seconds.clamp(1.0, 86_400.0) / 2.0);
        let given_back = |why: &str| Err(Failure::transient(INTERRUPTED, why));
        tokio::select! {
            biased;
            failure = attempt.ended() => Err(failure),
            () = drain.cancelled() => given_back("the node is going away"),
            turn = self.0.clone().lock_owned() => Ok(turn),
            () = tokio::time::sleep(longest) => given_back("its turn did not come in time"),
        }
    }
}

/// What a task asks the renderer for.
///
/// # Errors
/// `node.unknown_activity`, `node.bad_input`; both for good.
pub fn input(task: &LeasedTask) -> Result<RenderFrames, Failure> {
    match task.activity.as_str() {
        RenderFrames::NAME => read(task),
        RenderStills::NAME => read::<RenderStills>(task).map(|still| still.as_frames()),
        other => Err(Failure::permanent("node.unknown_activity", format!("a node cannot do {other}"))),
    }
}

fn read<T: DeserializeOwned>(task: &LeasedTask) -> Result<T, Failure> {
    serde_json::from_value(task.input.clone())
        .map_err(|error| Failure::permanent("node.bad_input", format!("the task cannot be read: {error}")))
}

/// What is reported of rendered frames: as they are, or the one frame of a still. A still without its frame has failed.
///
/// # Errors
/// Why there is no frame, or `render.frames_missing`; another attempt may succeed.
pub fn output(activity: &str, rendered: RenderedFrames) -> Result<Value, Failure> {
    let told = |value: Result<Value, serde_json::Error>| {
        value.map_err(|error| Failure::permanent("node.bad_output", format!("the output cannot be told: {error}")))
    };
    if activity != RenderStills::NAME {
        return told(serde_json::to_value(rendered));
    }
    let RenderedFrames { mut frames, faults, cause, warnings, timing } = rendered;
    let Some(frame) = frames.pop() else {
        let reason = faults.first().map(|fault| fault.reason);
        let missing = || Failure::transient("render.frames_missing", format!("the frame of the still is {reason:?}"));
        return Err(cause.unwrap_or_else(missing));
    };
    told(serde_json::to_value(Still::Rendered(RenderedStill { frame: frame.blob, warnings, timing })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flatrender_workflows::contracts::{
        render::{FaultReason, FrameFault, FrameRef, RenderTiming},
        storage::{BlobHash, BlobRef},
    };
    use uuid::Uuid;

    fn rendered(frames: Vec<FrameRef>) -> RenderedFrames {
        let faults = vec![FrameFault { frame: 5, reason: FaultReason::Corrupt }];
        RenderedFrames { frames, faults, cause: None, warnings: vec![], timing: RenderTiming::default() }
    }

    #[test]
    fn a_still_is_reported_by_its_frame_and_fails_without() {
        let blob = BlobRef { sha256: BlobHash::of(b"x"), size_bytes: 1 };
        let frame = FrameRef { frame: 5, blob: blob.clone() };
        let told = output(RenderStills::NAME, rendered(vec![frame.clone()])).unwrap();
        assert_eq!(told["rendered"]["frame"], serde_json::json!(blob));
        let failure = output(RenderStills::NAME, rendered(vec![])).unwrap_err();
        assert_eq!((failure.code.as_str(), failure.retryable), ("render.frames_missing", true));
        assert_eq!(output(RenderFrames::NAME, rendered(vec![frame])).unwrap()["frames"][0]["frame"], 5);
    }

    fn attempt() -> (Attempt, flatrender_engine::AttemptKeeper) {
        Attempt::new(LeasedTask {
            task_id: 1,
            run_id: Uuid::nil(),
            tenant_id: Uuid::nil(),
            key: "render:1".into(),
            activity: RenderStills::NAME.into(),
            input: Value::Null,
            attempt_no: 1,
            lease_token: Uuid::nil(),
            lease_seconds: 30.0,
            start_to_close_seconds: 300.0,
            traceparent: None,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_of_one_visit_take_turns_and_none_waits_too_long() {
        let (turns, drain) = (Turns::default(), CancellationToken::new());
        let (attempt, _keeper) = attempt();
        let first = turns.take(&attempt, &drain).await.unwrap();
        let begun = tokio::time::Instant::now();
        assert_eq!(turns.take(&attempt, &drain).await.unwrap_err().code, INTERRUPTED);
        assert_eq!(begun.elapsed().as_secs(), 150);
        drop(first);
        assert!(turns.take(&attempt, &drain).await.is_ok());
        drain.cancel();
        assert_eq!(turns.take(&attempt, &drain).await.unwrap_err().code, INTERRUPTED);
    }
}
