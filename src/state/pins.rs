//! What is kept on this disk by request: pinned nodes, and the blocks that they come to.

use drivefs_core::id::BlockHash;
use drivefs_core::id::NodeId;
use rusqlite::params;

use super::Conn;
use super::DbError;
use super::nodes::id_from;

impl Conn<'_> {
    pub fn add_pin(&self, id: &NodeId) -> Result<(), DbError> {
        let id = id.as_bytes().as_slice();
        self.execute("INSERT OR IGNORE INTO pin VALUES (?1)", params![id])?;
        Ok(())
    }

    /// True if it was pinned.
    pub fn remove_pin(&self, id: &NodeId) -> Result<bool, DbError> {
        let id = id.as_bytes().as_slice();
        Ok(self.execute("DELETE FROM pin WHERE id=?1", params![id])? > 0)
    }

    pub fn is_pin(&self, id: &NodeId) -> Result<bool, DbError> {
        let mut s = self.sql.prepare_cached("SELECT 1 FROM pin WHERE id=?1")?;
        Ok(s.exists([id.as_bytes().as_slice()])?)
    }

    pub fn pins(&self) -> Result<Vec<NodeId>, DbError> {
        let mut s = self.sql.prepare_cached("SELECT id FROM pin")?;
        let rows = s.query_map([], |r| id_from(&r.get::<_, Vec<u8>>(0)?, 0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Keeps a block from being evicted; `pass` is the walk that met it.
    pub fn pin_block(&self, hash: &BlockHash, pass: u64) -> Result<(), DbError> {
        self.execute(
            "INSERT OR REPLACE INTO pinned_block VALUES (?1, ?2)",
            params![hash.0.as_slice(), pass as i64],
        )?;
        Ok(())
    }

    /// The number of the last walk.
    pub fn last_pin_pass(&self) -> Result<u64, DbError> {
        let mut s = self.sql.prepare_cached("SELECT coalesce(max(pass), 0) FROM pinned_block")?;
        Ok(s.query_row([], |r| r.get::<_, i64>(0))? as u64)
    }

    /// Lets blocks go that the walks from `pass` on have not met.
    pub fn release_pinned(&self, pass: u64) -> Result<(), DbError> {
        self.execute("DELETE FROM pinned_block WHERE pass<?1", params![pass as i64])?;
        Ok(())
    }

    pub fn is_block_pinned(&self, hash: &BlockHash) -> Result<bool, DbError> {
        let mut s = self.sql.prepare_cached("SELECT 1 FROM pinned_block WHERE hash=?1")?;
        Ok(s.exists([hash.0.as_slice()])?)
    }

    /// Bytes of pinned blocks on this disk.
    pub fn pinned_bytes(&self) -> Result<u64, DbError> {
        let mut s = self.sql.prepare_cached(
            "SELECT coalesce(sum(c.len), 0) FROM pinned_block p JOIN cached c ON c.hash=p.hash",
        )?;
        Ok(s.query_row([], |r| r.get::<_, i64>(0))? as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Db;

    #[test]
    fn a_database_of_version_2_keeps_what_it_has_and_gets_the_tables_of_pins() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.db");
        let db = Db::open(&path).expect("made");
        db.write(|c| c.set_meta("kept", b"yes")).expect("written");
        drop(db);
        let old = rusqlite::Connection::open(&path).expect("opens");
        let later = ["pin", "pinned_block", "listed_node", "listed_dirent"];
        let drops: String = later.iter().map(|t| format!("DROP TABLE {t};")).collect();
        old.execute_batch(&format!("{drops} PRAGMA user_version=2;")).expect("as version 2 was");
        drop(old);
        let id = NodeId::from_parts(1, [2; 10]);
        for _ in 0..2 {
            let db = Db::open(&path).expect("brought up to date");
            db.write(|c| c.add_pin(&id)).expect("there is a table");
            let (kept, pins) =
                db.read(|c| Ok::<_, DbError>((c.meta("kept")?, c.pins()?))).expect("readable");
            assert_eq!((kept, pins), (Some(b"yes".to_vec()), vec![id]));
        }
    }
}
