//! Text animators, evaluated at every frame and written down as plain keyframes of each unit.

use serde_json::{Value, json};

use super::{
    selector::{self, Basis},
    shape::{Shaped, Split, Unit},
};
use crate::{bake::linear_key, lottie, property};

/// What an animator may change here; anything else gets a warning.
const KNOWN: [&str; 5] = ["p", "s", "r", "o", "fc"];

/// The animators of one text layer.
pub(crate) struct Animators<'a>(&'a [Value]);

/// Where a unit is counted: its own number, its word's and its line's, each with their total.
pub(crate) struct Place {
    unit: (usize, usize),
    word: (usize, usize),
    line: (usize, usize),
}

/// A unit's transform and fill colour over time, as Lottie properties.
pub(crate) struct Tracks {
    pub(crate) transform: Value,
    pub(crate) fill: Value,
}

/// One frame of a unit: position, scale in percent, rotation in degrees, opacity in percent, colour.
#[derive(Clone, Copy)]
struct State {
    numbers: [f64; 9],
}

const POSITION: &[usize] = &[0, 1];
const SCALE: &[usize] = &[2, 3];
const ROTATION: &[usize] = &[4];
const OPACITY: &[usize] = &[5];
const COLOR: &[usize] = &[6, 7, 8];

impl<'a> Animators<'a> {
    pub(crate) fn of(layer: &'a Value) -> Self {
        Self(layer.get("t").map_or(&[], |text| lottie::list(text, "a")))
    }

    /// The finest cut that any of them needs.
    pub(crate) fn split(&self) -> Split {
        let split = |animator: &Value| match Basis::of(selector_of(animator)) {
            Basis::Letters => Split::Letters,
            Basis::Words => Split::Words,
            Basis::Lines => Split::Lines,
        };
        self.0.iter().map(split).max().unwrap_or(Split::Whole)
    }

    /// What they ask for that is not drawn.
    pub(crate) fn unsupported(&self) -> Vec<&'static str> {
        let mut found = vec![];
        for animator in self.0 {
            let selector = selector_of(animator);
            if lottie::number_or(selector, "t", 0.0) != 0.0 {
                found.push("an expression selector");
            }
            if lottie::number_or(selector, "rn", 0.0) != 0.0 {
                found.push("a random order");
            }
            let style = animator.get("a").and_then(Value::as_object);
            if style.is_some_and(|style| style.iter().any(|(k, v)| v.is_object() && !KNOWN.contains(&k.as_str()))) {
                found.push("an animated property other than position, scale, rotation, opacity and fill");
            }
        }
        found.dedup();
        found
    }

    /// A unit's tracks over frames `first..=last`, moving about `anchor`, filled with `fill` at rest.
    pub(crate) fn tracks(&self, place: &Place, anchor: [f64; 2], fill: [f64; 3], (first, last): (i64, i64)) -> Tracks {
        let times: Vec<f64> = match self.0 {
            [] => vec![first as f64],
            _ => (first..=last).map(|frame| frame as f64).collect(),
        };
        let states: Vec<State> = times.iter().map(|time| self.state(place, anchor, fill, *time)).collect();
        let track = |dimensions| track(&times, &states, dimensions);
        Tracks {
            transform: json!({"ty": "tr", "a": {"a": 0, "k": anchor}, "p": track(POSITION), "s": track(SCALE),
                "r": track(ROTATION), "o": track(OPACITY)}),
            fill: track(COLOR),
        }
    }

    fn state(&self, place: &Place, anchor: [f64; 2], fill: [f64; 3], time: f64) -> State {
        let mut numbers = [anchor[0], anchor[1], 100.0, 100.0, 0.0, 100.0, fill[0], fill[1], fill[2]];
        for animator in self.0 {
            let selector = selector_of(animator);
            let (index, count) = place.by(Basis::of(selector));
            let share = selector::share(selector, time, index, count);
            if share == 0.0 {
                continue;
            }
            let target = |key: &str| animator.get("a").and_then(|style| style.get(key)).map(|p| property::at(p, time));
            let factor = |percent: f64| 1.0 + (percent / 100.0 - 1.0) * share;
            for (key, dimensions) in [("p", POSITION), ("s", SCALE), ("r", ROTATION), ("o", OPACITY), ("fc", COLOR)] {
                for (dimension, value) in dimensions.iter().zip(target(key).unwrap_or_default()) {
                    let number = &mut numbers[*dimension];
                    match key {
                        "p" | "r" => *number += value * share,
                        "s" | "o" => *number *= factor(value),
                        _ => *number += (value - *number) * share,
                    }
                }
            }
        }
        State { numbers }
    }
}

fn selector_of(animator: &Value) -> &Value {
    animator.get("s").unwrap_or(&Value::Null)
}

impl Place {
    /// Each unit's place in its text.
    pub(crate) fn of(text: &Shaped) -> Vec<Self> {
        let total = |number: fn(&Unit) -> usize| text.units.iter().map(number).max().unwrap_or(0) + 1;
        let (words, lines) = (total(|unit| unit.word), total(|unit| unit.line));
        let place = |(index, unit): (usize, &Unit)| Self {
            unit: (index, text.units.len()),
            word: (unit.word, words),
            line: (unit.line, lines),
        };
        text.units.iter().enumerate().map(place).collect()
    }

    fn by(&self, basis: Basis) -> (usize, usize) {
        match basis {
            Basis::Letters => self.unit,
            Basis::Words => self.word,
            Basis::Lines => self.line,
        }
    }
}

/// The values as a property: constant if they never change, else keyframes with straight legs, as few as
/// keep within half a visible step of every frame.
fn track(times: &[f64], states: &[State], dimensions: &[usize]) -> Value {
    let value = |frame: usize| -> Vec<f64> {
        dimensions.iter().map(|d| (states[frame].numbers[*d] * 1000.0).round() / 1000.0).collect()
    };
    let step = if dimensions == COLOR { 0.004 } else { 0.02 };
    let near = |frame: usize, from: usize, to: usize| {
        let part = (frame - from) as f64 / (to - from) as f64;
        dimensions.iter().all(|d| {
            let (a, b) = (states[from].numbers[*d], states[to].numbers[*d]);
            (a + (b - a) * part - states[frame].numbers[*d]).abs() < step
        })
    };
    let mut kept = vec![0];
    for frame in 2..states.len() {
        let from = kept[kept.len() - 1];
        if (from + 1..frame).any(|between| !near(between, from, frame)) {
            kept.push(frame - 1);
        }
    }
    if states.len() > 1 {
        kept.push(states.len() - 1);
    }
    if kept.iter().all(|frame| value(*frame) == value(0)) {
        let first = value(0);
        return lottie::constant(if first.len() == 1 { json!(first[0]) } else { json!(first) });
    }
    let keys: Vec<Value> = kept.into_iter().map(|frame| linear_key(times[frame], &value(frame))).collect();
    json!({"a": 1, "k": keys})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fading() -> Value {
        json!({"t": {"a": [{
            "s": {"t": 0, "b": 3, "sh": 2, "r": 1, "s": {"k": 0}, "e": {"k": 100},
                  "o": {"a": 1, "k": [{"t": 10, "s": [-100]}, {"t": 20, "s": [100]}]}},
            "a": {"o": {"a": 0, "k": 0}, "p": {"a": 0, "k": [0, 50, 0]}}}]}})
    }

    fn place(index: usize) -> Place {
        Place { unit: (index, 2), word: (index, 2), line: (0, 1) }
    }

    #[test]
    fn each_word_comes_in_after_the_one_before() {
        let layer = fading();
        let animators = Animators::of(&layer);
        let opacity = |word: usize, time: f64| {
            let tracks = animators.tracks(&place(word), [0.0; 2], [0.0; 3], (0, 30));
            property::scalar_at(tracks.transform.get("o"), time, -1.0).round()
        };
        assert_eq!((opacity(0, 0.0), opacity(0, 30.0)), (0.0, 100.0));
        assert!(opacity(0, 16.0) > opacity(1, 16.0));
    }

    #[test]
    fn a_unit_that_never_changes_has_no_keyframes() {
        let tracks = Animators(&[]).tracks(&place(0), [3.0, 4.0], [1.0; 3], (0, 30));
        assert_eq!(tracks.transform["p"], json!({"a": 0, "k": [3.0, 4.0]}));
        assert_eq!(tracks.fill, json!({"a": 0, "k": [1.0, 1.0, 1.0]}));
    }

    #[test]
    fn the_finest_animator_decides_the_cut() {
        assert_eq!(Animators::of(&fading()).split(), Split::Words);
        assert_eq!(Animators(&[json!({"s": {"b": 3}}), json!({"s": {"b": 1}})]).split(), Split::Letters);
        assert_eq!(Animators(&[]).split(), Split::Whole);
    }
}
