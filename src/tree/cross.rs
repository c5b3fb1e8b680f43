//! Giving nodes a new identity: when a subtree moves into another namespace, and when what the
//! server deleted is kept because it was changed here.

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::Seq;
use drivefs_core::node::NodeKind;

use super::Tree;
use super::TreeError;
use super::each_entry;
use super::new_id;
use crate::state::BaseDirent;
use crate::state::Conn;
use crate::state::Node;
use crate::state::NodeEntry;

impl Tree {
    /// Makes a node, and everything below it, new nodes of namespace `ns`. The inode numbers and
    /// contents stay; for the old namespace the entries below are noted as removed. The caller
    /// notes the node's own place. Returns the node as it is then.
    pub(super) fn reidentify(
        &self,
        c: &Conn<'_>,
        node: &Node,
        ns: NamespaceId,
    ) -> Result<Node, TreeError> {
        let known = c.base_node(&node.id)?.is_none_or(|b| b.agreed.is_some());
        let moved = Node {
            id: new_id(),
            ns,
            version: 0,
            source: if known { Some((node.ns, node.id)) } else { node.source },
            ..node.clone()
        };
        c.delete_base_node(&node.id)?;
        c.update_node(&moved)?;
        self.journal.note_new_node(c, moved.id, ns)?;
        if !node.kind.is_folder() {
            return Ok(moved);
        }
        each_entry(c, node.nid, |entry| {
            let linked = entry.node.links > 1 && !entry.node.kind.is_folder();
            if linked || entry.node.kind == NodeKind::Mount {
                return Err(TreeError::CrossDevice);
            }
            let child = self.reidentify(c, &entry.node, ns)?;
            self.note_moved_entry(c, node, &moved, &entry, child.id)
        })?;
        Ok(moved)
    }

    fn note_moved_entry(
        &self,
        c: &Conn<'_>,
        old_dir: &Node,
        new_dir: &Node,
        entry: &NodeEntry,
        new_child: NodeId,
    ) -> Result<(), TreeError> {
        let (name, old_child) = (&entry.name, &entry.node);
        self.journal.note_dirent(c, old_dir.ns, old_dir.id, name, Some(old_child), None)?;
        self.journal.note_dirent(c, new_dir.ns, new_dir.id, name, None, Some(new_child))?;
        Ok(())
    }

    /// Keeps a node that the server removed with the commit `removed` (0: not known), because it was changed here:
    /// it becomes a new node under the same name. A folder keeps the children that it still has here.
    pub(super) fn keep_as_new(
        &self,
        c: &Conn<'_>,
        node: &Node,
        removed: Seq,
    ) -> Result<Node, TreeError> {
        let id = match kept_id(node, removed) {
            Some(id) if c.nid_of(&id)?.is_none() => Some(id),
            _ => None,
        };
        let kept = Node { id: id.unwrap_or_else(new_id), version: 0, source: None, ..node.clone() };
        c.delete_base_node(&node.id)?;
        c.update_node(&kept)?;
        self.journal.note_new_node(c, kept.id, kept.ns)?;
        if let Some(content) = kept.content.as_ref().filter(|_| id.is_some()) {
            // Another device may send the same first; what is written here then follows on it.
            c.add_inflight(&kept.id, content)?;
        }
        if node.kind.is_folder() {
            each_entry(c, node.nid, |entry| self.carry_over(c, node, &kept, &entry.name))?;
        }
        Ok(kept)
    }

    /// An entry of a folder that got a new identity: what the server had under the old one is gone
    /// with it, so under the new one the entry is to be made.
    fn carry_over(
        &self,
        c: &Conn<'_>,
        old_dir: &Node,
        new_dir: &Node,
        name: &[u8],
    ) -> Result<(), TreeError> {
        c.delete_base_dirent(&old_dir.id, name)?;
        c.put_base_dirent(&BaseDirent {
            parent: new_dir.id,
            name: name.to_vec(),
            ns: new_dir.ns,
            child: None,
            since: self.journal.tick(),
        })?;
        Ok(())
    }
}

/// The id of what is kept of a removed node. All devices that keep the same find the same, and so
/// meet in one node. None for what has bytes that are not blocks yet, and where the removing commit
/// is not known (0).
pub(super) fn kept_id(node: &Node, removed: Seq) -> Option<NodeId> {
    if node.live.is_some() || node.frozen.is_some() || removed == 0 {
        return None;
    }
    let mut hasher = blake3::Hasher::new_derive_key("drivefs 2026-11 id of a kept node");
    hasher.update(node.id.as_bytes());
    hasher.update(&removed.to_le_bytes());
    hasher.update(node.content.as_deref().unwrap_or_default());
    let hash = hasher.finalize();
    let mut random = [0; 10];
    random.copy_from_slice(&hash.as_bytes()[..10]);
    Some(NodeId::from_parts(node.id.unix_millis(), random))
}
