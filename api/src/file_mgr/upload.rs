//! Taking a file in: to the disk, looked at, and only then to the storage. A refused one leaves nothing behind.
//!
//! It has its turn and its room before a byte of it is read, so that neither what may be kept nor the disk holds more than was agreed on.

use super::{
    probe::{ProbeError, Probed},
    uploads::Turn,
};
use crate::{
    app::{self, App},
    auth::Tenant,
    extract::{drain, idle_limited},
    identity::quotas,
    problem::{Code, Problem},
};
use axum::{body::Body, http::HeaderMap, http::header};
use chrono::TimeDelta;
use flatrender_activities::media::scratch::{self, Scratch};
use flatrender_workflows::{
    contracts::{file_name::FileName, storage::BlobRef},
    models::{
        Db, Role, Scope,
        file_mgr::{
            blob_claim,
            file::NewFile,
            quota::{self, Outcome},
        },
    },
};
use futures::StreamExt;
use http_body::Body as _;
use std::{path::Path, time::Duration};
use tokio::{io::AsyncWriteExt, runtime::Handle};
use uuid::Uuid;

/// Longest upload.
pub const LIMIT_BYTES: u64 = 200_000_000;
/// How folders are called that uploads are looked at in.
const FOLDER: &str = "flatrender-upload-";
/// Longest that one is used where folders cannot be locked.
const STALE: Duration = Duration::from_secs(86_400);
/// How long room is set aside for one should its server be killed.
const ROOM: TimeDelta = TimeDelta::hours(3);
/// Name of a file that came without one.
const NAMELESS: &str = "upload";

/// A file that was taken in.
pub struct Taken {
    /// Its content, stored.
    pub blob: BlobRef,
    /// What it is.
    pub probed: Probed,
    room: Room,
}

impl Taken {
    /// Its room is that of its file, which is added in the same transaction.
    pub async fn fill_room(&self, db: Db<'_>) -> sqlx::Result<()> {
        quota::settle(db, self.room.tenant_id, &self.room.purpose, Outcome::Used).await.map(drop)
    }

    /// That transaction is over.
    pub fn kept(mut self) {
        self.room.is_held = false;
    }

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
/// `file.*` by what is wrong with it; `quota.storage`; `server.unavailable` when too many come in.
pub async fn take(app: &App, tenant: &Tenant, headers: &HeaderMap, body: Body) -> Result<Taken, Problem> {
    let announced = announced(headers, &body);
    let room = match Room::set_aside(app, tenant, announced).await {
        Ok(room) => room,
        Err(refused) => {
            drain(headers, body.into_data_stream()).await;
            return Err(refused);
        }
    };
    match receive(app, tenant, headers, body).await {
        Ok((blob, probed)) => Ok(Taken { blob, probed, room }),
        Err(refused) => {
            room.release().await;
            Err(refused)
        }
    }
}

/// Has what was stored and was refused a place removed again, unless something else uses it, and its room freed. What cannot be said now is
/// found later.
pub async fn let_go(app: &App, tenant: &Tenant, taken: Taken) {
    let gone = async {
        let mut tx = app.begin(tenant, Role::File).await?;
        blob_claim::let_go(&mut tx, tenant.id, &taken.blob.sha256).await?;
        Ok::<_, Problem>(tx.commit().await?)
    };
    if let Err(problem) = gone.await {
        tracing::warn!(code = ?problem.code(), "what was not taken in stays for a while");
    }
    taken.room.release().await;
}

/// Room that is set aside for a body, and the turn to take it in. Free again at the latest when it is dropped: its client may go at any moment.
struct Room {
    app: App,
    tenant_id: Uuid,
    purpose: String,
    is_held: bool,
    _turn: Turn,
}

impl Room {
    /// As much as was announced; when nothing was, as much as the longest file needs.
    async fn set_aside(app: &App, tenant: &Tenant, announced: Option<u64>) -> Result<Self, Problem> {
        let bytes = announced.unwrap_or(LIMIT_BYTES);
        if bytes > LIMIT_BYTES {
            return Err(too_large());
        }
        let turn = app.intakes.turn(tenant.id).await?;
        // A client may go at any moment, and who is cut off in the middle of a commit does not know whether there is anything to free. So it is
        // done to its end, and freed when nobody waits for it any more.
        let reserving = tokio::spawn(Self::reserve(app.clone(), *tenant, bytes.max(1) as i64, turn));
        let reserved = reserving.await.map_err(|stopped| Problem::internal(&stopped))?;
        let longest = "there is no room for the longest file; say in content-length how long this one is";
        let longest = || Problem::new(Code::QuotaStorage, longest);
        reserved?.ok_or_else(|| announced.map_or_else(longest, |_| quotas::no_room()))
    }

    /// None when there is no room.
    async fn reserve(app: App, tenant: Tenant, bytes: i64, turn: Turn) -> Result<Option<Self>, Problem> {
        let (tenant_id, purpose) = (tenant.id, format!("file:{}", Uuid::now_v7()));
        let mut tx = app.begin(&tenant, Role::File).await?;
        if !quota::reserve(&mut tx, tenant_id, tenant.actor.user_id(), bytes, &purpose, ROOM).await? {
            return Ok(None);
        }
        // Freed as well when it cannot be said whether it was committed.
        let room = Self { app, tenant_id, purpose, is_held: true, _turn: turn };
        tx.commit().await?;
        Ok(Some(room))
    }

    async fn release(mut self) {
        release(&self.app, self.tenant_id, &self.purpose).await;
        self.is_held = false;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let Ok(runtime) = Handle::try_current() else { return };
        if self.is_held {
            let (app, tenant_id, purpose) = (self.app.clone(), self.tenant_id, std::mem::take(&mut self.purpose));
            runtime.spawn(async move { release(&app, tenant_id, &purpose).await });
        }
    }
}

async fn release(app: &App, tenant_id: Uuid, purpose: &str) {
    let freed = async {
        let mut tx = app.db.begin(Scope::tenant(Role::File, tenant_id)).await?;
        quota::settle(&mut tx, tenant_id, purpose, Outcome::Released).await?;
        Ok::<_, Problem>(tx.commit().await?)
    };
    if let Err(problem) = freed.await {
        tracing::warn!(code = ?problem.code(), "the room of a file that was not taken in stays set aside for a while");
    }
}

fn announced(headers: &HeaderMap, body: &Body) -> Option<u64> {
    let told = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    told.or(body.size_hint().exact())
}

/// Looks at the body and stores it. Whoever looks at it sees nothing else in its folder, which is removed when it is done.
async fn receive(app: &App, tenant: &Tenant, headers: &HeaderMap, body: Body) -> Result<(BlobRef, Probed), Problem> {
    let folder = Scratch::named(&std::env::temp_dir(), FOLDER).map_err(|e| Problem::unavailable(&e))?;
    let path = folder.path().join(NAMELESS);
    if write(&path, headers, body).await? == 0 {
        return Err(refusal(ProbeError::Empty));
    }
    let probed = app.probe.inspect(&path).await.map_err(refusal)?;
    let blob = app.storage.put_file(&app::files(tenant.id), &path).await?;
    Ok((blob, probed))
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
