//! Looks at one pack: are the bytes those that its rows say? Pure.

use std::collections::HashMap;

use drivefs_core::codec;
use drivefs_core::crypto::Key;
use drivefs_core::id::BlockHash;
use drivefs_core::id::UserId;
use drivefs_core::manifest::Entry;
use drivefs_core::manifest::SegmentRef;
use drivefs_core::manifest::decode_segment;
use drivefs_core::pack;
use drivefs_core::pack::Location;

use crate::blocks::KeyRing;
use crate::metadata::check::BlockRow;
use crate::metadata::check::PackRow;

/// A block as an account holds it.
pub type Held = (UserId, BlockHash);

/// Something wrong with a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub kind: &'static str,
    /// None when it is about the pack as a whole.
    pub block: Option<Held>,
    pub what: String,
}

/// What a look at a pack gave.
#[derive(Debug, Default)]
pub struct Examined {
    pub faults: Vec<Fault>,
    /// Where the pack itself says that its blocks lie; empty when that cannot be read.
    pub index: Vec<Location>,
    /// Lists of the blocks that are segments of manifests.
    pub segments: Vec<(Held, SegmentRef, Vec<Entry>)>,
    pub blocks_good: u64,
    /// The pack's key as wrapped in its head, when what is on record is none and that one opens it.
    pub head_key: Option<Vec<u8>>,
}

impl Examined {
    fn pack(&mut self, kind: &'static str, what: String) {
        self.faults.push(Fault { kind, block: None, what });
    }

    fn block(&mut self, held: Held, what: impl ToString) {
        self.faults.push(Fault { kind: "block", block: Some(held), what: what.to_string() });
    }
}

/// Opens and checks everything that `rows` say to be in the pack. `asked` are blocks which
/// versions list as segments although their rows do not say so.
pub fn examine(
    keys: &KeyRing,
    row: &PackRow,
    rows: &[BlockRow],
    asked: &HashMap<Held, SegmentRef>,
    bytes: &[u8],
) -> Examined {
    let mut out = Examined::default();
    if bytes.len() as u64 != row.size {
        let what = format!("has {} bytes, {} are on record", bytes.len(), row.size);
        out.pack("pack-length", what);
    }
    let mut head_key = None;
    match pack::parse_head(bytes) {
        Err(e) => out.pack("pack-head", e.to_string()),
        Ok(head) if head.pack != row.pack || head.owner != row.owner => {
            let what = format!("says that it is pack {} of account {}", head.pack, head.owner);
            out.pack("pack-head", what);
        }
        Ok(head) => head_key = Some(head.wrapped_key.to_vec()),
    }
    let key = match keys.unwrap(row.pack, &row.wrapped_key) {
        Ok(key) => key,
        Err(e) if let Some((key, wrapped)) = key_of_head(keys, row, head_key, bytes) => {
            out.pack("pack-key", format!("its key on record cannot be unwrapped: {e}"));
            out.head_key = Some(wrapped);
            key
        }
        Err(e) => {
            out.pack("pack-key", format!("its key cannot be unwrapped: {e}"));
            for block in rows {
                out.block((block.owner, block.at.hash), "the pack's key cannot be unwrapped");
            }
            return out;
        }
    };
    match pack::parse_index(bytes, row.owner, &key) {
        Err(e) => out.pack("pack-index", format!("its index: {e}")),
        Ok(index) => {
            if index.len() as u64 != row.blocks {
                let what = format!("has {} blocks, {} are on record", index.len(), row.blocks);
                out.pack("pack-blocks", what);
            }
            out.index = index;
        }
    }
    for block in rows {
        let held = (block.owner, block.at.hash);
        match open(&key, row.owner, &block.at, bytes) {
            Err(what) => out.block(held, what),
            Ok(plain) => {
                out.blocks_good += 1;
                let marked = block.segment.map(|(entries, bytes)| SegmentRef {
                    hash: block.at.hash,
                    entries,
                    bytes,
                });
                for listed in marked.iter().chain(asked.get(&held)) {
                    match decode_segment(&plain, listed) {
                        Ok(entries) => out.segments.push((held, *listed, entries)),
                        Err(e) => out.faults.push(Fault {
                            kind: "segment",
                            block: Some(held),
                            what: format!("is not the segment it is listed as: {e}"),
                        }),
                    }
                }
            }
        }
    }
    out
}

/// The key that the pack's head has, if it opens the pack.
fn key_of_head(
    keys: &KeyRing,
    row: &PackRow,
    wrapped: Option<Vec<u8>>,
    bytes: &[u8],
) -> Option<(Key, Vec<u8>)> {
    let wrapped = wrapped?;
    let key = keys.unwrap_head(row.pack, &wrapped).ok()?;
    pack::parse_index(bytes, row.owner, &key).ok()?;
    Some((key, wrapped))
}

/// The plain bytes of a block, checked against its name.
pub fn open(key: &Key, owner: UserId, at: &Location, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let start = at.offset as usize;
    let sealed = bytes
        .get(start..start.saturating_add(at.sealed_len as usize))
        .ok_or_else(|| "lies beyond the end of the pack".to_owned())?;
    let encoded = pack::open_block(key, owner, at, sealed.to_vec())
        .map_err(|_| "does not decrypt".to_owned())?;
    let plain = codec::decode(at.codec, &encoded, at.block_len as usize, None)
        .map_err(|e| format!("does not decode: {e}"))?;
    if BlockHash::of(&plain) != at.hash {
        return Err("has another hash".to_owned());
    }
    Ok(plain.into_owned())
}

/// True when everything that the pack itself lists is good, and its length is the one on record.
pub fn is_whole(keys: &KeyRing, row: &PackRow, bytes: &[u8]) -> bool {
    if bytes.len() as u64 != row.size {
        return false;
    }
    let Ok(key) = keys.unwrap(row.pack, &row.wrapped_key) else { return false };
    pack::parse_index(bytes, row.owner, &key)
        .is_ok_and(|index| index.iter().all(|at| open(&key, row.owner, at, bytes).is_ok()))
}
