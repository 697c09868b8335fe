//! Templates: projects, their versions, and the scenes of these.

pub mod post;
pub mod project;
pub mod scene;
pub mod svg_preview;
