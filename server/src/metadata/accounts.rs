//! Users and their quota.

use drivefs_core::id::NamespaceId;
use drivefs_core::id::UserId;

use super::DbError;
use super::Sql;
use super::value::Row;
use super::value::params;

/// An account as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub user: UserId,
    pub email: String,
    /// PHC string of the password.
    pub password: String,
    pub disabled: bool,
    pub quota_bytes: u64,
    pub used_bytes: u64,
    pub root_ns: NamespaceId,
    /// Seconds since the Unix epoch.
    pub created: i64,
}

const COLUMNS: &str = "user, email, password, disabled, quota, used, root_ns, created";

fn user_of(row: &Row) -> Result<User, DbError> {
    Ok(User {
        user: row.get(0)?,
        email: row.get(1)?,
        password: row.get(2)?,
        disabled: row.get(3)?,
        quota_bytes: row.get(4)?,
        used_bytes: row.get(5)?,
        root_ns: row.get(6)?,
        created: row.get(7)?,
    })
}

pub fn insert(sql: &mut dyn Sql, user: &User) -> Result<(), DbError> {
    sql.exec(
        "INSERT INTO user (user, email, password, disabled, quota, used, root_ns, created)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            user.user,
            user.email.as_str(),
            user.password.as_str(),
            user.disabled,
            user.quota_bytes,
            user.used_bytes,
            user.root_ns,
            user.created,
        ],
    )?;
    Ok(())
}

pub fn by_email(sql: &mut dyn Sql, email: &str) -> Result<Option<User>, DbError> {
    let statement = format!("SELECT {COLUMNS} FROM user WHERE email = ?1");
    sql.query_one(&statement, params![email])?.as_ref().map(user_of).transpose()
}

pub fn by_id(sql: &mut dyn Sql, user: UserId) -> Result<Option<User>, DbError> {
    let statement = format!("SELECT {COLUMNS} FROM user WHERE user = ?1");
    sql.query_one(&statement, params![user])?.as_ref().map(user_of).transpose()
}

/// All accounts, by e-mail.
pub fn all(sql: &mut dyn Sql) -> Result<Vec<User>, DbError> {
    let statement = format!("SELECT {COLUMNS} FROM user ORDER BY email");
    sql.query(&statement, &[])?.iter().map(user_of).collect()
}

pub fn set_password(sql: &mut dyn Sql, user: UserId, password: &str) -> Result<(), DbError> {
    sql.exec("UPDATE user SET password = ?2 WHERE user = ?1", params![user, password])?;
    Ok(())
}

pub fn set_disabled(sql: &mut dyn Sql, user: UserId, disabled: bool) -> Result<(), DbError> {
    sql.exec("UPDATE user SET disabled = ?2 WHERE user = ?1", params![user, disabled])?;
    Ok(())
}

/// Moves the counter of used bytes by `delta`.
pub fn add_used(sql: &mut dyn Sql, user: UserId, delta: i64) -> Result<(), DbError> {
    sql.exec("UPDATE user SET used = used + ?2 WHERE user = ?1", params![user, delta])?;
    Ok(())
}

/// The used bytes counted afresh from the tree, for checks of the counter.
pub fn recount_used(sql: &mut dyn Sql, user: UserId) -> Result<u64, DbError> {
    let row = sql.query_one(
        "SELECT COALESCE(SUM(v.size), 0) FROM namespace s
         JOIN node n ON n.ns = s.ns AND n.deleted_ns IS NULL
         JOIN file_version v ON v.ns = n.ns AND v.node = n.node AND v.version = n.version
         WHERE s.owner = ?1",
        params![user],
    )?;
    row.ok_or(DbError::Decode("sum"))?.get(0)
}

/// How many accounts there are.
pub fn count(sql: &mut dyn Sql) -> Result<u64, DbError> {
    let row = sql.query_one("SELECT count(*) FROM user", &[])?;
    row.map_or(Ok(0), |r| r.get(0))
}
