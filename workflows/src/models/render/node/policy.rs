//! What a failure of an attempt says of the node that it happened on. The numbers are those farms have come to: Flamenco keeps a
//! worker from a job after three failures, Afanasy forgives a host after a time, OpenCue counts no attempts for what is the farm's.

use std::time::Duration;

/// Failures on one template after which a node gets no more of it.
pub const BLOCK_AFTER: i64 = 2;
/// For how long, and how far back failures are counted.
pub const BLOCKED_FOR: Duration = Duration::from_secs(6 * 3600);
/// Failures of a node on templates that failed on no other, and on how many such templates, within [`QUARANTINE_WITHIN`], after which it gets no work at all.
pub const QUARANTINE_AFTER: (i64, i64) = (3, 2);
/// Templates that failed on a node within the same time after which it gets no work either, although each may have failed on others, too:
/// an update that spoils every node looks like that.
pub const QUARANTINE_AFTER_TEMPLATES: i64 = 4;
/// See [`QUARANTINE_AFTER`].
pub const QUARANTINE_WITHIN: Duration = Duration::from_secs(30 * 60);
/// Pause before a node that has failed its probe is probed again.
pub const PROBE_AGAIN_AFTER: Duration = Duration::from_secs(10 * 60);

/// Failures of one template that the probe would show, too: a node that has passed it gets the template again.
pub const PROBED: [&str; 3] = ["render.template_not_found", "render.forced_extension", "render.wrong_numbers"];

/// Pause before a node in quarantine may be probed, by how often it was put there in the day before. One that passes the probe and
/// fails at films costs their chunks each time it comes back.
pub const fn pause(times_before: i64) -> Duration {
    Duration::from_secs(match times_before {
        ..=0 => 0,
        1 => 10 * 60,
        2 => 3600,
        _ => 6 * 3600,
    })
}

/// What is done about a failure, beside trying the task again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// It is written down. It happens on good nodes, too.
    Noted,
    /// It speaks against the node: several do something about it.
    Counts,
    /// The node gets no more of this template for a time.
    Blocks,
    /// The node gets no work until it has proven itself.
    Quarantines,
}

/// The kind of crash that a failure's code stands for, as `node_crashes.kind` has it, and its weight. None for what is no crash:
/// faults of templates and data, and trouble on the way to and from the server.
pub fn weigh(code: &str) -> Option<(&'static str, Weight)> {
    use Weight::{Blocks, Counts, Noted, Quarantines};
    Some(match code {
        "render.crashed" => ("signal", Counts),
        "render.no_frames"
        | "render.engine_failed"
        | "render.logged_errors"
        | "render.launch_failed"
        | "render.no_renderer"
        | "render.prepare_failed" => ("exit_code", Counts),
        "render.launch_stalled" | "render.prepare_stalled" | "render.stalled" | "render.timed_out" => ("hang", Counts),
        "render.out_of_memory" => ("oom", Counts),
        "render.corrupt_frames" | "render.stale_span" => ("output", Counts),
        "render.disk_full" | "render.output_unwritable" | "render.file_locked" => ("disk", Noted),
        "render.plugin_licence" | "render.codec_not_licensed" => ("licence", Noted),
        "render.template_not_found" | "render.forced_extension" | "render.wrong_numbers" | "node.other_pixels" => {
            ("output", Blocks)
        }
        "render.project_too_new" | "render.missing_font" | "render.missing_effect" => ("exit_code", Blocks),
        "render.licence" => ("licence", Quarantines),
        "render.busy" | "node.dialog" | "node.no_desktop" => ("dialog", Quarantines),
        "render.pipes_busy" | "node.fonts_of_another_user" | "node.renderer_changed" => ("exit_code", Quarantines),
        _ => return None,
    })
}
