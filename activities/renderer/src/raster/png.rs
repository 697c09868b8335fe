//! PNG files: straight alpha; without an alpha channel when the frame has no clear pixel.

use std::{fs::File, io::Write, path::PathBuf, sync::Arc};

use png::{BitDepth, ColorType, Compression, Encoder};

use super::Frame;
use crate::RenderError;

/// Writes each frame into a file of its own.
pub struct PngFolder {
    name: Arc<dyn Fn(u32) -> PathBuf + Send + Sync>,
    bytes: Vec<u8>,
    file: Vec<u8>,
}

impl PngFolder {
    /// A sink that writes frame `n` to `name(n)`, in place: a file is whole once its frame is reported.
    pub fn new(name: Arc<dyn Fn(u32) -> PathBuf + Send + Sync>) -> Self {
        Self { name, bytes: vec![], file: vec![] }
    }

    /// Writes one frame.
    ///
    /// # Errors
    /// `render.disk_full`, or `render.output_unwritable` for whatever else the file system says.
    pub fn write(&mut self, frame: &Frame<'_>) -> Result<(), RenderError> {
        self.encode(frame)?;
        let path = (self.name)(frame.number);
        File::create(&path)
            .and_then(|mut file| file.write_all(&self.file))
            .map_err(|error| RenderError::writing(&path, error))
    }

    fn encode(&mut self, frame: &Frame<'_>) -> Result<(), RenderError> {
        let color = pack(frame.pixels, &mut self.bytes);
        self.file.clear();
        let mut encoder = Encoder::new(&mut self.file, frame.width, frame.height);
        encoder.set_color(color);
        encoder.set_depth(BitDepth::Eight);
        encoder.set_compression(Compression::Fast);
        let written = encoder.write_header().and_then(|mut writer| {
            writer.write_image_data(&self.bytes)?;
            writer.finish()
        });
        written.map_err(|error| RenderError::EngineFailed(format!("cannot encode frame {}: {error}", frame.number)))
    }
}

/// The bytes of one frame's PNG file.
///
/// # Errors
/// `render.engine_failed`, if the encoder refuses the frame.
pub fn encode_png(frame: &Frame<'_>) -> Result<Vec<u8>, RenderError> {
    let mut folder = PngFolder::new(Arc::new(|_| PathBuf::new()));
    folder.encode(frame)?;
    Ok(folder.file)
}

/// Packs pixels as a PNG wants them.
fn pack(pixels: &[u32], bytes: &mut Vec<u8>) -> ColorType {
    bytes.clear();
    let opaque = pixels.iter().fold(u32::MAX, |all, pixel| all & pixel) >> 24 == 255;
    if opaque {
        bytes.resize(pixels.len() * 3, 0);
        for (bytes, pixel) in bytes.chunks_exact_mut(3).zip(pixels) {
            bytes.copy_from_slice(&pixel.to_le_bytes()[..3]);
        }
        return ColorType::Rgb;
    }
    bytes.resize(pixels.len() * 4, 0);
    for (bytes, pixel) in bytes.chunks_exact_mut(4).zip(pixels) {
        bytes.copy_from_slice(&straight(*pixel));
    }
    ColorType::Rgba
}

/// Takes the opacity out of the colours.
fn straight(pixel: u32) -> [u8; 4] {
    let [r, g, b, a] = pixel.to_le_bytes();
    let divide = |channel: u8| match a {
        0 => 0,
        255 => channel,
        _ => ((u32::from(channel) * 255 + u32::from(a) / 2) / u32::from(a)).min(255) as u8,
    };
    [divide(r), divide(g), divide(b), a]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(pixels: &[[u8; 4]]) -> (ColorType, Vec<u8>) {
        let pixels: Vec<u32> = pixels.iter().map(|pixel| u32::from_le_bytes(*pixel)).collect();
        let mut bytes = vec![];
        (pack(&pixels, &mut bytes), bytes)
    }

    #[test]
    fn an_opaque_frame_has_no_alpha_channel() {
        assert_eq!(packed(&[[1, 2, 3, 255], [4, 5, 6, 255]]), (ColorType::Rgb, vec![1, 2, 3, 4, 5, 6]));
    }

    #[test]
    fn alpha_is_straight() {
        let (color, bytes) = packed(&[[64, 0, 0, 128], [9, 9, 9, 255], [0, 0, 0, 0]]);
        assert_eq!((color, bytes), (ColorType::Rgba, vec![128, 0, 0, 128, 9, 9, 9, 255, 0, 0, 0, 0]));
    }
}
