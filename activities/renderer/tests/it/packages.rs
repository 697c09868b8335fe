//! A package may be a folder, a zip or a document's path; nothing outside it is ever read.

use image::ImageFormat;
use serde_json::json;

use crate::world::{BLUE, GREEN, Package, document, picture, solid, zipped};

fn with_picture(folder: &str, file: &str) -> Package {
    let mut document = document(json!([
        {"ty": 2, "nm": "img:photo", "refId": "slot", "ip": 0, "op": 10, "st": 0, "ks": {}},
        solid("back", "#ffffff", 0, 10)]));
    document["assets"] = json!([{"id": "slot", "w": 160, "h": 90, "u": folder, "p": file, "e": 0}]);
    Package::new(&document).file("images/own.png", &picture(GREEN, 16, 9, ImageFormat::Png))
}

#[test]
fn a_folder_a_zip_and_a_document_give_the_same_frames() {
    let package = with_picture("images/", "own.png")
        .file("assets/photo.png", &picture(BLUE, 16, 9, ImageFormat::Png))
        .data(json!({"images": {"photo": {"file": "assets/photo.png"}}}));
    let folder = package.render(&["-e", "0"]).ok().bytes(0);
    let (zip, output) = (package.out().join("package.zip"), package.out().join("[###].png"));
    zipped(&package.root(), &zip);
    for project in [zip, package.root().join("project.json")] {
        let arguments = ["-project", project.to_str().unwrap(), "-comp", "main", "-e", "0", "-output"];
        let run = package.run(&[&arguments[..], &[output.to_str().unwrap()]].concat()).ok();
        assert_eq!(run.pixel(0, 80, 45), BLUE);
        assert!(run.bytes(0) == folder);
    }
}

#[test]
fn an_inline_picture_needs_no_file() {
    // One green pixel.
    let inline = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNg+M8AAAICAQB7CYF4AAAAAElFTkSuQmCC";
    let run = with_picture("", inline).render(&["-e", "0"]).ok();
    assert_eq!(run.pixel(0, 80, 45), GREEN);
}

#[test]
fn data_never_leads_out_of_the_package() {
    for file in ["../out/secret.png", "/etc/hostname", "assets/../../out/secret.png", "..\\out\\secret.png"] {
        let package = with_picture("images/", "own.png").data(json!({"images": {"photo": {"file": file}}}));
        std::fs::write(package.out().join("secret.png"), picture(BLUE, 1, 1, ImageFormat::Png)).unwrap();
        let run = package.render(&[]);
        assert!(run.failure().1.starts_with("[render.unsafe_path] images.photo: "), "{}", run.text);
    }
}

#[test]
fn a_document_never_leads_out_of_its_package() {
    let run = with_picture("../", "out/secret.png").render(&[]);
    assert!(run.failure().1.starts_with("[render.unsafe_path] images.photo: ../out/secret.png"), "{}", run.text);
}

#[cfg(unix)]
#[test]
fn a_link_never_leads_out_of_the_package() {
    let package = with_picture("images/", "link.png");
    let secret = package.out().join("secret.png");
    std::fs::write(&secret, picture(BLUE, 1, 1, ImageFormat::Png)).unwrap();
    std::os::unix::fs::symlink(secret, package.root().join("images/link.png")).unwrap();
    assert!(package.render(&[]).failure().1.starts_with("[render.unsafe_path]"));
}

#[cfg(unix)]
#[test]
fn a_font_folder_that_leads_out_of_the_package_is_refused() {
    let package = with_picture("images/", "own.png");
    let outside = package.out().join("font.ttf");
    std::fs::write(&outside, include_bytes!("../fixtures/fonts/Vazirmatn-Regular.ttf")).unwrap();
    std::fs::create_dir(package.root().join("fonts")).unwrap();
    std::os::unix::fs::symlink(outside, package.root().join("fonts/font.ttf")).unwrap();
    assert!(package.render(&[]).failure().1.contains("leads out of the package"));
}
