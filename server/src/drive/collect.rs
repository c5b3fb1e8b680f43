//! The collection: finds blocks that nothing refers to, and lets them go.
//!
//! It runs in rounds. A round marks what the versions of an account list and what its uploads under
//! way have stored, and goes through the
//! account's blocks: what is not marked and old enough is *doomed*; what an earlier round doomed and
//! this one does not find either is removed; what was doomed and is marked is spared. A doomed block
//! counts as not held by whoever wants to refer to it anew: they upload it again, which ends its
//! doom. So a block is removed only when a whole look at all versions, begun after the last moment at
//! which anything could refer to it, found nothing; that holds whatever the clock says. The grace
//! period is on top.
//!
//! A pack that no row names any more is *dead*; its object goes later, when nobody can be reading
//! it. Every step is a small transaction of its own. A round that was cut off begins again with the
//! account that it was at.

use std::collections::HashSet;
use std::collections::VecDeque;

use drivefs_core::id::BlockHash;
use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::PackId;
use drivefs_core::id::UserId;
use drivefs_core::id::VersionNo;
use drivefs_core::manifest::Root;
use drivefs_core::manifest::SegmentRef;
use drivefs_core::manifest::decode_segment;
use serde::Deserialize;
use serde::Serialize;

use super::Drive;
use super::DriveError;
use crate::clock;
use crate::metadata::blocks;
use crate::metadata::space;
use crate::metadata::space::PartMark;

/// Versions read at once.
const VERSIONS_A_STEP: u32 = 500;
/// Segments loaded at once: bounds memory.
const SEGMENTS_A_STEP: usize = 64;
/// Block rows looked at in one step.
const BLOCKS_A_STEP: u32 = 1000;
/// Packs looked at, or removed, in one step.
const PACKS_A_STEP: u32 = 100;
/// Marks held in memory; an account with more blocks is gone through in parts.
const MARKS_MAX: u64 = 4_000_000;
/// Most parts: one for each value of a hash's first byte.
const PARTS_MAX: u64 = 256;

/// How long what seems to be unused is left alone (seconds).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grace {
    /// A block since it was stored.
    pub block: i64,
    /// The object of a dead pack: longer than any read of it takes.
    pub dead: i64,
    /// An object without a row: longer than any upload takes.
    pub orphan: i64,
}

impl Default for Grace {
    fn default() -> Self {
        Self { block: 24 * 3600, dead: 600, orphan: 3600 }
    }
}

/// What was done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Collected {
    /// Blocks looked at.
    pub blocks: u64,
    pub doomed: u64,
    pub spared: u64,
    pub removed: u64,
    /// Packs whose object was removed, and their bytes as far as they are known.
    pub packs: u64,
    /// Objects without a row that were removed.
    pub orphans: u64,
    /// Accounts that were left alone, because a list of blocks cannot be read: see `fsck`.
    pub unsure: u64,
}

/// Where a round goes on after the process has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub round: u64,
    /// The account being gone through; none when all are done.
    owner: Option<UserId>,
}

/// A round under way.
pub struct Round {
    grace: Grace,
    position: Position,
    stage: Stage,
    pub done: Collected,
}

enum Stage {
    Mark(Mark),
    Sweep { marks: HashSet<u64>, part: Part, after: Option<BlockHash> },
    Packs { after: Option<PackId> },
    Dead,
    Orphans { folder: u8 },
}

/// A part of an account's blocks, by the first byte of their hashes.
#[derive(Clone, Copy)]
struct Part {
    number: u64,
    of: u64,
}

impl Part {
    fn has(self, hash: &BlockHash) -> bool {
        u64::from(hash.0[0]) * self.of / PARTS_MAX == self.number
    }

    fn next(self) -> Option<Self> {
        let number = self.number + 1;
        (number < self.of).then_some(Self { number, ..self })
    }

    /// What is behind all hashes before this part.
    fn begin(self) -> Option<BlockHash> {
        let first = (self.number * PARTS_MAX).div_ceil(self.of);
        let before = u8::try_from(first.checked_sub(1)?).ok()?;
        let mut hash = [0xff; 32];
        hash[0] = before;
        Some(BlockHash(hash))
    }
}

struct Mark {
    part: Part,
    spaces: VecDeque<NamespaceId>,
    after: Option<(NodeId, VersionNo)>,
    /// When these are done: the parts of uploads under way.
    upload: Option<PartMark>,
    marks: HashSet<u64>,
    /// Segments that were met, and those that are still to be read.
    met: HashSet<u64>,
    segments: Vec<SegmentRef>,
}

impl Mark {
    fn note(&mut self, hash: &BlockHash) {
        if self.part.has(hash) {
            self.marks.insert(short(hash));
        }
    }

    fn root(&mut self, root: &Root) {
        match root {
            Root::Inline(entries) => entries.iter().for_each(|e| self.note(&e.hash)),
            Root::Segmented(refs) => {
                for listed in refs {
                    self.note(&listed.hash);
                    if self.met.insert(short(&listed.hash)) {
                        self.segments.push(*listed);
                    }
                }
            }
        }
    }
}

/// Two hashes that look alike here keep each other: too much stays, never too little.
fn short(hash: &BlockHash) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash.0[8..16]);
    u64::from_le_bytes(bytes)
}

impl Round {
    /// Begins a round, or goes on with one at the account where it was cut off.
    pub async fn begin(
        drive: &Drive,
        grace: Grace,
        last: Option<u64>,
        at: Option<Position>,
    ) -> Result<Self, DriveError> {
        let position = match at {
            Some(position) => position,
            None => {
                let owner = drive.store.read(|sql| space::next_owner(sql, None)).await?;
                Position { round: last.unwrap_or(0) + 1, owner }
            }
        };
        let mut round =
            Self { grace, position, stage: Stage::Packs { after: None }, done: Default::default() };
        round.stage = round.first_stage(drive).await?;
        Ok(round)
    }

    pub fn position(&self) -> Position {
        self.position
    }

    /// One step; false when the round is over.
    pub async fn step(&mut self, drive: &Drive) -> Result<bool, DriveError> {
        let stage = std::mem::replace(&mut self.stage, Stage::Dead);
        let next = match stage {
            Stage::Mark(mark) => self.mark(drive, mark).await?,
            Stage::Sweep { marks, part, after } => self.sweep(drive, marks, part, after).await?,
            Stage::Packs { after } => self.bury(drive, after).await?,
            Stage::Dead => self.remove_dead(drive).await?,
            Stage::Orphans { folder } => self.remove_orphans(drive, folder).await?,
        };
        match next {
            Some(stage) => {
                self.stage = stage;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    async fn first_stage(&self, drive: &Drive) -> Result<Stage, DriveError> {
        let Some(owner) = self.position.owner else { return Ok(Stage::Packs { after: None }) };
        let count = drive.store.read(move |sql| space::count_blocks(sql, owner)).await?;
        let of = count.div_ceil(MARKS_MAX).next_power_of_two().clamp(1, PARTS_MAX);
        begin_mark(drive, owner, Part { number: 0, of }).await
    }

    async fn next_account(&mut self, drive: &Drive) -> Result<Option<Stage>, DriveError> {
        let owner = self.position.owner;
        self.position.owner = drive.store.read(move |sql| space::next_owner(sql, owner)).await?;
        Ok(Some(self.first_stage(drive).await?))
    }

    /// Notes what some versions list.
    async fn mark(&mut self, drive: &Drive, mut mark: Mark) -> Result<Option<Stage>, DriveError> {
        let Some(owner) = self.position.owner else { return Ok(Some(Stage::Dead)) };
        if !mark.segments.is_empty() {
            let rest = mark.segments.len().saturating_sub(SEGMENTS_A_STEP);
            let batch = mark.segments.split_off(rest);
            if !self.mark_segments(drive, owner, &mut mark, batch).await? {
                self.done.unsure += 1;
                return self.next_account(drive).await;
            }
            return Ok(Some(Stage::Mark(mark)));
        }
        let Some(ns) = mark.spaces.front().copied() else {
            let after = mark.upload.clone();
            let parts = drive
                .store
                .read(move |sql| space::upload_parts(sql, owner, after.as_ref(), VERSIONS_A_STEP))
                .await?;
            parts.iter().for_each(|(_, hash)| mark.note(hash));
            if parts.len() == VERSIONS_A_STEP as usize {
                mark.upload = parts.into_iter().last().map(|(at, _)| at);
                return Ok(Some(Stage::Mark(mark)));
            }
            let Mark { part, marks, .. } = mark;
            return Ok(Some(Stage::Sweep { marks, part, after: part.begin() }));
        };
        let after = mark.after;
        let rows =
            drive.store.read(move |sql| space::contents(sql, ns, after, VERSIONS_A_STEP)).await?;
        for (node, version, content) in &rows {
            mark.after = Some((*node, *version));
            match Root::decode(content) {
                Ok(root) => mark.root(&root),
                Err(error) => {
                    tracing::error!(%ns, %node, version, %error, "a version cannot be read");
                    self.done.unsure += 1;
                    return self.next_account(drive).await;
                }
            }
        }
        if rows.len() < VERSIONS_A_STEP as usize {
            mark.spaces.pop_front();
            mark.after = None;
        }
        Ok(Some(Stage::Mark(mark)))
    }

    /// Notes what segments list; false when one cannot be read.
    async fn mark_segments(
        &self,
        drive: &Drive,
        owner: UserId,
        mark: &mut Mark,
        batch: Vec<SegmentRef>,
    ) -> Result<bool, DriveError> {
        let hashes: Vec<BlockHash> = batch.iter().map(|s| s.hash).collect();
        let held = drive
            .store
            .read(move |sql| {
                let mut held = Vec::new();
                for hash in hashes {
                    held.extend(blocks::find(sql, owner, hash)?);
                }
                Ok::<_, DriveError>(held)
            })
            .await?;
        let bytes = held.iter().map(|b| u64::from(b.at.block_len)).sum();
        let _held = drive.work.hold(bytes).await?;
        let loaded = match drive.load(held).await {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::error!(%owner, %error, "a list of blocks cannot be read: nothing is collected");
                return Ok(false);
            }
        };
        for listed in batch {
            let entries = loaded.get(&listed.hash).map(|b| decode_segment(&b.plain, &listed));
            let Some(Ok(entries)) = entries else {
                tracing::error!(%owner, block = %listed.hash, "a list of blocks is missing or wrong");
                return Ok(false);
            };
            entries.iter().for_each(|e| mark.note(&e.hash));
        }
        Ok(true)
    }

    /// Goes through some of the account's blocks.
    async fn sweep(
        &mut self,
        drive: &Drive,
        marks: HashSet<u64>,
        part: Part,
        after: Option<BlockHash>,
    ) -> Result<Option<Stage>, DriveError> {
        let Some(owner) = self.position.owner else { return Ok(Some(Stage::Dead)) };
        let page =
            drive.store.read(move |sql| space::page(sql, owner, after, BLOCKS_A_STEP)).await?;
        let last = page.last().map(|seen| seen.hash);
        let is_over = page.len() < BLOCKS_A_STEP as usize || last.is_some_and(|h| !part.has(&h));
        let mine: Vec<_> = page.into_iter().filter(|seen| part.has(&seen.hash)).collect();
        self.done.blocks += mine.len() as u64;
        let (round, old) = (self.position.round, clock::now_secs() - self.grace.block);
        let (mut doom, mut spare, mut remove) = (Vec::new(), Vec::new(), Vec::new());
        for seen in mine {
            match (marks.contains(&short(&seen.hash)), seen.doomed) {
                (true, Some(_)) => spare.push(seen),
                (false, None) if seen.created <= old => doom.push(seen),
                (false, Some(by)) if by < round => remove.push(seen),
                _ => {}
            }
        }
        if !(doom.is_empty() && spare.is_empty() && remove.is_empty()) {
            let (doomed, spared, removed) = drive
                .store
                .write(move |sql| {
                    let (mut doomed, mut removed) = (0, 0);
                    for seen in &doom {
                        doomed += u64::from(space::doom(sql, owner, seen, round)?);
                    }
                    for seen in &spare {
                        space::spare(sql, owner, seen.hash)?;
                    }
                    for seen in &remove {
                        removed += u64::from(space::remove(sql, owner, seen)?);
                    }
                    if doomed + removed > 0 {
                        space::next_generation(sql)?;
                    }
                    Ok::<_, DriveError>((doomed, spare.len() as u64, removed))
                })
                .await?;
            self.done.doomed += doomed;
            self.done.spared += spared;
            self.done.removed += removed;
        }
        if !is_over {
            return Ok(Some(Stage::Sweep { marks, part, after: last }));
        }
        match part.next() {
            Some(part) => Ok(Some(begin_mark(drive, owner, part).await?)),
            None => self.next_account(drive).await,
        }
    }

    /// Finds packs that no row names.
    async fn bury(
        &mut self,
        drive: &Drive,
        after: Option<PackId>,
    ) -> Result<Option<Stage>, DriveError> {
        let (now, old) = (clock::now_secs(), clock::now_secs() - self.grace.block);
        let packs =
            drive.store.read(move |sql| space::packs(sql, after, old, PACKS_A_STEP)).await?;
        let last = packs.last().map(|p| p.pack);
        let is_over = packs.len() < PACKS_A_STEP as usize;
        let empty: Vec<PackId> = packs.iter().filter(|p| p.live == 0).map(|p| p.pack).collect();
        if !empty.is_empty() {
            drive
                .store
                .write(move |sql| {
                    for pack in empty {
                        space::bury(sql, pack, now)?;
                    }
                    Ok::<_, DriveError>(())
                })
                .await?;
        }
        Ok(Some(if is_over { Stage::Dead } else { Stage::Packs { after: last } }))
    }

    /// Removes objects of packs that are dead for long: first the object, then the row.
    async fn remove_dead(&mut self, drive: &Drive) -> Result<Option<Stage>, DriveError> {
        let before = clock::now_secs() - self.grace.dead;
        let (dead, held) = drive
            .store
            .read(move |sql| {
                let dead = space::dead(sql, before, PACKS_A_STEP)?;
                Ok::<_, DriveError>((dead, space::is_held(sql, clock::now_secs())?))
            })
            .await?;
        if held {
            return Ok(None); // A backup copies packs: the next round removes them.
        }
        let is_over = dead.len() < PACKS_A_STEP as usize;
        for pack in &dead {
            drive.blocks.delete(*pack).await?;
        }
        self.done.packs += dead.len() as u64;
        if !dead.is_empty() {
            drive
                .store
                .write(move |sql| {
                    for pack in dead {
                        space::forget_pack(sql, pack)?;
                    }
                    Ok::<_, DriveError>(())
                })
                .await?;
        }
        Ok(Some(if is_over { Stage::Orphans { folder: 0 } } else { Stage::Dead }))
    }

    /// Removes objects that no row names: an upload ended between the object and its row.
    async fn remove_orphans(
        &mut self,
        drive: &Drive,
        folder: u8,
    ) -> Result<Option<Stage>, DriveError> {
        let old = clock::now_secs() - self.grace.orphan;
        let found = drive.blocks.list_folder(folder).await?;
        let packs: Vec<PackId> =
            found.into_iter().filter(|o| o.modified <= old).map(|o| o.pack).collect();
        let orphans = drive
            .store
            .read(move |sql| {
                let mut orphans = Vec::new();
                for pack in packs {
                    if !space::knows_pack(sql, pack)? {
                        orphans.push(pack);
                    }
                }
                Ok::<_, DriveError>(orphans)
            })
            .await?;
        for pack in orphans {
            tracing::info!(%pack, "removing a pack that no row names");
            drive.blocks.delete(pack).await?;
            self.done.orphans += 1;
        }
        Ok(folder.checked_add(1).map(|folder| Stage::Orphans { folder }))
    }
}

async fn begin_mark(drive: &Drive, owner: UserId, part: Part) -> Result<Stage, DriveError> {
    let spaces = drive.store.read(move |sql| space::namespaces_of(sql, owner)).await?;
    Ok(Stage::Mark(Mark {
        part,
        spaces: spaces.into(),
        after: None,
        upload: None,
        marks: HashSet::new(),
        met: HashSet::new(),
        segments: Vec::new(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_every_hash_once_and_begin_before_theirs() {
        for of in [1, 2, 8, 256] {
            for byte in 0..=255u8 {
                let hash = BlockHash([byte; 32]);
                let parts: Vec<Part> =
                    (0..of).map(|number| Part { number, of }).filter(|p| p.has(&hash)).collect();
                assert_eq!(parts.len(), 1, "{byte} of {of}");
                let begin = parts[0].begin();
                assert!(begin.is_none_or(|b| b < hash && !parts[0].has(&b)), "{byte} of {of}");
            }
        }
    }
}
