//! What a layer's or a fill's name asks for: the designer's side of the contract with the data file.
//!
//! `txt:KEY`, `txt:KEY@TOKEN`, `img:KEY`, `color:TOKEN[,TOKEN…]`; any layer's name may end in `?KEY`.

/// A name taken apart.
#[derive(Debug, PartialEq)]
pub(crate) struct Name<'a> {
    pub(crate) role: Role<'a>,
    /// Shown only while this visibility is true.
    pub(crate) visibility: Option<&'a str>,
}

/// What the data file may put in this place.
#[derive(Debug, PartialEq)]
pub(crate) enum Role<'a> {
    /// A text's words, and the colour token it takes.
    Text { key: &'a str, token: Option<&'a str> },
    /// A picture.
    Image { key: &'a str },
    /// One colour, or one for each stop of a gradient.
    Colors(Vec<&'a str>),
    /// Nothing: the designer's own.
    Plain,
}

impl<'a> Name<'a> {
    pub(crate) fn parse(name: &'a str) -> Self {
        let (name, visibility) = match name.rsplit_once('?') {
            Some((front, key)) if is_key(key) => (front, Some(key)),
            _ => (name, None),
        };
        Self { role: role(name), visibility }
    }
}

fn role(name: &str) -> Role<'_> {
    if let Some(rest) = name.strip_prefix("txt:") {
        return match rest.split_once('@') {
            Some((key, token)) => Role::Text { key, token: Some(token) },
            None => Role::Text { key: rest, token: None },
        };
    }
    if let Some(key) = name.strip_prefix("img:") {
        return Role::Image { key };
    }
    match name.strip_prefix("color:") {
        Some(tokens) => Role::Colors(tokens.split(',').map(str::trim).collect()),
        None => Role::Plain,
    }
}

/// "Ready?" is a layer's name and no visibility; a key has at least one letter and no blank.
fn is_key(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_may_carry_a_colour_and_a_visibility() {
        let name = Name::parse("txt:site@accent?badge");
        assert_eq!(name.role, Role::Text { key: "site", token: Some("accent") });
        assert_eq!(name.visibility, Some("badge"));
    }

    #[test]
    fn a_gradient_names_a_token_for_each_stop() {
        assert_eq!(Name::parse("color:primary, secondary").role, Role::Colors(vec!["primary", "secondary"]));
    }

    #[test]
    fn a_question_mark_at_the_end_is_no_visibility() {
        assert_eq!(Name::parse("Ready?"), Name { role: Role::Plain, visibility: None });
    }
}
