//! What the server has taken becomes the new base of what is ahead.

use std::collections::HashSet;

use drivefs_core::id::BlockHash;
use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::Seq;
use drivefs_core::id::VersionNo;
use drivefs_core::node::Attrs;
use drivefs_core::node::Xattrs;
use drivefs_core::wire::Change;
use drivefs_core::wire::Place;
use drivefs_core::wire::Point;

use super::Tree;
use super::TreeError;
use super::apply::Applied;
use crate::journal::now;
use crate::state::BaseDirent;
use crate::state::BaseNode;
use crate::state::Conn;
use crate::state::NamespaceRow;
use crate::state::Occupant;

/// A change that the server has taken.
#[derive(Debug, Clone)]
pub struct SentOp {
    pub change: Change,
    /// The commit that did it.
    pub seq: Seq,
    /// Head version of the node after it.
    pub version: VersionNo,
    /// Blocks of its content that the server is known to hold and refer to now.
    pub blocks: Vec<BlockHash>,
    /// It carries all that was changed before the journal came to this position: what is still
    /// ahead counts from here, so that a `sync` begun since then waits for it. None when that is
    /// not known: then what is ahead keeps its place.
    pub complete_to: Option<u64>,
}

impl Tree {
    /// Takes the server's answer to a commit: the ops that are done, and a point of its history where
    /// they are; one transaction. When nothing else was committed before them, they need not be
    /// pulled: the cursor moves past them.
    pub fn sent(&self, ns: NamespaceId, ops: &[SentOp], at: Point) -> Result<(), TreeError> {
        // Before the intents go: from then on nothing else holds back what is older.
        self.note_committed(ns, ops);
        let mut applied = self.db.write(|c| {
            let mut applied = Applied::default();
            self.answered(c, ns)?;
            // An answer that is given again may point to what others did since.
            let is_ours = ops.iter().any(|op| op.seq == at.seq);
            if is_ours {
                c.note_point(ns, at)?;
            }
            if let Some(space) = c.namespace(ns)?.filter(|s| is_ours && s.cursor + 1 == at.seq) {
                c.move_cursor(&NamespaceRow { cursor: at.seq, ..space }, at.epoch)?;
            }
            let mut rest = Vec::new();
            for op in ops {
                if !self.take_created(c, op)? {
                    self.take_sent(c, ns, op)?;
                    rest.push(op);
                }
            }
            for op in rest {
                self.take_while_gone(c, &op.change)?;
                self.settle_node(c, &op.change.node())?;
                self.drop_if_done(c, &op.change.node())?;
                let lost_name = match &op.change {
                    Change::Unlink { node, place, .. } => Some((node, place)),
                    Change::Move { replace: Some(other), to, .. } => Some((other, to)),
                    _ => None,
                };
                if let Some((node, place)) = lost_name {
                    self.drop_if_done(c, node)?;
                    self.keep_homeless(c, ns, node, place, &mut applied)?;
                }
            }
            Ok::<_, TreeError>(applied)
        })?;
        self.after_apply(&mut applied)
    }

    /// A file with two names lost one there and the one at `place` here: the server has it no more. What
    /// was written to it meanwhile is kept there, or beside what is there now.
    fn keep_homeless(
        &self,
        c: &Conn<'_>,
        ns: NamespaceId,
        id: &NodeId,
        place: &Place,
        applied: &mut Applied,
    ) -> Result<(), TreeError> {
        let Some(node) = c.node_by_id(id)?.filter(|n| n.links == 0) else { return Ok(()) };
        if !c.is_taken(node.nid)? || !c.base_places(id)?.is_empty() {
            return Ok(());
        }
        if !self.has_changes(c, &node)? {
            c.delete_base_node(id)?;
            return self.drop_if_done(c, id);
        }
        self.name_again(c, ns, &node, (Some(place), 0), applied)
    }

    /// Forgets all refusals: the changes are about to be tried again.
    pub fn forget_refusals(&self) -> Result<(), TreeError> {
        Ok(self.db.write(|c| c.clear_sync_errors())?)
    }

    /// Nodes of a namespace that moved into another one, whose server side does not have them yet.
    pub fn moving_out(&self, ns: NamespaceId) -> Result<HashSet<NodeId>, TreeError> {
        Ok(self.db.peek(|c| c.sources_in(ns))?.into_iter().collect())
    }

    /// Notes why the server refused a node's change.
    pub fn refused(&self, node: &NodeId, why: &str) -> Result<(), TreeError> {
        Ok(self.db.write(|c| c.set_sync_error(node, Some(why)))?)
    }

    /// The common case: a file or folder was created and is here as it was sent. Its intents go.
    /// False when there is more to it.
    fn take_created(&self, c: &Conn<'_>, op: &SentOp) -> Result<bool, TreeError> {
        let (id, place, attrs, xattrs, content) = match &op.change {
            Change::Put { node, create: Some(place), content, attrs, xattrs, .. } => {
                (node, place, attrs, xattrs, Some(&content.0))
            }
            Change::Mkdir { node, place, attrs, xattrs } => (node, place, attrs, xattrs, None),
            _ => return Ok(false),
        };
        let Some(local) = c.node_by_id(id)? else { return Ok(false) };
        let as_sent = local.live.is_none()
            && local.frozen.is_none()
            && local.content.as_ref() == content
            && local.attrs == *attrs
            && local.xattrs == *xattrs;
        let name = place.name.as_bytes();
        let there = match c.nid_of(&place.parent)? {
            Some(parent) => c.dirent(parent, name)? == Some(local.nid),
            None => false,
        };
        if !as_sent || !there {
            return Ok(false);
        }
        for hash in &op.blocks {
            c.mark_sent(hash)?;
        }
        c.delete_base_node(id)?;
        c.delete_base_dirent(&place.parent, name)?;
        c.set_version(id, op.version)?;
        Ok(true)
    }

    fn take_sent(&self, c: &Conn<'_>, ns: NamespaceId, op: &SentOp) -> Result<(), TreeError> {
        let ahead = op.complete_to;
        self.stand_in(c, ns, &op.change, op.version)?;
        match &op.change {
            Change::Put { node, create, content, attrs, xattrs, .. } => {
                for hash in &op.blocks {
                    c.mark_sent(hash)?;
                }
                let content = Some(content.0.as_slice());
                match create {
                    Some(place) => {
                        self.now_known(c, ns, node, (attrs, xattrs), (content, op.version), ahead)?;
                        self.now_at(c, ns, place, Some((node, false)), ahead)?;
                    }
                    None => self.now_has(c, node, attrs, (content, op.version), ahead)?,
                }
                self.set_version(c, node, op.version)
            }
            Change::Mkdir { node, place, attrs, xattrs } => {
                self.now_known(c, ns, node, (attrs, xattrs), (None, 0), ahead)?;
                self.set_version(c, node, 0)?;
                self.now_at(c, ns, place, Some((node, true)), ahead)
            }
            Change::Symlink { node, place, attrs, xattrs, .. }
            | Change::Mknod { node, place, attrs, xattrs, .. } => {
                self.now_known(c, ns, node, (attrs, xattrs), (None, 0), ahead)?;
                self.set_version(c, node, 0)?;
                self.now_at(c, ns, place, Some((node, false)), ahead)
            }
            // Commands restore, the engine does not: what came of it is pulled.
            Change::Restore { .. } | Change::Revert { .. } => Ok(()),
            Change::Link { node, place } => self.now_at(c, ns, place, Some((node, false)), ahead),
            Change::Move { node, from, to, replace, exchange, .. } => {
                let moved_folder = self.folder_at(c, from, node)?;
                let back = match replace {
                    Some(other) if *exchange => Some((other, self.folder_at(c, to, other)?)),
                    _ => None,
                };
                self.now_at(c, ns, from, back, ahead)?;
                self.now_at(c, ns, to, Some((node, moved_folder)), ahead)
            }
            Change::Unlink { place, .. } | Change::Rmdir { place, .. } => {
                self.now_at(c, ns, place, None, ahead)
            }
            Change::Setattr { node, attrs } => {
                if let Some(mut base) = c.base_node(node)?
                    && let Some(agreed) = &mut base.agreed
                {
                    agreed.0 = *attrs;
                    base.error = None;
                    base.since = ahead.unwrap_or(base.since);
                    c.put_base_node(&base)?;
                }
                Ok(())
            }
            Change::Setxattr { node, name, value } => {
                if let Some(mut base) = c.base_node(node)?
                    && let Some(agreed) = &mut base.agreed
                {
                    match value {
                        Some(value) => agreed.1.insert(name.clone(), value.clone()),
                        None => agreed.1.remove(name),
                    };
                    c.put_base_node(&base)?;
                }
                Ok(())
            }
        }
    }

    /// The server has a node that it did not have.
    fn now_known(
        &self,
        c: &Conn<'_>,
        ns: NamespaceId,
        id: &NodeId,
        agreed: (&Attrs, &Xattrs),
        (content, version): (Option<&[u8]>, VersionNo),
        ahead: Option<u64>,
    ) -> Result<(), TreeError> {
        let before = c.base_node(id)?;
        let since = ahead.or(before.as_ref().map(|b| b.since));
        c.put_base_node(&BaseNode {
            id: *id,
            ns,
            agreed: Some((*agreed.0, agreed.1.clone())),
            content: content.map(<[u8]>::to_vec),
            version,
            inflight: Vec::new(),
            since: since.unwrap_or_else(|| self.journal.tick()),
            at: before.map_or_else(now, |b| b.at),
            error: None,
        })?;
        Ok(())
    }

    /// The server has a new version of a node.
    fn now_has(
        &self,
        c: &Conn<'_>,
        id: &NodeId,
        attrs: &Attrs,
        (content, version): (Option<&[u8]>, VersionNo),
        ahead: Option<u64>,
    ) -> Result<(), TreeError> {
        let Some(base) = c.base_node(id)? else { return Ok(()) };
        let xattrs = base.agreed.as_ref().map(|a| a.1.clone()).unwrap_or_default();
        c.put_base_node(&BaseNode {
            agreed: Some((*attrs, xattrs)),
            content: content.map(<[u8]>::to_vec),
            version,
            inflight: Vec::new(),
            error: None,
            since: ahead.unwrap_or(base.since),
            ..base
        })?;
        Ok(())
    }

    fn set_version(&self, c: &Conn<'_>, id: &NodeId, version: VersionNo) -> Result<(), TreeError> {
        Ok(c.set_version(id, version)?)
    }

    /// The server has this at a place now.
    fn now_at(
        &self,
        c: &Conn<'_>,
        ns: NamespaceId,
        place: &Place,
        child: Option<(&NodeId, bool)>,
        ahead: Option<u64>,
    ) -> Result<(), TreeError> {
        let name = place.name.as_bytes();
        let since = match ahead {
            Some(since) => since,
            None => {
                c.base_dirent(&place.parent, name)?.map_or_else(|| self.journal.tick(), |b| b.since)
            }
        };
        c.put_base_dirent(&BaseDirent {
            parent: place.parent,
            name: name.to_vec(),
            ns,
            child: child.map(|(id, folder)| Occupant { id: *id, folder }),
            since,
        })?;
        self.settle_dirent(c, &place.parent, name)
    }

    fn folder_at(&self, c: &Conn<'_>, place: &Place, id: &NodeId) -> Result<bool, TreeError> {
        if let Some(node) = c.node_by_id(id)? {
            return Ok(node.kind.is_folder());
        }
        let base = c.base_dirent(&place.parent, place.name.as_bytes())?;
        Ok(base.and_then(|b| b.child).is_some_and(|o| o.id == *id && o.folder))
    }
}
