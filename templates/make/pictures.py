#!/usr/bin/env python3
"""Draws every sample and default picture as SVG and writes it as JPEG or PNG into the packages.

Needs a `resvg` command (`resvg IN.svg OUT.png`; its path may be given in RESVG) and ffmpeg. The pictures are committed, so
only who changes one has to run this: `python3 templates/make/pictures.py [part of a name]`.
"""

import math
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

TEMPLATES = Path(__file__).resolve().parent.parent
WAIST = math.cos(math.radians(45)) / math.cos(math.radians(22.5))


# ---- drawing ----------------------------------------------------------------------------------------------------


class Svg:
    """A canvas that hands out ids for its gradients and filters."""

    def __init__(self, width, height):
        self.w, self.h, self.defs, self.body = width, height, [], []

    def add(self, markup):
        self.body.append(markup)

    def named(self, kind, inner, **attributes):
        name = f"d{len(self.defs)}"
        self.defs.append(f'<{kind} id="{name}" {attrs(attributes)}>{inner}</{kind}>')
        return f"url(#{name})"

    def ramp(self, *stops, angle=90, spread=False):
        """A linear gradient; `stops` are `colour`, or `(offset, colour[, opacity])`."""
        x, y = math.cos(math.radians(angle)) / 2, math.sin(math.radians(angle)) / 2
        return self.named("linearGradient", stop_list(stops), x1=0.5 - x, y1=0.5 - y, x2=0.5 + x, y2=0.5 + y)

    def halo(self, *stops, cx=0.5, cy=0.5, r=0.5):
        return self.named("radialGradient", stop_list(stops), cx=cx, cy=cy, r=r)

    def blur(self, amount):
        return self.named("filter", f'<feGaussianBlur stdDeviation="{amount}"/>', x=-1, y=-1, width=3, height=3)

    def rect(self, x, y, w, h, fill, r=0, **more):
        self.add(f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="{r}" fill="{fill}" {attrs(more)}/>')

    def circle(self, x, y, r, fill, **more):
        self.add(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}" fill="{fill}" {attrs(more)}/>')

    def oval(self, x, y, rx, ry, fill, **more):
        self.add(f'<ellipse cx="{x:.1f}" cy="{y:.1f}" rx="{rx:.1f}" ry="{ry:.1f}" fill="{fill}" {attrs(more)}/>')

    def path(self, d, fill="none", **more):
        self.add(f'<path d="{d}" fill="{fill}" {attrs(more)}/>')

    def area(self, line, fill, **more):
        """The ground below a line of points."""
        d = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in line) + f" V{self.h} H{line[0][0]:.1f} Z"
        self.path(d, fill, **more)

    def sky(self, *stops):
        self.rect(0, 0, self.w, self.h, self.ramp(*stops))

    def text(self, width=None, mirrored=False):
        """The document, `width` pixels wide when given."""
        wide = width or self.w
        turn = f' transform="translate({self.w} 0) scale(-1 1)"' if mirrored else ""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{round(self.h * wide / self.w)}" viewBox="0 0 {self.w} {self.h}">'
            f"<defs>{''.join(self.defs)}</defs><g{turn}>{''.join(self.body)}</g></svg>"
        )


def attrs(values):
    return " ".join(f'{key.replace("_", "-")}="{value}"' for key, value in values.items())


def stop_list(stops):
    out = []
    for place, stop in enumerate(stops):
        offset, colour, *alpha = stop if isinstance(stop, tuple) else (place / (len(stops) - 1), stop)
        out.append(f'<stop offset="{offset}" stop-color="{colour}"' + (f' stop-opacity="{alpha[0]}"' if alpha else "") + "/>")
    return "".join(out)


def mix(a, b, share):
    one = lambda at: round(int(a[at : at + 2], 16) * (1 - share) + int(b[at : at + 2], 16) * share)
    return "#" + "".join(f"{one(at):02x}" for at in (1, 3, 5))


def ridge(chance, width, base, height, rough=0.55, steps=8):
    """A mountain line by midpoint displacement."""
    line, reach = [base - height * chance.random(), base - height * chance.random()], height
    line = [base, base - height, base - height * 0.3] if chance.random() < 0.5 else [base - height * 0.4, base - height * 0.9, base]
    for _ in range(steps):
        nxt = []
        for a, b in zip(line, line[1:]):
            nxt += [a, (a + b) / 2 + (chance.random() - 0.5) * reach * 0.5]
        line, reach = nxt + [line[-1]], reach * rough
    return [(width * n / (len(line) - 1), y) for n, y in enumerate(line)]


def wave(width, base, *swings, steps=80):
    """A soft line: sums of sines `(height, length, shift)`."""
    return [
        (width * n / steps, base + sum(h * math.sin((n / steps + s) * 2 * math.pi / l) for h, l, s in swings))
        for n in range(steps + 1)
    ]


def fir(svg, x, foot, height, colour):
    tiers = 5
    d = f"M{x - height * 0.025:.1f} {foot:.1f}"
    left, right = [], []
    for n in range(tiers):
        y, half = foot - height * (0.08 + 0.18 * n), height * (0.23 - 0.038 * n)
        left += [(x - half, y), (x - half * 0.42, y - height * 0.15)]
        right += [(x + half, y), (x + half * 0.42, y - height * 0.15)]
    line = left + [(x, foot - height)] + right[::-1]
    svg.path(d + " L" + " L".join(f"{a:.1f} {b:.1f}" for a, b in line) + f" L{x + height * 0.025:.1f} {foot:.1f} Z", colour)


def forest(svg, chance, line, colour, low, high, count):
    for _ in range(count):
        x, y = line[chance.randrange(len(line))]
        fir(svg, x + chance.uniform(-20, 20), y + 14, chance.uniform(low, high), colour)


def star_points(r, cx, cy, turn=0, waist=WAIST):
    return " ".join(
        f"{cx + (r if n % 2 == 0 else r * waist) * math.cos(math.radians(n * 22.5 + turn)):.1f},"
        f"{cy + (r if n % 2 == 0 else r * waist) * math.sin(math.radians(n * 22.5 + turn)):.1f}"
        for n in range(16)
    )


def star(svg, r, x, y, fill, turn=0, **more):
    svg.add(f'<polygon points="{star_points(r, x, y, turn)}" fill="{fill}" {attrs(more)}/>')


def night(svg, chance, count, depth):
    for _ in range(count):
        svg.circle(
            chance.uniform(0, svg.w),
            chance.uniform(0, depth),
            chance.choice((0.8, 1, 1.3, 2)),
            "#fff",
            opacity=round(chance.uniform(0.3, 1), 2),
        )


# ---- pictures ----------------------------------------------------------------------------------------------------


def shadow():
    """Black, rounded and blurred: what a card throws on the wall behind it. A card of 260 stands in a picture of 320."""
    s = Svg(320, 320)
    s.rect(32, 32, 256, 256, "#000", 16, filter=s.blur(10), opacity=0.8)
    return s


def lake():
    s, c = Svg(1280, 800), random.Random(4)
    s.sky("#25386e", "#7a6aa8", "#f2a48b", "#ffdf9e", "#ffdf9e")
    s.circle(850, 372, 330, s.halo((0, "#fff4cf", 0.95), (0.25, "#ffe3a0", 0.5), (1, "#ffd27d", 0)))
    s.circle(850, 372, 52, "#fff6dc")
    for base, height, colour in ((470, 300, "#a986ac"), (480, 220, "#7d6a9c"), (492, 140, "#4f4f83")):
        line = ridge(c, 1280, base, height)
        s.area(line, s.ramp(mix(colour, "#ffffff", 0.12), mix(colour, "#f8b79a", 0.45)))
    shore = ridge(c, 1280, 506, 26, 0.5)
    s.area(shore, "#26315c")
    forest(s, c, shore, "#1d2750", 34, 84, 150)
    s.rect(0, 520, 1280, 280, s.ramp("#f5b795", "#b27fa6", "#3f4a86", "#1d2a5c"))
    s.rect(790, 520, 120, 280, s.ramp((0, "#fff3cf", 0.9), (1, "#fff3cf", 0)), filter=s.blur(14))
    for _ in range(90):
        y = c.uniform(524, 800)
        w = (y - 480) * c.uniform(0.1, 0.7)
        s.rect(
            c.uniform(-60, 1280),
            y,
            w,
            1 + (y - 520) / 90,
            c.choice(("#fff1d4", "#2a3768")),
            2,
            opacity=round(c.uniform(0.08, 0.34), 2),
        )
    s.rect(0, 514, 1280, 12, s.ramp((0, "#ffe9c4", 0), (0.5, "#ffe9c4", 0.75), (1, "#ffe9c4", 0)))
    near = wave(1280, 790, (50, 1.4, 0.35), (12, 0.4, 0))
    s.area(near, "#0d1533")
    for x, h in ((60, 330), (130, 250), (190, 180), (10, 260), (1210, 360), (1150, 240), (1268, 270), (1090, 150)):
        fir(s, x, 812, h, "#0d1533")
    # a canoe with its reflection
    s.path("M520 640 q120 44 250 0 q-26 40 -60 42 h-130 q-36 -2 -60 -42 Z", "#7c2d32")
    s.path("M520 640 q120 44 250 0 q-120 26 -250 0 Z", "#d9694a")
    s.path("M540 690 h210 q-40 26 -105 26 t-105 -26 Z", "#0d1533", opacity=0.3)
    return s


def camp():
    s, c = Svg(1280, 800), random.Random(11)
    s.sky("#060b26", "#0f2350", "#1d5068", "#3d8a82")
    night(s, c, 240, 520)
    for n, (x, colour) in enumerate((x, c.choice(("#54f0b4", "#49d7c9", "#6fa4f5", "#8f7df2"))) for x in range(-40, 1340, 26)):
        foot, top = 470 - 120 * math.sin(n * 0.11) + c.uniform(-12, 12), c.uniform(120, 300)
        s.path(
            f"M{x} {foot:.0f} L{x + 60} {foot - top:.0f} h34 L{x + 44} {foot + 8:.0f} Z",
            s.ramp((0, colour, 0), (0.8, colour, 0.42), (1, colour, 0)),
            filter=s.blur(9),
        )
    for base, height, colour in ((600, 330, "#17395c"), (620, 210, "#102a48")):
        s.area(ridge(c, 1280, base, height), s.ramp(mix(colour, "#9be8da", 0.25), colour))
    line = wave(1280, 628, (16, 0.7, 0.1), (8, 0.3, 0.4))
    s.area(line, "#0a1a30")
    forest(s, c, line, "#081529", 90, 210, 70)
    ground = wave(1280, 668, (14, 1.1, 0.2), (5, 0.25, 0))
    s.area(ground, s.ramp("#0d2030", "#050d18"))
    s.oval(640, 716, 420, 80, s.halo((0, "#ffb54d", 0.65), (1, "#ffb54d", 0)))
    s.path("M640 470 L820 712 H460 Z", s.ramp("#ff9c3d", "#ffd489", angle=70))
    s.path("M640 470 L820 712 H700 Z", "#c9571f", opacity=0.8)
    s.path("M640 470 L700 712 H600 Z", s.ramp("#fff3c9", "#ffc45c"))
    s.path("M640 560 L668 712 H622 Z", "#5c2410", opacity=0.75)
    s.path("M640 470 L628 452 M640 470 L652 452", stroke="#2b1408", stroke_width=5)
    for x, h in ((90, 420), (190, 300), (1160, 440), (1060, 280), (1250, 330), (10, 300)):
        fir(s, x, 760, h, "#040b16")
    s.circle(930, 706, 90, s.halo((0, "#ffcf70", 0.9), (1, "#ff8a2a", 0)))
    s.path("M930 650 q34 38 14 66 h-30 q-22 -26 16 -66 Z", "#ffb23e")
    s.path("M930 680 q16 20 6 36 h-13 q-10 -14 7 -36 Z", "#fff1b8")
    s.path("M890 722 L972 708 M890 708 L972 722", stroke="#2b1408", stroke_width=9, stroke_linecap="round")
    return s


def lighthouse():
    s, c = Svg(1280, 800), random.Random(23)
    s.sky("#2b4c8c", "#8a79b8", "#f58f7c", "#ffc37a", "#ffe7b0")
    s.circle(380, 520, 420, s.halo((0, "#fff0b8", 0.95), (1, "#ffb36b", 0)))
    s.circle(380, 500, 74, "#fff3cc")
    for _ in range(13):
        x, y, w = c.uniform(-100, 1200), c.uniform(70, 400), c.uniform(160, 460)
        s.rect(x, y, w, c.uniform(9, 22), c.choice(("#ffe3c9", "#f9b6a0", "#d796b0")), 11, opacity=0.55)
    s.rect(0, 540, 1280, 260, s.ramp("#ffbd86", "#c7719a", "#3c4d92", "#1b2a63"))
    s.rect(320, 540, 120, 260, s.ramp((0, "#fff2c4", 0.95), (1, "#fff2c4", 0.05)), filter=s.blur(12))
    for _ in range(130):
        y = c.uniform(546, 800)
        s.rect(
            c.uniform(-60, 1280),
            y,
            (y - 500) * c.uniform(0.12, 0.6),
            1.5 + (y - 540) / 80,
            c.choice(("#fff0cf", "#22306e")),
            2,
            opacity=round(c.uniform(0.1, 0.4), 2),
        )
    s.area(
        [(700, 800), (724, 704), (790, 662), (856, 590), (930, 566), (1010, 520), (1120, 508), (1210, 474), (1280, 470)],
        s.ramp("#3f3566", "#141736"),
    )
    s.area([(820, 800), (880, 690), (980, 640), (1080, 566), (1180, 556), (1280, 520)], s.ramp("#2a2450", "#0e1029"))
    s.path("M1020 518 L1046 230 H1114 L1140 512 Z", s.ramp("#fff5e6", "#f0c9b8", "#a9799a", angle=0))
    for y, h in ((292, 56), (404, 60)):
        k = (y - 230) / 290 * 26
        k2 = (y + h - 230) / 290 * 26
        s.path(
            f"M{1046 - k:.0f} {y} H{1114 + k:.0f} L{1114 + k2:.0f} {y + h} H{1046 - k2:.0f} Z",
            s.ramp("#e3543f", "#8f2b45", angle=0),
        )
    s.rect(1034, 218, 92, 15, "#2a2450", 4)
    s.rect(1052, 168, 56, 52, s.ramp("#fff6c6", "#ffd36b"), 5)
    s.path("M1044 170 L1080 128 L1116 170 Z", "#c23d3d")
    s.path("M1060 192 L520 70 V270 Z", s.ramp((0, "#fff3b8", 0), (1, "#fff3b8", 0.6), angle=0))
    for x, y, k in ((560, 250, 1), (640, 212, 0.8), (700, 276, 0.7), (480, 200, 0.6)):
        s.path(
            f"M{x} {y} q{18 * k} {-18 * k} {34 * k} 0 q{16 * k} {-18 * k} {34 * k} 0",
            stroke="#2a2450",
            stroke_width=5 * k,
            stroke_linecap="round",
        )
    return s


def dunes():
    s, c = Svg(1280, 800), random.Random(5)
    s.sky("#f26b4f", "#f99a5d", "#fdc684", "#fee3b5", "#fee3b5")
    s.circle(640, 330, 420, s.halo((0, "#fff3d0", 0.9), (1, "#ffd08a", 0)))
    s.circle(640, 330, 150, s.ramp("#fff6dd", "#ffd98c"))
    s.area(wave(1280, 452, (26, 0.9, 0.1), (10, 0.35, 0.5)), s.ramp("#e9a36f", "#f6c793"))
    s.area(wave(1280, 500, (34, 1.2, 0.45), (12, 0.5, 0.2)), s.ramp("#d9834f", "#efb27b"))
    ridge_line = wave(1280, 590, (70, 1.5, 0.62), (14, 0.6, 0.1))
    s.area(ridge_line, s.ramp("#f3b271", "#d07a42"))
    camels = [(400, 0.9), (530, 1), (660, 0.95), (790, 1.05)]
    for x, k in camels:
        y = min(ridge_line, key=lambda p: abs(p[0] - x))[1] - 74 * k + 4
        leg = lambda dx: f"M{x + dx * k:.0f} {y + 30 * k:.0f} l{-3 * k:.0f} {44 * k:.0f} h{7 * k:.0f} l{5 * k:.0f} {-44 * k:.0f} Z "
        s.path(
            f"M{x - 44 * k:.0f} {y + 24 * k:.0f} q{6 * k:.0f} {-20 * k:.0f} {22 * k:.0f} {-20 * k:.0f} q{18 * k:.0f} {-38 * k:.0f} {34 * k:.0f} 0 "
            f"q{20 * k:.0f} {0} {26 * k:.0f} {10 * k:.0f} q{10 * k:.0f} {-8 * k:.0f} {12 * k:.0f} {-38 * k:.0f} q{14 * k:.0f} {-8 * k:.0f} {26 * k:.0f} {4 * k:.0f} "
            f"q{-2 * k:.0f} {8 * k:.0f} {-16 * k:.0f} {7 * k:.0f} q{0} {44 * k:.0f} {-26 * k:.0f} {54 * k:.0f} q{-40 * k:.0f} {14 * k:.0f} {-70 * k:.0f} {0} q{-8 * k:.0f} {-4 * k:.0f} {-8 * k:.0f} {-17 * k:.0f} Z",
            "#4a1e2b",
        )
        s.path(leg(-34) + leg(-20) + leg(14) + leg(28), "#4a1e2b")
    crest = [(0, 716), (160, 690), (330, 640), (520, 610), (640, 640), (800, 700), (1000, 730), (1280, 700)]
    s.path("M0 716 C180 700 330 600 520 606 C640 616 780 728 1280 700 V800 H0 Z", s.ramp("#f0a35c", "#b95a33", angle=20))
    s.path(
        "M520 606 C560 660 420 720 560 800 H1280 V700 C780 728 640 616 520 606 Z",
        s.ramp("#a14a35", "#6d2a35", angle=60),
        opacity=0.92,
    )
    for n in range(9):
        y = 690 + n * 15
        s.path(f"M{60 + n * 8} {y} q90 {-16 + n} 190 -6 t170 -{4 + n}", stroke="#ffd9a0", stroke_width=2, opacity=0.35)
    return s


def dome():
    s, c = Svg(1280, 800), random.Random(8)
    s.sky("#141c4f", "#3b3a86", "#a3568f", "#f58b6c", "#ffc27a")
    night(s, c, 110, 330)
    s.circle(1010, 170, 190, s.halo((0, "#ffeec2", 0.5), (1, "#ffeec2", 0)))
    s.path("M1010 118 A52 52 0 1 0 1062 176 A42 42 0 1 1 1010 118 Z", "#fff2d0")
    s.area(ridge(c, 1280, 560, 130), "#7b4a86", opacity=0.75)
    wall = s.ramp("#e2a06a", "#8d4a52")
    for x in (330, 890):
        s.rect(x, 230, 60, 400, s.ramp("#2fa6a6", "#106a83", "#0c4465", angle=0), 0)
        for y in range(250, 600, 46):
            star(s, 18, x + 30, y + 20, "none", stroke="#f2d58c", stroke_width=3)
        s.rect(x - 12, 216, 84, 24, "#f2d58c", 4)
        s.path(f"M{x + 4} 216 V150 q26 -46 52 0 V216 Z", s.ramp("#2fa6a6", "#0c4465", angle=0))
        s.path(f"M{x + 30} 128 V92", stroke="#f2d58c", stroke_width=6)
    s.path("M444 380 C400 300 470 220 640 120 C810 220 880 300 836 380 Z", s.ramp("#37c3bd", "#13879a", "#0b4d77", angle=10))
    for n in range(-3, 4):
        s.path(f"M{640 + n * 54} 380 C{640 + n * 66} 300 {640 + n * 44} 220 640 122", stroke="#f2d58c", stroke_width=3, opacity=0.6)
    s.path("M640 122 V70", stroke="#f2d58c", stroke_width=7)
    s.circle(640, 66, 9, "#f2d58c")
    s.rect(452, 376, 376, 66, s.ramp("#0f5f86", "#0b3f68"))
    for n in range(8):
        star(s, 22, 476 + n * 47, 409, "none", stroke="#f2d58c", stroke_width=3)
    s.rect(410, 440, 460, 210, wall)
    s.path("M520 650 V530 Q520 468 640 446 Q760 468 760 530 V650 Z", s.ramp("#1d86a0", "#0c3a63"))
    s.path("M556 650 V552 Q556 500 640 480 Q724 500 724 552 V650 Z", s.ramp("#ffcf83", "#d9764f"))
    s.path("M590 650 V570 Q590 530 640 514 Q690 530 690 570 V650 Z", "#5a2347")
    s.rect(0, 596, 412, 60, wall)
    s.rect(868, 596, 412, 60, wall)
    for n in range(7):
        for x in (16 + n * 58, 880 + n * 58):
            s.path(f"M{x} 656 V626 q20 -26 40 0 V656 Z", "#5a2347", opacity=0.8)
    s.rect(0, 654, 1280, 146, s.ramp("#5a3a72", "#1a1d4c"))
    s.path("M452 656 H828 L760 800 H520 Z", s.ramp("#3f9fae", "#1c3b72"), opacity=0.85)
    for _ in range(60):
        y = c.uniform(660, 800)
        s.rect(c.uniform(470, 790), y, c.uniform(20, 90), 2, "#ffe0a8", 1, opacity=round(c.uniform(0.15, 0.5), 2))
    for x, h in ((70, 210), (150, 160), (1130, 170), (1215, 220)):
        s.path(
            f"M{x} 672 C{x - 34} {672 - h * 0.3:.0f} {x - 20} {672 - h:.0f} {x} {672 - h * 1.15:.0f} C{x + 20} {672 - h:.0f} {x + 34} {672 - h * 0.3:.0f} {x} 672 Z",
            "#1d2350",
        )
    return s


def mist():
    s, c = Svg(1280, 800), random.Random(17)
    s.sky("#c9e6df", "#e7f2e4", "#f7efd6")
    s.circle(900, 210, 380, s.halo((0, "#fffbe8", 1), (1, "#fffbe8", 0)))
    s.circle(900, 210, 60, "#fffdf2")
    tones = ("#a9cfc4", "#7fb3a5", "#55917f", "#33705f", "#1b5044")
    for n, tone in enumerate(tones):
        base = 400 + n * 78
        line = wave(1280, base, (46 - n * 4, 1.1 - n * 0.1, n * 0.31), (14, 0.33, n * 0.17))
        forest(s, c, line, tone, 50 + n * 26, 100 + n * 36, 90 - n * 8)
        s.area(line, s.ramp(tone, mix(tone, "#e8f4ea", 0.55)))
        if n < 4:
            s.oval(c.uniform(300, 980), base + 74, 720, 34, "#f4faf2", opacity=0.55, filter=s.blur(18))
    # a hut with a warm window
    s.path("M560 640 H760 V742 H560 Z", s.ramp("#8a5a3c", "#5d3828"))
    s.path("M536 648 L660 560 L784 648 Z", s.ramp("#c2553d", "#7e2f2b"))
    s.rect(594, 676, 46, 46, "#ffdc86", 3)
    s.path("M617 676 V722 M594 699 H640", stroke="#5d3828", stroke_width=4)
    s.rect(686, 672, 44, 70, "#3b2219", 3)
    s.circle(617, 699, 90, s.halo((0, "#ffdc86", 0.55), (1, "#ffdc86", 0)))
    s.path("M722 590 q-6 -40 20 -62 t4 -64", stroke="#fff", stroke_width=15, opacity=0.5, stroke_linecap="round", filter=s.blur(5))
    s.area(wave(1280, 752, (10, 0.6, 0.2), (5, 0.2, 0)), s.ramp("#123a33", "#0a241f"))
    for x, h in ((70, 420), (170, 300), (1180, 470), (1090, 290), (1268, 330), (-6, 330)):
        fir(s, x, 806, h, "#0c2a25")
    return s


def tiles(width, height, colours, seed, pitch=160):
    """The templates' own picture: star tiles in a gradient, lit from the upper right."""
    s, chance = Svg(width, height), random.Random(seed)
    deep, light, spark = colours
    s.rect(0, 0, width, height, s.ramp(deep, light, angle=35))
    s.circle(width * 0.75, height * 0.28, width * 0.5, s.halo((0, "#ffffff", 0.38), (1, "#ffffff", 0)))
    for row in range(height // pitch + 2):
        for column in range(width // pitch + 2):
            x, y, kind = column * pitch - pitch / 4, row * pitch - pitch / 2, chance.random()
            if kind < 0.12:
                star(s, pitch / 2 * 0.95, x, y, spark)
            elif kind < 0.4:
                star(s, pitch / 2 * 0.95, x, y, "#fff", opacity=0.13)
            else:
                star(s, pitch / 2 * 0.95, x, y, "none", stroke="#fff", stroke_width=2.5, opacity=0.35)
            if kind > 0.75:
                star(s, pitch / 4, x, y, "#fff", opacity=0.22)
    return s


def leaf(svg, x, y, length, angle, colour, width=0.32, vein=None):
    """A pointed leaf from its stalk's end."""
    w = length * width
    svg.add(f'<g transform="translate({x:.0f} {y:.0f}) rotate({angle})">')
    svg.path(
        f"M0 0 C{length * 0.25:.0f} {-w:.0f} {length * 0.7:.0f} {-w:.0f} {length} 0 C{length * 0.7:.0f} {w:.0f} {length * 0.25:.0f} {w:.0f} 0 0 Z",
        colour,
    )
    if vein:
        svg.path(f"M0 0 H{length * 0.94:.0f}", stroke=vein, stroke_width=3, opacity=0.6)
    svg.add("</g>")


def frond(svg, x, y, length, angle, colour, leaves=11):
    """A palm leaf: a bent stalk with narrow leaves."""
    svg.add(f'<g transform="translate({x:.0f} {y:.0f}) rotate({angle})">')
    for n in range(leaves):
        at = length * (0.15 + 0.85 * n / leaves)
        bend, size = -0.00035 * at * at, length * (0.42 - 0.3 * abs(n / leaves - 0.35))
        leaf(svg, at, bend, size, -48 + n * 2, colour, 0.13)
        leaf(svg, at, bend, size, 38 - n * 4, colour, 0.13)
    svg.path(
        f"M0 0 Q{length * 0.5:.0f} {-0.00008 * length * length:.0f} {length} {-0.00035 * length * length:.0f}",
        stroke=colour,
        stroke_width=7,
        stroke_linecap="round",
    )
    svg.add("</g>")


def podium(svg, x, y, width, height, top, side):
    svg.path(f"M{x - width / 2} {y} V{y + height} A{width / 2} {width / 9} 0 0 0 {x + width / 2} {y + height} V{y} Z", side)
    svg.oval(x, y, width / 2, width / 9, top)


def bottle(svg, x, foot, k, glass, label, cap="#2c2530"):
    """A dropper bottle of height 460 k."""
    r = lambda v: round(v * k, 1)
    svg.oval(x, foot, r(150), r(26), "#000", opacity=0.2, filter=svg.blur(r(14)))
    svg.path(
        f"M{x - r(34)} {foot - r(330)} H{x + r(34)} V{foot - r(292)} Q{x + r(110)} {foot - r(280)} {x + r(110)} {foot - r(216)} V{foot - r(26)} "
        f"Q{x + r(110)} {foot} {x + r(84)} {foot} H{x - r(84)} Q{x - r(110)} {foot} {x - r(110)} {foot - r(26)} V{foot - r(216)} Q{x - r(110)} {foot - r(280)} {x - r(34)} {foot - r(292)} Z",
        glass,
    )
    svg.rect(x - r(92), foot - r(220), r(26), r(190), "#ffffff", r(13), opacity=0.35)
    svg.rect(x + r(70), foot - r(200), r(12), r(150), "#ffffff", r(6), opacity=0.2)
    svg.rect(x - r(110), foot - r(186), r(220), r(128), label, 0)
    star(svg, r(34), x, foot - r(138), "none", stroke="#7a4a2a", stroke_width=r(5))
    svg.rect(x - r(52), foot - r(92), r(104), r(8), "#7a4a2a", r(4))
    svg.rect(x - r(30), foot - r(76), r(60), r(6), "#7a4a2a", r(3), opacity=0.6)
    svg.rect(x - r(46), foot - r(372), r(92), r(54), cap, r(8))
    svg.rect(x - r(30), foot - r(452), r(60), r(90), svg.ramp("#4a414f", "#1f1a24", angle=0), r(26))


def serum():
    """Product, square: a serum on a podium between leaves."""
    s = Svg(1000, 1000)
    s.rect(0, 0, 1000, 1000, s.ramp("#f7cfb7", "#f2a88d", angle=70))
    s.path("M190 1000 V470 A310 310 0 0 1 810 470 V1000 Z", s.ramp("#fbe6d6", "#f6c7ad"))
    s.circle(500, 400, 190, s.ramp("#ffe9bf", "#ffc98c"))
    for a, l, c in ((-150, 420, "#2f7d62"), (-128, 380, "#3f9a78"), (-172, 360, "#23604c")):
        frond(s, 300, 860, l, a + 30, c)
    for a, l, c in ((-52, 400, "#2f7d62"), (-26, 360, "#3f9a78")):
        frond(s, 720, 860, l, a, c)
    s.rect(0, 800, 1000, 200, s.ramp("#f3b79a", "#e68f74"))
    podium(s, 500, 790, 620, 110, "#fff3ea", s.ramp("#f0d3c1", "#c98b78", angle=0))
    podium(s, 500, 740, 430, 60, "#fffaf5", s.ramp("#f7e3d6", "#d8a491", angle=0))
    bottle(s, 500, 742, 1.12, s.ramp("#f2a33f", "#b5531c", "#8a3512", angle=15), "#fff6ea")
    for x, y, r in ((300, 772, 26), (342, 786, 17), (706, 776, 22)):
        s.circle(x, y, r, s.halo((0, "#ffe9b0"), (1, "#e88f2f"), cx=0.35, cy=0.3, r=0.8))
    return s


def still_life():
    """Photo, upright: three bottles in an arch, low sun."""
    s = Svg(1080, 1920)
    s.rect(0, 0, 1080, 1920, s.ramp("#e98f78", "#f6bfa0", "#f9d9bd"))
    s.add('<g transform="translate(0 -150)">')
    s.path("M150 1500 V640 A390 390 0 0 1 930 640 V1500 Z", s.ramp("#7a2f4f", "#d2606a", "#ffb27d"))
    s.circle(540, 760, 190, s.ramp("#fff0c9", "#ffc67e"))
    s.area([(150, 1130), (330, 1010), (480, 1080), (650, 980), (800, 1070), (930, 1020), (930, 1500)], "#8d3b5c")
    s.body[-1] = '<path d="M150 1130 Q330 960 480 1080 T800 1060 T930 1020 V1500 H150 Z" fill="#9c4462"/>'
    s.path("M150 1220 Q380 1090 560 1180 T930 1150 V1500 H150 Z", "#6f2b4c")
    s.path("M128 1500 V640 A412 412 0 0 1 952 640 V1500", "none", stroke="#fff0e2", stroke_width=26)
    for a, l, c in ((-118, 560, "#1f5f52"), (-92, 620, "#2f8269"), (-140, 500, "#184a42"), (-70, 460, "#3d9b7c")):
        frond(s, 60, 1420, l, a + 40, c, 13)
    for a, l, c in ((-120, 560, "#1f5f52"), (-96, 640, "#2f8269"), (-76, 480, "#184a42")):
        frond(s, 1040, 1440, l, a - 10, c, 13)
    s.rect(0, 1400, 1080, 680, s.ramp("#f3c4a5", "#d98a73"))
    podium(s, 330, 1330, 330, 150, "#fff1e4", s.ramp("#f6d8c4", "#c88673", angle=0))
    podium(s, 770, 1370, 300, 110, "#fff1e4", s.ramp("#f6d8c4", "#c88673", angle=0))
    podium(s, 555, 1250, 310, 250, "#fff8ef", s.ramp("#fbe6d6", "#d69c86", angle=0))
    bottle(s, 555, 1252, 1.05, s.ramp("#f2a33f", "#b5531c", "#8a3512", angle=15), "#fff6ea")
    bottle(s, 330, 1332, 0.8, s.ramp("#63b7a3", "#23705f", "#114a42", angle=15), "#eef8f2")
    bottle(s, 770, 1372, 0.78, s.ramp("#f08aa0", "#b8395f", "#7c1f45", angle=15), "#fff0f2")
    for x, y, r in ((180, 1500, 44), (250, 1530, 28), (900, 1520, 40), (830, 1550, 22)):
        s.circle(x, y, r, s.halo((0, "#ffe9b0"), (1, "#e8772f"), cx=0.35, cy=0.3, r=0.8))
        leaf(s, x + r * 0.2, y - r, r * 0.9, -35, "#2f8269")
    s.add("</g>")
    return s


def crocus(svg, x, foot, k, tone=("#b48af0", "#7a45c8", "#5a2aa6")):
    """A saffron crocus of height 200 k."""
    r = lambda v: round(v * k, 1)
    svg.path(f"M{x} {foot} q{r(-8)} {r(-60)} 0 {r(-110)}", stroke="#d9e6c4", stroke_width=r(11))
    for a, c in ((-128, "#3c8a4e"), (-60, "#2f7342"), (-142, "#2f7342"), (-46, "#3c8a4e")):
        leaf(svg, x, foot, r(140), a, c, 0.05)
    for a, c in ((-146, tone[2]), (-34, tone[2]), (-122, tone[1]), (-58, tone[1]), (-90, tone[0])):
        leaf(svg, x, foot - r(96), r(118), a, c, 0.3, "#ffffff" if c == tone[0] else None)
    for a in (-112, -90, -68):
        svg.add(
            f'<path d="M{x} {foot - r(110)} l{r(70) * math.cos(math.radians(a)):.1f} {r(70) * math.sin(math.radians(a)):.1f}" stroke="#e2401f" stroke-width="{r(7)}" stroke-linecap="round"/>'
        )


def saffron():
    """Product, square: a jar of saffron with crocuses."""
    s, c = Svg(1000, 1000), random.Random(3)
    s.rect(0, 0, 1000, 1000, s.ramp("#4b2377", "#8d4bb0", "#e39bb0", angle=80))
    star(s, 430, 500, 460, "#ffffff", 11, opacity=0.1)
    star(s, 350, 500, 460, s.ramp("#ffd98a", "#f3a24a"), 0)
    star(s, 300, 500, 460, "none", stroke="#fff3d2", stroke_width=5, opacity=0.8)
    for x, k in ((150, 1.35), (250, 1.05), (86, 1), (850, 1.4), (750, 1.0), (925, 1.05)):
        crocus(s, x, 850, k)
    s.rect(0, 800, 1000, 200, s.ramp("#5a2a80", "#2f1350"))
    podium(s, 500, 800, 560, 80, "#f7e6ff", s.ramp("#d9b6ef", "#7d4aa8", angle=0))
    s.oval(500, 800, 210, 28, "#000", opacity=0.3, filter=s.blur(12))
    s.path(
        "M330 380 H670 V770 Q670 806 634 806 H366 Q330 806 330 770 Z",
        s.ramp("#fff4e6", "#ffd9b0", "#f2b98a", angle=0),
        opacity=0.95,
    )
    s.defs.append('<clipPath id="jar"><path d="M344 470 H656 V768 Q656 792 632 792 H368 Q344 792 344 768 Z"/></clipPath>')
    s.add('<g clip-path="url(#jar)">')
    s.rect(344, 460, 312, 340, s.ramp("#b3161b", "#7c0a16"))
    for _ in range(420):
        x, y, a = c.uniform(330, 670), c.uniform(470, 800), c.uniform(0, 180)
        dx, dy = 26 * math.cos(math.radians(a)), 26 * math.sin(math.radians(a))
        s.path(
            f"M{x:.0f} {y:.0f} q{dx / 2 + 6:.0f} {dy / 2 - 6:.0f} {dx:.0f} {dy:.0f}",
            stroke=c.choice(("#e03a1e", "#c41f1c", "#f26b2a", "#8f0d18")),
            stroke_width=5,
            stroke_linecap="round",
        )
    s.add("</g>")
    s.rect(352, 396, 22, 384, "#ffffff", 11, opacity=0.5)
    s.rect(312, 300, 376, 92, s.ramp("#ffe2a0", "#d99a3b", "#a8651f", angle=0), 18)
    s.rect(312, 330, 376, 8, "#8a4f17", 0, opacity=0.35)
    s.rect(312, 352, 376, 8, "#8a4f17", 0, opacity=0.35)
    s.rect(400, 540, 200, 176, "#fff6e6", 14)
    crocus(s, 500, 690, 0.62)
    s.path(
        "M300 836 q60 -36 110 -8 M620 836 q40 -30 96 -4 M470 850 q40 -22 74 0",
        stroke="#e03a1e",
        stroke_width=7,
        stroke_linecap="round",
    )
    return s


def crocus_field():
    """Photo, upright: a crocus field at sunrise."""
    s, c = Svg(1080, 1920), random.Random(21)
    s.sky("#34246b", "#8a4c9c", "#f08a8a", "#ffc78a", "#ffe6b8", "#ffe6b8", "#ffe6b8")
    s.circle(640, 800, 520, s.halo((0, "#fff3cf", 0.95), (1, "#ffd08a", 0)))
    s.circle(640, 800, 110, "#fff6df")
    for base, height, colour in ((960, 420, "#b37ba8"), (980, 300, "#8a5896"), (1000, 190, "#643f80")):
        line = ridge(c, 1080, base, height)
        s.area(line, s.ramp(mix(colour, "#ffffff", 0.08), mix(colour, "#ffc78a", 0.55)))
    s.area(wave(1080, 1010, (14, 0.9, 0.2), (6, 0.3, 0.5)), s.ramp("#7a4fa0", "#4a2580"))
    for n in range(11):
        x0 = -900 + n * 270
        s.path(
            f"M{540 + (x0 + 40 - 540) * 0.06:.0f} 1012 L{x0} 1920 h130 L{540 + (x0 + 120 - 540) * 0.06:.0f} 1012 Z",
            "#2f6b46",
            opacity=0.55,
        )
    rows = sorted([c.uniform(0, 1) ** 1.6 for _ in range(360)])
    for depth in rows:
        y = 1030 + depth * 900
        crocus(
            s,
            c.uniform(-40, 1120),
            y,
            0.09 + depth * 1.0,
            c.choice((("#c49bf5", "#8a55d8", "#6633b5"), ("#b48af0", "#7a45c8", "#5a2aa6"), ("#d6b0fa", "#9a66e0", "#7340bd"))),
        )
    # a picker with a basket, seen from behind
    s.add('<g transform="translate(70 -20) scale(.92)">')
    s.path("M470 1240 Q480 1080 540 1060 Q600 1080 612 1240 Q540 1270 470 1240 Z", s.ramp("#d8443f", "#8f1f35"))
    s.path("M500 1070 Q494 990 540 984 Q590 990 582 1070 Q540 1100 500 1070 Z", "#fff0dc")
    s.path("M584 1120 q52 30 40 78 l-22 4 q4 -40 -34 -60 Z", "#b02f38")
    s.path("M574 1190 h96 l-14 62 h-66 Z", s.ramp("#c98d4a", "#8a5626"))
    s.oval(622, 1190, 48, 13, "#a06fe0")
    s.add("</g>")
    return s


def presenter(skin, hair, cloth, collar, scarf=None, seed=1):
    """Lower third: a host in a studio, without a face, flat."""
    s, c = Svg(1920, 1080), random.Random(seed)
    warm = scarf is not None
    wall = ("#2b4a52", "#3f6d6c", "#7fa893") if warm else ("#1d2a4d", "#34487a", "#6b7fae")
    s.rect(0, 0, 1920, 1080, s.ramp(*wall, angle=25))
    s.circle(1350, 330, 900, s.halo((0, "#ffdca8", 0.55), (1, "#ffdca8", 0)))
    # shelves, out of focus
    s.add(f'<g filter="{s.blur(5)}">')
    for shelf in (230, 480, 730):
        s.rect(60, shelf, 660, 18, "#16203c" if not warm else "#1d3439", 4)
        x = 90
        while x < 640:
            w, h = c.uniform(22, 54), c.uniform(110, 190)
            kind = c.random()
            if kind < 0.74:
                s.rect(
                    x, shelf - h, w, h, c.choice(("#e8a857", "#d9694a", "#efe3cf", "#5b86c4", "#7fb3a5", "#b3506b", "#c9d4e8")), 4
                )
                s.rect(x + 6, shelf - h * 0.8, w - 12, 8, "#ffffff", 2, opacity=0.45)
            else:
                w = 84
                s.rect(x + 18, shelf - 56, 48, 56, "#e6d3bd", 8)
                for a in range(-150, -20, 22):
                    leaf(s, x + 42, shelf - 54, c.uniform(70, 110), a, c.choice(("#3f9a78", "#2f7d62", "#5bb08c")), 0.2)
            x += w + c.uniform(6, 26)
    s.rect(1420, 130, 380, 520, "#f4dfbf", 12)
    s.rect(1440, 150, 340, 480, s.ramp("#7fc1dc", "#cfe6df", "#ffe3b3"), 4)
    for n in range(3):
        s.path(
            f"M1440 {520 + n * 34} q90 -{90 - n * 20} 170 -10 t170 -{20 + n * 8} V630 H1440 Z", ("#a9cdb4", "#7fb08f", "#52896d")[n]
        )
    s.rect(1600, 150, 16, 480, "#f4dfbf")
    s.rect(1180, 40, 8, 190, "#16203c")
    s.path("M1100 330 Q1110 230 1184 226 Q1258 230 1268 330 Z", "#e8a857")
    s.circle(1184, 336, 150, s.halo((0, "#fff0c4", 0.8), (1, "#fff0c4", 0)))
    s.add("</g>")
    x = 1120
    s.oval(x, 1090, 520, 90, "#000", opacity=0.25, filter=s.blur(30))
    s.path(
        f"M{x - 430} 1080 Q{x - 420} 800 {x - 170} 730 L{x - 70} 690 H{x + 70} L{x + 170} 730 Q{x + 420} 800 {x + 430} 1080 Z",
        s.ramp(*cloth, angle=70),
    )
    s.path(f"M{x - 78} 560 H{x + 78} V700 Q{x} 780 {x - 78} 700 Z", mix(skin, "#7a3b2a", 0.28))
    if scarf:
        s.path(
            f"M{x - 214} 420 Q{x - 214} 180 {x} 176 Q{x + 214} 180 {x + 214} 420 Q{x + 232} 620 {x + 190} 770 Q{x} 850 {x - 190} 770 Q{x - 232} 620 {x - 214} 420 Z",
            s.ramp(*scarf, angle=60),
        )
        s.oval(x, 440, 140, 178, skin)
        s.path(
            f"M{x - 140} 420 Q{x - 146} 262 {x} 256 Q{x + 146} 262 {x + 140} 420 Q{x + 110} 306 {x - 20} 312 Q{x - 118} 322 {x - 140} 420 Z",
            hair,
        )
        s.path(
            f"M{x - 192} 716 Q{x} 836 {x + 192} 690 Q{x + 262} 800 {x + 216} 866 Q{x + 60} 960 {x - 90} 884 Q{x - 190} 840 {x - 192} 716 Z",
            s.ramp(*scarf, angle=20),
        )
        s.path(f"M{x - 150} 700 Q{x} 790 {x + 160} 690", stroke="#ffffff", stroke_width=6, opacity=0.35)
        s.path(
            f"M{x + 20} 846 Q{x + 150} 900 {x + 128} 1080 H{x - 40} Q{x + 10} 960 {x - 60} 880 Z",
            s.ramp(mix(scarf[0], scarf[1], 0.4), scarf[1], angle=40),
        )
    else:
        s.path(f"M{x - 80} 690 L{x} 800 L{x + 80} 690 L{x + 120} 720 L{x + 10} 900 H{x - 10} L{x - 120} 720 Z", collar)
        s.oval(x, 430, 148, 192, skin)
        s.oval(x - 150, 450, 26, 44, mix(skin, "#7a3b2a", 0.16))
        s.oval(x + 150, 450, 26, 44, mix(skin, "#7a3b2a", 0.16))
        s.path(
            f"M{x - 158} 440 Q{x - 196} 214 {x - 20} 196 Q{x + 60} 150 {x + 130} 226 Q{x + 196} 262 {x + 158} 440 Q{x + 144} 350 {x + 96} 318 Q{x - 30} 352 {x - 112} 308 Q{x - 150} 350 {x - 158} 440 Z",
            hair,
        )
        s.path(
            f"M{x - 140} 486 Q{x - 130} 640 {x} 640 Q{x + 130} 640 {x + 140} 486 Q{x + 100} 560 {x} 552 Q{x - 100} 560 {x - 140} 486 Z",
            mix(hair, skin, 0.12),
        )
        s.path(f"M{x - 48} 566 q48 26 96 0", stroke=mix(skin, "#7a3b2a", 0.5), stroke_width=8, stroke_linecap="round")
    s.circle(x + 96, 880, 16, "#111522")
    s.rect(x + 90, 880, 10, 60, "#111522", 5)
    return s


def mark_wave():
    """Northside Radio: sound waves in a disc."""
    s = Svg(400, 400)
    s.circle(200, 200, 180, s.ramp("#25407f", "#0f1d45", angle=60))
    for n, h in enumerate((70, 150, 220, 130, 60)):
        s.rect(92 + n * 48, 200 - h / 2, 26, h, "#ffb545" if n == 2 else "#ffffff", 13)
    return s


def mark_book():
    """Roshan: an open book with a star above."""
    s = Svg(400, 400)
    s.path("M200 330 Q130 270 40 282 V150 Q130 140 200 200 Q270 140 360 150 V282 Q270 270 200 330 Z", s.ramp("#0c8a8a", "#06464f"))
    s.path("M200 206 V322", stroke="#fff9f0", stroke_width=10)
    star(s, 62, 200, 92, "#f0a63c")
    return s


def mark_own():
    s = Svg(600, 600)
    star(s, 270, 300, 300, s.ramp("#13698c", "#0b2545", angle=60))
    star(s, 190, 300, 300, "none", stroke="#ffb545", stroke_width=16)
    star(s, 92, 300, 300, "#ffffff")
    return s


def mark_pine():
    """Harbor & Pine: a fir above two waves in a ring."""
    s = Svg(600, 600)
    s.circle(300, 300, 268, "none", stroke="#123a4a", stroke_width=26)
    fir(s, 300, 380, 300, "#e2673f")
    s.rect(290, 372, 20, 34, "#e2673f")
    for y, c in ((420, "#123a4a"), (470, "#123a4a")):
        s.path(f"M120 {y} q45 -34 90 0 t90 0 t90 0 t90 0", stroke=c, stroke_width=22, stroke_linecap="round")
    return s


def mark_kooch():
    """Kooch: a dune and the sun behind it in an arch."""
    s = Svg(600, 600)
    arch = "M90 560 V300 Q90 130 300 30 Q510 130 510 300 V560 Z"
    s.defs.append(f'<clipPath id="arch"><path d="{arch}"/></clipPath>')
    s.path(arch, "#0d5c63")
    s.add('<g clip-path="url(#arch)">')
    s.circle(330, 270, 92, "#ffcf6b")
    s.path("M60 430 C200 430 240 330 330 330 C430 330 460 450 560 450 V600 H60 Z", "#f0874a")
    s.path("M330 330 C350 390 270 440 330 600 H560 V450 C460 450 430 330 330 330 Z", "#b8452f")
    s.add("</g>")
    s.path(arch, "none", stroke="#0d5c63", stroke_width=24)
    return s


PICTURES = {
    "promo/images/shadow.png": shadow,
    "promo/images/photo1.jpg": lambda: tiles(1280, 800, ("#0b2545", "#13698c", "#ffb545"), 1),
    "promo/images/photo2.jpg": lambda: tiles(1280, 800, ("#6a1f3d", "#d0583f", "#ffcb69"), 2),
    "promo/images/photo3.jpg": lambda: tiles(1280, 800, ("#0d3b33", "#2f9a76", "#f2c14e"), 3),
    "promo/images/logo.png": mark_own,
    "promo/samples/lake.jpg": lake,
    "promo/samples/camp.jpg": camp,
    "promo/samples/lighthouse.jpg": lighthouse,
    "promo/samples/pine.png": mark_pine,
    "promo/samples/dunes.jpg": dunes,
    "promo/samples/dome.jpg": dome,
    "promo/samples/mist.jpg": mist,
    "promo/samples/kooch.png": mark_kooch,
    "lower-third/images/background.jpg": lambda: tiles(1920, 1080, ("#0e1b3a", "#2f5d7c", "#ffb545"), 6, 200),
    "lower-third/images/logo.png": mark_own,
    "lower-third/samples/host.jpg": lambda: presenter("#e9b48f", "#2a1d1a", ("#3f7fb0", "#1d3f6e"), "#f4f1ea", seed=4),
    "lower-third/samples/wave.png": mark_wave,
    "lower-third/samples/author.jpg": lambda: presenter(
        "#f0c3a0", "#2b1b18", ("#b3506b", "#6e2340"), "#ffffff", ("#f3c56b", "#d98f3a"), seed=9
    ),
    "lower-third/samples/book.png": mark_book,
    "story/images/shadow.png": shadow,
    "story/images/photo.jpg": lambda: tiles(1080, 1920, ("#4a154b", "#d0506a", "#ffc857"), 5, 216),
    "story/images/product.jpg": lambda: tiles(1000, 1000, ("#0b4a45", "#3aa387", "#ffcf70"), 8, 200),
    "story/samples/still-life.jpg": still_life,
    "story/samples/serum.jpg": serum,
    "story/samples/crocus-field.jpg": crocus_field,
    "story/samples/saffron.jpg": saffron,
}


# What is not written at its drawn size and at ffmpeg's JPEG quality 4: (quality, width, mirrored).
SPECIAL = {
    "story/samples/crocus-field.jpg": (8, 780, False),
    "story/images/photo.jpg": (5, 864, False),
    "lower-third/images/background.jpg": (5, 1600, False),
    "lower-third/samples/author.jpg": (4, 1920, True),
}


def draw(name, make):
    quality, width, mirrored = SPECIAL.get(name, (4, None, False))
    out = TEMPLATES / name
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as room:
        svg, png = Path(room, "p.svg"), Path(room, "p.png")
        svg.write_text(make().text(width, mirrored), "utf-8")
        subprocess.run([os.environ.get("RESVG", "resvg"), svg, png], check=True)
        how = ["-q:v", str(quality)] if out.suffix == ".jpg" else []
        subprocess.run(
            [
                "ffmpeg",
                "-y",
                "-v",
                "error",
                "-i",
                png,
                *how,
                "-map_metadata",
                "-1",
                "-fflags",
                "+bitexact",
                "-flags",
                "+bitexact",
                out,
            ],
            check=True,
        )
    print(f"{name}: {out.stat().st_size // 1024} KB")


if __name__ == "__main__":
    for name, make in PICTURES.items():
        if len(sys.argv) < 2 or any(part in name for part in sys.argv[1:]):
            draw(name, make)
