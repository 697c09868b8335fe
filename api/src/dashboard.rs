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
