//! Keeping fetched blocks: written behind the reader, several in one transaction.
//!
//! Fetched blocks share data files: a file a block would cost more than its bytes. A block waits in
//! memory until it is indexed, so whoever asks finds it all the time. Losing what waits costs
//! nothing but another fetch.

use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use drivefs_core::id::BlockHash;
use drivefs_core::limits::BLOCK_MAX_BYTES;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

use super::BlockCache;
use super::CacheError;
use super::direct::DIRECT_FROM;
use super::direct::PAGE;
use super::direct::Pace;
use super::direct::Run;
use super::direct::RunWriter;
use super::lock;
use super::slots::shared_id;
use crate::host;
use crate::state::CachedBlock;
use crate::state::FileId;

/// Bytes that wait to be written, at most; fetches wait when there are more.
const WAITING_MAX_BYTES: usize = 24 * 1024 * 1024;
/// Unit of that bound (bytes).
const PERMIT_BYTES: usize = 4096;
/// Written and indexed at once.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
const BATCH_BLOCKS: usize = 512;
/// Length of a shared data file (bytes), and its least share of the cache's limit.
const FILE_BYTES: u64 = 64 * 1024 * 1024;
const FILES_MIN: u64 = 16;
/// Blocks from this size on begin on a page, so that their space comes back whole.
const ALIGNED_FROM: usize = 64 * 1024;

/// Blocks on their way to the disk.
pub(super) struct Keeping {
    queue: Mutex<Queue>,
    room: Arc<Semaphore>,
    /// The file that takes blocks now; only the writer changes it, and there is one.
    file: Mutex<Option<Shared>>,
    /// Files that have blocks which are not indexed yet, and the one that takes blocks now.
    taking: Mutex<BTreeSet<FileId>>,
    pace: Pace,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// A writer is at work.
    running: bool,
}

struct Waiting {
    hash: BlockHash,
    block: Bytes,
    _room: OwnedSemaphorePermit,
}

#[derive(Clone, Copy)]
struct Shared {
    id: FileId,
    end: u64,
}

impl Default for Keeping {
    fn default() -> Self {
        const { assert!(WAITING_MAX_BYTES > BLOCK_MAX_BYTES, "one block must fit") };
        Self {
            queue: Mutex::default(),
            room: Arc::new(Semaphore::new(WAITING_MAX_BYTES / PERMIT_BYTES)),
            file: Mutex::default(),
            taking: Mutex::default(),
            pace: Pace::default(),
        }
    }
}

impl BlockCache {
    /// Has a verified block written, which is in memory as unwritten. Waits while too much waits.
    pub(super) async fn keep(self: &Arc<Self>, hash: BlockHash, block: Bytes) {
        let permits = block.len().div_ceil(PERMIT_BYTES) as u32;
        let room = self.keeping.room.clone().acquire_many_owned(permits).await;
        let room = room.expect("never closed");
        let start = {
            let mut queue = lock(&self.keeping.queue);
            queue.waiting.push_back(Waiting { hash, block, _room: room });
            !std::mem::replace(&mut queue.running, true)
        };
        if start {
            let this = self.clone();
            host::detach(&tokio::runtime::Handle::current(), move || this.write_waiting());
        }
    }

    /// Writes until nothing waits.
    fn write_waiting(&self) {
        let mut writer = RunWriter::default();
        loop {
            let batch = {
                let mut queue = lock(&self.keeping.queue);
                let mut bytes = 0;
                let fits = |w: &&Waiting| {
                    bytes += w.block.len();
                    bytes <= BATCH_BYTES
                };
                let n = queue.waiting.iter().take(BATCH_BLOCKS).take_while(fits).count().max(1);
                let n = n.min(queue.waiting.len());
                if n == 0 {
                    queue.running = false;
                    return;
                }
                queue.waiting.drain(..n).collect::<Vec<_>>()
            };
            // A full disk must not fail the read: the block was served all the same.
            let written = self.write_batch(&batch, &mut writer).and(self.close_full_files());
            if let Err(error) = written {
                tracing::warn!(%error, "could not keep fetched blocks");
            }
            self.memory.written(batch.iter().map(|one| &one.hash));
        }
    }

    fn write_batch(&self, batch: &[Waiting], writer: &mut RunWriter) -> Result<(), CacheError> {
        let bytes = batch.iter().map(|w| w.block.len() as u64).sum();
        if !self.make_room(bytes)? {
            return Ok(());
        }
        let mut placed = Vec::with_capacity(batch.len());
        let mut runs: Vec<Run<'_>> = Vec::new();
        for one in batch {
            let on_a_page =
                one.block.len() >= ALIGNED_FROM || (runs.is_empty() && bytes >= DIRECT_FROM);
            let (file_id, offset) = self.next_place(one.block.len(), on_a_page)?;
            if runs.last().is_none_or(|run| run.file != file_id) {
                runs.push(Run { file: file_id, blocks: Vec::new() });
            }
            runs.last_mut().expect("pushed above").blocks.push((offset, &one.block));
            placed.push(CachedBlock {
                hash: one.hash,
                file: file_id,
                offset,
                len: one.block.len() as u32,
                unsent: false,
            });
        }
        for run in &runs {
            writer.write(&self.files, run, &self.keeping.pace)?;
        }
        self.db.write(|c| self.index(c, &placed))?;
        // They were verified when they were fetched. Where another copy was first, that one counts.
        let mut verified = lock(&self.verified);
        for p in &placed {
            if verified.peek(&p.hash).is_none() {
                verified.put(p.hash, (p.file, p.offset, p.len));
            }
        }
        drop(verified);
        // What was evicted between the transaction and now must not be found.
        for p in &placed {
            let row = self.db.peek(|c| c.cached(&p.hash))?;
            if row.is_none_or(|r| (r.file, r.offset) != (p.file, p.offset)) {
                let mut verified = lock(&self.verified);
                if verified.peek(&p.hash) == Some(&(p.file, p.offset, p.len)) {
                    verified.pop(&p.hash);
                }
            }
        }
        Ok(())
    }

    /// Where the next fetched block goes.
    fn next_place(&self, len: usize, on_a_page: bool) -> Result<(FileId, u64), CacheError> {
        let most = FILE_BYTES.min(self.limit / FILES_MIN);
        let now = *lock(&self.keeping.file);
        let file = match now.filter(|file| file.end < most) {
            Some(file) => file,
            None => {
                let id = shared_id(self.files.allocate(&self.db)?);
                lock(&self.keeping.taking).insert(id);
                self.files.create(id)?;
                Shared { id, end: 0 }
            }
        };
        let offset = if on_a_page { file.end.next_multiple_of(PAGE) } else { file.end };
        let next = Shared { id: file.id, end: offset + len as u64 };
        *lock(&self.keeping.file) = Some(next);
        Ok((file.id, offset))
    }

    /// True for data files that fetched blocks go to: no row may name them yet.
    pub(super) fn takes_blocks(&self, id: FileId) -> bool {
        lock(&self.keeping.taking).contains(&id)
    }

    /// Files that take no more blocks go when the blocks that they took are gone already.
    fn close_full_files(&self) -> Result<(), CacheError> {
        let now = lock(&self.keeping.file).map(|file| file.id);
        let full: Vec<FileId> = {
            let mut taking = lock(&self.keeping.taking);
            taking.extract_if(.., |id| Some(*id) != now).collect()
        };
        for id in full {
            if !self.db.peek(|c| c.is_file_cached(id))? {
                self.files.remove(id)?;
            }
        }
        Ok(())
    }

    pub(super) fn next_use(&self) -> u64 {
        self.use_counter.fetch_add(1, Ordering::Relaxed)
    }
}
