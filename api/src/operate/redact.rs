//! What operators are not shown of what runs take and give: secrets, and what is too long to read. And back: what they made of what
//! they were shown, with what they were not.

use serde_json::{Value, json};

/// Instead of a secret.
const HIDDEN: &str = "•••";
/// Instead of what is too long: a field of this name, with the bytes.
const TOO_LONG: &str = "too_long_to_show";
/// Longest value that is shown, in bytes.
const LONGEST: usize = 32 * 1024;
/// Parts of names of fields that hold secrets.
const NAMES: [&str; 12] = [
    "secret",
    "password",
    "token",
    "api_key",
    "apikey",
    "authorization",
    "credential",
    "signature",
    "cookie",
    "private_key",
    "sealed",
    "otp",
];
/// How secrets of ours, and of those that we speak to, begin.
const BEGINNINGS: [&str; 7] = ["fr_", "whsec_", "whsk_", "Bearer ", "sk_live_", "sk_test_", "eyJ"];
/// Characters from which on what follows `Basic` is a name and a password in Base64, and no word.
const BASIC: usize = 12;

/// A value as it may be shown.
pub fn shown(mut value: Value) -> Value {
    hide(&mut value);
    let bytes = value.to_string().len();
    match bytes <= LONGEST {
        true => value,
        false => json!({ TOO_LONG: bytes }),
    }
}

/// What somebody made of a value that was [`shown`] to them: what they left as it was shown is what it is.
///
/// # Errors
/// The JSON pointer of what was hidden from them and is no longer in its place, or only a part of it.
pub fn meant(edited: Value, original: &Value) -> Result<Value, String> {
    restored(edited, &shown(original.clone()), original, "")
}

fn restored(edited: Value, shown: &Value, original: &Value, at: &str) -> Result<Value, String> {
    if edited == *shown {
        return Ok(original.clone());
    }
    match (edited, shown, original) {
        (Value::Object(fields), Value::Object(shown), Value::Object(original)) => {
            let put_back = |(name, value): (String, Value)| {
                let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                let value = match (shown.get(&name), original.get(&name)) {
                    (Some(shown), Some(original)) => restored(value, shown, original, &at)?,
                    _ if name == TOO_LONG => return Err(at),
                    _ => written_out(value, &at)?,
                };
                Ok((name, value))
            };
            fields.into_iter().map(put_back).collect::<Result<_, _>>().map(Value::Object)
        }
        (Value::Array(items), Value::Array(shown), Value::Array(original)) if items.len() == shown.len() => {
            let put_back = |(n, item): (usize, Value)| {
                let at = format!("{at}/{n}");
                // One that changed its place would get the secrets of the one that was there.
                match item != shown[n] && hides(&item) && shown.contains(&item) {
                    true => Err(at),
                    false => restored(item, &shown[n], &original[n], &at),
                }
            };
            items.into_iter().enumerate().map(put_back).collect::<Result<_, _>>().map(Value::Array)
        }
        (edited, ..) => written_out(edited, at),
    }
}

/// A value in which nothing stands for something else.
fn written_out(value: Value, at: &str) -> Result<Value, String> {
    match hides(&value) {
        true => Err(at.to_owned()),
        false => Ok(value),
    }
}

fn hides(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(name, value)| name == TOO_LONG || hides(value)),
        Value::Array(items) => items.iter().any(hides),
        Value::String(text) => text.contains(HIDDEN),
        _ => false,
    }
}

fn hide(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match is_secret(name) && !value.is_null() && !value.is_boolean() {
                    true => *value = json!(HIDDEN),
                    false => hide(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::String(text) if BEGINNINGS.iter().any(|b| text.starts_with(b)) => HIDDEN.clone_into(text),
        Value::String(text) => *text = sentence(text),
        _ => {}
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // A lease's token, or one of a page, opens nothing once it is written down; but nobody needs to read one either.
    NAMES.iter().any(|part| name.contains(part))
}

/// A sentence, such as the message of a failure, without the secrets that others wrote into it: what begins like one, what follows
/// `Bearer`, what a field of such a name is, and what stands behind the question mark of an address.
pub fn sentence(text: &str) -> String {
    let mut told = String::with_capacity(text.len());
    let (mut announced, mut before) = (None, "");
    for piece in text.split_inclusive(|c: char| c.is_whitespace() || "\"'`,;()<>".contains(c)) {
        let word = piece.trim_end_matches(|c: char| c.is_whitespace() || "\"'`,;()<>".contains(c));
        let (shown, rest) = (part_of(word), &piece[word.len()..]);
        // Between a name and its value there may be a colon by itself: it is neither.
        let says = word.contains(HIDDEN) || word.chars().any(char::is_alphanumeric);
        let is_secret = says && announced.is_some_and(|scheme| follows(scheme, word));
        told.push_str(if is_secret { HIDDEN } else { word.get(..shown).unwrap_or(word) });
        if shown < word.len() && !is_secret {
            told.push_str(HIDDEN);
        }
        told.push_str(rest);
        if says {
            (announced, before) = (Scheme::of(word, before), word);
        }
    }
    told
}

/// What says that a secret follows.
#[derive(Debug, Clone, Copy)]
enum Scheme {
    /// Whatever follows is one.
    Sure,
    /// `Basic`, which is an English word as well.
    Basic,
}

impl Scheme {
    fn of(word: &str, before: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "bearer" => Some(Self::Sure),
            "basic" if before.to_ascii_lowercase().contains("authorization") => Some(Self::Sure),
            "basic" => Some(Self::Basic),
            _ => None,
        }
    }
}

fn follows(scheme: Scheme, word: &str) -> bool {
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || "+/=_-".contains(c);
    match scheme {
        Scheme::Sure => true,
        // Words have no capitals and no digits within.
        Scheme::Basic => {
            word.len() >= BASIC
                && word.chars().all(is_base64)
                && word.chars().skip(1).any(|c| !c.is_ascii_lowercase() && c != '-')
        }
    }
}

/// How many bytes of a word may be shown.
fn part_of(word: &str) -> usize {
    let begins = |word: &str| BEGINNINGS.iter().any(|b| word.starts_with(b));
    if begins(word) {
        return 0;
    }
    if let (Some(_), Some(at)) = (word.find("://"), word.find('?')) {
        return at + 1;
    }
    match word.find(['=', ':']) {
        Some(at) if at + 1 < word.len() && (is_secret(&word[..at]) || begins(&word[at + 1..])) => at + 1,
        _ => word.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_wherever_they_stand() {
        let told = shown(json!({
            "to": "jane@example.com", "Password": "x", "nested": [{"access_token": "y", "n": 3}],
            "link": "https://example.com/a?sig=1", "key": "fr_live_abc", "has_secret": true, "secret": null,
        }));
        assert_eq!(
            told,
            json!({
                "to": "jane@example.com", "Password": "•••", "nested": [{"access_token": "•••", "n": 3}],
                "link": "https://example.com/a?•••", "key": "•••", "has_secret": true, "secret": null,
            })
        );
    }

    #[test]
    fn what_others_wrote_into_a_sentence_is_hidden_too() {
        let told = [
            ("refused: Authorization: Bearer abc.def, sorry", "refused: Authorization: Bearer •••, sorry"),
            ("no such key (fr_live_1234)", "no such key (•••)"),
            ("https://a.example/x?token=1 said 500", "https://a.example/x?••• said 500"),
            ("api_key=abc123; the password: wrong", "api_key=•••; the password: wrong"),
            ("frame 12 of 30 is missing: 40 %", "frame 12 of 30 is missing: 40 %"),
            ("چهار قاب کم است", "چهار قاب کم است"),
            ("Authorization: Basic YTpi", "Authorization: Basic •••"),
            (r#"{"authorization":"Basic YTpi"}"#, r#"{"authorization":"Basic •••"}"#),
            ("sent Bearer •••, sorry", "sent Bearer •••, sorry"),
            ("sent Basic amFuZTpvcGVuc2VzYW1l along", "sent Basic ••• along"),
            ("the basic promo, Basic configuration", "the basic promo, Basic configuration"),
            ("", ""),
        ];
        for (written, expected) in told {
            assert_eq!(sentence(written), expected);
        }
    }

    #[test]
    fn what_was_hidden_stays_what_it_was_when_something_else_is_changed() {
        let original = json!({
            "url": "https://films.example/e/1?sig=abcdef", "told": 0, "mail": {"password": "x", "to": "jane"},
            "keys": [{"token": "a", "n": 1}, {"token": "b", "n": 2}], "a/b": {"secret": {"deep": true}},
        });
        let edited = |pointer: &str, value: Value| {
            let mut edited = shown(original.clone());
            *edited.pointer_mut(pointer).unwrap() = value;
            meant(edited, &original)
        };
        let expected = |pointer: &str, value: Value| {
            let mut expected = original.clone();
            *expected.pointer_mut(pointer).unwrap() = value;
            Ok(expected)
        };
        assert_eq!(meant(shown(original.clone()), &original), Ok(original.clone()));
        for (pointer, value) in [
            ("/told", json!(3)),
            ("/mail/to", json!("ana")),
            ("/mail/password", json!("y")),
            ("/url", json!("https://films.example/e/2?sig=1")),
            ("/keys/1/n", json!(9)),
            ("/keys", json!([])),
        ] {
            assert_eq!(edited(pointer, value.clone()), expected(pointer, value), "{pointer}");
        }
        assert_eq!(edited("/url", json!("https://films.example/e/2?•••")), Err("/url".to_owned()));
        assert_eq!(edited("/mail/to", json!({ "token": "•••" })), Err("/mail/to".to_owned()));
        assert_eq!(edited("/a~1b/secret", json!(["•••"])), Err("/a~1b/secret".to_owned()));
        let swapped = json!([{"token": "•••", "n": 2}, {"token": "•••", "n": 1}]);
        assert_eq!(edited("/keys", swapped), Err("/keys/0".to_owned()));
        assert_eq!(edited("/keys", json!([{"token": "•••", "n": 2}])), Err("/keys".to_owned()));
    }

    #[test]
    fn what_was_too_long_to_show_stays_whole_or_is_written_anew() {
        let original = json!({ "text": "x".repeat(40_000) });
        let mut edited = shown(original.clone());
        assert_eq!(meant(edited.clone(), &original), Ok(original.clone()));
        edited["told"] = json!(1);
        assert_eq!(meant(edited, &original), Err("/too_long_to_show".to_owned()));
        assert_eq!(meant(json!({ "text": "y" }), &original), Ok(json!({ "text": "y" })));
    }

    #[test]
    fn what_is_too_long_is_named_by_its_length() {
        assert_eq!(shown(json!("x".repeat(40_000))), json!({ "too_long_to_show": 40_002 }));
    }
}
