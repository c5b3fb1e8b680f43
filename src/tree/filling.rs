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
use drivefs_core::wire::ListReply;

use super::Tree;
use super::TreeError;
use super::apply::Applied;
use crate::state::Conn;
use crate::state::DbError;
use crate::state::Nid;
use crate::state::Node;

/// Namespaces that are filling, each with the folders that are complete all the same.
#[derive(Default)]
pub(super) struct Filling {
    /// False once nothing is filling any more: the common case asks no lock.
    any: AtomicBool,
    namespaces: Mutex<HashMap<NamespaceId, HashSet<Nid>>>,
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
        self.lock().insert(ns, HashSet::new());
        self.any.store(true, Ordering::Release);
    }

    pub fn end(&self, ns: NamespaceId) {
        let mut namespaces = self.lock();
        namespaces.remove(&ns);
        self.any.store(!namespaces.is_empty(), Ordering::Release);
    }

    pub fn note_complete(&self, ns: NamespaceId, folder: Nid) {
        if self.any.load(Ordering::Acquire)
            && let Some(folders) = self.lock().get_mut(&ns)
        {
            folders.insert(folder);
        }
    }

    pub fn is_complete(&self, ns: NamespaceId, folder: Nid) -> bool {
        !self.any.load(Ordering::Acquire)
            || self.lock().get(&ns).is_none_or(|folders| folders.contains(&folder))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NamespaceId, HashSet<Nid>>> {
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
    pub fn is_complete(&self, folder: &Node) -> bool {
        self.filling.is_complete(folder.ns, folder.nid)
    }

    /// Takes in one page of a folder's listing.
    pub fn apply_list(&self, folder: &Node, page: &ListReply) -> Result<(), TreeError> {
        let mut applied = self.db.write(|c| {
            let mut applied = Applied::default();
            for row in &page.nodes {
                self.apply_node(c, folder.ns, row, &mut applied)?;
            }
            for row in &page.dirents {
                self.apply_dirent(c, folder.ns, row, &HashSet::new(), &mut applied)?;
            }
            Ok::<_, TreeError>(applied)
        })?;
        self.after_apply(&mut applied)?;
        if !page.more {
            self.filling.note_complete(folder.ns, folder.nid);
        }
        Ok(())
    }

    /// Notes, with the first page of a namespace, that it is filling.
    pub(super) fn begin_fill(&self, c: &Conn<'_>, ns: NamespaceId) -> Result<(), DbError> {
        self.filling.begin(ns);
        c.set_meta(&key(ns), b"")
    }

    /// Notes, with a last page, that a namespace is all here.
    pub(super) fn end_fill(&self, c: &Conn<'_>, ns: NamespaceId) -> Result<(), DbError> {
        if c.meta(&key(ns))?.is_some() {
            c.delete_meta(&key(ns))?;
        }
        Ok(())
    }
}
