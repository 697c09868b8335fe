//! The film's order: main rebuilt from a list of scenes, each with a length of its own.
//!
//! A scene is a precomposition layer of main. Moving it moves its keyframes too, for a layer's keyframe times
//! are in its parent composition's time. Another length remaps the time inside it: the marker `stretch:ID`
//! says which part of main's time may change its pace; without one the whole scene does.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::time::{Span, TimeMap};
use crate::{RenderError, data::SceneData, fields::scene_id, limits::bad, lottie};

/// Added to a remapped time, in frames: rounding must not fall short of a frame at which a layer begins.
const NUDGE: f64 = 0.002;

/// A scene's layer in the template's main composition, with the layers that go with it.
struct Scene {
    id: String,
    span: Span,
    /// Mattes and other layers right above, then the scene's own layer.
    layers: Vec<Value>,
}

/// Rebuilds main from `order`. Scenes overlap as the template's own do.
pub(crate) fn arrange(document: &mut Value, order: &[SceneData]) -> Result<(), RenderError> {
    let film = Span { start: lottie::number_or(document, "ip", 0.0), end: lottie::number_or(document, "op", 0.0) };
    let (above, mut scenes, below) = take_apart(document);
    let first_on_top = scenes.len() < 2 || scenes[0].span.start <= scenes[1].span.start;
    scenes.sort_by(|a, b| a.span.start.total_cmp(&b.span.start));
    let overlap = overlap(&scenes)?;

    let mut at = 0.0;
    let mut stack = vec![];
    let mut fresh = Fresh::of(document);
    for (place, wanted) in order.iter().enumerate() {
        let Some(index) = scenes.iter().position(|scene| scene.id == wanted.id) else {
            return Err(RenderError::UnknownField(format!("scenes.{}: the project has no such scene", wanted.id)));
        };
        let span = Span { start: at, end: at + f64::from(wanted.frames) };
        let mut layers = placed(document, &scenes, index, place, span);
        fresh.rename(&mut layers);
        stack.push(layers);
        at = span.end - overlap;
    }
    let new = Span { start: 0.0, end: at + overlap };
    if !first_on_top {
        stack.reverse();
    }
    let around = |layers: Vec<Value>| layers.into_iter().map(move |layer| follow_film(layer, film, new));
    let layers: Vec<Value> = around(above).chain(stack.into_iter().flatten()).chain(around(below)).collect();
    lottie::set(document, "layers", layers.into());
    lottie::set(document, "ip", 0.into());
    lottie::set(document, "op", new.end.into());
    Ok(())
}

/// Main's layers: those above all scenes, the scenes (from the top), those below.
fn take_apart(document: &Value) -> (Vec<Value>, Vec<Scene>, Vec<Value>) {
    let (mut above, mut scenes, mut waiting) = (vec![], Vec::<Scene>::new(), vec![]);
    for layer in lottie::list(document, "layers") {
        waiting.push(layer.clone());
        let Some(id) = scene_id(document, layer) else { continue };
        if scenes.is_empty() {
            // Above the topmost scene only its own mattes belong to it.
            let own = waiting.iter().rev().skip(1).take_while(|l| lottie::number_or(l, "td", 0.0) == 1.0).count();
            above = waiting.drain(..waiting.len() - 1 - own).collect();
        }
        scenes.push(Scene { id: id.to_owned(), span: span_of(layer), layers: std::mem::take(&mut waiting) });
    }
    (above, scenes, waiting)
}

fn span_of(layer: &Value) -> Span {
    Span { start: lottie::number_or(layer, "ip", 0.0), end: lottie::number_or(layer, "op", 0.0) }
}

/// The frames that consecutive scenes share; the template has one number for all its transitions.
fn overlap(scenes: &[Scene]) -> Result<f64, RenderError> {
    let overlaps: Vec<f64> = scenes.windows(2).map(|pair| pair[0].span.end - pair[1].span.start).collect();
    match overlaps.split_first() {
        None => Ok(0.0),
        Some((first, rest)) if *first >= 0.0 && rest.iter().all(|other| (other - first).abs() < 0.01) => Ok(*first),
        Some(_) => Err(bad("its scenes do not overlap by the same number of frames; they cannot be rearranged".into())),
    }
}

/// Scene `index`'s layers, moved to `span`.
fn placed(document: &Value, scenes: &[Scene], index: usize, place: usize, span: Span) -> Vec<Value> {
    let scene = &scenes[index];
    let donor = &scenes[entrance(scenes.len(), index, place)];
    let edges = TimeMap::keeping_edges(donor.span, span);
    let inner = TimeMap::stretching(scene.span, span, stretch_marker(document, scene));
    let mut layers = scene.layers.clone();
    let Some((own, attached)) = layers.split_last_mut() else { return layers };
    for layer in attached {
        move_layer(layer, &TimeMap::keeping_edges(scene.span, span));
    }
    if let (Some(look), true) = (donor.layers.last(), donor.id != scene.id) {
        wear(own, look);
    }
    let rate = lottie::number_or(document, "fr", 30.0);
    remap(own, scene.span, span, &inner, rate);
    for key in LOOK {
        if let Some(value) = own.get_mut(key) {
            edges.move_keys(value);
        }
    }
    layers
}

/// What of a scene's layer in main makes its entrance and exit.
const LOOK: [&str; 4] = ["ks", "masksProperties", "ef", "hasMask"];

/// Which scene's entrance a scene takes. The first one has nothing to come in over, so whichever stands first
/// enters as the template's first; when that one stands later, it enters as the template's second.
fn entrance(count: usize, index: usize, place: usize) -> usize {
    match (place, index) {
        (0, _) => 0,
        (_, 0) if count > 1 => 1,
        _ => index,
    }
}

fn wear(layer: &mut Value, look: &Value) {
    let same = |key| lottie::number_or(layer, key, 0.0) == lottie::number_or(look, key, 0.0);
    if !same("w") || !same("h") {
        return;
    }
    for key in LOOK {
        lottie::remove(layer, key);
        if let Some(value) = look.get(key) {
            lottie::set(layer, key, value.clone());
        }
    }
}

/// Gives the scene its place; a new length becomes a time remap.
fn remap(layer: &mut Value, old: Span, new: Span, inner: &TimeMap, rate: f64) {
    let start = lottie::number_or(layer, "st", 0.0);
    let pace = lottie::number_or(layer, "sr", 1.0);
    if old.length() != new.length() || layer.get("tm").is_some() {
        let own = layer.get("tm").cloned();
        let seconds = |time: f64| match &own {
            Some(remap) => crate::property::scalar_at(Some(remap), time, 0.0) + NUDGE / rate,
            None => ((time - start) / pace + NUDGE) / rate,
        };
        // A remap of the designer's own may bend anywhere, so it is sampled at every frame.
        let samples: Vec<(f64, f64)> = match own {
            None => inner.points().collect(),
            Some(_) => (0..=old.length() as i64).map(|n| old.start + n as f64).map(|t| (t, inner.map(t))).collect(),
        };
        let keys: Vec<Value> = samples.into_iter().map(|(from, to)| linear_key(to, &[seconds(from)])).collect();
        lottie::set(layer, "tm", json!({"a": 1, "k": keys}));
    }
    lottie::set(layer, "ip", new.start.into());
    lottie::set(layer, "op", new.end.into());
    lottie::set(layer, "st", (start + new.start - old.start).into());
}

/// A keyframe whose leg is straight.
pub(crate) fn linear_key(time: f64, value: &[f64]) -> Value {
    json!({"t": time, "s": value, "o": {"x": [0], "y": [0]}, "i": {"x": [1], "y": [1]}})
}

fn stretch_marker(document: &Value, scene: &Scene) -> Option<Span> {
    let name = format!("stretch:{}", scene.id);
    let marker = lottie::list(document, "markers").iter().find(|marker| lottie::text(marker, "cm").trim() == name)?;
    let start = lottie::number_or(marker, "tm", scene.span.start);
    let end = start + lottie::number_or(marker, "dr", 0.0);
    let inside = Span { start: start.max(scene.span.start), end: end.min(scene.span.end) };
    (inside.length() > 0.0).then_some(inside)
}

fn move_layer(layer: &mut Value, map: &TimeMap) {
    let span = span_of(layer);
    map.move_keys(layer);
    lottie::set(layer, "ip", map.map(span.start).into());
    lottie::set(layer, "op", map.map(span.end).into());
    let start = lottie::number_or(layer, "st", 0.0);
    lottie::set(layer, "st", (start + map.map(span.start) - span.start).into());
}

/// A layer beside the scenes (a background, a logo in the corner) lasts as long as the film does.
fn follow_film(mut layer: Value, old: Span, new: Span) -> Value {
    if old != new {
        move_layer(&mut layer, &TimeMap::keeping_edges(old, new));
    }
    layer
}

/// Keeps layer numbers unique when a scene is shown twice.
struct Fresh {
    used: HashSet<i64>,
    next: i64,
}

impl Fresh {
    fn of(document: &Value) -> Self {
        let numbers = lottie::list(document, "layers").iter().filter_map(|layer| layer.get("ind")?.as_i64());
        Self { used: HashSet::new(), next: numbers.max().unwrap_or(0) + 1 }
    }

    fn rename(&mut self, layers: &mut [Value]) {
        let mut renamed = HashMap::new();
        for layer in layers.iter_mut() {
            let Some(number) = layer.get("ind").and_then(Value::as_i64) else { continue };
            if !self.used.insert(number) {
                renamed.insert(number, self.next);
                lottie::set(layer, "ind", self.next.into());
                self.next += 1;
            }
        }
        for layer in layers.iter_mut() {
            for key in ["parent", "tp"] {
                let number = layer.get(key).and_then(Value::as_i64).and_then(|number| renamed.get(&number));
                if let Some(number) = number {
                    lottie::set(layer, key, (*number).into());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two scenes of 100 frames that overlap by 10; the second fades in.
    fn film() -> Value {
        json!({"w": 10, "h": 10, "fr": 10, "ip": 0, "op": 190, "markers": [{"cm": "stretch:b", "tm": 120, "dr": 20}],
            "layers": [
                {"ty": 0, "refId": "2", "ind": 1, "w": 10, "h": 10, "ip": 90, "op": 190, "st": 90,
                 "ks": {"o": {"a": 1, "k": [{"t": 90, "s": [0]}, {"t": 100, "s": [100]}]}}},
                {"ty": 0, "refId": "1", "ind": 2, "w": 10, "h": 10, "ip": 0, "op": 100, "st": 0, "ks": {}},
                {"ty": 1, "ind": 3, "nm": "back", "ip": 0, "op": 190}],
            "assets": [{"id": "1", "nm": "scene:a", "layers": []}, {"id": "2", "nm": "scene:b", "layers": []}]})
    }

    fn order(scenes: &[(&str, u32)]) -> Vec<SceneData> {
        scenes.iter().map(|(id, frames)| SceneData { id: (*id).into(), frames: *frames }).collect()
    }

    #[test]
    fn the_template_s_own_order_and_lengths_change_nothing() {
        let mut document = film();
        arrange(&mut document, &order(&[("a", 100), ("b", 100)])).unwrap();
        let mut own = film();
        // Whole numbers are the same numbers, whatever JSON calls them.
        TimeMap::stretching(Span { start: 0.0, end: 1.0 }, Span { start: 0.0, end: 1.0 }, None).move_keys(&mut own);
        assert_eq!(document["op"].as_f64(), Some(190.0));
        for (new, old) in document["layers"].as_array().unwrap().iter().zip(own["layers"].as_array().unwrap()) {
            assert_eq!((span_of(new), &new["ks"], new.get("tm")), (span_of(old), &old["ks"], None));
        }
    }

    #[test]
    fn the_total_is_the_sum_less_the_overlaps() {
        let mut document = film();
        arrange(&mut document, &order(&[("a", 60), ("b", 150), ("a", 30)])).unwrap();
        assert_eq!(document["op"].as_f64(), Some(60.0 + 150.0 + 30.0 - 20.0));
        assert_eq!(document["layers"][3]["op"].as_f64(), Some(220.0), "the background lasts as long");
        let numbers: HashSet<i64> =
            document["layers"].as_array().unwrap().iter().map(|layer| layer["ind"].as_i64().unwrap()).collect();
        assert_eq!(numbers.len(), 4, "a scene shown twice has two numbers");
    }

    #[test]
    fn a_longer_scene_is_slowed_only_at_its_marker() {
        let mut document = film();
        arrange(&mut document, &order(&[("a", 100), ("b", 140)])).unwrap();
        let keys: Vec<(f64, f64)> = lottie::list(&document["layers"][0]["tm"], "k")
            .iter()
            .map(|key| (key["t"].as_f64().unwrap(), (key["s"][0].as_f64().unwrap() * 10.0 - NUDGE).round()))
            .collect();
        assert_eq!(keys, [(90.0, 0.0), (120.0, 30.0), (180.0, 50.0), (230.0, 100.0)]);
    }

    #[test]
    fn the_first_scene_never_fades_in() {
        let mut document = film();
        arrange(&mut document, &order(&[("b", 100), ("a", 100)])).unwrap();
        let layers = document["layers"].as_array().unwrap();
        assert_eq!((layers[1]["refId"].as_str(), &layers[1]["ks"]), (Some("2"), &json!({})));
        assert_eq!(layers[0]["ks"]["o"]["k"][1]["t"].as_f64(), Some(100.0), "the template's first now fades in");
    }
}
