//! Why a use case did not do what was asked, sorted by what the caller does next.

use drivefs_core::id::BlockHash;
use drivefs_core::wire::ErrorCode;

use crate::auth::AuthError;
use crate::auth::password::PasswordError;
use crate::blocks::BlocksError;
use crate::metadata::DbError;

/// Most block names told in one message.
const NAMED_MAX: usize = 3;

#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    #[error("{0}")]
    BadRequest(String),
    #[error("e-mail and password do not fit, or the account is disabled")]
    BadCredentials,
    #[error("too many failed logins")]
    TooManyLogins { retry_after_secs: u64 },
    #[error(transparent)]
    Auth(AuthError),
    #[error("no such namespace, or it is not shared with you")]
    NoNamespace,
    #[error("this namespace is shared with you for reading only")]
    ReadOnly,
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    TooLarge(String),
    #[error("blocks are not here: {}", named(.0))]
    MissingBlocks(Vec<BlockHash>),
    /// Blocks were collected or moved while a commit was prepared.
    #[error("the store is being tidied up")]
    BlocksMoved,
    #[error("the cursor is not one that this server can go on from")]
    CursorExpired,
    #[error("the cursor is of changes that this server does not have: its data was restored")]
    CursorLost,
    #[error(transparent)]
    Blocks(#[from] BlocksError),
    #[error(transparent)]
    Db(DbError),
    #[error("the part of the server that ends uploads cannot be reached; the bytes are stored")]
    Away,
    #[error("{0}")]
    Internal(String),
}

impl DriveError {
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::BadRequest(_) | Self::Db(DbError::Range) => ErrorCode::BadRequest,
            Self::BadCredentials => ErrorCode::BadCredentials,
            Self::TooManyLogins { .. } => ErrorCode::TooManyRequests,
            Self::Auth(_) => ErrorCode::Unauthorized,
            Self::NoNamespace | Self::NotFound(_) => ErrorCode::NotFound,
            Self::ReadOnly => ErrorCode::Forbidden,
            Self::Conflict(_) => ErrorCode::Conflict,
            Self::TooLarge(_) => ErrorCode::TooLarge,
            Self::MissingBlocks(_) => ErrorCode::MissingBlocks,
            Self::CursorExpired => ErrorCode::CursorExpired,
            Self::CursorLost => ErrorCode::CursorLost,
            Self::Blocks(BlocksError::Full) | Self::Db(DbError::Full) => ErrorCode::StorageFull,
            Self::BlocksMoved | Self::Away | Self::Db(DbError::Busy | DbError::Closed) => {
                ErrorCode::Unavailable
            }
            Self::Blocks(BlocksError::Cold) => ErrorCode::BeingRestored,
            Self::Blocks(_) | Self::Db(_) | Self::Internal(_) => ErrorCode::Internal,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Auth(AuthError::Disabled) => "ask the operator of the server",
            Self::Auth(_) => "log in again",
            Self::TooManyLogins { .. } => "wait for the time in the header retry-after",
            Self::ReadOnly => "ask the owner for the role editor",
            Self::MissingBlocks(_) => "upload them with /sync/v1/packs first",
            Self::CursorExpired => "start again from cursor 0",
            Self::CursorLost => "start again from cursor 0, and send what is lost here again",
            Self::Blocks(BlocksError::Full) | Self::Db(DbError::Full) => {
                "the server's operator has to free or add disk space; nothing was stored, try again \
                 later"
            }
            Self::Away => "ask for the state of the upload again",
            Self::BlocksMoved | Self::Db(DbError::Busy | DbError::Closed) => "try again",
            Self::Blocks(BlocksError::Cold) => {
                "they come back by themselves; how long that takes is up to the archive"
            }
            _ => return None,
        })
    }
}

fn named(hashes: &[BlockHash]) -> String {
    let mut text =
        hashes.iter().take(NAMED_MAX).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if hashes.len() > NAMED_MAX {
        text.push_str(&format!(" and {} more", hashes.len() - NAMED_MAX));
    }
    text
}

impl From<DbError> for DriveError {
    fn from(e: DbError) -> Self {
        Self::Db(e)
    }
}

impl From<AuthError> for DriveError {
    fn from(e: AuthError) -> Self {
        match e {
            AuthError::Db(e) => Self::Db(e),
            other => Self::Auth(other),
        }
    }
}

impl From<PasswordError> for DriveError {
    fn from(e: PasswordError) -> Self {
        match e {
            PasswordError::Hash(text) => Self::Internal(text),
            other => Self::BadRequest(other.to_string()),
        }
    }
}
