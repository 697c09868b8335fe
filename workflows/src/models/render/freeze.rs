//! From an order to a frozen spec: every rule about what a customer may ask for, as one pure function.

use super::{
    order::{OrderData, OrderMusic, OrderScene, Quality, RenderOrder},
    segment,
    spec::{FilmKind, RenderSpec},
};
use crate::{
    contracts::{
        media::{AudioRole, AudioTrack, EncodeProfile},
        node,
        render::{ImageBinding, RenderAsset, RenderData, SceneBinding},
        template::{Manifest, is_color},
    },
    models::{content::project::Template, file_mgr::file::File},
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;
use uuid::Uuid;

/// One thing that is wrong with an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    /// Where, as a JSON pointer into the order.
    #[schema(example = "/data/texts/title")]
    pub pointer: String,
    /// What kind of fault; stable.
    #[schema(example = "text.too_long")]
    pub code: String,
    /// What is wrong, in words.
    pub detail: String,
}

/// Checks an order of `tenant_id` against the template and freezes it. `files` are the tenant's files among those it names.
///
/// # Errors
/// Every fault of the order, not only the first.
pub fn freeze(
    tenant_id: Uuid,
    template: &Template,
    order: &RenderOrder,
    files: &[File],
) -> Result<RenderSpec, Vec<Fault>> {
    let manifest = &template.manifest;
    let mut check = Check { tenant_id, manifest, files, faults: vec![] };
    let scenes = check.scenes(order.data.scenes.as_deref());
    let size = check.size(order.output.height);
    let preview = order.kind == FilmKind::Preview;
    let size = if preview { size.map(|n| (n / 2).next_multiple_of(2)) } else { size };
    let (images, assets) = check.images(&order.data, &scenes);
    let data = RenderData {
        version: 1,
        texts: check.texts(&order.data, &scenes),
        images,
        colors: check.colors(&order.data),
        visibility: check.visibility(&order.data),
        scenes: Some(scenes.clone()),
        size: Some(size),
    };
    let tracks = check.tracks(template, order, &scenes);
    if !check.faults.is_empty() {
        return Err(check.faults);
    }
    let lengths: Vec<u32> = scenes.iter().map(|s| s.frames).collect();
    let mut spec = RenderSpec {
        engine: manifest.kind,
        package: template.package.clone(),
        package_owner: template.tenant_id,
        composition: manifest.composition.clone(),
        data,
        assets,
        size,
        fps: manifest.fps,
        frames: manifest.film_frames(&lengths),
        tracks,
        ducking: order.audio.ducking.unwrap_or(manifest.audio.ducking),
        profile: if preview { EncodeProfile::Preview } else { profile(order.output.quality.unwrap_or(Quality::Final)) },
        needs: node::needs(manifest),
        kind: order.kind,
        segments: vec![],
        reuse: order.output.reuse.unwrap_or(true),
        watermark: None,
        retention_days: None,
        derivatives: order.output.derivatives.clone(),
    };
    if !preview {
        spec.segments = segment::segments(manifest, &spec);
    }
    Ok(spec)
}

/// What an order says of scenes that its film leaves out, a warning each: it is no fault, and nobody will see it.
pub fn unshown(manifest: &Manifest, data: &OrderData) -> Vec<String> {
    let Some(shown) = &data.scenes else { return vec![] };
    let texts = manifest.texts.iter().filter(|f| data.texts.get(&f.key).is_some_and(|text| !text.trim().is_empty()));
    let images = manifest.images.iter().filter(|f| data.images.contains_key(&f.key));
    let given = texts.map(|f| ("texts", &f.key, &f.scene)).chain(images.map(|f| ("images", &f.key, &f.scene)));
    given
        .filter(|(.., scene)| !shown.iter().any(|s| s.id == **scene))
        .map(|(group, key, scene)| {
            format!("field.not_shown: /data/{group}/{key} is of the scene {scene:?}, which the film leaves out")
        })
        .collect()
}

/// Every file an order names.
pub fn file_ids(order: &RenderOrder) -> Vec<Uuid> {
    let music = order.audio.music.iter().flatten().filter_map(|m| m.file);
    let voice = order.audio.voice_over.iter().map(|v| v.file);
    order.data.images.values().copied().chain(music).chain(voice).collect()
}

fn profile(quality: Quality) -> EncodeProfile {
    match quality {
        Quality::Preview => EncodeProfile::Preview,
        Quality::Final => EncodeProfile::Final,
        Quality::Master => EncodeProfile::Master,
    }
}

const LEAST_HEIGHT: u32 = 144;

struct Check<'a> {
    tenant_id: Uuid,
    manifest: &'a Manifest,
    files: &'a [File],
    faults: Vec<Fault>,
}

impl Check<'_> {
    fn fault(&mut self, pointer: String, code: &str, detail: String) {
        self.faults.push(Fault { pointer, code: code.to_owned(), detail });
    }

    fn scenes(&mut self, wanted: Option<&[OrderScene]>) -> Vec<SceneBinding> {
        let manifest = self.manifest;
        let Some(wanted) = wanted else {
            return manifest.scenes.iter().map(|s| SceneBinding { id: s.id.clone(), frames: s.frames }).collect();
        };
        let mut seen = BTreeSet::new();
        let mut scenes = vec![];
        for (i, scene) in wanted.iter().enumerate() {
            if !seen.insert(&scene.id) {
                self.fault(
                    format!("/data/scenes/{i}/id"),
                    "scene.twice",
                    format!("scene {:?} is there twice", scene.id),
                );
            } else if let Some(frames) = self.scene_frames(i, scene) {
                scenes.push(SceneBinding { id: scene.id.clone(), frames });
            }
        }
        for missing in manifest.scenes.iter().filter(|s| s.required && !seen.contains(&s.id)) {
            let detail = format!("scene {:?} may not be left out", missing.id);
            self.fault("/data/scenes".into(), "scene.required", detail);
        }
        if wanted.is_empty() {
            self.fault("/data/scenes".into(), "scene.required", "a film has at least one scene".into());
        }
        scenes
    }

    fn scene_frames(&mut self, i: usize, wanted: &OrderScene) -> Option<u32> {
        let fps = f64::from(self.manifest.fps);
        let Some(scene) = self.manifest.scene(&wanted.id) else {
            let known = known(self.manifest.scenes.iter().map(|s| &s.id));
            let detail = format!("there is no scene {:?}; {known}", wanted.id);
            self.fault(format!("/data/scenes/{i}/id"), "scene.unknown", detail);
            return None;
        };
        let frames = wanted.seconds.map_or(f64::from(scene.frames), |s| (s * fps).round());
        if !(f64::from(scene.min_frames)..=f64::from(scene.max_frames)).contains(&frames) {
            let (least, most) = (f64::from(scene.min_frames) / fps, f64::from(scene.max_frames) / fps);
            let detail = format!("scene {:?} lasts {least:.2} to {most:.2} seconds", wanted.id);
            self.fault(format!("/data/scenes/{i}/seconds"), "scene.duration", detail);
            return None;
        }
        Some(frames as u32)
    }

    fn size(&mut self, height: Option<u32>) -> [u32; 2] {
        let (w, h) = (self.manifest.width, self.manifest.height);
        let height = height.unwrap_or(h);
        if !height.is_multiple_of(2) || !(LEAST_HEIGHT..=h).contains(&height) {
            let detail = format!("the height is even and {LEAST_HEIGHT} to {h} pixels");
            self.fault("/output/height".into(), "output.height", detail);
        }
        let width = (u64::from(w) * u64::from(height) / u64::from(h)) as u32;
        [width.next_multiple_of(2), height]
    }

    fn texts(&mut self, data: &OrderData, scenes: &[SceneBinding]) -> BTreeMap<String, String> {
        let manifest = self.manifest;
        let mut texts = BTreeMap::new();
        for field in &manifest.texts {
            let given = data.texts.get(&field.key).map(|t| t.replace("\r\n", "\n")).filter(|t| !t.trim().is_empty());
            let pointer = format!("/data/texts/{}", field.key);
            let shown = scenes.iter().any(|s| s.id == field.scene);
            let Some(text) = given else {
                if field.required && shown {
                    let detail = format!("text {:?} is required", field.key);
                    self.fault(pointer, "field.required", detail);
                }
                continue;
            };
            let chars = text.chars().count();
            let lines = text.split('\n').count();
            if chars > field.max_chars as usize {
                let detail = format!("text {:?} has {chars} characters, {} are allowed", field.key, field.max_chars);
                self.fault(pointer, "text.too_long", detail);
            } else if lines > field.max_lines as usize {
                let detail = format!("text {:?} has {lines} lines, {} are allowed", field.key, field.max_lines);
                self.fault(pointer, "text.too_many_lines", detail);
            } else if text.chars().any(|c| c.is_control() && c != '\n') {
                let detail = format!("text {:?} has a control character", field.key);
                self.fault(pointer, "text.control_character", detail);
            } else {
                texts.insert(field.key.clone(), text);
            }
        }
        self.unknown_keys("texts", data.texts.keys(), manifest.texts.iter().map(|f| &f.key));
        texts
    }

    fn images(
        &mut self,
        data: &OrderData,
        scenes: &[SceneBinding],
    ) -> (BTreeMap<String, ImageBinding>, Vec<RenderAsset>) {
        let manifest = self.manifest;
        let (mut bindings, mut assets) = (BTreeMap::new(), vec![]);
        for (i, slot) in manifest.images.iter().enumerate() {
            let pointer = format!("/data/images/{}", slot.key);
            let Some(id) = data.images.get(&slot.key) else {
                if slot.required && scenes.iter().any(|s| s.id == slot.scene) {
                    let detail = format!("picture {:?} is required", slot.key);
                    self.fault(pointer, "field.required", detail);
                }
                continue;
            };
            let Some(file) = self.file(&pointer, *id, "image") else { continue };
            let extension = file.mime.strip_prefix("image/").unwrap_or("img").to_owned();
            let path = format!("assets/{i}.{extension}");
            assets.push(RenderAsset { path: path.clone(), blob: file.blob.clone() });
            bindings.insert(slot.key.clone(), ImageBinding { file: path, fit: slot.fit });
        }
        self.unknown_keys("images", data.images.keys(), manifest.images.iter().map(|f| &f.key));
        (bindings, assets)
    }

    fn file(&mut self, pointer: &str, id: Uuid, kind: &str) -> Option<&File> {
        let files = self.files;
        match files.iter().find(|f| f.id == id) {
            Some(file) if file.kind == kind => Some(file),
            Some(file) => {
                let detail = format!("file {id} is of kind {}, {kind} is needed", file.kind);
                self.fault(pointer.to_owned(), "file.wrong_kind", detail);
                None
            }
            None => {
                self.fault(pointer.to_owned(), "file.not_found", format!("there is no file {id}"));
                None
            }
        }
    }

    fn colors(&mut self, data: &OrderData) -> BTreeMap<String, String> {
        let manifest = self.manifest;
        let mut colors = BTreeMap::new();
        if let Some(id) = &data.theme {
            match manifest.themes.iter().find(|t| &t.id == id) {
                Some(theme) => colors.extend(theme.colors.clone()),
                None => {
                    let detail = format!("there is no theme {id:?}; {}", known(manifest.themes.iter().map(|t| &t.id)));
                    self.fault("/data/theme".into(), "theme.unknown", detail);
                }
            }
        }
        for (key, value) in &data.colors {
            if is_color(value) {
                colors.insert(key.clone(), value.to_ascii_lowercase());
            } else {
                let detail = format!("{value:?} is not #rrggbb");
                self.fault(format!("/data/colors/{key}"), "color.invalid", detail);
            }
        }
        self.unknown_keys("colors", data.colors.keys(), manifest.colors.iter().map(|f| &f.key));
        colors.retain(|key, _| manifest.colors.iter().any(|c| &c.key == key));
        colors
    }

    fn visibility(&mut self, data: &OrderData) -> BTreeMap<String, bool> {
        let manifest = self.manifest;
        self.unknown_keys("visibility", data.visibility.keys(), manifest.visibility.iter().map(|f| &f.key));
        let shown = |key: &String, default: bool| data.visibility.get(key).copied().unwrap_or(default);
        manifest.visibility.iter().map(|v| (v.key.clone(), shown(&v.key, v.default))).collect()
    }

    fn unknown_keys<'k>(
        &mut self,
        group: &str,
        given: impl Iterator<Item = &'k String>,
        fields: impl Iterator<Item = &'k String> + Clone,
    ) {
        for key in given {
            if !fields.clone().any(|f| f == key) {
                let detail = format!("the template has no field {key:?} in {group}; {}", known(fields.clone()));
                self.fault(format!("/data/{group}/{key}"), "field.unknown", detail);
            }
        }
    }

    fn tracks(&mut self, template: &Template, order: &RenderOrder, scenes: &[SceneBinding]) -> Vec<AudioTrack> {
        let mut tracks: Vec<AudioTrack> = self.music(template, order).into_iter().collect();
        tracks.extend(self.voice(order));
        tracks.extend(self.effects(template, order, scenes));
        tracks
    }

    fn music(&mut self, template: &Template, order: &RenderOrder) -> Option<AudioTrack> {
        let own = self.manifest.audio.music.as_ref();
        let wanted = match &order.audio.music {
            Some(None) => return None,
            Some(Some(music)) => music.clone(),
            None => OrderMusic::default(),
        };
        let (blob, owner, member) = match wanted.file {
            Some(id) => (self.file("/audio/music/file", id, "audio")?.blob.clone(), self.tenant_id, None),
            None => (template.package.clone(), template.tenant_id, Some(own?.file.clone())),
        };
        Some(AudioTrack {
            role: AudioRole::Music,
            blob,
            owner,
            member,
            volume: self.volume("/audio/music/volume", wanted.volume, own.map_or(0.8, |m| m.volume)),
            offset_seconds: 0.0,
            trim_start_seconds: 0.0,
            fade_in_seconds: self.seconds("/audio/music/fade_in", wanted.fade_in, own.map_or(0.2, |m| m.fade_in)),
            fade_out_seconds: self.seconds("/audio/music/fade_out", wanted.fade_out, own.map_or(1.0, |m| m.fade_out)),
            repeat: true,
        })
    }

    fn voice(&mut self, order: &RenderOrder) -> Option<AudioTrack> {
        let wanted = order.audio.voice_over.as_ref()?;
        let blob = self.file("/audio/voice_over/file", wanted.file, "audio")?.blob.clone();
        Some(AudioTrack {
            role: AudioRole::VoiceOver,
            blob,
            owner: self.tenant_id,
            member: None,
            volume: self.volume("/audio/voice_over/volume", wanted.volume, 1.0),
            offset_seconds: self.seconds("/audio/voice_over/offset_seconds", wanted.offset_seconds, 0.0),
            trim_start_seconds: self.seconds("/audio/voice_over/trim_start_seconds", wanted.trim_start_seconds, 0.0),
            fade_in_seconds: 0.0,
            fade_out_seconds: 0.0,
            repeat: false,
        })
    }

    fn effects(&mut self, template: &Template, order: &RenderOrder, scenes: &[SceneBinding]) -> Vec<AudioTrack> {
        let loudness = self.volume("/audio/effects_volume", order.audio.effects_volume, 1.0);
        if loudness == 0.0 {
            return vec![];
        }
        let mut tracks = vec![];
        let mut start = 0u32;
        for scene in scenes {
            for effect in self.manifest.audio.effects.iter().filter(|e| e.scene == scene.id) {
                tracks.push(AudioTrack {
                    role: AudioRole::Effect,
                    blob: template.package.clone(),
                    owner: template.tenant_id,
                    member: Some(effect.file.clone()),
                    volume: (effect.volume * loudness).min(2.0),
                    offset_seconds: (f64::from(start) / f64::from(self.manifest.fps) + effect.at_seconds).max(0.0),
                    trim_start_seconds: 0.0,
                    fade_in_seconds: 0.0,
                    fade_out_seconds: 0.0,
                    repeat: false,
                });
            }
            start += scene.frames.saturating_sub(self.manifest.transition_frames);
        }
        tracks
    }

    fn volume(&mut self, pointer: &str, given: Option<f64>, default: f64) -> f64 {
        self.within(pointer, given, default, 2.0, "audio.volume")
    }

    fn seconds(&mut self, pointer: &str, given: Option<f64>, default: f64) -> f64 {
        self.within(pointer, given, default, 3600.0, "audio.seconds")
    }

    fn within(&mut self, pointer: &str, given: Option<f64>, default: f64, most: f64, code: &str) -> f64 {
        let value = given.unwrap_or(default);
        if !(0.0..=most).contains(&value) {
            self.fault(pointer.to_owned(), code, format!("{value} is not between 0 and {most}"));
        }
        value
    }
}

/// The names there are, for a message; at most a dozen.
fn known<'k>(names: impl Iterator<Item = &'k String>) -> String {
    let names: Vec<&str> = names.take(12).map(String::as_str).collect();
    if names.is_empty() { "there are none".into() } else { format!("there are: {}", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contracts::storage::{BlobHash, BlobRef};
    use serde_json::{Value, json};

    fn blob(name: &str) -> BlobRef {
        BlobRef { sha256: BlobHash::of(name.as_bytes()), size_bytes: 1 }
    }

    fn template() -> Template {
        let label = json!({"en": "x"});
        let scene = |id: &str, required: bool| json!({"id": id, "label": label, "frames": 90, "min_frames": 60, "max_frames": 180, "required": required, "still_frame": 40});
        let text = |key: &str, scene: &str, required: bool| json!({"key": key, "scene": scene, "label": label, "required": required, "max_chars": 10, "max_lines": 2, "default": "d"});
        let manifest = json!({
            "format": 1, "slug": "promo", "version": 1, "kind": "lottie", "title": label, "description": label,
            "composition": "main", "width": 1920, "height": 1080, "fps": 30, "transition_frames": 15, "fonts": [],
            "texts": [text("title", "a", true), text("tagline", "b", true)],
            "images": [{"key": "logo", "scene": "a", "label": label, "required": false, "width": 9, "height": 9, "fit": "contain"}],
            "colors": [{"key": "primary", "label": label, "default": "#101010"}],
            "themes": [{"id": "sea", "label": label, "colors": {"primary": "#0000ff"}}],
            "visibility": [{"key": "badge", "label": label, "default": true}],
            "scenes": [scene("a", true), scene("b", false)],
            "audio": {"music": {"file": "audio/m.m4a", "volume": 0.8, "fade_in": 0.1, "fade_out": 1.0},
                      "effects": [{"file": "audio/w.m4a", "scene": "b", "at_seconds": 0.5, "volume": 0.5}], "ducking": true}
        });
        Template {
            tenant_id: Uuid::nil(),
            project_id: Uuid::nil(),
            version_id: Uuid::nil(),
            number: 1,
            manifest: Manifest::parse(manifest.to_string().as_bytes()).unwrap(),
            package: blob("package"),
            preview: None,
        }
    }

    fn file(id: u128, kind: &str) -> File {
        File {
            id: Uuid::from_u128(id),
            name: "f".into(),
            kind: kind.into(),
            mime: format!("{kind}/png"),
            blob: blob(kind),
            width: None,
            height: None,
            duration_ms: None,
            created_at: chrono::DateTime::UNIX_EPOCH,
        }
    }

    fn order(change: Value) -> RenderOrder {
        let mut order = json!({"template": "promo", "data": {"texts": {"title": "Hello", "tagline": "Bye"}}});
        merge(&mut order, change);
        serde_json::from_value(order).unwrap()
    }

    fn merge(into: &mut Value, change: Value) {
        match (into, change) {
            (Value::Object(into), Value::Object(change)) => {
                change.into_iter().for_each(|(k, v)| merge(into.entry(k).or_insert(Value::Null), v));
            }
            (into, change) => *into = change,
        }
    }

    fn frozen(change: Value) -> RenderSpec {
        freeze(Uuid::from_u128(7), &template(), &order(change), &[file(1, "image"), file(2, "audio")]).unwrap()
    }

    fn faults(change: Value) -> Vec<(String, String)> {
        let files = [file(1, "image"), file(2, "audio")];
        let faults = freeze(Uuid::from_u128(7), &template(), &order(change), &files).unwrap_err();
        faults.into_iter().map(|f| (f.pointer, f.code)).collect()
    }

    fn one(pointer: &str, code: &str) -> Vec<(String, String)> {
        vec![(pointer.to_owned(), code.to_owned())]
    }

    #[test]
    fn an_order_without_scenes_gets_the_templates_film() {
        let spec = frozen(json!({}));
        assert_eq!((spec.frames, spec.size), (165, [1920, 1080]));
        assert_eq!(spec.tracks.len(), 2);
        assert_eq!(spec.tracks[1].offset_seconds, 3.0, "scene b starts at frame 75, the effect half a second later");
    }

    #[test]
    fn a_theme_gives_colours_and_a_colour_wins_over_it() {
        assert_eq!(frozen(json!({"data": {"theme": "sea"}})).data.colors["primary"], "#0000ff");
        let own = json!({"data": {"theme": "sea", "colors": {"primary": "#FF0000"}}});
        assert_eq!(frozen(own).data.colors["primary"], "#ff0000");
    }

    #[test]
    fn pictures_get_a_place_in_the_package_that_no_customer_names() {
        let spec = frozen(json!({"data": {"images": {"logo": Uuid::from_u128(1)}}}));
        assert_eq!(spec.assets[0].path, "assets/0.png");
        assert_eq!(spec.data.images["logo"].file, "assets/0.png");
    }

    #[test]
    fn scenes_may_be_left_out_and_stretched() {
        let spec = frozen(json!({"data": {"scenes": [{"id": "a", "seconds": 4.0}], "texts": {"tagline": ""}}}));
        assert_eq!(spec.frames, 120);
    }

    #[test]
    fn what_is_said_of_scenes_that_are_left_out_is_warned_of() {
        let warned = |change: Value| unshown(&template().manifest, &order(change).data);
        let left_out = json!({"data": {"scenes": [{"id": "a"}]}});
        let warning = "field.not_shown: /data/texts/tagline is of the scene \"b\", which the film leaves out";
        assert_eq!(warned(left_out), [warning]);
        assert_eq!(warned(json!({"data": {"scenes": [{"id": "a"}], "texts": {"tagline": " "}}})), [""; 0]);
        let picture = json!({"data": {"scenes": [{"id": "b"}], "images": {"logo": Uuid::from_u128(1)}}});
        assert_eq!(warned(picture).len(), 2, "the title and the logo");
        for whole in [json!({}), json!({"data": {"scenes": [{"id": "b"}, {"id": "a"}]}})] {
            assert_eq!(warned(whole), [""; 0]);
        }
    }

    #[test]
    fn music_can_be_replaced_or_left_out() {
        assert!(frozen(json!({"audio": {"music": null, "effects_volume": 0.0}})).tracks.is_empty());
        let own = frozen(json!({"audio": {"music": {"file": Uuid::from_u128(2), "volume": 0.25}}}));
        assert_eq!((own.tracks[0].member.as_deref(), own.tracks[0].volume), (None, 0.25));
    }

    #[test]
    fn sizes_keep_the_shape_of_the_template() {
        assert_eq!(frozen(json!({"output": {"height": 720}})).size, [1280, 720]);
        assert_eq!(frozen(json!({"output": {"height": 150}})).size, [266, 150]);
    }

    #[test]
    fn what_must_be_installed_is_frozen_with_the_order() {
        assert!(frozen(json!({})).needs.is_empty());
        let mut template = template();
        template.manifest.kind = crate::contracts::render::Engine::AfterEffects;
        template.manifest.installed.fonts = vec!["Futura-Bold".into()];
        let spec = freeze(Uuid::from_u128(7), &template, &order(json!({})), &[]).unwrap();
        assert!(spec.needs.contains_key("font:Futura-Bold"));
    }

    #[test]
    fn a_preview_is_half_as_wide_and_high_and_made_at_once() {
        let spec = frozen(json!({"kind": "preview", "output": {"quality": "master"}}));
        assert_eq!((spec.size, spec.profile, spec.segments.len()), ([960, 540], EncodeProfile::Preview, 0));
        assert_eq!(frozen(json!({"kind": "preview", "output": {"height": 150}})).size, [134, 76]);
        assert_ne!(spec.sha256(), frozen(json!({"kind": "final"})).sha256());
    }

    #[test]
    fn every_fault_is_named_with_its_place() {
        let text = |t: &str| json!({"data": {"texts": {"title": t}}});
        assert_eq!(faults(text(" ")), one("/data/texts/title", "field.required"));
        assert_eq!(faults(text("12345678901")), one("/data/texts/title", "text.too_long"));
        assert_eq!(faults(text("a\nb\nc")), one("/data/texts/title", "text.too_many_lines"));
        assert_eq!(faults(text("a\u{7}")), one("/data/texts/title", "text.control_character"));
        let data = |d: Value| faults(json!({ "data": d }));
        assert_eq!(data(json!({"texts": {"titel": "x"}})), one("/data/texts/titel", "field.unknown"));
        assert_eq!(data(json!({"colors": {"primary": "red"}})), one("/data/colors/primary", "color.invalid"));
        assert_eq!(data(json!({"theme": "moon"})), one("/data/theme", "theme.unknown"));
        assert_eq!(data(json!({"images": {"logo": Uuid::from_u128(2)}})), one("/data/images/logo", "file.wrong_kind"));
        assert_eq!(data(json!({"images": {"logo": Uuid::from_u128(9)}})), one("/data/images/logo", "file.not_found"));
        assert_eq!(data(json!({"scenes": [{"id": "b"}]}))[0], one("/data/scenes", "scene.required")[0]);
        assert_eq!(data(json!({"scenes": [{"id": "a", "seconds": 60}]}))[0].1, "scene.duration");
        assert_eq!(faults(json!({"output": {"height": 721}})), one("/output/height", "output.height"));
        assert_eq!(faults(json!({"audio": {"music": {"volume": 3}}})), one("/audio/music/volume", "audio.volume"));
    }
}
