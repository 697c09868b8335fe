//! A node that is late with frames: a second one renders them too, and the first whole result counts.
//!
//! ```text
//! render ───────────────────┬─▶ done first: the second is told to stop, or never begins
//!    └ late ─▶ render again ┴─▶ done first: the late one is told to stop
//! ```
//! A second that fails does not end it: the late one may be about to have it done, and what is worth more of the two counts. A late one that fails ends both: nobody else may be
//! there who may take the second, which is for none that had it. What either has stored is kept, and the rest is asked for anew.
//!
//! Whoever gives out work says that a node is late, once for each activity. Frames have one owner however many rendered them: those
//! of one result are accepted together, by the run alone.

use crate::contracts::render::{FrameClass, Late, RenderFrames, RenderedFrames};
use flatrender_engine::{Context, Failure};
use futures::future::{Either, select};
use std::pin::pin;

/// What came of one activity, or of the two that raced.
pub(super) struct Ran {
    /// Key of the activity that counts.
    pub activity: String,
    /// What it gave.
    pub rendered: Result<RenderedFrames, Failure>,
    /// Key of the other one, which was stopped or gave less.
    pub overtaken: Option<String>,
}

/// Has frames rendered by one node, or by two when the first is late.
pub(super) async fn run(cx: &Context, key: &str, work: RenderFrames) -> Ran {
    let ran = |activity: &str, rendered, overtaken: Option<&str>| Ran {
        activity: activity.to_owned(),
        rendered,
        overtaken: overtaken.map(str::to_owned),
    };
    let told = Late::signal(key);
    let (first, late) = (pin!(cx.activity(key, work.clone())), pin!(cx.signal::<Late>(&told, &told)));
    let (late, first) = match select(first, late).await {
        Either::Left((rendered, _)) => return ran(key, rendered, None),
        Either::Right((Ok(late), first)) => (late, first),
        // Cancelled, and so is what is waited for.
        Either::Right((Err(_), first)) => return ran(key, first.await, None),
    };
    let again = format!("{key}:again");
    let avoid = work.avoid.iter().cloned().chain([late.node]).collect();
    let second = pin!(cx.activity(&again, RenderFrames { avoid, class: FrameClass::Spare, ..work }));
    match select(first, second).await {
        Either::Left((one, _)) if is_settled(&one) => ran(key, one, Some(&again)),
        Either::Left((one, second)) => {
            if cx.patched("a second is not waited for").await {
                return ran(key, one, Some(&again));
            }
            match second.await {
                two if worth(&two) >= worth(&one) => ran(&again, two, Some(key)),
                _ => ran(key, one, Some(&again)),
            }
        }
        Either::Right((two, first)) => {
            let ends = is_settled(&two) && (two.is_ok() || !cx.patched("a second that fails ends nothing").await);
            if ends {
                return ran(&again, two, Some(key));
            }
            match first.await {
                one if worth(&one) >= worth(&two) => ran(key, one, Some(&again)),
                _ => ran(&again, two, Some(key)),
            }
        }
    }
}

/// Whether nobody else can do better: every frame is there, or none ever will be.
fn is_settled(rendered: &Result<RenderedFrames, Failure>) -> bool {
    match rendered {
        Ok(made) => made.cause.is_none() && made.faults.is_empty(),
        Err(failure) => !failure.retryable && !crate::contracts::render::is_crash(&failure.code),
    }
}

fn worth(rendered: &Result<RenderedFrames, Failure>) -> usize {
    rendered.as_ref().map_or(0, |made| 1 + made.frames.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contracts::{
        render::{Engine, FrameRange, FrameRef, RenderData, RenderTiming},
        storage::{BlobHash, BlobRef},
    };
    use flatrender_engine::{
        Attempt, Labels, Workflow,
        testing::{Played, Rehearsal},
    };
    use serde::{Deserialize, Serialize};
    use uuid::Uuid;

    /// Frames that one node, or two, are asked for.
    #[derive(Serialize, Deserialize)]
    struct Race;

    impl Workflow for Race {
        const NAME: &'static str = "race";
        type Output = (String, Option<String>, bool);

        async fn run(self, cx: &Context) -> Result<Self::Output, Failure> {
            let ran = run(cx, "render", work()).await;
            Ok((ran.activity, ran.overtaken, ran.rendered.is_ok()))
        }
    }

    fn blob(name: &str) -> BlobRef {
        BlobRef { sha256: BlobHash::of(name.as_bytes()), size_bytes: name.len() as u64 }
    }

    fn work() -> RenderFrames {
        RenderFrames {
            render_id: Uuid::nil(),
            engine: Engine::Lottie,
            package: blob("package"),
            package_owner: Uuid::nil(),
            composition: "main".to_owned(),
            frames: FrameRange { first: 0, last: 0 },
            data: RenderData::default(),
            assets: vec![],
            size: [64, 36],
            fps: 30,
            pace: None,
            needs: Labels::new(),
            avoid: vec![],
            class: FrameClass::Final,
        }
    }

    fn whole() -> RenderedFrames {
        let frames = vec![FrameRef { frame: 0, blob: blob("frame") }];
        RenderedFrames { frames, faults: vec![], cause: None, warnings: vec![], timing: RenderTiming::default() }
    }

    /// A race in which the first node is late, and what comes of it.
    fn raced(
        first: impl Fn(&Attempt) -> Result<RenderedFrames, Failure> + Send + Sync + 'static,
        second: fn() -> Result<RenderedFrames, Failure>,
    ) -> Played {
        let stage = Rehearsal::new()
            .workflow::<Race>()
            .signal(Late::signal("render"), Late { node: "slow".to_owned() })
            .handler(move |cx, work: RenderFrames| if work.class == FrameClass::Spare { second() } else { first(cx) });
        stage.run(Race).unwrap()
    }

    fn counts(played: &Played) -> (String, Option<String>, bool) {
        played.output_as().unwrap()
    }

    /// It may be for none of the nodes that are left.
    #[test]
    fn a_late_one_that_crashes_leaves_nobody_waiting_for_the_second() {
        let played = raced(|_| Err(Failure::transient("render.crashed", "it happens")), || Ok(whole()));
        assert_eq!(counts(&played), ("render".to_owned(), Some("render:again".to_owned()), false));
        assert_eq!(played.calls.len(), 1, "the second is taken back: {:?}", played.calls);
    }

    #[test]
    fn a_second_that_fails_for_good_leaves_the_late_one_its_time() {
        // Its node is away for a while, twice.
        let first = |cx: &Attempt| if cx.task().attempt_no < 3 { Err(Failure::lease_lost()) } else { Ok(whole()) };
        let played = raced(first, || Err(Failure::permanent("render.missing_font", "not on this node")));
        assert_eq!(counts(&played), ("render".to_owned(), Some("render:again".to_owned()), true));
        assert!(played.calls.iter().any(|call| call.key == "render:again"), "{:?}", played.calls);
    }
}
