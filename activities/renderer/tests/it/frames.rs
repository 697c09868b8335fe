//! Files: their names, their channels, and that a frame depends on nothing but its number.

use serde_json::json;

use crate::world::{Package, RED, WHITE, document, moving_square, solid};

fn package() -> Package {
    Package::new(&document(json!([moving_square(), solid("back", "#ffffff", 0, 10)])))
}

#[test]
fn frames_are_named_by_their_number_in_the_composition() {
    let run = package().render(&["-s", "3", "-e", "7", "-i", "2"]).ok();
    assert_eq!(run.files(), ["003.png", "005.png", "007.png"]);
}

#[test]
fn a_name_without_a_pattern_gets_digits_even_for_a_still() {
    let package = package();
    let (root, output) = (package.root(), package.out().join("still.jpg"));
    let arguments = ["-project", root.to_str().unwrap(), "-comp", "main", "-output", output.to_str().unwrap()];
    let run = package.run(&[&arguments[..], &["-s", "6", "-e", "6"]].concat()).ok();
    assert_eq!(run.files(), ["still_00006.png"]);
    assert!(run.line("PROGRESS:  Output To: ").ends_with("still_[#####].png"));
}

#[test]
fn a_range_has_the_same_bytes_as_the_whole_film() {
    let (whole, part) = (package(), package());
    let (whole, part) = (whole.render(&[]).ok(), part.render(&["-s", "4", "-e", "6"]).ok());
    assert_eq!(part.files().len(), 3);
    for frame in 4..=6 {
        assert!(whole.bytes(frame) == part.bytes(frame), "frame {frame}");
    }
}

#[test]
fn one_thread_and_many_have_the_same_bytes() {
    let (one, many) = (package(), package());
    let (one, many) = (one.render(&["-mfr", "OFF", "100"]).ok(), many.render(&["-mfr", "ON", "100"]).ok());
    for frame in 0..10 {
        assert!(one.bytes(frame) == many.bytes(frame), "frame {frame}");
    }
}

#[test]
fn the_square_moves() {
    let run = package().render(&[]).ok();
    assert_eq!(run.pixel(0, 10, 45), [0, 255, 0, 255]);
    assert_eq!(run.pixel(9, 10, 45), WHITE);
}

#[test]
fn a_clear_background_stays_clear_and_an_opaque_frame_has_no_alpha() {
    let clear = Package::new(&document(json!([solid("late", "#ff0000", 5, 10)])));
    let run = clear.render(&[]).ok();
    assert_eq!((run.pixel(0, 80, 45), run.pixel(5, 80, 45)), ([0; 4], RED));
    let color = |frame| run.bytes(frame)[25]; // A PNG's colour type: 2 has no alpha channel, 6 has one.
    assert_eq!((color(0), color(5)), (6, 2));
}

#[test]
fn a_rate_that_is_not_whole_is_told_as_it_is() {
    let mut document = document(json!([solid("back", "#ffffff", 0, 10)]));
    document["fr"] = json!(23.976);
    assert_eq!(Package::new(&document).render(&[]).ok().line("PROGRESS:  Frame Rate: "), "23.976 (comp)");
}
