//! The line of the command line that does the same as a request.

/// A line of words, quoted where a shell would read them otherwise.
pub fn line<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<String> = ["flatrender"].into_iter().chain(words).map(quoted).collect();
    words.join(" ")
}

/// A flag with its value, as one word where the value would be taken for another flag.
pub fn flag(name: &str, value: &str) -> Vec<String> {
    match value.starts_with('-') {
        true => vec![format!("{name}={value}")],
        false => vec![name.to_owned(), value.to_owned()],
    }
}

/// The words of a line, as a shell reads them.
#[cfg(test)]
pub(super) fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut in_quotes, mut escaped) = (vec![], None::<String>, false, false);
    for c in line.chars() {
        match c {
            ' ' if !in_quotes && !escaped => words.extend(word.take()),
            '\'' if !escaped => {
                in_quotes = !in_quotes;
                word.get_or_insert_default();
            }
            '\\' if !in_quotes && !escaped => {
                escaped = true;
                continue;
            }
            c => word.get_or_insert_default().push(c),
        }
        escaped = false;
    }
    words.extend(word);
    words
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_what_was_meant() {
        assert_eq!(
            line(["runs", "cancel", "1", "--reason", "it's stuck"]),
            r"flatrender runs cancel 1 --reason 'it'\''s stuck'"
        );
        assert_eq!(line(["x", "", "$(rm)"]), "flatrender x '' '$(rm)'");
        let meant = ["runs", "it's", "", r"a\b 'c'"];
        assert_eq!(words(&line(meant))[1..], meant);
    }
}
