//! What a text's characters alone say: its lines, its words, whether its letters join, what needs no glyph.

/// After Effects ends a paragraph with a carriage return, and a line with an end-of-text character.
pub(super) fn plain_lines(text: &str) -> String {
    text.replace("\r\n", "\n").replace(['\r', '\u{3}', '\u{b}', '\u{2028}', '\u{2029}'], "\n").replace('\t', " ")
}

/// Where each word begins, in bytes.
pub(super) fn word_starts(text: &str) -> Vec<usize> {
    let mut before = ' ';
    let mut starts = vec![];
    for (at, character) in text.char_indices() {
        if before.is_whitespace() && !character.is_whitespace() {
            starts.push(at);
        }
        before = character;
    }
    starts
}

/// Hebrew to Arabic Extended, and their presentation forms: scripts written from the right, most of them joined.
pub(super) fn is_joined(text: &str) -> bool {
    text.chars().any(|c| matches!(c, '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{fefc}'))
}

/// Characters that need no glyph: blanks, controls, joiners, direction marks, variation selectors.
pub(super) fn is_invisible(character: char) -> bool {
    character.is_whitespace()
        || character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_line_end_is_one() {
        assert_eq!(plain_lines("a\r\nb\rc\u{3}d\te"), "a\nb\nc\nd e");
    }

    #[test]
    fn words_begin_after_blanks() {
        assert_eq!(word_starts(" ab  c\nd"), [1, 5, 7]);
    }

    #[test]
    fn persian_joins_and_latin_does_not() {
        assert!(is_joined("a سلام") && !is_joined("Zürich, 42"));
    }
}
