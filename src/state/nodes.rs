//! Rows of the local tree: nodes.

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::VersionNo;
use drivefs_core::node::Attrs;
use drivefs_core::node::NodeKind;
use drivefs_core::node::TimeNs;
use drivefs_core::node::Xattrs;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::params;
use rusqlite::types::Type;

use super::Conn;
use super::DbError;
use super::FileId;
use super::Nid;

/// A node as the mount shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub nid: Nid,
    pub id: NodeId,
    pub ns: NamespaceId,
    pub kind: NodeKind,
    pub attrs: Attrs,
    pub rdev: u32,
    /// Bytes of content; of an open file the spool knows better.
    pub size: u64,
    pub ctime: TimeNs,
    pub links: u32,
    pub target: Option<Vec<u8>>,
    pub mount: Option<NamespaceId>,
    pub xattrs: Xattrs,
    /// Encoded manifest root under the layers; none for what has no content.
    pub content: Option<Vec<u8>>,
    pub version: VersionNo,
    /// The layer that takes writes, and whether what it lacks comes from below.
    pub live: Option<(FileId, bool)>,
    /// The layer that is being chunked.
    pub frozen: Option<(FileId, bool)>,
    pub superseded: bool,
    /// Where its blocks may be linked from (it came from another namespace).
    pub source: Option<(NamespaceId, NodeId)>,
    /// Access time where a program set one; else it is told as `mtime`. Of this device alone.
    pub atime: Option<TimeNs>,
    /// Folders in this folder. Read only: the database keeps it.
    pub subdirs: u32,
}

/// A node under one of its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEntry {
    pub name: Vec<u8>,
    pub node: Node,
}

/// Columns of a whole row of `node n`, in the order of `node_from`.
macro_rules! columns {
    () => {
        "n.nid, n.id, n.ns, n.kind, n.mode, n.uid, n.gid, n.rdev, n.size, n.mtime, \
         n.ctime, n.btime, n.links, n.target, n.mount, n.xattrs, n.content, n.version, n.live, \
         n.live_over, n.frozen, n.frozen_over, n.superseded, n.source_ns, n.source_id, n.atime, \
         CASE WHEN n.kind IN (2, 8) \
         THEN coalesce((SELECT s.n FROM subdirs s WHERE s.parent=n.nid), 0) ELSE 0 END"
    };
}

pub(super) use columns;

/// Placeholders for a whole row.
// `nameless` says more than the count of links (`mark_taken`): it stays while there are none.
macro_rules! row_values {
    () => {
        "(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,\
         ?20,?21,?22,?23,?24,?25,\
         CASE WHEN ?26 THEN coalesce((SELECT nameless FROM node WHERE nid=?1), 1) END,?27)"
    };
}

impl Conn<'_> {
    pub fn node(&self, nid: Nid) -> Result<Option<Node>, DbError> {
        let sql = concat!("SELECT ", columns!(), " FROM node n WHERE n.nid=?1");
        let mut s = self.sql.prepare_cached(sql)?;
        Ok(s.query_row([nid as i64], |r| node_from(r, 0)).optional()?)
    }

    pub fn node_by_id(&self, id: &NodeId) -> Result<Option<Node>, DbError> {
        let sql = concat!("SELECT ", columns!(), " FROM node n WHERE n.id=?1");
        let mut s = self.sql.prepare_cached(sql)?;
        Ok(s.query_row([id.as_bytes().as_slice()], |r| node_from(r, 0)).optional()?)
    }

    pub fn nid_of(&self, id: &NodeId) -> Result<Option<Nid>, DbError> {
        let mut s = self.sql.prepare_cached("SELECT nid FROM node WHERE id=?1")?;
        Ok(s.query_row([id.as_bytes().as_slice()], |r| r.get::<_, i64>(0))
            .optional()?
            .map(|v| v as u64))
    }

    /// The version of a node that both sides agreed on last.
    pub fn version_of(&self, id: &NodeId) -> Result<Option<VersionNo>, DbError> {
        let mut s = self.sql.prepare_cached("SELECT version FROM node WHERE id=?1")?;
        let version = s.query_row([id.as_bytes().as_slice()], |r| r.get::<_, i64>(0)).optional()?;
        Ok(version.map(|v| v as u64))
    }

    /// The node that a directory's entry names.
    pub fn child(&self, parent: Nid, name: &[u8]) -> Result<Option<Node>, DbError> {
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM dirent d JOIN node n ON n.nid=d.child WHERE d.parent=?1 AND d.name=?2",
        );
        let mut s = self.sql.prepare_cached(sql)?;
        Ok(s.query_row((parent as i64, name), |r| node_from(r, 0)).optional()?)
    }

    /// Up to `limit` entries of a directory in name order, behind `after`.
    pub fn children(
        &self,
        parent: Nid,
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<NodeEntry>, DbError> {
        let sql = concat!(
            "SELECT d.name, ",
            columns!(),
            " FROM dirent d JOIN node n ON n.nid=d.child WHERE d.parent=?1 AND d.name>?2 \
             ORDER BY d.name LIMIT ?3",
        );
        let mut s = self.sql.prepare_cached(sql)?;
        let rows = s.query_map((parent as i64, after, limit as i64), |r| {
            Ok(NodeEntry { name: r.get(0)?, node: node_from(r, 1)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub fn insert_node(&self, n: &Node) -> Result<(), DbError> {
        self.put_node(concat!("INSERT INTO node VALUES ", row_values!()), n)
    }

    /// Replaces the whole row of `n.nid`.
    pub fn update_node(&self, n: &Node) -> Result<(), DbError> {
        self.put_node(concat!("REPLACE INTO node VALUES ", row_values!()), n)
    }

    fn put_node(&self, sql: &str, n: &Node) -> Result<(), DbError> {
        self.execute(
            sql,
            params![
                n.nid as i64,
                n.id.as_bytes().as_slice(),
                n.ns.0 as i64,
                n.kind as u8,
                n.attrs.mode,
                n.attrs.uid,
                n.attrs.gid,
                n.rdev,
                n.size as i64,
                n.attrs.mtime,
                n.ctime,
                n.attrs.btime,
                n.links,
                n.target,
                n.mount.map(|m| m.0 as i64),
                xattrs_to(&n.xattrs),
                n.content,
                n.version as i64,
                n.live.map(|l| l.0 as i64),
                n.live.is_some_and(|l| l.1),
                n.frozen.map(|l| l.0 as i64),
                n.frozen.is_some_and(|l| l.1),
                n.superseded,
                n.source.map(|s| s.0.0 as i64),
                n.source.as_ref().map(|s| s.1.as_bytes().as_slice()),
                n.links == 0,
                n.atime,
            ],
        )?;
        Ok(())
    }

    pub fn delete_node(&self, nid: Nid) -> Result<(), DbError> {
        self.execute("DELETE FROM node WHERE nid=?1", params![nid as i64])?;
        Ok(())
    }

    pub fn set_size_and_times(
        &self,
        nid: Nid,
        size: u64,
        mtime: TimeNs,
        ctime: TimeNs,
    ) -> Result<(), DbError> {
        self.execute(
            "UPDATE node SET size=?2, mtime=?3, ctime=?4 WHERE nid=?1",
            params![nid as i64, size as i64, mtime, ctime],
        )?;
        Ok(())
    }

    /// The live layer becomes the frozen one.
    pub fn freeze_layer(&self, nid: Nid, size: u64, mtime: TimeNs) -> Result<(), DbError> {
        self.execute(
            "UPDATE node SET frozen=live, frozen_over=live_over, live=NULL, live_over=0, size=?2, \
             mtime=?3 WHERE nid=?1",
            params![nid as i64, size as i64, mtime],
        )?;
        Ok(())
    }

    /// The frozen layer became blocks: `content` is what lies under the live layer now.
    pub fn set_content(&self, nid: Nid, content: &[u8], size: u64) -> Result<(), DbError> {
        self.execute(
            "UPDATE node SET content=?2, frozen=NULL, frozen_over=0, \
             size=CASE WHEN live IS NULL THEN ?3 ELSE size END WHERE nid=?1",
            params![nid as i64, content, size as i64],
        )?;
        Ok(())
    }

    pub fn set_live(&self, nid: Nid, live: FileId, over: bool) -> Result<(), DbError> {
        self.execute(
            "UPDATE node SET live=?2, live_over=?3 WHERE nid=?1",
            params![nid as i64, live as i64, over],
        )?;
        Ok(())
    }

    /// The server has this version of a node, and needs no source for it any more.
    pub fn set_version(&self, id: &NodeId, version: VersionNo) -> Result<(), DbError> {
        self.execute(
            "UPDATE node SET version=?2, source_ns=NULL, source_id=NULL WHERE id=?1",
            params![id.as_bytes().as_slice(), version as i64],
        )?;
        Ok(())
    }

    pub fn set_mtime(&self, nid: Nid, mtime: TimeNs, ctime: TimeNs) -> Result<(), DbError> {
        self.execute(
            "UPDATE node SET mtime=?2, ctime=?3 WHERE nid=?1",
            params![nid as i64, mtime, ctime],
        )?;
        Ok(())
    }

    /// Adds to the link count; `ctime` notes when.
    pub fn add_links(&self, nid: Nid, by: i32, ctime: TimeNs) -> Result<(), DbError> {
        self.execute(
            "UPDATE node SET links=links+?2, ctime=?3, \
             nameless=CASE WHEN links+?2>0 THEN NULL ELSE 1 END WHERE nid=?1",
            params![nid as i64, by, ctime],
        )?;
        Ok(())
    }

    /// Notes of a node without names that the server took the last one, not a program here.
    pub fn mark_taken(&self, nid: Nid) -> Result<(), DbError> {
        let sql = "UPDATE node SET nameless=2 WHERE nid=?1 AND nameless IS NOT NULL";
        self.execute(sql, params![nid as i64])?;
        Ok(())
    }

    /// True for a node that has no name because the server took the last one.
    pub fn is_taken(&self, nid: Nid) -> Result<bool, DbError> {
        let mut s = self.sql.prepare_cached("SELECT 1 FROM node WHERE nid=?1 AND nameless=2")?;
        Ok(s.exists([nid as i64])?)
    }

    /// Up to `limit` nodes without a name that the server is to hear nothing of.
    pub fn orphans(&self, limit: usize) -> Result<Vec<Nid>, DbError> {
        let mut s = self.sql.prepare_cached(
            "SELECT n.nid FROM node n WHERE n.nameless IS NOT NULL \
             AND NOT EXISTS (SELECT 1 FROM base_node b WHERE b.id=n.id) \
             AND NOT EXISTS (SELECT 1 FROM base_dirent d WHERE d.child=n.id) LIMIT ?1",
        )?;
        let rows = s.query_map([limit as i64], |r| Ok(r.get::<_, i64>(0)? as u64))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Nodes that layers make special after a crash, and those deleted while open.
    pub fn nodes_to_recover(&self) -> Result<Vec<Node>, DbError> {
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM node n WHERE n.live IS NOT NULL OR n.frozen IS NOT NULL \
             OR n.nameless IS NOT NULL",
        );
        let mut s = self.sql.prepare_cached(sql)?;
        let rows = s.query_map([], |r| node_from(r, 0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// True when some file was written and is not turned into blocks yet.
    pub fn has_layers(&self) -> Result<bool, DbError> {
        let mut s = self.sql.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM node WHERE live IS NOT NULL) \
             OR EXISTS (SELECT 1 FROM node WHERE frozen IS NOT NULL)",
        )?;
        Ok(s.query_row([], |r| r.get(0))?)
    }

    /// The mount node that leads to a namespace.
    pub fn mount_of(&self, ns: NamespaceId) -> Result<Option<Nid>, DbError> {
        let mut s =
            self.sql.prepare_cached("SELECT nid FROM node WHERE mount=?1 AND links>0 LIMIT 1")?;
        Ok(s.query_row([ns.0 as i64], |r| r.get::<_, i64>(0)).optional()?.map(|v| v as u64))
    }

    /// Nodes of a namespace that live on under another id elsewhere, where the server does not have
    /// them yet.
    pub fn sources_in(&self, ns: NamespaceId) -> Result<Vec<NodeId>, DbError> {
        let mut s = self.sql.prepare_cached("SELECT source_id FROM node WHERE source_ns=?1")?;
        let rows = s.query_map([ns.0 as i64], |r| id_from(&r.get::<_, Vec<u8>>(0)?, 0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Nodes that have extended attributes.
    pub fn nodes_with_xattrs(&self) -> Result<Vec<Node>, DbError> {
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM node n WHERE n.xattrs IS NOT NULL AND n.links>0",
        );
        let mut s = self.sql.prepare_cached(sql)?;
        let rows = s.query_map([], |r| node_from(r, 0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub fn max_nid(&self) -> Result<Nid, DbError> {
        let mut s = self.sql.prepare_cached("SELECT coalesce(max(nid), 0) FROM node")?;
        Ok(s.query_row([], |r| r.get::<_, i64>(0))? as u64)
    }

    pub fn count_nodes(&self) -> Result<u64, DbError> {
        let mut s = self.sql.prepare_cached("SELECT count(*) FROM node")?;
        Ok(s.query_row([], |r| r.get::<_, i64>(0))? as u64)
    }
}

/// The stored form of extended attributes: none when there are none.
pub(super) fn xattrs_to(xattrs: &Xattrs) -> Option<Vec<u8>> {
    (!xattrs.is_empty()).then(|| serde_json::to_vec(xattrs).expect("a map of texts serialises"))
}

pub(super) fn xattrs_from(stored: Option<Vec<u8>>, column: usize) -> rusqlite::Result<Xattrs> {
    match stored {
        None => Ok(Xattrs::new()),
        Some(json) => serde_json::from_slice(&json).map_err(|e| bad(column, Type::Blob, e)),
    }
}

pub(super) fn id_from(bytes: &[u8], column: usize) -> rusqlite::Result<NodeId> {
    NodeId::from_slice(bytes).map_err(|e| bad(column, Type::Blob, e))
}

pub(super) fn bad(
    column: usize,
    t: Type,
    e: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, t, Box::new(e))
}

/// A row whose columns begin at `c`.
pub(super) fn node_from(r: &Row<'_>, c: usize) -> rusqlite::Result<Node> {
    let layer = |at: usize| -> rusqlite::Result<Option<(FileId, bool)>> {
        let file: Option<i64> = r.get(c + at)?;
        let over: bool = r.get(c + at + 1)?;
        Ok(file.map(|f| (f as u64, over)))
    };
    let kind: u8 = r.get(c + 3)?;
    let kind = NodeKind::from_u8(kind)
        .ok_or_else(|| rusqlite::Error::IntegralValueOutOfRange(c + 3, i64::from(kind)))?;
    let source_ns: Option<i64> = r.get(c + 23)?;
    let source_id: Option<Vec<u8>> = r.get(c + 24)?;
    let source = match (source_ns, source_id) {
        (Some(ns), Some(id)) => Some((NamespaceId(ns as u64), id_from(&id, c + 24)?)),
        _ => None,
    };
    Ok(Node {
        nid: r.get::<_, i64>(c)? as u64,
        id: id_from(&r.get::<_, Vec<u8>>(c + 1)?, c + 1)?,
        ns: NamespaceId(r.get::<_, i64>(c + 2)? as u64),
        kind,
        attrs: Attrs {
            mode: r.get(c + 4)?,
            uid: r.get(c + 5)?,
            gid: r.get(c + 6)?,
            mtime: r.get(c + 9)?,
            btime: r.get(c + 11)?,
        },
        rdev: r.get(c + 7)?,
        size: r.get::<_, i64>(c + 8)? as u64,
        ctime: r.get(c + 10)?,
        links: r.get(c + 12)?,
        target: r.get(c + 13)?,
        mount: r.get::<_, Option<i64>>(c + 14)?.map(|m| NamespaceId(m as u64)),
        xattrs: xattrs_from(r.get(c + 15)?, c + 15)?,
        content: r.get(c + 16)?,
        version: r.get::<_, i64>(c + 17)? as u64,
        live: layer(18)?,
        frozen: layer(20)?,
        superseded: r.get(c + 22)?,
        source,
        atime: r.get(c + 25)?,
        subdirs: r.get(c + 26)?,
    })
}
