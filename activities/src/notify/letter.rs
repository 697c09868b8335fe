//! An e-mail in words and in HTML: what is said, under the brand of who says it. Everything is escaped here, once.

use flatrender_workflows::contracts::notify::{Line, Said, Sender};

/// An e-mail, written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// In one line.
    pub subject: String,
    /// For who reads text.
    pub text: String,
    /// For who reads HTML.
    pub html: String,
}

/// Words of our own around what is said.
struct Around {
    open: &'static str,
    questions: &'static str,
    unsubscribe: &'static str,
}

const ENGLISH: Around = Around { open: "Open", questions: "Questions?", unsubscribe: "No more of this kind" };
const PERSIAN: Around = Around {
    open: "باز کردن", questions: "پرسشی دارید؟", unsubscribe: "دیگر از این دست نفرستید"
};

/// Whether a language is written from right to left.
pub fn is_rtl(language: &str) -> bool {
    matches!(language.split('-').next(), Some("fa" | "ar" | "he" | "ur" | "ckb" | "ps" | "yi"))
}

/// Writes what is said. Links that begin with `/` are of `public_url`; `unsubscribe` is where to say that there be no more.
pub fn write(said: &Said, sender: &Sender, language: &str, public_url: &str, unsubscribe: Option<&str>) -> Letter {
    let around = if language.split('-').next() == Some("fa") { PERSIAN } else { ENGLISH };
    let absolute = |link: &str| if link.starts_with('/') { format!("{public_url}{link}") } else { link.to_owned() };
    let color = escaped(sender.color.as_deref().unwrap_or("#333333"));
    let (mut text, mut html) = (vec![], String::new());
    for line in &said.lines {
        match line {
            Line::Words(words) => {
                text.push(words.clone());
                html += &format!("<p>{}</p>", escaped(words));
            }
            Line::Link(link) => {
                let address = absolute(link);
                html +=
                    &format!("<p><a style=\"color:{color}\" href=\"{}\">{}</a></p>", escaped(&address), around.open);
                text.push(address);
            }
        }
    }
    let mut footer: Vec<String> = vec![];
    footer.extend(sender.support_email.as_ref().map(|address| format!("{} {address}", around.questions)));
    footer.extend(sender.footer.clone());
    text.extend(footer.iter().cloned());
    html += &footer.iter().map(|line| format!("<p><small>{}</small></p>", escaped(line))).collect::<String>();
    if let Some(address) = unsubscribe {
        text.push(format!("{}: {address}", around.unsubscribe));
        html += &format!("<p><small><a href=\"{}\">{}</a></small></p>", escaped(address), around.unsubscribe);
    }
    let logo = sender.logo.as_ref().map(|path| {
        let (source, alt) = (escaped(&absolute(path)), escaped(&sender.product));
        format!("<p><img src=\"{source}\" alt=\"{alt}\" height=\"40\"></p>")
    });
    let subject = format!("{}: {}", sender.product, said.subject);
    let direction = if is_rtl(language) { "rtl" } else { "ltr" };
    Letter {
        text: text.join("\n\n") + "\n",
        html: format!(
            "<!doctype html><html lang=\"{}\" dir=\"{direction}\"><meta charset=\"utf-8\"><title>{}</title>\
             <body style=\"font-family:sans-serif;line-height:1.6;border-top:4px solid {color}\">{}{html}</body></html>",
            escaped(language),
            escaped(&subject),
            logo.unwrap_or_default(),
        ),
        subject,
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_never_markup_and_reads_in_its_direction() {
        let said = Said {
            subject: "<script>alert(1)</script>".into(),
            lines: vec![Line::Words("\"x\" & <img src=x onerror=y>".into()), Line::Link("/renders/1?a=\"><b>".into())],
        };
        let sender = Sender { product: "Film & <Co>".into(), color: Some("#00ff00".into()), ..Sender::default() };
        let letter = write(
            &said,
            &sender,
            "fa-IR",
            "https://films.example",
            Some("https://films.example/v1/unsubscribe?a=1&b=2"),
        );
        assert!(letter.html.contains("dir=\"rtl\"") && letter.html.contains("lang=\"fa-IR\""), "{}", letter.html);
        for markup in ["<script", "<img", "<b>", "<Co>"] {
            assert!(!letter.html.contains(markup), "{markup}: {}", letter.html);
        }
        assert!(letter.html.contains("href=\"https://films.example/v1/unsubscribe?a=1&amp;b=2\""), "{}", letter.html);
        assert!(
            letter.text.contains("\"x\" & <img src=x onerror=y>\n\nhttps://films.example/renders/1"),
            "{}",
            letter.text
        );
        assert_eq!(letter.subject, "Film & <Co>: <script>alert(1)</script>");
    }
}
