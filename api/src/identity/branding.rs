//! `/v1/tenant/branding`, what a tenant chooses, and `/v1/branding`, what everybody sees of it.

use super::{
    Steward, account,
    door::{self, Host},
    steward::Change,
};
use crate::{
    app::{self, App},
    auth::Viewer,
    extract::{Json, Path, Query},
    limits,
    problem::{Code, Problem, ProblemBody},
    render::download::Download,
    revision::{IfMatch, Revised},
};
use axum::{
    extract::{FromRequestParts, State},
    http::{HeaderMap, HeaderName, Method, header, request::Parts},
    response::Response,
};
use flatrender_workflows::models::{
    Db, Role, Scope,
    file_mgr::file,
    identity::{
        rate_bucket::OF_AN_ADDRESS,
        tenant,
        tenant_branding::{self, Branding, Look},
    },
};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Longest picture of a brand, in bytes.
const PICTURE_BYTES: u64 = 1024 * 1024;
/// Longest address of a page.
const URL_BYTES: usize = 2048;
/// A change shows within a minute. The answer depends on the host name that was asked.
const A_MINUTE: [(HeaderName, &str); 2] = [(header::CACHE_CONTROL, "public, max-age=60"), (header::VARY, "host")];
/// The address of a picture changes with the picture.
const A_DAY: &str = "public, max-age=86400";

/// What a tenant chose.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BrandingView {
    /// What it calls its product: 1 to 100 characters. The tenant's name until it says.
    #[schema(example = "Acme Studio", min_length = 1, max_length = 100)]
    product_name: String,
    /// A picture of its files, at most 1 MiB.
    logo_file_id: Option<Uuid>,
    /// A small one, at most 1 MiB.
    favicon_file_id: Option<Uuid>,
    /// `#rrggbb`
    #[schema(example = "#0055aa", pattern = "^#[0-9A-Fa-f]{6}$")]
    primary_color: Option<String>,
    /// `#rrggbb`
    #[schema(example = "#ffaa00", pattern = "^#[0-9A-Fa-f]{6}$")]
    accent_color: Option<String>,
    /// Whom people write to; answers to letters go there.
    #[schema(example = "help@acme.example", format = IdnEmail)]
    support_email: Option<String>,
    /// Where people find help; begins with `https://`.
    #[schema(example = "https://acme.example/help", pattern = r"^\s*[Hh][Tt][Tt][Pp][Ss]:[\s\S]+$")]
    support_url: Option<String>,
    /// Stands below letters and pages: at most 4000 characters.
    #[schema(
        example = "Acme Films Ltd, 1 High Street",
        max_length = 4000,
        pattern = r"^[^\u0000-\u0009\u000b-\u001f\u007f-\u009f]*$"
    )]
    legal_footer: Option<String>,
}

impl From<Look> for BrandingView {
    fn from(look: Look) -> Self {
        Self {
            product_name: look.product_name,
            logo_file_id: look.logo_file_id,
            favicon_file_id: look.favicon_file_id,
            primary_color: look.primary_color,
            accent_color: look.accent_color,
            support_email: look.support_email,
            support_url: look.support_url,
            legal_footer: look.legal_footer,
        }
    }
}

fn revised(branding: Branding) -> Revised<BrandingView> {
    Revised::ok(branding.rev, branding.look.into())
}

/// How a tenant looks to everybody.
#[derive(Debug, Serialize, ToSchema)]
pub struct PublicBranding {
    /// Always `branding`.
    #[schema(example = "branding")]
    object: &'static str,
    /// What to name as the organisation when signing in.
    #[schema(example = "acme")]
    tenant: String,
    /// Its language, by BCP 47.
    #[schema(example = "fa")]
    locale: String,
    /// What it calls its product.
    #[schema(example = "Acme Studio")]
    product_name: String,
    /// Where its picture is, on this server.
    #[schema(example = "/v1/branding/acme/logo?v=0199d5a0")]
    logo_url: Option<String>,
    /// Where its small picture is.
    favicon_url: Option<String>,
    /// `#rrggbb`
    #[schema(example = "#0055aa")]
    primary_color: Option<String>,
    /// `#rrggbb`
    #[schema(example = "#ffaa00")]
    accent_color: Option<String>,
    /// Whom people write to.
    #[schema(example = "help@acme.example")]
    support_email: Option<String>,
    /// Where people find help.
    #[schema(example = "https://acme.example/help")]
    support_url: Option<String>,
    /// Stands below pages. Plain text, not markup.
    legal_footer: Option<String>,
}

impl From<Branding> for PublicBranding {
    fn from(Branding { slug, locale, look, .. }: Branding) -> Self {
        Self {
            object: "branding",
            logo_url: address(&slug, "logo", look.logo_file_id),
            favicon_url: address(&slug, "favicon", look.favicon_file_id),
            tenant: slug,
            locale,
            product_name: look.product_name,
            primary_color: look.primary_color,
            accent_color: look.accent_color,
            support_email: look.support_email,
            support_url: look.support_url,
            legal_footer: look.legal_footer,
        }
    }
}

/// Where everybody finds a picture of a brand, on this server. Another picture has another address.
pub(super) fn address(slug: &str, picture: &str, file_id: Option<Uuid>) -> Option<String> {
    file_id.map(|id| format!("/v1/branding/{slug}/{picture}?v={}", id.simple()))
}

/// Whose look.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WhoseBranding {
    /// The organisation, by its slug; when absent, the one whose host name was asked, else the platform's own.
    #[param(example = "acme")]
    pub(super) tenant: Option<String>,
}

/// Anybody, as often as an address may ask.
pub struct Passerby;

impl FromRequestParts<App> for Passerby {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        limits::take_as_address(app, parts, "address", OF_AN_ADDRESS).await.map(|()| Self)
    }
}

/// `GET /v1/tenant/branding`
#[utoipa::path(
    get, path = "/v1/tenant/branding", tag = "Tenant", operation_id = "get_own_branding", summary = "See how your organisation looks",
    description = "What was chosen for its pages and letters.",
    responses((status = 200, description = "What was chosen", body = BrandingView, headers(("ETag" = String, description = "Its revision"))))
)]
pub async fn own(State(app): State<App>, Viewer(caller): Viewer) -> Result<Revised<BrandingView>, Problem> {
    let mut tx = app.begin(&caller, Role::Identity).await?;
    Ok(revised(found(&mut tx, caller.id).await?))
}

/// `PUT /v1/tenant/branding`: what is absent is not chosen any more.
#[utoipa::path(
    put, path = "/v1/tenant/branding", tag = "Tenant", operation_id = "set_own_branding", summary = "Say how your organisation looks",
    description = "All of it at once: what is absent is not chosen any more. Pages and letters show it within a minute.",
    params(("If-Match" = Option<String>, Header, description = "`ETag` of the choice as you know it")), request_body = BrandingView,
    responses(
        (status = 200, description = "What is chosen now", body = BrandingView, headers(("ETag" = String, description = "Its revision"))),
        (status = 412, description = "`revision.stale`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn set(
    State(app): State<App>,
    steward: Steward,
    known: IfMatch,
    Json(body): Json<BrandingView>,
) -> Result<Revised<BrandingView>, Problem> {
    let look = body.check()?;
    let mut tx = steward.begin(&app).await?;
    check_pictures(&mut tx, steward.tenant_id, &look).await?;
    // What is chosen may have no row yet. The tenant has one.
    tenant::hold(&mut tx, steward.tenant_id).await?;
    let before = found(&mut tx, steward.tenant_id).await?;
    known.check(before.rev)?;
    tenant_branding::set(&mut tx, steward.tenant_id, &look).await?;
    let after = found(&mut tx, steward.tenant_id).await?;
    let object = format!("tenant:{}", steward.tenant_id);
    let change = Change { before: Some(&before.look), after: Some(&after.look) };
    steward.record(&mut tx, "branding.set", &object, change).await?;
    tx.commit().await?;
    Ok(revised(after))
}

/// `GET /v1/branding`: for pages that nobody has signed in to yet.
#[utoipa::path(
    get, path = "/v1/branding", tag = "Tenant", operation_id = "get_branding", summary = "See how an organisation looks", security(()),
    description = "For pages before anybody has signed in: by the slug, else by the host name that is asked. A host name counts once it is proven.",
    params(WhoseBranding),
    responses(
        (status = 200, description = "How it looks", body = PublicBranding),
        (status = 404, description = "`tenant.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get(
    State(app): State<App>,
    _: Passerby,
    host: Host,
    Query(query): Query<WhoseBranding>,
) -> Result<([(HeaderName, &'static str); 2], Json<PublicBranding>), Problem> {
    let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
    let tenant = door::entrance(&mut tx, query.tenant.as_deref(), &host).await?.ok_or_else(missing)?;
    Ok((A_MINUTE, Json(found(&mut tx, tenant.id).await?.into())))
}

/// `GET /v1/branding/{slug}/logo`
#[utoipa::path(
    get, path = "/v1/branding/{slug}/logo", tag = "Tenant", operation_id = "get_branding_logo", summary = "See an organisation's picture", security(()),
    description = "As its `logo_url` says: another picture has another address.",
    params(("slug" = String, Path, description = "The organisation", example = "acme")),
    responses(
        (status = 200, description = "The picture", body = crate::openapi::Binary, content_type = "image/png"),
        (status = 304, description = "It is what you have"),
        (status = 404, description = "`tenant.not_found`, `branding.no_picture`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn logo(
    State(app): State<App>,
    _: Passerby,
    Path(slug): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    picture(&app, &slug, |look| look.logo_file_id, &method, &headers).await
}

/// `GET /v1/branding/{slug}/favicon`
#[utoipa::path(
    get, path = "/v1/branding/{slug}/favicon", tag = "Tenant", operation_id = "get_branding_favicon", summary = "See an organisation's small picture", security(()),
    description = "As its `favicon_url` says: another picture has another address.",
    params(("slug" = String, Path, description = "The organisation", example = "acme")),
    responses(
        (status = 200, description = "The picture", body = crate::openapi::Binary, content_type = "image/png"),
        (status = 304, description = "It is what you have"),
        (status = 404, description = "`tenant.not_found`, `branding.no_picture`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn favicon(
    State(app): State<App>,
    _: Passerby,
    Path(slug): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    picture(&app, &slug, |look| look.favicon_file_id, &method, &headers).await
}

async fn picture(
    app: &App,
    slug: &str,
    which: impl FnOnce(&Look) -> Option<Uuid>,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let none = || Problem::not_found(Code::BrandPictureNotFound, "picture");
    let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
    let tenant_id = tenant::entrance(&mut tx, slug).await?.ok_or_else(missing)?.id;
    let id = which(&found(&mut tx, tenant_id).await?.look).ok_or_else(none)?;
    Scope::tenant(Role::File, tenant_id).enter(&mut tx).await?;
    let file = file::find(&mut tx, tenant_id, &[id]).await?.pop().ok_or_else(none)?;
    drop(tx);
    let shelf = app::files(tenant_id);
    Download { shelf, blob: &file.blob, content_type: &file.mime, save_as: None, cache: A_DAY }
        .answer(app, method, headers)
        .await
}

async fn found(db: Db<'_>, tenant_id: Uuid) -> Result<Branding, Problem> {
    tenant_branding::find(db, tenant_id).await?.ok_or_else(missing)
}

fn missing() -> Problem {
    Problem::not_found(Code::TenantNotFound, "tenant")
}

/// The pictures are the tenant's own, and stay until the transaction ends, which goes on as of the identity of the tenant.
async fn check_pictures(db: Db<'_>, tenant_id: Uuid, look: &Look) -> Result<(), Problem> {
    let named = [("/logo_file_id", look.logo_file_id), ("/favicon_file_id", look.favicon_file_id)];
    let ids: Vec<Uuid> = named.iter().filter_map(|(_, id)| *id).collect();
    Scope::tenant(Role::File, tenant_id).enter(&mut *db).await?;
    let files = file::find_to_name(&mut *db, tenant_id, &ids).await?;
    Scope::tenant(Role::Identity, tenant_id).enter(db).await?;
    for (pointer, id) in named {
        let Some(id) = id else { continue };
        let fault = |code, detail: &str| Err(Problem::fault(pointer, code, detail));
        match files.iter().find(|file| file.id == id) {
            None => return fault("file.not_found", "there is no such file of yours"),
            Some(file) if file.kind != "image" => return fault("file.wrong_kind", "the file is no picture"),
            Some(file) if file.blob.size_bytes > PICTURE_BYTES => {
                return fault("branding.picture", "a picture of a brand has at most 1 MiB");
            }
            Some(_) => {}
        }
    }
    Ok(())
}

impl BrandingView {
    fn check(self) -> Result<Look, Problem> {
        let product_name = self.product_name.trim().to_owned();
        if !(1..=100).contains(&product_name.chars().count()) || product_name.chars().any(char::is_control) {
            let detail = "a product's name has 1 to 100 characters, and no control characters";
            return Err(Problem::fault("/product_name", "branding.name", detail));
        }
        let odd = |c: char| c.is_control() && c != '\n';
        if self.legal_footer.as_ref().is_some_and(|text| text.chars().count() > 4000 || text.chars().any(odd)) {
            let detail = "a footer has at most 4000 characters, and no control characters but ends of lines";
            return Err(Problem::fault("/legal_footer", "branding.footer", detail));
        }
        let support_email = self.support_email.map(|text| account::email("/support_email", &text)).transpose()?;
        Ok(Look {
            product_name,
            logo_file_id: self.logo_file_id,
            favicon_file_id: self.favicon_file_id,
            primary_color: color("/primary_color", self.primary_color)?,
            accent_color: color("/accent_color", self.accent_color)?,
            support_email,
            support_url: page("/support_url", self.support_url)?,
            legal_footer: self.legal_footer.filter(|text| !text.trim().is_empty()),
        })
    }
}

fn color(pointer: &str, text: Option<String>) -> Result<Option<String>, Problem> {
    let fine =
        |text: &String| text.len() == 7 && text.starts_with('#') && text[1..].bytes().all(|b| b.is_ascii_hexdigit());
    match text {
        Some(text) if !fine(&text) => Err(Problem::fault(pointer, "color.invalid", "a colour is #rrggbb")),
        text => Ok(text.map(|text| text.to_ascii_lowercase())),
    }
}

/// The address of a page, as a browser reads it.
fn page(pointer: &str, text: Option<String>) -> Result<Option<String>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let url = Url::parse(&text).ok().filter(|url| url.scheme() == "https" && url.host().is_some());
    let url =
        url.filter(|url| url.username().is_empty() && url.password().is_none() && url.as_str().len() <= URL_BYTES);
    let wrong = || Problem::fault(pointer, "url.invalid", "this is no address of a page that begins with https://");
    url.map(|url| Some(url.into())).ok_or_else(wrong)
}
