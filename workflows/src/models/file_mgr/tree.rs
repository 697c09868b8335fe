//! What holds for folders and files alike: one change of a tenant's tree at a time, and why one is not made.

use crate::{contracts::file_name::FileName, models::Db};
use uuid::Uuid;

/// Why a folder or file is not as somebody wants it. After one that comes from the database the transaction is to be given up.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// There is no such folder or file of the tenant.
    #[error("it is not there")]
    Missing,
    /// There is no such folder of the tenant to put it into.
    #[error("the folder is not there")]
    FolderMissing,
    /// The folder to put it into is in the trash.
    #[error("the folder is in the trash")]
    FolderInTrash,
    /// A folder or file beside it is called so; neither case nor invisible characters make two names.
    #[error("the name is taken")]
    NameTaken,
    /// The folder would be within itself.
    #[error("the folder would be within itself")]
    Loop,
    /// A folder would be deeper than 20 levels.
    #[error("folders have at most 20 levels")]
    TooDeep,
    /// It is in the trash, where nothing changes.
    #[error("it is in the trash")]
    InTrash,
    /// It went into the trash with a folder above it, and comes back with that.
    #[error("it comes back with the folder {0}")]
    ComesWith(Uuid),
    /// Everybody may see pictures that were uploaded, and nothing else.
    #[error("it is no picture that everybody may see")]
    NotForEverybody,
    /// It has changed since the client looked.
    #[error("it has changed: it is at {0}")]
    Changed(i32),
    /// The database did not do it.
    #[error("the database refused")]
    Database(#[source] sqlx::Error),
}

impl From<sqlx::Error> for TreeError {
    fn from(error: sqlx::Error) -> Self {
        match error.as_database_error().and_then(|e| e.constraint()) {
            Some("folders_name" | "files_name") => Self::NameTaken,
            Some("no_folder_is_within_itself") => Self::Loop,
            Some("folders_have_20_levels") => Self::TooDeep,
            Some("what_is_there_is_in_no_trash") => Self::FolderInTrash,
            Some("what_is_public_is_a_picture") => Self::NotForEverybody,
            Some("folders_tenant_id_parent_id_fkey" | "files_tenant_id_folder_id_fkey") => Self::FolderMissing,
            _ => Self::Database(error),
        }
    }
}

/// What to change of a folder or file; what is none stays.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// The name.
    pub name: Option<FileName>,
    /// The folder it lies in; none of none: at the top.
    pub folder: Option<Option<Uuid>>,
    /// Whether everybody may see it, of a file; a folder is nobody's to see.
    pub is_public: Option<bool>,
}

/// How a folder or file stands, before it is changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub(super) rev: i32,
    pub(super) is_trashed: bool,
    pub(super) trashed_with: Option<Uuid>,
}

impl Standing {
    /// Whether a client that knows `rev` may change it.
    pub(super) fn check(self, rev: Option<i32>) -> Result<Self, TreeError> {
        match rev {
            Some(rev) if rev != self.rev => Err(TreeError::Changed(self.rev)),
            _ => Ok(self),
        }
    }

    /// The same of what is to be changed in place, which nothing in the trash is.
    pub(super) fn check_live(self, rev: Option<i32>) -> Result<(), TreeError> {
        match self.check(rev)?.is_trashed {
            true => Err(TreeError::InTrash),
            false => Ok(()),
        }
    }
}

/// Whoever changes a tenant's tree holds it to the end of the transaction, before any row.
pub(super) async fn hold(db: Db<'_>, tenant_id: Uuid) -> sqlx::Result<()> {
    sqlx::query!("select file_mgr.hold_tree($1)", tenant_id).execute(db).await?;
    Ok(())
}
