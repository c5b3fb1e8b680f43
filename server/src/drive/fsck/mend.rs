//! Repairs, each in a transaction that looks first whether there still is something to repair.
//!
//! Rows of blocks and packs can be made again out of packs, which carry an index of their own. No
//! pack is ever changed or removed, and nothing that a version lists is taken away.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use drivefs_core::id::BlockHash;
use drivefs_core::id::PackId;
use drivefs_core::manifest::SegmentRef;
use drivefs_core::pack;
use drivefs_core::pack::Location;

use super::super::Drive;
use super::super::DriveError;
use super::super::rotate::record_key;
use super::super::rotate::record_pack;
use super::examine;
use super::examine::Held;
use super::report::Progress;
use crate::blocks::KeyRing;
use crate::clock;
use crate::metadata::blocks;
use crate::metadata::blocks::NewPack;
use crate::metadata::check;
use crate::metadata::check::PackRow;
use crate::metadata::check::RULES;
use crate::metadata::value::Row;

/// What would set a problem right.
#[derive(Debug, Clone)]
pub enum Fix {
    /// The statement of a rule.
    Rule(usize, Row),
    /// Length and number of blocks of a pack, as found.
    PackFacts(PackId, u64, usize),
    /// The key on record of a pack cannot be unwrapped; this one, of its head, can.
    Key(PackRow, Vec<u8>),
    /// A block is a segment, and its row does not say so.
    Segment(drivefs_core::id::UserId, SegmentRef),
    /// Another copy of a block that is bad in this pack, or has no row.
    Block(Held, Option<PackId>),
    /// A pack that is gone, and that no block is in any more.
    Forget(PackId),
    /// Blocks whose pack has no row.
    Pack(Vec<Held>, PackId),
}

impl Drive {
    /// Sets right what needs no bytes of packs; true when it is.
    pub(super) async fn mend_row(&self, fix: &Fix) -> Result<bool, DriveError> {
        let (fix, keys) = (fix.clone(), self.keys.clone());
        self.store
            .write(move |sql| {
                match fix {
                    Fix::Rule(rule, row) => {
                        if let Some(rule) = RULES.get(rule) {
                            rule.mend(sql, &row)?;
                        }
                    }
                    Fix::PackFacts(pack, size, count) => {
                        check::set_pack_facts(sql, pack, size, count)?;
                    }
                    Fix::Key(row, wrapped) => {
                        let Ok(key) = keys.unwrap_head(row.pack, &wrapped) else {
                            return Ok(false);
                        };
                        return record_key(sql, &keys, &row, &key);
                    }
                    Fix::Segment(owner, listed) => blocks::set_segment(sql, owner, &listed)?,
                    Fix::Forget(pack) => return Ok(check::forget_pack(sql, pack)?),
                    Fix::Block(..) | Fix::Pack(..) => return Ok(false),
                }
                Ok(true)
            })
            .await
    }

    /// Looks through all packs of the store for good copies of `wanted` blocks, which are bad where
    /// the value says or have no row, and notes where they lie. Answers those that it found.
    pub(super) async fn find_copies(
        &self,
        wanted: HashMap<Held, Option<PackId>>,
        progress: &Progress,
    ) -> Result<HashSet<Held>, DriveError> {
        let mut holders: HashMap<BlockHash, Vec<Held>> = HashMap::new();
        for held in wanted.keys() {
            holders.entry(held.1).or_default().push(*held);
        }
        let hashes: Arc<HashSet<BlockHash>> = Arc::new(holders.keys().copied().collect());
        let (stored, _) = self.blocks.survey().await?;
        progress.begin("copies", stored.len() as u64);
        let mut found = HashSet::new();
        for object in stored {
            progress.add(1);
            let id = object.pack;
            let Ok(Some(bytes)) = self.blocks.whole(id).await else { continue };
            let row = self.store.read(move |sql| check::pack(sql, id)).await?;
            let (keys, hashes) = (self.keys.clone(), Arc::clone(&hashes));
            let copies = self.work.compute(move || copies(&keys, id, row, &hashes, &bytes)).await?;
            let Some((head, size, count, places)) = copies else { continue };
            for at in places {
                for held in holders.get(&at.hash).into_iter().flatten() {
                    let bad_in = wanted.get(held).copied().flatten();
                    if found.contains(held) {
                        continue;
                    }
                    if self.adopt(*held, bad_in, &head, (size, count), at).await? {
                        found.insert(*held);
                    }
                }
            }
        }
        Ok(found)
    }

    /// Notes that a block lies at `at` in a pack, whose row is made where there is none.
    async fn adopt(
        &self,
        held: Held,
        bad_in: Option<PackId>,
        head: &PackRow,
        (size, count): (u64, usize),
        at: Location,
    ) -> Result<bool, DriveError> {
        let (head, keys) = (head.clone(), self.keys.clone());
        self.store
            .write(move |sql| {
                let now = check::place_of(sql, held.0, held.1)?;
                if now.is_some() && now != bad_in {
                    // Somebody has stored it again in the meantime.
                    return Ok(true);
                }
                if check::pack(sql, head.pack)?.is_none() {
                    let new = NewPack {
                        pack: head.pack,
                        owner: head.owner,
                        size,
                        wrapped_key: head.wrapped_key,
                        created: clock::now_secs(),
                    };
                    record_pack(sql, &keys, new, count)?;
                }
                check::set_place(sql, held.0, head.pack, &at)?;
                Ok(true)
            })
            .await
    }
}

type Copies = (PackRow, u64, usize, Vec<Location>);

/// Good copies of blocks in a pack, read by its own index; none when that cannot be read.
fn copies(
    keys: &KeyRing,
    id: PackId,
    row: Option<PackRow>,
    wanted: &HashSet<BlockHash>,
    bytes: &Bytes,
) -> Option<Copies> {
    let head = match row {
        Some(row) => row,
        None => {
            let head = pack::parse_head(bytes).ok().filter(|h| h.pack == id)?;
            let key = keys.unwrap_head(id, &head.wrapped_key).ok()?;
            PackRow {
                pack: id,
                owner: head.owner,
                size: bytes.len() as u64,
                blocks: 0,
                wrapped_key: keys.wrap(id, &key).to_vec(),
            }
        }
    };
    let key = keys.unwrap(id, &head.wrapped_key).ok()?;
    let index = pack::parse_index(bytes, head.owner, &key).ok()?;
    let places = index
        .iter()
        .filter(|at| wanted.contains(&at.hash))
        .filter(|at| examine::open(&key, head.owner, at, bytes).is_ok())
        .copied()
        .collect();
    Some((head, bytes.len() as u64, index.len(), places))
}
