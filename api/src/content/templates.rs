//! `/v1/templates`

use crate::{
    app::{self, App},
    auth::{Tenant, Viewer},
    extract::{Json, Path},
    problem::{Code, Problem},
    render::download::Download,
};
use axum::{
    extract::State,
    http::{HeaderMap, Method},
    response::Response,
};
use flatrender_workflows::{
    contracts::template::{Manifest, is_slug},
    models::{
        DEFAULT_TENANT, Role,
        content::{
            project::{self, Template},
            scene::{self, Scene},
        },
    },
};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;
use uuid::Uuid;

/// The address stays when a new version has another picture.
const A_MINUTE: &str = "private, max-age=60";

/// A template, in short.
#[derive(Debug, Serialize, ToSchema)]
pub struct TemplateView {
    /// Its name in addresses and orders.
    #[schema(example = "promo")]
    slug: String,
    /// Its id, for whoever manages it.
    project_id: Uuid,
    /// Its current version.
    #[schema(example = 1)]
    version: i32,
    /// For people, by language.
    #[schema(example = json!({"en": "Promo", "fa": "تبلیغ"}))]
    title: BTreeMap<String, String>,
    /// For people, by language.
    description: BTreeMap<String, String>,
    /// Pixels.
    #[schema(example = 1920)]
    width: u32,
    /// Pixels.
    #[schema(example = 1080)]
    height: u32,
    /// Frames a second.
    #[schema(example = 30)]
    fps: u32,
    /// Length when nothing is said of scenes, in frames.
    #[schema(example = 300)]
    frames: u32,
    /// The same in seconds.
    #[schema(example = 10.0)]
    duration_seconds: f64,
    /// A picture of it, PNG; null when there is none.
    preview_url: Option<String>,
}

/// A template with everything a customer may fill in.
#[derive(Debug, Serialize, ToSchema)]
pub struct TemplateDetail {
    #[serde(flatten)]
    view: TemplateView,
    /// Fields with their limits and labels, scenes, colours, themes, sound.
    #[schema(value_type = Object)]
    manifest: Manifest,
    /// The scenes, in order.
    scenes: Vec<SceneView>,
}

/// A scene of a template.
#[derive(Debug, Serialize, ToSchema)]
pub struct SceneView {
    /// Its id.
    id: Uuid,
    /// Its id in orders.
    #[schema(example = "title")]
    key: String,
    /// For people, by language.
    title: BTreeMap<String, String>,
    /// Its length in frames when nothing is said.
    frames: i32,
    /// The frame of it that shows it best.
    still_frame: i32,
    /// A picture that its designer gave it.
    image: Option<String>,
    /// A still that was rendered of it; to be preferred to `image`.
    #[schema(example = "https://films.example/snap/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")]
    snapshot_url: Option<String>,
}

impl From<Scene> for SceneView {
    fn from(scene: Scene) -> Self {
        Self {
            id: scene.id,
            key: scene.key,
            title: scene.title.0,
            frames: scene.frames,
            still_frame: scene.still_frame,
            image: scene.image,
            snapshot_url: scene.snapshot_url,
        }
    }
}

/// All templates.
#[derive(Debug, Serialize, ToSchema)]
pub struct TemplateList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// By slug.
    data: Vec<TemplateView>,
    /// Always false: they come all at once.
    has_more: bool,
}

impl From<&Template> for TemplateView {
    fn from(template: &Template) -> Self {
        let manifest = &template.manifest;
        let lengths: Vec<u32> = manifest.scenes.iter().map(|s| s.frames).collect();
        let frames = manifest.film_frames(&lengths);
        Self {
            slug: manifest.slug.clone(),
            project_id: template.project_id,
            version: template.number,
            title: manifest.title.clone(),
            description: manifest.description.clone(),
            width: manifest.width,
            height: manifest.height,
            fps: manifest.fps,
            frames,
            duration_seconds: f64::from(frames) / f64::from(manifest.fps.max(1)),
            preview_url: template.preview.as_ref().map(|_| format!("/v1/templates/{}/preview", manifest.slug)),
        }
    }
}

/// `GET /v1/templates`: every template the tenant may use.
#[utoipa::path(
    get, path = "/v1/templates", tag = "Templates", operation_id = "list_templates", summary = "List templates",
    description = "Your own and those everybody may use, by slug.",
    responses((status = 200, description = "All of them", body = TemplateList))
)]
pub async fn list(State(app): State<App>, Viewer(tenant): Viewer) -> Result<Json<TemplateList>, Problem> {
    let mut tx = app.begin(&tenant, Role::Content).await?;
    let templates = project::list(&mut tx, tenant.id, DEFAULT_TENANT).await?;
    let data = templates.iter().map(TemplateView::from).collect();
    Ok(Json(TemplateList { object: "list", data, has_more: false }))
}

/// `GET /v1/templates/{slug}`: one template with its manifest.
#[utoipa::path(
    get, path = "/v1/templates/{slug}", tag = "Templates", operation_id = "get_template", summary = "Get a template",
    description = "With its manifest: fields with limits and labels, scenes, colours, themes, sound; and its scenes with their stills.",
    params(("slug" = String, Path, pattern = "^[a-z0-9-]{1,64}$", description = "The template", example = "promo")),
    responses((status = 200, description = "The template", body = TemplateDetail))
)]
pub async fn get(
    State(app): State<App>,
    Viewer(tenant): Viewer,
    Path(slug): Path<String>,
) -> Result<Json<TemplateDetail>, Problem> {
    let template = find(&app, &tenant, &slug).await?;
    let mut tx = app.begin(&tenant, Role::Content).await?;
    let scenes = scene::list(&mut tx, template.version_id).await?.into_iter().map(SceneView::from).collect();
    Ok(Json(TemplateDetail { view: TemplateView::from(&template), manifest: template.manifest, scenes }))
}

/// `GET /v1/templates/{slug}/preview`: a picture of the template.
#[utoipa::path(
    get, path = "/v1/templates/{slug}/preview", tag = "Templates", operation_id = "get_template_preview",
    summary = "See a template", description = "A PNG of a typical frame.",
    params(("slug" = String, Path, pattern = "^[a-z0-9-]{1,64}$", description = "The template", example = "promo")),
    responses(
        (status = 200, description = "The picture", body = crate::openapi::Binary, content_type = "image/png"),
        (status = 304, description = "It is what you have")
    )
)]
pub async fn preview(
    State(app): State<App>,
    Viewer(tenant): Viewer,
    Path(slug): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let template = find(&app, &tenant, &slug).await?;
    let owner = app::files(template.tenant_id);
    let picture = template.preview.ok_or_else(|| Problem::not_found(Code::PreviewNotFound, "picture"))?;
    let picture = Download { shelf: owner, blob: &picture, content_type: "image/png", save_as: None, cache: A_MINUTE };
    picture.answer(&app, &method, &headers).await
}

/// The template that a tenant sees under this name: its own, or one that is shared with all.
///
/// # Errors
/// `template.not_found`
pub(super) async fn find(app: &App, tenant: &Tenant, slug: &str) -> Result<Template, Problem> {
    let mut tx = app.begin(tenant, Role::Content).await?;
    let found = match is_slug(slug) {
        true => project::find(&mut tx, tenant.id, DEFAULT_TENANT, slug, None).await?,
        false => None,
    };
    found.ok_or_else(|| Problem::not_found(Code::TemplateNotFound, "template"))
}
