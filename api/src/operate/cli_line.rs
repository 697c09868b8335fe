//! The line of the command line that does the same as a request.

/// A line of words, quoted where a shell would read them otherwise.
pub fn line<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<String> = ["flatrender"].into_iter().chain(words).map(quoted).collect();
    words.join(" ")
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
    }
}
