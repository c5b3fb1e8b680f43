//! Another master key while the server runs: every pack's key is wrapped anew; no block is touched.
//!
//! The new key is on disk, beside the old one, before anything is wrapped by it. Then it is noted as
//! the one in use: from that transaction on no pack gets a row under the old one (`record_pack`). What
//! was wrapped before is rewrapped, and only then the old key is taken out of use. Cut off anywhere,
//! the next run goes on.

use std::sync::Arc;

use drivefs_core::crypto::Key;
use drivefs_core::id::PackId;
use serde::Serialize;

use super::Drive;
use super::DriveError;
use super::fsck::Progress;
use crate::blocks::BlocksError;
use crate::blocks::KeyRing;
use crate::metadata::DbError;
use crate::metadata::Sql;
use crate::metadata::audit;
use crate::metadata::audit::Kind;
use crate::metadata::blocks;
use crate::metadata::blocks::NewPack;
use crate::metadata::check;
use crate::metadata::check::PackRow;
use crate::metadata::server;

/// Fingerprint of the master key that packs are sealed under.
pub const KEY_NOTE: &str = "master_key_fingerprint";
/// Fingerprint of the key that is on its way out.
const ROTATING_NOTE: &str = "master_key_rotating";
const PACKS_A_PAGE: usize = 256;

/// What a rotation came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rotated {
    pub old: String,
    pub new: String,
    /// An earlier rotation was cut off, and this run has finished it.
    pub resumed: bool,
    pub packs: u64,
    /// Packs that open under neither key.
    pub unreadable: Vec<PackId>,
}

/// Puts a pack on record, its key under the master key that is in use now.
pub fn record_pack(
    sql: &mut dyn Sql,
    keys: &KeyRing,
    mut pack: NewPack,
    count: usize,
) -> Result<(), DriveError> {
    pack.wrapped_key = wrapped_for_use(sql, keys, pack.pack, pack.wrapped_key)?;
    Ok(blocks::insert_pack(sql, &pack, count)?)
}

/// Puts `key` in the place of what is on record as a pack's key, if that still is there.
pub fn record_key(
    sql: &mut dyn Sql,
    keys: &KeyRing,
    row: &PackRow,
    key: &Key,
) -> Result<bool, DriveError> {
    let wrapped = keys.wrap(row.pack, key).to_vec();
    let wrapped = wrapped_for_use(sql, keys, row.pack, wrapped)?;
    Ok(set_key(sql, row, &wrapped)? > 0)
}

/// A wrapped key under the master key that is in use now.
fn wrapped_for_use(
    sql: &mut dyn Sql,
    keys: &KeyRing,
    pack: PackId,
    wrapped: Vec<u8>,
) -> Result<Vec<u8>, DriveError> {
    let used = server::note(sql, KEY_NOTE)?.ok_or(DbError::Decode("master key"))?;
    let again = keys.rewrapped(pack, &wrapped, &used).map_err(|_| {
        BlocksError::Key(format!(
            "the master key was rotated to {used}, and this server has not got it: start it again \
             with the new key"
        ))
    })?;
    Ok(again.map_or(wrapped, |again| again.to_vec()))
}

/// Fingerprints of the master keys that the packs of a database are under, the newest first.
pub fn keys_of(sql: &mut dyn Sql) -> Result<Vec<String>, DbError> {
    let newest = server::note(sql, KEY_NOTE)?;
    Ok(newest.into_iter().chain(server::note(sql, ROTATING_NOTE)?).collect())
}

/// True when a rotation was cut off.
pub async fn is_pending(drive: &Drive) -> Result<bool, DriveError> {
    Ok(drive.store.read(|sql| server::note(sql, ROTATING_NOTE)).await?.is_some())
}

/// Rotates to a fresh key, or finishes a rotation that was cut off. The caller sees to it that
/// nobody else does so at the same time.
pub async fn rotate(drive: &Drive, progress: &Arc<Progress>) -> Result<Rotated, DriveError> {
    drive.keys.reload()?;
    let (noted, rotating) = drive
        .store
        .read(|sql| {
            Ok::<_, DbError>((server::note(sql, KEY_NOTE)?, server::note(sql, ROTATING_NOTE)?))
        })
        .await?;
    let noted = noted.ok_or(DbError::Decode("master key"))?;
    let mut known = drive.keys.fingerprints();
    if rotating.is_none() && known.len() > 1 && known[0] == noted {
        // All is rewrapped; only the old key was not taken out yet.
        if drive.keys.is_rotatable() {
            drive.keys.retire()?;
        }
        let old = known[1].clone();
        return Ok(Rotated { old, new: noted, resumed: true, packs: 0, unreadable: Vec::new() });
    }
    let resumed = rotating.is_some() || known.len() > 1;
    if !resumed {
        if !drive.keys.is_rotatable() {
            return Err(BlocksError::Key(
                "the master key comes from the environment: make a new one (openssl rand -hex 32), \
                 start the server again with DRIVEFS_MASTER_KEY=NEW,OLD, and run this with the \
                 same; after it the old one can go"
                    .into(),
            )
            .into());
        }
        drive.keys.begin_rotation()?;
        known = drive.keys.fingerprints();
    }
    let old = rotating.unwrap_or_else(|| noted.clone());
    let new = known.first().cloned().ok_or(DbError::Decode("master key"))?;
    if !known.contains(&old) || new == old {
        return Err(BlocksError::Key(format!(
            "a rotation from the key {old} to {noted} is under way, and the keys given are {}: both \
             are needed until it is done, the new one first",
            known.join(", ")
        ))
        .into());
    }
    let (from, to) = (old.clone(), new.clone());
    drive
        .store
        .write(move |sql| {
            server::set_note(sql, ROTATING_NOTE, &from)?;
            server::set_note(sql, KEY_NOTE, &to)
        })
        .await?;
    let mut rotated = Rotated { old, new, resumed, packs: 0, unreadable: Vec::new() };
    rewrap_all(drive, &mut rotated, progress).await?;
    let detail = format!("{} to {}", rotated.old, rotated.new);
    drive
        .store
        .write(move |sql| {
            server::remove_note(sql, ROTATING_NOTE)?;
            audit::insert(sql, &audit::by_operator(Kind::KeyRotated, "", detail))
        })
        .await?;
    if drive.keys.is_rotatable() {
        drive.keys.retire()?;
    }
    Ok(rotated)
}

async fn rewrap_all(
    drive: &Drive,
    rotated: &mut Rotated,
    progress: &Arc<Progress>,
) -> Result<(), DriveError> {
    let (count, _) = drive.store.read(check::packs_total).await?;
    progress.begin("packs", count);
    let mut after = None;
    loop {
        let page = drive.store.read(move |sql| check::packs(sql, after, PACKS_A_PAGE)).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.pack);
        progress.add(page.len() as u64);
        let (keys, to) = (drive.keys.clone(), rotated.new.clone());
        let (packs, unreadable) = drive
            .store
            .write(move |sql| {
                let mut done = (0, Vec::new());
                for row in page {
                    match keys.rewrapped(row.pack, &row.wrapped_key, &to) {
                        Ok(None) => {}
                        Ok(Some(wrapped)) => done.0 += set_key(sql, &row, &wrapped)?,
                        Err(_) => done.1.push(row.pack),
                    }
                }
                Ok::<_, DbError>(done)
            })
            .await?;
        rotated.packs += packs;
        rotated.unreadable.extend(unreadable);
    }
}

/// Only over what was read: a row that has changed since has the new key already.
fn set_key(sql: &mut dyn Sql, row: &PackRow, wrapped: &[u8]) -> Result<u64, DbError> {
    blocks::set_wrapped_key(sql, row.pack, &row.wrapped_key, wrapped)
}
