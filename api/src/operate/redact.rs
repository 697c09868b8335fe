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
        Value::String(text) => without_query(text),
        _ => {}
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // A lease's token, or one of a page, opens nothing once it is written down; but nobody needs to read one either.
    NAMES.iter().any(|part| name.contains(part))
}

/// What stands behind the question mark of an address opens what is before it.
fn without_query(text: &mut String) {
    let is_address = text.starts_with("https://") || text.starts_with("http://");
    if let Some(at) = text.find('?').filter(|_| is_address) {
        text.truncate(at + 1);
        text.push_str(HIDDEN);
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
    fn what_is_too_long_is_named_by_its_length() {
        assert_eq!(shown(json!("x".repeat(40_000))), json!({ "too_long_to_show": 40_002 }));
    }
}
