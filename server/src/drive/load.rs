//! Reading blocks out of packs: by range, decrypted, and decoded where somebody needs the plain bytes.
//!
//! Wrong bytes are never handed out: damage is an error that names the pack, and a log line. What is
//! only passed on is not decoded: its seal binds the bytes to the hash that was checked when they
//! were stored, and the client checks the hash again.

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

/// A block as it is stored.
pub struct Encoded {
    pub codec: codec::Codec,
    pub block_len: u32,
    pub bytes: Vec<u8>,
}

/// Blocks of one pack and their sealed bytes, in the same order.
type Sealed = (Vec<HeldBlock>, Vec<Bytes>);

impl Drive {
    /// Loads, decodes and verifies blocks; the caller bounds how many bytes these are.
    pub(super) async fn load(
        &self,
        wanted: Vec<HeldBlock>,
    ) -> Result<HashMap<BlockHash, Loaded>, DriveError> {
        self.opened(wanted, |block, encoded| {
            let plain = codec::decode(block.at.codec, &encoded, block.at.block_len as usize, None)
                .map_err(|e| damaged(block, &e.to_string()))?;
            if BlockHash::of(&plain) != block.at.hash {
                return Err(damaged(block, "the block is not the one it is named after"));
            }
            let plain = plain.into_owned();
            Ok(Loaded { codec: block.at.codec, encoded, plain })
        })
        .await
    }

    /// Loads blocks as they are stored, to be passed on.
    pub(super) async fn load_encoded(
        &self,
        wanted: Vec<HeldBlock>,
    ) -> Result<HashMap<BlockHash, Encoded>, DriveError> {
        self.opened(wanted, |block, encoded| {
            Ok(Encoded { codec: block.at.codec, block_len: block.at.block_len, bytes: encoded })
        })
        .await
    }

    async fn opened<T: Send + 'static>(
        &self,
        wanted: Vec<HeldBlock>,
        make: impl Fn(&HeldBlock, Vec<u8>) -> Result<T, DriveError> + Send + 'static,
    ) -> Result<HashMap<BlockHash, T>, DriveError> {
        let sealed = self.read_sealed(wanted).await?;
        let keys = self.keys.clone();
        self.work
            .compute(move || {
                let mut out = HashMap::new();
                for (blocks, bytes) in sealed {
                    for (block, sealed) in blocks.iter().zip(bytes) {
                        let encoded = open(&keys, block, sealed.into())?;
                        out.insert(block.at.hash, make(block, encoded)?);
                    }
                }
                Ok(out)
            })
            .await?
    }

    async fn read_sealed(&self, wanted: Vec<HeldBlock>) -> Result<Vec<Sealed>, DriveError> {
        let mut by_pack: BTreeMap<PackId, Vec<HeldBlock>> = BTreeMap::new();
        for block in wanted {
            by_pack.entry(block.pack).or_default().push(block);
        }
        Ok(stream::iter(by_pack)
            .map(|(pack, mut blocks)| async move {
                blocks.sort_by_key(|b| b.at.offset);
                blocks.dedup_by_key(|b| b.at.index);
                let ranges: Vec<_> = blocks.iter().map(range_of).collect();
                let bytes = self.blocks.read(pack, &ranges).await?;
                Ok::<_, BlocksError>((blocks, bytes))
            })
            .buffer_unordered(PACKS_AT_ONCE)
            .try_collect()
            .await?)
    }
}

fn range_of(block: &HeldBlock) -> Range<u64> {
    let start = u64::from(block.at.offset);
    start..start + u64::from(block.at.sealed_len)
}

fn open(keys: &KeyRing, block: &HeldBlock, sealed: Vec<u8>) -> Result<Vec<u8>, DriveError> {
    let key =
        keys.unwrap(block.pack, &block.wrapped_key).map_err(|e| damaged(block, &e.to_string()))?;
    pack::open_block(&key, block.pack_owner, &block.at, sealed)
        .map_err(|e| damaged(block, &e.to_string()))
}

fn damaged(block: &HeldBlock, what: &str) -> DriveError {
    tracing::error!(pack = %block.pack, block = %block.at.hash, %what, "damaged block");
    BlocksError::Damaged { pack: block.pack.to_string(), what: what.to_owned() }.into()
}
