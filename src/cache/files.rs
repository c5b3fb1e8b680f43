//! Data files: numbered files that hold spool layers and cached blocks.
//!
//! Which of the two a file is, the database says. A number is used once.

use std::fs;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use lru::LruCache;

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
const NEXT_KEY: &str = "next_file";

/// The folder of data files.
pub struct DataFiles {
    root: PathBuf,
    numbers: Mutex<std::ops::Range<FileId>>,
    open: Mutex<LruCache<FileId, Arc<File>>>,
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
        })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A number that no file has or ever had.
    pub fn allocate(&self, db: &Db) -> Result<FileId, DbError> {
        if let Some(number) = self.take() {
            return Ok(number);
        }
        db.change(|c| self.allocate_in(c))
    }

    /// The same inside a transaction.
    pub fn allocate_in(&self, c: &Conn<'_>) -> Result<FileId, DbError> {
        if let Some(number) = self.take() {
            return Ok(number);
        }
        let start = c.meta(NEXT_KEY)?.and_then(|v| v.try_into().ok()).map_or(1, u64::from_le_bytes);
        c.set_meta(NEXT_KEY, &(start + RESERVE).to_le_bytes())?;
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        *numbers = start + 1..start + RESERVE;
        Ok(start)
    }

    fn take(&self) -> Option<FileId> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).next()
    }

    fn path(&self, id: FileId) -> PathBuf {
        self.root.join(format!("{:02x}", id % FOLDERS)).join(format!("{id}"))
    }

    /// The log of covered ranges that goes with a layer.
    fn map_path(&self, id: FileId) -> PathBuf {
        self.path(id).with_extension("map")
    }

    /// Creates a data file, or opens it when it is there.
    pub fn create(&self, id: FileId) -> io::Result<Arc<File>> {
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

    pub fn open(&self, id: FileId) -> io::Result<Arc<File>> {
        if let Some(file) = self.open_files().get(&id) {
            return Ok(file.clone());
        }
        let file = Arc::new(File::options().read(true).write(true).open(self.path(id))?);
        self.open_files().put(id, file.clone());
        Ok(file)
    }

    pub fn open_map(&self, id: FileId) -> io::Result<File> {
        File::options().read(true).append(true).create(true).open(self.map_path(id))
    }

    /// Removes a data file and its map, if they are there.
    pub fn remove(&self, id: FileId) -> io::Result<()> {
        self.open_files().pop(&id);
        for path in [self.path(id), self.map_path(id)] {
            match fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    /// True while somebody outside this table holds the file open.
    pub fn is_held(&self, id: FileId) -> bool {
        self.open_files().peek(&id).is_some_and(|f| Arc::strong_count(f) > 1)
    }

    /// Makes the names of new files durable: fsync of the folder that holds `id`.
    pub fn sync_folder(&self, id: FileId) -> io::Result<()> {
        File::open(self.root.join(format!("{:02x}", id % FOLDERS)))?.sync_all()
    }

    /// The numbers of all files of one folder (0 to 255), for the sweep after a crash.
    pub fn list_folder(&self, folder: u64) -> io::Result<Vec<FileId>> {
        let mut out = Vec::new();
        for entry in fs::read_dir(self.root.join(format!("{folder:02x}")))? {
            let name = entry?.file_name();
            let text = name.to_string_lossy();
            let number = text.strip_suffix(".map").unwrap_or(&text);
            out.extend(number.parse::<FileId>());
        }
        Ok(out)
    }

    fn open_files(&self) -> std::sync::MutexGuard<'_, LruCache<FileId, Arc<File>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
