//! Data files: numbered files that hold spool layers and cached blocks.
//!
//! Which of the two a file is, the database says. A number is used once. Small contents share
//! files; see `slots`.

use std::fs;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use lru::LruCache;

use super::slots::Slice;
use super::slots::Slots;
use super::slots::heap_id;
use super::slots::is_heap;
use super::slots::is_shared;
use super::slots::is_slot;
use super::slots::number_of;
use super::slots::place_of;
use super::slots::shared_id;
use crate::host;
use crate::state::Conn;
use crate::state::Db;
use crate::state::DbError;
use crate::state::FileId;

/// Open files kept for the next read.
const OPEN_MAX: usize = 512;
/// Folders that the files are spread over.
const FOLDERS: u64 = 256;
/// Numbers reserved at once, so that taking one needs no transaction.
const RESERVE: u64 = 1 << 20;
/// So many are left at the beginning of a transaction that may take some: other threads do too.
const RESERVE_MIN: u64 = 1024;
const NEXT_KEY: &str = "next_file";
/// Extension of heaps.
pub const HEAP: &str = "heap";
/// Extension of files of fetched blocks.
const SHARED: &str = "blocks";

/// The folder of data files.
pub struct DataFiles {
    root: PathBuf,
    numbers: Mutex<std::ops::Range<FileId>>,
    open: Mutex<LruCache<FileId, Arc<File>>>,
    slots: Mutex<Slots>,
}

impl DataFiles {
    /// Opens the folder, creating what is missing.
    pub fn open_dir(root: &Path) -> io::Result<Self> {
        for i in 0..FOLDERS {
            fs::create_dir_all(root.join(format!("{i:02x}")))?;
        }
        Ok(Self {
            root: root.to_owned(),
            numbers: Mutex::new(0..0),
            open: Mutex::new(LruCache::new(NonZeroUsize::new(OPEN_MAX).expect("not zero"))),
            slots: Mutex::default(),
        })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A number that no file has or ever had.
    pub fn allocate(&self, db: &Db) -> Result<FileId, DbError> {
        loop {
            if let Some(number) = self.take() {
                return Ok(number);
            }
            self.reserve(db)?;
        }
    }

    /// Makes sure that slots can be given out inside a transaction. Not in that transaction
    /// itself: if it failed, numbers that are in use would be free again for the next process.
    pub fn reserve(&self, db: &Db) -> Result<(), DbError> {
        let left = self.numbers().clone();
        if left.end - left.start > RESERVE_MIN {
            return Ok(());
        }
        let start = db.change(|c| {
            let start =
                c.meta(NEXT_KEY)?.and_then(|v| v.try_into().ok()).map_or(1, u64::from_le_bytes);
            c.set_meta(NEXT_KEY, &(start + RESERVE).to_le_bytes())?;
            Ok::<_, DbError>(start)
        })?;
        // Power loss must not bring them back either: files under them may have come to the disk.
        db.flush()?;
        *self.numbers() = start..start + RESERVE;
        Ok(())
    }

    /// A slot for a small content, inside a transaction before which `reserve` was asked.
    pub fn allocate_slot_in(&self, _c: &Conn<'_>) -> Result<FileId, DbError> {
        loop {
            if let Some(id) = self.slots().take() {
                return Ok(id);
            }
            let number = self.take().ok_or_else(|| DbError::Other("no file number".into()))?;
            self.slots().start_heap(number);
        }
    }

    /// The same outside of one.
    pub fn allocate_slot(&self, db: &Db) -> Result<FileId, DbError> {
        loop {
            if let Some(id) = self.slots().take() {
                return Ok(id);
            }
            let number = self.allocate(db)?;
            self.slots().start_heap(number);
        }
    }

    fn numbers(&self) -> std::sync::MutexGuard<'_, std::ops::Range<FileId>> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<FileId> {
        self.numbers().next()
    }

    fn path(&self, id: FileId) -> PathBuf {
        let number = number_of(id);
        let name = if is_heap(id) {
            format!("{number}.{HEAP}")
        } else if is_shared(id) {
            format!("{number}.{SHARED}")
        } else {
            format!("{number}")
        };
        self.folder_path(number).join(name)
    }

    fn folder_path(&self, number: FileId) -> PathBuf {
        self.root.join(format!("{:02x}", number % FOLDERS))
    }

    /// The log of covered ranges that goes with a layer.
    fn map_path(&self, id: FileId) -> PathBuf {
        self.path(id).with_extension("map")
    }

    /// Creates a data file, or opens it when it is there.
    pub fn create(&self, id: FileId) -> io::Result<Arc<File>> {
        host::before_write()?;
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.path(id))?;
        let file = Arc::new(file);
        self.open_files().put(id, file.clone());
        Ok(file)
    }

    /// Opens a layer or block for reading and writing, creating what is missing.
    pub fn open_slice(&self, id: FileId) -> io::Result<Arc<Slice>> {
        if !is_slot(id) {
            return Ok(Arc::new(Slice::new(id, self.create(id)?)));
        }
        if let Some(slice) = self.slots().slice(id) {
            return Ok(slice);
        }
        let heap = place_of(id).0;
        let file = match self.open(heap) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.create(heap)?,
            other => other?,
        };
        let slice = Arc::new(Slice::new(id, file));
        self.slots().opened(id, &slice);
        Ok(slice)
    }

    pub fn open(&self, id: FileId) -> io::Result<Arc<File>> {
        if let Some(file) = self.open_files().get(&id) {
            return Ok(file.clone());
        }
        let file = Arc::new(File::options().read(true).write(true).open(self.path(id))?);
        self.open_files().put(id, file.clone());
        Ok(file)
    }

    /// Opens a data file for writes past the page cache (O_DIRECT).
    pub fn open_direct(&self, id: FileId) -> io::Result<File> {
        File::options().write(true).custom_flags(libc::O_DIRECT).open(self.path(id))
    }

    pub fn open_map(&self, id: FileId) -> io::Result<File> {
        File::options().read(true).append(true).create(true).open(self.map_path(id))
    }

    /// Removes a data file and its map, if they are there. A slot is given back later, with others
    /// of its heap (`take_retired`).
    pub fn remove(&self, id: FileId) -> io::Result<()> {
        if is_slot(id) {
            self.slots().retire(id);
            return Ok(());
        }
        self.open_files().pop(&id);
        for path in [self.path(id), self.map_path(id)] {
            match fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    /// Slots whose bytes can be given back, and heaps that nothing in this process refers to.
    pub(super) fn take_retired(&self) -> (Vec<FileId>, Vec<FileId>) {
        self.slots().take_retired()
    }

    /// Takes back what `take_retired` gave and could not be done.
    pub(super) fn retire_again(&self, slots: &[FileId]) {
        let mut table = self.slots();
        slots.iter().for_each(|id| table.retire(*id));
    }

    /// True while somebody outside this table holds the file, or slot, open.
    pub fn is_held(&self, id: FileId) -> bool {
        if is_slot(id) {
            return self.slots().slice(id).is_some();
        }
        self.open_files().peek(&id).is_some_and(|f| Arc::strong_count(f) > 1)
    }

    /// Makes the names of new files durable: fsync of the folder that holds `id`.
    pub fn sync_folder(&self, id: FileId) -> io::Result<()> {
        File::open(self.folder_path(number_of(id)))?.sync_all()
    }

    /// The numbers of all files of one folder (0 to 255), for the sweep after a crash.
    pub fn list_folder(&self, folder: u64) -> io::Result<Vec<FileId>> {
        let mut out = Vec::new();
        for entry in fs::read_dir(self.root.join(format!("{folder:02x}")))? {
            let name = entry?.file_name();
            let text = name.to_string_lossy();
            let (stem, kind) = text.split_once('.').unwrap_or((&text, ""));
            let number = stem.parse::<FileId>();
            out.extend(number.map(|n| match kind {
                HEAP => heap_id(n),
                SHARED => shared_id(n),
                _ => n,
            }));
        }
        Ok(out)
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_files(&self) -> std::sync::MutexGuard<'_, LruCache<FileId, Arc<File>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
