//! `/dashboard`: pages for those who look after the platform or a tenant. Plain files within the program: nothing is built, and nothing
//! comes from elsewhere. They ask the API as any other client does, and hold no right of their own.

use crate::app::App;
use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use rust_embed::{Embed, EmbeddedFile};

/// The pages load what is theirs, ask the API they came from, and nothing else. No script stands in a page, and no text becomes markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; connect-src 'self'; \
                      img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

#[derive(Embed)]
#[folder = "assets/dashboard"]
struct Files;

/// The routes of the dashboard. Every address below it is the same page, which knows from its address what to show.
pub fn routes() -> Router<App> {
    Router::new().route("/dashboard", get(page)).route("/dashboard/", get(page)).route("/dashboard/{*path}", get(file))
}

async fn page(headers: HeaderMap) -> Response {
    answer("index.html", Files::get("index.html"), &headers)
}

async fn file(Path(path): Path<String>, headers: HeaderMap) -> Response {
    match path.strip_prefix("assets/") {
        Some(name) => answer(name, Files::get(name), &headers),
        None => page(headers).await,
    }
}

fn answer(name: &str, file: Option<EmbeddedFile>, headers: &HeaderMap) -> Response {
    let policy = [(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY))];
    let Some(file) = file else { return (StatusCode::NOT_FOUND, policy, "there is no such file").into_response() };
    let tag = format!("\"{}\"", hex::encode(&file.metadata.sha256_hash()[..12]));
    let known = headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    let kept = [(header::CACHE_CONTROL, "no-cache".to_owned()), (header::ETAG, tag.clone())];
    if known.is_some_and(|known| known.split(',').any(|one| one.trim() == tag)) {
        return (StatusCode::NOT_MODIFIED, policy, kept).into_response();
    }
    let kind = [(header::CONTENT_TYPE, kind_of(name))];
    (policy, kept, kind, file.data.into_owned()).into_response()
}

fn kind_of(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("woff2") => "font/woff2",
        _ => "text/plain; charset=utf-8",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Words that are stored, and their room among the messages.
    const STORED: [(&str, &str, &str); 7] = [
        ("metric", include_str!("../../migrations/01_identity_tenants.sql"), "check (metric in ("),
        ("crash", include_str!("../../migrations/11_render_nodes.sql"), "check (kind in ("),
        ("recovery", include_str!("../../migrations/11_render_nodes.sql"), "check (recovery in ("),
        ("parked", include_str!("../../migrations/31_workflow_engine.sql"), "parked_reason as text check (value in ("),
        ("catch_up", include_str!("../../migrations/36_workflow_schedules.sql"), "check (catch_up in ("),
        ("overlap", include_str!("../../migrations/36_workflow_schedules.sql"), "check (overlap in ("),
        ("decision", include_str!("../../migrations/36_workflow_schedules.sql"), "check (decision in ("),
    ];

    fn read(name: &str) -> String {
        String::from_utf8(Files::get(name).unwrap().data.into_owned()).unwrap()
    }

    fn is_key(text: &str) -> bool {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "._".contains(c))
    }

    /// What stands in quotes and looks like the key of a message.
    fn keys(text: &str) -> BTreeSet<&str> {
        text.split('"').filter(|part| part.contains('.') && !part.ends_with('.') && is_key(part)).collect()
    }

    /// What comes after each of these, up to the next of the others.
    fn after<'a>(text: &'a str, begin: &'a str, end: char) -> Vec<&'a str> {
        text.split(begin).skip(1).filter_map(|rest| rest.split(end).next()).collect()
    }

    #[test]
    fn every_word_of_the_pages_is_there_in_both_languages() {
        let (en, fa) = (read("messages/en.js"), read("messages/fa.js"));
        let known = keys(&en);
        assert_eq!(known, keys(&fa));
        let is_room = |room: &str| known.iter().any(|key| key.starts_with(room) && key[room.len()..].starts_with('.'));
        let mut missing = BTreeSet::new();
        for name in Files::iter().filter(|name| name.ends_with(".js") && !name.starts_with("messages/")) {
            let page = read(&name);
            // Of what is quoted, what begins as a message does; one of them is the code of a problem.
            let quoted = keys(&page).into_iter().filter(|key| *key != "run.not_found");
            let quoted = quoted.filter(|key| key.split('.').next().is_some_and(&is_room));
            let rooms = after(&page, "word(\"", '"').into_iter().chain(after(&page, "t(`", '$'));
            let rooms = rooms.map(|room| room.trim_end_matches('.')).filter(|room| is_key(room));
            let unsaid = quoted.chain(rooms).filter(|key| !known.contains(key) && !is_room(key));
            missing.extend(unsaid.map(|key| format!("{name}: {key}")));
        }
        let filter = serde_json::to_value(crate::operate::runs::RunFilter::default()).unwrap();
        let mut stored: Vec<String> = filter.as_object().unwrap().keys().map(|name| format!("filter.{name}")).collect();
        for (room, sql, begin) in STORED {
            let list = after(sql, begin, ')')[0];
            stored.extend(list.split('\'').skip(1).step_by(2).map(|word| format!("{room}.{word}")));
        }
        assert!(stored.len() > 40, "{stored:?}");
        missing.extend(stored.into_iter().filter(|key| !known.contains(key.as_str())));
        assert_eq!(missing, BTreeSet::new());
    }

    /// What a page asks for by itself, and no line of the command line is for: the file, and what stands in each such request.
    const BARE: [(&str, &str); 3] = [
        // Proves who it is.
        ("parts/dialog.js", "\"/v1/auth/step-up\""),
        // Looks, and changes nothing.
        ("pages/words.js", "/preview`"),
        // A file is nothing before it is traced.
        ("pages/colours.js", "/v1/files"),
    ];

    /// What is dangerous: nobody does it without saying why.
    const DANGEROUS: [&str; 6] =
        ["bulk_preview", "bulk_rest", "bulk_abort", "node_quarantine", "node_retire", "tenant_suspend"];

    /// Files that ask for something, with their text.
    fn pages() -> Vec<(String, String)> {
        let all = Files::iter().filter(|name| name.ends_with(".js") && !name.starts_with("messages/"));
        all.filter(|name| *name != "api.js").map(|name| (name.to_string(), read(&name))).collect()
    }

    /// The calls of a function in a file: what comes with each, and all behind it.
    fn calls<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
        let begin = text.match_indices(name).map(move |(at, _)| text.split_at(at));
        let whole = begin.filter(|(before, _)| !before.ends_with(|c: char| c.is_alphanumeric() || c == '_'));
        whole.filter_map(move |(_, rest)| rest.strip_prefix(name)?.strip_prefix('('))
    }

    /// The lines of the command line that pages show, by name.
    fn lines() -> Vec<(String, String)> {
        let text = read("parts/lines.js");
        let line = |row: &str| {
            let (name, line) = row.trim().split_once(": \"")?;
            Some((name.to_owned(), line.strip_suffix("\",")?.to_owned()))
        };
        let all: Vec<_> = text.lines().filter_map(line).collect();
        assert!(all.len() > 40, "{all:?}");
        all
    }

    /// The words of a line: all that it may say, or no more than it has to.
    fn words(line: &str, all: bool) -> Vec<String> {
        let (mut words, mut rest) = (vec![], line);
        while !rest.is_empty() {
            let (part, after, is_said) = match rest.strip_prefix('[') {
                Some(inside) => inside.split_once(']').map(|(part, after)| (part, after, all)).unwrap(),
                None => rest.split_once(' ').map_or((rest, "", true), |(part, after)| (part, after, true)),
            };
            words.extend(part.split(' ').filter(|_| is_said).map(filled));
            rest = after.trim_start();
        }
        words
    }

    /// A word of a line, with something in its gap.
    fn filled(word: &str) -> String {
        let Some((before, name)) = word.split_once('{') else { return word.to_owned() };
        let value = match name.strip_suffix('}').unwrap() {
            "reason" | "evidence" | "explanation" | "subject" | "text" | "body" => "- it's \"stuck\" = so",
            "action" => "retry",
            "days" => "mon,tue",
            "filter" => r#"{"states":["failed"]}"#,
            "from" => "22:00",
            "hours" => "22:00-07:30",
            "labels" => "-gpu=-rtx",
            "limit" => "renders_per_day",
            "names" => "slot-1=-Sky",
            "node" | "pool" | "scene" | "template" => "-dashed-",
            "amount" | "hard" | "minutes" | "n" | "position" | "priority" | "rate" | "soft" | "window_seconds" => "5",
            "package" => "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "server" => "https://films.example",
            "since" => "2026-11-27T10:00:00Z",
            "to" => "07:30",
            "turn" => "off",
            "tz" => "Europe/Berlin",
            "who" => "managers",
            _ => "0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e11",
        };
        format!("{before}{value}")
    }

    #[test]
    fn every_line_is_one_of_the_command_line() {
        for (name, line) in lines() {
            for all in [true, false] {
                let mut words = words(&line, all);
                // A program of its own, which takes the same.
                if words[0] == "flatrender-node" {
                    words[0] = "flatrender".to_owned();
                    words.insert(1, "node".to_owned());
                }
                assert_eq!(crate::cli::understands(&words), Ok(()), "{name}: {words:?}");
            }
        }
    }

    #[test]
    fn nothing_dangerous_is_done_without_a_reason() {
        for (name, line) in lines() {
            let needs_reason = words(&line, false).iter().any(|word| word.contains("reason="));
            assert_eq!(needs_reason, DANGEROUS.contains(&name.as_str()), "{name}: {line}");
        }
        // Of runs and queues the API says the lines, and refuses what has no reason.
        let (runs, queues) = (read("pages/run_actions.js"), read("pages/queues.js"));
        for act in ["cancel", "release", "fork", "signal"] {
            let question = after(&runs, &format!("\n  {act}: "), '\n')[0].to_owned();
            assert!(question.contains("ask({") && !question.contains("reason: \""), "{question}");
        }
        let pause = after(&queues, "title: t(\"queues.pause.ask\"", '\n')[0];
        assert!(!pause.contains("reason: \""), "{pause}");
    }

    /// Every write goes by `write`, which takes a line, or by `acted`, whose answer has one.
    #[test]
    fn every_write_has_its_line() {
        let known = lines();
        let api = serde_json::to_value(crate::router::document()).unwrap();
        let (mut writes, mut used) = (0, BTreeSet::new());
        for (name, text) in pages() {
            assert!(name == "stream.js" || !text.contains("fetch("), "{name} asks past api.js");
            for sent in calls(&text, "post").chain(calls(&text, "call")) {
                let sent = sent.split(')').next().unwrap();
                let is_bare = BARE.iter().any(|(file, part)| *file == name && sent.contains(part));
                assert!(is_bare, "{name} writes without a line: {sent}");
            }
            for sent in calls(&text, "write") {
                let has_line = sent.starts_with("same(") || sent.starts_with("line, ");
                assert!(has_line, "{name} writes without a line: {sent:.60}");
                writes += 1;
            }
            for sent in calls(&text, "acted") {
                let path = sent.trim_start_matches('`').split('`').next().unwrap();
                let plain = |path: &str| -> Vec<String> {
                    path.split('/').map(|part| if part.contains('{') { "{}".into() } else { part.into() }).collect()
                };
                let mut paths = api["paths"].as_object().unwrap().keys();
                let found = paths.find(|known| plain(known) == plain(path)).unwrap_or_else(|| panic!("{path}"));
                let answer = &api["paths"][found]["post"]["responses"]["200"]["content"]["application/json"]["schema"];
                let answer = api.pointer(answer["$ref"].as_str().unwrap().trim_start_matches('#')).unwrap();
                assert!(answer["properties"]["cli"].is_object(), "{path} says no line");
                writes += 1;
            }
            for sent in calls(&text, "same").filter(|sent| sent.starts_with(['"', '`'])) {
                // Some names end with what is done.
                let (begin, is_whole) = match sent.strip_prefix('`') {
                    Some(part) => (part.split("${").next().unwrap(), false),
                    None => (sent[1..].split('"').next().unwrap(), true),
                };
                let is_meant = |line: &str| if is_whole { line == begin } else { line.starts_with(begin) };
                let all = known.iter().map(|(line, _)| line.as_str());
                let meant: Vec<&str> = all.filter(|line| is_meant(line)).collect();
                assert!(!meant.is_empty(), "{name} shows a line that is none: {begin}");
                used.extend(meant);
            }
        }
        assert!(writes > 30, "{writes}");
        let unused: Vec<_> = known.iter().filter(|(name, _)| !used.contains(name.as_str())).collect();
        assert!(unused.is_empty(), "{unused:?}");
    }

    /// What messages say to do with `flatrender` can be done.
    #[test]
    fn commands_that_are_named_in_passing_are_there() {
        use clap::CommandFactory as _;
        let api = serde_json::to_value(crate::router::document()).unwrap().to_string();
        let mut named = 0;
        for text in [read("messages/en.js"), read("messages/fa.js")] {
            for said in text.split("flatrender ").skip(1) {
                let mut words = said.split(|c: char| !c.is_ascii_alphanumeric() && !"-_".contains(c));
                let mut command = crate::cli::Cli::command();
                while command.is_subcommand_required_set() {
                    let word = words.next().unwrap_or_default();
                    let next = command.find_subcommand(word).cloned();
                    command = next.unwrap_or_else(|| panic!("there is no command {word:?}: {said:.40}"));
                }
                if command.get_name() == "api" {
                    let operation = words.next().unwrap_or_default();
                    assert!(api.contains(&format!("\"operationId\":\"{operation}\"")), "{operation}");
                }
                named += 1;
            }
        }
        assert!(named > 8, "{named}");
    }

    #[test]
    fn every_file_is_of_ours_and_names_nothing_elsewhere() {
        let mut seen = 0;
        for name in Files::iter() {
            let file = Files::get(&name).expect("it was listed");
            assert!(kind_of(&name) != "text/plain; charset=utf-8" || name.ends_with("OFL.txt"), "{name}");
            let Ok(text) = std::str::from_utf8(&file.data) else { continue };
            if name.ends_with("OFL.txt") || name.ends_with(".svg") {
                continue;
            }
            let text = text.replace("http://www.w3.org/2000/svg", "");
            for word in [
                "://",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                " style=\"",
                "onclick=",
            ] {
                assert!(!text.contains(word), "{name} has {word:?}");
            }
            assert!(text.lines().count() < 600, "{name} is too long");
            seen += 1;
        }
        assert!(seen > 10, "{seen}");
    }
}
