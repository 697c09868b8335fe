//! What operators are not shown of what runs take and give: secrets, and what is too long to read.

use serde_json::{Value, json};

/// Instead of a secret.
const HIDDEN: &str = "•••";
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
const BEGINNINGS: [&str; 8] = ["fr_", "whsec_", "whsk_", "Bearer ", "Basic ", "sk_live_", "sk_test_", "eyJ"];

/// A value as it may be shown.
pub fn shown(mut value: Value) -> Value {
    hide(&mut value);
    let bytes = value.to_string().len();
    match bytes <= LONGEST {
        true => value,
        false => json!({ "too_long_to_show": bytes }),
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
    let mut announced = false;
    for piece in text.split_inclusive(|c: char| c.is_whitespace() || "\"'`,;()<>".contains(c)) {
        let word = piece.trim_end_matches(|c: char| c.is_whitespace() || "\"'`,;()<>".contains(c));
        let (shown, rest) = (part_of(word), &piece[word.len()..]);
        told.push_str(if announced && !word.is_empty() { HIDDEN } else { word.get(..shown).unwrap_or(word) });
        if shown < word.len() && !announced {
            told.push_str(HIDDEN);
        }
        told.push_str(rest);
        announced = ["bearer", "basic"].contains(&word.to_ascii_lowercase().as_str()) || announced && word.is_empty();
    }
    told
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
            ("", ""),
        ];
        for (written, expected) in told {
            assert_eq!(sentence(written), expected);
        }
    }

    #[test]
    fn what_is_too_long_is_named_by_its_length() {
        assert_eq!(shown(json!("x".repeat(40_000))), json!({ "too_long_to_show": 40_002 }));
    }
}
