//! Why a renderer failed, as far as its words and its end tell: rules as data.
//!
//! A rule names words, all in lower case, that public logs, scripts and managers of render farms show for a kind
//! of failure. The first rule that matches wins; words before exit codes, exit codes before "it made nothing".

use super::{classes::*, timers::Expired, transcript::Transcript};
use std::process::ExitStatus;

/// Words that mean a picture which must not be delivered, even if every frame is there.
const QUALITY: &[(&[&str], Class)] = &[
    (&["missing font", "fonts are missing", "font is missing"], MISSING_FONT),
    (&["outside of range", "may have blank frames"], OUT_OF_RANGE),
    (&["missing effect"], MISSING_EFFECT),
    (&["layer dependencies are missing", "missing footage", "footage is missing", "file not found"], MISSING_FOOTAGE),
    (&["logged one error", "logged 1 error", "logged errors"], LOGGED_ERRORS),
];

/// Words that say nothing bad of the frames, but something of the node.
const NOTES: &[(&[&str], Class)] = &[
    (&["sanity test"], GPU_FAILED),
    (&["gestartet", "beendet", "but de la composition", "fin de la composition"], NOT_ENGLISH),
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
    (&["using the same serial number", "invalid serial number"], PLUGIN_LICENCE),
    (&["codec is not licensed", "codec not licensed"], CODEC_NOT_LICENSED),
    (&["unable to obtain a license", "trial expired", "trial has expired", "not licensed"], LICENCE),
    (&["another instance of aerender", "waiting for response from a modal dialog"], BUSY),
    (&["all pipe instances are busy", "omp: error #15"], PIPES_BUSY),
    (&["newer version of after effects"], PROJECT_TOO_NEW),
    (&["no project provided", "project could not be opened"], BAD_PROJECT),
    (&["used by another process", "sharing violation"], FILE_LOCKED),
    (&["output module failed"], OUTPUT_UNWRITABLE),
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
            "crashed",
            "crash report",
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

/// What a line says of the node, when it says nothing bad of the frames.
pub fn noted(line: &str) -> Option<Class> {
    find(NOTES, line)
}

/// Whether any rule's words lead to a class of this code.
pub fn has_words(code: &str) -> bool {
    QUALITY.iter().chain(NOTES).chain(WORDS).any(|(words, class)| class.code == code && !words.is_empty())
}

/// The class that the words of a whole run tell: first what spoils frames, then what explains their absence.
pub fn by_transcript(transcript: &Transcript) -> Option<Class> {
    transcript.spoiled.or_else(|| transcript.telling().find_map(by_words))
}

/// Why frames are not there, by a line.
pub fn by_words(line: &str) -> Option<Class> {
    let lower = line.to_lowercase();
    // The application's report names what people have named.
    if lower.contains("auto-save") || lower.trim_start().starts_with("progress:") {
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
        Expired::Launch | Expired::Load => Some(LAUNCH_STALLED),
        Expired::FirstFrame | Expired::FrameStall => Some(STALLED),
        Expired::Total => Some(TIMED_OUT),
        Expired::Quit => None,
    }
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
        by_words(line).map(|c| (c.code, c.is_retryable()))
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
            ("All pipe instances are busy", "render.pipes_busy", true),
            ("another is using the same serial number", "render.plugin_licence", true),
            ("codec is not licensed", "render.codec_not_licensed", true),
            ("made with a newer version of After Effects", "render.project_too_new", true),
            ("The file is being used by another process", "render.file_locked", true),
            ("An existing connection was forcibly closed by the remote host.", "render.crashed", true),
            ("-1712: AESend failed to send apple event", "render.crashed", true),
            ("internal verification failure, sorry!", "render.engine_failed", true),
            ("error in background rendering so switching to foreground", "render.engine_failed", true),
            ("Could not read from source. Please check", "render.bad_media", false),
            ("Path is not valid", "render.output_unwritable", true),
            ("Error executing script: x.jsx", "render.script_failed", false),
            ("This project contains 2 missing effects", "render.missing_effect", true),
            ("The following layer dependencies are missing", "render.missing_footage", false),
            ("After Effects warning: Project has missing fonts.", "render.missing_font", true),
            ("After Effects warning: logged 3 errors", "render.logged_errors", true),
        ] {
            assert_eq!(code(line), Some((expected, retryable)), "{line}");
        }
    }

    #[test]
    fn names_of_compositions_and_files_tell_nothing() {
        for line in [
            "PROGRESS:  11/26/2026 1:59:13 PM: Starting composition “Crash course, not licensed”.",
            "PROGRESS: Output To: /films/disk full crashed/[#####].png",
            "PROGRESS: 11/26/2026 1:59:13 PM: Finished composition “Out of memory”.",
        ] {
            assert_eq!(code(line), None, "{line}");
        }
    }

    #[test]
    fn every_class_that_words_tell_has_rules_and_no_other_has() {
        for class in CATALOGUE.iter().chain(&OTHERS) {
            assert_eq!(has_words(class.code), class.told == Told::Words, "{}", class.code);
        }
    }

    #[test]
    fn our_own_notes_are_not_read_as_the_renderers_words() {
        for class in CATALOGUE.iter().chain(&OTHERS).filter(|c| c.cure == Cure::Accept) {
            assert_eq!((by_words(&class.note()), noted(&class.note())), (None, None));
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
    fn what_spoils_a_run_is_what_makes_its_frames_worthless_to_everybody() {
        let words = QUALITY.iter().map(|(_, class)| class.code);
        let here: std::collections::BTreeSet<_> = words.chain([WRONG_NUMBERS.code]).collect();
        assert_eq!(here, flatrender_workflows::contracts::evidence::SPOILING.into());
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
