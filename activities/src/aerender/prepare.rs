//! The working folder of an attempt: the package, the customer's files, the data, room for frames.
//!
//! ```text
//! <attempt>/package/   the template's files, data.json, assets/…
//!           frames/    what the renderer writes
//!           temp/      its temporary files
//!           prepared   there once package/ is whole
//! ```

use super::{InputSource, cache::Cache, verdict};
use flatrender_engine::Failure;
use flatrender_workflows::contracts::render::RenderFrames;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

const PREPARED: &str = "prepared";

/// The folders of an attempt.
#[derive(Debug, Clone)]
pub struct Folder {
    /// The package with data and assets in place.
    pub package: PathBuf,
    /// For frames.
    pub frames: PathBuf,
    /// For temporary files.
    pub temp: PathBuf,
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
    let folder =
        Folder { package: attempt.join("package"), frames: attempt.join("frames"), temp: attempt.join("temp") };
    if attempt.join(PREPARED).is_file() {
        return Ok(folder);
    }
    clear(&folder).map_err(local)?;
    cache.copy_package(inputs, &input.package, &folder.package).await?;
    for asset in &input.assets {
        let path = asset_path(&folder.package, &asset.path)?;
        cache.copy_file(inputs, &asset.blob, &path).await?;
    }
    write_data(&folder.package, input).map_err(local)?;
    fs::write(attempt.join(PREPARED), b"").map_err(local)?;
    Ok(folder)
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
    let path = package.join("data.json");
    let data = serde_json::to_vec(&input.data).map_err(io::Error::other)?;
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::write(path, data),
    }
}

/// The server makes these paths; whoever made them, they stay below `assets/`.
fn asset_path(package: &Path, path: &str) -> Result<PathBuf, Failure> {
    let plain = |part: &str| {
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        !part.is_empty() && part.chars().all(fine) && !part.starts_with('.')
    };
    let inside = path.strip_prefix("assets/").is_some_and(|rest| rest.split('/').all(plain));
    if inside {
        Ok(package.join(path))
    } else {
        Err(Failure::permanent("render.unsafe_path", format!("{path:?} is not a path below assets/")))
    }
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
