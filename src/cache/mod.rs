//! The block cache: plaintext blocks on local disk, by content hash, least recently used first out.
//!
//! A block is verified against its hash the first time it is read after a start, and after every
//! fetch; a damaged one is dropped and fetched again. Blocks that the server does not hold yet
//! (`unsent`) are never evicted. No lock is held across I/O.

mod evict;
mod fetch;
mod files;
mod slots;

use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use drivefs_core::id::BlockHash;
use lru::LruCache;
use tokio::sync::Notify;
use tokio::sync::Semaphore;

use crate::remote::Remote;
use crate::state::CachedBlock;
use crate::state::Conn;
use crate::state::Db;
use crate::state::DbError;
use crate::state::FileId;

use fetch::InFlight;
pub use files::DataFiles;
pub use slots::SLOT_BYTES;
pub use slots::Slice;
pub use slots::is_slot;
pub use slots::owner_of;
pub use slots::place_of;

/// Verified blocks remembered in memory: some 100 bytes each.
const VERIFIED_MAX: usize = 32 * 1024;
/// Fetches under way at once.
const FETCHES_MAX: usize = 8;

/// Why a block's bytes cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("local disk: {0}")]
    Disk(#[from] io::Error),
    #[error(transparent)]
    Remote(#[from] crate::remote::RemoteError),
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
    in_flight: InFlight,
    fetches: Semaphore,
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
        Ok(Self {
            db,
            files,
            remote,
            verified: Mutex::new(LruCache::new(NonZeroUsize::new(VERIFIED_MAX).expect("not zero"))),
            touched: Mutex::default(),
            in_flight: InFlight::default(),
            fetches: Semaphore::new(FETCHES_MAX),
            use_counter: AtomicU64::new(used + 1),
            bytes: AtomicU64::new(bytes),
            limit,
            grown: Notify::new(),
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

    /// The last failure to get bytes, for `status`; none once a fetch has worked again.
    pub fn trouble(&self) -> Option<String> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note_trouble(&self, what: Option<String>) {
        *self.troubles.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    /// Fills `buf` with bytes of a block from `within` on. False when the block is not here.
    pub fn read_local(
        &self,
        hash: &BlockHash,
        within: u32,
        buf: &mut [u8],
    ) -> Result<bool, CacheError> {
        // A second round happens only when eviction takes the block between look-up and read.
        for _ in 0..3 {
            let Some((file_id, offset, len)) = self.locate(hash)? else { return Ok(false) };
            assert!(within as usize + buf.len() <= len as usize, "reads stay inside their block");
            let file = match self.files.open(file_id) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    lock(&self.verified).pop(hash);
                    self.forget(&CachedBlock {
                        hash: *hash,
                        file: file_id,
                        offset,
                        len,
                        unsent: false,
                    })?;
                    return Ok(false);
                }
                Err(e) => return Err(e.into()),
            };
            file.read_exact_at(buf, offset + u64::from(within))?;
            let still = lock(&self.verified).peek(hash) == Some(&(file_id, offset, len));
            if still {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A whole block, if it is here.
    pub fn get_local(&self, hash: &BlockHash) -> Result<Option<Vec<u8>>, CacheError> {
        let Some((_, _, len)) = self.locate(hash)? else { return Ok(None) };
        let mut block = vec![0; len as usize];
        Ok(self.read_local(hash, 0, &mut block)?.then_some(block))
    }

    /// Where a verified block lies; verifies it when that was not done since the start.
    fn locate(&self, hash: &BlockHash) -> Result<Option<(FileId, u64, u32)>, CacheError> {
        if let Some(at) = lock(&self.verified).get(hash) {
            return Ok(Some(*at));
        }
        let Some(row) = self.db.peek(|c| c.cached(hash))? else { return Ok(None) };
        match self.verify(&row) {
            Ok(true) => {
                let at = (row.file, row.offset, row.len);
                lock(&self.verified).put(*hash, at);
                // Eviction may have taken it while it was verified: then nobody may find it here.
                let now = self.db.peek(|c| c.cached(hash))?;
                if now.is_none_or(|n| (n.file, n.offset) != (row.file, row.offset)) {
                    lock(&self.verified).pop(hash);
                    return Ok(None);
                }
                lock(&self.touched).push((*hash, self.next_use()));
                Ok(Some(at))
            }
            Ok(false) if row.unsent => Err(CacheError::Lost(*hash)),
            Ok(false) => {
                tracing::warn!(block = %hash, "damaged block in the cache, fetching it again");
                self.forget(&row)?;
                Ok(None)
            }
            Err(e) => Err(e.into()),
        }
    }

    fn verify(&self, row: &CachedBlock) -> io::Result<bool> {
        let file = match self.files.open(row.file) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e),
        };
        let mut block = vec![0; row.len as usize];
        match file.read_exact_at(&mut block, row.offset) {
            Ok(()) => Ok(BlockHash::of(&block) == row.hash),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Stores a verified block in a data file of its own.
    pub fn put(&self, hash: &BlockHash, block: &[u8], unsent: bool) -> Result<(), CacheError> {
        let placed = self.write_block(hash, block, unsent)?;
        let added = self.db.change(|c| self.index(c, &[placed]));
        if !matches!(added, Ok(n) if n > 0) {
            // Another copy was first, or the index took nothing: these bytes are of no use.
            self.files.remove(owner_of(placed.file, placed.offset))?;
        }
        added?;
        self.grown.notify_one();
        Ok(())
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

    /// Forgets a block where it lies, and its bytes. What was indexed anew meanwhile stays.
    fn forget(&self, block: &CachedBlock) -> Result<(), CacheError> {
        if !self.db.change(|c| c.forget_cached(block))? {
            return Ok(());
        }
        lock(&self.verified).pop(&block.hash);
        self.bytes.fetch_sub(u64::from(block.len), Ordering::Relaxed);
        self.release(block)
    }

    fn next_use(&self) -> u64 {
        self.use_counter.fetch_add(1, Ordering::Relaxed)
    }
}

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}
