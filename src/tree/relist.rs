//! Taking the server's list anew, where the server cannot go on from the cursor.
//!
//! Either it has forgotten what was removed since (`CursorExpired`), or its data was restored from a
//! backup and what was seen here never happened there (`CursorLost`). The pages of the new list are
//! put aside in tables of their own; the tree stays as it is and in use, and a process that dies
//! goes on where it was. With the last page, one transaction turns the difference between list and
//! tree into the rows that an ordinary page would have had, and applies these: whatever is ahead
//! here meets them by the ordinary rules. What the server has lost, `lost` makes ahead first.

use std::collections::BTreeMap;
use std::collections::HashSet;

use drivefs_core::id::Epoch;
use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::Seq;
use drivefs_core::name::Name;
use drivefs_core::wire::ChangesReply;
use drivefs_core::wire::ChangesRequest;
use drivefs_core::wire::DirentRow;
use drivefs_core::wire::NodeRow;
use drivefs_core::wire::Point;
use serde::Deserialize;
use serde::Serialize;

use super::Tree;
use super::TreeError;
use super::apply::Applied;
use super::each_entry;
use super::lost::Held;
use crate::journal::now;
use crate::state::Conn;
use crate::state::DbError;
use crate::state::NamespaceRow;
use crate::state::Node;

/// Rows read at once.
pub(super) const CHUNK: usize = 512;
/// Key in `meta` under which stands what became of the last restored backup.
const RESTORED_KEY: &str = "restored";

/// For how long that is told (ns), and how far apart namespaces may be to count as one.
const RESTORED_TOLD_NS: i64 = 7 * 24 * 3600 * 1_000_000_000;
const RESTORED_ONCE_NS: i64 = 600 * 1_000_000_000;

/// A list that is being taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relist {
    /// The server's data was restored: what it does not have is not removed, but lost there.
    pub lost: bool,
    /// The list is here up to this, a commit of `epoch`.
    pub cursor: Seq,
    pub epoch: Epoch,
    /// The last seq up to which the history that was seen here is also the server's.
    pub common: Seq,
    /// Where the server stood with the first page.
    pub began: Seq,
}

/// What a device did after the server's data was restored from a backup, for people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// When it was noticed (ns).
    pub at: i64,
    /// Files and folders that the server lacked, or had as they were before, sent again from here.
    pub sent_again: u64,
    /// Files whose newer content was not on this device: they show what the backup has.
    pub older: u64,
    /// Files that the backup does not have, and whose content was not on this device.
    pub gone: u64,
}

fn key(ns: NamespaceId) -> String {
    format!("relist {ns}")
}

impl Tree {
    /// The list of a namespace that is being taken, if one is.
    pub fn relist(&self, ns: NamespaceId) -> Result<Option<Relist>, TreeError> {
        Ok(self.db.peek(|c| self.relist_in(c, ns))?)
    }

    pub(super) fn relist_in(
        &self,
        c: &Conn<'_>,
        ns: NamespaceId,
    ) -> Result<Option<Relist>, DbError> {
        let Some(json) = c.meta(&key(ns))? else { return Ok(None) };
        let relist = serde_json::from_slice(&json);
        relist.map(Some).map_err(|e| DbError::Other(format!("state of a new list: {e}")))
    }

    /// What became of the last restored backup.
    pub fn restored(&self) -> Result<Option<Restored>, TreeError> {
        let told = self.db.peek(restored_in)?;
        Ok(told.filter(|told| now() - told.at < RESTORED_TOLD_NS))
    }

    /// The newest commit of a namespace that is known of.
    pub fn point(&self, ns: NamespaceId) -> Result<Point, TreeError> {
        self.db.peek(|c| {
            let space = c.namespace(ns)?.ok_or(TreeError::NotFound)?;
            Ok(c.newest_point(&space)?)
        })
    }

    /// What to ask for next in a namespace.
    pub fn next_request(&self, ns: NamespaceId, limit: u32) -> Result<ChangesRequest, TreeError> {
        self.db.peek(|c| {
            let (cursor, trail, began, tombstones) = match self.relist_in(c, ns)? {
                // With the first page the server tells what the two histories have in common.
                Some(Relist { cursor: 0, .. }) => (0, c.trail(ns)?, 0, true),
                Some(Relist { cursor, epoch, began, .. }) => {
                    (cursor, vec![Point { epoch, seq: cursor }], began, true)
                }
                None => {
                    let cursor = c.namespace(ns)?.map_or(0, |s| s.cursor);
                    (cursor, c.trail(ns)?, self.fill_began(c, ns)?, false)
                }
            };
            Ok(ChangesRequest { ns, cursor, limit, trail, tombstones, began })
        })
    }

    /// Begins to take the list of a namespace anew, from the start.
    pub fn begin_relist(&self, ns: NamespaceId, lost: bool) -> Result<(), TreeError> {
        self.db.write(|c| {
            let before = self.relist_in(c, ns)?;
            let lost = lost || before.is_some_and(|b| b.lost);
            c.forget_listed(ns)?;
            put_relist(c, ns, &Relist { lost, cursor: 0, epoch: 0, common: 0, began: 0 })?;
            if self.filling.is_filling(ns) {
                // What was known of places and nodes counts no more.
                self.filling.begin(ns);
            }
            Ok::<_, TreeError>(())
        })?;
        tracing::warn!(%ns, lost, "the server cannot go on from here: its list is taken anew");
        Ok(())
    }

    /// Takes the page of the list that follows on `from`. After the last one, `end_relist` is to
    /// follow. False when the list has moved on or began anew meanwhile: the page is not taken.
    pub fn take_listed(
        &self,
        ns: NamespaceId,
        from: Seq,
        page: &ChangesReply,
    ) -> Result<bool, TreeError> {
        self.db.write(|c| {
            let before = self.relist_in(c, ns)?;
            let Some(before) = before.filter(|b| b.cursor == from) else { return Ok(false) };
            for row in &page.nodes {
                c.put_listed_node(ns, row)?;
            }
            for row in &page.dirents {
                c.put_listed_dirent(ns, row)?;
            }
            let (lost, cursor, epoch) = (before.lost, page.cursor, page.epoch);
            let (common, began) = match before.cursor {
                // Behind the cursor only our own commits were seen.
                0 => (page.common.min(c.namespace(ns)?.map_or(0, |s| s.cursor)), page.head),
                _ => (before.common, before.began),
            };
            let after = Relist { lost, cursor, epoch, common, began };
            put_relist(c, ns, &after)?;
            Ok(true)
        })
    }

    /// The list is here: the tree follows it, and what the server lost is ahead from now on, but for
    /// the files in `old`, which the server has in their history. Returns namespaces that the list
    /// leads to and that are not in the replica yet.
    pub fn end_relist(
        &self,
        ns: NamespaceId,
        last: &ChangesReply,
        old: &HashSet<NodeId>,
    ) -> Result<Vec<NamespaceId>, TreeError> {
        let Some(relist) = self.relist(ns)? else { return Ok(Vec::new()) };
        let news = self.db.read(|c| self.difference(c, ns, last))?;
        self.freeze_contested(&news)?;
        let held = if relist.lost { self.held_contents(ns, old)? } else { Held::new() };
        let (mut applied, restored) = self.db.write(|c| {
            let mut applied = Applied::default();
            if self.relist_in(c, ns)? != Some(relist) || relist.cursor != last.cursor {
                // It began anew meanwhile.
                return Ok((applied, None));
            }
            let space = c.namespace(ns)?.ok_or(TreeError::NotFound)?;
            let mut restored = None;
            if relist.lost {
                let mut done = self.bring_back(c, ns, relist.common, &held)?;
                // The namespaces of a drive come one after the other.
                if let Some(first) = restored_in(c)?.filter(|r| now() - r.at < RESTORED_ONCE_NS) {
                    done.sent_again += first.sent_again;
                    done.older += first.older;
                    done.gone += first.gone;
                }
                c.set_meta(RESTORED_KEY, &serde_json::to_vec(&done).expect("numbers serialise"))?;
                c.put_trail(ns, &[])?;
                restored = Some(done);
            }
            self.apply_rows(c, ns, &self.difference(c, ns, last)?, &mut applied)?;
            let space = NamespaceRow { cursor: relist.cursor, role: last.role, ..space };
            c.move_cursor(&space, relist.epoch)?;
            self.end_fill(c, ns)?;
            c.forget_listed(ns)?;
            c.delete_meta(&key(ns))?;
            Ok::<_, TreeError>((applied, restored))
        })?;
        if self.relist(ns)?.is_none() {
            self.filling.end(ns);
        }
        self.after_apply(&mut applied)?;
        self.journal.wake();
        match restored {
            Some(Restored { sent_again, older, gone, .. }) => tracing::warn!(
                sent_again,
                older,
                gone,
                "the server's data was restored from a backup: what it lacks is sent again"
            ),
            None => tracing::info!(%ns, "the server's list was taken anew"),
        }
        Ok(applied.new_namespaces)
    }

    /// The rows of an ordinary page that leads from the tree as both sides agreed on it to the list.
    fn difference(
        &self,
        c: &Conn<'_>,
        ns: NamespaceId,
        last: &ChangesReply,
    ) -> Result<ChangesReply, TreeError> {
        let (mut nodes, mut dirents) = (Vec::new(), Vec::new());
        each_listed_node(c, ns, |row| {
            if self.is_news(c, &row)? {
                nodes.push(row);
            }
            Ok(())
        })?;
        // What is not in the list at all was removed, and forgotten by the server.
        let mut folders = Vec::new();
        each_node(c, ns, |node| {
            if node.kind.is_folder() {
                folders.push((node.nid, node.id));
            }
            if node.id != last.root
                && is_agreed(c, &node)?
                && c.listed_node(ns, &node.id)?.is_none()
            {
                nodes.push(removed_node(&node));
            }
            Ok(())
        })?;
        each_listed_dirent(c, ns, |row| {
            let agreed = agreed_at(c, &row.parent, row.name.as_bytes())?;
            if agreed != row.child {
                dirents.push(row);
            }
            Ok(())
        })?;
        for (nid, id) in folders {
            each_entry(c, nid, |entry| {
                let known = c.base_dirent(&id, &entry.name)?.is_some()
                    || c.listed_dirent(ns, &id, &entry.name)?.is_some();
                if !known {
                    dirents.push(removed_entry(id, &entry.name)?);
                }
                Ok(())
            })?;
        }
        for base in c.dirty_dirents(ns, 0, usize::MAX >> 1)? {
            if base.child.is_some() && c.listed_dirent(ns, &base.parent, &base.name)?.is_none() {
                dirents.push(removed_entry(base.parent, &base.name)?);
            }
        }
        Ok(ChangesReply { nodes, dirents, more: false, ..last.clone() })
    }

    /// True when a listed node is not as both sides agreed on it.
    fn is_news(&self, c: &Conn<'_>, row: &NodeRow) -> Result<bool, TreeError> {
        let Some(local) = c.node_by_id(&row.node)? else { return Ok(!row.deleted) };
        if row.deleted {
            return Ok(true);
        }
        let content = row.content.as_ref().map(|b| &b.0);
        Ok(match c.base_node(&row.node)? {
            Some(base) => {
                base.version != row.version
                    || base.content.as_ref() != content
                    || base.agreed.is_none_or(|(a, x)| a != row.attrs || x != row.xattrs)
            }
            None => {
                local.version != row.version
                    || local.content.as_ref() != content
                    || local.attrs != row.attrs
                    || local.xattrs != row.xattrs
            }
        })
    }
}

fn restored_in(c: &Conn<'_>) -> Result<Option<Restored>, DbError> {
    let json = c.meta(RESTORED_KEY)?;
    Ok(json.and_then(|json| serde_json::from_slice(&json).ok()))
}

fn put_relist(c: &Conn<'_>, ns: NamespaceId, relist: &Relist) -> Result<(), DbError> {
    c.set_meta(&key(ns), &serde_json::to_vec(relist).expect("numbers serialise"))
}

/// True when the server had this node when both sides last agreed.
pub(super) fn is_agreed(c: &Conn<'_>, node: &Node) -> Result<bool, DbError> {
    Ok(match c.base_node(&node.id)? {
        Some(base) => base.agreed.is_some(),
        // Without a name anywhere: only handles have it.
        None => node.links > 0 || !c.base_places(&node.id)?.is_empty(),
    })
}

/// What both sides agreed on at a place.
pub(super) fn agreed_at(
    c: &Conn<'_>,
    parent: &NodeId,
    name: &[u8],
) -> Result<Option<NodeId>, DbError> {
    if let Some(base) = c.base_dirent(parent, name)? {
        return Ok(base.child.map(|child| child.id));
    }
    match c.nid_of(parent)? {
        Some(nid) => c.dirent_id(nid, name),
        None => Ok(None),
    }
}

pub(super) fn each_node(
    c: &Conn<'_>,
    ns: NamespaceId,
    mut f: impl FnMut(Node) -> Result<(), TreeError>,
) -> Result<(), TreeError> {
    let mut after = 0;
    loop {
        let nodes = c.nodes_in(ns, after, CHUNK)?;
        let Some(last) = nodes.last() else { return Ok(()) };
        after = last.nid;
        nodes.into_iter().try_for_each(&mut f)?;
    }
}

pub(super) fn each_listed_node(
    c: &Conn<'_>,
    ns: NamespaceId,
    mut f: impl FnMut(NodeRow) -> Result<(), TreeError>,
) -> Result<(), TreeError> {
    let mut after = None;
    loop {
        let rows = c.listed_nodes(ns, after.as_ref(), CHUNK)?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = Some(last.node);
        rows.into_iter().try_for_each(&mut f)?;
    }
}

pub(super) fn each_listed_dirent(
    c: &Conn<'_>,
    ns: NamespaceId,
    mut f: impl FnMut(DirentRow) -> Result<(), TreeError>,
) -> Result<(), TreeError> {
    let mut after: Option<(NodeId, Name)> = None;
    loop {
        let from = after.as_ref().map(|(parent, name)| (parent, name.as_bytes()));
        let rows = c.listed_dirents(ns, from, CHUNK)?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = Some((last.parent, last.name.clone()));
        rows.into_iter().try_for_each(&mut f)?;
    }
}

fn removed_node(node: &Node) -> NodeRow {
    NodeRow {
        node: node.id,
        kind: node.kind,
        attrs: node.attrs,
        rdev: node.rdev,
        target: None,
        mount: None,
        xattrs: BTreeMap::new(),
        content: None,
        version: node.version,
        seq: 0,
        deleted: true,
        last: None,
        device: String::new(),
        committed: now(),
    }
}

fn removed_entry(parent: NodeId, name: &[u8]) -> Result<DirentRow, TreeError> {
    // Before all others: what moved leaves its old place first.
    Ok(DirentRow { parent, name: Name::new(name)?, child: None, seq: 0 })
}
