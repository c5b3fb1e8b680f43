//! Removing what the history policy lets go: versions, and what is left of things out of the trash.

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::Seq;
use drivefs_core::id::VersionNo;
use drivefs_core::node::TimeNs;

use super::DbError;
use super::Sql;
use super::value::params;

/// A version, without its content.
pub struct Dated {
    pub version: VersionNo,
    pub device: String,
    pub committed: TimeNs,
    pub kept: bool,
}

/// The first namespace behind `after`.
pub fn next_namespace(
    sql: &mut dyn Sql,
    after: Option<NamespaceId>,
) -> Result<Option<NamespaceId>, DbError> {
    let row = match after {
        None => sql.query_one("SELECT min(ns) FROM namespace", &[])?,
        Some(ns) => sql.query_one("SELECT min(ns) FROM namespace WHERE ns > ?1", params![ns])?,
    };
    row.map_or(Ok(None), |r| r.get(0))
}

/// Nodes with versions behind `after`, in order.
pub fn nodes(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    after: Option<NodeId>,
    limit: u32,
) -> Result<Vec<NodeId>, DbError> {
    let after = after.map_or(Vec::new(), |node| node.as_bytes().to_vec());
    sql.query(
        "SELECT DISTINCT node FROM file_version WHERE ns = ?1 AND node > ?2 ORDER BY node LIMIT ?3",
        params![ns, &after[..], limit],
    )?
    .iter()
    .map(|r| r.get(0))
    .collect()
}

/// All versions of a node, in their order.
pub fn versions(sql: &mut dyn Sql, ns: NamespaceId, node: NodeId) -> Result<Vec<Dated>, DbError> {
    sql.query(
        "SELECT v.version, v.device, v.committed_ns, k.kept_ns FROM file_version v
         LEFT JOIN kept_version k ON k.ns = v.ns AND k.node = v.node AND k.version = v.version
         WHERE v.ns = ?1 AND v.node = ?2 ORDER BY v.version",
        params![ns, node],
    )?
    .iter()
    .map(|r| {
        Ok(Dated {
            version: r.get(0)?,
            device: r.get(1)?,
            committed: r.get(2)?,
            kept: r.get::<Option<i64>>(3)?.is_some(),
        })
    })
    .collect()
}

/// Removes a version, unless it is the head or kept.
pub fn remove_version(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    (node, version): (NodeId, VersionNo),
) -> Result<bool, DbError> {
    let changed = sql.exec(
        "DELETE FROM file_version WHERE ns = ?1 AND node = ?2 AND version = ?3
         AND version <> (SELECT n.version FROM node n WHERE n.ns = ?1 AND n.node = ?2)
         AND NOT EXISTS (SELECT 1 FROM kept_version k WHERE k.ns = ?1 AND k.node = ?2
             AND k.version = ?3)",
        params![ns, node, version],
    )?;
    Ok(changed > 0)
}

/// Removes all versions of a node that is deleted and out of the trash. Answers how many.
pub fn remove_all(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    node: NodeId,
    emptied: Seq,
) -> Result<u64, DbError> {
    let gone = sql.query_one(
        "SELECT 1 FROM node WHERE ns = ?1 AND node = ?2 AND deleted_ns IS NOT NULL
         AND changed_seq <= ?3",
        params![ns, node, emptied],
    )?;
    if gone.is_none() {
        return Ok(0);
    }
    sql.exec("DELETE FROM kept_version WHERE ns = ?1 AND node = ?2", params![ns, node])?;
    sql.exec("DELETE FROM file_version WHERE ns = ?1 AND node = ?2", params![ns, node])
}

/// The last commit up to which everything in the trash was deleted at `before` or earlier; none
/// when there is no such thing beyond `emptied`.
pub fn expired(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    emptied: Seq,
    before: TimeNs,
) -> Result<Option<Seq>, DbError> {
    // Commits are in order of time, unless the clock was set back: then the later one counts.
    let fresh: Option<Seq> = sql
        .query_one(
            "SELECT min(changed_seq) FROM node WHERE ns = ?1 AND deleted_ns > ?2
             AND changed_seq > ?3",
            params![ns, before, emptied],
        )?
        .map_or(Ok(None), |r| r.get(0))?;
    let bound = fresh.map_or(i64::MAX as u64, |seq| seq - 1);
    sql.query_one(
        "SELECT max(changed_seq) FROM node WHERE ns = ?1 AND deleted_ns <= ?2
         AND changed_seq > ?3 AND changed_seq <= ?4",
        params![ns, before, emptied, bound],
    )?
    .map_or(Ok(None), |r| r.get(0))
}

/// Removes tombstones of commits up to `seq`, at most about `limit`. Answers how many.
pub fn remove_tombstones(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    seq: Seq,
    limit: u32,
) -> Result<u64, DbError> {
    // A folder's last place leads to what was in it: it goes when nothing names it any more.
    let names = sql.exec(
        "DELETE FROM dirent WHERE ns = ?1 AND child IS NULL AND (parent, name) IN
         (SELECT parent, name FROM dirent WHERE ns = ?1 AND changed_seq <= ?2 AND child IS NULL
          LIMIT ?3)",
        params![ns, seq, limit],
    )?;
    let nodes = sql.exec(
        "DELETE FROM node WHERE ns = ?1 AND node IN
         (SELECT n.node FROM node n WHERE n.ns = ?1 AND n.changed_seq <= ?2
          AND n.deleted_ns IS NOT NULL
          AND NOT EXISTS (SELECT 1 FROM file_version v WHERE v.ns = n.ns AND v.node = n.node)
          LIMIT ?3)",
        params![ns, seq, limit],
    )?;
    Ok(names + nodes)
}

/// Tombstones up to here are gone.
pub fn set_pruned(sql: &mut dyn Sql, ns: NamespaceId, seq: Seq) -> Result<(), DbError> {
    sql.exec(
        "UPDATE namespace SET pruned_seq = ?2 WHERE ns = ?1 AND pruned_seq < ?2",
        params![ns, seq],
    )?;
    Ok(())
}
