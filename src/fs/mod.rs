//! File system operations, without a kernel: what the mount does, in terms of tree and spool.
//!
//! Never touches the network, except for reads of bytes that are not here. Never waits for fsync,
//! except in `fsync`.

mod attr;
mod conflicts;
mod dirs;
mod files;
mod listing;
mod past;
mod ranges;
mod siblings;
mod xattrs;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;

use crate::remote::Link;
use crate::remote::Remote;
use crate::spool::Spool;
use crate::state::Nid;
use crate::tree::Tree;

pub use attr::Attr;
pub use attr::Owner;
pub use attr::Space;
pub use conflicts::Seen;
pub use dirs::DirEntry;
pub use files::Caller;
pub use files::ReadHere;
pub use past::is_past_folder;
pub use ranges::Allocate;
pub use ranges::Spot;

use dirs::DirHandle;
use files::FileHandle;
use listing::Listings;
use past::Past;
use siblings::Siblings;

/// The drive as a file system.
pub struct DriveFs {
    tree: Arc<Tree>,
    spool: Arc<Spool>,
    /// Whoever mounts: owns what has no owner of its own.
    owner: Owner,
    next_handle: AtomicU64,
    files: Mutex<HashMap<u64, Arc<FileHandle>>>,
    dirs: Mutex<HashMap<u64, Arc<Mutex<DirHandle>>>>,
    /// Folders that were removed and that the kernel has not forgotten: somebody may be in them.
    removed: Mutex<HashMap<Nid, Attr>>,
    space: Mutex<Space>,
    siblings: Arc<Siblings>,
    link: Arc<Link>,
    remote: Remote,
    listings: Listings,
    past: Past,
    /// Folder of this device, told to `drivefs umount` by an attribute of the root.
    home: String,
}

impl DriveFs {
    pub fn new(tree: Arc<Tree>, owner: Owner, remote: Remote, home: String) -> Self {
        Self {
            spool: tree.spool().clone(),
            tree,
            owner,
            next_handle: AtomicU64::new(1),
            files: Mutex::default(),
            dirs: Mutex::default(),
            removed: Mutex::default(),
            space: Mutex::new(Space::default()),
            link: remote.link().clone(),
            remote,
            listings: Listings::default(),
            past: Past::default(),
            siblings: Arc::default(),
            home,
        }
    }

    pub fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    pub fn spool(&self) -> &Arc<Spool> {
        &self.spool
    }

    pub fn remote(&self) -> &Remote {
        &self.remote
    }
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}
