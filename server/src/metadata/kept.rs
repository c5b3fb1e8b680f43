//! Versions that somebody pinned. A table of its own: rows of versions are never changed.

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::VersionNo;
use drivefs_core::node::TimeNs;

use super::DbError;
use super::Sql;
use super::value::params;

/// Pins a version; pinning it again changes nothing.
pub fn insert(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    (node, version): (NodeId, VersionNo),
    device: &str,
    now: TimeNs,
) -> Result<(), DbError> {
    sql.exec(
        "INSERT INTO kept_version (ns, node, version, device, kept_ns) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (ns, node, version) DO NOTHING",
        params![ns, node, version, device, now],
    )?;
    Ok(())
}

pub fn remove(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    (node, version): (NodeId, VersionNo),
) -> Result<(), DbError> {
    sql.exec(
        "DELETE FROM kept_version WHERE ns = ?1 AND node = ?2 AND version = ?3",
        params![ns, node, version],
    )?;
    Ok(())
}

/// How many versions of a node are pinned.
pub fn count(sql: &mut dyn Sql, ns: NamespaceId, node: NodeId) -> Result<u32, DbError> {
    let row = sql.query_one(
        "SELECT count(*) FROM kept_version WHERE ns = ?1 AND node = ?2",
        params![ns, node],
    )?;
    row.map_or(Ok(0), |r| r.get(0))
}
