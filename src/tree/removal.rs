//! Removals that the server tells, and removals made here that meet a remote edit: what was
//! changed survives either way.

use drivefs_core::id::NamespaceId;
use drivefs_core::id::Seq;
use drivefs_core::name::Name;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::DirentRow;
use drivefs_core::wire::NodeRow;
use drivefs_core::wire::Place;

use super::Invalidation;
use super::Tree;
use super::TreeError;
use super::apply::Applied;
use super::conflict::NAMELESS;
use super::cross::kept_id;
use super::each_entry;
use crate::journal::now;
use crate::state::BaseDirent;
use crate::state::Conn;
use crate::state::Nid;
use crate::state::Node;

impl Tree {
    /// True when content was changed here that the server does not have: of a file, or anywhere
    /// below a folder.
    pub(super) fn has_changes(&self, c: &Conn<'_>, node: &Node) -> Result<bool, TreeError> {
        let mut stack = vec![node.clone()];
        while let Some(node) = stack.pop() {
            if !node.kind.is_folder() {
                let has_layers = node.live.is_some() || node.frozen.is_some();
                let base = c.base_node(&node.id)?;
                if has_layers || base.is_some_and(|b| b.content != node.content) {
                    return Ok(true);
                }
                continue;
            }
            let mut ahead = false;
            each_entry(c, node.nid, |entry| {
                // An entry that the server does not have (with what it is now) is a change.
                ahead |= c.base_dirent(&node.id, &entry.name)?.is_some();
                stack.push(entry.node);
                Ok(())
            })?;
            if ahead {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Undoes a removal that the server has not taken yet: the node gets its places back, and the
    /// folders above it theirs.
    pub(super) fn restore_places(
        &self,
        c: &Conn<'_>,
        node: &Node,
        applied: &mut Applied,
    ) -> Result<(), TreeError> {
        for place in c.base_places(&node.id)? {
            let Some(dir) = c.node_by_id(&place.parent)? else { continue };
            if dir.links == 0 {
                self.restore_places(c, &dir, applied)?;
            }
            let taken = c.child(dir.nid, &place.name)?;
            let name = if taken.is_none() {
                c.delete_base_dirent(&place.parent, &place.name)?;
                place.name.clone()
            } else {
                // Something else took the name here meanwhile: it comes back beside it.
                let free = self.free_conflict_name(c, dir.nid, &place.name)?.into_bytes();
                self.journal.note_dirent(c, dir.ns, dir.id, &free, None, Some(node.id))?;
                free
            };
            c.put_dirent(dir.nid, &name, node.nid)?;
            c.add_links(node.nid, 1, now())?;
            if let (Some(taken), Some(placed)) = (taken, c.node(node.nid)?) {
                self.mark_separate(c, &placed, &taken, &place.name)?;
            }
            applied.invalid.push(Invalidation::Entry { parent: dir.nid, name });
        }
        Ok(())
    }

    /// The server removed an entry that is as it was here. `gone`: the node has no other entry
    /// there; else it was moved, and this page or a later one tells where to. Of what is gone,
    /// changed content survives.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn remove_entry(
        &self,
        c: &Conn<'_>,
        ns: NamespaceId,
        row: &DirentRow,
        parent: Nid,
        local: &Node,
        gone: bool,
        applied: &mut Applied,
    ) -> Result<(), TreeError> {
        let name = row.name.as_bytes();
        let survives = gone && local.links == 1 && self.has_changes(c, local)?;
        if survives && local.kind.is_folder() && !applied.at_end {
            // Its children's removals may come later in this page: judge when they are done.
            applied.later.push((row.clone(), parent));
            return Ok(());
        }
        if survives {
            let kept = self.keep_as_new(c, local, row.seq)?;
            c.put_base_dirent(&BaseDirent {
                parent: row.parent,
                name: name.to_vec(),
                ns,
                child: None,
                since: self.journal.tick(),
            })?;
            tracing::info!(node = %kept.id, "removed by the server but changed here: kept");
            return Ok(());
        }
        if gone && local.links == 1 {
            // Whoever still writes to it gets it back here, as a conflict file.
            applied.superseded.push((local.nid, vec![(parent, name.to_vec())]));
        }
        c.delete_dirent(parent, name)?;
        c.add_links(local.nid, -1, now())?;
        c.mark_taken(local.nid)?;
        let (name, nid) = (name.to_vec(), local.nid);
        applied.invalid.push(if gone && local.links == 1 && local.kind == NodeKind::File {
            Invalidation::Gone { parent, name, nid }
        } else {
            Invalidation::Entry { parent, name }
        });
        Ok(())
    }

    /// A node that the server deleted goes with its last name here. One that still has a name
    /// made here (moved or linked meanwhile) stays as a new node.
    pub(super) fn drop_deleted(
        &self,
        c: &Conn<'_>,
        ns: NamespaceId,
        row: &NodeRow,
        applied: &mut Applied,
    ) -> Result<(), TreeError> {
        let Some(local) = c.node_by_id(&row.node)? else { return Ok(()) };
        self.drop_agreed_names(c, ns, &local, row.seq, applied)?;
        let Some(local) = c.node_by_id(&row.node)? else { return Ok(()) };
        if local.links > 0 {
            if self.join_kept(c, &local, row.seq, applied)? {
                return Ok(());
            }
            self.keep_as_new(c, &local, row.seq)?;
            return Ok(());
        }
        if !c.is_taken(local.nid)? {
            // Removed here: who has it open writes to a deleted file.
            c.delete_base_node(&local.id)?;
            return self.drop_if_done(c, &local.id);
        }
        if self.has_changes(c, &local)? {
            return self.name_again(c, ns, &local, (row.last.as_ref(), row.seq), applied);
        }
        c.delete_base_node(&local.id)?;
        // Whoever has it open and writes to it gets it back there.
        let last = match row.last.as_ref() {
            Some(place) => {
                c.nid_of(&place.parent)?.map(|dir| (dir, place.name.as_bytes().to_vec()))
            }
            None => None,
        };
        self.supersede(c, &local, last.as_slice(), applied)
    }

    /// Another device has kept the same already, elsewhere: the two are one file, and the move made
    /// here counts. False when there is no such file, or when either has more than one name.
    fn join_kept(
        &self,
        c: &Conn<'_>,
        local: &Node,
        removed: Seq,
        applied: &mut Applied,
    ) -> Result<bool, TreeError> {
        let Some(id) = kept_id(local, removed) else { return Ok(false) };
        let is_same = |kept: &Node| kept.kind == NodeKind::File && kept.content == local.content;
        let Some(kept) = c.node_by_id(&id)?.filter(is_same) else { return Ok(false) };
        let places = c.places(kept.nid)?;
        let ([(parent, name)], 1) = (places.as_slice(), local.links) else { return Ok(false) };
        if c.is_dirty(&id)? || self.spool.loaded(kept.nid).is_some() {
            return Ok(false);
        }
        let dir = c.node(*parent)?.ok_or(TreeError::NotFound)?;
        self.journal.note_dirent(c, dir.ns, dir.id, name, Some(&kept), None)?;
        c.delete_dirent(*parent, name)?;
        applied.invalid.push(Invalidation::Entry { parent: *parent, name: name.clone() });
        self.take_over(c, local, &kept)?;
        Ok(true)
    }

    /// What an earlier page moved away from here, and this one deletes, was changed here: it comes
    /// back as a new node where the server last had it, or at the top if that folder is gone.
    pub(super) fn name_again(
        &self,
        c: &Conn<'_>,
        ns: NamespaceId,
        local: &Node,
        (last, removed): (Option<&Place>, Seq),
        applied: &mut Applied,
    ) -> Result<(), TreeError> {
        let kept = self.keep_as_new(c, local, removed)?;
        let folder = match last {
            Some(place) => c.node_by_id(&place.parent)?.filter(|dir| dir.links > 0),
            None => None,
        };
        let dir = match folder {
            Some(dir) => dir,
            None => self.top_of(c, ns)?,
        };
        let name = last.map_or(NAMELESS, |place| place.name.as_bytes());
        let name = match c.dirent(dir.nid, name)? {
            None => name.to_vec(),
            Some(_) => self.free_conflict_name(c, dir.nid, name)?.into_bytes(),
        };
        tracing::info!(node = %kept.id, "deleted by the server but changed here: kept");
        self.journal.note_dirent(c, dir.ns, dir.id, &name, None, Some(kept.id))?;
        c.put_dirent(dir.nid, &name, kept.nid)?;
        c.add_links(kept.nid, 1, now())?;
        applied.invalid.push(Invalidation::Entry { parent: dir.nid, name });
        Ok(())
    }

    /// Names of a deleted node that were not made here: the server has given them to something else
    /// since, which a later page tells.
    fn drop_agreed_names(
        &self,
        c: &Conn<'_>,
        ns: NamespaceId,
        local: &Node,
        seq: Seq,
        applied: &mut Applied,
    ) -> Result<(), TreeError> {
        for (parent, name) in c.places(local.nid)? {
            let dir = c.node(parent)?.ok_or(TreeError::NotFound)?;
            if c.base_dirent(&dir.id, &name)?.is_some() {
                continue;
            }
            let gone = DirentRow { parent: dir.id, name: Name::new(name)?, child: None, seq };
            let local = c.node(local.nid)?.ok_or(TreeError::NotFound)?;
            self.remove_entry(c, ns, &gone, parent, &local, true, applied)?;
        }
        Ok(())
    }
}
