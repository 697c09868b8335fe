#!/usr/bin/env python3
"""Renders samples: `python3 templates/make/preview.py` writes every package's preview.png, the poster of its shelf.

`preview.py SLUG LOCALE FOLDER [frame …]` writes frames of a sample instead (all without numbers), to look at them. The renderer is
`target/release/flatrender-aerender`, or what RENDERER names; ffmpeg makes the poster 960 pixels wide.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TEMPLATES = Path(__file__).resolve().parent.parent
RENDERER = os.environ.get("RENDERER", str(TEMPLATES.parent / "target/release/flatrender-aerender"))
POSTERS = {"promo": 58, "lower-third": 100, "story": 64}


def data_of(folder, locale):
    """What a driver would write for the sample: every colour of its theme, every switch."""
    manifest = json.loads((folder / "template.json").read_text("utf-8"))
    sample = json.loads((folder / f"samples/{locale}.json").read_text("utf-8"))
    fit = {slot["key"]: slot["fit"] for slot in manifest["images"]}
    theme = next((t["colors"] for t in manifest["themes"] if t["id"] == sample.get("theme")), {})
    return {
        "version": 1,
        "texts": sample["texts"],
        "images": {key: {"file": file, "fit": fit[key]} for key, file in sample["images"].items()},
        "colors": {c["key"]: c["default"] for c in manifest["colors"]} | theme | sample.get("colors", {}),
        "visibility": {v["key"]: v["default"] for v in manifest["visibility"]} | sample.get("visibility", {}),
    }


def render(slug, locale, out, frames=None):
    """Renders `frames`, or all, of a sample as `out/f_00000.png` …"""
    with tempfile.TemporaryDirectory() as room:
        package = shutil.copytree(TEMPLATES / slug, Path(room, slug))
        (package / "data.json").write_text(json.dumps(data_of(package, locale)), "utf-8")
        for span in [["-s", str(f), "-e", str(f)] for f in frames] if frames else [[]]:
            command = [RENDERER, "-project", str(package), "-comp", "main", *span, "-output", f"{out}/f_[#####].png"]
            done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
            for line in done.stdout.splitlines() + done.stderr.splitlines():
                if "WARNING" in line or "ERROR" in line:
                    print(f"{slug} {locale}: {line}")
            done.check_returncode()


def poster(slug, frame):
    with tempfile.TemporaryDirectory() as room:
        render(slug, "en", room, [frame])
        # A palette keeps an upright poster small; the dither hides the steps of its gradients.
        scale = "scale=960:-2:flags=lanczos,split[a][b];[a]palettegen=max_colors=256[p];[b][p]paletteuse=dither=sierra2_4a"
        subprocess.run(
            [
                "ffmpeg",
                "-nostdin",
                "-y",
                "-v",
                "error",
                "-i",
                f"{room}/f_{frame:05}.png",
                "-filter_complex",
                scale,
                str(TEMPLATES / slug / "preview.png"),
            ],
            check=True,
        )


if __name__ == "__main__":
    if len(sys.argv) > 3:
        Path(sys.argv[3]).mkdir(parents=True, exist_ok=True)
        render(sys.argv[1], sys.argv[2], sys.argv[3], [int(n) for n in sys.argv[4:]])
    else:
        for slug, frame in POSTERS.items():
            poster(slug, frame)
