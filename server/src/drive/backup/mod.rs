//! Backups of a running server, and bringing them back.
//!
//! A backup is a folder: one state of the database, the packs that it names, and `backup.json`. Packs
//! never change, so a further backup into the same folder copies new ones alone. The master key is
//! never in it.

mod disk;
mod manifest;
mod restore;
mod take;
mod verify;

pub use manifest::Manifest;
pub use restore::RESTORING;
pub use restore::Restored;
pub use restore::Target;
pub use restore::restore;
pub use take::Taken;
pub use take::take;
pub use verify::Verified;
pub use verify::verify;

use std::io;

use crate::blocks::BlocksError;
use crate::metadata::DbError;

use super::DriveError;

/// Why a backup or a restore did not come about.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// What was asked for cannot be; the text says why and what to do.
    #[error("{0}")]
    Refused(String),
    #[error("the backup is damaged: {0}")]
    Damaged(String),
    #[error("the disk of the backup: {0}")]
    Disk(#[from] io::Error),
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Drive(#[from] DriveError),
    #[error(transparent)]
    Blocks(#[from] BlocksError),
}
