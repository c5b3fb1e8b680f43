//! The content of one file: layers of written bytes over the blocks of a manifest.
//!
//! `live` takes writes; `frozen` is a live layer that stopped to take them so that it can be
//! chunked; below both lies the manifest. Reads compose the three. The lock is held while a read
//! is planned, not while bytes move, except for a write's own copy to the local file.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::RwLockReadGuard;
use std::sync::RwLockWriteGuard;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use drivefs_core::id::BlockHash;
use drivefs_core::id::NamespaceId;
use drivefs_core::manifest::Entry;
use drivefs_core::manifest::Root;
use drivefs_core::node::TimeNs;

use super::ahead::Streams;
use super::layer::Layer;
use crate::cache::Slice;
use crate::state::Nid;

/// A piece of a planned read.
#[derive(Debug, Clone)]
pub enum Piece {
    /// Bytes of a layer; past its end they are zeros.
    Local {
        data: Arc<Slice>,
        offset: u64,
    },
    Block {
        hash: BlockHash,
        within: u32,
    },
    Zeros,
}

/// The entries of a manifest with their offsets, for look-up by position.
#[derive(Debug)]
pub struct BlockMap {
    pub entries: Vec<Entry>,
    /// `starts[i]` is the content offset of entry i.
    starts: Vec<u64>,
}

impl BlockMap {
    pub fn new(entries: Vec<Entry>) -> Self {
        let mut at = 0;
        let starts = entries
            .iter()
            .map(|e| {
                let start = at;
                at += u64::from(e.len);
                start
            })
            .collect();
        Self { entries, starts }
    }

    /// Index of the entry that holds `offset`.
    pub fn find(&self, offset: u64) -> Option<usize> {
        let i = self.starts.partition_point(|&s| s <= offset).checked_sub(1)?;
        (offset < self.starts[i] + u64::from(self.entries[i].len)).then_some(i)
    }

    pub fn start(&self, index: usize) -> u64 {
        self.starts[index]
    }

    /// Where entry `index` starts; of one past the last, the end of the content.
    pub fn offset(&self, index: usize) -> u64 {
        self.starts.get(index).copied().unwrap_or_else(|| self.end())
    }

    /// Index of the first entry that starts at `offset` or behind it; one past the last if none.
    pub fn first_from(&self, offset: u64) -> usize {
        self.starts.partition_point(|&s| s < offset)
    }

    /// Length of the content (bytes).
    pub fn end(&self) -> u64 {
        self.entries.last().map_or(0, |e| self.starts[self.starts.len() - 1] + u64::from(e.len))
    }
}

/// What lies under the layers.
#[derive(Clone)]
pub struct Base {
    pub root: Arc<Root>,
    /// Loaded at the first read that needs it.
    pub map: Option<Arc<BlockMap>>,
}

impl Base {
    pub fn new(root: Root) -> Self {
        let map = match &root {
            Root::Inline(entries) => Some(Arc::new(BlockMap::new(entries.clone()))),
            Root::Segmented(_) => None,
        };
        Self { root: Arc::new(root), map }
    }
}

/// The parts of a content, under its lock.
pub struct Parts {
    pub size: u64,
    pub live: Option<Layer>,
    pub frozen: Option<Layer>,
    pub base: Base,
    /// Where it was when its names went to a newer remote state: the next write makes it a
    /// conflict file there.
    pub superseded: Option<Vec<(Nid, Vec<u8>)>>,
    /// When this process last wrote, while the database does not know it yet.
    pub mtime: Option<TimeNs>,
    /// The size in the database is behind.
    pub unsaved: bool,
    /// A program set the time after the last write: the next write tells the database at once, so
    /// that the old time is not what a crash leaves.
    pub time_was_set: bool,
}

/// The content of one file node, shared by all who have it open.
pub struct Content {
    pub nid: Nid,
    pub ns: NamespaceId,
    parts: RwLock<Parts>,
    /// Open handles that may write.
    pub writers: AtomicU64,
    /// The file has set-user-ID or set-group-ID, which a write by others takes away.
    pub suid: AtomicBool,
    /// The file has capabilities. The kernel asks for them before the first write to each file.
    pub capability: AtomicBool,
    /// Held while layers become blocks: two at once would see each other's half-done work.
    pub(super) freezing: Mutex<()>,
    /// A program asked for this content to survive power loss: turning layers into blocks must not
    /// undo that.
    pub(super) synced: AtomicBool,
    /// Who reads here, to notice sequential reading.
    streams: Mutex<Streams>,
}

/// The manifest's blocks have to be loaded first.
#[derive(Debug, PartialEq, Eq)]
pub struct NeedsMap;

impl Content {
    pub fn new(nid: Nid, ns: NamespaceId, parts: Parts) -> Self {
        Self {
            nid,
            ns,
            parts: RwLock::new(parts),
            writers: AtomicU64::new(0),
            suid: AtomicBool::new(false),
            capability: AtomicBool::new(false),
            freezing: Mutex::new(()),
            synced: AtomicBool::new(false),
            streams: Mutex::default(),
        }
    }

    pub(super) fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn parts(&self) -> RwLockReadGuard<'_, Parts> {
        self.parts.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn parts_mut(&self) -> RwLockWriteGuard<'_, Parts> {
        self.parts.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn size(&self) -> u64 {
        self.parts().size
    }

    /// True while an earlier freeze has not come to its end: the next one takes nothing newer.
    pub fn has_frozen(&self) -> bool {
        self.parts().frozen.is_some()
    }

    pub fn has_writers(&self) -> bool {
        self.writers.load(Ordering::Relaxed) > 0
    }
}

impl Parts {
    /// Plans a read of the present content; what lies past its end is cut off.
    pub fn plan(&self, range: Range<u64>) -> Result<Vec<(Range<u64>, Piece)>, NeedsMap> {
        let mut out = Vec::new();
        let range = range.start..range.end.min(self.size);
        if !range.is_empty() {
            self.plan_live(range, &mut out)?;
        }
        Ok(out)
    }

    /// Plans a read of the frozen content alone.
    pub fn plan_frozen(&self, range: Range<u64>) -> Result<Vec<(Range<u64>, Piece)>, NeedsMap> {
        let mut out = Vec::new();
        self.plan_below(range, &mut out)?;
        Ok(out)
    }

    fn plan_live(
        &self,
        range: Range<u64>,
        out: &mut Vec<(Range<u64>, Piece)>,
    ) -> Result<(), NeedsMap> {
        match &self.live {
            None => self.plan_below(range, out),
            Some(layer) => plan_layer(layer, range, out, |r, out| self.plan_below(r, out)),
        }
    }

    fn plan_below(
        &self,
        range: Range<u64>,
        out: &mut Vec<(Range<u64>, Piece)>,
    ) -> Result<(), NeedsMap> {
        match &self.frozen {
            None => self.plan_base(range, out),
            Some(layer) => plan_layer(layer, range, out, |r, out| self.plan_base(r, out)),
        }
    }

    fn plan_base(
        &self,
        range: Range<u64>,
        out: &mut Vec<(Range<u64>, Piece)>,
    ) -> Result<(), NeedsMap> {
        let map = self.base.map.as_ref().ok_or(NeedsMap)?;
        let mut at = range.start;
        let mut index = map.find(at);
        while let Some(i) = index.filter(|_| at < range.end) {
            let entry = map.entries[i];
            let start = map.start(i);
            let end = (start + u64::from(entry.len)).min(range.end);
            let piece = Piece::Block { hash: entry.hash, within: (at - start) as u32 };
            out.push((at..end, piece));
            at = end;
            index = (i + 1 < map.entries.len()).then_some(i + 1);
        }
        if at < range.end {
            out.push((at..range.end, Piece::Zeros));
        }
        Ok(())
    }
}

fn plan_layer(
    layer: &Layer,
    range: Range<u64>,
    out: &mut Vec<(Range<u64>, Piece)>,
    below: impl Fn(Range<u64>, &mut Vec<(Range<u64>, Piece)>) -> Result<(), NeedsMap>,
) -> Result<(), NeedsMap> {
    let local = |r: Range<u64>| {
        let offset = r.start;
        (r, Piece::Local { data: layer.data.clone(), offset })
    };
    let Some(over) = &layer.over else {
        out.push(local(range));
        return Ok(());
    };
    for (part, covered) in over.covered.split(range) {
        if covered {
            out.push(local(part));
            continue;
        }
        let seen = part.start.min(over.visible)..part.end.min(over.visible);
        if !seen.is_empty() {
            below(seen, out)?;
        }
        let hidden = part.start.max(over.visible)..part.end;
        if !hidden.is_empty() {
            out.push((hidden, Piece::Zeros));
        }
    }
    Ok(())
}

/// Why content could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error(transparent)]
    Db(#[from] crate::state::DbError),
    #[error("local disk: {0}")]
    Disk(#[from] io::Error),
    #[error(transparent)]
    Cache(#[from] crate::cache::CacheError),
    #[error("a manifest is damaged: {0}")]
    Manifest(#[from] drivefs_core::manifest::ManifestError),
    /// The node was deleted.
    #[error("no such file")]
    Gone,
    /// The name shows a newer remote state; this content must become a conflict file first.
    #[error("superseded by a remote change")]
    Superseded,
    #[error("file is over the limit of {0} bytes")]
    TooLarge(u64),
}

impl SpoolError {
    /// True when the local disk had no room.
    pub fn is_disk_full(&self) -> bool {
        use crate::cache::CacheError;
        use crate::state::DbError;
        match self {
            Self::Db(DbError::Full) | Self::Cache(CacheError::Db(DbError::Full)) => true,
            Self::Disk(e) | Self::Cache(CacheError::Disk(e)) => {
                matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }
}
