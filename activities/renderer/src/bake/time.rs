//! A change of pace: where a frame of the template stands in the film that is made of it.

use serde_json::Value;

/// Pairs of old and new times, both rising; straight between them, at the old pace outside them.
#[derive(Debug, Clone)]
pub(crate) struct TimeMap(Vec<(f64, f64)>);

/// A stretch of time, in frames; the end is not part of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Span {
    pub(crate) start: f64,
    pub(crate) end: f64,
}

impl Span {
    pub(crate) fn length(self) -> f64 {
        self.end - self.start
    }
}

impl TimeMap {
    /// Keeps the pace at both edges, where entrances and exits are, and stretches what lies between.
    pub(crate) fn keeping_edges(old: Span, new: Span) -> Self {
        let edge = old.length().min(new.length()) / 3.0;
        Self(vec![
            (old.start, new.start),
            (old.start + edge, new.start + edge),
            (old.end - edge, new.end - edge),
            (old.end, new.end),
        ])
    }

    /// Keeps the pace outside `stretch` and changes it inside; all of it when there is no stretch, or when
    /// what lies outside the stretch alone is longer than the new span.
    pub(crate) fn stretching(old: Span, new: Span, stretch: Option<Span>) -> Self {
        let more = new.length() - old.length();
        match stretch {
            Some(part) if part.length() + more >= 1.0 => {
                let by = new.start - old.start;
                Self(vec![
                    (old.start, new.start),
                    (part.start, part.start + by),
                    (part.end, part.end + by + more),
                    (old.end, new.end),
                ])
            }
            _ => Self(vec![(old.start, new.start), (old.end, new.end)]),
        }
    }

    /// The new time of old time `time`.
    pub(crate) fn map(&self, time: f64) -> f64 {
        let next = self.0.partition_point(|(old, _)| *old <= time);
        match (next.checked_sub(1).and_then(|n| self.0.get(n)), self.0.get(next)) {
            (Some(a), Some(b)) => a.1 + (time - a.0) * (b.1 - a.1) / (b.0 - a.0),
            (Some(a), None) => time + a.1 - a.0,
            (None, Some(b)) => time + b.1 - b.0,
            (None, None) => time,
        }
    }

    /// Its turning points, without doubles.
    pub(crate) fn points(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        let mut last = None;
        self.0.iter().copied().filter(move |point| last.replace(point.1).is_none_or(|before| point.1 > before))
    }

    /// Moves every keyframe under `value`.
    pub(crate) fn move_keys(&self, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.move_keys(item)),
            Value::Object(entries) => {
                for key in entries.get_mut("k").and_then(Value::as_array_mut).into_iter().flatten() {
                    if let Some(time) = key.get("t").and_then(Value::as_f64) {
                        crate::lottie::set(key, "t", self.map(time).into());
                    }
                }
                entries.values_mut().for_each(|entry| self.move_keys(entry));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: f64, end: f64) -> Span {
        Span { start, end }
    }

    #[test]
    fn only_the_marked_stretch_changes_its_pace() {
        let map = TimeMap::stretching(span(100.0, 200.0), span(0.0, 160.0), Some(span(140.0, 160.0)));
        assert_eq!([100.0, 140.0, 150.0, 160.0, 200.0].map(|t| map.map(t)), [0.0, 40.0, 80.0, 120.0, 160.0]);
    }

    #[test]
    fn a_scene_too_short_for_its_fixed_parts_is_hurried_as_a_whole() {
        let map = TimeMap::stretching(span(0.0, 100.0), span(0.0, 50.0), Some(span(40.0, 60.0)));
        assert_eq!(map.map(40.0), 20.0);
    }

    #[test]
    fn entrances_and_exits_keep_their_pace() {
        let map = TimeMap::keeping_edges(span(0.0, 90.0), span(10.0, 190.0));
        assert_eq!([0.0, 15.0, 75.0, 90.0].map(|t| map.map(t)), [10.0, 25.0, 175.0, 190.0]);
        let unchanged = TimeMap::keeping_edges(span(0.0, 90.0), span(10.0, 100.0));
        assert_eq!(unchanged.map(45.0), 55.0);
    }
}
