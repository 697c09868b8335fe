//! The length of a WAV, from its own headers.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// Samples per channel that the file says and has.
pub(super) fn samples(path: &Path) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let size_bytes = file.metadata()?.len();
    file.seek(SeekFrom::Start(12))?;
    let mut frame_bytes = 0;
    loop {
        let mut header = [0; 8];
        file.read_exact(&mut header)?;
        let length = u64::from(u32::from_le_bytes([header[4], header[5], header[6], header[7]]));
        match &header[..4] {
            b"fmt " => frame_bytes = block_align(&mut file, length)?,
            b"data" if frame_bytes > 0 => {
                return Ok(length.min(size_bytes - file.stream_position()?) / frame_bytes);
            }
            _ => drop(file.seek_relative(length as i64 + (length % 2) as i64)?),
        }
    }
}

/// Bytes of one sample of all channels. Source: Multimedia Programming Interface and Data Specifications 1.0.
fn block_align(file: &mut File, length: u64) -> io::Result<u64> {
    let mut format = vec![0; length.clamp(16, 64) as usize];
    file.read_exact(&mut format)?;
    Ok(u64::from(u16::from_le_bytes([format[12], format[13]])))
}
