//! What only servers and workers know: one key, from which those for sealing and for links are made.

use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305,
    aead::{Aead as _, Payload},
};
use hmac::{Hmac, Mac as _};
use rand::RngExt as _;
use sha2::Sha256;
use std::{
    fs::File,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};
use uuid::Uuid;

/// Bytes of the key.
const KEY_BYTES: usize = 32;
/// Bytes of the number that is used once, which stands before what is sealed.
const NONCE_BYTES: usize = 24;
/// Links begin with this.
const LINK_KIND: &str = "fr_ln_";

/// The key of an installation. Every server and worker of it has the same.
#[derive(Clone)]
pub struct Vault {
    seal: [u8; KEY_BYTES],
    links: [u8; KEY_BYTES],
}

/// What was sealed for something else, with another key, or was changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stored secret does not open: the key of this installation is another one than when it was sealed")]
pub struct DoesNotOpen;

impl Vault {
    /// The key in the file `path`: 64 hexadecimal digits. A file that is not there is made, for its owner's eyes only.
    ///
    /// # Errors
    /// The file cannot be read or made, or holds something else.
    pub fn open(path: &Path) -> io::Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(path)?,
            read => read?,
        };
        let bytes = hex::decode(text.trim()).ok().and_then(|bytes| <[u8; KEY_BYTES]>::try_from(bytes).ok());
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "the key file does not hold 64 hexadecimal digits");
        bytes.map(|key| Self::of(&key)).ok_or_else(wrong)
    }

    /// A vault of this key.
    pub fn of(key: &[u8; KEY_BYTES]) -> Self {
        Self { seal: derived(key, b"seal"), links: derived(key, b"links") }
    }

    /// Seals a secret for one place, such as `totp:<id>`: it opens nowhere else.
    pub fn seal(&self, place: &str, secret: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_BYTES] = rand::rng().random();
        let payload = Payload { msg: secret, aad: place.as_bytes() };
        // It only fails for messages of more than 2^38 bytes.
        let sealed = XChaCha20Poly1305::new(&self.seal.into()).encrypt(&nonce.into(), payload).unwrap_or_default();
        [nonce.as_slice(), &sealed].concat()
    }

    /// Opens what was sealed for `place`.
    ///
    /// # Errors
    /// [`DoesNotOpen`]
    pub fn unseal(&self, place: &str, sealed: &[u8]) -> Result<Vec<u8>, DoesNotOpen> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(DoesNotOpen)?;
        let payload = Payload { msg: sealed, aad: place.as_bytes() };
        XChaCha20Poly1305::new(&self.seal.into()).decrypt(&(*nonce).into(), payload).map_err(|_| DoesNotOpen)
    }

    /// A text of 64 characters for one purpose, such as `openid nonce <id>`. Whoever does not have the key cannot make it.
    pub fn mark(&self, purpose: &str) -> String {
        hex::encode(derived(&self.links, purpose.as_bytes()))
    }

    /// The text of the link with this id. Whoever does not have the key cannot make it.
    pub fn link(&self, id: Uuid) -> String {
        format!("{LINK_KIND}{}", hex::encode(derived(&self.links, id.as_bytes())))
    }
}

fn make(path: &Path) -> io::Result<String> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let key: [u8; KEY_BYTES] = rand::rng().random();
    let text = hex::encode(key);
    // Whole or not at all: of two that make it at once one wins, and both read that one.
    let draft = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    let made = std::fs::hard_link(&draft, path);
    std::fs::remove_file(&draft)?;
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => std::fs::read_to_string(path),
    }
}

fn derived(key: &[u8; KEY_BYTES], purpose: &[u8]) -> [u8; KEY_BYTES] {
    use hmac::KeyInit as _;
    // A key of any length is fine (RFC 2104, 2).
    Hmac::<Sha256>::new_from_slice(key)
        .map(|mac| mac.chain_update(purpose).finalize().into_bytes().into())
        .unwrap_or(*key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_for_its_place_and_key_only() {
        let (vault, other) = (Vault::of(&[1; 32]), Vault::of(&[2; 32]));
        let mut sealed = vault.seal("totp:1", b"secret");
        assert_ne!(sealed, vault.seal("totp:1", b"secret"));
        assert_eq!(vault.unseal("totp:1", &sealed).unwrap(), b"secret");
        assert_eq!(vault.unseal("totp:2", &sealed), Err(DoesNotOpen));
        assert_eq!(other.unseal("totp:1", &sealed), Err(DoesNotOpen));
        *sealed.last_mut().unwrap() ^= 1;
        assert_eq!(vault.unseal("totp:1", &sealed), Err(DoesNotOpen));
        assert_eq!(vault.unseal("totp:1", b"short"), Err(DoesNotOpen));
    }

    #[test]
    fn the_key_is_made_once_and_for_its_owner() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("private/secret.key");
        let (a, b) = (Vault::open(&path).unwrap(), Vault::open(&path).unwrap());
        assert_eq!(a.link(Uuid::nil()), b.link(Uuid::nil()));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "nonsense").unwrap();
        assert!(Vault::open(&path).is_err());
    }
}
