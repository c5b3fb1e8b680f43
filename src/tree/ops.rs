//! Changes made on this device: create, link, remove, set attributes.
//!
//! Each is one transaction that notes its intents and changes the tree. No network, no fsync.

use std::sync::Arc;

use drivefs_core::id::NodeId;
use drivefs_core::limits::XATTR_VALUE_MAX_BYTES;
use drivefs_core::limits::XATTRS_MAX_BYTES;
use drivefs_core::manifest::Root;
use drivefs_core::name::Name;
use drivefs_core::node::Attrs;
use drivefs_core::node::MODE_MASK;
use drivefs_core::node::NodeKind;
use drivefs_core::node::TimeNs;
use drivefs_core::node::Xattrs;
use drivefs_core::wire::Blob;

use super::Invalidation;
use super::Tree;
use super::TreeError;
use super::may_write;
use super::new_id;
use crate::journal::now;
use crate::spool::Content;
use crate::spool::SpoolError;
use crate::state::BaseNode;
use crate::state::Conn;
use crate::state::Nid;
use crate::state::Node;
use crate::state::ROOT;

/// Deleted nodes that are dropped in one go.
const ORPHANS_AT_ONCE: usize = 1000;
/// Set-group-ID bit.
const SETGID: u32 = 0o2000;

/// A node to be made.
#[derive(Debug, Clone)]
pub struct NewNode {
    pub kind: NodeKind,
    pub mode: u32,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub rdev: u32,
    pub target: Option<Vec<u8>>,
}

/// Attributes to be set; none stays as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct SetAttrs {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub atime: Option<TimeNs>,
    pub mtime: Option<TimeNs>,
    pub ctime: Option<TimeNs>,
    /// Set-user-ID and set-group-ID go, as when an ordinary user writes or anybody changes the
    /// owner. A set-group-ID bit without group execution is no such mark and stays.
    pub clear_suid: bool,
}

impl Tree {
    /// Makes a node under a free name.
    pub fn make(&self, parent: Nid, name: &[u8], new: NewNode) -> Result<Node, TreeError> {
        let name = Name::new(name)?;
        self.spool.cache().files().reserve(&self.db)?;
        let node = self.db.change(|c| self.make_in(c, parent, &name, new))?;
        self.journal.wake();
        Ok(node)
    }

    /// Makes a file and its content, in hand before anybody else can find them.
    pub fn make_file(
        &self,
        parent: Nid,
        name: &[u8],
        new: NewNode,
    ) -> Result<(Node, Arc<Content>), TreeError> {
        let name = Name::new(name)?;
        self.spool.cache().files().reserve(&self.db)?;
        let made = self.db.change(|c| {
            let node = self.make_in(c, parent, &name, new)?;
            let content = self.spool.fresh(&node)?;
            Ok::<_, TreeError>((node, content))
        })?;
        self.journal.wake();
        Ok(made)
    }

    fn make_in(
        &self,
        c: &Conn<'_>,
        parent: Nid,
        name: &Name,
        new: NewNode,
    ) -> Result<Node, TreeError> {
        let time = now();
        let dir = self.dir_for_change(c, parent)?;
        if c.dirent(parent, name.as_bytes())?.is_some() {
            return Err(TreeError::Exists);
        }
        let node = self.new_in(c, &dir, new, time)?;
        self.journal.note_new_node(c, node.id, node.ns)?;
        let place = name.as_bytes();
        self.journal.note_dirent(c, dir.ns, dir.id, place, None, Some(node.id))?;
        c.insert_node(&node)?;
        c.put_dirent(parent, place, node.nid)?;
        if node.kind == NodeKind::Dir {
            // A new folder has no entries that could be elsewhere.
            self.filling.note_complete(node.ns, node.nid);
        }
        self.touch(c, &dir, time)?;
        Ok(node)
    }

    /// A node to be inserted, for one name in a folder.
    pub(super) fn new_in(
        &self,
        c: &Conn<'_>,
        dir: &Node,
        new: NewNode,
        time: TimeNs,
    ) -> Result<Node, TreeError> {
        let is_file = new.kind == NodeKind::File;
        let live = if is_file { Some(self.new_layer(c)?) } else { None };
        // What is made in a folder with the set-group-ID bit gets its group.
        let inherits = dir.attrs.mode & SETGID != 0;
        let passes_on = inherits && new.kind == NodeKind::Dir;
        Ok(Node {
            nid: self.new_nid(),
            id: new_id(),
            ns: dir.ns,
            kind: new.kind,
            attrs: Attrs {
                mode: (new.mode & MODE_MASK) | if passes_on { SETGID } else { 0 },
                uid: new.uid,
                gid: if inherits { dir.attrs.gid } else { new.gid },
                mtime: time,
                btime: time,
            },
            rdev: new.rdev,
            size: new.target.as_ref().map_or(0, |t| t.len() as u64),
            ctime: time,
            links: 1,
            target: new.target,
            mount: None,
            xattrs: Xattrs::new(),
            content: None,
            version: 0,
            live,
            frozen: None,
            superseded: false,
            source: None,
            atime: None,
            subdirs: 0,
        })
    }

    fn new_layer(&self, c: &Conn<'_>) -> Result<(u64, bool), TreeError> {
        // It exists with its number: a slot without a header is empty content.
        Ok((self.spool.cache().files().allocate_slot_in(c)?, false))
    }

    /// Gives a node that is no folder one more name, or a file that was made without one its first.
    pub fn link(&self, nid: Nid, parent: Nid, name: &[u8]) -> Result<Node, TreeError> {
        let name = Name::new(name)?;
        let time = now();
        let node = self.db.change(|c| {
            let dir = self.dir_for_change(c, parent)?;
            let node = c.node(nid)?.ok_or(TreeError::NotFound)?;
            if node.kind.is_folder() {
                return Err(TreeError::Forbidden);
            }
            if node.ns != dir.ns {
                return Err(TreeError::CrossDevice);
            }
            if node.links == 0 && !self.is_unnamed(nid) {
                return Err(TreeError::NotFound);
            }
            let place = name.as_bytes();
            if c.dirent(parent, place)?.is_some() {
                return Err(TreeError::Exists);
            }
            if node.links == 0 {
                self.journal.note_new_node(c, node.id, node.ns)?;
            }
            self.journal.note_dirent(c, dir.ns, dir.id, place, None, Some(node.id))?;
            c.put_dirent(parent, place, nid)?;
            c.add_links(nid, 1, time)?;
            self.touch(c, &dir, time)?;
            c.node(nid)?.ok_or(TreeError::NotFound)
        })?;
        self.forget_unnamed(nid);
        self.journal.wake();
        Ok(node)
    }

    /// Takes a name away from what is no folder.
    pub fn unlink(&self, parent: Nid, name: &[u8]) -> Result<(), TreeError> {
        let time = now();
        let gone = self.db.change(|c| {
            let dir = self.dir_for_change(c, parent)?;
            let node = c.child(parent, name)?.ok_or(TreeError::NotFound)?;
            if node.kind.is_folder() {
                return Err(TreeError::IsDir);
            }
            let gone = self.detach(c, &dir, name, &node, time)?;
            self.touch(c, &dir, time)?;
            Ok(gone)
        })?;
        self.after_removal(gone.as_ref())
    }

    /// Removes an empty folder; returns it as it was.
    pub fn rmdir(&self, parent: Nid, name: &[u8]) -> Result<Option<Node>, TreeError> {
        let time = now();
        let gone = self.db.change(|c| {
            let dir = self.dir_for_change(c, parent)?;
            let node = c.child(parent, name)?.ok_or(TreeError::NotFound)?;
            match node.kind {
                NodeKind::Mount => return Err(TreeError::Busy),
                NodeKind::Dir => {}
                _ => return Err(TreeError::NotDir),
            }
            if !c.is_empty_dir(node.nid)? {
                return Err(TreeError::NotEmpty);
            }
            let gone = self.detach(c, &dir, name, &node, time)?;
            self.touch(c, &dir, time)?;
            Ok(gone)
        })?;
        self.after_removal(gone.as_ref())?;
        Ok(gone)
    }

    /// Drops what a removal left without a name, after its transaction.
    pub(super) fn after_removal(&self, gone: Option<&Node>) -> Result<(), TreeError> {
        self.journal.wake();
        if let Some(node) = gone {
            self.spool.discard(node)?;
        }
        Ok(())
    }

    /// Takes one name from a node, inside a transaction. A node without names is deleted, unless
    /// it is open; the deleted row is returned so that its layers can go after the transaction.
    pub(super) fn detach(
        &self,
        c: &Conn<'_>,
        dir: &Node,
        name: &[u8],
        node: &Node,
        time: TimeNs,
    ) -> Result<Option<Node>, TreeError> {
        self.journal.note_dirent(c, dir.ns, dir.id, name, Some(node), None)?;
        c.delete_dirent(dir.nid, name)?;
        self.lose_link(c, node, time)
    }

    /// One link less; see `detach`. What the server knows under some name keeps its row until the
    /// server has taken the removal: a remote edit meanwhile brings it back.
    pub(super) fn lose_link(
        &self,
        c: &Conn<'_>,
        node: &Node,
        time: TimeNs,
    ) -> Result<Option<Node>, TreeError> {
        c.add_links(node.nid, -1, time)?;
        if node.links > 1 {
            return Ok(None);
        }
        // Whatever else was to be told about it, its removal says all.
        let base = c.base_node(&node.id)?;
        c.delete_base_node(&node.id)?;
        let is_open = self.spool.loaded(node.nid).is_some();
        let agreed = base.and_then(|base| as_agreed(node, base));
        if is_open && (agreed.is_none() || !self.is_awaited(c, node)?) {
            return Ok(None);
        }
        if is_open {
            // Who has it open keeps what was written; the server's state may come back.
            c.update_node(&Node { id: new_id(), links: 0, ..node.clone() })?;
            let agreed = agreed.expect("asked above");
            let nid = self.new_nid();
            c.insert_node(&Node { nid, links: 0, ..without_layers(&agreed)? })?;
            return Ok(None);
        }
        if self.is_awaited(c, node)? {
            // Its bytes were never agreed on; what the server has is all that can come back.
            let agreed = agreed.as_ref().unwrap_or(node);
            c.update_node(&Node { links: 0, ..without_layers(agreed)? })?;
        } else {
            c.delete_node(node.nid)?;
        }
        Ok(Some(node.clone()))
    }

    /// True when a row without names must stay: the server still has it, or is about to tell
    /// where it went.
    fn is_awaited(&self, c: &Conn<'_>, node: &Node) -> Result<bool, TreeError> {
        Ok(!c.base_places(&node.id)?.is_empty()
            || c.is_dirty(&node.id)?
            || (node.kind == NodeKind::Dir && !c.is_empty_dir(node.nid)?))
    }

    /// Drops a row without names once nothing waits for it any more, inside a transaction.
    pub(super) fn drop_if_done(&self, c: &Conn<'_>, id: &NodeId) -> Result<(), TreeError> {
        let Some(node) = c.node_by_id(id)?.filter(|n| n.links == 0) else { return Ok(()) };
        if self.spool.loaded(node.nid).is_none() && !self.is_awaited(c, &node)? {
            c.delete_node(node.nid)?;
        }
        Ok(())
    }

    /// Drops a node that was deleted while open, now that it no longer is.
    pub fn drop_orphan(&self, nid: Nid) -> Result<(), TreeError> {
        if self.db.peek(|c| c.node(nid))?.is_none_or(|n| n.links > 0) {
            return Ok(());
        }
        let gone = self.db.change(|c| {
            let Some(orphan) = c.node(nid)?.filter(|n| n.links == 0) else { return Ok(None) };
            if !self.is_awaited(c, &orphan)? {
                c.delete_node(nid)?;
                return Ok(Some(orphan));
            }
            if c.is_dirty(&orphan.id)? {
                return Ok(None);
            }
            c.update_node(&without_layers(&orphan)?)?;
            Ok::<_, TreeError>(Some(orphan))
        })?;
        if let Some(node) = gone {
            self.spool.discard(&node)?;
        }
        Ok(())
    }

    /// Drops deleted nodes that nobody has open: those whose last handle was closed while the disk
    /// was full.
    pub fn drop_orphans(&self) -> Result<(), TreeError> {
        let orphans = self.db.peek(|c| c.orphans(ORPHANS_AT_ONCE))?;
        for nid in orphans.into_iter().filter(|nid| self.spool.loaded(*nid).is_none()) {
            self.drop_orphan(nid)?;
        }
        Ok(())
    }

    /// Sets attributes and returns the node as it is then.
    pub fn set_attrs(&self, nid: Nid, set: &SetAttrs) -> Result<Node, TreeError> {
        let time = now();
        let node = self.db.change(|c| {
            let mut node = c.node(nid)?.ok_or(TreeError::NotFound)?;
            may_write(c, node.ns)?;
            let before = node.attrs;
            node.attrs.mode = set.mode.map_or(node.attrs.mode, |m| m & MODE_MASK);
            if set.clear_suid && !node.kind.is_folder() {
                node.attrs.mode = without_suid(node.attrs.mode);
            }
            node.attrs.uid = set.uid.or(node.attrs.uid);
            node.attrs.gid = set.gid.or(node.attrs.gid);
            node.attrs.mtime = set.mtime.unwrap_or(node.attrs.mtime);
            if node.attrs != before {
                let old = Node { attrs: before, ..node.clone() };
                self.journal.note_node(c, &old)?;
            }
            node.atime = set.atime.or(node.atime);
            node.ctime = set.ctime.unwrap_or(time);
            c.update_node(&node)?;
            Ok::<_, TreeError>(node)
        })?;
        self.spool.note_privileges(&node);
        self.journal.wake();
        Ok(node)
    }

    /// Takes set-user-ID and set-group-ID away, behind the kernel's back.
    pub fn clear_suid(&self, nid: Nid) -> Result<(), TreeError> {
        self.set_attrs(nid, &SetAttrs { clear_suid: true, ..SetAttrs::default() })?;
        self.announce(vec![Invalidation::Attrs { nid }]);
        Ok(())
    }

    /// Sets an extended attribute, or removes it. `create` and `replace` are those of setxattr(2).
    pub fn set_xattr(
        &self,
        nid: Nid,
        name: &str,
        value: Option<&[u8]>,
        create: bool,
        replace: bool,
    ) -> Result<(), TreeError> {
        self.db.change(|c| {
            let mut node = c.node(nid)?.ok_or(TreeError::NotFound)?;
            may_write(c, node.ns)?;
            let there = node.xattrs.contains_key(name);
            if create && there {
                return Err(TreeError::Exists);
            }
            if (replace || value.is_none()) && !there {
                return Err(TreeError::NoAttribute);
            }
            self.journal.note_node(c, &node)?;
            match value {
                None => {
                    node.xattrs.remove(name);
                }
                Some(value) if value.len() > XATTR_VALUE_MAX_BYTES => {
                    return Err(TreeError::Limit);
                }
                Some(value) => {
                    node.xattrs.insert(name.to_owned(), Blob(value.to_vec()));
                }
            }
            let total: usize = node.xattrs.iter().map(|(k, v)| k.len() + v.0.len()).sum();
            if total > XATTRS_MAX_BYTES {
                return Err(TreeError::XattrsFull);
            }
            node.ctime = now();
            c.update_node(&node)?;
            self.spool.note_privileges(&node);
            Ok(())
        })?;
        self.journal.wake();
        Ok(())
    }

    /// The folder that is about to change: alive, a folder, and writable.
    pub(super) fn dir_for_change(&self, c: &Conn<'_>, nid: Nid) -> Result<Node, TreeError> {
        let dir = c.node(nid)?.ok_or(TreeError::NotFound)?;
        if dir.kind == NodeKind::Mount {
            return Err(TreeError::Busy);
        }
        if dir.kind != NodeKind::Dir {
            return Err(TreeError::NotDir);
        }
        if dir.links == 0 && nid != ROOT {
            return Err(TreeError::NotFound);
        }
        may_write(c, dir.ns)?;
        Ok(dir)
    }

    /// Notes that a folder's entries changed.
    pub(super) fn touch(&self, c: &Conn<'_>, dir: &Node, time: TimeNs) -> Result<(), TreeError> {
        self.journal.note_node(c, dir)?;
        c.set_mtime(dir.nid, time, time)?;
        Ok(())
    }
}

/// A node as the server has it; none where it does not know it.
pub(super) fn as_agreed(node: &Node, base: BaseNode) -> Option<Node> {
    let (attrs, xattrs) = base.agreed?;
    let BaseNode { content, version, .. } = base;
    Some(Node { attrs, xattrs, content, version, ..node.clone() })
}

/// A node whose layers go: what lies below shows.
pub(super) fn without_layers(node: &Node) -> Result<Node, TreeError> {
    let size = match &node.content {
        Some(bytes) => Root::decode(bytes).map_err(SpoolError::from)?.size(),
        None if node.kind == NodeKind::File => 0,
        None => node.size,
    };
    Ok(Node { live: None, frozen: None, size, ..node.clone() })
}

/// A mode without set-user-ID, and without set-group-ID where the group may execute.
fn without_suid(mode: u32) -> u32 {
    const SUID: u32 = 0o4000;
    const SGID: u32 = 0o2000;
    const GROUP_EXEC: u32 = 0o010;
    if mode & GROUP_EXEC == 0 { mode & !SUID } else { mode & !(SUID | SGID) }
}
