//! What the cache did since the start, for `status` and `drivefs cache`.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub memory_hits: AtomicU64,
    pub disk_hits: AtomicU64,
    fetched_blocks: AtomicU64,
    fetched_bytes: AtomicU64,
    ahead_blocks: AtomicU64,
    requests: AtomicU64,
    ahead_requests: AtomicU64,
    pub evicted_blocks: AtomicU64,
}

/// A snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pieces of reads that memory had, and that this disk had.
    pub memory_hits: u64,
    pub disk_hits: u64,
    /// Blocks from the server, and how many of them before anybody asked.
    pub fetched_blocks: u64,
    pub fetched_bytes: u64,
    pub ahead_blocks: u64,
    /// Requests for blocks, and how many of them were made ahead.
    pub requests: u64,
    pub ahead_requests: u64,
    pub evicted_blocks: u64,
}

impl Counters {
    pub fn request(&self, ahead: bool) {
        self.requests.fetch_add(1, Relaxed);
        self.ahead_requests.fetch_add(u64::from(ahead), Relaxed);
    }

    pub fn fetched(&self, bytes: usize, ahead: bool) {
        self.fetched_blocks.fetch_add(1, Relaxed);
        self.fetched_bytes.fetch_add(bytes as u64, Relaxed);
        self.ahead_blocks.fetch_add(u64::from(ahead), Relaxed);
    }

    pub fn counts(&self) -> Counts {
        Counts {
            memory_hits: self.memory_hits.load(Relaxed),
            disk_hits: self.disk_hits.load(Relaxed),
            fetched_blocks: self.fetched_blocks.load(Relaxed),
            fetched_bytes: self.fetched_bytes.load(Relaxed),
            ahead_blocks: self.ahead_blocks.load(Relaxed),
            requests: self.requests.load(Relaxed),
            ahead_requests: self.ahead_requests.load(Relaxed),
            evicted_blocks: self.evicted_blocks.load(Relaxed),
        }
    }
}
