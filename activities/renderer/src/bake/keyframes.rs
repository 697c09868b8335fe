//! Values over time, as the rasteriser's parser must find them: each keyframe with its own value, in order.

use serde_json::{Value, json};

use super::strict::{Written, Wrong, at, flag, number, numbers, wrong};
use crate::lottie;

/// A property: `k` is a value, or keyframes.
pub(super) fn over_time(value: &Value, write: impl Fn(&Value) -> Written) -> Written {
    // Effects may write a bare value for a property that does not change.
    let content = if value.is_object() { value.get("k").unwrap_or(&Value::Null) } else { value };
    let written = match content.as_array() {
        Some(keys) if keys.first().is_some_and(|key| key.is_object() && key.get("t").is_some()) => {
            keyframes(keys, &write)
        }
        _ => write(content),
    };
    Ok(json!({"k": at(".k", written)?}))
}

fn keyframes(keys: &[Value], write: &impl Fn(&Value) -> Written) -> Written {
    let mut written: Vec<Value> = vec![];
    let (mut before, mut ended) = (f64::MIN, None);
    for (n, key) in keys.iter().enumerate() {
        let (time, frame, end) = at(format!("[{n}]"), keyframe(key, ended.take(), write))?;
        if time < before {
            return at(format!("[{n}]"), wrong("comes before the keyframe in front of it"));
        }
        // Two keyframes at one time are a leap, and the second one stays.
        if time == before {
            written.pop();
        }
        (before, ended) = (time, end);
        written.push(frame);
    }
    Ok(written.into())
}

/// A keyframe's time, the keyframe, and where its leg ends if it says so itself, as older exports do.
fn keyframe(
    key: &Value,
    ended: Option<Value>,
    write: &impl Fn(&Value) -> Written,
) -> Result<(f64, Value, Option<Value>), Wrong> {
    let time = at(".t", number(key.get("t").unwrap_or(&Value::Null)))?;
    let value =
        |name: &str| key.get(name).filter(|value| !value.is_null()).map(|value| at(format!(".{name}"), write(value)));
    let start = match (value("s").transpose()?, ended) {
        (Some(start), _) | (None, Some(start)) => start,
        (None, None) => return wrong("has no value"),
    };
    let end = value("e").transpose()?;
    // The rasteriser wants a keyframe's path in a list, and its numbers as well.
    let start = if start.is_array() { start } else { json!([start]) };
    let mut frame = json!({"t": time, "s": start});
    if let Some((out, into)) = handles(key) {
        lottie::set(&mut frame, "o", out);
        lottie::set(&mut frame, "i", into);
    }
    if key.get("h").is_some_and(|hold| flag(hold).is_ok_and(|hold| hold == true)) {
        lottie::set(&mut frame, "h", 1.into());
    }
    for tangent in ["to", "ti"] {
        if let Some(Ok(numbers)) = key.get(tangent).map(|value| numbers(value, 2)) {
            lottie::set(&mut frame, tangent, numbers);
        }
    }
    Ok((time, frame, end))
}

/// A leg's two handles, if it has both; their times stay within the leg.
fn handles(key: &Value) -> Option<(Value, Value)> {
    let handle = |name: &str| {
        let axis = |axis: &str| numbers(key.get(name)?.get(axis)?, 1).ok()?.as_f64();
        Some(json!({"x": axis("x")?.clamp(0.0, 1.0), "y": axis("y")?.clamp(-100.0, 100.0)}))
    };
    Some((handle("o")?, handle("i")?))
}
