//! Which account holds which block, and where it lies. Never answers across accounts.

use drivefs_core::codec::Codec;
use drivefs_core::id::BlockHash;
use drivefs_core::id::PackId;
use drivefs_core::id::UserId;
use drivefs_core::manifest::SegmentRef;
use drivefs_core::pack::Location;

use super::DbError;
use super::Sql;
use super::value::Row;
use super::value::params;

/// A block that an account holds, with all that is needed to read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldBlock {
    pub pack: PackId,
    pub at: Location,
    /// Account under which the pack was sealed: the first uploader's, where the block was linked.
    pub pack_owner: UserId,
    pub wrapped_key: Vec<u8>,
}

/// What is known of a held block without opening its pack. One that is doomed is not held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockFacts {
    pub block_len: u32,
    /// Entries and content bytes, once verified as a manifest segment.
    pub segment: Option<(u32, u64)>,
}

impl BlockFacts {
    /// True when the block is a segment that was verified to be as `listed` says.
    pub fn is_segment(&self, listed: &SegmentRef) -> bool {
        self.segment == Some((listed.entries, listed.bytes))
    }
}

/// A pack to be recorded.
#[derive(Clone)]
pub struct NewPack {
    pub pack: PackId,
    pub owner: UserId,
    pub size: u64,
    pub wrapped_key: Vec<u8>,
    pub created: i64,
}

pub fn facts(
    sql: &mut dyn Sql,
    owner: UserId,
    hash: BlockHash,
) -> Result<Option<BlockFacts>, DbError> {
    let row = sql.query_one(
        "SELECT block_len, segment_entries, segment_bytes FROM block
         WHERE owner = ?1 AND hash = ?2 AND doomed IS NULL",
        params![owner, hash],
    )?;
    row.map(|r| {
        let entries: Option<u32> = r.get(1)?;
        let bytes: Option<u64> = r.get(2)?;
        Ok(BlockFacts { block_len: r.get(0)?, segment: entries.zip(bytes) })
    })
    .transpose()
}

/// Where a block lies, also one that is doomed: what refers to it reads it.
pub fn find(
    sql: &mut dyn Sql,
    owner: UserId,
    hash: BlockHash,
) -> Result<Option<HeldBlock>, DbError> {
    let row = sql.query_one(
        "SELECT b.pack, b.idx, b.offset_bytes, b.sealed_len, b.codec, b.block_len, p.owner,
         p.wrapped_key FROM block b JOIN pack p ON p.pack = b.pack
         WHERE b.owner = ?1 AND b.hash = ?2",
        params![owner, hash],
    )?;
    row.map(|r| held_of(&r, hash)).transpose()
}

fn held_of(r: &Row, hash: BlockHash) -> Result<HeldBlock, DbError> {
    Ok(HeldBlock {
        pack: r.get(0)?,
        at: Location {
            hash,
            index: r.get(1)?,
            offset: r.get(2)?,
            sealed_len: r.get(3)?,
            codec: Codec::from_u8(r.get(4)?).ok_or(DbError::Decode("codec"))?,
            block_len: r.get(5)?,
        },
        pack_owner: r.get(6)?,
        wrapped_key: r.get(7)?,
    })
}

/// Those of `hashes` that the account does not hold, in order.
pub fn missing(
    sql: &mut dyn Sql,
    owner: UserId,
    hashes: &[BlockHash],
) -> Result<Vec<BlockHash>, DbError> {
    let mut out = Vec::new();
    for hash in hashes {
        let row = sql.query_one(
            "SELECT 1 FROM block WHERE owner = ?1 AND hash = ?2 AND doomed IS NULL",
            params![owner, *hash],
        )?;
        if row.is_none() {
            out.push(*hash);
        }
    }
    Ok(out)
}

/// Notes that the account holds a block; false when it did already. One that is doomed is held from
/// here on, where it is now.
pub fn insert(
    sql: &mut dyn Sql,
    owner: UserId,
    pack: PackId,
    at: &Location,
) -> Result<bool, DbError> {
    let changed = sql.exec(
        "INSERT INTO block (owner, hash, pack, idx, offset_bytes, sealed_len, codec, block_len)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (owner, hash) DO UPDATE SET pack = ?3, idx = ?4, offset_bytes = ?5,
             sealed_len = ?6, codec = ?7, doomed = NULL WHERE block.doomed IS NOT NULL",
        params![
            owner,
            at.hash,
            pack,
            at.index,
            at.offset,
            at.sealed_len,
            at.codec as u8,
            at.block_len,
        ],
    )?;
    Ok(changed > 0)
}

pub fn insert_pack(sql: &mut dyn Sql, p: &NewPack, blocks: usize) -> Result<(), DbError> {
    sql.exec(
        "INSERT INTO pack (pack, owner, size, blocks, wrapped_key, created)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![p.pack, p.owner, p.size, blocks, &p.wrapped_key[..], p.created],
    )?;
    Ok(())
}

/// Notes that the block is a segment as `listed`, whose blocks are all held.
pub fn set_segment(sql: &mut dyn Sql, owner: UserId, listed: &SegmentRef) -> Result<(), DbError> {
    sql.exec(
        "UPDATE block SET segment_entries = ?3, segment_bytes = ?4
         WHERE owner = ?1 AND hash = ?2",
        params![owner, listed.hash, listed.entries, listed.bytes],
    )?;
    Ok(())
}

/// Replaces a pack's wrapped key, if it still is `old`; answers how many rows that changed.
pub fn set_wrapped_key(
    sql: &mut dyn Sql,
    pack: PackId,
    old: &[u8],
    new: &[u8],
) -> Result<u64, DbError> {
    sql.exec(
        "UPDATE pack SET wrapped_key = ?3 WHERE pack = ?1 AND wrapped_key = ?2",
        params![pack, old, new],
    )
}
