//! Reading blocks out of packs: by range, decrypted, decoded, checked against their hash.
//!
//! Wrong bytes are never handed out: damage is an error that names the pack, and a log line.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use drivefs_core::codec;
use drivefs_core::id::BlockHash;
use drivefs_core::id::PackId;
use drivefs_core::pack;
use futures_util::StreamExt;
use futures_util::TryStreamExt;
use futures_util::stream;

use super::Drive;
use super::DriveError;
use crate::blocks::BlocksError;
use crate::blocks::KeyRing;
use crate::metadata::blocks::HeldBlock;

/// Packs read at once for one request.
const PACKS_AT_ONCE: usize = 4;

/// A block out of its pack: as stored, and as it is.
pub struct Loaded {
    pub codec: codec::Codec,
    pub encoded: Vec<u8>,
    pub plain: Vec<u8>,
}

impl Drive {
    /// Loads and verifies blocks; the caller bounds how many bytes these are.
    pub(super) async fn load(
        &self,
        wanted: Vec<HeldBlock>,
    ) -> Result<HashMap<BlockHash, Loaded>, DriveError> {
        let mut by_pack: BTreeMap<PackId, Vec<HeldBlock>> = BTreeMap::new();
        for block in wanted {
            by_pack.entry(block.pack).or_default().push(block);
        }
        let sealed: Vec<(Vec<HeldBlock>, Vec<Bytes>)> = stream::iter(by_pack)
            .map(|(pack, mut blocks)| async move {
                blocks.sort_by_key(|b| b.at.offset);
                blocks.dedup_by_key(|b| b.at.index);
                let ranges: Vec<_> = blocks.iter().map(range_of).collect();
                let bytes = self.blocks.read(pack, &ranges).await?;
                Ok::<_, BlocksError>((blocks, bytes))
            })
            .buffer_unordered(PACKS_AT_ONCE)
            .try_collect()
            .await?;
        let keys = self.keys.clone();
        self.work
            .compute(move || {
                let mut out = HashMap::new();
                for (blocks, bytes) in sealed {
                    for (block, sealed) in blocks.iter().zip(bytes) {
                        out.insert(block.at.hash, opened(&keys, block, &sealed)?);
                    }
                }
                Ok(out)
            })
            .await?
    }
}

fn range_of(block: &HeldBlock) -> Range<u64> {
    let start = u64::from(block.at.offset);
    start..start + u64::from(block.at.sealed_len)
}

fn opened(keys: &KeyRing, block: &HeldBlock, sealed: &[u8]) -> Result<Loaded, DriveError> {
    let damaged = |what: String| {
        tracing::error!(pack = %block.pack, block = %block.at.hash, %what, "damaged block");
        BlocksError::Damaged { pack: block.pack.to_string(), what }
    };
    let key = keys.unwrap(block.pack, &block.wrapped_key).map_err(|e| damaged(e.to_string()))?;
    let encoded = pack::open_block(&key, block.pack_owner, &block.at, sealed)
        .map_err(|e| damaged(e.to_string()))?;
    let plain = codec::decode(block.at.codec, &encoded, block.at.block_len as usize, None)
        .map_err(|e| damaged(e.to_string()))?;
    if BlockHash::of(&plain) != block.at.hash {
        return Err(damaged("the block is not the one it is named after".into()).into());
    }
    Ok(Loaded { codec: block.at.codec, encoded, plain })
}
