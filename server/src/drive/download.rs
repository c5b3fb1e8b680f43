//! Blocks to a client: as they are stored, or as a delta against a block the client has.

use std::collections::HashMap;
use std::collections::HashSet;

use drivefs_core::codec;
use drivefs_core::codec::Codec;
use drivefs_core::frame;
use drivefs_core::frame::Frame;
use drivefs_core::id::BlockHash;
use drivefs_core::wire::BlocksRequest;
use drivefs_core::wire::WantedBlock;

use super::Drive;
use super::DriveError;
use super::changes::check_count;
use super::load::Loaded;
use super::member_of;
use crate::auth::Asker;
use crate::metadata::blocks;
use crate::metadata::blocks::HeldBlock;

/// Most block bytes in one answer.
const ANSWER_MAX_BYTES: u64 = 64 * 1024 * 1024;
/// A delta is sent when it is at least this many times smaller than the stored bytes.
const DELTA_GAIN: usize = 2;
/// Blocks stored in fewer bytes go as they are.
const DELTA_MIN_BYTES: u32 = 16 * 1024;

impl Drive {
    /// A body of block frames, in the order asked.
    pub async fn download(
        &self,
        asker: Asker,
        request: BlocksRequest,
    ) -> Result<Vec<u8>, DriveError> {
        check_count(request.blocks.len())?;
        let asked = request.blocks.clone();
        let (held, bases) = self
            .store
            .read(move |sql| {
                let owner = member_of(sql, request.ns, asker.user)?.namespace.owner;
                let mut seen = HashSet::new();
                let mut held = Vec::new();
                let mut missing = Vec::new();
                let mut bases = Vec::new();
                for wanted in asked {
                    if !seen.insert(wanted.hash) {
                        continue;
                    }
                    match blocks::find(sql, owner, wanted.hash)? {
                        None => missing.push(wanted.hash),
                        Some(block) => {
                            if let Some(base) = wanted.base
                                && block.at.sealed_len >= DELTA_MIN_BYTES
                                && base != wanted.hash
                            {
                                bases.extend(blocks::find(sql, owner, base)?);
                            }
                            held.push(block);
                        }
                    }
                }
                if missing.is_empty() {
                    Ok((held, bases))
                } else {
                    Err(DriveError::MissingBlocks(missing))
                }
            })
            .await?;
        let lens: HashMap<BlockHash, u64> =
            held.iter().map(|b| (b.at.hash, u64::from(b.at.block_len))).collect();
        // Counted as often as asked for.
        let mut total: u64 = request.blocks.iter().filter_map(|b| lens.get(&b.hash)).sum();
        if total > ANSWER_MAX_BYTES {
            return Err(DriveError::TooLarge(format!(
                "the blocks asked for are {total} bytes, over the limit of {ANSWER_MAX_BYTES}"
            )));
        }
        let mut load = held;
        if bytes_of(&bases) <= ANSWER_MAX_BYTES {
            total += bytes_of(&bases);
            load.extend(bases);
        }
        // Stored, decoded and in the answer's body.
        let _held = self.work.hold(3 * total).await?;
        let loaded = self.load(load).await?;
        let body = self.work.compute(move || answer(&request.blocks, &loaded)).await?;
        metrics::counter!("drivefs_blocks_sent_total").increment(body.1);
        Ok(body.0)
    }
}

fn bytes_of(blocks: &[HeldBlock]) -> u64 {
    blocks.iter().map(|b| u64::from(b.at.block_len)).sum()
}

fn answer(wanted: &[WantedBlock], loaded: &HashMap<BlockHash, Loaded>) -> (Vec<u8>, u64) {
    let mut body = frame::begin();
    let mut sent = 0;
    for one in wanted {
        let Some(block) = loaded.get(&one.hash) else { continue };
        let base = one.base.and_then(|hash| loaded.get(&hash).map(|b| (hash, b)));
        let delta = base.and_then(|(hash, base)| Some((hash, delta_of(block, base)?)));
        let block_len = block.plain.len() as u32;
        sent += 1;
        match &delta {
            Some((base, encoded)) => frame::push(
                &mut body,
                &Frame {
                    hash: one.hash,
                    codec: Codec::ZstdDelta,
                    block_len,
                    base: Some(*base),
                    encoded,
                },
            ),
            None => frame::push(
                &mut body,
                &Frame {
                    hash: one.hash,
                    codec: block.codec,
                    block_len,
                    base: None,
                    encoded: &block.encoded,
                },
            ),
        }
    }
    (body, sent)
}

fn delta_of(block: &Loaded, base: &Loaded) -> Option<Vec<u8>> {
    let delta = codec::encode_delta(&block.plain, &base.plain, 1).ok()?;
    let pays = delta.bytes.len() * DELTA_GAIN < block.encoded.len();
    (delta.codec == Codec::ZstdDelta && pays).then_some(delta.bytes)
}
