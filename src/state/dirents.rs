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
            // Not "OR REPLACE": that would pass by the triggers that count folders.
            "INSERT INTO dirent VALUES (?1, ?2, ?3) \
             ON CONFLICT (parent, name) DO UPDATE SET child=excluded.child",
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

#[cfg(test)]
mod tests {
    use drivefs_core::id::NamespaceId;
    use drivefs_core::node::Attrs;
    use drivefs_core::node::NodeKind;

    use super::*;
    use crate::state::Db;
    use crate::state::Node;

    fn node(nid: Nid, kind: NodeKind) -> Node {
        Node {
            nid,
            id: NodeId::from_parts(nid, [0; 10]),
            ns: NamespaceId(1),
            kind,
            attrs: Attrs { mode: 0o755, uid: None, gid: None, mtime: 0, btime: 0 },
            rdev: 0,
            size: 0,
            ctime: 0,
            links: 1,
            target: None,
            mount: None,
            xattrs: Default::default(),
            content: None,
            version: 0,
            live: None,
            frozen: None,
            superseded: false,
            source: None,
            atime: None,
            subdirs: 0,
        }
    }

    #[test]
    fn a_folder_knows_how_many_folders_it_holds() {
        let dir = tempfile::tempdir().expect("a folder");
        let db = Db::open(&dir.path().join("state.db")).expect("a database");
        db.write(|c| {
            for nid in 1..=5 {
                c.insert_node(&node(nid, NodeKind::Dir))?;
            }
            c.insert_node(&node(6, NodeKind::File))?;
            let count = |nid| Ok::<_, DbError>(c.node(nid)?.map(|n| n.subdirs));
            c.put_dirent(1, b"a", 2)?;
            c.put_dirent(1, b"b", 3)?;
            c.put_dirent(1, b"f", 6)?;
            assert_eq!(count(1)?, Some(2));
            c.put_dirent(1, b"b", 4)?; // Another folder takes the place.
            c.put_dirent(1, b"f", 5)?; // A folder takes a file's place,
            assert_eq!(count(1)?, Some(3));
            c.put_dirent(1, b"b", 6)?; // and a file a folder's.
            assert_eq!(count(1)?, Some(2));
            c.move_children(1, 2)?;
            assert_eq!((count(1)?, count(2)?), (Some(0), Some(2)));
            c.delete_dirent(2, b"a")?;
            c.delete_dirent(2, b"b")?;
            assert_eq!(count(2)?, Some(1));
            c.update_node(&Node { subdirs: 77, ..node(2, NodeKind::Dir) })?;
            assert_eq!(count(2)?, Some(1));
            Ok::<_, DbError>(())
        })
        .expect("the counts are right");
    }
}
