//! What is removed when, and what nobody may remove: `/v1/cleanup-schedules`, `/v1/cleanup-runs`, `/v1/platform/holds`.

pub mod holds;
pub mod rules;
pub mod runs;
