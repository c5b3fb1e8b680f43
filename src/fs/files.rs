//! Files: make, open, read, write, close.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use drivefs_core::node::NodeKind;

use super::Attr;
use super::DriveFs;
use super::lock;
use crate::spool::Content;
use crate::spool::SpoolError;
use crate::spool::is_past;
use crate::state::Nid;
use crate::state::Node;
use crate::tree::NewNode;
use crate::tree::TreeError;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
}

/// An open file.
pub(super) struct FileHandle {
    content: Arc<Content>,
    writes: bool,
}

/// A read that was tried without the network.
pub enum ReadHere {
    Bytes(Bytes),
    /// Some of it is on the server only.
    Elsewhere(Arc<Content>),
}

impl DriveFs {
    /// Makes a node that is no regular file, or a file that is not opened.
    pub fn make(
        &self,
        parent: Nid,
        name: &[u8],
        caller: Caller,
        new: NewNode,
    ) -> Result<Attr, TreeError> {
        self.check_present(parent, name)?;
        let new = self.with_owner(caller, new);
        let node = self.with_room(0, || self.tree.make(parent, name, new.clone()))?;
        Ok(self.attr_of(&node, None))
    }

    /// Makes a file and opens it for writing.
    pub fn create(
        &self,
        parent: Nid,
        name: &[u8],
        caller: Caller,
        mode: u32,
    ) -> Result<(Attr, u64), TreeError> {
        self.check_present(parent, name)?;
        let new = self.with_owner(caller, new_file(mode));
        let (node, content) =
            self.with_room(0, || self.tree.make_file(parent, name, new.clone()))?;
        let handle = self.open_content(content, true);
        Ok((self.attr_of(&node, None), handle))
    }

    /// Makes a file without a name and opens it for writing.
    pub fn tmpfile(
        &self,
        parent: Nid,
        caller: Caller,
        mode: u32,
    ) -> Result<(Attr, u64), TreeError> {
        self.check_present(parent, b"")?;
        let new = self.with_owner(caller, new_file(mode));
        let (node, content) = self.with_room(0, || self.tree.make_unnamed(parent, new.clone()))?;
        let handle = self.open_content(content, true);
        Ok((self.attr_of(&node, None), handle))
    }

    /// Owner and group of something new: the caller's, but none of its own where that is whoever
    /// mounts.
    fn with_owner(&self, caller: Caller, mut new: NewNode) -> NewNode {
        new.uid = (caller.uid != self.owner.uid).then_some(caller.uid);
        new.gid = (caller.gid != self.owner.gid).then_some(caller.gid);
        new
    }

    /// Opens a file; the handle keeps the content that the file has now.
    pub fn open(&self, nid: Nid, writes: bool) -> Result<u64, TreeError> {
        let node = self.tree.node(nid)?;
        if node.kind != NodeKind::File {
            return Err(TreeError::IsDir);
        }
        self.open_node(&node, writes)
    }

    fn open_node(&self, node: &Node, writes: bool) -> Result<u64, TreeError> {
        if writes {
            self.tree.check_writable(node)?;
        }
        Ok(self.open_content(self.spool.content(node.nid)?, writes))
    }

    pub(super) fn open_content(&self, content: Arc<Content>, writes: bool) -> u64 {
        if writes {
            content.writers.fetch_add(1, Ordering::Relaxed);
        }
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        lock(&self.files).insert(handle, Arc::new(FileHandle { content, writes }));
        handle
    }

    pub(super) fn content(&self, nid: Nid, handle: u64) -> Result<Arc<Content>, TreeError> {
        // The page cache writes back under any handle of the inode, or a closed one.
        if let Some(open) = lock(&self.files).get(&handle).filter(|h| h.content.nid == nid) {
            return Ok(open.content.clone());
        }
        Ok(self.spool.content(nid)?)
    }

    pub fn read_here(
        &self,
        nid: Nid,
        handle: u64,
        offset: u64,
        len: usize,
    ) -> Result<ReadHere, TreeError> {
        let content = self.content(nid, handle)?;
        Ok(match self.spool.read_here(&content, offset, len)? {
            Some(bytes) => ReadHere::Bytes(bytes),
            None => {
                self.read_in_vain(&content);
                ReadHere::Elsewhere(content)
            }
        })
    }

    /// Writes bytes. `kill`: the caller is one whose writes take set-user-ID away.
    pub fn write(
        &self,
        nid: Nid,
        handle: u64,
        offset: u64,
        bytes: &[u8],
        kill: bool,
    ) -> Result<(), TreeError> {
        let content = self.content(nid, handle)?;
        self.with_room(bytes.len(), || {
            self.rescued(nid, || self.spool.write(&content, offset, bytes))
        })?;
        self.kill_suid(&content, kill)
    }

    /// Runs a change of a content; where a newer remote state took its name, it becomes a conflict
    /// file first.
    pub(super) fn rescued<T>(
        &self,
        nid: Nid,
        change: impl Fn() -> Result<T, SpoolError>,
    ) -> Result<T, TreeError> {
        match change() {
            Err(SpoolError::Superseded) => {
                self.tree.rescue_superseded(nid)?;
                Ok(change()?)
            }
            other => Ok(other?),
        }
    }

    /// Runs what takes space on the local disk. When that is full, clean blocks of the cache make
    /// room for one more try: the disk is really full only of what the server does not have yet.
    pub(super) fn with_room<T>(
        &self,
        bytes: usize,
        work: impl Fn() -> Result<T, TreeError>,
    ) -> Result<T, TreeError> {
        match work() {
            Err(full) if full.is_disk_full() => {
                let made = self.spool.cache().relieve(bytes as u64).map_err(SpoolError::from)?;
                if made { work() } else { Err(full) }
            }
            other => other,
        }
    }

    /// Takes set-user-ID and set-group-ID from a file that was written.
    pub(super) fn kill_suid(&self, content: &Content, kill: bool) -> Result<(), TreeError> {
        if kill && content.suid.load(Ordering::Relaxed) {
            // Its time of writing is told first, so that the order of changes stays.
            self.spool.save_size(content)?;
            self.tree.clear_suid(content.nid)?;
        }
        Ok(())
    }

    pub(super) fn truncate(&self, nid: Nid, size: u64) -> Result<(), TreeError> {
        let node = self.tree.node(nid)?;
        if node.kind != NodeKind::File {
            return Err(TreeError::IsDir);
        }
        self.tree.check_writable(&node)?;
        let content = self.spool.content(nid)?;
        self.rescued(nid, || self.spool.truncate(&content, size))?;
        self.spool.save_size(&content)?;
        self.tree.journal().wake();
        Ok(())
    }

    /// The last descriptor of a handle was closed.
    pub fn release(&self, handle: u64) -> Result<(), TreeError> {
        let Some(open) = lock(&self.files).remove(&handle) else { return Ok(()) };
        let nid = open.content.nid;
        let mut saved = Ok(());
        if open.writes {
            saved = self.with_room(0, || Ok(self.spool.save_size(&open.content)?));
            open.content.writers.fetch_sub(1, Ordering::Relaxed);
            self.tree.journal().wake();
        }
        drop(open);
        if !is_past(nid) {
            self.let_go(nid)?;
        }
        saved
    }

    /// After a use of a content: a file that was deleted meanwhile goes when it was the last one.
    pub fn let_go(&self, nid: Nid) -> Result<(), TreeError> {
        if self.spool.loaded(nid).is_none() {
            self.spool.forget(nid);
            self.with_room(0, || self.tree.drop_orphan(nid))?;
        }
        Ok(())
    }

    /// Makes a file durable against power loss.
    pub fn fsync(&self, nid: Nid, handle: u64) -> Result<(), TreeError> {
        if is_past(nid) {
            return Ok(());
        }
        let content = self.content(nid, handle)?;
        self.with_room(0, || Ok(self.spool.sync(&content)?))
    }

    /// Makes everything that changed in a folder durable against power loss.
    pub fn fsync_dir(&self) -> Result<(), TreeError> {
        self.with_room(0, || Ok(self.tree.db().flush()?))
    }
}

fn new_file(mode: u32) -> NewNode {
    NewNode { kind: NodeKind::File, mode, uid: None, gid: None, rdev: 0, target: None }
}
