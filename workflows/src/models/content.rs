//! Templates: projects, their versions, and the scenes of these.

pub mod project;
pub mod scene;
