//! What render nodes call. The words they use are in `contracts::node`.

pub mod claims;
pub mod crashes;
pub mod enrol;
pub mod frames;
pub mod health;
pub mod inputs;
pub mod late;
pub mod leases;
pub mod operate;
pub mod output;
pub mod placement;
pub mod probe;
pub mod snapshot_jobs;
pub mod stills;
pub mod tasks;
pub mod tokens;
