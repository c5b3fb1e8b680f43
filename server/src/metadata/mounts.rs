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
