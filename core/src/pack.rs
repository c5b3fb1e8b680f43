//! Packs: the encrypted blocks of one upload as one immutable object.
//!
//! `pack   = "DPACK" version:u8 pack:16 owner:u64 wrapped_key:60 block* index footer`
//! `block  = AES-256-GCM(encoded block)`, nonce = its index in the pack,
//!           associated data = owner, hash, codec
//! `index  = AES-256-GCM(item*)` under nonce 0xffffffff,
//! `item   = hash:32 codec:u8 block_len:u32 offset:u32 sealed_len:u32`
//! `footer = index_len:u32 blocks:u32 "KCAPD"`
//!
//! Little-endian. The index makes a pack readable without the database, for repair.

use crate::codec::Codec;
use crate::crypto;
use crate::crypto::DecryptError;
use crate::crypto::Key;
use crate::crypto::WRAPPED_BYTES;
use crate::id::BlockHash;
use crate::id::PackId;
use crate::id::UserId;
use crate::limits::BLOCK_MAX_BYTES;
use crate::limits::PACK_BLOCKS_MAX;

const MAGIC: &[u8; 5] = b"DPACK";
const END_MAGIC: &[u8; 5] = b"KCAPD";
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 6 + 16 + 8 + WRAPPED_BYTES;
const FOOTER_BYTES: usize = 4 + 4 + 5;
const ITEM_BYTES: usize = 32 + 1 + 4 + 4 + 4;
const INDEX_NONCE: u32 = u32::MAX;

/// Why bytes could not be read as a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    #[error("not a pack, or cut short")]
    Format,
    #[error("pack of an unknown version")]
    Version,
    #[error("pack breaks a limit")]
    Limit,
    #[error(transparent)]
    Decrypt(#[from] DecryptError),
}

/// Where a block lies in its pack, and all that is needed to open it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    pub hash: BlockHash,
    /// `Raw` or `Zstd`; deltas are resolved before a block is stored.
    pub codec: Codec,
    /// Length of the plaintext block (bytes).
    pub block_len: u32,
    /// Index of the block in the pack: its nonce.
    pub index: u32,
    /// Byte offset in the pack object.
    pub offset: u32,
    /// Length of the sealed bytes in the pack object.
    pub sealed_len: u32,
}

/// The head of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub pack: PackId,
    pub owner: UserId,
    pub wrapped_key: [u8; WRAPPED_BYTES],
}

/// Builds one pack in memory.
pub struct PackBuilder {
    owner: UserId,
    key: Key,
    bytes: Vec<u8>,
    blocks: Vec<Location>,
}

impl PackBuilder {
    /// `key` must be fresh and random, and `head.wrapped_key` its wrapped form. `capacity` is the
    /// bytes of all blocks together, as they are pushed, and `blocks` their number.
    pub fn new(head: &Head, key: Key, capacity: usize, blocks: usize) -> Self {
        let seals = (blocks + 1) * crypto::TAG_BYTES + blocks * ITEM_BYTES;
        let mut bytes = Vec::with_capacity(HEAD_BYTES + capacity + seals + FOOTER_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        bytes.extend_from_slice(head.pack.as_bytes());
        bytes.extend_from_slice(&head.owner.0.to_le_bytes());
        bytes.extend_from_slice(&head.wrapped_key);
        Self { owner: head.owner, key, bytes, blocks: Vec::new() }
    }

    /// Adds an encoded block.
    pub fn push(&mut self, hash: BlockHash, codec: Codec, block_len: u32, encoded: &[u8]) {
        assert_ne!(codec, Codec::ZstdDelta, "deltas are resolved before a block is stored");
        assert!(self.blocks.len() < PACK_BLOCKS_MAX, "callers split uploads");
        let index = self.blocks.len() as u32;
        let offset = self.bytes.len() as u32;
        let associated = associated(self.owner, &hash, codec);
        let sealed_len =
            crypto::seal(&self.key, index, &associated, encoded, &mut self.bytes) as u32;
        self.blocks.push(Location { hash, codec, block_len, index, offset, sealed_len });
    }

    /// The pack's bytes and where each block lies in them.
    pub fn finish(mut self) -> (Vec<u8>, Vec<Location>) {
        let mut index = Vec::with_capacity(self.blocks.len() * ITEM_BYTES);
        for block in &self.blocks {
            index.extend_from_slice(&block.hash.0);
            index.push(block.codec as u8);
            index.extend_from_slice(&block.block_len.to_le_bytes());
            index.extend_from_slice(&block.offset.to_le_bytes());
            index.extend_from_slice(&block.sealed_len.to_le_bytes());
        }
        let owner = self.owner.0.to_le_bytes();
        let sealed_len = crypto::seal(&self.key, INDEX_NONCE, &owner, &index, &mut self.bytes);
        self.bytes.extend_from_slice(&(sealed_len as u32).to_le_bytes());
        self.bytes.extend_from_slice(&(self.blocks.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(END_MAGIC);
        (self.bytes, self.blocks)
    }
}

/// Opens one sealed block, as read from its pack, within its buffer; the result is still encoded by
/// its codec. That it opens proves that these bytes were sealed under this hash.
pub fn open_block(
    key: &Key,
    owner: UserId,
    at: &Location,
    mut sealed: Vec<u8>,
) -> Result<Vec<u8>, DecryptError> {
    let associated = associated(owner, &at.hash, at.codec);
    crypto::open_in_place(key, at.index, &associated, &mut sealed)?;
    Ok(sealed)
}

/// Reads the head of a pack.
pub fn parse_head(pack: &[u8]) -> Result<Head, PackError> {
    let head = pack.get(..HEAD_BYTES).ok_or(PackError::Format)?;
    if &head[..5] != MAGIC {
        return Err(PackError::Format);
    }
    if head[5] != VERSION {
        return Err(PackError::Version);
    }
    let id = PackId::from_slice(&head[6..22]).map_err(|_| PackError::Format)?;
    let mut owner = [0; 8];
    owner.copy_from_slice(&head[22..30]);
    let mut wrapped_key = [0; WRAPPED_BYTES];
    wrapped_key.copy_from_slice(&head[30..]);
    Ok(Head { pack: id, owner: UserId(u64::from_le_bytes(owner)), wrapped_key })
}

/// Reads the index of a whole pack.
pub fn parse_index(pack: &[u8], owner: UserId, key: &Key) -> Result<Vec<Location>, PackError> {
    let footer_at = pack.len().checked_sub(FOOTER_BYTES).ok_or(PackError::Format)?;
    let (body, footer) = pack.split_at(footer_at);
    if &footer[8..] != END_MAGIC {
        return Err(PackError::Format);
    }
    let index_len = u32::from_le_bytes([footer[0], footer[1], footer[2], footer[3]]) as usize;
    let count = u32::from_le_bytes([footer[4], footer[5], footer[6], footer[7]]) as usize;
    if count > PACK_BLOCKS_MAX {
        return Err(PackError::Limit);
    }
    let index_at = body.len().checked_sub(index_len).ok_or(PackError::Format)?;
    let index = crypto::open(key, INDEX_NONCE, &owner.0.to_le_bytes(), &body[index_at..])?;
    if index.len() != count * ITEM_BYTES {
        return Err(PackError::Format);
    }
    let word = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    index
        .chunks_exact(ITEM_BYTES)
        .enumerate()
        .map(|(i, item)| {
            let at = Location {
                hash: BlockHash::from_slice(&item[..32]).map_err(|_| PackError::Format)?,
                codec: Codec::from_u8(item[32]).ok_or(PackError::Format)?,
                block_len: word(&item[33..37]),
                index: i as u32,
                offset: word(&item[37..41]),
                sealed_len: word(&item[41..45]),
            };
            let end = at.offset as usize + at.sealed_len as usize;
            if at.block_len as usize > BLOCK_MAX_BYTES || end > index_at {
                return Err(PackError::Limit);
            }
            Ok(at)
        })
        .collect()
}

fn associated(owner: UserId, hash: &BlockHash, codec: Codec) -> [u8; 41] {
    let mut out = [0; 41];
    out[..8].copy_from_slice(&owner.0.to_le_bytes());
    out[8..40].copy_from_slice(&hash.0);
    out[40] = codec as u8;
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pack_of(blocks: &[Vec<u8>], key: &Key, owner: UserId) -> (Vec<u8>, Vec<Location>) {
        let wrapped_key = crypto::wrap_key(key, [1; 12], b"", key);
        let head = Head { pack: PackId::from_parts(5, [9; 10]), owner, wrapped_key };
        let mut builder = PackBuilder::new(&head, key.clone(), 0, 0);
        for block in blocks {
            builder.push(BlockHash::of(block), Codec::Raw, block.len() as u32, block);
        }
        builder.finish()
    }

    proptest! {
        #[test]
        fn blocks_come_back_by_location_and_by_index(
            blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20), key: [u8; 32],
        ) {
            let key = Key::from_bytes(key);
            let owner = UserId(42);
            let (pack, locations) = pack_of(&blocks, &key, owner);
            prop_assert_eq!(&parse_index(&pack, owner, &key).expect("own index"), &locations);
            prop_assert_eq!(parse_head(&pack).expect("own head").owner, owner);
            for (at, block) in locations.iter().zip(&blocks) {
                let sealed = &pack[at.offset as usize..][..at.sealed_len as usize];
                prop_assert_eq!(&open_block(&key, owner, at, sealed.to_vec()).expect("own block"), block);
                prop_assert!(open_block(&key, UserId(43), at, sealed.to_vec()).is_err());
            }
        }

        #[test]
        fn a_damaged_pack_is_an_error(at: prop::sample::Index, bit in 0u8..8) {
            let key = Key::from_bytes([7; 32]);
            let (mut pack, locations) = pack_of(&[vec![1; 100], vec![2; 50]], &key, UserId(1));
            let i = at.index(pack.len());
            pack[i] ^= 1 << bit;
            let in_block = locations.iter().find(|l| (l.offset..l.offset + l.sealed_len).contains(&(i as u32)));
            if let Some(l) = in_block {
                let sealed = &pack[l.offset as usize..][..l.sealed_len as usize];
                prop_assert!(open_block(&key, UserId(1), l, sealed.to_vec()).is_err());
            } else if i >= HEAD_BYTES {
                prop_assert!(parse_index(&pack, UserId(1), &key).is_err());
            }
        }

        #[test]
        fn hostile_bytes_are_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let key = Key::from_bytes([7; 32]);
            prop_assert!(parse_index(&bytes, UserId(1), &key).is_err());
            let _ = parse_head(&bytes);
        }
    }
}
