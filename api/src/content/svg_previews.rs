//! `/v1/templates/{slug}/svg-previews`: pictures traced to SVG, whose colours a browser changes without a render.

use super::templates;
use crate::{
    app::{self, App},
    auth::{Editor, Tenant, Viewer},
    extract::{Json, Path},
    identity::quotas,
    problem::{Code, Problem, ProblemBody},
    render::{download::Download, exports::PRIVATE},
};
use axum::{
    extract::State,
    http::{HeaderMap, Method, StatusCode, header},
    response::Response,
};
use chrono::{DateTime, Utc};
use flatrender_tracer::{TraceError, Traced};
use flatrender_workflows::{
    contracts::storage::BlobRef,
    models::{
        Role, Scope,
        content::{
            project::Template,
            scene,
            svg_preview::{self, NewSvgPreview, PaletteSlot, Source, SvgPreview},
        },
        file_mgr::file::{self, File, NewFile},
    },
};
use futures::{StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::spawn_blocking,
    time::timeout,
};
use utoipa::ToSchema;
use uuid::Uuid;

/// Pictures traced at a time: each takes a core and its memory.
static TRACERS: Semaphore = Semaphore::const_new(MOST_TRACERS);
const MOST_TRACERS: usize = 2;
/// Who waits for longer is told to come again.
const TURN: Duration = Duration::from_secs(2);
/// A picture takes well below a second.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most previews of a template that are shown.
const SHOWN: i64 = 200;
/// Longest name of a colour.
const LABEL_CHARS: usize = 100;
/// Longest name of a file.
const NAME_BYTES: usize = 255;
const ENDING: &str = ".svg";

/// A picture to trace.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPreview {
    /// A picture of yours.
    file_id: Uuid,
    /// The scene that it shows, by its id in the template; the whole template unless said.
    #[schema(example = "title")]
    scene: Option<String>,
}

/// New names of colours.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SlotLabels {
    /// By the id of the slot: 1 to 100 characters, or null for none.
    #[schema(example = json!({"slot-1": "Background"}))]
    labels: BTreeMap<String, Option<String>>,
}

/// A traced picture.
#[derive(Debug, Serialize, ToSchema)]
pub struct SvgPreviewView {
    /// Its id.
    id: Uuid,
    /// Always `svg_preview`.
    #[schema(example = "svg_preview")]
    object: &'static str,
    /// The scene that it shows; none for the whole template.
    scene: Option<String>,
    /// The picture that was traced.
    file_id: Uuid,
    /// Where the SVG is.
    url: String,
    /// Width, in units of its own.
    width: i32,
    /// Height.
    height: i32,
    /// Length of the SVG.
    size_bytes: i32,
    /// Its colours, the one that covers most first.
    slots: Vec<SlotView>,
    /// When it was traced.
    created_at: DateTime<Utc>,
}

/// A colour that can be changed: in a page that has the SVG in itself, by the CSS property `--<id>` of its `<svg>`.
#[derive(Debug, Serialize, ToSchema)]
pub struct SlotView {
    /// Its id.
    #[schema(example = "slot-1")]
    id: String,
    /// What it is unless the property says otherwise.
    #[schema(example = "#1d4ed8")]
    color: String,
    /// How much of the picture it covers, 0 to 1.
    share: f32,
    /// Its name, once somebody gave it one.
    label: Option<String>,
}

/// The traced pictures of a template.
#[derive(Debug, Serialize, ToSchema)]
pub struct SvgPreviews {
    /// The newest first, at most 200.
    data: Vec<SvgPreviewView>,
}

/// `POST /v1/templates/{slug}/svg-previews`: traces a picture. The same picture is traced once.
#[utoipa::path(
    post, path = "/v1/templates/{slug}/svg-previews", tag = "Templates", operation_id = "trace_svg_preview",
    summary = "Trace a picture to SVG",
    description = "An uploaded PNG, JPEG or WebP becomes an SVG of at most eight colours and 512 KiB. A page that has it in itself \
                   changes a colour with the CSS property of its slot, and nothing is rendered for that.",
    params(("slug" = String, Path, pattern = "^[a-z0-9-]{1,64}$", description = "A template of yours", example = "promo")),
    request_body = NewPreview,
    responses(
        (status = 200, description = "It was traced before", body = SvgPreviewView),
        (status = 201, description = "Traced", body = SvgPreviewView),
        (status = 409, description = "`quota.storage`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "`file.too_large`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`svg_preview.untraceable`, `request.invalid`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "`server.unavailable`: too many are traced at this moment", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn create(
    State(app): State<App>,
    Editor(tenant): Editor,
    Path(slug): Path<String>,
    Json(body): Json<NewPreview>,
) -> Result<(StatusCode, Json<SvgPreviewView>), Problem> {
    let template = own(&app, &tenant, &slug).await?;
    let scene_id = scene_id(&app, &tenant, &template, body.scene.as_deref()).await?;
    let picture = picture(&app, &tenant, body.file_id).await?;
    let (project_id, tracer_version) = (template.project_id, flatrender_tracer::VERSION);
    let source = Source { project_id, scene_id, sha256: picture.blob.sha256.as_str(), tracer_version };
    if let Some(id) = known(&app, &tenant, &source).await? {
        return Ok((StatusCode::OK, Json(find(&app, &template, &slug, id).await?)));
    }
    let turn = turn().await?;
    let traced = trace(bytes_of(&app, &tenant, &picture.blob).await?, turn).await?;
    let id = match keep(&app, &tenant, &picture, &source, traced).await? {
        Some(id) => id,
        // Somebody was faster.
        None => known(&app, &tenant, &source).await?.ok_or_else(missing)?,
    };
    Ok((StatusCode::CREATED, Json(find(&app, &template, &slug, id).await?)))
}

/// `GET /v1/templates/{slug}/svg-previews`: what was traced of a template.
#[utoipa::path(
    get, path = "/v1/templates/{slug}/svg-previews", tag = "Templates", operation_id = "list_svg_previews",
    summary = "List traced pictures", description = "Of a template and its scenes.",
    params(("slug" = String, Path, pattern = "^[a-z0-9-]{1,64}$", description = "The template", example = "promo")),
    responses((status = 200, description = "The pictures", body = SvgPreviews))
)]
pub async fn list(
    State(app): State<App>,
    Viewer(tenant): Viewer,
    Path(slug): Path<String>,
) -> Result<Json<SvgPreviews>, Problem> {
    let template = templates::find(&app, &tenant, &slug).await?;
    let found = rows(&app, &template, None).await?;
    Ok(Json(SvgPreviews { data: found.into_iter().map(|row| view(&slug, row)).collect() }))
}

/// `GET /v1/templates/{slug}/svg-previews/{id}/svg`: the SVG itself, in which nothing runs.
#[utoipa::path(
    get, path = "/v1/templates/{slug}/svg-previews/{id}/svg", tag = "Templates", operation_id = "get_svg_preview",
    summary = "See a traced picture", description = "Shapes and colours, and nothing else.",
    params(("slug" = String, Path, pattern = "^[a-z0-9-]{1,64}$", description = "The template", example = "promo"), ("id" = Uuid, Path, description = "The picture")),
    responses(
        (status = 200, description = "The SVG", body = String, content_type = "image/svg+xml"),
        (status = 304, description = "It is what you have"),
        (status = 404, description = "`svg_preview.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn svg(
    State(app): State<App>,
    Viewer(tenant): Viewer,
    Path((slug, id)): Path<(String, Uuid)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let template = templates::find(&app, &tenant, &slug).await?;
    let row = rows(&app, &template, Some(id)).await?.pop().ok_or_else(missing)?;
    let owner = template.tenant_id;
    let mut tx = app.db.begin(Scope::tenant(Role::File, owner)).await?;
    let file = file::find(&mut tx, owner, &[row.svg_file_id]).await?.pop().ok_or_else(missing)?;
    drop(tx);
    let shelf = app::files(owner);
    let svg = Download { shelf, blob: &file.blob, content_type: "image/svg+xml", save_as: None, cache: PRIVATE };
    svg.answer(&app, &method, &headers).await
}

/// `PATCH /v1/templates/{slug}/svg-previews/{id}`: names the colours.
#[utoipa::path(
    patch, path = "/v1/templates/{slug}/svg-previews/{id}", tag = "Templates", operation_id = "name_svg_preview_slots",
    summary = "Name the colours of a traced picture", description = "Slots that are not named stay as they are.",
    params(("slug" = String, Path, pattern = "^[a-z0-9-]{1,64}$", description = "A template of yours", example = "promo"), ("id" = Uuid, Path, description = "The picture")),
    request_body = SlotLabels,
    responses((status = 200, description = "The picture", body = SvgPreviewView))
)]
pub async fn update(
    State(app): State<App>,
    Editor(tenant): Editor,
    Path((slug, id)): Path<(String, Uuid)>,
    Json(body): Json<SlotLabels>,
) -> Result<Json<SvgPreviewView>, Problem> {
    let template = own(&app, &tenant, &slug).await?;
    let row = rows(&app, &template, Some(id)).await?.pop().ok_or_else(missing)?;
    let palette = named(row.palette.0, body.labels)?;
    let mut tx = app.begin(&tenant, Role::Content).await?;
    svg_preview::set_palette(&mut tx, tenant.id, id, &palette).await?;
    tx.commit().await?;
    Ok(Json(find(&app, &template, &slug, id).await?))
}

/// `DELETE /v1/templates/{slug}/svg-previews/{id}`: forgets a traced picture; the one it was traced from stays.
#[utoipa::path(
    delete, path = "/v1/templates/{slug}/svg-previews/{id}", tag = "Templates", operation_id = "remove_svg_preview",
    summary = "Remove a traced picture", description = "The picture that it was traced from stays.",
    params(("slug" = String, Path, pattern = "^[a-z0-9-]{1,64}$", description = "A template of yours", example = "promo"), ("id" = Uuid, Path, description = "The picture")),
    responses((status = 204, description = "It is gone"))
)]
pub async fn remove(
    State(app): State<App>,
    Editor(tenant): Editor,
    Path((slug, id)): Path<(String, Uuid)>,
) -> Result<StatusCode, Problem> {
    let template = own(&app, &tenant, &slug).await?;
    let mut tx = app.begin(&tenant, Role::Content).await?;
    let file_id = svg_preview::delete(&mut tx, tenant.id, template.project_id, id).await?.ok_or_else(missing)?;
    Scope::tenant(Role::File, tenant.id).enter(&mut tx).await?;
    svg_preview::let_go(&mut tx, tenant.id, file_id).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn missing() -> Problem {
    Problem::not_found(Code::SvgPreviewNotFound, "traced picture")
}

/// A template that the tenant may change: its own.
async fn own(app: &App, tenant: &Tenant, slug: &str) -> Result<Template, Problem> {
    let template = templates::find(app, tenant, slug).await?;
    match template.tenant_id == tenant.id {
        true => Ok(template),
        false => Err(Problem::not_found(Code::TemplateNotFound, "template of yours")),
    }
}

async fn scene_id(app: &App, tenant: &Tenant, template: &Template, key: Option<&str>) -> Result<Option<Uuid>, Problem> {
    let Some(key) = key else { return Ok(None) };
    let mut tx = app.begin(tenant, Role::Content).await?;
    let scenes = scene::list(&mut tx, template.version_id).await?;
    let found = scenes.into_iter().find(|scene| scene.key == key);
    found
        .map(|scene| Some(scene.id))
        .ok_or_else(|| Problem::fault("/scene", "scene.unknown", "the template has no such scene"))
}

async fn picture(app: &App, tenant: &Tenant, id: Uuid) -> Result<File, Problem> {
    let mut tx = app.begin(tenant, Role::File).await?;
    let file = file::find(&mut tx, tenant.id, &[id]).await?.pop().ok_or_else(no_picture)?;
    match file.kind == "image" {
        true => Ok(file),
        false => Err(Problem::fault("/file_id", "file.wrong_kind", "the file is no picture")),
    }
}

fn no_picture() -> Problem {
    Problem::fault("/file_id", "file.not_found", "there is no such file of yours")
}

async fn known(app: &App, tenant: &Tenant, source: &Source<'_>) -> Result<Option<Uuid>, Problem> {
    let mut tx = app.begin(tenant, Role::Content).await?;
    Ok(svg_preview::of_source(&mut tx, tenant.id, source).await?)
}

async fn bytes_of(app: &App, tenant: &Tenant, blob: &BlobRef) -> Result<Vec<u8>, Problem> {
    if blob.size_bytes > flatrender_tracer::SOURCE_BYTES as u64 {
        return Err(refusal(&TraceError::TooLarge));
    }
    let body = app.storage.open(&app::files(tenant.id), &blob.sha256, None).await?;
    let gather = |mut bytes: Vec<u8>, chunk: bytes::Bytes| {
        bytes.extend_from_slice(&chunk);
        std::future::ready(Ok(bytes))
    };
    body.stream.try_fold(Vec::new(), gather).await.map_err(|error| Problem::unavailable(&error))
}

/// A turn to trace a picture. Who has none holds no picture in memory.
///
/// # Errors
/// `server.unavailable` when too many pictures are being traced.
async fn turn() -> Result<SemaphorePermit<'static>, Problem> {
    let full = || {
        let again = header::HeaderValue::from_static("5");
        let detail = "other pictures are being traced; try again in a moment";
        Problem::new(Code::Unavailable, detail).with_header(header::RETRY_AFTER, again)
    };
    timeout(TURN, TRACERS.acquire()).await.ok().and_then(Result::ok).ok_or_else(full)
}

async fn trace(picture: Vec<u8>, turn: SemaphorePermit<'static>) -> Result<Traced, Problem> {
    let late = || Problem::new(Code::SvgPreviewUntraceable, "the picture takes too long to be traced");
    let traced = spawn_blocking(move || {
        // One that nobody waits for any more has its turn to its end.
        let _turn = turn;
        flatrender_tracer::trace(&picture)
    });
    let traced = timeout(PATIENCE, traced).await.map_err(|_| late())?;
    let traced = traced.map_err(|panic| Problem::internal(&std::io::Error::other(panic)))?;
    traced.map_err(|error| refusal(&error))
}

fn refusal(error: &TraceError) -> Problem {
    let code = match error {
        TraceError::TooLarge => Code::FileTooLarge,
        _ => Code::SvgPreviewUntraceable,
    };
    Problem::new(code, error.to_string())
}

/// Stores the SVG and writes it down; none when the same was written down meanwhile.
async fn keep(
    app: &App,
    tenant: &Tenant,
    picture: &File,
    source: &Source<'_>,
    traced: Traced,
) -> Result<Option<Uuid>, Problem> {
    let size = [traced.width as i32, traced.height as i32];
    let slot = |slot: &flatrender_tracer::Slot| PaletteSlot {
        id: slot.id.clone(),
        color: slot.color.to_string(),
        share: slot.share,
        label: None,
    };
    let palette: Vec<PaletteSlot> = traced.slots.iter().map(slot).collect();
    let bytes = bytes::Bytes::from(traced.svg);
    let (svg_bytes, limit) = (bytes.len() as i32, bytes.len() as u64);
    let body = futures::stream::once(std::future::ready(Ok(bytes))).boxed();
    let blob = app.storage.put(&app::files(tenant.id), None, body, limit).await?;
    let name = svg_name(&picture.name);
    let row = NewFile {
        name: &name,
        owner_id: None,
        purpose: "preview",
        kind: "image",
        mime: "image/svg+xml",
        blob: &blob,
        width: Some(size[0]),
        height: Some(size[1]),
        duration_ms: None,
    };
    let mut tx = app.begin(tenant, Role::Identity).await?;
    let svg_file_id =
        quotas::within_room(&mut tx, tenant.id, async |db| file::insert(db, tenant.id, &row).await).await?;
    // It took a while to trace.
    if file::find_to_name(&mut tx, tenant.id, &[picture.id]).await?.is_empty() {
        return Err(no_picture());
    }
    Scope::tenant(Role::Content, tenant.id).enter(&mut tx).await?;
    let new =
        NewSvgPreview { source: *source, source_file_id: picture.id, svg_file_id, svg_bytes, palette: &palette, size };
    let id = svg_preview::insert(&mut tx, tenant.id, &new).await?;
    if id.is_some() {
        tx.commit().await?;
    }
    Ok(id)
}

/// What the SVG of a picture is called: as the picture, as far as there is room.
fn svg_name(picture: &str) -> String {
    let room = NAME_BYTES - ENDING.len();
    format!("{}{ENDING}", &picture[..picture.floor_char_boundary(room)])
}

async fn rows(app: &App, template: &Template, id: Option<Uuid>) -> Result<Vec<SvgPreview>, Problem> {
    let mut tx = app.db.begin(Scope::tenant(Role::Content, template.tenant_id)).await?;
    Ok(svg_preview::list(&mut tx, template.tenant_id, template.project_id, id, SHOWN).await?)
}

async fn find(app: &App, template: &Template, slug: &str, id: Uuid) -> Result<SvgPreviewView, Problem> {
    let row = rows(app, template, Some(id)).await?.pop().ok_or_else(missing)?;
    Ok(view(slug, row))
}

fn view(slug: &str, row: SvgPreview) -> SvgPreviewView {
    let slot = |PaletteSlot { id, color, share, label }| SlotView { id, color, share, label };
    SvgPreviewView {
        id: row.id,
        object: "svg_preview",
        scene: row.scene,
        file_id: row.source_file_id,
        url: format!("/v1/templates/{slug}/svg-previews/{}/svg", row.id),
        width: row.width,
        height: row.height,
        size_bytes: row.svg_bytes,
        slots: row.palette.0.into_iter().map(slot).collect(),
        created_at: row.created_at,
    }
}

/// The palette with new names.
fn named(mut palette: Vec<PaletteSlot>, labels: BTreeMap<String, Option<String>>) -> Result<Vec<PaletteSlot>, Problem> {
    for (id, label) in labels {
        let pointer = format!("/labels/{}", id.replace('~', "~0").replace('/', "~1"));
        let slot = palette.iter_mut().find(|slot| slot.id == id);
        let slot =
            slot.ok_or_else(|| Problem::fault(pointer.clone(), "svg_preview.slot", "the picture has no such slot"))?;
        let wrong = |label: &String| {
            !(1..=LABEL_CHARS).contains(&label.trim().chars().count()) || label.chars().any(char::is_control)
        };
        if label.as_ref().is_some_and(wrong) {
            let detail = "a name of a colour has 1 to 100 characters, none of them a control character";
            return Err(Problem::fault(pointer, "svg_preview.label", detail));
        }
        slot.label = label.map(|label| label.trim().to_owned());
    }
    Ok(palette)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_cut_between_characters_where_its_ending_has_no_room() {
        assert_eq!(svg_name("logo.png"), "logo.png.svg");
        assert_eq!(svg_name(&"a".repeat(255)), "a".repeat(251) + ".svg");
        // Two bytes each: the 126th would end beyond the room.
        assert_eq!(svg_name(&"\u{62f}".repeat(127)), "\u{62f}".repeat(125) + ".svg");
    }
}
