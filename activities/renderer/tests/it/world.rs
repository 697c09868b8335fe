//! A package in a temporary folder, and a run of `flatrender-aerender` on it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    rc::Rc,
};

use image::{DynamicImage, Rgba, RgbaImage};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const RED: [u8; 4] = [255, 0, 0, 255];
pub const GREEN: [u8; 4] = [0, 255, 0, 255];
pub const BLUE: [u8; 4] = [0, 0, 255, 255];
pub const WHITE: [u8; 4] = [255, 255, 255, 255];

/// A package folder, with a folder for frames beside it.
pub struct Package {
    folder: Rc<TempDir>,
}

/// What a run left behind.
pub struct Run {
    pub code: i32,
    pub text: String,
    /// Kept as long as a test looks at what is in it.
    folder: Rc<TempDir>,
}

impl Package {
    pub fn new(document: &Value) -> Self {
        Self::raw(document.to_string().as_bytes())
    }

    /// With whatever bytes for a document.
    pub fn raw(document: &[u8]) -> Self {
        let folder = Rc::new(tempfile::tempdir().unwrap());
        let package = Self { folder };
        std::fs::create_dir(package.out()).unwrap();
        package.file("project.json", document)
    }

    pub fn file(self, name: &str, bytes: &[u8]) -> Self {
        let path = self.root().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        self
    }

    /// `data.json` with `entries` and its version.
    pub fn data(self, mut entries: Value) -> Self {
        entries["version"] = json!(1);
        self.file("data.json", entries.to_string().as_bytes())
    }

    /// Vazirmatn Regular and Bold.
    pub fn fonts(self) -> Self {
        self.file("fonts/Vazirmatn-Regular.ttf", include_bytes!("../fixtures/fonts/Vazirmatn-Regular.ttf"))
            .file("fonts/Vazirmatn-Bold.ttf", include_bytes!("../fixtures/fonts/Vazirmatn-Bold.ttf"))
    }

    pub fn root(&self) -> PathBuf {
        self.folder.path().join("package")
    }

    pub fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    /// Renders main with the arguments given, into `out/[###].png`.
    pub fn render(&self, more: &[&str]) -> Run {
        self.render_comp("main", more)
    }

    pub fn render_comp(&self, composition: &str, more: &[&str]) -> Run {
        let output = self.out().join("[###].png");
        let root = self.root();
        let mut arguments = vec!["-project", root.to_str().unwrap(), "-comp", composition, "-output"];
        arguments.push(output.to_str().unwrap());
        arguments.extend(more);
        self.run(&arguments)
    }

    /// Runs the program with exactly these arguments.
    pub fn run(&self, arguments: &[&str]) -> Run {
        let program = env!("CARGO_BIN_EXE_flatrender-aerender");
        let done = Command::new(program).args(arguments).output().unwrap();
        let complaints = String::from_utf8_lossy(&done.stderr);
        assert!(!complaints.contains("panicked"), "{complaints}");
        let text = String::from_utf8(done.stdout).unwrap();
        Run { code: done.status.code().expect("not killed by a signal"), text, folder: Rc::clone(&self.folder) }
    }
}

impl Run {
    /// The same run, once it is known to have succeeded.
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.text);
        self
    }

    /// The line that begins so; the rest of it.
    pub fn line(&self, begins: &str) -> &str {
        let found = self.text.lines().find_map(|line| line.strip_prefix(begins));
        found.unwrap_or_else(|| panic!("no line begins {begins:?} in:\n{}", self.text))
    }

    /// The failure: its exit code and what follows `aerender ERROR: `.
    pub fn failure(&self) -> (i32, &str) {
        (self.code, self.line("aerender ERROR: "))
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    /// The names of the files written, sorted.
    pub fn files(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.out()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    pub fn bytes(&self, frame: u32) -> Vec<u8> {
        std::fs::read(self.out().join(format!("{frame:03}.png"))).unwrap()
    }

    pub fn frame(&self, frame: u32) -> RgbaImage {
        image::load_from_memory(&self.bytes(frame)).unwrap().to_rgba8()
    }

    pub fn pixel(&self, frame: u32, x: u32, y: u32) -> [u8; 4] {
        self.frame(frame).get_pixel(x, y).0
    }
}

/// A document of 160 x 90 pixels and ten frames with these layers, the first on top.
pub fn document(layers: Value) -> Value {
    json!({"v": "5.9.6", "nm": "main", "fr": 10, "ip": 0, "op": 10, "w": 160, "h": 90, "assets": [], "layers": layers})
}

/// A solid that fills the canvas from frame `ip` up to `op`.
pub fn solid(name: &str, color: &str, ip: u32, op: u32) -> Value {
    json!({"ty": 1, "nm": name, "sc": color, "sw": 160, "sh": 90, "ip": ip, "op": op, "st": 0, "ks": {}})
}

/// A square of 20 pixels that crosses the canvas from left to right in ten frames.
pub fn moving_square() -> Value {
    let position = json!({"a": 1, "k": [{"t": 0, "s": [10, 45], "o": {"x": 0.3, "y": 0}, "i": {"x": 0.7, "y": 1}},
        {"t": 10, "s": [150, 45]}]});
    json!({"ty": 4, "nm": "square", "ip": 0, "op": 10, "st": 0, "ks": {"p": position, "r": {"a": 0, "k": 20}},
        "ef": [{"ty": 25, "nm": "Drop Shadow", "en": 1, "ef": [
            {"ty": 2, "v": {"a": 0, "k": [0, 0, 0, 1]}}, {"ty": 0, "v": {"a": 0, "k": 200}},
            {"ty": 0, "v": {"a": 0, "k": 135}}, {"ty": 0, "v": {"a": 0, "k": 5}}, {"ty": 0, "v": {"a": 0, "k": 8}}]}],
        "shapes": [{"ty": "gr", "it": [
            {"ty": "rc", "s": {"a": 0, "k": [20, 20]}, "p": {"a": 0, "k": [0, 0]}, "r": {"a": 0, "k": 4}},
            {"ty": "fl", "nm": "color:ink", "c": {"a": 0, "k": [0, 1, 0, 1]}, "o": {"a": 0, "k": 100}, "r": 1},
            {"ty": "tr", "p": {"a": 0, "k": [0, 0]}, "a": {"a": 0, "k": [0, 0]}, "s": {"a": 0, "k": [100, 100]},
             "r": {"a": 0, "k": 0}, "o": {"a": 0, "k": 100}}]}]})
}

/// A plain picture's bytes.
pub fn picture(color: [u8; 4], width: u32, height: u32, format: image::ImageFormat) -> Vec<u8> {
    let image = DynamicImage::ImageRgba8(RgbaImage::from_pixel(width, height, Rgba(color)));
    let mut bytes = std::io::Cursor::new(vec![]);
    // JPEG has no alpha channel.
    DynamicImage::ImageRgb8(image.to_rgb8()).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// The leftmost and rightmost columns that hold a pixel other than white.
pub fn ink(frame: &RgbaImage) -> Option<(u32, u32)> {
    let columns = frame.enumerate_pixels().filter(|(.., pixel)| pixel.0 != WHITE).map(|(x, ..)| x);
    columns.fold(None, |found, x| found.map_or(Some((x, x)), |(low, high): (u32, u32)| Some((low.min(x), high.max(x)))))
}

/// Zips a folder's contents.
pub fn zipped(folder: &Path, target: &Path) {
    let mut zip = zip::ZipWriter::new(std::fs::File::create(target).unwrap());
    let mut waiting = vec![folder.to_owned()];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        std::io::copy(&mut std::fs::File::open(&path).unwrap(), &mut zip).unwrap();
    }
    zip.finish().unwrap();
}
