//! Conflict files as people deal with them: which there are, and what becomes of one.
//!
//! Each step is one transaction and checks in it what it builds on. No step drops bytes that are
//! nowhere else: what goes is on the server, in the history or the trash.

use drivefs_core::id::NodeId;
use drivefs_core::node::NodeKind;

use super::CONFLICT_XATTR;
use super::Invalidation;
use super::Mark;
use super::Tree;
use super::TreeError;
use super::may_write;
use super::path_of;
use super::rename::RenameMode;
use crate::journal::now;
use crate::state::Conn;
use crate::state::Nid;
use crate::state::Node;

/// A conflict file.
#[derive(Debug, Clone)]
pub struct ConflictFile {
    pub node: Node,
    pub path: String,
    /// Where it stems from; none when its mark says nothing that this version understands.
    pub mark: Option<Mark>,
    /// Its origin as it is now; none when that was removed.
    pub origin: Option<Origin>,
}

/// The file that keeps the name.
#[derive(Debug, Clone)]
pub struct Origin {
    pub node: Node,
    pub path: String,
}

impl Tree {
    /// All conflict files, those that came from other devices too, in the order of their paths.
    pub fn conflicts(&self) -> Result<Vec<ConflictFile>, TreeError> {
        self.db.read(|c| {
            let mut out = Vec::new();
            for node in c.nodes_with_xattrs()? {
                if node.xattrs.contains_key(CONFLICT_XATTR) {
                    out.push(conflict_file(c, node)?);
                }
            }
            out.sort_by(|a, b| a.path.cmp(&b.path));
            Ok(out)
        })
    }

    /// True when the server has the content that a file has here.
    pub fn is_sent(&self, nid: Nid) -> Result<bool, TreeError> {
        self.db.peek(|c| {
            let node = c.node(nid)?.ok_or(TreeError::NotFound)?;
            is_sent(c, &node)
        })
    }

    /// Takes the mark away: from now on it is an ordinary file.
    pub fn unmark_conflict(&self, nid: Nid) -> Result<(), TreeError> {
        self.set_xattr(nid, CONFLICT_XATTR, None, false, true)?;
        self.announce(vec![Invalidation::Attrs { nid }]);
        Ok(())
    }

    /// Removes a conflict file: into the trash of the server. It must have the content (an encoded
    /// manifest root) that was `taken` from it and lives on in its origin, or, where none was, one
    /// that the server has.
    pub fn drop_conflict(&self, nid: Nid, taken: Option<&[u8]>) -> Result<(), TreeError> {
        let time = now();
        let (gone, place) = self.db.change(|c| {
            let node = c.node(nid)?.ok_or(TreeError::NotFound)?;
            let has_layers = node.live.is_some() || node.frozen.is_some();
            let safe = match taken {
                Some(root) => node.content.as_deref() == Some(root) && !has_layers,
                None => is_sent(c, &node)?,
            };
            if !safe || !node.xattrs.contains_key(CONFLICT_XATTR) {
                return Err(TreeError::Moved);
            }
            let mut places = c.places(node.nid)?;
            if places.is_empty() {
                return Err(TreeError::NotFound);
            }
            let (parent, name) = places.remove(0);
            let dir = self.dir_for_change(c, parent)?;
            if node.links > 1 {
                // Its other names stay, as those of an ordinary file.
                self.journal.note_node(c, &node)?;
                let mut plain = node.clone();
                plain.xattrs.remove(CONFLICT_XATTR);
                c.update_node(&plain)?;
            }
            let gone = self.detach(c, &dir, &name, &node, time)?;
            self.touch(c, &dir, time)?;
            Ok((gone, (parent, name)))
        })?;
        let (parent, name) = place;
        self.announce(vec![Invalidation::Entry { parent, name }]);
        self.after_removal(gone.as_ref())
    }

    /// Gives a conflict file whose origin is gone the name that its origin had, in the folder where
    /// it is now. Fails when that name is taken.
    pub fn put_back(&self, file: &ConflictFile) -> Result<String, TreeError> {
        let name = file.mark.as_ref().and_then(|mark| mark.name.clone());
        let name = name.ok_or(TreeError::NotFound)?;
        let (parent, old) = self
            .db
            .peek(|c| c.places(file.node.nid))?
            .into_iter()
            .next()
            .ok_or(TreeError::NotFound)?;
        if old != name.as_bytes() {
            self.rename(parent, &old, parent, name.as_bytes(), RenameMode::NoReplace)?;
            let name = name.clone().into_bytes();
            self.announce(vec![
                Invalidation::Entry { parent, name: old },
                Invalidation::Entry { parent, name },
            ]);
        }
        self.unmark_conflict(file.node.nid)?;
        self.path_of(file.node.nid)
    }

    /// Tells the kernel that the content of a file was changed by the daemon itself.
    pub fn announce_content(&self, nid: Nid) {
        self.announce(vec![Invalidation::Content { nid }]);
    }

    /// Fails unless both files of a conflict may be changed.
    pub fn check_resolvable(&self, file: &ConflictFile) -> Result<(), TreeError> {
        self.db.peek(|c| {
            may_write(c, file.node.ns)?;
            file.origin.as_ref().map_or(Ok(()), |origin| may_write(c, origin.node.ns))
        })
    }

    /// True when the node still is the one that `id` names, with a name of its own.
    pub fn is_node(&self, nid: Nid, id: &NodeId) -> Result<bool, TreeError> {
        Ok(self.db.peek(|c| c.node(nid))?.is_some_and(|n| n.id == *id && n.links > 0))
    }
}

fn conflict_file(c: &Conn<'_>, node: Node) -> Result<ConflictFile, TreeError> {
    let mark = Mark::of(&node.xattrs);
    let origin = match &mark {
        Some(mark) => c.node_by_id(&mark.node)?,
        None => None,
    };
    let origin = match origin.filter(|n| n.links > 0 && n.kind == NodeKind::File) {
        Some(node) => Some(Origin { path: path_of(c, node.nid)?, node }),
        None => None,
    };
    Ok(ConflictFile { path: path_of(c, node.nid)?, node, mark, origin })
}

fn is_sent(c: &Conn<'_>, node: &Node) -> Result<bool, TreeError> {
    let has_layers = node.live.is_some() || node.frozen.is_some();
    let ahead = c
        .base_node(&node.id)?
        .is_some_and(|base| base.agreed.is_none() || base.content != node.content);
    Ok(!has_layers && !ahead)
}
