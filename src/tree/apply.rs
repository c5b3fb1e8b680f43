//! Changes that the server tells: one page, one transaction, the cursor with it.
//!
//! What is not ahead here follows the server. Where both sides changed, `resolve` decides and no
//! byte written here is dropped. A file whose content changed remotely becomes a new inode under
//! the same name: open handles read on what they opened, and one inode never mixes two contents.

use std::cmp::Reverse;
use std::collections::HashMap;
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
use super::felt::Before;
use super::felt::Felt;
use super::new_id;
use super::resolve::Contents;
use super::resolve::Verdict;
use super::resolve::merge_attrs;
use super::resolve::merge_xattrs;
use super::resolve::resolve_content;
use crate::journal::now;
use crate::state::BaseNode;
use crate::state::Conn;
use crate::state::NamespaceRow;
use crate::state::Nid;
use crate::state::Node;
use crate::state::ROOT;

/// Places of a node: folder and name.
pub(super) type Places = Vec<(Nid, Vec<u8>)>;

/// What applying a page brought to light.
#[derive(Debug, Default)]
pub struct Applied {
    /// Namespaces that this page's mount nodes lead to and that are not in the replica yet.
    pub new_namespaces: Vec<NamespaceId>,
    pub(super) invalid: Vec<Invalidation>,
    /// Nodes that were made here, and that the server has now though nobody told: where it has them
    /// is where they were asked to be, whatever became of them here since.
    pub(super) own: HashSet<NodeId>,
    /// Nodes that were removed here and edited there: they get their places back.
    returning: Vec<NodeId>,
    /// Where this page puts nodes.
    places: HashMap<NodeId, (NodeId, Vec<u8>)>,
    /// What programs that watch folders should hear.
    felt: Vec<Felt>,
    pub(super) gone: Vec<Node>,
    /// Open files that lost their names, with the places they had: told to their contents after
    /// the transaction, because a writer holds its content while it waits for the database.
    pub(super) superseded: Vec<(Nid, Places)>,
    /// Removals of folders that hold changes, to be judged at the end of the page.
    pub(super) later: Vec<(DirentRow, Nid)>,
    pub(super) at_end: bool,
    /// Entries that would make a cycle with what other rows are about to change.
    pub(super) cyclic: Vec<DirentRow>,
}

impl Tree {
    /// Applies one page of changes of a namespace. `is_root`: its root is the root of the mount.
    pub fn apply(
        &self,
        ns: NamespaceId,
        is_root: bool,
        page: &ChangesReply,
    ) -> Result<Applied, TreeError> {
        self.freeze_contested(page)?;
        let mut applied = self.db.write(|c| {
            let mut applied = Applied::default();
            let known = c.namespace(ns)?.is_some();
            // A fill brings nothing that is new to whoever watches.
            let before = match self.is_heard() && known && !self.is_filling() {
                true => Some(Before::of(c, page)?),
                false => None,
            };
            let space = self.enter(c, ns, is_root, page, &mut applied)?;
            self.apply_rows(c, ns, page, &mut applied)?;
            let space = NamespaceRow { cursor: page.cursor, role: page.role, ..space };
            c.move_cursor(&space, page.epoch)?;
            if !page.more {
                self.end_fill(c, ns)?;
            }
            if let Some(before) = before {
                applied.felt = before.compare(c)?;
            }
            Ok::<_, TreeError>(applied)
        })?;
        if !page.more {
            self.filling.end(ns);
        }
        self.after_apply(&mut applied)?;
        Ok(applied)
    }

    /// Applies the rows of a page.
    pub(super) fn apply_rows(
        &self,
        c: &Conn<'_>,
        ns: NamespaceId,
        page: &ChangesReply,
        applied: &mut Applied,
    ) -> Result<(), TreeError> {
        for row in &page.dirents {
            let place = (row.parent, row.name.as_bytes().to_vec());
            applied.places.extend(row.child.map(|child| (child, place)));
        }
        for row in &page.nodes {
            let here = if self.is_filling() { c.node_by_id(&row.node)? } else { None };
            // What is newer here a later page tells as it is.
            if here.is_none_or(|n| !self.filling.is_old_node(ns, row, n.version)) {
                self.apply_node(c, ns, row, applied)?;
            }
        }
        self.restore_returning(c, applied)?;
        let is_news = |row: &&DirentRow| !self.filling.is_old_place(ns, row);
        let mut dirents: Vec<&DirentRow> = page.dirents.iter().filter(is_news).collect();
        // Within one commit removals come first: a moved folder has one place at a time.
        dirents.sort_by_key(|d| (d.seq, d.child.is_some()));
        let deleted: HashSet<NodeId> =
            page.nodes.iter().filter(|r| is_deleted(r, page.cursor)).map(|r| r.node).collect();
        // One that somebody else has moved since is a node like any.
        for row in dirents.iter().filter(|row| row.child.is_none()) {
            if let Some(dir) = c.nid_of(&row.parent)?
                && let Some(local) = c.child(dir, row.name.as_bytes())?
            {
                applied.own.remove(&local.id);
            }
        }
        for row in dirents {
            self.apply_dirent(c, ns, row, &deleted, applied)?;
        }
        let mut cyclic = std::mem::take(&mut applied.cyclic);
        while !cyclic.is_empty() {
            for row in &cyclic {
                self.apply_dirent(c, ns, row, &deleted, applied)?;
            }
            let left = std::mem::take(&mut applied.cyclic);
            if left.len() == cyclic.len() {
                return Err(TreeError::Torn);
            }
            cyclic = left;
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
            self.apply_dirent(c, ns, row, &deleted, applied)?;
        }
        // What was kept of one may have been removed again by a later commit.
        let mut gone: Vec<&NodeRow> =
            page.nodes.iter().filter(|r| is_deleted(r, page.cursor)).collect();
        gone.sort_by_key(|row| row.seq);
        for row in gone {
            self.drop_deleted(c, ns, row, applied)?;
        }
        Ok(())
    }

    /// Applies the first page of a namespace that is not the root's, unless somebody else has. (If
    /// two do, the later one sets the cursor back, and what follows is pulled again.)
    pub fn apply_first(&self, ns: NamespaceId, page: &ChangesReply) -> Result<(), TreeError> {
        if self.cursor(ns)?.is_none() {
            self.apply(ns, false, page)?;
        }
        Ok(())
    }

    /// What follows the transaction of remote changes.
    pub(super) fn after_apply(&self, applied: &mut Applied) -> Result<(), TreeError> {
        for (nid, places) in std::mem::take(&mut applied.superseded) {
            if let Some(content) = self.spool.loaded(nid) {
                let mut parts = content.parts_mut();
                if parts.superseded.is_none() || !places.is_empty() {
                    parts.superseded = Some(places);
                }
            }
        }
        self.announce(std::mem::take(&mut applied.invalid));
        if !applied.felt.is_empty() {
            self.announce(vec![Invalidation::Felt(std::mem::take(&mut applied.felt))]);
        }
        for node in std::mem::take(&mut applied.gone) {
            self.spool.discard(&node)?;
        }
        Ok(())
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
        applied: &mut Applied,
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
        self.begin_fill(c, ns, page.head)?;
        // Until now the mount node stood for it, under another number.
        if let Some(mount) = c.mount_of(ns)? {
            for (parent, name) in c.places(mount)? {
                applied.invalid.push(Invalidation::Entry { parent, name });
            }
        }
        Ok(space)
    }

    pub(super) fn apply_node(
        &self,
        c: &Conn<'_>,
        ns: NamespaceId,
        row: &NodeRow,
        applied: &mut Applied,
    ) -> Result<(), TreeError> {
        let here = c.node_by_id(&row.node)?;
        tracing::trace!(device = self.device, ?row, ?here, "a node");
        if row.deleted {
            return Ok(()); // Its entries' tombstones do the work, then `drop_deleted`.
        }
        if let Some(target) = row.mount
            && c.namespace(target)?.is_none()
        {
            applied.new_namespaces.push(target);
        }
        let Some(local) = here else {
            return Ok(c.insert_node(&from_row(self.new_nid(), ns, row)?)?);
        };
        // What is ahead was not removed here: an earlier page took its name, a later row gives it one.
        if local.links == 0 && row.version > local.version && !c.is_dirty(&local.id)? {
            // Removed here, edited there: the edit survives. Who has the old file open keeps that.
            self.supersede(c, &local, &[], applied)?;
            applied.returning.push(row.node);
            return Ok(c.insert_node(&from_row(self.new_nid(), ns, row)?)?);
        }
        if self.is_orphan(c, &local)? {
            // Removed everywhere, written on by who has it open, and out of the trash again: what
            // was written goes with the last handle, as of any removed file.
            match self.spool.loaded(local.nid) {
                Some(_) => c.update_node(&Node { id: new_id(), ..local })?,
                None => {
                    c.delete_node(local.nid)?;
                    applied.gone.push(local);
                }
            }
            return Ok(c.insert_node(&from_row(self.new_nid(), ns, row)?)?);
        }
        match c.base_node(&row.node)? {
            None => self.follow(c, &local, row, applied),
            Some(base) => self.merge(c, &local, base, row, applied),
        }
    }

    /// Gives what was edited there and removed here its places back, once the folders of the page are
    /// known.
    pub(super) fn restore_returning(
        &self,
        c: &Conn<'_>,
        applied: &mut Applied,
    ) -> Result<(), TreeError> {
        for id in std::mem::take(&mut applied.returning) {
            if let Some(node) = c.node_by_id(&id)? {
                self.restore_places(c, &node, applied)?;
            }
        }
        Ok(())
    }

    /// True for what was written after its last name was gone, here and on the server.
    fn is_orphan(&self, c: &Conn<'_>, local: &Node) -> Result<bool, TreeError> {
        Ok(local.links == 0
            && (local.live.is_some() || local.frozen.is_some())
            && c.base_node(&local.id)?.is_none()
            && c.base_places(&local.id)?.is_empty())
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
    pub(super) fn replace_state(
        &self,
        c: &Conn<'_>,
        local: &Node,
        mut remote: Node,
        applied: &mut Applied,
    ) -> Result<(), TreeError> {
        remote.links = local.links;
        remote.atime = local.atime;
        remote.ctime = now();
        let renumber = local.kind == NodeKind::File && local.content != remote.content;
        if !renumber {
            self.spool.note_privileges(&remote);
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
            applied.invalid.push(Invalidation::Gone { parent, name, nid: local.nid });
        }
        Ok(())
    }

    /// Takes id and names from a row: what has it open keeps it, else it goes.
    pub(super) fn supersede(
        &self,
        c: &Conn<'_>,
        local: &Node,
        places: &[(Nid, Vec<u8>)],
        applied: &mut Applied,
    ) -> Result<(), TreeError> {
        match self.spool.loaded(local.nid) {
            Some(_) => {
                let mut row = Node { id: new_id(), links: 0, superseded: true, ..local.clone() };
                // Its id goes: if it is written to, the mark tells where it stems from.
                self.mark(&mut row.xattrs, local.id, local.version, b"");
                c.update_node(&row)?;
                applied.superseded.push((local.nid, places.to_vec()));
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
            inflight: &base.inflight,
        });
        let agreed = base.agreed.as_ref();
        let attrs = merge_attrs(agreed.map(|a| &a.0), &local.attrs, &remote.attrs);
        let xattrs = merge_xattrs(agreed.map(|a| &a.1), &local.xattrs, &remote.xattrs);
        let old_version = base.version;
        if agreed.is_none() {
            applied.own.insert(base.id);
        }
        c.put_base_node(&BaseNode {
            agreed: Some((remote.attrs, remote.xattrs.clone())),
            content: remote.content.clone(),
            version: remote.version,
            // Puts over an older version cannot be committed any more.
            inflight: if remote.version == old_version { base.inflight } else { Vec::new() },
            error: None,
            ..base
        })?;
        match verdict {
            Verdict::KeepLocal | Verdict::Same => {
                let merged = Node { attrs, xattrs, version: remote.version, ..local.clone() };
                c.update_node(&merged)?;
                self.spool.note_privileges(&merged);
                if attrs != local.attrs {
                    applied.invalid.push(Invalidation::Attrs { nid: local.nid });
                }
            }
            Verdict::TakeRemote => {
                self.replace_state(c, local, Node { attrs, xattrs, ..remote }, applied)?;
            }
            Verdict::Conflict => {
                let places = c.places(local.nid)?;
                let beside = match places.is_empty() {
                    true => self.future_place(c, local, applied)?,
                    false => places.clone(),
                };
                applied.invalid.extend(self.become_conflict(c, local, &beside, old_version)?);
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

    /// Where this page puts a node that an earlier one took its name from.
    fn future_place(
        &self,
        c: &Conn<'_>,
        local: &Node,
        applied: &Applied,
    ) -> Result<Places, TreeError> {
        let Some((parent, name)) = applied.places.get(&local.id) else { return Ok(Vec::new()) };
        let parent = match c.nid_of(parent)? {
            Some(nid) => nid,
            None => self.top_of(c, local.ns)?.nid,
        };
        Ok(vec![(parent, name.clone())])
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

/// True when a node's removal belongs to what this page tells: rows that only accompany entries may
/// show a removal whose other parts come in a later page.
fn is_deleted(row: &NodeRow, cursor: Seq) -> bool {
    row.deleted && row.seq <= cursor
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

pub(super) fn blank(time: i64) -> Node {
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
        atime: None,
        subdirs: 0,
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
