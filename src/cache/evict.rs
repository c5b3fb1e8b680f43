//! Keeping the cache within its bounds, and the data folder free of leftovers.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::FallocateFlags;

use super::BlockCache;
use super::CacheError;
use super::lock;
use super::slots::SLOT_STRIDE;
use super::slots::is_heap;
use super::slots::is_slot;
use super::slots::number_of;
use super::slots::owner_of;
use super::slots::place_of;
use super::slots::slots_of;
use crate::state::CachedBlock;
use crate::state::DbError;
use crate::state::FileId;

/// Blocks looked at in one go.
const BATCH: usize = 256;
/// Eviction goes on down to this share of the limit (percent).
const TARGET_PERCENT: u64 = 95;
/// Space that the cache leaves free on its disk (bytes).
const KEEP_FREE_BYTES: u64 = 512 * 1024 * 1024;

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
        let free = self.free_bytes()?;
        let used = self.bytes.load(Ordering::Relaxed);
        let short = KEEP_FREE_BYTES.saturating_sub(free);
        if used <= self.limit && short == 0 {
            return Ok(());
        }
        self.note_uses()?;
        let target = (self.limit / 100 * TARGET_PERCENT).min(used.saturating_sub(short));
        while self.bytes.load(Ordering::Relaxed) > target {
            let oldest = self.db.read(|c| c.oldest_cached(BATCH))?;
            if oldest.is_empty() {
                break; // All that is left waits for the server.
            }
            for block in &oldest {
                self.forget(block)?;
                if self.bytes.load(Ordering::Relaxed) <= target {
                    break;
                }
            }
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

    /// Free bytes on the disk of the data folder.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(self.files.root())?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    /// Gives the disk space of a block back; its index row is gone already.
    pub(super) fn release(&self, block: &CachedBlock) -> Result<(), CacheError> {
        let owner = owner_of(block.file, block.offset);
        if is_slot(owner) || !self.is_used(block.file)? {
            return Ok(self.files.remove(owner)?);
        }
        // A reader that planned on this file before it became cache may still need the bytes.
        if self.files.is_held(block.file) {
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
                Ok::<_, DbError>(c.is_place_cached(file, start)? || c.has_layer_in(id, id)?)
            })?
        } else {
            self.is_used(file)?
        };
        if used { Ok(()) } else { Ok(self.files.remove(id)?) }
    }

    /// True when a data file holds a layer or a cached block.
    fn is_used(&self, file: FileId) -> Result<bool, DbError> {
        self.db.peek(|c| {
            let (first, last) = if is_heap(file) { slots_of(file) } else { (file, file) };
            Ok(c.is_file_cached(file)? || c.has_layer_in(first, last)?)
        })
    }

    /// Gives the disk space of slots back that nothing refers to any more. Returns how many.
    pub fn reclaim(&self) -> Result<usize, CacheError> {
        let (slots, heaps) = self.files.take_retired();
        let mut gone = HashSet::new();
        for heap in heaps {
            if !self.is_used(heap)? {
                self.files.remove(heap)?;
                gone.insert(heap);
            }
        }
        for &slot in &slots {
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
        Ok(slots.len())
    }

    /// Removes data files numbered below `before` that nothing refers to: leftovers of a crash
    /// between a file's creation and its transaction.
    pub fn sweep(&self, before: FileId) -> Result<usize, CacheError> {
        let mut removed = 0;
        for folder in 0..256 {
            for id in self.files.list_folder(folder)? {
                if number_of(id) < before && !self.is_used(id)? {
                    self.files.remove(id)?;
                    removed += 1;
                }
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
            for block in &oldest {
                self.forget(block)?;
            }
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
