//! Nodes: what they are, apart from their names.

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::Seq;
use drivefs_core::id::VersionNo;
use drivefs_core::node::Attrs;
use drivefs_core::node::NodeKind;
use drivefs_core::node::TimeNs;
use drivefs_core::node::Xattrs;
use drivefs_core::wire::Blob;
use drivefs_core::wire::NodeRow;
use drivefs_core::wire::Place;

use super::DbError;
use super::Sql;
use super::trash::name_of;
use super::value::Row;
use super::value::params;

/// What a commit needs to know of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeState {
    pub kind: NodeKind,
    pub version: VersionNo,
    pub deleted: bool,
}

/// A node to be made.
pub struct NewNode<'a> {
    pub node: NodeId,
    pub kind: NodeKind,
    pub attrs: &'a Attrs,
    pub rdev: u32,
    pub target: Option<&'a [u8]>,
    pub mount: Option<NamespaceId>,
    pub xattrs: &'a Xattrs,
    pub version: VersionNo,
}

pub fn state(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    node: NodeId,
) -> Result<Option<NodeState>, DbError> {
    let row = sql.query_one(
        "SELECT kind, version, deleted_ns FROM node WHERE ns = ?1 AND node = ?2",
        params![ns, node],
    )?;
    row.map(|r| {
        Ok(NodeState {
            kind: kind_of(r.get(0)?)?,
            version: r.get(1)?,
            deleted: r.get::<Option<i64>>(2)?.is_some(),
        })
    })
    .transpose()
}

pub fn insert(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    n: &NewNode<'_>,
    seq: Seq,
) -> Result<(), DbError> {
    sql.exec(
        "INSERT INTO node (ns, node, kind, mode, uid, gid, mtime_ns, btime_ns, rdev, target,
         mount, xattrs, version, changed_seq)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        params![
            ns,
            n.node,
            n.kind as u8,
            n.attrs.mode,
            n.attrs.uid,
            n.attrs.gid,
            n.attrs.mtime,
            n.attrs.btime,
            n.rdev,
            n.target,
            n.mount,
            xattrs_text(n.xattrs)?,
            n.version,
            seq,
        ],
    )?;
    Ok(())
}

/// Notes that something about the node or its names has changed.
pub fn stamp(sql: &mut dyn Sql, ns: NamespaceId, node: NodeId, seq: Seq) -> Result<(), DbError> {
    sql.exec(
        "UPDATE node SET changed_seq = ?3 WHERE ns = ?1 AND node = ?2",
        params![ns, node, seq],
    )?;
    Ok(())
}

pub fn set_attrs(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    node: NodeId,
    attrs: &Attrs,
    seq: Seq,
) -> Result<(), DbError> {
    sql.exec(
        "UPDATE node SET mode = ?3, uid = ?4, gid = ?5, mtime_ns = ?6, btime_ns = ?7,
         changed_seq = ?8 WHERE ns = ?1 AND node = ?2",
        params![ns, node, attrs.mode, attrs.uid, attrs.gid, attrs.mtime, attrs.btime, seq],
    )?;
    Ok(())
}

/// Sets the modification time.
pub fn touch(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    node: NodeId,
    mtime: TimeNs,
    seq: Seq,
) -> Result<(), DbError> {
    sql.exec(
        "UPDATE node SET mtime_ns = ?3, changed_seq = ?4 WHERE ns = ?1 AND node = ?2",
        params![ns, node, mtime, seq],
    )?;
    Ok(())
}

pub fn set_version(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    node: NodeId,
    version: VersionNo,
) -> Result<(), DbError> {
    sql.exec(
        "UPDATE node SET version = ?3 WHERE ns = ?1 AND node = ?2",
        params![ns, node, version],
    )?;
    Ok(())
}

pub fn xattrs(sql: &mut dyn Sql, ns: NamespaceId, node: NodeId) -> Result<Xattrs, DbError> {
    let row =
        sql.query_one("SELECT xattrs FROM node WHERE ns = ?1 AND node = ?2", params![ns, node])?;
    row.map_or(Ok(Xattrs::new()), |r| xattrs_of(r.get(0)?))
}

pub fn set_xattrs(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    node: NodeId,
    xattrs: &Xattrs,
    seq: Seq,
) -> Result<(), DbError> {
    sql.exec(
        "UPDATE node SET xattrs = ?3, changed_seq = ?4 WHERE ns = ?1 AND node = ?2",
        params![ns, node, xattrs_text(xattrs)?, seq],
    )?;
    Ok(())
}

/// When a node was deleted, by which device, and its last place.
pub struct Deletion<'a> {
    pub last: &'a Place,
    pub at: TimeNs,
    pub by: &'a str,
}

/// Makes the node a tombstone that remembers its last place.
pub fn set_deleted(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    node: NodeId,
    how: &Deletion<'_>,
    seq: Seq,
) -> Result<(), DbError> {
    sql.exec(
        "UPDATE node SET deleted_ns = ?3, last_parent = ?4, last_name = ?5, deleted_by = ?6,
         changed_seq = ?7 WHERE ns = ?1 AND node = ?2",
        params![ns, node, how.at, how.last.parent, how.last.name.as_bytes(), how.by, seq],
    )?;
    Ok(())
}

/// Makes a tombstone a live node again.
pub fn set_live(sql: &mut dyn Sql, ns: NamespaceId, node: NodeId, seq: Seq) -> Result<(), DbError> {
    sql.exec(
        "UPDATE node SET deleted_ns = NULL, last_parent = NULL, last_name = NULL,
         deleted_by = NULL, changed_seq = ?3 WHERE ns = ?1 AND node = ?2",
        params![ns, node, seq],
    )?;
    Ok(())
}

/// Columns of `NodeRow`, from `node n` joined to its head version `v`.
pub(super) const ROW_COLUMNS: &str = "n.node, n.kind, n.mode, n.uid, n.gid, n.mtime_ns, \
     n.btime_ns, n.rdev, n.target, n.mount, n.xattrs, n.version, n.changed_seq, n.deleted_ns, \
     v.content, v.device, v.committed_ns, n.last_parent, n.last_name";
pub(super) const ROW_TABLES: &str = "node n LEFT JOIN file_version v \
     ON v.ns = n.ns AND v.node = n.node AND v.version = n.version";

/// A node in its present state.
pub fn row(sql: &mut dyn Sql, ns: NamespaceId, node: NodeId) -> Result<Option<NodeRow>, DbError> {
    let statement =
        format!("SELECT {ROW_COLUMNS} FROM {ROW_TABLES} WHERE n.ns = ?1 AND n.node = ?2");
    sql.query_one(&statement, params![ns, node])?.as_ref().map(row_of).transpose()
}

pub(super) fn row_of(r: &Row) -> Result<NodeRow, DbError> {
    Ok(NodeRow {
        node: r.get(0)?,
        kind: kind_of(r.get(1)?)?,
        attrs: Attrs {
            mode: r.get(2)?,
            uid: r.get(3)?,
            gid: r.get(4)?,
            mtime: r.get(5)?,
            btime: r.get(6)?,
        },
        rdev: r.get(7)?,
        target: r.get::<Option<Vec<u8>>>(8)?.map(Blob),
        mount: r.get(9)?,
        xattrs: xattrs_of(r.get(10)?)?,
        version: r.get(11)?,
        seq: r.get(12)?,
        deleted: r.get::<Option<i64>>(13)?.is_some(),
        last: match (r.get(17)?, r.get::<Option<Vec<u8>>>(18)?) {
            (Some(parent), Some(name)) => Some(Place { parent, name: name_of(name)? }),
            _ => None,
        },
        content: r.get::<Option<Vec<u8>>>(14)?.map(Blob),
        device: r.get::<Option<String>>(15)?.unwrap_or_default(),
        committed: r.get::<Option<i64>>(16)?.unwrap_or_default(),
    })
}

pub(super) fn kind_of(number: u8) -> Result<NodeKind, DbError> {
    NodeKind::from_u8(number).ok_or(DbError::Decode("node kind"))
}

fn xattrs_of(text: Option<String>) -> Result<Xattrs, DbError> {
    text.map_or(Ok(Xattrs::new()), |t| {
        serde_json::from_str(&t).map_err(|_| DbError::Decode("extended attribute"))
    })
}

fn xattrs_text(xattrs: &Xattrs) -> Result<Option<String>, DbError> {
    if xattrs.is_empty() {
        return Ok(None);
    }
    serde_json::to_string(xattrs).map(Some).map_err(|_| DbError::Decode("extended attribute"))
}
