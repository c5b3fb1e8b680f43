//! First answers of ops, by idempotency key, so that a retry gets the same.

use drivefs_core::id::NamespaceId;
use drivefs_core::id::OpKey;

use super::DbError;
use super::Sql;
use super::value::params;

/// How long an answer is kept (seconds): the longest time after which a client retries.
const KEPT_SECS: i64 = 7 * 24 * 3600;
/// Most old answers removed along with one commit.
const PRUNED_AT_ONCE: i64 = 500;

/// The stored answer (JSON).
pub fn find(sql: &mut dyn Sql, ns: NamespaceId, op: OpKey) -> Result<Option<String>, DbError> {
    let row =
        sql.query_one("SELECT result FROM op_result WHERE ns = ?1 AND op = ?2", params![ns, op])?;
    row.map(|r| r.get(0)).transpose()
}

pub fn insert(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    op: OpKey,
    result: &str,
    now: i64,
) -> Result<(), DbError> {
    sql.exec(
        "INSERT INTO op_result (ns, op, result, created) VALUES (?1, ?2, ?3, ?4)",
        params![ns, op, result, now],
    )?;
    Ok(())
}

/// Removes some of the answers that are too old.
pub fn prune(sql: &mut dyn Sql, now: i64) -> Result<(), DbError> {
    sql.exec(
        "DELETE FROM op_result WHERE (ns, op) IN
         (SELECT ns, op FROM op_result WHERE created < ?1 ORDER BY created LIMIT ?2)",
        params![now - KEPT_SECS, PRUNED_AT_ONCE],
    )?;
    Ok(())
}
