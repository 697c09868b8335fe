"""Lottie building blocks: keyframes, shapes, layers, texts.

Every function returns plain dicts and lists in the Bodymovin 5.x schema. Positions are pixels from the
composition's top left, times are frames of the composition the layer stands in. An argument that may move takes
either a plain value or what `keys` returns. Nothing here knows a template.
"""

# How a keyframe leads to the next: cubic-bezier control points, as in CSS.
LINEAR = (0.33, 0.33, 0.67, 0.67)
OUT = (0.16, 1, 0.3, 1)
SOFT = (0.33, 0, 0.15, 1)
IN_OUT = (0.72, 0, 0.18, 1)
IN = (0.6, 0, 0.9, 0.5)
BACK = (0.3, 1.5, 0.55, 1)
HOLD = "hold"


def still(value):
    return {"a": 0, "k": value}


def keys(*stops, ease=OUT):
    """Keyframes `(frame, value)` or `(frame, value, ease)`; the ease is that of the leg which starts there."""
    out = []
    for place, stop in enumerate(stops):
        value = stop[1] if isinstance(stop[1], (list, tuple)) else [stop[1]]
        key = {"t": stop[0], "s": list(value)}
        if place + 1 < len(stops):
            curve = stop[2] if len(stop) > 2 else ease
            if curve == HOLD:
                key["h"] = 1
            else:
                key["o"] = {"x": [curve[0]], "y": [curve[1]]}
                key["i"] = {"x": [curve[2]], "y": [curve[3]]}
        out.append(key)
    return {"a": 1, "k": out}


def prop(value, third=None):
    """A property from a plain value or keyframes; `third` completes two-dimensional values to three."""
    if isinstance(value, dict):
        if third is not None:
            for key in value["k"]:
                if len(key["s"]) == 2:
                    key["s"] = key["s"] + [third]
        return value
    if isinstance(value, (list, tuple)):
        value = list(value) + ([third] if third is not None and len(value) == 2 else [])
    return still(value)


def rgb(colour):
    """`#rrggbb` as three numbers from 0 to 1."""
    return [round(int(colour[at : at + 2], 16) / 255, 4) for at in (1, 3, 5)]


# ---- shapes ----------------------------------------------------------------------------------------------------


def group(*items, p=(0, 0), a=(0, 0), s=(100, 100), r=0, o=100, name="group"):
    transform = {"ty": "tr", "p": prop(p), "a": prop(a), "s": prop(s), "r": prop(r), "o": prop(o)}
    return {"ty": "gr", "nm": name, "it": [*items, transform]}


def rect(width, height=None, r=0, p=(0, 0)):
    """A rectangle around `p`; `width` may be keyframes of `[width, height]`."""
    return {"ty": "rc", "d": 1, "s": prop(width if isinstance(width, dict) else (width, height)), "p": prop(p), "r": prop(r)}


def ellipse(size, p=(0, 0)):
    """A circle of diameter `size`, or an ellipse from a pair or keyframes."""
    return {"ty": "el", "d": 1, "s": prop(size if isinstance(size, (dict, tuple, list)) else (size, size)), "p": prop(p)}


def points(corners, closed=True, ins=None, outs=None):
    none = [[0, 0] for _ in corners]
    return {"c": closed, "v": [list(c) for c in corners], "i": ins or none, "o": outs or none}


def path(corners, closed=True, ins=None, outs=None):
    return {"ty": "sh", "ks": still(points(corners, closed, ins, outs))}


def rounded(width, height, r, centre=(0, 0)):
    """The outline of a rounded rectangle as bezier points, for masks."""
    x, y, w, h, k = centre[0], centre[1], width / 2, height / 2, r * 0.5523
    corners = [(-w + r, -h), (w - r, -h), (w, -h + r), (w, h - r), (w - r, h), (-w + r, h), (-w, h - r), (-w, -h + r)]
    ins = [(-k, 0), (0, 0), (0, -k), (0, 0), (k, 0), (0, 0), (0, k), (0, 0)]
    outs = [(0, 0), (k, 0), (0, 0), (0, k), (0, 0), (-k, 0), (0, 0), (0, -k)]
    trim3 = lambda pairs: [[round(a, 3), round(b, 3)] for a, b in pairs]
    return points(trim3([(x + a, y + b) for a, b in corners]), True, trim3(ins), trim3(outs))


def fill(colour, o=100):
    """A fill of a colour token, or of a fixed colour when it starts with `#`."""
    fixed = colour.startswith("#")
    return {
        "ty": "fl",
        "nm": "fill" if fixed else f"color:{colour}",
        "c": colour if not fixed else still(rgb(colour) + [1]),
        "o": prop(o),
        "r": 1,
    }


def stroke(colour, width, o=100, dash=None):
    fixed = colour.startswith("#")
    line = {
        "ty": "st",
        "nm": "stroke" if fixed else f"color:{colour}",
        "c": colour if not fixed else still(rgb(colour) + [1]),
        "o": prop(o),
        "w": prop(width),
        "lc": 2,
        "lj": 2,
    }
    if dash:
        line["d"] = [{"n": n, "v": prop(v)} for n, v in zip("dgo", (*dash, 0))]
    return line


def gradient(tokens, start, end, o=100, radial=False):
    """A gradient through colour tokens, evenly spaced; its points are in the group's own space."""
    stops = [{"at": round(place / (len(tokens) - 1), 4), "token": token} for place, token in enumerate(tokens)]
    return {
        "ty": "gf",
        "nm": "color:" + ",".join(tokens),
        "o": prop(o),
        "r": 1,
        "t": 2 if radial else 1,
        "s": prop(start),
        "e": prop(end),
        "g": {"p": len(tokens), "k": still(stops)},
    }


def fade(colour, start, end, alphas=(100, 0), radial=False):
    """A fixed colour that fades along a gradient (for shades over pictures)."""
    first, last = alphas[0] / 100, alphas[-1] / 100
    c = rgb(colour)
    return {
        "ty": "gf",
        "nm": "shade",
        "o": still(100),
        "r": 1,
        "t": 2 if radial else 1,
        "s": prop(start),
        "e": prop(end),
        "g": {"p": 2, "k": still([0, *c, 1, *c, 0, first, 1, last])},
    }


def trim(start, end, offset=0):
    return {"ty": "tm", "s": prop(start), "e": prop(end), "o": prop(offset), "m": 1}


# ---- layers ----------------------------------------------------------------------------------------------------


def transform(p=(0, 0), a=(0, 0), s=(100, 100), r=0, o=100):
    return {"p": prop(p, 0), "a": prop(a, 0), "s": prop(s, 100), "r": prop(r), "o": prop(o)}


def layer(kind, name, span, show=None, **more):
    """`span` is (first frame, frame after the last); `show` is the visibility key that may hide the layer."""
    where = {key: more.pop(key) for key in ("p", "a", "s", "r", "o") if key in more}
    return {
        "ddd": 0,
        "ty": kind,
        "nm": f"{name}?{show}" if show else name,
        "sr": 1,
        "ks": transform(**where),
        "ao": 0,
        "ip": span[0],
        "op": span[1],
        "st": 0,
        "bm": 0,
        **more,
    }


def shape(name, span, *groups, **more):
    return layer(4, name, span, shapes=list(groups), **more)


def null(name, span, **more):
    return layer(3, name, span, **more)


def picture(key, asset, span, show=None, **more):
    """A picture slot: the customer's picture `key`, or the asset's own."""
    return layer(2, f"img:{key}", span, show, refId=asset, **more)


def plain_picture(name, asset, span, **more):
    """A picture that belongs to the template and cannot be changed."""
    return layer(2, name, span, refId=asset, **more)


def composition(name, asset, span, size, show=None, **more):
    """Another composition as one layer."""
    return layer(0, name, span, show, refId=asset, w=size[0], h=size[1], **more)


def mask(outline):
    """One mask; `outline` is points, or `(frame, points, ease)` stops for a mask that moves."""
    if isinstance(outline, dict):
        track = still(outline)
    else:
        track = {"a": 1, "k": []}
        for frame, corners, *curve in outline:
            key = {"t": frame, "s": [corners]}
            if frame != outline[-1][0]:
                x1, y1, x2, y2 = curve[0] if curve else OUT
                key["o"], key["i"] = {"x": x1, "y": y1}, {"x": x2, "y": y2}
            track["k"].append(key)
    return {"hasMask": True, "masksProperties": [{"inv": False, "mode": "a", "o": still(100), "x": still(0), "pt": track}]}


def shadow(opacity=40, distance=14, softness=50):
    """A drop shadow below. Dear to draw: one or two in a scene, and on small layers."""
    part = lambda kind, name, value: {"ty": kind, "nm": name, "v": still(value)}
    return {
        "ef": [
            {
                "ty": 25,
                "nm": "Drop Shadow",
                "en": 1,
                "ef": [
                    part(2, "Shadow Color", [0, 0, 0, 1]),
                    part(0, "Opacity", round(opacity * 2.55, 1)),
                    part(0, "Direction", 180),
                    part(0, "Distance", distance),
                    part(0, "Softness", softness),
                ],
            }
        ]
    }


# ---- texts -----------------------------------------------------------------------------------------------------

LETTERS, WORDS, LINES = 1, 3, 4  # what a text animator moves one after the other (joined scripts: words at least)
START, END, CENTRE = 0, 1, 2  # START is left, and right for a right-to-left text
ASCENT = 0.92  # from a box's top to its first baseline, as a share of the size; said in the project's fonts
CAPITALS = 0.69  # height of the letters to the eye, between Vazirmatn's capitals and its Persian letters


def text(key, words, token, size, box, span, weight="Bold", align=CENTRE, leading=1.3, spacing=0, enter=None, show=None, **more):
    """A text in a box around the layer's position; a text too long for `box` is set smaller.

    The box stands so that its full number of lines is centred on the layer's position by the eye: between the first line's
    capitals and the last baseline. `enter` is what the function `enter` returns; `token` is the colour the words take.
    """
    width, height = box
    step = round(size * leading, 2)
    lines = max(1, int(height / step + 0.2))
    if lines == 1:
        height = round(0.84 * step, 2)  # so that a long text shrinks to half its size before it takes a second line
    top = CAPITALS / 2 * size - (lines - 1) * step / 2 - ASCENT * size
    style = {
        "s": size,
        "f": f"Vazirmatn-{weight}",
        "t": words,
        "j": align,
        "tr": spacing,
        "lh": step,
        "ls": 0,
        "fc": token,
        "sz": [width, height],
        "ps": [-width / 2, round(top, 2)],
    }
    return layer(
        5,
        f"txt:{key}@{token}",
        span,
        show,
        t={"d": {"k": [{"s": style, "t": 0}]}, "p": {}, "m": {"g": 1, "a": still([0, 0])}, "a": enter or []},
        **more,
    )


def enter(start, frames, unit=WORDS, dy=0, dx=0, o=0, s=None, r=None, ease=SOFT):
    """A text animator: from `start` on, for `frames`, one unit after the other comes to its place."""
    change = {"o": still(o)}
    if dx or dy:
        change["p"] = still([dx, dy, 0])
    if s is not None:
        change["s"] = still([s, s, 100])
    if r is not None:
        change["r"] = still(r)
    run = {
        "t": 0,
        "b": unit,
        "rn": 0,
        "sh": 2,
        "a": still(100),
        "r": 1,
        "s": still(0),
        "e": still(100),
        "ne": still(0),
        "xe": still(0),
        "sm": still(100),
        "o": keys((start, -100, ease), (start + frames, 100)),
    }
    return [{"nm": "enter", "s": run, "a": change}]
