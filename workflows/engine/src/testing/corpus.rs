//! Histories that are kept: each later build takes all of them through its definitions.

use super::History;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A folder of histories, a file each: `order.v1.refused.json` is of the workflow `order`, version 1.
///
/// ```no_run
/// # use flatrender_engine::testing::{Corpus, History};
/// # fn today(history: &History) -> Result<(), flatrender_engine::testing::Mismatch> { Ok(()) }
/// for (name, history) in Corpus::at("tests/corpus").all()? {
///     today(&history).unwrap_or_else(|why| panic!("{name}: {why}")); // `replay::<…>` by its kind and version.
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Corpus {
    folder: PathBuf,
    adding: bool,
}

impl Corpus {
    /// The histories in `folder`. `FLATRENDER_CORPUS=add` in the environment lets [`Corpus::offer`] add to them.
    pub fn at(folder: impl AsRef<Path>) -> Self {
        let adding = std::env::var("FLATRENDER_CORPUS").is_ok_and(|wanted| wanted == "add");
        Self { folder: folder.as_ref().to_owned(), adding }
    }

    /// As if `FLATRENDER_CORPUS=add` were set.
    #[must_use]
    pub fn adding(self) -> Self {
        Self { adding: true, ..self }
    }

    /// All histories with the names of their files, in the order of these.
    ///
    /// # Errors
    /// The folder or a file cannot be read; `InvalidData` when a file is no history, or its name is not that of its history.
    pub fn all(&self) -> io::Result<Vec<(String, History)>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("{name}: {why}"));
            let history: History = serde_json::from_slice(&fs::read(&path)?).map_err(|e| invalid(e.to_string()))?;
            let beginning = format!("{}.v{}.", history.kind, history.version);
            if !name.starts_with(&beginning) || !name.ends_with(".json") {
                return Err(invalid(format!("its name does not begin with {beginning:?}")));
            }
            all.push((name, history));
        }
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(all)
    }

    /// Keeps a history as `<kind>.v<version>.<what>.json` if that was asked for and there is none. True when there is one now.
    /// What is there is never written again: it is what some build has recorded.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn offer(&self, what: &str, history: &History) -> io::Result<bool> {
        let path = self.folder.join(format!("{}.v{}.{what}.json", history.kind, history.version));
        if self.adding && !path.exists() {
            let mut text = serde_json::to_vec(history)?;
            text.push(b'\n');
            fs::write(&path, text)?;
        }
        Ok(path.exists())
    }
}
