//! `GET /v1/renders/{id}/last-frame`: what a render under way looks like.

use crate::{
    app::App,
    auth::Viewer,
    extract::Path,
    problem::{Code, Problem},
};
use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use flatrender_workflows::{
    contracts::{
        render::FrameRef,
        storage::{BlobHash, Shelf, StorageError},
    },
    models::{
        Role,
        render::{render_job, stored_frame},
        scope::Scoped,
    },
};
use futures::TryStreamExt;
use image::{DynamicImage, ImageFormat, RgbImage, imageops::FilterType};
use std::{
    collections::VecDeque,
    io::Cursor,
    sync::{Mutex, PoisonError},
};
use tokio::sync::Semaphore;
use uuid::Uuid;

/// Longest side of the picture, in pixels.
const SIDE: u32 = 480;
/// Longest frame that is looked at: what is decoded here is decoded beside everything else that is asked for.
const LIMIT_BYTES: u64 = 64_000_000;
/// Pictures that are kept: many may look at the same.
const KEPT: usize = 256;
/// Pictures that are made at a time.
const AT_A_TIME: usize = 2;
/// The next frame may be there in a moment.
const CACHE: &str = "private, max-age=1";

/// Pictures that were made last, by the hash of their frame.
#[derive(Debug)]
pub struct LastFrames {
    made: Mutex<VecDeque<(BlobHash, Bytes)>>,
    turns: Semaphore,
}

impl Default for LastFrames {
    fn default() -> Self {
        Self { made: Mutex::default(), turns: Semaphore::new(AT_A_TIME) }
    }
}

impl LastFrames {
    fn known(&self, hash: &BlobHash) -> Option<Bytes> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.iter().find(|(h, _)| h == hash).map(|(_, jpeg)| jpeg.clone())
    }

    fn keep(&self, hash: BlobHash, jpeg: Bytes) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.push_back((hash, jpeg));
        if made.len() > KEPT {
            made.pop_front();
        }
    }
}

/// `GET /v1/renders/{id}/last-frame`: a small picture of the frame that was rendered last.
#[utoipa::path(
    get, path = "/v1/renders/{id}/last-frame", tag = "Renders", operation_id = "get_last_frame", summary = "See the last rendered frame",
    description = "A small JPEG of the frame that a node has stored last, while the render is under way. `ETag` changes with the frame; \
                   each event of the render names this address once there is something to see.",
    params(("id" = Uuid, Path, description = "The render")),
    responses(
        (status = 200, description = "The picture", body = crate::openapi::Binary, content_type = "image/jpeg"),
        (status = 304, description = "The client has it already"),
        (status = 404, description = "`render.not_found`; `render.no_frame` before the first frame and after the end",
         body = crate::problem::ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get(
    State(app): State<App>,
    Viewer(tenant): Viewer,
    Path(id): Path<Uuid>,
    asked: HeaderMap,
) -> Result<Response, Problem> {
    let mut tx = app.begin(&tenant, Role::Render).await?;
    let job = render_job::find(&mut tx, tenant.id, id).await?;
    job.ok_or_else(|| Problem::not_found(Code::RenderNotFound, "render"))?;
    answer(&app, tx, tenant.id, id, &asked).await
}

/// The picture of a film's last frame, for who was asked for it.
///
/// # Errors
/// `render.no_frame`
pub async fn answer(
    app: &App,
    mut tx: Scoped,
    tenant_id: Uuid,
    id: Uuid,
    asked: &HeaderMap,
) -> Result<Response, Problem> {
    let newest = stored_frame::newest(&mut tx, id).await?;
    drop(tx);
    let (frame, stored_at) = newest.ok_or_else(none)?;
    let etag = format!("\"{}-{}\"", frame.frame, &frame.blob.sha256.as_str()[..16]);
    let modified = stored_at.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let kept = [(header::ETAG, etag.clone()), (header::CACHE_CONTROL, CACHE.into()), (header::LAST_MODIFIED, modified)];
    if asked.get(header::IF_NONE_MATCH).is_some_and(|seen| seen.as_bytes() == etag.as_bytes()) {
        return Ok((StatusCode::NOT_MODIFIED, kept).into_response());
    }
    let jpeg = picture(app, Shelf::Render { tenant_id, render_id: id }, &frame).await?;
    let content = [(header::CONTENT_TYPE, HeaderValue::from_static("image/jpeg"))];
    Ok((kept, content, jpeg).into_response())
}

/// The frame, small. Made once, however many ask for it.
async fn picture(app: &App, shelf: Shelf, frame: &FrameRef) -> Result<Bytes, Problem> {
    let hash = &frame.blob.sha256;
    if let Some(jpeg) = app.last_frames.known(hash) {
        return Ok(jpeg);
    }
    let _turn = app.last_frames.turns.acquire().await.map_err(|e| Problem::internal(&e))?;
    if let Some(jpeg) = app.last_frames.known(hash) {
        return Ok(jpeg);
    }
    let png = match app.storage.open(&shelf, hash, None).await {
        Ok(body) if body.size_bytes <= LIMIT_BYTES => body,
        Ok(_) | Err(StorageError::NotFound(_)) => return Err(none()),
        Err(error) => return Err(error.into()),
    };
    let png: Vec<Bytes> = png.stream.try_collect().await.map_err(|e| Problem::internal(&e))?;
    let jpeg = tokio::task::spawn_blocking(move || shrink(&png.concat())).await.map_err(|e| Problem::internal(&e))?;
    // One that does not decode is repaired soon.
    let jpeg = jpeg.ok_or_else(none)?;
    app.last_frames.keep(hash.clone(), jpeg.clone());
    Ok(jpeg)
}

/// A frame as a small JPEG; clear pixels on black, as in the film.
fn shrink(png: &[u8]) -> Option<Bytes> {
    let picture = image::load_from_memory_with_format(png, ImageFormat::Png).ok()?.into_rgba8();
    let small = DynamicImage::from(picture).resize(SIDE, SIDE, FilterType::Triangle).into_rgba8();
    let shade = |c: u8, alpha: u8| (u16::from(c) * u16::from(alpha) / 255) as u8;
    let flat = RgbImage::from_fn(small.width(), small.height(), |x, y| {
        let [r, g, b, a] = small.get_pixel(x, y).0;
        image::Rgb([shade(r, a), shade(g, a), shade(b, a)])
    });
    let mut jpeg = Cursor::new(vec![]);
    flat.write_to(&mut jpeg, ImageFormat::Jpeg).ok()?;
    Some(jpeg.into_inner().into())
}

fn none() -> Problem {
    Problem::new(Code::RenderNoFrame, "no frame of the render is there to be seen")
}
