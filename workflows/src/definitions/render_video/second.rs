//! A node that is late with frames: a second one renders them too, and the first whole result counts.
//!
//! ```text
//! render ───────────────────┬─▶ done first: the second is told to stop, or never begins
//!    └ late ─▶ render again ┴─▶ done first: the late one is told to stop
//! ```
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
        Either::Right((two, _)) if is_settled(&two) => ran(&again, two, Some(key)),
        Either::Left((one, second)) => match second.await {
            two if worth(&two) >= worth(&one) => ran(&again, two, Some(key)),
            _ => ran(key, one, Some(&again)),
        },
        Either::Right((two, first)) => match first.await {
            one if worth(&one) >= worth(&two) => ran(key, one, Some(&again)),
            _ => ran(&again, two, Some(key)),
        },
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
