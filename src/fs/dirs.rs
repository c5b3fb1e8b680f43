//! Reading folders.
//!
//! A handle reads in chunks by name order and remembers where each chunk began, so any offset the
//! kernel asks for is found again, and a folder of a million entries costs one chunk of memory.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use drivefs_core::node::NodeKind;

use super::Attr;
use super::DriveFs;
use super::lock;
use crate::spool::is_past;
use crate::state::Nid;
use crate::state::Node;
use crate::state::NodeEntry;
use crate::tree::RenameMode;
use crate::tree::Tree;
use crate::tree::TreeError;

/// Entries read at once.
const CHUNK: usize = 512;

/// An open folder.
pub(super) struct DirHandle {
    nid: Nid,
    /// `starts[k]` is the name behind which chunk k begins.
    starts: Vec<Vec<u8>>,
    chunk: usize,
    entries: Vec<NodeEntry>,
    /// How many changes the database had seen when they were read.
    changes: u64,
}

/// One entry as readdir tells it.
#[derive(Debug, Clone)]
pub struct DirEntry {
    pub name: Vec<u8>,
    /// Offset of the entry behind this one.
    pub next: u64,
    pub attr: Attr,
}

impl DriveFs {
    /// Another name for a file.
    pub fn link(&self, nid: Nid, parent: Nid, name: &[u8]) -> Result<Attr, TreeError> {
        if is_past(nid) {
            return Err(TreeError::CrossDevice);
        }
        self.check_present(parent, name)?;
        let unsaved = self.unsaved(nid);
        let node = self.with_room(0, || self.tree.link(nid, parent, name))?;
        Ok(self.attr_of(&node, unsaved))
    }

    pub fn unlink(&self, parent: Nid, name: &[u8]) -> Result<(), TreeError> {
        self.check_present(parent, name)?;
        self.with_room(0, || self.tree.unlink(parent, name))
    }

    /// Removes an empty folder.
    pub fn rmdir(&self, parent: Nid, name: &[u8]) -> Result<(), TreeError> {
        self.check_present(parent, name)?;
        let gone = self.with_room(0, || self.tree.rmdir(parent, name))?;
        self.note_removed(gone);
        Ok(())
    }

    /// Renames; see `Tree::rename`.
    pub fn rename(
        &self,
        parent: Nid,
        name: &[u8],
        new_parent: Nid,
        new_name: &[u8],
        mode: RenameMode,
    ) -> Result<(), TreeError> {
        self.check_present(parent, name)?;
        self.check_present(new_parent, new_name)?;
        let rename = || self.tree.rename(parent, name, new_parent, new_name, mode);
        let gone = self.with_room(0, rename)?;
        self.note_removed(gone);
        Ok(())
    }

    /// A removed folder stays, empty and without links, until the kernel forgets it: it may be
    /// open, or be where a program is.
    fn note_removed(&self, gone: Option<Node>) {
        if let Some(node) = gone.filter(|n| n.kind == NodeKind::Dir) {
            let attr = Attr { links: 0, ..self.attr_of(&node, None) };
            lock(&self.removed).insert(node.nid, attr);
        }
    }

    /// The kernel forgets so many of the times that it was told of an inode: of one in the tree
    /// always all.
    pub fn forget(&self, nid: Nid, lookups: u64) {
        if is_past(nid) {
            return self.past_forget(nid, lookups);
        }
        lock(&self.removed).remove(&nid);
        if self.tree.forget_unnamed(nid)
            && let Err(error) = self.let_go(nid)
        {
            // The next start drops it.
            tracing::warn!(%error, "could not drop a file without a name");
        }
    }

    pub fn opendir(&self, nid: Nid) -> Result<u64, TreeError> {
        if !self.getattr(nid)?.kind.is_folder() {
            return Err(TreeError::NotDir);
        }
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        // Of a mount node the namespace it leads to, which may have come here meanwhile.
        let nid = self.tree.node(nid).map_or(nid, |node| node.nid);
        let (starts, chunk, entries) = (vec![Vec::new()], usize::MAX, Vec::new());
        let dir = DirHandle { nid, starts, chunk, entries, changes: 0 };
        lock(&self.dirs).insert(handle, Arc::new(Mutex::new(dir)));
        Ok(handle)
    }

    /// Calls `emit` for each entry from `offset` on until it returns false or the end is reached.
    /// `counts`: the kernel takes entries as looked up.
    pub fn readdir(
        &self,
        handle: u64,
        offset: u64,
        counts: bool,
        mut emit: impl FnMut(DirEntry) -> bool,
    ) -> Result<(), TreeError> {
        if let Some(read) = self.past_readdir(handle, offset, counts, &mut emit) {
            return read;
        }
        let dir = lock(&self.dirs).get(&handle).cloned().ok_or(TreeError::NotFound)?;
        let mut dir = lock(&dir);
        if offset == 0 {
            dir.chunk = usize::MAX;
            let attr = self.getattr(dir.nid)?;
            if !emit(DirEntry { name: b".".to_vec(), next: 1, attr }) {
                return Ok(());
            }
        }
        if offset <= 1 {
            // The kernel knows the parent itself; the number only has to be some folder's.
            let attr = self.getattr(dir.nid)?;
            if !emit(DirEntry { name: b"..".to_vec(), next: 2, attr }) {
                return Ok(());
            }
        }
        let mut index = offset.saturating_sub(2) as usize;
        while dir.load(&self.tree, index / CHUNK)? {
            let Some(entry) = dir.entries.get(index % CHUNK) else { break };
            // What went meanwhile is told as it was.
            let attr = match self.attr_since(&entry.node, dir.changes) {
                Err(TreeError::NotFound) => self.attr_of(&entry.node, None),
                attr => attr?,
            };
            let next = index as u64 + 3;
            if !emit(DirEntry { name: entry.name.clone(), next, attr }) {
                break;
            }
            index += 1;
        }
        Ok(())
    }

    pub fn releasedir(&self, handle: u64) {
        lock(&self.dirs).remove(&handle);
        self.past_releasedir(handle);
    }
}

impl DirHandle {
    /// Makes `chunk` the current one; false past the end.
    fn load(&mut self, tree: &Tree, chunk: usize) -> Result<bool, TreeError> {
        while self.chunk != chunk {
            // A jump ahead walks there; only a seekdir of an offset never given does that.
            let k = chunk.min(self.starts.len() - 1);
            self.changes = tree.changes();
            let entries = tree.list(self.nid, &self.starts[k], CHUNK)?;
            self.chunk = k;
            self.entries = entries;
            if self.entries.len() == CHUNK && self.starts.len() == k + 1 {
                let last = self.entries[CHUNK - 1].name.clone();
                self.starts.push(last);
            }
            if k < chunk && self.entries.len() < CHUNK {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
