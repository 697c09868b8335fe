//! Templates without logic: `{{ name }}` is filled in, and nothing else has a meaning.
//!
//! What is filled in is text wherever it goes: it holds no line breaks, and whoever shows it escapes it as a whole. A link is a line of the
//! template that consists of one name ending in `url`, so that no value can bring one along.

use crate::contracts::notify::{Line, Said};
use serde_json::Value;

/// Longest value, in characters: a longer one is cut.
const LONGEST: usize = 500;
/// Longest subject, in characters.
const SUBJECT: usize = 300;

/// Why a template cannot be filled in, now or ever.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// What stands between braces is no name.
    #[error("{0:?} is no name: small letters, digits, `_` and `.` between two braces on either side")]
    NoName(String),
    /// Braces that nobody closed.
    #[error("there are braces that nothing closes")]
    Open,
    /// Nobody said what stands there.
    #[error("nobody said what {0:?} is")]
    Missing(String),
    /// A link that leads nowhere.
    #[error("{0:?} is no address: it begins with https://, http:// or /")]
    NoLink(String),
}

/// A part of a template.
enum Part<'t> {
    Text(&'t str),
    Name(&'t str),
}

fn parts(template: &str) -> Result<Vec<Part<'_>>, Unfit> {
    let (mut parts, mut rest) = (vec![], template);
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").ok_or(Unfit::Open)?;
        parts.push(Part::Text(before));
        parts.push(Part::Name(name_in(name)?));
        rest = after;
    }
    parts.push(Part::Text(rest));
    Ok(parts)
}

fn name_in(text: &str) -> Result<&str, Unfit> {
    let name = text.trim();
    let is_word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_lowercase())
            && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let fits = name.len() <= 64 && name.split('.').all(is_word);
    if fits { Ok(name) } else { Err(Unfit::NoName(text.chars().take(80).collect())) }
}

/// The names in a template, each once, in their order.
///
/// # Errors
/// It is none.
pub fn names(template: &str) -> Result<Vec<&str>, Unfit> {
    let mut names = vec![];
    for part in parts(template)? {
        if let Part::Name(name) = part
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    Ok(names)
}

/// A text with what it names.
///
/// # Errors
/// It is no template, or names what nobody said.
pub fn fill(template: &str, data: &Value) -> Result<String, Unfit> {
    let mut filled = String::with_capacity(template.len());
    for part in parts(template)? {
        match part {
            Part::Text(text) => filled.push_str(text),
            Part::Name(name) => filled.push_str(&value(name, data)?),
        }
    }
    Ok(filled)
}

/// What `name` is, on one line.
fn value(name: &str, data: &Value) -> Result<String, Unfit> {
    let found = name.split('.').try_fold(data, |value, part| value.get(part));
    let text = match found {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(truth)) => truth.to_string(),
        _ => return Err(Unfit::Missing(name.to_owned())),
    };
    Ok(on_one_line(&text, LONGEST))
}

/// A text without what ends a line, or turns the direction of what stands around it; cut when it is longer.
fn on_one_line(text: &str, longest: usize) -> String {
    let plain = text.chars().map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { ' ' } else { c });
    plain.filter(|c| !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')).take(longest).collect()
}

/// What a template says about `data`: its body in lines, of which those that are one name ending in `url` are links.
///
/// # Errors
/// [`Unfit`]
pub fn say(subject: &str, body: &str, data: &Value) -> Result<Said, Unfit> {
    let lines = body.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| {
        let words = fill(line, data)?;
        match parts(line)?.as_slice() {
            [Part::Text(""), Part::Name(name), Part::Text("")] if name.ends_with("url") => link(words),
            _ => Ok(Line::Words(words)),
        }
    });
    Ok(Said { subject: on_one_line(&fill(subject, data)?, SUBJECT), lines: lines.collect::<Result<_, _>>()? })
}

fn link(address: String) -> Result<Line, Unfit> {
    let ours = address.starts_with('/') && !address.starts_with("//") && !address.contains('\\');
    let fits = ours || address.starts_with("https://") || address.starts_with("http://");
    if fits && !address.contains(char::is_whitespace) { Ok(Line::Link(address)) } else { Err(Unfit::NoLink(address)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn names_are_filled_in_and_nothing_else_has_a_meaning() {
        let data = json!({"name": "Jane", "used": 80, "a": {"b": true}});
        assert_eq!(
            fill("{{name}}: {{ used }} % {{a.b}} { {% if x %} ${name}", &data).unwrap(),
            "Jane: 80 % true { {% if x %} ${name}"
        );
        assert_eq!(names("{{a}} {{ b.c }} {{a}}").unwrap(), ["a", "b.c"]);
    }

    #[test]
    fn what_nobody_said_is_no_gap_in_a_sentence() {
        assert_eq!(fill("Hello {{name}}", &json!({"name": null})), Err(Unfit::Missing("name".into())));
        assert_eq!(fill("Hello {{name", &json!({})), Err(Unfit::Open));
        for none in ["{{}}", "{{ Name }}", "{{a-b}}", "{{7*7}}", "{{a|upper}}", "{{self.__class__}}", "{{\na\n\tb}}"] {
            assert!(matches!(names(none), Err(Unfit::NoName(_))), "{none}");
        }
    }

    #[test]
    fn only_a_line_of_the_template_is_a_link() {
        let said = say(
            "S",
            "Hi {{name}}\n\n{{action_url}}\n",
            &json!({"name": "x\n\nhttps://evil.example\u{2028}y", "action_url": "/renders/1"}),
        );
        let words = Line::Words("Hi x  https://evil.example y".into());
        assert_eq!(said.unwrap().lines, [words, Line::Link("/renders/1".into())]);
        for wrong in ["javascript:alert(1)", "//evil.example", "data:text/html,x", "https://a b", "/\\evil.example"] {
            assert!(matches!(say("S", "{{url}}", &json!({"url": wrong})), Err(Unfit::NoLink(_))), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_value_ends_its_line_or_fills_in_another(value in ".{0,600}") {
            let said = say("{{a}}", "x {{a}} y", &json!({"a": value, "b": "secret"})).unwrap();
            prop_assert_eq!(said.lines.len(), 1);
            prop_assert!(!said.subject.chars().any(char::is_control));
            prop_assert!(said.subject.chars().count() <= SUBJECT);
            prop_assert!(!said.subject.contains("secret"));
        }
    }
}
