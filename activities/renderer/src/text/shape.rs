//! Words to placed outlines: both directions, joined letters, ligatures, marks, kerning, line breaking.
//!
//! The outlines are cut into units (letters, words, lines) so that text animators can move each alone.

use parley::{
    Alignment, AlignmentOptions, Cluster, FontStyle, FontWeight, Layout, Line, LineHeight, Run, StyleProperty,
};
use skrifa::{
    FontRef, GlyphId, MetadataProvider,
    instance::{LocationRef, NormalizedCoord, Size},
    outline::DrawSettings,
};

use super::{
    fonts::{FontChoice, Fonts},
    outline::{Contour, Pen},
    script::{is_invisible, is_joined, plain_lines, word_starts},
};

/// Into what a text is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Split {
    Whole,
    Lines,
    Words,
    Letters,
}

/// On which side lines begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Justify {
    Left,
    Right,
    Center,
}

/// How a text is set.
#[derive(Debug, Clone)]
pub(crate) struct TextStyle {
    pub(crate) font: FontChoice,
    /// Pixels of the template, like every length here.
    pub(crate) size: f64,
    pub(crate) line_height: f64,
    pub(crate) letter_spacing: f64,
    pub(crate) justify: Justify,
    /// Breaks lines at this width; a point text has none.
    pub(crate) wrap: Option<f64>,
}

impl TextStyle {
    /// The same at another size.
    pub(crate) fn scaled(&self, scale: f64) -> Self {
        Self {
            size: self.size * scale,
            line_height: self.line_height * scale,
            letter_spacing: self.letter_spacing * scale,
            ..self.clone()
        }
    }
}

/// A part of a text that moves as one.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) contours: Vec<Contour>,
    pub(crate) left: f64,
    pub(crate) right: f64,
    pub(crate) baseline: f64,
    /// Which word and which line of the text it is in, from 0.
    pub(crate) word: usize,
    pub(crate) line: usize,
    /// Where it begins in the text; units stand in this order.
    start: usize,
}

/// A text laid out. The first baseline is at 0.
#[derive(Debug)]
pub(crate) struct Shaped {
    pub(crate) units: Vec<Unit>,
    pub(crate) width: f64,
    pub(crate) height: f64,
    pub(crate) right_to_left: bool,
}

/// A character that no font of the package has.
#[derive(Debug, PartialEq)]
pub(crate) struct MissingGlyph(pub(crate) char);

impl Fonts {
    /// Sets `text`. A script whose letters join is never cut finer than words.
    pub(crate) fn shape(&mut self, text: &str, style: &TextStyle, split: Split) -> Result<Shaped, MissingGlyph> {
        let text = plain_lines(text);
        let layout = self.layout(&text, style);
        let split = if split == Split::Letters && is_joined(&text) { Split::Words } else { split };
        let mut setter = Setter { text: &text, style, split, words: word_starts(&text), units: vec![], missing: None };
        let right_to_left = layout.is_rtl();
        let (mut width, mut lines) = (0.0_f64, 0);
        for (number, line) in layout.lines().enumerate() {
            width = width.max(setter.line(&line, number, right_to_left));
            lines = number + 1;
        }
        if let Some(cluster) = setter.missing {
            return Err(MissingGlyph(self.uncovered(&cluster)));
        }
        let mut units = setter.units;
        units.sort_by_key(|unit| (unit.start, unit.line));
        Ok(Shaped { units, width, height: lines as f64 * style.line_height, right_to_left })
    }

    fn layout(&mut self, text: &str, style: &TextStyle) -> Layout<()> {
        let families = std::iter::once(&style.font.family).chain(&self.families);
        let families = families.map(|family| format!("\"{}\"", family.replace('"', ""))).collect::<Vec<_>>().join(", ");
        let mut builder = self.layouts.ranged_builder(&mut self.context, text, 1.0, false);
        builder.push_default(StyleProperty::FontFamily(families.as_str().into()));
        builder.push_default(StyleProperty::FontSize(style.size as f32));
        builder.push_default(StyleProperty::FontWeight(FontWeight::new(style.font.weight)));
        if style.font.italic {
            builder.push_default(StyleProperty::FontStyle(FontStyle::Italic));
        }
        builder.push_default(StyleProperty::LetterSpacing(style.letter_spacing as f32));
        builder.push_default(StyleProperty::LineHeight(LineHeight::Absolute(style.line_height as f32)));
        let mut layout = builder.build(text);
        layout.break_all_lines(style.wrap.map(|width| width as f32));
        // Lines are placed below, once their hanging blanks are known.
        layout.align(Alignment::Left, AlignmentOptions::default());
        layout
    }

    /// Of a cluster drawn without a glyph, the character that is to blame.
    fn uncovered(&mut self, cluster: &str) -> char {
        let blamed = cluster.chars().find(|character| !is_invisible(*character) && !self.covers(*character));
        blamed.or(cluster.chars().next()).unwrap_or(char::REPLACEMENT_CHARACTER)
    }
}

/// Walks a layout and collects the units.
struct Setter<'a> {
    text: &'a str,
    style: &'a TextStyle,
    split: Split,
    /// Where each word begins.
    words: Vec<usize>,
    units: Vec<Unit>,
    /// The first cluster drawn without a glyph.
    missing: Option<String>,
}

impl Setter<'_> {
    /// Places one line; answers its width.
    fn line(&mut self, line: &Line<'_, ()>, number: usize, right_to_left: bool) -> f64 {
        let metrics = line.metrics();
        let hanging = f64::from(metrics.hanging_advance);
        let width = f64::from(metrics.advance) - hanging;
        let room = self.style.wrap.unwrap_or(0.0);
        let start = match self.style.justify {
            Justify::Left => 0.0,
            Justify::Right => room - width,
            Justify::Center => (room - width) / 2.0,
        };
        // The blank that ends a right-to-left line hangs at its left edge.
        let mut x = if right_to_left { start - hanging } else { start };
        for run in line.runs() {
            x = self.run(&run, x, number);
        }
        width
    }

    /// Places one run from `x`; answers where it ends.
    fn run(&mut self, run: &Run<'_, ()>, mut x: f64, line: usize) -> f64 {
        let font = run.font();
        let Ok(outlines) = FontRef::from_index(font.data.as_ref(), font.index).map(|font| font.outline_glyphs()) else {
            return x + f64::from(run.advance());
        };
        let coords: Vec<NormalizedCoord> =
            run.normalized_coords().iter().map(|coord| NormalizedCoord::from_bits(coord.to_bits())).collect();
        let settings = || DrawSettings::unhinted(Size::new(self.style.size as f32), LocationRef::new(&coords));
        let baseline = line as f64 * self.style.line_height;
        let mut ligature = LigatureWidth::default();
        for cluster in run.visual_clusters() {
            let back = ligature.passed(&cluster);
            let mut pen = Pen::default();
            let mut glyph_x = x - back;
            for glyph in cluster.glyphs() {
                pen.origin = [glyph_x + f64::from(glyph.x), baseline + f64::from(glyph.y)];
                if let Some(outline) = outlines.get(GlyphId::new(glyph.id)) {
                    // A glyph whose outline is broken is left out by the font library; nothing else can be drawn.
                    let _ = outline.draw(settings(), &mut pen);
                    pen.finish();
                }
                self.note_missing(&cluster, glyph.id);
                glyph_x += f64::from(glyph.advance);
            }
            let advance = f64::from(cluster.advance());
            if !pen.contours.is_empty() {
                self.add(cluster.text_range().start, line, baseline, pen.contours, (x - back, x + advance));
            }
            x += advance;
        }
        x
    }

    fn note_missing(&mut self, cluster: &Cluster<'_, ()>, glyph: u32) {
        let characters = &self.text[cluster.text_range()];
        if glyph == 0 && self.missing.is_none() && !characters.chars().all(is_invisible) {
            self.missing = Some(characters.to_owned());
        }
    }

    fn add(&mut self, at: usize, line: usize, baseline: f64, contours: Vec<Contour>, (left, right): (f64, f64)) {
        let word = self.words.partition_point(|start| *start <= at).saturating_sub(1);
        let start = match self.split {
            Split::Letters => at,
            Split::Words => self.words.get(word).copied().unwrap_or(0),
            Split::Lines | Split::Whole => 0,
        };
        let same = |unit: &&mut Unit| self.split == Split::Whole || (unit.start == start && unit.line == line);
        match self.units.iter_mut().rev().find(same) {
            Some(unit) => {
                unit.contours.extend(contours);
                unit.left = unit.left.min(left);
                unit.right = unit.right.max(right);
            }
            None => self.units.push(Unit { contours, left, right, baseline, word, line, start }),
        }
    }
}

/// A ligature (lam-alef) spans several clusters. Its glyphs hang on the logically first one, which a
/// right-to-left run shows last: they are drawn back from there, by the width of those already passed.
#[derive(Default)]
struct LigatureWidth(f64);

impl LigatureWidth {
    fn passed(&mut self, cluster: &Cluster<'_, ()>) -> f64 {
        if !cluster.is_rtl() {
            return 0.0;
        }
        if cluster.is_ligature_continuation() {
            self.0 += f64::from(cluster.advance());
            return self.0;
        }
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fonts::tests::vazirmatn, *};

    fn style() -> TextStyle {
        let font = FontChoice { family: "Vazirmatn".into(), weight: 400.0, italic: false, ascent: 0.75 };
        TextStyle { font, size: 100.0, line_height: 120.0, letter_spacing: 0.0, justify: Justify::Left, wrap: None }
    }

    fn shaped(text: &str, split: Split) -> Shaped {
        vazirmatn().shape(text, &style(), split).expect("covered")
    }

    #[test]
    fn joined_letters_differ_from_isolated_ones() {
        let joined = shaped("ببب", Split::Whole);
        let isolated = shaped("ب\u{200c}ب\u{200c}ب", Split::Whole);
        assert!(joined.width < isolated.width * 0.8, "{} and {}", joined.width, isolated.width);
    }

    #[test]
    fn lam_alef_is_one_ligature_in_its_place() {
        // Torn apart, the word would be wider than its advance or leave its left edge.
        let word = shaped("سلام", Split::Words);
        assert_eq!(word.units.len(), 1);
        let (left, right) = (word.units[0].left, word.units[0].right);
        assert!(left >= -0.5 && right <= word.width + 0.5, "{left} to {right} of {}", word.width);
        let xs = word.units[0].contours.iter().flat_map(|c| {
            let path = c.path([0.0; 2]);
            path["ks"]["k"]["v"].as_array().unwrap().iter().map(|p| p[0].as_f64().unwrap()).collect::<Vec<_>>()
        });
        let (low, high) = xs.fold((f64::MAX, f64::MIN), |(low, high), x| (low.min(x), high.max(x)));
        assert!(low >= -8.0 && high <= word.width + 8.0, "{low} to {high} of {}", word.width);
    }

    #[test]
    fn a_persian_line_runs_from_the_right() {
        let line = shaped("سلام دنیا", Split::Words);
        assert!(line.right_to_left);
        assert!(line.units[0].left > line.units[1].right - 1.0, "the first word stands at the right");
    }

    #[test]
    fn a_joined_script_is_never_cut_into_letters() {
        assert_eq!(shaped("سلام دنیا", Split::Letters).units.len(), 2);
        assert_eq!(shaped("ab cd", Split::Letters).units.len(), 4);
    }

    #[test]
    fn units_know_their_word_and_line() {
        let places: Vec<_> = shaped("ab c\nd", Split::Letters).units.iter().map(|u| (u.word, u.line)).collect();
        assert_eq!(places, [(0, 0), (0, 0), (1, 0), (2, 1)]);
    }

    #[test]
    fn a_box_breaks_lines_at_its_width() {
        let style = TextStyle { wrap: Some(300.0), ..style() };
        let text = vazirmatn().shape("one two three four", &style, Split::Lines).expect("covered");
        assert!(text.units.len() >= 2 && text.width <= 300.0, "{} lines, {}", text.units.len(), text.width);
    }

    #[test]
    fn the_blank_at_a_right_to_left_line_s_end_takes_no_room() {
        let right = TextStyle { justify: Justify::Right, wrap: Some(500.0), ..style() };
        let edge = |text: &str| vazirmatn().shape(text, &right, Split::Whole).expect("covered").units[0].right;
        assert!((edge("سلام") - edge("سلام   ")).abs() < 0.5);
    }

    #[test]
    fn a_character_without_a_glyph_is_named() {
        let missing = |text: &str| vazirmatn().shape(text, &style(), Split::Whole).expect_err("missing").0;
        assert_eq!((missing("Hi 🙂"), missing("漢字")), ('🙂', '漢'));
    }

    #[test]
    fn blanks_and_joiners_need_no_glyph() {
        assert!(vazirmatn().shape("a\u{200c}b\u{200f} \u{a0}\n\t\u{feff}م\u{200d}", &style(), Split::Whole).is_ok());
    }

    #[test]
    fn letters_are_kerned() {
        let apart: f64 = ["A", "V"].iter().map(|letter| shaped(letter, Split::Whole).width).sum();
        assert!(shaped("AV", Split::Whole).width < apart - 1.0);
    }
}
