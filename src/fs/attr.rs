//! Attributes as programs see them, and the space of the drive.

use drivefs_core::limits::NAME_MAX_BYTES;
use drivefs_core::name::NameError;
use drivefs_core::name::VERSIONS_DIR;
use drivefs_core::node::NodeKind;
use drivefs_core::node::TimeNs;

use super::DriveFs;
use super::lock;
use crate::spool::is_past;
use crate::state::Nid;
use crate::state::Node;
use crate::tree::SetAttrs;
use crate::tree::TreeError;

/// User and group of whoever mounts.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// What stat(2) tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attr {
    pub nid: Nid,
    pub kind: NodeKind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub size: u64,
    pub atime: TimeNs,
    pub mtime: TimeNs,
    pub ctime: TimeNs,
    pub btime: TimeNs,
    pub links: u32,
}

/// What the content of a file that is in use knows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unsaved {
    size: u64,
    /// When it was last written, if the row does not say so yet.
    written: Option<TimeNs>,
}

/// Quota and what is used of it (bytes).
#[derive(Debug, Clone, Copy, Default)]
pub struct Space {
    pub quota: u64,
    pub used: u64,
}

impl DriveFs {
    /// What the content of a file knows and its row may not. Asked for before the row is read: what
    /// is saved in between stands in both then, and not in neither.
    pub(super) fn unsaved(&self, nid: Nid) -> Option<Unsaved> {
        let content = self.spool.loaded(nid)?;
        let parts = content.parts();
        Some(Unsaved { size: parts.size, written: parts.mtime })
    }

    /// Attributes of a node's row, with what an open file knows better.
    pub(super) fn attr_of(&self, node: &Node, unsaved: Option<Unsaved>) -> Attr {
        let (mut size, mut mtime, mut ctime) = (node.size, node.attrs.mtime, node.ctime);
        match (node.kind, unsaved) {
            (NodeKind::File, Some(unsaved)) => {
                size = unsaved.size;
                mtime = unsaved.written.unwrap_or(mtime);
                ctime = unsaved.written.unwrap_or(ctime);
            }
            (NodeKind::Dir | NodeKind::Mount, _) => size = 4096,
            _ => {}
        }
        Attr {
            nid: node.nid,
            kind: node.kind,
            mode: node.attrs.mode,
            uid: node.attrs.uid.unwrap_or(self.owner.uid),
            gid: node.attrs.gid.unwrap_or(self.owner.gid),
            rdev: node.rdev,
            size,
            atime: node.atime.unwrap_or(mtime),
            mtime,
            ctime,
            btime: node.attrs.btime,
            links: self.links_of(node),
        }
    }

    /// The same of a row that was read when the database had seen `changes` changes.
    pub(super) fn attr_since(&self, node: &Node, changes: u64) -> Result<Attr, TreeError> {
        let unsaved = self.unsaved(node.nid);
        if self.tree.changes() == changes {
            return Ok(self.attr_of(node, unsaved));
        }
        self.getattr(node.nid)
    }

    fn links_of(&self, node: &Node) -> u32 {
        match node.links {
            0 => 0,
            links if !node.kind.is_folder() => links,
            // "Not counted", which programs know from other file systems: its entries are not here.
            _ if self.tree.is_filling() && !self.tree.is_complete(node).unwrap_or(false) => 1,
            // A folder is named by its parent, by its `.` and by the `..` of each folder in it.
            _ => 2 + node.subdirs,
        }
    }

    pub fn getattr(&self, nid: Nid) -> Result<Attr, TreeError> {
        if is_past(nid) {
            return self.past_attr(nid);
        }
        let unsaved = self.unsaved(nid);
        match self.tree.node(nid) {
            Err(TreeError::NotFound) => {
                lock(&self.removed).get(&nid).cloned().ok_or(TreeError::NotFound)
            }
            node => Ok(self.attr_of(&node?, unsaved)),
        }
    }

    /// The length of a file now; of one that went meanwhile, the one it had.
    pub fn size_of(&self, node: &Node) -> u64 {
        self.getattr(node.nid).map_or(node.size, |attr| attr.size)
    }

    /// True when a name of the tree leads to this inode.
    pub fn is_named(&self, nid: Nid) -> bool {
        self.tree.node(nid).is_ok_and(|n| n.links > 0 && !n.superseded)
    }

    pub fn lookup(&self, parent: Nid, name: &[u8]) -> Result<Attr, TreeError> {
        if name.len() > NAME_MAX_BYTES {
            return Err(NameError::TooLong.into());
        }
        if name == VERSIONS_DIR {
            return self.past_of(parent);
        }
        loop {
            let changes = self.tree.changes();
            let node = self.tree.lookup(parent, name)?;
            match self.attr_since(&node, changes) {
                // The name led to another inode a moment later.
                Err(TreeError::NotFound) => {}
                attr => return attr,
            }
        }
    }

    /// Sets attributes and, of a file, the length.
    pub fn setattr(&self, nid: Nid, set: &SetAttrs, size: Option<u64>) -> Result<Attr, TreeError> {
        self.check_present(nid, b"")?;
        let mut set = SetAttrs {
            uid: set.uid.filter(|&u| u != u32::MAX),
            gid: set.gid.filter(|&g| g != u32::MAX),
            ..*set
        };
        if let Some(size) = size {
            self.with_room(0, || self.truncate(nid, size))?;
            if set.mtime.is_none() {
                set.mtime = Some(crate::journal::now());
            }
        }
        if let Some(content) = self.spool.loaded(nid) {
            // What was written before is told first, so that a time set now comes after it.
            self.spool.save_size(&content)?;
            content.parts_mut().time_was_set |= size.is_none() && set.mtime.is_some();
        }
        let unsaved = self.unsaved(nid);
        let node = self.with_room(0, || self.tree.set_attrs(nid, &set))?;
        Ok(self.attr_of(&node, unsaved))
    }

    pub fn space(&self) -> Space {
        *lock(&self.space)
    }

    pub fn set_space(&self, space: Space) {
        *lock(&self.space) = space;
    }
}
