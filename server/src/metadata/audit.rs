//! What happened to accounts, tokens and keys: kept for a while, for the operator.

use super::DbError;
use super::Sql;
use super::value::params;
use crate::clock;
use drivefs_core::limits::AUDIT_KEPT_MAX;
use drivefs_core::limits::AUDIT_KEPT_SECS;

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Login,
    LoginFailed,
    /// Too many failed: the first that had to wait.
    LoginLimited,
    TokenMade,
    TokenRevoked,
    UserAdded,
    UserDisabled,
    UserEnabled,
    PasswordSet,
    KeyRotated,
    PolicySet,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::LoginFailed => "login_failed",
            Self::LoginLimited => "login_limited",
            Self::TokenMade => "token_made",
            Self::TokenRevoked => "token_revoked",
            Self::UserAdded => "user_added",
            Self::UserDisabled => "user_disabled",
            Self::UserEnabled => "user_enabled",
            Self::PasswordSet => "password_set",
            Self::KeyRotated => "key_rotated",
            Self::PolicySet => "policy_set",
        }
    }
}

/// One thing that happened. Texts are bounded by whoever makes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    pub kind: Kind,
    /// E-mail address of the account that it is about; empty for none.
    pub account: String,
    /// Device or token that it is about; empty for none.
    pub device: String,
    /// Address that the request came from; `operator` for commands.
    pub peer: String,
    pub detail: String,
}

/// Something that a command did.
pub fn by_operator(kind: Kind, account: &str, detail: String) -> Happened {
    Happened {
        kind,
        account: account.to_owned(),
        device: String::new(),
        peer: "operator".to_owned(),
        detail,
    }
}

/// A row as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Entry {
    pub audit: i64,
    pub at_ns: i64,
    pub kind: String,
    pub account: String,
    pub device: String,
    pub peer: String,
    pub detail: String,
}

/// Notes what happened, and drops what is older than is kept.
pub fn insert(sql: &mut dyn Sql, h: &Happened) -> Result<(), DbError> {
    let now = clock::now_ns();
    let row = sql.query_one(
        "INSERT INTO audit (audit, at_ns, kind, account, device, peer, detail)
         SELECT COALESCE(MAX(audit), 0) + 1, ?1, ?2, ?3, ?4, ?5, ?6 FROM audit RETURNING audit",
        params![
            now,
            h.kind.name(),
            h.account.as_str(),
            h.device.as_str(),
            h.peer.as_str(),
            h.detail.as_str(),
        ],
    )?;
    let newest: i64 = row.ok_or(DbError::Decode("audit row"))?.get(0)?;
    sql.exec(
        "DELETE FROM audit WHERE audit <= ?1 OR (at_ns < ?2 AND audit < ?3)",
        params![newest - AUDIT_KEPT_MAX, now - AUDIT_KEPT_SECS * 1_000_000_000, newest],
    )?;
    Ok(())
}

/// The last entries, oldest first; of one account, or since a time, if asked.
pub fn list(
    sql: &mut dyn Sql,
    account: Option<&str>,
    since_ns: i64,
    limit: u32,
) -> Result<Vec<Entry>, DbError> {
    let mut rows = sql.query(
        "SELECT audit, at_ns, kind, account, device, peer, detail FROM audit
         WHERE (?1 = '' OR account = ?1) AND at_ns >= ?2 ORDER BY audit DESC LIMIT ?3",
        params![account.unwrap_or_default(), since_ns, limit],
    )?;
    rows.reverse();
    rows.iter()
        .map(|r| {
            Ok(Entry {
                audit: r.get(0)?,
                at_ns: r.get(1)?,
                kind: r.get(2)?,
                account: r.get(3)?,
                device: r.get(4)?,
                peer: r.get(5)?,
                detail: r.get(6)?,
            })
        })
        .collect()
}
