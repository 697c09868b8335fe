//! The value of an animated Lottie property at a time; what text animators need of it.

use serde_json::Value;

/// A property's numbers at frame `time`; empty when it holds none.
pub(crate) fn at(property: &Value, time: f64) -> Vec<f64> {
    let value = property.get("k").unwrap_or(&Value::Null);
    match value.as_array() {
        Some(keys) if keys.first().is_some_and(Value::is_object) => between_keys(keys, time),
        _ => numbers(value),
    }
}

/// The first number at frame `time`; `default` when the property is absent.
pub(crate) fn scalar_at(property: Option<&Value>, time: f64, default: f64) -> f64 {
    property.and_then(|property| at(property, time).first().copied()).unwrap_or(default)
}

fn between_keys(keys: &[Value], time: f64) -> Vec<f64> {
    let start = |key: &Value| key.get("t").and_then(Value::as_f64).unwrap_or(0.0);
    let next = keys.partition_point(|key| start(key) <= time);
    if next == 0 {
        return value_of(&keys[0]);
    }
    let Some(to) = keys.get(next) else { return last_value(keys) };
    let from = &keys[next - 1];
    let a = value_of(from);
    if from.get("h").and_then(Value::as_f64) == Some(1.0) {
        return a;
    }
    let b = ends_at(from).unwrap_or_else(|| value_of(to));
    let progress = (time - start(from)) / (start(to) - start(from));
    let eased = |(dimension, value): (usize, &f64)| {
        let end = b.get(dimension).copied().unwrap_or(*value);
        value + (end - value) * ease(from, progress, dimension)
    };
    a.iter().enumerate().map(eased).collect()
}

fn value_of(key: &Value) -> Vec<f64> {
    numbers(key.get("s").unwrap_or(&Value::Null))
}

/// Older exports write a leg's end into its first key.
fn ends_at(key: &Value) -> Option<Vec<f64>> {
    key.get("e").map(numbers).filter(|numbers| !numbers.is_empty())
}

fn last_value(keys: &[Value]) -> Vec<f64> {
    let last = keys.last().map(value_of).unwrap_or_default();
    match keys {
        [.., before, _] if last.is_empty() => ends_at(before).unwrap_or_default(),
        _ => last,
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().map(|item| item.as_f64().unwrap_or(0.0)).collect(),
        Value::Number(number) => vec![number.as_f64().unwrap_or(0.0)],
        _ => vec![],
    }
}

/// How far a leg has come at `progress` of its time, by the handles of its first key.
fn ease(key: &Value, progress: f64, dimension: usize) -> f64 {
    let (Some(out), Some(into)) = (key.get("o"), key.get("i")) else { return progress };
    let handle = |tangent: &Value, axis: &str, default: f64| match tangent.get(axis) {
        Some(Value::Array(items)) => items.get(dimension).or(items.last()).and_then(Value::as_f64).unwrap_or(default),
        Some(number) => number.as_f64().unwrap_or(default),
        None => default,
    };
    let first = (handle(out, "x", 0.0), handle(out, "y", 0.0));
    let second = (handle(into, "x", 1.0), handle(into, "y", 1.0));
    cubic(progress, first, second)
}

/// The y at `x` of the cubic from (0,0) to (1,1) with handles `first` and `second`.
fn cubic(x: f64, first: (f64, f64), second: (f64, f64)) -> f64 {
    let bezier = |t: f64, a: f64, b: f64| {
        let u = 1.0 - t;
        3.0 * u * u * t * a + 3.0 * u * t * t * b + t * t * t
    };
    let (mut low, mut high) = (0.0, 1.0);
    // Forty halvings leave an error below 1e-12; x rises with t because handles lie between 0 and 1 there.
    for _ in 0..40 {
        let middle = (low + high) / 2.0;
        if bezier(middle, first.0, second.0) < x {
            low = middle;
        } else {
            high = middle;
        }
    }
    bezier((low + high) / 2.0, first.1, second.1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_leg_without_handles_is_straight() {
        let property = json!({"a": 1, "k": [{"t": 0, "s": [0, 100]}, {"t": 10, "s": [10, 0]}]});
        assert_eq!(at(&property, 5.0), [5.0, 50.0]);
        assert_eq!(at(&property, -1.0), [0.0, 100.0]);
        assert_eq!(at(&property, 99.0), [10.0, 0.0]);
    }

    #[test]
    fn a_hold_keeps_its_value_until_the_next_key() {
        let property = json!({"a": 1, "k": [{"t": 0, "s": [1], "h": 1}, {"t": 10, "s": [2]}]});
        assert_eq!((at(&property, 9.9), at(&property, 10.0)), (vec![1.0], vec![2.0]));
    }

    #[test]
    fn handles_bend_a_leg_as_css_does() {
        // cubic-bezier(0.42, 0, 0.58, 1) at a quarter of the time: 0.1292 (CSS easing "ease-in-out").
        let key = json!({"o": {"x": [0.42], "y": [0]}, "i": {"x": 0.58, "y": 1}});
        assert!((ease(&key, 0.25, 0) - 0.1292).abs() < 1e-3);
    }
}
