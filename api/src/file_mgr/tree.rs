//! What folders and files have in common: how a name and a place are read, and why a change is refused.

use crate::{
    problem::{Code, Problem},
    revision,
};
use flatrender_workflows::{contracts::file_name::FileName, models::file_mgr::tree::TreeError};
use serde::{Deserialize, Deserializer};
use uuid::Uuid;

/// What a change is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thing {
    /// A folder, and where it lies is called `parent_id`.
    Folder,
    /// A file, and where it lies is called `folder_id`.
    File,
}

impl Thing {
    /// The problem of a change that was not made.
    pub fn refusal(self, error: TreeError) -> Problem {
        let (name_taken, in_trash, place) = match self {
            Self::Folder => (Code::FolderNameTaken, Code::FolderInTrash, "/parent_id"),
            Self::File => (Code::FileNameTaken, Code::FileInTrash, "/folder_id"),
        };
        match error {
            TreeError::Missing => self.missing(),
            TreeError::FolderMissing => Problem::fault(place, "folder.not_found", "there is no such folder"),
            TreeError::FolderInTrash => Problem::new(Code::FolderInTrash, "the folder it would be in is in the trash"),
            TreeError::NameTaken => {
                Problem::new(name_taken, "a folder or file beside it is called so, be it in other case")
            }
            TreeError::Loop => Problem::new(Code::FolderWithinItself, "a folder cannot lie within itself"),
            TreeError::TooDeep => Problem::new(Code::FolderTooDeep, "folders have at most 20 levels"),
            TreeError::InTrash => Problem::new(in_trash, "it is in the trash: restore it first"),
            TreeError::ComesWith(id) => {
                Problem::new(Code::TrashWithFolder, format!("it went with the folder {id}, and comes back with it"))
            }
            TreeError::NotForEverybody => Problem::fault(
                "/visibility",
                "file.visibility",
                "everybody may see pictures that were uploaded, PNG, JPEG or WebP, and nothing else",
            ),
            TreeError::Changed(rev) => revision::stale(rev),
            TreeError::Database(error) => error.into(),
        }
    }

    /// There is none of that id.
    pub fn missing(self) -> Problem {
        match self {
            Self::Folder => Problem::not_found(Code::FolderNotFound, "folder"),
            Self::File => Problem::not_found(Code::FileNotFound, "file"),
        }
    }
}

/// The name in the body of a request.
///
/// # Errors
/// `request.invalid`
pub fn name(text: &str) -> Result<FileName, Problem> {
    FileName::parse(text).map_err(|why| Problem::fault("/name", "file.name", why.to_string()))
}

/// Tells a null, which is the top, from what is absent.
pub fn given<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Option<Uuid>>, D::Error> {
    Option::deserialize(value).map(Some)
}
