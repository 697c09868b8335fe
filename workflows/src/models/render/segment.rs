//! The stretches of a film along its scenes, and what decides how each looks: one that was rendered before is taken as it is.
//! Pure.
//!
//! ```text
//! scenes     ├──── a ────┤          ├──── c ────┤
//!                     ├──── b ────────┤
//! segments   ├── a ───┼ab┼─── b ────┼bc┼── c ───┤     a transition belongs to both of its scenes
//! ```

use super::{plan::cut, spec::RenderSpec};
use crate::contracts::{
    render::FrameRange,
    storage::BlobHash,
    template::{ImageSlot, Manifest, TextField},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Raise it when the same input gives another picture for a reason of ours: another encoder, another way to bind data.
const PIPELINE: u32 = 1;
/// Most frames of a segment: a longer scene is several.
const MOST_FRAMES: u32 = 500;

/// A stretch of a film that shows the same scenes all along.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Its frames.
    pub frames: FrameRange,
    /// Of everything that decides how it looks, but for the renderer's version.
    pub content: BlobHash,
}

impl Segment {
    /// Under which name it is kept, when this version of the renderer made it.
    pub fn key(&self, renderer: &str) -> BlobHash {
        BlobHash::of(json!([self.content, renderer]).to_string().as_bytes())
    }
}

/// The segments of a film, in order: they cover each frame once.
pub fn segments(manifest: &Manifest, spec: &RenderSpec) -> Vec<Segment> {
    stretches(manifest, spec)
        .into_iter()
        .flat_map(|(frames, scenes)| cut(frames, MOST_FRAMES).into_iter().map(move |f| (f, scenes.clone())))
        .map(|(frames, scenes)| Segment { frames, content: content(manifest, spec, frames, &scenes) })
        .collect()
}

/// Stretches with the scenes that each shows.
fn stretches(manifest: &Manifest, spec: &RenderSpec) -> Vec<(FrameRange, Vec<String>)> {
    let (shared, mut start, mut stretches) = (manifest.transition_frames, 0, vec![]);
    let scenes = spec.data.scenes.as_deref().unwrap_or_default();
    for (n, scene) in scenes.iter().enumerate() {
        let end = start + scene.frames;
        let alone_from = if n > 0 { start + shared } else { start };
        let alone_to = if n + 1 < scenes.len() { end - shared } else { end };
        stretches.push((alone_from, alone_to, vec![scene.id.clone()]));
        if let Some(next) = scenes.get(n + 1) {
            stretches.push((alone_to, end, vec![scene.id.clone(), next.id.clone()]));
        }
        start = end - shared;
    }
    let filled = stretches.into_iter().filter(|(first, end, _)| first < end);
    filled.map(|(first, end, scenes)| (FrameRange { first, last: end - 1 }, scenes)).collect()
}

/// Fields of a scene decide about its stretches alone. Colours, switches, and the order and lengths of the scenes are the
/// whole film's: what a template draws across its scenes may follow them. So are fonts and plug-ins that a machine must have: one that
/// has them draws other frames than one that had not to.
fn content(manifest: &Manifest, spec: &RenderSpec, frames: FrameRange, scenes: &[String]) -> BlobHash {
    let data = &spec.data;
    let text = |field: &TextField| json!([field.key, data.texts.get(&field.key)]);
    let image = |slot: &ImageSlot| {
        let bound = data.images.get(&slot.key);
        let asset = bound.and_then(|b| spec.assets.iter().find(|a| a.path == b.file)).map(|a| &a.blob.sha256);
        json!([slot.key, asset, bound.map(|b| b.fit)])
    };
    let texts: Vec<Value> = manifest.texts.iter().filter(|f| scenes.contains(&f.scene)).map(text).collect();
    let images: Vec<Value> = manifest.images.iter().filter(|s| scenes.contains(&s.scene)).map(image).collect();
    // An array: the order of keys in an object is nobody's promise.
    let all = json!([
        PIPELINE,
        spec.engine,
        spec.package.sha256,
        spec.composition,
        spec.size,
        spec.fps,
        spec.profile,
        frames.first,
        frames.last,
        texts,
        images,
        data.colors.iter().collect::<Vec<_>>(),
        data.visibility.iter().collect::<Vec<_>>(),
        data.scenes.iter().flatten().map(|s| json!([s.id, s.frames])).collect::<Vec<_>>(),
        spec.needs.iter().collect::<Vec<_>>(),
    ]);
    BlobHash::of(all.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contracts::render::{Fit, ImageBinding, RenderAsset, SceneBinding};
    use crate::contracts::storage::BlobRef;
    use crate::models::render::spec::tests::spec;
    use proptest::prelude::*;

    /// Scenes `s0`, `s1` … with a text and a picture each.
    fn film(lengths: &[u32], shared: u32) -> (Manifest, RenderSpec) {
        let label = json!({"en": "x"});
        let all = 0..lengths.len();
        let scenes: Vec<Value> = all
            .clone()
            .map(|n| {
                json!({"id": format!("s{n}"), "label": label, "frames": lengths[n], "min_frames": lengths[n],
            "max_frames": lengths[n], "required": false, "still_frame": 0})
            })
            .collect();
        let texts: Vec<Value> = all
            .clone()
            .map(|n| {
                json!({"key": format!("t{n}"), "scene": format!("s{n}"), "label": label, "required": false,
            "max_chars": 9, "max_lines": 1, "default": "d"})
            })
            .collect();
        let images: Vec<Value> = all
            .clone()
            .map(|n| {
                json!({"key": format!("p{n}"), "scene": format!("s{n}"), "label": label, "required": false,
            "width": 9, "height": 9, "fit": "cover"})
            })
            .collect();
        let manifest = json!({"format": 1, "slug": "film", "version": 1, "kind": "lottie", "title": label, "description": label,
            "composition": "main", "width": 64, "height": 36, "fps": 30, "transition_frames": shared, "fonts": [],
            "scenes": scenes, "texts": texts, "images": images});
        let manifest = Manifest::parse(manifest.to_string().as_bytes()).unwrap();
        let mut spec = spec(manifest.film_frames(lengths));
        spec.data.scenes = Some(all.map(|n| SceneBinding { id: format!("s{n}"), frames: lengths[n] }).collect());
        (manifest, spec)
    }

    /// Which segments a change makes anew.
    fn changed(change: impl FnOnce(&mut RenderSpec)) -> Vec<usize> {
        let (manifest, mut spec) = film(&[90; 8], 15);
        let before = segments(&manifest, &spec);
        change(&mut spec);
        let after = segments(&manifest, &spec);
        (0..before.len()).filter(|n| before[*n] != after[*n]).collect()
    }

    #[test]
    fn transitions_belong_to_both_scenes() {
        let (manifest, spec) = film(&[90, 60, 45], 15);
        let ranges: Vec<(u32, u32)> =
            segments(&manifest, &spec).iter().map(|s| (s.frames.first, s.frames.last)).collect();
        assert_eq!(ranges, [(0, 74), (75, 89), (90, 119), (120, 134), (135, 164)]);
    }

    #[test]
    fn a_text_or_picture_changes_its_scene_and_the_transitions_around() {
        let text = |n: usize| changed(|s| drop(s.data.texts.insert(format!("t{n}"), "new".into())));
        assert_eq!((text(3), text(0), text(7)), (vec![5, 6, 7], vec![0, 1], vec![13, 14]));
        let picture = |spec: &mut RenderSpec| {
            let blob = BlobRef { sha256: BlobHash::of(b"picture"), size_bytes: 7 };
            spec.assets.push(RenderAsset { path: "assets/0.png".into(), blob });
            spec.data.images.insert("p3".into(), ImageBinding { file: "assets/0.png".into(), fit: Fit::Cover });
        };
        assert_eq!(changed(picture), [5, 6, 7]);
    }

    #[test]
    fn what_is_not_tied_to_a_scene_changes_all() {
        let all: Vec<usize> = (0..15).collect();
        assert_eq!(changed(|s| drop(s.data.colors.insert("primary".into(), "#ffffff".into()))), all);
        assert_eq!(changed(|s| assert_eq!(s.data.visibility.insert("badge".into(), false), None)), all);
        assert_eq!(changed(|s| s.package.sha256 = BlobHash::of(b"another")), all);
        assert_eq!(changed(|s| s.size = [32, 18]), all);
        assert_eq!(changed(|s| drop(s.needs.insert("font:Futura-Bold".into(), "1".into()))), all);
        assert_eq!(changed(|s| s.tracks.clear()), [0; 0], "sound is no picture");
    }

    #[test]
    fn another_renderer_makes_another_key() {
        let (manifest, spec) = film(&[90; 2], 15);
        let segment = &segments(&manifest, &spec)[0];
        assert_ne!(segment.key("lottie 1"), segment.key("lottie 2"));
    }

    proptest! {
        #[test]
        fn segments_cover_every_frame_once(lengths in proptest::collection::vec(41u32..1500, 1..9), shared in 0u32..20) {
            let (manifest, spec) = film(&lengths, shared);
            let segments = segments(&manifest, &spec);
            let all: Vec<u32> = segments.iter().flat_map(|s| s.frames.iter()).collect();
            prop_assert_eq!(all, (0..spec.frames).collect::<Vec<_>>());
            prop_assert!(segments.iter().all(|s| s.frames.count() <= MOST_FRAMES));
        }
    }
}
