//! Entries that the server tells: placed, moved, and where both sides put something under one
//! name, both kept.

use std::collections::HashSet;

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::DirentRow;

use super::Invalidation;
use super::Tree;
use super::TreeError;
use super::apply::Applied;
use super::rename::is_below;
use crate::journal::now;
use crate::state::BaseDirent;
use crate::state::BaseNode;
use crate::state::Conn;
use crate::state::Nid;
use crate::state::Node;
use crate::state::Occupant;

impl Tree {
    pub(super) fn apply_dirent(
        &self,
        c: &Conn<'_>,
        ns: NamespaceId,
        row: &DirentRow,
        deleted: &HashSet<NodeId>,
        applied: &mut Applied,
    ) -> Result<(), TreeError> {
        let name = row.name.as_bytes();
        let base = c.base_dirent(&row.parent, name)?;
        let Some(dir) = c.node_by_id(&row.parent)? else {
            // The folder is gone here. What was noted about its entry follows the server.
            return self.rebase_entry(c, ns, row, base);
        };
        let parent = dir.nid;
        if dir.links == 0 && row.child.is_some() {
            // Removed here, but it got a new entry there: both survive.
            self.restore_places(c, &dir, applied)?;
        }
        let local = c.child(parent, name)?;
        tracing::trace!(device = self.device, ?row, ?base, ?local, "an entry");
        if local.as_ref().map(|n| n.id) == row.child {
            return Ok(c.delete_base_dirent(&row.parent, name)?);
        }
        let ahead = base.is_some();
        if base.as_ref().is_some_and(|b| b.child.map(|o| o.id) == row.child) {
            // No news: what is here came after it.
            return Ok(());
        }
        if let Some(child) = row.child.filter(|child| applied.own.contains(child))
            && let Some(node) = c.node_by_id(&child)?.filter(|n| n.links > 0)
            && (ahead || local.is_none())
        {
            // Made here under this name, which it has lost here since: that is ahead of the server.
            let local = local.map(|n| n.id);
            c.delete_base_dirent(&row.parent, name)?;
            return Ok(self.journal.note_dirent(c, ns, row.parent, name, Some(&node), local)?);
        }
        match (local, row.child) {
            (None, None) => Ok(c.delete_base_dirent(&row.parent, name)?),
            (None, Some(child)) => {
                // What was removed here is not what the server has now.
                c.delete_base_dirent(&row.parent, name)?;
                self.place(c, row, parent, child, applied)
            }
            (Some(_), None) if ahead => self.rebase_entry(c, ns, row, base),
            (Some(local), None) => {
                let gone = deleted.contains(&local.id);
                self.remove_entry(c, ns, row, parent, &local, gone, applied)
            }
            (Some(local), Some(child)) if ahead => {
                self.collide(c, row, parent, &local, child, applied)
            }
            (Some(local), Some(child)) => {
                let gone = deleted.contains(&local.id);
                self.remove_entry(c, ns, row, parent, &local, gone, applied)?;
                if c.dirent(parent, name)?.is_some() {
                    let kept = c.child(parent, name)?.ok_or(TreeError::NotFound)?;
                    return self.collide(c, row, parent, &kept, child, applied);
                }
                self.place(c, row, parent, child, applied)
            }
        }
    }

    /// The entry stays ahead here; what the server has there is now this.
    pub(super) fn rebase_entry(
        &self,
        c: &Conn<'_>,
        ns: NamespaceId,
        row: &DirentRow,
        base: Option<BaseDirent>,
    ) -> Result<(), TreeError> {
        let Some(base) = base else { return Ok(()) };
        let folder = match &row.child {
            Some(id) => c.node_by_id(id)?.is_some_and(|n| n.kind.is_folder()),
            None => false,
        };
        let child = row.child.map(|id| Occupant { id, folder });
        c.put_base_dirent(&BaseDirent { child, ns, ..base })?;
        self.settle_dirent(c, &row.parent, row.name.as_bytes())
    }

    /// Puts a remote node under a name that is free here. Not yet when it would close a cycle that
    /// rows to come open: then the row waits in `applied.cyclic`.
    pub(super) fn place(
        &self,
        c: &Conn<'_>,
        row: &DirentRow,
        parent: Nid,
        child: NodeId,
        applied: &mut Applied,
    ) -> Result<(), TreeError> {
        let Some(node) = c.node_by_id(&child)? else {
            return Err(TreeError::Protocol(format!("an entry names the unknown node {child}")));
        };
        let name = row.name.as_bytes();
        if node.kind.is_folder() {
            if !self.break_cycle(c, parent, &node, applied)? {
                applied.cyclic.push(row.clone());
                return Ok(());
            }
            self.free_other_places(c, &node, applied)?;
        }
        c.put_dirent(parent, name, node.nid)?;
        c.add_links(node.nid, 1, now())?;
        if self.filling.is_complete(node.ns, parent) {
            applied.invalid.push(Invalidation::Entry { parent, name: name.to_vec() });
        }
        Ok(())
    }

    /// A folder has one place: the server's. Where it was moved here, that move is undone.
    pub(super) fn free_other_places(
        &self,
        c: &Conn<'_>,
        node: &Node,
        applied: &mut Applied,
    ) -> Result<(), TreeError> {
        for (parent, name) in c.places(node.nid)? {
            let dir = c.node(parent)?.ok_or(TreeError::NotFound)?;
            self.journal.note_dirent(c, dir.ns, dir.id, &name, Some(node), None)?;
            c.delete_dirent(parent, &name)?;
            c.add_links(node.nid, -1, now())?;
            applied.invalid.push(Invalidation::Entry { parent, name });
        }
        Ok(())
    }

    /// The server puts `node` into `parent`, but here `parent` is below `node`: folders that were
    /// moved here go back. False when none was: then the server has moved one, and tells so later.
    fn break_cycle(
        &self,
        c: &Conn<'_>,
        parent: Nid,
        node: &Node,
        applied: &mut Applied,
    ) -> Result<bool, TreeError> {
        let mut undone = HashSet::new();
        while is_below(c, parent, node.nid)? {
            if !self.undo_a_move(c, parent, node.nid, &mut undone, applied)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes the first folder on the way from `from` up to `top` that was moved here, and was not
    /// `undone` before, back to where the server has it; to the top of its namespace when that
    /// place is gone. False when there is none.
    fn undo_a_move(
        &self,
        c: &Conn<'_>,
        from: Nid,
        top: Nid,
        undone: &mut HashSet<Nid>,
        applied: &mut Applied,
    ) -> Result<bool, TreeError> {
        let mut at = from;
        while at != top {
            let dir = c.node(at)?.ok_or(TreeError::NotFound)?;
            let home = c.base_places(&dir.id)?.into_iter().next();
            if let Some(home) = home.filter(|_| undone.insert(at)) {
                self.free_other_places(c, &dir, applied)?;
                let back = match c.node_by_id(&home.parent)? {
                    Some(folder) if folder.links > 0 && !is_below(c, folder.nid, at)? => folder,
                    _ => self.top_of(c, dir.ns)?,
                };
                let name = match c.dirent(back.nid, &home.name)? {
                    None => home.name,
                    Some(_) => self.free_conflict_name(c, back.nid, &home.name)?.into_bytes(),
                };
                self.journal.note_dirent(c, dir.ns, back.id, &name, None, Some(dir.id))?;
                c.put_dirent(back.nid, &name, at)?;
                c.add_links(at, 1, now())?;
                applied.invalid.push(Invalidation::Entry { parent: back.nid, name });
                return Ok(true);
            }
            match c.places(at)?.into_iter().next() {
                Some((up, _)) => at = up,
                None => return Ok(false),
            }
        }
        Ok(false)
    }

    /// The root folder of a namespace.
    pub(super) fn top_of(&self, c: &Conn<'_>, ns: NamespaceId) -> Result<Node, TreeError> {
        let space = c.namespace(ns)?.ok_or(TreeError::NotFound)?;
        c.node(space.root)?.ok_or(TreeError::NotFound)
    }

    /// Both sides put something new under one name.
    pub(super) fn collide(
        &self,
        c: &Conn<'_>,
        row: &DirentRow,
        parent: Nid,
        local: &Node,
        child: NodeId,
        applied: &mut Applied,
    ) -> Result<(), TreeError> {
        let name = row.name.as_bytes();
        let remote = c
            .node_by_id(&child)?
            .ok_or_else(|| TreeError::Protocol(format!("unknown node {child}")))?;
        let is_new_here = c.base_node(&local.id)?.is_some_and(|b| b.agreed.is_none());
        // A folder that was moved here brings its own entries: only if none of them meets another
        // can the two be one.
        let both_folders = local.kind == NodeKind::Dir
            && remote.kind == NodeKind::Dir
            && !c.shares_a_name(local.nid, remote.nid)?;
        let same_file = local.kind == NodeKind::File
            && remote.kind == NodeKind::File
            && local.content == remote.content
            && local.live.is_none()
            && local.frozen.is_none()
            // What was changed here, and moved there, is not what the server has.
            && !c.is_dirty(&remote.id)?;
        if is_new_here && remote.links == 0 && local.links == 1 && (both_folders || same_file) {
            return self.unite(c, row, local, &remote);
        }
        let free = self.free_conflict_name(c, parent, name)?;
        let dir = c.node(parent)?.ok_or(TreeError::NotFound)?;
        self.mark_separate(c, local, &remote, name)?;
        c.delete_dirent(parent, name)?;
        c.put_dirent(parent, free.as_bytes(), local.nid)?;
        c.delete_base_dirent(&row.parent, name)?;
        self.journal.note_dirent(c, dir.ns, dir.id, free.as_bytes(), None, Some(local.id))?;
        applied.invalid.push(Invalidation::Entry { parent, name: free.into_bytes() });
        self.place(c, row, parent, child, applied)
    }

    /// One and the same: what was made here takes the identity of what the server has.
    pub(super) fn unite(
        &self,
        c: &Conn<'_>,
        row: &DirentRow,
        local: &Node,
        remote: &Node,
    ) -> Result<(), TreeError> {
        c.delete_base_dirent(&row.parent, row.name.as_bytes())?;
        self.take_over(c, local, remote)
    }

    /// Gives what is here the identity of a remote node that has no name here.
    pub(super) fn take_over(
        &self,
        c: &Conn<'_>,
        local: &Node,
        remote: &Node,
    ) -> Result<(), TreeError> {
        // What is ahead of it here is not what the server has.
        let before = c.base_node(&remote.id)?;
        c.delete_node(remote.nid)?;
        c.move_children(remote.nid, local.nid)?;
        c.rename_base_parent(&local.id, &remote.id)?;
        c.delete_base_node(&local.id)?;
        let united = Node { id: remote.id, version: remote.version, ..local.clone() };
        c.update_node(&united)?;
        let known = before.filter(|base| base.agreed.is_some());
        c.put_base_node(&known.unwrap_or_else(|| BaseNode {
            id: remote.id,
            ns: remote.ns,
            agreed: Some((remote.attrs, remote.xattrs.clone())),
            content: remote.content.clone(),
            version: remote.version,
            inflight: Vec::new(),
            since: self.journal.tick(),
            at: now(),
            error: None,
        }))?;
        self.settle_node(c, &remote.id)
    }
}
