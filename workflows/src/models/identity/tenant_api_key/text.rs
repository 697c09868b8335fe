//! How an API key is written: `fr_live_` or `fr_test_`, 30 random characters of base 62, and the CRC-32 of all that in
//! six more. A mistyped or made-up key is told from a real one without asking anybody.

use crate::models::{Secret, secret::ALPHABET};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Random characters: more than 178 bits.
const RANDOM_CHARS: usize = 30;
/// 62 to the sixth is more than 2 to the 32nd.
const CHECKSUM_CHARS: usize = 6;
const PREFIX_CHARS: usize = 8;

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Real work.
    Live,
    /// Trying things out.
    Test,
}

impl Mode {
    /// As it is kept.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Test => "test",
        }
    }

    const fn prefix(self) -> &'static str {
        match self {
            Self::Live => "fr_live_",
            Self::Test => "fr_test_",
        }
    }
}

/// A new key.
pub fn generate(mode: Mode) -> Secret {
    let body = format!("{}{}", mode.prefix(), Secret::random(RANDOM_CHARS));
    Secret::shaped(format!("{body}{}", checksum(&body)))
}

/// The mode of a text that is written as keys are, checksum included; none of any other.
pub fn mode_of(text: &str) -> Option<Mode> {
    let mode = [Mode::Live, Mode::Test].into_iter().find(|mode| text.starts_with(mode.prefix()))?;
    let length = PREFIX_CHARS + RANDOM_CHARS;
    let shaped =
        text.len() == length + CHECKSUM_CHARS && text[PREFIX_CHARS..].bytes().all(|b| b.is_ascii_alphanumeric());
    (shaped && checksum(&text[..length]) == text[length..]).then_some(mode)
}

fn checksum(body: &str) -> String {
    let mut rest = crc32fast::hash(body.as_bytes());
    let mut digits = [b'0'; CHECKSUM_CHARS];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    digits.iter().map(|d| *d as char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_proves_itself_and_one_wrong_character_shows() {
        for mode in [Mode::Live, Mode::Test] {
            let key = generate(mode).reveal().to_owned();
            assert_eq!((key.len(), mode_of(&key)), (44, Some(mode)));
            for at in 0..key.len() {
                for other in ["0", "z", "-", "é"] {
                    let mut wrong = key.clone();
                    wrong.replace_range(at..=at, other);
                    assert!(wrong == key || mode_of(&wrong).is_none(), "{wrong}");
                }
            }
            assert!(mode_of(&key[..43]).is_none() && mode_of(&format!("{key}0")).is_none());
        }
        assert!(mode_of("").is_none() && mode_of("fr_live_").is_none());
    }

    #[test]
    fn the_checksum_is_the_one_that_scanners_know() {
        // CRC-32 of IEEE 802.3: the check value of "123456789" is 0xCBF43926, 3421780262, in base 62.
        assert_eq!(checksum("123456789"), "3jZRME");
    }
}
