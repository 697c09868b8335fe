//! The customer's colours, pictures, switches and size in the pixels; and what is wrong with data, by name.

use image::ImageFormat;
use serde_json::{Value, json};

use crate::world::{BLUE, GREEN, Package, RED, WHITE, document, moving_square, picture, solid};

/// A slot of 160 x 90 that shows the template's own green picture.
fn slot() -> Value {
    let mut document = document(json!([
        {"ty": 2, "nm": "img:photo", "refId": "slot", "ip": 0, "op": 10, "st": 0, "ks": {}},
        solid("color:back", "#ffffff", 0, 10)]));
    document["assets"] = json!([{"id": "slot", "w": 160, "h": 90, "u": "images/", "p": "own.png", "e": 0}]);
    document
}

fn slot_package() -> Package {
    Package::new(&slot()).file("images/own.png", &picture(GREEN, 16, 9, ImageFormat::Png))
}

fn refused(data: Value) -> String {
    let run = Package::new(&document(json!([moving_square(), solid("back?backdrop", "#ffffff", 0, 10)])))
        .data(data)
        .render(&[]);
    assert_eq!(run.code, 9);
    run.failure().1.to_owned()
}

#[test]
fn a_colour_is_in_the_pixels() {
    let package = Package::new(&document(json!([moving_square(), solid("color:back", "#ffffff", 0, 10)])))
        .data(json!({"colors": {"ink": "#ff0000", "back": "#0000ff"}}));
    let run = package.render(&["-e", "0"]).ok();
    assert_eq!((run.pixel(0, 10, 45), run.pixel(0, 150, 80)), (RED, BLUE));
}

#[test]
fn the_template_s_own_picture_is_shown_until_the_customer_gives_one() {
    assert_eq!(slot_package().render(&["-e", "0"]).ok().pixel(0, 80, 45), GREEN);
}

#[test]
fn the_customer_s_picture_is_in_the_pixels_whatever_its_name_says() {
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
        let package = slot_package()
            .file("assets/photo.dat", &picture(BLUE, 400, 100, format))
            .data(json!({"images": {"photo": {"file": "assets/photo.dat"}}}));
        let [r, g, b, a] = package.render(&["-e", "0"]).ok().pixel(0, 80, 45);
        assert!(r < 4 && g < 4 && b > 250 && a == 255, "{format:?}");
    }
}

#[test]
fn a_contained_picture_leaves_the_background_beside_it() {
    let package = slot_package()
        .file("assets/photo.png", &picture(BLUE, 90, 90, ImageFormat::Png))
        .data(json!({"images": {"photo": {"file": "assets/photo.png", "fit": "contain"}}}));
    let run = package.render(&["-e", "0"]).ok();
    assert_eq!((run.pixel(0, 80, 45), run.pixel(0, 5, 45)), (BLUE, WHITE));
}

#[test]
fn a_photo_taken_sideways_is_turned_upright() {
    // Left half red, right half blue, and the note that it must be turned right by a quarter: red comes on top.
    let sideways = image::RgbImage::from_fn(90, 160, |x, _| image::Rgb(if x < 45 { [255, 0, 0] } else { [0, 0, 255] }));
    let mut jpeg = std::io::Cursor::new(vec![]);
    image::DynamicImage::ImageRgb8(sideways).write_to(&mut jpeg, ImageFormat::Jpeg).unwrap();
    let mut bytes = jpeg.into_inner();
    let exif = b"\xff\xe1\x00\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    bytes.splice(2..2, exif.iter().copied());
    let package =
        slot_package().file("assets/p.jpg", &bytes).data(json!({"images": {"photo": {"file": "assets/p.jpg"}}}));
    let run = package.render(&["-e", "0"]).ok();
    let ([r, ..], [_, _, b, _]) = (run.pixel(0, 80, 10), run.pixel(0, 80, 80));
    assert!(r > 240 && b > 240, "{:?} over {:?}", run.pixel(0, 80, 10), run.pixel(0, 80, 80));
}

#[test]
fn a_switch_hides_a_layer() {
    let layers = json!([solid("front?badge", "#ff0000", 0, 10), solid("back", "#0000ff", 0, 10)]);
    let shown = Package::new(&document(layers.clone())).render(&["-e", "0"]).ok();
    let hidden = Package::new(&document(layers)).data(json!({"visibility": {"badge": false}}));
    assert_eq!(shown.pixel(0, 80, 45), RED);
    assert_eq!(hidden.render(&["-e", "0"]).ok().pixel(0, 80, 45), BLUE);
}

#[test]
fn the_size_scales_the_picture() {
    let package = slot_package().data(json!({"size": [320, 180]}));
    assert_eq!(package.render(&["-e", "0"]).ok().frame(0).dimensions(), (320, 180));
}

#[test]
fn a_size_that_rounds_leaves_no_gap_at_the_edges() {
    let package = slot_package().data(json!({"size": [107, 60]}));
    let frame = package.render(&["-e", "0"]).ok().frame(0);
    assert!([(0, 0), (106, 59)].iter().all(|(x, y)| frame.get_pixel(*x, *y).0[3] == 255));
}

#[test]
fn a_size_of_another_shape_is_refused() {
    assert!(refused(json!({"size": [90, 160]})).starts_with("[render.bad_data] data.json: size:"));
}

#[test]
fn an_unknown_field_is_named_with_the_nearest_one() {
    let facts = [
        (json!({"texts": {"tittle": "x"}}), "texts.tittle: the project has no such field"),
        (json!({"images": {"logo": {"file": "a.png"}}}), "images.logo: the project has no such field"),
        (json!({"colors": {"inc": "#000000"}}), "colors.inc: the project has no such field (did you mean \"ink\"?)"),
        (json!({"visibility": {"bakdrop": true}}), "visibility.bakdrop: the project has no such field (did you mean"),
        (json!({"scenes": [{"id": "one", "frames": 5}]}), "scenes.one: the project has no such field"),
        (json!({"colours": {}}), "colours: data.json has no such key (did you mean \"colors\"?)"),
    ];
    for (data, message) in facts {
        let error = refused(data);
        assert!(error.starts_with(&format!("[render.unknown_field] {message}")), "{error}");
    }
}

#[test]
fn a_missing_picture_is_named_by_its_field() {
    let package = slot_package().data(json!({"images": {"photo": {"file": "assets/none.png"}}}));
    let run = package.render(&[]);
    assert!(run.failure().1.starts_with("[render.missing_image] images.photo: assets/none.png"), "{}", run.text);
}

#[test]
fn a_missing_picture_may_be_left_out_if_the_command_says_so() {
    let package = slot_package().data(json!({"images": {"photo": {"file": "assets/none.png"}}}));
    let run = package.render(&["-e", "0", "-continueOnMissingFootage"]).ok();
    assert!(run.line("WARNING:").starts_with("images.photo: assets/none.png is missing"));
    assert_eq!(run.pixel(0, 80, 45), WHITE);
}

#[test]
fn a_picture_of_another_kind_is_named_by_its_field() {
    for bytes in
        [&b"<svg xmlns='http://www.w3.org/2000/svg'/>"[..], b"GIF89a", b"\x89PNG\r\n\x1a\n but not really", b""]
    {
        let package = slot_package()
            .file("assets/photo.png", bytes)
            .data(json!({"images": {"photo": {"file": "assets/photo.png"}}}));
        let run = package.render(&[]);
        assert!(
            run.failure().1.starts_with("[render.unsupported_image] images.photo: assets/photo.png"),
            "{}",
            run.text
        );
    }
}
