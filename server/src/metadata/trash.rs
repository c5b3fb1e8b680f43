//! Tombstones as the trash sees them: what was deleted, from where, and by whom.

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::Seq;
use drivefs_core::id::VersionNo;
use drivefs_core::name::Name;
use drivefs_core::node::Attrs;
use drivefs_core::node::NodeKind;
use drivefs_core::node::TimeNs;
use drivefs_core::wire::GoneEntry;
use drivefs_core::wire::Place;

use super::DbError;
use super::Sql;
use super::nodes;
use super::value::Row;
use super::value::params;

/// A deleted node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    pub node: NodeId,
    pub kind: NodeKind,
    pub place: Place,
    pub deleted: TimeNs,
    pub by: String,
    /// Commit that deleted it.
    pub seq: Seq,
    pub version: VersionNo,
    /// Length of the head version (bytes).
    pub size: u64,
}

const COLUMNS: &str = "n.node, n.kind, n.last_parent, n.last_name, n.deleted_ns, n.deleted_by, \
     n.changed_seq, n.version, v.size";
const TABLES: &str = "node n LEFT JOIN file_version v \
     ON v.ns = n.ns AND v.node = n.node AND v.version = n.version";

/// A node, if it is deleted.
pub fn find(sql: &mut dyn Sql, ns: NamespaceId, node: NodeId) -> Result<Option<Lost>, DbError> {
    let statement = format!(
        "SELECT {COLUMNS} FROM {TABLES}
         WHERE n.ns = ?1 AND n.node = ?2 AND n.deleted_ns IS NOT NULL"
    );
    sql.query_one(&statement, params![ns, node])?.as_ref().map(lost_of).transpose()
}

/// Deleted nodes in the trash, newest first, behind `after`.
pub fn list(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    emptied: Seq,
    after: Option<&Lost>,
    limit: u32,
) -> Result<Vec<Lost>, DbError> {
    let order = "ORDER BY n.changed_seq DESC, n.deleted_ns DESC, n.node DESC";
    let rows = match after {
        None => {
            let statement = format!(
                "SELECT {COLUMNS} FROM {TABLES} WHERE n.ns = ?1 AND n.deleted_ns IS NOT NULL
                 AND n.changed_seq > ?2 {order} LIMIT ?3"
            );
            sql.query(&statement, params![ns, emptied, limit])?
        }
        Some(last) => {
            let statement = format!(
                "SELECT {COLUMNS} FROM {TABLES} WHERE n.ns = ?1 AND n.deleted_ns IS NOT NULL
                 AND n.changed_seq > ?2 AND n.changed_seq <= ?3
                 AND (n.changed_seq, n.deleted_ns, n.node) < (?3, ?4, ?5) {order} LIMIT ?6"
            );
            sql.query(&statement, params![ns, emptied, last.seq, last.deleted, last.node, limit])?
        }
    };
    rows.iter().map(lost_of).collect()
}

/// How many deleted nodes are in the trash.
pub fn count(sql: &mut dyn Sql, ns: NamespaceId, emptied: Seq) -> Result<u64, DbError> {
    let row = sql.query_one(
        "SELECT count(*) FROM node WHERE ns = ?1 AND deleted_ns IS NOT NULL AND changed_seq > ?2",
        params![ns, emptied],
    )?;
    row.map_or(Ok(0), |r| r.get(0))
}

/// Deleted nodes whose last place this was, newest first, whether in the trash or not.
pub fn at_place(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    place: &Place,
    limit: u32,
) -> Result<Vec<NodeId>, DbError> {
    sql.query(
        "SELECT node FROM node WHERE ns = ?1 AND last_parent = ?2 AND last_name = ?3
         AND deleted_ns IS NOT NULL ORDER BY changed_seq DESC, deleted_ns DESC LIMIT ?4",
        params![ns, place.parent, place.name.as_bytes(), limit],
    )?
    .iter()
    .map(|r| r.get(0))
    .collect()
}

/// What was in a folder at a time and was deleted since, in name order, behind `after`: its name
/// and node. When nodes without content were made is what their devices said.
pub fn gone_since(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    emptied: Seq,
    (folder, at): (NodeId, TimeNs),
    after: Option<&Name>,
    limit: u32,
) -> Result<Vec<(Name, NodeId)>, DbError> {
    let after = after.map_or(&b""[..], Name::as_bytes);
    sql.query(
        "SELECT n.last_name, n.node FROM node n
         WHERE n.ns = ?1 AND n.last_parent = ?2 AND n.last_name > ?3
         AND n.deleted_ns IS NOT NULL AND n.deleted_ns > ?4 AND n.changed_seq > ?5
         AND CASE WHEN n.kind = ?6 THEN EXISTS (SELECT 1 FROM file_version v WHERE v.ns = n.ns
             AND v.node = n.node AND v.committed_ns <= ?4) ELSE n.btime_ns <= ?4 END
         ORDER BY n.last_name, n.deleted_ns LIMIT ?7",
        params![ns, folder, after, at, emptied, NodeKind::File as u8, limit],
    )?
    .iter()
    .map(|r| Ok((name_of(r.get(0)?)?, r.get(1)?)))
    .collect()
}

/// Deleted files and folders whose last place was in a folder, by name and the last deleted first,
/// behind `after`; or those of one name.
pub fn gone_from(
    sql: &mut dyn Sql,
    (ns, emptied): (NamespaceId, Seq),
    folder: NodeId,
    name: Option<&Name>,
    after: Option<&Name>,
    limit: u32,
) -> Result<Vec<GoneEntry>, DbError> {
    let names = if name.is_some() { "n.last_name = ?3" } else { "n.last_name > ?3" };
    let bound = name.or(after).map_or(&b""[..], Name::as_bytes);
    let statement = format!(
        "SELECT n.last_name, n.node, n.kind, n.mode, n.uid, n.gid, n.mtime_ns, n.btime_ns,
         n.deleted_ns FROM node n
         WHERE n.ns = ?1 AND n.last_parent = ?2 AND {names} AND n.deleted_ns IS NOT NULL
         AND n.changed_seq > ?4 AND n.kind IN (?5, ?6)
         ORDER BY n.last_name, n.changed_seq DESC, n.deleted_ns DESC, n.node LIMIT ?7"
    );
    let kinds = (NodeKind::File as u8, NodeKind::Dir as u8);
    sql.query(&statement, params![ns, folder, bound, emptied, kinds.0, kinds.1, limit])?
        .iter()
        .map(|r| {
            Ok(GoneEntry {
                name: name_of(r.get(0)?)?,
                node: r.get(1)?,
                kind: nodes::kind_of(r.get(2)?)?,
                attrs: Attrs {
                    mode: r.get(3)?,
                    uid: r.get(4)?,
                    gid: r.get(5)?,
                    mtime: r.get(6)?,
                    btime: r.get(7)?,
                },
                deleted: r.get(8)?,
            })
        })
        .collect()
}

fn lost_of(r: &Row) -> Result<Lost, DbError> {
    Ok(Lost {
        node: r.get(0)?,
        kind: nodes::kind_of(r.get(1)?)?,
        place: Place { parent: r.get(2)?, name: name_of(r.get(3)?)? },
        deleted: r.get(4)?,
        by: r.get::<Option<String>>(5)?.unwrap_or_default(),
        seq: r.get(6)?,
        version: r.get(7)?,
        size: r.get::<Option<u64>>(8)?.unwrap_or_default(),
    })
}

pub(super) fn name_of(bytes: Vec<u8>) -> Result<Name, DbError> {
    Name::new(bytes).map_err(|_| DbError::Decode("name"))
}
