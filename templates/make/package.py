"""Puts a template together: scenes into the main composition, and the manifest beside it.

The manifest and the project are written from the same description, so a field, a colour or a length is said once.
"""

import json
from pathlib import Path

from lottie import ASCENT, IN, fill, group, keys, layer, rect, rgb, shape

TEMPLATES = Path(__file__).resolve().parent.parent
VERSION = 1


class Template:
    """One package. Fill it with `colour`, `text`, `image`, `scene` …, then `write` it."""

    def __init__(self, slug, title, description, size, transition, fps=30):
        self.slug, self.title, self.description = slug, title, description
        self.width, self.height = size
        self.fps, self.transition = fps, transition
        self.texts, self.images, self.colours, self.themes, self.switches, self.scenes = [], [], [], [], [], []
        self.assets, self.layers, self.weights, self.audio, self.push = [], {}, [], {}, {}

    @property
    def folder(self):
        return TEMPLATES / self.slug

    # ---- what a customer may change

    def colour(self, key, label, default):
        self.colours.append({"key": key, "label": label, "default": default})

    def theme(self, key, label, values):
        """A palette: one value for each colour, in their order."""
        colours = dict(zip((c["key"] for c in self.colours), values.split(), strict=True))
        self.themes.append({"id": key, "label": label, "colors": colours})

    def text(self, key, scene, label, default, chars, lines=1, required=False):
        self.texts.append(
            {
                "key": key,
                "scene": scene,
                "label": label,
                "required": required,
                "max_chars": chars,
                "max_lines": lines,
                "default": default,
            }
        )
        return default

    def image(self, key, scene, label, size, file, fit="cover", required=False):
        """A picture slot and its asset; returns the asset's id."""
        self.images.append(
            {"key": key, "scene": scene, "label": label, "required": required, "width": size[0], "height": size[1], "fit": fit}
        )
        return self.own_image(f"picture:{key}", size, file)

    def own_image(self, key, size, file):
        self.assets.append({"id": key, "w": size[0], "h": size[1], "u": "images/", "p": file, "e": 0})
        return key

    def composition(self, key, layers):
        """Layers that a scene shows as one."""
        self.assets.append({"id": key, "nm": key, "fr": self.fps, "layers": numbered(layers)})
        return key

    def switch(self, key, label, default=True):
        self.switches.append({"key": key, "label": label, "default": default})
        return key

    def default(self, key):
        return next(t["default"] for t in self.texts if t["key"] == key)

    # ---- what it is made of

    def scene(self, key, label, frames, still, elastic, layers, shortest=None, longest=300, required=True, push=True):
        """A scene of `frames`. `elastic` = (first frame, frames) may be slowed or hurried when its length changes;
        `still` is the frame for its picture; `push` lets it grow a little while the next scene covers it."""
        shortest = shortest or frames - int(elastic[1] * 0.75)
        self.scenes.append(
            {
                "id": key,
                "label": label,
                "frames": frames,
                "min_frames": shortest,
                "max_frames": longest,
                "required": required,
                "still_frame": still,
            }
        )
        self.layers[key] = (numbered(layers), elastic, push)

    def start_of(self, key):
        at = 0
        for scene in self.scenes:
            if scene["id"] == key:
                return at
            at += scene["frames"] - self.transition
        raise KeyError(key)

    @property
    def frames(self):
        return sum(s["frames"] for s in self.scenes) - (len(self.scenes) - 1) * self.transition

    def write(self):
        self.folder.mkdir(exist_ok=True)
        project, manifest = self.project(), self.manifest()
        (self.folder / "project.json").write_text(json.dumps(project, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")
        (self.folder / "template.json").write_text(json.dumps(manifest, ensure_ascii=False, indent=2) + "\n", "utf-8")
        print(f"{self.slug}: {len(self.scenes)} scenes, {self.frames} frames, {self.frames / self.fps:.1f} s")

    def project(self):
        main, markers = [], []
        middle = (self.width / 2, self.height / 2)
        for place, scene in enumerate(self.scenes):
            key, start, end = scene["id"], self.start_of(scene["id"]), self.start_of(scene["id"]) + scene["frames"]
            _, elastic, push = self.layers[key]
            grow = {}
            if push and place + 1 < len(self.scenes):
                grow = {"s": keys((end - self.transition, [100, 100], IN), (end, [107, 107]))}
            main.append(
                {
                    **layer(0, f"scene:{key}", (start, end), p=middle, a=middle, **grow),
                    "refId": f"scene:{key}",
                    "st": start,
                    "w": self.width,
                    "h": self.height,
                }
            )
            markers.append({"cm": f"stretch:{key}", "tm": start + elastic[0], "dr": elastic[1]})
        # Below all scenes: what is seen before the first one has opened. It outlasts any length the film may get.
        ground = shape("ground", (0, 9000), group(rect(self.width, self.height), fill(self.colours[0]["key"])), p=middle)
        scenes = [
            {"id": f"scene:{key}", "nm": f"scene:{key}", "fr": self.fps, "layers": layers}
            for key, (layers, _, _) in self.layers.items()
        ]
        doc = {
            "v": "5.9.6",
            "fr": self.fps,
            "ip": 0,
            "op": self.frames,
            "w": self.width,
            "h": self.height,
            "nm": "main",
            "ddd": 0,
            "fonts": {
                "list": [
                    {"fName": f"Vazirmatn-{w}", "fFamily": "Vazirmatn", "fStyle": w, "ascent": round(ASCENT * 100)}
                    for w in self.weights
                ]
            },
            "assets": scenes + self.assets,
            "layers": numbered([*reversed(main), ground]),
            "markers": markers,
        }
        self.tint(doc)
        return doc

    def tint(self, part):
        """Turns the colour tokens that shapes and texts carry into the default colours."""
        value = {c["key"]: rgb(c["default"]) for c in self.colours}
        if isinstance(part, list):
            for item in part:
                self.tint(item)
        elif isinstance(part, dict):
            if part.get("ty") in ("fl", "st") and isinstance(part["c"], str):
                part["c"] = {"a": 0, "k": value[part["c"]] + [1]}
            elif part.get("ty") == "gf" and isinstance(part["g"]["k"]["k"][0], dict):
                part["g"]["k"]["k"] = [n for stop in part["g"]["k"]["k"] for n in (stop["at"], *value[stop["token"]])]
            elif isinstance(part.get("fc"), str):
                part["fc"] = value[part["fc"]]
            for item in part.values():
                self.tint(item)

    def manifest(self):
        fonts = [
            {"family": "Vazirmatn", "style": w, "file": f"fonts/Vazirmatn-{w}.ttf", "licence": "OFL-1.1"} for w in self.weights
        ]
        return {
            "format": 1,
            "slug": self.slug,
            "version": VERSION,
            "kind": "lottie",
            "title": self.title,
            "description": self.description,
            "composition": "main",
            "width": self.width,
            "height": self.height,
            "fps": self.fps,
            "transition_frames": self.transition,
            "fonts": fonts,
            "texts": self.texts,
            "images": self.images,
            "colors": self.colours,
            "themes": self.themes,
            "visibility": self.switches,
            "scenes": self.scenes,
            "audio": self.audio,
            "samples": [{"locale": locale, "file": f"samples/{locale}.json"} for locale in ("en", "fa")],
        }


def numbered(layers):
    """Layers get their index by place; a parent is named by the layer itself and becomes its index."""
    for place, one in enumerate(layers):
        one["ind"] = place + 1
    for one in layers:
        if isinstance(one.get("parent"), dict):
            one["parent"] = one["parent"]["ind"]
    return layers
