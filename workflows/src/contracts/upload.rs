//! What is done with an upload once all of it is there, and once it has ended.

use super::{media::MEDIA_QUEUE, storage::BlobRef};
use flatrender_engine::{Activity, Failure, Policy};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

/// Puts an upload together, looks at what it is, and only then stores it among the tenant's files. Repeatable: the content is stored by its hash,
/// the pieces stay.
///
/// Fails for now with `storage.full`, `storage.unavailable`, `media.disk` or `media.tool_missing`, which have nothing to do with what came:
/// whoever asks for it may ask again later. `media.unchecked` may have. Fails for good with `file.*` when it is not taken in, with
/// `blob.mismatch` when it is not what was announced, and with `storage.not_found` or `storage.too_long` when its pieces do not make it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeUpload {
    /// The upload.
    pub upload_id: Uuid,
    /// What has come.
    pub from: Pieces,
    /// Its whole length.
    pub total_bytes: u64,
    /// SHA-256 of the whole, when it was announced.
    pub sha256: Option<super::storage::BlobHash>,
}

/// Where the bytes of an upload lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pieces {
    /// On the upload's shelf, in this order.
    Shelf(Vec<BlobRef>),
    /// In the storage's own upload, put together.
    Direct,
}

/// An upload that was taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenUpload {
    /// What the tenant keeps.
    pub blob: BlobRef,
    /// `image`, `audio`, `video` or `archive`.
    pub kind: String,
    /// Media type, found in the content.
    pub mime: String,
    /// Pixels.
    pub width: Option<i32>,
    /// Pixels.
    pub height: Option<i32>,
    /// Milliseconds.
    pub duration_ms: Option<i64>,
}

impl Activity for TakeUpload {
    const NAME: &'static str = "TakeUpload";
    const QUEUE: &'static str = MEDIA_QUEUE;
    type Output = TakenUpload;

    fn policy(&self) -> Policy {
        Policy {
            max_failures: 10,
            backoff_base: Duration::from_secs(1),
            lease: Duration::from_secs(15),
            start_to_close: Duration::from_secs(3600),
            ..Policy::default()
        }
    }
}

/// An upload that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedUpload {
    /// Whose it was.
    pub tenant_id: Uuid,
    /// It.
    pub upload_id: Uuid,
    /// The storage's own name for it, when parts went there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_upload: Option<String>,
}

/// Removes the pieces of uploads that have ended, of each as far as it can. Repeatable. Fails with `storage.*` when it can of none; then
/// [`Uncleared::tried`] tells which ones it tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClearUploads {
    /// Which ones.
    pub uploads: Vec<EndedUpload>,
}

/// What is left of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Uncleared {
    /// Uploads of which pieces could not be removed.
    pub uploads: Vec<Uuid>,
    /// Why, of the first.
    pub why: Option<Failure>,
}

impl Uncleared {
    /// The failure of who has `tried` these and could remove the pieces of none.
    pub fn of_none(tried: &[Uuid], why: Failure) -> Failure {
        why.with_details(json!({ "tried": tried }))
    }

    /// Which ones were tried before it failed so, as far as it says.
    pub fn tried(why: &Failure) -> Vec<Uuid> {
        why.details.get("tried").and_then(|tried| Vec::deserialize(tried).ok()).unwrap_or_default()
    }
}

impl Activity for ClearUploads {
    const NAME: &'static str = "ClearUploads";
    const QUEUE: &'static str = MEDIA_QUEUE;
    /// Nothing when nothing is left.
    type Output = Option<Uncleared>;

    fn policy(&self) -> Policy {
        Policy {
            max_failures: 3,
            backoff_base: Duration::from_secs(1),
            lease: Duration::from_secs(15),
            start_to_close: Duration::from_secs(600),
            ..Policy::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_could_clear_none_says_which_ones_were_tried() {
        let (ids, away) = (vec![Uuid::from_u128(1), Uuid::from_u128(2)], Failure::transient("storage.full", "away"));
        assert!(Uncleared::tried(&away).is_empty());
        assert_eq!(Uncleared::tried(&Uncleared::of_none(&ids, away)), ids);
    }
}
