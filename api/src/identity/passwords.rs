//! Passwords: which are good (NIST SP 800-63B-4, 3.1.1.2) and how they are kept (Argon2id).

use crate::problem::Problem;
use argon2::{
    Argon2,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use flatrender_workflows::models::render::freeze::Fault;
use std::{collections::BTreeSet, sync::LazyLock};
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization as _;

/// Fewest characters of a password that may be all that is asked for.
const FEWEST: usize = 15;
/// Most characters; the standard asks for 64 at least.
const MOST: usize = 256;
/// A good password has at least this many different characters.
const DIFFERENT: usize = 5;
/// What people type when they have to type much: rows of keys, rows of letters and digits, words again and again.
const ROWS: [&str; 6] = [
    "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz",
    "qwertyuiopasdfghjklzxcvbnmqwertyuiopasdfghjklzxcvbnm",
    "1234567890123456789012345678901234567890",
    "0987654321098765432109876543210987654321",
    "qazwsxedcrfvtgbyhnujmikolp",
    "1q2w3e4r5t6y7u8i9o0p",
];
const WORDS: [&str; 12] = [
    "password",
    "passwort",
    "letmein",
    "welcome",
    "iloveyou",
    "monkey",
    "dragon",
    "football",
    "admin",
    "changeme",
    "secret",
    "flatrender",
];

/// Each hash takes 19 MiB and a core: no more at a time than there are cores.
static PERMITS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(2, usize::from)));
/// The hash of nobody's password: somebody who is not there takes as long as somebody who is.
static NOBODY: LazyLock<String> = LazyLock::new(|| hash_now("nobody has this password").unwrap_or_default());

/// The password in the form that is kept, when it is good for somebody who is known by `names`.
///
/// # Errors
/// What is wrong with it.
pub fn good(pointer: &str, password: &str, names: &[&str]) -> Result<String, Fault> {
    let password = normal(password);
    let fault = |code: &str, detail: String| Fault { pointer: pointer.into(), code: code.into(), detail };
    let length = password.chars().count();
    if length < FEWEST {
        return Err(fault(
            "password.too_short",
            format!("a password has at least {FEWEST} characters; a few words will do"),
        ));
    }
    if length > MOST {
        return Err(fault("password.too_long", format!("a password has at most {MOST} characters")));
    }
    if is_guessable(&password, names) {
        return Err(fault(
            "password.guessable",
            "this password is among the first that are guessed; take a few words".into(),
        ));
    }
    Ok(password)
}

/// As it is compared: the same characters however they were typed.
fn normal(password: &str) -> String {
    password.nfkc().collect()
}

fn is_guessable(password: &str, names: &[&str]) -> bool {
    let lower = password.to_lowercase();
    let bare: String = lower.chars().filter(|c| c.is_alphanumeric()).collect();
    if bare.chars().collect::<BTreeSet<_>>().len() < DIFFERENT {
        return true;
    }
    if ROWS.iter().any(|row| row.contains(&bare) || bare.contains(&row[..row.len().min(FEWEST)])) {
        return true;
    }
    let mut rest = bare;
    let known = names.iter().flat_map(|name| name.split(|c: char| !c.is_alphanumeric())).map(str::to_lowercase);
    for word in WORDS.iter().map(|w| (*w).to_owned()).chain(known.filter(|n| n.chars().count() > 2)) {
        rest = rest.replace(&word, "");
    }
    // Digits at the end make nothing of a word that everybody knows.
    rest.chars().filter(|c| !c.is_ascii_digit()).count() < DIFFERENT
}

/// What is kept of a password that is good.
///
/// # Errors
/// The machine cannot compute it.
pub async fn hash(password: String) -> Result<String, Problem> {
    on_a_thread(move || hash_now(&password)).await
}

/// Whether `password` is the one that `kept` was made from; takes as long when nothing was kept.
///
/// # Errors
/// The machine cannot compute it.
pub async fn verify(password: &str, kept: Option<String>) -> Result<bool, Problem> {
    let (password, is_there) = (normal(password), kept.is_some());
    if password.chars().count() > MOST {
        return Ok(false);
    }
    on_a_thread(move || {
        // Made by whoever comes first, somebody or nobody: who makes it waits longer.
        let nobody = NOBODY.as_str();
        let kept = PasswordHash::new(kept.as_deref().unwrap_or(nobody)).map_err(|e| e.to_string())?;
        Ok(Argon2::default().verify_password(password.as_bytes(), &kept).is_ok() && is_there)
    })
    .await
}

async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, Problem> {
    let broken = |why: String| Problem::internal(&std::io::Error::other(why));
    metrics::counter!("flatrender_password_hashes_total").increment(1);
    let _permit = PERMITS.acquire().await.map_err(|e| broken(e.to_string()))?;
    let done = tokio::task::spawn_blocking(work).await.map_err(|e| broken(e.to_string()))?;
    done.map_err(broken)
}

fn hash_now(password: &str) -> Result<String, String> {
    // The defaults are what OWASP asks for at least: Argon2id, 19 MiB, two passes, one lane.
    Argon2::default().hash_password(password.as_bytes()).map(|hash| hash.to_string()).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_passwords_that_nobody_guesses_are_good() {
        for password in ["correct horse battery", "ممنون از همراهی شما دوستان", "Tr0ub4dor&3-is-too-short-alone"]
        {
            good("/password", password, &["jane@example.com"]).unwrap_or_else(|fault| panic!("{password}: {fault:?}"));
        }
    }

    #[test]
    fn short_long_and_guessable_ones_are_refused_with_a_reason() {
        let code = |password: &str| good("/password", password, &["jane.smith@example.com", "Jane"]).unwrap_err().code;
        assert_eq!(code("short"), "password.too_short");
        assert_eq!(code(&"x1y2 ".repeat(60)), "password.too_long");
        for guess in [
            "aaaaaaaaaaaaaaaaaaaa",
            "123456789012345678",
            "qwertyuiopasdfgh",
            "passwordpassword1",
            "jane.smith@example.com",
            "Password12345678",
        ] {
            assert_eq!(code(guess), "password.guessable", "{guess}");
        }
    }

    #[tokio::test]
    async fn the_same_characters_typed_otherwise_are_the_same_password() {
        let kept = hash(good("/password", "Cafe\u{301} au lait, please", &[]).unwrap()).await.unwrap();
        assert!(kept.starts_with("$argon2id$"));
        assert!(verify("Caf\u{e9} au lait, please", Some(kept.clone())).await.unwrap());
        assert!(!verify("Cafe au lait, please", Some(kept)).await.unwrap());
        assert!(!verify("nobody has this password", None).await.unwrap());
    }
}
