"""Lower third, 1920 x 1080: a name and a role over the customer's picture, with a badge and a logo in the corner.

It stands on the left, or mirrored on the right, where a Persian name begins.
"""

from lottie import (
    BACK,
    END,
    IN_OUT,
    LINEAR,
    OUT,
    SOFT,
    START,
    composition,
    enter,
    fade,
    fill,
    gradient,
    group,
    keys,
    picture,
    rect,
    shadow,
    shape,
    text,
)
from motifs import star
from package import Template

SIZE = W, H = 1920, 1080
EDGE = 120  # from the picture's edge to the plates
NAME, ROLE = (940, 132), (760, 82)
AWAY = 152  # the frame at which it begins to leave


def lower_third():
    t = Template(
        "lower-third",
        {"en": "Lower third", "fa": "زیرنویس نام"},
        {
            "en": "Name and role over your own picture, with a badge and your logo in the corner. Six seconds.",
            "fa": "نام و سمت روی تصویر خودتان، با نشان گوشه و برچسب کوچک. شش ثانیه.",
        },
        SIZE,
        0,
    )
    t.weights = ["Regular", "Bold", "Black"]
    t.colour("primary", {"en": "Main colour", "fa": "رنگ اصلی"}, "#0b2545")
    t.colour("secondary", {"en": "Second colour", "fa": "رنگ دوم"}, "#13698c")
    t.colour("accent", {"en": "Accent", "fa": "رنگ تأکید"}, "#ffb545")
    t.colour("surface", {"en": "Name plate", "fa": "زمینهٔ نام"}, "#ffffff")
    t.colour("ink", {"en": "Name", "fa": "رنگ نام"}, "#0b2138")
    t.colour("text", {"en": "Role", "fa": "رنگ سمت"}, "#ffffff")
    t.theme("lapis", {"en": "Lapis", "fa": "لاجورد"}, "#0b2545 #13698c #ffb545 #ffffff #0b2138 #ffffff")
    t.theme("pomegranate", {"en": "Pomegranate", "fa": "انار"}, "#5a0f2e #b3263e #ffcb69 #fffaf3 #3d0c20 #ffffff")
    t.theme("garden", {"en": "Garden", "fa": "باغ"}, "#0d3b33 #27785a #f2c14e #fbfdf6 #10302a #ffffff")
    t.theme("turquoise", {"en": "Turquoise", "fa": "فیروزه"}, "#06464f #0c7f80 #ffd9a0 #fffaf2 #0a3238 #ffffff")
    t.theme("paper", {"en": "Black and white", "fa": "سیاه و سفید"}, "#111111 #3b3b3b #ffe14d #ffffff #111111 #ffffff")
    t.text("name", "lower", {"en": "Name", "fa": "نام"}, "First and last name", 34, required=True)
    t.text("role", "lower", {"en": "Role", "fa": "سمت"}, "Role, company", 48)
    t.text("badge", "lower", {"en": "Badge", "fa": "برچسب"}, "Interview", 18)
    t.switch("badge", {"en": "Show the badge", "fa": "نمایش برچسب"})
    t.switch("logo", {"en": "Show the logo", "fa": "نمایش نشان"})
    t.switch("left", {"en": "On the left", "fa": "سمت چپ"})
    t.switch("right", {"en": "On the right", "fa": "سمت راست"}, False)
    t.scene("lower", {"en": "Lower third", "fa": "زیرنویس نام"}, 180, 100, (66, 80), lower(t, 180), shortest=110, longest=600)
    t.audio = {
        "music": {"file": "audio/music.m4a", "volume": 0.55, "fade_in": 0.4, "fade_out": 1.4},
        "effects": [{"file": "audio/whoosh.m4a", "scene": "lower", "at_seconds": 0.15, "volume": 0.4}],
        "ducking": True,
    }
    return t


def lower(t, d):
    span = (0, d)
    back = t.image("background", "lower", {"en": "Background picture", "fa": "تصویر پس‌زمینه"}, SIZE, "background.jpg")
    mark = t.image("logo", "lower", {"en": "Logo", "fa": "نشان"}, (400, 400), "logo.png", "contain")
    sides = [
        composition(side, t.composition(side, one_side(t, span, mark, side)), span, SIZE, show=side) for side in ("left", "right")
    ]
    return [
        *sides,
        shape(
            "shade",
            span,
            group(rect(W, 620), fade("#000000", (0, 310), (0, -310), (62, 0))),
            p=(W / 2, H - 310),
            o=keys((0, 0, SOFT), (24, 100, LINEAR), (AWAY, 100, IN_OUT), (d, 30)),
        ),
        picture(
            "background",
            back,
            span,
            a=(W / 2, H / 2),
            p=keys((0, [W / 2, H / 2], LINEAR), (d, [W / 2 - 12, H / 2 - 6])),
            s=keys((0, [100.5, 100.5], LINEAR), (d, [107, 107])),
        ),
    ]


def one_side(t, span, mark, side):
    """Plates that grow out of an accent bar at the picture's edge; on the right everything is mirrored."""
    left = side == "left"
    sign, edge = (1, EDGE) if left else (-1, W - EDGE)
    at = lambda x: edge + sign * x
    name_y, role_y, inset, room = 828, 934, 58, NAME[0] - 280
    gone = keys((AWAY, 100, LINEAR), (AWAY + 7, 0))

    def plate(size, y, start, leave, paint, name):
        """A plate that grows from the bar and goes back into it."""
        width, height = size
        stops = ((start, 0, IN_OUT), (start + 22, width, LINEAR), (leave, width, IN_OUT), (leave + 18, 0))
        grow = rect(
            keys(*((f, [x, height], *ease) for f, x, *ease in stops)),
            p=keys(*((f, [at(14 + x / 2), y], *ease) for f, x, *ease in stops)),
        )
        return shape(name, span, group(grow, paint))

    pattern = [
        group(
            star(29),
            fill("accent"),
            p=(sign * -60 * n, 31 if n % 2 else -31),
            o=(80, 60, 42, 26, 12)[n],
            s=keys((28 + 3 * n, [0, 0], BACK), (46 + 3 * n, [100, 100])),
            r=keys((28, -50), (64, 0)),
        )
        for n in range(5)
    ]
    bar_height = NAME[1] + ROLE[1] + 1
    return [
        *badge(t, span, at, name_y - NAME[1] / 2 - 52),
        *bug(span, mark, W - 190 if left else 190),
        text(
            "name",
            t.default("name"),
            "ink",
            74,
            (room, 98),
            span,
            "Black",
            START if left else END,
            p=(at(14 + inset + room / 2), name_y - 2),
            o=gone,
            enter=enter(20, 22, dy=60),
        ),
        text(
            "role",
            t.default("role"),
            "text",
            40,
            (ROLE[0] - 2 * inset, 56),
            span,
            "Bold",
            START if left else END,
            p=(at(14 + ROLE[0] / 2), role_y),
            o=gone,
            enter=enter(28, 22, dy=40),
        ),
        shape(
            "spark",
            span,
            group(
                star(36),
                fill("accent"),
                s=keys((30, [0, 0], BACK), (50, [100, 100], LINEAR), (AWAY, [100, 100], IN_OUT), (AWAY + 10, [0, 0])),
                r=keys((30, -120, OUT), (66, 0, LINEAR), (span[1], 60)),
            ),
            p=(at(14 + NAME[0]), name_y + NAME[1] / 2),
        ),
        shape("pattern", span, *pattern, p=(at(14 + NAME[0] - 64), name_y), o=gone),
        shape(
            "bar",
            span,
            group(
                rect(
                    keys(
                        (0, [14, 0], SOFT),
                        (14, [14, bar_height], LINEAR),
                        (AWAY + 16, [14, bar_height], IN_OUT),
                        (AWAY + 27, [14, 0]),
                    )
                ),
                fill("accent"),
            ),
            p=(at(7), name_y - NAME[1] / 2 + bar_height / 2),
        ),
        plate(NAME, name_y, 8, AWAY + 5, fill("surface"), "name plate"),
        plate(ROLE, role_y, 15, AWAY + 2, gradient(("primary", "secondary"), (at(14), 0), (at(14 + ROLE[0]), 0)), "role plate"),
    ]


def badge(t, span, at, y):
    """A tab above the name, with a dot that beats."""
    width, height = 340, 66
    x = at(width / 2)
    beat = keys(*((f, [s, s], IN_OUT) for n in range(4) for f, s in ((40 + n * 28, 100), (52 + n * 28, 60))), (152, [100, 100]))
    shown = keys((AWAY - 4, 100, LINEAR), (AWAY + 4, 0))
    size = keys(
        (26, [height, height], SOFT), (44, [width, height], LINEAR), (AWAY, [width, height], IN_OUT), (AWAY + 12, [height, height])
    )
    return [
        text(
            "badge",
            t.default("badge"),
            "primary",
            34,
            (width - 110, 48),
            span,
            "Bold",
            p=(x + 20, y - 1),
            o=shown,
            enter=enter(34, 12, dy=16),
            show="badge",
        ),
        shape(
            "badge dot?badge",
            span,
            group(star(15), fill("primary"), s=beat),
            p=(x - width / 2 + 44, y),
            o=keys((34, 0, LINEAR), (40, 100, LINEAR), (AWAY - 4, 100, LINEAR), (AWAY + 4, 0)),
        ),
        shape(
            "badge plate?badge",
            span,
            group(rect(size, r=height / 2), fill("accent")),
            p=(x, y),
            o=keys((26, 0, LINEAR), (31, 100, LINEAR), (AWAY + 7, 100, LINEAR), (AWAY + 12, 0)),
        ),
    ]


def bug(span, mark, x):
    """The logo on a white star in the upper corner."""
    y, leave = 176, AWAY + 4
    return [
        picture(
            "logo",
            mark,
            span,
            "logo",
            p=(x, y),
            a=(200, 200),
            s=keys((18, [0, 0], BACK), (38, [30, 30], LINEAR), (leave, [30, 30], IN_OUT), (leave + 12, [0, 0])),
        ),
        shape(
            "logo plate?logo",
            span,
            group(
                star(112),
                fill("#ffffff"),
                s=keys((10, [0, 0], BACK), (32, [100, 100], LINEAR), (leave + 2, [100, 100], IN_OUT), (leave + 16, [0, 0])),
                r=keys((10, -90, OUT), (48, 0, LINEAR), (span[1], 16)),
            ),
            p=(x, y),
            **shadow(30, 10, 36),
        ),
    ]
