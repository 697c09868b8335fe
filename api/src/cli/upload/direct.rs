//! Parts that go to the storage itself. What is there is asked of the storage: nothing is kept here that a cut could lose.

use super::{CHUNK_BYTES, TRIES, Upload, hash, name_of};
use crate::cli::{
    client::{Answer, Client},
    failure::CliError,
};
use anyhow::{Context as _, anyhow};
use futures::StreamExt as _;
use indicatif::ProgressBar;
use reqwest::{Method, header};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::HashMap, path::Path, time::Duration};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;
use uuid::Uuid;

/// Where a part goes.
#[derive(Debug, Deserialize)]
struct Address {
    url: String,
    size_bytes: u64,
}

/// A part that is there.
#[derive(Debug, Deserialize)]
struct Part {
    number: u32,
    size_bytes: u64,
}

/// Begins an upload and gives its address.
pub(super) async fn begin(client: &Client, path: &Path, size: u64, folder: Option<Uuid>) -> Result<String, CliError> {
    let body = json!({"name": name_of(path), "total_bytes": size, "folder_id": folder, "sha256": hash(path).await?});
    let call = client.call(Method::POST, "/v1/uploads/direct").json(&body);
    let begun: Answer<Upload> = client.json(call).await.map_err(|e| e.about(path.display().to_string()))?;
    Ok(format!("/v1/uploads/{}", begun.value.id))
}

/// Sends the parts that the storage does not have, and says that all are there.
pub(super) async fn send_all(
    client: &Client,
    path: &Path,
    upload: &Upload,
    size: u64,
    bar: &ProgressBar,
) -> Result<(), CliError> {
    let (Some(part_bytes), Some(count)) = (upload.part_bytes, upload.part_count) else {
        return Err(anyhow!("the server does not say how the upload is cut").into());
    };
    let there = parts(client, upload.id).await?;
    for number in 1..=count {
        let from = u64::from(number - 1) * part_bytes;
        let length = part_bytes.min(size.saturating_sub(from));
        if there.get(&number) != Some(&length) {
            send_surely(client, path, upload.id, number, from, length).await?;
        }
        bar.inc(length);
    }
    let call = client.call(Method::POST, &format!("/v1/uploads/{}/complete", upload.id)).json(&json!({}));
    client.json::<Value>(call).await.map(drop).map_err(|e| e.about(path.display().to_string()))
}

/// The parts that are there, and their lengths.
async fn parts(client: &Client, upload: Uuid) -> Result<HashMap<u32, u64>, CliError> {
    let (mut all, mut cursor) = (HashMap::new(), String::new());
    loop {
        let call = client.call(Method::GET, &format!("/v1/uploads/{upload}/parts?limit=100{cursor}"));
        let page: Answer<crate::cli::answers::List<Part>> = client.json(call).await?;
        all.extend(page.value.data.into_iter().map(|part| (part.number, part.size_bytes)));
        match page.json["next_cursor"].as_str() {
            Some(next) => cursor = format!("&starting_after={next}"),
            None => return Ok(all),
        }
    }
}

/// Sends a part; each cut is followed by another try.
async fn send_surely(
    client: &Client,
    path: &Path,
    upload: Uuid,
    number: u32,
    from: u64,
    length: u64,
) -> Result<(), CliError> {
    let mut tries = 0;
    loop {
        match send(client, path, upload, number, from, length).await {
            Err(CliError::NoServer(_)) if tries < TRIES => {}
            sent => return sent,
        }
        tries += 1;
        tokio::time::sleep(Duration::from_millis(50) * 2u32.pow(tries)).await;
    }
}

async fn send(client: &Client, path: &Path, upload: Uuid, number: u32, from: u64, length: u64) -> Result<(), CliError> {
    let call = client.call(Method::POST, &format!("/v1/uploads/{upload}/parts/{number}")).json(&json!({}));
    let Address { url, size_bytes } = client.json(call).await?.value;
    if size_bytes != length {
        return Err(CliError::Here(anyhow!("{}: it is not as long as the upload that was begun", path.display())));
    }
    let mut file = tokio::fs::File::open(path).await.map_err(|e| CliError::unreadable("upload", path, e))?;
    file.seek(std::io::SeekFrom::Start(from)).await.context("cannot read on")?;
    let body = ReaderStream::with_capacity(file.take(length), CHUNK_BYTES).boxed();
    let call = client.elsewhere(Method::PUT, &url).header(header::CONTENT_LENGTH, length);
    let answer = call.body(reqwest::Body::wrap_stream(body)).send().await.map_err(|e| client.lost(&e.without_url()))?;
    match answer.status() {
        status if status.is_success() => Ok(()),
        status if status.is_server_error() => Err(CliError::NoServer(format!("the storage answers {status}"))),
        status => Err(CliError::Here(anyhow!("{}: the storage refuses part {number}: {status}", path.display()))),
    }
}
