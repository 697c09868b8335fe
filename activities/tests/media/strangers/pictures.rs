//! Pictures that are too large, something else as well, or carry along what nobody is to get; and drawings, which are no pictures here.

use super::{Yard, inspector, peak_bytes};
use flatrender_activities::media::{
    sniff::ImageKind,
    upload::{Upload, UploadError},
};
use image::{
    DynamicImage, ExtendedColorType, ImageEncoder as _, ImageFormat, Rgb, RgbImage, RgbaImage,
    codecs::{jpeg::JpegEncoder, png::PngEncoder, webp::WebPEncoder},
};
use std::{io::Cursor, time::Duration};

/// What must not be in anything that is kept.
const PAYLOAD: &[u8] = b"<script>alert('FLATRENDER')</script>";

fn picture() -> DynamicImage {
    RgbImage::from_fn(60, 40, |x, y| Rgb([(x * 4) as u8, (y * 6) as u8, (x * y % 251) as u8])).into()
}

fn encoded(format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(vec![]);
    picture().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

const FORMATS: [ImageFormat; 3] = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP];

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

fn png_chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [&kind[..], data].concat();
    [&(data.len() as u32).to_be_bytes()[..], &body, &crc(&body).to_be_bytes()].concat()
}

/// A PNG with a chunk right after its header.
fn png_with(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut bytes = encoded(ImageFormat::Png);
    bytes.splice(33..33, png_chunk(kind, data));
    bytes
}

/// A JPEG with a segment right after its beginning.
fn jpeg_with(marker: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = encoded(ImageFormat::Jpeg);
    let segment = [&[0xff, marker][..], &(data.len() as u16 + 2).to_be_bytes(), data].concat();
    bytes.splice(2..2, segment);
    bytes
}

/// EXIF that says how the camera was held, and more.
fn exif(orientation: u16) -> Vec<u8> {
    let mut tiff = b"MM\0*\0\0\0\x08\0\x02".to_vec();
    tiff.extend(b"\x01\x12\0\x03\0\0\0\x01");
    tiff.extend(orientation.to_be_bytes());
    tiff.extend(b"\0\0");
    tiff.extend(b"\x01\x0e\0\x02");
    tiff.extend((PAYLOAD.len() as u32).to_be_bytes());
    tiff.extend(38u32.to_be_bytes());
    tiff.extend(b"\0\0\0\0");
    tiff.extend(PAYLOAD);
    tiff
}

fn sized_png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = encoded(ImageFormat::Png);
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let sum = crc(&bytes[12..29]).to_be_bytes();
    bytes[29..33].copy_from_slice(&sum);
    bytes
}

fn sized_jpeg(width: u16, height: u16) -> Vec<u8> {
    let mut bytes = encoded(ImageFormat::Jpeg);
    let frame = bytes.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    bytes[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    bytes[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    bytes
}

/// A lossless WebP whose header says 16,384 to a side.
fn sized_webp() -> Vec<u8> {
    let mut bytes = encoded(ImageFormat::WebP);
    let header = bytes.windows(4).position(|w| w == b"VP8L").unwrap() + 9;
    bytes[header..header + 4].copy_from_slice(&0x0fff_ffffu32.to_le_bytes());
    bytes
}

/// Pictures of strangers with a word on each.
fn odd() -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> = vec![];
    let mut push = |what: String, bytes: Vec<u8>| all.push((what, bytes));
    for (w, h) in
        [(50_000, 50_000), (u32::MAX >> 1, 1), (1, 20_000), (16_385, 8), (0, 40), (16_000, 16_000), (8_000, 8_000)]
    {
        push(format!("PNG of {w}×{h}"), sized_png(w, h));
    }
    for (w, h) in [(65_535, 65_535), (65_500, 10), (0, 40), (9_000, 9_000), (60, 39), (61, 41)] {
        push(format!("JPEG of {w}×{h}"), sized_jpeg(w, h));
    }
    push("WebP of 16384×16384".into(), sized_webp());
    for format in FORMATS {
        let whole = encoded(format);
        for tail in [
            PAYLOAD,
            b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            b"\n<?php system($_GET[0]); ?>",
            b"%PDF-1.7\n",
            b"#EXTM3U\nfile:///etc/passwd\n",
        ] {
            push(format!("{format:?} and {}", String::from_utf8_lossy(&tail[..4])), [&whole, tail, PAYLOAD].concat());
        }
        for cut in [8, 20, 40, whole.len() / 3, whole.len() / 2, whole.len() - 9] {
            push(format!("{format:?} cut at {cut}"), whole[..cut].to_vec());
        }
        for at in [12, 25, 45, whole.len() / 2] {
            let mut broken = whole.clone();
            broken[at] ^= 0xff;
            push(format!("{format:?} broken at {at}"), broken);
        }
    }
    for kind in [b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"prVt", b"iCCP", b"acTL", b"tIME"] {
        push(format!("PNG with {}", String::from_utf8_lossy(kind)), png_with(kind, &[b"x\0", PAYLOAD].concat()));
    }
    push("PNG with EXIF".into(), png_with(b"eXIf", &exif(1)));
    for marker in [0xe0, 0xe1, 0xe2, 0xed, 0xee, 0xef, 0xfe] {
        let heads: [&[u8]; 4] = [b"", b"Exif\0\0", b"ICC_PROFILE\0\x01\x01", b"http://ns.adobe.com/xap/1.0/\0"];
        for head in heads {
            push(format!("JPEG with {marker:x} {}", head.len()), jpeg_with(marker, &[head, PAYLOAD].concat()));
        }
    }
    let others: [&[u8]; 12] = [
        b"GIF89a\x01\0\x01\0\0\0\0;",
        b"BM\x1e\0\0\0",
        b"II*\0\x08\0\0\0",
        b"MM\0*\0\0\0\x08",
        b"\0\0\x01\0\x01\0\x10\x10",
        b"8BPS\0\x01",
        b"%PDF-1.7",
        b"\0\0\0\x0cjP  \r\n\x87\n",
        b"RIFF\x04\0\0\0AVI ",
        b"<html><img>",
        b"\x89PNG\n",
        b"qoif\0\0\0\x01",
    ];
    for other in others {
        push(format!("{}", String::from_utf8_lossy(other)), [other, PAYLOAD].concat());
    }
    all
}

/// What a picture takes in memory is judged by its header, depth and all, before a pixel is decoded.
#[tokio::test]
async fn m32_a_deep_picture_is_judged_by_its_depth() {
    let (yard, inspector) = (Yard::new(), inspector("ffprobe".into()));
    let path = yard.jail().join("deep.png");
    let before = peak_bytes();
    for (side, depth, colours) in [(7000u32, 16u8, 6u8), (6500, 16, 2), (7000, 16, 4)] {
        let mut bytes = sized_png(side, side);
        (bytes[24], bytes[25]) = (depth, colours);
        let sum = crc(&bytes[12..29]).to_be_bytes();
        bytes[29..33].copy_from_slice(&sum);
        std::fs::write(&path, &bytes).unwrap();
        let refused = inspector.inspect(&path).await;
        let heavy = u64::from(side)
            * u64::from(side)
            * u64::from(match colours {
                6 => 8,
                2 => 6,
                _ => 4u8,
            })
            > 256 << 20;
        match refused {
            Err(UploadError::TooLarge { .. }) => assert!(heavy, "{side} {colours}"),
            Err(UploadError::Corrupt) => assert!(!heavy, "{side} {colours}"),
            other => panic!("{side} {colours}: {other:?}"),
        }
        assert!(!heavy || peak_bytes() < before + (64 << 20), "{side} {colours}: nothing was decoded");
    }
    let deep = DynamicImage::ImageRgba16(picture().to_rgba16());
    deep.save_with_format(&path, ImageFormat::Png).unwrap();
    assert!(matches!(inspector.inspect(&path).await, Ok(Upload::Image { .. })), "a small one is kept");
}

#[tokio::test]
async fn m32_of_a_picture_only_its_pixels_are_kept() {
    let odd = odd();
    assert!(odd.len() >= 100, "{}", odd.len());
    let (yard, inspector) = (Yard::new(), inspector("ffprobe".into()));
    let mut kept = 0;
    for (what, bytes) in &odd {
        let path = yard.jail().join("picture");
        std::fs::write(&path, bytes).unwrap();
        match inspector.inspect(&path).await {
            Ok(Upload::Image { kind, size }) => {
                let ours = std::fs::read(&path).unwrap();
                let format = image::guess_format(&ours).unwrap();
                let decoded = image::load_from_memory_with_format(&ours, format).unwrap();
                assert_eq!([decoded.width(), decoded.height()], size, "{what}");
                let fits = matches!(
                    (kind, format),
                    (ImageKind::Png, ImageFormat::Png)
                        | (ImageKind::Jpeg, ImageFormat::Jpeg)
                        | (ImageKind::Webp, ImageFormat::WebP)
                );
                assert!(fits, "{what}: {format:?}");
                for secret in [PAYLOAD, b"Exif", b"ICC", b"<?php", b"PK\x05\x06", b"http", b"tEXt", b"eXIf"] {
                    assert!(!ours.windows(secret.len()).any(|w| w == secret), "{what} keeps {secret:?}");
                }
                kept += 1;
            }
            Ok(other) => panic!("{what}: {other:?}"),
            Err(UploadError::Unchecked(why)) => panic!("{what}: {why}"),
            Err(_) => assert_eq!(std::fs::read(&path).unwrap(), *bytes, "{what}: refused, and yet changed"),
        }
        let left: Vec<_> = std::fs::read_dir(yard.jail()).unwrap().collect();
        assert_eq!(left.len(), 1, "{what}: {left:?}");
    }
    assert!(kept >= 30, "{kept}: the others are refused");
    yard.is_as_before(Duration::from_secs(15));
    assert!(peak_bytes() < 512 << 20, "{}", peak_bytes());
}

#[tokio::test]
async fn m32_a_picture_is_kept_as_it_was_held() {
    let (yard, inspector) = (Yard::new(), inspector("ffprobe".into()));
    let path = yard.jail().join("picture");
    for (orientation, size) in [(1, [60, 40]), (3, [60, 40]), (6, [40, 60]), (8, [40, 60])] {
        std::fs::write(&path, jpeg_with(0xe1, &[&b"Exif\0\0"[..], &exif(orientation)].concat())).unwrap();
        let found = inspector.inspect(&path).await.unwrap();
        assert_eq!(found, Upload::Image { kind: ImageKind::Jpeg, size }, "{orientation}");
    }
    // The corner that was at the top on the left is at the top on the right when the camera lay on its left side.
    std::fs::write(&path, png_with(b"eXIf", &exif(6))).unwrap();
    inspector.inspect(&path).await.unwrap();
    let before = picture().to_rgb8();
    let after = image::load_from_memory(&std::fs::read(&path).unwrap()).unwrap().to_rgb8();
    assert_eq!(after.get_pixel(39, 0), before.get_pixel(0, 0));
    assert_eq!(after.get_pixel(0, 59), before.get_pixel(59, 39));
}

#[tokio::test]
async fn m32_colours_of_another_profile_become_those_of_srgb() {
    let (yard, inspector) = (Yard::new(), inspector("ffprobe".into()));
    let path = yard.jail().join("picture");
    let profile = moxcms::ColorProfile::new_display_p3().encode().unwrap();
    let green = RgbaImage::from_pixel(8, 8, image::Rgba([60, 200, 60, 128]));
    let mut bytes = vec![];
    let mut encoder = PngEncoder::new(&mut bytes);
    encoder.set_icc_profile(profile).unwrap();
    encoder.write_image(&green, 8, 8, ExtendedColorType::Rgba8).unwrap();
    std::fs::write(&path, bytes).unwrap();
    inspector.inspect(&path).await.unwrap();
    let ours = image::load_from_memory(&std::fs::read(&path).unwrap()).unwrap().to_rgba8();
    let [red, green, blue, alpha] = ours.get_pixel(4, 4).0;
    // The green of Display P3 is beyond that of sRGB, which has to go without red for it.
    assert!(red < 50 && green > 200 && blue < 60 && alpha == 128, "{red} {green} {blue} {alpha}");
}

/// What can be kept as it is stays what it was: depth, transparency, grey.
#[tokio::test]
async fn m32_pixels_stay_what_they_were() {
    let (yard, inspector) = (Yard::new(), inspector("ffprobe".into()));
    let path = yard.jail().join("picture");
    let deep =
        DynamicImage::ImageRgb16(image::ImageBuffer::from_fn(9, 7, |x, y| Rgb([x as u16 * 7000, y as u16 * 9000, 3])));
    let clear = DynamicImage::from(RgbaImage::from_fn(9, 7, |x, y| image::Rgba([x as u8, y as u8, 9, (x * 20) as u8])));
    let grey = DynamicImage::from(image::GrayImage::from_fn(9, 7, |x, y| image::Luma([(x * y) as u8])));
    for picture in [deep, clear.clone(), grey] {
        let mut bytes = Cursor::new(vec![]);
        picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
        std::fs::write(&path, bytes.into_inner()).unwrap();
        inspector.inspect(&path).await.unwrap();
        assert_eq!(image::load_from_memory(&std::fs::read(&path).unwrap()).unwrap(), picture);
    }
    let mut bytes = vec![];
    WebPEncoder::new_lossless(&mut bytes).write_image(clear.as_bytes(), 9, 7, ExtendedColorType::Rgba8).unwrap();
    std::fs::write(&path, bytes).unwrap();
    inspector.inspect(&path).await.unwrap();
    assert_eq!(image::load_from_memory(&std::fs::read(&path).unwrap()).unwrap(), clear);
    // Of a JPEG another generation is not seen.
    let before = picture().to_rgb8();
    let mut bytes = vec![];
    JpegEncoder::new_with_quality(&mut bytes, 90).encode_image(&before).unwrap();
    let first = image::load_from_memory(&bytes).unwrap().to_rgb8();
    std::fs::write(&path, bytes).unwrap();
    inspector.inspect(&path).await.unwrap();
    let ours = image::load_from_memory(&std::fs::read(&path).unwrap()).unwrap().to_rgb8();
    let worst = first.iter().zip(ours.iter()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(worst <= 24, "{worst}");
}

/// Drawings of a stranger are taken in nowhere: each is refused by its first bytes, and nothing it names is asked for.
#[tokio::test]
async fn m31_no_drawing_is_taken_in() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let at = listener.local_addr().unwrap();
    let heads = [
        "",
        "<?xml version=\"1.0\"?>",
        "\u{feff}",
        " \n\t",
        "<!-- -->",
        &format!("<!DOCTYPE svg [<!ENTITY x SYSTEM \"http://{at}/\">]>"),
        "<!DOCTYPE svg [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;&a;\">]>",
        &format!("<?xml-stylesheet href=\"http://{at}/\"?>"),
    ];
    let bodies = [
        "<script>alert(1)</script>".to_owned(),
        format!("<script href=\"http://{at}/\"/>"),
        "<a href=\"javascript:alert(1)\"><rect width=\"9\" height=\"9\"/></a>".to_owned(),
        "<rect onload=\"alert(1)\" onclick=\"alert(1)\"/>".to_owned(),
        "<foreignObject><iframe src=\"javascript:alert(1)\"/></foreignObject>".to_owned(),
        format!("<image href=\"http://{at}/a.png\"/>"),
        "<image href=\"file:///etc/passwd\"/>".to_owned(),
        format!("<style>@import url(http://{at}/); rect {{ fill: url(http://{at}/#a) }}</style>"),
        format!("<use href=\"http://{at}/#a\"/>"),
        "<g id=\"a\"><use href=\"#a\"/></g>".to_owned(),
        (0..50).map(|n| format!("<g id=\"g{}\"><use href=\"#g{n}\"/><use href=\"#g{n}\"/></g>", n + 1)).collect(),
        "<g>".repeat(5000),
        "<filter id=\"f\"><feGaussianBlur stdDeviation=\"1e9\"/></filter><rect filter=\"url(#f)\"/>".to_owned(),
        "<rect width=\"1e9\" height=\"1e9\"/>".to_owned(),
        "<animate attributeName=\"href\" to=\"javascript:alert(1)\"/>".to_owned(),
        "<set attributeName=\"onmouseover\" to=\"alert(1)\"/>".to_owned(),
        "<handler type=\"application/ecmascript\">alert(1)</handler>".to_owned(),
        "<text>&x;&b;</text>".to_owned(),
        format!("<font-face><font-face-src><font-face-uri href=\"http://{at}/\"/></font-face-src></font-face>"),
        "<metadata>".to_owned() + &"x".repeat(100_000),
        "<path d=\"".to_owned() + &"M0 0L9 9".repeat(20_000) + "\"/>",
        "<svg><svg><svg/></svg></svg>".to_owned(),
        "<iframe src=\"data:text/html,<script>alert(1)</script>\"/>".to_owned(),
        "<embed src=\"//evil.example/\"/>".to_owned(),
        "<![CDATA[<script>alert(1)</script>]]>".to_owned(),
    ];
    let (yard, inspector) = (Yard::new(), inspector("ffprobe".into()));
    let path = yard.jail().join("logo.svg");
    let mut tried = 0;
    for head in &heads {
        for body in &bodies {
            let svg = format!(
                "{head}<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1000000000\" height=\"9\">{body}</svg>"
            );
            std::fs::write(&path, svg).unwrap();
            let refused = inspector.inspect(&path).await;
            assert!(matches!(refused, Err(UploadError::UnsupportedType)), "{head} {body}: {refused:?}");
            tried += 1;
        }
    }
    assert!(tried >= 200, "{tried}");
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "somebody asked");
    yard.is_as_before(Duration::from_secs(5));
}
