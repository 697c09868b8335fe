//! `GET /share/{token}`: a file for whoever has been given its address.

use crate::{
    app::App,
    extract::Path,
    limits,
    problem::{Code, Problem, ProblemBody},
    render::download::Download,
};
use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts},
    response::Response,
};
use flatrender_workflows::models::{
    Role, Scope,
    file_mgr::share_link::{self, Shared},
    identity::rate_bucket::Rate,
};

/// Addresses that lead nowhere, from one network.
const OF_GUESSES: Rate = Rate { limit: 60.0, window_seconds: 60.0 };
/// What somebody uploaded does nothing where it is shown, if a browser shows it at all.
const SANDBOX: HeaderValue = HeaderValue::from_static("default-src 'none'; sandbox; frame-ancestors 'none'");
/// No search engine lists what was given to somebody.
const UNLISTED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-robots-tag"), HeaderValue::from_static("noindex, nofollow"));
/// A link that is revoked leaves nothing behind.
const CACHE: &str = "private, no-store";

/// `GET /share/{token}`
#[utoipa::path(
    get, path = "/share/{token}", tag = "Files", operation_id = "follow_share_link", summary = "Get a shared file",
    description = "For whoever has the address. Where the owner counts downloads each answer is one, and gives the whole file; else \
                   `Range` and `If-None-Match` are understood. `HEAD` takes nothing.",
    security(()),
    params(("token" = String, Path, description = "What the link was made with")),
    responses(
        (status = 200, description = "The file, to be saved", body = crate::openapi::Binary, content_type = "*/*"),
        (status = 206, description = "A part of it", body = crate::openapi::Binary, content_type = "*/*"),
        (status = 304, description = "It is what you have"),
        (status = 404, description = "`share_link.not_found`: unknown, expired, used up or revoked", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "`rate.limited`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get(
    State(app): State<App>,
    Path(token): Path<String>,
    method: Method,
    parts: Parts,
) -> Result<Response, Problem> {
    let mut tx = app.db.begin(Scope::platform(Role::File)).await?;
    let shared = match share_link::look(&mut tx, &token).await? {
        Some(shared) if method == Method::HEAD || share_link::take(&mut tx, &token).await? => shared,
        _ => {
            drop(tx);
            limits::take_as_address(&app, &parts, "shares", OF_GUESSES).await?;
            return Err(Problem::not_found(Code::ShareLinkNotFound, "link, or it works no more"));
        }
    };
    let response = answer(&app, &method, &parts.headers, &shared).await?;
    // Only now it counts: a download that could not begin is none.
    tx.commit().await?;
    Ok(response)
}

async fn answer(app: &App, method: &Method, asked: &HeaderMap, shared: &Shared) -> Result<Response, Problem> {
    let Shared { tenant_id, name, mime, blob, is_counted } = shared;
    let nothing = HeaderMap::new();
    let file =
        Download { shelf: crate::app::files(*tenant_id), blob, content_type: mime, save_as: Some(name), cache: CACHE };
    let mut response = file.answer(app, method, if *is_counted { &nothing } else { asked }).await?;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, SANDBOX);
    headers.insert(UNLISTED.0, UNLISTED.1);
    if *is_counted {
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("none"));
    }
    Ok(response)
}
