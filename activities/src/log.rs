//! How a program says what it does: lines for people, or, with `FLATRENDER_LOG_FORMAT=json`, an object a line for programs.
//! Always to standard error.

use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter, util::SubscriberInitExt as _};

/// What says in which form.
pub const FORMAT: &str = "FLATRENDER_LOG_FORMAT";

/// Begins to log what `filter` lets through. Call it once.
pub fn start(filter: EnvFilter, colours: bool) {
    let json = std::env::var(FORMAT).is_ok_and(|format| format.eq_ignore_ascii_case("json"));
    subscriber(json, filter, colours, std::io::stderr).init();
}

/// With the spans that a line is said in, so that it names its run.
fn subscriber<W>(json: bool, filter: EnvFilter, colours: bool, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match json {
        true => Box::new(lines.json().flatten_event(true).finish()),
        false => Box::new(lines.with_ansi(colours).finish()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn said(json: bool) -> String {
        let page = Page::default();
        let written = page.clone();
        let subscriber = subscriber(json, EnvFilter::new("info"), false, move || written.clone());
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("attempt", run.id = "r7");
            let _inside = span.enter();
            tracing::warn!(frame = 12, "a \"font\" is missing");
            tracing::debug!("nobody wants to know");
        });
        let text = page.0.lock().unwrap().clone();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_line_for_programs_is_an_object() {
        let text = said(true);
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["message"], "a \"font\" is missing");
        assert_eq!(line["frame"], 12);
        assert_eq!(line["span"]["run.id"], "r7");
        assert!(line["timestamp"].is_string() && line["target"].is_string(), "{line}");
    }

    #[test]
    fn a_line_for_people_is_none() {
        let text = said(false);
        assert!(text.contains("WARN") && text.contains("a \"font\" is missing") && text.contains("frame=12"), "{text}");
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_err());
    }
}
