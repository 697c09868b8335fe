//! What only a bucket promises: addresses for others, and uploads that do not pass through us. Its clients are not ours:
//! curl, with its own signatures.

use super::{
    server::{BUCKET, KEY, S3Server, SECRET},
    world::*,
};
use flatrender_activities::storage::{ObjectStorage, keys};
use flatrender_workflows::contracts::storage::{
    BlobHash, BlobStore, DirectPart, SentPart, Shelf, SignedGet, StorageError,
};
use std::{process::Command, time::Duration};
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3600);

fn bucket() -> (S3Server, ObjectStorage) {
    let server = S3Server::start();
    let storage = open(&server.storage("films"), SECRET);
    (server, storage)
}

/// What curl gets: the status and the body.
fn curl(args: &[&str]) -> (u16, Vec<u8>) {
    let output = Command::new("curl").args(["-s", "-w", "\n%{http_code}"]).args(args).output().unwrap();
    let cut = output.stdout.iter().rposition(|b| *b == b'\n').expect("curl tells the status");
    let status = String::from_utf8_lossy(&output.stdout[cut + 1..]).parse().unwrap();
    (status, output.stdout[..cut].to_vec())
}

async fn signed(storage: &ObjectStorage, hash: &BlobHash) -> String {
    let disposition = "attachment; filename=\"film.mp4\"; filename*=UTF-8''%D9%81%DB%8C%D9%84%D9%85.mp4";
    let says = SignedGet { valid_for: HOUR, content_type: "video/mp4", disposition };
    storage.sign_get(&files(), hash, says).await.unwrap().expect("a bucket has addresses")
}

#[tokio::test]
async fn a_signed_address_is_read_by_a_stranger_and_no_other_is() {
    let (_server, storage) = bucket();
    let blob = storage.put(&files(), None, body(b"a film"), PLENTY).await.unwrap();
    let other = storage.put(&files(), None, body(b"another film"), PLENTY).await.unwrap();
    let url = signed(&storage, &blob.sha256).await;
    assert_eq!(curl(&[&url]), (200, b"a film".to_vec()));
    assert_eq!(curl(&["-r", "2-3", &url]), (206, b"fi".to_vec()));

    let elsewhere = url.replace(&blob.sha256.as_str()[2..], &other.sha256.as_str()[2..]);
    let elsewhere =
        elsewhere.replace(&format!("/{}/", &blob.sha256.as_str()[..2]), &format!("/{}/", &other.sha256.as_str()[..2]));
    let longer = url.replace("X-Amz-Expires=3600", "X-Amz-Expires=360000");
    let page = url.replace("video%2Fmp4", "text%2Fhtml");
    let (start, last) = url.split_at(url.len() - 1);
    let forged = format!("{start}{}", if last == "0" { "1" } else { "0" });
    let bare = url.split('?').next().unwrap().to_owned();
    for wrong in [elsewhere, longer, page, forged, bare] {
        assert_ne!(wrong, url);
        assert_eq!(curl(&[&wrong]).0, 403, "{wrong}");
    }
}

#[tokio::test]
async fn a_client_with_the_keys_reads_a_public_blob() {
    let (server, storage) = bucket();
    let blob = storage.put(&Shelf::Public, None, body(b"a still"), PLENTY).await.unwrap();
    let url = format!("{}/{BUCKET}/films/{}", server.endpoint, keys::blob(&Shelf::Public, &blob.sha256));
    let nothing = format!("x-amz-content-sha256: {}", BlobHash::of(b""));
    let sign = ["--aws-sigv4", "aws:amz:us-east-1:s3", "-H", &nothing];
    let user = format!("{KEY}:{SECRET}");
    assert_eq!(curl(&[&sign[..], &["--user", &user, &url]].concat()), (200, b"a still".to_vec()));
    assert_eq!(curl(&[&sign[..], &["--user", "AKIATEST:guessed", &url]].concat()).0, 403);
    assert_eq!(curl(&[&url]).0, 403, "nothing in the bucket is for everybody");
}

#[tokio::test]
async fn a_wrong_secret_is_an_error_that_does_not_tell_it() {
    let server = S3Server::start();
    let storage = open(&server.storage("films"), "hunter2");
    let refused = storage.probe().await.unwrap_err();
    let StorageError::Io(cause) = &refused else { panic!("{refused:?}") };
    let said = format!("{refused} {cause} {refused:?} {storage:?}");
    assert!(said.contains("403") || said.contains("SignatureDoesNotMatch"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[tokio::test]
async fn an_upload_of_unknown_content_ends_under_its_hash() {
    let (server, storage) = bucket();
    let content = large();
    let blob = storage.put(&files(), None, body(&content), PLENTY).await.unwrap();
    let stored = server.objects().join("films").join(keys::blob(&files(), &blob.sha256).as_ref());
    assert!(std::fs::read(stored).unwrap() == content);
    assert_eq!(every_file(&server.objects()).len(), 1, "nothing is left below incoming/");
}

#[tokio::test]
async fn a_client_sends_parts_straight_to_the_bucket() {
    let (server, storage) = bucket();
    let direct = storage.direct().unwrap();
    let (upload, content) = (Uuid::from_u128(7), large());
    let name = direct.begin(upload).await.unwrap();
    let mut etags = Vec::new();
    for (number, part) in (1..).zip(content.chunks(6 * 1024 * 1024)) {
        let path = server.folder.path().join("part");
        std::fs::write(&path, part).unwrap();
        let size_bytes = part.len() as u64;
        let part = DirectPart { upload, name: &name, number, size_bytes, md5: None, valid_for: HOUR };
        let url = direct.sign_part(&part).await.unwrap();
        let (file, tag) = (format!("{}", path.display()), server.folder.path().join("tag"));
        let (status, _) = curl(&["-T", &file, "-D", &tag.display().to_string(), &url]);
        assert_eq!(status, 200);
        let wrong = url.replace(&format!("partNumber={number}"), "partNumber=9");
        assert_eq!(curl(&["-T", &file, &wrong]).0, 403);
        let headers = std::fs::read_to_string(tag).unwrap().to_lowercase();
        etags.push(headers.lines().find_map(|line| line.strip_prefix("etag: ")).expect("a tag").to_owned());
    }
    let parts = direct.parts(upload, &name, 0, 1000).await.unwrap();
    let listed = |parts: &[SentPart]| parts.iter().map(|p| (p.etag.clone(), p.size_bytes)).collect::<Vec<_>>();
    let sent = etags.iter().cloned().zip(content.chunks(6 * 1024 * 1024).map(|part| part.len() as u64));
    assert_eq!(listed(&parts), sent.collect::<Vec<_>>(), "who has lost everything can go on");
    assert_eq!(direct.parts(upload, &name, 1, 1).await.unwrap(), parts[1..2]);

    let whole = server.folder.path().join("whole");
    let refused = direct.fetch(upload, &whole, PLENTY).await;
    assert!(matches!(refused, Err(StorageError::NotUploaded(_))), "{refused:?}");
    for _ in 0..2 {
        direct.complete(upload, &name, &etags).await.unwrap();
    }
    let gone = direct.parts(upload, &name, 0, 1000).await;
    assert!(matches!(gone, Err(StorageError::NotUploaded(_)) | Ok(_)), "{gone:?}");

    let refused = direct.fetch(upload, &whole, LARGE as u64 - 1).await;
    assert!(matches!(refused, Err(StorageError::TooLong { .. })), "{refused:?}");
    let blob = direct.fetch(upload, &whole, PLENTY).await.unwrap();
    assert_eq!((&blob.sha256, blob.size_bytes), (&BlobHash::of(&content), LARGE as u64));
    assert!(std::fs::read(&whole).unwrap() == content);
    assert_eq!(storage.stat(&files(), &blob.sha256).await.unwrap(), None, "nobody has looked at it yet");
    for _ in 0..2 {
        direct.shelve(upload, &files(), &blob).await.unwrap();
    }
    for _ in 0..2 {
        direct.discard(upload, &name).await.unwrap();
    }
    assert!(read(&storage, &files(), &BlobHash::of(&content)).await == content);
    assert_eq!(every_file(&server.objects()).len(), 1);
}

#[tokio::test]
async fn a_discarded_upload_leaves_nothing_and_takes_nothing_more() {
    let (server, storage) = bucket();
    let direct = storage.direct().unwrap();
    let upload = Uuid::from_u128(8);
    let name = direct.begin(upload).await.unwrap();
    let part = DirectPart { upload, name: &name, number: 1, size_bytes: 11, md5: None, valid_for: HOUR };
    let url = direct.sign_part(&part).await.unwrap();
    assert_eq!(curl(&["-X", "PUT", "-d", "half a film", &url]).0, 200);
    direct.discard(upload, &name).await.unwrap();
    assert_ne!(curl(&["-X", "PUT", "-d", "half a film", &url]).0, 200);
    let left = every_file(server.folder.path()).into_iter().map(|path| path.display().to_string());
    let left: Vec<_> = left.filter(|name| name.contains(".upload_id")).collect();
    assert_eq!(left, Vec::<String>::new());
}

#[tokio::test]
async fn a_part_whose_hash_was_announced_has_to_be_sent_with_it() {
    let (_server, storage) = bucket();
    let direct = storage.direct().unwrap();
    let upload = Uuid::from_u128(9);
    let name = direct.begin(upload).await.unwrap();
    let md5 = "XUFAKrxLKna5cZ2REBfFkg==";
    let part = DirectPart { upload, name: &name, number: 1, size_bytes: 5, md5: Some(md5), valid_for: HOUR };
    let url = direct.sign_part(&part).await.unwrap();
    assert_eq!(curl(&["-X", "PUT", "-d", "hello", &url]).0, 403);
    assert_eq!(curl(&["-X", "PUT", "-d", "hello", "-H", &format!("Content-MD5: {md5}"), &url]).0, 200);
}

/// Room is set aside for what was announced: neither more nor fewer bytes are taken, however the client says how many they are.
#[tokio::test]
async fn a_part_is_as_long_as_it_was_announced() {
    let (_server, storage) = bucket();
    let direct = storage.direct().unwrap();
    let upload = Uuid::from_u128(10);
    let name = direct.begin(upload).await.unwrap();
    let part = DirectPart { upload, name: &name, number: 1, size_bytes: 5, md5: None, valid_for: HOUR };
    let url = direct.sign_part(&part).await.unwrap();
    for wrong in ["hello!", "hell", ""] {
        assert_eq!(curl(&["-X", "PUT", "-d", wrong, &url]).0, 403, "{wrong}");
    }
    assert_ne!(curl(&["-X", "PUT", "-d", "hello!", "-H", "Transfer-Encoding: chunked", &url]).0, 200);
    assert_eq!(curl(&["-X", "PUT", "-d", "hello", &url]).0, 200);
    assert_eq!(direct.parts(upload, &name, 0, 10).await.unwrap()[0].size_bytes, 5);
}

/// What killed processes left is swept, uploads and probes alike; what is kept stays.
#[tokio::test]
async fn stale_temporaries_of_a_bucket_are_swept() {
    let (server, storage) = bucket();
    storage.put(&files(), None, body(b"kept"), PLENTY).await.unwrap();
    let kept = every_file(&server.objects());
    for folder in ["incoming", "probe"] {
        let folder = server.objects().join("films").join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("left"), b"half").unwrap();
    }
    assert_eq!(storage.remove_stale(HOUR).await.unwrap(), 0, "it may be under way");
    assert_eq!(storage.remove_stale(Duration::ZERO).await.unwrap(), 2);
    assert_eq!(every_file(&server.objects()), kept);
}

#[tokio::test]
async fn a_folder_has_no_addresses_of_its_own() {
    let world = World::folder();
    let says = SignedGet { valid_for: HOUR, content_type: "video/mp4", disposition: "inline" };
    assert_eq!(world.storage.sign_get(&files(), &BlobHash::of(b""), says).await.unwrap(), None);
    assert!(world.storage.direct().is_none());
}
