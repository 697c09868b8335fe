//! Why a renderer failed, as far as its words and its end tell: rules as data.
//!
//! A rule names words, all in lower case, that public logs, scripts and managers of render farms show for a kind
//! of failure. The first rule that matches wins; words before exit codes, exit codes before "it made nothing".

use super::timers::Expired;
use std::process::ExitStatus;

/// A kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Class {
    /// Stable code.
    pub code: &'static str,
    /// Whether another attempt, perhaps on another node, may succeed.
    pub retryable: bool,
    /// One sentence for people.
    pub message: &'static str,
}

const fn permanent(code: &'static str, message: &'static str) -> Class {
    Class { code, retryable: false, message }
}

const fn transient(code: &'static str, message: &'static str) -> Class {
    Class { code, retryable: true, message }
}

const MISSING_FONT: Class = permanent("render.missing_font", "a font that the template uses is not installed");
const MISSING_FOOTAGE: Class = permanent("render.missing_footage", "the project refers to a file that is not there");
const MISSING_EFFECT: Class =
    permanent("render.missing_effect", "the project uses an effect that the node does not have");
const OUT_OF_RANGE: Class =
    permanent("render.frame_out_of_range", "a frame was asked for that the composition does not have");
const LOGGED_ERRORS: Class = transient("render.logged_errors", "the renderer logged errors while it rendered");
const CRASHED: Class = transient("render.crashed", "the renderer crashed");
const DISK_FULL: Class = transient("render.disk_full", "the node has no room left on its disk");
const OUT_OF_MEMORY: Class = transient("render.out_of_memory", "the node has not enough memory for this render");
const LICENCE: Class = transient("render.licence", "a licence of the renderer or of a plug-in was refused on the node");
const BUSY: Class =
    transient("render.busy", "another instance of the renderer is running on the node, or a dialog is open");
const COMP_NOT_FOUND: Class = permanent("render.comp_not_found", "the project has no composition of this name");
const TEMPLATE_NOT_FOUND: Class =
    transient("render.template_not_found", "the node lacks the output module that frames are written with");
const BAD_ARGUMENTS: Class = permanent("render.bad_arguments", "the renderer does not know an argument");
const BAD_PROJECT: Class = permanent("render.bad_project", "the project cannot be opened");
const BAD_MEDIA: Class = permanent("render.bad_media", "a picture, film or sound of the project cannot be read");
const OUTPUT_UNWRITABLE: Class = transient("render.output_unwritable", "frames cannot be written on the node");
const ENGINE_FAILED: Class = transient("render.engine_failed", "the renderer failed inside");
const LAUNCH_FAILED: Class = transient("render.launch_failed", "the renderer did not start");
pub(super) const NO_FRAMES: Class = transient("render.no_frames", "the renderer ended without a usable frame");
const STALLED: Class = transient("render.stalled", "the renderer stopped making progress");
const TIMED_OUT: Class = transient("render.timed_out", "the render took longer than it may");
const SCRIPT_FAILED: Class = permanent("render.script_failed", "a script of the project failed");

/// Words that mean a picture which must not be delivered, even if every frame is there.
const QUALITY: &[(&[&str], Class)] = &[
    (&["missing font", "fonts are missing", "font is missing"], MISSING_FONT),
    (&["outside of range", "may have blank frames"], OUT_OF_RANGE),
    (&["missing effect"], MISSING_EFFECT),
    (&["layer dependencies are missing", "missing footage", "footage is missing", "file not found"], MISSING_FOOTAGE),
    (&["logged one error", "logged 1 error", "logged errors"], LOGGED_ERRORS),
];

/// Words that explain why frames are not there.
const WORDS: &[(&[&str], Class)] = &[
    (&["no comp was found", "no composition was found", "no render queue item was found"], COMP_NOT_FOUND),
    (&["no output module template", "no render settings template", "template was found with"], TEMPLATE_NOT_FOUND),
    (
        &[
            "illegal argument flag",
            "no value given for flag",
            "argument ignored since no -comp",
            "output file but none",
        ],
        BAD_ARGUMENTS,
    ),
    (&["no space left", "disk is full", "disk full", "not enough disk space", "enospc"], DISK_FULL),
    (&["unable to allocate", "out of memory", "not enough memory", "insufficient memory", "bad_alloc"], OUT_OF_MEMORY),
    (
        &[
            "unable to obtain a license",
            "invalid serial number",
            "using the same serial number",
            "trial expired",
            "trial has expired",
            "not licensed",
        ],
        LICENCE,
    ),
    (
        &["another instance of aerender", "waiting for response from a modal dialog", "all pipe instances are busy"],
        BUSY,
    ),
    (&["no project provided", "project could not be opened", "newer version of after effects"], BAD_PROJECT),
    (
        &["could not read from source", "file is damaged", "not a valid file type", "may be damaged or corrupted"],
        BAD_MEDIA,
    ),
    (&["path is not valid", "output folder does not exist", "directory does not exist"], OUTPUT_UNWRITABLE),
    (&["error executing script", "error in script"], SCRIPT_FAILED),
    (
        &[
            "forcibly closed by the remote host",
            "unable to receive at line",
            "connection reset",
            "aesend failed",
            "aegetparampt failed",
            "crash",
        ],
        CRASHED,
    ),
    (
        &[
            "internal verification failure",
            "unexpected failure during application startup",
            "switching to foreground",
            "unable to render",
            "runtime error in after effects",
            "output module failed",
        ],
        ENGINE_FAILED,
    ),
];

/// Codes our own renderer prints in brackets that another attempt may cure; all its others are for good.
const PASSING: [Class; 3] = [DISK_FULL, OUTPUT_UNWRITABLE, ENGINE_FAILED];

/// The code and the words of an error of our own renderer: `[render.missing_font] no font Vazirmatn Bold`.
pub fn coded(error: &str) -> Option<(&str, bool, &str)> {
    let (code, message) = error.strip_prefix('[')?.split_once(']')?;
    let known = |c: char| c.is_ascii_lowercase() || c == '_' || c == '.';
    let is_code = code.len() <= 64 && code.starts_with("render.") && code.chars().all(known);
    is_code.then(|| (code, PASSING.iter().any(|c| c.code == code), message.trim()))
}

/// What spoils frames that are there.
pub fn spoiled(line: &str) -> Option<Class> {
    find(QUALITY, line).or_else(|| counts_errors(line).then_some(LOGGED_ERRORS))
}

/// Why frames are not there, by a line.
pub fn by_words(line: &str) -> Option<Class> {
    if line.to_lowercase().contains("auto-save") {
        return None;
    }
    find(WORDS, line).or_else(|| spoiled(line))
}

/// Why frames are not there, by how the launcher ended. Codes: the command-line script of After Effects.
pub fn by_exit(status: ExitStatus) -> Class {
    match status.code() {
        Some(0) => NO_FRAMES,
        Some(2..=4) => BAD_ARGUMENTS,
        Some(7 | 8) => BAD_PROJECT,
        Some(5 | 6 | 9 | 10) => ENGINE_FAILED,
        Some(11) => LAUNCH_FAILED,
        Some(1) => NO_FRAMES,
        // Signals seen by a shell, access violations and the like of Windows, and signals seen by us.
        _ => CRASHED,
    }
}

/// Why it was killed; none when that is no failure.
pub fn by_timer(expired: Expired) -> Option<Class> {
    match expired {
        Expired::Launch | Expired::FirstFrame | Expired::FrameStall => Some(STALLED),
        Expired::Total => Some(TIMED_OUT),
        Expired::Quit => None,
    }
}

/// The program could not be started at all.
pub fn not_started() -> Class {
    LAUNCH_FAILED
}

fn find(rules: &[(&[&str], Class)], line: &str) -> Option<Class> {
    let line = line.to_lowercase();
    rules.iter().find(|(words, _)| words.iter().any(|w| line.contains(w))).map(|(_, class)| *class)
}

/// `logged 3 errors`
fn counts_errors(line: &str) -> bool {
    let lower = line.to_lowercase();
    let Some((_, rest)) = lower.split_once("logged ") else { return false };
    let mut words = rest.split_whitespace();
    let counted = words.next().is_some_and(|n| n.parse::<u32>().is_ok_and(|n| n > 0));
    counted && words.next().is_some_and(|w| w.starts_with("error"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(line: &str) -> Option<(&'static str, bool)> {
        by_words(line).map(|c| (c.code, c.retryable))
    }

    #[test]
    fn words_tell_the_class() {
        for (line, expected, retryable) in [
            ("No comp was found with the given name.", "render.comp_not_found", false),
            ("No render queue item was found with the given index.", "render.comp_not_found", false),
            ("No output module template was found with the given name.", "render.template_not_found", true),
            ("Illegal argument flag: -mfr", "render.bad_arguments", false),
            ("write failed: No space left on device", "render.disk_full", true),
            ("After Effects error: Unable to allocate 64 MB", "render.out_of_memory", true),
            ("Unable to obtain a license", "render.licence", true),
            ("Another instance of aerender, or another script, may be running", "render.busy", true),
            ("All pipe instances are busy", "render.busy", true),
            ("An existing connection was forcibly closed by the remote host.", "render.crashed", true),
            ("-1712: AESend failed to send apple event", "render.crashed", true),
            ("internal verification failure, sorry!", "render.engine_failed", true),
            ("error in background rendering so switching to foreground", "render.engine_failed", true),
            ("Could not read from source. Please check", "render.bad_media", false),
            ("Path is not valid", "render.output_unwritable", true),
            ("Error executing script: x.jsx", "render.script_failed", false),
            ("This project contains 2 missing effects", "render.missing_effect", false),
            ("The following layer dependencies are missing", "render.missing_footage", false),
            ("After Effects warning: Project has missing fonts.", "render.missing_font", false),
            ("After Effects warning: logged 3 errors", "render.logged_errors", true),
        ] {
            assert_eq!(code(line), Some((expected, retryable)), "{line}");
        }
    }

    #[test]
    fn saving_by_itself_and_noise_are_no_failures() {
        for line in [
            "Error: auto-save crash folder is not writable",
            "GPU3 failed (previous) sanity test",
            "logged 0 errors",
            "",
        ] {
            assert_eq!(code(line), None, "{line}");
        }
    }

    #[test]
    fn frames_are_spoiled_only_by_what_shows_in_them() {
        assert_eq!(spoiled("Project has missing fonts").map(|c| c.code), Some("render.missing_font"));
        assert_eq!(
            spoiled("Render will succeed, but may have blank frames.").map(|c| c.code),
            Some("render.frame_out_of_range")
        );
        assert_eq!(spoiled("An existing connection was forcibly closed by the remote host."), None);
    }

    #[test]
    fn our_renderers_own_codes_are_taken_over() {
        assert_eq!(coded("[render.missing_font] no Vazirmatn"), Some(("render.missing_font", false, "no Vazirmatn")));
        assert_eq!(coded("[render.disk_full] no room"), Some(("render.disk_full", true, "no room")));
        assert_eq!(coded("[Errno 2] no such file"), None);
        assert_eq!(coded("[render.<script>] x"), None);
    }

    #[cfg(unix)]
    #[test]
    fn the_end_of_the_process_is_the_last_hint() {
        use std::os::unix::process::ExitStatusExt;
        let exit = |code: i32| by_exit(ExitStatus::from_raw(code << 8)).code;
        assert_eq!(exit(0), "render.no_frames");
        assert_eq!(exit(3), "render.bad_arguments");
        assert_eq!(exit(8), "render.bad_project");
        assert_eq!(exit(10), "render.engine_failed");
        assert_eq!(exit(11), "render.launch_failed");
        assert_eq!(exit(139), "render.crashed");
        assert_eq!(by_exit(ExitStatus::from_raw(11)).code, "render.crashed");
    }
}
