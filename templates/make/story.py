"""Story, 1080 x 1920: a hook, a photo with its caption, an offer with its price and a call to action.

The upper and lower sixth stay free of words: phones lay their own buttons there.
"""

from lottie import (
    BACK,
    IN_OUT,
    LINEAR,
    OUT,
    SOFT,
    enter,
    fade,
    fill,
    gradient,
    group,
    keys,
    null,
    picture,
    rect,
    shadow,
    shape,
    stroke,
    text,
    trim,
)
from motifs import open_with_bars, open_with_curtain, open_with_one_star, pill, soft_shadow, star, star_window, tile_field, zooming
from package import Template

SIZE = W, H = 1080, 1920
MIDDLE = W / 2
OPEN = 15
PRODUCT, PHOTO = (1000, 1000), (1080, 1920)


def story():
    t = Template(
        "story",
        {"en": "Story offer", "fa": "استوری پیشنهاد ویژه"},
        {
            "en": "A vertical story in nine seconds: a question, a photo, an offer with its price.",
            "fa": "استوری عمودی در نه ثانیه: یک پرسش، یک عکس و پیشنهاد با قیمت.",
        },
        SIZE,
        OPEN,
    )
    t.weights = ["Regular", "Bold", "Black"]
    palette(t)
    fields(t)
    t.own_image("shadow", (320, 320), "shadow.png")
    product = t.image("product", "offer", {"en": "Product picture", "fa": "تصویر محصول"}, PRODUCT, "product.jpg")
    t.scene("hook", {"en": "Hook", "fa": "شروع"}, 81, 52, (42, 18), hook(t, 81, product), shortest=66)
    t.scene("photo", {"en": "Photo", "fa": "عکس"}, 96, 62, (44, 30), photo(t, 96), shortest=72, required=False)
    t.scene("offer", {"en": "Offer", "fa": "پیشنهاد"}, 123, 96, (66, 40), offer(t, 123, product), shortest=93)
    t.audio = {
        "music": {"file": "audio/music.m4a", "volume": 0.85, "fade_in": 0.05, "fade_out": 1.0},
        "effects": [
            {"file": "audio/whoosh.m4a", "scene": "photo", "at_seconds": 0.0, "volume": 0.45},
            {"file": "audio/whoosh.m4a", "scene": "offer", "at_seconds": 0.0, "volume": 0.45},
            {"file": "audio/chime.m4a", "scene": "offer", "at_seconds": 0.85, "volume": 0.5},
        ],
        "ducking": True,
    }
    return t


def palette(t):
    t.colour("primary", {"en": "Main colour", "fa": "رنگ اصلی"}, "#4a154b")
    t.colour("secondary", {"en": "Second colour", "fa": "رنگ دوم"}, "#c2345f")
    t.colour("accent", {"en": "Accent", "fa": "رنگ تأکید"}, "#ffc857")
    t.colour("background", {"en": "Background", "fa": "پس‌زمینه"}, "#fff6ec")
    t.colour("surface", {"en": "Cards", "fa": "کارت‌ها"}, "#ffffff")
    t.colour("ink", {"en": "Text on background and cards", "fa": "متن روی پس‌زمینه و کارت"}, "#2f1033")
    t.colour("text", {"en": "Text on the main colour", "fa": "متن روی رنگ اصلی"}, "#ffffff")
    t.theme("plum", {"en": "Plum", "fa": "آلو"}, "#4a154b #c2345f #ffc857 #fff6ec #ffffff #2f1033 #ffffff")
    t.theme("lapis", {"en": "Lapis", "fa": "لاجورد"}, "#0b2a6b #1b7fb8 #ffd166 #f1f6fb #ffffff #0b2147 #ffffff")
    t.theme("mint", {"en": "Mint", "fa": "نعنا"}, "#0b4a45 #1f8a6d #ffcf70 #f2f8f1 #ffffff #0c332f #ffffff")
    t.theme("saffron", {"en": "Saffron", "fa": "زعفران"}, "#7a1f1f #c8501e #ffd75e #fff7e8 #ffffff #431212 #ffffff")
    t.theme("night", {"en": "Night", "fa": "شب"}, "#26165f #5a35c4 #3ee6c4 #0f0b22 #211a42 #f5f2ff #ffffff")


def fields(t):
    t.text("kicker", "hook", {"en": "Small line", "fa": "خط کوچک"}, "This week only", 24)
    t.text("hook", "hook", {"en": "Hook", "fa": "جملهٔ شروع"}, "Have you seen what is new?", 44, 3, required=True)
    t.text("caption_title", "photo", {"en": "Heading of the photo", "fa": "تیتر عکس"}, "Made with care", 26)
    t.text("caption", "photo", {"en": "Caption", "fa": "زیرنویس عکس"}, "One or two lines about what is in the picture.", 90, 3)
    t.text("offer", "offer", {"en": "Product", "fa": "محصول"}, "Name of the product", 34, required=True)
    t.text("price", "offer", {"en": "Price", "fa": "قیمت"}, "$24", 18, required=True)
    t.text("price_note", "offer", {"en": "Below the price", "fa": "زیر قیمت"}, "instead of $32, until Friday", 36)
    t.text("discount", "offer", {"en": "Discount", "fa": "تخفیف"}, "−25%", 8)
    t.text("action", "offer", {"en": "Call to action", "fa": "دعوت به اقدام"}, "Order today", 24)
    t.text("handle", "offer", {"en": "Handle or phone", "fa": "نشانی یا تلفن"}, "@yourshop", 28)
    t.switch("kicker", {"en": "Show the small line", "fa": "نمایش خط کوچک"})
    t.switch("discount", {"en": "Show the discount", "fa": "نمایش تخفیف"})


def hook(t, d, product):
    span, centre = (0, d), (MIDDLE, 1290)
    ring = lambda radius, colour, width, start, turn, o: group(
        star(radius),
        stroke(colour, width),
        trim(0, keys((start, 0, SOFT), (start + 26, 100))),
        r=keys((start, turn, OUT), (d, turn + 24)),
        o=o,
    )
    return [
        text(
            "hook",
            t.default("hook"),
            "text",
            124,
            (920, 456),
            span,
            "Black",
            leading=1.22,
            p=(MIDDLE, 588),
            enter=enter(12, 28, dy=120),
        ),
        text(
            "kicker",
            t.default("kicker"),
            "accent",
            42,
            (480, 60),
            span,
            "Bold",
            p=(MIDDLE, 264),
            enter=enter(14, 16, dy=24),
            show="kicker",
        ),
        pill(span, (MIDDLE, 264), (560, 96), 8, stroke("accent", 4), show="kicker"),
        picture(
            "product",
            product,
            span,
            p=centre,
            s=keys((0, [80, 80], LINEAR), (d, [88, 88])),
            **star_window(PRODUCT, 486, [(13, 0, -22.5, BACK), (38, 1, 0, LINEAR), (d, 0.955, 8)]),
        ),
        shape(
            "frame",
            span,
            group(
                star(440),
                fill("accent"),
                s=keys((10, [0, 0], BACK), (36, [100, 100])),
                r=keys((10, -40, BACK), (38, 0, LINEAR), (d, 8)),
            ),
            p=centre,
        ),
        shape(
            "rings",
            span,
            ring(500, "text", 4, 20, -30, 50),
            ring(580, "text", 3, 26, 10, 28),
            ring(680, "text", 3, 32, -14, 16),
            p=centre,
        ),
        tile_field(span, 6, 10, 216, lambda c, r: ("line", 14) if r < 3 or c in (0, 5) else None, 6, 1, p=(0, 0), drift=(0, 40)),
        *open_with_bars(SIZE, 13, ("primary", "secondary"), "accent", d, bars=6, across=False),
    ]


def photo(t, d):
    span = (0, d)
    slot = t.image("photo", "photo", {"en": "Photo, upright", "fa": "عکس عمودی"}, PHOTO, "photo.jpg")
    card = null("card", span, p=keys((22, [MIDDLE, 2240], OUT), (48, [MIDDLE, 1462])))
    return [
        open_with_curtain(SIZE, 20, "accent"),
        text(
            "caption_title",
            t.default("caption_title"),
            "ink",
            74,
            (800, 100),
            span,
            "Black",
            p=(0, -78),
            parent=card,
            enter=enter(34, 18, dy=40),
        ),
        text(
            "caption",
            t.default("caption"),
            "ink",
            44,
            (800, 200),
            span,
            "Regular",
            leading=1.45,
            p=(0, 88),
            parent=card,
            enter=enter(40, 22, dy=30),
        ),
        shape(
            "spark",
            span,
            group(
                star(64),
                fill("accent"),
                r=keys((30, -140, OUT), (64, 0, LINEAR), (d, 20)),
                s=keys((30, [0, 0], BACK), (50, [100, 100])),
            ),
            group(star(28), fill("surface"), s=keys((40, [0, 0], BACK), (56, [100, 100]))),
            p=(0, -210),
            parent=card,
        ),
        shape("caption card", span, group(rect(920, 420, r=52), fill("surface")), parent=card),
        soft_shadow(span, (920, 420), o=60, parent=card),
        card,
        shape("shade", (10, d), group(rect(W, 1000), fade("#000000", (0, 500), (0, -500), (52, 0))), p=(MIDDLE, H - 500)),
        picture(
            "photo",
            slot,
            (10, d),
            a=(540, 960),
            p=keys((0, [MIDDLE, H / 2 + 20], LINEAR), (d, [MIDDLE, H / 2 - 20])),
            s=keys((0, [114, 114], SOFT), (46, [106, 106], LINEAR), (d, [104, 104])),
        ),
    ]


def offer(t, d, product):
    span, card = (0, d), (820, 760)
    frame = null("card", span, p=keys((9, [MIDDLE, 2460], OUT), (38, [MIDDLE, 640])), r=keys((9, 8, OUT), (42, 0)))
    seal = (MIDDLE + 340, 318)
    pulse = keys(
        (84, [100, 100], IN_OUT), (91, [105, 105], IN_OUT), (98, [100, 100], IN_OUT), (105, [105, 105], IN_OUT), (112, [100, 100])
    )
    button = null("button", span, p=(MIDDLE, 1568), s=pulse)
    return [
        text(
            "discount",
            t.default("discount"),
            "primary",
            78,
            (236, 104),
            span,
            "Black",
            p=seal,
            r=-8,
            s=keys((36, [0, 0], BACK), (54, [100, 100])),
            show="discount",
        ),
        shape(
            "seal?discount",
            span,
            group(
                star(176),
                fill("accent"),
                s=keys((32, [0, 0], BACK), (52, [100, 100])),
                r=keys((32, -150, OUT), (72, 0, LINEAR), (d, 24)),
            ),
            p=seal,
            **shadow(32, 10, 36),
        ),
        picture("product", product, span, parent=frame, **zooming(PRODUCT, card, 44, 0, d, (0.84, 0.95))),
        shape("frame", span, group(rect(card[0] + 32, card[1] + 32, r=60), fill("surface")), parent=frame),
        soft_shadow(span, (card[0] + 32, card[1] + 32), parent=frame),
        frame,
        text("offer", t.default("offer"), "ink", 74, (940, 100), span, "Black", p=(MIDDLE, 1156), enter=enter(40, 20, dy=60)),
        text("price", t.default("price"), "ink", 120, (900, 160), span, "Black", p=(MIDDLE, 1312), enter=enter(50, 16, dy=50)),
        text(
            "price_note",
            t.default("price_note"),
            "ink",
            44,
            (860, 62),
            span,
            "Regular",
            p=(MIDDLE, 1420),
            enter=enter(58, 14, dy=20),
        ),
        text(
            "action", t.default("action"), "text", 54, (580, 76), span, "Bold", p=(0, 0), parent=button, enter=enter(66, 14, dy=24)
        ),
        pill(span, (0, 0), (680, 132), 58, gradient(("primary", "secondary"), (-340, 0), (340, 0)), parent=button),
        button,
        text("handle", t.default("handle"), "ink", 42, (800, 60), span, "Bold", p=(MIDDLE, 1706), enter=enter(74, 14, dy=20)),
        tile_field(
            span,
            6,
            10,
            216,
            lambda c, r: ("line", 9) if (c + r) % 2 == 0 and (r < 5 or r > 7) else None,
            16,
            0.8,
            "ink",
            p=(0, 0),
            drift=(0, -40),
        ),
        *open_with_one_star(SIZE, 15, "background", "accent", d, (MIDDLE, 700)),
    ]
