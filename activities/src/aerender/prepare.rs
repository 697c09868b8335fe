//! The working folder of an attempt: the package, the customer's files, the data, room for frames.
//!
//! ```text
//! <attempt>/package/        the template's files, data.json, assets/…
//!           frames/         what the renderer writes
//!           temp/           its temporary files
//!           prepared        there once package/ is whole: the hash of data.json
//! ```
//! For After Effects a script then makes a second project file ([`script`]); our renderer reads `data.json` itself.
//! ```text
//!           prepare.jsx     the script, always the same        prepare.started   it runs
//!           job.json        what it is to fill in              manifest.json     what it did, once it has ended
//!           package/prepared.aep   what is rendered            prepared.aep.sha256   its hash, once it is whole
//! ```
//! What is made here is not flushed to the disk: a power cut may leave the marker and take the file. So markers hold hashes, and
//! what is not as its marker says is made anew.

mod host;
mod job;
mod manifest;
pub mod script;

pub use host::Host;
pub use job::{Job, Shot};
pub use manifest::Manifest;

use super::{
    InputSource,
    cache::{Cache, Pin, sums},
    verdict,
};
use flatrender_engine::Failure;
use flatrender_workflows::contracts::{render::RenderFrames, storage::BlobHash};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

const PREPARED: &str = "prepared";
/// What the customer wants shown, in the package.
const DATA: &str = "data.json";
const MANIFEST: &str = "manifest.json";
const STARTED: &str = "prepare.started";
const SCRIPT: &str = "prepare.jsx";
/// The template's own project, below the attempt's folder.
const PROJECT: &str = "package/project.aep";
/// The copy that is rendered.
pub const PREPARED_PROJECT: &str = "package/prepared.aep";
const PROJECT_SEAL: &str = "prepared.aep.sha256";

/// The script: one constant, whatever is to be rendered.
pub const SCRIPT_TEXT: &str = concat!(
    "(function () {\n",
    include_str!("prepare/script/1_json.jsx"),
    include_str!("prepare/script/2_names.jsx"),
    include_str!("prepare/script/3_fill.jsx"),
    include_str!("prepare/script/4_time.jsx"),
    include_str!("prepare/script/5_check.jsx"),
    include_str!("prepare/script/6_main.jsx"),
    "}());\n",
);

/// A project that is ready to be rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The item of its render queue, from 1.
    pub item: u32,
    /// What is noted of it.
    pub warnings: Vec<String>,
}

/// The folders of an attempt.
#[derive(Debug, Clone)]
pub struct Folder {
    /// All of it.
    pub attempt: PathBuf,
    /// The package with data and assets in place.
    pub package: PathBuf,
    /// For frames.
    pub frames: PathBuf,
    /// For temporary files.
    pub temp: PathBuf,
    /// Keeps the package in the cache for as long as the attempt lasts: the next one is likely to want it, too.
    pub pin: Option<Arc<Pin>>,
}

/// Makes the folder ready. Repeatable: what an earlier call finished is kept, anything half-made is made anew.
///
/// # Errors
/// `render.bad_package` and `render.input_not_found` for good; transfers and a full disk may pass.
pub async fn prepare(
    cache: &Cache,
    attempt: &Path,
    inputs: &impl InputSource,
    input: &RenderFrames,
) -> Result<Folder, Failure> {
    let folder = Folder {
        attempt: attempt.to_owned(),
        package: attempt.join("package"),
        frames: attempt.join("frames"),
        temp: attempt.join("temp"),
        pin: Some(Arc::new(cache.pin(&input.package.sha256))),
    };
    if is_sealed(&attempt.join(PREPARED), &folder.package.join(DATA)) {
        return Ok(folder);
    }
    clear(&folder).map_err(local)?;
    cache.copy_package(inputs, &input.package, &folder.package).await?;
    for asset in &input.assets {
        let path = asset_path(&folder.package, &asset.path)?;
        cache.copy_file(inputs, &asset.blob, &path).await?;
    }
    write_data(&folder.package, input).map_err(local)?;
    seal(&attempt.join(PREPARED), &folder.package.join(DATA)).map_err(local)?;
    Ok(folder)
}

/// Notes what a file holds.
fn seal(marker: &Path, file: &Path) -> io::Result<()> {
    fs::write(marker, hash(file)?.as_str())
}

/// Whether a file is what its marker says.
fn is_sealed(marker: &Path, file: &Path) -> bool {
    fs::read_to_string(marker).is_ok_and(|told| hash(file).is_ok_and(|hash| hash.as_str() == told))
}

fn hash(file: &Path) -> io::Result<BlobHash> {
    Ok(sums::sum(file)?.sha256)
}

fn clear(folder: &Folder) -> io::Result<()> {
    for path in [&folder.package, &folder.frames, &folder.temp] {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir_all(path)?,
        }
    }
    Ok(())
}

/// The package's files are links into the cache: a file of the same name is replaced, never written through.
fn write_data(package: &Path, input: &RenderFrames) -> io::Result<()> {
    let path = package.join(DATA);
    let data = serde_json::to_vec(&input.data).map_err(io::Error::other)?;
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::write(path, data),
    }
}

/// The server makes these paths; whoever made them, they stay below `assets/`.
fn asset_path(package: &Path, path: &str) -> Result<PathBuf, Failure> {
    if path.starts_with("assets/") && is_plain_path(path) {
        Ok(package.join(path))
    } else {
        Err(Failure::permanent("render.unsafe_path", format!("{path:?} is not a path below assets/")))
    }
}

/// A relative path of parts that every file system keeps as they are.
fn is_plain_path(path: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    path.split('/').all(|part| !part.is_empty() && part.chars().all(fine) && !part.starts_with('.'))
}

fn local(error: io::Error) -> Failure {
    verdict::of_transfer(&error.into(), "the working folder")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assets_stay_below_their_folder() {
        let package = Path::new("/p");
        assert_eq!(asset_path(package, "assets/a/photo-1.jpg").unwrap(), Path::new("/p/assets/a/photo-1.jpg"));
        for path in
            ["photo.jpg", "assets/", "assets/../x", "assets//x", "/assets/x", "assets/a\\b", "assets/C:x", "assets/.x"]
        {
            assert_eq!(asset_path(package, path).unwrap_err().code, "render.unsafe_path", "{path}");
        }
    }
}
