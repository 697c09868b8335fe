//! How much of a text animator one unit takes at a time: After Effects' range selector.
//!
//! The shapes are those of the Lottie format ("Text Range Selector", lottie.github.io), as players draw them.

use std::f64::consts::PI;

use serde_json::Value;

use crate::property::scalar_at;

/// What a selector counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Basis {
    Letters,
    Words,
    Lines,
}

impl Basis {
    pub(crate) fn of(selector: &Value) -> Self {
        match selector.get("b").and_then(Value::as_i64) {
            Some(3) => Self::Words,
            Some(4) => Self::Lines,
            _ => Self::Letters,
        }
    }
}

/// The share, usually 0 to 1, of unit `index` of `count` at frame `time`.
pub(crate) fn share(selector: &Value, time: f64, index: usize, count: usize) -> f64 {
    let count = count.max(1) as f64;
    let by_index = selector.get("r").and_then(Value::as_i64) == Some(2);
    let unit = if by_index { 1.0 } else { 100.0 / count };
    let value = |key: &str, default: f64| scalar_at(selector.get(key), time, default);
    let offset = value("o", 0.0) / unit;
    let start = value("s", 0.0) / unit + offset;
    let end = value("e", if by_index { count } else { 100.0 }) / unit + offset;
    let range = Range { start: start.min(end), end: start.max(end), at: index as f64 };
    let share = match selector.get("sh").and_then(Value::as_i64) {
        Some(2) => range.ramp(),
        Some(3) => 1.0 - range.ramp(),
        Some(4) => range.triangle(),
        Some(5) => range.round(),
        Some(6) => range.smooth(),
        _ => range.square(),
    };
    share * value("a", 100.0) / 100.0
}

/// A selection in units, and the unit that asks.
struct Range {
    start: f64,
    end: f64,
    at: f64,
}

impl Range {
    fn length(&self) -> f64 {
        self.end - self.start
    }

    fn square(&self) -> f64 {
        if self.at < self.start.floor() {
            0.0
        } else if self.at < self.start {
            (self.end.min(1.0) - (self.start - self.at)).clamp(0.0, 1.0)
        } else {
            (self.end - self.at).clamp(0.0, 1.0)
        }
    }

    fn ramp(&self) -> f64 {
        if self.length() == 0.0 {
            return if self.at >= self.end { 1.0 } else { 0.0 };
        }
        ((0.5 + self.at - self.start) / self.length()).clamp(0.0, 1.0)
    }

    fn triangle(&self) -> f64 {
        match self.ramp() {
            _ if self.length() == 0.0 => 0.0,
            ramp if ramp < 0.5 => ramp * 2.0,
            ramp => 2.0 - ramp * 2.0,
        }
    }

    fn round(&self) -> f64 {
        if self.length() == 0.0 {
            return 0.0;
        }
        let half = self.length() / 2.0;
        let from_middle = self.inside() - half;
        (1.0 - (from_middle / half).powi(2)).max(0.0).sqrt()
    }

    fn smooth(&self) -> f64 {
        if self.length() == 0.0 {
            return 0.0;
        }
        (1.0 + (PI + 2.0 * PI * self.inside() / self.length()).cos()) / 2.0
    }

    /// How far into the selection the unit's middle is.
    fn inside(&self) -> f64 {
        (self.at + 0.5 - self.start).clamp(0.0, self.length())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shares(selector: &Value, time: f64) -> Vec<f64> {
        (0..4).map(|index| (share(selector, time, index, 4) * 100.0).round() / 100.0).collect()
    }

    #[test]
    fn a_square_takes_whole_units_and_parts_of_them() {
        let half = json!({"sh": 1, "r": 1, "s": {"k": 0}, "e": {"k": 50}, "a": {"k": 100}});
        assert_eq!(shares(&half, 0.0), [1.0, 1.0, 0.0, 0.0]);
        let by_index = json!({"sh": 1, "r": 2, "s": {"k": 1}, "e": {"k": 2.5}});
        assert_eq!(shares(&by_index, 0.0), [0.0, 1.0, 0.5, 0.0]);
    }

    #[test]
    fn a_ramp_runs_over_the_units_with_its_offset() {
        let offset = json!({"a": 1, "k": [{"t": 0, "s": [-100]}, {"t": 10, "s": [100]}]});
        let ramp = json!({"sh": 2, "r": 1, "s": {"k": 0}, "e": {"k": 100}, "o": offset});
        assert_eq!(shares(&ramp, 0.0), [1.0, 1.0, 1.0, 1.0]);
        assert_eq!(shares(&ramp, 5.0), [0.13, 0.38, 0.63, 0.88]);
        assert_eq!(shares(&ramp, 10.0), [0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn a_triangle_a_circle_and_a_wave_peak_in_the_middle() {
        for shape in [4, 5, 6] {
            let shares = shares(&json!({"sh": shape, "r": 1, "s": {"k": 0}, "e": {"k": 100}}), 0.0);
            assert!(shares[1] > shares[0] && shares[1] == shares[2], "{shape}: {shares:?}");
        }
    }
}
