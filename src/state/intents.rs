//! Intents: the agreed base of everything that is ahead of the server.

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::VersionNo;
use drivefs_core::node::Attrs;
use drivefs_core::node::TimeNs;
use drivefs_core::node::Xattrs;
use drivefs_core::wire::Blob;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::params;
use rusqlite::types::Type;

use super::Conn;
use super::DbError;
use super::Node;
use super::nodes::bad;
use super::nodes::columns;
use super::nodes::id_from;
use super::nodes::node_from;
use super::nodes::xattrs_from;
use super::nodes::xattrs_to;

/// The state of a node that both sides last agreed on, while the local one differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseNode {
    pub id: NodeId,
    pub ns: NamespaceId,
    /// What the server has; none when it does not have the node yet.
    pub agreed: Option<(Attrs, Xattrs)>,
    pub content: Option<Vec<u8>>,
    pub version: VersionNo,
    /// Contents of puts over this version that were sent and not answered yet: each of them may
    /// still be committed.
    pub inflight: Vec<Vec<u8>>,
    /// Order of the first change since.
    pub since: u64,
    pub at: TimeNs,
    /// Why the server refused it last time.
    pub error: Option<String>,
}

/// The node that the server has under a name, while the local one differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseDirent {
    pub parent: NodeId,
    pub name: Vec<u8>,
    pub ns: NamespaceId,
    pub child: Option<Occupant>,
    pub since: u64,
}

/// What the server has under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupant {
    pub id: NodeId,
    pub folder: bool,
}

impl Occupant {
    pub fn of(node: &Node) -> Self {
        Self { id: node.id, folder: node.kind.is_folder() }
    }
}

/// Puts of one node remembered without an answer; the oldest go first.
const INFLIGHT_MAX: usize = 8;
/// Columns of `base_node`.
const BASE_COLUMNS: usize = 15;
const NODE: &str = "SELECT id, ns, present, mode, uid, gid, mtime, btime, xattrs, content, \
     version, inflight, since, at, error FROM base_node";
const DIRENT: &str = "SELECT parent, name, ns, child, folder, since FROM base_dirent";

impl Conn<'_> {
    pub fn base_node(&self, id: &NodeId) -> Result<Option<BaseNode>, DbError> {
        let mut s = self.sql.prepare_cached(&[NODE, " WHERE id=?1"].concat())?;
        Ok(s.query_row([id.as_bytes().as_slice()], node_row).optional()?)
    }

    pub fn is_dirty(&self, id: &NodeId) -> Result<bool, DbError> {
        let mut s = self.sql.prepare_cached("SELECT 1 FROM base_node WHERE id=?1")?;
        Ok(s.exists([id.as_bytes().as_slice()])?)
    }

    /// Dirty nodes of a namespace in the order they became so.
    pub fn dirty_nodes(
        &self,
        ns: NamespaceId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<BaseNode>, DbError> {
        let mut s = self.sql.prepare_cached(
            &[NODE, " WHERE ns=?1 AND since>?2 ORDER BY since LIMIT ?3"].concat(),
        )?;
        let rows = s.query_map((ns.0 as i64, after as i64, limit as i64), node_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Dirty nodes of a namespace as they are here, in the order they became so. Those without a
    /// name here are left out.
    pub fn dirty_with_local(
        &self,
        ns: NamespaceId,
        limit: usize,
    ) -> Result<Vec<(BaseNode, Node)>, DbError> {
        let sql = concat!(
            "SELECT b.id, b.ns, b.present, b.mode, b.uid, b.gid, b.mtime, b.btime, b.xattrs, \
             b.content, b.version, b.inflight, b.since, b.at, b.error, ",
            columns!(),
            " FROM base_node b CROSS JOIN node n ON n.id=b.id WHERE b.ns=?1 AND n.links>0 \
             ORDER BY b.since LIMIT ?2",
        );
        let mut s = self.sql.prepare_cached(sql)?;
        let rows = s.query_map((ns.0 as i64, limit as i64), |r| {
            Ok((node_row(r)?, node_from(r, BASE_COLUMNS)?))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub fn dirty_dirents(
        &self,
        ns: NamespaceId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<BaseDirent>, DbError> {
        let mut s = self.sql.prepare_cached(
            &[DIRENT, " WHERE ns=?1 AND since>?2 ORDER BY since LIMIT ?3"].concat(),
        )?;
        let rows = s.query_map((ns.0 as i64, after as i64, limit as i64), dirent_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub fn put_base_node(&self, b: &BaseNode) -> Result<(), DbError> {
        let attrs = b.agreed.as_ref().map(|a| a.0);
        self.execute(
            "INSERT OR REPLACE INTO base_node VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,\
             ?14,?15)",
            params![
                b.id.as_bytes().as_slice(),
                b.ns.0 as i64,
                b.agreed.is_some(),
                attrs.map(|a| a.mode),
                attrs.and_then(|a| a.uid),
                attrs.and_then(|a| a.gid),
                attrs.map(|a| a.mtime),
                attrs.map(|a| a.btime),
                b.agreed.as_ref().and_then(|a| xattrs_to(&a.1)),
                b.content,
                b.version as i64,
                inflight_to(&b.inflight),
                b.since as i64,
                b.at,
                b.error,
            ],
        )?;
        Ok(())
    }

    pub fn delete_base_node(&self, id: &NodeId) -> Result<(), DbError> {
        self.execute("DELETE FROM base_node WHERE id=?1", params![id.as_bytes().as_slice()])?;
        Ok(())
    }

    /// Notes a content that is about to be sent.
    pub fn add_inflight(&self, id: &NodeId, content: &[u8]) -> Result<(), DbError> {
        let Some(BaseNode { mut inflight, .. }) = self.base_node(id)? else { return Ok(()) };
        inflight.retain(|sent| sent != content);
        inflight.push(content.to_vec());
        let over = inflight.len().saturating_sub(INFLIGHT_MAX);
        self.execute(
            "UPDATE base_node SET inflight=?2 WHERE id=?1",
            params![id.as_bytes().as_slice(), inflight_to(&inflight[over..])],
        )?;
        Ok(())
    }

    pub fn set_sync_error(&self, id: &NodeId, error: Option<&str>) -> Result<(), DbError> {
        self.execute(
            "UPDATE base_node SET error=?2 WHERE id=?1",
            params![id.as_bytes().as_slice(), error],
        )?;
        Ok(())
    }

    /// Forgets why the server refused changes: they are about to be tried again.
    pub fn clear_sync_errors(&self) -> Result<(), DbError> {
        self.execute("UPDATE base_node SET error=NULL WHERE error IS NOT NULL", params![])?;
        Ok(())
    }

    pub fn base_dirent(&self, parent: &NodeId, name: &[u8]) -> Result<Option<BaseDirent>, DbError> {
        let mut s = self.sql.prepare_cached(&[DIRENT, " WHERE parent=?1 AND name=?2"].concat())?;
        Ok(s.query_row((parent.as_bytes().as_slice(), name), dirent_row).optional()?)
    }

    /// Up to `limit` names of a folder behind `after` under which the server has something and the
    /// local tree differs, in name order.
    pub fn base_dirents(
        &self,
        parent: &NodeId,
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<BaseDirent>, DbError> {
        let mut s = self.sql.prepare_cached(
            &[DIRENT, " WHERE parent=?1 AND name>?2 AND child IS NOT NULL ORDER BY name LIMIT ?3"]
                .concat(),
        )?;
        let rows = s.query_map((parent.as_bytes().as_slice(), after, limit as i64), dirent_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub fn put_base_dirent(&self, b: &BaseDirent) -> Result<(), DbError> {
        let sql = "INSERT OR REPLACE INTO base_dirent VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        self.execute(
            sql,
            params![
                b.parent.as_bytes().as_slice(),
                &b.name,
                b.ns.0 as i64,
                b.child.as_ref().map(|c| c.id.as_bytes().as_slice()),
                b.child.is_some_and(|c| c.folder),
                b.since as i64,
            ],
        )?;
        Ok(())
    }

    pub fn delete_base_dirent(&self, parent: &NodeId, name: &[u8]) -> Result<(), DbError> {
        self.execute(
            "DELETE FROM base_dirent WHERE parent=?1 AND name=?2",
            params![parent.as_bytes().as_slice(), name],
        )?;
        Ok(())
    }

    /// Places where the server has `child` and the local tree differs.
    pub fn base_places(&self, child: &NodeId) -> Result<Vec<BaseDirent>, DbError> {
        let mut s = self.sql.prepare_cached(&[DIRENT, " WHERE child=?1"].concat())?;
        let rows = s.query_map([child.as_bytes().as_slice()], dirent_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Makes intents about entries of directory `old`, which the server does not have, be about
    /// `new`. What the server has there stays noted.
    pub fn rename_base_parent(&self, old: &NodeId, new: &NodeId) -> Result<(), DbError> {
        self.execute(
            "UPDATE OR IGNORE base_dirent SET parent=?2 WHERE parent=?1",
            params![old.as_bytes().as_slice(), new.as_bytes().as_slice()],
        )?;
        self.execute(
            "DELETE FROM base_dirent WHERE parent=?1",
            params![old.as_bytes().as_slice()],
        )?;
        Ok(())
    }

    /// Number of intents: nodes, entries.
    pub fn count_intents(&self) -> Result<(u64, u64), DbError> {
        let mut s = self.sql.prepare_cached(
            "SELECT (SELECT count(*) FROM base_node), (SELECT count(*) FROM base_dirent)",
        )?;
        Ok(s.query_row([], |r| Ok((r.get::<_, i64>(0)? as u64, r.get::<_, i64>(1)? as u64)))?)
    }

    /// The newest order number among intents.
    pub fn max_since(&self) -> Result<u64, DbError> {
        let mut s = self.sql.prepare_cached(
            "SELECT max((SELECT coalesce(max(since), 0) FROM base_node), \
             (SELECT coalesce(max(since), 0) FROM base_dirent))",
        )?;
        Ok(s.query_row([], |r| r.get::<_, i64>(0))? as u64)
    }

    /// The oldest order number among intents; none when nothing is ahead.
    pub fn min_since(&self) -> Result<Option<u64>, DbError> {
        let mut s = self.sql.prepare_cached(
            "SELECT min(since) FROM (SELECT since FROM base_node UNION ALL \
             SELECT since FROM base_dirent)",
        )?;
        Ok(s.query_row([], |r| r.get::<_, Option<i64>>(0))?.map(|v| v as u64))
    }
}

fn node_row(r: &Row<'_>) -> rusqlite::Result<BaseNode> {
    let agreed = if r.get(2)? {
        let attrs = Attrs {
            mode: r.get(3)?,
            uid: r.get(4)?,
            gid: r.get(5)?,
            mtime: r.get(6)?,
            btime: r.get(7)?,
        };
        Some((attrs, xattrs_from(r.get(8)?, 8)?))
    } else {
        None
    };
    Ok(BaseNode {
        id: id_from(&r.get::<_, Vec<u8>>(0)?, 0)?,
        ns: NamespaceId(r.get::<_, i64>(1)? as u64),
        agreed,
        content: r.get(9)?,
        version: r.get::<_, i64>(10)? as u64,
        inflight: inflight_from(r.get(11)?, 11)?,
        since: r.get::<_, i64>(12)? as u64,
        at: r.get(13)?,
        error: r.get(14)?,
    })
}

/// The stored form: a JSON list; none when nothing is under way.
fn inflight_to(sent: &[Vec<u8>]) -> Option<Vec<u8>> {
    let list: Vec<Blob> = sent.iter().cloned().map(Blob).collect();
    (!list.is_empty()).then(|| serde_json::to_vec(&list).expect("a list of texts serialises"))
}

fn inflight_from(stored: Option<Vec<u8>>, column: usize) -> rusqlite::Result<Vec<Vec<u8>>> {
    match stored {
        None => Ok(Vec::new()),
        // An encoded manifest alone: how it was stored before there could be several.
        Some(bytes) if bytes.first() != Some(&b'[') => Ok(vec![bytes]),
        Some(json) => {
            let list: Vec<Blob> =
                serde_json::from_slice(&json).map_err(|e| bad(column, Type::Blob, e))?;
            Ok(list.into_iter().map(|sent| sent.0).collect())
        }
    }
}

fn dirent_row(r: &Row<'_>) -> rusqlite::Result<BaseDirent> {
    let child: Option<Vec<u8>> = r.get(3)?;
    Ok(BaseDirent {
        parent: id_from(&r.get::<_, Vec<u8>>(0)?, 0)?,
        name: r.get(1)?,
        ns: NamespaceId(r.get::<_, i64>(2)? as u64),
        child: match child {
            Some(id) => Some(Occupant { id: id_from(&id, 3)?, folder: r.get(4)? }),
            None => None,
        },
        since: r.get::<_, i64>(5)? as u64,
    })
}
