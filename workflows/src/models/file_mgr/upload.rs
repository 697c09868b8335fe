//! Uploads that come in pieces, resumed after any cut, and what becomes of them.
//!
//! ```text
//!          ┌──── piece ───┐
//!          ▼              │        all there          looked at
//! create ─▶ open ─────────┴─────▶ completing ─────────▶ completed: a file
//!             │                        ├──────────────▶ refused: it is not taken in
//!             ├──▶ aborted             │
//!             └──▶ expired ◀───────────┘ nobody has finished it for a day
//! ```
//!
//! The room of an upload is set aside when it is created, and given back by whatever ends it. A piece counts once it is kept and its row
//! is committed: `offset_bytes` is what a client may rely on, and moves only from where the client has said it is.

use super::{
    blob,
    file::{self, NewFile},
    folder,
    quota::{self, Outcome},
    tree::{Change, TreeError},
};
use crate::{
    contracts::{
        storage::{BlobHash, BlobRef},
        upload::{EndedUpload, Pieces, TakeUpload, TakenUpload},
    },
    models::{Db, content::project::blob_ref},
};
use chrono::{DateTime, TimeDelta, Utc};
use flatrender_engine::Failure;
use uuid::Uuid;

/// Uploads that a tenant may have under way.
pub const MOST_OPEN: i64 = 1000;
/// The code of a failure: what was stored is being removed at the same time. Storing it again helps.
pub const DOOMED: &str = "blob.doomed";
/// How long an upload waits for its next piece.
const PATIENCE: TimeDelta = TimeDelta::days(1);
/// How long an upload may take.
const LONGEST: TimeDelta = TimeDelta::days(7);
/// How long an upload's room is set aside should nothing ever end it.
const ROOM: TimeDelta = TimeDelta::days(9);
/// Longest sentence kept about a refusal, in characters.
const REFUSAL_CHARS: usize = 1000;

/// How the bytes come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Through us, one piece after the other.
    Tus,
    /// To the storage itself, in so many parts of this length; the last one may be shorter.
    Multipart {
        /// Length of a part.
        part_bytes: i64,
        /// How many there are.
        parts: i32,
    },
}

/// An upload to begin.
#[derive(Debug, Clone)]
pub struct NewUpload<'a> {
    /// Whose file it will be; none for the tenant's.
    pub owner_id: Option<Uuid>,
    /// The folder it will lie in.
    pub folder_id: Option<Uuid>,
    /// How the file will be called.
    pub name: &'a str,
    /// What it is for, as files have it.
    pub purpose: &'a str,
    /// Its length.
    pub total_bytes: i64,
    /// SHA-256 of the whole, when the client knows it.
    pub sha256: Option<&'a BlobHash>,
    /// How it comes.
    pub protocol: Protocol,
    /// The storage's own name for it.
    pub storage_upload: Option<&'a str>,
}

/// An upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Its id.
    pub id: Uuid,
    /// `tus` or `multipart`.
    pub protocol: String,
    /// How the file will be called.
    pub name: String,
    /// What it is for.
    pub purpose: String,
    /// The folder it will lie in.
    pub folder_id: Option<Uuid>,
    /// Its length.
    pub total_bytes: i64,
    /// How much of it is kept.
    pub offset_bytes: i64,
    /// Length of a part, of those that go to the storage itself.
    pub part_bytes: Option<i64>,
    /// How many parts.
    pub part_count: Option<i32>,
    /// The storage's own name for it.
    pub storage_upload: Option<String>,
    /// `open`, `completing`, `completed`, `refused`, `aborted` or `expired`.
    pub state: String,
    /// The file that it became.
    pub file_id: Option<Uuid>,
    /// Why it was refused.
    pub refusal_code: Option<String>,
    /// The same in words.
    pub refusal: Option<String>,
    /// When it is given up.
    pub expires_at: DateTime<Utc>,
    /// When it began.
    pub created_at: DateTime<Utc>,
}

/// What came of beginning an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// It is there, and its room set aside.
    Open,
    /// There is no room for it.
    NoRoom,
    /// The tenant has [`MOST_OPEN`] under way.
    TooMany,
}

/// The reservation of an upload.
fn room(id: Uuid) -> String {
    format!("upload:{id}")
}

/// Begins an upload with the id `id` and sets its room aside; when it cannot, nothing is there.
///
/// # Errors
/// Those of the database.
pub async fn begin(db: Db<'_>, tenant_id: Uuid, id: Uuid, new: &NewUpload<'_>) -> sqlx::Result<Begun> {
    if !quota::reserve(&mut *db, tenant_id, new.owner_id, new.total_bytes, &room(id), ROOM).await? {
        return Ok(Begun::NoRoom);
    }
    let (protocol, part_bytes, parts) = match new.protocol {
        Protocol::Tus => ("tus", None, None),
        Protocol::Multipart { part_bytes, parts } => ("multipart", Some(part_bytes), Some(parts)),
    };
    // Setting room aside has taken the tenant's turn: nobody else begins one meanwhile.
    let begun = sqlx::query!(
        "insert into file_mgr.upload_sessions
             (id, tenant_id, owner_id, folder_id, name, purpose, total_bytes, sha256_expected, protocol, part_bytes, part_count,
              storage_upload, expires_at, created_at, updated_at)
         select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, workflow.now() + make_interval(secs => $13), workflow.now(), workflow.now()
         where (select count(*) from file_mgr.upload_sessions where tenant_id = $2 and state in ('open', 'completing')) < $14",
        id,
        tenant_id,
        new.owner_id,
        new.folder_id,
        new.name,
        new.purpose,
        new.total_bytes,
        new.sha256.map(BlobHash::as_str),
        protocol,
        part_bytes,
        parts,
        new.storage_upload,
        PATIENCE.as_seconds_f64(),
        MOST_OPEN,
    );
    if begun.execute(&mut *db).await?.rows_affected() > 0 {
        return Ok(Begun::Open);
    }
    quota::settle(db, tenant_id, &room(id), Outcome::Released).await?;
    Ok(Begun::TooMany)
}

/// An upload of the tenant, of this owner or, without one, of nobody in person.
///
/// # Errors
/// Those of the database.
pub async fn find(db: Db<'_>, tenant_id: Uuid, owner_id: Option<Uuid>, id: Uuid) -> sqlx::Result<Option<Upload>> {
    sqlx::query_as!(
        Upload,
        "select id, protocol, name, purpose, folder_id, total_bytes, offset_bytes, part_bytes, part_count, storage_upload, state, file_id,
                refusal_code, refusal, expires_at, created_at
         from file_mgr.upload_sessions where tenant_id = $1 and id = $3 and owner_id is not distinct from $2",
        tenant_id,
        owner_id,
        id,
    )
    .fetch_optional(db)
    .await
}

/// One piece of an upload, if it has arrived.
///
/// # Errors
/// Those of the database.
pub async fn piece(db: Db<'_>, id: Uuid, number: i32) -> sqlx::Result<Option<BlobRef>> {
    let row = sqlx::query!(
        "select sha256, size_bytes from file_mgr.upload_parts where session_id = $1 and part_no = $2",
        id,
        number
    );
    row.fetch_optional(db).await?.map(|r| blob_ref(r.sha256, r.size_bytes)).transpose()
}

/// Whether a piece of an upload has this content.
///
/// # Errors
/// Those of the database.
pub async fn has_piece(db: Db<'_>, id: Uuid, hash: &BlobHash) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from file_mgr.upload_parts where session_id = $1 and sha256 = $2) as "it!""#,
        id,
        hash.as_str(),
    )
    .fetch_one(db)
    .await
}

/// Keeps pieces that are stored, the first of them numbered `first`, if the upload is still open and as far as `from`; now it is as far as
/// `to`. A piece that is there already has grown and is replaced. None when it was not kept; else whether all of it is there.
///
/// # Errors
/// Those of the database.
pub async fn keep(
    db: Db<'_>,
    tenant_id: Uuid,
    id: Uuid,
    (from, to): (u64, u64),
    first: i32,
    pieces: &[BlobRef],
) -> sqlx::Result<Option<bool>> {
    let moved = sqlx::query_scalar!(
        r#"update file_mgr.upload_sessions
           set offset_bytes = $4, updated_at = workflow.now(),
               state = case when $4 = total_bytes then 'completing' else state end,
               expires_at = case when $4 = total_bytes then workflow.now() + make_interval(secs => $5)
                   else least(workflow.now() + make_interval(secs => $5), created_at + make_interval(secs => $6)) end
           where tenant_id = $1 and id = $2 and state = 'open' and protocol = 'tus' and offset_bytes = $3
           returning state = 'completing' as "whole!""#,
        tenant_id,
        id,
        from as i64,
        to as i64,
        PATIENCE.as_seconds_f64(),
        LONGEST.as_seconds_f64(),
    );
    let Some(whole) = moved.fetch_optional(&mut *db).await? else { return Ok(None) };
    let numbers: Vec<i32> = (first..).take(pieces.len()).collect();
    let (hashes, sizes): (Vec<String>, Vec<i64>) =
        pieces.iter().map(|p| (p.sha256.to_string(), p.size_bytes as i64)).unzip();
    sqlx::query!(
        "insert into file_mgr.upload_parts (tenant_id, session_id, part_no, sha256, size_bytes, uploaded_at)
         select $1, $2, number, sha256, size_bytes, workflow.now() from unnest($3::int[], $4::text[], $5::bigint[]) p (number, sha256, size_bytes)
         on conflict (session_id, part_no) do update
         set sha256 = excluded.sha256, size_bytes = excluded.size_bytes, uploaded_at = excluded.uploaded_at",
        tenant_id,
        id,
        &numbers,
        &hashes,
        &sizes,
    )
    .execute(db)
    .await?;
    Ok(Some(whole))
}

/// Takes a piece back that was recorded and is not there: an open upload that is as far as `from` is as far as `to` again, where the piece
/// begins. False when it has moved on meanwhile.
///
/// # Errors
/// Those of the database.
pub async fn take_back(
    db: Db<'_>,
    tenant_id: Uuid,
    id: Uuid,
    (from, to): (u64, u64),
    number: i32,
    lost: &BlobHash,
) -> sqlx::Result<bool> {
    let moved = sqlx::query!(
        "update file_mgr.upload_sessions set offset_bytes = $4, updated_at = workflow.now()
         where tenant_id = $1 and id = $2 and state = 'open' and offset_bytes = $3
           and exists (select from file_mgr.upload_parts where session_id = $2 and part_no = $5 and sha256 = $6)",
        tenant_id,
        id,
        from as i64,
        to as i64,
        number,
        lost.as_str(),
    );
    if moved.execute(&mut *db).await?.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query!("delete from file_mgr.upload_parts where session_id = $1 and part_no = $2", id, number)
        .execute(db)
        .await?;
    Ok(true)
}

/// Somebody goes on with an open upload whose parts go to the storage: it has as long again for the next one. Asking where a part goes is all
/// that we see of it. False when it is not open.
///
/// # Errors
/// Those of the database.
pub async fn go_on(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<bool> {
    let longer = sqlx::query!(
        "update file_mgr.upload_sessions
         set expires_at = least(workflow.now() + make_interval(secs => $3), created_at + make_interval(secs => $4)),
             updated_at = workflow.now()
         where tenant_id = $1 and id = $2 and state = 'open' and protocol = 'multipart'",
        tenant_id,
        id,
        PATIENCE.as_seconds_f64(),
        LONGEST.as_seconds_f64(),
    );
    Ok(longer.execute(db).await?.rows_affected() > 0)
}

/// The parts of an open upload are with the storage: from here on it is completed. False when it is not open.
///
/// # Errors
/// Those of the database.
pub async fn complete(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<bool> {
    let completing = sqlx::query!(
        "update file_mgr.upload_sessions
         set state = 'completing', offset_bytes = total_bytes, updated_at = workflow.now(),
             expires_at = workflow.now() + make_interval(secs => $3)
         where tenant_id = $1 and id = $2 and state = 'open' and protocol = 'multipart'",
        tenant_id,
        id,
        PATIENCE.as_seconds_f64(),
    );
    Ok(completing.execute(db).await?.rows_affected() > 0)
}

/// Gives an open upload up, and its room back. False when it is not open.
///
/// # Errors
/// Those of the database.
pub async fn abort(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<bool> {
    let aborted = sqlx::query!(
        "update file_mgr.upload_sessions set state = 'aborted', updated_at = workflow.now()
         where tenant_id = $1 and id = $2 and state = 'open'",
        tenant_id,
        id,
    );
    if aborted.execute(&mut *db).await?.rows_affected() == 0 {
        return Ok(false);
    }
    quota::settle(db, tenant_id, &room(id), Outcome::Released).await?;
    Ok(true)
}

/// What is to be done with an upload of which everything is there.
///
/// # Errors
/// `upload.gone` when it is not to be completed; those of the database.
pub async fn work(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> Result<TakeUpload, Failure> {
    let row = sqlx::query!(
        "select protocol, total_bytes, sha256_expected from file_mgr.upload_sessions
         where tenant_id = $1 and id = $2 and state = 'completing'",
        tenant_id,
        id
    );
    let row = row.fetch_optional(&mut *db).await?.ok_or_else(|| gone(id))?;
    let sha256 = row.sha256_expected.map(|hash| hash.parse().map_err(|e| sqlx::Error::Decode(Box::new(e))));
    let from = match row.protocol.as_str() {
        "tus" => Pieces::Shelf(pieces(db, id).await?),
        _ => Pieces::Direct,
    };
    Ok(TakeUpload { upload_id: id, from, total_bytes: row.total_bytes as u64, sha256: sha256.transpose()? })
}

/// Whether it is still to be done.
///
/// # Errors
/// Those of the database.
pub async fn is_completing(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from file_mgr.upload_sessions where tenant_id = $1 and id = $2 and state = 'completing') as "it!""#,
        tenant_id,
        id,
    )
    .fetch_one(db)
    .await
}

async fn pieces(db: Db<'_>, id: Uuid) -> sqlx::Result<Vec<BlobRef>> {
    let rows =
        sqlx::query!("select sha256, size_bytes from file_mgr.upload_parts where session_id = $1 order by part_no", id);
    rows.fetch_all(db).await?.into_iter().map(|r| blob_ref(r.sha256, r.size_bytes)).collect()
}

/// Makes a file of an upload that was taken in, in the room that was set aside for it, and gives the file's id. It comes into its folder,
/// or into none when that is gone, in the trash, or has something of the same name by now.
///
/// # Errors
/// `upload.gone` when the upload is not to be completed any more; `quota.storage` when what came of it has no room; those of the database.
pub async fn become_file(db: Db<'_>, tenant_id: Uuid, id: Uuid, taken: &TakenUpload) -> Result<Uuid, Failure> {
    let row = sqlx::query!(
        "select owner_id, folder_id, name, purpose from file_mgr.upload_sessions
         where tenant_id = $1 and id = $2 and state = 'completing' for update",
        tenant_id,
        id
    );
    let row = row.fetch_optional(&mut *db).await?.ok_or_else(|| gone(id))?;
    quota::settle(&mut *db, tenant_id, &room(id), Outcome::Used).await?;
    let file = NewFile {
        owner_id: row.owner_id,
        name: &row.name,
        purpose: &row.purpose,
        kind: &taken.kind,
        mime: &taken.mime,
        blob: &taken.blob,
        width: taken.width,
        height: taken.height,
        duration_ms: taken.duration_ms,
    };
    let file_id = file::insert(&mut *db, tenant_id, &file).await.map_err(|error| {
        if quota::has_refused(&error) {
            return Failure::permanent("quota.storage", "there is no room for what came of the upload");
        }
        if blob::is_gone(&error) {
            return Failure::permanent(DOOMED, "the same content was removed meanwhile");
        }
        error.into()
    })?;
    if let Some(folder) = row.folder_id
        && folder::has_place(&mut *db, tenant_id, folder, &row.name).await?
    {
        let into = Change { folder: Some(Some(folder)), ..Change::default() };
        file::change(&mut *db, tenant_id, file_id, None, &into).await.map_err(|why| match why {
            TreeError::Database(error) => error.into(),
            why => Failure::transient("folder.changed", format!("the folder has changed: {why}")),
        })?;
    }
    sqlx::query!(
        "update file_mgr.upload_sessions set state = 'completed', file_id = $3, updated_at = workflow.now() where tenant_id = $1 and id = $2",
        tenant_id,
        id,
        file_id
    )
    .execute(db)
    .await?;
    Ok(file_id)
}

/// Ends an upload that was not taken in, and gives its room back. One that has ended stays as it is.
///
/// # Errors
/// Those of the database.
pub async fn refuse(db: Db<'_>, tenant_id: Uuid, id: Uuid, why: &Failure) -> sqlx::Result<()> {
    let words: String = why.message.chars().take(REFUSAL_CHARS).collect();
    let refused = sqlx::query!(
        "update file_mgr.upload_sessions set state = 'refused', refusal_code = left($3, 128), refusal = $4, updated_at = workflow.now()
         where tenant_id = $1 and id = $2 and state = 'completing'",
        tenant_id,
        id,
        why.code,
        words,
    );
    if refused.execute(&mut *db).await?.rows_affected() > 0 {
        quota::settle(db, tenant_id, &room(id), Outcome::Released).await?;
    }
    Ok(())
}

/// Gives up to `limit` uploads up whose time is over, and their room back; gives how many. Of all tenants.
///
/// # Errors
/// Those of the database.
pub async fn expire(db: Db<'_>, limit: i64) -> sqlx::Result<u64> {
    let rows = sqlx::query!(
        r#"update file_mgr.upload_sessions set state = 'expired', updated_at = workflow.now()
           where id in (select id from file_mgr.upload_sessions where state in ('open', 'completing') and expires_at <= workflow.now()
                        order by tenant_id, expires_at limit $1 for update skip locked)
           returning id, tenant_id"#,
        limit,
    )
    .fetch_all(&mut *db)
    .await?;
    let mut ended: Vec<(Uuid, Uuid)> = rows.into_iter().map(|r| (r.tenant_id, r.id)).collect();
    // Tenant by tenant, as whoever else takes the turns of several does it.
    ended.sort_unstable();
    for (tenant_id, id) in &ended {
        quota::settle(&mut *db, *tenant_id, &room(*id), Outcome::Released).await?;
    }
    Ok(ended.len() as u64)
}

/// Uploads that ended an hour ago or earlier and whose pieces may still be there, but for those that were tried in vain: whoever wrote the last
/// piece is done by then.
///
/// # Errors
/// Those of the database.
pub async fn uncleared(db: Db<'_>, except: &[Uuid], limit: i64) -> sqlx::Result<Vec<EndedUpload>> {
    let rows = sqlx::query!(
        "select tenant_id, id, storage_upload from file_mgr.upload_sessions
         where cleared_at is null and state not in ('open', 'completing') and updated_at < workflow.now() - interval '1 hour'
           and id <> all($2)
         order by updated_at limit $1",
        limit,
        except,
    );
    let ended = |(tenant_id, upload_id, storage_upload)| EndedUpload { tenant_id, upload_id, storage_upload };
    Ok(rows.fetch_all(db).await?.into_iter().map(|r| ended((r.tenant_id, r.id, r.storage_upload))).collect())
}

/// Notes that the pieces of uploads are gone.
///
/// # Errors
/// Those of the database.
pub async fn cleared(db: Db<'_>, uploads: &[EndedUpload]) -> sqlx::Result<()> {
    let ids: Vec<Uuid> = uploads.iter().map(|u| u.upload_id).collect();
    sqlx::query!(
        "update file_mgr.upload_sessions set cleared_at = workflow.now() where id = any($1) and cleared_at is null",
        &ids
    )
    .execute(db)
    .await
    .map(drop)
}

/// Forgets up to `limit` uploads whose pieces were removed three months ago; gives how many. The files that came of them stay.
///
/// # Errors
/// Those of the database.
pub async fn forget_old(db: Db<'_>, limit: i64) -> sqlx::Result<u64> {
    let gone = sqlx::query!(
        "delete from file_mgr.upload_sessions where id in (
             select id from file_mgr.upload_sessions where cleared_at < workflow.now() - interval '90 days' order by cleared_at limit $1)",
        limit
    );
    Ok(gone.execute(db).await?.rows_affected())
}

fn gone(id: Uuid) -> Failure {
    Failure::permanent("upload.gone", format!("upload {id} is not to be completed any more"))
}
