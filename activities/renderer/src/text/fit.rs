//! Customers' words are longer than the designer's: a text shrinks until it fits its room.

use super::{
    fonts::Fonts,
    shape::{Justify, MissingGlyph, Shaped, Split, TextStyle},
};

/// Below this share of its size a text is not shrunk further: nobody could read it.
pub(crate) const SMALLEST: f64 = 0.4;
/// How much smaller a box text gets at each try.
const STEP: f64 = 0.97;
/// Descenders may hang out of a box by this share of a line.
const HANG: f64 = 0.2;

/// The space that a text may take, in pixels of the template.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Room {
    /// A box; lines break at its width. A height of zero is no bound.
    Box { width: f64, height: f64 },
    /// A point text: one width, no wrapping.
    Width(f64),
}

/// A text that was made to fit.
pub(crate) struct Fitted {
    pub(crate) text: Shaped,
    /// 1 at full size.
    pub(crate) scale: f64,
    /// Whether it fits; if not, it is at its smallest.
    pub(crate) fits: bool,
}

/// Sets `words` as large as the room allows. In a box, what would begin at the left begins at the right when
/// the text runs from the right.
pub(crate) fn fit(
    fonts: &mut Fonts,
    words: &str,
    style: &TextStyle,
    room: Room,
    split: Split,
) -> Result<Fitted, MissingGlyph> {
    let mut style = style.clone();
    let mut text = fonts.shape(words, &style, split)?;
    if text.right_to_left && style.justify == Justify::Left && matches!(room, Room::Box { .. }) {
        style.justify = Justify::Right;
        text = fonts.shape(words, &style, split)?;
    }
    let mut scale = 1.0;
    while !room.holds(&text, style.line_height) {
        if scale <= SMALLEST {
            return Ok(Fitted { text, scale, fits: false });
        }
        let smaller = match room {
            Room::Box { .. } => scale * STEP,
            // Without wrapping the width follows the size; a hair more, for rounding.
            Room::Width(width) => scale * (width / text.width).min(STEP.sqrt()) * 0.999,
        };
        scale = smaller.max(SMALLEST);
        text = fonts.shape(words, &style.scaled(scale), split)?;
    }
    Ok(Fitted { text, scale, fits: true })
}

impl Room {
    /// A text may stand over the edge by a pixel; `line_height` is the unshrunk one.
    fn holds(self, text: &Shaped, line_height: f64) -> bool {
        match self {
            Self::Width(width) => text.width <= width + 1.0,
            Self::Box { width, height } => {
                text.width <= width + 1.0 && (height <= 0.0 || text.height <= height + line_height * HANG)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fonts::tests::vazirmatn, *};

    fn style(wrap: Option<f64>) -> TextStyle {
        let mut fonts = vazirmatn();
        assert!(fonts.shape("a", &bare(wrap), Split::Whole).is_ok());
        bare(wrap)
    }

    fn bare(wrap: Option<f64>) -> TextStyle {
        let font = vazirmatn().choose(&serde_json::json!({}), "Vazirmatn-Regular").expect("there");
        TextStyle { font, size: 50.0, line_height: 60.0, letter_spacing: 0.0, justify: Justify::Left, wrap }
    }

    fn fitted(words: &str, room: Room) -> Fitted {
        let wrap = match room {
            Room::Box { width, .. } => Some(width),
            Room::Width(_) => None,
        };
        fit(&mut vazirmatn(), words, &style(wrap), room, Split::Whole).expect("covered")
    }

    #[test]
    fn a_short_text_keeps_its_size() {
        assert_eq!(fitted("Hello", Room::Width(500.0)).scale, 1.0);
    }

    #[test]
    fn a_long_line_shrinks_to_its_width() {
        let fitted = fitted("A rather long line of words", Room::Width(400.0));
        assert!(fitted.fits && fitted.scale < 1.0 && (390.0..=401.0).contains(&fitted.text.width), "{}", fitted.scale);
    }

    #[test]
    fn a_long_text_wraps_and_shrinks_into_its_box() {
        let room = Room::Box { width: 300.0, height: 120.0 };
        let fitted = fitted("A rather long line of words that needs more than two lines", room);
        assert!(fitted.fits && fitted.scale < 1.0 && fitted.text.height <= 132.0, "{}", fitted.scale);
    }

    #[test]
    fn shrinking_stops_at_the_smallest_size() {
        let fitted = fitted(&"word ".repeat(100), Room::Width(300.0));
        assert_eq!((fitted.fits, fitted.scale), (false, SMALLEST));
    }

    #[test]
    fn a_right_to_left_text_begins_at_the_right_of_its_box() {
        let text = fitted("سلام", Room::Box { width: 400.0, height: 0.0 }).text;
        assert!((text.units[0].right - 400.0).abs() < 2.0, "{}", text.units[0].right);
    }
}
