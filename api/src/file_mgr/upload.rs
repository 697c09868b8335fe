//! Taking a file in: to the disk, looked at, and only then to the storage. A refused one leaves nothing behind.

use super::probe::{ProbeError, Probed};
use crate::{
    app::{self, App},
    auth::Tenant,
    extract::{drain, idle_limited},
    identity::quotas,
    problem::{Code, Problem},
};
use axum::{body::Body, http::HeaderMap, http::header};
use flatrender_activities::media::scratch::{self, Scratch};
use flatrender_workflows::{
    contracts::{file_name::FileName, storage::BlobRef},
    models::{
        Role,
        file_mgr::{blob_claim, file::NewFile},
    },
};
use futures::StreamExt;
use std::{path::Path, time::Duration};
use tokio::io::AsyncWriteExt;

/// Longest upload.
pub const LIMIT_BYTES: u64 = 200_000_000;
/// How folders are called that uploads are looked at in.
const FOLDER: &str = "flatrender-upload-";
/// Longest that one is used where folders cannot be locked.
const STALE: Duration = Duration::from_secs(86_400);
/// Name of a file that came without one.
const NAMELESS: &str = "upload";

/// A file that was taken in.
pub struct Taken {
    /// Its content, stored.
    pub blob: BlobRef,
    /// What it is.
    pub probed: Probed,
}

impl Taken {
    /// The row of the file under `name`.
    pub fn row<'a>(&'a self, tenant: &Tenant, name: &'a str) -> NewFile<'a> {
        let pixels = |i: usize| self.probed.size.map(|size| size[i] as i32);
        NewFile {
            owner_id: tenant.actor.user_id(),
            name,
            purpose: "asset",
            kind: self.probed.kind,
            mime: self.probed.content_type,
            blob: &self.blob,
            width: pixels(0),
            height: pixels(1),
            duration_ms: self.probed.duration_ms.map(|ms| ms as i64),
        }
    }
}

/// The name of an upload.
///
/// # Errors
/// `file.name_invalid`
pub fn checked_name(name: Option<String>) -> Result<String, Problem> {
    let name = name.unwrap_or_else(|| NAMELESS.to_owned());
    let name = FileName::parse(&name).map_err(|why| Problem::new(Code::FileNameInvalid, why.to_string()))?;
    Ok(name.to_string())
}

/// Removes what killed processes left of uploads that they were looking at. To be called at the start of a process.
pub fn remove_stale() {
    match scratch::remove_stale(&std::env::temp_dir(), FOLDER, STALE) {
        Ok(0) => {}
        Ok(folders) => tracing::info!(folders, "removed uploads that a killed process had left"),
        Err(error) => tracing::warn!(%error, "cannot remove uploads that a killed process may have left"),
    }
}

/// Takes in the body of an upload.
///
/// # Errors
/// `file.*` by what is wrong with it; `quota.storage`.
pub async fn take(app: &App, tenant: &Tenant, headers: &HeaderMap, body: Body) -> Result<Taken, Problem> {
    let folder = receive(app, tenant, headers, body).await?;
    let path = folder.path().join(NAMELESS);
    let probed = app.probe.inspect(&path).await.map_err(refusal)?;
    let blob = app.storage.put_file(&app::files(tenant.id), &path).await?;
    Ok(Taken { blob, probed })
}

/// Has what was stored and was refused a place removed again, unless something else uses it. What cannot be said now is found later.
pub async fn let_go(app: &App, tenant: &Tenant, taken: &Taken) {
    let gone = async {
        let mut tx = app.begin(tenant, Role::File).await?;
        blob_claim::let_go(&mut tx, tenant.id, &taken.blob.sha256).await?;
        Ok::<_, Problem>(tx.commit().await?)
    };
    if let Err(problem) = gone.await {
        tracing::warn!(code = ?problem.code(), "what was not taken in stays for a while");
    }
}

/// The body in a folder of its own: whoever looks at it sees nothing else there. It is removed when dropped.
async fn receive(app: &App, tenant: &Tenant, headers: &HeaderMap, body: Body) -> Result<Scratch, Problem> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > LIMIT_BYTES) {
        drain(headers, body.into_data_stream()).await;
        return Err(too_large());
    }
    if let Err(refused) = quotas::check_room(app, tenant.id, announced.unwrap_or(1)).await {
        drain(headers, body.into_data_stream()).await;
        return Err(refused);
    }
    let folder = Scratch::named(&std::env::temp_dir(), FOLDER).map_err(|e| Problem::unavailable(&e))?;
    let length = write(&folder.path().join(NAMELESS), headers, body).await?;
    if length == 0 {
        return Err(refusal(ProbeError::Empty));
    }
    quotas::check_room(app, tenant.id, length).await?;
    Ok(folder)
}

/// Writes the body to `path`, a chunk at a time, and gives its length.
async fn write(path: &Path, headers: &HeaderMap, body: Body) -> Result<u64, Problem> {
    let disk = |e: std::io::Error| Problem::unavailable(&e);
    let mut file = tokio::fs::File::create(path).await.map_err(disk)?;
    let mut chunks = idle_limited(body);
    let mut length = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|e| Problem::new(Code::BodyUnreadable, format!("the body ended early: {e}")))?;
        length += chunk.len() as u64;
        if length > LIMIT_BYTES {
            drain(headers, chunks.map(|c| c.map_err(axum::Error::new))).await;
            return Err(too_large());
        }
        file.write_all(&chunk).await.map_err(disk)?;
    }
    file.flush().await.map_err(disk)?;
    Ok(length)
}

fn too_large() -> Problem {
    Problem::new(Code::FileTooLarge, format!("a file has at most {LIMIT_BYTES} bytes"))
}

fn refusal(error: ProbeError) -> Problem {
    let code = match &error {
        ProbeError::Empty => Code::FileEmpty,
        ProbeError::UnsupportedType(_) => Code::FileUnsupportedType,
        ProbeError::Corrupt(_) => Code::FileCorrupt,
        ProbeError::TooLarge(_) => Code::FileTooLarge,
        ProbeError::Unchecked(_) => return Problem::unavailable(&error),
    };
    Problem::new(code, error.to_string())
}
