//! What happens, in which order: a file per workflow. A definition awaits nothing but its context.

pub mod derive_film;
pub mod expire_uploads;
pub mod finish_upload;
pub mod keep_months;
pub mod recheck_domains;
pub mod render_video;
pub mod roll_up_usage;
pub mod scene_snapshot;
pub mod send_message;
