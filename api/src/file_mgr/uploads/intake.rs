//! Bytes of an upload on their way in: gathered into pieces of 4 MiB, each stored, then recorded. Memory holds one piece, of so many
//! requests at a time as there are turns.
//!
//! Nothing is locked: two requests that send the same bytes store the same pieces, and the row of the upload moves for the first of them
//! only. A piece that was cut short is stored as it is; whoever goes on begins with it and replaces it.

use super::{
    complete, elsewhere, ended,
    headers::{self, Checksum},
    too_much,
};
use crate::{
    app::App,
    auth::Tenant,
    extract::idle_limited,
    problem::{Code, Problem},
};
use axum::{
    body::Body,
    http::{HeaderValue, header},
};
use bytes::{Bytes, BytesMut};
use flatrender_workflows::{
    contracts::storage::{BlobHash, BlobRef, ByteStream, Shelf, StorageError},
    definitions::finish_upload::FinishUpload,
    models::{
        Role, Scope,
        file_mgr::upload::{self, Upload},
    },
};
use futures::{StreamExt, TryStreamExt};
use std::{
    collections::HashMap,
    io::{self, Seek, Write},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use uuid::Uuid;

/// Length of a piece.
const PIECE_BYTES: u64 = 4 * 1024 * 1024;
/// Requests of which bytes are taken in at a time, by a process: 512 MiB of pieces, and 8 GiB on the disk of what is checked first.
const MOST_INTAKES: usize = 128;
/// The same of one tenant: however slowly it sends, three others get as many.
const MOST_OF_A_TENANT: usize = 32;
/// Who waits for a turn for longer is told to come again.
const TURN: Duration = Duration::from_secs(10);
/// How much of a file is read at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// Who takes bytes in, in this process.
#[derive(Debug, Clone)]
pub struct Intakes {
    all: Arc<Semaphore>,
    tenants: Arc<Mutex<HashMap<Uuid, Arc<Semaphore>>>>,
}

impl Default for Intakes {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(MOST_INTAKES)), tenants: Arc::default() }
    }
}

/// A tenant's turn to take bytes in, until it is dropped.
pub type Turn = (OwnedSemaphorePermit, OwnedSemaphorePermit);

impl Intakes {
    /// A turn to take bytes in. Who has none has not begun to read.
    ///
    /// # Errors
    /// `server.unavailable` when too many uploads come in.
    pub async fn turn(&self, tenant_id: Uuid) -> Result<Turn, Problem> {
        self.turn_within(tenant_id, TURN).await
    }

    async fn turn_within(&self, tenant_id: Uuid, patience: Duration) -> Result<Turn, Problem> {
        let full = || {
            let detail = "other uploads are coming in; go on in a moment";
            Problem::new(Code::Unavailable, detail).with_header(header::RETRY_AFTER, HeaderValue::from_static("5"))
        };
        let own = self.of(tenant_id);
        let both = async { Some((own.acquire_owned().await.ok()?, self.all.clone().acquire_owned().await.ok()?)) };
        timeout(patience, both).await.ok().flatten().ok_or_else(full)
    }

    /// Turns that are taken.
    pub fn at_work(&self) -> usize {
        MOST_INTAKES - self.all.available_permits()
    }

    /// The turns of a tenant; those of tenants that send nothing are forgotten.
    fn of(&self, tenant_id: Uuid) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        tenants.retain(|_, turns| Arc::strong_count(turns) > 1);
        tenants.entry(tenant_id).or_insert_with(|| Arc::new(Semaphore::new(MOST_OF_A_TENANT))).clone()
    }
}

/// Takes bytes of an upload in and gives how many of it are kept then. It goes on when the client is gone: what has come is kept.
///
/// # Errors
/// `upload.offset`, `upload.complete`, `upload.ended`: somebody else was there before. `upload.checksum`, `upload.checked_too_large`,
/// `file.too_large`, `body.unreadable`.
pub async fn receive(
    app: &App,
    tenant: &Tenant,
    upload: &Upload,
    checksum: Option<Checksum>,
    body: Body,
    turn: Turn,
) -> Result<u64, Problem> {
    let intake = Intake::new(app, tenant, upload);
    let received = tokio::spawn(async move {
        let _turn = turn;
        intake.take_in(checksum, body).await
    });
    let received = received.await;
    received.map_err(|stopped| Problem::internal(&stopped))?
}

struct Intake {
    app: App,
    tenant: Tenant,
    upload: Upload,
    /// What is kept, by the row.
    offset: u64,
    /// The piece that is being gathered; it begins with the one that was cut short. In one buffer, however little comes at a time.
    held: BytesMut,
    /// The one that was cut short and is to be replaced.
    replaced: Option<BlobHash>,
}

impl Intake {
    fn new(app: &App, tenant: &Tenant, upload: &Upload) -> Self {
        let offset = upload.offset_bytes as u64;
        let (app, upload) = (app.clone(), upload.clone());
        Self { app, tenant: *tenant, upload, offset, held: BytesMut::new(), replaced: None }
    }

    async fn take_in(mut self, checksum: Option<Checksum>, body: Body) -> Result<u64, Problem> {
        self.begin().await?;
        match checksum {
            Some(checksum) => {
                let Some(chunks) = checked(body, checksum, self.missing()).await? else {
                    return Err(too_much(&self.upload));
                };
                self.gather(chunks).await
            }
            None => self.gather(idle_limited(body).boxed()).await,
        }
    }

    /// How many bytes of the upload are neither kept nor held.
    fn missing(&self) -> u64 {
        self.upload.total_bytes as u64 - self.offset / PIECE_BYTES * PIECE_BYTES - self.held.len() as u64
    }

    /// The number of the piece that is being gathered.
    fn number(&self) -> i32 {
        (self.offset / PIECE_BYTES) as i32 + 1
    }

    fn shelf(&self) -> Shelf {
        Shelf::Upload { tenant_id: self.tenant.id, upload_id: self.upload.id }
    }

    /// Takes up the piece that was cut short, if one was.
    async fn begin(&mut self) -> Result<(), Problem> {
        let cut_short = self.offset % PIECE_BYTES;
        if cut_short == 0 {
            return Ok(());
        }
        let mut tx = self.app.begin(&self.tenant, Role::File).await?;
        let piece = upload::piece(&mut tx, self.upload.id, self.number()).await?;
        drop(tx);
        let Some(piece) = piece.filter(|piece| piece.size_bytes == cut_short) else {
            return Err(self.moved_on().await);
        };
        let body = match self.app.storage.open(&self.shelf(), &piece.sha256, None).await {
            Err(StorageError::NotFound(lost)) => {
                self.take_back(&lost).await?;
                return Err(self.moved_on().await);
            }
            opened => opened?,
        };
        let unreadable = |error| Problem::unavailable(&error);
        let gather = |mut whole: BytesMut, chunk: Bytes| {
            whole.extend_from_slice(&chunk);
            std::future::ready(Ok(whole))
        };
        let whole = body.stream.try_fold(BytesMut::new(), gather).await.map_err(unreadable)?;
        if BlobHash::of(&whole) != piece.sha256 {
            return Err(Problem::unavailable(&io::Error::other("a piece of an upload is not what was stored")));
        }
        self.held = whole;
        self.replaced = Some(piece.sha256);
        Ok(())
    }

    /// A piece that is recorded is not there: somebody has removed it as replaced while somebody else recorded the same. The client is told to
    /// go on from where it began.
    async fn take_back(&self, lost: &BlobHash) -> Result<(), Problem> {
        let start = self.offset / PIECE_BYTES * PIECE_BYTES;
        let mut tx = self.app.begin(&self.tenant, Role::File).await?;
        let (tenant_id, id) = (self.tenant.id, self.upload.id);
        if upload::take_back(&mut tx, tenant_id, id, (self.offset, start), self.number(), lost).await? {
            tx.commit().await?;
            tracing::warn!(upload = %id, offset = start, "a piece of an upload was lost; it is sent again");
        }
        Ok(())
    }

    /// Stores what comes, piece by piece, and what has come when it ends early.
    async fn gather(mut self, mut chunks: ByteStream) -> Result<u64, Problem> {
        let before = self.held.len();
        let mut came = false;
        let ended_early = loop {
            let mut chunk = match chunks.next().await {
                None => break None,
                Some(Err(error)) => break Some(error),
                Some(Ok(chunk)) => chunk,
            };
            if chunk.len() as u64 > self.missing() {
                return Err(too_much(&self.upload));
            }
            while !chunk.is_empty() {
                let room = (PIECE_BYTES as usize - self.held.len()).min(chunk.len());
                self.held.extend_from_slice(&chunk.split_to(room));
                came = true;
                if self.held.len() as u64 == PIECE_BYTES {
                    self.keep().await?;
                }
            }
        };
        if came && !self.held.is_empty() && (self.held.len() != before || self.replaced.is_none()) {
            self.keep().await?;
        }
        match ended_early {
            Some(error) => Err(Problem::new(Code::BodyUnreadable, format!("the body ended early: {error}"))),
            None => Ok(self.offset),
        }
    }

    /// Stores the piece that was gathered, then records it, and has the upload finished when it is whole.
    async fn keep(&mut self) -> Result<(), Problem> {
        let (number, start) = (self.number(), self.offset / PIECE_BYTES * PIECE_BYTES);
        let piece = std::mem::take(&mut self.held).freeze();
        let body = futures::stream::once(std::future::ready(Ok(piece))).boxed();
        let stored = match self.app.storage.put(&self.shelf(), None, body, PIECE_BYTES).await {
            Ok(stored) => stored,
            // Its shelf may just have been removed, because it has ended.
            Err(error) => return Err(self.ended_meanwhile().await.unwrap_or_else(|| error.into())),
        };
        let to = start + stored.size_bytes;
        let (app, tenant_id, id) = (&self.app, self.tenant.id, self.upload.id);
        let mut tx = app.begin(&self.tenant, Role::File).await?;
        let pieces = std::slice::from_ref(&stored);
        let Some(whole) = upload::keep(&mut tx, tenant_id, id, (self.offset, to), number, pieces).await? else {
            drop(tx);
            return Err(self.moved_on().await);
        };
        if whole {
            let finish = FinishUpload { upload_id: id, storage_upload: None };
            Scope::tenant(Role::Workflow, tenant_id).enter(&mut tx).await?;
            app.workflows.start(&mut tx, tenant_id, Some(&finish.business_key()), finish).await?;
        }
        tx.commit().await?;
        if whole {
            app.workflows.announce();
        }
        self.offset = to;
        self.forget_replaced(&stored).await;
        Ok(())
    }

    /// Removes the piece that was cut short, now that a longer one stands in its place; unless another piece is the same, of somebody who
    /// went on from there meanwhile.
    async fn forget_replaced(&mut self, by: &BlobRef) {
        let Some(old) = self.replaced.take().filter(|old| *old != by.sha256) else { return };
        let removed = async {
            let mut tx = self.app.begin(&self.tenant, Role::File).await?;
            if upload::has_piece(&mut tx, self.upload.id, &old).await? {
                return Ok(());
            }
            drop(tx);
            Ok::<(), Problem>(self.app.storage.remove(&self.shelf(), &old).await?)
        };
        if let Err(problem) = removed.await {
            let code = problem.code().as_str();
            tracing::warn!(code, upload = %self.upload.id, "a piece of an upload that was replaced stays for a while");
        }
    }

    /// Why the upload is not where it was when this request began.
    async fn moved_on(&self) -> Problem {
        match super::find(&self.app, &self.tenant, self.upload.id).await {
            Err(problem) => problem,
            Ok(upload) => match upload.state.as_str() {
                "open" => elsewhere(upload.offset_bytes as u64),
                "completing" | "completed" => complete(),
                _ => {
                    self.clear().await;
                    ended(&upload)
                }
            },
        }
    }

    /// Why nothing can be stored any more, when it has ended.
    async fn ended_meanwhile(&self) -> Option<Problem> {
        let upload = super::find(&self.app, &self.tenant, self.upload.id).await.ok()?;
        if upload.state == "open" {
            return None;
        }
        Some(self.moved_on().await)
    }

    /// Removes what was stored after the upload had ended. What cannot be removed now is removed later.
    async fn clear(&self) {
        if let Err(error) = self.app.storage.clear(&self.shelf()).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, upload = %self.upload.id, "a piece of an upload that has ended stays for a while");
        }
    }
}

/// The bytes of a body once all of them have come and are what was announced, out of a temporary file; none when there are more than
/// `limit_bytes`. What is not as announced is thrown away, as tus wants it.
async fn checked(body: Body, mut checksum: Checksum, limit_bytes: u64) -> Result<Option<ByteStream>, Problem> {
    let disk = |error: io::Error| Problem::unavailable(&error);
    let mut file = tempfile::tempfile().map_err(disk)?;
    let mut chunks = idle_limited(body);
    let mut size_bytes = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|e| Problem::new(Code::BodyUnreadable, format!("the body ended early: {e}")))?;
        size_bytes += chunk.len() as u64;
        if size_bytes > limit_bytes {
            return Ok(None);
        }
        if size_bytes > headers::CHECKED_BYTES {
            return Err(headers::too_much_to_check());
        }
        checksum.update(&chunk);
        let written = tokio::task::spawn_blocking(move || file.write_all(&chunk).map(|()| file)).await;
        file = written.map_err(io::Error::other).and_then(|written| written).map_err(disk)?;
    }
    checksum.check()?;
    file.rewind().map_err(disk)?;
    let file = tokio::fs::File::from_std(file);
    Ok(Some(tokio_util::io::ReaderStream::with_capacity(file, CHUNK_BYTES).boxed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_gets_no_turn_is_told_to_come_again_and_keeps_nobody_else_out() {
        let (intakes, patience) = (Intakes::default(), Duration::from_millis(1));
        let (greedy, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut turns = vec![];
        for _ in 0..MOST_OF_A_TENANT {
            turns.push(intakes.turn_within(greedy, patience).await.unwrap());
        }
        assert_eq!(intakes.turn_within(greedy, patience).await.unwrap_err().code(), Code::Unavailable);
        assert!(intakes.turn_within(other, patience).await.is_ok());
        turns.pop();
        assert!(intakes.turn_within(greedy, patience).await.is_ok());
        drop(turns);
        drop(intakes.of(other));
        assert_eq!(intakes.tenants.lock().unwrap().len(), 1, "who sends nothing is forgotten");
    }
}
