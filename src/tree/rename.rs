//! Renames on this device.
//!
//! A file that was just made and that is renamed over one that the server knows takes that one's
//! identity: create, write and rename-over, as editors save, becomes one new version of the old
//! file, and its history goes on, also where the new file reached the server before the rename.

use drivefs_core::name::Name;
use drivefs_core::node::NodeKind;
use drivefs_core::node::TimeNs;

use super::CONFLICT_XATTR;
use super::Mark;
use super::Tree;
use super::TreeError;
use super::new_id;
use crate::journal::now;
use crate::state::Conn;
use crate::state::Nid;
use crate::state::Node;

/// A file made this long ago at most, and never changed on the server, is still part of the save
/// that made it (ns).
const SAVING_NS: TimeNs = 10 * 60 * 1_000_000_000;

/// What a rename does with a taken target, as in renameat2(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenameMode {
    Replace,
    NoReplace,
    Exchange,
}

/// Both ends of a rename.
struct Ends<'a> {
    from: Node,
    name: &'a [u8],
    to: Node,
    new_name: &'a [u8],
    time: TimeNs,
}

impl Tree {
    /// Renames `name` in `parent` to `new_name` in `new_parent`; returns what was replaced and is
    /// gone, as it was.
    pub fn rename(
        &self,
        parent: Nid,
        name: &[u8],
        new_parent: Nid,
        new_name: &[u8],
        mode: RenameMode,
    ) -> Result<Option<Node>, TreeError> {
        let checked = Name::new(new_name)?;
        let gone = self.db.change(|c| {
            let ends = Ends {
                from: self.dir_for_change(c, parent)?,
                name,
                to: self.dir_for_change(c, new_parent)?,
                new_name: checked.as_bytes(),
                time: now(),
            };
            let mut node = c.child(parent, name)?.ok_or(TreeError::NotFound)?;
            let target = c.child(new_parent, new_name)?;
            check(c, &ends, &node, target.as_ref(), mode)?;
            if mode == RenameMode::Replace
                && let Some(target) = &target
            {
                self.hand_over_mark(c, &mut node, target)?;
            }
            let gone = match target {
                Some(target) if target.nid == node.nid => return Ok(None),
                Some(target) if mode == RenameMode::Exchange => {
                    self.exchange(c, &ends, &node, &target)?;
                    None
                }
                target if ends.from.ns != ends.to.ns => {
                    self.move_across(c, &ends, &node, target.as_ref())?
                }
                Some(target) if self.inherits(c, &node, &target)? => {
                    self.take_identity(c, &ends, &node, &target)?
                }
                target => self.replace(c, &ends, &node, &node, target.as_ref())?,
            };
            self.touch(c, &ends.from, ends.time)?;
            if ends.to.nid != ends.from.nid {
                self.touch(c, &ends.to, ends.time)?;
            }
            Ok::<_, TreeError>(gone)
        })?;
        self.after_removal(gone.as_ref())?;
        Ok(gone)
    }

    /// A conflict file that is renamed over its origin takes its place: it is none any more. What is
    /// renamed over a conflict file, as editors save, is that conflict's file now.
    fn hand_over_mark(
        &self,
        c: &Conn<'_>,
        node: &mut Node,
        target: &Node,
    ) -> Result<(), TreeError> {
        let own = Mark::of(&node.xattrs);
        let theirs = target.xattrs.get(CONFLICT_XATTR);
        let plain_save = own.is_none() && self.inherits(c, node, target)?;
        if own.is_some_and(|mark| mark.node == target.id) && node.nid != target.nid {
            self.journal.note_node(c, node)?;
            node.xattrs.remove(CONFLICT_XATTR);
        } else if let Some(mark) = theirs.filter(|_| plain_save) {
            node.xattrs.insert(CONFLICT_XATTR.to_owned(), mark.clone());
        } else {
            return Ok(());
        }
        Ok(c.update_node(node)?)
    }

    /// The plain case: the target's name, if taken, goes to the moved node (which has another id
    /// than before when it crossed into another namespace).
    fn replace(
        &self,
        c: &Conn<'_>,
        ends: &Ends<'_>,
        before: &Node,
        moved: &Node,
        target: Option<&Node>,
    ) -> Result<Option<Node>, TreeError> {
        let (from, to) = (&ends.from, &ends.to);
        self.journal.note_dirent(c, from.ns, from.id, ends.name, Some(before), None)?;
        self.journal.note_dirent(c, to.ns, to.id, ends.new_name, target, Some(moved.id))?;
        c.delete_dirent(from.nid, ends.name)?;
        c.put_dirent(to.nid, ends.new_name, moved.nid)?;
        c.add_links(moved.nid, 0, ends.time)?;
        match target {
            Some(target) => self.lose_link(c, target, ends.time),
            None => Ok(None),
        }
    }

    fn exchange(
        &self,
        c: &Conn<'_>,
        ends: &Ends<'_>,
        node: &Node,
        target: &Node,
    ) -> Result<(), TreeError> {
        let (from, to) = (&ends.from, &ends.to);
        let (a, b) = (Some(node), Some(target));
        self.journal.note_dirent(c, from.ns, from.id, ends.name, a, Some(target.id))?;
        self.journal.note_dirent(c, to.ns, to.id, ends.new_name, b, Some(node.id))?;
        c.put_dirent(from.nid, ends.name, target.nid)?;
        c.put_dirent(to.nid, ends.new_name, node.nid)?;
        c.add_links(node.nid, 0, ends.time)?;
        c.add_links(target.nid, 0, ends.time)?;
        Ok(())
    }

    /// True when the moved file goes on as a new version of the target.
    fn inherits(&self, c: &Conn<'_>, node: &Node, target: &Node) -> Result<bool, TreeError> {
        let both_plain = node.kind == NodeKind::File
            && target.kind == NodeKind::File
            && node.links == 1
            && target.links == 1;
        let is_unsent = c.base_node(&node.id)?.is_some_and(|b| b.agreed.is_none());
        let age = now().saturating_sub(node.attrs.btime);
        let is_young = node.version <= 1 && (0..SAVING_NS).contains(&age);
        let is_known = c.base_node(&target.id)?.is_none_or(|b| b.agreed.is_some());
        Ok(both_plain && (is_unsent || is_young) && is_known && node.ns == target.ns)
    }

    fn take_identity(
        &self,
        c: &Conn<'_>,
        ends: &Ends<'_>,
        node: &Node,
        target: &Node,
    ) -> Result<Option<Node>, TreeError> {
        let (from, to) = (&ends.from, &ends.to);
        let id = target.id;
        self.journal.note_node(c, target)?;
        self.journal.note_dirent(c, from.ns, from.id, ends.name, Some(node), None)?;
        self.journal.note_dirent(c, to.ns, to.id, ends.new_name, Some(target), Some(id))?;
        c.delete_base_node(&node.id)?;
        let gone = if self.spool.loaded(target.nid).is_some() {
            c.update_node(&Node { id: new_id(), links: 0, ..target.clone() })?;
            None
        } else {
            c.delete_node(target.nid)?;
            Some(target.clone())
        };
        c.update_node(&Node { id, version: target.version, ctime: ends.time, ..node.clone() })?;
        c.delete_dirent(from.nid, ends.name)?;
        c.put_dirent(to.nid, ends.new_name, node.nid)?;
        Ok(gone)
    }

    /// A move into another namespace: the subtree becomes new nodes there that refer to the same
    /// blocks, and is removed here.
    fn move_across(
        &self,
        c: &Conn<'_>,
        ends: &Ends<'_>,
        node: &Node,
        target: Option<&Node>,
    ) -> Result<Option<Node>, TreeError> {
        if node.links > 1 && !node.kind.is_folder() {
            return Err(TreeError::CrossDevice);
        }
        // What is below and not here yet would stay behind: whoever moves has to copy.
        if node.kind.is_folder() && self.filling.is_filling(node.ns) {
            return Err(TreeError::CrossDevice);
        }
        let moved = self.reidentify(c, node, ends.to.ns)?;
        self.replace(c, ends, node, &moved, target)
    }
}

fn check(
    c: &Conn<'_>,
    ends: &Ends<'_>,
    node: &Node,
    target: Option<&Node>,
    mode: RenameMode,
) -> Result<(), TreeError> {
    if node.kind.is_folder() && is_below(c, ends.to.nid, node.nid)? {
        return Err(TreeError::IntoItself);
    }
    let crosses = ends.from.ns != ends.to.ns;
    if crosses && (node.kind == NodeKind::Mount || mode == RenameMode::Exchange) {
        return Err(TreeError::CrossDevice);
    }
    let Some(target) = target else {
        return match mode {
            RenameMode::Exchange => Err(TreeError::NotFound),
            _ => Ok(()),
        };
    };
    match mode {
        RenameMode::NoReplace => Err(TreeError::Exists),
        RenameMode::Exchange => {
            if target.kind.is_folder() && is_below(c, ends.from.nid, target.nid)? {
                return Err(TreeError::IntoItself);
            }
            Ok(())
        }
        RenameMode::Replace => match (node.kind.is_folder(), target.kind.is_folder()) {
            _ if target.kind == NodeKind::Mount => Err(TreeError::Busy),
            (true, false) => Err(TreeError::NotDir),
            (false, true) => Err(TreeError::IsDir),
            (true, true) if !c.is_empty_dir(target.nid)? => Err(TreeError::NotEmpty),
            _ => Ok(()),
        },
    }
}

/// True when `nid` is `top` or lies below it, in the same namespace.
pub(super) fn is_below(c: &Conn<'_>, nid: Nid, top: Nid) -> Result<bool, TreeError> {
    let mut at = nid;
    loop {
        if at == top {
            return Ok(true);
        }
        match c.places(at)?.into_iter().next() {
            Some((parent, _)) => at = parent,
            None => return Ok(false),
        }
    }
}
