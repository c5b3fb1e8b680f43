//! Keeping the cache within its bounds, and the data folder free of leftovers.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use drivefs_core::id::BlockHash;
use rustix::fs::FallocateFlags;

use super::BlockCache;
use super::CacheError;
use super::lock;
use super::slots::SLOT_STRIDE;
use super::slots::SlotSet;
use super::slots::is_heap;
use super::slots::is_shared;
use super::slots::is_slot;
use super::slots::number_of;
use super::slots::owner_of;
use super::slots::place_of;
use super::slots::slot_id;
use super::slots::slots_of;
use crate::host;
use crate::state::CachedBlock;
use crate::state::DbError;
use crate::state::FileId;

/// Blocks looked at in one go.
const BATCH: usize = 256;
/// Eviction goes on down to this share of the limit (percent).
const TARGET_PERCENT: u64 = 95;
/// Space that the cache leaves free on its disk: this much (bytes), or on a small disk this share.
const KEEP_FREE_BYTES: u64 = 512 * 1024 * 1024;
const KEEP_FREE_PERCENT: u64 = 5;
/// Length of the file that is given up on a full disk (bytes): evicting takes some room in the
/// database first.
const RESERVE_BYTES: u64 = 4 * 1024 * 1024;
/// Where it lies in the data folder. Not the name of a data file.
const RESERVE_NAME: &str = "00/reserve.space";

/// Evicted beyond what is needed at the moment when the disk is full (bytes).
const RELIEF_BYTES: u64 = 16 * 1024 * 1024;

/// What dropping blocks on request did (bytes).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    pub dropped: u64,
    /// Stays because the server does not have it yet.
    pub unsent: u64,
}

/// Makes the reserve, or gives it up. Where it cannot be made the disk is full already.
pub(super) fn set_reserve(root: &Path, there: bool) {
    // A simulated disk fills up when it is told to.
    if host::is_simulated() {
        return;
    }
    let path = root.join(RESERVE_NAME);
    let result = if there {
        File::options().create(true).truncate(false).write(true).open(&path).and_then(|file| {
            let flags = FallocateFlags::empty();
            Ok(rustix::fs::fallocate(&file, flags, 0, RESERVE_BYTES)?)
        })
    } else {
        std::fs::remove_file(&path)
    };
    if let Err(error) = result {
        tracing::debug!(%error, there, "reserve of the cache");
    }
}

impl BlockCache {
    /// Evicts whenever the cache has grown past its limit. Runs until dropped.
    pub async fn run_eviction(self: Arc<Self>) {
        loop {
            self.grown.notified().await;
            let this = self.clone();
            let result = tokio::task::spawn_blocking(move || this.shrink())
                .await
                .expect("eviction does not panic");
            if let Err(error) = result {
                tracing::warn!(%error, "cache eviction failed");
            }
        }
    }

    /// Evicts the least recently used blocks down to the target, if over the limit or if the disk
    /// is nearly full.
    pub fn shrink(&self) -> Result<(), CacheError> {
        self.make_room(0).map(drop)
    }

    /// Evicts until `more` bytes fit within limit and disk; false when all that is left has to stay.
    pub fn make_room(&self, more: u64) -> Result<bool, CacheError> {
        let disk = self.disk()?;
        let used = self.bytes.load(Ordering::Relaxed);
        let short = (disk.keep_free + more).saturating_sub(disk.free);
        if used + more <= self.limit && short == 0 {
            return Ok(true);
        }
        let target = (self.limit / 100 * TARGET_PERCENT)
            .saturating_sub(more)
            .min(used.saturating_sub(short));
        self.evict_to(target)?;
        let left = self.bytes.load(Ordering::Relaxed);
        Ok(left + more <= self.limit && self.disk()?.free > more)
    }

    /// Evicts clean blocks after the disk turned out to be full; false when there was nothing.
    pub fn relieve(&self, more: u64) -> Result<bool, CacheError> {
        set_reserve(self.files.root(), false);
        let before = self.bytes.load(Ordering::Relaxed);
        let result =
            self.evict_to(before.saturating_sub(more + RELIEF_BYTES)).and_then(|()| self.reclaim());
        set_reserve(self.files.root(), true);
        result?;
        Ok(self.bytes.load(Ordering::Relaxed) < before)
    }

    fn evict_to(&self, target: u64) -> Result<(), CacheError> {
        // One at a time: two would evict twice as much as is needed.
        let _turn = lock(&self.evicting);
        if self.bytes.load(Ordering::Relaxed) <= target {
            return Ok(());
        }
        self.note_uses()?;
        while self.bytes.load(Ordering::Relaxed) > target {
            let oldest = self.db.read(|c| c.oldest_cached(BATCH))?;
            if oldest.is_empty() {
                break; // All that is left is pinned or waits for the server.
            }
            let mut over = self.bytes.load(Ordering::Relaxed).saturating_sub(target);
            let enough = |b: &&CachedBlock| {
                let go_on = over > 0;
                over = over.saturating_sub(u64::from(b.len));
                go_on
            };
            let going: Vec<CachedBlock> = oldest.iter().take_while(enough).copied().collect();
            self.forget_all(&going)?;
            self.counters.evicted_blocks.fetch_add(going.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Drops these blocks from this disk, but for those that the server does not have yet.
    pub fn drop_blocks(&self, hashes: &[BlockHash]) -> Result<Dropped, CacheError> {
        let mut done = Dropped::default();
        for chunk in hashes.chunks(BATCH) {
            let mut going = Vec::new();
            for hash in chunk {
                match self.db.peek(|c| c.cached(hash))? {
                    Some(row) if row.unsent => done.unsent += u64::from(row.len),
                    Some(row) => going.push(row),
                    None => self.memory.forget(hash),
                }
            }
            done.dropped += going.iter().map(|b| u64::from(b.len)).sum::<u64>();
            self.forget_all(&going)?;
        }
        Ok(done)
    }

    /// Forgets blocks in one transaction, then gives their space back.
    fn forget_all(&self, blocks: &[CachedBlock]) -> Result<(), CacheError> {
        let gone = self.db.write(|c| {
            blocks.iter().map(|b| c.forget_cached(b)).collect::<Result<Vec<bool>, DbError>>()
        })?;
        for (block, _) in blocks.iter().zip(gone).filter(|(_, gone)| *gone) {
            lock(&self.verified).pop(&block.hash);
            self.memory.forget(&block.hash);
            self.bytes.fetch_sub(u64::from(block.len), Ordering::Relaxed);
            self.release(block)?;
        }
        Ok(())
    }

    /// Tells the index which blocks were used lately, in one transaction.
    pub fn note_uses(&self) -> Result<(), CacheError> {
        // Looked at first: an idle daemon writes nothing.
        if self.db.peek(|c| c.has_idle_unsent())? {
            self.db.write(|c| c.release_unsent())?;
        }
        let touched = std::mem::take(&mut *lock(&self.touched));
        if touched.is_empty() {
            return Ok(());
        }
        self.db.write(|c| {
            for (hash, used) in &touched {
                c.touch_cached(hash, *used)?;
            }
            Ok::<_, DbError>(())
        })?;
        Ok(())
    }

    /// Space on the disk of the data folder.
    pub fn disk(&self) -> io::Result<Disk> {
        let stat = rustix::fs::statvfs(self.files.root())?;
        let size = stat.f_blocks * stat.f_frsize;
        Ok(Disk {
            free: stat.f_bavail * stat.f_frsize,
            keep_free: KEEP_FREE_BYTES.min(size / 100 * KEEP_FREE_PERCENT),
        })
    }

    /// Gives the disk space of a block back; its index row is gone already.
    pub(super) fn release(&self, block: &CachedBlock) -> Result<(), CacheError> {
        let owner = owner_of(block.file, block.offset);
        if is_slot(owner) {
            return Ok(self.files.remove(owner)?);
        }
        if self.takes_blocks(block.file) {
            // It goes when it is full and without blocks; until then its space comes back here.
        } else if !self.is_used(block.file)? {
            return Ok(self.files.remove(block.file)?);
        }
        // A reader that planned on this file before it became cache may still need the bytes.
        if !is_shared(block.file) && self.files.is_held(block.file) {
            return Ok(());
        }
        let file = match self.files.open(block.file) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        Ok(punch(&file, block.offset, u64::from(block.len))?)
    }

    /// Removes what was written for a layer or a block, unless it holds one.
    pub fn remove_unused(&self, id: FileId) -> Result<(), CacheError> {
        let (file, start) = place_of(id);
        let used = if is_slot(id) {
            self.db.peek(|c| {
                Ok::<_, DbError>(c.has_layer_in(id, id)? || c.is_place_cached(file, start)?)
            })?
        } else {
            self.is_used(file)?
        };
        if used { Ok(()) } else { Ok(self.files.remove(id)?) }
    }

    /// True when a data file holds a layer or a cached block. Asked in this order: a layer becomes
    /// cached blocks, never the other way round, and the two questions are not one transaction.
    fn is_used(&self, file: FileId) -> Result<bool, DbError> {
        self.db.peek(|c| {
            let (first, last) = if is_heap(file) { slots_of(file) } else { (file, file) };
            Ok(c.has_layer_in(first, last)? || c.is_file_cached(file)?)
        })
    }

    /// Gives the disk space of slots back that nothing refers to any more. Returns how many.
    pub fn reclaim(&self) -> Result<usize, CacheError> {
        let (slots, heaps) = self.files.take_retired();
        if slots.is_empty() {
            return Ok(0);
        }
        let cleared = self.clear_slots(&slots, &heaps);
        if cleared.is_err() {
            self.files.retire_again(&slots);
        }
        cleared?;
        Ok(slots.len())
    }

    fn clear_slots(&self, slots: &[FileId], heaps: &[FileId]) -> Result<(), CacheError> {
        // Power loss may take back the change that let go of them: their bytes must be there then.
        match self.db.flush() {
            // On a full disk the space is needed first.
            Err(DbError::Full) => tracing::warn!("giving space back without a flush"),
            other => other?,
        }
        let mut gone = HashSet::new();
        for &heap in heaps {
            if !self.is_used(heap)? {
                self.files.remove(heap)?;
                gone.insert(heap);
            }
        }
        for &slot in slots {
            let (heap, start) = place_of(slot);
            if gone.contains(&heap) {
                continue;
            }
            match self.files.open(heap) {
                Ok(file) => punch(&file, start / SLOT_STRIDE * SLOT_STRIDE, SLOT_STRIDE)?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Removes data files numbered below `before` that nothing refers to, and what is in slots
    /// that nothing refers to: leftovers of a crash between a file's creation and its transaction,
    /// or between that and the clearing of a slot.
    pub fn sweep(&self, before: FileId) -> Result<usize, CacheError> {
        let mut removed = 0;
        for folder in 0..256 {
            for id in self.files.list_folder(folder)? {
                if number_of(id) >= before {
                    continue;
                }
                if !self.is_used(id)? {
                    self.files.remove(id)?;
                    removed += 1;
                } else if is_heap(id) {
                    removed += self.sweep_heap(id)?;
                }
            }
        }
        Ok(removed)
    }

    /// Clears the slots of an earlier process's heap that nothing refers to. None of them is given
    /// out again, so nothing can come to refer to one meanwhile.
    fn sweep_heap(&self, heap: FileId) -> Result<usize, CacheError> {
        let (first, last) = slots_of(heap);
        let used = self.db.peek(|c| {
            // Layers first, as in `is_used`.
            let mut used = SlotSet::default();
            for layer in c.layers_in(first, last)? {
                used.insert(layer - first);
            }
            for offset in c.places_cached(heap)? {
                used.insert(offset / SLOT_STRIDE);
            }
            Ok::<_, DbError>(used)
        })?;
        let file = self.files.open(heap)?;
        let mut removed = 0;
        let mut at = 0;
        // What was cleared before is a hole: only what holds data is looked at.
        while let Some(data) = next_data(&file, at)? {
            let index = data / SLOT_STRIDE;
            at = (index + 1) * SLOT_STRIDE;
            if !used.contains(index) {
                self.files.remove(slot_id(number_of(heap), index))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Drops every block that the server holds.
    pub fn clear(&self) -> Result<(), CacheError> {
        loop {
            let oldest = self.db.read(|c| c.oldest_cached(BATCH))?;
            if oldest.is_empty() {
                lock(&self.verified).clear();
                return Ok(());
            }
            self.forget_all(&oldest)?;
        }
    }
}

/// Gives back the disk space of a range, which reads as zeros from now on.
fn punch(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(file, flags, offset, len) {
        // Without holes the space comes back with the file's last block.
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Space on the cache's disk (bytes).
#[derive(Debug, Clone, Copy)]
pub struct Disk {
    pub free: u64,
    /// What the cache leaves free.
    pub keep_free: u64,
}

/// Where the next data at or behind `offset` begins; none when only a hole is left.
fn next_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(offset)) {
        Ok(at) => Ok(Some(at)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
