//! Scenes: their order and lengths, one alone, and the render queue.

use serde_json::{Value, json};

use crate::world::{BLUE, GREEN, Package, RED, document, solid};

/// Scene a: red for 40 frames, then green for 20. Scene b: blue for 60. They overlap by ten frames, and b is on top.
fn film() -> Value {
    let scene = |id: &str, ip: u32, op: u32| json!({"ty": 0, "nm": id, "refId": id, "w": 160, "h": 90, "ip": ip, "op": op, "st": ip, "ks": {}});
    let mut film = document(json!([scene("scene:b", 50, 110), scene("scene:a", 0, 60)]));
    film["op"] = json!(110);
    film["assets"] = json!([
        {"id": "scene:a", "nm": "scene:a", "layers": [solid("red", "#ff0000", 0, 40), solid("green", "#00ff00", 40, 60)]},
        {"id": "scene:b", "nm": "scene:b", "layers": [solid("blue", "#0000ff", 0, 60)]}]);
    film["markers"] = json!([{"cm": "stretch:a", "tm": 10, "dr": 20}]);
    film
}

fn frames(scenes: Value) -> (usize, crate::world::Run) {
    let run = Package::new(&film()).data(json!({"scenes": scenes})).render(&[]).ok();
    (run.files().len(), run)
}

#[test]
fn the_film_has_the_frames_of_its_scenes_less_the_transitions() {
    let (count, run) = frames(json!([{"id": "a", "frames": 80}, {"id": "b", "frames": 30}]));
    assert_eq!(count, 80 + 30 - 10);
    assert_eq!(run.line("PROGRESS:  Duration: "), "0:00:10:00");
}

#[test]
fn a_longer_scene_is_slowed_at_its_marker_and_nowhere_else() {
    // 20 frames more, all of them before the change to green, which comes 20 frames before the end in both.
    let (_, run) = frames(json!([{"id": "a", "frames": 80}]));
    assert_eq!((run.pixel(59, 80, 45), run.pixel(60, 80, 45)), (RED, GREEN));
}

#[test]
fn a_shorter_scene_is_hurried_at_its_marker() {
    let (count, run) = frames(json!([{"id": "a", "frames": 45}]));
    assert_eq!(count, 45);
    assert_eq!((run.pixel(24, 80, 45), run.pixel(25, 80, 45)), (RED, GREEN));
}

#[test]
fn scenes_come_in_the_customer_s_order() {
    let (_, run) = frames(json!([{"id": "b", "frames": 60}, {"id": "a", "frames": 60}]));
    assert_eq!((run.pixel(0, 80, 45), run.pixel(49, 80, 45), run.pixel(50, 80, 45)), (BLUE, BLUE, RED));
}

#[test]
fn a_scene_is_rendered_alone_at_its_length_in_the_film() {
    let package = Package::new(&film()).data(json!({"scenes": [{"id": "a", "frames": 80}]}));
    let run = package.render_comp("scene:a", &["-s", "60", "-e", "79"]).ok();
    assert_eq!(run.pixel(60, 80, 45), GREEN);
    assert!(package.render_comp("scene:a", &["-s", "80"]).failure().1.starts_with("[render.frame_out_of_range]"));
}

#[test]
fn a_scene_that_the_customer_left_out_can_still_be_seen_alone() {
    let package = Package::new(&film()).data(json!({"scenes": [{"id": "a", "frames": 80}]}));
    assert_eq!(package.render_comp("scene:b", &["-s", "59", "-e", "59"]).ok().pixel(59, 80, 45), BLUE);
}

#[test]
fn the_queue_holds_main_and_then_the_film_s_scenes() {
    let package = Package::new(&film()).data(json!({"scenes": [{"id": "b", "frames": 60}, {"id": "a", "frames": 60}]}));
    let (root, output) = (package.root(), package.out().join("[###].png"));
    let started = |index: &str| {
        let arguments = ["-project", root.to_str().unwrap(), "-rqindex", index, "-e", "0", "-output"];
        let run = package.run(&[&arguments[..], &[output.to_str().unwrap()]].concat()).ok();
        run.text.split(['“', '”']).nth(1).unwrap().to_owned()
    };
    assert_eq!(["1", "2", "3"].map(started), ["main", "scene:b", "scene:a"]);
}
