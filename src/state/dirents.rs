//! Rows of the local tree: entries of directories.

use drivefs_core::id::NodeId;
use drivefs_core::node::NodeKind;
use rusqlite::OptionalExtension;
use rusqlite::params;

use super::Conn;
use super::DbError;
use super::Nid;
use super::Occupant;
use super::nodes::id_from;

impl Conn<'_> {
    pub fn dirent(&self, parent: Nid, name: &[u8]) -> Result<Option<Nid>, DbError> {
        let mut s =
            self.sql.prepare_cached("SELECT child FROM dirent WHERE parent=?1 AND name=?2")?;
        Ok(s.query_row((parent as i64, name), |r| r.get::<_, i64>(0)).optional()?.map(|v| v as u64))
    }

    /// Id of the node that an entry names.
    pub fn dirent_id(&self, parent: Nid, name: &[u8]) -> Result<Option<NodeId>, DbError> {
        let mut s = self.sql.prepare_cached(
            "SELECT n.id FROM dirent d JOIN node n ON n.nid=d.child \
             WHERE d.parent=?1 AND d.name=?2",
        )?;
        Ok(s.query_row((parent as i64, name), |r| {
            let bytes: Vec<u8> = r.get(0)?;
            id_from(&bytes, 0)
        })
        .optional()?)
    }

    /// What an entry names, in short.
    pub fn occupant(&self, parent: Nid, name: &[u8]) -> Result<Option<Occupant>, DbError> {
        let mut s = self.sql.prepare_cached(
            "SELECT n.id, n.kind FROM dirent d JOIN node n ON n.nid=d.child \
             WHERE d.parent=?1 AND d.name=?2",
        )?;
        let mut rows = s.query((parent as i64, name))?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let id: Vec<u8> = row.get(0)?;
        let kind: u8 = row.get(1)?;
        let folder = NodeKind::from_u8(kind).is_some_and(NodeKind::is_folder);
        Ok(Some(Occupant { id: id_from(&id, 0)?, folder }))
    }

    pub fn put_dirent(&self, parent: Nid, name: &[u8], child: Nid) -> Result<(), DbError> {
        self.execute(
            "INSERT OR REPLACE INTO dirent VALUES (?1, ?2, ?3)",
            params![parent as i64, name, child as i64],
        )?;
        Ok(())
    }

    pub fn delete_dirent(&self, parent: Nid, name: &[u8]) -> Result<(), DbError> {
        self.execute(
            "DELETE FROM dirent WHERE parent=?1 AND name=?2",
            params![parent as i64, name],
        )?;
        Ok(())
    }

    /// Every place of a node.
    pub fn places(&self, child: Nid) -> Result<Vec<(Nid, Vec<u8>)>, DbError> {
        let mut s = self.sql.prepare_cached("SELECT parent, name FROM dirent WHERE child=?1")?;
        let rows = s.query_map([child as i64], |r| Ok((r.get::<_, i64>(0)? as u64, r.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub fn is_empty_dir(&self, parent: Nid) -> Result<bool, DbError> {
        let mut s = self.sql.prepare_cached("SELECT 1 FROM dirent WHERE parent=?1 LIMIT 1")?;
        Ok(!s.exists([parent as i64])?)
    }

    /// Number of directories in a directory, for its link count.
    pub fn subdirs(&self, parent: Nid) -> Result<u32, DbError> {
        let mut s = self.sql.prepare_cached(
            "SELECT count(*) FROM dirent d JOIN node n ON n.nid=d.child \
             WHERE d.parent=?1 AND n.kind IN (2, 8)",
        )?;
        Ok(s.query_row([parent as i64], |r| r.get(0))?)
    }

    /// True when two directories have entries of the same name.
    pub fn shares_a_name(&self, one: Nid, other: Nid) -> Result<bool, DbError> {
        let mut s = self.sql.prepare_cached(
            "SELECT 1 FROM dirent a JOIN dirent b ON a.name=b.name \
             WHERE a.parent=?1 AND b.parent=?2 LIMIT 1",
        )?;
        Ok(s.exists([one as i64, other as i64])?)
    }

    /// Names every entry of `from` in `to` instead (a directory that takes another's place).
    pub fn move_children(&self, from: Nid, to: Nid) -> Result<(), DbError> {
        self.execute(
            "UPDATE dirent SET parent=?2 WHERE parent=?1",
            params![from as i64, to as i64],
        )?;
        Ok(())
    }
}
