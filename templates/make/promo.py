"""Product promo, 1920 x 1080: a title, three photos on a carousel, three features on cards, the logo.

Its ornament is the eight-pointed star of Persian tilework; the scenes open with it.
"""

from lottie import (
    BACK,
    IN_OUT,
    LINEAR,
    OUT,
    SOFT,
    ellipse,
    enter,
    fade,
    fill,
    gradient,
    group,
    keys,
    null,
    path,
    picture,
    rect,
    shadow,
    shape,
    stroke,
    text,
    trim,
)
from motifs import open_with_bars, open_with_one_star, open_with_stars, ornament, pill, soft_shadow, star, tile_field, zooming
from package import Template

SIZE = W, H = 1920, 1080
MIDDLE = W / 2
OPEN = 18  # frames a scene takes to cover the one before it


def promo():
    t = Template(
        "promo",
        {"en": "Product promo", "fa": "معرفی محصول"},
        {
            "en": "Title, three photos, three features and your logo in eleven seconds, for a product, a shop or a service.",
            "fa": "عنوان، سه عکس، سه ویژگی و نشان شما در یازده ثانیه؛ برای محصول، فروشگاه یا خدمات.",
        },
        SIZE,
        OPEN,
    )
    t.weights = ["Regular", "Bold", "Black"]
    palette(t)
    fields(t)
    t.own_image("shadow", (320, 320), "shadow.png")
    t.scene("title", {"en": "Title", "fa": "عنوان"}, 78, 54, (44, 14), title(t, 78), shortest=66)
    t.scene("photos", {"en": "Photos", "fa": "عکس‌ها"}, 123, 68, (30, 72), photos(t, 123), shortest=90, longest=420, required=False)
    t.scene("features", {"en": "Features", "fa": "ویژگی‌ها"}, 93, 70, (56, 18), features(t, 93), shortest=78, required=False)
    t.scene("logo", {"en": "Logo", "fa": "نشان"}, 75, 66, (52, 18), logo(t, 75), shortest=60)
    t.audio = {
        "music": {"file": "audio/music.m4a", "volume": 0.8, "fade_in": 0.05, "fade_out": 1.2},
        "effects": [
            {"file": "audio/whoosh.m4a", "scene": scene, "at_seconds": 0.0, "volume": 0.45}
            for scene in ("photos", "features", "logo")
        ],
        "ducking": True,
    }
    return t


def palette(t):
    t.colour("primary", {"en": "Main colour", "fa": "رنگ اصلی"}, "#0b2545")
    t.colour("secondary", {"en": "Second colour", "fa": "رنگ دوم"}, "#13698c")
    t.colour("accent", {"en": "Accent", "fa": "رنگ تأکید"}, "#ffb545")
    t.colour("background", {"en": "Background", "fa": "پس‌زمینه"}, "#eff3f6")
    t.colour("surface", {"en": "Cards", "fa": "کارت‌ها"}, "#ffffff")
    t.colour("ink", {"en": "Text on background and cards", "fa": "متن روی پس‌زمینه و کارت"}, "#0b2138")
    t.colour("text", {"en": "Text on the main colour", "fa": "متن روی رنگ اصلی"}, "#ffffff")
    t.theme("lapis", {"en": "Lapis", "fa": "لاجورد"}, "#0b2545 #13698c #ffb545 #eff3f6 #ffffff #0b2138 #ffffff")
    t.theme("pomegranate", {"en": "Pomegranate", "fa": "انار"}, "#5a0f2e #b3263e #ffcb69 #fbf3ec #ffffff #3d0c20 #fff8f0")
    t.theme("garden", {"en": "Garden", "fa": "باغ"}, "#0d3b33 #27785a #f2c14e #f1f4ea #ffffff #10302a #ffffff")
    t.theme("night", {"en": "Night", "fa": "شب"}, "#26165f #5a35c4 #35e0c2 #0e0a22 #1f1840 #f4f1ff #ffffff")
    t.theme("turquoise", {"en": "Turquoise", "fa": "فیروزه"}, "#06464f #0c8a8a #ffd9a0 #fff9f0 #ffffff #0a3238 #ffffff")


def fields(t):
    t.text("kicker", "title", {"en": "Small line above the title", "fa": "خط کوچک بالای عنوان"}, "New collection", 24)
    t.text("title", "title", {"en": "Title", "fa": "عنوان"}, "Your product, beautifully told", 40, 2, required=True)
    t.text("subtitle", "title", {"en": "Subtitle", "fa": "زیرعنوان"}, "One short sentence that says why", 60)
    t.text("photos_title", "photos", {"en": "Heading over the photos", "fa": "سرتیتر عکس‌ها"}, "A closer look", 36)
    for n in "123":
        fa = {"1": "یک", "2": "دو", "3": "سه"}[n]
        t.text(f"caption{n}", "photos", {"en": f"Caption {n}", "fa": f"زیرنویس عکس {fa}"}, f"Caption of photo {n}", 44)
    t.text("features_title", "features", {"en": "Heading over the features", "fa": "سرتیتر ویژگی‌ها"}, "Why people choose it", 40)
    for n, (head, body) in enumerate(
        (
            ("Made to last", "Say in one or two lines what makes it strong."),
            ("Easy to use", "Tell how little it takes to get started."),
            ("Here for you", "Promise what happens after the sale."),
        ),
        1,
    ):
        fa = ("یک", "دو", "سه")[n - 1]
        t.text(f"feature{n}", "features", {"en": f"Feature {n}", "fa": f"ویژگی {fa}"}, head, 22)
        t.text(f"feature{n}_text", "features", {"en": f"Feature {n}, explained", "fa": f"توضیح ویژگی {fa}"}, body, 80, 3)
    t.text("tagline", "logo", {"en": "Closing line", "fa": "جملهٔ پایانی"}, "See you soon", 40, required=True)
    t.text("website", "logo", {"en": "Website or phone", "fa": "وب‌سایت یا تلفن"}, "www.example.com", 36)
    t.switch("kicker", {"en": "Show the small line", "fa": "نمایش خط کوچک"})
    t.switch("website", {"en": "Show the website", "fa": "نمایش وب‌سایت"})


def title(t, d):
    span = (0, d)

    def left(column, row):
        if (column, row) in ((0, 4), (2, 5), (1, 1)):
            return "accent", 100
        if column == 2 and row not in (0, 5):
            return None  # keeps clear of the title
        return ("full", 16) if (column * 2 + row * 3) % 5 == 0 else ("line", 46 - 14 * column)

    def right(column, row):
        return left(2 - column, 5 - row)

    halo = [
        group(
            star(radius),
            stroke("text", 3),
            trim(0, keys((start, 0, SOFT), (start + 34, 100))),
            o=o,
            r=keys((start, turn, OUT), (d, turn + 30)),
        )
        for radius, start, turn, o in ((430, 10, -40, 15), (560, 16, 10, 10))
    ]
    return [
        text(
            "title",
            t.default("title"),
            "text",
            152,
            (1300, 366),
            span,
            "Black",
            leading=1.22,
            p=(MIDDLE, 520),
            enter=enter(14, 26, dy=110),
        ),
        text(
            "subtitle", t.default("subtitle"), "text", 46, (1120, 66), span, "Regular", p=(MIDDLE, 868), enter=enter(30, 22, dy=40)
        ),
        text(
            "kicker",
            t.default("kicker"),
            "accent",
            38,
            (440, 54),
            span,
            "Bold",
            p=(MIDDLE, 212),
            enter=enter(16, 16, dy=24),
            show="kicker",
        ),
        pill(span, (MIDDLE, 212), (500, 84), 10, stroke("accent", 4), show="kicker"),
        ornament(span, (MIDDLE, 782), 28),
        tile_field(span, 3, 6, 204, left, 8, p=(60, 30), drift=(26, 0), name="tiles left"),
        tile_field(span, 3, 6, 204, right, 8, p=(W - 60 - 2 * 204, 30), drift=(-26, 0), name="tiles right"),
        shape("halo", span, *halo, p=(MIDDLE, 500)),
        shape(
            "glow",
            span,
            group(ellipse(1500), fade("#ffffff", (0, 0), (750, 0), (15, 0), radial=True)),
            p=(MIDDLE, 500),
            o=keys((8, 0), (40, 100)),
        ),
        *open_with_bars(SIZE, 14, ("primary", "secondary"), "accent", d, bars=4, across=False),
    ]


SLOT, CARD, PITCH = (1280, 800), (1120, 700), 1130


def photos(t, d):
    span, layers = (0, d), []
    moves = ((38, 54), (72, 88))
    for n in range(3):
        x = MIDDLE + n * PITCH
        rise = 8 + n * 4
        track = [(rise, [x, 524 + 980], OUT), (rise + 26, [x, 524], LINEAR)]
        size, light = [], []
        for step, (start, end) in enumerate(moves):
            track += [(max(start, rise + 27), [x - step * PITCH, 524], IN_OUT), (end, [x - (step + 1) * PITCH, 524], LINEAR)]
            size += [(start, [100 if step == n else 80] * 2, IN_OUT), (end, [100 if step + 1 == n else 80] * 2, LINEAR)]
            light += [(start, 100 if step == n else 60, IN_OUT), (end, 100 if step + 1 == n else 60, LINEAR)]
        hook = null(f"card {n + 1}", span, p=keys(*track), s=keys(*size))
        slot = t.image(
            f"photo{n + 1}", "photos", {"en": f"Photo {n + 1}", "fa": f"عکس {('یک', 'دو', 'سه')[n]}"}, SLOT, f"photo{n + 1}.jpg"
        )
        shown, gone = (20 if n == 0 else moves[n - 1][1] - 6), (moves[n][0] + 4 if n < 2 else d)
        layers += [
            text(
                f"caption{n + 1}",
                t.default(f"caption{n + 1}"),
                "ink",
                44,
                (1100, 64),
                (shown - 1, gone + 7),
                p=(MIDDLE, 946),
                enter=enter(shown, 14, dy=34),
                o=keys((gone, 100, IN_OUT), (gone + 6, 0)),
            ),
            picture(f"photo{n + 1}", slot, span, parent=hook, o=keys(*light), **zooming(SLOT, CARD, 30, 0, d, (0.92, 1.04))),
            shape("frame", span, group(rect(CARD[0] + 24, CARD[1] + 24, r=42), fill("surface")), parent=hook),
            soft_shadow(span, (CARD[0] + 24, CARD[1] + 24), parent=hook),
            hook,
        ]
    dots = []
    for n in range(3):
        stops = []
        for step, (start, end) in enumerate(moves):
            stops += [(start + 4, [100 if step == n else 55] * 2, IN_OUT), (end, [100 if step + 1 == n else 55] * 2, LINEAR)]
        dots.append(group(star(15), fill("accent"), p=((n - 1) * 46, 0), s=keys(*stops)))
    return [
        text(
            "photos_title",
            t.default("photos_title"),
            "ink",
            66,
            (1500, 90),
            span,
            "Black",
            p=(MIDDLE, 94),
            enter=enter(12, 18, dy=-50),
        ),
        *layers,
        shape("dots", span, *dots, p=(MIDDLE, 1014), o=keys((20, 0), (30, 100))),
        tile_field(
            span, 12, 6, 204, lambda c, r: ("line", 7) if (c + r) % 2 == 0 else None, 10, 0.6, "ink", p=(-60, 30), drift=(-120, 0)
        ),
        *open_with_stars(SIZE, 16, "background", "accent", span=d),
    ]


def features(t, d):
    span, layers = (0, d), []
    for n in range(3):
        x, start = MIDDLE + (n - 1) * 580, 10 + n * 5
        hook = null(f"card {n + 1}", span, p=keys((start, [x, 1440], OUT), (start + 28, [x, 622])))
        key = f"feature{n + 1}"
        layers += [
            text(
                key, t.default(key), "ink", 54, (450, 74), span, "Black", p=(0, 16), parent=hook, enter=enter(start + 14, 14, dy=30)
            ),
            text(
                f"{key}_text",
                t.default(f"{key}_text"),
                "ink",
                38,
                (430, 172),
                span,
                "Regular",
                leading=1.45,
                p=(0, 150),
                parent=hook,
                enter=enter(start + 20, 16, dy=24),
            ),
            shape(
                "tick",
                span,
                group(
                    path([[-30, 2], [-8, 24], [32, -20]], closed=False),
                    stroke("primary", 13),
                    trim(0, keys((start + 22, 0, SOFT), (start + 36, 100))),
                ),
                group(
                    star(84),
                    fill("accent"),
                    s=keys((start + 8, [0, 0], BACK), (start + 28, [100, 100])),
                    r=keys((start + 8, -120), (start + 40, 0), (d, 14), ease=OUT),
                ),
                p=(0, -150),
                parent=hook,
            ),
            shape("card", span, group(rect(520, 560, r=44), fill("surface")), parent=hook),
            soft_shadow(span, (520, 560), parent=hook, o=55),
            hook,
        ]
    return [
        text(
            "features_title",
            t.default("features_title"),
            "text",
            76,
            (1560, 104),
            span,
            "Black",
            p=(MIDDLE, 170),
            enter=enter(12, 20, dy=-50),
        ),
        *layers,
        tile_field(
            span, 10, 6, 204, lambda c, r: ("line", 16) if r in (0, 5) or c in (0, 9) else None, 10, 0.6, p=(42, 30), drift=(0, 24)
        ),
        *open_with_bars(SIZE, 16, ("primary", "secondary"), "accent", d),
    ]


def logo(t, d):
    span, centre = (0, d), (MIDDLE, 372)
    slot = t.image("logo", "logo", {"en": "Logo", "fa": "نشان"}, (600, 600), "logo.png", "contain")
    rays = [
        group(
            path([[0, -282], [0, -334]], closed=False),
            stroke("accent", 9),
            trim(keys((26, 0, SOFT), (44, 100)), keys((18, 0, SOFT), (34, 100))),
            r=n * 22.5,
        )
        for n in range(16)
    ]
    orbit = [
        group(
            star(13 if n % 2 else 22),
            fill("accent" if n % 2 else "secondary"),
            p=(0, -296 - 22 * (n % 3)),
            s=keys((26 + n, [0, 0], BACK), (42 + n, [100, 100])),
        )
        for n in range(8)
    ]
    orbit = [group(one, r=n * 45 + 10) for n, one in enumerate(orbit)]
    return [
        text("tagline", t.default("tagline"), "ink", 78, (1560, 106), span, "Black", p=(MIDDLE, 798), enter=enter(24, 20, dy=70)),
        text(
            "website",
            t.default("website"),
            "text",
            42,
            (600, 60),
            span,
            p=(MIDDLE, 936),
            enter=enter(42, 14, dy=20),
            show="website",
        ),
        pill(span, (MIDDLE, 936), (680, 98), 34, gradient(("primary", "secondary"), (-340, 0), (340, 0)), show="website"),
        picture(
            "logo",
            slot,
            span,
            p=centre,
            a=(300, 300),
            s=keys((14, [0, 0], BACK), (34, [48, 48], LINEAR), (d, [50, 50])),
            r=keys((14, -30), (38, 0)),
        ),
        shape(
            "plate",
            span,
            group(
                star(256),
                fill("#ffffff"),
                s=keys((8, [0, 0], BACK), (30, [100, 100])),
                r=keys((8, -110, OUT), (42, 0, LINEAR), (d, 6)),
            ),
            p=centre,
            **shadow(30, 16, 60),
        ),
        shape("rays", span, *rays, p=centre),
        shape("orbit", span, *orbit, p=centre, r=keys((20, -60, OUT), (60, 0, LINEAR), (d, 6))),
        tile_field(
            span,
            10,
            6,
            204,
            lambda c, r: ("line", 9) if 3 > min(c, 9 - c) - (r % 2) else None,
            14,
            0.8,
            "ink",
            p=(42, 30),
            drift=(0, -20),
        ),
        *open_with_one_star(SIZE, 17, "background", "accent", d, centre),
    ]
