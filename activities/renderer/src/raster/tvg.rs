//! The only unsafe code of the crate: a thin, owned face over ThorVG's C functions.
//!
//! ThorVG is a rasteriser in C++ (MIT). One [`Canvas`] is one document with its own software canvas; two of
//! them share nothing but what the engine locks itself (its `threads` build).
#![allow(unsafe_code)] // Calls into C; each block says why it holds.

use std::{
    ffi::{CStr, c_char, c_void},
    sync::{Arc, Once},
};

use thorvg_sys as tvg;

use super::Pictures;
use crate::RenderError;

/// Effects' quality on the engine's scale of 0 to 100; 50 is its own default.
pub(crate) type EffectQuality = u8;

/// A loaded document and the buffer it is drawn into.
pub(crate) struct Canvas {
    animation: tvg::Tvg_Animation,
    canvas: tvg::Tvg_Canvas,
    /// The engine holds a pointer into it, so it is never resized.
    buffer: Vec<u32>,
    /// The engine holds a pointer to them, and to the pixels in them.
    _pictures: Arc<Pictures>,
}

impl Canvas {
    /// Loads `document` to be drawn at `width` x `height` pixels.
    pub(crate) fn load(
        document: &[u8],
        pictures: Arc<Pictures>,
        (width, height): (u32, u32),
        quality: EffectQuality,
    ) -> Result<Self, RenderError> {
        start_engine();
        let length = u32::try_from(document.len()).map_err(|_| failed("the document is too large"))?;
        let buffer = vec![0_u32; width as usize * height as usize];
        // SAFETY: both constructors take no pointers; null, which they may answer, is checked below.
        let (animation, canvas) = unsafe {
            (
                tvg::tvg_lottie_animation_new(),
                tvg::tvg_swcanvas_create(tvg::Tvg_Engine_Option::TVG_ENGINE_OPTION_DEFAULT),
            )
        };
        if animation.is_null() || canvas.is_null() {
            return Err(failed("the engine did not start"));
        }
        // From here on `Drop` frees both, whatever fails below.
        let mut this = Self { animation, canvas, buffer, _pictures: pictures };
        let resolver_data = Arc::as_ptr(&this._pictures).cast_mut().cast::<c_void>();
        // SAFETY: `animation` is alive and owns the picture. The document outlives the call and is copied; the
        // resolver's data and the buffer live on the heap, owned by `this`, as long as the canvas does. The
        // buffer has width x height pixels, the stride is the width.
        unsafe {
            let picture = tvg::tvg_animation_get_picture(animation);
            check(tvg::tvg_picture_set_asset_resolver(picture, Some(resolve), resolver_data), "resolver")?;
            let (mime, base) = (c"lottie+json", c"/");
            let bytes = document.as_ptr().cast();
            check(tvg::tvg_picture_load_data(picture, bytes, length, mime.as_ptr(), base.as_ptr(), true), "document")?;
            // The size has the document's shape but for a rounding of its sides, which must not leave a gap.
            check(tvg::tvg_picture_set_size(picture, width as f32, height as f32), "size")?;
            check(tvg::tvg_lottie_animation_set_quality(animation, quality), "quality")?;
            let format = tvg::Tvg_Colorspace::TVG_COLORSPACE_ABGR8888;
            let pixels = this.buffer.as_mut_ptr();
            check(tvg::tvg_swcanvas_set_target(canvas, pixels, width, width, height, format), "target")?;
            check(tvg::tvg_canvas_add(canvas, picture), "canvas")?;
        }
        Ok(this)
    }

    /// Draws frame `frame` (0-based). Pixels by rows, red in the lowest byte, premultiplied by opacity.
    pub(crate) fn draw(&mut self, frame: u32) -> Result<&[u32], RenderError> {
        // SAFETY: both handles are alive, and the buffer that the canvas writes to is borrowed by `self`.
        unsafe {
            match tvg::tvg_animation_set_frame(self.animation, frame as f32) {
                // "Insufficient" means that this frame is the one already set.
                tvg::Tvg_Result::TVG_RESULT_INSUFFICIENT_CONDITION => {}
                other => check(other, "frame")?,
            }
            check(tvg::tvg_canvas_update(self.canvas), "update")?;
            check(tvg::tvg_canvas_draw(self.canvas, true), "draw")?;
            check(tvg::tvg_canvas_sync(self.canvas), "sync")?;
        }
        Ok(&self.buffer)
    }
}

impl Drop for Canvas {
    fn drop(&mut self) {
        // SAFETY: both came from their constructors and are freed once. The canvas goes first: it draws the
        // animation's picture. A picture not yet added is the animation's own to free.
        unsafe {
            tvg::tvg_canvas_destroy(self.canvas);
            tvg::tvg_animation_del(self.animation);
        }
    }
}

/// Called by the engine when a picture is first drawn; hands it the raw pixels by the asset's name.
///
/// # Safety
/// `data` is the pointer given to `tvg_picture_set_asset_resolver`, `source` a string of the engine's.
unsafe extern "C" fn resolve(picture: tvg::Tvg_Paint, source: *const c_char, data: *mut c_void) -> bool {
    // SAFETY: see above; `Canvas` keeps what `data` points to alive, and the pixels with it.
    unsafe {
        let pictures = &*data.cast::<Pictures>();
        let source = CStr::from_ptr(source).to_string_lossy();
        // The engine puts its base folder before the name.
        let name = source.find("picture:").map_or("", |start| &source[start..]);
        let Some(found) = pictures.get(name) else { return false };
        let format = tvg::Tvg_Colorspace::TVG_COLORSPACE_ABGR8888;
        let result =
            tvg::tvg_picture_load_raw(picture, found.pixels.as_ptr(), found.width, found.height, format, false);
        result == tvg::Tvg_Result::TVG_RESULT_SUCCESS
    }
}

/// The engine is started once and never stopped: other canvases may still be drawing.
fn start_engine() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        // SAFETY: called once. No threads of its own (0): ours are enough, and each frame stays reproducible.
        unsafe { tvg::tvg_engine_init(0) };
    });
}

fn check(result: tvg::Tvg_Result, what: &str) -> Result<(), RenderError> {
    match result {
        tvg::Tvg_Result::TVG_RESULT_SUCCESS => Ok(()),
        other => Err(failed(&format!("it did not take the {what} ({other:?})"))),
    }
}

fn failed(reason: &str) -> RenderError {
    RenderError::EngineFailed(format!("rasteriser: {reason}"))
}
