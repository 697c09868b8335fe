//! Pictures in, SVG out: what it looks like, what is in it, and what is refused.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod hostile;
mod pictures;

use flatrender_tracer::{SLOTS, SVG_BYTES, Traced, trace};
use resvg::{
    tiny_skia::{Pixmap, Transform},
    usvg::{Options, Tree, roxmltree::Document},
};

/// Everything that an SVG of ours may hold, and nothing else.
fn assert_plain(traced: &Traced) {
    let document = Document::parse(&traced.svg).unwrap();
    for node in document.descendants().filter(|node| node.is_element()) {
        let allowed: &[&str] = match node.tag_name().name() {
            "svg" => &["viewBox", "width", "height"],
            "path" => &["fill", "style", "d"],
            other => panic!("<{other}>"),
        };
        assert!(node.attributes().all(|a| allowed.contains(&a.name())), "{node:?}");
        if let Some(data) = node.attribute("d") {
            assert!(data.bytes().all(|b| b"MCZ 0123456789.-".contains(&b)), "{data}");
            let fill = node.attribute("fill").unwrap();
            let slot = traced.slots.iter().position(|slot| slot.color.to_string() == fill).expect("a colour of a slot");
            assert_eq!(node.attribute("style"), Some(format!("fill:var(--slot-{},{fill})", slot + 1).as_str()));
        }
    }
    assert!(!traced.svg.contains("<!") && !traced.svg.contains("<?"), "no DTD, comment or instruction");
    assert!(traced.svg.len() <= SVG_BYTES && (1..=SLOTS).contains(&traced.slots.len()));
}

/// The SVG as pixels, RGBA, as a program shows it that knows no properties of CSS: styles with one are not there for it.
fn rendered(svg: &str) -> Pixmap {
    let mut plain = String::new();
    for (n, piece) in svg.split(" style=\"fill:var(").enumerate() {
        plain.push_str(if n == 0 { piece } else { piece.split_once('"').unwrap().1 });
    }
    let tree = Tree::from_str(&plain, &Options::default()).unwrap();
    let size = tree.size().to_int_size();
    let mut pixels = Pixmap::new(size.width(), size.height()).unwrap();
    resvg::render(&tree, Transform::default(), &mut pixels.as_mut());
    pixels
}

fn at(pixels: &Pixmap, x: u32, y: u32) -> [u8; 4] {
    let pixel = pixels.pixel(x, y).unwrap();
    [pixel.red(), pixel.green(), pixel.blue(), pixel.alpha()]
}

#[test]
fn a_logo_keeps_its_shapes_and_colours() {
    let traced = trace(&pictures::logo(256)).unwrap();
    assert_plain(&traced);
    assert_eq!((traced.width, traced.height), (256, 256));
    let colors: Vec<_> = traced.slots.iter().map(|slot| slot.color.to_string()).collect();
    assert_eq!(colors, ["#1d4ed8", "#f59e0b", "#ffffff"]);
    assert!((traced.slots.iter().map(|slot| slot.share).sum::<f32>() - 1.0).abs() < 0.01);
    let pixels = rendered(&traced.svg);
    assert_eq!(at(&pixels, 128, 20), [0x1d, 0x4e, 0xd8, 255], "the ring");
    assert_eq!(at(&pixels, 128, 128), [0xf5, 0x9e, 0x0b, 255], "the disc");
    assert_eq!(at(&pixels, 128, 84), [255, 255, 255, 255], "the bar");
    assert_eq!(at(&pixels, 2, 2), [0, 0, 0, 0], "nothing is where nothing was");
}

#[test]
fn another_colour_of_a_slot_is_another_colour_of_the_picture() {
    let traced = trace(&pictures::logo(128)).unwrap();
    // As a browser does: the property has a value, and what stands behind the comma is not asked.
    let blue = format!("fill:var(--slot-1,{})", traced.slots[0].color);
    let recoloured = traced.svg.replace(&blue, "fill:#00ff00");
    assert_eq!(at(&rendered(&recoloured), 64, 10), [0, 255, 0, 255]);
    assert_eq!(at(&rendered(&recoloured), 64, 64), [0xf5, 0x9e, 0x0b, 255]);
}

#[test]
fn the_same_picture_gives_the_same_svg() {
    let picture = pictures::photo(300, 200);
    assert_eq!(trace(&picture).unwrap(), trace(&picture).unwrap());
}

#[test]
fn a_photo_becomes_few_colours_that_look_like_it() {
    let (width, height) = (960, 640);
    let traced = trace(&pictures::photo(width, height)).unwrap();
    assert_plain(&traced);
    assert_eq!((traced.width, traced.height), (640, 427));
    let original =
        image::load_from_memory(&pictures::photo(width, height)).unwrap().thumbnail_exact(640, 427).to_rgb8();
    let pixels = rendered(&traced.svg);
    let far = |x: u32, y: u32| {
        let (found, wanted) = (at(&pixels, x, y), original.get_pixel(x, y).0);
        (0..3).map(|i| u32::from(found[i].abs_diff(wanted[i]))).sum::<u32>() / 3
    };
    let all: Vec<u32> = (0..427).flat_map(|y| (0..640).map(move |x| (x, y))).map(|(x, y)| far(x, y)).collect();
    let mean = all.iter().sum::<u32>() as f32 / all.len() as f32;
    assert!(mean < 24.0, "{mean} of 255 away from the picture");
}

#[test]
fn noise_is_no_longer_than_allowed() {
    match trace(&pictures::noise(2000, 2000)) {
        Ok(traced) => assert_plain(&traced),
        Err(error) => assert_eq!(error.to_string(), flatrender_tracer::TraceError::TooDetailed.to_string()),
    }
}

#[test]
fn a_picture_of_one_pixel_is_traced() {
    let traced = trace(&pictures::flat(1, 1, [9, 8, 7, 255])).unwrap();
    assert_eq!(traced.slots.len(), 1);
    assert_eq!(traced.slots[0].color.to_string(), "#090807");
}
