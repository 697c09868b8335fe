//! What decides how a still looks, as one hash: equal keys are equal pictures, so each is rendered once.

use crate::{
    contracts::{
        node::OLDEST_AFTER_EFFECTS,
        render::{Engine, RenderData},
        storage::{BlobHash, BlobRef},
        template::Manifest,
    },
    models::content::scene::Scene,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Raised when a still would come out differently although all else is the same: another recipe, another size.
pub const PIPELINE: u32 = 1;
/// What renderers are told, and what WebP means when it says nothing.
const COLOUR_PROFILE: &str = "srgb";

/// Characters that are kept of what a renderer says of its version.
const MOST_RENDERER: usize = 100;

/// Everything that decides how a still looks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StillKey {
    /// Hash of the package: the project and all its footage.
    pub package: BlobHash,
    /// The composition.
    pub composition: String,
    /// The scene.
    pub scene: String,
    /// The frame of the composition.
    pub frame: u32,
    /// Hash of the data that is shown.
    pub inputs: BlobHash,
    /// Width and height of the frame in pixels.
    pub size: [u32; 2],
    /// What its colours mean.
    pub colour_profile: String,
    /// The class of renderers that give the same picture.
    pub renderer: String,
    /// Hash of the fonts that are used.
    pub fonts: BlobHash,
    /// Version of what is done with the frame.
    pub pipeline: u32,
}

impl StillKey {
    /// The key of a scene with what it shows.
    pub fn of(manifest: &Manifest, package: &BlobRef, scene: &Scene, data: &RenderData) -> Self {
        let carried = manifest.fonts.iter().map(|f| serde_json::json!(f));
        let mut fonts: Vec<Value> = carried.chain(manifest.installed.fonts.iter().map(|f| f.as_str().into())).collect();
        // The order in which they are named changes nothing.
        fonts.sort_by_key(Value::to_string);
        Self {
            package: package.sha256.clone(),
            composition: scene.composition.clone(),
            scene: scene.key.clone(),
            frame: scene.still_frame.unsigned_abs(),
            inputs: hash(data),
            size: [manifest.width, manifest.height],
            colour_profile: COLOUR_PROFILE.to_owned(),
            renderer: renderer_class(manifest),
            fonts: hash(&fonts),
            pipeline: PIPELINE,
        }
    }

    /// Label of the engine whose renderers make it.
    pub fn engine(&self) -> &str {
        self.renderer.split(' ').next().unwrap_or_default()
    }

    /// The same for what a node has made whose renderer says this of its version: of a version of ours that was not asked for it is another
    /// picture. What After Effects makes is of one class in each version that opens the template.
    pub fn made_by(&self, version: &str) -> Self {
        match self.renderer.split_once(' ') {
            Some((engine, ours))
                if engine == Engine::Lottie.label() && version.split_whitespace().all(|word| word != ours) =>
            {
                Self { renderer: format!("{engine}: {version}").chars().take(MOST_RENDERER).collect(), ..self.clone() }
            }
            _ => self.clone(),
        }
    }

    /// The key: SHA-256 of its canonical JSON.
    pub fn digest(&self) -> BlobHash {
        hash(self)
    }
}

/// What a scene shows when nobody has filled anything in: the template's own words, colours and choices.
pub fn defaults(manifest: &Manifest, scene: &str) -> RenderData {
    let texts = manifest.texts.iter().filter(|t| t.scene == scene && !t.default.trim().is_empty());
    RenderData {
        version: 1,
        texts: texts.map(|t| (t.key.clone(), t.default.clone())).collect(),
        images: BTreeMap::new(),
        colors: manifest.colors.iter().map(|c| (c.key.clone(), c.default.to_ascii_lowercase())).collect(),
        visibility: manifest.visibility.iter().map(|v| (v.key.clone(), v.default)).collect(),
        scenes: None,
        size: Some([manifest.width, manifest.height]),
    }
}

/// Renderers of one class give the same picture: our own in the version of the server, which a node may not have yet ([`StillKey::made_by`]);
/// After Effects from the version on that the template asks for.
///
/// What the template asks for belongs to its version, so the key knows it twice: here, and by the hash of the package, whose manifest says
/// it. Which version then draws is no part of it. It is not known when the key is asked for, as any node may take the still; and kept under
/// what drew it, no still would be found again on a farm that is newer than its templates, which all farms are. So a farm has one version
/// of After Effects, and after an update an operator has stills made anew (`docs/after-effects.md`).
fn renderer_class(manifest: &Manifest) -> String {
    match manifest.kind {
        Engine::Lottie => format!("lottie {}", env!("CARGO_PKG_VERSION")),
        Engine::AfterEffects => {
            let oldest = manifest.installed.after_effects.unwrap_or(OLDEST_AFTER_EFFECTS);
            format!("after_effects {oldest}")
        }
    }
}

fn hash(value: &impl Serialize) -> BlobHash {
    let value = serde_json::to_value(value).map(in_order).unwrap_or_default();
    BlobHash::of(value.to_string().as_bytes())
}

/// The same value with the keys of its objects in order, however maps are kept.
fn in_order(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<String, Value> = map.into_iter().map(|(k, v)| (k, in_order(v))).collect();
            sorted.into_iter().collect()
        }
        Value::Array(values) => values.into_iter().map(in_order).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blob_hash() -> impl Strategy<Value = BlobHash> {
        any::<u64>().prop_map(|n| BlobHash::of(&n.to_le_bytes()))
    }

    fn key() -> impl Strategy<Value = StillKey> {
        let words = ("[a-z :]{1,12}", "[a-z0-9_-]{1,12}", "[a-z0-9 .]{1,12}", "[a-z0-9]{1,8}");
        let numbers = (any::<u32>(), any::<[u32; 2]>(), any::<u32>());
        (words, numbers, blob_hash(), blob_hash(), blob_hash()).prop_map(
            |((composition, scene, renderer, colour_profile), (frame, size, pipeline), package, inputs, fonts)| {
                StillKey { package, composition, scene, frame, inputs, size, colour_profile, renderer, fonts, pipeline }
            },
        )
    }

    /// The key with one component taken from another; as many ways as there are components.
    fn mixed(key: &StillKey, other: &StillKey) -> Vec<StillKey> {
        let (k, o) = (serde_json::json!(key), serde_json::json!(other));
        let names: Vec<String> = k.as_object().unwrap().keys().cloned().collect();
        assert_eq!(names.len(), 10, "every component is tried");
        let mixed = |name: &String| match name.as_str() {
            "package" => StillKey { package: other.package.clone(), ..key.clone() },
            "composition" => StillKey { composition: other.composition.clone(), ..key.clone() },
            "scene" => StillKey { scene: other.scene.clone(), ..key.clone() },
            "frame" => StillKey { frame: other.frame, ..key.clone() },
            "inputs" => StillKey { inputs: other.inputs.clone(), ..key.clone() },
            "size" => StillKey { size: other.size, ..key.clone() },
            "colour_profile" => StillKey { colour_profile: other.colour_profile.clone(), ..key.clone() },
            "renderer" => StillKey { renderer: other.renderer.clone(), ..key.clone() },
            "fonts" => StillKey { fonts: other.fonts.clone(), ..key.clone() },
            "pipeline" => StillKey { pipeline: other.pipeline, ..key.clone() },
            unknown => panic!("{unknown} has no test"),
        };
        names.iter().filter(|name| k[name.as_str()] != o[name.as_str()]).map(mixed).collect()
    }

    proptest! {
        #[test]
        fn any_component_changes_the_key(key in key(), other in key()) {
            for changed in mixed(&key, &other) {
                prop_assert_ne!(changed.digest(), key.digest());
            }
            prop_assert_eq!(key.clone().digest(), key.digest());
        }

        #[test]
        fn the_order_of_names_does_not_change_a_hash(mut pairs in proptest::collection::vec(("[a-z]{1,6}", any::<i64>()), 1..12)) {
            pairs.sort();
            pairs.dedup_by(|a, b| a.0 == b.0);
            let object = |pairs: &[(String, i64)]| {
                let inner: Vec<String> = pairs.iter().map(|(k, v)| format!("{k:?}: {v}")).collect();
                serde_json::from_str::<Value>(&format!("[{{{}}}, {{\"x\": {{{}}}}}]", inner.join(","), inner.join(", "))).unwrap()
            };
            let ordered = object(&pairs);
            pairs.reverse();
            prop_assert_eq!(hash(&object(&pairs)), hash(&ordered));
        }
    }

    fn manifest(change: impl FnOnce(&mut Value)) -> Manifest {
        let label = serde_json::json!({"en": "x"});
        let font = |f: &str| serde_json::json!({"family": f, "style": "Bold", "file": format!("fonts/{f}.ttf"), "licence": "OFL-1.1"});
        let text = |key: &str, scene: &str, default: &str| serde_json::json!({"key": key, "scene": scene, "label": label, "required": true, "max_chars": 9, "max_lines": 1, "default": default});
        let scene = |id: &str| serde_json::json!({"id": id, "label": label, "frames": 20, "min_frames": 10, "max_frames": 40, "required": true, "still_frame": 5});
        let mut json = serde_json::json!({
            "format": 1, "slug": "tiny", "version": 1, "kind": "lottie", "title": label, "description": label, "composition": "main",
            "width": 64, "height": 36, "fps": 10, "transition_frames": 2, "fonts": [font("a"), font("b")],
            "texts": [text("title", "a", "T"), text("empty", "a", " "), text("other", "b", "O")],
            "colors": [{"key": "primary", "label": label, "default": "#10A010"}],
            "visibility": [{"key": "badge", "label": label, "default": true}],
            "scenes": [scene("a"), scene("b")]
        });
        change(&mut json);
        Manifest::parse(json.to_string().as_bytes()).unwrap()
    }

    fn digest(manifest: &Manifest) -> BlobHash {
        let scene = Scene {
            id: uuid::Uuid::nil(),
            key: "a".into(),
            title: sqlx::types::Json(BTreeMap::new()),
            composition: "scene:a".into(),
            start_frame: 0,
            frames: 20,
            still_frame: 5,
            image: None,
            snapshot_url: None,
        };
        let package = BlobRef { sha256: BlobHash::of(b"p"), size_bytes: 1 };
        StillKey::of(manifest, &package, &scene, &defaults(manifest, "a")).digest()
    }

    #[test]
    fn what_only_people_read_does_not_change_the_key() {
        let key = digest(&manifest(|_| {}));
        for cosmetic in ["/title/en", "/scenes/0/label/en", "/texts/0/label/en"] {
            let changed = manifest(|j| *j.pointer_mut(cosmetic).unwrap() = "another".into());
            assert_eq!(digest(&changed), key, "{cosmetic}");
        }
        assert_eq!(digest(&manifest(|j| j["fonts"].as_array_mut().unwrap().reverse())), key);
        assert_eq!(digest(&manifest(|j| j["texts"].as_array_mut().unwrap().reverse())), key);
        assert_eq!(digest(&manifest(|j| j["texts"][2]["default"] = "of another scene".into())), key);
    }

    #[test]
    fn what_is_seen_changes_the_key() {
        let key = digest(&manifest(|_| {}));
        let changes: [(&str, Value); 5] = [
            ("/texts/0/default", "U".into()),
            ("/colors/0/default", "#10a011".into()),
            ("/visibility/0/default", false.into()),
            ("/fonts/1/file", "fonts/c.ttf".into()),
            ("/width", 128.into()),
        ];
        for (what, value) in changes {
            assert_ne!(digest(&manifest(|j| *j.pointer_mut(what).unwrap() = value)), key, "{what}");
        }
    }

    #[test]
    fn the_after_effects_that_a_template_asks_for_changes_the_key() {
        let asking = |version: Value| {
            digest(&manifest(|j| {
                (j["kind"], j["fonts"]) = ("after_effects".into(), serde_json::json!([]));
                j["installed"] = serde_json::json!({ "after_effects": version });
            }))
        };
        assert_ne!(asking(24.into()), asking(25.into()));
        assert_eq!(
            asking(Value::Null),
            asking(OLDEST_AFTER_EFFECTS.into()),
            "who asks for none takes any that is used"
        );
    }

    #[test]
    fn what_a_renderer_of_ours_of_another_version_made_is_another_picture() {
        let key = |renderer: &str| StillKey {
            package: BlobHash::of(b"p"),
            composition: "scene:a".into(),
            scene: "a".into(),
            frame: 5,
            inputs: BlobHash::of(b"i"),
            size: [64, 36],
            colour_profile: COLOUR_PROFILE.into(),
            renderer: renderer.into(),
            fonts: BlobHash::of(b"f"),
            pipeline: PIPELINE,
        };
        let ours = key("lottie 1.2.3");
        assert_eq!((ours.engine(), ours.made_by("aerender version 1.2.3 (FlatRender)")), ("lottie", ours.clone()));
        assert_ne!(ours.made_by("aerender version 1.2.30 (FlatRender)").digest(), ours.digest());
        assert_eq!(ours.made_by(&"x".repeat(200)).renderer.chars().count(), MOST_RENDERER);
        let adobes = key("after_effects 24");
        assert_eq!((adobes.engine(), adobes.made_by("aerender version 25.1x12")), ("after_effects", adobes.clone()));
    }

    #[test]
    fn a_scene_shows_its_own_words_and_the_templates_colours() {
        let data = defaults(&manifest(|_| {}), "a");
        assert_eq!(data.texts, BTreeMap::from([("title".into(), "T".into())]));
        assert_eq!(data.colors["primary"], "#10a010");
        assert_eq!(data.visibility, BTreeMap::from([("badge".into(), true)]));
    }
}
