//! What we know of MP4 ourselves: its clock, and in which order its parts come.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// More top-level boxes than this has no film of ours.
const BOXES: usize = 64;

/// Ticks a second of a video track: a frame lasts a whole number of them.
pub(super) fn timescale(fps: u32) -> u32 {
    fps * 1000
}

/// Whether the index (`moov`) comes before the content (`mdat`), so that playing starts before all of it is loaded.
pub(super) fn is_faststart(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    for _ in 0..BOXES {
        let start = file.stream_position()?;
        let mut header = [0; 16];
        if file.read(&mut header)? < 16 {
            return Ok(false);
        }
        match &header[4..8] {
            b"moov" => return Ok(true),
            b"mdat" => return Ok(false),
            _ => file.seek(SeekFrom::Start(start + box_length(&header)))?,
        };
    }
    Ok(false)
}

/// 32 bits, or 64 behind the name when the 32 say 1. Source: ISO/IEC 14496-12, 4.2.
fn box_length(header: &[u8; 16]) -> u64 {
    let [a, b, c, d, _, _, _, _, long @ ..] = *header;
    match u32::from_be_bytes([a, b, c, d]) {
        1 => u64::from_be_bytes(long),
        short => u64::from(short),
    }
    .max(8)
}
