//! Rows of the server's list while it is taken anew, beside the tree that is in use.

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::Seq;
use drivefs_core::name::Name;
use drivefs_core::wire::DirentRow;
use drivefs_core::wire::NodeRow;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::params;
use rusqlite::types::Type;

use super::Conn;
use super::DbError;
use super::Nid;
use super::Node;
use super::nodes::bad;
use super::nodes::columns;
use super::nodes::id_from;
use super::nodes::node_from;

impl Conn<'_> {
    pub fn put_listed_node(&self, ns: NamespaceId, row: &NodeRow) -> Result<(), DbError> {
        let json = serde_json::to_vec(row).map_err(|e| DbError::Other(e.to_string()))?;
        self.execute(
            "INSERT OR REPLACE INTO listed_node VALUES (?1, ?2, ?3)",
            params![ns.0 as i64, row.node.as_bytes().as_slice(), json],
        )?;
        Ok(())
    }

    pub fn put_listed_dirent(&self, ns: NamespaceId, row: &DirentRow) -> Result<(), DbError> {
        self.execute(
            "INSERT OR REPLACE INTO listed_dirent VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                ns.0 as i64,
                row.parent.as_bytes().as_slice(),
                row.name.as_bytes(),
                row.child.as_ref().map(|id| id.as_bytes().as_slice()),
                row.seq as i64,
            ],
        )?;
        Ok(())
    }

    pub fn listed_node(&self, ns: NamespaceId, id: &NodeId) -> Result<Option<NodeRow>, DbError> {
        let mut s = self.sql.prepare_cached("SELECT row FROM listed_node WHERE ns=?1 AND id=?2")?;
        Ok(s.query_row((ns.0 as i64, id.as_bytes().as_slice()), |r| node_row(r, 0)).optional()?)
    }

    pub fn listed_dirent(
        &self,
        ns: NamespaceId,
        parent: &NodeId,
        name: &[u8],
    ) -> Result<Option<DirentRow>, DbError> {
        let mut s = self.sql.prepare_cached(
            "SELECT parent, name, child, seq FROM listed_dirent \
             WHERE ns=?1 AND parent=?2 AND name=?3",
        )?;
        let key = (ns.0 as i64, parent.as_bytes().as_slice(), name);
        Ok(s.query_row(key, dirent_row).optional()?)
    }

    /// True when some entry that changed behind `seq` names the node.
    pub fn is_listed_behind(
        &self,
        ns: NamespaceId,
        child: &NodeId,
        seq: Seq,
    ) -> Result<bool, DbError> {
        let mut s = self
            .sql
            .prepare_cached("SELECT 1 FROM listed_dirent WHERE ns=?1 AND child=?2 AND seq>?3")?;
        Ok(s.exists((ns.0 as i64, child.as_bytes().as_slice(), seq as i64))?)
    }

    /// Listed nodes in the order of their ids, behind `after`.
    pub fn listed_nodes(
        &self,
        ns: NamespaceId,
        after: Option<&NodeId>,
        limit: usize,
    ) -> Result<Vec<NodeRow>, DbError> {
        let after = after.map_or(&[][..], |id| id.as_bytes().as_slice());
        let mut s = self.sql.prepare_cached(
            "SELECT row FROM listed_node WHERE ns=?1 AND id>?2 ORDER BY id LIMIT ?3",
        )?;
        let rows = s.query_map((ns.0 as i64, after, limit as i64), |r| node_row(r, 0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Listed entries in the order of folder and name, behind `after`.
    pub fn listed_dirents(
        &self,
        ns: NamespaceId,
        after: Option<(&NodeId, &[u8])>,
        limit: usize,
    ) -> Result<Vec<DirentRow>, DbError> {
        let (parent, name) = match after {
            Some((parent, name)) => (parent.as_bytes().as_slice(), name),
            None => (&[][..], &[][..]),
        };
        let mut s = self.sql.prepare_cached(
            "SELECT parent, name, child, seq FROM listed_dirent \
             WHERE ns=?1 AND (parent, name)>(?2, ?3) ORDER BY parent, name LIMIT ?4",
        )?;
        let rows = s.query_map((ns.0 as i64, parent, name, limit as i64), dirent_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub fn forget_listed(&self, ns: NamespaceId) -> Result<(), DbError> {
        self.execute("DELETE FROM listed_node WHERE ns=?1", params![ns.0 as i64])?;
        self.execute("DELETE FROM listed_dirent WHERE ns=?1", params![ns.0 as i64])?;
        Ok(())
    }

    /// Nodes of a namespace by number, behind `after`.
    pub fn nodes_in(
        &self,
        ns: NamespaceId,
        after: Nid,
        limit: usize,
    ) -> Result<Vec<Node>, DbError> {
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM node n WHERE n.nid>?2 AND n.ns=?1 ORDER BY n.nid LIMIT ?3",
        );
        let mut s = self.sql.prepare_cached(sql)?;
        let rows = s.query_map((ns.0 as i64, after as i64, limit as i64), |r| node_from(r, 0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

fn node_row(r: &Row<'_>, column: usize) -> rusqlite::Result<NodeRow> {
    let json: Vec<u8> = r.get(column)?;
    serde_json::from_slice(&json).map_err(|e| bad(column, Type::Blob, e))
}

fn dirent_row(r: &Row<'_>) -> rusqlite::Result<DirentRow> {
    let name: Vec<u8> = r.get(1)?;
    let child: Option<Vec<u8>> = r.get(2)?;
    Ok(DirentRow {
        parent: id_from(&r.get::<_, Vec<u8>>(0)?, 0)?,
        name: Name::new(name).map_err(|e| bad(1, Type::Blob, e))?,
        child: child.map(|id| id_from(&id, 2)).transpose()?,
        seq: r.get::<_, i64>(3)? as u64,
    })
}
