//! What `drivefs resolve` does to the content of an origin: as a local write, in one step.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::DriveFs;
use crate::spool::CAPABILITY_XATTR;
use crate::spool::Content;
use crate::spool::SpoolError;
use crate::spool::Still;
use crate::state::Nid;
use crate::state::Node;
use crate::tree::TreeError;

/// Rounds before a replacement gives way to those who go on writing.
const ROUNDS_MAX: usize = 3;

/// A content and what it was when it was looked at.
pub struct Seen {
    content: Arc<Content>,
    still: Still,
}

impl Seen {
    /// Its encoded manifest root.
    pub fn root(&self) -> Vec<u8> {
        self.still.root()
    }
}

impl DriveFs {
    /// The content of a file as it is now. Blocking.
    pub fn see(&self, nid: Nid) -> Result<Seen, TreeError> {
        let content = self.spool.content(nid)?;
        let still = self.with_room(0, || Ok(self.spool.hold_still(&content)?))?;
        Ok(Seen { still: still.ok_or(TreeError::Moved)?, content })
    }

    /// All bytes of it. Blocking.
    pub fn seen_bytes(&self, seen: &Seen) -> Result<Vec<u8>, TreeError> {
        Ok(self.spool.still_bytes(&seen.content, &seen.still)?)
    }

    /// The content of a file that is about to get another one: still the node that it was, and
    /// with a content that the server has. Blocking.
    pub fn see_sent(&self, node: &Node) -> Result<Seen, TreeError> {
        let seen = self.see(node.nid)?;
        // Asked after the look: whoever changes it from here on makes the replacement fail.
        if self.tree.is_node(node.nid, &node.id)? && self.tree.is_sent(node.nid)? {
            return Ok(seen);
        }
        Err(TreeError::Moved)
    }

    /// Gives `to` the content of `from`, by reference; returns its encoded manifest root. On return
    /// it survives power loss. Blocking.
    pub fn replace_by_reference(&self, from: &Node, to: &Node) -> Result<Vec<u8>, TreeError> {
        if from.ns != to.ns {
            return Err(TreeError::CrossDevice);
        }
        for _ in 0..ROUNDS_MAX {
            let (source, target) = (self.see(from.nid)?, self.see_sent(to)?);
            let replace = || {
                let spool = &self.spool;
                Ok(spool.replace_by_reference(&target.content, &target.still, &source.still)?)
            };
            if self.with_room(0, replace).map_err(moved)? {
                self.after_replacing(&target.content)?;
                return Ok(source.still.root());
            }
        }
        Err(TreeError::Moved)
    }

    /// Gives a file other bytes, if it still is what was seen of it. On return they survive power
    /// loss. Blocking.
    pub fn replace_by_bytes(&self, seen: &Seen, bytes: &[u8]) -> Result<(), TreeError> {
        let replace = || Ok(self.spool.replace_by_bytes(&seen.content, &seen.still, bytes)?);
        if !self.with_room(bytes.len(), replace).map_err(moved)? {
            return Err(TreeError::Moved);
        }
        self.after_replacing(&seen.content)
    }

    fn after_replacing(&self, content: &Content) -> Result<(), TreeError> {
        // Privileges were those of the old bytes.
        self.kill_suid(content, true)?;
        if content.capability.swap(false, Ordering::Relaxed) {
            self.tree.set_xattr(content.nid, CAPABILITY_XATTR, None, false, false)?;
        }
        self.with_room(0, || Ok(self.spool.sync(content)?))?;
        self.tree.announce_content(content.nid);
        Ok(())
    }
}

/// A remote change took the file's name while it was looked at.
fn moved(e: TreeError) -> TreeError {
    match e {
        TreeError::Spool(SpoolError::Superseded | SpoolError::Gone) => TreeError::Moved,
        other => other,
    }
}
