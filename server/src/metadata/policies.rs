//! What is kept of the past, where it is not what is usual. JSON that `drive::policy` understands.

use drivefs_core::id::NamespaceId;

use super::DbError;
use super::Sql;
use super::value::params;

pub fn find(sql: &mut dyn Sql, ns: NamespaceId) -> Result<Option<String>, DbError> {
    let row = sql.query_one("SELECT policy FROM policy WHERE ns = ?1", params![ns])?;
    row.map(|r| r.get(0)).transpose()
}

/// Sets the policy of a namespace; none makes it the usual one again.
pub fn set(sql: &mut dyn Sql, ns: NamespaceId, policy: Option<&str>) -> Result<(), DbError> {
    match policy {
        Some(policy) => sql.exec(
            "INSERT INTO policy (ns, policy) VALUES (?1, ?2)
             ON CONFLICT (ns) DO UPDATE SET policy = ?2",
            params![ns, policy],
        )?,
        None => sql.exec("DELETE FROM policy WHERE ns = ?1", params![ns])?,
    };
    Ok(())
}
