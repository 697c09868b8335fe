"""Ornaments and scene openings that the templates share.

A scene opens by itself: its first frames draw its own ground over the scene before it, in shapes that need no matte.
So a scene may stand anywhere in the film, and a still of it never shows half a transition.
"""

import math

from lottie import (
    BACK,
    HOLD,
    IN_OUT,
    LINEAR,
    OUT,
    SOFT,
    fill,
    gradient,
    group,
    keys,
    mask,
    path,
    plain_picture,
    points,
    rect,
    rounded,
    shape,
    stroke,
    trim,
)

WAIST = math.cos(math.radians(45)) / math.cos(math.radians(22.5))  # inner to outer radius of two crossed squares


def star_corners(radius, centre=(0, 0), turn=0):
    corners = []
    for step in range(16):
        far, angle = radius if step % 2 == 0 else radius * WAIST, math.radians(step * 22.5 + turn)
        corners.append([round(centre[0] + far * math.cos(angle), 2), round(centre[1] + far * math.sin(angle), 2)])
    return corners


def star(radius, centre=(0, 0)):
    """The eight-pointed star of Persian tilework."""
    return path(star_corners(radius, centre))


def star_window(slot, radius, stops):
    """For a picture layer: a star it is seen through. `stops` are `(frame, scale of the star, turn in degrees, ease)`."""
    outlines = [
        (frame, points(star_corners(max(radius * scale, 0.01), (slot[0] / 2, slot[1] / 2), turn)), *ease)
        for frame, scale, turn, *ease in stops
    ]
    return {"a": (slot[0] / 2, slot[1] / 2), **mask(outlines)}


def tile_field(
    span, columns, rows, pitch, visible, first=0, wave=1.2, colour="text", accent="accent", p=(0, 0), drift=(0, 0), name="tiles"
):
    """A lattice of stars that pops up in a wave. `visible(column, row)` gives each star's look:
    (kind, opacity) with kind `line`, `full` or `accent`, or None."""
    groups = []
    for row in range(rows):
        for column in range(columns):
            look = visible(column, row)
            if not look:
                continue
            kind, opacity = look
            start = first + (column + row) * wave
            paint = {"line": stroke(colour, 3), "full": fill(colour), "accent": fill(accent)}[kind]
            groups.append(
                group(
                    star(pitch / 2 * 0.94),
                    paint,
                    p=(column * pitch, row * pitch),
                    o=opacity,
                    s=keys((start, [0, 0], BACK), (start + 20, [100, 100])),
                    r=keys((start, -60), (start + 28, 0)),
                )
            )
    end = [p[0] + drift[0], p[1] + drift[1]]
    return shape(name, span, *groups, p=keys((span[0], list(p), LINEAR), (span[1], end)) if any(drift) else p)


# ---- openings ---------------------------------------------------------------------------------------------------


def open_with_stars(size, frames, ground, lead, pitch=320, span=None):
    """Stars grow from the left until they have covered the picture: first in `lead`, then in `ground`."""
    columns, rows = math.ceil(size[0] / pitch) + 1, math.ceil(size[1] / pitch) + 1
    quick = frames * 0.52
    layers = []
    for colour, wait in ((ground, frames * 0.14), (lead, 0)):
        groups = []
        spread = (frames - quick - frames * 0.14) / (columns + rows - 2)
        for column in range(columns):
            for row in range(rows):
                start = round(wait + (column + row) * spread, 2)
                groups.append(
                    group(
                        star(pitch / 2),
                        fill(colour),
                        p=(column * pitch, row * pitch),
                        r=keys((start, -45), (start + quick, 0)),
                        s=keys((start, [0, 0], (0.5, 0, 0.4, 1)), (round(start + quick, 2), [192, 192])),
                    )
                )
        layers.append(shape(f"opening {colour}", (0, frames + 1), *groups))
    full = shape("ground", (frames, span), group(rect(*size), fill(ground)), p=(size[0] / 2, size[1] / 2))
    return [layers[0], full, layers[1]]


def open_with_bars(size, frames, tokens, lead, span, bars=5, across=True):
    """Bars slide in one after the other and carry one gradient: columns from below, or rows from both sides."""
    width, height = size
    layers = []
    for paint, wait in ((gradient(tokens, (-width / 2, -height / 2), (width / 2, height / 2)), frames * 0.2), (fill(lead), 0)):
        pieces = []
        quick = frames * 0.5
        spread = (frames - quick - frames * 0.2) / (bars - 1)
        for bar in range(bars):
            start, end = round(wait + bar * spread, 2), round(wait + bar * spread + quick, 2)
            if across:
                wide, there = width / bars, -width / 2 + width / bars * (bar + 0.5)
                pieces.append(rect(wide + 2, height + 2, p=keys((start, [there, height + 4], IN_OUT), (end, [there, 0]))))
            else:
                high, there, side = height / bars, -height / 2 + height / bars * (bar + 0.5), 1 if bar % 2 else -1
                pieces.append(rect(width + 2, high + 2, p=keys((start, [side * (width + 4), there], IN_OUT), (end, [0, there]))))
        last = span if wait else frames + 1
        layers.append(shape("ground" if wait else "opening", (0, last), group(*pieces, paint), p=(width / 2, height / 2)))
    return layers


def open_with_curtain(size, frames, lead, bars=4):
    """Bars rise, stand for a moment before the whole picture, and rise on: what they uncover begins at `frames // 2`."""
    width, height = size
    pieces, wide = [], width / bars
    for bar in range(bars):
        there = -width / 2 + wide * (bar + 0.5)
        spread = bar * frames * 0.06
        stops = [
            (spread, [there, height + 4], IN_OUT),
            (round(frames * 0.3 + spread, 2), [there, 0], HOLD),
            (round(frames * 0.52 + spread, 2), [there, 0], IN_OUT),
            (round(frames * 0.88 + spread, 2), [there, -height - 4]),
        ]
        pieces.append(rect(wide + 2, height + 2, p=keys(*stops)))
    return shape("opening", (0, math.ceil(frames * 1.2)), group(*pieces, fill(lead)), p=(width / 2, height / 2))


def open_with_one_star(size, frames, ground, lead, span, centre):
    """One great star opens like an iris, with a ring of `lead` before it."""
    reach = math.hypot(max(centre[0], size[0] - centre[0]), max(centre[1], size[1] - centre[1])) / (WAIST * 0.9)
    grow = lambda start, end: keys((start, [0, 0], (0.55, 0, 0.35, 1)), (end, [100, 100]))
    layers = [shape("ground", (frames, span), group(rect(*size), fill(ground)), p=(size[0] / 2, size[1] / 2))]
    for colour, start, end in ((ground, frames * 0.2, frames), (lead, 0, frames * 0.86)):
        layers.append(
            shape(
                f"opening {colour}",
                (0, frames + 1),
                group(star(reach), fill(colour), s=grow(start, end), r=keys((start, -70), (end, 0))),
                p=centre,
            )
        )
    return layers


# ---- pieces -----------------------------------------------------------------------------------------------------


def soft_shadow(span, size, drop=24, o=45, **more):
    """A shadow below a card of `size`, as a picture blurred beforehand (a live drop shadow costs ten times as much)."""
    return plain_picture(
        "soft shadow",
        "shadow",
        span,
        a=(160, 160),
        s=(round(size[0] / 2.6, 3), round(size[1] / 2.6, 3)),
        o=o,
        **{"p": (0, drop), **more},
    )


def zooming(slot, card, radius, first, last, scales=(1.0, 1.1)):
    """For a picture layer: a slow zoom inside a rounded window that keeps its size (the mask shrinks as the picture grows)."""

    def window(scale):
        return rounded(card[0] / scale, card[1] / scale, radius / scale, (slot[0] / 2, slot[1] / 2))

    begin, end = scales
    return {
        "a": (slot[0] / 2, slot[1] / 2),
        "s": keys((first, [begin * 100, begin * 100], LINEAR), (last, [end * 100, end * 100])),
        **mask([(first, window(begin), LINEAR), (last, window(end))]),
    }


def ornament(span, p, start, width=420, colour="accent"):
    """A small star between two lines that run outwards."""
    line = lambda side: group(
        path([[side * 34, 0], [side * width / 2, 0]], closed=False),
        stroke(colour, 4),
        trim(0, keys((start, 0, OUT), (start + 24, 100))),
    )
    return shape(
        "ornament",
        span,
        line(-1),
        line(1),
        group(
            star(17),
            fill(colour),
            s=keys((start - 4, [0, 0], BACK), (start + 14, [100, 100])),
            r=keys((start - 4, -90), (start + 26, 0)),
        ),
        p=p,
    )


def pill(span, p, size, start, paint, show=None, name="pill", **more):
    """A rounded plate that opens from its middle. `paint` is a fill or a stroke."""
    width, height = size
    return shape(
        f"{name}?{show}" if show else name,
        span,
        group(
            rect(keys((start, [height, height], SOFT), (start + 18, [width, height])), r=height / 2),
            paint,
            o=keys((start, 0, LINEAR), (start + 5, 100)),
        ),
        p=p,
        **more,
    )
