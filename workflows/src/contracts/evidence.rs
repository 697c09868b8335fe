//! What the failure of a render tells besides its code: what is to be done about it, and what was seen.
//!
//! Every failure that a renderer's driver reports carries one [`Evidence`] as its details, whatever went wrong, and
//! so does the cause of an attempt that made only some of its frames.

use super::render::FrameFault;
use flatrender_engine::Failure;
use serde::{Deserialize, Serialize};

/// Codes of failures that show in frames which are there: whatever the attempt has stored is worthless, to everybody.
pub const SPOILING: [&str; 6] = [
    "render.missing_font",
    "render.frame_out_of_range",
    "render.missing_effect",
    "render.missing_footage",
    "render.logged_errors",
    "render.wrong_numbers",
];

/// What is done about a failure of a render. The driver itself only tells what another attempt may cure from what
/// none can; the rest is for whoever places attempts on nodes, and for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cure {
    /// The frames are good: it is noted and no more.
    Accept,
    /// Another attempt, where does not matter.
    Retry,
    /// Another attempt on another node.
    OtherNode,
    /// The frames that are not good are rendered again.
    Repair,
    /// Another attempt; the node gets no more of this template for a time.
    Block,
    /// Another attempt; the node renders nothing until it has proven itself.
    NodeOut,
    /// Only whoever made the template or the data can mend it: no other attempt.
    Author,
    /// Somebody who runs the farm has to look.
    Operator,
}

/// The details of a failed render. Bounded: at most 64 KiB as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The code of the class, which is the failure's own: `render.crashed`.
    pub class: String,
    /// Number of the class in the catalogue of failures; none for what is not in it.
    #[serde(default)]
    pub number: Option<u8>,
    /// What is to be done about it.
    pub cure: Cure,
    /// The same for failures that look the same, whatever node, frame or file they concern; at most 200 bytes.
    pub signature: String,
    /// Exit code of the renderer's launcher, when it ended by itself.
    #[serde(default)]
    pub exit: Option<i32>,
    /// The timer that ran out: `launch`, `load`, `first_frame`, `frame_stall`, `total`, or `prepare` and
    /// `prepare_launch` of the step before.
    #[serde(default)]
    pub timer: Option<String>,
    /// The frame it failed at: the first that is missing although the composition was begun.
    #[serde(default)]
    pub frame: Option<u32>,
    /// What it concerns, by the template's own names: a field, a font, a file.
    #[serde(default)]
    pub objects: Vec<String>,
    /// Frames that are stored.
    #[serde(default)]
    pub frames_stored: u32,
    /// Frames that are not.
    #[serde(default)]
    pub frames_missing: u32,
    /// What is wrong with the first of them.
    #[serde(default)]
    pub faults: Vec<FrameFault>,
    /// The renderer's version line.
    #[serde(default)]
    pub version: Option<String>,
    /// First errors of the renderer.
    #[serde(default)]
    pub errors: Vec<String>,
    /// Last lines of the renderer.
    #[serde(default)]
    pub log_tail: Vec<String>,
}

impl Evidence {
    /// What a failure carries; none when it is not a render's.
    pub fn of(failure: &Failure) -> Option<Self> {
        serde_json::from_value(failure.details.clone()).ok()
    }

    /// Evidence of nothing but the class.
    pub fn bare(class: &str, number: Option<u8>, cure: Cure) -> Self {
        Self {
            class: class.to_owned(),
            number,
            cure,
            signature: class.to_owned(),
            exit: None,
            timer: None,
            frame: None,
            objects: Vec::new(),
            frames_stored: 0,
            frames_missing: 0,
            faults: Vec::new(),
            version: None,
            errors: Vec::new(),
            log_tail: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_render_failed_of_is_read_from_its_details_and_nothing_from_others() {
        let evidence = Evidence { frame: Some(7), ..Evidence::bare("render.crashed", Some(15), Cure::Repair) };
        let details = serde_json::to_value(&evidence).unwrap();
        assert_eq!((&details["class"], &details["cure"]), (&"render.crashed".into(), &"repair".into()));
        let failure = Failure::transient("render.crashed", "x").with_details(details);
        assert_eq!(Evidence::of(&failure), Some(evidence));
        assert_eq!(Evidence::of(&Failure::cancelled()), None);
    }
}
