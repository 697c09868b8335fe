//! Renders: what was ordered, what was frozen, what came of it; and the nodes that do it.

pub mod again;
pub mod backlog;
pub mod bill;
pub mod derivative;
pub mod export;
pub mod film_frames;
pub mod frame_attempt;
pub mod frame_job;
pub mod freeze;
pub mod live_task;
pub mod node;
pub mod order;
pub mod plan;
pub mod render_job;
pub mod room;
pub mod scene_cache;
pub mod segment;
pub mod snapshot;
pub mod snapshot_batch;
pub mod snapshot_job;
pub mod snapshot_request;
pub mod spec;
pub mod still_key;
pub mod stored_frame;
