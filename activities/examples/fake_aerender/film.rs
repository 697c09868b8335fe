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

/// A TIFF of a picture: one uncompressed strip of red, green, blue. Source: "TIFF, Revision 6.0", Aldus.
pub fn tiff(picture: &RgbaImage) -> Vec<u8> {
    let (width, height) = picture.dimensions();
    let pixels: Vec<u8> = picture.pixels().flat_map(|p| [p.0[0], p.0[1], p.0[2]]).collect();
    let directory = 8 + pixels.len().next_multiple_of(2) as u32;
    // Behind the directory: its count, 9 entries of 12 bytes, no other directory.
    let depths = directory + 2 + 9 * 12 + 4;
    const SHORT: u16 = 3;
    const LONG: u16 = 4;
    let entries = [
        (256, LONG, 1, width),
        (257, LONG, 1, height),
        (258, SHORT, 3, depths),
        (259, SHORT, 1, 1),
        (262, SHORT, 1, 2),
        (273, LONG, 1, 8),
        (277, SHORT, 1, 3),
        (278, LONG, 1, height),
        (279, LONG, 1, pixels.len() as u32),
    ];
    let mut bytes = [b"II*\0".as_slice(), &directory.to_le_bytes(), &pixels].concat();
    bytes.resize(directory as usize, 0);
    bytes.extend((entries.len() as u16).to_le_bytes());
    for (tag, kind, count, value) in entries {
        bytes.extend([u16::to_le_bytes(tag), kind.to_le_bytes()].concat());
        bytes.extend(numbers(&[count, value]));
    }
    bytes.extend(numbers(&[0]));
    bytes.extend([8u16, 8, 8].map(u16::to_le_bytes).concat());
    bytes
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
