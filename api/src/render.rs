//! Renders, their events and exports.

pub mod again;
pub mod batch;
pub mod download;
pub mod eta;
pub mod events;
pub mod exports;
pub mod feed;
pub mod last_frame;
pub mod pace;
pub mod patience;
pub mod public_still;
pub mod renders;
pub mod scene_snapshots;
pub mod submit;
pub mod tagged;
pub mod view;
