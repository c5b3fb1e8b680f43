//! Compaction: packs of which little is still referred to are written anew without the rest.
//!
//! The copy is on disk before a row names it, and rows go over in one transaction. The old pack has
//! no row then; its object goes as any dead pack's does.

use std::collections::BTreeMap;

use drivefs_core::codec;
use drivefs_core::id::PackId;
use drivefs_core::id::UserId;
use drivefs_core::limits::PACK_BLOCKS_MAX;
use drivefs_core::limits::PACK_MAX_BYTES;
use drivefs_core::pack::Head;
use drivefs_core::pack::Location;
use drivefs_core::pack::PackBuilder;
use serde::Deserialize;
use serde::Serialize;

use super::Drive;
use super::DriveError;
use super::rotate::record_pack;
use crate::blocks::BlocksError;
use crate::clock;
use crate::host;
use crate::metadata::blocks::NewPack;
use crate::metadata::space;
use crate::metadata::space::PackUse;

/// Packs looked at in one step.
const PACKS_A_STEP: u32 = 100;
/// A pack is written anew when less than this part of it is referred to (per cent).
const LIVE_PER_CENT: u64 = 50;
/// Most content of packs that become one (bytes, not compressed): bounds memory.
const PLAIN_MAX: u64 = 2 * PACK_MAX_BYTES as u64;

/// What was done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Compacted {
    /// Packs looked at, and those written anew.
    pub packs: u64,
    pub rewritten: u64,
    /// Bytes that will be free.
    pub freed_bytes: u64,
    /// Packs that cannot be read: see `fsck`.
    pub damaged: u64,
}

impl Drive {
    /// Looks at some packs behind `after` that are older than `grace` seconds. None when all are done.
    pub async fn compact(
        &self,
        after: Option<PackId>,
        grace: i64,
        done: &mut Compacted,
    ) -> Result<Option<PackId>, DriveError> {
        let old = clock::now_secs() - grace;
        let packs = self.store.read(move |sql| space::packs(sql, after, old, PACKS_A_STEP)).await?;
        done.packs += packs.len() as u64;
        let last = packs.last().map(|p| p.pack).filter(|_| packs.len() == PACKS_A_STEP as usize);
        let thin = |p: &PackUse| p.at_hand && p.live > 0 && p.live * 100 < p.size * LIVE_PER_CENT;
        let mut groups: BTreeMap<UserId, Vec<PackUse>> = BTreeMap::new();
        for pack in packs.into_iter().filter(thin) {
            let group = groups.entry(pack.owner).or_default();
            let bytes: u64 = group.iter().map(|p| p.live).sum();
            if bytes + pack.live > PACK_MAX_BYTES as u64 / 2 {
                let full = std::mem::take(group);
                self.rewrite(&full, done).await?;
            }
            groups.entry(pack.owner).or_default().push(pack);
        }
        for group in groups.into_values() {
            self.rewrite(&group, done).await?;
        }
        Ok(last)
    }

    /// Writes what is left of some packs of one account into a new one.
    async fn rewrite(&self, group: &[PackUse], done: &mut Compacted) -> Result<(), DriveError> {
        let Some(owner) = group.first().map(|p| p.owner) else { return Ok(()) };
        let (mut held, mut count, mut plain) = (Vec::new(), 0, 0);
        for pack in group {
            let name = pack.pack;
            let blocks = self.store.read(move |sql| space::blocks_of(sql, name)).await?;
            let bytes: u64 = blocks.iter().map(|b| u64::from(b.at.block_len)).sum();
            if count + blocks.len() > PACK_BLOCKS_MAX || (count > 0 && plain + bytes > PLAIN_MAX) {
                break; // The rest in another run.
            }
            count += blocks.len();
            plain += bytes;
            held.push((pack, blocks));
        }
        let _permit = self.work.hold(2 * plain).await?;
        let mut parts = Vec::new();
        for (pack, blocks) in held {
            match self.load(blocks.clone()).await {
                Ok(loaded) => {
                    done.rewritten += 1;
                    done.freed_bytes += pack.size.saturating_sub(pack.live);
                    parts.push((pack.pack, blocks, loaded));
                }
                Err(DriveError::Blocks(BlocksError::Damaged { pack, what })) => {
                    tracing::error!(%pack, %what, "a damaged pack is left as it is");
                    done.damaged += 1;
                }
                Err(e) => return Err(e),
            }
        }
        if parts.is_empty() {
            return Ok(());
        }
        let keys = self.keys.clone();
        let (pack, bytes, moves) = self
            .work
            .compute(move || {
                let pack = PackId::from_parts(clock::now_millis(), host::random());
                let (key, wrapped_key) = keys.new_pack_key(pack);
                let blocks = || {
                    parts.iter().flat_map(|(from, held, loaded)| {
                        held.iter().filter_map(|b| Some((*from, b, loaded.get(&b.at.hash)?)))
                    })
                };
                let capacity = blocks().map(|(_, _, block)| block.encoded.len()).sum();
                let head = Head { pack, owner, wrapped_key };
                let mut builder = PackBuilder::new(&head, key, capacity, count);
                let mut from = Vec::with_capacity(count);
                for (pack, held, block) in blocks() {
                    // What is still here after a while is worth some more time.
                    match codec::encode_by_content(&block.plain) {
                        Ok(well) if well.bytes.len() < block.encoded.len() => {
                            builder.push(held.at.hash, well.codec, held.at.block_len, &well.bytes);
                        }
                        _ => {
                            let (hash, len) = (held.at.hash, held.at.block_len);
                            builder.push(hash, block.codec, len, &block.encoded);
                        }
                    }
                    from.push(pack);
                }
                let (bytes, locations) = builder.finish();
                let new = NewPack {
                    pack,
                    owner,
                    size: bytes.len() as u64,
                    wrapped_key: wrapped_key.to_vec(),
                    created: clock::now_secs(),
                };
                let moves: Vec<(PackId, Location)> = from.into_iter().zip(locations).collect();
                (new, bytes, moves)
            })
            .await?;
        self.store_pack(pack.pack, bytes).await?;
        let keys = self.keys.clone();
        self.store
            .write(move |sql| {
                let to = pack.pack;
                record_pack(sql, &keys, pack, moves.len())?;
                for (from, at) in &moves {
                    space::move_block(sql, *from, to, at)?;
                }
                space::next_generation(sql)?;
                Ok(())
            })
            .await
    }
}
