//! The kinds of failure of a farm that renders with After Effects: the catalogue of 55, and what else ends a run.
//!
//! Numbers 1 to 55 are those of the failure catalogue that was collected from the trackers of render farms. Not
//! every one of them can be seen by a renderer's driver: [`Told::Elsewhere`] says who sees it instead. Which words
//! tell which class is in [`super::classify`].

pub use flatrender_workflows::contracts::evidence::Cure;

/// A kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Class {
    /// Its number in the catalogue; none for what is not in it.
    pub number: Option<u8>,
    /// Stable code.
    pub code: &'static str,
    /// What is done about it.
    pub cure: Cure,
    /// What tells it.
    pub told: Told,
    /// One sentence for people.
    pub message: &'static str,
}

/// What tells a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Words of the renderer.
    Words,
    /// A timer that ran out, or would have.
    Timer,
    /// How the process ended, or did not.
    Process,
    /// The files in the folder of frames, and how many the renderer announced.
    Files,
    /// What is fetched, unpacked and stored around a run.
    Transfer,
    /// The script that prepares a project.
    Script,
    /// A look at the machine once a run has failed: its windows, its session, fonts of other accounts; or the colours of the probe.
    Machine,
    /// Not the driver: why, and who does.
    Elsewhere(&'static str),
}

impl Class {
    /// Whether another attempt may succeed.
    pub fn is_retryable(&self) -> bool {
        self.cure != Cure::Author
    }

    /// As a warning beside frames that are accepted.
    pub fn note(&self) -> String {
        format!("{}: {}", self.code, self.message)
    }
}

const fn class(number: u8, code: &'static str, cure: Cure, told: Told, message: &'static str) -> Class {
    Class { number: Some(number), code, cure, told, message }
}

const fn other(code: &'static str, cure: Cure, told: Told, message: &'static str) -> Class {
    Class { number: None, code, cure, told, message }
}

use Cure::{Accept, Author, Block, NodeOut, Operator, OtherNode, Repair, Retry};
use Told::{Elsewhere, Files, Machine, Process, Script, Timer, Transfer, Words};

macro_rules! classes {
    ($($name:ident = $class:expr;)*) => { $(pub(crate) const $name: Class = $class;)* };
}

classes! {
    COMP_NOT_FOUND = class(1, "render.comp_not_found", Author, Words, "the project has no composition of this name");
    NO_FRAMES = class(2, "render.no_frames", OtherNode, Process, "the renderer ended without frames that it was asked for");
    DOUBTFUL_EXIT = class(3, "render.doubtful_exit", Accept, Process, "the renderer made every frame, but said it failed");
    MISSING_FOOTAGE =
        class(4, "render.missing_footage", Author, Words, "the project refers to a file that is not there");
    MISSING_FONT =
        class(5, "render.missing_font", Block, Words, "a font that the template uses is not installed on the node");
    FONTS_OF_ANOTHER_USER = class(6, "node.fonts_of_another_user", NodeOut, Machine,
        "a font is installed on the node, but not for the user that renders");
    MISSING_EFFECT =
        class(7, "render.missing_effect", Block, Words, "the project uses an effect that the node does not have");
    PLUGIN_LICENCE =
        class(8, "render.plugin_licence", Retry, Words, "the licence of a plug-in is in use somewhere else or was refused");
    LICENCE = class(9, "render.licence", NodeOut, Words, "the licence of the renderer was refused on the node");
    CODEC_NOT_LICENSED =
        class(10, "render.codec_not_licensed", OtherNode, Words, "the node may not use a codec that the render needs");
    LAUNCH_STALLED =
        class(11, "render.launch_stalled", OtherNode, Timer, "the renderer was started, but never began to work");
    STALLED = class(12, "render.stalled", Repair, Timer, "the renderer stopped making progress");
    SLOW_FRAME = class(13, "render.slow_frame", Accept, Timer, "a frame took unusually long, but was being computed");
    QUIT_STALLED =
        class(14, "render.quit_stalled", Accept, Timer, "the renderer made every frame, but did not end by itself");
    CRASHED = class(15, "render.crashed", Repair, Words, "the renderer crashed while it worked");
    ZOMBIE = class(16, "render.zombie", Accept, Process, "a process of the renderer outlived it and was killed");
    BUSY = class(17, "render.busy", NodeOut, Words,
        "another instance of the renderer is running on the node, or a dialog is open");
    NO_DESKTOP = class(18, "node.no_desktop", NodeOut, Machine,
        "the node renders without a desktop, where dialogs cannot be answered");
    TEMPLATE_NOT_FOUND = class(19, "render.template_not_found", Block, Words,
        "the node lacks the output module that frames are written with");
    NOT_ENGLISH = class(20, "render.not_english", Accept, Words, "the renderer of the node does not speak English");
    FORCED_EXTENSION = class(21, "render.forced_extension", Block, Files,
        "the node's output module writes another kind of file than the frames that were asked for");
    WRONG_NUMBERS = class(22, "render.wrong_numbers", Block, Files,
        "the node's output module numbers frames in another way than they are asked for");
    STALE_SPAN = class(23, "render.stale_span", Operator, Files,
        "the renderer rendered another span of time than it was asked for");
    OUT_OF_RANGE = class(24, "render.frame_out_of_range", Author, Words,
        "a frame was asked for that the composition does not have");
    DISK_FULL = class(25, "render.disk_full", OtherNode, Words, "the node has no room left on its disk");
    OUT_OF_MEMORY =
        class(26, "render.out_of_memory", OtherNode, Words, "the node has not enough memory for this render");
    GPU_FAILED = class(27, "render.gpu_failed", Accept, Words,
        "the node's graphics processor failed its test, so it rendered without it");
    CORRUPT_FRAMES = class(29, "render.corrupt_frames", Repair, Files, "frames were written that cannot be read");
    BLANK_FRAMES = class(30, "render.blank_frames", Accept, Files, "frames are black, even when they are rendered again");
    INPUT_NOT_FOUND =
        class(32, "render.input_not_found", Author, Transfer, "a file that the render needs could not be fetched");
    BAD_MEDIA =
        class(33, "render.bad_media", Author, Words, "a picture, film or sound of the project cannot be read");
    BAD_PACKAGE = class(35, "render.bad_package", Author, Transfer,
        "the template's package names files outside of itself or cannot be unpacked");
    PROJECT_TOO_NEW = class(36, "render.project_too_new", OtherNode, Words,
        "the project was made with a newer version of After Effects than the node has");
    SCRIPT_FAILED = class(37, "render.script_failed", Author, Words, "a script of the project failed");
    UNSAFE_PATH = class(38, "render.unsafe_path", Author, Transfer,
        "the name of a file of the customer is not one that every machine can keep");
    OTHER_PIXELS =
        class(47, "node.other_pixels", Block, Machine, "the node draws other pixels than the others do");
    HASH_MISMATCH =
        class(48, "render.hash_mismatch", Retry, Transfer, "a file arrived or was kept with another content than announced");
    TRANSFER_FAILED = class(49, "render.transfer_failed", Retry, Transfer, "a file could not be transferred");
    DIALOG = class(52, "node.dialog", NodeOut, Machine, "a dialog waits for an answer on the node");
    PIPES_BUSY = class(53, "render.pipes_busy", NodeOut, Words,
        "the node has run out of connections between programs; it needs a restart");
    FILE_LOCKED =
        class(54, "render.file_locked", Retry, Words, "another program on the node keeps a frame's file locked");

    LOGGED_ERRORS = other("render.logged_errors", OtherNode, Words, "the renderer logged errors while it rendered");
    DUPLICATE_FRAMES = other("render.duplicate_frames", Accept, Files,
        "a frame is the same as the one before it, even when it is rendered again");
    BAD_ARGUMENTS = other("render.bad_arguments", Author, Words, "the renderer does not know an argument");
    BAD_PROJECT = other("render.bad_project", Author, Words, "the project cannot be opened");
    OUTPUT_UNWRITABLE = other("render.output_unwritable", OtherNode, Words, "frames cannot be written on the node");
    ENGINE_FAILED = other("render.engine_failed", OtherNode, Words, "the renderer failed inside");
    LAUNCH_FAILED = other("render.launch_failed", OtherNode, Process, "the renderer did not start");
    NO_RENDERER = other("render.no_renderer", OtherNode, Process, "the node lacks the program that renders the template");
    PREPARE_STALLED = other("render.prepare_stalled", OtherNode, Timer,
        "the application stopped answering while it prepared the project");
    PREPARE_FAILED = other("render.prepare_failed", OtherNode, Process,
        "the application ended without saying whether it prepared the project");
    AMBIGUOUS_NAME = other("render.ambiguous_name", Author, Script, "a name that must be the only one is used more than once");
    UNKNOWN_FIELD = other("render.unknown_field", Author, Script, "the project has no place for a field of the data");
    UNSUPPORTED = other("render.unsupported", Author, Script, "the project has a field where a script cannot fill it in");
    EXPRESSION_ERROR = other("render.expression_error", Author, Script, "an expression of the project fails");
    NO_QUEUE_ITEM = other("render.no_queue_item", Author, Script, "the project's render queue has no item to take settings from");
    WRONG_RATE = other("render.wrong_rate", Author, Script, "the composition has another frame rate than the template says");
    TEXT_OVERFLOW = other("render.text_overflow", Accept, Script, "a text does not fit, even at its smallest size");
    TEXT_ALTERED = other("render.text_altered", Accept, Script, "the renderer took a text otherwise than it was given");
    EXPRESSION_DISABLED = other("render.expression_disabled", Accept, Script,
        "an expression on a text gave way to the customer's words");
    TIMED_OUT = other("render.timed_out", Retry, Timer, "the render took longer than it may");
}

/// The catalogue, in the order of its numbers.
pub const CATALOGUE: [Class; 55] = [
    COMP_NOT_FOUND,
    NO_FRAMES,
    DOUBTFUL_EXIT,
    MISSING_FOOTAGE,
    MISSING_FONT,
    FONTS_OF_ANOTHER_USER,
    MISSING_EFFECT,
    PLUGIN_LICENCE,
    LICENCE,
    CODEC_NOT_LICENSED,
    LAUNCH_STALLED,
    STALLED,
    SLOW_FRAME,
    QUIT_STALLED,
    CRASHED,
    ZOMBIE,
    BUSY,
    NO_DESKTOP,
    TEMPLATE_NOT_FOUND,
    NOT_ENGLISH,
    FORCED_EXTENSION,
    WRONG_NUMBERS,
    STALE_SPAN,
    OUT_OF_RANGE,
    DISK_FULL,
    OUT_OF_MEMORY,
    GPU_FAILED,
    class(
        28,
        "media.broken_film",
        Repair,
        Elsewhere("After Effects never writes our films; the check of the assembled video tells"),
        "the film cannot be played to its end",
    ),
    CORRUPT_FRAMES,
    BLANK_FRAMES,
    class(
        31,
        "render.unfinished_frame",
        Accept,
        Elsewhere(
            "a file counts once it decodes to its end, so an unfinished one is only looked at again; what stays unfinished is a corrupt frame",
        ),
        "a frame was looked at before it was finished",
    ),
    INPUT_NOT_FOUND,
    BAD_MEDIA,
    class(
        34,
        "upload.unknown_kind",
        Author,
        Elsewhere("the kind of a file is read from its content when it is uploaded, never from its name"),
        "the kind of a file cannot be told from its content",
    ),
    BAD_PACKAGE,
    PROJECT_TOO_NEW,
    SCRIPT_FAILED,
    UNSAFE_PATH,
    class(
        39,
        "workflow.lease_lost",
        Retry,
        Elsewhere("the server refuses what carries an old lease token; the driver is only told to stop"),
        "another attempt has taken over",
    ),
    class(
        40,
        "node.lost",
        Retry,
        Elsewhere("the server's clock ends a lease that is not renewed"),
        "the node stopped answering",
    ),
    class(
        41,
        "node.offline",
        Accept,
        Elsewhere("the agent's journal keeps results until the server takes or refuses them"),
        "the node could not reach the server for a while",
    ),
    class(
        42,
        "render.poisoned",
        Author,
        Elsewhere("one attempt cannot know; the workflow counts failures of a frame over nodes"),
        "the same frame fails on every node",
    ),
    class(
        43,
        "node.quarantined",
        NodeOut,
        Elsewhere("one attempt cannot know; the server counts failures of a node over templates"),
        "the node fails whatever it renders",
    ),
    class(
        44,
        "node.clock_skew",
        Accept,
        Elsewhere("no decision uses a node's wall clock: leases are the database's, timers monotonic"),
        "the clock of the node is wrong",
    ),
    class(
        45,
        "media.assembly_interrupted",
        Retry,
        Elsewhere("the video is assembled in a workflow step of its own, which is repeated alone"),
        "putting the video together was interrupted",
    ),
    class(
        46,
        "render.straggler",
        Retry,
        Elsewhere("one attempt cannot know; the workflow compares the parts of a video"),
        "one part of the video takes far longer than the others",
    ),
    OTHER_PIXELS,
    HASH_MISMATCH,
    TRANSFER_FAILED,
    class(
        50,
        "webhook.undelivered",
        Retry,
        Elsewhere("webhooks have a schedule of deliveries of their own"),
        "the customer's server did not take the message",
    ),
    class(
        51,
        "node.renderer_changed",
        NodeOut,
        Elsewhere(
            "the node's inventory looks at the renderer's file again and again, and tells the version that it finds",
        ),
        "the renderer of the node was updated by itself",
    ),
    DIALOG,
    PIPES_BUSY,
    FILE_LOCKED,
    class(
        55,
        "schedule.time_zone",
        Accept,
        Elsewhere("times are kept in UTC with the name of the zone; no render sees one"),
        "a schedule was read in another time zone",
    ),
];

/// What else ends a run or is noted of it.
pub const OTHERS: [Class; 20] = [
    LOGGED_ERRORS,
    DUPLICATE_FRAMES,
    BAD_ARGUMENTS,
    BAD_PROJECT,
    OUTPUT_UNWRITABLE,
    ENGINE_FAILED,
    LAUNCH_FAILED,
    NO_RENDERER,
    PREPARE_STALLED,
    PREPARE_FAILED,
    AMBIGUOUS_NAME,
    UNKNOWN_FIELD,
    UNSUPPORTED,
    EXPRESSION_ERROR,
    NO_QUEUE_ITEM,
    WRONG_RATE,
    TEXT_OVERFLOW,
    TEXT_ALTERED,
    EXPRESSION_DISABLED,
    TIMED_OUT,
];

/// The class of a code.
pub fn by_code(code: &str) -> Option<Class> {
    CATALOGUE.iter().chain(&OTHERS).find(|class| class.code == code).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_catalogue_is_whole_and_in_order() {
        let numbers: Vec<_> = CATALOGUE.iter().map(|c| c.number).collect();
        assert_eq!(numbers, (1..=55).map(Some).collect::<Vec<_>>());
        assert!(OTHERS.iter().all(|c| c.number.is_none()));
    }

    /// A word of the place that tells each class which the driver does not tell.
    const PLACES: [(u8, &str, &str); 14] = [
        (28, "export.mismatch", include_str!("../media/verify_video.rs")),
        (31, "FaultReason::Corrupt", include_str!("evidence.rs")),
        (34, "UploadError::UnsupportedType", include_str!("../media/upload.rs")),
        (39, "workflow.lease_lost", include_str!("../../../workflows/engine/src/failure.rs")),
        (40, "outcome = 'lost'", include_str!("../../../workflows/engine/src/store/tasks.rs")),
        (41, "Reported::Untold", include_str!("../agent/report.rs")),
        (42, "render.poison_frame", include_str!("../../../workflows/src/definitions/render_video/frames.rs")),
        (43, "Consequence::Quarantined", include_str!("../../../workflows/src/models/render/node/crash.rs")),
        (44, "the server's clock is", include_str!("../agent/doctor.rs")),
        (45, "media.assemble_failed", include_str!("../media/assemble_video.rs")),
        (46, "Late::signal", include_str!("../../../workflows/src/definitions/render_video/second.rs")),
        (50, "webhook.bad_status", include_str!("../../../workflows/src/definitions/webhook.rs")),
        (51, "node.renderer_changed", include_str!("../../../api/src/nodes/health.rs")),
        (55, "zone: Tz", include_str!("../../../workflows/engine/src/schedules/times.rs")),
    ];

    #[test]
    fn what_is_told_elsewhere_is_told_there() {
        let elsewhere = CATALOGUE.iter().filter(|class| matches!(class.told, Elsewhere(_)));
        assert_eq!(elsewhere.map(|class| class.number).collect::<Vec<_>>(), PLACES.map(|(number, ..)| Some(number)));
        for (number, word, place) in PLACES {
            assert!(place.contains(word), "{number}: {word} is not said where it was");
        }
    }

    #[test]
    fn every_class_has_a_code_of_its_own_and_a_sentence() {
        let all: Vec<_> = CATALOGUE.iter().chain(&OTHERS).collect();
        let codes: BTreeSet<_> = all.iter().map(|c| c.code).collect();
        assert_eq!(codes.len(), all.len());
        for class in all {
            let plain = |c: char| c.is_ascii_lowercase() || c == '_' || c == '.';
            assert!(class.code.chars().all(plain) && class.code.contains('.'), "{}", class.code);
            assert!(class.message.split(' ').count() >= 4, "{}", class.message);
            assert!(!class.message.ends_with('.') && class.message.len() < 120, "{}", class.message);
        }
    }
}
