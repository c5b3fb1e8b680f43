//! What was removed here while its creation was on the way: once the server has it, a row without
//! names stands for it until the server has taken the removal, so that what others do to it
//! meanwhile is seen, as with anything that is removed here.

use drivefs_core::id::NamespaceId;
use drivefs_core::id::VersionNo;
use drivefs_core::manifest::Root;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::Change;

use super::Tree;
use super::TreeError;
use super::apply::blank;
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
}
