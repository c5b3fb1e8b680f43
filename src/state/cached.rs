//! The index of plaintext blocks on disk.

use drivefs_core::id::BlockHash;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::params;

use super::Conn;
use super::DbError;
use super::FileId;

/// Where a block lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachedBlock {
    pub hash: BlockHash,
    pub file: FileId,
    /// Byte offset in the data file.
    pub offset: u64,
    pub len: u32,
    /// The server does not have it yet.
    pub unsent: bool,
}

impl Conn<'_> {
    pub fn cached(&self, hash: &BlockHash) -> Result<Option<CachedBlock>, DbError> {
        let mut s = self
            .sql
            .prepare_cached("SELECT hash, file, offset, len, unsent FROM cached WHERE hash=?1")?;
        Ok(s.query_row([hash.0.as_slice()], row).optional()?)
    }

    /// The block that lies directly before `offset` in a data file.
    pub fn cached_before(&self, file: FileId, offset: u64) -> Result<Option<CachedBlock>, DbError> {
        let mut s = self.sql.prepare_cached(
            "SELECT hash, file, offset, len, unsent FROM cached \
             WHERE file=?1 AND offset<?2 ORDER BY offset DESC LIMIT 1",
        )?;
        Ok(s.query_row((file as i64, offset as i64), row).optional()?)
    }

    /// Notes a block; one that is there already keeps its place. Returns whether it was new.
    pub fn add_cached(&self, b: &CachedBlock, used: u64) -> Result<bool, DbError> {
        let before = self.cached(&b.hash)?.is_some();
        self.execute(
            "INSERT INTO cached VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
             ON CONFLICT (hash) DO UPDATE SET unsent=max(unsent, excluded.unsent), \
             used=excluded.used",
            params![
                b.hash.0.as_slice(),
                b.file as i64,
                b.offset as i64,
                b.len,
                used as i64,
                b.unsent,
            ],
        )?;
        Ok(!before)
    }

    /// Drops a block's row if it still is this one and the server has the block. True if it did.
    pub fn forget_cached(&self, b: &CachedBlock) -> Result<bool, DbError> {
        let n = self.execute(
            "DELETE FROM cached WHERE hash=?1 AND file=?2 AND offset=?3 AND unsent=0",
            params![b.hash.0.as_slice(), b.file as i64, b.offset as i64],
        )?;
        Ok(n > 0)
    }

    /// Keeps a block until it is sent; false when it is not there.
    pub fn mark_unsent(&self, hash: &BlockHash) -> Result<bool, DbError> {
        let n =
            self.execute("UPDATE cached SET unsent=1 WHERE hash=?1", params![hash.0.as_slice()])?;
        Ok(n > 0)
    }

    /// True when blocks wait to be sent while nothing is ahead of the server, and no open file is
    /// without a name: it may have blocks, and get a name.
    pub fn has_idle_unsent(&self) -> Result<bool, DbError> {
        let mut s = self.sql.prepare_cached(
            "SELECT 1 FROM cached WHERE unsent=1 AND NOT EXISTS (SELECT 1 FROM base_node) \
             AND NOT EXISTS (SELECT 1 FROM node WHERE nameless IS NOT NULL) LIMIT 1",
        )?;
        Ok(s.exists([])?)
    }

    /// When nothing is ahead of the server, no block waits for it: contents that were overwritten
    /// or deleted before they were sent leave such blocks.
    pub fn release_unsent(&self) -> Result<(), DbError> {
        self.execute(
            "UPDATE cached SET unsent=0 WHERE unsent=1 \
             AND NOT EXISTS (SELECT 1 FROM base_node) \
             AND NOT EXISTS (SELECT 1 FROM node WHERE live IS NOT NULL) \
             AND NOT EXISTS (SELECT 1 FROM node WHERE frozen IS NOT NULL) \
             AND NOT EXISTS (SELECT 1 FROM node WHERE nameless IS NOT NULL)",
            params![],
        )?;
        Ok(())
    }

    pub fn mark_sent(&self, hash: &BlockHash) -> Result<(), DbError> {
        self.execute("UPDATE cached SET unsent=0 WHERE hash=?1", params![hash.0.as_slice()])?;
        Ok(())
    }

    pub fn touch_cached(&self, hash: &BlockHash, used: u64) -> Result<(), DbError> {
        self.execute(
            "UPDATE cached SET used=?2 WHERE hash=?1",
            params![hash.0.as_slice(), used as i64],
        )?;
        Ok(())
    }

    /// The least recently used blocks that may be evicted.
    pub fn oldest_cached(&self, limit: usize) -> Result<Vec<CachedBlock>, DbError> {
        let mut s = self.sql.prepare_cached(
            "SELECT hash, file, offset, len, unsent FROM cached c WHERE unsent=0 \
             AND NOT EXISTS (SELECT 1 FROM pinned_block p WHERE p.hash=c.hash) \
             ORDER BY used LIMIT ?1",
        )?;
        let rows = s.query_map([limit as i64], row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub fn is_file_cached(&self, file: FileId) -> Result<bool, DbError> {
        let mut s = self.sql.prepare_cached("SELECT 1 FROM cached WHERE file=?1 LIMIT 1")?;
        Ok(s.exists([file as i64])?)
    }

    /// Whether any data file or slot from `first` to `last` is a layer of some node.
    pub fn has_layer_in(&self, first: FileId, last: FileId) -> Result<bool, DbError> {
        let mut s = self.sql.prepare_cached(
            "SELECT 1 FROM node WHERE live BETWEEN ?1 AND ?2 OR frozen BETWEEN ?1 AND ?2 LIMIT 1",
        )?;
        Ok(s.exists([first as i64, last as i64])?)
    }

    /// Where cached blocks begin in a data file.
    pub fn places_cached(&self, file: FileId) -> Result<Vec<u64>, DbError> {
        let mut s = self.sql.prepare_cached("SELECT offset FROM cached WHERE file=?1")?;
        let rows = s.query_map([file as i64], |r| r.get::<_, i64>(0))?;
        Ok(rows.map(|r| r.map(|v| v as u64)).collect::<Result<_, _>>()?)
    }

    /// Data files and slots from `first` to `last` that are layers.
    pub fn layers_in(&self, first: FileId, last: FileId) -> Result<Vec<FileId>, DbError> {
        let mut s = self.sql.prepare_cached(
            "SELECT live FROM node WHERE live BETWEEN ?1 AND ?2 \
             UNION SELECT frozen FROM node WHERE frozen BETWEEN ?1 AND ?2",
        )?;
        let rows = s.query_map([first as i64, last as i64], |r| r.get::<_, i64>(0))?;
        Ok(rows.map(|r| r.map(|v| v as u64)).collect::<Result<_, _>>()?)
    }

    /// Whether a cached block begins at a place.
    pub fn is_place_cached(&self, file: FileId, offset: u64) -> Result<bool, DbError> {
        let mut s =
            self.sql.prepare_cached("SELECT 1 FROM cached WHERE file=?1 AND offset=?2 LIMIT 1")?;
        Ok(s.exists([file as i64, offset as i64])?)
    }

    /// Bytes of all cached blocks, and of those not sent yet.
    pub fn cached_bytes(&self) -> Result<(u64, u64), DbError> {
        let mut s = self.sql.prepare_cached(
            "SELECT coalesce(sum(len), 0), coalesce(sum(len * unsent), 0) FROM cached",
        )?;
        Ok(s.query_row([], |r| Ok((r.get::<_, i64>(0)? as u64, r.get::<_, i64>(1)? as u64)))?)
    }

    pub fn max_used(&self) -> Result<u64, DbError> {
        let mut s = self.sql.prepare_cached("SELECT coalesce(max(used), 0) FROM cached")?;
        Ok(s.query_row([], |r| r.get::<_, i64>(0))? as u64)
    }
}

fn row(r: &Row<'_>) -> rusqlite::Result<CachedBlock> {
    let hash: Vec<u8> = r.get(0)?;
    let mut bytes = [0; 32];
    if hash.len() == 32 {
        bytes.copy_from_slice(&hash);
    }
    Ok(CachedBlock {
        hash: BlockHash(bytes),
        file: r.get::<_, i64>(1)? as u64,
        offset: r.get::<_, i64>(2)? as u64,
        len: r.get(3)?,
        unsent: r.get(4)?,
    })
}
