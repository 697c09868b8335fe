//! Where a blob lies. Keys are made of ids and hashes only; no name that a person chose is ever part of one.

use flatrender_workflows::contracts::storage::{BlobHash, Shelf};
use object_store::path::Path;
use uuid::Uuid;

/// Uploads that are not finished.
pub(super) const INCOMING: &str = "incoming";
/// Small objects that prove the storage works.
pub(super) const PROBE: &str = "probe";

/// `tenants/<tenant>/files`, `tenants/<tenant>/uploads/<upload>`, `tenants/<tenant>/renders/<render>`, `tenants/<tenant>/scenes/<two digits>/<key>`,
/// `public` or `archives`.
pub fn shelf(shelf: &Shelf) -> Path {
    match shelf {
        Shelf::Files { tenant_id } => Path::from_iter(["tenants", &tenant_id.to_string(), "files"]),
        Shelf::Render { tenant_id, render_id } => {
            Path::from_iter(["tenants", &tenant_id.to_string(), "renders", &render_id.to_string()])
        }
        Shelf::Upload { tenant_id, upload_id } => {
            Path::from_iter(["tenants", &tenant_id.to_string(), "uploads", &upload_id.to_string()])
        }
        Shelf::Public => Path::from("public"),
        Shelf::Archives => Path::from("archives"),
        Shelf::Scene { tenant_id, key } => {
            Path::from_iter(["tenants", &tenant_id.to_string(), "scenes", &key.as_str()[..2], key.as_str()])
        }
    }
}

/// `<shelf>/<first two digits>/<hash>`: no folder grows beyond a 256th of its shelf.
pub fn blob(on: &Shelf, hash: &BlobHash) -> Path {
    let digits = hash.as_str();
    shelf(on).join(&digits[..2]).join(digits)
}

/// Where the blobs of a shelf lie whose hash begins with `first`.
pub(super) fn part(on: &Shelf, first: u8) -> Path {
    shelf(on).join(hex::encode([first]).as_str())
}

/// An upload that clients send straight to the store.
pub(super) fn upload(id: Uuid) -> Path {
    Path::from_iter([INCOMING, &id.to_string()])
}

/// A new temporary below `folder`.
pub(super) fn temporary(folder: &str) -> Path {
    Path::from_iter([folder, &Uuid::now_v7().to_string()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_tenant_shelf_and_hash() {
        let (tenant_id, render_id) = (Uuid::nil(), Uuid::max());
        let hash = BlobHash::of(b"");
        let key = blob(&Shelf::Render { tenant_id, render_id }, &hash);
        assert_eq!(
            key.as_ref(),
            "tenants/00000000-0000-0000-0000-000000000000/renders/ffffffff-ffff-ffff-ffff-ffffffffffff/e3/\
             e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        let files = Shelf::Files { tenant_id };
        assert!(blob(&files, &hash).as_ref().contains("/files/e3/"));
        assert!(blob(&files, &hash).prefix_matches(&part(&files, 0xe3)));
        assert!(part(&files, 7).as_ref().ends_with("/files/07"));
    }
}
