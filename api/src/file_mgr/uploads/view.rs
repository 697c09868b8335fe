//! An upload as clients see it.

use chrono::{DateTime, Utc};
use flatrender_workflows::models::file_mgr::upload::Upload;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// An upload in pieces.
#[derive(Debug, Serialize, ToSchema)]
pub struct UploadView {
    /// Its id.
    id: Uuid,
    /// Always `upload`.
    #[schema(example = "upload")]
    object: &'static str,
    /// `tus`, or `multipart` when its parts go to the storage itself.
    #[schema(example = "tus")]
    protocol: String,
    /// How the file will be called.
    #[schema(example = "music.wav")]
    name: String,
    /// What it is for.
    #[schema(example = "asset")]
    purpose: String,
    /// The folder it comes into; should that be gone then, or have something of the same name, it comes into none.
    folder_id: Option<Uuid>,
    /// Its length.
    #[schema(example = 1_073_741_824_i64)]
    total_bytes: i64,
    /// How much of it is kept.
    offset_bytes: i64,
    /// Length of a part, of those that go to the storage itself; the last one may be shorter.
    part_bytes: Option<i64>,
    /// How many parts.
    part_count: Option<i32>,
    /// `open`; `completing` when everything is there and is looked at; then `completed` or `refused`. Else `aborted` or `expired`.
    #[schema(example = "completed")]
    state: String,
    /// The file that it became.
    file_id: Option<Uuid>,
    /// Why it was refused.
    refusal: Option<Refusal>,
    /// When it is given up unless it goes on.
    expires_at: DateTime<Utc>,
    /// When it began.
    created_at: DateTime<Utc>,
}

/// Why an upload did not become a file.
#[derive(Debug, Serialize, ToSchema)]
pub struct Refusal {
    /// Stable code, as of a problem.
    #[schema(example = "file.corrupt")]
    code: String,
    /// The same in words.
    #[schema(example = "the file is damaged")]
    detail: String,
}

impl From<Upload> for UploadView {
    fn from(u: Upload) -> Self {
        let refusal = u.refusal_code.map(|code| Refusal { code, detail: u.refusal.unwrap_or_default() });
        Self {
            id: u.id,
            object: "upload",
            protocol: u.protocol,
            name: u.name,
            purpose: u.purpose,
            folder_id: u.folder_id,
            total_bytes: u.total_bytes,
            offset_bytes: u.offset_bytes,
            part_bytes: u.part_bytes,
            part_count: u.part_count,
            state: u.state,
            file_id: u.file_id,
            refusal,
            expires_at: u.expires_at,
            created_at: u.created_at,
        }
    }
}
