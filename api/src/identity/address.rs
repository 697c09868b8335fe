//! E-mail addresses as they are kept.

/// Longest address (RFC 5321, 4.5.3.1.3).
const LONGEST: usize = 254;

/// The address in the form that is kept: none when it is no address that mail could be sent to.
pub fn address(text: &str) -> Option<String> {
    let text = text.trim();
    let (name, host) = text.rsplit_once('@')?;
    let plain =
        |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '<' | '>' | '"' | ',' | ';' | '\\' | '(' | ')');
    let label = |l: &str| {
        !l.is_empty() && !l.starts_with('-') && !l.ends_with('-') && l.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    let good = !name.is_empty()
        && !name.contains('@')
        && name.chars().all(plain)
        && host.contains('.')
        && host.split('.').all(label);
    (good && text.len() <= LONGEST).then(|| format!("{name}@{}", host.to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_name_and_a_host() {
        assert_eq!(address(" Jane@Example.COM ").as_deref(), Some("Jane@example.com"));
        assert_eq!(address("کاربر@مثال.ایران").as_deref(), Some("کاربر@مثال.ایران"));
        for wrong in [
            "",
            "a",
            "@b.c",
            "a@b",
            "a@b..c",
            "a b@c.d",
            "a@c.d\r\nBcc: x@y.z",
            "a@-b.c",
            "a@@b.c",
            "<a@b.c>",
            "a@b.c,x@y.z",
        ] {
            assert_eq!(address(wrong), None, "{wrong:?}");
        }
        assert_eq!(address(&format!("{}@b.c", "a".repeat(300))), None);
    }
}
