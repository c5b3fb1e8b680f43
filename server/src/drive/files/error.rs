//! Why a call of the file API did not do what was asked. The door turns it into shapes and codes.

use drivefs_core::wire::ErrorCode;

use serde::Deserialize;
use serde::Serialize;

use super::path::PathError;
use crate::drive::DriveError;
use crate::metadata::DbError;

#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error("{0}")]
    BadRequest(String),
    #[error("{0}")]
    Path(#[from] PathError),
    #[error("there is nothing at this path")]
    NotFound,
    #[error("that is not a file")]
    NotFile,
    #[error("that is not a folder")]
    NotFolder,
    /// The place is taken by something else than what was expected there.
    #[error("{1}")]
    Conflict(Taken, String),
    #[error("you may read here, not write")]
    NoWrite,
    #[error("{0}")]
    NoSpace(String),
    #[error("{0}")]
    TooLarge(String),
    #[error("a folder cannot go into itself")]
    IntoItself,
    #[error("{0}")]
    SharedFolder(&'static str),
    #[error("{0}")]
    TooMany(String),
    #[error("the file has no such revision")]
    NoRevision,
    #[error("the cursor cannot be gone on from: list anew")]
    Reset,
    #[error("there is no such upload, or it is too old: begin it again")]
    NoUpload,
    #[error("the upload goes on at byte {0}")]
    Offset(u64),
    #[error("the upload was closed: no more bytes can be added")]
    Closed,
    #[error("the bytes do not have the content_hash that was sent along")]
    Hash,
    #[error(transparent)]
    Drive(DriveError),
}

/// What stands where something else was to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Taken {
    File,
    Folder,
    /// A name on the way is a file.
    FileAncestor,
}

impl FilesError {
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::BadRequest(_) | Self::Path(_) | Self::NotFile | Self::NotFolder => {
                ErrorCode::BadRequest
            }
            Self::NotFound | Self::NoRevision | Self::NoUpload => ErrorCode::NotFound,
            Self::Conflict(..) | Self::Offset(_) | Self::Closed | Self::IntoItself => {
                ErrorCode::Conflict
            }
            Self::NoWrite | Self::SharedFolder(_) => ErrorCode::Forbidden,
            Self::NoSpace(_) => ErrorCode::QuotaExceeded,
            Self::TooLarge(_) => ErrorCode::TooLarge,
            Self::TooMany(_) | Self::Hash => ErrorCode::BadRequest,
            Self::Reset => ErrorCode::CursorExpired,
            Self::Drive(e) => e.code(),
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::NoWrite => "ask the owner for the role editor",
            Self::NoSpace(_) => "delete something, or ask the operator for a larger quota",
            Self::NoUpload => "start the upload again from its beginning",
            Self::Offset(_) => "ask for its state and send what follows",
            Self::Reset => "call list_folder again",
            Self::Drive(e) => return e.hint(),
            _ => return None,
        })
    }
}

impl From<DriveError> for FilesError {
    fn from(e: DriveError) -> Self {
        match e {
            DriveError::ReadOnly => Self::NoWrite,
            DriveError::NoNamespace => Self::NotFound,
            DriveError::TooLarge(text) => Self::TooLarge(text),
            other => Self::Drive(other),
        }
    }
}

impl From<DbError> for FilesError {
    fn from(e: DbError) -> Self {
        Self::Drive(e.into())
    }
}
