//! Before a page is applied: what was written here and meets another content in it is turned into
//! blocks, because only blocks tell whether two contents are the same.

use std::collections::BTreeSet;
use std::collections::HashMap;

use drivefs_core::id::NodeId;
use drivefs_core::manifest::Root;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::ChangesReply;
use drivefs_core::wire::NodeRow;

use super::Tree;
use super::TreeError;
use crate::state::Conn;
use crate::state::Nid;
use crate::state::Node;

impl Tree {
    /// Whether two contents are the same shows when both are blocks: turns what was written here
    /// into blocks where this page brings a content of the same length for the same file, or a
    /// file for the same name. What cannot be turned (a block next to a change is not here) counts
    /// as another content.
    pub(super) fn freeze_contested(&self, page: &ChangesReply) -> Result<(), TreeError> {
        let nids = self.db.peek(|c| contested(c, page))?;
        for nid in nids {
            let frozen = self.spool.content(nid).and_then(|content| self.spool.freeze(&[content]));
            let failed = frozen.map(|failed| failed.into_iter().next().map(|(_, error)| error));
            if let Some(error) = failed.unwrap_or_else(Some) {
                tracing::debug!(nid, %error, "cannot be compared with what another device wrote");
            }
            if self.spool.loaded(nid).is_none() {
                self.spool.forget(nid);
                self.drop_orphan(nid)?;
            }
        }
        Ok(())
    }
}

/// Files with layers that meet another content in this page.
fn contested(c: &Conn<'_>, page: &ChangesReply) -> Result<BTreeSet<Nid>, TreeError> {
    let mut out = BTreeSet::new();
    if !c.has_layers()? {
        return Ok(out);
    }
    let written = |n: &Node| n.live.is_some() || n.frozen.is_some();
    let length = |row: &NodeRow| {
        let root = row.content.as_ref().and_then(|b| Root::decode(&b.0).ok());
        root.map(|root| root.size())
    };
    for row in page.nodes.iter().filter(|row| row.content.is_some()) {
        if let Some(local) = c.node_by_id(&row.node)?.filter(written)
            && length(row) == Some(local.size)
            && c.base_node(&row.node)?.is_some_and(|base| base.version != row.version)
        {
            out.insert(local.nid);
        }
    }
    let met = met_folders(c, page)?;
    for row in &page.dirents {
        let known = c.nid_of(&row.parent)?.or_else(|| met.get(&row.parent).copied());
        let (Some(child), Some(parent)) = (row.child, known) else { continue };
        let Some(local) = c.child(parent, row.name.as_bytes())?.filter(written) else { continue };
        let there = page.nodes.iter().find(|n| n.node == child);
        if local.id != child && there.is_none_or(|row| length(row) == Some(local.size)) {
            out.insert(local.nid);
        }
    }
    Ok(out)
}

/// Folders of this page that meet a folder made here under the same name: the two may become one.
fn met_folders(c: &Conn<'_>, page: &ChangesReply) -> Result<HashMap<NodeId, Nid>, TreeError> {
    let mut met = HashMap::new();
    loop {
        let before = met.len();
        for row in &page.dirents {
            let Some(child) = row.child.filter(|child| !met.contains_key(child)) else { continue };
            let Some(parent) = c.nid_of(&row.parent)?.or_else(|| met.get(&row.parent).copied())
            else {
                continue;
            };
            if let Some(local) = c.child(parent, row.name.as_bytes())?
                && local.kind == NodeKind::Dir
                && local.id != child
            {
                met.insert(child, local.nid);
            }
        }
        // A folder in such a folder is met by the next round.
        if met.len() == before {
            return Ok(met);
        }
    }
}
