//! Getting the blocks of changed files to the server, ahead of the commit that refers to them.
//!
//! Stateless: what has to go is the difference between the content here and the agreed one, less
//! what the server says it holds. A block that has an older cousin travels as a delta against it.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use drivefs_core::codec;
use drivefs_core::codec::Codec;
use drivefs_core::frame;
use drivefs_core::frame::Frame;
use drivefs_core::id::BlockHash;
use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::limits::HASHES_MAX;
use drivefs_core::manifest::Entry;
use drivefs_core::manifest::Root;
use drivefs_core::wire::ErrorCode;
use futures_util::StreamExt;
use futures_util::TryStreamExt;

use crate::cache::CacheError;
use crate::host;
use crate::remote::Remote;
use crate::remote::RemoteError;
use crate::spool::Spool;
use crate::spool::SpoolError;
use crate::state::Db;

/// Below this, asking what is missing costs more than sending it (bytes).
const ASK_FROM_BYTES: u64 = 64 * 1024;
/// Plain bytes per pack: large enough for few requests, small enough for a steady pipeline.
const PACK_BYTES: u64 = 8 * 1024 * 1024;
const PACK_BLOCKS: usize = 1024;
/// Packs encoded and sent side by side.
const PACKS_AT_ONCE: usize = 3;
/// Raw blocks from this size on travel as pieces of their own (bytes).
const PIECE_BYTES: usize = 64 * 1024;
/// zstd level of uploads: 0.3 GB/s a core at four fifths of the ratio of level 3.
const LEVEL: i32 = 1;

/// Why blocks did not get there.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

impl From<CacheError> for UploadError {
    fn from(e: CacheError) -> Self {
        Self::Spool(e.into())
    }
}

/// A file whose content differs from the agreed one.
#[derive(Debug, Clone)]
pub struct Item {
    pub node: NodeId,
    pub content: Vec<u8>,
    pub agreed: Option<Vec<u8>>,
    /// Another namespace that has the blocks which are not on this disk.
    pub source: Option<NamespaceId>,
    /// The content has all that was written before the journal came to this position; none when
    /// that is not known.
    pub complete_to: Option<u64>,
}

/// A file whose blocks are all on the server.
#[derive(Debug, Clone)]
pub struct Uploaded {
    pub node: NodeId,
    pub content: Vec<u8>,
    /// Blocks that were not part of the agreed content.
    pub blocks: Vec<BlockHash>,
    /// As of the item.
    pub complete_to: Option<u64>,
}

/// One block to be sent, with the block that it may be a delta against.
#[derive(Debug, Clone, Copy)]
struct Parcel {
    hash: BlockHash,
    len: u32,
    base: Option<BlockHash>,
    source: Option<NamespaceId>,
}

/// Sends what the server lacks of these files. All of them, or an error.
pub async fn upload(
    remote: &Remote,
    spool: &Arc<Spool>,
    db: &Arc<Db>,
    ns: NamespaceId,
    items: Vec<Item>,
) -> Result<Vec<Uploaded>, UploadError> {
    let (spool2, db2) = (spool.clone(), db.clone());
    let (done, parcels) = host::blocking(move || collect(&spool2, &db2, items)).await?;
    let parcels = what_is_missing(remote, db, ns, parcels).await?;
    let packs = split(parcels);
    futures_util::stream::iter(packs)
        .map(|pack| send_pack(remote, spool, ns, pack))
        .buffer_unordered(PACKS_AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(done)
}

/// The blocks of these files that are not part of their agreed contents.
fn collect(
    spool: &Arc<Spool>,
    db: &Db,
    items: Vec<Item>,
) -> Result<(Vec<Uploaded>, Vec<Parcel>), UploadError> {
    let mut done = Vec::new();
    let mut parcels: Vec<Parcel> = Vec::new();
    let mut seen = HashSet::new();
    for item in items {
        let mut own = Vec::new();
        for parcel in new_blocks(spool, db, &item)? {
            own.push(parcel.hash);
            if seen.insert(parcel.hash) {
                parcels.push(parcel);
            }
        }
        let Item { node, content, complete_to, .. } = item;
        done.push(Uploaded { node, content, blocks: own, complete_to });
    }
    Ok((done, parcels))
}

fn new_blocks(spool: &Arc<Spool>, db: &Db, item: &Item) -> Result<Vec<Parcel>, UploadError> {
    let root = Root::decode(&item.content).map_err(SpoolError::from)?;
    let agreed = match &item.agreed {
        Some(bytes) => Root::decode(bytes).map_err(SpoolError::from)?,
        None => Root::empty(),
    };
    let old = spool.entries_here(&agreed)?.unwrap_or_default();
    let new = spool
        .entries_here(&root)?
        .ok_or_else(|| SpoolError::Disk(std::io::Error::other("a manifest segment is missing")))?;
    let old_at: HashMap<BlockHash, usize> =
        old.iter().enumerate().map(|(i, e)| (e.hash, i)).collect();
    let mut out = Vec::new();
    if let Root::Segmented(segments) = &root {
        let known: HashSet<BlockHash> = match &agreed {
            Root::Segmented(old) => old.iter().map(|s| s.hash).collect(),
            Root::Inline(_) => HashSet::new(),
        };
        for segment in segments.iter().filter(|s| !known.contains(&s.hash)) {
            let len = db
                .peek(|c| c.cached(&segment.hash))
                .map_err(SpoolError::from)?
                .map_or(0, |row| row.len);
            out.push(Parcel { hash: segment.hash, len, base: None, source: item.source });
        }
    }
    let mut offset = 0;
    for (i, entry) in new.iter().enumerate() {
        if !old_at.contains_key(&entry.hash) {
            let base = cousin(db, &new, i, offset, &old, &old_at)?;
            out.push(Parcel { hash: entry.hash, len: entry.len, base, source: item.source });
        }
        offset += u64::from(entry.len);
    }
    Ok(out)
}

/// The old block that new block `i` most likely stems from: the one before the old place of its
/// unchanged successor, else the one after that of its predecessor, else the one at its offset.
fn cousin(
    db: &Db,
    new: &[Entry],
    i: usize,
    offset: u64,
    old: &[Entry],
    old_at: &HashMap<BlockHash, usize>,
) -> Result<Option<BlockHash>, UploadError> {
    let next = new.get(i + 1);
    if let Some(&j) = next.and_then(|e| old_at.get(&e.hash))
        && j > 0
    {
        return Ok(Some(old[j - 1].hash));
    }
    let before = i.checked_sub(1).and_then(|p| old_at.get(&new[p].hash));
    if let Some(entry) = before.and_then(|&j| old.get(j + 1)) {
        return Ok(Some(entry.hash));
    }
    let mut at = 0;
    for entry in old {
        at += u64::from(entry.len);
        if at > offset {
            return Ok(Some(entry.hash));
        }
    }
    // No agreed content (a copy with a change, a save under a new name): the block that lies
    // before the successor in the file where the cache has it.
    let Some(next) = next else { return Ok(None) };
    let found = db.peek(|c| {
        let Some(row) = c.cached(&next.hash)?.filter(|r| !r.unsent) else { return Ok(None) };
        c.cached_before(row.file, row.offset)
    });
    Ok(found.map_err(SpoolError::from)?.filter(|r| !r.unsent).map(|r| r.hash))
}

async fn what_is_missing(
    remote: &Remote,
    db: &Db,
    ns: NamespaceId,
    parcels: Vec<Parcel>,
) -> Result<Vec<Parcel>, UploadError> {
    let total: u64 = parcels.iter().map(|p| u64::from(p.len)).sum();
    // What is not on this disk, or is noted as sent, the server had once (a copied file): it is
    // sent only if the server does not have it any more.
    let mut all_new = true;
    for parcel in &parcels {
        let row = db.peek(|c| c.cached(&parcel.hash)).map_err(SpoolError::from)?;
        all_new &= row.is_some_and(|r| r.unsent);
    }
    if total < ASK_FROM_BYTES && all_new {
        return Ok(parcels);
    }
    let mut missing = HashSet::new();
    for chunk in parcels.chunks(HASHES_MAX) {
        let hashes = chunk.iter().map(|p| p.hash).collect();
        missing.extend(remote.missing(ns, hashes).await?);
    }
    Ok(parcels.into_iter().filter(|p| missing.contains(&p.hash)).collect())
}

fn split(parcels: Vec<Parcel>) -> Vec<Vec<Parcel>> {
    let mut packs: Vec<Vec<Parcel>> = Vec::new();
    let mut bytes = 0;
    for parcel in parcels {
        let len = u64::from(parcel.len);
        let full = packs.last().is_none_or(|p| p.len() >= PACK_BLOCKS);
        if full || bytes + len > PACK_BYTES {
            packs.push(Vec::new());
            bytes = 0;
        }
        bytes += len;
        packs.last_mut().expect("pushed above").push(parcel);
    }
    packs
}

async fn send_pack(
    remote: &Remote,
    spool: &Arc<Spool>,
    ns: NamespaceId,
    pack: Vec<Parcel>,
) -> Result<(), UploadError> {
    for parcel in &pack {
        if let Some(from) = parcel.source {
            spool.cache().get(from, parcel.hash).await?;
        }
    }
    let has_delta = pack.iter().any(|p| p.base.is_some());
    let body = encode(spool, pack.clone()).await?;
    match remote.put_pack(ns, body).await {
        // The server does not hold a base any more: send the blocks themselves.
        Err(e) if has_delta && e.code() == Some(ErrorCode::MissingBlocks) => {
            let plain = pack.into_iter().map(|p| Parcel { base: None, ..p }).collect();
            Ok(remote.put_pack(ns, encode(spool, plain).await?).await?)
        }
        other => Ok(other?),
    }
}

/// The body of a pack, in pieces: blocks that stay raw are not copied.
async fn encode(spool: &Arc<Spool>, pack: Vec<Parcel>) -> Result<Vec<Bytes>, UploadError> {
    let spool = spool.clone();
    host::blocking(move || {
        let cache = spool.cache();
        let mut pieces = Vec::new();
        let mut piece = frame::begin();
        for parcel in pack {
            let block = cache.get_local(&parcel.hash)?.ok_or(CacheError::Lost(parcel.hash))?;
            let base = match parcel.base {
                Some(hash) => cache.get_local(&hash)?,
                None => None,
            };
            let encoded = match &base {
                Some(base) => codec::encode_delta(&block, base, LEVEL),
                None => codec::encode(&block, LEVEL),
            }
            .map_err(|e| SpoolError::Disk(std::io::Error::other(e)))?;
            frame::push_head(
                &mut piece,
                &Frame {
                    hash: parcel.hash,
                    codec: encoded.codec,
                    block_len: block.len() as u32,
                    base: parcel.base.filter(|_| encoded.codec == Codec::ZstdDelta),
                    encoded: &encoded.bytes,
                },
            );
            if encoded.codec == Codec::Raw && block.len() >= PIECE_BYTES {
                pieces.push(std::mem::take(&mut piece).into());
                pieces.push(block);
            } else {
                piece.extend_from_slice(&encoded.bytes);
            }
        }
        pieces.push(piece.into());
        Ok(pieces)
    })
    .await
}
