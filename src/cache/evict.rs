//! Keeping the cache within its bounds, and the data folder free of leftovers.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::FallocateFlags;

use super::BlockCache;
use super::CacheError;
use super::lock;
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
        self.db.write(|c| c.release_unsent())?;
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
        let shared = self.db.peek(|c| {
            Ok::<_, DbError>(c.is_file_cached(block.file)? || c.is_file_layer(block.file)?)
        })?;
        if !shared {
            return Ok(self.files.remove(block.file)?);
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
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&*file, flags, block.offset, u64::from(block.len)) {
            // Without holes the space comes back with the file's last block.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            Err(e) => Err(io::Error::from(e).into()),
        }
    }

    /// Removes data files numbered below `before` that nothing refers to: leftovers of a crash
    /// between a file's creation and its transaction.
    pub fn sweep(&self, before: FileId) -> Result<usize, CacheError> {
        let mut removed = 0;
        for folder in 0..256 {
            for id in self.files.list_folder(folder)? {
                let used = self
                    .db
                    .read(|c| Ok::<_, DbError>(c.is_file_cached(id)? || c.is_file_layer(id)?))?;
                if id < before && !used {
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
