//! The memory tier: blocks that were just fetched or verified, so that their readers need no disk.
//!
//! Two shares: the most recent ones within a hard bound, and those that are not on this disk yet,
//! which whoever adds them bounds (`keep`). Blocks are verified before they come here.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Mutex;

use bytes::Bytes;
use drivefs_core::id::BlockHash;
use lru::LruCache;
use tokio::sync::Notify;

use super::lock;

/// Bytes of recent blocks held.
pub const MEMORY_MAX_BYTES: usize = 32 * 1024 * 1024;
/// Recent blocks held, so that tiny ones do not cost more than their bytes.
const MEMORY_MAX_BLOCKS: usize = 16 * 1024;

#[derive(Default)]
pub(super) struct Memory {
    inner: Mutex<Inner>,
    /// Fires when something was written.
    written: Notify,
}

struct Inner {
    recent: LruCache<BlockHash, Bytes>,
    bytes: usize,
    unwritten: HashMap<BlockHash, Bytes>,
}

impl Default for Inner {
    fn default() -> Self {
        Self { recent: LruCache::unbounded(), bytes: 0, unwritten: HashMap::new() }
    }
}

impl Memory {
    pub fn get(&self, hash: &BlockHash) -> Option<Bytes> {
        let mut inner = lock(&self.inner);
        if let Some(block) = inner.recent.get(hash) {
            return Some(block.clone());
        }
        inner.unwritten.get(hash).cloned()
    }

    pub fn has(&self, hash: &BlockHash) -> bool {
        let inner = lock(&self.inner);
        inner.recent.contains(hash) || inner.unwritten.contains_key(hash)
    }

    /// Adds a block that is on this disk.
    pub fn put(&self, hash: BlockHash, block: Bytes) {
        lock(&self.inner).put(hash, block);
    }

    /// Adds a block that is to be written; it stays until `written`.
    pub fn put_unwritten(&self, hash: BlockHash, block: Bytes) {
        let mut inner = lock(&self.inner);
        inner.unwritten.insert(hash, block.clone());
        inner.put(hash, block);
    }

    /// The blocks are on disk, or never will be.
    pub fn written<'a>(&self, hashes: impl Iterator<Item = &'a BlockHash>) {
        let mut inner = lock(&self.inner);
        for hash in hashes {
            inner.unwritten.remove(hash);
        }
        drop(inner);
        self.written.notify_waiters();
    }

    /// Waits until none of these is to be written any more.
    pub async fn until_written(&self, hashes: &[BlockHash]) {
        loop {
            let mut next = pin!(self.written.notified());
            next.as_mut().enable();
            if !hashes.iter().any(|hash| self.waits(hash)) {
                return;
            }
            next.await;
        }
    }

    /// True while the block waits to be written.
    pub fn waits(&self, hash: &BlockHash) -> bool {
        lock(&self.inner).unwritten.contains_key(hash)
    }

    pub fn forget(&self, hash: &BlockHash) {
        let mut inner = lock(&self.inner);
        if let Some(block) = inner.recent.pop(hash) {
            inner.bytes -= block.len();
        }
    }
}

impl Inner {
    fn put(&mut self, hash: BlockHash, block: Bytes) {
        self.bytes += block.len();
        if let Some(before) = self.recent.put(hash, block) {
            self.bytes -= before.len();
        }
        while self.bytes > MEMORY_MAX_BYTES || self.recent.len() > MEMORY_MAX_BLOCKS {
            let Some((_, oldest)) = self.recent.pop_lru() else { return };
            self.bytes -= oldest.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(n: u32, len: usize) -> (BlockHash, Bytes) {
        (BlockHash::of(&n.to_le_bytes()), Bytes::from(vec![0; len]))
    }

    #[test]
    fn recent_blocks_stay_within_their_bound_and_the_oldest_goes_first() {
        let memory = Memory::default();
        for n in 0..100 {
            let (hash, bytes) = block(n, 1 << 20);
            memory.put(hash, bytes);
            assert!(lock(&memory.inner).bytes <= MEMORY_MAX_BYTES);
        }
        assert!(memory.get(&block(0, 0).0).is_none());
        assert!(memory.get(&block(99, 0).0).is_some());
        let (hash, bytes) = block(99, 1 << 20);
        memory.put(hash, bytes);
        memory.forget(&hash);
        assert!(!memory.has(&hash));
        assert!(lock(&memory.inner).bytes <= MEMORY_MAX_BYTES - (1 << 20));
    }

    #[test]
    fn what_is_not_written_yet_is_found_however_much_came_after_it() {
        let memory = Memory::default();
        let (first, bytes) = block(0, 1 << 20);
        memory.put_unwritten(first, bytes);
        for n in 1..100 {
            let (hash, bytes) = block(n, 1 << 20);
            memory.put(hash, bytes);
        }
        assert!(memory.get(&first).is_some());
        memory.written([first].iter());
        assert!(memory.get(&first).is_none());
    }
}
