//! What kind of file something is, by its first bytes. Names and announced types are never asked.

/// A kind of file that is taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A picture.
    Image(ImageKind),
    /// A sound.
    Audio(AudioKind),
    /// A film.
    Video(VideoKind),
    /// A zip.
    Archive,
}

/// A kind of picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageKind {
    /// Portable Network Graphics.
    Png,
    /// JPEG in its JFIF or Exif form.
    Jpeg,
    /// WebP, of whose animations only the first picture counts.
    Webp,
}

/// A kind of sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AudioKind {
    /// RIFF WAVE.
    Wav,
    /// MPEG layer III, with or without an ID3 tag.
    Mp3,
    /// An MP4 that holds sound only.
    M4a,
    /// AAC with ADTS headers.
    Aac,
    /// Vorbis, Opus or FLAC in Ogg.
    Ogg,
    /// FLAC.
    Flac,
}

/// A kind of film.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VideoKind {
    /// An MP4 that holds pictures.
    Mp4,
    /// QuickTime.
    Mov,
    /// The Matroska of the web.
    Webm,
}

/// How many bytes [`kind`] wants to see.
pub const HEAD_BYTES: usize = 64;

/// The kind of file that begins with `head`; none for everything that is not taken in.
pub fn kind(head: &[u8]) -> Option<Kind> {
    let image = match head {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(ImageKind::Png),
        [0xff, 0xd8, 0xff, ..] => Some(ImageKind::Jpeg),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(ImageKind::Webp),
        _ => None,
    };
    image
        .map(Kind::Image)
        .or_else(|| video(head).map(Kind::Video))
        .or_else(|| archive(head))
        .or_else(|| audio(head).map(Kind::Audio))
}

/// The kind of film that begins with `head`, but for MP4s: whether one holds pictures is not told there.
fn video(head: &[u8]) -> Option<VideoKind> {
    match head {
        [_, _, _, _, b'f', b't', b'y', b'p', b'q', b't', b' ', b' ', ..] => Some(VideoKind::Mov),
        // EBML, whose type of document says `webm` among its first fields. Source: RFC 8794, 11.2.
        [0x1a, 0x45, 0xdf, 0xa3, rest @ ..] if rest.windows(4).any(|w| w == b"webm") => Some(VideoKind::Webm),
        _ => None,
    }
}

fn archive(head: &[u8]) -> Option<Kind> {
    head.starts_with(b"PK\x03\x04").then_some(Kind::Archive)
}

/// The kind of sound that begins with `head`.
pub fn audio(head: &[u8]) -> Option<AudioKind> {
    match head {
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E', ..] => Some(AudioKind::Wav),
        [b'f', b'L', b'a', b'C', ..] => Some(AudioKind::Flac),
        [b'O', b'g', b'g', b'S', 0, ..] => Some(AudioKind::Ogg),
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => Some(AudioKind::M4a),
        [b'I', b'D', b'3', 2..=4, ..] => Some(AudioKind::Mp3),
        [0xff, second, third, ..] => mpeg(*second, *third),
        _ => None,
    }
}

/// The header of an MPEG audio frame behind its first eight ones: three or four more, version, layer, then
/// bit rate and sampling rate. Source: ISO/IEC 11172-3 2.4.1.3, 13818-7 6.2.
fn mpeg(second: u8, third: u8) -> Option<AudioKind> {
    let (version, layer) = ((second >> 3) & 0b11, (second >> 1) & 0b11);
    match layer {
        0b00 if second & 0xf0 == 0xf0 && third >> 2 & 0xf < 13 => Some(AudioKind::Aac),
        0b01 if second & 0xe0 == 0xe0 && version != 0b01 => {
            let (bit_rate, sampling) = (third >> 4, third >> 2 & 0b11);
            (!matches!(bit_rate, 0 | 15) && sampling != 3).then_some(AudioKind::Mp3)
        }
        _ => None,
    }
}

impl AudioKind {
    /// The demuxer of ffmpeg for it, and the only one that may look at it.
    pub fn demuxer(self) -> &'static str {
        match self {
            Self::Wav => "wav",
            Self::Mp3 => "mp3",
            Self::M4a => "mov",
            Self::Aac => "aac",
            Self::Ogg => "ogg",
            Self::Flac => "flac",
        }
    }
}

impl VideoKind {
    /// The demuxer of ffmpeg for it, and the only one that may look at it.
    pub fn demuxer(self) -> &'static str {
        match self {
            Self::Mp4 | Self::Mov => "mov",
            Self::Webm => "matroska",
        }
    }
}

impl Kind {
    /// The media type, as HTTP says it.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Image(ImageKind::Png) => "image/png",
            Self::Image(ImageKind::Jpeg) => "image/jpeg",
            Self::Image(ImageKind::Webp) => "image/webp",
            Self::Audio(AudioKind::Wav) => "audio/wav",
            Self::Audio(AudioKind::Mp3) => "audio/mpeg",
            Self::Audio(AudioKind::M4a) => "audio/mp4",
            Self::Audio(AudioKind::Aac) => "audio/aac",
            Self::Audio(AudioKind::Ogg) => "audio/ogg",
            Self::Audio(AudioKind::Flac) => "audio/flac",
            Self::Video(VideoKind::Mp4) => "video/mp4",
            Self::Video(VideoKind::Mov) => "video/quicktime",
            Self::Video(VideoKind::Webm) => "video/webm",
            Self::Archive => "application/zip",
        }
    }

    /// The usual ending of a file's name, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Image(ImageKind::Png) => "png",
            Self::Image(ImageKind::Jpeg) => "jpg",
            Self::Image(ImageKind::Webp) => "webp",
            Self::Audio(AudioKind::Wav) => "wav",
            Self::Audio(AudioKind::Mp3) => "mp3",
            Self::Audio(AudioKind::M4a) => "m4a",
            Self::Audio(AudioKind::Aac) => "aac",
            Self::Audio(AudioKind::Ogg) => "ogg",
            Self::Audio(AudioKind::Flac) => "flac",
            Self::Video(VideoKind::Mp4) => "mp4",
            Self::Video(VideoKind::Mov) => "mov",
            Self::Video(VideoKind::Webm) => "webm",
            Self::Archive => "zip",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_the_kind() {
        assert_eq!(kind(b"\xff\xfb\x90\x64"), Some(Kind::Audio(AudioKind::Mp3)));
        assert_eq!(kind(b"\xff\xf1\x50\x80"), Some(Kind::Audio(AudioKind::Aac)));
        assert_eq!(kind(b"\0\0\0\x1cftypM4A "), Some(Kind::Audio(AudioKind::M4a)));
        assert_eq!(kind(b"\xff\xd8\xff\xe0"), Some(Kind::Image(ImageKind::Jpeg)));
        assert_eq!(kind(b"\0\0\0\x14ftypqt  "), Some(Kind::Video(VideoKind::Mov)));
        assert_eq!(kind(b"\x1a\x45\xdf\xa3\x9f\x42\x82\x84webm"), Some(Kind::Video(VideoKind::Webm)));
        assert_eq!(kind(b"\x1a\x45\xdf\xa3\x9f\x42\x82\x88matroska"), None, "other Matroska");
        assert_eq!(kind(b"PK\x03\x04"), Some(Kind::Archive));
    }

    #[test]
    fn texts_and_playlists_are_of_no_kind() {
        for head in
            ["", "#EXTM3U\nfile:///", "<svg xmlns=", "PK\x05\x06", "\x1a\x45", "ffconcat version", "GIF89a", "%PDF-1.7"]
        {
            assert_eq!(kind(head.as_bytes()), None, "{head}");
        }
        assert_eq!(kind(b"\xff\xfeh\0i\0"), None, "text in UTF-16");
    }
}
