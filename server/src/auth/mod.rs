//! Who asks: passwords, tokens, and the brake on guessing.
//!
//! Never keeps a password or token in the clear; every check of a token reads the database, so a
//! revocation holds from the next request on.

pub mod limiter;
pub mod password;
pub mod token;

use drivefs_core::id::NamespaceId;
use drivefs_core::id::UserId;

use crate::metadata::DbError;
use crate::metadata::Sql;
use crate::metadata::accounts;
use crate::metadata::tokens;
use token::TokenHash;

/// The account and device behind a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    pub user: UserId,
    pub email: String,
    pub root: NamespaceId,
    /// Number of the device or token.
    pub device: u64,
    /// Its name.
    pub device_name: String,
    /// Seconds since the Unix epoch.
    pub last_seen: i64,
}

/// Why a token opens nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("this server does not know the token")]
    Unknown,
    #[error("the token has expired")]
    Expired,
    #[error("the token was revoked")]
    Revoked,
    #[error("the account is disabled")]
    Disabled,
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Who holds this token, if it is good now.
///
/// Devices that were not seen for `idle_secs` have to log in again; tokens of scripts say themselves
/// when they end.
pub fn asker_of(
    sql: &mut dyn Sql,
    hash: &TokenHash,
    now: i64,
    idle_secs: Option<i64>,
) -> Result<Asker, AuthError> {
    let device = tokens::by_hash(sql, hash)?.ok_or(AuthError::Unknown)?;
    if device.revoked.is_some() {
        return Err(AuthError::Revoked);
    }
    if device.expires.is_some_and(|at| at <= now) {
        return Err(AuthError::Expired);
    }
    if !device.script && idle_secs.is_some_and(|idle| now - device.last_seen > idle) {
        return Err(AuthError::Expired);
    }
    let user = accounts::by_id(sql, device.user)?.ok_or(AuthError::Unknown)?;
    if user.disabled {
        return Err(AuthError::Disabled);
    }
    Ok(Asker {
        user: user.user,
        email: user.email,
        root: user.root_ns,
        device: device.device,
        device_name: device.name,
        last_seen: device.last_seen,
    })
}
