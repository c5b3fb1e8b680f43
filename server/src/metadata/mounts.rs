//! Where namespaces are mounted in other namespaces.

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;

use super::DbError;
use super::Sql;
use super::value::params;

pub fn insert(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    node: NodeId,
    target: NamespaceId,
) -> Result<(), DbError> {
    sql.exec(
        "INSERT INTO mount (ns, node, target) VALUES (?1, ?2, ?3)",
        params![ns, node, target],
    )?;
    Ok(())
}

/// Mount nodes that show a namespace, and the namespaces they are in. Some may be deleted.
pub fn of(sql: &mut dyn Sql, target: NamespaceId) -> Result<Vec<(NamespaceId, NodeId)>, DbError> {
    sql.query("SELECT ns, node FROM mount WHERE target = ?1 ORDER BY ns, node", params![target])?
        .iter()
        .map(|r| Ok((r.get(0)?, r.get(1)?)))
        .collect()
}
