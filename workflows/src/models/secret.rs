//! Tokens that are shown once and kept only as a hash.

use rand::RngExt as _;
use sha2::{Digest as _, Sha256};

/// The digits of base 62, in order.
pub(crate) const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 40 characters of 62: more than 238 bits.
const RANDOM_CHARS: usize = 40;
/// How much of a secret may be shown to tell it from others.
const PREFIX_CHARS: usize = 16;

/// A fresh secret. Its text is shown once; [`Secret::hash_of`] is what is kept.
pub struct Secret(String);

impl Secret {
    /// A new secret that begins with `kind`, such as `fr_live_`.
    pub fn generate(kind: &str) -> Self {
        Self(format!("{kind}{}", Self::random(RANDOM_CHARS)))
    }

    /// A secret of another shape.
    pub(crate) fn shaped(text: String) -> Self {
        Self(text)
    }

    /// Random characters, each of 62.
    pub(crate) fn random(chars: usize) -> String {
        let mut rng = rand::rng();
        (0..chars).map(|_| ALPHABET[rng.random_range(0..ALPHABET.len())] as char).collect()
    }

    /// The text to hand out.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The part that may be listed.
    pub fn prefix(&self) -> &str {
        &self.0[..PREFIX_CHARS.min(self.0.len())]
    }

    /// What is kept of a secret. No salt or slow hash: the secret is random, not chosen by a person.
    pub fn hash_of(text: &str) -> Vec<u8> {
        Sha256::digest(text.as_bytes()).to_vec()
    }

    /// What is kept of this one.
    pub fn hash(&self) -> Vec<u8> {
        Self::hash_of(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_and_carry_their_kind() {
        let (a, b) = (Secret::generate("fr_live_"), Secret::generate("fr_live_"));
        assert_ne!(a.reveal(), b.reveal());
        assert!(a.reveal().starts_with("fr_live_"));
        assert_eq!(a.reveal().len(), "fr_live_".len() + RANDOM_CHARS);
        assert_eq!(a.hash(), Secret::hash_of(a.reveal()));
    }
}
