//! Packs in the object store: put whole, read by range.
//!
//! For the local folder durability is the object store's `with_fsync` (0.14 syncs the staged file
//! before the rename and the folder after it). The fan-out folders are made and synced at start, so
//! that no upload relies on a folder another one is just making.

use std::collections::HashSet;
use std::error::Error;
use std::fs;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::ObjectStore;
use object_store::ObjectStoreExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as StorePath;

use drivefs_core::id::PackId;

use super::BlocksError;
use super::space::Space;
use crate::host;

/// An object in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    pub pack: PackId,
    /// Length (bytes).
    pub size: u64,
    /// When it was stored (seconds since the Unix epoch).
    pub modified: i64,
}

/// The store of all packs; clones share it.
#[derive(Clone)]
pub struct BlockStore {
    objects: Arc<dyn ObjectStore>,
    cold: Option<Cold>,
    reads: Arc<Reads>,
    space: Space,
}

/// A second store, for packs that nobody has read for long.
#[derive(Clone)]
struct Cold {
    objects: Arc<dyn ObjectStore>,
    /// Reading from it takes so long that nobody can wait for it.
    slow: bool,
}

/// Packs that were read since this was last asked.
#[derive(Default)]
struct Reads {
    hot: Mutex<HashSet<PackId>>,
    /// Those that were wanted while they were in the second store.
    cold: Mutex<HashSet<PackId>>,
}

/// Most packs noted at once; of more the oldest news is as good as none.
const READS_MAX: usize = 100_000;

fn note(reads: &Mutex<HashSet<PackId>>, pack: PackId) {
    let mut reads = reads.lock().unwrap_or_else(PoisonError::into_inner);
    if reads.len() < READS_MAX {
        reads.insert(pack);
    }
}

fn take(reads: &Mutex<HashSet<PackId>>) -> Vec<PackId> {
    let mut reads = reads.lock().unwrap_or_else(PoisonError::into_inner);
    reads.drain().collect()
}

impl BlockStore {
    /// Packs in a local folder, which is made where it is not there. Blocks: for start-up.
    pub fn open_local(dir: &Path, min_free_bytes: u64) -> Result<Self, BlocksError> {
        make_folders(dir)
            .map_err(|e| BlocksError::Store(format!("cannot use {}: {e}", dir.display())))?;
        let objects = LocalFileSystem::new_with_prefix(dir).map_err(error_of)?.with_fsync(true);
        let space = Space::new(dir, min_free_bytes);
        Ok(Self { objects: Arc::new(objects), cold: None, reads: Arc::default(), space })
    }

    /// With a second store in a local folder. `slow`: reading from it takes so long that packs are
    /// brought back first.
    pub fn with_cold(self, dir: &Path, slow: bool) -> Result<Self, BlocksError> {
        make_folders(dir)
            .map_err(|e| BlocksError::Store(format!("cannot use {}: {e}", dir.display())))?;
        let objects = LocalFileSystem::new_with_prefix(dir).map_err(error_of)?.with_fsync(true);
        Ok(Self { cold: Some(Cold { objects: Arc::new(objects), slow }), ..self })
    }

    pub fn has_cold(&self) -> bool {
        self.cold.is_some()
    }

    /// Packs read since this was last asked: in the first store, and wanted from the second.
    pub fn take_reads(&self) -> (Vec<PackId>, Vec<PackId>) {
        (take(&self.reads.hot), take(&self.reads.cold))
    }

    /// Copies a pack to the second store, where it is on disk when this returns. The first copy
    /// stays.
    pub async fn copy_out(&self, pack: PackId) -> Result<(), BlocksError> {
        let Some(cold) = &self.cold else { return Err(BlocksError::Store(NO_COLD.into())) };
        copy(&*self.objects, &*cold.objects, pack).await
    }

    /// Copies a pack back to the first store.
    pub async fn copy_back(&self, pack: PackId) -> Result<(), BlocksError> {
        let Some(cold) = &self.cold else { return Err(BlocksError::Store(NO_COLD.into())) };
        copy(&*cold.objects, &*self.objects, pack).await
    }

    /// Removes the copy in the first store, or in the second.
    pub async fn drop_copy(&self, pack: PackId, of_first: bool) -> Result<(), BlocksError> {
        match &self.cold {
            _ if of_first => remove(&*self.objects, pack).await,
            Some(cold) => remove(&*cold.objects, pack).await,
            None => Ok(()),
        }
    }

    /// Packs in memory, as long as one clone of this lives: for simulations.
    pub fn in_memory() -> Self {
        let space = Space::new(Path::new("/"), 0);
        Self { objects: Arc::new(InMemory::new()), cold: None, reads: Arc::default(), space }
    }

    /// Names of all packs.
    pub async fn list(&self) -> Result<Vec<PackId>, BlocksError> {
        let found: Vec<_> = self.objects.list(None).try_collect().await.map_err(error_of)?;
        let name = |meta: &object_store::ObjectMeta| meta.location.filename()?.parse().ok();
        Ok(found.iter().filter_map(name).collect())
    }

    /// Room that is left for packs, and all there is (bytes), if that is known.
    pub fn room(&self) -> Option<(u64, u64)> {
        self.space.room()
    }

    /// All packs with their lengths, each once, and names of objects that are no packs.
    pub async fn survey(&self) -> Result<(Vec<Stored>, Vec<String>), BlocksError> {
        let (mut packs, mut others, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
        for objects in self.stores() {
            let mut objects = objects.list(None);
            while let Some(meta) = objects.try_next().await.map_err(error_of)? {
                match meta.location.filename().and_then(|name| name.parse().ok()) {
                    Some(pack) if meta.location == path_of(pack) => {
                        if seen.insert(pack) {
                            packs.push(stored_of(pack, &meta));
                        }
                    }
                    _ => others.push(meta.location.to_string()),
                }
            }
        }
        Ok((packs, others))
    }

    /// A whole pack, from whichever store it is in; none where there is no such object.
    pub async fn whole(&self, pack: PackId) -> Result<Option<Bytes>, BlocksError> {
        // Once more in the first: it may have come back meanwhile.
        for objects in self.stores().chain([&*self.objects]) {
            match objects.get(&path_of(pack)).await {
                Err(object_store::Error::NotFound { .. }) => {}
                found => {
                    let found = found.map_err(error_of)?;
                    return found.bytes().await.map(Some).map_err(error_of);
                }
            }
        }
        Ok(None)
    }

    fn stores(&self) -> impl Iterator<Item = &dyn ObjectStore> {
        let cold = self.cold.as_ref().map(|cold| &*cold.objects);
        std::iter::once(&*self.objects).chain(cold)
    }

    /// Stores a pack. When this returns, it is on disk.
    pub async fn put(&self, pack: PackId, bytes: Vec<u8>) -> Result<(), BlocksError> {
        if !self.space.has_room_for(bytes.len() as u64) {
            return Err(BlocksError::Full);
        }
        host::before_write().map_err(|e| {
            if e.kind() == io::ErrorKind::StorageFull {
                BlocksError::Full
            } else {
                BlocksError::Store(e.to_string())
            }
        })?;
        self.objects.put(&path_of(pack), Bytes::from(bytes).into()).await.map_err(error_of)?;
        Ok(())
    }

    /// Packs in one of the 256 folders, of both stores.
    pub async fn list_folder(&self, folder: u8) -> Result<Vec<Stored>, BlocksError> {
        let prefix = StorePath::from(format!("{folder:02x}"));
        let mut found: Vec<_> =
            self.objects.list(Some(&prefix)).try_collect().await.map_err(error_of)?;
        if let Some(cold) = &self.cold {
            let more: Vec<_> =
                cold.objects.list(Some(&prefix)).try_collect().await.map_err(error_of)?;
            found.extend(more);
        }
        let object = |meta: &object_store::ObjectMeta| {
            let pack = meta.location.filename()?.parse().ok()?;
            Some(stored_of(pack, meta))
        };
        Ok(found.iter().filter_map(object).collect())
    }

    /// Removes a pack, wherever it is; one that is not there is no error.
    pub async fn delete(&self, pack: PackId) -> Result<(), BlocksError> {
        if let Some(cold) = &self.cold {
            remove(&*cold.objects, pack).await?;
        }
        remove(&*self.objects, pack).await
    }

    /// Reads ranges of a pack, in the order asked; from the second store what is not in the first.
    pub async fn read(
        &self,
        pack: PackId,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>, BlocksError> {
        let place = path_of(pack);
        match (self.objects.get_ranges(&place, ranges).await, &self.cold) {
            (Err(object_store::Error::NotFound { .. }), Some(cold)) => {
                // Both copies may have changed places meanwhile.
                if cold.slow && cold.objects.head(&place).await.is_ok() {
                    note(&self.reads.cold, pack);
                    return Err(BlocksError::Cold);
                }
                match cold.objects.get_ranges(&place, ranges).await {
                    Ok(bytes) => {
                        note(&self.reads.cold, pack);
                        Ok(bytes)
                    }
                    Err(object_store::Error::NotFound { .. }) => {
                        self.objects.get_ranges(&place, ranges).await.map_err(error_of)
                    }
                    Err(e) => Err(error_of(e)),
                }
            }
            (Ok(bytes), cold) => {
                if cold.is_some() {
                    note(&self.reads.hot, pack);
                }
                Ok(bytes)
            }
            (Err(e), _) => Err(error_of(e)),
        }
    }
}

const NO_COLD: &str = "this server has no second store: give it with --cold";

/// Copies an object and holds the copy against it. What was copied before may be gone already.
async fn copy(
    from: &dyn ObjectStore,
    to: &dyn ObjectStore,
    pack: PackId,
) -> Result<(), BlocksError> {
    host::before_write().map_err(|e| BlocksError::Store(e.to_string()))?;
    let place = path_of(pack);
    let found = match from.get(&place).await {
        // It was cut off when the copy was there and the original gone.
        Err(object_store::Error::NotFound { .. }) if to.head(&place).await.is_ok() => return Ok(()),
        found => found.map_err(error_of)?,
    };
    let bytes = found.bytes().await.map_err(error_of)?;
    let len = bytes.len() as u64;
    to.put(&place, bytes.into()).await.map_err(error_of)?;
    let copied = to.head(&place).await.map_err(error_of)?.size;
    if copied != len {
        return Err(BlocksError::Store(format!(
            "the copy of {pack} has {copied} bytes, not {len}"
        )));
    }
    Ok(())
}

async fn remove(objects: &dyn ObjectStore, pack: PackId) -> Result<(), BlocksError> {
    host::before_write().map_err(|e| BlocksError::Store(e.to_string()))?;
    match objects.delete(&path_of(pack)).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(e) => Err(error_of(e)),
    }
}

fn stored_of(pack: PackId, meta: &object_store::ObjectMeta) -> Stored {
    Stored { pack, size: meta.size, modified: meta.last_modified.timestamp() }
}

fn path_of(pack: PackId) -> StorePath {
    StorePath::from(format!("{:02x}/{pack}", pack.as_bytes()[15]))
}

fn make_folders(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for fan in 0..=255 {
        match fs::create_dir(dir.join(format!("{fan:02x}"))) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
    }
    File::open(dir)?.sync_all()?;
    dir.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

fn error_of(e: object_store::Error) -> BlocksError {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&e);
    while let Some(inner) = cause {
        let kind = inner.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) {
            return BlocksError::Full;
        }
        cause = inner.source();
    }
    BlocksError::Store(e.to_string())
}
