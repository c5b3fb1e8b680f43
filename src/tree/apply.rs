//! Changes that the server tells: one page, one transaction, the cursor with it.
//!
//! What is not ahead here follows the server. Where both sides changed, `resolve` decides and no
//! byte written here is dropped. A file whose content or mtime changed remotely becomes a new
//! inode under the same name: open handles read on what they opened, and the kernel, which trusts
//! its own sizes and times under the writeback cache, never mixes the two.

use std::cmp::Reverse;
use std::collections::HashSet;

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::Seq;
use drivefs_core::manifest::Root;
use drivefs_core::node::Attrs;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::ChangesReply;
use drivefs_core::wire::DirentRow;
use drivefs_core::wire::NodeRow;

use super::Invalidation;
use super::Tree;
use super::TreeError;
use super::new_id;
use super::rename::is_below;
use super::resolve::Contents;
use super::resolve::Verdict;
use super::resolve::merge_attrs;
use super::resolve::merge_xattrs;
use super::resolve::resolve_content;
use crate::journal::now;
use crate::state::BaseDirent;
use crate::state::BaseNode;
use crate::state::Conn;
use crate::state::NamespaceRow;
use crate::state::Nid;
use crate::state::Node;
use crate::state::Occupant;
use crate::state::ROOT;

/// What applying a page brought to light.
#[derive(Debug, Default)]
pub struct Applied {
    /// Namespaces that this page's mount nodes lead to and that are not in the replica yet.
    pub new_namespaces: Vec<NamespaceId>,
    invalid: Vec<Invalidation>,
    gone: Vec<Node>,
    /// Removals of folders that hold changes, to be judged at the end of the page.
    later: Vec<(DirentRow, Nid)>,
    at_end: bool,
}

impl Tree {
    /// Applies one page of changes of a namespace. `is_root`: its root is the root of the mount.
    pub fn apply(
        &self,
        ns: NamespaceId,
        is_root: bool,
        page: &ChangesReply,
    ) -> Result<Applied, TreeError> {
        let mut applied = self.db.write(|c| {
            let mut applied = Applied::default();
            let space = self.enter(c, ns, is_root, page)?;
            for row in &page.nodes {
                self.apply_node(c, ns, row, &mut applied)?;
            }
            let mut dirents: Vec<&DirentRow> = page.dirents.iter().collect();
            // Within one commit removals come first: a moved folder has one place at a time.
            dirents.sort_by_key(|d| (d.seq, d.child.is_some()));
            let deleted: HashSet<NodeId> =
                page.nodes.iter().filter(|r| r.deleted).map(|r| r.node).collect();
            for row in dirents {
                self.apply_dirent(c, ns, row, &deleted, &mut applied)?;
            }
            applied.at_end = true;
            let mut later = std::mem::take(&mut applied.later);
            // Deepest first: what is kept below is what keeps the folder above.
            let mut depths = Vec::new();
            for (row, parent) in &later {
                depths.push((row.parent, depth(c, *parent)?));
            }
            later.sort_by_key(|(row, _)| {
                Reverse(depths.iter().find(|d| d.0 == row.parent).map_or(0, |d| d.1))
            });
            for (row, _) in &later {
                self.apply_dirent(c, ns, row, &deleted, &mut applied)?;
            }
            for row in page.nodes.iter().filter(|r| r.deleted) {
                self.drop_deleted(c, row, &mut applied)?;
            }
            c.put_namespace(&NamespaceRow { cursor: page.cursor, role: page.role, ..space })?;
            Ok::<_, TreeError>(applied)
        })?;
        self.announce(std::mem::take(&mut applied.invalid));
        for node in std::mem::take(&mut applied.gone) {
            self.spool.discard(&node)?;
        }
        Ok(applied)
    }

    /// The cursor of a namespace; none when it is not in the replica yet.
    pub fn cursor(&self, ns: NamespaceId) -> Result<Option<Seq>, TreeError> {
        Ok(self.db.peek(|c| c.namespace(ns))?.map(|s| s.cursor))
    }

    /// The namespace's row, made with its root folder at the first page.
    fn enter(
        &self,
        c: &Conn<'_>,
        ns: NamespaceId,
        is_root: bool,
        page: &ChangesReply,
    ) -> Result<NamespaceRow, TreeError> {
        if let Some(space) = c.namespace(ns)? {
            return Ok(space);
        }
        let nid = if is_root { ROOT } else { self.new_nid() };
        let time = now();
        let attrs = Attrs { mode: 0o755, uid: None, gid: None, mtime: time, btime: time };
        let node =
            Node { nid, id: page.root, ns, kind: NodeKind::Dir, attrs, links: 1, ..blank(time) };
        c.insert_node(&node)?;
        let space = NamespaceRow { ns, root: nid, cursor: 0, role: page.role };
        c.put_namespace(&space)?;
        Ok(space)
    }

    fn apply_node(
        &self,
        c: &Conn<'_>,
        ns: NamespaceId,
        row: &NodeRow,
        applied: &mut Applied,
    ) -> Result<(), TreeError> {
        if row.deleted {
            return Ok(()); // Its entries' tombstones do the work, then `drop_deleted`.
        }
        if let Some(target) = row.mount
            && c.namespace(target)?.is_none()
        {
            applied.new_namespaces.push(target);
        }
        let Some(local) = c.node_by_id(&row.node)? else {
            return Ok(c.insert_node(&from_row(self.new_nid(), ns, row)?)?);
        };
        if local.links == 0 && row.version > local.version {
            // Removed here, edited there: the edit survives.
            let restored = Node { links: 0, ..from_row(local.nid, ns, row)? };
            c.update_node(&restored)?;
            return self.restore_places(c, &restored, applied);
        }
        match c.base_node(&row.node)? {
            None => self.follow(c, &local, row, applied),
            Some(base) => self.merge(c, &local, base, row, applied),
        }
    }

    /// A node that is not ahead here takes the remote state.
    fn follow(
        &self,
        c: &Conn<'_>,
        local: &Node,
        row: &NodeRow,
        applied: &mut Applied,
    ) -> Result<(), TreeError> {
        let remote = from_row(local.nid, local.ns, row)?;
        let same = local.attrs == remote.attrs
            && local.xattrs == remote.xattrs
            && local.content == remote.content;
        if same {
            if local.version != remote.version {
                c.update_node(&Node { version: remote.version, ..local.clone() })?;
            }
            return Ok(());
        }
        self.replace_state(c, local, remote, applied)
    }

    /// Gives a node another state: in place where the kernel takes that, else as a new inode.
    fn replace_state(
        &self,
        c: &Conn<'_>,
        local: &Node,
        mut remote: Node,
        applied: &mut Applied,
    ) -> Result<(), TreeError> {
        remote.links = local.links;
        remote.ctime = now();
        let renumber = local.kind == NodeKind::File
            && (local.content != remote.content || local.attrs.mtime != remote.attrs.mtime);
        if !renumber {
            c.update_node(&Node { live: local.live, frozen: local.frozen, ..remote })?;
            applied.invalid.push(Invalidation::Attrs { nid: local.nid });
            return Ok(());
        }
        remote.nid = self.new_nid();
        let places = c.places(local.nid)?;
        self.supersede(c, local, &places, applied)?;
        c.insert_node(&remote)?;
        for (parent, name) in places {
            c.put_dirent(parent, &name, remote.nid)?;
            applied.invalid.push(Invalidation::Entry { parent, name });
        }
        Ok(())
    }

    /// Takes id and names from a row: what has it open keeps it, else it goes.
    fn supersede(
        &self,
        c: &Conn<'_>,
        local: &Node,
        places: &[(Nid, Vec<u8>)],
        applied: &mut Applied,
    ) -> Result<(), TreeError> {
        match self.spool.loaded(local.nid) {
            Some(content) => {
                c.update_node(&Node { id: new_id(), links: 0, superseded: true, ..local.clone() })?;
                content.parts_mut().superseded = Some(places.to_vec());
            }
            None => {
                c.delete_node(local.nid)?;
                applied.gone.push(local.clone());
            }
        }
        Ok(())
    }

    /// A node that is ahead here, and changed remotely (or our own change comes back).
    fn merge(
        &self,
        c: &Conn<'_>,
        local: &Node,
        base: BaseNode,
        row: &NodeRow,
        applied: &mut Applied,
    ) -> Result<(), TreeError> {
        let remote = from_row(local.nid, local.ns, row)?;
        let verdict = resolve_content(&Contents {
            base: base.content.as_deref(),
            remote: remote.content.as_deref(),
            local: local.content.as_deref(),
            has_layers: local.live.is_some() || local.frozen.is_some(),
            inflight: base.inflight.as_deref(),
        });
        let agreed = base.agreed.as_ref();
        let attrs = merge_attrs(agreed.map(|a| &a.0), &local.attrs, &remote.attrs);
        let xattrs = merge_xattrs(agreed.map(|a| &a.1), &local.xattrs, &remote.xattrs);
        let old_version = base.version;
        c.put_base_node(&BaseNode {
            agreed: Some((remote.attrs, remote.xattrs.clone())),
            content: remote.content.clone(),
            version: remote.version,
            error: None,
            ..base
        })?;
        match verdict {
            Verdict::KeepLocal | Verdict::Same => {
                let merged = Node { attrs, xattrs, version: remote.version, ..local.clone() };
                // An mtime that came from elsewhere needs a new inode, as in `replace_state`;
                // with bytes under way in this one that waits for the next change.
                c.update_node(&merged)?;
                if attrs != local.attrs {
                    applied.invalid.push(Invalidation::Attrs { nid: local.nid });
                }
            }
            Verdict::TakeRemote => {
                self.replace_state(c, local, Node { attrs, xattrs, ..remote }, applied)?;
            }
            Verdict::Conflict => {
                let places = c.places(local.nid)?;
                applied.invalid.extend(self.become_conflict(c, local, &places, old_version)?);
                let nid = self.new_nid();
                c.insert_node(&Node { nid, links: local.links, ..remote })?;
                for (parent, name) in places {
                    c.put_dirent(parent, &name, nid)?;
                    applied.invalid.push(Invalidation::Entry { parent, name });
                }
                c.delete_base_node(&row.node)?;
            }
        }
        self.settle_node(c, &row.node)
    }

    fn apply_dirent(
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
        if local.as_ref().map(|n| n.id) == row.child {
            return Ok(c.delete_base_dirent(&row.parent, name)?);
        }
        let ahead = base.is_some();
        match (local, row.child) {
            (None, None) => Ok(c.delete_base_dirent(&row.parent, name)?),
            (None, Some(child)) => {
                // Removed here: that was about what the server had then.
                if base.as_ref().is_some_and(|b| b.child.map(|o| o.id) == Some(child)) {
                    return Ok(());
                }
                c.delete_base_dirent(&row.parent, name)?;
                self.place(c, parent, name, child, applied)
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
                self.place(c, parent, name, child, applied)
            }
        }
    }

    /// The entry stays ahead here; what the server has there is now this.
    fn rebase_entry(
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

    /// Puts a remote node under a name that is free here.
    fn place(
        &self,
        c: &Conn<'_>,
        parent: Nid,
        name: &[u8],
        child: NodeId,
        applied: &mut Applied,
    ) -> Result<(), TreeError> {
        let Some(node) = c.node_by_id(&child)? else {
            return Err(TreeError::Protocol(format!("an entry names the unknown node {child}")));
        };
        if node.kind.is_folder() {
            self.free_other_places(c, &node, applied)?;
            self.break_cycle(c, parent, &node, applied)?;
        }
        c.put_dirent(parent, name, node.nid)?;
        c.add_links(node.nid, 1, now())?;
        applied.invalid.push(Invalidation::Entry { parent, name: name.to_vec() });
        Ok(())
    }

    /// A folder has one place: the server's. Where it was moved here, that move is undone.
    fn free_other_places(
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

    /// The server puts `node` into `parent`, but here `parent` was moved below `node`: the local
    /// move goes back to where the server has the folder.
    fn break_cycle(
        &self,
        c: &Conn<'_>,
        parent: Nid,
        node: &Node,
        applied: &mut Applied,
    ) -> Result<(), TreeError> {
        while is_below(c, parent, node.nid)? {
            let mut at = parent;
            let undone = loop {
                let dir = c.node(at)?.ok_or(TreeError::NotFound)?;
                if let Some(home) = c.base_places(&dir.id)?.into_iter().next()
                    && let Some(home_nid) = c.nid_of(&home.parent)?
                {
                    self.free_other_places(c, &dir, applied)?;
                    if c.dirent(home_nid, &home.name)?.is_none() {
                        self.journal.note_dirent(
                            c,
                            dir.ns,
                            home.parent,
                            &home.name,
                            None,
                            Some(dir.id),
                        )?;
                        c.put_dirent(home_nid, &home.name, dir.nid)?;
                        c.add_links(dir.nid, 1, now())?;
                        applied
                            .invalid
                            .push(Invalidation::Entry { parent: home_nid, name: home.name });
                        break true;
                    }
                }
                match c.places(at)?.into_iter().next() {
                    Some((up, _)) if at != node.nid => at = up,
                    _ => break false,
                }
            };
            if !undone {
                return Err(TreeError::Protocol("folders of the server form a cycle".into()));
            }
        }
        Ok(())
    }

    /// True when content was changed here that the server does not have: of a file, or anywhere
    /// below a folder.
    fn has_changes(&self, c: &Conn<'_>, node: &Node) -> Result<bool, TreeError> {
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
            let mut after = Vec::new();
            loop {
                let entries = c.children(node.nid, &after, 512)?;
                let Some(last) = entries.last() else { break };
                after.clone_from(&last.name);
                for entry in entries {
                    // An entry that the server does not have (with what it is now).
                    if c.base_dirent(&node.id, &entry.name)?.is_some() {
                        return Ok(true);
                    }
                    stack.push(entry.node);
                }
            }
        }
        Ok(false)
    }

    /// Undoes a removal that the server has not taken yet: the node gets its places back, and the
    /// folders above it theirs.
    fn restore_places(
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
            if c.dirent(dir.nid, &place.name)?.is_none() {
                c.put_dirent(dir.nid, &place.name, node.nid)?;
                c.add_links(node.nid, 1, now())?;
                c.delete_base_dirent(&place.parent, &place.name)?;
                applied.invalid.push(Invalidation::Entry { parent: dir.nid, name: place.name });
            }
        }
        Ok(())
    }

    /// The server removed an entry that is as it was here. `gone`: the node has no other entry
    /// there; else it was moved, and this page or a later one tells where to. Of what is gone,
    /// changed content survives.
    #[allow(clippy::too_many_arguments)]
    fn remove_entry(
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
            let kept = self.keep_as_new(c, local)?;
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
        c.delete_dirent(parent, name)?;
        c.add_links(local.nid, -1, now())?;
        applied.invalid.push(Invalidation::Entry { parent, name: name.to_vec() });
        Ok(())
    }

    /// Both sides put something new under one name.
    fn collide(
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
        let both_folders = local.kind == NodeKind::Dir && remote.kind == NodeKind::Dir;
        let same_file = local.kind == NodeKind::File
            && remote.kind == NodeKind::File
            && local.content == remote.content
            && local.live.is_none()
            && local.frozen.is_none();
        if is_new_here && remote.links == 0 && local.links == 1 && (both_folders || same_file) {
            return self.unite(c, row, local, &remote);
        }
        let free = self.free_conflict_name(c, parent, name)?;
        let dir = c.node(parent)?.ok_or(TreeError::NotFound)?;
        c.delete_dirent(parent, name)?;
        c.put_dirent(parent, free.as_bytes(), local.nid)?;
        c.delete_base_dirent(&row.parent, name)?;
        self.journal.note_dirent(c, dir.ns, dir.id, free.as_bytes(), None, Some(local.id))?;
        applied.invalid.push(Invalidation::Entry { parent, name: free.into_bytes() });
        self.place(c, parent, name, child, applied)
    }

    /// One and the same: what was made here takes the identity of what the server has.
    fn unite(
        &self,
        c: &Conn<'_>,
        row: &DirentRow,
        local: &Node,
        remote: &Node,
    ) -> Result<(), TreeError> {
        c.delete_node(remote.nid)?;
        c.move_children(remote.nid, local.nid)?;
        c.rename_base_parent(&local.id, &remote.id)?;
        c.delete_base_node(&local.id)?;
        c.delete_base_dirent(&row.parent, row.name.as_bytes())?;
        let united = Node { id: remote.id, version: remote.version, ..local.clone() };
        c.update_node(&united)?;
        c.put_base_node(&BaseNode {
            id: remote.id,
            ns: remote.ns,
            agreed: Some((remote.attrs, remote.xattrs.clone())),
            content: remote.content.clone(),
            version: remote.version,
            inflight: None,
            since: self.journal.tick(),
            at: now(),
            error: None,
        })?;
        self.settle_node(c, &remote.id)
    }

    /// A node that the server deleted goes with its last name here. One that still has a name
    /// (moved or linked here meanwhile) stays as a new node.
    fn drop_deleted(
        &self,
        c: &Conn<'_>,
        row: &NodeRow,
        applied: &mut Applied,
    ) -> Result<(), TreeError> {
        let Some(local) = c.node_by_id(&row.node)? else { return Ok(()) };
        if local.links > 0 {
            self.keep_as_new(c, &local)?;
            return Ok(());
        }
        c.delete_base_node(&local.id)?;
        self.supersede(c, &local, &[], applied)
    }

    /// Drops a node's intent when nothing is ahead any more.
    pub(super) fn settle_node(&self, c: &Conn<'_>, id: &NodeId) -> Result<(), TreeError> {
        let Some(base) = c.base_node(id)? else { return Ok(()) };
        let settled = match c.node_by_id(id)? {
            None => true,
            Some(local) => {
                local.live.is_none()
                    && local.frozen.is_none()
                    && local.content == base.content
                    && base.agreed.is_some_and(|(a, x)| a == local.attrs && x == local.xattrs)
            }
        };
        if settled {
            c.delete_base_node(id)?;
        }
        Ok(())
    }

    /// Drops an entry's intent when nothing is ahead any more.
    pub(super) fn settle_dirent(
        &self,
        c: &Conn<'_>,
        parent: &NodeId,
        name: &[u8],
    ) -> Result<(), TreeError> {
        let Some(base) = c.base_dirent(parent, name)? else { return Ok(()) };
        let local = match c.nid_of(parent)? {
            Some(nid) => c.dirent_id(nid, name)?,
            None => None,
        };
        if local == base.child.map(|o| o.id) {
            c.delete_base_dirent(parent, name)?;
        }
        Ok(())
    }
}

fn depth(c: &Conn<'_>, nid: Nid) -> Result<usize, TreeError> {
    let mut depth = 0;
    let mut at = nid;
    while let Some((parent, _)) = c.places(at)?.into_iter().next() {
        depth += 1;
        at = parent;
    }
    Ok(depth)
}

fn blank(time: i64) -> Node {
    Node {
        nid: 0,
        id: NodeId::from_parts(0, [0; 10]),
        ns: NamespaceId(0),
        kind: NodeKind::File,
        attrs: Attrs { mode: 0, uid: None, gid: None, mtime: time, btime: time },
        rdev: 0,
        size: 0,
        ctime: time,
        links: 0,
        target: None,
        mount: None,
        xattrs: Default::default(),
        content: None,
        version: 0,
        live: None,
        frozen: None,
        superseded: false,
        source: None,
    }
}

/// A row as the server sends it, as a local node without names.
fn from_row(nid: Nid, ns: NamespaceId, row: &NodeRow) -> Result<Node, TreeError> {
    let content = row.content.as_ref().map(|b| b.0.clone());
    let size = match (&content, &row.target) {
        (Some(bytes), _) => Root::decode(bytes)
            .map_err(|e| TreeError::Protocol(format!("node {}: {e}", row.node)))?
            .size(),
        (None, Some(target)) => target.0.len() as u64,
        (None, None) => 0,
    };
    Ok(Node {
        nid,
        id: row.node,
        ns,
        kind: row.kind,
        attrs: row.attrs,
        rdev: row.rdev,
        size,
        target: row.target.as_ref().map(|t| t.0.clone()),
        mount: row.mount,
        xattrs: row.xattrs.clone(),
        content,
        version: row.version,
        ..blank(row.attrs.mtime)
    })
}
