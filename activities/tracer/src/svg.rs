//! Shapes of a picture, written as SVG.

use crate::palette::{Palette, is_seen};
use image::RgbaImage;
use std::fmt::Write as _;
use visioncortex::{
    Color, ColorImage, CompoundPath, CompoundPathElement, PathSimplifyMode,
    color_clusters::{HIERARCHICAL_MAX, KeyingAction, Runner, RunnerConfig},
};

/// Shapes of fewer pixels become part of what is around them.
const LEAST_AREA: usize = 12;
/// A turn that is sharper is a corner, in radians; what is flatter is a curve.
const CORNER: f64 = 60.0 * std::f64::consts::PI / 180.0;
/// Curves are cut where they turn by this much, in radians.
const SPLICE: f64 = 45.0 * std::f64::consts::PI / 180.0;
/// Pieces of an outline are made no shorter, in pixels.
const SEGMENT: f64 = 4.0;
/// Times an outline is made smoother.
const SMOOTHINGS: usize = 10;

/// The picture in the colours of its palette, shapes above shapes, the largest first.
pub(crate) fn write(pixels: &RgbaImage, palette: &Palette) -> String {
    let (width, height) = pixels.dimensions();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\">"
    );
    for (slot, path) in shapes(pixels, palette) {
        let (color, n) = (palette.color(slot), slot + 1);
        // Writing to a string cannot fail.
        let _ = write!(svg, "<path fill=\"{color}\" style=\"fill:var(--slot-{n},{color})\" d=\"{path}\"/>");
    }
    svg.push_str("</svg>");
    svg
}

/// Path data by slot, in the order to paint them; neighbours of one slot are one path.
fn shapes(pixels: &RgbaImage, palette: &Palette) -> Vec<(usize, String)> {
    let clusters = Runner::new(config(pixels, palette), reduced(pixels, palette)).run();
    let view = clusters.view();
    let mut shapes: Vec<(usize, String)> = Vec::new();
    for index in view.clusters_output.iter().rev() {
        let cluster = view.get_cluster(*index);
        let [r, g, b] = cluster.residue_color().rgb_u8();
        let slot = palette.nearest([r, g, b]);
        let outline =
            cluster.to_compound_path(&view, false, PathSimplifyMode::Spline, CORNER, SEGMENT, SMOOTHINGS, SPLICE);
        let path = data(&outline);
        match shapes.last_mut() {
            Some((last, paths)) if *last == slot => paths.push_str(&path),
            _ => shapes.push((slot, path)),
        }
    }
    shapes.retain(|(_, path)| !path.is_empty());
    shapes
}

fn config(pixels: &RgbaImage, palette: &Palette) -> RunnerConfig {
    let [r, g, b] = palette.absent().0;
    RunnerConfig {
        diagonal: false,
        hierarchical: HIERARCHICAL_MAX,
        good_min_area: LEAST_AREA,
        good_max_area: pixels.len(),
        // Every colour is one of the palette: what is not the same is another.
        is_same_color_a: 0,
        is_same_color_b: 0,
        deepen_diff: 1,
        key_color: Color::new(r, g, b),
        keying_action: KeyingAction::Discard,
        ..RunnerConfig::default()
    }
}

/// Every pixel in the colour of its slot; what is not seen, in the one that is in no slot.
fn reduced(pixels: &RgbaImage, palette: &Palette) -> ColorImage {
    let absent = palette.absent();
    let reduce = |pixel: &image::Rgba<u8>| {
        let [r, g, b, alpha] = pixel.0;
        let [r, g, b] = if is_seen(alpha) { palette.color(palette.nearest([r, g, b])).0 } else { absent.0 };
        [r, g, b, 255]
    };
    ColorImage {
        pixels: pixels.pixels().flat_map(reduce).collect(),
        width: pixels.width() as usize,
        height: pixels.height() as usize,
    }
}

/// Curves as path data, in tenths of a pixel.
fn data(outline: &CompoundPath) -> String {
    let mut data = String::new();
    for element in outline.iter() {
        let CompoundPathElement::Spline(curves) = element else { continue };
        let Some((start, rest)) = curves.points.split_first().filter(|(_, rest)| rest.len() >= 3) else { continue };
        // Writing to a string cannot fail.
        let _ = write!(data, "M{} {}", tenths(start.x), tenths(start.y));
        for curve in rest.chunks_exact(3) {
            for (letter, point) in ["C", " ", " "].into_iter().zip(curve) {
                let _ = write!(data, "{letter}{} {}", tenths(point.x), tenths(point.y));
            }
        }
        data.push('Z');
    }
    data
}

fn tenths(number: f64) -> f64 {
    // Adding nothing makes of minus nothing nothing.
    (number * 10.0).round() / 10.0 + 0.0
}
