//! The last step before the rasteriser: the document written anew, with nothing in it but what the schema knows.
//!
//! The rasteriser's parser loops for ever over a null among keyframes and trusts counts and dimensions, so a
//! document never reaches it as it came. Unknown keys are dropped, nulls are absences, anything else that is not
//! as the schema says is an error that names its place.

use serde_json::{Map, Value, json};

use super::{keyframes::over_time, schema};
use crate::{RenderError, limits::bad, lottie};

/// Keys with what must stand there, in the order in which they are written.
pub(super) type Fields = &'static [(&'static str, Kind)];

/// What a key may hold.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Number,
    /// A whole number between two others, both included.
    Whole(i64, i64),
    /// True or false; 1 and 0 are as good.
    Flag,
    Text,
    /// One number over time.
    Scalar,
    /// Two numbers over time.
    Point,
    /// Three or more numbers over time.
    Colors,
    /// A point over time, or a scalar for each axis.
    Position,
    /// A path over time.
    Outline,
    Gradient,
    Dashes,
    Object(Fields),
    List(Fields),
    Layers,
    Shapes,
    Effects,
}

/// Farther from zero than this no number of a document means anything.
const NUMBER_LIMIT: f64 = 1e7;
/// Most points of one path, and most numbers of one gradient.
const LIST_LIMIT: usize = 20_000;
/// Most colours of a gradient.
const STOP_LIMIT: u64 = 64;

/// Writes the document anew.
pub(super) fn document(document: &Value) -> Result<Value, RenderError> {
    object(document, schema::DOCUMENT)
        .map_err(|Wrong { path, what }| bad(format!("{} {what}", path.trim_start_matches('.'))))
}

/// A value that is not as it must be; its path grows on the way out.
pub(super) struct Wrong {
    path: String,
    what: &'static str,
}

pub(super) type Written = Result<Value, Wrong>;

pub(super) fn wrong<T>(what: &'static str) -> Result<T, Wrong> {
    Err(Wrong { path: String::new(), what })
}

pub(super) fn at<T>(step: impl std::fmt::Display, result: Result<T, Wrong>) -> Result<T, Wrong> {
    result.map_err(|Wrong { path, what }| Wrong { path: format!("{step}{path}"), what })
}

fn write(value: &Value, kind: Kind) -> Written {
    match kind {
        Kind::Number => number(value).map(Value::from),
        Kind::Whole(low, high) => whole(value, low, high),
        Kind::Flag => flag(value),
        Kind::Text => value.as_str().map(Value::from).map_or_else(|| wrong("is not a text"), Ok),
        Kind::Scalar => over_time(value, |value| numbers(value, 1)),
        Kind::Point => over_time(value, |value| numbers(value, 2)),
        Kind::Colors => over_time(value, |value| numbers(value, 3)),
        Kind::Position => position(value),
        Kind::Outline => over_time(value, outline),
        Kind::Gradient => gradient(value),
        Kind::Dashes => dashes(value),
        Kind::Object(fields) => object(value, fields),
        Kind::List(fields) => each(value, |item| object(item, fields).map(Some)),
        Kind::Layers => each(value, |layer| object(layer, schema::LAYER).map(Some)),
        Kind::Shapes => each(value, shape),
        Kind::Effects => each(value, effect),
    }
}

fn object(value: &Value, fields: Fields) -> Written {
    let Some(entries) = value.as_object() else { return wrong("is not an object") };
    let mut written = Map::new();
    for (key, kind) in fields {
        if let Some(value) = entries.get(*key).filter(|value| !value.is_null()) {
            written.insert((*key).into(), at(format!(".{key}"), write(value, *kind))?);
        }
    }
    Ok(written.into())
}

/// The items that are drawn.
fn each(value: &Value, write: impl Fn(&Value) -> Result<Option<Value>, Wrong>) -> Written {
    let Some(items) = value.as_array() else { return wrong("is not a list") };
    let written = items.iter().enumerate().map(|(n, item)| at(format!("[{n}]"), write(item)));
    Ok(written.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

pub(super) fn number(value: &Value) -> Result<f64, Wrong> {
    match value.as_f64() {
        Some(number) if number.abs() <= NUMBER_LIMIT => Ok(number),
        Some(_) => wrong("is too large a number"),
        None => wrong("is not a number"),
    }
}

fn whole(value: &Value, low: i64, high: i64) -> Written {
    // Some exporters write 1.0 or true where 1 is meant.
    let found = value.as_i64().or(value.as_bool().map(i64::from));
    let found = found.or(value.as_f64().filter(|number| number.fract() == 0.0).map(|number| number as i64));
    match found {
        Some(number) if (low..=high).contains(&number) => Ok(number.into()),
        _ => wrong("is not one of the numbers that it may be"),
    }
}

pub(super) fn flag(value: &Value) -> Written {
    match (value.as_bool(), value.as_f64()) {
        (Some(flag), _) => Ok(flag.into()),
        (None, Some(number)) => Ok((number != 0.0).into()),
        _ => wrong("is neither true nor false"),
    }
}

/// `dimensions` numbers; of colours (three) the opacity is kept as well.
pub(super) fn numbers(value: &Value, dimensions: usize) -> Written {
    let all = match value.as_array() {
        Some(items) => items.iter().take(4).map(number).collect::<Result<Vec<_>, _>>()?,
        None => vec![number(value)?],
    };
    match all.get(..dimensions) {
        Some(first) if dimensions == 1 => Ok(first[0].into()),
        Some(first) => Ok(json!(if dimensions == 3 { &all } else { first })),
        None => wrong("has too few numbers"),
    }
}

fn position(value: &Value) -> Written {
    if value.get("x").is_some_and(Value::is_object) && value.get("y").is_some_and(Value::is_object) {
        return object(value, &[("x", Kind::Scalar), ("y", Kind::Scalar)]);
    }
    write(value, Kind::Point)
}

/// A path: as many handles as points.
fn outline(value: &Value) -> Written {
    let path = value.as_array().and_then(|list| list.first()).unwrap_or(value);
    if !path.is_object() {
        return wrong("is not a path");
    }
    let points = |key: &str| -> Result<Vec<Value>, Wrong> {
        let points = lottie::list(path, key);
        if points.len() > LIST_LIMIT {
            return at(format!(".{key}"), wrong("has too many points"));
        }
        points.iter().enumerate().map(|(n, point)| at(format!(".{key}[{n}]"), numbers(point, 2))).collect()
    };
    let (vertices, into, out) = (points("v")?, points("i")?, points("o")?);
    if vertices.len() != into.len() || vertices.len() != out.len() {
        return wrong("has not as many handles as points");
    }
    let closed = path.get("c").is_some_and(|closed| flag(closed).is_ok_and(|closed| closed == true));
    Ok(json!({"c": closed, "v": vertices, "i": into, "o": out}))
}

/// A gradient's `p` colours, with four numbers each, before any stops of its opacity.
fn gradient(value: &Value) -> Written {
    let Some(stops) = value.get("p").and_then(Value::as_u64).filter(|stops| (1..=STOP_LIMIT).contains(stops)) else {
        return at(".p", wrong("is not a number of colours"));
    };
    let list = |value: &Value| match value.as_array() {
        Some(items) if items.len() as u64 >= stops * 4 && items.len() <= LIST_LIMIT => {
            items.iter().map(|item| number(item).map(Value::from)).collect()
        }
        _ => wrong("has too few numbers"),
    };
    let colors = over_time(value.get("k").unwrap_or(&Value::Null), list);
    Ok(json!({"p": stops, "k": at(".k", colors)?}))
}

/// Dashes that are all nothing would be without end; such a line is drawn whole.
fn dashes(value: &Value) -> Written {
    let written = each(value, |dash| object(dash, &[("n", Kind::Text), ("v", Kind::Scalar)]).map(Some))?;
    let lengths = written.as_array().into_iter().flatten().filter(|dash| lottie::text(dash, "n") != "o");
    let visible = lengths
        .filter_map(|dash| dash.get("v"))
        .any(|length| crate::property::scalar_at(Some(length), 0.0, 0.0) > 0.05);
    Ok(if visible { written } else { json!([]) })
}

fn shape(value: &Value) -> Result<Option<Value>, Wrong> {
    let kind = lottie::text(value, "ty");
    let Some(fields) = schema::shape(kind) else { return Ok(None) };
    let Value::Object(content) = object(value, fields)? else { return Ok(None) };
    Ok(Some(std::iter::once(("ty".to_owned(), kind.into())).chain(content).collect::<Map<_, _>>().into()))
}

fn effect(value: &Value) -> Result<Option<Value>, Wrong> {
    let kind = value.get("ty").and_then(Value::as_i64).unwrap_or(-1);
    let Some(kinds) = schema::effect(kind) else { return Ok(None) };
    let values = kinds.iter().enumerate().map(|(n, kind)| {
        let given = lottie::list(value, "ef").get(n).and_then(|entry| entry.get("v"));
        let default = if matches!(kind, Kind::Colors) { json!([0, 0, 0]) } else { json!(0) };
        let written = at(format!(".ef[{n}].v"), write(given.unwrap_or(&default), *kind))?;
        Ok(json!({"v": written}))
    });
    let values: Value = values.collect::<Result<_, _>>()?;
    let enabled = value.get("en").is_none_or(|enabled| flag(enabled).is_ok_and(|enabled| enabled == true));
    Ok(Some(json!({"ty": kind, "en": i32::from(enabled), "ef": values})))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_shape(shape: Value) -> Result<Value, String> {
        let whole = json!({"layers": [{"ty": 4, "shapes": [shape]}]});
        document(&whole).map(|written| written["layers"][0]["shapes"].clone()).map_err(|error| error.to_string())
    }

    #[test]
    fn unknown_keys_and_nulls_are_dropped() {
        let written =
            document(&json!({"w": 1, "meta": {}, "assets": null, "layers": [{"ix": 3, "nm": "a", "ty": 4.0}]}));
        assert_eq!(written.unwrap(), json!({"w": 1.0, "layers": [{"ty": 4, "nm": "a"}]}));
    }

    #[test]
    fn a_wrong_value_is_named_by_its_place() {
        let fill = json!({"ty": "fl", "c": {"k": [{"t": 0, "s": [0, 0, 0]}, null]}});
        assert_eq!(with_shape(fill), Err("project: layers[0].shapes[0].c.k[1].t is not a number".into()));
        let path = json!({"ty": "sh", "ks": {"k": {"v": [[0, 0]], "i": [[0, 0]], "o": []}}});
        assert_eq!(with_shape(path), Err("project: layers[0].shapes[0].ks.k has not as many handles as points".into()));
        assert!(with_shape(json!({"ty": "rc", "s": {"k": 5}})).is_err_and(|e| e.ends_with("has too few numbers")));
        assert!(with_shape(json!({"ty": "rc", "r": {"k": 1e9}})).is_err_and(|e| e.ends_with("is too large a number")));
    }

    #[test]
    fn a_gradient_without_enough_numbers_is_refused() {
        let gradient = |p: Value| with_shape(json!({"ty": "gf", "g": {"p": p, "k": {"k": [0, 1, 1, 1, 1, 0, 0, 0]}}}));
        assert!(gradient(json!(2)).is_ok() && gradient(json!(3)).is_err() && gradient(json!(1e9)).is_err());
    }

    #[test]
    fn an_older_export_s_last_keyframe_takes_its_value_from_the_leg_before() {
        let keys = json!([{"t": 0, "s": [1], "e": [5], "o": {"x": 2, "y": 0}, "i": {"x": 0, "y": 1}}, {"t": 9}]);
        let written = with_shape(json!({"ty": "rd", "r": {"a": 1, "k": keys}})).unwrap();
        assert_eq!(written[0]["r"]["k"][1], json!({"t": 9.0, "s": [5.0]}));
        assert_eq!(written[0]["r"]["k"][0]["o"], json!({"x": 1.0, "y": 0.0}));
    }

    #[test]
    fn a_line_of_empty_dashes_is_drawn_whole() {
        let dashed = |length: f64| with_shape(json!({"ty": "st", "d": [{"n": "d", "v": {"k": length}}]})).unwrap();
        assert_eq!((dashed(0.0)[0]["d"].clone(), dashed(5.0)[0]["d"].as_array().map(Vec::len)), (json!([]), Some(1)));
    }

    #[test]
    fn what_is_not_drawn_is_dropped() {
        assert_eq!(with_shape(json!({"ty": "mm", "mm": 1})), Ok(json!([])));
    }
}
