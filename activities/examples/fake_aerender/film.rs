//! Films and other formats that an output module writes when nobody asked for them.

use image::{DynamicImage, ImageFormat, RgbaImage};
use std::io::Cursor;

/// A JPEG of a picture.
pub fn jpeg(picture: &RgbaImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let opaque = DynamicImage::from(picture.clone()).to_rgb8();
    opaque.write_to(&mut bytes, ImageFormat::Jpeg).expect("memory takes any picture");
    bytes.into_inner()
}

/// An AVI of uncompressed pictures, all of one size. Source: "AVI RIFF File Reference", Microsoft.
pub fn avi(pictures: &[RgbaImage], fps: u32) -> Vec<u8> {
    let (width, height) = pictures.first().map_or((1, 1), RgbaImage::dimensions);
    let row_bytes = (width * 3).next_multiple_of(4);
    let frame_bytes = row_bytes * height;
    let count = pictures.len() as u32;
    let main =
        numbers(&[1_000_000 / fps, frame_bytes * fps, 0, 0x10, count, 0, 1, frame_bytes, width, height, 0, 0, 0, 0]);
    let mut stream = b"vidsDIB ".to_vec();
    stream.extend(numbers(&[0, 0, 0, 1, fps, 0, count, frame_bytes, 0, 0, 0, 0]));
    // Size, width, height, one plane of 24 bits, uncompressed.
    let format = numbers(&[40, width, height, 1 | 24 << 16, 0, frame_bytes, 0, 0, 0, 0]);
    let header = list(b"strl", &[chunk(b"strh", &stream), chunk(b"strf", &format)].concat());
    let frames: Vec<u8> = pictures.iter().flat_map(|p| chunk(b"00db", &bottom_up(p, row_bytes))).collect();
    let body = [list(b"hdrl", &[chunk(b"avih", &main), header].concat()), list(b"movi", &frames)].concat();
    chunk(b"RIFF", &[b"AVI ".to_vec(), body].concat())
}

fn bottom_up(picture: &RgbaImage, row_bytes: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for row in picture.rows().rev() {
        let from = bytes.len();
        bytes.extend(row.flat_map(|p| [p.0[2], p.0[1], p.0[0]]));
        bytes.resize(from + row_bytes as usize, 0);
    }
    bytes
}

fn list(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    chunk(b"LIST", &[kind.as_slice(), content].concat())
}

fn chunk(id: &[u8; 4], content: &[u8]) -> Vec<u8> {
    [id.as_slice(), &(content.len() as u32).to_le_bytes(), content].concat()
}

fn numbers(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}
