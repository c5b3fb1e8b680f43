//! What was removed here while its creation was on the way: once the server has it, a row without
//! names stands for it until the server has taken the removal, so that what others do to it
//! meanwhile is seen, as with anything that is removed here. And what the server takes of changes that
//! were on the way when their node was removed.

use drivefs_core::id::NamespaceId;
use drivefs_core::id::VersionNo;
use drivefs_core::manifest::Root;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::Change;

use super::Tree;
use super::TreeError;
use super::apply::blank;
use super::ops::as_agreed;
use super::ops::without_layers;
use crate::journal::now;
use crate::spool::SpoolError;
use crate::state::Conn;
use crate::state::Node;

impl Tree {
    /// Makes the row for what `change` created, unless there is one.
    pub(super) fn stand_in(
        &self,
        c: &Conn<'_>,
        ns: NamespaceId,
        change: &Change,
        version: VersionNo,
    ) -> Result<(), TreeError> {
        if c.node_by_id(&change.node())?.is_some() {
            return Ok(());
        }
        let mut node = Node { nid: 0, id: change.node(), ns, version, ..blank(now()) };
        match change {
            Change::Put { create: Some(_), content, attrs, xattrs, .. } => {
                node.size = Root::decode(&content.0).map_err(SpoolError::from)?.size();
                node.content = Some(content.0.clone());
                (node.attrs, node.xattrs) = (*attrs, xattrs.clone());
            }
            Change::Mkdir { attrs, xattrs, .. } => {
                node.kind = NodeKind::Dir;
                (node.attrs, node.xattrs) = (*attrs, xattrs.clone());
            }
            Change::Symlink { target, attrs, xattrs, .. } => {
                node.kind = NodeKind::Symlink;
                node.size = target.0.len() as u64;
                node.target = Some(target.0.clone());
                (node.attrs, node.xattrs) = (*attrs, xattrs.clone());
            }
            Change::Mknod { kind, rdev, attrs, xattrs, .. } => {
                (node.kind, node.rdev) = (*kind, *rdev);
                (node.attrs, node.xattrs) = (*attrs, xattrs.clone());
            }
            _ => return Ok(()),
        }
        Ok(c.insert_node(&Node { nid: self.new_nid(), ..node })?)
    }

    /// The server has taken a change of what was removed here meanwhile: the removal says all that is
    /// still to be said about it. Should it come back, it is as the server has it now.
    pub(super) fn take_while_gone(&self, c: &Conn<'_>, change: &Change) -> Result<(), TreeError> {
        let gone = c.node_by_id(&change.node())?.filter(|n| n.links == 0);
        // What the server took the name from is not removed here: what is ahead of it stays so.
        let Some(row) = gone else { return Ok(()) };
        if c.is_taken(row.nid)? {
            return Ok(());
        }
        let base = c.base_node(&row.id)?;
        c.delete_base_node(&row.id)?;
        if row.live.is_some() || row.frozen.is_some() || self.spool.loaded(row.nid).is_some() {
            return Ok(()); // Whoever has it open keeps what was written.
        }
        let mut there = match base {
            Some(base) => as_agreed(&row, base).unwrap_or_else(|| row.clone()),
            None => row.clone(),
        };
        match change {
            Change::Put { content, attrs, .. } => {
                (there.content, there.attrs) = (Some(content.0.clone()), *attrs);
            }
            Change::Setattr { attrs, .. } => there.attrs = *attrs,
            Change::Setxattr { name, value: Some(value), .. } => {
                there.xattrs.insert(name.clone(), value.clone());
            }
            Change::Setxattr { name, value: None, .. } => {
                there.xattrs.remove(name);
            }
            _ => {}
        }
        Ok(c.update_node(&without_layers(&there)?)?)
    }
}
