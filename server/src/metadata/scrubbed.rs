//! Blocks that were found to be bad, and how far the reading of all packs has come.

use drivefs_core::id::BlockHash;
use drivefs_core::id::PackId;
use drivefs_core::id::UserId;

use super::DbError;
use super::Sql;
use super::server;
use super::value::params;

const POSITION_NOTE: &str = "scrub_position";

/// A block, or a pack as a whole, that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadBlock {
    pub pack: PackId,
    pub block: Option<(UserId, BlockHash)>,
    pub what: String,
    /// Seconds since the Unix epoch.
    pub found: i64,
}

/// Replaces what is known to be bad in a pack; keeps when each was first found.
pub fn replace(sql: &mut dyn Sql, pack: PackId, bad: &[BadBlock]) -> Result<(), DbError> {
    let before =
        sql.query("SELECT owner, hash, found FROM bad_block WHERE pack = ?1", params![pack])?;
    if before.is_empty() && bad.is_empty() {
        return Ok(());
    }
    sql.exec("DELETE FROM bad_block WHERE pack = ?1", params![pack])?;
    for b in bad {
        let (owner, hash) = match b.block {
            Some((owner, hash)) => (owner, hash.0.to_vec()),
            None => (UserId(0), Vec::new()),
        };
        let mut found = b.found;
        for row in &before {
            if row.get::<UserId>(0)? == owner && row.get::<Vec<u8>>(1)? == hash {
                found = row.get(2)?;
            }
        }
        sql.exec(
            "INSERT INTO bad_block (pack, owner, hash, what, found) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (pack, owner, hash) DO UPDATE SET what = ?4",
            params![pack, owner, &hash[..], b.what.as_str(), found],
        )?;
    }
    Ok(())
}

/// All that is known to be bad, of packs that are still there.
pub fn all(sql: &mut dyn Sql, limit: u32) -> Result<Vec<BadBlock>, DbError> {
    sql.query(
        "SELECT b.pack, b.owner, b.hash, b.what, b.found FROM bad_block b
         JOIN pack p ON p.pack = b.pack ORDER BY b.pack, b.owner, b.hash LIMIT ?1",
        params![limit],
    )?
    .iter()
    .map(|r| {
        let hash: Vec<u8> = r.get(2)?;
        let block = if hash.is_empty() {
            None
        } else {
            let hash = BlockHash::from_slice(&hash).map_err(|_| DbError::Decode("hash"))?;
            Some((r.get(1)?, hash))
        };
        Ok(BadBlock { pack: r.get(0)?, block, what: r.get(3)?, found: r.get(4)? })
    })
    .collect()
}

pub fn count(sql: &mut dyn Sql) -> Result<u64, DbError> {
    let row =
        sql.query_one("SELECT count(*) FROM bad_block b JOIN pack p ON p.pack = b.pack", &[])?;
    row.map_or(Ok(0), |r| r.get(0))
}

/// The note of how far the reading has come, as it was set.
pub fn position(sql: &mut dyn Sql) -> Result<Option<String>, DbError> {
    server::note(sql, POSITION_NOTE)
}

pub fn set_position(sql: &mut dyn Sql, text: &str) -> Result<(), DbError> {
    server::set_note(sql, POSITION_NOTE, text)
}
