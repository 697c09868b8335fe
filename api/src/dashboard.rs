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
