//! Passwords: argon2id (RFC 9106) with the crate's defaults, 19 MiB and two passes.
//!
//! Slow on purpose, so it runs on blocking threads, few at once.

use std::sync::LazyLock;

use argon2::Argon2;
use argon2::password_hash::PasswordHasher;
use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use drivefs_core::limits::PASSWORD_MAX_BYTES;
use drivefs_core::limits::PASSWORD_MIN_CHARS;

/// Why a password cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    #[error("a password needs at least {PASSWORD_MIN_CHARS} characters")]
    TooShort,
    #[error("a password has at most {PASSWORD_MAX_BYTES} bytes")]
    TooLong,
    #[error("the password could not be hashed: {0}")]
    Hash(String),
}

/// Hash of a password that nobody has: verified against where there is no account, so that an
/// answer takes as long as for an account.
static NOBODY: LazyLock<String> =
    LazyLock::new(|| hash("nobody has this password").unwrap_or_default());

/// The PHC string of a new password. Blocks for tens of milliseconds.
pub fn hash(password: &str) -> Result<String, PasswordError> {
    if password.chars().count() < PASSWORD_MIN_CHARS {
        return Err(PasswordError::TooShort);
    }
    if password.len() > PASSWORD_MAX_BYTES {
        return Err(PasswordError::TooLong);
    }
    let hash = Argon2::default()
        .hash_password(password.as_bytes())
        .map_err(|e| PasswordError::Hash(e.to_string()))?;
    Ok(hash.to_string())
}

/// True when the password fits the stored PHC string; without one the answer is no, just as late.
pub fn verify(password: &str, stored: Option<&str>) -> bool {
    if password.len() > PASSWORD_MAX_BYTES {
        return false;
    }
    let text = stored.unwrap_or(&NOBODY);
    let fits = PasswordHash::new(text)
        .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok());
    fits && stored.is_some()
}
