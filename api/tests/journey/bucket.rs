//! A film of a platform that keeps every byte in a bucket, read there by a client that is not ours.

use crate::{
    platform::Platform,
    server::{BUCKET, S3Server},
};
use sha2::{Digest as _, Sha256};
use std::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn a_film_is_made_in_a_bucket_and_read_there_by_a_stranger() {
    let server = S3Server::start();
    let platform = Platform::on(&server, 1).await;
    let render = platform.completed(&platform.order(144).await).await;
    let export = &render["export"];
    let asked = platform.post(&format!("/v1/exports/{}/links", export["id"].as_str().unwrap())).await;
    let url = asked["url"].as_str().unwrap().to_owned();
    assert!(url.starts_with(&server.endpoint), "{url}");
    let film = Command::new("curl").args(["-sf", &url]).output().unwrap();
    assert!(film.status.success(), "{url}");
    assert_eq!(hex::encode(Sha256::digest(&film.stdout)), export["sha256"].as_str().unwrap());
    let refused = Command::new("curl")
        .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", url.split('?').next().unwrap()])
        .output();
    assert_eq!(refused.unwrap().stdout, b"403");
    assert!(server.objects().join("p/tenants").is_dir(), "the bytes are in {BUCKET}");
    assert!(!platform.folder().join("storage").exists(), "and nowhere else");
    platform.stop().await;
}
