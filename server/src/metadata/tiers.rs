//! In which store packs are, and when they were read.

use drivefs_core::id::PackId;

use super::DbError;
use super::Sql;
use super::value::FromValue;
use super::value::Row;
use super::value::Value;
use super::value::params;

/// Where the object of a pack is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Tier {
    Hot = 0,
    Cold = 1,
    /// In the first store, and maybe in the second.
    GoingOut = 2,
    /// In the second store, and maybe in the first.
    ComingBack = 3,
}

/// Notes that packs were read at `now` (seconds); to the day, so that this is seldom a write.
pub fn note_read(sql: &mut dyn Sql, packs: &[PackId], now: i64) -> Result<(), DbError> {
    let day = now - now.rem_euclid(86_400);
    for pack in packs {
        sql.exec(
            "UPDATE pack SET read_at = ?2 WHERE pack = ?1 AND coalesce(read_at, 0) < ?2",
            params![*pack, day],
        )?;
    }
    Ok(())
}

/// Notes that packs in the second store were wanted.
pub fn note_wanted(sql: &mut dyn Sql, packs: &[PackId], now: i64) -> Result<(), DbError> {
    for pack in packs {
        sql.exec(
            "UPDATE pack SET wanted = coalesce(wanted, ?2) WHERE pack = ?1 AND tier <> 0",
            params![*pack, now],
        )?;
    }
    Ok(())
}

/// Packs in the first store that were neither made nor read after `before`, behind `after`. Those
/// with lists of blocks stay: only reading content ever needs the second store.
pub fn unread(
    sql: &mut dyn Sql,
    after: Option<PackId>,
    before: i64,
    limit: u32,
) -> Result<Vec<PackId>, DbError> {
    let after = after.map_or(Vec::new(), |pack| pack.as_bytes().to_vec());
    packs_of(sql.query(
        "SELECT p.pack FROM pack p WHERE p.pack > ?1 AND p.tier = 0 AND p.dead IS NULL
         AND p.created <= ?2 AND coalesce(p.read_at, 0) <= ?2
         AND NOT EXISTS (SELECT 1 FROM block b
             WHERE b.pack = p.pack AND b.segment_entries IS NOT NULL)
         ORDER BY p.pack LIMIT ?3",
        params![&after[..], before, limit],
    )?)
}

/// Packs whose move was begun and not ended.
pub fn moving(sql: &mut dyn Sql, to: Tier, limit: u32) -> Result<Vec<PackId>, DbError> {
    packs_of(sql.query(
        "SELECT pack FROM pack WHERE tier = ?1 AND dead IS NULL LIMIT ?2",
        params![to as u8, limit],
    )?)
}

/// Packs in the second store that somebody waits for, the longest waiting first.
pub fn wanted(sql: &mut dyn Sql, limit: u32) -> Result<Vec<PackId>, DbError> {
    packs_of(sql.query(
        "SELECT pack FROM pack WHERE wanted IS NOT NULL AND tier <> 0 AND dead IS NULL
         ORDER BY wanted LIMIT ?1",
        params![limit],
    )?)
}

/// Moves a pack on from one state to the next; false when it is in another one.
pub fn turn(sql: &mut dyn Sql, pack: PackId, (from, to): (Tier, Tier)) -> Result<bool, DbError> {
    let wanted = if to == Tier::Hot { "wanted = NULL" } else { "wanted = wanted" };
    let statement = format!("UPDATE pack SET tier = ?3, {wanted} WHERE pack = ?1 AND tier = ?2");
    Ok(sql.exec(&statement, params![pack, from as u8, to as u8])? > 0)
}

/// All packs are in the first store.
pub fn all_hot(sql: &mut dyn Sql) -> Result<(), DbError> {
    sql.exec("UPDATE pack SET tier = 0, wanted = NULL WHERE tier <> 0", &[])?;
    Ok(())
}

/// Packs in the second store, and their bytes.
pub fn cold(sql: &mut dyn Sql) -> Result<(u64, u64), DbError> {
    let row =
        sql.query_one("SELECT count(*), coalesce(sum(size), 0) FROM pack WHERE tier = 1", &[])?;
    row.map_or(Ok((0, 0)), |r| Ok((r.get(0)?, r.get(1)?)))
}

/// Packs that are not in the first store alone.
pub fn away(sql: &mut dyn Sql) -> Result<u64, DbError> {
    let row = sql.query_one("SELECT count(*) FROM pack WHERE tier <> 0", &[])?;
    row.map_or(Ok(0), |r| r.get(0))
}

fn packs_of(rows: Vec<Row>) -> Result<Vec<PackId>, DbError> {
    rows.iter().map(|r| PackId::from_value(r.0.first().unwrap_or(&Value::Null))).collect()
}
