//! Versions of files. Rows are written once; a trigger refuses any change.

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::VersionNo;
use drivefs_core::node::TimeNs;
use drivefs_core::wire::Blob;
use drivefs_core::wire::VersionRow;

use super::DbError;
use super::Sql;
use super::value::params;

/// A version to be written.
pub struct NewVersion<'a> {
    pub node: NodeId,
    pub version: VersionNo,
    /// Encoded `manifest::Root`.
    pub content: &'a [u8],
    /// Length of the content (bytes).
    pub size: u64,
    pub device: &'a str,
    pub committed: TimeNs,
}

pub fn insert(sql: &mut dyn Sql, ns: NamespaceId, v: &NewVersion<'_>) -> Result<(), DbError> {
    sql.exec(
        "INSERT INTO file_version (ns, node, version, content, size, device, committed_ns)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![ns, v.node, v.version, v.content, v.size, v.device, v.committed],
    )?;
    Ok(())
}

/// Content root and size of one version.
pub fn content(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    node: NodeId,
    version: VersionNo,
) -> Result<Option<(Vec<u8>, u64)>, DbError> {
    let row = sql.query_one(
        "SELECT content, size FROM file_version WHERE ns = ?1 AND node = ?2 AND version = ?3",
        params![ns, node, version],
    )?;
    row.map(|r| Ok((r.get(0)?, r.get(1)?))).transpose()
}

/// When a version was made.
pub fn committed(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    node: NodeId,
    version: VersionNo,
) -> Result<Option<TimeNs>, DbError> {
    let row = sql.query_one(
        "SELECT committed_ns FROM file_version WHERE ns = ?1 AND node = ?2 AND version = ?3",
        params![ns, node, version],
    )?;
    row.map(|r| r.get(0)).transpose()
}

/// Size of one version; 0 for what has no content.
pub fn size(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    node: NodeId,
    version: VersionNo,
) -> Result<u64, DbError> {
    let row = sql.query_one(
        "SELECT size FROM file_version WHERE ns = ?1 AND node = ?2 AND version = ?3",
        params![ns, node, version],
    )?;
    row.map_or(Ok(0), |r| r.get(0))
}

/// Content roots of a node, newest first.
pub fn roots(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    node: NodeId,
    limit: u32,
) -> Result<Vec<Vec<u8>>, DbError> {
    sql.query(
        "SELECT content FROM file_version WHERE ns = ?1 AND node = ?2
         ORDER BY version DESC LIMIT ?3",
        params![ns, node, limit],
    )?
    .iter()
    .map(|r| r.get(0))
    .collect()
}

/// Versions of a node older than `before`, newest first.
pub fn list(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    node: NodeId,
    before: Option<VersionNo>,
    limit: u32,
) -> Result<Vec<VersionRow>, DbError> {
    let before = before.map_or(i64::MAX, |v| i64::try_from(v).unwrap_or(i64::MAX));
    sql.query(
        "SELECT v.version, v.size, v.device, v.committed_ns, k.kept_ns, v.content
         FROM file_version v
         LEFT JOIN kept_version k ON k.ns = v.ns AND k.node = v.node AND k.version = v.version
         WHERE v.ns = ?1 AND v.node = ?2 AND v.version < ?3 ORDER BY v.version DESC LIMIT ?4",
        params![ns, node, before, limit],
    )?
    .iter()
    .map(|r| {
        Ok(VersionRow {
            version: r.get(0)?,
            size: r.get(1)?,
            device: r.get(2)?,
            committed: r.get(3)?,
            kept: r.get::<Option<i64>>(4)?.is_some(),
            content: Blob(r.get(5)?),
        })
    })
    .collect()
}

/// The version that was the newest at a time.
pub fn at(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    node: NodeId,
    time: TimeNs,
) -> Result<Option<VersionNo>, DbError> {
    let row = sql.query_one(
        "SELECT version FROM file_version WHERE ns = ?1 AND node = ?2 AND committed_ns <= ?3
         ORDER BY version DESC LIMIT 1",
        params![ns, node, time],
    )?;
    row.map(|r| r.get(0)).transpose()
}
