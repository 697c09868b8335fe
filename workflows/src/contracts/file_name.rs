//! What files and folders may be called, wherever they may end up one day: on Linux, macOS and Windows, in archives, in headers.
//!
//! A name is data and never becomes a path here; these rules are for whoever saves a file under the name it has with us.

use std::fmt;
use unicode_normalization::UnicodeNormalization as _;

/// Longest name in bytes of UTF-8: what Linux takes, and so at most the 255 UTF-16 units of Windows.
pub const NAME_BYTES: usize = 255;
/// What separates, or means something to a file system or shell of Windows; the colon names a stream behind a file.
const RESERVED_CHARS: [char; 9] = ['/', '\\', ':', '*', '?', '"', '<', '>', '|'];
/// Devices of Windows, whatever their ending. Source: "Naming Files, Paths, and Namespaces", Microsoft.
const DEVICES: [&str; 6] = ["con", "prn", "aux", "nul", "conin$", "conout$"];

/// The name of a file or folder: NFC, 1 to 255 bytes, the same on every system.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileName(String);

/// Why a text is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// It is empty or longer than 255 bytes.
    #[error("a name is 1 to 255 bytes long")]
    Length,
    /// It has a separator, or a character that some system gives a meaning to.
    #[error("a name has none of / \\ : * ? \" < > |")]
    Reserved,
    /// It has a control character, or one that nobody sees or that turns the direction of what follows.
    #[error("a name has no control characters and none that are invisible")]
    Invisible,
    /// It begins or ends with a space, or ends with a dot.
    #[error("a name does not begin or end with a space or end with a dot")]
    Ends,
    /// It is that of a device.
    #[error("the name is that of a device of Windows")]
    Device,
}

impl FileName {
    /// Reads a name; it is brought to NFC, as macOS sends the other form.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        // Normalizing may shorten, but not by as much as that.
        if text.len() > 4 * NAME_BYTES {
            return Err(BadName::Length);
        }
        let name: String = text.nfc().collect();
        if name.is_empty() || name.len() > NAME_BYTES {
            return Err(BadName::Length);
        }
        if name.contains(RESERVED_CHARS) {
            return Err(BadName::Reserved);
        }
        if name.chars().any(is_invisible) {
            return Err(BadName::Invisible);
        }
        if name.ends_with('.') || name.starts_with(char::is_whitespace) || name.ends_with(char::is_whitespace) {
            return Err(BadName::Ends);
        }
        if is_device(&name) {
            return Err(BadName::Device);
        }
        Ok(Self(name))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Control characters, marks and overrides of direction, separators of lines, what has no width, tags, and code points that are no
/// characters. Joiners stay: Persian and emoji are written with them.
fn is_invisible(c: char) -> bool {
    let number = u32::from(c);
    c.is_control()
        || matches!(number, 0x200b | 0x200e | 0x200f | 0x2028..=0x202e | 0x2060..=0x2069 | 0xfeff | 0xfdd0..=0xfdef)
        || matches!(number, 0xfff9..=0xfffb | 0xe0000..=0xe007f)
        || number & 0xfffe == 0xfffe
}

fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_lowercase();
    let numbered = |kind: &str| {
        let number = stem.strip_prefix(kind).and_then(|rest| {
            let mut rest = rest.chars();
            rest.next().filter(|_| rest.next().is_none())
        });
        number.is_some_and(|c| c.is_ascii_digit() || matches!(c, '¹' | '²' | '³'))
    };
    DEVICES.contains(&stem.as_str()) || numbered("com") || numbered("lpt")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn m29_a_name_is_the_same_on_every_system() {
        for good in
            ["logo.png", "فایل‌ها", "👩‍👩‍👧.jpg", ".hidden", "-rf", "a b", "com", "com10", "console.txt", "..a", "Über"]
        {
            assert_eq!(FileName::parse(good).map(|n| n.to_string()), Ok(good.to_owned()));
        }
        assert_eq!(FileName::parse("U\u{308}ber").map(|n| n.to_string()), Ok("Über".to_owned()), "NFC");
    }

    #[test]
    fn m29_what_no_file_may_be_called_is_refused() {
        use BadName::{Device, Ends, Invisible, Length, Reserved};
        let long = "a".repeat(256);
        let cases = [
            ("", Length),
            (long.as_str(), Length),
            ("a/b", Reserved),
            ("..\\a", Reserved),
            ("a:b", Reserved),
            ("a.txt::$DATA", Reserved),
            ("what?", Reserved),
            ("a\0b", Invisible),
            ("a\nb", Invisible),
            ("a\u{7f}", Invisible),
            ("gpj\u{202e}exe", Invisible),
            ("a\u{2066}b", Invisible),
            ("a\u{feff}", Invisible),
            ("a\u{ffff}", Invisible),
            (".", Ends),
            ("..", Ends),
            ("a.", Ends),
            ("a ", Ends),
            (" a", Ends),
            ("a\u{3000}", Ends),
            ("CON", Device),
            ("nul.txt", Device),
            ("Aux .png", Device),
            ("COM1", Device),
            ("lpt².doc", Device),
            ("CONOUT$", Device),
        ];
        for (name, why) in cases {
            assert_eq!(FileName::parse(name), Err(why), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn m29_a_name_stays_within_its_folder(text in any::<String>()) {
            if let Ok(name) = FileName::parse(&text) {
                let path = std::path::Path::new("folder").join(name.as_str());
                prop_assert_eq!(path.parent(), Some(std::path::Path::new("folder")));
                prop_assert_eq!(path.file_name().and_then(|n| n.to_str()), Some(name.as_str()));
                prop_assert_eq!(FileName::parse(name.as_str()), Ok(name));
            }
        }
    }
}
