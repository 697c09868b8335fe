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
        return self.named("linearGradient", stop_list(stops), x1=.5 - x, y1=.5 - y, x2=.5 + x, y2=.5 + y)

    def halo(self, *stops, cx=.5, cy=.5, r=.5):
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

    def text(self):
        return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.w}" height="{self.h}" viewBox="0 0 {self.w} {self.h}">'
                f'<defs>{"".join(self.defs)}</defs>{"".join(self.body)}</svg>')


def attrs(values):
    return " ".join(f'{key.replace("_", "-")}="{value}"' for key, value in values.items())


def stop_list(stops):
    out = []
    for place, stop in enumerate(stops):
        offset, colour, *alpha = stop if isinstance(stop, tuple) else (place / (len(stops) - 1), stop)
        out.append(f'<stop offset="{offset}" stop-color="{colour}"' + (f' stop-opacity="{alpha[0]}"' if alpha else "") + "/>")
    return "".join(out)


def mix(a, b, share):
    one = lambda at: round(int(a[at:at + 2], 16) * (1 - share) + int(b[at:at + 2], 16) * share)
    return "#" + "".join(f"{one(at):02x}" for at in (1, 3, 5))


def ridge(chance, width, base, height, rough=0.55, steps=8):
    """A mountain line by midpoint displacement."""
    line, reach = [base - height * chance.random(), base - height * chance.random()], height
    line = [base, base - height, base - height * .3] if chance.random() < .5 else [base - height * .4, base - height * .9, base]
    for _ in range(steps):
        nxt = []
        for a, b in zip(line, line[1:]):
            nxt += [a, (a + b) / 2 + (chance.random() - .5) * reach * .5]
        line, reach = nxt + [line[-1]], reach * rough
    return [(width * n / (len(line) - 1), y) for n, y in enumerate(line)]


def wave(width, base, *swings, steps=80):
    """A soft line: sums of sines `(height, length, shift)`."""
    return [(width * n / steps, base + sum(h * math.sin((n / steps + s) * 2 * math.pi / l) for h, l, s in swings)) for n in range(steps + 1)]


def fir(svg, x, foot, height, colour):
    tiers = 5
    d = f"M{x - height * .025:.1f} {foot:.1f}"
    left, right = [], []
    for n in range(tiers):
        y, half = foot - height * (.08 + .18 * n), height * (.23 - .038 * n)
        left += [(x - half, y), (x - half * .42, y - height * .15)]
        right += [(x + half, y), (x + half * .42, y - height * .15)]
    line = left + [(x, foot - height)] + right[::-1]
    svg.path(d + " L" + " L".join(f"{a:.1f} {b:.1f}" for a, b in line) + f" L{x + height * .025:.1f} {foot:.1f} Z", colour)


def forest(svg, chance, line, colour, low, high, count):
    for _ in range(count):
        x, y = line[chance.randrange(len(line))]
        fir(svg, x + chance.uniform(-20, 20), y + 14, chance.uniform(low, high), colour)


def star_points(r, cx, cy, turn=0, waist=WAIST):
    return " ".join(f"{cx + (r if n % 2 == 0 else r * waist) * math.cos(math.radians(n * 22.5 + turn)):.1f},"
                    f"{cy + (r if n % 2 == 0 else r * waist) * math.sin(math.radians(n * 22.5 + turn)):.1f}" for n in range(16))


def star(svg, r, x, y, fill, turn=0, **more):
    svg.add(f'<polygon points="{star_points(r, x, y, turn)}" fill="{fill}" {attrs(more)}/>')


def night(svg, chance, count, depth):
    for _ in range(count):
        svg.circle(chance.uniform(0, svg.w), chance.uniform(0, depth), chance.choice((.8, 1, 1.3, 2)), "#fff", opacity=round(chance.uniform(.3, 1), 2))


# ---- pictures ----------------------------------------------------------------------------------------------------

def shadow():
    """Black, rounded and blurred: what a card throws on the wall behind it. A card of 240 stands in a picture of 320."""
    s = Svg(320, 320)
    s.rect(50, 50, 220, 220, "#000", 20, filter=s.blur(17), opacity=.62)
    return s


def tiles(colours, seed):
    """The template's own picture: star tiles in a gradient."""
    s, chance = Svg(1280, 800), random.Random(seed)
    deep, light, spark = colours
    s.rect(0, 0, 1280, 800, s.ramp(deep, light, angle=35))
    s.circle(960, 220, 620, s.halo((0, "#ffffff", .38), (1, "#ffffff", 0)))
    pitch = 160
    for row in range(7):
        for column in range(10):
            x, y, kind = column * pitch - 40, row * pitch - 80, chance.random()
            if kind < .12:
                star(s, pitch / 2 * .95, x, y, spark)
            elif kind < .4:
                star(s, pitch / 2 * .95, x, y, "#fff", opacity=.13)
            else:
                star(s, pitch / 2 * .95, x, y, "none", stroke="#fff", stroke_width=2.5, opacity=.35)
            if kind > .75:
                star(s, pitch / 4, x, y, "#fff", opacity=.22)
    return s


def lake():
    s, c = Svg(1280, 800), random.Random(4)
    s.sky("#25386e", "#7a6aa8", "#f2a48b", "#ffdf9e", "#ffdf9e")
    s.circle(850, 372, 330, s.halo((0, "#fff4cf", .95), (.25, "#ffe3a0", .5), (1, "#ffd27d", 0)))
    s.circle(850, 372, 52, "#fff6dc")
    for base, height, colour in ((470, 300, "#a986ac"), (480, 220, "#7d6a9c"), (492, 140, "#4f4f83")):
        line = ridge(c, 1280, base, height)
        s.area(line, s.ramp(mix(colour, "#ffffff", .12), mix(colour, "#f8b79a", .45)))
    shore = ridge(c, 1280, 506, 26, .5)
    s.area(shore, "#26315c")
    forest(s, c, shore, "#1d2750", 34, 84, 150)
    s.rect(0, 520, 1280, 280, s.ramp("#f5b795", "#b27fa6", "#3f4a86", "#1d2a5c"))
    s.rect(790, 520, 120, 280, s.ramp((0, "#fff3cf", .9), (1, "#fff3cf", 0)), filter=s.blur(14))
    for _ in range(90):
        y = c.uniform(524, 800)
        w = (y - 480) * c.uniform(.1, .7)
        s.rect(c.uniform(-60, 1280), y, w, 1 + (y - 520) / 90, c.choice(("#fff1d4", "#2a3768")), 2, opacity=round(c.uniform(.08, .34), 2))
    s.rect(0, 514, 1280, 12, s.ramp((0, "#ffe9c4", 0), (.5, "#ffe9c4", .75), (1, "#ffe9c4", 0)))
    near = wave(1280, 790, (50, 1.4, .35), (12, .4, 0))
    s.area(near, "#0d1533")
    for x, h in ((60, 330), (130, 250), (190, 180), (10, 260), (1210, 360), (1150, 240), (1268, 270), (1090, 150)):
        fir(s, x, 812, h, "#0d1533")
    # a canoe with its reflection
    s.path("M520 640 q120 44 250 0 q-26 40 -60 42 h-130 q-36 -2 -60 -42 Z", "#7c2d32")
    s.path("M520 640 q120 44 250 0 q-120 26 -250 0 Z", "#d9694a")
    s.path("M540 690 h210 q-40 26 -105 26 t-105 -26 Z", "#0d1533", opacity=.3)
    return s


def camp():
    s, c = Svg(1280, 800), random.Random(11)
    s.sky("#060b26", "#0f2350", "#1d5068", "#3d8a82")
    night(s, c, 240, 520)
    for n, (x, colour) in enumerate(((200, "#54f0b4"), (520, "#49d7c9"), (860, "#7a8cf5"), (1120, "#54f0b4"))):
        s.path(f"M{x - 120} 540 C{x - 40} 380 {x - 170} 220 {x + 30} 40 C{x + 60} 220 {x + 190} 330 {x + 130} 540 Z",
               s.ramp((0, colour, 0), (.45, colour, .6), (1, colour, 0)), filter=s.blur(26), opacity=.8)
    for base, height, colour in ((600, 330, "#17395c"), (620, 210, "#102a48")):
        s.area(ridge(c, 1280, base, height), s.ramp(mix(colour, "#9be8da", .25), colour))
    line = wave(1280, 628, (16, .7, .1), (8, .3, .4))
    s.area(line, "#0a1a30")
    forest(s, c, line, "#081529", 90, 210, 70)
    ground = wave(1280, 668, (14, 1.1, .2), (5, .25, 0))
    s.area(ground, s.ramp("#0d2030", "#050d18"))
    s.oval(640, 716, 420, 80, s.halo((0, "#ffb54d", .65), (1, "#ffb54d", 0)))
    s.path("M640 470 L820 712 H460 Z", s.ramp("#ff9c3d", "#ffd489", angle=70))
    s.path("M640 470 L820 712 H700 Z", "#c9571f", opacity=.8)
    s.path("M640 470 L700 712 H600 Z", s.ramp("#fff3c9", "#ffc45c"))
    s.path("M640 560 L668 712 H622 Z", "#5c2410", opacity=.75)
    s.path("M640 470 L628 452 M640 470 L652 452", stroke="#2b1408", stroke_width=5)
    for x, h in ((90, 420), (190, 300), (1160, 440), (1060, 280), (1250, 330), (10, 300)):
        fir(s, x, 760, h, "#040b16")
    s.circle(930, 706, 90, s.halo((0, "#ffcf70", .9), (1, "#ff8a2a", 0)))
    s.path("M930 650 q34 38 14 66 h-30 q-22 -26 16 -66 Z", "#ffb23e")
    s.path("M930 680 q16 20 6 36 h-13 q-10 -14 7 -36 Z", "#fff1b8")
    s.path("M890 722 L972 708 M890 708 L972 722", stroke="#2b1408", stroke_width=9, stroke_linecap="round")
    return s


def lighthouse():
    s, c = Svg(1280, 800), random.Random(23)
    s.sky("#2b4c8c", "#8a79b8", "#f58f7c", "#ffc37a", "#ffe7b0")
    s.circle(380, 520, 420, s.halo((0, "#fff0b8", .95), (1, "#ffb36b", 0)))
    s.circle(380, 500, 74, "#fff3cc")
    for _ in range(13):
        x, y, w = c.uniform(-100, 1200), c.uniform(70, 400), c.uniform(160, 460)
        s.rect(x, y, w, c.uniform(9, 22), c.choice(("#ffe3c9", "#f9b6a0", "#d796b0")), 11, opacity=.55)
    s.rect(0, 540, 1280, 260, s.ramp("#ffbd86", "#c7719a", "#3c4d92", "#1b2a63"))
    s.rect(320, 540, 120, 260, s.ramp((0, "#fff2c4", .95), (1, "#fff2c4", .05)), filter=s.blur(12))
    for _ in range(130):
        y = c.uniform(546, 800)
        s.rect(c.uniform(-60, 1280), y, (y - 500) * c.uniform(.12, .6), 1.5 + (y - 540) / 80, c.choice(("#fff0cf", "#22306e")), 2, opacity=round(c.uniform(.1, .4), 2))
    s.area([(700, 800), (724, 704), (790, 662), (856, 590), (930, 566), (1010, 520), (1120, 508), (1210, 474), (1280, 470)], s.ramp("#3f3566", "#141736"))
    s.area([(820, 800), (880, 690), (980, 640), (1080, 566), (1180, 556), (1280, 520)], s.ramp("#2a2450", "#0e1029"))
    s.path("M1020 518 L1046 230 H1114 L1140 512 Z", s.ramp("#fff5e6", "#f0c9b8", "#a9799a", angle=0))
    for y, h in ((292, 56), (404, 60)):
        k = (y - 230) / 290 * 26
        k2 = (y + h - 230) / 290 * 26
        s.path(f"M{1046 - k:.0f} {y} H{1114 + k:.0f} L{1114 + k2:.0f} {y + h} H{1046 - k2:.0f} Z", s.ramp("#e3543f", "#8f2b45", angle=0))
    s.rect(1034, 218, 92, 15, "#2a2450", 4)
    s.rect(1052, 168, 56, 52, s.ramp("#fff6c6", "#ffd36b"), 5)
    s.path("M1044 170 L1080 128 L1116 170 Z", "#c23d3d")
    s.path("M1060 192 L520 70 V270 Z", s.ramp((0, "#fff3b8", 0), (1, "#fff3b8", .6), angle=0))
    for x, y, k in ((560, 250, 1), (640, 212, .8), (700, 276, .7), (480, 200, .6)):
        s.path(f"M{x} {y} q{18 * k} {-18 * k} {34 * k} 0 q{16 * k} {-18 * k} {34 * k} 0", stroke="#2a2450", stroke_width=5 * k, stroke_linecap="round")
    return s


def dunes():
    s, c = Svg(1280, 800), random.Random(5)
    s.sky("#f26b4f", "#f99a5d", "#fdc684", "#fee3b5", "#fee3b5")
    s.circle(640, 330, 420, s.halo((0, "#fff3d0", .9), (1, "#ffd08a", 0)))
    s.circle(640, 330, 150, s.ramp("#fff6dd", "#ffd98c"))
    s.area(wave(1280, 452, (26, .9, .1), (10, .35, .5)), s.ramp("#e9a36f", "#f6c793"))
    s.area(wave(1280, 500, (34, 1.2, .45), (12, .5, .2)), s.ramp("#d9834f", "#efb27b"))
    ridge_line = wave(1280, 590, (70, 1.5, .62), (14, .6, .1))
    s.area(ridge_line, s.ramp("#f3b271", "#d07a42"))
    camels = [(400, .9), (530, 1), (660, .95), (790, 1.05)]
    for x, k in camels:
        y = min(ridge_line, key=lambda p: abs(p[0] - x))[1] - 74 * k + 4
        leg = lambda dx: f"M{x + dx * k:.0f} {y + 30 * k:.0f} l{-3 * k:.0f} {44 * k:.0f} h{7 * k:.0f} l{5 * k:.0f} {-44 * k:.0f} Z "
        s.path(f"M{x - 44 * k:.0f} {y + 24 * k:.0f} q{6 * k:.0f} {-20 * k:.0f} {22 * k:.0f} {-20 * k:.0f} q{18 * k:.0f} {-38 * k:.0f} {34 * k:.0f} 0 "
               f"q{20 * k:.0f} {0} {26 * k:.0f} {10 * k:.0f} q{10 * k:.0f} {-8 * k:.0f} {12 * k:.0f} {-38 * k:.0f} q{14 * k:.0f} {-8 * k:.0f} {26 * k:.0f} {4 * k:.0f} "
               f"q{-2 * k:.0f} {8 * k:.0f} {-16 * k:.0f} {7 * k:.0f} q{0} {44 * k:.0f} {-26 * k:.0f} {54 * k:.0f} q{-40 * k:.0f} {14 * k:.0f} {-70 * k:.0f} {0} q{-8 * k:.0f} {-4 * k:.0f} {-8 * k:.0f} {-17 * k:.0f} Z",
               "#4a1e2b")
        s.path(leg(-34) + leg(-20) + leg(14) + leg(28), "#4a1e2b")
    crest = [(0, 716), (160, 690), (330, 640), (520, 610), (640, 640), (800, 700), (1000, 730), (1280, 700)]
    s.path("M0 716 C180 700 330 600 520 606 C640 616 780 728 1280 700 V800 H0 Z", s.ramp("#f0a35c", "#b95a33", angle=20))
    s.path("M520 606 C560 660 420 720 560 800 H1280 V700 C780 728 640 616 520 606 Z", s.ramp("#a14a35", "#6d2a35", angle=60), opacity=.92)
    for n in range(9):
        y = 690 + n * 15
        s.path(f"M{60 + n * 8} {y} q90 {-16 + n} 190 -6 t170 -{4 + n}", stroke="#ffd9a0", stroke_width=2, opacity=.35)
    return s


def dome():
    s, c = Svg(1280, 800), random.Random(8)
    s.sky("#141c4f", "#3b3a86", "#a3568f", "#f58b6c", "#ffc27a")
    night(s, c, 110, 330)
    s.circle(1010, 170, 190, s.halo((0, "#ffeec2", .5), (1, "#ffeec2", 0)))
    s.circle(1010, 170, 52, "#fff2d0")
    s.circle(1032, 156, 46, "#3a3a85")
    s.area(ridge(c, 1280, 560, 130), "#7b4a86", opacity=.75)
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
        s.path(f"M{640 + n * 54} 380 C{640 + n * 66} 300 {640 + n * 44} 220 640 122", stroke="#f2d58c", stroke_width=3, opacity=.6)
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
            s.path(f"M{x} 656 V626 q20 -26 40 0 V656 Z", "#5a2347", opacity=.8)
    s.rect(0, 654, 1280, 146, s.ramp("#5a3a72", "#1a1d4c"))
    s.path("M452 656 H828 L760 800 H520 Z", s.ramp("#3f9fae", "#1c3b72"), opacity=.85)
    for _ in range(60):
        y = c.uniform(660, 800)
        s.rect(c.uniform(470, 790), y, c.uniform(20, 90), 2, "#ffe0a8", 1, opacity=round(c.uniform(.15, .5), 2))
    for x, h in ((70, 210), (150, 160), (1130, 170), (1215, 220)):
        s.path(f"M{x} 672 C{x - 34} {672 - h * .3:.0f} {x - 20} {672 - h:.0f} {x} {672 - h * 1.15:.0f} C{x + 20} {672 - h:.0f} {x + 34} {672 - h * .3:.0f} {x} 672 Z", "#1d2350")
    return s


def mist():
    s, c = Svg(1280, 800), random.Random(17)
    s.sky("#c9e6df", "#e7f2e4", "#f7efd6")
    s.circle(900, 210, 380, s.halo((0, "#fffbe8", 1), (1, "#fffbe8", 0)))
    s.circle(900, 210, 60, "#fffdf2")
    tones = ("#a9cfc4", "#7fb3a5", "#55917f", "#33705f", "#1b5044")
    for n, tone in enumerate(tones):
        base = 400 + n * 78
        line = wave(1280, base, (46 - n * 4, 1.1 - n * .1, n * .31), (14, .33, n * .17))
        forest(s, c, line, tone, 50 + n * 26, 100 + n * 36, 90 - n * 8)
        s.area(line, s.ramp(tone, mix(tone, "#e8f4ea", .55)))
        if n < 4:
            s.oval(c.uniform(300, 980), base + 74, 720, 34, "#f4faf2", opacity=.55, filter=s.blur(18))
    # a hut with a warm window
    s.path("M560 640 H760 V742 H560 Z", s.ramp("#8a5a3c", "#5d3828"))
    s.path("M536 648 L660 560 L784 648 Z", s.ramp("#c2553d", "#7e2f2b"))
    s.rect(594, 676, 46, 46, "#ffdc86", 3)
    s.path("M617 676 V722 M594 699 H640", stroke="#5d3828", stroke_width=4)
    s.rect(686, 672, 44, 70, "#3b2219", 3)
    s.circle(617, 699, 90, s.halo((0, "#ffdc86", .55), (1, "#ffdc86", 0)))
    s.path("M722 590 q-6 -40 20 -62 t4 -64", stroke="#fff", stroke_width=15, opacity=.5, stroke_linecap="round", filter=s.blur(5))
    s.area(wave(1280, 752, (10, .6, .2), (5, .2, 0)), s.ramp("#123a33", "#0a241f"))
    for x, h in ((70, 420), (170, 300), (1180, 470), (1090, 290), (1268, 330), (-6, 330)):
        fir(s, x, 806, h, "#0c2a25")
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
    "promo/images/photo1.jpg": lambda: tiles(("#0b2545", "#13698c", "#ffb545"), 1),
    "promo/images/photo2.jpg": lambda: tiles(("#6a1f3d", "#d0583f", "#ffcb69"), 2),
    "promo/images/photo3.jpg": lambda: tiles(("#0d3b33", "#2f9a76", "#f2c14e"), 3),
    "promo/images/logo.png": mark_own,
    "promo/samples/lake.jpg": lake,
    "promo/samples/camp.jpg": camp,
    "promo/samples/lighthouse.jpg": lighthouse,
    "promo/samples/pine.png": mark_pine,
    "promo/samples/dunes.jpg": dunes,
    "promo/samples/dome.jpg": dome,
    "promo/samples/mist.jpg": mist,
    "promo/samples/kooch.png": mark_kooch,
}


def draw(name, make):
    out = TEMPLATES / name
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as room:
        svg, png = Path(room, "p.svg"), Path(room, "p.png")
        svg.write_text(make().text(), "utf-8")
        subprocess.run([os.environ.get("RESVG", "resvg"), svg, png], check=True)
        how = ["-q:v", "4"] if out.suffix == ".jpg" else []
        subprocess.run(["ffmpeg", "-y", "-v", "error", "-i", png, *how, "-map_metadata", "-1", "-fflags", "+bitexact", "-flags", "+bitexact", out], check=True)
    print(f"{name}: {out.stat().st_size // 1024} KB")


if __name__ == "__main__":
    for name, make in PICTURES.items():
        if len(sys.argv) < 2 or any(part in name for part in sys.argv[1:]):
            draw(name, make)
