//! Packs in the object store: put whole, read by range.
//!
//! For the local folder durability is the object store's `with_fsync` (0.14 syncs the staged file
//! before the rename and the folder after it). The fan-out folders are made and synced at start, so
//! that no upload relies on a folder another one is just making.

use std::error::Error;
use std::fs;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

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
    space: Space,
}

impl BlockStore {
    /// Packs in a local folder, which is made where it is not there. Blocks: for start-up.
    pub fn open_local(dir: &Path, min_free_bytes: u64) -> Result<Self, BlocksError> {
        make_folders(dir)
            .map_err(|e| BlocksError::Store(format!("cannot use {}: {e}", dir.display())))?;
        let objects = LocalFileSystem::new_with_prefix(dir).map_err(error_of)?.with_fsync(true);
        Ok(Self { objects: Arc::new(objects), space: Space::new(dir, min_free_bytes) })
    }

    /// Packs in memory, as long as one clone of this lives: for simulations.
    pub fn in_memory() -> Self {
        let space = Space::new(Path::new("/"), 0);
        Self { objects: Arc::new(InMemory::new()), space }
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

    /// All packs with their lengths, and names of objects that are no packs.
    pub async fn survey(&self) -> Result<(Vec<Stored>, Vec<String>), BlocksError> {
        let mut objects = self.objects.list(None);
        let (mut packs, mut others) = (Vec::new(), Vec::new());
        while let Some(meta) = objects.try_next().await.map_err(error_of)? {
            match meta.location.filename().and_then(|name| name.parse().ok()) {
                Some(pack) if meta.location == path_of(pack) => packs.push(Stored {
                    pack,
                    size: meta.size,
                    modified: meta.last_modified.timestamp(),
                }),
                _ => others.push(meta.location.to_string()),
            }
        }
        Ok((packs, others))
    }

    /// A whole pack; none where there is no such object.
    pub async fn whole(&self, pack: PackId) -> Result<Option<Bytes>, BlocksError> {
        let found = match self.objects.get(&path_of(pack)).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            found => found.map_err(error_of)?,
        };
        found.bytes().await.map(Some).map_err(error_of)
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

    /// Reads ranges of a pack, in the order asked.
    pub async fn read(
        &self,
        pack: PackId,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>, BlocksError> {
        self.objects.get_ranges(&path_of(pack), ranges).await.map_err(error_of)
    }
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
