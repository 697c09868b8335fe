//! `flatrender files upload`: sends a file piece by piece, and goes on after a cut where it was.

mod direct;

use super::{client::Client, failure::CliError};
use anyhow::{Context as _, anyhow};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use futures::StreamExt as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::{Method, RequestBuilder, Response};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::{io::IsTerminal as _, path::Path, time::Duration};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;
use uuid::Uuid;

/// How often it is tried again while nothing goes on.
const TRIES: u32 = 8;
/// How much of the file is read at once.
const CHUNK_BYTES: usize = 256 * 1024;
/// How often it is asked what became of the upload.
const LOOK: Duration = Duration::from_millis(500);

/// How a file is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// As an upload that was begun before; what is sent has to be the same file.
    Resume(Uuid),
    /// Through the server, into a folder.
    Tus(Option<Uuid>),
    /// To the storage itself, into a folder.
    Direct(Option<Uuid>),
}

/// An upload as far as the command cares.
#[derive(Debug, Clone, Deserialize)]
struct Upload {
    id: Uuid,
    protocol: String,
    part_bytes: Option<u64>,
    part_count: Option<u32>,
    state: String,
    file_id: Option<Uuid>,
    refusal: Option<Refusal>,
}

#[derive(Debug, Clone, Deserialize)]
struct Refusal {
    code: String,
    detail: String,
}

/// Uploads the file at `path` under its own name and gives the id of the file that it became.
///
/// # Errors
/// The server refuses, the connection stays cut, or the file cannot be read.
pub async fn file(client: &Client, path: &Path, how: How) -> Result<Uuid, CliError> {
    let unreadable = |e| CliError::unreadable("upload", path, e);
    let size = tokio::fs::metadata(path).await.map_err(unreadable)?.len();
    let upload = match how {
        How::Resume(id) => format!("/v1/uploads/{id}"),
        How::Tus(folder) => begin(client, path, size, folder).await?,
        How::Direct(folder) => direct::begin(client, path, size, folder).await?,
    };
    let seen: Upload = client.json(client.call(Method::GET, &upload)).await?.value;
    let bar = bar(size);
    let sent = match (seen.state.as_str(), seen.protocol.as_str()) {
        ("open", "multipart") => direct::send_all(client, path, &seen, size, &bar).await,
        ("open", _) => send_all(client, path, &upload, size, &bar).await,
        _ => Ok(()),
    };
    bar.finish_and_clear();
    let id = upload.rsplit('/').next().unwrap_or_default();
    if let Err(CliError::NoServer(why)) = sent {
        return Err(CliError::NoServer(format!("{why}; go on with --resume {id}")));
    }
    sent?;
    outcome(client, path, &upload).await
}

async fn begin(client: &Client, path: &Path, size: u64, folder: Option<Uuid>) -> Result<String, CliError> {
    let sha256 = hash(path).await?;
    let mut metadata = format!("filename {},sha256 {}", BASE64.encode(name_of(path)), BASE64.encode(sha256));
    if let Some(folder) = folder {
        metadata += &format!(",folder_id {}", BASE64.encode(folder.to_string()));
    }
    let call =
        tus(client, Method::POST, "/v1/uploads").header("upload-length", size).header("upload-metadata", metadata);
    let answer = client.send(call).await.map_err(|e| e.about(path.display().to_string()))?;
    let location = answer.headers().get("location").and_then(|v| v.to_str().ok()).map(str::to_owned);
    location.ok_or_else(|| anyhow!("{} begins an upload and does not say where", client.url()).into())
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

async fn hash(path: &Path) -> Result<String, CliError> {
    let unreadable = |e| CliError::unreadable("upload", path, e);
    let mut file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; CHUNK_BYTES]);
    loop {
        match file.read(&mut buffer).await.map_err(unreadable)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            length => hasher.update(&buffer[..length]),
        }
    }
}

/// Sends until everything is there; each cut is followed by a question where to go on.
async fn send_all(client: &Client, path: &Path, upload: &str, size: u64, bar: &ProgressBar) -> Result<(), CliError> {
    let (mut furthest, mut tries) = (0, 0);
    loop {
        let sent = async {
            let offset = offset(&client.send(tus(client, Method::HEAD, upload)).await?)?;
            bar.set_position(offset);
            // What goes on has all its tries again.
            if offset > furthest {
                (furthest, tries) = (offset, 0);
            }
            match offset < size {
                true => send_from(client, path, upload, offset, bar).await,
                false => Ok(offset),
            }
        };
        match sent.await {
            Ok(offset) if offset == size => return Ok(()),
            Ok(_) => {}
            // The connection was cut; or what came before the cut is still being kept.
            Err(error) if tries < TRIES && may_pass(&error) => {}
            Err(error) => return Err(error.about(path.display().to_string())),
        }
        tries += 1;
        tokio::time::sleep(Duration::from_millis(50) * 2u32.pow(tries)).await;
    }
}

/// Whether it may go on after this.
fn may_pass(error: &CliError) -> bool {
    match error {
        CliError::NoServer(_) => true,
        CliError::Refused { problem, .. } => {
            ["upload.offset", "body.unreadable", "server.unavailable"].contains(&problem.code.as_str())
        }
        _ => false,
    }
}

async fn send_from(client: &Client, path: &Path, upload: &str, from: u64, bar: &ProgressBar) -> Result<u64, CliError> {
    let mut file = tokio::fs::File::open(path).await.map_err(|e| CliError::unreadable("upload", path, e))?;
    file.seek(std::io::SeekFrom::Start(from)).await.context("cannot read on")?;
    let moving = bar.clone();
    let chunks = ReaderStream::with_capacity(file, CHUNK_BYTES).inspect(move |chunk| {
        moving.inc(chunk.as_ref().map_or(0, |chunk| chunk.len() as u64));
    });
    let call = tus(client, Method::PATCH, upload)
        .header("content-type", "application/offset+octet-stream")
        .header("upload-offset", from)
        .body(reqwest::Body::wrap_stream(chunks));
    offset(&client.send(call).await?)
}

fn offset(answer: &Response) -> Result<u64, CliError> {
    let offset = answer.headers().get("upload-offset").and_then(|v| v.to_str().ok()?.parse().ok());
    offset.ok_or_else(|| anyhow!("the server does not say how far the upload is").into())
}

async fn outcome(client: &Client, path: &Path, upload: &str) -> Result<Uuid, CliError> {
    loop {
        let seen: Upload = client.json(client.call(Method::GET, upload)).await?.value;
        match (seen.file_id, seen.refusal) {
            (Some(id), _) => return Ok(id),
            (None, Some(Refusal { code, detail })) => {
                return Err(CliError::Here(anyhow!("{}: {detail} ({code})", path.display())));
            }
            (None, None) if ["open", "completing"].contains(&seen.state.as_str()) => tokio::time::sleep(LOOK).await,
            (None, None) => return Err(CliError::Here(anyhow!("{}: the upload is {}", path.display(), seen.state))),
        }
    }
}

fn tus(client: &Client, method: Method, path: &str) -> RequestBuilder {
    client.call(method, path).header("tus-resumable", "1.0.0")
}

fn bar(size: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::hidden());
    }
    let style =
        ProgressStyle::with_template("{bar:32.cyan/240} {percent:>3} %  {bytes} of {total_bytes}, {bytes_per_sec}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─");
    ProgressBar::new(size).with_style(style)
}
