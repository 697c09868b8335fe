#!/usr/bin/env python3
"""Checks the packages beside it: `python3 templates/make/check.py [slug …]`. Prints what is wrong; exits 1 if anything is.

The manifest and the project must name the same fields, every file they speak of must be there, and the samples must be
what a customer could send.
"""

import json
import re
import struct
import sys
from pathlib import Path

TEMPLATES = Path(__file__).resolve().parent.parent
PACKAGE_LIMIT, PICTURE_LIMIT = 2_500_000, 150_000
COLOUR = re.compile(r"#[0-9a-f]{6}")
KEY = re.compile(r"[a-z][a-z0-9_]*")


class Check:
    """One package; collects what is wrong with it."""

    def __init__(self, folder):
        self.folder, self.wrong = folder, []
        self.manifest, self.project = self.read("template.json"), self.read("project.json")
        if self.manifest and self.project:
            self.fields()
            self.scenes()
            self.files()
            self.contrast()
            for sample in self.manifest["samples"]:
                self.sample(sample)

    def say(self, what):
        self.wrong.append(what)

    def read(self, name):
        try:
            return json.loads((self.folder / name).read_text("utf-8"))
        except (OSError, ValueError) as error:
            self.say(f"{name}: {error}")
            return None

    def same(self, what, in_manifest, in_project):
        for key in sorted(set(in_manifest) - set(in_project)):
            self.say(f"{what} {key}: in template.json but not in project.json")
        for key in sorted(set(in_project) - set(in_manifest)):
            self.say(f"{what} {key}: in project.json but not in template.json")
        for key in {k for k in in_manifest if list(in_manifest).count(k) > 1}:
            self.say(f"{what} {key}: twice in template.json")

    # ---- the names in the project

    def names(self):
        """Everything the project's names ask for: texts with their layers, pictures with their assets, tokens, switches."""
        texts, images, tokens, switches, fonts = {}, {}, set(), set(), set()
        assets = {a["id"]: a for a in self.project["assets"]}

        def shapes(items):
            for item in items:
                if item["ty"] in ("fl", "st", "gf", "gs") and item.get("nm", "").startswith("color:"):
                    own = item["nm"][6:].split(",")
                    tokens.update(own)
                    if item["ty"] == "gf" and len(own) != item["g"]["p"]:
                        self.say(f"gradient {item['nm']}: {item['g']['p']} stops")
                shapes(item.get("it", []))

        for layer in self.layers():
            name, _, switch = layer["nm"].partition("?")
            if switch:
                switches.add(switch)
            if layer["ty"] == 5:
                key, _, token = name.removeprefix("txt:").partition("@")
                if not name.startswith("txt:"):
                    self.say(f"text layer {name}: its name does not begin with txt:")
                texts.setdefault(key, []).append(layer["t"]["d"]["k"][0]["s"])
                tokens.update([token] if token else [])
                fonts.add(layer["t"]["d"]["k"][0]["s"]["f"])
            if layer["ty"] == 2:
                if layer["refId"] not in assets:
                    self.say(f"layer {name}: no asset {layer['refId']}")
                elif name.startswith("img:"):
                    images[name.removeprefix("img:")] = assets[layer["refId"]]
            shapes(layer.get("shapes", []))
        return texts, images, tokens, switches, fonts

    def layers(self):
        yield from self.project["layers"]
        for asset in self.project["assets"]:
            yield from asset.get("layers", [])

    def fields(self):
        texts, images, tokens, switches, fonts = self.names()
        manifest = self.manifest
        keys = lambda part, key="key": [one[key] for one in manifest[part]]
        self.same("text", keys("texts"), texts)
        self.same("image", keys("images"), images)
        self.same("colour", keys("colors"), tokens)
        self.same("switch", keys("visibility"), switches)
        for part in ("texts", "images", "colors", "visibility", "scenes"):
            for one in manifest[part]:
                key = one.get("key") or one["id"]
                if not KEY.fullmatch(key):
                    self.say(f"{part} {key}: not a plain key")
                if set(one["label"]) != {"en", "fa"} or not all(one["label"].values()):
                    self.say(f"{part} {key}: needs a label in English and in Persian")
                if one.get("scene", None) not in (None, *keys("scenes", "id")):
                    self.say(f"{part} {key}: no scene {one['scene']}")
        for text in manifest["texts"]:
            self.length(text, text["default"], "its default")
            for style in texts.get(text["key"], []):
                if style["t"] != text["default"]:
                    self.say(f"text {text['key']}: the project says {style['t']!r}, the manifest {text['default']!r}")
                if style["sz"][1] * 1.01 < (style["lh"] * (text["max_lines"] - 0.2)):
                    self.say(f"text {text['key']}: its box has no room for {text['max_lines']} lines")
        for image in manifest["images"]:
            asset = images.get(image["key"], {})
            if (asset.get("w"), asset.get("h")) != (image["width"], image["height"]):
                self.say(f"image {image['key']}: its slot is {asset.get('w')} x {asset.get('h')}, the manifest says otherwise")
        for colour in manifest["colors"]:
            if not COLOUR.fullmatch(colour["default"]):
                self.say(f"colour {colour['key']}: {colour['default']} is not #rrggbb")
        for theme in manifest["themes"]:
            if set(theme["colors"]) != set(keys("colors")) or not all(COLOUR.fullmatch(c) for c in theme["colors"].values()):
                self.say(f"theme {theme['id']}: must give #rrggbb for every colour")
        listed = {f"{f['fName']}": f for f in self.project["fonts"]["list"]}
        offered = {(f["family"], f["style"]) for f in manifest["fonts"]}
        for name in sorted(fonts):
            if name not in listed or (listed[name]["fFamily"], listed[name]["fStyle"]) not in offered:
                self.say(f"font {name}: not in the package's list")

    # ---- time

    def scenes(self):
        manifest, project = self.manifest, self.project
        for key in ("width", "height", "fps"):
            if manifest[key] != project[{"width": "w", "height": "h", "fps": "fr"}[key]]:
                self.say(f"{key}: {manifest[key]} in template.json, not so in project.json")
        if project["nm"] != manifest["composition"]:
            self.say(f"composition: {manifest['composition']!r} is not the project's {project['nm']!r}")
        overlap, at = manifest["transition_frames"], 0
        used = {
            layer["refId"].removeprefix("scene:"): layer
            for layer in project["layers"]
            if str(layer.get("refId", "")).startswith("scene:")
        }
        assets = {a["id"]: a for a in project["assets"]}
        markers = {m["cm"]: m for m in project["markers"]}
        self.same("scene", [s["id"] for s in manifest["scenes"]], used)
        self.same("marker", [f"stretch:{s['id']}" for s in manifest["scenes"]], markers)
        for scene in manifest["scenes"]:
            key, frames = scene["id"], scene["frames"]
            layer, asset, marker = used.get(key), assets.get(f"scene:{key}"), markers.get(f"stretch:{key}")
            if not (layer and asset and marker):
                continue
            if asset["nm"] != f"scene:{key}":
                self.say(f"scene {key}: its composition is called {asset['nm']}")
            if (layer["ip"], layer["op"], layer["st"]) != (at, at + frames, at):
                self.say(f"scene {key}: stands at {layer['ip']}..{layer['op']} in main, should at {at}..{at + frames}")
            if not scene["min_frames"] <= frames <= scene["max_frames"]:
                self.say(f"scene {key}: {frames} frames are outside {scene['min_frames']}..{scene['max_frames']}")
            if not overlap <= scene["still_frame"] < frames:
                self.say(f"scene {key}: its still would show a transition")
            if not (at <= marker["tm"] and marker["tm"] + marker["dr"] <= at + frames):
                self.say(f"scene {key}: its stretch lies outside it")
            if frames - scene["min_frames"] >= marker["dr"]:
                self.say(f"scene {key}: the stretch of {marker['dr']} frames cannot give up {frames - scene['min_frames']}")
            if scene["min_frames"] <= 2 * overlap:
                self.say(f"scene {key}: shorter than its two transitions")
            at += frames - overlap
        if project["op"] != at + overlap:
            self.say(f"length: {project['op']} frames in project.json, {at + overlap} by the scenes")

    # ---- files

    def files(self):
        manifest = self.manifest
        named = [f["file"] for f in manifest["fonts"]] + [s["file"] for s in manifest["samples"]]
        audio = manifest["audio"]
        named += [audio["music"]["file"]] + [effect["file"] for effect in audio["effects"]]
        named += [a["u"] + a["p"] for a in self.project["assets"] if "p" in a] + ["preview.png", "fonts/OFL.txt"]
        for name in named:
            if not (self.folder / name).is_file():
                self.say(f"{name}: not there")
        for effect in audio["effects"]:
            if effect["scene"] not in [s["id"] for s in manifest["scenes"]]:
                self.say(f"{effect['file']}: no scene {effect['scene']}")
        for name in ("data.json", "assets"):
            if (self.folder / name).exists():
                self.say(f"{name}: belongs to a render, not to the package")
        size = sum(f.stat().st_size for f in self.folder.rglob("*") if f.is_file())
        if size > PACKAGE_LIMIT:
            self.say(f"{size} bytes are too many for a package")

    # ---- colours

    def contrast(self):
        """Words must be readable on what they stand on, in every theme (3 to 1 is enough for large ones, WCAG 2.2)."""
        pairs = [("ink", on, 7) for on in ("background", "surface")] + [
            ("text", "primary", 7),
            ("text", "secondary", 3),
            ("primary", "accent", 4.5),
        ]
        for theme in self.manifest["themes"]:
            colours = theme["colors"]
            for words, ground, least in pairs:
                if words in colours and ground in colours:
                    ratio = contrast(colours[words], colours[ground])
                    if ratio < least:
                        self.say(f"theme {theme['id']}: {words} on {ground} has a contrast of {ratio:.1f}, less than {least}")

    # ---- samples

    def length(self, text, words, what):
        if len(words) > text["max_chars"]:
            self.say(f"text {text['key']}: {what} has {len(words)} characters, more than {text['max_chars']}")
        if words.count("\n") >= text["max_lines"]:
            self.say(f"text {text['key']}: {what} has more than {text['max_lines']} lines")

    def sample(self, entry):
        name, manifest = entry["file"], self.manifest
        sample = self.read(name)
        if sample is None:
            return
        for key in set(sample) - {"texts", "images", "colors", "theme", "visibility", "scenes"}:
            self.say(f"{name}: {key} is not part of a sample")
        fields = {
            part: {one.get("key") or one["id"]: one for one in manifest[part]}
            for part in ("texts", "images", "colors", "visibility", "scenes", "themes")
        }
        for part in ("texts", "images", "colors", "visibility"):
            for key in set(sample.get(part, {})) - set(fields[part]):
                self.say(f"{name}: {part}.{key} is no field")
        for key, field in fields["texts"].items():
            if key in sample.get("texts", {}):
                self.length(field, sample["texts"][key], name)
            elif field["required"]:
                self.say(f"{name}: texts.{key} is required")
        for key, field in fields["images"].items():
            if key not in sample.get("images", {}) and field["required"]:
                self.say(f"{name}: images.{key} is required")
        for key, file in sample.get("images", {}).items():
            path = self.folder / file
            if not path.is_file():
                self.say(f"{name}: {file} is not there")
            elif path.stat().st_size > PICTURE_LIMIT:
                self.say(f"{file}: {path.stat().st_size} bytes are more than {PICTURE_LIMIT}")
            elif size_of(path) is None:
                self.say(f"{file}: neither PNG nor JPEG")
        if sample.get("theme") not in (None, *fields["themes"]):
            self.say(f"{name}: no theme {sample['theme']}")
        for scene in sample.get("scenes", []):
            field = fields["scenes"].get(scene["id"])
            if field is None:
                self.say(f"{name}: no scene {scene['id']}")
            elif "seconds" in scene and not field["min_frames"] <= round(scene["seconds"] * manifest["fps"]) <= field["max_frames"]:
                self.say(f"{name}: scene {scene['id']} cannot last {scene['seconds']} s")


def contrast(one, other):
    """Contrast ratio of two colours as WCAG 2 has it, 1 to 21."""

    def light(colour):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    a, b = sorted((light(one), light(other)))
    return (b + 0.05) / (a + 0.05)


def size_of(path):
    """Width and height of a PNG or JPEG, or None."""
    data = path.read_bytes()
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return struct.unpack(">II", data[16:24])
    at = 2
    while data[:2] == b"\xff\xd8" and at + 9 < len(data):
        kind, length = data[at + 1], struct.unpack(">H", data[at + 2 : at + 4])[0]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            return struct.unpack(">HH", data[at + 5 : at + 9])[::-1]
        at += 2 + length
    return None


if __name__ == "__main__":
    folders = [TEMPLATES / slug for slug in sys.argv[1:]] or sorted(p.parent for p in TEMPLATES.glob("*/template.json"))
    failed = False
    for folder in folders:
        wrong = Check(folder).wrong
        failed |= bool(wrong)
        print(f"{folder.name}: {'well' if not wrong else f'{len(wrong)} wrong'}")
        for line in wrong:
            print(f"  {line}")
    sys.exit(1 if failed or not folders else 0)
