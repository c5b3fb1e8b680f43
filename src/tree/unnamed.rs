//! Files that were made without a name (`O_TMPFILE`).
//!
//! Such a file is a row without links that no intent speaks of, so the server never hears of it.
//! Its first name makes it a node like any that was just made: `Tree::link` notes it as new. What
//! still has no name when nobody can give it one any more goes like a file that was deleted while
//! open; after the death of the daemon the next start drops it.
//!
//! A deleted file that is still open has no links either, and no name must ever bring it back:
//! which rows may get one is known here alone, and only while the process lives.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use super::NewNode;
use super::Tree;
use super::TreeError;
use crate::journal::now;
use crate::spool::Content;
use crate::state::Nid;
use crate::state::Node;

/// Files without a name, each with its content: it stays in use until the kernel forgets the file,
/// which may be later than its last close (a descriptor of `O_PATH` is no open file).
#[derive(Default)]
pub(super) struct Unnamed(Mutex<HashMap<Nid, Arc<Content>>>);

impl Unnamed {
    fn lock(&self) -> MutexGuard<'_, HashMap<Nid, Arc<Content>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tree {
    /// Makes a file that has no name; `parent` is the folder whose namespace and group it gets.
    pub fn make_unnamed(
        &self,
        parent: Nid,
        new: NewNode,
    ) -> Result<(Node, Arc<Content>), TreeError> {
        self.spool.cache().files().reserve(&self.db)?;
        let (node, content) = self.db.change(|c| {
            let dir = self.dir_for_change(c, parent)?;
            let node = Node { links: 0, ..self.new_in(c, &dir, new, now())? };
            c.insert_node(&node)?;
            let content = self.spool.fresh(&node)?;
            Ok::<_, TreeError>((node, content))
        })?;
        self.unnamed.lock().insert(node.nid, content.clone());
        Ok((node, content))
    }

    /// True for a file that was made without a name, has none, and may get one.
    pub(super) fn is_unnamed(&self, nid: Nid) -> bool {
        self.unnamed.lock().contains_key(&nid)
    }

    /// From now on the file stays without a name, or has one. True if it had none until now.
    pub fn forget_unnamed(&self, nid: Nid) -> bool {
        // The content may be dropped with it: not under the lock.
        let content = self.unnamed.lock().remove(&nid);
        content.is_some()
    }
}
