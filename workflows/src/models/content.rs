//! Templates: projects, their versions, and the scenes of these.

pub mod project;
pub mod scene;
pub mod svg_preview;
