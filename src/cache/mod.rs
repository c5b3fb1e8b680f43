//! The block cache: plaintext blocks on local disk, by content hash, least recently used first out.
//!
//! A block is verified against its hash the first time it is read after a start, and after every
//! fetch; a damaged one is dropped and fetched again. Blocks that the server does not hold yet
//! (`unsent`) are never evicted. No lock is held across I/O.

mod counters;
mod direct;
mod evict;
mod fetch;
mod files;
mod keep;
mod memory;
mod slots;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use drivefs_core::id::BlockHash;
use lru::LruCache;
use rustix::buffer::spare_capacity;
use tokio::sync::Notify;

use crate::remote::Remote;
use crate::state::CachedBlock;
use crate::state::Conn;
use crate::state::Db;
use crate::state::DbError;
use crate::state::FileId;

use counters::Counters;
use fetch::Flights;
use keep::Keeping;
use memory::Memory;

pub use counters::Counts;
pub use evict::Disk;
pub use evict::Dropped;
pub use files::DataFiles;
pub use files::HEAP;
pub use memory::MEMORY_MAX_BYTES;
pub use slots::SLOT_BYTES;
pub use slots::SLOTS;
pub use slots::Slice;
pub use slots::is_slot;
pub use slots::owner_of;
pub use slots::place_of;
pub use slots::read_slot;
pub use slots::slot_id;

/// Verified blocks remembered in memory: some 100 bytes each.
const VERIFIED_MAX: usize = 32 * 1024;

/// Why a block's bytes cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("local disk: {0}")]
    Disk(#[from] io::Error),
    #[error(transparent)]
    Remote(#[from] crate::remote::RemoteError),
    #[error(
        "the cache is full of what has to stay; mount with a larger --cache-size, or free some disk space"
    )]
    NoRoom,
    #[error("block {0} is damaged on this disk and not on the server yet")]
    Lost(BlockHash),
}

/// The cache of one device.
pub struct BlockCache {
    db: Arc<Db>,
    files: DataFiles,
    remote: Option<Remote>,
    /// Where verified blocks lie. Eviction removes a block here before it touches its bytes.
    verified: Mutex<LruCache<BlockHash, (FileId, u64, u32)>>,
    /// Uses that the index does not know yet; see `note_uses`.
    touched: Mutex<Vec<(BlockHash, u64)>>,
    memory: Memory,
    flights: Flights,
    keeping: Keeping,
    counters: Counters,
    /// Held while blocks are evicted.
    evicting: Mutex<()>,
    use_counter: AtomicU64,
    bytes: AtomicU64,
    limit: u64,
    grown: Notify,
    troubles: Mutex<Option<String>>,
}

impl BlockCache {
    /// A cache of at most `limit` bytes of blocks. Without a remote nothing is fetched.
    pub fn open(
        db: Arc<Db>,
        files: DataFiles,
        remote: Option<Remote>,
        limit: u64,
    ) -> Result<Self, CacheError> {
        let (bytes, used) = db.read(|c| Ok::<_, DbError>((c.cached_bytes()?.0, c.max_used()?)))?;
        evict::set_reserve(files.root(), true);
        let grown = Notify::new();
        if bytes > limit {
            // The limit was larger before.
            grown.notify_one();
        }
        Ok(Self {
            db,
            files,
            remote,
            verified: Mutex::new(LruCache::new(NonZeroUsize::new(VERIFIED_MAX).expect("not zero"))),
            touched: Mutex::default(),
            memory: Memory::default(),
            flights: Flights::default(),
            keeping: Keeping::default(),
            counters: Counters::default(),
            evicting: Mutex::default(),
            use_counter: AtomicU64::new(used + 1),
            bytes: AtomicU64::new(bytes),
            limit,
            grown,
            troubles: Mutex::new(None),
        })
    }

    pub fn files(&self) -> &DataFiles {
        &self.files
    }

    /// Bytes of cached blocks, and the limit.
    pub fn usage(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed), self.limit)
    }

    pub fn counts(&self) -> Counts {
        self.counters.counts()
    }

    /// The last failure to get bytes, for `status`; none once a fetch has worked again.
    pub fn trouble(&self) -> Option<String> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note_trouble(&self, what: Option<String>) {
        *self.troubles.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    /// The whole block, if memory has it.
    pub fn in_memory(&self, hash: &BlockHash) -> Option<Bytes> {
        let block = self.memory.get(hash)?;
        self.counters.memory_hits.fetch_add(1, Ordering::Relaxed);
        Some(block)
    }

    /// True when memory has the block; does not count as a use.
    pub fn is_in_memory(&self, hash: &BlockHash) -> bool {
        self.memory.has(hash)
    }

    /// True when a good copy of the block is on this disk.
    pub fn is_on_disk(&self, hash: &BlockHash) -> Result<bool, CacheError> {
        Ok(self.locate(hash)?.is_some())
    }

    /// True when the block is in memory or listed as being on this disk.
    pub fn is_listed(&self, hash: &BlockHash) -> Result<bool, DbError> {
        Ok(self.memory.has(hash)
            || lock(&self.verified).contains(hash)
            || self.db.peek(|c| c.cached(hash))?.is_some())
    }

    /// Appends `len` bytes of a block from `within` on. False when the block is not here.
    pub fn read_local(
        &self,
        hash: &BlockHash,
        within: u32,
        len: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, CacheError> {
        if let Some(block) = self.in_memory(hash) {
            out.extend_from_slice(&block[within as usize..within as usize + len]);
            return Ok(true);
        }
        self.read_disk(hash, within, len, out)
    }

    /// The same from this disk alone.
    pub fn read_disk(
        &self,
        hash: &BlockHash,
        within: u32,
        len: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, CacheError> {
        let end = within as usize + len;
        let had = out.len();
        // A second round happens only when eviction takes the block between look-up and read.
        for _ in 0..3 {
            let Some((file_id, offset, block_len)) = self.locate(hash)? else { return Ok(false) };
            assert!(end <= block_len as usize, "reads stay inside their block");
            let file = match self.files.open(file_id) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    lock(&self.verified).pop(hash);
                    self.forget(&CachedBlock {
                        hash: *hash,
                        file: file_id,
                        offset,
                        len: block_len,
                        unsent: false,
                    })?;
                    return Ok(false);
                }
                Err(e) => return Err(e.into()),
            };
            if read_append(&file, offset + u64::from(within), len, out)? < len {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            // Eviction takes a block out of this table before it touches its bytes.
            let still = lock(&self.verified).peek(hash) == Some(&(file_id, offset, block_len));
            if still {
                self.counters.disk_hits.fetch_add(1, Ordering::Relaxed);
                return Ok(true);
            }
            out.truncate(had);
        }
        Ok(false)
    }

    /// A whole block, if it is here.
    pub fn get_local(&self, hash: &BlockHash) -> Result<Option<Bytes>, CacheError> {
        if let Some(block) = self.in_memory(hash) {
            return Ok(Some(block));
        }
        let Some((_, _, len)) = self.locate(hash)? else { return Ok(None) };
        let mut block = Vec::with_capacity(len as usize);
        let here = self.read_local(hash, 0, len as usize, &mut block)?;
        Ok(here.then(|| block.into()))
    }

    /// Where a verified block lies; verifies it when that was not done since the start.
    fn locate(&self, hash: &BlockHash) -> Result<Option<(FileId, u64, u32)>, CacheError> {
        if let Some(at) = lock(&self.verified).get(hash) {
            return Ok(Some(*at));
        }
        let Some(row) = self.db.peek(|c| c.cached(hash))? else { return Ok(None) };
        match self.verify(&row) {
            Ok(Some(block)) => {
                let at = (row.file, row.offset, row.len);
                lock(&self.verified).put(*hash, at);
                // Eviction may have taken it while it was verified: then nobody may find it here.
                let now = self.db.peek(|c| c.cached(hash))?;
                if now.is_none_or(|n| (n.file, n.offset) != (row.file, row.offset)) {
                    lock(&self.verified).pop(hash);
                    return Ok(None);
                }
                lock(&self.touched).push((*hash, self.next_use()));
                // Whoever asked is about to read it, or more of it.
                self.memory.put(*hash, block);
                Ok(Some(at))
            }
            Ok(None) if row.unsent => Err(CacheError::Lost(*hash)),
            Ok(None) => {
                tracing::warn!(block = %hash, "damaged block in the cache, fetching it again");
                self.forget(&row)?;
                Ok(None)
            }
            Err(e) => Err(e.into()),
        }
    }

    /// The block's bytes, if they are what their name says.
    fn verify(&self, row: &CachedBlock) -> io::Result<Option<Bytes>> {
        let file = match self.files.open(row.file) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut block = Vec::with_capacity(row.len as usize);
        let n = read_append(&file, row.offset, row.len as usize, &mut block)?;
        let good = n == row.len as usize && BlockHash::of(&block) == row.hash;
        Ok(good.then(|| block.into()))
    }

    /// Writes a block's bytes without indexing them; `index` makes them count.
    pub fn write_block(
        &self,
        hash: &BlockHash,
        block: &[u8],
        unsent: bool,
    ) -> Result<CachedBlock, CacheError> {
        let len = block.len() as u64;
        let small = len <= SLOT_BYTES;
        let id = if small {
            self.files.allocate_slot(&self.db)?
        } else {
            self.files.allocate(&self.db)?
        };
        let slice = self.files.open_slice(id)?;
        if let Err(e) = slice.write_at(block, 0, 0, len) {
            self.files.remove(id)?;
            return Err(e.into());
        }
        let file = place_of(id).0;
        Ok(CachedBlock { hash: *hash, file, offset: slice.start, len: block.len() as u32, unsent })
    }

    /// Indexes blocks that lie in data files already, inside the caller's transaction. Returns how
    /// many of them were new.
    pub fn index(&self, c: &Conn<'_>, blocks: &[CachedBlock]) -> Result<usize, DbError> {
        let mut added = 0;
        for block in blocks {
            if c.add_cached(block, self.next_use())? {
                self.bytes.fetch_add(u64::from(block.len), Ordering::Relaxed);
                added += 1;
            }
        }
        if added > 0 {
            self.grown.notify_one();
        }
        Ok(added)
    }

    /// Forgets a block that is damaged although the server does not have it: a good copy is about
    /// to be noted. False: it is not here any more.
    pub fn drop_lost(&self, hash: &BlockHash) -> Result<bool, CacheError> {
        self.db.change(|c| c.mark_sent(hash))?;
        if let Some(row) = self.db.peek(|c| c.cached(hash))? {
            self.forget(&row)?;
        }
        Ok(false)
    }

    /// Forgets a block where it lies, and its bytes. What was indexed anew meanwhile stays.
    fn forget(&self, block: &CachedBlock) -> Result<(), CacheError> {
        if !self.db.change(|c| c.forget_cached(block))? {
            return Ok(());
        }
        lock(&self.verified).pop(&block.hash);
        self.memory.forget(&block.hash);
        self.bytes.fetch_sub(u64::from(block.len), Ordering::Relaxed);
        self.release(block)
    }
}

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Appends up to `len` bytes from `offset` on, fewer only at the end of the file; returns how many.
pub fn read_append(file: &File, offset: u64, len: usize, out: &mut Vec<u8>) -> io::Result<usize> {
    let start = out.len();
    out.reserve(len);
    while out.len() < start + len {
        let at = offset + (out.len() - start) as u64;
        match rustix::io::pread(file, spare_capacity(out), at) {
            Ok(0) => break,
            // The buffer may have room for more than was asked.
            Ok(_) => out.truncate(start + len),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(out.len() - start)
}
