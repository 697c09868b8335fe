//! Glyph outlines as Lottie paths.

use serde_json::{Value, json};
use skrifa::outline::OutlinePen;

type Point = [f64; 2];

/// One closed contour: its points, and each point's two handles relative to it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Contour {
    points: Vec<Point>,
    handles_in: Vec<Point>,
    handles_out: Vec<Point>,
}

impl Contour {
    /// A Lottie path item, moved by `offset`.
    pub(crate) fn path(&self, offset: Point) -> Value {
        // A hundredth of a pixel is finer than anything the rasteriser tells apart.
        let round = |number: f64| (number * 100.0).round() / 100.0;
        let list = |points: &[Point], by: Point| -> Vec<Point> {
            points.iter().map(|p| [round(p[0] + by[0]), round(p[1] + by[1])]).collect()
        };
        json!({"ty": "sh", "ks": {"a": 0, "k": {
            "c": true,
            "v": list(&self.points, offset),
            "i": list(&self.handles_in, [0.0; 2]),
            "o": list(&self.handles_out, [0.0; 2]),
        }}})
    }

    fn push(&mut self, point: Point) {
        self.points.push(point);
        self.handles_in.push([0.0; 2]);
        self.handles_out.push([0.0; 2]);
    }

    fn cubic(&mut self, first: Point, second: Point, end: Point) {
        if let (Some(start), Some(out)) = (self.points.last(), self.handles_out.last_mut()) {
            *out = [first[0] - start[0], first[1] - start[1]];
        }
        self.push(end);
        if let Some(into) = self.handles_in.last_mut() {
            *into = [second[0] - end[0], second[1] - end[1]];
        }
    }

    /// Folds a last point that lies on the first one into it.
    fn closed(mut self) -> Self {
        if let ([first, .., last], Some(into)) = (&self.points[..], self.handles_in.last().copied())
            && (first[0] - last[0]).abs() < 1e-6
            && (first[1] - last[1]).abs() < 1e-6
        {
            self.handles_in[0] = into;
            self.points.pop();
            self.handles_in.pop();
            self.handles_out.pop();
        }
        self
    }
}

/// Collects the contours of glyphs drawn at `origin`; fonts count upwards, Lottie downwards.
#[derive(Debug, Default)]
pub(crate) struct Pen {
    pub(crate) origin: Point,
    pub(crate) contours: Vec<Contour>,
    current: Contour,
}

impl Pen {
    fn place(&self, x: f32, y: f32) -> Point {
        [self.origin[0] + f64::from(x), self.origin[1] - f64::from(y)]
    }

    /// Ends the contour under way, if there is one.
    pub(crate) fn finish(&mut self) {
        let contour = std::mem::take(&mut self.current);
        if contour.points.len() > 1 {
            self.contours.push(contour.closed());
        }
    }
}

impl OutlinePen for Pen {
    fn move_to(&mut self, x: f32, y: f32) {
        self.finish();
        let point = self.place(x, y);
        self.current.push(point);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let point = self.place(x, y);
        self.current.push(point);
    }

    fn quad_to(&mut self, cx: f32, cy: f32, x: f32, y: f32) {
        let (control, end) = (self.place(cx, cy), self.place(x, y));
        let start = self.current.points.last().copied().unwrap_or(end);
        // A quadratic curve is a cubic one whose handles go two thirds of the way to its control point.
        let toward = |from: Point| [0, 1].map(|axis| from[axis] + (control[axis] - from[axis]) * 2.0 / 3.0);
        self.current.cubic(toward(start), toward(end), end);
    }

    fn curve_to(&mut self, ax: f32, ay: f32, bx: f32, by: f32, x: f32, y: f32) {
        let (first, second, end) = (self.place(ax, ay), self.place(bx, by), self.place(x, y));
        self.current.cubic(first, second, end);
    }

    fn close(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contour_that_returns_to_its_start_has_no_double_point() {
        let mut pen = Pen { origin: [10.0, 10.0], ..Pen::default() };
        pen.move_to(0.0, 0.0);
        pen.line_to(3.0, 0.0);
        pen.quad_to(3.0, 3.0, 0.0, 3.0);
        pen.line_to(0.0, 0.0);
        pen.close();
        let path = pen.contours[0].path([1.0, 0.0]);
        assert_eq!(path["ks"]["k"]["v"], json!([[11.0, 10.0], [14.0, 10.0], [11.0, 7.0]]));
        assert_eq!(path["ks"]["k"]["o"][1], json!([0.0, -2.0]));
    }
}
