//! Templates.

pub mod svg_previews;
pub mod templates;
