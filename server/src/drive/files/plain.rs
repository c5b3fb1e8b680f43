//! Bytes that arrive whole: cut into blocks as a client would cut them, and stored by packs.
//!
//! Blocks before metadata: the pack is on disk, then one transaction names it and notes what the
//! caller says of it.

use std::collections::HashSet;
use std::mem::take;

use bytes::Bytes;
use drivefs_core::chunk::next_cut;
use drivefs_core::codec;
use drivefs_core::id::BlockHash;
use drivefs_core::id::UserId;
use drivefs_core::limits::BLOCK_MAX_BYTES;
use drivefs_core::manifest::Entry;

use super::FilesError;
use crate::blocks::KeyRing;
use crate::drive::Drive;
use crate::drive::DriveError;
use crate::drive::upload::Built;
use crate::drive::upload::LEVEL;
use crate::drive::upload::OpenPack;
use crate::metadata::Sql;
use crate::metadata::blocks;
use crate::metadata::space;

/// Bytes that are gathered before blocks are cut off them: a pack's worth.
pub const GATHER_BYTES: usize = 6 * 1024 * 1024;
/// Room for that and the piece of a body that fills it.
const ROOM_BYTES: usize = GATHER_BYTES + 1024 * 1024;

/// A block of a file, and its name.
#[derive(Debug, Clone)]
pub struct PlainBlock {
    pub entry: Entry,
    pub bytes: Bytes,
}

impl PlainBlock {
    /// `bytes` are 1 to `BLOCK_MAX_BYTES`.
    pub fn of(bytes: Bytes) -> Self {
        let entry = Entry { hash: BlockHash::of(&bytes), len: bytes.len() as u32 };
        Self { entry, bytes }
    }
}

/// Bytes on their way to blocks.
#[derive(Default)]
pub struct Gathered(Vec<u8>);

impl Gathered {
    pub fn push(&mut self, bytes: &[u8]) {
        let need = self.0.len() + bytes.len();
        if need > self.0.capacity() {
            // Doubling alone would end far above what is ever gathered.
            let room = (2 * self.0.capacity()).min(ROOM_BYTES).max(need);
            self.0.reserve_exact(room - self.0.len());
        }
        self.0.extend_from_slice(bytes);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// What lies from `from` up to `to`.
    pub fn slice(&self, from: usize, to: usize) -> &[u8] {
        &self.0[from..to]
    }

    /// Takes off the blocks whose ends are certain; at the end of the file, all. What is left is
    /// shorter than the longest block.
    pub fn cut(&mut self, is_end: bool) -> Vec<PlainBlock> {
        let mut ends = Vec::new();
        let mut at = 0;
        while self.0.len() - at >= BLOCK_MAX_BYTES || (is_end && at < self.0.len()) {
            at += next_cut(&self.0[at..]);
            ends.push(at);
        }
        let rest = self.0.split_off(at);
        let whole = Bytes::from(take(&mut self.0));
        self.0 = rest;
        let mut start = 0;
        ends.into_iter()
            .map(|end| {
                let bytes = whole.slice(start..end);
                start = end;
                PlainBlock::of(bytes)
            })
            .collect()
    }
}

/// What one transaction does beside naming a pack.
pub type Also = Box<dyn FnOnce(&mut dyn Sql) -> Result<(), FilesError> + Send>;

/// Nothing beside naming the pack.
pub fn nothing() -> Also {
    Box::new(|_: &mut dyn Sql| Ok(()))
}

impl Drive {
    /// Cuts blocks off what was gathered, on a core of its own.
    pub(super) async fn cut(
        &self,
        mut gathered: Gathered,
        is_end: bool,
    ) -> Result<(Gathered, Vec<PlainBlock>), FilesError> {
        Ok(self
            .work
            .compute(move || {
                let cut = gathered.cut(is_end);
                (gathered, cut)
            })
            .await?)
    }

    /// Stores those blocks that the account does not hold, about a pack of them. What begins here
    /// ends, also when the client goes away.
    pub(super) async fn store_plain(
        &self,
        owner: UserId,
        plain: Vec<PlainBlock>,
        also: Also,
    ) -> Result<(), FilesError> {
        let bytes: u64 = plain.iter().map(|b| b.bytes.len() as u64).sum();
        let _held = self.work.hold(2 * bytes).await?;
        let hashes: Vec<_> = plain.iter().map(|b| b.entry.hash).collect();
        let named = hashes.clone();
        let missing = self
            .store
            .read(move |sql| blocks::missing(sql, owner, &hashes))
            .await?
            .into_iter()
            .collect();
        let (keys, ring) = (self.keys.clone(), self.keys.clone());
        let built = self.work.compute(move || seal(&plain, missing, owner, &ring)).await??;
        let drive = self.clone();
        let keeping = tokio::spawn(async move {
            let mut built = built;
            if let Some(built) = &mut built {
                let pack = built.pack.pack;
                drive.store_pack(pack, take(&mut built.bytes)).await?;
            }
            drive
                .store
                .write(move |sql| {
                    let stored = built.map_or(Ok(0), |built| built.note(sql, &keys, owner))?;
                    // What was here may have been found unused meanwhile; from now on it is not.
                    for hash in named {
                        if !space::spare(sql, owner, hash)? {
                            return Err(FilesError::Drive(DriveError::BlocksMoved));
                        }
                    }
                    also(sql)?;
                    Ok::<_, FilesError>(stored)
                })
                .await
        });
        let stored = keeping.await.map_err(|e| DriveError::Internal(e.to_string()))??;
        metrics::counter!("drivefs_blocks_stored_total").increment(u64::from(stored));
        Ok(())
    }

    /// Lets `owner` hold what `user` has sent, where these are two: the bytes came from the user, so
    /// the hashes prove nothing that they should not.
    pub(super) async fn link_plain(
        &self,
        user: UserId,
        owner: UserId,
        hashes: Vec<BlockHash>,
    ) -> Result<(), FilesError> {
        if user == owner || hashes.is_empty() {
            return Ok(());
        }
        self.store
            .write(move |sql| {
                for hash in hashes {
                    let held = blocks::find(sql, user, hash)?;
                    let held = held.ok_or_else(|| DriveError::MissingBlocks(vec![hash]))?;
                    blocks::insert(sql, owner, held.pack, &held.at)?;
                }
                Ok(())
            })
            .await
    }
}

fn seal(
    plain: &[PlainBlock],
    missing: HashSet<BlockHash>,
    owner: UserId,
    keys: &KeyRing,
) -> Result<Option<Built>, DriveError> {
    let mut wanted = missing;
    let fresh: Vec<_> = plain.iter().filter(|b| wanted.remove(&b.entry.hash)).collect();
    if fresh.is_empty() {
        return Ok(None);
    }
    let capacity = fresh.iter().map(|b| b.bytes.len()).sum();
    let mut open = OpenPack::new(owner, keys, capacity, fresh.len());
    for block in fresh {
        let encoded =
            codec::encode(&block.bytes, LEVEL).map_err(|e| DriveError::Internal(e.to_string()))?;
        open.builder.push(block.entry.hash, encoded.codec, block.entry.len, &encoded.bytes);
    }
    Ok(Some(open.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use drivefs_core::delta::rechunk;
    use std::convert::Infallible;

    #[test]
    fn bytes_that_come_in_any_pieces_are_cut_as_a_client_cuts_the_whole() {
        let mut content = vec![0; 30_000_000];
        blake3::Hasher::new().finalize_xof().fill(&mut content[..20_000_000]);
        let whole = rechunk(&[], &[], content.len() as u64, |at, len| {
            Ok::<_, Infallible>(content[at as usize..at as usize + len].to_vec())
        })
        .expect("infallible");
        let whole: Vec<_> = whole.iter().map(|p| p.entry).collect();
        for piece in [1_234_567, 8_000_000, 29_999_999] {
            let (mut gathered, mut got) = (Gathered::default(), Vec::new());
            for bytes in content.chunks(piece) {
                gathered.push(bytes);
                got.extend(gathered.cut(false).into_iter().map(|b| b.entry));
                assert!(gathered.len() < BLOCK_MAX_BYTES);
            }
            got.extend(gathered.cut(true).into_iter().map(|b| b.entry));
            assert_eq!(got, whole);
        }
    }
}
