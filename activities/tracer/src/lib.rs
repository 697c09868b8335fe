//! Pictures traced to SVG, with a palette of few colours that a browser changes without asking anybody.
//!
//! ```text
//! PNG, JPEG, WebP ──▶ decode (capped) ──▶ shrink ──▶ palette of at most 8 ──▶ trace ──▶ write: <svg> and <path>, nothing else
//! ```
//!
//! Nothing of a picture's bytes ends up in the SVG but shapes and colours: it is written from numbers, not rewritten from a
//! document. Each path has its colour twice, as `fill="#rrggbb"` for programs that know no CSS, and as
//! `style="fill:var(--slot-1,#rrggbb)"`; a page that has the SVG in itself changes a slot with
//! `svg.style.setProperty("--slot-1", "#ff0000")`.

mod decode;
mod palette;
mod svg;

use palette::Palette;
use std::fmt;

/// Which way of tracing this is. A picture is traced once by each; to be raised with every change of what comes out.
pub const VERSION: i32 = 1;
/// Longest picture that is taken in.
pub const SOURCE_BYTES: usize = 20_000_000;
/// Longest SVG that is given out.
pub const SVG_BYTES: usize = 512 * 1024;
/// Most slots of a palette.
pub const SLOTS: usize = 8;

/// Longest side of what is traced, in pixels: the first whose SVG is short enough.
const SIDES: [u32; 3] = [640, 320, 160];

/// A traced picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Traced {
    /// The document.
    pub svg: String,
    /// Its width, in its own units.
    pub width: u32,
    /// Its height.
    pub height: u32,
    /// Its colours, the one that covers most first.
    pub slots: Vec<Slot>,
}

/// A colour that can be changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Slot {
    /// `slot-1` and so on; the CSS property is `--slot-1`.
    pub id: String,
    /// What it is in the picture.
    pub color: Rgb,
    /// How much of the picture it covers, 0 to 1.
    pub share: f32,
}

/// Red, green, blue. Written `#rrggbb`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rgb(pub [u8; 3]);

impl fmt::Display for Rgb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [r, g, b] = self.0;
        write!(f, "#{r:02x}{g:02x}{b:02x}")
    }
}

/// Why a picture is not traced.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// It is no PNG, JPEG or WebP.
    #[error("only PNG, JPEG and WebP are traced")]
    Unsupported,
    /// It has too many bytes or pixels.
    #[error("a picture to trace has at most {SOURCE_BYTES} bytes and {} million pixels", decode::PIXELS / 1_000_000)]
    TooLarge,
    /// It cannot be decoded.
    #[error("the picture is damaged: {0}")]
    Damaged(image::ImageError),
    /// There is nothing to see in it.
    #[error("nothing is to be seen in the picture")]
    Empty,
    /// It has too much detail.
    #[error("the picture has too much detail: its SVG would be longer than {SVG_BYTES} bytes")]
    TooDetailed,
}

/// Traces the picture in `bytes`. Takes well below a second of one core in a release build, whatever the picture.
///
/// # Errors
/// [`TraceError`]
pub fn trace(bytes: &[u8]) -> Result<Traced, TraceError> {
    let picture = decode::decode(bytes)?;
    for side in SIDES {
        let pixels = decode::shrunk(&picture, side);
        let palette = Palette::of(&pixels).ok_or(TraceError::Empty)?;
        let (width, height) = pixels.dimensions();
        let svg = svg::write(&pixels, &palette);
        if svg.len() <= SVG_BYTES {
            return Ok(Traced { svg, width, height, slots: palette.slots() });
        }
    }
    Err(TraceError::TooDetailed)
}
