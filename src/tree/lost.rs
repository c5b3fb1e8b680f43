//! What the server lost when its data was restored from a backup, and this device still has, becomes
//! ahead of the server again: the list that it gives now is the base, what is here is the change.
//!
//! Both histories are the same up to a common seq. A row that the server changed last before that is
//! an older state of what was seen here: ours follows on it. One that changed after that was changed
//! since the restoring, by somebody who did not know ours: both count, by the rules of conflicts.
//! What was removed in the lost time comes back; what is not on this disk cannot be sent.

use std::collections::HashMap;
use std::collections::HashSet;

use drivefs_core::id::BlockHash;
use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::Seq;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::NodeRow;

use super::Tree;
use super::TreeError;
use super::each_entry;
use super::path_of;
use super::relist::Restored;
use super::relist::agreed_at;
use super::relist::each_listed_dirent;
use super::relist::each_node;
use super::relist::is_agreed;
use crate::journal::now;
use crate::state::BaseDirent;
use crate::state::BaseNode;
use crate::state::Conn;
use crate::state::Node;
use crate::state::Occupant;

/// Order of what is sent again: before all that is changed from now on, so that `sync` waits for it.
const FIRST: u64 = 1;

/// Contents of which every block is on this disk, with these blocks.
pub(super) type Held = HashMap<NodeId, (Vec<u8>, Vec<BlockHash>)>;

/// One namespace being brought back.
struct Work<'a> {
    tree: &'a Tree,
    c: &'a Conn<'a>,
    ns: NamespaceId,
    common: Seq,
    held: &'a Held,
    /// Nodes that go, because the server has removed them or nobody could send their content.
    dropped: HashSet<NodeId>,
    done: Restored,
}

impl Tree {
    /// Files that were changed or removed since the server was restored, in other ways than here,
    /// with the content that both sides had agreed on; at most `limit`.
    pub fn contested_since(
        &self,
        ns: NamespaceId,
        limit: usize,
    ) -> Result<Vec<(NodeId, Vec<u8>)>, TreeError> {
        let mut out = Vec::new();
        self.db.read(|c| {
            let Some(relist) = self.relist_in(c, ns)?.filter(|r| r.lost) else { return Ok(()) };
            each_node(c, ns, |node| {
                let since_then = (c.listed_node(ns, &node.id)?)
                    .filter(|row| row.seq > relist.common)
                    .is_some_and(|row| row.content.map(|b| b.0) != node.content);
                if let Some(content) = node.content.filter(|_| since_then && out.len() < limit) {
                    out.push((node.id, content));
                }
                Ok(())
            })
        })?;
        Ok(out)
    }

    /// The contents that the server lacks or has differently, as far as they are on this disk. Those
    /// of files in `old` need not be held.
    pub(super) fn held_contents(
        &self,
        ns: NamespaceId,
        old: &HashSet<NodeId>,
    ) -> Result<Held, TreeError> {
        let mut candidates = Vec::new();
        self.db.read(|c| {
            each_node(c, ns, |node| {
                let content = node.content.as_ref();
                let listed = c.listed_node(ns, &node.id)?;
                let there = listed.as_ref().filter(|row| !row.deleted);
                let there = there.and_then(|row| row.content.as_ref()).map(|b| &b.0);
                if content.is_some() && content != there && !old.contains(&node.id) {
                    candidates.push(node);
                }
                Ok(())
            })
        })?;
        let mut held = Held::new();
        for node in candidates {
            if let (Some(blocks), Some(content)) = (self.spool.blocks_here(&node)?, node.content) {
                held.insert(node.id, (content, blocks.into_iter().map(|b| b.0).collect()));
            }
        }
        Ok(held)
    }

    /// Notes what is ahead of a server whose history broke off at `common`. Inside a transaction,
    /// before the list is applied.
    pub(super) fn bring_back(
        &self,
        c: &Conn<'_>,
        ns: NamespaceId,
        common: Seq,
        held: &Held,
    ) -> Result<Restored, TreeError> {
        let done = Restored { at: now(), ..Restored::default() };
        let mut work = Work { tree: self, c, ns, common, held, dropped: HashSet::new(), done };
        each_node(c, ns, |node| work.node(&node))?;
        for (parent, name) in work.differing_places()? {
            work.entry(parent, &name)?;
        }
        Ok(work.done)
    }
}

impl Work<'_> {
    fn node(&mut self, node: &Node) -> Result<(), TreeError> {
        if node.kind == NodeKind::Mount || !is_agreed(self.c, node)? {
            return Ok(());
        }
        let listed = self.c.listed_node(self.ns, &node.id)?;
        match listed {
            Some(row) if node.links == 0 => self.removed_here(node, &row),
            None if node.links == 0 => Ok(()),
            None => self.unknown_there(node),
            Some(row) if row.deleted => self.removed_there(node, &row),
            Some(row) => self.other_there(node, &row),
        }
    }

    /// The removal stands, unless somebody gave it a new content since.
    fn removed_here(&self, node: &Node, row: &NodeRow) -> Result<(), TreeError> {
        let same = node.content.as_ref() == row.content.as_ref().map(|b| &b.0);
        let version = if row.seq > self.common && !same { 0 } else { row.version };
        Ok(self.c.update_node(&Node { version, ..node.clone() })?)
    }

    /// The server never had it, as far as it knows.
    fn unknown_there(&mut self, node: &Node) -> Result<(), TreeError> {
        if !self.hold(node)? && !self.is_edited(node)? {
            return self.give_up(node);
        }
        let inflight = self.c.base_node(&node.id)?.map(|b| b.inflight);
        self.c.put_base_node(&BaseNode {
            id: node.id,
            ns: self.ns,
            agreed: None,
            content: None,
            version: 0,
            inflight: inflight.unwrap_or_default(),
            since: FIRST,
            at: now(),
            error: None,
        })?;
        self.c.update_node(&Node { version: 0, source: None, ..node.clone() })?;
        self.done.sent_again += 1;
        Ok(())
    }

    /// The server has it in the trash.
    fn removed_there(&mut self, node: &Node, row: &NodeRow) -> Result<(), TreeError> {
        let edited = self.is_edited(node)?;
        let since_then = row.seq > self.common;
        let same = node.content.as_ref() == row.content.as_ref().map(|b| &b.0);
        if since_then && edited {
            return Ok(()); // An ordinary removal of what was edited here.
        }
        if since_then && (same || !self.hold(node)?) {
            self.dropped.insert(node.id);
            return Ok(());
        }
        if !edited && !self.hold(node)? {
            return self.give_up(node);
        }
        // It had come out of the trash in the time that is lost; the id of what is in it is used.
        self.tree.keep_as_new(self.c, node, 0)?;
        self.done.sent_again += 1;
        Ok(())
    }

    /// The server has it, maybe in another state.
    fn other_there(&mut self, node: &Node, row: &NodeRow) -> Result<(), TreeError> {
        let base = self.c.base_node(&node.id)?;
        let agreed = base.as_ref().map_or(&node.content, |b| &b.content);
        let there = row.content.as_ref().map(|b| b.0.clone());
        let since_then = row.seq > self.common;
        if *agreed == there {
            let known = base.as_ref().and_then(|b| b.agreed.clone());
            let (attrs, xattrs) = known.unwrap_or((node.attrs, node.xattrs.clone()));
            if !since_then && (base.is_some() || attrs != row.attrs || xattrs != row.xattrs) {
                self.follow_on(node, row, base)?;
            }
            return Ok(());
        }
        let edited = self.is_edited(node)?;
        let held = self.hold(node)?;
        if !since_then {
            if held || edited {
                self.done.sent_again += 1;
                return self.follow_on(node, row, base);
            }
            self.done.older += 1;
            tracing::warn!(
                path = path_of(self.c, node.nid)?,
                "the server lost a newer content, and it is not on this device"
            );
            return Ok(());
        }
        if held && !edited {
            // Changed by somebody since, from an older state: neither follows on the other.
            self.c.put_base_node(&BaseNode {
                id: node.id,
                ns: self.ns,
                agreed: Some((row.attrs, row.xattrs.clone())),
                content: None,
                version: 0,
                inflight: Vec::new(),
                since: FIRST,
                at: now(),
                error: None,
            })?;
            self.done.sent_again += 1;
        }
        Ok(())
    }

    /// What is here is a change of what the server has.
    fn follow_on(
        &self,
        node: &Node,
        row: &NodeRow,
        base: Option<BaseNode>,
    ) -> Result<(), TreeError> {
        self.c.put_base_node(&BaseNode {
            id: node.id,
            ns: self.ns,
            agreed: Some((row.attrs, row.xattrs.clone())),
            content: row.content.as_ref().map(|b| b.0.clone()),
            version: row.version,
            inflight: base.map(|b| b.inflight).unwrap_or_default(),
            since: FIRST,
            at: now(),
            error: None,
        })?;
        self.c.update_node(&Node { version: row.version, ..node.clone() })?;
        self.tree.settle_node(self.c, &node.id)
    }

    fn give_up(&mut self, node: &Node) -> Result<(), TreeError> {
        self.dropped.insert(node.id);
        self.done.gone += 1;
        tracing::warn!(
            path = path_of(self.c, node.nid)?,
            "the server lost this file, and its content is not on this device"
        );
        Ok(())
    }

    /// True when bytes were written here that the server did not have before either.
    fn is_edited(&self, node: &Node) -> Result<bool, TreeError> {
        let base = self.c.base_node(&node.id)?;
        Ok(node.live.is_some()
            || node.frozen.is_some()
            || base.is_some_and(|b| b.content != node.content))
    }

    /// Keeps all blocks of a content until they are sent; false when one is not here.
    fn hold(&self, node: &Node) -> Result<bool, TreeError> {
        let Some(content) = &node.content else { return Ok(true) };
        let Some((of, blocks)) = self.held.get(&node.id) else { return Ok(false) };
        if of != content {
            return Ok(false);
        }
        for hash in blocks {
            if !self.c.mark_unsent(hash)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Places where the server does not have what both sides agreed on.
    fn differing_places(&self) -> Result<HashSet<(NodeId, Vec<u8>)>, TreeError> {
        let (c, ns) = (self.c, self.ns);
        let mut places = HashSet::new();
        let mut check = |parent: NodeId, name: Vec<u8>| {
            let there = c.listed_dirent(ns, &parent, &name)?.and_then(|row| row.child);
            if agreed_at(c, &parent, &name)? != there {
                places.insert((parent, name));
            }
            Ok::<_, TreeError>(())
        };
        each_node(c, ns, |folder| {
            if !folder.kind.is_folder() {
                return Ok(());
            }
            each_entry(c, folder.nid, |entry| check(folder.id, entry.name))
        })?;
        for base in c.dirty_dirents(ns, 0, usize::MAX >> 1)? {
            check(base.parent, base.name)?;
        }
        each_listed_dirent(c, ns, |row| check(row.parent, row.name.as_bytes().to_vec()))?;
        Ok(places)
    }

    fn entry(&self, parent: NodeId, name: &[u8]) -> Result<(), TreeError> {
        let row = self.c.listed_dirent(self.ns, &parent, name)?;
        let there = row.as_ref().and_then(|row| row.child);
        // What somebody has put elsewhere since goes there.
        let our_own = match agreed_at(self.c, &parent, name)? {
            Some(id) => self.is_kept(&id)? && !self.was_placed_since(&id)?,
            None => false,
        };
        if row.is_some_and(|row| row.seq > self.common) {
            // Somebody changed the place since, and that stands. It was not about what is here:
            // that goes beside it.
            return if our_own { self.now_ahead(parent, name, None) } else { Ok(()) };
        }
        let known_there = match there {
            Some(id) => self.is_kept(&id)?,
            None => false,
        };
        let is_free = match self.c.nid_of(&parent)? {
            Some(nid) => self.c.dirent(nid, name)?.is_none(),
            None => true,
        };
        if our_own && there.is_some() && !known_there && is_free {
            // What was there before comes back.
            self.c.delete_base_dirent(&parent, name)?;
        } else if our_own || known_there {
            self.now_ahead(parent, name, there)?;
        }
        Ok(())
    }

    /// True for a node that stays in the tree here.
    fn is_kept(&self, id: &NodeId) -> Result<bool, TreeError> {
        if self.dropped.contains(id) {
            return Ok(false);
        }
        let Some(node) = self.c.node_by_id(id)? else { return Ok(false) };
        Ok(node.links > 0 || !self.c.base_places(id)?.is_empty())
    }

    /// True when the server has had it put where it is since the restoring.
    fn was_placed_since(&self, id: &NodeId) -> Result<bool, TreeError> {
        Ok(self.c.is_listed_behind(self.ns, id, self.common)?)
    }

    /// The server has `there` at a place; what is here is a change of that.
    fn now_ahead(
        &self,
        parent: NodeId,
        name: &[u8],
        there: Option<NodeId>,
    ) -> Result<(), TreeError> {
        let child = match there {
            Some(id) => {
                let row = self.c.listed_node(self.ns, &id)?;
                Some(Occupant { id, folder: row.is_some_and(|row| row.kind.is_folder()) })
            }
            None => None,
        };
        let (ns, name) = (self.ns, name.to_vec());
        self.c.put_base_dirent(&BaseDirent {
            parent,
            name: name.clone(),
            ns,
            child,
            since: FIRST,
        })?;
        self.tree.settle_dirent(self.c, &parent, &name)
    }
}
