//! What happens, in which order: a file per workflow. A definition awaits nothing but its context.

pub mod check_invariants;
pub mod clean_up;
pub mod deliver;
pub mod derive_film;
pub mod drain_deletions;
pub mod events;
pub mod expire_exports;
pub mod expire_uploads;
pub mod finish_upload;
pub mod forget_old;
pub mod keep_months;
pub mod look_after_credits;
pub mod notify;
pub mod purge_files;
pub mod recheck_domains;
pub mod render_video;
pub mod retire_months;
pub mod roll_up_usage;
pub mod scan_orphans;
pub mod scene_snapshot;
pub mod schedules;
pub mod send_digests;
pub mod send_message;
pub mod subscription;
pub mod webhook;
