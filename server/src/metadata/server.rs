//! Notes about the server itself: its identity, the fingerprint of its master key.

use super::DbError;
use super::Sql;
use super::value::params;

pub fn note(sql: &mut dyn Sql, key: &str) -> Result<Option<String>, DbError> {
    let row = sql.query_one("SELECT value FROM meta WHERE key = ?1", params![key])?;
    row.map(|r| r.get(0)).transpose()
}

/// Keeps the first value that a note was given and answers it.
pub fn note_once(sql: &mut dyn Sql, key: &str, value: &str) -> Result<String, DbError> {
    sql.exec(
        "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO NOTHING",
        params![key, value],
    )?;
    note(sql, key)?.ok_or(DbError::Decode("note"))
}

/// Takes a note away.
pub fn remove_note(sql: &mut dyn Sql, key: &str) -> Result<(), DbError> {
    sql.exec("DELETE FROM meta WHERE key = ?1", params![key])?;
    Ok(())
}

/// Sets a note, whatever stood there.
pub fn set_note(sql: &mut dyn Sql, key: &str, value: &str) -> Result<(), DbError> {
    sql.exec(
        "INSERT INTO meta (key, value) VALUES (?1, ?2)
         ON CONFLICT (key) DO UPDATE SET value = ?2",
        params![key, value],
    )?;
    Ok(())
}
