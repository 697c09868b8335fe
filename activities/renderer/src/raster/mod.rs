//! Frames: a baked document drawn on several threads, each with a canvas of its own.

mod frames;
mod png;
mod tvg;

use std::collections::HashMap;

pub use frames::{Frame, FrameDone, Quality, RenderPlan, render};
pub use png::{PngFolder, encode_png};

/// Pixels by the name that an image asset asks for them.
pub(crate) type Pictures = HashMap<String, Picture>;

/// A decoded picture: rows of pixels, red in the lowest byte, premultiplied by opacity.
#[derive(Debug)]
pub(crate) struct Picture {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) pixels: Vec<u32>,
}
