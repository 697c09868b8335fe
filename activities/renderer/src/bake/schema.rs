//! The part of the Lottie format that reaches the rasteriser: every key it reads, and what must stand there.
//!
//! Source: the format's specification (lottie.github.io) and ThorVG 1.1's parser, which expects numbers of just
//! this many dimensions, and types before what they decide; so keys are written in the order of these tables.

use super::strict::{Fields, Kind};
use Kind::{
    Colors, Dashes, Effects, Flag, Gradient, Layers, List, Number, Object, Outline, Point, Position, Scalar, Shapes,
    Text, Whole,
};

pub(super) const DOCUMENT: Fields = &[
    ("v", Text),
    ("fr", Number),
    ("ip", Number),
    ("op", Number),
    ("w", Number),
    ("h", Number),
    ("nm", Text),
    ("assets", List(ASSET)),
    ("layers", Layers),
];

const ASSET: Fields = &[
    ("id", Text),
    ("nm", Text),
    ("w", Number),
    ("h", Number),
    ("u", Text),
    ("p", Text),
    ("e", Whole(0, 1)),
    ("layers", Layers),
];

pub(super) const LAYER: Fields = &[
    ("ty", Whole(0, 4)),
    ("nm", Text),
    ("ddd", Whole(0, 1)),
    ("ind", Whole(-1, 32_767)),
    ("parent", Whole(-1, 32_767)),
    ("hd", Flag),
    ("sr", Number),
    ("ip", Number),
    ("op", Number),
    ("st", Number),
    ("bm", Whole(0, 17)),
    ("ao", Whole(0, 1)),
    ("td", Whole(0, 1)),
    ("tt", Whole(0, 4)),
    ("tp", Whole(-1, 32_767)),
    ("refId", Text),
    ("w", Number),
    ("h", Number),
    ("sw", Number),
    ("sh", Number),
    ("sc", Text),
    ("ks", Object(TRANSFORM)),
    ("tm", Scalar),
    ("masksProperties", List(MASK)),
    ("ef", Effects),
    ("shapes", Shapes),
];

const TRANSFORM: Fields = &[
    ("p", Position),
    ("a", Point),
    ("s", Point),
    ("r", Scalar),
    ("o", Scalar),
    ("rx", Scalar),
    ("ry", Scalar),
    ("rz", Scalar),
    ("sk", Scalar),
    ("sa", Scalar),
];

const MASK: Fields = &[("inv", Flag), ("mode", Text), ("pt", Outline), ("o", Scalar), ("x", Scalar)];

/// The fields of a shape item after its `ty`; nothing for one that is not drawn.
pub(super) fn shape(kind: &str) -> Option<Fields> {
    Some(match kind {
        "gr" => &[("nm", Text), ("hd", Flag), ("bm", Whole(0, 17)), ("it", Shapes)],
        "rc" => &[("hd", Flag), ("d", Whole(1, 3)), ("s", Point), ("p", Point), ("r", Scalar)],
        "el" => &[("hd", Flag), ("d", Whole(1, 3)), ("s", Point), ("p", Point)],
        "sh" => &[("hd", Flag), ("d", Whole(1, 3)), ("ks", Outline)],
        "sr" => &[
            ("hd", Flag),
            ("d", Whole(1, 3)),
            ("sy", Whole(1, 2)),
            ("p", Point),
            ("pt", Scalar),
            ("r", Scalar),
            ("ir", Scalar),
            ("is", Scalar),
            ("or", Scalar),
            ("os", Scalar),
        ],
        "fl" => &[("hd", Flag), ("fillEnabled", Flag), ("c", Colors), ("o", Scalar), ("r", Whole(1, 2))],
        "st" => &[
            ("hd", Flag),
            ("fillEnabled", Flag),
            ("c", Colors),
            ("o", Scalar),
            ("w", Scalar),
            ("lc", Whole(1, 3)),
            ("lj", Whole(1, 3)),
            ("ml", Number),
            ("d", Dashes),
        ],
        "gf" => &[
            ("hd", Flag),
            ("o", Scalar),
            ("r", Whole(1, 2)),
            ("t", Whole(1, 2)),
            ("g", Gradient),
            ("s", Point),
            ("e", Point),
            ("h", Scalar),
            ("a", Scalar),
        ],
        "gs" => &[
            ("hd", Flag),
            ("o", Scalar),
            ("t", Whole(1, 2)),
            ("g", Gradient),
            ("s", Point),
            ("e", Point),
            ("h", Scalar),
            ("a", Scalar),
            ("w", Scalar),
            ("lc", Whole(1, 3)),
            ("lj", Whole(1, 3)),
            ("ml", Number),
            ("d", Dashes),
        ],
        "tm" => &[("hd", Flag), ("s", Scalar), ("e", Scalar), ("o", Scalar), ("m", Whole(1, 2))],
        "rd" => &[("hd", Flag), ("r", Scalar)],
        "rp" => &[("hd", Flag), ("c", Scalar), ("o", Scalar), ("m", Whole(1, 2)), ("tr", Object(REPEATED))],
        "op" => &[("hd", Flag), ("a", Scalar), ("lj", Whole(1, 3)), ("ml", Scalar)],
        "pb" => &[("hd", Flag), ("a", Scalar)],
        "zz" => &[("hd", Flag), ("s", Scalar), ("r", Scalar), ("pt", Scalar)],
        "tr" => TRANSFORM,
        _ => return None,
    })
}

const REPEATED: Fields = &[("a", Point), ("p", Point), ("r", Scalar), ("s", Point), ("so", Scalar), ("eo", Scalar)];

/// The values of an effect, in their order; nothing for one that is not drawn.
pub(super) fn effect(kind: i64) -> Option<&'static [Kind]> {
    Some(match kind {
        20 => &[Colors, Colors, Scalar],
        21 => &[Scalar, Scalar, Colors, Scalar, Scalar, Scalar, Scalar],
        22 => &[Scalar, Scalar, Scalar, Colors, Scalar, Scalar, Scalar, Scalar, Scalar],
        23 => &[Colors, Colors, Colors, Scalar],
        25 => &[Colors, Scalar, Scalar, Scalar, Scalar],
        29 => &[Scalar, Scalar, Scalar],
        _ => return None,
    })
}
