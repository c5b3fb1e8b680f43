//! Tokens of devices and scripts. Only their hashes are kept.
//!
//! Revoked ones stay for a while, so that who still uses one is told so.

use drivefs_core::id::UserId;

use super::DbError;
use super::Sql;
use super::value::Row;
use super::value::params;

/// How long a revoked token is remembered (seconds).
const REVOKED_KEPT_SECS: i64 = 30 * 24 * 3600;

/// A token and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub user: UserId,
    pub device: u64,
    pub name: String,
    /// True for tokens made for scripts.
    pub script: bool,
    pub created: i64,
    pub last_seen: i64,
    pub expires: Option<i64>,
    pub revoked: Option<i64>,
}

const COLUMNS: &str = "user, device, name, script, created, last_seen, expires, revoked";

fn device_of(row: &Row) -> Result<Device, DbError> {
    Ok(Device {
        user: row.get(0)?,
        device: row.get(1)?,
        name: row.get(2)?,
        script: row.get(3)?,
        created: row.get(4)?,
        last_seen: row.get(5)?,
        expires: row.get(6)?,
        revoked: row.get(7)?,
    })
}

pub fn insert(sql: &mut dyn Sql, d: &Device, token_hash: &[u8; 32]) -> Result<(), DbError> {
    sql.exec(
        "INSERT INTO device (user, device, name, script, token_hash, created, last_seen, expires)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            d.user,
            d.device,
            d.name.as_str(),
            d.script,
            &token_hash[..],
            d.created,
            d.last_seen,
            d.expires,
        ],
    )?;
    Ok(())
}

pub fn by_hash(sql: &mut dyn Sql, token_hash: &[u8; 32]) -> Result<Option<Device>, DbError> {
    let statement = format!("SELECT {COLUMNS} FROM device WHERE token_hash = ?1");
    sql.query_one(&statement, params![&token_hash[..]])?.as_ref().map(device_of).transpose()
}

/// The live token of that name.
pub fn by_name(sql: &mut dyn Sql, user: UserId, name: &str) -> Result<Option<Device>, DbError> {
    let statement =
        format!("SELECT {COLUMNS} FROM device WHERE user = ?1 AND name = ?2 AND revoked IS NULL");
    sql.query_one(&statement, params![user, name])?.as_ref().map(device_of).transpose()
}

/// All live tokens of an account, by name.
pub fn of_user(sql: &mut dyn Sql, user: UserId) -> Result<Vec<Device>, DbError> {
    let statement =
        format!("SELECT {COLUMNS} FROM device WHERE user = ?1 AND revoked IS NULL ORDER BY name");
    sql.query(&statement, params![user])?.iter().map(device_of).collect()
}

/// Revokes the live token of that name; false when there is none.
pub fn revoke(sql: &mut dyn Sql, user: UserId, name: &str, now: i64) -> Result<bool, DbError> {
    sql.exec(
        "DELETE FROM device WHERE user = ?1 AND revoked < ?2",
        params![user, now - REVOKED_KEPT_SECS],
    )?;
    let changed = sql.exec(
        "UPDATE device SET revoked = ?3 WHERE user = ?1 AND name = ?2 AND revoked IS NULL",
        params![user, name, now],
    )?;
    Ok(changed > 0)
}

pub fn set_last_seen(
    sql: &mut dyn Sql,
    user: UserId,
    device: u64,
    now: i64,
) -> Result<(), DbError> {
    sql.exec(
        "UPDATE device SET last_seen = ?3 WHERE user = ?1 AND device = ?2",
        params![user, device, now],
    )?;
    Ok(())
}
