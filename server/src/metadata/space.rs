//! What nothing refers to any more: blocks that are doomed, packs that are dead, objects to remove.
//!
//! A doomed block counts as not held by whoever wants to refer to it anew, and is still read by who
//! refers to it. Each change that takes something from those who look before they write moves the
//! generation on (`generation`).

use drivefs_core::id::BlockHash;
use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::PackId;
use drivefs_core::id::UserId;
use drivefs_core::id::VersionNo;
use drivefs_core::pack::Location;

use super::DbError;
use super::Sql;
use super::blocks;
use super::blocks::HeldBlock;
use super::server;
use super::value::params;

const GENERATION: &str = "space_generation";

/// A block row as the collection sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockState {
    pub hash: BlockHash,
    pub pack: PackId,
    /// Round that found nothing to refer to it.
    pub doomed: Option<u64>,
    /// When its pack was made (seconds).
    pub created: i64,
}

/// A pack and how much of it is still referred to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackUse {
    pub pack: PackId,
    pub owner: UserId,
    pub size: u64,
    /// Sealed bytes of blocks with a row.
    pub live: u64,
    pub created: i64,
    /// It is in the first store.
    pub at_hand: bool,
}

/// Moves on whenever a block is doomed, removed or moved: what was found out about blocks before
/// may not hold any more.
pub fn generation(sql: &mut dyn Sql) -> Result<u64, DbError> {
    match server::note(sql, GENERATION)? {
        Some(text) => text.parse().map_err(|_| DbError::Decode("space generation")),
        None => Ok(0),
    }
}

pub fn next_generation(sql: &mut dyn Sql) -> Result<(), DbError> {
    let next = generation(sql)? + 1;
    server::set_note(sql, GENERATION, &next.to_string())
}

const HELD_UNTIL: &str = "packs_held_until";

/// Nobody removes the object of a pack before this time (seconds).
pub fn hold(sql: &mut dyn Sql, until: i64) -> Result<(), DbError> {
    server::set_note(sql, HELD_UNTIL, &until.to_string())
}

pub fn is_held(sql: &mut dyn Sql, now: i64) -> Result<bool, DbError> {
    let until = server::note(sql, HELD_UNTIL)?;
    let until = until.map(|t| t.parse::<i64>().map_err(|_| DbError::Decode("time"))).transpose()?;
    Ok(until.is_some_and(|until| now < until))
}

/// The first account behind `after`.
pub fn next_owner(sql: &mut dyn Sql, after: Option<UserId>) -> Result<Option<UserId>, DbError> {
    let row = match after {
        None => sql.query_one("SELECT min(user) FROM user", &[])?,
        Some(user) => sql.query_one("SELECT min(user) FROM user WHERE user > ?1", params![user])?,
    };
    row.map_or(Ok(None), |r| r.get(0))
}

pub fn namespaces_of(sql: &mut dyn Sql, owner: UserId) -> Result<Vec<NamespaceId>, DbError> {
    sql.query("SELECT ns FROM namespace WHERE owner = ?1 ORDER BY ns", params![owner])?
        .iter()
        .map(|r| r.get(0))
        .collect()
}

/// Content roots of versions in a namespace behind `after`, in order of node and version.
pub fn contents(
    sql: &mut dyn Sql,
    ns: NamespaceId,
    after: Option<(NodeId, VersionNo)>,
    limit: u32,
) -> Result<Vec<(NodeId, VersionNo, Vec<u8>)>, DbError> {
    let rows = match after {
        None => sql.query(
            "SELECT node, version, content FROM file_version WHERE ns = ?1
             ORDER BY node, version LIMIT ?2",
            params![ns, limit],
        )?,
        Some((node, version)) => sql.query(
            "SELECT node, version, content FROM file_version
             WHERE ns = ?1 AND (node, version) > (?2, ?3) ORDER BY node, version LIMIT ?4",
            params![ns, node, version, limit],
        )?,
    };
    rows.iter().map(|r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).collect()
}

pub fn count_blocks(sql: &mut dyn Sql, owner: UserId) -> Result<u64, DbError> {
    let row = sql.query_one("SELECT count(*) FROM block WHERE owner = ?1", params![owner])?;
    row.map_or(Ok(0), |r| r.get(0))
}

/// Block rows of an account behind `after`, by hash.
pub fn page(
    sql: &mut dyn Sql,
    owner: UserId,
    after: Option<BlockHash>,
    limit: u32,
) -> Result<Vec<BlockState>, DbError> {
    let after = after.map_or(Vec::new(), |hash| hash.0.to_vec());
    sql.query(
        "SELECT b.hash, b.pack, b.doomed, p.created FROM block b JOIN pack p ON p.pack = b.pack
         WHERE b.owner = ?1 AND b.hash > ?2 ORDER BY b.hash LIMIT ?3",
        params![owner, &after[..], limit],
    )?
    .iter()
    .map(|r| {
        Ok(BlockState { hash: r.get(0)?, pack: r.get(1)?, doomed: r.get(2)?, created: r.get(3)? })
    })
    .collect()
}

/// Dooms a block that lies where it was seen; false when that has changed. What it lists as a
/// segment may go before it does.
pub fn doom(
    sql: &mut dyn Sql,
    owner: UserId,
    seen: &BlockState,
    round: u64,
) -> Result<bool, DbError> {
    let changed = sql.exec(
        "UPDATE block SET doomed = ?4, segment_entries = NULL, segment_bytes = NULL
         WHERE owner = ?1 AND hash = ?2 AND pack = ?3 AND doomed IS NULL",
        params![owner, seen.hash, seen.pack, round],
    )?;
    Ok(changed > 0)
}

/// Something refers to a block: it is not doomed any more. False when it is not here at all.
pub fn spare(sql: &mut dyn Sql, owner: UserId, hash: BlockHash) -> Result<bool, DbError> {
    let changed = sql.exec(
        "UPDATE block SET doomed = NULL WHERE owner = ?1 AND hash = ?2",
        params![owner, hash],
    )?;
    Ok(changed > 0)
}

/// Where the parts of an account's uploads have been listed up to: upload and offset.
pub type PartMark = (Vec<u8>, u64);

/// Blocks that uploads under way have stored, behind `after`.
pub fn upload_parts(
    sql: &mut dyn Sql,
    user: UserId,
    after: Option<&PartMark>,
    limit: u32,
) -> Result<Vec<(PartMark, BlockHash)>, DbError> {
    let (upload, at) = after.cloned().unwrap_or_default();
    let first = after.is_none();
    sql.query(
        "SELECT upload, at, hash FROM upload_part
         WHERE user = ?1 AND (?4 = 1 OR (upload, at) > (?2, ?3)) ORDER BY upload, at LIMIT ?5",
        params![user, &upload[..], at, first, limit],
    )?
    .iter()
    .map(|r| Ok(((r.get(0)?, r.get(1)?), r.get(2)?)))
    .collect()
}

/// Removes a block that is still doomed by the round that was seen.
pub fn remove(sql: &mut dyn Sql, owner: UserId, seen: &BlockState) -> Result<bool, DbError> {
    let changed = sql.exec(
        "DELETE FROM block WHERE owner = ?1 AND hash = ?2 AND pack = ?3 AND doomed = ?4",
        params![owner, seen.hash, seen.pack, seen.doomed],
    )?;
    Ok(changed > 0)
}

/// Packs made before `created`, behind `after`, that are not dead, with their use.
pub fn packs(
    sql: &mut dyn Sql,
    after: Option<PackId>,
    created: i64,
    limit: u32,
) -> Result<Vec<PackUse>, DbError> {
    let after = after.map_or(Vec::new(), |pack| pack.as_bytes().to_vec());
    sql.query(
        "SELECT p.pack, p.owner, p.size, p.created, (SELECT coalesce(sum(x.sealed_len), 0) FROM
             (SELECT DISTINCT b.idx, b.sealed_len FROM block b WHERE b.pack = p.pack) x)
         , p.tier FROM pack p WHERE p.pack > ?1 AND p.created <= ?2 AND p.dead IS NULL
         ORDER BY p.pack LIMIT ?3",
        params![&after[..], created, limit],
    )?
    .iter()
    .map(|r| {
        Ok(PackUse {
            pack: r.get(0)?,
            owner: r.get(1)?,
            size: r.get(2)?,
            created: r.get(3)?,
            live: r.get(4)?,
            at_hand: r.get::<i64>(5)? == 0,
        })
    })
    .collect()
}

/// Notes that no row names a block of the pack; false when one does.
pub fn bury(sql: &mut dyn Sql, pack: PackId, now: i64) -> Result<bool, DbError> {
    let changed = sql.exec(
        "UPDATE pack SET dead = ?2 WHERE pack = ?1 AND dead IS NULL
         AND NOT EXISTS (SELECT 1 FROM block WHERE block.pack = pack.pack)",
        params![pack, now],
    )?;
    Ok(changed > 0)
}

/// Packs that are dead since `before` or longer.
pub fn dead(sql: &mut dyn Sql, before: i64, limit: u32) -> Result<Vec<PackId>, DbError> {
    sql.query(
        "SELECT pack FROM pack WHERE dead IS NOT NULL AND dead <= ?1 ORDER BY dead, pack LIMIT ?2",
        params![before, limit],
    )?
    .iter()
    .map(|r| r.get(0))
    .collect()
}

/// Forgets a dead pack whose object is gone.
pub fn forget_pack(sql: &mut dyn Sql, pack: PackId) -> Result<(), DbError> {
    sql.exec("DELETE FROM pack WHERE pack = ?1 AND dead IS NOT NULL", params![pack])?;
    Ok(())
}

/// True when a row knows the pack.
pub fn knows_pack(sql: &mut dyn Sql, pack: PackId) -> Result<bool, DbError> {
    Ok(sql.query_one("SELECT 1 FROM pack WHERE pack = ?1", params![pack])?.is_some())
}

/// The blocks of a pack that rows name, each once, in the order in which they lie.
pub fn blocks_of(sql: &mut dyn Sql, pack: PackId) -> Result<Vec<HeldBlock>, DbError> {
    let rows = sql.query(
        "SELECT min(owner), hash FROM block WHERE pack = ?1 GROUP BY hash, idx ORDER BY idx",
        params![pack],
    )?;
    let mut out = Vec::with_capacity(rows.len());
    for row in rows {
        out.extend(blocks::find(sql, row.get(0)?, row.get(1)?)?);
    }
    Ok(out)
}

/// All rows that name a block of `from` name its copy in `to`. Answers how many.
pub fn move_block(
    sql: &mut dyn Sql,
    from: PackId,
    to: PackId,
    at: &Location,
) -> Result<u64, DbError> {
    sql.exec(
        "UPDATE block SET pack = ?2, idx = ?4, offset_bytes = ?5, sealed_len = ?6, codec = ?7
         WHERE pack = ?1 AND hash = ?3",
        params![from, to, at.hash, at.index, at.offset, at.sealed_len, at.codec as u8],
    )
}
