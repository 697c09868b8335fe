//! Where frames go: the output name's pattern, and the module's own extension.

use std::path::{Path, PathBuf};

use crate::RenderError;

/// Digits appended to a name that has no pattern of its own.
const DIGITS: usize = 5;

/// A sequence of files: `front`, the frame's number in at least `digits` digits, `back`.
///
/// The rules are aerender's. `[#####]` becomes the frame's number in its composition. A name without a
/// pattern gets `_` and five digits, even for a single still: a frame of a sequence never has the name that
/// was asked for. The output module decides the extension, so what is not `.png` becomes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Output {
    front: String,
    digits: usize,
    back: String,
}

impl Output {
    pub(super) fn parse(name: &str) -> Self {
        let (folder, file) = match name.rfind(['/', std::path::MAIN_SEPARATOR]) {
            Some(slash) => name.split_at(slash + 1),
            None => ("", name),
        };
        let stem = match file.rsplit_once('.') {
            Some((stem, extension)) if is_extension(extension) => stem,
            _ => file,
        };
        let (front, digits, back) = pattern(stem).unwrap_or_else(|| (format!("{stem}_"), DIGITS, String::new()));
        Self { front: format!("{folder}{front}"), digits, back: format!("{back}.png") }
    }

    /// The file of frame `number`.
    pub(super) fn path(&self, number: u32) -> PathBuf {
        format!("{}{number:0digits$}{}", self.front, self.back, digits = self.digits).into()
    }

    /// The name with its pattern, as the log shows it.
    pub(super) fn shown(&self) -> String {
        format!("{}[{}]{}", self.front, "#".repeat(self.digits), self.back)
    }

    /// Refuses a folder that is not there: like aerender, we make none.
    pub(super) fn check_folder(&self) -> Result<(), RenderError> {
        let path = self.path(0);
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        match folder.metadata() {
            Ok(metadata) if metadata.is_dir() => Ok(()),
            Ok(_) => Err(RenderError::writing(folder, std::io::ErrorKind::NotADirectory.into())),
            Err(error) => Err(RenderError::writing(folder, error)),
        }
    }
}

/// What stands around the last `[###]`.
fn pattern(stem: &str) -> Option<(String, usize, String)> {
    let open = stem.rfind("[#")?;
    let close = open + stem[open..].find(']')?;
    let digits = &stem[open + 1..close];
    let plain = digits.len() <= 10 && digits.bytes().all(|byte| byte == b'#');
    plain.then(|| (stem[..open].to_owned(), digits.len(), stem[close + 1..].to_owned()))
}

fn is_extension(text: &str) -> bool {
    (2..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, number: u32) -> String {
        Output::parse(name).path(number).to_string_lossy().into_owned()
    }

    #[test]
    fn the_pattern_becomes_the_frame_s_number() {
        assert_eq!(file("out/name_[#####].png", 42), "out/name_00042.png");
        assert_eq!(file("[##]x.png", 1234), "1234x.png");
    }

    #[test]
    fn a_name_without_a_pattern_gets_digits() {
        assert_eq!(file("out.d/still.png", 7), "out.d/still_00007.png");
        assert_eq!(file("still", 7), "still_00007.png");
        assert_eq!(file("odd[#x].png", 7), "odd[#x]_00007.png");
    }

    #[test]
    fn the_module_decides_the_extension() {
        assert_eq!(file("a_[#].jpg", 7), "a_7.png");
        assert_eq!(file("movie.avi", 7), "movie_00007.png");
        assert_eq!(file("v1.5 final", 7), "v1.5 final_00007.png");
    }

    #[test]
    fn the_log_shows_the_real_pattern() {
        assert_eq!(Output::parse("a/b.mov").shown(), "a/b_[#####].png");
    }
}
