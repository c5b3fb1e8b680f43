//! How much room the data disk has left.

use std::path::Path;
use std::path::PathBuf;

/// A disk and the room that must stay free on it.
#[derive(Debug, Clone)]
pub struct Space {
    dir: PathBuf,
    min_free_bytes: u64,
}

impl Space {
    pub fn new(dir: &Path, min_free_bytes: u64) -> Self {
        Self { dir: dir.to_owned(), min_free_bytes }
    }

    /// Room that is left, and all there is (bytes), if that is known.
    pub fn room(&self) -> Option<(u64, u64)> {
        let fs = rustix::fs::statvfs(&self.dir).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(fs.f_frsize);
        Some((bytes(fs.f_bavail), bytes(fs.f_blocks)))
    }

    /// True when `need` more bytes leave the required room. An unknown state counts as room: the
    /// write itself will tell.
    pub fn has_room_for(&self, need: u64) -> bool {
        rustix::fs::statvfs(&self.dir).map_or(true, |fs| {
            let free = fs.f_bavail.saturating_mul(fs.f_frsize);
            free >= self.min_free_bytes.saturating_add(need)
        })
    }
}
