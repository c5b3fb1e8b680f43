//! What can go wrong with the database.

/// Why the database did not answer.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    #[error("the state database is damaged: {0}")]
    Damaged(String),
    #[error("the state database was made by a newer drivefs (format {0})")]
    Newer(i64),
    #[error("no space left for the state database")]
    Full,
    #[error("the state database is in use by another process")]
    InUse,
    #[error("state database: {0}")]
    Other(String),
}

impl From<rusqlite::Error> for DbError {
    fn from(e: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        match e.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged(e.to_string())
            }
            Some(ErrorCode::DiskFull) => Self::Full,
            _ => Self::Other(e.to_string()),
        }
    }
}

impl From<std::io::Error> for DbError {
    fn from(e: std::io::Error) -> Self {
        match e.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::Full,
            std::io::ErrorKind::WouldBlock => Self::InUse,
            _ => Self::Other(format!("redo log: {e}")),
        }
    }
}
