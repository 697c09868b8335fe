//! `/docs`: the API's description as a page that needs nothing from elsewhere; `/openapi.json`: the same for programs.

use crate::app::App;
use axum::{
    Router,
    http::{HeaderName, header},
    response::IntoResponse,
    routing::get,
};
use bytes::Bytes;
use utoipa::openapi::OpenApi;

const PAGE: &str = include_str!("../assets/docs.html");
const STYLE: &str = include_str!("../assets/docs.css");
const SCRIPT: &str = include_str!("../assets/docs.js");
/// The page loads its own style and script, asks for `/openapi.json`, and nothing else.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The routes of the documentation.
pub fn routes(document: &OpenApi) -> Router<App> {
    let json = Bytes::from(document.to_json().unwrap_or_default());
    Router::new()
        .route("/openapi.json", get(async move || asset("application/json", json.clone())))
        .route("/docs", get(page))
        .route("/docs/docs.css", get(async || asset("text/css; charset=utf-8", STYLE)))
        .route("/docs/docs.js", get(async || asset("text/javascript; charset=utf-8", SCRIPT)))
}

async fn page() -> impl IntoResponse {
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], asset("text/html; charset=utf-8", PAGE))
}

fn asset(kind: &'static str, body: impl IntoResponse) -> impl IntoResponse {
    let headers: [(HeaderName, &str); 2] = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")];
    (headers, body)
}
