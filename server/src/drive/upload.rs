//! Blocks from a client: every one is decoded and checked, then all that are new to the account
//! become one pack, on disk before the first row names it.
//!
//! Two uploads of one block may race: one row wins, the other pack's copy is garbage for `gc`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::HashSet;
use std::mem::take;

use bytes::Bytes;
use drivefs_core::codec;
use drivefs_core::codec::Codec;
use drivefs_core::frame;
use drivefs_core::frame::Frame;
use drivefs_core::id::BlockHash;
use drivefs_core::id::NamespaceId;
use drivefs_core::id::PackId;
use drivefs_core::id::UserId;
use drivefs_core::limits::PACK_BLOCKS_MAX;
use drivefs_core::limits::PACK_MAX_BYTES;
use drivefs_core::pack::Head;
use drivefs_core::pack::Location;
use drivefs_core::pack::PackBuilder;
use drivefs_core::wire::PackReply;
use tracing::Instrument;

use super::Drive;
use super::DriveError;
use super::load::Loaded;
use super::rotate::record_pack;
use super::writer_of;
use crate::auth::Asker;
use crate::blocks::BlocksError;
use crate::blocks::KeyRing;
use crate::clock;
use crate::host;
use crate::metadata::Sql;
use crate::metadata::blocks;
use crate::metadata::blocks::NewPack;

/// Level at which the server compresses what comes whole, or came as a delta.
pub(super) const LEVEL: i32 = 1;

/// Of so many packs one is read again after it was written.
const REREAD_ONE_OF: u32 = 32;

/// A pack ready to be stored.
pub(super) struct Built {
    pub pack: NewPack,
    pub bytes: Vec<u8>,
    pub locations: Vec<Location>,
}

impl Built {
    /// Notes the pack and its blocks; answers how many were new to the account.
    pub fn note(
        &self,
        sql: &mut dyn Sql,
        keys: &KeyRing,
        owner: UserId,
    ) -> Result<u32, DriveError> {
        record_pack(sql, keys, self.pack.clone(), self.locations.len())?;
        let mut stored = 0;
        for at in &self.locations {
            stored += u32::from(blocks::insert(sql, owner, self.pack.pack, at)?);
        }
        Ok(stored)
    }
}

impl Drive {
    /// Stores the blocks of `body` (core's frames) for the owner of `ns`.
    pub async fn upload(
        &self,
        asker: Asker,
        ns: NamespaceId,
        body: Bytes,
    ) -> Result<PackReply, DriveError> {
        let (hashes, bases) = survey(&body)?;
        let (owner, held, bases) = self
            .store
            .read(move |sql| {
                let owner = writer_of(sql, ns, asker.user)?.namespace.owner;
                let missing = blocks::missing(sql, owner, &hashes)?;
                let missing: HashSet<BlockHash> = missing.into_iter().collect();
                let held: HashSet<BlockHash> =
                    hashes.into_iter().filter(|h| !missing.contains(h)).collect();
                let mut found = Vec::new();
                let mut unknown = Vec::new();
                for base in bases {
                    match blocks::find(sql, owner, base)? {
                        Some(block) => found.push(block),
                        None => unknown.push(base),
                    }
                }
                if unknown.is_empty() {
                    Ok((owner, held, found))
                } else {
                    Err(DriveError::MissingBlocks(unknown))
                }
            })
            .await?;
        let base_bytes: u64 = bases.iter().map(|b| u64::from(b.at.block_len)).sum();
        if base_bytes > 4 * PACK_MAX_BYTES as u64 {
            return Err(DriveError::TooLarge("the bases of the deltas are too many".into()));
        }
        let _held = self.work.hold(2 * (body.len() as u64 + base_bytes)).await?;
        let names: Vec<BlockHash> = bases.iter().map(|b| b.at.hash).collect();
        let bases = match self.load(bases).await {
            // Not worth bringing back: the client sends whole blocks.
            Err(DriveError::Blocks(BlocksError::Cold)) => {
                return Err(DriveError::MissingBlocks(names));
            }
            bases => bases?,
        };
        let keys = self.keys.clone();
        let built = self.work.compute(move || build(&body, &held, &bases, owner, &keys)).await??;
        let Some(built) = built else { return Ok(PackReply { stored: 0 }) };
        let stored = self.keep(owner, built).await?;
        metrics::counter!("drivefs_blocks_stored_total").increment(u64::from(stored));
        Ok(PackReply { stored })
    }

    /// Blocks before metadata: the pack is on disk, then rows name it. What begins here ends, also
    /// when the client goes away.
    async fn keep(&self, owner: UserId, built: Built) -> Result<u32, DriveError> {
        let (drive, keys) = (self.clone(), self.keys.clone());
        let keeping = async move {
            let mut built = built;
            drive.store_pack(built.pack.pack, take(&mut built.bytes)).await?;
            drive.store.write(move |sql| built.note(sql, &keys, owner)).await
        };
        let keeping = tokio::spawn(keeping.in_current_span());
        keeping.await.map_err(|e| DriveError::Internal(e.to_string()))?
    }
}

impl Drive {
    /// Stores a pack; of some, what came to lie in the store is read again before they count.
    pub(super) async fn store_pack(&self, pack: PackId, bytes: Vec<u8>) -> Result<(), DriveError> {
        let sampled = !host::is_simulated() && host::random::<u32>().is_multiple_of(REREAD_ONE_OF);
        let hash = sampled.then(|| blake3::hash(&bytes));
        self.blocks.put(pack, bytes).await?;
        let Some(hash) = hash else { return Ok(()) };
        metrics::counter!("drivefs_packs_reread_total").increment(1);
        let stored = self.blocks.whole(pack).await?;
        if stored.is_some_and(|stored| blake3::hash(&stored) == hash) {
            return Ok(());
        }
        tracing::error!(pack = %pack, "what was stored is not what was written");
        metrics::counter!("drivefs_packs_reread_bad_total").increment(1);
        let what = "what was stored is not what was written".to_owned();
        Err(BlocksError::Damaged { pack: pack.to_string(), what }.into())
    }
}

/// Checks the limits before anything is decoded; answers the blocks and the bases they need.
fn survey(body: &[u8]) -> Result<(Vec<BlockHash>, HashSet<BlockHash>), DriveError> {
    let frames = parsed(body)?;
    if frames.len() > PACK_BLOCKS_MAX {
        return Err(DriveError::TooLarge(format!(
            "a pack holds at most {PACK_BLOCKS_MAX} blocks, this one {}",
            frames.len()
        )));
    }
    let total: u64 = frames.iter().map(|f| u64::from(f.block_len)).sum();
    if total > PACK_MAX_BYTES as u64 {
        return Err(DriveError::TooLarge(format!(
            "a pack holds at most {PACK_MAX_BYTES} bytes, this one {total}"
        )));
    }
    if frames.iter().any(|f| f.block_len == 0) {
        return Err(DriveError::BadRequest("a block has at least one byte".into()));
    }
    let hashes = frames.iter().map(|f| f.hash).collect();
    Ok((hashes, frames.iter().filter_map(|f| f.base).collect()))
}

fn parsed(body: &[u8]) -> Result<Vec<Frame<'_>>, DriveError> {
    frame::parse(body).map_err(|e| DriveError::BadRequest(e.to_string()))
}

/// Decodes and checks what the account does not hold and seals it into a pack; none when nothing
/// is new.
fn build(
    body: &[u8],
    held: &HashSet<BlockHash>,
    bases: &HashMap<BlockHash, Loaded>,
    owner: UserId,
    keys: &KeyRing,
) -> Result<Option<Built>, DriveError> {
    let frames = parsed(body)?;
    let mut seen = HashSet::new();
    let fresh: Vec<&Frame<'_>> =
        frames.iter().filter(|f| !held.contains(&f.hash) && seen.insert(f.hash)).collect();
    if fresh.is_empty() {
        return Ok(None);
    }
    let capacity = fresh.iter().map(|f| f.encoded.len()).sum();
    let mut open = OpenPack::new(owner, keys, capacity, fresh.len());
    for frame in fresh {
        let base = frame.base.and_then(|hash| bases.get(&hash)).map(|b| b.plain.as_slice());
        let plain = checked(frame, base)?;
        match frame.codec {
            Codec::Raw | Codec::Zstd if frame.encoded.len() <= plain.len() => {
                open.builder.push(frame.hash, frame.codec, frame.block_len, frame.encoded);
            }
            // A delta is stored on its own feet, and what compression made longer, raw.
            _ => {
                let encoded = codec::encode(&plain, LEVEL)
                    .map_err(|e| DriveError::Internal(e.to_string()))?;
                open.builder.push(frame.hash, encoded.codec, frame.block_len, &encoded.bytes);
            }
        }
    }
    Ok(Some(open.finish()))
}

/// A pack that is being filled.
pub(super) struct OpenPack {
    head: Head,
    pub builder: PackBuilder,
}

impl OpenPack {
    /// `capacity`: bytes of all blocks together as they are pushed, `blocks`: their number.
    pub fn new(owner: UserId, keys: &KeyRing, capacity: usize, blocks: usize) -> Self {
        let pack = PackId::from_parts(clock::now_millis(), host::random());
        let (key, wrapped_key) = keys.new_pack_key(pack);
        let head = Head { pack, owner, wrapped_key };
        let builder = PackBuilder::new(&head, key, capacity, blocks);
        Self { head, builder }
    }

    pub fn finish(self) -> Built {
        let (bytes, locations) = self.builder.finish();
        let pack = NewPack {
            pack: self.head.pack,
            owner: self.head.owner,
            size: bytes.len() as u64,
            wrapped_key: self.head.wrapped_key.to_vec(),
            created: clock::now_secs(),
        };
        Built { pack, bytes, locations }
    }
}

/// The block of a frame, if it is the one that its name says.
fn checked<'a>(frame: &Frame<'a>, base: Option<&[u8]>) -> Result<Cow<'a, [u8]>, DriveError> {
    let plain = codec::decode(frame.codec, frame.encoded, frame.block_len as usize, base)
        .map_err(|e| DriveError::BadRequest(format!("block {}: {e}", frame.hash)))?;
    if BlockHash::of(&plain) != frame.hash {
        return Err(DriveError::BadRequest(format!(
            "block {}: its bytes have another hash",
            frame.hash
        )));
    }
    Ok(plain)
}
