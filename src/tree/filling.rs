//! The first fill of the replica: the drive is usable while most of it is not here yet.
//!
//! A namespace is *filling* from its first page until the server has no more. Until then a folder
//! shows all that it has only when it was listed by itself (`apply_list`), or was made here. What a
//! listing brings, a later page brings again, and finds it there.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::Seq;
use drivefs_core::id::VersionNo;
use drivefs_core::name::Name;
use drivefs_core::wire::Change;
use drivefs_core::wire::DirentRow;
use drivefs_core::wire::ListReply;
use drivefs_core::wire::NodeRow;

use super::SentOp;
use super::Tree;
use super::TreeError;
use super::apply::Applied;
use crate::state::Conn;
use crate::state::DbError;
use crate::state::Nid;
use crate::state::Node;

/// Namespaces that are filling.
#[derive(Default)]
pub(super) struct Filling {
    /// False once nothing is filling any more: the common case asks no lock.
    any: AtomicBool,
    namespaces: Mutex<HashMap<NamespaceId, Space>>,
}

/// What is known about a namespace that is filling.
#[derive(Default)]
struct Space {
    /// Folders that are complete all the same.
    complete: HashSet<Nid>,
    /// Nodes and places of which something newer than the cursor is known, with its seq: a page or
    /// a listing that was on its way meanwhile may show them as they were before.
    nodes: HashMap<NodeId, Seq>,
    places: HashMap<(NodeId, Name), Seq>,
}

impl Filling {
    pub fn load(c: &Conn<'_>) -> Result<Self, DbError> {
        let filling = Self::default();
        for space in c.namespaces()? {
            if c.meta(&key(space.ns))?.is_some() {
                filling.begin(space.ns);
            }
        }
        Ok(filling)
    }

    pub fn begin(&self, ns: NamespaceId) {
        self.lock().insert(ns, Space::default());
        self.any.store(true, Ordering::Release);
    }

    pub fn end(&self, ns: NamespaceId) {
        let mut namespaces = self.lock();
        namespaces.remove(&ns);
        self.any.store(!namespaces.is_empty(), Ordering::Release);
    }

    pub fn is_filling(&self, ns: NamespaceId) -> bool {
        self.any.load(Ordering::Acquire) && self.lock().contains_key(&ns)
    }

    pub fn note_complete(&self, ns: NamespaceId, folder: Nid) {
        if self.any.load(Ordering::Acquire)
            && let Some(space) = self.lock().get_mut(&ns)
        {
            space.complete.insert(folder);
        }
    }

    pub fn is_complete(&self, ns: NamespaceId, folder: Nid) -> bool {
        !self.any.load(Ordering::Acquire)
            || self.lock().get(&ns).is_none_or(|space| space.complete.contains(&folder))
    }

    /// Notes what is known of nodes and places as of a seq.
    pub fn note_known(
        &self,
        ns: NamespaceId,
        nodes: impl Iterator<Item = (NodeId, Seq)>,
        places: impl Iterator<Item = ((NodeId, Name), Seq)>,
    ) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let mut namespaces = self.lock();
        let Some(space) = namespaces.get_mut(&ns) else { return };
        for (node, seq) in nodes {
            let known = space.nodes.entry(node).or_default();
            *known = seq.max(*known);
        }
        for (place, seq) in places {
            let known = space.places.entry(place).or_default();
            *known = seq.max(*known);
        }
    }

    /// True when something newer than this row is here of the node, whose version here is `have`.
    pub fn is_old_node(&self, ns: NamespaceId, row: &NodeRow, have: VersionNo) -> bool {
        self.any.load(Ordering::Acquire)
            && row.version <= have
            && (self.lock().get(&ns))
                .is_some_and(|space| space.nodes.get(&row.node).is_some_and(|&s| row.seq < s))
    }

    /// The same of a place.
    pub fn is_old_place(&self, ns: NamespaceId, row: &DirentRow) -> bool {
        let place = || (row.parent, row.name.clone());
        self.any.load(Ordering::Acquire)
            && (self.lock().get(&ns))
                .is_some_and(|space| space.places.get(&place()).is_some_and(|&s| row.seq < s))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NamespaceId, Space>> {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Key in `meta` that stands as long as a namespace is filling.
fn key(ns: NamespaceId) -> String {
    format!("filling {ns}")
}

impl Tree {
    /// True while any namespace is filling.
    pub fn is_filling(&self) -> bool {
        self.filling.any.load(Ordering::Acquire)
    }

    /// True when a folder shows all that it has.
    pub fn is_complete(&self, folder: &Node) -> Result<bool, TreeError> {
        if self.filling.is_complete(folder.ns, folder.nid) {
            return Ok(true);
        }
        // Made here, maybe by an earlier process, and not on the server yet: all it has is here.
        let base = self.db.peek(|c| c.base_node(&folder.id))?;
        Ok(base.is_some_and(|b| b.agreed.is_none()))
    }

    /// The server knows no such folder (any more): there is nothing to list.
    pub fn nothing_to_list(&self, folder: &Node) {
        self.filling.note_complete(folder.ns, folder.nid);
    }

    /// Takes in one page of a folder's listing. Of what pages have brought already only they tell:
    /// it may be gone since.
    pub fn apply_list(&self, folder: &Node, page: &ListReply) -> Result<(), TreeError> {
        let ns = folder.ns;
        let mut applied = self.db.write(|c| {
            let mut applied = Applied::default();
            if self.relist_in(c, ns)?.is_some() {
                // The list that is being taken has all of it.
                return Ok(applied);
            }
            let Some(cursor) = c.namespace(ns)?.map(|s| s.cursor) else { return Ok(applied) };
            let news = |row: &&DirentRow| row.seq > cursor && !self.filling.is_old_place(ns, row);
            let dirents: Vec<&DirentRow> = page.dirents.iter().filter(news).collect();
            let children: HashSet<NodeId> = dirents.iter().filter_map(|d| d.child).collect();
            for row in &page.nodes {
                let takes = match c.node_by_id(&row.node)? {
                    Some(here) => {
                        row.seq > cursor && !self.filling.is_old_node(ns, row, here.version)
                    }
                    None => children.contains(&row.node),
                };
                if takes {
                    self.apply_node(c, ns, row, &mut applied)?;
                }
            }
            self.restore_returning(c, &mut applied)?;
            for row in dirents {
                self.apply_dirent(c, ns, row, &HashSet::new(), &mut applied)?;
            }
            Ok::<_, TreeError>(applied)
        })?;
        self.filling.note_known(
            ns,
            page.nodes.iter().map(|row| (row.node, row.seq)),
            page.dirents.iter().map(|row| ((row.parent, row.name.clone()), row.seq)),
        );
        self.after_apply(&mut applied)?;
        if !page.more {
            self.filling.note_complete(folder.ns, folder.nid);
        }
        Ok(())
    }

    /// Notes, during a fill, what a commit has put on the server: a listing or a page that was read
    /// before it shows less.
    pub(super) fn note_committed(&self, ns: NamespaceId, ops: &[SentOp]) {
        if !self.filling.is_filling(ns) {
            return;
        }
        let mut nodes = Vec::new();
        let mut places = Vec::new();
        for op in ops {
            let seq = op.seq;
            if let Change::Put { node, .. } = &op.change {
                nodes.push((*node, seq));
            }
            let touched = match &op.change {
                Change::Put { create, .. } => [create.as_ref(), None],
                Change::Mkdir { place, .. }
                | Change::Symlink { place, .. }
                | Change::Mknod { place, .. }
                | Change::Link { place, .. }
                | Change::Unlink { place, .. }
                | Change::Rmdir { place, .. }
                | Change::Restore { place, .. } => [Some(place), None],
                Change::Move { from, to, .. } => [Some(from), Some(to)],
                Change::Setattr { .. } | Change::Setxattr { .. } | Change::Revert { .. } => {
                    [None, None]
                }
            };
            let touched = touched.into_iter().flatten();
            places.extend(touched.map(|place| ((place.parent, place.name.clone()), seq)));
        }
        self.filling.note_known(ns, nodes.into_iter(), places.into_iter());
    }

    /// Notes, with the first page of a namespace that stands at `head`, that it is filling.
    pub(super) fn begin_fill(
        &self,
        c: &Conn<'_>,
        ns: NamespaceId,
        head: Seq,
    ) -> Result<(), DbError> {
        self.filling.begin(ns);
        c.set_meta(&key(ns), &head.to_le_bytes())
    }

    /// Where the server stood when the fill of a namespace began; 0 when it is not filling.
    pub(super) fn fill_began(&self, c: &Conn<'_>, ns: NamespaceId) -> Result<Seq, DbError> {
        let head = c.meta(&key(ns))?.and_then(|v| v.try_into().ok());
        Ok(head.map_or(0, Seq::from_le_bytes))
    }

    /// Notes, with a last page, that a namespace is all here.
    pub(super) fn end_fill(&self, c: &Conn<'_>, ns: NamespaceId) -> Result<(), DbError> {
        if c.meta(&key(ns))?.is_some() {
            c.delete_meta(&key(ns))?;
        }
        Ok(())
    }
}
