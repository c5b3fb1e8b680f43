//! The spool: bytes that were written here and are not on the server yet, and how they read
//! together with what is.
//!
//! `Content` is one file; `write` and `read` are its operations; `freeze` turns layers into blocks
//! of the cache that wait to be sent. The death of the process loses nothing that a write
//! acknowledged; power loss nothing that `sync` acknowledged.

mod ahead;
mod content;
mod freeze;
mod holdings;
mod layer;
mod past;
mod ranges;
mod read;
mod refer;
mod replace;
mod sparse;
mod write;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::Weak;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use drivefs_core::limits::FILE_MAX_BYTES_DEFAULT;
use drivefs_core::manifest::Root;

use crate::cache::BlockCache;
use crate::host;
use crate::journal::Journal;
use crate::state::Db;
use crate::state::Nid;
use crate::state::Node;

pub use content::Base;
pub use content::BlockMap;
pub use content::Content;
use content::Parts;
pub use content::SpoolError;
pub use holdings::Holdings;
use layer::Layer;
pub use past::is_past;
pub use past::past_nid;
pub use refer::Still;

/// How long the time of a write is remembered.
const WRITTEN_KEPT: Duration = Duration::from_secs(60);
/// File capabilities, which do not survive a write.
pub const CAPABILITY_XATTR: &str = "security.capability";
/// Set-user-ID and set-group-ID.
const SUID_BITS: u32 = 0o6000;

/// All contents of the drive; those in use are in memory.
pub struct Spool {
    db: Arc<Db>,
    cache: Arc<BlockCache>,
    journal: Arc<Journal>,
    contents: Mutex<HashMap<Nid, Weak<Content>>>,
    /// When files were last written that may not be in memory any more.
    written: Mutex<HashMap<Nid, Instant>>,
    file_max: AtomicU64,
    runtime: tokio::runtime::Handle,
}

impl Spool {
    pub fn new(
        db: Arc<Db>,
        cache: Arc<BlockCache>,
        journal: Arc<Journal>,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        Self {
            db,
            cache,
            journal,
            contents: Mutex::default(),
            written: Mutex::default(),
            file_max: AtomicU64::new(FILE_MAX_BYTES_DEFAULT),
            runtime,
        }
    }

    pub fn cache(&self) -> &Arc<BlockCache> {
        &self.cache
    }

    /// Where work that nobody waits for runs.
    pub fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }

    /// Sets the largest file that the server takes (bytes).
    pub fn set_file_max(&self, bytes: u64) {
        self.file_max.store(bytes, Ordering::Relaxed);
    }

    pub fn file_max(&self) -> u64 {
        self.file_max.load(Ordering::Relaxed)
    }

    /// The content of a file node, loaded if need be. Whoever asks twice gets the same.
    pub fn content(&self, nid: Nid) -> Result<Arc<Content>, SpoolError> {
        if let Some(content) = self.loaded(nid) {
            return Ok(content);
        }
        // The row is read under the lock: an older one would show layers that are gone. The
        // database comes first, as everywhere where both are held.
        self.db.peek(|c| {
            let mut contents = self.lock();
            if let Some(content) = contents.get(&nid).and_then(Weak::upgrade) {
                return Ok(content);
            }
            let node = c.node(nid)?.ok_or(SpoolError::Gone)?;
            let content = Arc::new(self.load(&node)?);
            contents.insert(nid, Arc::downgrade(&content));
            Ok(content)
        })
    }

    /// The content of a file that is being made, inside its transaction: nobody else knows it yet.
    pub fn fresh(&self, node: &Node) -> Result<Arc<Content>, SpoolError> {
        let content = Arc::new(self.load(node)?);
        self.lock().insert(node.nid, Arc::downgrade(&content));
        Ok(content)
    }

    /// The content, if somebody has it in use.
    pub fn loaded(&self, nid: Nid) -> Option<Arc<Content>> {
        self.lock().get(&nid).and_then(Weak::upgrade)
    }

    /// Time since this process last wrote to a file; none when it did not lately.
    pub fn quiet(&self, nid: Nid) -> Option<Duration> {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.get(&nid).map(|at| host::since(*at))
    }

    fn note_write(&self, nid: Nid) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.insert(nid, host::instant());
    }

    /// Drops the entries of contents that nobody uses any more.
    pub fn forget_unused(&self) {
        self.lock().retain(|_, c| c.strong_count() > 0);
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.retain(|_, at| host::since(*at) < WRITTEN_KEPT);
    }

    /// Drops one entry when nobody uses it.
    pub fn forget(&self, nid: Nid) {
        let mut contents = self.lock();
        if contents.get(&nid).is_some_and(|c| c.strong_count() == 0) {
            contents.remove(&nid);
        }
    }

    fn load(&self, node: &Node) -> Result<Content, SpoolError> {
        let files = self.cache.files();
        let root = match &node.content {
            Some(bytes) => Root::decode(bytes)?,
            None => Root::empty(),
        };
        let mut below = root.size();
        let base = Base::new(root);
        let mut open = |layer: Option<(u64, bool)>| -> Result<Option<Layer>, SpoolError> {
            let Some((id, over)) = layer else { return Ok(None) };
            let layer = Layer::recover(files, id, over.then_some(below))?;
            below = layer.size;
            Ok(Some(layer))
        };
        let frozen = open(node.frozen)?;
        let live = open(node.live)?;
        // Bytes came after the row was last saved: an earlier process died. Its data file knows when.
        let mtime = match &live {
            Some(layer) if below != node.size => Some(host::modified(&layer.data.file)?),
            _ => None,
        };
        let parts = Parts {
            size: below,
            live,
            frozen,
            base,
            superseded: node.superseded.then(Vec::new),
            mtime,
            unsaved: below != node.size,
            time_was_set: false,
        };
        let content = Content::new(node.nid, node.ns, parts);
        note_privileges(&content, node);
        Ok(content)
    }

    /// Tells an open content what its file may do now, after a change of attributes.
    pub fn note_privileges(&self, node: &Node) {
        if let Some(content) = self.loaded(node.nid) {
            note_privileges(&content, node);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Nid, Weak<Content>>> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn note_privileges(content: &Content, node: &Node) {
    content.suid.store(node.attrs.mode & SUID_BITS != 0, Ordering::Relaxed);
    content.capability.store(node.xattrs.contains_key(CAPABILITY_XATTR), Ordering::Relaxed);
}
